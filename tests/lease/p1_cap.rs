//! P1 with leases.

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
