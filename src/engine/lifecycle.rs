//! How pools come and go: children, carved shares, the last handle, the close.

use std::time::Instant;

use super::Engine;
use super::admission::Tally;
use super::idempotency::Keys;
use super::nodes::{Below, NodeId, Spec};
use crate::types::axis::AxisSet;
use crate::types::error::BudgetError;
use crate::types::name::Name;

/// The instant from which on an untouched pool is as one that is built anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Idle {
    Now,
    From(Instant),
    Never,
}

impl Engine {
    #[inline]
    pub(crate) fn add_child(&mut self, parent: NodeId, spec: Spec) -> NodeId {
        self.learn(spec.labels());
        self.nodes.insert(parent, spec, AxisSet::EMPTY)
    }

    /// A pool below several at once.
    pub(crate) fn add_joint(&mut self, parents: &[NodeId], spec: Spec) -> NodeId {
        self.learn(spec.labels());
        self.nodes.join(parents, spec)
    }

    /// The first carved pool on a way.
    pub(crate) fn carved_on(&self, at: NodeId) -> Option<Name> {
        let mut way = self.nodes.way(at);
        way.find(|(_, node)| node.is_carved()).map(|(_, node)| node.name.clone())
    }

    /// A child whose caps are reserved above.
    pub(crate) fn add_carved(
        &mut self,
        parent: NodeId,
        spec: Spec,
        now: Option<Instant>,
    ) -> Result<NodeId, BudgetError> {
        let share = *spec.caps.quantities();
        self.admit_in_turn(parent, &share, now)?;
        self.nodes.hold(parent, &share, Tally::Admitted);
        self.learn(spec.labels());
        Ok(self.nodes.insert(parent, spec, share.axes()))
    }

    /// The last handle of a pool has gone, and with it the last hold: a hold keeps a handle. Frees
    /// the pool and those above that nothing reaches any more. Returns the keys they knew, which
    /// may be many: to be dropped outside the lock.
    pub(crate) fn drop_handle(&mut self, at: NodeId) -> Vec<Keys> {
        self.refill_to_latest(at);
        self.nodes[at].drop_handle();
        let mut forgotten = Vec::new();
        let (mut candidate, mut others) = (Some(at), Vec::new());
        while let Some(id) = candidate.take().or_else(|| others.pop()) {
            // A pool is looked at for each of its children that goes.
            if !self.nodes.contains(id) {
                continue;
            }
            if !self.nodes[id].is_unreachable() {
                // All that comes back has: no carved pool is above a joint one.
                self.call_changed(id);
                self.mark(id);
                continue;
            }
            if let Some(keys) = self.nodes[id].keys.take() {
                forgotten.push(*keys);
            }
            self.nodes.return_share(id);
            self.pauses.remove(id);
            let (first, further) = self.nodes.remove(id);
            candidate = first;
            others.extend(further);
        }
        self.process_waiters();
        forgotten
    }

    pub(crate) fn close(&mut self, at: NodeId) {
        self.refill_to_latest(at);
        self.refill_below(at);
        let mut closing = vec![at];
        closing.extend(self.nodes.below(at).map(|(id, _)| id));
        // Children first: what they return is then returned with their parent's own. No carved pool
        // is above a joint one, so that a joint pool may come after some of its parents.
        for &id in closing.iter().rev() {
            self.nodes[id].closed = true;
            self.nodes.return_share(id);
        }
        self.reject_closed(&closing);
        self.call_way(at);
        // A share below a joint pool goes back to all its parents, of which others may be open.
        for id in self.nodes.beside(at) {
            self.call_parked(id);
        }
        self.process_waiters();
    }

    pub(crate) fn is_closed(&self, at: NodeId) -> bool {
        self.nodes[at].closed
    }

    /// Whether a pool that has one handle can go although its tenant may come back: a new one in its
    /// place would refuse and admit the same. A hold and a waiter keep a handle, so that there is
    /// none if that is the caller's. It changes nothing. `None`: time decides, and the caller has
    /// not read the clock.
    pub(crate) fn is_idle(&self, at: NodeId, now: Option<Instant>) -> Option<bool> {
        match self.idle(at) {
            Idle::Now => Some(true),
            Idle::From(instant) if now.max(self.latest) >= Some(instant) => Some(true),
            Idle::From(_) => now.map(|_| false),
            Idle::Never => Some(false),
        }
    }

    fn idle(&self, at: NodeId) -> Idle {
        let node = &self.nodes[at];
        // A pool below a closed one is born closed: only a close of its own must be remembered.
        let is_shut =
            node.closed && !self.nodes.way(at).nth(1).is_some_and(|(_, above)| above.closed);
        if is_shut || self.nodes.below(at).next().is_some() {
            return Idle::Never;
        }
        let paused = self.pauses.until(at).map_or(Idle::Now, Idle::From);
        let keys = node.keys.as_ref().map_or(Idle::Now, |keys| keys.idle());
        node.balances_idle().max(paused).max(keys)
    }

    /// Whether any of the pools below has a window, or one above a joint pool among them.
    pub(crate) fn has_windows_below(&self, at: NodeId) -> bool {
        let has_window = |id: NodeId| self.nodes[id].window.is_some();
        self.nodes.has_windows()
            && (self.nodes.below(at).any(|(id, _)| has_window(id))
                || self.nodes.beside(at).into_iter().any(has_window))
    }

    /// Brings the windows of all the pools below up to the latest instant, with those above a joint
    /// pool among them, and serves the waiters by ticket once all have turned.
    pub(super) fn refill_below(&mut self, at: NodeId) {
        let Some(now) = self.latest.filter(|_| self.nodes.has_windows()) else { return };
        let beside = self.nodes.beside(at);
        self.reclaim_before_turns(now, |engine| {
            let below = engine.nodes.below(at).map(|(id, _)| id);
            let mut all = below.chain(beside.iter().copied());
            all.any(|id| engine.nodes[id].ends_period_of_holds(now))
        });
        let mut walk = Below::from(at, &self.nodes);
        while let Some((id, _)) = walk.next(&self.nodes) {
            self.refill_one(id, now);
        }
        for id in beside {
            self.refill_one(id, now);
        }
        self.process_waiters();
    }

    fn refill_one(&mut self, id: NodeId, now: Instant) {
        if self.nodes[id].refill(now) {
            self.call_parked(id);
        }
    }
}
