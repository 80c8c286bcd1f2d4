//! The figures that a fleet has to keep: what is stranded where one process has all the work, what
//! crashes cost, and how often the store is called.

#[path = "support/server.rs"]
mod server;
#[path = "support/worker.rs"]
mod worker;

use std::time::{Duration, Instant};

use budget_pool::{Amount, Axis, BudgetError, Caps};
use budget_pool_redis::{Admin, Fleet, FleetError};
use server::Server;
use worker::{THREADS, Worker};

fn tokens(units: u64) -> Amount {
    Amount::new().tokens(units)
}

/// A [`Worker`] runs it.
#[test]
fn worker() {
    worker::run();
}

/// Spends `rate` units a second, for `time`.
async fn spend(fleet: &Fleet, rate: u128, time: Duration) -> u64 {
    let (start, mut spent) = (Instant::now(), 0);
    while start.elapsed() < time {
        while u128::from(spent) < start.elapsed().as_millis() * rate / 1_000 {
            fleet.record(tokens(1)).await.unwrap();
            spent += 1;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    spent
}

/// Three of four processes stop, and the fourth has all the work. What it cannot spend when it is
/// refused first is stranded with the others, and after two settle intervals nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_hot_process_of_four_strands_a_hundredth_at_most_and_nothing_after_two_intervals() {
    const CAP: u64 = 40_000;
    let server = Server::start();
    // The terms are the defaults: a second each.
    let join = || Fleet::builder("acme").found(Caps::new().tokens(CAP)).join(server.client());
    let mut fleets = Vec::new();
    for _process in 0..4 {
        fleets.push(join().await.unwrap());
    }
    let mut tasks = Vec::new();
    for fleet in fleets.clone() {
        let work = async move { spend(&fleet, 100, Duration::from_secs(2)).await };
        tasks.push(tokio::spawn(work));
    }
    let mut spent = 0;
    for task in tasks {
        spent += task.await.unwrap();
    }
    let hot = &fleets[0];
    loop {
        match hot.record(tokens(1)).await {
            Ok(()) => spent += 1,
            // The second where the others have given back all, and the cap is spent.
            Err(FleetError::Short { .. } | FleetError::Budget(BudgetError::Exceeded(_))) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    let (stranded, refused) = (CAP - spent, Instant::now());
    assert!(stranded <= CAP / 100, "{stranded}");
    while spent < CAP {
        match hot.record(tokens(1)).await {
            Ok(()) => spent += 1,
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
        // An interval is up to a quarter longer, so that processes do not settle in step; and a busy
        // machine takes its time.
        assert!(refused.elapsed() < Duration::from_millis(3_000), "{} are stranded", CAP - spent);
    }
    println!("{stranded} of {CAP} were stranded, none after {:?}", refused.elapsed());
    assert!(hot.record(tokens(1)).await.is_err());
}

async fn figures(admin: &Admin) -> (u64, u64, u64) {
    let axis = admin.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    (axis.used.units(), axis.held.units(), axis.overage.units())
}

/// Four workers die again and again, one by one and all at once, until the cap is spent.
#[tokio::test]
async fn crashes_overshoot_nothing_leave_two_hundredths_in_doubt_and_are_settled_by_journals() {
    const CAP: u64 = 60_000;
    const AT_MOST: u64 = 240;
    let server = Server::start();
    let founding = worker::quick("acme").found(Caps::new().tokens(CAP));
    let fleet = founding.at_most(tokens(AT_MOST)).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    let name = |index: usize| format!("worker {index}");
    let start = |index: usize| Worker::start(&server, &name(index), "record", AT_MOST);
    let mut workers: Vec<Worker> = (0..4).map(start).collect();
    let (mut kills, mut doubt) = (0, 0);
    let (mut least, mut longest) = (Duration::MAX, Duration::ZERO);
    let end = Instant::now() + Duration::from_secs(30);
    let spent = |workers: &[Worker]| workers.iter().map(Worker::spent).sum::<u64>();
    for round in 0.. {
        assert!(Instant::now() < end, "{} of {CAP} after {kills} crashes", spent(&workers));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let dying = if round % 5 == 4 { 0..4 } else { round % 4..round % 4 + 1 };
        for index in dying.clone() {
            workers[index].kill();
        }
        kills += dying.len() as u64;
        // What the living hold counts, too: they may die at this instant.
        doubt = doubt.max(figures(&admin).await.1);
        for index in dying {
            let began = Instant::now();
            let journal = workers[index].journal.clone();
            let settling = worker::quick("acme").journal(journal).join(server.client());
            settling.await.unwrap().leave().await.unwrap();
            least = least.min(began.elapsed());
            longest = longest.max(began.elapsed());
            workers[index] = start(index);
        }
        if figures(&admin).await.0 + AT_MOST * 5 > CAP {
            break;
        }
    }
    for worker in &mut workers {
        worker.kill();
        let settling = worker::quick("acme").journal(&worker.journal).join(server.client());
        settling.await.unwrap().leave().await.unwrap();
        kills += 1;
    }
    let witness = spent(&workers);
    let (used, _, overage) = figures(&admin).await;
    assert!(witness <= CAP && overage == 0, "{witness} {overage}");
    assert!((witness..=witness + kills * THREADS).contains(&used), "{witness} {used} {kills}");
    assert!(doubt > 0 && doubt <= CAP / 50, "{doubt}");
    // What else runs on the machine can only add to it.
    assert!(least < Duration::from_millis(100), "{least:?}");
    // Nothing is stranded with the dead: the rest is spent to the unit.
    let mut rest = 0;
    while rest < CAP - used {
        fleet.record(tokens(1)).await.unwrap();
        rest += 1;
    }
    assert!(fleet.record(tokens(1)).await.is_err());
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (CAP, 0, 0));
    println!("{kills} crashes: {doubt} of {CAP} in doubt, settled in {least:?} to {longest:?}");
}

/// Four processes at a thousand spends a second each, with journals, once the rate is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_spends_of_each_process_take_three_calls_at_most() {
    let server = Server::start();
    let mut tasks = Vec::new();
    for index in 0..4 {
        let caps = Caps::new().tokens(10_000_000);
        let journal = server.folder().join(format!("journal {index}"));
        let builder = Fleet::builder("acme").found(caps).journal(journal);
        let fleet = builder.join(server.client()).await.unwrap();
        tasks.push(tokio::spawn(async move {
            spend(&fleet, 1_000, Duration::from_millis(1_500)).await;
            let calls = fleet.status().calls;
            let spent = spend(&fleet, 1_000, Duration::from_secs(4)).await;
            (fleet.status().calls - calls, spent)
        }));
    }
    for task in tasks {
        let (calls, spent) = task.await.unwrap();
        println!("{calls} calls for {spent} spends");
        assert!(calls * 1_000 <= 3 * spent, "{calls} calls for {spent} spends");
    }
}
