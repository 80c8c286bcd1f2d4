//! Watching a pool: levels that are reached, and what a pool wants of whoever funds it.

use std::pin::Pin;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Level, ManualClock, OnDrop, Outlook, Reached,
    Usd, Wants, Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;
#[path = "support/watchdog.rs"]
mod watchdog;
#[path = "support/watcher.rs"]
mod watcher;

use invariants::check_invariants;
use waiter::{Waiter, Wakes, by_hand};
use watchdog::ends;
use watcher::Watcher;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn caps(n: u64) -> Caps {
    Caps::new().tokens(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

fn percent(percent: u32) -> Level {
    Level::percent(Axis::Tokens, percent)
}

fn alert(pool: &BudgetPool, level: Level) -> Watcher<Reached> {
    Watcher::waiting(pool.reached(level))
}

fn funder(pool: &BudgetPool) -> Watcher<Wants> {
    Watcher::waiting(pool.wants())
}

/// Nothing is left behind by those who watched.
#[track_caller]
fn is_sound(pool: &BudgetPool) {
    check_invariants(pool);
}

mod reached {
    use super::*;

    #[test]
    fn s4_an_alert_at_80_percent_comes_once_and_survives_resets() {
        let pool = pool_of(1_000);
        let mut at_80 = alert(&pool, percent(80));
        pool.record(tokens(799)).unwrap();
        at_80.still_waits();
        // A new period, in which the balance of the old one is nothing.
        pool.reset();
        pool.record(tokens(500)).unwrap();
        at_80.still_waits();

        pool.record(tokens(300)).unwrap();
        pool.record(tokens(50)).unwrap();
        let snapshot = at_80.told();
        assert_eq!((snapshot.tokens.used, &*snapshot.name), (800, "run"), "of that instant");

        // It is done: neither that nor the next period comes to it.
        pool.reset();
        pool.record(tokens(900)).unwrap();
        assert!(at_80.poll().is_pending() && at_80.wakes() == 1);
        // A pool that is there already is told at once.
        assert_eq!(pool.reached(percent(80)).block().tokens.used, 900);
        is_sound(&pool);
    }

    #[test]
    fn s4_an_alert_survives_a_window_that_turns() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(100)
            .window(Window::fixed(secs(60)))
            .clock(clock.clone())
            .build();
        let mut at_80 = alert(&pool, percent(80));
        for _minute in 0..3 {
            pool.record(tokens(79)).unwrap();
            at_80.still_waits();
            clock.advance(secs(60));
        }
        // By a call that knows no better than the clock: the window turns first.
        pool.record(tokens(40)).unwrap();
        at_80.still_waits();
        pool.record(tokens(40)).unwrap();
        assert_eq!(at_80.told().tokens.used, 80);
        // In the next period it is below again: a poll reads the clock.
        clock.advance(secs(60));
        alert(&pool, percent(80)).still_waits();
    }

    /// By every call that spends or holds, on a pool with a child: what is called, and what
    /// then counts in the pool.
    #[test]
    fn each_call_that_spends_or_holds_tells() {
        type Call = fn(&BudgetPool, &BudgetPool);
        let calls: [(&str, Call); 15] = [
            ("record", |pool, _| pool.record(tokens(80)).unwrap()),
            ("record below", |_, child| child.record(tokens(80)).unwrap()),
            ("record_once", |pool, _| _ = pool.record_once("key", tokens(80)).unwrap()),
            ("record_and_snapshot", |pool, _| drop(pool.record_and_snapshot(tokens(80)).unwrap())),
            ("record_blocking", |pool, _| pool.record_blocking(tokens(80)).unwrap()),
            ("debit", |pool, _| _ = pool.debit(tokens(80))),
            ("debit_once", |_, child| _ = child.debit_once("key", tokens(80)).unwrap()),
            ("reserve", |pool, _| std::mem::forget(pool.reserve(tokens(80)).unwrap())),
            ("reserve on terms", |_, child| {
                let ask = Ask::new(tokens(90)).at_least(tokens(1)).label("call");
                assert_eq!(child.reserve(ask).unwrap().commit_all().settled(), tokens(90));
            }),
            ("grow", |pool, _| pool.reserve(tokens(1)).unwrap().grow(tokens(79)).unwrap()),
            ("commit", |pool, _| _ = pool.reserve(tokens(1)).unwrap().commit(tokens(80))),
            ("a part", |_, child| child.reserve(tokens(1)).unwrap().record(tokens(80)).unwrap()),
            ("lease", |pool, _| pool.lease(tokens(1)).record(tokens(80)).unwrap()),
            ("carve", |pool, _| drop(pool.child().tokens(80).carved().build().unwrap())),
            ("set_used", |pool, _| pool.set_used(tokens(80)).unwrap()),
        ];
        for (what, call) in calls {
            let pool = pool_of(100);
            let child = pool.child().build();
            let (mut at_80, mut at_81) = (alert(&pool, percent(80)), alert(&pool, percent(91)));
            call(&pool, &child);
            let tokens = at_80.told().tokens;
            assert!(tokens.used + tokens.reserved >= 80, "{what}: {tokens:?}");
            at_81.still_waits();
            drop((at_80, at_81));
            is_sound(&pool);
        }
    }

    #[test]
    fn a_cap_that_moves_moves_the_level() {
        let pool = pool_of(1_000);
        pool.record(tokens(700)).unwrap();
        let move_caps: [fn(&BudgetPool); 4] = [
            |pool| pool.lower_caps(caps(200)).unwrap(),
            |pool| assert_eq!(pool.lower_caps_up_to(caps(200)), caps(200)),
            |pool| pool.set_caps(caps(800)).unwrap(),
            |pool| {
                let other = pool.child().tokens(0).build();
                pool.transfer(&other, caps(200)).unwrap();
            },
        ];
        for lower in move_caps {
            let mut at_80 = alert(&pool, percent(80));
            lower(&pool);
            assert_eq!(at_80.told().tokens.cap, Some(800));
            pool.raise_caps(caps(200)).unwrap();
        }
        let mut at_50 = alert(&pool, percent(71));
        pool.raise_caps(caps(500)).unwrap();
        at_50.still_waits();
    }

    #[test]
    fn a_transfer_tells_of_both_pools() {
        let root = pool_of(1_000);
        let share = |n| root.child().tokens(n).carved().build().unwrap();
        let (from, to) = (share(500), share(100));
        from.record(tokens(400)).unwrap();
        to.record(tokens(50)).unwrap();
        let mut of_from = alert(&from, percent(90));
        let mut of_to = alert(&to, Level::amount(tokens(51)));
        from.transfer(&to, caps(60)).unwrap();
        assert_eq!(of_from.told().tokens.cap, Some(440));
        to.record(tokens(1)).unwrap();
        assert_eq!(of_to.told().tokens.cap, Some(160));
    }

    #[test]
    fn a_transfer_tells_of_the_pools_above_the_gainer() {
        let root = pool_of(1_000);
        let team = root.child().tokens(500).build();
        let from = root.child().tokens(300).carved().build().unwrap();
        let to = team.child().tokens(100).carved().build().unwrap();
        let mut of_team = alert(&team, percent(40));
        from.transfer(&to, caps(99)).unwrap();
        of_team.still_waits();
        from.transfer(&to, caps(1)).unwrap();
        assert_eq!(of_team.told().tokens.reserved, 200);
    }

    #[test]
    fn settled_counts_no_hold_and_overage_counts() {
        let pool = pool_of(100);
        let held = alert(&pool, percent(80));
        let mut settled = alert(&pool, percent(80).settled());
        let mut over = alert(&pool, percent(130));
        let mut settled_over = alert(&pool, percent(90).settled());
        let hold = pool.reserve(tokens(60)).unwrap();
        settled.still_waits();
        // 40 used, 60 reserved, 45 over: 85 were spent.
        pool.debit(tokens(40));
        { held }.told();
        pool.debit(tokens(40));
        assert_eq!(settled.told().tokens.overage, 40, "the true spend is used + overage");
        assert_eq!(over.told().tokens.overage, 40);
        settled_over.still_waits();
        hold.commit(tokens(10));
        assert_eq!(settled_over.told().tokens.used, 90);
    }

    #[test]
    fn an_amount_is_reached_on_every_axis_that_it_names_capped_or_not() {
        let pool = pool_of(1_000);
        let usd = |dollars| Amount::new().usd(Usd::from_dollars(dollars));
        let mut both = alert(&pool, Level::amount(tokens(10) + usd(5)));
        let mut input = alert(&pool, Level::amount(Amount::new().input_tokens(10)));
        pool.debit(tokens(10) + usd(4));
        both.still_waits();
        input.still_waits();
        pool.debit(usd(1));
        assert_eq!(both.told().usd.used, Usd::from_dollars(5));
        pool.debit(Amount::new().input_tokens(10));
        assert_eq!(input.told().input_tokens.used, 10);

        let mut slots = alert(&pool, Level::amount(Amount::new().in_flight(2)));
        let first = pool.reserve(tokens(0)).unwrap();
        slots.still_waits();
        let second = pool.reserve(tokens(0)).unwrap();
        assert_eq!(slots.told().in_flight.reserved, 2);
        drop((first, second));
    }

    #[test]
    fn what_has_no_cap_reaches_no_percentage_until_it_has_one() {
        let pool = BudgetPool::unlimited();
        pool.debit(tokens(u64::MAX));
        let mut at_0 = alert(&pool, percent(0));
        let mut deadline = alert(&pool, Level::percent(Axis::Deadline, 0));
        pool.record(Amount::new().requests(1)).unwrap();
        at_0.still_waits();
        pool.set_caps(caps(5)).unwrap();
        assert_eq!(at_0.told().tokens.cap, Some(5));
        deadline.still_waits();
    }

    #[test]
    fn large_figures_are_compared_exactly_and_edges_are_there_at_once() {
        let pool = pool_of(u64::MAX);
        let mut all = alert(&pool, percent(100));
        let mut beyond = alert(&pool, percent(u32::MAX));
        pool.debit(tokens(u64::MAX - 1));
        all.still_waits();
        pool.debit(tokens(u64::MAX));
        assert_eq!(all.told().tokens.used, u64::MAX);
        beyond.still_waits();

        for (cap, level) in [
            (0, percent(100)),
            (0, percent(u32::MAX)),
            (5, percent(0)),
            (5, Level::amount(Amount::new())),
            (5, Level::amount(tokens(0))),
        ] {
            assert!(Watcher::new(pool_of(cap).reached(level)).poll().is_ready(), "{level:?}");
        }
        // 80 per cent of 7 are 5.6.
        let seven = pool_of(7);
        let mut at_80 = alert(&seven, percent(80));
        seven.record(tokens(5)).unwrap();
        at_80.still_waits();
        seven.record(tokens(1)).unwrap();
        at_80.told();
    }

    #[test]
    fn what_was_reached_is_told_however_the_balance_has_changed_since() {
        let pool = pool_of(100);
        let mut at_80 = alert(&pool, percent(80));
        pool.reserve(tokens(90)).unwrap().release();
        assert_eq!(at_80.told().tokens.reserved, 90);
        assert_eq!(pool.snapshot().tokens.reserved, 0);
    }

    #[test]
    fn a_refused_call_reaches_nothing() {
        let pool = pool_of(100);
        let child = pool.child().tokens(200).build();
        let mut at_80 = [alert(&pool, percent(80)), alert(&child, percent(80))];
        assert!(child.record(tokens(160)).is_err(), "the parent refuses");
        assert!(child.reserve(tokens(160)).is_err());
        at_80.iter_mut().for_each(Watcher::still_waits);
    }

    #[test]
    fn a_grant_in_line_tells_the_pools_of_the_waiter() {
        let root = pool_of(100);
        let (a, b) = (root.child().build(), root.child().build());
        let hold = a.reserve(tokens(60)).unwrap();
        let mut waiter = Waiter::queued(&b, tokens(90));
        let (mut of_a, mut of_b) =
            (alert(&a, Level::amount(tokens(90))), alert(&b, Level::amount(tokens(90))));
        let mut of_root = alert(&root, percent(90));
        hold.release();
        assert_eq!((of_b.told().tokens.reserved, of_root.told().tokens.reserved), (90, 90));
        of_a.still_waits();
        drop(waiter.granted());
    }

    #[test]
    fn what_expires_elsewhere_tells_there() {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().tokens(100).clock(clock.clone()).build();
        let (a, b) = (root.child().on_drop(OnDrop::Commit).build(), root.child().build());
        let hold = a.reserve(Ask::new(tokens(40)).ttl(secs(10))).unwrap();
        let mut settled = alert(&a, Level::amount(tokens(40)).settled());
        clock.advance(secs(10));
        assert_eq!(settled.wakes(), 0, "no call has come");
        drop(b.holders());
        assert_eq!(settled.told().tokens.used, 40);
        drop(hold);
    }

    #[test]
    fn a_hold_that_has_expired_reaches_no_level() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).build();
        // More of them than a call reclaims by the way.
        let ask = || Ask::new(tokens(10)).ttl(secs(10));
        let holds: Vec<_> = (0..7).map(|_| pool.reserve(ask()).unwrap()).collect();
        let mut at_80 = alert(&pool, percent(80));
        clock.advance(secs(10));
        // A part of them is reclaimed by the way: with the rest it would be 90.
        pool.record(tokens(40)).unwrap();
        at_80.still_waits();
        pool.reset();
        pool.record(tokens(20)).unwrap();
        at_80.still_waits();
        pool.record(tokens(60)).unwrap();
        let snapshot = at_80.told();
        assert_eq!((snapshot.tokens.used, snapshot.tokens.reserved), (80, 0));
        drop(holds);
        is_sound(&pool);
    }

    #[test]
    fn a_level_of_one_pool_is_none_of_another() {
        let root = pool_of(1_000);
        let (a, b) = (root.child().tokens(10).build(), root.child().tokens(10).build());
        let mut of_b = alert(&b, percent(80));
        let mut of_root = alert(&root, percent(2));
        a.record(tokens(10)).unwrap();
        of_b.still_waits();
        of_root.still_waits();
        b.record(tokens(10)).unwrap();
        assert_eq!(of_b.told().tokens.used, 10);
        assert_eq!(of_root.told().tokens.used, 20);
    }

    #[test]
    fn accounting_in_a_closed_pool_is_watched() {
        let root = pool_of(1_000);
        let child = root.child().tokens(100).build();
        let hold = child.reserve(tokens(50)).unwrap();
        let mut at_80 = alert(&child, percent(80));
        root.close();
        at_80.still_waits();
        hold.commit(tokens(85));
        let snapshot = at_80.told();
        assert!(snapshot.closed && snapshot.tokens.used == 85);
    }

    #[test]
    fn a_share_that_is_closed_is_all_used() {
        let root = pool_of(1_000);
        let share = root.child().tokens(100).carved().build().unwrap();
        share.record(tokens(5)).unwrap();
        let mut at_80 = alert(&share, percent(80));
        root.close();
        let tokens = at_80.told().tokens;
        assert_eq!((tokens.cap, tokens.used), (Some(5), 5));
        is_sound(&root);
    }
}

mod wants {
    use super::*;

    fn ceiled(cap: u64, ceiling: u64) -> BudgetPool {
        BudgetPool::builder().name("run").tokens(cap).ceiling(caps(ceiling)).build()
    }

    #[test]
    fn a_pool_is_low_when_less_is_free_than_it_should_have() {
        let pool = BudgetPool::builder().tokens(100).low(tokens(20)).build();
        let mut want = funder(&pool);
        pool.record(tokens(80)).unwrap();
        want.still_waits();
        let hold = pool.reserve(tokens(5)).unwrap();
        let told = want.told();
        assert_eq!((told.low, told.missing), (true, tokens(5)));
        // As long as it is low, each that asks is told at once.
        assert_eq!(pool.wants().block().missing, tokens(5));
        pool.raise_caps(told.missing.into_iter().collect()).unwrap();
        let mut again = funder(&pool);
        hold.commit(tokens(25));
        assert_eq!(again.told().missing, tokens(20));
        is_sound(&pool);
    }

    #[test]
    fn what_is_missing_pays_the_overage_and_what_a_cap_has_to_fall() {
        let pool = BudgetPool::builder().tokens(100).low(tokens(20)).build();
        pool.debit(tokens(130));
        let missing = pool.wants().block().missing;
        assert_eq!(missing, tokens(50));
        pool.raise_caps(missing.into_iter().collect()).unwrap();
        funder(&pool).still_waits();

        let pool = BudgetPool::builder().tokens(100).low(tokens(20)).build();
        let hold = pool.reserve(tokens(80)).unwrap();
        pool.set_caps(caps(30)).unwrap();
        let missing = pool.wants().block().missing;
        assert_eq!(missing, tokens(70));
        pool.raise_caps(missing.into_iter().collect()).unwrap();
        funder(&pool).still_waits();
        drop(hold);
    }

    #[test]
    fn an_axis_without_a_cap_is_never_low() {
        let pool =
            BudgetPool::builder().tokens(100).low(Amount::new().tokens(10).requests(1_000)).build();
        funder(&pool).still_waits();
        pool.record(tokens(95)).unwrap();
        assert_eq!(pool.wants().block().missing, tokens(5));
    }

    #[test]
    fn a_lack_above_is_the_want_of_the_pool_above() {
        let root = BudgetPool::builder().tokens(100).low(tokens(50)).build();
        let child = root.child().tokens(100).low(tokens(50)).build();
        let (mut of_root, mut of_child) = (funder(&root), funder(&child));
        root.record(tokens(60)).unwrap();
        assert_eq!(of_root.told().missing, tokens(10));
        of_child.still_waits();
        child.record(tokens(40)).unwrap();
        of_child.still_waits();
        child.debit(tokens(11));
        assert_eq!(of_child.told().missing, tokens(1));
    }

    #[test]
    fn a_refusal_below_the_ceiling_is_told_to_those_who_watch() {
        let pool = ceiled(100, 1_000);
        let mut want = funder(&pool);
        pool.record(tokens(40)).unwrap();
        want.still_waits();
        let refused = pool.record(tokens(200)).unwrap_err();
        assert_eq!(refused.outlook(), Outlook::AfterFunding);
        let told = want.told();
        assert_eq!((told.low, told.missing), (false, tokens(140)));
        // It is not remembered for others.
        let mut later = funder(&pool);
        later.still_waits();
        pool.raise_caps(told.missing.into_iter().collect()).unwrap();
        pool.record(tokens(200)).unwrap();
        later.still_waits();
        is_sound(&pool);
    }

    /// What is called, and whether it is told.
    #[test]
    fn which_refusals_are_wants() {
        type Call = fn(&BudgetPool, &BudgetPool) -> BudgetError;
        let calls: [(&str, Option<u64>, Call); 12] = [
            ("record", Some(50), |pool, _| pool.record(tokens(150)).unwrap_err()),
            ("record below", Some(50), |_, child| child.record(tokens(150)).unwrap_err()),
            ("record_once", Some(50), |pool, _| pool.record_once("k", tokens(150)).unwrap_err()),
            ("reserve", Some(50), |pool, _| pool.reserve(tokens(150)).unwrap_err()),
            ("reserve on terms", Some(50), |pool, _| {
                pool.reserve(Ask::new(tokens(300)).at_least(tokens(150))).unwrap_err()
            }),
            ("grow", Some(60), |pool, _| {
                pool.reserve(tokens(10)).unwrap().grow(tokens(150)).unwrap_err()
            }),
            ("try_commit", Some(50), |pool, _| {
                let refused = pool.reserve(tokens(10)).unwrap().try_commit(tokens(150));
                refused.unwrap_err().error().clone()
            }),
            ("try_commit beyond the ceiling", None, |pool, _| {
                let refused = pool.reserve(tokens(10)).unwrap().try_commit(tokens(1_011));
                refused.unwrap_err().error().clone()
            }),
            ("lease", Some(50), |pool, _| pool.lease(tokens(5)).record(tokens(150)).unwrap_err()),
            ("carve", Some(50), |pool, _| pool.child().tokens(150).carved().build().unwrap_err()),
            ("beyond the ceiling", None, |pool, _| pool.record(tokens(1_001)).unwrap_err()),
            ("peek", None, |pool, _| pool.peek(tokens(150)).unwrap_err()),
        ];
        for (what, missing, call) in calls {
            let pool = ceiled(100, 1_000);
            let child = pool.child().tokens(200).build();
            let (mut want, mut of_child) = (funder(&pool), funder(&child));
            call(&pool, &child);
            match missing {
                Some(missing) => assert_eq!(want.told().missing, tokens(missing), "{what}"),
                None => want.still_waits(),
            }
            of_child.still_waits();
            is_sound(&pool);
        }
    }

    #[test]
    fn a_refusal_that_nobody_watched_for_is_not_told_later() {
        let pool = ceiled(100, 1_000);
        let mut closed = Box::pin(pool.closed());
        assert!(closed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let hold = pool.reserve(tokens(10)).unwrap();
        pool.record(tokens(150)).unwrap_err();
        let hold = hold.try_commit(tokens(150)).unwrap_err().into_reservation();
        funder(&pool).still_waits();
        drop(hold);
        is_sound(&pool);
    }

    #[test]
    fn what_another_pool_never_has_room_for_is_no_want() {
        let root = pool_of(100);
        let child = root.child().tokens(50).ceiling(caps(1_000)).build();
        let mut want = funder(&child);
        assert_eq!(child.record(tokens(150)).unwrap_err().outlook(), Outlook::Never);
        want.still_waits();
        assert_eq!(child.record(tokens(60)).unwrap_err().outlook(), Outlook::AfterFunding);
        assert_eq!(want.told().missing, tokens(10));
    }

    #[test]
    fn what_a_release_makes_room_for_is_no_want() {
        let pool = ceiled(100, 1_000);
        let hold = pool.reserve(tokens(90)).unwrap();
        let mut want = funder(&pool);
        let waiter = Waiter::queued(&pool, tokens(50));
        assert_eq!(pool.record(tokens(60)).unwrap_err().kind(), "queued");
        want.still_waits();
        // It is once what was held is spent: no release will come.
        hold.commit_all();
        assert_eq!(want.told().missing, tokens(40));
        drop(waiter);
        is_sound(&pool);
    }

    #[test]
    fn a_blocked_waiter_is_a_want_where_it_is_blocked_until_it_is_funded() {
        let root = ceiled(100, 1_000);
        let child = root.child().tokens(1_000).build();
        let (mut of_root, mut of_child) = (funder(&root), funder(&child));
        let mut first = Waiter::queued(&child, tokens(150));
        let told = of_root.told();
        assert_eq!((told.low, told.missing), (false, tokens(50)));
        of_child.still_waits();
        // The first of those that are blocked here counts.
        let second = Waiter::queued(&root, tokens(400));
        assert_eq!(root.wants().block().missing, tokens(50));
        root.raise_caps(told.missing.into_iter().collect()).unwrap();
        let hold = first.granted();
        // Now the second, of which a release will do for a part.
        assert_eq!(root.wants().block().missing, tokens(400));
        hold.release();
        assert_eq!(root.wants().block().missing, tokens(250));
        drop(second);
        funder(&root).still_waits();
        is_sound(&root);
    }

    #[test]
    fn a_waiter_that_moves_takes_its_want_along() {
        let root = ceiled(100, 1_000);
        let child = root.child().tokens(50).ceiling(caps(1_000)).build();
        let mut of_root = funder(&root);
        let waiter = Waiter::queued(&child, tokens(150));
        assert_eq!(child.wants().block().missing, tokens(100));
        of_root.still_waits();
        child.raise_caps(caps(100)).unwrap();
        assert_eq!(of_root.told().missing, tokens(50));
        funder(&child).still_waits();
        drop(waiter);
    }

    #[test]
    fn a_waiter_that_is_blocked_lower_after_a_release_above_is_a_want_there() {
        let root = pool_of(100);
        let child = root.child().tokens(50).ceiling(caps(1_000)).build();
        let hold = root.reserve(tokens(80)).unwrap();
        let waiter = Waiter::queued(&child, tokens(40));
        let mut of_child = funder(&child);
        child.debit(tokens(20));
        of_child.still_waits();
        hold.release();
        assert_eq!(of_child.told().missing, tokens(10));
        drop(waiter);
    }

    #[test]
    fn a_ceiling_that_is_raised_makes_a_want_of_a_hopeless_call() {
        let pool = pool_of(100);
        let mut want = funder(&pool);
        assert_eq!(pool.record(tokens(150)).unwrap_err().outlook(), Outlook::Never);
        want.still_waits();
        pool.set_ceiling(caps(200));
        want.still_waits();
        let waiter = Waiter::queued(&pool, tokens(150));
        assert_eq!(want.told().missing, tokens(50));
        drop(waiter);
    }

    #[test]
    fn of_several_wants_the_greatest_counts_axis_by_axis() {
        let pool = BudgetPool::builder()
            .tokens(100)
            .requests(10)
            .ceiling(Caps::new().tokens(1_000).requests(1_000))
            .low(Amount::new().tokens(30).requests(3))
            .build();
        let waiter = Waiter::queued(&pool, tokens(150));
        pool.debit(Amount::new().tokens(90).requests(9));
        let want = pool.wants().block();
        assert!(want.low);
        assert_eq!(want.missing, Amount::new().tokens(140).requests(2));
        drop(waiter);
    }

    #[test]
    fn a_closed_pool_wants_nothing() {
        let root = pool_of(1_000);
        let child = root.child().tokens(100).low(tokens(50)).build();
        let mut want = funder(&child);
        root.close();
        child.debit(tokens(90));
        want.still_waits();
        funder(&child).still_waits();
    }

    #[test]
    fn a_pool_that_is_starved_by_a_lower_cap_or_a_carve_is_low() {
        let pool = BudgetPool::builder().tokens(100).low(tokens(60)).build();
        let mut want = funder(&pool);
        pool.lower_caps(caps(41)).unwrap();
        assert_eq!(want.told().missing, tokens(1));
        pool.raise_caps(caps(41)).unwrap();
        let mut want = funder(&pool);
        let share = pool.child().tokens(50).carved().build().unwrap();
        assert_eq!(want.told().missing, tokens(10));
        drop(share);
        funder(&pool).still_waits();
    }

    #[test]
    fn an_own_axis_is_wanted_by_its_label() {
        const CALLS: Axis = Axis::custom(0, "calls");
        let pool = BudgetPool::builder().cap(CALLS, 3).low(Amount::of(CALLS, 2)).build();
        pool.record(Amount::of(CALLS, 2)).unwrap();
        assert_eq!(pool.wants().block().missing.to_string(), "1 calls");
    }

    /// No funds admit it there: the pool above need not be funded for it.
    #[test]
    fn a_refusal_of_a_closed_pool_is_no_want_of_those_above() {
        let above = ceiled(10, 100);
        let (open, closed) = (above.child().build(), above.child().build());
        closed.close();
        let late = above.child().deadline(Duration::ZERO).build();
        let mut want = funder(&above);
        for pool in [closed, late] {
            assert_eq!(pool.record(tokens(20)).unwrap_err().outlook(), Outlook::Never);
            want.still_waits();
        }
        assert_eq!(open.record(tokens(20)).unwrap_err().outlook(), Outlook::AfterFunding);
        assert_eq!(want.told().missing, tokens(10));
        is_sound(&above);
    }

    /// More holds have expired than a record reclaims that has room without them.
    #[test]
    fn a_pool_is_not_low_by_what_has_expired() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().tokens(30).low(tokens(8)).clock(clock.clone()).build();
        let hold = || pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap();
        let holds: Vec<_> = (0..12).map(|_| hold()).collect();
        let mut want = funder(&pool);
        clock.advance(secs(2));
        pool.record(tokens(15)).unwrap();
        want.still_waits();
        pool.record(tokens(8)).unwrap();
        assert_eq!(want.told().missing, tokens(1));
        drop(holds);
        is_sound(&pool);
    }
}

mod owners {
    use super::*;

    #[test]
    fn one_that_is_dropped_leaves_nothing_behind() {
        let pool = BudgetPool::builder().tokens(100).low(tokens(50)).build();
        let all = || (pool.reached(percent(80)), pool.wants(), pool.closed());
        drop(all());
        for meet in [false, true] {
            let (level, wants, closed) = all();
            let watchers =
                (Watcher::waiting(level), Watcher::waiting(wants), Watcher::waiting(closed));
            if meet {
                pool.record(tokens(90)).unwrap();
                assert_eq!([watchers.0.wakes(), watchers.1.wakes()], [1, 1]);
            }
            drop(watchers);
            is_sound(&pool);
        }
        // The tree is as quick as before, and nobody is woken.
        pool.record(tokens(10)).unwrap();
        pool.close();
    }

    #[test]
    fn one_that_is_polled_by_another_task_wakes_the_last() {
        let pool = pool_of(100);
        let mut future = pool.reached(percent(80));
        let (first, second) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
        let mut poll = |task: &Arc<Wakes>| {
            let waker = Waker::from(Arc::clone(task));
            Pin::new(&mut future).poll(&mut Context::from_waker(&waker))
        };
        assert!(poll(&first).is_pending() && poll(&second).is_pending());
        pool.record(tokens(80)).unwrap();
        assert_eq!([&first, &second].map(|task| task.0.load(SeqCst)), [0, 1]);
        assert!(poll(&first).is_ready());
    }

    #[test]
    fn many_watchers_are_each_told_of_their_own_level_once() {
        let pool = pool_of(1_000);
        let child = pool.child().tokens(1_000).build();
        let mut watchers: Vec<_> = (1..=1_000)
            .map(|n| alert(if n % 2 == 0 { &pool } else { &child }, Level::amount(tokens(n))))
            .collect();
        for spent in [1, 2, 10, 500, 999, 1_000] {
            let more = spent - pool.snapshot().tokens.used;
            child.record(tokens(more)).unwrap();
            let woken = watchers.iter().filter(|watcher| watcher.wakes() == 1).count();
            assert_eq!(woken as u64, spent);
        }
        for watcher in &mut watchers {
            watcher.told();
        }
        is_sound(&pool);
    }

    #[test]
    fn a_watch_keeps_its_pool() {
        let root = pool_of(100);
        let child = root.child().name("child").build();
        let weak = child.downgrade();
        let mut watch = alert(&child, Level::amount(tokens(5)));
        drop(child);
        let child = weak.upgrade().expect("the watch keeps it");
        child.record(tokens(5)).unwrap();
        drop(child);
        assert_eq!(&*watch.told().name, "child");
        drop(watch);
        assert!(weak.upgrade().is_none());
        assert_eq!(root.snapshot_tree().len(), 1);
        is_sound(&root);
    }

    #[test]
    fn all_resolve_before_their_first_poll_and_are_fused() {
        let pool = BudgetPool::builder().tokens(100).low(tokens(50)).build();
        let (mut level, mut wants) =
            (Watcher::new(pool.reached(percent(80))), Watcher::new(pool.wants()));
        let mut closed = Watcher::new(pool.closed());
        pool.record(tokens(80)).unwrap();
        pool.close();
        assert!(level.poll().is_ready());
        assert!(wants.poll().is_pending(), "a closed pool wants nothing");
        assert!(closed.poll().is_ready() && closed.poll().is_ready());
        assert!(level.poll().is_pending());
        pool.debit(tokens(80));
        assert!(level.poll().is_pending() && level.wakes() == 0);
    }

    #[test]
    fn a_thread_is_parked_until_it_is_told() {
        ends("a thread that is told", || {
            let pool = BudgetPool::builder().tokens(100).low(tokens(10)).build();
            let (done, is_done) = mpsc::channel();
            std::thread::scope(|scope| {
                let (pool, done) = (&pool, &done);
                scope.spawn(move || {
                    let at_80 = pool.reached(percent(80)).block();
                    done.send(("level", at_80.tokens.used)).unwrap();
                });
                scope.spawn(move || {
                    let want = pool.wants().block();
                    done.send(("want", want.missing.units(Axis::Tokens))).unwrap();
                });
                scope.spawn(move || {
                    pool.closed().block();
                    done.send(("closed", 0)).unwrap();
                });
                assert_eq!(is_done.recv_timeout(Duration::from_millis(50)).ok(), None);
                pool.record(tokens(85)).unwrap();
                assert_eq!(is_done.recv().unwrap(), ("level", 85));
                pool.record(tokens(10)).unwrap();
                assert_eq!(is_done.recv().unwrap(), ("want", 5));
                pool.close();
                assert_eq!(is_done.recv().unwrap(), ("closed", 0));
            });
        });
    }

    #[test]
    fn a_thread_waits_so_long_at_most_by_the_systems_clock() {
        ends("a thread that waits", || {
            let pool = BudgetPool::builder().tokens(100).clock(ManualClock::new()).build();
            let start = Instant::now();
            let ms = Duration::from_millis(20);
            assert!(pool.reached(percent(80)).block_at_most(ms).is_none());
            assert!(pool.wants().block_at_most(ms).is_none());
            assert!(!pool.closed().block_at_most(ms));
            assert!(start.elapsed() >= 3 * ms);
            is_sound(&pool);
            // What is there is told whatever the time.
            pool.record(tokens(80)).unwrap();
            assert!(pool.reached(percent(80)).block_at_most(Duration::ZERO).is_some());
            assert!(pool.reached(percent(80)).block_at_most(Duration::MAX).is_some());
            pool.close();
            assert!(pool.closed().block_at_most(Duration::ZERO));
            assert!(pool.closed().block_at_most(Duration::MAX));
        });
    }

    #[test]
    fn a_waker_comes_back_to_the_pool() {
        struct Back(BudgetPool);
        impl Wake for Back {
            fn wake(self: Arc<Self>) {
                self.0.record(tokens(1)).unwrap();
            }
        }
        let pool = pool_of(100);
        let mut watch = pool.reached(percent(80));
        let waker = Waker::from(Arc::new(Back(pool.clone())));
        let mut context = Context::from_waker(&waker);
        assert!(Pin::new(&mut watch).poll(&mut context).is_pending());
        pool.record(tokens(80)).unwrap();
        assert_eq!(pool.snapshot().tokens.used, 81);
        let Poll::Ready(snapshot) = Pin::new(&mut watch).poll(&mut context) else {
            panic!("it still waits")
        };
        assert_eq!(snapshot.tokens.used, 80, "of the transition that told it");
    }

    #[test]
    fn time_is_read_as_by_a_snapshot() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(100)
            .window(Window::token_bucket(secs(100)))
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        pool.debit(tokens(150));
        clock.advance(secs(60));
        // 60 came back: 90 of 100.
        let mut at_95 = alert(&pool, percent(95));
        assert_eq!(pool.reached(percent(90)).block().tokens.used, 90);
        clock.advance(secs(10));
        pool.record(tokens(14)).unwrap();
        at_95.still_waits();
        pool.record(tokens(1)).unwrap();
        assert_eq!(at_95.told().tokens.used, 95);
    }
}
