//! Four processes spend one budget, one of them is killed, and the books are audited:
//!
//! `cargo run -p budget-pool-redis --example fleet`
//!
//! It starts a `redis-server` of its own and ends it. Each process fans out into eight tasks that hold
//! an estimate, write down what they are about to spend, and settle that. The table shows what each
//! process has told as spent and what it holds beyond: that is what a crash leaves in doubt.

#[path = "../tests/support/server.rs"]
mod server;

use std::error::Error;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use budget_pool::{Amount, Axis, Caps};
use budget_pool_redis::{Admin, Fleet, FleetBuilder, FleetError};
use server::Server;

const CAP: u64 = 60_000;

fn builder() -> FleetBuilder {
    let time = Duration::from_millis(200);
    let at_most = Amount::new().tokens(600);
    Fleet::builder("demo")
        .ttl(Duration::from_secs(2))
        .settle_every(time)
        .horizon(time)
        .at_most(at_most)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    match (std::env::var("FLEET_URL"), std::env::var("FLEET_FILE")) {
        (Ok(url), Ok(file)) => work(&url, Path::new(&file)).await,
        _ => watch().await,
    }
}

/// One of the processes: it ends when the fleet has had nothing for it for a while.
async fn work(url: &str, witness: &Path) -> Result<(), Box<dyn Error>> {
    let name = witness.file_name().map_or_else(String::new, |name| name.to_string_lossy().into());
    let fleet = builder().member(name).join(redis::Client::open(url)?).await?;
    let mut tasks = Vec::new();
    for task in 0..8_u64 {
        let fleet = fleet.clone();
        let mut witness = OpenOptions::new().create(true).append(true).open(witness)?;
        tasks.push(tokio::spawn(async move {
            let (mut call, mut last) = (task, Instant::now());
            while last.elapsed() < Duration::from_secs(3) {
                match fleet.reserve(Amount::new().tokens(30)).await {
                    Ok(hold) => {
                        tokio::time::sleep(Duration::from_millis(40)).await;
                        call += 1;
                        let spent = 5 + call * 7 % 21;
                        // In one write: the lines of eight tasks must not run into each other.
                        if witness.write_all(format!("{spent}\n").as_bytes()).is_ok() {
                            hold.commit(Amount::new().tokens(spent));
                        }
                        last = Instant::now();
                    }
                    Err(FleetError::Budget(_)) => break,
                    Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
                }
            }
        }));
    }
    for task in tasks {
        task.await?;
    }
    Ok(fleet.leave().await?)
}

async fn watch() -> Result<(), Box<dyn Error>> {
    let server = Server::start();
    let fleet =
        builder().found(Caps::new().tokens(CAP)).member("watcher").join(server.client()).await?;
    let admin = fleet.admin();
    let mut workers = Vec::new();
    for index in 1..=4 {
        let file = server.folder().join(format!("worker {index}"));
        let child = Command::new(std::env::current_exe()?)
            .env("FLEET_URL", server.url())
            .env("FLEET_FILE", &file)
            .spawn()?;
        workers.push((Ended(child), file));
    }
    println!("one wallet of {CAP} tokens, four processes; a crash may leave 600 in doubt");
    let start = Instant::now();
    let mut is_killed = false;
    while start.elapsed() < Duration::from_secs(20) {
        tokio::time::sleep(Duration::from_millis(500)).await;
        if !is_killed && start.elapsed() > Duration::from_secs(2) {
            workers[1].0.0.kill()?;
            workers[1].0.0.wait()?;
            is_killed = true;
            println!("worker 2 is killed with `kill -9`");
        }
        show(&admin, start).await?;
        let others = [0, 2, 3];
        let mut have_ended = true;
        for other in others {
            have_ended &= workers[other].0.0.try_wait()?.is_some();
        }
        if is_killed && have_ended {
            break;
        }
    }
    audit(&admin, &workers).await?;
    Ok(fleet.leave().await?)
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn show(admin: &Admin, start: Instant) -> Result<(), FleetError> {
    let snapshot = admin.snapshot().await?;
    let Some(axis) = snapshot.axis(Axis::Tokens) else { return Ok(()) };
    print!(
        "{:4.1} s  spent {:>12}  held {:>11}  free {:>12} |",
        start.elapsed().as_secs_f32(),
        axis.used.to_string(),
        axis.held.to_string(),
        axis.free.to_string()
    );
    for member in admin.members().await? {
        if let Some(name) = member.id.strip_prefix("worker ") {
            let (spent, held) = (member.spent.units(Axis::Tokens), member.held.units(Axis::Tokens));
            print!("  {}: {spent}+{held}{}", &name[..1], if member.is_lost { " LOST" } else { "" });
        }
    }
    println!();
    Ok(())
}

async fn audit(
    admin: &Admin,
    workers: &[(Ended, std::path::PathBuf)],
) -> Result<(), Box<dyn Error>> {
    let witness = |file: &Path| -> u64 {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter_map(|line| line.parse::<u64>().ok()).sum()
    };
    let truth: u64 = workers.iter().map(|(_, file)| witness(file)).sum();
    for member in admin.members().await? {
        if member.id.starts_with("worker") && member.is_lost {
            let spent = witness(&workers[1].1);
            println!(
                "{} told {} and holds {} more; its own file says {spent}",
                member.id,
                member.spent.units(Axis::Tokens),
                member.held.units(Axis::Tokens)
            );
            admin.resolve(&member.id, Amount::new().tokens(spent)).await?;
        }
    }
    let axis = admin.snapshot().await?.axis(Axis::Tokens).ok_or("the wallet has tokens")?;
    println!("the four files say {truth}, the wallet says {}, the cap is {CAP}", axis.used);
    if axis.used.units() != truth || truth > CAP {
        return Err("the books do not agree".into());
    }
    println!("the books agree, and nothing was overshot");
    Ok(())
}
