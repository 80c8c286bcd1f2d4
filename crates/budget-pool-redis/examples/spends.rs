//! How many spends a second one process makes: from its local pool, through the fleet, and by one
//! script of the store for each spend, which is what a shared counter in Redis costs.
//!
//! `cargo run --release -p budget-pool-redis --example spends`
//!
//! With a journal, each spend is written to a file before the call returns.
//!
//! What it does not show: the spends of a local pool take no round trip, so this compares a lock of
//! this process with the network. The price of it is in the last column: what the store has charged
//! to the process and does not know as spent, which a crash leaves in doubt.

#[path = "../tests/support/server.rs"]
mod server;

use std::error::Error;
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
        "{:42} {:>14} {:>16} {:>12}",
        "one process, two seconds each", "spends a second", "calls of Redis", "in doubt"
    );

    spend("Fleet::record", &fleet).await?;
    let journal = server.folder().join("journal");
    let written = Fleet::builder("bench").journal(journal).join(server.client()).await?;
    spend("Fleet::record, with a journal", &written).await?;
    written.leave().await?;

    for tasks in [1_u64, 64] {
        let connection = server.client().get_multiplexed_async_connection().await?;
        let start = Instant::now();
        let mut running = Vec::new();
        for _task in 0..tasks {
            let mut connection = connection.clone();
            running.push(tokio::spawn(async move {
                let (script, mut spends) = (redis::Script::new(COUNTER), 0_u64);
                while start.elapsed() < TIME {
                    let mut call = script.prepare_invoke();
                    call.key("counter").arg(1_000_000_000_000_u64);
                    let spent = call.invoke_async::<u64>(&mut connection).await;
                    spends += spent.unwrap_or(0);
                }
                spends
            }));
        }
        let mut spends = 0;
        for task in running {
            spends += task.await?;
        }
        show(&format!("one EVALSHA a spend, {tasks} tasks at once"), spends, spends, 0);
    }
    Ok(fleet.leave().await?)
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
    println!("{what:42} {:>14} {calls:>16} {in_doubt:>12}", spends / TIME.as_secs());
}
