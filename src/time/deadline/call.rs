//! A call of a request, and the timeout that it is given.

use std::time::Duration;

use crate::time::deadline::rules::Rules;

/// A call that needs a timeout: see
/// [`DeadlineBudget::timeout_for`](crate::DeadlineBudget::timeout_for). A `&str` is a named call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[must_use = "a call does nothing until a budget is asked for its timeout"]
pub struct Call<'a> {
    name: Option<&'a str>,
    cap: Option<Duration>,
    min: Option<Duration>,
    reserve_for_next: Duration,
    strict: bool,
}

impl<'a> Call<'a> {
    /// A call without a name: no named cap applies.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Call, DeadlineBudget};
    /// let budget = DeadlineBudget::unbounded();
    /// assert_eq!(budget.timeout_for(Call::new().cap(Duration::from_secs(2)))?, Duration::from_secs(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn new() -> Call<'a> {
        Call { name: None, cap: None, min: None, reserve_for_next: Duration::ZERO, strict: false }
    }

    /// A call under the cap that the budget has for this name, if it has one.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Call, DeadlineBudget};
    /// let budget = DeadlineBudget::builder().call_cap("search", Duration::from_secs(2)).build()?;
    /// assert_eq!(budget.timeout_for(Call::named("search"))?, budget.timeout_for("search")?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn named(name: &'a str) -> Call<'a> {
        Call { name: Some(name), ..Call::new() }
    }

    /// At most this; with a named cap, at most the lesser of the two.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Call, DeadlineBudget};
    /// let budget = DeadlineBudget::builder().call_cap("search", Duration::from_secs(2)).build()?;
    /// let call = Call::named("search").cap(Duration::from_secs(1));
    /// assert_eq!(budget.timeout_for(call)?, Duration::from_secs(1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn cap(mut self, cap: Duration) -> Call<'a> {
        self.cap = Some(cap);
        self
    }

    /// At least this, instead of the budget's own floor. A `cap` wins over it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Call, DeadlineBudget};
    /// let budget = DeadlineBudget::new(Duration::from_secs(1));
    /// let call = Call::new().min(Duration::from_secs(3));
    /// assert_eq!(budget.timeout_for(call)?, Duration::from_secs(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn min(mut self, min: Duration) -> Call<'a> {
        self.min = Some(min);
        self
    }

    /// Leaves this much to the steps after this call, as far as the floor allows.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Call, DeadlineBudget};
    /// let budget = DeadlineBudget::new(Duration::from_secs(10));
    /// let call = Call::new().reserve_for_next(Duration::from_secs(4));
    /// assert!(budget.timeout_for(call)? <= Duration::from_secs(6));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn reserve_for_next(mut self, reserve: Duration) -> Call<'a> {
        self.reserve_for_next = reserve;
        self
    }

    /// A strict call is refused rather than given a timeout that exceeds
    /// [`remaining`](crate::DeadlineBudget::remaining).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Call, DeadlineBudget};
    /// let budget = DeadlineBudget::new(Duration::from_secs(1));
    /// let call = Call::new().min(Duration::from_secs(3)).strict();
    /// assert!(budget.timeout_for(call).is_err());
    /// ```
    pub const fn strict(mut self) -> Call<'a> {
        self.strict = true;
        self
    }

    pub(super) fn is_strict(&self) -> bool {
        self.strict
    }

    /// The rule of the timeout: the floor wins over `remaining`, the cap wins over the floor.
    #[inline]
    pub(super) fn timeout(&self, remaining: Duration, rules: &Rules) -> Duration {
        let floor = self.min.unwrap_or(rules.min_timeout);
        let named = self.name.and_then(|name| rules.call_cap(name)).unwrap_or(Duration::MAX);
        let cap = self.cap.unwrap_or(Duration::MAX).min(named);
        self.unreserved(remaining).max(floor).min(cap)
    }

    #[inline]
    fn unreserved(&self, remaining: Duration) -> Duration {
        match remaining {
            // Without end, less something, is without end.
            Duration::MAX => Duration::MAX,
            remaining => remaining.saturating_sub(self.reserve_for_next),
        }
    }
}

impl<'a> From<&'a str> for Call<'a> {
    fn from(name: &'a str) -> Call<'a> {
        Call::named(name)
    }
}

impl<'a> From<&'a String> for Call<'a> {
    fn from(name: &'a String) -> Call<'a> {
        Call::named(name)
    }
}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::time::deadline::budget::DeadlineBudget;
    use crate::time::deadline::samples::{
        MAX, ZERO, budget, duration, manual, ms, one_second, refusal,
    };

    #[test]
    fn the_floor_wins_over_what_remains_and_the_cap_over_the_floor() {
        let (clock, builder) = manual();
        let budget =
            builder.total(ms(1_000)).call_caps([("a", ms(300)), ("b", ms(50))]).build().unwrap();
        let next = Call::new().reserve_for_next(ms(400));
        let owned = String::from("b");
        for (call, timeout) in [
            ("unknown".into(), 1_000),
            ("a".into(), 300),
            (Call::from(&owned), 50),
            (Call::named("a").cap(ms(200)), 200),
            (Call::named("a").cap(ms(400)), 300),
            (Call::new().cap(ms(700)), 700),
            (next, 600),
            (next.cap(ms(500)), 500),
            (next.min(ms(800)), 800),
            (next.min(ms(800)).cap(ms(750)), 750),
            (Call::new().min(ms(2_000)), 2_000),
            (Call::new().reserve_for_next(ms(950)), 100),
            (Call::new().reserve_for_next(ms(950)).min(ZERO), 50),
            (Call::new().reserve_for_next(ms(1_050)).min(ZERO), 0),
            (Call::new().cap(ZERO), 0),
        ] {
            assert_eq!(budget.timeout_for(call), Ok(ms(timeout)), "{call:?}");
        }
        clock.advance(ms(980));
        assert_eq!(budget.timeout_for("unknown"), Ok(ms(100)));
        assert_eq!(budget.timeout_for("b"), Ok(ms(50)));
        clock.advance(ms(20));
        assert_eq!(budget.timeout_for("b"), Err(refusal(1_000, 1_000, 0)));
    }

    #[test]
    fn a_strict_call_is_refused_only_if_it_would_exceed_what_remains() {
        let (clock, budget) = one_second();
        let strict = Call::new().strict();
        assert_eq!(budget.timeout_for(strict), Ok(ms(1_000)));
        assert_eq!(budget.timeout_for(strict.min(ms(1_000))), Ok(ms(1_000)));
        assert_eq!(budget.timeout_for(strict.min(ms(1_001))), Err(refusal(1_000, 0, 1_001)));
        assert_eq!(budget.timeout_for(strict.min(ms(1_001)).cap(ms(1_000))), Ok(ms(1_000)));
        clock.advance(ms(901));
        assert_eq!(budget.timeout_for(strict), Err(refusal(1_000, 901, 100)));
        assert_eq!(budget.timeout_for(strict.cap(ms(99))), Ok(ms(99)));
        clock.advance(ms(99));
        assert_eq!(budget.timeout_for(strict.cap(ms(99))), Err(refusal(1_000, 1_000, 0)));
    }

    #[test]
    fn the_last_cap_of_a_name_counts() {
        let budget = DeadlineBudget::builder()
            .call_cap("a", ms(1))
            .call_caps([("a".to_owned(), ms(2)), ("b".to_owned(), ms(3))])
            .call_cap("b", ms(4))
            .build()
            .unwrap();
        assert_eq!((budget.timeout_for("a"), budget.timeout_for("b")), (Ok(ms(2)), Ok(ms(4))));
        assert_eq!(budget.timeout_for("A"), Ok(MAX));
    }

    prop_compose! {
        fn call()(
            named: bool,
            cap in option::of(duration()),
            min in option::of(duration()),
            reserve in duration(),
            strict: bool,
        ) -> Call<'static> {
            let name = named.then_some("named");
            Call { name, cap, min, reserve_for_next: reserve, strict }
        }
    }

    proptest! {
        #[test]
        fn a_timeout_never_exceeds_its_caps_nor_if_strict_what_remains((budget, named_cap) in budget(), call in call()) {
            let Ok(timeout) = budget.timeout_for(call) else {
                prop_assert!(budget.is_expired() || call.strict);
                return Ok(());
            };
            prop_assert!(!budget.is_expired());
            prop_assert!(call.cap.is_none_or(|cap| timeout <= cap));
            prop_assert!(call.name.is_none() || timeout <= named_cap);
            prop_assert!(!call.strict || timeout <= budget.remaining());
        }

        #[test]
        fn a_strict_timeout_is_the_lenient_one_or_none((budget, _) in budget(), call in call()) {
            let lenient = budget.timeout_for(Call { strict: false, ..call });
            match budget.timeout_for(call.strict()) {
                Ok(timeout) => prop_assert_eq!(lenient, Ok(timeout)),
                Err(late) => prop_assert!(lenient.is_err() || late.needed() > budget.remaining()),
            }
        }
    }
}
