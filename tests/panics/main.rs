//! Code of the user's that panics where it is called: clocks, wakers, timers, futures, conversions and
//! drops; and code that comes back to the pool from there. `time/` has a panicking clock where
//! something is due, `observer.rs` the observers, and `keyed/` the builders and keys of a `Keyed`.
//!
//! After each panic the pool is usable and balanced, and the others that waited are served. A panic
//! in a waker's `clone` cannot be written here without unsafe code.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use budget_pool::{Amount, Ask, BudgetPool, Caps, Closed, ManualClock, Reservation, Wait, Window};

mod clocks;
#[path = "../support/invariants.rs"]
mod invariants;
mod last_of_a_tree;
mod last_seen;
mod runs;
mod timers;
mod values;
#[path = "../support/waiter.rs"]
mod waiter;
mod wakers;
#[path = "../support/watchdog.rs"]
mod watchdog;

use invariants::check_invariants;
use waiter::{Waiter, Wakes, by_hand};
use watchdog::ends;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

/// A panic, but for the text; not while one is on its way, which would be the end of the process.
fn panics() {
    if !std::thread::panicking() {
        resume_unwind(Box::new("on purpose"));
    }
}

/// That it was one of ours, and came out.
#[track_caller]
fn comes_out<T>(call: impl FnOnce() -> T) {
    let panic = catch_unwind(AssertUnwindSafe(call)).map(|_| "no panic").unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
}

/// All of it can be had, nobody waits, and nothing is held.
#[track_caller]
fn is_balanced(pool: &BudgetPool) {
    let end = pool.snapshot();
    assert_eq!((end.tokens.reserved, end.reservations, end.waiting), (0, 0, 0), "{end}");
    pool.reserve(tokens(100)).unwrap().release();
    check_invariants(pool);
}

/// Each kind of call, by code that is called by the pool. What comes of it does not matter here:
/// should the lock be held meanwhile, it hangs.
fn use_all(pool: &BudgetPool) {
    drop(pool.record(tokens(1)));
    drop(pool.record_once("key", tokens(1)));
    drop(pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).map(|hold| hold.grow(tokens(1))));
    drop(pool.lease(tokens(1)).record(tokens(2)));
    let (mut wait, mut closed) = (pool.reserve_wait(tokens(50)), pool.closed());
    let mut context = Context::from_waker(Waker::noop());
    drop(Pin::new(&mut wait).poll(&mut context));
    assert_eq!(Pin::new(&mut closed).poll(&mut context).is_ready(), pool.is_closed());
    drop((wait, closed));
    drop(pool.child().tokens(1).carved().build());
    pool.child().deadline(secs(1)).build().close();
    drop(
        pool.raise_caps(Caps::new().tokens(1))
            .and_then(|()| pool.lower_caps(Caps::new().tokens(1))),
    );
    pool.debit(tokens(0));
    assert_eq!((pool.snapshot_tree().len(), pool.snapshot().depth), (1, 0));
    drop(pool.holders());
}

struct InWake;
impl Wake for InWake {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("on purpose"));
    }
}
