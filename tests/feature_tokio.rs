//! The feature `tokio`: time from the runtime, and waits that leave room for other tasks.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{Amount, Ask, Axis, BudgetError, BudgetPool, Level, PoolBuilder, Root, Window};
use tokio::time::{Instant, advance, sleep, timeout};

#[path = "support/comes_back.rs"]
mod comes_back;
#[path = "support/used_up.rs"]
mod used_up;
#[path = "support/watchdog.rs"]
mod watchdog;

use used_up::polls_used_up;

const ONE: Amount = Amount::new().tokens(1);
const DAY: Duration = Duration::from_secs(86_400);

fn ten() -> PoolBuilder<Root> {
    BudgetPool::builder().name("run").tokens(10).tokio()
}

/// Runs a loop without end beside another task of its thread, and returns how often that one ran.
fn beside<F: Future>(mut turn: impl FnMut() -> F + Send + 'static) -> u32 {
    watchdog::ends("a loop of waits", move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let ran = Rc::new(Cell::new(0));
            let count = Rc::clone(&ran);
            let other = tokio::task::spawn_local(async move {
                loop {
                    count.set(count.get() + 1);
                    tokio::task::yield_now().await;
                }
            });
            let endless = async {
                loop {
                    turn().await;
                }
            };
            timeout(Duration::from_millis(200), endless).await.expect_err("it has no end");
            other.abort();
            ran.get()
        })
    })
}

#[test]
fn a_loop_of_granted_waits_leaves_room_for_its_timeout_and_for_other_tasks() {
    let pool = BudgetPool::builder().tokens(10).build();
    let looping = pool.clone();
    let ran = beside(move || {
        let wait = looping.reserve_wait(ONE);
        async { wait.await.unwrap().release() }
    });
    assert!(ran > 10, "the other task ran {ran} times");
    let looping = pool.clone();
    let ran = beside(move || {
        let wait = looping.record_wait(Amount::new().requests(1));
        async { wait.await.unwrap() }
    });
    assert!(ran > 10, "the other task ran {ran} times");
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.waiting, snapshot.reservations), (0, 0));
}

/// Each is ready at its first poll, again and again.
#[test]
fn a_loop_of_watches_leaves_room_for_its_timeout_and_for_other_tasks() {
    let low = BudgetPool::builder().tokens(10).low(ONE).build();
    low.record(Amount::new().tokens(10)).unwrap();
    let pool = low.clone();
    let ran = beside(move || {
        let reached = pool.reached(Level::percent(Axis::Tokens, 80));
        async { drop(reached.await) }
    });
    assert!(ran > 10, "the other task ran {ran} times");
    let pool = low.clone();
    let ran = beside(move || {
        let wants = pool.wants();
        async { assert!(wants.await.low) }
    });
    assert!(ran > 10, "the other task ran {ran} times");
    low.close();
    let ran = beside(move || low.closed());
    assert!(ran > 10, "the other task ran {ran} times");
}

#[tokio::test]
async fn a_watch_that_yields_is_told_by_its_next_poll() {
    let pool = BudgetPool::builder().tokens(10).build();
    pool.record(Amount::new().tokens(10)).unwrap();
    let level = || pool.reached(Level::percent(Axis::Tokens, 100));
    let mut yielding = poll_fn(|context| {
        for _ in 0..999 {
            let mut reached = level();
            if pin!(&mut reached).poll(context).is_pending() {
                return Poll::Ready(reached);
            }
        }
        panic!("it never yields");
    })
    .await;
    tokio::task::yield_now().await;
    assert_eq!((&mut yielding).await.tokens.used, 10);
}

#[tokio::test]
async fn a_wait_that_yields_has_no_place_and_loses_nothing() {
    let pool = BudgetPool::builder().tokens(1_000).build();
    let mut granted = Vec::new();
    poll_fn(|context| {
        // 128 is tokio's own figure: it may be another one some day.
        for _ in 0..999 {
            match pin!(pool.reserve_wait(ONE)).poll(context) {
                Poll::Ready(hold) => granted.push(hold.unwrap()),
                Poll::Pending => return Poll::Ready(()),
            }
        }
        panic!("it never yields");
    })
    .await;
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.waiting, snapshot.tokens.reserved), (0, granted.len() as u64));
    tokio::task::yield_now().await;
    pool.reserve_wait(ONE).await.unwrap().release();
}

#[tokio::test(start_paused = true)]
async fn where_time_is_paused_a_day_is_over_at_once() {
    let pool = ten().window(Window::fixed(DAY)).build();
    let start = Instant::now();
    for day in 1..=30 {
        pool.record(Amount::new().tokens(10)).unwrap();
        let refused = pool.record(ONE).unwrap_err();
        assert!(refused.retry_after().is_some_and(|after| after <= DAY), "{refused}");
        pool.record_wait(ONE).await.unwrap();
        let late = start.elapsed() - day * DAY;
        assert!(late <= Duration::from_millis(1), "day {day} is {late:?} late");
        pool.reset();
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_stands_while_time_is_paused() {
    let pool = ten().deadline(Duration::from_secs(60)).build();
    let hold = pool.reserve(Ask::new(Amount::new().tokens(10)).ttl(Duration::from_secs(10)));
    let hold = hold.unwrap();
    assert_eq!(pool.time_left(), Some(Duration::from_secs(60)));
    std::thread::sleep(Duration::from_millis(5));
    assert_eq!(pool.time_left(), Some(Duration::from_secs(60)));

    advance(Duration::from_secs(9)).await;
    assert!(!hold.is_expired());
    let waited = pool.reserve_wait(ONE).await.unwrap();
    assert!(hold.is_expired() && pool.time_left() <= Some(Duration::from_secs(50)));
    waited.commit_all();

    let never = pool.run(std::future::pending::<()>()).await.unwrap_err();
    assert_eq!((never.kind(), pool.time_left()), ("deadline_exceeded", Some(Duration::ZERO)));
}

/// The sleep of the first that waits begins at its poll, as no other may come for long.
#[tokio::test(start_paused = true)]
async fn p6_an_owner_whose_budget_is_used_up_keeps_nobody_asleep() {
    for spent in 120..=128 {
        let pool = ten().window(Window::fixed(DAY)).build();
        pool.record(ONE.tokens(10)).unwrap();
        let (first, behind) = (pool.record_wait(ONE), pool.record_wait(ONE));
        let start = Instant::now();
        let owner = tokio::spawn(polls_used_up(first, spent, 9 * DAY));
        tokio::task::yield_now().await;
        behind.await.unwrap();
        assert_eq!(start.elapsed(), DAY, "{spent}");
        owner.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_in_the_time_that_it_was_given() {
    let pool = ten().build();
    let all = pool.reserve(Amount::new().tokens(10)).unwrap();
    let start = Instant::now();
    let ask = Ask::new(ONE).wait_at_most(Duration::from_secs(3_600));
    assert_eq!(pool.reserve_wait(ask.clone()).await.unwrap_err().kind(), "timeout");
    assert!(start.elapsed() >= Duration::from_secs(3_600));

    let release = async {
        sleep(Duration::from_secs(60)).await;
        all.release();
    };
    let (hold, ()) = tokio::join!(pool.reserve_wait(ask), release);
    assert_eq!(hold.unwrap().amount(), ONE);
}

#[test]
fn without_a_runtime_waits_that_need_no_time_are_granted() {
    let pool = ten().build();
    futures_lite::future::block_on(async {
        // More of them than tokio lets a task have in one go.
        for _ in 0..1_000 {
            pool.reserve_wait(ONE).await.unwrap().release();
            pool.record_wait(Amount::new().requests(1)).await.unwrap();
        }
    });
    assert_eq!(pool.snapshot().requests.used, 1_000);
    let executor = async_executor::Executor::new();
    let first = pool.reserve(Amount::new().tokens(10)).unwrap();
    let second = executor.spawn(pool.reserve_wait(ONE));
    assert!(executor.try_tick());
    first.release();
    let second = futures_lite::future::block_on(executor.run(second)).unwrap();
    assert_eq!(second.amount(), ONE);
}

#[test]
fn without_a_runtime_a_wait_that_needs_time_is_refused() {
    let pool = ten().window(Window::fixed(DAY)).build();
    pool.record(Amount::new().tokens(10)).unwrap();
    let refused = futures_lite::future::block_on(pool.record_wait(ONE)).unwrap_err();
    assert!(matches!(refused, BudgetError::NoTimer { .. }), "{refused}");
    let late = ten().deadline(DAY).build();
    let run = late.run(std::future::pending::<()>());
    assert_eq!(futures_lite::future::block_on(run).unwrap_err().kind(), "no_timer");
}

#[test]
fn a_wait_outside_of_its_runtime_drops_its_waker_without_the_lock() {
    for is_gone in [true, false] {
        watchdog::ends("the last waker of a wait", move || {
            let pool = ten().window(Window::fixed(DAY)).build();
            pool.record(Amount::new().tokens(10)).unwrap();
            let mut wait = pin!(pool.record_wait(ONE));
            let waker = comes_back::comes_back(&pool);
            let builder = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let mut runtime = Some(builder.unwrap());
            let inside = runtime.as_ref().unwrap().enter();
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(inside);
            drop(waker);
            if is_gone {
                // The timer of the runtime wakes as it goes.
                drop(runtime.take());
            }
            let polled = wait.poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready(Err(refused)) = polled else { panic!("it waits for a timer") };
            assert!(matches!(refused, BudgetError::NoTimer { .. }), "{refused}");
        });
    }
}

#[test]
fn blocking_waits_need_no_runtime() {
    let pool = ten().window(Window::fixed(Duration::from_millis(20))).build();
    pool.record(Amount::new().tokens(10)).unwrap();
    watchdog::ends("a blocking wait", move || pool.record_blocking(ONE)).unwrap();
}

#[test]
fn a_wait_that_goes_on_in_another_runtime_keeps_the_sleep_that_it_began() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let begun = |first: &tokio::runtime::Runtime| {
        let pool = ten().window(Window::fixed(Duration::from_millis(100))).build();
        pool.record(Amount::new().tokens(10)).unwrap();
        let mut wait = pool.record_wait(ONE);
        let polled = first.block_on(async { timeout(Duration::ZERO, &mut wait).await });
        polled.expect_err("it waits for the window");
        wait
    };
    let first = runtime();
    let wait = begun(&first);
    std::thread::spawn(move || first.block_on(async { sleep(Duration::from_secs(9)).await }));
    watchdog::ends("the wait of a runtime that is driven", move || runtime().block_on(wait))
        .unwrap();

    for first in [runtime(), tokio::runtime::Runtime::new().unwrap()] {
        let wait = begun(&first);
        drop(first);
        watchdog::ends("the wait of a runtime that has gone", move || runtime().block_on(wait))
            .unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn where_time_is_paused_a_blocking_wait_inside_ends_when_the_test_advances_the_time() {
    let window = Duration::from_millis(20);
    let pool = ten().window(Window::fixed(window)).build();
    pool.record(Amount::new().tokens(10)).unwrap();
    let waiting = pool.clone();
    let waits = tokio::task::spawn_blocking(move || waiting.record_blocking(ONE));
    while pool.snapshot().waiting == 0 {
        tokio::task::yield_now().await;
    }
    std::thread::sleep(2 * window);
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    advance(window).await;
    waits.await.unwrap().unwrap();
}
