//! Random histories of a wallet. They are real ones where a member tells what it could tell, and
//! they contain duplicates, late requests and nonsense as well.

use proptest::prelude::*;

use crate::protocol::{Change, MOST, Op, REMEMBERED, Request, Told, Way};
use crate::rules::Wallet;

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Exchange(Request),
    Resolve {
        member: String,
        spent: Option<Vec<u64>>,
    },
    /// The time that passes, in milliseconds.
    Wait(u64),
    SetCap {
        axis: usize,
        cap: u64,
    },
    Change {
        key: String,
        change: Change,
    },
    /// As if each key had come earlier by half of the time for which it is remembered.
    AgeKeys,
}

impl Wallet {
    pub(crate) fn age_keys(&mut self) {
        for made in self.changes.values_mut() {
            made.until = made.until.saturating_sub(REMEMBERED / 2);
        }
    }
}

fn units() -> impl Strategy<Value = u64> {
    prop_oneof![12 => 0..40_u64, 1 => MOST - 20..=MOST, 1 => Just(MOST + 1)]
}

fn told() -> impl Strategy<Value = Told> {
    let sound = (0..40_u64, 0..40_u64, 0..40_u64, 0..60_u64, 0..30_u64).prop_map(
        |(spent, returned, more, want, floor)| Told {
            spent,
            returned,
            seen: returned + more,
            want: want.max(floor),
            floor,
        },
    );
    let any = (units(), units(), units(), units(), units()).prop_map(
        |(spent, returned, seen, want, floor)| Told { spent, returned, seen, want, floor },
    );
    prop_oneof![8 => sound, 1 => any]
}

fn member() -> impl Strategy<Value = String> {
    (0..4_u8).prop_map(|index| format!("m{index}"))
}

fn step(axes: usize, ttl: u64) -> impl Strategy<Value = Step> {
    let request = (
        prop_oneof![9 => Just(Op::Exchange), 1 => Just(Op::Farewell), 1 => Just(Op::Settle)],
        member(),
        1..=ttl,
        1..=ttl,
        prop_oneof![30 => Just("run 1"), 1 => Just("run 2")],
        proptest::collection::vec(told(), axes),
        0..40_u8,
    )
        .prop_map(|(op, member, ttl, claim, run, mut told, odd)| {
            if odd == 0 {
                told.pop();
            }
            Step::Exchange(Request { op, member, ttl, claim, run: run.to_owned(), told })
        });
    let spent = proptest::option::of(proptest::collection::vec(units(), axes));
    let resolve = (member(), spent).prop_map(|(member, spent)| Step::Resolve { member, spent });
    let cap = (0..axes, prop_oneof![Just(0), 20..120_u64, Just(MOST)])
        .prop_map(|(axis, cap)| Step::SetCap { axis, cap });
    prop_oneof![
        40 => request,
        2 => resolve,
        8 => (0..ttl).prop_map(Step::Wait),
        2 => cap,
        12 => change(axes),
        1 => Just(Step::AgeKeys),
    ]
}

/// So few keys and amounts that many calls are repetitions.
fn change(axes: usize) -> impl Strategy<Value = Step> {
    let units = prop_oneof![20 => proptest::sample::select(vec![0, 50, 400]), 1 => units()];
    let way = prop_oneof![Just(Way::Raise), Just(Way::Lower)];
    // Keys that a script could take for words of its own.
    let key = proptest::sample::select(vec!["", "7", "raise 50 0", "two\nlines"]);
    let any = (way, proptest::collection::vec(units, axes));
    let one = vec![50].into_iter().chain(vec![0; axes - 1]).collect::<Vec<u64>>();
    let change = prop_oneof![2 => any, 1 => Just((Way::Raise, one))];
    let change = (key, change, 0..40_u8);
    change.prop_map(|(key, (way, mut units), odd)| {
        if odd == 0 {
            units.pop();
        }
        Step::Change { key: key.to_owned(), change: Change { way, units } }
    })
}

pub(crate) fn steps(ttl: u64) -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(2, ttl), 1..60)
}
