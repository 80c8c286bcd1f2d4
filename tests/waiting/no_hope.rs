//! P6: a waiter that can never be met is refused, at once or by the call that leaves it no hope.

use super::*;

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
fn p6_who_waits_for_all_that_can_be_counted_is_told_of_the_first_spend_above() {
    let root = BudgetPool::unlimited();
    let pool = root.child().tokens(1).build();
    let _held = pool.reserve(tokens(1)).unwrap();
    let mut all = Waiter::queued(&pool, tokens(1).requests(u64::MAX));
    root.record(Amount::new().requests(1)).unwrap();
    assert_eq!(all.refused().outlook(), Outlook::Never);
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
fn p6_a_record_below_a_carve_tells_those_whom_it_leaves_nothing() {
    let root = pool_of(100);
    let share = root.child().tokens(50).carved().build().unwrap();
    let below = share.child().tokens(10).build();
    let _held = below.reserve(tokens(5)).unwrap();
    let mut waiter = Waiter::queued(&below, tokens(8));
    below.debit(tokens(5));
    assert_eq!(waiter.refused().outlook(), Outlook::Never);
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
