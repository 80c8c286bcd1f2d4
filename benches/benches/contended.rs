//! Several threads on one object.
//!
//! Each thread does the same number `n` of operations, one after the other, all threads starting together. One
//! iteration is one operation of every thread: the time shown is (last end - first start) / `n`, and `thrpt` counts the
//! operations of all threads. Two threads that do not hinder each other show the time of one; two that take turns show
//! twice that. Starting and joining the threads is not measured.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, Throughput};

use contenders::Measure;

mod contenders;

const THREADS: usize = 2;

struct Together<'a, 'c>(&'a mut BenchmarkGroup<'c, WallTime>);

impl Measure for Together<'_, '_> {
    fn measure(&mut self, id: &str, operation: impl Fn() -> bool + Sync) {
        self.0.bench_function(id, |bencher| bencher.iter_custom(|n| together(n, &operation)));
    }
}

/// How long `THREADS` threads need to do `n` operations each.
fn together(n: u64, operation: &(impl Fn() -> bool + Sync)) -> Duration {
    let ready = AtomicUsize::new(0);
    let worker = || {
        ready.fetch_add(1, Ordering::AcqRel);
        // Not a `Barrier`: waking its sleepers takes longer than a short run does.
        while ready.load(Ordering::Acquire) < THREADS {
            thread::yield_now();
        }
        let start = Instant::now();
        for _ in 0..n {
            black_box(operation());
        }
        (start, Instant::now())
    };
    let spans: Vec<(Instant, Instant)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("no operation panics")).collect()
    });
    let start = spans.iter().map(|span| span.0).min().expect("at least one thread");
    let end = spans.iter().map(|span| span.1).max().expect("at least one thread");
    end - start
}

fn group(criterion: &mut Criterion, what: &str, contenders: fn(&mut Together<'_, '_>)) {
    let mut group = criterion.benchmark_group(format!("{what}, {THREADS} threads"));
    group.throughput(Throughput::Elements(THREADS as u64));
    contenders(&mut Together(&mut group));
    group.finish();
}

fn main() {
    let mut criterion = contenders::criterion();
    group(&mut criterion, "record", |to| contenders::record(to));
    group(&mut criterion, "reserve", |to| contenders::reserve(to));
    criterion.final_summary();
}
