//! Periods that start by themselves: the arithmetic of time. Pure: time is passed in.

use std::time::{Duration, Instant};

use crate::engine::ledger::Ledger;
use crate::types::axis::{Axis, AxisSet, Units};

/// How the caps of a pool come back by themselves: so much per minute, per day. For
/// [`Builder::window`](crate::Builder::window).
///
/// It counts every axis but [`InFlight`](Axis::InFlight), whose cap is one of the present. The
/// arithmetic is exact: nothing drifts, however long it runs. A period of zero is one of a
/// nanosecond; one of more than 584 years is one of 584 years. What would come back later than 584
/// years from now never does.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    kind: Kind,
    period: Duration,
    start: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Fixed,
    Sliding,
}

impl Window {
    /// A new period begins every so often, as by [`reset`](crate::BudgetPool::reset): `used` and
    /// `overage` start again from zero, and what is still held settles into the period in which
    /// it is settled. At a turn the caps of two periods can be spent within a moment; where
    /// that matters, take a [`sliding`](Window::sliding) one.
    #[must_use]
    pub const fn fixed(period: Duration) -> Window {
        Window { kind: Kind::Fixed, period, start: None }
    }

    /// What was used comes back continuously, at the rate of each cap per period: a token bucket,
    /// with the cap as its burst. What is owed (`overage`) is paid off first. An axis without a
    /// cap has no rate: it counts on.
    ///
    /// `used` is then what has not come back yet. Whatever is held does not: it comes back from its
    /// settlement on.
    #[must_use]
    pub const fn sliding(period: Duration) -> Window {
        Window { kind: Kind::Sliding, period, start: None }
    }

    /// An instant at which a period starts, by the pool's clock, before or after the present. If
    /// not set, the first starts when the pool is built. Should this be later than that, the
    /// first period lasts until then. (A sliding window starts to give back then.)
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
        /// What it has given back beyond whole units, in parts of a unit: as many as the period
        /// has nanoseconds.
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
            Kind::Sliding => {
                Turning::Sliding { period, since: start.max(now), parts: Units::default() }
            }
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
                let parts = missing
                    .checked_mul(u128::from(*period))?
                    .saturating_sub(u128::from(parts[axis]));
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
    now.checked_add(Duration::from_nanos(
        Nanos::try_from(left).expect("no more than the period is left of it"),
    ))
}

/// Gives back what `elapsed` nanoseconds bring on each axis: whole units to the ledger, and what is
/// beyond them is kept in parts. Neither is lost but where all has come back: a bucket that is full
/// stays so.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::axis::Quantities;

    const TOKENS: usize = Axis::Tokens as usize;
    /// Primes beside the extremes.
    const RATES: [(u64, u64); 8] = [
        (1_000_003, 60_000_000_029),
        (7, 86_399_999_999_971),
        (u64::MAX, 3_600_000_000_013),
        (u64::MAX, u64::MAX),
        (u64::MAX - 58, u64::MAX),
        (1, u64::MAX),
        (u64::MAX, 1),
        (3, 1),
    ];

    fn tokens(units: u64) -> Units {
        *Quantities::NONE.with(Axis::Tokens, units).units()
    }

    fn ledger(cap: u64, spent: u64) -> Ledger {
        let mut ledger = Ledger::new(&Quantities::NONE.with(Axis::Tokens, cap));
        ledger.settle(&tokens(0), &tokens(spent), &mut Units::default());
        ledger
    }

    fn sliding(period: u64, now: Instant) -> Turning {
        Turning::start(Window::sliding(Duration::from_nanos(period)), now)
    }

    /// Odd numbers without end, a few and many.
    fn odd() -> impl Iterator<Item = u64> {
        (1..).map(|step: u64| step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> (24 + step % 30) | 1)
    }

    #[test]
    fn a_year_of_odd_steps_brings_back_what_one_big_step_does() {
        const YEAR: u128 = 365 * 86_400 * 1_000_000_000;
        for (cap, period) in RATES {
            let start = Instant::now();
            let (mut ledger, mut window) = (ledger(cap, u64::MAX), sliding(period, start));
            let owed = ledger.owed(TOKENS);
            let left =
                |elapsed: u128| owed.saturating_sub(elapsed * u128::from(cap) / u128::from(period));
            let (mut now, mut steps) = (start, odd());
            while (now - start).as_nanos() < YEAR {
                let by = steps.next().unwrap().saturating_mul(1 << 12);
                now += Duration::from_nanos(by);
                window.turn(&mut ledger, now);
                assert_eq!(
                    ledger.owed(TOKENS),
                    left((now - start).as_nanos()),
                    "{cap} per {period}"
                );
            }
            assert_eq!(ledger.spent(TOKENS), u64::MAX);
        }
    }

    #[test]
    fn it_says_to_the_nanosecond_when_so_much_has_come_back() {
        for (cap, period) in RATES {
            let mut now = Instant::now();
            let (mut ledger, mut window) = (ledger(cap, u64::MAX), sliding(period, now));
            for by in odd().take(200) {
                let missing = u128::from(by % 1_000_003).min(ledger.owed(TOKENS)).max(1);
                let owed = ledger.owed(TOKENS);
                let Some(at) = window.when(&ledger, TOKENS, missing) else {
                    assert!(
                        owed < missing
                            || missing * u128::from(period) / u128::from(cap)
                                > u128::from(u64::MAX)
                    );
                    continue;
                };
                for (at, is_enough) in [(at, true), (at - Duration::from_nanos(1), false)] {
                    let (mut ledger, mut window) = (ledger.clone(), window.clone());
                    window.turn(&mut ledger, at);
                    assert_eq!(
                        ledger.owed(TOKENS) + missing <= owed,
                        is_enough,
                        "{cap} per {period}"
                    );
                }
                now += Duration::from_nanos(by);
                window.turn(&mut ledger, now);
            }
        }
    }

    #[test]
    fn it_says_nothing_of_what_time_cannot_bring_back() {
        let now = Instant::now();
        let window = sliding(1_000, now);
        let ledger = ledger(10, 10);
        assert_eq!(window.when(&ledger, TOKENS, 10), Some(now + Duration::from_nanos(1_000)));
        assert_eq!(window.when(&ledger, TOKENS, 11), None);
        let fixed = Turning::start(Window::fixed(Duration::from_nanos(9)), now);
        assert_eq!(fixed.when(&ledger, Axis::InFlight as usize, 0), None);
        assert_eq!(window.when(&ledger, Axis::Usd as usize, 0), None, "no cap, no rate");
        assert_eq!(
            window.when(&self::ledger(0, 5), TOKENS, 5),
            None,
            "a cap of zero is a rate of zero"
        );
        assert_eq!(sliding(u64::MAX, now).when(&ledger, TOKENS, u128::MAX), None);
    }

    #[test]
    fn a_full_bucket_keeps_no_part_and_a_clock_that_stands_brings_nothing() {
        let now = Instant::now();
        let at = |nanos| now + Duration::from_nanos(nanos);
        let (mut ledger, mut window) = (ledger(10, 10), sliding(1_000, now));
        assert!(!window.turn(&mut ledger, at(0)) && !window.turn(&mut ledger, at(99)));
        assert!(window.turn(&mut ledger, at(100)) && !window.turn(&mut ledger, at(50)));
        assert_eq!(ledger.owed(TOKENS), 9);
        assert!(window.turn(&mut ledger, at(1_050)));
        assert!(!window.turn(&mut ledger, at(9_999)), "there is nothing left to bring");
        ledger.settle(&tokens(0), &tokens(1), &mut Units::default());
        assert_eq!(window.when(&ledger, TOKENS, 1), Some(at(9_999 + 100)));
    }

    #[test]
    fn a_fixed_window_turns_at_whole_periods_from_its_start_and_nowhere_else() {
        let now = Instant::now();
        for period in [1, 2, 59, 60_000_000_029, 86_400_000_000_000] {
            for (start, first) in [
                (now, now + Duration::from_nanos(period)),
                (now + Duration::from_nanos(7), now + Duration::from_nanos(7)),
            ] {
                let fixed = Window::fixed(Duration::from_nanos(period)).starting(start);
                let (mut ledger, mut window) = (ledger(10, 10), Turning::start(fixed, now));
                assert_eq!(window.when(&ledger, TOKENS, 10), Some(first));
                let (mut at, mut turned) = (now, 0);
                for by in odd().take(500) {
                    at += Duration::from_nanos(by);
                    // Periods begun so far, the one that runs at the start not counted.
                    let begun = at
                        .checked_duration_since(first)
                        .map_or(0, |since| since.as_nanos() / u128::from(period) + 1);
                    assert_eq!(window.turn(&mut ledger, at), begun > turned);
                    turned = begun;
                    let Turning::Fixed { next: Some(next), .. } = window else { unreachable!() };
                    assert!(next > at);
                    let next_at =
                        Duration::from_nanos(u64::try_from(u128::from(period) * turned).unwrap());
                    assert_eq!(next, first + next_at);
                }
            }
        }
    }

    #[test]
    fn a_start_long_ago_counts_in_whole_periods() {
        let start = Instant::now();
        for (ago, left) in [(0, 60), (1, 59), (59, 1), (60, 60), (601, 59)] {
            let now = start + Duration::from_nanos(ago);
            let window =
                Turning::start(Window::fixed(Duration::from_nanos(60)).starting(start), now);
            assert_eq!(
                window.when(&ledger(10, 10), TOKENS, 1),
                Some(now + Duration::from_nanos(left))
            );
        }
    }
}
