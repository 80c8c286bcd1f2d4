//! The example `fanout`, run as its user runs it: whatever ends the waiting, its own audit passes;
//! and the audit itself can fail.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;
use std::process::Output;

use budget_pool::{Amount, BudgetPool};

#[path = "support/example.rs"]
mod example;
#[path = "../examples/fanout/witness.rs"]
#[allow(dead_code, reason = "the checks alone are tested here")]
mod witness;

use witness::{Claims, Witness, check_books, check_order};

fn fanout(arguments: &[&str]) -> Output {
    example::run("fanout", arguments)
}

/// Runs to exit code 0, with nothing on stderr, and gives back what it printed.
fn passed(arguments: &[&str]) -> String {
    let output = fanout(arguments);
    let (report, message) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {message}");
    assert_eq!(message, "", "{arguments:?}: the live view is for terminals");
    assert!(report.contains("Audit passed"), "{arguments:?}: {report}");
    report
}

/// The figures of a row of the table: tasks, granted, waits.
fn row(report: &str, name: &str) -> Vec<f64> {
    let row = report.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("  "));
    row.unwrap_or_else(|| panic!("no row `{name}` in {report}"))
        .split_whitespace()
        .flat_map(str::parse)
        .collect()
}

/// How many were not served, for a reason that starts so.
fn not_served(report: &str, reason: &str) -> u64 {
    let count = report.lines().find_map(|line| {
        let (count, found) = line.trim().split_once("  ")?;
        found.starts_with(reason).then(|| count.parse().unwrap())
    });
    count.unwrap_or(0)
}

/// In async code, and on threads.
const BOTH: [&[&str]; 2] = [&[], &["--threads"]];

#[test]
fn all_are_served_in_turn() {
    for kind in BOTH {
        let report = passed(&[kind, &["--speed=50", "--deadline=60"]].concat());
        let all = row(&report, "all");
        assert_eq!(all[..2], [200.0, 200.0], "{report}");
        assert!(all[2..].is_sorted(), "{report}");
        let classes: f64 =
            ["small", "medium", "large"].iter().map(|class| row(&report, class)[1]).sum();
        assert_eq!(classes, 200.0, "{report}");
        assert!(!report.contains("Not served"), "{report}");
        assert!(
            report.lines().last().unwrap().starts_with("200 tasks took turns, at most 8 at a time"),
            "{report}"
        );
    }
}

#[test]
fn any_number_of_tasks_slots_and_threads_will_do() {
    for arguments in [
        &["--tasks=1"][..],
        &["--tasks=300", "--in-flight=300", "--tokens=30000000"],
        &["--tasks=40", "--in-flight=1"],
        &["--tasks=40", "--threads=1"],
        &["--tasks=100", "--threads=100", "--in-flight=3"],
    ] {
        passed(&[arguments, &["--speed=1000", "--seed=11", "--deadline=60"]].concat());
    }
}

#[test]
fn a_deadline_tells_the_rest() {
    for kind in BOTH {
        let report = passed(&[kind, &["--deadline=0.3"]].concat());
        let told =
            not_served(&report, "told: the deadline of the budget has passed (each knew within");
        assert!(told > 0, "{report}");
        assert_eq!(row(&report, "all")[1], 200.0 - told as f64, "{report}");
        assert!(report.lines().last().unwrap().contains(&format!("{told} told")), "{report}");
    }
}

#[test]
fn a_close_stops_everything() {
    for (kind, cut_off) in BOTH.into_iter().zip([1..=8, 0..=0]) {
        let report = passed(&[kind, &["--stop-after=0.3"]].concat());
        assert!(
            not_served(&report, "told: the budget is closed (each knew within") > 0,
            "{report}"
        );
        // Async calls are stopped, those of threads run to their end.
        assert!(cut_off.contains(&not_served(&report, "stopped in the middle")), "{report}");
    }
}

#[test]
fn whoever_can_never_be_served_is_told() {
    for kind in BOTH {
        let report = passed(&[kind, &["--tokens=150000", "--speed=50", "--deadline=60"]].concat());
        assert!(not_served(&report, "told: tokens of the budget, will never fit") > 0, "{report}");
        let report = passed(&[kind, &["--tokens=1"]].concat());
        assert_eq!(
            not_served(&report, "told: tokens of the budget, will never fit"),
            200,
            "{report}"
        );
        assert!(report.ends_with(
            "None of 200 tasks could ever be served; each was told so, and nothing leaked.\n"
        ));
    }
}

#[test]
fn a_nonsensical_option_is_refused_by_its_name() {
    let cases: &[(&str, &[&str])] = &[
        ("--tasks", &["0", "-1", "1001", "many", ""]),
        ("--in-flight", &["0", "-1", "1.5", "1001"]),
        ("--tokens", &["0", "-1", "18446744073709551616"]),
        ("--deadline", &["0", "-1", "NaN", "inf", "0.0001", "3601", "soon"]),
        ("--stop-after", &["0", "-1", "NaN", "1e300"]),
        ("--threads", &["0", "-1", "513", ""]),
        ("--speed", &["0", "-1", "0.5", "1001"]),
        ("--seed", &["-1", "x"]),
        ("--hope", &["1"]),
    ];
    for (option, values) in cases {
        for value in *values {
            let output = fanout(&[&format!("{option}={value}")]);
            let message = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{option}={value}: {message}");
            assert!(message.contains(option), "{option}={value}: {message}");
            assert!(output.stdout.is_empty(), "{option}={value}");
        }
    }
}

#[test]
fn the_audit_finds_who_was_overtaken() {
    let nobody = BTreeSet::new();
    assert_eq!(check_order(&[], &nobody), Ok(()));
    assert_eq!(check_order(&[0, 1, 2], &nobody), Ok(()));
    let overtaken = |granted, due| {
        Err(format!("place {granted} was granted when it was the turn of place {due}"))
    };
    assert_eq!(check_order(&[0, 2, 1], &nobody), overtaken(2, 1));
    assert_eq!(check_order(&[1, 2], &nobody), overtaken(1, 0));
    // Place 1 could never be served: it is nobody's turn there, and its own grant would be wrong.
    assert_eq!(check_order(&[0, 2, 3], &BTreeSet::from([1])), Ok(()));
    assert_eq!(check_order(&[0, 1, 2], &BTreeSet::from([1])), overtaken(1, 2));
    assert_eq!(check_order(&[0, 3], &BTreeSet::from([1])), overtaken(3, 2));
}

#[test]
fn the_witness_sees_grants_in_their_order() {
    let pool = BudgetPool::builder().in_flight(1).build();
    let witness = Witness::new(pool.clone());
    let of = |number: u64| Amount::new().tokens(5_000 + number);
    for task in [7, 3, 9] {
        witness.join(task);
    }
    assert!(witness.is_turn(0) && !witness.is_turn(1));
    let first = pool.reserve(of(9)).unwrap();
    assert!(witness.is_turn(1) && !witness.is_turn(2));
    witness.look();
    witness.look();
    assert_eq!(witness.granted(), [2]);
    witness.watch(|| drop(first));
    // What comes and goes between two looks is not seen.
    drop(pool.reserve(of(3)).unwrap());
    let last = pool.reserve(of(7)).unwrap();
    witness.watch(|| drop(last));
    assert_eq!(witness.granted(), [2]);
    let last = pool.reserve(of(7)).unwrap();
    witness.look();
    assert_eq!(witness.granted(), [2, 0]);
    drop(last);
}

#[test]
fn the_audit_finds_a_leak() {
    let pool = BudgetPool::builder().tokens(10).in_flight(2).build();
    pool.reserve(Amount::new().tokens(4)).unwrap().commit_all();
    let claims = Claims { granted: 1, told: 0, spent: 4 };
    assert_eq!(check_books(&pool.snapshot(), &claims), Ok(()));

    let hold = pool.reserve(Amount::new().tokens(3)).unwrap();
    let mut wait = pool.reserve_wait(Amount::new().tokens(5));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(Future::poll(std::pin::Pin::new(&mut wait), &mut context).is_pending());
    let wrong =
        check_books(&pool.snapshot(), &Claims { granted: 2, told: 1, spent: 5 }).unwrap_err();
    let expected = [
        "waiting: 1, not 0",
        "reservations: 1, not 0",
        "refused: 0, not 1",
        "tokens booked: 4, not 5",
        "tokens reserved: 3, not 0",
        "in flight reserved: 1, not 0",
    ];
    assert_eq!(wrong, expected);
    drop((wait, hold));

    // Two in flight at once was one too many, had the cap been one.
    let hold = pool.reserve(Amount::new()).unwrap();
    drop((pool.reserve(Amount::new()).unwrap(), hold));
    let mut snapshot = pool.snapshot();
    snapshot.in_flight.cap = Some(1);
    let wrong = check_books(&snapshot, &Claims { granted: 4, told: 0, spent: 4 }).unwrap_err();
    assert_eq!(wrong, ["in flight beyond the cap: 1, not 0"]);
}
