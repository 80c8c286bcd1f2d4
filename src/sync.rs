//! The locks, a flag, the reference count, and how a thread sleeps: parking_lot's and the standard
//! library's; but loom's where models run, and shuttle's where schedules do. And how a task yields,
//! which only tokio knows.

#[cfg(feature = "tokio")]
use std::task::ready;
use std::task::{Context, Poll};

#[cfg(not(all(test, any(budget_pool_loom, budget_pool_shuttle))))]
mod backend {
    use std::sync::Weak;
    pub(crate) use std::sync::{Arc, atomic::AtomicBool};
    pub(crate) use std::thread;

    pub(crate) use parking_lot::{Mutex, MutexGuard, RwLock, RwLockWriteGuard};

    /// Lets go of a lock, and hands it to the thread that has waited for it, if one has.
    pub(crate) fn hand_over<T>(guard: MutexGuard<'_, T>) {
        MutexGuard::unlock_fair(guard);
    }

    /// The same to those that have waited to read or to write.
    pub(crate) fn hand_over_written<T>(guard: RwLockWriteGuard<'_, T>) {
        RwLockWriteGuard::unlock_fair(guard);
    }

    /// Takes a value out of its last handle.
    pub(crate) fn take_last<T>(handle: Arc<T>) -> Result<T, Arc<T>> {
        Arc::try_unwrap(handle)
    }

    /// One more handle of a value, if there is any.
    pub(crate) fn upgrade<T>(handle: &Weak<T>) -> Option<Arc<T>> {
        handle.upgrade()
    }
}

#[cfg(all(test, any(budget_pool_loom, budget_pool_shuttle)))]
#[path = "sync/explored.rs"]
mod backend;

pub(crate) use backend::{
    Arc, AtomicBool, Mutex, MutexGuard, RwLock, hand_over, hand_over_written, take_last, upgrade,
};

/// Takes part in the cooperative budget of a tokio task for one poll, where the feature `tokio` is
/// on: a task that is granted one wait after the other yields to the other tasks of its thread. It
/// is here and not with the adapters because waits are below them.
#[cfg(feature = "tokio")]
pub(crate) fn cooperative<T>(
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    let budget = ready!(tokio::task::coop::poll_proceed(context));
    let poll = poll(context);
    if poll.is_ready() {
        budget.made_progress();
    }
    poll
}

#[cfg(not(feature = "tokio"))]
#[inline(always)]
pub(crate) fn cooperative<T>(
    context: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<T> {
    poll(context)
}

/// A waker that unparks the present thread, and how to park it.
pub(crate) mod thread {
    use std::task::{Wake, Waker};
    use std::time::Duration;

    use super::backend::thread::{self, Thread};

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }

    pub(crate) fn unparker() -> Waker {
        Waker::from(std::sync::Arc::new(Unpark(thread::current())))
    }

    /// Until woken, or for so long; it may return early.
    pub(crate) fn park(timeout: Option<Duration>) {
        match timeout {
            Some(timeout) => thread::park_timeout(timeout),
            None => thread::park(),
        }
    }
}
