//! Time: holds that expire, caps that come back, calls that count once, waits that time ends;
//! through the public API alone.

use std::any::Any;
use std::mem::forget;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Clock, Keyed, Lease, ManualClock, OnDrop,
    Outlook, PoolBuilder, Receipt, Reservation, Root, Usd, Window,
};

mod a_clock_that_panics;
mod once;
mod p8_time_only_when_asked;
mod reclaiming;
mod retry_after;
mod ttl;
#[path = "../support/waiter.rs"]
mod waiter;
mod waiters;
mod windows;

use waiter::{Waiter, by_hand};

const NANO: Duration = Duration::from_nanos(1);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn spent(pool: &BudgetPool) -> u64 {
    pool.snapshot().tokens.spent
}

fn pool_of(cap: u64) -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let pool =
        BudgetPool::builder().name("run").tokens(cap).clock(clock.clone()).timer(by_hand).build();
    (clock, pool)
}

fn windowed(cap: u64, window: Window) -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("run")
        .tokens(cap)
        .window(window)
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    (clock, pool)
}

/// A clock, and how often it was read.
struct Counting {
    clock: ManualClock,
    reads: Arc<AtomicU64>,
}

impl Counting {
    fn new() -> Counting {
        Counting { clock: ManualClock::new(), reads: Arc::default() }
    }

    fn clock(&self) -> impl Clock + 'static {
        let (clock, reads) = (self.clock.clone(), Arc::clone(&self.reads));
        move || {
            reads.fetch_add(1, Ordering::Relaxed);
            clock.now()
        }
    }

    /// Since it was last asked.
    fn reads(&self) -> u64 {
        self.reads.swap(0, Ordering::Relaxed)
    }
}

/// Many holds that expire in a second. A call that need not reclaim all reclaims only some of
/// these, and nothing that expires later.
fn due_before(pool: &BudgetPool) {
    (0..20).for_each(|_| forget(pool.reserve(Ask::new(Amount::new()).ttl(secs(1))).unwrap()));
}

/// The hold on `run` has expired.
fn is_expired(refusal: &BudgetError) -> bool {
    matches!(refusal, BudgetError::Expired { pool, .. } if pool == "run")
}
