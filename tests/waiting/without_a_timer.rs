//! A pool whose waits only time may end, and no timer.

use budget_pool::{OnDrop, Window};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn first_poll(pool: &BudgetPool) -> BudgetError {
    let mut wait = std::pin::pin!(pool.reserve_wait(tokens(5)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::future::Future::poll(wait.as_mut(), &mut context) {
        Poll::Ready(outcome) => outcome.unwrap_err(),
        Poll::Pending => panic!("it would sleep for ever"),
    }
}

#[test]
fn p6_a_wait_is_refused_at_its_first_need_of_one() {
    let pool = || BudgetPool::builder().name("run").tokens(10);
    let windowed = pool().window(Window::token_bucket(SECOND)).build();
    windowed.record(tokens(10)).unwrap();
    let bounded = pool().deadline(SECOND * 100).build();
    let below = bounded.child().build();
    let held = bounded.reserve(tokens(10)).unwrap();
    let expiring = pool().build();
    let _brief = expiring.reserve(Ask::new(tokens(10)).ttl(SECOND * 100)).unwrap();
    for (pool, name) in
        [(&windowed, "run"), (&bounded, "run"), (&below, "pool"), (&expiring, "run")]
    {
        let refused = first_poll(pool);
        assert!(matches!(&refused, BudgetError::NoTimer { pool, .. } if pool == name));
        let text = refused.to_string();
        assert!(text.contains("give the root pool one, or wait by blocking"), "{text}");
        assert_eq!((pool.snapshot().waiting, pool.snapshot().refused), (0, 1));
        check_invariants(pool);
    }
    // What fits needs none.
    drop(held);
    assert!(futures_ready(&bounded));
}

fn futures_ready(pool: &BudgetPool) -> bool {
    let mut wait = std::pin::pin!(pool.record_wait(tokens(5)));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::future::Future::poll(wait.as_mut(), &mut context).is_ready()
}

#[test]
fn p6_a_bill_that_comes_due_elsewhere_is_no_need_of_one() {
    let root = BudgetPool::builder().requests(5).build();
    let [billed, pool] = [0, 1].map(|_| root.child().tokens(10).build());
    let request = Ask::new(Amount::new().requests(1)).ttl(SECOND * 100);
    let _brief = billed.reserve(request.on_drop(OnDrop::Commit)).unwrap();
    let held = pool.reserve(tokens(10)).unwrap();
    let mut waiter = Waiter::queued(&pool, tokens(5));
    drop(held);
    waiter.granted().release();
}

#[test]
fn p6_a_waiter_that_comes_to_need_one_is_told_and_those_behind_it_are_served() {
    let pool = BudgetPool::builder().tokens(10).build();
    let hold = pool.reserve(tokens(8)).unwrap();
    let mut waiter = Waiter::queued(&pool, tokens(9));
    let mut behind = Waiter::queued(&pool, tokens(2));
    hold.renew(SECOND * 100).unwrap();
    assert!(matches!(waiter.refused(), BudgetError::NoTimer { .. }));
    behind.granted().release();
    check_invariants(&pool);
}

#[test]
fn p6_a_thread_needs_none() {
    let window = Window::token_bucket(Duration::from_millis(100));
    let pool = BudgetPool::builder().tokens(10).window(window).build();
    pool.record_blocking(tokens(10)).unwrap();
    pool.record_blocking(tokens(3)).unwrap();
    pool.reserve_blocking(tokens(3)).unwrap().commit_all();
}
