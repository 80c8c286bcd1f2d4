//! Refusals (P7): which axis of which pool, requested, available, cap, and whether the call may fit
//! later.

use std::fmt;
use std::time::{Duration, Instant};

use crate::types::axis::{Axis, Quantity};
use crate::types::name::Name;

/// Why a call was refused. Nothing has changed (P7) but the [count](crate::Snapshot::refused) of
/// refusals.
///
/// The order of refusal is: closed, deadline, queue, capacity.
///
/// The text of a refusal uses the words of its methods and fields. It is one line, whatever the
/// names in it: the text escapes a character that would break the line or command a terminal.
///
/// ```
/// use budget_pool::{Amount, Axis, BudgetError, BudgetPool, Outlook};
///
/// let pool = BudgetPool::builder().name("run-17").tokens(1_000).build();
/// let error = pool.record(Amount::new().tokens(1_200)).unwrap_err();
///
/// assert_eq!(error.to_string(), "tokens of `run-17` exceeded: 1200 requested, 1000 available, cap 1000, will never fit");
/// assert_eq!(error.axis(), Some(Axis::Tokens));
/// assert_eq!(error.pool(), "run-17");
/// assert_eq!(error.outlook(), Outlook::Never);
/// let BudgetError::Exceeded(exceeded) = error else { unreachable!() };
/// assert_eq!(exceeded.requested().units(), 1_200);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// It does not fit under a cap.
    #[error(transparent)]
    Exceeded(#[from] BudgetExceeded),
    /// It came after the deadline.
    #[error(transparent)]
    DeadlineExceeded(#[from] DeadlineExceeded),
    /// Others wait, and are served first (P6): ask with
    /// [`reserve_wait`](crate::BudgetPool::reserve_wait) to stand behind them.
    #[error("others wait in `{}`", .pool.in_line())]
    #[non_exhaustive]
    Queued {
        /// The name of the pool in which they wait.
        pool: Name,
    },
    /// A wait was given up: the time that it was given is over.
    #[error("waited in vain in `{}` for {waited:?}", .pool.in_line())]
    #[non_exhaustive]
    Timeout {
        /// The name of the pool that was called.
        pool: Name,
        /// The time that the wait was given.
        waited: Duration,
    },
    /// The pool, or one above it, was closed.
    #[error("`{}` is closed", .pool.in_line())]
    #[non_exhaustive]
    Closed {
        /// The name of the pool on which [`close`](crate::BudgetPool::close) was called.
        pool: Name,
    },
    /// The hold has [expired](crate::BudgetPool::reserve_for). A spend that happened all the same
    /// can still be told, by [`commit`](crate::Reservation::commit) or
    /// [`debit`](crate::Reservation::debit).
    #[error("the hold on `{}` has expired", .pool.in_line())]
    #[non_exhaustive]
    Expired {
        /// The name of the pool that was reserved on.
        pool: Name,
    },
    /// Another amount was spent under the same [key](crate::BudgetPool::record_once).
    #[error("key `{}` of `{}` stands for another amount", .key.in_line(), .pool.in_line())]
    #[non_exhaustive]
    KeyConflict {
        /// The name of the pool that was called.
        pool: Name,
        /// The key.
        key: Name,
    },
    /// The pool remembers as many [keys](crate::PoolBuilder::idempotency_keys) as its capacity.
    /// Evicting a live key could spend twice.
    #[error("keys of `{}` full: capacity {capacity}, {}",
        .pool.in_line(), hope(*.outlook, *.retry_after))]
    #[non_exhaustive]
    KeysFull {
        /// The name of the pool that was called.
        pool: Name,
        /// How many keys the pool remembers at most.
        capacity: usize,
        /// When the pool will forget the next key.
        outlook: Outlook,
        /// How long from the refusal until that instant.
        retry_after: Option<Duration>,
    },
    /// A carved pool cannot have a [window](crate::PoolBuilder::window): each turn would make budget
    /// out of nothing.
    #[error("`{}` is carved: a window would mint budget", .pool.in_line())]
    #[non_exhaustive]
    CarvedWindow {
        /// The name of the pool that was to be built.
        pool: Name,
    },
    /// The `used` of a carved pool cannot be set: what the pool has used is part of its share, and
    /// the pool above would still count the old figure.
    #[error("`{}` is carved: to set its used would falsify its share above", .pool.in_line())]
    #[non_exhaustive]
    Carved {
        /// The name of the carved pool.
        pool: Name,
    },
    /// The call names a second pool, and that pool belongs to another tree. No call changes two
    /// trees in one step.
    #[error("`{}` is not a pool of this tree", .pool.in_line())]
    #[non_exhaustive]
    ForeignPool {
        /// The name of the pool of the other tree.
        pool: Name,
    },
    /// The call moves the cap of an axis, and the pool has no cap on that axis.
    #[error("`{}` has no cap on {axis}", .pool.in_line())]
    #[non_exhaustive]
    Uncapped {
        /// The name of the pool without the cap.
        pool: Name,
        /// The axis without a cap.
        axis: Axis,
    },
}

impl BudgetError {
    /// The axis that refused; `None` where none did by itself: a closed pool, a queue, a key.
    #[must_use]
    pub fn axis(&self) -> Option<Axis> {
        match self {
            BudgetError::Exceeded(exceeded) => Some(exceeded.axis()),
            BudgetError::DeadlineExceeded(_) => Some(Axis::Deadline),
            BudgetError::Uncapped { axis, .. } => Some(*axis),
            _ => None,
        }
    }

    /// The name of the pool that refused: the one that was called, or one above it. Empty for a
    /// [`DeadlineBudget`](crate::DeadlineBudget) without a pool.
    #[must_use]
    pub fn pool(&self) -> &str {
        match self {
            BudgetError::Exceeded(exceeded) => exceeded.pool(),
            BudgetError::DeadlineExceeded(late) => late.pool().unwrap_or_default(),
            BudgetError::Queued { pool }
            | BudgetError::Timeout { pool, .. }
            | BudgetError::Closed { pool }
            | BudgetError::Expired { pool }
            | BudgetError::KeyConflict { pool, .. }
            | BudgetError::KeysFull { pool, .. }
            | BudgetError::CarvedWindow { pool }
            | BudgetError::Carved { pool }
            | BudgetError::ForeignPool { pool }
            | BudgetError::Uncapped { pool, .. } => pool,
        }
    }

    /// Whether the same call may fit later. What is late, closed or expired never does; nor is
    /// another amount for a key worth asking again, though keys are forgotten in time.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        match self {
            BudgetError::Exceeded(exceeded) => exceeded.outlook(),
            BudgetError::KeysFull { outlook, .. } => *outlook,
            BudgetError::Queued { .. } | BudgetError::Timeout { .. } => Outlook::AfterRelease,
            BudgetError::DeadlineExceeded(_)
            | BudgetError::Closed { .. }
            | BudgetError::Expired { .. }
            | BudgetError::KeyConflict { .. }
            | BudgetError::CarvedWindow { .. }
            | BudgetError::Carved { .. }
            | BudgetError::ForeignPool { .. }
            | BudgetError::Uncapped { .. } => Outlook::Never,
        }
    }

    /// How long from the refusal until the [`outlook`](BudgetError::outlook)'s instant; `None` if
    /// it names none.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            BudgetError::Exceeded(exceeded) => exceeded.retry_after(),
            BudgetError::KeysFull { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Whether a refused call may fit later, the caps and the deadline being what they are: a
/// [`reset`](crate::BudgetPool::reset) or an [`raise_caps`](crate::BudgetPool::raise_caps) is not foreseen. The
/// worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outlook {
    /// It fits from this instant of the pool's clock on, and not before: a [window](crate::Window)
    /// will have brought back enough, or a [key](crate::PoolBuilder::idempotency_keys) will have been
    /// forgotten. This is exact if nobody else spends, and live holds stay held.
    At(Instant),
    /// It fits once enough of what is reserved now has been given back. To a reservation or a lease
    /// that asks for more, what it holds itself counts as reserved, too.
    AfterRelease,
    /// It may fit once the caps have been raised: the call requests more than the cap leaves, but
    /// not more than the ceiling up to which the caps may be raised. A pool without a ceiling never
    /// says so.
    AfterFunding,
    /// Neither time nor a release can make it fit: more is asked than the cap leaves beside what is
    /// used (under a [window](crate::Window), more than the cap), or it would fit only after
    /// the deadline.
    Never,
}

impl Outlook {
    /// How long after `now` it names.
    pub(crate) fn after(self, now: Option<Instant>) -> Option<Duration> {
        match self {
            Outlook::At(at) => Some(at.saturating_duration_since(now?)),
            _ => None,
        }
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Outlook::At(_) => "will fit in time",
            Outlook::AfterRelease => "may fit after a release",
            Outlook::AfterFunding => "may fit after funding",
            Outlook::Never => "will never fit",
        })
    }
}

/// A refusal for lack of capacity.
///
/// Axis and pool are those of the first refusal, from the called pool upward, axes in declared
/// order. The outlook is the worst over all that refuse. The figures are exact, of one instant
/// (P5).
#[derive(Debug, Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{axis} of `{}` exceeded: {} requested, {} available{}, {}",
    .pool.in_line(), self.requested().number(), self.available().number(), self.and_cap(),
    hope(self.outlook, self.retry_after))]
pub struct BudgetExceeded {
    pub(crate) axis: Axis,
    pub(crate) requested: u64,
    pub(crate) available: u64,
    pub(crate) cap: Option<u64>,
    pub(crate) pool: Name,
    pub(crate) outlook: Outlook,
    pub(crate) retry_after: Option<Duration>,
}

impl BudgetExceeded {
    /// The axis that refused.
    #[must_use]
    pub fn axis(&self) -> Axis {
        self.axis
    }

    /// What the call requested of that axis.
    #[must_use]
    pub fn requested(&self) -> Quantity {
        Quantity::new(self.axis, self.requested)
    }

    /// What was available in the pool that refused: of a call that names a reservation's part, what
    /// is held; of [`raise_caps`](crate::BudgetPool::raise_caps) to a cap near `u64::MAX`, how far the cap
    /// can rise.
    #[must_use]
    pub fn available(&self) -> Quantity {
        Quantity::new(self.axis, self.available)
    }

    /// The cap of the pool that refused (or what is held, where a reservation's part is more than
    /// that). `None` on an axis without one, which refuses only what no longer fits into a
    /// `u64` beside what it has counted.
    #[must_use]
    pub fn cap(&self) -> Option<Quantity> {
        self.cap.map(|cap| Quantity::new(self.axis, cap))
    }

    /// The name of the pool that refused.
    #[must_use]
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// Whether the same call may fit later.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        self.outlook
    }

    /// How long from the refusal until the [`outlook`](BudgetExceeded::outlook)'s instant, by the
    /// pool's clock: at that instant it fits, and a nanosecond before it does not, if nobody
    /// else spends and live holds stay held. `None` if no time is enough by itself.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    fn and_cap(&self) -> String {
        self.cap().map(|cap| format!(", cap {}", cap.number())).unwrap_or_default()
    }
}

fn hope(outlook: Outlook, retry_after: Option<Duration>) -> String {
    retry_after.map_or_else(|| outlook.to_string(), |after| format!("will fit in {after:?}"))
}

/// A refusal for lack of time: the deadline has passed, or what was asked for cannot be done before
/// it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeadlineExceeded {
    pub(crate) pool: Option<Name>,
    pub(crate) budget: Duration,
    pub(crate) elapsed: Duration,
    pub(crate) needed: Duration,
}

impl DeadlineExceeded {
    /// The name of the pool whose deadline this is; `None` for a budget of time without a pool.
    #[must_use]
    pub fn pool(&self) -> Option<&str> {
        self.pool.as_deref()
    }

    /// The whole time there was, from the start to the deadline.
    #[must_use]
    pub fn budget(&self) -> Duration {
        self.budget
    }

    /// The time since the start.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The time that was asked for; zero where the question was only whether the deadline has
    /// passed.
    #[must_use]
    pub fn needed(&self) -> Duration {
        self.needed
    }
}

impl fmt::Display for DeadlineExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("deadline")?;
        if let Some(pool) = &self.pool {
            write!(f, " of `{}`", pool.in_line())?;
        }
        write!(f, " exceeded: ")?;
        if self.needed > Duration::ZERO {
            write!(f, "{:?} needed after ", self.needed)?;
        }
        write!(f, "{:?} of {:?}", self.elapsed, self.budget)
    }
}

impl std::error::Error for DeadlineExceeded {}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use super::*;

    fn pool() -> Name {
        Name::from("run\n17")
    }

    #[test]
    fn p7_a_call_that_the_pools_cannot_be_meant_by_never_fits() {
        let refusals = [
            (
                BudgetError::CarvedWindow { pool: pool() },
                None,
                "`run\\n17` is carved: a window would mint budget",
            ),
            (
                BudgetError::Carved { pool: pool() },
                None,
                "`run\\n17` is carved: to set its used would falsify its share above",
            ),
            (
                BudgetError::ForeignPool { pool: pool() },
                None,
                "`run\\n17` is not a pool of this tree",
            ),
            (
                BudgetError::Uncapped { pool: pool(), axis: Axis::InputTokens },
                Some(Axis::InputTokens),
                "`run\\n17` has no cap on input tokens",
            ),
        ];
        for (refusal, axis, text) in refusals {
            assert_eq!(refusal.to_string(), text);
            assert_eq!((refusal.pool(), refusal.axis()), ("run\n17", axis), "{text}");
            assert_eq!(
                (refusal.outlook(), refusal.retry_after()),
                (Outlook::Never, None),
                "{text}"
            );
        }
    }

    #[test]
    fn p7_the_worse_outlook_is_the_greater() {
        let now = Instant::now();
        let from_best = [
            (Outlook::At(now), "will fit in time"),
            (Outlook::At(now + Duration::from_nanos(1)), "will fit in time"),
            (Outlook::AfterRelease, "may fit after a release"),
            (Outlook::AfterFunding, "may fit after funding"),
            (Outlook::Never, "will never fit"),
        ];
        assert!(from_best.is_sorted_by(|(better, _), (worse, _)| better < worse));
        for (outlook, text) in from_best {
            assert_eq!(outlook.to_string(), text);
            assert_eq!(format!("{outlook:>24}"), format!("{text:>24}"), "padded");
        }
    }
}
