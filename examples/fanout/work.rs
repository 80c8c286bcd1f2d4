//! The part to take home: a task that waits for its share of the budget, in async code and on a
//! thread of a pool.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetError, BudgetPool};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use tokio::task::JoinSet;

use crate::witness::Witness;

/// One call of a model, made up: how much it may need, how much it will turn out to need, and how
/// long it takes.
#[derive(Debug, Clone)]
pub struct Task {
    pub number: usize,
    pub class: Class,
    pub holds: u64,
    pub spends: u64,
    pub takes: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Small,
    Medium,
    Large,
}

/// What became of a task.
#[derive(Debug)]
pub struct Outcome {
    pub task: Task,
    /// In which place it asked, from 0 on.
    pub place: usize,
    pub asked: Instant,
    /// When it had an answer.
    pub answered: Instant,
    pub end: End,
}

#[derive(Debug)]
pub enum End {
    /// It was granted, made its call and settled it.
    Served,
    /// It was granted, and stopped in the middle of its call: nothing was spent.
    CutOff,
    /// There was nothing to wait for any more.
    Told(BudgetError),
}

/// Everything at once, each as a tokio task.
pub fn with_tokio(
    tasks: Vec<Task>,
    pool: &BudgetPool,
    witness: &Arc<Witness>,
) -> io::Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut fan_out = JoinSet::new();
        for task in tasks {
            fan_out.spawn(one(task, pool.clone(), Arc::clone(witness)));
        }
        fan_out.join_all().await
    }))
}

async fn one(task: Task, pool: BudgetPool, witness: Arc<Witness>) -> Outcome {
    let place = witness.join(task.number);
    while !witness.is_turn(place) {
        tokio::task::yield_now().await;
    }
    let asked = Instant::now();
    let granted = pool.reserve_wait(Amount::new().tokens(task.holds)).await;
    let answered = Instant::now();
    let end = match granted {
        Err(refusal) => End::Told(refusal),
        Ok(hold) => {
            witness.look();
            tokio::select! {
                () = call(&task) => {
                    witness.watch(|| hold.commit(Amount::new().tokens(task.spends)));
                    End::Served
                }
                // Who waits is told by itself when the pool is closed; who is in the middle of a call has to look. The
                // hold is dropped with the call, and goes back whole.
                () = pool.closed() => End::CutOff,
            }
        }
    };
    Outcome { task, place, asked, answered, end }
}

async fn call(task: &Task) {
    tokio::time::sleep(task.takes).await;
}

/// The same with threads: the pool is a counter that they share, and a thread that must wait
/// sleeps.
pub fn with_threads(
    tasks: Vec<Task>,
    pool: &BudgetPool,
    witness: &Witness,
    threads: usize,
) -> io::Result<Vec<Outcome>> {
    let workers =
        ThreadPoolBuilder::new().num_threads(threads).build().map_err(io::Error::other)?;
    Ok(workers
        .install(|| tasks.into_par_iter().map(|task| one_blocking(task, pool, witness)).collect()))
}

fn one_blocking(task: Task, pool: &BudgetPool, witness: &Witness) -> Outcome {
    let place = witness.join(task.number);
    while !witness.is_turn(place) {
        thread::yield_now();
    }
    let asked = Instant::now();
    let granted = pool.reserve_blocking(Amount::new().tokens(task.holds));
    let answered = Instant::now();
    let end = match granted {
        Err(refusal) => End::Told(refusal),
        Ok(hold) => {
            witness.look();
            // Nothing stops a thread in the middle of its call: it ends it, and books what it cost,
            // also if the pool was closed meanwhile.
            thread::sleep(task.takes);
            witness.watch(|| hold.commit(Amount::new().tokens(task.spends)));
            End::Served
        }
    };
    Outcome { task, place, asked, answered, end }
}

/// Many small tasks, some larger, few large ones, in a random order that is the same for the same
/// seed.
pub fn made_up(tasks: u16, seed: u64, speed: u32) -> Vec<Task> {
    let mut random = SplitMix64(seed);
    let mut task = |number| {
        let (class, thousands, millis) = match random.between(0, 100) {
            0..60 => (Class::Small, random.between(1, 3), random.between(20, 60)),
            60..90 => (Class::Medium, random.between(3, 9), random.between(60, 140)),
            _ => (Class::Large, random.between(12, 30), random.between(150, 300)),
        };
        // The last three digits are the task's number, so that a hold tells whose it is: see
        // `witness.rs`.
        let holds = thousands * 1_000 + number as u64;
        let spends = holds * random.between(50, 101) / 100;
        Task { number, class, holds, spends, takes: Duration::from_millis(millis) / speed }
    };
    (0..usize::from(tasks)).map(&mut task).collect()
}

/// The generator of Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
struct SplitMix64(u64);

impl SplitMix64 {
    /// At least `low`, less than `high`.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        low + (z ^ (z >> 31)) % (high - low)
    }
}
