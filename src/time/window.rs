//! Periods that start by themselves, as a user sets them.

use std::sync::Arc;
use std::time::{Duration, Instant};

/// The way in which the caps of a pool come back by themselves: per minute, per day, per month. For
/// [`PoolBuilder::window`](crate::PoolBuilder::window).
///
/// | window | what was used comes back | admitted in any one period, at most | for |
/// | --- | --- | --- | --- |
/// | [`fixed`](Window::fixed) | all at once, every period | 2N, around a turn | a plan of so much per day |
/// | [`calendar`](Window::calendar) | all at once, at given instants | 2N, around a turn | months, local midnights |
/// | [`token_bucket`](Window::token_bucket) | continuously, N per period | 2N - 1, after a pause | a rate with bursts |
/// | [`rolling`](Window::rolling) | one period after it was spent, by slots of a 60th | N | a limit that a provider enforces |
///
/// N is the cap. Four greedy callers, one under each window:
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool, Clock, ManualClock, Window};
///
/// /// The most that 100 per minute admits in any 60 seconds.
/// fn most_in_a_minute(window: impl Fn(&ManualClock) -> Window) -> usize {
///     let clock = ManualClock::new();
///     let pool = BudgetPool::builder().requests(100).window(window(&clock)).clock(clock.clone());
///     let pool = pool.build();
///     let one = Amount::new().requests(1);
///     let mut spends = Vec::new();
///     // It waits for the last tenth of a second of the first minute, and then is greedy.
///     for tenth in 599..3_000 {
///         clock.advance(Duration::from_millis(if tenth == 599 { 59_900 } else { 100 }));
///         while pool.record(one).is_ok() {
///             spends.push(tenth);
///         }
///     }
///     let in_the_minute_before = |end| spends.iter().filter(|&at| (end - 599..=end).contains(at)).count();
///     (599..3_000).map(in_the_minute_before).max().unwrap()
/// }
///
/// let minute = Duration::from_secs(60);
/// assert_eq!(most_in_a_minute(|_| Window::fixed(minute)), 200);
/// assert_eq!(most_in_a_minute(|clock| Window::calendar([clock.now() + minute])), 200);
/// assert_eq!(most_in_a_minute(|_| Window::token_bucket(minute)), 199);
/// assert_eq!(most_in_a_minute(|_| Window::rolling(minute)), 100);
/// ```
///
/// # What every window has in common
///
/// A window counts every axis but [`InFlight`](crate::Axis::InFlight), whose cap is one of the
/// present. The arithmetic is exact: nothing drifts, however long it runs. A period is clamped to 1
/// ns ..= 584 years. A token bucket and [`carrying_overage`](Window::carrying_overage) never bring
/// back units that would come later than 584 years from now.
///
/// A hold counts from its settlement, as its total is not known before. A provider that counts a
/// request from its start wants the request spent at the start, and only the rest held:
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool, ManualClock, Window};
///
/// let clock = ManualClock::new();
/// let minute = Duration::from_secs(60);
/// let pool = BudgetPool::builder()
///     .requests(1)
///     .tokens(1_000)
///     .window(Window::fixed(minute))
///     .clock(clock.clone())
///     .build();
///
/// pool.record(Amount::new().requests(1))?; // counts from now on
/// let hold = pool.reserve(Amount::new().tokens(800))?;
/// clock.advance(minute);
/// hold.commit(Amount::new().tokens(650)); // counts from here on
///
/// let snapshot = pool.snapshot();
/// assert_eq!((snapshot.requests.used, snapshot.tokens.used), (0, 650));
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window {
    pub(crate) kind: Kind,
    pub(crate) period: Duration,
    pub(crate) start: Option<Instant>,
    pub(crate) carries: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Fixed,
    TokenBucket,
    Rolling,
    Calendar(Turns),
}

/// The instants of a calendar: sorted, each once. They are shared, so that a window is cheap to
/// clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Turns(Arc<[Instant]>);

impl Turns {
    pub(crate) fn instants(&self) -> &[Instant] {
        &self.0
    }
}

impl FromIterator<Instant> for Turns {
    fn from_iter<I: IntoIterator<Item = Instant>>(turns: I) -> Turns {
        let mut turns: Vec<Instant> = turns.into_iter().collect();
        turns.sort_unstable();
        turns.dedup();
        Turns(turns.into())
    }
}

impl Window {
    const fn new(kind: Kind, period: Duration) -> Window {
        Window { kind, period, start: None, carries: false }
    }

    /// A new period begins every `period`, as by [`reset`](crate::BudgetPool::reset): `used` and
    /// `overage` start again from zero, and a hold settles into the period in which it is settled.
    ///
    /// At a turn the caps of two periods can be spent within a moment. Where that matters, take a
    /// [`rolling`](Window::rolling) window. Where an overage must not be forgotten at the turn, add
    /// [`carrying_overage`](Window::carrying_overage).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetPool, ManualClock, Window};
    /// let clock = ManualClock::new();
    /// let day = Window::fixed(Duration::from_secs(86_400));
    /// let pool = BudgetPool::builder().tokens(100).window(day).clock(clock.clone()).build();
    /// pool.record(Amount::new().tokens(100))?;
    /// clock.advance(Duration::from_secs(86_400));
    /// pool.record(Amount::new().tokens(100))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn fixed(period: Duration) -> Window {
        Window::new(Kind::Fixed, period)
    }

    /// Used units come back continuously, at the rate of each cap per period: a token bucket, with
    /// the cap as its burst. The `overage` is paid off first. An axis without a cap has no rate: it
    /// counts on.
    ///
    /// `used` is the spend that has not come back yet. A held unit comes back from its settlement
    /// on. A caller that finds the bucket full spends the cap N at once, and the N - 1 that come
    /// back before a period is over: where a provider counts any period, take
    /// [`rolling`](Window::rolling).
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
    #[must_use]
    pub const fn token_bucket(period: Duration) -> Window {
        Window::new(Kind::TokenBucket, period)
    }

    /// A pool admits no more than its cap in any half-open interval of this length, whatever the
    /// arrivals.
    ///
    /// The pool counts by 60 slots of a period. A spend in a slot comes back one period after the
    /// slot has ended, and so a period to 61 / 60 of a period after the spend. The refusal's
    /// instant and [`retry_after`](crate::BudgetError::retry_after) are exact: they name the slot
    /// whose return makes room. An axis without a cap counts on; its `used` counts from the instant
    /// at which it is capped later.
    ///
    /// - An overage is booked in the slot in which it arose, and comes back with that slot. Until
    ///   then a returning unit pays the `overage` first.
    /// - A [`credit`](crate::BudgetPool::credit), a commit below the metered units and a lower
    ///   [`set_used`](crate::BudgetPool::set_used) reduce the newest slots first, as a correction
    ///   is mostly one of a moment ago. In any period the spends less the credits are at most the
    ///   cap.
    /// - A higher `set_used`, and the figure of [`PoolBuilder::used`](crate::PoolBuilder::used),
    ///   count from then on.
    /// - [`set_caps`](crate::BudgetPool::set_caps) moves no slot: a spend stays, and the part
    ///   beyond a lower cap is `overage`.
    /// - [`reset`](crate::BudgetPool::reset) empties all slots.
    ///
    /// The slots take 480 bytes for each axis that has a cap, in a box of their own. A slot counts
    /// up to `u64::MAX` units; the rest counts in the slot after it.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, ManualClock, Window};
    ///
    /// let clock = ManualClock::new();
    /// let pool = BudgetPool::builder()
    ///     .requests(100)
    ///     .window(Window::rolling(Duration::from_secs(60)))
    ///     .clock(clock.clone())
    ///     .build();
    ///
    /// pool.record(Amount::new().requests(40))?; // in the slot of the first second
    /// clock.advance(Duration::from_millis(1_500));
    /// pool.record(Amount::new().requests(60))?; // in the slot of the next second
    ///
    /// let until = |requests| {
    ///     pool.peek(Amount::new().requests(requests)).unwrap_err().retry_after()
    /// };
    /// assert_eq!(until(40), Some(Duration::from_millis(59_500))); // 1 + 60 - 1.5
    /// assert_eq!(until(41), Some(Duration::from_millis(60_500))); // 2 + 60 - 1.5
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    #[must_use]
    pub const fn rolling(period: Duration) -> Window {
        Window::new(Kind::Rolling, period)
    }

    /// A new period begins at each of these instants of the pool's clock, as by
    /// [`fixed`](Window::fixed): for months, and for days that begin at a local midnight and have
    /// 23 or 25 hours where the clocks change. The arithmetic of zones is the caller's: the example
    /// `calendar` shows it with `jiff`.
    ///
    /// The turns may come in any order; a turn that is named twice is one. A turn before the pool is
    /// built has passed. After the last turn nothing comes back any more, and the outlook of a
    /// refusal is that of a pool without a window: `AfterRelease`, or `Never`. Without any turn
    /// this is so from the start. A turn takes 16 bytes, which the clones of a window share.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, Clock, ManualClock, Outlook, Window};
    ///
    /// let clock = ManualClock::new();
    /// let hour = Duration::from_secs(3_600);
    /// let midnight = clock.now() + 6 * hour;
    /// let pool = BudgetPool::builder()
    ///     .tokens(1_000)
    ///     .window(Window::calendar([midnight, midnight + 23 * hour])) // then the clocks change
    ///     .clock(clock.clone())
    ///     .build();
    ///
    /// pool.record(Amount::new().tokens(1_000))?;
    /// let one = Amount::new().tokens(1);
    /// assert_eq!(pool.record(one).unwrap_err().retry_after(), Some(6 * hour));
    /// clock.advance(6 * hour);
    /// pool.record(Amount::new().tokens(1_000))?;
    /// assert_eq!(pool.record(one).unwrap_err().retry_after(), Some(23 * hour));
    /// clock.advance(23 * hour);
    /// pool.record(Amount::new().tokens(1_000))?;
    /// assert_eq!(pool.record(one).unwrap_err().outlook(), Outlook::Never); // no turn is left
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    #[must_use]
    pub fn calendar(turns: impl IntoIterator<Item = Instant>) -> Window {
        Window::new(Kind::Calendar(turns.into_iter().collect()), Duration::ZERO)
    }

    /// An instant at which a period starts, by the pool's clock, before or after the present. If
    /// not set, the first starts when the pool is built.
    ///
    /// Should it be later than that, the first period of a [`fixed`](Window::fixed) window lasts
    /// until then, and a [token bucket](Window::token_bucket) starts to give back then. A
    /// [rolling](Window::rolling) window has slots from the start on; one of them begins at this
    /// instant. A [calendar](Window::calendar) has its instants, and stays as it is.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetPool, Clock, ManualClock, Window};
    /// let clock = ManualClock::new();
    /// let minute = Duration::from_secs(60);
    /// let window = Window::fixed(minute).aligned_to(clock.now() + minute / 4);
    /// let pool = BudgetPool::builder().tokens(100).window(window).clock(clock.clone()).build();
    /// pool.record(Amount::new().tokens(100))?;
    /// clock.advance(minute / 4); // the first period ends early
    /// pool.record(Amount::new().tokens(100))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn aligned_to(mut self, at: Instant) -> Window {
        if !matches!(self.kind, Kind::Calendar(_)) {
            self.start = Some(at);
        }
        self
    }

    /// A new period begins with the `overage` of the old one: as much of it as the cap allows is
    /// `used` from the start, and the rest stays `overage`, to be paid off in the periods to come.
    /// A hold stays held, and leaves the less for the overage. Without this a turn forgets the
    /// overage.
    ///
    /// The outlook of a refusal counts the turns that it takes. A [rolling](Window::rolling) window
    /// and a [token bucket](Window::token_bucket) have no turns, pay off an overage anyway, and stay
    /// as they are.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, ManualClock, Window};
    ///
    /// let clock = ManualClock::new();
    /// let day = Duration::from_secs(86_400);
    /// let pool = BudgetPool::builder()
    ///     .usd("10".parse()?)
    ///     .window(Window::fixed(day).carrying_overage())
    ///     .clock(clock.clone())
    ///     .build();
    ///
    /// let hold = pool.reserve(Amount::new().usd("10".parse()?))?;
    /// hold.commit(Amount::new().usd("25".parse()?)); // 15 more than there was
    ///
    /// let refused = pool.record(Amount::new().usd("1".parse()?)).unwrap_err();
    /// assert_eq!(refused.retry_after(), Some(2 * day));
    /// clock.advance(day);
    /// let usd = pool.snapshot().usd;
    /// assert_eq!((usd.used.to_string(), usd.overage.to_string()), ("10".into(), "5".into()));
    /// clock.advance(day);
    /// let usd = pool.snapshot().usd;
    /// assert_eq!((usd.used.to_string(), usd.overage.to_string()), ("5".into(), "0".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn carrying_overage(mut self) -> Window {
        self.carries = matches!(self.kind, Kind::Fixed | Kind::Calendar(_));
        self
    }
}
