//! What is said of the lock: it is never held while code of the user's runs. Code that calls the
//! pool again would wait for ever otherwise, so that each story has a time in which it must end.
//! (Clocks are in `panics/`, call by call.)

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool};

#[path = "support/watchdog.rs"]
mod watchdog;

use watchdog::ends;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Calls the pool whenever it is run; how often, can be read.
#[derive(Clone, Default)]
struct ComesBack {
    pool: Arc<OnceLock<BudgetPool>>,
    times: Arc<AtomicUsize>,
}

impl ComesBack {
    fn run(&self) {
        if let Some(pool) = self.pool.get() {
            // Takes the lock, and needs no time.
            assert!(!pool.is_closed() || pool.name() == "run");
            self.times.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often since it was last asked.
    fn times(&self) -> usize {
        self.times.swap(0, Ordering::Relaxed)
    }
}

/// Runs when it is woken, and when the last of it is dropped.
struct Waking(ComesBack);

impl Wake for Waking {
    fn wake(self: Arc<Self>) {
        self.0.run();
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.run();
    }
}

/// Polls with a waker of which the pool keeps the last.
fn poll<F: Future + Unpin>(future: &mut F, back: &ComesBack) -> Poll<F::Output> {
    let waker = Waker::from(Arc::new(Waking(back.clone())));
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_waker_may_call_the_pool_when_it_is_woken_and_when_it_is_dropped() {
    ends("a waker", || {
        let back = ComesBack::default();
        let pool = BudgetPool::builder().name("run").tokens(10).build();
        assert!(back.pool.set(pool.clone()).is_ok());
        let child = pool.child().build();

        let held = pool.reserve(tokens(10)).unwrap();
        let mut waits = [&pool, &child, &child].map(|pool| pool.reserve_wait(tokens(4)));
        assert!(waits.iter_mut().all(|wait| poll(wait, &back).is_pending()));
        assert_eq!(back.times(), 0);
        assert!(poll(&mut waits[0], &back).is_pending());
        assert_eq!(back.times(), 1, "replaced");
        let [first, second, mut third] = waits;
        drop(first);
        assert_eq!(back.times(), 1, "given up");
        drop(held);
        assert_eq!(back.times(), 4, "two were woken, and so dropped");
        drop(second);
        assert!(poll(&mut third, &back).is_ready());
        assert_eq!(back.times(), 1, "not needed");

        let mut closed = [child.closed(), pool.closed()];
        assert!(closed.iter_mut().all(|closed| poll(closed, &back).is_pending()));
        assert!(poll(&mut closed[0], &back).is_pending());
        assert_eq!(back.times(), 1, "replaced");
        let [given_up, mut closed] = closed;
        drop(given_up);
        assert_eq!(back.times(), 1, "given up");
        let _held = pool.reserve(tokens(6)).unwrap();
        let mut refused = child.reserve_wait(tokens(5));
        assert!(poll(&mut refused, &back).is_pending());
        pool.close();
        assert_eq!(back.times(), 4, "two were woken");
        assert!(poll(&mut closed, &back).is_ready() && poll(&mut refused, &back).is_ready());
        assert_eq!(back.times(), 2, "not needed");
    });
}

/// A sleep without end.
struct Sleeping(ComesBack);

impl Future for Sleeping {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        self.0.run();
        Poll::Pending
    }
}

impl Drop for Sleeping {
    fn drop(&mut self) {
        self.0.run();
    }
}

#[test]
fn a_timer_and_its_sleep_may_call_the_pool() {
    ends("a timer", || {
        let back = ComesBack::default();
        let timer = back.clone();
        let pool =
            BudgetPool::builder().name("run").tokens(10).deadline(secs(600)).timer(move |_| {
                timer.run();
                Box::pin(Sleeping(timer.clone()))
            });
        let pool = pool.build();
        assert!(back.pool.set(pool.clone()).is_ok());
        let held = pool.reserve(tokens(10)).unwrap();
        let mut waits = [(); 2].map(|()| pool.reserve_wait(tokens(5)));
        for wait in &mut waits {
            assert!(Pin::new(wait).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            assert_eq!(back.times(), 2, "made and polled");
        }
        let [mut granted, given_up] = waits;
        drop(given_up);
        assert_eq!(back.times(), 1, "dropped");
        drop(held);
        assert!(Pin::new(&mut granted).poll(&mut Context::from_waker(Waker::noop())).is_ready());
        assert_eq!(back.times(), 1, "dropped");
    });
}
