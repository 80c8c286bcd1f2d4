//! Reads what the last `cargo bench` left and prints the ratios as a Markdown table.
//!
//! A time is the median over the samples, and behind it the least of them. On a quiet machine the two agree; where their
//! ratios do not, measure again. What was not measured is shown as `-`.

use std::collections::BTreeMap;
use std::env;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What is compared, this, that, and the ratio to reach.
type Row = (&'static str, &'static str, &'static str, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("record, 2 axes : bare lock", "record/budget-pool/2 axes", "record/parking_lot/lock+add", "2"),
    ("record, 4 axes : token-budget-pool", "record/budget-pool/4 axes", "record/token-budget-pool/4 axes", "1"),
    ("record, 4 axes and requests : token-budget-pool", "record/budget-pool/4 axes+requests", "record/token-budget-pool/4 axes", "1"),
    ("refused : admitted", "refused/budget-pool/2 axes", "record/budget-pool/2 axes", "2"),
    ("reserve + commit : tokio", "reserve/budget-pool/reserve+commit", "reserve/tokio/try_acquire_many_owned+drop", "3.5"),
    ("reserve + drop : tokio", "reserve/budget-pool/reserve+drop", "reserve/tokio/try_acquire_many_owned+drop", ""),
    ("record, depth 2 : depth 1", "depth/record/2", "depth/record/1", ""),
    ("record, depth 4 : depth 1", "depth/record/4", "depth/record/1", "3"),
    ("reserve + commit, depth 4 : depth 1", "depth/reserve+commit/4", "depth/reserve+commit/1", ""),
    ("2 threads, 2 axes : bare lock", "record, 2 threads/budget-pool/2 axes", "record, 2 threads/parking_lot/lock+add", ""),
    ("2 threads, 2 axes : token-budget-pool", "record, 2 threads/budget-pool/2 axes", "record, 2 threads/token-budget-pool/4 axes", "1"),
    ("2 threads, 4 axes : token-budget-pool", "record, 2 threads/budget-pool/4 axes", "record, 2 threads/token-budget-pool/4 axes", "1"),
    ("2 threads, 2 axes : llm-budget", "record, 2 threads/budget-pool/2 axes", "record, 2 threads/llm-budget/charge", "1"),
    ("2 threads, 2 axes : tokio", "record, 2 threads/budget-pool/2 axes", "record, 2 threads/tokio/try_acquire_many+drop", "1"),
    ("2 threads, 2 axes : governor", "record, 2 threads/budget-pool/2 axes", "record, 2 threads/governor/check_n", "1"),
    ("2 threads, reserve + commit : tokio", "reserve, 2 threads/budget-pool/reserve+commit", "reserve, 2 threads/tokio/try_acquire_many_owned+drop", ""),
    ("one waits, is granted : tokio", "wait, one by one/budget-pool/in flight", "wait, one by one/tokio/acquire_owned", ""),
    ("grant, 1,000 waiting : tokio", "grant, so many waiting/budget-pool/in flight/1000", "grant, so many waiting/tokio/acquire_owned/1000", ""),
    ("grant, 100,000 waiting : tokio", "grant, so many waiting/budget-pool/in flight/100000", "grant, so many waiting/tokio/acquire_owned/100000", ""),
    ("grant, 100,000 waiting : 1,000", "grant, so many waiting/budget-pool/in flight/100000", "grant, so many waiting/budget-pool/in flight/1000", ""),
    ("remaining : Instant::now", "deadline/remaining", "deadline/Instant::now", ""),
    ("remaining : the same by hand", "deadline/remaining", "deadline/std/deadline - Instant::now", ""),
    ("timeout_for, fifth of ten : Instant::now", "deadline/timeout_for/draft", "deadline/Instant::now", ""),
    ("record with a deadline : without", "record with a deadline/with", "record with a deadline/without", ""),
    ("leave and join, 100,000 waiting : tokio", "leave and join, so many waiting/budget-pool/in flight/100000", "leave and join, so many waiting/tokio/acquire_owned/100000", ""),
    ("record, fixed window : without", "window, admitted/budget-pool/fixed", "window, admitted/budget-pool/none", ""),
    ("record, sliding window : without", "window, admitted/budget-pool/sliding", "window, admitted/budget-pool/none", ""),
    ("record, sliding window : governor", "window, admitted/budget-pool/sliding", "window, admitted/governor/check, quanta", ""),
    ("record, sliding window : governor, both by the system's clock", "window, admitted/budget-pool/sliding", "window, admitted/governor/check, system", ""),
    ("record, sliding window : governor, both by quanta", "window, admitted/budget-pool/sliding, quanta", "window, admitted/governor/check, quanta", ""),
    ("refused, sliding window : governor, both by the system's clock", "window, refused/budget-pool/sliding", "window, refused/governor/check, system", ""),
    ("reserve_for + commit : reserve + commit", "expiring holds/reserve_for+commit/0 others", "expiring holds/reserve+commit", ""),
    ("reserve_for + commit, beside 10,000 : alone", "expiring holds/reserve_for+commit/10000 others", "expiring holds/reserve_for+commit/0 others", ""),
    ("record_once, a new key : record", "record_once/new key", "window, admitted/budget-pool/none", ""),
    ("record_once, a known key : record", "record_once/known key", "window, admitted/budget-pool/none", ""),
];

fn main() -> Result<(), Box<dyn Error>> {
    let folder = match env::args_os().nth(1) {
        Some(folder) => PathBuf::from(folder),
        // This program is in `target/<profile>`.
        None => env::current_exe()?.ancestors().nth(2).ok_or("no target folder")?.join("criterion"),
    };
    let mut times = BTreeMap::new();
    collect(&folder, &mut times).map_err(|error| format!("{}: {error}", folder.display()))?;

    println!("| this : that | this, ns | that, ns | ratio | ratio of least | at most |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    for &(what, this, that, goal) in ROWS {
        let (this, that) = (times.get(this), times.get(that));
        let ratio = |of: fn(&Time) -> f64| show(this.zip(that).map(|(this, that)| of(this) / of(that)), 2);
        let (ratio, least) = (ratio(|time| time.median), ratio(|time| time.least));
        let (this, that) = (show(this.map(|time| time.median), 1), show(that.map(|time| time.median), 1));
        println!("| {what} | {this} | {that} | {ratio} | {least} | {goal} |");
    }
    println!("\n| benchmark | median, ns | least, ns |\n| --- | ---: | ---: |");
    for (id, Time { median, least }) in &times {
        println!("| {id} | {median:.1} | {least:.1} |");
    }
    Ok(())
}

fn show(number: Option<f64>, digits: usize) -> String {
    number.map_or("-".to_owned(), |number| format!("{number:.digits$}"))
}

/// Nanoseconds of one iteration.
struct Time {
    median: f64,
    least: f64,
}

/// Every `new` result below `folder`, by the full name of its benchmark.
fn collect(folder: &Path, times: &mut BTreeMap<String, Time>) -> Result<(), Box<dyn Error>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("new") {
            let read = |file: &str| -> Result<Value, Box<dyn Error>> {
                Ok(serde_json::from_slice(&fs::read(path.join(file))?)?)
            };
            let (benchmark, estimates, sample) =
                (read("benchmark.json")?, read("estimates.json")?, read("sample.json")?);
            let id = benchmark["full_id"].as_str().ok_or("a benchmark without a name")?;
            let median = estimates["median"]["point_estimate"].as_f64().ok_or("an estimate without a median")?;
            let numbers = |of: &str| sample[of].as_array().into_iter().flatten().filter_map(Value::as_f64);
            let least = numbers("times").zip(numbers("iters")).map(|(time, n)| time / n).fold(f64::INFINITY, f64::min);
            times.insert(id.to_owned(), Time { median, least });
        } else if path.is_dir() {
            collect(&path, times)?;
        }
    }
    Ok(())
}
