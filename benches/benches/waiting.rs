//! Waiting: what it costs to stand in line, to be granted and to give up, alone and in a long line.
//!
//! Every future is polled by hand, with a waker that does nothing: this is the price of the queue,
//! without a runtime. The pools have a cap on what is in flight, the semaphore has as many permits,
//! and each asks for one. The futures lie in boxes of their own on both sides. In a long line
//! whoever is served or leaves has last been touched long ago, so that what grows with its length
//! is the time that memory takes.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetPool, Usd};
use criterion::BenchmarkGroup;
use criterion::measurement::WallTime;
use tokio::sync::Semaphore;

use contenders::{PLENTY, two};

#[allow(dead_code, reason = "others are compared elsewhere")]
mod contenders;

/// How many release at a time: the clock is read once for all of them.
const BATCH: usize = 64;

/// A way to ask for one of so many slots.
trait Measure {
    fn measure<H, E: Debug, F: Future<Output = Result<H, E>>>(
        &mut self,
        id: &str,
        ask: impl Fn() -> F,
    );
}

fn compare(slots: usize, to: &mut impl Measure) {
    let pool = BudgetPool::builder().in_flight(slots as u64).build();
    to.measure("budget-pool/in flight", || pool.reserve_wait(Amount::new()));
    let semaphore = Arc::new(Semaphore::new(slots));
    to.measure("tokio/acquire_owned", || Arc::clone(&semaphore).acquire_owned());
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What was granted.
fn collect<H, E: Debug, F: Future<Output = Result<H, E>>>(future: Pin<&mut F>) -> H {
    match poll(future) {
        Poll::Ready(granted) => granted.expect("nothing is closed"),
        Poll::Pending => panic!("it should be granted by now"),
    }
}

fn enqueue<F: Future>(future: F) -> Pin<Box<F>> {
    let mut future = Box::pin(future);
    assert!(poll(future.as_mut()).is_pending());
    future
}

/// One slot, and one who waits for it: asks, is granted what the other releases, collects it.
struct HandOver<'a, 'c>(&'a mut BenchmarkGroup<'c, WallTime>);

impl Measure for HandOver<'_, '_> {
    fn measure<H, E: Debug, F: Future<Output = Result<H, E>>>(
        &mut self,
        id: &str,
        ask: impl Fn() -> F,
    ) {
        let mut held = Some(collect(pin!(ask())));
        self.0.bench_function(id, |bencher| {
            bencher.iter(|| {
                let mut next = pin!(ask());
                assert!(poll(next.as_mut()).is_pending());
                drop(held.take());
                held = Some(collect(next));
            });
        });
    }
}

/// One release that grants, while so many wait. To collect what was granted and to fill the line up
/// again is not measured.
struct Grant<'a, 'c>(&'a mut BenchmarkGroup<'c, WallTime>, usize);

impl Measure for Grant<'_, '_> {
    fn measure<H, E: Debug, F: Future<Output = Result<H, E>>>(
        &mut self,
        id: &str,
        ask: impl Fn() -> F,
    ) {
        let mut held: Vec<H> = (0..BATCH).map(|_| collect(pin!(ask()))).collect();
        let mut line: VecDeque<_> = (0..self.1).map(|_| enqueue(ask())).collect();
        let mut batch = || {
            let start = Instant::now();
            held.drain(..).for_each(drop);
            let took = start.elapsed();
            held.extend(line.drain(..BATCH).map(|mut granted| collect(granted.as_mut())));
            line.extend((0..BATCH).map(|_| enqueue(ask())));
            took
        };
        self.0.bench_function(format!("{id}/{}", self.1), |bencher| {
            bencher.iter_custom(|n| {
                let batches = n.div_ceil(BATCH as u64);
                let took: Duration = (0..batches).map(|_| batch()).sum();
                took.mul_f64(n as f64 / (batches * BATCH as u64) as f64)
            });
        });
    }
}

/// One gives up its place somewhere in the line, and one more stands in it.
struct Churn<'a, 'c>(&'a mut BenchmarkGroup<'c, WallTime>, usize);

impl Measure for Churn<'_, '_> {
    fn measure<H, E: Debug, F: Future<Output = Result<H, E>>>(
        &mut self,
        id: &str,
        ask: impl Fn() -> F,
    ) {
        let held = collect(pin!(ask()));
        let mut line: Vec<_> = (0..self.1).map(|_| enqueue(ask())).collect();
        let mut random = 1_u64;
        self.0.bench_function(format!("{id}/{}", self.1), |bencher| {
            bencher.iter(|| {
                // Knuth's generator, its upper half: the next index hangs on nothing that was
                // measured.
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                let index = (random >> 33) as usize % line.len();
                line[index].set(ask());
                assert!(poll(line[index].as_mut()).is_pending());
            });
        });
        drop(line);
        drop(held);
    }
}

fn main() {
    let mut criterion = contenders::criterion();

    let mut group = criterion.benchmark_group("wait, one by one");
    compare(1, &mut HandOver(&mut group));
    let pool =
        BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).in_flight(1).build();
    HandOver(&mut group).measure("budget-pool/2 axes, in flight", || pool.reserve_wait(two()));
    group.finish();

    let mut group = criterion.benchmark_group("grant, so many waiting");
    for waiting in [1_000, 10_000, 100_000] {
        compare(BATCH, &mut Grant(&mut group, waiting));
    }
    group.finish();

    let mut group = criterion.benchmark_group("leave and join, so many waiting");
    for waiting in [1_000, 100_000] {
        compare(1, &mut Churn(&mut group, waiting));
    }
    group.finish();

    criterion.final_summary();
}
