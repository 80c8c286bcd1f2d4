//! The promises P1 to P5, P7 and P8, each by name, through the public API alone.

use std::collections::BTreeSet;
use std::iter::successors;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetExceeded, BudgetPool, Caps, ManualClock, Name, Outlook,
    Snapshot, Usd,
};

mod builders;
mod carved;
mod p1_cap;
mod p2_nothing_lost;
mod p3_no_leak;
mod p4_no_false_refusal;
mod p5_one_instant;
mod p7_clear_refusals;
mod p8_time_only_when_asked;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn usd(nanos: u64) -> Amount {
    Amount::new().usd(Usd::from_nanos(nanos))
}

/// Used, reserved, overage of the tokens.
fn balance(pool: &BudgetPool) -> [u64; 3] {
    let tokens = pool.snapshot().tokens;
    [tokens.used, tokens.reserved, tokens.overage]
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

#[test]
fn p5_a_transfer_out_of_a_share_whose_cap_falls_leaves_no_peak_that_never_was() {
    let root = BudgetPool::builder().tokens(50).build();
    let carved = |parent: &BudgetPool, tokens| parent.child().tokens(tokens).carved().build();
    let above = carved(&root, 16).unwrap();
    let (from, to) = (carved(&above, 9).unwrap(), carved(&root, 14).unwrap());
    above.set_caps(Caps::new().tokens(4)).unwrap();
    root.reset();
    from.transfer(&to, Caps::new().tokens(8)).unwrap();
    let tokens = root.snapshot().tokens;
    assert_eq!((tokens.reserved, tokens.peak), (4 + 22, 4 + 22));
}
