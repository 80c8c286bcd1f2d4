//! Slots in flight, own axes, holds that become one.

use super::*;

const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");
const BYTES: Axis = Axis::custom(3, "bytes");

#[test]
fn a_call_inside_a_request_takes_no_slot() {
    let pool = BudgetPool::builder().in_flight(2).build();
    let requests: Vec<_> = (0..2)
        .map(|_| {
            let request = pool.reserve(Amount::new()).unwrap();
            (request, pool.reserve(tokens(5).in_flight(0)).unwrap())
        })
        .collect();
    let slots = pool.snapshot().in_flight;
    assert_eq!((slots.reserved, pool.snapshot().reservations), (2, 4));
    assert!(pool.reserve(Amount::new()).is_err());
    drop(requests);
    let heavy = pool.reserve(Amount::new().in_flight(2)).unwrap();
    assert_eq!(heavy.amount(), Amount::new().in_flight(2));
    assert!(pool.reserve(Amount::new()).is_err());
    heavy.shrink(Amount::new().in_flight(1)).unwrap();
    let light = pool.reserve(Amount::new()).unwrap();
    assert_eq!(heavy.grow(Amount::new().in_flight(1)).unwrap_err().axis(), Some(Axis::InFlight));
    drop(light);
    heavy.grow(Amount::new().in_flight(1)).unwrap();
    assert_eq!(pool.snapshot().in_flight.reserved, 2);
}

#[test]
fn what_is_no_hold_ignores_in_flight() {
    let pool = BudgetPool::builder().in_flight(1).build();
    let weighted = tokens(1).in_flight(9);
    pool.record(weighted).unwrap();
    pool.peek(weighted).unwrap();
    pool.debit(weighted);
    pool.record_once("key", weighted).unwrap();
    pool.lease(weighted).record(weighted).unwrap();
    pool.set_used(weighted).unwrap();
    let hold = pool.reserve(tokens(3)).unwrap();
    hold.record(weighted).unwrap();
    hold.debit(weighted);
    hold.commit(weighted);
    let slots = pool.snapshot().in_flight;
    assert_eq!((slots.used, slots.reserved, slots.spent), (0, 0, 0));
}

#[test]
fn a_split_asks_for_a_slot_or_moves_those_it_names() {
    let pool = BudgetPool::builder().in_flight(3).build();
    let hold = pool.reserve(tokens(10).in_flight(2)).unwrap();
    let half = hold.split(tokens(4)).unwrap();
    assert_eq!((half.amount(), pool.snapshot().in_flight.reserved), (tokens(4), 3));
    assert!(hold.split(tokens(1)).is_err(), "all slots are taken");
    let moved = hold.split(tokens(1).in_flight(1)).unwrap();
    assert_eq!((hold.amount(), moved.amount()), (tokens(5), tokens(1)));
    let inner = hold.split(tokens(1).in_flight(0)).unwrap();
    assert_eq!(inner.amount(), tokens(1).in_flight(0));
    assert_eq!(hold.split(Amount::new().in_flight(2)).unwrap_err().axis(), Some(Axis::InFlight));
    assert_eq!(pool.snapshot().in_flight.reserved, 3);
    check_invariants(&pool);
}

#[test]
fn p3_two_holds_become_one_and_nothing_is_asked() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().tokens(10).clock(clock.clone()).build();
    let ttl = Duration::from_secs(9);
    let first = pool.reserve(tokens(4)).unwrap().label("first").commit_on_drop();
    let second = pool.reserve(Ask::new(tokens(6).requests(1)).ttl(ttl)).unwrap().label("second");
    first.debit(tokens(1));
    second.debit(tokens(2));
    let before = pool.snapshot();
    first.merge(second).unwrap();
    let after = pool.snapshot();
    assert_eq!((before.reservations, after.reservations), (2, 1));
    assert_eq!([after.committed, after.released, after.expired], [0; 3]);
    assert_eq!(books(before.tokens), books(after.tokens));
    assert_eq!(first.amount(), tokens(7).requests(1).in_flight(2));
    clock.advance(ttl);
    assert!(!first.is_expired(), "the time of the other went with it");
    assert_eq!(pool.holders()[0].label.as_deref(), Some("first"));
    // What both metered counts in the total.
    let receipt = first.commit(tokens(1));
    assert_eq!((receipt.credited(), token_books(&pool)), (tokens(2), [1, 0, 0, 1]));
    assert_eq!(pool.snapshot().in_flight.reserved, 0);
    check_invariants(&pool);
}

#[test]
fn p2_what_one_of_two_would_book_by_a_drop_is_booked_after_they_merged() {
    let pool = BudgetPool::unlimited();
    for committing in 0..2 {
        let [first, second] = [0, 1].map(|place| {
            let hold = pool.reserve(Ask::new(tokens(5)).ttl(Duration::from_secs(60))).unwrap();
            if place == committing { hold.commit_on_drop() } else { hold }
        });
        first.merge(second).unwrap();
        check_invariants(&pool);
    }
    assert_eq!(token_books(&pool), [20, 0, 0, 20]);
}

#[test]
fn a_merge_that_cannot_be_gives_the_other_back() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().clock(clock.clone()).name("one").build();
    let other = pool.child().name("other").build();
    let hold = pool.reserve(tokens(1)).unwrap();
    let refused = hold.merge(other.reserve(tokens(2)).unwrap()).unwrap_err();
    assert!(matches!(refused.error(), BudgetError::ForeignPool { pool, .. } if pool == "other"));
    assert_eq!(refused.into_reservation().amount(), tokens(2));
    for is_first in [false, true] {
        let brief = pool.reserve(Ask::new(tokens(3)).ttl(Duration::from_secs(1))).unwrap();
        let long = pool.reserve(tokens(4)).unwrap();
        clock.advance(Duration::from_secs(1));
        let (first, second) = if is_first { (brief, long) } else { (long, brief) };
        let refused = first.merge(second).unwrap_err();
        assert!(matches!(refused.error(), BudgetError::Expired { .. }), "{refused:?}");
        assert_eq!(first.is_expired(), is_first);
        assert_eq!(refused.into_reservation().is_expired(), !is_first);
    }
    check_invariants(&pool);
}

#[test]
fn own_axes_are_capped_named_and_counted_as_any_other() {
    let root = BudgetPool::builder().name("run").axis(BYTES).cap(TOOL_CALLS, 3).build();
    let tool = root.child().name("search").cap(Axis::custom(0, "other label"), 2).build();
    tool.record(Amount::of(TOOL_CALLS, 2).with(BYTES, 700)).unwrap();
    let refused = tool.record(Amount::of(TOOL_CALLS, 1)).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "tool calls of `search` exceeded: 1 requested, 0 available, cap 2, will never fit"
    );
    assert_eq!(refused.axis(), Some(TOOL_CALLS));
    assert!(root.reserve(Amount::of(TOOL_CALLS, 2)).is_err());
    let hold = root.reserve(Amount::of(TOOL_CALLS, 1).with(BYTES, 9)).unwrap().label("agent");
    assert_eq!(root.holders()[0].amount.to_string(), "1 tool calls, 9 bytes");
    assert_eq!(hold.amount().to_string(), "1 tool calls, 9 bytes");
    let calls = root.snapshot().axis(TOOL_CALLS).unwrap();
    assert_eq!((calls.used.units(), calls.reserved.to_string()), (2, "1 tool calls".into()));
    let text = root.snapshot().to_string();
    assert!(text.contains("tool calls") && text.contains("bytes"), "{text}");
    assert!(!text.contains("custom"), "{text}");
    let unknown = BudgetPool::unlimited();
    unknown.record(Amount::of(BYTES, 1)).unwrap();
    assert!(unknown.snapshot().to_string().contains("custom 3"));
}

/// By the label of the amount that was told; and by that of the tree for what was held and not told.
#[test]
fn a_receipt_names_own_axes_by_their_labels() {
    let pool = BudgetPool::builder().cap(TOOL_CALLS, 3).axis(BYTES).build();
    let held = Amount::of(TOOL_CALLS, 1).with(BYTES, 9);
    let hold = |ttl| pool.reserve(Ask::new(held).ttl(Duration::from_secs(ttl))).unwrap();
    let said = |receipt: Receipt| receipt.settled().to_string();
    assert_eq!(said(hold(60).commit_all()), "1 tool calls, 9 bytes");
    assert_eq!(said(hold(60).commit(Amount::of(BYTES, 7))), "1 tool calls, 7 bytes");
    assert_eq!(said(hold(0).commit(Amount::of(TOOL_CALLS, 2))), "2 tool calls, 9 bytes");
    pool.credit(Amount::of(TOOL_CALLS, 2));
    let strict = hold(60).try_commit(tokens(5).with(BYTES, 8)).unwrap();
    assert_eq!(said(strict), "5 tokens, 1 tool calls, 8 bytes");
    let calls = Amount::of(TOOL_CALLS, 2);
    assert_eq!(said(pool.reserve(Amount::new()).unwrap().debit(calls)), "2 tool calls");
    assert_eq!(pool.debit(calls).overage().to_string(), "2 tool calls");
    assert_eq!(pool.debit_once("event", calls).unwrap().overage().to_string(), "2 tool calls");
    assert_eq!(pool.credit(calls).credited().to_string(), "2 tool calls");
}

/// Also an axis that no cap names.
#[test]
fn a_tree_learns_the_labels_of_all_that_a_pool_is_built_with() {
    let with = BudgetPool::builder;
    let builders = [
        with().used(Amount::of(TOOL_CALLS, 7)),
        with().low(Amount::of(TOOL_CALLS, 7)),
        with().ceiling(Caps::of(TOOL_CALLS, 7)),
    ];
    for builder in builders {
        let pool = builder.build();
        pool.debit(Amount::of(Axis::custom(0, "other label"), 1));
        let text = pool.snapshot().to_string();
        assert!(text.contains("tool calls"), "{text}");
    }
}

#[test]
fn a_label_of_an_axis_stays_in_its_line() {
    let axis = Axis::custom(2, "tool\ncalls\u{1b}[31m");
    let pool = BudgetPool::builder().cap(axis, 0).build();
    let refused = pool.record(Amount::of(axis, 1)).unwrap_err().to_string();
    let uncapped = pool.child().build();
    let refusals = [refused, uncapped.transfer(&pool, Caps::of(axis, 0)).unwrap_err().to_string()];
    for text in refusals.into_iter().chain([Amount::of(axis, 1).to_string()]) {
        assert!(!text.contains(char::is_control) && text.contains("tool\\ncalls"), "{text}");
    }
    assert_eq!(pool.snapshot().to_string().lines().count(), 3);
}

#[test]
fn a_holder_has_its_own_label_and_says_since_when() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().clock(clock.clone()).deadline(Duration::from_secs(99)).build();
    let second = Duration::from_secs(1);
    let holds: Vec<_> = (0..3)
        .map(|agent| {
            clock.advance(second);
            pool.reserve(Ask::new(tokens(3 - agent)).ttl(second * 10))
                .unwrap()
                .label(format!("agent {agent}"))
        })
        .collect();
    clock.advance(second);
    let holders = pool.holders();
    let seen: Vec<_> = holders
        .iter()
        .map(|holder| (holder.label.as_deref(), holder.expires_in.unwrap().as_secs()))
        .collect();
    assert_eq!(seen, [(Some("agent 0"), 7), (Some("agent 1"), 8), (Some("agent 2"), 9)]);
    let since: Vec<_> = holders.iter().map(|holder| holder.since.unwrap()).collect();
    assert_eq!([since[1] - since[0], since[2] - since[1]], [second; 2]);
    drop(holds);
    let untimed = BudgetPool::unlimited();
    let _hold = untimed.reserve(tokens(1)).unwrap();
    let holder = &untimed.holders()[0];
    assert_eq!((&holder.label, holder.since, holder.expires_in), (&None, None, None));
}

#[test]
fn p5_a_spend_and_its_balance_are_one_instant() {
    let pool = BudgetPool::builder().requests(1_000).build();
    thread::scope(|scope| {
        let seen: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| -> Vec<u64> {
                    let one = Amount::new().requests(1);
                    let spend = || pool.record_and_snapshot(one).ok();
                    std::iter::from_fn(spend).map(|snapshot| snapshot.requests.used).collect()
                })
            })
            .collect();
        let mut all: Vec<_> = seen.into_iter().flat_map(|seen| seen.join().unwrap()).collect();
        all.sort_unstable();
        assert!(all.into_iter().eq(1..=1_000), "each spend has a balance of its own");
    });
}

#[test]
fn a_weak_handle_does_not_keep_its_pool() {
    let root = BudgetPool::builder().tokens(10).build();
    let pool = root.child().tokens(5).carved().build().unwrap();
    let weak = pool.downgrade();
    let again = weak.upgrade().unwrap();
    assert!(again.ptr_eq(&pool) && !again.ptr_eq(&root));
    assert!(weak.ptr_eq(&again.downgrade()) && !weak.ptr_eq(&root.downgrade()));
    drop(again);
    let hold = pool.reserve(tokens(1)).unwrap();
    drop(pool);
    assert!(weak.upgrade().is_some(), "the hold keeps it");
    drop(hold);
    assert!(weak.upgrade().is_none());
    assert_eq!(token_books(&root), [0, 0, 0, 0], "its share has come back");
    assert!(budget_pool::WeakPool::dangling().upgrade().is_none());
}

#[test]
fn a_holder_says_since_when_however_it_was_had() {
    let clock = ManualClock::new();
    let deadline = Duration::from_secs(99);
    let pool = BudgetPool::builder().tokens(10).clock(clock.clone()).timer(by_hand);
    let pool = pool.deadline(deadline).build();
    let since = |pool: &BudgetPool| pool.holders().first().and_then(|holder| holder.since);
    let hold = pool.reserve(tokens(10)).unwrap();
    assert_eq!(since(&pool), Some(clock.now()), "at once");
    let mut waiter = Waiter::queued(&pool, tokens(10));
    clock.advance(Duration::from_secs(1));
    drop(hold);
    let granted = waiter.granted();
    assert_eq!(since(&pool), Some(clock.now()), "from the line");
    drop(granted);
    let mut wait = Box::pin(pool.reserve_wait(tokens(10)));
    let polled = wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_ready());
    assert_eq!(since(&pool), Some(clock.now()), "by a wait at once");
}
