//! Time: holds that expire, caps that come back, calls that count once, waits that time ends;
//! through the public API alone.

use std::any::Any;
use std::mem::forget;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Clock, Lease, ManualClock, Outlook,
    PoolBuilder, Receipt, Reservation, Root, Usd, Window,
};

#[path = "support/waiter.rs"]
mod waiter;

use waiter::{Waiter, by_hand};

const NANO: Duration = Duration::from_nanos(1);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn spent(pool: &BudgetPool) -> u64 {
    pool.snapshot().tokens.spent
}

fn pool_of(cap: u64) -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let pool =
        BudgetPool::builder().name("run").tokens(cap).clock(clock.clone()).timer(by_hand).build();
    (clock, pool)
}

fn windowed(cap: u64, window: Window) -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("run")
        .tokens(cap)
        .window(window)
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    (clock, pool)
}

/// A clock, and how often it was read.
struct Counting {
    clock: ManualClock,
    reads: Arc<AtomicU64>,
}

impl Counting {
    fn new() -> Counting {
        Counting { clock: ManualClock::new(), reads: Arc::default() }
    }

    fn clock(&self) -> impl Clock + 'static {
        let (clock, reads) = (self.clock.clone(), Arc::clone(&self.reads));
        move || {
            reads.fetch_add(1, Ordering::Relaxed);
            clock.now()
        }
    }

    /// Since it was last asked.
    fn reads(&self) -> u64 {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

/// Many holds that expire in a second. A call that need not reclaim all reclaims only some of
/// these, and nothing that expires later.
fn due_before(pool: &BudgetPool) {
    (0..20).for_each(|_| forget(pool.reserve(Ask::new(Amount::new()).ttl(secs(1))).unwrap()));
}

/// The hold on `run` has expired.
fn is_expired(refusal: &BudgetError) -> bool {
    matches!(refusal, BudgetError::Expired { pool, .. } if pool == "run")
}

mod ttl {
    use super::*;

    #[test]
    fn p3_a_hold_lives_until_its_instant_and_has_expired_at_it() {
        let (clock, pool) = pool_of(100);
        let hold = pool.reserve(Ask::new(tokens(60)).ttl(secs(10))).unwrap();
        clock.advance(secs(10) - NANO);
        assert!(pool.record(tokens(41)).is_err());
        assert_eq!(
            (hold.amount(), hold.time_left(), pool.holders().len()),
            (tokens(60), Some(NANO), 1)
        );
        clock.advance(NANO);
        assert_eq!((hold.time_left(), hold.amount()), (Some(Duration::ZERO), Amount::new()));
        pool.record(tokens(100)).unwrap();
        assert_eq!(hold.time_left(), Some(Duration::ZERO));
    }

    #[test]
    fn p3_a_forgotten_guard_leaks_nothing() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(100)
            .usd(Usd::from_nanos(5))
            .in_flight(1)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        forget(pool.reserve(Ask::new(tokens(100).usd(Usd::from_nanos(5))).ttl(secs(1))).unwrap());
        assert_eq!(pool.reserve(Amount::new()).unwrap_err().axis(), Some(Axis::InFlight));
        clock.advance(secs(1));
        let after = pool.snapshot();
        assert_eq!(
            (after.tokens.reserved, after.usd.reserved, after.in_flight.reserved),
            (0, Usd::from_nanos(0), 0)
        );
        assert_eq!((after.reservations, after.tokens.spent, pool.holders().len()), (0, 0, 0));
        let next = pool.reserve(tokens(100).usd(Usd::from_nanos(5))).unwrap();
        clock.advance(secs(1_000));
        assert_eq!(
            (balance(&pool), pool.snapshot().reservations, next.amount().tokens_held()),
            ([0, 100, 0], 1, 100)
        );
    }

    trait TokensHeld {
        fn tokens_held(&self) -> u64;
    }

    impl TokensHeld for Amount {
        fn tokens_held(&self) -> u64 {
            self.get(Axis::Tokens).map_or(0, |tokens| tokens.units())
        }
    }

    /// A hold of 40 tokens and 5 nanos, of which 10 tokens were metered in time: it has expired.
    fn late(is_reclaimed: bool) -> (BudgetPool, Reservation) {
        let (clock, pool) = pool_of(100);
        let hold = pool.reserve(Ask::new(tokens(50).usd(Usd::from_nanos(5))).ttl(secs(1))).unwrap();
        hold.record(tokens(10)).unwrap();
        clock.advance(secs(1));
        if is_reclaimed {
            assert_eq!(balance(&pool), [10, 0, 0]);
        }
        (pool, hold)
    }

    #[test]
    fn p2_after_expiry_what_is_told_is_booked_and_marked() {
        type Tell = fn(Reservation) -> Receipt;
        let cases: [(Tell, Amount, u64); 7] = [
            (|hold| hold.commit(tokens(40)), tokens(30).usd(Usd::from_nanos(5)), 40),
            (
                |hold| hold.commit(tokens(40).usd(Usd::from_nanos(0))),
                tokens(30).usd(Usd::from_nanos(0)),
                40,
            ),
            (|hold| hold.commit(tokens(4)), tokens(0).usd(Usd::from_nanos(5)), 4),
            (Reservation::commit_all, tokens(40).usd(Usd::from_nanos(5)), 50),
            (|hold| hold.commit(tokens(35)), tokens(25).usd(Usd::from_nanos(5)), 35),
            (|hold| hold.debit(tokens(7)), tokens(7), 17),
            (
                |hold| {
                    hold.debit(tokens(7));
                    hold.commit_all()
                },
                tokens(33).usd(Usd::from_nanos(5)),
                50,
            ),
        ];
        for (case, (tell, settled, used)) in cases.into_iter().enumerate() {
            for is_reclaimed in [false, true] {
                let (pool, hold) = late(is_reclaimed);
                let receipt = tell(hold);
                assert!(receipt.is_late(), "{case}");
                assert_eq!(
                    (receipt.settled(), receipt.overage().is_zero()),
                    (settled, true),
                    "{case}"
                );
                assert_eq!(
                    (balance(&pool), pool.snapshot().reservations),
                    ([used, 0, 0], 0),
                    "{case}"
                );
            }
        }
    }

    #[test]
    fn p2_a_late_commit_that_does_not_fit_any_more_is_overage_and_one_in_time_is_not_marked() {
        let (pool, hold) = late(false);
        pool.record(tokens(80)).unwrap();
        let receipt = hold.commit(tokens(40));
        assert_eq!(
            (receipt.overage(), balance(&pool)),
            (tokens(20).usd(Usd::from_nanos(0)), [100, 0, 20])
        );
        let (clock, pool) = pool_of(100);
        let [hold, whole] =
            [(); 2].map(|()| pool.reserve(Ask::new(tokens(10)).ttl(secs(1))).unwrap());
        clock.advance(secs(1) - NANO);
        assert!(!hold.debit(tokens(1)).is_late() && !hold.commit_all().is_late());
        assert!(
            !whole.try_commit(tokens(1)).unwrap().is_late() && !pool.debit(tokens(1)).is_late()
        );
    }

    #[test]
    fn p7_after_expiry_what_asks_is_refused_and_changes_nothing() {
        for is_reclaimed in [false, true] {
            let (pool, hold) = late(is_reclaimed);
            let refusals = [
                hold.record(tokens(1)).unwrap_err(),
                hold.grow(tokens(1)).unwrap_err(),
                hold.shrink(tokens(1)).unwrap_err(),
                hold.split(tokens(1)).unwrap_err(),
                hold.renew(secs(10)).unwrap_err(),
            ];
            assert!(refusals.iter().all(is_expired), "{refusals:?}");
            let refused = hold.try_commit(tokens(1)).unwrap_err();
            assert!(is_expired(refused.error()));
            assert_eq!(refused.error().outlook(), Outlook::Never);
            assert_eq!((balance(&pool), pool.snapshot().reservations), ([10, 0, 0], 0));
            assert_eq!(
                refused.into_reservation().commit_all().settled(),
                tokens(40).usd(Usd::from_nanos(5))
            );
        }
    }

    #[test]
    fn p3_after_expiry_drop_and_release_give_nothing_back_twice() {
        for end in [drop, Reservation::release] {
            for is_reclaimed in [false, true] {
                let (pool, hold) = late(is_reclaimed);
                let other = pool.reserve(tokens(90)).unwrap();
                end(hold);
                let after = pool.snapshot();
                assert_eq!(
                    (balance(&pool), after.in_flight.reserved, after.reservations),
                    ([10, 90, 0], 1, 1)
                );
                drop(other);
                assert_eq!((balance(&pool), pool.snapshot().in_flight.reserved), ([10, 0, 0], 0));
            }
        }
    }

    #[test]
    fn p2_a_hold_that_commits_on_drop_settles_when_it_expires_and_counts_once() {
        type Tell = fn(Reservation) -> Option<Receipt>;
        let cases: [(Tell, u64, u64); 9] = [
            (|hold| Some(hold.commit(tokens(30))), 0, 30),
            (|hold| Some(hold.commit(tokens(55))), 15, 55),
            (|hold| Some(hold.commit_all()), 0, 40),
            (|hold| Some(hold.commit(tokens(41))), 1, 41),
            (|hold| Some(hold.debit(tokens(40))), 0, 40),
            (|hold| [hold.debit(tokens(30)), hold.debit(tokens(30))].last().copied(), 20, 60),
            (
                |hold| {
                    hold.debit(tokens(30));
                    Some(hold.commit(tokens(50)))
                },
                10,
                50,
            ),
            (
                |hold| {
                    drop(hold);
                    None
                },
                0,
                40,
            ),
            (
                |hold| {
                    hold.release();
                    None
                },
                0,
                40,
            ),
        ];
        for (case, (tell, settled, used)) in cases.into_iter().enumerate() {
            for is_reclaimed in [false, true] {
                let (clock, pool) = pool_of(100);
                let hold =
                    pool.reserve(Ask::new(tokens(40)).ttl(secs(1))).unwrap().commit_on_drop();
                clock.advance(secs(1));
                if is_reclaimed {
                    assert_eq!((balance(&pool), pool.snapshot().reservations), ([40, 0, 0], 0));
                    assert_eq!(hold.amount(), Amount::new());
                }
                let receipt = tell(hold);
                assert!(receipt.is_none_or(|receipt| receipt.is_late()), "{case}");
                assert_eq!(
                    receipt.map_or(0, |receipt| receipt.settled().tokens_held()),
                    settled,
                    "{case}"
                );
                assert_eq!(
                    (balance(&pool), pool.snapshot().reservations),
                    ([used, 0, 0], 0),
                    "{case}"
                );
            }
        }
    }

    #[test]
    fn p3_to_commit_on_drop_comes_too_late_after_expiry() {
        let (clock, pool) = pool_of(100);
        let hold = pool.reserve(Ask::new(tokens(40)).ttl(secs(1))).unwrap();
        clock.advance(secs(1));
        drop(hold.commit_on_drop());
        assert_eq!(balance(&pool), [0, 0, 0]);
    }

    #[test]
    fn p3_both_halves_of_a_split_keep_the_time() {
        let (clock, pool) = pool_of(100);
        let hold = pool.reserve(Ask::new(tokens(60)).ttl(secs(10))).unwrap();
        clock.advance(secs(4));
        let half = hold.split(tokens(20)).unwrap();
        assert_eq!((hold.time_left(), half.time_left()), (Some(secs(6)), Some(secs(6))));
        clock.advance(secs(6));
        assert_eq!(
            (hold.amount(), half.amount(), balance(&pool)),
            (Amount::new(), Amount::new(), [0, 0, 0])
        );
        let settling = pool.reserve(Ask::new(tokens(60)).ttl(secs(1))).unwrap().commit_on_drop();
        forget(settling.split(tokens(20)).unwrap());
        forget(settling);
        clock.advance(secs(1));
        assert_eq!(pool.snapshot().tokens.used, 20 + 40);
    }

    #[test]
    fn a_renewed_hold_lives_from_then_on_so_long() {
        let (clock, pool) = pool_of(100);
        let [longer, shorter, endless] =
            [(); 3].map(|()| pool.reserve(Ask::new(tokens(10)).ttl(secs(10))).unwrap());
        let given = pool.reserve(tokens(10)).unwrap();
        assert_eq!(given.time_left(), None);
        clock.advance(secs(1));
        longer.renew(secs(20)).unwrap();
        shorter.renew(secs(2)).unwrap();
        given.renew(secs(3)).unwrap();
        endless.renew(Duration::MAX).unwrap();
        let left = |holds: [&Reservation; 4]| holds.map(Reservation::time_left);
        let all = [&longer, &shorter, &given, &endless];
        assert_eq!(left(all), [Some(secs(20)), Some(secs(2)), Some(secs(3)), None]);
        clock.advance(secs(2));
        assert_eq!((balance(&pool)[1], shorter.amount()), (30, Amount::new()));
        clock.advance(secs(1));
        assert_eq!((balance(&pool)[1], given.amount()), (20, Amount::new()));
        clock.advance(secs(17) - NANO);
        assert_eq!((balance(&pool)[1], longer.amount()), (20, tokens(10)));
        clock.advance(NANO);
        assert_eq!((balance(&pool)[1], endless.amount()), (10, tokens(10)));
    }

    #[test]
    fn a_hold_can_be_renewed_on_a_closed_pool_and_after_the_deadline() {
        let clock = ManualClock::new();
        let pool =
            BudgetPool::builder().deadline(secs(5)).clock(clock.clone()).timer(by_hand).build();
        let hold = pool.reserve(Ask::new(tokens(1)).ttl(secs(8))).unwrap();
        assert_eq!(hold.time_left(), Some(secs(5)), "the deadline comes first");
        clock.advance(secs(6));
        pool.close();
        hold.renew(secs(4)).unwrap();
        clock.advance(secs(4) - NANO);
        assert_eq!(hold.amount(), tokens(1));
        clock.advance(NANO);
        let refused = hold.renew(secs(1)).unwrap_err();
        assert!(matches!(refused, BudgetError::Expired { pool, .. } if pool == "pool"));
    }

    #[test]
    fn a_ttl_of_zero_has_expired_from_the_start_and_one_beyond_all_instants_is_none() {
        let (clock, pool) = pool_of(100);
        let zero = pool.reserve(Ask::new(tokens(100)).ttl(Duration::ZERO)).unwrap();
        assert_eq!(zero.time_left(), Some(Duration::ZERO));
        assert!(is_expired(&zero.record(tokens(1)).unwrap_err()));
        pool.record(tokens(100)).unwrap();
        let endless = pool.reserve(Ask::new(Amount::new()).ttl(Duration::MAX)).unwrap();
        clock.advance(secs(1 << 33));
        assert_eq!((endless.time_left(), pool.snapshot().reservations), (None, 1));
        assert!(zero.commit_all().is_late());
        assert_eq!(balance(&pool), [100, 0, 100]);
    }

    #[test]
    fn p4_what_needs_all_that_has_expired_is_admitted() {
        type Asked = fn(&BudgetPool) -> bool;
        let asks: [Asked; 7] = [
            |pool| pool.record(tokens(1_000)).is_ok(),
            |pool| pool.peek(tokens(1_000)).is_ok(),
            |pool| pool.reserve(tokens(1_000)).is_ok(),
            |pool| pool.record_once("key", tokens(1_000)).is_ok(),
            |pool| pool.child().tokens(1_000).carved().build().is_ok(),
            |pool| pool.lower_caps(Caps::new().tokens(1_000)).is_ok(),
            |pool| pool.debit(tokens(1_000)).overage().is_zero(),
        ];
        for (case, ask) in asks.into_iter().enumerate() {
            let (clock, pool) = pool_of(1_000);
            (0..1_000)
                .for_each(|_| forget(pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap()));
            clock.advance(secs(1) - NANO);
            assert!(pool.peek(tokens(1)).is_err());
            clock.advance(NANO);
            assert!(ask(&pool), "{case}");
        }
    }

    #[test]
    fn p4_a_hold_that_asks_for_more_finds_what_has_expired() {
        type Asked = fn(Reservation) -> bool;
        let asks: [Asked; 6] = [
            |hold| hold.grow(tokens(990)).is_ok(),
            |hold| hold.record(tokens(1_000)).is_ok(),
            |hold| hold.try_commit(tokens(1_000)).is_ok(),
            |hold| hold.commit(tokens(1_000)).overage().is_zero(),
            |hold| hold.debit(tokens(1_000)).overage().is_zero(),
            |hold| (0..99).all(|_| hold.split(tokens(0)).map(forget).is_ok()),
        ];
        for (case, ask) in asks.into_iter().enumerate() {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder()
                .tokens(1_000)
                .in_flight(100)
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            (0..99).for_each(|_| forget(pool.reserve(Ask::new(tokens(10)).ttl(secs(1))).unwrap()));
            let hold = pool.reserve(tokens(10)).unwrap();
            clock.advance(secs(1));
            assert!(ask(hold), "{case}");
        }
    }

    #[test]
    fn p4_a_lease_that_needs_more_finds_what_has_expired() {
        type Asked = fn(&mut Lease) -> bool;
        let asks: [Asked; 2] = [
            |lease| lease.record(tokens(100)).is_ok(),
            |lease| lease.debit(tokens(100)).overage().is_zero(),
        ];
        for ask in asks {
            let (clock, pool) = pool_of(100);
            let mut lease = pool.lease(tokens(10));
            due_before(&pool);
            forget(pool.reserve(Ask::new(tokens(90)).ttl(secs(1))).unwrap());
            clock.advance(secs(1));
            assert!(ask(&mut lease));
            assert_eq!(balance(&pool), [100, 0, 0]);
        }
    }

    #[test]
    fn p5_whoever_looks_sees_nothing_that_has_expired() {
        type Look = fn(&BudgetPool) -> u64;
        let looks: [Look; 5] = [
            |pool| pool.snapshot().reservations,
            |pool| pool.snapshot().tokens.reserved,
            |pool| pool.snapshot_tree().iter().map(|pool| pool.reservations).sum(),
            |pool| pool.holders().len() as u64,
            |pool| pool.reset().tokens.reserved,
        ];
        for look in looks {
            let (clock, pool) = pool_of(1_000);
            let child = pool.child().build();
            (0..100).for_each(|_| forget(child.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap()));
            clock.advance(secs(1));
            assert_eq!(look(&pool), 0);
        }
    }

    #[test]
    fn p1_an_addition_to_a_share_that_owes_is_no_budget_out_of_nothing() {
        let (clock, root) = pool_of(1_000);
        let share = root.child().tokens(100).carved().build().unwrap();
        due_before(&root);
        forget(share.reserve(Ask::new(tokens(50)).ttl(secs(2))).unwrap());
        share.debit(tokens(70));
        // What is asked above is there only once this was reclaimed, and the hold of the share
        // before it.
        forget(root.reserve(Ask::new(tokens(880)).ttl(secs(3))).unwrap());
        clock.advance(secs(3));
        share.raise_caps(Caps::new().tokens(30)).unwrap();
        assert_eq!(balance(&share), [70, 0, 0], "what expired pays first");
        assert_eq!(
            balance(&root),
            [70, 130 - 70, 0],
            "all that is left of the share is held above"
        );
        share.debit(tokens(60));
        assert_eq!((balance(&root), balance(&share)), ([130, 0, 0], [130, 0, 0]));
    }

    #[test]
    fn p2_a_late_commit_finds_what_has_expired_and_is_no_overage() {
        for is_reclaimed in [false, true] {
            let (clock, pool) = pool_of(100);
            let late = pool.reserve(Ask::new(tokens(50)).ttl(secs(1))).unwrap();
            if is_reclaimed {
                clock.advance(secs(1));
                assert_eq!(balance(&pool), [0, 0, 0]);
                due_before(&pool);
                forget(pool.reserve(Ask::new(tokens(100)).ttl(secs(1))).unwrap());
            } else {
                due_before(&pool);
                forget(pool.reserve(Ask::new(tokens(50)).ttl(secs(1))).unwrap());
                pool.debit(tokens(20));
            }
            clock.advance(secs(1));
            let (receipt, used) = (late.commit_all(), balance(&pool)[0]);
            assert!(receipt.is_late() && receipt.overage().is_zero(), "{receipt:?}");
            assert_eq!(used, if is_reclaimed { 50 } else { 50 + 20 });
        }
    }

    #[test]
    fn p8_what_has_expired_has_no_time_left_though_the_clock_runs_back() {
        let (start, offset) = (Instant::now(), Arc::new(AtomicU64::new(10)));
        let read = Arc::clone(&offset);
        let pool = BudgetPool::builder()
            .clock(move || start + secs(read.load(Ordering::Relaxed)))
            .timer(by_hand)
            .build();
        let hold = pool.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap();
        for now in [16, 12] {
            offset.store(now, Ordering::Relaxed);
            assert_eq!((hold.amount(), hold.time_left()), (Amount::new(), Some(Duration::ZERO)));
        }
    }

    #[test]
    fn p3_a_hold_in_a_child_that_expires_frees_the_parent_for_a_sibling() {
        let (clock, root) = pool_of(100);
        let (a, b) = (root.child().tokens(100).build(), root.child().tokens(100).build());
        forget(a.reserve(Ask::new(tokens(100)).ttl(secs(1))).unwrap());
        clock.advance(secs(1) - NANO);
        assert_eq!(b.record(tokens(1)).unwrap_err().pool(), "run");
        clock.advance(NANO);
        b.record(tokens(100)).unwrap();
        assert_eq!(
            [balance(&root), balance(&a), balance(&b)],
            [[100, 0, 0], [0, 0, 0], [100, 0, 0]]
        );
    }

    #[test]
    fn p3_what_expires_in_a_carved_pool_stays_its_share_or_goes_back_once_closed() {
        let (clock, root) = pool_of(100);
        let share = root.child().tokens(60).carved().build().unwrap();
        forget(share.reserve(Ask::new(tokens(60)).ttl(secs(1))).unwrap());
        clock.advance(secs(1));
        assert!(root.record(tokens(41)).is_err());
        share.record(tokens(50)).unwrap();
        assert_eq!((balance(&root), balance(&share)), ([50, 10, 0], [50, 0, 0]));
        let late = share.reserve(Ask::new(tokens(10)).ttl(secs(1))).unwrap();
        share.close();
        assert_eq!(balance(&root), [50, 10, 0]);
        clock.advance(secs(1));
        root.record(tokens(50)).unwrap();
        assert_eq!(late.debit(tokens(10)).overage(), tokens(10));
        assert_eq!((balance(&root), balance(&share)), ([100, 0, 10], [50, 0, 10]));
    }

    #[test]
    fn p2_a_hold_settles_into_the_period_in_which_it_expired() {
        let (clock, pool) = windowed(100, Window::fixed(secs(60)));
        let settling = |n, ttl| {
            forget(pool.reserve(Ask::new(tokens(n)).ttl(secs(ttl))).unwrap().commit_on_drop())
        };
        settling(10, 30);
        settling(20, 60);
        settling(40, 119);
        clock.advance(secs(119));
        assert_eq!(
            (balance(&pool), spent(&pool)),
            ([60, 0, 0], 70),
            "at the turn it is in the new period"
        );
        settling(10, 30);
        settling(20, 600);
        clock.advance(secs(10_000));
        pool.record(tokens(1)).unwrap();
        assert_eq!((balance(&pool), spent(&pool)), ([1, 0, 0], 101));
    }

    #[test]
    fn p2_many_holds_settle_in_their_time_though_they_are_reclaimed_in_batches() {
        let (clock, pool) = windowed(1_000, Window::fixed(secs(60)));
        for ttl in 1..=100 {
            forget(pool.reserve(Ask::new(tokens(1)).ttl(secs(ttl))).unwrap().commit_on_drop());
        }
        clock.advance(secs(100));
        pool.peek(tokens(1)).unwrap();
        assert_eq!((balance(&pool), spent(&pool)), ([41, 0, 0], 100));
    }

    #[test]
    fn p2_a_late_commit_belongs_to_the_period_in_which_it_is_told() {
        let (clock, pool) = windowed(100, Window::fixed(secs(60)));
        let hold = pool.reserve(Ask::new(tokens(40)).ttl(secs(30))).unwrap();
        let settled = pool.reserve(Ask::new(tokens(40)).ttl(secs(30))).unwrap().commit_on_drop();
        clock.advance(secs(70));
        assert!(hold.commit_all().is_late());
        assert_eq!(settled.commit(tokens(45)).settled(), tokens(5));
        assert_eq!((balance(&pool), spent(&pool)), ([45, 0, 0], 85));
    }
}

/// What has expired is reclaimed a little by each call, but at once where somebody could tell.
mod reclaiming {
    use super::*;

    /// More than a call must reclaim, and how many that is.
    const MANY: u64 = 20;
    const BATCH: u64 = 2;

    /// A tree with many holds of a token on one tenant, nobody's any more, that expire in a second.
    struct Tree {
        clock: Counting,
        root: BudgetPool,
        other: BudgetPool,
    }

    impl Tree {
        fn new(build: impl FnOnce(PoolBuilder<Root>) -> PoolBuilder<Root>) -> Tree {
            let clock = Counting::new();
            let root =
                build(BudgetPool::builder().name("root").clock(clock.clock()).timer(by_hand))
                    .build();
            let tenant = root.child().build();
            (0..MANY)
                .for_each(|_| forget(tenant.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap()));
            let other = root.child().build();
            Tree { clock, root, other }
        }

        /// The call of another tenant, which needs none of what has expired.
        fn call(&self) {
            self.other.peek(Amount::new()).unwrap();
        }
    }

    #[test]
    fn p8_what_expired_is_left_to_later_calls_whoever_waits_or_turns_elsewhere() {
        type Elsewhere = fn(&BudgetPool) -> Box<dyn Any>;
        let all: [Elsewhere; 3] = [
            |_| Box::new(()),
            |root| {
                let busy = root.child().tokens(10).build();
                let hold = busy.reserve(tokens(10)).unwrap();
                Box::new((hold, Waiter::queued(&busy, tokens(5))))
            },
            |root| Box::new(root.child().tokens(10).window(Window::fixed(secs(10))).build()),
        ];
        for (case, elsewhere) in all.into_iter().enumerate() {
            let tree = Tree::new(|root| root);
            let _kept = elsewhere(&tree.root);
            tree.clock.clock.advance(secs(30));
            tree.clock.reads();
            // A call reads the clock as long as there is one more to reclaim.
            let calls = (0..MANY).take_while(|_| {
                tree.call();
                tree.clock.reads() > 0
            });
            assert_eq!(calls.count() as u64, MANY / BATCH, "{case}");
        }
    }

    #[test]
    fn p6_whom_expired_holds_block_the_next_call_of_another_serves() {
        let tree = Tree::new(|root| root.tokens(MANY));
        let waiter = Waiter::queued(&tree.root.child().build(), tokens(MANY));
        tree.clock.clock.advance(secs(1));
        tree.call();
        assert_eq!(waiter.wakes(), 1);
    }

    /// The second waiter came before the third, but its hold expires after that of the third. Above
    /// there is room for one of them.
    #[test]
    fn p6_whom_expired_holds_block_are_served_in_the_order_of_time() {
        let tree = Tree::new(|root| root.tokens(MANY + 15));
        let pools = [(); 2].map(|()| tree.root.child().tokens(8).build());
        for (pool, ttl) in pools.iter().zip([3, 2]) {
            forget(pool.reserve(Ask::new(tokens(5)).ttl(secs(ttl))).unwrap());
        }
        let asked = [(&tree.root, MANY), (&pools[0], 8), (&pools[1], 8)];
        let mut waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
        tree.clock.clock.advance(secs(3));
        let polls = waiters.each_mut().map(Waiter::poll);
        assert_eq!(polls.each_ref().map(Poll::is_ready), [true, false, true]);
    }

    /// The waiter is blocked in its own pool, where nothing expires, by a hold or by another waiter;
    /// then it would be above, where many have expired and it needs all that these give back. A
    /// wait that is dropped reads no clock.
    #[test]
    fn p6_a_waiter_that_moves_up_to_where_holds_have_expired_is_served_at_once() {
        for is_behind_another in [false, true] {
            let tree = Tree::new(|root| root.tokens(MANY + 10));
            let own = tree.root.child().tokens(MANY + 10).build();
            let hold = own.reserve(tokens(5)).unwrap();
            let other = is_behind_another.then(|| Waiter::queued(&own, tokens(MANY + 10)));
            let asked = if is_behind_another { MANY + 5 } else { MANY + 10 };
            let waiter = Waiter::queued(&own, tokens(asked));
            tree.clock.clock.advance(secs(1));
            tree.call();
            assert_eq!(waiter.wakes(), 0);
            match other {
                Some(other) => drop(other),
                None => hold.release(),
            }
            assert_eq!(waiter.wakes(), 1);
            // Nothing is left that may expire: it was not woken only to look again.
            tree.clock.reads();
            tree.call();
            assert_eq!(tree.clock.reads(), 0, "{is_behind_another}");
        }
    }

    /// What comes back from it before it is settled would be lost.
    #[test]
    fn p2_a_hold_that_settles_does_so_before_a_window_gives_back() {
        let tree = Tree::new(|root| root.tokens(MANY + 10).window(Window::token_bucket(secs(30))));
        forget(tree.root.reserve(Ask::new(tokens(10)).ttl(secs(2))).unwrap().commit_on_drop());
        tree.clock.clock.advance(secs(7));
        tree.call();
        assert_eq!((balance(&tree.root), spent(&tree.root)), ([5, 0, 0], 10));
    }

    /// The waiter is blocked in its own pool, and has no hope once the hold above is spent.
    #[test]
    fn p6_a_hold_that_settles_does_so_before_waiters_look() {
        let tree = Tree::new(|root| root.tokens(MANY + 10));
        let own = tree.root.child().tokens(8).build();
        let _hold = own.reserve(tokens(4)).unwrap();
        let mut waiter = Waiter::queued(&own, tokens(8));
        let all = tree.root.reserve(Ask::new(tokens(6)).ttl(secs(2))).unwrap();
        tree.other.debit(tokens(MANY));
        forget(all.commit_on_drop());
        tree.clock.clock.advance(secs(2));
        tree.call();
        assert_eq!(waiter.wakes(), 1);
        let Poll::Ready(Err(refusal)) = waiter.poll() else { panic!("it has no hope") };
        assert_eq!((refusal.pool(), refusal.outlook()), (own.name(), Outlook::Never));
    }

    #[test]
    fn p5_a_peak_does_not_count_what_expired_before_its_period_whatever_turns_the_window() {
        type Turn = fn(&Tree, &BudgetPool);
        let turns: [Turn; 5] = [
            |_, turning| turning.record(tokens(0)).unwrap(),
            |_, turning| _ = turning.debit(tokens(0)),
            |tree, _| drop(tree.root.snapshot_tree()),
            // These read no clock: the period has begun at the latest instant seen.
            |tree, turning| {
                tree.call();
                turning.close();
            },
            |tree, _| {
                tree.call();
                tree.root.close();
            },
        ];
        for (case, turn) in turns.into_iter().enumerate() {
            let tree = Tree::new(|root| root);
            let turning = tree.root.child().tokens(MANY).window(Window::fixed(secs(10))).build();
            (0..MANY)
                .for_each(|_| forget(turning.reserve(Ask::new(tokens(1)).ttl(secs(2))).unwrap()));
            tree.clock.clock.advance(secs(10));
            turn(&tree, &turning);
            assert_eq!(turning.snapshot().tokens.peak, 0, "{case}");
        }
    }
}

mod windows {
    use super::*;

    #[test]
    fn p1_a_fixed_window_turns_at_its_instant() {
        let (clock, pool) = windowed(100, Window::fixed(secs(60)));
        pool.record(tokens(100)).unwrap();
        clock.advance(secs(60) - NANO);
        assert!(pool.record(tokens(1)).is_err());
        clock.advance(NANO);
        pool.record(tokens(100)).unwrap();
        assert!(pool.record(tokens(1)).is_err());
        assert_eq!((balance(&pool), spent(&pool)), ([100, 0, 0], 200));
    }

    #[test]
    fn p1_periods_that_nobody_saw_are_skipped_and_the_turns_stay_where_they_are() {
        let (clock, pool) = windowed(100, Window::fixed(secs(60)));
        pool.record(tokens(100)).unwrap();
        clock.advance(secs(60 * 1_000_000) + secs(59));
        assert_eq!(pool.snapshot().tokens.available, Some(100));
        pool.record(tokens(100)).unwrap();
        clock.advance(secs(1));
        pool.record(tokens(100)).unwrap();
        clock.advance(secs(60) - NANO);
        assert!(pool.record(tokens(1)).is_err());
        clock.advance(NANO);
        pool.record(tokens(1)).unwrap();
    }

    #[test]
    fn a_fixed_window_may_start_before_or_after_the_present() {
        for (start, first) in [(1_390, 50), (1_400, 60), (2_000, 60), (2_010, 10), (2_700, 700)] {
            let clock = ManualClock::new();
            let window = Window::fixed(secs(60)).aligned_to(clock.now() + secs(start));
            clock.advance(secs(2_000));
            let pool = BudgetPool::builder()
                .tokens(1)
                .window(window)
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            pool.record(tokens(1)).unwrap();
            for period in [first, 60, 60] {
                clock.advance(secs(period) - NANO);
                assert!(pool.record(tokens(1)).is_err(), "{start}");
                clock.advance(NANO);
                pool.record(tokens(1)).unwrap();
            }
        }
    }

    #[test]
    fn a_token_bucket_starts_to_give_back_at_its_start() {
        for (start, first) in [(1_000, 1), (2_000, 1), (2_010, 11)] {
            let clock = ManualClock::new();
            let window = Window::token_bucket(secs(60)).aligned_to(clock.now() + secs(start));
            clock.advance(secs(2_000));
            let pool = BudgetPool::builder()
                .tokens(60)
                .window(window)
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            pool.record(tokens(60)).unwrap();
            assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(first)));
            clock.advance(secs(first));
            pool.record(tokens(1)).unwrap();
        }
    }

    #[test]
    fn p2_what_is_held_across_a_turn_is_neither_lost_nor_counted_twice() {
        type End = fn(Reservation);
        let ends: [(End, u64); 7] = [
            (|hold| _ = hold.commit(tokens(60)), 50),
            (|hold| _ = hold.commit(tokens(30)), 20),
            // What was metered belongs to the old period, and stays there.
            (|hold| _ = hold.commit(tokens(5)), 0),
            (|hold| _ = hold.commit_all(), 30),
            (|hold| _ = hold.commit(tokens(25)), 15),
            (drop, 0),
            (|hold| _ = hold.debit(tokens(5)), 5),
        ];
        for (case, (end, settled)) in ends.into_iter().enumerate() {
            for (window, back) in
                [(Window::fixed(secs(60)), 100), (Window::token_bucket(secs(60)), 100)]
            {
                let (clock, pool) = windowed(100, window);
                let hold = pool.reserve(tokens(40)).unwrap();
                hold.record(tokens(10)).unwrap();
                pool.record(tokens(60)).unwrap();
                assert_eq!(balance(&pool), [70, 30, 0]);
                clock.advance(secs(60));
                assert_eq!(balance(&pool), [0, 30, 0], "{case}");
                end(hold);
                assert_eq!(
                    (balance(&pool), spent(&pool)),
                    ([settled, 0, 0], 70 + settled),
                    "{case}"
                );
                clock.advance(secs(60));
                assert_eq!(pool.snapshot().tokens.available, Some(back), "{case}");
            }
        }
    }

    #[test]
    fn p2_a_turn_forgives_what_is_owed_and_a_token_bucket_pays_it_off_first() {
        let (clock, fixed) = windowed(100, Window::fixed(secs(100)));
        assert_eq!(fixed.debit(tokens(250)).overage(), tokens(150));
        clock.advance(secs(100));
        assert_eq!((balance(&fixed), spent(&fixed)), ([0, 0, 0], 250));
        let (clock, bucket) = windowed(100, Window::token_bucket(secs(100)));
        bucket.debit(tokens(250));
        clock.advance(secs(100));
        assert_eq!(balance(&bucket), [100, 0, 50]);
        clock.advance(secs(60));
        assert_eq!((balance(&bucket), bucket.snapshot().tokens.available), ([90, 0, 0], Some(10)));
        clock.advance(secs(90));
        assert_eq!((balance(&bucket), spent(&bucket)), ([0, 0, 0], 250));
    }

    #[test]
    fn p1_a_token_bucket_bursts_to_its_cap_and_idles_without_saving_up() {
        let (clock, pool) = windowed(60, Window::token_bucket(secs(60)));
        clock.advance(secs(1_000_000));
        pool.record(tokens(60)).unwrap();
        assert!(pool.record(tokens(1)).is_err());
        clock.advance(secs(1) - NANO);
        assert!(pool.record(tokens(1)).is_err());
        clock.advance(NANO);
        pool.record(tokens(1)).unwrap();
        // Nor does it save up the part of a unit that was on its way when the last one came back.
        clock.advance(secs(90) + secs(1) / 2);
        assert_eq!(balance(&pool), [0, 0, 0]);
        pool.record(tokens(60)).unwrap();
        assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(1)));
    }

    /// Odd steps against one exact sum; cap and period are primes.
    #[test]
    fn p1_a_token_bucket_does_not_drift() {
        let (cap, period) = (1_000_003_u64, Duration::from_nanos(60_000_000_029));
        let (clock, pool) = windowed(cap, Window::token_bucket(period));
        let (mut taken, mut elapsed) = (u128::from(cap), 0);
        pool.record(tokens(cap)).unwrap();
        for step in 1..3_000_u64 {
            let by = Duration::from_nanos(step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 30);
            clock.advance(by);
            elapsed += by.as_nanos();
            let back = elapsed * u128::from(cap) / period.as_nanos();
            let available = pool.snapshot().tokens.available.unwrap();
            assert_eq!(u128::from(available), u128::from(cap) + back - taken, "step {step}");
            pool.record(tokens(available)).unwrap();
            taken += u128::from(available);
        }
        assert_eq!(u128::from(spent(&pool)), taken);
    }

    #[test]
    fn p1_the_largest_caps_and_periods_come_back_exactly() {
        let year = secs(365 * 86_400);
        for period in [secs(1), year, Duration::from_nanos(u64::MAX), Duration::MAX] {
            let (clock, pool) = windowed(u64::MAX, Window::token_bucket(period));
            pool.record(tokens(u64::MAX)).unwrap();
            let step = Duration::from_nanos(999_999_937);
            clock.advance(step);
            let period = period.as_nanos().min(u128::from(u64::MAX));
            let back = (step.as_nanos() * u128::from(u64::MAX) / period).min(u128::from(u64::MAX));
            assert_eq!(pool.snapshot().tokens.available.map(u128::from), Some(back));
        }
    }

    #[test]
    fn an_axis_without_a_cap_starts_again_with_a_fixed_window_and_counts_on_with_a_token_bucket_one()
     {
        for (window, used) in [(Window::fixed(secs(60)), 0), (Window::token_bucket(secs(60)), 7)] {
            let (clock, pool) = windowed(100, window);
            pool.record(tokens(7).usd(Usd::from_nanos(7))).unwrap();
            clock.advance(secs(60));
            let usd = pool.snapshot().usd;
            assert_eq!((usd.used, usd.spent), (Usd::from_nanos(used), Usd::from_nanos(7)));
        }
    }

    #[test]
    fn what_is_in_flight_is_a_cap_of_the_present() {
        for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder()
                .in_flight(1)
                .window(window)
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            let hold = pool.reserve(Amount::new()).unwrap();
            clock.advance(secs(600));
            let refused = pool.reserve(Amount::new()).unwrap_err();
            assert_eq!(
                (refused.axis(), refused.outlook()),
                (Some(Axis::InFlight), Outlook::AfterRelease)
            );
            assert_eq!(refused.retry_after(), None);
            assert_eq!(pool.snapshot().in_flight.reserved, 1);
            drop(hold);
            pool.reserve(Amount::new()).unwrap().release();
        }
    }

    #[test]
    fn a_moved_cap_changes_the_rate_from_then_on() {
        let (clock, pool) = windowed(60, Window::token_bucket(secs(60)));
        pool.record(tokens(60)).unwrap();
        clock.advance(secs(10));
        pool.raise_caps(Caps::new().tokens(60)).unwrap();
        assert_eq!(pool.snapshot().tokens.available, Some(10 + 60));
        pool.record(tokens(70)).unwrap();
        clock.advance(secs(10));
        pool.lower_caps(Caps::new().tokens(20)).unwrap();
        assert_eq!(
            (pool.snapshot().tokens.available, pool.snapshot().tokens.cap),
            (Some(0), Some(100))
        );
        assert_eq!(pool.peek(tokens(10)).unwrap_err().retry_after(), Some(secs(6)));
        clock.advance(secs(6));
        assert_eq!(pool.snapshot().tokens.available, Some(10));
    }

    #[test]
    fn a_reset_starts_a_period_and_leaves_the_turns_where_they_are() {
        let (clock, pool) = windowed(10, Window::fixed(secs(60)));
        pool.record(tokens(10)).unwrap();
        clock.advance(secs(70));
        pool.record(tokens(3)).unwrap();
        let before = pool.reset();
        assert_eq!((before.tokens.used, before.tokens.spent), (3, 13));
        pool.record(tokens(10)).unwrap();
        assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(50)));
        clock.advance(secs(130));
        assert_eq!(pool.reset().tokens.used, 0, "what was due is done before");
    }

    #[test]
    fn a_reset_of_a_token_bucket_keeps_no_part_of_a_unit() {
        let (clock, pool) = windowed(1, Window::token_bucket(secs(10)));
        pool.record(tokens(1)).unwrap();
        clock.advance(secs(5));
        pool.reset();
        pool.record(tokens(1)).unwrap();
        assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(10)));
    }

    #[test]
    fn a_period_of_zero_is_one_of_a_nanosecond_and_the_longest_has_an_end() {
        for window in [Window::fixed, Window::token_bucket] {
            let (clock, pool) = windowed(10, window(Duration::ZERO));
            pool.record(tokens(10)).unwrap();
            assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(NANO));
            clock.advance(NANO);
            pool.record(tokens(10)).unwrap();
            clock.advance(secs(1));
            pool.record(tokens(10)).unwrap();
            let (_, pool) = windowed(10, window(Duration::MAX));
            pool.record(tokens(10)).unwrap();
            let after = pool.record(tokens(10)).unwrap_err().retry_after();
            assert_eq!(after, Some(Duration::from_nanos(u64::MAX)));
        }
    }

    #[test]
    fn p1_a_carved_pool_has_no_window() {
        let (_, root) = pool_of(100);
        let window = Window::fixed(secs(60));
        let before = root
            .child()
            .name("share")
            .tokens(10)
            .window(window.clone())
            .carved()
            .build()
            .unwrap_err();
        let after =
            root.child().name("share").tokens(10).carved().window(window).build().unwrap_err();
        assert!(matches!(before, BudgetError::CarvedWindow { .. }));
        assert_eq!((&before, before.outlook(), before.pool()), (&after, Outlook::Never, "share"));
        assert_eq!(balance(&root), [0, 0, 0]);
    }

    #[test]
    fn p1_a_share_of_a_windowed_pool_stays_one_across_its_turn() {
        let (clock, root) = windowed(100, Window::fixed(secs(60)));
        let share = root.child().tokens(40).carved().build().unwrap();
        share.record(tokens(30)).unwrap();
        root.record(tokens(60)).unwrap();
        clock.advance(secs(60));
        assert_eq!((balance(&root), balance(&share)), ([0, 10, 0], [30, 0, 0]));
        share.record(tokens(10)).unwrap();
        assert_eq!((balance(&root), spent(&root)), ([10, 0, 0], 100));
    }

    #[test]
    fn p5_a_snapshot_of_a_tree_turns_what_is_below() {
        let (clock, root) = pool_of(100);
        let child = root.child().tokens(10).window(Window::fixed(secs(60))).build();
        let leaf = child.child().build();
        leaf.record(tokens(10)).unwrap();
        clock.advance(secs(60));
        let used: Vec<_> = root.snapshot_tree().iter().map(|pool| pool.tokens.used).collect();
        assert_eq!(used, [10, 0, 10]);
    }

    #[test]
    fn p5_the_peak_of_a_period_does_not_count_what_expired_before_it() {
        let (clock, pool) = windowed(100, Window::fixed(secs(10)));
        due_before(&pool);
        forget(pool.reserve(Ask::new(tokens(100)).ttl(secs(2))).unwrap());
        let lasting = pool.reserve(Ask::new(Amount::new().requests(7)).ttl(secs(11))).unwrap();
        clock.advance(secs(11));
        let seen = pool.snapshot();
        assert_eq!((seen.tokens.peak, seen.requests.peak, lasting.amount()), (0, 7, Amount::new()));
    }

    #[test]
    fn p2_the_smallest_and_the_largest_numbers_are_counted() {
        let years = secs(600 * 365 * 86_400);
        for period in [Duration::ZERO, NANO, secs(1), Duration::MAX] {
            for (window, owed) in
                [(Window::fixed(period), false), (Window::token_bucket(period), true)]
            {
                for cap in [0, 1, 2, u64::MAX - 1, u64::MAX] {
                    let (clock, pool) = windowed(cap, window.clone());
                    for told in 1..=3 {
                        pool.debit(tokens(u64::MAX));
                        let spent_then = spent(&pool);
                        for asked in [0, 1, cap, u64::MAX] {
                            if let Err(refused) = pool.peek(tokens(asked)) {
                                let is_in_time = matches!(refused.outlook(), Outlook::At(_));
                                assert_eq!(
                                    refused.retry_after().is_some(),
                                    is_in_time,
                                    "{refused}"
                                );
                            }
                        }
                        drop(pool.reserve(Ask::new(tokens(1)).ttl(Duration::MAX)));
                        clock.advance(NANO);
                        assert_eq!(spent(&pool), spent_then, "{told}: it never falls, nor wraps");
                        clock.advance(years);
                        assert_eq!(spent(&pool), spent_then);
                        assert!(owed || balance(&pool) == [0, 0, 0]);
                    }
                }
            }
        }
    }

    #[test]
    fn p8_at_the_end_of_time_what_would_come_later_never_does() {
        let clock = ManualClock::new();
        let bucket = Window::token_bucket(secs(3));
        let root = BudgetPool::builder()
            .tokens(u64::MAX)
            .window(bucket)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let pool = root.child().name("run").tokens(5).window(Window::fixed(secs(7))).build();
        let mut step = secs(i64::MAX as u64);
        while step > Duration::ZERO {
            let before = clock.now();
            clock.advance(step);
            if clock.now() == before {
                // So far it cannot go.
                step /= 2;
            }
            pool.debit(tokens(u64::MAX / 2));
            assert_eq!(pool.peek(tokens(6)).unwrap_err().outlook(), Outlook::Never);
        }
        assert!(clock.now().checked_add(NANO).is_none());
        let hold = pool.reserve(Ask::new(Amount::new()).ttl(secs(5))).unwrap();
        assert_eq!((hold.time_left(), hold.renew(NANO), hold.time_left()), (None, Ok(()), None));
        let refused = pool.record(tokens(1)).unwrap_err();
        assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::Never, None));
        pool.reset();
        root.reset();
        pool.record(tokens(5)).unwrap();
    }

    /// 1,000 tokens and 10 requests a minute, a dollar a day, two for good.
    #[test]
    fn p7_rates_and_lifetime_caps_combine_and_the_one_that_bound_is_named() {
        let clock = ManualClock::new();
        let life = BudgetPool::builder()
            .name("life")
            .usd(Usd::from_dollars(2))
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let day = life
            .child()
            .name("day")
            .usd(Usd::from_dollars(1))
            .window(Window::fixed(secs(86_400)))
            .build();
        let minute = day
            .child()
            .name("minute")
            .tokens(1_000)
            .requests(10)
            .window(Window::token_bucket(secs(60)))
            .build();
        let cents = |n| Amount::new().usd(Usd::from_cents(n));
        let refused = |amount| {
            let error = minute.record(amount).unwrap_err();
            (error.pool().to_owned(), error.axis(), error.outlook(), error.retry_after())
        };
        let at = |after| Outlook::At(clock.now() + after);

        let call = Amount::new().tokens(100).requests(1);
        (0..10).for_each(|_| minute.record(call + cents(8)).unwrap());
        assert_eq!(
            refused(call),
            ("minute".into(), Some(Axis::Tokens), at(secs(6)), Some(secs(6)))
        );
        let one = Amount::new().requests(1);
        assert_eq!(
            refused(one),
            ("minute".into(), Some(Axis::Requests), at(secs(6)), Some(secs(6)))
        );
        clock.advance(secs(60));
        let left = secs(86_400 - 60);
        assert_eq!(refused(cents(21)), ("day".into(), Some(Axis::Usd), at(left), Some(left)));
        minute.record(call + cents(20)).unwrap();
        clock.advance(left);
        minute.record(cents(60)).unwrap();
        assert_eq!(
            refused(cents(41)),
            ("day".into(), Some(Axis::Usd), Outlook::Never, None),
            "the worst of the two"
        );
        clock.advance(secs(86_400));
        assert_eq!(refused(cents(41)), ("life".into(), Some(Axis::Usd), Outlook::Never, None));
        minute.record(call + cents(40)).unwrap();
        assert_eq!(life.snapshot().usd.spent, Usd::from_dollars(2));
    }
}

mod retry_after {
    use super::*;

    /// Refused now, and until a nanosecond before the instant that is named; then admitted.
    fn exact(clock: &ManualClock, pool: &BudgetPool, amount: Amount) -> Duration {
        let refused = pool.record(amount).unwrap_err();
        let after = refused.retry_after().unwrap();
        assert_eq!(refused.outlook(), Outlook::At(clock.now() + after));
        if after > NANO {
            clock.advance(after - NANO);
            assert_eq!(pool.record(amount).unwrap_err().retry_after(), Some(NANO));
            clock.advance(NANO);
        } else {
            clock.advance(after);
        }
        pool.record(amount).unwrap();
        after
    }

    #[test]
    fn p7_it_is_exact_for_fixed_windows() {
        let (clock, pool) = windowed(100, Window::fixed(secs(60)));
        clock.advance(secs(7));
        pool.debit(tokens(170));
        assert_eq!(exact(&clock, &pool, tokens(100)), secs(53));
        clock.advance(secs(600) + NANO);
        pool.record(tokens(100)).unwrap();
        assert_eq!(exact(&clock, &pool, tokens(1)), secs(60) - NANO);
    }

    #[test]
    fn p7_it_is_exact_for_token_buckets() {
        let period = Duration::from_nanos(1_000_000_007);
        for cap in [1, 2, 3, 97, 1_009, 1_000_000_007, 1_000_000_009, u64::MAX] {
            let (clock, pool) = windowed(cap, Window::token_bucket(period));
            pool.debit(tokens(cap));
            for step in 1..40 {
                let odd = step * 0x9E37_79B9 % cap;
                exact(&clock, &pool, tokens(odd + 1));
                clock.advance(Duration::from_nanos(odd % 1_000_003));
                pool.debit(tokens(
                    pool.snapshot().tokens.available.unwrap().saturating_add(odd / 3),
                ));
            }
        }
    }

    #[test]
    fn p7_the_latest_of_all_pools_and_axes_counts() {
        let clock = ManualClock::new();
        let bucket = Window::token_bucket(secs(60));
        let root = BudgetPool::builder().name("root").tokens(100).window(Window::fixed(secs(100)));
        let root = root.clock(clock.clone()).timer(by_hand).build();
        let middle = root.child().name("middle").build();
        let leaf = middle.child().name("leaf").tokens(60).requests(6).window(bucket).build();
        root.record(tokens(100)).unwrap();
        assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "root");
        assert_eq!(exact(&clock, &leaf, tokens(1)), secs(100), "bound two levels up");

        leaf.record(tokens(59).requests(6)).unwrap();
        assert_eq!(exact(&clock, &leaf, tokens(20).requests(3)), secs(30), "the later of two axes");
        assert_eq!(exact(&clock, &leaf, tokens(20).requests(1)), secs(10));
        // 20 from the leaf, in 10 seconds; one from the root, at its turn.
        leaf.debit(tokens(20));
        root.record(tokens(root.snapshot().tokens.available.unwrap())).unwrap();
        let refused = leaf.record(tokens(20)).unwrap_err();
        assert_eq!(
            (refused.pool(), refused.retry_after()),
            ("leaf", Some(secs(60))),
            "the later of two pools"
        );
        exact(&clock, &leaf, tokens(20));
    }

    #[test]
    fn p7_it_assumes_that_what_is_held_stays_held_and_owed_is_paid_first() {
        let (clock, pool) = windowed(100, Window::token_bucket(secs(100)));
        let hold = pool.reserve(tokens(30)).unwrap();
        pool.debit(tokens(90));
        assert_eq!(balance(&pool), [70, 30, 20]);
        assert_eq!(exact(&clock, &pool, tokens(10)), secs(30));
        assert_eq!(balance(&pool), [70, 30, 0]);
        let refused = pool.record(tokens(71)).unwrap_err();
        assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::AfterRelease, None));
        assert_eq!(pool.record(tokens(70)).unwrap_err().retry_after(), Some(secs(70)));
        let refused = pool.record(tokens(101)).unwrap_err();
        assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::Never, None));
        drop(hold);
    }

    #[test]
    fn p7_what_comes_back_only_after_the_deadline_never_does() {
        for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
            for (deadline, outlook) in [
                (secs(60), Outlook::Never),
                (secs(60) + NANO, Outlook::At(Instant::now())),
                (secs(1), Outlook::Never),
            ] {
                let clock = ManualClock::new();
                let root = BudgetPool::builder()
                    .tokens(60)
                    .window(window.clone())
                    .clock(clock.clone())
                    .timer(by_hand)
                    .build();
                let pool = root.child().deadline(deadline).build();
                pool.record(tokens(60)).unwrap();
                let refused = pool.record(tokens(60)).unwrap_err();
                match outlook {
                    Outlook::At(_) => assert_eq!(refused.retry_after(), Some(secs(60))),
                    outlook => {
                        assert_eq!((refused.outlook(), refused.retry_after()), (outlook, None))
                    }
                }
                assert_eq!(
                    root.record(tokens(60)).unwrap_err().retry_after(),
                    Some(secs(60)),
                    "it has no deadline"
                );
            }
        }
    }

    #[test]
    fn p7_a_release_must_come_in_time_with_the_rest() {
        let clock = ManualClock::new();
        let window = Window::fixed(secs(60));
        let pool = BudgetPool::builder()
            .tokens(60)
            .window(window)
            .deadline(secs(30))
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let _hold = pool.reserve(tokens(20)).unwrap();
        pool.record(tokens(30)).unwrap();
        assert_eq!(pool.peek(tokens(30)).unwrap_err().outlook(), Outlook::AfterRelease);
        assert_eq!(pool.peek(tokens(31)).unwrap_err().outlook(), Outlook::Never);
    }

    #[test]
    fn p7_a_cap_of_zero_gives_nothing_back_to_a_token_bucket() {
        let (_, pool) = windowed(0, Window::token_bucket(secs(60)));
        pool.debit(tokens(5));
        assert_eq!(pool.record(tokens(1)).unwrap_err().outlook(), Outlook::Never);
        pool.record(tokens(0)).unwrap();
    }

    #[test]
    fn p7_the_clock_may_run_back_and_the_answer_counts_from_its_reading() {
        let start = Instant::now();
        let offset = Arc::new(AtomicU64::new(0));
        let read = Arc::clone(&offset);
        let clock = move || start + secs(read.load(Ordering::Relaxed));
        let pool = BudgetPool::builder()
            .tokens(60)
            .window(Window::token_bucket(secs(60)))
            .clock(clock)
            .timer(by_hand)
            .build();
        pool.record(tokens(60)).unwrap();
        offset.store(10, Ordering::Relaxed);
        pool.record(tokens(10)).unwrap();
        offset.store(5, Ordering::Relaxed);
        assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(6)));
        offset.store(11, Ordering::Relaxed);
        pool.record(tokens(1)).unwrap();
    }

    /// A clock that says the second that it is told, whatever it has said before.
    fn told(second: &Arc<AtomicU64>) -> (Instant, impl Clock + 'static) {
        let (start, second) = (Instant::now(), Arc::clone(second));
        (start, move || start + secs(second.load(Ordering::SeqCst)))
    }

    const HOUR: u64 = 3_600;

    /// All that 10 tokens in 10 seconds admit was spent by a clock that read an hour ahead.
    struct Ahead {
        second: Arc<AtomicU64>,
        pool: BudgetPool,
        hold: Reservation,
        lease: Lease,
    }

    impl Ahead {
        fn new(window: Window) -> Ahead {
            let second = Arc::new(AtomicU64::new(0));
            let pool = BudgetPool::builder()
                .tokens(10)
                .window(window)
                .clock(told(&second).1)
                .timer(by_hand);
            let pool = pool.build();
            let hold = pool.reserve(Amount::new()).unwrap();
            let lease = pool.lease(Amount::new());
            second.store(HOUR, Ordering::SeqCst);
            pool.record(tokens(10)).unwrap();
            Ahead { second, pool, hold, lease }
        }
    }

    /// The clock is right again. What was seen by the wrong reading is an hour ahead of it.
    #[test]
    fn p7_after_a_reading_an_hour_ahead_each_refusal_says_the_hour() {
        type Asked = fn(Ahead) -> BudgetError;
        let asks: [Asked; 13] = [
            |run| run.pool.record(tokens(1)).unwrap_err(),
            |run| run.pool.peek(tokens(1)).unwrap_err(),
            |run| run.pool.reserve(tokens(1)).unwrap_err(),
            |run| run.pool.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap_err(),
            |run| run.pool.record_once("key", tokens(1)).unwrap_err(),
            |run| run.pool.child().tokens(1).carved().build().unwrap_err(),
            |run| run.pool.child().build().record(tokens(1)).unwrap_err(),
            |run| run.pool.lower_caps(Caps::new().tokens(1)).unwrap_err(),
            |run| {
                let share = run.pool.child().tokens(0).carved().build().unwrap();
                share.raise_caps(Caps::new().tokens(1)).unwrap_err()
            },
            |run| run.hold.record(tokens(1)).unwrap_err(),
            |run| run.hold.grow(tokens(1)).unwrap_err(),
            |run| run.hold.try_commit(tokens(1)).unwrap_err().error().clone(),
            |mut run| run.lease.record(tokens(1)).unwrap_err(),
        ];
        let windows =
            [(Window::fixed(secs(10)), HOUR + 10), (Window::token_bucket(secs(10)), HOUR + 1)];
        for (case, ask) in asks.into_iter().enumerate() {
            for (window, back) in windows.clone() {
                let run = Ahead::new(window);
                let (second, pool) = (Arc::clone(&run.second), run.pool.clone());
                second.store(7, Ordering::SeqCst);
                let refused = ask(run);
                assert_eq!(refused.retry_after(), Some(secs(back - 7)), "{case}: {refused:?}");
                second.store(back, Ordering::SeqCst);
                pool.record(tokens(1)).unwrap();
            }
        }
    }

    /// One that asks each second is refused 3,600 times, and told each time when to come back. One
    /// that does what it is told is refused once.
    #[test]
    fn p7_after_a_reading_an_hour_ahead_a_refusal_is_as_right_as_the_next_one() {
        let run = Ahead::new(Window::token_bucket(secs(10)));
        for second in 0..HOUR {
            run.second.store(second, Ordering::SeqCst);
            let refused = run.pool.peek(tokens(1)).unwrap_err();
            assert_eq!(refused.retry_after(), Some(secs(HOUR + 1 - second)));
        }
        run.second.store(HOUR + 1, Ordering::SeqCst);
        run.pool.record(tokens(1)).unwrap();
    }

    #[test]
    fn p7_after_a_reading_an_hour_ahead_keys_are_too_many_for_the_hour() {
        let second = Arc::new(AtomicU64::new(HOUR));
        let pool = BudgetPool::builder()
            .idempotency_keys(1, secs(10))
            .clock(told(&second).1)
            .timer(by_hand)
            .build();
        pool.record_once("ahead", tokens(1)).unwrap();
        second.store(7, Ordering::SeqCst);
        let refused = pool.record_once("right", tokens(1)).unwrap_err();
        assert!(matches!(refused, BudgetError::KeysFull { .. }));
        assert_eq!(refused.retry_after(), Some(secs(HOUR + 10 - 7)));
    }

    /// A wait sleeps towards the same instant. One whose deadline the reading has passed is told
    /// that, and no time to come back at.
    #[test]
    fn p6_after_a_reading_an_hour_ahead_a_wait_sleeps_for_the_hour_or_is_told_that_it_is_late() {
        let second = Arc::new(AtomicU64::new(0));
        let ((start, clock), alarms) = (told(&second), Arc::new(Mutex::new(Vec::new())));
        let log = Arc::clone(&alarms);
        let root = BudgetPool::builder()
            .tokens(10)
            .window(Window::fixed(secs(10)))
            .clock(clock)
            .timer(by_hand);
        let root = root.timer(move |until| {
            log.lock().unwrap().push(until - start);
            Box::pin(std::future::pending())
        });
        let root = root.build();
        let soon = root.child().deadline(secs(60)).build();
        root.record(tokens(10)).unwrap();
        let mut late = Waiter::queued(&soon, tokens(1));
        second.store(HOUR, Ordering::SeqCst);
        root.record(tokens(10)).unwrap();
        second.store(7, Ordering::SeqCst);
        let Poll::Ready(Err(refusal)) = late.poll() else { panic!("it is late") };
        assert!(matches!(refusal, BudgetError::DeadlineExceeded(_)));
        assert_eq!(refusal.retry_after(), None);
        let _waiter = Waiter::queued(&root, tokens(1));
        assert_eq!(*alarms.lock().unwrap(), [secs(10), secs(HOUR + 10)]);
    }

    /// The turn is 10 ms after the wrong reading, and an hour away.
    #[test]
    fn p6_after_a_reading_an_hour_ahead_a_thread_sleeps_for_the_hour() {
        let (second, reads) = (Arc::new(AtomicU64::new(HOUR)), Arc::new(AtomicU64::new(0)));
        let ((_, clock), count) = (told(&second), Arc::clone(&reads));
        let counted = move || {
            count.fetch_add(1, Ordering::SeqCst);
            clock.now()
        };
        let window = Window::fixed(Duration::from_millis(10));
        let pool =
            BudgetPool::builder().tokens(10).window(window).clock(counted).timer(by_hand).build();
        pool.record(tokens(10)).unwrap();
        second.store(7, Ordering::SeqCst);
        reads.store(0, Ordering::SeqCst);
        let soon = Ask::new(tokens(1)).wait_at_most(Duration::from_millis(300));
        let refused = pool.reserve_blocking(soon).unwrap_err();
        let hour = secs(HOUR - 7) + Duration::from_millis(10);
        assert_eq!((refused.kind(), refused.retry_after()), ("exceeded", Some(hour)));
        std::thread::scope(|scope| {
            let waits = scope.spawn(|| pool.reserve_blocking(tokens(1)).map(drop));
            std::thread::sleep(Duration::from_millis(300));
            pool.close();
            assert_eq!(waits.join().unwrap().unwrap_err().kind(), "closed");
        });
        assert!(reads.load(Ordering::SeqCst) < 10, "it does not wake every 10 ms: {reads:?}");
    }

    #[test]
    fn p7_the_texts() {
        let (clock, pool) = windowed(100, Window::fixed(secs(60)));
        clock.advance(Duration::from_millis(58_500));
        let _hold = pool.reserve(tokens(10)).unwrap();
        pool.record(tokens(80)).unwrap();
        let text = |amount| pool.record(amount).unwrap_err().to_string();
        let of_run = "tokens of `run` exceeded";
        assert_eq!(
            text(tokens(11)),
            format!("{of_run}: 11 requested, 10 available, cap 100, will fit in 1.5s")
        );
        assert_eq!(
            text(tokens(91)),
            format!("{of_run}: 91 requested, 10 available, cap 100, may fit after a release")
        );
        assert_eq!(
            text(tokens(101)),
            format!("{of_run}: 101 requested, 10 available, cap 100, will never fit")
        );
        let run = || BudgetPool::builder().name("run");
        let expired = {
            let hold = run().build().reserve(Ask::new(tokens(1)).ttl(Duration::ZERO)).unwrap();
            hold.grow(tokens(1)).unwrap_err()
        };
        let pool = run().idempotency_keys(2, Duration::MAX).build();
        let [_, conflict, _, full] = [("job-17", 1), ("job-17", 2), ("job-18", 1), ("job-19", 1)]
            .map(|(key, spent)| pool.record_once(key, tokens(spent)));
        let carved = BudgetPool::unlimited()
            .child()
            .name("run")
            .window(Window::fixed(secs(60)))
            .carved()
            .build();
        let names: [(BudgetError, &str); 4] = [
            (expired, "the hold on `run` has expired"),
            (conflict.unwrap_err(), "key `job-17` of `run` stands for another amount"),
            (full.unwrap_err(), "keys of `run` full: capacity 2, will never fit"),
            (carved.unwrap_err(), "`run` is carved: a window would mint budget"),
        ];
        for (error, text) in names {
            assert_eq!(
                (error.to_string().as_str(), error.pool(), error.axis()),
                (text, "run", None)
            );
            assert_eq!((error.outlook(), error.retry_after()), (Outlook::Never, None));
        }
    }
}

mod waiters {
    use super::*;

    impl Waiter {
        fn outcome(&mut self) -> Result<Reservation, BudgetError> {
            match self.poll() {
                Poll::Ready(outcome) => outcome,
                Poll::Pending => panic!("it waits"),
            }
        }
    }

    #[test]
    fn p6_where_time_is_moved_by_hand_a_turn_or_an_expiry_serves_at_the_next_touch() {
        type Touch = fn(&BudgetPool);
        let touches: [Touch; 4] = [
            |pool| _ = pool.snapshot(),
            |pool| _ = pool.peek(tokens(0)),
            |pool| _ = pool.debit(tokens(0)),
            |pool| _ = pool.child().build().record(tokens(0)),
        ];
        for touch in touches {
            let (clock, turning) = windowed(100, Window::fixed(secs(10)));
            turning.record(tokens(100)).unwrap();
            let expiring =
                BudgetPool::builder().tokens(100).clock(clock.clone()).timer(by_hand).build();
            (0..20)
                .for_each(|_| forget(expiring.reserve(Ask::new(tokens(5)).ttl(secs(10))).unwrap()));
            let mut waiters = [&turning, &expiring].map(|pool| Waiter::queued(pool, tokens(100)));
            clock.advance(secs(10) - NANO);
            [&turning, &expiring].into_iter().for_each(touch);
            assert_eq!(waiters.each_ref().map(Waiter::wakes), [0, 0]);
            clock.advance(NANO);
            assert_eq!(waiters.each_ref().map(Waiter::wakes), [0, 0]);
            [&turning, &expiring].into_iter().for_each(touch);
            assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 1]);
            let holds = waiters.each_mut().map(|waiter| waiter.outcome().unwrap());
            assert_eq!(holds.map(|hold| hold.amount()), [tokens(100), tokens(100)]);
        }
    }

    /// Each of the holds, and each of the windows, is as early as the other.
    #[test]
    fn p6_what_is_due_at_one_instant_goes_to_those_who_wait_for_it_by_ticket() {
        for turned in [false, true] {
            let (clock, root) = pool_of(100);
            let pools = [(); 2].map(|()| root.child().build());
            for pool in if turned { [&pools[0], &pools[1]] } else { [&pools[1], &pools[0]] } {
                forget(pool.reserve(Ask::new(tokens(50)).ttl(secs(10))).unwrap());
            }
            let asked = [(&pools[1], 60), (&pools[0], 30), (&root, 20), (&pools[0], 10)];
            let waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
            clock.advance(secs(10));
            root.debit(tokens(0));
            assert_eq!(
                waiters.each_ref().map(Waiter::wakes),
                [1, 1, 0, 0],
                "the first is not passed by the second"
            );
            assert_eq!(balance(&root), [0, 90, 0]);
        }
    }

    #[test]
    fn p6_windows_of_a_path_that_turn_at_one_instant_serve_by_ticket() {
        let (clock, root) = pool_of(200);
        let [upper, middle, leaf] = {
            let turning = |above: &BudgetPool| {
                above.child().tokens(100).window(Window::fixed(secs(10))).build()
            };
            let upper = turning(&root);
            let middle = turning(&upper);
            let leaf = turning(&middle);
            [upper, middle, leaf]
        };
        leaf.record(tokens(100)).unwrap();
        let asked = [(&leaf, 30), (&middle, 30), (&leaf, 30), (&upper, 20), (&middle, 10)];
        let waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
        clock.advance(secs(10));
        leaf.peek(tokens(0)).unwrap();
        assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 1, 1, 0, 0]);
        assert_eq!([&leaf, &middle, &upper].map(balance), [[0, 60, 0], [0, 90, 0], [0, 90, 0]]);
    }

    #[test]
    fn p6_a_snapshot_serves_those_who_wait_for_the_turns_below() {
        let (clock, root) = pool_of(100);
        let turning =
            [(); 3].map(|()| root.child().tokens(10).window(Window::fixed(secs(10))).build());
        turning.iter().for_each(|pool| pool.record(tokens(10)).unwrap());
        let asked = [
            (&turning[2], 10),
            (&turning[0], 10),
            (&turning[1].child().build(), 5),
            (&turning[1], 5),
        ];
        let mut waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
        clock.advance(secs(10));
        assert_eq!((root.snapshot().waiting, root.snapshot().tokens.reserved), (0, 30));
        let seen = root.snapshot_tree();
        assert!(seen.iter().all(|pool| pool.waiting == 0));
        assert_eq!(seen.iter().filter(|pool| pool.tokens.reserved == 10).count(), 3);
        assert!(waiters.iter_mut().all(|waiter| waiter.wakes() == 1 && waiter.outcome().is_ok()));
    }

    /// Whichever of the pools was built first: what is above them is for who came first.
    #[test]
    fn p6_a_snapshot_of_a_tree_turns_all_that_is_below_before_it_serves() {
        for first_of in [0, 1] {
            let (clock, root) = pool_of(30);
            let pools =
                [(); 2].map(|()| root.child().tokens(10).window(Window::fixed(secs(10))).build());
            pools.iter().for_each(|pool| pool.record(tokens(10)).unwrap());
            let [first, second] =
                [first_of, 1 - first_of].map(|at| Waiter::queued(&pools[at], tokens(10)));
            clock.advance(secs(10));
            drop(root.snapshot_tree());
            assert_eq!(
                [&first, &second].map(Waiter::wakes),
                [1, 0],
                "at the root there is room for one"
            );
        }
    }

    /// Neither reads the clock. A call elsewhere has, and a turn that is due then serves.
    #[test]
    fn p8_whoever_a_due_turn_serves_is_served_before_a_pool_is_closed_or_gone() {
        type End = fn([BudgetPool; 3]);
        let ends: [(&str, End); 4] = [
            ("closed above", |[root, ..]| root.close()),
            ("closed", |[_, turning, _]| turning.close()),
            ("closed below", |[_, _, below]| below.close()),
            ("gone below", |[root, turning, below]| {
                drop(below);
                assert!(!root.is_closed() && !turning.is_closed());
            }),
        ];
        for (case, end) in ends {
            let (clock, root) = pool_of(100);
            let turning = root.child().tokens(10).window(Window::fixed(secs(10))).build();
            let below = turning.child().build();
            turning.record(tokens(10)).unwrap();
            let mut waiter = Waiter::queued(&turning, tokens(10));
            clock.advance(secs(10));
            root.child().deadline(secs(90)).build().peek(tokens(0)).unwrap();
            assert_eq!(waiter.wakes(), 1, "{case}: a call elsewhere has");
            end([root, turning, below]);
            assert_eq!(waiter.outcome().map(|hold| hold.amount()), Ok(tokens(10)), "{case}");
        }
    }

    #[test]
    fn p6_what_comes_back_is_for_those_who_wait_first() {
        let (clock, pool) = pool_of(100);
        forget(pool.reserve(Ask::new(tokens(100)).ttl(secs(10))).unwrap());
        let (first, second) =
            (Waiter::queued(&pool, tokens(60)), Waiter::queued(&pool, tokens(10)));
        clock.advance(secs(10));
        assert_eq!(
            pool.reserve(tokens(31)).unwrap_err().axis(),
            Some(Axis::Tokens),
            "nobody waits any more"
        );
        assert_eq!((first.wakes(), second.wakes(), pool.snapshot().waiting), (1, 1, 0));
        drop((first, second));
        assert_eq!(balance(&pool), [0, 0, 0], "what was granted and not collected goes back");
    }

    #[test]
    fn p6_whoever_waits_for_another_time_is_reminded_of_an_earlier_one() {
        let (clock, pool) = pool_of(100);
        let hold = pool.reserve(Ask::new(tokens(50)).ttl(secs(60))).unwrap();
        let other = pool.reserve(tokens(50)).unwrap();
        let (mut first, second) =
            (Waiter::queued(&pool, tokens(10)), Waiter::queued(&pool, tokens(10)));
        hold.renew(secs(90)).unwrap();
        other.renew(secs(100)).unwrap();
        assert_eq!((first.wakes(), second.wakes()), (0, 0), "later is no news");
        other.renew(secs(5)).unwrap();
        assert_eq!((first.wakes(), second.wakes()), (1, 0), "only who is first has to look");
        assert!(first.poll().is_pending());
        forget(hold.split(tokens(1)).unwrap());
        assert_eq!(first.wakes(), 1);
        clock.advance(secs(5));
        first.outcome().unwrap().release();
        assert_eq!(second.wakes(), 1);
    }

    #[test]
    fn p6_whoever_takes_the_first_place_is_reminded_from_then_on() {
        let (_, pool) = pool_of(10);
        let elsewhere = pool.child().build();
        let hold = pool.reserve(tokens(10)).unwrap();
        let [mut first, mut second] = [(); 2].map(|()| Waiter::queued(&pool, tokens(5)));
        let expiring = elsewhere.reserve(Ask::new(Amount::new()).ttl(secs(5))).unwrap();
        assert!(first.poll().is_pending());
        drop((expiring, first));
        hold.renew(secs(10)).unwrap();
        assert_eq!(second.wakes(), 1);
        assert!(second.poll().is_pending());
    }

    #[test]
    fn p6_what_is_held_for_a_time_elsewhere_does_not_remind_whoever_waits() {
        let root = BudgetPool::unlimited();
        let (busy, idle) = (root.child().tokens(10).build(), root.child().build());
        let _hold = busy.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&busy, tokens(5));
        for _ in 0..10 {
            idle.reserve(Ask::new(tokens(1)).ttl(secs(30))).unwrap().commit_all();
            assert!(waiter.poll().is_pending());
        }
        assert_eq!(waiter.wakes(), 0);
    }

    /// A pool of 10 tokens by a clock that stands, and the times until which waits have slept. No
    /// sleep ends by itself.
    fn pool_with_timer() -> (BudgetPool, impl Fn() -> Vec<Duration>) {
        let (clock, alarms) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
        let (start, log) = (clock.now(), Arc::clone(&alarms));
        let pool = BudgetPool::builder().tokens(10).clock(clock).timer(move |until| {
            log.lock().unwrap().push(until - start);
            Box::pin(std::future::pending())
        });
        (pool.build(), move || alarms.lock().unwrap().clone())
    }

    #[test]
    fn p6_of_those_who_are_blocked_at_a_pool_only_the_first_sleeps_towards_a_time() {
        let (pool, alarms) = pool_with_timer();
        forget(pool.reserve(Ask::new(tokens(10)).ttl(secs(10))).unwrap());
        let _waiters =
            [&pool, &pool.child().build(), &pool].map(|pool| Waiter::queued(pool, tokens(5)));
        assert_eq!(alarms(), [secs(10)]);
    }

    #[test]
    fn p6_no_wait_sleeps_towards_a_time_in_another_branch() {
        let (root, alarms) = pool_with_timer();
        let (busy, idle) = (root.child().tokens(5).build(), root.child().build());
        let _hold = busy.reserve(tokens(5)).unwrap();
        forget(idle.reserve(Ask::new(tokens(1)).ttl(secs(10))).unwrap());
        let mut waiter = Waiter::queued(&busy, tokens(1));
        forget(idle.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap());
        assert!(waiter.poll().is_pending());
        assert_eq!((alarms(), waiter.wakes()), (vec![], 0));
    }

    #[test]
    fn p6_who_cannot_be_met_before_the_deadline_is_told_at_once() {
        for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
            let clock = ManualClock::new();
            let root = BudgetPool::builder()
                .name("run")
                .tokens(60)
                .window(window)
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            let child = root.child().deadline(secs(30)).build();
            root.record(tokens(60)).unwrap();
            let told = child.reserve_blocking(tokens(60)).unwrap_err();
            assert_eq!(
                (told.axis(), told.outlook(), told.pool()),
                (Some(Axis::Tokens), Outlook::Never, "run")
            );
        }
    }

    /// A hold is waited for, and then settled: it comes back only by time, and too late.
    fn told_when_it_becomes_hopeless(pool: &BudgetPool, spends: &BudgetPool) {
        let hold = spends.reserve(tokens(60)).unwrap();
        let mut waiter = Waiter::queued(pool, tokens(60));
        let mut behind = Waiter::queued(pool, tokens(0));
        hold.commit_all();
        assert_eq!(waiter.wakes(), 1);
        let told = waiter.outcome().unwrap_err();
        assert_eq!((told.axis(), told.outlook()), (Some(Axis::Tokens), Outlook::Never));
        behind.outcome().unwrap().release();
    }

    #[test]
    fn p6_who_can_no_longer_be_met_before_the_deadline_is_told_at_once() {
        let clock = ManualClock::new();
        let pool =
            BudgetPool::builder().tokens(60).window(Window::fixed(secs(60))).deadline(secs(30));
        let pool = pool.clock(clock.clone()).timer(by_hand).build();
        told_when_it_becomes_hopeless(&pool, &pool);
    }

    #[test]
    fn p6_who_waits_in_a_pool_with_a_window_is_told_that_its_turn_is_too_late_though_others_are_first()
     {
        for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
            let pool = BudgetPool::builder().tokens(60).window(window).deadline(secs(30));
            let pool = pool.clock(ManualClock::new()).timer(by_hand).build();
            let [spends, lasts] = [(); 2].map(|()| pool.reserve(tokens(30)).unwrap());
            let [mut first, mut second, third] =
                [30, 60, 1].map(|n| Waiter::queued(&pool, tokens(n)));
            spends.commit_all();
            assert_eq!([&first, &second, &third].map(Waiter::wakes), [0, 1, 0]);
            let told = second.outcome().unwrap_err();
            assert_eq!((told.axis(), told.outlook()), (Some(Axis::Tokens), Outlook::Never));
            lasts.release();
            first.outcome().unwrap().release();
        }
    }

    #[test]
    fn p6_the_deadline_of_who_waits_counts_where_the_window_is_above() {
        let (_, root) = windowed(60, Window::fixed(secs(60)));
        let child = root.child().deadline(secs(30)).build();
        told_when_it_becomes_hopeless(&child, &root);
        let (_, root) = windowed(60, Window::fixed(secs(60)));
        let child = root.child().build();
        let below = child.child().deadline(secs(30)).build();
        told_when_it_becomes_hopeless(&below, &child);
    }

    /// It is blocked in its own pool, which knows nothing of the hold above.
    #[test]
    fn p6_what_an_expiry_above_makes_hopeless_is_told_at_the_next_call_and_those_behind_are_served()
    {
        let (clock, root) = pool_of(100);
        let child = root.child().tokens(80).build();
        let _hold = child.reserve(tokens(20)).unwrap();
        let [mut hopeless, mut behind] = [80, 10].map(|n| Waiter::queued(&child, tokens(n)));
        forget(root.reserve(Ask::new(tokens(30)).ttl(secs(10))).unwrap().commit_on_drop());
        clock.advance(secs(10));
        assert_eq!([&hopeless, &behind].map(Waiter::wakes), [0, 0]);
        child.peek(Amount::new()).unwrap();
        assert_eq!([&hopeless, &behind].map(Waiter::wakes), [1, 1]);
        let told = hopeless.outcome().unwrap_err();
        assert_eq!((told.pool(), told.outlook()), (child.name(), Outlook::Never));
        behind.outcome().unwrap().release();
    }

    /// Unless the hold is younger than the wait, as above, the waiter sleeps towards its expiry; but
    /// not towards one that gives back what a waiter of another pool cannot use.
    #[test]
    fn p6_a_waiter_sleeps_towards_an_expiry_above_that_may_leave_it_no_hope() {
        let (root, alarms) = pool_with_timer();
        let child = root.child().tokens(8).build();
        let _lasting = child.reserve(tokens(4)).unwrap();
        forget(root.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap());
        let _released = Waiter::queued(&child, tokens(8));
        assert_eq!(alarms(), []);
        forget(root.reserve(Ask::new(tokens(4)).ttl(secs(10))).unwrap().commit_on_drop());
        let other = root.child().tokens(1).build();
        let _held = other.reserve(tokens(1)).unwrap();
        let _settled = Waiter::queued(&other, tokens(1));
        assert_eq!(alarms(), [secs(10)]);
    }

    /// At the first instant a waiter of the root is tried in vain. That is no reason to bring the
    /// second instant forward: a waiter that the first one served would lose its units to one that
    /// nothing but the second one can serve.
    #[test]
    fn p6_each_expiry_serves_all_whom_it_can_before_the_next_one_is_due() {
        let (clock, root) = pool_of(60);
        let share = root.child().name("share").tokens(20).carved().build().unwrap();
        let [narrow, wide] = [share.child().tokens(8).build(), share.child().build()];
        let _lasting = share.reserve(tokens(5)).unwrap();
        for (pool, n, ttl) in [(&root, 40, 1), (&share, 10, 2), (&narrow, 5, 3)] {
            forget(pool.reserve(Ask::new(tokens(n)).ttl(secs(ttl))).unwrap());
        }
        let asked = [(&root, 10), (&root, 60), (&narrow, 8), (&wide, 10)];
        let mut waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
        clock.advance(secs(3));
        let polls = waiters.each_mut().map(Waiter::poll);
        assert_eq!(polls.each_ref().map(Poll::is_ready), [true, false, false, true]);
    }

    /// One that is not the first, and has too early a deadline of its own, is told at that.
    #[test]
    fn p6_those_with_a_later_deadline_wait_on() {
        let (clock, root) = windowed(60, Window::fixed(secs(60)));
        let [soon, late] = [30, 90].map(|deadline| root.child().deadline(secs(deadline)).build());
        let hold = root.reserve(tokens(60)).unwrap();
        let mut waiters = [&late, &soon, &late].map(|pool| Waiter::queued(pool, tokens(20)));
        hold.commit_all();
        assert!(waiters.iter_mut().all(|waiter| waiter.poll().is_pending()));
        let [first, second, third] = &mut waiters;
        clock.advance(secs(30));
        assert!(second.outcome().is_err() && first.poll().is_pending());
        clock.advance(secs(30));
        assert!(first.outcome().is_ok() && third.outcome().is_ok());
    }

    /// It is told as soon as it is the first at the pool with the window, or at its deadline; then
    /// it holds up nobody.
    #[test]
    fn p6_whoever_waits_in_vain_below_a_window_holds_up_others_at_most_until_its_deadline() {
        for leaves in [true, false] {
            let (clock, root) = windowed(60, Window::fixed(secs(60)));
            let middle = root.child().requests(1).build();
            let soon = middle.child().deadline(secs(30)).build();
            let requests = Amount::new().requests(1);
            let hold = root.reserve(tokens(60)).unwrap();
            let mut first = Waiter::queued(&root, tokens(20));
            let mut in_vain = Waiter::queued(&soon, tokens(20) + requests);
            let mut same_pool = Waiter::queued(&soon, requests);
            let mut behind = Waiter::queued(&middle, requests);
            hold.commit_all();
            assert!(
                [&mut in_vain, &mut same_pool, &mut behind]
                    .into_iter()
                    .all(|waiter| waiter.poll().is_pending())
            );
            if leaves {
                drop(first);
                assert_eq!([&in_vain, &same_pool, &behind].map(Waiter::wakes), [1, 1, 0]);
                let told = in_vain.outcome().unwrap_err();
                assert_eq!(
                    (told.axis(), told.outlook(), told.pool()),
                    (Some(Axis::Tokens), Outlook::Never, "run")
                );
                same_pool.outcome().unwrap().release();
            } else {
                clock.advance(secs(30) - NANO);
                root.debit(tokens(0));
                assert_eq!([&in_vain, &same_pool, &behind].map(Waiter::wakes), [0, 0, 0]);
                clock.advance(NANO);
                root.debit(tokens(0));
                for told in [in_vain, same_pool].map(|mut waiter| waiter.outcome().unwrap_err()) {
                    assert_eq!(told.axis(), Some(Axis::Deadline));
                }
                assert!(first.poll().is_pending());
            }
            assert_eq!(behind.wakes(), 1);
            behind.outcome().unwrap().release();
        }
    }

    #[test]
    fn p6_who_was_left_waiting_is_told_once_more_is_spent() {
        let (_, root) = windowed(60, Window::token_bucket(secs(60)));
        let [soon, late] = [10, 30].map(|deadline| root.child().deadline(secs(deadline)).build());
        let hold = root.reserve(tokens(60)).unwrap();
        let [mut soon, mut late] = [&soon, &late].map(|pool| Waiter::queued(pool, tokens(20)));
        hold.commit_all();
        assert!(soon.outcome().is_err() && late.poll().is_pending());
        root.debit(tokens(30));
        assert_eq!(late.outcome().unwrap_err().axis(), Some(Axis::Tokens));
    }

    mod blocking {
        use super::*;

        const SOON: Duration = Duration::from_millis(30);
        /// So that a failure does not wait for ever.
        const ENOUGH: Duration = Duration::from_secs(20);

        #[test]
        fn p6_a_thread_is_served_when_a_window_turns_or_gives_back() {
            for (window, least) in
                [(Window::fixed(SOON), Duration::ZERO), (Window::token_bucket(SOON), SOON * 3 / 2)]
            {
                let pool = BudgetPool::builder().tokens(10).window(window).build();
                let start = Instant::now();
                pool.debit(tokens(20));
                pool.reserve_blocking(Ask::new(tokens(5)).wait_at_most(ENOUGH)).unwrap().release();
                assert!(start.elapsed() >= least, "{:?}", start.elapsed());
            }
        }

        #[test]
        fn p6_a_thread_is_served_when_a_hold_expires() {
            let pool = BudgetPool::builder().tokens(10).build();
            let start = Instant::now();
            forget(pool.reserve(Ask::new(tokens(10)).ttl(SOON)).unwrap());
            match pool.reserve_blocking(Ask::new(tokens(5)).wait_at_most(SOON / 10)) {
                Err(BudgetError::Timeout { waited, .. }) => assert_eq!(waited, SOON / 10),
                // On a busy machine its time may have come by now.
                granted => assert!(granted.is_ok() && start.elapsed() >= SOON, "{granted:?}"),
            }
            pool.reserve_blocking(Ask::new(tokens(5)).wait_at_most(ENOUGH)).unwrap().release();
            assert!(start.elapsed() >= SOON);
        }

        #[test]
        fn p6_a_thread_is_served_by_a_time_that_was_given_while_it_waits() {
            let pool = BudgetPool::builder().tokens(10).build();
            let hold = pool.reserve(Ask::new(tokens(10)).ttl(secs(600))).unwrap();
            let waiting = pool.clone();
            let thread = std::thread::spawn(move || {
                waiting.reserve_blocking(Ask::new(tokens(5)).wait_at_most(ENOUGH)).map(drop)
            });
            while pool.snapshot().waiting == 0 {
                std::thread::yield_now();
            }
            hold.renew(SOON).unwrap();
            thread.join().unwrap().unwrap();
            assert_eq!(hold.time_left(), Some(Duration::ZERO));
        }
    }

    /// In tokio's paused time: no real second.
    mod in_tokio {
        use super::*;
        use budget_pool::{PoolBuilder, Root};
        use tokio::time::{Instant, sleep, timeout};

        fn timed() -> PoolBuilder<Root> {
            BudgetPool::builder()
                .tokens(10)
                .clock(|| Instant::now().into_std())
                .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        }

        /// A lost alarm is a failure, and no wait for ever: with nothing else to do, paused time
        /// runs on to this.
        async fn soon<T>(task: tokio::task::JoinHandle<T>) -> T {
            timeout(secs(10_000), task).await.expect("an alarm was lost").unwrap()
        }

        /// Waits in a task of its own; keeps for so long what it is granted. Says after how many
        /// seconds that was: the timer knows whole milliseconds, and is never early.
        fn wait(pool: &BudgetPool, amount: Amount, keep: u64) -> tokio::task::JoinHandle<u64> {
            let (wait, start) = (pool.reserve_wait(amount), Instant::now());
            tokio::spawn(async move {
                let hold = wait.await.unwrap();
                let after = start.elapsed();
                assert!(after.subsec_millis() <= 2, "{after:?}");
                sleep(secs(keep)).await;
                drop(hold);
                after.as_secs()
            })
        }

        #[tokio::test(start_paused = true)]
        async fn p6_a_task_is_served_when_a_window_turns_or_gives_back() {
            for (window, after) in
                [(Window::fixed(secs(60)), 60), (Window::token_bucket(secs(60)), 36)]
            {
                let pool = timed().window(window).build();
                pool.record(tokens(10)).unwrap();
                assert_eq!(soon(wait(&pool, tokens(6), 0)).await, after);
            }
        }

        #[tokio::test(start_paused = true)]
        async fn p6_a_task_is_served_when_a_hold_expires() {
            let pool = timed().build();
            forget(pool.reserve(Ask::new(tokens(10)).ttl(secs(5))).unwrap());
            assert_eq!(soon(wait(&pool, tokens(6), 0)).await, 5);
        }

        #[tokio::test(start_paused = true)]
        async fn p6_a_task_is_served_by_a_time_that_was_given_while_it_waits() {
            for ttl in [secs(60), Duration::MAX] {
                for (renewed, after) in [(2, 3), (100, 101)] {
                    let pool = timed().build();
                    let hold = pool.reserve(Ask::new(tokens(10)).ttl(ttl)).unwrap();
                    let task = wait(&pool, tokens(6), 0);
                    sleep(secs(1)).await;
                    hold.renew(secs(renewed)).unwrap();
                    assert_eq!(soon(task).await, after);
                }
            }
        }

        #[tokio::test(start_paused = true)]
        async fn p6_a_task_is_served_later_if_the_time_it_waits_for_is_put_off() {
            let pool = timed().build();
            let hold = pool.reserve(Ask::new(tokens(10)).ttl(secs(5))).unwrap();
            let task = wait(&pool, tokens(6), 0);
            sleep(secs(1)).await;
            hold.renew(secs(10)).unwrap();
            assert_eq!(soon(task).await, 11);
            let pool = timed().window(Window::token_bucket(secs(10))).build();
            pool.record(tokens(10)).unwrap();
            let task = wait(&pool, tokens(5), 0);
            sleep(secs(4)).await;
            assert!(matches!(pool.record(tokens(4)), Err(BudgetError::Queued { .. })));
            pool.debit(tokens(4));
            assert_eq!(soon(task).await, 9, "what has happened does not wait its turn");
        }

        #[tokio::test(start_paused = true)]
        async fn p6_a_release_that_leaves_the_rest_to_time_reminds_who_waits() {
            let pool = timed().window(Window::token_bucket(secs(10))).build();
            let hold = pool.reserve(tokens(5)).unwrap();
            pool.record(tokens(5)).unwrap();
            let task = wait(&pool, tokens(9), 0);
            sleep(secs(1)).await;
            drop(hold);
            assert_eq!(soon(task).await, 4);
        }

        #[tokio::test(start_paused = true)]
        async fn p6_those_who_wait_at_several_pools_are_served_in_order() {
            let root = timed().window(Window::fixed(secs(60))).build();
            let a = root.child().tokens(4).window(Window::token_bucket(secs(40))).build();
            let b = root.child().build();
            a.record(tokens(4)).unwrap();
            b.record(tokens(6)).unwrap();
            sleep(secs(30)).await;
            a.debit(tokens(3));
            // At 60 the root turns, and the child has 3 of its 4; at 70 it has all.
            let tasks = [
                wait(&a, tokens(4), 5),
                wait(&b, tokens(6), 30),
                wait(&root, tokens(5), 5),
                wait(&b, tokens(1), 0),
            ];
            let mut served = Vec::new();
            for task in tasks {
                served.push(soon(task).await);
            }
            assert_eq!(served, [40, 30, 60, 60]);
        }

        #[tokio::test(start_paused = true)]
        async fn p6_many_tasks_share_a_rate_and_none_is_starved() {
            let pool = timed().window(Window::token_bucket(secs(10))).build();
            pool.record(tokens(10)).unwrap();
            let tasks: Vec<_> = (1..=20)
                .map(|place| {
                    let pool = pool.clone();
                    tokio::spawn(async move {
                        let start = Instant::now();
                        pool.reserve_wait(tokens(2)).await.unwrap().commit_all();
                        let after = start.elapsed();
                        assert!(
                            after >= secs(2 * place) && after < secs(2 * place + 1),
                            "{place}: {after:?}"
                        );
                    })
                })
                .collect();
            for task in tasks {
                soon(task).await;
            }
        }
    }
}

mod once {
    use super::*;

    fn keys(most: usize, ttl: Duration) -> (ManualClock, BudgetPool) {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .name("run")
            .tokens(1_000)
            .idempotency_keys(most, ttl)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        (clock, pool)
    }

    #[test]
    fn p1_a_call_that_comes_again_spends_once_and_one_that_differs_is_a_conflict() {
        let (_, pool) = keys(10, secs(10));
        for _ in 0..3 {
            pool.record_once("job", tokens(600)).unwrap();
        }
        for other in [tokens(601), tokens(600).requests(1), Amount::new(), tokens(0)] {
            let refused = pool.record_once(String::from("job"), other).unwrap_err();
            assert!(matches!(refused, BudgetError::KeyConflict { pool, key, .. }
                if pool == "run" && key == "job"));
        }
        pool.record_once("other job", tokens(400)).unwrap();
        let after = pool.snapshot();
        assert_eq!((after.tokens.used, after.admitted), (1_000, 2));
    }

    #[test]
    fn p7_a_refused_call_is_not_remembered() {
        let (_, pool) = keys(1, secs(10));
        assert_eq!(pool.record_once("job", tokens(1_001)).unwrap_err().axis(), Some(Axis::Tokens));
        pool.record_once("job", tokens(1_000)).unwrap();
        let (_, pool) = keys(1, secs(10));
        pool.record(tokens(1_000)).unwrap();
        assert!(pool.record_once("job", tokens(10)).is_err());
        pool.reset();
        pool.record_once("job", tokens(10)).unwrap();
        assert_eq!(balance(&pool), [10, 0, 0]);
    }

    #[test]
    fn p7_a_pool_that_remembers_all_it_may_says_when_there_is_room() {
        let (clock, pool) = keys(2, secs(10));
        pool.record_once("a", tokens(1)).unwrap();
        clock.advance(secs(3));
        pool.record_once("b", tokens(1)).unwrap();
        clock.advance(secs(1));
        let full = |key, after| {
            let outlook = Outlook::At(clock.now() + after);
            let refused = pool.record_once(key, tokens(1)).unwrap_err();
            assert_eq!((refused.outlook(), refused.retry_after()), (outlook, Some(after)));
            let BudgetError::KeysFull { pool, capacity: most, outlook: said, retry_after, .. } =
                refused
            else {
                panic!("{refused}");
            };
            assert_eq!((pool.as_str(), most), ("run", 2));
            assert_eq!((said, retry_after), (outlook, Some(after)));
        };
        full("c", secs(6));
        pool.record_once("a", tokens(1)).unwrap();
        clock.advance(secs(6) - NANO);
        full("c", NANO);
        clock.advance(NANO);
        pool.record_once("c", tokens(1)).unwrap();
        full("a", secs(3));
        assert_eq!((balance(&pool), pool.snapshot().refused), ([3, 0, 0], 3));
        let refused = pool.record_once("d", tokens(5_000)).unwrap_err();
        assert!(matches!(refused, BudgetError::KeysFull { .. }), "before capacity");
        pool.close();
        assert!(
            matches!(pool.record_once("d", tokens(1)), Err(BudgetError::Closed { .. })),
            "after closed"
        );
    }

    #[test]
    fn p7_there_is_never_room_where_none_is_forgotten_or_none_may_be_known() {
        for (most, ttl, known) in [(0, secs(10), 0), (2, Duration::MAX, 2)] {
            let (clock, pool) = keys(most, ttl);
            (0..known)
                .for_each(|key: u8| _ = pool.record_once(key.to_string(), tokens(1)).unwrap());
            clock.advance(secs(1 << 33));
            let refused = pool.record_once("more", tokens(1)).unwrap_err();
            assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::Never, None));
            (0..known)
                .for_each(|key: u8| _ = pool.record_once(key.to_string(), tokens(1)).unwrap());
            assert_eq!(spent(&pool), u64::from(known));
        }
    }

    #[test]
    fn p7_room_that_comes_only_after_the_deadline_never_does() {
        for (deadline, after) in [(secs(10), None), (secs(10) + NANO, Some(secs(10)))] {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder()
                .idempotency_keys(1, secs(10))
                .deadline(deadline)
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            pool.record_once("a", tokens(1)).unwrap();
            let refused = pool.record_once("b", tokens(1)).unwrap_err();
            assert!(matches!(refused, BudgetError::KeysFull { .. }));
            assert_eq!(
                (refused.retry_after(), refused.outlook() == Outlook::Never),
                (after, after.is_none())
            );
        }
    }

    #[test]
    fn a_key_remembered_for_no_time_counts_each_time() {
        let pool = BudgetPool::builder().idempotency_keys(1, Duration::ZERO).build();
        (0..3).for_each(|_| _ = pool.record_once("job", tokens(5)).unwrap());
        assert_eq!(spent(&pool), 15);
        let none = BudgetPool::builder().idempotency_keys(0, Duration::ZERO).build();
        let refused = none.record_once("job", tokens(5)).unwrap_err();
        assert!(matches!(
            refused,
            BudgetError::KeysFull { capacity: 0, outlook: Outlook::Never, .. }
        ));
    }

    #[test]
    fn a_key_is_forgotten_at_its_time() {
        let (clock, pool) = keys(10, secs(10));
        pool.record_once("job", tokens(1)).unwrap();
        clock.advance(secs(10) - NANO);
        pool.record_once("job", tokens(1)).unwrap();
        assert!(pool.record_once("job", tokens(2)).is_err());
        clock.advance(NANO);
        pool.record_once("job", tokens(2)).unwrap();
        assert_eq!(spent(&pool), 3);
        clock.advance(secs(10) - NANO);
        pool.record_once("job", tokens(2)).unwrap();
        assert_eq!(spent(&pool), 3, "it is remembered anew");
        let (_, pool) = keys(10, Duration::ZERO);
        (0..20).for_each(|_| _ = pool.record_once("job", tokens(1)).unwrap());
        assert_eq!(spent(&pool), 20);
    }

    #[test]
    fn unless_set_a_key_is_remembered_for_an_hour_as_one_of_262_144() {
        let (clock, pool) = pool_of(u64::MAX);
        (0..262_144).for_each(|key: u32| _ = pool.record_once(key.to_string(), tokens(1)).unwrap());
        let full = pool.record_once("more", tokens(1)).unwrap_err();
        assert_eq!(full.to_string(), "keys of `run` full: capacity 262144, will fit in 3600s");
        assert_eq!(full.retry_after(), Some(secs(3_600)));
        clock.advance(secs(3_600));
        pool.record_once("more", tokens(1)).unwrap();
    }

    #[test]
    fn the_bound_holds_whatever_comes_and_no_key_is_forgotten_early() {
        let (clock, pool) = keys(100, secs(100));
        let pool = pool.child().idempotency_keys(100, secs(100)).build();
        let mut told = 0;
        for second in 0_u64..1_000 {
            // Two a second: every other is one too many once the first hundred are known.
            for key in [2 * second, 2 * second + 1] {
                told +=
                    u64::from(pool.record_once(key.to_string(), Amount::new().requests(1)).is_ok());
            }
            assert!(
                pool.record_once((2 * second).to_string(), Amount::new().requests(1)).is_ok()
                    || second >= 50
            );
            clock.advance(secs(1));
        }
        let spent = pool.snapshot().requests.spent;
        assert_eq!((told, spent), (1_000, 1_000), "a hundred in each hundred seconds");
    }

    #[test]
    fn each_pool_has_its_own_keys() {
        let (_, root) = keys(10, secs(10));
        let [a, b] = [(); 2].map(|()| root.child().build());
        for pool in [&root, &a, &b, &a] {
            pool.record_once("job", tokens(10)).unwrap();
        }
        assert_eq!(
            [balance(&root), balance(&a), balance(&b)],
            [[30, 0, 0], [10, 0, 0], [10, 0, 0]]
        );
        a.record_once("other", tokens(5)).unwrap();
        root.record_once("other", tokens(6)).unwrap();
    }

    #[test]
    fn p2_what_is_known_is_answered_after_a_reset_the_deadline_and_the_close() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(100)
            .deadline(secs(10))
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        pool.record_once("job", tokens(100)).unwrap();
        pool.reset();
        pool.record_once("job", tokens(100)).unwrap();
        assert_eq!(balance(&pool), [0, 0, 0]);
        clock.advance(secs(10));
        pool.record_once("job", tokens(100)).unwrap();
        assert_eq!(pool.record_once("new", tokens(1)).unwrap_err().axis(), Some(Axis::Deadline));
        pool.close();
        pool.record_once("job", tokens(100)).unwrap();
        assert!(matches!(pool.record_once("job", tokens(1)), Err(BudgetError::KeyConflict { .. })));
        assert!(matches!(pool.record_once("new", tokens(1)), Err(BudgetError::Closed { .. })));
        assert_eq!(spent(&pool), 100);
    }

    #[test]
    fn p1_two_threads_with_one_key_spend_once() {
        let pool = BudgetPool::unlimited();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    (0..5_000).for_each(|key: u32| {
                        _ = pool.record_once(key.to_string(), tokens(3)).unwrap()
                    });
                });
            }
        });
        assert_eq!((spent(&pool), pool.snapshot().admitted), (15_000, 5_000));
    }
}

mod p8_time_only_when_asked {
    use super::*;

    type Call = fn(&BudgetPool, &mut Reservation);

    /// Those that ask.
    const ASK: [Call; 8] = [
        |pool, _| pool.record(tokens(1)).unwrap(),
        |pool, _| pool.peek(tokens(1)).unwrap(),
        |pool, _| forget(pool.reserve(tokens(1)).unwrap()),
        |pool, _| pool.raise_caps(Caps::new().tokens(1)).unwrap(),
        |pool, _| drop(pool.record(tokens(u64::MAX))),
        |_, hold| hold.grow(tokens(1)).unwrap(),
        |_, hold| hold.record(tokens(1)).unwrap(),
        |_, hold| forget(hold.split(tokens(1)).unwrap()),
    ];

    /// Those that tell or look.
    const TELL: [Call; 8] = [
        |pool, _| _ = pool.debit(tokens(1)),
        |pool, _| _ = pool.snapshot(),
        |pool, _| _ = pool.snapshot_tree(),
        |pool, _| _ = pool.holders(),
        |pool, _| pool.lower_caps(Caps::new().tokens(1)).unwrap(),
        |_, hold| _ = hold.debit(tokens(1)),
        |_, hold| _ = hold.amount(),
        |_, hold| hold.shrink(tokens(1)).unwrap(),
    ];

    /// Those that end a hold.
    const END: [fn(Reservation); 6] = [
        drop,
        Reservation::release,
        |hold| _ = hold.commit_all(),
        |hold| _ = hold.commit(tokens(1)),
        |hold| _ = hold.try_commit(tokens(1)).unwrap(),
        |hold| forget(hold.commit_on_drop()),
    ];

    /// Those that need no time in any tree.
    fn use_the_rest(pool: &BudgetPool) {
        drop(pool.reserve_wait(tokens(1)));
        drop(pool.closed());
        drop((
            pool.clone(),
            pool.is_closed(),
            pool.name().len(),
            format!("{pool:?}"),
            pool.child().build(),
        ));
    }

    /// How often each of them reads the clock, all being alike.
    fn each(counting: &Counting, pool: &BudgetPool, calls: &[Call]) -> u64 {
        let mut hold = pool.reserve(tokens(100)).unwrap();
        counting.reads();
        let reads: Vec<_> = calls
            .iter()
            .map(|call| {
                call(pool, &mut hold);
                counting.reads()
            })
            .collect();
        forget(hold);
        assert!(reads.iter().all(|&read| read == reads[0]), "{reads:?}");
        reads[0]
    }

    fn each_end(counting: &Counting, pool: &BudgetPool) -> u64 {
        let holds = END.map(|_| pool.reserve(tokens(1)).unwrap());
        counting.reads();
        END.iter().zip(holds).for_each(|(end, hold)| end(hold));
        let reads = counting.reads();
        assert_eq!(reads % 6, 0, "{reads}");
        reads / 6
    }

    fn asked_told_ended(counting: &Counting, pool: &BudgetPool) -> [u64; 3] {
        [each(counting, pool, &ASK), each(counting, pool, &TELL), each_end(counting, pool)]
    }

    #[test]
    fn without_any_time_the_clock_is_never_read() {
        let counting = Counting::new();
        let pool = BudgetPool::builder()
            .tokens(10_000)
            .in_flight(1_000)
            .clock(counting.clock())
            .timer(by_hand)
            .build();
        let child = pool.child().tokens(1_000).build();
        let share = child.child().tokens(500).carved().build().unwrap();
        for pool in [&share, &child, &pool] {
            assert_eq!(asked_told_ended(&counting, pool), [0; 3]);
            use_the_rest(pool);
            pool.reserve_blocking(tokens(1)).unwrap().commit_all();
            assert_eq!(pool.reserve(tokens(1)).unwrap().label("last").time_left(), None);
            pool.reset();
            pool.close();
        }
        assert_eq!(counting.reads(), 0);
    }

    #[test]
    fn with_a_deadline_alone_only_what_asks_reads_it() {
        let counting = Counting::new();
        let pool = BudgetPool::builder()
            .tokens(10_000)
            .deadline(secs(10))
            .clock(counting.clock())
            .timer(by_hand)
            .build();
        assert_eq!(counting.reads(), 1);
        assert_eq!(asked_told_ended(&counting, &pool), [1, 0, 0]);
        counting.reads();
        use_the_rest(&pool);
        pool.reset();
        pool.close();
        assert_eq!(counting.reads(), 0);
    }

    #[test]
    fn a_hold_that_may_expire_makes_the_whole_tree_read_it_while_it_lives() {
        for end in [drop, forget, |hold: Reservation| _ = hold.commit_all()] {
            let counting = Counting::new();
            let pool =
                BudgetPool::builder().tokens(10_000).clock(counting.clock()).timer(by_hand).build();
            let [child, sibling] = [(); 2].map(|()| pool.child().build());
            counting.reads();
            let hold = child.reserve(Ask::new(tokens(1)).ttl(secs(10))).unwrap();
            assert_eq!(counting.reads(), 1);
            for pool in [&pool, &child, &sibling] {
                assert_eq!(asked_told_ended(&counting, pool), [1; 3]);
            }
            end(hold);
            counting.clock.advance(secs(10));
            drop(sibling.snapshot());
            for pool in [&pool, &child, &sibling] {
                assert_eq!(asked_told_ended(&counting, pool), [0; 3]);
            }
        }
    }

    #[test]
    fn a_call_that_takes_a_time_or_a_key_reads_it_once() {
        let counting = Counting::new();
        let pool =
            BudgetPool::builder().tokens(10_000).clock(counting.clock()).timer(by_hand).build();
        assert_eq!(counting.reads(), 0);
        pool.record_once("key", tokens(1)).unwrap();
        assert_eq!(counting.reads(), 1);
        let hold = pool.reserve(Ask::new(tokens(1)).ttl(Duration::MAX)).unwrap();
        assert_eq!(counting.reads(), 1);
        hold.renew(Duration::MAX).unwrap();
        assert_eq!(counting.reads(), 1);
        assert_eq!(asked_told_ended(&counting, &pool), [0; 3], "none of these may expire");
        hold.renew(secs(1)).unwrap();
        assert_eq!((counting.reads(), hold.time_left(), counting.reads()), (1, Some(secs(1)), 1));
        assert_eq!(asked_told_ended(&counting, &pool), [1; 3]);
    }

    #[test]
    fn a_window_makes_its_path_read_it() {
        let counting = Counting::new();
        let root =
            BudgetPool::builder().tokens(10_000).clock(counting.clock()).timer(by_hand).build();
        let sibling = root.child().build();
        let turning = root.child().tokens(5_000).window(Window::fixed(secs(60))).build();
        assert_eq!(counting.reads(), 1, "it starts now");
        let below = turning.child().build();
        let share = turning.child().tokens(1_000).carved().build().unwrap();
        for pool in [&turning, &below, &share] {
            assert_eq!(asked_told_ended(&counting, pool), [1; 3]);
        }
        counting.reads();
        use_the_rest(&turning);
        turning.close();
        assert_eq!(counting.reads(), 0);
        for pool in [&root, &sibling] {
            assert_eq!((each(&counting, pool, &ASK), each_end(&counting, pool)), (0, 0));
            pool.debit(tokens(1));
            drop((pool.snapshot(), pool.holders(), pool.reset()));
            assert_eq!(counting.reads(), 0);
        }
        drop(root.snapshot_tree());
        assert_eq!(counting.reads(), 1, "to turn what is below");
    }

    #[test]
    fn a_window_beside_a_pool_is_no_reason_to_read_it_for_the_tree_below() {
        let counting = Counting::new();
        let root = BudgetPool::builder().clock(counting.clock()).timer(by_hand).build();
        let _turning = root.child().tokens(1).window(Window::fixed(secs(60))).build();
        let plain = root.child().build();
        let _below = plain.child().build();
        counting.reads();
        assert_eq!((plain.snapshot_tree().iter().count(), counting.reads()), (2, 0));
        assert_eq!((root.snapshot_tree().iter().count(), counting.reads()), (4, 1));
    }

    #[test]
    fn a_window_that_is_gone_needs_no_time() {
        let counting = Counting::new();
        let root = BudgetPool::builder().clock(counting.clock()).timer(by_hand).build();
        drop(root.child().window(Window::fixed(secs(60))).build());
        assert_eq!(
            (counting.reads(), root.snapshot_tree().iter().count(), counting.reads()),
            (1, 1, 0)
        );
    }
}

mod a_clock_that_panics {
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
            let pool =
                BudgetPool::builder().name("run").tokens(100).clock(breakable).timer(by_hand);
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
                let later =
                    if has_window { [0, held, 0] } else { [used + paid, held, overage - paid] };
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
}
