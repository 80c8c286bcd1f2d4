//! A look inside: what a tree derives agrees with what it derives it from.

use budget_pool::BudgetPool;

/// Asserts it of the whole tree of a pool, in builds with debug assertions: others have no such
/// look. It reads no clock, and changes nothing.
pub fn check_invariants(pool: &BudgetPool) {
    #[cfg(debug_assertions)]
    pool.check_invariants();
    #[cfg(not(debug_assertions))]
    let _ = pool;
}
