//! A clock that panics for good: what tells goes by the time that was seen last, also where no call
//! has done yet what was due by then.

use super::*;
use budget_pool::{Clock, OnDrop};
use std::time::Instant;

#[derive(Clone, Default)]
struct Dying {
    time: ManualClock,
    is_dead: Arc<AtomicBool>,
}

impl Dying {
    fn dies(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
    }
}

impl Clock for Dying {
    fn now(&self) -> Instant {
        if self.is_dead.load(Ordering::SeqCst) {
            panics();
        }
        self.time.now()
    }
}

#[test]
fn p8_a_hold_that_was_seen_to_be_due_has_expired() {
    let clock = Dying::default();
    let pool = BudgetPool::builder().tokens(1_000).clock(clock.clone()).build();
    let hold = |ttl| pool.reserve(Ask::new(tokens(10)).ttl(secs(ttl))).unwrap().label("due");
    let mut holds: Vec<_> = (1..=9).map(hold).collect();
    clock.time.advance(secs(100));
    pool.record(tokens(1)).unwrap();
    clock.dies();
    // One call reclaims few: each of these comes to a hold that is left.
    assert!(holds.pop().unwrap().is_expired());
    drop(holds.pop().unwrap().on_drop(OnDrop::Commit));
    assert!(holds.pop().unwrap().commit(tokens(4)).is_late());
    assert!(holds.pop().unwrap().debit(tokens(3)).is_late());
    let labelled = holds.pop().unwrap().label("late");
    assert!(!pool.holders().iter().any(|holder| holder.label.as_deref() == Some("late")));
    assert!(labelled.is_expired());
    assert_eq!(pool.snapshot().tokens.used, 1 + 4 + 3);
    check_invariants(&pool);
}

#[test]
fn p2_a_spend_that_is_told_once_is_booked_without_a_clock() {
    for (has_been_read, booked) in [(true, 5), (false, 10)] {
        let clock = Dying::default();
        let pool = BudgetPool::builder().tokens(1_000).clock(clock.clone()).build();
        if has_been_read {
            drop(pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap());
        }
        clock.dies();
        // Who has never known the time knows no key: the event may be booked again.
        for _ in 0..2 {
            pool.debit_once("event", tokens(5)).unwrap();
        }
        assert_eq!(pool.snapshot().tokens.used, booked);
        check_invariants(&pool);
    }
}

#[test]
fn p8_a_window_turns_by_the_time_that_was_seen_elsewhere() {
    let clock = Dying::default();
    let root = BudgetPool::builder().clock(clock.clone()).build();
    let window = || root.child().tokens(100).window(Window::fixed(secs(60))).build();
    let (pool, elsewhere) = (window(), window());
    pool.debit(tokens(70));
    clock.time.advance(secs(100));
    elsewhere.debit(tokens(1));
    clock.dies();
    assert_eq!(pool.debit(tokens(50)).overage(), tokens(0));
    assert_eq!(pool.snapshot().tokens.used, 50);
    check_invariants(&root);
}
