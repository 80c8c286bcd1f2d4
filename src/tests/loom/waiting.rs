//! Waiting. Futures are polled by hand, with wakers that only note that they were woken: whoever
//! has an outcome was told of it, and a wake-up that is lost is missed in the tally. A waker
//! asserts nothing: the pool passes over one that panics.

use std::pin::Pin;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::Mutex;
use loom::sync::atomic::AtomicUsize;

use super::*;
use crate::{Reservation, Wait};

/// A task that notes how often it was woken.
#[derive(Default)]
pub(super) struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Relaxed);
    }
}

impl Task {
    pub(super) fn new() -> Arc<Task> {
        Arc::default()
    }

    pub(super) fn wakes(&self) -> usize {
        self.0.load(Relaxed)
    }
}

pub(super) fn poll<F: Future + Unpin>(future: &mut F, waker: impl Into<Waker>) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(&waker.into()))
}

/// A wait that is polled by hand, by one task.
pub(super) struct Waiter {
    pub(super) wait: Wait,
    pub(super) task: Arc<Task>,
}

impl Waiter {
    pub(super) fn new(pool: &BudgetPool, tokens: u64) -> Waiter {
        Waiter { wait: pool.reserve_wait(super::tokens(tokens)), task: Task::new() }
    }

    /// One that has its place.
    pub(super) fn queued(pool: &BudgetPool, tokens: u64) -> Waiter {
        let mut waiter = Waiter::new(pool, tokens);
        assert!(waiter.poll().is_pending());
        waiter
    }

    pub(super) fn poll(&mut self) -> Poll<Result<Reservation, BudgetError>> {
        poll(&mut self.wait, Arc::clone(&self.task))
    }

    /// Was woken, once, for what it has.
    pub(super) fn outcome(&mut self) -> Result<Reservation, BudgetError> {
        assert_eq!(self.task.wakes(), 1, "one outcome, one wake-up");
        let Poll::Ready(outcome) = self.poll() else { panic!("woken for nothing") };
        outcome
    }
}

pub(super) fn waiting(pool: &BudgetPool) -> u64 {
    pool.snapshot().waiting
}

/// All that may come of a call against the first poll of a wait that it ends: whether the call
/// finds it in line, and whether the poll tells the end of it. It asks and leaves its waker in one
/// step, so that whoever is found in line is woken.
pub(super) const FIRST_POLL: [(&str, &str); 3] =
    [("not asked", "at once"), ("not asked", "woken"), ("queued", "woken")];

/// Makes a call against the first poll of a wait for so much, which is woken only if it was left
/// pending. Returns how it came about, and what came of both.
pub(super) fn against_first_poll<T: 'static>(
    pool: &BudgetPool,
    tokens: u64,
    call: impl FnOnce(&BudgetPool) -> T + Send + 'static,
) -> ((&'static str, &'static str), T, Result<Reservation, BudgetError>) {
    let mut waiter = Waiter::new(pool, tokens);
    let look_and_call = move |pool: &BudgetPool| {
        let before = if waiting(pool) == 0 { "not asked" } else { "queued" };
        (before, call(pool))
    };
    let ((before, called), first) = both(pool, look_and_call, |_| waiter.poll());
    let (told, outcome) = match first {
        Poll::Ready(outcome) => ("at once", outcome),
        Poll::Pending => ("woken", waiter.outcome()),
    };
    assert_eq!(waiter.task.wakes(), if told == "woken" { 1 } else { 0 });
    assert_eq!(waiting(pool), 0);
    ((before, told), called, outcome)
}

/// P3, P6: a wait is dropped while a release grants it. What it was granted, or would have been,
/// the next one has.
#[test]
fn grant_against_cancel() {
    explore(["granted", "cancelled"], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let Waiter { wait, task } = Waiter::queued(&pool, 6);
        let mut next = Waiter::queued(&pool, 6);
        both(&pool, move |_| drop(hold), move |_| drop(wait));

        let granted = next.outcome().unwrap();
        assert_eq!((used_and_reserved(&pool.snapshot()), waiting(&pool)), ((0, 6), 0));
        granted.release();
        assert_eq!(used_and_reserved(&pool.snapshot()), (0, 0));
        if task.wakes() == 1 { "granted" } else { "cancelled" }
    });
}

/// P3, P5, P6: a wait is granted or told that a pool above was closed: one of them, once. Nobody
/// waits in a closed pool.
#[test]
fn grant_against_close() {
    let (start, granted, closed) = ((false, 1), (false, 0), (true, 0));
    let outcomes = [
        ("granted", start),
        ("granted", granted),
        ("granted", closed),
        ("closed", start),
        ("closed", closed),
    ];
    explore(outcomes, || {
        let parent = pool(10);
        let child = parent.child().build();
        let hold = child.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&child, 6);
        let look = |parent: &BudgetPool| {
            let snapshot = parent.snapshot();
            (snapshot.closed, snapshot.waiting)
        };
        let ((), (), seen) = both_watched(&parent, move |_| drop(hold), BudgetPool::close, look);

        let outcome = match waiter.outcome() {
            Ok(granted) => {
                assert_eq!(used_and_reserved(&parent.snapshot()), (0, 6));
                granted.commit_all();
                "granted"
            }
            Err(refusal) => {
                assert_eq!(refusal, BudgetError::Closed { pool: "run".into() });
                "closed"
            }
        };
        assert_eq!(
            used_and_reserved(&parent.snapshot()),
            (if outcome == "granted" { 6 } else { 0 }, 0)
        );
        (outcome, seen)
    });
}

/// P5, P6: two releases serve two waiters: the first of them first, and in the transition that
/// makes the room.
#[test]
fn two_releases_against_two_waiters() {
    let (start, small_released, large_released, end) = ((2, 10), (2, 6), (1, 9), (0, 10));
    explore([start, small_released, large_released, end], move || {
        let pool = pool(10);
        let (small, large) = (pool.reserve(tokens(4)).unwrap(), pool.reserve(tokens(6)).unwrap());
        let mut waiters = [5, 5].map(|tokens| Waiter::queued(&pool, tokens));
        let look = |pool: &BudgetPool| {
            let snapshot = pool.snapshot();
            (snapshot.waiting, used_and_reserved(&snapshot).1)
        };
        let ((), (), seen) = both_watched(&pool, move |_| drop(small), move |_| drop(large), look);

        assert_eq!(look(&pool), end);
        let _granted = waiters.each_mut().map(|waiter| waiter.outcome().unwrap());
        seen
    });
}

/// P6: a thread that waits always ends, whether it asks before the release or after it; so does the
/// one that then waits for it in its turn.
#[test]
fn blocking_against_release() {
    explore(["not asked", "queued"], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let wait = |pool: &BudgetPool| {
            let granted = pool.reserve_blocking(tokens(6)).unwrap();
            assert_eq!(granted.amount(), tokens(6));
        };
        let ((), before) = both(&pool, wait, move |pool| {
            let before = if waiting(pool) == 0 { "not asked" } else { "queued" };
            drop(hold);
            wait(pool);
            before
        });

        assert_eq!((used_and_reserved(&pool.snapshot()), waiting(&pool)), ((0, 0), 0));
        before
    });
}

/// P6: a release may come before the wait asks, between its asking and its leaving a waker, or
/// after it: in all three it has its grant, and is woken only if it was left pending.
#[test]
fn first_poll_against_release() {
    explore(FIRST_POLL, || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let (seen, (), granted) = against_first_poll(&pool, 6, |_| drop(hold));

        assert_eq!(granted.unwrap().amount(), tokens(6));
        assert_eq!(used_and_reserved(&pool.snapshot()), (0, 0));
        seen
    });
}

/// P6: nor does a wait take its place in a pool that is being closed without being told.
#[test]
fn first_poll_against_close() {
    explore(FIRST_POLL, || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let (seen, (), told) = against_first_poll(&pool, 6, BudgetPool::close);

        assert_eq!(told.unwrap_err(), BudgetError::Closed { pool: "run".into() });
        assert_eq!(used_and_reserved(&pool.snapshot()), (0, 10));
        drop(hold);
        seen
    });
}

/// P6: a wait is granted while it is polled by another task: the poll sees it, or the other task is
/// woken. The task before that is woken only for a grant that the poll sees.
#[test]
fn new_waker_against_grant() {
    explore(["seen", "woken"], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let Waiter { mut wait, task: old } = Waiter::queued(&pool, 6);
        let new = Task::new();
        let ((), second) = both(&pool, move |_| drop(hold), |_| poll(&mut wait, Arc::clone(&new)));

        let (outcome, wakes) = if second.is_ready() { ("seen", (1, 0)) } else { ("woken", (0, 1)) };
        assert_eq!((old.wakes(), new.wakes()), wakes);
        let third = poll(&mut wait, new);
        assert!(second.is_ready() != third.is_ready(), "granted once");
        outcome
    });
}

/// P6: a waiter is blocked in its child, then by a sibling, then by the parent itself, in whatever
/// order these give way: it is served by the last.
#[test]
fn waiter_in_child_against_release_above() {
    explore([(1, 10), (1, 7), (1, 4), (1, 3), (0, 8)], || {
        let parent = pool(10);
        let (child, sibling) = (parent.child().tokens(8).build(), parent.child().build());
        let own = child.reserve(tokens(4)).unwrap();
        let (beside, above) =
            (sibling.reserve(tokens(3)).unwrap(), parent.reserve(tokens(3)).unwrap());
        let mut waiter = Waiter::queued(&child, 8);
        let release_two = move |_: &BudgetPool| {
            drop(above);
            drop(own);
        };
        let look = |parent: &BudgetPool| {
            let snapshot = parent.snapshot();
            (snapshot.waiting, snapshot.tokens.reserved)
        };
        let ((), (), seen) = both_watched(&parent, release_two, move |_| drop(beside), look);

        assert_eq!(waiter.outcome().unwrap().amount(), tokens(8));
        assert_eq!(used_and_reserved(&parent.snapshot()), (0, 0));
        seen
    });
}

/// A waker may come back into the pool: this one collects the grant and gives it back at once, so
/// that the next is woken from within it, while another thread is at work there.
#[test]
fn waker_that_comes_back() {
    struct Collects {
        wait: Mutex<Option<Wait>>,
        collected: AtomicBool,
    }

    impl Wake for Collects {
        fn wake(self: Arc<Self>) {
            let Some(mut wait) = self.wait.lock().unwrap().take() else { return };
            let Poll::Ready(Ok(granted)) = poll(&mut wait, Waker::noop().clone()) else { return };
            granted.release();
            self.collected.store(true, Relaxed);
        }
    }

    explore(["admitted", "refused"], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let mut wait = pool.reserve_wait(tokens(6));
        let collects =
            Arc::new(Collects { wait: Mutex::new(None), collected: AtomicBool::new(false) });
        assert!(poll(&mut wait, Arc::clone(&collects)).is_pending());
        *collects.wait.lock().unwrap() = Some(wait);
        let mut next = Waiter::queued(&pool, 6);
        let ((), recorded) =
            both(&pool, move |_| drop(hold), |pool| pool.record(tokens(3)).is_ok());

        assert!(collects.collected.load(Relaxed));
        assert_eq!(next.outcome().unwrap().amount(), tokens(6));
        assert_eq!(used_and_reserved(&pool.snapshot()), (if recorded { 3 } else { 0 }, 0));
        if recorded { "admitted" } else { "refused" }
    });
}

/// Wakers are woken, replaced and dropped outside the pool's lock: they may take one under which
/// others call the pool.
#[test]
fn waker_that_locks_against_call_under_its_lock() {
    struct Locks {
        log: loom::sync::Arc<Mutex<Vec<&'static str>>>,
        name: &'static str,
    }

    impl Locks {
        fn note(&self, what: &'static str) {
            self.log.lock().unwrap().push(what);
        }
    }

    impl Wake for Locks {
        fn wake(self: Arc<Self>) {
            self.note("woken");
        }
    }

    impl Drop for Locks {
        fn drop(&mut self) {
            self.note(self.name);
        }
    }

    let [replaced, cancelled, woken, end] = [1, 2, 3, 4];
    explore(
        [
            (0, false),
            (replaced, false),
            (cancelled, false),
            (cancelled, true),
            (woken, true),
            (end, true),
        ],
        || {
            let pool = pool(10);
            let hold = pool.reserve(tokens(10)).unwrap();
            let log = loom::sync::Arc::new(Mutex::new(Vec::new()));
            let waker =
                |name| Waker::from(Arc::new(Locks { log: loom::sync::Arc::clone(&log), name }));
            let (mut granted, mut cancelled) =
                (pool.reserve_wait(tokens(6)), pool.reserve_wait(tokens(6)));
            assert!(poll(&mut granted, waker("replaced")).is_pending());
            assert!(poll(&mut cancelled, waker("cancelled")).is_pending());
            let other = waker("dropped");
            let all = move |_: &BudgetPool| {
                assert!(poll(&mut granted, other).is_pending());
                drop(cancelled);
                drop(hold);
                granted
            };
            let (granted, seen) = both(&pool, all, |pool| {
                let log = log.lock().unwrap();
                (log.len(), pool.record(tokens(1)).is_ok())
            });

            drop(granted);
            assert_eq!(*log.lock().unwrap(), ["replaced", "cancelled", "woken", "dropped"]);
            seen
        },
    );
}

/// Whoever waits for the end of a pool below sees it at a poll, or the task that polled last is
/// woken.
#[test]
fn closed_against_close() {
    explore([("first", (0, 0)), ("second", (1, 0)), ("neither", (0, 1))], || {
        let parent = pool(10);
        let mut closed = parent.child().build().closed();
        let (old, new) = (Task::new(), Task::new());
        let ((), seen) = both(&parent, BudgetPool::close, |_| {
            let polls = [&old, &new].map(|task| poll(&mut closed, Arc::clone(task)).is_ready());
            match polls {
                [true, true] => "first",
                [false, true] => "second",
                [false, false] => "neither",
                [true, false] => panic!("it was closed"),
            }
        });

        assert!(poll(&mut closed, Arc::clone(&old)).is_ready());
        (seen, (old.wakes(), new.wakes()))
    });
}
