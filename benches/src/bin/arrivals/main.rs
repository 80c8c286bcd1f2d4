//! The arrivals of a trace, asked of a token bucket and of governor, a limiter of rates: both are
//! a bucket that refills continuously. Where its interval between two cells is a whole number of
//! nanoseconds, the two answer alike, to the nanosecond; where not, governor cuts the rest off, and
//! its rate is a little more than the quota. The pool is exact.
//!
//! So that nothing else is hidden behind the rounding, a second pool takes governor's rate for its
//! own. It must answer as governor on every arrival, or this program fails.

use std::env;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use replay::{Answer, Cells, Limit, Seen};
use trace::Arrival;

#[path = "../../../../crates/replay/examples/replay/random.rs"]
mod random;
mod replay;
mod trace;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// What is counted, how many cells per which time, and how many at once.
const LIMITS: [(Cells, u32, Duration, u32); 14] = [
    (Cells::Requests, 2, SECOND, 2),
    (Cells::Requests, 3, SECOND, 3),
    (Cells::Requests, 100, MINUTE, 100),
    (Cells::Requests, 120, MINUTE, 10),
    (Cells::Requests, 130, MINUTE, 130),
    (Cells::Requests, 7_000, HOUR, 700),
    (Cells::Tokens, 5_000, SECOND, 5_000),
    (Cells::Tokens, 3_000, SECOND, 9_000),
    (Cells::Tokens, 100_000, MINUTE, 100_000),
    (Cells::Tokens, 90_000, MINUTE, 90_000),
    (Cells::Tokens, 90_000, MINUTE, 15_000),
    (Cells::Tokens, 12_000_000, HOUR, 1_000_000),
    (Cells::NanoDollars, 400_000_000, MINUTE, 400_000_000),
    (Cells::NanoDollars, 350_000_000, MINUTE, 350_000_000),
];

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let (from, arrivals) = match arguments.as_slice() {
        [] => ("a sample that is made up".to_owned(), trace::sample(42, 10_000)),
        [path] => match trace::read(Path::new(path)) {
            Ok(arrivals) => (Path::new(path).display().to_string(), arrivals),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(2);
            }
        },
        _ => {
            eprintln!("usage: arrivals [TRACE.csv]");
            return ExitCode::from(2);
        }
    };
    let total = |cells: Cells| {
        arrivals.iter().map(|arrival| u64::from(cells.of(arrival).get())).sum::<u64>()
    };
    let lasts = arrivals.last().map_or(Duration::ZERO, |last| last.at);
    println!(
        "{} arrivals in {:.1?}, {} tokens: {from}\n",
        arrivals.len(),
        lasts,
        total(Cells::Tokens)
    );

    println!(
        "                                    one each,  beyond the     admitted by      answers that differ"
    );
    println!(
        "limit                                      ns  quota, ppm  governor    pool  admit   wait  same rate"
    );
    println!("{}", "-".repeat(100));
    let mut notes = Vec::new();
    let mut explained = true;
    for (cells, rate, per, burst) in LIMITS {
        let limit = Limit { cells, rate, per, burst };
        let exact = replay::both(&limit, limit.period(), &arrivals);
        let same_rate = replay::both(&limit, limit.rounded_period(), &arrivals);
        explained &= same_rate.differ() == 0 && (exact.differ() == 0 || !limit.is_whole());
        println!(
            "{:<33} {:>11} {:>11} {:>9} {:>7} {:>6} {:>6} {:>10}",
            limit.to_string(),
            limit.interval().as_nanos(),
            if limit.is_whole() { "-".to_owned() } else { format!("{:.4}", 1e6 * limit.beyond()) },
            exact.governor,
            exact.pool,
            exact.admit,
            exact.wait,
            same_rate.differ(),
        );
        notes.extend(exact.first.map(|first| note(&limit, &first)));
    }

    if !notes.is_empty() {
        println!("\nThe first arrival on which they differ:\n{}", notes.join("\n"));
    }
    if !explained {
        eprintln!("\nsomething differs that rounding does not explain");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn note(limit: &Limit, seen: &Seen) -> String {
    let Seen { number, arrival: Arrival { at, .. }, governor, pool } = seen;
    let asked = limit.cells.of(&seen.arrival);
    let say = |answer: &Answer| match answer {
        Answer::Admitted => "admits".to_owned(),
        Answer::Wait(wait) => format!("in {} ns", wait.as_nanos()),
        Answer::Never => "never".to_owned(),
    };
    format!(
        "  {limit}: number {number}, at {at:?}, asks for {asked}: governor {}, the pool {}",
        say(governor),
        say(pool)
    )
}
