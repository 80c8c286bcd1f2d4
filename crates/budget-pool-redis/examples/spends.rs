//! How many spends a second one process makes: from its local pool, through the fleet, by one script
//! of the store for each spend, which is what a shared counter in Redis costs, and by the
//! `try_consume` of EscrowMint, in one run.
//!
//! `cargo run --release -p budget-pool-redis --example spends`
//!
//! With a journal, each spend is written to a file before the call returns.
//!
//! The rows of EscrowMint need `python3` and pip, which fetches it from PyPI. Its script is sent from
//! here, too: then the rows differ by the script alone, and not by the language of the client.
//!
//! What it does not show: the spends of a local pool take no round trip, so this compares a lock of
//! this process with the network. The price of it is in the last column: what the store has charged
//! to the process and does not know as spent, which a crash leaves in doubt. The server and its
//! clients share the processors of one machine here, and a network in between would slow down each row
//! but the first. EscrowMint has reservations, idempotency keys and exact balances at every instant,
//! which cost it time. Its own answer to the price of a round trip, a chunk, is not in the table: a
//! chunk that expires gives back the spend that its owner had not told.

#[path = "../tests/support/python.rs"]
mod python;
#[path = "../tests/support/server.rs"]
mod server;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use budget_pool::{Amount, Axis, Caps};
use budget_pool_redis::{Fleet, FleetError};
use server::Server;

const TIME: Duration = Duration::from_secs(2);
const COUNTER: &str = "local used = tonumber(redis.call('GET', KEYS[1]) or '0') \
    if used + 1 > tonumber(ARGV[1]) then return 0 end redis.call('SET', KEYS[1], used + 1) return 1";

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = Server::start();
    let caps = Caps::new().requests(1_000_000_000_000);
    let fleet = Fleet::builder("bench").found(caps).join(server.client()).await?;
    println!(
        "{:44} {:>14} {:>16} {:>12}",
        "one process, two seconds each", "spends a second", "calls a second", "in doubt"
    );

    spend("Fleet::record", &fleet).await?;
    let journal = server.folder().join("journal");
    let written = Fleet::builder("bench").journal(journal).join(server.client()).await?;
    spend("Fleet::record, with a journal", &written).await?;
    written.leave().await?;

    for tasks in [1, 64] {
        let what = format!("one EVALSHA a spend, {tasks} tasks at once");
        let arguments = vec!["1000000000000".to_owned()];
        by_script(&server, &what, COUNTER, &["counter"], &arguments, tasks).await?;
    }
    match python::escrowmint(std::env::temp_dir().join("budget-pool-redis")) {
        Ok(python) => escrowmint(&server, &python).await?,
        Err(why) => println!("SKIPPED: EscrowMint's try_consume: {why}"),
    }
    Ok(fleet.leave().await?)
}

/// Each task waits for the answer to its spend, over one connection for all.
async fn by_script(
    server: &Server,
    what: &str,
    script: &str,
    keys: &[&'static str],
    arguments: &[String],
    tasks: u64,
) -> Result<(), Box<dyn Error>> {
    let connection = server.client().get_multiplexed_async_connection().await?;
    let script = Arc::new(redis::Script::new(script));
    let start = Instant::now();
    let mut running = Vec::new();
    for _task in 0..tasks {
        let (mut connection, script) = (connection.clone(), Arc::clone(&script));
        let (keys, arguments) = (keys.to_vec(), arguments.to_vec());
        running.push(tokio::spawn(async move {
            let mut spends = 0_u64;
            let mut call = script.prepare_invoke();
            call.key(keys).arg(arguments);
            while start.elapsed() < TIME {
                call.invoke_async::<redis::Value>(&mut connection).await?;
                spends += 1;
            }
            Ok::<u64, redis::RedisError>(spends)
        }));
    }
    let mut spends = 0;
    for task in running {
        spends += task.await??;
    }
    show(what, spends, spends, 0);
    Ok(())
}

const SEED: &str = "
import sys
from escrowmint import Client
Client.from_url(sys.argv[1]).seed_available('bench', 10**12)
";

const SPEND: &str = "
import sys, time
from escrowmint import Client
with Client.from_url(sys.argv[1]) as client:
    client.try_consume('bench', 1)
    spends, end = 0, time.monotonic() + float(sys.argv[2])
    while time.monotonic() < end:
        client.try_consume('bench', 1)
        spends += 1
    print(spends)
";

async fn escrowmint(server: &Server, python: &python::Python) -> Result<(), Box<dyn Error>> {
    let url = server.url();
    python.run(SEED, &[&url])?;
    let script = python.run("from escrowmint import _lua; print(_lua.TRY_CONSUME)", &[])?;
    let keys = [
        "escrowmint:{bench}:state",
        "escrowmint:{bench}:reservations",
        "escrowmint:{bench}:reservation_expiries",
        "escrowmint:{bench}:chunk_leases",
        "escrowmint:{bench}:chunk_lease_expiries",
        "",
    ];
    let day = "86400000";
    let arguments = ["1", "an operation", day, "a fingerprint", day].map(str::to_owned);
    for tasks in [1, 64] {
        let what = format!("EscrowMint try_consume, {tasks} tasks at once");
        by_script(server, &what, &script, &keys, &arguments, tasks).await?;
    }
    let time = TIME.as_secs().to_string();
    let spends: u64 = python.run(SPEND, &[&url, &time])?.parse()?;
    show("EscrowMint try_consume, its Python client", spends, spends, 0);
    Ok(())
}

async fn spend(what: &str, fleet: &Fleet) -> Result<(), FleetError> {
    let one = Amount::new().requests(1);
    let (start, mut spends) = (Instant::now(), 0_u64);
    let calls = fleet.status().calls;
    while start.elapsed() < TIME {
        for _spend in 0..64 {
            fleet.record(one).await?;
            spends += 1;
        }
        // The driver is a task like this one.
        tokio::task::yield_now().await;
    }
    let in_doubt = fleet.status().in_doubt.units(Axis::Requests);
    show(what, spends, fleet.status().calls - calls, in_doubt);
    Ok(())
}

fn show(what: &str, spends: u64, calls: u64, in_doubt: u64) {
    let [spends, calls] = [spends, calls].map(|count| count / TIME.as_secs());
    println!("{what:44} {spends:>14} {calls:>16} {in_doubt:>12}");
}
