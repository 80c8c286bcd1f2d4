//! Leases, by promise and through the public API alone: one behaviour at a time, then under
//! threads. What comes of any sequence of calls is the work of `tests/model/`.

#![allow(clippy::needless_range_loop, reason = "an axis is an index into several")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Lease, ManualClock, Outlook, Reservation,
    Usd, Wait, Window,
};

mod how_much_can_be_stranded;
mod many_workers;
mod p1_cap;
mod p1_exactness_under_load;
mod p2_nothing_lost;
mod p3_no_leak;
mod p4_no_false_refusal;
mod p6_fair_waiting;
mod p7_clear_refusals;
mod p8_time;
mod pools_under_pools;
#[path = "../support/random.rs"]
mod random;
mod types;

use random::Dice;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn both(tokens: u64, requests: u64) -> Amount {
    Amount::new().tokens(tokens).requests(requests)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

/// A lease whose share is its whole batch: its first record, of one token, has filled it.
fn filled(pool: &BudgetPool, batch: Amount) -> Lease {
    let mut lease = pool.lease(batch);
    lease.record(tokens(1)).unwrap();
    assert_eq!(lease.remaining(), batch, "an eighth of what is free is no less");
    lease
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn poll(wait: &mut Wait) -> Poll<Result<Reservation, BudgetError>> {
    Pin::new(wait).poll(&mut Context::from_waker(Waker::noop()))
}

/// A wait that has its place.
fn queued(pool: &BudgetPool, amount: Amount) -> Wait {
    let mut wait = pool.reserve_wait(amount);
    assert!(poll(&mut wait).is_pending());
    wait
}

fn granted(wait: &mut Wait) -> Reservation {
    match poll(wait) {
        Poll::Ready(Ok(hold)) => hold,
        other => panic!("{other:?}"),
    }
}

fn outlook(refused: Result<(), BudgetError>) -> Outlook {
    match refused {
        Err(BudgetError::Exceeded(refusal)) => refusal.outlook(),
        other => panic!("{other:?}"),
    }
}

const PAIR: [Axis; 2] = [Axis::Tokens, Axis::Requests];

/// On each of the pair.
fn units(amount: Amount) -> [u64; 2] {
    PAIR.map(|axis| amount.get(axis).map_or(0, |quantity| quantity.units()))
}

fn amount([tokens, requests]: [u64; 2]) -> Amount {
    both(tokens, requests)
}
