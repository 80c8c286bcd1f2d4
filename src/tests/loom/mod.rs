//! What threads can do to each other: each story is told by loom in all its interleavings.
//!
//! One call is one transition under one lock, so that sequences of calls are proptest's work. Here
//! is what only threads can show: that a call *is* one transition; that handles and reservations
//! dropped anywhere give back once; that the clock, which is read before the lock, does no harm.
//!
//! A model names all that may come of its story. Anything else fails it, and so does an outcome
//! that is never seen: a model that explores nothing is not green.
//!
//! Under this cfg a pool and a `ManualClock` live only inside a model: tests elsewhere in `src`
//! that make one are off.
//!
//! `RUSTFLAGS="--cfg budget_pool_loom" cargo test --release --lib tests::loom:: -- --nocapture`

#![allow(clippy::unwrap_used, reason = "a test may")]

mod caps;
mod handles;
mod joint;
mod keyed;
mod lease;
mod settling;
mod steering;
mod time;
mod waiting;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use loom::sync::atomic::{AtomicBool, Ordering::Relaxed};
use loom::thread;

use crate::{
    Amount, Axis, BudgetError, BudgetPool, Caps, Clock, ManualClock, Outlook, PoolBuilder, Root,
    Snapshot,
};

/// Tells the story in every interleaving: exactly these outcomes come of it.
fn explore<T, S, const N: usize>(outcomes: [T; N], story: S)
where
    T: Ord + Debug + Send + Sync + 'static,
    S: Fn() -> T + Send + Sync + 'static,
{
    let seen = Arc::new(Mutex::new(BTreeMap::from(outcomes.map(|outcome| (outcome, 0_u64)))));
    let tally = Arc::clone(&seen);
    loom::model(move || {
        let outcome = story();
        let mut tally = tally.lock().unwrap();
        let Some(times) = tally.get_mut(&outcome) else {
            panic!("{outcome:?} must not come of it")
        };
        *times += 1;
    });
    let seen = seen.lock().unwrap();
    let name = std::any::type_name::<S>().trim_end_matches("::{{closure}}");
    println!("{name}: {} executions, {N} outcomes", seen.values().sum::<u64>());
    assert!(seen.values().all(|&times| times > 0), "each must come of it: {seen:?}");
}

/// Two threads, each with a handle of the pool. What they leave behind is sound.
fn both<A: 'static, B>(
    pool: &BudgetPool,
    a: impl FnOnce(&BudgetPool) -> A + Send + 'static,
    b: impl FnOnce(&BudgetPool) -> B,
) -> (A, B) {
    let outcomes = at_once(pool, a, b);
    pool.check_invariants();
    outcomes
}

fn at_once<A: 'static, B>(
    pool: &BudgetPool,
    a: impl FnOnce(&BudgetPool) -> A + Send + 'static,
    b: impl FnOnce(&BudgetPool) -> B,
) -> (A, B) {
    let theirs = pool.clone();
    let a = thread::spawn(move || a(&theirs));
    let b = b(pool);
    (a.join().unwrap(), b)
}

/// Three threads, the third of which only looks.
fn both_watched<A: 'static, B: 'static, C>(
    pool: &BudgetPool,
    a: impl FnOnce(&BudgetPool) -> A + Send + 'static,
    b: impl FnOnce(&BudgetPool) -> B + Send + 'static,
    look: impl FnOnce(&BudgetPool) -> C,
) -> (A, B, C) {
    let (a, (b, seen)) = both(pool, a, |pool| at_once(pool, b, look));
    (a, b, seen)
}

fn pool(tokens: u64) -> BudgetPool {
    capped(tokens).build()
}

fn capped(tokens: u64) -> PoolBuilder<Root> {
    BudgetPool::builder().name("run").tokens(tokens)
}

fn tokens(tokens: u64) -> Amount {
    Amount::new().tokens(tokens)
}

fn used_and_reserved(snapshot: &Snapshot) -> (u64, u64) {
    assert_eq!(
        snapshot.in_flight.reserved, snapshot.reservations,
        "no more and no less in flight than live"
    );
    (snapshot.tokens.used, snapshot.tokens.reserved)
}

/// What a refusal for capacity says is free, and what may come.
fn exceeded<T: Debug>(outcome: Result<T, BudgetError>) -> (u64, Outlook) {
    match outcome {
        Err(BudgetError::Exceeded(refusal)) => (refusal.available().units(), refusal.outlook()),
        other => panic!("{other:?}"),
    }
}

/// How many pools there are, from this one down.
fn pools(pool: &BudgetPool) -> usize {
    pool.snapshot_tree().len()
}

/// The one that was admitted.
fn winner<A, B>(
    (first, a): (&'static str, Result<A, BudgetError>),
    (second, b): (&'static str, Result<B, BudgetError>),
) -> &'static str {
    match (a, b) {
        (Ok(_), Err(_)) => first,
        (Err(_), Ok(_)) => second,
        (Ok(_), Ok(_)) => "both",
        (Err(_), Err(_)) => "neither",
    }
}

/// Whatever happened before a call that changed a pool is visible to whoever sees that change.
#[test]
fn what_was_written_before_a_close_is_seen_by_whoever_sees_it() {
    explore([(false, false), (false, true), (true, true)], || {
        let (pool, written) = (pool(1), loom::sync::Arc::new(AtomicBool::new(false)));
        let mine = loom::sync::Arc::clone(&written);
        let close = move |pool: &BudgetPool| {
            mine.store(true, Relaxed);
            pool.close();
        };
        both(&pool, close, |pool| (pool.is_closed(), written.load(Relaxed))).1
    });
}

/// P1: of two records of which each fits alone, one is admitted. Its two axes move together,
/// although one has room for both.
#[test]
fn record_against_record() {
    let outcomes = [("first", (0, 0)), ("first", (6, 4)), ("second", (0, 0)), ("second", (4, 6))];
    explore(outcomes, || {
        let pool = capped(10).requests(9).build();
        let spent = |pool: &BudgetPool| {
            let snapshot = pool.snapshot();
            (snapshot.tokens.used, snapshot.requests.used)
        };
        let first = |pool: &BudgetPool| pool.record(tokens(6).requests(4));
        let second = |pool: &BudgetPool| pool.record(tokens(4).requests(6));
        let (a, b, seen) = both_watched(&pool, first, second, spent);

        let winner = winner(("first", a), ("second", b));
        assert_eq!(spent(&pool), if winner == "first" { (6, 4) } else { (4, 6) });
        (winner, seen)
    });
}

/// P2, P5: a commit beyond its hold is booked whole, and what a drop gives back pays its overage,
/// in either order.
#[test]
fn commit_against_drop() {
    let (start, end) = ((0, 10, 0), (10, 0, 2));
    let (dropped, committed) = ((0, 6, 0), (6, 4, 6));
    let outcomes = [(2, start), (2, dropped), (2, end), (6, start), (6, committed), (6, end)];
    explore(outcomes, move || {
        let pool = pool(10);
        let (spent, given_back) =
            (pool.reserve(tokens(6)).unwrap(), pool.reserve(tokens(4)).unwrap());
        let balance = |pool: &BudgetPool| {
            let snapshot = pool.snapshot();
            let (used, reserved) = used_and_reserved(&snapshot);
            (used, reserved, snapshot.tokens.overage)
        };
        let commit = move |_: &BudgetPool| spent.commit(tokens(12)).overage();
        let (overage, (), seen) = both_watched(&pool, commit, move |_| drop(given_back), balance);

        assert_eq!(balance(&pool), end);
        assert_eq!(pool.snapshot().tokens.spent, 12);
        (overage.get(Axis::Tokens).unwrap().units(), seen)
    });
}

/// P1, P5: at the parent's cap the child's record competes with the parent's; a look at the tree
/// sees it in both or neither.
#[test]
fn child_against_parent() {
    let outcomes = [("child", (0, 0)), ("child", (6, 6)), ("parent", (0, 0)), ("parent", (6, 0))];
    explore(outcomes, || {
        let parent = pool(10);
        let child = parent.child().name("child").tokens(10).build();
        let spent = |parent: &BudgetPool| {
            let tree = parent.snapshot_tree();
            (tree[0].tokens.used, tree[1].tokens.used)
        };
        let theirs = child.clone();
        let (a, b, seen) = both_watched(
            &parent,
            move |_| theirs.record(tokens(6)),
            |parent| parent.record(tokens(6)),
            spent,
        );

        let refused =
            a.as_ref().err().or(b.as_ref().err()).map(|refusal| refusal.pool().to_owned());
        assert_eq!(refused.as_deref(), Some("run"));
        (winner(("child", a), ("parent", b)), seen)
    });
}

/// P4, P5, P7: a record is admitted or refused by the state at its one instant, and the refusal's
/// figures are that state's. Whoever is admitted into what a release made free also sees what was
/// written before it.
#[test]
fn record_against_release() {
    let refused = |written| (Some((4, Outlook::AfterRelease)), written);
    explore([(None, true), refused(true), refused(false)], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(6)).unwrap();
        let written = loom::sync::Arc::new(AtomicBool::new(false));
        let read = loom::sync::Arc::clone(&written);
        let release = move |_: &BudgetPool| {
            written.store(true, Relaxed);
            hold.release();
        };
        let ((), outcome) = both(&pool, release, |pool| match pool.record(tokens(6)) {
            Ok(()) => (None, read.load(Relaxed)),
            refused => (Some(exceeded(refused)), read.load(Relaxed)),
        });

        assert_eq!(
            used_and_reserved(&pool.snapshot()),
            (if outcome.0.is_none() { 6 } else { 0 }, 0)
        );
        outcome
    });
}

/// P1: at the cap a hold that grows competes with a record; refused, it is as it was.
#[test]
fn grow_against_record() {
    explore([("grow", (0, 8)), ("record", (5, 4))], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(4)).unwrap();
        let grow = move |_: &BudgetPool| {
            let grown = hold.grow(tokens(4));
            (grown, hold)
        };
        let ((grown, hold), recorded) = both(&pool, grow, |pool| pool.record(tokens(5)));

        let balance = used_and_reserved(&pool.snapshot());
        let settled = hold.commit_all().settled();
        assert_eq!(settled, tokens(balance.1));
        (winner(("grow", grown), ("record", recorded)), balance)
    });
}

/// P2: a commit falls into the period before the reset or into the one after it: into one of them,
/// once.
#[test]
fn commit_against_reset() {
    explore([((0, 6), (4, 0)), ((4, 0), (0, 0))], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(6)).unwrap();
        let (_, old) = both(&pool, move |_| hold.commit(tokens(4)), BudgetPool::reset);

        let new = pool.snapshot();
        assert_eq!(new.tokens.spent, 4);
        (used_and_reserved(&old), used_and_reserved(&new))
    });
}

/// A hold that got in before the close of a pool above can be committed after it; once closed,
/// nothing gets in.
#[test]
fn reserve_against_close() {
    explore([("refused", (0, 0)), ("committed", (0, 4)), ("committed", (5, 0))], || {
        let parent = pool(10);
        let child = parent.child().build();
        let reserve = move |_: &BudgetPool| match child.reserve(tokens(4)) {
            Ok(hold) => {
                assert!(hold.commit(tokens(5)).overage().is_zero());
                "committed"
            }
            Err(refusal) => {
                assert_eq!(refusal, BudgetError::Closed { pool: "run".into() });
                "refused"
            }
        };
        let (outcome, when_closed) = both(&parent, reserve, |parent| {
            parent.close();
            used_and_reserved(&parent.snapshot())
        });

        assert_eq!(
            used_and_reserved(&parent.snapshot()),
            (if outcome == "committed" { 5 } else { 0 }, 0)
        );
        (outcome, when_closed)
    });
}

/// A child built while its parent is being closed is closed in the end: there is no gap to be born
/// into.
#[test]
fn birth_against_close() {
    explore([true, false], || {
        let parent = pool(10);
        let build = |parent: &BudgetPool| {
            let child = parent.child().build();
            let born_closed = child.is_closed();
            (child, born_closed)
        };
        let ((child, born_closed), ()) = both(&parent, build, BudgetPool::close);

        assert!(child.is_closed());
        born_closed
    });
}

/// P3: a carved pool that is closed gives back what it neither used nor holds; a commit after that,
/// the rest.
#[test]
fn commit_against_close_of_carved() {
    let (start, committed, closed, end) = ((0, 8), (5, 3), (0, 6), (5, 0));
    explore([start, committed, closed, end], move || {
        let parent = pool(10);
        let share = parent.child().tokens(8).carved().build().unwrap();
        let hold = share.reserve(tokens(6)).unwrap();
        let commit = move |_: &BudgetPool| hold.commit(tokens(5));
        let (_, (), seen) = both_watched(
            &parent,
            commit,
            move |_| share.close(),
            |parent| used_and_reserved(&parent.snapshot()),
        );

        assert_eq!(used_and_reserved(&parent.snapshot()), end);
        seen
    });
}

/// P1, P5: budget moves into a carved pool in one transition, which competes with a record of the
/// parent's.
#[test]
fn carved_add_against_record() {
    let (start, added, recorded) = ((0, 2, 2), (0, 8, 8), (6, 2, 2));
    let outcomes = [("add", start), ("add", added), ("record", start), ("record", recorded)];
    explore(outcomes, || {
        let parent = pool(10);
        let share = parent.child().tokens(2).carved().build().unwrap();
        let balance = |parent: &BudgetPool| {
            let tree = parent.snapshot_tree();
            let (used, reserved) = used_and_reserved(&tree[0]);
            (used, reserved, tree[1].tokens.cap.unwrap())
        };
        let theirs = share.clone();
        let add = move |_: &BudgetPool| theirs.raise_caps(Caps::new().tokens(6));
        let (a, b, seen) = both_watched(&parent, add, |parent| parent.record(tokens(6)), balance);

        (winner(("add", a), ("record", b)), seen)
    });
}

/// P3, P4: what a hold lets go, by a shrink and by the drop of a part split off, a carved pool can
/// have; the split by itself frees nothing.
#[test]
fn carved_add_against_shrink_and_split() {
    explore([("refused", 2), ("refused", 3), ("added", 6)], || {
        let parent = pool(12);
        let share = parent.child().tokens(2).carved().build().unwrap();
        let hold = parent.reserve(tokens(8)).unwrap();
        let let_go = move |_: &BudgetPool| {
            hold.shrink(tokens(1)).unwrap();
            drop(hold.split(tokens(3)).unwrap());
            hold
        };
        let (hold, outcome) =
            both(&parent, let_go, |_| match share.raise_caps(Caps::new().tokens(4)) {
                Ok(()) => ("added", share.snapshot().tokens.cap.unwrap()),
                refused => ("refused", exceeded(refused).0),
            });

        let share_of = share.snapshot().tokens.cap.unwrap();
        assert_eq!(share_of, if outcome.0 == "added" { 6 } else { 2 });
        assert_eq!(hold.amount(), tokens(4));
        assert_eq!(parent.snapshot().tokens.reserved, 4 + share_of);
        outcome
    });
}

/// P8: a call that has read the clock may be overtaken before it has the lock. Once one was late,
/// none is in time after it.
#[test]
fn clock_against_lock() {
    explore(
        [("read in time", true, 1), ("read in time", false, 0), ("read late", false, 0)],
        || {
            let (clock, second) = (ManualClock::new(), Duration::from_secs(1));
            let reads = Arc::new(Mutex::new(Vec::new()));
            let (time, log) = (clock.clone(), Arc::clone(&reads));
            let logged = move || {
                let now = time.now();
                log.lock().unwrap().push(now);
                now
            };
            let pool = capped(10).clock(logged).deadline(second).build();
            let (admitted, admitted_before_late) = both(
                &pool,
                |pool| pool.record(tokens(1)).is_ok(),
                |pool| {
                    clock.advance(second);
                    assert!(matches!(
                        pool.record(tokens(1)),
                        Err(BudgetError::DeadlineExceeded(_))
                    ));
                    pool.snapshot().admitted
                },
            );

            let reads = reads.lock().unwrap();
            // `build` reads the start, the call after the advance does not.
            let read_in_time = reads.iter().filter(|&&read| read == reads[0]).count() == 2;
            (
                if read_in_time { "read in time" } else { "read late" },
                admitted,
                admitted_before_late,
            )
        },
    );
}
