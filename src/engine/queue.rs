//! The waiters of a tree: their order, and the pool at which each is blocked.
//!
//! Each pool has one line, first come, first served, by ticket. Only the head of a line is a
//! *candidate*. A candidate is *blocked* at the first pool on its way up that refuses it, for lack
//! of room or because an earlier candidate is parked there. A blocked candidate is *parked* there,
//! and at the pools on its way that it would have passed: it keeps its place in all of them, so
//! that streams of small waiters in two pools cannot take turns to starve a large one that needs
//! both. A pool that gains room, or loses a candidate, calls the first candidate that is parked at
//! it: a candidate that is still refused where it is blocked stays, and a candidate that is now
//! blocked elsewhere moves there. So a small waiter cannot starve a large one, a waiter that is
//! blocked in a child does not hold up the waiters outside of it, and the cost is that of the
//! grants and the moves.
//!
//! A joint pool has several pools above it that another joint pool may have in the opposite order.
//! Candidates cannot dead-lock: a candidate holds nothing, is granted all pools of its way in one
//! step, and waits for room or for an earlier ticket alone, so that the earliest of all waits for
//! nobody. Nor can a candidate starve: once it is the first that is parked at a pool, no call for new work
//! and no later candidate takes room there, and each pool that it passes keeps it parked while it
//! moves on.
//!
//! Candidates compete at a pool that caps an axis of their ask: on a carved axis nothing is asked
//! above the carve. A candidate that is blocked where it does not compete, because all countable
//! units of an axis without a cap are taken, waits its turn there, too. So as long as the first
//! candidate that is parked at a pool stays, all candidates that are blocked there stay.
//!
//! ```text
//!          ┌────────── in line ──────────┐
//!          │  called    ┌───────────┐    │   room, and no earlier one
//! wait ───►│  behind ──►│ candidate │────┼──────────────────────────► granted ──► collected
//!   │      │            └─┬───────▲─┘    │
//!   │      │       parked │       │      │   closed, late, unsatisfiable
//!   │      │              ▼       │ room │──────────────────────────► refused ──► collected
//!   │      │            blocked ──┘      │
//!   │      └──────────────┬──────────────┘
//!   └─► granted, refused  └─ dropped: the place is given up
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::num::NonZeroU32;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::Engine;
use super::admission::Booked;
use super::arena::{Arena, Placed};
use super::ask::{Pick, Terms};
use super::hold::{End, HoldKey};
use super::nodes::{Node, NodeId, Nodes, Way};
use crate::types::axis::{AxisSet, NOTHING, Quantities, Units, all_lanes};
use crate::types::error::{BudgetError, Outlook};

/// The order of arrival; never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

impl Ticket {
    pub(super) const FIRST: Ticket = Ticket(u64::MIN);
    pub(super) const LAST: Ticket = Ticket(u64::MAX);
}

/// The id of a waiter, until its owner collects or cancels it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WaitKey(NonZeroU32);

impl WaitKey {
    const FIRST: WaitKey = WaitKey(NonZeroU32::MIN);

    fn of_slot(slot: usize) -> WaitKey {
        let key = u32::try_from(slot).ok().and_then(|slot| slot.checked_add(1));
        WaitKey(key.and_then(NonZeroU32::new).expect("2^32 waiters never live at once"))
    }

    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// All waiters of a tree.
#[derive(Debug, Default)]
pub(super) struct Queue {
    all: Arena<Waiter>,
    /// How many are neither granted nor refused.
    waiting: u32,
    /// How many pools are [contested](Node::is_contested).
    contested: u32,
    last_ticket: u64,
    /// Candidates that may no longer be blocked where they are parked, the earliest first. Empty
    /// between transitions.
    called: Called,
    /// When time ends waits: at the deadlines of the pools in which somebody waits, and at the ends
    /// of the times that waiters were given.
    due: BTreeSet<Due>,
    /// When a window brings enough for a candidate that is the first where it is blocked, or earlier.
    rooms: BTreeSet<(Instant, WaitKey)>,
    /// How many candidates are blocked at a pool with a window.
    at_windows: u32,
    /// Ways on which waiters may have been left no hope, while holds are reclaimed for the figures of
    /// a refusal: they are looked at after that, as each of them might have holds reclaimed.
    deferred: Option<Vec<NodeId>>,
    /// The wakers of the waiters that were granted, refused or reminded, and of the watches: to be
    /// woken outside the lock, in this order.
    wakers: Wakers,
}

/// When whose wait ends: of all in a pool, or of one. All pools come before all waiters, so that
/// neither is looked for among the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Pool(Instant, NodeId),
    /// It is never there: between the two.
    Between,
    /// Those of one instant in the order of arrival.
    Waiter(Instant, Ticket, WaitKey),
}

/// Wakers that a transition leaves behind.
pub(super) type Wakers = Vec<Waker>;

/// A waiter, or a free place. In a long line each cache line is a miss: the first has all that its
/// neighbours and a waiter that leaves have to do with.
#[derive(Debug)]
#[repr(C, align(64))]
struct Waiter {
    ticket: Ticket,
    home: NodeId,
    /// The pool at which a candidate is blocked; it is parked from its own pool up to this one.
    blocked: Option<NodeId>,
    /// Its neighbours in the line of its pool.
    before: Option<WaitKey>,
    behind: Option<WaitKey>,
    outcome: Outcome,
    terms: Option<Box<Agreed>>,
    waker: Option<Waker>,
    /// The units that it waits for: of several alternatives, the least.
    asked: Quantities,
    purpose: Purpose,
    /// When its owner will look again by itself, if ever.
    timeout: Option<Instant>,
    /// When a window brings enough for it, or earlier, if it is the first where it is blocked.
    room: Option<Instant>,
}

#[derive(Debug)]
enum Outcome {
    Waiting,
    Granted(HoldKey),
    /// In a box, as few are refused.
    Refused(Box<BudgetError>),
    /// Its time is over. It has left the line, and is answered when its owner looks.
    Over,
    /// No waiter: the place is free.
    Collected,
}

/// What a waiter owned that is gone.
struct Left {
    outcome: Outcome,
    terms: Option<Box<Agreed>>,
    waker: Option<Waker>,
}

/// The next free place is the one behind.
impl Placed for Waiter {
    const FREE: Waiter = Waiter {
        ticket: Ticket(0),
        home: NodeId::ROOT,
        blocked: None,
        before: None,
        behind: None,
        outcome: Outcome::Collected,
        terms: None,
        waker: None,
        asked: Quantities::NONE,
        purpose: Purpose::Hold,
        timeout: None,
        room: None,
    };

    #[inline]
    fn next_free(&self) -> Option<u32> {
        let is_free = matches!(self.outcome, Outcome::Collected);
        self.behind.filter(|_| is_free).map(|key| key.slot() as u32)
    }

    #[inline]
    fn free(&mut self, next: u32) {
        self.behind = Some(WaitKey::of_slot(next as usize));
    }
}

impl Waiter {
    fn is_waiting(&self) -> bool {
        matches!(self.outcome, Outcome::Waiting)
    }

    /// When it gives up.
    fn until(&self) -> Option<Instant> {
        self.terms.as_ref().and_then(|agreed| agreed.until)
    }

    fn end(&self, key: WaitKey) -> Option<Due> {
        self.until().map(|until| Due::Waiter(until, self.ticket, key))
    }
}

/// On which terms a waiter waits.
#[derive(Debug)]
struct Agreed {
    terms: Terms,
    /// When it gives up; `None` = never.
    until: Option<Instant>,
}

/// The purpose of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A hold.
    Hold,
    /// A spend. The hold lasts from the grant until its owner collects it, so that an owner who
    /// never does has spent nothing.
    Spend,
}

/// The grant of a waiter.
#[derive(Debug)]
pub(crate) enum Grant {
    Hold(HoldKey),
    Spent,
}

/// What the owner of a waiter sees.
#[derive(Debug)]
pub(crate) struct Looked {
    /// Collected once.
    pub(crate) outcome: Poll<Result<Grant, Box<BudgetError>>>,
    /// A waker that the queue keeps no longer, to be dropped outside the lock.
    pub(crate) old: Option<Waker>,
    /// When its owner must look again, should it not be woken before.
    pub(crate) alarm: Option<Instant>,
}

impl Looked {
    pub(crate) fn ready(outcome: Result<Grant, Box<BudgetError>>) -> Looked {
        Looked { outcome: Poll::Ready(outcome), old: None, alarm: None }
    }
}

/// The place of a call that is ready to wait.
#[derive(Debug)]
pub(crate) enum Place {
    Granted(Grant),
    InLine(WaitKey),
}

/// The units that a waiter asks of an axis.
type Asked = (usize, u64, WaitKey);

/// The waiters of one pool. In a box, as few pools have ever had one.
#[derive(Debug, Default)]
pub(super) struct Line(Option<Box<Waiters>>);

#[derive(Debug, Default)]
struct Waiters {
    /// The ends of the line of this pool: a waiter comes behind the last, and leaves from anywhere.
    first: Option<WaitKey>,
    last: Option<WaitKey>,
    /// The candidates, of this pool and of those below, that wait for this pool or pass it on their
    /// way.
    parked: Parked,
    /// The number of waiters, in this pool and in those below.
    waiting: u64,
    /// The sum of their asks.
    demand: Demand,
}

/// The sum of the asks of a pool's waiters, and of those below.
#[derive(Debug, Default)]
struct Demand {
    /// An upper bound of the asks of its waiters here. It falls only when it is looked at or nobody
    /// waits.
    most: Quantities,
    /// The ask of each of them here, axis by axis, once some had to be refused as unsatisfiable:
    /// then the next of those is found without a look at the others. As long as nobody is, it need
    /// not be known.
    each: Option<BTreeSet<Asked>>,
}

/// Candidates by ticket. The first, which is often the only one, lies in place.
#[derive(Debug, Default)]
struct Parked {
    first: Option<(Ticket, WaitKey)>,
    others: BTreeMap<Ticket, WaitKey>,
}

impl Parked {
    fn insert(&mut self, ticket: Ticket, key: WaitKey) {
        match self.first {
            Some((first, _)) if first < ticket => _ = self.others.insert(ticket, key),
            earlier => {
                self.first = Some((ticket, key));
                self.others.extend(earlier);
            }
        }
    }

    fn remove(&mut self, ticket: Ticket) {
        if self.first.is_some_and(|(first, _)| first == ticket) {
            self.first = self.others.pop_first();
        } else {
            self.others.remove(&ticket);
        }
    }

    fn iter(&self) -> impl Iterator<Item = (Ticket, WaitKey)> {
        self.first.into_iter().chain(self.others.iter().map(|(&ticket, &key)| (ticket, key)))
    }
}

/// Candidates that are called, the earliest first. The next, which is often the only one, lies in
/// place.
#[derive(Debug, Default)]
struct Called {
    next: Option<(Ticket, WaitKey)>,
    others: BinaryHeap<Reverse<(Ticket, WaitKey)>>,
}

impl Called {
    #[inline]
    fn push(&mut self, called: (Ticket, WaitKey)) {
        match self.next {
            Some(next) if next != called => self.push_beside(next, called),
            _ => self.next = Some(called),
        }
    }

    #[cold]
    fn push_beside(&mut self, next: (Ticket, WaitKey), called: (Ticket, WaitKey)) {
        self.next = Some(next.min(called));
        self.others.push(Reverse(next.max(called)));
    }

    #[inline]
    fn pop(&mut self) -> Option<WaitKey> {
        let (_, key) = self.next.take()?;
        if !self.others.is_empty() {
            self.next = self.others.pop().map(|Reverse(called)| called);
        }
        Some(key)
    }

    #[cfg(any(test, debug_assertions))]
    fn is_empty(&self) -> bool {
        self.next.is_none() && self.others.is_empty()
    }
}

impl Line {
    pub(super) const NONE: Line = Line(None);

    /// The number of waiters, in this pool and in those below.
    pub(super) fn waiting(&self) -> u64 {
        self.0.as_ref().map_or(0, |waiters| waiters.waiting)
    }

    pub(super) fn has_parked(&self) -> bool {
        self.earliest().is_some()
    }

    /// Whether a candidate with an earlier ticket is parked here.
    fn has_parked_before(&self, ticket: Ticket) -> bool {
        self.earliest().is_some_and(|(first, _)| first < ticket)
    }

    fn is_empty(&self) -> bool {
        let is_empty = |of: &Waiters| of.first.is_none() && of.parked.first.is_none();
        self.0.as_ref().is_none_or(|waiters| is_empty(waiters))
    }

    /// The head of the line of this pool.
    fn first(&self) -> Option<WaitKey> {
        self.0.as_ref()?.first
    }

    /// The candidate that all others here wait for.
    fn first_parked(&self) -> Option<WaitKey> {
        self.earliest().map(|(_, key)| key)
    }

    #[inline]
    fn earliest(&self) -> Option<(Ticket, WaitKey)> {
        self.0.as_ref()?.parked.first
    }

    /// All candidates that are parked here, by ticket.
    fn parked(&self) -> impl Iterator<Item = (Ticket, WaitKey)> {
        self.0.iter().flat_map(|waiters| waiters.parked.iter())
    }

    /// The sum of the asks of those who wait, if anybody does.
    #[inline]
    fn demand(&self) -> Option<&Demand> {
        self.0.as_ref().filter(|waiters| waiters.waiting > 0).map(|waiters| &waiters.demand)
    }

    fn waiters(&mut self) -> &mut Waiters {
        self.0.get_or_insert_default()
    }

    fn enter(&mut self, key: WaitKey, asked: &Quantities, open: AxisSet) {
        let Waiters { waiting, demand: Demand { most, each }, .. } = self.waiters();
        *waiting += 1;
        for axis in asked.axes().intersection(open) {
            most.set(axis, most.units()[axis].max(asked.units()[axis]));
        }
        if let Some(each) = each {
            each.extend(each_asked(key, asked, open));
        }
    }

    #[inline]
    fn leave(&mut self, key: WaitKey, asked: &Quantities, open: AxisSet) {
        let Waiters { waiting, demand, .. } = self.waiters();
        *waiting -= 1;
        if *waiting == 0 {
            *demand = Demand::default();
        }
        if let Some(each) = &mut demand.each {
            each_asked(key, asked, open).for_each(|asked| _ = each.remove(&asked));
        }
    }
}

/// The units that a waiter asks of the open axes.
fn each_asked(key: WaitKey, asked: &Quantities, open: AxisSet) -> impl Iterator<Item = Asked> {
    let each = asked.axes().intersection(open).map(move |axis| (axis, asked.units()[axis], key));
    each.filter(|(_, units, _)| *units > 0)
}

impl Queue {
    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting > 0
    }

    /// Whether the expiry of a hold may serve a waiter.
    pub(super) fn is_contested(&self) -> bool {
        self.contested > 0
    }

    fn get(&self, key: WaitKey) -> &Waiter {
        &self.all[key.slot()]
    }

    fn get_mut(&mut self, key: WaitKey) -> &mut Waiter {
        &mut self.all[key.slot()]
    }

    pub(super) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Frees the place of a waiter. The caller can still read there what it asked for.
    #[inline]
    fn remove(&mut self, key: WaitKey) -> Left {
        let waiter = self.get_mut(key);
        let outcome = std::mem::replace(&mut waiter.outcome, Outcome::Collected);
        let left = Left { outcome, terms: waiter.terms.take(), waker: waiter.waker.take() };
        self.all.give_back(key.slot());
        left
    }

    /// Puts a waiter at the end of a line.
    fn append(
        &mut self,
        line: &mut Line,
        home: NodeId,
        asked: &Quantities,
        purpose: Purpose,
        terms: Option<Box<Agreed>>,
    ) -> WaitKey {
        let line = line.waiters();
        let waiter = Waiter {
            ticket: self.ticket(),
            home,
            blocked: None,
            before: line.last,
            behind: None,
            outcome: Outcome::Waiting,
            terms,
            waker: None,
            asked: *asked,
            purpose,
            timeout: None,
            room: None,
        };
        let slot = self.all.take();
        self.all[slot] = waiter;
        let key = WaitKey::of_slot(slot);
        self.waiting += 1;
        match line.last.replace(key) {
            Some(before) => self.get_mut(before).behind = Some(key),
            None => line.first = Some(key),
        }
        key
    }

    /// Takes a waiter out of its line, wherever it stands.
    #[inline]
    fn unlink(&mut self, line: &mut Line, key: WaitKey) {
        let Waiter { before, behind, .. } = *self.get(key);
        let line = line.waiters();
        self.waiting -= 1;
        match before {
            Some(before) => self.get_mut(before).behind = behind,
            None => line.first = behind,
        }
        match behind {
            Some(behind) => self.get_mut(behind).before = before,
            None => line.last = before,
        }
    }

    /// The waiters of a line, in their order.
    fn of_line(&self, line: &Line) -> impl Iterator<Item = (WaitKey, &Waiter)> {
        let keys = std::iter::successors(line.first(), |&key| self.get(key).behind);
        keys.map(|key| (key, self.get(key)))
    }

    pub(super) fn call(&mut self, key: WaitKey) {
        self.called.push((self.get(key).ticket, key));
    }

    /// Calls the first candidate that is parked in a line, after its pool gained room or lost a
    /// candidate.
    #[inline]
    fn call_parked(&mut self, line: &Line) {
        if let Some(called) = line.earliest() {
            self.called.push(called);
        }
    }

    /// Changes a condition of [`is_contested`](Node::is_contested), and counts the contested pools.
    #[inline]
    pub(super) fn change_contested(&mut self, node: &mut Node, change: impl FnOnce(&mut Node)) {
        let was = node.is_contested();
        change(node);
        let is = node.is_contested();
        self.contested = self.contested + u32::from(is) - u32::from(was);
    }

    /// When a window is known to bring enough for a candidate, or `None` for no more.
    fn expect_room(&mut self, key: WaitKey, at: Option<Instant>) {
        let known = std::mem::replace(&mut self.get_mut(key).room, at);
        if known != at {
            known.map(|known| self.rooms.remove(&(known, key)));
            self.rooms.extend(at.map(|at| (at, key)));
        }
    }

    /// Whether a candidate is blocked where a window may bring enough.
    #[inline]
    pub(super) fn heeds_windows(&self) -> bool {
        self.at_windows > 0
    }

    /// The first candidate for which a window brings enough by an instant, and when.
    #[inline]
    pub(super) fn next_room(&self, now: Instant) -> Option<(Instant, WaitKey)> {
        self.rooms.first().filter(|(at, _)| *at <= now).copied()
    }

    /// The pools in which somebody waits, and whose deadline has come by an instant.
    #[inline]
    fn late_pools(&self, now: Option<Instant>) -> impl Iterator<Item = NodeId> {
        self.due.iter().map_while(move |due| match *due {
            Due::Pool(at, pool) if Some(at) <= now => Some(pool),
            _ => None,
        })
    }

    /// The first whose own time is over, by the clock as it reads: it may have run back.
    #[inline]
    fn next_end(&self, reading: Option<Instant>) -> Option<WaitKey> {
        match *self.due.range(Due::Between..).next()? {
            Due::Waiter(until, _, key) if Some(until) <= reading => Some(key),
            _ => None,
        }
    }

    /// Visits the pools at which a candidate is parked: from its own up to where it is blocked, as
    /// far as it takes its turn there.
    #[inline]
    fn visit_parked(
        &mut self,
        nodes: &mut Nodes,
        key: WaitKey,
        visit: impl Fn(&mut Queue, &mut Node),
    ) {
        let Waiter { home, blocked, .. } = *self.get(key);
        let mut way = Way::from(home);
        while let Some((id, node)) = way.up_mut(nodes) {
            if takes_turn(id, node, way.open(), self.get(key)) {
                visit(self, node);
            }
            if blocked == Some(id) {
                return;
            }
        }
    }

    /// Resolves a waiter, whose owner is to be woken for it.
    fn resolve(&mut self, key: WaitKey, outcome: Outcome) {
        let waiter = self.get_mut(key);
        waiter.outcome = outcome;
        if let Some(waker) = waiter.waker.take() {
            self.wakers.push(waker);
        }
    }
}

/// Waiting, as its owner sees it.
impl Engine {
    /// Reserves or spends now, or takes a ticket. Refused at once if it can never fit.
    pub(crate) fn wait(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        purpose: Purpose,
        now: Option<Instant>,
    ) -> Result<Place, BudgetError> {
        let now = self.advance(at, asked.units(), now);
        let is_open = self.is_open(at, now);
        let is_first = |engine: &Engine| {
            engine.queued_at(at, asked.units()).is_none() && engine.paused(at).is_none()
        };
        if is_open && is_first(self) {
            if let Some(hold) = self.try_begin(at, asked, purpose) {
                self.holds.get_mut(hold).set_since(now);
                return Ok(Place::Granted(self.collect(hold, purpose)));
            }
        }
        if !is_open || self.is_unsatisfiable(at, asked) {
            return self.refuse(at, asked, now);
        }
        self.has_place(at)?;
        Ok(Place::InLine(self.enqueue(at, asked, purpose, None)))
    }

    /// [`wait`](Engine::wait), for a hold on terms.
    pub(crate) fn wait_on(
        &mut self,
        at: NodeId,
        asked: &Quantities,
        mut terms: Terms,
        now: Option<Instant>,
    ) -> Result<Place, BudgetError> {
        let now = self.advance_for(at, &terms, asked, now);
        if let Some(pick) = self.pick_in_turn(at, asked, &terms, now) {
            return Ok(Place::Granted(Grant::Hold(self.hold_pick(at, pick, &mut terms, now))));
        }
        let time = terms.wait_at_most;
        // By the clock as it reads: it may have run back.
        let until = time.and_then(|time| self.reading?.checked_add(time));
        if !self.is_open(at, now) || self.is_unsatisfiable_by(at, asked, until) {
            return self.refuse(at, asked, now);
        }
        self.has_place(at)?;
        let agreed = Box::new(Agreed { terms, until });
        Ok(Place::InLine(self.enqueue(at, asked, Purpose::Hold, Some(agreed))))
    }

    /// Whether a spend has nothing to do with the waiters: nobody waits in a pool on its way, or is
    /// parked there, and the spend takes no hope from the waiters below. Then there is nobody to
    /// pass, to call or to refuse, and the step of the spend is the whole transition.
    #[inline(always)]
    pub(crate) fn concerns_no_waiter(&self, at: NodeId, spent: &Quantities) -> bool {
        if !self.is_quiet_but_for_waiters() {
            return false;
        }
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes) {
            let node = &self.nodes[id];
            if !node.line.is_empty() || !node.leaves_hope(spent) {
                return false;
            }
        }
        true
    }

    /// The first pool on the way up where others wait for the same units: the called pool, or a
    /// pool that caps an axis of the call.
    #[inline]
    pub(super) fn queued_at(&self, at: NodeId, asked: &Units) -> Option<NodeId> {
        if !self.queue.has_waiting() {
            return None;
        }
        let mut way = self.nodes.open_way(at);
        let queued = way.find(|(id, node, open)| {
            !node.line.is_empty() && (*id == at || node.caps_any(asked, *open))
        });
        queued.map(|(id, ..)| id)
    }

    /// Refuses where a pool on the way up has no place for another waiter, and counts that.
    fn has_place(&mut self, at: NodeId) -> Result<(), BudgetError> {
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes) {
            let node = &self.nodes[id];
            if node.line.waiting() >= u64::from(node.most_waiting) {
                let (pool, most) = (node.name.clone(), node.most_waiting);
                self.count_refused(at);
                return Err(BudgetError::QueueFull { pool, most });
            }
        }
        Ok(())
    }

    fn enqueue(
        &mut self,
        home: NodeId,
        asked: &Quantities,
        purpose: Purpose,
        terms: Option<Box<Agreed>>,
    ) -> WaitKey {
        let node = &mut self.nodes[home];
        let key = self.queue.append(&mut node.line, home, asked, purpose, terms);
        if let Some(deadline) = node.deadline {
            self.queue.due.insert(Due::Pool(deadline.at, home));
        }
        if let Some(end) = self.queue.get(key).end(key) {
            self.queue.due.insert(end);
        }
        let mut way = Way::from(home);
        while let Some((_, node)) = way.up_mut(&mut self.nodes) {
            node.line.enter(key, asked, way.open());
        }
        self.call_head(home);
        self.process_waiters();
        key
    }

    /// The outcome of a waiter. As long as there is none the queue keeps `waker`. An owner that
    /// cannot sleep until it must look again is refused.
    pub(crate) fn poll_wait(
        &mut self,
        key: WaitKey,
        waker: &mut Option<Waker>,
        can_sleep: bool,
        now: Option<Instant>,
    ) -> Looked {
        let now = now.map(|now| {
            let Waiter { home, asked, .. } = *self.queue.get(key);
            self.advance_to(home, asked.units(), now)
        });
        if self.queue.get(key).is_waiting() {
            let alarm = self.next_timeout(key);
            if alarm.is_some() && !can_sleep {
                let old = self.queue.get_mut(key).waker.take();
                return Looked { old, ..Looked::ready(Err(Box::new(self.refuse_sleep(key)))) };
            }
            let waiter = self.queue.get_mut(key);
            waiter.timeout = alarm;
            let old = std::mem::replace(&mut waiter.waker, waker.take());
            return Looked { outcome: Poll::Pending, old, alarm };
        }
        // Whoever was told has no waker left here.
        if matches!(self.queue.get(key).outcome, Outcome::Over) {
            return Looked::ready(self.give_up(key));
        }
        let purpose = self.queue.get(key).purpose;
        let Left { outcome, terms, .. } = self.queue.remove(key);
        let outcome = match outcome {
            Outcome::Granted(hold) => {
                self.holds.get_mut(hold).set_since(now);
                if let Some(mut agreed) = terms {
                    self.agree(hold, &mut agreed.terms);
                }
                Ok(self.collect(hold, purpose))
            }
            Outcome::Refused(refusal) => Err(refusal),
            Outcome::Waiting | Outcome::Over | Outcome::Collected => {
                unreachable!("it was asked above")
            }
        };
        Looked::ready(outcome)
    }

    /// The alarm of a waiter of this pool rings, whether or not its owner comes to look: what time
    /// brings is brought about for all, and the owner is woken. Returns when it is to ring next. The
    /// alarm of one who has gone may ring for another, who looks once more then.
    pub(crate) fn ring(
        &mut self,
        at: NodeId,
        key: WaitKey,
        now: Option<Instant>,
    ) -> Option<Instant> {
        self.advance(at, &NOTHING, now);
        if !self.queue.get(key).is_waiting() {
            return None;
        }
        let waker = self.queue.get_mut(key).waker.take();
        self.queue.wakers.extend(waker);
        self.next_timeout(key)
    }

    /// One whose time is over is answered as a plain call would be now.
    #[cold]
    fn give_up(&mut self, key: WaitKey) -> Result<Grant, Box<BudgetError>> {
        let Waiter { home, asked, .. } = *self.queue.get(key);
        let Left { terms, .. } = self.queue.remove(key);
        let mut terms = terms.expect("without terms nobody gives up").terms;
        let waited = terms.wait_at_most.expect("it was given a time");
        // It stands in no line, for whose sake all that is due would have been reclaimed.
        let now = self.advance_for(home, &terms, &asked, self.reading);
        match self.reserve_now(home, &asked, &mut terms, now) {
            Ok(hold) => Ok(Grant::Hold(hold)),
            Err(refusal) => {
                let pool = self.nodes[home].name.clone();
                let timeout = BudgetError::Timeout { pool, waited, refusal: Box::new(refusal) };
                self.note_refusal(&timeout);
                Err(Box::new(timeout))
            }
        }
    }

    /// Only time may end this wait, and its owner has no timer: it would sleep for ever.
    #[cold]
    fn refuse_sleep(&mut self, key: WaitKey) -> BudgetError {
        let home = self.queue.get(key).home;
        self.unqueue(key);
        self.process_waiters();
        self.queue.remove(key);
        self.count_refused(home);
        let refusal = BudgetError::NoTimer { pool: self.nodes[home].name.clone() };
        self.note_refusal(&refusal);
        refusal
    }

    /// The owner has gone: the waiter gives up its place, or gives back its grant. Returns the
    /// values to drop outside the lock.
    pub(crate) fn cancel_wait(&mut self, key: WaitKey) -> Option<Waker> {
        if self.queue.get(key).is_waiting() {
            self.unqueue(key);
            self.process_waiters();
        }
        let Left { outcome, waker, .. } = self.queue.remove(key);
        if let Outcome::Granted(hold) = outcome {
            self.give_back(key, hold);
        }
        waker
    }

    /// The owner of a grant has gone before it collected the grant.
    #[cold]
    fn give_back(&mut self, key: WaitKey, hold: HoldKey) {
        let Waiter { home, purpose, .. } = *self.queue.get(key);
        // It reads no clock: this happens at the latest instant seen.
        self.refill_to_latest(home);
        match purpose {
            Purpose::Hold => self.end(hold, End::Release, None, &mut { Booked::NOTHING }),
            Purpose::Spend => self.end_spend(hold, false),
        }
    }

    /// Hands over the grant: a [`Purpose::Spend`] is spent now.
    fn collect(&mut self, hold: HoldKey, purpose: Purpose) -> Grant {
        match purpose {
            Purpose::Hold => Grant::Hold(hold),
            Purpose::Spend => {
                self.end_spend(hold, true);
                Grant::Spent
            }
        }
    }

    /// The wakers that the transition leaves behind.
    #[inline]
    pub(crate) fn wakers(&mut self) -> &mut Wakers {
        &mut self.queue.wakers
    }
}

/// How the queue moves on.
impl Engine {
    /// After a change of the balances on a way: refuses the waiters that can never be met now, and
    /// serves those that fit.
    #[inline]
    pub(super) fn balances_changed(&mut self, at: NodeId) {
        if self.queue.has_waiting() {
            self.call_changed(at);
            self.process_waiters();
        }
    }

    /// [`balances_changed`](Engine::balances_changed), but the caller serves the waiters.
    pub(super) fn call_changed(&mut self, at: NodeId) {
        if self.queue.has_waiting() {
            self.reject_unsatisfiable(at);
            self.call_way(at);
        }
    }

    /// Calls the first candidates that are parked on a way.
    #[inline(always)]
    pub(super) fn call_way(&mut self, at: NodeId) {
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes) {
            self.call_parked(id);
        }
    }

    #[inline]
    pub(super) fn call_parked(&mut self, at: NodeId) {
        self.queue.call_parked(&self.nodes[at].line);
    }

    /// Calls the head of a pool's line, if it is new there.
    fn call_head(&mut self, home: NodeId) {
        if let Some(head) = self.nodes[home].line.first() {
            if self.queue.get(head).blocked.is_none() {
                self.queue.call(head);
            }
        }
    }

    /// Serves the waiters for all that has changed by the latest instant seen.
    pub(super) fn process_waiters(&mut self) {
        self.process_waiters_at(self.latest);
    }

    /// Serves the waiters for all that has changed by an instant, and then, in the order of time,
    /// for all that is due where one of them is parked now: no call had to do it as long as nobody
    /// waited for it.
    pub(super) fn process_waiters_at(&mut self, mut moment: Option<Instant>) {
        self.process_called(&mut moment);
        while let Some(at) = self.step_in_time(false) {
            moment = Some(at);
            self.process_called(&mut moment);
        }
    }

    /// Tries the candidates that were called, and those that move up behind them, by ticket: each
    /// stays where it is still refused, or is parked where it is blocked now, or is granted. Each is
    /// judged by what its way has at the moment.
    fn process_called(&mut self, moment: &mut Option<Instant>) {
        while let Some(key) = self.queue.called.pop() {
            let waiter = self.queue.get(key);
            if !waiter.is_waiting() {
                continue;
            }
            let (known, blocked) = (waiter.blocked, self.blocked_at(waiter));
            if blocked.is_none() || blocked != known {
                if self.catch_up(key, *moment) {
                    self.queue.call(key);
                    continue;
                }
                match blocked {
                    None => {
                        if self.has_more_to_come(key, moment) {
                            self.queue.call(key);
                        } else {
                            self.grant(key);
                        }
                        continue;
                    }
                    Some(pool) => self.park(key, pool),
                }
            }
            if self.nodes.has_windows() && self.is_too_late_for(key) {
                let Waiter { home, asked, .. } = self.queue.get(key);
                let refusal = self.explain(*home, asked, self.latest);
                self.turn_away(vec![(key, refusal)]);
            } else {
                self.await_room(key);
                self.remind(key);
            }
        }
    }

    /// Brings the windows on the way of a candidate up to an instant, by steps. Returns whether that
    /// was one: then others may have become free to go first.
    #[inline]
    fn catch_up(&mut self, key: WaitKey, moment: Option<Instant>) -> bool {
        self.nodes.has_windows() && moment.is_some_and(|now| self.turn_windows(key, now))
    }

    fn turn_windows(&mut self, key: WaitKey, now: Instant) -> bool {
        let home = self.queue.get(key).home;
        // Of one instant, the turn comes before the expiries.
        let is_due = self.expiry.next().is_some_and(|expiry| expiry < now);
        if is_due && self.ends_period_of_holds(home, now) {
            return self.reclaim_next();
        }
        self.turn_way(home, now)
    }

    /// Takes a step towards all that is due on the way of a candidate that is granted as much as
    /// there is. Returns whether that was one: then others may have become free to go first.
    fn has_more_to_come(&mut self, key: WaitKey, moment: &mut Option<Instant>) -> bool {
        let terms = &self.queue.get(key).terms;
        if !terms.as_ref().is_some_and(|agreed| agreed.terms.has_choices()) {
            return false;
        }
        if let Some(at) = self.step_in_time(true) {
            *moment = Some(at);
            return true;
        }
        *moment = self.latest;
        self.catch_up(key, *moment)
    }

    /// Takes a step towards the next that is due for those who wait: pauses end, windows bring
    /// enough for candidates, or a hold has expired; at one instant in this order. Returns the
    /// instant of it. Without `all`, only those holds count that may serve a waiter, or that must be
    /// reclaimed before the rest.
    #[inline]
    fn step_in_time(&mut self, all: bool) -> Option<Instant> {
        if self.heeds_time() { self.next_step_in_time(all) } else { None }
    }

    fn next_step_in_time(&mut self, all: bool) -> Option<Instant> {
        let latest = self.latest?;
        let expiry = self.expiry.next().filter(|at| *at <= latest);
        let (pause, room) = (self.pauses.next_over(latest), self.queue.next_room(latest));
        let next = pause.map(|(until, _)| until).into_iter().chain(room.map(|(at, _)| at)).min();
        let reclaims = match next {
            Some(at) if expiry.is_none_or(|expiry| expiry >= at) => false,
            Some(at) => all || self.must_reclaim(at) || self.rooms_end_period(at),
            None => expiry.is_some() && (all || self.queue.is_contested()),
        };
        if reclaims {
            self.reclaim_next();
            return expiry;
        }
        self.come_to(next?);
        next
    }

    /// Ends the pauses and turns the windows that somebody waits for at an instant: all of them,
    /// before the first candidate is served for it. Else a later one could pass an earlier one for
    /// which the same instant brings room elsewhere.
    fn come_to(&mut self, at: Instant) {
        while let Some((_, pool)) = self.pauses.next_over(at) {
            self.end_pause(pool);
        }
        while let Some((at, key)) = self.queue.next_room(at) {
            self.queue.expect_room(key, None);
            self.turn_way(self.queue.get(key).home, at);
            self.queue.call(key);
        }
    }

    /// Whether what a window brings a candidate by an instant ends a period in which holds may have
    /// expired.
    fn rooms_end_period(&self, by: Instant) -> bool {
        let mut rooms = self.queue.rooms.iter().take_while(|(at, _)| *at <= by);
        rooms.any(|&(at, key)| self.ends_period_of_holds(self.queue.get(key).home, at))
    }

    /// Takes a step towards the reclaiming of the next hold that has expired, if any has.
    fn reclaim_next(&mut self) -> bool {
        let due = self.latest.and_then(|latest| self.expiry.next_due(latest));
        due.inspect(|&hold| self.reclaim_step(hold)).is_some()
    }

    /// Whether a window will bring back enough only after the deadline of the waiter. (The pool
    /// where it is blocked knows no deadline but its own.) The waiters behind it are told when they
    /// are the first.
    fn is_too_late_for(&self, key: WaitKey) -> bool {
        let Waiter { home, asked, .. } = self.queue.get(key);
        self.is_unsatisfiable(*home, asked)
    }

    /// The units that a waiter asks of a pool, if that is on its way.
    fn asked_at(&self, pool: NodeId, waiter: &Waiter) -> Option<Units> {
        let mut way = self.nodes.asking(waiter.home, waiter.asked.units());
        way.find(|(id, ..)| *id == pool).map(|(.., asked)| asked)
    }

    /// The pool at which a candidate is blocked: it stays where it is while that pool refuses it
    /// still, and else it is the first pool on its way up that does.
    fn blocked_at(&self, waiter: &Waiter) -> Option<NodeId> {
        let mut first = None;
        let mut way = Way::from(waiter.home);
        while let Some(id) = way.up(&self.nodes) {
            let is_known = waiter.blocked == Some(id);
            let matters = is_known || first.is_none();
            if matters && self.refuses(id, &self.nodes[id], way.open(), waiter) {
                first = Some(id);
            }
            if first.is_some() && (is_known || waiter.blocked.is_none()) {
                break;
            }
        }
        first
    }

    /// Hands the units over in the transition that freed them: nobody can take them in between.
    fn grant(&mut self, key: WaitKey) {
        let waiter = self.queue.get(key);
        let home = waiter.home;
        let terms = waiter.terms.as_ref().map(|agreed| &agreed.terms);
        let pick = terms.map(|terms| self.pick_for(waiter, terms));
        // Who holds it and does not come for it is to be found by its label.
        let label = terms.and_then(|terms| terms.label.clone());
        self.unqueue(key);
        let hold = match pick {
            Some(pick) => self.begin_pick(home, pick),
            None => {
                let Waiter { asked, purpose, .. } = self.queue.get(key);
                self.holds.begin(&mut self.nodes, home, asked, *purpose)
            }
        };
        if label.is_some() {
            self.holds.get_mut(hold).agree(label, None);
        }
        self.queue.resolve(key, Outcome::Granted(hold));
    }

    /// The best choice of a candidate whose least is granted: it passes no earlier candidate for
    /// it.
    fn pick_for(&self, waiter: &Waiter, terms: &Terms) -> Pick {
        let passes_nobody = |units: &Units| {
            let mut way = self.nodes.open_way(waiter.home);
            way.all(|(id, node, open)| {
                !node.line.has_parked_before(waiter.ticket)
                    || !(id == waiter.home || node.caps_any(units, open))
            })
        };
        let pick = self.pick(waiter.home, &waiter.asked, terms, passes_nobody);
        pick.expect("the least fits, and is the last choice")
    }

    /// Refuses all of them before the queue looks at the waiters behind them: then none of them is
    /// in the way any more, nor is served.
    fn turn_away(&mut self, refusals: Vec<(WaitKey, BudgetError)>) {
        for (key, refusal) in refusals {
            self.note_refusal(&refusal);
            self.unqueue(key);
            self.count_refused(self.queue.get(key).home);
            self.queue.resolve(key, Outcome::Refused(Box::new(refusal)));
        }
    }

    /// Its place is free: calls the candidates behind it, in its own line and where it was parked.
    fn unqueue(&mut self, key: WaitKey) {
        self.unpark(key);
        let home = self.queue.get(key).home;
        self.mark(home);
        let node = &mut self.nodes[home];
        self.queue.unlink(&mut node.line, key);
        if let (None, Some(deadline)) = (node.line.first(), node.deadline) {
            self.queue.due.remove(&Due::Pool(deadline.at, home));
        }
        if let Some(end) = self.queue.get(key).end(key) {
            self.queue.due.remove(&end);
        }
        let (mut way, asked) = (Way::from(home), &self.queue.get(key).asked);
        while let Some((_, node)) = way.up_mut(&mut self.nodes) {
            node.line.leave(key, asked, way.open());
        }
        self.call_head(home);
    }

    fn park(&mut self, key: WaitKey, blocked: NodeId) {
        if self.queue.get(key).blocked.is_some() {
            self.unpark(key);
        }
        self.queue.at_windows += u32::from(self.nodes[blocked].window.is_some());
        let waiter = self.queue.get_mut(key);
        waiter.blocked = Some(blocked);
        let (ticket, home) = (waiter.ticket, waiter.home);
        self.mark(home);
        self.queue.visit_parked(&mut self.nodes, key, |queue, node| {
            queue.change_contested(node, |node| node.line.waiters().parked.insert(ticket, key));
        });
    }

    fn unpark(&mut self, key: WaitKey) {
        let Waiter { ticket, blocked, .. } = *self.queue.get(key);
        let Some(blocked) = blocked else { return };
        self.queue.visit_parked(&mut self.nodes, key, |queue, node| {
            queue.change_contested(node, |node| node.line.waiters().parked.remove(ticket));
            queue.call_parked(&node.line);
        });
        self.queue.get_mut(key).blocked = None;
        self.queue.at_windows -= u32::from(self.nodes[blocked].window.is_some());
        self.queue.expect_room(key, None);
    }

    /// Takes candidates of a pool and of those below out of all places where they are parked. The
    /// caller [parks](Engine::park_all) them again, once it has changed who takes turns there.
    pub(super) fn unpark_below(
        &mut self,
        pool: NodeId,
        are_blocked: impl Fn(NodeId) -> bool,
    ) -> Vec<(WaitKey, NodeId)> {
        let mut candidates = Vec::new();
        for id in self.waiting_below(pool) {
            let head = self.nodes[id].line.first();
            let blocked = head.and_then(|key| Some((key, self.queue.get(key).blocked?)));
            candidates.extend(blocked.filter(|(_, blocked)| are_blocked(*blocked)));
        }
        candidates.iter().for_each(|&(key, _)| self.unpark(key));
        candidates
    }

    /// Parks the candidates that still wait where they were blocked, and calls them.
    pub(super) fn park_all(&mut self, candidates: Vec<(WaitKey, NodeId)>) {
        for (key, blocked) in candidates {
            if self.queue.get(key).is_waiting() {
                self.park(key, blocked);
                self.queue.call(key);
            }
        }
    }

    /// The units that the first candidate lacks of a pool that is blocked there and needs it to be
    /// funded.
    pub(super) fn unfunded_waiter(&self, pool: NodeId) -> Option<Units> {
        let node = &self.nodes[pool];
        let parked = node.line.parked().map(|(_, key)| self.queue.get(key));
        let blocked = parked.filter(|of| of.blocked == Some(pool));
        let mut lacks = blocked.filter_map(|of| Some(node.unfunded(&self.asked_at(pool, of)?)));
        lacks.find(|lack| *lack != Units::default())
    }

    /// Whether a pool has no room for a candidate, is paused, or has an earlier candidate that
    /// waits for the same.
    fn refuses(&self, pool: NodeId, node: &Node, open: AxisSet, waiter: &Waiter) -> bool {
        let is_behind = node.line.has_parked_before(waiter.ticket);
        let must_wait = is_behind && takes_turn(pool, node, open, waiter);
        must_wait || node.lacks(&waiter.asked, open) || self.pauses.until(pool).is_some()
    }
}

impl Node {
    /// Whether all waiters here and below can still be met after a spend.
    #[inline(always)]
    fn leaves_hope(&self, spent: &Quantities) -> bool {
        let Some(demand) = self.line.demand() else { return true };
        let is_met = |axis: usize| {
            let most = demand.most.units()[axis];
            let after = most.checked_add(spent.units()[axis]);
            most == 0 || after.is_some_and(|after| self.ledger.fits_at_best(axis, after))
        };
        all_lanes(|axis| spent.units()[axis] == 0 || is_met(axis))
    }
}

/// Whether a candidate must wait its turn at a pool, and is parked there on its way up: its own
/// pool, a pool with a cap on an axis of its ask, and the pool where it is blocked now.
fn takes_turn(pool: NodeId, node: &Node, open: AxisSet, waiter: &Waiter) -> bool {
    pool == waiter.home || waiter.blocked == Some(pool) || node.caps_any(waiter.asked.units(), open)
}

/// Waiters that have nothing to wait for any more.
impl Engine {
    /// Refuses the waiters that no release can meet now. A pool looks at them only where the most
    /// that is asked of it may be more than it can ever give.
    #[inline(always)]
    fn reject_unsatisfiable(&mut self, at: NodeId) {
        if let Some(deferred) = &mut self.queue.deferred {
            return deferred.push(at);
        }
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes) {
            if self.may_leave_no_hope(id) {
                self.reject_unsatisfiable_from(id);
            }
        }
    }

    /// The holds that are reclaimed for the figures may leave waiters elsewhere no hope.
    #[cold]
    #[inline(never)]
    fn reject_unsatisfiable_from(&mut self, pool: NodeId) {
        for also in self.reclaim_for_figures() {
            self.reject_unsatisfiable(also);
        }
        self.reject_unsatisfiable_at(pool);
    }

    /// Whether the most that is asked of a pool may be more than it can ever give.
    #[inline]
    fn may_leave_no_hope(&self, pool: NodeId) -> bool {
        let node = &self.nodes[pool];
        node.line.demand().is_some_and(|demand| !node.can_ever_fit(&demand.most))
    }

    fn reject_unsatisfiable_at(&mut self, pool: NodeId) {
        let known = self.nodes[pool].line.waiters().demand.each.take();
        let asked = known.unwrap_or_else(|| self.all_asked(pool));
        let (mut most, mut hopeless) = (Quantities::NONE, BTreeSet::new());
        for axis in AxisSet::ALL {
            // A waiter that asks for more has no more hope than one that asks for less.
            let of_axis = (axis, 0, WaitKey::FIRST)..(axis + 1, 0, WaitKey::FIRST);
            for &(_, units, key) in asked.range(of_axis).rev() {
                if self.nodes[pool].has_hope(axis, units) {
                    most.set(axis, units);
                    break;
                }
                hopeless.insert((self.queue.get(key).ticket, key));
            }
        }
        self.nodes[pool].line.waiters().demand = Demand { most, each: Some(asked) };
        let refusal = |(_, key): (Ticket, WaitKey)| {
            let Waiter { home, asked, .. } = self.queue.get(key);
            let lack = self.nodes.lack(*home, asked);
            (
                key,
                lack.expect("what can never fit does not fit now")
                    .refusal(self.labels(), self.reading),
            )
        };
        let refusals = hopeless.into_iter().map(refusal).collect();
        self.turn_away(refusals);
    }

    /// Reclaims every hold that is due, so that a refusal's `available` is exact. While a waiter
    /// stands where a hold may expire, each hold is reclaimed in its turn, and the waiters it
    /// serves come before the next. Returns the ways that have changed by it.
    fn reclaim_for_figures(&mut self) -> Vec<NodeId> {
        let is_due = self.latest.is_some_and(|latest| self.expiry.next_due(latest).is_some());
        if !is_due || self.queue.is_contested() {
            return Vec::new();
        }
        self.queue.deferred = Some(Vec::new());
        while self.reclaim_next() {}
        self.queue.deferred.take().unwrap_or_default()
    }

    /// The asks of a pool by all that wait in it and below it. The cost is that of the waiters
    /// here, and not that of the tree.
    fn all_asked(&self, pool: NodeId) -> BTreeSet<Asked> {
        let mut asked = BTreeSet::new();
        for id in self.waiting_below(pool) {
            for (key, waiter) in self.queue.of_line(&self.nodes[id].line) {
                let mut way = self.nodes.open_way(waiter.home);
                let (.., open) = way.find(|(id, ..)| *id == pool).expect("it is on its way");
                asked.extend(each_asked(key, &waiter.asked, open));
            }
        }
        asked
    }

    /// A pool, and the pools below it that have waiters.
    fn waiting_below(&self, pool: NodeId) -> impl Iterator<Item = NodeId> {
        let (mut pools, mut seen) = (vec![pool], BTreeSet::new());
        std::iter::from_fn(move || {
            let id = pools.pop()?;
            let waits = |child: NodeId| self.nodes[child].line.waiting() > 0;
            // A joint pool is a child of several.
            let is_new =
                |&child: &NodeId| waits(child) && (!self.nodes.has_joints() || seen.insert(child));
            pools.extend(self.nodes.children(id).filter(is_new));
            Some(id)
        })
    }

    /// Refuses the waiters whose deadline has come by the latest instant seen. Those behind them are
    /// served as of the instant that was the latest before.
    pub(super) fn reject_late(&mut self, before: Option<Instant>) {
        if self.queue.late_pools(self.latest).next().is_some() {
            self.reject_all_late(before);
        }
    }

    /// Those whose time is over leave their lines, in the order of time, once all has come that may
    /// serve them by now. They are answered when their owners look.
    #[inline]
    pub(super) fn end_times(&mut self) {
        if self.queue.next_end(self.reading).is_some() {
            self.end_all_times();
        }
    }

    #[cold]
    fn end_all_times(&mut self) {
        self.reclaim_for_waiters();
        while let Some(key) = self.queue.next_end(self.reading) {
            self.unqueue(key);
            self.queue.resolve(key, Outcome::Over);
            self.process_waiters();
        }
    }

    /// Ends the pauses that are over by the latest instant seen, and serves the waiters for which
    /// windows have brought enough, each at its instant.
    pub(super) fn pass_in_time(&mut self, before: Option<Instant>) {
        let is_due =
            |now| self.queue.next_room(now).is_some() || self.pauses.next_over(now).is_some();
        if self.latest.is_some_and(is_due) {
            self.process_waiters_at(before);
        }
    }

    #[cold]
    fn reject_all_late(&mut self, before: Option<Instant>) {
        let pools: Vec<NodeId> = self.queue.late_pools(self.latest).collect();
        self.reject_all(&pools, self.latest);
        self.process_waiters_at(before);
    }

    /// Refuses the waiters in pools that have just been closed, and tells the watches for the
    /// close.
    pub(super) fn reject_closed(&mut self, pools: &[NodeId]) {
        self.reject_all(pools, None);
        for &pool in pools {
            self.queue.wakers.extend(self.watch.take_closings(pool));
            self.mark(pool);
        }
    }

    /// Refuses the waiters of a pool, and of those below, whose deadline comes before the end of a
    /// pause on their way.
    pub(super) fn reject_outlasted(&mut self, pool: NodeId) {
        let waiting = self.waiting_below(pool);
        let pools: Vec<_> = waiting.filter(|&pool| self.is_outlasted(pool)).collect();
        self.reject_all(&pools, self.latest);
    }

    fn reject_all(&mut self, pools: &[NodeId], now: Option<Instant>) {
        let mut refusals = Vec::new();
        for &pool in pools {
            for (key, waiter) in self.queue.of_line(&self.nodes[pool].line) {
                refusals.push((key, self.explain(pool, &waiter.asked, now)));
            }
        }
        self.turn_away(refusals);
    }
}

/// Waiters for which time is enough.
impl Engine {
    /// The instant at which time alone may change the outcome of a waiter: its deadline comes, or
    /// it gives up; and for the first of those that are blocked at a pool, the pause of that pool
    /// ends, enough units have come back there, or a hold expires: during a pause, one whose expiry
    /// may leave it no hope. The others cannot pass it whatever the time.
    #[inline]
    fn next_timeout(&self, key: WaitKey) -> Option<Instant> {
        let waiter = self.queue.get(key);
        let deadline = self.nodes[waiter.home].deadline.map(|deadline| deadline.at);
        let end = earlier(deadline, waiter.until());
        if self.heeds_time() { self.next_timeout_before(end, key) } else { end }
    }

    fn next_timeout_before(&self, end: Option<Instant>, key: WaitKey) -> Option<Instant> {
        let waiter = self.queue.get(key);
        let Some(blocked) = self.first_blocked(key) else { return end };
        if let Some(until) = self.pauses.until(blocked) {
            return earlier(earlier(end, Some(until)), self.next_to_settle(waiter));
        }
        let expires = self.nodes[blocked].expiring > 0;
        let expiry = if expires { self.expiry.next() } else { self.next_to_settle(waiter) };
        earlier(earlier(end, expiry), waiter.room)
    }

    /// Where a candidate is blocked, if it is the first there.
    fn first_blocked(&self, key: WaitKey) -> Option<NodeId> {
        let first = |pool: &NodeId| self.nodes[*pool].line.first_parked() == Some(key);
        self.queue.get(key).blocked.filter(first)
    }

    /// The instant at which the next hold is settled by its expiry, where that may leave a waiter
    /// no hope: the waiters behind it are served then.
    fn next_to_settle(&self, waiter: &Waiter) -> Option<Instant> {
        let at = self.expiry.next_to_settle()?;
        let mut way = self.nodes.open_way(waiter.home);
        let concerns = |(_, node, open): (NodeId, &Node, AxisSet)| {
            node.expiring > 0 && node.caps_any(waiter.asked.units(), open)
        };
        way.any(concerns).then_some(at)
    }

    /// Notes when a window brings enough for a candidate.
    #[inline]
    fn await_room(&mut self, key: WaitKey) {
        if self.nodes.has_windows() {
            self.queue.expect_room(key, self.room_in_time(key));
        }
    }

    /// When a window alone brings enough for the first candidate that is blocked there. During a
    /// pause it is none: then the end of the pause comes first, and calls the candidate.
    fn room_in_time(&self, key: WaitKey) -> Option<Instant> {
        let blocked = self.first_blocked(key)?;
        let node = &self.nodes[blocked];
        if node.window.is_none() || self.pauses.until(blocked).is_some() {
            return None;
        }
        match node.lack(&self.asked_at(blocked, self.queue.get(key))?)?.outlook {
            Outlook::At(at) => Some(at),
            _ => None,
        }
    }

    /// Wakes the owner of a candidate, to look again, if it must do so earlier than it knows.
    #[inline]
    fn remind(&mut self, key: WaitKey) {
        if !self.heeds_time() || self.queue.get(key).waker.is_none() {
            return;
        }
        let timeout = self.next_timeout(key);
        let waiter = self.queue.get_mut(key);
        if timeout.is_some_and(|timeout| waiter.timeout.is_none_or(|known| timeout < known)) {
            let waker = waiter.waker.take();
            self.queue.wakers.extend(waker);
        }
    }

    /// [`remind`](Engine::remind), for the waiters that a hold on this way may block, after it was
    /// given a time.
    pub(super) fn remind_way(&mut self, at: NodeId) {
        let mut way = Way::from(at);
        while let Some(id) = way.up(&self.nodes).filter(|_| self.queue.has_waiting()) {
            if let Some(first) = self.nodes[id].line.first_parked() {
                self.remind(first);
            }
        }
    }
}

/// The earlier of two instants, of which either may never come.
#[inline]
fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(any(test, debug_assertions))]
impl Engine {
    /// Lines are linked both ways; the counts are those of the waiters; candidates are parked from
    /// their pool up to where they are blocked, and are refused there; nobody is left called.
    pub(super) fn check_queue(&self) {
        self.queue.all.check_invariants();
        assert!(self.queue.called.is_empty(), "nobody is left called");
        let is_due = self.latest.is_some_and(|latest| self.expiry.next_due(latest).is_some());
        assert!(!(is_due && self.queue.is_contested()), "nobody waits beside what has expired");
        let has_room = self.latest.is_some_and(|latest| self.queue.next_room(latest).is_some());
        assert!(!has_room, "nobody waits for what time has brought");
        assert!(self.queue.deferred.is_none(), "no way is left to be looked at");
        let rooms = self.queue.rooms.iter().all(|&(at, key)| self.queue.get(key).room == Some(at));
        assert!(rooms, "what is awaited of windows is in the order of time");
        let (mut waiting, mut parked, mut places, mut contested) = (0, 0, 0, 0);
        let (mut at_windows, mut due) = (0, Vec::new());
        for id in self.nodes.ids() {
            let node = &self.nodes[id];
            contested += u32::from(node.is_contested());
            places += node.line.parked().count();
            assert!(node.line.parked().is_sorted(), "the first is the earliest");
            let mut before = None;
            for (key, waiter) in self.queue.of_line(&node.line) {
                waiting += 1;
                due.extend(waiter.end(key));
                assert!(waiter.is_waiting() && waiter.home == id && waiter.before == before);
                let is_head = before.is_none();
                assert_eq!(waiter.blocked.is_some(), is_head, "a candidate is the head of a line");
                before = Some(key);
                parked += self.check_waiter(key, waiter);
                let blocked = waiter.blocked.map(|blocked| &self.nodes[blocked]);
                at_windows += u32::from(blocked.is_some_and(|node| node.window.is_some()));
            }
            assert_eq!(node.line.0.as_ref().and_then(|waiters| waiters.last), before);
            if let (Some(deadline), Some(_)) = (node.deadline, node.line.first()) {
                due.push(Due::Pool(deadline.at, id));
            }
        }
        due.sort();
        assert!(due.iter().eq(&self.queue.due), "each end of a wait will come");
        assert_eq!((waiting, parked), (self.queue.waiting, places), "every place has its waiter");
        assert_eq!((contested, at_windows), (self.queue.contested, self.queue.at_windows));
    }

    /// Returns at how many pools a waiter is parked.
    fn check_waiter(&self, key: WaitKey, waiter: &Waiter) -> usize {
        let mut parked = 0;
        let mut is_below = true;
        let room = self.room_in_time(key);
        assert!(
            room.is_none() || (waiter.room.is_some() && waiter.room <= room),
            "no turn is missed"
        );
        assert!(waiter.room.is_none_or(|at| self.queue.rooms.contains(&(at, key))));
        let asking = self.nodes.asking(waiter.home, waiter.asked.units());
        for ((id, node, open), (.., asked)) in self.nodes.open_way(waiter.home).zip(asking) {
            let demand = node.line.demand().expect("somebody waits");
            assert!(demand.most.units().iter().zip(&asked).all(|(most, asked)| asked <= most));
            let known = demand.each.as_ref();
            let mut each = each_asked(key, &waiter.asked, open);
            assert!(known.is_none_or(|known| each.all(|asked| known.contains(&asked))));
            let is_parked = node.line.parked().any(|parked| parked == (waiter.ticket, key));
            let takes_turn = takes_turn(id, node, open, waiter);
            assert_eq!(is_parked, waiter.blocked.is_some() && is_below && takes_turn);
            parked += usize::from(is_parked);
            if waiter.blocked == Some(id) {
                assert!(self.refuses(id, node, open, waiter), "a candidate is refused where it is");
                is_below = false;
            }
        }
        parked
    }

    /// The count of a line is the number of waiters below its pool.
    pub(super) fn count_waiting_below(&self) {
        let mut counted = BTreeMap::new();
        for id in self.nodes.ids() {
            let own = self.queue.of_line(&self.nodes[id].line).count() as u64;
            for (above, _) in self.nodes.way(id) {
                *counted.entry(above).or_insert(0) += own;
            }
        }
        for (id, waiting) in counted {
            assert_eq!(self.nodes[id].line.waiting(), waiting, "waiters are counted on their way");
        }
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// In a long line each of them is a miss.
    #[test]
    fn a_waiter_is_three_cache_lines_and_whoever_leaves_touches_the_first() {
        assert_eq!((size_of::<Waiter>(), align_of::<Waiter>()), (3 * 64, 64));
        assert_eq!(offset_of!(Waiter, asked), 64);
    }
}
