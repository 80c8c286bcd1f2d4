//! In steady state no call on the hot paths allocates, at any depth, admitted or refused.

use allocation_counter::{AllocationInfo, measure};
use budget_pool::{Amount, BudgetPool, Usd};

const PLENTY: u64 = u64::MAX / 2;

fn amount() -> Amount {
    Amount::new().input_tokens(1_000).output_tokens(200).requests(1).usd(Usd::from_micros(3_600))
}

/// A chain of pools, each with caps on several axes; the last is the lowest.
fn chain(depth: usize) -> Vec<BudgetPool> {
    let nanos = Usd::from_nanos(PLENTY);
    let root = BudgetPool::builder().tokens(PLENTY).input_tokens(PLENTY).requests(PLENTY).usd(nanos).build();
    let mut pools = vec![root];
    for above in 0..depth - 1 {
        pools.push(pools[above].child().tokens(PLENTY).output_tokens(PLENTY).usd(nanos).build());
    }
    pools
}

/// Neither allocates nor frees, once it has been called a few times. Far more calls are measured than were made before:
/// a place that is not given back would make a slab grow.
#[track_caller]
fn is_calm(what: &str, mut call: impl FnMut(&BudgetPool)) {
    for depth in [1, 4] {
        let pools = chain(depth);
        let pool = &pools[depth - 1];
        (0..50).for_each(|_| call(pool));
        let seen = measure(|| (0..2_000).for_each(|_| call(pool)));
        assert_eq!(seen, AllocationInfo::default(), "{what} at depth {depth}");
    }
}

#[test]
fn the_counter_counts() {
    let seen = measure(|| drop(std::hint::black_box(Box::new(1_u64))));
    assert_eq!(seen.count_total, 1);
}

#[test]
fn what_asks_allocates_nothing() {
    is_calm("record", |pool| assert!(pool.record(amount()).is_ok()));
    is_calm("check", |pool| assert!(pool.check(amount()).is_ok()));
}

#[test]
fn a_refusal_allocates_nothing() {
    let too_much = Amount::new().tokens(u64::MAX);
    is_calm("refused record", |pool| assert!(pool.record(too_much).is_err()));
    is_calm("refused check", |pool| assert!(pool.check(too_much).is_err()));
    is_calm("refused reserve", |pool| assert!(pool.reserve(too_much).is_err()));
}

#[test]
fn what_tells_allocates_nothing() {
    is_calm("debit", |pool| {
        pool.debit(amount());
    });
}

#[test]
fn a_hold_allocates_nothing() {
    is_calm("reserve and drop", |pool| drop(pool.reserve(amount()).expect("it fits")));
    is_calm("reserve and commit", |pool| {
        pool.reserve(amount()).expect("it fits").commit(Amount::new().tokens(900).usd(Usd::from_micros(2_700)));
    });
    is_calm("reserve and commit all", |pool| {
        pool.reserve(amount()).expect("it fits").commit_all();
    });
}

#[test]
fn a_hold_that_changes_allocates_nothing() {
    let part = Amount::new().tokens(100).usd(Usd::from_micros(300));
    is_calm("record and debit on a hold", |pool| {
        let mut hold = pool.reserve(amount()).expect("it fits");
        assert!(hold.record(part).is_ok());
        hold.debit(part);
    });
    is_calm("grow and shrink", |pool| {
        let mut hold = pool.reserve(amount()).expect("it fits");
        assert!(hold.grow(part).is_ok());
        assert!(hold.shrink(part).is_ok());
    });
    is_calm("split", |pool| {
        let mut hold = pool.reserve(amount()).expect("it fits");
        hold.split(part).expect("it is held").commit_all();
    });
}
