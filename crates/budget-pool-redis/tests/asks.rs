//! Asks with alternatives and terms, through a fleet.

#[path = "support/server.rs"]
mod server;

use std::time::{Duration, Instant};

use budget_pool::{Amount, Ask, Axis, BudgetError, Caps, Reservation};
use budget_pool_redis::{Fleet, FleetBuilder, FleetError, blocking};
use server::Server;

fn tokens(units: u64) -> Amount {
    Amount::new().tokens(units)
}

fn founding(cap: u64) -> FleetBuilder {
    let short = Duration::from_millis(50);
    let quick = Fleet::builder("acme").settle_every(short).horizon(short);
    quick.ttl(Duration::from_secs(3)).found(Caps::new().tokens(cap))
}

fn held(hold: &Reservation) -> u64 {
    hold.amount().units(Axis::Tokens)
}

#[tokio::test]
async fn as_much_as_the_fleet_has() {
    let server = Server::start();
    let one = founding(1_000).join(server.client()).await.unwrap();
    let two = founding(1_000).join(server.client()).await.unwrap();
    // What is here would do, and the fleet has more.
    one.reserve(tokens(50)).await.unwrap().release();
    let ask = Ask::new(tokens(600)).at_least(tokens(1));
    assert!(one.pool().reserve(ask.clone()).is_ok_and(|hold| held(&hold) < 600));
    let hold = one.reserve(ask.clone()).await.unwrap();
    assert_eq!(held(&hold), 600);
    let calls = two.status().calls;
    let rest = two.reserve(ask.clone()).await.unwrap();
    assert!((300..=400).contains(&held(&rest)), "{}", held(&rest));
    assert!(two.status().calls - calls <= 3, "{}", two.status().calls - calls);
    rest.release();
    hold.release();
    one.leave().await.unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    let all = Ask::new(tokens(5_000)).at_least(tokens(990));
    while two.reserve(all.clone()).await.is_err() {
        assert!(Instant::now() < end, "what the other gave back does not come");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn the_best_alternative_that_the_fleet_has() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    fleet.reserve(tokens(25)).await.unwrap().release();
    let ask = Ask::new(tokens(800)).or(tokens(300)).or(tokens(20));
    let hold = fleet.reserve(ask.clone()).await.unwrap();
    assert_eq!((hold.choice(), held(&hold)), (0, 800));
    let next = fleet.reserve(ask.clone()).await.unwrap();
    assert_eq!((next.choice(), held(&next)), (2, 20));
    hold.release();
    let better = fleet.reserve(ask.clone()).await.unwrap();
    assert_eq!(better.choice(), 0);
    // 80 are left, for none of these; the refusal is that of the last.
    let ask = Ask::new(tokens(900)).or(tokens(500)).at_least(tokens(90));
    let refused = fleet.reserve(ask).await.unwrap_err();
    let FleetError::Short { axis, requested, free, cap, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!((axis, requested, free, cap), (Axis::Tokens, 90, 80, 1_000));
    let ask = Ask::new(tokens(9_000)).or(tokens(5_000));
    let never = fleet.reserve(ask).await.unwrap_err();
    assert!(matches!(never, FleetError::Budget(BudgetError::Exceeded(_))), "{never:?}");
}

#[tokio::test]
async fn alternatives_on_other_axes() {
    let server = Server::start();
    let builder = founding(1_000).found(Caps::new().tokens(1_000).requests(50));
    let fleet = builder.join(server.client()).await.unwrap();
    fleet.record(tokens(950)).await.unwrap();
    let other = tokens(10).requests(40);
    let hold = fleet.reserve(Ask::new(tokens(500)).or(other)).await.unwrap();
    assert_eq!((hold.choice(), hold.amount().units(Axis::Requests)), (1, 40));
    let refused = fleet.reserve(Ask::new(tokens(500)).or(other)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Short { axis: Axis::Requests, .. }), "{refused:?}");
}

#[tokio::test]
async fn terms_of_a_hold_that_the_store_granted() {
    let server = Server::start();
    let fleet = founding(100).join(server.client()).await.unwrap();
    let ask = Ask::new(tokens(100)).ttl(Duration::from_millis(60)).label("draft");
    let hold = fleet.reserve(ask.clone()).await.unwrap();
    assert_eq!(fleet.pool().holders()[0].label, Some("draft".into()));
    std::mem::forget(hold);
    assert!(fleet.reserve(ask.clone()).await.is_err());
    tokio::time::sleep(Duration::from_millis(60)).await;
    let hold = fleet.reserve(ask.clone()).await.unwrap();
    hold.commit_all();

    let start = Instant::now();
    let wait = Ask::new(tokens(1)).wait_at_most(Duration::from_millis(80));
    let refused = fleet.reserve_wait(wait).await.unwrap_err();
    assert!(matches!(refused, FleetError::Budget(_)), "{refused:?}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

/// Many tasks at once, with and without alternatives: none gets what the fleet does not have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_asks_at_once_share_the_cap() {
    let server = Server::start();
    let fleets = [
        founding(2_000).join(server.client()).await.unwrap(),
        founding(2_000).join(server.client()).await.unwrap(),
    ];
    let mut tasks = Vec::new();
    for index in 0..24_u64 {
        let fleet = fleets[usize::from(index % 2 == 0)].clone();
        tasks.push(tokio::spawn(async move {
            let (mut spent, mut last) = (0, Instant::now());
            while last.elapsed() < Duration::from_secs(1) {
                let ask = match index % 3 {
                    0 => Ask::new(tokens(30)).at_least(tokens(1)),
                    1 => Ask::new(tokens(17)).or(tokens(3)).or(tokens(1)),
                    _ => Ask::new(tokens(1)).label("one"),
                };
                match fleet.reserve(ask).await {
                    Ok(hold) => {
                        spent += held(&hold);
                        hold.commit_all();
                        last = Instant::now();
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(15)).await,
                }
            }
            spent
        }));
    }
    let mut spent = 0;
    for task in tasks {
        spent += task.await.unwrap();
    }
    assert_eq!(spent, 2_000);
    let admin = fleets[0].admin();
    for fleet in fleets {
        fleet.leave().await.unwrap();
    }
    let axis = admin.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    assert_eq!((axis.used.units(), axis.held.units()), (2_000, 0));
}

#[test]
fn threads_ask_as_tasks_do() {
    let server = Server::start();
    let fleet = blocking::Fleet::join(founding(1_000), server.client()).unwrap();
    let ask = Ask::new(tokens(700)).at_least(tokens(50)).label("draft");
    let hold = fleet.reserve(ask.clone()).unwrap();
    assert_eq!(held(&hold), 700);
    let rest = fleet.reserve(ask).unwrap();
    assert_eq!(held(&rest), 300);
    let wait = Ask::new(tokens(1)).wait_at_most(Duration::from_millis(50));
    assert!(fleet.reserve_wait(wait).is_err());
    hold.release();
    let plain = fleet.reserve(tokens(600)).unwrap();
    assert_eq!(held(&plain), 600);
}

/// What a waiter has here on an axis stays here while the store is asked for another.
#[tokio::test]
async fn a_waiter_on_two_axes_is_served() {
    let server = Server::start();
    let builder = founding(1_000).found(Caps::new().tokens(1_000).requests(50));
    let fleet = builder.join(server.client()).await.unwrap();
    fleet.reserve(tokens(50)).await.unwrap().release();
    let calls = fleet.status().calls;
    let wait = fleet.reserve_wait(tokens(10).requests(40));
    let hold = tokio::time::timeout(Duration::from_secs(3), wait).await.unwrap().unwrap();
    assert_eq!(hold.amount().units(Axis::Requests), 40);
    assert!(fleet.status().calls - calls <= 3, "{}", fleet.status().calls - calls);
}
