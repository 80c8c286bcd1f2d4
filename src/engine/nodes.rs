//! The pools of a tree, and **the** way up from each of them.
//!
//! Every walk from a pool towards the root goes by [`Way`], so that one place says which pools pay
//! for a call. The way is a chain of parents until it meets a *joint* pool, which has several: such
//! a pool keeps the list of all pools above it, made once, and the way follows that list to its
//! end. Nothing here recurses: a tree may be as deep as memory allows.
//!
//! A *carved* pool keeps a share of its parent's caps for itself. A call is not admitted again on
//! those axes above the carve; [`Way`] is the one place for that rule. No carved pool has a joint
//! one below it, so that the carves of a way all come before the first joint pool on it.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};
use std::time::{Duration, Instant};

use super::arena::{Arena, Placed};
use super::idempotency::Keys;
use super::ledger::Ledger;
use super::lifecycle::Idle;
use super::queue::Line;
use super::refill::Refill;
use crate::types::amount::{Amount, Caps};
use crate::types::axis::{AxisSet, Labels, Quantities, Units};
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;
use crate::types::snapshot::Counts;

/// The id of a pool while the pool exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(NonZeroU32);

impl NodeId {
    pub(crate) const ROOT: NodeId = NodeId(NonZeroU32::MIN);

    /// The slot of a pool below the root, which has none.
    #[inline]
    fn slot(self) -> Option<usize> {
        self.0.get().checked_sub(2).map(|slot| slot as usize)
    }

    fn of_slot(slot: usize) -> NodeId {
        let id = u32::try_from(slot).ok().and_then(|slot| slot.checked_add(2));
        NodeId(id.and_then(NonZeroU32::new).expect("2^32 pools never live at once"))
    }
}

/// The arena. The root lies in place, beside the lock: no index leads to it, and a tree of one pool
/// is one allocation.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Nodes {
    root: Node,
    below: Arena<Node>,
    /// How many pools have a window.
    windows: u32,
    /// How many pools have several parents.
    joints: u32,
}

/// A pool. The first fields are those that a `record` changes: they lie together.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Node {
    pub(super) ledger: Ledger,
    pub(super) counts: Counts,
    /// Of several parents the first.
    parent: Option<NodeId>,
    /// The axes on which this pool's caps are reserved in its parent.
    carved: AxisSet,
    /// Whether the pool is neither carved nor joint: then the way goes on at its one parent, with
    /// the same units.
    is_plain: bool,
    /// Closed, or below a closed pool.
    pub(super) closed: bool,
    /// The end of a hold on this pool whose owner goes away without a word.
    pub(super) on_drop: OnDrop,
    /// Whether anything outside can still reach this pool.
    handle: bool,
    /// No pool: the place is free.
    is_free: bool,
    /// The `OnDrop` that the pool itself was given, whatever those above were given.
    own_on_drop: Option<OnDrop>,
    /// How many may wait here and below.
    pub(super) most_waiting: u32,
    /// The children of which this pool is the first parent are in a list through them.
    children: Option<NodeId>,
    next: Option<NodeId>,
    previous: Option<NodeId>,
    /// Live holds that may expire, on this pool and on those below it.
    pub(super) expiring: u32,
    /// In a box, as few pools have any.
    joins: Option<Box<Joins>>,
    /// The earliest on the way up.
    pub(super) deadline: Option<Deadline>,
    pub(super) window: Option<Box<Refill>>,
    pub(super) keys: Option<Box<Keys>>,
    /// In a box, as few pools are told.
    funding: Option<Box<Funding>>,
    pub(super) name: Name,
    pub(super) line: Line,
}

/// What a new pool has from the pool above it.
#[derive(Debug, Clone, Copy)]
struct Above {
    id: NodeId,
    closed: bool,
    on_drop: OnDrop,
    deadline: Option<Deadline>,
    /// Its next sibling.
    first_child: Option<NodeId>,
}

/// What a pool is told of its funding.
#[derive(Debug, Default)]
struct Funding {
    /// How far the caps may still be raised.
    ceiling: Quantities,
    /// The units that are to be free at least, before more is wanted.
    low: Quantities,
}

/// The part of a pool in joint pools: it is one, or it is a further parent of some.
#[derive(Debug, Default)]
struct Joins {
    /// Of a joint pool: its parents but the first.
    further: Box<[NodeId]>,
    /// Of a joint pool: all pools above it, in the order of the way.
    above: Box<[NodeId]>,
    /// The joint pools of which this one is a further parent.
    children: BTreeSet<NodeId>,
}

/// The parts of a new pool.
#[derive(Debug)]
pub(crate) struct Spec {
    pub(crate) name: Name,
    pub(crate) caps: Caps,
    pub(crate) deadline: Option<Deadline>,
    /// In a box, as all that few pools have: a pool is moved several times before it has its place.
    pub(crate) window: Option<Box<Refill>>,
    pub(crate) keys: Option<Box<Keys>>,
    /// The units used before the pool was built, as is known from elsewhere.
    pub(crate) used: Option<Box<Amount>>,
    pub(crate) ceiling: Option<Box<Caps>>,
    /// The units that are to be free at least, before more is wanted.
    pub(crate) low: Option<Box<Amount>>,
    /// As the pool above, if not set.
    pub(crate) on_drop: Option<OnDrop>,
    /// How many may wait here and below.
    pub(crate) most_waiting: u32,
}

impl Spec {
    /// All labels that it brings to its tree.
    #[inline]
    pub(super) fn labels(&self) -> Labels {
        let labels = [
            self.used.as_ref().map(|used| used.labels()),
            self.ceiling.as_ref().map(|of| of.labels()),
            self.low.as_ref().map(|low| low.labels()),
        ];
        labels.into_iter().flatten().fold(self.caps.labels(), Labels::or)
    }
}

#[cfg(test)]
impl Spec {
    /// A pool of these caps alone.
    pub(crate) fn of(caps: Caps) -> Spec {
        Spec {
            name: Name::DEFAULT,
            caps,
            deadline: None,
            window: None,
            keys: None,
            used: None,
            ceiling: None,
            low: None,
            on_drop: None,
            most_waiting: u32::MAX,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    /// How long it was from the start.
    pub(crate) total: Duration,
}

/// The way up from a pool: that pool, then every pool above it, each once, children before their
/// parents, and parents in the order in which a joint pool was given them. A cursor that borrows
/// nothing, so that a walk may change the pools it visits.
///
/// **The carve rule.** Above a carved pool nothing is asked on the axes that it carves: its share
/// is reserved there already. The other axes are [open](Way::open).
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    next: Option<NodeId>,
    /// Whether all pools so far are plain.
    is_plain: bool,
    /// The axes on which the pool that was visited last is asked.
    open: AxisSet,
    /// The axes that the pool keeps from those above it.
    carved: AxisSet,
    /// The first joint pool that was met, and the place in its list of the pool after the next.
    joint: Option<NodeId>,
    place: u32,
}

impl Way {
    #[inline]
    pub(super) fn from(at: NodeId) -> Way {
        Way {
            next: Some(at),
            is_plain: true,
            open: AxisSet::ALL,
            carved: AxisSet::EMPTY,
            joint: None,
            place: 0,
        }
    }

    #[inline]
    pub(super) fn up(&mut self, nodes: &Nodes) -> Option<NodeId> {
        self.visit(nodes).map(|(id, _)| id)
    }

    /// [`up`](Way::up), for a look at the pool.
    #[inline]
    pub(super) fn visit<'a>(&mut self, nodes: &'a Nodes) -> Option<(NodeId, &'a Node)> {
        let id = self.next?;
        let node = &nodes[id];
        self.pass(id, node, nodes);
        Some((id, node))
    }

    #[inline]
    pub(super) fn up_mut<'a>(&mut self, nodes: &'a mut Nodes) -> Option<(NodeId, &'a mut Node)> {
        let id = self.up(nodes)?;
        Some((id, &mut nodes[id]))
    }

    #[inline]
    fn pass(&mut self, id: NodeId, node: &Node, nodes: &Nodes) {
        self.next = node.parent;
        if !(self.is_plain && node.is_plain) {
            *self = self.past_other(id, nodes);
        }
    }

    /// The way past a pool that is not plain, or that is above such a one. By value, so that the
    /// cursor of a plain way need not lie in memory.
    #[cold]
    #[inline(never)]
    fn past_other(mut self, id: NodeId, nodes: &Nodes) -> Way {
        let node = &nodes[id];
        self.is_plain = false;
        self.open = self.open.difference(self.carved);
        self.carved = node.carved;
        if self.joint.is_none() && node.is_joint() {
            self.joint = Some(id);
        }
        if let Some(joint) = self.joint {
            self.next = nodes[joint].listed(self.place);
            self.place += 1;
        }
        self
    }

    /// The axes on which the pool that was visited last is asked.
    #[inline]
    pub(super) fn open(&self) -> AxisSet {
        self.open
    }
}

/// The [way](Way) up as far as it is [plain](Node::is_plain): pool, parent, and so on. Most ways are
/// no more than that, and a step of it costs the least.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chain {
    next: Option<NodeId>,
}

impl Chain {
    #[inline(always)]
    pub(super) fn from(at: NodeId) -> Chain {
        Chain { next: Some(at) }
    }

    /// The next pool. If that is not plain, the caller goes on from it by the whole way.
    #[inline(always)]
    pub(super) fn up_mut<'a>(&mut self, nodes: &'a mut Nodes) -> Option<(NodeId, &'a mut Node)> {
        let id = self.next?;
        let node = &mut nodes[id];
        self.next = node.parent;
        Some((id, node))
    }
}

/// The [way](Way) up from a joint pool: that pool, and its list.
#[derive(Debug, Clone, Copy)]
pub(super) struct List {
    joint: NodeId,
    next: Option<NodeId>,
    place: u32,
}

impl List {
    pub(super) fn from(joint: NodeId) -> List {
        List { joint, next: Some(joint), place: 0 }
    }

    #[inline]
    pub(super) fn up_mut<'a>(&mut self, nodes: &'a mut Nodes) -> Option<(NodeId, &'a mut Node)> {
        let id = self.next?;
        self.next = nodes[self.joint].listed(self.place);
        self.place += 1;
        Some((id, &mut nodes[id]))
    }
}

/// The [way](Way) up, with the units that a call asks of each pool on it.
#[derive(Debug, Clone)]
pub(super) struct Asking {
    way: Way,
    units: Units,
}

impl Asking {
    #[inline]
    pub(super) fn from(at: NodeId, units: &Units) -> Asking {
        Asking { way: Way::from(at), units: *units }
    }

    /// The next pool; [`units`](Asking::units) then has the units asked of it.
    #[inline]
    pub(super) fn up(&mut self, nodes: &Nodes) -> Option<NodeId> {
        let id = self.way.up(nodes)?;
        for axis in AxisSet::ALL.difference(self.way.open) {
            self.units[axis] = 0;
        }
        Some(id)
    }

    #[inline]
    pub(super) fn units(&self) -> &Units {
        &self.units
    }
}

impl Nodes {
    pub(super) fn new(root: Spec) -> Nodes {
        let windows = u32::from(root.window.is_some());
        let (place, below) = (Node::FREE, Arena::default());
        let mut nodes = Nodes { root: place, below, windows, joints: 0 };
        nodes.root.begin(root, None, AxisSet::EMPTY);
        nodes
    }

    /// A pool below `parent`, first among its children. Its caps on `carved` are a share of the
    /// parent's.
    pub(super) fn insert(&mut self, parent: NodeId, spec: Spec, carved: AxisSet) -> NodeId {
        self.windows += u32::from(spec.window.is_some());
        let id = NodeId::of_slot(self.below.take());
        let above = self[parent].above(parent);
        self.place_mut(id).begin(spec, Some(above), carved);
        if let Some(next) = above.first_child {
            self[next].previous = Some(id);
        }
        self[parent].children = Some(id);
        id
    }

    /// A pool below all of these at once, which are different, not carved, and below no carved
    /// pool.
    pub(super) fn join(&mut self, parents: &[NodeId], spec: Spec) -> NodeId {
        let (deadline, on_drop) = (spec.deadline, spec.on_drop);
        let (&first, further) = parents.split_first().expect("a joint pool has a parent");
        let id = self.insert(first, spec, AxisSet::EMPTY);
        if further.is_empty() {
            return id;
        }
        let above = self.merged(parents);
        let those_above = || above.iter().map(|&id| &self[id]);
        let closed = those_above().any(|node| node.closed);
        // Of equal ones that of the outermost pool.
        let deadlines = those_above().rev().filter_map(|node| node.deadline).chain(deadline);
        let deadline = deadlines.min_by_key(|deadline| deadline.at);
        let on_drop = on_drop.or_else(|| those_above().find_map(|node| node.own_on_drop));
        let node = &mut self[id];
        (node.closed, node.deadline) = (closed, deadline);
        node.on_drop = on_drop.unwrap_or_default();
        node.is_plain = false;
        let joins = node.joins.get_or_insert_default();
        (joins.further, joins.above) = (further.into(), above.into());
        for &parent in further {
            self[parent].joins.get_or_insert_default().children.insert(id);
        }
        self.joints += 1;
        id
    }

    /// The ways of several pools in one, each pool once. All above a pool come behind it wherever
    /// it stands: so they do where each stands last.
    fn merged(&self, pools: &[NodeId]) -> Vec<NodeId> {
        let ways = pools.iter().flat_map(|&pool| self.way(pool).map(|(id, _)| id));
        let (mut merged, mut seen): (Vec<NodeId>, _) = (ways.collect(), BTreeSet::new());
        merged.reverse();
        merged.retain(|id| seen.insert(*id));
        merged.reverse();
        merged
    }

    /// Takes a pool out of the tree that has no children. Returns the first of its parents, and the
    /// others. The root stays: with it goes the tree.
    pub(super) fn remove(&mut self, id: NodeId) -> (Option<NodeId>, Box<[NodeId]>) {
        let Some(slot) = id.slot() else { return (None, Box::default()) };
        let Node { parent, next, previous, .. } = self[id];
        if let Some(next) = next {
            self[next].previous = previous;
        }
        match (previous, parent) {
            (Some(previous), _) => self[previous].next = next,
            (None, Some(parent)) => self[parent].children = next,
            (None, None) => {}
        }
        self.windows -= u32::from(self[id].window.is_some());
        let joins = self[id].end();
        self.below.give_back(slot);
        let further = joins.map_or(Box::default(), |joins| joins.further);
        for &parent in &further {
            let joins = self[parent].joins.as_mut().expect("it is the parent of a joint pool");
            joins.children.remove(&id);
        }
        self.joints -= u32::from(!further.is_empty());
        (parent, further)
    }

    /// The place of a pool, or a free one.
    #[inline]
    fn place(&self, id: NodeId) -> &Node {
        match id.slot() {
            None => &self.root,
            Some(slot) => &self.below[slot],
        }
    }

    #[inline]
    fn place_mut(&mut self, id: NodeId) -> &mut Node {
        match id.slot() {
            None => &mut self.root,
            Some(slot) => &mut self.below[slot],
        }
    }

    /// Whether a pool is in the tree.
    pub(super) fn contains(&self, id: NodeId) -> bool {
        !self.place(id).is_free
    }

    /// How many pools there are.
    pub(super) fn len(&self) -> usize {
        self.below.len() + 1
    }

    /// How many pools of the tree have several parents.
    pub(super) fn joints(&self) -> usize {
        self.joints as usize
    }

    /// Whether any pool of the tree has several parents.
    #[inline]
    pub(super) fn has_joints(&self) -> bool {
        self.joints > 0
    }

    /// Whether any pool of the tree has a window.
    #[inline]
    pub(super) fn has_windows(&self) -> bool {
        self.windows > 0
    }

    /// The pools on the way up.
    pub(super) fn way(&self, at: NodeId) -> impl Iterator<Item = (NodeId, &Node)> {
        let mut way = Way::from(at);
        std::iter::from_fn(move || way.visit(self))
    }

    /// The pools on the way up, each with the axes on which it is asked.
    #[inline]
    pub(super) fn open_way(&self, at: NodeId) -> impl Iterator<Item = (NodeId, &Node, AxisSet)> {
        let mut way = Way::from(at);
        std::iter::from_fn(move || way.visit(self).map(|(id, node)| (id, node, way.open())))
    }

    /// The pools on the way up, each with the units asked of it.
    pub(super) fn asking(
        &self,
        at: NodeId,
        units: &Units,
    ) -> impl Iterator<Item = (NodeId, &Node, Units)> {
        let mut asking = Asking::from(at, units);
        std::iter::from_fn(move || {
            let id = asking.up(self)?;
            Some((id, &self[id], *asking.units()))
        })
    }

    /// The pools that two ways share: with a pool all those above it.
    pub(super) fn shared(&self, a: NodeId, b: NodeId) -> BTreeSet<NodeId> {
        let other: BTreeSet<NodeId> = self.way(b).map(|(id, _)| id).collect();
        self.way(a).map(|(id, _)| id).filter(|id| other.contains(id)).collect()
    }

    /// Changes every pool on the way up.
    #[inline]
    pub(super) fn change_way(&mut self, at: NodeId, mut change: impl FnMut(&mut Node)) {
        let mut way = Way::from(at);
        while let Some((_, node)) = way.up_mut(self) {
            change(node);
        }
    }

    /// The children of a pool: those of which it is the first parent, and then the others.
    pub(super) fn children(&self, at: NodeId) -> impl Iterator<Item = NodeId> {
        let joined = self[at].joins.iter().flat_map(|joins| joins.children.iter().copied());
        self.own_children(at).chain(joined)
    }

    /// The children of which a pool is the first parent.
    fn own_children(&self, at: NodeId) -> impl Iterator<Item = NodeId> {
        std::iter::successors(self[at].children, |&child| self[child].next)
    }

    /// The pools below one, parents before their children, each with its depth: a child's is 1.
    pub(super) fn below(&self, at: NodeId) -> impl Iterator<Item = (NodeId, usize)> {
        let mut walk = Below::from(at, self);
        std::iter::from_fn(move || walk.next(self))
    }

    /// The pools above those below one, as far as they are neither below nor above that one. Only a
    /// joint pool has such.
    pub(super) fn beside(&self, at: NodeId) -> BTreeSet<NodeId> {
        if !self.is_entangled(at) {
            return BTreeSet::new();
        }
        let below: BTreeSet<NodeId> = self.below(at).map(|(id, _)| id).collect();
        let way: BTreeSet<NodeId> = self.way(at).map(|(id, _)| id).collect();
        let joints = below.iter().filter(|&&id| self[id].is_joint());
        let above = joints.flat_map(|&id| self.way(id).map(|(id, _)| id));
        above.filter(|id| !below.contains(id) && !way.contains(id)).collect()
    }

    /// Whether a pool below this one may stand below others, too, that are not. All pools are below
    /// the root.
    fn is_entangled(&self, at: NodeId) -> bool {
        self.has_joints() && at != NodeId::ROOT
    }

    /// [`below`](Nodes::below), where joint pools may be found by several parents: each is listed
    /// below the first of its parents that is the top of the walk or below it.
    fn list_below(&self, top: NodeId) -> Vec<(NodeId, usize)> {
        let (mut part, mut open) = (BTreeSet::from([top]), vec![top]);
        while let Some(id) = open.pop() {
            open.extend(self.children(id).filter(|child| part.insert(*child)));
        }
        let (mut list, mut open) = (Vec::new(), vec![(top, 0)]);
        while let Some((id, depth)) = open.pop() {
            list.extend((id != top).then_some((id, depth)));
            let is_listed_here = |child: &NodeId| {
                self[*child].parents().find(|above| part.contains(above)) == Some(id)
            };
            open.extend(self.children(id).filter(is_listed_here).map(|child| (child, depth + 1)));
        }
        list
    }
}

/// A walk over the pools below one, each once, parents before their children; but a joint pool may
/// come before a parent that is not the first. It borrows nothing, as [`Way`].
#[derive(Debug)]
pub(super) struct Below {
    at: NodeId,
    depth: usize,
    /// The pools to come, where the links of first parents do not lead to all of them.
    listed: Option<std::vec::IntoIter<(NodeId, usize)>>,
}

impl Below {
    pub(super) fn from(at: NodeId, nodes: &Nodes) -> Below {
        let listed = nodes.is_entangled(at).then(|| nodes.list_below(at).into_iter());
        Below { at, depth: 0, listed }
    }

    pub(super) fn next(&mut self, nodes: &Nodes) -> Option<(NodeId, usize)> {
        if let Some(listed) = &mut self.listed {
            return listed.next();
        }
        if let Some(child) = nodes[self.at].children {
            (self.at, self.depth) = (child, self.depth + 1);
            return Some((self.at, self.depth));
        }
        while self.depth > 0 {
            let node = &nodes[self.at];
            if let Some(next) = node.next {
                self.at = next;
                return Some((self.at, self.depth));
            }
            self.at = node.parent.expect("a pool at a depth has a parent");
            self.depth -= 1;
        }
        None
    }
}

impl Node {
    /// A pool begins in a free place.
    #[inline(always)]
    fn begin(&mut self, spec: Spec, above: Option<Above>, carved: AxisSet) {
        self.ledger.begin(spec.caps.quantities());
        if let Some(used) = spec.used.map(|used| *used.quantities()) {
            used.axes().for_each(|axis| self.ledger.set_spent(axis, used.units()[axis].into()));
        }
        self.counts = Counts::NONE;
        self.parent = above.map(|above| above.id);
        self.carved = carved;
        self.is_plain = carved.is_empty();
        self.closed = above.is_some_and(|above| above.closed);
        self.on_drop = spec.on_drop.or(above.map(|above| above.on_drop)).unwrap_or_default();
        self.handle = true;
        self.is_free = false;
        self.own_on_drop = spec.on_drop;
        self.most_waiting = spec.most_waiting;
        self.children = None;
        self.next = above.and_then(|above| above.first_child);
        self.previous = None;
        self.expiring = 0;
        let deadlines = above.and_then(|above| above.deadline).into_iter().chain(spec.deadline);
        self.deadline = deadlines.min_by_key(|deadline| deadline.at);
        self.window = spec.window;
        self.keys = spec.keys;
        self.name = spec.name;
        if spec.ceiling.is_some() || spec.low.is_some() {
            let ceiling = spec.ceiling.map_or(Quantities::NONE, |of| *of.quantities());
            let low = spec.low.map_or(Quantities::NONE, |low| low.all());
            self.funding = Some(Box::new(Funding { ceiling, low }));
        }
    }

    /// The pool is gone. It gives up all memory but its place, and its joins to the caller.
    #[inline]
    fn end(&mut self) -> Option<Box<Joins>> {
        self.ledger.clear();
        (self.window, self.keys, self.funding) = (None, None, None);
        self.name = Name::DEFAULT;
        self.line = Line::NONE;
        self.joins.take()
    }

    #[inline]
    fn above(&self, id: NodeId) -> Above {
        let Node { closed, on_drop, deadline, children: first_child, .. } = *self;
        Above { id, closed, on_drop, deadline, first_child }
    }

    /// The axes on which this pool's caps are reserved in its parent.
    #[inline]
    pub(super) fn carved(&self) -> AxisSet {
        self.carved
    }

    #[inline]
    pub(super) fn is_carved(&self) -> bool {
        !self.carved.is_empty()
    }

    /// The parent, if it keeps a share for this pool.
    pub(super) fn share_of(&self) -> Option<NodeId> {
        self.parent.filter(|_| self.is_carved())
    }

    /// The last handle has gone.
    pub(super) fn drop_handle(&mut self) {
        self.handle = false;
    }

    /// Whether nothing can reach this pool any more.
    pub(super) fn is_unreachable(&self) -> bool {
        let has_joined = || self.joins.as_ref().is_some_and(|joins| !joins.children.is_empty());
        !self.handle && self.children.is_none() && !has_joined()
    }

    /// Whether this pool has several parents.
    #[inline]
    pub(super) fn is_joint(&self) -> bool {
        !self.is_plain && !self.is_carved()
    }

    /// Whether the pool is neither carved nor joint.
    #[inline]
    pub(super) fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The pool at a place of the list of all above a joint pool.
    #[inline]
    fn listed(&self, place: u32) -> Option<NodeId> {
        self.joins.as_ref()?.above.get(place as usize).copied()
    }

    /// The parents, in the order in which they were given.
    fn parents(&self) -> impl Iterator<Item = NodeId> {
        let further = self.joins.iter().flat_map(|joins| joins.further.iter().copied());
        self.parent.into_iter().chain(further)
    }

    /// Whether there is room for `units`, of which only those on `open` axes are asked here.
    #[inline]
    pub(super) fn fits(&self, units: &Units, open: AxisSet) -> bool {
        let fits_open = || self.ledger.lacking(units, open).is_empty();
        self.ledger.fits(units) || (open != AxisSet::ALL && fits_open())
    }

    /// Whether any of these units is on an open axis that has a cap here.
    #[inline]
    pub(super) fn caps_any(&self, units: &Units, open: AxisSet) -> bool {
        self.ledger.capped().intersection(open).any(|axis| units[axis] > 0)
    }

    /// Whether a waiter may be served by the expiry of a hold here.
    pub(super) fn is_contested(&self) -> bool {
        self.expiring > 0 && self.line.has_parked()
    }

    /// Caps may be raised so far.
    pub(super) fn set_ceiling(&mut self, ceiling: &Quantities) {
        let funding = self.funding.get_or_insert_default();
        funding.ceiling = funding.ceiling.overlaid(ceiling);
    }

    /// How far the caps may still be raised, if the pool is told.
    pub(super) fn ceiling(&self) -> Option<&Quantities> {
        self.funding.as_ref().map(|of| &of.ceiling).filter(|ceiling| !ceiling.axes().is_empty())
    }

    /// So many units are to be free at least, before more is wanted.
    #[cfg(test)]
    pub(super) fn set_low(&mut self, low: &Quantities) {
        self.funding.get_or_insert_default().low = *low;
    }

    /// The units that are to be free at least, before more is wanted.
    pub(super) fn low(&self) -> Option<&Quantities> {
        self.funding.as_ref().map(|of| &of.low).filter(|low| !low.axes().is_empty())
    }

    /// How much further the cap of an axis may be raised.
    pub(super) fn growth(&self, axis: usize) -> u64 {
        let beyond = |ceiling: u64| ceiling.saturating_sub(self.ledger.goal(axis));
        self.funding.as_ref().map_or(0, |of| beyond(of.ceiling.of(axis)))
    }

    /// The spend of this period becomes the figure given.
    pub(super) fn set_spent(&mut self, axis: usize, spent: u64) {
        self.ledger.set_spent(axis, spent.into());
        self.shrink_window();
    }

    /// Less may be owed than before: so has the window to bring back.
    pub(super) fn shrink_window(&mut self) {
        if let Some(window) = &mut self.window {
            window.shrink(&self.ledger);
        }
    }

    /// Brings the balances up to an instant. Returns whether anything came free.
    pub(super) fn refill(&mut self, now: Instant) -> bool {
        self.window.as_mut().is_some_and(|window| window.advance(&mut self.ledger, now))
    }

    /// When nothing will be used or owed here any more, if nobody touches the pool. A spend that
    /// time never brings back under a window, as the axis has no cap, is a mere count.
    pub(super) fn balances_idle(&self) -> Idle {
        let of_axis = |axis| {
            let owed = self.ledger.owed(axis);
            if owed == 0 {
                return Idle::Now;
            }
            let Some(window) = self.window.as_deref() else { return Idle::Never };
            match window.when(&self.ledger, axis, owed, 0) {
                Some(at) => Idle::From(at),
                None if self.ledger.cap(axis).is_none() => Idle::Now,
                None => Idle::Never,
            }
        };
        AxisSet::ALL.into_iter().map(of_axis).fold(Idle::Now, Idle::max)
    }

    /// Whether a period ends here by an instant in which holds may have expired.
    pub(super) fn ends_period_of_holds(&self, now: Instant) -> bool {
        self.expiring > 0 && self.window.as_ref().is_some_and(|window| window.turns_by(now))
    }

    #[inline]
    pub(super) fn late(&self, now: Option<Instant>) -> Option<(Deadline, Instant)> {
        let deadline = self.deadline?;
        let now = now.expect("a way with a deadline reads the clock");
        (now >= deadline.at).then_some((deadline, now))
    }
}

/// The next free place is the sibling.
impl Placed for Node {
    const FREE: Node = Node {
        ledger: Ledger::NONE,
        counts: Counts::NONE,
        parent: None,
        carved: AxisSet::EMPTY,
        is_plain: true,
        closed: false,
        on_drop: OnDrop::Release,
        handle: false,
        is_free: true,
        own_on_drop: None,
        most_waiting: u32::MAX,
        children: None,
        next: None,
        previous: None,
        expiring: 0,
        joins: None,
        deadline: None,
        window: None,
        keys: None,
        funding: None,
        name: Name::DEFAULT,
        line: Line::NONE,
    };

    #[inline]
    fn next_free(&self) -> Option<u32> {
        let next = self.next.and_then(NodeId::slot).filter(|_| self.is_free);
        next.map(|slot| slot as u32)
    }

    #[inline]
    fn free(&mut self, next: u32) {
        (self.is_free, self.next) = (true, Some(NodeId::of_slot(next as usize)));
    }
}

impl Index<NodeId> for Nodes {
    type Output = Node;

    #[inline]
    fn index(&self, id: NodeId) -> &Node {
        debug_assert!(self.contains(id), "nobody knows a pool that is gone");
        self.place(id)
    }
}

impl IndexMut<NodeId> for Nodes {
    #[inline]
    fn index_mut(&mut self, id: NodeId) -> &mut Node {
        debug_assert!(self.contains(id), "nobody knows a pool that is gone");
        self.place_mut(id)
    }
}

#[cfg(any(test, debug_assertions))]
impl Nodes {
    /// Links lead both ways, windows and joint pools are counted, children have inherited from
    /// their parents, and the list of a joint pool follows from its parents.
    pub(super) fn check_invariants(&self) {
        let mut found = 1;
        for (id, _) in self.below(NodeId::ROOT) {
            found += 1;
            let node = &self[id];
            for parent in node.parents() {
                let parent = &self[parent];
                assert!(node.closed || !parent.closed, "a pool below a closed one is closed");
                let above = parent.deadline.map(|above| above.at);
                assert!(above.is_none_or(|above| node.deadline.is_some_and(|own| own.at <= above)));
            }
            let first = node.parent.expect("only the root has none");
            let siblings: Vec<_> = self.own_children(first).collect();
            let before = siblings.iter().position(|&child| child == id).expect("it is its child");
            let previous = before.checked_sub(1).map(|before| siblings[before]);
            assert_eq!(node.previous, previous, "siblings know each other");
            for parent in node.parents() {
                assert_eq!(self.children(parent).filter(|child| *child == id).count(), 1);
            }
            match &node.joins {
                Some(joins) if node.is_joint() => {
                    let parents: Vec<_> = node.parents().collect();
                    assert_eq!(*joins.above, *self.merged(&parents), "the way above a joint pool");
                    let carved = joins.above.iter().any(|&above| self[above].is_carved());
                    assert!(parents.len() > 1 && !carved && !node.is_carved());
                }
                joins => {
                    assert!(joins.as_ref().is_none_or(|joins| joins.further.is_empty()));
                    assert_eq!(node.is_plain, !node.is_carved());
                }
            }
        }
        assert_eq!(found, self.len(), "every pool is below the root");
        assert_eq!(found, self.below.iter().count() + 1, "every place is a pool's, or free");
        self.below.check_invariants();
        let windowed = self.ids().filter(|&id| self[id].window.is_some()).count();
        assert_eq!(windowed, self.windows as usize, "windows are counted");
        let joints = self.ids().filter(|&id| self[id].is_joint()).count();
        assert_eq!(joints, self.joints as usize, "joint pools are counted");
    }

    /// Every pool of the tree.
    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        std::iter::once(NodeId::ROOT).chain(self.below(NodeId::ROOT).map(|(id, _)| id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::axis::lane;
    use crate::{Usd, Window};

    /// Many pools are cheap: one is eight cache lines at most.
    #[test]
    fn a_pools_place_is_small() {
        assert!(size_of::<Node>() <= 512, "{}", size_of::<Node>());
    }

    /// A pool that has all that a pool may have, and has been used, is gone.
    fn leave(nodes: &mut Nodes) {
        let (now, tokens) = (Instant::now(), |units| Box::new(Amount::new().tokens(units)));
        let other = nodes.insert(NodeId::ROOT, Spec::of(Caps::new()), AxisSet::EMPTY);
        let spec = Spec {
            name: "a name too long to lie in place".into(),
            caps: Caps::new().tokens(9),
            deadline: Some(Deadline { at: now, total: Duration::MAX }),
            window: Some(Box::new(Refill::start(Window::fixed(Duration::MAX), now))),
            keys: Some(Box::new(Keys::new(1, Duration::MAX))),
            used: Some(tokens(10)),
            ceiling: Some(Box::new(Caps::new().tokens(20))),
            low: Some(tokens(1)),
            on_drop: Some(OnDrop::Commit),
            most_waiting: 1,
        };
        let id = nodes.insert(NodeId::ROOT, spec, AxisSet::of(lane::TOKENS));
        let sibling = nodes.insert(NodeId::ROOT, Spec::of(Caps::new()), AxisSet::EMPTY);
        let joint = nodes.join(&[other, id], Spec::of(Caps::new()));
        let node = &mut nodes[id];
        (node.closed, node.handle, node.expiring, node.counts.expired) = (true, false, 1, 1);
        node.ledger.reset(AxisSet::EMPTY);
        node.ledger.hold(Quantities::NONE.with(lane::TOKENS, 5).units(), AxisSet::ALL);
        node.ledger.set_cap(lane::TOKENS, 3);
        for gone in [joint, sibling, other, id] {
            nodes.remove(gone);
        }
    }

    #[test]
    fn a_pool_is_the_same_in_a_new_place_and_in_a_free_one() {
        let child = |nodes: &mut Nodes| {
            let id =
                nodes.insert(NodeId::ROOT, Spec::of(Caps::new().usd(Usd::MAX)), AxisSet::EMPTY);
            format!("{:?}", nodes[id])
        };
        let (mut new, mut free) = [(); 2].map(|()| Nodes::new(Spec::of(Caps::new()))).into();
        leave(&mut free);
        assert_eq!((free.len(), free.below.places()), (1, 4));
        assert_eq!(child(&mut free), child(&mut new));
        assert_eq!((free.len(), free.below.places()), (2, 4));
        free.check_invariants();
    }

    /// A tree that was large once keeps the places, and no more.
    #[test]
    fn a_free_place_holds_no_memory() {
        let mut nodes = Nodes::new(Spec::of(Caps::new()));
        leave(&mut nodes);
        for place in (0..nodes.below.places()).map(|slot| &nodes.below[slot]) {
            let Node { joins, window, keys, funding, name, ledger, .. } = place;
            assert!(joins.is_none() && window.is_none() && keys.is_none() && funding.is_none());
            assert!(*name == Name::DEFAULT && ledger.holds_no_memory());
        }
    }

    #[test]
    fn p8_windows_that_are_gone_are_not_counted() {
        let now = Instant::now();
        let window = || Some(Refill::start(Window::fixed(Duration::MAX), now));
        let spec = || Spec { window: window().map(Box::new), ..Spec::of(Caps::new()) };
        let mut nodes = Nodes::new(spec());
        let child = nodes.insert(NodeId::ROOT, spec(), AxisSet::EMPTY);
        assert_eq!((nodes.windows, nodes.len()), (2, 2));
        nodes.remove(child);
        assert_eq!((nodes.windows, nodes.len()), (1, 1));
    }
}
