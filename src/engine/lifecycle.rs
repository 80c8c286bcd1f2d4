//! How pools come and go: children, carved shares, the last handle, the close.

use std::time::Instant;

use super::Engine;
use super::admission::Tally;
use super::idempotency::Keys;
use super::nodes::{Below, NodeId, Spec};
use crate::types::axis::AxisSet;
use crate::types::error::BudgetError;

impl Engine {
    pub(crate) fn add_child(&mut self, parent: NodeId, spec: Spec) -> NodeId {
        self.learn(spec.labels());
        self.nodes.insert(parent, spec, AxisSet::EMPTY)
    }

    /// A child whose caps are reserved above.
    pub(crate) fn add_carved(
        &mut self,
        parent: NodeId,
        spec: Spec,
        now: Option<Instant>,
    ) -> Result<NodeId, BudgetError> {
        let share = *spec.caps.quantities();
        self.admit_in_turn(parent, share.units(), now)?;
        self.nodes.hold(parent, share.units(), Tally::Admitted);
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
        let mut candidate = at;
        while let Some(above) = self.nodes[candidate].unreachable() {
            let keys = self.nodes[candidate].keys.take();
            forgotten.extend(keys.map(|keys| *keys));
            self.nodes.return_share(candidate);
            self.pauses.remove(candidate);
            self.nodes.remove(candidate);
            let Some(above) = above else { return forgotten };
            candidate = above;
        }
        self.balances_changed(candidate);
        forgotten
    }

    pub(crate) fn close(&mut self, at: NodeId) {
        self.refill_to_latest(at);
        self.refill_below(at);
        let mut closing = vec![at];
        closing.extend(self.nodes.below(at).map(|(id, _)| id));
        // Children first: what they return is then returned with their parent's own.
        for &id in closing.iter().rev() {
            self.nodes[id].closed = true;
            self.nodes.return_share(id);
        }
        self.reject_closed(&closing);
        self.call_way(at);
        self.process_waiters();
    }

    pub(crate) fn is_closed(&self, at: NodeId) -> bool {
        self.nodes[at].closed
    }

    /// Whether any of the pools below has a window.
    pub(crate) fn has_windows_below(&self, at: NodeId) -> bool {
        self.nodes.has_windows()
            && self.nodes.below(at).any(|(id, _)| self.nodes[id].window.is_some())
    }

    /// Brings the windows of all the pools below up to the latest instant, and serves the waiters
    /// by ticket once all have turned.
    pub(super) fn refill_below(&mut self, at: NodeId) {
        let Some(now) = self.latest.filter(|_| self.nodes.has_windows()) else { return };
        self.reclaim_before_turns(now, |nodes| {
            nodes.below(at).any(|(id, _)| nodes[id].ends_period_of_holds(now))
        });
        let mut walk = Below::from(at);
        while let Some((id, _)) = walk.next(&self.nodes) {
            if self.nodes[id].refill(now) {
                self.call_parked(id);
            }
        }
        self.process_waiters();
    }
}
