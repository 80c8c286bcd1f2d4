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
            assert_eq!(ledger.owed(TOKENS), left((now - start).as_nanos()), "{cap} per {period}");
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
                        || missing * u128::from(period) / u128::from(cap) > u128::from(u64::MAX)
                );
                continue;
            };
            for (at, is_enough) in [(at, true), (at - Duration::from_nanos(1), false)] {
                let (mut ledger, mut window) = (ledger.clone(), window.clone());
                window.advance(&mut ledger, at);
                assert_eq!(ledger.owed(TOKENS) + missing <= owed, is_enough, "{cap} per {period}");
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
