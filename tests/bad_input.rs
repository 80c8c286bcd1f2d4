//! Absurd input: a typed error or a documented no-op, never a wrap, never a panic.

use std::collections::HashSet;
use std::pin::Pin;
use std::task::{Context, Waker};
use std::time::Duration;

use budget_pool::{Amount, Ask, Axis, BudgetError, BudgetPool, Caps, ManualClock, Usd, Window};

fn all(n: u64) -> Amount {
    let amount = Amount::new().tokens(n).input_tokens(n).output_tokens(n).requests(n);
    OWN.iter().fold(amount.usd(Usd::from_nanos(n)), |amount, &axis| amount.with(axis, n))
}

fn caps(n: u64) -> Caps {
    let counted = Axis::ALL.iter().chain(&OWN).filter(|axis| axis.is_counted());
    counted.fold(Caps::new(), |caps, &axis| caps.with(axis, n))
}

const OWN: [Axis; 4] = [
    Axis::custom(0, "bytes"),
    Axis::custom(1, "jobs"),
    Axis::custom(2, "seconds"),
    Axis::custom(3, "calls"),
];

#[test]
fn the_largest_amount_fits_no_smaller_cap_on_any_axis() {
    let pool = BudgetPool::builder().caps(caps(u64::MAX - 1)).build();
    let full = BudgetPool::builder().caps(caps(u64::MAX)).build();
    full.reserve(all(u64::MAX)).unwrap().commit_all();
    assert!(full.record(Amount::new().requests(1)).is_err());
    for amount in [
        Amount::new().tokens(u64::MAX),
        Amount::new().input_tokens(u64::MAX),
        Amount::new().output_tokens(u64::MAX),
        Amount::new().requests(u64::MAX),
        Amount::new().usd(Usd::MAX),
        all(u64::MAX),
        all(u64::MAX) + all(u64::MAX),
        Amount::new().input_tokens(u64::MAX - 1).output_tokens(1),
    ] {
        assert!(matches!(pool.record(amount), Err(BudgetError::Exceeded(_))), "{amount}");
        assert!(matches!(pool.reserve(amount), Err(BudgetError::Exceeded(_))), "{amount}");
        assert_eq!(pool.snapshot().tokens.used + pool.snapshot().requests.used, 0);
    }
}

#[test]
fn sums_that_overflow_are_refused_or_stay_at_the_most() {
    let pool = BudgetPool::unlimited();
    pool.record(all(u64::MAX / 4)).unwrap();
    let hold = pool.reserve(all(u64::MAX / 4)).unwrap();
    pool.record(Amount::new().tokens(4)).unwrap_err();
    assert!(pool.reserve(all(u64::MAX)).is_err());
    assert_eq!(hold.commit(all(u64::MAX)).settled(), all(u64::MAX));
    pool.debit(all(u64::MAX));
    pool.debit(all(u64::MAX));
    for (axis, snapshot) in pool.snapshot().axes().filter(|(axis, _)| *axis != Axis::InFlight) {
        assert_eq!(snapshot.spent.units(), u64::MAX, "{axis}");
        assert_eq!(snapshot.overage.units(), u64::MAX, "{axis}");
        assert_eq!(snapshot.used.units(), u64::MAX, "{axis}");
    }
    assert_eq!(pool.reset().usd.spent, Usd::MAX);
    pool.record(all(1)).unwrap();
    assert_eq!(pool.snapshot().usd.spent, Usd::MAX);
}

#[test]
fn a_hold_cannot_grow_past_what_a_u64_can_count() {
    let pool = BudgetPool::unlimited();
    let hold = pool.reserve(all(u64::MAX - 1)).unwrap();
    assert!(hold.grow(all(2)).is_err());
    hold.grow(Amount::new().requests(1)).unwrap();
    hold.debit(all(u64::MAX));
    hold.debit(all(u64::MAX));
    assert_eq!(hold.amount().get(Axis::Requests).unwrap().units(), 0);
    hold.commit(all(u64::MAX));
}

#[test]
fn zero_is_an_amount() {
    let pool = BudgetPool::builder().caps(caps(0)).build();
    pool.record(all(0)).unwrap();
    pool.record(Amount::new()).unwrap();
    assert!(pool.debit(all(0)).overage().is_zero());
    assert_eq!(
        pool.reserve(all(0)).unwrap_err().axis(),
        Some(Axis::InFlight),
        "a hold is one in flight"
    );
    pool.raise_caps(caps(0)).unwrap();
    pool.lower_caps(caps(0)).unwrap();
    pool.child().caps(caps(0)).carved().build().unwrap();
}

#[test]
fn an_amount_on_an_axis_without_a_cap_is_counted() {
    let pool = BudgetPool::builder().tokens(10).build();
    pool.record(Amount::new().usd(Usd::from_dollars(3)).requests(7)).unwrap();
    let snapshot = pool.snapshot();
    assert_eq!(
        (snapshot.usd.used, snapshot.usd.cap, snapshot.usd.available),
        (Usd::from_dollars(3), None, None)
    );
    assert_eq!(snapshot.requests.used, 7);
}

#[test]
fn caps_do_not_shrink_below_what_is_used_or_held() {
    let pool = BudgetPool::builder().name("run").tokens(100).requests(5).build();
    pool.record(Amount::new().tokens(30)).unwrap();
    let _hold = pool.reserve(Amount::new().tokens(50)).unwrap();
    let error = pool.lower_caps(Caps::new().requests(5).tokens(21)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokens of `run` exceeded: 21 requested, 20 available, cap 100, may fit after a release"
    );
    assert_eq!(pool.snapshot().requests.cap, Some(5), "all or nothing");
    pool.lower_caps(caps(u64::MAX)).unwrap_err();
    pool.lower_caps(Caps::new().tokens(20).usd(Usd::MAX)).unwrap();
    assert_eq!((pool.snapshot().tokens.cap, pool.snapshot().usd.cap), (Some(80), None));
}

#[test]
fn a_cap_does_not_grow_past_what_a_u64_can_count() {
    let pool = BudgetPool::builder().name("run").tokens(u64::MAX - 5).requests(1).build();
    let error = pool.raise_caps(Caps::new().requests(1).tokens(6)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokens of `run` exceeded: 6 requested, 5 available, cap 18446744073709551615, will never fit"
    );
    assert_eq!(pool.snapshot().requests.cap, Some(1), "all or nothing");
    pool.raise_caps(Caps::new().tokens(5)).unwrap();
    assert_eq!(pool.snapshot().tokens.cap, Some(u64::MAX));
    pool.close();
    assert!(matches!(pool.raise_caps(Caps::new().requests(1)), Err(BudgetError::Closed { .. })));
    pool.lower_caps(Caps::new().requests(1)).unwrap();
}

#[test]
fn a_hold_does_not_shrink_or_split_below_nothing() {
    let pool = BudgetPool::builder().name("run").tokens(100).build();
    let hold = pool.reserve(Amount::new().tokens(10).requests(1)).unwrap();
    for part in [
        Amount::new().tokens(11),
        Amount::new().requests(1).tokens(u64::MAX),
        Amount::new().usd(Usd::MAX),
    ] {
        let refusals = [hold.shrink(part).unwrap_err(), hold.split(part).unwrap_err()];
        assert!(
            refusals.iter().all(|refusal| matches!(refusal, BudgetError::Exceeded(_))),
            "{part}"
        );
        assert_eq!(hold.amount(), Amount::new().tokens(10).requests(1));
    }
    assert_eq!(
        hold.shrink(Amount::new().tokens(11)).unwrap_err().to_string(),
        "tokens of `run` exceeded: 11 requested, 10 available, cap 10, will never fit"
    );
}

#[test]
fn a_child_of_a_closed_pool_is_born_closed() {
    let pool = BudgetPool::builder().name("run").build();
    pool.close();
    pool.close();
    let child = pool.child().tokens(5).build();
    assert!(child.is_closed());
    assert_eq!(child.record(Amount::new()).unwrap_err().to_string(), "`run` is closed");
    child.debit(Amount::new().tokens(7));
    assert_eq!(pool.snapshot().tokens.used, 7);
    assert!(matches!(pool.child().tokens(5).carved().build(), Err(BudgetError::Closed { .. })));
}

#[test]
fn a_pool_dropped_with_live_reservations_and_children_lives_on_in_them() {
    let pool = BudgetPool::builder().name("run").tokens(10).build();
    let child = pool.child().build();
    let hold = pool.reserve(Amount::new().tokens(8)).unwrap();
    drop(pool);
    assert_eq!(child.record(Amount::new().tokens(3)).unwrap_err().pool(), "run");
    let pool = hold.pool().clone();
    drop(hold);
    drop(pool);
    child.record(Amount::new().tokens(10)).unwrap();
}

#[test]
fn absurd_deadlines() {
    let late = BudgetPool::builder().deadline(Duration::ZERO).build();
    assert_eq!(late.record(Amount::new()).unwrap_err().axis(), Some(Axis::Deadline));
    assert_eq!(late.time_left(), Some(Duration::ZERO));
    let never = BudgetPool::builder().deadline(Duration::MAX).build();
    assert_eq!(never.time_left(), None);
    never.record(Amount::new()).unwrap();
}

#[test]
fn a_tree_a_hundred_thousand_deep_is_no_trouble() {
    let root = BudgetPool::builder().name("root").tokens(10).build();
    let mut leaf = root.child().build();
    for _ in 0..100_000 {
        leaf = leaf.child().build();
    }
    leaf.record(Amount::new().tokens(4)).unwrap();
    let hold = leaf.reserve(Amount::new().tokens(5)).unwrap();
    assert_eq!(leaf.record(Amount::new().tokens(2)).unwrap_err().pool(), "root");
    let tree = root.snapshot_tree();
    assert_eq!((tree.len(), tree[tree.len() - 1].depth), (100_002, 100_001));
    assert!(tree.iter().all(|pool| pool.tokens.available == Some(1)));
    assert_eq!(root.holders().len(), 1);
    root.close();
    drop((hold, leaf));
    assert_eq!(root.snapshot_tree().len(), 1);
}

/// A chain of shares gives all back but what its last pool has spent.
fn end_a_deep_chain_of_shares(end: impl Fn(&BudgetPool)) {
    let root = BudgetPool::builder().tokens(100_000).build();
    let mut chain = vec![root.child().tokens(100_000).carved().build().unwrap()];
    for tokens in (0..2_000).rev() {
        let share = chain[chain.len() - 1].child().tokens(tokens).carved().build().unwrap();
        chain.push(share);
    }
    chain[2_000].debit(Amount::new().tokens(7));
    end(&chain[0]);
    drop(chain);
    assert_eq!((root.snapshot().tokens.reserved, root.snapshot().tokens.used), (0, 7));
}

#[test]
fn a_deep_chain_of_shares_ends_at_once_when_it_is_closed() {
    end_a_deep_chain_of_shares(BudgetPool::close);
}

#[test]
fn a_deep_chain_of_shares_ends_at_once_when_it_is_dropped() {
    end_a_deep_chain_of_shares(|_| {});
}

#[test]
fn a_hundred_thousand_children_come_and_go_in_any_order() {
    let root = BudgetPool::unlimited();
    let mut children: Vec<_> = (0..100_000).map(|_| Some(root.child().build())).collect();
    for step in [3, 2, 5, 1] {
        children.iter_mut().step_by(step).for_each(|child| drop(child.take()));
        assert_eq!(root.snapshot_tree().len(), 1 + children.iter().flatten().count());
    }
}

/// Names come from tenants, keys from their requests: neither may forge a line of a log, nor
/// command its terminal.
#[test]
fn a_name_or_a_key_that_breaks_lines_stays_on_one() {
    let clock = ManualClock::new();
    let bad = "a\r\nb\u{1b}[2J\u{85}\u{2028}c`é\t";
    let shown = r"`a\r\nb\u{1b}[2J\u{85}\u{2028}c`é\t`";
    let pool = BudgetPool::builder()
        .name(bad)
        .tokens(1)
        .idempotency_keys(1, Duration::MAX)
        .deadline(Duration::from_secs(60));
    let pool = pool.clock(clock.clone()).timer(|_| Box::pin(std::future::pending())).build();
    let hold = pool.reserve(Ask::new(Amount::new().tokens(1)).ttl(Duration::from_secs(1))).unwrap();
    let one = || Amount::new().tokens(1);
    let mut texts = vec![pool.record(one()).unwrap_err()];
    let mut wait = pool.reserve_wait(one());
    assert!(Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    texts.push(pool.reserve(one()).unwrap_err());
    texts.push(pool.reserve_blocking(Ask::new(one()).wait_at_most(Duration::ZERO)).unwrap_err());
    drop(wait);
    clock.advance(Duration::from_secs(1));
    texts.push(hold.grow(one()).unwrap_err());
    pool.record_once(bad, one()).unwrap();
    texts.push(pool.record_once(bad, Amount::new()).unwrap_err());
    texts.push(pool.record_once("other", one()).unwrap_err());
    let window = Window::fixed(Duration::from_secs(1));
    texts.push(pool.child().name(bad).window(window).carved().build().unwrap_err());
    clock.advance(Duration::from_secs(60));
    texts.push(pool.record(one()).unwrap_err());
    pool.close();
    texts.push(pool.record(one()).unwrap_err());
    let kinds: HashSet<_> = texts.iter().map(std::mem::discriminant).collect();
    assert_eq!(kinds.len(), 9, "each kind there is");
    for text in &texts {
        assert!(text.to_string().contains(shown), "{text}");
        assert!(!text.to_string().contains(|c: char| c.is_control()), "{text:?}");
        assert_eq!(text.pool(), bad, "as it was given");
    }
    let table = pool.snapshot().to_string();
    assert!(table.starts_with(&shown[1..shown.len() - 1]) && table.lines().count() == 4, "{table}");
}
