//! One thread, no contention: what each call costs.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;

use budget_pool::{Amount, BudgetPool, Usd};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion};
use governor::{Quota, RateLimiter};
use tokio::sync::Semaphore;

use contenders::{Measure, PLENTY, all_axes, four, two, two_axes};

mod contenders;

struct Alone<'a, 'c>(&'a mut BenchmarkGroup<'c, WallTime>);

impl Measure for Alone<'_, '_> {
    fn measure(&mut self, id: &str, operation: impl Fn() -> bool + Sync) {
        self.0.bench_function(id, |bencher| bencher.iter(&operation));
    }
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    contenders::record(&mut Alone(&mut group));
    // The amount is there already: the call without the building of its argument.
    let pool = two_axes();
    let amount = two();
    group.bench_function("budget-pool/2 axes, ready", |bencher| {
        bencher.iter(|| pool.record(*black_box(&amount)).is_ok());
    });
    group.finish();
}

/// Nothing is left: of USD for us, the second axis that is asked.
fn refused(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("refused");

    let pool = BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(0)).build();
    assert!(pool.record(two()).is_err());
    group.bench_function("budget-pool/2 axes", |bencher| bencher.iter(|| pool.record(two()).is_err()));

    let peer = token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
        max_cost_usd: Some(0.0),
        ..token_budget_pool::Caps::default()
    });
    group.bench_function("token-budget-pool/1 axis", |bencher| {
        bencher.iter(|| peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_err());
    });

    let peer = llm_budget::budget::AtomicBudget::new(1e-9).expect("a positive limit");
    group.bench_function("llm-budget/charge", |bencher| bencher.iter(|| peer.charge(black_box(1e-6)).is_err()));

    let peer = Semaphore::new(0);
    group.bench_function("tokio/try_acquire_many", |bencher| {
        bencher.iter(|| peer.try_acquire_many(black_box(1_200)).is_err());
    });

    let peer = RateLimiter::direct(Quota::per_hour(NonZeroU32::MIN));
    assert!(peer.check().is_ok());
    group.bench_function("governor/check_n", |bencher| {
        bencher.iter(|| matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Err(_))));
    });
    group.finish();
}

fn reserve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reserve");
    contenders::reserve(&mut Alone(&mut group));
    let pool = two_axes();
    group.bench_function("budget-pool/reserve+commit_all", |bencher| {
        bencher.iter(|| {
            pool.reserve(two()).is_ok_and(|hold| {
                hold.commit_all();
                true
            })
        });
    });
    group.finish();
}

/// A chain of pools, each with caps on both axes; the lowest is called.
fn depth(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("depth");
    for depth in [1, 2, 4] {
        let mut chain = vec![two_axes()];
        for above in 0..depth - 1 {
            chain.push(chain[above].child().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build());
        }
        let pool = &chain[depth - 1];
        group.bench_function(format!("record/{depth}"), |bencher| bencher.iter(|| pool.record(two()).is_ok()));
        group.bench_function(format!("reserve+commit/{depth}"), |bencher| {
            bencher.iter(|| {
                pool.reserve(two()).is_ok_and(|hold| {
                    hold.commit(Amount::new().tokens(black_box(900)).usd(Usd::from_nanos(black_box(2_700_000))));
                    true
                })
            });
        });
    }
    group.finish();
}

/// What tells, what only asks, and what reads.
fn others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("others");
    let pool = two_axes();
    group.bench_function("budget-pool/debit", |bencher| bencher.iter(|| pool.debit(two())));
    group.bench_function("budget-pool/check", |bencher| bencher.iter(|| pool.check(two()).is_ok()));
    group.bench_function("budget-pool/child+drop", |bencher| {
        bencher.iter(|| pool.child().tokens(black_box(PLENTY)).build());
    });

    let pool = all_axes();
    assert!(pool.record(four()).is_ok());
    group.bench_function("budget-pool/snapshot", |bencher| bencher.iter(|| pool.snapshot()));
    let peer = Arc::new(token_budget_pool::BudgetPool::unconstrained());
    group.bench_function("token-budget-pool/totals", |bencher| bencher.iter(|| peer.totals()));
    group.finish();
}

fn main() {
    let mut criterion = contenders::criterion();
    record(&mut criterion);
    refused(&mut criterion);
    reserve(&mut criterion);
    depth(&mut criterion);
    others(&mut criterion);
    criterion.final_summary();
}
