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
