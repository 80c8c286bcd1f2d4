//! Reads what the last `cargo bench` left, and prints it as Markdown tables: the ratios, then one
//! table a group.
//!
//! With the names of Markdown files it writes the tables there: `<!-- record -->` is followed by
//! that of the group `record`, `<!-- ratios -->` by all ratios. A time that was not measured is
//! shown as `-`.
//!
//! A time is the median over the samples, and beside it the least of them. On a quiet machine the
//! two agree; where their ratios do not, measure again.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::error::Error;
use std::fs;
use std::path::Path;

use serde_json::Value;

use markdown::{head, line};

#[path = "../markdown.rs"]
mod markdown;

/// What is compared, this, that, and the ratio to reach, if there is one.
type Row = (&'static str, &'static str, &'static str, Option<f64>);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("`record` on two axes : a bare `parking_lot` lock around an addition", "record/budget-pool, 2 axes/x1", "record/bare lock/x1", Some(1.2)),
    ("`record` on four axes : token-budget-pool", "record/budget-pool, 4 axes/x1", "record/token-budget-pool, 4 axes/x1", Some(0.8)),
    ("`record` on five axes : token-budget-pool on four", "record/budget-pool, 5 axes/x1", "record/token-budget-pool, 4 axes/x1", None),
    ("a refused `record` : an admitted one", "refused/budget-pool, 2 axes/x1", "record/budget-pool, 2 axes/x1", Some(1.9)),
    ("`reserve` + `commit` : tokio's `try_acquire_many_owned` + drop", "reserve/budget-pool, commit/x1", "reserve/tokio, drop/x1", Some(1.75)),
    ("`reserve` + `commit` : budget-context", "reserve/budget-pool, commit/x1", "reserve/budget-context, commit/x1", Some(0.167)),
    ("`reserve` + drop : tokio's `try_acquire_many_owned` + drop", "reserve/budget-pool, drop/x1", "reserve/tokio, drop/x1", None),
    ("`record` at depth 4 : at depth 1", "depth/record, 4 deep/x1", "depth/record, 1 deep/x1", Some(1.8)),
    ("`reserve` + `commit` at depth 4 : at depth 1", "depth/reserve + commit, 4 deep/x1", "depth/reserve + commit, 1 deep/x1", None),
    ("`reserve` + `commit` at depth 4 : budget-context", "depth/reserve + commit, 4 deep/x1", "depth/budget-context, reserve + commit, 4 deep/x1", Some(0.143)),
    ("a lease's `record` : an uncontended `fetch_add`", "record/budget-pool, lease, 2 axes/x1", "record/fetch_add, each its own/x1", Some(1.5)),
    ("two threads, a lease's `record` : one thread", "record/budget-pool, lease, 2 axes/x2", "record/budget-pool, lease, 2 axes/x1", Some(1.5)),
    ("two threads, a lease's `record` : `record`", "record/budget-pool, lease, 2 axes/x2", "record/budget-pool, 2 axes/x2", None),
    ("two threads, `record` on two axes : token-budget-pool", "record/budget-pool, 2 axes/x2", "record/token-budget-pool, 4 axes/x2", Some(0.55)),
    ("two threads, `record` on four axes : token-budget-pool", "record/budget-pool, 4 axes/x2", "record/token-budget-pool, 4 axes/x2", Some(0.55)),
    ("two threads, `record` on two axes : llm-budget", "record/budget-pool, 2 axes/x2", "record/llm-budget/x2", None),
    ("two threads, `record` on two axes : tokio's permits", "record/budget-pool, 2 axes/x2", "record/tokio, acquire + drop/x2", None),
    ("two threads, `record` on two axes : governor's `check_n`", "record/budget-pool, 2 axes/x2", "record/governor/x2", None),
    ("two threads, `record` on two axes : bare lock", "record/budget-pool, 2 axes/x2", "record/bare lock/x2", None),
    ("two threads, `reserve` + `commit` : tokio", "reserve/budget-pool, commit/x2", "reserve/tokio, drop/x2", None),
    ("two threads, `reserve` + `commit` : budget-context", "reserve/budget-pool, commit/x2", "reserve/budget-context, commit/x2", None),
    ("one waits, is granted : tokio", "wait, one by one/budget-pool/in flight", "wait, one by one/tokio/acquire_owned", Some(2.4)),
    ("a release that grants, 1,000 waiting : tokio", "grant, so many waiting/budget-pool/in flight/1000", "grant, so many waiting/tokio/acquire_owned/1000", None),
    ("a release that grants, 100,000 waiting : tokio", "grant, so many waiting/budget-pool/in flight/100000", "grant, so many waiting/tokio/acquire_owned/100000", Some(2.6)),
    ("a release that grants, 100,000 waiting : 1,000 waiting", "grant, so many waiting/budget-pool/in flight/100000", "grant, so many waiting/budget-pool/in flight/1000", None),
    ("leave and join, 100,000 waiting : tokio", "leave and join, so many waiting/budget-pool/in flight/100000", "leave and join, so many waiting/tokio/acquire_owned/100000", Some(3.5)),
    ("`DeadlineBudget::remaining` : the same by hand with `Instant`", "deadline/remaining", "deadline/std/deadline - Instant::now", None),
    ("`timeout_for` a named call among ten : `remaining`", "deadline/timeout_for/draft", "deadline/remaining", None),
    ("`record` with a deadline : without", "record with a deadline/with", "record with a deadline/without", None),
    ("`record` under a fixed window : without", "window, admitted/budget-pool/fixed", "window, admitted/budget-pool/none", None),
    ("`record` under a fixed window : governor, both by the system's clock", "window, admitted/budget-pool/fixed", "window, admitted/governor/check, system", Some(1.3)),
    ("`record` under a token bucket : without", "window, admitted/budget-pool/token bucket", "window, admitted/budget-pool/none", None),
    ("`record` under a token bucket : governor", "window, admitted/budget-pool/token bucket", "window, admitted/governor/check, quanta", None),
    ("`record` under a token bucket : governor, both by the system's clock", "window, admitted/budget-pool/token bucket", "window, admitted/governor/check, system", Some(1.5)),
    ("`record` under a token bucket : governor, both by quanta", "window, admitted/budget-pool/token bucket, quanta", "window, admitted/governor/check, quanta", None),
    ("refused under a token bucket : governor, both by the system's clock", "window, refused/budget-pool/token bucket", "window, refused/governor/check, system", None),
    ("`reserve` with a TTL + `commit` : `reserve` + `commit`", "expiring holds/reserve_for+commit/0 others", "expiring holds/reserve+commit", Some(2.1)),
    ("`reserve` with a TTL + `commit`, beside 10,000 others : alone", "expiring holds/reserve_for+commit/10000 others", "expiring holds/reserve_for+commit/0 others", Some(1.1)),
    ("`record_once` with a new key : `record`", "record_once/new key", "window, admitted/budget-pool/none", None),
    ("`record_once` with a known key : `record`", "record_once/known key", "window, admitted/budget-pool/none", None),
];

/// Of one iteration, in nanoseconds.
struct Time {
    median: f64,
    least: f64,
}

/// By group, and in it by the rest of the benchmark's name.
type Times = BTreeMap<String, BTreeMap<String, Time>>;

fn main() -> Result<(), Box<dyn Error>> {
    // This program is in `target/<profile>`.
    let folder =
        env::current_exe()?.ancestors().nth(2).ok_or("no target folder")?.join("criterion");
    let mut times = Times::new();
    collect(&folder, &mut times).map_err(|error| format!("{}: {error}", folder.display()))?;

    let files: Vec<String> = env::args().skip(1).collect();
    if files.is_empty() {
        println!("{}", ratios(&times));
        for (group, times) in &times {
            println!("{group}\n\n{}", table(times));
        }
    }
    for file in files {
        markdown::fill(&file, |marker| match marker {
            "ratios" => Some(ratios(&times)),
            group => times.get(group).map(table),
        })?;
    }
    Ok(())
}

fn ratios(times: &Times) -> String {
    let get = |id: &str| id.split_once('/').and_then(|(group, id)| times.get(group)?.get(id));
    let mut table =
        head(&["time of a call, ns", "this", "that", "ratio", "of the least", "at most"]);
    for &(what, this, that, goal) in ROWS {
        let (this, that) = (get(this), get(that));
        let ratio =
            |of: fn(&Time) -> f64| show(this.zip(that).map(|(this, that)| of(this) / of(that)), 2);
        let (ratio, least) = (ratio(|time| time.median), ratio(|time| time.least));
        let (this, that) =
            (show(this.map(|time| time.median), 1), show(that.map(|time| time.median), 1));
        let goal = goal.map_or(String::new(), |goal| goal.to_string());
        line(&mut table, [what.to_owned(), this, that, ratio, least, goal]);
    }
    table
}

/// Of one group. Where several threads were measured, how many calls they make together.
fn table(times: &BTreeMap<String, Time>) -> String {
    let split = |id: &str| {
        id.rsplit_once("/x")
            .and_then(|(what, threads)| Some((what.to_owned(), threads.parse().ok()?)))
    };
    let by_threads: BTreeSet<(String, u32)> = times.keys().filter_map(|id| split(id)).collect();
    let numbers: BTreeSet<u32> = by_threads.iter().map(|(_, threads)| *threads).collect();
    if numbers.len() <= 1 {
        let mut table = head(&["", "ns", "least"]);
        for (id, Time { median, least }) in times {
            let what = split(id).map_or(id.clone(), |(what, _)| what);
            line(&mut table, [what, format!("{median:.1}"), format!("{least:.1}")]);
        }
        return table;
    }
    let mut names: Vec<String> = ["", "ns", "least"].map(str::to_owned).into();
    names.extend(numbers.iter().map(|threads| format!("M/s, {threads} thr.")));
    let mut table = head(&names);
    let contenders: BTreeSet<&String> = by_threads.iter().map(|(what, _)| what).collect();
    for what in contenders {
        let get = |threads: u32| times.get(&format!("{what}/x{threads}"));
        let alone =
            [|time: &Time| time.median, |time: &Time| time.least].map(|of| show(get(1).map(of), 1));
        let together = numbers.iter().map(|&threads| {
            show(get(threads).map(|time| f64::from(threads) / time.median * 1e3), 1)
        });
        line(&mut table, [what.clone()].into_iter().chain(alone).chain(together));
    }
    table
}

fn show(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
}

/// Every `new` result below `folder`, by the full name of its benchmark.
fn collect(folder: &Path, times: &mut Times) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("new") {
            let read = |file: &str| -> Result<Value, Box<dyn Error>> {
                Ok(serde_json::from_slice(&fs::read(path.join(file))?)?)
            };
            let (benchmark, estimates, sample) =
                (read("benchmark.json")?, read("estimates.json")?, read("sample.json")?);
            let id = benchmark["full_id"].as_str().ok_or("a benchmark without a name")?;
            let (group, id) = id.split_once('/').ok_or("a benchmark without a group")?;
            let median = estimates["median"]["point_estimate"]
                .as_f64()
                .ok_or("an estimate without a median")?;
            let numbers =
                |of: &str| sample[of].as_array().into_iter().flatten().filter_map(Value::as_f64);
            let least = numbers("times")
                .zip(numbers("iters"))
                .map(|(time, n)| time / n)
                .fold(f64::INFINITY, f64::min);
            times
                .entry(group.to_owned())
                .or_default()
                .insert(id.to_owned(), Time { median, least });
        } else if path.is_dir() {
            collect(&path, times)?;
        }
    }
    Ok(())
}
