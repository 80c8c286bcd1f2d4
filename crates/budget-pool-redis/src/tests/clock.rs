//! Clocks that jump. The clock of a server cannot be moved by a test, so these run on the rules of the
//! wallet, which `script.rs` compares with the script; a member takes each instant from its caller.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::confirm::Confirm;
use crate::member::{Local, Member, Terms};
use crate::protocol::Lost;
use crate::rules::Wallet;

const CAP: u64 = 1_000;

/// A process: its pool in one figure, the spend.
struct Process {
    member: Member,
    spent: u64,
}

impl Process {
    fn new(name: &str, start: Instant) -> Process {
        let second = Duration::from_secs(1);
        let terms = Terms {
            ttl: 3 * second,
            horizon: second,
            settle_every: second,
            at_most: vec![None],
            confirm: Confirm::None,
        };
        Process { member: Member::new(name.to_owned(), terms, start), spent: 0 }
    }

    fn local(&self) -> Local {
        let cap = self.member.target(0);
        Local { cap, used: self.spent, reserved: 0, overage: 0, spent: self.spent }
    }
}

#[derive(Debug, Clone)]
struct Step {
    process: usize,
    need: u64,
    /// The clock of the store at the exchange, in milliseconds: any instant, before or after the last.
    store: u64,
    /// The clock of the process, in milliseconds since it began.
    own: u64,
}

fn step() -> impl Strategy<Value = Step> {
    let clock = || prop_oneof![0..10_000_u64, 1_000_000..1_000_100_u64, Just(1 << 44)];
    (0..2_usize, 0..40_u64, clock(), clock()).prop_map(|(process, need, store, own)| Step {
        process,
        need,
        store,
        own,
    })
}

proptest! {
    #[test]
    fn f1_f8_no_clock_that_jumps_makes_budget(
        steps in proptest::collection::vec(step(), 1..80),
        period in prop_oneof![Just(0), 50..5_000_u64],
    ) {
        let start = Instant::now();
        let mut wallet = Wallet::found(&[CAP], Lost::Charge, period, "run", 0);
        let mut processes = [Process::new("a", start), Process::new("b", start)];
        let (mut last_end, mut used_before) = (0, 0);
        for step in steps {
            let process = &mut processes[step.process];
            process.member.measure(start + Duration::from_millis(step.own), &[process.local()]);
            let surplus = process.member.surplus(&[process.local()], false);
            process.member.gave_back(&surplus);
            let request = process.member.request("run", &[step.need], &[process.local()]);
            let answer = wallet.exchange(step.store, &request).unwrap();
            process.member.accept(&request, &answer);
            if process.local().free() >= step.need {
                process.spent += step.need;
            }
            // What all may spend is charged: the spend of earlier periods is not, any more.
            let book = wallet.books[0];
            let turned: u64 = wallet.members.values().map(|record| record.totals[0].spent).sum();
            let turned = turned - book.used;
            let may_spend: u64 = processes.iter().map(|process| process.member.target(0)).sum();
            prop_assert!(may_spend <= book.charged + turned);
            prop_assert!(book.charged <= CAP, "{:?}", book);
            // A clock that was set back turns no period twice.
            prop_assert!(wallet.period_end >= last_end);
            if wallet.period_end == last_end {
                prop_assert!(book.used >= used_before);
            }
            (last_end, used_before) = (wallet.period_end, book.used);
        }
    }
}
