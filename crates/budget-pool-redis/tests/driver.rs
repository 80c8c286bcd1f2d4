//! Attacks on the driver: many callers at once, wakers that call back, a runtime that ends, a store that
//! hangs.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use budget_pool::{BudgetError, Caps};
use budget_pool_redis::{Fleet, FleetError, Lost};
use common::{founding, quick, tokens};
use server::Server;

/// P4: what fits is admitted. Many tasks ask at once; the fleet has room for all of them.
#[tokio::test]
async fn tasks_that_ask_at_once_are_all_served() {
    let server = Server::start();
    let fleet = founding(1_000_000).join(server.client()).await.unwrap();
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let fleet = fleet.clone();
            tokio::spawn(async move { fleet.record(tokens(10)).await })
        })
        .collect();
    let mut refused = Vec::new();
    for task in tasks {
        if let Err(error) = task.await.unwrap() {
            refused.push(error);
        }
    }
    assert!(refused.is_empty(), "{} refused: {:?}", refused.len(), refused[0]);
}

struct Curious {
    fleet: OnceLock<Fleet>,
    woken: AtomicBool,
}

impl Wake for Curious {
    fn wake(self: Arc<Self>) {
        // An executor that polls where it is woken does the like.
        let _ = self.fleet.get().unwrap().status();
        self.woken.store(true, Ordering::SeqCst);
    }
}

/// No waker runs under the lock of the driver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waker_may_ask_for_the_status() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    let curious = Arc::new(Curious { fleet: OnceLock::new(), woken: AtomicBool::new(false) });
    let _ = curious.fleet.set(fleet.clone());
    let waker = Waker::from(Arc::clone(&curious));
    let other = founding(1_000).join(server.client()).await.unwrap();
    let all = other.reserve(tokens(1_000)).await.unwrap();
    let pool = fleet.pool().clone();
    let mut wait = Box::pin(pool.reserve_wait(tokens(500)));
    let polled = wait.as_mut().poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending(), "{polled:?}");
    all.release();
    let end = Instant::now() + Duration::from_secs(5);
    while !curious.woken.load(Ordering::SeqCst) {
        // A panic would drop the fleet, which takes the lock, too.
        if Instant::now() > end {
            eprintln!("the driver waits for a waker that waits for it");
            std::process::exit(1);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The runtime of the driver ends; another runtime still has the fleet.
#[test]
fn calls_end_when_the_driver_is_gone() {
    let server = Server::start();
    let build = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (one, two) = (build(), build());
    let client = server.client();
    let fleet = one.block_on(async { founding(1_000).join(client).await.unwrap() });
    one.shutdown_background();
    let calls = async {
        // The runtime may be a while about its end: until then the store may be asked in vain.
        let asked = fleet.record(tokens(500)).await;
        assert!(asked.is_err(), "{asked:?}");
        while !matches!(fleet.settle().await, Err(FleetError::Left { .. })) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let call = fleet.record(tokens(500)).await;
        let is_over = |error: &FleetError| {
            matches!(
                error,
                FleetError::Left { .. } | FleetError::Budget(BudgetError::Closed { .. })
            )
        };
        assert!(call.as_ref().is_err_and(is_over), "{call:?}");
        let leave = fleet.leave().await;
        assert!(matches!(leave, Err(FleetError::Left { .. })), "{leave:?}");
    };
    let ended = two.block_on(async { tokio::time::timeout(Duration::from_secs(5), calls).await });
    assert!(ended.is_ok(), "a call waits for a driver that is gone");
}

/// A proxy that can be silenced: it passes nothing on, and closes nothing.
async fn silent_proxy(to: u16) -> (u16, Arc<AtomicBool>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let silent = Arc::new(AtomicBool::new(false));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let is_silent = Arc::clone(&silent);
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = tokio::net::TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            let ((mut a, mut b), (mut c, mut d)) = (near.into_split(), far.into_split());
            let silent = Arc::clone(&is_silent);
            tokio::spawn(async move {
                let mut bytes = vec![0; 65_536];
                while let Ok(length @ 1..) = a.read(&mut bytes).await {
                    while silent.load(Ordering::SeqCst) {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                    let _ = d.write_all(&bytes[..length]).await;
                }
            });
            tokio::spawn(async move { tokio::io::copy(&mut c, &mut b).await });
        }
    });
    (port, silent)
}

/// With `Return` a member stops at its own TTL, also while an exchange hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_stops_at_its_ttl_while_its_exchange_hangs() {
    let server = Server::start();
    let (port, silent) = silent_proxy(server.port()).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let ttl = Duration::from_millis(2_000);
    let fleet = quick("acme")
        .found(Caps::new().tokens(1_000_000))
        .lost(Lost::Return)
        .ttl(ttl)
        .horizon(Duration::from_secs(20))
        .join(client)
        .await
        .unwrap();
    let steady = Instant::now();
    while steady.elapsed() < Duration::from_millis(1_500) {
        fleet.record(tokens(1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    silent.store(true, Ordering::SeqCst);
    let start = Instant::now();
    let mut last = Instant::now();
    while start.elapsed() < Duration::from_millis(4_500) {
        if fleet.pool().record(tokens(1)).is_ok() {
            last = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let late = (last - start).saturating_sub(ttl);
    assert!(late < Duration::from_millis(150), "{late:?}");
}

/// The last handle goes while a waiter of the pool stands in line.
#[tokio::test]
async fn a_dropped_fleet_refuses_its_waiters() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    let other = founding(100).join(server.client()).await.unwrap();
    let _all = other.reserve(tokens(100)).await.unwrap();
    let pool = fleet.pool().clone();
    let waiter = tokio::spawn(async move { pool.reserve_wait(tokens(50)).await.map(drop) });
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(fleet);
    let end = tokio::time::timeout(Duration::from_secs(5), waiter).await;
    assert!(end.unwrap().unwrap().is_err());
}

/// A call that stands in line behind a waiter does not ask the store again and again: nothing that it
/// asks for is granted past the line.
#[tokio::test]
async fn a_call_behind_a_waiter_leaves_the_store_alone() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    let other = founding(100).join(server.client()).await.unwrap();
    let held = other.reserve(tokens(80)).await.unwrap();
    let first = tokio::spawn({
        let fleet = fleet.clone();
        async move { fleet.reserve_wait(tokens(70)).await.map(|hold| hold.release()) }
    });
    tokio::time::sleep(Duration::from_millis(150)).await;
    let mut behind = Vec::new();
    for units in 1..=5 {
        let fleet = fleet.clone();
        behind.push(tokio::spawn(async move {
            match units % 2 {
                0 => fleet.record(tokens(units)).await,
                _ => fleet.reserve(tokens(units)).await.map(|hold| hold.commit_all()).map(drop),
            }
        }));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let calls = fleet.status().calls;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let calls = fleet.status().calls - calls;
    assert!(!first.is_finished() && behind.iter().all(|call| !call.is_finished()));
    assert!(calls < 100, "{calls} calls in 400 ms");
    held.release();
    for call in [first].into_iter().chain(behind) {
        tokio::time::timeout(Duration::from_secs(5), call).await.unwrap().unwrap().unwrap();
    }
}

/// W2: a task that spends what is here keeps neither its own timeout nor the driver from their turn.
#[test]
fn a_busy_task_yields_to_its_timeout_and_to_the_driver() {
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let fleet = founding(1_000).join(server.client()).await.unwrap();
        fleet.reserve(tokens(500)).await.unwrap().release();
        let start = Instant::now();
        let is_over = || start.elapsed() > Duration::from_secs(3);
        let worker = async {
            while !is_over() {
                fleet.record(tokens(0)).await.unwrap();
                fleet.reserve(tokens(1)).await.unwrap().release();
                fleet.reserve_wait(tokens(1)).await.unwrap().release();
            }
        };
        let calls = fleet.status().calls;
        let _ = tokio::time::timeout(Duration::from_millis(300), worker).await;
        assert!(!is_over(), "the timeout never fires");
        assert!(fleet.status().calls > calls, "the driver never runs");
    });
}
