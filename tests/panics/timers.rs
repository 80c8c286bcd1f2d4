use super::*;

pub(super) const WELL: usize = 0;
pub(super) const IN_CALL: usize = 1;
pub(super) const IN_POLL: usize = 2;
pub(super) const IN_DROP: usize = 3;
pub(super) const EARLY_AND_IN_DROP: usize = 4;
pub(super) const EARLY: usize = 5;

#[derive(Clone, Default)]
pub(super) struct Timer {
    fault: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
}

struct Sleep(Arc<AtomicUsize>);

impl Timer {
    pub(super) fn breaks(&self, fault: usize) {
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
pub(super) fn run() -> (Timer, ManualClock, BudgetPool, Reservation) {
    let (clock, timer) = (ManualClock::new(), Timer::default());
    let Timer { fault, calls } = timer.clone();
    let pool = BudgetPool::builder().tokens(100).deadline(secs(600)).clock(clock.clone()).timer(
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
            // The old sleep goes before the new one is made.
            let calls = if fault == IN_DROP { 2 } else { 3 };
            assert_eq!((pool.snapshot().waiting, timer.calls()), (2, calls), "{fault}");
            // A sleep that panicked is not polled again.
            assert!(first.poll().is_pending());
            assert_eq!(timer.calls(), calls + 1, "{fault}");
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

/// A sleep that does something when it is polled.
struct Does<F>(F);

impl<F: Fn(&Waker) -> Poll<()>> Future for Does<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        (self.0)(context.waker())
    }
}

#[test]
fn p6_one_that_wakes_and_is_over_at_once_tells_its_owner_to_come_back() {
    let (clock, made) = (ManualClock::new(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&made);
    let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).timer(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Box::pin(Does(|waker: &Waker| {
            waker.wake_by_ref();
            Poll::Ready(())
        }))
    });
    let pool = pool.build();
    pool.pause(secs(1));
    let mut first = Waiter::queued(&pool, tokens(60));
    assert!(first.wakes() > 0);
    assert!(made.load(Ordering::SeqCst) <= 10, "{made:?}");
    clock.advance(secs(1));
    assert!(first.poll().is_ready());
}

/// The wait, and all handles of its tree, go while its alarm polls the next sleep; whether no sleep
/// is left. The timer owns `its`.
fn goes_in_a_ring(then: fn(), its: impl Send + Sync + 'static) -> bool {
    type Last = Mutex<Option<(Waiter, BudgetPool)>>;
    let (last, wakers) = (Arc::new(Last::default()), Arc::new(Mutex::new(Vec::new())));
    let sleeps = Arc::new(());
    let (of_timer, its) = ((Arc::clone(&last), Arc::clone(&wakers), Arc::clone(&sleeps)), its);
    let pool = BudgetPool::builder().tokens(100).clock(ManualClock::new()).timer(move |_| {
        let ((last, wakers, sleep), _) = (of_timer.clone(), &its);
        let keeps = Mutex::new(None);
        Box::pin(Does(move |waker: &Waker| {
            wakers.lock().unwrap().push(waker.clone());
            *keeps.lock().unwrap() = Some((waker.clone(), Arc::clone(&sleep)));
            let last = last.lock().unwrap().take();
            if last.is_some() {
                drop(last);
                then();
            }
            Poll::Pending
        }))
    });
    let pool = pool.build();
    pool.pause(secs(1));
    let waiter = Waiter::queued(&pool, tokens(60));
    // The next instant is another.
    pool.pause(secs(2));
    *last.lock().unwrap() = Some((waiter, pool));
    let woken = std::mem::take(&mut *wakers.lock().unwrap());
    woken[0].wake_by_ref();
    drop(woken);
    wakers.lock().unwrap().clear();
    assert!(last.lock().unwrap().is_none());
    Arc::strong_count(&sleeps) == 1
}

#[test]
fn one_whose_wait_goes_as_it_is_polled_is_dropped_though_it_panics() {
    struct Its;

    impl Drop for Its {
        fn drop(&mut self) {
            panics();
        }
    }

    for then in [|| (), panics] {
        assert!(goes_in_a_ring(then, ()));
        assert!(goes_in_a_ring(then, Its), "nor does the panic reach whoever wakes");
    }
}
