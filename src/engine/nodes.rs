//! Pools under pools: a call is charged to a whole path, or to none of it. Pure.
//!
//! A pool's every spend is also its parent's, and so on up. Only what is asked differs at a
//! *carve*: a carved child's caps are reserved above, so that on those axes the pools above it are
//! not asked again. They follow the child:
//!
//! > what is reserved above for a carve = the child's `cap - used`
//!
//! and so whatever the child books as used leaves the parent's `reserved`, and what was really
//! spent enters its `used`.
//!
//! Nothing here recurses: a tree may be as deep as memory allows.

use std::time::{Duration, Instant};

use slab::Slab;

use crate::engine::expiry::Schedule;
use crate::engine::hold::{Hold, Serial};
use crate::engine::idempotency::{Keys, Memory};
use crate::engine::ledger::Ledger;
use crate::engine::queue::{Queue, Waits};
use crate::time::window::Turning;
use crate::types::amount::{Amount, Caps};
use crate::types::axis::{Axis, AxisSet, Quantities, Units};
use crate::types::error::{BudgetError, BudgetExceeded, DeadlineExceeded, Outlook};
use crate::types::name::Name;
use crate::types::snapshot::{AxisSnapshot, Holder, Snapshot};

pub(crate) type NodeId = usize;

#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) nodes: Slab<Node>,
    pub(crate) holds: Slab<Hold>,
    pub(crate) waits: Waits,
    pub(crate) schedule: Schedule,
    /// Of the last hold that was made.
    pub(crate) serial: Option<Serial>,
    /// The latest instant seen: time never runs back (P8).
    pub(crate) latest: Option<Instant>,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) parent: Option<NodeId>,
    children: Option<NodeId>,
    next: Option<NodeId>,
    previous: Option<NodeId>,
    /// Whether anything outside can still reach this pool.
    handle: bool,
    /// Closed, or below a closed pool.
    pub(crate) closed: bool,
    /// The axes on which this pool's caps are reserved in its parent.
    carved: AxisSet,
    admitted: u64,
    refused: u64,
    reservations: u64,
    /// The earliest on the way up.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) window: Option<Box<Turning>>,
    keys: Option<Box<Keys>>,
    pub(crate) name: Name,
    pub(crate) ledger: Ledger,
    pub(crate) queue: Queue,
}

/// What a new pool is.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: Name,
    pub(crate) caps: Caps,
    pub(crate) deadline: Option<Deadline>,
    pub(crate) window: Option<Turning>,
    pub(crate) memory: Option<Memory>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// How long it was from the start.
    pub(crate) total: Duration,
}

/// A fact that was booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Booked {
    pub(crate) settled: Quantities,
    /// The greatest on the path; none where nothing was settled.
    pub(crate) overage: Units,
    /// The hold had expired.
    pub(crate) late: bool,
}

impl Booked {
    pub(crate) fn new(settled: &Quantities, overage: Units, late: bool) -> Booked {
        Booked { settled: *settled, overage, late }
    }
}

/// How a step counts on every pool of its path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tally {
    admitted: u64,
    begun: u64,
    ended: u64,
}

impl Tally {
    pub(crate) const FACT: Tally = Tally { admitted: 0, begun: 0, ended: 0 };
    pub(crate) const ADMITTED: Tally = Tally { admitted: 1, ..Tally::FACT };
    pub(crate) const BEGUN: Tally = Tally { begun: 1, ..Tally::ADMITTED };
    pub(crate) const ENDED: Tally = Tally { ended: 1, ..Tally::FACT };
}

pub(crate) const NOTHING: Units = [0; Axis::COUNTED];

/// Pools: they come, are asked, and go.
impl Tree {
    pub(crate) fn add_root(&mut self, spec: Spec) -> NodeId {
        self.insert(None, spec, AxisSet::EMPTY)
    }

    pub(crate) fn add_child(&mut self, parent: NodeId, spec: Spec) -> NodeId {
        self.insert(Some(parent), spec, AxisSet::EMPTY)
    }

    /// A child whose caps are reserved above.
    pub(crate) fn add_carved(
        &mut self,
        parent: NodeId,
        spec: Spec,
        now: Option<Instant>,
    ) -> Result<NodeId, BudgetError> {
        let share = *spec.caps.quantities();
        self.ask_in_turn(parent, share.units(), now)?;
        self.hold_path(parent, share.units(), Tally::ADMITTED);
        Ok(self.insert(Some(parent), spec, share.axes()))
    }

    fn insert(&mut self, parent: Option<NodeId>, spec: Spec, carved: AxisSet) -> NodeId {
        let above = parent.map(|parent| &self.nodes[parent]);
        let node = Node {
            parent,
            children: None,
            next: above.and_then(|above| above.children),
            previous: None,
            handle: true,
            closed: above.is_some_and(|above| above.closed),
            carved,
            admitted: 0,
            refused: 0,
            reservations: 0,
            deadline: above
                .and_then(|above| above.deadline)
                .into_iter()
                .chain(spec.deadline)
                .min_by_key(|deadline| deadline.at),
            window: spec.window.map(Box::new),
            keys: spec.memory.map(|memory| Box::new(Keys::new(memory))),
            name: spec.name,
            ledger: Ledger::new(spec.caps.quantities()),
            queue: Queue::default(),
        };
        self.schedule.windows += usize::from(node.window.is_some());
        let next = node.next;
        let id = self.nodes.insert(node);
        if let Some(next) = next {
            self.nodes[next].previous = Some(id);
        }
        if let Some(parent) = parent {
            self.nodes[parent].children = Some(id);
        }
        id
    }

    /// The last handle of a pool has gone, and with it the last hold: a hold keeps a handle. Frees
    /// the pool and those above that nothing reaches any more. Returns the keys they knew,
    /// which may be many: to be dropped outside the lock.
    pub(crate) fn drop_handle(&mut self, at: NodeId) -> Vec<Keys> {
        self.turn_to_latest(at);
        self.nodes[at].handle = false;
        let mut forgotten = Vec::new();
        let mut candidate = Some(at);
        while let Some(id) = candidate {
            let node = &mut self.nodes[id];
            if node.handle || node.children.is_some() {
                self.stir(id);
                break;
            }
            candidate = node.parent;
            forgotten.extend(node.keys.take().map(|keys| *keys));
            self.return_share(id);
            self.remove(id);
        }
        forgotten
    }

    fn remove(&mut self, id: NodeId) {
        let node = self.nodes.remove(id);
        self.schedule.windows -= usize::from(node.window.is_some());
        if let Some(next) = node.next {
            self.nodes[next].previous = node.previous;
        }
        match (node.previous, node.parent) {
            (Some(previous), _) => self.nodes[previous].next = node.next,
            (None, Some(parent)) => self.nodes[parent].children = node.next,
            (None, None) => {}
        }
    }

    /// Gives back to the parent what a carved pool neither used nor holds.
    fn return_share(&mut self, id: NodeId) {
        let node = &mut self.nodes[id];
        let Some(parent) = node.share_of() else { return };
        let mut share = NOTHING;
        for axis in node.carved {
            share[axis] = node.ledger.surrender(axis);
        }
        self.give_back(parent, &share);
    }

    /// What was not spent goes back up to where the nearest carve keeps it: to the root, for each
    /// pool of a deep tree, would be too far.
    fn give_back(&mut self, at: NodeId, share: &Units) {
        let (mut share, mut overage) = (*share, NOTHING);
        let mut above = Some(at);
        while let Some(id) = above.filter(|_| share != NOTHING) {
            let node = &mut self.nodes[id];
            node.settle_share(&mut share, &NOTHING, &mut overage);
            above = node.parent;
        }
    }

    pub(crate) fn close(&mut self, at: NodeId) {
        self.turn_to_latest(at);
        self.turn_below(at);
        let mut closing = Vec::new();
        let mut below = Some((at, 0));
        while let Some((id, depth)) = below {
            closing.push(id);
            below = self.next_below(id, depth);
        }
        // Children first: what they return is then returned with their parent's own.
        for &id in closing.iter().rev() {
            self.nodes[id].closed = true;
            self.return_share(id);
        }
        self.tell_closed(closing);
        self.serve_path(at);
    }

    pub(crate) fn is_closed(&self, at: NodeId) -> bool {
        self.nodes[at].closed
    }

    pub(crate) fn reset(&mut self, at: NodeId, now: Option<Instant>) -> Snapshot {
        let snapshot = self.snapshot(at, now);
        let node = &mut self.nodes[at];
        node.ledger.reset(node.carved);
        if let Some(window) = &mut node.window {
            window.restart();
        }
        self.stir(at);
        snapshot
    }

    pub(crate) fn add(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        // All that is due: what is asked above follows from balances that must not change before it
        // is granted.
        self.touch_all(at, now);
        if let Some(scope) = self.closed_by(at) {
            return Err(BudgetError::Closed { scope });
        }
        let node = &self.nodes[at];
        let more = caps.quantities().only(node.ledger.capped());
        if let Some(axis) =
            more.axes().find(|&axis| more.units()[axis] > node.ledger.headroom(axis))
        {
            let headroom = node.ledger.headroom(axis);
            return Err(node
                .exceeded(axis, more.units()[axis], headroom, Outlook::Never, None)
                .into());
        }
        if let Some(parent) = node.share_of() {
            // What will pay overage here is spent already, and was booked above when it was.
            let overage = |axis| node.ledger.overage(axis);
            let share = Quantities::each(more.axes(), |axis| {
                more.units()[axis].saturating_sub(overage(axis))
            });
            self.ask(parent, share.units(), now)?;
            self.hold_path(parent, share.units(), Tally::ADMITTED);
        }
        let ledger = &mut self.nodes[at].ledger;
        for axis in more.axes() {
            ledger.raise(axis, more.units()[axis]);
        }
        self.stir(at);
        Ok(())
    }

    pub(crate) fn remove_caps(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let less = caps.quantities().only(self.nodes[at].ledger.capped());
        let now = self.touch(at, less.units(), now);
        let node = &mut self.nodes[at];
        if let Some(refusal) = first_refusal(std::iter::once(&*node), less.units(), now) {
            return Err(refusal.into());
        }
        for axis in less.axes() {
            node.ledger.lower(axis, less.units()[axis]);
        }
        if let Some(parent) = node.share_of() {
            self.settle_path(parent, less.units(), &NOTHING, Tally::FACT);
        }
        self.stir(at);
        Ok(())
    }
}

/// Spending without a hold.
impl Tree {
    pub(crate) fn record(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.touch(at, amount.units(), now);
        if !self.is_open(at, now) || !self.spend_path(at, amount.units()) {
            return Err(self.refuse(at, amount.units(), now));
        }
        self.stir(at);
        Ok(())
    }

    /// Spends once for a key; a call that comes again is told what the first was told: that it was
    /// admitted.
    pub(crate) fn record_once(
        &mut self,
        at: NodeId,
        key: Name,
        amount: &Amount,
        now: Instant,
    ) -> Result<(), BudgetError> {
        let now =
            self.touch(at, amount.quantities().units(), Some(now)).expect("it is told the time");
        let scope = |tree: &Tree| tree.nodes[at].name.clone();
        if let Some(spent) = self.keys(at).get(&key, now) {
            return if spent == *amount {
                Ok(())
            } else {
                Err(BudgetError::KeyConflict { scope: scope(self), key })
            };
        }
        if self.is_open(at, Some(now)) {
            let most = self.keys(at).most();
            if let Err(free) = self.keys(at).make_room(now) {
                self.count_refused(at);
                let in_time = |free: &Instant| {
                    self.nodes[at].deadline.is_none_or(|deadline| *free < deadline.at)
                };
                let outlook = free.filter(in_time).map_or(Outlook::Never, Outlook::At);
                return Err(BudgetError::KeysFull {
                    scope: scope(self),
                    most,
                    outlook,
                    retry_after: outlook.after(Some(now)),
                });
            }
        }
        self.record(at, amount.quantities(), Some(now))?;
        self.keys(at).remember(key, *amount, now);
        Ok(())
    }

    fn keys(&mut self, at: NodeId) -> &mut Keys {
        self.nodes[at].keys.get_or_insert_default()
    }

    pub(crate) fn check(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.touch(at, amount.units(), now);
        if self.admits(at, amount.units(), now) {
            Ok(())
        } else {
            Err(self.explain(at, amount.units(), now))
        }
    }

    pub(crate) fn debit(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Booked {
        self.touch(at, amount.units(), now);
        Booked::new(amount, self.settle(at, &NOTHING, amount.units(), Tally::FACT), false)
    }
}

/// One path, from a pool to the root: asked as a whole, then charged as a whole.
impl Tree {
    fn path(&self, at: NodeId) -> impl Iterator<Item = &Node> {
        let above = |node: &&Node| node.parent.map(|parent| &self.nodes[parent]);
        std::iter::successors(Some(&self.nodes[at]), above)
    }

    /// Visits the pools on the way up, to change them.
    #[inline]
    pub(crate) fn visit_path(&mut self, at: NodeId, mut visit: impl FnMut(&mut Node)) {
        let mut above = Some(at);
        while let Some(id) = above {
            let node = &mut self.nodes[id];
            visit(node);
            above = node.parent;
        }
    }

    /// Refuses, and counts that, or lets pass. Whoever is let pass counts it while charging.
    #[inline]
    pub(crate) fn ask(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.touch(at, asked, now);
        self.admit(at, asked, now)
    }

    /// The same, for what must not jump the queue (P6).
    #[inline]
    pub(crate) fn ask_in_turn(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let now = self.touch(at, asked, now);
        if let Some(pool) = self.queued_at(at, asked).filter(|_| self.is_open(at, now)) {
            self.count_refused(at);
            return Err(BudgetError::Queued { scope: self.nodes[pool].name.clone() });
        }
        self.admit(at, asked, now)
    }

    #[inline]
    fn admit(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        if self.admits(at, asked, now) { Ok(()) } else { Err(self.refuse(at, asked, now)) }
    }

    #[inline]
    pub(crate) fn is_open(&self, at: NodeId, now: Option<Instant>) -> bool {
        let node = &self.nodes[at];
        !node.closed && node.late(now).is_none()
    }

    #[inline]
    fn admits(&self, at: NodeId, asked: &Units, now: Option<Instant>) -> bool {
        self.is_open(at, now) && self.fits(at, asked)
    }

    /// The pools on the way up, each with what is asked of it: above a carve nothing on its axes.
    pub(crate) fn asked_on_path(
        &self,
        at: NodeId,
        asked: &Units,
    ) -> impl Iterator<Item = (NodeId, Units)> {
        std::iter::successors(Some((at, *asked)), |&(id, mut asked)| {
            let node = &self.nodes[id];
            node.carve(&mut asked);
            node.parent.map(|parent| (parent, asked))
        })
    }

    /// Up to the nearest carve, axis by axis.
    #[inline]
    pub(crate) fn fits(&self, at: NodeId, asked: &Units) -> bool {
        let mut asked = *asked;
        for node in self.path(at) {
            if !node.ledger.fits(&asked) {
                return false;
            }
            node.carve(&mut asked);
        }
        true
    }

    #[cold]
    pub(crate) fn refuse(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> BudgetError {
        self.count_refused(at);
        self.explain(at, asked, now)
    }

    pub(crate) fn count_refused(&mut self, at: NodeId) {
        self.visit_path(at, |node| node.refused += 1);
    }

    /// Why it is refused: closed, deadline, capacity, in this order.
    #[cold]
    pub(crate) fn explain(&self, at: NodeId, asked: &Units, now: Option<Instant>) -> BudgetError {
        if let Some(scope) = self.closed_by(at) {
            return BudgetError::Closed { scope };
        }
        if let Some((deadline, now)) = self.nodes[at].late(now) {
            return self.deadline_exceeded(at, deadline, now).into();
        }
        self.exceeded(at, asked).expect("what is refused is closed, late or does not fit").into()
    }

    /// The outermost closed pool of a path.
    fn closed_by(&self, at: NodeId) -> Option<Name> {
        self.path(at).take_while(|node| node.closed).last().map(|node| node.name.clone())
    }

    fn deadline_exceeded(&self, at: NodeId, deadline: Deadline, now: Instant) -> DeadlineExceeded {
        // Each pool has the earliest on its way up, so that the one that set it is the last with
        // the same.
        let scope = self.path(at).take_while(|node| node.deadline == Some(deadline)).last();
        DeadlineExceeded {
            scope: scope.map(|node| node.name.clone()),
            budget: deadline.total,
            elapsed: deadline.total.saturating_add(now.saturating_duration_since(deadline.at)),
            needed: Duration::ZERO,
        }
    }

    /// The first refusal for lack of capacity, with the worst outlook of all.
    pub(crate) fn exceeded(&self, at: NodeId, asked: &Units) -> Option<BudgetExceeded> {
        first_refusal(self.path(at), asked, self.latest)
    }

    /// Spends on the whole path, or on none of it; whether it did. It goes up once, and takes back
    /// where it is refused: most are not.
    #[inline]
    fn spend_path(&mut self, at: NodeId, spent: &Units) -> bool {
        let mut above = Some(at);
        while let Some(id) = above {
            let node = &mut self.nodes[id];
            if !node.carved.is_empty() {
                return self.spend_share(at, id, spent);
            }
            if !node.ledger.try_spend(spent) {
                self.unspend_path(at, id, spent);
                return false;
            }
            node.count(Tally::ADMITTED);
            above = node.parent;
        }
        true
    }

    /// From a carved pool upward, shares move from reserved to used.
    fn spend_share(&mut self, at: NodeId, carved: NodeId, spent: &Units) -> bool {
        let fits = self.fits(carved, spent);
        if fits {
            self.settle_path(carved, &NOTHING, spent, Tally::ADMITTED);
        } else {
            self.unspend_path(at, carved, spent);
        }
        fits
    }

    /// Takes back what was spent below the pool that refused.
    #[cold]
    fn unspend_path(&mut self, at: NodeId, refused: NodeId, spent: &Units) {
        let mut below = Some(at).filter(|&at| at != refused);
        while let Some(id) = below {
            let node = &mut self.nodes[id];
            node.admitted -= 1;
            node.ledger.unspend(spent);
            below = node.parent.filter(|&parent| parent != refused);
        }
    }

    /// Reserves what [`fits`](Tree::fits), up to the nearest carve, axis by axis.
    #[inline]
    pub(crate) fn hold_path(&mut self, at: NodeId, held: &Units, tally: Tally) {
        let mut held = *held;
        self.visit_path(at, |node| {
            node.count(tally);
            node.ledger.hold(&held);
            node.carve(&mut held);
        });
    }

    /// Replaces what is held by what was really spent, all the way up. Returns the greatest
    /// overage, axis by axis.
    #[inline]
    fn settle_path(&mut self, at: NodeId, held: &Units, actual: &Units, tally: Tally) -> Units {
        let mut held = *held;
        let mut overage = NOTHING;
        self.visit_path(at, |node| {
            node.count(tally);
            if node.carved.is_empty() {
                node.ledger.settle(&held, actual, &mut overage);
            } else {
                node.settle_share(&mut held, actual, &mut overage);
            }
        });
        overage
    }

    /// The same, and serves those who wait for what came free.
    #[inline]
    pub(crate) fn settle(
        &mut self,
        at: NodeId,
        held: &Units,
        actual: &Units,
        tally: Tally,
    ) -> Units {
        let overage = self.settle_path(at, held, actual, tally);
        self.stir(at);
        overage
    }
}

/// The first refusal for lack of capacity, with the worst outlook of all.
pub(crate) fn first_refusal<'a>(
    path: impl Iterator<Item = &'a Node>,
    asked: &Units,
    now: Option<Instant>,
) -> Option<BudgetExceeded> {
    let (mut asked, mut deadline) = (*asked, None);
    let mut first: Option<BudgetExceeded> = None;
    for node in path {
        // Each pool has the earliest on its way up.
        let deadline = *deadline.get_or_insert(node.deadline);
        for (axis, &units) in asked.iter().enumerate() {
            if units > node.ledger.free(axis) {
                let outlook = node.outlook(axis, units, deadline);
                match &mut first {
                    None => {
                        first =
                            Some(node.exceeded(axis, units, node.ledger.free(axis), outlook, now))
                    }
                    Some(first) => first.worsen(outlook, now),
                }
            }
        }
        node.carve(&mut asked);
    }
    first
}

impl Node {
    #[inline]
    fn late(&self, now: Option<Instant>) -> Option<(Deadline, Instant)> {
        let deadline = self.deadline?;
        let now = now.expect("a path with a deadline reads the clock");
        (now >= deadline.at).then_some((deadline, now))
    }

    /// Brings the balances up to an instant. Returns whether anything came free.
    pub(crate) fn turn(&mut self, now: Instant) -> bool {
        self.window.as_mut().is_some_and(|window| window.turn(&mut self.ledger, now))
    }

    /// Whether a release, or time before the deadline, may make room for what is asked, on every
    /// axis.
    pub(crate) fn can_ever_fit(&self, asked: &Units) -> bool {
        (0..Axis::COUNTED).all(|axis| self.has_hope(axis, asked[axis]))
    }

    /// The same on one axis. What has none leaves none to what asks for more.
    pub(crate) fn has_hope(&self, axis: usize, asked: u64) -> bool {
        self.outlook(axis, asked, self.deadline) != Outlook::Never
    }

    /// What to expect of asking for more than is free.
    pub(crate) fn outlook(&self, axis: usize, asked: u64, deadline: Option<Deadline>) -> Outlook {
        let at_best = self.ledger.missing_at_best(axis, asked);
        let Some(window) = &self.window else {
            return if at_best == 0 { Outlook::AfterRelease } else { Outlook::Never };
        };
        let in_time = |at: &Instant| deadline.is_none_or(|deadline| *at < deadline.at);
        let when = |missing| window.when(&self.ledger, axis, missing).filter(in_time);
        match when(self.ledger.missing(axis, asked)) {
            Some(at) => Outlook::At(at),
            None if at_best == 0 || when(at_best).is_some() => Outlook::AfterRelease,
            None => Outlook::Never,
        }
    }

    #[inline]
    fn count(&mut self, tally: Tally) {
        self.admitted += tally.admitted;
        self.reservations = self.reservations + tally.begun - tally.ended;
    }

    /// Whether any of what is asked is capped here.
    pub(crate) fn caps_any(&self, asked: &Units) -> bool {
        self.ledger.capped().into_iter().any(|axis| asked[axis] > 0)
    }

    /// The parent, if it keeps a share for this pool.
    fn share_of(&self) -> Option<NodeId> {
        self.parent.filter(|_| !self.carved.is_empty())
    }

    /// What is reserved above for this pool is not asked there again.
    #[inline]
    pub(crate) fn carve(&self, asked: &mut Units) {
        for axis in self.carved {
            asked[axis] = 0;
        }
    }

    /// Settles in a carved pool, and turns `held` into what the pools above can let go: the share
    /// shrinks by what was used of it, and by what a closed pool has no use for.
    fn settle_share(&mut self, held: &mut Units, actual: &Units, overage: &mut Units) {
        let used: Units = std::array::from_fn(|axis| self.ledger.used(axis));
        self.ledger.settle(held, actual, overage);
        for axis in self.carved {
            let unused = if self.closed { self.ledger.surrender(axis) } else { 0 };
            held[axis] = self.ledger.used(axis) - used[axis] + unused;
        }
    }

    pub(crate) fn exceeded(
        &self,
        axis: usize,
        requested: u64,
        available: u64,
        outlook: Outlook,
        now: Option<Instant>,
    ) -> BudgetExceeded {
        BudgetExceeded {
            axis: Axis::at(axis),
            requested,
            available,
            cap: self.ledger.cap(axis),
            scope: self.name.clone(),
            outlook,
            retry_after: outlook.after(now),
        }
    }
}

/// What is seen from outside, of one instant (P5).
impl Tree {
    pub(crate) fn snapshot(&mut self, at: NodeId, now: Option<Instant>) -> Snapshot {
        self.touch_all(at, now);
        let available = std::array::from_fn(|axis| self.available(at, axis));
        self.nodes[at].snapshot(0, &available)
    }

    /// The pools on the way up, as far as the nearest carve of an axis.
    fn up_to_carve(&self, at: NodeId, axis: usize) -> impl Iterator<Item = &Node> {
        let mut is_above = false;
        self.path(at)
            .take_while(move |node| !std::mem::replace(&mut is_above, node.carved.contains(axis)))
    }

    /// The least that is free on the way up to the nearest carve; `None` if nothing there has a
    /// cap.
    fn available(&self, at: NodeId, axis: usize) -> Option<u64> {
        self.up_to_carve(at, axis).fold(None, |least, node| node.available_below(axis, least))
    }

    /// The least that is free on the way up to the nearest carve, with a cap or without.
    pub(crate) fn free(&self, at: NodeId, axis: usize) -> u64 {
        self.up_to_carve(at, axis)
            .map(|node| node.ledger.free(axis))
            .min()
            .expect("a path has a pool")
    }

    /// This pool and all below it, parents before their children.
    pub(crate) fn snapshot_tree(&mut self, at: NodeId, now: Option<Instant>) -> Vec<Snapshot> {
        self.touch_all(at, now);
        self.turn_below(at);
        // What is available in each pool on the way down to the present one.
        let mut way = vec![std::array::from_fn(|axis| self.available(at, axis))];
        let mut snapshots = vec![self.nodes[at].snapshot(0, &way[0])];
        let mut below = self.next_below(at, 0);
        while let Some((id, depth)) = below {
            let node = &self.nodes[id];
            way.truncate(depth);
            let above: [Option<u64>; Axis::COUNTED] = way[depth - 1];
            way.push(std::array::from_fn(|axis| {
                node.available_below(
                    axis,
                    if node.carved.contains(axis) { None } else { above[axis] },
                )
            }));
            snapshots.push(node.snapshot(depth, &way[depth]));
            below = self.next_below(id, depth);
        }
        snapshots
    }

    /// The pool after this one in a walk from parents to children, with its depth below where the
    /// walk began at 0.
    pub(crate) fn next_below(&self, at: NodeId, depth: usize) -> Option<(NodeId, usize)> {
        if let Some(child) = self.nodes[at].children {
            return Some((child, depth + 1));
        }
        let (mut at, mut depth) = (at, depth);
        while depth > 0 {
            let node = &self.nodes[at];
            if let Some(next) = node.next {
                return Some((next, depth));
            }
            at = node.parent.expect("a pool at a depth has a parent");
            depth -= 1;
        }
        None
    }

    /// The holds on this pool and on those below it.
    pub(crate) fn holders(&mut self, at: NodeId, now: Option<Instant>) -> Vec<Holder> {
        self.touch_all(at, now);
        let is_below = |hold: &&Hold| {
            std::iter::successors(Some(hold.node), |&node| self.nodes[node].parent)
                .any(|node| node == at)
        };
        let holds = self.holds.iter().map(|(_, hold)| hold);
        holds
            .filter(|hold| hold.is_live())
            .filter(is_below)
            .map(|hold| Holder {
                pool: self.nodes[hold.node].name.clone(),
                label: hold.label,
                amount: Amount::from(hold.held),
            })
            .collect()
    }
}

impl Node {
    fn available_below(&self, axis: usize, above: Option<u64>) -> Option<u64> {
        let own = self.ledger.cap(axis).map(|_| self.ledger.free(axis));
        own.into_iter().chain(above).min()
    }

    fn snapshot(&self, depth: usize, available: &[Option<u64>; Axis::COUNTED]) -> Snapshot {
        let counts = [self.admitted, self.refused, self.reservations, self.queue.waiting];
        Snapshot::new(self.name.clone(), depth, self.closed, counts, |axis| {
            let axis = axis as usize;
            AxisSnapshot {
                cap: self.ledger.cap(axis),
                used: self.ledger.used(axis),
                reserved: self.ledger.reserved(axis),
                overage: self.ledger.overage(axis),
                available: available[axis],
                spent: self.ledger.spent(axis),
                peak: self.ledger.peak(axis),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Window;

    /// Many pools are cheap: one is ten cache lines at most.
    #[test]
    fn a_pools_place_is_small() {
        assert!(size_of::<Node>() <= 640, "{}", size_of::<Node>());
    }

    #[test]
    fn p8_windows_that_are_gone_are_not_counted() {
        let (mut tree, now) = (Tree::default(), Instant::now());
        let spec = || Spec {
            name: Name::DEFAULT,
            caps: Caps::new(),
            deadline: None,
            window: Some(Turning::start(Window::fixed(Duration::MAX), now)),
            memory: None,
        };
        let root = tree.add_root(spec());
        let child = tree.add_child(root, spec());
        assert_eq!(tree.schedule.windows, 2);
        tree.drop_handle(child);
        assert_eq!(tree.schedule.windows, 1);
        tree.drop_handle(root);
        assert_eq!((tree.schedule.windows, tree.nodes.len()), (0, 0));
    }
}
