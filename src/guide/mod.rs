//! The guide: one page for each subject, with examples that are tested.
//!
//! | page | for |
//! | --- | --- |
//! | [`getting_started`] | the first pool, the first hold, the first refusal |
//! | [`agents`] | LLM fan-out: streams, retries, tool calls, cheaper models, calls that are cut off |
//! | [`services`] | HTTP handlers: deadlines, tenants, status codes |
//! | [`threads`] | thread pools: bytes, jobs, `rayon`, leases |
//! | [`waiting`] | lines, fairness and deadlock, with a drawn example |
//! | [`time`] | windows compared, calendars, pauses, TTLs, clocks |
//! | [`trees`] | pools under pools: shared, carved and joint |
//! | [`processes`] | one budget beyond one process |
//! | [`observing`] | snapshots, alerts, logs and metrics |
//! | [`promises`] | the words, and the fine print of the promises |
//! | [`moving`] | from nine other libraries: their calls and ours |
//! | [`questions`] | why one lock, why no `f64`, and whether a pool is a sandbox |

#[doc = include_str!("getting_started.md")]
pub mod getting_started {}

#[doc = include_str!("agents.md")]
pub mod agents {}

#[doc = include_str!("services.md")]
pub mod services {}

#[doc = include_str!("threads.md")]
pub mod threads {}

#[doc = include_str!("waiting.md")]
pub mod waiting {}

#[doc = include_str!("time.md")]
pub mod time {}

#[doc = include_str!("trees.md")]
pub mod trees {}

#[doc = include_str!("processes.md")]
pub mod processes {}

#[doc = include_str!("observing.md")]
pub mod observing {}

#[doc = include_str!("promises.md")]
pub mod promises {}

#[doc = include_str!("moving.md")]
pub mod moving {}

#[doc = include_str!("questions.md")]
pub mod questions {}
