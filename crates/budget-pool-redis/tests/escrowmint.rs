//! A fleet on the keys of EscrowMint, beside its own Python client.

#![cfg(feature = "escrowmint")]

#[path = "support/common.rs"]
mod common;
#[path = "support/python.rs"]
mod python;
#[path = "support/server.rs"]
mod server;
#[path = "support/threads.rs"]
mod threads;

use std::process::Stdio;
use std::time::Duration;

use budget_pool::{Axis, Caps};
use budget_pool_redis::{Admin, Fleet, FleetError, blocking};
use common::{TTL, caps, figures, founding, quick, spend_all, tokens, until};
use server::Server;

const STATE: &str = "escrowmint:{acme}:state";

async fn join(server: &Server) -> Fleet {
    quick("acme").join_escrowmint(Axis::Tokens, "escrowmint", server.client()).await.unwrap()
}

fn field(server: &Server, field: &str) -> i64 {
    let text = server.command(&["HGET", STATE, field]);
    redis::from_redis_value::<String>(text).unwrap().parse().unwrap()
}

#[tokio::test]
async fn grants_come_from_what_is_available_and_returns_go_there() {
    let server = Server::start();
    server.command(&["HSET", STATE, "available", "1000", "reserved", "7", "version", "3"]);
    let fleet = join(&server).await;
    assert_eq!((field(&server, "available"), field(&server, "version")), (1_000, 3));
    let hold = fleet.reserve(tokens(600)).await.unwrap();
    assert!(field(&server, "available") <= 400);
    hold.commit(tokens(250));
    let refused = fleet.record(tokens(1_001)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Budget(_) | FleetError::Short { .. }), "{refused:?}");
    let admin = fleet.admin();
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (250, 0, 750));
    assert_eq!((field(&server, "available"), field(&server, "reserved")), (750, 7));
    assert!(field(&server, "version") > 3);

    // Its clients spend all but five, and then add ten.
    server.command(&["HSET", STATE, "available", "5"]);
    let fleet = join(&server).await;
    assert!(fleet.record(tokens(6)).await.is_err());
    fleet.record(tokens(5)).await.unwrap();
    server.command(&["HINCRBY", STATE, "available", "10"]);
    until("what was added is spent", || async { fleet.record(tokens(10)).await.is_ok() }).await;
    // Spend beyond it is paid first by what is added later.
    fleet.pool().debit(tokens(4));
    fleet.settle().await.unwrap();
    assert_eq!(field(&server, "available"), -4);
    admin.set_caps(Caps::new().tokens(265 + 2)).await.unwrap();
    fleet.settle().await.unwrap();
    assert_eq!(field(&server, "available"), -2);
    for _call in ["the first", "a retry"] {
        admin.raise("more", caps(12)).await.unwrap();
        admin.lower("less", caps(3)).await.unwrap();
    }
    fleet.leave().await.unwrap();
    assert_eq!(field(&server, "available"), 7);
}

/// Units that a client of EscrowMint holds come back without a word to the fleet.
#[tokio::test]
async fn what_its_clients_give_back_is_waited_for() {
    let server = Server::start();
    server.command(&["HSET", STATE, "available", "0", "reserved", "1000"]);
    let terms = Fleet::builder("acme").join_escrowmint(Axis::Tokens, "escrowmint", server.client());
    let fleet = terms.await.unwrap();
    let refused = fleet.record(tokens(10)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Short { retry_after: None, .. }), "{refused:?}");
    let give_back = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.command(&["HSET", STATE, "available", "1000", "reserved", "0"]);
    };
    let wait = tokio::time::timeout(Duration::from_secs(5), fleet.reserve_wait(tokens(10)));
    let (hold, ()) = tokio::join!(wait, give_back);
    hold.unwrap().unwrap().commit_all();
    fleet.record(tokens(990)).await.unwrap();
}

/// On another axis and under another prefix than those that stand in most examples.
#[test]
fn threads_join_it_too() {
    let server = Server::start();
    let state = "theirs:{acme}:state";
    server.command(&["HSET", STATE, "available", "1000"]);
    server.command(&["HSET", state, "available", "1000"]);
    let join =
        |terms| blocking::Fleet::join_escrowmint(terms, Axis::Requests, "theirs", server.client());
    threads::spend_750(quick("acme"), server.folder().join("journal"), Axis::Requests, join);
    let available = server.command(&["HGET", state, "available"]);
    assert_eq!(redis::from_redis_value::<i64>(available).unwrap(), 250);
    assert_eq!(field(&server, "available"), 1_000);
}

#[tokio::test]
async fn a_lost_member_keeps_its_units_until_it_is_resolved() {
    let server = Server::start();
    server.command(&["HSET", STATE, "available", "1000"]);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let client = server.client();
    let lost = runtime.spawn(async move {
        let fleet =
            quick("acme").join_escrowmint(Axis::Tokens, "escrowmint", client).await.unwrap();
        fleet.reserve(tokens(100)).await.unwrap().commit(tokens(40));
        fleet
    });
    let lost = lost.await.unwrap();
    let member = lost.status().member;
    // As `kill -9` does, the driver ends without a farewell.
    runtime.shutdown_background();
    let left = field(&server, "available");
    assert!(left <= 900, "{left}");
    let admin = Admin::new_escrowmint("acme", "escrowmint", server.client());
    tokio::time::sleep(2 * TTL).await;
    assert_eq!(field(&server, "available"), left);
    admin.resolve(&member, tokens(40)).await.unwrap();
    assert_eq!(field(&server, "available"), 960);
    admin.remove().await.unwrap();
    assert_eq!(field(&server, "available"), 960);
    drop(lost);
}

#[tokio::test]
async fn nobody_joins_it_who_does_not_know_of_escrowmint() {
    let server = Server::start();
    server.command(&["HSET", STATE, "available", "1000"]);
    let _fleet = join(&server).await;
    let plain = founding(0).join(server.client()).await.unwrap_err();
    assert!(matches!(plain, FleetError::OtherFounding { .. }), "{plain:?}");
    let plain = quick("acme").join(server.client()).await.unwrap_err();
    assert!(matches!(plain, FleetError::OtherFounding { .. }), "{plain:?}");
    let plain = Admin::new("acme", server.client()).set_caps(Caps::new().tokens(5)).await;
    assert!(matches!(plain, Err(FleetError::OtherFounding { .. })), "{plain:?}");
    let plain = quick("plain").found(Caps::new().tokens(5)).join(server.client()).await.unwrap();
    let other = quick("plain").join_escrowmint(Axis::Tokens, "escrowmint", server.client()).await;
    assert!(matches!(other, Err(FleetError::OtherFounding { .. })), "{other:?}");
    drop(plain);
    for garbage in ["many", "1.5"] {
        server.command(&["HSET", STATE, "available", garbage]);
        let error = Admin::new_escrowmint("acme", "escrowmint", server.client()).snapshot().await;
        assert!(matches!(error, Err(FleetError::Damaged { .. })), "{garbage}: {error:?}");
    }
    server.command(&["HSET", STATE, "available", "9007199254740992"]);
    let error = Admin::new_escrowmint("acme", "escrowmint", server.client()).snapshot().await;
    assert!(matches!(error, Err(FleetError::Range { .. })), "{error:?}");
}

const SEED: &str = "
import sys
from escrowmint import Client
with Client.from_url(sys.argv[1]) as client:
    client.seed_available('acme', 3000)
";

/// Consumes one by one until nothing is left for a while, and prints how much it was.
const SPEND: &str = "
import sys, time
from escrowmint import Client
with Client.from_url(sys.argv[1]) as client:
    spent, last, pause = 0, time.time(), float(sys.argv[2])
    while time.time() < last + 1.0:
        if client.try_consume('acme', 1).applied:
            spent, last = spent + 1, time.time()
        time.sleep(pause)
    print(spent)
";

/// Holds 100, commits 60 of them as two holds, gives 40 back, adds 20.
const HOLD: &str = "
import sys
from escrowmint import Client
with Client.from_url(sys.argv[1]) as client:
    holds = [client.reserve('acme', units, ttl_ms=60000) for units in (25, 35, 40)]
    client.commit('acme', holds[0].reservation_id)
    client.commit('acme', holds[1].reservation_id)
    client.cancel('acme', holds[2].reservation_id)
    print(client.top_up('acme', 20).available)
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_f4_python_and_rust_spend_one_wallet_to_the_unit() {
    let python = match python::escrowmint(env!("CARGO_TARGET_TMPDIR").into()) {
        Ok(python) => python,
        Err(why) => {
            println!("SKIPPED: EscrowMint's Python client beside a fleet: {why}");
            return;
        }
    };
    let server = Server::start();
    let url = server.url();
    python.run(SEED, &[&url]).unwrap();
    let (one, two) = (join(&server).await, join(&server).await);
    let peers = [0, 1].map(|_| {
        let mut command = python.command(SPEND, &[&url, "0.002"]);
        command.stdout(Stdio::piped()).spawn().unwrap()
    });
    // Python takes longer to start.
    until("Python spends", || async { field(&server, "available") < 2_990 }).await;
    let (first, second) = tokio::join!(spend_all(&one), spend_all(&two));
    let spent = peers.map(|peer| {
        let done = peer.wait_with_output().unwrap();
        assert!(done.status.success());
        String::from_utf8(done.stdout).unwrap().trim().parse::<u64>().unwrap()
    });
    // The first to come may leave nothing to the others of its language.
    assert!(first + second > 0 && spent.iter().sum::<u64>() > 0);
    let admin = one.admin();
    one.leave().await.unwrap();
    two.leave().await.unwrap();
    let rest: u64 = python.run(SPEND, &[&url, "0"]).unwrap().parse().unwrap();
    let all = first + second + spent.iter().sum::<u64>() + rest;
    assert_eq!((all, field(&server, "available")), (3_000, 0));
    assert_eq!(figures(&admin).await, (first + second, 0, 0));

    // Its holds and top-ups, while a fleet holds units.
    server.command(&["HSET", STATE, "available", "200"]);
    let fleet = join(&server).await;
    let hold = fleet.reserve(tokens(50)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    python.run(HOLD, &[&url]).unwrap();
    hold.commit(tokens(30));
    fleet.leave().await.unwrap();
    assert_eq!(field(&server, "available"), 200 - 60 + 20 - 30);
}
