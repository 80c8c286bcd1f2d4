//! What is seen of the real pool, in the model's words.

use std::fmt::{self, Debug};
use std::time::Instant;

use budget_pool::{Amount, BudgetError, Holder, Receipt, Snapshot, Usd};

use super::language::{AXES, Units, Want, each};
use super::oracle::{Booked, Exceeded, Refusal, When};

#[derive(PartialEq, Eq)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) depth: usize,
    pub(super) closed: bool,
    /// Admitted, refused, reservations, waiting.
    pub(super) counts: [u64; 4],
    pub(super) axes: [AxisView; 6],
}

#[derive(PartialEq, Eq)]
pub(super) struct AxisView {
    pub(super) cap: Option<u128>,
    pub(super) used: u128,
    pub(super) reserved: u128,
    pub(super) overage: u128,
    pub(super) available: Option<u128>,
    pub(super) spent: u128,
    pub(super) peak: u128,
}

/// What is held, of which pool, under which label.
pub(super) type HolderView = (Units, String, Option<&'static str>);

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
            counts: [snapshot.admitted, snapshot.refused, snapshot.reservations, snapshot.waiting],
            axes,
        }
    }
}

impl Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let View { name, depth, closed, counts: [admitted, refused, reservations, waiting], axes } =
            self;
        let closed = if *closed { " closed" } else { "" };
        write!(f, "{name} (depth {depth}{closed}, {admitted} admitted, {refused} refused, ")?;
        write!(f, "{reservations} held, {waiting} waiting)")?;
        for (view, axis) in axes.iter().zip(AXES) {
            let AxisView { cap, used, reserved, overage, available, spent, peak } = view;
            if cap.is_some() || spent + peak > 0 {
                write!(
                    f,
                    "\n      {axis:<13}  used {used}, reserved {reserved}, overage {overage}, cap {cap:?}, "
                )?;
                write!(f, "available {available:?}, spent {spent}, peak {peak}")?;
            }
        }
        Ok(())
    }
}

pub(super) fn holder(holder: &Holder) -> HolderView {
    (units_of(holder.amount), holder.pool.to_string(), holder.label)
}

pub(super) fn units_of(amount: Amount) -> Units {
    each(|axis| amount.get(AXES[axis]).map_or(0, |quantity| quantity.units().into()))
}

/// What a receipt says; an error if it is silent on an axis that `actual` names.
pub(super) fn booked(receipt: Receipt, actual: &Want) -> Result<Booked, String> {
    let (settled, overage) = (receipt.settled(), receipt.overage());
    for axis in (0..6).filter(|axis| actual.names(*axis)) {
        let axis = AXES[axis];
        let named = settled.get(axis).is_some() && overage.get(axis).is_some();
        ensure!(
            named,
            "a receipt does not name {axis}: {settled} settled, {overage} of it overage"
        );
    }
    Ok(Booked { settled: units_of(settled), overage: units_of(overage), late: receipt.is_late() })
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
        BudgetError::Queued { pool, .. } => Refusal::Queued { pool: pool.to_string() },
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
        _ => panic!("a refusal that the model does not know: {error}"),
    };
    let retry_after = error.retry_after().map(|after| after.as_nanos());
    let said = (error.axis(), error.pool(), When::of(error.outlook(), nanos), retry_after);
    assert_eq!(said, refusal.summary(), "{error:?}");
    refusal
}
