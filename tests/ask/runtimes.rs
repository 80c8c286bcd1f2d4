//! The pool's own clock and whatever timer each runtime has.

use super::*;

const SHORT: Duration = Duration::from_millis(40);
/// Nothing takes so long.
const LONG: Duration = Duration::from_secs(50);

fn with_tokio() -> BudgetPool {
    BudgetPool::builder()
        .name("run")
        .tokens(10)
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build()
}

/// A timer of threads, for any executor.
fn with_threads() -> BudgetPool {
    let sleep = |until: Instant| -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let mut has_begun = false;
        Box::pin(poll_fn(move |context| {
            if Instant::now() >= until {
                return Poll::Ready(());
            }
            if !std::mem::replace(&mut has_begun, true) {
                let waker = context.waker().clone();
                std::thread::spawn(move || {
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                    waker.wake();
                });
            }
            Poll::Pending
        }))
    };
    BudgetPool::builder().name("run").tokens(10).timer(sleep).build()
}

fn short(amount: Amount) -> Ask {
    Ask::new(amount).wait_at_most(SHORT)
}

/// One waits in vain, one is cancelled, and one is granted its least by a release.
async fn story(pool: &BudgetPool, pause: impl Future<Output = ()>) {
    let held = pool.reserve(tokens(10)).unwrap();
    let start = Instant::now();
    let refused = in_vain(pool.reserve_wait(short(tokens(1))).await);
    assert!(matches!(refused, BudgetError::Exceeded(_)), "{refused}");
    assert!(start.elapsed() >= SHORT && start.elapsed() < LONG, "{:?}", start.elapsed());
    drop(pool.reserve_wait(short(tokens(1))));

    let ask = Ask::new(tokens(20)).at_least(tokens(2)).wait_at_most(LONG).label("waits");
    let wait = pool.reserve_wait(ask);
    let release = async {
        pause.await;
        held.commit(tokens(3));
    };
    let (hold, ()) = futures_lite::future::zip(wait, release).await;
    let hold = hold.unwrap();
    assert_eq!(hold.amount(), tokens(7));
    hold.release();
    is_idle(pool);
}

#[test]
fn on_tokio_with_one_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    ends("tokio", move || {
        runtime.block_on(async { story(&with_tokio(), tokio::time::sleep(SHORT)).await });
    });
}

#[test]
fn on_tokio_with_many_threads() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    ends("tokio", move || {
        runtime.block_on(async {
            let tasks = (0..8).map(|_| {
                tokio::spawn(async { story(&with_tokio(), tokio::time::sleep(SHORT)).await })
            });
            for task in tasks.collect::<Vec<_>>() {
                task.await.unwrap();
            }
        });
    });
}

#[test]
fn on_the_executor_of_smol() {
    ends("smol", || {
        let executor = async_executor::LocalExecutor::new();
        futures_lite::future::block_on(executor.run(async {
            let task = executor.spawn(async {
                story(&with_threads(), futures_lite::future::yield_now()).await;
            });
            task.await;
        }));
    });
}

struct TokioClock(tokio::time::Instant);

impl Clock for TokioClock {
    fn now(&self) -> Instant {
        self.0.into_std() + self.0.elapsed()
    }
}

/// Paused time goes to the next timer: exact, and in no time.
#[tokio::test(start_paused = true)]
async fn on_tokio_with_paused_time_it_gives_up_at_its_instant() {
    let pool = BudgetPool::builder()
        .name("run")
        .tokens(10)
        .clock(TokioClock(tokio::time::Instant::now()))
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build();
    let held = pool.reserve(tokens(10)).unwrap();
    let start = tokio::time::Instant::now();
    let refused = in_vain(pool.reserve_wait(Ask::new(tokens(1)).wait_at_most(LONG)).await);
    assert_eq!(refused.outlook(), Outlook::AfterRelease);
    assert!(start.elapsed() >= LONG && start.elapsed() < LONG + SECOND, "{:?}", start.elapsed());

    let waits = (1..=3).map(|seconds| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let ask = Ask::new(tokens(9)).at_least(tokens(4)).wait_at_most(SECOND * seconds);
            pool.reserve_wait(ask).await.map(|hold| {
                let amount = hold.amount();
                hold.commit(tokens(0));
                amount
            })
        })
    });
    let waits: Vec<_> = waits.collect();
    tokio::time::sleep(SECOND + SECOND / 2).await;
    assert_eq!(pool.snapshot().waiting, 2, "the first has given up");
    held.release();
    let mut outcomes = Vec::new();
    for wait in waits {
        outcomes.push(wait.await.unwrap());
    }
    assert!(matches!(outcomes[0], Err(BudgetError::Timeout { .. })));
    assert_eq!(outcomes[1], Ok(tokens(9)));
    assert_eq!(outcomes[2], Ok(tokens(9)));
    is_idle(&pool);
}

#[test]
fn threads_wait_at_most_so_long_and_are_granted_as_much_as_there_is() {
    ends("threads", || {
        let pool = pool_of(10);
        let held = pool.reserve(tokens(10)).unwrap();
        let start = Instant::now();
        let refused = in_vain(pool.reserve_blocking(short(tokens(1))));
        assert!(matches!(refused, BudgetError::Exceeded(_)), "{refused}");
        assert!(start.elapsed() >= SHORT && start.elapsed() < LONG, "{:?}", start.elapsed());
        std::thread::scope(|scope| {
            let wait = scope.spawn(|| {
                let ask = Ask::new(tokens(20)).at_least(tokens(2)).wait_at_most(LONG);
                pool.reserve_blocking(ask).map(|hold| hold.amount())
            });
            while pool.snapshot().waiting == 0 && !wait.is_finished() {
                std::thread::yield_now();
            }
            held.commit(tokens(3));
            assert_eq!(wait.join().unwrap(), Ok(tokens(7)));
        });
        is_idle(&pool);
    });
}

/// W9, in real time: it does not sleep at all.
#[test]
fn w9_a_thread_does_not_sleep_for_what_never_comes_in_time() {
    let pool = BudgetPool::builder().requests(2).window(Window::token_bucket(2 * LONG)).build();
    pool.record(requests(2)).unwrap();
    let (start, pool) = (Instant::now(), pool.clone());
    let ask = Ask::new(requests(1)).wait_at_most(LONG - 20 * SECOND);
    let refused = ends("it does not sleep", move || pool.reserve_blocking(ask)).unwrap_err();
    assert!(start.elapsed() < 10 * SECOND);
    assert!(refused.retry_after().unwrap() > LONG - 10 * SECOND, "{refused}");
}
