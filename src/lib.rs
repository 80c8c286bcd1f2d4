//! One budget shared by many tasks or threads: several axes at once (tokens, USD, requests,
//! in-flight, time), never over its caps, never losing a spend that happened.
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
//!     .on_drop(OnDrop::Commit) // what was begun and cut off is billed
//!     .build();
//!
//! // Known beforehand: ask and spend in one step.
//! pool.record(Amount::new().tokens(1_200).usd(Usd::from_micros(3_600)))?;
//!
//! // Known afterwards: hold the most that it can cost. Cut off anywhere below, that is booked.
//! let most = Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_cents(1));
//! let hold = pool.reserve(most)?;
//! let reply = match call_llm("...", hold.time_left()) {
//!     Err(failure) if !failure.is_billed => {
//!         hold.release(); // the provider says so, by a 429 for instance
//!         return Err(failure.into());
//!     }
//!     reply => reply?,
//! };
//! let cost = Usd::try_from_dollars_f64(reply.dollars)?;
//! // Settle the real figures.
//! hold.commit(Amount::new().input_tokens(reply.input).output_tokens(reply.output).usd(cost));
//!
//! let snap = pool.snapshot();
//! assert_eq!(snap.usd.used.to_string(), "0.01122");
//! println!("{} of {:?} used", snap.usd.used, snap.usd.cap);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`BudgetPool`] is a handle: clone it into every task. Pools stand [under
//! pools](BudgetPool::child): a run under a tenant, an agent under a run; each spend is charged to
//! the whole path or to none of it. A [joint pool](BudgetPool::joint) stands under several pools of
//! one tree, such as a team and a model; a pool that it reaches twice is charged once. A service
//! keeps one for each of its tenants in a [`Keyed`].
//!
//! # What is promised
//!
//! One distinction runs through all of it. **Admission** may be refused: may I spend?
//! [`record`](BudgetPool::record) and [`reserve`](BudgetPool::reserve) ask. **Accounting** never
//! is: this was spent, this was given back. [`commit`](Reservation::commit),
//! [`debit`](BudgetPool::debit) and [`credit`](BudgetPool::credit) tell. Each promise is tested by
//! its number: `cargo test p1_` runs the tests of P1.
//!
//! | | promise |
//! | --- | --- |
//! | **P1** | *Cap.* On every counted axis of every pool, at every instant, `used + reserved <= cap`: whatever the interleaving, the arithmetic or the order of calls. One call spends on all its axes, in all the pools it charges, or on none. |
//! | **P2** | *Nothing lost.* What the pool is told is always booked; what does not fit is `overage`. The true spend of a period is `used + overage`. Capacity that is freed, credited or added pays the overage first. `spent` is what was debited and committed less what was credited, over the pool's life. |
//! | **P3** | *No leak.* Every reserved unit has exactly one live owner: a reservation, a lease, a carved child, or a wait that was granted and not yet collected. Drop, panic, early return, cancelled future, expiry: it goes back or is booked, once, by a rule that the user chose ([`OnDrop`]), and a counter of the [`Snapshot`] shows it. |
//! | **P4** | *No false refusal.* A call that fits, by the state at its one instant under the lock, is admitted (except one that would jump a queue, which says so). |
//! | **P5** | *One instant.* A snapshot, of one pool or of a whole tree, is one state that really existed. |
//! | **P6** | *Fair waiting.* First come, first served among those that compete, and no call for new work passes them: a small one cannot starve a large one. One that can no longer be met is refused at once; where time alone makes it so, at the next call or [by its deadline](BudgetPool::reserve_wait). One that only time can end is served in time, or refused with [`NoTimer`](BudgetError::NoTimer): it is never left asleep. |
//! | **P7** | *Clear refusals.* A refusal changes nothing, and says which axis of which pool refused, how much was requested, how much was available, what the cap is, and whether the call may fit later. |
//! | **P8** | *Time only when asked.* A call reads the clock only if its path (the pool and those above it) has a deadline or a window, if there is a live hold in the tree that may expire, or if the call itself takes a time or a key; [`snapshot_tree`](BudgetPool::snapshot_tree) also if a pool below has a window; [`evict_idle`](Keyed::evict_idle) if a pool of its own has one, a pause or a key to outlive. Under the lock time never runs back: it is the later of what was read and what was last seen. |
//!
//! # The words
//!
//! | word | meaning |
//! | --- | --- |
//! | axis | one kind of thing that is limited: [`Axis`] |
//! | amount | how much of each counted axis one call names: [`Amount`] |
//! | caps | the most that a pool may have used plus reserved, by axis: [`Caps`] |
//! | used | settled spend of this period that fits under the cap |
//! | reserved | promised to live owners |
//! | available | what can really be spent now, in this pool and those above it |
//! | overage | real spend that did not fit under the cap |
//! | spent | all true spend since the pool was built, less what was credited |
//! | period | from build, [`reset`](BudgetPool::reset) or a [window](Window)'s turn to the next one |
//! | carve | a share of a pool's caps that is [reserved](PoolBuilder::carved) for one child |
//!
//! # What becomes of a hold
//!
//! | event | held part | metered part |
//! | --- | --- | --- |
//! | [`commit`](Reservation::commit) | replaced by the real total, however large | counted in the total, up or down |
//! | drop, `?`, panic, cancelled task | as [`OnDrop`] says: released, or settled | stays |
//! | [`std::mem::forget`] | held for ever, unless it expires | stays |
//! | it [expires](crate::Ask::ttl) | as [`OnDrop`] says: released, or settled | stays |
//! | pool [reset](BudgetPool::reset), or its [window](Window) turns | still held, settles into the new period | belongs to the old period |
//! | pool [closed](BudgetPool::close), deadline passed | can still be committed, debited, shrunk or released | stays |
//!
//! # Consistency
//!
//! There is one lock for each tree of pools, never held while code of yours runs: no clock is read,
//! no waker woken and nothing of yours dropped under it. A call holds it for nanoseconds, in
//! proportion to how deep its pool stands; what looks at a whole tree
//! ([`snapshot_tree`](BudgetPool::snapshot_tree), [`holders`](BudgetPool::holders),
//! [`close`](BudgetPool::close)) in proportion to the tree. (The call that comes first after a
//! while may have to do what time has brought since; one that frees much serves all who can be
//! served by it.) Pools and holds that are gone leave their place to new ones; their memory goes
//! with the last pool of the tree. Each call is one transition under that lock. Whatever happened
//! before a call that changed a pool is visible to whoever sees that change, in a later call on the
//! same tree, as with any mutex.
//!
//! A snapshot is a state that existed, not one that still does. An answer of
//! [`peek`](BudgetPool::peek) is not a promise. Calls that race are ordered by the lock; who
//! comes first is not promised.
//!
//! # Waiting
//!
//! [`reserve_wait`](BudgetPool::reserve_wait) is a future for any runtime;
//! [`reserve_blocking`](BudgetPool::reserve_blocking) parks the thread. Both take a ticket. Those
//! compete that ask the same pool, whatever for, and those that ask for something that is capped in
//! the same pool above them; one that is blocked in its own child does not hold up the others. (Of
//! what has no cap there is [`u64::MAX`]. One that finds all of it taken waits its turn in that
//! pool; whoever asks it for nothing that has a cap, and fits, passes.) While somebody waits with
//! whom it would compete, a call for new work says [`Queued`](BudgetError::Queued):
//! [`record`](BudgetPool::record), [`reserve`](BudgetPool::reserve), a lease beyond its share, a
//! carved pool that is built. [`record_wait`](BudgetPool::record_wait) stands in line for a spend.
//! A reservation's [`record`](Reservation::record) and [`grow`](Reservation::grow) belong to a call
//! that runs and pass, as accounting does.
//!
//! Two tasks that each hold half of a pool and wait for the other half wait for ever, as with any
//! semaphore. Only time can help them: a deadline, holds that [expire](Ask::ttl), or waits that
//! [end](Ask::wait_at_most).
//!
//! # Deadlines
//!
//! After its [deadline](PoolBuilder::deadline) a pool refuses what asks; it does not stop what runs.
//! Give [`Reservation::time_left`] to the call as its timeout.
//!
//! # Time
//!
//! There is no thread in the background: whatever time brings is done by the next call on a pool of
//! the tree that knows the time, before it does its own work, as if it had been done in its time.
//! (But whoever waits for a deadline that has come is told first, whatever else has come before
//! it.)
//!
//! - A hold that was made [for a while](crate::Ask::ttl) expires: a stuck task or a
//!   forgotten guard cannot keep budget for ever. A commit that comes late is booked all the same,
//!   and its receipt [says so](Receipt::is_late).
//! - The caps of a pool with a [`Window`] come back: at the turns of a period or a calendar,
//!   continuously, or one period after each spend. A refusal says exactly
//!   [when](BudgetError::retry_after) the same call will fit.
//! - A waiter that only time can end is served in time: a blocking wait by itself, an async one by
//!   its [timer](PoolBuilder::timer).
//! - A call that may be retried spends [once for its key](BudgetPool::record_once).
//!
//! # Watching
//!
//! Futures are told when a pool [is closed](BudgetPool::closed), [has reached a
//! level](BudgetPool::reached), for an alert at 80 per cent, or [wants](BudgetPool::wants) budget of
//! whoever funds it. A thread blocks on them. An [`Observer`] of a whole tree is told of refusals, of
//! overage, and of holds that end without a word. Both are told without the lock, and a tree that
//! nobody watches or observes pays nothing for them.
//!
//! # Hot loops
//!
//! Threads that would fight for the lock each take a [`Lease`]: a share of their own, spent from
//! without touching anything shared.
//!
//! # What is not here
//!
//! - **Other processes.** A pool lives in one process. For a budget in Redis see Python's
//!   `escrowmint`.
//! - **Tokenizers and price lists.** Amounts are yours to reckon; [`Usd::for_tokens`] does the
//!   arithmetic.
//! - **One axis, no money, no tree.** `tokio::sync::Semaphore` has permits; an atomic counts.
//! - **A rate, and nothing else.** For requests per second alone there is `governor`.
//! - **Keys that outlive the process.** Those of [`record_once`](BudgetPool::record_once) are in
//!   memory, a bounded number of them, for a bounded time.
//!
//! # Features and versions
//!
//! No feature is on by default. The minimum supported Rust version is 1.85; a rise is a minor
//! release. Every feature keeps it.
//!
//! | feature | what it brings |
//! | --- | --- |
//! | `serde` | amounts, caps, windows, levels and axes from and to text and bytes; snapshots, receipts and refusals to them |
//! | `metrics` | `Exporter`: the figures of a tree of pools for Prometheus and its kin, pulled |
//! | `tracing` | `TracingObserver`: refusals, overage, expiries, late spends and forgotten holds as events |
//! | `tokio` | `PoolBuilder::tokio`: timer and clock by the runtime; waits take part in the cooperative budget of its tasks |
//!
//! # Counting beyond a `u64`
//!
//! Balances are `u64` (USD in nano-dollars, up to 18.4 billion dollars) and checked. Where facts
//! add up to more than that, `overage` and `spent` saturate at `u64::MAX`; the caps hold all the
//! same.
//!
//! # What does not compile
//!
//! A reservation is settled once:
//!
//! ```
//! # use budget_pool::{Amount, BudgetPool};
//! let hold = BudgetPool::unlimited().reserve(Amount::new().tokens(5)).unwrap();
//! hold.commit_all();
//! ```
//!
//! ```compile_fail,E0382
//! # use budget_pool::{Amount, BudgetPool};
//! let hold = BudgetPool::unlimited().reserve(Amount::new().tokens(5)).unwrap();
//! hold.commit_all();
//! hold.commit_all();
//! ```
//!
//! It has one owner:
//!
//! ```compile_fail,E0599
//! # use budget_pool::{Amount, BudgetPool};
//! let hold = BudgetPool::unlimited().reserve(Amount::new().tokens(5)).unwrap();
//! hold.clone().commit_all();
//! ```

#![cfg_attr(docsrs, feature(doc_cfg))]
#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod adapters;
mod ask;
mod builder;
mod engine;
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
