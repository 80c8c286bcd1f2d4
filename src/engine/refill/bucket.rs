//! A token bucket: what was used comes back continuously.

use std::time::Instant;

use super::{Nanos, windowed};
use crate::engine::ledger::{Ledger, Under};
use crate::types::axis::Units;

#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    period: Nanos,
    /// Up to when it has given back.
    since: Instant,
    /// The units given back beyond whole ones, in parts of a unit: as many as the period has
    /// nanoseconds.
    parts: Units,
}

impl Bucket {
    pub(super) fn new(period: Nanos, since: Instant) -> Bucket {
        Bucket { period, since, parts: Units::default() }
    }

    pub(super) fn period(&self) -> Nanos {
        self.period
    }

    pub(super) fn advance(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        if now <= self.since {
            return false;
        }
        let elapsed = now.duration_since(self.since).as_nanos();
        self.since = now;
        refill(ledger, self.period, elapsed, &mut self.parts)
    }

    /// A part of a unit that has come back belongs to the old period.
    pub(super) fn restart(&mut self) {
        self.parts = Units::default();
    }

    /// Where nothing is owed any more, no part of a unit is.
    pub(super) fn drop_parts(&mut self, ledger: &Ledger) {
        for (axis, parts) in self.parts.iter_mut().enumerate() {
            *parts = if ledger.is_owed(axis) { *parts } else { 0 };
        }
    }

    pub(super) fn when(
        &self,
        ledger: &Ledger,
        (axis, rate): Under,
        missing: u128,
    ) -> Option<Instant> {
        if rate == 0 || !ledger.capped().contains(axis) {
            return None;
        }
        let parts = missing
            .checked_mul(u128::from(self.period))?
            .saturating_sub(u128::from(self.parts[axis]));
        super::after(self.since, parts.div_ceil(rate.into()))
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self, ledger: &Ledger) {
        for (axis, &parts) in self.parts.iter().enumerate() {
            assert!(parts < self.period, "parts of a unit are less than one");
            assert!(parts == 0 || ledger.is_owed(axis), "a full bucket has no part of a unit");
        }
    }
}

/// Gives back what `elapsed` nanoseconds bring on each axis: whole units to the ledger, and what is
/// beyond them is kept in parts. Neither is lost, but a bucket that is full stays so.
fn refill(ledger: &mut Ledger, period: Nanos, elapsed: u128, parts: &mut Units) -> bool {
    // Less than a period has passed at most calls: there are no whole ones to count then, and a
    // long division is not needed for it.
    let (periods, part) = match Nanos::try_from(elapsed) {
        Ok(elapsed) if elapsed < period => (0, elapsed),
        _ => {
            let periods = elapsed / u128::from(period);
            let part = Nanos::try_from(elapsed - periods * u128::from(period));
            (periods, part.expect("it is less than the period"))
        }
    };
    let mut freed = false;
    for axis in windowed(ledger.capped()) {
        if !ledger.is_owed(axis) {
            continue;
        }
        let rate = ledger.rate(axis).expect("it is capped");
        // In 64 bits where they are enough.
        let short = part.checked_mul(rate).and_then(|units| units.checked_add(parts[axis]));
        let left = match short.filter(|_| periods == 0) {
            Some(beyond) if beyond < period => beyond,
            Some(beyond) if brings_all(ledger.owed(axis), period, beyond) => {
                freed = true;
                ledger.refill(axis, u64::MAX);
                0
            }
            Some(beyond) => {
                freed = true;
                ledger.refill(axis, beyond / period);
                beyond % period
            }
            None => {
                let (units, left) = long_refill(periods, part, rate, parts[axis], period);
                freed |= units > 0;
                ledger.refill_much(axis, units);
                left
            }
        };
        parts[axis] = if ledger.is_owed(axis) { left } else { 0 };
    }
    freed
}

/// Whether so many parts of a unit are all that is owed: to know that takes no division.
#[inline]
fn brings_all(owed: u128, period: Nanos, parts: u64) -> bool {
    let all = u64::try_from(owed).ok().and_then(|owed| owed.checked_mul(period));
    all.is_some_and(|all| all <= parts)
}

/// The whole units that come back, and what is beyond them.
#[cold]
fn long_refill(periods: u128, part: Nanos, rate: u64, parts: u64, period: Nanos) -> (u128, u64) {
    // At most (2^64 - 1)^2 + 2^64 - 1: in a `u128` it cannot overflow.
    let beyond = u128::from(part) * u128::from(rate) + u128::from(parts);
    let whole = beyond / u128::from(period);
    let left = u64::try_from(beyond - whole * u128::from(period));
    let units = periods.saturating_mul(u128::from(rate)).saturating_add(whole);
    (units, left.expect("a part of a unit is less than the period"))
}

#[cfg(test)]
#[path = "../../tests/units/bucket.rs"]
mod tests;
