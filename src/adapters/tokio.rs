//! Time from the tokio runtime that polls.

use tokio::runtime::Handle;
use tokio::task::unconstrained;
use tokio::time::{Instant, sleep_until};

use crate::builder::{PoolBuilder, Root};

impl PoolBuilder<Root> {
    /// Takes the time from tokio: async waits sleep by the timer of the runtime that polls them
    /// first, and the [`clock`](PoolBuilder::clock) is tokio's, so that both stand still and move on
    /// together in a test whose time is paused. It replaces a clock and a
    /// [`timer`](PoolBuilder::timer) that were set before.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, BudgetPool, Window};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
    /// // In a test under `#[tokio::test(start_paused = true)]`, a day is over at once.
    /// let day = Duration::from_secs(86_400);
    /// let pool = BudgetPool::builder().tokens(1_000).window(Window::fixed(day)).tokio().build();
    ///
    /// pool.record(Amount::new().tokens(1_000))?;
    /// let start = tokio::time::Instant::now();
    /// pool.record_wait(Amount::new().tokens(1)).await?;
    /// assert!(start.elapsed() >= day);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// # }).unwrap();
    /// ```
    ///
    /// No runtime is needed to build the pool, for calls that do not wait, and for blocking waits. A
    /// thread outside of a runtime reads the time of the system, which paused time does not move. An
    /// async wait that is polled there, by another executor, is refused with
    /// [`NoTimer`](crate::BudgetError::NoTimer) where time may have to end it. A runtime that was
    /// built without its timer, by a `Builder` without `enable_time`, panics in the poll of such a
    /// wait.
    ///
    /// A wait, or a [`run`](crate::BudgetPool::run), that goes on in another runtime keeps the sleep
    /// that it began in the first. Time ends it only while the first runtime is driven. Once that
    /// runtime was dropped, a wait takes a sleep of the one that polls it, and the poll of a `run`
    /// panics. A current-thread runtime polls the sleep of such a wait as it is dropped: tokio panics
    /// there, which is contained, but for what the panic hook prints, and for `panic = "abort"`.
    ///
    /// A thread of `spawn_blocking` is inside of its runtime. While it runs, tokio lets no paused
    /// time pass by itself: a blocking wait there that needs time ends once the test calls
    /// `tokio::time::advance`.
    ///
    /// A [`DeadlineBudget`](crate::DeadlineBudget) of paused time takes the same clock:
    /// `.clock(|| tokio::time::Instant::now().into_std())`.
    pub fn tokio(self) -> Self {
        self.clock(|| Instant::now().into_std()).timer_where(
            || Handle::try_current().is_ok(),
            // It begins at its first poll, though the budget of the task be used up.
            |until| Box::pin(unconstrained(sleep_until(until.into()))),
        )
    }
}
