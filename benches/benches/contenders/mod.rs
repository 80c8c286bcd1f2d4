//! Who is compared, and how: by one thread and by several at once.
//!
//! Every contender is one shared object in an `Arc`, no cap is ever reached (but where refusals are
//! measured), and each operation says whether it did what it should. Figures go through `black_box`
//! as a caller would have them, one by one, and the amount is built from them inside the measured
//! code: building it is a part of the price.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetPool, Usd};
use criterion::{Criterion, Throughput};
use governor::{Quota, RateLimiter};
use llm_budget::budget::AtomicBudget;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// So much that no benchmark spends it.
pub const PLENTY: u64 = u64::MAX / 2;

const THREADS: [usize; 4] = [1, 2, 4, 8];

/// Short enough for the whole run to end in a few minutes.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
        .sample_size(100)
        .nresamples(5_000)
        .without_plots()
        .configure_from_args()
}

/// One group of benchmarks, each by every number of threads: `group/contender/x2`.
pub struct Group<'a> {
    criterion: &'a mut Criterion,
    name: &'static str,
    threads: &'a [usize],
}

impl Group<'_> {
    pub fn by_threads<'a>(criterion: &'a mut Criterion, name: &'static str) -> Group<'a> {
        Group { criterion, name, threads: &THREADS }
    }

    pub fn alone<'a>(criterion: &'a mut Criterion, name: &'static str) -> Group<'a> {
        Group { criterion, name, threads: &THREADS[..1] }
    }

    /// Measures `operation`, the same for all threads.
    pub fn measure(&mut self, id: &str, operation: impl Fn() -> bool + Sync) {
        self.measure_own(id, || &operation);
    }

    /// Measures the operations that `own` makes, one for each thread.
    pub fn measure_own<F: FnMut() -> bool>(&mut self, id: &str, own: impl Fn() -> F + Sync) {
        let mut group = self.criterion.benchmark_group(self.name);
        for &threads in self.threads {
            group.throughput(Throughput::Elements(threads as u64));
            group.bench_function(format!("{id}/x{threads}"), |bencher| {
                bencher.iter_custom(|n| together(threads, n, &own));
            });
        }
        group.finish();
    }
}

/// How long so many threads need to do `n` operations each, one after the other, all starting
/// together.
///
/// One iteration is one operation of every thread. Two threads that do not hinder each other show
/// the time of one; two that take turns show twice that. Starting and joining the threads is not
/// measured.
fn together<F: FnMut() -> bool>(threads: usize, n: u64, own: &(impl Fn() -> F + Sync)) -> Duration {
    let ready = AtomicUsize::new(0);
    let worker = || {
        let mut operation = own();
        ready.fetch_add(1, Ordering::AcqRel);
        // Not a `Barrier`: waking its sleepers takes longer than a short run does.
        while ready.load(Ordering::Acquire) < threads {
            thread::yield_now();
        }
        let start = Instant::now();
        for _ in 0..n {
            black_box(operation());
        }
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no operation panics")).collect()
    });
    let start = spans.iter().map(|span| span.0).min().expect("at least one thread");
    let end = spans.iter().map(|span| span.1).max().expect("at least one thread");
    end - start
}

/// A pool with caps on tokens and USD.
pub fn two_axes() -> BudgetPool {
    BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build()
}

/// A pool with the caps that `token-budget-pool` knows, and one on requests.
pub fn all_axes() -> BudgetPool {
    BudgetPool::builder()
        .tokens(PLENTY)
        .input_tokens(PLENTY)
        .output_tokens(PLENTY)
        .requests(PLENTY)
        .usd(Usd::from_nanos(PLENTY))
        .build()
}

/// Tokens and USD.
#[inline(always)]
pub fn two() -> Amount {
    Amount::new().tokens(black_box(1_200)).usd(Usd::from_nanos(black_box(3_600_000)))
}

/// Input and output tokens, tokens as their sum, and USD: what one record of `token-budget-pool`
/// says.
#[inline(always)]
pub fn four() -> Amount {
    Amount::new()
        .input_tokens(black_box(1_000))
        .output_tokens(black_box(200))
        .usd(Usd::from_nanos(black_box(3_600_000)))
}

/// The same on both axes of [`two`], so many times.
fn times(n: u64) -> Amount {
    Amount::new().tokens(n * 1_200).usd(Usd::from_nanos(n * 3_600_000))
}

fn per_second(cells: u32) -> Quota {
    Quota::per_second(NonZeroU32::new(cells).expect("not zero"))
}

/// Spending for good: ours on two to five axes, the peers with what they have. A semaphore only
/// lends, so its permits go back each time.
pub fn record(mut to: Group<'_>) {
    let pool = two_axes();
    to.measure("budget-pool, 2 axes", || pool.record(two()).is_ok());
    let pool = all_axes();
    to.measure("budget-pool, 4 axes", || pool.record(four()).is_ok());
    to.measure("budget-pool, 5 axes", || pool.record(four().requests(black_box(1))).is_ok());

    // A share for a thousand records: what it takes to refill it is a part of the price.
    let pool = two_axes();
    to.measure_own("budget-pool, lease, 2 axes", || {
        let mut lease = pool.lease(times(1_000)).expect("there is plenty");
        move || lease.record(two()).is_ok()
    });

    let peer = Arc::new(token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
        max_input_tokens: Some(PLENTY),
        max_output_tokens: Some(PLENTY),
        max_total_tokens: Some(PLENTY),
        max_cost_usd: Some(f64::MAX),
    }));
    to.measure("token-budget-pool, 4 axes", || {
        peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_ok()
    });

    let peer = Arc::new(AtomicBudget::new(1e9).expect("a positive limit"));
    to.measure("llm-budget", || peer.charge(black_box(1e-6)).is_ok());

    let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    to.measure("tokio, acquire + drop", || peer.try_acquire_many(black_box(1_200)).is_ok());

    // It refills one cell each nanosecond, faster than any number of threads can take one at a
    // time.
    let peer = Arc::new(RateLimiter::direct(per_second(1_000_000_000)));
    to.measure("governor", || matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Ok(_))));

    let peer = Arc::new(Mutex::new(0_u64));
    to.measure("bare lock", || {
        let mut sum = peer.lock();
        *sum = sum.wrapping_add(black_box(1_200));
        true
    });

    let peer = Arc::new(AtomicU64::new(0));
    to.measure("fetch_add", || add(&peer));
    to.measure_own("fetch_add, each its own", || {
        let own = AtomicU64::new(0);
        move || add(&own)
    });
}

fn add(sum: &AtomicU64) -> bool {
    black_box(sum.fetch_add(black_box(1_200), Ordering::Relaxed)) < PLENTY
}

/// Nothing is left: of USD for us, the second axis that is asked.
pub fn refused(mut to: Group<'_>) {
    let pool = BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(0)).build();
    assert!(pool.record(two()).is_err());
    to.measure("budget-pool, 2 axes", || pool.record(two()).is_err());

    let peer = token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
        max_cost_usd: Some(0.0),
        ..token_budget_pool::Caps::default()
    });
    to.measure("token-budget-pool, 1 axis", || {
        peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_err()
    });

    let peer = AtomicBudget::new(1e-9).expect("a positive limit");
    to.measure("llm-budget", || peer.charge(black_box(1e-6)).is_err());

    let peer = Semaphore::new(0);
    to.measure("tokio", || peer.try_acquire_many(black_box(1_200)).is_err());

    let peer = RateLimiter::direct(Quota::per_hour(NonZeroU32::MIN));
    assert!(peer.check().is_ok());
    to.measure("governor", || matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Err(_))));
}

/// Holding first, then settling a smaller figure (ours), or giving back (all).
pub fn reserve(mut to: Group<'_>) {
    let pool = two_axes();
    to.measure("budget-pool, commit", || {
        let Ok(hold) = pool.reserve(two()) else { return false };
        hold.commit(
            Amount::new().tokens(black_box(900)).usd(Usd::from_nanos(black_box(2_700_000))),
        );
        true
    });
    to.measure("budget-pool, drop", || pool.reserve(two()).is_ok());

    let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    to.measure("tokio, drop", || {
        Arc::clone(&peer).try_acquire_many_owned(black_box(1_200)).is_ok()
    });
}

/// Reading: all of it, or what there is.
pub fn snapshot(mut to: Group<'_>) {
    let pool = all_axes();
    assert!(pool.record(four()).is_ok());
    to.measure("budget-pool, all axes", || pool.snapshot().admitted == 1);

    let peer = Arc::new(token_budget_pool::BudgetPool::unconstrained());
    to.measure("token-budget-pool, totals", || black_box(peer.totals()).cost_usd == 0.0);

    let peer = Arc::new(Semaphore::new(1));
    to.measure("tokio, available_permits", || peer.available_permits() == 1);
}

/// A pool below a pool, made and dropped. No peer has them.
pub fn child(mut to: Group<'_>) {
    let pool = two_axes();
    to.measure("budget-pool", || !pool.child().tokens(black_box(PLENTY)).build().is_closed());
}

/// One slot for all threads: each asks, sleeps until it is granted, and gives it back.
pub fn grant(mut to: Group<'_>) {
    let pool = BudgetPool::builder().in_flight(1).build();
    to.measure("budget-pool", || block_on(pool.reserve_wait(Amount::new())).is_ok());

    let peer = Arc::new(Semaphore::new(1));
    to.measure("tokio", || block_on(Arc::clone(&peer).acquire_owned()).is_ok());
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    thread_local!(static WAKER: Waker = Waker::from(Arc::new(Unpark(thread::current()))));
    let mut future = pin!(future);
    WAKER.with(|waker| {
        loop {
            match future.as_mut().poll(&mut Context::from_waker(waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => thread::park(),
            }
        }
    })
}
