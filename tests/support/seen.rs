//! What is seen of the real pool, in the model's words.

use std::fmt::{self, Debug};
use std::time::Instant;

use budget_pool::{Amount, Axis, BudgetError, Holder, Limit, Quantity, Receipt, Snapshot};

use super::language::{AXES, LANES, Units, Want, each, without_in_flight};
use super::oracle::{Booked, Exceeded, Nanos, Refusal, When};

#[derive(Clone, PartialEq, Eq)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) depth: usize,
    pub(super) closed: bool,
    pub(super) paused: bool,
    /// Admitted, refused, reservations, waiting.
    pub(super) counts: [u64; 4],
    /// Committed, released, expired.
    pub(super) ended: [u64; 3],
    pub(super) axes: [AxisView; LANES],
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct AxisView {
    pub(super) cap: Option<u128>,
    pub(super) falling_to: Option<u128>,
    pub(super) used: u128,
    pub(super) reserved: u128,
    pub(super) overage: u128,
    pub(super) available: Option<u128>,
    pub(super) spent: u128,
    pub(super) peak: u128,
}

/// One cap on the way up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LimitView {
    pub(super) pool: String,
    pub(super) axis: Axis,
    pub(super) cap: u128,
    pub(super) free: u128,
    pub(super) period: Option<Nanos>,
    pub(super) more_in: Option<Nanos>,
}

impl From<&Limit> for LimitView {
    fn from(limit: &Limit) -> LimitView {
        LimitView {
            pool: limit.pool.to_string(),
            axis: limit.axis(),
            cap: limit.cap.units().into(),
            free: limit.free.units().into(),
            period: limit.period.map(|period| period.as_nanos()),
            more_in: limit.more_in.map(|time| time.as_nanos()),
        }
    }
}

/// What is held, of which pool, under which label.
pub(super) type HolderView = (HeldView, String, Option<String>);

/// In flight apart, if it is named.
pub(super) type HeldView = (Units, Option<u128>);

impl From<&Snapshot> for View {
    fn from(snapshot: &Snapshot) -> View {
        let axes = AXES.map(|axis| {
            let axis = snapshot.axis(axis).expect("a counted axis");
            let units = |quantity: Quantity| u128::from(quantity.units());
            AxisView {
                cap: axis.cap.map(units),
                falling_to: axis.falling_to.map(units),
                used: units(axis.used),
                reserved: units(axis.reserved),
                overage: units(axis.overage),
                available: axis.available.map(units),
                spent: units(axis.spent),
                peak: units(axis.peak),
            }
        });
        View {
            name: snapshot.name.to_string(),
            depth: snapshot.depth,
            closed: snapshot.closed,
            paused: snapshot.paused_until.is_some(),
            counts: [snapshot.admitted, snapshot.refused, snapshot.reservations, snapshot.waiting],
            ended: [snapshot.committed, snapshot.released, snapshot.expired],
            axes,
        }
    }
}

impl Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let View { name, depth, closed, paused, counts, ended, axes } = self;
        let [admitted, refused, reservations, waiting] = counts;
        let [committed, released, expired] = ended;
        let closed = if *closed { " closed" } else { "" };
        let paused = if *paused { " paused" } else { "" };
        write!(
            f,
            "{name} (depth {depth}{closed}{paused}, {admitted} admitted, {refused} refused, "
        )?;
        write!(f, "{reservations} held, {waiting} waiting, {committed} committed, ")?;
        write!(f, "{released} released, {expired} expired)")?;
        for (view, axis) in axes.iter().zip(AXES) {
            let AxisView { cap, falling_to, used, reserved, overage, available, spent, peak } =
                view;
            if cap.is_some() || spent + peak > 0 {
                write!(f, "\n      {axis:<13}  used {used}, reserved {reserved}, ")?;
                write!(f, "overage {overage}, cap {cap:?}, falling to {falling_to:?}, ")?;
                write!(f, "available {available:?}, spent {spent}, peak {peak}")?;
            }
        }
        Ok(())
    }
}

pub(super) fn holder(holder: &Holder) -> HolderView {
    let label = holder.label.as_ref().map(ToString::to_string);
    (held(holder.amount), holder.pool.to_string(), label)
}

pub(super) fn units_of(amount: Amount) -> Units {
    each(|axis| amount.get(AXES[axis]).map_or(0, |quantity| quantity.units().into()))
}

/// What is held. In flight is not named by a hold that has one, nor by a lease, which has none.
pub(super) fn held(amount: Amount) -> HeldView {
    let slots = amount.get(Axis::InFlight).map(|slots| u128::from(slots.units()));
    (without_in_flight(units_of(amount)), slots)
}

/// What a receipt says; an error if it is silent on an axis that `actual` names. An axis is settled
/// or credited.
pub(super) fn booked(receipt: Receipt, actual: &Want) -> Result<Booked, String> {
    let (settled, overage, credited) = (receipt.settled(), receipt.overage(), receipt.credited());
    for axis in (0..LANES).filter(|axis| actual.named()[*axis]) {
        let axis = AXES[axis];
        let is_settled = settled.get(axis).is_some() && overage.get(axis).is_some();
        ensure!(
            is_settled != credited.get(axis).is_some(),
            "a receipt does not name {axis} once: {settled} settled, {overage} of it overage, \
             {credited} credited"
        );
    }
    Ok(unnamed(receipt))
}

/// What a receipt says, whichever axes it names.
pub(super) fn unnamed(receipt: Receipt) -> Booked {
    Booked {
        settled: units_of(receipt.settled()),
        credited: units_of(receipt.credited()),
        overage: units_of(receipt.overage()),
        late: receipt.is_late(),
    }
}

/// A refusal, with instants since `origin`. What an error says of itself by its methods is the
/// same.
pub(super) fn refusal(error: &BudgetError, origin: Instant) -> Refusal {
    let nanos = |at: Instant| at.duration_since(origin).as_nanos();
    let refusal = match error {
        BudgetError::Exceeded(exceeded) => Refusal::Exceeded(Exceeded {
            axis: exceeded.axis(),
            requested: exceeded.requested().units().into(),
            available: exceeded.available().units().into(),
            cap: exceeded.cap().map(|cap| cap.units().into()),
            pool: exceeded.pool().to_owned(),
            outlook: When::of(exceeded.outlook(), nanos),
            retry_after: exceeded.retry_after().map(|after| after.as_nanos()),
        }),
        BudgetError::DeadlineExceeded(late) => Refusal::Late {
            pool: late.pool().unwrap_or("no pool").to_owned(),
            budget: late.budget(),
            elapsed: late.elapsed(),
            needed: late.needed(),
        },
        BudgetError::Paused { pool, until, outlook, retry_after, .. } => Refusal::Paused {
            pool: pool.to_string(),
            until: nanos(*until),
            outlook: When::of(*outlook, nanos),
            retry_after: retry_after.map(|after| after.as_nanos()),
        },
        BudgetError::Queued { pool, .. } => Refusal::Queued { pool: pool.to_string() },
        BudgetError::QueueFull { pool, most, .. } => {
            Refusal::QueueFull { pool: pool.to_string(), most: *most }
        }
        BudgetError::Closed { pool, .. } => Refusal::Closed { pool: pool.to_string() },
        BudgetError::Expired { pool, .. } => Refusal::Expired { pool: pool.to_string() },
        BudgetError::KeyConflict { pool, key, .. } => {
            Refusal::KeyConflict { pool: pool.to_string(), key: key.to_string() }
        }
        BudgetError::KeysFull { pool, capacity, outlook, retry_after, .. } => Refusal::KeysFull {
            pool: pool.to_string(),
            most: *capacity,
            outlook: When::of(*outlook, nanos),
            retry_after: retry_after.map(|after| after.as_nanos()),
        },
        BudgetError::CarvedWindow { pool, .. } => Refusal::CarvedWindow { pool: pool.to_string() },
        BudgetError::NoParent { .. } => Refusal::NoParent,
        BudgetError::Carved { pool, .. } => Refusal::Carved { pool: pool.to_string() },
        BudgetError::ForeignPool { pool, .. } => Refusal::ForeignPool { pool: pool.to_string() },
        BudgetError::Uncapped { pool, axis, .. } => {
            Refusal::Uncapped { pool: pool.to_string(), axis: *axis }
        }
        BudgetError::Timeout { pool, waited, refusal, .. } => Refusal::Timeout {
            pool: pool.to_string(),
            waited: *waited,
            refusal: Box::new(self::refusal(refusal, origin)),
        },
        _ => panic!("a refusal that the model does not know: {error}"),
    };
    let retry_after = error.retry_after().map(|after| after.as_nanos());
    let said = (error.axis(), error.pool(), When::of(error.outlook(), nanos), retry_after);
    assert_eq!(said, refusal.summary(), "{error:?}");
    refusal
}
