//! What is due at a given instant: holds that expire, windows that turn. Pure: time is passed in.
//!
//! Nothing happens by itself. Whoever knows the time *touches* a path first, and what was due there
//! is then done as if it had been done in its time: a hold that settles when it expires settles
//! into the period in which it expired. A window that no call has touched turns at its next touch.
//!
//! Expired holds, of the whole tree, are reclaimed in small batches, so that few calls pay for
//! many; but not fewer than the call needs to be met, and all if somebody waits, if a window must
//! not turn before, or if whoever calls wants to see the whole.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::engine::hold::HoldKey;
use crate::engine::nodes::{NodeId, Tree};
use crate::types::axis::{Quantities, Units};
use crate::types::error::BudgetError;

#[derive(Debug, Default)]
pub(crate) struct Schedule {
    /// The live holds that may expire; of those that do so at one instant the older ones first.
    expiries: BTreeSet<(Instant, HoldKey)>,
    /// How many pools have a window.
    pub(crate) windows: usize,
}

impl Schedule {
    /// Whether nothing but a deadline can ever be due.
    pub(crate) fn is_idle(&self) -> bool {
        self.windows == 0 && self.expiries.is_empty()
    }

    /// When the next hold expires.
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// The next hold to reclaim, if its time has come.
    fn next_due(&self, now: Instant) -> Option<HoldKey> {
        self.expiries.first().filter(|(at, _)| *at <= now).map(|(_, key)| *key)
    }
}

/// At least so many are reclaimed at a touch: more than one, as each call may bring one.
const BATCH: usize = 2;

/// What time does.
impl Tree {
    /// Whether there is a live hold that may expire: every call must know the time then (P8).
    #[inline]
    pub(crate) fn may_expire(&self) -> bool {
        !self.schedule.expiries.is_empty()
    }

    /// Brings a path up to the present, for a call that asks for so much there. Returns the instant
    /// to go by: time never runs back (P8).
    #[inline]
    pub(crate) fn touch(
        &mut self,
        at: NodeId,
        asked: &Units,
        now: Option<Instant>,
    ) -> Option<Instant> {
        now.map(|now| self.touch_at(at, asked, now))
    }

    #[inline(never)]
    fn touch_at(&mut self, at: NodeId, asked: &Units, now: Instant) -> Instant {
        let now = self.not_before(now);
        self.bring_up(at, now, |tree| tree.waits.waiting == 0 && tree.fits(at, asked));
        now
    }

    /// The same, for a call that wants to see all.
    pub(crate) fn touch_all(&mut self, at: NodeId, now: Option<Instant>) {
        if let Some(now) = now {
            let now = self.not_before(now);
            self.bring_up(at, now, |_| false);
        }
    }

    /// The same, for a call on a hold, to settle or hold so much: it is brought up, too.
    #[inline]
    pub(crate) fn touch_hold(&mut self, key: HoldKey, asked: &Quantities, now: Option<Instant>) {
        if let Some(now) = now {
            self.touch_hold_at(key, asked, now);
        }
    }

    #[inline(never)]
    fn touch_hold_at(&mut self, key: HoldKey, asked: &Quantities, now: Instant) {
        let hold = self.hold(key);
        let node = hold.node;
        let now = self.touch_at(node, hold.uncovered(asked).units(), now);
        if self.hold(key).expiry.is_some_and(|expiry| expiry <= now) {
            self.expire_due(key);
        }
        if !self.hold(key).is_live() {
            // What it would have covered is asked of the pool now.
            self.touch_at(node, self.hold(key).uncovered(asked).units(), now);
        }
    }

    /// The same, for a call that only a live hold may make.
    pub(crate) fn live_hold(
        &mut self,
        key: HoldKey,
        asked: &Quantities,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.touch_hold(key, asked, now);
        let hold = self.hold(key);
        if hold.is_live() {
            Ok(())
        } else {
            Err(BudgetError::Expired { scope: self.nodes[hold.node].name.clone() })
        }
    }

    /// Whoever waits for a deadline that has come is told first.
    fn not_before(&mut self, now: Instant) -> Instant {
        let now = self.latest.map_or(now, |latest| latest.max(now));
        self.latest = Some(now);
        self.tell_late();
        now
    }

    #[inline(never)]
    fn bring_up(&mut self, at: NodeId, now: Instant, is_enough: impl Fn(&Tree) -> bool) {
        let mut batch = BATCH;
        // What belongs to a period must be done before its window turns.
        while let Some(key) =
            self.schedule.next_due(now).filter(|_| batch > 0 || self.schedule.windows > 0)
        {
            self.expire_due(key);
            batch = batch.saturating_sub(1);
        }
        self.turn_path(at, now);
        while let Some(key) = self.schedule.next_due(now).filter(|_| !is_enough(self)) {
            self.expire_due(key);
        }
    }

    fn expire_due(&mut self, key: HoldKey) {
        let expiry = self.unschedule(key).expect("it is due");
        self.turn_path(self.hold(key).node, expiry);
        self.expire(key);
    }

    /// Turns the windows on the way up that are due, and serves those who wait for that.
    fn turn_path(&mut self, at: NodeId, now: Instant) {
        if self.schedule.windows == 0 {
            return;
        }
        let mut freed = false;
        self.visit_path(at, |node| freed |= node.turn(now));
        if freed {
            self.stir(at);
        }
    }

    /// The same, for one that reads no clock: it happens at the latest instant seen.
    pub(crate) fn turn_to_latest(&mut self, at: NodeId) {
        if let Some(now) = self.latest {
            self.turn_path(at, now);
        }
    }

    /// Whether any of the pools below has a window.
    pub(crate) fn has_windows_below(&self, at: NodeId) -> bool {
        let mut below = std::iter::successors(self.next_below(at, 0), |&(id, depth)| {
            self.next_below(id, depth)
        });
        self.schedule.windows > 0 && below.any(|(id, _)| self.nodes[id].window.is_some())
    }

    /// Turns the windows of all the pools below, for one that looks at them all, and serves those
    /// who wait for that: by ticket, once all have turned.
    pub(crate) fn turn_below(&mut self, at: NodeId) {
        let Some(now) = self.latest.filter(|_| self.schedule.windows > 0) else { return };
        let mut below = self.next_below(at, 0);
        while let Some((id, depth)) = below {
            if self.nodes[id].turn(now) {
                self.call_parked(id);
            }
            below = self.next_below(id, depth);
        }
        self.serve();
    }
}

/// Holds and their times.
impl Tree {
    /// From now on so long; `None` for longer than an instant can say.
    pub(crate) fn expire_after(&mut self, key: HoldKey, ttl: Duration) {
        let now = self.latest.expect("whoever gives it a time has told the time");
        self.unschedule(key);
        self.schedule(key, now.checked_add(ttl));
    }

    /// When a hold expires or its pool's deadline comes; and the latest instant seen, which is when
    /// one that has expired ends.
    pub(crate) fn end_of(&self, key: HoldKey) -> (Option<Instant>, Option<Instant>) {
        let hold = self.hold(key);
        let expiry = if hold.is_live() { hold.expiry } else { self.latest };
        let deadline = self.nodes[hold.node].deadline.map(|deadline| deadline.at);
        (expiry.into_iter().chain(deadline).min(), self.latest)
    }

    pub(crate) fn renew(
        &mut self,
        key: HoldKey,
        ttl: Duration,
        now: Instant,
    ) -> Result<(), BudgetError> {
        self.live_hold(key, &Quantities::NONE, Some(now))?;
        self.expire_after(key, ttl);
        Ok(())
    }

    pub(crate) fn schedule(&mut self, key: HoldKey, expiry: Option<Instant>) {
        let Some(at) = expiry else { return };
        let hold = self.hold_mut(key);
        hold.expiry = expiry;
        let node = hold.node;
        self.schedule.expiries.insert((at, key));
        self.remind_path(node);
    }

    /// It will not expire any more. Returns when it would have.
    pub(crate) fn unschedule(&mut self, key: HoldKey) -> Option<Instant> {
        let at = self.hold_mut(key).expiry.take()?;
        self.schedule.expiries.remove(&(at, key));
        Some(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::nodes::Spec;
    use crate::types::axis::Axis;
    use crate::types::name::Name;
    use crate::{Amount, Caps};

    const TTL: Duration = Duration::from_secs(1);

    /// A thousand forgotten holds of one token each, all that there are, and the instant at which
    /// they expire.
    fn forgotten() -> (Tree, NodeId, Instant) {
        let (mut tree, now) = (Tree::default(), Instant::now());
        let caps = Caps::new().tokens(1_000);
        let at = tree.add_root(Spec {
            name: Name::DEFAULT,
            caps,
            deadline: None,
            window: None,
            memory: None,
        });
        for _ in 0..1_000 {
            tree.reserve_for(at, Amount::new().tokens(1).quantities(), TTL, now).unwrap();
        }
        (tree, at, now + TTL)
    }

    fn record(tree: &mut Tree, at: NodeId, tokens: u64, now: Instant) -> bool {
        tree.record(at, &Quantities::NONE.with(Axis::Tokens, tokens), Some(now)).is_ok()
    }

    fn left(tree: &Tree) -> usize {
        tree.schedule.expiries.len()
    }

    #[test]
    fn p4_as_many_are_reclaimed_as_a_call_needs_and_a_few_by_each() {
        let (mut tree, at, expiry) = forgotten();
        assert!(!record(&mut tree, at, 1, expiry - Duration::from_nanos(1)));
        assert_eq!(left(&tree), 1_000);
        assert!(record(&mut tree, at, 1, expiry));
        assert_eq!(left(&tree), 1_000 - BATCH);
        assert!(record(&mut tree, at, 0, expiry));
        assert_eq!(left(&tree), 1_000 - 2 * BATCH);
        assert!(record(&mut tree, at, 500, expiry));
        assert_eq!(left(&tree), 1_000 - 501);
        assert!(!record(&mut tree, at, 1_000, expiry), "only after all were reclaimed");
        assert_eq!((left(&tree), tree.may_expire()), (0, false));
    }

    #[test]
    fn all_are_reclaimed_for_whoever_looks_and_as_many_as_whoever_waits_needs() {
        let (mut tree, at, expiry) = forgotten();
        tree.snapshot(at, Some(expiry));
        assert_eq!(left(&tree), 0);
        let (mut tree, at, expiry) = forgotten();
        assert!(
            tree.wait(at, Amount::new().tokens(500).quantities(), Some(expiry - TTL))
                .unwrap()
                .is_err()
        );
        assert!(record(&mut tree, at, 0, expiry));
        assert_eq!((left(&tree), tree.waits.waiting), (500, 0));
    }

    #[test]
    fn the_hold_at_hand_is_brought_up_though_others_are_due_before() {
        let (mut tree, at, expiry) = forgotten();
        let key = tree.reserve_for(at, &Quantities::NONE, TTL, expiry - TTL).unwrap();
        assert!(tree.hold(key).is_live());
        tree.touch_hold(key, &Quantities::NONE, Some(expiry));
        assert!(!tree.hold(key).is_live());
        assert!(left(&tree) > 900, "no more than it takes");
    }

    #[test]
    fn what_ends_before_its_time_is_not_due_any_more() {
        let (mut tree, at, expiry) = forgotten();
        tree.snapshot(at, Some(expiry));
        let held = Quantities::NONE.with(Axis::Tokens, 1);
        let keys = [(); 3].map(|()| tree.reserve_for(at, &held, TTL, expiry).unwrap());
        keys.into_iter().for_each(|key| tree.commit_on_drop(key, Some(expiry)));
        assert_eq!(left(&tree), 3);
        tree.release(keys[0], Some(expiry));
        tree.renew(keys[1], Duration::MAX, expiry).unwrap();
        assert_eq!(left(&tree), 1);
        tree.snapshot(at, Some(expiry + TTL));
        assert_eq!(left(&tree), 0);
    }
}
