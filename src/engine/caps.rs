//! How caps move, and how a period begins by hand.

use std::time::Instant;

use super::Engine;
use super::admission::Tally;
use super::nodes::NodeId;
use crate::types::amount::Caps;
use crate::types::axis::{NOTHING, Quantities};
use crate::types::error::{BudgetError, BudgetExceeded, Outlook};
use crate::types::snapshot::Snapshot;

impl Engine {
    pub(crate) fn reset(&mut self, at: NodeId, now: Option<Instant>) -> Snapshot {
        let snapshot = self.snapshot(at, now);
        let node = &mut self.nodes[at];
        node.ledger.reset(node.carved());
        if let Some(window) = &mut node.window {
            window.restart();
        }
        self.balances_changed(at);
        snapshot
    }

    pub(crate) fn raise_caps(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        // All that is due: what is asked above follows from balances that must not change before
        // it is granted.
        self.advance_all(at, now);
        if let Some(pool) = self.closed_by(at) {
            return Err(BudgetError::Closed { pool });
        }
        let node = &self.nodes[at];
        let more = caps.quantities().only(node.ledger.capped());
        let beyond = |&axis: &usize| more.units()[axis] > node.ledger.headroom(axis);
        if let Some(axis) = more.axes().find(beyond) {
            let headroom = node.ledger.headroom(axis);
            let requested = more.units()[axis];
            let refusal = node.exceeded(axis, requested, headroom, Outlook::Never, None);
            // Not the present cap, which refuses nothing here: the most that a cap can be.
            return Err(BudgetExceeded { cap: Some(u64::MAX), ..refusal }.into());
        }
        if let Some(parent) = node.share_of() {
            // What will pay overage here is spent already, and was booked above when it was.
            let paid = |axis: usize| more.units()[axis].saturating_sub(node.ledger.overage(axis));
            let share = Quantities::each(more.axes(), paid);
            self.admit(parent, share.units(), now)?;
            self.nodes.hold(parent, share.units(), Tally::ADMITTED);
        }
        let ledger = &mut self.nodes[at].ledger;
        for axis in more.axes() {
            ledger.raise(axis, more.units()[axis]);
        }
        self.balances_changed(at);
        Ok(())
    }

    pub(crate) fn lower_caps(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let less = caps.quantities().only(self.nodes[at].ledger.capped());
        self.advance(at, less.units(), now);
        let node = &mut self.nodes[at];
        if let Some(lack) = node.lack(less.units()) {
            return Err(lack.refusal(self.reading));
        }
        for axis in less.axes() {
            node.ledger.lower(axis, less.units()[axis]);
        }
        if let Some(parent) = node.share_of() {
            self.nodes.settle(parent, less.units(), &NOTHING, &mut { NOTHING }, Tally::FACT);
        }
        self.balances_changed(at);
        Ok(())
    }
}
