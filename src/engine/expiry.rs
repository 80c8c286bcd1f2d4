//! The work of time: holds expire, windows bring back. The instant is passed in.
//!
//! Nothing happens by itself. A call that knows the time first *advances* its way up to it, and
//! what was due there is then done as if it had been done in its time: a hold that settles when it
//! expires settles into the period in which it expired. A window that nobody waits for turns at the
//! next call that passes it. A window that brings enough for a candidate turns at the next call on
//! any pool that is told the time, before a later candidate elsewhere can take what both ask above.
//!
//! Expired holds of the whole tree are reclaimed in the order of time, and in small batches, so
//! that few calls pay for many. A call reclaims more where somebody could tell the difference:
//!
//! - as many as it needs to be admitted;
//! - the hold that it is made on, which may go before others that are due;
//! - all holds that are due in the tree while any pool is
//!   [contested](super::nodes::Node::is_contested), as one of them may serve a waiter;
//! - up to the last hold that *settles*, where there are windows or waiters: its bookings must be
//!   in order with theirs;
//! - all, before a period ends in a pool that has some, and for a call that looks at everything.
//!
//! A hold that is *released* commutes with a window: its units pay the overage, or are free, in
//! either order. Only the peak of a new period, and a refusal that it brings, would show that the
//! hold was still there.

use std::time::{Duration, Instant};

use super::Engine;
use super::hold::{Hold, HoldKey, Serial};
use super::nodes::{NodeId, Way};
use crate::types::axis::{Quantities, Units};
use crate::types::error::BudgetError;

/// The live holds that may expire.
#[derive(Debug, Default)]
pub(super) struct Expiry {
    /// In a box, as in many trees nothing expires.
    order: Option<Box<Order>>,
    /// How many there are.
    len: u32,
}

/// In the order of time.
#[derive(Debug, Default)]
struct Order {
    /// The holds that are released then.
    releasing: Heap,
    /// The holds that are settled then.
    committing: Heap,
    places: Places,
}

impl Expiry {
    /// Whether there is a live hold that may expire: every call must know the time then (P8).
    #[inline]
    pub(super) fn may_expire(&self) -> bool {
        self.len > 0
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// When the next hold expires.
    pub(super) fn next(&self) -> Option<Instant> {
        self.first().map(|expiry| expiry.at)
    }

    /// When the next hold expires that is settled then.
    pub(super) fn next_to_settle(&self) -> Option<Instant> {
        self.order.as_ref()?.committing.first().map(|expiry| expiry.at)
    }

    /// The next hold to reclaim, if its time has come.
    #[inline]
    pub(super) fn next_due(&self, now: Instant) -> Option<HoldKey> {
        self.first().filter(|expiry| expiry.at <= now).map(|expiry| expiry.key)
    }

    #[inline]
    fn first(&self) -> Option<&Entry> {
        let order = self.order.as_ref()?;
        match (order.releasing.first(), order.committing.first()) {
            (Some(releasing), Some(committing)) => Some(releasing.min(committing)),
            (releasing, committing) => releasing.or(committing),
        }
    }

    #[inline]
    fn insert(&mut self, hold: &Hold, key: HoldKey, at: Instant) {
        let Order { releasing, committing, places } = &mut **self.order.get_or_insert_default();
        let heap = if hold.commits_on_drop() { committing } else { releasing };
        heap.insert(places, Entry { at, serial: hold.serial(), key });
        self.len += 1;
    }

    #[inline]
    fn remove(&mut self, hold: &Hold, key: HoldKey) {
        let order = self.order.as_mut().expect("a hold with an expiry is in the order of time");
        let Order { releasing, committing, places } = &mut **order;
        let heap = if hold.commits_on_drop() { committing } else { releasing };
        heap.remove(places, key);
        self.len -= 1;
    }

    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self, holds: &super::hold::Holds) {
        let Some(order) = &self.order else { return assert_eq!(self.len, 0) };
        for (heap, commits) in [(&order.releasing, false), (&order.committing, true)] {
            for (place, entry) in heap.0.iter().enumerate() {
                let hold = holds.get(entry.key);
                assert!(hold.is_live() && hold.commits_on_drop() == commits);
                assert_eq!(hold.expiry(), Some(entry.at));
                assert_eq!(order.places.of(entry.key), place);
                assert!(place == 0 || heap.0[above(place)] < *entry, "the earlier is above");
            }
        }
        assert_eq!(self.len as usize, order.releasing.0.len() + order.committing.0.len());
    }
}

/// When which hold expires. Of those that do so at one instant the older one is first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    at: Instant,
    serial: Serial,
    key: HoldKey,
}

/// Where each hold stands in its heap, by its slot. A list of its own, as to move an entry must not
/// touch the hold, which is likely not in the cache.
#[derive(Debug, Default)]
struct Places(Vec<u32>);

impl Places {
    #[cold]
    fn grow(&mut self, slots: usize) {
        self.0.resize(slots, 0);
    }

    fn of(&self, key: HoldKey) -> usize {
        self.0[key.slot()] as usize
    }

    fn set(&mut self, key: HoldKey, place: usize) {
        let slot = key.slot();
        if slot >= self.0.len() {
            self.grow(slot + 1);
        }
        self.0[slot] = u32::try_from(place).expect("2^32 holds never live at once");
    }
}

/// A heap, four wide, in which the place of each hold is known. A hold with the TTL that most have
/// is added at the end and taken from there without moving another, and nothing is allocated in the
/// steady state.
#[derive(Debug, Default)]
struct Heap(Vec<Entry>);

const WIDTH: usize = 4;

fn above(place: usize) -> usize {
    (place - 1) / WIDTH
}

impl Heap {
    #[inline]
    fn first(&self) -> Option<&Entry> {
        self.0.first()
    }

    #[inline]
    fn insert(&mut self, places: &mut Places, entry: Entry) {
        let place = self.0.len();
        self.0.push(entry);
        places.set(entry.key, place);
        if self.must_rise(place) {
            self.rise(places, place);
        }
    }

    #[inline]
    fn remove(&mut self, places: &mut Places, key: HoldKey) {
        let place = places.of(key);
        self.0.swap_remove(place);
        if place < self.0.len() {
            self.place_anew(places, place);
        }
    }

    /// Moves an entry to where it belongs, up or down.
    #[inline(never)]
    fn place_anew(&mut self, places: &mut Places, place: usize) {
        let place = self.rise(places, place);
        self.sink(places, place);
    }

    /// Whether an entry is below a later one.
    #[inline]
    fn must_rise(&self, place: usize) -> bool {
        place > 0 && self.0[place] < self.0[above(place)]
    }

    /// Moves an entry up to where none above it is later. Returns its place.
    #[inline(never)]
    fn rise(&mut self, places: &mut Places, mut place: usize) -> usize {
        let moved = self.0[place];
        while self.must_rise(place) {
            self.put(places, place, self.0[above(place)]);
            place = above(place);
            self.0[place] = moved;
        }
        places.set(moved.key, place);
        place
    }

    /// Moves an entry down to where none below it is earlier.
    fn sink(&mut self, places: &mut Places, mut place: usize) {
        let moved = self.0[place];
        while let Some(child) = self.first_below(place).filter(|&child| self.0[child] < moved) {
            self.put(places, place, self.0[child]);
            place = child;
        }
        self.put(places, place, moved);
    }

    fn first_below(&self, place: usize) -> Option<usize> {
        let first = WIDTH * place + 1;
        (first..(first + WIDTH).min(self.0.len())).min_by_key(|&child| self.0[child])
    }

    fn put(&mut self, places: &mut Places, place: usize, entry: Entry) {
        self.0[place] = entry;
        places.set(entry.key, place);
    }
}

/// At least this number of holds is reclaimed at a call: more than one, as each call may bring one.
const BATCH: u32 = 2;

/// The work of time.
impl Engine {
    /// Whether time plays a part in the tree whatever the way of a call: a hold may expire, a pool
    /// is paused, or a waiter is blocked at a window.
    #[inline]
    pub(crate) fn heeds_time(&self) -> bool {
        self.expiry.may_expire() | !self.pauses.is_empty() | self.queue.heeds_windows()
    }

    /// Brings a way up to the present, for a call that asks for `asked` there. Returns the instant
    /// to go by: time never runs back (P8).
    #[inline]
    pub(super) fn advance(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Option<Instant> {
        now.map(|now| self.advance_to(at, asked, now))
    }

    #[inline(never)]
    pub(super) fn advance_to(&mut self, at: NodeId, asked: &Units, now: Instant) -> Instant {
        let now = self.see(now);
        if self.expiry.next_due(now).is_some() {
            self.reclaim(at, now, |engine| {
                engine.queue.is_contested() || !engine.nodes.fits(at, asked)
            });
        } else {
            self.refill_way(at, now);
        }
        now
    }

    /// [`advance`](Engine::advance), for a call that looks at everything.
    pub(super) fn advance_all(&mut self, at: NodeId, now: Option<Instant>) {
        if let Some(now) = now {
            let now = self.see(now);
            self.reclaim(at, now, |_| true);
        }
    }

    /// [`advance`](Engine::advance), for a call on a hold that asks for `asked`: the hold itself is
    /// brought up to the present, too.
    #[inline]
    pub(super) fn advance_hold(
        &mut self,
        key: HoldKey,
        now: Option<Instant>,
        asked: impl FnOnce(&Hold) -> Quantities,
    ) {
        let Some(now) = now else { return };
        let present = self.see(now);
        if self.expiry.next_due(present).is_some() || self.nodes.has_windows() {
            let asked = asked(self.holds.get(key));
            self.bring_up_hold(key, &asked, now, present);
        }
    }

    #[inline(never)]
    fn bring_up_hold(&mut self, key: HoldKey, asked: &Quantities, now: Instant, present: Instant) {
        let hold = self.holds.get(key);
        let node = hold.node();
        self.advance_to(node, hold.uncovered(asked).units(), now);
        while self.holds.get(key).expiry().is_some_and(|expiry| expiry <= present) {
            self.reclaim_and_serve(key);
        }
        let hold = self.holds.get(key);
        if !hold.is_live() {
            // What it would have covered is asked of the pool now.
            self.advance_to(node, hold.uncovered(asked).units(), now);
        }
    }

    /// [`advance_hold`](Engine::advance_hold), for a call that only a live hold may make.
    pub(super) fn live_hold(
        &mut self,
        key: HoldKey,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.advance_hold(key, now, |_| *asked);
        let hold = self.holds.get(key);
        let expired = || BudgetError::Expired { pool: self.nodes[hold.node()].name.clone() };
        if hold.is_live() { Ok(()) } else { Err(expired()) }
    }

    /// Takes a reading of the clock. The waiters whose deadline has come are told first; then pauses
    /// end and windows turn that somebody waits for, in the order of time; then those leave whose
    /// time is over.
    #[inline]
    fn see(&mut self, reading: Instant) -> Instant {
        let before = self.latest;
        let now = self.note(reading);
        if self.queue.has_waiting() {
            self.reject_late(before);
        }
        if !self.pauses.is_empty() | self.queue.heeds_windows() {
            self.pass_in_time(before);
        }
        self.end_times();
        now
    }

    /// Takes a reading of the clock. Returns the instant to go by.
    #[inline]
    fn note(&mut self, reading: Instant) -> Instant {
        let now = self.latest.map_or(reading, |latest| latest.max(reading));
        (self.latest, self.reading) = (Some(now), Some(reading));
        now
    }

    /// [`advance`](Engine::advance), while the tree [is quiet](Engine::is_quiet): only windows turn.
    #[inline(always)]
    pub(crate) fn pass_quietly(&mut self, at: NodeId, reading: Instant) -> Instant {
        let now = self.note(reading);
        if self.nodes.has_windows() {
            self.nodes.change_way(at, |node| _ = node.refill(now));
        }
        now
    }

    /// Reclaims the expired holds that a waiter is to see expire.
    pub(super) fn reclaim_for_waiters(&mut self) {
        if let Some(now) = self.latest {
            self.reclaim_while(now, |engine| engine.must_reclaim(now));
        }
    }

    /// Reclaims expired holds: the due ones, a batch, and on while `more` says so.
    #[cold]
    #[inline(never)]
    fn reclaim(&mut self, at: NodeId, now: Instant, more: impl Fn(&Engine) -> bool) {
        let left = self.expiry.len().saturating_sub(BATCH);
        self.reclaim_while(now, |engine| engine.expiry.len() > left || engine.must_reclaim(now));
        self.refill_way(at, now);
        self.reclaim_while(now, more);
    }

    /// Whether waiters or windows are to see the holds expire before what comes next.
    pub(super) fn must_reclaim(&self, now: Instant) -> bool {
        let someone_looks = || self.queue.has_waiting() || self.nodes.has_windows();
        let settles = self.expiry.next_to_settle().is_some_and(|at| at <= now);
        self.queue.is_contested() || (settles && someone_looks())
    }

    fn reclaim_while(&mut self, now: Instant, more: impl Fn(&Engine) -> bool) {
        while let Some(key) = self.expiry.next_due(now).filter(|_| more(self)) {
            self.reclaim_and_serve(key);
        }
    }

    /// Takes a step towards the reclaiming of an expired hold, and serves the waiters for it.
    fn reclaim_and_serve(&mut self, key: HoldKey) {
        let expiry = self.holds.get(key).expiry();
        self.reclaim_step(key);
        self.process_waiters_at(expiry);
    }

    /// Takes a step towards the reclaiming of an expired hold, as at its instant: first the windows
    /// on its way are brought up, then it expires. The caller serves the waiters after each step.
    pub(super) fn reclaim_step(&mut self, key: HoldKey) {
        let hold = self.holds.get(key);
        let (node, expiry) = (hold.node(), hold.expiry().expect("it is due"));
        if !self.turn_way(node, expiry) {
            self.unschedule(key);
            self.expire(key);
        }
    }

    /// Brings the windows on the way up to an instant, and serves the waiters for that.
    fn refill_way(&mut self, at: NodeId, now: Instant) {
        if !self.nodes.has_windows() {
            return;
        }
        self.reclaim_before_turns(now, |engine| engine.ends_period_of_holds(at, now));
        // A turn may leave the last waiter no hope: what that has called must be served, too.
        let has_waiting = self.queue.has_waiting();
        if self.turn_way(at, now) && has_waiting {
            self.process_waiters();
        }
    }

    /// Brings the windows on the way up to an instant. Returns whether anything came free; the
    /// caller then serves the waiters.
    pub(super) fn turn_way(&mut self, at: NodeId, now: Instant) -> bool {
        let mut freed = false;
        if self.nodes.has_windows() {
            self.nodes.change_way(at, |node| freed |= node.refill(now));
        }
        if freed {
            self.call_changed(at);
        }
        freed
    }

    /// [`refill_way`](Engine::refill_way), for a call that reads no clock: it happens at the latest
    /// instant seen.
    pub(super) fn refill_to_latest(&mut self, at: NodeId) {
        if let Some(now) = self.latest {
            self.refill_way(at, now);
        }
    }

    /// Before a period ends in a pool, the holds that expired in it are reclaimed. The pools are
    /// not asked while no hold may expire.
    pub(super) fn reclaim_before_turns(
        &mut self,
        now: Instant,
        ends: impl FnOnce(&Engine) -> bool,
    ) {
        if self.expiry.may_expire() && ends(self) {
            self.reclaim_while(now, |_| true);
        }
    }

    /// Whether a period ends on a way by an instant in which holds may have expired.
    pub(super) fn ends_period_of_holds(&self, at: NodeId, now: Instant) -> bool {
        self.expiry.may_expire()
            && self.nodes.way(at).any(|(_, node)| node.ends_period_of_holds(now))
    }
}

/// Holds and their times.
impl Engine {
    /// From now on so long; `None` for longer than an instant can say.
    #[inline]
    pub(super) fn schedule_after(&mut self, key: HoldKey, ttl: Duration) {
        let now = self.latest.expect("a call that gives a TTL tells the time");
        self.schedule(key, now.checked_add(ttl));
        if self.queue.has_waiting() {
            // After a TTL of zero the hold has expired already, and may serve a waiter.
            self.process_waiters();
        }
    }

    /// When a hold expires or its pool's deadline comes; and the latest instant seen, which is when
    /// one that has expired ends.
    pub(crate) fn end_of(&self, key: HoldKey) -> (Option<Instant>, Option<Instant>) {
        let hold = self.holds.get(key);
        let expiry = if hold.is_live() { hold.expiry() } else { self.latest };
        let deadline = self.nodes[hold.node()].deadline.map(|deadline| deadline.at);
        (expiry.into_iter().chain(deadline).min(), self.latest)
    }

    pub(crate) fn renew(
        &mut self,
        key: HoldKey,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, &Quantities::NONE, Some(now))?;
        self.unschedule(key);
        self.schedule_after(key, ttl);
        Ok(())
    }

    pub(super) fn schedule(&mut self, key: HoldKey, expiry: Option<Instant>) {
        let Some(at) = expiry else { return };
        let hold = self.holds.get_mut(key);
        hold.set_expiry(expiry);
        let home = hold.node();
        self.expiry.insert(hold, key, at);
        let mut way = Way::from(home);
        while let Some((_, node)) = way.up_mut(&mut self.nodes) {
            self.queue.change_contested(node, |node| node.expiring += 1);
        }
        if self.queue.has_waiting() && self.latest < Some(at) {
            self.remind_way(home);
        }
    }

    /// The hold will not expire any more. Returns when it would have.
    #[inline]
    pub(crate) fn unschedule(&mut self, key: HoldKey) -> Option<Instant> {
        if self.expiry.may_expire() { self.take_from_order(key) } else { None }
    }

    fn take_from_order(&mut self, key: HoldKey) -> Option<Instant> {
        let hold = self.holds.get_mut(key);
        let at = hold.take_expiry()?;
        self.expiry.remove(hold, key);
        let mut way = Way::from(hold.node());
        while let Some((_, node)) = way.up_mut(&mut self.nodes) {
            self.queue.change_contested(node, |node| node.expiring -= 1);
        }
        Some(at)
    }
}

#[cfg(test)]
#[path = "../tests/units/expiry.rs"]
mod tests;
