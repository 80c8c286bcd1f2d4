//! One tree of pools, as a state machine. `Engine` knows no lock and reads no clock: every
//! transition is told the time, if it must know it, and leaves behind the wakers that are to be
//! woken.
//!
//! The parts own their state, and each rule about it stands in one of them:
//!
//! | part | owns |
//! | --- | --- |
//! | [`Nodes`] | the pools, their links, and the way up |
//! | [`Ledger`](ledger::Ledger) | the balances of one pool: the cap rule |
//! | [`Holds`] | the live and the expired holds |
//! | [`Queue`] | the waiters, their order, and where each is blocked |
//! | [`Expiry`] | the holds that may expire, in the order of time |
//! | [`Pauses`] | the pools that are paused, and until when |
//! | [`Refill`] | the window of one pool |
//! | [`Keys`] | the idempotency keys of one pool |
//! | [`Watch`] | the futures that wait for a close, or for balances |
//! | [`Events`] | what an observer is to be told |
//! | [`Duties`] | what a transition has to do beside its own step |
//!
//! # What holds between transitions
//!
//! [`Engine::check_invariants`] asserts it.
//!
//! - In every pool `used + reserved <= cap` on every axis, and an `overage` leaves nothing free.
//! - A pool's `reserved` is the sum of the live holds on it and below it, above a carve its share.
//! - No waiter could be served: each candidate is refused where it is blocked.
//! - Counts agree with the things they count: reservations, waiters, windows, holds that may
//!   expire.

use std::time::Instant;

use duties::Duties;
use event::Events;
use expiry::Expiry;
use hold::Holds;
use nodes::Nodes;
use pause::Pauses;
use queue::Queue;
use watch::Watch;

use crate::types::axis::Labels;

mod admission;
mod arena;
mod ask;
mod caps;
mod duties;
mod event;
mod expiry;
mod hold;
mod idempotency;
#[cfg(any(test, debug_assertions))]
mod invariants;
mod lease;
mod ledger;
mod lifecycle;
mod nodes;
mod pause;
mod queue;
mod refill;
mod view;
mod watch;

pub(crate) use admission::Booked;
pub(crate) use ask::Terms;
pub(crate) use event::{Answer, Event};
pub(crate) use hold::{End, HoldKey};
pub(crate) use idempotency::Keys;
pub(crate) use nodes::{Deadline, NodeId, Spec};
pub(crate) use queue::{Grant, Looked, Place, Purpose, WaitKey};
pub(crate) use refill::Refill;
pub(crate) use view::{Places, Survey};
pub(crate) use watch::{Condition, Met, WatchKey};

/// The parts before the pools lie on the cache line of the lock: calls of the hot path do not write
/// them.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Engine {
    duties: Duties,
    watch: Watch,
    pauses: Pauses,
    events: Events,
    /// The labels of the user's own axes. In a box, as few trees have any.
    labels: Option<Box<Labels>>,
    nodes: Nodes,
    holds: Holds,
    expiry: Expiry,
    /// The latest instant seen: time never runs back (P8).
    latest: Option<Instant>,
    /// The last reading of the clock, which may be earlier: a refusal counts from it.
    reading: Option<Instant>,
    queue: Queue,
}

impl Engine {
    /// A tree of one pool, [`NodeId::ROOT`].
    pub(crate) fn new(root: Spec) -> Engine {
        let labels = root.labels();
        let mut engine = Engine {
            nodes: Nodes::new(root),
            duties: Duties::default(),
            queue: Queue::default(),
            expiry: Expiry::default(),
            holds: Holds::default(),
            watch: Watch::default(),
            pauses: Pauses::default(),
            events: Events::default(),
            labels: None,
            latest: None,
            reading: None,
        };
        engine.learn(labels);
        engine
    }

    /// Learns the labels of the user's own axes. The first label of each stays.
    #[inline]
    fn learn(&mut self, labels: Labels) {
        if labels != Labels::NONE {
            let known = self.labels.get_or_insert_default();
            **known = known.or(labels);
        }
    }

    /// The latest instant seen.
    pub(crate) fn latest(&self) -> Option<Instant> {
        self.latest
    }

    pub(crate) fn labels(&self) -> &Labels {
        self.labels.as_deref().unwrap_or(&Labels::NONE)
    }
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// A thread that waits for the lock does not disturb the thread that changes the balances.
    #[test]
    fn the_pools_begin_on_the_line_after_that_of_the_lock() {
        let lock = size_of::<u64>();
        assert_eq!(lock + offset_of!(Engine, nodes), 64);
    }
}
