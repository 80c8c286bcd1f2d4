//! P2 with leases.

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
