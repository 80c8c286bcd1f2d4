//! Periods that begin at instants: every so often, or at the turns of a calendar.

use std::time::Instant;

use super::{Nanos, after};
use crate::engine::ledger::{Ledger, Under};
use crate::time::window::Turns;
use crate::types::axis::AxisSet;

#[derive(Debug, Clone)]
pub(crate) struct Periods {
    turns: Schedule,
    /// Whether a period begins with the overage of the one before.
    carries: bool,
}

/// The turns that are still to come.
#[derive(Debug, Clone)]
enum Schedule {
    Every {
        period: Nanos,
        /// `None` = later than any instant.
        next: Option<Instant>,
    },
    Calendar {
        turns: Turns,
        passed: usize,
    },
}

impl Periods {
    /// A turn at `start`, and every period from there.
    pub(super) fn every(period: Nanos, start: Instant, now: Instant, carries: bool) -> Periods {
        let next = if start > now { Some(start) } else { turn_after(now, start, period) };
        Periods { turns: Schedule::Every { period, next }, carries }
    }

    pub(super) fn at(turns: Turns, now: Instant, carries: bool) -> Periods {
        let mut turns = Schedule::Calendar { turns, passed: 0 };
        turns.pass(now);
        Periods { turns, carries }
    }

    pub(super) fn period(&self) -> Option<Nanos> {
        match self.turns {
            Schedule::Every { period, .. } => Some(period),
            Schedule::Calendar { .. } => None,
        }
    }

    #[inline]
    pub(super) fn advance(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        match self.turns.pass(now) {
            0 => return false,
            passed if self.carries => ledger.carry_over(passed),
            _ => ledger.reset(AxisSet::EMPTY),
        }
        true
    }

    pub(super) fn turns_by(&self, now: Instant) -> bool {
        self.turns.next().is_some_and(|next| next <= now)
    }

    pub(super) fn when(
        &self,
        ledger: &Ledger,
        under: Under,
        missing: u128,
        reserved: u64,
    ) -> Option<Instant> {
        match self.carries {
            false => self.turns.next(),
            true => self.turns.after_next(ledger.turns_to_pay(under, missing, reserved)?),
        }
    }
}

impl Schedule {
    fn next(&self) -> Option<Instant> {
        match self {
            Schedule::Every { next, .. } => *next,
            Schedule::Calendar { turns, passed } => turns.instants().get(*passed).copied(),
        }
    }

    /// The turn that comes so many turns after the next one.
    fn after_next(&self, more: u128) -> Option<Instant> {
        match self {
            Schedule::Every { period, next } => {
                after((*next)?, more.checked_mul(u128::from(*period))?)
            }
            Schedule::Calendar { turns, passed } => {
                let turn = usize::try_from(more).ok()?.checked_add(*passed)?;
                turns.instants().get(turn).copied()
            }
        }
    }

    /// Passes all turns up to an instant. Returns how many.
    fn pass(&mut self, now: Instant) -> u128 {
        match self {
            Schedule::Every { period, next } => {
                let Some(turned) = next.filter(|&next| next <= now) else { return 0 };
                *next = turn_after(now, turned, *period);
                now.saturating_duration_since(turned).as_nanos() / u128::from(*period) + 1
            }
            Schedule::Calendar { turns, passed } => {
                let left = &turns.instants()[*passed..];
                let turned = left.partition_point(|&turn| turn <= now);
                *passed += turned;
                turned as u128
            }
        }
    }
}

/// The first turn after `now`, when `turned` is one that is not.
fn turn_after(now: Instant, turned: Instant, period: Nanos) -> Option<Instant> {
    let into = now.saturating_duration_since(turned).as_nanos() % u128::from(period);
    after(now, u128::from(period) - into)
}

#[cfg(test)]
#[path = "../../tests/units/periods.rs"]
mod tests;
