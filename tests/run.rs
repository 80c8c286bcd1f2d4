//! A future that ends with its pool.

use std::future::{pending, ready};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use budget_pool::{Amount, BudgetError, BudgetPool, OnDrop, PoolBuilder, Root};
use tokio::time::{Instant, sleep};

const SECOND: Duration = Duration::from_secs(1);

fn timed() -> PoolBuilder<Root> {
    BudgetPool::builder()
        .name("run")
        .clock(|| Instant::now().into_std())
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
}

#[tokio::test(start_paused = true)]
async fn what_is_done_in_time_is_handed_over() {
    let pool = timed().deadline(SECOND * 10).build();
    let work = async {
        sleep(SECOND * 9).await;
        String::from("done")
    };
    assert_eq!(pool.run(work).await.unwrap(), "done");
    // At the very instant of the deadline what is done is done.
    let exact = async { sleep(SECOND).await };
    assert_eq!(pool.run(exact).await, Ok(()));
    let never_polled = async { panic!("the pool is late") };
    assert!(matches!(pool.run(never_polled).await, Err(BudgetError::DeadlineExceeded(_))));
}

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_on_the_way_ends_it() {
    let root = timed().deadline(SECOND * 3).build();
    let pool = root.child().deadline(SECOND * 5).build();
    let start = Instant::now();
    let late = pool.run(pending::<()>()).await.unwrap_err();
    assert_eq!((late.pool(), start.elapsed()), ("run", SECOND * 3));
}

#[tokio::test(start_paused = true)]
async fn p3_a_close_ends_it_and_what_it_held_ends_by_its_rule() {
    for (on_drop, used) in [(OnDrop::Release, 0), (OnDrop::Commit, 7)] {
        let pool = timed().on_drop(on_drop).build();
        let child = pool.child().name("child").build();
        let holding = pool.clone();
        let work = async move {
            let _hold = holding.reserve(Amount::new().tokens(7)).unwrap();
            pending::<()>().await;
        };
        let task = tokio::spawn(child.run(work));
        sleep(SECOND).await;
        assert_eq!(pool.snapshot().tokens.reserved, 7);
        pool.close();
        let closed = task.await.unwrap().unwrap_err();
        assert!(matches!(closed, BudgetError::Closed { pool, .. } if pool == "run"));
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.tokens.used, snapshot.tokens.reserved), (used, 0));
        let never_polled = async { panic!("the pool is closed") };
        assert!(pool.run(never_polled).await.is_err());
    }
}

#[tokio::test]
async fn it_needs_a_timer_where_it_has_to_wait_until_a_deadline() {
    let bounded = BudgetPool::builder().deadline(SECOND * 100).build();
    assert_eq!(bounded.run(ready(1)).await, Ok(1));
    assert!(matches!(bounded.run(pending::<()>()).await, Err(BudgetError::NoTimer { .. })));
    let free = BudgetPool::unlimited();
    let yields = async { tokio::task::yield_now().await };
    assert_eq!(free.run(yields).await, Ok(()));
}

/// A timer that rings before its time is asked again.
#[tokio::test(start_paused = true)]
async fn a_timer_that_is_early_is_asked_again() {
    let (start, asked) = (Instant::now(), AtomicU32::new(0));
    let pool = BudgetPool::builder()
        .clock(|| Instant::now().into_std())
        .timer(move |until| {
            let early = if asked.fetch_add(1, Ordering::Relaxed) == 0 {
                SECOND / 2
            } else {
                Duration::ZERO
            };
            Box::pin(tokio::time::sleep_until((until - early).into()))
        })
        .deadline(SECOND)
        .build();
    let late = pool.run(pending::<()>()).await.unwrap_err();
    assert!(matches!(late, BudgetError::DeadlineExceeded(_)));
    assert!(start.elapsed() >= SECOND && start.elapsed() < SECOND * 2);
}

#[test]
fn it_is_sent_where_the_future_can_be() {
    fn sent<T: Send>(_: T) {}
    sent(BudgetPool::unlimited().run(ready(())));
}
