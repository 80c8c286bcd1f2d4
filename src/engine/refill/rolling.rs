//! A rolling window: what was spent comes back one period after the end of its slot.
//!
//! Slot `n` begins `n * period / 60` nanoseconds after slot 0, rounded down, so that a slot ends
//! exactly one period before the slot 60 further on does. The spend of a slot comes back then: a
//! spend counts for at least one period, and the pool admits no more than its cap in any.
//!
//! # Slots and balances
//!
//! Only the 60 slots that have ended are stored. The slot that is being filled has what is owed
//! beyond them:
//!
//! > used + overage = the slots that have ended + the slot that is being filled
//!
//! So a spend need not look at the window. A call that lowers `used + overage` below the slots that
//! have ended must [shrink](Rolling::shrink) these before anything else is spent, as a spend would
//! take the place of one that comes back earlier.

use std::time::{Duration, Instant};

use super::{Nanos, windowed};
use crate::engine::ledger::Ledger;
use crate::types::axis::AxisSet;

/// So many slots make a period.
const SLOTS: usize = 60;

#[derive(Debug, Clone)]
pub(crate) struct Rolling {
    period: Nanos,
    built: Instant,
    /// How much of a period had passed then, counted from slot 0.
    into: Nanos,
    /// The slot that is being filled.
    slot: u128,
    /// When the next one begins; `None` = later than any instant.
    next: Option<Instant>,
    /// The axes that `ended` is of.
    axes: AxisSet,
    /// The slots that have ended, axis by axis. Slot `n` is at place `n % 60`, until the one that
    /// takes its place ends.
    ended: Box<[u64]>,
}

impl Rolling {
    /// A slot begins at `start`, wherever that is.
    pub(super) fn new(period: Nanos, start: Instant, now: Instant) -> Rolling {
        let length = u128::from(period);
        let since = now.saturating_duration_since(start).as_nanos() % length;
        let until = start.saturating_duration_since(now).as_nanos() % length;
        let into = Nanos::try_from((since + length - until) % length);
        let into = into.expect("it is less than the period");
        let (axes, ended) = (AxisSet::EMPTY, Box::default());
        let mut rolling = Rolling { period, built: now, into, slot: 0, next: None, axes, ended };
        rolling.fill(rolling.slot_at(now));
        rolling
    }

    pub(super) fn period(&self) -> Nanos {
        self.period
    }

    pub(super) fn advance(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        if self.next.is_none_or(|next| now < next) {
            return false;
        }
        let (slot, mut freed) = (self.slot_at(now), false);
        let axes = windowed(ledger.capped());
        // All comes back within two slots more than a period has: the slot that is filled now may
        // have more than one can count.
        while self.slot < slot && axes.into_iter().any(|axis| ledger.is_owed(axis)) {
            self.follow(axes);
            freed |= self.end_slot(ledger);
        }
        self.fill(slot);
        freed
    }

    /// Begins with empty slots.
    pub(super) fn restart(&mut self) {
        self.ended.fill(0);
    }

    /// Takes what is no longer owed from the newest of the slots that have ended. The one that is
    /// being filled is newer, and has lost it already.
    pub(super) fn shrink(&mut self, ledger: &Ledger) {
        let newest = self.slot % SLOTS as u128;
        for (axis, slots) in self.axes.zip(self.ended.chunks_exact_mut(SLOTS)) {
            let mut excess = sum(slots).saturating_sub(ledger.owed(axis));
            for back in 1..=SLOTS {
                let slot = &mut slots[place(newest + (SLOTS - back) as u128)];
                let less = u64::try_from(excess).map_or(*slot, |excess| excess.min(*slot));
                *slot -= less;
                excess -= u128::from(less);
            }
        }
    }

    pub(super) fn when(&self, ledger: &Ledger, axis: usize, missing: u128) -> Option<Instant> {
        if !ledger.capped().contains(axis) {
            return None;
        }
        let ended = self.ended(axis);
        let mut back = 0;
        for more in 0..ended.len() as u128 {
            back += u128::from(ended[place(self.slot + more)]);
            if back >= missing {
                // It ended so many slots before the one that is being filled.
                return self.begin_of(self.slot + 1 + more);
            }
        }
        let counted = (ledger.owed(axis) - back).min(u128::from(u64::MAX));
        let later = if back + counted < missing { 2 } else { 1 };
        self.begin_of(self.slot + SLOTS as u128 + later)
    }

    /// The slot that is being filled ends, and what the slot before the period comes back.
    fn end_slot(&mut self, ledger: &mut Ledger) -> bool {
        let mut freed = false;
        for (axis, slots) in self.axes.zip(self.ended.chunks_exact_mut(SLOTS)) {
            let filled = ledger.owed(axis).checked_sub(sum(slots));
            let filled = filled.expect("what is in the slots is owed");
            let oldest = &mut slots[place(self.slot)];
            let back = std::mem::replace(oldest, u64::try_from(filled).unwrap_or(u64::MAX));
            ledger.refill(axis, back);
            freed |= back > 0;
        }
        self.slot += 1;
        freed
    }

    fn fill(&mut self, slot: u128) {
        self.slot = slot;
        self.next = self.begin_of(slot + 1);
    }

    /// Keeps slots of the axes that have a cap. The debt of an axis that had none is in the slot
    /// that is being filled.
    fn follow(&mut self, axes: AxisSet) {
        if axes == self.axes {
            return;
        }
        let mut ended = Vec::with_capacity(axes.count() * SLOTS);
        for axis in axes {
            match self.ended(axis) {
                [] => ended.extend([0; SLOTS]),
                known => ended.extend_from_slice(known),
            }
        }
        (self.axes, self.ended) = (axes, ended.into());
    }

    /// The slots of an axis that have ended; none, if it had no cap.
    fn ended(&self, axis: usize) -> &[u64] {
        let mut of_axes = self.axes.zip(self.ended.chunks_exact(SLOTS));
        of_axes.find(|(of, _)| *of == axis).map_or(&[], |(_, slots)| slots)
    }

    /// The last slot that has begun by an instant.
    fn slot_at(&self, now: Instant) -> u128 {
        let passed = now.saturating_duration_since(self.built).as_nanos();
        ((passed + u128::from(self.into) + 1) * SLOTS as u128 - 1) / u128::from(self.period)
    }

    /// When a slot begins that had not begun when the pool was built.
    fn begin_of(&self, slot: u128) -> Option<Instant> {
        let from_first = slot * u128::from(self.period) / SLOTS as u128;
        let passed = from_first.checked_sub(u128::from(self.into)).expect("it had not begun");
        let secs = u64::try_from(passed / 1_000_000_000).ok()?;
        let nanos = u32::try_from(passed % 1_000_000_000).expect("it is less than a second");
        self.built.checked_add(Duration::new(secs, nanos))
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self, ledger: &Ledger) {
        assert!(self.axes.difference(windowed(ledger.capped())).is_empty());
        assert_eq!(self.ended.len(), self.axes.count() * SLOTS);
        for (axis, slots) in self.axes.zip(self.ended.chunks_exact(SLOTS)) {
            // The slot that is being filled has the rest.
            assert!(sum(slots) <= ledger.owed(axis), "what is in the slots is used or overage");
        }
    }
}

fn place(slot: u128) -> usize {
    (slot % SLOTS as u128) as usize
}

fn sum(slots: &[u64]) -> u128 {
    slots.iter().map(|&units| u128::from(units)).sum()
}

#[cfg(test)]
#[path = "../../tests/units/rolling.rs"]
mod tests;
