//! The lock around a tree of pools. The only file that locks: one call, one lock, one transition.
//!
//! The clock is read before the lock is taken, and whatever is the user's is dropped after it was let go.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Waker;
use std::time::Instant;

use crate::clock::SharedClock;
use crate::deadline::DeadlineBudget;
use crate::error::BudgetError;
use crate::name::Name;
use crate::sync::{Arc, Mutex, MutexGuard};
use crate::tree::{NodeId, Spec, Tree};

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
    clock: SharedClock,
    timer: Option<Timer>,
}

/// How many are woken without a change of the queue's memory.
const FEW: usize = 8;

/// The lock while a transition runs. Its end wakes all that the transition granted or told, without the lock: a waker may
/// come back here. No other thread wakes them for this one: it might hold a lock that they take.
struct Transition<'a>(Option<MutexGuard<'a, Tree>>);

impl Transition<'_> {
    #[inline]
    fn tree(&mut self) -> &mut Tree {
        self.0.as_mut().expect("it holds the lock until its end")
    }
}

impl Drop for Transition<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(tree) = self.0.take().filter(|tree| !tree.waits.wakers.is_empty()) {
            wake(tree);
        }
    }
}

#[cold]
fn wake(mut tree: MutexGuard<'_, Tree>) {
    let wakers = &mut tree.waits.wakers;
    let many = if wakers.len() > FEW { std::mem::take(wakers) } else { VecDeque::new() };
    let few: [Option<Waker>; FEW] = std::array::from_fn(|_| wakers.pop_front());
    drop(tree);
    for waker in few.into_iter().flatten().chain(many) {
        // One that panics must not keep the others asleep, nor hurt the caller, who only gave back what it held.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| waker.wake())) {
            std::mem::forget(panic);
        }
    }
}

/// One pool of a tree. Its drop is the pool's end; every handle of the user's and every reservation shares it.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    node: NodeId,
    name: Name,
    /// Over at the earliest on the way up. It never changes, so that it is known without the lock whether a call must
    /// read the clock (P8).
    deadline: Option<DeadlineBudget>,
}

impl Handle {
    pub(crate) fn root(spec: Spec, deadline: Option<DeadlineBudget>, Runtime { clock, timer }: Runtime) -> Handle {
        let name = spec.name.clone();
        let mut tree = Tree::default();
        let node = tree.add_root(spec);
        Handle { shared: Arc::new(Shared { tree: Mutex::new(tree), clock, timer }), node, name, deadline }
    }

    /// A pool below this one.
    pub(crate) fn child(&self, spec: Spec, deadline: Option<DeadlineBudget>) -> Handle {
        let name = spec.name.clone();
        let node = self.tell(|tree, parent| tree.add_child(parent, spec));
        self.handle(node, name, deadline)
    }

    /// A pool below this one, its caps reserved in this one.
    pub(crate) fn carved(&self, spec: Spec, deadline: Option<DeadlineBudget>) -> Result<Handle, BudgetError> {
        let name = spec.name.clone();
        let node = self.ask(|tree, parent, now| tree.add_carved(parent, spec, now))?;
        Ok(self.handle(node, name, deadline))
    }

    fn handle(&self, node: NodeId, name: Name, own: Option<DeadlineBudget>) -> Handle {
        let above = self.deadline.as_ref();
        let deadline = match (own, above) {
            (Some(own), Some(above)) => Some(own.within(above)),
            (own, above) => own.or_else(|| above.cloned()),
        };
        Handle { shared: Arc::clone(&self.shared), node, name, deadline }
    }

    /// A transition that needs no time.
    #[inline]
    pub(crate) fn tell<R>(&self, transition: impl FnOnce(&mut Tree, NodeId) -> R) -> R {
        // The result is written where the caller wants it, and not moved: that would cost as much as the rest.
        transition(Transition(Some(self.shared.tree.lock())).tree(), self.node)
    }

    /// A transition that asks: it is told the time if the path has a deadline (P8).
    #[inline]
    pub(crate) fn ask<R>(&self, transition: impl FnOnce(&mut Tree, NodeId, Option<Instant>) -> R) -> R {
        let now = self.bounded().map(|_| self.shared.clock.now());
        self.tell(|tree, at| transition(tree, at, now))
    }

    /// The caller's sleep until its deadline, if there is one and a timer to sleep by.
    pub(crate) fn sleep(&self) -> Option<Sleep> {
        let timer = self.shared.timer.as_ref()?;
        let deadline = self.deadline.as_ref()?.deadline()?;
        Some(timer(deadline))
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
        self.tell(Tree::drop_handle);
    }
}

// The lock has no poison and needs none: nothing of the user's runs under it, and a clock that panics does so before it.
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
