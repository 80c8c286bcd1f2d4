//! Refusals (P7): which axis of which pool, requested, available, cap, and whether the call may fit
//! later.

use std::fmt;
use std::time::{Duration, Instant};

use crate::types::axis::{Axis, Label, Quantity};
use crate::types::name::Name;

/// Why a call was refused. Nothing has changed (P7) but the [count](crate::Snapshot::refused) of
/// refusals.
///
/// The order of refusal is: closed, deadline, pause, queue, capacity.
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
    /// The call does not fit under a cap.
    #[error(transparent)]
    Exceeded(#[from] BudgetExceeded),
    /// The call came after the deadline.
    #[error(transparent)]
    DeadlineExceeded(#[from] DeadlineExceeded),
    /// The pool, or one above it, is [paused](crate::BudgetPool::pause). A call that can never fit
    /// is refused with [`Exceeded`](BudgetError::Exceeded) all the same.
    #[error("`{}` is paused, {}", .pool.in_line(), hope(*.outlook, *.retry_after))]
    #[non_exhaustive]
    Paused {
        /// The name of the pool that is paused; of several on the way up, the one whose pause ends
        /// last.
        pool: Name,
        /// The instant at which the pause ends.
        until: Instant,
        /// When the call may fit: the end of the pause, or later where a window or a release has to
        /// make room first; never where the deadline comes before.
        outlook: Outlook,
        /// How long from the refusal until the instant of the outlook.
        retry_after: Option<Duration>,
    },
    /// Others wait, and are served first (P6): ask with
    /// [`reserve_wait`](crate::BudgetPool::reserve_wait) to stand behind them. The units of this
    /// call may be free: a waiter counts on whichever axis it waits, in the pool that is called and
    /// in one above it that caps an axis of each. The outlook is
    /// [`AfterRelease`](Outlook::AfterRelease) also where those who wait do so for the time alone:
    /// how long they stay is theirs to know.
    #[error("others wait in `{}`", .pool.in_line())]
    #[non_exhaustive]
    Queued {
        /// The name of the pool in which they wait.
        pool: Name,
    },
    /// A wait was given up: the time that it [was given](crate::Ask::wait_at_most) is over. Axis,
    /// outlook and time to wait are those of the refusal that it carries.
    #[error("waited in vain in `{}` for {waited:?}: {refusal}", .pool.in_line())]
    #[non_exhaustive]
    Timeout {
        /// The name of the pool that was called.
        pool: Name,
        /// The time that the wait was given.
        waited: Duration,
        /// The refusal that a plain [`reserve`](crate::BudgetPool::reserve) would have got at the
        /// end of that time, or at the poll that came later.
        #[source]
        refusal: Box<BudgetError>,
    },
    /// As many wait as [`most_waiting`](crate::PoolBuilder::most_waiting) allows.
    #[error("the queue of `{}` is full: {most} may wait", .pool.in_line())]
    #[non_exhaustive]
    QueueFull {
        /// The name of the pool that has no place for one more waiter.
        pool: Name,
        /// How many may wait.
        most: u32,
    },
    /// An async wait was given up because time may have to end it, by a window, an expiry or a
    /// deadline, and the pool has no timer: it could sleep for ever. Give the root a
    /// [`timer`](crate::PoolBuilder::timer), or wait on a thread, by
    /// [`reserve_blocking`](crate::BudgetPool::reserve_blocking) or
    /// [`record_blocking`](crate::BudgetPool::record_blocking), which need none.
    #[error("a wait in `{}` needs a timer: give the root pool one by `PoolBuilder::timer`, or wait by blocking", .pool.in_line())]
    #[non_exhaustive]
    NoTimer {
        /// The name of the pool that was called.
        pool: Name,
    },
    /// The pool, or one above it, was closed.
    #[error("`{}` is closed", .pool.in_line())]
    #[non_exhaustive]
    Closed {
        /// The name of the pool on which [`close`](crate::BudgetPool::close) was called.
        pool: Name,
    },
    /// The hold has [expired](crate::Ask::ttl). A spend that happened all the same
    /// can still be told, by [`commit`](crate::Reservation::commit) or
    /// [`debit`](crate::Reservation::debit).
    #[error("the hold on `{}` has expired", .pool.in_line())]
    #[non_exhaustive]
    Expired {
        /// The name of the pool that was reserved on.
        pool: Name,
    },
    /// Another amount was spent under the same key of
    /// [`record_once`](crate::BudgetPool::record_once).
    #[error("key `{}` of `{}` stands for another amount", .key.in_line(), .pool.in_line())]
    #[non_exhaustive]
    KeyConflict {
        /// The name of the pool that was called.
        pool: Name,
        /// The key.
        key: Name,
    },
    /// The pool remembers as many keys as
    /// [`idempotency_keys`](crate::PoolBuilder::idempotency_keys) allows. Evicting a live key could
    /// spend twice.
    #[error("keys of `{}` full: capacity {capacity}, {}",
        .pool.in_line(), hope(*.outlook, *.retry_after))]
    #[non_exhaustive]
    KeysFull {
        /// The name of the pool that was called.
        pool: Name,
        /// The number of keys that the pool remembers at most.
        capacity: usize,
        /// The instant at which the pool will forget the next key, as an [`Outlook`].
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
    /// The call cannot be made on a carved pool. Its `used` cannot be
    /// [set](crate::BudgetPool::set_used): what the pool has used is part of its share, and the pool
    /// above would still count the old figure. Nor can a [joint pool](crate::BudgetPool::joint)
    /// stand below it: the share is kept in the pools above the carved one, and not in those above
    /// the other parents.
    #[error("`{}` is carved: its share allows no set used, and no joint pool below", .pool.in_line())]
    #[non_exhaustive]
    Carved {
        /// The name of the carved pool.
        pool: Name,
    },
    /// The call names a second pool that cannot go with the first. A
    /// [`transfer`](crate::BudgetPool::transfer) goes to a pool of the same tree, as no call changes
    /// two trees in one step; for that reason the parents of a
    /// [joint pool](crate::BudgetPool::joint) are of one tree. A
    /// [`merge`](crate::Reservation::merge) joins two holds of the very same pool, as a hold is
    /// reserved on one way up.
    #[error(
        "`{}` is foreign: a transfer and a joint pool stay in one tree, a merge in its pool",
        .pool.in_line()
    )]
    #[non_exhaustive]
    ForeignPool {
        /// The name of the second pool.
        pool: Name,
    },
    /// A [joint pool](crate::BudgetPool::joint) was to be built below no pool at all.
    #[error("a joint pool needs a parent")]
    #[non_exhaustive]
    NoParent {},
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
    /// The kind of this refusal, in one stable snake_case word: a label for logs and metrics. A
    /// variant keeps its word for ever, and a new variant brings a word of its own.
    ///
    /// | variant | word |
    /// | --- | --- |
    /// | [`Exceeded`](BudgetError::Exceeded) | `exceeded` |
    /// | [`DeadlineExceeded`](BudgetError::DeadlineExceeded) | `deadline_exceeded` |
    /// | [`Paused`](BudgetError::Paused) | `paused` |
    /// | [`Queued`](BudgetError::Queued) | `queued` |
    /// | [`Timeout`](BudgetError::Timeout) | `timeout` |
    /// | [`QueueFull`](BudgetError::QueueFull) | `queue_full` |
    /// | [`NoTimer`](BudgetError::NoTimer) | `no_timer` |
    /// | [`Closed`](BudgetError::Closed) | `closed` |
    /// | [`Expired`](BudgetError::Expired) | `expired` |
    /// | [`KeyConflict`](BudgetError::KeyConflict) | `key_conflict` |
    /// | [`KeysFull`](BudgetError::KeysFull) | `keys_full` |
    /// | [`CarvedWindow`](BudgetError::CarvedWindow) | `carved_window` |
    /// | [`Carved`](BudgetError::Carved) | `carved` |
    /// | [`ForeignPool`](BudgetError::ForeignPool) | `foreign_pool` |
    /// | [`NoParent`](BudgetError::NoParent) | `no_parent` |
    /// | [`Uncapped`](BudgetError::Uncapped) | `uncapped` |
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(10).build();
    /// let refused = pool.record(Amount::new().tokens(11)).unwrap_err();
    /// assert_eq!((refused.kind(), refused.outlook().as_str()), ("exceeded", "never"));
    ///
    /// pool.close();
    /// assert_eq!(pool.record(Amount::new().tokens(1)).unwrap_err().kind(), "closed");
    /// ```
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            BudgetError::Exceeded(_) => "exceeded",
            BudgetError::DeadlineExceeded(_) => "deadline_exceeded",
            BudgetError::Queued { .. } => "queued",
            BudgetError::Timeout { .. } => "timeout",
            BudgetError::Paused { .. } => "paused",
            BudgetError::QueueFull { .. } => "queue_full",
            BudgetError::NoTimer { .. } => "no_timer",
            BudgetError::Closed { .. } => "closed",
            BudgetError::Expired { .. } => "expired",
            BudgetError::KeyConflict { .. } => "key_conflict",
            BudgetError::KeysFull { .. } => "keys_full",
            BudgetError::CarvedWindow { .. } => "carved_window",
            BudgetError::Carved { .. } => "carved",
            BudgetError::ForeignPool { .. } => "foreign_pool",
            BudgetError::NoParent { .. } => "no_parent",
            BudgetError::Uncapped { .. } => "uncapped",
        }
    }

    /// The axis that refused; `None` where none did by itself: a closed pool, a queue, a key.
    #[must_use]
    pub fn axis(&self) -> Option<Axis> {
        match self {
            BudgetError::Exceeded(exceeded) => Some(exceeded.axis()),
            BudgetError::DeadlineExceeded(_) => Some(Axis::Deadline),
            BudgetError::Uncapped { axis, .. } => Some(*axis),
            BudgetError::Timeout { refusal, .. } => refusal.axis(),
            _ => None,
        }
    }

    /// The name of the pool that refused: the one that was called, or one above it. Empty for a
    /// [`DeadlineBudget`](crate::DeadlineBudget) without a pool, and for a joint pool without a
    /// parent.
    #[must_use]
    pub fn pool(&self) -> &str {
        match self {
            BudgetError::Exceeded(exceeded) => exceeded.pool(),
            BudgetError::DeadlineExceeded(late) => late.pool().unwrap_or_default(),
            BudgetError::NoParent {} => "",
            BudgetError::Queued { pool }
            | BudgetError::Timeout { pool, .. }
            | BudgetError::Paused { pool, .. }
            | BudgetError::QueueFull { pool, .. }
            | BudgetError::NoTimer { pool }
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

    /// The figures of a refusal for capacity, also of one that a [`Timeout`](BudgetError::Timeout)
    /// carries.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(10).build();
    /// let refused = pool.record(Amount::new().tokens(11)).unwrap_err();
    /// assert_eq!(refused.exceeded().unwrap().available().units(), 10);
    /// ```
    #[must_use]
    pub fn exceeded(&self) -> Option<&BudgetExceeded> {
        match self {
            BudgetError::Exceeded(exceeded) => Some(exceeded),
            BudgetError::Timeout { refusal, .. } => refusal.exceeded(),
            _ => None,
        }
    }

    /// Whether the same call may fit later. A refusal for lateness, a close or an expiry never
    /// does; nor is another amount for a key worth asking again, though keys are forgotten in time.
    /// A wait that found no place or no timer says [`AfterRelease`](Outlook::AfterRelease): what it
    /// lacks is told to the same call without a wait.
    #[must_use]
    pub fn outlook(&self) -> Outlook {
        match self {
            BudgetError::Exceeded(exceeded) => exceeded.outlook(),
            BudgetError::KeysFull { outlook, .. } | BudgetError::Paused { outlook, .. } => *outlook,
            BudgetError::Timeout { refusal, .. } => refusal.outlook(),
            BudgetError::Queued { .. }
            | BudgetError::QueueFull { .. }
            | BudgetError::NoTimer { .. } => Outlook::AfterRelease,
            BudgetError::DeadlineExceeded(_)
            | BudgetError::Closed { .. }
            | BudgetError::Expired { .. }
            | BudgetError::KeyConflict { .. }
            | BudgetError::CarvedWindow { .. }
            | BudgetError::Carved { .. }
            | BudgetError::ForeignPool { .. }
            | BudgetError::NoParent { .. }
            | BudgetError::Uncapped { .. } => Outlook::Never,
        }
    }

    /// How long from the refusal until the [`outlook`](BudgetError::outlook)'s instant; `None` if
    /// it names none.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            BudgetError::Exceeded(exceeded) => exceeded.retry_after(),
            BudgetError::Timeout { refusal, .. } => refusal.retry_after(),
            BudgetError::KeysFull { retry_after, .. } | BudgetError::Paused { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

/// Whether a refused call may fit later, the caps and the deadline being as they are: a
/// [`reset`](crate::BudgetPool::reset) or a [`raise_caps`](crate::BudgetPool::raise_caps) is not
/// foreseen. The worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Outlook {
    /// It fits from this instant of the pool's clock on, and not before: a [window](crate::Window)
    /// will have brought back enough, a [pause](crate::BudgetPool::pause) will be over, or a
    /// [key](crate::PoolBuilder::idempotency_keys) will have been forgotten. This is exact if nobody else spends, and live holds stay held.
    At(Instant),
    /// The call fits once enough `reserved` units have been given back. For a reservation or a
    /// lease that asks for more, its own held units count as `reserved`, too. A call that is
    /// [`Queued`](BudgetError::Queued) fits once those who wait have gone and left it enough.
    AfterRelease,
    /// It may fit once the caps have been raised: the call requests more than the cap leaves, but
    /// not more than the ceiling up to which the caps may be raised. A pool without a ceiling never
    /// says so.
    AfterFunding,
    /// Neither time nor a release can make it fit: the call asks for more than the cap leaves
    /// beside `used`, under a [window](crate::Window) for more than the cap, or it would fit only
    /// after the deadline.
    Never,
}

impl Outlook {
    /// The outlook in one stable snake_case word, without its instant: `at`, `after_release`,
    /// `after_funding` or `never`. [`Display`](fmt::Display) gives a phrase for people.
    ///
    /// ```
    /// use budget_pool::Outlook;
    ///
    /// assert_eq!(Outlook::AfterRelease.as_str(), "after_release");
    /// assert_eq!(Outlook::AfterRelease.to_string(), "may fit after a release");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Outlook::At(_) => "at",
            Outlook::AfterRelease => "after_release",
            Outlook::AfterFunding => "after_funding",
            Outlook::Never => "never",
        }
    }

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
#[derive(Clone, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{} of `{}` exceeded: {} requested, {} available{}, {}",
    self.axis(), .pool.in_line(), self.requested().number(), self.available().number(), self.and_cap(),
    hope(self.outlook, self.retry_after))]
pub struct BudgetExceeded {
    // An axis and an optional cap in two words less than they take by themselves: so large a
    // refusal weighs on every result that may be one.
    pub(crate) lane: u8,
    pub(crate) is_capped: bool,
    pub(crate) label: Label,
    pub(crate) requested: u64,
    pub(crate) available: u64,
    pub(crate) cap: u64,
    pub(crate) pool: Name,
    pub(crate) outlook: Outlook,
    pub(crate) retry_after: Option<Duration>,
}

impl fmt::Debug for BudgetExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetExceeded")
            .field("axis", &self.axis())
            .field("requested", &self.requested)
            .field("available", &self.available)
            .field("cap", &self.is_capped.then_some(self.cap))
            .field("pool", &self.pool)
            .field("outlook", &self.outlook)
            .field("retry_after", &self.retry_after)
            .finish()
    }
}

impl BudgetExceeded {
    /// The same, with what stands in for the cap.
    pub(crate) fn with_cap(self, cap: u64) -> BudgetExceeded {
        BudgetExceeded { is_capped: true, cap, ..self }
    }

    /// The axis that refused.
    #[must_use]
    pub fn axis(&self) -> Axis {
        Axis::at(usize::from(self.lane), self.label)
    }

    /// The quantity that the call requested of that axis.
    #[must_use]
    pub fn requested(&self) -> Quantity {
        Quantity::new(self.axis(), self.requested)
    }

    /// The quantity that was available in the pool that refused, with two exceptions. Where a call
    /// names more of a reservation than the reservation holds, it is the held units. Where
    /// [`raise_caps`](crate::BudgetPool::raise_caps) would raise a cap beyond `u64::MAX`, it is how
    /// far the cap can rise.
    ///
    /// A waiter to which a call on another pool leaves no hope is told what there was when its own
    /// pool was last looked at. A window there may have brought back more since.
    #[must_use]
    pub fn available(&self) -> Quantity {
        Quantity::new(self.axis(), self.available)
    }

    /// The cap of the pool that refused, with two exceptions. Where a call names more of a
    /// reservation than the reservation holds, it is the held units. Where
    /// [`raise_caps`](crate::BudgetPool::raise_caps) would raise a cap beyond `u64::MAX`, it is
    /// that number, the most that a cap can be.
    ///
    /// `None` on an axis without a cap. Such an axis refuses only what no longer fits into a `u64`
    /// beside what it has counted.
    #[must_use]
    pub fn cap(&self) -> Option<Quantity> {
        self.is_capped.then(|| Quantity::new(self.axis(), self.cap))
    }

    /// The sum that `used + reserved` of the pool would have been after the call: the cap, less
    /// [`available`](BudgetExceeded::available), plus [`requested`](BudgetExceeded::requested), and
    /// at most `u64::MAX`. It exceeds the cap, unless the cap is `u64::MAX` itself. An axis without
    /// a cap counts as one with a cap of `u64::MAX`. While a cap [falls](crate::BudgetPool::set_caps),
    /// what is taken beyond it does not count.
    ///
    /// Of a call that names more of a reservation than it holds, this is
    /// [`requested`](BudgetExceeded::requested). Of [`lower_caps`](crate::BudgetPool::lower_caps),
    /// it counts the units that the cap was to lose as if they were reserved.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetError, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(1_000).build();
    /// pool.record(Amount::new().tokens(900))?;
    /// let refused = pool.record(Amount::new().tokens(150)).unwrap_err();
    /// let BudgetError::Exceeded(exceeded) = refused else { unreachable!() };
    /// assert_eq!(exceeded.attempted().units(), 1_050);
    /// # Ok::<(), BudgetError>(())
    /// ```
    #[must_use]
    pub fn attempted(&self) -> Quantity {
        let taken = self.cap.saturating_sub(self.available);
        Quantity::new(self.axis(), taken.saturating_add(self.requested))
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
    // Up: a caller that waits as long as the text says does not come too early.
    let in_time = |after| format!("will fit in {:?}", rounded_up(after));
    retry_after.map_or_else(|| outlook.to_string(), in_time)
}

/// Three significant digits of a measured time, rounded up, so that no text says of a late call
/// that it was in time. A time that cannot be rounded up is rounded down: the longest times.
fn rounded_up(time: Duration) -> Duration {
    let down = rounded_down(time);
    if down == time { time } else { down.checked_add(grain(time)).unwrap_or(down) }
}

/// Three significant digits of a measured time, rounded down, so that no text promises time that
/// is not there.
fn rounded_down(time: Duration) -> Duration {
    let grain = grain(time).as_nanos();
    from_nanos(time.as_nanos() / grain * grain)
}

/// A unit in the third significant digit.
fn grain(time: Duration) -> Duration {
    let digits = time.as_nanos().checked_ilog10().unwrap_or(0);
    from_nanos(10_u128.pow(digits.saturating_sub(2)))
}

fn from_nanos(nanos: u128) -> Duration {
    const SECOND: u128 = 1_000_000_000;
    let seconds = u64::try_from(nanos / SECOND).expect("no longer than the time it came from");
    let rest = u32::try_from(nanos % SECOND).expect("less than a second");
    Duration::new(seconds, rest)
}

/// A refusal for lack of time: the deadline has passed, or the work needs more time than there is
/// until then.
///
/// Its text gives [`budget`](DeadlineExceeded::budget) and [`needed`](DeadlineExceeded::needed) as
/// they were set, and three digits of [`elapsed`](DeadlineExceeded::elapsed) and
/// [`remaining`](DeadlineExceeded::remaining), which were measured. The methods are exact.
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{DeadlineBudget, ManualClock};
///
/// let clock = ManualClock::new();
/// let budget = DeadlineBudget::builder().total(Duration::from_secs(10)).clock(clock.clone()).build()?;
///
/// clock.advance(Duration::from_micros(9_500_250));
/// let late = budget.fits(Duration::from_secs(2)).unwrap_err();
/// assert_eq!(late.to_string(), "deadline exceeded: 2s needed, 499ms remaining, budget 10s");
/// assert_eq!(late.remaining(), Duration::from_micros(499_750));
///
/// clock.advance(Duration::from_micros(666_666));
/// let late = budget.check().unwrap_err();
/// assert_eq!(late.to_string(), "deadline exceeded: 10.2s elapsed, budget 10s");
/// # Ok::<(), budget_pool::InvalidDeadline>(())
/// ```
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

    /// The time since the start. Of a pool whose deadline had passed at its start, the time since the
    /// deadline.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The time that was left of the budget: the [`budget`](DeadlineExceeded::budget) less the
    /// [`elapsed`](DeadlineExceeded::elapsed) time; zero once the deadline has passed.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.budget.saturating_sub(self.elapsed)
    }

    /// The time that the work needs; zero where the question was only whether the deadline has
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
        f.write_str(" exceeded: ")?;
        if self.needed > Duration::ZERO {
            write!(f, "{:?} needed, ", self.needed)?;
        }
        if self.budget.is_zero() {
            // How long ago that was helps nobody.
            return f.write_str("no time from the start");
        }
        match self.remaining() {
            Duration::ZERO => write!(f, "{:?} elapsed", rounded_up(self.elapsed))?,
            remaining => write!(f, "{:?} remaining", rounded_down(remaining))?,
        }
        write!(f, ", budget {:?}", self.budget)
    }
}

impl std::error::Error for DeadlineExceeded {}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
#[path = "../tests/units/error.rs"]
mod tests;
