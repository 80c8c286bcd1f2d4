//! P7: a refusal names axis, pool, figures and outlook.

use std::task::Poll;

use super::*;

#[test]
fn the_first_refusal_is_named_from_the_called_pool_upward_and_axes_in_order() {
    let root = BudgetPool::builder().name("tenant").tokens(100).build();
    let child = root.child().name("agent").requests(1).usd(Usd::from_nanos(1)).build();
    let all = tokens(500).requests(2).usd(Usd::from_nanos(2));
    let error = child.record(all).unwrap_err();
    assert_eq!((error.axis(), error.pool()), (Some(Axis::Requests), "agent"));
    let error = child.record(tokens(500)).unwrap_err();
    assert_eq!((error.axis(), error.pool()), (Some(Axis::Tokens), "tenant"));
    let BudgetError::Exceeded(exceeded) = error else { panic!("{error}") };
    assert_eq!(exceeded.requested().units(), 500);
    assert_eq!(exceeded.available().units(), 100);
    assert_eq!(exceeded.cap().unwrap().units(), 100);
}

#[test]
fn the_outlook_is_the_worst_over_all_that_refuse() {
    let root = pool_of(100);
    let child = root.child().tokens(60).build();
    let hold = child.reserve(tokens(60)).unwrap();
    assert_eq!(child.record(tokens(60)).unwrap_err().outlook(), Outlook::AfterRelease);
    root.record(tokens(40)).unwrap();
    assert_eq!(child.record(tokens(60)).unwrap_err().outlook(), Outlook::AfterRelease);
    hold.commit(tokens(1));
    drop(child.reserve(tokens(59)).unwrap());
    // The child may fit again, the parent never: it refuses second, and its outlook counts.
    let hold = child.reserve(tokens(59)).unwrap();
    root.debit(tokens(10));
    assert_eq!(child.record(tokens(55)).unwrap_err().outlook(), Outlook::Never);
    drop(hold);
}

#[test]
fn the_order_is_closed_then_deadline_then_capacity() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("run")
        .tokens(1)
        .deadline(Duration::from_secs(1))
        .clock(clock.clone())
        .build();
    assert!(matches!(pool.record(tokens(2)), Err(BudgetError::Exceeded(_))));
    clock.advance(Duration::from_millis(1_250));
    let error = pool.record(tokens(2)).unwrap_err();
    assert_eq!(error.to_string(), "deadline of `run` exceeded: 1.25s elapsed, budget 1s");
    assert_eq!((error.axis(), error.outlook()), (Some(Axis::Deadline), Outlook::Never));
    pool.close();
    let error = pool.record(tokens(2)).unwrap_err();
    assert_eq!(error.to_string(), "`run` is closed");
    assert_eq!((error.axis(), error.outlook(), error.pool()), (None, Outlook::Never, "run"));
}

#[test]
fn texts_are_one_lowercase_line_with_units() {
    let pool = BudgetPool::builder().name("run-17").usd(Usd::from_cents(10)).in_flight(1).build();
    let error = pool.record(Amount::new().usd(Usd::from_cents(12))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "USD of `run-17` exceeded: 0.12 requested, 0.1 available, cap 0.1, will never fit"
    );
    let _hold = pool.reserve(Amount::new()).unwrap();
    let error = pool.reserve(Amount::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "in flight of `run-17` exceeded: 1 requested, 0 available, cap 1, may fit after a release"
    );
    pool.record(tokens(1)).unwrap();
    let error = pool.record(tokens(u64::MAX)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "tokens of `run-17` exceeded: 18446744073709551615 requested, 18446744073709551614 available, will never fit"
    );
    assert_eq!(error.pool(), "run-17");
}

fn exceeded<T: std::fmt::Debug>(answer: Result<T, BudgetError>) -> BudgetExceeded {
    match answer.unwrap_err() {
        BudgetError::Exceeded(exceeded) => exceeded,
        other => panic!("{other}"),
    }
}

/// A timeout has the figures of the refusal that it carries.
#[test]
fn a_refusal_for_capacity_has_figures_and_no_other_has() {
    let pool = BudgetPool::builder().tokens(10).in_flight(1).build();
    let refused = pool.record(tokens(11)).unwrap_err();
    let figures = |error: &BudgetError| {
        error.exceeded().map(|exceeded| (exceeded.axis(), exceeded.requested().units()))
    };
    assert_eq!(figures(&refused), Some((Axis::Tokens, 11)));
    let _held = pool.reserve(tokens(10)).unwrap();
    let late = pool.reserve_blocking(Ask::new(tokens(3)).wait_at_most(Duration::ZERO)).unwrap_err();
    assert!(matches!(late, BudgetError::Timeout { .. }), "{late}");
    assert_eq!(figures(&late), Some((Axis::Tokens, 3)));
    pool.close();
    assert_eq!(figures(&pool.record(tokens(11)).unwrap_err()), None);
}

#[test]
fn attempted_is_what_used_and_reserved_would_have_been() {
    let root = BudgetPool::builder().name("root").tokens(1_000).in_flight(3).build();
    let run = root.child().name("run").tokens(100).usd(Usd::from_nanos(10)).build();
    let share = root.child().name("share").tokens(50).carved().build().unwrap();
    run.record(tokens(29).usd(Usd::from_nanos(4))).unwrap();
    let hold = run.reserve(tokens(20)).unwrap();
    let strict = run.reserve(tokens(10)).unwrap();
    let last = run.reserve(Amount::new()).unwrap();
    let mut lease = run.lease(tokens(9));
    lease.record(tokens(1)).unwrap();
    assert_eq!(lease.remaining(), tokens(5), "an eighth of 40");
    // 65 of 100 are used or reserved in `run`, 115 of 1000 in `root`, all 3 are in flight.
    let refusals = [
        ("record", exceeded(run.record(tokens(36))), 36),
        ("peek", exceeded(run.peek(tokens(36))), 36),
        ("record_once", exceeded(run.record_once("job", tokens(37))), 37),
        ("money", exceeded(run.record(usd(7))), 7),
        ("reserve", exceeded(run.reserve(tokens(38))), 38),
        ("a wait", exceeded(run.reserve_blocking(tokens(101))), 101),
        ("in flight", exceeded(run.reserve(Amount::new())), 1),
        ("a new lease's record", exceeded(run.lease(tokens(9)).record(tokens(39))), 39),
        ("a lease's record", exceeded(lease.record(tokens(5 + 40))), 40),
        ("grow", exceeded(hold.grow(tokens(41))), 41),
        ("a hold's record", exceeded(hold.record(tokens(20 + 42))), 42),
        ("split", exceeded(hold.split(tokens(1))), 1),
        ("above", exceeded(root.child().build().record(tokens(886))), 886),
        ("carve", exceeded(root.child().tokens(887).carved().build()), 887),
        ("a share that grows", exceeded(share.raise_caps(Caps::new().tokens(888))), 888),
        ("lower_caps", exceeded(run.lower_caps(Caps::new().tokens(43))), 43),
    ];
    for (call, refusal, requested) in &refusals {
        let pool = if refusal.pool() == "run" { &run } else { &root };
        let balance = pool.snapshot().axis(refusal.axis()).unwrap();
        let taken = balance.used.units() + balance.reserved.units();
        assert_eq!(refusal.requested().units(), *requested, "{call}");
        assert_eq!(refusal.attempted().units(), taken + requested, "{call}: {refusal}");
        assert_eq!(refusal.attempted().axis(), refusal.axis(), "{call}");
        assert!(refusal.attempted().units() > refusal.cap().unwrap().units(), "{call}");
    }
    let refused = exceeded(strict.try_commit(tokens(10 + 44)).map_err(|refused| {
        let error = refused.error().clone();
        refused.into_reservation().release();
        error
    }));
    assert_eq!((refused.requested().units(), refused.attempted().units()), (44, 65 + 44));
    drop((hold, last, lease));
}

#[test]
fn attempted_ends_at_the_last_number() {
    let pool = BudgetPool::builder().name("run").tokens(100).build();
    pool.record(tokens(30).requests(9)).unwrap();
    let hold = pool.reserve(tokens(20)).unwrap();
    let above_it = exceeded(pool.record(tokens(u64::MAX)));
    let uncapped = exceeded(pool.record(Amount::new().requests(u64::MAX - 8)));
    let beyond_all = exceeded(pool.raise_caps(Caps::new().tokens(u64::MAX)));
    assert_eq!((uncapped.cap(), uncapped.available().units()), (None, u64::MAX - 9));
    assert_eq!(beyond_all.cap().map(|cap| cap.units()), Some(u64::MAX));
    assert_eq!(beyond_all.available().units(), u64::MAX - 100);
    for refusal in [above_it, uncapped, beyond_all] {
        assert_eq!(refusal.attempted().units(), u64::MAX, "{refusal}");
    }
    // A hold is what is available of itself, and the cap: nothing of it is taken.
    for refusal in [exceeded(hold.shrink(tokens(21))), exceeded(hold.split(tokens(21)))] {
        assert_eq!(refusal.cap().map(|cap| cap.units()), Some(20));
        assert_eq!(refusal.attempted().units(), 21, "{refusal}");
    }
}

/// Also where the pool has none.
#[test]
fn where_a_hold_is_too_small_the_held_units_stand_for_the_cap() {
    for pool in [BudgetPool::unlimited(), BudgetPool::builder().tokens(9).build()] {
        let hold = pool.reserve(tokens(5)).unwrap();
        for refused in [exceeded(hold.split(tokens(6))), exceeded(hold.shrink(tokens(6)))] {
            assert_eq!(refused.available().units(), 5);
            assert_eq!(refused.cap().map(|cap| cap.units()), Some(5));
            let text = "tokens of `pool` exceeded: 6 requested, 5 available, cap 5, will never fit";
            assert_eq!(refused.to_string(), text);
        }
    }
}

#[test]
fn a_check_answers_as_record_and_changes_nothing() {
    let pool = pool_of(100);
    let before = pool.snapshot();
    pool.peek(tokens(100)).unwrap();
    assert_eq!(pool.peek(tokens(101)).unwrap_err(), pool.record(tokens(101)).unwrap_err());
    assert_eq!(pool.snapshot().refused, before.refused + 1, "the record alone was counted");
    assert_eq!(pool.snapshot().tokens, before.tokens);
}

#[test]
fn a_check_of_a_pool_that_is_closed_paused_or_late_answers_as_record() {
    type Stop = fn(&BudgetPool, &ManualClock);
    let stops: [(&str, Stop); 3] = [
        ("closed", |pool, _| pool.close()),
        ("paused", |pool, _| pool.pause(Duration::from_secs(9))),
        ("deadline_exceeded", |_, clock| clock.advance(Duration::from_secs(1))),
    ];
    for (kind, stop) in stops {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).tokens(10);
        // The time plays no part in the others, whose calls take the short way.
        let root = if kind == "deadline_exceeded" {
            root.deadline(Duration::from_secs(1)).build()
        } else {
            root.build()
        };
        let child = root.child().build();
        stop(&root, &clock);
        for pool in [&root, &child] {
            let refused = pool.peek(tokens(1)).unwrap_err();
            assert_eq!(refused.kind(), kind);
            assert_eq!(refused, pool.record(tokens(1)).unwrap_err());
        }
    }
}

#[test]
fn closing_closes_what_is_below_and_names_the_outermost() {
    let root = BudgetPool::builder().name("root").build();
    let child = root.child().name("child").build();
    let (leaf, sibling) =
        (child.child().name("leaf").build(), root.child().name("sibling").build());
    child.close();
    assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "child");
    assert!(child.child().build().is_closed(), "born closed");
    sibling.record(tokens(1)).unwrap();
    root.close();
    assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "root");
    assert!(sibling.is_closed() && root.snapshot_tree().iter().all(|pool| pool.closed));
}

#[test]
fn what_a_hold_or_a_lease_has_itself_counts_as_reserved_when_it_asks_for_more() {
    let pool = pool_of(100);
    let hold = pool.reserve(tokens(60)).unwrap();
    assert_eq!(hold.grow(tokens(41)).unwrap_err().outlook(), Outlook::AfterRelease);
    assert_eq!(hold.grow(tokens(100)).unwrap_err().outlook(), Outlook::AfterRelease);
    assert_eq!(hold.grow(tokens(101)).unwrap_err().outlook(), Outlook::Never);
    drop(hold);
    let mut lease = pool.lease(tokens(12));
    lease.record(tokens(1)).unwrap();
    assert_eq!((lease.remaining(), balance(&pool)), (tokens(12), [1, 12, 0]));
    // Its own share are 12: the rest is asked of the pool, which has 87 free and has spent 1.
    assert_eq!(lease.record(tokens(12 + 88)).unwrap_err().outlook(), Outlook::AfterRelease);
    assert_eq!(lease.record(tokens(12 + 99)).unwrap_err().outlook(), Outlook::AfterRelease);
    assert_eq!(lease.record(tokens(12 + 100)).unwrap_err().outlook(), Outlook::Never);
}

/// How many more were admitted and refused.
fn counted(pool: &BudgetPool, call: impl FnOnce()) -> [u64; 2] {
    let counts = || {
        let snapshot = pool.snapshot();
        [snapshot.admitted, snapshot.refused]
    };
    let before = counts();
    call();
    let after = counts();
    [after[0] - before[0], after[1] - before[1]]
}

#[test]
fn what_asks_for_capacity_is_counted_as_admitted_or_refused_and_nothing_else_is() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().name("root").tokens(1_000).clock(clock.clone()).build();
    let pool =
        root.child().name("run").tokens(100).idempotency_keys(1, Duration::from_secs(9)).build();
    let (hold, too_much) = (pool.reserve(tokens(10)).unwrap(), tokens(1_000));
    let expired = pool.reserve(Ask::new(tokens(1)).ttl(Duration::ZERO)).unwrap();
    let mut lease = pool.lease(tokens(10));
    let [admitted, refused, neither] = [[1, 0], [0, 1], [0, 0]];
    let first = counted(&pool, || lease.record(tokens(1)).unwrap());
    assert_eq!((first, lease.remaining()), (admitted, tokens(10)), "its share was empty");
    type Call<'a> = Box<dyn FnOnce() + 'a>;
    let calls: Vec<([u64; 2], Call<'_>)> = vec![
        (admitted, Box::new(|| pool.record(tokens(1)).unwrap())),
        (refused, Box::new(|| _ = pool.record(too_much).unwrap_err())),
        (admitted, Box::new(|| _ = pool.record_once("key", tokens(1)).unwrap())),
        (neither, Box::new(|| _ = pool.record_once("key", tokens(1)).unwrap())),
        (neither, Box::new(|| _ = pool.record_once("key", tokens(2)).unwrap_err())),
        (refused, Box::new(|| _ = pool.record_once("another", tokens(1)).unwrap_err())),
        (admitted, Box::new(|| pool.reserve(tokens(1)).unwrap().release())),
        (refused, Box::new(|| _ = pool.reserve(too_much).unwrap_err())),
        (
            admitted,
            Box::new(|| pool.reserve(Ask::new(tokens(1)).ttl(Duration::MAX)).unwrap().release()),
        ),
        (admitted, Box::new(|| pool.reserve_blocking(tokens(1)).unwrap().release())),
        (refused, Box::new(|| _ = pool.reserve_blocking(too_much).unwrap_err())),
        (neither, Box::new(|| drop(pool.reserve_wait(too_much)))),
        (neither, Box::new(|| pool.peek(tokens(1)).unwrap())),
        (neither, Box::new(|| _ = pool.peek(too_much).unwrap_err())),
        (neither, Box::new(|| _ = pool.debit(tokens(1)))),
        (neither, Box::new(|| pool.raise_caps(Caps::new().tokens(1)).unwrap())),
        (neither, Box::new(|| _ = pool.raise_caps(Caps::new().tokens(u64::MAX)).unwrap_err())),
        (neither, Box::new(|| pool.lower_caps(Caps::new().tokens(1)).unwrap())),
        (neither, Box::new(|| _ = pool.lower_caps(Caps::new().tokens(500)).unwrap_err())),
        (neither, Box::new(|| drop(expired.try_commit(tokens(1)).unwrap_err()))),
        (neither, Box::new(|| drop(pool.lease(tokens(10))))),
        (refused, Box::new(|| _ = pool.lease(tokens(10)).record(too_much).unwrap_err())),
        (neither, Box::new(|| lease.record(tokens(10)).unwrap())),
        (admitted, Box::new(|| drop(pool.child().tokens(5).carved().build().unwrap()))),
        (refused, Box::new(|| _ = pool.child().tokens(500).carved().build().unwrap_err())),
        (neither, Box::new(|| drop(pool.child().tokens(500).build()))),
        (
            neither,
            Box::new(|| {
                let window = budget_pool::Window::fixed(Duration::from_secs(9));
                let refused = pool.child().tokens(5).window(window).carved().build().unwrap_err();
                assert!(matches!(refused, BudgetError::CarvedWindow { .. }));
            }),
        ),
        (
            neither,
            Box::new(|| {
                let refused = pool.child().tokens(5).used(tokens(1)).carved().build().unwrap_err();
                assert!(matches!(refused, BudgetError::Carved { .. }));
            }),
        ),
        (
            refused,
            Box::new(|| {
                let at_once = Ask::new(tokens(85)).wait_at_most(Duration::ZERO);
                let refused = pool.reserve_blocking(at_once).unwrap_err();
                assert!(matches!(refused, BudgetError::Timeout { .. }));
            }),
        ),
        (
            neither,
            Box::new(|| {
                let mut wait = std::pin::pin!(pool.reserve_wait(tokens(85)));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                assert!(wait.as_mut().poll(&mut context).is_pending(), "it is dropped in line");
            }),
        ),
        (
            refused,
            Box::new(|| {
                pool.pause(Duration::from_secs(9));
                let mut wait = std::pin::pin!(pool.reserve_wait(tokens(1)));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                let polled = wait.as_mut().poll(&mut context);
                assert!(matches!(polled, Poll::Ready(Err(BudgetError::NoTimer { .. }))));
                pool.resume();
            }),
        ),
    ];
    for (case, (counts, call)) in calls.into_iter().enumerate() {
        assert_eq!(counted(&pool, call), counts, "{case}");
    }
    assert_eq!(counted(&pool, || lease.record(tokens(1)).unwrap()), admitted, "beyond the share");
    assert_eq!(counted(&pool, || _ = lease.record(too_much).unwrap_err()), refused);
    assert_eq!(counted(&pool, || hold.record(tokens(1)).unwrap()), admitted);
    assert_eq!(counted(&pool, || _ = hold.record(too_much).unwrap_err()), refused);
    assert_eq!(counted(&pool, || hold.grow(tokens(1)).unwrap()), admitted);
    assert_eq!(counted(&pool, || _ = hold.grow(too_much).unwrap_err()), refused);
    assert_eq!(counted(&pool, || drop(hold.split(tokens(1)).unwrap())), admitted);
    assert_eq!(
        counted(&pool, || _ = hold.split(too_much).unwrap_err()),
        neither,
        "more than it holds"
    );
    assert_eq!(counted(&pool, || _ = hold.shrink(too_much).unwrap_err()), neither);
    assert_eq!(counted(&pool, || hold.shrink(tokens(1)).unwrap()), neither);
    let strict = pool.reserve(tokens(1)).unwrap();
    assert_eq!(counted(&pool, || drop(strict.try_commit(too_much).unwrap_err())), neither);
    assert_eq!(counted(&pool, || _ = hold.debit(tokens(1))), neither);
    assert_eq!(counted(&pool, || _ = hold.commit_all()), neither);
    let share = pool.child().tokens(5).carved().build().unwrap();
    assert_eq!(counted(&pool, || share.raise_caps(Caps::new().tokens(1)).unwrap()), admitted);
    assert_eq!(
        counted(&pool, || _ = share.raise_caps(Caps::new().tokens(500)).unwrap_err()),
        refused
    );
    assert_eq!(counted(&root, || pool.record(tokens(1)).unwrap()), admitted, "on those above, too");
    pool.close();
    assert_eq!(counted(&root, || _ = pool.record(tokens(1)).unwrap_err()), refused);
    assert_eq!(
        counted(&root, || _ = share.raise_caps(Caps::new().tokens(1)).unwrap_err()),
        neither,
        "it is closed"
    );
    drop(lease);
}

#[test]
fn every_refusal_answers_for_its_axis_scope_outlook_and_time() {
    let pool = BudgetPool::builder().name("run").in_flight(1).build();
    let _held = pool.reserve(Amount::new()).unwrap();
    let mut wait = std::pin::pin!(pool.reserve_wait(Amount::new()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(wait.as_mut().poll(&mut context).is_pending());
    let queued = pool.reserve(Amount::new()).unwrap_err();
    assert!(matches!(&queued, BudgetError::Queued { pool, .. } if pool == "run"));
    let alone = budget_pool::DeadlineBudget::at(Instant::now()).check().unwrap_err();
    let late = BudgetError::from(alone.clone());
    assert_eq!((alone.pool(), late.pool(), late.axis()), (None, "", Some(Axis::Deadline)));
    let given = Duration::from_millis(1);
    let timeout = pool.reserve_blocking(Ask::new(Amount::new()).wait_at_most(given)).unwrap_err();
    assert!(matches!(&timeout, BudgetError::Timeout { pool, waited, .. }
        if pool == "run" && *waited == given));
    pool.close();
    let closed = pool.reserve(Amount::new()).unwrap_err();
    assert!(matches!(&closed, BudgetError::Closed { pool, .. } if pool == "run"));
    for (error, outlook) in [
        (queued, Outlook::AfterRelease),
        (timeout, Outlook::AfterRelease),
        (closed, Outlook::Never),
        (late, Outlook::Never),
    ] {
        assert_eq!((error.outlook(), error.retry_after()), (outlook, None), "{error}");
        assert!(error.axis().is_none() || error.pool().is_empty(), "{error}");
    }
}

#[test]
fn the_deadline_of_the_outermost_is_named_where_several_end_together() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder()
        .name("root")
        .deadline(Duration::from_secs(5))
        .clock(clock.clone())
        .build();
    let leaf = root
        .child()
        .name("middle")
        .deadline(Duration::from_secs(5))
        .build()
        .child()
        .name("leaf")
        .build();
    clock.advance(Duration::from_secs(5));
    assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "root");
}
