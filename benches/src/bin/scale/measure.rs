//! Single calls, timed, and what they keep others from; waiters, polled by hand.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Instant;

use budget_pool::{Amount, BudgetPool, Wait};

/// How often everything is repeated, from nothing.
pub const RUNS: usize = 5;

/// Nanoseconds of each of some calls, in the order in which they were made.
pub type Calls = Vec<f64>;

/// The longest of some calls: where each is the median over its repetitions, and of all of them.
#[derive(Clone, Copy)]
pub struct Figure {
    pub median: f64,
    pub longest: f64,
}

impl Figure {
    /// What is the same in each run.
    pub fn exact(figure: f64) -> Figure {
        Figure { median: figure, longest: figure }
    }

    fn of(runs: Vec<Calls>) -> Figure {
        let longest = runs.iter().flatten().copied().fold(0.0, f64::max);
        let median_of = |call: usize| {
            let mut times: Vec<f64> = runs.iter().map(|run| run[call]).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let median = (0..runs[0].len()).map(median_of).fold(0.0, f64::max);
        Figure { median, longest }
    }
}

/// One figure for each of the `N` kinds of calls that `run` makes.
pub fn repeated<const N: usize>(mut run: impl FnMut() -> [Calls; N]) -> Vec<Figure> {
    let mut kinds = [const { Vec::new() }; N];
    for _ in 0..RUNS {
        for (kind, calls) in kinds.iter_mut().zip(run()) {
            kind.push(calls);
        }
    }
    kinds.into_iter().map(Figure::of).collect()
}

/// How many nanoseconds the call takes, and its result, whose drop is not measured.
pub fn time<R>(call: impl FnOnce() -> R) -> (f64, R) {
    let start = Instant::now();
    let result = call();
    (start.elapsed().as_nanos() as f64, result)
}

/// Makes so many of something, and times each.
pub fn timed<R>(number: usize, make: impl Fn(usize) -> R) -> (Calls, Vec<R>) {
    let (mut calls, mut made) = (Vec::with_capacity(number), Vec::with_capacity(number));
    for index in 0..number {
        let (ns, one) = time(|| make(index));
        calls.push(ns);
        made.push(one);
    }
    (calls, made)
}

/// Times the call, and the longest `record` on `other` that another thread makes meanwhile.
pub fn beside<R>(other: &BudgetPool, call: impl FnOnce() -> R) -> [Calls; 2] {
    meanwhile(|| other.record(one()), call)
}

/// Times the call, and the longest other call that another thread makes meanwhile.
pub fn meanwhile<O, R>(other: impl Fn() -> O + Sync, call: impl FnOnce() -> R) -> [Calls; 2] {
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut longest = 0.0_f64;
            while !is_over.load(Ordering::Acquire) {
                longest = longest.max(time(&other).0);
                has_begun.store(true, Ordering::Release);
            }
            longest
        });
        while !has_begun.load(Ordering::Acquire) {
            thread::yield_now();
        }
        let (own, _result) = time(call);
        is_over.store(true, Ordering::Release);
        [vec![own], vec![others.join().expect("a call does not panic")]]
    })
}

pub fn one() -> Amount {
    Amount::new().requests(1)
}

pub type Waiting = Pin<Box<Wait>>;

pub fn poll(wait: &mut Waiting, waker: &Waker) -> Poll<<Wait as Future>::Output> {
    wait.as_mut().poll(&mut Context::from_waker(waker))
}

/// Stands in line.
pub fn enqueue(wait: Wait, waker: &Waker) -> Waiting {
    let mut wait = Box::pin(wait);
    assert!(poll(&mut wait, waker).is_pending());
    wait
}
