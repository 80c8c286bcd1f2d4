//! Who is told when the state of a pool meets a condition: today, that it is closed.

use std::collections::BTreeMap;
use std::task::{Poll, Waker};

use super::Engine;
use super::nodes::NodeId;

/// Names one that waits for its pool to be closed; never given out twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ClosingKey(u64);

#[derive(Debug, Default)]
pub(super) struct Watch {
    /// By pool, so that a close looks at its own alone.
    closings: BTreeMap<(NodeId, ClosingKey), Option<Waker>>,
    last: u64,
}

impl Watch {
    /// Takes the wakers of those that wait for a pool.
    pub(super) fn take(&mut self, pool: NodeId) -> impl Iterator<Item = Waker> {
        let of_pool = (pool, ClosingKey(u64::MIN))..=(pool, ClosingKey(u64::MAX));
        self.closings.range_mut(of_pool).filter_map(|(_, waker)| waker.take())
    }

    fn key(&mut self) -> ClosingKey {
        self.last += 1;
        ClosingKey(self.last)
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
        let key = *key.get_or_insert_with(|| self.watch.key());
        (Poll::Pending, self.watch.closings.entry((pool, key)).or_default().replace(waker))
    }

    pub(crate) fn cancel_closing(&mut self, pool: NodeId, key: ClosingKey) -> Option<Waker> {
        self.watch.closings.remove(&(pool, key)).flatten()
    }
}
