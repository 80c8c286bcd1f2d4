//! Whether a call that counts once for its key counted now.

/// The effect of a [`record_once`](crate::BudgetPool::record_once) that was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Once {
    /// The key was new: the amount was spent by this call.
    Now,
    /// The key was known: the amount had been spent by an earlier call, and was not spent again.
    Before,
}

impl Once {
    /// Whether this call spent.
    #[must_use]
    pub const fn is_now(self) -> bool {
        matches!(self, Once::Now)
    }
}
