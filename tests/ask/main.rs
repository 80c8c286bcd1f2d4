//! `Ask`: what would do instead of an amount, on which terms it is held, and how long a wait takes.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Clock, ManualClock, OnDrop, Outlook, PoolBuilder,
    Reservation, Root, Usd, Window,
};

mod at_most;
#[path = "../support/comes_back.rs"]
mod comes_back;
#[path = "../support/invariants.rs"]
mod invariants;
mod runtimes;
#[path = "../support/waiter.rs"]
mod waiter;
#[path = "../support/watchdog.rs"]
mod watchdog;

use comes_back::comes_back;
use invariants::check_invariants;
use waiter::{Waiter, by_hand};
use watchdog::ends;

const SECOND: Duration = Duration::from_secs(1);
const MOMENT: Duration = Duration::from_nanos(1);

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn requests(n: u64) -> Amount {
    Amount::new().requests(n)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

/// A pool whose waits are polled by hand.
fn run(clock: &ManualClock) -> PoolBuilder<Root> {
    BudgetPool::builder().name("run").clock(clock.clone()).timer(by_hand)
}

fn granted(hold: &Reservation) -> (usize, Amount) {
    (hold.choice(), hold.amount())
}

/// The refusal that ended a wait in vain.
fn in_vain<T: std::fmt::Debug>(outcome: Result<T, BudgetError>) -> BudgetError {
    match outcome {
        Err(BudgetError::Timeout { refusal, .. }) => *refusal,
        other => panic!("it did not wait in vain: {other:?}"),
    }
}

/// Nothing is held, and nobody waits.
#[track_caller]
fn is_idle(pool: &BudgetPool) {
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.reservations, snapshot.waiting), (0, 0), "{snapshot}");
    for axis in [Axis::Tokens, Axis::Requests, Axis::InFlight] {
        let reserved = snapshot.axis(axis).unwrap().reserved;
        assert_eq!(reserved.units(), 0, "{axis} of {snapshot}");
    }
    check_invariants(pool);
}

mod choices {
    use super::*;

    /// S5: "requested 64,000 output tokens, can only afford 29,891".
    #[test]
    fn s5_the_grant_is_as_much_as_the_pool_affords() {
        let pool = BudgetPool::builder().name("run").output_tokens(29_891).build();
        let most = Amount::new().input_tokens(1_500).output_tokens(64_000);
        let refused = pool.reserve(most).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "output tokens of `run` exceeded: 64000 requested, 29891 available, cap 29891, will \
             never fit"
        );
        let hold = pool.reserve(Ask::new(most).at_least(Amount::new().output_tokens(1_000)));
        let hold = hold.unwrap();
        let max_tokens = hold.amount().units(Axis::OutputTokens);
        assert_eq!((max_tokens, hold.amount().units(Axis::InputTokens)), (29_891, 1_500));
        assert_eq!(hold.amount().units(Axis::Tokens), 31_391);
        hold.commit(Amount::new().input_tokens(1_480).output_tokens(29_891));
        let more = Ask::new(most).at_least(Amount::new().output_tokens(1));
        assert!(matches!(pool.reserve(more), Err(BudgetError::Exceeded(_))), "nothing is left");
    }

    /// S5, where the total binds, and where money does.
    #[test]
    fn s5_a_total_cuts_the_output_and_an_axis_that_is_not_named_is_not_cut() {
        let most = Amount::new().input_tokens(1_500).output_tokens(64_000);
        let least = Amount::new().output_tokens(1_000);
        let pool = pool_of(31_391);
        let hold = pool.reserve(Ask::new(most).at_least(least)).unwrap();
        assert_eq!(hold.amount(), Amount::new().input_tokens(1_500).output_tokens(29_891));
        drop(hold);

        let cents = |cents| Usd::from_cents(cents);
        let pool = BudgetPool::builder().name("run").tokens(31_391).usd(cents(50)).build();
        let dear = Ask::new(most.usd(cents(90))).at_least(least);
        assert_eq!(pool.reserve(dear).unwrap_err().axis(), Some(Axis::Usd));
        let named = Ask::new(most.usd(cents(90))).at_least(least.usd(cents(40)));
        let hold = pool.reserve(named).unwrap();
        assert_eq!(hold.amount().units(Axis::Usd), cents(50).as_nanos());
    }

    /// S6: the dear model if it fits, else the cheap one.
    #[test]
    fn s6_the_first_that_fits_is_granted_and_choice_says_which() {
        let pool = BudgetPool::builder().usd("1.00".parse().unwrap()).build();
        let usd = |text: &str| Amount::new().usd(text.parse().unwrap());
        let models = || Ask::new(usd("0.80")).or(usd("0.15")).or(usd("0.05"));
        let choices = [(); 3].map(|()| pool.reserve(models()).unwrap());
        let granted = choices.each_ref().map(|hold| (hold.choice(), hold.amount()));
        assert_eq!(granted, [(0, usd("0.80")), (1, usd("0.15")), (2, usd("0.05"))]);
        let refused = pool.reserve(models()).unwrap_err();
        assert_eq!(refused.axis(), Some(Axis::Usd));
        assert_eq!(refused.outlook(), Outlook::AfterRelease);
        assert_eq!(pool.reserve(usd("0.00")).unwrap().choice(), 0);
    }

    #[test]
    fn each_choice_is_cut_by_itself_before_the_next_one_is_tried() {
        let ask = || {
            let dear = Ask::new(tokens(100).requests(1)).at_least(tokens(60));
            dear.or(tokens(50)).or(tokens(40)).at_least(tokens(10))
        };
        for (free, expected) in [
            (120, Some((0, 100))),
            (100, Some((0, 100))),
            (99, Some((0, 99))),
            (60, Some((0, 60))),
            (59, Some((1, 50))),
            (50, Some((1, 50))),
            (49, Some((2, 40))),
            (39, Some((2, 39))),
            (10, Some((2, 10))),
            (9, None),
        ] {
            let pool = pool_of(free);
            let hold = pool.reserve(ask()).ok();
            let seen = hold.as_ref().map(|hold| (hold.choice(), hold.amount().units(Axis::Tokens)));
            assert_eq!(seen, expected, "{free} are free");
            drop(hold);
            is_idle(&pool);
        }
    }

    #[test]
    fn p7_a_refusal_is_that_of_the_least_of_the_last() {
        let pool = BudgetPool::builder().name("run").tokens(9).requests(0).build();
        let ask = Ask::new(tokens(20)).or(requests(7)).or(tokens(50)).at_least(tokens(10));
        let refused = pool.reserve(ask.clone()).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "tokens of `run` exceeded: 10 requested, 9 available, cap 9, will never fit"
        );
        assert_eq!(refused, pool.reserve(tokens(10)).unwrap_err());
        let refused = pool.reserve_blocking(ask).unwrap_err();
        assert!(matches!(refused, BudgetError::Exceeded(_)), "it waits for what never comes");
        assert_eq!(pool.snapshot().refused, 3, "each counts once");
    }

    #[test]
    fn the_slots_of_a_hold_are_cut_too_if_they_are_named() {
        let pool = BudgetPool::builder().in_flight(3).tokens(10).build();
        let most = tokens(4).in_flight(8);
        assert!(pool.reserve(Ask::new(most).at_least(tokens(1))).is_err());
        let hold = pool.reserve(Ask::new(most).at_least(Amount::new().in_flight(2))).unwrap();
        assert_eq!(hold.amount(), tokens(4).in_flight(3));
        drop(hold);
        is_idle(&pool);
    }

    #[test]
    fn what_may_be_cut_is_least_of_all_pools_on_the_way() {
        let root = BudgetPool::builder().tokens(100).requests(5).build();
        let middle = root.child().tokens(50).build();
        let leaf = middle.child().requests(9).build();
        let most = tokens(500).requests(500);
        let hold = leaf.reserve(Ask::new(most).at_least(tokens(1).requests(1))).unwrap();
        assert_eq!(hold.amount(), tokens(50).requests(5));
        drop(hold);
        let carved = root.child().tokens(20).carved().build().unwrap();
        let hold = carved.reserve(Ask::new(tokens(500)).at_least(tokens(0))).unwrap();
        assert_eq!(hold.amount(), tokens(20), "above the carve nothing is asked");
    }

    /// A total is at least the sum of its parts, granted or asked for.
    #[test]
    fn a_least_total_cuts_no_part_that_is_not_named() {
        let most = Amount::new().input_tokens(10).output_tokens(20);
        let ask = || Ask::new(most).at_least(tokens(5));
        let pool = pool_of(29);
        let refused = pool.reserve(ask()).unwrap_err();
        let BudgetError::Exceeded(exceeded) = &refused else { panic!("{refused}") };
        assert_eq!(exceeded.requested().units(), 30);
        let hold = pool_of(30).reserve(ask()).unwrap();
        assert_eq!(hold.amount(), most);

        // What is beyond the parts may be cut.
        let ask = Ask::new(most.tokens(100)).at_least(tokens(5));
        let granted = |cap| pool_of(cap).reserve(ask.clone()).map(|hold| hold.amount());
        assert_eq!(granted(100).unwrap(), most.tokens(100));
        assert_eq!(granted(70).unwrap(), most.tokens(70));
        assert_eq!(granted(30).unwrap(), most);
        assert!(granted(29).is_err());
    }

    /// What has expired is free, however much of it no call has reclaimed yet.
    #[test]
    fn p4_as_much_as_there_is_counts_all_that_has_expired() {
        let clock = ManualClock::new();
        let pool = run(&clock).tokens(100).build();
        for _ in 0..90 {
            std::mem::forget(pool.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap());
        }
        clock.advance(SECOND);
        let ask = Ask::new(tokens(1_000)).at_least(tokens(1));
        assert_eq!(pool.reserve(ask).unwrap().amount(), tokens(100));
    }

    #[test]
    fn one_instant_decides_though_many_threads_ask() {
        let pool = BudgetPool::builder().tokens(1_000).requests(2).build();
        let ask = || Ask::new(tokens(700).requests(1)).or(tokens(100)).at_least(tokens(1));
        let holds: Vec<Reservation> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| pool.reserve(ask()).ok())).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        let dear = holds.iter().filter(|hold| hold.choice() == 0).count();
        let held: u64 = holds.iter().map(|hold| hold.amount().units(Axis::Tokens)).sum();
        assert_eq!((dear, holds.len(), held), (1, 4, 1_000));
    }
}

mod terms {
    use super::*;

    fn holder_of(pool: &BudgetPool) -> (Option<String>, Option<Instant>, Option<Duration>) {
        let holders = pool.holders();
        let [holder] = &holders[..] else { panic!("{holders:?}") };
        (holder.label.as_ref().map(ToString::to_string), holder.since, holder.expires_in)
    }

    #[test]
    fn a_grant_that_nobody_has_come_for_is_known_by_the_label_of_its_ask() {
        let pool = BudgetPool::builder().tokens(10).build();
        let held = pool.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&pool, Ask::new(tokens(5)).label("draft"));
        held.release();
        assert_eq!(holder_of(&pool), (Some("draft".to_owned()), None, None));
        let _hold = waiter.granted();
        assert_eq!(holder_of(&pool).0.as_deref(), Some("draft"));
    }

    #[test]
    fn a_hold_has_the_label_and_the_time_that_it_was_asked_with() {
        let clock = ManualClock::new();
        let pool = run(&clock).tokens(10).build();
        let ask = Ask::new(tokens(1)).label("draft").ttl(5 * SECOND);
        let (hold, since) = (pool.reserve(ask).unwrap(), clock.now());
        clock.advance(2 * SECOND);
        assert_eq!(holder_of(&pool), (Some("draft".to_owned()), Some(since), Some(3 * SECOND)));
        assert_eq!(hold.time_left(), Some(3 * SECOND));
        drop(hold);
    }

    #[test]
    fn a_hold_of_a_further_choice_says_since_when() {
        let clock = ManualClock::new();
        let pool = run(&clock).tokens(10).build();
        let since = clock.now();
        let hold = pool.reserve(Ask::new(tokens(20)).or(tokens(5)).ttl(5 * SECOND)).unwrap();
        clock.advance(2 * SECOND);
        assert_eq!(holder_of(&pool), (None, Some(since), Some(3 * SECOND)));
        drop(hold);
    }

    /// The time of a hold begins when its owner has it.
    #[test]
    fn of_a_wait_the_ttl_counts_from_the_poll_that_returns_the_hold() {
        let clock = ManualClock::new();
        let pool = run(&clock).tokens(10).build();
        let held = pool.reserve(tokens(10)).unwrap();
        let ask = Ask::new(tokens(5)).ttl(10 * SECOND).label("review").on_drop(OnDrop::Commit);
        let mut waiter = Waiter::queued(&pool, ask);
        clock.advance(20 * SECOND);
        drop(held);
        clock.advance(20 * SECOND);
        let hold = waiter.granted();
        assert_eq!(hold.time_left(), Some(10 * SECOND));
        assert_eq!(holder_of(&pool).0.as_deref(), Some("review"));
        clock.advance(10 * SECOND - MOMENT);
        assert!(!hold.is_expired());
        clock.advance(MOMENT);
        assert!(hold.is_expired());
        assert_eq!(pool.snapshot().tokens.used, 5, "its expiry commits");
    }

    #[test]
    fn on_drop_of_an_ask_goes_before_that_of_the_pool() {
        for (of_pool, of_ask, used) in [
            (OnDrop::Release, Some(OnDrop::Commit), 3),
            (OnDrop::Commit, Some(OnDrop::Release), 0),
            (OnDrop::Commit, None, 3),
            (OnDrop::Release, None, 0),
        ] {
            let pool = BudgetPool::builder().tokens(10).on_drop(of_pool).build();
            let ask = || match of_ask {
                Some(on_drop) => Ask::new(tokens(3)).on_drop(on_drop).label("draft"),
                None => Ask::new(tokens(3)).label("draft"),
            };
            drop(pool.reserve(ask()).unwrap());
            assert_eq!(pool.snapshot().tokens.used, used, "{of_pool:?}, {of_ask:?}");
            pool.reset();
            let held = pool.reserve(tokens(10)).unwrap();
            let mut waiter = Waiter::queued(&pool, ask());
            held.release();
            drop(waiter.granted());
            assert_eq!(pool.snapshot().tokens.used, used, "{of_pool:?}, {of_ask:?}");
        }
    }

    #[test]
    fn p3_what_a_wait_is_granted_and_does_not_collect_is_given_back_whatever_its_terms() {
        let pool = BudgetPool::builder().tokens(10).on_drop(OnDrop::Commit).build();
        let held = pool.reserve(tokens(10)).unwrap();
        let waiter = Waiter::queued(&pool, Ask::new(tokens(3)).on_drop(OnDrop::Commit));
        held.release();
        assert_eq!(pool.snapshot().tokens.reserved, 3);
        drop(waiter);
        is_idle(&pool);
        assert_eq!(pool.snapshot().tokens.used, 0);
    }

    #[test]
    fn a_ttl_of_zero_has_expired_and_one_beyond_all_instants_is_none() {
        let clock = ManualClock::new();
        let pool = run(&clock).tokens(10).build();
        let hold = pool.reserve(Ask::new(tokens(10)).ttl(Duration::ZERO)).unwrap();
        assert!(hold.is_expired());
        let endless = pool.reserve(Ask::new(tokens(10)).ttl(Duration::MAX)).unwrap();
        clock.advance(Duration::from_secs(1 << 32));
        assert_eq!((endless.is_expired(), endless.time_left()), (false, None));
    }

    #[test]
    fn p8_only_an_ask_that_takes_a_time_reads_the_clock() {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = {
            let reads = Arc::clone(&reads);
            move || {
                reads.fetch_add(1, Ordering::Relaxed);
                Instant::now()
            }
        };
        let pool = BudgetPool::builder().tokens(100).clock(counted).timer(by_hand).build();
        let read = || reads.swap(0, Ordering::Relaxed);
        let plain = || Ask::new(tokens(9)).at_least(tokens(1)).or(tokens(1));
        let described = || plain().label("draft").on_drop(OnDrop::Commit);
        pool.record(tokens(1)).unwrap();
        pool.reserve(tokens(1)).unwrap().release();
        pool.reserve(plain()).unwrap().release();
        pool.reserve(described()).unwrap().release();
        pool.reserve(plain().wait_at_most(SECOND)).unwrap().release();
        pool.reserve_blocking(described()).unwrap().release();
        let held = pool.reserve(tokens(99)).unwrap();
        let mut waiter = Waiter::queued(&pool, described());
        pool.record(tokens(1)).unwrap_err();
        held.release();
        waiter.granted().release();
        assert_eq!(read(), 0);
        let hold = pool.reserve(plain().ttl(SECOND)).unwrap();
        assert_eq!(read(), 1);
        hold.release();
        assert_eq!(read(), 1, "it might have expired");
        pool.record(tokens(1)).unwrap();
        assert_eq!(read(), 0, "what had a time is gone");
        pool.reserve_blocking(plain().wait_at_most(SECOND)).unwrap().release();
        assert_eq!(read(), 1);
    }
}

mod in_line {
    use super::*;

    #[test]
    fn p6_it_waits_for_the_least_and_is_granted_the_best_that_fits_then() {
        let pool = pool_of(100);
        let held = [10, 30, 60].map(|n| pool.reserve(tokens(n)).unwrap());
        let ask = || Ask::new(tokens(90)).or(tokens(50)).at_least(tokens(5));
        let mut waiter = Waiter::queued(&pool, ask());
        let [ten, thirty, sixty] = held;
        ten.release();
        let hold = waiter.granted();
        assert_eq!(granted(&hold), (1, tokens(10)));
        let mut waiter = Waiter::queued(&pool, ask());
        sixty.release();
        assert_eq!(granted(&waiter.granted()), (1, tokens(50)));
        let mut all = Waiter::queued(&pool, tokens(100));
        let mut waiter = Waiter::queued(&pool, ask());
        drop((hold, thirty));
        all.granted().release();
        assert_eq!(granted(&waiter.granted()), (0, tokens(90)));
        is_idle(&pool);
    }

    /// One earlier waits for requests: an ask that names none passes nobody.
    #[test]
    fn p6_for_its_best_it_passes_nobody_who_waits_for_that() {
        let root = BudgetPool::builder().requests(10).build();
        let (a, b) = (root.child().build(), root.child().tokens(100).build());
        let (all, most) = (b.reserve(tokens(100)).unwrap(), root.reserve(requests(9)).unwrap());
        let mut earlier = Waiter::queued(&a, requests(5));
        let ask = Ask::new(tokens(10).requests(1)).or(tokens(8)).at_least(tokens(1));
        let mut waiter = Waiter::queued(&b, ask.clone());
        all.release();
        let hold = waiter.granted();
        assert_eq!(granted(&hold), (1, tokens(8)));
        assert!(earlier.poll().is_pending());
        let hold = b.reserve(ask.clone()).unwrap();
        assert_eq!(granted(&hold), (1, tokens(8)), "nor does a call");
        most.release();
        earlier.granted().release();
        assert_eq!(granted(&b.reserve(ask).unwrap()), (0, tokens(10).requests(1)));
    }

    /// It leaves to those behind it what it does not need, and no more: they come later.
    #[test]
    fn p6_the_first_takes_its_best_though_others_wait_behind_it() {
        let pool = pool_of(10);
        let held = pool.reserve(tokens(10)).unwrap();
        let mut first = Waiter::queued(&pool, Ask::new(tokens(8)).at_least(tokens(1)));
        let mut second = Waiter::queued(&pool, Ask::new(tokens(8)).at_least(tokens(1)));
        held.release();
        let first = first.granted();
        assert_eq!((first.amount(), second.granted().amount()), (tokens(8), tokens(2)));
    }

    /// The pool above has more expired holds than any call must reclaim.
    #[test]
    fn p6_what_has_expired_above_counts_for_the_best() {
        let clock = ManualClock::new();
        let root = run(&clock).tokens(100).build();
        let (child, beside) = (root.child().tokens(20).build(), root.child().build());
        let (some, rest) = (child.reserve(tokens(5)).unwrap(), child.reserve(tokens(11)).unwrap());
        for _ in 0..84 {
            std::mem::forget(beside.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap());
        }
        let mut waiter = Waiter::queued(&child, Ask::new(tokens(20)).at_least(tokens(5)));
        clock.advance(SECOND);
        some.release();
        assert_eq!(waiter.granted().amount(), tokens(9));
        rest.release();
    }

    /// The pool below has a bucket that time has filled, and the release is beside it.
    #[test]
    fn p6_what_time_has_brought_below_counts_for_the_best() {
        let clock = ManualClock::new();
        let root = run(&clock).tokens(100).build();
        let bucket = Window::token_bucket(10 * SECOND);
        let child = root.child().tokens(10).window(bucket).build();
        child.record(tokens(9)).unwrap();
        let held = root.reserve(Ask::new(tokens(91)).ttl(100 * SECOND)).unwrap();
        let mut waiter = Waiter::queued(&child, Ask::new(tokens(10)).at_least(tokens(1)));
        clock.advance(5 * SECOND);
        held.release();
        assert_eq!(waiter.granted().amount(), tokens(6), "five have come back");
    }

    /// A hold that expires later stands in the period that has ended.
    #[test]
    fn p6_what_a_turn_has_brought_below_counts_for_the_best() {
        let clock = ManualClock::new();
        let root = run(&clock).tokens(100).build();
        let child = root.child().tokens(10).window(Window::fixed(5 * SECOND)).build();
        child.record(tokens(9)).unwrap();
        let _later = child.reserve(Ask::new(Amount::new()).ttl(100 * SECOND)).unwrap();
        let held = root.reserve(tokens(91)).unwrap();
        let mut waiter = Waiter::queued(&child, Ask::new(tokens(10)).at_least(tokens(1)));
        clock.advance(5 * SECOND);
        held.release();
        assert_eq!(waiter.granted().amount(), tokens(10));
    }

    #[test]
    fn the_waker_of_one_that_gives_up_is_dropped_without_the_lock() {
        ends("the last waker of a wait", move || {
            let clock = ManualClock::new();
            let pool = run(&clock).tokens(10).build();
            let _held = pool.reserve(tokens(10)).unwrap();
            let ask = Ask::new(tokens(1)).wait_at_most(2 * SECOND);
            let mut wait = pin!(pool.reserve_wait(ask));
            let waker = comes_back(&pool);
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            clock.advance(2 * SECOND);
            let refused = wait.refused_at_once();
            assert!(matches!(refused, BudgetError::Timeout { .. }), "{refused}");
        });
    }

    #[test]
    fn p3_dropped_at_any_point_it_leaves_nothing() {
        for point in 0..5 {
            let clock = ManualClock::new();
            let pool = run(&clock).tokens(10).requests(5).build();
            let held = pool.reserve(tokens(10)).unwrap();
            let ask = Ask::new(tokens(9).requests(1)).or(tokens(4)).at_least(tokens(1));
            let ask = ask.ttl(SECOND).wait_at_most(2 * SECOND).on_drop(OnDrop::Commit);
            if point == 0 {
                drop(pool.reserve_wait(ask));
            } else {
                let mut waiter = Waiter::queued(&pool, ask);
                let mut next = Waiter::queued(&pool, tokens(10));
                match point {
                    1 => {}
                    2 => clock.advance(2 * SECOND),
                    3 => drop(waiter.end_after(&clock, 2 * SECOND)),
                    _ => {
                        drop(next);
                        pool.debit(tokens(0));
                        held.release();
                        assert_eq!(waiter.wakes(), 1);
                        drop(waiter);
                        is_idle(&pool);
                        assert_eq!(pool.snapshot().tokens.used, 0);
                        continue;
                    }
                }
                drop(waiter);
                assert_eq!(pool.snapshot().waiting, 1);
                held.release();
                next.granted().release();
                is_idle(&pool);
                continue;
            }
            held.release();
            is_idle(&pool);
        }
    }
}

/// A wait that is polled once, by no task.
trait Once: Future<Output = Result<Reservation, BudgetError>> {
    fn once(self: Pin<&mut Self>) -> Poll<Self::Output> {
        self.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[track_caller]
    fn refused_at_once(self: Pin<&mut Self>) -> BudgetError {
        match self.once() {
            Poll::Ready(Err(refused)) => refused,
            other => panic!("it is not refused at once: {other:?}"),
        }
    }
}

impl<F: Future<Output = Result<Reservation, BudgetError>>> Once for F {}

impl Waiter {
    /// What becomes of it at this poll.
    #[track_caller]
    fn end(&mut self) -> Result<Reservation, BudgetError> {
        match self.poll() {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it waits still"),
        }
    }

    #[track_caller]
    fn end_after(
        &mut self,
        clock: &ManualClock,
        time: Duration,
    ) -> Result<Reservation, BudgetError> {
        clock.advance(time);
        self.end()
    }
}
