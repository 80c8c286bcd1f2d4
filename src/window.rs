//! Periods that start by themselves: the arithmetic of time. Pure: time is passed in.

use std::time::{Duration, Instant};

use crate::axis::{Axis, AxisSet, Units};
use crate::ledger::Ledger;

/// How the caps of a pool come back by themselves: so much per minute, per day. For
/// [`Builder::window`](crate::Builder::window).
///
/// It counts every axis but [`InFlight`](Axis::InFlight), whose cap is one of the present. The arithmetic is exact: nothing
/// drifts, however long it runs. A period of zero is one of a nanosecond; one of more than 584 years is one of 584 years. What
/// would come back later than 584 years from now never does.
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool, ManualClock, Window};
///
/// let clock = ManualClock::new();
/// let pool = BudgetPool::builder()
///     .tokens(60_000)
///     .window(Window::sliding(Duration::from_secs(60)))
///     .clock(clock.clone())
///     .build();
///
/// pool.record(Amount::new().tokens(60_000))?; // a burst of all there is
/// let refused = pool.record(Amount::new().tokens(500)).unwrap_err();
/// assert_eq!(refused.retry_after(), Some(Duration::from_millis(500)));
///
/// clock.advance(Duration::from_millis(500)); // 1 token each millisecond
/// pool.record(Amount::new().tokens(500))?;
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    kind: Kind,
    period: Duration,
    start: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fixed,
    Sliding,
}

impl Window {
    /// A new period begins every so often, as by [`reset`](crate::BudgetPool::reset): `used` and `overage` start again from
    /// zero, and what is still held settles into the period in which it is settled. At a turn the caps of two periods can be
    /// spent within a moment; where that matters, take a [`sliding`](Window::sliding) one.
    #[must_use]
    pub const fn fixed(period: Duration) -> Window {
        Window { kind: Kind::Fixed, period, start: None }
    }

    /// What was used comes back continuously, at the rate of each cap per period: a token bucket, with the cap as its
    /// burst. What is owed (`overage`) is paid off first. An axis without a cap has no rate: it counts on.
    ///
    /// `used` is then what has not come back yet. Whatever is held does not: it comes back from its settlement on.
    #[must_use]
    pub const fn sliding(period: Duration) -> Window {
        Window { kind: Kind::Sliding, period, start: None }
    }

    /// When a period starts, for a clock of the pool's: before or after the present. If not set, the first starts when the
    /// pool is built. Should this be later than that, the first period lasts until then. (A sliding window starts to give
    /// back then.)
    #[must_use]
    pub const fn starting(self, at: Instant) -> Window {
        Window { start: Some(at), ..self }
    }
}

/// A window that runs.
#[derive(Debug, Clone)]
pub(crate) enum Turning {
    Fixed {
        period: Nanos,
        /// `None` = later than any instant.
        next: Option<Instant>,
    },
    Sliding {
        period: Nanos,
        /// Up to when it has given back.
        since: Instant,
        /// What it has given back beyond whole units, in parts of a unit: as many as the period has nanoseconds.
        parts: Units,
    },
}

/// At least one, so that it can be divided by.
type Nanos = u64;

impl Turning {
    pub(crate) fn start(window: Window, now: Instant) -> Turning {
        let period = Nanos::try_from(window.period.as_nanos()).unwrap_or(Nanos::MAX).max(1);
        let start = window.start.unwrap_or(now);
        match window.kind {
            Kind::Fixed if start > now => Turning::Fixed { period, next: Some(start) },
            Kind::Fixed => Turning::Fixed { period, next: turn_after(now, start, period) },
            Kind::Sliding => Turning::Sliding { period, since: start.max(now), parts: Units::default() },
        }
    }

    /// Brings a ledger up to an instant. Returns whether anything came free.
    pub(crate) fn turn(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        match self {
            Turning::Fixed { period, next } => {
                let Some(turned) = next.filter(|&next| next <= now) else { return false };
                ledger.reset(AxisSet::EMPTY);
                *next = turn_after(now, turned, *period);
                true
            }
            Turning::Sliding { period, since, parts } => {
                let elapsed = now.saturating_duration_since(*since).as_nanos();
                *since = now.max(*since);
                elapsed > 0 && refill(ledger, u128::from(*period), elapsed, parts)
            }
        }
    }

    /// A period was begun by hand: a part of a unit that has come back belongs to the old one.
    pub(crate) fn restart(&mut self) {
        if let Turning::Sliding { parts, .. } = self {
            *parts = Units::default();
        }
    }

    /// When time alone will have brought back so many units; `None` = never.
    pub(crate) fn when(&self, ledger: &Ledger, axis: usize, missing: u128) -> Option<Instant> {
        if missing > ledger.owed(axis) || !is_windowed(axis) {
            return None;
        }
        match self {
            Turning::Fixed { next, .. } => *next,
            Turning::Sliding { period, since, parts } => {
                let rate = u128::from(ledger.cap(axis).filter(|&cap| cap > 0)?);
                let parts = missing.checked_mul(u128::from(*period))?.saturating_sub(u128::from(parts[axis]));
                since.checked_add(Duration::from_nanos(Nanos::try_from(parts.div_ceil(rate)).ok()?))
            }
        }
    }
}

fn is_windowed(axis: usize) -> bool {
    axis != Axis::InFlight as usize
}

/// The first turn after `now`, when `turned` is one that is not.
fn turn_after(now: Instant, turned: Instant, period: Nanos) -> Option<Instant> {
    let into = now.saturating_duration_since(turned).as_nanos() % u128::from(period);
    let left = u128::from(period) - into;
    now.checked_add(Duration::from_nanos(Nanos::try_from(left).expect("no more than the period is left of it")))
}

/// Gives back what `elapsed` nanoseconds bring on each axis: whole units to the ledger, and what is beyond them is kept in
/// parts. Neither is lost but where all has come back: a bucket that is full stays so.
fn refill(ledger: &mut Ledger, period: u128, elapsed: u128, parts: &mut Units) -> bool {
    let periods = elapsed / period;
    let part = elapsed - periods * period;
    let mut freed = false;
    for axis in ledger.capped().into_iter().filter(|&axis| is_windowed(axis)) {
        if ledger.owed(axis) == 0 {
            continue;
        }
        let rate = u128::from(ledger.cap(axis).expect("it is capped"));
        // At most (2^64 - 1)^2 + 2^64 - 1: in a `u128` it cannot overflow.
        let beyond = part * rate + u128::from(parts[axis]);
        let whole = beyond / period;
        let units = periods.saturating_mul(rate).saturating_add(whole);
        ledger.refill(axis, units);
        let left = if ledger.owed(axis) > 0 { beyond - whole * period } else { 0 };
        parts[axis] = u64::try_from(left).expect("a part of a unit is less than the period");
        freed |= units > 0;
    }
    freed
}
