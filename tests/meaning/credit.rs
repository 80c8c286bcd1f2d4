//! What is given back.

use super::*;

#[test]
fn p2_a_refund_leaves_the_cap_and_lowers_what_was_spent() {
    let pool = BudgetPool::builder().usd(usd("10")).build();
    pool.record(Amount::new().usd(usd("4.00"))).unwrap();
    let receipt = pool.credit(Amount::new().usd(usd("1.50")));
    let money = pool.snapshot().usd;
    assert_eq!(money.cap, Some(usd("10")));
    assert_eq!((money.used, money.spent), (usd("2.5"), usd("2.5")));
    assert_eq!(receipt.credited(), Amount::new().usd(usd("1.50")));
    assert!(receipt.settled().is_zero());
}

#[test]
fn p2_it_pays_the_overage_first_and_gives_back_no_more_than_was_booked() {
    let pool = BudgetPool::builder().tokens(100).build();
    pool.debit(tokens(130));
    assert_eq!(pool.credit(tokens(20)).credited(), tokens(20));
    assert_eq!(token_books(&pool), [100, 0, 10, 110]);
    assert_eq!(pool.credit(tokens(30)).credited(), tokens(30));
    assert_eq!(token_books(&pool), [80, 0, 0, 80]);
    assert_eq!(pool.credit(tokens(u64::MAX)).credited(), tokens(80));
    assert_eq!(token_books(&pool), [0, 0, 0, 0]);
    assert_eq!(pool.credit(tokens(1)).credited(), tokens(0));
}

#[test]
fn p2_it_gives_back_nothing_of_a_period_that_is_over() {
    let clock = ManualClock::new();
    let month = BudgetPool::builder().tokens(1_000).clock(clock.clone()).build();
    let day = month.child().tokens(100).window(Window::fixed(Duration::from_secs(60))).build();
    day.record(tokens(80)).unwrap();
    clock.advance(Duration::from_secs(60));
    day.record(tokens(5)).unwrap();
    let receipt = day.credit(tokens(30));
    assert_eq!((token_books(&day), token_books(&month)), ([0, 0, 0, 80], [55, 0, 0, 55]));
    assert_eq!(receipt.credited(), tokens(30), "the greatest on the path");
}

#[test]
fn p1_a_carved_share_is_whole_again_and_pays_no_overage_above() {
    let run = BudgetPool::builder().tokens(100).build();
    let share = run.child().tokens(50).carved().build().unwrap();
    share.debit(tokens(60));
    run.debit(tokens(60));
    assert_eq!(token_books(&run), [100, 0, 20, 120]);

    // 10 of overage, and 20 that the share has again. The run reserves those, though it owes.
    share.credit(tokens(30));
    assert_eq!(token_books(&share), [30, 0, 0, 30]);
    assert_eq!(token_books(&run), [80, 20, 10, 90]);
    share.record(tokens(20)).unwrap();
    assert_eq!((token_books(&share), token_books(&run)), ([50, 0, 0, 50], [100, 0, 10, 110]));
}

#[test]
fn p1_a_carved_share_regains_no_more_than_the_pools_above_have_used() {
    let run = BudgetPool::builder().tokens(100).build();
    let team = run.child().tokens(80).carved().build().unwrap();
    let agent = team.child().tokens(50).carved().build().unwrap();
    agent.record(tokens(40)).unwrap();
    run.reset();
    run.record(tokens(15)).unwrap();
    let receipt = agent.credit(tokens(40));
    assert_eq!(receipt.credited(), tokens(15), "the run has used no more in its period");
    assert_eq!(token_books(&agent), [25, 0, 0, 25]);
    assert_eq!(token_books(&team), [25, 25, 0, 25]);
    assert_eq!(token_books(&run), [0, 55, 0, 40]);
    check_invariants(&run);
}

/// The period of the pool above is over, and its own is not: it has no share to make whole.
#[test]
fn p2_a_pool_below_a_share_takes_back_what_it_has_booked_itself() {
    let run = BudgetPool::builder().tokens(100).build();
    let share = run.child().tokens(50).carved().build().unwrap();
    let agent = share.child().build();
    agent.record(tokens(30)).unwrap();
    share.reset();
    assert_eq!(agent.credit(tokens(10)).credited(), tokens(10));
    assert_eq!(token_books(&agent)[..3], [20, 0, 0]);
    check_invariants(&run);
}

#[test]
fn p3_a_closed_carved_pool_gives_what_is_credited_to_the_pools_above() {
    let run = BudgetPool::builder().tokens(100).build();
    let share = run.child().tokens(50).carved().build().unwrap();
    share.record(tokens(30)).unwrap();
    share.close();
    share.credit(tokens(10));
    assert_eq!((token_books(&share), token_books(&run)), ([20, 0, 0, 20], [20, 0, 0, 20]));
    run.record(tokens(80)).unwrap();
    check_invariants(&run);
}

#[test]
fn a_bucket_that_is_full_by_a_credit_keeps_no_part_of_a_unit() {
    let clock = ManualClock::new();
    let second = Duration::from_secs(1);
    let window = Window::token_bucket(second * 10);
    let pool = BudgetPool::builder().tokens(1).window(window).clock(clock.clone()).build();
    pool.record(tokens(1)).unwrap();
    clock.advance(second * 9);
    pool.credit(tokens(1));
    pool.record(tokens(1)).unwrap();
    assert_eq!(pool.peek(tokens(1)).unwrap_err().retry_after(), Some(second * 10));
    clock.advance(second * 9);
    pool.set_used(tokens(0)).unwrap();
    pool.record(tokens(1)).unwrap();
    assert_eq!(pool.peek(tokens(1)).unwrap_err().retry_after(), Some(second * 10));
}
