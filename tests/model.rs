//! P1 to P5, P7 and P8 on any sequence of calls: a whole tree of pools against a naive model of it.

#[path = "support/model.rs"]
mod model;

use model::{Figures, Op};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

fn figures() -> impl Strategy<Value = Figures> {
    (0..64_u8, any::<[u16; 6]>()).prop_map(|(axes, raw)| Figures { axes, raw })
}

/// Fewer axes, so that less of what is asked is refused.
fn few_figures() -> impl Strategy<Value = Figures> {
    (any::<u8>(), any::<u8>(), figures())
        .prop_map(|(some, other, figures)| Figures { axes: 1 << (some % 6) | 1 << (other % 6), ..figures })
}

fn caps() -> impl Strategy<Value = Figures> {
    prop_oneof![3 => few_figures(), 2 => figures()]
}

fn amount() -> impl Strategy<Value = Figures> {
    prop_oneof![3 => few_figures(), 2 => figures()]
}

/// Whether a sequence of calls has much to do with deadlines. Where it has, much is late, and so refused.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Time {
    Seldom,
    Often,
}

fn deadline(time: Time) -> impl Strategy<Value = u8> {
    let without = if time == Time::Often { 1 } else { 12 };
    prop_oneof![without => Just(1), 1 => any::<u8>().prop_map(|raw| raw & !7)]
}

fn child(time: Time) -> impl Strategy<Value = Op> {
    (any::<u8>(), any::<bool>(), caps(), deadline(time)).prop_map(|(pool, carved, caps, deadline)| Op::Child {
        pool,
        carved,
        caps,
        deadline,
    })
}

fn op(time: Time) -> impl Strategy<Value = Op> {
    let passes = if time == Time::Often { 8 } else { 1 };
    let at = any::<u8>;
    prop_oneof![
        10 => child(time),
        1 => at().prop_map(|pool| Op::Clone { pool }),
        4 => at().prop_map(|pool| Op::Drop { pool }),
        10 => (at(), amount()).prop_map(|(pool, amount)| Op::Record { pool, amount }),
        2 => (at(), amount()).prop_map(|(pool, amount)| Op::Check { pool, amount }),
        7 => (at(), amount()).prop_map(|(pool, amount)| Op::Debit { pool, amount }),
        18 => (at(), amount()).prop_map(|(pool, amount)| Op::Reserve { pool, amount }),
        3 => at().prop_map(|pool| Op::Reset { pool }),
        5 => (at(), caps()).prop_map(|(pool, caps)| Op::Add { pool, caps }),
        3 => (at(), figures()).prop_map(|(pool, caps)| Op::Remove { pool, caps }),
        3 => at().prop_map(|pool| Op::Close { pool }),
        2 => (at(), any::<u8>()).prop_map(|(hold, label)| Op::Label { hold, label }),
        2 => at().prop_map(|hold| Op::CommitOnDrop { hold }),
        6 => (at(), amount()).prop_map(|(hold, actual)| Op::Commit { hold, actual }),
        1 => at().prop_map(|hold| Op::CommitAll { hold }),
        3 => (at(), amount()).prop_map(|(hold, total)| Op::CommitTotal { hold, total }),
        4 => (at(), amount(), any::<bool>())
            .prop_map(|(hold, actual, take_back)| Op::TryCommit { hold, actual, take_back }),
        1 => at().prop_map(|hold| Op::Release { hold }),
        3 => at().prop_map(|hold| Op::DropHold { hold }),
        1 => at().prop_map(|hold| Op::Forget { hold }),
        5 => (at(), amount()).prop_map(|(hold, part)| Op::RecordPart { hold, part }),
        5 => (at(), amount()).prop_map(|(hold, part)| Op::DebitPart { hold, part }),
        4 => (at(), amount()).prop_map(|(hold, extra)| Op::Grow { hold, extra }),
        3 => (at(), amount()).prop_map(|(hold, by)| Op::Shrink { hold, by }),
        4 => (at(), amount()).prop_map(|(hold, part)| Op::Split { hold, part }),
        passes => any::<u8>().prop_map(|by| Op::Advance { by }),
    ]
}

/// A root, what happens below it, and towards the end perhaps the loss of the root's own handles.
fn ops(time: Time) -> impl Strategy<Value = Vec<Op>> {
    let later = prop_oneof![60 => op(time), 1 => Just(Op::DropRoot)];
    (child(time), prop::collection::vec(op(time), 0..30), prop::collection::vec(later, 0..30))
        .prop_map(|(root, first, then)| std::iter::once(root).chain(first).chain(then).collect())
}

/// 1,000 cases, or what `PROPTEST_CASES` says.
fn config() -> ProptestConfig {
    let mut config =
        ProptestConfig { max_shrink_iters: 20_000, failure_persistence: None, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 1_000;
    }
    config
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_tree_of_pools_does_what_the_model_does(ops in prop_oneof![4 => ops(Time::Seldom), 1 => ops(Time::Often)]) {
        model::compare(&ops).map_err(TestCaseError::fail)?;
    }
}

// Sequences that proptest seldom finds.

const NOTHING: Figures = Figures { axes: 0, raw: [0; 6] };

fn plain_child(caps: Figures, deadline: u8) -> Op {
    Op::Child { pool: 0, carved: false, caps, deadline }
}

#[test]
fn of_two_deadlines_at_one_instant_the_outermost_is_named() {
    let (two_units, one_unit) = (8, 0);
    model::run(&[
        plain_child(NOTHING, two_units),
        Op::Advance { by: 1 },
        plain_child(NOTHING, one_unit),
        Op::Advance { by: 1 },
        Op::Check { pool: 1, amount: NOTHING },
    ]);
}

#[test]
fn a_refused_remove_has_the_worst_outlook_of_all_axes() {
    let on = |axes, raw| Figures { axes, raw };
    // 8 tokens, all of them held: less of them may come. No output tokens: less of them never does.
    model::run(&[
        plain_child(on(0b101, [1, 0, 0, 0, 0, 0]), 1),
        Op::Reserve { pool: 0, amount: on(0b001, [50, 0, 0, 0, 0, 0]) },
        Op::Remove { pool: 0, caps: on(0b101, [1; 6]) },
    ]);
}
