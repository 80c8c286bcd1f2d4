//! The pool: how a task asks for budget, and how it tells of a spend.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::ask::Ask;
use crate::builder::{Child, Joint, PoolBuilder, Root};
use crate::engine::{Booked, Engine, Places, Survey};
use crate::handle::Handle;
use crate::lease::Lease;
use crate::reservation::{Receipt, Reservation};
use crate::run::run;
use crate::sync::take_last;
use crate::time::deadline::DeadlineBudget;
use crate::types::amount::{Amount, Caps};
use crate::types::error::BudgetError;
use crate::types::level::Level;
use crate::types::limit::Limit;
use crate::types::name::Name;
use crate::types::once::Once;
use crate::types::snapshot::{Holder, Snapshot, TreeSnapshot};
use crate::wait::{RecordWait, Wait};
use crate::watch::{Closed, Reached, Wants};
use crate::weak::WeakPool;

/// An [`Instant`] that is 30 years away can be told on every platform.
const LONGEST_PAUSE: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The end of a pause of at most thirty years that begins now.
fn pause_end(now: Instant, time: Duration) -> Instant {
    let mut time = time.min(LONGEST_PAUSE);
    // A clock of the user's may read an instant near the last that can be told.
    loop {
        match now.checked_add(time) {
            Some(end) => return end,
            None => time /= 2,
        }
    }
}

/// A budget that many tasks or threads share.
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

/// A pool that is not [ended](BudgetPool::end_if_idle).
pub(crate) struct Kept {
    pub(crate) pool: BudgetPool,
    /// Whether it may be for time to say.
    pub(crate) for_want_of_time: bool,
}

impl BudgetPool {
    pub(crate) fn new(handle: Handle) -> BudgetPool {
        BudgetPool::from_handle(Arc::new(handle))
    }

    pub(crate) fn from_handle(handle: Arc<Handle>) -> BudgetPool {
        BudgetPool { handle }
    }

    #[inline]
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes the last handle of an idle pool below `parent`, in one transition: a
    /// [`WeakPool`] that is upgraded meanwhile cannot spend before, and none can be upgraded after.
    /// Nobody is woken and nothing of the user's runs, as the caller may hold a lock. The pool leaves
    /// its tree when the handle is dropped.
    pub(crate) fn end_if_idle(
        self,
        parent: &BudgetPool,
        now: Option<Instant>,
    ) -> Result<Handle, Kept> {
        let node = self.handle.node();
        parent.handle.enter(|engine, _| match engine.is_idle(node, now) {
            Some(true) => take_last(self.handle)
                .map_err(|handle| Kept { pool: BudgetPool { handle }, for_want_of_time: false }),
            is_idle => Err(Kept { pool: self, for_want_of_time: is_idle.is_none() }),
        })
    }

    /// Whether anyone has another handle of this pool. It is only a hint.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.handle) > 1
    }

    /// Starts a pool: see [`PoolBuilder`]. Every cap is optional.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::builder().name("run-17").tokens(1_000).build();
    /// assert_eq!(pool.snapshot().tokens.cap, Some(1_000));
    /// ```
    pub fn builder() -> PoolBuilder<Root> {
        PoolBuilder::root()
    }

    /// A pool without caps: it counts, and no cap refuses a `record`.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::unlimited();
    /// pool.record(Amount::new().tokens(5))?;
    /// assert_eq!(pool.snapshot().tokens.spent, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn unlimited() -> BudgetPool {
        BudgetPool::builder().build()
    }

    /// Starts a pool below this one, whose every spend is also one of this pool's: both admit it,
    /// or neither changes.
    ///
    /// The caps of children may add up to more than the parent's: they compete. A child's
    /// `deadline` never outlives its parent's. A child of a closed pool is closed from the start.
    /// The spend of a child that is gone stays booked above.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let run = BudgetPool::builder().name("run").tokens(1_000).build();
    /// let agent = run.child().name("agent").tokens(600).build();
    ///
    /// agent.record(Amount::new().tokens(500))?;
    /// assert_eq!(run.snapshot().tokens.used, 500);
    /// assert_eq!(agent.record(Amount::new().tokens(200)).unwrap_err().pool(), "agent");
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn child(&self) -> PoolBuilder<Child> {
        PoolBuilder::child(self.clone())
    }

    /// Starts a pool below several pools of one tree: below a team and a model, for instance. A call
    /// on it is charged to itself and to every pool above any of its parents, or to none of them.
    ///
    /// A joint pool charges a pool once that it reaches by several parents. The path of a call is
    /// the joint pool, then the pools above it, each before its own parents, and the parents in the
    /// given order; a refusal names the first pool on that path that lacks something. The pool is
    /// closed with any of its parents, the earliest deadline counts, and a call waits in the line
    /// of each pool on its path. A joint pool can do whatever a pool can: it has children, carved
    /// ones and joint ones, too. It keeps the balances of all its parents, as a child does.
    ///
    /// A snapshot of a tree lists a joint pool once, below the first of its parents that is part of
    /// that tree. A parent that is given twice counts once.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Usd};
    ///
    /// let company = BudgetPool::builder().name("company").usd(Usd::from_dollars(100)).build();
    /// let below = |name: &str, dollars| company.child().name(name).usd(Usd::from_dollars(dollars)).build();
    /// let (team, model, tag) = (below("acme", 20), below("opus", 50), below("nightly", 5));
    ///
    /// let calls = BudgetPool::joint([&team, &model, &tag])?.name("acme/opus/nightly").build();
    /// calls.record(Amount::new().usd(Usd::from_dollars(4)))?;
    /// let refused = calls.record(Amount::new().usd(Usd::from_dollars(2))).unwrap_err();
    /// assert_eq!(refused.pool(), "nightly");
    /// assert_eq!([&company, &team, &model].map(|pool| pool.snapshot().usd.used), [Usd::from_dollars(4); 3]);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`NoParent`](BudgetError::NoParent) if there is none,
    /// [`ForeignPool`](BudgetError::ForeignPool) if one is of another tree than the first, and
    /// [`Carved`](BudgetError::Carved) if one is [carved](crate::PoolBuilder::carved) or below a
    /// carved pool: above its share a carved pool is not asked again, and the other parents would be.
    pub fn joint<'a>(
        parents: impl IntoIterator<Item = &'a BudgetPool>,
    ) -> Result<PoolBuilder<Joint>, BudgetError> {
        let mut seen = HashSet::new();
        let is_new = |parent: &&BudgetPool| seen.insert(Arc::as_ptr(&parent.handle));
        let parents: Vec<BudgetPool> = parents.into_iter().filter(is_new).cloned().collect();
        let first = parents.first().ok_or(BudgetError::NoParent {})?;
        for parent in &parents {
            if !parent.handle.is_of_tree(&first.handle) {
                return Err(BudgetError::ForeignPool { pool: parent.handle.name().clone() });
            }
            if let Some(pool) = parent.handle.enter(|engine, at| engine.carved_on(at)) {
                return Err(BudgetError::Carved { pool });
            }
        }
        Ok(PoolBuilder::joint(parents))
    }

    /// Asks and spends in one step: the whole `amount`, in this pool and all above it, or nothing
    /// (P1). Never waits.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(1_000).requests(1).build();
    /// pool.record(Amount::new().tokens(600).requests(1))?;
    /// assert!(pool.record(Amount::new().tokens(100).requests(1)).is_err());
    /// assert_eq!(pool.snapshot().tokens.used, 600); // on no axis
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Closed`](BudgetError::Closed), [`DeadlineExceeded`](BudgetError::DeadlineExceeded),
    /// [`Paused`](BudgetError::Paused), [`Queued`](BudgetError::Queued) if others wait in this
    /// pool, or in one above it that caps an axis of `amount` (P6), or
    /// [`Exceeded`](BudgetError::Exceeded), looked for in this order. Nothing has changed then
    /// (P7). A call that fits is never refused unless others wait (P4).
    #[inline]
    pub fn record(&self, amount: Amount) -> Result<(), BudgetError> {
        self.handle.record(amount.quantities())
    }

    /// Asks for a hold on the amount, and for one slot in flight, or for as many as
    /// [`Amount::in_flight`] names. Never waits. An [`Ask`] adds alternatives to the amount, and
    /// the terms of the hold.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(1_000).build();
    /// let hold = pool.reserve(Amount::new().tokens(800))?;
    /// hold.commit(Amount::new().tokens(650));
    /// assert_eq!(pool.snapshot().tokens.available, Some(350));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`record`](BudgetPool::record).
    #[inline(always)]
    pub fn reserve(&self, ask: impl Into<Ask>) -> Result<Reservation, BudgetError> {
        let Ask { amount, terms } = ask.into();
        let key = match terms.if_any() {
            None => self.handle.reserve(&amount.held()),
            Some(mut terms) => self.handle.reserve_on(&amount.held(), &mut terms),
        }?;
        Ok(Reservation::new(self.clone(), key))
    }

    /// A [`record`](BudgetPool::record) that counts once for its key: a call that is retried,
    /// because nobody knows whether it went through, spends once, and is told
    /// [`Once::Before`]. For two threads with the same key at once, too.
    ///
    /// A call that was refused is not remembered: nothing happened, and a retry may succeed. Keys
    /// belong to the pool that is called, stay through a [`reset`](BudgetPool::reset), and are
    /// forgotten after the time set by [`PoolBuilder::idempotency_keys`]. A key that is known is
    /// answered also after the deadline, and when closed: its amount was spent.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetError, BudgetPool, Once};
    ///
    /// let pool = BudgetPool::builder().tokens(1_000).build();
    /// let job = Amount::new().tokens(600);
    /// assert_eq!(pool.record_once("job-17", job)?, Once::Now);
    /// assert_eq!(pool.record_once("job-17", job)?, Once::Before); // a retry
    /// assert_eq!(pool.snapshot().tokens.used, 600);
    ///
    /// let other = pool.record_once("job-17", Amount::new().tokens(5));
    /// assert!(matches!(other, Err(BudgetError::KeyConflict { .. })));
    /// # Ok::<(), BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyConflict`](BudgetError::KeyConflict) if the key stands for another amount. If the key
    /// is not known: as [`record`](BudgetPool::record), and before capacity
    /// [`KeysFull`](BudgetError::KeysFull), with the instant at which there will be room for one.
    pub fn record_once(&self, key: impl Into<Name>, amount: Amount) -> Result<Once, BudgetError> {
        let key = key.into();
        self.handle.ask_at(|engine, at, now| engine.record_once(at, key, &amount, now))
    }

    /// A worker's own share of `batch`, to spend from without touching the pool: for spending in
    /// the hot loop of a thread pool, and not for lending, as a [`Lease::record`] spends for good.
    /// The share is not in flight, does not expire, is empty at first, and is
    /// [refilled](Lease::record) up to the batch by a call that it does not cover. `lease` asks
    /// nothing of the pool and cannot fail.
    ///
    /// Choose the batch so large that a worker spends it in about a millisecond, and no larger than
    /// the cap divided by ten times the number of workers.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().requests(1_000_000).build();
    /// std::thread::scope(|scope| {
    ///     for _worker in 0..4 {
    ///         scope.spawn(|| {
    ///             let mut lease = pool.lease(Amount::new().requests(1_000));
    ///             while lease.record(Amount::new().requests(1)).is_ok() {}
    ///         });
    ///     }
    /// });
    /// assert_eq!(pool.snapshot().requests.used, 1_000_000);
    /// ```
    pub fn lease(&self, batch: Amount) -> Lease {
        let key = self.handle.enter(Engine::lease);
        Lease::new(self.clone(), key, batch)
    }

    /// [`record`](BudgetPool::record), in line: spends as soon as it is this call's turn and the
    /// amount fits, as for a rate limit. It stands in the lines in which
    /// [`reserve_wait`](BudgetPool::reserve_wait) does.
    ///
    /// Take `record_wait`, and not a wait for a hold, where units come back by time: a hold does
    /// not come back while it is held, so that three tasks that wait for holds at once may wait for
    /// each other.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, Window};
    ///
    /// let rate = BudgetPool::builder()
    ///     .requests(100)
    ///     .window(Window::token_bucket(Duration::from_secs(1)))
    ///     .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
    ///     .build();
    /// for _call in 0..102 {
    ///     rate.record_wait(Amount::new().requests(1)).await?; // the last two wait 10 ms each
    /// }
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`reserve_wait`](BudgetPool::reserve_wait).
    ///
    /// # Cancel safety
    /// Dropped before it is ready, the future has spent nothing.
    pub fn record_wait(&self, amount: Amount) -> RecordWait {
        RecordWait::new(self.clone(), amount)
    }

    /// [`record_wait`](BudgetPool::record_wait), by parking the thread. Not for async code: it
    /// blocks the executor.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetPool, Window};
    /// let rate = BudgetPool::builder()
    ///     .requests(10)
    ///     .window(Window::token_bucket(Duration::from_millis(100)))
    ///     .build();
    /// for _call in 0..12 {
    ///     rate.record_blocking(Amount::new().requests(1))?; // the last two wait 10 ms each
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`reserve_wait`](BudgetPool::reserve_wait).
    pub fn record_blocking(&self, amount: Amount) -> Result<(), BudgetError> {
        self.record_wait(amount).block()
    }

    /// Asks for a hold on the amount, and waits until it is granted: first come, first served among
    /// the waiters that compete (P6), so that a stream of small calls cannot starve a large one.
    /// Nothing is asked before the first poll. See [`Wait`].
    ///
    /// A [window](PoolBuilder::window) that turns and a hold that [expires](crate::Ask::ttl) serve
    /// the wait as a release does. Where time may have to end it, by a deadline, a window, a pause
    /// or a hold that expires, the root pool needs a [timer](crate::PoolBuilder::timer).
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
    ///
    /// With the feature `tokio` a wait takes part in the cooperative budget of a tokio task. Without
    /// it, a task that loops over waits which are all granted at once keeps its thread from the other
    /// tasks and from its own timeout; there tokio wraps the wait:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool};
    /// use tokio::task::coop::cooperative;
    /// use tokio::time::timeout;
    ///
    /// let pool = BudgetPool::builder().in_flight(1).build();
    /// let worker = async {
    ///     loop {
    ///         cooperative(pool.reserve_wait(Amount::new())).await?.commit_all();
    ///     }
    ///     # #[allow(unreachable_code)]
    ///     # Ok::<(), budget_pool::BudgetError>(())
    /// };
    /// assert!(timeout(Duration::from_millis(20), worker).await.is_err());
    /// # });
    /// ```
    ///
    /// # Errors
    /// The wait ends as soon as there is nothing to wait for: with
    /// [`Exceeded`](BudgetError::Exceeded) if the amount can never fit,
    /// [`Closed`](BudgetError::Closed), [`DeadlineExceeded`](BudgetError::DeadlineExceeded),
    /// [`Timeout`](BudgetError::Timeout) after [`Ask::wait_at_most`], or
    /// [`QueueFull`](BudgetError::QueueFull) where the line is
    /// [full](crate::PoolBuilder::most_waiting). Without a timer a wait that time may have to end is
    /// refused at its first need of one, with [`NoTimer`](BudgetError::NoTimer).
    ///
    /// Where time alone makes a wait hopeless, the waiter may be told later, at the next call on the
    /// tree that knows the time or at the deadline, and the waiters behind it are served then: a
    /// [window](PoolBuilder::window) above brings back enough, but after the deadline; a hold above
    /// is settled by its expiry.
    ///
    /// # Cancel safety
    /// A future that is dropped before it is ready gives up its place in line, and holds nothing: a
    /// grant that it has not returned yet is released.
    #[inline]
    pub fn reserve_wait(&self, ask: impl Into<Ask>) -> Wait {
        Wait::new(self.clone(), ask.into())
    }

    /// [`reserve_wait`](BudgetPool::reserve_wait), by parking the thread. Not for async code: it
    /// blocks the executor.
    ///
    /// On a thread of a pool that takes up other jobs while it waits for its own, as rayon's do in
    /// `join` and `scope`, a job that holds a slot may end up below another job of the same thread
    /// that blocks for one: neither goes on. Reserve outside of the parallel part, one hold for all
    /// of it, or [`reserve`](BudgetPool::reserve) inside and do the work in line where that is
    /// refused.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let slots = BudgetPool::builder().in_flight(2).build();
    /// std::thread::scope(|scope| {
    ///     for _job in 0..5 {
    ///         scope.spawn(|| slots.reserve_blocking(Amount::new()).map(|slot| slot.commit_all()));
    ///     }
    /// });
    /// assert_eq!(slots.snapshot().committed, 5);
    /// ```
    ///
    /// # Errors
    /// As [`reserve_wait`](BudgetPool::reserve_wait).
    pub fn reserve_blocking(&self, ask: impl Into<Ask>) -> Result<Reservation, BudgetError> {
        self.reserve_wait(ask).block()
    }

    /// Drives a future until it is done, this pool or one above it is closed, or its deadline
    /// passes; then the future is dropped. The holds in the future end as [`OnDrop`](crate::OnDrop)
    /// says. On a pool that is closed or late already, the future is never polled.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use std::time::Duration;
    /// use budget_pool::{BudgetError, BudgetPool};
    ///
    /// let request = BudgetPool::builder()
    ///     .deadline(Duration::from_millis(20))
    ///     .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
    ///     .build();
    /// assert_eq!(request.run(async { 42 }).await, Ok(42));
    /// let stuck = request.run(std::future::pending::<()>()).await;
    /// assert!(matches!(stuck, Err(BudgetError::DeadlineExceeded(_))));
    /// # });
    /// ```
    ///
    /// # Errors
    /// [`Closed`](BudgetError::Closed), [`DeadlineExceeded`](BudgetError::DeadlineExceeded);
    /// [`NoTimer`](BudgetError::NoTimer) if the future has to wait, the pool has a deadline, and the
    /// root has no [timer](PoolBuilder::timer).
    ///
    /// # Cancel safety
    /// The future that it drives is dropped with it, and must be cancel-safe itself.
    pub fn run<F: Future>(
        &self,
        future: F,
    ) -> impl Future<Output = Result<F::Output, BudgetError>> + use<F> {
        run(self.clone(), future)
    }

    /// The answer that [`record`](BudgetPool::record) would give now; nothing is spent or counted.
    /// By the time it is read, it may have changed: to be sure of a spend, ask for it.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(10).build();
    /// assert!(pool.peek(Amount::new().tokens(10)).is_ok());
    /// assert!(pool.peek(Amount::new().tokens(11)).is_err());
    /// ```
    ///
    /// # Errors
    /// As [`record`](BudgetPool::record).
    #[inline]
    pub fn peek(&self, amount: Amount) -> Result<(), BudgetError> {
        self.handle.peek(amount.quantities())
    }

    /// Tells of a spend that happened without a [`Reservation`]. `debit` always books (P2), also
    /// after the deadline, also on a closed pool; the part that does not fit is overage.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let receipt = pool.debit(Amount::new().tokens(130)); // it happened
    /// assert_eq!(receipt.overage(), Amount::new().tokens(30));
    /// ```
    pub fn debit(&self, amount: Amount) -> Receipt {
        let mut receipt = Receipt::new(Booked::NOTHING, amount.labels());
        self.handle.debit(amount.quantities(), &mut receipt.booked);
        receipt
    }

    /// A [`debit`](BudgetPool::debit) that counts once for its key: an event that is delivered
    /// twice is booked once. It shares the keys of [`record_once`](BudgetPool::record_once). The
    /// receipt of a key that was known says that nothing was settled.
    ///
    /// A spend is never refused for lack of memory: while as many keys are remembered as
    /// [may be](crate::PoolBuilder::idempotency_keys), a key that is not known is booked as new
    /// and not remembered, so that the same event may be booked again; and so it is while the clock
    /// panics and the pool has never known the time.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(100).used(Amount::new().tokens(90)).build();
    /// for _delivery in 0..2 {
    ///     pool.debit_once("event-7", Amount::new().tokens(30))?;
    /// }
    /// let tokens = pool.snapshot().tokens;
    /// assert_eq!((tokens.spent, tokens.overage), (120, 20));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`KeyConflict`](BudgetError::KeyConflict) if the key stands for another amount. Nothing has
    /// been booked then.
    pub fn debit_once(&self, key: impl Into<Name>, amount: Amount) -> Result<Receipt, BudgetError> {
        let key = key.into();
        let booked =
            self.handle.tell_at(|engine, at, now| engine.debit_once(at, key, &amount, now))?;
        Ok(Receipt::new(booked, amount.labels()))
    }

    /// Tells that a spend was given back: a refund, or a correction of a figure that was booked too
    /// high. Always booked, also after the deadline, also when closed. On each axis, in this pool
    /// and all above it, `credit` reduces the `overage` first, then `used`, and `spent` by the
    /// same.
    ///
    /// A pool gives back no more than it has booked in its present period. A
    /// [carved](crate::PoolBuilder::carved) pool regains the credited part of its share; that is no
    /// more than each pool above has `used` in its own period, but for overage.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Usd};
    ///
    /// let pool = BudgetPool::builder().usd(Usd::from_dollars(10)).build();
    /// pool.record(Amount::new().usd("4.00".parse()?))?;
    /// let receipt = pool.credit(Amount::new().usd("1.50".parse()?));
    /// assert_eq!(receipt.credited().to_string(), "1.5 USD");
    ///
    /// let usd = pool.snapshot().usd;
    /// assert_eq!((usd.used, usd.spent), ("2.50".parse()?, "2.50".parse()?));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn credit(&self, amount: Amount) -> Receipt {
        let booked =
            self.handle.tell(|engine, at, now| engine.credit(at, amount.quantities(), now));
        Receipt::new(booked, amount.labels())
    }

    /// Sets `used` of this pool, on the axes that are named, to the figure that is known from
    /// elsewhere: from the provider, or from before a restart. `set_used` changes this pool alone.
    /// The part that does not fit under the cap is overage; `spent` moves by the difference. Works
    /// after the deadline and on a closed pool, too.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let provider = BudgetPool::builder().tokens(90_000).build();
    /// provider.debit(Amount::new().tokens(40_000));
    /// // "x-ratelimit-remaining-tokens: 5000"
    /// provider.set_used(Amount::new().tokens(90_000 - 5_000))?;
    /// assert_eq!(provider.snapshot().tokens.available, Some(5_000));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`Carved`](BudgetError::Carved) where a [carved](crate::PoolBuilder::carved) pool is told of
    /// an axis of its share: the pools above keep a share for it that follows from its `used`.
    /// Nothing has changed then.
    pub fn set_used(&self, amount: Amount) -> Result<(), BudgetError> {
        self.handle.tell(|engine, at, now| engine.set_used(at, amount.quantities(), now))
    }

    /// [`record`](BudgetPool::record), and the [`Snapshot`] of this pool in the very instant of the
    /// spend (P5): for an answer that says how much is left.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let snapshot = pool.record_and_snapshot(Amount::new().tokens(30))?;
    /// assert_eq!(snapshot.tokens.available, Some(70));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`record`](BudgetPool::record).
    pub fn record_and_snapshot(&self, amount: Amount) -> Result<Snapshot, BudgetError> {
        self.handle.ask(|engine, at, now| engine.record_and_snapshot(at, amount.quantities(), now))
    }

    /// The [`Snapshot`] of this pool at one instant (P5).
    #[must_use]
    #[inline]
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot::nothing();
        self.handle.snapshot_into(&mut snapshot);
        snapshot
    }

    /// The [`Snapshot`]s of this pool and all those below it, at one and the same instant (P5). It
    /// takes time in proportion to their number, under the lock. It reads the clock if any of them
    /// must know the time (P8).
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let run = BudgetPool::builder().name("run").build();
    /// let agent = run.child().name("agent").build();
    /// agent.record(Amount::new().tokens(5))?;
    /// for snapshot in run.snapshot_tree().iter() {
    ///     assert_eq!(snapshot.tokens.used, 5);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn snapshot_tree(&self) -> TreeSnapshot {
        let (mut places, reading) = (Places::FEW, OnceCell::new());
        let mut survey = Survey::default();
        loop {
            survey.begin(places);
            let look = |engine: &mut Engine, at, now| engine.snapshot_tree(at, now, &mut survey);
            match self.handle.survey(&reading, look) {
                Ok(()) => return TreeSnapshot::new(survey.into_snapshots()),
                Err(more) => places = more,
            }
        }
    }

    /// The owners of all held units: every live [`Reservation`] and [`Lease`] of this pool and of
    /// those below it, and every wait whose grant nobody has come for; the largest first, by tokens
    /// and then by the other axes in declared order. The amount of a lease is its share as the pool
    /// knows it: a spend that is not settled yet counts as held. It takes O(holds of the tree x
    /// depth) under the lock, and a little for each hold of the peak number there ever was.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::unlimited();
    /// let small = pool.reserve(Amount::new().tokens(5))?.label("judge");
    /// let large = pool.reserve(Amount::new().tokens(900))?.label("draft");
    /// assert_eq!(pool.holders()[0].label, Some("draft".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let mut holders = self.handle.tell(Engine::holders);
        holders.sort_by(|a, b| b.amount.quantities().units().cmp(a.amount.quantities().units()));
        holders
    }

    /// Each cap that counts for this pool at one instant (P5): its own first, and then those of the
    /// pools above it, up to the nearest carve. For a service that tells its callers what is left,
    /// and when there is more.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, ManualClock, Window};
    ///
    /// let clock = ManualClock::new();
    /// let month = BudgetPool::builder().name("month").usd("40".parse()?).clock(clock.clone()).build();
    /// let minute = Window::fixed(Duration::from_secs(60));
    /// let pool = month.child().name("minute").requests(10).window(minute).build();
    /// pool.record(Amount::new().requests(3))?;
    ///
    /// clock.advance(Duration::from_secs(20));
    /// let [requests, money] = &pool.limits()[..] else { unreachable!() };
    /// assert_eq!((requests.pool.as_str(), requests.free.units()), ("minute", 7));
    /// assert_eq!(requests.more_in, Some(Duration::from_secs(40)));
    /// assert_eq!((money.pool.as_str(), money.more_in), ("month", None));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn limits(&self) -> Vec<Limit> {
        self.handle.tell(Engine::limits)
    }

    /// Starts a new period of this pool alone, and returns the [`Snapshot`] of the old one in the
    /// same instant.
    ///
    /// `used` and `overage` go to zero, and each `peak` starts again from `reserved`; `spent` and
    /// the counts stay. Live holds stay, and settle into the new period. A
    /// [`Window`](crate::Window) turns when it would have turned. On a carved pool `reset` creates
    /// no budget: the caps become the rest of its share.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// pool.record(Amount::new().tokens(100))?;
    /// assert_eq!(pool.reset().tokens.used, 100); // the old period
    /// pool.record(Amount::new().tokens(100))?;
    /// assert_eq!(pool.snapshot().tokens.spent, 200);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn reset(&self) -> Snapshot {
        self.handle.tell(Engine::reset)
    }

    /// Raises the caps; new room pays `overage` first (P2). An axis without a cap stays unlimited.
    /// On a carved pool the budget moves here from the parent, in one transition.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, Caps};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// pool.raise_caps(Caps::new().tokens(50))?;
    /// pool.record(Amount::new().tokens(150))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Exceeded`](BudgetError::Exceeded) if a cap would no longer fit into a `u64`: `available`
    /// is then how far it can rise, and `cap` is `u64::MAX`. [`Closed`](BudgetError::Closed); on a
    /// carved pool every refusal of the parent's [`record`](BudgetPool::record) but
    /// [`Queued`](BudgetError::Queued): a move of caps passes the waiters. Nothing has changed
    /// then.
    pub fn raise_caps(&self, caps: Caps) -> Result<(), BudgetError> {
        self.handle.ask(|engine, at, now| engine.raise_caps(at, &caps, now))
    }

    /// Lowers the caps by free units; on a carved pool they go back to the parent. An axis without
    /// a cap stays unlimited.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, Caps};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// pool.record(Amount::new().tokens(60))?;
    /// assert!(pool.lower_caps(Caps::new().tokens(50)).is_err()); // 40 are free
    /// pool.lower_caps(Caps::new().tokens(40))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Exceeded`](BudgetError::Exceeded) if less is free in this pool. Nothing has changed then.
    pub fn lower_caps(&self, caps: Caps) -> Result<(), BudgetError> {
        self.handle.tell(|engine, at, now| engine.lower_caps(at, &caps, now))
    }

    /// The kill switch, for good: from now on every admission of this pool and of those below it is
    /// refused with [`Closed`](BudgetError::Closed), and every waiter is told. Facts are still
    /// booked, live reservations can still be settled. A carved pool gives back the units that are
    /// neither `used` nor `reserved`.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let run = BudgetPool::unlimited();
    /// let hold = run.child().build().reserve(Amount::new().tokens(5))?;
    /// run.close();
    /// assert!(hold.pool().record(Amount::new().tokens(1)).is_err());
    /// hold.commit_all(); // accounting goes on
    /// assert_eq!(run.snapshot().tokens.used, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close(&self) {
        self.handle.enter(Engine::close);
    }

    /// Pauses admission by this pool and all below it for so long: a call is refused with
    /// [`Paused`](BudgetError::Paused) and the exact instant, and a waiter sleeps until then.
    /// `pause` is for a provider that says when to come back.
    ///
    /// Accounting goes on: a commit, a debit and a credit are booked, and holds expire. A [`Lease`]
    /// spends from the share that it has. A pause moves no window and no deadline: where several of
    /// them hold a call up, the latest instant counts. Of two pauses of one pool the longer wins. A
    /// pause of more than 30 years is one of 30 years. A waiter whose deadline comes before the end
    /// of the pause is refused at once.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetError, BudgetPool, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let provider = BudgetPool::builder().name("provider").clock(clock.clone()).build();
    /// let agent = provider.child().name("agent").build();
    ///
    /// provider.pause(Duration::from_secs(20)); // 429, Retry-After: 20
    /// let refused = agent.record(Amount::new().requests(1)).unwrap_err();
    /// assert_eq!(refused.to_string(), "`provider` is paused, will fit in 20s");
    ///
    /// clock.advance(Duration::from_secs(20));
    /// agent.record(Amount::new().requests(1))?;
    /// # Ok::<(), BudgetError>(())
    /// ```
    pub fn pause(&self, time: Duration) {
        let end = |present| pause_end(present, time);
        self.handle.ask_at(|engine, at, now| engine.pause(at, now, end));
    }

    /// A [`pause`](BudgetPool::pause) until an instant of the pool's clock. An instant that has
    /// come pauses nothing.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetPool, Clock, ManualClock};
    /// let clock = ManualClock::new();
    /// let pool = BudgetPool::builder().clock(clock.clone()).build();
    /// pool.pause_until(clock.now() + Duration::from_secs(5));
    /// assert_eq!(pool.record(Amount::new()).unwrap_err().retry_after(), Some(Duration::from_secs(5)));
    /// ```
    pub fn pause_until(&self, until: Instant) {
        self.handle.ask_at(|engine, at, now| engine.pause(at, now, |_| until));
    }

    /// Ends the [`pause`](BudgetPool::pause) of this pool, and serves the waiters. A pause of a
    /// pool above it goes on.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::unlimited();
    /// pool.pause(Duration::from_secs(3_600));
    /// pool.resume();
    /// pool.record(Amount::new().requests(1))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resume(&self) {
        self.handle.tell(Engine::resume);
    }

    /// A future that resolves when this pool, or one above it, is closed: for a fan-out that must
    /// stop at once.
    ///
    /// ```
    /// use budget_pool::BudgetPool;
    ///
    /// let run = BudgetPool::unlimited();
    /// let agent = run.child().build();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| run.close());
    ///     agent.closed().block();
    /// });
    /// assert!(agent.is_closed());
    /// ```
    ///
    /// # Cancel safety
    /// The future may be dropped and made again: a pool that is closed stays closed.
    pub fn closed(&self) -> Closed {
        Closed::new(self.clone())
    }

    /// A future that resolves when the balances of this pool are at a [`Level`], with the snapshot of
    /// that instant: for an alert at 80 per cent. On a pool that is there already it resolves at the
    /// first poll. See [`Reached`].
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// use budget_pool::{Amount, Axis, BudgetPool, Level};
    ///
    /// let pool = BudgetPool::builder().tokens(1_000).build();
    /// let alert = pool.reached(Level::percent(Axis::Tokens, 80));
    /// let spend = async {
    ///     for _call in 0..9 {
    ///         pool.record(Amount::new().tokens(100)).expect("it fits");
    ///         tokio::task::yield_now().await;
    ///     }
    /// };
    /// let (snapshot, ()) = tokio::join!(alert, spend);
    /// assert_eq!(snapshot.tokens.used, 800);
    /// # });
    /// ```
    ///
    /// # Cancel safety
    /// The future may be dropped at any point, and leaves nothing behind. A new one resolves at once on a
    /// pool that is at the level.
    pub fn reached(&self, level: Level) -> Reached {
        Reached::new(self.clone(), level)
    }

    /// A future that resolves with a [`Want`](crate::Want) when this pool is short of budget: for
    /// whoever funds the pool. See [`Wants`].
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Caps};
    ///
    /// let pool = BudgetPool::builder().tokens(100).ceiling(Caps::new().tokens(1_000)).build();
    /// let worker = std::thread::spawn({
    ///     let pool = pool.clone();
    ///     move || pool.reserve_blocking(Amount::new().tokens(400)).map(|hold| hold.release())
    /// });
    ///
    /// let want = pool.wants().block();
    /// assert_eq!(want.missing, Amount::new().tokens(300));
    /// pool.raise_caps(want.missing.into_iter().collect())?;
    /// worker.join().expect("it does not panic")?;
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Cancel safety
    /// The future may be dropped at any point, and leaves nothing behind. A refusal is told only to the
    /// futures that watched at that instant.
    pub fn wants(&self) -> Wants {
        Wants::new(self.clone())
    }

    /// [`lower_caps`](BudgetPool::lower_caps), as far as that is free. Returns the units by which
    /// each cap fell.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, Caps};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// pool.record(Amount::new().tokens(60))?;
    /// assert_eq!(pool.lower_caps_up_to(Caps::new().tokens(50)), Caps::new().tokens(40));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn lower_caps_up_to(&self, caps: Caps) -> Caps {
        self.handle.tell(|engine, at, now| engine.lower_caps_up_to(at, &caps, now))
    }

    /// Sets the caps that `caps` names, up or down, also on an axis that had none: its `used`
    /// counts.
    ///
    /// A cap may be set below `used`: the rest is `overage` at once, and waiters that can never be
    /// met any more are refused. A cap cannot be below `reserved` (P1): then it falls as holds end,
    /// nothing is admitted on that axis meanwhile, and
    /// [`falling_to`](crate::AxisSnapshot::falling_to) shows the goal. On the axes of its share a
    /// [carved](crate::PoolBuilder::carved) pool gains from its parent, or gives back to it; a cap
    /// on another axis is a limit, and no share.
    ///
    /// ```
    /// use budget_pool::{BudgetPool, Amount, Caps};
    ///
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// pool.record(Amount::new().tokens(60))?;
    /// pool.set_caps(Caps::new().tokens(50))?;
    ///
    /// let tokens = pool.snapshot().tokens;
    /// assert_eq!((tokens.cap, tokens.used, tokens.overage), (Some(50), 50, 10));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// Only where a cap rises, as [`raise_caps`](BudgetPool::raise_caps):
    /// [`Closed`](BudgetError::Closed) on a closed pool, and on a carved one every refusal of the
    /// parent. Nothing has changed then.
    pub fn set_caps(&self, caps: Caps) -> Result<(), BudgetError> {
        self.handle.ask(|engine, at, now| engine.set_caps(at, &caps, now))
    }

    /// Moves `caps` from this pool to another of its tree, in one step: the caps of this pool are
    /// lowered by free units, and those of `to` are raised. Between
    /// [carved](crate::PoolBuilder::carved) siblings a share moves, and no other call can take it
    /// in between.
    ///
    /// The cap of a pool that is not carved is a limit, and no budget of its own: to raise the cap of
    /// a parent by that of such a child makes budget in the parent. To give a carved child more of
    /// its parent, [raise](BudgetPool::raise_caps) the child's caps: a transfer would lower the
    /// parent's, too, and needs that free as well.
    ///
    /// A move of caps is no new work: it passes the waiters, and works after the deadline.
    ///
    /// ```
    /// use budget_pool::{BudgetPool, Caps};
    ///
    /// let team = BudgetPool::builder().tokens(1_000).build();
    /// let idle = team.child().name("idle").tokens(500).carved().build()?;
    /// let busy = team.child().name("busy").tokens(500).carved().build()?;
    ///
    /// idle.transfer(&busy, Caps::new().tokens(300))?;
    /// assert_eq!(busy.snapshot().tokens.cap, Some(800));
    /// assert_eq!(team.snapshot().tokens.reserved, 1_000);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`ForeignPool`](BudgetError::ForeignPool) if the other is not of the same tree,
    /// [`Uncapped`](BudgetError::Uncapped) if one of the two has no cap on an axis that is named,
    /// [`Closed`](BudgetError::Closed) if the other is closed,
    /// [`Exceeded`](BudgetError::Exceeded) if less is free here, if the other's cap would no longer
    /// fit into a `u64`, or if the pools above a carved one cannot reserve it. Nothing has changed
    /// then.
    pub fn transfer(&self, to: &BudgetPool, caps: Caps) -> Result<(), BudgetError> {
        if !self.handle.is_of_tree(&to.handle) {
            let refusal = BudgetError::ForeignPool { pool: to.handle.name().clone() };
            return Err(self.handle.refused(refusal));
        }
        self.handle
            .tell_both(&to.handle, |engine, [from, to], now| engine.transfer(from, to, &caps, now))
    }

    /// Sets how far the caps that `ceiling` names may still be [raised](BudgetPool::raise_caps). A
    /// call that fits below the ceiling and not below the cap is refused with
    /// [`AfterFunding`](crate::Outlook::AfterFunding), and may [wait](BudgetPool::reserve_wait) for
    /// it; only a call beyond the ceiling will never fit. A ceiling refuses no raise: a ceiling
    /// below the cap says that no raise is to come.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool, Caps, Outlook};
    ///
    /// let pool = BudgetPool::builder().tokens(0).ceiling(Caps::new().tokens(1_000)).build();
    /// let refused = |tokens| pool.record(Amount::new().tokens(tokens)).unwrap_err().outlook();
    /// assert_eq!([refused(1_000), refused(1_001)], [Outlook::AfterFunding, Outlook::Never]);
    /// ```
    pub fn set_ceiling(&self, ceiling: Caps) {
        self.handle.tell(|engine, at, now| engine.set_ceiling(at, &ceiling, now));
    }

    /// A [`WeakPool`]: a handle that does not keep the pool alive.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::unlimited();
    /// let weak = pool.downgrade();
    /// assert!(weak.upgrade().is_some());
    /// drop(pool);
    /// assert!(weak.upgrade().is_none());
    /// ```
    #[must_use]
    pub fn downgrade(&self) -> WeakPool {
        WeakPool::new(Arc::downgrade(&self.handle))
    }

    /// Whether both are handles of the same pool.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::unlimited();
    /// assert!(pool.ptr_eq(&pool.clone()));
    /// assert!(!pool.ptr_eq(&pool.child().build()));
    /// ```
    #[must_use]
    pub fn ptr_eq(&self, other: &BudgetPool) -> bool {
        Arc::ptr_eq(&self.handle, &other.handle)
    }

    /// Whether this pool, or one above it, was closed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.handle.enter(|engine, at| engine.is_closed(at))
    }

    /// The name that refusals give as [`BudgetError::pool`]; `pool` if it was not given one.
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

    /// The [`DeadlineBudget`] of this pool, to ask it for timeouts: that of
    /// [`PoolBuilder::deadline`], or else the parent's, over at the earliest deadline on the way up
    /// and read by the pool's clock. `None` without one.
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

#[cfg(any(test, debug_assertions))]
impl BudgetPool {
    /// Asserts that all derived state of the tree agrees with its sources: a test of this crate
    /// calls it after every step. It takes time in proportion to the tree, and is absent from
    /// release builds.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        self.handle.enter(|engine, _| engine.check_invariants());
    }
}

impl fmt::Debug for BudgetPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BudgetPool").field("name", &self.name()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(budget_pool_loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Another thread calls while this one has the lock: a call that takes it, too, does not end.
    #[test]
    fn what_is_said_to_take_no_lock_takes_none() {
        let pool = BudgetPool::builder().name("run").deadline(Duration::from_secs(3_600)).build();
        let mut lease = pool.lease(Amount::new().tokens(10));
        lease.record(Amount::new().tokens(2)).unwrap();
        let hold =
            pool.reserve(Ask::new(Amount::new().tokens(10)).ttl(Duration::from_secs(60))).unwrap();
        let (done, is_done) = mpsc::channel();
        std::thread::scope(|scope| {
            pool.handle().enter(|_, _| {
                scope.spawn(|| {
                    assert!(pool.time_left().is_some() && pool.deadline().is_some());
                    assert_eq!(
                        (pool.name(), format!("{:?}", pool.clone()).is_empty()),
                        ("run", false)
                    );
                    assert!(format!("{hold:?}").starts_with("Reservation { pool: \"run\", key: "));
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
