//! P6: wakers that come back to the pool, and wakers that panic.

use super::*;

#[test]
fn wakers_that_come_back_do_not_pile_up() {
    struct ComesBack(BudgetPool);
    impl Wake for ComesBack {
        fn wake(self: Arc<Self>) {
            let _ = self.0.is_closed();
        }
    }
    let pool = BudgetPool::builder().in_flight(1).build();
    let _held = pool.reserve(Amount::new()).unwrap();
    let waker = Waker::from(Arc::new(ComesBack(pool.clone())));
    let mut waits: Vec<_> =
        (0..100_000).map(|_| Box::pin(pool.reserve_wait(Amount::new()))).collect();
    for wait in &mut waits {
        assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    }
    pool.close();
    assert_eq!(pool.snapshot().waiting, 0);
}

#[test]
fn a_waker_that_panics_or_comes_back_harms_nobody() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
    }
    struct ComesBack(BudgetPool);
    impl Wake for ComesBack {
        fn wake(self: Arc<Self>) {
            drop(self.0.reserve(tokens(1)));
            drop(self.0.snapshot_tree());
        }
    }
    let pool = pool_of(100);
    let held = pool.reserve(tokens(100)).unwrap();
    let mut first = Box::pin(pool.reserve_wait(tokens(10)));
    assert!(
        first.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::new(Panics)))).is_pending()
    );
    let mut second = Box::pin(pool.reserve_wait(tokens(10)));
    let waker = Waker::from(Arc::new(ComesBack(pool.clone())));
    assert!(second.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let mut third = Waiter::queued(&pool, tokens(10));
    held.commit(tokens(50));
    drop(third.granted());
    drop((first, second));
    assert_eq!((pool.snapshot().tokens.used, pool.snapshot().tokens.reserved), (50, 0));
}
