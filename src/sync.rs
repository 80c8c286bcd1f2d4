//! The lock, a flag and the reference count: parking_lot's and the standard library's, or loom's when models run.

#[cfg(not(all(test, budget_pool_loom)))]
pub(crate) use {
    parking_lot::{Mutex, MutexGuard},
    std::sync::Arc,
    std::sync::atomic::AtomicBool,
};

#[cfg(all(test, budget_pool_loom))]
pub(crate) use self::loom_mutex::Mutex;
#[cfg(all(test, budget_pool_loom))]
pub(crate) use loom::sync::{Arc, MutexGuard, atomic::AtomicBool};

/// A waker that unparks the present thread, and how to park it.
pub(crate) mod thread {
    use std::task::{Wake, Waker};
    use std::time::Duration;

    #[cfg(all(test, budget_pool_loom))]
    use super::loom_thread::{self as thread, Thread};
    #[cfg(not(all(test, budget_pool_loom)))]
    use std::thread::{self, Thread};

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
            #[cfg(not(all(test, budget_pool_loom)))]
            Some(timeout) => thread::park_timeout(timeout),
            _ => thread::park(),
        }
    }
}

/// Loom's mutex with parking_lot's signature; there is no poison, either.
#[cfg(all(test, budget_pool_loom))]
mod loom_mutex {
    #[derive(Debug)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
        }
    }
}

/// Parks as the standard library does. Loom's own `park` forgets that it was told not to, should the thread meet a lock in
/// between. It returns early now and then.
#[cfg(all(test, budget_pool_loom))]
mod loom_thread {
    use std::sync::Arc;

    use loom::sync::Notify;

    loom::thread_local! {
        static TOKEN: Arc<Notify> = Arc::new(Notify::new());
    }

    pub(crate) struct Thread(Arc<Notify>);

    impl Thread {
        pub(crate) fn unpark(&self) {
            self.0.notify();
        }
    }

    pub(crate) fn current() -> Thread {
        Thread(TOKEN.with(Arc::clone))
    }

    pub(crate) fn park() {
        TOKEN.with(|token| token.wait());
    }
}
