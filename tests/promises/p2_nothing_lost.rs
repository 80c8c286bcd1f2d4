//! P2: a spend that the pool is told of is booked.

use super::*;

#[test]
fn a_commit_beyond_its_hold_takes_what_is_free_and_the_rest_is_overage() {
    let pool = pool_of(100);
    let hold = pool.reserve(tokens(50)).unwrap();
    let receipt = hold.commit(tokens(130));
    assert_eq!((receipt.settled(), receipt.overage()), (tokens(130), tokens(30)));
    assert_eq!(balance(&pool), [100, 0, 30]);
    assert_eq!(pool.snapshot().tokens.spent, 130);
}

#[test]
fn freed_and_added_capacity_pays_the_overage_first() {
    let pool = pool_of(100);
    let hold = pool.reserve(tokens(60)).unwrap();
    assert_eq!(pool.debit(tokens(70)).overage(), tokens(30));
    assert_eq!(balance(&pool), [40, 60, 30]);
    hold.shrink(tokens(10)).unwrap();
    assert_eq!(balance(&pool), [50, 50, 20]);
    pool.raise_caps(Caps::new().tokens(15)).unwrap();
    assert_eq!(balance(&pool), [65, 50, 5]);
    drop(hold);
    assert_eq!(balance(&pool), [70, 0, 0]);
    assert_eq!(pool.snapshot().tokens.available, Some(45));
}

#[test]
fn a_fact_is_booked_after_the_deadline_and_on_a_closed_pool() {
    let clock = ManualClock::new();
    let late = BudgetPool::builder().deadline(Duration::from_secs(1)).clock(clock.clone()).build();
    let closed = BudgetPool::unlimited();
    let holds = [&late, &closed].map(|pool| [(); 2].map(|()| pool.reserve(tokens(10)).unwrap()));
    clock.advance(Duration::from_secs(1));
    closed.close();
    for ([hold, metered], pool) in holds.into_iter().zip([&late, &closed]) {
        assert!(pool.record(tokens(0)).is_err() && metered.record(tokens(0)).is_err());
        assert!(metered.grow(tokens(0)).is_err() && metered.split(tokens(0)).is_err());
        hold.commit(tokens(20));
        metered.debit(tokens(4));
        metered.shrink(tokens(1)).unwrap();
        metered.try_commit(tokens(4 + 5)).unwrap();
        pool.debit(tokens(3));
        assert_eq!(balance(pool), [32, 0, 0]);
    }
}

#[test]
fn each_pool_on_the_path_books_for_itself() {
    let parent = pool_of(100);
    let child = parent.child().tokens(50).build();
    parent.record(tokens(90)).unwrap();
    let hold = child.reserve(tokens(10)).unwrap();
    let receipt = hold.commit(tokens(30));
    assert_eq!(receipt.overage(), tokens(20), "the greatest on the path");
    assert_eq!([balance(&parent), balance(&child)], [[100, 0, 20], [30, 0, 0]]);
}

#[test]
fn spent_is_the_true_spend_of_all_periods() {
    let pool = pool_of(100);
    pool.debit(tokens(130));
    let old = pool.reset();
    assert_eq!((old.tokens.used, old.tokens.overage), (100, 30));
    pool.record(tokens(5)).unwrap();
    let new = pool.snapshot().tokens;
    assert_eq!((new.used, new.overage, new.spent, new.peak), (5, 0, 135, 5));
}

#[test]
fn a_commit_that_names_only_tokens_books_the_held_money() {
    let pool = BudgetPool::unlimited();
    let held =
        Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_cents(3)).requests(1);
    let receipt = pool.reserve(held).unwrap().commit(tokens(1_200));
    assert_eq!(receipt.settled().units(Axis::Tokens), 1_200);
    assert_eq!(receipt.settled().units(Axis::Usd), Usd::from_cents(3).as_nanos());
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.usd.used, snapshot.requests.used), (Usd::from_cents(3), 1));
    assert_eq!((snapshot.tokens.used, snapshot.input_tokens.used), (1_200, 1_500));

    // Naming it with zero settles zero.
    pool.reserve(held).unwrap().commit(Amount::new().usd(Usd::ZERO));
    assert_eq!(pool.snapshot().usd.used, Usd::from_cents(3));
    assert_eq!(pool.snapshot().tokens.used, 3_200);
}

#[test]
fn a_total_includes_what_was_metered_and_is_exact_up_or_down() {
    let pool = pool_of(100);
    let hold = pool.reserve(tokens(50)).unwrap();
    hold.record(tokens(20)).unwrap();
    hold.debit(tokens(10));
    assert_eq!(hold.amount(), tokens(20));
    assert_eq!(hold.commit(tokens(45)).settled(), tokens(15));
    assert_eq!(balance(&pool), [45, 0, 0]);

    let hold = pool.reserve(tokens(10)).unwrap();
    hold.record(tokens(10)).unwrap();
    let receipt = hold.commit(tokens(3));
    assert_eq!((receipt.settled(), receipt.credited()), (tokens(0), tokens(7)));
    assert_eq!((balance(&pool), pool.snapshot().tokens.spent), ([48, 0, 0], 48));
}

#[test]
fn ten_million_tiny_charges_add_up_exactly() {
    // Unoptimised, ten million calls take as long as all the other tests of this file together.
    let charges = if cfg!(debug_assertions) { 1_000_000 } else { 10_000_000 };
    let all = Usd::from_nanos(charges * 100);
    let pool = BudgetPool::builder().usd(all).build();
    for _ in 0..charges {
        pool.record(usd(100)).unwrap();
    }
    assert_eq!(pool.snapshot().usd.used, all);
    assert!(pool.record(usd(1)).is_err());
}

#[test]
fn three_dimes_fit_exactly_under_thirty_cents() {
    let pool = BudgetPool::builder().usd("0.3".parse().unwrap()).build();
    let dime = Amount::new().usd("0.1".parse().unwrap());
    for _ in 0..3 {
        pool.record(dime).unwrap();
    }
    assert!(pool.record(usd(1)).is_err());
}
