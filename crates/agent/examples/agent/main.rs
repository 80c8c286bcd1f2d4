//! Ten agents with 200 tasks spend one budget at a provider that has faults, and audit themselves
//! against its bill.
//!
//! ```text
//! cargo run -p budget-pool-agent --example agent
//! ```
//!
//! `budget.rs` is the part to take home: the pools, the client and one call. `main.rs` is an agent
//! program as it would be without a budget: prompts, attempts, progress. `server.rs` is the provider,
//! and `audit.rs` compares what it billed with what the pools have booked. The exit code is not zero
//! where a nano-dollar is missing.

mod audit;
mod budget;
mod server;

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_openai::Client;
use async_openai::config::OpenAIConfig;
use async_openai::types::chat::{
    ChatCompletionRequestUserMessage, ChatCompletionStreamOptions, CreateChatCompletionRequest,
};
use budget_pool::{Amount, BudgetPool, Usd};
use budget_pool_llm::Price;
use tokio::task::JoinSet;
use tokio::time::timeout;

use audit::{Found, Untold};
use server::{Fault, Ledger, Server};

/// The dear model and the cheap one, in dollars per million tokens.
static MODELS: [(&str, Price); 2] = [
    ("large", Price::new(Usd::from_cents(250), Usd::from_dollars(10)).cache_read(HALF_OF_LARGE)),
    ("small", Price::new(Usd::from_cents(15), Usd::from_cents(60)).cache_read(HALF_OF_SMALL)),
];
const HALF_OF_LARGE: Usd = Usd::from_micros(1_250_000);
const HALF_OF_SMALL: Usd = Usd::from_micros(75_000);

const AGENTS: u64 = 10;
const TASKS: u64 = 200;
const ATTEMPTS: u64 = 5;
const MAX_OUTPUT: u32 = 400;

/// How long a call may take, once it has its hold.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often the progress is shown.
const TICK: Duration = Duration::from_millis(250);

#[tokio::main]
async fn main() -> ExitCode {
    let (server, untold) = (Server::default(), Arc::new(Untold::default()));
    let address = match server.start().await {
        Ok(address) => address,
        Err(error) => {
            eprintln!("error: no port for the server: {error}");
            return ExitCode::from(2);
        }
    };
    let config = OpenAIConfig::new().with_api_base(format!("http://{address}/v1"));

    let money = Usd::from_cents(60);
    let (provider, run, agents) = budget::pools(money, AGENTS, Arc::clone(&untold));
    let client = budget::client(config.with_api_key("none"), provider.clone());

    let start = Instant::now();
    let alert = budget::alert(&run);
    let alert = tokio::spawn(async move { (alert.await.usd.used, start.elapsed()) });
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let agent = agents[(task % AGENTS) as usize].clone();
        tasks.spawn(answer(client.clone(), agent, task));
    }
    let answered = watch(&mut tasks, &provider, &run).await;

    let (ledger, pools) = (server.ledger(), provider.snapshot_tree());
    let found = match audit::audit(&ledger.bill, &ledger.refused, &untold.all(), &pools) {
        Ok(found) => found,
        Err(differences) => {
            eprintln!("the books are wrong");
            differences.iter().for_each(|difference| eprintln!("  {difference}"));
            return ExitCode::FAILURE;
        }
    };
    // The bill has come: what was booked for calls that nobody told the usage of is corrected.
    let too_much = Usd::from_nanos(found.booked - found.billed);
    run.credit(Amount::new().usd(too_much));
    let is_equal = run.snapshot().usd.used.as_nanos() == found.billed;

    let seconds = start.elapsed().as_secs_f64();
    println!("{TASKS} tasks of {AGENTS} agents in {seconds:.1} s: {answered} answered");
    report(&ledger, &found, money);
    let alert = if alert.is_finished() { alert.await.ok() } else { None };
    if let Some((used, after)) = alert {
        println!("  alert    at ${used:.4}, after {:.1} s", after.as_secs_f64());
    }
    println!(
        "Audit passed: nothing is missing; with ${too_much} credited, the books are the bill."
    );
    if is_equal { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A task: asks until an answer has arrived. Without one, there is no budget left, or the provider
/// fails too often.
async fn answer(client: Client<OpenAIConfig>, agent: BudgetPool, task: u64) -> Option<String> {
    let prompt = format!("Task {task}. {}", "Say what the weather will be. ".repeat(30));
    // A token has at least one byte, and the message around the prompt some tokens.
    let input = prompt.len() as u64 + 64;
    for attempt in 0..ATTEMPTS {
        let id = format!("{task}/{attempt}");
        let request = CreateChatCompletionRequest {
            messages: vec![ChatCompletionRequestUserMessage::from(prompt.as_str()).into()],
            max_completion_tokens: Some(MAX_OUTPUT),
            stream_options: Some(ChatCompletionStreamOptions {
                include_usage: Some(true),
                include_obfuscation: None,
            }),
            safety_identifier: Some(id.clone()),
            ..Default::default()
        };
        let hold = budget::hold(&agent, [input, MAX_OUTPUT.into()], &id).await.ok()?;
        if let Ok(Ok(text)) = timeout(PATIENCE, budget::call(&client, hold, request)).await {
            return Some(text);
        }
    }
    None
}

/// Shows the progress until all tasks are done, and counts those that have an answer.
async fn watch(
    tasks: &mut JoinSet<Option<String>>,
    provider: &BudgetPool,
    run: &BudgetPool,
) -> usize {
    let (mut done, mut answered) = (0, 0);
    let mut tick = tokio::time::interval(TICK);
    let is_terminal = stderr().is_terminal();
    loop {
        tokio::select! {
            task = tasks.join_next() => match task {
                Some(text) => {
                    done += 1;
                    answered += usize::from(text.is_ok_and(|text| text.is_some()));
                }
                None => break,
            },
            _ = tick.tick() => {
                let (snapshot, usd) = (provider.snapshot(), run.snapshot().usd);
                let line = format!(
                    "{done:3} of {TASKS} tasks, {} calls in flight, {} in line, ${:.4} used, ${:.4} held{}",
                    snapshot.in_flight.reserved, snapshot.waiting, usd.used, usd.reserved,
                    if snapshot.paused_until.is_some() { ", paused" } else { "" },
                );
                let (start, end) = if is_terminal { ("\r\x1b[K", "") } else { ("", "\n") };
                let _ = write!(stderr(), "{start}{line}{end}");
            }
        }
    }
    if is_terminal {
        let _ = write!(stderr(), "\r\x1b[K");
    }
    answered
}

fn report(ledger: &Ledger, found: &Found, money: Usd) {
    let calls = |model| ledger.calls.get(model).copied().unwrap_or(0);
    println!(
        "  calls    {} on the large model, {} on the small one",
        calls("large"),
        calls("small")
    );
    let [too_many, errors, broken, no_usage, silent] =
        Fault::ALL.map(|fault| ledger.faults.get(&fault).copied().unwrap_or(0));
    println!(
        "  faults   {too_many} x 429, {errors} x 500, {broken} streams broken off, {silent} silent, \
         {no_usage} without usage"
    );
    let Found { billed, booked, exact, guessed } = *found;
    let [billed, booked] = [billed, booked].map(Usd::from_nanos);
    println!("  money    ${billed} billed, ${booked} booked, ${money} allowed");
    println!(
        "  booked   {exact} calls to the nano-dollar, {guessed} without a usage block as held"
    );
}
