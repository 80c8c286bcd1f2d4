//! How caps move, and how a period begins by hand.
//!
//! A move is tried on a copy of the balances of its pool. So the new share of a carved pool, which
//! is `cap - used`, is known before anything has changed: its gain is asked of the pools above, and
//! its loss goes back to them.

use std::collections::BTreeSet;
use std::time::Instant;

use super::Engine;
use super::admission::Tally;
use super::ledger::Ledger;
use super::nodes::{Node, NodeId};
use crate::types::amount::Caps;
use crate::types::axis::{AxisSet, NOTHING, Quantities, Units, on_each_lane};
use crate::types::error::{BudgetError, BudgetExceeded, Outlook};
use crate::types::snapshot::Snapshot;

/// A pool whose caps are about to move.
struct Move {
    /// Its balances afterwards.
    ledger: Ledger,
    /// The units that its share gains of the pools above.
    gained: Units,
    /// The units that its share gives back to them.
    lost: Units,
}

impl Engine {
    pub(crate) fn reset(&mut self, at: NodeId, now: Option<Instant>) -> Snapshot {
        let snapshot = self.snapshot(at, now);
        let node = &mut self.nodes[at];
        node.ledger.reset(node.carved());
        if let Some(window) = &mut node.window {
            window.restart();
        }
        self.balances_changed(at);
        snapshot
    }

    pub(crate) fn set_caps(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.advance_all(at, now);
        let goals = caps.quantities();
        let rises = |axis| goals.units()[axis] > self.nodes[at].ledger.goal(axis);
        if goals.axes().any(rises) {
            self.is_not_closed(at)?;
        }
        let moved = self.nodes[at].moved(goals, Ledger::set_cap);
        self.can_gain(at, &moved, now)?;
        let is_new = !goals.axes().difference(self.nodes[at].ledger.capped()).is_empty();
        // Whoever asks for what is capped here from now on takes its turn here.
        let candidates = if is_new { self.unpark_below(at, |_| true) } else { Vec::new() };
        self.apply(at, moved);
        self.park_all(candidates);
        self.process_waiters();
        self.learn(caps.labels());
        Ok(())
    }

    pub(crate) fn raise_caps(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        // All that is due: what is asked above follows from balances that must not change before
        // it is granted.
        self.advance_all(at, now);
        self.is_not_closed(at)?;
        let more = self.capped(at, caps);
        self.can_rise(at, &more)?;
        let moved = self.nodes[at].moved(&more, Ledger::raise);
        self.can_gain(at, &moved, now)?;
        self.apply(at, moved);
        self.process_waiters();
        Ok(())
    }

    pub(crate) fn lower_caps(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        let less = self.capped(at, caps);
        self.advance(at, less.units(), now);
        self.is_free(at, &less)?;
        self.lower(at, &less);
        Ok(())
    }

    /// Lowers the caps by their free units. Returns the units by which they fell.
    pub(crate) fn lower_caps_up_to(
        &mut self,
        at: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Caps {
        let most = self.capped(at, caps);
        self.advance(at, most.units(), now);
        let ledger = &self.nodes[at].ledger;
        let less = Quantities::each(most.axes(), |axis| most.units()[axis].min(ledger.free(axis)));
        self.lower(at, &less);
        Caps::reported(less, *self.labels())
    }

    /// Moves caps from one pool to another.
    pub(crate) fn transfer(
        &mut self,
        from: NodeId,
        to: NodeId,
        caps: &Caps,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        self.advance_all(from, now);
        self.refill_to_latest(to);
        let units = caps.quantities();
        [from, to].into_iter().try_for_each(|pool| self.has_caps(pool, caps))?;
        self.is_not_closed(to)?;
        self.is_free(from, units)?;
        if from == to {
            return Ok(());
        }
        self.can_rise(to, units)?;
        self.move_caps(from, to, units)?;
        for pool in [from, to] {
            self.call_changed(pool);
            self.mark(pool);
        }
        self.process_waiters();
        Ok(())
    }

    pub(crate) fn set_ceiling(&mut self, at: NodeId, ceiling: &Caps, now: Option<Instant>) {
        self.advance_all(at, now);
        self.nodes[at].set_ceiling(ceiling.quantities());
        self.learn(ceiling.labels());
        self.balances_changed(at);
    }
}

/// The steps of a move of caps.
impl Engine {
    /// The caps among `caps` that the pool has.
    fn capped(&self, at: NodeId, caps: &Caps) -> Quantities {
        caps.quantities().only(self.nodes[at].ledger.capped())
    }

    fn has_caps(&self, at: NodeId, caps: &Caps) -> Result<(), BudgetError> {
        let node = &self.nodes[at];
        let missing = caps.quantities().axes().difference(node.ledger.capped()).next();
        let Some(axis) = missing else { return Ok(()) };
        let labels = self.labels().or(caps.labels());
        Err(BudgetError::Uncapped { pool: node.name.clone(), axis: labels.axis(axis) })
    }

    fn is_not_closed(&self, at: NodeId) -> Result<(), BudgetError> {
        self.closed_by(at).map_or(Ok(()), |pool| Err(BudgetError::Closed { pool }))
    }

    fn is_free(&self, at: NodeId, units: &Quantities) -> Result<(), BudgetError> {
        let lack = self.nodes[at].lack(units.units());
        lack.map_or(Ok(()), |lack| Err(lack.refusal(self.labels(), self.reading)))
    }

    /// Whether the caps, raised by so much, still fit into a `u64`.
    fn can_rise(&self, at: NodeId, more: &Quantities) -> Result<(), BudgetError> {
        let node = &self.nodes[at];
        let beyond = |&axis: &usize| more.units()[axis] > node.ledger.headroom(axis);
        let Some(axis) = more.axes().find(beyond) else { return Ok(()) };
        let (requested, headroom) = (more.units()[axis], node.ledger.headroom(axis));
        let label = self.labels().label(axis);
        let exceeded = node.exceeded((axis, label), requested, headroom, Outlook::Never, None);
        Err(exceeded.with_cap(u64::MAX).into())
    }

    fn lower(&mut self, at: NodeId, less: &Quantities) {
        let moved = self.nodes[at].moved(less, Ledger::lower);
        self.apply(at, moved);
        self.process_waiters();
    }

    /// Whether the pools above have the units that the share of a pool gains.
    fn can_gain(
        &mut self,
        at: NodeId,
        moved: &Move,
        now: Option<Instant>,
    ) -> Result<(), BudgetError> {
        match self.nodes[at].share_of().filter(|_| moved.gained != NOTHING) {
            Some(parent) => self.admit(parent, &all(moved.gained), now),
            None => Ok(()),
        }
    }

    /// Moves the caps of one pool. The caller serves the waiters.
    fn apply(&mut self, at: NodeId, Move { ledger, gained, lost }: Move) {
        if let Some(parent) = self.nodes[at].share_of() {
            if gained != NOTHING {
                self.nodes.hold(parent, &all(gained), Tally::Admitted);
            }
            self.nodes.give_back(parent, lost);
        }
        self.nodes[at].ledger = ledger;
        self.nodes[at].shrink_window();
        self.call_changed(at);
    }

    /// Moves caps that are free. In the pools that the ways of two shares have in common as much
    /// stays `reserved` as was: a moved unit is never free there, nor pays overage.
    fn move_caps(
        &mut self,
        from: NodeId,
        to: NodeId,
        units: &Quantities,
    ) -> Result<(), BudgetError> {
        let [loser, gainer] = [from, to].map(|pool| self.nodes[pool].share_of());
        let ways = loser.zip(gainer);
        let common = ways.map_or(BTreeSet::new(), |(a, b)| self.nodes.shared(a, b));
        let is_common = |id: NodeId| common.contains(&id);
        let is_apart = |id: NodeId| !is_common(id);
        // Only these change before all is known to fit.
        let apart = |(id, _): &(NodeId, &Node)| is_apart(*id);
        let way = loser.into_iter().flat_map(|loser| self.nodes.way(loser).filter(apart));
        let changing = std::iter::once((from, &self.nodes[from])).chain(way);
        let before: Vec<_> = changing.map(|(id, node)| (id, node.ledger.clone())).collect();

        let share = self.nodes[to].shares();
        let Move { ledger, lost, .. } = self.nodes[from].moved(units, Ledger::lower);
        self.nodes[from].ledger = ledger;
        let returned =
            loser.map_or(NOTHING, |loser| self.nodes.give_back_where(loser, lost, is_apart));
        let Move { ledger, gained, .. } = self.nodes[to].moved(units, Ledger::raise);
        // What the gainer's own share gave back on the way, it does not have to ask for again.
        let drift = beyond(&share, &self.nodes[to].shares());
        let kept = beyond(&gained, &beyond(&gained, &drift));
        let (gained, returned) = (beyond(&gained, &kept), beyond(&returned, &kept));
        // What moves is what both shares take of the pools that they have in common. What comes
        // back beyond that has paid overage on its way, and is free there. It is the same in all of
        // these, but for what is carved between them: beyond a joint pool nothing is.
        let taken = |way: Option<NodeId>, share: &Units| {
            let mut asked = way.into_iter().flat_map(|way| self.nodes.asking(way, share));
            asked.find(|(id, ..)| is_common(*id)).map_or(NOTHING, |(.., asked)| asked)
        };
        let (given, asked) = (taken(loser, &lost), taken(gainer, &gained));
        let missing = beyond(&asked, &given);
        let unused = beyond(&returned, &beyond(&asked, &missing));

        let needed = |id| if is_common(id) { &missing } else { &gained };
        let lack = gainer.and_then(|at| self.nodes.lack_of(at, AxisSet::ALL, needed));
        if let Some(lack) = lack {
            let is_giver = lack.is_of(&self.nodes[from]);
            let refusal = lack.refusal(self.labels(), self.reading);
            before.into_iter().for_each(|(id, ledger)| self.nodes[id].ledger = ledger);
            return Err(if is_giver { self.as_before(from, units, refusal) } else { refusal });
        }
        // What is both asked and given back moves only in name: it was never reserved twice.
        let (missing, unused) = (beyond(&missing, &unused), beyond(&unused, &missing));
        if let Some(gainer) = gainer {
            self.nodes.hold_where(gainer, &all(gained), Tally::Fact, is_apart);
            self.nodes.hold_where(gainer, &all(missing), Tally::Fact, is_common);
        }
        if let Some((loser, _)) = ways {
            self.nodes.give_back_where(loser, unused, is_common);
        }
        self.nodes[to].ledger = ledger;
        Ok(())
    }

    /// A refusal by the pool whose cap was lowered on trial, in the figures of the state that there
    /// is: it would have to have free what its cap loses, too.
    fn as_before(&self, from: NodeId, units: &Quantities, refusal: BudgetError) -> BudgetError {
        let BudgetError::Exceeded(exceeded) = refusal else { return refusal };
        let (ledger, axis) = (&self.nodes[from].ledger, usize::from(exceeded.lane));
        let before = BudgetExceeded {
            requested: exceeded.requested.saturating_add(units.of(axis)),
            available: ledger.free(axis),
            cap: ledger.goal(axis),
            ..exceeded
        };
        before.into()
    }
}

/// So much on every axis.
fn all(units: Units) -> Quantities {
    Quantities::new(AxisSet::ALL, units)
}

/// Axis by axis, what is more than the other.
fn beyond(units: &Units, other: &Units) -> Units {
    std::array::from_fn(|axis| units[axis].saturating_sub(other[axis]))
}

impl Node {
    /// The share of a carved pool on each axis.
    fn shares(&self) -> Units {
        on_each_lane(|axis| if self.carved().contains(axis) { self.ledger.share(axis) } else { 0 })
    }

    /// A copy of the pool's balances after a move of its caps on each of these axes.
    fn moved(&self, units: &Quantities, change: impl Fn(&mut Ledger, usize, u64)) -> Move {
        let mut ledger = self.ledger.clone();
        units.axes().for_each(|axis| change(&mut ledger, axis, units.units()[axis]));
        let (mut gained, mut lost) = (NOTHING, NOTHING);
        for axis in self.carved() {
            if self.closed {
                ledger.surrender(axis);
            }
            let (before, after) = (self.ledger.share(axis), ledger.share(axis));
            gained[axis] = after.saturating_sub(before);
            lost[axis] = before.saturating_sub(after);
        }
        Move { ledger, gained, lost }
    }
}
