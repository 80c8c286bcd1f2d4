//! What becomes of a hold whose owner goes away without a word.

/// What a drop, or an [expiry](crate::Ask::ttl), does with what a reservation still
/// holds.
///
/// [`PoolBuilder::on_drop`](crate::PoolBuilder::on_drop) sets it for a pool and all below,
/// [`Reservation::on_drop`](crate::Reservation::on_drop) for one hold. Choose
/// [`Commit`](OnDrop::Commit) where the other side bills what was begun, whether or not the caller
/// stays to hear the figure: a call to an LLM provider that is cut off is paid for all the same.
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
    /// What is held goes back: nothing was spent.
    #[default]
    Release,
    /// What is held is settled: it was spent.
    Commit,
}
