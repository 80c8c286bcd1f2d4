//! The lock around a tree of pools. The only file that locks: one call, one lock, one transition.
//!
//! The clock is read before the lock is taken, and whatever is the user's is dropped after it was let go.

use std::fmt;
use std::time::Instant;

use crate::clock::SharedClock;
use crate::error::BudgetError;
use crate::sync::{Arc, Mutex};
use crate::tree::{Deadline, NodeId, Spec, Tree};

/// One tree of pools.
struct Shared {
    tree: Mutex<Tree>,
    /// Of the whole tree.
    clock: SharedClock,
}

/// One pool of a tree. Its drop is the pool's end; every handle of the user's and every reservation shares it.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    node: NodeId,
    name: std::sync::Arc<str>,
    /// The earliest on the way up. It never changes, so that it is known without the lock whether a call must read the
    /// clock (P8).
    deadline: Option<Deadline>,
}

impl Handle {
    pub(crate) fn root(spec: Spec, clock: SharedClock) -> Handle {
        let name = spec.name.clone();
        let mut tree = Tree::default();
        let (node, deadline) = tree.add_root(spec);
        Handle { shared: Arc::new(Shared { tree: Mutex::new(tree), clock }), node, name, deadline }
    }

    /// A pool below this one.
    pub(crate) fn child(&self, spec: Spec) -> Handle {
        let name = spec.name.clone();
        let (node, deadline) = self.tell(|tree, parent| tree.add_child(parent, spec));
        Handle { shared: Arc::clone(&self.shared), node, name, deadline }
    }

    /// A pool below this one, its caps reserved in this one.
    pub(crate) fn carved(&self, spec: Spec) -> Result<Handle, BudgetError> {
        let name = spec.name.clone();
        let (node, deadline) = self.ask(|tree, parent, now| tree.add_carved(parent, spec, now))?;
        Ok(Handle { shared: Arc::clone(&self.shared), node, name, deadline })
    }

    /// A transition that needs no time.
    #[inline]
    pub(crate) fn tell<R>(&self, transition: impl FnOnce(&mut Tree, NodeId) -> R) -> R {
        transition(&mut self.shared.tree.lock(), self.node)
    }

    /// A transition that asks: it is told the time if the path has a deadline (P8).
    #[inline]
    pub(crate) fn ask<R>(&self, transition: impl FnOnce(&mut Tree, NodeId, Option<Instant>) -> R) -> R {
        let now = self.deadline.map(|_| self.now());
        transition(&mut self.shared.tree.lock(), self.node, now)
    }

    pub(crate) fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.tell(Tree::drop_handle);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("name", &self.name).finish_non_exhaustive()
    }
}
