//! A wait that is polled by hand, and counts its wakes.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use budget_pool::{Ask, BudgetError, BudgetPool, Reservation, Wait};

pub struct Waiter {
    wait: Pin<Box<Wait>>,
    wakes: Arc<Wakes>,
}

#[derive(Default)]
pub struct Wakes(pub AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Waiter {
    /// Takes its place.
    pub fn queued(pool: &BudgetPool, ask: impl Into<Ask>) -> Waiter {
        let mut waiter = Waiter { wait: Box::pin(pool.reserve_wait(ask)), wakes: Arc::default() };
        assert!(waiter.poll().is_pending());
        waiter
    }

    pub fn poll(&mut self) -> Poll<Result<Reservation, BudgetError>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.wait.as_mut().poll(&mut Context::from_waker(&waker))
    }

    /// What it was granted, and was woken for.
    #[allow(dead_code, reason = "not every test that waits asks so")]
    pub fn granted(&mut self) -> Reservation {
        self.resolved().expect("it is granted")
    }

    /// Why it was refused, which it was woken for.
    #[allow(dead_code, reason = "not every test that waits asks so")]
    pub fn refused(&mut self) -> BudgetError {
        self.resolved().expect_err("it is refused")
    }

    fn resolved(&mut self) -> Result<Reservation, BudgetError> {
        assert_eq!(self.wakes(), 1, "it was woken once");
        match self.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it still waits"),
        }
    }

    pub fn wakes(&self) -> usize {
        self.wakes.0.load(Ordering::SeqCst)
    }
}

/// The timer of a pool whose time is moved by hand: whoever moves the clock touches the pool, so
/// that a sleep need never end.
#[allow(dead_code, reason = "not every test that waits moves the time")]
pub fn by_hand(_: Instant) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(std::future::pending())
}
