//! P7 with leases.

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
