//! P1 to P8 on any sequence of calls: a whole tree of pools against a naive model of it.

#[path = "support/model.rs"]
mod model;

use std::cell::RefCell;
use std::collections::BTreeMap;

use model::language::{Figures, Op};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

fn figures() -> impl Strategy<Value = Figures> {
    (0..64_u8, any::<[u16; 6]>()).prop_map(|(axes, raw)| Figures { axes, raw })
}

/// Fewer axes, so that less of what is asked is refused.
fn few_figures() -> impl Strategy<Value = Figures> {
    (any::<u8>(), any::<u8>(), figures()).prop_map(|(some, other, figures)| Figures {
        axes: 1 << (some % 6) | 1 << (other % 6),
        ..figures
    })
}

fn any_figures() -> impl Strategy<Value = Figures> {
    prop_oneof![3 => few_figures(), 2 => figures()]
}

/// Tokens, and now and then requests or in flight: so few axes that most that is asked is asked of
/// the same.
fn narrow_figures() -> impl Strategy<Value = Figures> {
    let axes = prop_oneof![5 => Just(1), 1 => Just(0b001_000), 1 => Just(0b001_001), 1 => Just(0b100_001), 1 => Just(0)];
    (axes, any::<[u16; 6]>()).prop_map(|(axes, raw)| Figures { axes, raw })
}

/// Tokens: a part of what there is, or all of it.
fn part() -> impl Strategy<Value = Figures> {
    (25..30_u16, 0..4_u16)
        .prop_map(|(class, rest)| Figures { axes: 1, raw: [class + 32 * rest; 6] })
}

fn any_wait() -> impl Strategy<Value = Op> {
    (any::<u8>(), part()).prop_map(|(pool, amount)| Op::Wait { pool, amount, poll: true })
}

/// Pools of which all is taken, sometimes for some tens of milliseconds, and those who wait for it.
fn crowd() -> impl Strategy<Value = Vec<Op>> {
    let amount = Figures { axes: 1, raw: [18 + 32; 6] };
    let for_good = any::<u8>().prop_map(move |pool| Op::Reserve { pool, amount });
    let held_for = move |(pool, ttl)| Op::ReserveFor { pool, amount, ttl, many: 0, forget: false };
    let for_now = (any::<u8>(), prop::sample::select(vec![SOON, LATER])).prop_map(held_for);
    let holds = prop::collection::vec(prop_oneof![2 => for_good, 1 => for_now], 1..5);
    (holds, prop::collection::vec(any_wait(), 2..9))
        .prop_map(|(holds, waits)| [holds, waits].concat())
}

/// Leases of a part of what there is, and perhaps a crowd that waits for the rest: then they are
/// not refilled.
fn shares() -> impl Strategy<Value = Vec<Op>> {
    let lease = (any::<u8>(), part()).prop_map(|(pool, batch)| Op::Lease { pool, batch });
    let waits = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any_wait(), 1..5)];
    (prop::collection::vec(lease, 1..5), waits).prop_map(|(leases, waits)| [leases, waits].concat())
}

/// Many little holds that expire at one instant, mostly of a guard that is forgotten.
fn little_holds() -> impl Strategy<Value = Op> {
    let ttl = prop::sample::select(vec![SOON, LATER, LATER + 16, LATER + 32]);
    (any::<u8>(), 0..4_u16, ttl, 3..12_u8, prop::bool::weighted(0.7)).prop_map(
        |(pool, units, ttl, many, forget)| {
            let amount = tokens(units);
            Op::ReserveFor { pool, amount, ttl, many, forget }
        },
    )
}

/// A root, which often has no cap, and pools below that have one: what waits in one of them does
/// not wait for the others.
fn branches() -> impl Strategy<Value = Vec<Op>> {
    let capped = |by| {
        move |mut op| {
            if let Op::Child { caps, .. } = &mut op {
                caps.axes = caps.axes & !1 | by;
            }
            op
        }
    };
    let root = prop_oneof![
        child(Much::Crowds).prop_map(capped(0)),
        child(Much::Crowds).prop_map(capped(1))
    ];
    let below = child(Much::Crowds).prop_map(capped(1));
    (root, prop::collection::vec(below, 2..6))
        .prop_map(|(root, below)| [vec![root], below].concat())
}

/// One that waits for a pool of which all is taken for good.
fn busy() -> impl Strategy<Value = Vec<Op>> {
    let amount = Figures { axes: 1, raw: [18 + 32; 6] };
    (any::<u8>(), part()).prop_map(move |(pool, part)| {
        vec![Op::Reserve { pool, amount }, Op::Wait { pool, amount: part, poll: true }]
    })
}

/// Pools in some of which more will have expired than one call reclaims, beside those who wait, for
/// that or elsewhere. Some of it settles when it expires.
fn crowds() -> impl Strategy<Value = Vec<Op>> {
    let elsewhere = prop_oneof![1 => Just(Vec::new()), 2 => busy()];
    let for_good = (any::<u8>(), part()).prop_map(|(pool, amount)| Op::Reserve { pool, amount });
    let settling = any::<u8>().prop_map(|hold| Op::CommitOnDrop { hold });
    let holds = prop_oneof![4 => little_holds(), 1 => for_good, 1 => settling];
    let holds = prop::collection::vec(holds, 3..10);
    let waits = prop_oneof![Just(Vec::new()), prop::collection::vec(any_wait(), 1..6)];
    (elsewhere, holds, waits).prop_map(|(busy, holds, waits)| [busy, holds, waits].concat())
}

fn figures_of(much: Much) -> BoxedStrategy<Figures> {
    match much {
        Much::Waiting | Much::Crowds => narrow_figures().boxed(),
        Much::Leases => prop_oneof![2 => narrow_figures(), 1 => any_figures()].boxed(),
        Much::Money | Much::Deadlines | Much::Time => any_figures().boxed(),
    }
}

/// What a sequence of calls has much to do with.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Much {
    /// Balances.
    Money,
    /// Deadlines: much is late then, and so refused.
    Deadlines,
    /// Windows, holds with a TTL and keys.
    Time,
    /// Leases, sometimes in time.
    Leases,
    /// Queues of several, in a few pools, sometimes in time.
    Waiting,
    /// Holds of which many expire at once, in some pools, and what goes on in others meanwhile.
    Crowds,
}

fn deadline(much: Much) -> impl Strategy<Value = u8> {
    let without = match much {
        Much::Deadlines => 1,
        Much::Waiting => 3,
        Much::Money | Much::Time | Much::Leases | Much::Crowds => 12,
    };
    prop_oneof![without => Just(1), 1 => any::<u8>().prop_map(|raw| raw & !7)]
}

fn window(much: Much) -> impl Strategy<Value = u32> {
    let without = match much {
        Much::Time => 1,
        Much::Leases => 2,
        Much::Waiting | Much::Crowds => 5,
        Much::Money | Much::Deadlines => 12,
    };
    prop_oneof![without => Just(0), 2 => any::<u32>().prop_map(|raw| raw | 1)]
}

fn child(much: Much) -> impl Strategy<Value = Op> {
    (any::<(u8, bool, bool, u8)>(), figures_of(much), deadline(much), window(much)).prop_map(
        move |((pool, carved, also, keys), caps, deadline, window)| {
            // One with a window is refused.
            let carved = carved && (also || much != Much::Time);
            Op::Child { pool, carved, caps, deadline, window, keys }
        },
    )
}

fn op(much: Much) -> impl Strategy<Value = Op> {
    let passes = match much {
        Much::Money => 1,
        Much::Leases => 8,
        Much::Deadlines | Much::Time => 10,
        Much::Waiting => 14,
        Much::Crowds => 20,
    };
    let waiting = match much {
        Much::Waiting => 8,
        Much::Leases | Much::Crowds => 2,
        Much::Money | Much::Deadlines | Much::Time => 1,
    };
    let (amount, caps) = (|| figures_of(much), || figures_of(much));
    let timed = match much {
        Much::Time => 6,
        Much::Waiting => 3,
        Much::Money | Much::Deadlines | Much::Leases | Much::Crowds => 1,
    };
    let crowded = if much == Much::Crowds { 20 } else { 1 };
    let leased = match much {
        Much::Leases => 6,
        Much::Waiting => 2,
        Much::Money | Much::Deadlines | Much::Time | Much::Crowds => 1,
    };
    let at = any::<u8>;
    let of_leases = prop_oneof![
        8 => (at(), amount()).prop_map(|(pool, batch)| Op::Lease { pool, batch }),
        16 => (at(), amount(), any::<bool>())
            .prop_map(|(lease, amount, beyond)| Op::LeaseRecord { lease, amount, beyond }),
        6 => (at(), amount(), any::<bool>())
            .prop_map(|(lease, amount, beyond)| Op::LeaseDebit { lease, amount, beyond }),
        3 => at().prop_map(|lease| Op::LeaseSettle { lease }),
        4 => at().prop_map(|lease| Op::DropLease { lease }),
        1 => at().prop_map(|lease| Op::ForgetLease { lease }),
    ];
    let of_waits = prop_oneof![
        8 => (at(), prop_oneof![amount(), part()], prop::bool::weighted(0.8))
            .prop_map(|(pool, amount, poll)| Op::Wait { pool, amount, poll }),
        7 => (at(), any::<bool>()).prop_map(|(wait, anew)| Op::Poll { wait, anew }),
        2 => at().prop_map(|wait| Op::DropWait { wait }),
        1 => at().prop_map(|pool| Op::Closed { pool }),
    ];
    let holds_in_time = (at(), amount(), at(), at(), any::<bool>());
    let in_time = prop_oneof![
        3 => holds_in_time.prop_map(|(pool, amount, ttl, many, forget)| {
            // Mostly one that is kept, or so many little ones that they are not all reclaimed at once.
            let (many, forget) = (many.saturating_sub(160), forget && many % 4 == 0);
            let raw = if many % 12 > 4 { [3; 6] } else { amount.raw };
            Op::ReserveFor { pool, amount: Figures { raw, ..amount }, ttl, many, forget }
        }),
        4 => (at(), at(), amount(), any::<bool>())
            .prop_map(|(pool, key, amount, retry)| Op::RecordOnce { pool, key, amount, retry }),
        1 => (at(), at()).prop_map(|(hold, ttl)| Op::Renew { hold, ttl }),
    ];
    prop_oneof![
        10 => child(much),
        1 => at().prop_map(|pool| Op::Clone { pool }),
        4 => at().prop_map(|pool| Op::Drop { pool }),
        10 => (at(), amount()).prop_map(|(pool, amount)| Op::Record { pool, amount }),
        2 => (at(), amount()).prop_map(|(pool, amount)| Op::Peek { pool, amount }),
        7 => (at(), amount()).prop_map(|(pool, amount)| Op::Debit { pool, amount }),
        18 => (at(), amount()).prop_map(|(pool, amount)| Op::Reserve { pool, amount }),
        3 => at().prop_map(|pool| Op::Reset { pool }),
        5 => (at(), caps()).prop_map(|(pool, caps)| Op::RaiseCaps { pool, caps }),
        2 + waiting => (at(), caps()).prop_map(|(pool, caps)| Op::LowerCaps { pool, caps }),
        3 => at().prop_map(|pool| Op::Close { pool }),
        2 => (at(), any::<u8>()).prop_map(|(hold, label)| Op::Label { hold, label }),
        2 => at().prop_map(|hold| Op::CommitOnDrop { hold }),
        6 => (at(), amount()).prop_map(|(hold, actual)| Op::Commit { hold, actual }),
        1 => at().prop_map(|hold| Op::CommitAll { hold }),
        3 => (at(), amount()).prop_map(|(hold, total)| Op::CommitTotal { hold, total }),
        4 => (at(), amount(), any::<bool>())
            .prop_map(|(hold, actual, take_back)| Op::TryCommit { hold, actual, take_back }),
        waiting => at().prop_map(|hold| Op::Release { hold }),
        3 => at().prop_map(|hold| Op::DropHold { hold }),
        1 => at().prop_map(|hold| Op::Forget { hold }),
        5 => (at(), amount()).prop_map(|(hold, part)| Op::RecordPart { hold, part }),
        5 => (at(), amount()).prop_map(|(hold, part)| Op::DebitPart { hold, part }),
        4 => (at(), amount()).prop_map(|(hold, extra)| Op::Grow { hold, extra }),
        3 => (at(), amount()).prop_map(|(hold, by)| Op::Shrink { hold, by }),
        4 => (at(), amount()).prop_map(|(hold, part)| Op::Split { hold, part }),
        timed * 3 => in_time,
        crowded => little_holds(),
        leased * 12 => of_leases,
        waiting * 8 => of_waits,
        passes => any::<u32>().prop_map(|by| Op::Advance { by }),
    ]
}

/// Pools, what happens in them, and towards the end perhaps the loss of the root's own handles.
fn ops(much: Much) -> impl Strategy<Value = Vec<Op>> {
    let later = prop_oneof![60 => op(much), 1 => Just(Op::DropRoot)];
    let begin = match much {
        Much::Waiting => (prop::collection::vec(child(much), 1..5), crowd()).boxed(),
        Much::Leases => (prop::collection::vec(child(much), 1..5), shares()).boxed(),
        Much::Crowds => (branches(), crowds()).boxed(),
        _ => child(much).prop_map(|root| (vec![root], Vec::new())).boxed(),
    };
    (begin, prop::collection::vec(op(much), 0..30), prop::collection::vec(later, 0..30))
        .prop_map(|((pools, crowd), first, then)| [pools, crowd, first, then].concat())
}

/// Hundreds of histories, or as many as `PROPTEST_CASES` says. Of these not a few must come to what
/// they are about.
fn compare_many(much: Much, meets: &[&str]) {
    let mut config = ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Default::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 300;
    }
    let (cases, met) = (config.cases, RefCell::new(BTreeMap::<&str, u32>::new()));
    let outcome = TestRunner::new(config).run(&ops(much), |ops| {
        for what in model::compare(&ops).map_err(TestCaseError::fail)? {
            *met.borrow_mut().entry(what).or_default() += 1;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|difference| panic!("{difference}"));
    // A history that goes nowhere is like any model.
    let met = met.into_inner();
    let seldom: Vec<_> = meets
        .iter()
        .filter(|what| met.get(**what).is_none_or(|times| *times < cases / 100))
        .collect();
    assert!(cases < 300 || seldom.is_empty(), "{cases} histories, but seldom {seldom:?}: {met:?}");
}

#[test]
fn balances_are_those_of_the_model() {
    compare_many(Much::Money, &["exceeded until a release", "exceeded for ever", "closed"]);
}

#[test]
fn deadlines_are_those_of_the_model() {
    compare_many(Much::Deadlines, &["late"]);
}

#[test]
fn what_time_does_is_what_it_does_to_the_model() {
    let meets =
        ["exceeded until an instant", "expired", "another amount for a key", "too many keys"];
    compare_many(Much::Time, &meets);
}

#[test]
fn leases_are_those_of_the_model() {
    compare_many(Much::Leases, &["exceeded until a release", "exceeded for ever", "queued"]);
}

#[test]
fn who_waits_is_who_waits_in_the_model() {
    compare_many(Much::Waiting, &["queued", "granted after a wait", "refused after a wait"]);
}

#[test]
fn what_expires_in_crowds_is_what_expires_in_the_model() {
    let company = [
        "a crowd expires where one waits",
        "a crowd expires while one waits elsewhere",
        "a crowd expires beside a window",
    ];
    compare_many(Much::Crowds, &company);
}

// Sequences that proptest seldom finds.

const NOTHING: Figures = Figures { axes: 0, raw: [0; 6] };

fn plain_child(caps: Figures, deadline: u8) -> Op {
    Op::Child { pool: 0, carved: false, caps, deadline, window: 0, keys: 0 }
}

#[test]
fn of_two_deadlines_at_one_instant_the_outermost_is_named() {
    let (two_units, one_unit) = (8, 0);
    model::run(&[
        plain_child(NOTHING, two_units),
        Op::Advance { by: 1 },
        plain_child(NOTHING, one_unit),
        Op::Advance { by: 1 },
        Op::Peek { pool: 1, amount: NOTHING },
    ]);
}

#[test]
fn a_refused_remove_has_the_worst_outlook_of_all_axes() {
    let on = |axes, raw| Figures { axes, raw };
    // 8 tokens, all of them held: less of them may come. No output tokens: less of them never does.
    model::run(&[
        plain_child(on(0b101, [1, 0, 0, 0, 0, 0]), 1),
        Op::Reserve { pool: 0, amount: on(0b001, [50, 0, 0, 0, 0, 0]) },
        Op::LowerCaps { pool: 0, caps: on(0b101, [1; 6]) },
    ]);
}

/// So many tokens, less than 64.
fn tokens(units: u16) -> Figures {
    Figures { axes: 1, raw: [11 + 32 * units; 6] }
}

/// A cap of so many tokens, from 8 to 63.
fn token_cap(units: u16) -> Figures {
    Figures { axes: 1, raw: [1 + 32 * (units - 8); 6] }
}

/// A TTL of 10 ms, and one of 20.
const SOON: u8 = 10;
const LATER: u8 = 10 + 16;
/// 20 ms pass.
const PASS: Op = Op::Advance { by: 2 << 8 | 13 };
/// A root that is looked at in the end.
const SELDOM: u8 = 1;

fn hold_for(units: u16, ttl: u8, many: u8) -> Op {
    Op::ReserveFor { pool: 0, amount: tokens(units), ttl, many: many - 1, forget: false }
}

fn owing(caps: Figures, debit: u16) -> [Op; 5] {
    [
        Op::Child { pool: SELDOM, carved: false, caps, deadline: 1, window: 0, keys: 0 },
        hold_for(40, LATER, 1),
        hold_for(1, SOON, 12),
        Op::Debit { pool: 0, amount: tokens(debit) },
        PASS,
    ]
}

/// The rest of what has expired pays what is owed first, as it would have in its time.
#[test]
fn p2_a_late_commit_owes_what_it_would_if_all_had_been_reclaimed_in_time() {
    let late = Op::Commit { hold: 0, actual: tokens(40) };
    model::run(&[&owing(token_cap(60), 30)[..], &[late]].concat());
}

#[test]
fn p2_a_late_debit_owes_what_it_would_if_all_had_been_reclaimed_in_time() {
    let late = Op::DebitPart { hold: 0, part: tokens(40) };
    model::run(&[&owing(token_cap(60), 30)[..], &[late]].concat());
}
/// A pool with a window that turns every 10 ms, below a root with a hold that makes it read the
/// clock, and a share carved out of the pool. Then time passes, which only the root sees.
fn share_of_a_window() -> [Op; 5] {
    let child =
        |pool, carved, caps, window| Op::Child { pool, carved, caps, deadline: 1, window, keys: 0 };
    let every_10_ms = 1 | 10 << 2 | 7 << 6;
    [
        child(SELDOM, false, NOTHING, 0),
        child(0, false, token_cap(60), every_10_ms),
        child(1, true, token_cap(20), 0),
        Op::ReserveFor { pool: 0, amount: NOTHING, ttl: 3, many: 0, forget: false },
        PASS,
    ]
}

#[test]
fn p8_what_a_close_returns_it_returns_at_the_latest_instant_seen() {
    let seen = Op::Record { pool: 0, amount: NOTHING };
    for close in [Op::Close { pool: 2 }, Op::Drop { pool: 2 }] {
        // All is looked at after the seventh step.
        model::run(
            &[&share_of_a_window()[..], &[seen.clone(), close, seen.clone(), seen.clone()]]
                .concat(),
        );
    }
}

/// A wait that is dropped gives back what it was granted: at the latest instant seen, when its
/// pool's period had begun.
#[test]
fn p8_what_a_wait_gives_back_it_gives_back_at_the_latest_instant_seen() {
    let child =
        |pool, caps, window| Op::Child { pool, carved: false, caps, deadline: 1, window, keys: 0 };
    let every_10_ms = 1 | 10 << 2 | 7 << 6;
    model::run(&[
        child(SELDOM, NOTHING, 0),
        child(0, token_cap(60), every_10_ms),
        Op::ReserveFor { pool: 0, amount: NOTHING, ttl: 3, many: 0, forget: false },
        Op::Reserve { pool: 1, amount: tokens(60) },
        Op::Wait { pool: 1, amount: tokens(20), poll: true },
        Op::Release { hold: 1 },
        PASS,
        Op::Record { pool: 0, amount: NOTHING },
        // All is looked at after this one.
        Op::DropWait { wait: 0 },
    ]);
}

/// What settles when it expires does so in its period, however much has expired before it.
#[test]
fn p2_what_expired_before_a_turn_is_spent_before_it() {
    let every_30_ms = 1 | 10 << 2 | 7 << 6 | 2 << 16;
    model::run(&[
        Op::Child {
            pool: SELDOM,
            carved: false,
            caps: token_cap(60),
            deadline: 1,
            window: every_30_ms,
            keys: 0,
        },
        hold_for(4, LATER, 1),
        Op::CommitOnDrop { hold: 0 },
        hold_for(1, SOON, 12),
        PASS,
        PASS,
        Op::Record { pool: 0, amount: NOTHING },
    ]);
}

#[test]
fn p4_all_that_expires_at_an_instant_is_free_at_it() {
    model::run(&[
        Op::Child {
            pool: SELDOM,
            carved: false,
            caps: token_cap(12),
            deadline: 1,
            window: 0,
            keys: 0,
        },
        hold_for(1, LATER, 12),
        PASS,
        Op::Record { pool: 0, amount: tokens(12) },
    ]);
}

fn lease_of(units: u16) -> Op {
    Op::Lease { pool: 0, batch: tokens(units) }
}

/// What a lease spends by itself is of the period in which the pool learns of it, by whatever call.
#[test]
fn what_a_lease_spent_before_a_turn_settles_into_the_new_period() {
    let every_10_ms = 1 | 10 << 2 | 7 << 6;
    let record = |units| Op::LeaseRecord { lease: 0, amount: tokens(units), beyond: false };
    let debit = Op::LeaseDebit { lease: 0, amount: tokens(30), beyond: false };
    for tells in
        [Op::LeaseSettle { lease: 0 }, record(30), record(63), debit, Op::DropLease { lease: 0 }]
    {
        model::run(&[
            Op::Child {
                pool: 0,
                carved: false,
                caps: token_cap(60),
                deadline: 1,
                window: every_10_ms,
                keys: 0,
            },
            lease_of(20),
            record(5),
            PASS,
            tells,
        ]);
    }
}

#[test]
fn p2_a_debit_beyond_a_lease_owes_what_it_would_if_all_had_been_reclaimed_in_time() {
    let debit = Op::LeaseDebit { lease: 0, amount: tokens(30), beyond: false };
    let root = Op::Child {
        pool: SELDOM,
        carved: false,
        caps: token_cap(40),
        deadline: 1,
        window: 0,
        keys: 0,
    };
    model::run(&[root, lease_of(8), hold_for(2, SOON, 12), PASS, debit]);
}

/// More has expired than the record must reclaim. The pool is looked at before it: else it would be
/// refilled less.
#[test]
fn a_lease_is_refilled_up_to_an_eighth_of_what_is_free() {
    let root = Op::Child {
        pool: SELDOM,
        carved: false,
        caps: token_cap(60),
        deadline: 1,
        window: 0,
        keys: 0,
    };
    let record = Op::LeaseRecord { lease: 0, amount: tokens(10), beyond: false };
    model::run(&[root, lease_of(8), hold_for(2, SOON, 12), PASS, record]);
}

/// Spends one token for a key, again if it is known.
fn once(key: u8) -> Op {
    Op::RecordOnce { pool: 0, key, amount: tokens(1), retry: false }
}

/// Six keys, each for 20 ms.
fn with_keys(ops: &[Op]) {
    let root = Op::Child {
        pool: SELDOM,
        carved: false,
        caps: token_cap(60),
        deadline: 1,
        window: 0,
        keys: 13 + 16,
    };
    model::run(&[&[root], ops].concat());
}

#[test]
fn a_key_is_forgotten_at_the_end_of_its_time() {
    with_keys(&[once(0), PASS, once(0)]);
}

/// Of five keys whose time is over a call forgets four; the fifth comes again before it is.
#[test]
fn a_key_that_comes_again_is_known_for_its_whole_time() {
    with_keys(&[once(0), once(1), once(2), once(3), once(4), PASS, once(4), once(5), once(4)]);
}

fn wait(pool: u8, units: u16) -> Op {
    Op::Wait { pool, amount: tokens(units), poll: true }
}

/// 60 tokens, and a pool below with a deadline after 20 ms.
fn pool_with_a_deadline() -> [Op; 2] {
    [plain_child(token_cap(60), 1), plain_child(NOTHING, 8)]
}

#[test]
fn p6_at_a_deadline_those_behind_the_one_that_is_told_are_served() {
    let see = Op::Record { pool: 1, amount: NOTHING };
    let reserve = Op::Reserve { pool: 0, amount: tokens(50) };
    model::run(
        &[&pool_with_a_deadline()[..], &[reserve, wait(1, 30), wait(0, 10), PASS, see]].concat(),
    );
}

/// The younger has the place of one that is gone: that makes it no older.
#[test]
fn p6_of_two_holds_that_expire_at_one_instant_the_older_is_reclaimed_first() {
    let hold_in =
        |pool| Op::ReserveFor { pool, amount: tokens(10), ttl: SOON, many: 0, forget: false };
    model::run(&[
        plain_child(token_cap(20), 1),
        plain_child(token_cap(15), 1),
        plain_child(NOTHING, 1),
        Op::Reserve { pool: 0, amount: tokens(1) },
        hold_in(1),
        Op::Release { hold: 0 },
        hold_in(2),
        wait(1, 15),
        wait(2, 10),
        PASS,
        Op::Record { pool: 0, amount: NOTHING },
    ]);
}

/// A hold is given a time, which is over at once, and two are reminded of it: the look of one ends
/// it.
#[test]
fn what_two_are_reminded_of_may_be_over_when_the_second_looks() {
    let carved =
        Op::Child { pool: 0, carved: true, caps: token_cap(60), deadline: 1, window: 0, keys: 0 };
    let reserve = Op::Reserve { pool: 1, amount: tokens(60) };
    let at_once = Op::Renew { hold: 0, ttl: 0 };
    model::run(&[
        plain_child(token_cap(60), 1),
        carved,
        reserve,
        wait(0, 10),
        wait(1, 10),
        at_once,
    ]);
}

#[test]
fn at_a_deadline_it_is_told_before_what_has_expired_is_served() {
    let see = Op::Record { pool: 1, amount: NOTHING };
    model::run(
        &[&pool_with_a_deadline()[..], &[hold_for(60, SOON, 1), wait(1, 30), PASS, see]].concat(),
    );
}

/// All that can be counted of what has no cap is taken, and comes back, while another waits there
/// for something else.
#[test]
fn p6_one_that_waits_for_what_has_no_cap_waits_its_turn() {
    let carved = |caps| Op::Child { pool: 0, carved: true, caps, deadline: 1, window: 0, keys: 0 };
    let all_slots = Figures { axes: 1 << 5, raw: [0, 0, 0, 0, 0, 14495] };
    let wait = |pool, amount| Op::Wait { pool, amount, poll: true };
    let see = Op::Record { pool: 1, amount: NOTHING };
    let pools = [plain_child(token_cap(60), 1), carved(all_slots), carved(token_cap(20))];
    model::run(
        &[&pools[..], &[wait(0, tokens(60)), wait(2, NOTHING), Op::Drop { pool: 1 }, see]].concat(),
    );
}

#[test]
fn p6_each_fact_tells_those_whom_it_leaves_nothing() {
    let reserve = Op::Reserve { pool: 0, amount: tokens(60) };
    let debit = |units| Op::Debit { pool: 0, amount: tokens(units) };
    let root = plain_child(token_cap(60), 1);
    model::run(&[
        root,
        reserve,
        wait(0, 50),
        wait(0, 30),
        wait(0, 10),
        debit(20),
        debit(15),
        debit(20),
    ]);
}

#[test]
fn p6_a_lease_that_settles_tells_those_whom_it_leaves_nothing() {
    let record = Op::LeaseRecord { lease: 0, amount: tokens(10), beyond: false };
    model::run(&[
        plain_child(token_cap(60), 1),
        lease_of(20),
        record,
        wait(0, 60),
        Op::LeaseSettle { lease: 0 },
    ]);
}

#[test]
fn a_lease_is_refilled_while_others_wait_for_something_else() {
    let record = Op::LeaseRecord { lease: 0, amount: tokens(10), beyond: false };
    let reserve = Op::Reserve { pool: 1, amount: tokens(10) };
    let pools = [plain_child(token_cap(60), 1), plain_child(token_cap(10), 1)];
    model::run(&[&pools[..], &[reserve, wait(1, 5), lease_of(8), record]].concat());
}
