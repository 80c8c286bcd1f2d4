//! One call, under each of three ways to keep it within a budget. This is the part to take home.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use budget_pool::{Amount, BudgetError, BudgetPool, Outlook, Reservation, Usd};

use crate::audit::Usage;
use crate::trace::Call;

/// How a call asks the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Hold the context and the largest output that is assumed; commit the real figures.
    ReserveMax { max_output: u64 },
    /// Check that the context fits, call, then book what it cost.
    AdmitThenCount,
    /// Hold the context and one step of output; grow the hold by a step whenever the stream has
    /// used it up.
    Metered { step: u64 },
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Strategy::ReserveMax { max_output } => write!(f, "reserve-max {max_output}"),
            Strategy::AdmitThenCount => f.write_str("admit-then-count"),
            Strategy::Metered { .. } => f.write_str("metered"),
        }
    }
}

/// What became of a call that was admitted.
#[derive(Debug)]
pub struct Reply {
    /// What the provider bills.
    pub usage: Usage,
    pub end: End,
    /// Whether it stood in line for what others gave back.
    pub waited: bool,
}

/// How a reply ended.
#[derive(Debug)]
pub enum End {
    /// The whole output arrived.
    Complete,
    /// The output was longer than assumed: the provider stopped at the `max_tokens` that the call
    /// had named.
    Truncated,
    /// The pool refused the next step of the stream.
    CutOff(BudgetError),
}

impl Strategy {
    /// Makes one call. An error is the pool's refusal to admit it: nothing was spent.
    pub fn call(self, call: Call, agent: &Agent<'_>) -> Result<Reply, BudgetError> {
        match self {
            Strategy::ReserveMax { max_output } => reserve_max(call, max_output, agent),
            Strategy::AdmitThenCount => admit_then_count(call, agent),
            Strategy::Metered { step } => metered(call, step, agent),
        }
    }
}

/// Who makes the calls.
#[derive(Debug, Clone, Copy)]
pub struct Agent<'a> {
    pub pool: &'a BudgetPool,
    pub model: Model,
    /// Whether it skips a call that would fit after a release.
    pub is_impatient: bool,
}

impl Agent<'_> {
    /// A hold for a call, and whether the agent stood in line for it. `reserve_blocking` alone would
    /// do: the look before it tells who waits.
    fn reserve(&self, amount: Amount) -> Result<(Reservation, bool), BudgetError> {
        match self.pool.reserve(amount) {
            Err(refusal) if refusal.outlook() == Outlook::AfterRelease && !self.is_impatient => {
                Ok((self.pool.reserve_blocking(amount)?, true))
            }
            hold => Ok((hold?, false)),
        }
    }
}

fn reserve_max(call: Call, max_output: u64, agent: &Agent<'_>) -> Result<Reply, BudgetError> {
    let model = agent.model;
    let (hold, waited) = agent.reserve(model.bill(call.input, max_output).amount())?;

    // What is held is also what the provider is told as `max_tokens`: more than that it never
    // produces.
    let output = call.output.min(max_output);
    let mut stream = model.open();
    stream.read(call.input);
    stream.produce(output);

    let usage = model.bill(call.input, output);
    hold.commit(usage.amount());
    let end = if output < call.output { End::Truncated } else { End::Complete };
    Ok(Reply { usage, end, waited })
}

fn admit_then_count(call: Call, agent: &Agent<'_>) -> Result<Reply, BudgetError> {
    let Agent { pool, model, .. } = *agent;
    // There is nothing to wait for: nobody holds anything that could come back.
    pool.peek(model.bill(call.input, 0).amount())?;

    // Nothing is held, so every other agent is told the same.
    let mut stream = model.open();
    stream.read(call.input);
    stream.produce(call.output);

    let usage = model.bill(call.input, call.output);
    pool.debit(usage.amount());
    Ok(Reply { usage, end: End::Complete, waited: false })
}

fn metered(call: Call, step: u64, agent: &Agent<'_>) -> Result<Reply, BudgetError> {
    let model = agent.model;
    let prompt = model.bill(call.input, 0);
    let (hold, waited) = agent.reserve((prompt + model.more(0, step)).amount())?;

    // Facts are booked as they happen: should this thread die in mid-stream, what was streamed
    // stays booked, and what is held beyond it goes back.
    let mut stream = model.open();
    stream.read(call.input);
    hold.debit(prompt.amount());

    let mut output = 0;
    let end = loop {
        let produced = step.min(call.output - output);
        stream.produce(produced);
        hold.debit(model.more(output, produced).amount());
        output += produced;
        if output == call.output {
            break End::Complete;
        }
        // Ask before the next step is produced, not after.
        if let Err(refusal) = hold.grow(model.more(output, step).amount()) {
            break End::CutOff(refusal);
        }
    };
    hold.release(); // what the last step did not use
    Ok(Reply { usage: model.bill(call.input, output), end, waited })
}

/// A provider that is not there: its prices, and the time that it takes.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub input_price: Usd,
    pub output_price: Usd,
    /// Simulated seconds in a real one.
    pub speed: u32,
}

impl Model {
    /// To read one token of context takes 0.1 ms, to produce one 20 ms: simulated, and about what a
    /// large model takes.
    const READ: Duration = Duration::from_micros(100);
    const PRODUCE: Duration = Duration::from_millis(20);

    /// The bill for one whole call.
    pub fn bill(&self, input: u64, output: u64) -> Usage {
        let usd =
            Usd::for_tokens(input, self.input_price) + Usd::for_tokens(output, self.output_price);
        Usage { input, output, requests: 1, usd }
    }

    /// What `tokens` of output cost after `output` have been produced: steps add up to the bill
    /// exactly, since it is the running total that is rounded to a nano-USD and not the step.
    fn more(&self, output: u64, tokens: u64) -> Usage {
        let usd = Usd::for_tokens(output + tokens, self.output_price)
            - Usd::for_tokens(output, self.output_price);
        Usage { input: 0, output: tokens, requests: 0, usd }
    }

    fn open(&self) -> Stream {
        Stream { speed: self.speed, opened: Instant::now(), simulated: Duration::ZERO }
    }
}

/// One call's own time. It sleeps towards instants and not for durations, so that the delays of a
/// busy machine do not add up over the steps.
struct Stream {
    speed: u32,
    opened: Instant,
    simulated: Duration,
}

impl Stream {
    fn read(&mut self, tokens: u64) {
        self.pass(Model::READ, tokens);
    }

    fn produce(&mut self, tokens: u64) {
        self.pass(Model::PRODUCE, tokens);
    }

    fn pass(&mut self, each: Duration, tokens: u64) {
        self.simulated += each.saturating_mul(u32::try_from(tokens).unwrap_or(u32::MAX));
        let due = self.opened + self.simulated / self.speed;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}
