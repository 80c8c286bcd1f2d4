//! One budget shared by many tasks or threads, on several axes at once (tokens, dollars, requests,
//! in flight, time): never over its caps, never losing a spend.
//!
//! ```
//! use std::time::Duration;
//! use budget_pool::{Amount, BudgetPool, OnDrop, Usd};
//!
//! # struct Reply { input: u64, output: u64, dollars: f64 }
//! # #[derive(Debug, thiserror::Error)] #[error("the call failed")] struct Failure { is_billed: bool }
//! # fn call_llm(_: &str, _: Option<Duration>) -> Result<Reply, Failure> {
//! #     Ok(Reply { input: 1_480, output: 212, dollars: 0.00762 })
//! # }
//! let pool = BudgetPool::builder()
//!     .name("run-17")
//!     .tokens(1_000_000)
//!     .usd("10.00".parse()?)
//!     .deadline(Duration::from_secs(60))
//!     .on_drop(OnDrop::Commit) // a call that is cut off is billed all the same
//!     .build();
//!
//! // Hold the most that the call can cost. A `?`, a panic or a drop below books it.
//! let most = Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_cents(1));
//! let hold = pool.reserve(most)?;
//! let reply = match call_llm("...", hold.time_left()) {
//!     Err(failure) if !failure.is_billed => {
//!         hold.release(); // the provider bills no 429
//!         return Err(failure.into());
//!     }
//!     reply => reply?,
//! };
//! // Settle the real figures.
//! let cost = Usd::try_from_dollars_f64(reply.dollars)?;
//! hold.commit(Amount::new().input_tokens(reply.input).output_tokens(reply.output).usd(cost));
//!
//! assert_eq!(pool.snapshot().usd.used.to_string(), "0.00762");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`BudgetPool`] is a handle: clone it into every task. The core has no I/O, no background
//! thread, no required runtime and no `unsafe`.
//!
//! # Four next steps
//!
//! **Fan out.** Each agent has a [child pool](BudgetPool::child), and each spend is charged to the
//! agent and to the run, or to neither.
//!
//! ```
//! use budget_pool::{Amount, BudgetPool};
//!
//! let run = BudgetPool::builder().name("run").tokens(1_000).build();
//! let agent = run.child().name("agent").tokens(600).build();
//! agent.record(Amount::new().tokens(500))?;
//! assert_eq!(run.snapshot().tokens.used, 500);
//! assert_eq!(agent.record(Amount::new().tokens(200)).unwrap_err().pool(), "agent");
//! # Ok::<(), budget_pool::BudgetError>(())
//! ```
//!
//! **Wait in line.** A waiter is served first come, first served, by a future
//! ([`reserve_wait`](BudgetPool::reserve_wait)) or on a parked thread.
//!
//! ```
//! # use budget_pool::{Amount, BudgetPool};
//! let slots = BudgetPool::builder().in_flight(2).build();
//! std::thread::scope(|scope| {
//!     for _job in 0..8 {
//!         scope.spawn(|| slots.reserve_blocking(Amount::new()).map(|slot| slot.release()));
//!     }
//! });
//! assert_eq!(slots.snapshot().released, 8);
//! ```
//!
//! **Finish by a deadline.** A [`DeadlineBudget`] gives each call of a request its timeout, and a
//! pool refuses new work after it.
//!
//! ```
//! # use std::time::Duration;
//! # use budget_pool::{BudgetPool, DeadlineBudget};
//! let request = DeadlineBudget::builder()
//!     .total(Duration::from_secs(10))
//!     .call_cap("search", Duration::from_secs(2))
//!     .build()?;
//! assert_eq!(request.timeout_for("search")?, Duration::from_secs(2));
//! let pool = BudgetPool::builder().requests(3).deadline(request).build();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! **Keep a rate.** A [`Window`] lets the caps come back, and a refusal names the instant.
//!
//! ```
//! # use std::time::Duration;
//! # use budget_pool::{Amount, BudgetPool, Window};
//! let minute = Window::rolling(Duration::from_secs(60));
//! let rate = BudgetPool::builder().requests(100).window(minute).build();
//! rate.record(Amount::new().requests(100))?;
//! let refused = rate.record(Amount::new().requests(1)).unwrap_err();
//! assert!(refused.retry_after() > Some(Duration::from_secs(59)));
//! # Ok::<(), budget_pool::BudgetError>(())
//! ```
//!
//! # Promises
//!
//! *Admission* may be refused: [`record`](BudgetPool::record), [`reserve`](BudgetPool::reserve), a
//! wait. *Accounting* never is: [`commit`](Reservation::commit), [`debit`](BudgetPool::debit),
//! [`credit`](BudgetPool::credit), a drop. `cargo test p1_` runs the tests of P1.
//!
//! | | promise |
//! | --- | --- |
//! | **P1** | *Cap.* `used + reserved <= cap` at every instant, on every axis of every pool. One call spends on all its axes in all its pools, or on none. |
//! | **P2** | *Nothing lost.* A spend that the pool is told of is booked. The part that does not fit is `overage`, and new capacity pays it first. |
//! | **P3** | *No leak.* Each reserved unit has one live owner. Drop, panic, cancellation and expiry release it or book it, once, as [`OnDrop`] says. |
//! | **P4** | *No false refusal.* A call that fits is admitted, unless a call with which it [competes](guide::waiting#who-competes) waits. |
//! | **P5** | *One instant.* A [`Snapshot`], of a pool or of a tree, is one state that existed. |
//! | **P6** | *Fair waiting.* Waiters that compete are served in their order, and no new call passes them. A hopeless waiter is refused. |
//! | **P7** | *Clear refusals.* A [`BudgetError`] names axis, pool, figures and [`Outlook`], and nothing has changed. |
//! | **P8** | *Time only when asked.* The clock is read where a deadline, a window, a pause or a TTL makes it matter, or a call takes a time or a key. |
//!
//! The page [`guide::promises`] has the words and the fine print: consistency, a hold's ends, large
//! numbers. A budget is cooperative: it [is no sandbox](guide::questions).
//!
//! # Where to go on
//!
//! | for | see |
//! | --- | --- |
//! | LLM agents, HTTP services, thread pools | [`guide::agents`], [`guide::services`], [`guide::threads`] |
//! | lines, windows, trees | [`guide::waiting`], [`guide::time`], [`guide::trees`] |
//! | alternatives in one ask | [`Ask`] |
//! | one pool for each tenant | [`Keyed`] |
//! | a hot loop that should take no lock | [`Lease`] |
//! | alerts, logs, metrics | [`BudgetPool::reached`], [`Observer`], [`guide::observing`] |
//! | code that uses another library today | [`guide::moving`] |
//! | several processes | [`guide::processes`], `budget-pool-redis` |
//! | prices of LLM calls, layers for HTTP services | `budget-pool-llm`, `budget-pool-tower` |
//!
//! # Features and versions
//!
//! No feature is on by default. The minimum supported Rust version is 1.85; a rise is a minor
//! release. Every feature keeps it.
//!
//! | feature | what it brings |
//! | --- | --- |
//! | `serde` | amounts, caps, windows, levels and axes from and to text and bytes; snapshots, limits, receipts and refusals to them; `flatten` and tagged enums read text formats alone |
//! | `metrics` | `Exporter`: the figures of a tree of pools for Prometheus and its kin, pulled |
//! | `tokio` | `PoolBuilder::tokio`: timer and clock by the runtime; waits and watches take part in the cooperative budget of its tasks |
//! | `tracing` | `TracingObserver`: refusals, overage, expiries, late spends and forgotten holds as events |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod adapters;
mod ask;
mod builder;
mod engine;
#[cfg(any(doc, doctest))]
pub mod guide;
mod handle;
mod keyed;
mod lease;
mod observer;
mod pool;
mod reservation;
mod run;
mod sync;
#[cfg(all(test, any(budget_pool_loom, budget_pool_shuttle)))]
mod tests;
mod time;
mod types;
mod wait;
mod watch;
mod weak;

#[cfg(feature = "metrics")]
pub use adapters::metrics::Exporter;
#[cfg(feature = "tracing")]
pub use adapters::tracing::TracingObserver;
pub use ask::Ask;
pub use builder::{Carved, Child, Joint, PoolBuilder, PoolDeadline, Root};
pub use keyed::Keyed;
pub use lease::Lease;
pub use observer::Observer;
pub use pool::BudgetPool;
pub use reservation::{CommitRefused, MergeRefused, Receipt, Reservation};
pub use time::clock::{Clock, ManualClock, SystemClock};
pub use time::deadline::{
    Call, DeadlineBudget, DeadlineBuilder, InvalidDeadline, ParseGrpcTimeoutError,
};
pub use time::window::Window;
pub use types::amount::{Amount, Caps, QuantityIter};
pub use types::axis::{Axis, CustomAxis, ParseAxisError, Quantity};
pub use types::error::{BudgetError, BudgetExceeded, DeadlineExceeded, Outlook};
pub use types::level::Level;
pub use types::limit::Limit;
pub use types::name::Name;
pub use types::on_drop::OnDrop;
pub use types::once::Once;
pub use types::snapshot::{AxisSnapshot, Holder, Snapshot, TreeSnapshot};
pub use types::usd::{ParseUsdError, TryFromF64Error, Usd};
pub use types::want::Want;
pub use wait::{RecordWait, Wait};
pub use watch::{Closed, Reached, Wants};
pub use weak::WeakPool;

/// The README's example runs, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
