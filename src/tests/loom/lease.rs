//! Leases. What is spent from a share is not seen by other threads; here is what is: that a refill,
//! a settlement and a drop each *are* one transition, whoever asks, waits or closes meanwhile.

use std::task::Poll;

use super::waiting::{Waiter, waiting};
use super::*;
use crate::Lease;

fn lease(pool: &BudgetPool, batch: u64) -> Lease {
    pool.lease(tokens(batch)).unwrap()
}

/// Used, reserved.
fn balance(pool: &BudgetPool) -> (u64, u64) {
    used_and_reserved(&pool.snapshot())
}

/// P1, P4, P5: a lease that runs short settles, spends and refills in one instant, before a record
/// on the pool or after it. The refill leaves for the record what it would have left had it come
/// first, or the record is refused.
#[test]
fn refill_against_record() {
    let [start, refilled, recorded, end] = [(0, 2), (3, 2), (17, 2), (20, 0)];
    let outcomes =
        [("lease", start), ("lease", refilled), ("both", start), ("both", recorded), ("both", end)];
    explore(outcomes, || {
        let pool = pool(20);
        let mut lease = lease(&pool, 2);
        lease.record(tokens(1)).unwrap();
        let refill = move |_: &BudgetPool| {
            lease.record(tokens(2)).unwrap();
            lease
        };
        let (lease, recorded, seen) =
            both_watched(&pool, refill, |pool| pool.record(tokens(17)), balance);

        let admitted = if recorded.is_ok() { "both" } else { "lease" };
        let left = lease.remaining();
        assert_eq!(left, tokens(if recorded.is_ok() { 0 } else { 2 }));
        drop(lease);
        let (used, reserved) = balance(&pool);
        assert_eq!((used, reserved), (if recorded.is_ok() { 20 } else { 3 }, 0));
        pool.record(tokens(20 - used)).unwrap();
        (admitted, seen)
    });
}

/// P1, P4: two workers spend a pool to its last unit, each its own share first. Neither is refused
/// while a unit is free.
#[test]
fn lease_against_lease() {
    explore([(1, 3), (2, 2), (3, 1)], || {
        let pool = pool(4);
        let spend_all = |mut lease: Lease| {
            let spent = (0_u64..).take_while(|_| lease.record(tokens(1)).is_ok()).count();
            assert_eq!(lease.remaining(), tokens(0));
            spent
        };
        let (first, second) = (lease(&pool, 1), lease(&pool, 1));
        let spent = both(&pool, move |_| spend_all(first), |_| spend_all(second));

        assert_eq!(balance(&pool), (4, 0));
        spent
    });
}

/// P3, P6: a lease that is dropped settles what it spent and serves who waits for the rest, whether
/// that one asks before, between, or after.
#[test]
fn first_poll_against_drop() {
    explore(
        [
            ("not asked", "at once"),
            ("not asked", "woken"),
            ("queued", "at once"),
            ("queued", "woken"),
        ],
        || {
            let pool = pool(10);
            let mut lease = lease(&pool, 10);
            lease.record(tokens(3)).unwrap();
            let mut waiter = Waiter::new(&pool, 7);
            let end = move |pool: &BudgetPool| {
                let before = if waiting(pool) == 0 { "not asked" } else { "queued" };
                drop(lease);
                before
            };
            let (before, first) = both(&pool, end, |_| waiter.poll());

            let (outcome, granted) = match first {
                Poll::Ready(granted) => ("at once", granted),
                Poll::Pending => ("woken", waiter.outcome()),
            };
            let granted = granted.unwrap();
            assert_eq!((balance(&pool), granted.amount()), ((3, 7), tokens(7)));
            drop(granted);
            (before, outcome)
        },
    );
}

/// P6: what a lease has spent can be waited for until the pool learns of it: then that is told,
/// whoever is first.
#[test]
fn first_poll_against_settle() {
    explore(
        [
            ("not asked", "at once"),
            ("not asked", "woken"),
            ("queued", "at once"),
            ("queued", "woken"),
        ],
        || {
            let pool = pool(10);
            let mut lease = lease(&pool, 10);
            lease.record(tokens(3)).unwrap();
            let mut waiter = Waiter::new(&pool, 8);
            let settle = |pool: &BudgetPool| {
                let before = if waiting(pool) == 0 { "not asked" } else { "queued" };
                lease.settle();
                (before, lease)
            };
            let ((before, lease), first) = both(&pool, settle, |_| waiter.poll());

            let (outcome, told) = match first {
                Poll::Ready(told) => ("at once", told),
                Poll::Pending => ("woken", waiter.outcome()),
            };
            let told = told.unwrap_err();
            assert!(
                matches!(&told, BudgetError::Exceeded(refusal) if refusal.outlook() == Outlook::Never),
                "{told}"
            );
            assert_eq!((balance(&pool), waiting(&pool), lease.remaining()), ((3, 7), 0, tokens(7)));
            (before, outcome)
        },
    );
}

/// P2, P5: a close above reaches a lease at its refill: before it, the refill is refused as a
/// whole, and only what was spent is booked. What is left can be spent after it.
#[test]
fn refill_against_close() {
    let [start, refilled, settled] = [(0, 2), (4, 2), (1, 1)];
    let outcomes = [
        ("refilled", (false, start)),
        ("refilled", (false, refilled)),
        ("refilled", (true, refilled)),
        ("refused", (false, start)),
        ("refused", (true, start)),
        ("refused", (true, settled)),
    ];
    explore(outcomes, move || {
        let parent = pool(20);
        let mut lease = lease(&parent.child().build(), 2);
        lease.record(tokens(1)).unwrap();
        let refill = move |_: &BudgetPool| {
            let refill = lease.record(tokens(3));
            (lease, refill)
        };
        let look = |parent: &BudgetPool| {
            let snapshot = parent.snapshot();
            (snapshot.closed, used_and_reserved(&snapshot))
        };
        let ((mut lease, refill), (), seen) =
            both_watched(&parent, refill, BudgetPool::close, look);

        let (outcome, left, used) = match refill {
            Ok(()) => ("refilled", 2, 4),
            Err(refusal) => {
                assert_eq!(refusal, BudgetError::Closed { pool: "run".into() });
                ("refused", 1, 1)
            }
        };
        assert_eq!((balance(&parent), lease.remaining()), ((used, left), tokens(left)));
        lease.record(tokens(left)).unwrap();
        drop(lease);
        assert_eq!(balance(&parent), (used + left, 0));
        (outcome, seen)
    });
}
