//! The calls to replay: read from a CSV, or made up by a seeded generator.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use crate::random::SplitMix64;

/// The one header that is understood: the form of the public Azure LLM inference traces.
pub const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";

/// More tokens than any model takes in or puts out in one call: beyond it, a row is a mistake.
pub const MOST_TOKENS: u64 = 10_000_000;

/// One call of the trace. Its time of arrival is checked and then left alone: agents take the calls
/// in the order of the trace, as fast as they can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub input: u64,
    pub output: u64,
}

/// What is wrong with a trace, and on which line.
#[derive(Debug)]
pub struct TraceError {
    line: usize,
    what: String,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

/// Reads the calls of a CSV file.
pub fn read(path: &Path) -> Result<Vec<Call>, String> {
    let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(BufReader::new(file)).map_err(|error| format!("{}: {error}", path.display()))
}

fn parse(text: impl BufRead) -> Result<Vec<Call>, TraceError> {
    let mut calls = Vec::new();
    let mut last = 0;
    for (index, line) in text.lines().enumerate() {
        last = index + 1;
        let at_line = |what| TraceError { line: last, what };
        let line = line.map_err(|error: io::Error| at_line(error.to_string()))?;
        if index == 0 {
            let header = line.trim_start_matches('\u{feff}').trim_end();
            if header != HEADER {
                return Err(at_line(format!(
                    "the header is `{}`, not `{HEADER}`",
                    shortened(header)
                )));
            }
        } else if !line.trim().is_empty() {
            calls.push(parse_row(line.trim_end()).map_err(at_line)?);
        }
    }
    match (last, calls.is_empty()) {
        (0, _) => Err(TraceError {
            line: 1,
            what: format!("the file is empty, the header `{HEADER}` is missing"),
        }),
        (line, true) => {
            Err(TraceError { line, what: "the file ends here and has no calls".to_owned() })
        }
        _ => Ok(calls),
    }
}

fn parse_row(row: &str) -> Result<Call, String> {
    let fields: Vec<&str> = row.split(',').collect();
    let [timestamp, context, generated] = fields[..] else {
        return Err(format!("{} fields instead of 3: `{}`", fields.len(), shortened(row)));
    };
    if !is_timestamp(timestamp) {
        return Err(format!("TIMESTAMP is no date and time: `{}`", shortened(timestamp)));
    }
    let call = Call {
        input: tokens("ContextTokens", context)?,
        output: tokens("GeneratedTokens", generated)?,
    };
    if call.input + call.output == 0 {
        return Err("a call without any token".to_owned());
    }
    Ok(call)
}

fn tokens(column: &str, field: &str) -> Result<u64, String> {
    // `u64::from_str` takes a plus sign; a count has none.
    if field.is_empty() || !field.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{column} is no whole number: `{}`", shortened(field)));
    }
    // All digits: what does not fit into a `u64` is absurd too.
    match field.parse() {
        Ok(tokens) if tokens <= MOST_TOKENS => Ok(tokens),
        _ => Err(format!(
            "{column} is absurd: {}, at most {MOST_TOKENS} are believed",
            shortened(field)
        )),
    }
}

/// `2023-11-16 18:17:03`, with a `T` instead of the space if need be, and any fraction or zone
/// after it.
fn is_timestamp(text: &str) -> bool {
    let shape = b"dddd-dd-dd dd:dd:dd";
    let (Some(head), rest) = (text.as_bytes().get(..shape.len()), text.bytes().skip(shape.len()))
    else {
        return false;
    };
    let number =
        |from: usize, to: usize| text.get(from..to).and_then(|digits| digits.parse::<u32>().ok());
    head.iter().zip(shape).all(|(byte, expected)| match expected {
        b'd' => byte.is_ascii_digit(),
        b' ' => matches!(byte, b' ' | b'T'),
        _ => byte == expected,
    }) && rest.clone().all(|byte| byte.is_ascii_digit() || b".:+-Z".contains(&byte))
        && number(5, 7).is_some_and(|month| (1..=12).contains(&month))
        && number(8, 10).is_some_and(|day| (1..=31).contains(&day))
        && number(11, 13).is_some_and(|hour| hour < 24)
        && number(14, 16).is_some_and(|minute| minute < 60)
        && number(17, 19).is_some_and(|second| second <= 60)
}

/// Enough of a field to find it by.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// Calls as code assistants make them: long contexts, short answers, and both with a long tail. The
/// same seed gives the same calls everywhere.
pub fn sample(seed: u64, calls: u32) -> Vec<Call> {
    // (per mille of the calls, at most this many tokens), in between on a straight line.
    const INPUT: [(u64, u64); 8] = [
        (0, 16),
        (100, 80),
        (250, 250),
        (500, 600),
        (750, 1_200),
        (900, 2_200),
        (990, 3_600),
        (1_000, 4_000),
    ];
    const OUTPUT: [(u64, u64); 8] =
        [(0, 1), (100, 5), (250, 9), (500, 15), (750, 28), (900, 60), (990, 250), (1_000, 1_000)];
    const PARTS: u64 = 1_000;
    let mut random = SplitMix64::new(seed);
    let mut on_curve = |curve| random.on_curve(curve, PARTS);
    (0..calls).map(|_| Call { input: on_curve(&INPUT), output: on_curve(&OUTPUT) }).collect()
}
