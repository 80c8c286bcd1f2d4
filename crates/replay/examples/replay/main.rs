//! Many agents spend one budget on a trace of LLM calls, under three ways to keep within it.
//!
//! ```text
//! cargo run --release --example replay                          # a sample of calls, all strategies side by side
//! cargo run --release --example replay -- --strategy metered TRACE.csv
//! cargo run --release --example replay -- --svg replay.svg      # and draws what became of the budget
//! ```
//!
//! `strategy.rs` is the part to take home: one call under each strategy. `main.rs` has the agents:
//! one thread and one child pool each, taking calls from the trace as fast as they can until it has
//! no more. `audit.rs` checks at the end that the pools have booked what the agents really spent.
//!
//! A call that is refused for good is skipped and counted: a smaller one behind it may still fit. A
//! call that would fit once others give back what they hold (`Outlook::AfterRelease`) stands in line
//! (`reserve_blocking`) until it fits or never will. Otherwise the figures would show how fast agents
//! give up, not what a strategy does with a budget: those that are refused would race through the
//! trace while the rest of the budget is only held. `--impatient` shows just that.

mod audit;
mod picture;
mod progress;
mod random;
mod report;
mod strategy;
mod trace;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use budget_pool::{BudgetPool, Caps, Usd};
use clap::{Parser, ValueEnum, value_parser};

use audit::Usage;
use picture::History;
use progress::Bars;
use report::{Run, Tally};
use strategy::{Agent, Model, Strategy};
use trace::{Call, MOST_TOKENS};

/// How often the progress is looked at, and whether all agents are through. The look also brings the
/// pool up to its own time, which runs faster than that of a thread in line.
const TICK: Duration = Duration::from_millis(2);

/// Replays LLM calls against one shared budget and says what it did with it.
#[derive(Debug, Parser)]
struct Options {
    /// CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens [default: calls made up from
    /// --seed]
    path: Option<PathBuf>,

    /// How calls are kept within the budget
    #[arg(long, value_enum, conflicts_with = "compare")]
    strategy: Option<StrategyName>,
    /// All strategies, one after another, side by side [the default]
    #[arg(long)]
    compare: bool,

    /// Most tokens, in and out [default if no cap is given: 50000]
    #[arg(long, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    tokens: Option<u64>,
    /// Most dollars [default if no cap is given: 1]
    #[arg(long, value_parser = dollars, value_name = "USD")]
    usd: Option<Usd>,
    /// Most requests
    #[arg(long, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    requests: Option<u64>,
    /// Most calls in flight (admit-then-count holds nothing, so it is not bound by this one)
    #[arg(long, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    in_flight: Option<u64>,
    /// Simulated seconds after which nothing more is admitted
    #[arg(long, value_parser = seconds, value_name = "SECONDS")]
    deadline: Option<Duration>,
    /// Most tokens of each single agent
    #[arg(long, value_parser = value_parser!(u64).range(1..), value_name = "N")]
    agent_tokens: Option<u64>,

    /// Agents: threads, each with its own pool below the budget
    #[arg(long, default_value_t = 32, value_parser = value_parser!(u16).range(1..=1024), value_name = "N")]
    agents: u16,
    /// Skip a call that would fit after a release, instead of waiting for it
    #[arg(long)]
    impatient: bool,

    /// Dollars for a million tokens of input
    #[arg(long, default_value = "3", value_parser = price, value_name = "USD")]
    input_price: Usd,
    /// Dollars for a million tokens of output
    #[arg(long, default_value = "15", value_parser = price, value_name = "USD")]
    output_price: Usd,
    /// The largest output that reserve-max assumes; several give it several runs
    #[arg(long, default_values_t = [4096, 16384], value_delimiter = ',', value_name = "TOKENS",
        value_parser = value_parser!(u64).range(1..=MOST_TOKENS))]
    max_output: Vec<u64>,
    /// Tokens of output that metered holds at a time
    #[arg(long, default_value_t = 256, value_parser = value_parser!(u64).range(1..=MOST_TOKENS), value_name = "TOKENS")]
    step: u64,

    /// Seed of the made-up calls
    #[arg(long, default_value_t = 7, conflicts_with = "path", value_name = "N")]
    seed: u64,
    /// Number of the made-up calls
    #[arg(long, default_value_t = 1000, conflicts_with = "path", value_name = "N",
        value_parser = value_parser!(u32).range(1..=1_000_000))]
    calls: u32,
    /// Draws the tokens used, held and beyond the cap over time, a picture for each strategy
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Simulated seconds in a real one
    #[arg(long, default_value_t = 20, value_parser = value_parser!(u32).range(1..=1_000_000), value_name = "FACTOR")]
    speed: u32,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum StrategyName {
    /// Hold context + the largest output, commit the real figures
    ReserveMax,
    /// Check, call, then book what it cost
    AdmitThenCount,
    /// Hold a little, and more as the stream produces
    Metered,
}

impl Options {
    fn strategies(&self) -> Vec<Strategy> {
        let names = match self.strategy.as_ref() {
            Some(name) => std::slice::from_ref(name),
            None => StrategyName::value_variants(),
        };
        let strategies = names.iter().flat_map(|name| match name {
            StrategyName::ReserveMax => self
                .max_output
                .iter()
                .map(|&max_output| Strategy::ReserveMax { max_output })
                .collect(),
            StrategyName::AdmitThenCount => vec![Strategy::AdmitThenCount],
            StrategyName::Metered => vec![Strategy::Metered { step: self.step }],
        });
        strategies.collect()
    }

    fn caps(&self) -> Caps {
        let mut caps = Caps::new();
        let given = [
            self.tokens,
            self.usd.map(Usd::as_nanos),
            self.requests,
            self.in_flight,
            self.agent_tokens,
        ];
        if given.iter().all(Option::is_none) && self.deadline.is_none() {
            return caps.tokens(50_000).usd(Usd::from_dollars(1));
        }
        if let Some(tokens) = self.tokens {
            caps = caps.tokens(tokens);
        }
        if let Some(usd) = self.usd {
            caps = caps.usd(usd);
        }
        if let Some(requests) = self.requests {
            caps = caps.requests(requests);
        }
        if let Some(in_flight) = self.in_flight {
            caps = caps.in_flight(in_flight);
        }
        caps
    }

    /// The caps, to be read.
    fn budget(&self) -> String {
        let caps = self.caps().iter().map(|cap| format!("at most {cap}"));
        let agent = self.agent_tokens.map(|tokens| format!("at most {tokens} tokens an agent"));
        let deadline = self.deadline.map(|deadline| format!("{deadline:?} of simulated time"));
        caps.chain(agent).chain(deadline).collect::<Vec<String>>().join(", ")
    }

    fn model(&self) -> Model {
        Model { input_price: self.input_price, output_price: self.output_price, speed: self.speed }
    }
}

fn dollars(text: &str) -> Result<Usd, String> {
    match text.parse::<Usd>() {
        Ok(usd) if usd.is_zero() => Err("it must be more than zero".to_owned()),
        Ok(usd) => Ok(usd),
        Err(error) => Err(error.to_string()),
    }
}

fn price(text: &str) -> Result<Usd, String> {
    match dollars(text)? {
        price if price > Usd::from_dollars(10_000) => {
            Err("no model costs more than 10000 for a million".to_owned())
        }
        price => Ok(price),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    const YEAR: f64 = 365.0 * 86_400.0;
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= YEAR => {
            let deadline = Duration::from_secs_f64(seconds);
            if deadline.is_zero() {
                Err("it must be more than zero".to_owned())
            } else {
                Ok(deadline)
            }
        }
        Ok(_) => Err("it must be more than zero and at most a year".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn main() -> ExitCode {
    let options = Options::parse();
    // Before the work: a file that cannot be written is a bad option.
    let writable = options.svg.as_deref().map_or(Ok(()), picture::check);
    let calls = match writable.and_then(|()| load(&options)) {
        Ok(calls) => calls,
        Err(message) => {
            eprintln!("error: {message}");
            return ExitCode::from(2); // as for a bad option
        }
    };

    let mut runs = Vec::new();
    for strategy in options.strategies() {
        match run(strategy, &options, &calls) {
            Ok(run) => runs.push(run),
            Err(differences) => {
                eprintln!("{strategy}: the books are wrong");
                for difference in differences {
                    eprintln!("  {difference}");
                }
                return ExitCode::FAILURE;
            }
        }
    }

    if let Some(Err(message)) = options.svg.as_ref().map(|path| picture::draw(path, &runs)) {
        eprintln!("error: {message}");
        return ExitCode::FAILURE;
    }

    let agents = usize::from(options.agents);
    let source = options
        .path
        .as_ref()
        .map_or_else(|| "a sample".to_owned(), |path| path.display().to_string());
    let report = [
        format!("{} calls of {source}, {agents} agents, {}", calls.len(), options.budget()),
        report::table(&runs),
        report::legend(&runs),
        format!(
            "Audit passed: in every run all {} pools have booked what was spent, to the nano-USD.",
            agents + 1
        ),
        report::summary(&runs, agents),
    ];
    match writeln!(std::io::stdout(), "{}", report.join("\n\n")) {
        // Whoever reads has read enough.
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}

fn load(options: &Options) -> Result<Vec<Call>, String> {
    let calls = match &options.path {
        Some(path) => trace::read(path)?,
        None => trace::sample(options.seed, options.calls),
    };
    let model = options.model();
    let total = calls
        .iter()
        .try_fold(Usd::ZERO, |sum, call| sum.checked_add(model.bill(call.input, call.output).usd));
    total
        .map(|_| calls)
        .ok_or_else(|| format!("at these prices the trace costs more than ${}", Usd::MAX))
}

/// One strategy on a fresh budget: the whole trace, then the audit.
fn run(strategy: Strategy, options: &Options, calls: &[Call]) -> Result<Run, Vec<String>> {
    // The pool lives in simulated time too, so that its deadline means the same at every speed.
    let (epoch, speed) = (Instant::now(), options.speed);
    let simulated = move || epoch + epoch.elapsed() * speed;
    let mut builder =
        BudgetPool::builder().name("the budget").caps(options.caps()).clock(simulated);
    if let Some(deadline) = options.deadline {
        builder = builder.deadline(deadline);
    }
    let budget = builder.build();
    let pools: Vec<BudgetPool> = (0..options.agents)
        .map(|index| {
            let agent = budget.child().name(format!("agent-{index}"));
            options
                .agent_tokens
                .into_iter()
                .fold(agent, |agent, tokens| agent.tokens(tokens))
                .build()
        })
        .collect();

    let bars = Bars::new(strategy, &budget, options.deadline);
    let mut history = History::new();
    let (next, together) = (AtomicUsize::new(0), Barrier::new(pools.len()));
    let tallies: Vec<Tally> = thread::scope(|scope| {
        let work = |pool| {
            together.wait();
            let is_impatient = options.impatient;
            let agent = Agent { pool, model: options.model(), is_impatient };
            work_off(calls, &next, strategy, &agent)
        };
        let agents: Vec<_> = pools.iter().map(|pool| scope.spawn(move || work(pool))).collect();
        while !agents.iter().all(|agent| agent.is_finished()) {
            let snapshot = budget.snapshot();
            bars.update(&snapshot, epoch.elapsed() * speed);
            history.push(epoch.elapsed() * speed, &snapshot);
            thread::sleep(TICK);
        }
        agents.into_iter().map(|agent| agent.join().expect("no agent panics")).collect()
    });
    let elapsed = epoch.elapsed();
    bars.finish();

    let spent: Vec<(String, Usage)> = pools
        .iter()
        .zip(&tallies)
        .map(|(pool, tally)| (pool.name().to_owned(), tally.spent))
        .collect();
    audit::audit(&budget.snapshot_tree(), &spent)?;

    let mut tally = Tally::default();
    tallies.into_iter().for_each(|agent| tally.add(agent));
    let pool = budget.snapshot();
    history.push(elapsed * speed, &pool);
    Ok(Run { strategy, tally, pool, elapsed, speed, history })
}

/// One agent: takes the next call that nobody has taken until there are no more.
fn work_off(calls: &[Call], next: &AtomicUsize, strategy: Strategy, agent: &Agent<'_>) -> Tally {
    let mut tally = Tally::default();
    while let Some(&call) = calls.get(next.fetch_add(1, Ordering::Relaxed)) {
        tally.count(strategy.call(call, agent));
    }
    tally
}
