//! Replays behaviour that was recorded from real peers, step by step, and compares every result and every state.
//!
//! `CONFORMANCE_DIR=some/folder cargo test --test conformance -- --nocapture` replays the files of the same names there.

use std::collections::HashMap;
use std::path::PathBuf;

use budget_pool::{Amount, Axis, BudgetError, BudgetPool, Reservation, Usd};
use serde::Deserialize;
use serde::de::DeserializeOwned;

fn recorded<T: DeserializeOwned>(name: &str) -> T {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let path = std::env::var_os("CONFORMANCE_DIR").map_or_else(|| PathBuf::from(here), PathBuf::from).join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

mod token_budget_py {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Recording {
        source: String,
        #[serde(rename = "usd_unit")]
        _usd_unit: String,
        #[serde(rename = "note")]
        _note: String,
        histories: Vec<History>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct History {
        token_cap: Option<u64>,
        usd_cap_nanos: Option<u64>,
        steps: Vec<Step>,
    }

    #[derive(Debug, Deserialize)]
    struct Step {
        #[serde(flatten)]
        op: Op,
        #[serde(flatten)]
        outcome: Outcome,
        after: After,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "op", rename_all = "snake_case")]
    enum Op {
        Record(Spend),
        Reserve {
            id: u64,
            #[serde(flatten)]
            spend: Spend,
        },
        Commit {
            id: u64,
            #[serde(flatten)]
            spend: Spend,
        },
        CommitAll {
            id: u64,
        },
        Release {
            id: u64,
        },
        Reset,
    }

    #[derive(Debug, Deserialize)]
    struct Spend {
        tokens: u64,
        usd_nanos: u64,
    }

    impl Spend {
        fn amount(&self) -> Amount {
            Amount::new().tokens(self.tokens).usd(Usd::from_nanos(self.usd_nanos))
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
    #[serde(tag = "result", rename_all = "snake_case")]
    enum Outcome {
        Ok,
        Exceeded { axis: Named },
    }

    #[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Named {
        Tokens,
        Usd,
    }

    impl Outcome {
        fn exceeded(axis: Axis) -> Outcome {
            match axis {
                Axis::Tokens => Outcome::Exceeded { axis: Named::Tokens },
                Axis::Usd => Outcome::Exceeded { axis: Named::Usd },
                other => panic!("the peer has no {other}"),
            }
        }
    }

    impl<T> From<Result<T, BudgetError>> for Outcome {
        fn from(result: Result<T, BudgetError>) -> Outcome {
            match result {
                Ok(_) => Outcome::Ok,
                Err(error) => Outcome::exceeded(error.axis().expect("no pool is closed here")),
            }
        }
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct After {
        tokens_used: u64,
        usd_used_nanos: u64,
        tokens_remaining: Option<u64>,
        usd_remaining_nanos: Option<u64>,
    }

    fn state(pool: &BudgetPool) -> After {
        let snapshot = pool.snapshot();
        After {
            tokens_used: snapshot.tokens.used,
            usd_used_nanos: snapshot.usd.used.as_nanos(),
            tokens_remaining: snapshot.tokens.available,
            usd_remaining_nanos: snapshot.usd.available.map(Usd::as_nanos),
        }
    }

    fn apply(pool: &BudgetPool, holds: &mut HashMap<u64, Reservation>, op: &Op) -> Outcome {
        let mut take = |id| holds.remove(id).expect("the recording names a live hold");
        match op {
            Op::Record(spend) => pool.record(spend.amount()).into(),
            Op::Reserve { id, spend } => {
                pool.reserve(spend.amount()).map(|hold| holds.insert(*id, hold).is_none()).into()
            }
            // Strict: refused as the peer's. The peer drops the hold then, and so does this, by dropping the error.
            Op::Commit { id, spend } => match take(id).try_commit(spend.amount()) {
                Ok(_) => Outcome::Ok,
                Err(refused) => Outcome::exceeded(refused.error().axis()),
            },
            Op::CommitAll { id } => {
                take(id).commit_all();
                Outcome::Ok
            }
            Op::Release { id } => {
                take(id).release();
                Outcome::Ok
            }
            Op::Reset => {
                pool.reset();
                Outcome::Ok
            }
        }
    }

    fn replay(history: &History) {
        let mut builder = BudgetPool::builder();
        if let Some(tokens) = history.token_cap {
            builder = builder.tokens(tokens);
        }
        if let Some(nanos) = history.usd_cap_nanos {
            builder = builder.usd(Usd::from_nanos(nanos));
        }
        let pool = builder.build();
        let mut holds = HashMap::new();
        for (number, step) in history.steps.iter().enumerate() {
            assert_eq!(apply(&pool, &mut holds, &step.op), step.outcome, "step {number}: {step:?}");
            assert_eq!(state(&pool), step.after, "step {number}: {step:?}");
        }
    }

    #[test]
    fn every_step_has_the_same_result_and_leaves_the_same_state() {
        let recording: Recording = recorded("token_budget_py.json");
        recording.histories.iter().for_each(replay);
        let steps: usize = recording.histories.iter().map(|history| history.steps.len()).sum();
        println!("{}: {steps} steps of {} histories replayed", recording.source, recording.histories.len());
        assert!(steps > 0, "an empty recording shows nothing");
    }
}
