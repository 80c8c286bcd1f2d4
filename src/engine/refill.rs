//! Windows that run: what time brings back to a ledger, exact to the part of a unit.

use std::time::{Duration, Instant};

use super::ledger::Ledger;
use crate::time::window::{Kind, Window};
use crate::types::axis::{AxisSet, Units, lane};

/// A [`Window`] that runs.
#[derive(Debug, Clone)]
pub(crate) enum Refill {
    Fixed {
        period: Nanos,
        /// `None` = later than any instant.
        next: Option<Instant>,
    },
    TokenBucket {
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

impl Refill {
    pub(crate) fn start(window: Window, now: Instant) -> Refill {
        let period = Nanos::try_from(window.period.as_nanos()).unwrap_or(Nanos::MAX).max(1);
        let start = window.start.unwrap_or(now);
        match window.kind {
            Kind::Fixed if start > now => Refill::Fixed { period, next: Some(start) },
            Kind::Fixed => Refill::Fixed { period, next: turn_after(now, start, period) },
            Kind::TokenBucket => {
                Refill::TokenBucket { period, since: start.max(now), parts: Units::default() }
            }
        }
    }

    /// Brings a ledger up to an instant. Returns whether anything came free.
    pub(super) fn advance(&mut self, ledger: &mut Ledger, now: Instant) -> bool {
        match self {
            Refill::Fixed { period, next } => {
                let Some(turned) = next.filter(|&next| next <= now) else { return false };
                ledger.reset(AxisSet::EMPTY);
                *next = turn_after(now, turned, *period);
                true
            }
            Refill::TokenBucket { period, since, parts } => {
                let elapsed = now.saturating_duration_since(*since).as_nanos();
                *since = now.max(*since);
                elapsed > 0 && refill(ledger, *period, elapsed, parts)
            }
        }
    }

    /// Whether a period ends by an instant: what counts in it must have been booked before.
    pub(super) fn turns_by(&self, now: Instant) -> bool {
        matches!(self, Refill::Fixed { next: Some(next), .. } if *next <= now)
    }

    /// A period was begun by hand: a part of a unit that has come back belongs to the old one.
    pub(super) fn restart(&mut self) {
        if let Refill::TokenBucket { parts, .. } = self {
            *parts = Units::default();
        }
    }

    /// Something was given back by hand: where nothing is owed any more, no part of a unit is.
    pub(super) fn drop_parts(&mut self, ledger: &Ledger) {
        if let Refill::TokenBucket { parts, .. } = self {
            for (axis, parts) in parts.iter_mut().enumerate() {
                *parts = if ledger.is_owed(axis) { *parts } else { 0 };
            }
        }
    }

    /// When time alone will have brought back so many units; `None` = never.
    pub(super) fn when(&self, ledger: &Ledger, axis: usize, missing: u128) -> Option<Instant> {
        if missing > ledger.owed(axis) || !is_windowed(axis) {
            return None;
        }
        match self {
            Refill::Fixed { next, .. } => *next,
            Refill::TokenBucket { period, since, parts } => {
                let rate = u128::from(ledger.rate(axis).filter(|&rate| rate > 0)?);
                let parts = missing
                    .checked_mul(u128::from(*period))?
                    .saturating_sub(u128::from(parts[axis]));
                since.checked_add(Duration::from_nanos(Nanos::try_from(parts.div_ceil(rate)).ok()?))
            }
        }
    }
}

fn is_windowed(axis: usize) -> bool {
    axis != lane::IN_FLIGHT
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
    for axis in ledger.capped().filter(|&axis| is_windowed(axis)) {
        if !ledger.is_owed(axis) {
            continue;
        }
        let rate = ledger.rate(axis).expect("it is capped");
        // In 64 bits where they are enough.
        let short = part.checked_mul(rate).and_then(|units| units.checked_add(parts[axis]));
        let left = match short.filter(|_| periods == 0) {
            Some(beyond) if beyond < period => beyond,
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
mod tests {
    use super::*;
    use crate::types::axis::Quantities;

    const TOKENS: usize = lane::TOKENS;
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

    fn tokens(units: u64) -> Quantities {
        Quantities::NONE.with(lane::TOKENS, units)
    }

    fn ledger(cap: u64, spent: u64) -> Ledger {
        let mut ledger = Ledger::new(&Quantities::NONE.with(lane::TOKENS, cap));
        ledger.settle(&Quantities::NONE, &tokens(spent), &mut Units::default());
        ledger
    }

    fn bucket(period: u64, now: Instant) -> Refill {
        Refill::start(Window::token_bucket(Duration::from_nanos(period)), now)
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
            let (mut ledger, mut window) = (ledger(cap, u64::MAX), bucket(period, start));
            let owed = ledger.owed(TOKENS);
            let left =
                |elapsed: u128| owed.saturating_sub(elapsed * u128::from(cap) / u128::from(period));
            let (mut now, mut steps) = (start, odd());
            while (now - start).as_nanos() < YEAR {
                let by = steps.next().unwrap().saturating_mul(1 << 12);
                now += Duration::from_nanos(by);
                window.advance(&mut ledger, now);
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
            let (mut ledger, mut window) = (ledger(cap, u64::MAX), bucket(period, now));
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
                    window.advance(&mut ledger, at);
                    assert_eq!(
                        ledger.owed(TOKENS) + missing <= owed,
                        is_enough,
                        "{cap} per {period}"
                    );
                }
                now += Duration::from_nanos(by);
                window.advance(&mut ledger, now);
            }
        }
    }

    #[test]
    fn it_says_nothing_of_what_time_cannot_bring_back() {
        let now = Instant::now();
        let window = bucket(1_000, now);
        let ledger = ledger(10, 10);
        assert_eq!(window.when(&ledger, TOKENS, 10), Some(now + Duration::from_nanos(1_000)));
        assert_eq!(window.when(&ledger, TOKENS, 11), None);
        let fixed = Refill::start(Window::fixed(Duration::from_nanos(9)), now);
        assert_eq!(fixed.when(&ledger, lane::IN_FLIGHT, 0), None);
        assert_eq!(window.when(&ledger, lane::USD, 0), None, "no cap, no rate");
        assert_eq!(
            window.when(&self::ledger(0, 5), TOKENS, 5),
            None,
            "a cap of zero is a rate of zero"
        );
        assert_eq!(bucket(u64::MAX, now).when(&ledger, TOKENS, u128::MAX), None);
    }

    #[test]
    fn a_full_bucket_keeps_no_part_and_a_clock_that_stands_brings_nothing() {
        let now = Instant::now();
        let at = |nanos| now + Duration::from_nanos(nanos);
        let (mut ledger, mut window) = (ledger(10, 10), bucket(1_000, now));
        assert!(!window.advance(&mut ledger, at(0)) && !window.advance(&mut ledger, at(99)));
        assert!(window.advance(&mut ledger, at(100)) && !window.advance(&mut ledger, at(50)));
        assert_eq!(ledger.owed(TOKENS), 9);
        assert!(window.advance(&mut ledger, at(1_050)));
        assert!(!window.advance(&mut ledger, at(9_999)), "there is nothing left to bring");
        ledger.settle(&Quantities::NONE, &tokens(1), &mut Units::default());
        assert_eq!(window.when(&ledger, TOKENS, 1), Some(at(9_999 + 100)));
    }

    #[test]
    fn p2_what_is_owed_comes_back_though_all_of_the_cap_is_held() {
        let now = Instant::now();
        let (mut ledger, mut window) = (ledger(10, 0), bucket(1_000, now));
        ledger.hold(tokens(10).units());
        ledger.settle(&Quantities::NONE, &tokens(5), &mut Units::default());
        assert_eq!((ledger.used(TOKENS), ledger.overage(TOKENS)), (0, 5));
        window.advance(&mut ledger, now + Duration::from_nanos(300));
        assert_eq!((ledger.used(TOKENS), ledger.overage(TOKENS)), (0, 2));
    }

    #[test]
    fn a_fixed_window_turns_at_whole_periods_from_its_start_and_nowhere_else() {
        let now = Instant::now();
        for period in [1, 2, 59, 60_000_000_029, 86_400_000_000_000] {
            for (start, first) in [
                (now, now + Duration::from_nanos(period)),
                (now + Duration::from_nanos(7), now + Duration::from_nanos(7)),
            ] {
                let fixed = Window::fixed(Duration::from_nanos(period)).aligned_to(start);
                let (mut ledger, mut window) = (ledger(10, 10), Refill::start(fixed, now));
                assert_eq!(window.when(&ledger, TOKENS, 10), Some(first));
                let (mut at, mut turned) = (now, 0);
                for by in odd().take(500) {
                    at += Duration::from_nanos(by);
                    // Periods begun so far, the one that runs at the start not counted.
                    let begun = at
                        .checked_duration_since(first)
                        .map_or(0, |since| since.as_nanos() / u128::from(period) + 1);
                    assert_eq!(window.advance(&mut ledger, at), begun > turned);
                    turned = begun;
                    let Refill::Fixed { next: Some(next), .. } = window else { unreachable!() };
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
                Refill::start(Window::fixed(Duration::from_nanos(60)).aligned_to(start), now);
            assert_eq!(
                window.when(&ledger(10, 10), TOKENS, 1),
                Some(now + Duration::from_nanos(left))
            );
        }
    }
}
