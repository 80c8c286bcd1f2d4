//! The time of one request: how much is left, how much a call may take of it, and how it crosses a
//! process border.

mod budget;
mod builder;
mod call;
mod grpc;
mod rules;
#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod samples;

pub use budget::DeadlineBudget;
pub use builder::{DeadlineBuilder, InvalidDeadline};
pub use call::Call;
pub use grpc::ParseGrpcTimeoutError;
