//! The model: what the contract says, too simple to be wrong.
//!
//! It is eager where the library is lazy: when it is told the time it does all that was due since,
//! each thing at its own instant and in the order of these, in all pools. A window that turns at
//! the instant at which a hold expires turns first. Who waits is of `queue.rs`, which says where
//! the model is as lazy as the library.
//!
//! A pool stores what it owes and the caps that were set. Its balances are reckoned anew from these
//! and from its live owners, each time that anybody looks (`Model::balances`).
//!
//! It knows of time only what the real pools were told (P8). A call that reads no clock happens at
//! the latest instant seen.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use budget_pool::{Axis, OnDrop, Outlook};

use super::events::Events;
use super::language::{
    AXES, IN_FLIGHT, INPUT, LANES, Limits, MAX, OUTPUT, TOKENS, Units, Want, Windowed, ZERO, each,
    minus, plus, with_in_flight, without_in_flight,
};
use super::name;
use super::queue::Waits;
use super::seen::{AxisView, HeldView, HolderView, LimitView, View};
use super::watches::Before;

pub(super) type PoolId = usize;
pub(super) type HoldId = usize;
pub(super) type LeaseId = usize;

/// Nanoseconds since the origin of all time.
pub(super) type Nanos = u128;

/// Windows go by `u64` nanoseconds, 584 years: a period that is longer is so long, and what comes
/// back later never does.
const LONGEST: Nanos = MAX;

/// So many expired holds are reclaimed by any call that knows the time.
const BATCH: usize = 2;

/// Of what is free a refill takes one in so many at most.
const BITE: u128 = 8;

#[derive(Debug, Default)]
pub(super) struct Pool {
    /// In the order in which they were given; a root has none, and only a joint pool has several.
    pub(super) parents: Vec<PoolId>,
    /// The caps as they were set. A cap in force is higher while more than that is reserved.
    caps: [Option<u128>; LANES],
    /// The axes on which more was reserved than the cap that was set, and still is.
    falling: [bool; LANES],
    ceilings: [Option<u128>; LANES],
    /// The axes that were capped when it was carved out of the pool above.
    carved: [bool; LANES],
    /// All that was spent in this period, and has not come back. The part that fits under the cap
    /// is used, the rest is overage.
    owed: Units,
    spent: Units,
    peak: Units,
    /// With what was due to expire when it was reached, and may have been reclaimed before. `MAX`
    /// where the real peak may also count what had expired and was not reclaimed yet.
    most_peak: Units,
    pub(super) closed: bool,
    /// Until when it is paused by itself.
    pub(super) paused: Option<Nanos>,
    admitted: u64,
    refused: u64,
    /// How many reservations have begun, of this pool and of those below it.
    begun: u64,
    /// How many of them have become part of another.
    merged: u64,
    ended: Ended,
    on_drop: Option<OnDrop>,
    /// How much is to be free at least.
    pub(super) low: Units,
    /// How many may wait, here and below.
    pub(super) most_waiting: Option<u32>,
    deadline: Option<Deadline>,
    pub(super) window: Option<Window>,
    /// How many are remembered at most, and for how long.
    memory: (usize, Duration),
    keys: BTreeMap<u8, Known>,
    pub(super) handles: usize,
}

/// How many reservations have ended in each way.
#[derive(Debug, Default, Clone, Copy)]
struct Ended {
    committed: u64,
    released: u64,
    expired: u64,
}

#[derive(Debug, Clone, Copy)]
enum End {
    Committed,
    Released,
    Expired,
}

/// The balances of a pool.
#[derive(Debug, Clone, Copy)]
pub(super) struct Balance {
    /// In force.
    cap: Units,
    used: Units,
    overage: Units,
    reserved: Units,
}

pub(super) type Balances = BTreeMap<PoolId, Balance>;

impl Balance {
    pub(super) fn free(&self) -> Units {
        each(|axis| {
            let taken = self.used[axis] + self.reserved[axis];
            self.cap[axis].checked_sub(taken).expect("the model keeps its own caps")
        })
    }
}

impl Balance {
    /// What must come free before so much fits: the rest of a cap that falls goes first, and what is
    /// owed.
    pub(super) fn missing(&self, pool: &Pool, asked: &Units) -> Units {
        let free = self.free();
        each(|axis| match asked[axis].saturating_sub(free[axis]) {
            0 => 0,
            beyond => (beyond + self.overage[axis] + self.cap[axis] - pool.cap(axis)).min(MAX),
        })
    }
}

impl Pool {
    /// As it was set.
    fn cap(&self, axis: usize) -> u128 {
        self.caps[axis].unwrap_or(MAX)
    }

    pub(super) fn is_capped(&self, axis: usize) -> bool {
        self.caps[axis].is_some()
    }

    pub(super) fn is_carved(&self, axis: usize) -> bool {
        self.carved[axis]
    }

    fn balance(&self, reserved: Units) -> Balance {
        let cap = each(|axis| self.cap(axis).max(reserved[axis]));
        let used = each(|axis| self.owed[axis].min(cap[axis] - reserved[axis]));
        Balance { cap, used, overage: minus(&self.owed, &used), reserved }
    }

    /// What the pool takes of the one above.
    fn share(&self, reserved: Units) -> Units {
        let Balance { cap, used, .. } = self.balance(reserved);
        each(|axis| if self.is_carved(axis) { cap[axis] - used[axis] } else { reserved[axis] })
    }

    /// Of a new period. A doubt about it stays.
    fn begin_peak(&mut self, reserved: Units) {
        self.peak = reserved;
        if self.most_peak != [MAX; LANES] {
            self.most_peak = reserved;
        }
    }

    /// What is late may add up to more overage than can be counted.
    fn forget_beyond_count(&mut self, reserved: Units) {
        let Balance { overage, .. } = self.balance(reserved);
        let beyond = overage.map(|overage| overage.saturating_sub(MAX));
        self.owed = minus(&self.owed, &beyond);
        self.spent = minus(&self.spent, &beyond);
        self.keep_slots();
    }

    /// Under a rolling window: what is owed more than it knows of was spent in the present slot,
    /// and what is owed less is not what was spent last any more.
    fn keep_slots(&mut self) {
        let Some(window) = self.window.as_mut().filter(|window| window.kind == Kind::Rolling)
        else {
            return;
        };
        let present = window.slot(window.at);
        for axis in (0..LANES).filter(|&axis| axis != IN_FLIGHT && self.caps[axis].is_some()) {
            let known: u128 = window.slots.values().map(|units| units[axis]).sum();
            window.slots.entry(present).or_insert(ZERO)[axis] +=
                self.owed[axis].saturating_sub(known);
            let mut less = known.saturating_sub(self.owed[axis]);
            for units in window.slots.values_mut().rev() {
                let gone = units[axis].min(less);
                units[axis] -= gone;
                less -= gone;
            }
        }
    }

    /// The first instant at which no more than `most` is owed under a cap while so much stays
    /// reserved, if time alone brings it.
    fn paid_off(
        &self,
        axis: usize,
        most: u128,
        cap: Option<u128>,
        reserved: u128,
    ) -> Option<Nanos> {
        let window = self.window.as_ref().filter(|_| axis != IN_FLIGHT)?;
        let mut owed = self.owed[axis];
        match window.kind {
            Kind::TokenBucket => {}
            Kind::Rolling => {
                cap?;
                let mut back = window.returns(axis).into_iter();
                return back.find_map(|(at, units)| {
                    owed -= units;
                    (owed <= most).then_some(at)
                });
            }
            Kind::Fixed | Kind::Calendar if !window.carries => return window.next(),
            Kind::Fixed | Kind::Calendar => {
                let room = cap.unwrap_or(MAX).saturating_sub(reserved);
                for turns in 0..FEW_TURNS {
                    owed = owed.saturating_sub(room);
                    if owed <= most {
                        return window.turn(turns);
                    }
                }
                let more = (owed - most).checked_next_multiple_of(room)? / room;
                return window.turn(FEW_TURNS - 1 + more);
            }
        }
        let back = |later| window.back(axis, cap, later).0;
        let is_paid = |later| self.owed[axis].saturating_sub(back(later)) <= most;
        let (mut early, mut late) = (0, LONGEST);
        while early < late {
            let middle = (early + late) / 2;
            match is_paid(middle) {
                true => late = middle,
                false => early = middle + 1,
            }
        }
        is_paid(late).then_some(window.at.max(window.start) + late)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Fixed,
    TokenBucket,
    Rolling,
    Calendar,
}

/// Turns that carry an overage are taken one by one, up to so many.
const FEW_TURNS: u128 = 300;

#[derive(Debug, Clone)]
pub(super) struct Window {
    kind: Kind,
    period: Nanos,
    start: Nanos,
    /// Up to when it has turned or given back.
    pub(super) at: Nanos,
    /// Of a token bucket: what is owed is a fraction with the period below. It is kept as whole
    /// units, which are seen, less so many parts.
    parts: Units,
    /// Whether what is owed beyond the cap is owed in the next period, too.
    carries: bool,
    /// Of a calendar.
    turns: BTreeSet<Nanos>,
    /// Of a rolling one: what was spent in each slot, and has not come back yet.
    slots: BTreeMap<i128, Units>,
}

impl Window {
    fn new(windowed: Windowed, now: Nanos) -> Window {
        Window {
            kind: windowed.kind,
            period: windowed.period.as_nanos().clamp(1, LONGEST),
            start: windowed.start.unwrap_or(now),
            at: now,
            parts: ZERO,
            carries: windowed.carries,
            turns: windowed.turns(now).into_iter().collect(),
            slots: BTreeMap::new(),
        }
    }

    /// When a slot begins: 60 of them make a period, and one begins at the start.
    fn slot_begin(&self, slot: i128) -> Nanos {
        let from_start = (slot * self.period as i128).div_euclid(60);
        (self.start as i128 + from_start) as Nanos
    }

    /// The slot of an instant: the last that has begun.
    fn slot(&self, at: Nanos) -> i128 {
        let period = (at as i128 - self.start as i128).div_euclid(self.period as i128);
        let slots = period * 60..period * 60 + 60;
        slots.rev().find(|slot| self.slot_begin(*slot) <= at).expect("a period begins with a slot")
    }

    /// When a slot comes back: a period after its end.
    fn slot_back(&self, slot: i128) -> Nanos {
        self.slot_begin(slot + 1) + self.period
    }

    /// When how much of an axis comes back. A slot counts no more than a `u64` can; the next has
    /// the rest.
    fn returns(&self, axis: usize) -> Vec<(Nanos, u128)> {
        let (mut returns, mut rest) = (Vec::new(), 0);
        for (slot, units) in &self.slots {
            assert_eq!(rest, 0, "only the last slot can have more than it counts");
            let counted = units[axis].min(MAX);
            rest = units[axis] - counted;
            returns.push((self.slot_back(*slot), counted));
            returns.push((self.slot_back(slot + 1), rest));
        }
        returns
    }

    /// All that a rolling one brings back up to an instant.
    fn roll(&mut self, to: Nanos) -> Units {
        let mut slots = self.slots.clone();
        let mut back = ZERO;
        while let Some((slot, mut units)) = slots.pop_first() {
            if self.slot_begin(slot + 1) <= to {
                let rest = units.map(|units| units.saturating_sub(MAX));
                if rest != ZERO {
                    let next = slots.entry(slot + 1).or_insert(ZERO);
                    *next = plus(next, &rest);
                    units = minus(&units, &rest);
                }
            }
            self.slots.insert(slot, units);
            if self.slot_back(slot) <= to {
                self.slots.remove(&slot);
                back = plus(&back, &units);
            }
        }
        back
    }

    /// What a token bucket has brought back on an axis that much later, under a cap as it was set:
    /// whole units, and what is beyond them in parts.
    fn back(&self, axis: usize, cap: Option<u128>, later: Nanos) -> (u128, u128) {
        let rate = cap.filter(|_| axis != IN_FLIGHT).unwrap_or(0);
        let parts = later * rate + self.parts[axis];
        (parts / self.period, parts % self.period)
    }

    /// The first turn after all that it has seen.
    fn next(&self) -> Option<Nanos> {
        match self.at.checked_sub(self.start) {
            _ if self.kind == Kind::Calendar => self.turn(0),
            Some(since) => Some(self.start + (since / self.period + 1) * self.period),
            None => Some(self.start),
        }
    }

    /// The turn that comes so many turns after that one.
    fn turn(&self, more: u128) -> Option<Nanos> {
        if self.kind == Kind::Calendar {
            return self.turns.range(self.at + 1..).nth(usize::try_from(more).ok()?).copied();
        }
        let later = more.checked_mul(self.period).filter(|later| *later <= LONGEST)?;
        Some(self.next()? + later)
    }

    /// How many turns there are up to an instant, after all that it has seen.
    fn turns_to(&self, to: Nanos) -> u128 {
        match self.next().and_then(|next| to.checked_sub(next)) {
            None => 0,
            Some(_) if self.kind == Kind::Calendar => {
                self.turns.range(self.at + 1..=to).count() as u128
            }
            Some(since) => since / self.period + 1,
        }
    }
}

/// What was spent under a key, and until when that is known.
#[derive(Debug)]
struct Known {
    amount: ([bool; LANES], Units),
    until: Option<Nanos>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    built: Nanos,
    total: Duration,
}

impl Deadline {
    pub(super) fn at(self) -> Nanos {
        self.built + self.total.as_nanos()
    }

    /// One up to which an instant is not late.
    pub(super) fn just_after(at: Nanos) -> Deadline {
        Deadline { built: at + 1, total: Duration::ZERO }
    }
}

#[derive(Debug)]
pub(super) struct Hold {
    pub(super) pool: PoolId,
    /// With what it has in flight. Of one that has expired, and was given back: what was held then.
    pub(super) held: Units,
    /// What was recorded or debited of it, or settled by its expiry.
    pub(super) metered: Units,
    pub(super) label: Option<&'static str>,
    pub(super) on_drop: OnDrop,
    pub(super) expiry: Option<Nanos>,
    is_live: bool,
    /// Held from the grant of a spend until it is collected: no reservation.
    is_spend: bool,
    /// What its expiry settled. The debits that come late are the first part of it.
    foreseen: Units,
    /// Which choice of its ask it was granted for.
    pub(super) choice: usize,
}

impl Hold {
    fn new(pool: PoolId, held: Units, on_drop: OnDrop) -> Hold {
        let (metered, foreseen, label, expiry) = (ZERO, ZERO, None, None);
        Hold {
            pool,
            held,
            metered,
            label,
            on_drop,
            expiry,
            is_live: true,
            is_spend: false,
            foreseen,
            choice: 0,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.is_live
    }

    /// A hold does not name one in flight: whoever reserves its amount again gets one anyway.
    fn seen(&self) -> HeldView {
        let slots = Some(self.held[IN_FLIGHT]).filter(|slots| *slots != 1 && !self.is_spend);
        (without_in_flight(self.held), slots)
    }

    /// The totals at which a commit settles the axes that it does not name.
    pub(super) fn so_far(&self) -> Units {
        without_in_flight(plus(&self.metered, &self.held))
    }
}

/// What a worker has of a pool for itself. All of it stays reserved until the pool is told what was
/// spent.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) pool: PoolId,
    batch: Units,
    pub(super) left: Units,
    /// Spent, and the pool was not told yet.
    unsettled: Units,
}

impl Lease {
    fn reserved(&self) -> Units {
        plus(&self.left, &self.unsettled)
    }
}

/// When it may fit. The worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum When {
    At(Nanos),
    AfterRelease,
    AfterFunding,
    Never,
}

impl When {
    /// The library's, its instants told by `nanos`.
    pub(super) fn of(outlook: Outlook, nanos: impl Fn(std::time::Instant) -> Nanos) -> When {
        match outlook {
            Outlook::At(at) => When::At(nanos(at)),
            Outlook::AfterRelease => When::AfterRelease,
            Outlook::AfterFunding => When::AfterFunding,
            Outlook::Never => When::Never,
            _ => panic!("an outlook that the model does not know: {outlook:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed { pool: String },
    Late { pool: String, budget: Duration, elapsed: Duration, needed: Duration },
    Paused { pool: String, until: Nanos, outlook: When, retry_after: Option<Nanos> },
    Queued { pool: String },
    QueueFull { pool: String, most: u32 },
    Exceeded(Exceeded),
    Expired { pool: String },
    KeyConflict { pool: String, key: String },
    KeysFull { pool: String, most: usize, outlook: When, retry_after: Option<Nanos> },
    CarvedWindow { pool: String },
    Carved { pool: String },
    NoParent,
    ForeignPool { pool: String },
    Uncapped { pool: String, axis: Axis },
    Timeout { pool: String, waited: Duration, refusal: Box<Refusal> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exceeded {
    pub(super) axis: Axis,
    pub(super) requested: u128,
    pub(super) available: u128,
    pub(super) cap: Option<u128>,
    pub(super) pool: String,
    pub(super) outlook: When,
    pub(super) retry_after: Option<Nanos>,
}

impl Refusal {
    pub(super) fn in_a_word(&self) -> &'static str {
        match (self, self.summary().2) {
            (Refusal::Exceeded(_), When::At(_)) => "exceeded until an instant",
            (Refusal::Exceeded(_), When::AfterRelease) => "exceeded until a release",
            (Refusal::Exceeded(_), When::AfterFunding) => "exceeded until funding",
            (Refusal::Exceeded(_), When::Never) => "exceeded for ever",
            (Refusal::Closed { .. }, _) => "closed",
            (Refusal::Late { .. }, _) => "late",
            (Refusal::Paused { .. }, When::At(_)) => "paused until an instant",
            (Refusal::Paused { .. }, When::Never) => "paused beyond the deadline",
            (Refusal::Paused { .. }, _) => "paused, and a release is to come",
            (Refusal::Queued { .. }, _) => "queued",
            (Refusal::QueueFull { .. }, _) => "a line is full",
            (Refusal::Expired { .. }, _) => "expired",
            (Refusal::KeyConflict { .. }, _) => "another amount for a key",
            (Refusal::KeysFull { .. }, _) => "too many keys",
            (Refusal::CarvedWindow { .. }, _) => "carved with a window",
            (Refusal::Carved { .. }, _) => "carved",
            (Refusal::NoParent, _) => "no parent",
            (Refusal::ForeignPool { .. }, _) => "of another tree",
            (Refusal::Uncapped { .. }, _) => "no cap to move",
            (Refusal::Timeout { .. }, _) => "a wait gives up",
        }
    }

    pub(super) fn summary(&self) -> (Option<Axis>, &str, When, Option<Nanos>) {
        match self {
            Refusal::Late { pool, .. } => (Some(Axis::Deadline), pool, When::Never, None),
            Refusal::Exceeded(Exceeded { axis, pool, outlook, retry_after, .. }) => {
                (Some(*axis), pool, *outlook, *retry_after)
            }
            Refusal::KeysFull { pool, outlook, retry_after, .. }
            | Refusal::Paused { pool, outlook, retry_after, .. } => {
                (None, pool, *outlook, *retry_after)
            }
            Refusal::Queued { pool } | Refusal::QueueFull { pool, .. } => {
                (None, pool, When::AfterRelease, None)
            }
            Refusal::Uncapped { pool, axis } => (Some(*axis), pool, When::Never, None),
            Refusal::NoParent => (None, "", When::Never, None),
            Refusal::Timeout { pool, refusal, .. } => {
                let (axis, _, outlook, retry_after) = refusal.summary();
                (axis, pool, outlook, retry_after)
            }
            Refusal::Closed { pool }
            | Refusal::Expired { pool }
            | Refusal::KeyConflict { pool, .. }
            | Refusal::CarvedWindow { pool }
            | Refusal::Carved { pool }
            | Refusal::ForeignPool { pool } => (None, pool, When::Never, None),
        }
    }
}

/// What a fact came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Booked {
    pub(super) settled: Units,
    pub(super) credited: Units,
    pub(super) overage: Units,
    pub(super) late: bool,
}

/// Whether a key was known.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Keyed {
    Now,
    Before,
}

/// What the call of a new pool takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    pub(super) carved: bool,
    pub(super) caps: Limits,
    pub(super) ceilings: Limits,
    pub(super) used: Option<Want>,
    pub(super) on_drop: Option<OnDrop>,
    pub(super) low: Option<Want>,
    pub(super) most_waiting: Option<u32>,
    pub(super) deadline: Option<Duration>,
    pub(super) window: Option<Windowed>,
    pub(super) memory: Option<(usize, Duration)>,
}

impl Spec {
    /// Whether a carved pool is to have used some of its share already.
    pub(super) fn tells_of_its_share(&self) -> bool {
        let named = self.used.map_or([false; LANES], |used| used.named());
        (0..LANES).any(|axis| named[axis] && self.caps[axis].is_some())
    }
}

/// When a call reads the clock (P8).
#[derive(Debug, Clone, Copy)]
pub(super) enum Reads {
    Never,
    /// It asks of this pool.
    Asks(PoolId),
    /// It tells or looks at this pool.
    Tells(PoolId),
    /// It looks at this pool and all below.
    Surveys(PoolId),
    /// It takes a time or a key.
    Always(PoolId),
    /// It moves something from one of two pools to the other.
    Moves(PoolId, PoolId),
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Numbered in the order in which they are built: a child is always behind its parents.
    pub(super) pools: BTreeMap<PoolId, Pool>,
    /// Until their owners let go of them, expired or not.
    pub(super) holds: BTreeMap<HoldId, Hold>,
    pub(super) leases: BTreeMap<LeaseId, Lease>,
    pub(super) waits: Waits,
    pub(super) built: usize,
    made: usize,
    /// The latest instant seen.
    pub(super) now: Nanos,
    /// At most so many expired holds are not reclaimed by the real pools yet.
    pub(super) unreclaimed: usize,
    /// The instant of what happens, while a call does all that is due by now.
    pub(super) moment: Nanos,
    /// What was to be seen before pools went in the last call, if anybody watches: the end of a hold
    /// and that of its pool are two steps.
    pub(super) before: Option<Vec<Before>>,
    /// What the last call lacked of which pools, if it was refused and only higher caps would do.
    pub(super) lacks: Vec<(PoolId, Units)>,
    /// What an observer is told, if there is one.
    pub(super) events: Events,
    /// What has come of the calls, in a few words each.
    pub(super) met: BTreeSet<&'static str>,
}

impl Model {
    pub(super) fn new(now: Nanos) -> Model {
        Model { now, ..Model::default() }
    }

    pub(super) fn meet(&mut self, what: &'static str) {
        self.met.insert(what);
    }

    /// The pool and all those above it, each once and before its own parents; of parents those first
    /// that are given first. A pool with all that is above it stands before what was found so far,
    /// the last parent first.
    pub(super) fn path(&self, from: PoolId) -> Vec<PoolId> {
        let mut path = VecDeque::new();
        self.climb(from, &mut path);
        path.into()
    }

    fn climb(&self, pool: PoolId, path: &mut VecDeque<PoolId>) {
        for &parent in self.pools[&pool].parents.iter().rev() {
            if !path.contains(&parent) {
                self.climb(parent, path);
            }
        }
        path.push_front(pool);
    }

    pub(super) fn is_below(&self, pool: PoolId, top: PoolId) -> bool {
        self.path(pool).contains(&top)
    }

    pub(super) fn is_joint(&self, pool: PoolId) -> bool {
        self.pools[&pool].parents.len() > 1
    }

    /// The first of its parents that is a pool or below it.
    pub(super) fn parent_below(&self, pool: PoolId, top: PoolId) -> Option<PoolId> {
        self.pools[&pool].parents.iter().copied().find(|parent| self.is_below(*parent, top))
    }

    /// How deep a pool is listed below another.
    fn depth(&self, pool: PoolId, top: PoolId) -> usize {
        if pool == top {
            return 0;
        }
        let parent = self.parent_below(pool, top).expect("it is below");
        1 + self.depth(parent, top)
    }

    pub(super) fn children(&self, of: PoolId) -> impl Iterator<Item = PoolId> {
        self.pools.iter().filter(move |(_, pool)| pool.parents.contains(&of)).map(|(id, _)| *id)
    }

    /// The balances of all pools: each owner takes of the pools on its path. A child is always
    /// behind its parents, so all that a pool has given is known when its turn comes.
    pub(super) fn balances(&self) -> Balances {
        let mut reserved: BTreeMap<PoolId, Units> =
            self.pools.keys().map(|id| (*id, ZERO)).collect();
        let add = |reserved: &mut BTreeMap<PoolId, Units>, at: PoolId, units: &Units| {
            for (id, asked) in self.asked_on_path(at, units) {
                let sum = reserved.get_mut(&id).expect("a pool outlives what it gave");
                *sum = plus(sum, &asked);
            }
        };
        for hold in self.holds.values().filter(|hold| hold.is_live()) {
            add(&mut reserved, hold.pool, &hold.held);
        }
        for lease in self.leases.values() {
            add(&mut reserved, lease.pool, &lease.reserved());
        }
        let mut balances = Balances::new();
        for (id, pool) in self.pools.iter().rev() {
            let own = reserved[id];
            if let Some(parent) = pool.parents.first().filter(|_| pool.carved.contains(&true)) {
                let share = pool.share(own);
                let carved = each(|axis| if pool.is_carved(axis) { share[axis] } else { 0 });
                add(&mut reserved, *parent, &carved);
            }
            balances.insert(*id, pool.balance(own));
        }
        balances
    }

    fn balance(&self, id: PoolId) -> Balance {
        self.balances()[&id]
    }

    fn reserved(&self, id: PoolId) -> Units {
        self.balance(id).reserved
    }

    fn free(&self, id: PoolId) -> Units {
        self.balance(id).free()
    }

    /// The least that is free up to the nearest carve, of the pools with a cap.
    fn available(&self, balances: &Balances, id: PoolId) -> [Option<u128>; LANES] {
        let mut least = [None; LANES];
        let mut beyond_carve = [false; LANES];
        for id in self.path(id) {
            let (pool, free) = (&self.pools[&id], balances[&id].free());
            for axis in 0..LANES {
                if pool.caps[axis].is_some() && !beyond_carve[axis] {
                    least[axis] = Some(least[axis].unwrap_or(MAX).min(free[axis]));
                }
                beyond_carve[axis] |= pool.is_carved(axis);
            }
        }
        least
    }

    /// The same of all pools: without a cap, as far as can be counted.
    pub(super) fn least_free(&self, id: PoolId) -> Units {
        let balances = self.balances();
        let mut least = [MAX; LANES];
        let mut beyond_carve = [false; LANES];
        for id in self.path(id) {
            let (pool, free) = (&self.pools[&id], balances[&id].free());
            for axis in 0..LANES {
                if !beyond_carve[axis] {
                    least[axis] = least[axis].min(free[axis]);
                }
                beyond_carve[axis] |= pool.is_carved(axis);
            }
        }
        least
    }

    pub(super) fn is_closed(&self, id: PoolId) -> bool {
        self.path(id).iter().any(|id| self.pools[id].closed)
    }

    /// The earliest on the way up; of equal ones, the outermost.
    pub(super) fn deadline(&self, id: PoolId) -> Option<(PoolId, Deadline)> {
        let mut earliest: Option<(PoolId, Deadline)> = None;
        for id in self.path(id) {
            let Some(deadline) = self.pools[&id].deadline else { continue };
            if earliest.is_none_or(|(_, earliest)| deadline.at() <= earliest.at()) {
                earliest = Some((id, deadline));
            }
        }
        earliest
    }

    pub(super) fn named(&self, named: &str) -> PoolId {
        *self.pools.keys().find(|id| name(**id) == named).expect("a pool that is seen")
    }

    /// The axes on which the pool of this name has its caps from the one above.
    pub(super) fn carved(&self, named: &str) -> [bool; LANES] {
        let pool = &self.pools[&self.named(named)];
        std::array::from_fn(|axis| pool.is_carved(axis))
    }

    // Asking: changes nothing.

    /// As with deadlines, the outermost of those that were closed is named.
    pub(super) fn open(&self, id: PoolId) -> Result<(), Refusal> {
        match self.path(id).into_iter().rfind(|id| self.pools[id].closed) {
            Some(closed) => Err(Refusal::Closed { pool: name(closed) }),
            None => Ok(()),
        }
    }

    pub(super) fn in_time(&self, id: PoolId) -> Result<(), Refusal> {
        match self.deadline(id) {
            Some((pool, deadline)) if self.now >= deadline.at() => Err(Refusal::Late {
                pool: name(pool),
                budget: deadline.total,
                elapsed: duration(self.now - deadline.built),
                needed: Duration::ZERO,
            }),
            _ => Ok(()),
        }
    }

    /// The pools on the way up, each with what is asked of it: above a carve nothing on its axes.
    pub(super) fn asked_on_path(&self, at: PoolId, units: &Units) -> Vec<(PoolId, Units)> {
        let mut asked = *units;
        let mut all = Vec::new();
        for id in self.path(at) {
            all.push((id, asked));
            asked = each(|axis| if self.pools[&id].is_carved(axis) { 0 } else { asked[axis] });
        }
        all
    }

    pub(super) fn fits(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let deadline = self.deadline(at);
        let (balances, ways) = (self.balances(), self.asked_on_path(at, units).into_iter());
        let short = |(id, asked): (PoolId, Units)| self.short(&balances[&id], id, &asked, deadline);
        self.first_and_worst(ways.flat_map(short).collect())
    }

    /// The axes on which a pool has less than is asked of it.
    pub(super) fn short(
        &self,
        balance: &Balance,
        id: PoolId,
        asked: &Units,
        deadline: Option<(PoolId, Deadline)>,
    ) -> Vec<Exceeded> {
        let free = balance.free();
        let short = (0..LANES).filter(|&axis| asked[axis] > free[axis]);
        short.map(|axis| self.refusal(balance, id, axis, asked[axis], deadline)).collect()
    }

    /// A refusal, and what to expect. Time alone is enough if it is before the deadline: `at` that
    /// instant it fits, live holds staying held. Else it may after a release of all that is
    /// held, which may come now, or in time.
    fn refusal(
        &self,
        balance: &Balance,
        id: PoolId,
        axis: usize,
        requested: u128,
        deadline: Option<(PoolId, Deadline)>,
    ) -> Exceeded {
        let (pool, reserved) = (&self.pools[&id], balance.reserved[axis]);
        let in_time = |at: &Nanos| deadline.is_none_or(|(_, deadline)| *at < deadline.at());
        let outlook = |cap: Option<u128>| {
            let most_owed = |reserved: u128| cap.unwrap_or(MAX).checked_sub(requested + reserved);
            let when = |reserved| {
                let most = most_owed(reserved)?;
                pool.paid_off(axis, most, cap, reserved).filter(in_time)
            };
            let fits_at_best = most_owed(0).is_some_and(|most| pool.owed[axis] <= most);
            match when(reserved) {
                Some(at) => When::At(at),
                None if fits_at_best || when(0).is_some() => When::AfterRelease,
                None => When::Never,
            }
        };
        // A cap that there is not cannot be raised.
        let ceiling = pool.ceilings[axis].filter(|_| pool.caps[axis].is_some());
        let under_ceiling = || ceiling.map_or(When::Never, |cap| outlook(Some(cap)));
        let outlook = match outlook(pool.caps[axis]) {
            When::Never if under_ceiling() != When::Never => When::AfterFunding,
            outlook => outlook,
        };
        Exceeded {
            axis: AXES[axis],
            requested,
            available: balance.free()[axis],
            cap: pool.caps[axis],
            pool: name(id),
            outlook,
            retry_after: None,
        }
    }

    /// The first refusal, with the worst outlook of all.
    fn first_and_worst(&self, refusals: Vec<Exceeded>) -> Result<(), Refusal> {
        let Some(worst) = refusals.iter().map(|refusal| refusal.outlook).max() else {
            return Ok(());
        };
        let first = refusals.into_iter().next().expect("there is a worst");
        Err(Refusal::Exceeded(Exceeded { outlook: worst, retry_after: self.after(worst), ..first }))
    }

    fn after(&self, outlook: When) -> Option<Nanos> {
        match outlook {
            When::At(at) => Some(at - self.now),
            _ => None,
        }
    }

    pub(super) fn ask(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        self.open(at)?;
        self.in_time(at)?;
        self.unpaused(at, units)?;
        self.fits(at, units)
    }

    /// Of the pauses on the way up the last to end counts, the lowest pool of equal ones. What has
    /// no hope even without it is told so.
    pub(super) fn unpaused(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let Some((pool, until)) = self.paused(at) else { return Ok(()) };
        let end = if self.outlasts(at) { When::Never } else { When::At(until) };
        let outlook = match self.fits(at, units).map_err(|lack| lack.summary().2) {
            Err(When::Never) => return Ok(()),
            Err(lack) => lack.max(end),
            Ok(()) => end,
        };
        Err(Refusal::Paused { pool: name(pool), until, outlook, retry_after: self.after(outlook) })
    }

    /// The pool whose pause on the way up is the last to end, and when.
    pub(super) fn paused(&self, at: PoolId) -> Option<(PoolId, Nanos)> {
        let way = self.path(at).into_iter().rev();
        way.filter_map(|id| Some((id, self.pools[&id].paused?))).max_by_key(|(_, until)| *until)
    }

    /// Whether the pause lasts until the deadline.
    pub(super) fn outlasts(&self, at: PoolId) -> bool {
        let end = self.paused(at).map(|(_, until)| until);
        self.deadline(at).is_some_and(|(_, deadline)| end.is_some_and(|end| deadline.at() <= end))
    }

    /// The longer pause wins.
    pub(super) fn pause(&mut self, id: PoolId, until: Nanos) {
        let known = self.pools[&id].paused;
        if until > self.now && known.is_none_or(|known| known < until) {
            self.pool(id).paused = Some(until);
            self.pause_began(id);
            self.serve();
        }
    }

    pub(super) fn resume(&mut self, id: PoolId) {
        if self.pool(id).paused.take().is_some() {
            self.pause_ended(id);
            self.serve();
        }
    }

    /// The pause that ends first.
    pub(super) fn next_pause(&self) -> Option<(Nanos, PoolId)> {
        self.pools.iter().filter_map(|(id, pool)| Some((pool.paused?, *id))).min()
    }

    /// The same, for what must not jump the queue (P6).
    pub(super) fn ask_in_turn(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        self.open(at)?;
        self.in_time(at)?;
        self.unpaused(at, units)?;
        self.queued(at, units)?;
        self.fits(at, units)
    }

    /// What a call for so much is answered.
    fn counted<T>(
        &mut self,
        at: PoolId,
        units: &Units,
        answer: Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.count(at, answer.is_ok());
        if let Err(refusal) = &answer {
            self.note_lacks(at, units, refusal);
        }
        answer
    }

    /// Notes what a refused call lacks, where only a higher cap would do.
    pub(super) fn note_lacks(&mut self, at: PoolId, units: &Units, refusal: &Refusal) {
        if refusal.summary().2 == When::AfterFunding {
            let asked = self.asked_on_path(at, units).into_iter();
            let lacks = asked.map(|(pool, asked)| (pool, self.unfunded(pool, &asked)));
            let lacks: Vec<_> = lacks.filter(|(_, lack)| *lack != ZERO).collect();
            self.lacks.extend(lacks);
        }
    }

    pub(super) fn count(&mut self, at: PoolId, admitted: bool) {
        for id in self.path(at) {
            let pool = self.pool(id);
            match admitted {
                true => pool.admitted += 1,
                false => pool.refused += 1,
            }
        }
    }

    pub(super) fn pool(&mut self, id: PoolId) -> &mut Pool {
        self.pools.get_mut(&id).expect("a live pool")
    }

    pub(super) fn hold(&mut self, id: HoldId) -> &mut Hold {
        self.holds.get_mut(&id).expect("a live hold")
    }

    // Time.

    /// Whether a call reads the clock; `None` = it may, as the real pools may have an expired hold
    /// yet to be reclaimed.
    pub(super) fn reads(&self, call: Reads) -> Option<bool> {
        let windowed = |at: PoolId| self.path(at).iter().any(|id| self.pools[id].window.is_some());
        let is_timed = match call {
            Reads::Never => return Some(false),
            Reads::Always(_) => return Some(true),
            Reads::Asks(at) => windowed(at) || self.deadline(at).is_some(),
            Reads::Tells(at) => windowed(at),
            Reads::Moves(from, to) => windowed(from) || windowed(to),
            Reads::Surveys(at) => self.below(at).into_iter().any(windowed),
        };
        let is_paused = self.pools.values().any(|pool| pool.paused.is_some());
        let is_timed = is_timed || is_paused || self.waits_at_a_window();
        let may_expire = self.holds.values().any(|hold| hold.is_live() && hold.expiry.is_some());
        if is_timed || may_expire || self.unreclaimed == 0 {
            Some(is_timed || may_expire)
        } else {
            None
        }
    }

    /// All that is due up to now, in its order, for a call that is told the time.
    pub(super) fn pass(&mut self, now: Nanos, call: Reads) {
        self.now = self.now.max(now);
        self.tell_late();
        self.happen();
        self.moment = self.now;
        self.end_times();
        if let Reads::Asks(at) | Reads::Tells(at) | Reads::Surveys(at) | Reads::Always(at) = call {
            self.turn(&self.path(at));
        }
        if let Reads::Surveys(at) = call {
            self.turn(&self.concerned(at));
        }
        if let Reads::Moves(from, to) = call {
            self.turn(&[self.path(from), self.path(to)].concat());
        }
        self.unreclaimed = self.unreclaimed.saturating_sub(BATCH);
        self.doubt_peaks();
    }

    /// A look at a pool: all that is due up to the latest instant seen is done.
    pub(super) fn bring_all_up(&mut self, at: PoolId) {
        self.happen();
        self.doubt_peaks();
        self.turn_to_present(&self.path(at));
    }

    /// All that is due happens, in the order of time: pauses end, windows bring enough for one that
    /// waits, and holds expire; at one instant in this order.
    pub(super) fn happen(&mut self) {
        while self.happen_next() {}
    }

    /// The next of it. Returns whether anything was due.
    pub(super) fn happen_next(&mut self) -> bool {
        let [pause, room] = [self.next_pause().map(|of| of.0), self.next_room().map(|of| of.0)];
        let next = pause.into_iter().chain(room).min();
        let expiry = self.next_expiry().map(|(at, _)| at);
        match next.filter(|at| *at <= self.now && expiry.is_none_or(|expiry| *at <= expiry)) {
            None => self.expire_next(self.now),
            Some(at) => {
                self.happen_at(at);
                true
            }
        }
    }

    /// All pauses end and all windows turn that do so at an instant; then those are served for whom
    /// it has brought room, whatever it was.
    fn happen_at(&mut self, at: Nanos) {
        self.come_to(at);
        while let Some((_, id)) = self.next_pause().filter(|(until, _)| *until <= at) {
            self.pool(id).paused = None;
            self.pause_ended(id);
        }
        while let Some((_, id)) = self.next_room().filter(|(room, _)| *room <= at) {
            self.turn_for(id);
        }
        self.serve();
    }

    /// Lets the next hold expire, as at its instant, if that has come.
    pub(super) fn expire_next(&mut self, now: Nanos) -> bool {
        let Some((at, id)) = self.next_expiry().filter(|(at, _)| *at <= now) else { return false };
        self.unreclaimed += 1;
        self.moment = self.moment.max(at);
        self.turn(&self.path(self.holds[&id].pool));
        if self.holds.get(&id).is_some_and(Hold::is_live) {
            self.expire(id);
        }
        true
    }

    /// A whole look has reclaimed all that had expired. A peak that could not be known is from now
    /// on.
    pub(super) fn learn_peaks(&mut self, seen: &[View]) {
        self.unreclaimed = 0;
        for (id, pool) in &mut self.pools {
            let Some(seen) = seen.iter().find(|seen| seen.name == name(*id)) else { continue };
            let (least, most) = (&pool.peak, &pool.most_peak);
            pool.peak = each(|axis| seen.axes[axis].peak.clamp(least[axis], most[axis]));
            pool.most_peak = pool.peak;
        }
    }

    /// What has expired and may not be reclaimed yet may count in a peak from now on.
    fn doubt_peaks(&mut self) {
        if self.unreclaimed > 0 {
            self.pools.values_mut().for_each(|pool| pool.most_peak = [MAX; LANES]);
        }
    }

    /// Whether a peak may be higher than is known: holds that had expired may have counted in it.
    pub(super) fn may_peak_higher(&self) -> bool {
        self.is_timed() || self.pools.values().any(|pool| pool.peak != pool.most_peak)
    }

    fn next_expiry(&self) -> Option<(Nanos, HoldId)> {
        let live = self.holds.iter().filter(|(_, hold)| hold.is_live());
        live.filter_map(|(id, hold)| Some((hold.expiry?, *id))).min()
    }

    fn due(&self, now: Nanos) -> impl Iterator<Item = &Hold> {
        let live = self.holds.values().filter(|hold| hold.is_live());
        live.filter(move |hold| hold.expiry.is_some_and(|expiry| expiry <= now))
    }

    /// The pools of the holds whose time is over, and which nobody knows of yet.
    pub(super) fn expired_by(&self, now: Nanos) -> Vec<PoolId> {
        self.due(now).map(|hold| hold.pool).collect()
    }

    /// An instant is due. What has expired before may still be there.
    fn come_to(&mut self, at: Nanos) {
        self.moment = self.moment.max(at);
        self.doubt_peaks();
    }

    /// Whether a window on the way up has not come to an instant.
    pub(super) fn is_behind(&self, home: PoolId, to: Nanos) -> bool {
        let lags = |id: &PoolId| self.pools[id].window.as_ref().is_some_and(|of| of.at < to);
        self.path(home).iter().any(lags)
    }

    /// For a call that is not told the time: it happens at the latest instant seen.
    pub(super) fn turn_to_present(&mut self, touched: &[PoolId]) {
        self.moment = self.now;
        self.turn(touched);
    }

    /// Brings windows up to the moment: all, or if somebody waits (see `queue.rs`) only those that
    /// are touched.
    pub(super) fn turn(&mut self, touched: &[PoolId]) {
        if self.turn_windows(touched) {
            self.serve();
        }
    }

    /// [`turn`](Model::turn), but the caller serves. Returns whether any has turned.
    pub(super) fn turn_windows(&mut self, touched: &[PoolId]) -> bool {
        let (to, all): (_, Vec<PoolId>) = (self.moment, self.pools.keys().copied().collect());
        let mut has_turned = false;
        for &id in if self.anybody_waits() { touched } else { &all } {
            let pool = self.pool(id);
            let Some(mut window) = pool.window.clone().filter(|window| window.at < to) else {
                continue;
            };
            has_turned = true;
            match window.kind {
                Kind::Fixed | Kind::Calendar => {
                    let turns = window.turns_to(to);
                    if turns > 0 && window.kind == Kind::Calendar && pool.owed != ZERO {
                        self.meet("a calendar turns");
                    }
                    match turns {
                        0 => {}
                        _ if window.carries => self.carry_over(id, turns),
                        _ => self.begin_period(id),
                    }
                }
                Kind::Rolling => {
                    let back = window.roll(to);
                    pool.owed = minus(&pool.owed, &back);
                    if back != ZERO && pool.owed != ZERO {
                        self.meet("some slots come back");
                    }
                }
                Kind::TokenBucket => {
                    let later = to.saturating_sub(window.at.max(window.start));
                    for axis in 0..LANES {
                        let (back, parts) = window.back(axis, pool.caps[axis], later);
                        // A bucket that is full stays so: nothing is owed, and no part of a unit is
                        // ahead of that.
                        window.parts[axis] = if back < pool.owed[axis] { parts } else { 0 };
                        pool.owed[axis] = pool.owed[axis].saturating_sub(back);
                    }
                }
            }
            self.pool(id).window = Some(Window { at: to, ..window });
        }
        if has_turned {
            self.balance_all();
        }
        has_turned
    }

    /// The time of a hold is over.
    fn expire(&mut self, id: HoldId) {
        let Hold { pool, on_drop, .. } = self.holds[&id];
        self.tell_expired(id);
        self.count_end(pool, End::Expired);
        let hold = self.hold(id);
        hold.held = without_in_flight(hold.held);
        let held = hold.held;
        if on_drop == OnDrop::Commit {
            let overage = self.book(pool, &held, &held, |model| {
                let hold = model.hold(id);
                hold.foreseen = hold.held;
                (hold.held, hold.metered) = (ZERO, hold.so_far());
                hold.is_live = false;
            });
            assert_eq!(overage, ZERO, "what was held fits");
            self.meet("an expiry settles");
        }
        self.hold(id).is_live = false;
        self.settle();
    }

    /// Instants at which something becomes different by itself.
    pub(super) fn events(&self) -> Vec<Nanos> {
        let mut events = self.releases();
        for pool in self.pools.values() {
            events.extend(pool.deadline.map(Deadline::at));
            events.extend(pool.paused);
            events.extend(pool.window.iter().flat_map(|window| match window.kind {
                Kind::Fixed | Kind::Calendar => window.next().into_iter().collect(),
                Kind::TokenBucket => vec![window.start],
                Kind::Rolling => {
                    let slots = window.slots.keys();
                    slots
                        .flat_map(|&slot| [window.slot_begin(slot + 1), window.slot_back(slot)])
                        .collect()
                }
            }));
        }
        events.extend(self.ends_of_waits());
        events.sort_unstable();
        events
    }

    /// Instants at which something is given back by itself, windows apart.
    pub(super) fn releases(&self) -> Vec<Nanos> {
        let holds = self.holds.values().filter_map(|hold| hold.expiry);
        let keys = self.pools.values().flat_map(|pool| pool.keys.values());
        holds.chain(keys.filter_map(|known| known.until)).collect()
    }

    // Telling.

    /// Books a fact from `at` upward, and returns the greatest overage on the path. The fact takes
    /// the place of `held`, which is reserved there until `let_go`.
    fn book(
        &mut self,
        at: PoolId,
        held: &Units,
        units: &Units,
        let_go: impl FnOnce(&mut Model),
    ) -> Units {
        let (mut greatest, mut place) = (ZERO, *held);
        let balances = self.balances();
        for id in self.path(at) {
            let free = balances[&id].free();
            let fits = each(|axis| units[axis].min(free[axis] + place[axis]));
            greatest = each(|axis| greatest[axis].max(units[axis] - fits[axis]));
            // Above a carve the fact takes the place of that part of the share which it used.
            let pool = &self.pools[&id];
            place = each(|axis| if pool.is_carved(axis) { fits[axis] } else { place[axis] });
        }
        let_go(self);
        for id in self.path(at) {
            let pool = self.pool(id);
            pool.owed = plus(&pool.owed, units);
            pool.spent = plus(&pool.spent, units);
        }
        let balances = self.balances();
        for id in self.path(at) {
            self.pool(id).forget_beyond_count(balances[&id].reserved);
        }
        greatest
    }

    /// Takes back what was booked from `at` upward, and returns the greatest credit on the path.
    fn take_back(&mut self, at: PoolId, units: &Units) -> Units {
        each(|axis| if units[axis] > 0 { self.take_back_on(axis, at, units[axis]) } else { 0 })
    }

    fn take_back_on(&mut self, axis: usize, at: PoolId, units: u128) -> u128 {
        let path = self.path(at);
        let balances = self.balances();
        let before: Vec<Balance> = path.iter().map(|id| balances[id]).collect();
        // By so much the share of a carved pool has grown again, out of what the pools above had
        // used.
        let (mut greatest, mut grown) = (0, 0);
        for (way, &id) in path.iter().enumerate() {
            let (used, overage) = (before[way].used[axis], before[way].overage[axis]);
            let is_carved = self.pools[&id].is_carved(axis);
            // A share cannot grow by more than each pool above has used in its own period. A closed
            // pool keeps no share that could grow.
            let above = before[way + 1..].iter().map(|above| above.used[axis]);
            let keeps_share = is_carved && !self.is_closed(id);
            let most = if keeps_share { above.min().unwrap_or(MAX) } else { MAX };
            let of_overage = (units - grown).min(overage);
            let of_used = (units - grown - of_overage).min(used - grown);
            let falls = grown + of_used.min(most - grown);
            for (what, happens) in [
                ("overage is taken back", of_overage > 0),
                ("what was used is taken back", falls > 0),
                ("a credit goes through a carve", grown > 0),
                ("a credit ends at a period above", grown + of_used > falls),
            ] {
                if happens {
                    self.meet(what);
                }
            }
            let credited = of_overage + falls;
            let pool = self.pool(id);
            pool.owed[axis] -= credited;
            pool.spent[axis] -= credited;
            pool.keep_slots();
            if let Some(window) = pool.window.as_mut().filter(|_| pool.owed[axis] == 0) {
                window.parts[axis] = 0;
            }
            greatest = greatest.max(credited);
            grown = match (is_carved, keeps_share) {
                (false, _) => grown,
                (true, false) => 0,
                (true, true) => falls,
            };
        }
        greatest
    }

    /// What follows from a change: balances first, then those who wait.
    fn settle(&mut self) {
        self.balance_all();
        self.serve();
    }

    /// From the bottom up: a closed carved pool keeps no free share, and a cap that falls may have
    /// come to where it was set.
    fn balance_all(&mut self) {
        let closed: Vec<PoolId> =
            self.pools.keys().copied().filter(|id| self.is_closed(*id)).rev().collect();
        for id in closed {
            let free = self.free(id);
            let pool = self.pool(id);
            for axis in (0..LANES).filter(|axis| pool.carved[*axis]) {
                pool.caps[axis] = Some(pool.cap(axis) - free[axis]);
            }
        }
        let may_be_gone = self.may_be_gone();
        for (id, balance) in self.balances() {
            let gone = may_be_gone.get(&id).unwrap_or(&ZERO);
            let pool = self.pool(id);
            let mut has_come_down = false;
            for axis in 0..LANES {
                let is_falling = balance.reserved[axis] > pool.cap(axis);
                assert!(pool.falling[axis] || !is_falling, "the model keeps its own caps");
                has_come_down |= pool.falling[axis] && !is_falling;
                pool.falling[axis] = is_falling;
            }
            let Balance { used, reserved, .. } = balance;
            let taken = plus(&used, &reserved);
            pool.most_peak = each(|axis| pool.most_peak[axis].max(taken[axis]));
            pool.peak = each(|axis| pool.peak[axis].max(taken[axis].saturating_sub(gone[axis])));
            if has_come_down {
                self.meet("a cap has come down");
            }
        }
    }

    /// What holds that are due have of each pool at most. They may have been reclaimed already:
    /// before one that waits is told that it has no hope.
    fn may_be_gone(&self) -> BTreeMap<PoolId, Units> {
        let mut gone = BTreeMap::new();
        for hold in self.due(self.now) {
            for pool in self.path(hold.pool) {
                let sum: &mut Units = gone.entry(pool).or_insert(ZERO);
                *sum = plus(sum, &hold.held);
            }
        }
        gone
    }

    /// Frees pools that nobody needs, upward.
    fn free_unneeded(&mut self, from: PoolId) {
        if self.is_reached(from) {
            return;
        }
        self.turn_to_present(&self.path(from));
        if self.before.is_some() && self.next_expiry().is_none_or(|(at, _)| at > self.now) {
            let seen = |&id: &PoolId| Before { id, view: self.view(id, id), want: self.want(id) };
            let seen: Vec<_> = self.pools.keys().map(seen).collect();
            self.before.get_or_insert_default().extend(seen);
        }
        // Children go before their parents.
        for id in self.path(from) {
            if !self.is_reached(id) && self.children(id).next().is_none() {
                self.pools.remove(&id);
            }
        }
        self.settle();
    }

    /// Whether anybody still has it, or what it gave.
    fn is_reached(&self, id: PoolId) -> bool {
        self.pools[&id].handles > 0 || self.has_guards(id)
    }

    /// Whether anybody has what it gave.
    pub(super) fn has_guards(&self, id: PoolId) -> bool {
        let held = self.holds.values().any(|hold| hold.pool == id);
        held || self.leases.values().any(|lease| lease.pool == id)
    }

    /// When nothing will be owed any more on an axis, if time ever brings that; an error if nothing is.
    pub(super) fn nothing_owed(&self, id: PoolId, axis: usize) -> Result<Option<Nanos>, ()> {
        let pool = &self.pools[&id];
        if pool.owed[axis] == 0 { Err(()) } else { Ok(pool.paid_off(axis, 0, pool.caps[axis], 0)) }
    }

    /// Until when each key is known, if it is ever forgotten.
    pub(super) fn known_until(&self, id: PoolId) -> Vec<Option<Nanos>> {
        self.pools[&id].keys.values().map(|known| known.until).collect()
    }

    // The calls of a pool.

    /// `now` is the builder's: to build a pool tells the tree no time. Only one that is below a single
    /// other can be carved.
    pub(super) fn build(
        &mut self,
        parents: Vec<PoolId>,
        spec: &Spec,
        now: Nanos,
    ) -> Result<PoolId, Refusal> {
        let Spec { carved, caps, ceilings, used, on_drop, deadline: total, window, .. } = *spec;
        let id = self.built;
        if let Some(parent) = parents.first().copied().filter(|_| carved) {
            if spec.tells_of_its_share() {
                return Err(Refusal::Carved { pool: name(id) });
            }
            if window.is_some() {
                return Err(Refusal::CarvedWindow { pool: name(id) });
            }
            let share = each(|axis| caps[axis].unwrap_or(0).into());
            let answer = self.ask_in_turn(parent, &share);
            self.counted(parent, &share, answer)?;
        }
        self.built += 1;
        let deadline = total
            .filter(|total| *total < Duration::MAX)
            .map(|total| Deadline { built: now, total });
        let caps = caps.map(|cap| cap.map(u128::from));
        let ceilings = ceilings.map(|cap| cap.map(u128::from));
        let used = used.unwrap_or_default().units();
        // Without a cap there is nothing to carve: it was asked for, and is a child like another.
        let carved = caps.map(|cap| carved && cap.is_some());
        let window = window.map(|windowed| Window::new(windowed, now));
        let memory = spec.memory.unwrap_or((262_144, Duration::from_secs(3_600)));
        let pool = Pool {
            parents,
            caps,
            ceilings,
            carved,
            owed: used,
            spent: used,
            on_drop,
            low: spec.low.map_or(ZERO, |low| low.with_slots()),
            most_waiting: spec.most_waiting,
            deadline,
            window,
            memory,
            handles: 1,
            ..Pool::default()
        };
        self.pools.insert(id, pool);
        self.pool(id).keep_slots();
        self.settle();
        Ok(id)
    }

    pub(super) fn drop_handle(&mut self, id: PoolId) {
        self.pool(id).handles -= 1;
        self.free_unneeded(id);
    }

    pub(super) fn record(&mut self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let answer = self.ask_in_turn(at, units);
        self.counted(at, units, answer)?;
        assert_eq!(self.debit(at, units).overage, ZERO, "what was admitted fits");
        Ok(())
    }

    pub(super) fn reserve(&mut self, at: PoolId, held: &Units) -> Result<HoldId, Refusal> {
        let answer = self.ask_in_turn(at, held);
        self.counted(at, held, answer)?;
        Ok(self.begin(at, *held))
    }

    pub(super) fn reserve_for(
        &mut self,
        at: PoolId,
        held: &Units,
        ttl: Duration,
    ) -> Result<HoldId, Refusal> {
        let id = self.reserve(at, held)?;
        self.hold(id).expiry = self.later(ttl);
        self.serve();
        Ok(id)
    }

    /// `None` if that is later than any instant.
    pub(super) fn later(&self, ttl: Duration) -> Option<Nanos> {
        (ttl < Duration::MAX).then(|| self.now + ttl.as_nanos())
    }

    /// Whether a key is known, with an amount that charges the same.
    fn knows(&mut self, at: PoolId, key: u8, amount: &Want) -> Result<bool, Refusal> {
        let now = self.now;
        let pool = self.pool(at);
        pool.keys.retain(|_, known| known.until.is_none_or(|until| now < until));
        match pool.keys.get(&key) {
            Some(known) if without_in_flight(known.amount.1) == amount.units() => Ok(true),
            Some(_) => Err(Refusal::KeyConflict { pool: name(at), key: key_name(key) }),
            None => Ok(false),
        }
    }

    fn has_room_for_a_key(&self, at: PoolId) -> bool {
        self.pools[&at].keys.len() < self.pools[&at].memory.0
    }

    fn learn(&mut self, at: PoolId, key: u8, amount: &Want) {
        let until = self.later(self.pools[&at].memory.1);
        let amount = amount.whole();
        self.pool(at).keys.insert(key, Known { amount, until });
    }

    pub(super) fn record_once(
        &mut self,
        at: PoolId,
        key: u8,
        amount: &Want,
    ) -> Result<Keyed, Refusal> {
        if self.knows(at, key, amount)? {
            return Ok(Keyed::Before);
        }
        self.open(at)
            .and_then(|()| self.in_time(at))
            .and_then(|()| self.unpaused(at, &amount.units()))
            .and_then(|()| self.queued(at, &amount.units()))
            .or_else(|refusal| self.counted(at, &amount.units(), Err(refusal)))?;
        if !self.has_room_for_a_key(at) {
            let (pool, deadline) = (&self.pools[&at], self.deadline(at));
            let next = pool.keys.values().filter_map(|known| known.until).min();
            let in_time = |at: &Nanos| deadline.is_none_or(|(_, deadline)| *at < deadline.at());
            let forgets = next.filter(in_time).map_or(When::Never, When::At);
            let outlook = match self.fits(at, &amount.units()) {
                Err(lack) => lack.summary().2.max(forgets),
                Ok(()) => forgets,
            };
            return self.counted(
                at,
                &amount.units(),
                Err(Refusal::KeysFull {
                    pool: name(at),
                    most: pool.memory.0,
                    outlook,
                    retry_after: self.after(outlook),
                }),
            );
        }
        self.record(at, &amount.units())?;
        self.learn(at, key, amount);
        Ok(Keyed::Now)
    }

    /// Where there is no room for the key it is booked all the same.
    pub(super) fn debit_once(
        &mut self,
        at: PoolId,
        key: u8,
        amount: &Want,
    ) -> Result<Booked, Refusal> {
        if self.knows(at, key, amount)? {
            self.meet("a debit whose key is known");
            return Ok(Booked { settled: ZERO, credited: ZERO, overage: ZERO, late: false });
        }
        if self.has_room_for_a_key(at) {
            self.learn(at, key, amount);
        } else {
            self.meet("a debit whose key is one too many");
        }
        Ok(self.debit(at, &amount.units()))
    }

    /// What was spent under a key, as far as it is known at the latest instant seen.
    pub(super) fn known(&self, at: PoolId, key: u8) -> Option<([bool; LANES], Units)> {
        self.pools[&at].keys.get(&key).map(|known| known.amount)
    }

    pub(super) fn known_keys(&self, at: PoolId) -> Vec<u8> {
        self.pools[&at].keys.keys().copied().collect()
    }

    /// A hold of what was admitted: it frees nothing.
    pub(super) fn begin(&mut self, at: PoolId, held: Units) -> HoldId {
        let set = |id: &PoolId| self.pools[id].on_drop;
        let on_drop = self.path(at).iter().find_map(set).unwrap_or(OnDrop::Release);
        self.insert(Hold::new(at, held, on_drop))
    }

    /// What is to be spent, as soon as its owner collects it.
    pub(super) fn begin_spend(&mut self, at: PoolId, held: Units) -> HoldId {
        self.insert(Hold { is_spend: true, ..Hold::new(at, held, OnDrop::Release) })
    }

    /// It is spent, or given back.
    pub(super) fn end_spend(&mut self, id: HoldId, is_spent: bool) {
        let Hold { pool, held, .. } = self.holds[&id];
        let spent = if is_spent { held } else { ZERO };
        self.book(pool, &held, &spent, |model| {
            model.holds.remove(&id);
        });
        self.settle();
    }

    fn insert(&mut self, hold: Hold) -> HoldId {
        let id = self.made;
        self.made += 1;
        for pool in self.path(hold.pool).into_iter().filter(|_| !hold.is_spend) {
            self.pool(pool).begun += 1;
        }
        self.holds.insert(id, hold);
        self.balance_all();
        id
    }

    fn count_end(&mut self, at: PoolId, end: End) {
        self.meet(match end {
            End::Committed => "a hold is committed",
            End::Released => "a hold is released",
            End::Expired => "a hold expires",
        });
        for id in self.path(at) {
            let ended = &mut self.pool(id).ended;
            match end {
                End::Committed => ended.committed += 1,
                End::Released => ended.released += 1,
                End::Expired => ended.expired += 1,
            }
        }
    }

    pub(super) fn debit(&mut self, at: PoolId, units: &Units) -> Booked {
        let overage = self.book(at, &ZERO, units, |_| ());
        self.settle();
        let booked = Booked { settled: *units, credited: ZERO, overage, late: false };
        self.tell_overage(at, &booked);
        booked
    }

    pub(super) fn credit(&mut self, at: PoolId, units: &Units) -> Booked {
        let credited = self.take_back(at, units);
        self.settle();
        Booked { settled: ZERO, credited, overage: ZERO, late: false }
    }

    pub(super) fn set_used(&mut self, id: PoolId, figures: &Want) -> Result<(), Refusal> {
        let named = figures.named();
        if (0..LANES).any(|axis| named[axis] && self.pools[&id].is_carved(axis)) {
            return Err(Refusal::Carved { pool: name(id) });
        }
        let (units, reserved) = (figures.units(), self.reserved(id));
        let pool = self.pool(id);
        for axis in (0..LANES).filter(|axis| named[*axis]) {
            pool.spent[axis] = pool.spent[axis] + units[axis] - pool.owed[axis];
            pool.owed[axis] = units[axis];
            if let Some(window) = pool.window.as_mut().filter(|_| units[axis] == 0) {
                window.parts[axis] = 0;
            }
        }
        pool.forget_beyond_count(reserved);
        self.settle();
        Ok(())
    }

    pub(super) fn reset(&mut self, id: PoolId) {
        self.begin_period(id);
        self.settle();
    }

    fn begin_period(&mut self, id: PoolId) {
        let Balance { used, reserved, .. } = self.balance(id);
        let pool = self.pool(id);
        for (axis, used) in used.into_iter().enumerate() {
            if pool.is_carved(axis) {
                pool.caps[axis] = Some(pool.cap(axis) - used);
            }
        }
        pool.owed = ZERO;
        pool.begin_peak(reserved);
        if let Some(window) = &mut pool.window {
            window.parts = ZERO;
        }
        pool.keep_slots();
    }

    /// A period begins with what was owed beyond the cap, and so on for so many turns.
    fn carry_over(&mut self, id: PoolId, turns: u128) {
        let Balance { cap, reserved, .. } = self.balance(id);
        let room = minus(&cap, &reserved);
        let pool = self.pool(id);
        for _ in 0..turns.min(FEW_TURNS) {
            pool.owed = minus(&pool.owed, &room);
        }
        let more = turns.saturating_sub(FEW_TURNS);
        pool.owed = each(|axis| pool.owed[axis].saturating_sub(room[axis].saturating_mul(more)));
        pool.begin_peak(reserved);
        if pool.owed != ZERO {
            self.meet("an overage is carried");
        }
    }

    pub(super) fn close(&mut self, id: PoolId) {
        self.turn_to_present(&self.path(id));
        self.turn_to_present(&self.concerned(id));
        self.pool(id).closed = true;
        self.tell_closed();
        self.settle();
    }

    /// What is asked of the pool above a carved one if its caps become these.
    fn growth(&self, id: PoolId, caps: &[Option<u128>; LANES]) -> Units {
        let (pool, reserved) = (&self.pools[&id], self.reserved(id));
        let then = Pool { carved: pool.carved, caps: *caps, owed: pool.owed, ..Pool::default() };
        minus(&then.share(reserved), &pool.share(reserved))
    }

    /// The caps of a pool become these.
    fn move_caps(&mut self, id: PoolId, caps: [Option<u128>; LANES]) {
        let reserved = self.reserved(id);
        let pool = self.pool(id);
        pool.caps = caps;
        // Whatever was falling begins to fall anew, or falls no longer.
        pool.falling = std::array::from_fn(|axis| reserved[axis] > pool.cap(axis));
        let is_falling = pool.falling.contains(&true);
        pool.forget_beyond_count(reserved);
        if is_falling {
            self.meet("a cap falls");
        }
    }

    /// What is named of a pool's caps.
    fn of_caps(&self, id: PoolId, named: &Limits) -> Units {
        let pool = &self.pools[&id];
        each(|axis| pool.caps[axis].map_or(0, |_| u128::from(named[axis].unwrap_or(0))))
    }

    /// A cap can be counted, and no further can it rise.
    fn can_rise(&self, id: PoolId, by: &Units) -> Result<(), Refusal> {
        let Some(axis) = (0..LANES).find(|&axis| by[axis] > MAX - self.pools[&id].cap(axis)) else {
            return Ok(());
        };
        Err(Refusal::Exceeded(Exceeded {
            axis: AXES[axis],
            requested: by[axis],
            available: MAX - self.pools[&id].cap(axis),
            cap: Some(MAX),
            pool: name(id),
            outlook: When::Never,
            retry_after: None,
        }))
    }

    fn can_fall(&self, id: PoolId, by: &Units) -> Result<(), Refusal> {
        self.first_and_worst(self.short(&self.balance(id), id, by, self.deadline(id)))
    }

    fn raised(&self, id: PoolId, by: &Units) -> [Option<u128>; LANES] {
        let caps = self.pools[&id].caps;
        std::array::from_fn(|axis| caps[axis].map(|cap| cap + by[axis]))
    }

    fn lowered(&self, id: PoolId, by: &Units) -> [Option<u128>; LANES] {
        let caps = self.pools[&id].caps;
        std::array::from_fn(|axis| caps[axis].map(|cap| cap - by[axis]))
    }

    pub(super) fn raise_caps(&mut self, id: PoolId, by: &Limits) -> Result<(), Refusal> {
        let by = self.of_caps(id, by);
        self.open(id)?;
        self.can_rise(id, &by)?;
        let caps = self.raised(id, &by);
        if let Some(parent) = self.pools[&id].parents.first().copied() {
            // What pays overage here was booked above when it was spent.
            let growth = self.growth(id, &caps);
            if growth != ZERO {
                let answer = self.ask(parent, &growth);
                self.counted(parent, &growth, answer)?;
            }
        }
        self.move_caps(id, caps);
        self.settle();
        Ok(())
    }

    pub(super) fn lower_caps(&mut self, id: PoolId, by: &Limits) -> Result<(), Refusal> {
        let by = self.of_caps(id, by);
        self.can_fall(id, &by)?;
        self.move_caps(id, self.lowered(id, &by));
        self.settle();
        Ok(())
    }

    /// How far each cap was lowered.
    pub(super) fn lower_caps_up_to(&mut self, id: PoolId, to: &Limits) -> [Option<u128>; LANES] {
        let (named, free) = (self.of_caps(id, to), self.free(id));
        let by = each(|axis| named[axis].min(free[axis]));
        self.move_caps(id, self.lowered(id, &by));
        self.settle();
        let pool = &self.pools[&id];
        std::array::from_fn(|axis| to[axis].and(pool.caps[axis]).map(|_| by[axis]))
    }

    pub(super) fn set_caps(&mut self, id: PoolId, to: &Limits) -> Result<(), Refusal> {
        let pool = &self.pools[&id];
        let rises = |axis: usize| to[axis].map(u128::from) > Some(pool.caps[axis].unwrap_or(MAX));
        if (0..LANES).any(rises) {
            self.open(id)?;
        }
        let pool = &self.pools[&id];
        let caps = std::array::from_fn(|axis| to[axis].map(u128::from).or(pool.caps[axis]));
        let growth = self.growth(id, &caps);
        if let Some(parent) = pool.parents.first().copied().filter(|_| growth != ZERO) {
            let answer = self.ask(parent, &growth);
            self.counted(parent, &growth, answer)?;
        }
        self.move_caps(id, caps);
        self.settle();
        Ok(())
    }

    pub(super) fn set_ceiling(&mut self, id: PoolId, to: &Limits) {
        let pool = self.pool(id);
        for (ceiling, to) in pool.ceilings.iter_mut().zip(to) {
            *ceiling = to.map(u128::from).or(*ceiling);
        }
        self.settle();
    }

    /// One step: what the first pool gives up is never free to anybody but the second.
    pub(super) fn transfer(
        &mut self,
        from: PoolId,
        to: PoolId,
        caps: &Limits,
    ) -> Result<(), Refusal> {
        for id in [from, to] {
            let pool = &self.pools[&id];
            if let Some(axis) =
                (0..LANES).find(|&axis| caps[axis].is_some() && pool.caps[axis].is_none())
            {
                return Err(Refusal::Uncapped { pool: name(id), axis: AXES[axis] });
            }
        }
        self.open(to)?;
        let by = self.of_caps(from, caps);
        self.can_fall(from, &by)?;
        if from == to {
            return Ok(());
        }
        self.can_rise(to, &by)?;
        let (lowered, raised) = (self.lowered(from, &by), self.raised(to, &by));
        if let Some(parent) = self.pools[&to].parents.first().copied() {
            let growth = self.growth(to, &raised);
            let free = self.free_after(from, &by, &self.path(parent));
            let (before, mut balances) = (self.pools[&from].caps, self.balances());
            self.move_caps(from, lowered);
            // The pools above the giver stay as they are, until all is known to fit.
            balances.insert(from, self.balance(from));
            if let Err(refusal) = self.can_grow(parent, &growth, &free, &balances) {
                self.move_caps(from, before);
                return Err(self.as_before(from, &by, refusal));
            }
        }
        let (giver, taker) = (&self.pools[&from], &self.pools[&to]);
        let are_carved = |axis| by[axis] > 0 && giver.is_carved(axis) && taker.is_carved(axis);
        let carved = (0..LANES).any(are_carved);
        let is_apart = |above: &PoolId| self.is_joint(*above) && !self.is_below(from, *above);
        let through_joint = self.path(to).iter().any(is_apart);
        if giver.parents == taker.parents && carved {
            self.meet("a transfer between carved siblings");
        }
        if through_joint && carved {
            self.meet("a share moves through a joint pool");
        }
        self.move_caps(from, lowered);
        self.move_caps(to, raised);
        self.settle();
        Ok(())
    }

    /// A refusal by the giver, which would have to have free what it gives, too.
    fn as_before(&self, from: PoolId, by: &Units, refusal: Refusal) -> Refusal {
        match refusal {
            Refusal::Exceeded(refusal) if refusal.pool == name(from) => {
                let axis = AXES.iter().position(|axis| *axis == refusal.axis).expect("an axis");
                Refusal::Exceeded(Exceeded {
                    requested: (refusal.requested + by[axis]).min(MAX),
                    available: self.free(from)[axis],
                    cap: self.pools[&from].caps[axis],
                    ..refusal
                })
            }
            other => other,
        }
    }

    /// What is free in some pools after another pool has given up so much, and before any of that
    /// pays overage.
    fn free_after(&self, from: PoolId, by: &Units, pools: &[PoolId]) -> BTreeMap<PoolId, Units> {
        let giver = &self.pools[&from];
        let back = each(|axis| if giver.is_carved(axis) { by[axis] } else { 0 });
        let given_back: BTreeMap<_, _> = giver
            .parents
            .first()
            .map_or(Vec::new(), |parent| self.asked_on_path(*parent, &back))
            .into_iter()
            .collect();
        let free_after = |id: &PoolId| {
            let free = plus(&self.free(*id), given_back.get(id).unwrap_or(&ZERO));
            (*id, if *id == from { minus(&free, by) } else { free })
        };
        pools.iter().map(free_after).collect()
    }

    /// Whether a pool and those above have so much for a share below, with so much that is free.
    fn can_grow(
        &self,
        at: PoolId,
        growth: &Units,
        free: &BTreeMap<PoolId, Units>,
        balances: &Balances,
    ) -> Result<(), Refusal> {
        let mut refusals = Vec::new();
        for (id, asked) in self.asked_on_path(at, growth) {
            for axis in (0..LANES).filter(|&axis| asked[axis] > free[&id][axis]) {
                let (balance, deadline) = (&balances[&id], self.deadline(at));
                let refusal = self.refusal(balance, id, axis, asked[axis], deadline);
                refusals.push(Exceeded { available: free[&id][axis], ..refusal });
            }
        }
        self.first_and_worst(refusals)
    }

    // The calls of a reservation.

    /// Ends a hold: `more` becomes a fact, and `less` of what was metered is taken back.
    fn end(&mut self, id: HoldId, end: End, more: &Units, less: &Units) -> Booked {
        let Hold { pool, held, is_live, .. } = self.holds[&id];
        if is_live {
            self.count_end(pool, end);
        }
        let place = if is_live { held } else { ZERO };
        let overage = self.book(pool, &place, more, |model| {
            model.holds.remove(&id);
        });
        self.balance_all();
        let met = std::mem::take(&mut self.met);
        let credited = self.take_back(pool, less);
        for (what, by_commit) in [
            ("overage is taken back", "a commit takes back overage"),
            ("what was used is taken back", "a commit takes back what was used"),
        ] {
            if self.met.contains(what) {
                self.meet(by_commit);
            }
        }
        self.met.extend(met);
        self.settle();
        self.free_unneeded(pool);
        let booked = Booked { settled: *more, credited, overage, late: !is_live };
        self.tell_overage(pool, &booked);
        booked
    }

    /// What a reservation comes to in all.
    fn total(&self, id: HoldId, named: &Want) -> Units {
        let (so_far, units) = (self.holds[&id].so_far(), named.units());
        let mut total = each(|axis| if named.names(axis) { units[axis] } else { so_far[axis] });
        if named.names_a_part() {
            total[TOKENS] = (total[INPUT] + total[OUTPUT]).min(MAX).max(units[TOKENS]);
        }
        without_in_flight(total)
    }

    pub(super) fn commit(&mut self, id: HoldId, named: &Want) -> Booked {
        let (total, metered) = (self.total(id, named), self.holds[&id].metered);
        let (more, less) = (minus(&total, &metered), minus(&metered, &total));
        self.end(id, End::Committed, &more, &less)
    }

    pub(super) fn try_commit(&mut self, id: HoldId, named: &Want) -> Result<Booked, Refusal> {
        self.live(id)?;
        let more = minus(&self.total(id, named), &self.holds[&id].metered);
        let (pool, beyond) = (self.holds[&id].pool, self.beyond(id, &more));
        if let Err(refusal) = self.fits(pool, &beyond) {
            self.note_lacks(pool, &beyond, &refusal);
            return Err(refusal);
        }
        let booked = self.commit(id, named);
        assert_eq!(booked.overage, ZERO, "what was admitted fits");
        Ok(booked)
    }

    fn live(&self, id: HoldId) -> Result<(), Refusal> {
        let hold = &self.holds[&id];
        if hold.is_live() { Ok(()) } else { Err(Refusal::Expired { pool: name(hold.pool) }) }
    }

    pub(super) fn renew(&mut self, id: HoldId, ttl: Duration) -> Result<(), Refusal> {
        self.live(id)?;
        let expiry = self.later(ttl);
        self.hold(id).expiry = expiry;
        self.serve();
        Ok(())
    }

    fn beyond(&self, id: HoldId, units: &Units) -> Units {
        minus(units, &self.holds[&id].held)
    }

    pub(super) fn release(&mut self, id: HoldId) {
        self.end(id, End::Released, &ZERO, &ZERO);
    }

    pub(super) fn drop_hold(&mut self, id: HoldId) {
        if self.holds[&id].is_live() {
            self.tell_dropped(id);
        }
        let hold = &self.holds[&id];
        match hold.on_drop == OnDrop::Commit && hold.is_live() {
            true => {
                self.meet("a drop settles");
                self.commit(id, &Want::default());
            }
            false => self.release(id),
        }
    }

    pub(super) fn debit_part(&mut self, id: HoldId, part: &Units) -> Booked {
        let Hold { pool, held, is_live, foreseen, .. } = self.holds[&id];
        let place = if is_live { each(|axis| part[axis].min(held[axis])) } else { ZERO };
        let more = minus(part, &foreseen);
        let overage = self.book(pool, &place, &more, |model| {
            let hold = model.hold(id);
            hold.foreseen = minus(&foreseen, part);
            hold.held = minus(&hold.held, part);
            hold.metered = plus(&hold.metered, &more).map(|units| units.min(MAX));
        });
        self.settle();
        let booked = Booked { settled: more, credited: ZERO, overage, late: !is_live };
        self.tell_overage(pool, &booked);
        booked
    }

    /// The second becomes part of the first.
    pub(super) fn merge(&mut self, first: HoldId, second: HoldId) -> Result<(), Refusal> {
        let pool = self.holds[&first].pool;
        if self.holds[&second].pool != pool {
            return Err(Refusal::ForeignPool { pool: name(self.holds[&second].pool) });
        }
        self.live(first)?;
        self.live(second)?;
        let Hold { held, metered, on_drop, .. } = self.holds.remove(&second).expect("a live hold");
        let hold = self.hold(first);
        if on_drop == OnDrop::Commit {
            hold.on_drop = OnDrop::Commit;
        }
        hold.held = plus(&hold.held, &held);
        hold.metered = plus(&hold.metered, &metered).map(|units| units.min(MAX));
        for id in self.path(pool) {
            self.pool(id).merged += 1;
        }
        self.meet("two holds become one");
        self.settle();
        Ok(())
    }

    pub(super) fn record_part(&mut self, id: HoldId, part: &Units) -> Result<(), Refusal> {
        self.live(id)?;
        let pool = self.holds[&id].pool;
        let beyond = self.beyond(id, part);
        let answer = self.ask(pool, &beyond);
        self.counted(pool, &beyond, answer)?;
        assert_eq!(self.debit_part(id, part).overage, ZERO, "what was admitted fits");
        Ok(())
    }

    pub(super) fn grow(&mut self, id: HoldId, extra: &Units) -> Result<(), Refusal> {
        self.live(id)?;
        let pool = self.holds[&id].pool;
        let answer = self.ask(pool, extra);
        self.counted(pool, extra, answer)?;
        let hold = self.hold(id);
        hold.held = plus(&hold.held, extra);
        self.settle();
        Ok(())
    }

    fn is_held(&self, id: HoldId, part: &Units) -> Result<(), Refusal> {
        let Hold { pool, held, .. } = &self.holds[&id];
        match (0..LANES).find(|&axis| part[axis] > held[axis]) {
            Some(axis) => Err(Refusal::Exceeded(Exceeded {
                axis: AXES[axis],
                requested: part[axis],
                available: held[axis],
                cap: Some(held[axis]),
                pool: name(*pool),
                outlook: When::Never,
                retry_after: None,
            })),
            None => Ok(()),
        }
    }

    pub(super) fn shrink(&mut self, id: HoldId, by: &Units) -> Result<(), Refusal> {
        self.live(id)?;
        self.is_held(id, by)?;
        let hold = self.hold(id);
        hold.held = each(|axis| hold.held[axis] - by[axis]);
        self.settle();
        Ok(())
    }

    /// One more is in flight, unless so many are to be moved.
    pub(super) fn split(&mut self, id: HoldId, part: &Want) -> Result<HoldId, Refusal> {
        self.live(id)?;
        let (moved, more) = (part.with_slots(), u128::from(part.slots().is_none()));
        self.is_held(id, &moved)?;
        let Hold { pool, label, on_drop, expiry, choice, .. } = self.holds[&id];
        let more = with_in_flight(ZERO, more);
        let answer = self.ask(pool, &more);
        self.counted(pool, &more, answer)?;
        let hold = self.hold(id);
        hold.held = minus(&hold.held, &moved);
        let split = Hold::new(pool, plus(&moved, &more), on_drop);
        Ok(self.insert(Hold { label, expiry, choice, ..split }))
    }

    // The calls of a lease.

    /// It asks for nothing.
    pub(super) fn lease(&mut self, pool: PoolId, batch: &Units) -> LeaseId {
        let id = self.made;
        self.made += 1;
        let lease = Lease { pool, batch: *batch, left: ZERO, unsettled: ZERO };
        self.leases.insert(id, lease);
        id
    }

    fn leased(&mut self, id: LeaseId) -> &mut Lease {
        self.leases.get_mut(&id).expect("a live lease")
    }

    /// Whether it can be spent without a word to the pool.
    pub(super) fn covers(&self, id: LeaseId, units: &Units) -> bool {
        self.beyond_lease(id, units) == ZERO
    }

    pub(super) fn beyond_lease(&self, id: LeaseId, units: &Units) -> Units {
        each(|axis| units[axis].saturating_sub(self.leases[&id].left[axis]))
    }

    /// The pool is not told of what the share covers.
    fn spend_share(&mut self, id: LeaseId, units: &Units) {
        let lease = self.leased(id);
        lease.left = each(|axis| lease.left[axis] - units[axis]);
        lease.unsettled = plus(&lease.unsettled, units);
    }

    pub(super) fn settle_lease(&mut self, id: LeaseId) {
        let Lease { pool, unsettled, .. } = self.leases[&id];
        let overage = self.book(pool, &unsettled, &unsettled, |model| {
            model.leased(id).unsettled = ZERO;
        });
        assert_eq!(overage, ZERO, "what was reserved fits");
        self.settle();
    }

    /// Books the whole, as far as it goes in place of the share.
    fn spend_beyond(&mut self, id: LeaseId, units: &Units) -> Booked {
        let Lease { pool, left, .. } = self.leases[&id];
        let place = each(|axis| units[axis].min(left[axis]));
        let overage = self.book(pool, &place, units, |model| {
            model.leased(id).left = minus(&left, units);
        });
        self.settle();
        let booked = Booked { settled: *units, credited: ZERO, overage, late: false };
        self.tell_overage(pool, &booked);
        booked
    }

    pub(super) fn lease_record(&mut self, id: LeaseId, units: &Units) -> Result<(), Refusal> {
        if self.covers(id, units) {
            self.spend_share(id, units);
            return Ok(());
        }
        self.settle_lease(id);
        let pool = self.leases[&id].pool;
        let beyond = self.beyond_lease(id, units);
        let answer = self.ask_in_turn(pool, &beyond);
        self.counted(pool, &beyond, answer)?;
        assert_eq!(self.spend_beyond(id, units).overage, ZERO, "what was admitted fits");
        let free = self.least_free(pool);
        let Lease { batch, left, .. } = self.leases[&id];
        let bite = each(|axis| (batch[axis] - left[axis]).min(free[axis] / BITE));
        // Only what was short, while others wait for more of it.
        if self.in_turn(pool, &bite).is_ok() {
            self.leased(id).left = plus(&left, &bite);
        }
        self.balance_all();
        Ok(())
    }

    pub(super) fn lease_debit(&mut self, id: LeaseId, units: &Units) -> Booked {
        if self.covers(id, units) {
            self.spend_share(id, units);
            return Booked { settled: *units, credited: ZERO, overage: ZERO, late: false };
        }
        self.settle_lease(id);
        self.spend_beyond(id, units)
    }

    pub(super) fn drop_lease(&mut self, id: LeaseId) {
        self.settle_lease(id);
        let lease = self.leases.remove(&id).expect("a live lease");
        self.settle();
        self.free_unneeded(lease.pool);
    }

    /// Whether the real pools may leave expired holds to be reclaimed after a call at this instant.
    pub(super) fn may_leave_some(&self, now: Nanos) -> bool {
        let is_due =
            |hold: &&Hold| hold.is_live() && hold.expiry.is_some_and(|expiry| expiry <= now);
        let due = self.holds.values().filter(is_due).count();
        self.unreclaimed + due > BATCH
    }

    // What is seen.

    pub(super) fn view(&self, id: PoolId, top: PoolId) -> View {
        self.view_of(&self.balances(), id, top)
    }

    fn view_of(&self, balances: &Balances, id: PoolId, top: PoolId) -> View {
        let (pool, available) = (&self.pools[&id], self.available(balances, id));
        let Balance { cap, used, overage, reserved } = balances[&id];
        let below = self
            .holds
            .values()
            .filter(|hold| hold.is_live() && !hold.is_spend && self.is_below(hold.pool, id))
            .count() as u64;
        let axis = |axis: usize| AxisView {
            cap: pool.caps[axis].map(|_| cap[axis]),
            falling_to: pool.caps[axis].filter(|goal| *goal < cap[axis]),
            used: used[axis],
            reserved: reserved[axis],
            overage: overage[axis],
            available: available[axis],
            spent: pool.spent[axis].min(MAX),
            peak: pool.peak[axis],
        };
        let Ended { committed, released, expired } = pool.ended;
        View {
            name: name(id),
            depth: self.depth(id, top),
            closed: self.is_closed(id),
            paused: self.paused(id).is_some(),
            counts: [pool.admitted, pool.refused, below, self.waiting(id)],
            ended: [committed, released, expired],
            axes: std::array::from_fn(axis),
        }
    }

    /// Each cap that counts for a pool: of its own and of those above it, up to the nearest carve on
    /// the axis of the cap.
    pub(super) fn limits(&self, balances: &Balances, id: PoolId) -> Vec<LimitView> {
        let mut limits = Vec::new();
        let mut beyond_carve = [false; LANES];
        for id in self.path(id) {
            let pool = &self.pools[&id];
            for axis in (0..LANES).filter(|&axis| pool.is_capped(axis) && !beyond_carve[axis]) {
                limits.push(self.limit(&balances[&id], id, axis));
            }
            for (axis, beyond) in beyond_carve.iter_mut().enumerate() {
                *beyond |= pool.is_carved(axis);
            }
        }
        limits
    }

    /// More is free when so little is owed that one unit more fits under the cap as it was set,
    /// beside all that is reserved. That is as late as it is, whatever the deadline.
    fn limit(&self, balance: &Balance, id: PoolId, axis: usize) -> LimitView {
        let (pool, free, reserved) =
            (&self.pools[&id], balance.free()[axis], balance.reserved[axis]);
        let most_owed = pool.cap(axis).checked_sub(reserved + free + 1);
        let more_at = most_owed.and_then(|most| {
            assert!(pool.owed[axis] > most, "what is free is not more than that");
            pool.paid_off(axis, most, pool.caps[axis], reserved)
        });
        let window = pool.window.as_ref().filter(|_| axis != IN_FLIGHT);
        let window = window.filter(|window| window.kind != Kind::Calendar);
        LimitView {
            pool: name(id),
            axis: AXES[axis],
            cap: balance.cap[axis],
            free,
            period: window.map(|window| window.period),
            more_in: more_at.map(|at| at - self.now),
        }
    }

    pub(super) fn tree(&self, top: PoolId) -> Vec<View> {
        let balances = self.balances();
        self.below(top).into_iter().map(|id| self.view_of(&balances, id, top)).collect()
    }

    /// The pool and all below it.
    fn below(&self, top: PoolId) -> Vec<PoolId> {
        self.pools.keys().copied().filter(|id| self.is_below(*id, top)).collect()
    }

    /// The pools below one and all that are above these: on which the state of these depends.
    fn concerned(&self, top: PoolId) -> Vec<PoolId> {
        self.below(top).into_iter().flat_map(|id| self.path(id)).collect()
    }

    pub(super) fn holder(&self, hold: &Hold) -> HolderView {
        (hold.seen(), name(hold.pool), hold.label.map(str::to_owned))
    }

    pub(super) fn holders(&self, top: PoolId) -> Vec<HolderView> {
        let live =
            self.holds.values().filter(|hold| hold.is_live() && self.is_below(hold.pool, top));
        let holds = live.map(|hold| self.holder(hold));
        let leases = self.leases.values().filter(|lease| self.is_below(lease.pool, top));
        holds
            .chain(leases.map(|lease| ((lease.reserved(), None), name(lease.pool), None)))
            .collect()
    }

    pub(super) fn time_left(&self, id: PoolId, now: Nanos) -> Option<Duration> {
        self.deadline(id).map(|(_, deadline)| duration(deadline.at().saturating_sub(now)))
    }

    pub(super) fn hold_time_left(&self, id: HoldId, now: Nanos) -> Option<Duration> {
        let hold = &self.holds[&id];
        let expiry = hold.expiry.map(|expiry| duration(expiry.saturating_sub(now)));
        expiry.into_iter().chain(self.time_left(hold.pool, now)).min()
    }

    /// What is held of a live hold.
    pub(super) fn amount(&self, id: HoldId) -> Option<HeldView> {
        Some(&self.holds[&id]).filter(|hold| hold.is_live()).map(Hold::seen)
    }

    /// Whether there is anything that only time brings, or takes away.
    pub(super) fn is_timed(&self) -> bool {
        let may_expire = self.holds.values().any(|hold| hold.is_live() && hold.expiry.is_some());
        let plays_a_part = |pool: &Pool| pool.window.is_some() || pool.paused.is_some();
        may_expire || self.pools.values().any(plays_a_part)
    }

    /// Whether time may play a part in the real pools: they may not have reclaimed all that has expired.
    pub(super) fn may_be_timed(&self) -> bool {
        self.is_timed() || self.unreclaimed > 0
    }

    /// What a pool could give if all that is reserved came back. Without a cap, something ordinary.
    pub(super) fn at_best(&self, id: PoolId) -> Units {
        let at_best =
            |id: PoolId, axis| self.pools[&id].cap(axis).saturating_sub(self.pools[&id].owed[axis]);
        let least = each(|axis| {
            self.path(id).into_iter().map(|id| at_best(id, axis)).min().expect("a path has a pool")
        });
        each(|axis| if least[axis] > MAX / 2 { 16 } else { least[axis] })
    }

    /// What is named of the caps that both pools have, so that they can be moved; now and then all.
    pub(super) fn both_capped(&self, a: PoolId, b: PoolId, named: &Limits, raw: u16) -> Limits {
        let both = |axis: usize| self.pools[&a].is_capped(axis) && self.pools[&b].is_capped(axis);
        std::array::from_fn(|axis| named[axis].filter(|_| raw % 8 == 0 || both(axis)))
    }

    /// Figures that matter to a pool: what is available. Without a cap, something ordinary.
    pub(super) fn near(&self, id: PoolId) -> Units {
        self.available(&self.balances(), id).map(|available| available.unwrap_or(16))
    }

    /// Figures that matter to a credit: the overage, or what is used.
    pub(super) fn near_owed(&self, id: PoolId) -> Units {
        let Balance { used, overage, .. } = self.balance(id);
        each(|axis| if overage[axis] > 0 { overage[axis] } else { used[axis] })
    }

    /// Figures that matter to a cap: what is used and reserved.
    pub(super) fn near_taken(&self, id: PoolId) -> Units {
        let Balance { used, reserved, .. } = self.balance(id);
        plus(&used, &reserved)
    }

    /// How many reservations have begun, but for those that have become part of another.
    pub(super) fn begun(&self, named: &str) -> u64 {
        let (_, pool) = self.pools.iter().find(|(id, _)| name(**id) == named).expect("a pool");
        pool.begun - pool.merged
    }
}

pub(super) fn key_name(key: u8) -> String {
    format!("key {key}")
}

pub(super) fn duration(nanos: Nanos) -> Duration {
    Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32)
}
