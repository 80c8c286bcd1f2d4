//! What a semaphore promises, promised by a pool of slots: the tests of `tokio::sync::Semaphore`,
//! by their names, so that whoever moves here finds each of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use budget_pool::{Amount, BudgetError, BudgetPool, Caps, Reservation};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;

use invariants::check_invariants;
use waiter::Waiter;

fn semaphore(permits: u64) -> BudgetPool {
    BudgetPool::builder().name("permits").in_flight(permits).build()
}

/// So many permits at once.
fn many(permits: u64) -> Amount {
    Amount::new().in_flight(permits)
}

fn available(pool: &BudgetPool) -> u64 {
    pool.snapshot().in_flight.available.expect("it has a cap")
}

fn still_waits(waiter: &mut Waiter) -> bool {
    waiter.wakes() == 0 && waiter.poll().is_pending()
}

#[test]
fn no_permits() {
    // There can be none: it is no wait for ever, as with tokio, but a refusal.
    let pool = semaphore(0);
    assert!(matches!(pool.reserve_blocking(many(1)), Err(BudgetError::Exceeded(_))));
    pool.reserve_blocking(many(0)).unwrap().release();
}

#[test]
fn try_acquire() {
    let pool = semaphore(1);
    {
        let first = pool.reserve(many(1));
        assert!(first.is_ok());
        assert!(pool.reserve(many(1)).is_err());
    }
    assert!(pool.reserve(many(1)).is_ok());
}

#[test]
fn try_acquire_many() {
    let pool = semaphore(42);
    {
        let first = pool.reserve(many(42));
        assert!(first.is_ok());
        assert!(pool.reserve(many(1)).is_err());
    }
    assert!(pool.reserve(many(32)).is_ok());
    {
        let _first = pool.reserve(many(32)).unwrap();
        assert!(pool.reserve(many(10)).is_ok());
        assert!(pool.reserve(many(11)).is_err());
        assert!(pool.reserve(many(10)).is_ok(), "one that is refused takes nothing");
    }
    assert_eq!(available(&pool), 42);
}

#[tokio::test]
async fn acquire() {
    let pool = semaphore(1);
    let first = pool.reserve(many(1)).unwrap();
    let theirs = pool.clone();
    let task = tokio::spawn(async move { theirs.reserve_wait(many(1)).await.map(drop) });
    drop(first);
    task.await.unwrap().unwrap();
    assert_eq!(available(&pool), 1);
}

#[tokio::test]
async fn acquire_many() {
    let pool = semaphore(42);
    let most = pool.reserve(many(32)).unwrap();
    let theirs = pool.clone();
    let (acquired, is_acquired) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move {
        let _ten = theirs.reserve_wait(many(10)).await.unwrap();
        acquired.send(()).unwrap();
        let _rest = theirs.reserve_wait(many(32)).await.unwrap();
    });
    is_acquired.await.unwrap();
    drop(most);
    task.await.unwrap();
    assert_eq!(available(&pool), 42);
}

#[test]
fn acquire_order() {
    let pool = semaphore(1);
    let mut held = Some(pool.reserve(many(1)).unwrap());
    let mut waiters: Vec<Waiter> = (0..100).map(|_| Waiter::queued(&pool, many(1))).collect();
    for next in 0..waiters.len() {
        drop(held.take());
        held = Some(waiters[next].granted());
        assert!(waiters[next + 1..].iter_mut().all(still_waits), "{next} had its turn");
    }
}

/// One of many permits stands before many of one: none of them passes it, and it passes none.
#[test]
fn acquire_many_is_not_starved() {
    let pool = semaphore(5);
    let mut held: Vec<Reservation> = (0..5).map(|_| pool.reserve(many(1)).unwrap()).collect();
    let mut early = Waiter::queued(&pool, many(1));
    let mut large = Waiter::queued(&pool, many(5));
    let mut late: Vec<Waiter> = (0..5).map(|_| Waiter::queued(&pool, many(1))).collect();
    held.pop();
    held.push(early.granted());
    while held.pop().is_some() {
        assert_eq!(large.wakes(), u64::from(held.is_empty()) as usize, "{} are held", held.len());
        assert!(pool.reserve(many(1)).is_err(), "nor does a call that does not wait");
        assert!(late.iter_mut().all(still_waits));
    }
    large.granted().release();
    let granted: Vec<Reservation> = late.iter_mut().map(Waiter::granted).collect();
    assert_eq!((granted.len(), available(&pool)), (5, 0));
}

#[test]
fn cancel_acquire_releases_permits() {
    let pool = semaphore(10);
    let held = pool.reserve(many(4)).unwrap();
    let large = Waiter::queued(&pool, many(8));
    assert_eq!(available(&pool), 6, "one that waits holds nothing");
    assert!(pool.reserve(many(1)).is_err());
    drop(large);
    assert_eq!((available(&pool), pool.snapshot().waiting), (6, 0));
    pool.reserve(many(6)).unwrap().release();
    drop(held);
    assert_eq!(available(&pool), 10);
}

/// From the front, from the middle and from the end of the line.
#[test]
fn cancelled_waiters_leave_no_trace() {
    for leaves in [0, 2, 4] {
        let pool = semaphore(2);
        let held = pool.reserve(many(2)).unwrap();
        let mut waiters: Vec<Waiter> = (0..5).map(|_| Waiter::queued(&pool, many(1))).collect();
        drop(waiters.remove(leaves));
        assert_eq!(pool.snapshot().waiting, 4);
        drop(held);
        let [first, second, third, fourth] = &mut waiters[..] else {
            unreachable!("four are left")
        };
        let granted = [first.granted(), second.granted()];
        assert!(still_waits(third) && still_waits(fourth));
        drop(granted);
        drop([third.granted(), fourth.granted()]);
        check_invariants(&pool);
        assert_eq!((available(&pool), pool.snapshot().waiting), (2, 0));
    }
}

/// A task is polled for whatever reason it likes.
#[test]
fn a_poll_for_nothing_changes_nothing() {
    let pool = semaphore(1);
    let held = pool.reserve(many(1)).unwrap();
    let mut first = Waiter::queued(&pool, many(1));
    let mut second = Waiter::queued(&pool, many(1));
    for _ in 0..10 {
        assert!(still_waits(&mut second) && still_waits(&mut first));
    }
    drop(held);
    assert_eq!(second.wakes(), 0);
    first.granted().release();
    second.granted().release();
}

/// Only the task that polled last is woken.
#[test]
fn a_wait_moves_to_another_task() {
    let pool = semaphore(1);
    let held = pool.reserve(many(1)).unwrap();
    let mut wait = Box::pin(pool.reserve_wait(many(1)));
    let [old, new] = [(); 2].map(|()| Arc::<waiter::Wakes>::default());
    for waker in [&old, &new] {
        let waker = Waker::from(Arc::clone(waker));
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    drop(held);
    let wakes = [old, new].map(|wakes| wakes.0.load(Ordering::SeqCst));
    assert_eq!(wakes, [0, 1]);
    assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready());
}

#[test]
fn one_that_is_dropped_after_its_grant_gives_it_to_the_next() {
    let pool = semaphore(1);
    let held = pool.reserve(many(1)).unwrap();
    let first = Waiter::queued(&pool, many(1));
    let mut second = Waiter::queued(&pool, many(1));
    drop(held);
    assert_eq!((first.wakes(), second.wakes()), (1, 0));
    drop(first);
    second.granted().release();
    assert_eq!(available(&pool), 1);
}

/// A wait that was never polled has no place.
#[test]
fn one_that_was_never_polled_waits_for_nothing() {
    let pool = semaphore(1);
    let idle = pool.reserve_wait(many(1));
    let held = pool.reserve(many(1)).unwrap();
    drop(held);
    pool.reserve(many(1)).unwrap().release();
    drop(idle);
    assert_eq!((available(&pool), pool.snapshot().waiting), (1, 0));
}

/// A permit that is forgotten is gone, until the cap says otherwise.
#[test]
fn forget() {
    let pool = semaphore(1);
    std::mem::forget(pool.reserve(many(1)).unwrap());
    assert_eq!(available(&pool), 0);
    assert!(pool.reserve(many(1)).is_err());
    pool.raise_caps(Caps::new().in_flight(1)).unwrap();
    pool.reserve(many(1)).unwrap().release();
}

#[test]
fn add_permits() {
    let pool = semaphore(1);
    let held = pool.reserve(many(1)).unwrap();
    let mut waiter = Waiter::queued(&pool, many(1));
    pool.raise_caps(Caps::new().in_flight(1)).unwrap();
    let second = waiter.granted();
    drop((held, second));
    assert_eq!(available(&pool), 2);
}

#[test]
fn forget_permits() {
    let pool = semaphore(10);
    assert_eq!(pool.lower_caps_up_to(Caps::new().in_flight(4)), Caps::new().in_flight(4));
    let held = pool.reserve(many(6)).unwrap();
    assert_eq!(pool.lower_caps_up_to(Caps::new().in_flight(4)), Caps::new().in_flight(0));
    drop(held);
    assert_eq!(available(&pool), 6);
}

#[test]
fn merge_and_split() {
    let pool = semaphore(4);
    let first = pool.reserve(many(2)).unwrap();
    first.merge(pool.reserve(many(2)).unwrap()).unwrap();
    assert_eq!((first.amount(), available(&pool)), (many(4), 0));
    let second = first.split(many(3)).unwrap();
    assert_eq!(available(&pool), 0);
    drop(first);
    assert_eq!(available(&pool), 1);
    drop(second);
    assert_eq!(available(&pool), 4);
}

#[test]
fn close_while_waiting() {
    let pool = semaphore(1);
    let held = pool.reserve(many(1)).unwrap();
    let mut waiters: Vec<Waiter> = (0..10).map(|_| Waiter::queued(&pool, many(1))).collect();
    pool.close();
    for waiter in &mut waiters {
        assert!(matches!(waiter.refused(), BudgetError::Closed { .. }));
    }
    assert!(matches!(pool.reserve(many(1)), Err(BudgetError::Closed { .. })));
    drop(held);
    assert_eq!((available(&pool), pool.snapshot().waiting), (1, 0));
    assert!(matches!(pool.reserve_blocking(many(1)), Err(BudgetError::Closed { .. })));
}

/// More tasks than permits, some of which give up half way: never more than there are, and all come
/// back.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn stresstest() {
    const PERMITS: u64 = 5;
    const TASKS: u64 = 40;
    const TURNS: u64 = 200;
    let (pool, running) = (semaphore(PERMITS), Arc::new(AtomicU64::new(0)));
    let tasks = (0..TASKS).map(|task| {
        let (pool, running) = (pool.clone(), Arc::clone(&running));
        tokio::spawn(async move {
            let mut done = 0;
            for turn in 0..TURNS {
                let permits = 1 + (task + turn) % 3;
                let mut wait = pool.reserve_wait(many(permits));
                if (task + turn) % 7 == 0 {
                    // It takes its place, and leaves it.
                    let polled = Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
                    tokio::task::yield_now().await;
                    drop((polled, wait));
                    continue;
                }
                let hold = wait.await.unwrap();
                let now = running.fetch_add(permits, Ordering::SeqCst) + permits;
                assert!(now <= PERMITS, "{now} run at once");
                tokio::task::yield_now().await;
                running.fetch_sub(permits, Ordering::SeqCst);
                hold.release();
                done += 1;
            }
            done
        })
    });
    let mut done = 0;
    for task in tasks.collect::<Vec<_>>() {
        done += task.await.unwrap();
    }
    assert!(done > TASKS * TURNS / 2);
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.reservations, snapshot.waiting, available(&pool)), (0, 0, PERMITS));
    check_invariants(&pool);
}

/// The same by threads that park.
#[test]
fn stresstest_of_threads() {
    const PERMITS: u64 = 3;
    let (pool, running) = (semaphore(PERMITS), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (pool, running) = (&pool, &running);
            scope.spawn(move || {
                for turn in 0..300 {
                    let permits = 1 + (thread + turn) % PERMITS;
                    let hold = pool.reserve_blocking(many(permits)).unwrap();
                    let now = running.fetch_add(permits, Ordering::SeqCst) + permits;
                    assert!(now <= PERMITS, "{now} run at once");
                    std::thread::yield_now();
                    running.fetch_sub(permits, Ordering::SeqCst);
                    hold.release();
                }
            });
        }
    });
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.released, snapshot.waiting, available(&pool)), (2_400, 0, PERMITS));
}

/// A poll that is ready is ready once: what it has is its caller's.
#[test]
fn a_grant_is_collected_once() {
    let pool = semaphore(1);
    let held = pool.reserve(many(1)).unwrap();
    let mut waiter = Waiter::queued(&pool, many(1));
    drop(held);
    let hold = waiter.granted();
    assert!(matches!(waiter.poll(), Poll::Pending));
    hold.release();
    assert!(matches!(waiter.poll(), Poll::Pending));
    assert_eq!(available(&pool), 1);
}
