//! A process that spends from a fleet with a journal, until it is killed. A witness outside, a file
//! that it adds to once a spend is booked, says what it spent.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use budget_pool::Amount;
use budget_pool_redis::{Fleet, FleetBuilder, blocking};

use crate::server::Server;

/// Each thread of a worker may be in the midst of a spend when the worker dies.
pub const THREADS: u64 = 3;

pub fn quick(wallet: &str) -> FleetBuilder {
    let short = Duration::from_millis(50);
    Fleet::builder(wallet).settle_every(short).horizon(short).ttl(Duration::from_millis(600))
}

fn tokens(units: u64) -> Amount {
    Amount::new().tokens(units)
}

/// The work, in a process of its own: for the test `worker` of a file. It is none where the variables
/// are not set.
pub fn run() {
    let variable = |name: &str| std::env::var(format!("WORKER_{name}"));
    let (Ok(url), Ok(way)) = (variable("URL"), variable("WAY")) else { return };
    let (witness, journal) = (variable("WITNESS").unwrap(), variable("JOURNAL").unwrap());
    let client = redis::Client::open(url).unwrap();
    let at_most: u64 = variable("AT_MOST").unwrap().parse().unwrap();
    let mut terms = quick("acme").journal(journal);
    if at_most > 0 {
        terms = terms.at_most(tokens(at_most));
    }
    let fleet = blocking::Fleet::join(terms, client).unwrap();
    let witness = OpenOptions::new().create(true).append(true).open(witness).unwrap();
    let note = |units: usize| (&witness).write_all(&vec![b'.'; units]).unwrap();
    let spend = || match way.as_str() {
        "record" => fleet.record(tokens(1)).map(|()| note(1)),
        "hold" => fleet.reserve(tokens(5)).map(|hold| {
            note(5);
            hold.commit_all();
        }),
        // A hold that is settled with more than it holds, and the journal before the effect.
        "more" => fleet.reserve(tokens(5)).and_then(|hold| {
            hold.commit(tokens(7));
            fleet.write_journal().map(|()| note(7))
        }),
        "wait" => fleet.reserve_wait(tokens(3)).map(|hold| {
            note(3);
            hold.commit_all();
        }),
        other => panic!("{other}"),
    };
    std::thread::scope(|scope| {
        for _thread in 0..THREADS {
            scope.spawn(|| {
                loop {
                    if spend().is_err() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    // The scheduler picks another thread, and the kill another instant.
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
        }
    });
}

pub struct Worker {
    child: Child,
    witness: PathBuf,
    pub journal: PathBuf,
}

impl Worker {
    /// With `at_most` units ahead; 0 sets no bound.
    pub fn start(server: &Server, name: &str, way: &str, at_most: u64) -> Worker {
        let witness = server.folder().join(name);
        let journal = server.folder().join(format!("{name}.journal"));
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["worker", "--exact"])
            .env("WORKER_URL", server.url())
            .env("WORKER_WITNESS", &witness)
            .env("WORKER_JOURNAL", &journal)
            .env("WORKER_WAY", way)
            .env("WORKER_AT_MOST", at_most.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Worker { child: child.unwrap(), witness, journal }
    }

    pub fn spent(&self) -> u64 {
        std::fs::metadata(&self.witness).map_or(0, |file| file.len())
    }

    /// As `kill -9` does. Returns the spend by the witness.
    pub fn kill(&mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.spent()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
