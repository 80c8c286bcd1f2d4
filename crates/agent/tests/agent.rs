//! The example `agent`, run as its user runs it, and its audit.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::{BTreeMap, BTreeSet};

use budget_pool::{Amount, BudgetPool, OnDrop, Usd};

#[path = "../examples/agent/audit.rs"]
mod audit;
#[path = "../../../tests/support/example.rs"]
mod example;
#[path = "../../budget-pool-tower/tests/support/glue.rs"]
mod glue;

/// What the audit reads of the example's server.
mod server {
    #[derive(Debug, Clone, Copy)]
    pub struct Billed {
        pub nanos: u64,
        pub is_told: bool,
    }
}

use audit::{Found, Untold, audit};
use server::Billed;

#[test]
fn the_example_ends_with_books_that_are_the_bill() {
    let output = example::run("agent", &[]);
    let report = String::from_utf8(output.stdout).unwrap();
    let progress = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{report}{progress}");
    assert!(report.starts_with("200 tasks of 10 agents in "), "{report}");
    assert!(report.contains(": 200 answered"), "{report}");
    assert!(report.contains("3 x 429, 10 x 500, 20 streams broken off, 10 silent"), "{report}");
    assert!(report.contains("  alert    at $0.48"), "{report}");
    assert!(report.contains("Audit passed: nothing is missing"), "{report}");
    assert!(progress.lines().count() > 3, "{progress}");
    assert!(progress.contains(", paused"), "{progress}");
    // The dear model first, and the cheap one when the money runs short.
    let calls = report.lines().find(|line| line.starts_with("  calls ")).unwrap();
    let numbers: Vec<u64> = calls.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(numbers.len() == 2 && numbers.iter().all(|&calls| calls > 0), "{calls}");
}

#[test]
fn the_glue_is_at_most_sixty_lines() {
    let lines = glue::lines(include_str!("../examples/agent/budget.rs"));
    assert!((20..=60).contains(&lines), "{lines} lines of glue");
}

fn usd(nanos: u64) -> Amount {
    Amount::new().usd(Usd::from_nanos(nanos))
}

/// A call with a usage block, and one without, in pools that have booked both.
fn audited(
    change: impl FnOnce(&BudgetPool, &mut BTreeMap<String, Billed>),
) -> Result<Found, Vec<String>> {
    let untold = std::sync::Arc::new(Untold::default());
    let provider = BudgetPool::builder().name("provider").observer(untold.clone()).build();
    let run = provider.child().name("run").usd(Usd::from_nanos(100)).build();
    let agent = run.child().name("agent-0").on_drop(OnDrop::Commit).build();
    agent.reserve(usd(50)).unwrap().commit(usd(30));
    drop(agent.reserve(usd(40)).unwrap().label("2/0"));
    let call = |nanos, is_told| Billed { nanos, is_told };
    let mut bill =
        BTreeMap::from([("1/0".to_owned(), call(30, true)), ("2/0".to_owned(), call(25, false))]);
    change(&agent, &mut bill);
    let refused = BTreeSet::from(["5/0".to_owned()]);
    audit(&bill, &refused, &untold.all(), &provider.snapshot_tree())
}

#[test]
fn the_audit_finds_a_nano_dollar() {
    let found = Found { billed: 55, booked: 70, exact: 1, guessed: 1 };
    assert_eq!(audited(|_, _| {}), Ok(found));

    let wrong = audited(|_, bill| bill.get_mut("1/0").unwrap().nanos = 31).unwrap_err();
    assert_eq!(wrong[0], "the run has 70 nano-USD booked, and not 71");
    let wrong = audited(|agent, _| assert!(!agent.credit(usd(1)).is_late())).unwrap_err();
    assert_eq!(wrong[0], "the run has 69 nano-USD booked, and not 70");
    // More was billed than was held for it.
    let wrong = audited(|_, bill| bill.get_mut("2/0").unwrap().nanos = 41).unwrap_err();
    assert_eq!(wrong, ["call 2/0: 41 nano-USD billed, 40 booked"]);
    // The hole that this is about: billed, and released by a drop.
    let wrong = audited(|agent, bill| {
        drop(agent.reserve(usd(20)).unwrap().on_drop(OnDrop::Release).label("3/0"));
        bill.insert("4/0".to_owned(), Billed { nanos: 9, is_told: false });
    });
    assert_eq!(wrong.unwrap_err()[0], "call 4/0: 9 nano-USD billed, nothing booked");
    let wrong = audited(|agent, _| std::mem::forget(agent.reserve(usd(3)).unwrap())).unwrap_err();
    assert_eq!(wrong.len(), 6, "money and a slot, in three pools: {wrong:?}");
    let wrong = audited(|agent, _| drop(agent.reserve(usd(9)).unwrap().label("5/0"))).unwrap_err();
    assert_eq!(wrong, ["call 5/0: refused, and 9 nano-USD booked"]);
    assert!(audit(&BTreeMap::new(), &BTreeSet::new(), &BTreeMap::new(), &[]).is_err());
}
