//! The view from outside, of one instant (P5).

use std::time::Instant;

use super::Engine;
use super::hold::Hold;
use super::nodes::{Below, Node, NodeId, Nodes};
use super::refill::Refill;
use crate::types::amount::Amount;
use crate::types::axis::{Axis, Labels, Quantities, Quantity};
use crate::types::error::BudgetError;
use crate::types::limit::Limit;
use crate::types::snapshot::{AxisSnapshot, Holder, Snapshot, Standing};

/// How many times as many places are made for a part of a tree, until they are enough.
const FEW: usize = 16;

/// The available units of each axis; `None` = unlimited.
type Available = [Option<u64>; Axis::COUNTED];

impl Engine {
    pub(crate) fn snapshot(&mut self, at: NodeId, now: Option<Instant>) -> Snapshot {
        self.advance_all(at, now);
        let available = self.nodes.available(at);
        self.nodes[at].snapshot(0, self.paused_until(at), &available, *self.labels())
    }

    /// Brings this pool and all below it up to the present.
    pub(crate) fn advance_below(&mut self, at: NodeId, now: Option<Instant>) {
        self.advance_all(at, now);
        self.refill_below(at);
    }

    /// Some of the pools below, each into the place beside it.
    pub(crate) fn snapshots<'a>(
        &mut self,
        at: NodeId,
        now: Option<Instant>,
        places: impl Iterator<Item = (NodeId, &'a mut Snapshot)>,
    ) {
        self.advance_below(at, now);
        for (id, place) in places {
            *place = self.snapshot(id, None);
        }
    }

    /// Spends, and looks at the balance in the same instant.
    pub(crate) fn record_and_snapshot(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<Snapshot, BudgetError> {
        self.record(at, amount, now)?;
        Ok(self.snapshot(at, now))
    }

    /// This pool and all below it, parents before their children, over the first places of a list.
    /// Returns how many there are. If the list has no places for them, so many are to be made.
    pub(crate) fn snapshot_tree(
        &mut self,
        at: NodeId,
        now: Option<Instant>,
        places: &mut [Snapshot],
    ) -> Result<usize, usize> {
        self.advance_below(at, now);
        // What is available in each pool on the way down to the present one.
        let mut way = vec![self.nodes.available(at)];
        let mut taken = 1;
        let labels = *self.labels();
        places[0] = self.nodes[at].snapshot(0, self.paused_until(at), &way[0], labels);
        let mut walk = Below::from(at, &self.nodes);
        while let Some((id, depth)) = walk.next(&self.nodes) {
            let Some(place) = places.get_mut(taken) else {
                // A part of a tree is not counted, as all of it is: it may be much smaller.
                let more = if at == NodeId::ROOT { usize::MAX } else { taken * FEW };
                return Err(self.nodes.len().min(more));
            };
            let node = &self.nodes[id];
            way.truncate(depth);
            let above = way[depth - 1];
            way.push(match node.is_joint() {
                // It depends on more than the parent below which it is listed.
                true => self.nodes.available(id),
                false => std::array::from_fn(|axis| {
                    let above = if node.carved().contains(axis) { None } else { above[axis] };
                    node.available_below(axis, above)
                }),
            });
            *place = node.snapshot(depth, self.paused_until(id), &way[depth], labels);
            taken += 1;
        }
        Ok(taken)
    }

    /// The holds on this pool and on those below it.
    pub(crate) fn holders(&mut self, at: NodeId, now: Option<Instant>) -> Vec<Holder> {
        self.advance_all(at, now);
        let holds = self.holds.iter().filter(|hold| hold.is_live());
        let below = holds.filter(|hold| self.nodes.way(hold.node()).any(|(id, _)| id == at));
        below.map(|hold| self.holder(hold)).collect()
    }

    /// The caps on the way up, the pool's own first.
    pub(crate) fn limits(&mut self, at: NodeId, now: Option<Instant>) -> Vec<Limit> {
        self.advance_all(at, now);
        // From the reading, as a refusal: the clock may have run back.
        let (labels, reading) = (*self.labels(), self.reading);
        let mut limits = Vec::new();
        for (_, node, open) in self.nodes.open_way(at) {
            let ledger = &node.ledger;
            for (axis, lane) in labels.counted().map(|axis| (axis, axis.lane())) {
                let Some(cap) = ledger.cap(lane).filter(|_| open.contains(lane)) else { continue };
                let window = node.window.as_deref().filter(|_| axis != Axis::InFlight);
                // New room pays the overage first.
                let missing = u128::from(ledger.overage(lane)) + 1;
                let more_at =
                    |window: &Refill| window.when(ledger, lane, missing, ledger.reserved(lane));
                limits.push(Limit {
                    pool: node.name.clone(),
                    cap: Quantity::new(axis, cap),
                    free: Quantity::new(axis, ledger.free(lane)),
                    period: window.and_then(Refill::period),
                    more_in: window
                        .and_then(more_at)
                        .and_then(|at| Some(at.saturating_duration_since(reading?))),
                });
            }
        }
        limits
    }

    pub(super) fn holder(&self, hold: &Hold) -> Holder {
        // From the reading, as a refusal: the clock may have run back.
        let expires_in = |expiry: Instant| Some(expiry.saturating_duration_since(self.reading?));
        Holder {
            pool: self.nodes[hold.node()].name.clone(),
            label: hold.label().cloned(),
            amount: Amount::reported(hold.reported(), *self.labels()),
            since: hold.since(),
            expires_in: hold.expiry().and_then(expires_in),
            on_drop: hold.on_drop(),
        }
    }
}

impl Nodes {
    /// The least that is free on the way up to the nearest carve; `None` if nothing there has a
    /// cap.
    fn available(&self, at: NodeId) -> Available {
        let mut least = [None; Axis::COUNTED];
        self.visit_up_to_carves(at, |node, axis| {
            least[axis] = node.available_below(axis, least[axis]);
        });
        least
    }
}

impl Node {
    fn available_below(&self, axis: usize, above: Option<u64>) -> Option<u64> {
        let own = self.ledger.cap(axis).map(|_| self.ledger.free(axis));
        own.into_iter().chain(above).min()
    }

    fn snapshot(
        &self,
        depth: usize,
        paused_until: Option<Instant>,
        available: &Available,
        labels: Labels,
    ) -> Snapshot {
        let axes = std::array::from_fn(|axis| AxisSnapshot {
            cap: self.ledger.cap(axis),
            used: self.ledger.used(axis),
            reserved: self.ledger.reserved(axis),
            overage: self.ledger.overage(axis),
            available: available[axis],
            spent: self.ledger.spent(axis),
            peak: self.ledger.peak(axis),
            falling_to: self.ledger.falling_to(axis),
        });
        let (closed, waiting) = (self.closed, self.line.waiting());
        let standing = Standing { closed, paused_until, waiting };
        Snapshot::new(self.name.clone(), depth, standing, self.counts, labels, axes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Caps;
    use crate::engine::Spec;

    /// Each attempt holds the lock: few must do, and no more places be made than there may be pools.
    #[test]
    fn p5_a_list_that_is_too_short_is_told_how_many_places_to_make() {
        let spec = || Spec::of(Caps::new());
        let mut engine = Engine::new(spec());
        let part = engine.add_child(NodeId::ROOT, spec());
        (0..60).for_each(|_| _ = engine.add_child(part, spec()));
        (0..40).for_each(|_| _ = engine.add_child(NodeId::ROOT, spec()));
        let mut look = |at, places| {
            let mut places: Vec<_> = (0..places).map(|_| Snapshot::nothing()).collect();
            engine.snapshot_tree(at, None, &mut places)
        };
        assert_eq!([look(NodeId::ROOT, 1), look(NodeId::ROOT, 102)], [Err(102), Ok(102)]);
        assert_eq!([look(part, 1), look(part, 3)], [Err(FEW), Err(3 * FEW)]);
        assert_eq!([look(part, 60), look(part, 61)], [Err(102), Ok(61)]);
    }
}
