//! A line that has an end.

use super::*;

fn refused(pool: &BudgetPool, amount: Amount) -> (String, u64) {
    let refused = pool.reserve_blocking(amount).unwrap_err();
    assert_eq!((refused.kind(), refused.outlook()), ("queue_full", Outlook::AfterRelease));
    (refused.pool().to_owned(), pool.snapshot().waiting)
}

#[test]
fn a_wait_that_finds_too_many_before_it_is_refused_at_once() {
    let root = BudgetPool::builder().name("root").tokens(10).most_waiting(3).build();
    let [a, b] = ["a", "b"].map(|name| root.child().name(name).most_waiting(2).build());
    let hold = root.reserve(tokens(10)).unwrap();
    let mut first = [(); 2].map(|()| Waiter::queued(&a, tokens(5)));
    assert_eq!(refused(&a, tokens(1)), ("a".into(), 2));
    let third = Waiter::queued(&b, tokens(5));
    assert_eq!(refused(&b, tokens(1)), ("root".into(), 1));
    assert!(matches!(root.record_blocking(tokens(1)), Err(BudgetError::QueueFull { .. })));
    assert_eq!(root.snapshot().refused, 3);
    // A place that is given up is free again.
    drop(third);
    let _third = Waiter::queued(&b, tokens(10));
    drop(hold);
    first.iter_mut().map(Waiter::granted).for_each(Reservation::release);
    check_invariants(&root);
}

#[test]
fn what_fits_needs_no_place() {
    let pool = BudgetPool::builder().name("run").tokens(10).most_waiting(0).build();
    let hold = pool.reserve_blocking(tokens(8)).unwrap();
    pool.record_blocking(tokens(2)).unwrap();
    assert_eq!(refused(&pool, tokens(3)), ("run".into(), 0));
    drop(hold);
    let never = pool.reserve_blocking(tokens(11)).unwrap_err();
    assert_eq!(never.outlook(), Outlook::Never);
}
