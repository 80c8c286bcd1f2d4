//! Code of the user's that panics where it is called: clocks, wakers and timers; and code that
//! comes back to the pool from there. (What a panicking clock means where something is due:
//! `tests/time/`. A waker whose `wake` panics on release: `tests/waiting.rs`.)
//!
//! After each panic the pool is usable and balanced, and the others that waited are served. A panic
//! in a waker's `clone` cannot be written here without unsafe code.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use budget_pool::{Amount, Ask, BudgetPool, Caps, Closed, ManualClock, Reservation, Wait, Window};

#[path = "support/waiter.rs"]
mod waiter;
#[path = "support/watchdog.rs"]
mod watchdog;

use waiter::{Waiter, Wakes, by_hand};
use watchdog::ends;

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn pool_of(cap: u64) -> BudgetPool {
    BudgetPool::builder().name("run").tokens(cap).build()
}

/// A panic, but for the text; not while one is on its way, which would be the end of the process.
fn panics() {
    if !std::thread::panicking() {
        resume_unwind(Box::new("on purpose"));
    }
}

/// That it was one of ours, and came out.
#[track_caller]
fn comes_out<T>(call: impl FnOnce() -> T) {
    let panic = catch_unwind(AssertUnwindSafe(call)).map(|_| "no panic").unwrap_err();
    assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
}

/// All of it can be had, nobody waits, and nothing is held.
#[track_caller]
fn is_balanced(pool: &BudgetPool) {
    let end = pool.snapshot();
    assert_eq!((end.tokens.reserved, end.reservations, end.waiting), (0, 0, 0), "{end}");
    pool.reserve(tokens(100)).unwrap().release();
}

/// Each kind of call, by code that is called by the pool. What comes of it does not matter here:
/// should the lock be held meanwhile, it hangs.
fn use_all(pool: &BudgetPool) {
    drop(pool.record(tokens(1)));
    drop(pool.record_once("key", tokens(1)));
    drop(pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).map(|hold| hold.grow(tokens(1))));
    drop(pool.lease(tokens(1)).record(tokens(2)));
    let (mut wait, mut closed) = (pool.reserve_wait(tokens(50)), pool.closed());
    let mut context = Context::from_waker(Waker::noop());
    drop(Pin::new(&mut wait).poll(&mut context));
    assert_eq!(Pin::new(&mut closed).poll(&mut context).is_ready(), pool.is_closed());
    drop((wait, closed));
    drop(pool.child().tokens(1).carved().build());
    pool.child().deadline(secs(1)).build().close();
    drop(
        pool.raise_caps(Caps::new().tokens(1))
            .and_then(|()| pool.lower_caps(Caps::new().tokens(1))),
    );
    pool.debit(tokens(0));
    assert_eq!((pool.snapshot_tree().len(), pool.snapshot().depth), (1, 0));
    drop(pool.holders());
}

struct InWake;
impl Wake for InWake {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("on purpose"));
    }
}

mod wakers {
    use super::*;

    /// Before it panics it looks at a pool, from elsewhere: should the lock be held meanwhile, that
    /// hangs.
    #[derive(Default)]
    struct InDrop(Option<BudgetPool>);
    impl Wake for InDrop {
        fn wake(self: Arc<Self>) {}
    }
    impl Drop for InDrop {
        fn drop(&mut self) {
            if let Some(pool) = self.0.take() {
                let (seen, sees) = std::sync::mpsc::channel();
                std::thread::spawn(move || seen.send(pool.snapshot().waiting));
                assert!(sees.recv_timeout(secs(30)).is_ok(), "dropped under the lock");
            }
            panics();
        }
    }

    fn poll<F: Future + Unpin>(
        future: &mut F,
        waker: impl Wake + Send + Sync + 'static,
    ) -> Poll<F::Output> {
        Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::new(waker))))
    }

    /// In line, with a waker that nobody else keeps.
    fn queued(pool: &BudgetPool, amount: Amount, waker: impl Wake + Send + Sync + 'static) -> Wait {
        let mut wait = pool.reserve_wait(amount);
        assert!(poll(&mut wait, waker).is_pending());
        wait
    }

    #[test]
    fn p6_whoever_grants_or_tells_is_not_hurt_and_all_others_are_woken() {
        type Cause = fn(&BudgetPool, Reservation, &ManualClock);
        let causes: [(Cause, bool); 8] = [
            (|_, held, _| drop(held), true),
            (|_, held, _| _ = held.commit(tokens(0)), true),
            (
                |_, held, _| {
                    comes_out(move || {
                        let _held = held;
                        resume_unwind(Box::new("on purpose"));
                    });
                },
                true,
            ),
            (|pool, _held, _| pool.raise_caps(Caps::new().tokens(50)).unwrap(), true),
            (
                |pool, _held, clock| {
                    clock.advance(secs(10));
                    pool.peek(tokens(0)).unwrap();
                },
                true,
            ),
            (
                |pool, held, clock| {
                    held.renew(Duration::MAX).unwrap();
                    clock.advance(secs(60));
                    pool.peek(tokens(0)).unwrap();
                },
                true,
            ),
            (
                |pool, _held, clock| {
                    clock.advance(secs(600));
                    pool.peek(tokens(0)).unwrap_err();
                },
                false,
            ),
            (|pool, _held, _| pool.close(), false),
        ];
        for (case, (cause, granted)) in causes.into_iter().enumerate() {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).timer(by_hand);
            let pool = pool.window(Window::fixed(secs(60))).deadline(secs(600)).build();
            pool.record(tokens(50)).unwrap();
            let held = pool.reserve(Ask::new(tokens(50)).ttl(secs(10))).unwrap();
            let (mut broken, mut others) = (Vec::new(), Vec::new());
            for _ in 0..8 {
                broken.push(queued(&pool, tokens(2), InWake));
                broken.push(queued(&pool, tokens(2), InDrop::default()));
                others.push(Waiter::queued(&pool, tokens(2)));
            }
            let mut closings = [pool.closed(), pool.closed()];
            assert!(
                poll(&mut closings[0], InWake).is_pending()
                    && poll(&mut closings[1], InWake).is_pending()
            );
            cause(&pool, held, &clock);
            for other in &mut others {
                assert!(other.wakes() >= 1, "{case}");
                match other.poll() {
                    Poll::Ready(outcome) => assert_eq!(outcome.is_ok(), granted, "{case}"),
                    Poll::Pending => panic!("{case}: it waits"),
                }
            }
            drop((broken, others));
            let end = pool.snapshot();
            assert_eq!((end.tokens.reserved, end.reservations, end.waiting), (0, 0, 0), "{case}");
        }
    }

    #[test]
    fn p6_one_that_panics_when_it_is_replaced_leaves_its_place_to_the_new_one() {
        let pool = pool_of(100);
        let held = pool.reserve(tokens(100)).unwrap();
        let mut first = queued(&pool, tokens(60), InDrop(Some(pool.clone())));
        let mut second = Waiter::queued(&pool, tokens(60));
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        comes_out(|| _ = Pin::new(&mut first).poll(&mut Context::from_waker(&waker)));
        assert_eq!(pool.snapshot().waiting, 2);
        drop(held);
        assert_eq!((wakes.0.load(Ordering::SeqCst), second.wakes()), (1, 0));
        drop(first);
        assert!(second.poll().is_ready());
        is_balanced(&pool);
    }

    #[test]
    fn p3_one_that_panics_when_its_wait_is_dropped_gives_its_place_up() {
        let pool = pool_of(100);
        let held = pool.reserve(tokens(60)).unwrap();
        let large = queued(&pool, tokens(100), InDrop(Some(pool.clone())));
        let mut small = Waiter::queued(&pool, tokens(40));
        comes_out(|| drop(large));
        assert_eq!(small.wakes(), 1);
        assert!(small.poll().is_ready());
        drop(held);
        is_balanced(&pool);
    }

    #[test]
    fn p3_one_that_panics_as_the_last_of_its_pool_frees_it() {
        let root = pool_of(100);
        let held = root.reserve(tokens(100)).unwrap();
        let child = root.child().build();
        let wait = queued(&child, tokens(1), InDrop::default());
        drop(child);
        assert_eq!(root.snapshot_tree().len(), 2);
        comes_out(|| drop(wait));
        assert_eq!(root.snapshot_tree().len(), 1);
        drop(held);
        is_balanced(&root);
    }

    #[test]
    fn those_of_a_close_panic_and_all_others_are_told() {
        let pool = pool_of(100);
        let mut closings: Vec<Closed> = (0..4).map(|_| pool.closed()).collect();
        let wakes = Arc::new(Wakes::default());
        assert!(poll(&mut closings[0], InWake).is_pending());
        assert!(poll(&mut closings[1], InDrop(Some(pool.clone()))).is_pending());
        assert!(poll(&mut closings[2], InDrop(Some(pool.clone()))).is_pending());
        let waker = Waker::from(Arc::clone(&wakes));
        assert!(Pin::new(&mut closings[3]).poll(&mut Context::from_waker(&waker)).is_pending());
        // One that is replaced, and one that goes.
        comes_out(|| _ = poll(&mut closings[1], InWake));
        let gone = closings.remove(2);
        comes_out(|| drop(gone));
        is_balanced(&pool);
        let mut last = pool.closed();
        assert!(poll(&mut last, InDrop::default()).is_pending());
        pool.close();
        assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
        assert!(
            closings
                .iter_mut()
                .all(|closed| Pin::new(closed).poll(&mut Context::from_waker(&waker)).is_ready())
        );
        drop(last);
    }
}

mod timers {
    use super::*;

    const WELL: usize = 0;
    const IN_CALL: usize = 1;
    const IN_POLL: usize = 2;
    const IN_DROP: usize = 3;
    const EARLY_AND_IN_DROP: usize = 4;
    const EARLY: usize = 5;

    #[derive(Clone, Default)]
    struct Timer {
        fault: Arc<AtomicUsize>,
        calls: Arc<AtomicUsize>,
    }

    struct Sleep(Arc<AtomicUsize>);

    impl Timer {
        fn breaks(&self, fault: usize) {
            self.fault.store(fault, Ordering::SeqCst);
        }

        fn calls(&self) -> usize {
            self.calls.load(Ordering::SeqCst)
        }
    }

    impl Future for Sleep {
        type Output = ();

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            match self.0.load(Ordering::SeqCst) {
                IN_POLL => resume_unwind(Box::new("on purpose")),
                EARLY | EARLY_AND_IN_DROP => Poll::Ready(()),
                _ => Poll::Pending,
            }
        }
    }

    impl Drop for Sleep {
        fn drop(&mut self) {
            if matches!(self.0.load(Ordering::SeqCst), IN_DROP | EARLY_AND_IN_DROP) {
                panics();
            }
        }
    }

    /// 100 tokens, all of them held.
    fn run() -> (Timer, ManualClock, BudgetPool, Reservation) {
        let (clock, timer) = (ManualClock::new(), Timer::default());
        let Timer { fault, calls } = timer.clone();
        let pool =
            BudgetPool::builder().tokens(100).deadline(secs(600)).clock(clock.clone()).timer(
                move |_| {
                    calls.fetch_add(1, Ordering::SeqCst);
                    if fault.load(Ordering::SeqCst) == IN_CALL {
                        resume_unwind(Box::new("on purpose"));
                    }
                    Box::pin(Sleep(Arc::clone(&fault)))
                },
            );
        let pool = pool.build();
        let held = pool.reserve(tokens(100)).unwrap();
        (timer, clock, pool, held)
    }

    #[test]
    fn p3_one_that_panics_at_the_first_poll_leaves_no_trace() {
        for fault in [IN_CALL, IN_POLL, EARLY_AND_IN_DROP] {
            let (timer, _, pool, held) = run();
            timer.breaks(fault);
            comes_out(|| Waiter::queued(&pool, tokens(100)));
            assert_eq!(pool.snapshot().waiting, 0);
            timer.breaks(WELL);
            let mut other = Waiter::queued(&pool, tokens(40));
            drop(held);
            assert!(other.poll().is_ready());
            is_balanced(&pool);
        }
    }

    #[test]
    fn p6_one_that_panics_later_costs_no_place_and_keeps_nobody_waiting() {
        type Then = fn(&Timer, &ManualClock, Reservation, Waiter, Waiter);
        let thens: [Then; 4] = [
            // Served by a release.
            |_, _, held, mut first, mut second| {
                held.shrink(tokens(60)).unwrap();
                assert_eq!(first.wakes(), 2);
                drop(first.poll());
                drop(held);
                assert!(second.wakes() >= 1 && second.poll().is_ready());
            },
            // Served by time.
            |_, clock, held, mut first, mut second| {
                clock.advance(secs(10));
                assert!(first.poll().is_ready() && second.poll().is_ready());
                drop(held);
            },
            // It leaves.
            |_, _, held, first, mut second| {
                drop(first);
                drop(held);
                assert!(second.poll().is_ready());
            },
            // It leaves, with another panic.
            |timer, _, held, first, mut second| {
                timer.breaks(IN_DROP);
                comes_out(|| drop(first));
                timer.breaks(WELL);
                drop(held);
                assert!(second.poll().is_ready());
            },
        ];
        for fault in [IN_CALL, IN_POLL, IN_DROP] {
            for then in thens {
                let (timer, clock, pool, held) = run();
                let mut first = Waiter::queued(&pool, tokens(60));
                let second = Waiter::queued(&pool, tokens(40));
                // Another alarm, and with it another sleep.
                held.renew(secs(10)).unwrap();
                assert_eq!((first.wakes(), timer.calls()), (1, 2));
                timer.breaks(fault);
                comes_out(|| first.poll());
                timer.breaks(WELL);
                assert_eq!((pool.snapshot().waiting, timer.calls()), (2, 3));
                assert!(first.poll().is_pending());
                // The new sleep is there, if it could be had.
                assert_eq!(timer.calls(), if fault == IN_CALL { 4 } else { 3 }, "{fault}");
                then(&timer, &clock, held, first, second);
                is_balanced(&pool);
            }
        }
    }

    #[test]
    fn p6_one_that_panics_when_it_is_over_is_followed_by_another() {
        let (timer, _, pool, held) = run();
        let mut first = Waiter::queued(&pool, tokens(60));
        let mut second = Waiter::queued(&pool, tokens(60));
        timer.breaks(EARLY_AND_IN_DROP);
        comes_out(|| first.poll());
        timer.breaks(WELL);
        assert_eq!((pool.snapshot().waiting, timer.calls()), (2, 2));
        assert!(first.poll().is_pending());
        assert_eq!(timer.calls(), 3);
        drop(held);
        assert_eq!((first.wakes(), second.wakes()), (1, 0));
        drop(first);
        assert!(second.poll().is_ready());
        is_balanced(&pool);
    }

    /// It is then told to come back at once.
    #[test]
    fn p6_a_waker_that_panics_because_the_timer_is_early_costs_no_place() {
        let (timer, _, pool, held) = run();
        let mut first = pool.reserve_wait(tokens(60));
        timer.breaks(EARLY);
        let waker = Waker::from(Arc::new(InWake));
        comes_out(|| _ = Pin::new(&mut first).poll(&mut Context::from_waker(&waker)));
        timer.breaks(WELL);
        let mut second = Waiter::queued(&pool, tokens(60));
        assert_eq!(pool.snapshot().waiting, 2);
        drop(held);
        assert_eq!(second.wakes(), 0);
        assert!(Pin::new(&mut first).poll(&mut Context::from_waker(&waker)).is_ready());
        assert!(second.poll().is_ready());
        is_balanced(&pool);
    }

    /// Where it is made, polled and dropped.
    #[test]
    fn one_that_comes_back_finds_no_lock_held() {
        #[derive(Clone, Default)]
        struct Back {
            pool: Arc<Mutex<Option<BudgetPool>>>,
            from: Arc<[AtomicUsize; 3]>,
        }
        struct Asleep(Back);

        impl Back {
            fn comes(&self, from: usize) {
                // Not again from within.
                let pool = self.pool.lock().unwrap().take();
                if let Some(pool) = pool {
                    self.from[from].fetch_add(1, Ordering::SeqCst);
                    use_all(&pool);
                    *self.pool.lock().unwrap() = Some(pool);
                }
            }
        }
        impl Future for Asleep {
            type Output = ();

            fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
                self.0.comes(1);
                Poll::Pending
            }
        }
        impl Drop for Asleep {
            fn drop(&mut self) {
                self.0.comes(2);
            }
        }

        ends("a timer", || {
            let (clock, back) = (ManualClock::new(), Back::default());
            let timed = back.clone();
            let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).timer(move |_| {
                timed.comes(0);
                Box::pin(Asleep(timed.clone()))
            });
            let pool = pool.build();
            *back.pool.lock().unwrap() = Some(pool.clone());
            let held = pool.reserve(Ask::new(tokens(100)).ttl(secs(20))).unwrap();
            let mut first = Waiter::queued(&pool, tokens(60));
            let mut second = Waiter::queued(&pool, tokens(60));
            // Another alarm: one sleep for another. Then its end, and that of a wait that leaves.
            held.renew(secs(10)).unwrap();
            assert!(first.poll().is_pending());
            clock.advance(secs(10));
            assert!(first.poll().is_ready());
            assert!(second.poll().is_ready());
            let _held = pool.reserve(Ask::new(tokens(60)).ttl(secs(10))).unwrap();
            drop(Waiter::queued(&pool, tokens(60)));
            let from = back.from.each_ref().map(|from| from.load(Ordering::SeqCst));
            assert!(from.iter().all(|&times| times >= 3), "{from:?}");
            *back.pool.lock().unwrap() = None;
        });
    }

    #[test]
    fn p3_one_that_panics_as_the_wait_ends_gives_back_what_was_granted() {
        let (timer, _, pool, held) = run();
        let mut task = Box::pin(async { pool.reserve_wait(tokens(60)).await });
        let mut context = Context::from_waker(Waker::noop());
        assert!(task.as_mut().poll(&mut context).is_pending());
        let mut other = Waiter::queued(&pool, tokens(60));
        drop(held);
        assert_eq!(other.wakes(), 0);
        timer.breaks(IN_DROP);
        comes_out(|| _ = task.as_mut().poll(&mut context));
        timer.breaks(WELL);
        assert!(other.poll().is_ready());
        is_balanced(&pool);
    }
}

/// Every public call that may read the clock, with one that panics at its first read, its second,
/// and so on.
mod clocks {
    use super::*;
    use budget_pool::{BudgetError, DeadlineBudget, Lease, TreeSnapshot, Usd};
    use std::time::Instant;

    #[derive(Clone)]
    struct Clock {
        time: ManualClock,
        reads: Arc<AtomicUsize>,
        /// At which read it panics, if not zero.
        panics_at: Arc<AtomicUsize>,
        /// What it calls on its way, once for each call of the test's.
        comes_back: Arc<Mutex<Option<BudgetPool>>>,
    }

    impl budget_pool::Clock for Clock {
        fn now(&self) -> Instant {
            let read = self.reads.fetch_add(1, Ordering::SeqCst) + 1;
            if read == self.panics_at.load(Ordering::SeqCst) {
                resume_unwind(Box::new("on purpose"));
            }
            let pool = self.comes_back.lock().unwrap().take();
            if let Some(pool) = pool {
                use_all(&pool);
            }
            self.time.now()
        }
    }

    /// A way with all that knows a time: a deadline, windows of both kinds, a share, holds that may
    /// expire, a lease, and one that waits.
    struct World {
        clock: Clock,
        root: BudgetPool,
        pool: BudgetPool,
        share: BudgetPool,
        line: BudgetPool,
        hold: Option<Reservation>,
        lease: Option<Lease>,
        waiter: Waiter,
        held: Vec<Reservation>,
        leases: Vec<Lease>,
        built: Vec<BudgetPool>,
    }

    impl World {
        fn new() -> World {
            let zero = Arc::<AtomicUsize>::default;
            let time = ManualClock::new();
            let clock =
                Clock { time, reads: zero(), panics_at: zero(), comes_back: Arc::default() };
            let root = BudgetPool::builder()
                .name("run")
                .tokens(1_000)
                .deadline(secs(600))
                .clock(clock.clone())
                .timer(by_hand);
            let root = root.window(Window::fixed(secs(60))).build();
            let pool = root
                .child()
                .name("pool")
                .tokens(500)
                .window(Window::token_bucket(secs(60)))
                .build();
            let share = root.child().name("share").tokens(100).carved().build().unwrap();
            let line = root.child().name("line").requests(1).build();
            pool.record(tokens(30)).unwrap();
            let hold =
                pool.reserve(Ask::new(tokens(50).usd(Usd::from_cents(1))).ttl(secs(30))).unwrap();
            let mut lease = pool.lease(tokens(20));
            lease.record(tokens(1)).unwrap();
            lease.record(tokens(5)).unwrap();
            assert_eq!(lease.remaining(), tokens(15));
            let held = vec![line.reserve(Amount::new().requests(1)).unwrap()];
            let waiter = Waiter::queued(&line, Amount::new().requests(1));
            let (leases, built) = (Vec::new(), Vec::new());
            let (hold, lease) = (Some(hold), Some(lease));
            World { clock, root, pool, share, line, hold, lease, waiter, held, leases, built }
        }

        fn hold(&mut self) -> &mut Reservation {
            self.hold.as_mut().unwrap()
        }

        fn take(&mut self) -> Reservation {
            self.hold.take().unwrap()
        }

        fn lease(&mut self) -> &mut Lease {
            self.lease.as_mut().unwrap()
        }

        /// With a clock that is well again.
        fn seen(&self) -> (TreeSnapshot, Option<Amount>, Option<Amount>) {
            self.clock.panics_at.store(0, Ordering::SeqCst);
            let held = self.hold.as_ref().map(Reservation::amount);
            (self.root.snapshot_tree(), held, self.lease.as_ref().map(Lease::remaining))
        }

        /// Calls, with a clock that panics at one read. How often it was read, and what came of it.
        fn calls(&mut self, call: Call, panics_at: usize) -> (usize, Option<String>) {
            self.clock.reads.store(0, Ordering::SeqCst);
            self.clock.panics_at.store(panics_at, Ordering::SeqCst);
            let outcome = catch_unwind(AssertUnwindSafe(|| call(self)));
            if let Err(panic) = &outcome {
                assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
            }
            (self.clock.reads.load(Ordering::SeqCst), outcome.ok())
        }

        /// All goes: nothing is held, nobody waits, no pool is left, and the rest can be had.
        #[track_caller]
        fn ends(self, case: &str) {
            self.clock.panics_at.store(0, Ordering::SeqCst);
            let World {
                root, pool, share, line, hold, lease, mut waiter, held, leases, built, ..
            } = self;
            drop((held, hold, lease, leases));
            assert!(waiter.poll().is_ready(), "{case}");
            drop((waiter, pool, share, line, built));
            let tree = root.snapshot_tree();
            assert_eq!((tree.len(), tree[0].reservations, tree[0].waiting), (1, 0, 0), "{case}");
            assert!(tree[0].axes().all(|(_, axis)| axis.reserved.units() == 0), "{case}: {tree}");
            root.record(tokens(tree[0].tokens.available.unwrap())).unwrap();
        }
    }

    /// What it says.
    type Call = fn(&mut World) -> String;

    fn said<T, E: std::fmt::Debug>(answer: Result<T, E>) -> String {
        answer.map_or_else(|refusal| format!("{refusal:?}"), |_| "admitted".to_owned())
    }

    fn kept<T, E: std::fmt::Debug>(all: &mut Vec<T>, answer: Result<T, E>) -> String {
        said(answer.map(|one| all.push(one)))
    }

    /// Makes a call while another thread moves the time, until the call returns or panics.
    fn while_time_passes<T>(time: &ManualClock, call: impl FnOnce() -> T) -> T {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !has_ended.load(Ordering::SeqCst) {
                    time.advance(Duration::from_millis(1));
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let _stop = Stop(&has_ended);
            call()
        })
    }

    /// A call that asks: it panics where it is called, and nothing has changed.
    const ASKS: [(&str, Call); 44] = [
        ("record", |world| said(world.pool.record(tokens(1)))),
        ("record, refused", |world| said(world.pool.record(tokens(1_000)))),
        ("record on a share", |world| said(world.share.record(tokens(1)))),
        ("peek", |world| said(world.pool.peek(tokens(1)))),
        ("reserve", |world| kept(&mut world.held, world.pool.reserve(tokens(1)))),
        ("reserve, queued", |world| {
            kept(&mut world.held, world.line.reserve(Amount::new().requests(1)))
        }),
        ("reserve, with a TTL", |world| {
            kept(&mut world.held, world.pool.reserve(Ask::new(tokens(1)).ttl(secs(1))))
        }),
        ("record_once", |world| said(world.pool.record_once("key", tokens(1)))),
        ("lease.record of a new one", |world| {
            world.leases.push(world.pool.lease(tokens(10)));
            said(world.leases.last_mut().unwrap().record(tokens(1)))
        }),
        ("add", |world| said(world.pool.raise_caps(Caps::new().tokens(1)))),
        ("add to a share", |world| said(world.share.raise_caps(Caps::new().tokens(1)))),
        ("time_left", |world| format!("{:?}", world.pool.time_left())),
        ("reserve_wait, granted", |world| {
            let mut wait = world.pool.reserve_wait(tokens(1));
            match Pin::new(&mut wait).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => kept(&mut world.held, answer),
                Poll::Pending => panic!("it waits"),
            }
        }),
        ("reserve_wait, refused", |world| {
            said(world.pool.reserve_wait(tokens(1_000)).block_on_once())
        }),
        ("reserve_wait, queued", |world| {
            said(world.line.reserve_wait(Amount::new().requests(1)).block_on_once())
        }),
        ("polled again", |world| format!("{}", world.waiter.poll().is_pending())),
        ("reserve_blocking", |world| kept(&mut world.held, world.pool.reserve_blocking(tokens(1)))),
        ("reserve_blocking, in vain", |world| {
            said(
                world.line.reserve_blocking(
                    Ask::new(Amount::new().requests(1)).wait_at_most(Duration::ZERO),
                ),
            )
        }),
        ("reserve_blocking, parked", |world| {
            let time = Duration::from_millis(20);
            let ask = Ask::new(Amount::new().requests(1)).wait_at_most(time);
            let error = while_time_passes(&world.clock.time, || world.line.reserve_blocking(ask));
            // However often it looked.
            world.clock.reads.store(3, Ordering::SeqCst);
            let error = error.unwrap_err();
            assert!(matches!(error, BudgetError::Timeout { .. }));
            error.to_string()
        }),
        ("hold.record", |world| said(world.hold().record(tokens(60)))),
        ("hold.grow", |world| said(world.hold().grow(tokens(1)))),
        ("hold.split", |world| {
            let half = world.hold().split(tokens(1));
            kept(&mut world.held, half)
        }),
        ("hold.renew", |world| said(world.hold().renew(secs(5)))),
        ("hold.time_left", |world| format!("{:?}", world.hold().time_left())),
        ("lease.record", |world| said(world.lease().record(tokens(30)))),
        ("child with a deadline", |world| {
            world.built.push(world.pool.child().deadline(secs(5)).build());
            String::new()
        }),
        ("child with a budget of time", |world| {
            let budget = DeadlineBudget::new(secs(5));
            world.built.push(world.pool.child().deadline(budget).build());
            String::new()
        }),
        ("child with a window", |world| {
            world
                .built
                .push(world.pool.child().tokens(1).window(Window::token_bucket(secs(5))).build());
            String::new()
        }),
        ("child with both", |world| {
            world
                .built
                .push(world.pool.child().deadline(secs(5)).window(Window::fixed(secs(5))).build());
            String::new()
        }),
        ("share", |world| kept(&mut world.built, world.pool.child().tokens(10).carved().build())),
        ("share with a deadline", |world| {
            kept(&mut world.built, world.pool.child().tokens(10).deadline(secs(5)).carved().build())
        }),
        ("another tree", |world| {
            let other = BudgetPool::builder().deadline(secs(5)).window(Window::fixed(secs(5)));
            said::<_, ()>(Ok(other.clock(world.clock.clone()).build()))
        }),
        ("budget", |world| {
            said(
                DeadlineBudget::builder()
                    .total(secs(5))
                    .clock(world.clock.clone())
                    .build()
                    .map(|_| ()),
            )
        }),
        ("budget.remaining", |world| format!("{:?}", world.pool.deadline().unwrap().remaining())),
        ("budget.elapsed", |world| format!("{:?}", world.pool.deadline().unwrap().elapsed())),
        ("budget.overrun", |world| format!("{:?}", world.pool.deadline().unwrap().overrun())),
        ("budget.is_expired", |world| format!("{:?}", world.pool.deadline().unwrap().is_expired())),
        ("budget.check", |world| said(world.pool.deadline().unwrap().check())),
        ("budget.fits", |world| said(world.pool.deadline().unwrap().fits(secs(5)))),
        ("budget.timeout_for", |world| {
            format!("{:?}", world.pool.deadline().unwrap().timeout_for("call"))
        }),
        ("budget.split", |world| format!("{:?}", world.pool.deadline().unwrap().split(3))),
        ("budget.child", |world| {
            format!("{:?}", world.pool.deadline().unwrap().child(secs(5)).total())
        }),
        ("budget.to_grpc_timeout", |world| {
            format!("{:?}", world.pool.deadline().unwrap().to_grpc_timeout())
        }),
        ("budget.child_from_grpc_timeout", |world| {
            said(world.pool.deadline().unwrap().child_from_grpc_timeout("5S").map(|_| ()))
        }),
    ];

    /// A call that tells, or looks: it is done, with the time that was seen last.
    const TELLS: [(&str, Call); 23] = [
        ("debit", |world| format!("{:?}", world.pool.debit(tokens(700)))),
        ("debit on a share", |world| format!("{:?}", world.share.debit(tokens(700)))),
        ("snapshot", |world| world.pool.snapshot().to_string()),
        ("snapshot_tree", |world| world.root.snapshot_tree().to_string()),
        ("holders", |world| format!("{:?}", world.root.holders())),
        ("reset", |world| world.pool.reset().to_string()),
        ("remove", |world| said(world.pool.lower_caps(Caps::new().tokens(10)))),
        ("remove from a share", |world| said(world.share.lower_caps(Caps::new().tokens(10)))),
        ("remove, refused", |world| said(world.pool.lower_caps(Caps::new().tokens(10_000)))),
        ("commit", |world| format!("{:?}", world.take().commit(tokens(60)))),
        ("commit_all", |world| format!("{:?}", world.take().commit_all())),
        ("commit of less than was metered", |world| {
            let metered = world.hold().debit(tokens(20));
            format!("{metered:?} {:?}", world.take().commit(tokens(10)))
        }),
        ("try_commit", |world| {
            said(world.take().try_commit(tokens(60)).map_err(|refused| refused.to_string()))
        }),
        ("try_commit, refused", |world| {
            let refused = world.take().try_commit(tokens(1_000)).unwrap_err();
            let error = refused.error().to_string();
            world.hold = Some(refused.into_reservation());
            error
        }),
        ("release", |world| {
            world.take().release();
            String::new()
        }),
        ("drop", |world| {
            drop(world.take());
            String::new()
        }),
        ("commit_on_drop", |world| {
            drop(world.take().commit_on_drop());
            String::new()
        }),
        ("hold.debit", |world| format!("{:?}", world.hold().debit(tokens(60)))),
        ("hold.shrink", |world| said(world.hold().shrink(tokens(10)))),
        ("hold's texts", |world| {
            let text = format!("{:?}", world.hold);
            format!("{text} {}", world.hold().amount())
        }),
        ("lease.debit", |world| format!("{:?}", world.lease().debit(tokens(600)))),
        ("lease.settle", |world| {
            world.lease().settle();
            String::new()
        }),
        ("lease's drop", |world| {
            drop(world.lease.take());
            String::new()
        }),
    ];

    /// Neither: there is no clock to panic.
    const SILENT: [(&str, Call); 10] = [
        ("close", |world| {
            world.share.close();
            world.share.is_closed().to_string()
        }),
        ("closed", |world| {
            let mut closed = world.pool.closed();
            Pin::new(&mut closed)
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_pending()
                .to_string()
        }),
        ("label", |world| {
            let hold = world.take().label("a");
            world.hold = Some(hold);
            String::new()
        }),
        ("child", |world| {
            world.built.push(world.pool.child().tokens(5).build());
            format!("{:?}", world.built)
        }),
        ("a wait that is not polled", |world| format!("{:?}", world.pool.reserve_wait(tokens(1)))),
        ("lease", |world| {
            world.leases.push(world.pool.lease(tokens(10)));
            String::new()
        }),
        ("lease.record of the share", |world| said(world.lease().record(tokens(1)))),
        ("lease.debit of the share", |world| format!("{:?}", world.lease().debit(tokens(1)))),
        ("lease's texts", |world| {
            let text = format!("{:?}", world.lease);
            format!("{text} {}", world.lease().remaining())
        }),
        ("budget's texts", |world| {
            let budget = world.pool.deadline().unwrap();
            format!("{:?}", (budget.total(), budget.deadline().is_some()))
        }),
    ];

    trait BlockOnOnce {
        fn block_on_once(self) -> Result<bool, BudgetError>;
    }

    impl BlockOnOnce for Wait {
        /// Polled once, and dropped: whether it was granted.
        fn block_on_once(mut self) -> Result<bool, BudgetError> {
            match Pin::new(&mut self).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(answer) => answer.map(|_| true),
                Poll::Pending => Ok(false),
            }
        }
    }

    /// What it says without any panic, how often it reads the clock for that, and what is seen
    /// afterwards.
    fn whole(call: Call, later: Duration) -> (usize, String, World) {
        let mut world = World::new();
        world.clock.time.advance(later);
        let (reads, outcome) = world.calls(call, 0);
        (reads, outcome.unwrap(), world)
    }

    /// Instants differ from one world to another.
    fn same(a: &str, b: &str) -> bool {
        let no_instants = |text: &str| {
            let mut parts = text.split("Instant");
            let first = parts.next().unwrap().to_owned();
            let rest = parts.map(|part| part.split_once('}').map_or(part, |(_, rest)| rest));
            rest.fold(first, |text, rest| text + rest)
        };
        no_instants(a) == no_instants(b)
    }

    #[test]
    fn p7_what_asks_panics_wherever_it_reads_the_clock_and_nothing_has_changed() {
        for (name, call) in ASKS {
            // As things stand; after holds have expired; after both windows have turned.
            for later in [0, 40, 70] {
                let later = secs(later);
                let case = format!("{name}, {later:?} later");
                let untouched = World::new();
                untouched.clock.time.advance(later);
                let before = untouched.seen();
                let (reads, outcome, then) = whole(call, later);
                assert!(reads > 0, "{case}");
                let after = then.seen();
                for read in 1..=reads {
                    let mut world = World::new();
                    world.clock.time.advance(later);
                    let panicked = world.calls(call, read);
                    assert_eq!(panicked, (read, None), "{case}, read {read}");
                    assert_eq!(world.seen(), before, "{case}, read {read}");
                    let (_, again) = world.calls(call, 0);
                    assert!(same(&again.unwrap(), &outcome), "{case}, read {read}");
                    assert_eq!(world.seen(), after, "{case}, read {read}");
                    world.ends(&case);
                }
                then.ends(&case);
                untouched.ends(&case);
            }
        }
    }

    #[test]
    fn p2_what_tells_is_done_wherever_the_clock_panics() {
        for (name, call) in TELLS {
            let (reads, outcome, then) = whole(call, Duration::ZERO);
            assert!(reads > 0, "{name}");
            let after = then.seen();
            // Where it is read once more because the first read panicked, there, too.
            for read in 1..=reads + 1 {
                let mut world = World::new();
                let (_, told) = world.calls(call, read);
                let told = told.unwrap();
                assert!(same(&told, &outcome), "{name}, read {read}: {told}, {outcome}");
                assert_eq!(world.seen(), after, "{name}, read {read}");
                world.ends(name);
            }
            then.ends(name);
        }
    }

    #[test]
    fn p8_what_takes_no_time_cannot_meet_a_clock_that_panics() {
        for (name, call) in SILENT {
            let (reads, _, then) = whole(call, secs(70));
            assert_eq!(reads, 0, "{name}");
            then.ends(name);
        }
    }

    #[test]
    fn a_clock_that_comes_back_finds_no_lock_held() {
        for (name, call) in ASKS.into_iter().chain(TELLS) {
            let (_, outcome, then) = whole(call, Duration::ZERO);
            then.ends(name);
            let told = ends(name, move || {
                let mut world = World::new();
                *world.clock.comes_back.lock().unwrap() =
                    Some(world.line.child().tokens(100).build());
                let (_, told) = world.calls(call, 0);
                assert!(world.clock.comes_back.lock().unwrap().is_none());
                world.ends(name);
                told.unwrap()
            });
            let looks = ["snapshot_tree", "holders"].contains(&name);
            assert!(looks || same(&told, &outcome), "{name}: {told}, {outcome}");
        }
    }
}
