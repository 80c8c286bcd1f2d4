//! Pauses: a pool, and all below it, admit nothing until an instant.
//!
//! A pause is a wall on the way up, as a lack of room is. A waiter that meets a paused pool is
//! blocked there, and a call is refused with the instant. Accounting knows no pause.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use super::Engine;
use super::nodes::{Deadline, NodeId};
use crate::types::axis::{NOTHING, Quantities};
use crate::types::error::{BudgetError, Outlook};

/// The pools that are paused. In a box, as few trees ever pause.
#[derive(Debug, Default)]
pub(super) struct Pauses(Option<Box<Paused>>);

#[derive(Debug, Default)]
struct Paused {
    until: BTreeMap<NodeId, Instant>,
    /// The same in the order of time.
    order: BTreeSet<(Instant, NodeId)>,
}

impl Paused {
    #[cold]
    fn until_of(&self, pool: NodeId) -> Option<Instant> {
        self.until.get(&pool).copied()
    }
}

impl Pauses {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Until when a pool is paused by itself.
    #[inline(always)]
    pub(super) fn until(&self, pool: NodeId) -> Option<Instant> {
        self.0.as_ref().and_then(|paused| paused.until_of(pool))
    }

    fn insert(&mut self, pool: NodeId, until: Instant) {
        self.remove(pool);
        let paused = self.0.get_or_insert_default();
        paused.until.insert(pool, until);
        paused.order.insert((until, pool));
    }

    /// Returns whether the pool was paused.
    pub(super) fn remove(&mut self, pool: NodeId) -> bool {
        let Some(paused) = &mut self.0 else { return false };
        let Some(until) = paused.until.remove(&pool) else { return false };
        paused.order.remove(&(until, pool));
        if paused.until.is_empty() {
            self.0 = None;
        }
        true
    }

    /// The pause that ends first, if it is over.
    pub(super) fn next_over(&self, now: Instant) -> Option<(Instant, NodeId)> {
        let first = *self.0.as_ref()?.order.first()?;
        (first.0 <= now).then_some(first)
    }
}

impl Engine {
    /// Pauses a pool from the latest instant seen until the `end` that goes with it. The longer of two
    /// pauses wins.
    pub(crate) fn pause(&mut self, at: NodeId, now: Instant, end: impl FnOnce(Instant) -> Instant) {
        let now = self.advance(at, &NOTHING, Some(now)).expect("it is told the time");
        let until = end(now);
        if until <= now || self.pauses.until(at).is_some_and(|known| until <= known) {
            return;
        }
        self.pauses.insert(at, until);
        self.reject_outlasted(at);
        self.try_anew(at, |_| true);
        self.process_waiters();
    }

    /// Ends the pause of a pool. A pause above it goes on.
    pub(crate) fn resume(&mut self, at: NodeId, now: Option<Instant>) {
        self.advance(at, &NOTHING, now);
        self.end_pause(at);
        self.process_waiters();
    }

    /// Ends the pause of a pool, if there is one. The caller serves the waiters.
    #[cold]
    pub(super) fn end_pause(&mut self, pool: NodeId) {
        if self.pauses.remove(pool) {
            self.try_anew(pool, |blocked| blocked == pool);
        }
    }

    /// Tries candidates that meet a pool on their way anew, each from its own pool upward. Where a
    /// pause begins they are all: those that were blocked above let go of their places there. Where
    /// one ends they are those that it blocked: no sleep knows when it ends for the others.
    fn try_anew(&mut self, pool: NodeId, are_blocked: impl Fn(NodeId) -> bool) {
        if self.queue.has_waiting() {
            for (key, _) in self.unpark_below(pool, are_blocked) {
                self.queue.call(key);
            }
        }
    }

    /// Whether a pause on the way up lasts until the deadline of a pool.
    pub(super) fn is_outlasted(&self, at: NodeId) -> bool {
        self.outlasts(at, &self.nodes[at].deadline)
    }

    /// Whether a pause on the way up lasts until a deadline.
    pub(super) fn outlasts(&self, at: NodeId, deadline: &Option<Deadline>) -> bool {
        let lasts_until = |end: Instant| self.paused_until(at).is_some_and(|until| end <= until);
        deadline.is_some_and(|end| lasts_until(end.at))
    }

    /// The pause on the way up that ends last, and when.
    #[inline(always)]
    pub(super) fn paused(&self, at: NodeId) -> Option<(NodeId, Instant)> {
        if self.pauses.is_empty() { None } else { self.longest_pause(at) }
    }

    #[cold]
    fn longest_pause(&self, at: NodeId) -> Option<(NodeId, Instant)> {
        let paused = self.nodes.way(at).filter_map(|(id, _)| Some((id, self.pauses.until(id)?)));
        paused.reduce(|longest, other| if other.1 > longest.1 { other } else { longest })
    }

    #[inline]
    pub(super) fn paused_until(&self, at: NodeId) -> Option<Instant> {
        self.paused(at).map(|(_, until)| until)
    }

    /// The refusal by a pause. A call that can never fit is for capacity to refuse: it waits for no
    /// pause.
    #[cold]
    pub(super) fn explain_pause(&self, at: NodeId, asked: &Quantities) -> Option<BudgetError> {
        let (pool, until) = self.paused(at)?;
        let lack = self.nodes.lack(at, asked).map(|lack| lack.outlook);
        if lack == Some(Outlook::Never) {
            return None;
        }
        let end = if self.is_outlasted(at) { Outlook::Never } else { Outlook::At(until) };
        let outlook = lack.map_or(end, |lack| lack.max(end));
        Some(BudgetError::Paused {
            pool: self.nodes[pool].name.clone(),
            until,
            outlook,
            retry_after: outlook.after(self.reading),
        })
    }
}

#[cfg(any(test, debug_assertions))]
impl Engine {
    /// Each pause belongs to a pool that exists, stands once in either order, and is not over.
    pub(super) fn check_pauses(&self) {
        let Some(paused) = &self.pauses.0 else { return };
        assert!(!paused.until.is_empty(), "without a pause nothing is kept");
        let order: BTreeSet<_> = paused.until.iter().map(|(&pool, &until)| (until, pool)).collect();
        assert_eq!(order, paused.order, "each pause is in the order of time");
        assert!(paused.until.keys().all(|&pool| self.nodes.ids().any(|id| id == pool)));
        let is_over = self.latest.is_some_and(|latest| self.pauses.next_over(latest).is_some());
        assert!(!is_over, "a pause that is over is gone");
    }
}
