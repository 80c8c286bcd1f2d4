//! Holds: budget that is promised to one owner, and how each of them ends.
//!
//! A hold lives in the engine, under a key, so that it can expire, be listed and be labelled. The
//! engine remembers an expired one until its owner ends it, as the owner may still tell of a spend.
//!
//! ```text
//!             record, debit, grow, shrink, split
//!                   ┌───┐
//!                   │   ▼
//! reserve ───────► Live ──────── commit, release, drop ────────► gone
//!                   │                                             ▲
//!                   │ its time is over                            │
//!                   ├── on drop: release ──► Released ── commit ──┤  late: books the bill
//!                   └── on drop: commit ───► Settled ─── commit ──┘  late: books what is beyond
//! ```

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::Engine;
use super::admission::{Booked, Tally};
use super::ledger::Take;
use super::nodes::NodeId;
use crate::types::amount::Amount;
use crate::types::axis::{Axis, AxisSet, NOTHING, Quantities, Units};
use crate::types::error::{BudgetError, BudgetExceeded, Outlook};

const ONE_IN_FLIGHT: Quantities = Quantities::NONE.with(Axis::InFlight, 1);

/// Names one hold: its slot, and the low half of its serial, which tells it from those that had the
/// slot before. One word, so that a reservation is two: those are handed on in registers, and three
/// are copied through memory.
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

/// All holds of a tree, with the free slots in a list through them. A `Slab` would move each value
/// out when it is removed, which takes a quarter of the time of a commit.
#[derive(Debug, Default)]
pub(super) struct Holds {
    slots: Vec<Hold>,
    /// The first free slot; each of them names the next.
    free: Option<u32>,
    last: Serial,
}

#[derive(Debug)]
pub(super) struct Hold {
    serial: Serial,
    node: NodeId,
    /// Of a free slot: the next.
    next_free: Option<u32>,
    /// What is reserved for it, one in flight included. What was, if it has expired: its owner may
    /// still come and say that it was spent.
    held: Quantities,
    /// What `record` and `debit` have settled of it.
    metered: Units,
    label: Option<&'static str>,
    on_drop: OnDrop,
    state: State,
    expiry: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No hold: the slot is free.
    Free,
    /// What is held is reserved.
    Live,
    /// Expired: what was held has been released.
    Released,
    /// Expired: what was held has been settled.
    Settled,
}

/// What becomes of a hold whose owner goes away without a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDrop {
    Release,
    Commit,
}

/// How an owner ends its hold.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End<'a> {
    /// This was spent, beside what was metered.
    Commit(&'a Amount),
    /// This was spent, what was metered included.
    Total(&'a Amount),
    /// Nothing more was spent.
    Release,
    /// The owner went away without a word.
    Drop,
}

impl Holds {
    #[inline]
    pub(super) fn insert(&mut self, node: NodeId, held: Quantities) -> HoldKey {
        let serial = Serial(self.last.0.checked_add(1).expect("2^64 holds are never made"));
        self.last = serial;
        let slot = match self.free {
            Some(slot) => {
                let free = &mut self.slots[slot as usize];
                self.free = free.next_free;
                // Made in its place, and not copied there.
                *free = Hold::new(serial, node, held);
                slot
            }
            None => self.push(Hold::new(serial, node, held)),
        };
        HoldKey::new(slot, serial)
    }

    #[cold]
    fn push(&mut self, hold: Hold) -> u32 {
        let slot = u32::try_from(self.slots.len()).expect("2^32 holds never live at once");
        self.slots.push(hold);
        slot
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

    /// Frees the slot of a hold. Its key names it no more.
    #[inline]
    pub(super) fn remove(&mut self, key: HoldKey) {
        let free = self.free.replace(key.slot() as u32);
        let hold = self.get_mut(key);
        (hold.state, hold.next_free) = (State::Free, free);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Hold> {
        self.slots.iter().filter(|hold| hold.state != State::Free)
    }
}

/// How holds begin and end.
impl Engine {
    /// What a hold of an amount reserves: one in flight, too.
    #[inline(always)]
    pub(crate) fn held_by(amount: &Quantities) -> Quantities {
        amount.with(Axis::InFlight, 1)
    }

    /// The plain rule of a [`reserve`](Engine::reserve): an open pool holds what fits on its whole
    /// way. It is all that there is to do while the tree [is quiet](Engine::is_quiet).
    #[inline(always)]
    pub(crate) fn try_reserve(&mut self, at: NodeId, amount: &Quantities) -> Option<HoldKey> {
        let held = Engine::held_by(amount);
        let is_held = !self.nodes[at].closed
            && self.nodes.try_take(at, held.units(), Take::Hold, Tally::BEGUN);
        if is_held { Some(self.holds.insert(at, held)) } else { None }
    }

    pub(crate) fn reserve(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        let held = Engine::held_by(amount);
        let now = self.advance(at, held.units(), now);
        if let Some(refusal) = self.must_queue(at, held.units(), now) {
            return Err(refusal);
        }
        if !self.is_late(at, now) {
            if let Some(key) = self.try_reserve(at, amount) {
                return Ok(key);
            }
        }
        self.refuse(at, held.units(), now)
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
        self.schedule_after(key, ttl);
        Ok(key)
    }

    /// Makes a hold of what [`fits`](super::nodes::Nodes::fits).
    pub(super) fn begin(&mut self, at: NodeId, held: Quantities) -> HoldKey {
        self.nodes.hold(at, held.units(), Tally::BEGUN);
        self.holds.insert(at, held)
    }

    #[inline(always)]
    pub(crate) fn is_live(&self, key: HoldKey) -> bool {
        self.holds.get(key).is_live()
    }

    /// The plain rule of an [`end`](Engine::end): a live hold is replaced by its bill. It is all
    /// that there is to do while the tree [is quiet](Engine::is_quiet).
    #[inline(always)]
    pub(crate) fn end_live(&mut self, key: HoldKey, how: End<'_>) -> Booked {
        let Hold { node, ref held, .. } = *self.holds.get(key);
        let mut booked = Booked::new(&self.holds.get(key).bill(how), NOTHING, false);
        let Booked { settled, overage, .. } = &mut booked;
        self.nodes.settle(node, held.units(), settled.units(), overage, Tally::ENDED);
        self.holds.remove(key);
        booked
    }

    pub(crate) fn end(&mut self, key: HoldKey, how: End<'_>, now: Option<Instant>) -> Booked {
        self.advance_hold(key, now, |hold| hold.bill(how));
        self.unschedule(key);
        let node = self.holds.get(key).node;
        if !self.is_live(key) {
            return self.end_late(key, how);
        }
        let booked = self.end_live(key, how);
        self.balances_changed(node);
        booked
    }

    /// The owner of an expired hold has come back.
    #[cold]
    fn end_late(&mut self, key: HoldKey, how: End<'_>) -> Booked {
        let hold = self.holds.get(key);
        let (node, bill) = (hold.node, hold.bill(how));
        let bill = if hold.state == State::Settled { hold.beyond(&bill) } else { bill };
        self.holds.remove(key);
        Booked::new(&bill, self.settle(node, &NOTHING, bill.units(), Tally::FACT), true)
    }

    /// Admission of capacity alone: a spend that happened before the close or the deadline may
    /// still be settled after it.
    pub(crate) fn try_commit(
        &mut self,
        key: HoldKey,
        actual: &Amount,
        now: Option<Instant>,
    ) -> Result<Booked, BudgetError> {
        let bill = self.holds.get(key).bill(End::Commit(actual));
        self.live_hold(key, &bill, now)?;
        let hold = self.holds.get(key);
        let beyond = hold.beyond(&bill);
        if let Some(lack) = self.nodes.lack(hold.node, beyond.units()) {
            return Err(lack.refusal(self.reading));
        }
        Ok(self.end(key, End::Commit(actual), None))
    }

    /// The time of a hold is over: what it holds goes back, or is settled. What that was is kept
    /// for its owner. The caller serves the waiters.
    pub(super) fn expire(&mut self, key: HoldKey) {
        let hold = self.holds.get_mut(key);
        let (node, held, bill) = (hold.node, hold.held, hold.bill(End::Drop));
        let released = hold.on_drop == OnDrop::Release;
        hold.state = if released { State::Released } else { State::Settled };
        self.nodes.settle(node, held.units(), bill.units(), &mut { NOTHING }, Tally::ENDED);
        self.call_changed(node);
    }
}

/// What an owner does with a hold while it lives.
impl Engine {
    pub(crate) fn held(&mut self, key: HoldKey, now: Option<Instant>) -> Quantities {
        self.advance_hold(key, now, |_| Quantities::NONE);
        let hold = self.holds.get(key);
        if hold.is_live() { hold.held } else { Quantities::NONE }
    }

    pub(crate) fn label(&mut self, key: HoldKey, label: &'static str) {
        self.holds.get_mut(key).label = Some(label);
    }

    pub(crate) fn commit_on_drop(&mut self, key: HoldKey, now: Option<Instant>) {
        self.advance_hold(key, now, |_| Quantities::NONE);
        if self.holds.get(key).is_live() {
            // It expires among others now.
            let expiry = self.unschedule(key);
            self.holds.get_mut(key).on_drop = OnDrop::Commit;
            self.schedule(key, expiry);
        }
    }

    /// Asks to settle part of a hold, and what is beyond it from the pool.
    pub(crate) fn record_part(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, part, now)?;
        let hold = self.holds.get(key);
        let (node, beyond) = (hold.node, hold.beyond(part));
        self.admit(node, beyond.units(), now)?;
        self.meter(key, part, Tally::ADMITTED);
        Ok(())
    }

    pub(crate) fn debit_part(
        &mut self,
        key: HoldKey,
        part: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.advance_hold(key, now, |_| *part);
        self.meter(key, part, Tally::FACT)
    }

    /// Settles part of a hold, and what is beyond it from the pool.
    pub(super) fn meter(&mut self, key: HoldKey, part: &Quantities, tally: Tally) -> Booked {
        let hold = self.holds.get_mut(key);
        let (node, late) = (hold.node, !hold.is_live());
        let (reserved, bill) = hold.meter(part);
        Booked::new(&bill, self.settle(node, reserved.units(), bill.units(), tally), late)
    }

    pub(crate) fn grow(
        &mut self,
        key: HoldKey,
        extra: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, extra, now)?;
        let node = self.holds.get(key).node;
        self.admit(node, extra.units(), now)?;
        self.nodes.hold(node, extra.units(), Tally::ADMITTED);
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
        let node = self.holds.get(key).node;
        self.admit(node, ONE_IN_FLIGHT.units(), now)?;
        self.nodes.hold(node, ONE_IN_FLIGHT.units(), Tally::BEGUN);
        let whole = self.holds.get_mut(key);
        whole.take(part);
        let (label, on_drop, expiry) = (whole.label, whole.on_drop, whole.expiry);
        let key = self.holds.insert(node, part.with(Axis::InFlight, 1));
        let half = self.holds.get_mut(key);
        (half.label, half.on_drop) = (label, on_drop);
        self.schedule(key, expiry);
        Ok(key)
    }

    /// Refuses a part that is more than the hold has: the hold is then what is available, and the
    /// cap.
    fn within_hold(&self, key: HoldKey, part: &Quantities) -> Result<(), BudgetError> {
        let hold = self.holds.get(key);
        let too_much = |&axis: &usize| part.units()[axis] > hold.held.units()[axis];
        let Some(axis) = part.axes().find(too_much) else { return Ok(()) };
        let (requested, held) = (part.units()[axis], hold.held.units()[axis]);
        let node = &self.nodes[hold.node];
        let refusal = node.exceeded(axis, requested, held, Outlook::Never, None);
        Err(BudgetExceeded { cap: Some(held), ..refusal }.into())
    }
}

impl Hold {
    #[inline(always)]
    fn new(serial: Serial, node: NodeId, held: Quantities) -> Hold {
        Hold {
            serial,
            node,
            next_free: None,
            held,
            metered: NOTHING,
            label: None,
            on_drop: OnDrop::Release,
            state: State::Live,
            expiry: None,
        }
    }

    pub(super) fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn held(&self) -> &Quantities {
        &self.held
    }

    pub(super) fn label(&self) -> Option<&'static str> {
        self.label
    }

    pub(super) fn serial(&self) -> Serial {
        self.serial
    }

    pub(super) fn commits_on_drop(&self) -> bool {
        self.on_drop == OnDrop::Commit
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

    /// What its end settles. A commit settles an axis that is named at its figure, and another at
    /// what is held of it.
    #[inline(always)]
    fn bill(&self, how: End<'_>) -> Quantities {
        match how {
            End::Commit(actual) => self.bill_of(actual, &NOTHING),
            End::Total(total) => self.bill_of(total, &self.metered),
            End::Drop if self.on_drop == OnDrop::Commit => self.bill_of(&Amount::new(), &NOTHING),
            End::Drop | End::Release => Quantities::NONE,
        }
    }

    /// The figures of `actual` beyond what is settled `already`.
    #[inline]
    fn bill_of(&self, actual: &Amount, already: &Units) -> Quantities {
        let (named, figures) = (actual.named(), actual.quantities());
        let axes = self.held.axes().union(figures.axes());
        let axes = axes.difference(AxisSet::of(Axis::InFlight));
        let mut units: Units = std::array::from_fn(|axis| {
            let figure = figures.units()[axis].saturating_sub(already[axis]);
            if named.contains(axis) { figure } else { self.held.units()[axis] }
        });
        units[Axis::InFlight as usize] = 0;
        Quantities::new(axes, units)
    }

    /// Settles a part of it. Returns what the pool had reserved of that, and what it is to book.
    fn meter(&mut self, part: &Quantities) -> (Quantities, Quantities) {
        let covered = self.covered(part);
        let (reserved, bill) = match self.state {
            State::Live => (covered, *part),
            State::Free => unreachable!("a key names a hold"),
            State::Released => (Quantities::NONE, *part),
            State::Settled => (Quantities::NONE, self.beyond(part)),
        };
        self.take(&covered);
        for axis in part.axes() {
            self.metered[axis] = self.metered[axis].saturating_add(part.units()[axis]);
        }
        (reserved, bill)
    }

    /// What of `part` this hold does not cover.
    pub(super) fn beyond(&self, part: &Quantities) -> Quantities {
        part.beyond(self.held.units())
    }

    /// What of `part` must come from elsewhere: all of it, if what was held has been released.
    pub(super) fn uncovered(&self, part: &Quantities) -> Quantities {
        if self.state == State::Released { *part } else { self.beyond(part) }
    }

    /// What of `part` it does.
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

    /// What stays of a guard that was forgotten.
    #[test]
    fn a_holds_place_is_200_bytes_at_most() {
        assert!(size_of::<Hold>() <= 200, "{}", size_of::<Hold>());
    }

    #[test]
    fn a_key_names_neither_a_free_slot_nor_the_next_hold_in_it() {
        for last in LAST {
            let mut holds = Holds { last: Serial(last), ..Holds::default() };
            let first = holds.insert(NodeId::ROOT, Quantities::NONE);
            assert!(first.names(&holds.slots[0]));
            holds.remove(first);
            assert!(!first.names(&holds.slots[0]), "{first:?} has ended");
            let second = holds.insert(NodeId::ROOT, Quantities::NONE);
            assert_eq!((holds.slots.len(), second.slot()), (1, 0));
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
