//! The builder of a budget of time, and why it refuses to build one.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::time::clock::{Clock, SharedClock};
use crate::time::deadline::budget::DeadlineBudget;
use crate::time::deadline::rules::Rules;

/// Builds a [`DeadlineBudget`]. Without a [`total`](DeadlineBuilder::total) it is unbounded.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct DeadlineBuilder {
    total: Option<Duration>,
    safety_margin: Duration,
    rules: Rules,
}

impl DeadlineBuilder {
    pub(super) fn new() -> DeadlineBuilder {
        DeadlineBuilder { total: None, safety_margin: Duration::ZERO, rules: Rules::DEFAULT }
    }

    /// The time there is, from [`build`](DeadlineBuilder::build) on. A total of zero is a budget
    /// that has expired, whatever the safety margin.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let budget = DeadlineBudget::builder().total(Duration::from_secs(5)).build()?;
    /// assert!(budget.remaining() <= Duration::from_secs(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn total(mut self, total: Duration) -> DeadlineBuilder {
        self.total = Some(total);
        self
    }

    /// Taken off the total, for what has to be done after the last call. None by default; an
    /// unbounded budget has no use for it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let second = Duration::from_secs(1);
    /// let budget = DeadlineBudget::builder().total(10 * second).safety_margin(second).build()?;
    /// assert!(budget.remaining() <= 9 * second);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn safety_margin(mut self, margin: Duration) -> DeadlineBuilder {
        self.safety_margin = margin;
        self
    }

    /// The floor of [`timeout_for`](DeadlineBudget::timeout_for), where the call does not name
    /// another: 100 ms by default.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let floor = Duration::from_secs(1);
    /// let budget = DeadlineBudget::builder().total(floor / 2).min_timeout(floor).build()?;
    /// assert_eq!(budget.timeout_for("search")?, floor);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn min_timeout(mut self, min: Duration) -> DeadlineBuilder {
        self.rules.min_timeout = min;
        self
    }

    /// The most that a call of this name is given. The last one counts if a name comes twice.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let budget = DeadlineBudget::builder().call_cap("search", Duration::from_secs(2)).build()?;
    /// assert_eq!(budget.timeout_for("search")?, Duration::from_secs(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_cap(mut self, name: impl Into<Box<str>>, cap: Duration) -> DeadlineBuilder {
        self.rules.call_caps.push((name.into(), cap));
        self
    }

    /// Adds a [`call_cap`](DeadlineBuilder::call_cap) for each of these, beside those named before.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::DeadlineBudget;
    /// let caps = [("search", Duration::from_secs(2)), ("draft", Duration::from_secs(5))];
    /// let budget = DeadlineBudget::builder().call_caps(caps).build()?;
    /// assert_eq!(budget.timeout_for("draft")?, Duration::from_secs(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn call_caps<N: Into<Box<str>>>(
        mut self,
        caps: impl IntoIterator<Item = (N, Duration)>,
    ) -> DeadlineBuilder {
        self.rules.call_caps.extend(caps.into_iter().map(|(name, cap)| (name.into(), cap)));
        self
    }

    /// The clock to read: [`SystemClock`](crate::SystemClock) by default.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{DeadlineBudget, ManualClock};
    /// let clock = ManualClock::new();
    /// let budget = DeadlineBudget::builder().total(Duration::from_secs(5)).clock(clock.clone()).build()?;
    /// clock.advance(Duration::from_secs(2));
    /// assert_eq!(budget.remaining(), Duration::from_secs(3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn clock(mut self, clock: impl Clock + 'static) -> DeadlineBuilder {
        self.rules.clock = SharedClock::new(clock);
        self
    }

    /// Starts the time.
    ///
    /// # Errors
    /// [`MarginTooLarge`](InvalidDeadline::MarginTooLarge) if the safety margin leaves nothing of a
    /// total that is not zero. The two settings contradict each other: every request would be late
    /// from the start.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::DeadlineBudget;
    ///
    /// let margin = Duration::from_millis(500);
    /// let build = |total| DeadlineBudget::builder().total(total).safety_margin(margin).build();
    /// assert_eq!(build(Duration::from_secs(2))?.total(), Duration::from_millis(1_500));
    /// assert!(build(Duration::ZERO)?.is_expired());
    /// assert!(build(Duration::from_millis(500)).is_err());
    /// # Ok::<(), budget_pool::InvalidDeadline>(())
    /// ```
    pub fn build(self) -> Result<DeadlineBudget, InvalidDeadline> {
        let usable = self.usable()?;
        let started = self.rules.clock.now();
        Ok(DeadlineBudget {
            started,
            deadline: usable.and_then(|usable| started.checked_add(usable)),
            rules: Some(Arc::new(self.rules)),
        })
    }

    fn usable(&self) -> Result<Option<Duration>, InvalidDeadline> {
        match (self.total, self.safety_margin) {
            // Not a setting but a request that comes too late: there is nothing to take off.
            (None | Some(Duration::ZERO), _) => Ok(self.total),
            (Some(total), margin) if margin >= total => {
                Err(InvalidDeadline::MarginTooLarge { margin, total })
            }
            (Some(total), margin) => Ok(Some(total - margin)),
        }
    }
}

impl fmt::Debug for DeadlineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeadlineBuilder")
            .field("total", &self.total)
            .field("safety_margin", &self.safety_margin)
            .field("min_timeout", &self.rules.min_timeout)
            .field("call_caps", &self.rules.call_caps)
            .finish_non_exhaustive()
    }
}

/// Why a budget of time makes no sense. No time at all does: a budget of zero has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDeadline {
    /// The safety margin leaves nothing.
    #[error("a safety margin of {margin:?} leaves nothing of a total of {total:?}")]
    #[non_exhaustive]
    MarginTooLarge {
        /// The safety margin.
        margin: Duration,
        /// The total before the margin.
        total: Duration,
    },
}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::time::deadline::call::Call;
    use crate::time::deadline::samples::{MAX, ZERO, manual, ms, refusal};

    #[test]
    fn a_margin_is_taken_off_the_total() {
        let (clock, builder) = manual();
        let budget = builder.total(ms(1_000)).safety_margin(ms(300)).build().unwrap();
        assert_eq!((budget.total(), budget.remaining()), (ms(700), ms(700)));
        assert_eq!(budget.deadline(), Some(clock.now() + ms(700)));
        clock.advance(ms(700));
        assert_eq!(budget.check(), Err(refusal(700, 700, 0)));
    }

    #[test]
    fn nonsense_is_refused_with_its_reason() {
        let build = |total, margin| {
            DeadlineBudget::builder().total(total).safety_margin(margin).build().err()
        };
        assert_eq!([build(ms(5), ms(4)), build(ZERO, ZERO), build(ZERO, MAX)], [None; 3]);
        for margin in [ms(5), ms(6), MAX] {
            assert_eq!(
                build(ms(5), margin),
                Some(InvalidDeadline::MarginTooLarge { margin, total: ms(5) })
            );
        }
        let error = InvalidDeadline::MarginTooLarge { margin: ms(2_000), total: ms(500) };
        assert_eq!(error.to_string(), "a safety margin of 2s leaves nothing of a total of 500ms");
    }

    #[test]
    fn no_time_at_all_is_an_expired_budget_whichever_way_it_is_made() {
        let (clock, builder) = manual();
        let of = |margin| builder.clone().total(ZERO).safety_margin(margin).build().unwrap();
        let service = builder.clone().call_cap("none", ZERO).build().unwrap();
        let zero_cap = service.timeout_for("none").unwrap();
        for (made, budget) in [
            ("new", DeadlineBudget::new(ZERO)),
            ("at", DeadlineBudget::at(Instant::now())),
            ("build", of(ZERO)),
            ("build with a margin", of(MAX)),
            ("child", service.child(ZERO)),
            ("child of one that has expired", of(ZERO).child(ms(5))),
            ("child of a cap of zero", service.child(zero_cap)),
            ("header", DeadlineBudget::from_grpc_timeout("0n").unwrap()),
            ("header under a parent", service.child_from_grpc_timeout("0H").unwrap()),
        ] {
            assert!(budget.is_expired(), "{made}");
            assert_eq!((budget.total(), budget.remaining()), (ZERO, ZERO), "{made}");
            assert_eq!(budget.to_grpc_timeout().as_deref(), Some("0n"), "{made}");
            assert!(budget.child(MAX).is_expired(), "{made}");
            let late = [
                budget.check().unwrap_err(),
                budget.timeout_for(Call::new().cap(ZERO)).unwrap_err(),
            ];
            for late in late {
                assert_eq!(late.budget(), ZERO, "{made}");
                assert_eq!(late.to_string(), "deadline exceeded: no time from the start", "{made}");
            }
        }
        assert_eq!(of(ZERO).check(), Err(refusal(0, 0, 0)));
        let budget = of(MAX);
        clock.advance(ms(3));
        assert_eq!((budget.elapsed(), budget.overrun()), (ms(3), ms(3)));
    }

    #[test]
    fn debug_says_what_it_is_without_its_clock() {
        let (_, builder) = manual();
        let builder = builder.total(ms(9)).min_timeout(ms(5)).call_cap("a", ms(2));
        let text = "DeadlineBuilder { total: Some(9ms), safety_margin: 0ns, min_timeout: 5ms, call_caps: [(\"a\", 2ms)], .. }";
        assert_eq!(format!("{builder:?}"), text);
        let text = format!("{:?}", builder.build().unwrap());
        assert!(text.starts_with("DeadlineBudget { started: Instant"), "{text}");
        assert!(text.ends_with("min_timeout: 5ms, call_caps: [(\"a\", 2ms)], .. }"), "{text}");
    }
}
