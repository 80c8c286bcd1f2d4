use super::super::samples::{TOKENS, ledger, nanos, odd, spend, tokens};
use super::super::{Refill, Window};
use super::*;
use crate::types::axis::{Quantities, lane};

const PERIODS: [u64; 9] = [1, 2, 7, 59, 60, 61, 600, 60_000_000_029, u64::MAX];

fn rolling(period: u64, now: Instant) -> Refill {
    Refill::start(Window::rolling(nanos(period)), now)
}

/// The instants at which units come back, told one unit at a time.
fn returns(window: &Refill, ledger: &Ledger) -> Vec<Instant> {
    let owed = ledger.owed(TOKENS);
    (1..=owed).map(|missing| window.when(ledger, TOKENS, missing, 0).unwrap()).collect()
}

#[test]
fn a_spend_counts_for_a_period_and_at_most_a_slot_more() {
    let start = Instant::now();
    for period in PERIODS {
        let (mut window, mut now) = (rolling(period, start), start);
        for by in odd().take(300) {
            let mut ledger = ledger(10, 1);
            let at = window.when(&ledger, TOKENS, 1, 0).unwrap();
            let counts = (at - now).as_nanos();
            let most = u128::from(period) + u128::from(period).div_ceil(60);
            assert!(counts > u128::from(period) && counts <= most, "{counts} of {period}");
            assert!(!window.clone().advance(&mut ledger, at - nanos(1)));
            assert!(window.clone().advance(&mut ledger, at));
            assert_eq!(ledger.owed(TOKENS), 0);
            // Not beyond what an `Instant` of any platform can say.
            now += nanos(by.min(period / 7 + 1) >> 6);
            window.advance(&mut self::ledger(10, 0), now);
        }
    }
}

#[test]
fn a_slot_ends_exactly_one_period_before_the_slot_sixty_further_on() {
    let start = Instant::now();
    for period in PERIODS {
        let Refill::Rolling(rolling) = rolling(period, start) else { unreachable!() };
        for slot in [1, 2, 59, 60, 61, 119].map(|slot| slot + rolling.slot) {
            let [this, other] = [slot, slot + 60].map(|slot| rolling.begin_of(slot).unwrap());
            assert_eq!(other - this, nanos(period), "slot {slot} of {period}");
            let last = rolling.slot_at(this - nanos(1));
            assert!(rolling.slot_at(this) >= slot && last < slot, "slot {slot} of {period}");
        }
    }
}

#[test]
fn a_slot_begins_where_it_is_aligned_to() {
    let now = Instant::now() + Duration::from_secs(100);
    for start in [-3_600, -601, -600, -7, 0, 1, 599, 600, 3_601_i64] {
        let at = nanos(start.unsigned_abs());
        let aligned = if start < 0 { now - at } else { now + at };
        let window = Window::rolling(nanos(600)).aligned_to(aligned);
        let window = Refill::start(window, now);
        // Slots of ten nanoseconds.
        let left = u64::try_from(10 - (0 - start).rem_euclid(10)).unwrap();
        let told = window.when(&ledger(5, 5), TOKENS, 5, 0);
        assert_eq!(told, Some(now + nanos(left + 600)), "{start}");
    }
}

#[test]
fn units_come_back_slot_by_slot_as_they_were_spent() {
    let now = Instant::now();
    let at = |nanos| now + self::nanos(nanos);
    let (mut ledger, mut window) = (ledger(100, 3), rolling(600, now));
    for (time, units) in [(9, 1), (10, 2), (35, 4), (599, 5), (600, 6)] {
        window.advance(&mut ledger, at(time));
        spend(&mut ledger, units);
        window.check_invariants(&ledger);
    }
    let expected = [(610, 4), (620, 2), (640, 4), (1_200, 5), (1_210, 6)];
    let expected: Vec<_> =
        expected.into_iter().flat_map(|(end, units)| vec![at(end); units]).collect();
    assert_eq!(returns(&window, &ledger), expected);
    for (time, left) in [(609, 21), (610, 17), (1_199, 11), (1_200, 6), (1_210, 0)] {
        window.advance(&mut ledger, at(time));
        assert_eq!(ledger.owed(TOKENS), left, "at {time}");
    }
    assert_eq!(ledger.spent(TOKENS), 21);
}

#[test]
fn one_long_step_brings_back_what_many_short_ones_do() {
    let start = Instant::now();
    for period in [1, 7, 59, 61, 600, 60_000_000_029] {
        let (mut stepped, mut stepping) = (ledger(50, 60), rolling(period, start));
        let mut now = start;
        for by in odd().take(400) {
            let (mut jumped, mut jumping) = (stepped.clone(), stepping.clone());
            let by = by % (period / 3 + 2);
            for part in [by / 3, by / 3, by - 2 * (by / 3)] {
                now += nanos(part);
                stepping.advance(&mut stepped, now);
            }
            jumping.advance(&mut jumped, now);
            assert_eq!(returns(&jumping, &jumped), returns(&stepping, &stepped));
            spend(&mut stepped, by % 5);
        }
    }
}

#[test]
fn what_is_taken_back_was_spent_last() {
    let now = Instant::now();
    let at = |nanos| now + self::nanos(nanos);
    let (mut ledger, mut window) = (ledger(10, 3), rolling(600, now));
    for time in [10, 20] {
        window.advance(&mut ledger, at(time));
        spend(&mut ledger, 5);
    }
    // Of the slot that is being filled, all of the overage and two more; then of that before.
    for (back, left) in [(5, [3, 5, 0]), (1, [3, 4, 0]), (5, [2, 0, 0])] {
        ledger.credit(TOKENS, back, 0, u64::MAX);
        window.shrink(&ledger);
        window.check_invariants(&ledger);
        let slots = [610, 620, 630].into_iter().zip(left);
        let expected: Vec<_> = slots.flat_map(|(end, left)| vec![at(end); left]).collect();
        assert_eq!(returns(&window, &ledger), expected);
    }
    // A new spend does not take the place of one that comes back earlier.
    spend(&mut ledger, 4);
    assert_eq!(returns(&window, &ledger)[2..], [at(630); 4]);
    window.restart();
    ledger.reset(AxisSet::EMPTY);
    spend(&mut ledger, 1);
    assert_eq!(returns(&window, &ledger), [at(630)]);
}

#[test]
fn an_axis_that_is_capped_later_has_spent_all_of_it_then() {
    let now = Instant::now();
    let at = |nanos| now + self::nanos(nanos);
    let (mut ledger, mut window) = (ledger(10, 3), rolling(600, now));
    let usd = Quantities::NONE.with(lane::USD, 7);
    ledger.settle(&Quantities::NONE, &usd, &mut Default::default());
    window.advance(&mut ledger, at(300));
    assert_eq!(window.when(&ledger, lane::USD, 1, 0), None, "it counts on");
    ledger.set_cap(lane::USD, 5);
    assert_eq!(window.when(&ledger, lane::USD, 1, 0), Some(at(910)));
    window.advance(&mut ledger, at(310));
    window.check_invariants(&ledger);
    assert_eq!(window.when(&ledger, lane::USD, 7, 0), Some(at(910)));
    assert_eq!(window.when(&ledger, TOKENS, 3, 0), Some(at(610)));
    window.advance(&mut ledger, at(910));
    assert_eq!([ledger.owed(lane::USD), ledger.owed(TOKENS)], [0, 0]);
}

#[test]
fn what_a_slot_cannot_count_is_in_the_next() {
    let now = Instant::now();
    let at = |nanos| now + self::nanos(nanos);
    let (mut ledger, mut window) = (Ledger::new(&tokens(u64::MAX)), rolling(600, now));
    spend(&mut ledger, u64::MAX);
    spend(&mut ledger, 5);
    let most = u128::from(u64::MAX);
    for _ in 0..3 {
        assert_eq!(window.when(&ledger, TOKENS, most, 0), Some(at(610)));
        assert_eq!(window.when(&ledger, TOKENS, most + 1, 0), Some(at(620)));
        window.advance(&mut ledger, at(10));
    }
    window.advance(&mut ledger, at(610));
    assert_eq!(ledger.owed(TOKENS), 5);
    window.advance(&mut ledger, at(9_999));
    assert_eq!(ledger.owed(TOKENS), 0);
}

#[test]
fn slots_are_kept_for_the_axes_that_have_a_cap() {
    let now = Instant::now();
    let caps = tokens(10).with(lane::IN_FLIGHT, 3);
    let mut ledger = Ledger::new(&caps);
    spend(&mut ledger, 1);
    let mut window = rolling(600, now);
    window.advance(&mut ledger, now + nanos(50));
    let Refill::Rolling(rolling) = &window else { unreachable!() };
    assert_eq!(size_of_val(&*rolling.ended), 480);
}
