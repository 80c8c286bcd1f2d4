//! Waits that only time can end.

use super::*;

impl Waiter {
    fn outcome(&mut self) -> Result<Reservation, BudgetError> {
        match self.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it waits"),
        }
    }
}

#[test]
fn p6_where_time_is_moved_by_hand_a_turn_or_an_expiry_serves_at_the_next_touch() {
    type Touch = fn(&BudgetPool);
    let touches: [Touch; 4] = [
        |pool| _ = pool.snapshot(),
        |pool| _ = pool.peek(tokens(0)),
        |pool| _ = pool.debit(tokens(0)),
        |pool| _ = pool.child().build().record(tokens(0)),
    ];
    for touch in touches {
        let (clock, turning) = windowed(100, Window::fixed(secs(10)));
        turning.record(tokens(100)).unwrap();
        let expiring =
            BudgetPool::builder().tokens(100).clock(clock.clone()).timer(by_hand).build();
        (0..20).for_each(|_| forget(expiring.reserve(Ask::new(tokens(5)).ttl(secs(10))).unwrap()));
        let mut waiters = [&turning, &expiring].map(|pool| Waiter::queued(pool, tokens(100)));
        clock.advance(secs(10) - NANO);
        [&turning, &expiring].into_iter().for_each(touch);
        assert_eq!(waiters.each_ref().map(Waiter::wakes), [0, 0]);
        clock.advance(NANO);
        assert_eq!(waiters.each_ref().map(Waiter::wakes), [0, 0]);
        [&turning, &expiring].into_iter().for_each(touch);
        assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 1]);
        let holds = waiters.each_mut().map(|waiter| waiter.outcome().unwrap());
        assert_eq!(holds.map(|hold| hold.amount()), [tokens(100), tokens(100)]);
    }
}

/// Each of the holds, and each of the windows, is as early as the other.
#[test]
fn p6_what_is_due_at_one_instant_goes_to_those_who_wait_for_it_by_ticket() {
    for turned in [false, true] {
        let (clock, root) = pool_of(100);
        let pools = [(); 2].map(|()| root.child().build());
        for pool in if turned { [&pools[0], &pools[1]] } else { [&pools[1], &pools[0]] } {
            forget(pool.reserve(Ask::new(tokens(50)).ttl(secs(10))).unwrap());
        }
        let asked = [(&pools[1], 60), (&pools[0], 30), (&root, 20), (&pools[0], 10)];
        let waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
        clock.advance(secs(10));
        root.debit(tokens(0));
        assert_eq!(
            waiters.each_ref().map(Waiter::wakes),
            [1, 1, 0, 0],
            "the first is not passed by the second"
        );
        assert_eq!(balance(&root), [0, 90, 0]);
    }
}

#[test]
fn p6_windows_of_a_path_that_turn_at_one_instant_serve_by_ticket() {
    let (clock, root) = pool_of(200);
    let [upper, middle, leaf] = {
        let turning =
            |above: &BudgetPool| above.child().tokens(100).window(Window::fixed(secs(10))).build();
        let upper = turning(&root);
        let middle = turning(&upper);
        let leaf = turning(&middle);
        [upper, middle, leaf]
    };
    leaf.record(tokens(100)).unwrap();
    let asked = [(&leaf, 30), (&middle, 30), (&leaf, 30), (&upper, 20), (&middle, 10)];
    let waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
    clock.advance(secs(10));
    leaf.peek(tokens(0)).unwrap();
    assert_eq!(waiters.each_ref().map(Waiter::wakes), [1, 1, 1, 0, 0]);
    assert_eq!([&leaf, &middle, &upper].map(balance), [[0, 60, 0], [0, 90, 0], [0, 90, 0]]);
}

#[test]
fn p6_a_snapshot_serves_those_who_wait_for_the_turns_below() {
    let (clock, root) = pool_of(100);
    let turning = [(); 3].map(|()| root.child().tokens(10).window(Window::fixed(secs(10))).build());
    turning.iter().for_each(|pool| pool.record(tokens(10)).unwrap());
    let asked =
        [(&turning[2], 10), (&turning[0], 10), (&turning[1].child().build(), 5), (&turning[1], 5)];
    let mut waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
    clock.advance(secs(10));
    assert_eq!((root.snapshot().waiting, root.snapshot().tokens.reserved), (0, 30));
    let seen = root.snapshot_tree();
    assert!(seen.iter().all(|pool| pool.waiting == 0));
    assert_eq!(seen.iter().filter(|pool| pool.tokens.reserved == 10).count(), 3);
    assert!(waiters.iter_mut().all(|waiter| waiter.wakes() == 1 && waiter.outcome().is_ok()));
}

/// Whichever of the pools was built first: what is above them is for who came first.
#[test]
fn p6_a_snapshot_of_a_tree_turns_all_that_is_below_before_it_serves() {
    for first_of in [0, 1] {
        let (clock, root) = pool_of(30);
        let pools =
            [(); 2].map(|()| root.child().tokens(10).window(Window::fixed(secs(10))).build());
        pools.iter().for_each(|pool| pool.record(tokens(10)).unwrap());
        let [first, second] =
            [first_of, 1 - first_of].map(|at| Waiter::queued(&pools[at], tokens(10)));
        clock.advance(secs(10));
        drop(root.snapshot_tree());
        assert_eq!(
            [&first, &second].map(Waiter::wakes),
            [1, 0],
            "at the root there is room for one"
        );
    }
}

/// Neither reads the clock. A call elsewhere has, and a turn that is due then serves.
#[test]
fn p8_whoever_a_due_turn_serves_is_served_before_a_pool_is_closed_or_gone() {
    type End = fn([BudgetPool; 3]);
    let ends: [(&str, End); 4] = [
        ("closed above", |[root, ..]| root.close()),
        ("closed", |[_, turning, _]| turning.close()),
        ("closed below", |[_, _, below]| below.close()),
        ("gone below", |[root, turning, below]| {
            drop(below);
            assert!(!root.is_closed() && !turning.is_closed());
        }),
    ];
    for (case, end) in ends {
        let (clock, root) = pool_of(100);
        let turning = root.child().tokens(10).window(Window::fixed(secs(10))).build();
        let below = turning.child().build();
        turning.record(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&turning, tokens(10));
        clock.advance(secs(10));
        root.child().deadline(secs(90)).build().peek(tokens(0)).unwrap();
        assert_eq!(waiter.wakes(), 1, "{case}: a call elsewhere has");
        end([root, turning, below]);
        assert_eq!(waiter.outcome().map(|hold| hold.amount()), Ok(tokens(10)), "{case}");
    }
}

#[test]
fn p6_what_comes_back_is_for_those_who_wait_first() {
    let (clock, pool) = pool_of(100);
    forget(pool.reserve(Ask::new(tokens(100)).ttl(secs(10))).unwrap());
    let (first, second) = (Waiter::queued(&pool, tokens(60)), Waiter::queued(&pool, tokens(10)));
    clock.advance(secs(10));
    assert_eq!(
        pool.reserve(tokens(31)).unwrap_err().axis(),
        Some(Axis::Tokens),
        "nobody waits any more"
    );
    assert_eq!((first.wakes(), second.wakes(), pool.snapshot().waiting), (1, 1, 0));
    drop((first, second));
    assert_eq!(balance(&pool), [0, 0, 0], "what was granted and not collected goes back");
}

#[test]
fn p6_whoever_waits_for_another_time_is_reminded_of_an_earlier_one() {
    let (clock, pool) = pool_of(100);
    let hold = pool.reserve(Ask::new(tokens(50)).ttl(secs(60))).unwrap();
    let other = pool.reserve(tokens(50)).unwrap();
    let (mut first, second) =
        (Waiter::queued(&pool, tokens(10)), Waiter::queued(&pool, tokens(10)));
    hold.renew(secs(90)).unwrap();
    other.renew(secs(100)).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (0, 0), "later is no news");
    other.renew(secs(5)).unwrap();
    assert_eq!((first.wakes(), second.wakes()), (1, 0), "only who is first has to look");
    assert!(first.poll().is_pending());
    forget(hold.split(tokens(1)).unwrap());
    assert_eq!(first.wakes(), 1);
    clock.advance(secs(5));
    first.outcome().unwrap().release();
    assert_eq!(second.wakes(), 1);
}

#[test]
fn p6_whoever_takes_the_first_place_is_reminded_from_then_on() {
    let (_, pool) = pool_of(10);
    let elsewhere = pool.child().build();
    let hold = pool.reserve(tokens(10)).unwrap();
    let [mut first, mut second] = [(); 2].map(|()| Waiter::queued(&pool, tokens(5)));
    let expiring = elsewhere.reserve(Ask::new(Amount::new()).ttl(secs(5))).unwrap();
    assert!(first.poll().is_pending());
    drop((expiring, first));
    hold.renew(secs(10)).unwrap();
    assert_eq!(second.wakes(), 1);
    assert!(second.poll().is_pending());
}

#[test]
fn p6_what_is_held_for_a_time_elsewhere_does_not_remind_whoever_waits() {
    let root = BudgetPool::unlimited();
    let (busy, idle) = (root.child().tokens(10).build(), root.child().build());
    let _hold = busy.reserve(tokens(10)).unwrap();
    let mut waiter = Waiter::queued(&busy, tokens(5));
    for _ in 0..10 {
        idle.reserve(Ask::new(tokens(1)).ttl(secs(30))).unwrap().commit_all();
        assert!(waiter.poll().is_pending());
    }
    assert_eq!(waiter.wakes(), 0);
}

/// A pool of 10 tokens by a clock that stands, and the times until which waits have slept. No
/// sleep ends by itself.
fn pool_with_timer() -> (BudgetPool, impl Fn() -> Vec<Duration>) {
    let (clock, alarms) = (ManualClock::new(), Arc::new(Mutex::new(Vec::new())));
    let (start, log) = (clock.now(), Arc::clone(&alarms));
    let pool = BudgetPool::builder().tokens(10).clock(clock).timer(move |until| {
        log.lock().unwrap().push(until - start);
        Box::pin(std::future::pending())
    });
    (pool.build(), move || alarms.lock().unwrap().clone())
}

#[test]
fn p6_of_those_who_are_blocked_at_a_pool_only_the_first_sleeps_towards_a_time() {
    let (pool, alarms) = pool_with_timer();
    forget(pool.reserve(Ask::new(tokens(10)).ttl(secs(10))).unwrap());
    let _waiters =
        [&pool, &pool.child().build(), &pool].map(|pool| Waiter::queued(pool, tokens(5)));
    assert_eq!(alarms(), [secs(10)]);
}

#[test]
fn p6_no_wait_sleeps_towards_a_time_in_another_branch() {
    let (root, alarms) = pool_with_timer();
    let (busy, idle) = (root.child().tokens(5).build(), root.child().build());
    let _hold = busy.reserve(tokens(5)).unwrap();
    forget(idle.reserve(Ask::new(tokens(1)).ttl(secs(10))).unwrap());
    let mut waiter = Waiter::queued(&busy, tokens(1));
    forget(idle.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap());
    assert!(waiter.poll().is_pending());
    assert_eq!((alarms(), waiter.wakes()), (vec![], 0));
}

/// The timer says that a time has come, and the wait finds that it needs a later one.
#[test]
fn p6_a_wait_whose_time_has_moved_on_sleeps_towards_the_next_and_does_not_spin() {
    let (clock, sleeps) = (ManualClock::new(), AtomicUsize::new(0));
    let moved = clock.clone();
    let timer = move |until: Instant| {
        if sleeps.fetch_add(1, Ordering::Relaxed) > 0 {
            return by_hand(until);
        }
        moved.advance(until - moved.now());
        Box::pin(std::future::ready(()))
    };
    let pool = BudgetPool::builder().tokens(10).clock(clock.clone()).timer(timer).build();
    let held = [1, 2].map(|ttl| pool.reserve(Ask::new(tokens(5)).ttl(secs(ttl))).unwrap());
    let begun = clock.now();
    let mut waiter = Waiter::queued(&pool, tokens(10));
    assert_eq!((clock.now() - begun, waiter.wakes()), (secs(1), 0), "half of it is there");
    clock.advance(secs(1));
    assert_eq!(pool.snapshot().expired, 2);
    assert_eq!(waiter.granted().amount(), tokens(10));
    drop(held);
}

#[test]
fn p6_who_cannot_be_met_before_the_deadline_is_told_at_once() {
    for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
        let clock = ManualClock::new();
        let root = BudgetPool::builder()
            .name("run")
            .tokens(60)
            .window(window)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let child = root.child().deadline(secs(30)).build();
        root.record(tokens(60)).unwrap();
        let told = child.reserve_blocking(tokens(60)).unwrap_err();
        assert_eq!(
            (told.axis(), told.outlook(), told.pool()),
            (Some(Axis::Tokens), Outlook::Never, "run")
        );
    }
}

/// A hold is waited for, and then settled: it comes back only by time, and too late.
fn told_when_it_becomes_hopeless(pool: &BudgetPool, spends: &BudgetPool) {
    let hold = spends.reserve(tokens(60)).unwrap();
    let mut waiter = Waiter::queued(pool, tokens(60));
    let mut behind = Waiter::queued(pool, tokens(0));
    hold.commit_all();
    assert_eq!(waiter.wakes(), 1);
    let told = waiter.outcome().unwrap_err();
    assert_eq!((told.axis(), told.outlook()), (Some(Axis::Tokens), Outlook::Never));
    behind.outcome().unwrap().release();
}

#[test]
fn p6_who_can_no_longer_be_met_before_the_deadline_is_told_at_once() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().tokens(60).window(Window::fixed(secs(60))).deadline(secs(30));
    let pool = pool.clock(clock.clone()).timer(by_hand).build();
    told_when_it_becomes_hopeless(&pool, &pool);
}

#[test]
fn p6_who_waits_in_a_pool_with_a_window_is_told_that_its_turn_is_too_late_though_others_are_first()
{
    for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
        let pool = BudgetPool::builder().tokens(60).window(window).deadline(secs(30));
        let pool = pool.clock(ManualClock::new()).timer(by_hand).build();
        let [spends, lasts] = [(); 2].map(|()| pool.reserve(tokens(30)).unwrap());
        let [mut first, mut second, third] = [30, 60, 1].map(|n| Waiter::queued(&pool, tokens(n)));
        spends.commit_all();
        assert_eq!([&first, &second, &third].map(Waiter::wakes), [0, 1, 0]);
        let told = second.outcome().unwrap_err();
        assert_eq!((told.axis(), told.outlook()), (Some(Axis::Tokens), Outlook::Never));
        lasts.release();
        first.outcome().unwrap().release();
    }
}

#[test]
fn p6_the_deadline_of_who_waits_counts_where_the_window_is_above() {
    let (_, root) = windowed(60, Window::fixed(secs(60)));
    let child = root.child().deadline(secs(30)).build();
    told_when_it_becomes_hopeless(&child, &root);
    let (_, root) = windowed(60, Window::fixed(secs(60)));
    let child = root.child().build();
    let below = child.child().deadline(secs(30)).build();
    told_when_it_becomes_hopeless(&below, &child);
}

/// It is blocked in its own pool, which knows nothing of the hold above.
#[test]
fn p6_what_an_expiry_above_makes_hopeless_is_told_at_the_next_call_and_those_behind_are_served() {
    let (clock, root) = pool_of(100);
    let child = root.child().tokens(80).build();
    let _hold = child.reserve(tokens(20)).unwrap();
    let [mut hopeless, mut behind] = [80, 10].map(|n| Waiter::queued(&child, tokens(n)));
    forget(root.reserve(Ask::new(tokens(30)).ttl(secs(10))).unwrap().commit_on_drop());
    clock.advance(secs(10));
    assert_eq!([&hopeless, &behind].map(Waiter::wakes), [0, 0]);
    child.peek(Amount::new()).unwrap();
    assert_eq!([&hopeless, &behind].map(Waiter::wakes), [1, 1]);
    let told = hopeless.outcome().unwrap_err();
    assert_eq!((told.pool(), told.outlook()), (child.name(), Outlook::Never));
    behind.outcome().unwrap().release();
}

/// Unless the hold is younger than the wait, as above, the waiter sleeps towards its expiry; but
/// not towards one that gives back what a waiter of another pool cannot use.
#[test]
fn p6_a_waiter_sleeps_towards_an_expiry_above_that_may_leave_it_no_hope() {
    let (root, alarms) = pool_with_timer();
    let child = root.child().tokens(8).build();
    let _lasting = child.reserve(tokens(4)).unwrap();
    forget(root.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap());
    let _released = Waiter::queued(&child, tokens(8));
    assert_eq!(alarms(), []);
    forget(root.reserve(Ask::new(tokens(4)).ttl(secs(10))).unwrap().commit_on_drop());
    let other = root.child().tokens(1).build();
    let _held = other.reserve(tokens(1)).unwrap();
    let _settled = Waiter::queued(&other, tokens(1));
    assert_eq!(alarms(), [secs(10)]);
}

/// At the first instant a waiter of the root is tried in vain. That is no reason to bring the
/// second instant forward: a waiter that the first one served would lose its units to one that
/// nothing but the second one can serve.
#[test]
fn p6_each_expiry_serves_all_whom_it_can_before_the_next_one_is_due() {
    let (clock, root) = pool_of(60);
    let share = root.child().name("share").tokens(20).carved().build().unwrap();
    let [narrow, wide] = [share.child().tokens(8).build(), share.child().build()];
    let _lasting = share.reserve(tokens(5)).unwrap();
    for (pool, n, ttl) in [(&root, 40, 1), (&share, 10, 2), (&narrow, 5, 3)] {
        forget(pool.reserve(Ask::new(tokens(n)).ttl(secs(ttl))).unwrap());
    }
    let asked = [(&root, 10), (&root, 60), (&narrow, 8), (&wide, 10)];
    let mut waiters = asked.map(|(pool, n)| Waiter::queued(pool, tokens(n)));
    clock.advance(secs(3));
    let polls = waiters.each_mut().map(Waiter::poll);
    assert_eq!(polls.each_ref().map(Poll::is_ready), [true, false, false, true]);
}

/// One that is not the first, and has too early a deadline of its own, is told at that.
#[test]
fn p6_those_with_a_later_deadline_wait_on() {
    let (clock, root) = windowed(60, Window::fixed(secs(60)));
    let [soon, late] = [30, 90].map(|deadline| root.child().deadline(secs(deadline)).build());
    let hold = root.reserve(tokens(60)).unwrap();
    let mut waiters = [&late, &soon, &late].map(|pool| Waiter::queued(pool, tokens(20)));
    hold.commit_all();
    assert!(waiters.iter_mut().all(|waiter| waiter.poll().is_pending()));
    let [first, second, third] = &mut waiters;
    clock.advance(secs(30));
    assert!(second.outcome().is_err() && first.poll().is_pending());
    clock.advance(secs(30));
    assert!(first.outcome().is_ok() && third.outcome().is_ok());
}

/// It is told as soon as it is the first at the pool with the window, or at its deadline; then
/// it holds up nobody.
#[test]
fn p6_whoever_waits_in_vain_below_a_window_holds_up_others_at_most_until_its_deadline() {
    for leaves in [true, false] {
        let (clock, root) = windowed(60, Window::fixed(secs(60)));
        let middle = root.child().requests(1).build();
        let soon = middle.child().deadline(secs(30)).build();
        let requests = Amount::new().requests(1);
        let hold = root.reserve(tokens(60)).unwrap();
        let mut first = Waiter::queued(&root, tokens(20));
        let mut in_vain = Waiter::queued(&soon, tokens(20) + requests);
        let mut same_pool = Waiter::queued(&soon, requests);
        let mut behind = Waiter::queued(&middle, requests);
        hold.commit_all();
        assert!(
            [&mut in_vain, &mut same_pool, &mut behind]
                .into_iter()
                .all(|waiter| waiter.poll().is_pending())
        );
        if leaves {
            drop(first);
            assert_eq!([&in_vain, &same_pool, &behind].map(Waiter::wakes), [1, 1, 0]);
            let told = in_vain.outcome().unwrap_err();
            assert_eq!(
                (told.axis(), told.outlook(), told.pool()),
                (Some(Axis::Tokens), Outlook::Never, "run")
            );
            same_pool.outcome().unwrap().release();
        } else {
            clock.advance(secs(30) - NANO);
            root.debit(tokens(0));
            assert_eq!([&in_vain, &same_pool, &behind].map(Waiter::wakes), [0, 0, 0]);
            clock.advance(NANO);
            root.debit(tokens(0));
            for told in [in_vain, same_pool].map(|mut waiter| waiter.outcome().unwrap_err()) {
                assert_eq!(told.axis(), Some(Axis::Deadline));
            }
            assert!(first.poll().is_pending());
        }
        assert_eq!(behind.wakes(), 1);
        behind.outcome().unwrap().release();
    }
}

#[test]
fn p6_who_was_left_waiting_is_told_once_more_is_spent() {
    let (_, root) = windowed(60, Window::token_bucket(secs(60)));
    let [soon, late] = [10, 30].map(|deadline| root.child().deadline(secs(deadline)).build());
    let hold = root.reserve(tokens(60)).unwrap();
    let [mut soon, mut late] = [&soon, &late].map(|pool| Waiter::queued(pool, tokens(20)));
    hold.commit_all();
    assert!(soon.outcome().is_err() && late.poll().is_pending());
    root.debit(tokens(30));
    assert_eq!(late.outcome().unwrap_err().axis(), Some(Axis::Tokens));
}

mod blocking {
    use super::*;

    const SOON: Duration = Duration::from_millis(30);
    /// So that a failure does not wait for ever.
    const ENOUGH: Duration = Duration::from_secs(20);

    #[test]
    fn p6_a_thread_is_served_when_a_window_turns_or_gives_back() {
        for (window, least) in
            [(Window::fixed(SOON), Duration::ZERO), (Window::token_bucket(SOON), SOON * 3 / 2)]
        {
            let pool = BudgetPool::builder().tokens(10).window(window).build();
            let start = Instant::now();
            pool.debit(tokens(20));
            pool.reserve_blocking(Ask::new(tokens(5)).wait_at_most(ENOUGH)).unwrap().release();
            assert!(start.elapsed() >= least, "{:?}", start.elapsed());
        }
    }

    #[test]
    fn p6_a_thread_is_served_when_a_hold_expires() {
        let pool = BudgetPool::builder().tokens(10).build();
        let start = Instant::now();
        forget(pool.reserve(Ask::new(tokens(10)).ttl(SOON)).unwrap());
        match pool.reserve_blocking(Ask::new(tokens(5)).wait_at_most(SOON / 10)) {
            Err(BudgetError::Timeout { waited, .. }) => assert_eq!(waited, SOON / 10),
            // On a busy machine its time may have come by now.
            granted => assert!(granted.is_ok() && start.elapsed() >= SOON, "{granted:?}"),
        }
        pool.reserve_blocking(Ask::new(tokens(5)).wait_at_most(ENOUGH)).unwrap().release();
        assert!(start.elapsed() >= SOON);
    }

    #[test]
    fn p6_a_thread_is_served_by_a_time_that_was_given_while_it_waits() {
        let pool = BudgetPool::builder().tokens(10).build();
        let hold = pool.reserve(Ask::new(tokens(10)).ttl(secs(600))).unwrap();
        let waiting = pool.clone();
        let thread = std::thread::spawn(move || {
            waiting.reserve_blocking(Ask::new(tokens(5)).wait_at_most(ENOUGH)).map(drop)
        });
        while pool.snapshot().waiting == 0 {
            std::thread::yield_now();
        }
        hold.renew(SOON).unwrap();
        thread.join().unwrap().unwrap();
        assert_eq!(hold.time_left(), Some(Duration::ZERO));
    }
}

/// In tokio's paused time: no real second.
mod in_tokio {
    use super::*;
    use budget_pool::{PoolBuilder, Root};
    use tokio::time::{Instant, sleep, timeout};

    fn timed() -> PoolBuilder<Root> {
        BudgetPool::builder()
            .tokens(10)
            .clock(|| Instant::now().into_std())
            .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
    }

    /// A lost alarm is a failure, and no wait for ever: with nothing else to do, paused time
    /// runs on to this.
    async fn soon<T>(task: tokio::task::JoinHandle<T>) -> T {
        timeout(secs(10_000), task).await.expect("an alarm was lost").unwrap()
    }

    /// Waits in a task of its own; keeps for so long what it is granted. Says after how many
    /// seconds that was: the timer knows whole milliseconds, and is never early.
    fn wait(pool: &BudgetPool, amount: Amount, keep: u64) -> tokio::task::JoinHandle<u64> {
        let (wait, start) = (pool.reserve_wait(amount), Instant::now());
        tokio::spawn(async move {
            let hold = wait.await.unwrap();
            let after = start.elapsed();
            assert!(after.subsec_millis() <= 2, "{after:?}");
            sleep(secs(keep)).await;
            drop(hold);
            after.as_secs()
        })
    }

    #[tokio::test(start_paused = true)]
    async fn p6_a_task_is_served_when_a_window_turns_or_gives_back() {
        for (window, after) in [(Window::fixed(secs(60)), 60), (Window::token_bucket(secs(60)), 36)]
        {
            let pool = timed().window(window).build();
            pool.record(tokens(10)).unwrap();
            assert_eq!(soon(wait(&pool, tokens(6), 0)).await, after);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p6_a_task_is_served_when_a_hold_expires() {
        let pool = timed().build();
        forget(pool.reserve(Ask::new(tokens(10)).ttl(secs(5))).unwrap());
        assert_eq!(soon(wait(&pool, tokens(6), 0)).await, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn p6_a_task_is_served_by_a_time_that_was_given_while_it_waits() {
        for ttl in [secs(60), Duration::MAX] {
            for (renewed, after) in [(2, 3), (100, 101)] {
                let pool = timed().build();
                let hold = pool.reserve(Ask::new(tokens(10)).ttl(ttl)).unwrap();
                let task = wait(&pool, tokens(6), 0);
                sleep(secs(1)).await;
                hold.renew(secs(renewed)).unwrap();
                assert_eq!(soon(task).await, after);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn p6_a_task_is_served_later_if_the_time_it_waits_for_is_put_off() {
        let pool = timed().build();
        let hold = pool.reserve(Ask::new(tokens(10)).ttl(secs(5))).unwrap();
        let task = wait(&pool, tokens(6), 0);
        sleep(secs(1)).await;
        hold.renew(secs(10)).unwrap();
        assert_eq!(soon(task).await, 11);
        let pool = timed().window(Window::token_bucket(secs(10))).build();
        pool.record(tokens(10)).unwrap();
        let task = wait(&pool, tokens(5), 0);
        sleep(secs(4)).await;
        assert!(matches!(pool.record(tokens(4)), Err(BudgetError::Queued { .. })));
        pool.debit(tokens(4));
        assert_eq!(soon(task).await, 9, "what has happened does not wait its turn");
    }

    #[tokio::test(start_paused = true)]
    async fn p6_a_release_that_leaves_the_rest_to_time_reminds_who_waits() {
        let pool = timed().window(Window::token_bucket(secs(10))).build();
        let hold = pool.reserve(tokens(5)).unwrap();
        pool.record(tokens(5)).unwrap();
        let task = wait(&pool, tokens(9), 0);
        sleep(secs(1)).await;
        drop(hold);
        assert_eq!(soon(task).await, 4);
    }

    #[tokio::test(start_paused = true)]
    async fn p6_those_who_wait_at_several_pools_are_served_in_order() {
        let root = timed().window(Window::fixed(secs(60))).build();
        let a = root.child().tokens(4).window(Window::token_bucket(secs(40))).build();
        let b = root.child().build();
        a.record(tokens(4)).unwrap();
        b.record(tokens(6)).unwrap();
        sleep(secs(30)).await;
        a.debit(tokens(3));
        // At 60 the root turns, and the child has 3 of its 4; at 70 it has all.
        let tasks = [
            wait(&a, tokens(4), 5),
            wait(&b, tokens(6), 30),
            wait(&root, tokens(5), 5),
            wait(&b, tokens(1), 0),
        ];
        let mut served = Vec::new();
        for task in tasks {
            served.push(soon(task).await);
        }
        assert_eq!(served, [40, 30, 60, 60]);
    }

    #[tokio::test(start_paused = true)]
    async fn p6_many_tasks_share_a_rate_and_none_is_starved() {
        let pool = timed().window(Window::token_bucket(secs(10))).build();
        pool.record(tokens(10)).unwrap();
        let tasks: Vec<_> = (1..=20)
            .map(|place| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let start = Instant::now();
                    pool.reserve_wait(tokens(2)).await.unwrap().commit_all();
                    let after = start.elapsed();
                    assert!(
                        after >= secs(2 * place) && after < secs(2 * place + 1),
                        "{place}: {after:?}"
                    );
                })
            })
            .collect();
        for task in tasks {
            soon(task).await;
        }
    }
}

/// The later waiter has the place in memory of one that came before them both.
#[test]
fn p6_of_two_windows_that_turn_at_one_instant_the_earlier_waiter_goes_first() {
    for turns in [secs(10), secs(25)] {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().in_flight(1).clock(clock.clone()).timer(by_hand).build();
        let pools =
            [(); 2].map(|()| root.child().requests(1).window(Window::fixed(secs(10))).build());
        pools.iter().for_each(|pool| pool.record(Amount::new().requests(1)).unwrap());
        let request = Amount::new().requests(1);
        let before = Waiter::queued(&pools[1], request);
        let mut earlier = Waiter::queued(&pools[0], request);
        drop(before);
        let mut later = Waiter::queued(&pools[1], request);
        clock.advance(turns);
        root.peek(Amount::new()).unwrap_err();
        assert_eq!((earlier.wakes(), later.wakes()), (1, 0));
        let hold = earlier.granted();
        assert!(later.poll().is_pending());
        drop(hold);
        later.granted().release();
    }
}

/// A pause is over first, and then the window turns: at one instant.
#[test]
fn p6_where_a_pause_ends_and_a_window_turns_at_one_instant_the_earlier_waiter_goes_first() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().in_flight(1).clock(clock.clone()).timer(by_hand).build();
    let limited = root.child().requests(1).window(Window::fixed(secs(10))).build();
    limited.record(Amount::new().requests(1)).unwrap();
    let paused = [(); 2].map(|()| root.child().build());
    let mut earlier = Waiter::queued(&limited, Amount::new().requests(1));
    paused.iter().for_each(|pool| pool.pause(secs(10)));
    let mut others = [1, 0].map(|index| Waiter::queued(&paused[index], Amount::new()));
    clock.advance(secs(10));
    root.peek(Amount::new()).unwrap_err();
    earlier.granted().release();
    let [second, third] = &mut others;
    assert_eq!(third.wakes(), 0);
    second.granted().release();
    third.granted().release();
}

/// The second hold expires later than the first, and nobody but the refused has waited for it.
#[test]
fn p7_a_waiter_that_an_expiry_leaves_no_hope_is_told_the_figures_of_that_instant() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().tokens(10).clock(clock.clone()).timer(by_hand).build();
    let settles = Ask::new(tokens(6)).ttl(secs(1)).on_drop(OnDrop::Commit);
    forget(pool.reserve(settles).unwrap());
    forget(pool.reserve(Ask::new(tokens(4)).ttl(secs(2))).unwrap());
    let mut waiter = Waiter::queued(&pool, tokens(10));
    clock.advance(secs(2));
    pool.peek(tokens(0)).unwrap();
    let refusal = waiter.refused();
    let exceeded = refusal.exceeded().expect("it can never fit");
    assert_eq!((exceeded.available().units(), balance(&pool)), (0, [6, 0, 0]));
}

/// The call comes after the turn, and by another pool, which brings up neither.
#[test]
fn p8_a_hold_that_settled_before_a_turn_is_of_the_period_before_it_for_who_waits_for_the_turn() {
    // The last has not expired yet.
    for (ttl, used, reserved) in [(9, 0, 5), (10, 5, 5), (11, 5, 5), (12, 0, 10)] {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
        let limited = root.child().tokens(10).window(Window::fixed(secs(10))).build();
        limited.record(tokens(5)).unwrap();
        let settles = Ask::new(tokens(5)).ttl(secs(ttl)).on_drop(OnDrop::Commit);
        forget(limited.reserve(settles).unwrap());
        let mut waiter = Waiter::queued(&limited, tokens(5));
        clock.advance(secs(11));
        root.peek(Amount::new()).unwrap();
        let hold = waiter.granted();
        assert_eq!(balance(&limited), [used, reserved, 0], "{ttl}");
        hold.release();
    }
}

/// The release sees nothing of the window, nor of what expired there.
#[test]
fn p8_a_release_serves_by_the_turn_of_a_window_beside_it_and_by_what_expired_before_that() {
    for (ttl, used) in [(30, 20), (60, 50), (100, 50)] {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
        let plain = root.child().tokens(10).build();
        let window = Window::fixed(secs(60)).carrying_overage();
        let beside = root.child().tokens(100).window(window).build();
        let pool = BudgetPool::joint([&plain, &beside]).unwrap().build();
        due_before(&root);
        let held = plain.reserve(tokens(10)).unwrap();
        let _hold = beside.reserve(Ask::new(tokens(30)).ttl(secs(ttl))).unwrap();
        beside.debit(tokens(120));
        let mut waiter = Waiter::queued(&pool, tokens(4));
        clock.advance(secs(61));
        held.release();
        let _granted = waiter.granted();
        assert_eq!(beside.snapshot().tokens.used, used, "{ttl}");
    }
}
