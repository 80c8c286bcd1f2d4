//! Which figure an axis settles at.

use super::*;

#[test]
fn p2_the_providers_total_corrects_an_own_tokenizer_downward() {
    let pool = BudgetPool::builder().tokens(5_000).usd(usd("1")).build();
    let hold = pool.reserve(tokens(1_500).usd(usd("0.02"))).unwrap();
    hold.debit(tokens(700).usd(usd("0.007")));
    hold.record(tokens(500).usd(usd("0.005"))).unwrap();
    let receipt = hold.commit(tokens(1_000).usd(usd("0.010")));

    let snapshot = pool.snapshot();
    assert_eq!(books(snapshot.tokens), [1_000, 0, 0, 1_000]);
    assert_eq!((snapshot.usd.used, snapshot.usd.spent), (usd("0.01"), usd("0.01")));
    assert_eq!(receipt.credited(), tokens(200).usd(usd("0.002")));
    assert_eq!(receipt.settled(), tokens(0).usd(Usd::ZERO));
    assert!(receipt.overage().is_zero() && !receipt.is_late());
}

#[test]
fn p2_usage_blocks_that_are_totals_so_far_end_at_the_last() {
    let pool = BudgetPool::unlimited();
    let hold = pool.reserve(tokens(100)).unwrap();
    let mut so_far = 0;
    for block in [12, 30, 54, 60] {
        hold.debit(tokens(block - so_far));
        so_far = block;
    }
    hold.commit(tokens(so_far));
    assert_eq!(token_books(&pool), [60, 0, 0, 60]);
}

#[test]
fn p2_a_total_alone_leaves_the_parts_at_what_is_held() {
    let held = Amount::new().input_tokens(70).output_tokens(7);
    let settled = |total: Amount| {
        let pool = BudgetPool::unlimited();
        pool.reserve(held).unwrap().commit(total);
        let snapshot = pool.snapshot();
        [snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens].map(|axis| axis.used)
    };
    assert_eq!(settled(tokens(90)), [90, 70, 7]);
    assert_eq!(settled(tokens(0)), [0, 70, 7]);
    assert_eq!(settled(Amount::new()), [77, 70, 7]);
    // A part without the other: the sum of both, as they are settled.
    assert_eq!(settled(Amount::new().input_tokens(50)), [57, 50, 7]);
    assert_eq!(settled(Amount::new().output_tokens(20)), [90, 70, 20]);
    assert_eq!(settled(Amount::new().input_tokens(0).output_tokens(0)), [0, 0, 0]);
    // A total beside a part is what it says, unless both parts are more as they are settled.
    assert_eq!(settled(tokens(60).input_tokens(50)), [60, 50, 7]);
    assert_eq!(settled(tokens(60).input_tokens(65)), [72, 65, 7]);
}

/// However it was made.
#[test]
fn p2_equal_amounts_settle_the_same() {
    let set = Amount::new().input_tokens(60);
    let mut added = Amount::new();
    added += set;
    let collected: Amount = set.iter().collect();
    let with_zero = set.requests(0).iter().collect::<Amount>();
    assert_eq!(with_zero, set.requests(0));
    for (amount, requests) in [(set, 2), (added, 2), (collected, 2), (with_zero, 0)] {
        let pool = BudgetPool::unlimited();
        let held = Amount::new().input_tokens(70).output_tokens(50).requests(2);
        pool.reserve(held).unwrap().commit(amount);
        let snapshot = pool.snapshot();
        let tokens = [snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens];
        assert_eq!(tokens.map(|axis| axis.used), [110, 60, 50]);
        assert_eq!(snapshot.requests.used, requests);
    }
}

#[test]
fn p2_what_is_held_stands_beside_what_was_metered() {
    let settled = |total: Amount| {
        let pool = BudgetPool::unlimited();
        let held = Amount::new().input_tokens(70).output_tokens(30).requests(1);
        let hold = pool.reserve(held).unwrap();
        hold.debit(Amount::new().output_tokens(10));
        hold.commit(total);
        let snapshot = pool.snapshot();
        let tokens = [snapshot.tokens, snapshot.input_tokens, snapshot.output_tokens];
        (tokens.map(|axis| axis.used), snapshot.requests.used)
    };
    assert_eq!(settled(Amount::new()), ([100, 70, 30], 1));
    assert_eq!(settled(Amount::new().output_tokens(4)), ([74, 70, 4], 1));
    assert_eq!(settled(Amount::new().input_tokens(60)), ([90, 60, 30], 1));
    assert_eq!(settled(tokens(5).requests(0)), ([5, 70, 30], 0));
}

#[test]
fn p2_commit_all_is_exact_in_addition_to_what_was_metered() {
    let pool = BudgetPool::unlimited();
    let hold = pool.reserve(tokens(100)).unwrap();
    hold.debit(tokens(130));
    assert_eq!(hold.commit_all().settled(), tokens(0));
    assert_eq!(token_books(&pool), [130, 0, 0, 130]);
}

#[test]
fn p2_a_commit_of_what_was_metered_gives_nothing_back() {
    let pool = BudgetPool::unlimited();
    let hold = pool.reserve(tokens(100)).unwrap();
    hold.debit(tokens(130));
    let receipt = hold.commit(tokens(130));
    assert_eq!((receipt.settled(), receipt.credited()), (tokens(0), Amount::new()));
    assert_eq!(token_books(&pool), [130, 0, 0, 130]);
}

#[test]
fn p2_a_strict_commit_is_the_total_too() {
    let pool = BudgetPool::builder().tokens(100).build();
    let hold = pool.reserve(tokens(50)).unwrap();
    hold.record(tokens(30)).unwrap();
    let refused = hold.try_commit(tokens(101)).unwrap_err();
    let BudgetError::Exceeded(exceeded) = refused.error() else { panic!("{refused:?}") };
    assert_eq!((exceeded.requested().units(), exceeded.available().units()), (51, 50));
    let receipt = refused.into_reservation().try_commit(tokens(20)).unwrap();
    assert_eq!((receipt.credited(), token_books(&pool)), (tokens(10), [20, 0, 0, 20]));
}

#[test]
fn p1_a_downward_commit_serves_those_who_wait_and_breaks_no_cap() {
    let pool = BudgetPool::builder().tokens(100).build();
    let hold = pool.reserve(tokens(60)).unwrap();
    hold.debit(tokens(30));
    let _other = pool.reserve(tokens(20)).unwrap();
    let mut waiter = Waiter::queued(&pool, tokens(65));
    hold.commit(tokens(10));
    waiter.granted().commit_all();
    assert_eq!(token_books(&pool), [75, 20, 0, 75]);
}
