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
mod tests {
    use std::time::Duration;

    use super::super::samples::{TOKENS, ledger, odd, tokens};
    use super::super::{Refill, Window};
    use super::*;
    use crate::types::axis::{AxisSet, Quantities, lane};

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

    fn bucket(period: u64, now: Instant) -> Refill {
        Refill::start(Window::token_bucket(Duration::from_nanos(period)), now)
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
                let before = ledger.owed(TOKENS);
                let freed = window.advance(&mut ledger, now);
                assert_eq!(freed, ledger.owed(TOKENS) < before);
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
                let Some(at) = window.when(&ledger, TOKENS, missing, 0) else {
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
        assert_eq!(window.when(&ledger, TOKENS, 10, 0), Some(now + Duration::from_nanos(1_000)));
        assert_eq!(window.when(&ledger, TOKENS, 11, 0), None);
        assert_eq!(window.when(&ledger, lane::USD, 0, 0), None, "no cap, no rate");
        assert_eq!(
            window.when(&self::ledger(0, 5), TOKENS, 5, 0),
            None,
            "a cap of zero is a rate of zero"
        );
        assert_eq!(bucket(u64::MAX, now).when(&ledger, TOKENS, u128::MAX, 0), None);
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
        assert_eq!(window.when(&ledger, TOKENS, 1, 0), Some(at(9_999 + 100)));
    }

    #[test]
    fn p2_what_is_owed_comes_back_though_all_of_the_cap_is_held() {
        let now = Instant::now();
        let (mut ledger, mut window) = (ledger(10, 0), bucket(1_000, now));
        ledger.hold(tokens(10).units(), AxisSet::ALL);
        ledger.settle(&Quantities::NONE, &tokens(5), &mut Units::default());
        assert_eq!((ledger.used(TOKENS), ledger.overage(TOKENS)), (0, 5));
        window.advance(&mut ledger, now + Duration::from_nanos(300));
        assert_eq!((ledger.used(TOKENS), ledger.overage(TOKENS)), (0, 2));
    }
}
