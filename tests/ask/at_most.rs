//! How long a wait takes, by hand.

use super::*;

fn for_two_seconds(amount: Amount) -> Ask {
    Ask::new(amount).wait_at_most(2 * SECOND)
}

fn minute() -> Window {
    Window::token_bucket(60 * SECOND)
}

/// W9: a bucket that needs 30 s, nothing held.
#[test]
fn w9_what_time_cannot_bring_by_then_is_refused_at_once_with_the_instant() {
    let clock = ManualClock::new();
    let pool = run(&clock).requests(2).window(minute()).build();
    pool.record(requests(2)).unwrap();
    let ask = || for_two_seconds(requests(1));
    for refused in [
        pool.reserve_blocking(ask()).unwrap_err(),
        pin!(pool.reserve_wait(ask())).refused_at_once(),
    ] {
        assert_eq!(refused.outlook(), Outlook::At(clock.now() + 30 * SECOND));
        assert_eq!(refused.retry_after(), Some(30 * SECOND));
        assert!(matches!(refused, BudgetError::Exceeded(_)), "{refused}");
    }
    assert_eq!((pool.snapshot().waiting, pool.snapshot().refused), (0, 2));

    // One that takes all its time is served at its last instant, and one that has a nanosecond
    // less is refused.
    let just = Ask::new(requests(1)).wait_at_most(30 * SECOND - MOMENT);
    let refused = pin!(pool.reserve_wait(just)).refused_at_once();
    assert_eq!(refused.retry_after(), Some(30 * SECOND));
    let mut waiter = Waiter::queued(&pool, Ask::new(requests(1)).wait_at_most(30 * SECOND));
    clock.advance(30 * SECOND - MOMENT);
    assert!(waiter.poll().is_pending());
    clock.advance(MOMENT);
    let Poll::Ready(Ok(hold)) = waiter.poll() else { panic!("time has brought it") };
    hold.commit_all();
}

/// W9, where a hold may be released before: it is not refused at once.
#[test]
fn w9_what_a_release_may_bring_by_then_is_waited_for() {
    let clock = ManualClock::new();
    let pool = run(&clock).requests(2).window(minute()).build();
    pool.record(requests(1)).unwrap();
    let held = pool.reserve(requests(1)).unwrap();
    let mut waiter = Waiter::queued(&pool, for_two_seconds(requests(1)));
    clock.advance(SECOND);
    held.release();
    assert_eq!(waiter.granted().amount(), requests(1));
}

/// A pause that goes on longer, a fixed window that turns later, and a deadline that is earlier.
#[test]
fn w9_is_refused_at_once_by_every_kind_of_time() {
    let clock = ManualClock::new();
    let pool = run(&clock).requests(2).build();
    pool.pause(2 * SECOND + MOMENT);
    let refused = pin!(pool.reserve_wait(for_two_seconds(requests(1)))).refused_at_once();
    assert_eq!((refused.kind(), refused.retry_after()), ("paused", Some(2 * SECOND + MOMENT)));
    clock.advance(MOMENT);
    let mut waiter = Waiter::queued(&pool, for_two_seconds(requests(1)));
    clock.advance(2 * SECOND);
    assert!(matches!(waiter.poll(), Poll::Ready(Ok(_))), "the pause ends at its last instant");

    for (left, is_served) in [(2 * SECOND, true), (2 * SECOND + MOMENT, false)] {
        let pool = run(&clock).requests(1).window(Window::fixed(left)).build();
        pool.record(requests(1)).unwrap();
        let outcome = pin!(pool.reserve_wait(for_two_seconds(requests(1)))).once();
        assert_eq!(outcome.is_pending(), is_served, "{left:?}");
    }

    let late = run(&clock).requests(1).window(Window::fixed(SECOND)).deadline(SECOND).build();
    late.record(requests(1)).unwrap();
    let refused = pin!(late.reserve_wait(for_two_seconds(requests(1)))).refused_at_once();
    assert_eq!(refused.outlook(), Outlook::Never);
    let capped = run(&clock).requests(1).build();
    let refused = pin!(capped.reserve_wait(for_two_seconds(requests(2)))).refused_at_once();
    assert_eq!(refused.outlook(), Outlook::Never);
}

/// Waits in vain, and is told what a plain call is told at that very instant.
fn ends_in_vain(pool: &BudgetPool, waiter: &mut Waiter, amount: Amount) -> BudgetError {
    let refused = pool.snapshot().refused;
    let Poll::Ready(outcome) = waiter.poll() else { panic!("its time is over") };
    let text = outcome.as_ref().unwrap_err().to_string();
    assert!(text.starts_with("waited in vain in `run` for 2s: "), "{text}");
    assert_eq!(pool.snapshot().refused, refused + 1);
    let told = in_vain(outcome);
    assert_eq!(Some(&told), pool.reserve(amount).err().as_ref(), "as a plain call");
    told
}

#[test]
fn p7_a_wait_in_vain_carries_the_refusal_of_that_instant() {
    let clock = ManualClock::new();
    let pool = run(&clock).requests(10).window(Window::token_bucket(10 * SECOND)).build();

    // Exceeded, until a release, and until an instant that no time of its own could name.
    let held = pool.reserve(requests(10)).unwrap();
    let mut waiter = Waiter::queued(&pool, for_two_seconds(requests(5)));
    clock.advance(2 * SECOND);
    let told = ends_in_vain(&pool, &mut waiter, requests(5));
    assert_eq!(told.outlook(), Outlook::AfterRelease);
    let mut waiter = Waiter::queued(&pool, for_two_seconds(requests(5)));
    clock.advance(SECOND);
    held.commit(requests(10));
    clock.advance(SECOND);
    let told = ends_in_vain(&pool, &mut waiter, requests(5));
    assert_eq!(told.retry_after(), Some(4 * SECOND), "of the five, one second is over");

    // Queued: an earlier one waits still.
    let mut first = Waiter::queued(&pool, requests(9));
    let mut waiter = Waiter::queued(&pool, for_two_seconds(requests(1)));
    clock.advance(2 * SECOND);
    let told = ends_in_vain(&pool, &mut waiter, requests(1));
    assert!(matches!(told, BudgetError::Queued { .. }), "{told}");
    assert!(first.poll().is_pending());
    drop(first);

    // Paused, since it took its place.
    let held = pool.reserve(requests(3)).unwrap();
    let mut waiter = Waiter::queued(&pool, for_two_seconds(requests(4)));
    pool.pause(20 * SECOND);
    clock.advance(2 * SECOND);
    let told = ends_in_vain(&pool, &mut waiter, requests(4));
    assert_eq!((told.kind(), told.retry_after()), ("paused", Some(18 * SECOND)));
    held.release();
    pool.resume();
    is_idle(&pool);
}

/// The end of the time and the release that would have served it are at one instant: whoever
/// comes first.
#[test]
fn a_grant_at_the_very_last_instant_counts_and_none_is_lost_after_it() {
    for late in [Duration::ZERO, MOMENT, 100 * SECOND] {
        let clock = ManualClock::new();
        let pool = run(&clock).tokens(10).build();
        let held = pool.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&pool, for_two_seconds(tokens(4)));
        let mut next = Waiter::queued(&pool, tokens(5));
        clock.advance(2 * SECOND + late);
        held.release();
        assert_eq!(waiter.granted().amount(), tokens(4), "{late:?}");
        assert_eq!(next.granted().amount(), tokens(5), "{late:?}");
    }
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).build();
    let held = pool.reserve(tokens(10)).unwrap();
    let mut waiter = Waiter::queued(&pool, for_two_seconds(tokens(4)));
    let mut next = Waiter::queued(&pool, tokens(5));
    clock.advance(2 * SECOND - MOMENT);
    assert!(waiter.poll().is_pending());
    clock.advance(MOMENT);
    assert!(matches!(in_vain(waiter.end()), BudgetError::Queued { .. }));
    held.release();
    assert_eq!(next.granted().amount(), tokens(5));
}

/// Its place was all that held up the next one.
#[test]
fn p6_one_that_gives_up_makes_way_for_those_behind_it() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).build();
    let _held = pool.reserve(tokens(5)).unwrap();
    let mut large = Waiter::queued(&pool, for_two_seconds(tokens(9)));
    let mut small = Waiter::queued(&pool, tokens(5));
    let mut last = Waiter::queued(&pool, tokens(1));
    clock.advance(2 * SECOND);
    let told = in_vain(large.end());
    let small = small.granted();
    assert_eq!(small.amount(), tokens(5));
    assert!(matches!(told, BudgetError::Queued { .. }), "one waits behind it still: {told}");
    assert!(last.poll().is_pending());
    small.release();
    last.granted().release();
}

/// Any call that knows the time ends it, not its own look alone: it keeps nobody out.
#[test]
fn p6_one_that_is_late_is_in_nobodys_way_from_the_next_call_that_knows_the_time() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).most_waiting(2).build();
    let _held = pool.reserve(tokens(5)).unwrap();
    let mut late = Waiter::queued(&pool, for_two_seconds(tokens(8)));
    let mut behind = Waiter::queued(&pool, tokens(2));
    clock.advance(2 * SECOND);
    assert!(matches!(pool.record(tokens(1)), Err(BudgetError::Queued { .. })), "as of before");

    pool.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap().release();
    assert_eq!((late.wakes(), behind.granted().amount()), (1, tokens(2)));
    pool.record(tokens(1)).unwrap();
    let other = Waiter::queued(&pool, tokens(9));
    assert_eq!(pool.snapshot().waiting, 1, "the one that is late has no place");
    let Poll::Ready(outcome) = late.poll() else { panic!("its time is over") };
    assert!(matches!(in_vain(outcome), BudgetError::Queued { .. }));
    drop(other);
}

/// What expires at its very last instant serves it, before that ends it, whoever is called.
#[test]
fn p6_what_expires_at_its_last_instant_serves_it_before_those_behind() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).build();
    std::mem::forget(pool.reserve(Ask::new(tokens(10)).ttl(2 * SECOND)).unwrap());
    let mut first = Waiter::queued(&pool, for_two_seconds(tokens(8)));
    let mut behind = Waiter::queued(&pool, tokens(4));
    clock.advance(2 * SECOND);
    let late = pool.reserve(Ask::new(tokens(1)).ttl(SECOND));
    assert!(matches!(late, Err(BudgetError::Queued { .. })));
    assert_eq!(first.granted().amount(), tokens(8));
    assert_eq!(behind.granted().amount(), tokens(4), "the first has given its hold back");
}

/// What it waits for is the last choice; when it gives up, any will do, as for a plain call.
#[test]
fn one_that_gives_up_is_granted_what_a_plain_call_would_be() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).requests(1).build();
    let (all, slot) = (pool.reserve(tokens(10)).unwrap(), pool.reserve(requests(1)).unwrap());
    let ask = Ask::new(tokens(8)).or(requests(1)).wait_at_most(2 * SECOND);
    let mut waiter = Waiter::queued(&pool, ask.ttl(5 * SECOND));
    all.release();
    assert!(waiter.poll().is_pending(), "it waits for the last");
    clock.advance(2 * SECOND);
    let Poll::Ready(Ok(hold)) = waiter.poll() else { panic!("eight tokens are free") };
    assert_eq!((granted(&hold), hold.time_left()), ((0, tokens(8)), Some(5 * SECOND)));
    slot.release();
}

#[test]
fn zero_waits_not_at_all_and_max_for_ever() {
    let clock = ManualClock::new();
    let pool = run(&clock).tokens(10).build();
    let at_most = |amount, time| Ask::new(amount).wait_at_most(time);
    for time in [Duration::ZERO, Duration::MAX] {
        let hold = pin!(pool.reserve_wait(at_most(tokens(10), time))).once();
        assert!(matches!(hold, Poll::Ready(Ok(_))), "{time:?}");
    }
    let held = pool.reserve(tokens(10)).unwrap();
    let outcome = pin!(pool.reserve_wait(at_most(tokens(1), Duration::ZERO))).once();
    let Poll::Ready(outcome) = outcome else { panic!("its time is over") };
    assert!(matches!(in_vain(outcome), BudgetError::Exceeded(_)));
    let blocking = pool.reserve_blocking(at_most(tokens(1), Duration::ZERO));
    assert!(matches!(in_vain(blocking), BudgetError::Exceeded(_)));
    assert_eq!(pool.snapshot().waiting, 0);
    let mut endless = Waiter::queued(&pool, at_most(tokens(1), Duration::MAX));
    clock.advance(Duration::from_secs(1 << 32));
    assert!(endless.poll().is_pending());
    held.release();
    assert_eq!(endless.granted().amount(), tokens(1));
}

/// An async wait needs a timer for its end, as for any other instant; one that is granted at
/// once, or by no end of its own, needs none.
#[test]
fn without_a_timer_an_async_wait_that_takes_a_time_is_refused() {
    let pool = BudgetPool::builder().name("run").tokens(10).build();
    let ask = || for_two_seconds(tokens(1));
    assert!(matches!(pin!(pool.reserve_wait(ask())).once(), Poll::Ready(Ok(_))));
    let held = pool.reserve(tokens(10)).unwrap();
    let refused = pin!(pool.reserve_wait(ask())).refused_at_once();
    assert!(matches!(refused, BudgetError::NoTimer { .. }), "{refused}");
    let endless = Ask::new(tokens(1)).wait_at_most(Duration::MAX);
    let mut endless = Waiter::queued(&pool, endless);
    held.release();
    endless.granted().release();
    is_idle(&pool);
}

#[test]
fn the_deadline_and_the_close_of_a_pool_end_it_before_its_time() {
    let clock = ManualClock::new();
    let above = run(&clock).tokens(1).build();
    let _held = above.reserve(tokens(1)).unwrap();
    let pool = above.child().name("late").deadline(SECOND).build();
    let mut waiter = Waiter::queued(&pool, for_two_seconds(tokens(1)));
    clock.advance(SECOND);
    assert_eq!(waiter.end().unwrap_err().axis(), Some(Axis::Deadline));
    let mut waiter = Waiter::queued(&above, for_two_seconds(tokens(1)));
    above.close();
    assert!(matches!(waiter.refused(), BudgetError::Closed { .. }));
}

#[test]
fn reserve_never_waits_whatever_the_time() {
    let pool = pool_of(10);
    let _held = pool.reserve(tokens(10)).unwrap();
    let refused = pool.reserve(for_two_seconds(tokens(1))).unwrap_err();
    assert!(matches!(refused, BudgetError::Exceeded(_)), "{refused}");
}
