//! Who is told when the state of a pool meets a condition: today, that it is closed.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};

use super::Engine;
use super::nodes::NodeId;
use super::queue::Ticket;

/// Names one that waits for its pool to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClosingKey(Ticket);

/// In a box, as few trees are watched.
#[derive(Debug, Default)]
pub(super) struct Watch(Option<Box<Closings>>);

/// By pool, so that a close looks at its own alone.
type Closings = BTreeMap<(NodeId, ClosingKey), Option<Waker>>;

impl Watch {
    /// Takes the wakers of those that wait for a pool.
    pub(super) fn take(&mut self, pool: NodeId) -> impl Iterator<Item = Waker> {
        let of_pool = (pool, ClosingKey(Ticket::FIRST))..=(pool, ClosingKey(Ticket::LAST));
        let closings = self.0.iter_mut().flat_map(move |all| all.range_mut(of_pool.clone()));
        closings.filter_map(|(_, waker)| waker.take())
    }
}

impl Engine {
    /// Whether a pool is closed. If not, `waker` is kept under `key`. Returns the one to be dropped
    /// outside the lock.
    pub(crate) fn poll_closed(
        &mut self,
        pool: NodeId,
        key: &mut Option<ClosingKey>,
        waker: Waker,
    ) -> (Poll<()>, Option<Waker>) {
        if self.nodes[pool].closed {
            return (Poll::Ready(()), Some(waker));
        }
        let key = *key.get_or_insert_with(|| ClosingKey(self.queue.ticket()));
        let closings = self.watch.0.get_or_insert_default();
        (Poll::Pending, closings.entry((pool, key)).or_default().replace(waker))
    }

    pub(crate) fn cancel_closing(&mut self, pool: NodeId, key: ClosingKey) -> Option<Waker> {
        self.watch.0.as_mut()?.remove(&(pool, key)).flatten()
    }
}
