//! Code of the user's that panics where it is called: wakers and timers. (The clock: `tests/time.rs`. A waker whose `wake`
//! panics on release: `tests/waiting.rs`.)
//!
//! After each panic the pool is usable and balanced, and the others that waited are served. A panic in a waker's `clone`
//! cannot be written here without unsafe code.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Caps, Closed, ManualClock, Reservation, Wait, Window};

#[path = "support/waiter.rs"]
mod waiter;

use waiter::{Waiter, Wakes};

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

struct InWake;
impl Wake for InWake {
    fn wake(self: Arc<Self>) {
        resume_unwind(Box::new("on purpose"));
    }
}

mod wakers {
    use super::*;

    /// Before it panics it looks at a pool, from elsewhere: should the lock be held meanwhile, that hangs.
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
                assert!(sees.recv_timeout(secs(5)).is_ok(), "dropped under the lock");
            }
            panics();
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F, waker: impl Wake + Send + Sync + 'static) -> Poll<F::Output> {
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
            (|pool, _held, _| pool.add(Caps::new().tokens(50)).unwrap(), true),
            (
                |pool, _held, clock| {
                    clock.advance(secs(10));
                    pool.check(tokens(0)).unwrap();
                },
                true,
            ),
            (
                |pool, mut held, clock| {
                    held.renew(Duration::MAX).unwrap();
                    clock.advance(secs(60));
                    pool.check(tokens(0)).unwrap();
                },
                true,
            ),
            (
                |pool, _held, clock| {
                    clock.advance(secs(600));
                    pool.check(tokens(0)).unwrap_err();
                },
                false,
            ),
            (|pool, _held, _| pool.close(), false),
        ];
        for (case, (cause, granted)) in causes.into_iter().enumerate() {
            let clock = ManualClock::new();
            let pool = BudgetPool::builder().tokens(100).clock(clock.clone());
            let pool = pool.window(Window::fixed(secs(60))).deadline(secs(600)).build();
            pool.record(tokens(50)).unwrap();
            let held = pool.reserve_for(tokens(50), secs(10)).unwrap();
            let (mut broken, mut others) = (Vec::new(), Vec::new());
            for _ in 0..8 {
                broken.push(queued(&pool, tokens(2), InWake));
                broken.push(queued(&pool, tokens(2), InDrop::default()));
                others.push(Waiter::queued(&pool, tokens(2)));
            }
            let mut closings = [pool.closed(), pool.closed()];
            assert!(poll(&mut closings[0], InWake).is_pending() && poll(&mut closings[1], InWake).is_pending());
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
        assert!(closings.iter_mut().all(|closed| Pin::new(closed).poll(&mut Context::from_waker(&waker)).is_ready()));
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
        let pool = BudgetPool::builder().tokens(100).deadline(secs(600)).clock(clock.clone()).timer(move |_| {
            calls.fetch_add(1, Ordering::SeqCst);
            if fault.load(Ordering::SeqCst) == IN_CALL {
                resume_unwind(Box::new("on purpose"));
            }
            Box::pin(Sleep(Arc::clone(&fault)))
        });
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
            |_, _, mut held, mut first, mut second| {
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
                let (timer, clock, pool, mut held) = run();
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
