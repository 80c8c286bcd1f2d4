//! Leases, by promise and through the public API alone: one behaviour at a time, then under
//! threads. What comes of any sequence of calls is the work of `tests/model.rs`.

#![allow(clippy::needless_range_loop, reason = "an axis is an index into several")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Lease, ManualClock, Outlook, Reservation,
    Usd, Wait, Window,
};

#[path = "support/random.rs"]
mod random;

use random::Dice;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn both(tokens: u64, requests: u64) -> Amount {
    Amount::new().tokens(tokens).requests(requests)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

/// A lease whose share is its whole batch: its first record, of one token, has filled it.
fn filled(pool: &BudgetPool, batch: Amount) -> Lease {
    let mut lease = pool.lease(batch);
    lease.record(tokens(1)).unwrap();
    assert_eq!(lease.remaining(), batch, "an eighth of what is free is no less");
    lease
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn poll(wait: &mut Wait) -> Poll<Result<Reservation, BudgetError>> {
    Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
}

/// A wait that has its place.
fn queued(pool: &BudgetPool, amount: Amount) -> Wait {
    let mut wait = pool.reserve_wait(amount);
    assert!(poll(&mut wait).is_pending());
    wait
}

fn granted(wait: &mut Wait) -> Reservation {
    match poll(wait) {
        Poll::Ready(Ok(hold)) => hold,
        other => panic!("{other:?}"),
    }
}

fn outlook(refused: Result<(), BudgetError>) -> Outlook {
    match refused {
        Err(BudgetError::Exceeded(refusal)) => refusal.outlook(),
        other => panic!("{other:?}"),
    }
}

mod p1_cap {
    use super::*;

    #[test]
    fn a_share_is_reserved_before_it_is_spent_and_booked_when_it_is_settled() {
        let pool = pool_of(100);
        let mut lease = pool.lease(tokens(10));
        assert_eq!((balance(&pool), lease.remaining()), ([0, 0, 0], tokens(0)));
        lease.record(tokens(1)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([1, 10, 0], tokens(10)));
        lease.record(tokens(4)).unwrap();
        lease.debit(tokens(1));
        assert_eq!(
            (balance(&pool), lease.remaining()),
            ([1, 10, 0], tokens(5)),
            "the pool has not been told"
        );
        lease.settle();
        assert_eq!((balance(&pool), lease.remaining()), ([6, 5, 0], tokens(5)));
        lease.settle();
        assert_eq!(balance(&pool), [6, 5, 0], "once");
        assert_eq!(pool.snapshot().tokens.spent, 6);
        drop(lease);
        assert_eq!(balance(&pool), [6, 0, 0]);
    }

    #[test]
    fn the_first_record_takes_what_is_asked_and_fills_the_share_from_what_is_then_free() {
        let cases = [
            // The cap, the batch, the first record, and the share that it leaves.
            (1_000, 10, 1, 10),
            (1_000, 10, 30, 10),
            (89, 11, 1, 11),
            (88, 11, 1, 10),
            (100, 100, 1, 12),
            (100, 1_000, 4, 12),
            (100, 20, 92, 1),
            (100, 20, 93, 0),
            (100, 20, 100, 0),
        ];
        for (cap, batch, first, share) in cases {
            let pool = pool_of(cap);
            let mut lease = pool.lease(tokens(batch));
            lease.record(tokens(first)).unwrap();
            let case = format!("{first} of {cap}, in batches of {batch}");
            assert_eq!(lease.remaining(), tokens(share), "{case}");
            assert_eq!(balance(&pool), [first, share, 0], "{case}");
        }
    }

    #[test]
    fn an_empty_share_is_filled_by_no_debit_no_refusal_and_no_record_of_nothing() {
        let pool = pool_of(100);
        let mut lease = pool.lease(tokens(10));
        lease.record(tokens(0)).unwrap();
        lease.record(tokens(101)).unwrap_err();
        assert_eq!((balance(&pool), lease.remaining()), ([0, 0, 0], tokens(0)));
        lease.debit(tokens(3));
        assert_eq!((balance(&pool), lease.remaining()), ([3, 0, 0], tokens(0)));
        drop(lease);
        assert_eq!(balance(&pool), [3, 0, 0]);
    }

    #[test]
    fn a_share_is_spent_on_all_its_axes_or_on_none() {
        let pool = BudgetPool::builder().tokens(100).requests(8).build();
        let mut lease = filled(&pool, both(10, 1));
        assert_eq!(lease.record(both(3, 9)).unwrap_err().axis(), Some(Axis::Requests));
        assert_eq!(lease.remaining(), both(10, 1));
        lease.record(both(3, 1)).unwrap();
        assert_eq!(lease.remaining(), both(7, 0));
        lease.record(tokens(7)).unwrap();
        assert_eq!(lease.remaining(), both(0, 0));
        assert_eq!(balance(&pool), [1, 10, 0]);
    }

    #[test]
    fn a_refill_settles_takes_what_is_missing_and_fills_the_share() {
        let pool = pool_of(1_000);
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(7)).unwrap();
        lease.record(tokens(8)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([16, 10, 0], tokens(10)));
        lease.record(tokens(25)).unwrap();
        assert_eq!(
            (balance(&pool), lease.remaining()),
            ([41, 10, 0], tokens(10)),
            "above the batch: it goes through"
        );
    }

    #[test]
    fn a_refill_tops_up_the_other_axes_too() {
        let pool = BudgetPool::builder().tokens(1_000).requests(1_000).build();
        let mut lease = filled(&pool, both(10, 10));
        lease.record(both(9, 4)).unwrap();
        lease.record(both(2, 1)).unwrap();
        assert_eq!(lease.remaining(), both(10, 10));
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.requests.used, snapshot.requests.reserved), (5, 10));
    }

    #[test]
    fn an_axis_that_the_batch_does_not_name_comes_from_the_pool() {
        let pool = BudgetPool::builder().tokens(1_000).requests(2).build();
        let mut lease = filled(&pool, tokens(10));
        lease.record(both(4, 2)).unwrap();
        let snapshot = pool.snapshot();
        assert_eq!(
            (snapshot.tokens.used, snapshot.requests.used, snapshot.requests.reserved),
            (5, 2, 0)
        );
        assert_eq!(lease.remaining(), tokens(10));
        assert_eq!(lease.record(both(1, 1)).unwrap_err().axis(), Some(Axis::Requests));
        assert_eq!(lease.remaining(), tokens(10));
        lease.record(both(1, 0)).unwrap();
        assert_eq!(
            (balance(&pool), lease.remaining()),
            ([5, 10, 0], tokens(9)),
            "naming it with zero needs nothing of it"
        );
    }

    #[test]
    fn a_batch_of_nothing_passes_all_through() {
        let pool = pool_of(10);
        for batch in [Amount::new(), tokens(0)] {
            let mut lease = pool.lease(batch);
            lease.record(tokens(3)).unwrap();
            lease.debit(tokens(1));
            assert_eq!((pool.snapshot().tokens.reserved, lease.remaining()), (0, batch));
        }
        assert_eq!(balance(&pool), [8, 0, 0]);
    }

    #[test]
    fn numbers_at_the_end_of_a_u64_do_not_wrap() {
        let pool = BudgetPool::unlimited();
        let mut lease = pool.lease(tokens(u64::MAX));
        lease.record(tokens(1)).unwrap();
        let share = (u64::MAX - 1) / 8;
        assert_eq!((balance(&pool), lease.remaining()), ([1, share, 0], tokens(share)));
        assert!(pool.record(tokens(u64::MAX - share)).is_err());
        assert_eq!(lease.record(tokens(u64::MAX)).unwrap_err().axis(), Some(Axis::Tokens));
        assert_eq!(lease.remaining(), tokens(share));
        assert_eq!(lease.debit(tokens(u64::MAX)).overage(), tokens(1));
        assert_eq!((balance(&pool), lease.remaining()), ([u64::MAX, 0, 1], tokens(0)));
        drop(lease);
        assert_eq!((balance(&pool), pool.snapshot().tokens.spent), ([u64::MAX, 0, 1], u64::MAX));

        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(12));
        // A share that adds before it compares admits these.
        for amount in [u64::MAX, u64::MAX - 11, u64::MAX - 12] {
            assert!(lease.record(tokens(amount)).is_err(), "{amount}");
        }
        assert_eq!((balance(&pool), lease.remaining()), ([1, 12, 0], tokens(12)));
    }
}

mod p2_nothing_lost {
    use super::*;

    #[test]
    fn a_debit_beyond_the_share_takes_what_is_free_and_the_rest_is_overage() {
        let pool = BudgetPool::builder().tokens(100).requests(80).build();
        let mut lease = filled(&pool, both(10, 10));
        pool.record(tokens(79)).unwrap();
        let within = lease.debit(both(4, 1));
        assert_eq!(
            (within.settled(), within.overage(), within.is_late()),
            (both(4, 1), both(0, 0), false)
        );
        assert_eq!(balance(&pool), [80, 10, 0]);
        let receipt = lease.debit(both(20, 5));
        assert_eq!(
            (receipt.settled(), receipt.overage(), receipt.is_late()),
            (both(20, 5), both(4, 0), false)
        );
        assert_eq!(
            (balance(&pool), lease.remaining()),
            ([100, 0, 4], both(0, 4)),
            "it does not refill"
        );
        assert_eq!(lease.debit(tokens(7)).overage(), tokens(7));
        assert_eq!(pool.snapshot().tokens.spent, 111);
    }

    #[test]
    fn a_share_that_goes_back_pays_the_overage_first() {
        let pool = pool_of(300);
        let mut lease = filled(&pool, tokens(30));
        pool.debit(tokens(289));
        assert_eq!(balance(&pool), [270, 30, 20]);
        lease.record(tokens(5)).unwrap();
        drop(lease);
        assert_eq!(balance(&pool), [295, 0, 0]);
        pool.record(tokens(5)).unwrap();
    }

    #[test]
    fn a_closed_pool_still_books_what_was_spent_and_what_is_left() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(2)).unwrap();
        pool.close();
        lease.record(tokens(3)).unwrap();
        let refused = lease.record(tokens(6)).unwrap_err();
        assert!(matches!(refused, BudgetError::Closed { pool, .. } if pool == "run"));
        assert_eq!((balance(&pool), lease.remaining()), ([6, 5, 0], tokens(5)));
        lease.debit(tokens(7));
        assert_eq!((balance(&pool), lease.remaining()), ([13, 0, 0], tokens(0)));
    }

    #[test]
    fn a_reset_reaches_a_lease_at_its_next_settlement() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(4)).unwrap();
        lease.settle();
        lease.record(tokens(3)).unwrap();
        assert_eq!(pool.reset().tokens.used, 5);
        assert_eq!(balance(&pool), [0, 6, 0]);
        lease.record(tokens(5)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([8, 10, 0], tokens(10)));
        assert_eq!(pool.snapshot().tokens.spent, 13);
    }
}

mod p3_no_leak {
    use super::*;

    #[test]
    fn what_is_left_goes_back_once_however_it_ends() {
        fn fails(pool: &BudgetPool) -> Result<(), BudgetError> {
            let mut lease = filled(pool, tokens(10));
            lease.record(tokens(1))?;
            lease.record(tokens(1_000))
        }
        let pool = pool_of(100);
        fails(&pool).unwrap_err();
        assert_eq!(balance(&pool), [2, 0, 0]);
        let panicked = catch_unwind(|| {
            let mut lease = filled(&pool, tokens(10));
            lease.record(tokens(2)).unwrap();
            panic!("in the middle");
        });
        assert!(panicked.is_err());
        assert_eq!(balance(&pool), [5, 0, 0]);
        std::thread::scope(|scope| {
            let mut lease = filled(&pool, tokens(10));
            scope.spawn(move || lease.record(tokens(4)).unwrap());
        });
        assert_eq!(balance(&pool), [10, 0, 0]);
        drop(pool.lease(tokens(10)));
        pool.record(tokens(90)).unwrap();
    }

    #[test]
    fn a_forgotten_lease_is_held_for_ever() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(4)).unwrap();
        std::mem::forget(lease);
        pool.reset();
        pool.close();
        assert_eq!((balance(&pool), pool.snapshot().tokens.spent), ([0, 10, 0], 1));
    }

    #[test]
    fn a_lease_is_listed_but_is_no_reservation() {
        let pool = BudgetPool::builder().name("run").tokens(100).in_flight(1).build();
        let child = pool.child().name("child").build();
        let hold = pool.reserve(tokens(3)).unwrap().label("hold");
        let mut lease = child.lease(tokens(10));
        let list = |pool: &BudgetPool| -> Vec<_> {
            let holders = pool.holders();
            holders
                .into_iter()
                .map(|holder| (holder.pool.to_string(), holder.label, holder.amount))
                .collect()
        };
        let leased = |left| ("child".to_owned(), None, left);
        let held = ("run".to_owned(), Some("hold".into()), tokens(3));
        assert_eq!(list(&pool), [held.clone(), leased(Amount::new())]);
        lease.record(tokens(1)).unwrap();
        lease.record(tokens(4)).unwrap();
        assert_eq!(list(&pool), [leased(tokens(10)), held]);
        lease.settle();
        assert_eq!(list(&child), [leased(tokens(6))], "what is not settled is listed as held");
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.reservations, snapshot.in_flight.reserved), (1, 1));
        drop((hold, lease));
        assert_eq!((list(&pool).len(), pool.snapshot().reservations), (0, 0));
    }

    #[test]
    fn a_lease_keeps_its_pool_alive() {
        let root = pool_of(100);
        let mut lease = root.child().name("child").tokens(20).build().lease(tokens(5));
        assert_eq!((root.snapshot_tree().len(), lease.pool().name()), (2, "child"));
        lease.record(tokens(6)).unwrap();
        drop(lease);
        assert_eq!((root.snapshot_tree().len(), balance(&root)), (1, [6, 0, 0]));
    }

    #[test]
    fn a_clock_that_panics_changes_nothing_and_cannot_stop_a_drop() {
        let (broken, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let clock = {
            let broken = Arc::clone(&broken);
            move || if broken.load(Ordering::Relaxed) { panic!("a broken clock") } else { start }
        };
        let window = Window::fixed(Duration::from_secs(60));
        let pool = BudgetPool::builder().tokens(100).window(window).clock(clock).build();
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(4)).unwrap();
        broken.store(true, Ordering::Relaxed);
        assert!(catch_unwind(AssertUnwindSafe(|| lease.record(tokens(9)))).is_err());
        lease.settle();
        lease.record(tokens(1)).unwrap();
        assert_eq!(
            (lease.remaining(), balance(&pool)),
            (tokens(5), [5, 6, 0]),
            "what tells takes no time then"
        );
        drop(lease);
        let mut new = pool.lease(tokens(10));
        assert!(catch_unwind(AssertUnwindSafe(|| new.record(tokens(1)))).is_err());
        broken.store(false, Ordering::Relaxed);
        assert_eq!((new.remaining(), balance(&pool)), (tokens(0), [6, 0, 0]));
    }
}

mod p4_no_false_refusal {
    use super::*;

    #[test]
    fn what_is_left_and_what_is_free_can_be_asked_for_to_the_unit() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        pool.record(tokens(84)).unwrap();
        lease.record(tokens(3)).unwrap();
        assert!(lease.record(tokens(13)).is_err());
        lease.record(tokens(12)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([100, 0, 0], tokens(0)));
        assert!(lease.record(tokens(1)).is_err());
        lease.record(tokens(0)).unwrap();
    }

    #[test]
    fn an_axis_that_the_share_covers_is_not_asked_of_the_pool() {
        let pool = BudgetPool::builder().tokens(100).requests(10).build();
        let mut lease = filled(&pool, both(10, 1));
        pool.record(Amount::new().requests(9)).unwrap();
        lease.record(both(11, 1)).unwrap();
        assert_eq!(lease.remaining(), both(10, 0), "no request is left to ask for");
    }

    /// What can stand in the way of a spend, and what takes it away again.
    type Obstacle = (fn(&BudgetPool) -> Option<Reservation>, fn(&BudgetPool));

    #[test]
    fn a_lease_asks_nothing_and_only_its_records_are_refused() {
        let obstacles: [Obstacle; 3] = [
            (|pool| Some(pool.reserve(tokens(100)).unwrap()), |_| ()),
            (
                |pool| {
                    pool.record(tokens(100)).unwrap();
                    None
                },
                |pool| _ = pool.reset(),
            ),
            (
                |pool| {
                    pool.debit(tokens(110));
                    None
                },
                |pool| pool.raise_caps(Caps::new().tokens(110)).unwrap(),
            ),
        ];
        for (obstruct, clear) in obstacles {
            let pool = pool_of(100);
            let obstacle = obstruct(&pool);
            let before = pool.snapshot();
            let mut lease = pool.lease(tokens(1_000));
            assert_eq!(pool.snapshot(), before);
            for asked in [1, 101] {
                let refused = pool.peek(tokens(asked)).unwrap_err();
                assert_eq!(lease.record(tokens(asked)), Err(refused));
            }
            clear(&pool);
            drop(obstacle);
            lease.record(tokens(20)).unwrap();
            assert_eq!(lease.remaining(), tokens(10), "an eighth of 80");
        }
    }

    #[test]
    fn what_is_left_of_a_lease_may_come_back_and_what_it_has_spent_does_not() {
        let pool = pool_of(10);
        let lease = filled(&pool, tokens(1));
        assert_eq!(outlook(pool.record(tokens(9))), Outlook::AfterRelease, "it may be dropped");
        assert_eq!(outlook(pool.record(tokens(10))), Outlook::Never);
        drop(lease);
        pool.record(tokens(9)).unwrap();
    }

    #[test]
    fn the_lower_the_pool_the_smaller_the_bites() {
        let pool = pool_of(100);
        let mut lease = pool.lease(tokens(20));
        let mut left = Vec::new();
        for free in [79, 60, 30, 16, 15, 8, 7, 1] {
            let free_now = 100 - balance(&pool)[0] - balance(&pool)[1] + remaining(&lease);
            lease.record(tokens(free_now - free)).unwrap();
            left.push(remaining(&lease));
        }
        assert_eq!(left, [9, 7, 3, 2, 1, 1, 0, 0], "an eighth of what is free");
        lease.record(tokens(1)).unwrap();
        assert_eq!(balance(&pool), [100, 0, 0]);
    }

    #[test]
    fn each_lease_finds_something_however_large_the_batches() {
        let pool = pool_of(1_000);
        let mut leases = [(); 4].map(|()| pool.lease(tokens(1_000)));
        for lease in &mut leases {
            lease.record(tokens(1)).unwrap();
        }
        assert_eq!(leases.each_ref().map(remaining), [124, 109, 95, 83]);
        assert_eq!(balance(&pool), [4, 411, 0]);
        // One of them can have all that is free and its own share, and the others have theirs.
        let [first, others @ ..] = &mut leases;
        first.record(tokens(585 + 125)).unwrap_err();
        first.record(tokens(585 + 124)).unwrap();
        for lease in others {
            lease.record(lease.remaining()).unwrap();
        }
        drop(leases);
        assert_eq!(balance(&pool), [1_000, 0, 0]);
    }

    fn remaining(lease: &Lease) -> u64 {
        lease.remaining().get(Axis::Tokens).unwrap().units()
    }
}

mod p6_fair_waiting {
    use super::*;

    #[test]
    fn a_lease_takes_its_turn_beyond_its_share() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        let hold = pool.reserve(tokens(40)).unwrap();
        let mut wait = queued(&pool, tokens(60));
        let is_queued = |refused| matches!(refused, Err(BudgetError::Queued { .. }));
        assert!(is_queued(lease.record(tokens(12))));
        lease.record(tokens(10)).unwrap();
        lease.settle();
        assert_eq!((balance(&pool), lease.remaining()), ([11, 40, 0], tokens(0)));
        assert!(is_queued(lease.record(tokens(1))));
        assert!(is_queued(pool.lease(tokens(10)).record(tokens(1))));
        lease.debit(tokens(2));
        assert_eq!((balance(&pool), lease.remaining()), ([13, 40, 0], tokens(0)));
        drop(hold);
        granted(&mut wait).release();
        lease.record(tokens(1)).unwrap();
        assert_eq!(lease.remaining(), tokens(10), "nobody waits any more");
    }

    #[test]
    fn a_lease_below_leaves_what_is_waited_for_above_and_passes_what_is_not() {
        let root = BudgetPool::builder().name("root").tokens(100).build();
        let child = root.child().requests(100).build();
        let mut contested = filled(&child, both(10, 10));
        let mut apart = child.lease(Amount::new().requests(10));
        let _hold = root.reserve(tokens(50)).unwrap();
        let _wait = queued(&root, tokens(60));
        assert!(matches!(contested.record(both(11, 1)), Err(BudgetError::Queued { .. })));
        contested.record(both(10, 1)).unwrap();
        assert_eq!(contested.remaining(), both(0, 9));
        let mut new = child.lease(both(10, 10));
        assert!(matches!(new.record(both(1, 1)), Err(BudgetError::Queued { .. })));
        apart.record(Amount::new().requests(11)).unwrap();
        assert_eq!(apart.remaining(), Amount::new().requests(9), "an eighth of 78");
    }

    #[test]
    fn a_lease_that_is_dropped_serves_who_waits_for_what_is_left() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        pool.record(tokens(82)).unwrap();
        lease.record(tokens(3)).unwrap();
        let mut first = queued(&pool, tokens(9));
        let mut second = queued(&pool, tokens(5));
        drop(lease);
        assert_eq!(balance(&pool), [86, 14, 0]);
        assert_eq!(granted(&mut first).amount(), tokens(9));
        assert_eq!(granted(&mut second).amount(), tokens(5));
        assert_eq!(balance(&pool), [86, 0, 0]);
    }

    #[test]
    fn a_lease_that_is_dropped_tells_those_whom_it_leaves_no_hope() {
        let pool = pool_of(100);
        let mut lease = filled(&pool, tokens(10));
        pool.record(tokens(80)).unwrap();
        lease.record(tokens(10)).unwrap();
        let (mut hopeless, mut last) = (queued(&pool, tokens(10)), queued(&pool, tokens(9)));
        assert_eq!(pool.snapshot().waiting, 2);
        drop(lease);
        assert_eq!(pool.snapshot().waiting, 0, "without a look of their own");
        match poll(&mut hopeless) {
            Poll::Ready(Err(refusal)) => assert_eq!(refusal.outlook(), Outlook::Never),
            other => panic!("{other:?}"),
        }
        assert_eq!(granted(&mut last).amount(), tokens(9));
    }

    #[test]
    fn who_waits_for_what_a_lease_has_spent_is_told_once_the_pool_knows() {
        for tell in [
            Lease::settle,
            |lease: &mut Lease| _ = lease.debit(tokens(1)),
            |lease: &mut Lease| {
                lease.record(tokens(200)).unwrap_err();
            },
        ] {
            let pool = pool_of(100);
            let mut lease = filled(&pool, tokens(10));
            lease.record(tokens(10)).unwrap();
            let mut wait = queued(&pool, tokens(90));
            tell(&mut lease);
            let told = match poll(&mut wait) {
                Poll::Ready(Err(refusal)) => refusal,
                other => panic!("{other:?}"),
            };
            assert_eq!(outlook(Err(told)), Outlook::Never);
        }
    }
}

mod p7_clear_refusals {
    use super::*;

    #[test]
    fn a_refusal_says_what_was_missing_and_changes_nothing() {
        let pool = BudgetPool::builder().name("run").tokens(100).requests(100).build();
        let mut lease = filled(&pool, both(10, 10));
        pool.record(tokens(69)).unwrap();
        lease.record(both(4, 1)).unwrap();
        let refused = match lease.record(both(50, 1)) {
            Err(BudgetError::Exceeded(refused)) => refused,
            other => panic!("{other:?}"),
        };
        assert_eq!((refused.axis(), refused.pool()), (Axis::Tokens, "run"));
        assert_eq!(
            (refused.requested().units(), refused.available().units()),
            (44, 20),
            "beyond the share of 6"
        );
        assert_eq!(lease.remaining(), both(6, 9));
        let snapshot = pool.snapshot();
        assert_eq!(
            [snapshot.tokens.used, snapshot.tokens.reserved],
            [74, 6],
            "what was spent before is settled"
        );
        assert_eq!([snapshot.requests.used, snapshot.requests.reserved], [1, 9]);
        assert_eq!((snapshot.admitted, snapshot.refused), (2, 1));
    }

    #[test]
    fn what_is_spent_from_the_share_is_admitted_with_it_and_a_refill_counts_once() {
        let root = pool_of(1_000);
        let child = root.child().build();
        let mut lease = child.lease(tokens(10));
        assert_eq!(root.snapshot().admitted, 0);
        lease.record(tokens(1)).unwrap();
        for _ in 0..10 {
            lease.record(tokens(1)).unwrap();
        }
        assert_eq!(root.snapshot().admitted, 1);
        lease.record(tokens(1)).unwrap();
        lease.debit(tokens(50));
        lease.settle();
        drop(lease);
        for pool in [&root, &child] {
            let snapshot = pool.snapshot();
            assert_eq!((snapshot.admitted, snapshot.refused, snapshot.tokens.used), (2, 0, 62));
        }
    }
}

mod p8_time {
    use super::*;

    fn counting(start: Instant) -> (Arc<AtomicU64>, impl Fn() -> Instant + Send + Sync + 'static) {
        let reads = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&reads);
        let clock = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            start
        };
        (reads, clock)
    }

    #[test]
    fn a_share_is_spent_without_the_clock_and_a_refill_reads_it_only_if_the_path_has_time() {
        let run = |builder: budget_pool::PoolBuilder<budget_pool::Root>| {
            let (reads, clock) = counting(Instant::now());
            let pool = builder.tokens(1_000).clock(clock).build();
            let mut counts = Vec::new();
            let mut count = || counts.push(reads.swap(0, Ordering::Relaxed));
            count();
            let mut lease = pool.lease(tokens(10));
            count();
            lease.record(tokens(1)).unwrap();
            count();
            lease.record(tokens(3)).unwrap();
            lease.debit(tokens(3));
            count();
            lease.record(tokens(8)).unwrap();
            count();
            lease.debit(tokens(11));
            count();
            lease.settle();
            count();
            drop(lease);
            count();
            counts.remove(0);
            counts
        };
        assert_eq!(run(BudgetPool::builder()), [0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(
            run(BudgetPool::builder().deadline(Duration::from_secs(1))),
            [0, 1, 0, 1, 0, 0, 0],
            "what asks"
        );
        assert_eq!(
            run(BudgetPool::builder().window(Window::fixed(Duration::from_secs(1)))),
            [0, 1, 0, 1, 1, 1, 1]
        );
    }

    #[test]
    fn a_deadline_reaches_a_lease_at_its_next_refill() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(100)
            .deadline(Duration::from_secs(1))
            .clock(clock.clone())
            .build();
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(2)).unwrap();
        clock.advance(Duration::from_secs(1));
        lease.record(tokens(3)).unwrap();
        assert!(matches!(lease.record(tokens(6)), Err(BudgetError::DeadlineExceeded(_))));
        assert_eq!((balance(&pool), lease.remaining()), ([6, 5, 0], tokens(5)));
        let first = pool.lease(tokens(10)).record(tokens(1));
        assert!(matches!(first, Err(BudgetError::DeadlineExceeded(_))));
        assert_eq!(lease.debit(tokens(9)).overage(), tokens(0));
        drop(lease);
        assert_eq!(balance(&pool), [15, 0, 0]);
    }

    #[test]
    fn a_windows_turn_makes_room_for_a_refill_and_what_was_not_settled_is_of_the_new_period() {
        let (clock, period) = (ManualClock::new(), Duration::from_secs(60));
        let pool = BudgetPool::builder()
            .tokens(100)
            .window(Window::fixed(period))
            .clock(clock.clone())
            .build();
        let mut lease = filled(&pool, tokens(10));
        pool.record(tokens(89)).unwrap();
        lease.record(tokens(6)).unwrap();
        let refused = lease.record(tokens(5)).unwrap_err();
        assert_eq!(refused.retry_after(), Some(period));
        lease.record(tokens(1)).unwrap();
        clock.advance(period);
        lease.record(tokens(5)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([6, 10, 0], tokens(10)));
        assert_eq!(pool.snapshot().tokens.spent, 102);
    }

    #[test]
    fn a_token_bucket_gives_back_what_a_lease_has_settled_and_not_its_share() {
        let (clock, period) = (ManualClock::new(), Duration::from_secs(100));
        let pool = BudgetPool::builder()
            .tokens(100)
            .window(Window::token_bucket(period))
            .clock(clock.clone())
            .build();
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(10)).unwrap();
        clock.advance(period);
        assert_eq!(balance(&pool), [0, 10, 0]);
        pool.record(tokens(90)).unwrap();
        assert_eq!(
            lease.record(tokens(1)).unwrap_err().retry_after(),
            Some(Duration::from_secs(1)),
            "settled now"
        );
        assert_eq!(balance(&pool), [100, 0, 0]);
        clock.advance(period);
        lease.record(tokens(100)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([100, 0, 0], tokens(0)));
    }

    #[test]
    fn a_hold_that_expires_makes_room_for_a_refill() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).build();
        let mut lease = filled(&pool, tokens(10));
        let _hold = pool.reserve(Ask::new(tokens(89)).ttl(Duration::from_secs(1))).unwrap();
        assert!(lease.record(tokens(11)).is_err());
        clock.advance(Duration::from_secs(1));
        lease.record(tokens(11)).unwrap();
        assert_eq!((balance(&pool), lease.remaining()), ([12, 10, 0], tokens(10)));
    }

    #[test]
    fn what_is_beyond_the_share_reclaims_as_many_expired_holds_as_it_needs() {
        for tell in [false, true] {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).build();
            let mut lease = filled(&pool, tokens(10));
            let ttl = Duration::from_secs(1);
            let _holds: Vec<_> =
                (0..40).map(|_| pool.reserve(Ask::new(tokens(2)).ttl(ttl)).unwrap()).collect();
            clock.advance(ttl);
            match tell {
                true => assert_eq!(lease.debit(tokens(99)).overage(), tokens(0)),
                false => lease.record(tokens(99)).unwrap(),
            }
            assert_eq!(balance(&pool), [100, 0, 0]);
        }
    }
}

mod pools_under_pools {
    use super::*;

    #[test]
    fn a_share_of_a_child_is_charged_to_the_whole_path() {
        let root = BudgetPool::builder().name("root").tokens(200).build();
        let child = root.child().name("child").tokens(100).build();
        let leaf = child.child().build();
        let all = || [&root, &child, &leaf].map(balance);
        let mut lease = leaf.lease(tokens(10));
        assert_eq!(all(), [[0, 0, 0]; 3]);
        lease.record(tokens(1)).unwrap();
        assert_eq!(all(), [[1, 10, 0]; 3]);
        lease.record(tokens(4)).unwrap();
        lease.record(tokens(8)).unwrap();
        assert_eq!((all(), lease.remaining()), ([[13, 10, 0]; 3], tokens(10)));
        // The least that is free on the way decides what a refill takes, and who refuses.
        root.record(tokens(143)).unwrap();
        lease.record(tokens(20)).unwrap();
        assert_eq!((all(), lease.remaining()), ([[176, 3, 0], [33, 3, 0], [33, 3, 0]], tokens(3)));
        assert_eq!(lease.record(tokens(25)).unwrap_err().pool(), "root");
        assert_eq!(lease.remaining(), tokens(3));
        assert_eq!(lease.debit(tokens(25)).overage(), tokens(1), "the greatest on the path");
        drop(lease);
        assert_eq!(all(), [[200, 0, 1], [58, 0, 0], [58, 0, 0]]);
    }

    #[test]
    fn a_lease_of_a_carved_child_takes_from_its_share_alone() {
        let root = BudgetPool::builder().name("root").tokens(200).requests(200).build();
        let carved = root.child().name("carved").tokens(80).carved().build().unwrap();
        root.record(tokens(120)).unwrap();
        let mut lease = filled(&carved, both(9, 10));
        assert_eq!([&root, &carved].map(balance), [[121, 79, 0], [1, 9, 0]]);
        assert_eq!(root.snapshot().requests.reserved, 10, "not carved: asked above");
        lease.record(both(14, 14)).unwrap();
        // 65 are free in the share, 186 above it.
        assert_eq!(lease.remaining(), both(8, 10));
        assert_eq!([&root, &carved].map(balance), [[135, 65, 0], [15, 8, 0]]);
        assert_eq!(root.snapshot().requests.used, 14);
        lease.record(tokens(3)).unwrap();
        carved.close();
        assert_eq!(
            [&root, &carved].map(balance),
            [[135, 8, 0], [15, 8, 0]],
            "what is left of the lease stays"
        );
        drop(lease);
        assert_eq!([&root, &carved].map(balance), [[138, 0, 0], [18, 0, 0]]);
        assert_eq!(root.snapshot().tokens.available, Some(62));
    }

    #[test]
    fn a_close_above_reaches_a_lease_below() {
        let root = BudgetPool::builder().name("root").tokens(200).build();
        let child = root.child().build();
        let (mut lease, mut new) = (filled(&child, tokens(10)), child.lease(tokens(10)));
        root.close();
        lease.record(tokens(10)).unwrap();
        for lease in [&mut lease, &mut new, &mut child.lease(tokens(10))] {
            let refused = lease.record(tokens(1)).unwrap_err();
            assert!(matches!(refused, BudgetError::Closed { pool, .. } if pool == "root"));
        }
    }
}

mod types {
    use super::*;

    fn shared<
        T: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static,
    >() {
    }

    #[test]
    fn a_lease_moves_between_threads_and_fits_four_cache_lines() {
        shared::<Lease>();
        assert!(size_of::<Lease>() <= 256, "{}", size_of::<Lease>());
    }

    #[test]
    fn debug_says_what_it_is() {
        let pool = pool_of(100);
        let mut lease = pool.lease(tokens(3).usd(Usd::from_cents(1)));
        let text = r#"Lease { pool: "run", remaining: Amount(0 tokens, 0 USD) }"#;
        assert_eq!(format!("{lease:?}"), text);
        lease.record(tokens(1)).unwrap();
        lease.record(tokens(1)).unwrap();
        let text = r#"Lease { pool: "run", remaining: Amount(2 tokens, 0.01 USD) }"#;
        assert_eq!(format!("{lease:?}"), text);
    }
}

const PAIR: [Axis; 2] = [Axis::Tokens, Axis::Requests];

/// On each of the pair.
fn units(amount: Amount) -> [u64; 2] {
    PAIR.map(|axis| amount.get(axis).map_or(0, |quantity| quantity.units()))
}

fn amount([tokens, requests]: [u64; 2]) -> Amount {
    both(tokens, requests)
}

mod p1_exactness_under_load {
    use super::*;

    const CAPS: [u64; 2] = [60_000, 20_000];

    /// Used, reserved, available of the pair: adds up to the caps at every instant.
    fn look(pool: &BudgetPool) -> [[u64; 2]; 3] {
        let snapshot = pool.snapshot();
        let (tokens, requests) = (snapshot.tokens, snapshot.requests);
        let seen = [
            [tokens.used, requests.used],
            [tokens.reserved, requests.reserved],
            [tokens.available.unwrap(), requests.available.unwrap()],
        ];
        for axis in 0..2 {
            assert_eq!(seen.iter().map(|units| units[axis]).sum::<u64>(), CAPS[axis], "P1");
        }
        assert_eq!((tokens.overage, requests.overage), (0, 0));
        seen
    }

    /// What each has spent before any of them works: a share that is filled only then may come too
    /// late to be stranded.
    const FIRST: [u64; 2] = [1, 1];

    /// The even ones spend to the last unit, one by one. The odd ones stop at their first refusal,
    /// or earlier, and leave what they have stranded.
    fn work(worker: u64, lease: &mut Lease) -> [u64; 2] {
        let mut dice = Dice::of(worker);
        let mut spent = FIRST;
        let mut spend = |lease: &mut Lease, asked: [u64; 2]| {
            let before = lease.remaining();
            let admitted = lease.record(amount(asked)).is_ok();
            if admitted {
                spent = [spent[0] + asked[0], spent[1] + asked[1]];
                assert!(spent[0] <= CAPS[0] && spent[1] <= CAPS[1], "P1");
            } else {
                assert_eq!(lease.remaining(), before, "P7");
            }
            admitted
        };
        for step in 0.. {
            let asked = [dice.roll(24), dice.roll(8)];
            if !spend(lease, asked) || (worker % 2 == 1 && step == 600) {
                break;
            }
        }
        if worker % 2 == 0 {
            while spend(lease, [1, 0]) {}
            while spend(lease, [0, 1]) {}
        }
        spent
    }

    #[test]
    fn what_is_used_and_what_is_stranded_are_the_cap_to_the_unit() {
        let pool = BudgetPool::builder().tokens(CAPS[0]).requests(CAPS[1]).build();
        let done = AtomicBool::new(false);
        let leases = [0, 1, 2, 3, 4, 5, 6, 7].map(|worker| {
            let mut lease = pool.lease(both(500, 150));
            lease.record(amount(FIRST)).unwrap();
            assert_eq!(lease.remaining(), both(500, 150));
            (worker, lease)
        });
        let leased = std::thread::scope(|scope| {
            let monitor = scope.spawn(|| {
                let mut used = [0; 2];
                loop {
                    let is_last = done.load(Ordering::Relaxed);
                    let [now, ..] = look(&pool);
                    assert!(now[0] >= used[0] && now[1] >= used[1], "what is spent stays spent");
                    used = now;
                    if is_last {
                        break;
                    }
                    std::thread::yield_now();
                }
            });
            let workers = leases.map(|(worker, mut lease)| {
                scope.spawn(move || {
                    let spent = work(worker, &mut lease);
                    (lease, spent)
                })
            });
            let leased = workers.map(|worker| worker.join());
            // Before any of them can fail the test: it must end.
            done.store(true, Ordering::Relaxed);
            let leased = leased.map(|leased| leased.unwrap());
            monitor.join().unwrap();
            leased
        });

        let total = |each: fn(&(Lease, [u64; 2])) -> [u64; 2]| {
            leased
                .iter()
                .map(each)
                .fold([0; 2], |sum, units| [sum[0] + units[0], sum[1] + units[1]])
        };
        let spent = total(|(_, spent)| *spent);
        let stranded = total(|(lease, _)| units(lease.remaining()));
        let in_even_hands =
            leased.iter().step_by(2).any(|(lease, _)| units(lease.remaining()) != [0; 2]);
        assert!(!in_even_hands, "spent to the last unit");
        assert!(stranded != [0; 2], "the odd ones stop with something");
        let [used, reserved, available] = look(&pool);
        for axis in 0..2 {
            assert!(used[axis] <= spent[axis], "it lags");
            assert_eq!((spent[axis] + stranded[axis], available[axis]), (CAPS[axis], 0));
            assert_eq!(used[axis] + reserved[axis], CAPS[axis]);
        }

        drop(leased);
        assert_eq!(look(&pool), [spent, [0, 0], stranded]);
        pool.record(amount(stranded)).unwrap();
        assert_eq!(look(&pool), [CAPS, [0, 0], [0, 0]]);
        assert!(pool.record(tokens(1)).is_err() && pool.record(both(0, 1)).is_err());
    }
}

mod many_workers {
    use super::*;

    /// So many workers that each lease a batch and spend one by one until they are refused. What
    /// each of them spent. `meet` is called between the first record of each and the others.
    fn spend_all(
        pool: &BudgetPool,
        workers: usize,
        batch: u64,
        meet: impl Fn(bool) + Sync,
    ) -> Vec<u64> {
        let work = || {
            let mut lease = pool.lease(Amount::new().requests(batch));
            let mut spends_one = || lease.record(Amount::new().requests(1)).is_ok();
            let has_started = spends_one();
            meet(has_started);
            let mut spent = u64::from(has_started);
            while spends_one() {
                spent += 1;
            }
            assert!(lease.remaining().is_zero(), "a refused worker has spent its share");
            spent
        };
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        })
    }

    #[track_caller]
    fn is_all_spent(pool: &BudgetPool, spent: &[u64], cap: u64) {
        let end = pool.snapshot();
        assert_eq!(spent.iter().sum::<u64>(), cap, "{spent:?}");
        assert_eq!((end.requests.used, end.requests.reserved), (cap, 0), "{end}");
        assert_eq!((end.requests.overage, end.requests.spent), (0, cap), "{end}");
    }

    #[test]
    fn p1_p4_batches_of_the_whole_budget_keep_no_worker_from_starting_and_all_is_spent() {
        for run in 0..300 {
            let (workers, cap) = ([2, 4, 8][run % 3], [1, 7, 64, 1_000, 4_000][run % 5]);
            let pool = BudgetPool::builder().requests(cap).build();
            let (all, started) = (Barrier::new(workers), AtomicU64::new(0));
            let spent = spend_all(&pool, workers, cap, |has_started| {
                started.fetch_add(u64::from(has_started), Ordering::Relaxed);
                all.wait();
            });
            assert_eq!(started.into_inner(), cap.min(workers as u64), "as many as there are units");
            is_all_spent(&pool, &spent, cap);
        }
    }

    #[test]
    fn p1_p4_the_example_of_the_documentation_spends_its_million_in_every_run() {
        for _ in 0..10 {
            let pool = BudgetPool::builder().requests(1_000_000).build();
            let spent = spend_all(&pool, 4, 1_000, |_| ());
            is_all_spent(&pool, &spent, 1_000_000);
        }
    }
}

mod how_much_can_be_stranded {
    use proptest::prelude::*;

    use super::*;

    fn pairs() -> impl Strategy<Value = [u64; 2]> {
        [0..=30_u64, 0..=12]
    }

    proptest! {
        /// After each call, on each axis: what the leases have left, what is free and what was spent are the cap. After
        /// each refusal: of what was asked, the own share is counted, and what is missing is more than what is free.
        /// After each refill: a share has its batch, or what was left of it and an eighth of what was free.
        #[test]
        fn what_is_missing_at_a_refusal_is_in_other_shares_and_what_a_refill_takes_is_bounded(
            caps in [0..=400_u64, 0..=150],
            batches in prop::collection::vec(pairs(), 1..6),
            calls in prop::collection::vec((any::<prop::sample::Index>(), pairs()), 1..120),
        ) {
            let pool = BudgetPool::builder().tokens(caps[0]).requests(caps[1]).build();
            let mut leases: Vec<(Lease, [u64; 2])> = Vec::new();
            for batch in batches {
                leases.push((pool.lease(amount(batch)), batch));
            }
            let mut spent = [0; 2];
            let free = || {
                let snapshot = pool.snapshot();
                [snapshot.tokens.available.unwrap(), snapshot.requests.available.unwrap()]
            };
            for (pick, asked) in calls {
                let at = pick.index(leases.len());
                let (lease, batch) = &mut leases[at];
                let (before, free_before) = (units(lease.remaining()), free());
                let outcome = lease.record(amount(asked));
                let after = units(lease.remaining());
                match outcome {
                    Ok(()) => {
                        spent = [spent[0] + asked[0], spent[1] + asked[1]];
                        let is_refill = asked[0] > before[0] || asked[1] > before[1];
                        for axis in 0..2 {
                            let left = before[axis].saturating_sub(asked[axis]);
                            let missing = asked[axis].saturating_sub(before[axis]);
                            let eighth = (free_before[axis] - missing) / 8;
                            let refilled = if is_refill { eighth.min(batch[axis] - left) } else { 0 };
                            prop_assert_eq!(after[axis], left + refilled);
                            prop_assert_eq!(free()[axis], free_before[axis] - missing - refilled);
                        }
                    }
                    Err(BudgetError::Exceeded(refusal)) => {
                        prop_assert_eq!(after, before);
                        let axis = PAIR.iter().position(|&axis| axis == refusal.axis()).unwrap();
                        prop_assert_eq!(refusal.requested().units(), asked[axis] - before[axis]);
                        prop_assert_eq!(refusal.available().units(), free()[axis]);
                        prop_assert!(asked[axis] - before[axis] > free()[axis]);
                        let others = leases.iter().enumerate().filter(|(other, _)| *other != at);
                        let stranded: u64 = others.map(|(_, (lease, _))| units(lease.remaining())[axis]).sum();
                        prop_assert_eq!(caps[axis] - spent[axis], before[axis] + free()[axis] + stranded);
                    }
                    Err(other) => panic!("{other}"),
                }
                for axis in 0..2 {
                    let left: u64 = leases.iter().map(|(lease, _)| units(lease.remaining())[axis]).sum();
                    prop_assert_eq!(spent[axis] + left + free()[axis], caps[axis]);
                }
            }
            drop(leases);
            let rest = [caps[0] - spent[0], caps[1] - spent[1]];
            prop_assert_eq!(free(), rest);
            pool.record(amount(rest)).unwrap();
        }
    }
}
