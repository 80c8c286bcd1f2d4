//! The observer of a tree: what it is told, by whom and in which order, and that it harms nobody.

use std::panic::resume_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread::{self, ThreadId};
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Holder, Level, ManualClock, Observer, OnDrop,
    PoolBuilder, Receipt, Root, WeakPool, Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;
#[path = "support/watchdog.rs"]
mod watchdog;

use invariants::check_invariants;
use waiter::{Waiter, by_hand};
use watchdog::ends;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn caps(n: u64) -> Caps {
    Caps::new().tokens(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Writes down what it is told, as texts.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    threads: Mutex<Vec<ThreadId>>,
}

impl Log {
    fn write(&self, line: String) {
        self.lines.lock().unwrap().push(line);
        self.threads.lock().unwrap().push(thread::current().id());
    }

    /// What it was told since it was asked last.
    fn told(&self) -> Vec<String> {
        std::mem::take(&mut *self.lines.lock().unwrap())
    }
}

fn held(holder: &Holder) -> String {
    let label = holder.label.as_deref().unwrap_or("-");
    format!("{} of `{}` for {label}", holder.amount, holder.pool)
}

impl Observer for Log {
    fn refused(&self, refusal: &BudgetError) {
        self.write(format!("refused: {refusal}"));
    }

    fn overage(&self, pool: &str, receipt: &Receipt) {
        self.write(format!("overage of `{pool}`: {} of {}", receipt.overage(), receipt.settled()));
    }

    fn late(&self, pool: &str, receipt: &Receipt) {
        assert!(receipt.is_late());
        self.write(format!("late to `{pool}`: {}", receipt.settled()));
    }

    fn expired(&self, holder: &Holder) {
        assert_eq!(holder.expires_in, Some(Duration::ZERO));
        self.write(format!("expired: {}", held(holder)));
    }

    fn dropped(&self, holder: &Holder) {
        self.write(format!("dropped: {}", held(holder)));
    }
}

fn observed(log: &Arc<Log>) -> PoolBuilder<Root> {
    BudgetPool::builder().name("run").tokens(100).observer(Arc::clone(log))
}

/// A pool of 100 tokens, and who is told.
fn pool() -> (BudgetPool, Arc<Log>) {
    let log = Arc::new(Log::default());
    (observed(&log).build(), log)
}

#[derive(Clone)]
struct Timed {
    pool: BudgetPool,
    clock: ManualClock,
    log: Arc<Log>,
}

impl Timed {
    fn new() -> Timed {
        let (clock, log) = (ManualClock::new(), Arc::new(Log::default()));
        let pool = observed(&log).clock(clock.clone()).timer(by_hand).build();
        Timed { pool, clock, log }
    }
}

mod refusals {
    use super::*;

    /// What is called, and the kind of the refusal that comes of it.
    type Case = (&'static str, &'static str, fn(&BudgetPool) -> BudgetError);

    #[track_caller]
    fn are_told(cases: &[Case], prepare: fn(&BudgetPool)) {
        for (what, kind, call) in cases {
            let (pool, log) = pool();
            prepare(&pool);
            log.told();
            let refusal = call(&pool);
            assert_eq!(refusal.kind(), *kind, "{what}");
            let told = log.told();
            assert_eq!(told.first(), Some(&format!("refused: {refusal}")), "{what}");
            // What its own hold did beside that, at most.
            assert!(
                told.iter().skip(1).all(|line| line.starts_with("dropped")),
                "{what}: {told:?}"
            );
        }
    }

    #[test]
    fn each_call_that_asks_tells_its_refusal_once() {
        let cases: [Case; 22] = [
            ("record", "exceeded", |pool| pool.record(tokens(101)).unwrap_err()),
            ("record below", "exceeded", |pool| {
                pool.child().name("below").build().record(tokens(101)).unwrap_err()
            }),
            ("record_once", "exceeded", |pool| pool.record_once("k", tokens(101)).unwrap_err()),
            ("record_and_snapshot", "exceeded", |pool| {
                pool.record_and_snapshot(tokens(101)).unwrap_err()
            }),
            ("reserve", "exceeded", |pool| pool.reserve(tokens(101)).unwrap_err()),
            ("reserve on terms", "exceeded", |pool| {
                pool.reserve(Ask::new(tokens(102)).or(tokens(101))).unwrap_err()
            }),
            ("reserve_blocking", "exceeded", |pool| {
                pool.reserve_blocking(tokens(101)).unwrap_err()
            }),
            ("record_blocking", "exceeded", |pool| pool.record_blocking(tokens(101)).unwrap_err()),
            ("wait on terms", "exceeded", |pool| {
                pool.reserve_blocking(Ask::new(tokens(101)).label("x")).unwrap_err()
            }),
            ("carve", "exceeded", |pool| pool.child().tokens(101).carved().build().unwrap_err()),
            ("carve a window", "carved_window", |pool| {
                pool.child().window(Window::fixed(secs(1))).carved().build().unwrap_err()
            }),
            ("carve what is used", "carved", |pool| {
                pool.child().tokens(5).used(tokens(1)).carved().build().unwrap_err()
            }),
            ("lease", "exceeded", |pool| pool.lease(tokens(5)).record(tokens(101)).unwrap_err()),
            ("record a part", "exceeded", |pool| {
                pool.reserve(tokens(1)).unwrap().record(tokens(101)).unwrap_err()
            }),
            ("grow", "exceeded", |pool| {
                pool.reserve(tokens(1)).unwrap().grow(tokens(100)).unwrap_err()
            }),
            ("shrink", "exceeded", |pool| {
                pool.reserve(tokens(1)).unwrap().shrink(tokens(2)).unwrap_err()
            }),
            ("split", "exceeded", |pool| {
                pool.reserve(tokens(1)).unwrap().split(tokens(2)).unwrap_err()
            }),
            ("try_commit", "exceeded", |pool| {
                let hold = pool.reserve(tokens(1)).unwrap();
                hold.try_commit(tokens(101)).unwrap_err().error().clone()
            }),
            ("merge", "foreign_pool", |pool| {
                let other = BudgetPool::unlimited().reserve(tokens(1)).unwrap();
                pool.reserve(tokens(1)).unwrap().merge(other).unwrap_err().error().clone()
            }),
            ("raise_caps", "exceeded", |pool| pool.raise_caps(caps(u64::MAX)).unwrap_err()),
            ("lower_caps", "exceeded", |pool| pool.lower_caps(caps(101)).unwrap_err()),
            ("transfer", "foreign_pool", |pool| {
                pool.transfer(&BudgetPool::unlimited(), caps(1)).unwrap_err()
            }),
        ];
        are_told(&cases, |_| {});
    }

    #[test]
    fn each_kind_of_refusal_is_told() {
        are_told(
            &[
                ("record", "closed", |pool| pool.record(tokens(1)).unwrap_err()),
                ("wait", "closed", |pool| pool.reserve_blocking(tokens(1)).unwrap_err()),
                ("set_caps", "closed", |pool| pool.set_caps(caps(101)).unwrap_err()),
                ("run", "closed", |pool| finished(pool.run(async {}))),
            ],
            BudgetPool::close,
        );
        are_told(&[("record", "paused", |pool| pool.record(tokens(1)).unwrap_err())], |pool| {
            pool.pause(secs(60))
        });
        are_told(
            &[("a key", "key_conflict", |pool| pool.debit_once("k", tokens(2)).unwrap_err())],
            |pool| _ = pool.record_once("k", tokens(1)).unwrap(),
        );
        are_told(
            &[
                ("set_used", "carved", |pool| {
                    let share = pool.child().tokens(1).carved().build().unwrap();
                    share.set_used(tokens(1)).unwrap_err()
                }),
                ("transfer", "uncapped", |pool| {
                    pool.transfer(&pool.child().build(), caps(1)).unwrap_err()
                }),
                ("a full line", "queue_full", |pool| {
                    let busy = pool.child().tokens(0).ceiling(caps(9)).most_waiting(0).build();
                    busy.reserve_blocking(tokens(1)).unwrap_err()
                }),
                ("late", "deadline_exceeded", |pool| {
                    pool.child().deadline(Duration::ZERO).build().record(tokens(1)).unwrap_err()
                }),
                ("no timer", "no_timer", |pool| {
                    finished(
                        pool.child().deadline(secs(60)).build().run(std::future::pending::<()>()),
                    )
                }),
                ("full keys", "keys_full", |pool| {
                    let pool = pool.child().idempotency_keys(0, secs(60)).build();
                    pool.record_once("k", tokens(1)).unwrap_err()
                }),
            ],
            |_| {},
        );
    }

    fn finished<T>(future: impl Future<Output = Result<T, BudgetError>>) -> BudgetError {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(refusal)) => refusal,
            _ => panic!("it is not refused"),
        }
    }

    #[test]
    fn what_asks_for_nothing_is_not_told() {
        let (pool, log) = pool();
        assert!(pool.peek(tokens(101)).is_err());
        assert_eq!(pool.lower_caps_up_to(caps(1_000)), caps(100));
        pool.record(tokens(0)).unwrap();
        pool.debit(tokens(0));
        drop((pool.snapshot_tree(), pool.holders(), pool.reset()));
        assert_eq!(log.told(), [""; 0]);
    }

    #[test]
    fn names_are_those_of_the_pools_below() {
        let (pool, log) = pool();
        let agent = pool.child().name("agent").tokens(5).build();
        agent.record(tokens(6)).unwrap_err();
        agent.debit(tokens(7));
        assert_eq!(
            log.told(),
            [
                "refused: tokens of `agent` exceeded: 6 requested, 5 available, cap 5, will never fit",
                "overage of `agent`: 2 tokens of 7 tokens",
            ]
        );
    }

    #[test]
    fn a_waiter_that_is_turned_away_is_told_of_once_by_who_does_it() {
        let (pool, log) = pool();
        let hold = pool.reserve(tokens(60)).unwrap();
        let child = pool.child().name("agent").build();
        let [mut first, mut second] = [(); 2].map(|()| Waiter::queued(&child, tokens(50)));
        assert_eq!(log.told(), [""; 0]);
        let closer = thread::scope(|scope| {
            scope
                .spawn(|| {
                    child.close();
                    thread::current().id()
                })
                .join()
                .unwrap()
        });
        assert_eq!(log.told(), ["refused: `agent` is closed"; 2]);
        assert_eq!(*log.threads.lock().unwrap(), [closer; 2]);
        assert!(first.poll().is_ready() && second.poll().is_ready());
        assert_eq!(log.told(), [""; 0], "not again when its owner is told");
        hold.commit_all();
    }

    #[test]
    fn a_hopeless_waiter_a_late_one_and_one_without_a_timer_are_told_of() {
        let Timed { pool, clock, log } = Timed::new();
        let hold = pool.reserve(tokens(60)).unwrap();
        let hopeless = Waiter::queued(&pool, tokens(90));
        hold.commit_all();
        assert_eq!(
            log.told(),
            ["refused: tokens of `pool` exceeded: 90 requested, 40 available, cap 100, will never fit"
                .replace("`pool`", "`run`")]
        );
        drop(hopeless);

        let brief = pool.child().name("brief").deadline(secs(5)).build();
        let hold = pool.reserve(tokens(40)).unwrap();
        let mut late = Waiter::queued(&brief, tokens(30));
        clock.advance(secs(5));
        let kind = |log: &Log| log.told().join("; ");
        assert!(late.poll().is_ready());
        assert!(kind(&log).starts_with("refused: deadline of `brief` exceeded"));

        let mut patient = pin!(pool.reserve_wait(Ask::new(tokens(30)).wait_at_most(secs(3))));
        let mut context = Context::from_waker(Waker::noop());
        assert!(patient.as_mut().poll(&mut context).is_pending());
        clock.advance(secs(3));
        assert!(patient.as_mut().poll(&mut context).is_ready());
        let told = log.told();
        let start = "refused: waited in vain in `run` for 3s: tokens of `run` exceeded";
        assert!(told.len() == 1 && told[0].starts_with(start), "{told:?}");
        drop(hold);

        let log = Arc::new(Log::default());
        let pool = observed(&log).build();
        let hold = pool.reserve(Ask::new(tokens(90)).ttl(secs(60))).unwrap();
        let mut sleepless = pin!(pool.reserve_wait(tokens(20)));
        assert!(sleepless.as_mut().poll(&mut context).is_ready());
        let told = log.told();
        assert!(told.len() == 1 && told[0].contains("timer"), "{told:?}");
        drop(hold);
    }
}

mod spends_and_holds {
    use super::*;

    #[test]
    fn overage_is_told_with_the_receipt_of_each_call_that_books() {
        type Call = fn(&BudgetPool) -> Receipt;
        let calls: [(&str, Call); 6] = [
            ("debit", |pool| pool.debit(tokens(130))),
            ("debit_once", |pool| pool.debit_once("k", tokens(130)).unwrap()),
            ("commit", |pool| pool.reserve(tokens(1)).unwrap().commit(tokens(130))),
            ("debit a part", |pool| {
                let hold = pool.reserve(tokens(50)).unwrap();
                let receipt = hold.debit(tokens(130));
                hold.release();
                receipt
            }),
            ("debit a lease", |pool| pool.lease(tokens(5)).debit(tokens(130))),
            ("below", |pool| pool.child().name("run").build().debit(tokens(130))),
        ];
        for (what, call) in calls {
            let (pool, log) = pool();
            let receipt = call(&pool);
            assert_eq!(receipt.overage(), tokens(30));
            assert_eq!(log.told(), ["overage of `run`: 30 tokens of 130 tokens"], "{what}");
        }
        // What fits, and what is given back, is none.
        let (pool, log) = pool();
        pool.debit(tokens(100));
        pool.credit(tokens(10));
        let hold = pool.reserve(tokens(10)).unwrap();
        hold.debit(tokens(10));
        hold.commit(tokens(5));
        pool.lease(tokens(1)).debit(tokens(1));
        assert_eq!(log.told(), [""; 0]);
    }

    #[test]
    fn own_axes_are_told_by_their_labels() {
        const CALLS: Axis = Axis::custom(0, "calls");
        let log = Arc::new(Log::default());
        let pool = observed(&log).cap(CALLS, 3).build();
        pool.debit(Amount::of(CALLS, 5));
        pool.credit(Amount::of(CALLS, 3));
        drop(pool.reserve(Amount::of(CALLS, 1)).unwrap().label("a call"));
        assert_eq!(
            log.told(),
            ["overage of `run`: 2 calls of 5 calls", "dropped: 1 calls of `run` for a call"]
        );
    }

    #[test]
    fn a_hold_that_ends_without_a_word_is_told() {
        let (pool, log) = pool();
        let agent = pool.child().name("agent").on_drop(OnDrop::Commit).build();
        let hold = |pool: &BudgetPool| pool.reserve(tokens(10)).unwrap().label("call");
        drop(hold(&pool));
        drop(hold(&agent));
        assert_eq!(
            log.told(),
            ["dropped: 10 tokens of `run` for call", "dropped: 10 tokens of `agent` for call"]
        );
        let cut_off = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _hold = hold(&pool);
                    resume_unwind(Box::new("on purpose"));
                })
                .join()
        });
        assert!(cut_off.is_err());
        drop(hold(&pool).try_commit(tokens(200)).unwrap_err());
        assert_eq!(
            log.told(),
            [
                "dropped: 10 tokens of `run` for call",
                "refused: tokens of `run` exceeded: 190 requested, 80 available, cap 100, will never fit",
                "dropped: 10 tokens of `run` for call",
            ]
        );
        // These said a word, or are no reservations.
        hold(&pool).release();
        hold(&pool).commit_all();
        hold(&pool).merge(hold(&pool)).map_err(drop).unwrap_or_default();
        drop(pool.lease(tokens(1)));
        drop(pool.child().tokens(1).carved().build().unwrap());
        drop(pool.reserve_wait(tokens(1)));
        assert_eq!(
            log.told(),
            ["dropped: 20 tokens, 2 in flight of `run` for call"],
            "of the merged one"
        );
    }

    #[test]
    fn a_grant_that_is_never_collected_is_no_hold_that_was_dropped() {
        let (pool, log) = pool();
        let hold = pool.reserve(tokens(60)).unwrap();
        let waiter = Waiter::queued(&pool, tokens(50));
        hold.release();
        assert_eq!(waiter.wakes(), 1);
        drop(waiter);
        assert_eq!((log.told(), pool.snapshot().tokens.reserved), (vec![], 0));
    }

    #[test]
    fn an_expiry_is_told_when_it_is_reclaimed_and_the_drop_after_it_is_not() {
        let Timed { pool, clock, log } = Timed::new();
        let agent = pool.child().name("agent").on_drop(OnDrop::Commit).build();
        let ask = |n| Ask::new(tokens(n)).ttl(secs(10)).label("call");
        let holds = [pool.reserve(ask(10)).unwrap(), agent.reserve(ask(20)).unwrap()];
        clock.advance(secs(10));
        assert_eq!(log.told(), [""; 0], "no call has come");
        let reclaimed = thread::scope(|scope| {
            scope
                .spawn(|| {
                    drop(pool.snapshot());
                    thread::current().id()
                })
                .join()
                .unwrap()
        });
        assert_eq!(
            log.told(),
            ["expired: 10 tokens of `run` for call", "expired: 20 tokens of `agent` for call"]
        );
        assert_eq!(*log.threads.lock().unwrap(), [reclaimed; 2]);
        drop(holds);
        assert_eq!(log.told(), [""; 0]);
    }

    /// Of a crowd that has expired, a call reclaims what it needs and a few more.
    #[test]
    fn an_expiry_is_told_with_the_label_of_its_life() {
        let Timed { pool, clock, log } = Timed::new();
        let ask = || Ask::new(tokens(1)).ttl(secs(10)).label("call");
        let mut crowd: Vec<_> = (0..9).map(|_| pool.reserve(ask()).unwrap()).collect();
        clock.advance(secs(10));
        pool.record(tokens(1)).unwrap();
        let few = log.told().len();
        assert!(few < 9, "{few}");
        let last = crowd.pop().unwrap();
        crowd.push(last.label("late"));
        drop(pool.snapshot());
        assert_eq!(log.told(), vec!["expired: 1 tokens of `run` for call"; 9 - few]);
    }

    #[test]
    fn a_spend_that_is_told_late_is_told_as_such_and_a_late_drop_or_release_is_not() {
        let Timed { pool, clock, log } = Timed::new();
        let expired = |n, on_drop| {
            let hold = pool.reserve(Ask::new(tokens(n)).ttl(secs(10)).on_drop(on_drop)).unwrap();
            clock.advance(secs(10));
            assert!(hold.is_expired());
            log.told();
            hold
        };
        for on_drop in [OnDrop::Release, OnDrop::Commit] {
            drop(expired(1, on_drop));
            expired(1, on_drop).release();
            assert_eq!(log.told(), [""; 0], "{on_drop:?}");
        }
        assert_eq!(pool.reset().tokens.used, 2);
        let hold = expired(80, OnDrop::Release);
        assert!(hold.debit(tokens(20)).is_late());
        assert!(hold.commit(tokens(20)).is_late());
        assert_eq!(log.told(), ["late to `run`: 20 tokens", "late to `run`: nothing"]);
        // What was settled when it expired is not told again, and more is.
        assert!(expired(50, OnDrop::Commit).commit(tokens(60)).is_late());
        assert_eq!(log.told(), ["late to `run`: 10 tokens"]);
        assert!(expired(20, OnDrop::Release).commit(tokens(30)).is_late());
        assert_eq!(
            log.told(),
            ["late to `run`: 30 tokens", "overage of `run`: 10 tokens of 30 tokens"]
        );
    }

    #[test]
    fn the_order_is_that_within_the_transition() {
        let Timed { pool, clock, log } = Timed::new();
        let hold = pool.reserve(Ask::new(tokens(60)).ttl(secs(10)).label("old")).unwrap();
        let brief = pool.child().name("brief").deadline(secs(5)).build();
        let late = Waiter::queued(&brief, tokens(50));
        clock.advance(secs(10));
        pool.record(tokens(101)).unwrap_err();
        let told = log.told();
        let starts =
            ["refused: deadline of `brief`", "expired: 60 tokens", "refused: tokens of `run`"];
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(told.iter().zip(starts).all(|(told, start)| told.starts_with(start)), "{told:?}");
        drop((hold, late));
    }

    #[test]
    fn those_that_wait_and_watch_are_served_under_an_observer() {
        let (pool, log) = pool();
        let at_80 = pool.reached(Level::percent(Axis::Tokens, 80));
        let hold = pool.reserve(tokens(60)).unwrap();
        let mut waiter = Waiter::queued(&pool, tokens(90));
        drop(hold);
        waiter.granted().commit_all();
        assert_eq!(at_80.block().tokens.used, 90);
        assert_eq!(log.told(), ["dropped: 60 tokens of `run` for -"]);
        check_invariants(&pool);
    }

    #[test]
    fn each_event_has_an_empty_default() {
        struct Nothing;
        impl Observer for Nothing {}
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().tokens(1).clock(clock.clone()).observer(Nothing).build();
        every_event(&pool, &clock);
        assert_eq!(pool.snapshot().tokens.used, 1);
    }
}

/// Brings about each event, at least once, and leaves the pool full.
fn every_event(pool: &BudgetPool, clock: &ManualClock) {
    drop(pool.reserve(tokens(1)).unwrap());
    let old = pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap();
    clock.advance(secs(1));
    assert!(pool.record(tokens(2)).is_err());
    assert!(old.is_expired());
    assert_eq!(pool.debit(tokens(3)).overage(), tokens(2));
    assert!(old.commit(tokens(0)).is_late());
}

mod harm {
    use super::*;

    fn panics() {
        resume_unwind(Box::new("on purpose"));
    }

    /// Panics at each event, and counts them.
    #[derive(Default)]
    struct Panics(AtomicUsize);

    impl Panics {
        fn at(&self) {
            self.0.fetch_add(1, SeqCst);
            panics();
        }
    }

    impl Observer for Panics {
        fn refused(&self, _: &BudgetError) {
            self.at();
        }

        fn overage(&self, _: &str, _: &Receipt) {
            self.at();
        }

        fn late(&self, _: &str, _: &Receipt) {
            self.at();
        }

        fn expired(&self, _: &Holder) {
            self.at();
        }

        fn dropped(&self, _: &Holder) {
            self.at();
        }
    }

    #[test]
    fn a_panic_goes_no_further_and_the_next_event_is_told() {
        let (clock, observer) = (ManualClock::new(), Arc::new(Panics::default()));
        let pool = BudgetPool::builder()
            .tokens(1)
            .clock(clock.clone())
            .observer(Arc::clone(&observer))
            .build();
        every_event(&pool, &clock);
        assert_eq!(observer.0.load(SeqCst), 5);
        check_invariants(&pool);

        // Several in one transition: two are turned away.
        let pool = BudgetPool::builder().tokens(9).observer(Arc::clone(&observer)).build();
        let hold = pool.reserve(tokens(9)).unwrap();
        let waiters = [(); 2].map(|()| Waiter::queued(&pool, tokens(9)));
        pool.close();
        assert_eq!(observer.0.load(SeqCst), 7);
        assert!(waiters.iter().all(|waiter| waiter.wakes() == 1));
        drop(hold);
        assert_eq!(observer.0.load(SeqCst), 8);
        assert!(pool.transfer(&BudgetPool::unlimited(), caps(1)).is_err());
        assert_eq!(observer.0.load(SeqCst), 9, "without a transition");
    }

    #[test]
    fn a_panic_in_a_drop_that_a_panic_brings_about_goes_no_further() {
        let observer = Arc::new(Panics::default());
        let pool = BudgetPool::builder().tokens(9).observer(Arc::clone(&observer)).build();
        let ended = thread::spawn({
            let pool = pool.clone();
            move || {
                let _hold = pool.reserve(tokens(9)).unwrap();
                panics();
            }
        });
        assert_eq!(ended.join().unwrap_err().downcast_ref(), Some(&"on purpose"));
        assert_eq!((observer.0.load(SeqCst), pool.snapshot().tokens.reserved), (1, 0));
    }

    /// Comes back to its pool at each event.
    #[derive(Default)]
    struct Back {
        pool: Mutex<WeakPool>,
        depth: AtomicUsize,
        log: Log,
    }

    impl Back {
        fn come(&self, line: String) {
            self.log.write(line);
            let pool = self.pool.lock().unwrap().upgrade();
            // One step deep: an event that it brings about itself is told, too.
            let (Some(pool), 0) = (pool, self.depth.fetch_add(1, SeqCst)) else { return };
            drop(pool.snapshot_tree());
            drop(pool.reserve(tokens(0)).unwrap());
            pool.record(tokens(0)).unwrap();
            pool.record(tokens(u64::MAX)).unwrap_err();
            pool.child().tokens(0).carved().build().unwrap().close();
            drop(Waiter::queued(&pool.child().tokens(0).ceiling(caps(9)).build(), tokens(1)));
            assert!(pool.closed().block_at_most(Duration::ZERO) || !pool.is_closed());
            self.depth.store(0, SeqCst);
        }
    }

    impl Observer for Back {
        fn refused(&self, refusal: &BudgetError) {
            self.come(format!("refused {}", refusal.kind()));
        }

        fn overage(&self, _: &str, _: &Receipt) {
            self.come("overage".to_owned());
        }

        fn expired(&self, _: &Holder) {
            self.come("expired".to_owned());
        }

        fn dropped(&self, _: &Holder) {
            self.come("dropped".to_owned());
        }
    }

    #[test]
    fn an_observer_calls_its_pool() {
        ends("an observer that calls its pool", || {
            let (clock, observer) = (ManualClock::new(), Arc::new(Back::default()));
            let pool = BudgetPool::builder()
                .tokens(1)
                .ceiling(caps(u64::MAX))
                .clock(clock.clone())
                .observer(Arc::clone(&observer))
                .build();
            *observer.pool.lock().unwrap() = pool.downgrade();
            every_event(&pool, &clock);
            check_invariants(&pool);
            let told = observer.log.told();
            // Each event, and the two that it brought about.
            let each = ["dropped", "expired", "refused exceeded", "overage"];
            let all: Vec<_> =
                each.iter().flat_map(|own| [*own, "dropped", "refused exceeded"]).collect();
            assert_eq!(told, all);
        });
    }

    #[test]
    fn an_observer_is_dropped_with_the_last_pool_of_its_tree() {
        let (pool, log) = pool();
        let other = observed(&log).build();
        let child = pool.child().build();
        let hold = child.reserve(tokens(1)).unwrap();
        assert_eq!(Arc::strong_count(&log), 3);
        drop((pool, child));
        assert_eq!(Arc::strong_count(&log), 3, "the hold keeps the tree");
        drop(hold);
        assert_eq!(Arc::strong_count(&log), 2);
        assert_eq!(log.told(), ["dropped: 1 tokens of `pool` for -"]);
        drop(other);
        assert_eq!(Arc::strong_count(&log), 1);
    }

    #[test]
    fn the_last_observer_that_is_set_is_told() {
        let [first, second] = [(); 2].map(|()| Arc::new(Log::default()));
        let builder = observed(&first).observer(Arc::clone(&second));
        let [one, two] = [builder.clone().build(), builder.build()];
        drop(one.reserve(tokens(1)).unwrap());
        drop(two.reserve(tokens(2)).unwrap());
        assert_eq!(first.told(), [""; 0]);
        assert_eq!(
            second.told(),
            ["dropped: 1 tokens of `run` for -", "dropped: 2 tokens of `run` for -"]
        );
    }

    #[test]
    fn threads_tell_what_they_bring_about() {
        let (pool, log) = pool();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..100).for_each(|_| _ = pool.record(tokens(101))));
            }
        });
        assert_eq!(log.told().len(), 400);
        let mut threads = log.threads.lock().unwrap().clone();
        threads.sort_by_key(|id| format!("{id:?}"));
        assert!(threads.chunks(100).all(|own| own.iter().all(|id| *id == own[0])));
        assert_eq!(pool.snapshot().refused, 400);
    }
}
