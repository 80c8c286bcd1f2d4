//! A naive model of a tree of pools, and one language of operations that drives it and the real pool side by side.
//!
//! The model is an independent reading of the contract, too simple to be wrong: `u128` throughout, nothing is cached, and
//! what is reserved is never stored but summed up from the live owners each time it is asked for. It knows nothing of how
//! the library works inside. An absent cap is `u64::MAX`.
//!
//! Shared by the property test and the fuzz target, which includes this file by its path.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Axis, BudgetError, BudgetExceeded, BudgetPool, Caps, Clock, ManualClock, Outlook, Receipt, Reservation,
    Snapshot, Usd,
};

const AXES: [Axis; 6] =
    [Axis::Tokens, Axis::InputTokens, Axis::OutputTokens, Axis::Requests, Axis::Usd, Axis::InFlight];
const TOKENS: usize = 0;
const INPUT: usize = 1;
const OUTPUT: usize = 2;
const REQUESTS: usize = 3;
const USD: usize = 4;
const IN_FLIGHT: usize = 5;

const MAX: u128 = u64::MAX as u128;
/// Facts go no further than this beyond what is held: the saturation of overage at `u64::MAX` is tested elsewhere.
const FACT: u128 = 1 << 40;
const LABELS: [&str; 3] = ["draft", "review", "answer"];
const MOST_POOLS: usize = 10;
const UNIT_OF_TIME: Duration = Duration::from_millis(10);

macro_rules! same {
    ($what:expr, $real:expr, $model:expr) => {{
        let (real, model) = ($real, $model);
        if real != model {
            return Err(format!("{}:\n  real   {real:?}\n  model  {model:?}", $what));
        }
    }};
}

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

// ---------------------------------------------------------------------------------------------------------------------
// The operations
// ---------------------------------------------------------------------------------------------------------------------

/// One step. `pool` and `hold` are taken modulo what is alive; a step that finds nothing alive does nothing.
///
/// The first step, if it is a `Child`, says what the root is like.
#[derive(Debug, Clone)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub enum Op {
    Child { pool: u8, carved: bool, caps: Figures, deadline: u8 },
    Clone { pool: u8 },
    Drop { pool: u8 },
    DropRoot,
    Record { pool: u8, amount: Figures },
    Check { pool: u8, amount: Figures },
    Debit { pool: u8, amount: Figures },
    Reserve { pool: u8, amount: Figures },
    Reset { pool: u8 },
    Add { pool: u8, caps: Figures },
    Remove { pool: u8, caps: Figures },
    Close { pool: u8 },
    Label { hold: u8, label: u8 },
    CommitOnDrop { hold: u8 },
    Commit { hold: u8, actual: Figures },
    CommitAll { hold: u8 },
    CommitTotal { hold: u8, total: Figures },
    TryCommit { hold: u8, actual: Figures, take_back: bool },
    Release { hold: u8 },
    DropHold { hold: u8 },
    Forget { hold: u8 },
    RecordPart { hold: u8, part: Figures },
    DebitPart { hold: u8, part: Figures },
    Grow { hold: u8, extra: Figures },
    Shrink { hold: u8, by: Figures },
    Split { hold: u8, part: Figures },
    Advance { by: u8 },
}

/// Figures on some of the axes: bit `n` of `axes` names axis `n`, and `raw[n]` picks its figure, mostly around a figure
/// that matters there (what is available, what is held).
#[derive(Debug, Clone, Copy)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub struct Figures {
    pub axes: u8,
    pub raw: [u16; 6],
}

impl Figures {
    fn names(&self, axis: usize) -> bool {
        self.axes >> axis & 1 == 1
    }
}

fn figure(raw: u16, near: u128) -> u64 {
    let (class, rest) = (raw % 32, u128::from(raw / 32));
    let figure = match class {
        0..=2 => 0,
        3..=4 => 1,
        5..=10 => rest % 8,
        11..=15 => rest % 64,
        16..=17 => rest,
        18..=24 => (near + rest % 3).saturating_sub(1),
        25..=29 => near / (1 + rest % 4),
        30 => near + rest,
        _ => match rest % 4 {
            0 => MAX,
            1 => MAX - rest % 7,
            2 => MAX / 2 + rest % 2,
            _ => 1 << (rest / 4 % 64),
        },
    };
    clip(figure)
}

fn clip(units: u128) -> u64 {
    u64::try_from(units).unwrap_or(u64::MAX)
}

/// What a call names, as the contract reads it.
#[derive(Debug, Clone, Copy, Default)]
struct Want {
    set: [Option<u64>; 6],
}

impl Want {
    fn asked(figures: &Figures, near: &Units) -> Want {
        let set = |axis| (axis != IN_FLIGHT && figures.names(axis)).then(|| figure(figures.raw[axis], near[axis]));
        Want { set: std::array::from_fn(set) }
    }

    /// As `asked`, but at most `FACT` beyond `near` on every axis, the token total included.
    fn fact(figures: &Figures, near: &Units) -> Want {
        let want = Want::asked(figures, near);
        match (0..6).all(|axis| want.units()[axis] <= near[axis] + FACT) {
            true => want,
            false => Want { set: want.set.map(|units| units.map(|units| units % (1 << 39))) },
        }
    }

    /// The token total is the larger of what was named and input plus output.
    fn units(&self) -> Units {
        let mut units = self.set.map(|units| u128::from(units.unwrap_or(0)));
        units[TOKENS] = units[TOKENS].max(units[INPUT] + units[OUTPUT]).min(MAX);
        units
    }

    /// Naming one token axis names all three.
    fn names(&self, axis: usize) -> bool {
        match axis {
            TOKENS | INPUT | OUTPUT => [TOKENS, INPUT, OUTPUT].iter().any(|&axis| self.set[axis].is_some()),
            _ => self.set[axis].is_some(),
        }
    }

    fn amount(&self) -> Amount {
        let mut amount = Amount::new();
        for (axis, units) in self.set.iter().enumerate() {
            let Some(units) = *units else { continue };
            amount = match axis {
                TOKENS => amount.tokens(units),
                INPUT => amount.input_tokens(units),
                OUTPUT => amount.output_tokens(units),
                REQUESTS => amount.requests(units),
                USD => amount.usd(Usd::from_nanos(units)),
                _ => unreachable!("in flight is not set by hand"),
            };
        }
        amount
    }
}

fn caps_of(set: &[Option<u64>; 6]) -> Caps {
    let mut caps = Caps::new();
    for (axis, units) in set.iter().enumerate() {
        let Some(units) = *units else { continue };
        caps = match axis {
            TOKENS => caps.tokens(units),
            INPUT => caps.input_tokens(units),
            OUTPUT => caps.output_tokens(units),
            REQUESTS => caps.requests(units),
            USD => caps.usd(Usd::from_nanos(units)),
            _ => caps.in_flight(units),
        };
    }
    caps
}

/// Caps are seldom tiny, so that there is something to hold. In flight goes by ones.
fn caps_near(figures: &Figures, near: &Units) -> [Option<u64>; 6] {
    std::array::from_fn(|axis| {
        let (class, rest) = (figures.raw[axis] % 32, u64::from(figures.raw[axis] / 32));
        let cap = || match (axis, class) {
            (_, 0) => 0,
            (IN_FLIGHT, 1..=28) => 1 + rest % 6,
            (_, 1..=16) => 8 + rest % 56,
            _ => figure(figures.raw[axis], near[axis]),
        };
        figures.names(axis).then(cap)
    })
}

/// Few different ones, so that some of them are at one instant.
fn deadline_of(raw: u8) -> Option<Duration> {
    let units = match (raw % 8, raw / 8) {
        (0, 31) => return Some(Duration::MAX),
        (0, 30) => 0,
        (0, some) => 1 + some % 3,
        _ => return None,
    };
    Some(UNIT_OF_TIME * u32::from(units))
}

// ---------------------------------------------------------------------------------------------------------------------
// The model
// ---------------------------------------------------------------------------------------------------------------------

type Units = [u128; 6];
type PoolId = usize;
type HoldId = usize;

const ZERO: Units = [0; 6];

fn each(units: impl FnMut(usize) -> u128) -> Units {
    std::array::from_fn(units)
}

fn plus(a: &Units, b: &Units) -> Units {
    each(|axis| a[axis] + b[axis])
}

fn name(pool: PoolId) -> String {
    format!("p{pool}")
}

#[derive(Debug, Default)]
struct Pool {
    parent: Option<PoolId>,
    caps: [Option<u128>; 6],
    carved: bool,
    used: Units,
    overage: Units,
    spent: Units,
    peak: Units,
    closed: bool,
    admitted: u64,
    refused: u64,
    deadline: Option<Deadline>,
    handles: usize,
}

impl Pool {
    fn cap(&self, axis: usize) -> u128 {
        self.caps[axis].unwrap_or(MAX)
    }

    fn is_carved(&self, axis: usize) -> bool {
        self.carved && self.caps[axis].is_some()
    }
}

#[derive(Debug, Clone, Copy)]
struct Deadline {
    built: Duration,
    total: Duration,
}

impl Deadline {
    fn at(self) -> Duration {
        self.built + self.total
    }
}

#[derive(Debug)]
struct Hold {
    pool: PoolId,
    /// One in flight is among it.
    held: Units,
    settled: Units,
    label: Option<&'static str>,
    commit_on_drop: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    Closed { scope: String },
    Late { scope: String, budget: Duration, elapsed: Duration, needed: Duration },
    Exceeded { axis: Axis, requested: u128, available: u128, cap: Option<u128>, scope: String, outlook: Outlook },
}

impl Refusal {
    fn summary(&self) -> (Option<Axis>, &str, Outlook) {
        match self {
            Refusal::Closed { scope } => (None, scope, Outlook::Never),
            Refusal::Late { scope, .. } => (Some(Axis::Deadline), scope, Outlook::Never),
            Refusal::Exceeded { axis, scope, outlook, .. } => (Some(*axis), scope, *outlook),
        }
    }
}

/// What a fact came to.
#[derive(Debug, PartialEq, Eq)]
struct Booked {
    settled: Units,
    overage: Units,
}

#[derive(Debug, Default)]
struct Model {
    /// Numbered in the order in which they are built: a child is always behind its parent.
    pools: BTreeMap<PoolId, Pool>,
    holds: BTreeMap<HoldId, Hold>,
    built: usize,
    made: usize,
    now: Duration,
}

impl Model {
    /// The pool and those above it.
    fn path(&self, from: PoolId) -> Vec<PoolId> {
        std::iter::successors(Some(from), |pool| self.pools[pool].parent).collect()
    }

    fn is_below(&self, pool: PoolId, top: PoolId) -> bool {
        self.path(pool).contains(&top)
    }

    fn children(&self, of: PoolId) -> impl Iterator<Item = PoolId> {
        self.pools.iter().filter(move |(_, pool)| pool.parent == Some(of)).map(|(id, _)| *id)
    }

    fn reserved(&self, id: PoolId) -> Units {
        let mut sum = ZERO;
        for hold in self.holds.values().filter(|hold| hold.pool == id) {
            sum = plus(&sum, &hold.held);
        }
        for child in self.children(id) {
            let (pool, below) = (&self.pools[&child], self.reserved(child));
            let share = |axis| if pool.is_carved(axis) { pool.cap(axis) - pool.used[axis] } else { below[axis] };
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

    fn is_closed(&self, id: PoolId) -> bool {
        self.path(id).iter().any(|id| self.pools[id].closed)
    }

    /// The earliest on the way up; of equal ones, the outermost.
    fn deadline(&self, id: PoolId) -> Option<(PoolId, Deadline)> {
        let mut earliest: Option<(PoolId, Deadline)> = None;
        for id in self.path(id) {
            let Some(deadline) = self.pools[&id].deadline else { continue };
            if earliest.is_none_or(|(_, earliest)| deadline.at() <= earliest.at()) {
                earliest = Some((id, deadline));
            }
        }
        earliest
    }

    // Asking: changes nothing.

    /// As with deadlines, the outermost of those that were closed is named.
    fn open(&self, id: PoolId) -> Result<(), Refusal> {
        match self.path(id).into_iter().rfind(|id| self.pools[id].closed) {
            Some(closed) => Err(Refusal::Closed { scope: name(closed) }),
            None => Ok(()),
        }
    }

    fn in_time(&self, id: PoolId) -> Result<(), Refusal> {
        match self.deadline(id) {
            Some((scope, deadline)) if self.now >= deadline.at() => Err(Refusal::Late {
                scope: name(scope),
                budget: deadline.total,
                elapsed: self.now - deadline.built,
                needed: Duration::ZERO,
            }),
            _ => Ok(()),
        }
    }

    fn fits(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let mut beyond_carve = [false; 6];
        let mut refusals = Vec::new();
        for id in self.path(at) {
            let (pool, free) = (&self.pools[&id], self.free(id));
            for axis in 0..6 {
                if !beyond_carve[axis] && units[axis] > free[axis] {
                    refusals.push(refusal(id, pool, axis, units[axis], free[axis]));
                }
                beyond_carve[axis] |= pool.is_carved(axis);
            }
        }
        first_and_worst(refusals)
    }

    fn ask(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        self.open(at)?;
        self.in_time(at)?;
        self.fits(at, units)
    }

    fn counted<T>(&mut self, at: PoolId, answer: Result<T, Refusal>) -> Result<T, Refusal> {
        for id in self.path(at) {
            let pool = self.pool(id);
            match answer {
                Ok(_) => pool.admitted += 1,
                Err(_) => pool.refused += 1,
            }
        }
        answer
    }

    fn pool(&mut self, id: PoolId) -> &mut Pool {
        self.pools.get_mut(&id).expect("a live pool")
    }

    fn hold(&mut self, id: HoldId) -> &mut Hold {
        self.holds.get_mut(&id).expect("a live hold")
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
                pool.overage[axis] += rest;
                pool.spent[axis] += units[axis];
                greatest[axis] = greatest[axis].max(rest);
            }
        }
        greatest
    }

    /// What follows from a change, from the bottom up: overage is paid from whatever is free, and a closed carved pool
    /// keeps no free share.
    fn settle(&mut self) {
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
        let mut next = Some(from);
        while let Some(id) = next {
            let held = self.holds.values().any(|hold| hold.pool == id);
            if self.pools[&id].handles > 0 || held || self.children(id).next().is_some() {
                break;
            }
            next = self.pools.remove(&id).expect("a live pool").parent;
        }
        self.settle();
    }

    // The calls of a pool.

    fn build(
        &mut self,
        parent: Option<PoolId>,
        carved: bool,
        caps: &[Option<u64>; 6],
        total: Option<Duration>,
    ) -> Result<PoolId, Refusal> {
        if let Some(parent) = parent.filter(|_| carved) {
            let answer = self.ask(parent, &each(|axis| caps[axis].unwrap_or(0).into()));
            self.counted(parent, answer)?;
        }
        let id = self.built;
        self.built += 1;
        let deadline = total.filter(|total| *total < Duration::MAX).map(|total| Deadline { built: self.now, total });
        let caps = caps.map(|cap| cap.map(u128::from));
        // Without a cap there is nothing to carve: it was asked for, and is a child like another.
        let carved = carved && caps.iter().any(Option::is_some);
        self.pools.insert(id, Pool { parent, carved, caps, deadline, handles: 1, ..Pool::default() });
        self.settle();
        Ok(id)
    }

    fn drop_handle(&mut self, id: PoolId) {
        self.pool(id).handles -= 1;
        self.free_unneeded(id);
    }

    fn record(&mut self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let answer = self.ask(at, units);
        self.counted(at, answer)?;
        assert_eq!(self.tell(at, units), ZERO, "what was admitted fits");
        self.settle();
        Ok(())
    }

    fn reserve(&mut self, at: PoolId, units: &Units) -> Result<HoldId, Refusal> {
        let mut held = *units;
        held[IN_FLIGHT] = 1;
        let answer = self.ask(at, &held);
        self.counted(at, answer)?;
        Ok(self.insert(Hold { pool: at, held, settled: ZERO, label: None, commit_on_drop: false }))
    }

    fn insert(&mut self, hold: Hold) -> HoldId {
        let id = self.made;
        self.made += 1;
        self.holds.insert(id, hold);
        self.settle();
        id
    }

    fn debit(&mut self, at: PoolId, units: &Units) -> Booked {
        let overage = self.tell(at, units);
        self.settle();
        Booked { settled: *units, overage }
    }

    fn reset(&mut self, id: PoolId) {
        let reserved = self.reserved(id);
        let pool = self.pool(id);
        for axis in 0..6 {
            if pool.is_carved(axis) {
                pool.caps[axis] = Some(pool.cap(axis) - pool.used[axis]);
            }
        }
        (pool.used, pool.overage, pool.peak) = (ZERO, ZERO, reserved);
        self.settle();
    }

    fn close(&mut self, id: PoolId) {
        self.pool(id).closed = true;
        self.settle();
    }

    fn add(&mut self, id: PoolId, caps: &[Option<u64>; 6]) -> Result<(), Refusal> {
        let pool = &self.pools[&id];
        let raised = each(|axis| pool.caps[axis].map_or(0, |_| u128::from(caps[axis].unwrap_or(0))));
        let above = pool.parent.filter(|_| pool.carved);
        self.open(id)?;
        if let Some(axis) = (0..6).find(|&axis| raised[axis] > MAX - pool.cap(axis)) {
            return Err(Refusal::Exceeded {
                axis: AXES[axis],
                requested: raised[axis],
                available: MAX - pool.cap(axis),
                cap: pool.caps[axis],
                scope: name(id),
                outlook: Outlook::Never,
            });
        }
        if let Some(parent) = above {
            // What pays overage here was booked above when it was spent.
            let answer = self.ask(parent, &each(|axis| raised[axis].saturating_sub(pool.overage[axis])));
            self.counted(parent, answer)?;
        }
        let pool = self.pool(id);
        for (cap, raised) in pool.caps.iter_mut().zip(raised) {
            *cap = cap.map(|cap| cap + raised);
        }
        self.settle();
        Ok(())
    }

    fn remove(&mut self, id: PoolId, caps: &[Option<u64>; 6]) -> Result<(), Refusal> {
        let free = self.free(id);
        let pool = &self.pools[&id];
        let lowered = each(|axis| pool.caps[axis].map_or(0, |_| u128::from(caps[axis].unwrap_or(0))));
        let short = (0..6).filter(|&axis| lowered[axis] > free[axis]);
        first_and_worst(short.map(|axis| refusal(id, pool, axis, lowered[axis], free[axis])).collect())?;
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
        let booked = self.debit(hold.pool, units);
        self.free_unneeded(hold.pool);
        booked
    }

    /// What a commit settles: the unnamed axes at what is held, none of it in flight.
    fn settles(&self, id: HoldId, actual: &Want) -> Units {
        let (held, named) = (self.holds[&id].held, actual.units());
        let mut units = each(|axis| if actual.names(axis) { named[axis] } else { held[axis] });
        units[IN_FLIGHT] = 0;
        units
    }

    fn commit(&mut self, id: HoldId, actual: &Want) -> Booked {
        self.end(id, &self.settles(id, actual))
    }

    fn commit_total(&mut self, id: HoldId, total: &Want) -> Booked {
        let (settled, units) = (self.holds[&id].settled, self.settles(id, total));
        let rest = |axis| if total.names(axis) { units[axis].saturating_sub(settled[axis]) } else { units[axis] };
        self.end(id, &each(rest))
    }

    fn try_commit(&mut self, id: HoldId, actual: &Want) -> Result<Booked, Refusal> {
        self.fits(self.holds[&id].pool, &self.beyond(id, &self.settles(id, actual)))?;
        let booked = self.commit(id, actual);
        assert_eq!(booked.overage, ZERO, "what was admitted fits");
        Ok(booked)
    }

    fn beyond(&self, id: HoldId, units: &Units) -> Units {
        let held = &self.holds[&id].held;
        each(|axis| units[axis].saturating_sub(held[axis]))
    }

    fn release(&mut self, id: HoldId) {
        self.end(id, &ZERO);
    }

    fn drop_hold(&mut self, id: HoldId) {
        match self.holds[&id].commit_on_drop {
            true => drop(self.commit(id, &Want::default())),
            false => self.release(id),
        }
    }

    fn debit_part(&mut self, id: HoldId, part: &Units) -> Booked {
        let hold = self.hold(id);
        let pool = hold.pool;
        hold.held = each(|axis| hold.held[axis].saturating_sub(part[axis]));
        hold.settled = plus(&hold.settled, part);
        self.debit(pool, part)
    }

    fn record_part(&mut self, id: HoldId, part: &Units) -> Result<(), Refusal> {
        let pool = self.holds[&id].pool;
        let answer = self.ask(pool, &self.beyond(id, part));
        self.counted(pool, answer)?;
        assert_eq!(self.debit_part(id, part).overage, ZERO, "what was admitted fits");
        Ok(())
    }

    fn grow(&mut self, id: HoldId, extra: &Units) -> Result<(), Refusal> {
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
            Some(axis) => Err(Refusal::Exceeded {
                axis: AXES[axis],
                requested: part[axis],
                available: held[axis],
                cap: Some(held[axis]),
                scope: name(*pool),
                outlook: Outlook::Never,
            }),
            None => Ok(()),
        }
    }

    fn shrink(&mut self, id: HoldId, by: &Units) -> Result<(), Refusal> {
        self.is_held(id, by)?;
        let hold = self.hold(id);
        hold.held = each(|axis| hold.held[axis] - by[axis]);
        self.settle();
        Ok(())
    }

    fn split(&mut self, id: HoldId, part: &Units) -> Result<HoldId, Refusal> {
        self.is_held(id, part)?;
        let Hold { pool, label, commit_on_drop, .. } = self.holds[&id];
        let mut one = ZERO;
        one[IN_FLIGHT] = 1;
        let answer = self.ask(pool, &one);
        self.counted(pool, answer)?;
        let hold = self.hold(id);
        hold.held = each(|axis| hold.held[axis] - part[axis]);
        Ok(self.insert(Hold { pool, held: plus(part, &one), settled: ZERO, label, commit_on_drop }))
    }

    // What is seen.

    fn view(&self, id: PoolId, top: PoolId) -> View {
        let (pool, reserved, available) = (&self.pools[&id], self.reserved(id), self.available(id));
        let below = self.holds.values().filter(|hold| self.is_below(hold.pool, id)).count() as u64;
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
            counts: [pool.admitted, pool.refused, below],
            axes: std::array::from_fn(axis),
        }
    }

    fn tree(&self, top: PoolId) -> Vec<View> {
        self.pools.keys().filter(|id| self.is_below(**id, top)).map(|id| self.view(*id, top)).collect()
    }

    fn holders(&self, top: PoolId) -> Vec<HolderView> {
        let live = self.holds.values().filter(|hold| self.is_below(hold.pool, top));
        live.map(|hold| (without_in_flight(hold.held), name(hold.pool), hold.label)).collect()
    }

    fn time_left(&self, id: PoolId) -> Option<Duration> {
        self.deadline(id).map(|(_, deadline)| deadline.at().saturating_sub(self.now))
    }

    /// Figures that matter to a pool: what is available. Without a cap, something ordinary.
    fn near(&self, id: PoolId) -> Units {
        self.available(id).map(|available| available.unwrap_or(16))
    }
}

/// No release can make it fit: more is asked than the cap leaves beside what is used and owed.
fn refusal(id: PoolId, pool: &Pool, axis: usize, requested: u128, available: u128) -> Refusal {
    let never = requested + pool.used[axis] + pool.overage[axis] > pool.cap(axis);
    Refusal::Exceeded {
        axis: AXES[axis],
        requested,
        available,
        cap: pool.caps[axis],
        scope: name(id),
        outlook: if never { Outlook::Never } else { Outlook::AfterRelease },
    }
}

/// The first refusal, with the worst outlook of all.
fn first_and_worst(refusals: Vec<Refusal>) -> Result<(), Refusal> {
    let is_never = |refusal: &Refusal| matches!(refusal, Refusal::Exceeded { outlook: Outlook::Never, .. });
    let never = refusals.iter().any(is_never);
    match refusals.into_iter().next() {
        Some(Refusal::Exceeded { axis, requested, available, cap, scope, .. }) => {
            let outlook = if never { Outlook::Never } else { Outlook::AfterRelease };
            Err(Refusal::Exceeded { axis, requested, available, cap, scope, outlook })
        }
        _ => Ok(()),
    }
}

fn without_in_flight(mut units: Units) -> Units {
    units[IN_FLIGHT] = 0;
    units
}

// ---------------------------------------------------------------------------------------------------------------------
// What is seen of the real pool, in the model's words
// ---------------------------------------------------------------------------------------------------------------------

#[derive(PartialEq, Eq)]
struct View {
    name: String,
    depth: usize,
    closed: bool,
    /// Admitted, refused, reservations.
    counts: [u64; 3],
    axes: [AxisView; 6],
}

#[derive(PartialEq, Eq)]
struct AxisView {
    cap: Option<u128>,
    used: u128,
    reserved: u128,
    overage: u128,
    available: Option<u128>,
    spent: u128,
    peak: u128,
}

/// What is held, of which pool, under which label.
type HolderView = (Units, String, Option<&'static str>);

impl From<&Snapshot> for View {
    fn from(snapshot: &Snapshot) -> View {
        macro_rules! axis {
            ($axis:expr, $units:expr) => {
                AxisView {
                    cap: $axis.cap.map(|cap| u128::from($units(cap))),
                    used: $units($axis.used).into(),
                    reserved: $units($axis.reserved).into(),
                    overage: $units($axis.overage).into(),
                    available: $axis.available.map(|available| u128::from($units(available))),
                    spent: $units($axis.spent).into(),
                    peak: $units($axis.peak).into(),
                }
            };
        }
        let same = |units: u64| units;
        let axes = [
            axis!(snapshot.tokens, same),
            axis!(snapshot.input_tokens, same),
            axis!(snapshot.output_tokens, same),
            axis!(snapshot.requests, same),
            axis!(snapshot.usd, Usd::as_nanos),
            axis!(snapshot.in_flight, same),
        ];
        View {
            name: snapshot.name.to_string(),
            depth: snapshot.depth,
            closed: snapshot.closed,
            counts: [snapshot.admitted, snapshot.refused, snapshot.reservations],
            axes,
        }
    }
}

impl Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let View { name, depth, closed, counts: [admitted, refused, reservations], axes } = self;
        let closed = if *closed { " closed" } else { "" };
        write!(f, "{name} (depth {depth}{closed}, {admitted} admitted, {refused} refused, {reservations} held)")?;
        for (view, axis) in axes.iter().zip(AXES) {
            let AxisView { cap, used, reserved, overage, available, spent, peak } = view;
            if cap.is_some() || spent + peak > 0 {
                write!(f, "\n      {axis:<13}  used {used}, reserved {reserved}, overage {overage}, cap {cap:?}, ")?;
                write!(f, "available {available:?}, spent {spent}, peak {peak}")?;
            }
        }
        Ok(())
    }
}

fn units_of(amount: Amount) -> Units {
    each(|axis| amount.get(AXES[axis]).map_or(0, |quantity| quantity.units().into()))
}

/// What a receipt says; an error if it is silent on an axis that `actual` names.
fn booked(receipt: Receipt, actual: &Want) -> Result<Booked, String> {
    let (settled, overage) = (receipt.settled(), receipt.overage());
    for axis in (0..6).filter(|axis| actual.names(*axis)) {
        let axis = AXES[axis];
        let named = settled.get(axis).is_some() && overage.get(axis).is_some();
        ensure!(named, "a receipt does not name {axis}: {settled} settled, {overage} of it overage");
    }
    Ok(Booked { settled: units_of(settled), overage: units_of(overage) })
}

impl From<&BudgetExceeded> for Refusal {
    fn from(exceeded: &BudgetExceeded) -> Refusal {
        Refusal::Exceeded {
            axis: exceeded.axis(),
            requested: exceeded.requested().units().into(),
            available: exceeded.available().units().into(),
            cap: exceeded.cap().map(|cap| cap.units().into()),
            scope: exceeded.scope().to_owned(),
            outlook: exceeded.outlook(),
        }
    }
}

impl From<&BudgetError> for Refusal {
    fn from(error: &BudgetError) -> Refusal {
        let refusal = match error {
            BudgetError::Exceeded(exceeded) => exceeded.into(),
            BudgetError::DeadlineExceeded(late) => Refusal::Late {
                scope: late.scope().unwrap_or("no scope").to_owned(),
                budget: late.budget(),
                elapsed: late.elapsed(),
                needed: late.needed(),
            },
            BudgetError::Closed { scope } => Refusal::Closed { scope: scope.to_string() },
            _ => panic!("a refusal that the model does not know: {error}"),
        };
        assert_eq!((error.axis(), error.scope(), error.outlook()), refusal.summary(), "{error:?}");
        refusal
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Side by side
// ---------------------------------------------------------------------------------------------------------------------

/// Runs the operations on a real pool and on the model.
///
/// # Panics
/// On the first difference between them, and wherever a promise is broken.
pub fn run(ops: &[Op]) {
    if let Err(difference) = compare(ops) {
        panic!("{difference}");
    }
}

/// As [`run`], with the first difference as an error: what it is, and the steps that led there.
pub fn compare(ops: &[Op]) -> Result<(), String> {
    let (root, ops) = match ops.split_first() {
        Some((Op::Child { caps, deadline, .. }, rest)) => ((caps_near(caps, &[64; 6]), deadline_of(*deadline)), rest),
        _ => (([None; 6], None), ops),
    };
    let mut both = Both::new(&root.0, root.1);
    let outcome = both.run(ops);
    outcome.map_err(|difference| {
        let mut text = String::new();
        for (at, step) in both.trace.iter().enumerate() {
            let _ = writeln!(text, "  {at:>3}  {step}");
        }
        format!("{difference}\nafter these steps:\n{text}")
    })
}

struct Both {
    model: Model,
    clock: ManualClock,
    started: Instant,
    /// How often the pools read the clock. They keep it alive, so that it also tells when the last of them is gone.
    reads: Arc<AtomicUsize>,
    pools: Vec<(PoolId, BudgetPool)>,
    holds: Vec<(HoldId, Reservation)>,
    trace: Vec<String>,
}

impl Both {
    fn new(caps: &[Option<u64>; 6], deadline: Option<Duration>) -> Both {
        let clock = ManualClock::new();
        let reads = Arc::new(AtomicUsize::new(0));
        let (time, counter) = (clock.clone(), Arc::clone(&reads));
        let read = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            time.now()
        };

        let mut model = Model::default();
        let id = model.build(None, false, caps, deadline).expect("a root is not refused");
        let mut root = BudgetPool::builder().name(name(id)).caps(caps_of(caps)).clock(read);
        if let Some(deadline) = deadline {
            root = root.deadline(deadline);
        }
        let trace = vec![format!("root {}, deadline {deadline:?}", caps_of(caps))];
        let started = clock.now();
        Both { model, clock, started, reads, pools: vec![(id, root.build())], holds: Vec::new(), trace }
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), String> {
        self.check(0)?;
        for (at, op) in ops.iter().enumerate() {
            self.step(op)?;
            self.check(at)?;
        }
        self.finish(ops.len())
    }

    /// A pool that can be reached: by a handle of its own, or by that of a hold.
    fn pool(&self, index: u8) -> Option<(PoolId, BudgetPool)> {
        let reached = self.reached();
        let (id, pool) = reached.get(usize::from(index).checked_rem(reached.len())?)?;
        Some((*id, (*pool).clone()))
    }

    fn reached(&self) -> Vec<(PoolId, &BudgetPool)> {
        let held = self.holds.iter().map(|(id, hold)| (self.model.holds[id].pool, hold.pool()));
        self.pools.iter().map(|(id, pool)| (*id, pool)).chain(held).collect()
    }

    fn log(&mut self, step: impl Into<String>) {
        self.trace.push(step.into());
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        let reads = self.reads.load(Ordering::Relaxed);
        let has_deadline = match *op {
            Op::Advance { by } => {
                let by = UNIT_OF_TIME * u32::from(by % 3) + UNIT_OF_TIME / 2 * u32::from(by >= 240);
                self.log(format!("{by:?} pass"));
                self.clock.advance(by);
                self.model.now += by;
                return Ok(());
            }
            Op::DropRoot => {
                let (root, kept) = std::mem::take(&mut self.pools).into_iter().partition(|(id, _)| *id == 0);
                self.pools = kept;
                self.log("drop the handles of p0");
                for (id, pool) in root {
                    drop(pool);
                    self.model.drop_handle(id);
                }
                return Ok(());
            }
            Op::Child { pool, .. }
            | Op::Clone { pool }
            | Op::Drop { pool }
            | Op::Record { pool, .. }
            | Op::Check { pool, .. }
            | Op::Debit { pool, .. }
            | Op::Reserve { pool, .. }
            | Op::Reset { pool }
            | Op::Add { pool, .. }
            | Op::Remove { pool, .. }
            | Op::Close { pool } => {
                let Some((id, pool)) = self.pool(pool) else { return Ok(()) };
                let takes_time = matches!(op, Op::Child { deadline, .. } if deadline_of(*deadline).is_some());
                let has_deadline = self.model.deadline(id).is_some() || takes_time;
                self.pool_step(op, id, &pool)?;
                has_deadline
            }
            Op::Label { hold, .. }
            | Op::CommitOnDrop { hold }
            | Op::Commit { hold, .. }
            | Op::CommitAll { hold }
            | Op::CommitTotal { hold, .. }
            | Op::TryCommit { hold, .. }
            | Op::Release { hold }
            | Op::DropHold { hold }
            | Op::Forget { hold }
            | Op::RecordPart { hold, .. }
            | Op::DebitPart { hold, .. }
            | Op::Grow { hold, .. }
            | Op::Shrink { hold, .. }
            | Op::Split { hold, .. } => {
                let Some(index) = usize::from(hold).checked_rem(self.holds.len()) else { return Ok(()) };
                let (id, hold) = self.holds.swap_remove(index);
                let has_deadline = self.model.deadline(self.model.holds[&id].pool).is_some();
                self.hold_step(op, id, hold)?;
                has_deadline
            }
        };
        let quiet = has_deadline || self.reads.load(Ordering::Relaxed) == reads;
        ensure!(quiet, "P8: the clock was read although nothing on the path has to do with time");
        Ok(())
    }

    fn pool_step(&mut self, op: &Op, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let near = self.model.near(id);
        match op {
            Op::Child { carved, caps, deadline, .. } => self.child(id, pool, *carved, caps, deadline_of(*deadline))?,
            Op::Clone { .. } => {
                self.log(format!("clone p{id}"));
                self.pools.push((id, pool.clone()));
                self.model.pool(id).handles += 1;
            }
            Op::Drop { .. } => {
                // The root stays, so that there is a whole tree to look at, until `DropRoot`.
                let Some(index) = self.pools.iter().position(|(handle, _)| *handle == id && id != 0) else {
                    return Ok(());
                };
                self.log(format!("drop a handle of p{id}"));
                let (_, handle) = self.pools.swap_remove(index);
                drop(handle);
                self.model.drop_handle(id);
            }
            Op::Record { amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.record({})", want.amount()));
                let real = pool.record(want.amount()).map_err(|error| Refusal::from(&error));
                same!("record", real, self.model.record(id, &want.units()));
            }
            Op::Check { amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.check({})", want.amount()));
                let real = pool.check(want.amount()).map_err(|error| Refusal::from(&error));
                same!("check", real, self.model.ask(id, &want.units()));
            }
            Op::Debit { amount, .. } => {
                let want = Want::fact(amount, &near.map(|near| near.min(FACT)));
                self.log(format!("p{id}.debit({})", want.amount()));
                same!("debit", booked(pool.debit(want.amount()), &want)?, self.model.debit(id, &want.units()));
            }
            Op::Reserve { amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.reserve({})", want.amount()));
                let (real, model) = (pool.reserve(want.amount()), self.model.reserve(id, &want.units()));
                self.made("reserve", real, model)?;
            }
            Op::Reset { .. } => {
                self.log(format!("p{id}.reset()"));
                let model = self.model.view(id, id);
                self.model.reset(id);
                same!("reset", View::from(&pool.reset()), model);
            }
            Op::Add { caps, .. } => {
                // A carved pool's new share is asked of the one above.
                let above = self.model.pools[&id].parent.map_or([64; 6], |parent| self.model.near(parent));
                let set = caps_near(caps, &above);
                self.log(format!("p{id}.add({})", caps_of(&set)));
                let real = pool.add(caps_of(&set)).map_err(|error| Refusal::from(&error));
                same!("add", real, self.model.add(id, &set));
            }
            Op::Remove { caps, .. } => {
                let set = caps_near(caps, &near);
                self.log(format!("p{id}.remove({})", caps_of(&set)));
                let real = pool.remove(caps_of(&set)).map_err(|error| Refusal::from(&error));
                same!("remove", real, self.model.remove(id, &set));
            }
            // The root seldom: whatever asks later is refused.
            Op::Close { pool } if id == 0 && *pool < 192 => {}
            Op::Close { .. } => {
                self.log(format!("p{id}.close()"));
                pool.close();
                self.model.close(id);
            }
            _ => unreachable!("not a step of a pool"),
        }
        Ok(())
    }

    fn child(
        &mut self,
        parent: PoolId,
        pool: &BudgetPool,
        carved: bool,
        caps: &Figures,
        deadline: Option<Duration>,
    ) -> Result<(), String> {
        if self.model.pools.len() >= MOST_POOLS {
            return Ok(());
        }
        let set = caps_near(caps, &self.model.near(parent));
        let child = self.model.built;
        let text = if carved { "carved " } else { "" };
        self.log(format!("p{child} = a {text}child of p{parent} with {}, deadline {deadline:?}", caps_of(&set)));

        let mut builder = pool.child().name(name(child)).caps(caps_of(&set));
        if let Some(deadline) = deadline {
            builder = builder.deadline(deadline);
        }
        let real = match carved {
            true => builder.carved().build().map_err(|error| Refusal::from(&error)),
            false => Ok(builder.build()),
        };
        let model = self.model.build(Some(parent), carved, &set, deadline);
        same!("child", real.as_ref().map(|_| child), model.as_ref().copied());
        self.pools.extend(real.ok().map(|pool| (child, pool)));
        Ok(())
    }

    fn made(
        &mut self,
        what: &str,
        real: Result<Reservation, BudgetError>,
        model: Result<HoldId, Refusal>,
    ) -> Result<(), String> {
        match (real, model) {
            (Ok(hold), Ok(id)) => {
                self.holds.push((id, hold));
                Ok(())
            }
            (real, model) => {
                same!(what, real.map(drop).map_err(|error| Refusal::from(&error)), model.map(drop));
                Ok(())
            }
        }
    }

    fn hold_step(&mut self, op: &Op, id: HoldId, mut hold: Reservation) -> Result<(), String> {
        let held = without_in_flight(self.model.holds[&id].held);
        let on = format!("hold {id} of p{}", self.model.holds[&id].pool);
        match op {
            Op::Label { label, .. } => {
                let label = LABELS[usize::from(*label) % LABELS.len()];
                self.log(format!("{on}: label({label})"));
                self.model.hold(id).label = Some(label);
                self.holds.push((id, hold.label(label)));
            }
            Op::CommitOnDrop { .. } => {
                self.log(format!("{on}: commit_on_drop()"));
                self.model.hold(id).commit_on_drop = true;
                self.holds.push((id, hold.commit_on_drop()));
            }
            Op::Commit { actual, .. } => {
                let want = Want::fact(actual, &held);
                self.log(format!("{on}: commit({})", want.amount()));
                same!("commit", booked(hold.commit(want.amount()), &want)?, self.model.commit(id, &want));
            }
            Op::CommitAll { .. } => {
                self.log(format!("{on}: commit_all()"));
                let all = Want::default();
                same!("commit_all", booked(hold.commit_all(), &all)?, self.model.commit(id, &all));
            }
            Op::CommitTotal { total, .. } => {
                let want = Want::fact(total, &plus(&held, &self.model.holds[&id].settled));
                self.log(format!("{on}: commit_total({})", want.amount()));
                same!(
                    "commit_total",
                    booked(hold.commit_total(want.amount()), &want)?,
                    self.model.commit_total(id, &want)
                );
            }
            Op::TryCommit { actual, take_back, .. } => self.try_commit(id, hold, actual, *take_back)?,
            Op::Release { .. } => {
                self.log(format!("{on}: release()"));
                hold.release();
                self.model.release(id);
            }
            Op::DropHold { .. } => {
                self.log(format!("{on}: drop"));
                drop(hold);
                self.model.drop_hold(id);
            }
            Op::Forget { .. } => {
                self.log(format!("{on}: forget"));
                std::mem::forget(hold);
            }
            Op::RecordPart { part, .. } => {
                let want = Want::asked(part, &held);
                self.log(format!("{on}: record({})", want.amount()));
                let real = hold.record(want.amount()).map_err(|error| Refusal::from(&error));
                self.holds.push((id, hold));
                same!("a hold's record", real, self.model.record_part(id, &want.units()));
            }
            Op::DebitPart { part, .. } => {
                let want = Want::fact(part, &held);
                self.log(format!("{on}: debit({})", want.amount()));
                let real = booked(hold.debit(want.amount()), &want)?;
                self.holds.push((id, hold));
                same!("a hold's debit", real, self.model.debit_part(id, &want.units()));
            }
            Op::Grow { extra, .. } => {
                let want = Want::asked(extra, &self.model.near(self.model.holds[&id].pool));
                self.log(format!("{on}: grow({})", want.amount()));
                let real = hold.grow(want.amount()).map_err(|error| Refusal::from(&error));
                self.holds.push((id, hold));
                same!("grow", real, self.model.grow(id, &want.units()));
            }
            Op::Shrink { by, .. } => {
                let want = Want::asked(by, &held);
                self.log(format!("{on}: shrink({})", want.amount()));
                let real = hold.shrink(want.amount()).map_err(|error| Refusal::from(&error));
                self.holds.push((id, hold));
                same!("shrink", real, self.model.shrink(id, &want.units()));
            }
            Op::Split { part, .. } => {
                let want = Want::asked(part, &held);
                self.log(format!("{on}: split({})", want.amount()));
                let (real, model) = (hold.split(want.amount()), self.model.split(id, &want.units()));
                self.holds.push((id, hold));
                self.made("split", real, model)?;
            }
            _ => unreachable!("not a step of a hold"),
        }
        Ok(())
    }

    fn try_commit(&mut self, id: HoldId, hold: Reservation, actual: &Figures, take_back: bool) -> Result<(), String> {
        let want = Want::asked(actual, &without_in_flight(self.model.holds[&id].held));
        let then = if take_back { "take it back" } else { "drop the refusal" };
        let pool = self.model.holds[&id].pool;
        self.log(format!("hold {id} of p{pool}: try_commit({}), if refused {then}", want.amount()));
        let model = self.model.try_commit(id, &want);
        match hold.try_commit(want.amount()) {
            Ok(receipt) => same!("try_commit", Ok(booked(receipt, &want)?), model),
            Err(refused) => {
                same!("try_commit", Err(Refusal::from(refused.error())), model);
                match take_back {
                    true => self.holds.push((id, refused.into_reservation())),
                    false => {
                        drop(refused);
                        self.model.drop_hold(id);
                    }
                }
            }
        }
        Ok(())
    }

    /// All that can be seen is as in the model, and the promises hold in what is seen.
    fn check(&self, at: usize) -> Result<(), String> {
        let reached = self.reached();
        let Some(&(id, pool)) = reached.get(at.checked_rem(reached.len()).unwrap_or(0)) else { return Ok(()) };

        // One of them by all that it shows by itself, and the whole tree, or what is left of it that can be reached.
        same!("name", pool.name(), name(id));
        same!("is_closed", pool.is_closed(), self.model.is_closed(id));
        same!("time_left", pool.time_left(), self.model.time_left(id));
        let deadline = pool.deadline().and_then(|budget| budget.deadline());
        let expected = self.model.deadline(id).map(|(_, deadline)| self.started + deadline.at());
        same!("deadline", deadline, expected);
        same!("snapshot", View::from(&pool.snapshot()), self.model.view(id, id));
        self.check_holders(id, pool)?;
        let root = reached.iter().find(|(id, _)| *id == 0);
        for (id, pool) in root.map_or(&*reached, std::slice::from_ref) {
            self.check_tree(*id, pool)?;
            self.check_holders(*id, pool)?;
        }
        for (id, hold) in &self.holds {
            same!("amount", units_of(hold.amount()), without_in_flight(self.model.holds[id].held));
            same!("time_left", hold.time_left(), self.model.time_left(self.model.holds[id].pool));
        }
        Ok(())
    }

    fn check_tree(&self, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let snapshot = pool.snapshot_tree();
        let mut real: Vec<View> = snapshot.iter().map(View::from).collect();
        for view in &real {
            for AxisView { cap, used, reserved, overage, .. } in &view.axes {
                let (taken, cap) = (used + reserved, cap.unwrap_or(MAX));
                ensure!(taken <= cap, "P1: more than the cap is used and reserved: {view:?}");
                ensure!(*overage == 0 || taken == cap, "P2: overage beside room: {view:?}");
            }
        }

        // Parents come before their children, so in the order of depths on any way down; siblings in any order.
        same!("the first of a tree", real.first().map(|view| &*view.name), Some(&*name(id)));
        let position = |pool: PoolId| real.iter().position(|view| view.name == name(pool));
        for (child, Pool { parent, .. }) in &self.model.pools {
            if let (Some(child), Some(Some(parent))) = (position(*child), parent.map(position)) {
                ensure!(parent < child, "a child comes before its parent: {real:?}");
            }
        }

        let mut model = self.model.tree(id);
        let in_order = |view: &View| view.name.clone();
        real.sort_by_key(in_order);
        model.sort_by_key(in_order);
        for (real, model) in real.iter().zip(&model) {
            same!("a pool of the tree", real, model);
        }
        same!("the tree", real, model);
        Ok(())
    }

    fn check_holders(&self, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let holders = pool.holders();
        let view = |holder: &budget_pool::Holder| (units_of(holder.amount), holder.pool.to_string(), holder.label);
        let mut real: Vec<HolderView> = holders.iter().map(view).collect();
        ensure!(real.is_sorted_by(|a, b| a.0 >= b.0), "holders are not the largest first: {real:?}");
        let mut model = self.model.holders(id);
        real.sort();
        model.sort();
        same!("holders", real, model);
        Ok(())
    }

    /// Everything is dropped, in one order or another: then nothing is left but what was forgotten (P3).
    fn finish(&mut self, steps: usize) -> Result<(), String> {
        self.log("drop everything");
        loop {
            let (handle, hold) = (self.pools.iter().rposition(|(id, _)| *id != 0), self.holds.pop());
            if steps % 2 == 0 || hold.is_none() {
                if let Some(handle) = handle {
                    let (id, handle) = self.pools.remove(handle);
                    drop(handle);
                    self.model.drop_handle(id);
                }
            }
            if let Some((id, hold)) = hold {
                drop(hold);
                self.model.drop_hold(id);
            } else if handle.is_none() {
                break;
            }
            self.check(0)?;
        }

        let forgotten = !self.model.holds.is_empty();
        if let Some((_, root)) = self.pools.first().filter(|_| !forgotten) {
            let tree = root.snapshot_tree();
            same!("pools that are left", tree.len(), 1);
            same!("reservations that are left", tree[0].reservations, 0);
            for axis in &View::from(&tree[0]).axes {
                same!("what is left reserved", axis.reserved, 0);
                same!("available in the end", axis.available, axis.cap.map(|cap| cap - axis.used));
            }
        }
        self.pools.clear();
        let kept = Arc::strong_count(&self.reads) > 1;
        ensure!(kept == forgotten, "the pools are {} although nobody holds them", if kept { "kept" } else { "gone" });
        Ok(())
    }
}
