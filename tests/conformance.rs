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
                Err(refused) => Err::<(), _>(refused.error().clone()).into(),
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

mod deadline_budget {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use budget_pool::{Call, DeadlineBudget, DeadlineExceeded, InvalidDeadline, ManualClock};

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Recording {
        source: String,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Case {
        total_ns: u64,
        safety_margin_ns: u64,
        min_timeout_ns: u64,
        call_caps_ns: BTreeMap<String, u64>,
        create: Create,
        steps: Vec<Step>,
    }

    #[derive(Deserialize, PartialEq)]
    #[serde(rename_all = "snake_case")]
    enum Create {
        Ok,
        Invalid,
    }

    #[derive(Deserialize, Debug)]
    #[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
    enum Step {
        Advance {
            by_ns: u64,
        },
        Elapsed {
            result_ns: u64,
        },
        /// Negative once late.
        Remaining {
            result_ns: i64,
        },
        Expired {
            result: bool,
        },
        Check {
            result: Outcome,
            budget_ns: Option<u64>,
            elapsed_ns: Option<u64>,
        },
        TimeoutFor {
            cap_ns: Option<u64>,
            min_timeout_ns: Option<u64>,
            reserve_for_next_ns: u64,
            result_ns: Option<u64>,
            result: Option<Outcome>,
            budget_ns: Option<u64>,
            elapsed_ns: Option<u64>,
        },
        TimeoutForCall {
            call: String,
            reserve_for_next_ns: u64,
            result_ns: Option<u64>,
            result: Option<Outcome>,
            budget_ns: Option<u64>,
            elapsed_ns: Option<u64>,
        },
    }

    #[derive(Deserialize, Debug, PartialEq, Clone, Copy)]
    #[serde(rename_all = "snake_case")]
    enum Outcome {
        Ok,
        DeadlineExceeded,
    }

    fn ns(nanos: u64) -> Duration {
        Duration::from_nanos(nanos)
    }

    /// What the recording says of an answer: the timeout, or the refusal's budget and elapsed time.
    fn expected(timeout: Option<u64>, outcome: Option<Outcome>, figures: [Option<u64>; 2]) -> Result<u64, [u64; 2]> {
        match (timeout, outcome, figures) {
            (Some(timeout), None, [None, None]) => Ok(timeout),
            (None, Some(Outcome::Ok), [None, None]) => Ok(0),
            (None, Some(Outcome::DeadlineExceeded), [Some(budget), Some(elapsed)]) => Err([budget, elapsed]),
            odd => panic!("neither an answer nor a refusal: {odd:?}"),
        }
    }

    fn answered(answer: Result<Duration, DeadlineExceeded>) -> Result<u64, [u64; 2]> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap();
        answer.map(nanos).map_err(|late| {
            assert_eq!((late.scope(), late.needed()), (None, Duration::ZERO));
            [nanos(late.budget()), nanos(late.elapsed())]
        })
    }

    impl Case {
        fn create(&self, clock: ManualClock) -> Result<DeadlineBudget, InvalidDeadline> {
            DeadlineBudget::builder()
                .total(ns(self.total_ns))
                .safety_margin(ns(self.safety_margin_ns))
                .min_timeout(ns(self.min_timeout_ns))
                .call_caps(self.call_caps_ns.iter().map(|(name, cap)| (name.as_str(), ns(*cap))))
                .clock(clock)
                .build()
        }

        fn replay(&self, at: &str) {
            let clock = ManualClock::new();
            let budget = self.create(clock.clone());
            assert_eq!(budget.is_ok(), self.create == Create::Ok, "{at}: {budget:?}");
            let Ok(budget) = budget else {
                assert!(self.steps.is_empty(), "{at}: steps of a budget that could not be created");
                return;
            };
            assert_eq!(budget.total(), ns(self.total_ns - self.safety_margin_ns), "{at}");
            for (number, step) in self.steps.iter().enumerate() {
                step.replay(&clock, &budget, &format!("{at}, step {number}: {step:?}"));
            }
        }
    }

    impl Step {
        fn replay(&self, clock: &ManualClock, budget: &DeadlineBudget, at: &str) {
            match *self {
                Step::Advance { by_ns } => clock.advance(ns(by_ns)),
                Step::Elapsed { result_ns } => assert_eq!(budget.elapsed(), ns(result_ns), "{at}"),
                // The peer's one signed number is our two: what remains, or how late it is.
                Step::Remaining { result_ns } => {
                    let late = if result_ns < 0 { result_ns.unsigned_abs() } else { 0 };
                    assert_eq!(budget.remaining(), ns(result_ns.max(0).unsigned_abs()), "{at}");
                    assert_eq!(budget.overrun(), ns(late), "{at}");
                }
                Step::Expired { result } => assert_eq!(budget.is_expired(), result, "{at}"),
                Step::Check { result, budget_ns, elapsed_ns } => {
                    let expected = expected(None, Some(result), [budget_ns, elapsed_ns]);
                    assert_eq!(answered(budget.check().map(|()| Duration::ZERO)), expected, "{at}");
                }
                Step::TimeoutFor {
                    cap_ns,
                    min_timeout_ns,
                    reserve_for_next_ns,
                    result_ns,
                    result,
                    budget_ns,
                    elapsed_ns,
                } => {
                    let mut call = Call::new().reserve_for_next(ns(reserve_for_next_ns));
                    if let Some(cap) = cap_ns {
                        call = call.cap(ns(cap));
                    }
                    if let Some(min) = min_timeout_ns {
                        call = call.min(ns(min));
                    }
                    let expected = expected(result_ns, result, [budget_ns, elapsed_ns]);
                    assert_eq!(answered(budget.timeout_for(call)), expected, "{at}");
                }
                Step::TimeoutForCall { ref call, reserve_for_next_ns, result_ns, result, budget_ns, elapsed_ns } => {
                    let named = Call::named(call).reserve_for_next(ns(reserve_for_next_ns));
                    let expected = expected(result_ns, result, [budget_ns, elapsed_ns]);
                    assert_eq!(answered(budget.timeout_for(named)), expected, "{at}");
                    if reserve_for_next_ns == 0 {
                        assert_eq!(answered(budget.timeout_for(call.as_str())), expected, "{at}");
                    }
                }
            }
        }
    }

    #[test]
    fn every_number_is_the_same_to_the_nanosecond() {
        let recording: Recording = super::recorded("deadline_budget.json");
        for (number, case) in recording.cases.iter().enumerate() {
            case.replay(&format!("case {number}"));
        }
        let steps: usize = recording.cases.iter().map(|case| case.steps.len()).sum();
        println!("{}: {steps} steps of {} cases replayed", recording.source, recording.cases.len());
        assert!(steps > 0, "an empty recording shows nothing");
    }
}
