//! The view from outside, of one instant (P5).

use std::time::Instant;

use super::Engine;
use super::hold::Hold;
use super::nodes::{Below, Node, NodeId, Nodes};
use super::refill::Refill;
use crate::types::amount::Amount;
use crate::types::axis::{Axis, AxisSet, Labels, Quantities, Quantity};
use crate::types::error::BudgetError;
use crate::types::limit::Limit;
use crate::types::name::Name;
use crate::types::snapshot::{AxisSnapshot, Counts, Holder, Snapshot, Standing};

/// How many times as many places are made for a part of a tree, until they are enough.
const FEW: usize = 16;

/// The pools of a tree at one instant (P5), as little of each as its [`Snapshot`] can be made of:
/// the lock is held while it is copied, and a snapshot is several times as large.
///
/// A page of memory that is touched for the first time takes longer than all that is written to it.
/// So the places are made, and touched, before the lock is taken.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pools: Vec<Seen>,
    /// Of each pool in its turn the axes in play, whose available units are still to be found.
    axes: Vec<AxisSnapshot<u64>>,
    /// What is available in those pools for which more than the parent above them tells it.
    apart: Vec<Quantities>,
    labels: Labels,
}

/// A pool of a survey.
#[derive(Debug)]
struct Seen {
    name: Name,
    depth: usize,
    standing: Standing,
    counts: Counts,
    /// The axes in play.
    axes: AxisSet,
    carved: AxisSet,
    is_apart: bool,
}

/// How many places a survey has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Places {
    pools: usize,
    /// For so many axes of each pool in the mean.
    axes_each: usize,
    /// For pools that are apart.
    apart: usize,
}

impl Places {
    pub(crate) const FEW: Places = Places { pools: 4, axes_each: 4, apart: 4 };
}

impl Survey {
    /// Begins anew, with so many places.
    pub(crate) fn begin(&mut self, Places { pools, axes_each, apart }: Places) {
        touch(&mut self.pools, pools, Seen::nothing);
        touch(&mut self.axes, pools.saturating_mul(axes_each), || AxisSnapshot::NOTHING);
        touch(&mut self.apart, apart, || Quantities::NONE);
    }

    /// Parents before their children.
    pub(crate) fn into_snapshots(self) -> Vec<Snapshot> {
        let (mut axes, mut apart) = (self.axes.into_iter(), self.apart.into_iter());
        // What is available in each pool on the way down to the present one.
        let mut way: Vec<Quantities> = Vec::new();
        let snapshot = |seen: Seen| {
            way.truncate(seen.depth);
            let mut available = match seen.is_apart {
                true => apart.next().expect("it was copied with the pool"),
                false => {
                    let above = way.last().expect("the first pool is apart");
                    above.only(AxisSet::ALL.difference(seen.carved))
                }
            };
            let mut snapshot = Snapshot::nothing();
            snapshot.depth = seen.depth;
            snapshot.set_pool(seen.name, seen.standing, &seen.counts, &self.labels);
            for axis in seen.axes.union(available.axes()) {
                let balances = match seen.axes.contains(axis) {
                    true => axes.next().expect("it was copied with the pool"),
                    false => AxisSnapshot::NOTHING,
                };
                if let Some(free) = balances.free() {
                    available.bound(axis, free);
                }
                let available = available.get(axis);
                snapshot.set_axis(axis, AxisSnapshot { available, ..balances });
            }
            way.push(available);
            snapshot
        };
        self.pools.into_iter().map(snapshot).collect()
    }
}

impl Seen {
    /// Of no pool: it holds a place.
    fn nothing() -> Seen {
        Seen {
            name: Name::DEFAULT,
            depth: 0,
            standing: Standing::default(),
            counts: Counts::NONE,
            axes: AxisSet::EMPTY,
            carved: AxisSet::EMPTY,
            is_apart: false,
        }
    }
}

/// Empties a list, and gives it touched memory for so many.
fn touch<T>(list: &mut Vec<T>, places: usize, nothing: impl FnMut() -> T) {
    list.clear();
    list.reserve_exact(places);
    list.resize_with(places, nothing);
    list.clear();
}

impl Engine {
    pub(crate) fn snapshot(&mut self, at: NodeId, now: Option<Instant>) -> Snapshot {
        let mut snapshot = Snapshot::nothing();
        self.snapshot_into(at, now, &mut snapshot);
        snapshot
    }

    /// [`snapshot`](Engine::snapshot), in the place of another.
    pub(crate) fn snapshot_into(&mut self, at: NodeId, now: Option<Instant>, place: &mut Snapshot) {
        self.advance_all(at, now);
        self.show(at, place);
    }

    /// Writes a pool that is up to the present into a snapshot of nothing.
    pub(crate) fn show(&self, at: NodeId, place: &mut Snapshot) {
        let (node, available) = (&self.nodes[at], self.nodes.available(at));
        let standing = node.standing(self.paused_until(at));
        place.set_pool(node.name.clone(), standing, &node.counts, self.labels());
        for axis in node.ledger.in_play().union(available.axes()) {
            place.set_axis(axis, node.axis(axis, available.get(axis)));
        }
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
            self.show(id, place);
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

    /// This pool and all below it, parents before their children. If the survey has no places for
    /// them, so many are to be made.
    pub(crate) fn snapshot_tree(
        &mut self,
        at: NodeId,
        now: Option<Instant>,
        survey: &mut Survey,
    ) -> Result<(), Places> {
        self.advance_below(at, now);
        survey.labels = *self.labels();
        let mut walk = Below::from(at, &self.nodes);
        let mut next = Some((at, 0));
        while let Some((id, depth)) = next {
            let node = &self.nodes[id];
            let axes = node.ledger.in_play();
            let Survey { pools, axes: lanes, apart, .. } = survey;
            if pools.len() == pools.capacity() {
                // A part of a tree is not counted, as all of it is: it may be much smaller.
                let more = if at == NodeId::ROOT { usize::MAX } else { pools.len() * FEW };
                let more = self.nodes.len().min(more);
                return Err(Places {
                    pools: more,
                    axes_each: lanes.capacity() / pools.capacity(),
                    apart: self.nodes.joints().saturating_add(1).min(more),
                });
            }
            if lanes.capacity() - lanes.len() < axes.count() {
                return Err(Places {
                    pools: pools.capacity(),
                    axes_each: Axis::COUNTED,
                    apart: apart.capacity(),
                });
            }
            lanes.extend(axes.map(|axis| node.axis(axis, None)));
            let is_apart = depth == 0 || node.is_joint();
            pools.push(Seen {
                name: node.name.clone(),
                depth,
                standing: node.standing(self.paused_until(id)),
                counts: node.counts,
                axes,
                carved: node.carved(),
                is_apart,
            });
            if is_apart {
                apart.push(self.nodes.available(id));
            }
            next = walk.next(&self.nodes);
        }
        Ok(())
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
    /// The least that is free on the way up to the nearest carve, of the axes that have a cap there.
    #[inline(always)]
    fn available(&self, at: NodeId) -> Quantities {
        let mut available = Quantities::NONE;
        for (_, node, open) in self.open_way(at) {
            let capped = node.ledger.capped().intersection(open);
            capped.for_each(|axis| available.bound(axis, node.ledger.free(axis)));
        }
        available
    }
}

impl Node {
    /// The balances of an axis.
    #[inline]
    fn axis(&self, axis: usize, available: Option<u64>) -> AxisSnapshot<u64> {
        AxisSnapshot {
            cap: self.ledger.cap(axis),
            used: self.ledger.used(axis),
            reserved: self.ledger.reserved(axis),
            overage: self.ledger.overage(axis),
            available,
            spent: self.ledger.spent(axis),
            peak: self.ledger.peak(axis),
            falling_to: self.ledger.falling_to(axis),
        }
    }

    fn standing(&self, paused_until: Option<Instant>) -> Standing {
        Standing { closed: self.closed, paused_until, waiting: self.line.waiting() }
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
        let mut look = |at, pools| {
            let mut survey = Survey::default();
            survey.begin(Places { pools, axes_each: 1, apart: 1 });
            let surveyed = engine.snapshot_tree(at, None, &mut survey);
            surveyed.map(|()| survey.into_snapshots().len()).map_err(|more| more.pools)
        };
        assert_eq!([look(NodeId::ROOT, 1), look(NodeId::ROOT, 102)], [Err(102), Ok(102)]);
        assert_eq!([look(part, 1), look(part, 3)], [Err(FEW), Err(3 * FEW)]);
        assert_eq!([look(part, 60), look(part, 61)], [Err(102), Ok(61)]);
    }

    #[test]
    fn p5_too_few_places_for_axes_are_told_once() {
        let caps = || Caps::new().tokens(1).requests(2).in_flight(3);
        let mut engine = Engine::new(Spec::of(caps()));
        (0..9).for_each(|_| _ = engine.add_child(NodeId::ROOT, Spec::of(caps())));
        let mut look = |axes_each| {
            let mut survey = Survey::default();
            survey.begin(Places { pools: 10, axes_each, apart: 1 });
            engine.snapshot_tree(NodeId::ROOT, None, &mut survey)
        };
        let enough = Places { pools: 10, axes_each: Axis::COUNTED, apart: 1 };
        assert_eq!([look(2), look(3), look(Axis::COUNTED)], [Err(enough), Ok(()), Ok(())]);
    }

    /// No list grows under the lock, where the tree stays as it is.
    #[test]
    fn p5_joint_pools_have_their_places_before_the_lock_is_taken() {
        let mut engine = Engine::new(Spec::of(Caps::new()));
        let parents = [0; 2].map(|_| engine.add_child(NodeId::ROOT, Spec::of(Caps::new())));
        (0..30).for_each(|_| _ = engine.add_joint(&parents, Spec::of(Caps::new().tokens(1))));
        let (mut survey, mut places) = (Survey::default(), Places::FEW);
        loop {
            survey.begin(places);
            let made = survey.apart.capacity();
            let surveyed = engine.snapshot_tree(NodeId::ROOT, None, &mut survey);
            assert_eq!(survey.apart.capacity(), made);
            match surveyed {
                Ok(()) => break,
                Err(more) => places = more,
            }
        }
        assert_eq!(survey.apart.len(), 31);
    }
}
