//! The model: what the contract says, too simple to be wrong.
//!
//! It is eager where the library is lazy: when it is told the time it does all that was due since,
//! each thing at its own instant and in the order of these, in all pools. A window that turns at
//! the instant at which a hold expires turns first. Who waits is of `queue.rs`, which says where
//! the model is as lazy as the library.
//!
//! It knows of time only what the real pools were told (P8). A call that reads no clock happens at
//! the latest instant seen.

use std::collections::BTreeMap;
use std::time::Duration;

use budget_pool::{Axis, Outlook};

use super::language::{
    AXES, IN_FLIGHT, MAX, Units, Want, ZERO, each, plus, with_one_in_flight, without_in_flight,
};
use super::name;
use super::queue::Waits;
use super::seen::{AxisView, HolderView, View};

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
    pub(super) parent: Option<PoolId>,
    caps: [Option<u128>; 6],
    carved: bool,
    used: Units,
    overage: Units,
    spent: Units,
    peak: Units,
    /// Whether the real peak may be higher: it also counts what had expired and was not reclaimed
    /// yet.
    peak_is_least: bool,
    closed: bool,
    admitted: u64,
    refused: u64,
    deadline: Option<Deadline>,
    pub(super) window: Option<Window>,
    /// How many are remembered at most, and for how long.
    memory: (usize, Duration),
    keys: BTreeMap<u8, Known>,
    pub(super) handles: usize,
}

impl Pool {
    fn cap(&self, axis: usize) -> u128 {
        self.caps[axis].unwrap_or(MAX)
    }

    pub(super) fn is_capped(&self, axis: usize) -> bool {
        self.caps[axis].is_some()
    }

    pub(super) fn is_carved(&self, axis: usize) -> bool {
        self.carved && self.is_capped(axis)
    }

    /// All that was spent in this period, and has not come back.
    fn owed(&self, axis: usize) -> u128 {
        self.used[axis] + self.overage[axis]
    }

    /// What a token bucket has brought back on an axis that much later: whole units, and what is
    /// beyond them in parts.
    fn back(&self, window: &Window, axis: usize, later: Nanos) -> (u128, u128) {
        let rate = self.caps[axis].filter(|_| axis != IN_FLIGHT).unwrap_or(0);
        let parts = later * rate + window.parts[axis];
        (parts / window.period, parts % window.period)
    }

    /// The first instant at which no more than `most` is owed, if time alone brings it.
    fn paid_off(&self, axis: usize, most: u128) -> Option<Nanos> {
        let window = self.window.as_ref().filter(|_| axis != IN_FLIGHT)?;
        if window.kind == Kind::Fixed {
            return Some(window.next());
        }
        let is_paid =
            |later| self.owed(axis).saturating_sub(self.back(window, axis, later).0) <= most;
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
}

#[derive(Debug, Clone)]
pub(super) struct Window {
    kind: Kind,
    period: Nanos,
    start: Nanos,
    /// Up to when it has turned or given back.
    at: Nanos,
    /// Of a token bucket: what is owed is a fraction with the period below. It is kept as whole
    /// units, which are seen, less so many parts.
    parts: Units,
}

impl Window {
    fn new(kind: Kind, period: Duration, start: Nanos, now: Nanos) -> Window {
        Window { kind, period: period.as_nanos().clamp(1, LONGEST), start, at: now, parts: ZERO }
    }

    /// Of a fixed one: the first turn after all that it has seen.
    fn next(&self) -> Nanos {
        match self.at.checked_sub(self.start) {
            Some(since) => self.start + (since / self.period + 1) * self.period,
            None => self.start,
        }
    }
}

/// What was spent under a key, and until when that is known.
#[derive(Debug)]
struct Known {
    amount: ([bool; 6], Units),
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
}

#[derive(Debug)]
pub(super) struct Hold {
    pub(super) pool: PoolId,
    /// One in flight is among it. Of one that has expired: what was held then.
    pub(super) held: Units,
    pub(super) settled: Units,
    pub(super) label: Option<&'static str>,
    pub(super) commit_on_drop: bool,
    pub(super) expiry: Option<Nanos>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Live,
    /// Expired, and what was held was given back.
    Released,
    /// Expired, and what was held was spent.
    Settled,
}

impl Hold {
    pub(super) fn new(pool: PoolId, held: Units) -> Hold {
        let (settled, label, expiry, state) = (ZERO, None, None, State::Live);
        Hold { pool, held, settled, label, commit_on_drop: false, expiry, state }
    }

    pub(super) fn is_live(&self) -> bool {
        self.state == State::Live
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
    Never,
}

impl When {
    /// The library's, its instants told by `nanos`.
    pub(super) fn of(outlook: Outlook, nanos: impl Fn(std::time::Instant) -> Nanos) -> When {
        match outlook {
            Outlook::At(at) => When::At(nanos(at)),
            Outlook::AfterRelease => When::AfterRelease,
            Outlook::Never => When::Never,
            _ => panic!("an outlook that the model does not know: {outlook:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    Closed { pool: String },
    Late { pool: String, budget: Duration, elapsed: Duration, needed: Duration },
    Queued { pool: String },
    Exceeded(Exceeded),
    Expired { pool: String },
    KeyConflict { pool: String, key: String },
    KeysFull { pool: String, most: usize, outlook: When, retry_after: Option<Nanos> },
    CarvedWindow { pool: String },
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
            (Refusal::Exceeded(_), When::Never) => "exceeded for ever",
            (Refusal::Closed { .. }, _) => "closed",
            (Refusal::Late { .. }, _) => "late",
            (Refusal::Queued { .. }, _) => "queued",
            (Refusal::Expired { .. }, _) => "expired",
            (Refusal::KeyConflict { .. }, _) => "another amount for a key",
            (Refusal::KeysFull { .. }, _) => "too many keys",
            (Refusal::CarvedWindow { .. }, _) => "carved with a window",
        }
    }

    pub(super) fn summary(&self) -> (Option<Axis>, &str, When, Option<Nanos>) {
        match self {
            Refusal::Late { pool, .. } => (Some(Axis::Deadline), pool, When::Never, None),
            Refusal::Exceeded(Exceeded { axis, pool, outlook, retry_after, .. }) => {
                (Some(*axis), pool, *outlook, *retry_after)
            }
            Refusal::KeysFull { pool, outlook, retry_after, .. } => {
                (None, pool, *outlook, *retry_after)
            }
            Refusal::Queued { pool } => (None, pool, When::AfterRelease, None),
            Refusal::Closed { pool }
            | Refusal::Expired { pool }
            | Refusal::KeyConflict { pool, .. }
            | Refusal::CarvedWindow { pool } => (None, pool, When::Never, None),
        }
    }
}

/// What a fact came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Booked {
    pub(super) settled: Units,
    pub(super) overage: Units,
    pub(super) late: bool,
}

/// What the call of a new pool takes.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    pub(super) carved: bool,
    pub(super) caps: [Option<u64>; 6],
    pub(super) deadline: Option<Duration>,
    /// With the start of a period, if it is given.
    pub(super) window: Option<(Kind, Duration, Option<Nanos>)>,
    pub(super) memory: Option<(usize, Duration)>,
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
}

#[derive(Debug, Default)]
pub(super) struct Model {
    /// Numbered in the order in which they are built: a child is always behind its parent.
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
    unreclaimed: usize,
}

impl Model {
    pub(super) fn new(now: Nanos) -> Model {
        Model { now, ..Model::default() }
    }

    /// The pool and those above it.
    pub(super) fn path(&self, from: PoolId) -> Vec<PoolId> {
        std::iter::successors(Some(from), |pool| self.pools[pool].parent).collect()
    }

    pub(super) fn is_below(&self, pool: PoolId, top: PoolId) -> bool {
        self.path(pool).contains(&top)
    }

    pub(super) fn children(&self, of: PoolId) -> impl Iterator<Item = PoolId> {
        self.pools.iter().filter(move |(_, pool)| pool.parent == Some(of)).map(|(id, _)| *id)
    }

    fn reserved(&self, id: PoolId) -> Units {
        let mut sum = ZERO;
        for hold in self.holds.values().filter(|hold| hold.pool == id && hold.is_live()) {
            sum = plus(&sum, &hold.held);
        }
        for lease in self.leases.values().filter(|lease| lease.pool == id) {
            sum = plus(&sum, &lease.reserved());
        }
        for child in self.children(id) {
            let (pool, below) = (&self.pools[&child], self.reserved(child));
            let share = |axis| {
                if pool.is_carved(axis) { pool.cap(axis) - pool.used[axis] } else { below[axis] }
            };
            sum = plus(&sum, &each(share));
        }
        sum
    }

    fn free(&self, id: PoolId) -> Units {
        let (pool, reserved) = (&self.pools[&id], self.reserved(id));
        each(|axis| {
            let taken = pool.used[axis] + reserved[axis];
            pool.cap(axis).checked_sub(taken).expect("the model keeps its own caps")
        })
    }

    /// The least that is free up to the nearest carve, of the pools with a cap.
    fn available(&self, id: PoolId) -> [Option<u128>; 6] {
        let mut least = [None; 6];
        let mut beyond_carve = [false; 6];
        for id in self.path(id) {
            let (pool, free) = (&self.pools[&id], self.free(id));
            for axis in 0..6 {
                if pool.caps[axis].is_some() && !beyond_carve[axis] {
                    least[axis] = Some(least[axis].unwrap_or(MAX).min(free[axis]));
                }
                beyond_carve[axis] |= pool.is_carved(axis);
            }
        }
        least
    }

    /// The same of all pools: without a cap, as far as can be counted.
    fn least_free(&self, id: PoolId) -> Units {
        let mut least = [MAX; 6];
        let mut beyond_carve = [false; 6];
        for id in self.path(id) {
            let (pool, free) = (&self.pools[&id], self.free(id));
            for axis in 0..6 {
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

    /// The axes on which the pool of this name has its caps from the one above.
    pub(super) fn carved(&self, named: &str) -> [bool; 6] {
        let pool =
            self.pools.iter().find(|(id, _)| name(**id) == named).expect("a pool that is seen").1;
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
        let ways = self.asked_on_path(at, units).into_iter();
        self.first_and_worst(
            ways.flat_map(|(id, asked)| self.short(id, &asked, deadline)).collect(),
        )
    }

    /// The axes on which a pool has less than is asked of it.
    pub(super) fn short(
        &self,
        id: PoolId,
        asked: &Units,
        deadline: Option<(PoolId, Deadline)>,
    ) -> Vec<Exceeded> {
        let free = self.free(id);
        let short = (0..6).filter(|&axis| asked[axis] > free[axis]);
        short.map(|axis| self.refusal(id, axis, asked[axis], deadline)).collect()
    }

    /// A refusal, and what to expect. Time alone is enough if it is before the deadline: `at` that
    /// instant it fits, live holds staying held. Else it may after a release of all that is
    /// held, which may come now, or in time.
    fn refusal(
        &self,
        id: PoolId,
        axis: usize,
        requested: u128,
        deadline: Option<(PoolId, Deadline)>,
    ) -> Exceeded {
        let (pool, reserved) = (&self.pools[&id], self.reserved(id)[axis]);
        let most_owed = |reserved: u128| pool.cap(axis).checked_sub(requested + reserved);
        let in_time = |at: &Nanos| deadline.is_none_or(|(_, deadline)| *at < deadline.at());
        let when = |reserved| pool.paid_off(axis, most_owed(reserved)?).filter(in_time);
        let fits_at_best = most_owed(0).is_some_and(|most| pool.owed(axis) <= most);
        let outlook = match when(reserved) {
            Some(at) => When::At(at),
            None if fits_at_best || when(0).is_some() => When::AfterRelease,
            None => When::Never,
        };
        Exceeded {
            axis: AXES[axis],
            requested,
            available: self.free(id)[axis],
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
        self.fits(at, units)
    }

    /// The same, for what must not jump the queue (P6).
    fn ask_in_turn(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        self.open(at)?;
        self.in_time(at)?;
        self.in_turn(at, units)?;
        self.fits(at, units)
    }

    fn counted<T>(&mut self, at: PoolId, answer: Result<T, Refusal>) -> Result<T, Refusal> {
        self.count(at, answer.is_ok());
        answer
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
            Reads::Surveys(at) => {
                windowed(at)
                    || self
                        .pools
                        .iter()
                        .any(|(id, pool)| pool.window.is_some() && self.is_below(*id, at))
            }
        };
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
        while self.expire_next(now) {}
        if let Reads::Asks(at) | Reads::Tells(at) | Reads::Surveys(at) | Reads::Always(at) = call {
            self.turn(self.now, &self.path(at));
        }
        if let Reads::Surveys(at) = call {
            self.turn(self.now, &self.below(at));
        }
        self.unreclaimed = self.unreclaimed.saturating_sub(BATCH);
        for pool in self.pools.values_mut() {
            pool.peak_is_least |= self.unreclaimed > 0;
        }
    }

    /// Lets the next hold expire, as at its instant, if that has come.
    pub(super) fn expire_next(&mut self, now: Nanos) -> bool {
        let Some((at, id)) = self.next_expiry().filter(|(at, _)| *at <= now) else { return false };
        self.unreclaimed += 1;
        self.turn(at, &self.path(self.holds[&id].pool));
        if self.holds.get(&id).is_some_and(Hold::is_live) {
            self.expire(id);
        }
        true
    }

    /// A whole look has reclaimed all that had expired. A peak that could not be known is from now
    /// on.
    pub(super) fn learn_peaks(&mut self, seen: &[View]) {
        self.unreclaimed = 0;
        for (id, pool) in self.pools.iter_mut().filter(|(_, pool)| pool.peak_is_least) {
            let Some(seen) = seen.iter().find(|seen| seen.name == name(*id)) else { continue };
            pool.peak = each(|axis| pool.peak[axis].max(seen.axes[axis].peak));
            pool.peak_is_least = false;
        }
    }

    fn next_expiry(&self) -> Option<(Nanos, HoldId)> {
        let live = self.holds.iter().filter(|(_, hold)| hold.is_live());
        live.filter_map(|(id, hold)| Some((hold.expiry?, *id))).min()
    }

    /// The pools of the holds whose time is over, and which nobody knows of yet.
    pub(super) fn expired_by(&self, now: Nanos) -> Vec<PoolId> {
        let live = self.holds.values().filter(|hold| hold.is_live());
        live.filter(|hold| hold.expiry.is_some_and(|expiry| expiry <= now))
            .map(|hold| hold.pool)
            .collect()
    }

    /// Brings windows up to an instant: all, or if somebody waits (see `queue.rs`) only those that
    /// are touched.
    pub(super) fn turn(&mut self, to: Nanos, touched: &[PoolId]) {
        let all: Vec<PoolId> = self.pools.keys().copied().collect();
        let mut has_turned = false;
        for &id in if self.anybody_waits() { touched } else { &all } {
            let pool = self.pool(id);
            let Some(mut window) = pool.window.clone().filter(|window| window.at < to) else {
                continue;
            };
            has_turned = true;
            match window.kind {
                Kind::Fixed if window.next() <= to => self.begin_period(id),
                Kind::Fixed => {}
                Kind::TokenBucket => {
                    let later = to.saturating_sub(window.at.max(window.start));
                    for axis in 0..6 {
                        let (back, parts) = pool.back(&window, axis, later);
                        // A bucket that is full stays so: nothing is owed, and no part of a unit is
                        // ahead of that.
                        window.parts[axis] = if back < pool.owed(axis) { parts } else { 0 };
                        let paid = back.min(pool.overage[axis]);
                        pool.overage[axis] -= paid;
                        pool.used[axis] -= (back - paid).min(pool.used[axis]);
                    }
                }
            }
            self.pool(id).window = Some(Window { at: to, ..window });
        }
        if has_turned {
            self.settle();
        }
    }

    /// The time of a hold is over.
    fn expire(&mut self, id: HoldId) {
        let hold = self.hold(id);
        let (pool, held, commit) = (hold.pool, without_in_flight(hold.held), hold.commit_on_drop);
        hold.state = if commit { State::Settled } else { State::Released };
        if commit {
            assert_eq!(self.tell(pool, &held), ZERO, "what was held fits");
        }
        self.settle();
    }

    /// Instants at which something becomes different by itself.
    pub(super) fn events(&self) -> Vec<Nanos> {
        let mut events: Vec<Nanos> = self.holds.values().filter_map(|hold| hold.expiry).collect();
        for pool in self.pools.values() {
            events.extend(pool.deadline.map(Deadline::at));
            events.extend(pool.keys.values().filter_map(|known| known.until));
            events.extend(pool.window.iter().map(|window| match window.kind {
                Kind::Fixed => window.next(),
                Kind::TokenBucket => window.start,
            }));
        }
        events.sort_unstable();
        events
    }

    // Telling.

    /// Books a fact from `at` upward; the greatest overage on the path.
    fn tell(&mut self, at: PoolId, units: &Units) -> Units {
        let mut greatest = ZERO;
        for id in self.path(at) {
            let room = self.free(id);
            let pool = self.pool(id);
            for axis in 0..6 {
                let fits = units[axis].min(room[axis]);
                let rest = units[axis] - fits;
                pool.used[axis] += fits;
                // What is late may add up to more than can be counted.
                pool.overage[axis] = (pool.overage[axis] + rest).min(MAX);
                pool.spent[axis] += units[axis];
                greatest[axis] = greatest[axis].max(rest);
            }
        }
        greatest
    }

    /// What follows from a change: balances first, then those who wait.
    fn settle(&mut self) {
        self.balance();
        self.serve();
    }

    /// From the bottom up: overage is paid from whatever is free, and a closed carved pool keeps no
    /// free share.
    fn balance(&mut self) {
        let pools: Vec<PoolId> = self.pools.keys().rev().copied().collect();
        for id in pools {
            let free = self.free(id);
            let closed = self.is_closed(id);
            let pool = self.pool(id);
            for (axis, free) in free.into_iter().enumerate() {
                let pay = pool.overage[axis].min(free);
                pool.used[axis] += pay;
                pool.overage[axis] -= pay;
                if closed && pool.is_carved(axis) {
                    pool.caps[axis] = Some(pool.cap(axis) - (free - pay));
                }
            }
            let reserved = self.reserved(id);
            let pool = self.pool(id);
            pool.peak = each(|axis| pool.peak[axis].max(pool.used[axis] + reserved[axis]));
        }
    }

    /// Frees pools that nobody needs, upward.
    fn free_unneeded(&mut self, from: PoolId) {
        if self.is_reached(from) {
            return;
        }
        self.turn(self.now, &self.path(from));
        let mut next = Some(from);
        while let Some(id) =
            next.filter(|&id| !self.is_reached(id) && self.children(id).next().is_none())
        {
            next = self.pools.remove(&id).expect("a live pool").parent;
        }
        self.settle();
    }

    /// Whether anybody still has it, or what it gave.
    fn is_reached(&self, id: PoolId) -> bool {
        let held = self.holds.values().any(|hold| hold.pool == id);
        let leased = self.leases.values().any(|lease| lease.pool == id);
        self.pools[&id].handles > 0 || held || leased
    }

    // The calls of a pool.

    /// `now` is the builder's: to build a pool tells the tree no time.
    pub(super) fn build(
        &mut self,
        parent: Option<PoolId>,
        spec: &Spec,
        now: Nanos,
    ) -> Result<PoolId, Refusal> {
        let Spec { carved, caps, deadline: total, window, memory } = *spec;
        let id = self.built;
        if let Some(parent) = parent.filter(|_| carved) {
            if window.is_some() {
                return Err(Refusal::CarvedWindow { pool: name(id) });
            }
            let answer = self.ask_in_turn(parent, &each(|axis| caps[axis].unwrap_or(0).into()));
            self.counted(parent, answer)?;
        }
        self.built += 1;
        let deadline = total
            .filter(|total| *total < Duration::MAX)
            .map(|total| Deadline { built: now, total });
        let caps = caps.map(|cap| cap.map(u128::from));
        // Without a cap there is nothing to carve: it was asked for, and is a child like another.
        let carved = carved && caps.iter().any(Option::is_some);
        let window = window
            .map(|(kind, period, start)| Window::new(kind, period, start.unwrap_or(now), now));
        let memory = memory.unwrap_or((262_144, Duration::from_secs(3_600)));
        self.pools.insert(
            id,
            Pool { parent, carved, caps, deadline, window, memory, handles: 1, ..Pool::default() },
        );
        self.settle();
        Ok(id)
    }

    pub(super) fn drop_handle(&mut self, id: PoolId) {
        self.pool(id).handles -= 1;
        self.free_unneeded(id);
    }

    pub(super) fn record(&mut self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let answer = self.ask(at, units);
        self.counted(at, answer)?;
        assert_eq!(self.tell(at, units), ZERO, "what was admitted fits");
        self.settle();
        Ok(())
    }

    pub(super) fn reserve(&mut self, at: PoolId, units: &Units) -> Result<HoldId, Refusal> {
        let held = with_one_in_flight(*units);
        let answer = self.ask_in_turn(at, &held);
        self.counted(at, answer)?;
        Ok(self.insert(Hold::new(at, held)))
    }

    pub(super) fn reserve_for(
        &mut self,
        at: PoolId,
        units: &Units,
        ttl: Duration,
    ) -> Result<HoldId, Refusal> {
        let id = self.reserve(at, units)?;
        self.hold(id).expiry = self.later(ttl);
        self.serve();
        Ok(id)
    }

    /// `None` if that is later than any instant.
    fn later(&self, ttl: Duration) -> Option<Nanos> {
        (ttl < Duration::MAX).then(|| self.now + ttl.as_nanos())
    }

    pub(super) fn record_once(
        &mut self,
        at: PoolId,
        key: u8,
        amount: &Want,
    ) -> Result<(), Refusal> {
        let now = self.now;
        let pool = self.pool(at);
        pool.keys.retain(|_, known| known.until.is_none_or(|until| now < until));
        let named = (std::array::from_fn(|axis| amount.names(axis)), amount.units());
        match pool.keys.get(&key) {
            Some(known) if known.amount == named => return Ok(()),
            Some(_) => return Err(Refusal::KeyConflict { pool: name(at), key: key_name(key) }),
            None => {}
        }
        self.open(at)
            .and_then(|()| self.in_time(at))
            .or_else(|refusal| self.counted(at, Err(refusal)))?;
        let (pool, deadline) = (&self.pools[&at], self.deadline(at));
        let (most, ttl) = pool.memory;
        if pool.keys.len() >= most {
            let next = pool.keys.values().filter_map(|known| known.until).min();
            let in_time = |at: &Nanos| deadline.is_none_or(|(_, deadline)| *at < deadline.at());
            let outlook = next.filter(in_time).map_or(When::Never, When::At);
            return self.counted(
                at,
                Err(Refusal::KeysFull {
                    pool: name(at),
                    most,
                    outlook,
                    retry_after: self.after(outlook),
                }),
            );
        }
        self.record(at, &amount.units())?;
        let until = self.later(ttl);
        self.pool(at).keys.insert(key, Known { amount: named, until });
        Ok(())
    }

    /// What was spent under a key, as far as it is known at the latest instant seen.
    pub(super) fn known(&self, at: PoolId, key: u8) -> Option<([bool; 6], Units)> {
        self.pools[&at].keys.get(&key).map(|known| known.amount)
    }

    pub(super) fn known_keys(&self, at: PoolId) -> Vec<u8> {
        self.pools[&at].keys.keys().copied().collect()
    }

    /// It frees nothing.
    pub(super) fn insert(&mut self, hold: Hold) -> HoldId {
        let id = self.made;
        self.made += 1;
        self.holds.insert(id, hold);
        self.balance();
        id
    }

    pub(super) fn debit(&mut self, at: PoolId, units: &Units) -> Booked {
        let overage = self.tell(at, units);
        self.settle();
        Booked { settled: *units, overage, late: false }
    }

    pub(super) fn reset(&mut self, id: PoolId) {
        self.begin_period(id);
        self.settle();
    }

    fn begin_period(&mut self, id: PoolId) {
        let reserved = self.reserved(id);
        let pool = self.pool(id);
        for axis in 0..6 {
            if pool.is_carved(axis) {
                pool.caps[axis] = Some(pool.cap(axis) - pool.used[axis]);
            }
        }
        (pool.used, pool.overage, pool.peak) = (ZERO, ZERO, reserved);
        if let Some(window) = &mut pool.window {
            window.parts = ZERO;
        }
    }

    pub(super) fn close(&mut self, id: PoolId) {
        self.turn(self.now, &self.path(id));
        self.turn(self.now, &self.below(id));
        self.pool(id).closed = true;
        self.tell_closed();
        self.settle();
    }

    pub(super) fn add(&mut self, id: PoolId, caps: &[Option<u64>; 6]) -> Result<(), Refusal> {
        let pool = &self.pools[&id];
        let raised =
            each(|axis| pool.caps[axis].map_or(0, |_| u128::from(caps[axis].unwrap_or(0))));
        let above = pool.parent.filter(|_| pool.carved);
        self.open(id)?;
        if let Some(axis) = (0..6).find(|&axis| raised[axis] > MAX - pool.cap(axis)) {
            return Err(Refusal::Exceeded(Exceeded {
                axis: AXES[axis],
                requested: raised[axis],
                available: MAX - pool.cap(axis),
                cap: Some(MAX),
                pool: name(id),
                outlook: When::Never,
                retry_after: None,
            }));
        }
        if let Some(parent) = above {
            // What pays overage here was booked above when it was spent.
            let answer =
                self.ask(parent, &each(|axis| raised[axis].saturating_sub(pool.overage[axis])));
            self.counted(parent, answer)?;
        }
        let pool = self.pool(id);
        for (cap, raised) in pool.caps.iter_mut().zip(raised) {
            *cap = cap.map(|cap| cap + raised);
        }
        self.settle();
        Ok(())
    }

    pub(super) fn remove(&mut self, id: PoolId, caps: &[Option<u64>; 6]) -> Result<(), Refusal> {
        let free = self.free(id);
        let pool = &self.pools[&id];
        let lowered =
            each(|axis| pool.caps[axis].map_or(0, |_| u128::from(caps[axis].unwrap_or(0))));
        let short = (0..6).filter(|&axis| lowered[axis] > free[axis]);
        let refusals = short.map(|axis| self.refusal(id, axis, lowered[axis], self.deadline(id)));
        self.first_and_worst(refusals.collect())?;
        let pool = self.pool(id);
        for (cap, lowered) in pool.caps.iter_mut().zip(lowered) {
            *cap = cap.map(|cap| cap - lowered);
        }
        self.settle();
        Ok(())
    }

    // The calls of a reservation.

    /// Ends a hold; `units` become a fact.
    fn end(&mut self, id: HoldId, units: &Units) -> Booked {
        let hold = self.holds.remove(&id).expect("a live hold");
        let booked = self.debit(hold.pool, &unsettled(&hold, units));
        self.free_unneeded(hold.pool);
        Booked { late: !hold.is_live(), ..booked }
    }

    /// What a commit settles: the unnamed axes at what is held, none of it in flight.
    fn settles(&self, id: HoldId, actual: &Want) -> Units {
        let (held, named) = (self.holds[&id].held, actual.units());
        let mut units = each(|axis| if actual.names(axis) { named[axis] } else { held[axis] });
        units[IN_FLIGHT] = 0;
        units
    }

    pub(super) fn commit(&mut self, id: HoldId, actual: &Want) -> Booked {
        self.end(id, &self.settles(id, actual))
    }

    pub(super) fn commit_total(&mut self, id: HoldId, total: &Want) -> Booked {
        let (settled, units) = (self.holds[&id].settled, self.settles(id, total));
        let rest = |axis| {
            if total.names(axis) { units[axis].saturating_sub(settled[axis]) } else { units[axis] }
        };
        self.end(id, &each(rest))
    }

    pub(super) fn try_commit(&mut self, id: HoldId, actual: &Want) -> Result<Booked, Refusal> {
        self.live(id)?;
        self.fits(self.holds[&id].pool, &self.beyond(id, &self.settles(id, actual)))?;
        let booked = self.commit(id, actual);
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
        let held = &self.holds[&id].held;
        each(|axis| units[axis].saturating_sub(held[axis]))
    }

    pub(super) fn release(&mut self, id: HoldId) {
        self.end(id, &ZERO);
    }

    pub(super) fn drop_hold(&mut self, id: HoldId) {
        let hold = &self.holds[&id];
        match hold.commit_on_drop && hold.is_live() {
            true => drop(self.commit(id, &Want::default())),
            false => self.release(id),
        }
    }

    pub(super) fn debit_part(&mut self, id: HoldId, part: &Units) -> Booked {
        let hold = self.hold(id);
        let (pool, late, fact) = (hold.pool, !hold.is_live(), unsettled(hold, part));
        hold.held = each(|axis| hold.held[axis].saturating_sub(part[axis]));
        hold.settled = plus(&hold.settled, part);
        Booked { late, ..self.debit(pool, &fact) }
    }

    pub(super) fn record_part(&mut self, id: HoldId, part: &Units) -> Result<(), Refusal> {
        self.live(id)?;
        let pool = self.holds[&id].pool;
        let answer = self.ask(pool, &self.beyond(id, part));
        self.counted(pool, answer)?;
        assert_eq!(self.debit_part(id, part).overage, ZERO, "what was admitted fits");
        Ok(())
    }

    pub(super) fn grow(&mut self, id: HoldId, extra: &Units) -> Result<(), Refusal> {
        self.live(id)?;
        let pool = self.holds[&id].pool;
        let answer = self.ask(pool, extra);
        self.counted(pool, answer)?;
        let hold = self.hold(id);
        hold.held = plus(&hold.held, extra);
        self.settle();
        Ok(())
    }

    fn is_held(&self, id: HoldId, part: &Units) -> Result<(), Refusal> {
        let Hold { pool, held, .. } = &self.holds[&id];
        match (0..6).find(|&axis| part[axis] > held[axis]) {
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

    pub(super) fn split(&mut self, id: HoldId, part: &Units) -> Result<HoldId, Refusal> {
        self.live(id)?;
        self.is_held(id, part)?;
        let Hold { pool, label, commit_on_drop, expiry, state, .. } = self.holds[&id];
        let one = with_one_in_flight(ZERO);
        let answer = self.ask(pool, &one);
        self.counted(pool, answer)?;
        let hold = self.hold(id);
        hold.held = each(|axis| hold.held[axis] - part[axis]);
        Ok(self.insert(Hold {
            pool,
            held: plus(part, &one),
            settled: ZERO,
            label,
            commit_on_drop,
            expiry,
            state,
        }))
    }

    // The calls of a lease.

    pub(super) fn lease(&mut self, at: PoolId, batch: &Units) -> Result<LeaseId, Refusal> {
        let answer = self.ask_in_turn(at, batch);
        self.counted(at, answer)?;
        let id = self.made;
        self.made += 1;
        self.leases.insert(id, Lease { pool: at, batch: *batch, left: *batch, unsettled: ZERO });
        self.settle();
        Ok(id)
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
        let lease = self.leased(id);
        let (pool, spent) = (lease.pool, std::mem::take(&mut lease.unsettled));
        assert_eq!(self.tell(pool, &spent), ZERO, "what was reserved fits");
        self.settle();
    }

    /// Books the whole, as far as it goes in place of the share.
    fn spend_beyond(&mut self, id: LeaseId, units: &Units) -> Booked {
        let lease = self.leased(id);
        lease.left = each(|axis| lease.left[axis].saturating_sub(units[axis]));
        let pool = lease.pool;
        self.debit(pool, units)
    }

    pub(super) fn lease_record(&mut self, id: LeaseId, units: &Units) -> Result<(), Refusal> {
        if self.covers(id, units) {
            self.spend_share(id, units);
            return Ok(());
        }
        self.settle_lease(id);
        let pool = self.leases[&id].pool;
        let answer = self.ask(pool, &self.beyond_lease(id, units));
        self.counted(pool, answer)?;
        assert_eq!(self.spend_beyond(id, units).overage, ZERO, "what was admitted fits");
        let free = self.least_free(pool);
        let Lease { batch, left, .. } = self.leases[&id];
        let bite = each(|axis| (batch[axis] - left[axis]).min(free[axis] / BITE));
        // Only what was short, while others wait for more of it.
        if self.in_turn(pool, &bite).is_ok() {
            self.leased(id).left = plus(&left, &bite);
        }
        self.balance();
        Ok(())
    }

    pub(super) fn lease_debit(&mut self, id: LeaseId, units: &Units) -> Booked {
        if self.covers(id, units) {
            self.spend_share(id, units);
            return Booked { settled: *units, overage: ZERO, late: false };
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
        let (pool, reserved, available) = (&self.pools[&id], self.reserved(id), self.available(id));
        let below = self
            .holds
            .values()
            .filter(|hold| hold.is_live() && self.is_below(hold.pool, id))
            .count() as u64;
        let axis = |axis: usize| AxisView {
            cap: pool.caps[axis],
            used: pool.used[axis],
            reserved: reserved[axis],
            overage: pool.overage[axis],
            available: available[axis],
            spent: pool.spent[axis].min(MAX),
            peak: pool.peak[axis],
        };
        View {
            name: name(id),
            depth: self.path(id).len() - self.path(top).len(),
            closed: self.is_closed(id),
            counts: [pool.admitted, pool.refused, below, self.waiting(id)],
            axes: std::array::from_fn(axis),
        }
    }

    pub(super) fn tree(&self, top: PoolId) -> Vec<View> {
        self.below(top).into_iter().map(|id| self.view(id, top)).collect()
    }

    /// The pool and all below it.
    fn below(&self, top: PoolId) -> Vec<PoolId> {
        self.pools.keys().copied().filter(|id| self.is_below(*id, top)).collect()
    }

    pub(super) fn holders(&self, top: PoolId) -> Vec<HolderView> {
        let live =
            self.holds.values().filter(|hold| hold.is_live() && self.is_below(hold.pool, top));
        let holds = live.map(|hold| (without_in_flight(hold.held), name(hold.pool), hold.label));
        let leases = self.leases.values().filter(|lease| self.is_below(lease.pool, top));
        holds.chain(leases.map(|lease| (lease.reserved(), name(lease.pool), None))).collect()
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
    pub(super) fn amount(&self, id: HoldId) -> Units {
        let hold = &self.holds[&id];
        if hold.is_live() { without_in_flight(hold.held) } else { ZERO }
    }

    /// Whether there is anything that only time brings, or takes away.
    pub(super) fn is_timed(&self) -> bool {
        let may_expire = self.holds.values().any(|hold| hold.is_live() && hold.expiry.is_some());
        may_expire || self.pools.values().any(|pool| pool.window.is_some())
    }

    /// What a pool could give if all that is reserved came back. Without a cap, something ordinary.
    pub(super) fn at_best(&self, id: PoolId) -> Units {
        let at_best =
            |id: PoolId, axis| self.pools[&id].cap(axis).saturating_sub(self.pools[&id].owed(axis));
        let least = each(|axis| {
            self.path(id).into_iter().map(|id| at_best(id, axis)).min().expect("a path has a pool")
        });
        each(|axis| if least[axis] > MAX / 2 { 16 } else { least[axis] })
    }

    /// Figures that matter to a pool: what is available. Without a cap, something ordinary.
    pub(super) fn near(&self, id: PoolId) -> Units {
        self.available(id).map(|available| available.unwrap_or(16))
    }
}

/// What a late fact adds: what was settled when the hold expired is not settled again.
fn unsettled(hold: &Hold, units: &Units) -> Units {
    match hold.state {
        State::Settled => each(|axis| units[axis].saturating_sub(hold.held[axis])),
        State::Live | State::Released => *units,
    }
}

pub(super) fn key_name(key: u8) -> String {
    format!("key {key}")
}

pub(super) fn duration(nanos: Nanos) -> Duration {
    Duration::new((nanos / 1_000_000_000) as u64, (nanos % 1_000_000_000) as u32)
}
