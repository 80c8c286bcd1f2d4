//! One cap on the way up, as it is told to a caller.

use std::time::Duration;

use crate::types::axis::{Axis, Quantity};
use crate::types::name::Name;

/// One cap that counts for a pool: its own, or that of a pool above it. From
/// [`BudgetPool::limits`](crate::BudgetPool::limits), for those that tell their callers what is left,
/// in headers or on a page.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limit {
    /// The name of the pool that has the cap.
    pub pool: Name,
    /// The cap.
    pub cap: Quantity,
    /// What is free under this one cap. What a caller can spend is the least of all limits.
    pub free: Quantity,
    /// The period of the pool's [window](crate::Window). `None` where it has none, for a calendar,
    /// whose periods differ, and for [`InFlight`](Axis::InFlight), which no window brings back.
    pub period: Option<Duration>,
    /// How long until time alone frees more under this cap. `None` where it does not: nothing is
    /// used, or only a release helps.
    pub more_in: Option<Duration>,
}

impl Limit {
    /// The axis of the cap.
    #[must_use]
    pub fn axis(&self) -> Axis {
        self.cap.axis()
    }
}
