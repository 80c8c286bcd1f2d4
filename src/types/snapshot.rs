//! The view of a pool from outside.

use std::fmt;
use std::ops::Deref;
use std::time::{Duration, Instant};

use crate::types::amount::Amount;
use crate::types::axis::{Axis, Labels, Quantity, lane};
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;
use crate::types::usd::Usd;

/// The balances of an axis of a pool at one instant. `used + reserved` is never above `cap` (P1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct AxisSnapshot<T> {
    /// The most that may be used plus reserved; `None` = unlimited.
    pub cap: Option<T>,
    /// Settled spend of this period that fits under the cap.
    pub used: T,
    /// Promised to live owners (P3).
    pub reserved: T,
    /// Real spend of this period that did not fit under the cap. The true spend is `used +
    /// overage` (P2).
    pub overage: T,
    /// The units that can really be spent now: the least that is free in this pool and in those
    /// above it, up to the nearest carve. `None` = unlimited. It is a matter of balances alone: a
    /// closed or late pool refuses all the same.
    pub available: Option<T>,
    /// All debits and commits since the pool was built, less the credits.
    pub spent: T,
    /// The most that `used + reserved` has been in this period. A hold that has expired may count
    /// until it is reclaimed.
    pub peak: T,
    /// The cap that was [set](crate::BudgetPool::set_caps), where more than that is reserved still:
    /// `cap` falls towards it as holds end, and nothing is available until it has. `None` where
    /// the cap is the one that was set.
    pub falling_to: Option<T>,
}

impl AxisSnapshot<u64> {
    /// Of an axis that has no cap and was never used.
    pub(crate) const NOTHING: AxisSnapshot<u64> = AxisSnapshot {
        cap: None,
        used: 0,
        reserved: 0,
        overage: 0,
        available: None,
        spent: 0,
        peak: 0,
        falling_to: None,
    };

    /// The units that are neither used nor reserved; `None` = unlimited.
    pub(crate) fn free(&self) -> Option<u64> {
        let free = |cap: u64| cap.checked_sub(self.used)?.checked_sub(self.reserved);
        self.cap.map(|cap| free(cap).expect("what is taken is within the cap"))
    }
}

impl<T: Copy> AxisSnapshot<T> {
    #[inline]
    fn map<U>(self, f: impl Fn(T) -> U) -> AxisSnapshot<U> {
        AxisSnapshot {
            cap: self.cap.map(&f),
            used: f(self.used),
            reserved: f(self.reserved),
            overage: f(self.overage),
            available: self.available.map(&f),
            spent: f(self.spent),
            peak: f(self.peak),
            falling_to: self.falling_to.map(&f),
        }
    }
}

/// A pool at one instant that really existed (P5).
///
/// It is not promised to be the present one: by the time it is read, others may have spent. To be
/// sure of a spend, ask for it with [`record`](crate::BudgetPool::record) or
/// [`reserve`](crate::BudgetPool::reserve).
///
/// `Display` is a small table of the axes that have a cap or were used:
///
/// ```
/// use budget_pool::{Amount, BudgetPool};
///
/// let pool = BudgetPool::builder().name("run-17").tokens(1_000).build();
/// let hold = pool.reserve(Amount::new().tokens(300)).unwrap();
/// pool.record(Amount::new().tokens(500)).unwrap();
///
/// assert_eq!(
///     pool.snapshot().to_string(),
///     "run-17: 2 admitted, 0 refused, 1 reservation\n\
///      axis       used  reserved  available   cap  peak  overage  spent\n\
///      tokens      500       300        200  1000   800        0    500\n\
///      in flight     0         1          -     -     1        0      0\n"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Snapshot {
    /// The pool's name.
    pub name: Name,
    /// How many levels it is below the pool that the snapshot was taken of.
    pub depth: usize,
    /// All tokens.
    pub tokens: AxisSnapshot<u64>,
    /// Input tokens.
    pub input_tokens: AxisSnapshot<u64>,
    /// Output tokens.
    pub output_tokens: AxisSnapshot<u64>,
    /// Requests.
    pub requests: AxisSnapshot<u64>,
    /// Money.
    pub usd: AxisSnapshot<Usd>,
    /// The slots of live reservations, and the in-flight caps that are carved out for children.
    pub in_flight: AxisSnapshot<u64>,
    /// The user's own axes, by their index. [`axis`](Snapshot::axis) finds one by its constant.
    pub custom: [AxisSnapshot<u64>; 4],
    /// The calls that asked for capacity and were admitted, on this pool and on those below it:
    /// `record`, `record_once` once for a key, `reserve`, a wait that was granted, a reservation's
    /// `record`, `grow` and `split`, a lease's `record` that its share does not cover, and the ask
    /// of a carved child that is built or whose caps rise.
    pub admitted: u64,
    /// The calls of the same kinds that were refused, those with
    /// [`Timeout`](crate::BudgetError::Timeout) and [`NoTimer`](crate::BudgetError::NoTimer)
    /// included. These are not counted: a wait that its owner dropped, a strict commit, a key that
    /// stands for another amount, a call on an expired hold, more than a reservation holds, more
    /// than a cap can rise or fall by, a cap of a closed pool, a transfer, and a pool that is refused
    /// with [`CarvedWindow`](crate::BudgetError::CarvedWindow) or
    /// [`Carved`](crate::BudgetError::Carved).
    pub refused: u64,
    /// Live reservations, on this pool and on those below it.
    pub reservations: u64,
    /// Reservations that ended in a commit, on this pool and on those below it: by their owner, or
    /// by a drop that [commits](crate::OnDrop::Commit). Each reservation that ends is counted in
    /// exactly one of `committed`, `released` and `expired`; one that was
    /// [merged](crate::Reservation::merge) into another goes on in that.
    pub committed: u64,
    /// Reservations that ended without one, on this pool and on those below it: released by their
    /// owner, or by a drop. Parts that were [debited](crate::Reservation::debit) before stay spent.
    /// Many of them may be commits that were forgotten.
    pub released: u64,
    /// Reservations whose time ran out, on this pool and on those below it, whether the expiry
    /// [released or committed](crate::OnDrop) the held units.
    pub expired: u64,
    /// The waiters, on this pool and on those below it.
    pub waiting: u64,
    /// Whether this pool, or one above it, was closed.
    pub closed: bool,
    /// Until when this pool, or one above it, is [paused](crate::BudgetPool::pause); `None` if
    /// neither is.
    pub paused_until: Option<Instant>,
    labels: Labels,
}

/// The counts of events, on a pool and on those below it. [`Snapshot`] says what each counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) admitted: u64,
    pub(crate) refused: u64,
    pub(crate) reservations: u64,
    pub(crate) committed: u64,
    pub(crate) released: u64,
    pub(crate) expired: u64,
}

/// Whether a pool admits, and the number of its waiters.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Standing {
    pub(crate) closed: bool,
    pub(crate) paused_until: Option<Instant>,
    pub(crate) waiting: u64,
}

impl Counts {
    pub(crate) const NONE: Counts =
        Counts { admitted: 0, refused: 0, reservations: 0, committed: 0, released: 0, expired: 0 };
}

impl Snapshot {
    /// Of no pool, as of one on which no axis has a cap or was used: a place for another. The parts
    /// of that are written into it one by one, where its owner wants it: to make it elsewhere and to
    /// move it would cost as much as the rest.
    pub(crate) fn nothing() -> Snapshot {
        let Counts { admitted, refused, reservations, committed, released, expired } = Counts::NONE;
        let Standing { closed, paused_until, waiting } = Standing::default();
        Snapshot {
            name: Name::DEFAULT,
            depth: 0,
            tokens: AxisSnapshot::NOTHING,
            input_tokens: AxisSnapshot::NOTHING,
            output_tokens: AxisSnapshot::NOTHING,
            requests: AxisSnapshot::NOTHING,
            usd: AxisSnapshot::NOTHING.map(Usd::from_nanos),
            in_flight: AxisSnapshot::NOTHING,
            custom: [AxisSnapshot::NOTHING; Axis::CUSTOM],
            admitted,
            refused,
            reservations,
            committed,
            released,
            expired,
            waiting,
            closed,
            paused_until,
            labels: Labels::NONE,
        }
    }

    /// Writes all but the balances.
    #[inline]
    pub(crate) fn set_pool(
        &mut self,
        name: Name,
        Standing { closed, paused_until, waiting }: Standing,
        Counts { admitted, refused, reservations, committed, released, expired }: &Counts,
        labels: &Labels,
    ) {
        self.name = name;
        self.admitted = *admitted;
        self.refused = *refused;
        self.reservations = *reservations;
        self.committed = *committed;
        self.released = *released;
        self.expired = *expired;
        self.waiting = waiting;
        self.closed = closed;
        self.paused_until = paused_until;
        self.labels = *labels;
    }

    /// Writes the balances of the axis at a place of [`Units`](crate::types::axis::Units).
    #[inline]
    pub(crate) fn set_axis(&mut self, lane: usize, balances: AxisSnapshot<u64>) {
        match lane {
            lane::TOKENS => self.tokens = balances,
            lane::INPUT_TOKENS => self.input_tokens = balances,
            lane::OUTPUT_TOKENS => self.output_tokens = balances,
            lane::REQUESTS => self.requests = balances,
            lane::USD => self.usd = balances.map(Usd::from_nanos),
            lane::IN_FLIGHT => self.in_flight = balances,
            custom => self.custom[custom - Axis::FIRST_CUSTOM] = balances,
        }
    }

    /// The balances of an axis, for code that loops over them; `None` for [`Axis::Deadline`], which
    /// is not counted.
    #[must_use]
    pub fn axis(&self, axis: Axis) -> Option<AxisSnapshot<Quantity>> {
        let count =
            |snapshot: AxisSnapshot<u64>| Some(snapshot.map(|units| Quantity::new(axis, units)));
        match axis {
            Axis::Tokens => count(self.tokens),
            Axis::InputTokens => count(self.input_tokens),
            Axis::OutputTokens => count(self.output_tokens),
            Axis::Requests => count(self.requests),
            Axis::Usd => count(self.usd.map(Usd::as_nanos)),
            Axis::InFlight => count(self.in_flight),
            Axis::Custom(custom) => count(self.custom[usize::from(custom.index())]),
            Axis::Deadline => None,
        }
    }

    /// All counted axes, in declared order.
    pub fn axes(&self) -> impl Iterator<Item = (Axis, AxisSnapshot<Quantity>)> {
        self.labels.counted().filter_map(|axis| Some((axis, self.axis(axis)?)))
    }
}

const COLUMNS: [&str; 8] =
    ["axis", "used", "reserved", "available", "cap", "peak", "overage", "spent"];

fn row(axis: Axis, snapshot: AxisSnapshot<Quantity>) -> [String; COLUMNS.len()] {
    let optional =
        |quantity: Option<Quantity>| quantity.map_or_else(|| "-".to_owned(), Quantity::number);
    [
        axis.to_string(),
        snapshot.used.number(),
        snapshot.reserved.number(),
        optional(snapshot.available),
        falling(optional(snapshot.cap), snapshot.falling_to),
        snapshot.peak.number(),
        snapshot.overage.number(),
        snapshot.spent.number(),
    ]
}

/// A cap that is on its way to another: `8 to 4`.
fn falling(cap: String, falling_to: Option<Quantity>) -> String {
    falling_to.map_or(cap.clone(), |goal| format!("{cap} to {}", goal.number()))
}

/// Whether an axis has a cap, or has been used.
pub(crate) fn is_in_play(snapshot: &AxisSnapshot<Quantity>) -> bool {
    snapshot.cap.is_some() || snapshot.peak.units() > 0 || snapshot.spent.units() > 0
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match (self.closed, self.paused_until) {
            (true, _) => " (closed)",
            (false, Some(_)) => " (paused)",
            (false, None) => "",
        };
        let plural = if self.reservations == 1 { "" } else { "s" };
        let Snapshot { admitted, refused, reservations, .. } = self;
        let name = self.name.in_line();
        let indent = "  ".repeat(self.depth.min(20));
        write!(
            f,
            "{indent}{name}{state}: {admitted} admitted, {refused} refused, {reservations} reservation{plural}"
        )?;
        let others = [
            (self.waiting, "waiting"),
            (self.committed, "committed"),
            (self.released, "released"),
            (self.expired, "expired"),
        ];
        for (count, what) in others.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, ", {count} {what}")?;
        }
        writeln!(f)?;

        let header = COLUMNS.map(str::to_owned);
        let rows = self
            .axes()
            .filter(|(_, snapshot)| is_in_play(snapshot))
            .map(|(axis, snapshot)| row(axis, snapshot));
        let table: Vec<_> = std::iter::once(header).chain(rows).collect();
        let width =
            |column: usize| table.iter().map(|row| row[column].len()).max().unwrap_or_default();
        let widths: [usize; COLUMNS.len()] = std::array::from_fn(width);
        for row in table.iter().filter(|_| table.len() > 1) {
            write!(f, "{indent}{:<width$}", row[0], width = widths[0])?;
            for (cell, width) in row.iter().zip(widths).skip(1) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A pool and all those below it, at one and the same instant (P5): parents before their children,
/// as a slice of [`Snapshot`]s, each with its depth. The order among children is not promised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TreeSnapshot {
    pools: Vec<Snapshot>,
}

impl TreeSnapshot {
    pub(crate) fn new(pools: Vec<Snapshot>) -> TreeSnapshot {
        TreeSnapshot { pools }
    }
}

impl Deref for TreeSnapshot {
    type Target = [Snapshot];

    fn deref(&self) -> &[Snapshot] {
        &self.pools
    }
}

impl<'a> IntoIterator for &'a TreeSnapshot {
    type Item = &'a Snapshot;
    type IntoIter = std::slice::Iter<'a, Snapshot>;

    fn into_iter(self) -> Self::IntoIter {
        self.pools.iter()
    }
}

impl IntoIterator for TreeSnapshot {
    type Item = Snapshot;
    type IntoIter = std::vec::IntoIter<Snapshot>;

    fn into_iter(self) -> Self::IntoIter {
        self.pools.into_iter()
    }
}

/// A table for each pool, indented by depth.
impl fmt::Display for TreeSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pools.iter().try_for_each(|pool| pool.fmt(f))
    }
}

/// The owner of held units, and since when: one live [`Reservation`](crate::Reservation) or
/// [`Lease`](crate::Lease), or a wait whose grant nobody has come for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Holder {
    /// The name of the pool that it was made on.
    pub pool: Name,
    /// The [label](crate::Reservation::label) of the hold, if it has one.
    pub label: Option<Name>,
    /// The units that it still holds.
    pub amount: Amount,
    /// When it was made, by the pool's clock; `None` where the call that made it had no reason to
    /// read the clock (P8).
    pub since: Option<Instant>,
    /// The time until it [expires](crate::Ask::ttl); `None` if it does not.
    pub expires_in: Option<Duration>,
    /// What a drop or an expiry does with it.
    pub on_drop: OnDrop,
}
