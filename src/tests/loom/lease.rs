//! Leases. Other threads do not see a spend from a share. The models are of what they see: that a
//! first record, a refill, a settlement and a drop each *are* one transition, whoever asks, waits or
//! closes meanwhile.

use super::waiting::{FIRST_POLL, against_first_poll};
use super::*;
use crate::Lease;

/// A lease whose share is its whole batch: its first record, of one token, has filled it.
fn filled(pool: &BudgetPool, batch: u64) -> Lease {
    let mut lease = pool.lease(tokens(batch));
    lease.record(tokens(1)).unwrap();
    assert_eq!(lease.remaining(), tokens(batch));
    lease
}

/// Used, reserved.
fn balance(pool: &BudgetPool) -> (u64, u64) {
    used_and_reserved(&pool.snapshot())
}

/// P1, P4, P5: of two workers that start at once with a batch of the whole budget, each finds
/// something. The first record of each spends and fills its share in one instant: the share of the
/// later one is an eighth of what the earlier one has left.
#[test]
fn first_record_against_first_record() {
    let [start, between, end] = [(0, 0), (1, 2), (2, 3)];
    let outcomes = [
        ((2, 1), start),
        ((2, 1), between),
        ((2, 1), end),
        ((1, 2), start),
        ((1, 2), between),
        ((1, 2), end),
    ];
    explore(outcomes, move || {
        let pool = pool(17);
        let begin = |pool: &BudgetPool| {
            let mut lease = pool.lease(tokens(17));
            lease.record(tokens(1)).unwrap();
            lease
        };
        let (first, second, seen) = both_watched(&pool, begin, begin, balance);

        let left = |lease: &Lease| lease.remaining().units(Axis::Tokens);
        let shares = (left(&first), left(&second));
        assert_eq!(balance(&pool), end);
        drop((first, second));
        assert_eq!(balance(&pool), (2, 0));
        (shares, seen)
    });
}

/// P1, P4, P5: a lease that runs short settles, spends and refills in one instant, before a record
/// on the pool or after it. The refill leaves for the record what it would have left had it come
/// first, or the record is refused.
#[test]
fn refill_against_record() {
    let [start, refilled, recorded, end] = [(1, 2), (4, 2), (18, 2), (21, 0)];
    let outcomes =
        [("lease", start), ("lease", refilled), ("both", start), ("both", recorded), ("both", end)];
    explore(outcomes, || {
        let pool = pool(21);
        let mut lease = filled(&pool, 2);
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
        assert_eq!((used, reserved), (if recorded.is_ok() { 21 } else { 4 }, 0));
        pool.record(tokens(21 - used)).unwrap();
        (admitted, seen)
    });
}

/// P1, P4: two workers spend a pool to its last unit, each its own share first. Neither is refused
/// while a unit is free.
#[test]
fn lease_against_lease() {
    explore([(1, 3), (2, 2), (3, 1)], || {
        let pool = pool(11);
        let spend_all = |mut lease: Lease| {
            let spent = (0_u64..).take_while(|_| lease.record(tokens(1)).is_ok()).count();
            assert_eq!(lease.remaining(), tokens(0));
            spent
        };
        let (first, second) = (filled(&pool, 1), filled(&pool, 1));
        pool.record(tokens(5)).unwrap();
        let spent = both(&pool, move |_| spend_all(first), |_| spend_all(second));

        assert_eq!(balance(&pool), (11, 0));
        spent
    });
}

/// P3, P6: a lease that is dropped settles what it spent and serves who waits for the rest, whether
/// that one asks before, between, or after.
#[test]
fn first_poll_against_drop() {
    explore(FIRST_POLL, || {
        let pool = pool(17);
        let mut lease = filled(&pool, 2);
        lease.record(tokens(1)).unwrap();
        pool.record(tokens(8)).unwrap();
        let (seen, (), granted) = against_first_poll(&pool, 7, |_| drop(lease));

        let granted = granted.unwrap();
        assert_eq!((balance(&pool), granted.amount()), ((10, 7), tokens(7)));
        drop(granted);
        seen
    });
}

/// P6: what a lease has spent can be waited for until the pool learns of it: then that is told,
/// whoever is first.
#[test]
fn first_poll_against_settle() {
    explore(FIRST_POLL, || {
        let pool = pool(17);
        let mut lease = filled(&pool, 2);
        lease.record(tokens(1)).unwrap();
        let settle = |_: &BudgetPool| {
            lease.settle();
            lease
        };
        let (seen, lease, told) = against_first_poll(&pool, 16, settle);

        assert_eq!(exceeded(told), (14, Outlook::Never));
        assert_eq!((balance(&pool), lease.remaining()), ((2, 1), tokens(1)));
        seen
    });
}

/// P2, P5: a close above reaches a lease at its refill: before it, the refill is refused as a
/// whole, and only what was spent is booked. What is left can be spent after it.
#[test]
fn refill_against_close() {
    let [start, refilled, settled] = [(1, 2), (5, 2), (2, 1)];
    let outcomes = [
        ("refilled", (false, start)),
        ("refilled", (false, refilled)),
        ("refilled", (true, refilled)),
        ("refused", (false, start)),
        ("refused", (true, start)),
        ("refused", (true, settled)),
    ];
    explore(outcomes, move || {
        let parent = pool(23);
        let mut lease = filled(&parent.child().build(), 2);
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
            Ok(()) => ("refilled", 2, 5),
            Err(refusal) => {
                assert_eq!(refusal, BudgetError::Closed { pool: "run".into() });
                ("refused", 1, 2)
            }
        };
        assert_eq!((balance(&parent), lease.remaining()), ((used, left), tokens(left)));
        lease.record(tokens(left)).unwrap();
        drop(lease);
        assert_eq!(balance(&parent), (used + left, 0));
        (outcome, seen)
    });
}
