//! The witness: sees from outside in which order the tasks asked and were granted. A program that
//! only uses the pool needs none of this.
//!
//! Tasks that wake up do not do so in the order in which they were granted, so their own word
//! proves nothing. But the pool can be looked at, one instant at a time:
//!
//! - A task asks only after all before it are seen to stand in line, so that the order of asking is
//!   known.
//! - Only what gives back can grant to those who wait. The witness lets one of those happen at a
//!   time, and looks who holds something then: if nobody is overtaken, then at every look those who
//!   have been granted are the first of the line, without a gap.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use budget_pool::{Axis, BudgetPool, Snapshot};

pub struct Witness {
    pool: BudgetPool,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    /// The tasks, by number, in the order in which they may ask.
    line: Vec<usize>,
    /// The places of those that were granted, in the order in which they were seen.
    granted: Vec<usize>,
}

impl Witness {
    pub fn new(pool: BudgetPool) -> Witness {
        Witness { pool, log: Mutex::default() }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a task its place in the line.
    pub fn join(&self, task: usize) -> usize {
        let line = &mut self.log().line;
        line.push(task);
        line.len() - 1
    }

    /// Whether all before `place` have asked. In one snapshot each of them is counted once: as one
    /// that waits or, after that, as admitted or refused.
    pub fn is_turn(&self, place: usize) -> bool {
        let Snapshot { waiting, admitted, refused, .. } = self.pool.snapshot();
        waiting + admitted + refused >= place as u64
    }

    /// Sees who holds something now.
    pub fn look(&self) {
        self.log().look(&self.pool);
    }

    /// Does what gives something back, and sees who has it then.
    pub fn watch<T>(&self, gives_back: impl FnOnce() -> T) -> T {
        let mut log = self.log();
        let result = gives_back();
        log.look(&self.pool);
        result
    }

    /// The places in the order in which they were granted.
    pub fn granted(&self) -> Vec<usize> {
        self.log().granted.clone()
    }
}

impl Log {
    fn look(&mut self, pool: &BudgetPool) {
        let holders = pool.holders().into_iter();
        let tasks = holders
            .filter_map(|holder| Some((holder.amount.get(Axis::Tokens)?.units() % 1_000) as usize));
        let mut new: Vec<usize> = tasks
            .filter_map(|task| self.line.iter().position(|&other| other == task))
            .filter(|place| !self.granted.contains(place))
            .collect();
        // Granted in one and the same instant.
        new.sort_unstable();
        self.granted.extend(new);
    }
}

/// Whether those who were `granted` are the first of the line, in its order. `impossible` are the
/// places of those who were told that they can never fit: they may be in the middle.
///
/// # Errors
/// The first who was overtaken, and by whom.
pub fn check_order(granted: &[usize], impossible: &BTreeSet<usize>) -> Result<(), String> {
    let line = (0..).filter(|place| !impossible.contains(place));
    match line.zip(granted).find(|(due, granted)| due != *granted) {
        Some((due, granted)) => {
            Err(format!("place {granted} was granted when it was the turn of place {due}"))
        }
        None => Ok(()),
    }
}

/// What the tasks say that they did.
#[derive(Debug, Default)]
pub struct Claims {
    pub granted: u64,
    pub told: u64,
    /// In tokens.
    pub spent: u64,
}

/// Compares the pool, when all is over, with what the tasks claim: nothing is left reserved, nobody
/// is left waiting, what was spent is what is booked, and no cap was ever passed.
///
/// # Errors
/// A line for every difference.
pub fn check_books(pool: &Snapshot, claims: &Claims) -> Result<(), Vec<String>> {
    let mut wrong = Vec::new();
    let mut same = |what: &str, pool: u64, claimed: u64| {
        if pool != claimed {
            wrong.push(format!("{what}: {pool}, not {claimed}"));
        }
    };
    same("waiting", pool.waiting, 0);
    same("reservations", pool.reservations, 0);
    same("admitted", pool.admitted, claims.granted);
    same("refused", pool.refused, claims.told);
    same("tokens booked", pool.tokens.used + pool.tokens.overage, claims.spent);
    for (axis, books) in pool.axes() {
        same(&format!("{axis} reserved"), books.reserved.units(), 0);
        let cap = books.cap.map_or(u64::MAX, |cap| cap.units());
        same(&format!("{axis} beyond the cap"), books.peak.units().saturating_sub(cap), 0);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
