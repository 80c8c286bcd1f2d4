//! Holds: what becomes of budget that is promised to one owner. Pure.
//!
//! A hold lives in the tree's state, under a key, so that it can expire, be listed and be labelled.
//! What it was is kept until its owner ends it, also when it has expired before: a spend that
//! happened all the same can still be told.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::engine::nodes::{Booked, NOTHING, NodeId, Tally, Tree};
use crate::types::amount::Amount;
use crate::types::axis::{Axis, AxisSet, Quantities, Units};
use crate::types::error::{BudgetError, BudgetExceeded, Outlook};

const ONE_IN_FLIGHT: Quantities = Quantities::NONE.with(Axis::InFlight, 1);

/// Names one hold for ever: the slot is used again, the serial never. The older one is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HoldKey {
    serial: Serial,
    slot: usize,
}

/// Counts up from one; not in a lifetime does it come round.
pub(crate) type Serial = NonZeroU64;

#[derive(Debug)]
pub(crate) struct Hold {
    serial: Serial,
    pub(crate) node: NodeId,
    /// What is reserved for it, one in flight included. What was, if it has expired: its owner may
    /// still come and say that it was spent.
    pub(crate) held: Quantities,
    /// What `record` and `debit` have settled of it.
    settled: Units,
    pub(crate) label: Option<&'static str>,
    pub(crate) on_drop: OnDrop,
    pub(crate) expiry: Option<Instant>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// What is held is reserved.
    Live,
    /// Expired: what was held has been released.
    Released,
    /// Expired: what was held has been settled.
    Settled,
}

/// What becomes of a hold whose owner goes away without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDrop {
    Release,
    Commit,
}

/// Holds.
impl Tree {
    pub(crate) fn reserve(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        let held = amount.with(Axis::InFlight, 1);
        self.ask_in_turn(at, held.units(), now)?;
        Ok(self.begin(at, held))
    }

    /// A hold that is reclaimed after its time.
    pub(crate) fn reserve_for(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        ttl: Duration,
        now: Instant,
    ) -> Result<HoldKey, BudgetError> {
        let key = self.reserve(at, amount, Some(now))?;
        self.expire_after(key, ttl);
        Ok(key)
    }

    /// Makes a hold of what [`fits`](Tree::fits).
    pub(crate) fn begin(&mut self, at: NodeId, held: Quantities) -> HoldKey {
        self.hold_path(at, held.units(), Tally::BEGUN);
        self.insert_hold(at, held, None, OnDrop::Release)
    }

    pub(crate) fn insert_hold(
        &mut self,
        node: NodeId,
        held: Quantities,
        label: Option<&'static str>,
        on_drop: OnDrop,
    ) -> HoldKey {
        let serial = self
            .serial
            .map_or(Serial::MIN, |last| last.checked_add(1).expect("2^64 holds are never made"));
        self.serial = Some(serial);
        let (settled, expiry, state) = (NOTHING, None, State::Live);
        let slot =
            self.holds.insert(Hold { serial, node, held, settled, label, on_drop, expiry, state });
        HoldKey { slot, serial }
    }

    pub(crate) fn hold(&self, key: HoldKey) -> &Hold {
        let hold = &self.holds[key.slot];
        assert_eq!(hold.serial, key.serial, "a reservation owns its hold");
        hold
    }

    pub(crate) fn hold_mut(&mut self, key: HoldKey) -> &mut Hold {
        let hold = &mut self.holds[key.slot];
        assert_eq!(hold.serial, key.serial, "a reservation owns its hold");
        hold
    }

    pub(crate) fn remove_hold(&mut self, key: HoldKey) -> Hold {
        self.holds.remove(key.slot)
    }

    pub(crate) fn held(&mut self, key: HoldKey, now: Option<Instant>) -> Quantities {
        self.touch_hold(key, &Quantities::NONE, now);
        let hold = self.hold(key);
        if hold.is_live() { hold.held } else { Quantities::NONE }
    }

    pub(crate) fn label(&mut self, key: HoldKey, label: &'static str) {
        self.hold_mut(key).label = Some(label);
    }

    pub(crate) fn commit_on_drop(&mut self, key: HoldKey, now: Option<Instant>) {
        self.touch_hold(key, &Quantities::NONE, now);
        let hold = self.hold_mut(key);
        if hold.is_live() {
            hold.on_drop = OnDrop::Commit;
        }
    }

    pub(crate) fn commit(&mut self, key: HoldKey, actual: &Amount, now: Option<Instant>) -> Booked {
        let bill = self.hold(key).bill(actual, &NOTHING);
        self.end(key, &bill, now)
    }

    pub(crate) fn commit_total(
        &mut self,
        key: HoldKey,
        total: &Amount,
        now: Option<Instant>,
    ) -> Booked {
        let hold = self.hold(key);
        let bill = hold.bill(total, &hold.settled);
        self.end(key, &bill, now)
    }

    /// Asks for capacity alone: a spend that happened before the close or the deadline may still be
    /// settled after it.
    pub(crate) fn try_commit(
        &mut self,
        key: HoldKey,
        actual: &Amount,
        now: Option<Instant>,
    ) -> Result<Booked, BudgetError> {
        let bill = self.hold(key).bill(actual, &NOTHING);
        self.live_hold(key, &bill, now)?;
        let hold = self.hold(key);
        let beyond = hold.beyond(&bill);
        if let Some(refusal) = self.exceeded(hold.node, beyond.units()) {
            return Err(refusal.into());
        }
        Ok(self.end(key, &bill, None))
    }

    pub(crate) fn release(&mut self, key: HoldKey, now: Option<Instant>) {
        self.end(key, &Quantities::NONE, now);
    }

    /// The owner went away without a word.
    pub(crate) fn abandon(&mut self, key: HoldKey, now: Option<Instant>) {
        let bill = self.hold(key).last_bill();
        self.end(key, &bill, now);
    }

    fn end(&mut self, key: HoldKey, bill: &Quantities, now: Option<Instant>) -> Booked {
        self.touch_hold(key, bill, now);
        let hold = self.hold(key);
        if !hold.is_live() {
            return self.end_late(key, bill);
        }
        let (node, held) = (hold.node, hold.held);
        if hold.expiry.is_some() {
            self.unschedule(key);
        }
        self.remove_hold(key);
        Booked::new(bill, self.settle(node, held.units(), bill.units(), Tally::ENDED), false)
    }

    /// The owner of an expired hold has come back.
    #[cold]
    fn end_late(&mut self, key: HoldKey, bill: &Quantities) -> Booked {
        let hold = self.remove_hold(key);
        let bill = if hold.state == State::Settled { hold.beyond(bill) } else { *bill };
        Booked::new(&bill, self.settle(hold.node, &NOTHING, bill.units(), Tally::FACT), true)
    }

    /// Its time is over: what it holds goes back, or is settled. What that was is kept for its
    /// owner.
    pub(crate) fn expire(&mut self, key: HoldKey) {
        let hold = self.hold_mut(key);
        let (node, held) = (hold.node, hold.held);
        let bill = hold.last_bill();
        hold.state = if hold.on_drop == OnDrop::Release { State::Released } else { State::Settled };
        self.settle(node, held.units(), bill.units(), Tally::ENDED);
    }

    /// Asks to settle part of a hold, and what is beyond it from the pool.
    pub(crate) fn record_part(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, part, now)?;
        let hold = self.hold(key);
        let (node, beyond) = (hold.node, hold.beyond(part));
        self.ask(node, beyond.units(), now)?;
        self.meter(key, part, Tally::ADMITTED);
        Ok(())
    }

    pub(crate) fn debit_part(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.touch_hold(key, part, now);
        self.meter(key, part, Tally::FACT)
    }

    /// Settles part of a hold, and what is beyond it from the pool.
    pub(crate) fn meter(&mut self, key: HoldKey, part: &Quantities, tally: Tally) -> Booked {
        let hold = self.hold_mut(key);
        let node = hold.node;
        let covered = hold.covered(part);
        let (reserved, bill) = match hold.state {
            State::Live => (covered, *part),
            State::Released => (Quantities::NONE, *part),
            State::Settled => (Quantities::NONE, hold.beyond(part)),
        };
        let late = !hold.is_live();
        hold.take(&covered);
        for axis in part.axes() {
            hold.settled[axis] = hold.settled[axis].saturating_add(part.units()[axis]);
        }
        Booked::new(&bill, self.settle(node, reserved.units(), bill.units(), tally), late)
    }

    pub(crate) fn grow(
        &mut self,
        key: HoldKey,
        extra: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, extra, now)?;
        let node = self.hold(key).node;
        self.ask(node, extra.units(), now)?;
        self.hold_path(node, extra.units(), Tally::ADMITTED);
        self.hold_mut(key).put(extra);
        Ok(())
    }

    pub(crate) fn shrink(
        &mut self,
        key: HoldKey,
        by: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, &Quantities::NONE, now)?;
        self.within_hold(key, by)?;
        let hold = self.hold_mut(key);
        hold.take(by);
        let node = hold.node;
        self.settle(node, by.units(), &NOTHING, Tally::FACT);
        Ok(())
    }

    pub(crate) fn split(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        self.live_hold(key, &ONE_IN_FLIGHT, now)?;
        self.within_hold(key, part)?;
        let node = self.hold(key).node;
        self.ask(node, ONE_IN_FLIGHT.units(), now)?;
        self.hold_path(node, ONE_IN_FLIGHT.units(), Tally::BEGUN);
        let hold = self.hold_mut(key);
        hold.take(part);
        let held = part.with(Axis::InFlight, 1);
        let (label, on_drop, expiry) = (hold.label, hold.on_drop, hold.expiry);
        let half = self.insert_hold(node, held, label, on_drop);
        self.schedule(half, expiry);
        Ok(half)
    }

    /// Refuses what is more than the hold has: the hold is then what is available, and the cap.
    fn within_hold(&self, key: HoldKey, part: &Quantities) -> Result<(), BudgetError> {
        let hold = self.hold(key);
        let Some(axis) = part.axes().find(|&axis| part.units()[axis] > hold.held.units()[axis])
        else {
            return Ok(());
        };
        let held = hold.held.units()[axis];
        let refusal =
            self.nodes[hold.node].exceeded(axis, part.units()[axis], held, Outlook::Never, None);
        Err(BudgetExceeded { cap: Some(held), ..refusal }.into())
    }
}

impl Hold {
    pub(crate) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// What a commit of `actual` settles: a named axis at its figure beyond `already`, the others
    /// at what is held.
    fn bill(&self, actual: &Amount, already: &Units) -> Quantities {
        let named = actual.named();
        let figures = actual.quantities();
        let axes = self.held.axes().union(figures.axes()).difference(AxisSet::of(Axis::InFlight));
        Quantities::each(axes, |axis| {
            if named.contains(axis) {
                figures.units()[axis].saturating_sub(already[axis])
            } else {
                self.held.units()[axis]
            }
        })
    }

    /// What is settled if its owner says nothing more.
    fn last_bill(&self) -> Quantities {
        match self.on_drop {
            OnDrop::Release => Quantities::NONE,
            OnDrop::Commit => self.bill(&Amount::new(), &NOTHING),
        }
    }

    /// What of `part` this hold does not cover.
    pub(crate) fn beyond(&self, part: &Quantities) -> Quantities {
        part.beyond(self.held.units())
    }

    /// What of `part` must come from elsewhere: all of it, if what was held has been released.
    pub(crate) fn uncovered(&self, part: &Quantities) -> Quantities {
        if self.state == State::Released { *part } else { self.beyond(part) }
    }

    /// What of `part` it does.
    fn covered(&self, part: &Quantities) -> Quantities {
        Quantities::each(part.axes(), |axis| part.units()[axis].min(self.held.units()[axis]))
    }

    pub(crate) fn put(&mut self, extra: &Quantities) {
        let axes = self.held.axes().union(extra.axes());
        let (held, extra) = (*self.held.units(), extra.units());
        let sum = |axis: usize| held[axis].checked_add(extra[axis]);
        self.held = Quantities::each(axes, |axis| {
            sum(axis).expect("what is held is within what is reserved")
        });
    }

    pub(crate) fn take(&mut self, part: &Quantities) {
        let held = *self.held.units();
        let left = |axis: usize| held[axis].checked_sub(part.units()[axis]);
        self.held =
            Quantities::each(self.held.axes(), |axis| left(axis).expect("what is taken is held"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stays of a guard that was forgotten.
    #[test]
    fn a_holds_place_is_some_200_bytes() {
        assert!((150..=250).contains(&size_of::<Hold>()), "{}", size_of::<Hold>());
    }
}
