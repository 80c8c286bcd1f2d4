//! A clock of the user's that panics, where time is due.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicBool;

/// Why the clock is read: a hold that may expire, a window, or both.
const REASONS: [(bool, bool); 3] = [(true, false), (false, true), (true, true)];

struct Run {
    clock: ManualClock,
    is_broken: Arc<AtomicBool>,
    pool: BudgetPool,
    hold: Reservation,
}

impl Run {
    /// A pool of 100 tokens, 10 of them used and 30 held for 10 seconds or for good.
    fn new((expires, has_window): (bool, bool)) -> Run {
        let (clock, is_broken) = (ManualClock::new(), Arc::<AtomicBool>::default());
        let breakable = {
            let (clock, is_broken) = (clock.clone(), Arc::clone(&is_broken));
            move || {
                if is_broken.load(Ordering::Relaxed) {
                    // A panic, but for the text.
                    resume_unwind(Box::new("broken"));
                }
                clock.now()
            }
        };
        let pool = BudgetPool::builder().name("run").tokens(100).clock(breakable).timer(by_hand);
        let pool = if has_window { pool.window(Window::fixed(secs(60))) } else { pool };
        let pool = pool.build();
        pool.record(tokens(10)).unwrap();
        let hold = pool
            .reserve(Ask::new(tokens(30)).ttl(if expires { secs(10) } else { Duration::MAX }))
            .unwrap();
        Run { clock, is_broken, pool, hold }
    }

    fn breaks(&self, is_broken: bool) {
        self.is_broken.store(is_broken, Ordering::Relaxed);
    }
}

#[test]
fn p2_what_is_told_is_booked_as_if_no_time_had_passed() {
    type Tell = fn(&BudgetPool, Reservation);
    let cases: [(Tell, [u64; 3]); 12] = [
        (|_, hold| _ = hold.commit(tokens(20)), [30, 0, 0]),
        (|_, hold| _ = hold.commit(tokens(95)), [100, 0, 5]),
        (|_, hold| _ = hold.commit_all(), [40, 0, 0]),
        (|_, hold| _ = hold.commit(tokens(25)), [35, 0, 0]),
        (|_, hold| _ = hold.try_commit(tokens(90)).unwrap(), [100, 0, 0]),
        (|_, hold| drop(hold), [10, 0, 0]),
        (|_, hold| drop(hold.commit_on_drop()), [40, 0, 0]),
        (
            |_, hold| {
                hold.debit(tokens(5));
                forget(hold);
            },
            [15, 25, 0],
        ),
        (
            |_, hold| {
                hold.shrink(tokens(10)).unwrap();
                assert_eq!(hold.amount(), tokens(20));
                forget(hold);
            },
            [10, 20, 0],
        ),
        (
            |pool, hold| {
                pool.debit(tokens(80));
                forget(hold);
            },
            [70, 30, 20],
        ),
        (
            |pool, hold| {
                assert_eq!((pool.holders().len(), pool.snapshot_tree().iter().count()), (1, 1));
                pool.lower_caps(Caps::new().tokens(60)).unwrap();
                forget(hold);
            },
            [10, 30, 0],
        ),
        (
            |pool, hold| {
                assert_eq!(pool.reset().tokens.used, 10);
                forget(hold);
            },
            [0, 30, 0],
        ),
    ];
    for (case, (tell, then)) in cases.into_iter().enumerate() {
        for reason in REASONS {
            let Run { clock, is_broken, pool, hold } = Run::new(reason);
            // Much is due, and nobody can know.
            clock.advance(secs(100));
            is_broken.store(true, Ordering::Relaxed);
            tell(&pool, hold);
            assert_eq!(balance(&pool), then, "{case}, {reason:?}");
            is_broken.store(false, Ordering::Relaxed);
            pool.peek(tokens(0)).unwrap();
            let (expires, has_window) = reason;
            let [used, reserved, overage] = then;
            let held = if expires { 0 } else { reserved };
            let paid = if expires { overage.min(reserved) } else { 0 };
            let later = if has_window { [0, held, 0] } else { [used + paid, held, overage - paid] };
            assert_eq!(balance(&pool), later, "{case}, {reason:?}: once it is known");
        }
    }
}

#[test]
fn p2_a_panic_in_a_task_that_holds_does_not_become_an_abort() {
    let Run { is_broken, pool, hold, .. } = Run::new((true, true));
    let other = pool.reserve(tokens(20)).unwrap().commit_on_drop();
    is_broken.store(true, Ordering::Relaxed);
    let caught = catch_unwind(AssertUnwindSafe(|| {
        let _both = (hold, other);
        resume_unwind(Box::new("the task's own"));
    }));
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"the task's own"));
    assert_eq!(balance(&pool), [30, 0, 0]);
}

#[test]
fn p7_what_asks_panics_where_it_is_called_and_changes_nothing() {
    type Asked = fn(&BudgetPool, &mut Reservation) -> bool;
    let asks: [Asked; 10] = [
        |pool, _| pool.record(tokens(1)).is_ok(),
        |pool, _| pool.peek(tokens(1)).is_ok(),
        |pool, _| pool.reserve(tokens(1)).is_ok(),
        |pool, _| pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).is_ok(),
        |pool, _| pool.record_once("key", tokens(1)).is_ok(),
        |pool, _| pool.raise_caps(Caps::new().tokens(1)).is_ok(),
        |_, hold| hold.record(tokens(1)).is_ok(),
        |_, hold| hold.grow(tokens(1)).is_ok(),
        |_, hold| hold.split(tokens(1)).is_ok(),
        |_, hold| hold.renew(secs(1)).is_ok(),
    ];
    for (case, ask) in asks.into_iter().enumerate() {
        for reason in REASONS {
            let mut run = Run::new(reason);
            let before = run.pool.snapshot();
            run.breaks(true);
            let asked = catch_unwind(AssertUnwindSafe(|| ask(&run.pool, &mut run.hold)));
            assert_eq!(asked.unwrap_err().downcast_ref(), Some(&"broken"), "{case}");
            run.breaks(false);
            assert_eq!(run.pool.snapshot(), before, "{case}");
            assert!(ask(&run.pool, &mut run.hold), "{case}");
            run.hold.commit_all();
        }
    }
}

/// That there is a hold which may expire, or a window below, is then only found once the lock
/// is held.
#[test]
fn p2_one_that_panics_only_once_is_asked_again() {
    let clock = ManualClock::new();
    let panics = Arc::new(AtomicUsize::new(0));
    let (time, left) = (clock.clone(), Arc::clone(&panics));
    let pool = BudgetPool::builder()
        .tokens(100)
        .clock(move || {
            if left
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
            {
                resume_unwind(Box::new("broken"));
            }
            time.now()
        })
        .timer(by_hand);
    let pool = pool.build();
    let turning = pool.child().tokens(10).window(Window::fixed(secs(5))).build();
    turning.record(tokens(10)).unwrap();
    for (panicking, used) in [(1, 10), (0, 0)] {
        clock.advance(secs(5));
        panics.store(panicking, Ordering::Relaxed);
        let seen: Vec<_> = pool.snapshot_tree().iter().map(|pool| pool.tokens.used).collect();
        assert_eq!(seen, [10, used]);
    }
    let late = pool.reserve(Ask::new(tokens(60)).ttl(secs(5))).unwrap();
    clock.advance(secs(5));
    panics.store(1, Ordering::Relaxed);
    assert!(late.commit(tokens(60)).is_late());
    assert_eq!(panics.load(Ordering::Relaxed), 0);
}
