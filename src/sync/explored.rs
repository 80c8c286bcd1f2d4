//! The same of loom or shuttle, whichever explores: to both, a thread is what they make one, and
//! time does not pass.

#[cfg(budget_pool_loom)]
use loom as explorer;
#[cfg(not(budget_pool_loom))]
use shuttle as explorer;

use std::sync::Weak;
use std::sync::atomic::Ordering::SeqCst;

pub(crate) use explorer::sync::{
    Arc, MutexGuard, RwLockReadGuard, RwLockWriteGuard, atomic::AtomicBool,
};

/// Their mutex with parking_lot's signature; there is no poison, either.
#[derive(Debug)]
pub(crate) struct Mutex<T>(explorer::sync::Mutex<T>);

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Mutex<T> {
        Mutex(explorer::sync::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Their lock for readers and a writer, in the same way.
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(explorer::sync::RwLock<T>);

impl<T> RwLock<T> {
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Any thread may be the next: all of that is explored.
pub(crate) fn hand_over<T>(guard: MutexGuard<'_, T>) {
    drop(guard);
}

pub(crate) fn hand_over_written<T>(guard: RwLockWriteGuard<'_, T>) {
    drop(guard);
}

explorer::lazy_static! {
    /// Stands for the counts of handles, which are the standard library's.
    static ref COUNTS: AtomicBool = AtomicBool::new(false);
}

/// A thread that is about to take the last handle of a value may be overtaken by one that is about
/// to take one more. The explorers switch threads at their own operations alone, and loom only
/// where two threads touch the same.
fn touch_counts() {
    COUNTS.store(true, SeqCst);
}

pub(crate) fn take_last<T>(handle: std::sync::Arc<T>) -> Result<T, std::sync::Arc<T>> {
    touch_counts();
    std::sync::Arc::try_unwrap(handle)
}

pub(crate) fn upgrade<T>(handle: &Weak<T>) -> Option<std::sync::Arc<T>> {
    touch_counts();
    handle.upgrade()
}

/// Parks as the standard library does, but never returns early, so that a wake-up that is lost is
/// not made good by chance. (Besides, loom's own `park` forgets that it was told not to, should the
/// thread meet a lock in between.)
pub(crate) mod thread {
    use std::sync::Arc;
    use std::time::Duration;

    use super::Mutex;
    use super::explorer::{self, sync::Condvar};

    explorer::thread_local! {
        static CURRENT: Thread = Thread(Arc::new((Mutex::new(false), Condvar::new())));
    }

    /// Whether it was told not to park, or to go on.
    #[derive(Clone)]
    pub(crate) struct Thread(Arc<(Mutex<bool>, Condvar)>);

    impl Thread {
        pub(crate) fn unpark(&self) {
            let (is_told, changed) = &*self.0;
            *is_told.lock() = true;
            changed.notify_one();
        }
    }

    pub(crate) fn current() -> Thread {
        CURRENT.with(Thread::clone)
    }

    pub(crate) fn park() {
        let (is_told, changed) = &*current().0;
        let mut is_told = is_told.lock();
        while !*is_told {
            is_told = changed.wait(is_told).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        *is_told = false;
    }

    /// Time does not pass: only who is woken goes on.
    pub(crate) fn park_timeout(_: Duration) {
        park();
    }
}
