//! The lock, a flag, the reference count, and how a thread sleeps: parking_lot's and the standard
//! library's; but loom's where models run, and shuttle's where schedules do.

#[cfg(not(all(test, any(budget_pool_loom, budget_pool_shuttle))))]
mod backend {
    pub(crate) use std::sync::{Arc, atomic::AtomicBool};
    pub(crate) use std::thread;

    pub(crate) use parking_lot::{Mutex, MutexGuard};
}

#[cfg(all(test, any(budget_pool_loom, budget_pool_shuttle)))]
#[path = "sync/explored.rs"]
mod backend;

pub(crate) use backend::{Arc, AtomicBool, Mutex, MutexGuard};

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
