use std::time::Duration;

use super::super::samples::{TOKENS, ledger, nanos, odd, tokens};
use super::super::{Refill, Window};
use super::*;
use crate::types::axis::{Quantities, Units, lane};

/// The next turn, of an axis that owes.
fn next(window: &Refill) -> Option<Instant> {
    window.when(&ledger(10, 10), TOKENS, 10, 0)
}

#[test]
fn a_fixed_window_turns_at_whole_periods_from_its_start_and_nowhere_else() {
    let now = Instant::now();
    for period in [1, 2, 59, 60_000_000_029, 86_400_000_000_000] {
        for (start, first) in [(now, now + nanos(period)), (now + nanos(7), now + nanos(7))] {
            let fixed = Window::fixed(nanos(period)).aligned_to(start);
            let (mut ledger, mut window) = (ledger(10, 10), Refill::start(fixed, now));
            assert_eq!(next(&window), Some(first));
            let (mut at, mut turned) = (now, 0);
            for by in odd().take(500) {
                at += nanos(by);
                // Periods begun so far, the one that runs at the start not counted.
                let begun = at
                    .checked_duration_since(first)
                    .map_or(0, |since| since.as_nanos() / u128::from(period) + 1);
                assert_eq!(window.advance(&mut ledger, at), begun > turned);
                turned = begun;
                let next = next(&window).unwrap();
                assert!(next > at);
                let next_at = nanos(u64::try_from(u128::from(period) * turned).unwrap());
                assert_eq!(next, first + next_at);
            }
        }
    }
}

#[test]
fn a_start_long_ago_counts_in_whole_periods() {
    let start = Instant::now();
    for (ago, left) in [(0, 60), (1, 59), (59, 1), (60, 60), (601, 59)] {
        let now = start + nanos(ago);
        let window = Refill::start(Window::fixed(nanos(60)).aligned_to(start), now);
        assert_eq!(next(&window), Some(now + nanos(left)));
    }
}

#[test]
fn what_is_not_owed_and_what_is_in_flight_never_come_back() {
    let now = Instant::now();
    let window = Refill::start(Window::fixed(nanos(9)), now);
    assert_eq!(window.when(&ledger(10, 10), lane::IN_FLIGHT, 0, 0), None);
    assert_eq!(window.when(&ledger(10, 10), TOKENS, 11, 0), None, "no more than is owed");
}

#[test]
fn a_calendar_turns_at_its_instants_in_whatever_order_they_were_named() {
    let now = Instant::now();
    let at = |secs| now + Duration::from_secs(secs);
    let turns = [at(30), at(0), at(10), at(30), at(29)];
    let mut window = Refill::start(Window::calendar(turns), now);
    let mut ledger = ledger(10, 10);
    assert_eq!(next(&window), Some(at(10)), "the turn at the start has passed");
    assert!(!window.advance(&mut ledger, at(10) - nanos(1)));
    assert_eq!(ledger.used(TOKENS), 10);
    assert!(window.turns_by(at(10)) && window.advance(&mut ledger, at(10)));
    assert_eq!((ledger.used(TOKENS), next(&window)), (0, Some(at(29))));
    assert!(window.advance(&mut ledger, at(29)));
    assert!(window.advance(&mut ledger, at(99)), "the last");
    assert!(!window.advance(&mut ledger, at(100)) && !window.turns_by(at(100)));
    assert_eq!(next(&window), None);
}

/// Turns that are passed at once, and turns one by one, with more and more reserved.
#[test]
fn many_turns_at_once_carry_what_one_after_the_other_does() {
    let now = Instant::now();
    for (cap, reserved, spent) in
        [(10, 0, 500), (10, 3, 77), (10, 10, 40), (0, 0, 40), (10, 0, 4), (7, 1, u64::MAX)]
    {
        let mut begun = Ledger::new(&tokens(cap));
        begun.hold(tokens(reserved).units(), AxisSet::ALL);
        begun.settle(&Quantities::NONE, &tokens(spent), &mut Units::default());
        let window = Refill::start(Window::fixed(nanos(60)).carrying_overage(), now);
        let (mut one_by_one, mut stepping) = (begun.clone(), window.clone());
        for turn in 1..80 {
            stepping.advance(&mut one_by_one, now + nanos(60 * turn));
            let (mut at_once, mut jumping) = (begun.clone(), window.clone());
            assert!(jumping.advance(&mut at_once, now + nanos(60 * turn + 59)));
            let balance = |ledger: &Ledger| {
                let peak = ledger.peak(TOKENS);
                let (used, overage) = (ledger.used(TOKENS), ledger.overage(TOKENS));
                [used, overage, ledger.free(TOKENS), ledger.spent(TOKENS), peak]
            };
            assert_eq!(balance(&at_once), balance(&one_by_one), "turn {turn} of {cap}");
            at_once.check_invariants();
        }
    }
}

#[test]
fn it_says_after_which_turn_enough_of_a_carried_overage_is_paid_off() {
    let now = Instant::now();
    for (cap, reserved, spent) in
        [(10, 0, 500), (10, 3, 77), (9, 8, 20), (10, 0, 4), (10, 2, 10), (10, 10, 5)]
    {
        let mut begun = Ledger::new(&tokens(cap));
        begun.hold(tokens(reserved).units(), AxisSet::ALL);
        begun.settle(&Quantities::NONE, &tokens(spent), &mut Units::default());
        let begin = Refill::start(Window::fixed(nanos(60)).carrying_overage(), now);
        for asked in 1..=cap {
            let missing = begun.missing(TOKENS, asked);
            if missing == 0 {
                continue;
            }
            let (mut ledger, mut window) = (begun.clone(), begin.clone());
            let fits = (1..100).map(|turn| now + nanos(60 * turn)).find(|&turn| {
                window.advance(&mut ledger, turn);
                ledger.missing(TOKENS, asked) == 0
            });
            let told = begin.when(&begun, TOKENS, missing, reserved);
            assert_eq!(told, fits, "{asked} of {cap}, {reserved} reserved, {spent} spent");
        }
    }
}

#[test]
fn a_debt_of_billions_of_periods_is_told_and_skipped_at_once() {
    let now = Instant::now();
    let mut window = Refill::start(Window::fixed(nanos(3)).carrying_overage(), now);
    let mut ledger = ledger(1, 1 << 60);
    // Each turn pays one: the first pays what is used.
    let told = window.when(&ledger, TOKENS, ledger.missing(TOKENS, 1), 0).unwrap();
    assert_eq!(told, now + nanos(3 << 60));
    assert!(window.advance(&mut ledger, told - nanos(1)));
    assert_eq!((ledger.used(TOKENS), ledger.overage(TOKENS)), (1, 0));
    assert!(window.advance(&mut ledger, told));
    assert_eq!(ledger.used(TOKENS), 0);
    let ledger = self::ledger(1, u64::MAX);
    let never = window.when(&ledger, TOKENS, ledger.missing(TOKENS, 1), 0);
    assert_eq!(never, None, "later than 584 years");
}

#[test]
fn a_calendar_that_carries_knows_how_many_turns_are_left() {
    let now = Instant::now();
    let turn = |turn: u64| now + nanos(turn * turn);
    let calendar = Window::calendar((1..=4).map(turn)).carrying_overage();
    let window = Refill::start(calendar, now);
    for (spent, at) in [(10, 1), (11, 2), (29, 3), (30, 3), (31, 4), (40, 4)] {
        let ledger = ledger(10, spent);
        let told = window.when(&ledger, TOKENS, ledger.missing(TOKENS, 10), 0);
        assert_eq!(told, Some(turn(at)), "{spent} spent");
    }
    let ledger = ledger(10, 41);
    assert_eq!(window.when(&ledger, TOKENS, ledger.missing(TOKENS, 10), 0), None);
}
