//! Leases: a lease holds a share of a pool, its worker spends from the share by itself, and the pool
//! is told afterwards.
//!
//! The pool knows the share as of their last meeting, and the lease its rest. The difference was
//! spent, and is settled before anything else when they meet again.

use std::time::Instant;

use super::Engine;
use super::admission::{Booked, Tally};
use super::hold::HoldKey;
use super::nodes::NodeId;
use crate::types::axis::{NOTHING, Quantities, Units};
use crate::types::error::BudgetError;
use crate::types::on_drop::OnDrop;

/// A refill takes at most one in so many of the units that are free. The lower the pool, the smaller
/// the bites: however large the batches, a worker that starts late finds something, and the last
/// units go to the calls that ask for them.
const BITE: u64 = 8;

impl Engine {
    /// A share of nothing yet, which asks for nothing and so cannot be refused. It is not in flight.
    pub(crate) fn lease(&mut self, at: NodeId) -> HoldKey {
        self.holds.insert(at, Quantities::NONE, OnDrop::Release)
    }

    /// Books the spend of a share since the pool was last told.
    pub(crate) fn settle_lease(&mut self, key: HoldKey, left: &Units, now: Option<Instant>) {
        let hold = self.holds.get(key);
        let (node, spent) = (hold.node(), hold.held().beyond(left));
        self.advance(node, &NOTHING, now);
        self.holds.get_mut(key).take(&spent);
        self.settle(node, &spent, &spent, Tally::Fact);
    }

    /// Spends more than the rest of the share: the pool is asked for the difference, and refills
    /// the share.
    ///
    /// It settles first, also for a call that it then refuses, so that the refusal and its outlook
    /// know the whole spend. It refills last, so that a bite is taken only of what the spend has
    /// left free.
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
        self.admit_in_turn(node, &amount.beyond(left), now)?;
        self.meter(key, amount, Tally::Admitted);
        self.refill_lease(key, batch);
        *left = *self.holds.get(key).held().units();
        Ok(())
    }

    /// Books more than is left. It does not refill: to tell of a spend asks for nothing.
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
        let booked = self.meter(key, amount, Tally::Fact);
        *left = *self.holds.get(key).held().units();
        booked
    }

    /// Fills a share up to the batch, as far as that leaves enough for others. While others wait for
    /// any of it, it takes nothing: the bite would pass them (P6).
    fn refill_lease(&mut self, key: HoldKey, batch: &Quantities) {
        let hold = self.holds.get(key);
        let node = hold.node();
        let wanted = batch.beyond(hold.held().units());
        let free = self.nodes.free(node);
        let bite =
            Quantities::each(wanted.axes(), |axis| wanted.units()[axis].min(free[axis] / BITE));
        if self.queued_at(node, bite.units()).is_none() {
            self.nodes.hold(node, &bite, Tally::Fact);
            self.holds.get_mut(key).put(&bite);
        }
    }

    /// Ends a lease: the rest of its share goes back.
    pub(crate) fn end_lease(&mut self, key: HoldKey, left: &Units, now: Option<Instant>) {
        self.settle_lease(key, left, now);
        let hold = self.holds.get(key);
        let (node, held) = (hold.node(), *hold.held());
        self.holds.remove(key);
        self.settle(node, &held, &Quantities::NONE, Tally::Fact);
    }
}
