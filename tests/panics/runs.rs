//! A future under `run` that panics where it is polled or dropped, and a timer or a waker that does
//! so under it.

use super::timers::{EARLY, EARLY_AND_IN_DROP, IN_CALL, IN_DROP, IN_POLL, WELL, run};
use super::*;
use budget_pool::{BudgetError, OnDrop};
use std::future::pending;

/// It takes 60 tokens at its first poll, and keeps them.
struct Work {
    pool: BudgetPool,
    hold: Option<Reservation>,
    panics_in_poll: Arc<AtomicBool>,
    panics_in_drop: bool,
}

impl Work {
    fn new(pool: &BudgetPool) -> Work {
        let (pool, panics_in_poll) = (pool.clone(), Arc::default());
        Work { pool, hold: None, panics_in_poll, panics_in_drop: false }
    }
}

impl Future for Work {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        let hold = self.pool.reserve(tokens(60)).ok();
        self.hold = self.hold.take().or(hold);
        if self.panics_in_poll.load(Ordering::SeqCst) {
            panics();
        }
        Poll::Pending
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.panics_in_drop {
            panics();
        }
    }
}

type Run = Pin<Box<dyn Future<Output = Result<(), BudgetError>>>>;

fn poll(run: &mut Run) -> Poll<Result<(), BudgetError>> {
    run.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn p3_a_future_that_panics_ends_its_hold_by_its_rule_and_leaves_no_trace() {
    for (on_drop, used) in [(OnDrop::Release, 0), (OnDrop::Commit, 60)] {
        for at_once in [true, false] {
            let root = BudgetPool::builder().tokens(100).on_drop(on_drop).build();
            let pool = root.child().build();
            let mut other = pool.closed();
            let work = Work::new(&pool);
            let panics_in_poll = Arc::clone(&work.panics_in_poll);
            let mut run: Run = Box::pin(pool.run(work));
            if !at_once {
                assert!(poll(&mut run).is_pending());
            }
            panics_in_poll.store(true, Ordering::SeqCst);
            comes_out(|| _ = poll(&mut run));
            let end = root.snapshot();
            assert_eq!((end.tokens.used, end.tokens.reserved, end.reservations), (used, 0, 0));
            check_invariants(&root);
            // Nothing keeps the pool but those that did before.
            assert!(
                Pin::new(&mut other).poll(&mut Context::from_waker(Waker::noop())).is_pending()
            );
            drop((run, other));
            pool.reserve(tokens(40)).unwrap().release();
            drop(pool);
            assert_eq!(root.snapshot_tree().len(), 1);
        }
    }
}

#[test]
fn p3_a_future_that_panics_in_its_drop_has_given_all_back() {
    type Cause = fn(&BudgetPool, &ManualClock, Run);
    let causes: [Cause; 3] = [
        |_, _, run| drop(run),
        |pool, _, mut run| {
            pool.close();
            _ = poll(&mut run);
        },
        |_, clock, mut run| {
            clock.advance(secs(600));
            _ = poll(&mut run);
        },
    ];
    for cause in causes {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().tokens(100).clock(clock.clone()).timer(by_hand).build();
        let pool = root.child().deadline(secs(600)).build();
        let mut work = Work::new(&pool);
        work.panics_in_drop = true;
        let mut run: Run = Box::pin(pool.run(work));
        assert!(poll(&mut run).is_pending());
        let mut waiter = Waiter::queued(&root, tokens(100));
        comes_out(|| cause(&pool, &clock, run));
        assert_eq!(waiter.wakes(), 1);
        assert!(waiter.poll().is_ready());
        drop(waiter);
        drop(pool);
        assert_eq!(root.snapshot_tree().len(), 1);
        is_balanced(&root);
    }
}

#[test]
fn p3_a_timer_that_panics_cuts_the_future_off_and_leaves_no_trace() {
    for fault in [IN_CALL, IN_POLL, EARLY_AND_IN_DROP, IN_DROP] {
        let (timer, _, pool, held) = run();
        held.shrink(tokens(60)).unwrap();
        let mut run: Run = Box::pin(pool.run(Work::new(&pool)));
        if fault == IN_DROP {
            assert!(poll(&mut run).is_pending());
            timer.breaks(fault);
            comes_out(|| drop(run));
        } else {
            timer.breaks(fault);
            comes_out(|| _ = poll(&mut run));
            timer.breaks(WELL);
            drop(run);
        }
        timer.breaks(WELL);
        assert_eq!(pool.snapshot().tokens.reserved, 40, "{fault}");
        drop(held);
        let mut again: Run = Box::pin(pool.run(Work::new(&pool)));
        assert!(poll(&mut again).is_pending());
        drop(again);
        is_balanced(&pool);
    }
}

/// The future has handed its hold over when it is done, and its drop comes after that.
#[test]
fn p3_a_future_that_panics_once_it_is_done_leaves_no_hold() {
    struct Done(BudgetPool);
    impl Future for Done {
        type Output = Reservation;

        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Reservation> {
            Poll::Ready(self.0.reserve(tokens(60)).unwrap())
        }
    }
    impl Drop for Done {
        fn drop(&mut self) {
            panics();
        }
    }

    let pool = pool_of(100);
    let mut run = Box::pin(pool.run(Done(pool.clone())));
    comes_out(|| run.as_mut().poll(&mut Context::from_waker(Waker::noop())));
    drop(run);
    is_balanced(&pool);
}

/// Where the timer is early, and where the pool is closed.
#[test]
fn a_waker_that_panics_under_a_run_harms_nobody_else() {
    let (timer, _, pool, held) = run();
    drop(held);
    timer.breaks(EARLY);
    let waker = Waker::from(Arc::new(InWake));
    let mut early: Run = Box::pin(pool.run(Work::new(&pool)));
    comes_out(|| _ = early.as_mut().poll(&mut Context::from_waker(&waker)));
    drop(early);
    timer.breaks(WELL);
    is_balanced(&pool);

    let mut broken: Run = Box::pin(pool.run(pending()));
    assert!(broken.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let wakes = Arc::new(Wakes::default());
    let told = Waker::from(Arc::clone(&wakes));
    let mut other: Run = Box::pin(pool.run(pending()));
    assert!(other.as_mut().poll(&mut Context::from_waker(&told)).is_pending());
    pool.close();
    assert_eq!(wakes.0.load(Ordering::SeqCst), 1);
    for run in [&mut broken, &mut other] {
        assert!(matches!(poll(run), Poll::Ready(Err(BudgetError::Closed { .. }))));
    }
}
