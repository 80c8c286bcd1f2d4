use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn pool() -> Name {
    Name::from("run\n17")
}

fn exceeded(outlook: Outlook, retry_after: Option<Duration>) -> BudgetExceeded {
    BudgetExceeded {
        lane: Axis::Tokens.lane() as u8,
        is_capped: true,
        label: Label::NONE,
        requested: 11,
        available: 10,
        cap: 100,
        pool: pool(),
        outlook,
        retry_after,
    }
}

fn late() -> DeadlineExceeded {
    let second = Duration::from_secs(1);
    DeadlineExceeded { pool: Some(pool()), budget: second, elapsed: second, needed: Duration::ZERO }
}

/// The next variant after this one in declared order: a variant that is missing here does not
/// compile.
fn next(refusal: &BudgetError) -> Option<BudgetError> {
    let pool = pool();
    Some(match refusal {
        BudgetError::Exceeded(_) => late().into(),
        BudgetError::DeadlineExceeded(_) => BudgetError::Paused {
            pool,
            until: Instant::now(),
            outlook: Outlook::At(Instant::now()),
            retry_after: Some(Duration::from_secs(6)),
        },
        BudgetError::Paused { .. } => BudgetError::Queued { pool },
        BudgetError::Queued { .. } => {
            let refusal = Box::new(BudgetError::Queued { pool: pool.clone() });
            BudgetError::Timeout { pool, waited: Duration::from_millis(20), refusal }
        }
        BudgetError::Timeout { .. } => BudgetError::QueueFull { pool, most: 3 },
        BudgetError::QueueFull { .. } => BudgetError::NoTimer { pool },
        BudgetError::NoTimer { .. } => BudgetError::Closed { pool },
        BudgetError::Closed { .. } => BudgetError::Expired { pool },
        BudgetError::Expired { .. } => {
            BudgetError::KeyConflict { pool, key: Name::from("job\u{2028}1") }
        }
        BudgetError::KeyConflict { .. } => BudgetError::KeysFull {
            pool,
            capacity: 2,
            outlook: Outlook::At(Instant::now()),
            retry_after: Some(Duration::from_secs(6)),
        },
        BudgetError::KeysFull { .. } => BudgetError::CarvedWindow { pool },
        BudgetError::CarvedWindow { .. } => BudgetError::Carved { pool },
        BudgetError::Carved { .. } => BudgetError::ForeignPool { pool },
        BudgetError::ForeignPool { .. } => BudgetError::NoParent {},
        BudgetError::NoParent {} => BudgetError::Uncapped { pool, axis: Axis::InputTokens },
        BudgetError::Uncapped { .. } => return None,
    })
}

#[test]
fn p7_a_wait_in_vain_answers_as_the_refusal_that_it_carries() {
    let outlook = Outlook::At(Instant::now());
    let inner = BudgetError::from(exceeded(outlook, Some(Duration::from_secs(6))));
    let refusal = Box::new(inner.clone());
    let outer = BudgetError::Timeout { pool: pool(), waited: Duration::ZERO, refusal };
    let answers = |error: &BudgetError| {
        (error.axis(), error.outlook(), error.retry_after(), error.exceeded().cloned())
    };
    assert_eq!(answers(&outer), answers(&inner));
    assert_eq!(outer.retry_after(), Some(Duration::from_secs(6)));
}

#[test]
fn p7_every_variant_answers_for_its_kind_pool_axis_outlook_and_text() {
    let kinds = [
        (
            "exceeded",
            Some(Axis::Tokens),
            "never",
            "tokens of `run\\n17` exceeded: 11 requested, 10 available, cap 100, will never fit",
        ),
        (
            "deadline_exceeded",
            Some(Axis::Deadline),
            "never",
            "deadline of `run\\n17` exceeded: 1s elapsed, budget 1s",
        ),
        ("paused", None, "at", "`run\\n17` is paused, will fit in 6s"),
        ("queued", None, "after_release", "others wait in `run\\n17`"),
        (
            "timeout",
            None,
            "after_release",
            "waited in vain in `run\\n17` for 20ms: others wait in `run\\n17`",
        ),
        ("queue_full", None, "after_release", "the queue of `run\\n17` is full: 3 may wait"),
        (
            "no_timer",
            None,
            "after_release",
            "a wait in `run\\n17` needs a timer: give the root pool one by `PoolBuilder::timer`, or wait by blocking",
        ),
        ("closed", None, "never", "`run\\n17` is closed"),
        ("expired", None, "never", "the hold on `run\\n17` has expired"),
        (
            "key_conflict",
            None,
            "never",
            "key `job\\u{2028}1` of `run\\n17` stands for another amount",
        ),
        ("keys_full", None, "at", "keys of `run\\n17` full: capacity 2, will fit in 6s"),
        ("carved_window", None, "never", "`run\\n17` is carved: a window would mint budget"),
        (
            "carved",
            None,
            "never",
            "`run\\n17` is carved: its share allows no set used, and no joint pool below",
        ),
        (
            "foreign_pool",
            None,
            "never",
            "`run\\n17` is foreign: a transfer and a joint pool stay in one tree, \
             a merge in its pool",
        ),
        ("no_parent", None, "never", "a joint pool needs a parent"),
        ("uncapped", Some(Axis::InputTokens), "never", "`run\\n17` has no cap on input tokens"),
    ];
    let all = std::iter::successors(Some(exceeded(Outlook::Never, None).into()), next);
    let all: Vec<BudgetError> = all.collect();
    assert_eq!(all.len(), kinds.len());
    for (refusal, (kind, axis, outlook, text)) in all.iter().zip(kinds) {
        assert_eq!((refusal.kind(), refusal.to_string().as_str()), (kind, text));
        let pool = if kind == "no_parent" { "" } else { "run\n17" };
        assert_eq!((refusal.pool(), refusal.axis()), (pool, axis), "{kind}");
        assert_eq!(refusal.outlook().as_str(), outlook, "{kind}");
        let after = (outlook == "at").then_some(Duration::from_secs(6));
        assert_eq!(refusal.retry_after(), after, "{kind}");
    }
    let words: HashSet<&str> = all.iter().map(BudgetError::kind).collect();
    assert_eq!(words.len(), kinds.len(), "no two kinds share a word");
}

#[test]
fn p7_the_worse_outlook_is_the_greater() {
    let now = Instant::now();
    let from_best = [
        (Outlook::At(now), "at", "will fit in time"),
        (Outlook::At(now + Duration::from_nanos(1)), "at", "will fit in time"),
        (Outlook::AfterRelease, "after_release", "may fit after a release"),
        (Outlook::AfterFunding, "after_funding", "may fit after funding"),
        (Outlook::Never, "never", "will never fit"),
    ];
    assert!(from_best.is_sorted_by(|(better, ..), (worse, ..)| better < worse));
    for (outlook, word, phrase) in from_best {
        assert_eq!((outlook.as_str(), outlook.to_string().as_str()), (word, phrase));
        assert_eq!(format!("{outlook:>24}"), format!("{phrase:>24}"), "padded");
        let refusal = exceeded(outlook, None).to_string();
        assert!(refusal.ends_with(&format!(", cap 100, {phrase}")), "{refusal}");
    }
    for (after, told) in
        [(500_000_000, "500ms"), (59_999_871_234, "60s"), (1_501, "1.51µs"), (0, "0ns")]
    {
        let after = Some(Duration::from_nanos(after));
        let refusal = exceeded(Outlook::At(now), after).to_string();
        assert!(refusal.ends_with(&format!(", cap 100, will fit in {told}")), "{refusal}");
    }
}

#[test]
fn p7_a_late_request_is_told_what_it_can_use() {
    let (ms, secs) = (Duration::from_millis, Duration::from_secs);
    let (zero, nano) = (Duration::ZERO, Duration::from_nanos(1));
    for (budget, elapsed, needed, text) in [
        (secs(10), ms(10_166), zero, "10.2s elapsed, budget 10s"),
        (secs(10), secs(10), zero, "10s elapsed, budget 10s"),
        (secs(10), secs(10) + nano, zero, "10.1s elapsed, budget 10s"),
        (secs(10), ms(9_500), secs(2), "2s needed, 500ms remaining, budget 10s"),
        (secs(10), ms(9_500) + nano, secs(2), "2s needed, 499ms remaining, budget 10s"),
        (secs(10), ms(10_200), secs(2), "2s needed, 10.2s elapsed, budget 10s"),
        (secs(10), zero, ms(10_001), "10.001s needed, 10s remaining, budget 10s"),
        (nano, Duration::from_nanos(100_660), zero, "101µs elapsed, budget 1ns"),
        (zero, Duration::from_nanos(100_660), zero, "no time from the start"),
        (zero, zero, secs(2), "2s needed, no time from the start"),
        // As set, to the last digit.
        (ms(9_500) + nano, ms(9_501), zero, "9.51s elapsed, budget 9.500000001s"),
        (
            Duration::MAX,
            Duration::MAX,
            Duration::MAX,
            "18446744073709551615.999999999s needed, 18400000000000000000s elapsed, \
             budget 18446744073709551615.999999999s",
        ),
        (
            Duration::MAX,
            zero,
            Duration::MAX,
            "18446744073709551615.999999999s needed, 18400000000000000000s remaining, \
             budget 18446744073709551615.999999999s",
        ),
    ] {
        let late = DeadlineExceeded { pool: None, budget, elapsed, needed };
        assert_eq!(late.to_string(), format!("deadline exceeded: {text}"));
        assert_eq!(late.remaining(), budget.saturating_sub(elapsed));
        let of_pool = DeadlineExceeded { pool: Some(pool()), ..late };
        assert_eq!(of_pool.to_string(), format!("deadline of `run\\n17` exceeded: {text}"));
    }
}

proptest! {
    #[test]
    fn p7_a_measured_time_has_three_digits_and_errs_on_one_side(secs: u64, nanos in 0..1_000_000_000_u32, shift in 0..64) {
        let time = Duration::new(secs >> shift, nanos);
        let (down, up) = (rounded_down(time), rounded_up(time));
        prop_assert!(down <= time);
        prop_assert!(up >= time || up == down && down.checked_add(grain(time)).is_none());
        prop_assert!(time - down < grain(time));
        prop_assert!(up.saturating_sub(time) < grain(time));
        for rounded in [down, up] {
            let digits = rounded.as_nanos().to_string();
            let digits = digits.trim_end_matches('0');
            prop_assert!(digits.len() <= 3, "{time:?} is {rounded:?}");
        }
    }
}
