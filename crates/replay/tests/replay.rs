//! The example `replay`, run as its user runs it: bad input ends with a message and exit code 2,
//! good input passes its own audit.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::PathBuf;
use std::process::Output;

use budget_pool::{BudgetPool, Usd};

#[path = "../examples/replay/audit.rs"]
mod audit;
#[path = "../../../tests/support/example.rs"]
mod example;

use audit::Usage;

const HEADER: &str = "TIMESTAMP,ContextTokens,GeneratedTokens";
const CALLS: &str = "\
TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,100,10
2023-11-16 18:17:04.0319600,100,50
2023-11-16 18:17:04.0781490,700,20
2023-11-16 18:17:04.1206440,100,30
";

fn replay(arguments: &[&str]) -> Output {
    example::run("replay", arguments)
}

fn file(name: &str, content: impl AsRef<[u8]>) -> String {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Runs to exit code 2 and gives back the message.
fn refused(arguments: &[&str]) -> String {
    let output = replay(arguments);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {message}");
    assert!(!message.contains("panicked"), "{arguments:?}: {message}");
    assert!(output.stdout.is_empty(), "{arguments:?}");
    message
}

/// Runs to exit code 0, with nothing on stderr, and gives back what it printed.
fn passed(arguments: &[&str]) -> String {
    let output = replay(&[arguments, &["--speed", "1000000"]].concat());
    let (report, message) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {message}");
    assert_eq!(message, "", "{arguments:?}: progress is for terminals");
    assert!(report.contains("Audit passed"), "{arguments:?}: {report}");
    report
}

/// The cells of a row of the table.
fn row<'a>(report: &'a str, name: &str) -> Vec<&'a str> {
    let cells = report.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix("  "));
    cells.unwrap_or_else(|| panic!("no row `{name}` in {report}")).split_whitespace().collect()
}

#[test]
fn a_bad_trace_is_refused_with_its_line() {
    let row =
        |row: &str| format!("{HEADER}\n2023-11-16 18:17:03.9799600,4808,10\n{row}\n").into_bytes();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"".to_vec(), "line 1: the file is empty"),
        (b"\n".to_vec(), "line 1: the header is ``"),
        (format!("{HEADER}\n").into_bytes(), "line 1: the file ends here and has no calls"),
        (format!("{HEADER}\n\n\n").into_bytes(), "line 3: the file ends here and has no calls"),
        (
            b"2023-11-16 18:17:03,4808,10\n".to_vec(),
            "line 1: the header is `2023-11-16 18:17:03,4808,10`",
        ),
        (b"TIMESTAMP,GeneratedTokens,ContextTokens\n".to_vec(), "line 1: the header is"),
        (b"timestamp,contexttokens,generatedtokens\n".to_vec(), "line 1: the header is"),
        (row("2023-11-16 18:17:04"), "line 3: 1 fields instead of 3"),
        (row("2023-11-16 18:17:04,12"), "line 3: 2 fields instead of 3"),
        (row("2023-11-16 18:17:04,12,13,14"), "line 3: 4 fields instead of 3"),
        (row("2023-11-16 18:17:04;12;13"), "line 3: 1 fields instead of 3"),
        (row("yesterday,12,13"), "line 3: TIMESTAMP is no date and time: `yesterday`"),
        (row(",12,13"), "line 3: TIMESTAMP is no date and time: ``"),
        (row("2023-13-16 18:17:04,12,13"), "line 3: TIMESTAMP"),
        (row("2023-11-16 25:17:04,12,13"), "line 3: TIMESTAMP"),
        (row("2023-11-16 18:17:04 once,12,13"), "line 3: TIMESTAMP"),
        (row("２０２３-11-16 18:17:04,12,13"), "line 3: TIMESTAMP"),
        (row("2023-11-16 18:17:04,,13"), "line 3: ContextTokens is no whole number: ``"),
        (row("2023-11-16 18:17:04,-1,13"), "line 3: ContextTokens is no whole number: `-1`"),
        (row("2023-11-16 18:17:04,+1,13"), "line 3: ContextTokens is no whole number: `+1`"),
        (row("2023-11-16 18:17:04,NaN,13"), "line 3: ContextTokens is no whole number: `NaN`"),
        (row("2023-11-16 18:17:04,12,13.5"), "line 3: GeneratedTokens is no whole number: `13.5`"),
        (row("2023-11-16 18:17:04,12,1e3"), "line 3: GeneratedTokens is no whole number: `1e3`"),
        (row("2023-11-16 18:17:04,12, 13"), "line 3: GeneratedTokens is no whole number: ` 13`"),
        (row("2023-11-16 18:17:04,12,10000001"), "line 3: GeneratedTokens is absurd: 10000001"),
        (
            row("2023-11-16 18:17:04,18446744073709551615,13"),
            "line 3: ContextTokens is absurd: 18446744073709551615",
        ),
        (
            row("2023-11-16 18:17:04,18446744073709551616,13"),
            "line 3: ContextTokens is absurd: 18446744073709551616",
        ),
        (
            row(&format!("2023-11-16 18:17:04,{},13", "9".repeat(200))),
            "line 3: ContextTokens is absurd: 999",
        ),
        (row("2023-11-16 18:17:04,0,0"), "line 3: a call without any token"),
        (
            [row("2023-11-16 18:17:04,1,1"), b"\xff\xfe,1,1\n".to_vec()].concat(),
            "line 4: stream did not contain valid",
        ),
    ];
    for (index, (content, expected)) in cases.into_iter().enumerate() {
        let path = file(&format!("bad-{index}.csv"), content);
        let message = refused(&[&path]);
        assert!(message.contains(&format!("{path}: {expected}")), "{expected}: {message}");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let message = refused(&["no/such/trace.csv"]);
    assert!(message.contains("no/such/trace.csv: "), "{message}");
    refused(&[env!("CARGO_TARGET_TMPDIR")]);
}

#[test]
fn a_zero_or_nonsensical_option_is_refused_by_its_name() {
    let cases: &[(&str, &[&str])] = &[
        ("--tokens", &["0", "-1", "1.5", "many", "18446744073709551616"]),
        ("--usd", &["0", "0.0", "-1", "NaN", "inf", "1e3", "$1", "0.0000000001", "99999999999"]),
        ("--requests", &["0", "-1"]),
        ("--in-flight", &["0", "-1"]),
        ("--agent-tokens", &["0", "-1"]),
        ("--deadline", &["0", "-1", "NaN", "inf", "1e-12", "1e300", "soon"]),
        ("--agents", &["0", "-1", "1025", "100000"]),
        ("--input-price", &["0", "-1", "NaN", "10000.01"]),
        ("--output-price", &["0", "-1", "NaN", "18446744073"]),
        ("--max-output", &["0", "-1", "4096,0", "10000001", ","]),
        ("--step", &["0", "-1", "10000001"]),
        ("--seed", &["-1", "x"]),
        ("--calls", &["0", "-1", "1000001"]),
        ("--speed", &["0", "-1", "0.5", "1000001"]),
        ("--strategy", &["", "hope"]),
    ];
    for (option, values) in cases {
        for value in *values {
            let message = refused(&[&format!("{option}={value}")]);
            assert!(message.contains(option), "{option}={value}: {message}");
        }
    }
    refused(&["--compare", "--strategy", "metered"]);
    refused(&["--seed", "1", &file("seeded.csv", CALLS)]);
}

#[test]
fn a_trace_too_dear_to_add_up_is_refused() {
    let row = "2023-11-16 18:17:04,10000000,10000000\n";
    let path = file("dear.csv", format!("{HEADER}\n{}", row.repeat(100_000)));
    let message = refused(&[&path, "--input-price=10000", "--output-price=10000"]);
    assert!(message.contains("costs more than $18446744073.709551615"), "{message}");
}

#[test]
fn reserve_max_holds_the_largest_output_and_truncates_there() {
    let path = file("reserve-max.csv", CALLS);
    let report = passed(&[
        &path,
        "--strategy=reserve-max",
        "--max-output=40",
        "--tokens=500",
        "--agents=1",
        "--input-price=0.5",
    ]);
    assert_eq!(row(&report, "calls admitted"), ["3"]);
    assert_eq!(row(&report, "truncated at the assumed largest output"), ["1"]);
    assert_eq!(row(&report, "by tokens of the budget"), ["1"]);
    assert_eq!(row(&report, "tokens used"), ["380"]);
    // 300 tokens at half a dollar and 80 at fifteen dollars a million.
    assert_eq!(row(&report, "USD used"), ["0.001350"]);
    assert_eq!(row(&report, "tokens beyond the cap"), ["0"]);
    assert_eq!(row(&report, "share of the cap: useful"), ["48.0", "%"]);
    assert_eq!(row(&report, "cut off"), ["28.0", "%"]);
    assert_eq!(row(&report, "idle"), ["24.0", "%"]);
}

#[test]
fn admit_then_count_overshoots() {
    let path = file("admit-then-count.csv", CALLS);
    let report = passed(&[&path, "--strategy=admit-then-count", "--tokens=250", "--agents=1"]);
    assert_eq!(row(&report, "calls admitted"), ["2"]);
    assert_eq!(row(&report, "calls refused"), ["2"]);
    assert_eq!(row(&report, "tokens used"), ["250"]);
    assert_eq!(row(&report, "tokens beyond the cap"), ["10"]);
    assert_eq!(row(&report, "share of the cap: useful"), ["100.0", "%"]);
    assert_eq!(row(&report, "overshoot"), ["4.0", "%"]);
}

#[test]
fn metered_ends_a_stream_at_the_cap() {
    let path = file("metered.csv", CALLS);
    let report = passed(&[&path, "--strategy=metered", "--step=16", "--tokens=250", "--agents=1"]);
    assert_eq!(row(&report, "calls admitted"), ["2"]);
    assert_eq!(row(&report, "cut off by tokens of the budget"), ["1"]);
    assert_eq!(row(&report, "calls refused"), ["2"]);
    assert_eq!(row(&report, "tokens used"), ["242"]);
    assert_eq!(row(&report, "tokens beyond the cap"), ["0"]);
}

#[test]
fn every_axis_and_scope_refuses_under_its_name() {
    let path = file("axes.csv", CALLS);
    for (cap, refusal) in [
        ("--usd=0.001", "by USD of the budget"),
        ("--requests=2", "by requests of the budget"),
        ("--agent-tokens=150", "by tokens of an agent's own pool"),
        ("--deadline=0.000001", "by deadline of the budget"),
    ] {
        let report = passed(&[&path, cap, "--agents=2", "--max-output=40"]);
        let refused: Vec<u64> =
            row(&report, refusal).iter().map(|cell| cell.parse().unwrap()).collect();
        assert!(refused.iter().all(|&calls| calls > 0), "{cap}: {report}");
    }
    // What is only in flight comes back: whoever waits is served.
    let report = passed(&[&path, "--in-flight=1", "--agents=4", "--strategy=metered"]);
    assert_eq!(row(&report, "complete"), ["4"]);
}

#[test]
fn the_books_agree_at_prices_that_do_not_divide() {
    let prices =
        ["--input-price=0.333333333", "--output-price=0.777777777", "--step=3", "--calls=150"];
    passed(&[&prices[..], &["--tokens=1000000"]].concat());
    passed(&[&prices[..], &["--usd=0.01"]].concat());
    passed(&[&prices[..], &["--usd=0.01", "--impatient", "--agents=7"]].concat());
}

#[test]
fn a_trace_may_have_windows_line_ends_a_mark_and_no_last_newline() {
    let calls = format!("\u{feff}{}", CALLS.trim_end().replace('\n', "\r\n"));
    let report = passed(&[&file("windows.csv", calls), "--requests=4", "--agents=2"]);
    assert_eq!(row(&report, "complete"), ["4"; 4]);
}

#[test]
fn a_picture_has_a_panel_for_each_strategy_to_one_scale() {
    let path = file("picture.svg", "an older picture, and a longer one".repeat(10_000));
    // One agent: several might all be refused, or cut off, before the cap is passed.
    let trace = file("pictured.csv", CALLS);
    let report = passed(&[&trace, "--tokens=250", "--agents=1", "--svg", &path]);
    let picture = std::fs::read_to_string(&path).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"), "{picture}");
    let texts = |text: &str| picture.lines().filter(|line| line.trim() == text).count();
    let used = row(&report, "tokens used");
    for (strategy, used) in
        ["reserve-max 4096", "reserve-max 16384", "admit-then-count", "metered"].iter().zip(&used)
    {
        let title = format!("{strategy}: {used} used, ");
        let line = picture.lines().find(|line| line.trim().starts_with(&title));
        let line = line.unwrap_or_else(|| panic!("no panel {title}: {picture}")).trim();
        let is_zero = line.ends_with(", 0 beyond the cap");
        assert_eq!(is_zero, *strategy != "admit-then-count", "{line}");
    }
    for legend in ["used", "held", "beyond the cap", "cap", "simulated seconds"] {
        assert_eq!(texts(legend), 4, "{legend}: {picture}");
    }
    // One of them alone, without a cap on tokens.
    passed(&["--strategy=metered", "--requests=5", "--calls=9", "--svg", &path]);
    let picture = std::fs::read_to_string(&path).unwrap();
    assert_eq!(picture.lines().filter(|line| line.trim() == "cap").count(), 0);
    assert!(picture.contains("width=\"480\""), "{picture}");
}

#[test]
fn a_picture_that_cannot_be_written_is_refused_before_the_work() {
    let message = refused(&["--svg", "no/such/folder/picture.svg"]);
    assert!(message.contains("no/such/folder/picture.svg: "), "{message}");
}

fn spend(input: u64, output: u64, nanos: u64) -> Usage {
    Usage { input, output, requests: 1, usd: Usd::from_nanos(nanos) }
}

#[test]
fn the_audit_finds_a_nano_usd() {
    let budget = BudgetPool::builder().name("budget").tokens(100).build();
    let agents = [("agent-0", spend(60, 20, 7)), ("agent-1", spend(30, 5, 9))];
    let pools = agents.map(|(name, usage)| {
        let pool = budget.child().name(name).build();
        pool.debit(usage.amount());
        pool
    });
    let mut told = agents.map(|(name, usage)| (name.to_owned(), usage));
    assert_eq!(audit::audit(&budget.snapshot_tree(), &told), Ok(()));

    // Held by nobody who could still spend it.
    let hold = pools[0].reserve(spend(0, 0, 3).amount()).unwrap();
    let wrong = audit::audit(&budget.snapshot_tree(), &told).unwrap_err();
    assert!(wrong.contains(&"`agent-0`, nano-USD: 3 left reserved".to_owned()), "{wrong:?}");
    assert!(wrong.contains(&"`budget`, requests: 1 left reserved".to_owned()), "{wrong:?}");
    drop(hold);

    told[1].1.usd = Usd::from_nanos(8);
    let wrong = audit::audit(&budget.snapshot_tree(), &told).unwrap_err();
    assert_eq!(
        wrong,
        ["`budget`, nano-USD: 16 booked, 15 spent", "`agent-1`, nano-USD: 9 booked, 8 spent"]
    );

    told[1].0 = "agent-2".to_owned();
    let wrong = audit::audit(&budget.snapshot_tree(), &told).unwrap_err();
    assert_eq!(wrong, ["`budget`, nano-USD: 16 booked, 15 spent", "`agent-2` has no pool"]);
    assert!(audit::audit(&[], &told).is_err());
}
