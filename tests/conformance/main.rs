//! Replays behaviour that was recorded from real peers, step by step, and compares every result and
//! every state.
//!
//! `CONFORMANCE_DIR=some/folder cargo test --test conformance -- --nocapture` replays the files of
//! the same names there.

use std::collections::HashMap;
use std::path::PathBuf;

use budget_pool::{Amount, Ask, Axis, BudgetError, BudgetPool, Reservation, Usd};
use serde::Deserialize;
use serde::de::DeserializeOwned;

mod deadline_budget;

fn recorded<T: DeserializeOwned>(name: &str) -> T {
    let here = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");
    let path = std::env::var_os("CONFORMANCE_DIR")
        .map_or_else(|| PathBuf::from(here), PathBuf::from)
        .join(name);
    let text = std::fs::read_to_string(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
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
            // Strict: refused as the peer's. The peer drops the hold then, and so does this, by
            // dropping the error.
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
        println!(
            "{}: {steps} steps of {} histories replayed",
            recording.source,
            recording.histories.len()
        );
        assert!(steps > 0, "an empty recording shows nothing");
    }
}

mod escrowmint {
    use std::collections::{BTreeMap, HashSet};
    use std::time::Duration;

    use budget_pool::{Caps, ManualClock};

    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Recording {
        source: String,
        histories: Vec<History>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct History {
        available: u64,
        steps: Vec<Step>,
    }

    #[derive(Debug, Deserialize)]
    struct Step {
        #[serde(flatten)]
        op: Op,
        after: Balance,
    }

    #[derive(Debug, Deserialize)]
    #[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
    enum Op {
        Advance { by_ms: u64 },
        TopUp { amount: u64 },
        Consume { amount: u64, applied: bool },
        ConsumeKeyed { key: String, amount: u64, applied: Option<bool>, result: Option<Answer> },
        Reserve { id: String, amount: u64, ttl_ms: u64, result: Answer },
        Commit { id: String, result: Answer },
        Cancel { id: String, result: Answer },
        AllocateChunk { id: String, amount: u64, ttl_ms: u64, result: Answer, granted: Option<u64> },
        ConsumeChunk { id: String, amount: u64, result: Answer, lease_remaining: Option<u64> },
        RenewChunk { id: String, ttl_ms: u64, result: Answer },
        ReleaseChunk { id: String, result: Answer },
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Answer {
        Ok,
        Insufficient,
        Expired,
        IdempotencyConflict,
        NotFound,
        NoOp,
        AlreadyReleased,
    }

    impl Answer {
        fn applied(applied: bool) -> Answer {
            if applied { Answer::Ok } else { Answer::Insufficient }
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Balance {
        available: u64,
        /// By holds. Chunks are not counted.
        reserved: u64,
    }

    /// Where we differ on purpose.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    enum Difference {
        /// The peer books nothing for a commit that comes too late. It happened, so that we do.
        LateCommit,
        /// The peer gives from a chunk what is in it. We take what is beyond it from the pool, if
        /// it is there.
        BeyondChunk,
        /// The peer remembers that a key was refused, and for what. To us nothing has happened:
        /// when it comes again and fits, it is admitted, with whatever amount.
        RefusedKeyAdmitted,
        /// From then on it stands for what we admitted; with the peer still for what was refused.
        RefusedKeySpent,
        /// When it comes again with another amount and does not fit: refused for that. With the
        /// peer it is a conflict.
        RefusedKeyRefused,
        /// The peer remembers what has ended, and answers to that. With us its owner is gone: such
        /// a call cannot be written.
        Ended(&'static str, Answer),
    }

    /// When the state is compared. To look at it is to bring it up to the present.
    #[derive(Clone, Copy, PartialEq)]
    enum Look {
        AfterEveryStep,
        /// Not when time has passed, so that the next call has to do what is due then.
        AfterEveryCall,
    }

    struct Chunk {
        hold: Reservation,
        left: u64,
    }

    struct Replay<'a> {
        clock: ManualClock,
        pool: BudgetPool,
        holds: HashMap<&'a str, (Reservation, u64)>,
        chunks: HashMap<&'a str, Chunk>,
        ended: HashSet<&'a str>,
        /// What was spent under each key, by us.
        spent: HashMap<&'a str, u64>,
        /// The keys that the peer has refused.
        refused: HashSet<&'a str>,
        before: Balance,
        decoys: Vec<Reservation>,
    }

    fn tokens(units: u64) -> Amount {
        Amount::new().tokens(units)
    }

    fn held(hold: &Reservation) -> u64 {
        hold.amount().get(Axis::Tokens).map_or(0, |tokens| tokens.units())
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    impl<'a> Replay<'a> {
        fn start(available: u64) -> Replay<'a> {
            let clock = ManualClock::new();
            Replay {
                // No history lasts as long as a key is remembered if nothing is said, neither here
                // nor there.
                pool: BudgetPool::builder().tokens(available).clock(clock.clone()).build(),
                clock,
                holds: HashMap::new(),
                chunks: HashMap::new(),
                ended: HashSet::new(),
                spent: HashMap::new(),
                refused: HashSet::new(),
                before: Balance { available, reserved: 0 },
                decoys: Vec::new(),
            }
        }

        /// Empty holds that will be due before all others, as many as a call reclaims whether it
        /// needs to or not, and more: what else is due is then reclaimed only if the call
        /// needs it.
        fn distract(&mut self) {
            let decoy =
                || self.pool.reserve(Ask::new(tokens(0)).ttl(Duration::from_nanos(1))).unwrap();
            self.decoys = std::iter::repeat_with(decoy).take(16).collect();
        }

        fn balance(&self) -> Balance {
            let snapshot = self.pool.snapshot().tokens;
            let chunks: u64 = self.chunks.values().map(|chunk| held(&chunk.hold)).sum();
            Balance {
                available: snapshot.available.expect("it has a cap"),
                reserved: snapshot.reserved.checked_sub(chunks).expect("a chunk is reserved"),
            }
        }

        /// After a difference: gives back to the pool what it has spent and the peer has not.
        fn give_back(&self, spent: u64) {
            self.pool.raise_caps(Caps::new().tokens(spent)).unwrap();
        }

        fn answer<T>(&self, result: &Result<T, BudgetError>, asked: u64) -> Answer {
            let Err(error) = result else { return Answer::Ok };
            assert_eq!((error.pool(), error.retry_after()), ("pool", None));
            match error {
                BudgetError::Exceeded(refusal) => {
                    assert_eq!(refusal.axis(), Axis::Tokens);
                    assert_eq!(refusal.requested().units(), asked);
                    assert_eq!(refusal.available().units(), self.before.available);
                    Answer::Insufficient
                }
                BudgetError::Expired { .. } => Answer::Expired,
                BudgetError::KeyConflict { .. } => Answer::IdempotencyConflict,
                other => panic!("the peer has no {other:?}"),
            }
        }

        fn apply(&mut self, op: &'a Op) -> Option<Difference> {
            match op {
                Op::Advance { by_ms } => self.clock.advance(ms(*by_ms)),
                Op::TopUp { amount } => self.pool.raise_caps(Caps::new().tokens(*amount)).unwrap(),
                Op::Consume { amount, applied } => {
                    let ours = self.answer(&self.pool.record(tokens(*amount)), *amount);
                    assert_eq!(ours, Answer::applied(*applied));
                }
                Op::ConsumeKeyed { key, amount, applied, result } => {
                    let theirs = result.or(applied.map(Answer::applied)).expect("it has an answer");
                    return self.consume_keyed(key, *amount, theirs);
                }
                Op::Reserve { id, amount, ttl_ms, result } => {
                    let hold = self.pool.reserve(Ask::new(tokens(*amount)).ttl(ms(*ttl_ms)));
                    assert_eq!(self.answer(&hold, *amount), *result);
                    self.holds.extend(hold.map(|hold| (id.as_str(), (hold, *amount))));
                }
                Op::Commit { id, result } => return self.commit(id, *result),
                Op::Cancel { id, result } => match self.holds.remove(id.as_str()) {
                    None => return self.ended("cancel", id, *result),
                    Some((hold, _)) => {
                        assert_eq!(*result, Answer::Ok);
                        hold.release();
                        self.ended.insert(id);
                    }
                },
                Op::AllocateChunk { id, amount, ttl_ms, result, granted } => {
                    let hold = self.pool.reserve(Ask::new(tokens(*amount)).ttl(ms(*ttl_ms)));
                    assert_eq!(self.answer(&hold, *amount), *result);
                    assert_eq!(hold.as_ref().ok().map(held), *granted);
                    self.chunks
                        .extend(hold.map(|hold| (id.as_str(), Chunk { hold, left: *amount })));
                }
                Op::ConsumeChunk { id, amount, result, lease_remaining } => {
                    match self.chunks.remove(id.as_str()) {
                        None => return self.ended("consume_chunk", id, *result),
                        Some(mut chunk) => {
                            let difference = self.consume_chunk(&mut chunk, *amount, *result);
                            let left = (*result != Answer::Expired).then_some(chunk.left);
                            assert_eq!(
                                (left, held(&chunk.hold)),
                                (*lease_remaining, left.unwrap_or(0))
                            );
                            self.chunks.insert(id, chunk);
                            return difference;
                        }
                    }
                }
                Op::RenewChunk { id, ttl_ms, result } => match self.chunks.get_mut(id.as_str()) {
                    None => return self.ended("renew_chunk", id, *result),
                    Some(chunk) => {
                        let renewed = chunk.hold.renew(ms(*ttl_ms));
                        assert_eq!(self.answer(&renewed, 0), *result);
                    }
                },
                Op::ReleaseChunk { id, result } => match self.chunks.remove(id.as_str()) {
                    None => return self.ended("release_chunk", id, *result),
                    Some(chunk) => {
                        assert_eq!(*result, Answer::Ok);
                        chunk.hold.release();
                        self.ended.insert(id);
                    }
                },
            }
            None
        }

        fn ended(&self, op: &'static str, id: &str, theirs: Answer) -> Option<Difference> {
            assert!(self.ended.contains(id), "the recording names what there once was");
            Some(Difference::Ended(op, theirs))
        }

        fn commit(&mut self, id: &'a str, theirs: Answer) -> Option<Difference> {
            let Some((hold, amount)) = self.holds.remove(id) else {
                return self.ended("commit", id, theirs);
            };
            let receipt = hold.commit_all();
            self.ended.insert(id);
            assert_eq!(receipt.settled(), tokens(amount));
            if !receipt.is_late() {
                assert_eq!((receipt.overage(), theirs), (tokens(0), Answer::Ok));
                return None;
            }
            // It is booked, out of what is free, and what does not fit as overage.
            assert_eq!(theirs, Answer::Expired);
            let Balance { available, reserved } = self.before;
            let overage = amount.saturating_sub(available);
            assert_eq!(receipt.overage(), tokens(overage));
            assert_eq!(
                self.balance(),
                Balance { available: available.saturating_sub(amount), reserved }
            );
            assert_eq!(self.pool.snapshot().tokens.overage, overage);
            self.give_back(amount);
            assert_eq!(self.pool.snapshot().tokens.overage, 0);
            Some(Difference::LateCommit)
        }

        fn consume_chunk(
            &self,
            chunk: &mut Chunk,
            amount: u64,
            theirs: Answer,
        ) -> Option<Difference> {
            let beyond = amount.saturating_sub(chunk.left);
            let ours = self.answer(&chunk.hold.record(tokens(amount)), beyond);
            if ours == theirs {
                chunk.left -= if ours == Answer::Ok { amount } else { 0 };
                return None;
            }
            // The chunk is used up, and the pool has given the rest.
            assert_eq!((theirs, ours), (Answer::Insufficient, Answer::Ok));
            assert_ne!(beyond, 0);
            assert_eq!(held(&chunk.hold), 0);
            assert_eq!(
                self.pool.snapshot().tokens.available,
                self.before.available.checked_sub(beyond)
            );
            self.give_back(amount);
            chunk.hold.grow(tokens(chunk.left)).unwrap();
            Some(Difference::BeyondChunk)
        }

        fn consume_keyed(
            &mut self,
            key: &'a str,
            amount: u64,
            theirs: Answer,
        ) -> Option<Difference> {
            let known = self.spent.get(key).copied();
            let promised = match known {
                Some(spent) if spent == amount => Answer::Ok,
                Some(_) => Answer::IdempotencyConflict,
                None => Answer::applied(amount <= self.before.available),
            };
            let ours = self.answer(&self.pool.record_once(key, tokens(amount)), amount);
            assert_eq!(ours, promised);
            if ours == Answer::Ok {
                self.spent.insert(key, amount);
            }
            if ours == theirs {
                if theirs == Answer::Insufficient {
                    self.refused.insert(key);
                }
                return None;
            }
            assert!(self.refused.contains(key), "that is the only difference");
            if known.is_some() {
                return Some(Difference::RefusedKeySpent);
            }
            if ours == Answer::Insufficient {
                assert_eq!(theirs, Answer::IdempotencyConflict);
                return Some(Difference::RefusedKeyRefused);
            }
            let Balance { available, reserved } = self.before;
            assert_eq!(self.balance(), Balance { available: available - amount, reserved });
            self.give_back(amount);
            Some(Difference::RefusedKeyAdmitted)
        }
    }

    /// Says which step it was that failed.
    struct At<'a>(usize, usize, &'a Step);

    impl Drop for At<'_> {
        fn drop(&mut self) {
            if std::thread::panicking() {
                eprintln!("history {}, step {}: {:?}", self.0, self.1, self.2);
            }
        }
    }

    fn replay(look: Look) {
        let recording: Recording = recorded("escrowmint.json");
        let (mut steps, mut differences) = (0, BTreeMap::new());
        for (number, history) in recording.histories.iter().enumerate() {
            let mut replay = Replay::start(history.available);
            for (index, step) in history.steps.iter().enumerate() {
                let _at = At(number, index, step);
                let passes = matches!(step.op, Op::Advance { .. });
                if passes && look == Look::AfterEveryCall {
                    replay.distract();
                }
                if let Some(difference) = replay.apply(&step.op) {
                    *differences.entry(difference).or_insert(0) += 1;
                }
                if look == Look::AfterEveryStep || !passes {
                    assert_eq!(replay.balance(), step.after);
                }
                replay.before = step.after;
                steps += 1;
            }
        }
        println!(
            "{}: {steps} steps of {} histories replayed",
            recording.source,
            recording.histories.len()
        );
        println!("differences on purpose: {differences:?}");
        assert!(steps > 0, "an empty recording shows nothing");
        if std::env::var_os("CONFORMANCE_DIR").is_none() {
            assert_eq!((recording.histories.len(), steps), (150, 4178));
            assert_eq!(differences, BTreeMap::from(DIFFERENCES));
        }
    }

    /// All there are in the recording that lies here, so that nothing else passes for one.
    const DIFFERENCES: [(Difference, usize); 15] = [
        (Difference::LateCommit, 36),
        (Difference::BeyondChunk, 37),
        (Difference::RefusedKeyAdmitted, 10),
        (Difference::RefusedKeySpent, 7),
        (Difference::RefusedKeyRefused, 27),
        (Difference::Ended("commit", Answer::Ok), 89),
        (Difference::Ended("commit", Answer::Expired), 30),
        (Difference::Ended("commit", Answer::NotFound), 72),
        (Difference::Ended("cancel", Answer::Ok), 75),
        (Difference::Ended("cancel", Answer::NoOp), 68),
        (Difference::Ended("consume_chunk", Answer::Expired), 22),
        (Difference::Ended("consume_chunk", Answer::AlreadyReleased), 55),
        (Difference::Ended("renew_chunk", Answer::Expired), 9),
        (Difference::Ended("renew_chunk", Answer::AlreadyReleased), 15),
        (Difference::Ended("release_chunk", Answer::Ok), 12),
    ];

    #[test]
    fn every_step_has_the_same_result_and_leaves_the_same_state() {
        replay(Look::AfterEveryStep);
    }

    #[test]
    fn what_is_due_is_done_by_the_call_that_needs_it() {
        replay(Look::AfterEveryCall);
    }
}
