//! What came of it: who waited how long, who was told what, and a line to quote.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use budget_pool::BudgetError;

use crate::work::{Class, End, Outcome};

/// How many of the longest waits are shown.
const LONGEST: usize = 5;

/// Of everybody who was granted: a row for each size, and for all.
pub fn waits(outcomes: &[Outcome]) -> String {
    let classes = [Class::Small, Class::Medium, Class::Large];
    let rows = classes.into_iter().map(Some).chain([None]).map(|class| {
        let of_class: Vec<&Outcome> = outcomes
            .iter()
            .filter(|outcome| class.is_none_or(|class| outcome.task.class == class))
            .collect();
        let mut waited: Vec<Duration> = of_class
            .iter()
            .filter(|outcome| outcome.was_granted())
            .map(|outcome| outcome.waited())
            .collect();
        waited.sort_unstable();
        let figures = [50, 90, 99, 100]
            .map(|percent| percentile(&waited, percent).map_or("-".to_owned(), millis));
        let [p50, p90, p99, longest] = figures;
        let name = class.map_or("all", Class::name);
        let (tasks, granted) = (of_class.len(), waited.len());
        format!("{name:10}  {tasks:>5}  {granted:>7}  {p50:>7}  {p90:>7}  {p99:>7}  {longest:>7}")
    });
    let header = "waited, ms  tasks  granted      p50      p90      p99  longest".to_owned();
    let rule = "-".repeat(header.len());
    [header, rule].into_iter().chain(rows).collect::<Vec<String>>().join("\n")
}

/// Those who waited longest, granted or not.
pub fn longest(outcomes: &[Outcome]) -> String {
    let mut longest: Vec<&Outcome> = outcomes.iter().collect();
    longest.sort_by_key(|outcome| std::cmp::Reverse(outcome.waited()));
    let lines = longest.into_iter().take(LONGEST).map(|outcome| {
        let Outcome { task, place, .. } = outcome;
        let end = match &outcome.end {
            End::Served => "served",
            End::CutOff => "cut off",
            End::Told(_) => "told",
        };
        let (waited, class) = (millis(outcome.waited()), task.class.name());
        format!(
            "{waited:>7} ms  {class:6}  {:>6} tokens  number {:>4} in line  {end}",
            task.holds,
            place + 1
        )
    });
    std::iter::once("The longest waits".to_owned()).chain(lines).collect::<Vec<String>>().join("\n")
}

/// Why the others were not granted, and how soon they knew after `over`, the deadline or the close.
pub fn told(outcomes: &[Outcome], over: Instant) -> Option<String> {
    let mut reasons: BTreeMap<String, (u64, Option<Duration>)> = BTreeMap::new();
    for outcome in outcomes {
        let (reason, delay) = match &outcome.end {
            End::Served => continue,
            End::CutOff => {
                ("stopped in the middle of the call: the pool was closed".to_owned(), None)
            }
            End::Told(refusal) => {
                let pool = refusal.pool();
                // Whoever asked only after it was over is measured from there.
                let delay = outcome.answered.saturating_duration_since(over.max(outcome.asked));
                match refusal {
                    BudgetError::DeadlineExceeded(_) => {
                        (format!("told: the deadline of {pool} has passed"), Some(delay))
                    }
                    BudgetError::Closed { .. } => (format!("told: {pool} is closed"), Some(delay)),
                    BudgetError::Exceeded(exceeded) => (
                        format!("told: {} of {pool}, {}", exceeded.axis(), exceeded.outlook()),
                        None,
                    ),
                    other => (format!("told: {other}"), None),
                }
            }
        };
        let (count, latest) = reasons.entry(reason).or_default();
        *count += 1;
        *latest = delay.max(*latest);
    }
    let lines = reasons.into_iter().map(|(reason, (count, latest))| match latest {
        Some(latest) => {
            format!("{count:>6}  {reason} (each knew within {:.1} ms)", latest.as_secs_f64() * 1e3)
        }
        None => format!("{count:>6}  {reason}"),
    });
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { None } else { Some(format!("Not served\n{}", lines.join("\n"))) }
}

/// The line to quote.
pub fn summary(outcomes: &[Outcome], in_flight: u64, took: Duration) -> String {
    let mut waited: Vec<Duration> =
        outcomes.iter().filter(|outcome| outcome.was_granted()).map(Outcome::waited).collect();
    waited.sort_unstable();
    let (tasks, granted) = (outcomes.len(), waited.len());
    if granted == 0 {
        return format!(
            "None of {tasks} tasks could ever be served; each was told so, and nothing leaked."
        );
    }
    let who = if granted == tasks {
        format!("{tasks} tasks")
    } else {
        format!("{granted} of {tasks} tasks")
    };
    let rest = match tasks - granted {
        0 => String::new(),
        told => format!(", {told} told that there is nothing to wait for"),
    };
    let seconds = |percent| percentile(&waited, percent).unwrap_or_default().as_secs_f64();
    format!(
        "{who} took turns, at most {in_flight} at a time, in {:.1} s{rest}: half waited less than {:.2} s, the longest \
         {:.2} s, nobody was overtaken and nothing leaked.",
        took.as_secs_f64(),
        seconds(50),
        seconds(100),
    )
}

impl Outcome {
    pub fn was_granted(&self) -> bool {
        !matches!(self.end, End::Told(_))
    }

    fn waited(&self) -> Duration {
        self.answered - self.asked
    }
}

impl Class {
    fn name(self) -> &'static str {
        match self {
            Class::Small => "small",
            Class::Medium => "medium",
            Class::Large => "large",
        }
    }
}

/// The least wait that so many percent did not exceed: one that really happened, not something in
/// between two.
fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.checked_sub(1)?).copied()
}

fn millis(time: Duration) -> String {
    format!("{:.1}", time.as_secs_f64() * 1e3)
}
