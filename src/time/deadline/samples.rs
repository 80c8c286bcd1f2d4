//! Budgets of time for the tests of this folder.

use std::time::Duration;

use proptest::option;
use proptest::prelude::*;

use crate::time::clock::ManualClock;
use crate::time::deadline::budget::DeadlineBudget;
use crate::time::deadline::builder::DeadlineBuilder;
use crate::types::error::DeadlineExceeded;

pub(super) const ZERO: Duration = Duration::ZERO;
pub(super) const MAX: Duration = Duration::MAX;

pub(super) fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub(super) fn manual() -> (ManualClock, DeadlineBuilder) {
    let clock = ManualClock::new();
    (clock.clone(), DeadlineBudget::builder().clock(clock))
}

pub(super) fn one_second() -> (ManualClock, DeadlineBudget) {
    let (clock, builder) = manual();
    (clock, builder.total(ms(1_000)).build().unwrap())
}

pub(super) fn refusal(budget: u64, elapsed: u64, needed: u64) -> DeadlineExceeded {
    DeadlineExceeded { pool: None, budget: ms(budget), elapsed: ms(elapsed), needed: ms(needed) }
}

/// Any duration, and more often than by chance one that matters: nothing, a few units, the
/// longest.
pub(super) fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(ZERO),
        Just(MAX),
        (0..5_u64).prop_map(Duration::from_nanos),
        (0..5_000_u64).prop_map(ms),
        any::<u64>().prop_map(Duration::from_nanos),
        (any::<u64>(), 0..1_000_000_000_u32).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
    ]
}

prop_compose! {
    /// Any budget at any moment, with a cap for the call `named`.
    pub(super) fn budget()(
        total in option::of(duration()),
        margin in duration(),
        min in duration(),
        cap in duration(),
        advance in duration(),
    ) -> (DeadlineBudget, Duration) {
        let (clock, builder) = manual();
        let builder = builder.min_timeout(min).call_cap("named", cap);
        let nano = Duration::from_nanos(1);
        let (builder, fitting) = match total {
            Some(total) => (builder.total(total), margin.min(total.saturating_sub(nano))),
            None => (builder, margin),
        };
        let budget = builder.safety_margin(fitting).build().unwrap();
        clock.advance(advance);
        (budget, cap)
    }
}
