//! Windows that run: what time brings back to a ledger, exact to the part of a unit.
//!
//! | window | part |
//! | --- | --- |
//! | `fixed`, `calendar` | [`Periods`]: all comes back at a turn |
//! | `token_bucket` | [`Bucket`]: it comes back continuously |
//! | `rolling` | [`Rolling`]: it comes back slot by slot |

use std::time::{Duration, Instant};

use bucket::Bucket;
use periods::Periods;
use rolling::Rolling;

use super::ledger::{Ledger, Under};
use crate::time::window::{Kind, Window};
use crate::types::axis::{AxisSet, lane};

mod bucket;
mod periods;
mod rolling;

/// At least one, so that it can be divided by.
type Nanos = u64;

/// A [`Window`] that runs.
#[derive(Debug, Clone)]
pub(crate) enum Refill {
    Periods(Periods),
    TokenBucket(Bucket),
    Rolling(Rolling),
}

impl Refill {
    pub(crate) fn start(window: Window, now: Instant) -> Refill {
        let period = Nanos::try_from(window.period.as_nanos()).unwrap_or(Nanos::MAX).max(1);
        let start = window.start.unwrap_or(now);
        match window.kind {
            Kind::Fixed => Refill::Periods(Periods::every(period, start, now, window.carries)),
            Kind::Calendar(turns) => Refill::Periods(Periods::at(turns, now, window.carries)),
            Kind::TokenBucket => Refill::TokenBucket(Bucket::new(period, start.max(now))),
            Kind::Rolling => Refill::Rolling(Rolling::new(period, start, now)),
        }
    }

    /// The length of its periods; `None` where they differ.
    pub(super) fn period(&self) -> Option<Duration> {
        let nanos = match self {
            Refill::Periods(periods) => periods.period()?,
            Refill::TokenBucket(bucket) => bucket.period(),
            Refill::Rolling(rolling) => rolling.period(),
        };
        Some(Duration::from_nanos(nanos))
    }

    /// Brings a ledger up to an instant. Returns whether anything came free.
    pub(super) fn advance(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        match self {
            Refill::Periods(periods) => periods.advance(ledger, now),
            Refill::TokenBucket(bucket) => bucket.advance(ledger, now),
            Refill::Rolling(rolling) => rolling.advance(ledger, now),
        }
    }

    /// Whether a period ends by an instant: what counts in it must have been booked before.
    pub(super) fn turns_by(&self, now: Instant) -> bool {
        matches!(self, Refill::Periods(periods) if periods.turns_by(now))
    }

    /// A period was begun by hand: what the window keeps belongs to the old one.
    pub(super) fn restart(&mut self) {
        match self {
            Refill::Periods(_) => {}
            Refill::TokenBucket(bucket) => bucket.restart(),
            Refill::Rolling(rolling) => rolling.restart(),
        }
    }

    /// Less is owed than before, and time did not bring that.
    pub(super) fn shrink(&mut self, ledger: &Ledger) {
        match self {
            Refill::Periods(_) => {}
            Refill::TokenBucket(bucket) => bucket.drop_parts(ledger),
            Refill::Rolling(rolling) => rolling.shrink(ledger),
        }
    }

    /// When time alone will have brought back so many units, while so many stay reserved; `None` =
    /// never.
    pub(super) fn when(
        &self,
        ledger: &Ledger,
        axis: usize,
        missing: u128,
        reserved: u64,
    ) -> Option<Instant> {
        self.when_under(ledger, ledger.under(axis), missing, reserved)
    }

    /// [`when`](Refill::when), under a cap that may be set.
    pub(super) fn when_under(
        &self,
        ledger: &Ledger,
        under: Under,
        missing: u128,
        reserved: u64,
    ) -> Option<Instant> {
        let (axis, _) = under;
        if missing > ledger.owed(axis) || !windowed(AxisSet::ALL).contains(axis) {
            return None;
        }
        match self {
            Refill::Periods(periods) => periods.when(ledger, under, missing, reserved),
            Refill::TokenBucket(bucket) => bucket.when(ledger, under, missing),
            Refill::Rolling(rolling) => rolling.when(ledger, axis, missing),
        }
    }
}

#[cfg(any(test, debug_assertions))]
impl Refill {
    /// The state of the window agrees with the ledger.
    pub(super) fn check_invariants(&self, ledger: &Ledger) {
        match self {
            Refill::Periods(_) => {}
            Refill::TokenBucket(bucket) => bucket.check_invariants(ledger),
            Refill::Rolling(rolling) => rolling.check_invariants(ledger),
        }
    }
}

/// The axes that time brings back, of these.
fn windowed(axes: AxisSet) -> AxisSet {
    axes.without(lane::IN_FLIGHT)
}

/// An instant so many nanoseconds after another.
fn after(at: Instant, nanos: u128) -> Option<Instant> {
    at.checked_add(Duration::from_nanos(Nanos::try_from(nanos).ok()?))
}

/// Ledgers and steps of time for the tests of the windows.
#[cfg(test)]
mod samples {
    use super::*;
    use crate::types::axis::{Quantities, Units};

    pub(super) const TOKENS: usize = lane::TOKENS;

    pub(super) fn tokens(units: u64) -> Quantities {
        Quantities::NONE.with(lane::TOKENS, units)
    }

    pub(super) fn ledger(cap: u64, spent: u64) -> Ledger {
        let mut ledger = Ledger::new(&tokens(cap));
        spend(&mut ledger, spent);
        ledger
    }

    pub(super) fn spend(ledger: &mut Ledger, spent: u64) {
        ledger.settle(&Quantities::NONE, &tokens(spent), &mut Units::default());
    }

    /// Odd numbers without end, a few and many.
    pub(super) fn odd() -> impl Iterator<Item = u64> {
        (1..).map(|step: u64| step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (24 + step % 30) | 1)
    }

    pub(super) fn nanos(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }
}
