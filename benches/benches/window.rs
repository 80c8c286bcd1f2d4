//! What time costs: windows, holds that expire, and keys; beside governor, with its clock and with
//! the system's.
//!
//! The pools and governor have one limit: a cell each nanosecond, more than one thread can take one
//! by one, so that nothing is refused. To be refused, the limit is a cell each hour.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use budget_pool::{Amount, Ask, BudgetPool, Clock, Window};
use criterion::Criterion;
use governor::clock::{Clock as _, DefaultClock, MonotonicClock, Reference};
use governor::{Quota, RateLimiter};

use contenders::PLENTY;

#[allow(dead_code, reason = "for its settings alone")]
mod contenders;

const PER_SECOND: NonZeroU32 = NonZeroU32::new(1_000_000_000).expect("not zero");
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// Governor's clock, for a pool: it reads the counter of the processor.
fn quanta() -> impl Clock + 'static {
    let (start, clock) = (Instant::now(), DefaultClock::default());
    let zero = clock.now();
    move || start + Duration::from_nanos(clock.now().duration_since(zero).as_u64())
}

fn one() -> Amount {
    Amount::new().requests(black_box(1))
}

fn clocks(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clock");
    group.bench_function("system", |bencher| bencher.iter(Instant::now));
    let clock = quanta();
    group.bench_function("quanta, as Instant", |bencher| bencher.iter(|| clock.now()));
    let clock = DefaultClock::default();
    group.bench_function("quanta", |bencher| bencher.iter(|| clock.now()));
    group.finish();
}

fn admitted(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window, admitted");
    let second = || BudgetPool::builder().requests(PER_SECOND.get().into());
    for (id, pool) in [
        ("budget-pool/none", BudgetPool::builder().requests(PLENTY).build()),
        ("budget-pool/fixed", second().requests(PLENTY).window(Window::fixed(SECOND)).build()),
        ("budget-pool/token bucket", second().window(Window::token_bucket(SECOND)).build()),
        (
            "budget-pool/fixed, quanta",
            second().requests(PLENTY).window(Window::fixed(SECOND)).clock(quanta()).build(),
        ),
        (
            "budget-pool/token bucket, quanta",
            second().window(Window::token_bucket(SECOND)).clock(quanta()).build(),
        ),
        // A cell each second, of more than can be taken: never full again, and what comes back is
        // a fraction of one.
        (
            "budget-pool/token bucket, in use",
            BudgetPool::builder()
                .requests(u32::MAX.into())
                .window(Window::token_bucket(SECOND * u32::MAX))
                .build(),
        ),
    ] {
        group.bench_function(id, |bencher| bencher.iter(|| pool.record(one()).is_ok()));
    }

    let peer = RateLimiter::direct(Quota::per_second(PER_SECOND));
    group.bench_function("governor/check, quanta", |bencher| bencher.iter(|| peer.check().is_ok()));
    group.bench_function("governor/check_n, quanta", |bencher| {
        bencher.iter(|| matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Ok(()))));
    });
    let peer = RateLimiter::direct_with_clock(Quota::per_second(PER_SECOND), MonotonicClock);
    group.bench_function("governor/check, system", |bencher| bencher.iter(|| peer.check().is_ok()));
    let in_use = Quota::per_second(NonZeroU32::MIN).allow_burst(NonZeroU32::MAX);
    let peer = RateLimiter::direct_with_clock(in_use, MonotonicClock);
    group.bench_function("governor/check, system, in use", |bencher| {
        bencher.iter(|| peer.check().is_ok())
    });
    group.finish();
}

/// How long to wait is a part of the answer.
fn refused(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("window, refused");
    let hour = || BudgetPool::builder().requests(1);
    for (id, pool) in [
        ("budget-pool/none", hour().build()),
        ("budget-pool/fixed", hour().window(Window::fixed(HOUR)).build()),
        ("budget-pool/token bucket", hour().window(Window::token_bucket(HOUR)).build()),
        (
            "budget-pool/token bucket, quanta",
            hour().window(Window::token_bucket(HOUR)).clock(quanta()).build(),
        ),
    ] {
        assert!(pool.record(one()).is_ok());
        assert!(pool.record(one()).is_err());
        group.bench_function(id, |bencher| {
            bencher.iter(|| pool.record(one()).map_err(|refused| refused.retry_after()).is_err());
        });
    }

    let peer = RateLimiter::direct(Quota::per_hour(NonZeroU32::MIN));
    let clock = DefaultClock::default();
    assert!(peer.check().is_ok());
    group.bench_function("governor/check, quanta", |bencher| {
        bencher
            .iter(|| peer.check().map_err(|refused| refused.wait_time_from(clock.now())).is_err());
    });
    let peer = RateLimiter::direct_with_clock(Quota::per_hour(NonZeroU32::MIN), MonotonicClock);
    assert!(peer.check().is_ok());
    group.bench_function("governor/check, system", |bencher| {
        bencher.iter(|| {
            peer.check().map_err(|refused| refused.wait_time_from(Instant::now())).is_err()
        });
    });
    group.finish();
}

/// Holds with a TTL, alone and beside others; and without one, in a tree that has none.
fn holds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("expiring holds");
    let pool = BudgetPool::builder().requests(PLENTY).build();
    group.bench_function("reserve+commit", |bencher| {
        bencher.iter(|| pool.reserve(one()).map(|hold| hold.commit(one())).is_ok());
    });
    for others in [0, 10_000] {
        let pool = BudgetPool::builder().requests(PLENTY).build();
        let _others: Vec<_> = (0..others)
            .map(|_| pool.reserve(Ask::new(one()).ttl(HOUR)).expect("there is plenty"))
            .collect();
        group.bench_function(format!("reserve_for+commit/{others} others"), |bencher| {
            bencher.iter(|| {
                pool.reserve(Ask::new(one()).ttl(black_box(HOUR)))
                    .map(|hold| hold.commit(one()))
                    .is_ok()
            });
        });
        let hold = pool.reserve(Ask::new(one()).ttl(HOUR)).expect("there is plenty");
        group.bench_function(format!("renew/{others} others"), |bencher| {
            bencher.iter(|| hold.renew(black_box(HOUR)).is_ok());
        });
        group.bench_function(format!("record/{others} others"), |bencher| {
            bencher.iter(|| pool.record(one()).is_ok());
        });
    }
    group.finish();
}

/// A new key each time, forgotten long before its turn comes again; and one that is known.
fn keys(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record_once");
    let names: Vec<budget_pool::Name> =
        (0..1 << 18).map(|number| format!("job-{number}").into()).collect();
    let pool = BudgetPool::builder()
        .requests(PLENTY)
        .idempotency_keys(usize::MAX, Duration::from_millis(1))
        .build();
    let mut next = 0;
    group.bench_function("new key", |bencher| {
        bencher.iter(|| {
            next = (next + 1) % names.len();
            pool.record_once(names[next].clone(), one()).is_ok()
        });
    });
    let pool = BudgetPool::builder().requests(PLENTY).build();
    assert!(pool.record_once(names[0].clone(), one()).is_ok());
    group.bench_function("known key", |bencher| {
        bencher.iter(|| pool.record_once(names[0].clone(), one()).is_ok());
    });
    group.finish();
}

fn main() {
    let mut criterion = contenders::criterion();
    clocks(&mut criterion);
    admitted(&mut criterion);
    refused(&mut criterion);
    holds(&mut criterion);
    keys(&mut criterion);
    criterion.final_summary();
}
