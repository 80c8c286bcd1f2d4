//! Where the time comes from.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::sync::Mutex;

/// A monotonic clock.
///
/// Implemented for [`SystemClock`], for [`ManualClock`], and for any `Fn() -> Instant`, so that a
/// runtime's own time is one closure away: `.clock(|| tokio::time::Instant::now().into_std())`.
///
/// A pool reads it outside its lock, and only if a call must know the time (P8). A clock that
/// panics does so in the caller of an admission, of a build, and of what begins a time or tells one,
/// before anything has changed; to accounting, no time has passed then.
///
/// A clock that runs back is not an error: to the pool, it is then the latest instant that the pool
/// has seen. So one reading far ahead, right or wrong, is believed for good: deadlines pass, holds
/// expire and windows turn at once, and until the clock has caught up nothing more comes back by
/// time. A deadline that is counted from a build meanwhile begins at the reading, as it is the
/// request's, and may have passed at once. A refusal meanwhile says in its
/// [`retry_after`](crate::BudgetError::retry_after) how long that takes, counted from the reading
/// of the call that was refused.
///
/// # A cheaper clock
///
/// The clock is most of a call on a pool with a window or a deadline. A time-stamp counter costs
/// less than the system's clock, here by `quanta` 0.12:
///
/// ```ignore
/// let (counter, start) = (quanta::Clock::new(), Instant::now());
/// let begun = counter.raw();
/// let clock = move || start + Duration::from_nanos(counter.delta_as_nanos(begun, counter.raw()));
/// let pool = BudgetPool::builder().clock(clock).build();
/// ```
///
/// # While the machine sleeps
///
/// [`Instant`] stands still on Linux while the machine is suspended, so that a window of a day turns
/// later by as long as the machine slept. A clock that goes on is again a closure: the start as an
/// `Instant`, and how far `CLOCK_BOOTTIME` has come since, by `rustix` or `nix`. The root's
/// [timer](crate::PoolBuilder::timer) is the runtime's own: a wait that it oversleeps is served by
/// the next call on the pool.
///
/// # Platforms
///
/// On `wasm32-unknown-unknown` the standard library has neither an `Instant` nor threads that park.
/// Pools, holds, leases and async waits work there, as none of them reads the clock. A deadline, a
/// window, a pause, a TTL, a key and [`Ask::wait_at_most`](crate::Ask::wait_at_most) read it and
/// panic in the caller, as `Instant::now` does there, and `reserve_blocking` cannot park. On WASI
/// the clock works, too.
pub trait Clock: Send + Sync {
    /// The present `Instant`.
    fn now(&self) -> Instant;
}

impl<F: Fn() -> Instant + Send + Sync> Clock for F {
    fn now(&self) -> Instant {
        self()
    }
}

/// [`Instant::now`]: the clock of every pool and budget that is not given another.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

/// A clock shared by all that read it. The system's needs no virtual call.
#[derive(Clone, Default)]
pub(crate) struct SharedClock(Option<Arc<dyn Clock>>);

impl SharedClock {
    pub(crate) const SYSTEM: SharedClock = SharedClock(None);

    pub(crate) fn is_system(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn new(clock: impl Clock + 'static) -> SharedClock {
        SharedClock(Some(Arc::new(clock)))
    }

    #[inline]
    pub(crate) fn now(&self) -> Instant {
        match &self.0 {
            Some(clock) => clock.now(),
            None => SystemClock.now(),
        }
    }
}

// It is only read: one that panics leaves nothing half done here.
impl UnwindSafe for SharedClock {}
impl RefUnwindSafe for SharedClock {}

impl fmt::Debug for SharedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Clock(given)" } else { "Clock(system)" })
    }
}

/// A clock for tests: it stands still until [`advance`](ManualClock::advance)d, and only moves
/// forward. Clones of a `ManualClock` are the same clock.
///
/// Time that only passes changes nothing by itself: after `advance`, touch the pool. A blocking wait
/// sleeps in real time until it has to look again. Do not combine the clock with a
/// [`timer`](crate::PoolBuilder::timer) of real time: a wait would then wake again and again for an
/// instant that has come by the one and not by the other.
///
/// ```
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool, ManualClock};
///
/// let clock = ManualClock::new();
/// let pool = BudgetPool::builder().deadline(Duration::from_secs(1)).clock(clock.clone()).build();
///
/// assert!(pool.record(Amount::new().requests(1)).is_ok());
/// clock.advance(Duration::from_secs(1));
/// assert!(pool.record(Amount::new().requests(1)).is_err());
/// ```
#[derive(Clone)]
pub struct ManualClock {
    now: Arc<Mutex<Instant>>,
}

impl ManualClock {
    /// A `ManualClock` that stands at the present instant.
    ///
    /// ```
    /// # use budget_pool::{Clock, ManualClock};
    /// let clock = ManualClock::new();
    /// assert_eq!(clock.now(), clock.now());
    /// ```
    #[must_use]
    pub fn new() -> ManualClock {
        ManualClock { now: Arc::new(Mutex::new(Instant::now())) }
    }

    /// Moves this clock and all its clones forward. An advance past what an [`Instant`] can hold
    /// leaves it where it is.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Clock, ManualClock};
    /// let (clock, twin) = { let clock = ManualClock::new(); (clock.clone(), clock) };
    /// let before = twin.now();
    /// clock.advance(Duration::from_secs(5));
    /// assert_eq!(twin.now() - before, Duration::from_secs(5));
    /// ```
    pub fn advance(&self, by: Duration) {
        let mut now = self.now.lock();
        *now = now.checked_add(by).unwrap_or(*now);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        *self.now.lock()
    }
}

// The instant is replaced as a whole.
impl UnwindSafe for ManualClock {}
impl RefUnwindSafe for ManualClock {}

impl Default for ManualClock {
    fn default() -> ManualClock {
        ManualClock::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ManualClock").field(&self.now()).finish()
    }
}

#[cfg(all(test, not(budget_pool_loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_stands_until_it_is_advanced_and_its_clones_with_it() {
        let clock = ManualClock::new();
        let (same, start) = (clock.clone(), clock.now());
        std::thread::sleep(Duration::from_millis(1));
        assert_eq!((clock.now(), same.now()), (start, start));
        same.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), start + Duration::from_secs(5));
        clock.advance(Duration::MAX);
        assert_eq!(clock.now(), start + Duration::from_secs(5), "as far as that it cannot go");
    }

    #[test]
    fn the_systems_clock_and_a_closure_are_clocks() {
        let before = Instant::now();
        let closure = move || before;
        assert!(SystemClock.now() >= before && Clock::now(&closure) == before);
    }
}
