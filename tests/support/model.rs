//! A naive model of a tree of pools, and one language of operations that drives it and the real pool side by side.
//!
//! The model (`oracle.rs`) is an independent reading of the contract, too simple to be wrong: `u128` throughout, nothing is
//! cached, and what is reserved is never stored but summed up from the live owners each time it is asked for. It knows
//! nothing of how the library works inside. An absent cap is `u64::MAX`.
//!
//! # What is compared
//!
//! The answer of every call, with all that a refusal or a receipt says, instants included. How often it read the clock, which
//! is once or never (P8). After every step what is left of each lease, which no pool is asked for. And after a step all that
//! can be seen of all pools and holds; but in half of the runs only now and then, and never when time has just passed: so that
//! what the library leaves for later is met by every kind of call.
//!
//! The library does what is due when a call tells it the time. The model does it at the instant at which it was due, and is
//! told the time by the same calls: one that reads no clock (its path has nothing to do with time, or it is a `close`, the
//! drop of a pool, a label) happens to both at the latest instant seen. Nothing else may differ, but one thing: where more
//! holds have expired at once than any call must reclaim, a peak may count them a little longer (see `learn_peaks`). How far
//! a lease is refilled depends on what has been reclaimed, too: there the pool is looked at before, so that it is all.
//!
//! Shared by the property test and the fuzz target, which includes this file by its path.

#![allow(clippy::result_large_err, reason = "what is simple comes first")]

use std::fmt::{Debug, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Axis, BudgetError, BudgetPool, Builder, Caps, Clock, Lease, ManualClock, Reservation, Usd, Window,
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
const MOST_HOLDS: usize = 30;
const MOST_LEASES: usize = 6;
/// In some runs all is looked at after so many steps.
const SELDOM: usize = 7;
const UNIT_OF_TIME: Duration = Duration::from_millis(10);
const YEAR: Duration = Duration::from_secs(365 * 86_400);
/// How long there has been time when a run begins, so that a period may have started long before.
const PAST: Duration = YEAR.saturating_mul(40);
/// No run lasts longer.
const END: Duration = YEAR.saturating_mul(250);

macro_rules! same {
    ($what:expr, $real:expr, $model:expr) => {{
        let (real, model) = (&$real, &$model);
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

#[path = "oracle.rs"]
mod oracle;
#[path = "seen.rs"]
mod seen;

use oracle::{HoldId, Kind, LeaseId, Model, Nanos, Pool, PoolId, Reads, Refusal, Spec, When, duration, key_name};
use seen::{AxisView, HolderView, View, booked, refusal, units_of};

type Units = [u128; 6];

const ZERO: Units = [0; 6];

fn each(units: impl FnMut(usize) -> u128) -> Units {
    std::array::from_fn(units)
}

fn plus(a: &Units, b: &Units) -> Units {
    each(|axis| a[axis] + b[axis])
}

fn without_in_flight(mut units: Units) -> Units {
    units[IN_FLIGHT] = 0;
    units
}

fn name(pool: PoolId) -> String {
    format!("p{pool}")
}

// ---------------------------------------------------------------------------------------------------------------------
// The operations
// ---------------------------------------------------------------------------------------------------------------------

/// One step. `pool`, `hold` and `lease` are taken modulo what is alive; a step that finds nothing alive does nothing.
///
/// The first step, if it is a `Child`, says what the root is like, and by its `pool` how often all is looked at.
#[derive(Debug, Clone)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub enum Op {
    Child {
        pool: u8,
        carved: bool,
        caps: Figures,
        deadline: u8,
        window: u32,
        keys: u8,
    },
    Clone {
        pool: u8,
    },
    Drop {
        pool: u8,
    },
    DropRoot,
    Record {
        pool: u8,
        amount: Figures,
    },
    Check {
        pool: u8,
        amount: Figures,
    },
    Debit {
        pool: u8,
        amount: Figures,
    },
    Reserve {
        pool: u8,
        amount: Figures,
    },
    /// So many of the same kind.
    ReserveFor {
        pool: u8,
        amount: Figures,
        ttl: u8,
        many: u8,
        forget: bool,
    },
    /// With the amount that the key stands for, if it is known and this is a retry.
    RecordOnce {
        pool: u8,
        key: u8,
        amount: Figures,
        retry: bool,
    },
    Reset {
        pool: u8,
    },
    Add {
        pool: u8,
        caps: Figures,
    },
    Remove {
        pool: u8,
        caps: Figures,
    },
    Close {
        pool: u8,
    },
    Label {
        hold: u8,
        label: u8,
    },
    CommitOnDrop {
        hold: u8,
    },
    Commit {
        hold: u8,
        actual: Figures,
    },
    CommitAll {
        hold: u8,
    },
    CommitTotal {
        hold: u8,
        total: Figures,
    },
    TryCommit {
        hold: u8,
        actual: Figures,
        take_back: bool,
    },
    Release {
        hold: u8,
    },
    DropHold {
        hold: u8,
    },
    Forget {
        hold: u8,
    },
    RecordPart {
        hold: u8,
        part: Figures,
    },
    DebitPart {
        hold: u8,
        part: Figures,
    },
    Grow {
        hold: u8,
        extra: Figures,
    },
    Shrink {
        hold: u8,
        by: Figures,
    },
    Split {
        hold: u8,
        part: Figures,
    },
    Renew {
        hold: u8,
        ttl: u8,
    },
    Lease {
        pool: u8,
        batch: Figures,
    },
    /// Around what is left of it; or, if this goes beyond, around that and what the pool has.
    LeaseRecord {
        lease: u8,
        amount: Figures,
        beyond: bool,
    },
    LeaseDebit {
        lease: u8,
        amount: Figures,
        beyond: bool,
    },
    LeaseSettle {
        lease: u8,
    },
    DropLease {
        lease: u8,
    },
    ForgetLease {
        lease: u8,
    },
    Advance {
        by: u32,
    },
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

    /// So much and no more, if that can be named: a token total is not less than its parts.
    fn exactly(units: &Units) -> Option<Want> {
        let want = Want { set: units.map(|units| (units > 0).then(|| clip(units))) };
        (want.units() == *units).then_some(want)
    }

    /// What a pool remembers of it.
    fn again((named, units): ([bool; 6], Units)) -> Want {
        Want { set: std::array::from_fn(|axis| named[axis].then(|| clip(units[axis]))) }
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

/// Zero, a moment, around the deadlines, long, for ever.
fn ttl_of(raw: u8) -> Duration {
    let some = u32::from(raw / 16);
    match raw % 16 {
        0 => Duration::ZERO,
        1 => Duration::from_nanos(1),
        2 => Duration::MAX,
        3 => Duration::from_secs(1 << 40),
        4..=6 => Duration::from_nanos(u64::from(some) * 3),
        7..=9 => Duration::from_secs(u64::from(some)),
        _ => UNIT_OF_TIME * (1 + some % 4),
    }
}

/// A window, if any. Its start is before or after `now`.
fn window_of(raw: u32, now: Nanos) -> Option<(Kind, Duration, Option<Nanos>)> {
    if raw % 2 == 0 {
        return None;
    }
    let kind = if raw >> 1 & 1 == 0 { Kind::Fixed } else { Kind::Sliding };
    let some = raw >> 16;
    let period = match raw >> 2 & 15 {
        0 => Duration::ZERO,
        1 => Duration::from_nanos(1),
        2..=3 => Duration::from_nanos(u64::from(2 + some % 14)),
        4..=5 => Duration::from_secs(u64::from(1 + some % 60)),
        6 => Duration::from_secs(86_400),
        7 => YEAR * (1 + some % 3),
        8 => Duration::MAX,
        9 => Duration::from_nanos(u64::MAX - u64::from(some % 2)),
        _ => UNIT_OF_TIME * (1 + some % 3),
    };
    let away = match raw >> 6 & 7 {
        0 => 0,
        1 => Nanos::from(some),
        2 => UNIT_OF_TIME.as_nanos() * Nanos::from(some % 4),
        3 => YEAR.as_nanos() * Nanos::from(some % 30),
        _ => return Some((kind, period, None)),
    };
    let start = if raw >> 9 & 1 == 0 { now - away } else { now + away };
    Some((kind, period, Some(start)))
}

/// Few keys for a short time, so that they collide, fill up and are forgotten.
fn memory_of(raw: u8) -> Option<(usize, Duration)> {
    (raw % 4 != 0).then(|| ([0, 1, 3, 6][usize::from(raw / 4 % 4)], ttl_of(raw)))
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
    let mut both = Both::new();
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
    origin: Instant,
    /// How often the pools read the clock. They keep it alive, so that it also tells when the last of them is gone.
    reads: Arc<AtomicUsize>,
    pools: Vec<(PoolId, BudgetPool)>,
    holds: Vec<(HoldId, Reservation)>,
    leases: Vec<(LeaseId, Lease)>,
    /// What the step before was refused, if it will fit in time.
    refused: Option<Refused>,
    trace: Vec<String>,
}

/// What will fit at an instant, and not before.
struct Refused {
    pool: PoolId,
    want: Want,
    /// It is the keys that are too many.
    key: Option<u8>,
    at: Nanos,
}

impl Both {
    fn new() -> Both {
        let clock = ManualClock::new();
        let origin = clock.now();
        clock.advance(PAST);
        let mut model = Model::default();
        model.pass(PAST.as_nanos());
        let reads = Arc::new(AtomicUsize::new(0));
        let (pools, holds, leases, trace) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Both { model, clock, origin, reads, pools, holds, leases, refused: None, trace }
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), String> {
        let (spec, often, ops) = match ops.split_first() {
            Some((&Op::Child { pool, ref caps, deadline, window, keys, .. }, rest)) => {
                let caps = caps_near(caps, &[64; 6]);
                (self.spec(false, caps, deadline, window, keys), pool % 2 == 0, rest)
            }
            _ => (Spec::default(), true, ops),
        };
        self.root(spec);
        self.check(0)?;
        for (at, op) in ops.iter().enumerate() {
            self.step(op)?;
            self.check_leases()?;
            let time_has_passed = matches!(op, Op::Advance { .. });
            if !time_has_passed && (often || at % SELDOM == 0) {
                self.check(at)?;
            }
        }
        self.finish(ops.len(), often)
    }

    /// The present by the clock: not seen by the pools yet.
    fn now(&self) -> Nanos {
        self.clock.now().duration_since(self.origin).as_nanos()
    }

    fn instant(&self, at: Nanos) -> Instant {
        self.origin + duration(at)
    }

    fn advance_to(&mut self, at: Nanos) {
        let by = duration(at.min((PAST + END).as_nanos()).saturating_sub(self.now()));
        self.log(format!("{by:?} pass"));
        self.clock.advance(by);
    }

    /// Makes a call, with as many readings of the clock as promised (P8). It tells the model the time if it was told.
    fn call<T>(&mut self, reads: Reads, call: impl FnOnce() -> T) -> Result<T, String> {
        self.call_of(0, reads, call)
    }

    /// A call that reads the clock so often beside.
    fn call_of<T>(&mut self, beside: usize, reads: Reads, call: impl FnOnce() -> T) -> Result<T, String> {
        let expected = self.model.reads(reads);
        let before = self.reads.load(Ordering::Relaxed);
        let answer = call();
        let read = (self.reads.load(Ordering::Relaxed) - before).checked_sub(beside);
        let promised = match expected {
            Some(expected) => read == Some(expected.into()),
            None => read.is_some_and(|read| read <= 1),
        };
        ensure!(
            promised,
            "P8: the clock was read {read:?} times and {beside}, not {expected:?}: {:?}",
            self.trace.last()
        );
        if read != Some(0) {
            self.model.pass(self.now());
        }
        Ok(answer)
    }

    /// A call that only reads the clock, if it has to, and tells nobody.
    fn glance<T>(&self, reads: bool, glance: impl FnOnce() -> T) -> Result<T, String> {
        let before = self.reads.load(Ordering::Relaxed);
        let seen = glance();
        let read = self.reads.load(Ordering::Relaxed) - before;
        ensure!(read == usize::from(reads), "P8: the clock was read {read} times by a look");
        Ok(seen)
    }

    fn refusal(&self, error: &BudgetError) -> Refusal {
        refusal(error, self.origin)
    }

    fn answer<T>(&self, answer: Result<T, BudgetError>) -> Result<T, Refusal> {
        answer.map_err(|error| self.refusal(&error))
    }

    /// A pool that can be reached: by a handle of its own, or by that of a hold or a lease.
    fn pool(&self, index: u8) -> Option<(PoolId, BudgetPool)> {
        let reached = self.reached();
        let (id, pool) = reached.get(usize::from(index).checked_rem(reached.len())?)?;
        Some((*id, pool.clone()))
    }

    fn reached(&self) -> Vec<(PoolId, BudgetPool)> {
        let held = self.holds.iter().map(|(id, hold)| (self.model.holds[id].pool, hold.pool().clone()));
        let leased = self.leases.iter().map(|(id, lease)| (self.model.leases[id].pool, lease.pool().clone()));
        self.pools.iter().cloned().chain(held).chain(leased).collect()
    }

    fn log(&mut self, step: impl Into<String>) {
        self.trace.push(step.into());
    }

    fn step(&mut self, op: &Op) -> Result<(), String> {
        let refused = self.refused.take();
        match *op {
            Op::Advance { by } => match refused.filter(|_| by & 1 << 31 == 0) {
                Some(refused) => self.retry(&refused)?,
                None => self.advance(by),
            },
            Op::DropRoot => {
                let (root, kept) = std::mem::take(&mut self.pools).into_iter().partition(|(id, _)| *id == 0);
                self.pools = kept;
                self.log("drop the handles of p0");
                for (id, pool) in root {
                    self.call(Reads::Never, || drop(pool))?;
                    self.model.drop_handle(id);
                }
            }
            Op::Child { pool, .. }
            | Op::Clone { pool }
            | Op::Drop { pool }
            | Op::Record { pool, .. }
            | Op::Check { pool, .. }
            | Op::Debit { pool, .. }
            | Op::Reserve { pool, .. }
            | Op::ReserveFor { pool, .. }
            | Op::RecordOnce { pool, .. }
            | Op::Reset { pool }
            | Op::Add { pool, .. }
            | Op::Remove { pool, .. }
            | Op::Close { pool }
            | Op::Lease { pool, .. } => {
                if let Some((id, pool)) = self.pool(pool) {
                    self.pool_step(op, id, pool)?;
                }
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
            | Op::Split { hold, .. }
            | Op::Renew { hold, .. } => {
                if let Some(index) = usize::from(hold).checked_rem(self.holds.len()) {
                    let (id, hold) = self.holds.swap_remove(index);
                    self.hold_step(op, id, hold)?;
                }
            }
            Op::LeaseRecord { lease, .. }
            | Op::LeaseDebit { lease, .. }
            | Op::LeaseSettle { lease }
            | Op::DropLease { lease }
            | Op::ForgetLease { lease } => {
                if let Some(index) = usize::from(lease).checked_rem(self.leases.len()) {
                    let (id, lease) = self.leases.swap_remove(index);
                    self.lease_step(op, id, lease)?;
                }
            }
        }
        Ok(())
    }

    /// Time passes: not at all, a moment, to what is due next or beside it, or long.
    fn advance(&mut self, by: u32) {
        let (now, some) = (self.now(), Nanos::from(by >> 8 & 0xFFFF));
        let unit = UNIT_OF_TIME.as_nanos();
        let at = match by % 16 {
            0 => now,
            1 => now + 1,
            2..=8 => {
                let next: Vec<Nanos> = self.model.events().into_iter().filter(|event| *event > now).take(4).collect();
                match (some as usize / 3).checked_rem(next.len()) {
                    Some(one) => (next[one] + some % 3 - 1).max(now),
                    None => now + unit,
                }
            }
            9 => now + some,
            10 => now + some * 1_000_000_000,
            11 => now + YEAR.as_nanos() * (1 + some % 8),
            12 => now + unit / 2,
            _ => now + unit * (some % 3),
        };
        self.advance_to(at);
    }

    /// A refusal that says when it fits is exact: not a nanosecond before, if live holds stay held; but then.
    fn retry(&mut self, refused: &Refused) -> Result<(), String> {
        let Refused { pool: id, ref want, key, at } = *refused;
        let Some((_, pool)) = self.reached().into_iter().find(|(reached, _)| *reached == id) else { return Ok(()) };
        ensure!(at > self.now(), "what was refused is to fit at once: {at}");
        if at > (PAST + END).as_nanos() {
            return Ok(());
        }
        let holds_stay = self.model.events().into_iter().all(|event| event <= self.now() || event >= at);
        for at in [at - 1, at] {
            let is_early = at < refused.at;
            self.advance_to(at);
            let fits = match key {
                Some(key) => !matches!(self.record_once(id, &pool, key, want)?, Err(Refusal::KeysFull { .. })),
                None => self.check_amount(id, &pool, want)?.is_ok(),
            };
            ensure!(is_early || fits, "it does not fit at the instant told: {at}");
            ensure!(!is_early || !fits || !holds_stay, "it fits before the instant told: {at}");
        }
        Ok(())
    }

    fn remember(&mut self, pool: PoolId, want: Want, key: Option<u8>, answer: &Result<(), Refusal>) {
        let Err(refusal) = answer else { return };
        let key = key.filter(|_| matches!(refusal, Refusal::KeysFull { .. }));
        if let (_, _, When::At(at), _) = refusal.summary() {
            self.refused = Some(Refused { pool, want, key, at });
        }
    }

    fn check_amount(&mut self, id: PoolId, pool: &BudgetPool, want: &Want) -> Result<Result<(), Refusal>, String> {
        self.log(format!("p{id}.check({})", want.amount()));
        let real = self.call(Reads::Asks(id), || pool.check(want.amount()))?;
        let real = self.answer(real);
        same!("check", real, self.model.ask(id, &want.units()));
        Ok(real)
    }

    fn record_once(
        &mut self,
        id: PoolId,
        pool: &BudgetPool,
        key: u8,
        want: &Want,
    ) -> Result<Result<(), Refusal>, String> {
        self.log(format!("p{id}.record_once({}, {})", key_name(key), want.amount()));
        let real = self.call(Reads::Always, || pool.record_once(key_name(key), want.amount()))?;
        let real = self.answer(real);
        same!("record_once", real, self.model.record_once(id, key, want));
        Ok(real)
    }

    fn pool_step(&mut self, op: &Op, id: PoolId, pool: BudgetPool) -> Result<(), String> {
        let near = self.model.near(id);
        match *op {
            Op::Child { carved, ref caps, deadline, window, keys, .. } => {
                if self.model.pools.len() < MOST_POOLS {
                    let caps = caps_near(caps, &near);
                    let spec = self.spec(carved, caps, deadline, window, keys);
                    self.child(id, &pool, spec)?;
                }
            }
            Op::Clone { .. } => {
                self.log(format!("clone p{id}"));
                self.pools.push((id, pool));
                self.model.pool(id).handles += 1;
            }
            Op::Drop { .. } => {
                // The root stays, so that there is a whole tree to look at, until `DropRoot`.
                let Some(index) = self.pools.iter().position(|(handle, _)| *handle == id && id != 0) else {
                    return Ok(());
                };
                self.log(format!("drop a handle of p{id}"));
                let (_, handle) = self.pools.swap_remove(index);
                drop(pool);
                self.call(Reads::Never, || drop(handle))?;
                self.model.drop_handle(id);
            }
            Op::Record { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.record({})", want.amount()));
                let real = self.call(Reads::Asks(id), || pool.record(want.amount()))?;
                let real = self.answer(real);
                same!("record", real, self.model.record(id, &want.units()));
                self.remember(id, want, None, &real);
            }
            Op::RecordOnce { key, ref amount, retry, .. } => {
                let key = key % 7;
                let known = self.model.known(id, key).filter(|_| retry).map(Want::again);
                let want = known.unwrap_or_else(|| Want::asked(amount, &near));
                let real = self.record_once(id, &pool, key, &want)?;
                self.remember(id, want, Some(key), &real);
            }
            Op::Check { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                let real = self.check_amount(id, &pool, &want)?;
                self.remember(id, want, None, &real);
            }
            Op::Debit { ref amount, .. } => {
                let want = Want::fact(amount, &near.map(|near| near.min(FACT)));
                self.log(format!("p{id}.debit({})", want.amount()));
                let real = self.call(Reads::Tells(id), || pool.debit(want.amount()))?;
                same!("debit", booked(real, &want)?, self.model.debit(id, &want.units()));
            }
            Op::Reserve { ref amount, .. } => {
                let want = Want::asked(amount, &near);
                self.log(format!("p{id}.reserve({})", want.amount()));
                let real = self.call(Reads::Asks(id), || pool.reserve(want.amount()))?;
                let model = self.model.reserve(id, &want.units());
                let refused = self.made("reserve", real, model)?;
                self.remember(id, want, None, &refused);
            }
            Op::ReserveFor { ref amount, ttl, many, forget, .. } => {
                let (want, ttl) = (Want::asked(amount, &near), ttl_of(ttl));
                for _ in 0..=many % 12 {
                    if self.holds.len() >= MOST_HOLDS {
                        break;
                    }
                    self.log(format!("p{id}.reserve_for({}, {ttl:?})", want.amount()));
                    let real = self.call(Reads::Always, || pool.reserve_for(want.amount(), ttl))?;
                    let model = self.model.reserve_for(id, &want.units(), ttl);
                    if let refused @ Err(_) = self.made("reserve_for", real, model)? {
                        self.remember(id, want, None, &refused);
                        break;
                    }
                    if forget {
                        let (hold, guard) = self.holds.pop().expect("it was just made");
                        self.log(format!("hold {hold} of p{id}: forget"));
                        std::mem::forget(guard);
                    }
                }
            }
            Op::Reset { .. } => {
                self.log(format!("p{id}.reset()"));
                let real = self.call(Reads::Tells(id), || pool.reset())?;
                let real = View::from(&real);
                self.model.learn_peaks(std::slice::from_ref(&real));
                same!("reset", real, self.model.view(id, id));
                self.model.reset(id);
            }
            Op::Add { ref caps, .. } => {
                // A carved pool's new share is asked of the one above.
                let above = self.model.pools[&id].parent.map_or([64; 6], |parent| self.model.near(parent));
                let set = caps_near(caps, &above);
                self.log(format!("p{id}.add({})", caps_of(&set)));
                let real = self.call(Reads::Asks(id), || pool.add(caps_of(&set)))?;
                same!("add", self.answer(real), self.model.add(id, &set));
            }
            Op::Remove { ref caps, .. } => {
                let set = caps_near(caps, &near);
                self.log(format!("p{id}.remove({})", caps_of(&set)));
                let real = self.call(Reads::Tells(id), || pool.remove(caps_of(&set)))?;
                same!("remove", self.answer(real), self.model.remove(id, &set));
            }
            // The root seldom: whatever asks later is refused.
            Op::Close { pool: raw } if id == 0 && raw < 192 => {}
            Op::Close { .. } => {
                self.log(format!("p{id}.close()"));
                self.call(Reads::Never, || pool.close())?;
                self.model.close(id);
            }
            Op::Lease { ref batch, .. } => {
                if self.leases.len() < MOST_LEASES {
                    let want = Want::asked(batch, &near);
                    self.log(format!("p{id}.lease({})", want.amount()));
                    let real = self.call(Reads::Asks(id), || pool.lease(want.amount()))?;
                    let answer = self.answer(real.as_ref().map(drop).map_err(Clone::clone));
                    let model = self.model.lease(id, &want.units());
                    same!("lease", answer, model.as_ref().map(|_| ()).map_err(Clone::clone));
                    self.leases.extend(model.ok().zip(real.ok()));
                    self.remember(id, want, None, &answer);
                }
            }
            _ => unreachable!("not a step of a pool"),
        }
        Ok(())
    }

    fn spec(&self, carved: bool, caps: [Option<u64>; 6], deadline: u8, window: u32, keys: u8) -> Spec {
        let (deadline, window) = (deadline_of(deadline), window_of(window, self.now()));
        Spec { carved, caps, deadline, window, memory: memory_of(keys) }
    }

    /// What a builder is told.
    fn equip<K>(&self, id: PoolId, mut builder: Builder<K>, spec: &Spec) -> Builder<K> {
        builder = builder.name(name(id)).caps(caps_of(&spec.caps));
        if let Some(deadline) = spec.deadline {
            builder = builder.deadline(deadline);
        }
        if let Some((kind, period, start)) = spec.window {
            let window = match kind {
                Kind::Fixed => Window::fixed(period),
                Kind::Sliding => Window::sliding(period),
            };
            builder = builder.window(start.map_or(window, |start| window.starting(self.instant(start))));
        }
        match spec.memory {
            Some((most, ttl)) => builder.keys(most, ttl),
            None => builder,
        }
    }

    fn root(&mut self, spec: Spec) {
        let (time, counter) = (self.clock.clone(), Arc::clone(&self.reads));
        let read = move || {
            counter.fetch_add(1, Ordering::Relaxed);
            time.now()
        };
        self.log(format!("p0 = {spec:?}"));
        let pool = self.equip(0, BudgetPool::builder().clock(read), &spec).build();
        let id = self.model.build(None, &spec, self.now()).expect("a root is not refused");
        self.pools.push((id, pool));
    }

    fn child(&mut self, parent: PoolId, pool: &BudgetPool, spec: Spec) -> Result<(), String> {
        let child = self.model.built;
        self.log(format!("p{child} = a child of p{parent} with {spec:?}"));
        let builder = self.equip(child, pool.child(), &spec);
        let (reads, starts) = match (spec.carved, &spec.window) {
            (true, Some(_)) => (Reads::Never, 0),
            (true, None) => (Reads::Asks(parent), usize::from(spec.deadline.is_some())),
            (false, window) => (Reads::Never, usize::from(spec.deadline.is_some()) + usize::from(window.is_some())),
        };
        let real = self.call_of(starts, reads, || match spec.carved {
            true => builder.carved().build(),
            false => Ok(builder.build()),
        })?;
        let real = self.answer(real);
        let model = self.model.build(Some(parent), &spec, self.now());
        same!("child", real.as_ref().map(|_| child), model.as_ref().copied());
        self.pools.extend(real.ok().map(|pool| (child, pool)));
        Ok(())
    }

    fn made(
        &mut self,
        what: &str,
        real: Result<Reservation, BudgetError>,
        model: Result<HoldId, Refusal>,
    ) -> Result<Result<(), Refusal>, String> {
        match (self.answer(real), model) {
            (Ok(hold), Ok(id)) => {
                self.holds.push((id, hold));
                Ok(Ok(()))
            }
            (real, model) => {
                let real = real.map(drop);
                same!(what, real, model.map(drop));
                Ok(real)
            }
        }
    }

    fn hold_step(&mut self, op: &Op, id: HoldId, mut hold: Reservation) -> Result<(), String> {
        let held = without_in_flight(self.model.holds[&id].held);
        let pool = self.model.holds[&id].pool;
        let (asks, tells) = (Reads::Asks(pool), Reads::Tells(pool));
        let on = format!("hold {id} of p{pool}");
        match op {
            Op::Label { label, .. } => {
                let label = LABELS[usize::from(*label) % LABELS.len()];
                self.log(format!("{on}: label({label})"));
                let hold = self.call(Reads::Never, || hold.label(label))?;
                self.model.hold(id).label = Some(label);
                self.holds.push((id, hold));
            }
            Op::CommitOnDrop { .. } => {
                self.log(format!("{on}: commit_on_drop()"));
                let hold = self.call(tells, || hold.commit_on_drop())?;
                self.model.hold(id).commit_on_drop = true;
                self.holds.push((id, hold));
            }
            Op::Commit { actual, .. } => {
                let want = Want::fact(actual, &held);
                self.log(format!("{on}: commit({})", want.amount()));
                let real = self.call(tells, || hold.commit(want.amount()))?;
                same!("commit", booked(real, &want)?, self.model.commit(id, &want));
            }
            Op::CommitAll { .. } => {
                self.log(format!("{on}: commit_all()"));
                let all = Want::default();
                let real = self.call(tells, || hold.commit_all())?;
                same!("commit_all", booked(real, &all)?, self.model.commit(id, &all));
            }
            Op::CommitTotal { total, .. } => {
                let want = Want::fact(total, &plus(&held, &self.model.holds[&id].settled));
                self.log(format!("{on}: commit_total({})", want.amount()));
                let real = self.call(tells, || hold.commit_total(want.amount()))?;
                same!("commit_total", booked(real, &want)?, self.model.commit_total(id, &want));
            }
            Op::TryCommit { actual, take_back, .. } => self.try_commit(id, hold, actual, *take_back)?,
            Op::Release { .. } => {
                self.log(format!("{on}: release()"));
                self.call(tells, || hold.release())?;
                self.model.release(id);
            }
            Op::DropHold { .. } => {
                self.log(format!("{on}: drop"));
                self.drop_hold(id, hold)?;
            }
            Op::Forget { .. } => {
                self.log(format!("{on}: forget"));
                std::mem::forget(hold);
            }
            Op::RecordPart { part, .. } => {
                let want = Want::asked(part, &held);
                self.log(format!("{on}: record({})", want.amount()));
                let real = self.call(asks, || hold.record(want.amount()))?;
                self.holds.push((id, hold));
                same!("a hold's record", self.answer(real), self.model.record_part(id, &want.units()));
            }
            Op::DebitPart { part, .. } => {
                let want = Want::fact(part, &held);
                self.log(format!("{on}: debit({})", want.amount()));
                let real = self.call(tells, || hold.debit(want.amount()))?;
                self.holds.push((id, hold));
                same!("a hold's debit", booked(real, &want)?, self.model.debit_part(id, &want.units()));
            }
            Op::Grow { extra, .. } => {
                let want = Want::asked(extra, &self.model.near(pool));
                self.log(format!("{on}: grow({})", want.amount()));
                let real = self.call(asks, || hold.grow(want.amount()))?;
                self.holds.push((id, hold));
                let real = self.answer(real);
                same!("grow", real, self.model.grow(id, &want.units()));
                self.remember(pool, want, None, &real);
            }
            Op::Shrink { by, .. } => {
                let want = Want::asked(by, &held);
                self.log(format!("{on}: shrink({})", want.amount()));
                let real = self.call(tells, || hold.shrink(want.amount()))?;
                self.holds.push((id, hold));
                same!("shrink", self.answer(real), self.model.shrink(id, &want.units()));
            }
            Op::Split { part, .. } => {
                let want = Want::asked(part, &held);
                self.log(format!("{on}: split({})", want.amount()));
                let real = self.call(asks, || hold.split(want.amount()))?;
                let model = self.model.split(id, &want.units());
                self.holds.push((id, hold));
                self.made("split", real, model)?.ok();
            }
            Op::Renew { ttl, .. } => {
                let ttl = ttl_of(*ttl);
                self.log(format!("{on}: renew({ttl:?})"));
                let real = self.call(Reads::Always, || hold.renew(ttl))?;
                self.holds.push((id, hold));
                same!("renew", self.answer(real), self.model.renew(id, ttl));
            }
            _ => unreachable!("not a step of a hold"),
        }
        Ok(())
    }

    fn drop_hold(&mut self, id: HoldId, hold: Reservation) -> Result<(), String> {
        let tells = Reads::Tells(self.model.holds[&id].pool);
        self.call(tells, || drop(hold))?;
        self.model.drop_hold(id);
        Ok(())
    }

    fn lease_step(&mut self, op: &Op, id: LeaseId, mut lease: Lease) -> Result<(), String> {
        let (pool, left) = (self.model.leases[&id].pool, self.model.leases[&id].left);
        let on = format!("lease {id} of p{pool}");
        let near = |beyond: bool, model: &Model| if beyond { plus(&left, &model.near(pool)) } else { left };
        let tells = Reads::Tells(pool);
        match *op {
            Op::LeaseRecord { ref amount, beyond, .. } => {
                let want = Want::asked(amount, &near(beyond, &self.model));
                let units = want.units();
                let is_local = self.model.covers(id, &units);
                if !is_local && self.model.may_leave_some(self.now()) {
                    self.log(format!("p{pool}.snapshot()"));
                    let snapshot = View::from(&self.call(tells, || lease.pool().snapshot())?);
                    self.model.learn_peaks(std::slice::from_ref(&snapshot));
                    same!("snapshot", snapshot, self.model.view(pool, pool));
                }
                self.log(format!("{on}: record({})", want.amount()));
                let reads = if is_local { Reads::Never } else { Reads::Asks(pool) };
                let real = self.call(reads, || lease.record(want.amount()))?;
                self.leases.push((id, lease));
                let real = self.answer(real);
                same!("a lease's record", real, self.model.lease_record(id, &units));
                if let Some(want) = Want::exactly(&self.model.beyond_lease(id, &units)) {
                    self.remember(pool, want, None, &real);
                }
            }
            Op::LeaseDebit { ref amount, beyond, .. } => {
                let most = near(beyond, &self.model);
                let want = Want::fact(amount, &each(|axis| most[axis].min(left[axis] + FACT)));
                let is_local = self.model.covers(id, &want.units());
                self.log(format!("{on}: debit({})", want.amount()));
                let real = self.call(if is_local { Reads::Never } else { tells }, || lease.debit(want.amount()))?;
                self.leases.push((id, lease));
                same!("a lease's debit", booked(real, &want)?, self.model.lease_debit(id, &want.units()));
            }
            Op::LeaseSettle { .. } => {
                self.log(format!("{on}: settle()"));
                self.call(tells, || lease.settle())?;
                self.leases.push((id, lease));
                self.model.settle_lease(id);
            }
            Op::DropLease { .. } => {
                self.log(format!("{on}: drop"));
                self.drop_lease(id, lease)?;
            }
            Op::ForgetLease { .. } => {
                self.log(format!("{on}: forget"));
                std::mem::forget(lease);
            }
            _ => unreachable!("not a step of a lease"),
        }
        Ok(())
    }

    fn drop_lease(&mut self, id: LeaseId, lease: Lease) -> Result<(), String> {
        let tells = Reads::Tells(self.model.leases[&id].pool);
        self.call(tells, || drop(lease))?;
        self.model.drop_lease(id);
        Ok(())
    }

    fn try_commit(&mut self, id: HoldId, hold: Reservation, actual: &Figures, take_back: bool) -> Result<(), String> {
        let want = Want::asked(actual, &without_in_flight(self.model.holds[&id].held));
        let then = if take_back { "take it back" } else { "drop the refusal" };
        let pool = self.model.holds[&id].pool;
        self.log(format!("hold {id} of p{pool}: try_commit({}), if refused {then}", want.amount()));
        let real = self.call(Reads::Tells(pool), || hold.try_commit(want.amount()))?;
        let model = self.model.try_commit(id, &want);
        match real {
            Ok(receipt) => same!("try_commit", Ok(booked(receipt, &want)?), model),
            Err(refused) => {
                same!("try_commit", Err(self.refusal(refused.error())), model);
                match take_back {
                    true => self.holds.push((id, refused.into_reservation())),
                    false => self.drop_hold(id, refused.into_reservation())?,
                }
            }
        }
        Ok(())
    }

    /// All that can be seen is as in the model, and the promises hold in what is seen.
    fn check(&mut self, at: usize) -> Result<(), String> {
        let reached = self.reached();
        let Some((id, pool)) = reached.get(at.checked_rem(reached.len()).unwrap_or(0)) else { return Ok(()) };
        let (id, now) = (*id, self.now());

        // One of them by all that it shows by itself, and the whole tree, or what is left of it that can be reached.
        let expected = self.model.deadline(id).map(|(_, deadline)| self.instant(deadline.at()));
        same!("name", pool.name(), name(id));
        same!("is_closed", self.glance(false, || pool.is_closed())?, self.model.is_closed(id));
        let time_left = self.glance(expected.is_some(), || pool.time_left())?;
        same!("time_left", time_left, self.model.time_left(id, now));
        let deadline = pool.deadline().and_then(|budget| budget.deadline());
        same!("deadline", deadline, expected);
        for hold in 0..self.holds.len() {
            self.check_hold(hold)?;
        }
        let snapshot = self.call(Reads::Tells(id), || pool.snapshot())?;
        let snapshot = View::from(&snapshot);
        self.model.learn_peaks(std::slice::from_ref(&snapshot));
        same!("snapshot", snapshot, self.model.view(id, id));
        self.check_holders(id, pool)?;
        let root = reached.iter().find(|(id, _)| *id == 0);
        for (id, pool) in root.map_or(&*reached, std::slice::from_ref) {
            self.check_tree(*id, pool)?;
            self.check_holders(*id, pool)?;
        }
        Ok(())
    }

    fn check_hold(&mut self, index: usize) -> Result<(), String> {
        let holds = std::mem::take(&mut self.holds);
        let (id, hold) = &holds[index];
        let expected = self.model.hold_time_left(*id, self.now());
        same!("time_left", self.glance(expected.is_some(), || hold.time_left())?, expected);
        let amount = self.call(Reads::Tells(self.model.holds[id].pool), || hold.amount())?;
        same!("amount", units_of(amount), self.model.amount(*id));
        let expected = self.model.hold_time_left(*id, self.now());
        same!("time_left", self.glance(expected.is_some(), || hold.time_left())?, expected);
        self.holds = holds;
        Ok(())
    }

    fn check_leases(&self) -> Result<(), String> {
        for (id, lease) in &self.leases {
            let remaining = self.glance(false, || lease.remaining())?;
            same!(format!("what is left of lease {id}"), units_of(remaining), self.model.leases[id].left);
        }
        Ok(())
    }

    fn check_tree(&mut self, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let snapshot = self.call(Reads::Surveys(id), || pool.snapshot_tree())?;
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

        self.model.learn_peaks(&real);
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

    fn check_holders(&mut self, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let holders = self.call(Reads::Tells(id), || pool.holders())?;
        let view = |holder: &budget_pool::Holder| (units_of(holder.amount), holder.pool.to_string(), holder.label);
        let mut real: Vec<HolderView> = holders.iter().map(view).collect();
        ensure!(real.is_sorted_by(|a, b| a.0 >= b.0), "holders are not the largest first: {real:?}");
        let mut model = self.model.holders(id);
        real.sort();
        model.sort();
        same!("holders", real, model);
        Ok(())
    }

    /// Everything is dropped, in one order or another: then nothing is left but what was forgotten (P3), and of that
    /// nothing that had a time.
    fn finish(&mut self, steps: usize, often: bool) -> Result<(), String> {
        self.log("drop everything");
        loop {
            let handle = self.pools.iter().rposition(|(id, _)| *id != 0);
            let (hold, lease) = (self.holds.pop(), self.leases.pop());
            let is_last = handle.is_none() && hold.is_none() && lease.is_none();
            if steps % 2 == 0 || (hold.is_none() && lease.is_none()) {
                if let Some(handle) = handle {
                    let (id, handle) = self.pools.remove(handle);
                    self.call(Reads::Never, || drop(handle))?;
                    self.model.drop_handle(id);
                }
            }
            if let Some((id, hold)) = hold {
                self.drop_hold(id, hold)?;
            }
            if let Some((id, lease)) = lease {
                self.drop_lease(id, lease)?;
            }
            if is_last {
                break;
            }
            if often {
                self.check(0)?;
            }
        }
        self.check(0)?;
        self.advance_to((PAST + END).as_nanos());
        self.check(0)?;

        let forgotten = !self.model.holds.is_empty() || !self.model.leases.is_empty();
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
