//! Many tasks of different sizes wait for one budget: some tokens, a few calls in flight at a time,
//! and a deadline.
//!
//! ```text
//! cargo run --release --example fanout                       # 200 tokio tasks, 8 at a time
//! cargo run --release --example fanout -- --threads          # the same on threads: reserve_blocking
//! cargo run --release --example fanout -- --deadline 1       # too short: who cannot be served is told in time
//! cargo run --release --example fanout -- --stop-after 1     # closed, as by ctrl-c: all stop at once
//! cargo run --release --example fanout -- --tokens 200000    # too little: who can never be met is told at once
//! ```
//!
//! `work.rs` is the part to take home: one task in async code, and one on a thread. `witness.rs`
//! checks that the pool kept its word: nobody was overtaken, nothing leaked, every token was
//! booked. If it did not, the program fails.

mod report;
mod view;
mod witness;
mod work;

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use budget_pool::{BudgetError, BudgetPool};
use clap::{Parser, value_parser};

use witness::{Claims, Witness};
use work::{End, Outcome};

/// Lets many tasks wait for one budget and says who waited how long.
#[derive(Debug, Parser)]
struct Options {
    /// Tasks: many small ones, some larger, few large ones
    #[arg(long, default_value_t = 200, value_parser = value_parser!(u16).range(1..=1000), value_name = "N")]
    tasks: u16,
    /// Most calls in flight
    #[arg(long, default_value_t = 8, value_parser = value_parser!(u64).range(1..=1000), value_name = "N")]
    in_flight: u64,
    /// Most tokens
    #[arg(long, default_value_t = 1_000_000, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    tokens: u64,
    /// Seconds after which nothing more is granted
    #[arg(long, default_value = "4.5", value_parser = seconds, value_name = "SECONDS")]
    deadline: Duration,
    /// Close the pool after so many seconds; ctrl-c does so, too
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    stop_after: Option<Duration>,
    /// Threads instead of tokio tasks: 32, or as many as given
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "32", value_name = "N",
        value_parser = value_parser!(u16).range(1..=512))]
    threads: Option<u16>,
    /// How many times faster the calls are
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=1000), value_name = "FACTOR")]
    speed: u32,
    /// Seed of the made-up tasks
    #[arg(long, default_value_t = 7, value_name = "N")]
    seed: u64,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=3_600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("it must be at least a millisecond and at most an hour".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(report) => match writeln!(io::stdout(), "{report}") {
            // Whoever reads has read enough.
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => failed(&[error.to_string()]),
            _ => ExitCode::SUCCESS,
        },
        Err(differences) => failed(&differences),
    }
}

fn failed(messages: &[String]) -> ExitCode {
    for message in messages {
        eprintln!("error: {message}");
    }
    ExitCode::FAILURE
}

fn run(options: &Options) -> Result<String, Vec<String>> {
    let failed = |error: io::Error| vec![error.to_string()];
    let tasks = work::made_up(options.tasks, options.seed, options.speed);
    let pool = BudgetPool::builder()
        .name("the budget")
        .tokens(options.tokens)
        .in_flight(options.in_flight)
        .deadline(options.deadline)
        // Whoever waits in async code hears of the deadline by this; a thread that waits needs no
        // timer.
        .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
        .build();
    let start = Instant::now();
    let closed = stop_on_request(&pool, options.stop_after).map_err(failed)?;

    let witness = Arc::new(Witness::new(pool.clone()));
    let (running, is_running) = mpsc::channel();
    let outcomes = thread::scope(|scope| {
        let pool = &pool;
        scope.spawn(move || view::show(pool, options.tasks.into(), &is_running));
        let _until_done = running;
        match options.threads {
            None => work::with_tokio(tasks, pool, &witness),
            Some(threads) => work::with_threads(tasks, pool, &witness, threads.into()),
        }
    });
    let outcomes = outcomes.map_err(failed)?;
    let took = start.elapsed();
    audit(&pool, &witness.granted(), &outcomes)?;

    let over = closed.get().copied().unwrap_or(start + options.deadline);
    let snapshot = pool.snapshot();
    let (spent, peak) = (snapshot.tokens.spent, snapshot.in_flight.peak);
    let who = options
        .threads
        .map_or("tokio tasks".to_owned(), |threads| format!("tasks on {threads} threads"));
    let Options { tasks, in_flight, tokens, deadline, .. } = options;
    let parts = [
        Some(format!("{tasks} {who}, {in_flight} in flight, {tokens} tokens, {deadline:?}")),
        Some(report::waits(&outcomes)),
        Some(report::longest(&outcomes)),
        report::told(&outcomes, over),
        Some(format!(
            "Audit passed: all {} grants went by place in line; {peak} in flight at most; nothing is reserved and nobody \
             waits; the pool has booked {spent} tokens, all that was spent.",
            witness.granted().len()
        )),
        Some(report::summary(&outcomes, *in_flight, took)),
    ];
    Ok(parts.into_iter().flatten().collect::<Vec<String>>().join("\n\n"))
}

/// Closes the pool on ctrl-c, or after some time; when that was can be read from what is returned.
/// The thread has a runtime of its own because those who work may have none; it ends with the
/// program.
fn stop_on_request(
    pool: &BudgetPool,
    after: Option<Duration>,
) -> io::Result<Arc<OnceLock<Instant>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let closed = Arc::new(OnceLock::new());
    let (pool, at) = (pool.clone(), Arc::clone(&closed));
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                Ok(()) = tokio::signal::ctrl_c() => {}
                () = tokio::time::sleep(after.unwrap_or_default()), if after.is_some() => {}
                else => return,
            }
            // All who wait are told, and `pool.closed()` resolves.
            at.get_or_init(Instant::now);
            pool.close();
        });
    });
    Ok(closed)
}

/// Whether the pool kept its word.
fn audit(pool: &BudgetPool, granted: &[usize], outcomes: &[Outcome]) -> Result<(), Vec<String>> {
    let impossible =
        |outcome: &&Outcome| matches!(outcome.end, End::Told(BudgetError::Exceeded(_)));
    let impossible = outcomes.iter().filter(impossible).map(|outcome| outcome.place).collect();
    let mut wrong: Vec<String> =
        witness::check_order(granted, &impossible).err().into_iter().collect();

    let mut claims = Claims::default();
    for outcome in outcomes {
        match &outcome.end {
            End::Served => claims.spent += outcome.task.spends,
            End::CutOff => {}
            End::Told(_) => claims.told += 1,
        }
        claims.granted += u64::from(outcome.was_granted());
    }
    if claims.granted != granted.len() as u64 {
        wrong.push(format!("{} were seen to be granted, {} were", granted.len(), claims.granted));
    }
    wrong.extend(witness::check_books(&pool.snapshot(), &claims).err().into_iter().flatten());
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}
