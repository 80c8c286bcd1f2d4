//! [`settle`], which tells the store what the process before had spent by its journal, and
//! [`Settled`], which says what that was.

use budget_pool::Amount;

use crate::driver::quantity;
use crate::error::FleetError;
use crate::journal::Found;
use crate::link::Link;
use crate::protocol::{MOST, Op, REMEMBERED, Request, Told};
use crate::script::{Call, Look};

/// The account of the process before, which its journal settled. From
/// [`Fleet::settled`](crate::Fleet::settled).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Settled {
    /// The name of the member of that process.
    pub member: String,
    /// What it had spent since it joined, `held` included.
    pub spent: Amount,
    /// The holds that were open when it died. They count as spent: their owner may have acted on
    /// them.
    pub held: Amount,
    /// Whether the rest of the grant is free again. It is not where the machine may have been
    /// restarted since, as a restart may lose the last entries of a journal: the store has then
    /// booked `spent`, and the rest stays charged until [`Admin::resolve`](crate::Admin::resolve).
    pub is_exact: bool,
}

/// Has the store book what a journal holds of a member that died. To call it again has no effect.
pub(crate) async fn settle(
    link: &mut Link,
    look: &Look,
    found: &Found,
) -> Result<Settled, FleetError> {
    let (entry, axes) = (&found.entry, &look.axes);
    let spent = entry.lanes.iter().map(|lane| lane.spent.saturating_add(lane.reserved).min(MOST));
    let spent: Vec<u64> = spent.collect();
    let request = |op, run| Request {
        op,
        member: entry.member.clone(),
        // A member that is only told, and not closed, counts as lost at once.
        ttl: 1,
        claim: 1,
        run,
        told: spent.iter().map(|&spent| Told { spent, ..Told::default() }).collect(),
    };
    let op = if found.is_exact { Op::Settle } else { Op::Exchange };
    let run = link.run().await?;
    match link.call(&Call::exchange(axes, &request(op, run.clone()))).await {
        // A store that remembers all since its last answer did not close the member: it lost it, and
        // the spend is not in its books. A member that it has not answered for longer was closed by
        // an operator, or by the rule for the lost: that stands.
        Err(FleetError::NoMember { .. }) => {
            if remembers_all_since(entry.heard, look.now) {
                let farewell = Call::exchange(axes, &request(Op::Farewell, run));
                link.call(&farewell).await?.answer(axes.0.len())?;
            }
        }
        answer => drop(answer?.answer(axes.0.len())?),
    }
    let amount = |units: &mut dyn Iterator<Item = u64>| {
        axes.0.iter().zip(units).map(|(&axis, units)| quantity(axis, units)).collect()
    };
    Ok(Settled {
        member: entry.member.clone(),
        spent: amount(&mut spent.iter().copied()),
        held: amount(&mut entry.lanes.iter().map(|lane| lane.reserved)),
        is_exact: found.is_exact,
    })
}

/// Whether the store still knows, at the instant `now`, every member that it closed since `heard`.
pub(crate) fn remembers_all_since(heard: u64, now: u64) -> bool {
    now.saturating_sub(heard) < REMEMBERED
}
