//! One budget shared by many tasks or threads: several axes at once (tokens, USD, requests, in-flight, time), never
//! over its caps, never losing a spend that happened.
//!
//! ```
//! use std::time::Duration;
//! use budget_pool::{Amount, BudgetPool, Usd};
//!
//! # struct Reply { input: u64, output: u64, cost: Usd }
//! # fn call_llm(_: &str, _: Option<Duration>) -> Result<Reply, std::io::Error> {
//! #     Ok(Reply { input: 1_480, output: 212, cost: Usd::from_micros(7_620) })
//! # }
//! let pool = BudgetPool::builder()
//!     .name("run-17")
//!     .tokens(1_000_000)
//!     .usd("10.00".parse()?)
//!     .deadline(Duration::from_secs(60))
//!     .build();
//!
//! // Known beforehand: ask and spend in one step.
//! pool.record(Amount::new().tokens(1_200).usd(Usd::from_micros(3_600)))?;
//!
//! // Known afterwards: hold an estimate, then settle the real figures.
//! let estimate = Usd::from_cents(1);
//! let hold = pool.reserve(Amount::new().input_tokens(1_500).output_tokens(500).usd(estimate))?;
//! let reply = call_llm("...", hold.time_left())?; // `?` here gives the hold back
//! hold.commit(Amount::new().input_tokens(reply.input).output_tokens(reply.output).usd(reply.cost));
//!
//! let snap = pool.snapshot();
//! assert_eq!(snap.usd.used.to_string(), "0.01122");
//! println!("{} of {:?} used", snap.usd.used, snap.usd.cap);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A [`BudgetPool`] is a handle: clone it into every task. Pools stand [under pools](BudgetPool::child): a run under a
//! tenant, an agent under a run; each spend is charged to the whole path or to none of it.
//!
//! # What is promised
//!
//! One distinction runs through all of it. **Admission** may be refused: may I spend? A **fact** never is: this was
//! spent. [`record`](BudgetPool::record) and [`reserve`](BudgetPool::reserve) ask; [`commit`](Reservation::commit) and
//! [`debit`](BudgetPool::debit) tell. Each promise is tested by its number: `cargo test p1_` runs the tests of P1.
//!
//! | | promise |
//! | --- | --- |
//! | **P1** | *Cap.* On every counted axis of every pool, at every instant, `used + reserved <= cap`: whatever the interleaving, the arithmetic or the order of calls. One call spends on all its axes, in all the pools it charges, or on none. |
// Tests: tests/promises.rs p1_cap::one_call_spends_on_all_its_axes_or_on_none,
//   p1_cap::one_call_spends_in_all_the_pools_it_charges_or_in_none, p1_cap::the_cap_holds_under_real_threads,
//   p1_cap::the_check_is_exact_at_the_cap;
// tests/bad_input.rs sums_that_overflow_are_refused_or_stay_at_the_most;
// tests/stress.rs p1_p2_p3_p5_hold_in_long_histories_of_many_threads
//! | **P2** | *Nothing lost.* A fact is always booked; what does not fit is `overage`. The true spend of a period is `used + overage`. Freed or added capacity pays the overage first. |
// Tests: tests/promises.rs p2_nothing_lost::a_commit_beyond_its_hold_takes_what_is_free_and_the_rest_is_overage,
//   p2_nothing_lost::freed_and_added_capacity_pays_the_overage_first,
//   p2_nothing_lost::a_fact_is_booked_after_the_deadline_and_on_a_closed_pool,
//   p2_nothing_lost::spent_is_the_true_spend_of_all_periods;
// tests/stress.rs p1_p2_p3_p5_hold_in_long_histories_of_many_threads
//! | **P3** | *No leak.* Every reserved unit has exactly one live owner: a reservation, a lease, a carved child, or a wait that was granted and not yet collected. Drop, panic, early return, cancelled future, expiry: it goes back, once. |
// Tests: tests/promises.rs p3_no_leak::drop_early_return_panic_and_a_cancelled_task_give_back;
// tests/time.rs ttl::p3_after_expiry_drop_and_release_give_nothing_back_twice;
// tests/waiting.rs p3_a_wait_that_is_dropped_gives_up_its_place_or_what_it_was_granted;
// tests/lease.rs p3_no_leak::what_is_left_goes_back_once_however_it_ends;
// tests/stress.rs p1_p2_p3_p5_hold_in_long_histories_of_many_threads
//! | **P4** | *No false refusal.* A call that fits, by the state at its one instant under the lock, is admitted (except one that would jump a queue, which says so). |
// Tests: tests/promises.rs p4_no_false_refusal::the_last_unit_of_every_axis_can_be_spent,
//   p4_no_false_refusal::a_cap_of_zero_admits_zero;
// tests/time.rs ttl::p4_what_needs_all_that_has_expired_is_admitted;
// tests/lease.rs p4_no_false_refusal::what_is_left_and_what_is_free_can_be_asked_for_to_the_unit;
// tests/lazy.rs p7_retry_after_names_the_first_instant_at_which_it_fits
//! | **P5** | *One instant.* A snapshot, of one pool or of a whole tree, is one state that really existed. |
// Tests: tests/promises.rs p5_one_instant::a_snapshot_of_a_tree_is_one_state,
//   p5_one_instant::a_reset_returns_the_very_state_that_it_ends;
// tests/stress.rs p1_p2_p3_p5_hold_in_long_histories_of_many_threads
//! | **P6** | *Fair waiting.* Waiting reservations are granted first come, first served among those that compete; a small one cannot starve a large one. One that can no longer be met is told at once, instead of sleeping for ever; where time alone makes it so, at the next call or [by its deadline](BudgetPool::reserve_wait). |
// Tests: tests/waiting.rs p6_first_come_first_served_and_a_small_one_does_not_pass_a_large_one,
//   p6_a_large_one_is_not_starved_by_small_ones_that_arrive_for_ever, p6_those_who_compete_above_are_served_by_ticket,
//   p6_what_can_never_be_met_is_refused_at_once_and_as_soon_as_commits_make_it_so;
// tests/time.rs waiters::p6_who_can_no_longer_be_met_before_the_deadline_is_told_at_once;
// tests/lazy.rs p6_with_exact_alarms_nobody_waits_whom_a_touch_would_serve
//! | **P7** | *Clear refusals.* A refusal changes nothing, and says which axis of which pool refused, what was asked, what was available, what the cap is, and whether it may fit later. |
// Tests: tests/promises.rs p7_clear_refusals::the_first_refusal_is_named_from_the_called_pool_upward_and_axes_in_order,
//   p7_clear_refusals::the_outlook_is_the_worst_over_all_that_refuse,
//   p7_clear_refusals::texts_are_one_lowercase_line_with_units;
// tests/time.rs ttl::p7_after_expiry_what_asks_is_refused_and_changes_nothing;
// tests/lease.rs p7_clear_refusals::a_refusal_says_what_was_missing_and_changes_nothing
//! | **P8** | *Time only when asked.* A call reads the clock only if its path (the pool and those above it) has a deadline or a window, if there is a live hold in the tree that may expire, or if the call itself takes a time or a key; [`snapshot_tree`](BudgetPool::snapshot_tree) also if a pool below has a window. Under the lock time never runs back: it is the later of what was read and what was last seen. |
// Tests: tests/promises.rs p8_time_only_when_asked::without_a_deadline_the_clock_is_never_read,
//   p8_time_only_when_asked::with_a_deadline_each_call_that_asks_reads_it_once,
//   p8_time_only_when_asked::time_never_runs_back;
// tests/time.rs p8_time_only_when_asked::without_any_time_the_clock_is_never_read,
//   p8_time_only_when_asked::with_a_deadline_alone_only_what_asks_reads_it,
//   p8_time_only_when_asked::a_hold_that_may_expire_makes_the_whole_tree_read_it_while_it_lives,
//   p8_time_only_when_asked::a_call_that_takes_a_time_or_a_key_reads_it_once,
//   p8_time_only_when_asked::a_window_makes_its_path_read_it
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
//! | spent | all true spend since the pool was built; never falls |
//! | period | from build, [`reset`](BudgetPool::reset) or a [window](Window)'s turn to the next one |
//! | scope | the pool that refused, by name: it may be one above |
//! | carve | a share of a pool's caps that is [reserved](Builder::carved) for one child |
//!
//! # What becomes of a hold
//!
//! | event | held part | already settled part |
//! | --- | --- | --- |
//! | [`commit`](Reservation::commit) | replaced by the actual amount, however large | stays |
//! | drop, `?`, panic, cancelled task | released (or settled: [`commit_on_drop`](Reservation::commit_on_drop)) | stays |
//! | [`std::mem::forget`] | held for ever, unless it expires | stays |
//! | it [expires](BudgetPool::reserve_for) | released (or settled: [`commit_on_drop`](Reservation::commit_on_drop)) | stays |
//! | pool [reset](BudgetPool::reset), or its [window](Window) turns | still held, settles into the new period | belongs to the old period |
//! | pool [closed](BudgetPool::close), deadline passed | can still be committed, debited, shrunk or released | stays |
// Tests: tests/promises.rs p2_nothing_lost::a_commit_beyond_its_hold_takes_what_is_free_and_the_rest_is_overage,
//   p3_no_leak::drop_early_return_panic_and_a_cancelled_task_give_back,
//   p3_no_leak::a_guard_settles_on_drop_and_releases_only_aloud,
//   p2_nothing_lost::a_fact_is_booked_after_the_deadline_and_on_a_closed_pool;
// tests/time.rs ttl::p3_a_forgotten_guard_leaks_nothing,
//   ttl::p2_a_hold_that_commits_on_drop_settles_when_it_expires_and_counts_once,
//   windows::p2_what_is_held_across_a_turn_is_neither_lost_nor_counted_twice
//!
//! # Consistency
//!
//! There is one lock for each tree of pools, never held while code of yours runs: no clock is read, no waker woken and
//! nothing of yours dropped under it. A call holds it for nanoseconds, in proportion to how deep its pool stands; what
//! looks at a whole tree ([`snapshot_tree`](BudgetPool::snapshot_tree), [`holders`](BudgetPool::holders),
//! [`close`](BudgetPool::close)) in proportion to the tree. (The call that comes first after a while may have to do
//! what time has brought since; one that frees much serves all who can be served by it.) Pools and holds that are gone
//! leave their place to new ones; their memory goes with the last pool of the tree. Each call is one transition under
//! that lock. Whatever happened before a call that changed a pool is visible to whoever sees that change, in a later
//! call on the same tree, as with any mutex.
// Tests: tests/panics.rs clocks::a_clock_that_comes_back_finds_no_lock_held; tests/consistency.rs
//   a_waker_may_call_the_pool_when_it_is_woken_and_when_it_is_dropped, a_timer_and_its_sleep_may_call_the_pool;
// tests/alloc.rs what_is_gone_leaves_its_place_to_what_comes, what_a_tree_has_taken_goes_with_its_last_pool;
// tests/bad_input.rs a_tree_a_hundred_thousand_deep_is_no_trouble;
// src/models.rs what_was_written_before_a_close_is_seen_by_whoever_sees_it
//!
//! A snapshot is a state that existed, not one that still does. An answer of [`check`](BudgetPool::check) is not a
//! promise. Calls that race are ordered by the lock; who comes first is not promised.
//!
//! # Waiting
//!
//! [`reserve_wait`](BudgetPool::reserve_wait) is a future for any runtime;
//! [`reserve_blocking`](BudgetPool::reserve_blocking) parks the thread. Both take a ticket. Those compete that ask the
//! same pool, whatever for, and those that ask for something that is capped in the same pool above them; one that is
//! blocked in its own child does not hold up the others. (Of what has no cap there is [`u64::MAX`]. One that finds all
//! of it taken waits its turn in that pool; whoever asks it for nothing that has a cap, and fits, passes.) While
//! somebody waits with whom it would compete, [`reserve`](BudgetPool::reserve) says [`Queued`](BudgetError::Queued);
//! [`record`](BudgetPool::record) and [`grow`](Reservation::grow), which belong to calls that run, pass, as facts do.
// Tests: tests/waiting.rs p6_in_the_pool_that_is_called_all_stand_in_one_line,
//   p6_one_that_waits_for_what_has_no_cap_waits_its_turn,
//   p6_what_only_another_axis_waits_for_is_not_held_up, p6_one_blocked_in_its_child_does_not_hold_up_another_child
//!
//! Two tasks that each hold half of a pool and wait for the other half wait for ever, as with any semaphore. Only time
//! can help them: a deadline, holds that [expire](BudgetPool::reserve_for), or
//! [`reserve_blocking_for`](BudgetPool::reserve_blocking_for).
// Tests: tests/waiting.rs two_that_each_hold_half_wait_for_each_other_until_time_helps,
//   blocking::a_wait_in_vain_ends_and_leaves_no_trace;
// tests/time.rs waiters::blocking::p6_a_thread_is_served_when_a_hold_expires
//!
//! # Deadlines
//!
//! After its [deadline](Builder::deadline) a pool refuses what asks; it does not stop what runs. Give
//! [`Reservation::time_left`] to the call as its timeout.
// Tests: tests/promises.rs p8_time_only_when_asked::the_earliest_deadline_counts_and_is_named,
//   p2_nothing_lost::a_fact_is_booked_after_the_deadline_and_on_a_closed_pool
//!
//! # Time
//!
//! There is no thread in the background: whatever time brings is done by the next call on a pool of the tree that knows
//! the time, before it does its own work, as if it had been done in its time. (But whoever waits for a deadline that
//! has come is told first, whatever else has come before it.)
// Tests: tests/lazy.rs a_tree_that_is_touched_now_and_then_answers_as_one_that_is_touched_at_each_instant;
// tests/waiting.rs new_caps_grant_nothing_to_those_whose_deadline_has_come
//!
//! - A hold that was made [for a while](BudgetPool::reserve_for) expires: a stuck task or a forgotten guard cannot keep
//!   budget for ever. A commit that comes late is booked all the same, and its receipt [says so](Receipt::is_late).
//! - The caps of a pool with a [`Window`] come back, at the turn of a period or continuously. A refusal says exactly
//!   [when](BudgetError::retry_after) the same call will fit.
//! - Whoever waits for time alone is served in time: a blocking wait by itself, an async one by its
//!   [timer](Builder::timer), or else at the next call on its pool.
//! - A call that may be retried spends [once for its key](BudgetPool::record_once).
// Tests: tests/time.rs ttl::p3_a_forgotten_guard_leaks_nothing, ttl::p2_after_expiry_what_is_told_is_booked_and_marked,
//   retry_after::p7_it_is_exact_for_fixed_windows, retry_after::p7_it_is_exact_for_sliding_windows,
//   waiters::blocking::p6_a_thread_is_served_when_a_window_turns_or_gives_back,
//   waiters::in_tokio::p6_a_task_is_served_when_a_hold_expires,
//   waiters::p6_without_a_timer_a_turn_or_an_expiry_serves_at_the_next_touch,
//   once::p1_a_call_that_comes_again_spends_once_and_one_that_differs_is_a_conflict
//!
//! # Hot loops
//!
//! Threads that would fight for the lock each take a [`Lease`]: a share of their own, spent from without touching
//! anything shared.
// Tests: src/pool.rs tests::what_is_said_to_take_no_lock_takes_none;
// tests/lease.rs p1_cap::a_share_is_reserved_before_it_is_spent_and_booked_when_it_is_settled
//!
//! # What is not here
//!
//! - **Other processes.** A pool lives in one process. For a budget in Redis see Python's `escrowmint`.
//! - **Tokenizers and price lists.** Amounts are yours to reckon; [`Usd::for_tokens`] does the arithmetic.
//! - **One axis, no money, no tree.** `tokio::sync::Semaphore` has permits; an atomic counts.
//! - **A rate, and nothing else.** For requests per second alone there is `governor`.
//! - **Keys that outlive the process.** Those of [`record_once`](BudgetPool::record_once) are in memory, a bounded
//!   number of them, for a bounded time.
//!
//! # Features and versions
//!
//! There are no features. The minimum supported Rust version is 1.85; a rise is a minor release.
// Tests: tests/named.rs versions_are_those_of_the_manifest
//!
//! # Counting beyond a `u64`
//!
//! Balances are `u64` (USD in nano-dollars, up to 18.4 billion dollars) and checked. Where facts add up to more than
//! that, `overage` and `spent` saturate at `u64::MAX`; the caps hold all the same.
// Tests: tests/bad_input.rs sums_that_overflow_are_refused_or_stay_at_the_most;
// src/ledger.rs tests::p2_facts_beyond_a_u64_stay_at_its_most_and_the_cap_holds
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

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

mod amount;
mod axis;
mod clock;
mod deadline;
mod error;
mod hold;
mod keys;
mod lease;
mod ledger;
#[cfg(all(test, budget_pool_loom))]
mod models;
mod name;
mod pool;
mod queue;
mod reservation;
mod schedule;
mod share;
mod shared;
mod snapshot;
#[cfg(all(test, budget_pool_shuttle))]
mod stories;
mod sync;
mod tree;
mod usd;
mod wait;
mod window;

pub use amount::{Amount, Caps};
pub use axis::{Axis, Quantity};
pub use clock::{Clock, ManualClock, SystemClock};
pub use deadline::{Call, DeadlineBudget, DeadlineBuilder, InvalidDeadline, ParseGrpcTimeoutError};
pub use error::{BudgetError, BudgetExceeded, DeadlineExceeded, Outlook};
pub use lease::Lease;
pub use name::Name;
pub use pool::{BudgetPool, Builder, Carved, Child, PoolDeadline, Root};
pub use reservation::{CommitRefused, Receipt, Reservation};
pub use snapshot::{AxisSnapshot, Holder, Snapshot, TreeSnapshot};
pub use usd::{ParseUsdError, TryFromF64Error, Usd};
pub use wait::{Closed, Wait};
pub use window::Window;

/// The README's example runs, too.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
