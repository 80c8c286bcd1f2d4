//! The shortage of a pool.

use crate::types::amount::Amount;

/// The shortage of a pool, from [`BudgetPool::wants`](crate::BudgetPool::wants): for whoever funds
/// it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Want {
    /// By how much the caps of this pool would have to rise at that instant, axis by axis: the
    /// greatest of
    ///
    /// - the units that would make [`PoolBuilder::low`](crate::PoolBuilder::low) free, if less is
    ///   free;
    /// - the units that a call lacked here that was refused with
    ///   [`AfterFunding`](crate::Outlook::AfterFunding) in the transition that is told of;
    /// - the units that the first waiter lacks here that is blocked here, and that only a higher
    ///   cap of this pool can serve.
    ///
    /// Of a refused call and of a waiter those axes count that only a higher cap makes room on. The
    /// `overage` of an axis is part of the figure, as new room pays the overage first, and so is
    /// the rest of a [falling](crate::AxisSnapshot::falling_to) cap. The ceiling does not bound the
    /// figure. Axes on which nothing is missing are not named.
    ///
    /// [`Caps`](crate::Caps) to raise are had by `want.missing.into_iter().collect()`.
    pub missing: Amount,
    /// Whether less is free than [`PoolBuilder::low`](crate::PoolBuilder::low).
    pub low: bool,
}
