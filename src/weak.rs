//! A handle that does not keep its pool.

use std::fmt;
use std::sync::Weak;

use crate::handle::Handle;
use crate::pool::BudgetPool;
use crate::sync::upgrade;

/// A handle that does not keep its pool alive, from [`BudgetPool::downgrade`]: for a registry of
/// pools, or a task that watches one.
///
/// ```
/// use budget_pool::BudgetPool;
///
/// let pool = BudgetPool::unlimited();
/// let weak = pool.downgrade();
/// assert!(weak.upgrade().is_some_and(|same| same.ptr_eq(&pool)));
/// drop(pool);
/// assert!(weak.upgrade().is_none());
/// ```
#[derive(Clone, Default)]
pub struct WeakPool(Weak<Handle>);

impl WeakPool {
    pub(crate) fn new(handle: Weak<Handle>) -> WeakPool {
        WeakPool(handle)
    }

    /// Refers to no pool: [`upgrade`](WeakPool::upgrade) gives `None`.
    ///
    /// ```
    /// # use budget_pool::WeakPool;
    /// assert!(WeakPool::dangling().upgrade().is_none());
    /// ```
    #[must_use]
    pub const fn dangling() -> WeakPool {
        WeakPool(Weak::new())
    }

    /// The pool, if anything still keeps it: a handle, a [`Reservation`](crate::Reservation), a
    /// [`Lease`](crate::Lease), a [`Wait`](crate::Wait), a [`Closed`](crate::Closed), a
    /// [`Reached`](crate::Reached), a [`Wants`](crate::Wants), the builder of a child or of a joint
    /// pool. A child alone keeps the balances of the pools above it,
    /// and no handle to them.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::unlimited();
    /// let weak = pool.downgrade();
    /// assert!(weak.upgrade().is_some_and(|same| same.ptr_eq(&pool)));
    /// ```
    #[must_use]
    pub fn upgrade(&self) -> Option<BudgetPool> {
        upgrade(&self.0).map(BudgetPool::from_handle)
    }

    /// Whether both refer to the same pool, or both to none.
    ///
    /// ```
    /// # use budget_pool::BudgetPool;
    /// let pool = BudgetPool::unlimited();
    /// assert!(pool.downgrade().ptr_eq(&pool.downgrade()));
    /// ```
    #[must_use]
    pub fn ptr_eq(&self, other: &WeakPool) -> bool {
        self.0.ptr_eq(&other.0)
    }
}

impl fmt::Debug for WeakPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeakPool").finish_non_exhaustive()
    }
}
