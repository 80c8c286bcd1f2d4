//! The lock around a tree of pools. The only file that locks: one call, one lock, one transition.
//!
//! The clock is read before the lock is taken, and whatever is the user's is dropped after it was
//! let go.
//!
//! Whether a call must know the time depends on its path, which never changes, and on whether there
//! is a hold that may expire. The second is told by a flag, so that the lock need not be taken for
//! it. It is only a hint, which is why it needs no memory order: a call that finds such a hold
//! under the lock, and has not read the clock, lets go of the lock and does.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::Instant;

use crate::engine::idempotency::Keys;
use crate::engine::nodes::{NodeId, Spec, Tree};
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard};
use crate::time::clock::SharedClock;
use crate::time::deadline::DeadlineBudget;
use crate::types::error::BudgetError;
use crate::types::name::Name;

/// A sleep of the caller's runtime.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How such a sleep is had.
pub(crate) type Timer = std::sync::Arc<dyn Fn(Instant) -> Sleep + Send + Sync>;

/// What all pools of a tree go by.
#[derive(Clone, Default)]
pub(crate) struct Runtime {
    pub(crate) clock: SharedClock,
    pub(crate) timer: Option<Timer>,
}

/// One tree of pools.
struct Shared {
    tree: Mutex<Tree>,
    /// Whether there is a live hold that may expire, as of the end of the last transition.
    may_expire: AtomicBool,
    clock: SharedClock,
    timer: Option<Timer>,
}

/// How many are woken without a change of the queue's memory.
const FEW: usize = 8;

/// The lock while a transition runs. Its end wakes all that the transition granted or told, without
/// the lock: a waker may come back here. No other thread wakes them for this one: it might hold a
/// lock that they take.
struct Transition<'a> {
    shared: &'a Shared,
    tree: Option<MutexGuard<'a, Tree>>,
    could_expire: bool,
}

impl Transition<'_> {
    #[inline]
    fn begin(shared: &Shared) -> Transition<'_> {
        let tree = shared.tree.lock();
        let could_expire = tree.may_expire();
        Transition { shared, tree: Some(tree), could_expire }
    }

    /// Lets go of the lock meanwhile. Nothing has been changed yet.
    #[cold]
    fn interrupted<R>(&mut self, by: impl Fn() -> R) -> R {
        self.tree = None;
        let result = by();
        *self = Transition::begin(self.shared);
        result
    }

    #[inline]
    fn tree(&mut self) -> &mut Tree {
        self.tree.as_mut().expect("it holds the lock until its end")
    }
}

impl Drop for Transition<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(tree) = self.tree.take() {
            if tree.may_expire() != self.could_expire || !tree.waits.wakers.is_empty() {
                self.shared.end(tree);
            }
        }
    }
}

impl Shared {
    /// The end of a transition after which others must be told something.
    #[cold]
    fn end(&self, tree: MutexGuard<'_, Tree>) {
        self.may_expire.store(tree.may_expire(), Relaxed);
        wake(tree);
    }
}

fn wake(mut tree: MutexGuard<'_, Tree>) {
    let wakers = &mut tree.waits.wakers;
    let many = if wakers.len() > FEW { std::mem::take(wakers) } else { VecDeque::new() };
    let few: [Option<Waker>; FEW] = std::array::from_fn(|_| wakers.pop_front());
    drop(tree);
    for waker in few.into_iter().flatten().chain(many) {
        // One that panics must not keep the others asleep, nor hurt the caller, who only gave back
        // what it held.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            std::mem::forget(panic);
        }
    }
}

/// One pool of a tree. Its drop is the pool's end; every handle of the user's and every reservation
/// shares it.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    node: NodeId,
    name: Name,
    /// Over at the earliest on the way up. It never changes, nor does `windowed`, so that it is
    /// known without the lock whether a call must read the clock (P8).
    deadline: Option<DeadlineBudget>,
    /// Whether any pool on the way up has a window.
    windowed: bool,
}

impl Handle {
    pub(crate) fn root(
        spec: Spec,
        deadline: Option<DeadlineBudget>,
        Runtime { clock, timer }: Runtime,
    ) -> Handle {
        let (name, windowed) = (spec.name.clone(), spec.window.is_some());
        let mut tree = Tree::default();
        let node = tree.add_root(spec);
        let shared =
            Shared { tree: Mutex::new(tree), may_expire: AtomicBool::new(false), clock, timer };
        Handle { shared: Arc::new(shared), node, name, deadline, windowed }
    }

    /// A pool below this one.
    pub(crate) fn child(&self, spec: Spec, deadline: Option<DeadlineBudget>) -> Handle {
        let (name, windowed) = (spec.name.clone(), spec.window.is_some());
        let node = self.enter(|tree, parent| tree.add_child(parent, spec));
        self.below(node, name, deadline, windowed)
    }

    /// A pool below this one, its caps reserved in this one.
    pub(crate) fn carved(
        &self,
        spec: Spec,
        deadline: Option<DeadlineBudget>,
    ) -> Result<Handle, BudgetError> {
        let name = spec.name.clone();
        let node = self.ask(|tree, parent, now| tree.add_carved(parent, spec, now))?;
        Ok(self.below(node, name, deadline, false))
    }

    fn below(
        &self,
        node: NodeId,
        name: Name,
        own: Option<DeadlineBudget>,
        windowed: bool,
    ) -> Handle {
        let above = self.deadline.as_ref();
        let deadline = match (own, above) {
            (Some(own), Some(above)) => Some(own.within(above)),
            (own, above) => own.or_else(|| above.cloned()),
        };
        let windowed = windowed || self.windowed;
        Handle { shared: Arc::clone(&self.shared), node, name, deadline, windowed }
    }

    /// A transition that needs no time.
    #[inline]
    pub(crate) fn enter<R>(&self, transition: impl FnOnce(&mut Tree, NodeId) -> R) -> R {
        // The result is written where the caller wants it, and not moved: that would cost as much
        // as the rest.
        transition(Transition::begin(&self.shared).tree(), self.node)
    }

    /// A transition that tells or looks: it is told the time if the path has a window, or a hold
    /// may expire (P8). It cannot fail: if the clock panics, no time has passed.
    #[inline]
    pub(crate) fn tell<R>(
        &self,
        transition: impl FnOnce(&mut Tree, NodeId, Option<Instant>) -> R,
    ) -> R {
        self.transition(self.windowed, Tree::may_expire, || self.try_now(), transition)
    }

    /// A transition that asks: it is told the time if the path has a deadline, too.
    #[inline]
    pub(crate) fn ask<R>(
        &self,
        transition: impl FnOnce(&mut Tree, NodeId, Option<Instant>) -> R,
    ) -> R {
        let is_timed = self.windowed || self.bounded().is_some();
        self.transition(is_timed, Tree::may_expire, || Some(self.now()), transition)
    }

    /// A transition that takes a time.
    pub(crate) fn ask_at<R>(&self, transition: impl FnOnce(&mut Tree, NodeId, Instant) -> R) -> R {
        let now = self.now();
        self.enter(|tree, at| transition(tree, at, now))
    }

    /// A transition that looks at all pools below, too: it is told the time if any of them has a
    /// window.
    pub(crate) fn survey<R>(
        &self,
        transition: impl FnOnce(&mut Tree, NodeId, Option<Instant>) -> R,
    ) -> R {
        let needs_time = |tree: &Tree| tree.may_expire() || tree.has_windows_below(self.node);
        self.transition(self.windowed, needs_time, || self.try_now(), transition)
    }

    #[inline]
    fn transition<R>(
        &self,
        is_timed: bool,
        needs_time: impl Fn(&Tree) -> bool,
        read_clock: impl Fn() -> Option<Instant>,
        transition: impl FnOnce(&mut Tree, NodeId, Option<Instant>) -> R,
    ) -> R {
        let is_timed = is_timed || self.shared.may_expire.load(Relaxed);
        let mut now = if is_timed { read_clock() } else { None };
        let mut locked = Transition::begin(&self.shared);
        if now.is_none() && needs_time(locked.tree()) {
            now = locked.interrupted(read_clock);
        }
        transition(locked.tree(), self.node, now)
    }

    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    #[cold]
    fn try_now(&self) -> Option<Instant> {
        catch_unwind(AssertUnwindSafe(|| self.now())).map_err(std::mem::forget).ok()
    }

    /// The caller's sleep until an instant, if there is a timer.
    pub(crate) fn sleep(&self, until: Instant) -> Option<Sleep> {
        self.shared.timer.as_ref().map(|timer| timer(until))
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn deadline(&self) -> Option<&DeadlineBudget> {
        self.deadline.as_ref()
    }

    /// The budget of time, if it has an end.
    #[inline]
    pub(crate) fn bounded(&self) -> Option<&DeadlineBudget> {
        self.deadline().filter(|budget| budget.deadline().is_some())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let forgotten: Vec<Keys> = self.enter(Tree::drop_handle);
        drop(forgotten);
    }
}

// The lock has no poison and needs none: nothing of the user's runs under it, and a clock that
// panics does so before it.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timer = if self.timer.is_some() { "given" } else { "none" };
        f.debug_struct("Runtime").field("clock", &self.clock).field("timer", &timer).finish()
    }
}
