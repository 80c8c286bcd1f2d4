//! The builder of a pool.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::engine::{Deadline, Keys, Refill, Spec};
use crate::handle::{Handle, Runtime, Timer};
use crate::observer::{Observer, listener};
use crate::pool::BudgetPool;
use crate::time::clock::{Clock, SharedClock};
use crate::time::deadline::DeadlineBudget;
use crate::time::window::Window;
use crate::types::amount::{Amount, Caps};
use crate::types::axis::{Axis, AxisSet};
use crate::types::error::BudgetError;
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;
use crate::types::usd::Usd;

/// Builds a pool: a [`Root`] stands alone, a [`Child`] or a [`Carved`] pool stands below another,
/// and a [`Joint`] pool below several.
///
/// A setter that is called again replaces the earlier value. A cap of zero admits nothing but zero
/// on its axis. A clone builds a pool of its own, with the same settings, clock, timer, observer
/// and parents.
#[derive(Clone)]
#[must_use = "a builder does nothing until `build`"]
pub struct PoolBuilder<Kind> {
    name: Option<Name>,
    caps: Caps,
    deadline: Option<PoolDeadline>,
    window: Option<Window>,
    /// How many idempotency keys are remembered, and for how long.
    keys: Option<(usize, Duration)>,
    /// In a box, as is the ceiling: few pools have one, and each setter moves a builder.
    used: Option<Box<Amount>>,
    ceiling: Option<Box<Caps>>,
    low: Option<Box<Amount>>,
    on_drop: Option<OnDrop>,
    most_waiting: u32,
    kind: Kind,
}

/// The deadline of [`PoolBuilder::deadline`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PoolDeadline {
    /// So long from [`build`](PoolBuilder::build) on, by the pool's clock. Zero is a pool that is late
    /// from the start; more than an [`Instant`] can hold is no deadline.
    After(Duration),
    /// At this budget's instant, read by the pool's clock.
    Budget(DeadlineBudget),
}

impl From<Duration> for PoolDeadline {
    fn from(after: Duration) -> PoolDeadline {
        PoolDeadline::After(after)
    }
}

impl From<DeadlineBudget> for PoolDeadline {
    fn from(budget: DeadlineBudget) -> PoolDeadline {
        PoolDeadline::Budget(budget)
    }
}

impl From<&DeadlineBudget> for PoolDeadline {
    fn from(budget: &DeadlineBudget) -> PoolDeadline {
        PoolDeadline::Budget(budget.clone())
    }
}

impl PoolDeadline {
    /// Starts the time by the pool's clock. A `Duration` keeps the floor and the named caps of the
    /// budget above.
    fn start(self, clock: &SharedClock, above: Option<&DeadlineBudget>) -> DeadlineBudget {
        match (self, above) {
            (PoolDeadline::Budget(budget), _) => budget.with_clock(clock.clone()),
            (PoolDeadline::After(total), Some(above)) => above.child(total),
            (PoolDeadline::After(total), None) => {
                DeadlineBudget::starting(clock.now(), total, clock.clone())
            }
        }
    }
}

/// A pool that stands alone.
#[derive(Debug, Clone)]
pub struct Root {
    runtime: Runtime,
}

/// A pool that shares its parent's budget with its siblings.
#[derive(Debug, Clone)]
pub struct Child {
    parent: BudgetPool,
}

/// A pool whose caps are reserved in its parent.
#[derive(Debug, Clone)]
pub struct Carved {
    parent: BudgetPool,
}

/// A pool that shares the budgets of several parents: see [`BudgetPool::joint`].
#[derive(Debug, Clone)]
pub struct Joint {
    /// Different ones of one tree, at least one, with no carved pool on their ways.
    parents: Vec<BudgetPool>,
}

impl<Kind> PoolBuilder<Kind> {
    fn new(kind: Kind) -> PoolBuilder<Kind> {
        PoolBuilder {
            name: None,
            caps: Caps::new(),
            deadline: None,
            window: None,
            keys: None,
            used: None,
            ceiling: None,
            low: None,
            on_drop: None,
            most_waiting: u32::MAX,
            kind,
        }
    }

    /// The name of the pool, for [`BudgetError::pool`] and
    /// [`Snapshot::name`](crate::Snapshot::name). A name need not be unique.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::builder().name("run-17").build();
    /// assert_eq!(pool.name(), "run-17");
    /// ```
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Caps [`Axis::Tokens`]: all tokens.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(10).build();
    /// assert!(pool.record(Amount::new().tokens(11)).is_err());
    /// ```
    pub fn tokens(mut self, tokens: u64) -> Self {
        self.caps.set(Axis::Tokens, tokens);
        self
    }

    /// Caps [`Axis::InputTokens`].
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().input_tokens(10).build();
    /// assert!(pool.record(Amount::new().input_tokens(11)).is_err());
    /// ```
    pub fn input_tokens(mut self, tokens: u64) -> Self {
        self.caps.set(Axis::InputTokens, tokens);
        self
    }

    /// Caps [`Axis::OutputTokens`].
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().output_tokens(10).build();
    /// assert!(pool.record(Amount::new().output_tokens(11)).is_err());
    /// ```
    pub fn output_tokens(mut self, tokens: u64) -> Self {
        self.caps.set(Axis::OutputTokens, tokens);
        self
    }

    /// Caps [`Axis::Requests`].
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().requests(10).build();
    /// assert!(pool.record(Amount::new().requests(11)).is_err());
    /// ```
    pub fn requests(mut self, requests: u64) -> Self {
        self.caps.set(Axis::Requests, requests);
        self
    }

    /// Caps [`Axis::Usd`]: the money.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().usd("0.10".parse()?).build();
    /// assert!(pool.record(Amount::new().usd("0.11".parse()?)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn usd(mut self, usd: Usd) -> Self {
        self.caps.set(Axis::Usd, usd.as_nanos());
        self
    }

    /// Caps the reservations that live at the same time, each by the
    /// [slots](Amount::in_flight) that it takes.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().in_flight(1).build();
    /// let slot = pool.reserve(Amount::new())?;
    /// assert!(pool.reserve(Amount::new()).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn in_flight(mut self, slots: u64) -> Self {
        self.caps.set(Axis::InFlight, slots);
        self
    }

    /// Caps an axis: one of the [user's own](Axis::custom), or an [`Axis`] that is known only when
    /// the program runs. Money is in nano-USD. A [`Deadline`](Axis::Deadline) is not counted: it
    /// changes nothing.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis, BudgetPool};
    /// const BYTES: Axis = Axis::custom(0, "bytes");
    /// let pool = BudgetPool::builder().cap(BYTES, 1 << 20).build();
    /// pool.record(Amount::of(BYTES, 4_096))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn cap(mut self, axis: Axis, cap: u64) -> Self {
        self.caps.set(axis, cap);
        self
    }

    /// Declares an axis of the [user's own](Axis::custom) without a cap: it counts in any case,
    /// and refusals and snapshots of the whole tree call it by its label.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis, BudgetPool};
    /// const PAGES: Axis = Axis::custom(1, "pages");
    /// let pool = BudgetPool::builder().axis(PAGES).build();
    /// pool.record(Amount::of(PAGES, 3))?;
    /// assert!(pool.snapshot().to_string().contains("pages"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn axis(mut self, axis: Axis) -> Self {
        self.caps = self.caps.declaring(axis);
        self
    }

    /// Sets the caps that `caps` names, beside those set already.
    ///
    /// ```
    /// # use budget_pool::{BudgetPool, Caps};
    /// let plan = Caps::new().tokens(1_000).requests(10); // from a file, for instance
    /// let pool = BudgetPool::builder().caps(plan).requests(5).build();
    /// assert_eq!(pool.snapshot().requests.cap, Some(5));
    /// ```
    pub fn caps(mut self, caps: Caps) -> Self {
        self.caps = self.caps.overlaid(caps);
        self
    }

    /// Sets `used` to the figure that is known from elsewhere: after a restart in the middle of a
    /// day. As by [`BudgetPool::set_used`] right after the build, and of this pool alone: tell each
    /// pool of a tree its own figure, and none is booked twice. On an axis of its share a
    /// [carved](PoolBuilder::carved) pool cannot have it: [`Carved`](BudgetError::Carved).
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Usd};
    ///
    /// let usd = |dollars| Amount::new().usd(Usd::from_dollars(dollars));
    /// let day = BudgetPool::builder().usd(Usd::from_dollars(10)).used(usd(5)).build();
    /// let agent = day.child().usd(Usd::from_dollars(6)).used(usd(4)).build();
    ///
    /// assert_eq!(day.snapshot().usd.used, Usd::from_dollars(5));
    /// assert_eq!(agent.snapshot().usd.available, Some(Usd::from_dollars(2)));
    /// ```
    pub fn used(mut self, used: Amount) -> Self {
        self.used = Some(Box::new(used));
        self
    }

    /// How far the caps may still be [raised](BudgetPool::raise_caps), on the axes that are named:
    /// as by [`BudgetPool::set_ceiling`].
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, Caps, Outlook};
    /// let pool = BudgetPool::builder().tokens(100).ceiling(Caps::new().tokens(1_000)).build();
    /// let refused = pool.record(Amount::new().tokens(400)).unwrap_err();
    /// assert_eq!(refused.outlook(), Outlook::AfterFunding);
    /// ```
    pub fn ceiling(mut self, ceiling: Caps) -> Self {
        self.ceiling = Some(Box::new(ceiling));
        self
    }

    /// The amount that is to be free in this pool at least, on the axes that `low` names: as soon
    /// as less is free, [`BudgetPool::wants`] tells whoever funds the pool. `low` refuses nothing.
    /// Free is `cap - used - reserved` of this pool itself: a pool above it tells its own lack by
    /// its own [`wants`](BudgetPool::wants).
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(1_000).low(Amount::new().tokens(200)).build();
    /// pool.record(Amount::new().tokens(850))?;
    ///
    /// let want = pool.wants().block();
    /// assert!(want.low);
    /// assert_eq!(want.missing, Amount::new().tokens(50));
    /// pool.raise_caps(want.missing.into_iter().collect())?;
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn low(mut self, low: Amount) -> Self {
        self.low = Some(Box::new(low));
        self
    }

    /// Sets the [`OnDrop`] of the reservations on this pool, and on the pools below that set no
    /// other, for a drop and an [expiry](crate::Ask::ttl). [`Release`](OnDrop::Release) if no pool
    /// on the way up says so.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, OnDrop};
    /// let run = BudgetPool::builder().on_drop(OnDrop::Commit).build();
    /// drop(run.child().build().reserve(Amount::new().tokens(5))?);
    /// assert_eq!(run.snapshot().tokens.used, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.on_drop = Some(on_drop);
        self
    }

    /// Bounds the waiters of this pool and of those below it to `most` at the same time. A wait
    /// that finds `most` waiters before it is refused at once with
    /// [`QueueFull`](BudgetError::QueueFull), unless it is served at once. Zero is a pool for
    /// which nobody waits; there is no bound if it is not set.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetError, BudgetPool};
    /// let pool = BudgetPool::builder().in_flight(1).most_waiting(0).build();
    /// let slot = pool.reserve(Amount::new())?;
    /// let refused = pool.reserve_blocking(Amount::new()).unwrap_err();
    /// assert!(matches!(refused, BudgetError::QueueFull { .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn most_waiting(mut self, most: u32) -> Self {
        self.most_waiting = most;
        self
    }

    /// Until when the pool may be asked: a [`Duration`] from `build` on, or the instant of a
    /// [`DeadlineBudget`], which [`BudgetPool::deadline`] gives back. The earliest `deadline` on
    /// the way up counts.
    ///
    /// A pool reads the [`Clock`] of its tree. A root pool without a [`clock`](PoolBuilder::clock)
    /// takes that of the budget; any other budget given here should go by the tree's clock, too.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetError, BudgetPool};
    /// let pool = BudgetPool::builder().deadline(Duration::ZERO).build();
    /// let late = pool.record(Amount::new().requests(1)).unwrap_err();
    /// assert!(matches!(late, BudgetError::DeadlineExceeded(_)));
    /// ```
    pub fn deadline(mut self, deadline: impl Into<PoolDeadline>) -> Self {
        self.deadline = Some(deadline.into());
        self
    }

    /// Lets the caps come back by themselves, by a [`Window`]. A lifetime cap and several rates
    /// combine as pools under pools, as every spend is charged to the whole path:
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{BudgetPool, Window};
    ///
    /// let month = BudgetPool::builder().name("month").usd("500".parse()?).build();
    /// let day = month.child().usd("40".parse()?).window(Window::fixed(Duration::from_secs(86_400))).build();
    /// let minute = day.child().tokens(90_000).requests(500).window(Window::token_bucket(Duration::from_secs(60))).build();
    /// # Ok::<(), budget_pool::ParseUsdError>(())
    /// ```
    ///
    /// Time is read by the pool's clock, at each call on it or below it. A
    /// [carved](PoolBuilder::carved) pool cannot have
    /// one: [`CarvedWindow`](BudgetError::CarvedWindow).
    pub fn window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }

    /// How many keys of [`record_once`](BudgetPool::record_once) and
    /// [`debit_once`](BudgetPool::debit_once) are remembered at most, and each for how long. If not
    /// set, 262,144 keys are remembered for an hour: 72 new ones each second, 70 to 90 MB if all are
    /// used, by the length of the keys. A `ttl` too long for an [`Instant`] is for ever; `Duration::ZERO` remembers
    /// nothing. With a `capacity` of zero every `record_once` is refused, and every `debit_once` is
    /// booked.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().idempotency_keys(1, Duration::from_secs(60)).build();
    /// pool.record_once("job-1", Amount::new().requests(1))?;
    /// let full = pool.record_once("job-2", Amount::new().requests(1)).unwrap_err();
    /// assert!(full.retry_after() > Some(Duration::from_secs(59)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn idempotency_keys(mut self, capacity: usize, ttl: Duration) -> Self {
        self.keys = Some((capacity, ttl));
        self
    }

    /// The time of the pool, which starts now.
    fn start(
        &mut self,
        clock: &SharedClock,
        above: Option<&DeadlineBudget>,
    ) -> Option<DeadlineBudget> {
        self.deadline.take().map(|deadline| deadline.start(clock, above))
    }

    /// The `Spec` of the pool, with its time. What it takes is taken out of the builder: a builder
    /// that is moved costs more.
    fn spec(&mut self, clock: &SharedClock, budget: Option<&DeadlineBudget>) -> Spec {
        let deadline = |budget: &DeadlineBudget| {
            Some(Deadline { at: budget.deadline()?, total: budget.total() })
        };
        Spec {
            name: self.name.take().unwrap_or(Name::DEFAULT),
            caps: self.caps,
            deadline: budget.and_then(deadline),
            window: self.window.take().map(|window| Box::new(Refill::start(window, clock.now()))),
            keys: self.keys.take().map(|(most, ttl)| Box::new(Keys::new(most, ttl))),
            used: self.used.take(),
            ceiling: self.ceiling.take(),
            low: self.low.take(),
            on_drop: self.on_drop,
            most_waiting: self.most_waiting,
        }
    }
}

impl PoolBuilder<Root> {
    pub(crate) fn root() -> PoolBuilder<Root> {
        PoolBuilder::new(Root { runtime: Runtime::default() })
    }

    /// The [`Clock`] of this pool and of all that will be below it; the
    /// [`SystemClock`](crate::SystemClock) if not set. An `Arc<dyn Clock>` is one by closure:
    /// `.clock(move || clock.now())`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{BudgetPool, ManualClock};
    /// let clock = ManualClock::new();
    /// let pool = BudgetPool::builder().deadline(Duration::from_secs(5)).clock(clock.clone()).build();
    /// clock.advance(Duration::from_secs(2));
    /// assert_eq!(pool.time_left(), Some(Duration::from_secs(3)));
    /// ```
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.kind.runtime.clock = SharedClock::new(clock);
        self
    }

    /// The sleep of the async waits of this pool, and of all that will be below it: `timer` gets an
    /// [`Instant`] of the pool's clock and returns a sleep of the caller's runtime until then.
    /// Without it an async wait that time may have to end is refused with
    /// [`NoTimer`](BudgetError::NoTimer), as it could sleep for ever. Blocking waits need none.
    ///
    /// The timer is called, and its sleep polled, without a lock: by the poll that has to wait, and by
    /// what the sleep wakes. This reads the clock of the pool, takes its lock, wakes the owner of the
    /// wait, and begins the next sleep. So a timer of your own wakes without a lock that it takes
    /// itself, or its clock. Should the timer or its sleep panic, the wait keeps its place, and its
    /// next poll takes a new sleep. Whoever wakes does not see such a panic.
    ///
    /// A sleep is not to end before its instant by that clock, nor to wake in its own poll. One that
    /// does is polled again with the wait: those behind an owner that does not poll may be served
    /// late.
    ///
    /// A program that moves a [`ManualClock`](crate::ManualClock) and touches the pool by hand says
    /// so with a timer that stays pending: `.timer(|_| Box::pin(std::future::pending()))`. Its
    /// waits are served, or their [`wait_at_most`](crate::Ask::wait_at_most) ended, by the next call
    /// on the pool that knows the time. A [`run`](crate::BudgetPool::run) that is past its deadline
    /// ends when it is polled, and by no other call.
    ///
    /// With the feature `tokio`, `PoolBuilder::tokio` sets the timer of the runtime, and its clock.
    /// Without the feature it is one line:
    ///
    /// ```
    /// use budget_pool::BudgetPool;
    ///
    /// let pool = BudgetPool::builder()
    ///     .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
    ///     .build();
    /// ```
    pub fn timer<F>(self, timer: F) -> Self
    where
        F: Fn(Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
    {
        self.timer_where(|| true, timer)
    }

    /// A timer that works only where `is_here` says so.
    pub(crate) fn timer_where<F>(mut self, is_here: fn() -> bool, timer: F) -> Self
    where
        F: Fn(Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
    {
        self.kind.runtime.timer = Some(Timer { sleep: std::sync::Arc::new(timer), is_here });
        self
    }

    /// Sets the [`Observer`] that is told of refusals, of overage, and of holds that end without a
    /// word, in this pool and in all that will be below it. See [`Observer`].
    ///
    /// ```
    /// # use budget_pool::{BudgetError, BudgetPool, Observer};
    /// struct Log;
    /// impl Observer for Log {
    ///     fn refused(&self, refusal: &BudgetError) {
    ///         eprintln!("{refusal}");
    ///     }
    /// }
    /// let pool = BudgetPool::builder().tokens(100).observer(Log).build();
    /// ```
    pub fn observer(mut self, observer: impl Observer + Send + Sync + 'static) -> Self {
        self.kind.runtime.listener = Some(listener(observer));
        self
    }

    /// The pool.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// ```
    #[must_use]
    pub fn build(mut self) -> BudgetPool {
        let mut runtime = self.kind.runtime.clone();
        if let (Some(PoolDeadline::Budget(budget)), true) =
            (&self.deadline, runtime.clock.is_system())
        {
            runtime.clock = budget.clock().clone();
        }
        let deadline = self.start(&runtime.clock, None);
        let spec = self.spec(&runtime.clock, deadline.as_ref());
        BudgetPool::new(Handle::root(spec, deadline, runtime))
    }
}

impl PoolBuilder<Child> {
    pub(crate) fn child(parent: BudgetPool) -> PoolBuilder<Child> {
        PoolBuilder::new(Child { parent })
    }

    /// The same pool, below this parent.
    pub(crate) fn under(mut self, parent: &BudgetPool) -> PoolBuilder<Child> {
        self.kind = Child { parent: parent.clone() };
        self
    }

    /// Makes the caps a share that nobody else can touch: they are reserved in the parent, and all
    /// the way up, when the pool is built. On the axes that it caps, the pools above are not asked
    /// again. Closing or dropping it returns the units that are neither `used` nor `reserved`.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let run = BudgetPool::builder().tokens(1_000).build();
    /// let last_call = run.child().tokens(200).carved().build()?;
    ///
    /// assert!(run.record(Amount::new().tokens(801)).is_err());
    /// run.record(Amount::new().tokens(800))?;
    /// last_call.record(Amount::new().tokens(200))?;
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn carved(self) -> PoolBuilder<Carved> {
        PoolBuilder {
            name: self.name,
            caps: self.caps,
            deadline: self.deadline,
            window: self.window,
            keys: self.keys,
            used: self.used,
            ceiling: self.ceiling,
            low: self.low,
            on_drop: self.on_drop,
            most_waiting: self.most_waiting,
            kind: Carved { parent: self.kind.parent },
        }
    }

    /// The pool.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let run = BudgetPool::builder().tokens(100).build();
    /// let agent = run.child().tokens(60).build();
    /// ```
    #[must_use]
    pub fn build(mut self) -> BudgetPool {
        let parent = self.kind.parent.clone();
        let above = parent.handle();
        let deadline = self.start(above.clock(), above.deadline());
        let spec = self.spec(above.clock(), deadline.as_ref());
        BudgetPool::new(above.child(spec, deadline))
    }
}

impl PoolBuilder<Joint> {
    pub(crate) fn joint(parents: Vec<BudgetPool>) -> PoolBuilder<Joint> {
        PoolBuilder::new(Joint { parents })
    }

    /// The pool.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let company = BudgetPool::unlimited();
    /// let (team, model) = (company.child().build(), company.child().build());
    /// let calls = BudgetPool::joint([&team, &model])?.name("acme/opus").build();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn build(mut self) -> BudgetPool {
        let parents = self.kind.parents.clone();
        let handles: Vec<&Handle> = parents.iter().map(BudgetPool::handle).collect();
        let clock = handles[0].clock();
        let deadline = self.start(clock, Handle::earliest_deadline(&handles));
        let spec = self.spec(clock, deadline.as_ref());
        BudgetPool::new(Handle::joint(&handles, spec, deadline))
    }
}

impl PoolBuilder<Carved> {
    /// The pool, if its caps fit into the parent.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let run = BudgetPool::builder().tokens(100).build();
    /// let share = run.child().tokens(60).carved().build()?;
    /// assert!(run.child().tokens(60).carved().build().is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As the parent's [`reserve`](BudgetPool::reserve); and
    /// [`CarvedWindow`](BudgetError::CarvedWindow), or [`Carved`](BudgetError::Carved) if it is to
    /// have [used](PoolBuilder::used) some of its share already.
    pub fn build(mut self) -> Result<BudgetPool, BudgetError> {
        let used = self.used.as_ref().map_or(AxisSet::EMPTY, |used| used.quantities().axes());
        if !used.intersection(self.caps.quantities().axes()).is_empty() {
            let refusal = BudgetError::Carved { pool: self.name.unwrap_or(Name::DEFAULT) };
            return Err(self.kind.parent.handle().refused(refusal));
        }
        if self.window.is_some() {
            let refusal = BudgetError::CarvedWindow { pool: self.name.unwrap_or(Name::DEFAULT) };
            return Err(self.kind.parent.handle().refused(refusal));
        }
        let parent = self.kind.parent.clone();
        let above = parent.handle();
        let deadline = self.start(above.clock(), above.deadline());
        let spec = self.spec(above.clock(), deadline.as_ref());
        above.carved(spec, deadline).map(BudgetPool::new)
    }
}

impl<Kind: fmt::Debug> fmt::Debug for PoolBuilder<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolBuilder")
            .field("name", &self.name)
            .field("caps", &self.caps)
            .field("deadline", &self.deadline)
            .field("window", &self.window)
            .field("keys", &self.keys)
            .field("used", &self.used)
            .field("ceiling", &self.ceiling)
            .field("low", &self.low)
            .field("on_drop", &self.on_drop)
            .field("most_waiting", &self.most_waiting)
            .field("kind", &self.kind)
            .finish()
    }
}
