//! The audit: what the provider billed, call by call, against what the pools have booked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use budget_pool::{Axis, Holder, Observer, Snapshot};

use crate::server::Billed;

/// The holds that ended without a word, by their labels: no usage block came for those calls, and the
/// whole hold was booked. In nano-dollars.
#[derive(Debug, Default)]
pub struct Untold(Mutex<BTreeMap<String, u64>>);

impl Untold {
    pub fn all(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Observer for Untold {
    fn dropped(&self, holder: &Holder) {
        let label = holder.label.as_deref().unwrap_or_default().to_owned();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(label, holder.amount.units(Axis::Usd));
    }
}

/// What an audit that passed has found, in nano-dollars.
#[derive(Debug, PartialEq, Eq)]
pub struct Found {
    pub billed: u64,
    pub booked: u64,
    /// Calls whose usage was told: they are booked to the nano-dollar.
    pub exact: usize,
    /// Calls whose usage nobody told: they are booked as they were held.
    pub guessed: usize,
}

/// Compares the bill with the pools: `pools` is the provider's pool, that of the run, and those of the
/// agents.
///
/// - Each call that was billed is booked: by its usage block, or by its whole hold, which is enough.
/// - A call that was refused is not booked.
/// - The run, and all agents together, have booked the sum of that, to the nano-dollar.
/// - Nothing is held, and no pool was ever above a cap.
///
/// # Errors
/// A line for every place where they differ.
pub fn audit(
    bill: &BTreeMap<String, Billed>,
    refused: &BTreeSet<String>,
    untold: &BTreeMap<String, u64>,
    pools: &[Snapshot],
) -> Result<Found, Vec<String>> {
    let [provider, run, agents @ ..] = pools else {
        return Err(vec!["there are no pools to audit".to_owned()]);
    };
    let mut wrong = Vec::new();
    for (id, call) in bill {
        match untold.get(id) {
            Some(&held) if held < call.nanos => {
                wrong.push(format!("call {id}: {} nano-USD billed, {held} booked", call.nanos));
            }
            None if !call.is_told => {
                wrong.push(format!("call {id}: {} nano-USD billed, nothing booked", call.nanos));
            }
            _ => {}
        }
    }
    for id in refused {
        if let Some(held) = untold.get(id) {
            wrong.push(format!("call {id}: refused, and {held} nano-USD booked"));
        }
    }
    let told = bill.iter().filter(|(id, _)| !untold.contains_key(*id));
    let (exact, by_block) = told.fold((0, 0), |(n, sum), (_, call)| (n + 1, sum + call.nanos));
    let expected = by_block + untold.values().sum::<u64>();
    let booked = |pool: &Snapshot| pool.usd.used.as_nanos() + pool.usd.overage.as_nanos();
    for (whose, booked) in [
        ("the run has", booked(run)),
        ("the agents have", agents.iter().map(booked).sum()),
        ("the provider's pool has", booked(provider)),
    ] {
        if booked != expected {
            wrong.push(format!("{whose} {booked} nano-USD booked, and not {expected}"));
        }
    }
    for pool in pools {
        for (axis, of) in pool.axes() {
            if of.reserved.units() > 0 {
                wrong.push(format!("`{}` holds {}", pool.name, of.reserved));
            }
            if of.cap.is_some_and(|cap| of.peak.units() > cap.units()) {
                wrong.push(format!("`{}` was above its cap on {axis}", pool.name));
            }
        }
    }
    let billed = bill.values().map(|call| call.nanos).sum();
    let found = Found { billed, booked: booked(run), exact, guessed: untold.len() };
    if wrong.is_empty() { Ok(found) } else { Err(wrong) }
}
