//! Histories that once went another way in the pool than in the model, or that are seldom made up.

use super::*;

/// A window.
const EVERY_10_MS: u32 = 1 | 10 << 2 | 7 << 6;
const TOKEN_BUCKET_OF_20_MS: u32 = 2_941_575_339;
/// A cap of five tokens, where sixteen are taken.
const FIVE_OF_SIXTEEN: Figures = Figures { axes: 1, raw: [20_441; LANES] };
/// The figure of a cap of six slots.
const SIX_IN_FLIGHT: u16 = 63_905;

fn owing(caps: Figures, debit: u16) -> [Op; 5] {
    [
        Op::Child { pool: SELDOM, build: Build { caps, ..PLAIN } },
        hold_for(40, LATER, 1),
        hold_for(1, SOON, 12),
        Op::Debit { pool: 0, amount: tokens(debit) },
        PASS,
    ]
}

/// A pool with a window that turns every 10 ms, below a root with a hold that makes it read the
/// clock, and a share carved out of the pool. Then time passes, which only the root sees.
fn share_of_a_window() -> [Op; 5] {
    let child = |pool, carved, caps, window| Op::Child {
        pool,
        build: Build { carved, caps, window, ..PLAIN },
    };
    [
        child(SELDOM, false, NOTHING, 0),
        child(0, false, token_cap(60), EVERY_10_MS),
        child(1, true, token_cap(20), 0),
        Op::ReserveFor { pool: 0, amount: NOTHING, ttl: 3, many: 0, forget: false },
        PASS,
    ]
}

fn lease_of(units: u16) -> Op {
    Op::Lease { pool: 0, batch: tokens(units) }
}

/// Spends one token for a key, again if it is known.
fn once(key: u8) -> Op {
    Op::RecordOnce { pool: 0, key, amount: tokens(1), retry: false }
}

/// Six keys, each for 20 ms.
fn with_keys(ops: &[Op]) {
    let root =
        Op::Child { pool: SELDOM, build: Build { caps: token_cap(60), keys: 13 + 16, ..PLAIN } };
    model::run(&[&[root], ops].concat());
}

/// 60 tokens, and a pool below with a deadline after 20 ms.
fn pool_with_a_deadline() -> [Op; 2] {
    [plain_child(token_cap(60), 1), plain_child(NOTHING, 8)]
}

/// As much as there is up to a least, in line.
fn wait_for(pool: u8, most: u16, least: u16) -> Op {
    let first = Choice { most: tokens(most), least: Some(tokens(least)) };
    Op::WaitOn { pool, asked: Asked { first, ..Asked::default() }, poll: true }
}

/// Twelve holds of one token that settle when they expire, and have expired.
fn settled_in_a_crowd() -> Vec<Op> {
    let build = Build { caps: token_cap(60), on_drop: Some(true), ..PLAIN };
    vec![Op::Child { pool: SELDOM, build }, hold_for(1, SOON, 12), PASS]
}

fn credit(pool: u8, units: u16) -> Op {
    Op::Credit { pool, amount: tokens(units) }
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
    let on = |axes, raw| Figures { axes, raw: [raw; LANES] };
    let mut tokens_alone = on(0b101, 0);
    tokens_alone.raw[0] = 1;
    // 8 tokens, all of them held: less of them may come. No output tokens: less of them never does.
    model::run(&[
        plain_child(tokens_alone, 1),
        Op::Reserve { pool: 0, amount: on(0b001, 50) },
        Op::LowerCaps { pool: 0, caps: on(0b101, 1) },
    ]);
}

/// The rest of what has expired pays what is owed first, as it would have in its time.
#[test]
fn p2_a_late_commit_owes_what_it_would_if_all_had_been_reclaimed_in_time() {
    let late = Op::Commit { hold: 0, total: tokens(40) };
    model::run(&[&owing(token_cap(60), 30)[..], &[late]].concat());
}

#[test]
fn p2_a_late_debit_owes_what_it_would_if_all_had_been_reclaimed_in_time() {
    let late = Op::DebitPart { hold: 0, part: tokens(40) };
    model::run(&[&owing(token_cap(60), 30)[..], &[late]].concat());
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
    let child = |pool, caps, window| Op::Child { pool, build: Build { caps, window, ..PLAIN } };
    model::run(&[
        child(SELDOM, NOTHING, 0),
        child(0, token_cap(60), EVERY_10_MS),
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
            build: Build { caps: token_cap(60), window: every_30_ms, ..PLAIN },
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
        Op::Child { pool: SELDOM, build: Build { caps: token_cap(12), ..PLAIN } },
        hold_for(1, LATER, 12),
        PASS,
        Op::Record { pool: 0, amount: tokens(12) },
    ]);
}

/// What a lease spends by itself is of the period in which the pool learns of it, by whatever call.
#[test]
fn what_a_lease_spent_before_a_turn_settles_into_the_new_period() {
    let record = |units| Op::LeaseRecord { lease: 0, amount: tokens(units), beyond: false };
    let debit = Op::LeaseDebit { lease: 0, amount: tokens(30), beyond: false };
    for tells in
        [Op::LeaseSettle { lease: 0 }, record(30), record(63), debit, Op::DropLease { lease: 0 }]
    {
        model::run(&[
            Op::Child {
                pool: 0,
                build: Build { caps: token_cap(60), window: EVERY_10_MS, ..PLAIN },
            },
            lease_of(20),
            record(5),
            record(5),
            PASS,
            tells,
        ]);
    }
}

#[test]
fn p2_a_debit_beyond_a_lease_owes_what_it_would_if_all_had_been_reclaimed_in_time() {
    let debit = Op::LeaseDebit { lease: 0, amount: tokens(30), beyond: false };
    let root = Op::Child { pool: SELDOM, build: Build { caps: token_cap(40), ..PLAIN } };
    let first = Op::LeaseRecord { lease: 0, amount: tokens(1), beyond: false };
    model::run(&[root, lease_of(8), first, hold_for(2, SOON, 12), PASS, debit]);
}

/// More has expired than the record must reclaim. The pool is looked at before it: else it would be
/// refilled less.
#[test]
fn a_lease_is_refilled_up_to_an_eighth_of_what_is_free() {
    let root = Op::Child { pool: SELDOM, build: Build { caps: token_cap(60), ..PLAIN } };
    let record = Op::LeaseRecord { lease: 0, amount: tokens(10), beyond: false };
    model::run(&[root, lease_of(8), hold_for(2, SOON, 12), PASS, record]);
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
    let carved = Op::Child { pool: 0, build: Build { carved: true, caps: token_cap(60), ..PLAIN } };
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

/// The bucket of its pool was last looked at before time filled it.
#[test]
fn p6_a_wait_is_granted_what_time_has_brought_below_a_release() {
    let bucket = 1 | 2 | 10 << 2 | 7 << 6;
    let build = Build { caps: token_cap(10), window: bucket, ..PLAIN };
    let half_of_that = Op::Advance { by: 12 };
    model::run(&[
        Op::Child { pool: SELDOM, build: Build { caps: token_cap(60), ..PLAIN } },
        Op::Child { pool: 0, build },
        Op::Record { pool: 1, amount: tokens(9) },
        hold_for(51, LATER, 1),
        wait_for(1, 10, 1),
        half_of_that,
        Op::Release { hold: 0 },
        Op::Poll { wait: 0, anew: false },
    ]);
}

/// More has expired beside its pool than any call reclaims.
#[test]
fn p6_a_wait_is_granted_what_has_expired_above_a_release() {
    let twelve = Op::ReserveFor { pool: 2, amount: tokens(4), ttl: SOON, many: 11, forget: true };
    let reserve = |units| Op::Reserve { pool: 1, amount: tokens(units) };
    model::run(&[
        Op::Child { pool: SELDOM, build: Build { caps: token_cap(60), ..PLAIN } },
        plain_child(token_cap(14), 1),
        plain_child(NOTHING, 1),
        reserve(5),
        reserve(7),
        twelve,
        wait_for(1, 14, 5),
        PASS,
        Op::Release { hold: 0 },
        Op::Poll { wait: 0, anew: false },
    ]);
}

/// All that can be counted of what has no cap is taken, and comes back, while another waits there
/// for something else.
#[test]
fn p6_one_that_waits_for_what_has_no_cap_waits_its_turn() {
    let carved = |caps| Op::Child { pool: 0, build: Build { carved: true, caps, ..PLAIN } };
    let all_slots = Figures { axes: 1 << 5, raw: [14495; LANES] };
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
    let record = |units| Op::LeaseRecord { lease: 0, amount: tokens(units), beyond: false };
    model::run(&[
        plain_child(token_cap(60), 1),
        lease_of(20),
        record(1),
        record(5),
        wait(0, 59),
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

/// A label comes to a hold at the present, as all that is told of it.
#[test]
fn p8_a_hold_expires_at_a_label() {
    let label = Op::Label { hold: 0, label: 0 };
    for (ttl, between) in [(0, vec![]), (SOON, vec![PASS]), (LATER, vec![PASS])] {
        for many in [1, 4] {
            let begin = [plain_child(token_cap(60), 1), hold_for(5, ttl, many)];
            model::run(&[&begin[..], &between, std::slice::from_ref(&label)].concat());
        }
    }
}

/// An expiry settles at its instant, whenever the pool comes to it.
#[test]
fn p2_a_credit_takes_back_what_had_settled_before_it() {
    let late = Op::Commit { hold: 0, total: tokens(0) };
    let metered = Op::DebitPart { hold: 0, part: tokens(9) };
    let reset = Op::Reset { pool: 0 };
    let crowd = settled_in_a_crowd();
    let [root, holds, pass] = &crowd[..] else { unreachable!("as it was made") };
    let reserve = Op::Reserve { pool: 0, amount: tokens(20) };
    model::run(&[&crowd[..], &[credit(0, 10)]].concat());
    let ops = [root.clone(), reserve, metered, reset, holds.clone(), pass.clone(), late];
    model::run(&ops);
}

#[test]
fn p2_what_had_settled_before_is_part_of_a_figure_that_is_set() {
    let set = Op::SetUsed { pool: 0, figures: tokens(30) };
    model::run(&[settled_in_a_crowd(), vec![set, PASS]].concat());
}

/// The pool above has begun a new period: the share that it carved cannot grow by what is gone.
#[test]
fn a_credit_through_a_carve_ends_at_a_period_above() {
    let build = Build { caps: token_cap(60), window: EVERY_10_MS, ..PLAIN };
    let debit = Op::Debit { pool: 1, amount: tokens(15) };
    let spend = Op::Record { pool: 0, amount: tokens(5) };
    for between in [vec![], vec![PASS], vec![PASS, spend]] {
        let pools = [Op::Child { pool: 0, build }, carved(0, 20), debit.clone()];
        model::run(&[&pools[..], &between, &[credit(1, 10), credit(1, 10)]].concat());
    }
}

/// The waiter stands at the root alone, until the pool between has a cap, too.
#[test]
fn p6_a_new_cap_on_the_way_of_one_that_waits_keeps_its_turn() {
    let set = |units| Op::SetCaps { pool: 1, caps: tokens(units) };
    for cap in [0, 1, 30, 63] {
        model::run(&[
            plain_child(token_cap(60), 1),
            plain_child(NOTHING, 1),
            Op::Child { pool: 1, build: PLAIN },
            Op::Reserve { pool: 0, amount: tokens(60) },
            wait(2, 20),
            set(cap),
            Op::Record { pool: 1, amount: tokens(1) },
            Op::Release { hold: 0 },
        ]);
    }
}

/// What time has brought back until a transfer it brought by the cap until then, though nobody else
/// has told the pools the time.
#[test]
fn a_transfer_to_a_bucket_begins_with_what_time_has_brought() {
    let bucket = 1 | 2 | 10 << 2 | 7 << 6;
    let build = Build { caps: token_cap(20), window: bucket, ..PLAIN };
    model::run(&[
        Op::Child { pool: SELDOM, build: PLAIN },
        plain_child(token_cap(40), 1),
        Op::Child { pool: 0, build },
        Op::Debit { pool: 2, amount: tokens(60) },
        PASS,
        Op::Transfer { pool: 1, to: 95, caps: tokens(40) },
        Op::Record { pool: 2, amount: tokens(1) },
    ]);
}

/// At the ceiling the bucket would bring back what is owed: funds are all that it lacks.
#[test]
fn p7_what_a_funded_bucket_would_bring_back_is_not_refused_for_ever() {
    let bucket = 1 | 2 | 10 << 2 | 7 << 6;
    let no_tokens = Figures { axes: 1, raw: [0; LANES] };
    let build = Build { caps: no_tokens, ceiling: Some(tokens(10)), window: bucket, ..PLAIN };
    model::run(&[
        Op::Child { pool: 0, build },
        Op::Debit { pool: 0, amount: tokens(5) },
        Op::Record { pool: 0, amount: tokens(8) },
        wait(0, 8),
        Op::RaiseCaps { pool: 0, caps: token_cap(10) },
    ]);
}

/// A cap cannot fall below what is reserved, and the share above falls along.
#[test]
fn p1_a_carved_cap_falls_as_its_holds_end() {
    let hold = Op::Reserve { pool: 1, amount: tokens(10) };
    let set = |units| Op::SetCaps { pool: 1, caps: tokens(units) };
    model::run(&[
        plain_child(token_cap(60), 1),
        carved(0, 40),
        Op::Debit { pool: 1, amount: tokens(12) },
        hold.clone(),
        hold,
        set(5),
        Op::Commit { hold: 0, total: tokens(4) },
        set(30),
        set(5),
        Op::Release { hold: 0 },
        set(40),
    ]);
}

/// What is metered and then ends in a lower total, in each state of its hold.
#[test]
fn p2_a_total_below_what_was_metered_gives_back_the_rest() {
    let root = |commits| {
        let build = Build { caps: token_cap(30), on_drop: Some(commits), ..PLAIN };
        Op::Child { pool: 0, build }
    };
    let meter = |units| Op::DebitPart { hold: 0, part: tokens(units) };
    for (commits, passes) in [(false, vec![]), (false, vec![PASS]), (true, vec![PASS])] {
        for total in [0, 5, 20, 40] {
            let hold = hold_for(10, SOON, 1);
            let commit = Op::Commit { hold: 0, total: tokens(total) };
            let owed = Op::Debit { pool: 0, amount: tokens(25) };
            let late = [meter(3), commit];
            model::run(&[&[root(commits), hold, meter(8), owed][..], &passes, &late].concat());
        }
    }
}

/// What the giver's parent owes is paid with the units that the giver returns: what they let go
/// above is free there once they have moved, and not before.
#[test]
fn p7_a_transfer_that_pays_overage_on_its_way_fits_when_its_refusal_said() {
    let raw = |raw| Figures { axes: 1, raw: [raw; LANES] };
    // Each nanosecond is a period, and carries its overage over.
    let build = Build { caps: token_cap(50), window: 1_357_066_241, ..PLAIN };
    // Of 95 tokens, of which most are overage; and of all that the giver has.
    let debit = Op::Debit { pool: 1, amount: raw(2_910) };
    let transfer = Op::Transfer { pool: 3, to: 2, caps: raw(15_602) };
    let pools = [Op::Child { pool: 0, build }, carved(0, 13), carved(0, 8), carved(1, 8)];
    for ns in 0..5 {
        let (pass, retry) = (Op::Advance { by: ns << 8 | 9 }, Op::Advance { by: 0 });
        model::run(&[&pools[..], &[debit.clone(), pass, transfer.clone(), retry]].concat());
    }
}

/// What has expired of a crowd, and is not reclaimed yet, may count in a peak once more: also in
/// that of the snapshot which a watch is told.
#[test]
fn p4_a_watch_is_told_a_peak_in_which_expired_holds_may_count() {
    let seldom = Op::Child { pool: SELDOM, build: PLAIN };
    let reached = Op::Reached { pool: 0, level: tokens(13), percent: 0, settled: true };
    let record = Op::Record { pool: 0, amount: tokens(50) };
    for eights in [1, 4, 8] {
        let crowd = vec![hold_for(1, SOON, 8); eights];
        model::run(
            &[&[seldom.clone(), reached.clone()], &crowd[..], &[PASS, record.clone()]].concat(),
        );
    }
}

/// What expires at an instant is free at it, or is still there: one waiter has no hope after the
/// first hold has settled, and the next is granted before the second has gone, or after it.
#[test]
fn p4_a_peak_may_leave_out_what_expires_at_the_instant_of_a_grant() {
    let pool =
        Op::Child { pool: 0, build: Build { caps: token_cap(30), on_drop: Some(true), ..PLAIN } };
    let first = Op::ReserveFor { pool: 1, amount: tokens(3), ttl: SOON, many: 0, forget: false };
    // A window that nobody waits for turns when the last waiter has gone.
    for (ttl, window) in [(SOON, 0), (LATER, 0), (SOON, EVERY_10_MS)] {
        model::run(&[
            Op::Child { pool: SELDOM, build: PLAIN },
            pool.clone(),
            Op::Child { pool: 0, build: Build { window, ..PLAIN } },
            first.clone(),
            hold_for(16, ttl, 1),
            wait(1, 30),
            wait(1, 15),
            PASS,
        ]);
    }
}

/// A carved pool that nobody else has goes right after its last hold. What the hold settles leaves
/// the waiter above nothing to hope for but funds, and the pool gives its rest back after that is
/// told.
#[test]
fn p6_a_want_is_told_before_the_pool_of_the_hold_gives_back_its_rest() {
    let ceiling = Some(Figures { axes: 1, raw: [34_320; LANES] });
    let root = Build { caps: token_cap(50), ceiling, ..PLAIN };
    let share = Build { carved: true, caps: token_cap(8), on_drop: Some(true), ..PLAIN };
    // What is left in the end is dropped: the pool before its hold, the last watch before both.
    model::run(&[
        Op::Child { pool: SELDOM, build: root },
        Op::Child { pool: 0, build: share },
        Op::Reserve { pool: 0, amount: tokens(41) },
        Op::Reserve { pool: 1, amount: tokens(1) },
        Op::Wants { pool: 0 },
        Op::Wants { pool: 0 },
        wait(0, 50),
    ]);
}

/// Seven holds that settle expire at one instant, which leaves two waiters no hope, the second of
/// them by the last hold alone. What the bucket of their pool has brought back for the second by then
/// is seen by none: both are told at once.
#[test]
fn p7_whoever_loses_hope_by_one_look_is_told_by_the_same_figures() {
    let parent = Build { caps: token_cap(24), on_drop: Some(true), ..PLAIN };
    let bucket = Build { caps: token_cap(12), window: TOKEN_BUCKET_OF_20_MS, ..PLAIN };
    model::run(&[
        Op::Child { pool: SELDOM, build: PLAIN },
        Op::Child { pool: 0, build: parent },
        Op::Child { pool: 1, build: bucket },
        Op::Debit { pool: 2, amount: tokens(12) },
        Op::ReserveFor { pool: 1, amount: tokens(1), ttl: SOON, many: 6, forget: false },
        Op::Reserve { pool: 1, amount: tokens(5) },
        wait(2, 12),
        wait(2, 6),
        Op::Advance { by: 1 << 8 | 13 },
        Op::Debit { pool: 1, amount: NOTHING },
    ]);
}

/// One that takes as much as there is can be served by the first of six expiries, and takes it once
/// all have come. Until then it keeps its place: the second, which settles, leaves the one behind it
/// no hope, and that one is told so in the turn of that hold.
#[test]
fn p7_whoever_is_to_be_granted_keeps_its_place_until_then() {
    let mut caps = token_cap(18);
    (caps.axes, caps.raw[5]) = (1 | 1 << 5, SIX_IN_FLIGHT);
    let first = Choice { most: NOTHING, least: None };
    let others = [Some(first), None];
    model::run(&[
        Op::Child { pool: SELDOM, build: PLAIN },
        Op::Child { pool: 0, build: Build { caps, ..PLAIN } },
        Op::ReserveFor { pool: 1, amount: tokens(2), ttl: LATER, many: 5, forget: false },
        Op::CommitOnDrop { hold: 1 },
        Op::WaitOn { pool: 1, asked: Asked { first, others, ..Asked::default() }, poll: true },
        Op::WaitToSpend { pool: 1, amount: tokens(18), poll: true },
        PASS,
        Op::Debit { pool: 1, amount: NOTHING },
    ]);
}

/// Eight holds have expired, of which the pool has reclaimed a part. A release lets one that waits
/// below it on, up to its line: it is woken to look, as the rest might serve it by their time.
#[test]
fn p6_whoever_comes_to_wait_beside_what_has_expired_may_be_woken_to_look() {
    model::run(&[
        Op::Child { pool: SELDOM, build: PLAIN },
        Op::Child { pool: 0, build: Build { caps: token_cap(8), ..PLAIN } },
        hold_for(0, SOON, 4),
        hold_for(0, SOON, 4),
        Op::Reserve { pool: 0, amount: tokens(8) },
        Op::Reserve { pool: 1, amount: tokens(8) },
        wait(1, 1),
        Op::SetCaps { pool: 0, caps: FIVE_OF_SIXTEEN },
        PASS,
        Op::Debit { pool: 0, amount: NOTHING },
        Op::Commit { hold: 9, total: tokens(0) },
    ]);
}

/// A pause ends above a pool that blocks a waiter of its child, which has a cap of its own by now: it
/// stays where it was blocked, and so do those behind it.
#[test]
fn p6_the_end_of_a_pause_moves_nobody_whom_it_did_not_block() {
    let child = |pool, caps| Op::Child { pool, build: Build { caps, ..PLAIN } };
    model::run(&[
        child(SELDOM, NOTHING),
        child(0, NOTHING),
        child(1, token_cap(10)),
        child(2, NOTHING),
        Op::Reserve { pool: 3, amount: tokens(8) },
        wait(3, 9),
        wait(2, 2),
        Op::Pause { pool: 1, time: SOON, until: false },
        Op::SetCaps { pool: 3, caps: tokens(9) },
        PASS,
        Op::Debit { pool: 2, amount: NOTHING },
    ]);
}
