//! Admission, and its bookings: a call is charged to every pool on its way up, or to none of them.
//!
//! Above a carved pool a share is reserved already: the pools above keep
//!
//! > reserved for a carved pool = its `cap - used`
//!
//! so the part that the carved pool books as `used` leaves the parent's `reserved`, and enters its
//! `used`.

use std::time::{Duration, Instant};

use super::Engine;
use super::idempotency::Hashed;
use super::ledger::{Take, Under};
use super::nodes::{Chain, Deadline, List, Node, NodeId, Nodes, Way};
use super::queue::Purpose;
use crate::types::amount::Amount;
use crate::types::axis::{
    Axis, AxisSet, Label, Labels, NOTHING, Quantities, Units, each_lane, on_each_lane,
};
use crate::types::error::{BudgetError, BudgetExceeded, DeadlineExceeded, Outlook};
use crate::types::name::Name;
use crate::types::once::Once;

/// A fact that was booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booked {
    pub(crate) settled: Quantities,
    /// The greatest overage on the way up, and on the axes of `credits` the greatest credit: no
    /// axis has both.
    figures: Units,
    credits: AxisSet,
    /// The hold had expired.
    pub(crate) late: bool,
}

impl Booked {
    pub(crate) const NOTHING: Booked = Booked {
        settled: Quantities::NONE,
        figures: NOTHING,
        credits: AxisSet::EMPTY,
        late: false,
    };

    #[inline]
    pub(crate) fn new(settled: &Quantities, overage: Units, late: bool) -> Booked {
        Booked { settled: *settled, figures: overage, credits: AxisSet::EMPTY, late }
    }

    /// Settles on a whole way up.
    #[inline(always)]
    pub(super) fn settle(
        &mut self,
        nodes: &mut Nodes,
        at: NodeId,
        held: &Quantities,
        tally: Tally,
    ) {
        nodes.settle(at, held, &self.settled, &mut self.figures, tally);
    }

    /// The settled units that did not fit.
    pub(crate) fn overage(&self) -> Quantities {
        let settled = self.settled.axes().difference(self.credits);
        Quantities::each(settled, |axis| self.figures[axis])
    }

    /// The units that were given back.
    pub(crate) fn credited(&self) -> Quantities {
        Quantities::each(self.credits, |axis| self.figures[axis])
    }
}

/// How a step counts on every pool of its way. A `Tally` is one byte, so that a step that passes it
/// on does not make it in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tally {
    Fact,
    Admitted,
    /// Admitted, and a reservation begins.
    Begun,
    Committed,
    Released,
    Expired,
    Merged,
}

impl Tally {
    /// Of what is taken for a purpose. A spend is no reservation.
    #[inline(always)]
    pub(super) fn of(purpose: Purpose) -> Tally {
        match purpose {
            Purpose::Hold => Tally::Begun,
            Purpose::Spend => Tally::Admitted,
        }
    }
}

/// Spending without a hold.
impl Engine {
    /// The plain rule of a [`record`](Engine::record): an open pool spends an amount that fits on
    /// its whole way. It is all that there is to do where time plays no part and [nobody
    /// waits](Engine::is_quiet).
    #[inline(always)]
    pub(crate) fn try_record(&mut self, at: NodeId, asked: &Quantities) -> bool {
        !self.nodes[at].closed
            && self.nodes.try_take(at, asked.units(), Take::Spend, Tally::Admitted)
    }

    pub(crate) fn record(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, amount.units(), now);
        match self.must_queue(at, amount, now) {
            Some(refusal) => Err(refusal),
            None => self.record_now(at, amount, now),
        }
    }

    /// [`record`](Engine::record), after time has been brought up, where nobody is passed.
    fn record_now(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        if !self.may_admit(at, now) || !self.try_record(at, asked) {
            return self.refuse(at, asked, now);
        }
        self.balances_changed(at);
        Ok(())
    }

    /// Spends once for a key. A call that comes again gets the answer of the first: `Once::Before`.
    pub(crate) fn record_once(
        &mut self,
        at: NodeId,
        key: Name,
        amount: &Amount,
        now: Instant,
    ) -> Result<Once, BudgetError> {
        let asked = amount.quantities();
        let now = self.advance(at, asked.units(), Some(now)).expect("it is told the time");
        let Some(key) = self.new_key(at, key, amount, now)? else { return Ok(Once::Before) };
        if let Some(refusal) = self.must_queue(at, asked, Some(now)) {
            return Err(refusal);
        }
        if self.is_open(at, Some(now)) && self.explain_pause(at, asked).is_none() {
            self.make_room_for_key(at, asked, now)?;
        }
        self.record_now(at, asked, Some(now))?;
        self.nodes[at].keys.get_or_insert_default().remember(key, *asked.units(), now);
        Ok(Once::Now)
    }

    /// Books a spend once for a key. Where no more keys can be remembered, or the time is not known,
    /// `debit_once` books the spend as new: to lose a spend would be worse than to book one twice
    /// (P2).
    pub(crate) fn debit_once(
        &mut self,
        at: NodeId,
        key: Name,
        amount: &Amount,
        now: Option<Instant>,
    ) -> Result<Booked, BudgetError> {
        let charged = amount.quantities();
        let Some(now) = self.advance(at, charged.units(), now) else {
            return Ok(self.debit(at, charged, None));
        };
        let Some(key) = self.new_key(at, key, amount, now)? else {
            return Ok(Booked::NOTHING);
        };
        let keys = self.nodes[at].keys.get_or_insert_default();
        if keys.make_room(now).is_ok() {
            keys.remember(key, *amount.quantities().units(), now);
        }
        Ok(self.debit(at, charged, None))
    }

    /// A key that stands for nothing yet; `None` if it stands for this amount.
    fn new_key(
        &mut self,
        at: NodeId,
        key: Name,
        amount: &Amount,
        now: Instant,
    ) -> Result<Option<Hashed>, BudgetError> {
        let node = &mut self.nodes[at];
        let keys = node.keys.get_or_insert_default();
        let key = keys.hashed(key);
        match keys.get(&key, now) {
            Some(known) if known == *amount.quantities().units() => Ok(None),
            Some(_) => Err(BudgetError::KeyConflict { pool: node.name.clone(), key: key.1 }),
            None => Ok(Some(key)),
        }
    }

    fn make_room_for_key(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Instant,
    ) -> Result<(), BudgetError> {
        let node = &mut self.nodes[at];
        let keys = node.keys.get_or_insert_default();
        let Err(free) = keys.make_room(now) else { return Ok(()) };
        let (capacity, deadline) = (keys.capacity(), node.deadline);
        let in_time = |free: &Instant| deadline.is_none_or(|end| *free < end.at);
        let forgets = free.filter(in_time).map_or(Outlook::Never, Outlook::At);
        let lack = self.nodes.lack(at, asked);
        let outlook = lack.map_or(forgets, |lack| lack.outlook.max(forgets));
        let refusal = BudgetError::KeysFull {
            pool: self.nodes[at].name.clone(),
            capacity,
            outlook,
            retry_after: outlook.after(self.reading),
        };
        self.count_refused(at);
        Err(refusal)
    }

    /// The plain rule of a [`peek`](Engine::peek), as that of [`record`](Engine::try_record).
    #[inline(always)]
    pub(crate) fn would_record(&self, at: NodeId, asked: &Quantities) -> bool {
        !self.nodes[at].closed && self.nodes.fits(at, asked.units())
    }

    pub(crate) fn peek(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, amount.units(), now);
        if let Some(refusal) = self.queued(at, amount, now) {
            return Err(refusal);
        }
        let admitted = self.may_admit(at, now) && self.would_record(at, amount);
        if admitted { Ok(()) } else { Err(self.explain(at, amount, now)) }
    }

    /// A [`debit`](Engine::debit), where that is all there is to do.
    #[inline(always)]
    pub(crate) fn debit_quietly(&mut self, at: NodeId, amount: &Quantities, booked: &mut Booked) {
        booked.settled = *amount;
        booked.settle(&mut self.nodes, at, &Quantities::NONE, Tally::Fact);
    }

    pub(crate) fn debit(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.advance(at, amount.units(), now);
        let mut booked = Booked::NOTHING;
        self.debit_quietly(at, amount, &mut booked);
        self.balances_changed(at);
        booked
    }

    /// Takes back a spend, on the whole way up: never more than each pool has booked in its period.
    pub(crate) fn credit(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        // All that is due: what is given back is at most what has been booked.
        self.advance_all(at, now);
        let mut booked = Booked::NOTHING;
        self.nodes.credit(at, amount, &mut booked);
        self.balances_changed(at);
        booked
    }

    /// The `used` of this pool alone becomes the figure given, as is known from elsewhere.
    pub(crate) fn set_used(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        // All that is due: what settled before is part of the figure.
        self.advance_all(at, now);
        let node = &mut self.nodes[at];
        if !node.carved().intersection(amount.axes()).is_empty() {
            return Err(BudgetError::Carved { pool: node.name.clone() });
        }
        amount.axes().for_each(|axis| node.set_spent(axis, amount.units()[axis]));
        self.balances_changed(at);
        Ok(())
    }
}

/// Whether, and if not, why not.
impl Engine {
    /// Refuses and counts that, or lets the caller charge the way.
    pub(super) fn admit(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, asked.units(), now);
        self.admit_now(at, asked, now)
    }

    /// [`admit`](Engine::admit), for a call that must not pass waiters (P6).
    pub(super) fn admit_in_turn(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, asked.units(), now);
        match self.must_queue(at, asked, now) {
            Some(refusal) => Err(refusal),
            None => self.admit_now(at, asked, now),
        }
    }

    /// [`admit`](Engine::admit), after time has been brought up.
    fn admit_now(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let admitted = self.may_admit(at, now) && self.nodes.fits(at, asked.units());
        if admitted { Ok(()) } else { self.refuse(at, asked, now) }
    }

    /// The refusal of a call for new work that would pass waiters.
    #[inline]
    pub(super) fn must_queue(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Option<BudgetError> {
        if self.queue.has_waiting() { self.queue_refusal(at, asked, now) } else { None }
    }

    #[cold]
    fn queue_refusal(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Option<BudgetError> {
        let refusal = self.queued(at, asked, now)?;
        self.count_refused(at);
        Some(refusal)
    }

    /// That others wait, where neither an end of the pool nor a pause is to be told.
    fn queued(&self, at: NodeId, asked: &Quantities, now: Option<Instant>) -> Option<BudgetError> {
        let pool = self.queued_at(at, asked.units()).filter(|_| self.is_open(at, now))?;
        if self.explain_pause(at, asked).is_some() {
            return None;
        }
        // To those who wait a call that their going does not help is nothing: its lack is told.
        if self.nodes.lack(at, asked).is_some_and(|lack| lack.outlook > Outlook::AfterRelease) {
            return None;
        }
        Some(BudgetError::Queued { pool: self.nodes[pool].name.clone() })
    }

    /// Whether the pool is neither closed nor late; if not, which.
    pub(crate) fn open(&mut self, at: NodeId, now: Option<Instant>) -> Result<(), BudgetError> {
        let now = self.advance(at, &NOTHING, now);
        if self.is_open(at, now) { Ok(()) } else { Err(self.explain_end(at, now)) }
    }

    #[inline]
    pub(super) fn is_open(&self, at: NodeId, now: Option<Instant>) -> bool {
        !self.nodes[at].closed && !self.is_late(at, now)
    }

    /// Whether the pool is open, and no pool on the way up is paused.
    #[inline]
    pub(super) fn may_admit(&self, at: NodeId, now: Option<Instant>) -> bool {
        self.is_open(at, now) && self.paused(at).is_none()
    }

    #[inline]
    pub(crate) fn is_late(&self, at: NodeId, now: Option<Instant>) -> bool {
        self.nodes[at].late(now).is_some()
    }

    /// Refuses, counts that, and notes what lacks for whoever funds the pools.
    #[inline(never)]
    pub(super) fn refuse<R>(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<R, BudgetError> {
        self.note_lack(at, asked, now);
        self.refuse_quietly(at, asked, now)
    }

    /// Refuses, and counts that: all that there is to do while the tree [is quiet](Engine::is_quiet).
    /// The refusal is made in the place of the result: to move it there would take longer than all
    /// the rest.
    #[inline(never)]
    pub(crate) fn refuse_quietly<R>(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<R, BudgetError> {
        self.count_refused(at);
        if let Some(barrier) = self.barrier(at, asked, now) {
            return Err(barrier);
        }
        Err(self.lack_of_capacity(at, asked))
    }

    #[inline]
    pub(super) fn count_refused(&mut self, at: NodeId) {
        self.nodes.change_way(at, |node| node.counts.refused += 1);
    }

    /// Why a call is refused, or a waiter is turned away: closed, deadline, pause, capacity, in
    /// this order.
    #[cold]
    #[inline(never)]
    pub(super) fn explain(
        &self,
        at: NodeId,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> BudgetError {
        self.barrier(at, asked, now).unwrap_or_else(|| self.lack_of_capacity(at, asked))
    }

    /// The refusal by a close, a deadline or a pause.
    #[inline(always)]
    fn barrier(&self, at: NodeId, asked: &Quantities, now: Option<Instant>) -> Option<BudgetError> {
        if !self.is_open(at, now) {
            return Some(self.explain_end(at, now));
        }
        if self.pauses.is_empty() { None } else { self.explain_pause(at, asked) }
    }

    #[inline(always)]
    fn lack_of_capacity(&self, at: NodeId, asked: &Quantities) -> BudgetError {
        self.nodes
            .lack(at, asked)
            .expect("what is refused is closed, late, paused or does not fit")
            .refusal(self.labels(), self.reading)
    }

    #[cold]
    fn explain_end(&self, at: NodeId, now: Option<Instant>) -> BudgetError {
        if let Some(pool) = self.closed_by(at) {
            return BudgetError::Closed { pool };
        }
        let (deadline, now) = self.nodes[at].late(now).expect("what is not open is closed or late");
        self.deadline_exceeded(at, deadline, now).into()
    }

    /// The outermost closed pool of a way: as no pool above it is closed, it is one that was closed
    /// by itself.
    pub(super) fn closed_by(&self, at: NodeId) -> Option<Name> {
        let closed = self.nodes.way(at).filter(|(_, node)| node.closed);
        closed.last().map(|(_, node)| node.name.clone())
    }

    fn deadline_exceeded(&self, at: NodeId, deadline: Deadline, now: Instant) -> DeadlineExceeded {
        // Each pool has the earliest on its way up, so that the one that set it is the last with
        // the same.
        let same = self.nodes.way(at).filter(|(_, node)| node.deadline == Some(deadline));
        DeadlineExceeded {
            pool: same.last().map(|(_, node)| node.name.clone()),
            budget: deadline.total,
            elapsed: deadline.total.saturating_add(now.saturating_duration_since(deadline.at)),
            needed: Duration::ZERO,
        }
    }

    /// Whether neither time nor a release can ever make room.
    pub(super) fn is_unsatisfiable(&self, at: NodeId, asked: &Quantities) -> bool {
        self.is_unsatisfiable_before(at, asked, &self.nodes[at].deadline)
    }

    /// Whether neither time nor a release can make room up to an instant, if there is one.
    pub(super) fn is_unsatisfiable_by(
        &self,
        at: NodeId,
        asked: &Quantities,
        until: Option<Instant>,
    ) -> bool {
        // An admission at a deadline would be late, and one at this instant is not.
        let after = until.and_then(|until| until.checked_add(Duration::from_nanos(1)));
        let end = after.map(|at| Deadline { at, total: Duration::ZERO });
        let deadlines = self.nodes[at].deadline.into_iter().chain(end);
        self.is_unsatisfiable_before(at, asked, &deadlines.min_by_key(|deadline| deadline.at))
    }

    fn is_unsatisfiable_before(
        &self,
        at: NodeId,
        asked: &Quantities,
        deadline: &Option<Deadline>,
    ) -> bool {
        if self.outlasts(at, deadline) {
            return true;
        }
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes) {
            let node = &self.nodes[id];
            let (units, open) = (asked.units(), way.open().intersection(asked.axes()));
            let mut lacking = node.ledger.lacking(units, open);
            if lacking.any(|axis| node.outlook(axis, units[axis], deadline) == Outlook::Never) {
                return true;
            }
        }
        false
    }

    /// Settles on the whole way up, and serves the waiters for what came free.
    pub(super) fn settle(
        &mut self,
        at: NodeId,
        held: &Quantities,
        actual: &Quantities,
        tally: Tally,
    ) -> Units {
        let mut overage = NOTHING;
        self.nodes.settle(at, held, actual, &mut overage, tally);
        self.balances_changed(at);
        overage
    }
}

/// The way up: asked as a whole, then charged as a whole.
impl Nodes {
    /// Takes units on the whole way, or on none of it. Returns whether it did. It goes up once, and
    /// puts back where a pool refuses: most calls are admitted.
    #[inline(always)]
    pub(super) fn try_take(&mut self, at: NodeId, units: &Units, take: Take, tally: Tally) -> bool {
        let mut chain = Chain::from(at);
        while let Some((id, node)) = chain.up_mut(self) {
            if !node.is_plain() {
                return self.try_take_from(id, at, *units, take, tally);
            }
            if !node.ledger.try_take(units, take) {
                if id != at {
                    self.put_back(at, id, *units, take, tally);
                }
                return false;
            }
            node.count(tally);
        }
        true
    }

    /// The rest of the way, from a pool upward that is carved or joint.
    #[cold]
    #[inline(never)]
    fn try_take_from(
        &mut self,
        from: NodeId,
        at: NodeId,
        units: Units,
        take: Take,
        tally: Tally,
    ) -> bool {
        if self[from].is_carved() {
            return self.try_take_share(from, at, units, take, tally);
        }
        let mut list = List::from(from);
        while let Some((id, node)) = list.up_mut(self) {
            if !node.ledger.try_take(&units, take) {
                self.put_back(at, id, units, take, tally);
                return false;
            }
            node.count(tally);
        }
        true
    }

    /// The rest of the way, from a carved pool upward.
    fn try_take_share(
        &mut self,
        carved: NodeId,
        at: NodeId,
        units: Units,
        take: Take,
        tally: Tally,
    ) -> bool {
        let fits = self.fits(carved, &units);
        match take {
            _ if !fits => self.put_back(at, carved, units, take, tally),
            Take::Hold => self.hold(carved, &Quantities::new(AxisSet::ALL, units), tally),
            Take::Spend => {
                let actual = Quantities::new(AxisSet::ALL, units);
                self.settle(carved, &Quantities::NONE, &actual, &mut { NOTHING }, tally);
            }
        }
        fits
    }

    /// Puts back the units taken below the pool that refused.
    #[cold]
    #[inline(never)]
    fn put_back(&mut self, at: NodeId, refused: NodeId, units: Units, take: Take, tally: Tally) {
        let mut way = Way::from(at);
        while let Some((_, node)) = way.up_mut(self).filter(|(id, _)| *id != refused) {
            node.ledger.put_back(&units, take);
            node.uncount(tally);
        }
    }

    /// Whether every pool on the way has room for its part of `asked`.
    #[inline]
    pub(super) fn fits(&self, at: NodeId, asked: &Units) -> bool {
        let mut way = Way::from(at);
        while let Some((_, node)) = way.visit(self) {
            if !node.fits(asked, way.open()) {
                return false;
            }
        }
        true
    }

    /// Reserves units that [`fits`](Nodes::fits) has admitted.
    #[inline]
    pub(super) fn hold(&mut self, at: NodeId, held: &Quantities, tally: Tally) {
        self.hold_where(at, held, tally, |_| true);
    }

    /// [`hold`](Nodes::hold), on a part of the way.
    #[inline]
    pub(super) fn hold_where(
        &mut self,
        at: NodeId,
        held: &Quantities,
        tally: Tally,
        is_part: impl Fn(NodeId) -> bool,
    ) {
        let mut way = Way::from(at);
        while let Some((id, node)) = way.up_mut(self) {
            if is_part(id) {
                node.count(tally);
                node.ledger.hold(held.units(), way.open().intersection(held.axes()));
            }
        }
    }

    /// Replaces the held units by the `actual` spend, all the way up. Raises `overage` to the
    /// greatest on the way, axis by axis.
    #[inline]
    pub(super) fn settle(
        &mut self,
        at: NodeId,
        held: &Quantities,
        actual: &Quantities,
        overage: &mut Units,
        tally: Tally,
    ) {
        let mut chain = Chain::from(at);
        while let Some((id, node)) = chain.up_mut(self) {
            if !node.is_plain() {
                return self.settle_from(id, *held, actual, tally, overage);
            }
            node.count(tally);
            node.ledger.settle(held, actual, overage);
        }
    }

    /// [`settle`](Nodes::settle) from a pool upward that is carved or joint: the pools above a
    /// carved one let go as much as its share lost.
    #[inline(never)]
    fn settle_from(
        &mut self,
        from: NodeId,
        mut held: Quantities,
        actual: &Quantities,
        tally: Tally,
        overage: &mut Units,
    ) {
        if self[from].is_joint() {
            let mut list = List::from(from);
            while let Some((_, node)) = list.up_mut(self) {
                node.count(tally);
                node.ledger.settle(&held, actual, overage);
            }
            return;
        }
        self.change_way(from, |node| {
            node.count(tally);
            node.settle_share(&mut held, actual, overage);
        });
    }

    /// Takes back a spend on the whole way up. Units that a carved pool has not used any more
    /// belong to its share again: the pools above reserve them, and pay no overage with them.
    pub(super) fn credit(&mut self, at: NodeId, amount: &Quantities, booked: &mut Booked) {
        booked.credits = amount.axes();
        if amount.axes().is_empty() {
            return;
        }
        let mut backings = self.backings(at);
        let (mut way, mut regained) = (Way::from(at), NOTHING);
        while let Some((_, node)) = way.up_mut(self) {
            let backing = backings.pop().unwrap_or([u64::MAX; Axis::COUNTED]);
            for axis in amount.axes() {
                let units = amount.units()[axis];
                let credited = node.credit(axis, units, &mut regained[axis], backing[axis]);
                booked.figures[axis] = booked.figures[axis].max(credited);
            }
            node.shrink_window();
        }
    }

    /// The units of its share that each pool on a way may regain, the last first: as many as each
    /// pool above it has `used` in its period. Nothing where no share is on the way.
    fn backings(&self, at: NodeId) -> Vec<Units> {
        if !self.way(at).any(|(_, node)| node.is_carved()) {
            return Vec::new();
        }
        let mut least = [u64::MAX; Axis::COUNTED];
        let way: Vec<NodeId> = self.way(at).map(|(id, _)| id).collect();
        let backing = |&id: &NodeId| {
            let above = least;
            each_lane(|axis| least[axis] = least[axis].min(self[id].ledger.used(axis)));
            above
        };
        way.iter().rev().map(backing).collect()
    }

    /// Gives back to the parent what a carved pool neither used nor holds.
    pub(super) fn return_share(&mut self, id: NodeId) {
        let node = &mut self[id];
        let Some(parent) = node.share_of() else { return };
        let mut share = NOTHING;
        for axis in node.carved() {
            share[axis] = node.ledger.surrender(axis);
        }
        self.give_back(parent, share);
    }

    /// Returns an unused share to the nearest carved ancestor. Stopping there keeps the closing of a
    /// deep tree O(n).
    pub(super) fn give_back(&mut self, at: NodeId, share: Units) {
        self.give_back_where(at, share, |_| true);
    }

    /// [`give_back`](Nodes::give_back), to a part of the way. Returns what arrives behind it.
    #[inline]
    pub(super) fn give_back_where(
        &mut self,
        at: NodeId,
        mut share: Units,
        is_part: impl Fn(NodeId) -> bool,
    ) -> Units {
        let (mut way, mut overage) = (Way::from(at), NOTHING);
        while let Some((id, node)) = way.up_mut(self) {
            if share == NOTHING {
                break;
            }
            if is_part(id) {
                let mut given = Quantities::new(AxisSet::ALL, share);
                node.settle_share(&mut given, &Quantities::NONE, &mut overage);
                share = *given.units();
            }
        }
        share
    }

    /// The least that is free on the way up to the nearest carve, with a cap or without.
    pub(super) fn free(&self, at: NodeId) -> Units {
        let mut free = [u64::MAX; Axis::COUNTED];
        for (_, node, open) in self.open_way(at) {
            open.for_each(|axis| free[axis] = free[axis].min(node.ledger.free(axis)));
        }
        free
    }

    /// The first lack of capacity on the way, with the worst outlook of all.
    #[inline]
    pub(super) fn lack(&self, at: NodeId, asked: &Quantities) -> Option<Lack<'_>> {
        self.lack_of(at, asked.axes(), |_| asked.units())
    }

    /// [`lack`](Nodes::lack), where not all pools on the way are asked the same of the `named` axes.
    #[inline(always)]
    pub(super) fn lack_of<'a>(
        &self,
        at: NodeId,
        named: AxisSet,
        asked: impl Fn(NodeId) -> &'a Units,
    ) -> Option<Lack<'_>> {
        let (mut way, mut first) = (Way::from(at), None);
        while let Some(id) = way.up(self) {
            let (node, asked) = (&self[id], asked(id));
            let lacking = node.ledger.lacking(asked, way.open().intersection(named));
            if !lacking.is_empty() {
                // Each pool has the earliest deadline on its way up.
                let lack = node.lack_on(lacking, asked, &self[at].deadline);
                first = Some(lack.behind(first));
            }
        }
        first
    }
}

/// Where something that is asked does not fit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lack<'a> {
    node: &'a Node,
    axis: usize,
    asked: u64,
    pub(super) outlook: Outlook,
}

impl<'a> Lack<'a> {
    /// The first of two, with the worse outlook.
    #[inline]
    fn behind(self, first: Option<Lack<'a>>) -> Lack<'a> {
        match first {
            Some(first) => Lack { outlook: first.outlook.max(self.outlook), ..first },
            None => self,
        }
    }

    /// Whether it is this pool that refuses.
    pub(super) fn is_of(&self, node: &Node) -> bool {
        std::ptr::eq(self.node, node)
    }

    /// The refusal, told at an instant of the clock. It is made in place: to move it would cost
    /// more than to make it.
    #[inline(always)]
    pub(super) fn refusal(&self, labels: &Labels, reading: Option<Instant>) -> BudgetError {
        let free = self.node.ledger.free(self.axis);
        let axis = (self.axis, labels.label(self.axis));
        let exceeded = self.node.exceeded(axis, self.asked, free, self.outlook, reading);
        BudgetError::Exceeded(exceeded)
    }
}

impl Node {
    #[inline(always)]
    pub(super) fn count(&mut self, tally: Tally) {
        let counts = &mut self.counts;
        match tally {
            Tally::Fact => return,
            Tally::Admitted => return counts.admitted += 1,
            Tally::Begun => {
                counts.admitted += 1;
                return counts.reservations += 1;
            }
            Tally::Committed => counts.committed += 1,
            Tally::Released => counts.released += 1,
            Tally::Expired => counts.expired += 1,
            Tally::Merged => {}
        }
        counts.reservations -= 1;
    }

    /// Takes back the [`Tally`] of units that were taken.
    fn uncount(&mut self, tally: Tally) {
        self.counts.admitted -= 1;
        self.counts.reservations -= u64::from(tally == Tally::Begun);
    }

    /// Settles, and turns `held` into the units that the pools above can let go. Of a carved pool
    /// these are the loss of its share: its `used` units, the fall of a cap, and the free units of
    /// a closed pool.
    fn settle_share(&mut self, held: &mut Quantities, actual: &Quantities, overage: &mut Units) {
        let shares = on_each_lane(|axis| self.ledger.share(axis));
        self.ledger.settle(held, actual, overage);
        for axis in self.carved() {
            self.surrender_if_closed(axis);
            *held = held.with(axis, shares[axis] - self.ledger.share(axis));
        }
    }

    /// A closed pool keeps no share that it does not hold.
    fn surrender_if_closed(&mut self, axis: usize) {
        if self.closed {
            self.ledger.surrender(axis);
        }
    }

    /// Takes back a spend. Turns the `regained` units of a share below into those of the share of
    /// this pool: never more than its `backing`. Returns the units taken back here.
    fn credit(&mut self, axis: usize, units: u64, regained: &mut u64, backing: u64) -> u64 {
        let is_carved = self.carved().contains(axis);
        let share = self.ledger.share(axis);
        let most = if is_carved && !self.closed { backing } else { u64::MAX };
        let credited = self.ledger.credit(axis, units, *regained, most);
        if is_carved {
            self.surrender_if_closed(axis);
            *regained = self.ledger.share(axis) - share;
        }
        credited
    }

    /// Whether less is free here than asked, on the axes that are open.
    #[inline]
    pub(super) fn lacks(&self, asked: &Quantities, open: AxisSet) -> bool {
        !self.ledger.lacking(asked.units(), open.intersection(asked.axes())).is_empty()
    }

    /// The lack of this pool alone.
    pub(super) fn lack(&self, asked: &Units) -> Option<Lack<'_>> {
        let lacking = self.ledger.lacking(asked, AxisSet::ALL);
        (!lacking.is_empty()).then(|| self.lack_on(lacking, asked, &self.deadline))
    }

    /// The first of the axes on which something lacks, with the worst outlook of all.
    #[inline(always)]
    fn lack_on(
        &self,
        mut lacking: AxisSet,
        asked: &Units,
        deadline: &Option<Deadline>,
    ) -> Lack<'_> {
        let axis = lacking.next().expect("something lacks");
        let mut outlook = self.outlook(axis, asked[axis], deadline);
        for other in lacking {
            outlook = outlook.max(self.outlook(other, asked[other], deadline));
        }
        Lack { node: self, axis, asked: asked[axis], outlook }
    }

    /// Whether a release, or time before the deadline, may make room on every axis.
    #[inline]
    pub(super) fn can_ever_fit(&self, asked: &Quantities) -> bool {
        let (mut axes, units) = (asked.axes(), asked.units());
        match (&self.window, self.ceiling()) {
            (None, None) => axes.all(|axis| self.ledger.fits_at_best(axis, units[axis])),
            _ => axes.all(|axis| self.has_hope(axis, units[axis])),
        }
    }

    /// The same on one axis. Where there is no hope, a call that asks for more has none either.
    pub(super) fn has_hope(&self, axis: usize, asked: u64) -> bool {
        self.outlook(axis, asked, &self.deadline) != Outlook::Never
    }

    /// Whether on one axis only a higher cap makes room.
    pub(super) fn needs_funds(&self, axis: usize, asked: u64) -> bool {
        self.outlook(axis, asked, &self.deadline) == Outlook::AfterFunding
    }

    /// The outlook of a call that asks for more than is free.
    #[inline]
    fn outlook(&self, axis: usize, asked: u64, deadline: &Option<Deadline>) -> Outlook {
        let outlook = match &self.window {
            Some(_) => self.outlook_under(self.ledger.under(axis), asked, deadline),
            None if self.ledger.fits_at_best(axis, asked) => Outlook::AfterRelease,
            None => Outlook::Never,
        };
        match outlook {
            Outlook::Never if self.growth(axis) > 0 => self.outlook_funded(axis, asked, deadline),
            outlook => outlook,
        }
    }

    /// The outlook at the ceiling, of a call that has no hope at the cap.
    #[cold]
    fn outlook_funded(&self, axis: usize, asked: u64, deadline: &Option<Deadline>) -> Outlook {
        let ceiling = self.ledger.goal(axis).checked_add(self.growth(axis));
        let under = (axis, ceiling.expect("a cap grows up to its ceiling"));
        match self.outlook_under(under, asked, deadline) {
            Outlook::Never => Outlook::Never,
            _ => Outlook::AfterFunding,
        }
    }

    /// The outlook under the cap that was set, or one that may be set.
    #[cold]
    fn outlook_under(&self, under: Under, asked: u64, deadline: &Option<Deadline>) -> Outlook {
        let ledger = &self.ledger;
        let in_time = |at: &Instant| deadline.is_none_or(|deadline| *at < deadline.at);
        let when = |missing, reserved| {
            let window = self.window.as_ref()?;
            window.when_under(ledger, under, missing, reserved).filter(in_time)
        };
        let at_best = ledger.missing_at_best(under, asked);
        match when(ledger.missing_under(under, asked), ledger.reserved(under.0)) {
            Some(at) => Outlook::At(at),
            None if at_best == 0 || when(at_best, 0).is_some() => Outlook::AfterRelease,
            None => Outlook::Never,
        }
    }

    #[inline(always)]
    pub(super) fn exceeded(
        &self,
        (axis, label): (usize, Label),
        requested: u64,
        available: u64,
        outlook: Outlook,
        reading: Option<Instant>,
    ) -> BudgetExceeded {
        BudgetExceeded {
            lane: axis as u8,
            is_capped: self.ledger.capped().contains(axis),
            label,
            requested,
            available,
            cap: self.ledger.goal(axis),
            pool: self.name.clone(),
            outlook,
            retry_after: outlook.after(reading),
        }
    }
}
