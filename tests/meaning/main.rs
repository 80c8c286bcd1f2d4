//! What the pool books is what happened: cases in which somebody's budget was hurt, each with its
//! figures.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::thread;
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, AxisSnapshot, BudgetError, BudgetPool, Caps, Clock, ManualClock, OnDrop,
    Once, Outlook, Receipt, Reservation, Usd, Window,
};

mod caps;
mod credit;
mod holds;
#[path = "../support/invariants.rs"]
mod invariants;
mod on_drop;
mod once;
mod refusals;
mod settlement;
#[path = "../support/waiter.rs"]
mod waiter;

use invariants::check_invariants;
use waiter::{Waiter, by_hand};

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn usd(text: &str) -> Usd {
    text.parse().unwrap()
}

/// Used, reserved, overage, spent.
fn books(axis: AxisSnapshot<u64>) -> [u64; 4] {
    [axis.used, axis.reserved, axis.overage, axis.spent]
}

fn token_books(pool: &BudgetPool) -> [u64; 4] {
    books(pool.snapshot().tokens)
}
