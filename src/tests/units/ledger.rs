use super::*;
use crate::types::axis::{AxisSet, lane};

const TOKENS: usize = lane::TOKENS;
const USD: usize = lane::USD;

fn ledger(tokens: u64) -> Ledger {
    Ledger::new(&Quantities::NONE.with(lane::TOKENS, tokens))
}

fn tokens(units: u64) -> Units {
    *Quantities::NONE.with(lane::TOKENS, units).units()
}

/// Settles tokens; returns the `overage`.
fn settle(ledger: &mut Ledger, held: u64, actual: u64) -> u64 {
    let mut overage = [0; Axis::COUNTED];
    let [held, actual] = [held, actual].map(|n| Quantities::NONE.with(TOKENS, n));
    ledger.settle(&held, &actual, &mut overage);
    overage[TOKENS]
}

/// Used, reserved, free, overage.
fn balance(ledger: &Ledger) -> [u64; 4] {
    let [used, reserved, free, overage] =
        [ledger.used(TOKENS), ledger.reserved(TOKENS), ledger.free(TOKENS), ledger.overage(TOKENS)];
    assert_eq!(Some(used + reserved + free), ledger.cap(TOKENS), "P1");
    assert!(overage == 0 || free == 0, "P2");
    [used, reserved, free, overage]
}

#[test]
fn p1_the_check_is_exact_at_the_cap_and_cannot_wrap() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(60), AxisSet::ALL);
    for (asked, fits) in
        [(0, true), (40, true), (41, false), (u64::MAX, false), (u64::MAX - 59, false)]
    {
        assert_eq!(ledger.fits(&tokens(asked)), fits, "{asked}");
    }
}

#[test]
fn p1_one_axis_that_does_not_fit_refuses_the_whole() {
    let ledger = ledger(100);
    let mut asked = tokens(101);
    asked[USD] = 1;
    assert!(!ledger.fits(&asked));
    asked[TOKENS] = 100;
    assert!(ledger.fits(&asked));
}

#[test]
fn p1_what_is_spent_and_taken_back_leaves_no_trace() {
    let mut ledger = ledger(100);
    let mut asked = tokens(60);
    asked[USD] = 7;
    assert!(ledger.try_take(&asked, Take::Spend));
    ledger.put_back(&asked, Take::Spend);
    assert_eq!((balance(&ledger), ledger.peak(TOKENS), ledger.used(USD)), ([0, 0, 100, 0], 0, 0));
    asked[TOKENS] = 101;
    assert!(!ledger.try_take(&asked, Take::Spend));
    assert_eq!((balance(&ledger), ledger.used(USD)), ([0, 0, 100, 0], 0));
}

#[test]
fn p2_a_settlement_of_less_gives_back_and_of_more_takes_what_is_free() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(60), AxisSet::ALL);
    assert_eq!(settle(&mut ledger, 10, 4), 0);
    assert_eq!(balance(&ledger), [4, 50, 46, 0]);
    assert_eq!(settle(&mut ledger, 50, 90), 0);
    assert_eq!(balance(&ledger), [94, 0, 6, 0]);
    assert_eq!(settle(&mut ledger, 0, 10), 4);
    assert_eq!(balance(&ledger), [100, 0, 0, 4]);
    assert_eq!(ledger.spent(TOKENS), 104);
}

#[test]
fn p2_what_is_freed_or_added_pays_the_overage_first() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(50), AxisSet::ALL);
    settle(&mut ledger, 0, 70);
    assert_eq!(balance(&ledger), [50, 50, 0, 20]);
    settle(&mut ledger, 15, 0);
    assert_eq!(balance(&ledger), [65, 35, 0, 5]);
    ledger.raise(TOKENS, 15);
    assert_eq!(balance(&ledger), [70, 35, 10, 0]);
    assert_eq!(ledger.spent(TOKENS), 70);
}

#[test]
fn p2_facts_beyond_a_u64_stay_at_its_most_and_the_cap_holds() {
    let mut ledger = ledger(100);
    for _ in 0..3 {
        assert_eq!(settle(&mut ledger, 0, u64::MAX).min(u64::MAX - 100), u64::MAX - 100);
    }
    assert_eq!(balance(&ledger), [100, 0, 0, u64::MAX]);
    assert_eq!(ledger.spent(TOKENS), u64::MAX);
    assert_eq!(ledger.missing_at_best(ledger.under(TOKENS), 1), u128::from(u64::MAX) + 1);
}

#[test]
fn an_axis_without_a_cap_counts_and_refuses_only_what_a_u64_cannot_hold() {
    let mut ledger = Ledger::new(&Quantities::NONE);
    assert_eq!(ledger.cap(TOKENS), None);
    assert!(ledger.fits(&tokens(u64::MAX)));
    assert!(ledger.try_take(&tokens(1), Take::Spend));
    assert!(!ledger.fits(&tokens(u64::MAX)));
    assert!(ledger.fits(&tokens(u64::MAX - 1)));
}

#[test]
fn caps_move_by_what_is_free_and_within_a_u64() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(30), AxisSet::ALL);
    ledger.lower(TOKENS, 60);
    assert_eq!(balance(&ledger), [0, 30, 10, 0]);
    assert_eq!(ledger.surrender(TOKENS), 10);
    assert_eq!(balance(&ledger), [0, 30, 0, 0]);
    assert_eq!(ledger.headroom(TOKENS), u64::MAX - 30);
    ledger.raise(TOKENS, u64::MAX - 30);
    assert_eq!(ledger.headroom(TOKENS), 0);
    assert_eq!(balance(&ledger), [0, 30, u64::MAX - 30, 0]);
}

#[test]
fn the_peak_is_the_most_that_was_used_plus_reserved_in_the_period() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(60), AxisSet::ALL);
    assert_eq!(ledger.peak(TOKENS), 60);
    settle(&mut ledger, 60, 10);
    assert_eq!(ledger.peak(TOKENS), 60);
    assert!(ledger.try_take(&tokens(20), Take::Spend));
    assert_eq!(ledger.peak(TOKENS), 60);
    ledger.lower(TOKENS, 70);
    assert_eq!(ledger.peak(TOKENS), 60, "above the cap of today");
    ledger.hold(&tokens(0), AxisSet::ALL);
    ledger.reset(AxisSet::EMPTY);
    assert_eq!(ledger.peak(TOKENS), 0);
}

#[test]
fn a_reset_starts_a_period_with_what_is_held() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(30), AxisSet::ALL);
    settle(&mut ledger, 0, 90);
    assert_eq!(balance(&ledger), [70, 30, 0, 20]);
    ledger.reset(AxisSet::EMPTY);
    assert_eq!(balance(&ledger), [0, 30, 70, 0]);
    assert_eq!((ledger.spent(TOKENS), ledger.peak(TOKENS)), (90, 30));
    settle(&mut ledger, 30, 30);
    assert_eq!(ledger.spent(TOKENS), 120);
}

#[test]
fn an_axis_is_in_play_that_has_a_cap_or_was_ever_used() {
    let of = |axis| AxisSet::of(TOKENS).with(axis);
    let mut ledger = ledger(100);
    assert_eq!(ledger.in_play(), AxisSet::of(TOKENS));
    let usd = Quantities::NONE.with(USD, 7);
    ledger.hold(usd.units(), AxisSet::ALL);
    assert_eq!(ledger.in_play(), of(USD));
    ledger.settle(&usd, &Quantities::NONE, &mut Units::default());
    assert_eq!(ledger.in_play(), of(USD), "it has a peak");
    ledger.reset(AxisSet::EMPTY);
    assert_eq!(ledger.in_play(), AxisSet::of(TOKENS));
    ledger.settle(&Quantities::NONE, &usd, &mut Units::default());
    ledger.reset(AxisSet::EMPTY);
    assert_eq!(ledger.in_play(), of(USD), "it was spent earlier");
}

#[test]
fn a_reset_of_a_share_creates_no_budget() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(30), AxisSet::ALL);
    assert!(ledger.try_take(&tokens(50), Take::Spend));
    ledger.reset(AxisSet::of(TOKENS));
    assert_eq!(ledger.cap(TOKENS), Some(50));
    assert_eq!(balance(&ledger), [0, 30, 20, 0]);
}

#[test]
fn p7_what_is_missing_counts_what_is_reserved_and_what_is_owed() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(60), AxisSet::ALL);
    let missing = |ledger: &Ledger, asked| {
        let at_best = ledger.missing_at_best(ledger.under(TOKENS), asked);
        (ledger.missing(TOKENS, asked), at_best)
    };
    assert_eq!([100, 101].map(|asked| missing(&ledger, asked)), [(60, 0), (61, 1)]);
    settle(&mut ledger, 0, 60);
    assert_eq!(balance(&ledger), [40, 60, 0, 20]);
    assert_eq!([40, 41].map(|asked| missing(&ledger, asked)), [(60, 0), (61, 1)]);
    assert_eq!(ledger.missing(TOKENS, 0), 0, "nothing fits whatever is owed");
}

/// On the way the caps rise, fall below what is reserved, and are paid off.
#[test]
fn p7_what_is_missing_under_a_cap_is_missing_once_it_is_set() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(60), AxisSet::ALL);
    let steps: [fn(&mut Ledger); 4] = [
        |ledger| _ = settle(ledger, 0, 30),
        |ledger| _ = settle(ledger, 0, 60),
        |ledger| ledger.set_cap(TOKENS, 20),
        |ledger| _ = settle(ledger, 25, 0),
    ];
    for step in steps {
        step(&mut ledger);
        for goal in [0, 20, 60, 90, 149, 150, 151, 1_000, u64::MAX] {
            let mut set = ledger.clone();
            set.set_cap(TOKENS, goal);
            for asked in [0, 1, 10, 11, u64::MAX] {
                let missing = ledger.missing_under((TOKENS, goal), asked);
                let beyond = u128::from(asked.saturating_sub(set.free(TOKENS)));
                let before = set.overage(TOKENS) + set.surplus(TOKENS);
                let before = if beyond == 0 { 0 } else { before.into() };
                assert_eq!(missing, beyond + before, "{asked} under {goal}: {ledger:?}");
                let fits = ledger.missing_at_best((TOKENS, goal), asked) == 0;
                assert_eq!(fits, set.fits_at_best(TOKENS, asked), "{asked} under {goal}");
            }
        }
    }
}

#[test]
fn p2_what_time_brings_back_pays_the_overage_first_and_stays_spent() {
    let mut ledger = ledger(100);
    ledger.hold(&tokens(30), AxisSet::ALL);
    settle(&mut ledger, 0, 90);
    assert_eq!((balance(&ledger), ledger.owed(TOKENS)), ([70, 30, 0, 20], 90));
    ledger.refill(TOKENS, 15);
    assert_eq!(balance(&ledger), [70, 30, 0, 5]);
    ledger.refill(TOKENS, 15);
    assert_eq!(balance(&ledger), [60, 30, 10, 0]);
    ledger.refill_much(TOKENS, u128::MAX);
    assert_eq!(balance(&ledger), [0, 30, 70, 0], "what is held does not come back");
    assert_eq!((ledger.spent(TOKENS), ledger.peak(TOKENS)), (90, 100));
}

#[test]
fn where_all_is_reserved_no_turn_pays() {
    let mut ledger = ledger(10);
    ledger.hold(&tokens(10), AxisSet::ALL);
    settle(&mut ledger, 0, 25);
    assert_eq!(ledger.turns_to_pay((TOKENS, 10), 0, 10), Some(0));
    assert_eq!(ledger.turns_to_pay((TOKENS, 10), 1, 10), None);
    assert_eq!(
        [1, 15, 16, 25].map(|units| ledger.turns_to_pay((TOKENS, 10), units, 0)),
        [Some(0), Some(1), Some(1), Some(2)]
    );
    ledger.carry_over(u128::MAX);
    assert_eq!(balance(&ledger), [0, 10, 0, 25]);
}
