//! Pauses: what is admitted, what waits, and until when.

use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, BudgetError, BudgetPool, ManualClock, OnDrop, Outlook, PoolBuilder, Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;

use invariants::check_invariants;
use waiter::{Waiter, by_hand};

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_nanos(1);

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn run(clock: &ManualClock) -> PoolBuilder<budget_pool::Root> {
    BudgetPool::builder().name("run").clock(clock.clone()).timer(by_hand)
}

/// How long until it will fit.
fn paused_for<T: std::fmt::Debug>(asked: Result<T, BudgetError>) -> Option<Duration> {
    match asked {
        Err(refused @ BudgetError::Paused { .. }) => refused.retry_after(),
        other => panic!("it is not paused: {other:?}"),
    }
}

/// W8: a provider answers one of 24 tasks with 429 and `Retry-After: 20`.
#[tokio::test(start_paused = true)]
async fn w8_all_are_told_the_instant_and_waits_sleep_until_then() {
    let provider = BudgetPool::builder()
        .name("provider")
        .in_flight(8)
        .clock(TokioClock(tokio::time::Instant::now()))
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build();
    let start = tokio::time::Instant::now();
    let seconds = Duration::from_secs;
    provider.pause(seconds(20));
    let waits = (0..12).map(|_| {
        let provider = provider.clone();
        tokio::spawn(async move {
            provider.reserve_wait(Amount::new()).await.unwrap().commit_all();
            start.elapsed()
        })
    });
    let waits: Vec<_> = waits.collect();
    for _task in 0..11 {
        assert_eq!(paused_for(provider.reserve(Amount::new())), Some(seconds(20)));
    }
    tokio::time::sleep(seconds(5)).await;
    assert_eq!(paused_for(provider.record(Amount::new())), Some(seconds(15)));
    for wait in waits {
        let after = wait.await.unwrap();
        assert!(after >= seconds(20) && after < seconds(21), "{after:?}");
    }
    let snapshot = provider.snapshot();
    assert_eq!((snapshot.committed, snapshot.waiting, snapshot.paused_until), (12, 0, None));
}

struct TokioClock(tokio::time::Instant);

impl budget_pool::Clock for TokioClock {
    fn now(&self) -> std::time::Instant {
        self.0.into_std() + self.0.elapsed()
    }
}

#[test]
fn a_pause_refuses_all_new_work_here_and_below_and_accounting_goes_on() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(100).build();
    let child = pool.child().name("child").build();
    let above = child.child().name("grandchild").build();
    let hold = child.reserve(tokens(30)).unwrap();
    let mut lease = pool.lease(tokens(10));
    lease.record(tokens(1)).unwrap();
    let left = lease.remaining().units(budget_pool::Axis::Tokens);
    assert!(left > 0);

    child.pause(SECOND);
    assert_eq!(paused_for(child.record(tokens(1))), Some(SECOND));
    assert_eq!(paused_for(above.reserve(tokens(1))), Some(SECOND));
    assert_eq!(paused_for(child.peek(tokens(1))), Some(SECOND));
    assert_eq!(paused_for(child.record_once("key", tokens(1))), Some(SECOND));
    assert_eq!(paused_for(hold.record(tokens(1))), Some(SECOND));
    assert_eq!(paused_for(hold.grow(tokens(1))), Some(SECOND));
    assert_eq!(paused_for(child.child().tokens(1).carved().build()), Some(SECOND));
    pool.record(tokens(1)).expect("the pause is below");
    pool.child().build().record(tokens(1)).expect("the pause is beside");
    lease.record(tokens(left)).expect("a lease spends from its share");

    let refused = child.snapshot().refused;
    child.debit(tokens(2));
    child.credit(tokens(1));
    hold.debit(tokens(3));
    assert_eq!(hold.commit(tokens(20)).settled(), tokens(17));
    assert_eq!(child.snapshot().tokens.used, 21);
    assert_eq!(child.snapshot().refused, refused, "accounting is never refused");
    assert!(child.snapshot().to_string().starts_with("child (paused): "));
    assert!(pool.snapshot().paused_until.is_none() && above.snapshot().paused_until.is_some());

    clock.advance(SECOND - MOMENT);
    assert_eq!(paused_for(child.record(tokens(1))), Some(MOMENT));
    clock.advance(MOMENT);
    child.record(tokens(1)).unwrap();
    assert!(above.snapshot().paused_until.is_none());
}

#[test]
fn the_longer_pause_wins_and_resume_ends_that_of_its_pool_alone() {
    let clock = ManualClock::new();
    let pool = run(&clock).build();
    let child = pool.child().name("child").build();
    child.pause(3 * SECOND);
    child.pause(SECOND);
    assert_eq!(paused_for(child.record(tokens(1))), Some(3 * SECOND));
    pool.pause(2 * SECOND);
    let refused = child.record(tokens(1)).unwrap_err();
    assert_eq!(refused.to_string(), "`child` is paused, will fit in 3s");
    child.resume();
    let refused = child.record(tokens(1)).unwrap_err();
    assert_eq!(refused.to_string(), "`run` is paused, will fit in 2s");
    pool.resume();
    child.record(tokens(1)).unwrap();
    child.resume();
    pool.pause(SECOND);
    child.pause(SECOND);
    let refused = child.record(tokens(1)).unwrap_err();
    assert_eq!(refused.pool(), "child", "of two that end at once it is the nearer");
    pool.resume();
    child.resume();

    child.pause_until(clock_now(&clock) + 3 * SECOND);
    assert_eq!(paused_for(child.record(tokens(1))), Some(3 * SECOND));
    child.resume();

    child.pause(Duration::ZERO);
    child.pause_until(clock_now(&clock));
    child.record(tokens(1)).expect("a pause that is over pauses nothing");
    child.pause(Duration::MAX);
    let years = Duration::from_secs(30 * 365 * 86_400);
    assert_eq!(paused_for(child.record(tokens(1))), Some(years));
    child.close();
    let refused = child.record(tokens(1)).unwrap_err();
    assert!(matches!(refused, BudgetError::Closed { .. }), "{refused}");
}

#[test]
fn a_pause_near_the_last_instant_is_halved_until_its_end_can_be_told() {
    let mut last = std::time::Instant::now();
    for bit in (0..64).rev() {
        last = last.checked_add(Duration::from_secs(1 << bit)).unwrap_or(last);
    }
    let now = last - 100 * SECOND;
    let pool = BudgetPool::builder().clock(move || now).build();
    pool.pause(150 * SECOND);
    assert_eq!(paused_for(pool.record(tokens(1))), Some(75 * SECOND));
}

fn clock_now(clock: &ManualClock) -> std::time::Instant {
    budget_pool::Clock::now(clock)
}

/// Together with windows, releases, deadlines and caps.
#[test]
fn the_latest_instant_counts_exactly() {
    let clock = ManualClock::new();
    let bucket = Window::token_bucket(10 * SECOND);
    let pool = run(&clock).tokens(10).window(bucket).build();
    pool.record(tokens(10)).unwrap();
    pool.pause(2 * SECOND);
    assert_eq!(paused_for(pool.record(tokens(1))), Some(2 * SECOND));
    assert_eq!(paused_for(pool.record(tokens(5))), Some(5 * SECOND));
    assert!(matches!(pool.record(tokens(11)), Err(BudgetError::Exceeded(_))), "never");
    clock.advance(2 * SECOND);
    pool.record(tokens(2)).unwrap();

    let late = run(&clock).tokens(10).deadline(3 * SECOND).build();
    late.pause(3 * SECOND - MOMENT);
    assert_eq!(paused_for(late.record(tokens(1))), Some(3 * SECOND - MOMENT));
    late.pause(3 * SECOND);
    let refused = late.record(tokens(1)).unwrap_err();
    assert_eq!((refused.kind(), refused.outlook()), ("paused", Outlook::Never));

    let full = run(&clock).tokens(10).build();
    let hold = full.reserve(tokens(10)).unwrap();
    full.pause(SECOND);
    let refused = full.record(tokens(1)).unwrap_err();
    assert_eq!(refused.to_string(), "`run` is paused, may fit after a release");
    let BudgetError::Paused { until, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(until, clock_now(&clock) + SECOND);
    drop(hold);
}

/// What it was granted, however often it was woken: it may have been reminded of the time.
fn held(waiter: &mut Waiter) -> Amount {
    match waiter.poll() {
        Poll::Ready(Ok(hold)) => hold.amount(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn p6_waits_sleep_through_a_pause_and_are_served_in_turn() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).build();
    let child = pool.child().name("child").build();
    let hold = pool.reserve(tokens(9)).unwrap();
    let mut first = Waiter::queued(&child, tokens(5));
    let mut beside = Waiter::queued(&pool, tokens(1));
    child.pause(SECOND);
    assert_eq!(beside.granted().amount(), tokens(1), "the first one cannot be served before");
    let mut second = Waiter::queued(&child, tokens(1));
    drop(hold);
    assert!(first.poll().is_pending() && second.poll().is_pending());
    clock.advance(SECOND);
    pool.record(tokens(1)).expect("nobody competes with it any more");
    assert_eq!((held(&mut first), held(&mut second)), (tokens(5), tokens(1)));

    child.pause(SECOND);
    let mut third = Waiter::queued(&child, tokens(1));
    assert!(matches!(child.record(tokens(1)), Err(BudgetError::Paused { .. })));
    child.resume();
    third.granted().release();
}

#[test]
fn p6_a_pause_that_outlasts_a_deadline_refuses_those_that_wait_for_less() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(1).build();
    let hold = pool.reserve(tokens(1)).unwrap();
    let late = pool.child().name("late").deadline(SECOND).build();
    let mut first = Waiter::queued(&late, tokens(1));
    let mut other = Waiter::queued(&pool, tokens(1));
    pool.pause(SECOND);
    let refused = first.refused();
    assert_eq!((refused.kind(), refused.outlook()), ("paused", Outlook::Never));
    drop(hold);
    assert!(other.poll().is_pending());
    clock.advance(SECOND);
    assert!(other.poll().is_ready());
}

#[test]
fn an_async_wait_through_a_pause_needs_a_timer_and_a_thread_needs_none() {
    let pool = BudgetPool::builder().name("run").tokens(1).build();
    let hold = pool.reserve(tokens(1)).unwrap();
    let mut waiting = Waiter::queued(&pool, tokens(1));
    pool.pause(Duration::from_millis(20));
    let refused = waiting.refused();
    assert!(matches!(refused, BudgetError::NoTimer { .. }), "{refused}");
    hold.release();
    pool.reserve_blocking(tokens(1)).unwrap().release();
    assert!(pool.snapshot().paused_until.is_none());
}

#[test]
fn p8_the_clock_is_read_while_a_pool_is_paused_and_not_after() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    let (clock, reads) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let counted = {
        let (clock, reads) = (clock.clone(), Arc::clone(&reads));
        move || {
            reads.fetch_add(1, Ordering::Relaxed);
            clock_now(&clock)
        }
    };
    let pool = BudgetPool::builder().clock(counted).build();
    let read = || reads.swap(0, Ordering::Relaxed);
    pool.record(tokens(1)).unwrap();
    assert_eq!(read(), 0);
    pool.pause(SECOND);
    let child = pool.child().build();
    read();
    child.record(tokens(1)).unwrap_err();
    assert_eq!(read(), 1);
    clock.advance(SECOND);
    child.record(tokens(1)).unwrap();
    assert_eq!(read(), 1);
    child.record(tokens(1)).unwrap();
    assert_eq!(read(), 0, "the pause is over");
}

#[test]
fn p3_a_paused_pool_that_goes_leaves_no_pause_behind() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).build();
    for _ in 0..3 {
        let child = pool.child().on_drop(OnDrop::Commit).build();
        child.pause(SECOND);
        drop(child);
        pool.child().build().record(tokens(1)).expect("a new pool in its place is not paused");
    }
    check_invariants(&pool);
}

/// It brings a token a second, and eight at most.
fn empty_bucket() -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let window = Window::token_bucket(Duration::from_secs(8));
    let pool = BudgetPool::builder().tokens(8).window(window).clock(clock.clone()).timer(by_hand);
    let pool = pool.build();
    pool.record(Amount::new().tokens(8)).unwrap();
    (clock, pool)
}

/// The clock leaps beyond the ends of two pauses, and beyond the instant at which a bucket has enough
/// for one waiter: both pauses are over by then, and the earlier waiter is served.
#[test]
fn p6_pauses_end_and_buckets_fill_in_the_order_of_time() {
    let (clock, pool) = empty_bucket();
    let (secs, tokens) = (Duration::from_secs, |n| Amount::new().tokens(n));
    let (near, far) = (pool.child().build(), pool.child().build());
    far.pause(secs(4));
    near.pause(secs(3));
    let mut first = Waiter::queued(&far, tokens(8));
    let second = Waiter::queued(&near, tokens(8));
    clock.advance(secs(10));
    assert_eq!(pool.snapshot().waiting, 1);
    assert_eq!(second.wakes(), 0);
    assert_eq!(first.granted().amount(), tokens(8));
}

/// A waiter is paused while a bucket has enough for another: it gets nothing of that instant.
#[test]
fn p6_a_paused_waiter_takes_nothing_that_came_during_its_pause() {
    let (clock, pool) = empty_bucket();
    let (secs, tokens) = (Duration::from_secs, |n| Amount::new().tokens(n));
    let (paused, other) = (pool.child().build(), pool.child().build());
    paused.pause(secs(5));
    let mut first = Waiter::queued(&paused, tokens(4));
    let mut second = Waiter::queued(&other, tokens(4));
    clock.advance(secs(7));
    assert_eq!(pool.snapshot().waiting, 1);
    let second = second.granted();
    assert_eq!(second.amount(), tokens(4));
    assert!(first.poll().is_pending());
}

/// Whether a window or an expiry is to serve it: the call on another pool looks.
#[test]
fn p6_a_pause_elsewhere_does_not_keep_a_waiter_from_its_time() {
    for is_held in [false, true] {
        let clock = ManualClock::new();
        let root = run(&clock).build();
        let pool = root.child().tokens(1);
        let pool = if is_held { pool } else { pool.window(Window::fixed(10 * SECOND)) }.build();
        let (paused, other) = (root.child().build(), root.child().build());
        let ask = Ask::new(tokens(1));
        let ask = if is_held { ask.ttl(10 * SECOND) } else { ask.on_drop(OnDrop::Commit) };
        let hold = pool.reserve(ask).unwrap();
        let _held = is_held.then_some(hold);
        let mut waiter = Waiter::queued(&pool, tokens(1));
        paused.pause(60 * SECOND);
        assert_eq!(waiter.wakes(), 0);
        clock.advance(10 * SECOND);
        other.record(tokens(1)).unwrap();
        assert_eq!(waiter.wakes(), 1, "held: {is_held}");
        assert_eq!(held(&mut waiter), tokens(1));
    }
}

/// To the pool a clock that has run back stands at the latest instant that it has seen.
#[test]
fn p8_a_pause_begins_at_the_present_of_the_pool() {
    let reading = Arc::new(Mutex::new(Instant::now()));
    let read = Arc::clone(&reading);
    let pool = BudgetPool::builder().clock(move || *read.lock().unwrap()).timer(by_hand).build();
    *reading.lock().unwrap() += 100 * SECOND;
    drop(pool.reserve(Ask::new(tokens(0)).ttl(SECOND)).unwrap());
    *reading.lock().unwrap() -= 90 * SECOND;
    pool.pause(20 * SECOND);
    assert_eq!(paused_for(pool.record(tokens(1))), Some((90 + 20) * SECOND));
    *reading.lock().unwrap() += 110 * SECOND;
    pool.record(tokens(1)).unwrap();
}

/// Nobody touches the pools meanwhile: a sleep ends it.
#[tokio::test(start_paused = true)]
async fn p6_what_a_hold_leaves_to_no_hope_during_a_pause_serves_those_behind() {
    let root = BudgetPool::builder()
        .clock(|| tokio::time::Instant::now().into_std())
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build();
    let (one, other) = (root.child().tokens(6).build(), root.child().tokens(6).build());
    let both = BudgetPool::joint([&one, &other]).unwrap().build();
    let spends = Ask::new(tokens(1)).ttl(SECOND).on_drop(OnDrop::Commit);
    let _held = other.reserve(spends).unwrap();
    other.pause(9 * SECOND);
    let start = tokio::time::Instant::now();
    let (hopeless, behind) = (both.reserve_wait(tokens(6)), one.reserve_wait(tokens(6)));
    let (refused, granted) = tokio::join!(hopeless, behind);
    assert_eq!((refused.unwrap_err().kind(), start.elapsed()), ("exceeded", SECOND));
    assert_eq!(granted.unwrap().amount(), tokens(6));
}

/// It stays where it was blocked before the pause, as it does without one.
#[test]
fn p6_the_end_of_a_pause_moves_nobody_whom_it_did_not_block() {
    for is_paused in [false, true] {
        let clock = ManualClock::new();
        let root = run(&clock).build();
        let family = root.child().tokens(10).build();
        let child = family.child().build();
        let _held = child.reserve(tokens(8)).unwrap();
        let first = Waiter::queued(&child, tokens(9));
        let behind = Waiter::queued(&family, tokens(2));
        if is_paused {
            root.pause(SECOND);
        }
        child.set_caps(budget_pool::Caps::new().tokens(9)).unwrap();
        clock.advance(SECOND);
        root.record(tokens(1)).unwrap();
        assert_eq!((first.wakes(), behind.wakes()), (0, 0), "paused: {is_paused}");
        check_invariants(&root);
    }
}
