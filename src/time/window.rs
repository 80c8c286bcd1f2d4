//! Periods that start by themselves, as a user sets them.

use std::time::{Duration, Instant};

/// How the caps of a pool come back by themselves: so much per minute, per day. For
/// [`PoolBuilder::window`](crate::PoolBuilder::window).
///
/// It counts every axis but [`InFlight`](crate::Axis::InFlight), whose cap is one of the present. The
/// arithmetic is exact: nothing drifts, however long it runs. A period of zero is one of a
/// nanosecond; one of more than 584 years is one of 584 years. What would come back later than 584
/// years from now never does.
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool, ManualClock, Window};
///
/// let clock = ManualClock::new();
/// let pool = BudgetPool::builder()
///     .tokens(60_000)
///     .window(Window::token_bucket(Duration::from_secs(60)))
///     .clock(clock.clone())
///     .build();
///
/// pool.record(Amount::new().tokens(60_000))?; // a burst of all there is
/// let refused = pool.record(Amount::new().tokens(500)).unwrap_err();
/// assert_eq!(refused.retry_after(), Some(Duration::from_millis(500)));
///
/// clock.advance(Duration::from_millis(500)); // 1 token each millisecond
/// pool.record(Amount::new().tokens(500))?;
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    pub(crate) kind: Kind,
    pub(crate) period: Duration,
    pub(crate) start: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Fixed,
    TokenBucket,
}

impl Window {
    /// A new period begins every so often, as by [`reset`](crate::BudgetPool::reset): `used` and
    /// `overage` start again from zero, and what is still held settles into the period in which
    /// it is settled. At a turn the caps of two periods can be spent within a moment; where
    /// that matters, take a [`token_bucket`](Window::token_bucket) one.
    #[must_use]
    pub const fn fixed(period: Duration) -> Window {
        Window { kind: Kind::Fixed, period, start: None }
    }

    /// What was used comes back continuously, at the rate of each cap per period: a token bucket,
    /// with the cap as its burst. What is owed (`overage`) is paid off first. An axis without a
    /// cap has no rate: it counts on.
    ///
    /// `used` is then what has not come back yet. Whatever is held does not: it comes back from its
    /// settlement on.
    #[must_use]
    pub const fn token_bucket(period: Duration) -> Window {
        Window { kind: Kind::TokenBucket, period, start: None }
    }

    /// An instant at which a period starts, by the pool's clock, before or after the present. If
    /// not set, the first starts when the pool is built. Should this be later than that, the
    /// first period lasts until then. (A token bucket starts to give back then.)
    #[must_use]
    pub const fn aligned_to(self, at: Instant) -> Window {
        Window { start: Some(at), ..self }
    }
}
