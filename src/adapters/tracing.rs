//! Events of a tree of pools, for a subscriber of `tracing`.

use std::fmt;

use tracing::{debug, warn};

use crate::observer::Observer;
use crate::reservation::Receipt;
use crate::types::axis::{Axis, Quantity};
use crate::types::error::BudgetError;
use crate::types::name::InLine;
use crate::types::on_drop::OnDrop;
use crate::types::snapshot::Holder;

/// An [`Observer`] that writes what happens in a tree of pools as events of `tracing`, with the
/// target `budget_pool`. It is set by [`PoolBuilder::observer`](crate::PoolBuilder::observer).
///
/// | event | level | fields |
/// | --- | --- | --- |
/// | a refusal | `DEBUG` | `pool`, `axis`, `requested`, `available`, `outlook` |
/// | overage, once for each axis | `WARN` | `pool`, `axis`, `requested`, `available` |
/// | a spend of a hold that had expired | `WARN` | `pool`, `amount` |
/// | a hold that expires | `WARN` | `pool`, `amount`, `label` |
/// | a hold that is dropped without a word, and released | `WARN` | `pool`, `amount`, `label` |
///
/// - `axis` and `outlook` are the words of [`Axis::as_str`](crate::Axis::as_str) and
///   [`Outlook::as_str`](crate::Outlook::as_str). `requested`, `available` and `amount` are texts as
///   in a refusal; money is in dollars.
/// - Of overage, `requested` is what the call booked of the axis, and `available` the part of it that
///   fitted.
/// - An event leaves out a field for which it has no figure: a closed pool refuses on no axis.
/// - The message is the text of the refusal, or a sentence of one line with all the figures.
/// - A drop that commits, by [`OnDrop::Commit`], is what the program chose, and writes nothing.
///
/// An event is written without the lock, by the thread that caused it, within its current span. A
/// subscriber may call the pool. One that makes a call which is refused brings about the next event,
/// and so recurses.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, TracingObserver};
///
/// let pool = BudgetPool::builder().name("run-17").tokens(100).observer(TracingObserver).build();
/// // DEBUG budget_pool: tokens of `run-17` exceeded: 120 requested, 100 available, cap 100, will
/// // never fit pool="run-17" axis="tokens" requested=120 available=100 outlook="never"
/// assert!(pool.record(Amount::new().tokens(120)).is_err());
/// // WARN budget_pool: `run-17` is over its cap: 20 of 120 tokens did not fit pool="run-17" ..
/// pool.debit(Amount::new().tokens(120));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct TracingObserver;

impl Observer for TracingObserver {
    fn refused(&self, refusal: &BudgetError) {
        let exceeded = refusal.exceeded();
        debug!(
            target: "budget_pool",
            pool = refusal.pool(),
            axis = refusal.axis().map(Axis::as_str),
            requested = exceeded.map(|exceeded| exceeded.requested().number()).as_deref(),
            available = exceeded.map(|exceeded| exceeded.available().number()).as_deref(),
            outlook = refusal.outlook().as_str(),
            "{refusal}"
        );
    }

    fn overage(&self, pool: &str, receipt: &Receipt) {
        for beyond in receipt.overage().iter().filter(|beyond| beyond.units() > 0) {
            let axis = beyond.axis();
            let booked = Quantity::new(axis, receipt.settled().units(axis));
            let fitted = Quantity::new(axis, booked.units().saturating_sub(beyond.units()));
            warn!(
                target: "budget_pool",
                pool,
                axis = axis.as_str(),
                requested = booked.number().as_str(),
                available = fitted.number().as_str(),
                "`{}` is over its cap: {} of {booked} did not fit",
                InLine(pool),
                beyond.number(),
            );
        }
    }

    fn late(&self, pool: &str, receipt: &Receipt) {
        let amount = receipt.settled();
        warn!(
            target: "budget_pool",
            pool,
            amount = %amount,
            "a hold on `{}` had expired when its spend was told: {amount} booked late",
            InLine(pool),
        );
    }

    fn expired(&self, holder: &Holder) {
        Ended { holder, how: "has expired" }.warn();
    }

    fn dropped(&self, holder: &Holder) {
        if holder.on_drop == OnDrop::Release {
            Ended { holder, how: "was dropped without a word" }.warn();
        }
    }
}

/// A hold whose owner said nothing.
struct Ended<'a> {
    holder: &'a Holder,
    how: &'static str,
}

impl Ended<'_> {
    fn warn(&self) {
        let Holder { pool, label, amount, .. } = self.holder;
        warn!(
            target: "budget_pool",
            pool = &**pool,
            amount = %amount,
            label = label.as_deref(),
            "{self}"
        );
    }
}

impl fmt::Display for Ended<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Holder { pool, label, amount, on_drop, .. } = self.holder;
        let becomes = match on_drop {
            OnDrop::Release => "released",
            OnDrop::Commit => "booked",
        };
        f.write_str("the hold")?;
        if let Some(label) = label {
            write!(f, " `{}`", label.in_line())?;
        }
        write!(f, " on `{}` {}: {amount} {becomes}", pool.in_line(), self.how)
    }
}
