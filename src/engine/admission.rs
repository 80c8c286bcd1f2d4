//! Admission, and what it books: a call is charged to every pool on its way up, or to none of them.
//!
//! Above a carved pool a share is reserved already: the pools above keep
//!
//! > reserved for a carved pool = its `cap - used`
//!
//! so what the carved pool books as used leaves the parent's `reserved`, and enters its `used`.

use std::time::{Duration, Instant};

use super::Engine;
use super::ledger::Take;
use super::nodes::{Asking, Deadline, Node, NodeId, Nodes, Way};
use crate::types::amount::Amount;
use crate::types::axis::{Axis, AxisSet, NOTHING, Quantities, Units};
use crate::types::error::{BudgetError, BudgetExceeded, DeadlineExceeded, Outlook};
use crate::types::name::Name;

/// A fact that was booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booked {
    pub(crate) settled: Quantities,
    /// The greatest on the way up; none where nothing was settled.
    pub(crate) overage: Units,
    /// The hold had expired.
    pub(crate) late: bool,
}

impl Booked {
    #[inline]
    pub(crate) fn new(settled: &Quantities, overage: Units, late: bool) -> Booked {
        Booked { settled: *settled, overage, late }
    }
}

/// How a step counts on every pool of its way.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Tally {
    admitted: u64,
    begun: u64,
    ended: u64,
}

impl Tally {
    pub(super) const FACT: Tally = Tally { admitted: 0, begun: 0, ended: 0 };
    pub(super) const ADMITTED: Tally = Tally { admitted: 1, ..Tally::FACT };
    pub(super) const BEGUN: Tally = Tally { begun: 1, ..Tally::ADMITTED };
    pub(super) const ENDED: Tally = Tally { ended: 1, ..Tally::FACT };
}

/// Spending without a hold.
impl Engine {
    /// The plain rule of a [`record`](Engine::record): an open pool spends what fits on its whole
    /// way. It is all that there is to do where time plays no part and [nobody
    /// waits](Engine::is_quiet).
    #[inline(always)]
    pub(crate) fn try_record(&mut self, at: NodeId, units: &Units) -> bool {
        !self.nodes[at].closed && self.nodes.try_take(at, units, Take::Spend, Tally::ADMITTED)
    }

    pub(crate) fn record(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, amount.units(), now);
        self.record_now(at, amount.units(), now)
    }

    /// [`record`](Engine::record), after time has been brought up.
    fn record_now(
        &mut self,
        at: NodeId,
        units: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        if self.is_late(at, now) || !self.try_record(at, units) {
            return self.refuse(at, units, now);
        }
        self.balances_changed(at);
        Ok(())
    }

    /// Spends once for a key. A call that comes again is told what the first was told: that it was
    /// admitted.
    pub(crate) fn record_once(
        &mut self,
        at: NodeId,
        key: Name,
        amount: &Amount,
        now: Instant,
    ) -> Result<(), BudgetError> {
        let units = amount.quantities().units();
        let now = self.advance(at, units, Some(now)).expect("it is told the time");
        let node = &mut self.nodes[at];
        let keys = node.keys.get_or_insert_default();
        let key = keys.hashed(key);
        match keys.get(&key, now) {
            Some(spent) if spent == *amount => return Ok(()),
            Some(_) => {
                return Err(BudgetError::KeyConflict { pool: node.name.clone(), key: key.1 });
            }
            None => {}
        }
        if self.is_open(at, Some(now)) {
            self.make_room_for_key(at, now)?;
        }
        self.record_now(at, units, Some(now))?;
        self.nodes[at].keys.get_or_insert_default().remember(key, *amount, now);
        Ok(())
    }

    fn make_room_for_key(&mut self, at: NodeId, now: Instant) -> Result<(), BudgetError> {
        let node = &mut self.nodes[at];
        let keys = node.keys.get_or_insert_default();
        let Err(free) = keys.make_room(now) else { return Ok(()) };
        let in_time = |free: &Instant| node.deadline.is_none_or(|end| *free < end.at);
        let outlook = free.filter(in_time).map_or(Outlook::Never, Outlook::At);
        let refusal = BudgetError::KeysFull {
            pool: node.name.clone(),
            capacity: keys.capacity(),
            outlook,
            retry_after: outlook.after(self.reading),
        };
        self.count_refused(at);
        Err(refusal)
    }

    pub(crate) fn peek(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, amount.units(), now);
        let admitted = self.is_open(at, now) && self.nodes.fits(at, amount.units());
        if admitted { Ok(()) } else { Err(self.explain(at, amount.units(), now)) }
    }

    pub(crate) fn debit(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.advance(at, amount.units(), now);
        Booked::new(amount, self.settle(at, &NOTHING, amount.units(), Tally::FACT), false)
    }
}

/// Whether, and if not, why not.
impl Engine {
    /// Whether nobody waits and no hold may expire: a transition that need not know the time has
    /// nothing to do before or after its own step.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        !self.queue.has_waiting() && !self.expiry.may_expire()
    }

    /// Refuses and counts that, or lets the caller charge the way.
    pub(super) fn admit(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, asked, now);
        self.admit_now(at, asked, now)
    }

    /// [`admit`](Engine::admit), for a call that must not pass waiters (P6).
    pub(super) fn admit_in_turn(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.advance(at, asked, now);
        match self.must_queue(at, asked, now) {
            Some(refusal) => Err(refusal),
            None => self.admit_now(at, asked, now),
        }
    }

    /// [`admit`](Engine::admit), after time has been brought up.
    fn admit_now(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let admitted = self.is_open(at, now) && self.nodes.fits(at, asked);
        if admitted { Ok(()) } else { self.refuse(at, asked, now) }
    }

    /// The refusal of a call for new work that would pass waiters.
    #[inline]
    pub(super) fn must_queue(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Option<BudgetError> {
        if self.queue.has_waiting() { self.queue_refusal(at, asked, now) } else { None }
    }

    #[cold]
    fn queue_refusal(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Option<BudgetError> {
        let pool = self.queued_at(at, asked).filter(|_| self.is_open(at, now))?;
        self.count_refused(at);
        Some(BudgetError::Queued { pool: self.nodes[pool].name.clone() })
    }

    #[inline]
    pub(super) fn is_open(&self, at: NodeId, now: Option<Instant>) -> bool {
        !self.nodes[at].closed && !self.is_late(at, now)
    }

    #[inline]
    pub(super) fn is_late(&self, at: NodeId, now: Option<Instant>) -> bool {
        self.nodes[at].late(now).is_some()
    }

    /// Refuses, and counts that. The refusal is made in the place of the result: to move it there
    /// would take longer than all the rest.
    #[inline(never)]
    pub(crate) fn refuse<R>(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<R, BudgetError> {
        self.count_refused(at);
        Err(self.why(at, asked, now))
    }

    pub(super) fn count_refused(&mut self, at: NodeId) {
        self.nodes.change_way(at, |node| node.counts.refused += 1);
    }

    /// Why a call is refused, or a waiter is turned away.
    #[cold]
    #[inline(never)]
    pub(super) fn explain(&self, at: NodeId, asked: &Units, now: Option<Instant>) -> BudgetError {
        self.why(at, asked, now)
    }

    /// The reason: closed, deadline, capacity, in this order.
    #[inline(always)]
    fn why(&self, at: NodeId, asked: &Units, now: Option<Instant>) -> BudgetError {
        if !self.is_open(at, now) {
            return self.explain_end(at, now);
        }
        self.nodes
            .lack(at, asked)
            .expect("what is refused is closed, late or does not fit")
            .refusal(self.reading)
    }

    #[cold]
    fn explain_end(&self, at: NodeId, now: Option<Instant>) -> BudgetError {
        if let Some(pool) = self.closed_by(at) {
            return BudgetError::Closed { pool };
        }
        let (deadline, now) = self.nodes[at].late(now).expect("what is not open is closed or late");
        self.deadline_exceeded(at, deadline, now).into()
    }

    /// The outermost closed pool of a way.
    pub(super) fn closed_by(&self, at: NodeId) -> Option<Name> {
        let closed = self.nodes.way(at).take_while(|(_, node)| node.closed);
        closed.last().map(|(_, node)| node.name.clone())
    }

    fn deadline_exceeded(&self, at: NodeId, deadline: Deadline, now: Instant) -> DeadlineExceeded {
        // Each pool has the earliest on its way up, so that the one that set it is the last with
        // the same.
        let same = self.nodes.way(at).take_while(|(_, node)| node.deadline == Some(deadline));
        DeadlineExceeded {
            pool: same.last().map(|(_, node)| node.name.clone()),
            budget: deadline.total,
            elapsed: deadline.total.saturating_add(now.saturating_duration_since(deadline.at)),
            needed: Duration::ZERO,
        }
    }

    /// Whether neither time nor a release can ever make room.
    pub(super) fn is_unsatisfiable(&self, at: NodeId, asked: &Units) -> bool {
        let deadline = &self.nodes[at].deadline;
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes) {
            let node = &self.nodes[id];
            let mut lacking = node.ledger.lacking(asked).intersection(way.open());
            if lacking.any(|axis| node.outlook(axis, asked[axis], deadline) == Outlook::Never) {
                return true;
            }
        }
        false
    }

    /// Settles on the whole way up, and serves the waiters for what came free.
    pub(super) fn settle(
        &mut self,
        at: NodeId,
        held: &Units,
        actual: &Units,
        tally: Tally,
    ) -> Units {
        let mut overage = NOTHING;
        self.nodes.settle(at, held, actual, &mut overage, tally);
        self.balances_changed(at);
        overage
    }
}

/// One way up: asked as a whole, then charged as a whole.
impl Nodes {
    /// Takes units on the whole way, or on none of it. Returns whether it did. It goes up once, and
    /// puts back where a pool refuses: most calls are admitted.
    #[inline(always)]
    pub(super) fn try_take(&mut self, at: NodeId, units: &Units, take: Take, tally: Tally) -> bool {
        let mut way = Way::from(at);
        while let Some((id, node)) = way.up_mut(self) {
            if node.is_carved() {
                return self.try_take_share(id, at, *units, take, tally);
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

    /// The rest of the way, from a carved pool upward.
    #[cold]
    #[inline(never)]
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
            Take::Hold => self.hold(carved, &units, tally),
            Take::Spend => self.settle(carved, &NOTHING, &units, &mut { NOTHING }, tally),
        }
        fits
    }

    /// Puts back what was taken below the pool that refused.
    #[cold]
    #[inline(never)]
    fn put_back(&mut self, at: NodeId, refused: NodeId, units: Units, take: Take, tally: Tally) {
        let mut way = Way::from(at);
        while let Some((_, node)) = way.up_mut(self).filter(|(id, _)| *id != refused) {
            node.ledger.put_back(&units, take);
            node.uncount(tally);
        }
    }

    /// Whether every pool on the way has room for what is asked of it.
    #[inline]
    pub(super) fn fits(&self, at: NodeId, asked: &Units) -> bool {
        let mut way = Way::from(at);
        while let Some(id) = way.up(self) {
            if !self[id].fits(asked, way.open()) {
                return false;
            }
        }
        true
    }

    /// Reserves what [`fits`](Nodes::fits).
    pub(super) fn hold(&mut self, at: NodeId, held: &Units, tally: Tally) {
        let mut asking = Asking::from(at, held);
        while let Some((_, node)) = asking.up_mut(self) {
            node.count(tally);
            node.ledger.hold(asking.units());
        }
    }

    /// Replaces what is held by what was really spent, all the way up. Raises `overage` to the
    /// greatest on the way, axis by axis.
    #[inline]
    pub(super) fn settle(
        &mut self,
        at: NodeId,
        held: &Units,
        actual: &Units,
        overage: &mut Units,
        tally: Tally,
    ) {
        let mut way = Way::from(at);
        while let Some((id, node)) = way.up_mut(self) {
            if node.is_carved() {
                return self.settle_shares(id, *held, actual, tally, overage);
            }
            node.count(tally);
            node.ledger.settle(held, actual, overage);
        }
    }

    /// [`settle`](Nodes::settle) from a carved pool upward: what the pools above can let go follows
    /// from what the share lost.
    #[inline(never)]
    fn settle_shares(
        &mut self,
        carved: NodeId,
        mut held: Units,
        actual: &Units,
        tally: Tally,
        overage: &mut Units,
    ) {
        self.change_way(carved, |node| {
            node.count(tally);
            node.settle_share(&mut held, actual, overage);
        });
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

    /// Returns an unused share to the nearest carved ancestor. Stopping there keeps the closing of
    /// a deep tree O(n).
    fn give_back(&mut self, at: NodeId, mut share: Units) {
        let (mut way, mut overage) = (Way::from(at), NOTHING);
        while let Some((_, node)) = way.up_mut(self).filter(|_| share != NOTHING) {
            node.settle_share(&mut share, &NOTHING, &mut overage);
        }
    }

    /// The least that is free on the way up to the nearest carve, with a cap or without.
    pub(super) fn free(&self, at: NodeId) -> Units {
        let mut free = [u64::MAX; Axis::COUNTED];
        self.visit_up_to_carves(at, |node, axis| {
            free[axis] = free[axis].min(node.ledger.free(axis))
        });
        free
    }

    /// Visits the pools on the way up, each with the axes that no pool below carves.
    pub(super) fn visit_up_to_carves(&self, at: NodeId, mut visit: impl FnMut(&Node, usize)) {
        let mut way = Way::from(at);
        while let Some(id) = way.up(self) {
            let node = &self[id];
            (0..Axis::COUNTED)
                .filter(|&axis| way.open().contains(axis))
                .for_each(|axis| visit(node, axis));
        }
    }

    /// The first lack of capacity on the way, with the worst outlook of all.
    #[inline]
    pub(super) fn lack(&self, at: NodeId, asked: &Units) -> Option<Lack<'_>> {
        let (mut way, mut first) = (Way::from(at), None);
        while let Some(id) = way.up(self) {
            let node = &self[id];
            let lacking = node.ledger.lacking(asked).intersection(way.open());
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

    /// The refusal, told at an instant of the clock. It is made in place: to move it would cost
    /// more than to make it.
    #[inline(always)]
    pub(super) fn refusal(&self, reading: Option<Instant>) -> BudgetError {
        let free = self.node.ledger.free(self.axis);
        let exceeded = self.node.exceeded(self.axis, self.asked, free, self.outlook, reading);
        BudgetError::Exceeded(exceeded)
    }
}

impl Node {
    #[inline(always)]
    pub(super) fn count(&mut self, tally: Tally) {
        self.counts.admitted += tally.admitted;
        self.counts.reservations = self.counts.reservations + tally.begun - tally.ended;
    }

    fn uncount(&mut self, tally: Tally) {
        self.counts.admitted -= tally.admitted;
        self.counts.reservations -= tally.begun;
    }

    /// Settles, and turns `held` into what the pools above can let go. Of a carved pool that is
    /// what was used of its share, and what a closed one has no use for.
    fn settle_share(&mut self, held: &mut Units, actual: &Units, overage: &mut Units) {
        let carved = self.carved();
        let used: Units = std::array::from_fn(|axis| self.ledger.used(axis));
        self.ledger.settle(held, actual, overage);
        for axis in carved {
            let unused = if self.closed { self.ledger.surrender(axis) } else { 0 };
            held[axis] = self.ledger.used(axis) - used[axis] + unused;
        }
    }

    /// The lack of this pool alone.
    pub(super) fn lack(&self, asked: &Units) -> Option<Lack<'_>> {
        let lacking = self.ledger.lacking(asked);
        (!lacking.is_empty()).then(|| self.lack_on(lacking, asked, &self.deadline))
    }

    /// The first of the axes on which something lacks, with the worst outlook of all.
    #[inline]
    fn lack_on(
        &self,
        mut lacking: AxisSet,
        asked: &Units,
        deadline: &Option<Deadline>,
    ) -> Lack<'_> {
        let axis = lacking.next().expect("something lacks");
        let outlook = self.outlook(axis, asked[axis], deadline);
        let others = lacking.map(|axis| self.outlook(axis, asked[axis], deadline));
        Lack { node: self, axis, asked: asked[axis], outlook: others.fold(outlook, Outlook::max) }
    }

    /// Whether a release, or time before the deadline, may make room on every axis.
    pub(super) fn can_ever_fit(&self, asked: &Units) -> bool {
        match self.window {
            None => (0..Axis::COUNTED).all(|axis| self.ledger.fits_at_best(axis, asked[axis])),
            Some(_) => (0..Axis::COUNTED).all(|axis| self.has_hope(axis, asked[axis])),
        }
    }

    /// The same on one axis. Where there is no hope, a call that asks for more has none either.
    pub(super) fn has_hope(&self, axis: usize, asked: u64) -> bool {
        self.outlook(axis, asked, &self.deadline) != Outlook::Never
    }

    /// What a call can expect that asks for more than is free.
    #[inline]
    fn outlook(&self, axis: usize, asked: u64, deadline: &Option<Deadline>) -> Outlook {
        if self.window.is_some() {
            return self.outlook_in_time(axis, asked, deadline);
        }
        let fits_at_best = self.ledger.fits_at_best(axis, asked);
        if fits_at_best { Outlook::AfterRelease } else { Outlook::Never }
    }

    #[cold]
    fn outlook_in_time(&self, axis: usize, asked: u64, deadline: &Option<Deadline>) -> Outlook {
        let window = self.window.as_ref().expect("time plays a part");
        let in_time = |at: &Instant| deadline.is_none_or(|deadline| *at < deadline.at);
        let when = |missing| window.when(&self.ledger, axis, missing).filter(in_time);
        let at_best = self.ledger.missing_at_best(axis, asked);
        match when(self.ledger.missing(axis, asked)) {
            Some(at) => Outlook::At(at),
            None if at_best == 0 || when(at_best).is_some() => Outlook::AfterRelease,
            None => Outlook::Never,
        }
    }

    #[inline(always)]
    pub(super) fn exceeded(
        &self,
        axis: usize,
        requested: u64,
        available: u64,
        outlook: Outlook,
        reading: Option<Instant>,
    ) -> BudgetExceeded {
        BudgetExceeded {
            axis: Axis::at(axis),
            requested,
            available,
            cap: self.ledger.cap(axis),
            pool: self.name.clone(),
            outlook,
            retry_after: outlook.after(reading),
        }
    }
}
