//! When calls arrive, and how large they are: read from a CSV, or made up by a seeded generator.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::random::SplitMix64;

/// The form of the public Azure LLM inference traces.
const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// More than that is not believed; what it costs fits into the 32 bits that governor counts in.
const MOST_TOKENS: u32 = 100_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    /// Since the first.
    pub at: Duration,
    pub input: u32,
    pub output: u32,
}

/// Reads the arrivals of a CSV file.
pub fn read(path: &Path) -> Result<Vec<Arrival>, String> {
    let in_file = |error: String| format!("{}: {error}", path.display());
    parse(&fs::read_to_string(path).map_err(|error| in_file(error.to_string()))?).map_err(in_file)
}

fn parse(text: &str) -> Result<Vec<Arrival>, String> {
    let mut lines = (1..).zip(text.lines());
    if lines
        .next()
        .is_none_or(|(_, header)| header.trim_start_matches('\u{feff}').trim_end() != HEADER)
    {
        return Err(format!("line 1: the header is not `{HEADER}`"));
    }
    let mut arrivals: Vec<Arrival> = Vec::new();
    for (number, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let arrival = row(line.trim_end())
            .ok_or_else(|| format!("line {number}: no time and two counts of tokens"))?;
        if arrivals.last().is_some_and(|last| arrival.at < last.at) {
            return Err(format!("line {number}: earlier than the line before"));
        }
        arrivals.push(arrival);
    }
    let start = arrivals.first().ok_or("no calls")?.at;
    for arrival in &mut arrivals {
        arrival.at -= start;
    }
    Ok(arrivals)
}

fn row(row: &str) -> Option<Arrival> {
    let mut fields = row.split(',');
    let at = time(fields.next()?)?;
    let (input, output) = (whole(fields.next()?)?, whole(fields.next()?)?);
    let is_call = fields.next().is_none() && input.max(output) <= MOST_TOKENS && input + output > 0;
    is_call.then_some(Arrival { at, input, output })
}

/// `2023-11-16 18:17:03.9799600`, since some instant long ago.
fn time(text: &str) -> Option<Duration> {
    let (date, time) = text.split_once([' ', 'T'])?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = three(date, '-')?;
    let [hour, minute, second] = three(time, ':')?;
    let is_time = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_time || !(1_970..10_000).contains(&year) || fraction.len() > 9 {
        return None;
    }
    // A year that begins in March ends with its leap day, and its months have 31, 30, 31, 30, 31
    // days, over and over.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day;
    let seconds = u64::from(days) * 86_400 + u64::from(hour * 3_600 + minute * 60 + second);
    Some(Duration::new(seconds, whole(&format!("{fraction:0<9}"))?))
}

fn three(text: &str, between: char) -> Option<[u32; 3]> {
    let parts: Option<Vec<u32>> = text.split(between).map(whole).collect();
    parts?.try_into().ok()
}

fn whole(digits: &str) -> Option<u32> {
    // `u32::from_str` takes a plus sign; these numbers have none.
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None }
}

/// Calls as code assistants make them: long contexts, short answers, and many at once, then none
/// for seconds. The same seed gives the same calls everywhere.
pub fn sample(seed: u64, calls: usize) -> Vec<Arrival> {
    // (per mille of the calls, at most this), in between on a straight line.
    const GAP_NANOS: [(u64, u64); 5] = [
        (0, 0),
        (500, 40_000_000),
        (900, 700_000_000),
        (990, 3_000_000_000),
        (1_000, 30_000_000_000),
    ];
    const INPUT: [(u64, u64); 6] =
        [(0, 16), (250, 500), (500, 1_500), (750, 2_900), (950, 5_000), (1_000, 7_500)];
    const OUTPUT: [(u64, u64); 5] = [(0, 1), (500, 13), (900, 60), (990, 250), (1_000, 1_000)];
    let mut random = SplitMix64::new(seed);
    let mut at = Duration::ZERO;
    const PARTS: u64 = 1_000_000;
    let tokens = |random: &mut SplitMix64, curve| {
        u32::try_from(random.on_curve(curve, PARTS)).expect("few tokens")
    };
    (0..calls)
        .map(|_| {
            at += Duration::from_nanos(random.on_curve(&GAP_NANOS, PARTS));
            Arrival { at, input: tokens(&mut random, &INPUT), output: tokens(&mut random, &OUTPUT) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_read_to_the_nanosecond_over_days_and_leap_days() {
        let text = "\u{feff}TIMESTAMP,ContextTokens,GeneratedTokens\r\n2023-12-31 23:59:59.9799600,4808,10\r\n\n\
                    2024-01-01T00:00:00,7,0\n2024-02-29 00:00:00.000000001,1,1\n2024-03-01 00:00:00,0,1\n";
        let nanos: Vec<_> = parse(text)
            .expect("it is a trace")
            .iter()
            .map(|arrival| arrival.at.as_nanos())
            .collect();
        const DAY: u128 = 86_400_000_000_000;
        assert_eq!(nanos, [0, 20_040_000, 20_040_000 + 59 * DAY + 1, 20_040_000 + 60 * DAY]);
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let good = "2024-01-01 00:00:01,7,0";
        for (rows, line) in [
            (vec![], ""),
            (vec!["2024-01-01 00:00:01,7"], "line 2"),
            (vec![good, "2024-01-01 00:00:00,7,0"], "line 3"),
            (vec!["2024-01-01 00:00:01,0,0"], "line 2"),
            (vec!["2024-01-01 00:00:01,+7,0"], "line 2"),
            (vec!["2024-01-01 00:00:01,100001,0"], "line 2"),
            (vec!["2024-01-01 24:00:01,7,0"], "line 2"),
            (vec!["2024-13-01 00:00:01,7,0"], "line 2"),
            (vec!["2024-01-01 00:00:01.0000000001,7,0"], "line 2"),
            (vec!["2024-01-01 00:00:01,7,0,1"], "line 2"),
        ] {
            let refused =
                parse(&format!("{HEADER}\n{}", rows.join("\n"))).expect_err("it is no trace");
            assert!(refused.starts_with(line), "{rows:?}: {refused}");
        }
        assert!(
            parse(&format!("{good}\n{good}"))
                .expect_err("there is no header")
                .starts_with("line 1")
        );
        assert_eq!(parse(&format!("{HEADER}\n{good}")).map(|arrivals| arrivals.len()), Ok(1));
    }
}
