//! Who is compared. Every closure is one operation, on one shared object in an `Arc`, and no cap is ever reached.
//!
//! Figures go through `black_box` as a caller would have them, one by one, and the amount is built from them inside the
//! measured code: building it is a part of the price.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Usd};
use criterion::Criterion;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

/// So much that no benchmark spends it.
pub const PLENTY: u64 = u64::MAX / 2;

/// How a contender is measured: alone, or by several threads at once.
pub trait Measure {
    /// Measures `operation` under the name `id`. It says whether it was admitted.
    fn measure(&mut self, id: &str, operation: impl Fn() -> bool + Sync);
}

/// Short enough for the whole run to end in about three minutes.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(400))
        .measurement_time(Duration::from_millis(1_500))
        .sample_size(100)
        .nresamples(5_000)
        .without_plots()
        .configure_from_args()
}

/// A pool with caps on tokens and USD.
pub fn two_axes() -> BudgetPool {
    BudgetPool::builder().tokens(PLENTY).usd(Usd::from_nanos(PLENTY)).build()
}

/// A pool with the caps that `token-budget-pool` knows, and one on requests.
pub fn all_axes() -> BudgetPool {
    BudgetPool::builder()
        .tokens(PLENTY)
        .input_tokens(PLENTY)
        .output_tokens(PLENTY)
        .requests(PLENTY)
        .usd(Usd::from_nanos(PLENTY))
        .build()
}

/// Tokens and USD.
#[inline(always)]
pub fn two() -> Amount {
    Amount::new().tokens(black_box(1_200)).usd(Usd::from_nanos(black_box(3_600_000)))
}

/// Input and output tokens, tokens as their sum, and USD: what one record of `token-budget-pool` says.
#[inline(always)]
pub fn four() -> Amount {
    Amount::new()
        .input_tokens(black_box(1_000))
        .output_tokens(black_box(200))
        .usd(Usd::from_nanos(black_box(3_600_000)))
}

/// Spending for good: ours on two to five axes, the peers with what they have.
///
/// A semaphore only lends, so its permits go back each time.
pub fn record(to: &mut impl Measure) {
    let pool = two_axes();
    to.measure("budget-pool/2 axes", || pool.record(two()).is_ok());
    let pool = all_axes();
    to.measure("budget-pool/4 axes", || pool.record(four()).is_ok());
    let pool = all_axes();
    to.measure("budget-pool/4 axes+requests", || pool.record(four().requests(black_box(1))).is_ok());

    let peer = Arc::new(token_budget_pool::BudgetPool::with_caps(token_budget_pool::Caps {
        max_input_tokens: Some(PLENTY),
        max_output_tokens: Some(PLENTY),
        max_total_tokens: Some(PLENTY),
        max_cost_usd: Some(f64::MAX),
    }));
    to.measure("token-budget-pool/4 axes", || peer.record(black_box(1_000), black_box(200), black_box(0.0036)).is_ok());

    let peer = Arc::new(llm_budget::budget::AtomicBudget::new(1e9).expect("a positive limit"));
    to.measure("llm-budget/charge", || peer.charge(black_box(1e-6)).is_ok());

    let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    to.measure("tokio/try_acquire_many+drop", || peer.try_acquire_many(black_box(1_200)).is_ok());

    // It refills one cell each nanosecond, faster than any number of threads can take one at a time.
    let rate = NonZeroU32::new(1_000_000_000).expect("not zero");
    let peer = Arc::new(RateLimiter::direct(Quota::per_second(rate)));
    to.measure("governor/check_n", || matches!(peer.check_n(black_box(NonZeroU32::MIN)), Ok(Ok(_))));

    let peer = Arc::new(Mutex::new(0_u64));
    to.measure("parking_lot/lock+add", || {
        let mut sum = peer.lock();
        *sum = sum.wrapping_add(black_box(1_200));
        true
    });

    let peer = Arc::new(AtomicU64::new(0));
    to.measure("fetch_add", || {
        peer.fetch_add(black_box(1_200), Ordering::Relaxed);
        true
    });
}

/// Holding first, then settling a smaller figure (ours), or giving back (all).
pub fn reserve(to: &mut impl Measure) {
    let pool = two_axes();
    to.measure("budget-pool/reserve+commit", || {
        let Ok(hold) = pool.reserve(two()) else { return false };
        hold.commit(Amount::new().tokens(black_box(900)).usd(Usd::from_nanos(black_box(2_700_000))));
        true
    });
    let pool = two_axes();
    to.measure("budget-pool/reserve+drop", || pool.reserve(two()).is_ok());

    let peer = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
    to.measure("tokio/try_acquire_many_owned+drop", || {
        Arc::clone(&peer).try_acquire_many_owned(black_box(1_200)).is_ok()
    });
}
