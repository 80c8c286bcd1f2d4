//! What a budget of time costs beside the one clock read that it cannot do without. (Of a result
//! only what a caller goes on with is kept: to copy the room for a refusal is the benchmark's own
//! cost.)

use std::hint::black_box;
use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetPool, Call, DeadlineBudget};
use criterion::Criterion;

#[allow(dead_code, reason = "for its settings alone")]
mod contenders;

const NAMES: [&str; 10] = [
    "plan",
    "search",
    "fetch",
    "rank",
    "draft",
    "critique",
    "revise",
    "judge",
    "format",
    "translate",
];
const HOUR: Duration = Duration::from_secs(3_600);

fn budget() -> DeadlineBudget {
    let caps = NAMES.into_iter().map(|name| (name, Duration::from_secs(1)));
    DeadlineBudget::builder().total(HOUR).call_caps(caps).build().expect("an hour is a budget")
}

fn readings(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("deadline");
    let budget = budget();
    let deadline = Instant::now() + HOUR;
    group.bench_function("Instant::now", |bencher| bencher.iter(Instant::now));
    group.bench_function("std/deadline - Instant::now", |bencher| {
        bencher.iter(|| black_box(deadline).saturating_duration_since(Instant::now()));
    });
    group.bench_function("remaining", |bencher| bencher.iter(|| black_box(&budget).remaining()));
    group.bench_function("timeout_for/no name", |bencher| {
        bencher.iter(|| black_box(&budget).timeout_for(Call::new()).unwrap_or_default())
    });
    for name in [NAMES[0], NAMES[4], NAMES[9], "unknown"] {
        group.bench_function(format!("timeout_for/{name}"), |bencher| {
            bencher.iter(|| black_box(&budget).timeout_for(black_box(name)).unwrap_or_default());
        });
    }
    group.finish();
}

fn pools(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record with a deadline");
    let amount = Amount::new().requests(1);
    for (id, pool) in [
        ("without", BudgetPool::unlimited()),
        ("with", BudgetPool::builder().deadline(HOUR).build()),
    ] {
        group.bench_function(id, |bencher| bencher.iter(|| pool.record(black_box(amount)).is_ok()));
    }
    group.finish();
}

fn main() {
    let mut criterion = contenders::criterion();
    readings(&mut criterion);
    pools(&mut criterion);
    criterion.final_summary();
}
