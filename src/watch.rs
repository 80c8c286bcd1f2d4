//! Futures that are told when the state of a pool meets a condition.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::engine::{Condition, Met, WatchKey};
use crate::pool::BudgetPool;
use crate::sync::{cooperative, thread};
use crate::types::level::Level;
use crate::types::snapshot::Snapshot;
use crate::types::want::Want;

/// The end of a pool to come, from [`BudgetPool::closed`]. It works on any runtime, keeps its pool
/// alive, and is cancel-safe: dropped at any point, it leaves nothing behind. Polled again after its
/// end, it is ready again.
#[must_use = "it does nothing unless it is awaited"]
pub struct Closed(Watching);

/// A [`Level`] to be reached, from [`BudgetPool::reached`].
///
/// It resolves once, with the [`Snapshot`] of the transition that reached the level, even if the
/// balances have fallen since. It survives [resets](BudgetPool::reset) and [windows](crate::Window)
/// that turn. To be told again in the next period, ask [`BudgetPool::reached`] again once the
/// balances have fallen below the level: on a pool that is at the level a new one resolves at the
/// first poll.
///
/// It watches from its first poll on. It works on any runtime, keeps its pool alive, and is
/// cancel-safe: dropped at any point, it leaves nothing behind. With the feature `tokio` it takes part
/// in the cooperative budget of its task, [as a wait does](crate::Wait#in-a-busy-task). Fused: polled
/// again after its end, it is pending for ever. The waker is woken by the call that reached the level, without the lock; one
/// that panics is passed over.
///
/// # Time
///
/// The work of time is seen when a call does it. A hold that has expired counts until a call
/// reclaims it, but no level is told that is reached by such holds alone: first all is done that is
/// due by the latest reading of the clock. A poll reads the clock as [`BudgetPool::snapshot`] does
/// (P8).
///
/// # A closed pool
///
/// Accounting goes on in a closed pool, and so does the watch. A closed
/// [carved](crate::PoolBuilder::carved) pool gives back the units that are neither `used` nor
/// `reserved`: its cap becomes `used + reserved`, which is all of it.
///
/// # What it costs
///
/// Nothing in a tree in which no `Reached` and no [`Wants`] waits. While one waits, no call of the
/// tree takes the short way, and each call looks at the watches of the pools on its way up: in
/// proportion to their number and to the depth.
#[must_use = "it does nothing unless it is awaited"]
pub struct Reached(Watching);

/// A [`Want`] to come, from [`BudgetPool::wants`].
///
/// It resolves once, when the pool is short of budget:
///
/// - less is free than [`PoolBuilder::low`](crate::PoolBuilder::low);
/// - a call that asks for units was refused with
///   [`AfterFunding`](crate::Outlook::AfterFunding) while it watched, on this pool or on one below
///   it, and the pool lacks units that only a higher cap makes room for; to
///   [take caps away](BudgetPool::lower_caps) or to [move them](BudgetPool::transfer) is no such
///   call; or
/// - a waiter stands blocked at this pool, and only a higher cap of this pool makes room for it. That
///   takes a [ceiling](crate::PoolBuilder::ceiling): without one such a waiter is refused.
///
/// On a pool that is low, or has such a waiter, a new one resolves at the first poll; a refusal is
/// told to those that watched at that instant, and is not remembered for others. So a funder's loop
/// raises the caps, or waits for a while, before it asks again. [`Want::missing`] names the units
/// that would do.
///
/// It watches from its first poll on. It works on any runtime, keeps its pool alive, and is
/// cancel-safe: dropped at any point, it leaves nothing behind. Fused: polled again after its end, it
/// is pending for ever. The waker is woken by the call that made the pool short, without the lock; one
/// that panics is passed over. It costs what a [`Reached`] does.
///
/// As a [`Reached`](Reached#time) does, it counts no hold that has expired by the latest reading of
/// the clock.
///
/// A closed pool wants nothing, as nothing can fund it: the future stays pending. A funder's loop ends
/// by [`BudgetPool::closed`].
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use budget_pool::{Amount, BudgetPool, Caps};
///
/// let pool = BudgetPool::builder().tokens(100).ceiling(Caps::new().tokens(1_000)).build();
/// let fund = async {
///     loop {
///         tokio::select! {
///             want = pool.wants() => pool.raise_caps(want.missing.into_iter().collect())?,
///             () = pool.closed() => return Ok::<(), budget_pool::BudgetError>(()),
///         }
///     }
/// };
/// let work = async {
///     for _call in 0..10 {
///         pool.reserve_wait(Amount::new().tokens(60)).await?.commit_all();
///     }
///     pool.close();
///     Ok(())
/// };
/// tokio::try_join!(fund, work)?;
/// assert_eq!(pool.snapshot().tokens.cap, Some(600));
/// # Ok::<(), budget_pool::BudgetError>(())
/// # }).unwrap();
/// ```
#[must_use = "it does nothing unless it is awaited"]
pub struct Wants(Watching);

/// The condition, and the place in the engine of the one that waits for it.
struct Watching {
    pool: BudgetPool,
    condition: Condition,
    key: Option<WatchKey>,
    has_ended: bool,
}

impl Watching {
    fn new(pool: BudgetPool, condition: Condition) -> Watching {
        Watching { pool, condition, key: None, has_ended: false }
    }

    fn poll(&mut self, waker: &Waker) -> Poll<Met> {
        if self.has_ended {
            return Poll::Pending;
        }
        let Watching { pool, condition, key, has_ended } = self;
        let (handle, waker) = (pool.handle(), waker.clone());
        let (poll, wakers) = match condition {
            // No time is needed to know it.
            Condition::Closed => {
                handle.enter(|engine, at| engine.poll_watch(at, key, condition, waker, None))
            }
            _ => handle.tell(|engine, at, now| engine.poll_watch(at, key, condition, waker, now)),
        };
        *has_ended = poll.is_ready() && !matches!(condition, Condition::Closed);
        drop(wakers);
        poll
    }

    /// Drives it by parking this thread, until an instant of the system's clock, if there is one.
    fn block(mut self, end: Option<Instant>) -> Option<Met> {
        let waker = thread::unparker();
        loop {
            if let Poll::Ready(met) = self.poll(&waker) {
                return Some(met);
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return None;
            }
            thread::park(left);
        }
    }

    fn block_for_ever(self) -> Met {
        self.block(None).expect("it has no end but that it is met")
    }

    fn block_at_most(self, time: Duration) -> Option<Met> {
        // A time that an instant cannot tell is for ever.
        let end = Instant::now().checked_add(time);
        self.block(end)
    }

    fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("pool", &self.pool.name()).finish_non_exhaustive()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            drop(self.pool.handle().enter(|engine, at| engine.cancel_watch(at, key)));
        }
    }
}

const OTHER: &str = "each condition is told what it waits for";

fn snapshot(met: Met) -> Snapshot {
    match met {
        Met::Reached(snapshot) => *snapshot,
        _ => unreachable!("{OTHER}"),
    }
}

fn want(met: Met) -> Want {
    match met {
        Met::Wanting(want) => want,
        _ => unreachable!("{OTHER}"),
    }
}

impl Closed {
    pub(crate) fn new(pool: BudgetPool) -> Closed {
        Closed(Watching::new(pool, Condition::Closed))
    }

    /// Parks the thread until the pool is closed. Not for async code: it blocks the executor.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::unlimited();
    /// std::thread::scope(|scope| {
    ///     scope.spawn(|| pool.close());
    ///     pool.closed().block();
    /// });
    /// ```
    pub fn block(self) {
        self.0.block_for_ever();
    }

    /// [`block`](Closed::block), until `time` is over by the system's clock, whatever the clock of
    /// the pool. Returns whether the pool is closed.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = budget_pool::BudgetPool::unlimited();
    /// assert!(!pool.closed().block_at_most(Duration::from_millis(1)));
    /// pool.close();
    /// assert!(pool.closed().block_at_most(Duration::ZERO));
    /// ```
    pub fn block_at_most(self, time: Duration) -> bool {
        self.0.block_at_most(time).is_some()
    }
}

impl Reached {
    pub(crate) fn new(pool: BudgetPool, level: Level) -> Reached {
        Reached(Watching::new(pool, Condition::Reached(level)))
    }

    /// Parks the thread until the level is reached. Not for async code: it blocks the executor.
    ///
    /// ```
    /// use budget_pool::{Amount, Axis, BudgetPool, Level};
    ///
    /// let pool = BudgetPool::builder().requests(10).build();
    /// std::thread::scope(|scope| {
    ///     let alert = scope.spawn(|| pool.reached(Level::percent(Axis::Requests, 80)).block());
    ///     (0..8).for_each(|_| pool.record(Amount::new().requests(1)).expect("it fits"));
    ///     assert_eq!(alert.join().expect("it does not panic").requests.used, 8);
    /// });
    /// ```
    pub fn block(self) -> Snapshot {
        snapshot(self.0.block_for_ever())
    }

    /// [`block`](Reached::block), until `time` is over by the system's clock, whatever the clock of
    /// the pool. Returns `None` if the level was not reached by then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Axis, BudgetPool, Level};
    ///
    /// let pool = BudgetPool::builder().requests(10).build();
    /// let alert = pool.reached(Level::percent(Axis::Requests, 80));
    /// assert!(alert.block_at_most(Duration::from_millis(1)).is_none());
    /// ```
    #[must_use]
    pub fn block_at_most(self, time: Duration) -> Option<Snapshot> {
        self.0.block_at_most(time).map(snapshot)
    }
}

impl Wants {
    pub(crate) fn new(pool: BudgetPool) -> Wants {
        Wants(Watching::new(pool, Condition::Wanting))
    }

    /// Parks the thread until the pool is short of budget. Not for async code: it blocks the
    /// executor.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(100).low(Amount::new().tokens(10)).build();
    /// pool.debit(Amount::new().tokens(130));
    /// // Ten are to be free, and the overage is paid first.
    /// assert_eq!(pool.wants().block().missing, Amount::new().tokens(40));
    /// ```
    pub fn block(self) -> Want {
        want(self.0.block_for_ever())
    }

    /// [`block`](Wants::block), until `time` is over by the system's clock, whatever the clock of
    /// the pool. Returns `None` if nothing was wanted by then.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let pool = budget_pool::BudgetPool::builder().tokens(100).build();
    /// assert!(pool.wants().block_at_most(Duration::from_millis(1)).is_none());
    /// ```
    #[must_use]
    pub fn block_at_most(self, time: Duration) -> Option<Want> {
        self.0.block_at_most(time).map(want)
    }
}

impl Future for Closed {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let watching = &mut self.get_mut().0;
        cooperative(context, |context| watching.poll(context.waker())).map(drop)
    }
}

impl Future for Reached {
    type Output = Snapshot;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Snapshot> {
        let watching = &mut self.get_mut().0;
        cooperative(context, |context| watching.poll(context.waker())).map(snapshot)
    }
}

impl Future for Wants {
    type Output = Want;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Want> {
        let watching = &mut self.get_mut().0;
        cooperative(context, |context| watching.poll(context.waker())).map(want)
    }
}

impl fmt::Debug for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Closed", f)
    }
}

impl fmt::Debug for Reached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Reached", f)
    }
}

impl fmt::Debug for Wants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Wants", f)
    }
}
