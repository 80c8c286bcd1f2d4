//! What came of it: the table, its legend, and a line to quote.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use budget_pool::{Axis, AxisSnapshot, BudgetError, Quantity, Snapshot, Usd};

use crate::audit::Usage;
use crate::picture::History;
use crate::strategy::{End, Reply, Strategy};

/// What agents have seen: each keeps its own, and they add up.
#[derive(Debug, Default)]
pub struct Tally {
    /// All that was really spent.
    pub spent: Usage,
    /// The part of it that went into replies which arrived in full.
    complete: Usage,
    completed: u64,
    truncated: u64,
    waited: u64,
    cut_off: BTreeMap<String, u64>,
    refused: BTreeMap<String, u64>,
}

impl Tally {
    /// Counts a call: its reply, or why the pool refused it.
    pub fn count(&mut self, outcome: Result<Reply, BudgetError>) {
        match outcome {
            Err(refusal) => *self.refused.entry(reason(&refusal)).or_default() += 1,
            Ok(Reply { usage, end, waited }) => {
                self.waited += u64::from(waited);
                self.spent += usage;
                match end {
                    End::Truncated => self.truncated += 1,
                    End::CutOff(refusal) => *self.cut_off.entry(reason(&refusal)).or_default() += 1,
                    End::Complete => {
                        self.completed += 1;
                        self.complete += usage;
                    }
                }
            }
        }
    }

    /// Adds what another agent has seen.
    pub fn add(&mut self, other: Tally) {
        self.spent += other.spent;
        self.complete += other.complete;
        self.completed += other.completed;
        self.truncated += other.truncated;
        self.waited += other.waited;
        for (mine, others) in
            [(&mut self.cut_off, other.cut_off), (&mut self.refused, other.refused)]
        {
            for (reason, calls) in others {
                *mine.entry(reason).or_default() += calls;
            }
        }
    }

    fn refused(&self) -> u64 {
        self.refused.values().sum()
    }

    fn admitted(&self) -> u64 {
        self.completed + self.truncated + self.cut_off.values().sum::<u64>()
    }
}

/// Which axis of which pool refused. The agents' own pools are one pool here: thirty lines would
/// say no more.
fn reason(refusal: &BudgetError) -> String {
    let pool =
        if refusal.pool().starts_with("agent-") { "an agent's own pool" } else { refusal.pool() };
    match refusal.axis() {
        Some(axis) => format!("by {axis} of {pool}"),
        None => format!("by {pool}, closed"),
    }
}

/// One strategy's whole run.
#[derive(Debug)]
pub struct Run {
    pub strategy: Strategy,
    pub tally: Tally,
    pub pool: Snapshot,
    pub elapsed: Duration,
    pub speed: u32,
    pub history: History,
}

/// Where the budget went, in percent of the cap: useful, cut off and idle are all of it, overshoot
/// comes on top (only admit-then-count can overshoot, and it cuts nothing off).
struct Shares {
    useful: f64,
    cut_off: f64,
    idle: f64,
    overshoot: f64,
}

impl Run {
    fn books(&self, axis: Axis) -> AxisSnapshot<Quantity> {
        self.pool.axis(axis).expect("only counted axes are reported")
    }

    fn overshoot(&self, axis: Axis) -> u64 {
        self.books(axis).overage.units()
    }

    /// `axis` is one that [`measured`] chose: it has a cap.
    fn shares(&self, axis: Axis) -> Shares {
        let books = self.books(axis);
        let cap = books.cap.map_or(u64::MAX, Quantity::units);
        let complete = self.tally.complete.on(axis);
        let of_cap = |units: u64| 100.0 * units as f64 / cap as f64;
        Shares {
            // What went beyond the cap is overshoot, however good the replies were.
            useful: of_cap(complete.min(cap)),
            cut_off: of_cap(self.tally.spent.on(axis) - complete),
            idle: of_cap(cap - books.used.units()),
            overshoot: of_cap(books.overage.units()),
        }
    }
}

/// The axis to measure shares on: of those that can be used up and have a cap, the one that some
/// run came closest to using up.
fn measured(runs: &[Run]) -> Option<Axis> {
    let most_used = |axis: Axis| {
        let used =
            |run: &Run| Some(run.tally.spent.on(axis) as f64 / run.books(axis).cap?.units() as f64);
        runs.iter().filter_map(used).max_by(f64::total_cmp)
    };
    let axes = [Axis::Requests, Axis::Usd, Axis::Tokens]; // the last one if equal
    axes.into_iter()
        .filter_map(|axis| Some((axis, most_used(axis)?)))
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(axis, _)| axis)
}

/// A column for each run.
pub fn table(runs: &[Run]) -> String {
    let reasons = |of: fn(&Tally) -> &BTreeMap<String, u64>| {
        runs.iter().flat_map(|run| of(&run.tally).keys().cloned()).collect::<BTreeSet<String>>()
    };
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&Run) -> String| {
        rows.push((name.to_owned(), runs.iter().map(cell).collect()));
    };

    row("", &|run| run.strategy.to_string());
    row("calls admitted", &|run| grouped(run.tally.admitted()));
    row("  complete", &|run| grouped(run.tally.completed));
    if runs.iter().any(|run| run.tally.truncated > 0) {
        row("  truncated at the assumed largest output", &|run| grouped(run.tally.truncated));
    }
    for reason in reasons(|tally| &tally.cut_off) {
        row(&format!("  cut off {reason}"), &|run| {
            grouped(run.tally.cut_off.get(&reason).copied().unwrap_or(0))
        });
    }
    row("  after waiting for a release", &|run| grouped(run.tally.waited));
    row("calls refused", &|run| grouped(run.tally.refused()));
    for reason in reasons(|tally| &tally.refused) {
        row(&format!("  {reason}"), &|run| {
            grouped(run.tally.refused.get(&reason).copied().unwrap_or(0))
        });
    }
    row("tokens used", &|run| grouped(run.pool.tokens.used));
    row("tokens beyond the cap", &|run| grouped(run.overshoot(Axis::Tokens)));
    row("USD used", &|run| format!("{:.6}", run.pool.usd.used));
    row("USD beyond the cap", &|run| format!("{:.6}", Usd::from_nanos(run.overshoot(Axis::Usd))));
    if runs.iter().any(|run| run.overshoot(Axis::Requests) > 0) {
        row("requests beyond the cap", &|run| grouped(run.overshoot(Axis::Requests)));
    }
    if let Some(axis) = measured(runs) {
        let mut share = |name: &str, of: fn(&Shares) -> f64| {
            row(name, &|run| format!("{:.1} %", of(&run.shares(axis))));
        };
        share("share of the cap: useful", |shares| shares.useful);
        share("  cut off", |shares| shares.cut_off);
        share("  idle", |shares| shares.idle);
        share("  overshoot", |shares| shares.overshoot);
    }
    row("simulated time", &|run| {
        format!("{:.1} s", run.elapsed.as_secs_f64() * f64::from(run.speed))
    });
    row("wall time", &|run| format!("{:.2} s", run.elapsed.as_secs_f64()));

    // Every row has a cell for every run, so the widths of a column are those of its cells.
    let name_width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..runs.len())
        .map(|column| {
            rows.iter().map(|(_, cells)| cells[column].chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut lines: Vec<String> = Vec::new();
    for (name, cells) in &rows {
        let cells: String =
            cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
        lines.push(format!("{name:name_width$}{cells}"));
    }
    lines.insert(1, "-".repeat(lines[0].chars().count()));
    lines.join("\n")
}

/// What the shares mean.
pub fn legend(runs: &[Run]) -> String {
    let Some(axis) = measured(runs) else {
        return "Nothing that can be used up is capped for all agents together: no shares of a cap.".to_owned();
    };
    format!(
        "\
Shares of the cap on {axis}; the first three add up to 100 %, overshoot comes on top.
  useful     spent on calls whose whole output arrived, as far as it fits under the cap
  cut off    spent on calls whose output did not arrive in full: waste
  idle       not spent at the end: waste if calls were refused (it was held for outputs that never came, or is too
             little for any call that was left)
  overshoot  spent beyond the cap"
    )
}

/// The line to quote.
pub fn summary(runs: &[Run], agents: usize) -> String {
    let axis = measured(runs);
    let parts: Vec<String> = runs.iter().map(|run| run.in_short(axis)).collect();
    format!("{agents} agents on one budget: {}.", parts.join("; "))
}

impl Run {
    fn in_short(&self, axis: Option<Axis>) -> String {
        let strategy = self.strategy;
        let Some(axis) = axis else {
            return format!("{strategy} completed {} calls", grouped(self.tally.completed));
        };
        let overshoot = match self.overshoot(axis) {
            0 => "overshot by nothing".to_owned(),
            units if axis == Axis::Usd => format!("overshot by ${:.6}", Usd::from_nanos(units)),
            units => format!("overshot by {} {axis}", grouped(units)),
        };
        let Shares { cut_off, idle, .. } = self.shares(axis);
        match self.tally.refused() {
            0 => format!("{strategy} admitted every call and {overshoot}"),
            _ => format!("{strategy} wasted {:.1} % and {overshoot}", cut_off + idle),
        }
    }
}

/// `1,234,567`.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
