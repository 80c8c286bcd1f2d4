//! One tree of pools as a state machine.

pub(crate) mod expiry;
pub(crate) mod hold;
pub(crate) mod idempotency;
pub(crate) mod lease;
pub(crate) mod ledger;
pub(crate) mod nodes;
pub(crate) mod queue;
