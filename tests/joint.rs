//! Joint pools: one call is charged to all pools above several parents, or to none of them.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use budget_pool::{
    Amount, Ask, BudgetError, BudgetPool, Caps, Child, ManualClock, OnDrop, Outlook, PoolBuilder,
    Reservation, Wait, Window,
};

#[path = "support/invariants.rs"]
mod invariants;

use invariants::check_invariants;

const SECOND: Duration = Duration::from_secs(1);

fn tokens(tokens: u64) -> Amount {
    Amount::new().tokens(tokens)
}

fn root() -> BudgetPool {
    BudgetPool::builder().name("root").build()
}

fn below(parent: &BudgetPool, name: &str, tokens: u64) -> BudgetPool {
    named(parent, name).tokens(tokens).build()
}

fn named(parent: &BudgetPool, name: &str) -> PoolBuilder<Child> {
    parent.child().name(name)
}

fn joint<const N: usize>(parents: [&BudgetPool; N], name: &str) -> BudgetPool {
    BudgetPool::joint(parents).unwrap().name(name).build()
}

/// Used and reserved.
fn taken(pool: &BudgetPool) -> (u64, u64) {
    check_invariants(pool);
    let tokens = pool.snapshot().tokens;
    (tokens.used, tokens.reserved)
}

fn refused<T>(answer: Result<T, BudgetError>) -> BudgetError {
    answer.err().expect("it is refused")
}

fn refusing<T>(answer: Result<T, BudgetError>) -> String {
    refused(answer).pool().to_owned()
}

/// The pools of a tree, each with its depth.
fn listed(pool: &BudgetPool) -> Vec<(String, usize)> {
    let tree = pool.snapshot_tree();
    tree.iter().map(|pool| (pool.name.to_string(), pool.depth)).collect()
}

/// The same in the order of names.
fn pools(pool: &BudgetPool) -> Vec<(String, usize)> {
    let mut pools = listed(pool);
    pools.sort();
    pools
}

fn depths(pools: &[(&str, usize)]) -> Vec<(String, usize)> {
    pools.iter().map(|(name, depth)| (String::from(*name), *depth)).collect()
}

fn poll(wait: &mut Pin<Box<Wait>>) -> Poll<Result<Reservation, BudgetError>> {
    let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    polled.map_ok(|hold| {
        check_invariants(hold.pool());
        hold
    })
}

fn queued(pool: &BudgetPool, amount: Amount) -> Pin<Box<Wait>> {
    let mut wait = Box::pin(pool.reserve_wait(amount));
    assert!(poll(&mut wait).is_pending());
    check_invariants(pool);
    wait
}

fn granted(wait: &mut Pin<Box<Wait>>) -> Reservation {
    match poll(wait) {
        Poll::Ready(Ok(hold)) => hold,
        other => panic!("{other:?}"),
    }
}

fn told(wait: &mut Pin<Box<Wait>>) -> BudgetError {
    match poll(wait) {
        Poll::Ready(Err(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

fn by_hand(clock: &ManualClock) -> BudgetPool {
    let timer =
        |_| -> Pin<Box<dyn Future<Output = ()> + Send>> { Box::pin(std::future::pending()) };
    BudgetPool::builder().name("root").clock(clock.clone()).timer(timer).build()
}

/// A user and a model, each of which others spend from, too.
fn user_and_model() -> (BudgetPool, BudgetPool, BudgetPool) {
    let root = root();
    let (user, model) = (below(&root, "user", 100), below(&root, "model", 50));
    (root, user, model)
}

#[test]
fn p1_what_one_wallet_refuses_is_booked_in_neither() {
    let (root, user, model) = user_and_model();
    let call = joint([&user, &model], "call");
    model.record(tokens(45)).unwrap();

    let refusal = refused(call.record(tokens(10)));
    assert_eq!((refusal.pool(), refusal.outlook()), ("model", Outlook::Never));
    assert_eq!([&user, &model, &call].map(taken), [(0, 0), (45, 0), (0, 0)]);
    let admitted = |pool: &BudgetPool| (pool.snapshot().admitted, pool.snapshot().refused);
    assert_eq!([&user, &model, &call, &root].map(admitted), [(0, 1), (1, 1), (0, 1), (1, 1)]);
}

#[test]
fn p4_what_fits_in_both_wallets_is_admitted() {
    let (root, user, model) = user_and_model();
    let call = joint([&user, &model], "call");
    user.record(tokens(60)).unwrap();
    model.record(tokens(10)).unwrap();

    call.record(tokens(40)).unwrap();
    assert_eq!([&user, &model, &call, &root].map(taken), [(100, 0), (50, 0), (40, 0), (110, 0)]);
    assert_eq!(refusing(call.record(tokens(1))), "user");
}

#[test]
fn p6_two_waits_over_the_same_wallets_in_opposite_order_both_end() {
    let (_root, user, model) = user_and_model();
    let (one, other) = (joint([&user, &model], "one"), joint([&model, &user], "other"));
    let (of_user, of_model) = (user.reserve(tokens(100)).unwrap(), model.reserve(tokens(50)));
    let mut waits = [queued(&one, tokens(40)), queued(&other, tokens(40))];
    drop(of_user);
    assert!(waits.iter_mut().all(|wait| poll(wait).is_pending()));
    drop(of_model);

    let [first, second] = &mut waits;
    let hold = granted(first);
    assert!(poll(second).is_pending(), "the model has 10 left");
    drop(hold);
    drop(granted(second));
    assert_eq!([&user, &model, &one, &other].map(taken), [(0, 0); 4]);
}

#[test]
fn p6_an_earlier_wait_is_not_passed_in_any_line_on_its_path() {
    let (_root, user, model) = user_and_model();
    let call = joint([&user, &model], "call");
    let held = model.reserve(tokens(40)).unwrap();
    let mut wait = queued(&call, tokens(20));
    for (pool, line) in [(&model, "model"), (&user, "user"), (&call, "call")] {
        assert_eq!(pool.snapshot().waiting, 1);
        let refusal = refused(pool.record(tokens(1)));
        assert!(matches!(refusal, BudgetError::Queued { .. }), "{refusal}");
        assert_eq!(refusal.pool(), line);
    }
    let mut later = [queued(&user, tokens(90)), queued(&model, tokens(50))];
    drop(held);
    let hold = granted(&mut wait);
    assert!(later.iter_mut().all(|wait| poll(wait).is_pending()));
    drop(hold);
    later.iter_mut().for_each(|wait| drop(granted(wait)));
}

#[test]
fn p1_a_pool_that_is_reached_twice_is_charged_once() {
    let root = BudgetPool::builder().name("root").tokens(10).build();
    let (left, right) = (below(&root, "left", 10), below(&root, "right", 10));
    let diamond = joint([&left, &right], "diamond");
    let hold = diamond.reserve(tokens(10)).unwrap();
    assert_eq!([&diamond, &left, &right, &root].map(taken), [(0, 10); 4]);
    assert_eq!(root.snapshot().reservations, 1);
    hold.commit(tokens(12));
    assert_eq!([&diamond, &left, &right].map(taken), [(12, 0), (10, 0), (10, 0)]);
    let root = root.snapshot();
    assert_eq!((root.tokens.used, root.tokens.overage, root.tokens.spent), (10, 2, 12));
}

#[test]
fn p1_a_parent_that_is_above_another_is_charged_once() {
    let root = BudgetPool::builder().name("root").tokens(10).build();
    let middle = below(&root, "middle", 10);
    for parents in [[&root, &middle], [&middle, &root]] {
        let pool = joint(parents, "both");
        pool.record(tokens(2)).unwrap();
        assert_eq!(refusing(pool.record(tokens(11))), "middle", "children before parents");
    }
    assert_eq!([&root, &middle].map(taken), [(4, 0); 2]);
}

#[test]
fn p7_the_first_on_the_path_refuses_children_before_parents_and_parents_in_their_order() {
    let root = BudgetPool::builder().name("root").tokens(10).build();
    let dept = below(&root, "dept", 10);
    let (team, model) = (below(&dept, "team", 10), below(&root, "model", 10));
    let pool = BudgetPool::joint([&team, &model]).unwrap().name("joint").tokens(10).build();
    let under = below(&pool, "under", 10);
    // Each by one more than the next has left.
    for (left, next) in [(5, "root"), (4, "model"), (3, "dept"), (2, "team"), (1, "joint")] {
        let by_name = |name: &str| match name {
            "root" => &root,
            "model" => &model,
            "dept" => &dept,
            "team" => &team,
            _ => &pool,
        };
        by_name(next).set_caps(Caps::new().tokens(left)).unwrap();
        assert_eq!(refusing(under.record(tokens(6))), next);
    }
    let refusal = refused(under.record(tokens(6)));
    assert_eq!(
        refusal.to_string(),
        "tokens of `joint` exceeded: 6 requested, 1 available, cap 1, will never fit"
    );
}

#[test]
fn p7_the_worst_outlook_of_all_parents_is_told() {
    let (_root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    let _held = user.reserve(tokens(60)).unwrap();
    let refusal = refused(pool.record(tokens(51)));
    assert_eq!((refusal.pool(), refusal.outlook()), ("user", Outlook::Never));
    let refusal = refused(pool.record(tokens(50)));
    assert_eq!((refusal.pool(), refusal.outlook()), ("user", Outlook::AfterRelease));
}

#[test]
fn parents_that_make_no_joint_pool_are_refused() {
    let root = BudgetPool::builder().name("root").tokens(100).build();
    let other = BudgetPool::builder().name("other").build();
    let carved = named(&root, "carved").tokens(10).carved().build().unwrap();
    let under = below(&carved, "under", 1);
    let no_parents: [&BudgetPool; 0] = [];
    let refusal = |parents: &[&BudgetPool]| {
        let refusal = refused(BudgetPool::joint(parents.iter().copied()));
        (refusal.kind(), refusal.to_string())
    };
    let is_carved = "`carved` is carved: its share allows no set used, and no joint pool below";
    let foreign =
        "`other` is foreign: a transfer and a joint pool stay in one tree, a merge in its pool";
    let no_parent = (("no_parent"), "a joint pool needs a parent".to_owned());
    assert_eq!(refusal(&no_parents), no_parent);
    assert_eq!(refusal(&[&root, &other]), ("foreign_pool", foreign.to_owned()));
    assert_eq!(refusal(&[&root, &carved]), ("carved", is_carved.to_owned()));
    assert_eq!(refusal(&[&under]), ("carved", is_carved.to_owned()));
    assert_eq!(pools(&root).len(), 3, "no pool was made");
}

#[test]
fn a_parent_that_is_given_twice_counts_once() {
    let (_root, user, model) = user_and_model();
    let twice = joint([&user, &user], "twice");
    let thrice = joint([&user, &model, &user.clone(), &model], "thrice");
    twice.record(tokens(3)).unwrap();
    thrice.record(tokens(4)).unwrap();
    assert_eq!([&user, &model].map(taken), [(7, 0), (4, 0)]);
    assert_eq!(pools(&user), depths(&[("thrice", 1), ("twice", 1), ("user", 0)]));
    assert_eq!(pools(&model), depths(&[("model", 0), ("thrice", 1)]));
}

#[test]
fn a_close_of_any_parent_closes_the_pool_and_all_below_it() {
    for closed in 0..3 {
        let root = root();
        let parents = ["a", "b", "c"].map(|name| below(&root, name, 10));
        let pool = joint([&parents[0], &parents[1], &parents[2]], "pool");
        let child = below(&pool, "child", 10);
        let hold = child.reserve(tokens(4)).unwrap();
        let mut wait = queued(&child, tokens(8));
        let mut end = Box::pin(child.closed());
        let mut context = Context::from_waker(Waker::noop());
        assert!(end.as_mut().poll(&mut context).is_pending());
        parents[closed].close();

        assert!(pool.is_closed() && child.is_closed() && !root.is_closed());
        assert!(end.as_mut().poll(&mut context).is_ready());
        let is_closed: Vec<bool> = parents.iter().map(BudgetPool::is_closed).collect();
        assert_eq!(is_closed, [0, 1, 2].map(|parent| parent == closed));
        for refusal in [told(&mut wait), refused(child.record(tokens(1)))] {
            assert!(matches!(refusal, BudgetError::Closed { .. }), "{refusal}");
            assert_eq!(refusal.pool(), parents[closed].name());
        }
        hold.commit(tokens(3));
        let open = &parents[(closed + 1) % 3];
        assert_eq!((taken(open), taken(&root)), ((3, 0), (3, 0)));
        open.record(tokens(7)).unwrap();
        assert!(joint([open, &pool], "late").is_closed(), "below a closed pool");
    }
}

#[test]
fn a_close_of_one_parent_serves_those_who_wait_for_the_share_in_another() {
    let root = root();
    let (a, b) = (below(&root, "a", 10), below(&root, "b", 10));
    let pool = joint([&a, &b], "pool");
    let _share = named(&pool, "share").tokens(8).carved().build().unwrap();
    assert_eq!([&a, &b].map(taken), [(0, 8); 2]);
    let mut wait = queued(&b, tokens(5));
    a.close();
    drop(granted(&mut wait));
    assert_eq!([&a, &b].map(taken), [(0, 0); 2]);
}

#[test]
fn p5_a_tree_lists_a_joint_pool_once_whichever_parent_is_asked() {
    let root = root();
    let (a, b) = (below(&root, "a", 10), below(&root, "b", 20));
    let c = below(&b, "c", 15);
    let pool = joint([&c, &a], "pool");
    let _child = below(&pool, "child", 9);
    let _nested = joint([&a, &pool], "nested");
    a.record(tokens(7)).unwrap();

    let whole =
        [("a", 1), ("b", 1), ("c", 2), ("child", 4), ("nested", 2), ("pool", 3), ("root", 0)];
    assert_eq!(pools(&root), depths(&whole));
    let of_a = depths(&[("a", 0), ("child", 2), ("nested", 1), ("pool", 1)]);
    assert_eq!(pools(&a), of_a);
    let of_b = depths(&[("b", 0), ("c", 1), ("pool", 2), ("child", 3), ("nested", 3)]);
    assert_eq!(listed(&b).first(), of_b.first());
    assert_eq!(pools(&b), {
        let mut of_b = of_b;
        of_b.sort();
        of_b
    });
    for top in [&root, &a, &b, &c] {
        let tree = top.snapshot_tree();
        let available = |name: &str| {
            tree.iter().find(|pool| &*pool.name == name).and_then(|pool| pool.tokens.available)
        };
        assert_eq!(["pool", "child", "nested"].map(available), [Some(3); 3], "{}", top.name());
    }
}

#[test]
fn p8_a_window_of_any_parent_is_brought_up_to_the_present() {
    let clock = ManualClock::new();
    let root = by_hand(&clock);
    let rate = named(&root, "rate").tokens(10).window(Window::fixed(SECOND)).build();
    let plain = below(&root, "plain", 100);
    let pool = joint([&plain, &rate], "pool");
    pool.record(tokens(10)).unwrap();
    let refusal = refused(pool.record(tokens(4)));
    assert_eq!((refusal.pool(), refusal.retry_after()), ("rate", Some(SECOND)));
    let mut wait = queued(&pool, tokens(4));
    clock.advance(SECOND);
    // Neither `plain` nor what is above it has a window, but what is below it stands under one.
    let tree = plain.snapshot_tree();
    assert_eq!((tree[1].tokens.reserved, tree[1].tokens.available), (4, Some(6)));
    drop(granted(&mut wait));
    assert_eq!(taken(&rate), (0, 0));
}

/// A window turns on a way that nobody has looked at since a hold there expired: on the way of one
/// who waits for another window. The instants of both are kept.
#[test]
fn p8_a_hold_expires_before_a_window_beside_that_of_the_waiter_turns() {
    let carrying = Window::fixed(60 * SECOND).carrying_overage();
    let rolling = Window::rolling(60 * SECOND);
    // With what the hold has left behind at 61 s, and at 100 s.
    let cases = [(carrying, OnDrop::Release, [0, 0]), (rolling, OnDrop::Commit, [60, 0])];
    for (window, on_drop, left) in cases {
        let clock = ManualClock::new();
        let root = by_hand(&clock);
        let rate = named(&root, "rate").tokens(10).window(Window::fixed(60 * SECOND)).build();
        let beside = named(&root, "beside").tokens(100).window(window).on_drop(on_drop).build();
        let pool = joint([&rate, &beside], "pool");
        rate.record(tokens(10)).unwrap();
        let _hold = beside.reserve(Ask::new(tokens(60)).ttl(30 * SECOND)).unwrap();
        if on_drop == OnDrop::Release {
            beside.debit(tokens(90));
        }
        let mut wait = queued(&pool, tokens(4));
        clock.advance(61 * SECOND);
        rate.record(tokens(1)).unwrap();
        assert_eq!(taken(&beside), (left[0], 4), "{on_drop:?}");
        clock.advance(39 * SECOND);
        assert_eq!(taken(&beside), (left[1], 4), "{on_drop:?}");
        drop(granted(&mut wait));
    }
}

#[test]
fn the_earliest_deadline_of_all_parents_counts() {
    let clock = ManualClock::new();
    let root = by_hand(&clock);
    let late = named(&root, "late").deadline(3 * SECOND).build();
    let early = named(&root, "early").deadline(SECOND).build();
    let pool = BudgetPool::joint([&late, &early]).unwrap().deadline(2 * SECOND).build();
    let heir = joint([&late, &early], "heir");
    for pool in [&pool, &heir, &below(&heir, "child", 5)] {
        assert_eq!(pool.time_left(), Some(SECOND), "{pool:?}");
        assert_eq!(pool.deadline().unwrap().deadline(), early.deadline().unwrap().deadline());
    }
    let held = heir.reserve(tokens(1)).unwrap();
    clock.advance(SECOND);
    let refusal = refused(heir.record(tokens(1)));
    assert_eq!(refusal.to_string(), "deadline of `early` exceeded: 1s elapsed, budget 1s");
    late.record(tokens(1)).unwrap();
    held.commit(tokens(1));
    assert_eq!([&late, &early].map(taken), [(2, 0), (1, 0)]);
}

/// In a tree that has a joint pool, whatever stands below the pool that is spent from.
#[test]
fn p6_a_spend_above_tells_each_waiter_below_that_it_leaves_no_hope() {
    let root = root();
    let [team, model, lone] = ["team", "model", "lone"].map(|name| below(&root, name, 10));
    let (pool, child) = (joint([&team, &model], "pool"), named(&lone, "child").build());
    for (above, waits) in [(&team, &pool), (&model, &pool), (&lone, &child)] {
        let held = above.reserve(tokens(5)).unwrap();
        let mut wait = queued(waits, tokens(8));
        above.debit(tokens(3));
        let refusal = told(&mut wait);
        assert_eq!((refusal.pool(), refusal.outlook()), (above.name(), Outlook::Never));
        held.release();
        above.reset();
    }
}

#[test]
fn p6_a_wait_is_told_by_the_deadline_of_the_second_parent() {
    let clock = ManualClock::new();
    let root = by_hand(&clock);
    let (plain, early) = (below(&root, "plain", 5), named(&root, "early").deadline(SECOND).build());
    let pool = joint([&plain, &early], "pool");
    let _held = plain.reserve(tokens(5)).unwrap();
    let mut wait = queued(&pool, tokens(5));
    clock.advance(SECOND);
    assert_eq!(told(&mut wait).to_string(), "deadline of `early` exceeded: 1s elapsed, budget 1s");
}

#[test]
fn p6_a_pause_of_any_parent_counts_and_the_longest_is_told() {
    let clock = ManualClock::new();
    let root = by_hand(&clock);
    let (a, b) = (below(&root, "a", 5), below(&root, "b", 5));
    let pool = joint([&a, &b], "pool");
    b.pause(2 * SECOND);
    a.pause(SECOND);
    let refusal = refused(pool.record(tokens(1)));
    assert!(matches!(refusal, BudgetError::Paused { .. }), "{refusal}");
    assert_eq!((refusal.pool(), refusal.retry_after()), ("b", Some(2 * SECOND)));
    let mut wait = queued(&pool, tokens(1));
    clock.advance(SECOND);
    assert!(poll(&mut wait).is_pending());
    b.resume();
    drop(granted(&mut wait));
}

#[test]
fn p3_a_hold_expires_in_all_parents() {
    let clock = ManualClock::new();
    let root = by_hand(&clock);
    let (a, b) = (below(&root, "a", 5), below(&root, "b", 5));
    let pool = joint([&a, &b], "pool");
    std::mem::forget(pool.reserve(Ask::new(tokens(5)).ttl(SECOND)).unwrap());
    let mut waits = [queued(&b, tokens(5)), queued(&a, tokens(5))];
    clock.advance(SECOND);
    root.record(tokens(0)).unwrap();
    waits.iter_mut().for_each(|wait| drop(granted(wait)));
    assert_eq!((pool.snapshot().expired, b.snapshot().expired), (1, 1));
}

#[test]
fn p3_a_share_of_a_joint_pool_is_kept_on_its_whole_path() {
    let (root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    let share = named(&pool, "share").tokens(40).carved().build().unwrap();
    assert_eq!([&pool, &user, &model, &root].map(taken), [(0, 40); 4]);
    assert_eq!(refusing(named(&pool, "more").tokens(11).carved().build()), "model");

    let hold = share.reserve(tokens(30)).unwrap();
    share.record(tokens(5)).unwrap();
    assert_eq!([&pool, &user, &model, &root].map(taken), [(5, 35); 4]);
    hold.commit(tokens(32));
    assert_eq!([&pool, &user, &model, &root].map(taken), [(37, 3); 4]);
    assert_eq!(share.credit(tokens(2)).credited(), tokens(2));
    assert_eq!([&share, &pool, &user, &model].map(taken), [(35, 0), (35, 5), (35, 5), (35, 5)]);
    drop(share);
    assert_eq!([&pool, &user, &model, &root].map(taken), [(35, 0); 4]);
}

#[test]
fn p1_shares_move_between_ways_that_part_and_meet_again() {
    // The ways above the two shares have `b` and the root in common, `a` and `c` not.
    let root = BudgetPool::builder().name("root").tokens(20).build();
    let [a, b, c] = ["a", "b", "c"].map(|name| below(&root, name, 20));
    let (left, right) = (joint([&a, &b], "left"), joint([&b, &c], "right"));
    let from = named(&left, "from").tokens(12).carved().build().unwrap();
    let to = named(&right, "to").tokens(4).carved().build().unwrap();
    assert_eq!([&a, &b, &c, &root].map(taken), [(0, 12), (0, 16), (0, 4), (0, 16)]);
    b.record(tokens(4)).unwrap();

    from.transfer(&to, Caps::new().tokens(7)).unwrap();
    assert_eq!([&a, &b, &c, &root].map(taken), [(0, 5), (4, 16), (0, 11), (4, 16)]);
    assert_eq!([&left, &right].map(taken), [(0, 5), (0, 11)]);
    c.record(tokens(0)).unwrap();
    c.set_caps(Caps::new().tokens(12)).unwrap();
    let refusal = refused(from.transfer(&to, Caps::new().tokens(2)));
    assert_eq!(refusal.pool(), "c");
    assert_eq!([&a, &b, &c, &root].map(taken), [(0, 5), (4, 16), (0, 11), (4, 16)]);
    assert_eq!([&from, &to].map(|pool| pool.snapshot().tokens.cap), [Some(5), Some(11)]);
}

#[test]
fn caps_move_between_the_parents_of_a_joint_pool() {
    let (_root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    pool.record(tokens(50)).unwrap();
    assert_eq!(refusing(pool.record(tokens(1))), "model");
    user.transfer(&model, Caps::new().tokens(50)).unwrap();
    assert_eq!(refusing(pool.record(tokens(1))), "user");
    assert_eq!(refusing(user.transfer(&model, Caps::new().tokens(1))), "user");
    let mut wait = Box::pin(pool.reserve_wait(tokens(1)));
    assert_eq!(told(&mut wait).outlook(), Outlook::Never);
}

#[test]
fn p6_a_cap_that_is_set_on_a_parent_moves_those_who_wait() {
    let (_root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    let held = model.reserve(tokens(50)).unwrap();
    let mut small = queued(&pool, tokens(20));
    let mut large = queued(&pool, tokens(50));
    user.set_caps(Caps::new().tokens(40)).unwrap();
    assert_eq!(told(&mut large).pool(), "user");
    assert!(poll(&mut small).is_pending());
    // Who waits takes its turn from now on where a new cap is.
    model.set_caps(Caps::new().requests(1)).unwrap();
    drop(held);
    drop(granted(&mut small));
}

#[test]
fn p3_each_parent_knows_who_holds_below_it() {
    let (root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    let hold = pool.reserve(tokens(10)).unwrap().label("call");
    let mut lease = pool.lease(tokens(1));
    lease.record(tokens(2)).unwrap();
    for top in [&pool, &user, &model, &root] {
        let holders = top.holders();
        let seen: Vec<_> = holders.iter().map(|held| (&*held.pool, held.amount)).collect();
        assert_eq!(seen, [("pool", tokens(10)), ("pool", lease.remaining())], "{}", top.name());
    }
    assert_eq!(lease.remaining(), tokens(1));
    drop(hold);
    drop(lease);
    assert_eq!([&pool, &user, &model].map(taken), [(2, 0); 3]);
}

#[test]
fn p3_what_is_told_of_a_joint_pool_is_told_of_all_above_it() {
    let (root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    pool.debit(tokens(60));
    let overage = |pool: &BudgetPool| pool.snapshot().tokens.overage;
    assert_eq!([&pool, &user, &model, &root].map(overage), [0, 0, 10, 0]);
    assert_eq!(pool.credit(tokens(15)).credited(), tokens(15));
    assert_eq!([&pool, &user, &model, &root].map(taken), [(45, 0); 4]);
    let hold = pool.reserve(tokens(4)).unwrap();
    hold.grow(tokens(1)).unwrap();
    assert_eq!(refusing(hold.grow(tokens(1))), "model");
    assert_eq!([&pool, &user, &model, &root].map(taken), [(45, 5); 4]);
}

#[test]
fn the_first_on_the_path_that_says_so_says_what_a_drop_does() {
    let root = root();
    let plain = below(&root, "plain", 10);
    let commits = named(&root, "commits").on_drop(OnDrop::Commit).build();
    let releases = named(&root, "releases").on_drop(OnDrop::Release).build();
    for (parents, spent) in
        [([&plain, &commits], 1), ([&commits, &releases], 1), ([&releases, &commits], 0)]
    {
        let pool = joint(parents, "pool");
        drop(pool.child().build().reserve(tokens(1)).unwrap());
        assert_eq!(taken(&pool), (spent, 0), "{parents:?}");
    }
}

/// All orders in which so many can be dropped.
fn orders(many: usize) -> Vec<Vec<usize>> {
    (0..many).fold(vec![Vec::new()], |orders, next| {
        let with = |order: &Vec<usize>| {
            (0..=order.len())
                .map(|at| {
                    let mut order = order.clone();
                    order.insert(at, next);
                    order
                })
                .collect::<Vec<_>>()
        };
        orders.iter().flat_map(with).collect()
    })
}

#[test]
fn p3_a_joint_pool_keeps_its_parents_and_leaves_nothing_in_whatever_order_all_go() {
    for order in orders(6) {
        let root = root();
        let middle = below(&root, "middle", 50);
        let (a, b) = (below(&middle, "a", 10), below(&root, "b", 10));
        let pool = joint([&a, &b, &middle], "pool");
        let share = named(&pool, "share").tokens(5).carved().build().unwrap();
        let nested = joint([&b, &pool], "nested");
        let mut handles = [middle, a, b, pool, share, nested].map(Some);
        assert_eq!(pools(&root).len(), 7);
        for (gone, &next) in order.iter().enumerate() {
            handles[next] = None;
            check_invariants(&root);
            let left: Vec<&BudgetPool> = handles.iter().flatten().collect();
            assert_eq!(left.len(), 5 - gone);
            // What is left is what is held and all above it.
            let names: Vec<String> = pools(&root).into_iter().map(|(name, _)| name).collect();
            let is_kept = |name: &str| match name {
                "share" => handles[4].is_some(),
                "nested" => handles[5].is_some(),
                "pool" => handles[3..].iter().any(Option::is_some),
                "a" => handles[1].is_some() || handles[3..].iter().any(Option::is_some),
                "b" => handles[2].is_some() || handles[3..].iter().any(Option::is_some),
                _ => {
                    handles[0].is_some()
                        || handles[1].is_some()
                        || handles[3..].iter().any(Option::is_some)
                }
            };
            for name in ["middle", "a", "b", "pool", "share", "nested"] {
                let is_there = names.iter().any(|there| there == name);
                assert_eq!(is_there, is_kept(name), "{name}, {order:?} after {gone}");
            }
        }
        assert_eq!((pools(&root).len(), taken(&root)), (1, (0, 0)));
    }
}

#[test]
fn a_weak_handle_finds_a_joint_pool_and_its_hold_keeps_it() {
    let (root, user, model) = user_and_model();
    let pool = joint([&user, &model], "pool");
    let (weak, hold) = (pool.downgrade(), pool.reserve(tokens(5)).unwrap());
    let parents = [&user, &model].map(BudgetPool::downgrade);
    drop((pool, user, model));
    assert!(parents.iter().all(|parent| parent.upgrade().is_none()));
    assert_eq!(refusing(weak.upgrade().unwrap().record(tokens(46))), "model");
    drop(hold);
    assert!(weak.upgrade().is_none());
    assert_eq!(pools(&root), depths(&[("root", 0)]));
}

#[test]
fn a_builder_of_a_joint_pool_keeps_its_parents_and_builds_several() {
    let (root, user, model) = user_and_model();
    let builder = BudgetPool::joint([&user, &model]).unwrap().tokens(5);
    drop((user, model));
    let [one, other] = ["one", "other"].map(|name| builder.clone().name(name).build());
    drop(builder);
    one.record(tokens(5)).unwrap();
    assert_eq!((taken(&one), taken(&other), taken(&root)), ((5, 0), (0, 0), (5, 0)));
    assert_eq!(pools(&root).len(), 5);
}

#[test]
fn a_path_may_be_long_and_broad() {
    let root = root();
    let broad: Vec<BudgetPool> = (0..200).map(|_| below(&root, "one of many", 10)).collect();
    let all = BudgetPool::joint(&broad).unwrap().build();
    let deep = (0..100).fold(all.clone(), |above, _| {
        let beside = above.child().build();
        BudgetPool::joint([&above, &beside]).unwrap().build()
    });
    deep.record(tokens(10)).unwrap();
    assert_eq!((taken(&all), taken(&broad[0]), taken(&broad[199])), ((10, 0), (10, 0), (10, 0)));
    assert_eq!(refusing(deep.record(tokens(1))), "one of many");
    assert_eq!(root.snapshot_tree().len(), 1 + 200 + 1 + 2 * 100);
    broad[100].close();
    assert!(deep.is_closed());
    drop((all, deep));
    assert_eq!(root.snapshot_tree().len(), 1 + 200);
}
