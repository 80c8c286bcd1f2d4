//! Time serves a line whose first owner does not come to look: it drives another arm of its
//! `select!`, or has forgotten its wait.

use super::*;

use std::future::Future;

use budget_pool::{Clock, PoolBuilder, Root, Window};
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_millis(300);
const BUSY: Duration = Duration::from_secs(60);

/// A tree by the time of tokio, which is paused: it passes when all tasks sleep.
fn by_tokio() -> PoolBuilder<Root> {
    BudgetPool::builder()
        .name("root")
        .clock(|| Instant::now().into_std())
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
}

/// An owner who polls its wait once, and is busy then.
async fn busy<F: Future>(wait: F) {
    let mut wait = pin!(wait);
    tokio::select! {
        biased;
        _ = &mut wait => {}
        () = sleep(Duration::from_millis(10)) => sleep(BUSY).await,
    }
}

/// How long after its start a wait behind a busy owner is served.
async fn served_behind<F, G>(first: F, behind: G) -> Duration
where
    F: Future + Send + 'static,
    F::Output: Send,
    G: Future + Send + 'static,
    G::Output: Send,
{
    let start = Instant::now();
    let owner = tokio::spawn(busy(first));
    sleep(Duration::from_millis(20)).await;
    let _ = timeout(BUSY, behind).await;
    owner.abort();
    start.elapsed()
}

#[tokio::test(start_paused = true)]
async fn p6_a_window_that_turns_serves_those_behind_a_busy_owner() {
    let pool = by_tokio().tokens(10).window(Window::fixed(SOON)).build();
    pool.record(tokens(10)).unwrap();
    let (first, behind) = (pool.record_wait(tokens(1)), pool.record_wait(tokens(1)));
    assert_eq!(served_behind(first, behind).await, SOON);
}

#[tokio::test(start_paused = true)]
async fn p6_a_window_above_serves_a_sibling_behind_a_busy_owner() {
    let root = by_tokio().tokens(10).window(Window::fixed(SOON)).build();
    root.record(tokens(10)).unwrap();
    let (one, other) = (root.child().build(), root.child().build());
    let (first, behind) = (one.record_wait(tokens(1)), other.record_wait(tokens(1)));
    assert_eq!(served_behind(first, behind).await, SOON);
}

#[tokio::test(start_paused = true)]
async fn p6_the_end_of_a_pause_serves_those_behind_a_busy_owner() {
    let pool = by_tokio().tokens(10).build();
    pool.pause(SOON);
    let (first, behind) = (pool.reserve_wait(tokens(1)), pool.reserve_wait(tokens(1)));
    assert_eq!(served_behind(first, behind).await, SOON);
}

#[tokio::test(start_paused = true)]
async fn p6_a_hold_that_expires_serves_those_behind_a_busy_owner() {
    let pool = by_tokio().tokens(10).build();
    std::mem::forget(pool.reserve(Ask::new(tokens(10)).ttl(SOON)).unwrap());
    let (first, behind) = (pool.reserve_wait(tokens(1)), pool.reserve_wait(tokens(1)));
    assert_eq!(served_behind(first, behind).await, SOON);
}

#[tokio::test(start_paused = true)]
async fn p6_whoever_gives_up_is_in_nobodys_way_though_its_owner_is_busy() {
    let pool = by_tokio().tokens(10).build();
    let _held = pool.reserve(tokens(5)).unwrap();
    let first = pool.reserve_wait(Ask::new(tokens(8)).wait_at_most(SOON));
    assert_eq!(served_behind(first, pool.reserve_wait(tokens(1))).await, SOON);
}

#[tokio::test(start_paused = true)]
async fn p6_whoever_is_late_is_in_nobodys_way_though_its_owner_is_busy() {
    let root = by_tokio().tokens(10).build();
    let _held = root.reserve(tokens(5)).unwrap();
    let hurried = root.child().deadline(SOON).build();
    let (first, behind) = (hurried.reserve_wait(tokens(8)), root.reserve_wait(tokens(1)));
    assert_eq!(served_behind(first, behind).await, SOON);
}

/// The owner that comes late is answered as of then.
#[tokio::test(start_paused = true)]
async fn p6_an_owner_that_is_late_for_its_end_is_answered_as_a_call_would_be_then() {
    let pool = by_tokio().tokens(10).build();
    let held = pool.reserve(tokens(5)).unwrap();
    let mut wait = pin!(pool.reserve_wait(Ask::new(tokens(8)).wait_at_most(SOON)));
    assert!(timeout(Duration::from_millis(10), &mut wait).await.is_err());
    sleep(SOON).await;
    assert_eq!(pool.snapshot().waiting, 0, "it has left the line");
    drop(held);
    assert_eq!(wait.await.unwrap().amount(), tokens(8));

    let held = pool.reserve(tokens(5)).unwrap();
    let mut wait = pin!(pool.reserve_wait(Ask::new(tokens(8)).wait_at_most(SOON)));
    assert!(timeout(Duration::from_millis(10), &mut wait).await.is_err());
    sleep(SOON).await;
    assert!(matches!(wait.await, Err(BudgetError::Timeout { .. })));
    drop(held);
    check_invariants(&pool);
}

/// The first alarm brings nothing, as the hold that might have expired then was settled in time, or
/// is one of another pool.
#[tokio::test(start_paused = true)]
async fn p6_an_alarm_that_brings_nothing_is_not_the_last() {
    for is_settled in [true, false] {
        let root = by_tokio().build();
        let (pool, sibling) = (root.child().tokens(10).build(), root.child().build());
        let other = if is_settled { &pool } else { &sibling };
        let other = other.reserve(Ask::new(tokens(1)).ttl(SOON / 3)).unwrap();
        std::mem::forget(pool.reserve(Ask::new(tokens(9)).ttl(SOON)).unwrap());
        let settle = tokio::spawn(async move {
            sleep(if is_settled { SOON / 6 } else { SOON }).await;
            drop(other);
        });
        let (first, behind) = (pool.reserve_wait(tokens(9)), pool.reserve_wait(tokens(1)));
        assert_eq!(served_behind(first, behind).await, SOON, "{is_settled}");
        settle.await.unwrap();
        check_invariants(&root);
    }
}

/// The next instant comes while the alarm is set to it: a sleep that is over at once rings, too.
#[test]
fn p6_an_alarm_that_is_late_for_its_next_instant_serves_for_it() {
    const SECOND: Duration = Duration::from_secs(1);
    let (clock, alarms) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
    let (time, log) = (clock.clone(), Arc::clone(&alarms));
    let pool = BudgetPool::builder().tokens(10).clock(clock.clone()).timer(move |until| {
        let (time, log) = (time.clone(), Arc::clone(&log));
        if !log.lock().unwrap().is_empty() {
            time.advance(SECOND);
        }
        Box::pin(std::future::poll_fn(move |context| {
            log.lock().unwrap().push(context.waker().clone());
            if time.now() < until { Poll::Pending } else { Poll::Ready(()) }
        }))
    });
    let pool = pool.build();
    let settled = pool.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap();
    std::mem::forget(pool.reserve(Ask::new(tokens(9)).ttl(2 * SECOND)).unwrap());
    let first = Waiter::queued(&pool, tokens(5));
    let mut behind = Waiter::queued(&pool, tokens(5));
    settled.release();
    clock.advance(SECOND);
    let alarm = alarms.lock().unwrap()[0].clone();
    alarm.wake();
    assert_eq!(behind.granted().amount(), tokens(5));
    drop(first);
    check_invariants(&pool);
}

/// One whose time is over leaves the line, though its owner was woken for nothing before.
#[tokio::test(start_paused = true)]
async fn p6_an_end_after_an_alarm_that_brings_nothing_is_kept() {
    let pool = by_tokio().tokens(10).build();
    let _held = pool.reserve(tokens(5)).unwrap();
    std::mem::forget(pool.reserve(Ask::new(tokens(1)).ttl(SOON / 3)).unwrap());
    let first = pool.reserve_wait(Ask::new(tokens(8)).wait_at_most(SOON));
    assert_eq!(served_behind(first, pool.reserve_wait(tokens(1))).await, SOON);
}

/// What has expired meanwhile is free for one that has left the line, too: all of it.
#[tokio::test(start_paused = true)]
async fn p7_an_owner_that_is_late_for_its_end_is_granted_as_much_as_a_call_would_be() {
    for ask in [Ask::new(tokens(100)).at_least(tokens(1)), Ask::new(tokens(100)).or(tokens(5))] {
        let pool = by_tokio().tokens(100).build();
        for _ in 0..10 {
            std::mem::forget(pool.reserve(Ask::new(tokens(10)).ttl(2 * SOON)).unwrap());
        }
        let mut wait = pin!(pool.reserve_wait(ask.wait_at_most(SOON)));
        assert!(timeout(Duration::from_millis(10), &mut wait).await.is_err());
        sleep(3 * SOON).await;
        assert_eq!(wait.await.unwrap().amount(), tokens(100));
    }
}

/// The sleep of the first wakes before it has begun, and is polled again, though its owner is busy.
#[tokio::test(start_paused = true)]
async fn p6_an_owner_whose_cooperative_budget_is_used_up_keeps_nobody_asleep() {
    for spent in 120..=128 {
        let pool = by_tokio().tokens(10).window(Window::fixed(SOON)).build();
        pool.record(tokens(10)).unwrap();
        let (first, behind) = (pool.record_wait(tokens(1)), pool.record_wait(tokens(1)));
        let start = Instant::now();
        let owner = tokio::spawn(polls_used_up(first, spent, BUSY));
        tokio::task::yield_now().await;
        behind.await.unwrap();
        assert_eq!(start.elapsed(), SOON, "{spent}");
        owner.abort();
    }
}

/// A sleep that wakes on its way is polled, whoever waits for it.
#[tokio::test(start_paused = true)]
async fn p6_a_sleep_of_several_steps_serves_those_behind_a_busy_owner() {
    let step = Duration::from_millis(70);
    let pool = by_tokio().timer(move |until| {
        Box::pin(async move {
            while Instant::now() < until.into() {
                sleep(step.min(Instant::from(until) - Instant::now())).await;
            }
        })
    });
    let pool = pool.tokens(10).window(Window::fixed(SOON)).build();
    pool.record(tokens(10)).unwrap();
    let (first, behind) = (pool.record_wait(tokens(1)), pool.record_wait(tokens(1)));
    assert_eq!(served_behind(first, behind).await, SOON);
}

/// A forgotten wait keeps its place, and a thread stands behind it.
#[test]
fn p6_a_forgotten_wait_keeps_no_thread_asleep() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let pool = BudgetPool::builder()
        .tokens(10)
        .window(Window::fixed(Duration::from_millis(50)))
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build();
    pool.record(tokens(10)).unwrap();
    let mut wait = Box::pin(pool.record_wait(tokens(1)));
    assert!(wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    std::mem::forget(wait);
    watchdog::ends("a thread behind a forgotten wait", move || pool.record_blocking(tokens(1)))
        .unwrap();
}
