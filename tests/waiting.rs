//! P6: fair waiting, cancel-safe, never for ever.

use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Closed, ManualClock, Name, OnDrop, Outlook,
    Reservation, Usd,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;

use invariants::check_invariants;
use waiter::{Waiter, Wakes, by_hand};

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

/// The pool in which others wait.
fn queued_in(asked: Result<Reservation, BudgetError>) -> Name {
    match asked {
        Err(BudgetError::Queued { pool, .. }) => pool,
        other => panic!("{other:?}"),
    }
}

impl Waiter {
    fn still_waits(&mut self) -> bool {
        self.wakes() == 0 && self.poll().is_pending()
    }
}

#[test]
fn p6_first_come_first_served_and_a_small_one_does_not_pass_a_large_one() {
    let pool = pool_of(100);
    let held = pool.reserve(tokens(60)).unwrap();
    let mut large = Waiter::queued(&pool, tokens(80));
    let mut small = Waiter::queued(&pool, tokens(10));
    assert_eq!(pool.snapshot().waiting, 2);
    assert!(large.still_waits() && small.still_waits(), "40 are free, but the large one is first");
    assert_eq!(pool.reserve(tokens(1)).unwrap_err().to_string(), "others wait in `run`");
    assert_eq!(pool.record(tokens(1)).unwrap_err().to_string(), "others wait in `run`");
    pool.debit(tokens(1));
    drop(held);
    let large = large.granted();
    assert_eq!(small.granted().amount(), tokens(10));
    assert_eq!(large.amount(), tokens(80));
    assert_eq!(pool.snapshot().waiting, 0);
}

/// Ten holds have expired in a sibling, where nobody waits for them.
#[test]
fn p7_one_that_is_refused_in_line_is_told_what_there_is() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().name("root").tokens(100).clock(clock.clone()).timer(by_hand);
    let root = root.build();
    let (crowd, own) = (root.child().build(), root.child().tokens(150).build());
    let hold = own.reserve(tokens(60)).unwrap();
    let soon = Duration::from_millis(10);
    for _ in 0..10 {
        std::mem::forget(crowd.reserve(Ask::new(tokens(1)).ttl(soon)).unwrap());
    }
    let mut waiter = Waiter::queued(&own, tokens(95));
    clock.advance(soon);
    hold.commit(tokens(6));
    let refused = waiter.refused();
    assert_eq!(
        refused.to_string(),
        "tokens of `root` exceeded: 95 requested, 94 available, cap 100, will never fit"
    );
    assert_eq!(own.record(tokens(95)).unwrap_err(), refused);
    check_invariants(&root);
}

#[test]
fn p6_a_large_one_is_not_starved_by_small_ones_that_arrive_for_ever() {
    let pool = pool_of(10);
    let mut running: Vec<_> = (0..10).map(|_| pool.reserve(tokens(1)).unwrap()).collect();
    let mut large = Waiter::queued(&pool, tokens(10));
    let mut waiting = Vec::new();
    for _ in 0..10 {
        waiting.push(Waiter::queued(&pool, tokens(1)));
        assert!(pool.reserve(tokens(1)).is_err(), "jumps no queue");
        drop(running.pop());
    }
    let large = large.granted();
    assert!(waiting.iter_mut().all(Waiter::still_waits));
    drop(large);
    assert!(waiting.iter_mut().map(Waiter::granted).all(|hold| hold.amount() == tokens(1)));
}

#[test]
fn p6_one_blocked_in_its_child_does_not_hold_up_another_child() {
    let root = pool_of(100);
    let (narrow, wide) = (root.child().tokens(10).build(), root.child().build());
    let _narrow_hold = narrow.reserve(tokens(10)).unwrap();
    let wide_hold = wide.reserve(tokens(90)).unwrap();
    let mut blocked = Waiter::queued(&narrow, tokens(5));
    let mut fits = Waiter::queued(&wide, tokens(50));
    drop(wide_hold);
    assert_eq!(fits.granted().amount(), tokens(50));
    assert!(blocked.still_waits());
    wide.reserve(tokens(1)).unwrap().release();
    assert!(
        matches!(narrow.reserve(tokens(0)), Err(BudgetError::Queued { pool, .. }) if pool == "pool")
    );
}

#[test]
fn p6_those_who_compete_above_are_served_by_ticket() {
    let root = pool_of(100);
    let (a, b) = (root.child().build(), root.child().build());
    let held = root.reserve(tokens(100)).unwrap();
    let mut first = Waiter::queued(&a, tokens(60));
    let mut second = Waiter::queued(&b, tokens(60));
    let mut third = Waiter::queued(&a, tokens(10));
    let mut fourth = Waiter::queued(&root, tokens(10));
    held.commit(tokens(0));
    let first = first.granted();
    assert!(second.still_waits() && third.still_waits() && fourth.still_waits());
    drop(first);
    let _second = second.granted();
    assert_eq!((third.granted().amount(), fourth.granted().amount()), (tokens(10), tokens(10)));
}

#[test]
fn p6_what_only_another_axis_waits_for_is_not_held_up() {
    let root = BudgetPool::builder().tokens(10).requests(10).build();
    let (a, b) = (root.child().build(), root.child().build());
    let _held = root.reserve(tokens(10)).unwrap();
    let mut blocked = Waiter::queued(&a, tokens(1));
    // The root has a cap on requests, and somebody waits there: first come, first served.
    assert!(matches!(b.reserve(Amount::new().requests(1)), Err(BudgetError::Queued { .. })));
    // It has none on USD, nor on what is in flight.
    b.reserve(Amount::new().usd(Usd::from_cents(1))).unwrap().release();
    assert!(blocked.still_waits());
}

#[test]
fn p6_in_the_pool_that_is_called_all_stand_in_one_line() {
    let pool = pool_of(10);
    let _held = pool.reserve(tokens(10)).unwrap();
    let mut blocked = Waiter::queued(&pool, tokens(1));
    let requests = Amount::new().requests(1);
    assert_eq!(queued_in(pool.reserve(requests)), "run");
    let mut behind = Waiter::queued(&pool, requests);
    assert!(blocked.still_waits() && behind.still_waits());
    // Below it they have a line of their own.
    pool.child().build().reserve(requests).unwrap().release();
    // A call for new work takes its turn. Accounting does not.
    for refused in [pool.record(requests), pool.peek(requests)] {
        assert!(matches!(refused, Err(BudgetError::Queued { .. })));
    }
    pool.debit(requests);
}

#[test]
fn p6_those_from_below_stand_in_the_line_of_each_pool_that_caps_what_they_ask_for() {
    let root = pool_of(10);
    let middle = root.child().requests(10).build();
    let held = root.reserve(tokens(10)).unwrap();
    // It asks for nothing that its own pool has a cap on.
    let mut first = Waiter::queued(&middle, tokens(5));
    let mut from_below = Waiter::queued(&middle.child().build(), Amount::new().requests(1));
    assert!(first.still_waits() && from_below.still_waits());
    drop(held);
    assert!(
        first.granted().amount() == tokens(5)
            && from_below.granted().amount() == Amount::new().requests(1)
    );
}

#[test]
fn p6_who_calls_a_pool_stands_behind_those_from_below_who_wait_there() {
    let pool = pool_of(10);
    let held = pool.reserve(tokens(10)).unwrap();
    let mut from_below = Waiter::queued(&pool.child().build(), tokens(5));
    // The pool has no cap on what it asks for.
    let mut behind = Waiter::queued(&pool, Amount::new().requests(1));
    assert!(from_below.still_waits() && behind.still_waits());
    drop(held);
    assert!(
        from_below.granted().amount() == tokens(5)
            && behind.granted().amount() == Amount::new().requests(1)
    );
}

#[test]
fn two_that_each_hold_half_wait_for_each_other_until_time_helps() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(10)
        .deadline(Duration::from_secs(60))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let halves = [(); 2].map(|()| pool.reserve(tokens(5)).unwrap());
    let mut waiters = [(); 2].map(|()| Waiter::queued(&pool, tokens(5)));
    clock.advance(Duration::from_secs(59));
    _ = pool.peek(tokens(0));
    assert!(waiters.iter_mut().all(Waiter::still_waits));
    clock.advance(Duration::from_secs(1));
    assert!(pool.peek(tokens(0)).is_err());
    assert!(waiters.iter_mut().all(|waiter| waiter.refused().axis() == Some(Axis::Deadline)));
    drop(halves);
}

#[test]
fn p6_one_that_is_blocked_above_keeps_its_place_in_its_own_pool_too() {
    let root = pool_of(10);
    let pool = root.child().requests(10).build();
    let below = pool.child().build();
    let held = root.reserve(tokens(10)).unwrap();
    // Its own pool has no cap on what it lacks, but one on what comes after it from below.
    let mut first = Waiter::queued(&pool, tokens(5));
    assert!(
        matches!(below.reserve(Amount::new().requests(1)), Err(BudgetError::Queued { pool, .. }) if pool == "pool")
    );
    let mut second = Waiter::queued(&below, Amount::new().requests(1));
    assert!(first.still_waits() && second.still_waits());
    drop(held);
    assert_eq!(
        (first.granted().amount(), second.granted().amount()),
        (tokens(5), Amount::new().requests(1))
    );
}

#[test]
fn p6_one_that_passes_a_pool_without_a_cap_on_it_holds_nobody_up_there() {
    let root = pool_of(10);
    let pool = root.child().build();
    let below = pool.child().build();
    let _held = root.reserve(tokens(10)).unwrap();
    let mut blocked = Waiter::queued(&below, tokens(1));
    pool.reserve(Amount::new().requests(1)).unwrap().release();
    assert!(blocked.still_waits());
}

#[test]
fn p6_one_is_not_held_up_where_another_waits_for_something_else() {
    let root = pool_of(10);
    let pool = root.child().requests(1).build();
    let (a, b) = (pool.child().build(), pool.child().build());
    let _only = pool.reserve(Amount::new().requests(1)).unwrap();
    let held = root.reserve(tokens(10)).unwrap();
    let mut first = Waiter::queued(&a, Amount::new().requests(1));
    let mut second = Waiter::queued(&b, tokens(5));
    drop(held);
    assert_eq!(second.granted().amount(), tokens(5));
    assert!(first.still_waits());
}

/// What has no cap may be full all the same: then whoever asks for it waits in that pool's line,
/// whoever calls.
#[test]
fn p6_one_that_waits_for_what_has_no_cap_waits_its_turn() {
    let root = pool_of(10);
    let below = root.child().build();
    let requests = |n| Amount::new().requests(n);
    let (held, all) =
        (root.reserve(tokens(10)).unwrap(), root.reserve(requests(u64::MAX)).unwrap());
    let mut first = Waiter::queued(&root, tokens(1));
    let mut second = Waiter::queued(&below, requests(1));
    drop(all);
    assert_eq!(queued_in(below.reserve(Amount::new())), "pool");
    assert!(first.still_waits() && second.still_waits());
    drop(held);
    drop((first.granted(), second.granted()));
}

#[test]
fn p6_a_carved_share_is_not_held_up_by_those_who_wait_above() {
    let root = pool_of(100);
    let share = root.child().tokens(20).carved().build().unwrap();
    let _held = root.reserve(tokens(80)).unwrap();
    let mut above = Waiter::queued(&root, tokens(10));
    share.reserve(tokens(20)).unwrap().release();
    assert!(matches!(root.child().tokens(0).carved().build(), Err(BudgetError::Queued { .. })));
    drop(share);
    assert_eq!(above.granted().amount(), tokens(10));
}

#[test]
fn p3_a_wait_that_is_dropped_gives_up_its_place_or_what_it_was_granted() {
    let pool = pool_of(100);
    drop(pool.reserve_wait(tokens(5)));
    let held = pool.reserve(tokens(100)).unwrap();
    let first = Waiter::queued(&pool, tokens(100));
    let mut second = Waiter::queued(&pool, tokens(30));
    let third = Waiter::queued(&pool, tokens(30));
    drop(third);
    drop(first);
    assert!(second.still_waits());
    drop(held);
    assert_eq!((second.wakes(), pool.snapshot().tokens.reserved), (1, 30));
    let mut fourth = Waiter::queued(&pool, tokens(90));
    drop(second);
    assert_eq!(fourth.granted().amount(), tokens(90));
    let end = pool.snapshot();
    assert_eq!((end.tokens.reserved, end.waiting, end.reservations), (0, 0, 0));
}

#[test]
fn p3_a_wait_that_is_forgotten_keeps_its_place_and_what_it_is_granted() {
    let pool = pool_of(100);
    let held = pool.reserve(tokens(100)).unwrap();
    let mut forgotten = pool.reserve_wait(tokens(60));
    assert!(Pin::new(&mut forgotten).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    std::mem::forget(forgotten);
    let (mut behind, mut large) =
        (Waiter::queued(&pool, tokens(40)), Waiter::queued(&pool, tokens(60)));
    drop(held);
    drop(behind.granted());
    assert!(large.still_waits());
    assert_eq!((pool.snapshot().tokens.reserved, pool.snapshot().waiting), (60, 1));
    pool.close();
    assert!(matches!(large.refused(), BudgetError::Closed { .. }));
    assert_eq!(pool.snapshot().tokens.reserved, 60);
}

#[test]
fn p6_a_head_that_leaves_lets_the_next_one_move_on() {
    let pool = pool_of(100);
    let _held = pool.reserve(tokens(60)).unwrap();
    let large = Waiter::queued(&pool, tokens(100));
    let mut small = Waiter::queued(&pool, tokens(40));
    drop(large);
    assert_eq!(small.granted().amount(), tokens(40));
}

#[test]
fn p6_one_release_serves_a_hundred_thousand() {
    let root = pool_of(100_000);
    let held = root.reserve(tokens(100_000)).unwrap();
    let pools = [root.clone(), root.child().build()];
    let mut context = Context::from_waker(Waker::noop());
    let mut waits: Vec<_> =
        (0..100_000).map(|n| pools[usize::from(n > 50_000)].reserve_wait(tokens(1))).collect();
    assert!(waits.iter_mut().all(|wait| Pin::new(wait).poll(&mut context).is_pending()));
    drop(held);
    assert_eq!((root.snapshot().waiting, root.snapshot().reservations), (0, 100_000));
    assert!(waits.iter_mut().all(|wait| Pin::new(wait).poll(&mut context).is_ready()));
}

#[test]
fn p6_what_can_never_be_met_is_refused_at_once_and_as_soon_as_commits_make_it_so() {
    let pool = pool_of(100);
    let mut hopeless = pin!(pool.reserve_wait(tokens(101)));
    let poll = hopeless.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(poll, Poll::Ready(Err(refusal)) if refusal.outlook() == Outlook::Never));

    let held = pool.reserve(tokens(60)).unwrap();
    let _other = pool.reserve(tokens(40)).unwrap();
    let mut head = Waiter::queued(&pool, tokens(40));
    let mut behind = Waiter::queued(&pool, tokens(41));
    let mut last = Waiter::queued(&pool, tokens(1));
    held.commit(tokens(60));
    let refusal = behind.refused();
    assert_eq!(
        (refusal.outlook(), refusal.axis(), refusal.pool()),
        (Outlook::Never, Some(Axis::Tokens), "run")
    );
    assert!(head.still_waits() && last.still_waits());
    pool.debit(tokens(1));
    assert_eq!(head.refused().outlook(), Outlook::Never);
    assert!(last.still_waits());
    pool.lower_caps(Caps::new()).unwrap();
    drop(_other);
    assert_eq!(last.granted().amount(), tokens(1));
}

#[test]
fn p6_who_waits_for_all_that_can_be_counted_is_told_of_the_first_spend() {
    for pool in [BudgetPool::unlimited(), pool_of(u64::MAX)] {
        let held = pool.reserve(tokens(1)).unwrap();
        let mut all = Waiter::queued(&pool, tokens(u64::MAX));
        let mut all_but_one = Waiter::queued(&pool, tokens(u64::MAX - 1));
        held.commit_all();
        assert_eq!(all.refused().outlook(), Outlook::Never);
        assert_eq!(all_but_one.granted().amount(), tokens(u64::MAX - 1));
    }
}

#[test]
fn p6_each_axis_tells_those_whom_it_leaves_no_hope_and_each_of_them_once() {
    let pool = BudgetPool::builder().tokens(100).requests(10).in_flight(3).build();
    let both = |n: u64, requests| tokens(n).requests(requests);
    let held = pool.reserve(both(100, 10)).unwrap();
    let mut line = [(1, 9), (90, 1), (90, 9), (100, 10), (89, 8), (0, 10), (100, 0), (0, 0)]
        .map(|(n, requests)| Waiter::queued(&pool, both(n, requests)));
    held.record(both(1, 0)).unwrap();
    assert_eq!(line.each_ref().map(Waiter::wakes), [0, 0, 0, 1, 0, 0, 1, 0]);
    held.record(both(10, 2)).unwrap();
    assert_eq!(line.each_ref().map(Waiter::wakes), [1, 1, 1, 1, 0, 1, 1, 0]);
    assert_eq!(pool.snapshot().refused, 6);
    let axes = [0, 1, 2, 3, 5, 6].map(|at| line[at].refused().axis());
    let [by_tokens, by_requests] = [Some(Axis::Tokens), Some(Axis::Requests)];
    assert_eq!(axes, [by_tokens, by_tokens, by_tokens, by_tokens, by_requests, by_tokens]);
    held.record(both(0, 8)).unwrap();
    assert_eq!(line[4].refused().axis(), Some(Axis::Tokens));
    assert_eq!(line[7].granted().amount(), both(0, 0));
}

#[test]
fn p6_who_is_left_no_slot_is_told_though_it_waits_for_something_else() {
    let root = pool_of(10);
    let child = root.child().name("child").in_flight(1).build();
    let held = root.reserve(tokens(10)).unwrap();
    let mut waiter = Waiter::queued(&child, tokens(5));
    let mut behind = Waiter::queued(&root, tokens(10));
    child.lower_caps(Caps::new().in_flight(1)).unwrap();
    let refusal = waiter.refused();
    assert_eq!(
        (refusal.outlook(), refusal.axis(), refusal.pool()),
        (Outlook::Never, Some(Axis::InFlight), "child")
    );
    assert!(behind.still_waits());
    drop(held);
    assert_eq!(behind.granted().amount(), tokens(10));
}

#[test]
fn p6_what_is_spent_on_an_axis_tells_those_who_wait_for_it_and_no_others() {
    type Set = fn(Amount, u64) -> Amount;
    let axes: [(Axis, u64, Set); 4] = [
        (Axis::Tokens, 9_500, Amount::tokens),
        (Axis::OutputTokens, 500, Amount::output_tokens),
        (Axis::Requests, 500, Amount::requests),
        (Axis::Usd, 500, |amount, nanos| amount.usd(Usd::from_nanos(nanos))),
    ];
    let caps =
        Caps::new().tokens(10_000).output_tokens(1_000).requests(1_000).usd(Usd::from_nanos(1_000));
    for (axis, spent, set) in axes {
        let pool = BudgetPool::builder().caps(caps).build();
        let held = pool.reserve(tokens(10_000)).unwrap();
        let of_all = |n: u64| axes.iter().fold(tokens(n), |amount, (_, _, set)| set(amount, n));
        let mut told = Waiter::queued(&pool, set(of_all(1), 600));
        let mut stays = Waiter::queued(
            &pool,
            set(if axis == Axis::Tokens { tokens(0) } else { of_all(600) }, 1),
        );
        held.record(set(Amount::new(), spent)).unwrap();
        assert_eq!(told.refused().outlook(), Outlook::Never, "{axis}");
        assert!(axis == Axis::Tokens || stays.still_waits());
        drop(held);
        drop(stays.granted());
    }
}

#[test]
fn p6_what_was_granted_and_not_collected_is_kept_whatever_is_spent_then() {
    let pool = pool_of(100);
    let [released, spent] = [(); 2].map(|()| pool.reserve(tokens(50)).unwrap());
    let mut granted = Waiter::queued(&pool, tokens(50));
    let mut waits = Waiter::queued(&pool, tokens(1));
    released.release();
    spent.commit_all();
    // Now it could not be met any more.
    pool.debit(tokens(1));
    assert_eq!(granted.granted().amount(), tokens(50));
    assert_eq!(waits.granted().amount(), tokens(1));
}

#[test]
fn p6_what_leaves_no_hope_in_a_pool_leaves_it_to_those_who_do_not_pass_it() {
    let root = BudgetPool::unlimited();
    let [small, large] = [10, 100].map(|cap| root.child().tokens(cap).build());
    let held = small.reserve(tokens(10)).unwrap();
    let held_beside = large.reserve(tokens(100)).unwrap();
    let mut beside = Waiter::queued(&large, tokens(50));
    let mut told = Waiter::queued(&small, tokens(10));
    held.record(tokens(1)).unwrap();
    assert_eq!(told.refused().outlook(), Outlook::Never);
    assert!(beside.still_waits());
    drop(held_beside);
    drop(beside.granted());
}

#[test]
fn p6_a_spend_above_refuses_the_waiter_below_that_it_leaves_no_hope() {
    let root = pool_of(10);
    let child = root.child().tokens(5).build();
    let held = child.reserve(tokens(1)).unwrap();
    let mut waiter = Waiter::queued(&child, tokens(5));
    root.record(tokens(5)).unwrap();
    assert!(waiter.still_waits(), "the five that are left are enough");
    root.record(tokens(1)).unwrap();
    assert_eq!(waiter.refused().outlook(), Outlook::Never);
    drop(held);
    check_invariants(&root);
}

#[test]
fn p6_what_leaves_no_hope_above_a_carve_leaves_it_below() {
    let root = pool_of(100);
    let share = root.child().tokens(20).carved().build().unwrap();
    let held_below = share.reserve(tokens(20)).unwrap();
    let held = root.reserve(tokens(80)).unwrap();
    let mut below = Waiter::queued(&share, tokens(10));
    let mut above = Waiter::queued(&root, tokens(5));
    held.commit(tokens(96));
    assert_eq!(above.refused().outlook(), Outlook::Never);
    let mut newcomer = Waiter::queued(&share, tokens(10));
    root.debit(tokens(1));
    assert!(below.still_waits() && newcomer.still_waits());
    drop(held_below);
    assert_eq!((below.granted().amount(), newcomer.granted().amount()), (tokens(10), tokens(10)));
}

#[test]
fn p6_those_who_are_told_together_are_woken_by_ticket() {
    struct Tells(usize, Arc<Mutex<Vec<usize>>>);
    impl Wake for Tells {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }
    let tell: [fn(&BudgetPool); 2] = [|pool| _ = pool.debit(tokens(90)), BudgetPool::close];
    for tell in tell {
        let pool = pool_of(100);
        let _held = pool.reserve(tokens(10)).unwrap();
        let woken = Arc::default();
        let mut waits = [99, 95, 100, 97, 96, 98].map(|n| Box::pin(pool.reserve_wait(tokens(n))));
        for (at, wait) in waits.iter_mut().enumerate() {
            let waker = Waker::from(Arc::new(Tells(at, Arc::clone(&woken))));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        tell(&pool);
        assert_eq!(*woken.lock().unwrap(), [0, 1, 2, 3, 4, 5]);
    }
}

#[test]
fn p6_what_is_spent_below_tells_those_who_wait_above_and_beside() {
    let root = pool_of(10);
    let [spends, beside] = [(); 2].map(|()| root.child().build().child().build());
    let held = root.reserve(tokens(5)).unwrap();
    let mut told = [&root, &beside].map(|pool| Waiter::queued(pool, tokens(8)));
    let mut stays = Waiter::queued(&beside, tokens(7));
    assert!(matches!(spends.record(tokens(3)), Err(BudgetError::Queued { .. })));
    spends.debit(tokens(3));
    assert!(told.iter_mut().all(|waiter| waiter.refused().outlook() == Outlook::Never));
    assert!(stays.still_waits());
    drop(held);
    assert_eq!(stays.granted().amount(), tokens(7));
}

/// Without a look at all the others each time; those who came or left since are told, or not.
#[test]
fn p6_in_a_long_line_a_spend_tells_those_whom_it_leaves_no_hope_and_no_others() {
    const MOST: u64 = 20_000;
    let pool = pool_of(MOST);
    let held = pool.reserve(tokens(MOST)).unwrap();
    let mut line: Vec<_> = (1..=MOST).map(|n| Some(Waiter::queued(&pool, tokens(n)))).collect();
    let mut newcomer: Option<Waiter> = None;
    for left in (0..MOST).rev() {
        held.record(tokens(1)).unwrap();
        for waiter in [&mut line[left as usize], &mut newcomer].into_iter().filter_map(Option::take)
        {
            assert_eq!(waiter.wakes(), 1, "{left}");
            let error = { waiter }.refused();
            assert_eq!((error.outlook(), error.axis()), (Outlook::Never, Some(Axis::Tokens)));
        }
        if left > 0 && left % 100 == 0 {
            newcomer = Some(Waiter::queued(&pool, tokens(left)));
            line[left as usize - 2] = None;
        }
        let next = line[..left as usize].last().and_then(Option::as_ref);
        assert!(next.into_iter().chain(&newcomer).all(|waiter| waiter.wakes() == 0), "{left}");
    }
    assert_eq!(pool.snapshot().waiting, 0);
}

#[test]
fn p6_every_kind_of_new_room_serves() {
    type Room = fn(&BudgetPool, &mut Option<Reservation>);
    let kinds: [(&str, Room); 7] = [
        ("drop", |_, held| *held = None),
        ("release", |_, held| held.take().unwrap().release()),
        ("a commit of less", |_, held| _ = held.take().unwrap().commit(tokens(0))),
        ("shrink", |_, held| held.as_mut().unwrap().shrink(tokens(50)).unwrap()),
        ("add", |pool, _| pool.raise_caps(Caps::new().tokens(50)).unwrap()),
        ("reset", |pool, _| _ = pool.reset()),
        ("a fact that pays", |pool, held| {
            pool.debit(tokens(10));
            pool.raise_caps(Caps::new().tokens(60)).unwrap();
            assert!(held.is_some());
        }),
    ];
    for (kind, room) in kinds {
        let pool = pool_of(100);
        pool.record(tokens(50)).unwrap();
        let mut held = Some(pool.reserve(tokens(50)).unwrap());
        let mut waiter = Waiter::queued(
            &pool.child().build(),
            tokens(if kind == "a fact that pays" { 40 } else { 50 }),
        );
        room(&pool, &mut held);
        drop(waiter.granted());
    }
}

#[test]
fn p6_what_a_carved_child_gives_back_serves_its_parents_queue() {
    type End = fn(BudgetPool);
    let ends: [End; 3] = [
        |share| drop(share),
        |share| share.close(),
        |share| share.lower_caps(Caps::new().tokens(40)).unwrap(),
    ];
    for end in ends {
        let root = pool_of(100);
        let share = root.child().tokens(100).carved().build().unwrap();
        let mut waiter = Waiter::queued(&root, tokens(40));
        end(share);
        drop(waiter.granted());
    }
}

#[test]
fn closing_tells_every_waiter_below_and_grants_none() {
    let root = BudgetPool::builder().name("root").tokens(10).build();
    let (a, b) = (root.child().build(), root.child().tokens(5).carved().build().unwrap());
    let held = root.reserve(tokens(5)).unwrap();
    let held_below = b.reserve(tokens(5)).unwrap();
    let mut waiters = [
        Waiter::queued(&root, tokens(5)),
        Waiter::queued(&a, tokens(1)),
        Waiter::queued(&b, tokens(1)),
    ];
    root.close();
    for waiter in &mut waiters {
        assert_eq!(waiter.refused().to_string(), "`root` is closed");
    }
    drop((held, held_below));
    assert_eq!(
        (root.snapshot().waiting, root.snapshot().refused, root.snapshot().tokens.reserved),
        (0, 3, 0)
    );
}

#[test]
fn closing_tells_a_whole_line_and_then_serves_those_outside() {
    let root = pool_of(100);
    let closing = root.child().name("closing").build();
    let _held = root.reserve(tokens(60)).unwrap();
    // The large one is first. Those behind it would fit, were it not for the close.
    let inside = [(&closing, 80), (&closing, 10), (&closing.child().build(), 10)];
    let mut inside = inside.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
    let mut outside = Waiter::queued(&root, tokens(40));
    closing.close();
    for waiter in &mut inside {
        assert_eq!(waiter.refused().to_string(), "`closing` is closed");
    }
    assert_eq!(outside.granted().amount(), tokens(40));
}

#[test]
fn a_deadline_tells_every_waiter_at_the_next_touch() {
    let clock = ManualClock::new();
    let root =
        BudgetPool::builder().name("root").tokens(10).clock(clock.clone()).timer(by_hand).build();
    let timed = root.child().name("timed").deadline(Duration::from_secs(1)).build();
    let below = timed.child().build();
    let held = root.reserve(tokens(10)).unwrap();
    let mut waiters = [Waiter::queued(&timed, tokens(5)), Waiter::queued(&below, tokens(5))];
    let mut patient = Waiter::queued(&root, tokens(5));
    clock.advance(Duration::from_secs(1));
    assert!(timed.record(tokens(0)).is_err());
    for waiter in &mut waiters {
        assert_eq!(
            waiter.refused().to_string(),
            "deadline of `timed` exceeded: 1s elapsed, budget 1s"
        );
    }
    assert!(patient.still_waits());
    drop(held);
    assert_eq!(patient.granted().amount(), tokens(5));
}

#[test]
fn closed_resolves_for_the_pool_and_all_below() {
    let root = BudgetPool::unlimited();
    let child = root.child().build();
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(Arc::clone(&wakes));
    let mut context = Context::from_waker(&waker);
    let (mut of_root, mut of_child, dropped) =
        (pin!(root.closed()), pin!(child.closed()), root.closed());
    assert!(
        of_root.as_mut().poll(&mut context).is_pending()
            && of_child.as_mut().poll(&mut context).is_pending()
    );
    drop(dropped);
    child.close();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    assert!(
        of_child.as_mut().poll(&mut context).is_ready()
            && of_root.as_mut().poll(&mut context).is_pending()
    );
    let mut below: Vec<_> = [root.child().build(), root.child().build().child().build()]
        .iter()
        .map(BudgetPool::closed)
        .collect();
    assert!(below.iter_mut().all(|closed| Pin::new(closed).poll(&mut context).is_pending()));
    root.close();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 4);
    assert!(
        of_root.as_mut().poll(&mut context).is_ready()
            && of_root.as_mut().poll(&mut context).is_ready()
    );
    assert!(below.iter_mut().all(|closed| Pin::new(closed).poll(&mut context).is_ready()));
}

#[test]
fn a_close_wakes_the_latest_waker_of_each_that_is_still_there_once() {
    let root = BudgetPool::unlimited();
    let child = root.child().build();
    let after = root.child().build();
    let wakes: [_; 6] = std::array::from_fn(|_| Arc::new(Wakes::default()));
    let wakers = wakes.each_ref().map(|wakes| Waker::from(Arc::clone(wakes)));
    let poll = |closed: &mut Closed, waker: usize| {
        Pin::new(closed).poll(&mut Context::from_waker(&wakers[waker]))
    };
    let [mut first, mut second, mut gone] = [child.closed(), child.closed(), child.closed()];
    let [mut of_root, mut beside] = [root.closed(), after.closed()];
    assert!(poll(&mut first, 0).is_pending() && poll(&mut first, 1).is_pending());
    assert!(poll(&mut second, 2).is_pending() && poll(&mut gone, 3).is_pending());
    assert!(poll(&mut of_root, 4).is_pending() && poll(&mut beside, 5).is_pending());
    drop(gone);
    // The test, and its wakers: of those that were replaced or dropped, no other is kept.
    assert_eq!(wakes.each_ref().map(Arc::strong_count), [2, 3, 3, 2, 3, 3]);
    child.close();
    child.close();
    assert_eq!(wakes.each_ref().map(|wakes| wakes.0.load(Ordering::SeqCst)), [0, 1, 1, 0, 0, 0]);
    assert!(
        poll(&mut first, 1).is_ready()
            && poll(&mut second, 2).is_ready()
            && poll(&mut of_root, 4).is_pending()
    );
}

/// Each close looks at what is below it, and not at all that wait for some other.
#[test]
fn closed_resolves_for_many_that_are_closed_one_by_one() {
    let root = BudgetPool::unlimited();
    let pools: Vec<_> = (0..50_000).map(|_| root.child().build()).collect();
    let mut context = Context::from_waker(Waker::noop());
    let mut closings: Vec<_> = pools.iter().map(BudgetPool::closed).collect();
    assert!(closings.iter_mut().all(|closed| Pin::new(closed).poll(&mut context).is_pending()));
    for at in 0..pools.len() {
        pools[at].close();
        assert!(Pin::new(&mut closings[at]).poll(&mut context).is_ready());
        assert!(
            closings
                .get_mut(at + 1)
                .is_none_or(|next| Pin::new(next).poll(&mut context).is_pending())
        );
    }
}

#[test]
fn p6_one_release_serves_a_long_line() {
    let pool = pool_of(100_000);
    let held = pool.reserve(tokens(100_000)).unwrap();
    let mut waiters: Vec<_> = (0..100_000).map(|_| Waiter::queued(&pool, tokens(1))).collect();
    drop(held);
    assert!(waiters.iter_mut().map(Waiter::granted).all(|hold| hold.amount() == tokens(1)));
}

#[test]
fn p6_behind_those_who_leave_together_the_earlier_one_is_first() {
    let root = pool_of(100);
    let (a, b) = (root.child().build(), root.child().build());
    let _held = root.reserve(tokens(90)).unwrap();
    let mut leaving = [Waiter::queued(&a, tokens(100)), Waiter::queued(&b, tokens(100))];
    let mut earlier = Waiter::queued(&b, tokens(5));
    let mut later = Waiter::queued(&a, tokens(5));
    root.debit(tokens(1));
    assert!(leaving.iter_mut().all(|waiter| waiter.refused().outlook() == Outlook::Never));
    // 9 are free: enough for one.
    assert_eq!(earlier.granted().amount(), tokens(5));
    assert_eq!(later.granted().amount(), tokens(5));
}

#[test]
fn p6_who_is_told_is_out_of_the_way_before_anybody_is_served() {
    let root = pool_of(15);
    let narrow = root.child().tokens(10).build();
    let _other = root.reserve(tokens(5)).unwrap();
    let held = narrow.reserve(tokens(10)).unwrap();
    let mut hopeless = Waiter::queued(&narrow, tokens(10));
    let mut earlier = Waiter::queued(&narrow, tokens(5));
    let mut later = Waiter::queued(&root, tokens(5));
    // There is room for one of them, and it belongs to the one behind.
    held.commit(tokens(5));
    assert_eq!(hopeless.refused().outlook(), Outlook::Never);
    assert_eq!(earlier.granted().amount(), tokens(5));
    assert_eq!(later.granted().amount(), tokens(5));
}

#[test]
fn p6_a_large_one_is_not_starved_by_two_streams_that_take_turns() {
    let root = BudgetPool::builder().tokens(10).build();
    let middle = root.child().requests(10).build();
    let (home, side) = (middle.child().build(), middle.child().build());
    let (all_tokens, all_requests) = (tokens(10), Amount::new().requests(10));
    let mut of_root = Some(root.reserve(all_tokens).unwrap());
    let mut of_middle = Some(side.reserve(all_requests).unwrap());
    let mut large = Waiter::queued(&home, all_tokens.requests(10));
    for _ in 0..3 {
        let mut next = Waiter::queued(&side, all_requests);
        drop(of_middle.take());
        of_middle = (next.wakes() == 1).then(|| next.granted());
        let mut next = Waiter::queued(&root, all_tokens);
        drop(of_root.take());
        of_root = (next.wakes() == 1).then(|| next.granted());
        if large.wakes() == 1 {
            drop(large.granted());
            return;
        }
    }
    panic!("starved");
}

#[test]
fn p6_a_place_is_kept_at_every_pool_on_the_way_where_others_ask_for_the_same() {
    let root = pool_of(10);
    let middle = root.child().name("middle").requests(10).build();
    let low = middle.child().name("low").usd(Usd::from_cents(10)).build();
    let _held = root.reserve(tokens(10)).unwrap();
    let (requests, cents) = (Amount::new().requests(1), Amount::new().usd(Usd::from_cents(1)));
    let mut large = Waiter::queued(&low.child().build(), (tokens(1) + cents).requests(10));
    // There is room for them, but not at the root for the one that came first.
    assert_eq!(queued_in(low.child().build().reserve(cents)), "low");
    assert_eq!(queued_in(middle.child().build().reserve(requests)), "middle");
    let (mut of_low, mut of_middle) =
        (Waiter::queued(&low, cents), Waiter::queued(&middle, requests));
    root.debit(tokens(0));
    assert!(large.still_waits() && of_low.still_waits() && of_middle.still_waits());
    drop(large);
    assert_eq!((of_low.granted().amount(), of_middle.granted().amount()), (cents, requests));
}

#[test]
fn p6_at_a_pool_that_it_only_passes_it_is_in_nobodys_way() {
    let root = pool_of(10);
    let middle = root.child().requests(1).build();
    let _held = root.reserve(tokens(10)).unwrap();
    let mut passes = Waiter::queued(&middle.child().build(), tokens(5));
    let requests = Amount::new().requests(1);
    let held = middle.reserve(requests).unwrap();
    let mut later = Waiter::queued(&middle, requests);
    drop(held);
    assert_eq!(later.granted().amount(), requests);
    assert!(passes.still_waits());
}

#[test]
fn p6_a_place_at_a_pool_is_kept_while_that_pool_refuses() {
    let root = pool_of(100);
    let narrow = root.child().tokens(60).build();
    let other = root.reserve(tokens(50)).unwrap();
    let held = narrow.reserve(tokens(10)).unwrap();
    let mut first = Waiter::queued(&narrow, tokens(50));
    let mut second = Waiter::queued(&root, tokens(10));
    // Now its own pool has no room for it, either.
    held.grow(tokens(1)).unwrap();
    root.debit(tokens(0));
    assert!(first.still_waits() && second.still_waits());
    drop((other, held));
    assert_eq!((first.granted().amount(), second.granted().amount()), (tokens(50), tokens(10)));
}

#[test]
fn p6_a_record_below_a_carve_tells_those_whom_it_leaves_nothing() {
    let root = pool_of(100);
    let share = root.child().tokens(50).carved().build().unwrap();
    let below = share.child().tokens(10).build();
    let _held = below.reserve(tokens(5)).unwrap();
    let mut waiter = Waiter::queued(&below, tokens(8));
    below.debit(tokens(5));
    assert_eq!(waiter.refused().outlook(), Outlook::Never);
}

#[test]
fn closing_grants_none_of_what_a_carved_child_gives_back() {
    let root = pool_of(10);
    let _share = root.child().tokens(10).carved().build().unwrap();
    let mut waiter = Waiter::queued(&root, tokens(5));
    root.close();
    assert_eq!(waiter.refused().to_string(), "`run` is closed");
}

#[test]
fn a_deadline_is_kept_when_one_of_those_who_wait_leaves() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(10)
        .deadline(Duration::from_secs(1))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let _held = pool.reserve(tokens(10)).unwrap();
    let leaves = Waiter::queued(&pool, tokens(5));
    let mut stays = Waiter::queued(&pool, tokens(5));
    drop(leaves);
    clock.advance(Duration::from_secs(1));
    assert!(pool.peek(tokens(0)).is_err());
    assert_eq!(stays.refused().axis(), Some(Axis::Deadline));
}

#[test]
fn one_touch_tells_all_whose_deadlines_have_come_and_no_others() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder()
        .tokens(10)
        .deadline(Duration::from_secs(9))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let _held = root.reserve(tokens(5)).unwrap();
    let timed = [1, 3, 2, 2, 4]
        .map(|deadline| root.child().deadline(Duration::from_secs(deadline)).build());
    let waiters = timed.each_ref().map(|pool| Waiter::queued(pool, tokens(10)));
    let mut behind = Waiter::queued(&timed[4], tokens(5));
    clock.advance(Duration::from_secs(3));
    _ = root.peek(tokens(0));
    assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 1, 1, 1, 0]);
    assert_eq!(root.snapshot().waiting, 2);
    let [.., last] = waiters;
    assert!(behind.still_waits());
    drop(last);
    assert_eq!(behind.granted().amount(), tokens(5));
}

#[test]
fn a_deadline_for_which_nobody_waits_any_more_concerns_nobody() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder()
        .tokens(10)
        .deadline(Duration::from_secs(9))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let held = root.reserve(tokens(10)).unwrap();
    let timed = root.child().deadline(Duration::from_secs(1)).build();
    drop(Waiter::queued(&timed, tokens(5)));
    drop(timed);
    // It may have its place.
    let mut waiter = Waiter::queued(&root.child().build(), tokens(5));
    clock.advance(Duration::from_secs(1));
    _ = root.peek(tokens(0));
    assert!(waiter.still_waits());
    drop(held);
    drop(waiter.granted());
}

#[test]
fn new_caps_grant_nothing_to_those_whose_deadline_has_come() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(10)
        .deadline(Duration::from_secs(1))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let _held = pool.reserve(tokens(10)).unwrap();
    let mut waiter = Waiter::queued(&pool, tokens(5));
    clock.advance(Duration::from_secs(1));
    pool.raise_caps(Caps::new().tokens(5)).unwrap();
    assert_eq!(waiter.refused().axis(), Some(Axis::Deadline));
}

#[test]
fn wakers_that_come_back_do_not_pile_up() {
    struct ComesBack(BudgetPool);
    impl Wake for ComesBack {
        fn wake(self: Arc<Self>) {
            let _ = self.0.is_closed();
        }
    }
    let pool = BudgetPool::builder().in_flight(1).build();
    let _held = pool.reserve(Amount::new()).unwrap();
    let waker = Waker::from(Arc::new(ComesBack(pool.clone())));
    let mut waits: Vec<_> =
        (0..100_000).map(|_| Box::pin(pool.reserve_wait(Amount::new()))).collect();
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    pool.close();
    assert_eq!(pool.snapshot().waiting, 0);
}

#[test]
fn a_waker_that_panics_or_comes_back_harms_nobody() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
    struct ComesBack(BudgetPool);
    impl Wake for ComesBack {
        fn wake(self: Arc<Self>) {
            drop(self.0.reserve(tokens(1)));
            drop(self.0.snapshot_tree());
        }
    }
    let pool = pool_of(100);
    let held = pool.reserve(tokens(100)).unwrap();
    let mut first = Box::pin(pool.reserve_wait(tokens(10)));
    assert!(
        first.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending()
    );
    let mut second = Box::pin(pool.reserve_wait(tokens(10)));
    let waker = Waker::from(Arc::new(ComesBack(pool.clone())));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut third = Waiter::queued(&pool, tokens(10));
    held.commit(tokens(50));
    drop(third.granted());
    drop((first, second));
    assert_eq!((pool.snapshot().tokens.used, pool.snapshot().tokens.reserved), (50, 0));
}

#[test]
fn a_wait_is_fused_send_unpin_and_debug() {
    fn sent<T: Send + Unpin>(_: &T) {}
    let pool = pool_of(1);
    let mut wait = pool.reserve_wait(tokens(1));
    sent(&wait);
    sent(&pool.closed());
    assert_eq!(format!("{wait:?}"), r#"Wait { pool: "run", state: "new", .. }"#);
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut wait).poll(&mut context).is_ready());
    assert!(Pin::new(&mut wait).poll(&mut context).is_pending());
    assert_eq!(format!("{wait:?}"), r#"Wait { pool: "run", state: "ended", .. }"#);
}

mod blocking {
    use super::*;

    #[test]
    fn a_thread_waits_for_another() {
        let pool = pool_of(100);
        let held = pool.reserve(tokens(100)).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.reserve_blocking(tokens(70)).unwrap().amount());
            while pool.snapshot().waiting == 0 {
                std::thread::yield_now();
            }
            drop(held);
            assert_eq!(waiting.join().unwrap(), tokens(70));
        });
    }

    #[test]
    fn a_wait_in_vain_ends_and_leaves_no_trace() {
        let pool = pool_of(100);
        let _held = pool.reserve(tokens(100)).unwrap();
        let refusal = pool
            .reserve_blocking(Ask::new(tokens(1)).wait_at_most(Duration::from_millis(20)))
            .unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "waited in vain in `run` for 20ms: tokens of `run` exceeded: 1 requested, 0 available, \
             cap 100, may fit after a release"
        );
        assert_eq!(
            (refusal.pool(), refusal.axis(), refusal.outlook()),
            ("run", Some(Axis::Tokens), Outlook::AfterRelease)
        );
        assert_eq!(pool.snapshot().waiting, 0);
        assert!(pool.reserve_blocking(Ask::new(tokens(1)).wait_at_most(Duration::ZERO)).is_err());
    }

    #[test]
    fn what_is_there_is_granted_whatever_the_timeout_and_one_beyond_all_instants_is_none() {
        let pool = pool_of(10);
        pool.reserve_blocking(Ask::new(tokens(10)).wait_at_most(Duration::ZERO)).unwrap().release();
        let held = pool.reserve(tokens(10)).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                pool.reserve_blocking(Ask::new(tokens(1)).wait_at_most(Duration::MAX))
                    .map(|hold| hold.amount())
            });
            while pool.snapshot().waiting == 0 && !waiting.is_finished() {
                std::thread::yield_now();
            }
            drop(held);
            assert_eq!(waiting.join().unwrap(), Ok(tokens(1)));
        });
    }

    #[test]
    fn the_deadline_ends_it() {
        let above = pool_of(1);
        let _held = above.reserve(tokens(1)).unwrap();
        let pool = above.child().deadline(Duration::from_millis(30)).build();
        let refusal = pool.reserve_blocking(tokens(1)).unwrap_err();
        assert_eq!(refusal.axis(), Some(Axis::Deadline));
    }

    #[test]
    fn many_threads_share_and_nothing_leaks() {
        let pool = BudgetPool::builder().in_flight(3).tokens(10).build();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let pool = &pool;
                scope.spawn(move || {
                    for step in 0..500 {
                        let hold = pool.reserve_blocking(tokens((thread + step) % 11)).unwrap();
                        hold.release();
                    }
                });
            }
        });
        let end = pool.snapshot();
        assert_eq!(
            (end.admitted, end.refused, end.waiting, end.tokens.reserved, end.reservations),
            (4_000, 0, 0, 0, 0)
        );
        assert!(end.in_flight.peak <= 3);
    }
}

mod runtimes {
    use super::*;

    use futures_lite::future::block_on;

    #[tokio::test(start_paused = true)]
    async fn tokio_and_its_timer_need_no_real_second() {
        let pool = BudgetPool::builder()
            .tokens(10)
            .clock(|| tokio::time::Instant::now().into_std())
            .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
            .deadline(Duration::from_secs(3_600))
            .build();
        let held = pool.reserve(tokens(10)).unwrap();
        let (served, late) = (
            tokio::spawn(pool.reserve_wait(tokens(4))),
            tokio::spawn(pool.reserve_wait(tokens(8))),
        );
        tokio::time::sleep(Duration::from_secs(5)).await;
        drop(held);
        let hold = served.await.unwrap().unwrap();
        assert_eq!(late.await.unwrap().unwrap_err().axis(), Some(Axis::Deadline));
        hold.commit_all();
    }

    #[tokio::test]
    async fn a_cancelled_task_gives_up_its_place() {
        let pool = pool_of(10);
        let held = pool.reserve(tokens(10)).unwrap();
        let task = tokio::spawn(pool.reserve_wait(tokens(10)));
        while pool.snapshot().waiting == 0 {
            tokio::task::yield_now().await;
        }
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(pool.snapshot().waiting, 0);
        drop(held);
        assert_eq!(pool.snapshot().tokens.reserved, 0);
    }

    #[test]
    fn smol_drives_it_too() {
        let pool = pool_of(10);
        let held = pool.reserve(tokens(10)).unwrap();
        let executor = async_executor::Executor::new();
        let task = executor.spawn(pool.reserve_wait(tokens(10)));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| block_on(executor.run(task)).map(|hold| hold.amount()));
            while pool.snapshot().waiting == 0 {
                std::thread::yield_now();
            }
            drop(held);
            assert_eq!(waiting.join().unwrap().unwrap(), tokens(10));
        });
    }
}

/// Spends that wait their turn.
mod spends {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use budget_pool::{RecordWait, Window};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn poll(wait: Pin<&mut RecordWait>) -> Poll<Result<(), BudgetError>> {
        wait.poll(&mut Context::from_waker(Waker::noop()))
    }

    /// A stream of small calls, each of which would fit, does not starve one that waits.
    #[test]
    fn p6_a_record_each_second_does_not_keep_a_waiter_from_a_bucket() {
        let clock = ManualClock::new();
        let window = Window::token_bucket(SECOND * 2);
        let pool = BudgetPool::builder()
            .requests(2)
            .window(window)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let requests = |n| Amount::new().requests(n);
        pool.record(requests(2)).unwrap();
        let mut waiter = Waiter::queued(&pool, requests(2));
        clock.advance(SECOND);
        let refused = pool.record(requests(1)).unwrap_err();
        assert_eq!(refused.to_string(), "others wait in `pool`");
        assert_eq!(pool.record_once("key", requests(1)).unwrap_err(), refused);
        assert_eq!(pool.record_and_snapshot(requests(1)).unwrap_err(), refused);
        assert_eq!(pool.lease(requests(1)).record(requests(1)).unwrap_err(), refused);
        assert_eq!(pool.peek(requests(1)).unwrap_err(), refused);
        assert_eq!(pool.snapshot().refused, 4, "a look is not counted");
        clock.advance(SECOND);
        assert!(matches!(pool.record(requests(1)), Err(BudgetError::Exceeded(_))));
        waiter.granted().commit_all();
    }

    #[test]
    fn what_belongs_to_a_call_that_runs_passes_those_who_wait() {
        let pool = pool_of(100);
        let hold = pool.reserve(tokens(20)).unwrap();
        let _other = pool.reserve(tokens(40)).unwrap();
        let _waiter = Waiter::queued(&pool, tokens(60));
        hold.record(tokens(25)).unwrap();
        hold.grow(tokens(5)).unwrap();
        drop(hold.split(tokens(1)).unwrap());
        pool.debit(tokens(1));
        assert!(matches!(pool.record(tokens(1)), Err(BudgetError::Queued { .. })));
    }

    #[test]
    fn p6_a_spend_waits_in_line_and_is_spent_when_it_is_collected() {
        let pool = pool_of(10);
        let hold = pool.reserve(tokens(8)).unwrap();
        let mut first = Waiter::queued(&pool, tokens(4));
        let mut spend = pin!(pool.record_wait(tokens(5).in_flight(7)));
        assert!(poll(spend.as_mut()).is_pending());
        drop(hold);
        // Nobody takes it in between, and nothing is spent yet.
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.tokens.used, snapshot.tokens.reserved), (0, 9));
        assert_eq!((snapshot.reservations, snapshot.in_flight.reserved), (1, 1));
        assert_eq!(poll(spend.as_mut()), Poll::Ready(Ok(())));
        assert!(poll(spend.as_mut()).is_pending(), "fused");
        first.granted().release();
        let snapshot = pool.snapshot();
        assert_eq!((snapshot.tokens.used, snapshot.tokens.reserved), (5, 0));
        assert_eq!((snapshot.admitted, snapshot.committed, snapshot.released), (3, 0, 2));
        check_invariants(&pool);
    }

    #[test]
    fn p3_a_spend_that_is_given_up_has_spent_nothing() {
        for is_granted in [false, true] {
            let pool = pool_of(10);
            let hold = pool.reserve(tokens(8)).unwrap();
            let mut spend = Box::pin(pool.record_wait(tokens(5)));
            assert!(poll(spend.as_mut()).is_pending());
            let mut behind = Waiter::queued(&pool, tokens(9));
            if is_granted {
                drop(hold);
                assert_eq!(pool.snapshot().tokens.reserved, 5);
                drop(spend);
            } else {
                drop(spend);
                drop(hold);
            }
            behind.granted().release();
            let snapshot = pool.snapshot();
            assert_eq!((snapshot.tokens.spent, snapshot.tokens.reserved), (0, 0));
            assert_eq!((snapshot.waiting, snapshot.reservations), (0, 0));
            check_invariants(&pool);
        }
    }

    #[test]
    fn a_spend_that_fits_does_not_wait_and_one_that_never_will_is_refused() {
        let pool = pool_of(10);
        pool.record_blocking(tokens(4)).unwrap();
        assert_eq!(poll(pin!(pool.record_wait(tokens(6)))), Poll::Ready(Ok(())));
        let refused = pool.record_blocking(tokens(1)).unwrap_err();
        assert_eq!(refused.outlook(), Outlook::Never);
        assert_eq!(pool.snapshot().tokens.used, 10);
    }

    /// Three holds of 4 from 10 would wait for each other: what is held does not come back.
    #[tokio::test(start_paused = true)]
    async fn three_spends_of_four_from_a_bucket_of_ten_are_done_in_time() {
        let pool = BudgetPool::builder()
            .requests(10)
            .window(Window::token_bucket(SECOND * 10))
            .clock(|| tokio::time::Instant::now().into_std())
            .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
            .build();
        let four = || pool.record_wait(Amount::new().requests(4));
        let start = tokio::time::Instant::now();
        tokio::try_join!(four(), four(), four()).unwrap();
        let took = start.elapsed();
        assert!(took >= SECOND * 2 && took < SECOND * 3, "{took:?}");
        let held = || pool.reserve_wait(Amount::new().requests(4));
        let all = async { tokio::try_join!(held(), held(), held()) };
        assert!(tokio::time::timeout(SECOND * 100, all).await.is_err(), "as the docs say");
    }
}

/// A pool whose waits only time may end, and no timer.
mod without_a_timer {
    use budget_pool::{OnDrop, Window};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn first_poll(pool: &BudgetPool) -> BudgetError {
        let mut wait = std::pin::pin!(pool.reserve_wait(tokens(5)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::future::Future::poll(wait.as_mut(), &mut context) {
            Poll::Ready(outcome) => outcome.unwrap_err(),
            Poll::Pending => panic!("it would sleep for ever"),
        }
    }

    #[test]
    fn p6_a_wait_is_refused_at_its_first_need_of_one() {
        let pool = || BudgetPool::builder().name("run").tokens(10);
        let windowed = pool().window(Window::token_bucket(SECOND)).build();
        windowed.record(tokens(10)).unwrap();
        let bounded = pool().deadline(SECOND * 100).build();
        let below = bounded.child().build();
        let held = bounded.reserve(tokens(10)).unwrap();
        let expiring = pool().build();
        let _brief = expiring.reserve(Ask::new(tokens(10)).ttl(SECOND * 100)).unwrap();
        for (pool, name) in
            [(&windowed, "run"), (&bounded, "run"), (&below, "pool"), (&expiring, "run")]
        {
            let refused = first_poll(pool);
            assert!(matches!(&refused, BudgetError::NoTimer { pool, .. } if pool == name));
            let text = refused.to_string();
            assert!(text.contains("give the root pool one, or wait by blocking"), "{text}");
            assert_eq!((pool.snapshot().waiting, pool.snapshot().refused), (0, 1));
            check_invariants(pool);
        }
        // What fits needs none.
        drop(held);
        assert!(futures_ready(&bounded));
    }

    fn futures_ready(pool: &BudgetPool) -> bool {
        let mut wait = std::pin::pin!(pool.record_wait(tokens(5)));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        std::future::Future::poll(wait.as_mut(), &mut context).is_ready()
    }

    #[test]
    fn p6_a_bill_that_comes_due_elsewhere_is_no_need_of_one() {
        let root = BudgetPool::builder().requests(5).build();
        let [billed, pool] = [0, 1].map(|_| root.child().tokens(10).build());
        let request = Ask::new(Amount::new().requests(1)).ttl(SECOND * 100);
        let _brief = billed.reserve(request.on_drop(OnDrop::Commit)).unwrap();
        let held = pool.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(5));
        drop(held);
        waiter.granted().release();
    }

    #[test]
    fn p6_a_waiter_that_comes_to_need_one_is_told_and_those_behind_it_are_served() {
        let pool = BudgetPool::builder().tokens(10).build();
        let hold = pool.reserve(tokens(8)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(9));
        let mut behind = Waiter::queued(&pool, tokens(2));
        hold.renew(SECOND * 100).unwrap();
        assert!(matches!(waiter.refused(), BudgetError::NoTimer { .. }));
        behind.granted().release();
        check_invariants(&pool);
    }

    #[test]
    fn p6_a_thread_needs_none() {
        let window = Window::token_bucket(Duration::from_millis(100));
        let pool = BudgetPool::builder().tokens(10).window(window).build();
        pool.record_blocking(tokens(10)).unwrap();
        pool.record_blocking(tokens(3)).unwrap();
        pool.reserve_blocking(tokens(3)).unwrap().commit_all();
    }
}

/// A line that has an end.
mod a_bounded_queue {
    use super::*;

    fn refused(pool: &BudgetPool, amount: Amount) -> (String, u64) {
        let refused = pool.reserve_blocking(amount).unwrap_err();
        assert_eq!((refused.kind(), refused.outlook()), ("queue_full", Outlook::AfterRelease));
        (refused.pool().to_owned(), pool.snapshot().waiting)
    }

    #[test]
    fn a_wait_that_finds_too_many_before_it_is_refused_at_once() {
        let root = BudgetPool::builder().name("root").tokens(10).most_waiting(3).build();
        let [a, b] = ["a", "b"].map(|name| root.child().name(name).most_waiting(2).build());
        let hold = root.reserve(tokens(10)).unwrap();
        let mut first = [(); 2].map(|()| Waiter::queued(&a, tokens(5)));
        assert_eq!(refused(&a, tokens(1)), ("a".into(), 2));
        let third = Waiter::queued(&b, tokens(5));
        assert_eq!(refused(&b, tokens(1)), ("root".into(), 1));
        assert!(matches!(root.record_blocking(tokens(1)), Err(BudgetError::QueueFull { .. })));
        assert_eq!(root.snapshot().refused, 3);
        // A place that is given up is free again.
        drop(third);
        let _third = Waiter::queued(&b, tokens(10));
        drop(hold);
        first.iter_mut().map(Waiter::granted).for_each(Reservation::release);
        check_invariants(&root);
    }

    #[test]
    fn what_fits_needs_no_place() {
        let pool = BudgetPool::builder().name("run").tokens(10).most_waiting(0).build();
        let hold = pool.reserve_blocking(tokens(8)).unwrap();
        pool.record_blocking(tokens(2)).unwrap();
        assert_eq!(refused(&pool, tokens(3)), ("run".into(), 0));
        drop(hold);
        let never = pool.reserve_blocking(tokens(11)).unwrap_err();
        assert_eq!(never.outlook(), Outlook::Never);
    }
}

/// Each hold that is settled leaves one more waiter no hope. The waiters are told by one call, which
/// takes neither a stack nor a time that grows with the square of their number.
#[test]
fn p6_expiries_that_each_leave_one_no_hope_are_not_nested() {
    let many = 20_000;
    let clock = ManualClock::new();
    let parent = BudgetPool::builder().tokens(2 * many).clock(clock.clone()).build();
    let ask = Ask::new(tokens(1)).ttl(Duration::from_secs(1)).on_drop(OnDrop::Commit);
    let holds: Vec<_> = (0..many).map(|_| parent.reserve(ask.clone()).unwrap()).collect();
    let child = parent.child().requests(1).build();
    let one = Amount::new().requests(1);
    let held = child.reserve(one).unwrap();
    let first = Waiter::queued(&child, one);
    let mut others: Vec<_> =
        (0..=many).map(|i| Waiter::queued(&child, one.tokens(2 * many - i))).collect();
    clock.advance(Duration::from_secs(1));
    parent.debit(Amount::new());
    // A half of the cap is spent: those who want more than the rest are told, and no others.
    let (last, told) = others.split_last().expect("there are many");
    assert!(told.iter().all(|waiter| waiter.wakes() == 1) && last.wakes() == 0);
    assert_eq!(others[0].refused().outlook(), Outlook::Never);
    assert_eq!(parent.snapshot().waiting, 2);
    drop((first, others, held, holds));
    assert_eq!(parent.snapshot().tokens.used, many);
}
