//! Shares one budget among many processes. Each process spends from a
//! [`BudgetPool`](budget_pool::BudgetPool) of its own at memory speed, and the pools are funded
//! from one *wallet* in Redis or Valkey by one script. There is no server to run but the store.
//!
//! ```no_run
//! use budget_pool::{Amount, Caps};
//! use budget_pool_redis::Fleet;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = redis::Client::open("redis://127.0.0.1/")?;
//! let fleet = Fleet::builder("acme")
//!     .found(Caps::new().tokens(1_000_000).usd("50".parse()?))
//!     .at_most(Amount::new().tokens(20_000).usd("1".parse()?))
//!     .join(client)
//!     .await?;
//!
//! // Known beforehand: here if the grant covers it, else after one exchange with the store.
//! fleet.record(Amount::new().tokens(1_200)).await?;
//!
//! // Known afterwards: hold an estimate, then settle the real figures.
//! let hold = fleet.reserve(Amount::new().tokens(2_000).usd("0.05".parse()?)).await?;
//! hold.commit(Amount::new().tokens(1_480).usd("0.031".parse()?));
//!
//! // Never I/O: all that a pool can do.
//! let agent = fleet.pool().child().name("agent").tokens(10_000).build();
//! agent.record(Amount::new().tokens(100))?;
//!
//! fleet.leave().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Threads without tokio take [`blocking::Fleet`].
//!
//! # The words
//!
//! - The *wallet* has the caps, for the whole fleet. [`found`](FleetBuilder::found) founds it once.
//! - A *member* is one process in it. The wallet *grants* it a part of a cap: that part is
//!   *charged*. The cap of its local pool is its grant, less the units that it gave back.
//! - An *exchange* is one call of the script: the member tells its totals (spent, returned, the grants
//!   that it has seen), and the wallet answers with its totals. The wallet keeps the maxima, so a lost
//!   answer, a retry or a late duplicate has no effect a second time, and the next exchange heals all.
//!
//! A grant is booked in the store first and can be spent afterwards. A return is taken out of the
//! local pool first and told afterwards. So all processes together can never spend more than the
//! charged units.
//!
//! # Promises
//!
//! | | |
//! | --- | --- |
//! | F1 cap | With [`Lost::Charge`], what all processes together may spend never exceeds the cap, whatever process crashes, pauses or retries. |
//! | F2 nothing lost | A spend that was told is booked once, also after its member was closed. |
//! | F3 a crash | It leaves in doubt what its process held and had not told: [`Status::in_doubt`]. A [journal](FleetBuilder::journal) settles that. [`FleetBuilder::at_most`], unset by default, bounds what is fetched ahead; calls that need more are granted more. |
//! | F4 nothing stranded | While someone stands short, the others give back all that is free: the cap can be spent to the unit. |
//! | F5 one instant | An exchange, and a [`FleetSnapshot`], are one instant of the store. |
//! | F6 fair | First come, first served inside a process. Between processes, none fetches ahead while another stands short. |
//! | F7 clear refusals | [`FleetError::Short`] says the figures of the fleet. A call of a [`Fleet`] is refused as [`Never`](budget_pool::Outlook::Never) by an exchange of the last quarter of a second, with the figures of its process. |
//! | F8 time | Only the clock of the store decides when a period ends and who is lost. |
//!
//! Not promised:
//!
//! - F1 with [`Lost::Return`]. The fleet may then exceed its cap by the spend that lost members had
//!   not told, which is at most their grants. A member stops when its own TTL is over, but a
//!   process that stood still may spend a little before its driver notices, and a hold that is
//!   settled after it is booked as overage.
//! - F1 after a store lost the grants of a member that died, left or joined anew before it could
//!   tell them again, unless the grants were [confirmed](FleetBuilder::confirm). A fleet whose
//!   members live is exact once the store has learned for one TTL.
//! - F1 after the store lost the whole wallet. A process that joins with
//!   [`found`](FleetBuilder::found) founds it anew at once: what the members of the lost wallet hold
//!   and have spent comes on top of the cap. Found the wallet in one place, and join without `found`
//!   elsewhere, where that matters.
//! - F1 while two primaries serve one wallet. A primary that was cut off grants to the members that
//!   still reach it: `min-replicas-to-write` ends that.
//! - F1 where a [journal](FleetBuilder::journal) settles a process that acted on a spend before the
//!   spend was written: one by [`Fleet::pool`], or by a hold that was settled with more than it held,
//!   within about 10 ms of its death. [`Fleet::write_journal`] closes that gap.
//! - F2 once for a member that was closed and is heard of again more than 24 hours later. The store
//!   remembers it no longer, and books all that it has spent a second time: more than was spent,
//!   never less.
//! - F2 once for a wallet that was [removed](Admin::remove) and founded anew. For 24 hours the
//!   journal of a member that did not leave books its spend in the new wallet as well: more than was
//!   spent there, never less.
//! - F4 for a process that always has an open hold, once it was granted `2^53 - 1` units in its life,
//!   the units that it gave back included: its calls are refused as [`Short`](FleetError::Short) until
//!   no hold is open, or it [leaves](Fleet::leave) and joins anew. A call for more than 7/8 of that
//!   may be refused so, too.
//! - Fairness between processes. Many small calls may pass a large one of another process.
//! - That a [`credit`](budget_pool::BudgetPool::credit) goes back to the fleet: the process that
//!   was credited can spend it again.
//!
//! # What happens when
//!
//! | event | what happens |
//! | --- | --- |
//! | an answer is lost, a request comes twice or late | no effect a second time; an unseen grant is learnt by the next exchange |
//! | a process is killed, or stands still beyond its TTL | `Charge`: its grant stays charged until it comes back or [`Admin::resolve`] says what it spent. `Return`: what it had not told is free again |
//! | a process with a [journal](FleetBuilder::journal) is killed, and another one joins with its file | what it spent is booked, and the rest of its grant is free, before `join` returns |
//! | a member that was closed tells | what it spent is booked once, as overage if need be, and it joins anew |
//! | a member was granted `2^50` units in its life | it joins anew once no hold is open, as its totals count to `2^53 - 1` |
//! | the store is restarted | grants pause for the longest TTL of any member, until all have told what they hold |
//! | the store does not answer | the grant is spent (with `Return`, only until the TTL of the member is over), then calls are refused as [`Unreachable`](FleetError::Unreachable); there is no mode that fails open |
//! | the wallet is flushed, removed or evicted | calls beyond the grant are refused as [`NoWallet`](FleetError::NoWallet); no member founds it anew, but a process that joins with [`found`](FleetBuilder::found) does |
//! | one key of the wallet is evicted or deleted | refused as [`Damaged`](FleetError::Damaged); without `k`, which has the keys of operators, only `raise` and `lower` are refused, until all those keys would have been forgotten |
//! | two operators [raise](Admin::raise) or [lower](Admin::lower) a cap at once | both changes are made, and each of them once for its key, whatever is retried |
//! | a cap is lowered below what is charged | nothing is granted until that much was given back, or the period ends |
//! | [`Fleet::leave`], or the last handle is dropped while the runtime goes on | the pool closes, holds get the TTL to end, and the rest comes back |
//! | the machine of a journal is restarted | what the journal says is booked; the rest stays charged as without a journal |
//! | a [`blocking::Fleet`] is dropped, or the runtime ends, without `leave` | as a process that is killed; calls from another runtime are refused |
//!
//! # How to choose
//!
//! - [`horizon`](FleetBuilder::horizon) is the time whose spend a member fetches ahead. A second is
//!   about two exchanges a second for a busy process.
//! - [`at_most`](FleetBuilder::at_most) bounds the cost of a crash. A hundredth of the cap, divided
//!   by the number of processes, leaves one per cent in doubt if all die at once. An `at_most` far
//!   below the spend of a `horizon` means more exchanges.
//! - [`Lost::Charge`] suits a cap whose overshoot costs money. [`Lost::Return`] suits a fleet where
//!   processes come and go unattended, and some overshoot is better than a budget that shrinks with
//!   each crash.
//! - [`confirm`](FleetBuilder::confirm) suits a store that may lose its last writes, by a failover or
//!   with its machine, and members that may die at the same time. Each exchange that brings a grant
//!   then waits: for the round trip to a replica with [`Confirm::Replicas`], for the next `fsync` with
//!   [`Confirm::Aof`]. Spends that the grant covers never wait.
//! - [`journal`](FleetBuilder::journal) suits a process that its supervisor starts again on the same
//!   machine. A `record` then takes two to three microseconds more. Keep to `record` and to holds, or
//!   call [`write_journal`](Fleet::write_journal) before you act on a spend: its page says what is
//!   exact.
//! - Persistence of the store: `appendfsync always`, or `everysec` if losing the machine may cost the
//!   grants of its last second.
//!
//! # What to alert on
//!
//! [`Status::failure`] for longer than a few seconds; a [`Settled`] that is not exact; [`Status::may_evict`], as the `maxmemory-policy`
//! of the server should be `noeviction` or one of `volatile`; a member that
//! [is lost](FleetMember::is_lost); [overage](FleetAxis::overage) of an axis.
//!
//! # The store
//!
//! The tests run on Redis 7.0. The script uses no command that is newer than Redis 5 or that Valkey
//! lacks. The keys of a wallet are `bp1:{wallet}:` and `w`, `m`, `x`, `t`, `y`,
//! `s`, `k`; none has a TTL, and all lie in one slot. A name that begins with `}`, or is empty, has no
//! slot, and is refused as [`Name`](FleetError::Name). The user of the store needs
//! `~bp1:* +evalsha +script|load +info +time +hgetall +hget +hset +hdel +hlen +zadd
//! +zrem +zcard +zcount +zscore +zrangebyscore +zremrangebyscore +del`. [`Confirm`] takes `+wait` or
//! `+waitaof` beside it. A user who may run less of it is refused as [`Store`](FleetError::Store), and
//! changes nothing.
//!
//! Two versions of this package share a wallet if they speak the same protocol, and neither touches a
//! field of the wallet that it does not know. A process of another protocol is refused as
//! [`Version`](FleetError::Version), and changes nothing. An upgrade to another protocol takes a new
//! name for the wallet, or an end of all processes and [`Admin::remove`].
//!
//! # Features
//!
//! None is on by default.
//!
//! - `cluster`: `FleetBuilder::join_cluster`, for a Redis Cluster. All keys of a wallet lie in one slot.
//! - `sentinel`: `FleetBuilder::join_sentinel`, for the primary that Redis Sentinel names. A plain client
//!   from a `SentinelClient` works until the first failover, as it knows one address.
//! - `escrowmint`: `FleetBuilder::join_escrowmint`, for a wallet that the Python clients of
//!   [EscrowMint](https://pypi.org/project/escrowmint/) spend from, too.
//!
//! # What is not here
//!
//! - A single process needs none of this: `budget-pool` alone.
//! - Idempotency keys of spends in the store. A change of the caps by an operator has one.
//! - A journal for a process that comes back on another machine: [`Admin::resolve`] takes the figure
//!   from whatever your process writes down before it spends.
//!
//! The minimum supported Rust version is 1.88; a rise is a minor release.

#![forbid(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]
// An `expect` states the invariant that makes it impossible.
#![warn(clippy::unwrap_used)]

mod admin;
pub mod blocking;
#[cfg(feature = "cluster")]
mod cluster;
mod confirm;
mod driver;
mod error;
#[cfg(feature = "escrowmint")]
mod escrowmint;
mod fleet;
mod journal;
mod link;
mod member;
mod protocol;
#[cfg(test)]
mod rules;
mod script;
#[cfg(feature = "sentinel")]
mod sentinel;
mod settle;
#[cfg(test)]
mod tests;

pub use admin::{Admin, FleetAxis, FleetMember, FleetSnapshot};
pub use confirm::Confirm;
pub use error::{FleetError, JournalFault};
pub use fleet::{Fleet, FleetBuilder, Status};
pub use protocol::Lost;
pub use settle::Settled;

/// The README's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
