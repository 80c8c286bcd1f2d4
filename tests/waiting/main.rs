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

mod a_bounded_queue;
mod blocking;
mod busy_owners;
#[path = "../support/invariants.rs"]
mod invariants;
mod no_hope;
mod runtimes;
mod spends;
#[path = "../support/used_up.rs"]
mod used_up;
#[path = "../support/waiter.rs"]
mod waiter;
mod wakers;
#[path = "../support/watchdog.rs"]
mod watchdog;
mod without_a_timer;

use invariants::check_invariants;
use used_up::polls_used_up;
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
fn p7_what_no_release_makes_room_for_is_not_sent_behind_those_who_wait() {
    let pool = BudgetPool::builder().tokens(10).ceiling(Caps::new().tokens(20)).build();
    let _held = pool.reserve(tokens(8)).unwrap();
    let mut waiter = Waiter::queued(&pool, tokens(5));
    for (units, outlook) in
        [(10, None), (11, Some(Outlook::AfterFunding)), (21, Some(Outlook::Never))]
    {
        let calls = [
            pool.record(tokens(units)),
            pool.peek(tokens(units)),
            pool.record_once("key", tokens(units)).map(drop),
            pool.reserve(tokens(units)).map(drop),
            pool.reserve(Ask::new(tokens(99)).or(tokens(units))).map(drop),
            pool.child().tokens(units).carved().build().map(drop),
        ];
        for refused in calls.map(Result::unwrap_err) {
            let lack = refused.exceeded().map(|exceeded| exceeded.outlook());
            assert_eq!(lack, outlook, "{units}: {refused}");
            assert_eq!(refused.kind(), if lack.is_some() { "exceeded" } else { "queued" });
        }
    }
    assert!(waiter.still_waits());
    let mut want = Box::pin(pool.wants());
    assert!(want.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    pool.record(tokens(11)).unwrap_err();
    assert!(want.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready(), "and is told");
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
