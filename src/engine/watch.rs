//! Futures that are told when the state of a pool meets a condition.
//!
//! A watch is told once, by the transition that meets its condition. [`Engine::close`] alone meets
//! a close, and looks for its watches, so that to wait for a close costs the other calls nothing.
//! The other conditions are about balances. At its end, each transition [looks](Engine::look) at
//! the watches of the pools whose balances may have changed: those on its own way, and those on the
//! ways that were [marked](Engine::mark) where a part of the engine changed a balance of others
//! than the caller.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::task::{Poll, Waker};
use std::time::Instant;

use super::Engine;
use super::nodes::{Node, NodeId, Way};
use super::queue::Ticket;
use crate::types::amount::Amount;
use crate::types::axis::{AxisSet, NOTHING, Quantities, Units, each_lane};
use crate::types::error::Outlook;
use crate::types::level::Level;
use crate::types::snapshot::Snapshot;
use crate::types::want::Want;

/// The id of a watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatchKey(Ticket);

/// The condition of a watch.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Condition {
    /// The pool is closed.
    Closed,
    /// Its balances are at a level.
    Reached(Level),
    /// It is short of budget.
    Wanting,
}

/// The answer to a watch.
#[derive(Debug)]
pub(crate) enum Met {
    Closed,
    Reached(Box<Snapshot>),
    Wanting(Want),
}

/// In a box, as few trees are watched. It is there as long as anybody watches.
#[derive(Debug, Default)]
pub(super) struct Watch(Option<Box<Watches>>);

#[derive(Debug, Default)]
struct Watches {
    /// The watches for a close. By pool, so that a close looks at its own alone.
    closings: BTreeMap<(NodeId, WatchKey), Option<Waker>>,
    /// The watches for balances.
    looking: BTreeMap<(NodeId, WatchKey), Looking>,
    /// The answer to each watch that was met, until its owner collects it.
    met: BTreeMap<WatchKey, Met>,
    /// From where on the ways up are to be looked at. Empty between transitions.
    marked: Vec<NodeId>,
    /// The units that calls lacked that were refused by this transition. Empty between transitions.
    lacks: Vec<(NodeId, Units)>,
}

#[derive(Debug)]
struct Looking {
    condition: Condition,
    waker: Option<Waker>,
}

/// The watches of one pool.
fn of_pool(pool: NodeId) -> RangeInclusive<(NodeId, WatchKey)> {
    (pool, WatchKey(Ticket::FIRST))..=(pool, WatchKey(Ticket::LAST))
}

impl Watches {
    fn is_empty(&self) -> bool {
        self.closings.is_empty() && self.looking.is_empty() && self.met.is_empty()
    }

    fn keep(
        &mut self,
        pool: NodeId,
        key: WatchKey,
        condition: &Condition,
        waker: Waker,
    ) -> Option<Waker> {
        match condition {
            Condition::Closed => self.closings.entry((pool, key)).or_default().replace(waker),
            _ => {
                let looking = Looking { condition: *condition, waker: Some(waker) };
                self.looking.insert((pool, key), looking).and_then(|before| before.waker)
            }
        }
    }

    /// Returns the waker to be dropped outside the lock.
    fn remove(&mut self, pool: NodeId, key: WatchKey) -> Option<Waker> {
        self.met.remove(&key);
        let looking = self.looking.remove(&(pool, key)).and_then(|looking| looking.waker);
        looking.or_else(|| self.closings.remove(&(pool, key)).flatten())
    }
}

impl Watch {
    /// Whether anybody waits for balances.
    #[inline]
    pub(super) fn is_looking(&self) -> bool {
        self.0.as_ref().is_some_and(|watches| !watches.looking.is_empty())
    }

    /// Takes the wakers of the watches for the close of a pool.
    pub(super) fn take_closings(&mut self, pool: NodeId) -> impl Iterator<Item = Waker> {
        let closings = self.0.iter_mut().flat_map(move |all| all.closings.range_mut(of_pool(pool)));
        closings.filter_map(|(_, waker)| waker.take())
    }

    fn remove(&mut self, pool: NodeId, key: WatchKey) -> Option<Waker> {
        let watches = self.0.as_mut()?;
        let waker = watches.remove(pool, key);
        if watches.is_empty() {
            self.0 = None;
        }
        waker
    }

    fn take_met(&mut self, pool: NodeId, key: WatchKey) -> Option<Met> {
        let met = self.0.as_mut()?.met.remove(&key)?;
        self.remove(pool, key);
        Some(met)
    }

    fn looking_at(&self, pool: NodeId) -> impl Iterator<Item = (WatchKey, &Condition)> {
        let looking = self.0.iter().flat_map(move |all| all.looking.range(of_pool(pool)));
        looking.map(|(&(_, key), looking)| (key, &looking.condition))
    }

    fn next_marked(&mut self) -> Option<NodeId> {
        self.0.as_mut()?.marked.pop()
    }

    /// The units that refused calls lacked of a pool, axis by axis.
    fn lacked(&self, pool: NodeId) -> Units {
        let mut lacked = NOTHING;
        let lacks = self.0.iter().flat_map(|all| &all.lacks);
        for (_, lack) in lacks.filter(|(id, _)| *id == pool) {
            each_lane(|axis| lacked[axis] = lacked[axis].max(lack[axis]));
        }
        lacked
    }
}

/// Watching, as its owner sees it.
impl Engine {
    /// Whether a condition is met. If not, `waker` is kept under `key`. Returns the wakers to be
    /// dropped outside the lock.
    pub(crate) fn poll_watch(
        &mut self,
        pool: NodeId,
        key: &mut Option<WatchKey>,
        condition: &Condition,
        waker: Waker,
        now: Option<Instant>,
    ) -> (Poll<Met>, [Option<Waker>; 2]) {
        if !matches!(condition, Condition::Closed) {
            self.advance_all(pool, now);
        }
        let known = key.and_then(|key| self.watch.take_met(pool, key));
        if let Some(met) = known.or_else(|| self.met(pool, condition)) {
            let before = key.take().and_then(|key| self.watch.remove(pool, key));
            return (Poll::Ready(met), [Some(waker), before]);
        }
        let key = *key.get_or_insert_with(|| WatchKey(self.queue.ticket()));
        let watches = self.watch.0.get_or_insert_default();
        (Poll::Pending, [watches.keep(pool, key, condition, waker), None])
    }

    /// The owner has gone. Returns the waker to be dropped outside the lock.
    pub(crate) fn cancel_watch(&mut self, pool: NodeId, key: WatchKey) -> Option<Waker> {
        self.watch.remove(pool, key)
    }
}

/// The work of transitions for the watches.
impl Engine {
    /// The balances or the waiters of a pool, and of those above it, may have changed for another
    /// than the caller.
    #[inline]
    pub(super) fn mark(&mut self, at: NodeId) {
        if self.duties.is_watched() {
            self.mark_watched(at);
        }
    }

    #[cold]
    fn mark_watched(&mut self, at: NodeId) {
        if let Some(watches) = &mut self.watch.0 {
            watches.marked.push(at);
        }
    }

    /// Notes the units that a refused call lacks, where only a higher cap would do.
    pub(super) fn note_lack(&mut self, at: NodeId, asked: &Quantities, now: Option<Instant>) {
        if self.duties.is_watched() {
            self.note_lack_watched(at, asked, now);
        }
    }

    #[cold]
    fn note_lack_watched(&mut self, at: NodeId, asked: &Quantities, now: Option<Instant>) {
        // By what the caller is told: no funds admit it where it is closed, late or paused too long.
        if self.explain(at, asked, now).outlook() == Outlook::AfterFunding {
            self.note_unfunded(at, asked);
        }
    }

    /// Notes the units that a call lacks which only a higher cap makes room for, for those who watch
    /// now.
    pub(super) fn note_unfunded(&mut self, at: NodeId, asked: &Quantities) {
        let Some(watches) = self.watch.0.as_mut().filter(|_| self.duties.is_watched()) else {
            return;
        };
        let lacks = self
            .nodes
            .asking(at, asked.units())
            .map(|(id, node, asked)| (id, node.unfunded(&asked)));
        watches.lacks.extend(lacks.filter(|(_, missing)| *missing != NOTHING));
    }

    /// Looks at the watches of all pools that a transition of this one may have changed, and tells
    /// the watches whose condition is met. It takes time in proportion to the ways and to the
    /// watches on them.
    #[cold]
    #[inline(never)]
    pub(crate) fn look(&mut self, at: NodeId) {
        self.mark(at);
        while let Some(start) = self.watch.next_marked() {
            // A pool whose last handle has just gone is not watched, and those above it are marked.
            if !self.nodes.contains(start) {
                continue;
            }
            let mut way = Way::from(start);
            while let Some(pool) = way.up(&self.nodes) {
                self.look_at(pool);
            }
        }
        if let Some(watches) = &mut self.watch.0 {
            watches.lacks.clear();
        }
    }

    fn look_at(&mut self, pool: NodeId) {
        let holding = |(_, condition): &(WatchKey, &Condition)| self.is_met(pool, condition);
        let looking = self.watch.looking_at(pool).filter(holding);
        let met: Vec<_> = looking.map(|(key, condition)| (key, *condition)).collect();
        for (key, condition) in met {
            if let Some(met) = self.met(pool, &condition) {
                self.tell_watch(pool, key, met);
            }
        }
    }

    fn tell_watch(&mut self, pool: NodeId, key: WatchKey, met: Met) {
        let watches = self.watch.0.as_mut().expect("it is watched");
        let waker = watches.remove(pool, key);
        watches.met.insert(key, met);
        self.wakers().extend(waker);
    }

    /// Whether the balances meet a condition, as they stand.
    fn is_met(&self, pool: NodeId, condition: &Condition) -> bool {
        match condition {
            Condition::Closed => self.nodes[pool].closed,
            Condition::Reached(level) => self.nodes[pool].is_at(level),
            Condition::Wanting => self.want(pool).is_some(),
        }
    }

    /// The answer to a condition that is met, after all that time has brought by the latest reading
    /// of the clock: what has expired by then does not count.
    fn met(&mut self, pool: NodeId, condition: &Condition) -> Option<Met> {
        if !self.is_met(pool, condition) {
            return None;
        }
        match condition {
            Condition::Closed => Some(Met::Closed),
            Condition::Wanting => {
                self.advance_all(pool, self.reading);
                self.want(pool).map(Met::Wanting)
            }
            Condition::Reached(level) => {
                let snapshot = self.snapshot(pool, self.reading);
                self.nodes[pool].is_at(level).then(|| Met::Reached(Box::new(snapshot)))
            }
        }
    }

    /// The shortage of a pool.
    fn want(&self, pool: NodeId) -> Option<Want> {
        let node = &self.nodes[pool];
        // Nothing funds a closed pool.
        if node.closed {
            return None;
        }
        let mut missing = self.watch.lacked(pool);
        let low = node.low().map_or(NOTHING, |low| node.missing(low.units()));
        let blocked = self.unfunded_waiter(pool).unwrap_or(NOTHING);
        for more in [low, blocked] {
            each_lane(|axis| missing[axis] = missing[axis].max(more[axis]));
        }
        let is_low = low != NOTHING;
        let is_short = missing != NOTHING;
        is_short.then(|| Want { missing: self.reported(&missing), low: is_low })
    }

    fn reported(&self, units: &Units) -> Amount {
        let named =
            AxisSet::ALL.filter(|&axis| units[axis] > 0).fold(AxisSet::EMPTY, AxisSet::with);
        Amount::reported(Quantities::each(named, |axis| units[axis]), *self.labels())
    }
}

impl Node {
    fn is_at(&self, level: &Level) -> bool {
        let held = |axis| if level.is_settled() { 0 } else { self.ledger.reserved(axis) };
        let taken = |axis| self.ledger.owed(axis) + u128::from(held(axis));
        let capped = self.ledger.capped();
        level.is_reached(taken, |axis| capped.contains(axis).then(|| self.ledger.goal(axis)))
    }

    /// The units that must come free before `asked` fits, axis by axis.
    fn missing(&self, asked: &Units) -> Units {
        std::array::from_fn(|axis| {
            u64::try_from(self.ledger.missing(axis, asked[axis])).unwrap_or(u64::MAX)
        })
    }

    /// The same, on the axes on which only a higher cap makes room.
    pub(super) fn unfunded(&self, asked: &Units) -> Units {
        let missing = self.missing(asked);
        std::array::from_fn(|axis| match missing[axis] {
            missing if missing > 0 && self.needs_funds(axis, asked[axis]) => missing,
            _ => 0,
        })
    }
}

#[cfg(any(test, debug_assertions))]
impl Engine {
    /// Nobody waits for what is there already, and nothing is left behind by those who are gone.
    pub(super) fn check_watch(&self) {
        assert_eq!(self.duties, self.derived_duties(), "what is to be done is known");
        let Some(watches) = &self.watch.0 else { return };
        assert!(!watches.is_empty(), "without a watch nothing is kept");
        assert!(watches.marked.is_empty() && watches.lacks.is_empty(), "all was looked at");
        for (&(pool, _), looking) in &watches.looking {
            let (condition, name) = (&looking.condition, &self.nodes[pool].name);
            assert!(!self.is_met(pool, condition), "{condition:?} of {name} is told");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Spec;
    use crate::{Axis, Caps};

    /// A pool of ten tokens.
    fn engine() -> Engine {
        Engine::new(Spec::of(Caps::new().tokens(10)))
    }

    fn end(engine: &mut Engine) {
        if engine.is_steered() {
            engine.look(NodeId::ROOT);
        }
        engine.renew_duties();
        engine.check_invariants();
    }

    #[test]
    fn nothing_is_left_of_a_watch_that_is_gone_met_or_not() {
        let conditions = [
            Condition::Closed,
            Condition::Reached(Level::percent(Axis::Tokens, 80)),
            Condition::Wanting,
        ];
        for (condition, is_met) in conditions.into_iter().flat_map(|of| [(of, false), (of, true)]) {
            let mut engine = engine();
            let low = Quantities::NONE.with(0, 5);
            engine.nodes[NodeId::ROOT].set_low(&low);
            let mut key = None;
            let (at, waker) = (NodeId::ROOT, Waker::noop().clone());
            assert!(engine.poll_watch(at, &mut key, &condition, waker, None).0.is_pending());
            end(&mut engine);
            assert_eq!(engine.is_quiet(), matches!(condition, Condition::Closed));
            if is_met && !matches!(condition, Condition::Closed) {
                engine.record(at, &Quantities::NONE.with(0, 8), None).unwrap();
                end(&mut engine);
                assert_eq!(engine.wakers().drain(..).count(), 1);
                assert!(engine.is_quiet(), "what was met is not looked at");
            }
            drop(engine.cancel_watch(at, key.unwrap()));
            end(&mut engine);
            assert!(engine.is_quiet() && engine.watch.0.is_none(), "{condition:?} {is_met}");
        }
    }

    #[test]
    fn nothing_is_left_of_a_watch_that_was_told() {
        let mut engine = engine();
        let condition = Condition::Reached(Level::percent(Axis::Tokens, 80));
        let (at, mut key, waker) = (NodeId::ROOT, None, Waker::noop());
        let mut poll = |engine: &mut Engine| {
            engine.poll_watch(at, &mut key, &condition, waker.clone(), None).0.is_ready()
        };
        assert!(!poll(&mut engine));
        end(&mut engine);
        engine.record(at, &Quantities::NONE.with(0, 8), None).unwrap();
        end(&mut engine);
        assert!(poll(&mut engine) && engine.watch.0.is_none());
        assert!(key.is_none());
    }
}
