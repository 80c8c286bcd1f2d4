//! Holds: budget that is promised to one owner, and the end of each.
//!
//! A hold lives in the engine, under a key, so that it can expire, be listed and be labelled. The
//! engine remembers an expired one until its owner ends it, as the owner may still tell of a spend.
//!
//! ```text
//!             record, debit, grow, shrink, split, merge
//!                   ┌───┐
//!                   │   ▼
//! reserve ───────► Live ──── commit, release, drop, merge ─────► gone
//!                   │                                             ▲
//!                   │ its time is over                            │
//!                   ├── on drop: release ──► Released ── commit ──┤  late: books the bill
//!                   └── on drop: commit ───► Settled ─── commit ──┘  late: books what is beyond
//! ```

use std::mem;
use std::num::NonZeroU64;
#[cfg(test)]
use std::time::Duration;
use std::time::Instant;

use super::Engine;
use super::admission::{Booked, Tally};
use super::arena::{Arena, Placed};
use super::ledger::Take;
use super::nodes::{NodeId, Nodes};
use super::queue::Purpose;
use crate::types::amount::Amount;
use crate::types::axis::{AxisSet, NOTHING, Quantities, Units, lane};
use crate::types::error::{BudgetError, Outlook};
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;

const IN_FLIGHT: AxisSet = AxisSet::of(lane::IN_FLIGHT);

/// The slots of a reservation that names no other number.
const ONE_SLOT: u64 = 1;

/// Names one hold: its slot, and the low half of its serial, which tells it from those that had the
/// slot before. A key is one word, so that a reservation is two: two words are handed on in
/// registers, and three are copied through memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HoldKey(NonZeroU64);

impl HoldKey {
    /// Keeps the word from being zero.
    const MARK: u64 = 1 << 63;
    const SLOT: u64 = u32::MAX as u64;

    #[inline]
    fn new(slot: u32, serial: Serial) -> HoldKey {
        let word = NonZeroU64::new(HoldKey::MARK | serial.0 << 32 | u64::from(slot));
        HoldKey(word.expect("it is marked"))
    }

    #[inline]
    pub(super) fn slot(self) -> usize {
        (self.0.get() & HoldKey::SLOT) as usize
    }

    #[inline]
    fn names(self, hold: &Hold) -> bool {
        self == HoldKey::new(self.slot() as u32, hold.serial) && hold.state != State::Free
    }
}

impl std::fmt::Debug for HoldKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.slot(), (self.0.get() & !HoldKey::MARK) >> 32)
    }
}

/// Counts the holds of a tree: the older one is less.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Serial(u64);

/// All holds of a tree.
#[derive(Debug, Default)]
pub(super) struct Holds {
    slots: Arena<Hold>,
    last: Serial,
}

#[derive(Debug)]
pub(super) struct Hold {
    serial: Serial,
    node: NodeId,
    /// Of a free slot: the next.
    next_free: u32,
    /// The units that are reserved for it, with the slots that it takes. The units that it held, if
    /// it has expired: its owner may still come and say that they were spent.
    held: Quantities,
    /// The units that `record`, `debit` and an expiry have settled of it, once any of them has: it
    /// is not written before.
    metered: Units,
    is_metered: bool,
    on_drop: OnDrop,
    state: State,
    /// Which of several that would have done.
    choice: u32,
    label: Option<Name>,
    /// When it was made, if the call that made it was told the time.
    since: Option<Instant>,
    expiry: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No hold: the slot is free.
    Free,
    /// The held units are reserved.
    Live,
    /// Expired: the held units have been released.
    Released,
    /// Expired: the held units have been settled.
    Settled,
}

impl Placed for Hold {
    const FREE: Hold = Hold {
        serial: Serial(0),
        node: NodeId::ROOT,
        next_free: 0,
        held: Quantities::NONE,
        metered: NOTHING,
        is_metered: false,
        on_drop: OnDrop::Release,
        state: State::Free,
        choice: 0,
        label: None,
        since: None,
        expiry: None,
    };

    #[inline]
    fn next_free(&self) -> Option<u32> {
        (self.state == State::Free).then_some(self.next_free)
    }

    #[inline]
    fn free(&mut self, next: u32) {
        (self.state, self.next_free) = (State::Free, next);
    }
}

/// How an owner ends its hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// This total was spent, metered parts included.
    Commit(&'a Amount),
    /// Nothing more was spent.
    Release,
    /// The owner went away without a word.
    Drop,
}

impl Holds {
    #[inline(always)]
    pub(super) fn insert(&mut self, node: NodeId, held: Quantities, on_drop: OnDrop) -> HoldKey {
        let serial = Serial(self.last.0.checked_add(1).expect("2^64 holds are never made"));
        self.last = serial;
        let slot = self.slots.take();
        self.slots[slot].begin(serial, node, held, on_drop);
        HoldKey::new(slot as u32, serial)
    }

    /// Makes a hold of units that fit.
    pub(super) fn begin(
        &mut self,
        nodes: &mut Nodes,
        at: NodeId,
        held: &Quantities,
        purpose: Purpose,
    ) -> HoldKey {
        nodes.hold(at, held, Tally::of(purpose));
        self.insert(at, *held, nodes[at].on_drop)
    }

    #[inline]
    pub(super) fn get(&self, key: HoldKey) -> &Hold {
        let hold = &self.slots[key.slot()];
        assert!(key.names(hold), "a reservation owns its hold");
        hold
    }

    #[inline]
    pub(super) fn get_mut(&mut self, key: HoldKey) -> &mut Hold {
        let hold = &mut self.slots[key.slot()];
        assert!(key.names(hold), "a reservation owns its hold");
        hold
    }

    /// Frees the slot of a hold. Its key names it no more. The caller can still read there what the
    /// hold had.
    #[inline]
    pub(super) fn remove(&mut self, key: HoldKey) -> &Hold {
        let hold = self.get_mut(key);
        (hold.label, hold.choice) = (None, 0);
        self.slots.give_back(key.slot());
        &self.slots[key.slot()]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.slots.iter()
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        self.slots.check_invariants();
    }
}

/// How holds begin and end.
impl Engine {
    /// The plain rule of a [`reserve`](Engine::reserve): an open pool holds an amount that fits on
    /// its whole way. It is all that there is to do while the tree [is quiet](Engine::is_quiet).
    #[inline(always)]
    pub(crate) fn try_reserve(&mut self, at: NodeId, held: &Quantities) -> Option<HoldKey> {
        if self.nodes[at].closed { None } else { self.try_begin(at, held, Purpose::Hold) }
    }

    pub(crate) fn reserve(
        &mut self,
        at: NodeId,
        held: &Quantities,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        let now = self.advance(at, held.units(), now);
        if let Some(refusal) = self.must_queue(at, held, now) {
            return Err(refusal);
        }
        if self.may_admit(at, now) {
            if let Some(key) = self.try_reserve_at(at, held, now) {
                return Ok(key);
            }
        }
        self.refuse(at, held, now)
    }

    /// [`try_reserve`](Engine::try_reserve), at an instant.
    #[inline]
    pub(crate) fn try_reserve_at(
        &mut self,
        at: NodeId,
        held: &Quantities,
        now: Option<Instant>,
    ) -> Option<HoldKey> {
        let key = self.try_reserve(at, held)?;
        self.holds.get_mut(key).since = now;
        Some(key)
    }

    /// A hold that is reclaimed after its time.
    #[cfg(test)]
    pub(super) fn reserve_for(
        &mut self,
        at: NodeId,
        held: &Quantities,
        ttl: Duration,
        now: Instant,
    ) -> Result<HoldKey, BudgetError> {
        let key = self.reserve(at, held, Some(now))?;
        self.schedule_after(key, ttl);
        Ok(key)
    }

    /// Makes a hold, of units that fit on the whole way.
    #[inline(always)]
    pub(super) fn try_begin(
        &mut self,
        at: NodeId,
        held: &Quantities,
        purpose: Purpose,
    ) -> Option<HoldKey> {
        let on_drop = self.nodes[at].on_drop;
        let is_held = self.nodes.try_take(at, held.units(), Take::Hold, Tally::of(purpose));
        if is_held { Some(self.holds.insert(at, *held, on_drop)) } else { None }
    }

    /// Ends the hold of a spend: its units are spent, or go back.
    pub(super) fn end_spend(&mut self, key: HoldKey, is_spent: bool) {
        let Hold { node, held, .. } = *self.holds.get(key);
        self.holds.remove(key);
        let spent = if is_spent { held } else { Quantities::NONE };
        self.settle(node, &held, &spent, Tally::Fact);
    }

    #[inline(always)]
    pub(crate) fn is_live(&self, key: HoldKey) -> bool {
        self.holds.get(key).is_live()
    }

    /// The plain rule of an [`end`](Engine::end): a live hold is replaced by its bill. It is all
    /// that there is to do while the tree [is quiet](Engine::is_quiet).
    #[inline(always)]
    pub(crate) fn end_live(&mut self, key: HoldKey, how: End<'_>, booked: &mut Booked) {
        let hold = self.holds.remove(key);
        hold.add_bill(how, &mut booked.settled);
        booked.settle(&mut self.nodes, hold.node, &hold.held, hold.tally(how));
        if hold.is_metered {
            self.nodes.credit(hold.node, &hold.excess(how), booked);
        }
    }

    pub(crate) fn end(
        &mut self,
        key: HoldKey,
        how: End<'_>,
        now: Option<Instant>,
        booked: &mut Booked,
    ) {
        self.advance_end(key, how, now);
        if self.is_observed() {
            self.note_end(key, how);
        }
        self.unschedule(key);
        let node = self.holds.get(key).node;
        match self.is_live(key) {
            true => self.end_live(key, how, booked),
            false => *booked = self.end_late(key, how),
        }
        self.balances_changed(node);
    }

    /// [`advance_hold`](Engine::advance_hold), for a hold that is to end.
    #[inline(always)]
    fn advance_end(&mut self, key: HoldKey, how: End<'_>, now: Option<Instant>) {
        self.advance_hold(key, now, |hold| hold.bill(how));
        let hold = self.holds.get(key);
        if hold.is_metered && !hold.excess(how).axes().is_empty() {
            // All that is due: what is given back is at most what has been booked.
            self.advance_all(hold.node, now);
        }
    }

    /// The owner of an expired hold has come back.
    #[cold]
    fn end_late(&mut self, key: HoldKey, how: End<'_>) -> Booked {
        let hold = self.holds.get(key);
        let (node, excess) = (hold.node, hold.excess(how));
        // A drop and a release say nothing that could come too late.
        let is_said = matches!(how, End::Commit(_));
        let mut booked = Booked::new(&hold.bill(how), NOTHING, is_said);
        booked.settle(&mut self.nodes, node, &Quantities::NONE, Tally::Fact);
        self.nodes.credit(node, &excess, &mut booked);
        self.holds.remove(key);
        booked
    }

    /// Admission of capacity alone: a spend that happened before the close or the deadline may
    /// still be settled after it.
    pub(crate) fn try_commit(
        &mut self,
        key: HoldKey,
        actual: &Amount,
        now: Option<Instant>,
    ) -> Result<Booked, BudgetError> {
        let how = End::Commit(actual);
        self.advance_end(key, how, now);
        self.live_hold(key, &Quantities::NONE, None)?;
        let hold = self.holds.get(key);
        let beyond = hold.beyond(&hold.bill(how));
        let node = hold.node;
        if let Some(lack) = self.nodes.lack(node, &beyond) {
            let (outlook, refusal) = (lack.outlook, lack.refusal(self.labels(), self.reading));
            if outlook == Outlook::AfterFunding {
                self.note_unfunded(node, &beyond);
            }
            return Err(refusal);
        }
        let mut booked = Booked::NOTHING;
        self.end(key, how, None, &mut booked);
        Ok(booked)
    }

    /// The time of a hold is over: its units go back, or are settled. The units stay known to its
    /// owner. The caller serves the waiters.
    pub(super) fn expire(&mut self, key: HoldKey) {
        if self.is_observed() {
            self.note_expiry(key);
        }
        let hold = self.holds.get_mut(key);
        let (node, held, bill) = (hold.node, hold.held, hold.bill(End::Drop));
        hold.count_metered(&bill);
        hold.state = match hold.on_drop {
            OnDrop::Release => State::Released,
            OnDrop::Commit => State::Settled,
        };
        self.nodes.settle(node, &held, &bill, &mut { NOTHING }, Tally::Expired);
        self.mark(node);
        self.call_changed(node);
    }
}

/// The calls of an owner while the hold lives.
impl Engine {
    pub(crate) fn held(&mut self, key: HoldKey, now: Option<Instant>) -> Amount {
        self.advance_hold(key, now, |_| Quantities::NONE);
        let hold = self.holds.get(key);
        let held = if hold.is_live() { hold.reported() } else { Quantities::NONE };
        Amount::reported(held, *self.labels())
    }

    pub(crate) fn choice(&self, key: HoldKey) -> u32 {
        self.holds.get(key).choice
    }

    /// Exchanges the label. A hold that has expired is told with the label of its life.
    pub(crate) fn label(&mut self, key: HoldKey, label: &mut Option<Name>, now: Option<Instant>) {
        self.advance_hold(key, now, |_| Quantities::NONE);
        mem::swap(&mut self.holds.get_mut(key).label, label);
    }

    pub(crate) fn on_drop(&mut self, key: HoldKey, on_drop: OnDrop, now: Option<Instant>) {
        self.advance_hold(key, now, |_| Quantities::NONE);
        if self.holds.get(key).is_live() {
            // It expires among others now.
            let expiry = self.unschedule(key);
            self.holds.get_mut(key).on_drop = on_drop;
            self.schedule(key, expiry);
        }
    }

    pub(crate) fn is_expired(&mut self, key: HoldKey, now: Option<Instant>) -> bool {
        self.advance_hold(key, now, |_| Quantities::NONE);
        !self.is_live(key)
    }

    /// Asks to settle part of a hold, and the rest from the pool.
    pub(crate) fn record_part(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, part, now)?;
        let hold = self.holds.get(key);
        let (node, beyond) = (hold.node, hold.beyond(part));
        self.admit(node, &beyond, now)?;
        self.meter(key, part, Tally::Admitted);
        Ok(())
    }

    pub(crate) fn debit_part(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.advance_hold(key, now, |_| *part);
        self.meter(key, part, Tally::Fact)
    }

    /// Settles part of a hold, and the rest from the pool.
    pub(super) fn meter(&mut self, key: HoldKey, part: &Quantities, tally: Tally) -> Booked {
        let hold = self.holds.get_mut(key);
        let (node, late) = (hold.node, !hold.is_live());
        let (reserved, bill) = hold.meter(part);
        Booked::new(&bill, self.settle(node, &reserved, &bill, tally), late)
    }

    pub(crate) fn grow(
        &mut self,
        key: HoldKey,
        extra: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, extra, now)?;
        let node = self.holds.get(key).node;
        self.admit(node, extra, now)?;
        self.nodes.hold(node, extra, Tally::Admitted);
        self.holds.get_mut(key).put(extra);
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
        let hold = self.holds.get_mut(key);
        hold.take(by);
        let node = hold.node;
        self.settle(node, by, &Quantities::NONE, Tally::Fact);
        Ok(())
    }

    pub(crate) fn split(
        &mut self,
        key: HoldKey,
        part: &Amount,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        // The slots that are named move; those that are not are new.
        let moving = part.all();
        let new = Quantities::each(IN_FLIGHT.difference(moving.axes()), |_| ONE_SLOT);
        self.live_hold(key, &new, now)?;
        self.within_hold(key, &moving)?;
        let node = self.holds.get(key).node;
        self.admit(node, &new, now)?;
        self.nodes.hold(node, &new, Tally::Begun);
        let whole = self.holds.get_mut(key);
        whole.take(&moving);
        let (label, since, choice) = (whole.label.clone(), whole.since, whole.choice);
        let (on_drop, expiry) = (whole.on_drop, whole.expiry);
        let half = self.holds.insert(node, part.held(), on_drop);
        let hold = self.holds.get_mut(half);
        (hold.label, hold.since, hold.choice) = (label, since, choice);
        self.schedule(half, expiry);
        Ok(half)
    }

    /// Moves the held and the metered units of another hold of the same pool to this one. Nothing
    /// is asked or let go.
    pub(crate) fn merge(
        &mut self,
        key: HoldKey,
        other: HoldKey,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, &Quantities::NONE, now)?;
        self.live_hold(other, &Quantities::NONE, now)?;
        // The time of the first may have come with that of the other.
        self.live_hold(key, &Quantities::NONE, None)?;
        self.unschedule(other);
        let Hold { node, held, metered, is_metered, on_drop, .. } = *self.holds.get(other);
        self.holds.remove(other);
        if on_drop == OnDrop::Commit {
            // What was to be booked by a drop still is.
            self.on_drop(key, OnDrop::Commit, None);
        }
        let hold = self.holds.get_mut(key);
        hold.put(&held);
        if is_metered {
            hold.count_metered(&Quantities::new(AxisSet::ALL, metered));
        }
        self.nodes.change_way(node, |node| node.count(Tally::Merged));
        Ok(())
    }

    /// Refuses a part that is more than the hold has: the held units are then `available`, and the
    /// `cap`.
    fn within_hold(&self, key: HoldKey, part: &Quantities) -> Result<(), BudgetError> {
        let hold = self.holds.get(key);
        let too_much = |&axis: &usize| part.units()[axis] > hold.held.units()[axis];
        let Some(axis) = part.axes().find(too_much) else { return Ok(()) };
        let (requested, held) = (part.units()[axis], hold.held.units()[axis]);
        let (node, label) = (&self.nodes[hold.node], self.labels().label(axis));
        let refusal = node.exceeded((axis, label), requested, held, Outlook::Never, None);
        Err(refusal.with_cap(held).into())
    }
}

impl Hold {
    /// A hold begins in a free slot: in its place, and not copied there. The metered units of the
    /// hold before are not read any more.
    #[inline(always)]
    fn begin(&mut self, serial: Serial, node: NodeId, held: Quantities, on_drop: OnDrop) {
        (self.serial, self.node, self.held) = (serial, node, held);
        (self.is_metered, self.on_drop, self.state) = (false, on_drop, State::Live);
        (self.since, self.expiry) = (None, None);
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn held(&self) -> &Quantities {
        &self.held
    }

    /// Whether it takes slots in flight, be it none: the share of a lease does not.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn is_reservation(&self) -> bool {
        self.held.axes().contains(lane::IN_FLIGHT)
    }

    /// The held amount, as its owner would name it: one slot is not named.
    pub(super) fn reported(&self) -> Quantities {
        match self.held.of(lane::IN_FLIGHT) {
            ONE_SLOT => self.held.without(lane::IN_FLIGHT),
            _ => self.held,
        }
    }

    pub(super) fn label(&self) -> Option<&Name> {
        self.label.as_ref()
    }

    pub(super) fn set_since(&mut self, since: Option<Instant>) {
        self.since = since;
    }

    pub(super) fn set_choice(&mut self, choice: u32) {
        self.choice = choice;
    }

    /// Takes on the terms of the ask that it was granted for.
    pub(super) fn agree(&mut self, label: Option<Name>, on_drop: Option<OnDrop>) {
        self.label = label;
        self.on_drop = on_drop.unwrap_or(self.on_drop);
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    pub(super) fn serial(&self) -> Serial {
        self.serial
    }

    pub(super) fn commits_on_drop(&self) -> bool {
        self.on_drop == OnDrop::Commit
    }

    pub(super) fn on_drop(&self) -> OnDrop {
        self.on_drop
    }

    pub(super) fn expiry(&self) -> Option<Instant> {
        self.expiry
    }

    pub(super) fn set_expiry(&mut self, expiry: Option<Instant>) {
        self.expiry = expiry;
    }

    pub(super) fn take_expiry(&mut self) -> Option<Instant> {
        self.expiry.take()
    }

    #[inline]
    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// How its end counts.
    #[inline(always)]
    fn tally(&self, how: End<'_>) -> Tally {
        match (how, self.on_drop) {
            (End::Commit(_), _) | (End::Drop, OnDrop::Commit) => Tally::Committed,
            (End::Release, _) | (End::Drop, OnDrop::Release) => Tally::Released,
        }
    }

    /// The units that its end settles, beside the metered ones.
    fn bill(&self, how: End<'_>) -> Quantities {
        let mut bill = Quantities::NONE;
        self.add_bill(how, &mut bill);
        bill
    }

    /// Makes the [`bill`](Hold::bill) in a place where there is none yet.
    #[inline(always)]
    fn add_bill(&self, how: End<'_>, bill: &mut Quantities) {
        match how {
            End::Commit(total) => self.add_bill_of(total, bill),
            End::Drop if self.on_drop == OnDrop::Commit => self.add_bill_of(&Amount::new(), bill),
            End::Drop | End::Release => {}
        }
    }

    /// Adds the units that are missing up to a total, of which an axis that is named has its
    /// figure, and another the metered and the held units.
    #[inline(always)]
    fn add_bill_of(&self, total: &Amount, bill: &mut Quantities) {
        let (named, figures) = (total.named(), total.quantities());
        let axes = self.held.axes().union(figures.axes()).difference(IN_FLIGHT);
        let (left, metered) = (self.left(), self.metered());
        for axis in axes {
            let units = match named.contains(axis) {
                true => figures.units()[axis].saturating_sub(metered[axis]),
                false => left[axis],
            };
            bill.set(axis, units);
        }
        if let Some(tokens) = self.tokens_of_parts(total) {
            bill.set(lane::TOKENS, tokens.saturating_sub(metered[lane::TOKENS]));
        }
    }

    /// The units that were settled of it before its end.
    #[inline(always)]
    fn metered(&self) -> &Units {
        if self.is_metered { &self.metered } else { &NOTHING }
    }

    /// The units that were metered beyond the total that its end names: to be given back.
    #[cold]
    fn excess(&self, how: End<'_>) -> Quantities {
        let End::Commit(total) = how else { return Quantities::NONE };
        let mut totals = total.quantities().only(total.named());
        if let Some(tokens) = self.tokens_of_parts(total) {
            totals = totals.with(lane::TOKENS, tokens);
        }
        let too_much = |axis: &usize| self.metered()[*axis] > totals.units()[*axis];
        let axes = totals.axes().filter(too_much);
        axes.fold(Quantities::NONE, |excess, axis| {
            excess.with(axis, self.metered()[axis] - totals.units()[axis])
        })
    }

    /// The tokens of a total that names a part of them: the larger of what it names and of both
    /// parts as they are settled.
    #[inline(always)]
    fn tokens_of_parts(&self, total: &Amount) -> Option<u64> {
        let named = total.named();
        if named.intersection(AxisSet::TOKEN_PARTS).is_empty() {
            return None;
        }
        let left = self.left();
        let settled = |axis: usize| match named.contains(axis) {
            true => total.quantities().units()[axis],
            false => self.metered()[axis].saturating_add(left[axis]),
        };
        let [input, output] = [lane::INPUT_TOKENS, lane::OUTPUT_TOKENS].map(settled);
        Some(input.saturating_add(output).max(total.quantities().of(lane::TOKENS)))
    }

    /// The units that are held and not settled yet.
    #[inline(always)]
    fn left(&self) -> &Units {
        if self.state == State::Settled { &NOTHING } else { self.held.units() }
    }

    /// Settles a part of it. Returns the units that the pool had reserved of that, and those that
    /// it is to book.
    fn meter(&mut self, part: &Quantities) -> (Quantities, Quantities) {
        let covered = self.covered(part);
        let (reserved, bill) = match self.state {
            State::Live => (covered, *part),
            State::Free => unreachable!("a key names a hold"),
            State::Released => (Quantities::NONE, *part),
            State::Settled => (Quantities::NONE, self.beyond(part)),
        };
        self.take(&covered);
        self.count_metered(&bill);
        (reserved, bill)
    }

    fn count_metered(&mut self, settled: &Quantities) {
        if !self.is_metered {
            (self.is_metered, self.metered) = (true, NOTHING);
        }
        for axis in settled.axes() {
            self.metered[axis] = self.metered[axis].saturating_add(settled.units()[axis]);
        }
    }

    /// The units of `part` that this hold does not cover.
    pub(super) fn beyond(&self, part: &Quantities) -> Quantities {
        part.beyond(self.held.units())
    }

    /// The units of `part` that must come from elsewhere: all of them, if the held units have been
    /// released.
    pub(super) fn uncovered(&self, part: &Quantities) -> Quantities {
        if self.state == State::Released { *part } else { self.beyond(part) }
    }

    /// The units of `part` that it covers.
    fn covered(&self, part: &Quantities) -> Quantities {
        let held = self.held.units();
        Quantities::each(part.axes(), |axis| part.units()[axis].min(held[axis]))
    }

    pub(super) fn put(&mut self, extra: &Quantities) {
        let axes = self.held.axes().union(extra.axes());
        let (held, extra) = (*self.held.units(), extra.units());
        let sum = |axis: usize| held[axis].checked_add(extra[axis]);
        self.held =
            Quantities::each(axes, |axis| sum(axis).expect("what is held is within the cap"));
    }

    pub(super) fn take(&mut self, part: &Quantities) {
        let held = *self.held.units();
        let left = |axis: usize| held[axis].checked_sub(part.units()[axis]);
        self.held =
            Quantities::each(self.held.axes(), |axis| left(axis).expect("what is taken is held"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caps;
    use crate::engine::Spec;

    /// Serials whose low half is all zeros, all ones, or has only the first bit of it.
    const LAST: [u64; 4] = [0, (1 << 31) - 1, (1 << 32) - 1, (1 << 32) + (1 << 31) - 1];

    /// The place of a guard that was forgotten.
    #[test]
    fn a_holds_place_is_256_bytes_at_most() {
        assert!(size_of::<Hold>() <= 256, "{}", size_of::<Hold>());
    }

    #[test]
    fn a_key_names_neither_a_free_slot_nor_the_next_hold_in_it() {
        for last in LAST {
            let mut holds = Holds { last: Serial(last), ..Holds::default() };
            let first = holds.insert(NodeId::ROOT, Quantities::NONE, OnDrop::Release);
            assert!(first.names(&holds.slots[0]));
            holds.remove(first);
            assert!(!first.names(&holds.slots[0]), "{first:?} has ended");
            let second = holds.insert(NodeId::ROOT, Quantities::NONE, OnDrop::Release);
            assert_eq!((holds.slots.places(), second.slot()), (1, 0));
            assert!(second.names(&holds.slots[0]) && !first.names(&holds.slots[0]));
        }
    }

    #[test]
    fn of_two_that_expire_at_one_instant_the_older_is_first_however_many_there_were() {
        for last in LAST {
            let (at, now, ttl) = (NodeId::ROOT, Instant::now(), Duration::from_secs(1));
            let mut engine = Engine::new(Spec::of(Caps::new()));
            engine.holds.last = Serial(last.saturating_sub(1));
            let [older, _] =
                [(); 2].map(|()| engine.reserve_for(at, &Quantities::NONE, ttl, now).unwrap());
            assert_eq!(engine.expiry.next_due(now + ttl), Some(older), "after {last}");
        }
    }
}
