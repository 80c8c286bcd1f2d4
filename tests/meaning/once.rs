//! Events that come twice.

use super::*;

#[test]
fn p2_an_event_that_is_delivered_twice_is_booked_once_also_above_the_cap() {
    let pool = BudgetPool::builder().tokens(100).used(tokens(90)).build();
    let first = pool.debit_once("event", tokens(30)).unwrap();
    let second = pool.debit_once("event", tokens(30)).unwrap();
    assert_eq!(token_books(&pool), [100, 0, 20, 120]);
    assert_eq!((first.settled(), first.overage()), (tokens(30), tokens(20)));
    assert_eq!(second.settled(), Amount::new());
    let other = pool.debit_once("event", tokens(31)).unwrap_err();
    assert!(matches!(other, BudgetError::KeyConflict { .. }), "{other}");
    assert_eq!(token_books(&pool), [100, 0, 20, 120]);
}

#[test]
fn p2_a_full_store_books_a_debit_as_new() {
    let pool = BudgetPool::builder().tokens(9).idempotency_keys(1, Duration::from_secs(60)).build();
    pool.debit_once("one", tokens(1)).unwrap();
    assert!(matches!(pool.record_once("two", tokens(1)), Err(BudgetError::KeysFull { .. })));
    pool.debit_once("two", tokens(1)).unwrap();
    pool.debit_once("two", tokens(1)).unwrap();
    pool.debit_once("one", tokens(1)).unwrap();
    assert_eq!(token_books(&pool)[3], 3);
}

#[test]
fn a_key_stands_for_what_is_charged_and_not_for_how_it_was_named() {
    let pool = BudgetPool::unlimited();
    pool.record_once("key", tokens(1)).unwrap();
    for same in [tokens(1).in_flight(2), tokens(1).requests(0)] {
        assert_eq!(pool.record_once("key", same), Ok(Once::Before));
    }
    assert!(Once::Now.is_now() && !Once::Before.is_now());
    assert!(pool.record_once("key", tokens(1).requests(1)).is_err());
}

#[test]
fn both_kinds_of_calls_share_their_keys_and_say_whether_they_counted() {
    let pool = BudgetPool::builder().tokens(100).build();
    assert_eq!(pool.record_once("job", tokens(5)), Ok(Once::Now));
    assert_eq!(pool.record_once("job", tokens(5)), Ok(Once::Before));
    assert_eq!(pool.debit_once("job", tokens(5)).unwrap().settled(), Amount::new());
    pool.close();
    pool.debit_once("bill", tokens(7)).unwrap();
    assert_eq!(pool.record_once("bill", tokens(7)), Ok(Once::Before));
    assert_eq!(token_books(&pool)[3], 12);
    assert!(Once::Now.is_now() && !Once::Before.is_now());
}

#[test]
fn unless_set_20_new_keys_a_second_are_never_refused() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().clock(clock.clone()).build();
    let one = Amount::new().requests(1);
    // Two hours: after the first as many are forgotten as come.
    for second in 0..2 * 3_600 {
        for call in 0..20 {
            pool.record_once(format!("{second}.{call}"), one).unwrap();
        }
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(pool.snapshot().requests.spent, 2 * 3_600 * 20);
}
