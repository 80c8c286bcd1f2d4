//! One budget shared by many tasks or threads.

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod amount;
mod axis;
mod clock;
mod error;
mod ledger;
mod pool;
mod reservation;
mod shared;
mod snapshot;
mod sync;
mod tree;
mod usd;

pub use amount::{Amount, Caps};
pub use axis::{Axis, Quantity};
pub use clock::{Clock, ManualClock, SystemClock};
pub use error::{BudgetError, BudgetExceeded, DeadlineExceeded, Outlook};
pub use pool::{BudgetPool, Builder, Carved, Child, Root};
pub use reservation::{CommitRefused, Receipt, Reservation};
pub use snapshot::{AxisSnapshot, Holder, Snapshot, TreeSnapshot};
pub use usd::{ParseUsdError, TryFromF64Error, Usd};
