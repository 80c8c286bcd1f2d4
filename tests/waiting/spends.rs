//! Spends that wait their turn.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use budget_pool::{RecordWait, Window};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn poll(wait: Pin<&mut RecordWait>) -> Poll<Result<(), BudgetError>> {
    wait.poll(&mut Context::from_waker(Waker::noop()))
}

/// A stream of small calls, each of which would fit, does not starve one that waits.
#[test]
fn p6_a_record_each_second_does_not_keep_a_waiter_from_a_bucket() {
    let clock = ManualClock::new();
    let window = Window::token_bucket(SECOND * 2);
    let pool = BudgetPool::builder()
        .requests(2)
        .window(window)
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let requests = |n| Amount::new().requests(n);
    pool.record(requests(2)).unwrap();
    let mut waiter = Waiter::queued(&pool, requests(2));
    clock.advance(SECOND);
    let refused = pool.record(requests(1)).unwrap_err();
    assert_eq!(refused.to_string(), "others wait in `pool`");
    assert_eq!(pool.record_once("key", requests(1)).unwrap_err(), refused);
    assert_eq!(pool.record_and_snapshot(requests(1)).unwrap_err(), refused);
    assert_eq!(pool.lease(requests(1)).record(requests(1)).unwrap_err(), refused);
    assert_eq!(pool.peek(requests(1)).unwrap_err(), refused);
    assert_eq!(pool.snapshot().refused, 4, "a look is not counted");
    clock.advance(SECOND);
    assert!(matches!(pool.record(requests(1)), Err(BudgetError::Exceeded(_))));
    waiter.granted().commit_all();
}

#[test]
fn what_belongs_to_a_call_that_runs_passes_those_who_wait() {
    let pool = pool_of(100);
    let hold = pool.reserve(tokens(20)).unwrap();
    let _other = pool.reserve(tokens(40)).unwrap();
    let _waiter = Waiter::queued(&pool, tokens(60));
    hold.record(tokens(25)).unwrap();
    hold.grow(tokens(5)).unwrap();
    drop(hold.split(tokens(1)).unwrap());
    pool.debit(tokens(1));
    assert!(matches!(pool.record(tokens(1)), Err(BudgetError::Queued { .. })));
}

#[test]
fn p6_a_spend_waits_in_line_and_is_spent_when_it_is_collected() {
    let pool = pool_of(10);
    let hold = pool.reserve(tokens(8)).unwrap();
    let mut first = Waiter::queued(&pool, tokens(4));
    let mut spend = pin!(pool.record_wait(tokens(5).in_flight(7)));
    assert!(poll(spend.as_mut()).is_pending());
    drop(hold);
    // Nobody takes it in between, and nothing is spent yet.
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.tokens.used, snapshot.tokens.reserved), (0, 9));
    assert_eq!((snapshot.reservations, snapshot.in_flight.reserved), (1, 1));
    assert_eq!(poll(spend.as_mut()), Poll::Ready(Ok(())));
    assert!(poll(spend.as_mut()).is_pending(), "fused");
    first.granted().release();
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.tokens.used, snapshot.tokens.reserved), (5, 0));
    assert_eq!((snapshot.admitted, snapshot.committed, snapshot.released), (3, 0, 2));
    check_invariants(&pool);
}

#[test]
fn p3_a_spend_that_is_given_up_has_spent_nothing() {
    for is_granted in [false, true] {
        let pool = pool_of(10);
        let hold = pool.reserve(tokens(8)).unwrap();
        let mut spend = Box::pin(pool.record_wait(tokens(5)));
        assert!(poll(spend.as_mut()).is_pending());
        let mut behind = Waiter::queued(&pool, tokens(9));
        if is_granted {
            drop(hold);
            assert_eq!(pool.snapshot().tokens.reserved, 5);
            drop(spend);
        } else {
            drop(spend);
            drop(hold);
        }
        behind.granted().release();
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.tokens.spent, snapshot.tokens.reserved), (0, 0));
        assert_eq!((snapshot.waiting, snapshot.reservations), (0, 0));
        check_invariants(&pool);
    }
}

#[test]
fn a_spend_that_fits_does_not_wait_and_one_that_never_will_is_refused() {
    let pool = pool_of(10);
    pool.record_blocking(tokens(4)).unwrap();
    assert_eq!(poll(pin!(pool.record_wait(tokens(6)))), Poll::Ready(Ok(())));
    let refused = pool.record_blocking(tokens(1)).unwrap_err();
    assert_eq!(refused.outlook(), Outlook::Never);
    assert_eq!(pool.snapshot().tokens.used, 10);
}

/// Three holds of 4 from 10 would wait for each other: what is held does not come back.
#[tokio::test(start_paused = true)]
async fn three_spends_of_four_from_a_bucket_of_ten_are_done_in_time() {
    let pool = BudgetPool::builder()
        .requests(10)
        .window(Window::token_bucket(SECOND * 10))
        .clock(|| tokio::time::Instant::now().into_std())
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build();
    let four = || pool.record_wait(Amount::new().requests(4));
    let start = tokio::time::Instant::now();
    tokio::try_join!(four(), four(), four()).unwrap();
    let took = start.elapsed();
    assert!(took >= SECOND * 2 && took < SECOND * 3, "{took:?}");
    let held = || pool.reserve_wait(Amount::new().requests(4));
    let all = async { tokio::try_join!(held(), held(), held()) };
    assert!(tokio::time::timeout(SECOND * 100, all).await.is_err(), "as the docs say");
}
