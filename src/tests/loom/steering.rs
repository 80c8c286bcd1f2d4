//! Those who watch a pool, and those who observe a tree.

use super::waiting::{Task, poll};
use super::*;
use crate::{Level, Observer, WeakPool};

/// The first poll of a watch comes before the transition that reaches its level, and the task that
/// polled is woken once; or after it, and the level is there. The snapshot is one that is at the
/// level, whatever has come since.
#[test]
fn reached_against_the_spends_that_reach_it() {
    explore([("there", 0, 8), ("there", 0, 9), ("told", 1, 8)], || {
        let pool = pool(10);
        let task = Task::new();
        let spend = |pool: &BudgetPool| {
            pool.record(tokens(8)).unwrap();
            pool.record(tokens(1)).unwrap();
        };
        let (mut watch, polled) =
            (pool.reached(Level::percent(Axis::Tokens, 80)), Arc::clone(&task));
        let ((), first) = both(&pool, spend, |_| poll(&mut watch, polled));

        let told = |snapshot: Snapshot| snapshot.tokens.used;
        let (how, used) = match first.map(told) {
            std::task::Poll::Ready(used) => ("there", used),
            std::task::Poll::Pending => match poll(&mut watch, Arc::clone(&task)).map(told) {
                std::task::Poll::Ready(used) => ("told", used),
                std::task::Poll::Pending => panic!("it was reached"),
            },
        };
        drop(watch);
        pool.check_invariants();
        (how, task.wakes(), used)
    });
}

/// A watch is dropped while its level is reached: nothing is left of it. It was woken at most once.
#[test]
fn reached_against_its_drop() {
    explore([0, 1], || {
        let pool = pool(10);
        let task = Task::new();
        let mut watch = pool.reached(Level::amount(tokens(8)));
        assert!(poll(&mut watch, Arc::clone(&task)).is_pending());
        let spend = |pool: &BudgetPool| pool.reserve(tokens(8)).unwrap().release();
        let ((), ()) = both(&pool, spend, |_| drop(watch));

        task.wakes()
    });
}

/// What is wanted is told to a thread that is parked, and the waiter that wanted it is served by
/// what that thread does.
#[test]
fn wants_against_a_wait_that_needs_funds() {
    explore([10], || {
        let pool = capped(0).ceiling(Caps::new().tokens(10)).build();
        let wait = |pool: &BudgetPool| pool.record_blocking(tokens(10)).unwrap();
        let ((), ()) = both(&pool, wait, |pool| {
            let want = pool.wants().block();
            assert_eq!(want.missing, tokens(10));
            pool.raise_caps(want.missing.into_iter().collect()).unwrap();
        });

        pool.snapshot().tokens.used
    });
}

/// Watches of a pool and of the one below it, whose parent closes while a spend below reaches both.
#[test]
fn watches_of_a_child_against_the_close_of_its_parent() {
    explore([(true, 1), (false, 0)], || {
        let parent = pool(10);
        let child = parent.child().tokens(5).build();
        let task = Task::new();
        let (mut level, mut closed) = (child.reached(Level::amount(tokens(5))), child.closed());
        assert!(poll(&mut level, Arc::clone(&task)).is_pending());
        assert!(poll(&mut closed, Task::new()).is_pending());
        let ((), admitted) = both(&parent, BudgetPool::close, |_| child.record(tokens(5)).is_ok());

        assert!(poll(&mut closed, Task::new()).is_ready());
        assert_eq!(poll(&mut level, Arc::clone(&task)).is_ready(), admitted);
        drop(level);
        parent.check_invariants();
        (admitted, task.wakes())
    });
}

/// Notes what it is told, and comes back to its pool for a spend.
#[derive(Default)]
struct Back {
    pool: Mutex<WeakPool>,
    told: Mutex<Vec<&'static str>>,
}

impl Back {
    fn come(&self, event: &'static str) {
        self.told.lock().unwrap().push(event);
        // Its lock is the standard library's: no thread may be switched under it.
        let pool = self.pool.lock().unwrap().clone();
        drop(pool.upgrade().map(|pool| pool.record(tokens(1))));
    }
}

impl Observer for Back {
    fn refused(&self, refusal: &BudgetError) {
        // That of its own spend, too: it asks no more then.
        if matches!(refusal, BudgetError::Exceeded(refusal) if refusal.requested().units() == 1) {
            return self.told.lock().unwrap().push("refused back");
        }
        self.come("refused");
    }

    fn dropped(&self, _: &crate::Holder) {
        self.come("dropped");
    }
}

/// An observer is told by the thread that brought the event about, without the lock, while another
/// thread spends.
#[test]
fn an_observer_that_comes_back_against_a_spend() {
    explore([(0, 10), (1, 2)], || {
        let observer = Arc::new(Back::default());
        let pool = capped(10).observer(Arc::clone(&observer)).build();
        *observer.pool.lock().unwrap() = pool.downgrade();
        let hold = pool.reserve(tokens(2)).unwrap();
        let end = move |_: &BudgetPool| drop(hold);
        let ((), ()) = both(&pool, end, |pool| {
            drop(pool.record(tokens(9)));
        });

        let told = observer.told.lock().unwrap().clone();
        let times = |event| told.iter().filter(|told| **told == event).count();
        assert_eq!((times("dropped"), times("refused back")), (1, 0));
        (times("refused"), pool.snapshot().tokens.used)
    });
}
