//! The end of a hold whose owner goes away without a word.

/// The rule for the units that a reservation still holds at its drop or its
/// [expiry](crate::Ask::ttl).
///
/// [`PoolBuilder::on_drop`](crate::PoolBuilder::on_drop) sets it for a pool and all below,
/// [`Reservation::on_drop`](crate::Reservation::on_drop) for one hold. Choose
/// [`Commit`](OnDrop::Commit) where the other side bills a call that was begun, whether or not the
/// caller stays to hear the figure: a call to an LLM provider that is cut off is paid for all the
/// same.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, OnDrop};
///
/// let pool = BudgetPool::builder().tokens(1_000).on_drop(OnDrop::Commit).build();
/// drop(pool.reserve(Amount::new().tokens(500))?); // cut off
/// assert_eq!(pool.snapshot().tokens.used, 500);
///
/// pool.reserve(Amount::new().tokens(500))?.release(); // nothing was billed
/// assert_eq!(pool.snapshot().tokens.used, 500);
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnDrop {
    /// The held units go back: nothing was spent.
    #[default]
    Release,
    /// The held units are settled: they were spent.
    Commit,
}
