//! Who waits, in what order, blocked where. Pure: wakers are stored and handed out, never woken
//! here.
//!
//! Each pool has one queue, first come, first served, by ticket. Only the head of a queue is a
//! *candidate*. A candidate is *blocked* at the first pool on its way up that refuses it, for lack
//! of room or because an earlier candidate is parked there. It is *parked* there, and at the pools
//! on the way that it would have passed: it keeps its place in all of them, so that streams of
//! small ones in two pools cannot take turns to starve a large one that needs both. A pool
//! that gains room, or loses a candidate, tries the first that is parked at it: one that is still
//! refused where it is blocked stays, one that is now blocked elsewhere moves there. So a small one
//! cannot starve a large one, one that is blocked in a child does not hold up those outside of it,
//! and the cost is that of the grants and the moves.
//!
//! Those compete at a pool who ask it for something that is capped there: on a carved axis nothing
//! is asked above the carve. One that is blocked where it does not compete (all that can be counted
//! of an axis without a cap is taken) waits its turn there, too: so as long as the first that is
//! parked at a pool stays, all that are blocked there do.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::task::{Poll, Waker};
use std::time::Instant;

use slab::Slab;

use crate::engine::hold::HoldKey;
use crate::engine::nodes::{NodeId, Tree, first_refusal};
use crate::types::axis::{Axis, Quantities, Units};
use crate::types::error::{BudgetError, Outlook};

/// The order of arrival; never given out twice.
type Ticket = u64;

/// Names one wait, until its owner collects or cancels it.
pub(crate) type WaitKey = usize;

/// Names one that waits for its pool to be closed; never given out twice.
pub(crate) type ClosingKey = u64;

/// All that wait in a tree of pools.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    all: Slab<Wait>,
    /// How many are neither granted nor refused.
    pub(crate) waiting: usize,
    last_ticket: Ticket,
    /// Candidates that may no longer be held where they are parked, the earliest first. Empty
    /// between transitions.
    called: BinaryHeap<Reverse<(Ticket, WaitKey)>>,
    /// Pools in which somebody waits for a deadline to come first.
    due: BTreeSet<(Instant, NodeId)>,
    /// Of those that were granted, refused, told or reminded; to be woken outside the lock, in
    /// this order.
    pub(crate) wakers: VecDeque<Waker>,
    /// Those that wait for a pool to be closed, by pool: a close looks at its own alone.
    closings: BTreeMap<(NodeId, ClosingKey), Option<Waker>>,
    last_closing: ClosingKey,
}

#[derive(Debug)]
struct Wait {
    ticket: Ticket,
    home: NodeId,
    asked: Quantities,
    /// Where a candidate is blocked; it is parked from its own pool up to this one.
    blocked: Option<NodeId>,
    outcome: Option<Result<HoldKey, BudgetError>>,
    waker: Option<Waker>,
    /// When its owner will look again by itself, if ever.
    alarm: Option<Instant>,
}

/// So much of an axis, by a wait.
type Asked = (usize, u64, WaitKey);

/// The waits of one pool.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Those of this pool, by ticket.
    own: BTreeMap<Ticket, WaitKey>,
    /// The candidates, of this pool and of those below, that wait for this pool or pass it on
    /// their way.
    parked: BTreeMap<Ticket, WaitKey>,
    /// How many wait, in this pool and in those below.
    pub(crate) waiting: u64,
    /// At least what any of them asks here. It falls only when it is looked at or nobody waits.
    most_asked: Units,
    /// What each of them asks here, axis by axis, once some had to be told that there is no hope:
    /// then the next of those is found without a look at the others. As long as nobody is, it
    /// need not be known.
    asked: Option<BTreeSet<Asked>>,
}

impl Queue {
    fn is_empty(&self) -> bool {
        self.own.is_empty() && self.parked.is_empty()
    }

    fn begin(&mut self, key: WaitKey, units: &Units) {
        self.waiting += 1;
        for (most, &units) in self.most_asked.iter_mut().zip(units) {
            *most = units.max(*most);
        }
        if let Some(asked) = &mut self.asked {
            asked.extend(each_asked(key, *units));
        }
    }

    fn end(&mut self, key: WaitKey, units: &Units) {
        self.waiting -= 1;
        if self.waiting == 0 {
            (self.most_asked, self.asked) = (Units::default(), None);
        }
        if let Some(asked) = &mut self.asked {
            each_asked(key, *units).for_each(|each| _ = asked.remove(&each));
        }
    }
}

fn each_asked(key: WaitKey, units: Units) -> impl Iterator<Item = Asked> {
    units
        .into_iter()
        .enumerate()
        .filter(|(_, units)| *units > 0)
        .map(move |(axis, units)| (axis, units, key))
}

/// Asking with patience.
impl Tree {
    /// Reserves now, or takes a ticket. Refused at once if it can never fit.
    pub(crate) fn wait(
        &mut self,
        at: NodeId,
        amount: &Quantities,
        now: Option<Instant>,
    ) -> Result<Result<HoldKey, WaitKey>, BudgetError> {
        let asked = amount.with(Axis::InFlight, 1);
        let now = self.touch(at, asked.units(), now);
        if !self.is_open(at, now) || self.is_hopeless(at, asked.units()) {
            return Err(self.refuse(at, asked.units(), now));
        }
        if self.queued_at(at, asked.units()).is_none() && self.fits(at, asked.units()) {
            return Ok(Ok(self.begin(at, asked)));
        }
        Ok(Err(self.enqueue(at, asked)))
    }

    fn is_hopeless(&self, at: NodeId, asked: &Units) -> bool {
        self.exceeded(at, asked).is_some_and(|refusal| refusal.outlook == Outlook::Never)
    }

    /// The first pool on the way up where others wait for what is asked here, too.
    #[inline]
    pub(crate) fn queued_at(&self, at: NodeId, asked: &Units) -> Option<NodeId> {
        if self.waits.waiting == 0 {
            return None;
        }
        self.competing(at, asked).find(|&id| !self.nodes[id].queue.is_empty())
    }

    /// The pools on the way up that matter to what is asked: the called one, and those with a cap
    /// on any of it.
    fn competing(&self, at: NodeId, asked: &Units) -> impl Iterator<Item = NodeId> {
        let ways = self.asked_on_path(at, asked);
        ways.filter(move |(id, asked)| *id == at || self.nodes[*id].caps_any(asked))
            .map(|(id, _)| id)
    }

    fn enqueue(&mut self, home: NodeId, asked: Quantities) -> WaitKey {
        self.waits.last_ticket += 1;
        let ticket = self.waits.last_ticket;
        let key = self.waits.all.insert(Wait {
            ticket,
            home,
            asked,
            blocked: None,
            outcome: None,
            waker: None,
            alarm: None,
        });
        self.waits.waiting += 1;
        let node = &mut self.nodes[home];
        node.queue.own.insert(ticket, key);
        if let Some(deadline) = node.deadline {
            self.waits.due.insert((deadline.at, home));
        }
        let mut asked = *asked.units();
        self.visit_path(home, |node| {
            node.queue.begin(key, &asked);
            node.carve(&mut asked);
        });
        self.call_next(home);
        self.serve();
        key
    }

    /// What became of a wait: collected once. Until then `waker` is kept; the one kept before is
    /// given back, to be dropped outside the lock. The last is the instant at which its owner
    /// must look again, should it not be woken before.
    pub(crate) fn poll_wait(
        &mut self,
        key: WaitKey,
        waker: Waker,
        now: Option<Instant>,
    ) -> (Poll<Result<HoldKey, BudgetError>>, Option<Waker>, Option<Instant>) {
        let Wait { home, asked, .. } = self.waits.all[key];
        self.touch(home, asked.units(), now);
        if let Some(outcome) = self.waits.all[key].outcome.take() {
            self.waits.all.remove(key);
            return (Poll::Ready(outcome), Some(waker), None);
        }
        let alarm = self.alarm(key);
        let wait = &mut self.waits.all[key];
        wait.alarm = alarm;
        (Poll::Pending, wait.waker.replace(waker), alarm)
    }

    /// The owner has gone: its place is given up, or what it was granted is given back. Returns
    /// what to drop outside the lock.
    pub(crate) fn cancel_wait(&mut self, key: WaitKey) -> Option<Waker> {
        if self.waits.all[key].outcome.is_none() {
            self.unqueue(key);
            self.serve();
        }
        let wait = self.waits.all.remove(key);
        if let Some(Ok(granted)) = wait.outcome {
            // It reads no clock: this happens at the latest instant seen.
            self.turn_to_latest(wait.home);
            self.release(granted, None);
        }
        wait.waker
    }
}

/// How the queue moves on.
impl Tree {
    /// After any change of the balances on a path: tells those who can never be met now, and serves
    /// those who can.
    #[inline]
    pub(crate) fn stir(&mut self, at: NodeId) {
        if self.waits.waiting > 0 {
            self.tell_hopeless(at);
            self.serve_path(at);
        }
    }

    /// Serves all that were called, and those parked on a path.
    pub(crate) fn serve_path(&mut self, at: NodeId) {
        let mut above = Some(at);
        while let Some(id) = above {
            self.call_parked(id);
            above = self.nodes[id].parent;
        }
        self.serve();
    }

    /// Calls the first of those parked at a pool, after the pool gained room or lost one of them.
    pub(crate) fn call_parked(&mut self, at: NodeId) {
        if let Some((&ticket, &key)) = self.nodes[at].queue.parked.first_key_value() {
            self.waits.called.push(Reverse((ticket, key)));
        }
    }

    /// Calls the head of a pool's queue, if it is new there.
    fn call_next(&mut self, home: NodeId) {
        if let Some((&ticket, &key)) = self.nodes[home].queue.own.first_key_value() {
            if self.waits.all[key].blocked.is_none() {
                self.waits.called.push(Reverse((ticket, key)));
            }
        }
    }

    /// Tries all that were called, and whoever moves up behind them, by ticket: each stays where it
    /// is still refused, or is parked where it is blocked now, or is granted.
    pub(crate) fn serve(&mut self) {
        while let Some(Reverse((_, key))) = self.waits.called.pop() {
            if self.waits.all[key].outcome.is_some() {
                continue;
            }
            if !self.stays(key) {
                match self.blocked_at(key) {
                    Some(pool) => self.park(key, pool),
                    None => {
                        self.grant(key);
                        continue;
                    }
                }
            }
            if self.is_too_late_for(key) {
                let refusal = self.explain(
                    self.waits.all[key].home,
                    self.waits.all[key].asked.units(),
                    self.latest,
                );
                self.turn_away(vec![(key, refusal)]);
            } else {
                self.remind(key);
            }
        }
    }

    /// Whether a window will bring back enough only after the deadline of the one that waits. (The
    /// pool where it is blocked knows no deadline but its own.) Those behind it are told when
    /// they are the first.
    fn is_too_late_for(&self, key: WaitKey) -> bool {
        let Wait { home, asked, .. } = &self.waits.all[key];
        self.schedule.windows > 0 && self.is_hopeless(*home, asked.units())
    }

    /// Whether the pool at which a candidate is blocked refuses it still.
    fn stays(&self, key: WaitKey) -> bool {
        let wait = &self.waits.all[key];
        let blocked = wait.blocked.and_then(|pool| Some((pool, self.asked_at(pool, wait)?)));
        blocked.is_some_and(|(pool, asked)| self.refuses(pool, &asked, wait))
    }

    /// What a wait asks of a pool, if that is on its way.
    fn asked_at(&self, pool: NodeId, wait: &Wait) -> Option<Units> {
        let mut path = self.asked_on_path(wait.home, wait.asked.units());
        path.find(|(id, _)| *id == pool).map(|(_, asked)| asked)
    }

    /// The first pool on the way up that refuses a candidate.
    fn blocked_at(&self, key: WaitKey) -> Option<NodeId> {
        let wait = &self.waits.all[key];
        let mut path = self.asked_on_path(wait.home, wait.asked.units());
        path.find(|(id, asked)| self.refuses(*id, asked, wait)).map(|(id, _)| id)
    }

    /// It does not fit there, or an earlier one waits there for the same.
    fn refuses(&self, pool: NodeId, asked: &Units, wait: &Wait) -> bool {
        let node = &self.nodes[pool];
        let earlier =
            || node.queue.parked.first_key_value().is_some_and(|(&first, _)| first < wait.ticket);
        !node.ledger.fits(asked) || (self.takes_turn(pool, asked, wait) && earlier())
    }

    /// Whether a candidate must wait its turn at a pool, and is parked there on its way up: its
    /// own, one with a cap on what it asks, and where it is blocked now.
    fn takes_turn(&self, pool: NodeId, asked: &Units, wait: &Wait) -> bool {
        pool == wait.home || wait.blocked == Some(pool) || self.nodes[pool].caps_any(asked)
    }

    /// Hands the units over in the transition that freed them: nobody can take them in between.
    fn grant(&mut self, key: WaitKey) {
        let (home, asked) = (self.waits.all[key].home, self.waits.all[key].asked);
        self.unqueue(key);
        let hold = self.begin(home, asked);
        self.resolve(key, Ok(hold));
    }

    /// All before any of those behind them is looked at: then none of them is in the way any more,
    /// nor is served.
    fn turn_away(&mut self, refusals: Vec<(WaitKey, BudgetError)>) {
        for (key, refusal) in refusals {
            self.unqueue(key);
            self.count_refused(self.waits.all[key].home);
            self.resolve(key, Err(refusal));
        }
    }

    fn resolve(&mut self, key: WaitKey, outcome: Result<HoldKey, BudgetError>) {
        let wait = &mut self.waits.all[key];
        wait.outcome = Some(outcome);
        self.waits.wakers.extend(wait.waker.take());
    }

    /// Its place is free: calls those that were behind it, in its own queue and where it was
    /// parked.
    fn unqueue(&mut self, key: WaitKey) {
        self.unpark(key);
        let Wait { ticket, home, asked, .. } = self.waits.all[key];
        let mut asked = *asked.units();
        self.waits.waiting -= 1;
        let node = &mut self.nodes[home];
        node.queue.own.remove(&ticket);
        if let (true, Some(deadline)) = (node.queue.own.is_empty(), node.deadline) {
            self.waits.due.remove(&(deadline.at, home));
        }
        self.visit_path(home, |node| {
            node.queue.end(key, &asked);
            node.carve(&mut asked);
        });
        self.call_next(home);
    }

    fn park(&mut self, key: WaitKey, blocked: NodeId) {
        self.unpark(key);
        let wait = &mut self.waits.all[key];
        wait.blocked = Some(blocked);
        let ticket = wait.ticket;
        self.visit_parked(key, |tree, pool| _ = tree.nodes[pool].queue.parked.insert(ticket, key));
    }

    fn unpark(&mut self, key: WaitKey) {
        let ticket = self.waits.all[key].ticket;
        self.visit_parked(key, |tree, pool| {
            tree.nodes[pool].queue.parked.remove(&ticket);
            tree.call_parked(pool);
        });
        self.waits.all[key].blocked = None;
    }

    /// The pools at which a candidate is parked: from its own up to where it is blocked, as far as
    /// they matter to it.
    fn visit_parked(&mut self, key: WaitKey, visit: impl Fn(&mut Tree, NodeId)) {
        let wait = &self.waits.all[key];
        let Some(blocked) = wait.blocked else { return };
        let (home, mut asked) = (wait.home, *wait.asked.units());
        let mut above = Some(home);
        while let Some(id) = above {
            let takes_turn = self.takes_turn(id, &asked, &self.waits.all[key]);
            let node = &self.nodes[id];
            node.carve(&mut asked);
            above = node.parent.filter(|_| id != blocked);
            if takes_turn {
                visit(self, id);
            }
        }
    }
}

/// Those for whom there is nothing to wait for any more.
impl Tree {
    /// Tells those that no release can meet now. A pool looks at them only where the most that is
    /// asked of it may be more than it can ever give.
    fn tell_hopeless(&mut self, at: NodeId) {
        let mut above = Some(at);
        while let Some(id) = above {
            let node = &self.nodes[id];
            above = node.parent;
            if node.queue.waiting > 0 && !node.can_ever_fit(&node.queue.most_asked) {
                self.tell_hopeless_of(id);
            }
        }
    }

    fn tell_hopeless_of(&mut self, pool: NodeId) {
        let asked = self.nodes[pool].queue.asked.take().unwrap_or_else(|| self.all_asked(pool));
        let (mut most_asked, mut hopeless) = (Units::default(), BTreeSet::new());
        for (axis, most) in most_asked.iter_mut().enumerate() {
            // Whoever asks for more has no more hope than one that asks for less.
            for &(_, units, key) in asked.range((axis, 0, 0)..(axis + 1, 0, 0)).rev() {
                if self.nodes[pool].has_hope(axis, units) {
                    *most = units;
                    break;
                }
                hopeless.insert((self.waits.all[key].ticket, key));
            }
        }
        let queue = &mut self.nodes[pool].queue;
        (queue.most_asked, queue.asked) = (most_asked, Some(asked));
        let refusal = |(_, key): (Ticket, WaitKey)| {
            let wait = &self.waits.all[key];
            let refusal = self.exceeded(wait.home, wait.asked.units());
            (key, refusal.expect("what can never fit does not fit now").into())
        };
        let refusals = hopeless.into_iter().map(refusal).collect();
        self.turn_away(refusals);
    }

    /// What is asked of a pool by all that wait.
    fn all_asked(&self, pool: NodeId) -> BTreeSet<Asked> {
        let waiting = self.waits.all.iter().filter(|(_, wait)| wait.outcome.is_none());
        let asked = waiting.filter_map(|(key, wait)| Some((key, self.asked_at(pool, wait)?)));
        asked.flat_map(|(key, units)| each_asked(key, units)).collect()
    }

    /// Tells those whose deadline has come by the latest instant seen.
    #[inline]
    pub(crate) fn tell_late(&mut self) {
        let is_due = |(at, _): &&(Instant, NodeId)| Some(*at) <= self.latest;
        if self.waits.due.first().is_some_and(|first| is_due(&first)) {
            let due: Vec<_> =
                self.waits.due.iter().take_while(is_due).map(|(_, pool)| *pool).collect();
            self.turn_all_away(&due, self.latest);
            self.serve();
        }
    }

    /// Tells those that wait in pools that have just been closed, and those that wait for that.
    pub(crate) fn tell_closed(&mut self, pools: Vec<NodeId>) {
        self.turn_all_away(&pools, None);
        let Waits { closings, wakers, .. } = &mut self.waits;
        for pool in pools {
            let told = closings.range_mut((pool, ClosingKey::MIN)..=(pool, ClosingKey::MAX));
            wakers.extend(told.filter_map(|(_, waker)| waker.take()));
        }
    }

    fn turn_all_away(&mut self, pools: &[NodeId], now: Option<Instant>) {
        let mut refusals = Vec::new();
        for &pool in pools {
            for &key in self.nodes[pool].queue.own.values() {
                refusals.push((key, self.explain(pool, self.waits.all[key].asked.units(), now)));
            }
        }
        self.turn_away(refusals);
    }
}

/// Those for whom time is enough.
impl Tree {
    /// When time alone may change what becomes of a wait: its deadline comes; and for the first of
    /// those that are blocked at a pool, enough has come back there, or a hold expires. The
    /// others cannot pass it whatever the time.
    fn alarm(&self, key: WaitKey) -> Option<Instant> {
        let wait = &self.waits.all[key];
        let deadline = self.nodes[wait.home].deadline.map(|deadline| deadline.at);
        let blocked = wait.blocked.filter(|pool| self.first_parked(*pool) == Some(key));
        let expiry = blocked.and_then(|_| self.schedule.next_expiry());
        let room = blocked.and_then(|pool| self.room_in_time(pool, wait));
        deadline.into_iter().chain(expiry).chain(room).min()
    }

    fn first_parked(&self, pool: NodeId) -> Option<WaitKey> {
        self.nodes[pool].queue.parked.first_key_value().map(|(_, &key)| key)
    }

    fn room_in_time(&self, pool: NodeId, wait: &Wait) -> Option<Instant> {
        let asked = self.asked_at(pool, wait)?;
        match first_refusal(std::iter::once(&self.nodes[pool]), &asked, None)?.outlook {
            Outlook::At(at) => Some(at),
            _ => None,
        }
    }

    /// Wakes the owner of a candidate, to look again, if it must do so earlier than it knows.
    fn remind(&mut self, key: WaitKey) {
        if self.schedule.is_idle() || self.waits.all[key].waker.is_none() {
            return;
        }
        let alarm = self.alarm(key);
        let wait = &mut self.waits.all[key];
        if alarm.is_some_and(|alarm| wait.alarm.is_none_or(|known| alarm < known)) {
            self.waits.wakers.extend(wait.waker.take());
        }
    }

    /// The same for all whom a hold on this path may block, after it was given a time.
    pub(crate) fn remind_path(&mut self, at: NodeId) {
        let mut above = Some(at).filter(|_| self.waits.waiting > 0);
        while let Some(id) = above {
            if let Some(first) = self.first_parked(id) {
                self.remind(first);
            }
            above = self.nodes[id].parent;
        }
    }
}

/// Waiting for the end.
impl Tree {
    /// Whether a pool is closed. If not, `waker` is kept under `key`, and the one kept before is
    /// given back, to be dropped outside the lock.
    pub(crate) fn poll_closed(
        &mut self,
        pool: NodeId,
        key: &mut Option<ClosingKey>,
        waker: Waker,
    ) -> (Poll<()>, Option<Waker>) {
        if self.nodes[pool].closed {
            return (Poll::Ready(()), Some(waker));
        }
        let Waits { closings, last_closing, .. } = &mut self.waits;
        let key = *key.get_or_insert_with(|| {
            *last_closing += 1;
            *last_closing
        });
        (Poll::Pending, closings.entry((pool, key)).or_default().replace(waker))
    }

    pub(crate) fn cancel_closing(&mut self, pool: NodeId, key: ClosingKey) -> Option<Waker> {
        self.waits.closings.remove(&(pool, key)).flatten()
    }
}
