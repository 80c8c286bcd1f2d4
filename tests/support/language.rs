//! The language: the operations, and the figures that they name. One byte or two say a figure, so
//! that proptest and the fuzzer speak it alike, and any of them means something in any state: it is
//! read by what there is to spend or to hold.

use std::time::Duration;

use budget_pool::{Amount, Axis, Caps, OnDrop, Usd};

pub use super::asks::Asked;
use super::oracle::{Kind, Nanos};

/// How many axes are counted.
pub(super) const LANES: usize = 10;
pub(super) const AXES: [Axis; LANES] = [
    Axis::Tokens,
    Axis::InputTokens,
    Axis::OutputTokens,
    Axis::Requests,
    Axis::Usd,
    Axis::InFlight,
    Axis::custom(0, "tool calls"),
    Axis::custom(1, "pages"),
    Axis::custom(2, "bytes"),
    Axis::custom(3, "GPU seconds"),
];
pub(super) const TOKENS: usize = 0;
pub(super) const INPUT: usize = 1;
pub(super) const OUTPUT: usize = 2;
const REQUESTS: usize = 3;
const USD: usize = 4;
pub(super) const IN_FLIGHT: usize = 5;

pub(super) const MAX: u128 = u64::MAX as u128;
/// Facts go no further than this beyond what is held: the saturation of overage at `u64::MAX` is
/// tested elsewhere.
pub(super) const FACT: u128 = 1 << 40;
pub(super) const UNIT_OF_TIME: Duration = Duration::from_millis(10);
pub(super) const YEAR: Duration = Duration::from_secs(365 * 86_400);

pub(super) type Units = [u128; LANES];

pub(super) const ZERO: Units = [0; LANES];

/// Caps or ceilings: an axis without one is unlimited.
pub(super) type Limits = [Option<u64>; LANES];

pub(super) fn each(units: impl FnMut(usize) -> u128) -> Units {
    std::array::from_fn(units)
}

pub(super) fn plus(a: &Units, b: &Units) -> Units {
    each(|axis| a[axis] + b[axis])
}

pub(super) fn minus(a: &Units, b: &Units) -> Units {
    each(|axis| a[axis].saturating_sub(b[axis]))
}

pub(super) fn with_in_flight(mut units: Units, slots: u128) -> Units {
    units[IN_FLIGHT] = slots;
    units
}

pub(super) fn without_in_flight(units: Units) -> Units {
    with_in_flight(units, 0)
}

/// One step. `pool`, `hold`, `lease` and `wait` are taken modulo what is alive; a step that finds
/// nothing alive does nothing.
///
/// The first step, if it is a `Child`, says what the root is like, and by its `pool` how often all
/// is looked at, and whether the tree has an observer.
#[derive(Debug, Clone)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub enum Op {
    Child {
        pool: u8,
        build: Build,
    },
    /// Below several pools, with the same one perhaps among them more than once, and now and then
    /// one of another tree, or none.
    Joint {
        pool: u8,
        others: [u8; 2],
        build: Build,
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
    Peek {
        pool: u8,
        amount: Figures,
    },
    Debit {
        pool: u8,
        amount: Figures,
    },
    /// Around the overage of the pool, or around what it has used.
    Credit {
        pool: u8,
        amount: Figures,
    },
    RecordAndSnapshot {
        pool: u8,
        amount: Figures,
    },
    SetUsed {
        pool: u8,
        figures: Figures,
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
    /// The keys are those of `RecordOnce`.
    DebitOnce {
        pool: u8,
        key: u8,
        amount: Figures,
        retry: bool,
    },
    Reset {
        pool: u8,
    },
    RaiseCaps {
        pool: u8,
        caps: Figures,
    },
    LowerCaps {
        pool: u8,
        caps: Figures,
    },
    LowerCapsUpTo {
        pool: u8,
        caps: Figures,
    },
    /// Around what the pool has used and reserved.
    SetCaps {
        pool: u8,
        caps: Figures,
    },
    /// `to` picks the pool that gets the caps: any, a sibling, or one of another tree.
    Transfer {
        pool: u8,
        to: u8,
        caps: Figures,
    },
    SetCeiling {
        pool: u8,
        caps: Figures,
    },
    /// For as long as a TTL; or until an instant, before or after the present.
    Pause {
        pool: u8,
        time: u8,
        until: bool,
    },
    Resume {
        pool: u8,
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
    OnDrop {
        hold: u8,
        commit: bool,
    },
    /// Around what it held and metered.
    Commit {
        hold: u8,
        total: Figures,
    },
    CommitAll {
        hold: u8,
    },
    TryCommit {
        hold: u8,
        total: Figures,
        take_back: bool,
    },
    /// `other` picks the hold that ends: mostly one of the same pool.
    Merge {
        hold: u8,
        other: u8,
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
    /// It takes its place at the first poll: at once, or later.
    Wait {
        pool: u8,
        amount: Figures,
        poll: bool,
    },
    /// The same for a spend.
    WaitToSpend {
        pool: u8,
        amount: Figures,
        poll: bool,
    },
    /// By the same waker as before, or by another.
    Poll {
        wait: u8,
        anew: bool,
    },
    DropWait {
        wait: u8,
    },
    /// The sleep of a wait ends, or says so too early or too late, and its owner does not come.
    Ring {
        wait: u8,
    },
    /// Asks for a hold by more than an amount.
    Ask {
        pool: u8,
        asked: Asked,
    },
    /// The same, in line.
    WaitOn {
        pool: u8,
        asked: Asked,
        poll: bool,
    },
    /// Waits for the close of a pool.
    Closed {
        pool: u8,
    },
    /// Drives a future that is done by one of its first polls, perhaps with a hold in it.
    Run {
        pool: u8,
        polls: u8,
        hold: Option<u8>,
        poll: bool,
    },
    /// By the same waker as before, or by another.
    PollRun {
        run: u8,
        anew: bool,
    },
    DropRun {
        run: u8,
    },
    /// Watches for a level: from 100 on the percentage beyond that, of the cap of one axis; below that
    /// an amount around what is spoken for.
    Reached {
        pool: u8,
        level: Figures,
        percent: u8,
        settled: bool,
    },
    Wants {
        pool: u8,
    },
    /// Each cap on the way up.
    Limits {
        pool: u8,
    },
    /// By the same waker as before, or by another.
    PollWatch {
        watch: u8,
        anew: bool,
    },
    DropWatch {
        watch: u8,
    },
    /// Begins with pools by key, if there are none.
    Tenants {
        pool: u8,
    },
    GetOrBuild {
        key: u8,
        build: Build,
        keep: bool,
    },
    EvictIdle,
    RemoveTenant {
        key: u8,
    },
    SeeTenants,
    DropTenants,
    Advance {
        by: u32,
    },
}

/// What a new pool is like.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub struct Build {
    pub carved: bool,
    pub caps: Figures,
    pub deadline: u8,
    pub window: u32,
    pub keys: u8,
    pub used: Option<Figures>,
    pub ceiling: Option<Figures>,
    /// Whether the pool commits what its holds are dropped with, if it says so.
    pub on_drop: Option<bool>,
    /// How much is to be free at least.
    pub low: Option<Figures>,
    /// How many may wait; a few.
    pub most_waiting: Option<u8>,
}

/// Figures on some of the axes: bit `n` of `axes` names axis `n`, and `raw[n]` picks its figure,
/// mostly around a figure that matters there (what is available, what is held).
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(fuzzing, derive(arbitrary::Arbitrary))]
pub struct Figures {
    pub axes: u16,
    pub raw: [u16; LANES],
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
pub(super) struct Want {
    set: [Option<u64>; LANES],
}

impl Want {
    pub(super) fn asked(figures: &Figures, near: &Units) -> Want {
        let set = |axis| figures.names(axis).then(|| figure(figures.raw[axis], near[axis]));
        Want { set: std::array::from_fn(set) }
    }

    /// As `asked`, but at most `FACT` beyond `near` on every axis, the token total included.
    pub(super) fn fact(figures: &Figures, near: &Units) -> Want {
        let want = Want::asked(figures, near);
        match (0..LANES).all(|axis| want.units()[axis] <= near[axis] + FACT) {
            true => want,
            false => Want { set: want.set.map(|units| units.map(|units| units % (1 << 39))) },
        }
    }

    /// What it charges, in flight apart. The token total is the larger of what was named and input
    /// plus output.
    pub(super) fn units(&self) -> Units {
        let mut units = self.set.map(|units| u128::from(units.unwrap_or(0)));
        units[TOKENS] = units[TOKENS].max(units[INPUT] + units[OUTPUT]).min(MAX);
        without_in_flight(units)
    }

    /// How many it names to be in flight.
    pub(super) fn slots(&self) -> Option<u128> {
        self.set[IN_FLIGHT].map(u128::from)
    }

    /// What it charges, and what it names to be in flight.
    pub(super) fn with_slots(&self) -> Units {
        with_in_flight(self.units(), self.slots().unwrap_or(0))
    }

    /// What a hold of it holds: one in flight, unless another figure is named.
    pub(super) fn held(&self) -> Units {
        with_in_flight(self.units(), self.slots().unwrap_or(1))
    }

    /// Whether an axis is named, or is the token total of a part that is.
    pub(super) fn names(&self, axis: usize) -> bool {
        self.set[axis].is_some() || (axis == TOKENS && self.names_a_part())
    }

    pub(super) fn names_a_part(&self) -> bool {
        self.set[INPUT].is_some() || self.set[OUTPUT].is_some()
    }

    /// The axes that are named, in flight apart.
    pub(super) fn named(&self) -> [bool; LANES] {
        std::array::from_fn(|axis| axis != IN_FLIGHT && self.names(axis))
    }

    /// By which two amounts are the same: what is named, and the figures.
    pub(super) fn whole(&self) -> ([bool; LANES], Units) {
        (std::array::from_fn(|axis| self.names(axis)), self.with_slots())
    }

    /// So much and no more, if that can be named: a token total is not less than its parts.
    pub(super) fn exactly(units: &Units) -> Option<Want> {
        let want = Want { set: units.map(|units| (units > 0).then(|| clip(units))) };
        (want.units() == *units).then_some(want)
    }

    /// What a pool remembers of it.
    pub(super) fn again((named, units): ([bool; LANES], Units)) -> Want {
        Want { set: std::array::from_fn(|axis| named[axis].then(|| clip(units[axis]))) }
    }

    pub(super) fn amount(&self) -> Amount {
        let mut amount = Amount::new();
        for (axis, units) in self.set.iter().enumerate() {
            let Some(units) = *units else { continue };
            amount = match axis {
                TOKENS => amount.tokens(units),
                INPUT => amount.input_tokens(units),
                OUTPUT => amount.output_tokens(units),
                REQUESTS => amount.requests(units),
                USD => amount.usd(Usd::from_nanos(units)),
                IN_FLIGHT => amount.in_flight(units),
                _ => amount.with(AXES[axis], units),
            };
        }
        amount
    }
}

pub(super) fn caps_of(set: &Limits) -> Caps {
    let mut caps = Caps::new();
    for (axis, units) in set.iter().enumerate() {
        let Some(units) = *units else { continue };
        caps = match axis {
            TOKENS => caps.tokens(units),
            INPUT => caps.input_tokens(units),
            OUTPUT => caps.output_tokens(units),
            REQUESTS => caps.requests(units),
            USD => caps.usd(Usd::from_nanos(units)),
            IN_FLIGHT => caps.in_flight(units),
            _ => caps.with(AXES[axis], units),
        };
    }
    caps
}

/// Caps are seldom tiny, so that there is something to hold. In flight goes by ones.
pub(super) fn caps_near(figures: &Figures, near: &Units) -> Limits {
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

/// Limits around a figure that matters, for a cap that moves: it may be tiny.
pub(super) fn limits_at(figures: &Figures, near: &Units) -> Limits {
    std::array::from_fn(|axis| figures.names(axis).then(|| figure(figures.raw[axis], near[axis])))
}

pub(super) fn on_drop_of(commits: bool) -> OnDrop {
    if commits { OnDrop::Commit } else { OnDrop::Release }
}

/// Few different ones, so that some of them are at one instant.
pub(super) fn deadline_of(raw: u8) -> Option<Duration> {
    let units = match (raw % 8, raw / 8) {
        (0, 31) => return Some(Duration::MAX),
        (0, 30) => 0,
        (0, some) => 1 + some % 3,
        _ => return None,
    };
    Some(UNIT_OF_TIME * u32::from(units))
}

/// Zero, a moment, around the deadlines, long, for ever.
pub(super) fn ttl_of(raw: u8) -> Duration {
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

/// A window, as a builder is told of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windowed {
    pub(super) kind: Kind,
    pub(super) period: Duration,
    /// The start of a period, if it is given.
    pub(super) start: Option<Nanos>,
    pub(super) carries: bool,
}

impl Windowed {
    /// The turns of a calendar that is built at an instant: a few, some of them twice and in no
    /// order, some of them past; and none if the first would be too late.
    pub(super) fn turns(&self, now: Nanos) -> Vec<Nanos> {
        let (start, period) = (self.start.unwrap_or(now), self.period.as_nanos());
        let many = period % 7;
        let turn = |nth: Nanos| start + (nth * nth + nth) / 2 * period + nth % 3;
        let turns = (0..many).rev().chain([many / 2]).map(turn);
        turns.filter(|turn| *turn < now + YEAR.as_nanos() * 200).collect()
    }
}

/// A window, if any. Its start is before or after `now`.
pub(super) fn window_of(raw: u32, now: Nanos) -> Option<Windowed> {
    if raw % 2 == 0 {
        return None;
    }
    let (kind, carries) = match raw >> 10 & 7 {
        0 if raw >> 1 & 1 == 0 => (Kind::Fixed, false),
        0 | 1 => (Kind::TokenBucket, raw >> 10 & 1 == 1),
        2 | 3 => (Kind::Rolling, raw >> 10 & 1 == 1),
        4 | 5 => (Kind::Fixed, true),
        6 => (Kind::Calendar, false),
        _ => (Kind::Calendar, true),
    };
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
        _ => return Some(Windowed { kind, period, start: None, carries }),
    };
    let start = if raw >> 9 & 1 == 0 { now - away } else { now + away };
    Some(Windowed { kind, period, start: Some(start), carries })
}

/// Few keys for a short time, so that they collide, fill up and are forgotten.
pub(super) fn memory_of(raw: u8) -> Option<(usize, Duration)> {
    (raw % 4 != 0).then(|| ([0, 1, 2, 4][usize::from(raw / 4 % 4)], ttl_of(raw)))
}
