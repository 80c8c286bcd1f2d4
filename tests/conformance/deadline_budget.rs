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

/// Where we differ on purpose.
#[derive(Debug, PartialEq)]
enum Difference {
    /// The peer refuses to create a budget of zero. To us it is a request that comes too late,
    /// and so a budget that has expired, as the header `0n` is: the service answers it as it
    /// answers any that is late, and needs no second way out.
    NoTimeIsExpired,
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
fn expected(
    timeout: Option<u64>,
    outcome: Option<Outcome>,
    figures: [Option<u64>; 2],
) -> Result<u64, [u64; 2]> {
    match (timeout, outcome, figures) {
        (Some(timeout), None, [None, None]) => Ok(timeout),
        (None, Some(Outcome::Ok), [None, None]) => Ok(0),
        (None, Some(Outcome::DeadlineExceeded), [Some(budget), Some(elapsed)]) => {
            Err([budget, elapsed])
        }
        odd => panic!("neither an answer nor a refusal: {odd:?}"),
    }
}

fn answered(answer: Result<Duration, DeadlineExceeded>) -> Result<u64, [u64; 2]> {
    let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap();
    answer.map(nanos).map_err(|late| {
        assert_eq!((late.pool(), late.needed()), (None, Duration::ZERO));
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

    fn replay(&self, at: &str) -> Option<Difference> {
        let clock = ManualClock::new();
        let budget = self.create(clock.clone());
        let invalid = self.create == Create::Invalid;
        assert!(self.steps.is_empty() || !invalid, "{at}: steps of what was not created");
        if self.total_ns == 0 && invalid {
            let budget = budget.unwrap_or_else(|error| panic!("{at}: {error}"));
            assert!(budget.is_expired() && budget.total().is_zero(), "{at}: {budget:?}");
            return Some(Difference::NoTimeIsExpired);
        }
        assert_eq!(budget.is_err(), invalid, "{at}: {budget:?}");
        let budget = budget.ok()?;
        assert_eq!(budget.total(), ns(self.total_ns - self.safety_margin_ns), "{at}");
        for (number, step) in self.steps.iter().enumerate() {
            step.replay(&clock, &budget, &format!("{at}, step {number}: {step:?}"));
        }
        None
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
            Step::TimeoutForCall {
                ref call,
                reserve_for_next_ns,
                result_ns,
                result,
                budget_ns,
                elapsed_ns,
            } => {
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
    let replay = |(number, case): (usize, &Case)| case.replay(&format!("case {number}"));
    let differences: Vec<_> = recording.cases.iter().enumerate().filter_map(replay).collect();
    let steps: usize = recording.cases.iter().map(|case| case.steps.len()).sum();
    println!("{}: {steps} steps of {} cases replayed", recording.source, recording.cases.len());
    println!("differences on purpose: {differences:?}");
    assert!(steps > 0, "an empty recording shows nothing");
}

/// The packaged recording has no such case; another one may.
#[test]
fn a_total_of_zero_differs_on_purpose() {
    for margin in [0, 5] {
        let case = Case {
            total_ns: 0,
            safety_margin_ns: margin,
            min_timeout_ns: 0,
            call_caps_ns: BTreeMap::new(),
            create: Create::Invalid,
            steps: Vec::new(),
        };
        assert_eq!(case.replay("no time"), Some(Difference::NoTimeIsExpired));
    }
}
