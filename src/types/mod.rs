//! Plain values: they import nothing from the rest of the crate.

pub(crate) mod amount;
pub(crate) mod axis;
pub(crate) mod error;
pub(crate) mod level;
pub(crate) mod limit;
pub(crate) mod name;
pub(crate) mod on_drop;
pub(crate) mod once;
pub(crate) mod snapshot;
pub(crate) mod usd;
pub(crate) mod want;
