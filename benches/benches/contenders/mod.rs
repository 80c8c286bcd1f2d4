//! Who is compared, and how: by one thread and by several at once.
//!
//! Every contender is one shared object in an `Arc`, no cap is ever reached (but where refusals are
//! measured), and each operation says whether it did what it should. Figures go through `black_box`
//! as a caller would have them, one by one, and the amount is built from them inside the measured
//! code: building it is a part of the price.
//!
//! The place in memory alone moves a call by some nanoseconds. So every contender is built at
//! several places, with other allocations between them, and each sample measures the next: the
//! median over the samples is one over the places.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use budget_context::{Budget, Resource};
use budget_pool::{Amount, BudgetPool, Usd};
use criterion::{Criterion, Throughput};
use governor::{Quota, RateLimiter};
use llm_budget::budget::AtomicBudget;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// So much that no benchmark spends it.
pub const PLENTY: u64 = u64::MAX / 2;

const THREADS: [usize; 4] = [1, 2, 4, 8];

/// At how many places each contender is measured.
const PLACES: usize = 16;

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

    /// Measures the operation that `build` makes at each place, the same for all threads.
    pub fn measure<F: Fn() -> bool + Send + Sync>(&mut self, id: &str, build: impl Fn() -> F) {
        self.measure_own(id, || {
            let operation = Arc::new(build());
            move || {
                let operation = Arc::clone(&operation);
                move || operation()
            }
        });
    }

    /// Measures the operations that what `build` made at a place makes, one for each thread.
    pub fn measure_own<O, F>(&mut self, id: &str, build: impl Fn() -> O)
    where
        O: Fn() -> F + Sync,
        F: FnMut() -> bool,
    {
        // Of another size each: the next place is at another part of a cache line, and of a page.
        let place = |number: usize| (build(), vec![0_u8; 16 + number * 208]);
        let places: Vec<_> = (0..PLACES).map(place).collect();
        let mut next = places.iter().map(|(own, _)| own).cycle();
        let mut group = self.criterion.benchmark_group(self.name);
        for &threads in self.threads {
            group.throughput(Throughput::Elements(threads as u64));
            group.bench_function(format!("{id}/x{threads}"), |bencher| {
                bencher.iter_custom(|n| together(threads, n, next.next().expect("it is a cycle")));
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
    to.measure("budget-pool, 2 axes", || {
        let pool = two_axes();
        move || pool.record(two()).is_ok()
    });
    to.measure("budget-pool, 4 axes", || {
        let pool = all_axes();
        move || pool.record(four()).is_ok()
    });
    to.measure("budget-pool, 5 axes", || {
        let pool = all_axes();
        move || pool.record(four().requests(black_box(1))).is_ok()
    });

    // A share for a thousand records: what it takes to refill it is a part of the price.
    to.measure_own("budget-pool, lease, 2 axes", || {
        let pool = two_axes();
        move || {
            let mut lease = pool.lease(times(1_000));
            move || lease.record(two()).is_ok()
        }
    });

    to.measure("token-budget-pool, 4 axes", || {
        let peer = Arc::new(token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
            max_input_tokens: Some(PLENTY),
            max_output_tokens: Some(PLENTY),
            max_total_tokens: Some(PLENTY),
            max_cost_usd: Some(f64::MAX),
        }));
        move || peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_ok()
    });

    to.measure("llm-budget", || {
        let peer = Arc::new(AtomicBudget::new(1e9).expect("a positive limit"));
        move || peer.charge(black_box(1e-6)).is_ok()
    });

    to.measure("tokio, acquire + drop", || {
        let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        move || peer.try_acquire_many(black_box(1_200)).is_ok()
    });

    // It refills one cell each nanosecond, faster than any number of threads can take one at a
    // time.
    to.measure("governor", || {
        let peer = Arc::new(RateLimiter::direct(per_second(1_000_000_000)));
        move || matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Ok(_)))
    });

    to.measure("bare lock", || {
        let peer = Arc::new(Mutex::new(0_u64));
        move || {
            let mut sum = peer.lock();
            *sum = sum.wrapping_add(black_box(1_200));
            true
        }
    });

    to.measure("fetch_add", || {
        let peer = Arc::new(AtomicU64::new(0));
        move || add(&peer)
    });
    to.measure_own("fetch_add, each its own", || {
        || {
            let own = AtomicU64::new(0);
            move || add(&own)
        }
    });
}

fn add(sum: &AtomicU64) -> bool {
    black_box(sum.fetch_add(black_box(1_200), Ordering::Relaxed)) < PLENTY
}

/// Nothing is left: of USD for us, the second axis that is asked.
pub fn refused(mut to: Group<'_>) {
    to.measure("budget-pool, 2 axes", || {
        let pool = BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(0)).build();
        assert!(pool.record(two()).is_err());
        move || pool.record(two()).is_err()
    });

    to.measure("token-budget-pool, 1 axis", || {
        let peer = Arc::new(token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
            max_cost_usd: Some(0.0),
            ..token_budget_pool::Caps::default()
        }));
        move || peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_err()
    });

    to.measure("llm-budget", || {
        let peer = Arc::new(AtomicBudget::new(1e-9).expect("a positive limit"));
        move || peer.charge(black_box(1e-6)).is_err()
    });

    to.measure("tokio", || {
        let peer = Arc::new(Semaphore::new(0));
        move || peer.try_acquire_many(black_box(1_200)).is_err()
    });

    to.measure("governor", || {
        let peer = Arc::new(RateLimiter::direct(Quota::per_hour(NonZeroU32::MIN)));
        assert!(peer.check().is_ok());
        move || matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Err(_)))
    });
}

/// Holding first, then settling a smaller figure (ours and budget-context), or giving back (all).
pub fn reserve(mut to: Group<'_>) {
    to.measure("budget-pool, commit", || {
        let pool = two_axes();
        move || reserve_and_commit(&pool)
    });
    to.measure("budget-pool, drop", || {
        let pool = two_axes();
        move || pool.reserve(two()).is_ok()
    });

    to.measure("budget-context, commit", || peer_context(1));

    to.measure("tokio, drop", || {
        let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        move || Arc::clone(&peer).try_acquire_many_owned(black_box(1_200)).is_ok()
    });
}

/// Holds on both axes, and settles less on both, which gives back the rest.
#[inline(always)]
pub fn reserve_and_commit(pool: &BudgetPool) -> bool {
    let Ok(hold) = pool.reserve(two()) else { return false };
    hold.commit(Amount::new().tokens(black_box(900)).usd(Usd::from_nanos(black_box(2_700_000))));
    true
}

/// The work of [`reserve_and_commit`] by a chain of `depth` contexts: limits on the same two axes at
/// each of them, the same figures, held in one call and settled in one, and the lowest is called.
/// The resources have been named beforehand, as our axes have been.
pub fn peer_context(depth: usize) -> impl Fn() -> bool + Send + Sync {
    let [tokens, usd] =
        ["tokens", "usd"].map(|name| Resource::new(name).expect("a name that may be"));
    let limited = |builder: budget_context::BudgetBuilder| {
        let builder = builder.limit(tokens.clone(), PLENTY).limit(usd.clone(), PLENTY);
        builder.build().expect("each limit is given once")
    };
    let root = limited(Budget::builder());
    let context = (1..depth).fold(root, |above, _| limited(above.child()));
    move || {
        let held = [(&tokens, black_box(1_200)), (&usd, black_box(3_600_000))];
        let Ok(hold) = context.reserve_many(held) else { return false };
        hold.commit([(&tokens, black_box(900)), (&usd, black_box(2_700_000))]).is_ok()
    }
}

/// Reading: all of it, or what there is.
pub fn snapshot(mut to: Group<'_>) {
    to.measure("budget-pool, all axes", || {
        let pool = all_axes();
        assert!(pool.record(four()).is_ok());
        move || pool.snapshot().admitted == 1
    });

    to.measure("token-budget-pool, totals", || {
        let peer = Arc::new(token_budget_pool::BudgetPool::unconstrained());
        move || black_box(peer.totals()).cost_usd == 0.0
    });

    to.measure("tokio, available_permits", || {
        let peer = Arc::new(Semaphore::new(1));
        move || peer.available_permits() == 1
    });
}

/// A pool below a pool, made and dropped.
pub fn child(mut to: Group<'_>) {
    to.measure("budget-pool", || {
        let pool = two_axes();
        move || !pool.child().tokens(black_box(PLENTY)).build().is_closed()
    });
}

/// One slot for all threads: each asks, sleeps until it is granted, and gives it back.
pub fn grant(mut to: Group<'_>) {
    to.measure("budget-pool", || {
        let pool = BudgetPool::builder().in_flight(1).build();
        move || block_on(pool.reserve_wait(Amount::new())).is_ok()
    });

    to.measure("tokio", || {
        let peer = Arc::new(Semaphore::new(1));
        move || block_on(Arc::clone(&peer).acquire_owned()).is_ok()
    });
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
