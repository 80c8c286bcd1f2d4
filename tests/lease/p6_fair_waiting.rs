//! P6 with leases.

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
