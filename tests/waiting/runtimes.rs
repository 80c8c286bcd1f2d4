use super::*;

use futures_lite::future::block_on;

#[tokio::test(start_paused = true)]
async fn tokio_and_its_timer_need_no_real_second() {
    let pool = BudgetPool::builder()
        .tokens(10)
        .clock(|| tokio::time::Instant::now().into_std())
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .deadline(Duration::from_secs(3_600))
        .build();
    let held = pool.reserve(tokens(10)).unwrap();
    let (served, late) =
        (tokio::spawn(pool.reserve_wait(tokens(4))), tokio::spawn(pool.reserve_wait(tokens(8))));
    tokio::time::sleep(Duration::from_secs(5)).await;
    drop(held);
    let hold = served.await.unwrap().unwrap();
    assert_eq!(late.await.unwrap().unwrap_err().axis(), Some(Axis::Deadline));
    hold.commit_all();
}

#[tokio::test]
async fn a_cancelled_task_gives_up_its_place() {
    let pool = pool_of(10);
    let held = pool.reserve(tokens(10)).unwrap();
    let task = tokio::spawn(pool.reserve_wait(tokens(10)));
    while pool.snapshot().waiting == 0 {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!(pool.snapshot().waiting, 0);
    drop(held);
    assert_eq!(pool.snapshot().tokens.reserved, 0);
}

#[test]
fn smol_drives_it_too() {
    let pool = pool_of(10);
    let held = pool.reserve(tokens(10)).unwrap();
    let executor = async_executor::Executor::new();
    let task = executor.spawn(pool.reserve_wait(tokens(10)));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| block_on(executor.run(task)).map(|hold| hold.amount()));
        while pool.snapshot().waiting == 0 {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(waiting.join().unwrap().unwrap(), tokens(10));
    });
}
