//! The pool, and how one is built.

use std::fmt;
use std::pin::Pin;
use std::time::{Duration, Instant};

use crate::Usd;
use crate::engine::idempotency::Memory;
use crate::engine::nodes::{Deadline, Spec, Tree};
use crate::handle::{Handle, Runtime};
use crate::lease::Lease;
use crate::reservation::{Receipt, Reservation};
use crate::sync::Arc;
use crate::time::clock::{Clock, SharedClock};
use crate::time::deadline::DeadlineBudget;
use crate::time::window::{Turning, Window};
use crate::types::amount::{Amount, Caps};
use crate::types::error::BudgetError;
use crate::types::name::Name;
use crate::types::snapshot::{Holder, Snapshot, TreeSnapshot};
use crate::wait::{Closed, Wait};

/// One budget shared by many tasks or threads.
///
/// A handle, one pointer wide: a clone is the same pool. The pool lives as long as a handle, a
/// [`Reservation`], a [`Lease`], a [`Wait`] or a child of it does.
///
/// *Asking* ([`record`](BudgetPool::record), [`reserve`](BudgetPool::reserve)) may be refused.
/// *Telling* ([`debit`](BudgetPool::debit), [`Reservation::commit`]) never is: it happened.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, Usd};
///
/// let pool = BudgetPool::builder().name("run-17").tokens(10_000).usd("1.00".parse()?).build();
///
/// // Known beforehand: ask and spend in one step.
/// pool.record(Amount::new().tokens(1_200).usd(Usd::from_micros(3_600)))?;
///
/// // Known afterwards: hold an estimate, then settle the real figures.
/// let hold = pool.reserve(Amount::new().input_tokens(1_500).output_tokens(500))?;
/// hold.commit(Amount::new().input_tokens(1_480).output_tokens(212));
///
/// assert_eq!(pool.snapshot().tokens.used, 1_200 + 1_480 + 212);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct BudgetPool {
    handle: Arc<Handle>,
}

impl BudgetPool {
    fn new(handle: Handle) -> BudgetPool {
        BudgetPool { handle: Arc::new(handle) }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Starts a pool. Every cap is optional.
    pub fn builder() -> Builder<Root> {
        Builder::new(Root { runtime: Runtime::default() })
    }

    /// A pool without caps: it just counts.
    #[must_use]
    pub fn unlimited() -> BudgetPool {
        BudgetPool::builder().build()
    }

    /// Starts a pool below this one, whose every spend is also one of this pool's: both admit it,
    /// or neither changes.
    ///
    /// The caps of children may add up to more than the parent's: they compete. A child's deadline
    /// never outlives its parent's. A child of a closed pool is born closed. What a child that
    /// is gone has used stays booked above.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let run = BudgetPool::builder().name("run").tokens(1_000).build();
    /// let agent = run.child().name("agent").tokens(600).build();
    ///
    /// agent.record(Amount::new().tokens(500))?;
    /// assert_eq!(run.snapshot().tokens.used, 500);
    /// assert_eq!(agent.record(Amount::new().tokens(200)).unwrap_err().scope(), "agent");
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn child(&self) -> Builder<Child> {
        Builder::new(Child { parent: self.clone() })
    }

    /// Asks and spends in one step: all of the amount, in this pool and all above it, or nothing
    /// (P1). Never waits.
    ///
    /// # Errors
    /// [`Closed`](BudgetError::Closed), [`DeadlineExceeded`](BudgetError::DeadlineExceeded) or
    /// [`Exceeded`](BudgetError::Exceeded), looked for in this order. Nothing has changed then
    /// (P7). What fits is never refused (P4).
    #[inline]
    pub fn record(&self, amount: Amount) -> Result<(), BudgetError> {
        self.handle.ask(|tree, at, now| tree.record(at, amount.quantities(), now))
    }

    /// Asks for a hold on the amount, and one in flight. Never waits.
    ///
    /// # Errors
    /// As [`record`](BudgetPool::record), and [`Queued`](BudgetError::Queued) before capacity is
    /// looked at, if others wait in this pool, or in one above it that caps what is asked (P6).
    #[inline]
    pub fn reserve(&self, amount: Amount) -> Result<Reservation, BudgetError> {
        let key = self.handle.ask(|tree, at, now| tree.reserve(at, amount.quantities(), now))?;
        Ok(Reservation::new(self.clone(), key))
    }

    /// A [`reserve`](BudgetPool::reserve) for so long: a hold that is neither settled nor dropped
    /// in time, because its task is stuck or its guard forgotten, *expires*. What it holds is
    /// then free again (or settled: [`commit_on_drop`](Reservation::commit_on_drop)), from the
    /// instant `ttl` after now on.
    ///
    /// Nothing runs in the background: an expired hold is reclaimed by the next call on a pool of
    /// its tree, in time for that call. Those that it does not need are reclaimed in small
    /// batches, so that no call pays for all. What the owner of an expired hold can still do is
    /// told at [`Reservation`]. A `ttl` too long for an [`Instant`] is none; one of zero has
    /// expired from the start.
    ///
    /// To wait for such a hold, [`renew`](Reservation::renew) the one that was waited for.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let pool = BudgetPool::builder().tokens(1_000).clock(clock.clone()).build();
    ///
    /// std::mem::forget(pool.reserve_for(Amount::new().tokens(1_000), Duration::from_secs(30))?);
    /// assert!(pool.record(Amount::new().tokens(1)).is_err());
    /// clock.advance(Duration::from_secs(30));
    /// pool.record(Amount::new().tokens(1))?;
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// As [`reserve`](BudgetPool::reserve).
    pub fn reserve_for(&self, amount: Amount, ttl: Duration) -> Result<Reservation, BudgetError> {
        let key = self
            .handle
            .ask_at(|tree, at, now| tree.reserve_for(at, amount.quantities(), ttl, now))?;
        Ok(Reservation::new(self.clone(), key))
    }

    /// A [`record`](BudgetPool::record) that counts once for its key: a call that is retried,
    /// because nobody knows whether it went through, spends once, and is answered as it was the
    /// first time. For two threads with the same key at once, too.
    ///
    /// A call that was refused is not remembered: nothing happened, and a retry may succeed. Keys
    /// belong to the pool that is called, stay through a [`reset`](BudgetPool::reset), and are
    /// forgotten after the time set by [`Builder::keys`]. One that is known is answered also
    /// after the deadline, and when closed: it was spent.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetError, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(1_000).build();
    /// for _attempt in 0..3 {
    ///     pool.record_once("job-17", Amount::new().tokens(600))?;
    /// }
    /// assert_eq!(pool.snapshot().tokens.used, 600);
    ///
    /// let other = pool.record_once("job-17", Amount::new().tokens(5));
    /// assert!(matches!(other, Err(BudgetError::KeyConflict { .. })));
    /// # Ok::<(), BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyConflict`](BudgetError::KeyConflict) if the key stands for another amount. If it is not
    /// known: as [`record`](BudgetPool::record), and before capacity is looked at
    /// [`KeysFull`](BudgetError::KeysFull), with the instant at which there will be room for
    /// one.
    pub fn record_once(&self, key: impl Into<Name>, amount: Amount) -> Result<(), BudgetError> {
        let key = key.into();
        self.handle.ask_at(|tree, at, now| tree.record_once(at, key, &amount, now))
    }

    /// Takes a worker's own share of so much, to spend from without touching the pool: for the hot
    /// loop of a thread pool. The share is not in flight, does not expire, and is
    /// [refilled](Lease::record) up to the batch. Never waits.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().requests(1_000_000).build();
    /// std::thread::scope(|scope| {
    ///     for _worker in 0..4 {
    ///         scope.spawn(|| {
    ///             let mut lease = pool.lease(Amount::new().requests(1_000)).unwrap();
    ///             while lease.record(Amount::new().requests(1)).is_ok() {}
    ///         });
    ///     }
    /// });
    /// assert_eq!(pool.snapshot().requests.used, 1_000_000);
    /// ```
    ///
    /// # Errors
    /// As [`reserve`](BudgetPool::reserve), for the whole batch.
    pub fn lease(&self, batch: Amount) -> Result<Lease, BudgetError> {
        let key = self.handle.ask(|tree, at, now| tree.lease(at, batch.quantities(), now))?;
        Ok(Lease::new(self.clone(), key, batch))
    }

    /// Asks for a hold on the amount, and waits until it is granted: first come, first served among
    /// those that compete (P6), so that a stream of small ones cannot starve a large one.
    /// Nothing is asked before the first poll. See [`Wait`].
    ///
    /// The future ends with an error as soon as there is nothing to wait for: the amount can never
    /// fit, the pool is closed, the deadline has passed (told in time by [`Builder::timer`], or
    /// else at the next call on the pool that asks). What only time makes hopeless may be told
    /// later, at the next call on the pool or at the deadline, and those behind it are served
    /// then: a [window](Builder::window) above brings back enough, but after the deadline; a
    /// hold above is settled by its expiry.
    ///
    /// What time alone brings (a [window](Builder::window) that turns, a hold that
    /// [expires](BudgetPool::reserve_for)) serves it in the same way.
    ///
    /// Two tasks that each hold half of a pool and wait for the other half wait for ever, as with
    /// any semaphore.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().in_flight(1).build();
    /// let first = pool.reserve(Amount::new())?;
    /// let second = pool.reserve_wait(Amount::new());
    /// drop(first);
    /// second.await?.commit_all();
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// # }).unwrap();
    /// ```
    pub fn reserve_wait(&self, amount: Amount) -> Wait {
        Wait::new(self.clone(), amount)
    }

    /// [`reserve_wait`](BudgetPool::reserve_wait), by parking the thread. Not for async code: it
    /// blocks the executor.
    ///
    /// # Errors
    /// As [`reserve_wait`](BudgetPool::reserve_wait).
    pub fn reserve_blocking(&self, amount: Amount) -> Result<Reservation, BudgetError> {
        self.reserve_wait(amount).block(None)
    }

    /// [`reserve_blocking`](BudgetPool::reserve_blocking), for at most so long (by the system's
    /// clock). A timeout too long for an [`Instant`] is none.
    ///
    /// # Errors
    /// As [`reserve_wait`](BudgetPool::reserve_wait), and [`Timeout`](BudgetError::Timeout). What
    /// is granted in the last moment is not lost: it is returned.
    pub fn reserve_blocking_for(
        &self,
        amount: Amount,
        timeout: Duration,
    ) -> Result<Reservation, BudgetError> {
        self.reserve_wait(amount).block(Some(timeout))
    }

    /// The answer that [`record`](BudgetPool::record) would give now; nothing is spent or counted.
    /// By the time it is read, it may have changed: to be sure of a spend, ask for it.
    ///
    /// # Errors
    /// As [`record`](BudgetPool::record).
    pub fn check(&self, amount: Amount) -> Result<(), BudgetError> {
        self.handle.ask(|tree, at, now| tree.check(at, amount.quantities(), now))
    }

    /// Tells of a spend that happened without a hold. Always booked (P2), also after the deadline,
    /// also when closed; what does not fit is overage.
    pub fn debit(&self, amount: Amount) -> Receipt {
        Receipt(self.handle.tell(|tree, at, now| tree.debit(at, amount.quantities(), now)))
    }

    /// This pool at one instant (P5).
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.handle.tell(Tree::snapshot)
    }

    /// This pool and all those below it, at one and the same instant (P5). It takes time in
    /// proportion to their number, under the lock. It reads the clock if any of them must know
    /// the time (P8).
    #[must_use]
    pub fn snapshot_tree(&self) -> TreeSnapshot {
        TreeSnapshot::new(self.handle.survey(Tree::snapshot_tree))
    }

    /// Who holds what now: every live reservation and lease of this pool and of those below it, the
    /// largest first (by tokens, then by the other axes in declared order). Of a lease that is
    /// its share as the pool knows it: what was spent of it and not settled yet counts as held.
    /// It takes time in proportion to all the holds of the tree and their depth (and a little
    /// for each of the most that there ever were at once), under the lock.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let mut holders = self.handle.tell(Tree::holders);
        holders.sort_by(|a, b| b.amount.quantities().units().cmp(a.amount.quantities().units()));
        holders
    }

    /// Starts a new period of this pool alone, and returns the old one as it was in the same
    /// instant.
    ///
    /// `used` and `overage` go to zero, and peaks start again from what is held; `spent` and the
    /// counts stay. Live holds stay, and settle into the new period. A
    /// [window](Builder::window) turns when it would have turned. On a carved pool it creates
    /// no budget: its caps become what is left of them.
    pub fn reset(&self) -> Snapshot {
        self.handle.tell(Tree::reset)
    }

    /// Raises the caps; new room pays overage first (P2). An axis without a cap stays unlimited. On
    /// a carved pool the budget moves here from the parent, in one transition.
    ///
    /// # Errors
    /// [`Exceeded`](BudgetError::Exceeded) if a cap would no longer fit into a `u64` (then
    /// `available` is how far it can rise); [`Closed`](BudgetError::Closed); on a carved pool
    /// all that the parent's [`record`](BudgetPool::record) can answer. Nothing has changed
    /// then.
    pub fn add(&self, caps: Caps) -> Result<(), BudgetError> {
        self.handle.ask(|tree, at, now| tree.add(at, &caps, now))
    }

    /// Lowers the caps by what is free; on a carved pool it goes back to the parent. An axis
    /// without a cap stays unlimited.
    ///
    /// # Errors
    /// [`Exceeded`](BudgetError::Exceeded) if less is free in this pool. Nothing has changed then.
    pub fn remove(&self, caps: Caps) -> Result<(), BudgetError> {
        self.handle.tell(|tree, at, now| tree.remove_caps(at, &caps, now))
    }

    /// The kill switch, for good: from now on everything that asks of this pool or of one below it
    /// is refused with [`Closed`](BudgetError::Closed), and those that wait are told. Facts are
    /// still booked, live reservations can still be settled. A carved pool gives back what it
    /// neither used nor holds.
    pub fn close(&self) {
        self.handle.enter(Tree::close);
    }

    /// A future that resolves when this pool, or one above it, is closed: for a fan-out that must
    /// stop at once.
    pub fn closed(&self) -> Closed {
        Closed::new(self.clone())
    }

    /// Whether this pool, or one above it, was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.enter(|tree, at| tree.is_closed(at))
    }

    /// The name that refusals give as their scope; `pool` if it was not given one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.handle.name()
    }

    /// The time until the earliest deadline on the way up, zero once it has passed; `None` without
    /// one. Reads the clock if there is a deadline (P8), and takes no lock: should the clock
    /// have run back, it may say more than a refusal knows.
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        self.handle.bounded().map(DeadlineBudget::remaining)
    }

    /// The budget of time that this pool has, to ask it for timeouts: what was given to
    /// [`Builder::deadline`], or else the parent's, over at the earliest deadline on the way up and
    /// read by the pool's clock. `None` without one.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{BudgetPool, DeadlineBudget};
    ///
    /// let request = DeadlineBudget::builder()
    ///     .total(Duration::from_secs(10))
    ///     .call_caps([("search", Duration::from_secs(2))])
    ///     .build()?;
    /// let pool = BudgetPool::builder().deadline(request).build();
    ///
    /// let timeout = pool.deadline().expect("it was given one").timeout_for("search")?;
    /// assert_eq!(timeout, Duration::from_secs(2));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn deadline(&self) -> Option<DeadlineBudget> {
        self.handle.deadline().cloned()
    }
}

impl fmt::Debug for BudgetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetPool").field("name", &self.name()).finish_non_exhaustive()
    }
}

/// Builds a pool: [`Root`] for one that stands alone, [`Child`] and [`Carved`] for one below
/// another.
///
/// A setter that is called again replaces what it set. A cap of zero admits nothing but zero on its
/// axis.
#[must_use = "a builder does nothing until `build`"]
pub struct Builder<Kind> {
    name: Option<Name>,
    caps: Caps,
    deadline: Option<PoolDeadline>,
    window: Option<Window>,
    memory: Option<Memory>,
    kind: Kind,
}

/// What [`Builder::deadline`] takes.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum PoolDeadline {
    /// So long from [`build`](Builder::build) on, by the pool's clock. Zero is a pool that is late
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
    /// Starts the time by the pool's clock. What lasts for a while keeps the floor and the named
    /// caps of the budget above.
    fn start(self, clock: &SharedClock, above: Option<&DeadlineBudget>) -> DeadlineBudget {
        match (self, above) {
            (PoolDeadline::Budget(budget), _) => budget.with_clock(clock.clone()),
            (PoolDeadline::After(total), Some(above)) => above.narrowed_to(total),
            (PoolDeadline::After(total), None) => {
                DeadlineBudget::starting(clock.now(), total, clock.clone())
            }
        }
    }
}

/// A pool that stands alone.
#[derive(Debug)]
pub struct Root {
    runtime: Runtime,
}

/// A pool that shares its parent's budget with its siblings.
#[derive(Debug)]
pub struct Child {
    parent: BudgetPool,
}

/// A pool whose caps are reserved in its parent.
#[derive(Debug)]
pub struct Carved {
    parent: BudgetPool,
}

impl<Kind> Builder<Kind> {
    fn new(kind: Kind) -> Builder<Kind> {
        Builder { name: None, caps: Caps::new(), deadline: None, window: None, memory: None, kind }
    }

    /// The name, for refusals and snapshots. Need not be unique.
    pub fn name(mut self, name: impl Into<Name>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Caps all tokens.
    pub fn tokens(self, tokens: u64) -> Self {
        self.caps(Caps::new().tokens(tokens))
    }

    /// Caps the input tokens.
    pub fn input_tokens(self, tokens: u64) -> Self {
        self.caps(Caps::new().input_tokens(tokens))
    }

    /// Caps the output tokens.
    pub fn output_tokens(self, tokens: u64) -> Self {
        self.caps(Caps::new().output_tokens(tokens))
    }

    /// Caps the requests.
    pub fn requests(self, requests: u64) -> Self {
        self.caps(Caps::new().requests(requests))
    }

    /// Caps the money.
    pub fn usd(self, usd: Usd) -> Self {
        self.caps(Caps::new().usd(usd))
    }

    /// Caps the reservations that live at the same time.
    pub fn in_flight(self, reservations: u64) -> Self {
        self.caps(Caps::new().in_flight(reservations))
    }

    /// Sets the caps that are named here, beside those set already.
    pub fn caps(mut self, caps: Caps) -> Self {
        self.caps = self.caps.overlaid(caps);
        self
    }

    /// Until when the pool may be asked: a [`Duration`] from `build` on, or the instant of a
    /// [`DeadlineBudget`], which [`BudgetPool::deadline`] gives back. The earliest on the way
    /// up counts.
    ///
    /// A pool reads the clock of its tree. One that stands alone and is not given a
    /// [`clock`](Builder::clock) takes that of the budget; any other budget given here should
    /// go by the tree's clock, too.
    pub fn deadline(mut self, deadline: impl Into<PoolDeadline>) -> Self {
        self.deadline = Some(deadline.into());
        self
    }

    /// Lets the caps come back by themselves: so much per minute, per day. A lifetime cap and
    /// several rates combine as pools under pools, as every spend is charged to the whole path:
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{BudgetPool, Window};
    ///
    /// let month = BudgetPool::builder().name("month").usd("500".parse()?).build();
    /// let day = month.child().usd("40".parse()?).window(Window::fixed(Duration::from_secs(86_400))).build();
    /// let minute = day.child().tokens(90_000).requests(500).window(Window::sliding(Duration::from_secs(60))).build();
    /// # Ok::<(), budget_pool::ParseUsdError>(())
    /// ```
    ///
    /// Time is read by the pool's clock, at each call on it or below it. A
    /// [carved](Builder::carved) pool cannot have
    /// one: [`CarvedWindow`](BudgetError::CarvedWindow).
    pub fn window(mut self, window: Window) -> Self {
        self.window = Some(window);
        self
    }

    /// How many keys of [`record_once`](BudgetPool::record_once) are remembered at most, and each
    /// for how long. If not set: 65,536, for an hour. A time too long for an [`Instant`] is for
    /// ever; one of zero remembers nothing. With a `most` of zero every call with a key is
    /// refused.
    pub fn keys(mut self, most: usize, ttl: Duration) -> Self {
        self.memory = Some(Memory { most, ttl });
        self
    }

    /// What is built, and its time, which starts now.
    fn start(
        self,
        clock: &SharedClock,
        above: Option<&DeadlineBudget>,
    ) -> (Spec, Option<DeadlineBudget>) {
        let budget = self.deadline.map(|deadline| deadline.start(clock, above));
        let deadline = budget
            .as_ref()
            .and_then(|budget| Some(Deadline { at: budget.deadline()?, total: budget.total() }));
        let name = self.name.unwrap_or(Name::DEFAULT);
        let window = self.window.map(|window| Turning::start(window, clock.now()));
        (Spec { name, caps: self.caps, deadline, window, memory: self.memory }, budget)
    }
}

impl Builder<Root> {
    /// Where this pool, and all that will be below it, take the time from; the system's if not set.
    /// An `Arc<dyn Clock>` is one by closure: `.clock(move || clock.now())`.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.kind.runtime.clock = SharedClock::new(clock);
        self
    }

    /// How async waits of this pool, and of all that will be below it, sleep: an instant of the
    /// pool's clock in, a sleep of the caller's runtime until then out. Without it a wait that
    /// only time can end is served or told at the next call on the pool, and so are those
    /// behind it. Blocking waits need none. It is called by the poll that has to wait, without
    /// the lock; should it panic there, the wait keeps its place.
    ///
    /// ```
    /// use budget_pool::BudgetPool;
    ///
    /// let pool = BudgetPool::builder()
    ///     .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
    ///     .build();
    /// ```
    pub fn timer<F>(mut self, timer: F) -> Self
    where
        F: Fn(Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static,
    {
        self.kind.runtime.timer = Some(std::sync::Arc::new(timer));
        self
    }

    /// The pool.
    #[must_use]
    pub fn build(self) -> BudgetPool {
        let mut runtime = self.kind.runtime.clone();
        if let (Some(PoolDeadline::Budget(budget)), true) =
            (&self.deadline, runtime.clock.is_system())
        {
            runtime.clock = budget.clock().clone();
        }
        let (spec, deadline) = self.start(&runtime.clock, None);
        BudgetPool::new(Handle::root(spec, deadline, runtime))
    }
}

impl Builder<Child> {
    /// Makes the caps a share that nobody else can touch: they are reserved in the parent, and all
    /// the way up, when the pool is built. On the axes that it caps, the pools above are not
    /// asked again. Closing or dropping it returns what is neither used nor held.
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
    pub fn carved(self) -> Builder<Carved> {
        let Builder { name, caps, deadline, window, memory, kind } = self;
        Builder { name, caps, deadline, window, memory, kind: Carved { parent: kind.parent } }
    }

    /// The pool.
    #[must_use]
    pub fn build(self) -> BudgetPool {
        let parent = self.kind.parent.clone();
        let (spec, deadline) = self.start(parent.handle().clock(), parent.handle().deadline());
        BudgetPool::new(parent.handle().child(spec, deadline))
    }
}

impl Builder<Carved> {
    /// The pool, if its caps fit into the parent.
    ///
    /// # Errors
    /// As the parent's [`reserve`](BudgetPool::reserve); and
    /// [`CarvedWindow`](BudgetError::CarvedWindow).
    pub fn build(self) -> Result<BudgetPool, BudgetError> {
        if self.window.is_some() {
            return Err(BudgetError::CarvedWindow { scope: self.name.unwrap_or(Name::DEFAULT) });
        }
        let parent = self.kind.parent.clone();
        let (spec, deadline) = self.start(parent.handle().clock(), parent.handle().deadline());
        parent.handle().carved(spec, deadline).map(BudgetPool::new)
    }
}

impl<Kind: fmt::Debug> fmt::Debug for Builder<Kind> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("name", &self.name)
            .field("caps", &self.caps)
            .field("deadline", &self.deadline)
            .field("window", &self.window)
            .field("keys", &self.memory)
            .field("kind", &self.kind)
            .finish()
    }
}

#[cfg(all(test, not(budget_pool_loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// On another thread, while this one has the lock: whatever takes it, too, does not end.
    #[test]
    fn what_is_said_to_take_no_lock_takes_none() {
        let pool = BudgetPool::builder().name("run").deadline(Duration::from_secs(3_600)).build();
        let mut lease = pool.lease(Amount::new().tokens(10)).unwrap();
        let (done, is_done) = mpsc::channel();
        std::thread::scope(|scope| {
            pool.handle().enter(|_, _| {
                scope.spawn(|| {
                    assert!(pool.time_left().is_some() && pool.deadline().is_some());
                    assert_eq!(
                        (pool.name(), format!("{:?}", pool.clone()).is_empty()),
                        ("run", false)
                    );
                    lease.record(Amount::new().tokens(4)).unwrap();
                    lease.debit(Amount::new().tokens(4));
                    assert_eq!(lease.remaining(), Amount::new().tokens(2));
                    assert_eq!(lease.pool().name(), "run");
                    done.send(()).unwrap();
                });
                is_done.recv_timeout(Duration::from_secs(60)).expect("it takes no lock");
            });
        });
    }
}
