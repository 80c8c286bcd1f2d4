//! P1 to P8 on any sequence of calls: a whole tree of pools against a naive model of it.

mod any_history;
#[path = "../support/model.rs"]
mod model;
mod told_histories;

use std::cell::RefCell;
use std::collections::BTreeMap;

use model::asks::Choice;
use model::language::{Asked, Build, Figures, Op};
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

/// How many axes are counted.
const LANES: usize = 10;

/// The axes of which a call names few, those more often that have much to do with each other.
const OFTEN: [u16; 14] = [0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6, 9];

fn figures() -> impl Strategy<Value = Figures> {
    let axes = prop_oneof![2 => 0..64_u16, 1 => 0..1_u16 << LANES];
    (axes, any::<[u16; LANES]>()).prop_map(|(axes, raw)| Figures { axes, raw })
}

/// Fewer axes, so that less of what is asked is refused.
fn few_figures() -> impl Strategy<Value = Figures> {
    let axis = || prop::sample::select(OFTEN.as_slice());
    (axis(), axis(), figures())
        .prop_map(|(some, other, figures)| Figures { axes: 1 << some | 1 << other, ..figures })
}

fn any_figures() -> impl Strategy<Value = Figures> {
    prop_oneof![3 => few_figures(), 2 => figures()]
}

/// Tokens, and now and then requests or in flight: so few axes that most that is asked is asked of
/// the same.
fn narrow_figures() -> impl Strategy<Value = Figures> {
    let axes = prop_oneof![5 => Just(1), 1 => Just(0b001_000), 1 => Just(0b001_001), 1 => Just(0b100_001),
        1 => Just(0b1_000_001), 1 => Just(0)];
    (axes, any::<[u16; LANES]>()).prop_map(|(axes, raw)| Figures { axes, raw })
}

/// Tokens: a part of what there is, or all of it.
fn part() -> impl Strategy<Value = Figures> {
    (25..30_u16, 0..4_u16)
        .prop_map(|(class, rest)| Figures { axes: 1, raw: [class + 32 * rest; LANES] })
}

fn any_wait() -> impl Strategy<Value = Op> {
    (any::<u8>(), part()).prop_map(|(pool, amount)| Op::Wait { pool, amount, poll: true })
}

/// Pools of which all is taken, sometimes for some tens of milliseconds, and those who wait for it.
fn crowd() -> impl Strategy<Value = Vec<Op>> {
    let amount = Figures { axes: 1, raw: [18 + 32; LANES] };
    let for_good = any::<u8>().prop_map(move |pool| Op::Reserve { pool, amount });
    let held_for = move |(pool, ttl)| Op::ReserveFor { pool, amount, ttl, many: 0, forget: false };
    let for_now = (any::<u8>(), prop::sample::select(vec![SOON, LATER])).prop_map(held_for);
    let holds = prop::collection::vec(prop_oneof![2 => for_good, 1 => for_now], 1..5);
    (holds, prop::collection::vec(any_wait(), 2..9))
        .prop_map(|(holds, waits)| [holds, waits].concat())
}

/// Leases of a part of what there is, which a first record fills, and perhaps a crowd that waits for
/// the rest: then they are not refilled.
fn shares() -> impl Strategy<Value = Vec<Op>> {
    let lease = (any::<u8>(), part(), 0..4_u16).prop_map(|(pool, batch, units)| {
        let first = Op::LeaseRecord { lease: u8::MAX, amount: tokens(units), beyond: false };
        [Op::Lease { pool, batch }, first]
    });
    let waits = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(any_wait(), 1..5)];
    (prop::collection::vec(lease, 1..5), waits)
        .prop_map(|(leases, waits)| [leases.concat(), waits].concat())
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
            if let Op::Child { build, .. } = &mut op {
                build.caps.axes = build.caps.axes & !1 | by;
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
    let amount = Figures { axes: 1, raw: [18 + 32; LANES] };
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

/// A root of some tens of tokens, pages or both, and pools below it of which most are carved.
fn carved_pools(much: Much) -> impl Strategy<Value = Vec<Op>> {
    let some = |least: u16, most: u16| {
        (prop::sample::select(vec![1, 1, 0b1_000_001, 0b100_001]), least..most)
            .prop_map(|(axes, units)| Figures { axes, raw: [1 + 32 * (units - 8); LANES] })
    };
    let with = move |caps: BoxedStrategy<Figures>| {
        (child(much), caps, prop::bool::weighted(0.7)).prop_map(|(mut op, caps, carved)| {
            if let Op::Child { pool, build } = &mut op {
                *pool %= 4;
                build.caps = caps;
                // One with a window or with a balance cannot be carved.
                if carved {
                    *build = Build { carved, window: 0, used: None, ..*build };
                }
            }
            op
        })
    };
    let root = (child(much), some(50, 64)).prop_map(|(mut op, caps)| {
        if let Op::Child { build, .. } = &mut op {
            build.caps = caps;
        }
        op
    });
    (root, prop::collection::vec(with(some(8, 20).boxed()), 2..5))
        .prop_map(|(root, below)| [vec![root], below].concat())
}

/// A root, three pools below it, two joint pools below some of these, and three shares of the joint
/// pools, so that the ways above two shares part and meet again; and caps that move between them.
fn joint_pools() -> impl Strategy<Value = Vec<Op>> {
    const PLAIN_POOLS: usize = 3;
    const JOINT_POOLS: usize = 2;
    const SHARES: usize = 3;
    let tokens = |least: u16, most: u16| {
        (least..most).prop_map(|units| Figures { axes: 1, raw: [1 + 32 * (units - 8); LANES] })
    };
    let with = |op: BoxedStrategy<Op>, below: BoxedStrategy<u8>, caps: BoxedStrategy<Figures>| {
        (op, below, caps).prop_map(|(mut op, below, caps)| {
            if let Op::Child { pool, build } | Op::Joint { pool, build, .. } = &mut op {
                (*pool, build.caps, build.carved) = (below, caps, false);
            }
            op
        })
    };
    let carved = |mut op| {
        if let Op::Child { build, .. } = &mut op {
            *build = Build { carved: true, window: 0, used: None, ..*build };
        }
        op
    };
    let unlimited = || prop_oneof![2 => Just(NOTHING), 1 => tokens(50, 64)].boxed();
    let child = || child(Much::Joints).boxed();
    let root = with(child(), any::<u8>().boxed(), unlimited());
    let plain = with(child(), Just(0).boxed(), tokens(30, 64).boxed());
    let first = 1..=PLAIN_POOLS as u8;
    let joint = with(joint(Much::Joints).boxed(), first.boxed(), unlimited());
    let first = 1 + PLAIN_POOLS as u8;
    let shares = first..first + JOINT_POOLS as u8;
    let share = with(child(), shares.boxed(), tokens(8, 16).boxed()).prop_map(carved);
    let first = first + JOINT_POOLS as u8;
    let one = move || first..first + SHARES as u8;
    let few = || (1..8_u16).prop_map(|units| Figures { axes: 1, raw: [5 + 32 * units; LANES] });
    let moves = prop_oneof![
        2 => (one(), one(), few()).prop_map(|(pool, to, caps)| Op::Transfer { pool, to, caps }),
        1 => (any::<u8>(), few()).prop_map(|(pool, amount)| Op::Debit { pool, amount }),
    ];
    let plain = prop::collection::vec(plain, PLAIN_POOLS);
    let joints = prop::collection::vec(joint, JOINT_POOLS);
    let shares = prop::collection::vec(share, SHARES);
    let moves = prop::collection::vec(moves, 0..6);
    (root, plain, joints, shares, moves).prop_map(|(root, plain, joints, shares, moves)| {
        [vec![root], plain, joints, shares, moves].concat()
    })
}

/// Pools that may be funded, and those who wait for that.
fn unfunded() -> impl Strategy<Value = Vec<Op>> {
    let ceiling = Figures { axes: 1, raw: [18 + 32; LANES] };
    let fund = (any::<u8>()).prop_map(move |pool| Op::SetCeiling { pool, caps: ceiling });
    let wait = (any::<u8>(), 12..60_u16).prop_map(|(pool, units)| wait(pool, units));
    let step = prop_oneof![fund, wait];
    prop_oneof![1 => Just(Vec::new()), 2 => prop::collection::vec(step, 2..8)]
}

fn figures_of(much: Much) -> BoxedStrategy<Figures> {
    match much {
        Much::Waiting | Much::Crowds => narrow_figures().boxed(),
        Much::Leases | Much::Asks => prop_oneof![2 => narrow_figures(), 1 => any_figures()].boxed(),
        Much::Caps | Much::Settling | Much::Joints | Much::Watches => {
            prop_oneof![3 => narrow_figures(), 1 => any_figures()].boxed()
        }
        Much::Money | Much::Deadlines | Much::Time | Much::Tenants => any_figures().boxed(),
    }
}

/// A part of an amount, mostly: so much would be enough.
fn enough(much: Much) -> impl Strategy<Value = Figures> {
    let class = prop::sample::select(vec![0_u16, 3, 5, 11, 25, 26, 27, 28, 29]);
    let part = (class, 0..16_u16).prop_map(|(class, rest)| class + 32 * rest);
    let parts = prop::collection::vec(part, LANES);
    (figures_of(much), parts, prop::bool::weighted(0.8)).prop_map(|(figures, parts, is_part)| {
        let raw = if is_part { parts.try_into().expect("one a lane") } else { figures.raw };
        Figures { raw, ..figures }
    })
}

fn choice(much: Much) -> impl Strategy<Value = Choice> {
    let most = prop_oneof![3 => figures_of(much), 2 => part()];
    let least = prop::option::weighted(0.5, enough(much));
    let any = (most, least).prop_map(|(most, least)| Choice { most, least });
    prop_oneof![5 => any, 1 => family()]
}

/// Input, output and perhaps a total, of some tens of tokens, of which less would be enough.
fn family() -> impl Strategy<Value = Choice> {
    let some = |most: u16| {
        prop::collection::vec(0..most, LANES).prop_map(|units| {
            let raw: Vec<u16> = units.into_iter().map(|units| 11 + 32 * units).collect();
            raw.try_into().expect("one a lane")
        })
    };
    let axes = prop::sample::select(vec![0b110_u16, 0b110, 0b111]);
    let most = (axes, some(40)).prop_map(|(axes, raw)| Figures { axes, raw });
    let axes = prop::sample::select(vec![0b001_u16, 0b010, 0b100, 0b110, 0b111]);
    let least = (axes, some(16)).prop_map(|(axes, raw)| Figures { axes, raw });
    (most, least).prop_map(|(most, least)| Choice { most, least: Some(least) })
}

/// An ask by more than an amount: what may be cut, what would do instead, and on which terms.
fn asked(much: Much) -> impl Strategy<Value = Asked> {
    let other = || prop::option::weighted(0.4, choice(much));
    let first = (choice(much), prop::option::weighted(0.5, enough(much)))
        .prop_map(|(choice, least)| Choice { least: choice.least.or(least), ..choice });
    let some = |weight| prop::option::weighted(weight, any::<u8>());
    let on_drop = prop::option::weighted(0.2, any::<bool>());
    (first, [other(), other()], some(0.2), some(0.2), on_drop, some(0.5)).prop_map(
        |(first, others, ttl, label, on_drop, at_most)| Asked {
            first,
            others,
            ttl,
            label,
            on_drop,
            at_most,
        },
    )
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
    /// Asks by more than an amount, now and in line, in time.
    Asks,
    /// Caps that move, ceilings, and those who wait for it.
    Caps,
    /// What was metered and what is taken back, in carved pools, sometimes in time.
    Settling,
    /// Joint pools, shares of them, and those who wait in them, sometimes in time.
    Joints,
    /// Holds of which many expire at once, in some pools, and what goes on in others meanwhile.
    Crowds,
    /// Those who watch, and what they are told of.
    Watches,
    /// Pools by key that come and go, in time.
    Tenants,
}

fn deadline(much: Much) -> impl Strategy<Value = u8> {
    let without = match much {
        Much::Deadlines => 1,
        Much::Waiting | Much::Joints => 3,
        _ => 12,
    };
    prop_oneof![without => Just(1), 1 => any::<u8>().prop_map(|raw| raw & !7)]
}

fn window(much: Much) -> impl Strategy<Value = u32> {
    let without = match much {
        Much::Time | Much::Tenants => 1,
        Much::Leases | Much::Settling | Much::Asks => 2,
        Much::Watches => 8,
        Much::Waiting | Much::Crowds | Much::Joints => 5,
        Much::Money | Much::Deadlines | Much::Caps => 12,
    };
    prop_oneof![without => Just(0), 2 => any::<u32>().prop_map(|raw| raw | 1)]
}

fn child(much: Much) -> impl Strategy<Value = Op> {
    let funded = if matches!(much, Much::Caps | Much::Watches) { 0.5 } else { 0.1 };
    let more = (
        prop::option::weighted(0.1, figures_of(much)),
        prop::option::weighted(funded, figures_of(much)),
        prop::option::weighted(0.2, any::<bool>()),
        prop::option::weighted(if much == Much::Watches { 0.5 } else { 0.05 }, figures_of(much)),
        prop::option::weighted(0.1, any::<u8>()),
    );
    let plain = (any::<(u8, bool, bool, u8)>(), figures_of(much), deadline(much), window(much));
    (plain, more).prop_map(
        move |(
            ((pool, carved, also, keys), caps, deadline, window),
            (used, ceiling, on_drop, low, most_waiting),
        )| {
            // One with a window is refused.
            let carved = carved && (also || much != Much::Time);
            let build = Build {
                carved,
                caps,
                deadline,
                window,
                keys,
                used,
                ceiling,
                on_drop,
                low,
                most_waiting,
            };
            Op::Child { pool, build }
        },
    )
}

/// A pool below several; but now and then those that it is given make none.
fn joint(much: Much) -> impl Strategy<Value = Op> {
    (child(much), any::<[u8; 2]>()).prop_map(|(op, others)| match op {
        Op::Child { pool, build } => Op::Joint { pool, others, build },
        _ => unreachable!("a child"),
    })
}

/// Pools by key: what they are like, who keeps them, and when the idle ones go.
fn of_tenants(much: Much) -> impl Strategy<Value = Op> {
    let key = any::<u8>;
    let get =
        (key(), child(much), prop::bool::weighted(0.4)).prop_map(|(key, op, keep)| match op {
            Op::Child { build, .. } => Op::GetOrBuild { key, build, keep },
            _ => unreachable!("a child"),
        });
    prop_oneof![
        2 => any::<u8>().prop_map(|pool| Op::Tenants { pool }),
        20 => get,
        14 => Just(Op::EvictIdle),
        1 => key().prop_map(|key| Op::RemoveTenant { key }),
        3 => Just(Op::SeeTenants),
        1 => Just(Op::DropTenants),
        12 => any::<u8>().prop_map(|pool| Op::Drop { pool }),
    ]
}

fn op(much: Much) -> impl Strategy<Value = Op> {
    let passes = match much {
        Much::Money | Much::Caps => 1,
        Much::Watches => 4,
        Much::Tenants => 30,
        Much::Leases => 8,
        Much::Settling => 14,
        Much::Deadlines | Much::Time | Much::Joints => 10,
        Much::Waiting | Much::Asks => 14,
        Much::Crowds => 20,
    };
    let waiting = match much {
        Much::Waiting | Much::Asks => 8,
        Much::Caps | Much::Joints | Much::Watches => 4,
        Much::Leases | Much::Crowds => 2,
        _ => 1,
    };
    let moving = match much {
        Much::Caps => 4,
        Much::Watches => 2,
        Much::Joints => 3,
        _ => 1,
    };
    let tenants = if much == Much::Tenants { 120 } else { 1 };
    let watching = if much == Much::Watches { 60 } else { 1 };
    let settling = if much == Much::Settling { 3 } else { 1 };
    let (amount, caps) = (|| figures_of(much), || figures_of(much));
    let timed = match much {
        Much::Time => 6,
        Much::Waiting | Much::Asks => 3,
        _ => 1,
    };
    let asking = if much == Much::Asks { 24 } else { 2 };
    let pausing = if much == Much::Deadlines { 9 } else { 1 + timed };
    let running = if much == Much::Deadlines { 12 } else { 2 };
    let crowded = if much == Much::Crowds { 20 } else { 1 };
    let leased = match much {
        Much::Leases => 6,
        Much::Waiting => 2,
        _ => 1,
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
        8 => (at(), prop_oneof![amount(), part()], prop::bool::weighted(0.8))
            .prop_map(|(pool, amount, poll)| Op::WaitToSpend { pool, amount, poll }),
        asking => (at(), asked(much), prop::bool::weighted(0.8))
            .prop_map(|(pool, asked, poll)| Op::WaitOn { pool, asked, poll }),
        7 + asking / 4 => (at(), any::<bool>())
            .prop_map(|(wait, anew)| Op::Poll { wait, anew }),
        2 => at().prop_map(|wait| Op::DropWait { wait }),
        2 + asking / 4 => at().prop_map(|wait| Op::Ring { wait }),
        1 => at().prop_map(|pool| Op::Closed { pool }),
    ];
    let of_runs = prop_oneof![
        3 => (at(), at(), prop::option::of(at()), prop::bool::weighted(0.8))
            .prop_map(|(pool, polls, hold, poll)| Op::Run { pool, polls, hold, poll }),
        4 => (at(), any::<bool>()).prop_map(|(run, anew)| Op::PollRun { run, anew }),
        1 => at().prop_map(|run| Op::DropRun { run }),
    ];
    let holds_in_time = (at(), amount(), at(), at(), any::<bool>());
    let in_time = prop_oneof![
        3 => holds_in_time.prop_map(|(pool, amount, ttl, many, forget)| {
            // Mostly one that is kept, or so many little ones that they are not all reclaimed at once.
            let (many, forget) = (many.saturating_sub(160), forget && many % 4 == 0);
            let raw = if many % 12 > 4 { [3; LANES] } else { amount.raw };
            Op::ReserveFor { pool, amount: Figures { raw, ..amount }, ttl, many, forget }
        }),
        3 => (at(), at(), amount(), any::<bool>())
            .prop_map(|(pool, key, amount, retry)| Op::RecordOnce { pool, key, amount, retry }),
        1 => (at(), at(), amount(), any::<bool>())
            .prop_map(|(pool, key, amount, retry)| Op::DebitOnce { pool, key, amount, retry }),
        1 => (at(), at()).prop_map(|(hold, ttl)| Op::Renew { hold, ttl }),
    ];
    let of_caps = prop_oneof![
        5 => (at(), caps()).prop_map(|(pool, caps)| Op::RaiseCaps { pool, caps }),
        2 + waiting => (at(), caps()).prop_map(|(pool, caps)| Op::LowerCaps { pool, caps }),
        2 => (at(), caps()).prop_map(|(pool, caps)| Op::LowerCapsUpTo { pool, caps }),
        6 => (at(), caps()).prop_map(|(pool, caps)| Op::SetCaps { pool, caps }),
        5 => (at(), at(), caps()).prop_map(|(pool, to, caps)| Op::Transfer { pool, to, caps }),
        2 => (at(), caps()).prop_map(|(pool, caps)| Op::SetCeiling { pool, caps }),
    ];
    let of_pauses = prop_oneof![
        3 => (at(), at(), any::<bool>())
            .prop_map(|(pool, time, until)| Op::Pause { pool, time, until }),
        2 => at().prop_map(|pool| Op::Resume { pool }),
    ];
    let of_settling = prop_oneof![
        8 => (at(), amount()).prop_map(|(hold, total)| Op::Commit { hold, total }),
        1 => at().prop_map(|hold| Op::CommitAll { hold }),
        4 => (at(), amount(), any::<bool>())
            .prop_map(|(hold, total, take_back)| Op::TryCommit { hold, total, take_back }),
        5 => (at(), amount()).prop_map(|(hold, part)| Op::RecordPart { hold, part }),
        5 => (at(), amount()).prop_map(|(hold, part)| Op::DebitPart { hold, part }),
        4 => (at(), at(), any::<bool>())
            .prop_map(|(hold, other, take_back)| Op::Merge { hold, other, take_back }),
        6 => (at(), amount()).prop_map(|(pool, amount)| Op::Credit { pool, amount }),
        1 => (at(), amount()).prop_map(|(pool, figures)| Op::SetUsed { pool, figures }),
        2 => (at(), at(), amount(), prop::bool::weighted(0.7))
            .prop_map(|(pool, key, amount, retry)| Op::DebitOnce { pool, key, amount, retry }),
        1 => (at(), any::<bool>()).prop_map(|(hold, commit)| Op::OnDrop { hold, commit }),
        1 => at().prop_map(|hold| Op::CommitOnDrop { hold }),
    ];
    let of_watches = prop_oneof![
        4 => (at(), amount(), at(), any::<bool>()).prop_map(|(pool, level, percent, settled)| {
            Op::Reached { pool, level, percent, settled }
        }),
        3 => at().prop_map(|pool| Op::Wants { pool }),
        2 => (at(), any::<bool>()).prop_map(|(watch, anew)| Op::PollWatch { watch, anew }),
        1 => at().prop_map(|watch| Op::DropWatch { watch }),
    ];
    prop_oneof![
        10 => child(much),
        4 => joint(much),
        1 => at().prop_map(|pool| Op::Clone { pool }),
        4 => at().prop_map(|pool| Op::Drop { pool }),
        10 => (at(), amount()).prop_map(|(pool, amount)| Op::Record { pool, amount }),
        2 => (at(), amount()).prop_map(|(pool, amount)| Op::Peek { pool, amount }),
        2 => (at(), amount()).prop_map(|(pool, amount)| Op::RecordAndSnapshot { pool, amount }),
        1 => at().prop_map(|pool| Op::Limits { pool }),
        7 => (at(), amount()).prop_map(|(pool, amount)| Op::Debit { pool, amount }),
        18 => (at(), amount()).prop_map(|(pool, amount)| Op::Reserve { pool, amount }),
        3 => at().prop_map(|pool| Op::Reset { pool }),
        1 + asking => (at(), asked(much)).prop_map(|(pool, asked)| Op::Ask { pool, asked }),
        moving * 12 => of_caps,
        3 => at().prop_map(|pool| Op::Close { pool }),
        2 => (at(), any::<u8>()).prop_map(|(hold, label)| Op::Label { hold, label }),
        settling * 28 => of_settling,
        waiting => at().prop_map(|hold| Op::Release { hold }),
        3 => at().prop_map(|hold| Op::DropHold { hold }),
        1 => at().prop_map(|hold| Op::Forget { hold }),
        4 => (at(), amount()).prop_map(|(hold, extra)| Op::Grow { hold, extra }),
        3 => (at(), amount()).prop_map(|(hold, by)| Op::Shrink { hold, by }),
        4 => (at(), amount()).prop_map(|(hold, part)| Op::Split { hold, part }),
        timed * 3 => in_time,
        pausing => of_pauses,
        crowded => little_holds(),
        leased * 12 => of_leases,
        waiting * 8 => of_waits,
        watching => of_watches,
        running => of_runs,
        tenants => of_tenants(much),
        passes => any::<u32>().prop_map(|by| Op::Advance { by }),
    ]
}

/// Pools, what happens in them, and towards the end perhaps the loss of the root's own handles.
fn ops(much: Much) -> impl Strategy<Value = Vec<Op>> {
    let later = prop_oneof![60 => op(much), 1 => Just(Op::DropRoot)];
    let begin = match much {
        Much::Waiting | Much::Asks => (prop::collection::vec(child(much), 1..5), crowd()).boxed(),
        Much::Leases => (prop::collection::vec(child(much), 1..5), shares()).boxed(),
        Much::Crowds => (branches(), crowds()).boxed(),
        Much::Joints => {
            let crowd = prop_oneof![1 => Just(Vec::new()), 1 => crowd()];
            (joint_pools(), crowd).boxed()
        }
        Much::Caps | Much::Watches => (carved_pools(much), unfunded()).boxed(),
        Much::Settling => (carved_pools(much), Just(Vec::new())).boxed(),
        Much::Tenants => {
            let begin = |root| (vec![root, Op::Tenants { pool: 0 }], Vec::new());
            child(much).prop_map(begin).boxed()
        }
        _ => child(much).prop_map(|root| (vec![root], Vec::new())).boxed(),
    };
    let joints = prop::collection::vec(joint(much), 0..3);
    let then = prop::collection::vec(later, 0..30);
    (begin, joints, prop::collection::vec(op(much), 0..30), then).prop_map(
        |((pools, crowd), joints, first, then)| [pools, joints, crowd, first, then].concat(),
    )
}

/// Twenty histories, or as many as `PROPTEST_CASES` says. Of a thousand or more, not a few must
/// come to what they are about. In twenty, chance alone leaves out some of it.
fn compare_many(much: Much, meets: &[&str]) {
    let mut config = ProptestConfig {
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..Default::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 20;
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
        .filter(|what| met.get(**what).is_none_or(|times| *times < cases / 500))
        .collect();
    assert!(
        cases < 1_000 || seldom.is_empty(),
        "{cases} histories, but seldom {seldom:?}: {met:?}"
    );
}

// The words of the histories that are told.

const NOTHING: Figures = Figures { axes: 0, raw: [0; LANES] };

/// Without a deadline.
const PLAIN: Build = Build {
    carved: false,
    caps: NOTHING,
    deadline: 1,
    window: 0,
    keys: 0,
    used: None,
    ceiling: None,
    on_drop: None,
    low: None,
    most_waiting: None,
};

fn plain_child(caps: Figures, deadline: u8) -> Op {
    Op::Child { pool: 0, build: Build { caps, deadline, ..PLAIN } }
}

/// So many tokens, less than 64.
fn tokens(units: u16) -> Figures {
    Figures { axes: 1, raw: [11 + 32 * units; LANES] }
}

/// A cap of so many tokens, from 8 to 63.
fn token_cap(units: u16) -> Figures {
    Figures { axes: 1, raw: [1 + 32 * (units - 8); LANES] }
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

fn carved(pool: u8, units: u16) -> Op {
    Op::Child { pool, build: Build { carved: true, caps: token_cap(units), ..PLAIN } }
}

fn wait(pool: u8, units: u16) -> Op {
    Op::Wait { pool, amount: tokens(units), poll: true }
}
