//! What a lease holds of a pool: a share that its worker spends from by itself, and tells of
//! afterwards.
//!
//! The pool knows what it has handed out, the lease what is left of it. What is neither settled nor
//! left was spent.

use std::time::Instant;

use super::Engine;
use super::admission::{Booked, Tally};
use super::hold::HoldKey;
use super::nodes::NodeId;
use crate::types::axis::{NOTHING, Quantities, Units};
use crate::types::error::BudgetError;

/// No refill beyond what is asked takes more than one in so many of the units that are free: the
/// lower the pool, the smaller the bites, and the last units go to the calls that ask for them.
const BITE: u64 = 8;

impl Engine {
    /// A share of the whole batch; not in flight.
    pub(crate) fn lease(
        &mut self,
        at: NodeId,
        batch: &Quantities,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        self.admit_in_turn(at, batch.units(), now)?;
        self.nodes.hold(at, batch.units(), Tally::ADMITTED);
        Ok(self.holds.insert(at, *batch))
    }

    /// Books what was spent of a share.
    pub(crate) fn settle_lease(&mut self, key: HoldKey, left: &Units, now: Option<Instant>) {
        let hold = self.holds.get(key);
        let (node, spent) = (hold.node(), hold.held().beyond(left));
        self.advance(node, &NOTHING, now);
        self.holds.get_mut(key).take(&spent);
        self.settle(node, spent.units(), spent.units(), Tally::FACT);
    }

    /// Asks for more than is left: what is beyond comes from the pool, which also refills the
    /// share.
    pub(crate) fn record_leased(
        &mut self,
        key: HoldKey,
        left: &mut Units,
        amount: &Quantities,
        batch: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.settle_lease(key, left, now);
        let node = self.holds.get(key).node();
        self.admit(node, amount.beyond(left).units(), now)?;
        self.meter(key, amount, Tally::ADMITTED);
        self.refill_lease(key, batch);
        *left = *self.holds.get(key).held().units();
        Ok(())
    }

    /// The same for what has happened; it does not refill.
    pub(crate) fn debit_leased(
        &mut self,
        key: HoldKey,
        left: &mut Units,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.settle_lease(key, left, now);
        let node = self.holds.get(key).node();
        self.advance(node, amount.beyond(left).units(), now);
        let booked = self.meter(key, amount, Tally::FACT);
        *left = *self.holds.get(key).held().units();
        booked
    }

    /// Up to the batch, as far as that leaves enough for others; not while others wait for the
    /// same.
    fn refill_lease(&mut self, key: HoldKey, batch: &Quantities) {
        let hold = self.holds.get(key);
        let node = hold.node();
        let wanted = batch.beyond(hold.held().units());
        let free = self.nodes.free(node);
        let bite =
            Quantities::each(wanted.axes(), |axis| wanted.units()[axis].min(free[axis] / BITE));
        if self.queued_at(node, bite.units()).is_none() {
            self.nodes.hold(node, bite.units(), Tally::FACT);
            self.holds.get_mut(key).put(&bite);
        }
    }

    /// Ends a lease: what is left of its share goes back.
    pub(crate) fn end_lease(&mut self, key: HoldKey, left: &Units, now: Option<Instant>) {
        self.settle_lease(key, left, now);
        let hold = self.holds.get(key);
        let (node, held) = (hold.node(), *hold.held());
        self.holds.remove(key);
        self.settle(node, held.units(), &NOTHING, Tally::FACT);
    }
}
