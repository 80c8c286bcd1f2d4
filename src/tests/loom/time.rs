//! Time: what is due is done by whoever comes, and whoever comes may have read the clock long ago.
//!
//! Each story moves the clock while others call, so that it is read before and after, in time and
//! late, and by a thread that is then overtaken.

use std::sync::atomic::AtomicUsize;
use std::task::{Poll, Waker};
use std::time::Instant;

use loom::sync::atomic::AtomicU32;

use super::caps::{Siblings, tree_of};
use super::handles::may_be_overtaken;
use super::waiting::{FIRST_POLL, Task, Waiter, against_first_poll, poll, waiting};
use super::*;
use crate::{Ask, Once, Receipt, Window};

const SECOND: Duration = Duration::from_secs(1);

/// A clock that tells the time, and nothing else: whoever reads it learns nothing of what was done
/// before it was moved. A lock, as `ManualClock` has, would tell it, and hide what the pool fails
/// to tell.
#[derive(Clone)]
struct BareClock {
    start: Instant,
    second: Arc<AtomicU32>,
    reads: Arc<AtomicUsize>,
}

impl BareClock {
    fn new() -> BareClock {
        BareClock {
            start: Instant::now(),
            second: Arc::new(AtomicU32::new(0)),
            reads: Arc::default(),
        }
    }

    fn second(&self) -> u32 {
        self.second.load(Relaxed)
    }

    fn move_to(&self, second: u32) {
        self.second.store(second, Relaxed);
    }

    /// How often pools have read it.
    fn reads(&self) -> usize {
        self.reads.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Its waits are polled by hand.
    fn pool(&self, tokens: u64) -> PoolBuilder<Root> {
        capped(tokens).clock(self.clone()).timer(|_| Box::pin(std::future::pending()))
    }

    /// The pool, and the seconds towards which waits have slept. No sleep ends by itself.
    fn pool_with_timer(
        &self,
        builder: PoolBuilder<Root>,
    ) -> (BudgetPool, impl Fn() -> Vec<u64> + use<>) {
        let start = self.start;
        let alarms = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&alarms);
        let pool = builder.timer(move |until| {
            log.lock().unwrap().push(until.duration_since(start).as_secs());
            Box::pin(std::future::pending())
        });
        (pool.build(), move || alarms.lock().unwrap().clone())
    }

    /// The pool, and what its sleeps are to wake. No sleep ends by itself.
    fn pool_with_alarms(
        builder: PoolBuilder<Root>,
    ) -> (BudgetPool, impl Fn() -> Vec<Waker> + use<>) {
        let alarms = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&alarms);
        let pool = builder.timer(move |_| {
            let log = Arc::clone(&log);
            Box::pin(std::future::poll_fn(move |context| {
                log.lock().unwrap().push(context.waker().clone());
                Poll::Pending
            }))
        });
        (pool.build(), move || alarms.lock().unwrap().clone())
    }

    /// The pool, what its sleeps are to wake, and the seconds towards which sleeps are there. No
    /// sleep wakes by itself.
    fn pool_with_sleeps(
        &self,
        builder: PoolBuilder<Root>,
    ) -> (BudgetPool, impl Fn() -> Vec<Waker> + use<>, impl Fn() -> Vec<u64> + use<>) {
        struct Sleep(u64, Arc<Mutex<Vec<u64>>>);
        impl Drop for Sleep {
            fn drop(&mut self) {
                self.1.lock().unwrap().retain(|second| *second != self.0);
            }
        }
        let clock = self.clone();
        let (alarms, sleeps) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (log, live) = (Arc::clone(&alarms), Arc::clone(&sleeps));
        let pool = builder.timer(move |until| {
            let second = until.duration_since(clock.start).as_secs();
            live.lock().unwrap().push(second);
            let (log, sleep) = (Arc::clone(&log), Sleep(second, Arc::clone(&live)));
            let clock = clock.clone();
            Box::pin(std::future::poll_fn(move |context| {
                let Sleep(until, _) = &sleep;
                log.lock().unwrap().push(context.waker().clone());
                if u64::from(clock.second()) < *until { Poll::Pending } else { Poll::Ready(()) }
            }))
        });
        let alarms = move || alarms.lock().unwrap().clone();
        (pool.build(), alarms, move || sleeps.lock().unwrap().clone())
    }
}

impl Clock for BareClock {
    fn now(&self) -> Instant {
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.start + SECOND * self.second()
    }
}

/// What is used, reserved, and was ever spent.
fn balance(pool: &BudgetPool) -> (u64, u64, u64) {
    let snapshot = pool.snapshot();
    let (used, reserved) = used_and_reserved(&snapshot);
    assert!(used + reserved <= snapshot.tokens.cap.unwrap());
    (used, reserved, snapshot.tokens.spent)
}

fn settled(receipt: &Receipt) -> u64 {
    receipt.settled().get(Axis::Tokens).unwrap().units()
}

fn credited(receipt: &Receipt) -> u64 {
    receipt.credited().units(Axis::Tokens)
}

fn overage(receipt: &Receipt) -> u64 {
    receipt.overage().get(Axis::Tokens).unwrap().units()
}

/// P2, P3: once its time is over, a hold is gone for whoever looks, reclaimed or not. Its commit is
/// booked all the same, from what is free.
#[test]
fn late_commit_against_record() {
    let (start, recorded, committed, both_booked) = ((0, 0, 0), (6, 0, 6), (8, 0, 8), (10, 0, 14));
    let outcomes = [
        ("record", start),
        ("record", recorded),
        ("record", both_booked),
        ("commit", start),
        ("commit", committed),
    ];
    explore(outcomes, || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
        clock.move_to(1);
        let commit = move |_: &BudgetPool| hold.commit(tokens(8));
        let (receipt, recorded, seen) =
            both_watched(&pool, commit, |pool| pool.record(tokens(6)), balance);

        assert!(receipt.is_late());
        assert_eq!(settled(&receipt), 8);
        let first = if recorded.is_ok() { "record" } else { "commit" };
        assert_eq!(overage(&receipt), if recorded.is_ok() { 4 } else { 0 });
        assert_eq!(balance(&pool), if recorded.is_ok() { (10, 0, 14) } else { (8, 0, 8) });
        (first, seen)
    });
}

/// P2, P3, P8: a hold expires while it is committed: it is in time and has what it held, or it is
/// late and takes what is free. It is late, too, if it read the clock in time, but came to the lock
/// after somebody who was late.
#[test]
fn commit_against_expiry() {
    explore([("in time", 0, "refused"), ("late", 0, "refused"), ("late", 4, "admitted")], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
        let commit = move |_: &BudgetPool| hold.commit(tokens(8));
        let (receipt, recorded) = both(&pool, commit, |pool| {
            clock.move_to(1);
            pool.record(tokens(6))
        });

        assert_eq!(balance(&pool), if recorded.is_ok() { (10, 0, 14) } else { (8, 0, 8) });
        let when = if receipt.is_late() { "late" } else { "in time" };
        (when, overage(&receipt), if recorded.is_ok() { "admitted" } else { "refused" })
    });
}

/// P3, P4: a hold is renewed, and nobody gets what it holds; or it is too late, and somebody does.
#[test]
fn renew_against_expiry() {
    explore([("renewed", "refused"), ("expired", "admitted")], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
        let renew = move |_: &BudgetPool| {
            let renewed = hold.renew(2 * SECOND);
            (renewed, hold)
        };
        let ((renewed, hold), recorded) = both(&pool, renew, |pool| {
            clock.move_to(1);
            pool.record(tokens(6))
        });

        let is_renewed = renewed.is_ok();
        if let Err(refusal) = renewed {
            assert_eq!(refusal, BudgetError::Expired { pool: "run".into() });
        }
        assert_eq!(hold.amount(), if is_renewed { tokens(6) } else { Amount::new() });
        assert_eq!(hold.commit(tokens(4)).is_late(), !is_renewed);
        assert_eq!(balance(&pool), if is_renewed { (4, 0, 4) } else { (10, 0, 10) });
        (
            if is_renewed { "renewed" } else { "expired" },
            if recorded.is_ok() { "admitted" } else { "refused" },
        )
    });
}

/// P2, P3, P4: a hold whose time is short is merged into one that has none, and does not expire any
/// more: what it had metered counts in the total of both. Or it is too late, and each is as it was.
#[test]
fn merge_against_expiry_of_other() {
    explore([("merged", "refused"), ("expired", "admitted")], || {
        let clock = BareClock::new();
        let pool = clock.pool(12).build();
        let first = pool.reserve(tokens(4)).unwrap();
        let other = pool.reserve(Ask::new(tokens(5)).ttl(SECOND)).unwrap();
        other.record(tokens(2)).unwrap();
        let merge = move |_: &BudgetPool| {
            let merged = first.merge(other);
            (merged, first)
        };
        let ((merged, first), recorded) = both(&pool, merge, |pool| {
            clock.move_to(1);
            pool.record(tokens(6))
        });

        let merged = match merged {
            Ok(()) => {
                assert_eq!((first.amount(), first.is_expired()), (tokens(7).in_flight(2), false));
                assert_eq!(settled(&first.commit(tokens(5))), 3);
                "merged"
            }
            Err(refused) => {
                assert_eq!(refused.error(), &BudgetError::Expired { pool: "run".into() });
                let other = refused.into_reservation();
                assert_eq!((first.amount(), other.is_expired()), (tokens(4), true));
                assert_eq!(settled(&first.commit(tokens(3))), 3);
                drop(other);
                "expired"
            }
        };
        let recorded = if recorded.is_ok() { "admitted" } else { "refused" };
        let spent = if recorded == "admitted" { 11 } else { 5 };
        assert_eq!(balance(&pool), (spent, 0, spent));
        (merged, recorded)
    });
}

/// P3, P4: a hold is merged into one whose time is short, and expires with it: all of it then comes
/// free at one instant. Or it is too late: it is still there, beside what has come free.
#[test]
fn merge_against_expiry_of_first() {
    explore([("merged", 0), ("expired", 3)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let first = pool.reserve(Ask::new(tokens(4)).ttl(SECOND)).unwrap();
        let other = pool.reserve(tokens(3)).unwrap();
        let merge = move |_: &BudgetPool| {
            let merged = first.merge(other);
            (merged, first)
        };
        let ((merged, first), ()) = both(&pool, merge, |pool| {
            clock.move_to(1);
            let (_, reserved, _) = balance(pool);
            assert!([0, 3].contains(&reserved), "{reserved} of what has expired");
        });

        let reserved = balance(&pool).1;
        assert!(first.is_expired());
        let merged = match merged {
            Ok(()) => "merged",
            Err(refused) => {
                assert_eq!(refused.error(), &BudgetError::Expired { pool: "run".into() });
                assert_eq!(refused.into_reservation().amount(), tokens(3));
                "expired"
            }
        };
        let late = first.commit_all();
        let all = if merged == "merged" { 7 } else { 4 };
        assert_eq!((late.is_late(), settled(&late), balance(&pool)), (true, all, (all, 0, all)));
        (merged, reserved)
    });
}

/// P3, P4, P8: what a hold keeps from a transfer does so until its time is over.
#[test]
fn transfer_against_expiry() {
    let (expired, moved) = ((8, 2, 0), (4, 6, 0));
    explore([("refused", expired), ("moved", expired), ("moved", moved)], || {
        let clock = BareClock::new();
        let siblings = Siblings::below(clock.pool(10).build(), 8, 2);
        let hold = siblings.a.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
        let (transferred, seen) = both(&siblings.parent, siblings.transfer(4), |parent| {
            clock.move_to(1);
            let [parent, a, b] = tree_of(parent);
            assert_eq!(parent.tokens.reserved, 10);
            (a.tokens.cap.unwrap(), b.tokens.cap.unwrap(), a.tokens.reserved)
        });

        assert!(hold.is_expired());
        let outcome = match transferred {
            Ok(()) => "moved",
            refused => {
                assert_eq!(exceeded(refused), (2, Outlook::AfterRelease));
                "refused"
            }
        };
        (outcome, seen)
    });
}

/// P3, P5: a hold expires while it is dropped: it goes back once, in the child and in its parent at
/// one instant.
#[test]
fn drop_against_expiry() {
    let (held, free, end) = ([(0, 6), (0, 6)], [(0, 0), (0, 0)], [(6, 0), (0, 0)]);
    explore([held, free, end], move || {
        let clock = BareClock::new();
        let parent = clock.pool(10).build();
        let child = parent.child().tokens(8).build();
        let hold = child.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
        let look = |parent: &BudgetPool| {
            let tree = parent.snapshot_tree();
            [used_and_reserved(&tree[0]), used_and_reserved(&tree[1])]
        };
        let record = move |parent: &BudgetPool| {
            clock.move_to(1);
            parent.record(tokens(6))
        };
        let ((), recorded, seen) = both_watched(&parent, move |_| drop(hold), record, look);

        recorded.unwrap();
        assert_eq!(look(&parent), end);
        seen
    });
}

/// P2: what is settled when it is dropped or when it expires falls into the period in which that
/// was, even if nobody came before the next one: once.
#[test]
fn commit_on_drop_against_expiry_and_turn() {
    let (held, dropped, turned, end) = ((0, 6, 0), (6, 0, 6), (0, 0, 6), (6, 0, 12));
    explore([held, dropped, turned, end], move || {
        let clock = BareClock::new();
        let pool = clock.pool(10).window(Window::fixed(2 * SECOND)).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap().commit_on_drop();
        let record = move |pool: &BudgetPool| {
            clock.move_to(3);
            pool.record(tokens(6))
        };
        let ((), recorded, seen) = both_watched(&pool, move |_| drop(hold), record, balance);

        recorded.unwrap();
        assert_eq!(balance(&pool), end);
        seen
    });
}

/// P2: a hold that settles when it expires is committed meanwhile: the commit books all, or what is
/// beyond.
#[test]
fn commit_against_expiry_that_settles() {
    explore([("in time", 8, 8), ("late", 2, 6), ("late", 2, 8)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap().commit_on_drop();
        let commit = move |_: &BudgetPool| hold.commit(tokens(8));
        let (receipt, spent) = both(&pool, commit, |pool| {
            clock.move_to(1);
            balance(pool).2
        });

        assert_eq!(balance(&pool), (8, 0, 8));
        (if receipt.is_late() { "late" } else { "in time" }, settled(&receipt), spent)
    });
}

/// P2: the same with a bill of less: what the expiry settled too much is taken back by the commit.
#[test]
fn downward_commit_against_expiry_that_settles() {
    explore([("in time", 4, 0, 4), ("late", 0, 2, 6), ("late", 0, 2, 4)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap().commit_on_drop();
        let commit = move |_: &BudgetPool| hold.commit(tokens(4));
        let (receipt, spent) = both(&pool, commit, |pool| {
            clock.move_to(1);
            balance(pool).2
        });

        assert_eq!(balance(&pool), (4, 0, 4));
        let when = if receipt.is_late() { "late" } else { "in time" };
        (when, settled(&receipt), credited(&receipt), spent)
    });
}

/// P2, P3: a hold is told to settle when it is dropped, while it expires: in time it settles,
/// dropped or expired; too late it does nothing, and what has gone back stays free.
#[test]
fn commit_on_drop_against_expiry() {
    explore([("in time", 6), ("in time", 0), ("late", 0)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
        let time = clock.clone();
        let settle = move |_: &BudgetPool| {
            let when = if time.second() == 0 { "in time" } else { "late" };
            drop(hold.commit_on_drop());
            when
        };
        let (when, (_, _, seen)) = both(&pool, settle, |pool| {
            clock.move_to(1);
            balance(pool)
        });

        assert_eq!(balance(&pool), (seen, 0, seen));
        (when, seen)
    });
}

/// P1, P2: a period ends while a hold is committed: it settles into the old one or into the new
/// one, once. The new one has room for what comes beside what is held.
#[test]
fn commit_against_turn() {
    explore([6, 10], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).window(Window::fixed(SECOND)).build();
        pool.record(tokens(6)).unwrap();
        let hold = pool.reserve(tokens(4)).unwrap();
        let (_, recorded) = both(
            &pool,
            move |_| hold.commit_all(),
            |pool| {
                clock.move_to(1);
                pool.record(tokens(6))
            },
        );

        recorded.unwrap();
        let (used, reserved, spent) = balance(&pool);
        assert_eq!((reserved, spent), (0, 16));
        used
    });
}

/// P1, P4, P7, P8: what has come back is given to one of two, whoever read the clock first. The
/// other is told the instant at which it would be its turn, by the latest time that was seen, and
/// how long that is from its own reading.
#[test]
fn record_against_record_in_token_bucket_window() {
    let outcomes = [
        ("in time", 2, "second"),
        ("late", 2, "first"),
        ("late", 2, "second"),
        ("late", 4, "second"),
    ];
    explore(outcomes, || {
        let clock = BareClock::new();
        let pool = clock.pool(10).window(Window::token_bucket(10 * SECOND)).build();
        pool.record(tokens(10)).unwrap();
        let first = |pool: &BudgetPool| pool.record(tokens(2));
        let (a, b) = both(&pool, first, |pool| {
            clock.move_to(2);
            pool.record(tokens(2))
        });

        assert_eq!(balance(&pool), (10, 0, 12));
        let winner = winner(("first", a.clone()), ("second", b.clone()));
        let refusal = a.err().or(b.err()).unwrap();
        let Outlook::At(at) = refusal.outlook() else { panic!("time is enough") };
        let when = if at == clock.start + 2 * SECOND { "in time" } else { "late" };
        (when, refusal.retry_after().unwrap().as_secs(), winner)
    });
}

/// P5, P8: a look at the tree knows the time if there is a window below, and sees no period that is
/// over.
#[test]
fn look_against_record_in_window_below() {
    let (turned, before, after) = ((4, 0), (8, 0), (8, 4));
    explore([turned, before, after], move || {
        let clock = BareClock::new();
        let parent = clock.pool(10).build();
        let child = parent.child().tokens(8).window(Window::fixed(SECOND)).build();
        child.record(tokens(4)).unwrap();
        let theirs = child.clone();
        let (recorded, seen) = both(
            &parent,
            move |_| theirs.record(tokens(4)),
            |parent| {
                clock.move_to(1);
                let tree = parent.snapshot_tree();
                (tree[0].tokens.used, tree[1].tokens.used)
            },
        );

        recorded.unwrap();
        assert_eq!(pools(&parent), 2);
        drop(child);
        seen
    });
}

/// Two calls with one key are one spend, and each is told whether it was the one that spent.
#[test]
fn record_once_against_itself() {
    explore([("first", 0), ("first", 4), ("second", 0), ("second", 4)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let record = |pool: &BudgetPool| pool.record_once("job", tokens(4)).unwrap();
        let (a, b, seen) = both_watched(&pool, record, record, |pool| balance(pool).2);

        assert_eq!((balance(&pool), pool.snapshot().admitted), ((4, 0, 4), 1));
        let spent = match (a, b) {
            (Once::Now, Once::Before) => "first",
            (Once::Before, Once::Now) => "second",
            both => panic!("{both:?}"),
        };
        (spent, seen)
    });
}

/// Of two amounts under one key one is spent. The other is told that it is not the same.
#[test]
fn record_once_against_another_amount() {
    explore([("first", 0), ("first", 4), ("second", 0), ("second", 6)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let first = |pool: &BudgetPool| pool.record_once("job", tokens(4));
        let second = |pool: &BudgetPool| pool.record_once("job", tokens(6));
        let (a, b, seen) = both_watched(&pool, first, second, |pool| balance(pool).2);

        let conflict = BudgetError::KeyConflict { pool: "run".into(), key: "job".into() };
        assert_eq!(a.as_ref().err().or(b.as_ref().err()), Some(&conflict));
        let winner = winner(("first", a), ("second", b));
        assert_eq!(balance(&pool).2, if winner == "first" { 4 } else { 6 });
        (winner, seen)
    });
}

/// P2: a spend that is asked for and told of under one key is booked once, by whoever is first.
#[test]
fn debit_once_against_record_once() {
    explore([("debit", 0), ("debit", 4), ("record", 0), ("record", 4)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let debit = |pool: &BudgetPool| pool.debit_once("job", tokens(4)).unwrap();
        let record = |pool: &BudgetPool| pool.record_once("job", tokens(4)).unwrap();
        let (receipt, once, seen) = both_watched(&pool, debit, record, |pool| balance(pool).2);

        assert_eq!(balance(&pool), (4, 0, 4));
        let booked = match once {
            Once::Now => "record",
            Once::Before => "debit",
        };
        let told = if booked == "debit" { tokens(4) } else { Amount::new() };
        assert_eq!(receipt.settled(), told);
        (booked, seen)
    });
}

/// P2: where it does not fit, the one that asks is refused, and not remembered; or it is told that
/// it was booked, with the overage.
#[test]
fn debit_once_against_record_once_that_does_not_fit() {
    let (start, booked) = ((0, 0), (3, 4));
    let outcomes = [("refused", start), ("refused", booked), ("known", start), ("known", booked)];
    explore(outcomes, || {
        let clock = BareClock::new();
        let pool = clock.pool(3).build();
        let debit = |pool: &BudgetPool| pool.debit_once("job", tokens(4)).unwrap();
        let record = |pool: &BudgetPool| pool.record_once("job", tokens(4));
        let (receipt, asked, seen) = both_watched(&pool, debit, record, |pool| {
            let (used, _, spent) = balance(pool);
            (used, spent)
        });

        assert_eq!((settled(&receipt), overage(&receipt)), (4, 1));
        assert_eq!(balance(&pool), (3, 0, 4));
        let outcome = match asked {
            Ok(once) => {
                assert_eq!(once, Once::Before);
                "known"
            }
            refused => {
                assert_eq!(exceeded(refused), (3, Outlook::Never));
                "refused"
            }
        };
        (outcome, seen)
    });
}

/// P2: of two amounts that are told under one key one is booked, and the other is told that it is
/// not the same.
#[test]
fn debit_once_against_another_amount() {
    explore([("first", 0), ("first", 4), ("second", 0), ("second", 6)], || {
        let clock = BareClock::new();
        let pool = clock.pool(3).build();
        let first = |pool: &BudgetPool| pool.debit_once("job", tokens(4));
        let second = |pool: &BudgetPool| pool.debit_once("job", tokens(6));
        let (a, b, seen) = both_watched(&pool, first, second, |pool| balance(pool).2);

        let conflict = BudgetError::KeyConflict { pool: "run".into(), key: "job".into() };
        assert_eq!(a.as_ref().err().or(b.as_ref().err()), Some(&conflict));
        let winner = winner(("first", a), ("second", b));
        assert_eq!(balance(&pool).2, if winner == "first" { 4 } else { 6 });
        (winner, seen)
    });
}

/// P8: a key is forgotten while it comes again, twice: one spends anew, and the other is known
/// again. One that read the clock before the key was forgotten, and comes after that, does not
/// bring the old one back.
#[test]
fn record_once_against_forgetting() {
    explore(["first", "second"], || {
        let clock = BareClock::new();
        let pool = clock.pool(20).idempotency_keys(1, SECOND).build();
        pool.record_once("job", tokens(4)).unwrap();
        let record = |pool: &BudgetPool| {
            pool.record_once("job", tokens(4)).unwrap();
            pool.snapshot().tokens.spent
        };
        let (first, second) = both(&pool, record, |pool| {
            clock.move_to(1);
            record(pool)
        });

        assert_eq!((balance(&pool).2, second), (8, 8));
        if first == 8 { "first" } else { "second" }
    });
}

/// P3, P8: the hint that there is a hold that may expire may be missed, but not the hold: whoever
/// knows that its time is over finds it gone.
#[test]
fn look_against_first_hold_with_a_time() {
    explore([("in time", 0), ("in time", 6), ("late", 0)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let time = clock.clone();
        let look = move |pool: &BudgetPool| {
            let when = if time.second() == 0 { "in time" } else { "late" };
            (when, balance(pool).1)
        };
        let (seen, hold) = both(&pool, look, |pool| {
            let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap();
            clock.move_to(1);
            hold
        });

        assert_eq!(hold.amount(), Amount::new());
        seen
    });
}

/// P4, P8: nor is it in the way of one that asks.
#[test]
fn record_against_first_hold_with_a_time() {
    explore([("in time", "admitted"), ("in time", "refused"), ("late", "admitted")], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let time = clock.clone();
        let record = move |pool: &BudgetPool| {
            let when = if time.second() == 0 { "in time" } else { "late" };
            (when, if pool.record(tokens(6)).is_ok() { "admitted" } else { "refused" })
        };
        let (seen, hold) = both(&pool, record, |pool| {
            let hold = pool.reserve(Ask::new(tokens(6)).ttl(SECOND));
            clock.move_to(1);
            hold
        });

        drop(hold);
        assert_eq!(balance(&pool).1, 0);
        seen
    });
}

/// P8: once the last hold that may expire has gone, ended by its owner or reclaimed by another, no
/// call reads the clock.
#[test]
fn last_hold_with_a_time_against_expiry() {
    let (none, held, committed) = ((0, 0, 0), (0, 6, 0), (6, 0, 6));
    let outcomes = [
        ("in time", none),
        ("in time", held),
        ("in time", committed),
        ("late", none),
        ("late", committed),
    ];
    explore(outcomes, || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let spend = |pool: &BudgetPool| {
            pool.reserve(Ask::new(tokens(6)).ttl(SECOND)).unwrap().commit_all().is_late()
        };
        let (late, seen) = both(&pool, spend, |pool| {
            clock.move_to(1);
            balance(pool)
        });

        let reads = clock.reads();
        pool.record(tokens(1)).unwrap();
        pool.reserve(tokens(1)).unwrap().commit_all();
        assert_eq!(balance(&pool), (8, 0, 8));
        assert_eq!(clock.reads(), reads, "nothing may expire any more");
        (if late { "late" } else { "in time" }, seen)
    });
}

/// P3, P6: a hold expires while somebody asks for what it holds: it is granted at once, or left
/// pending and then woken.
#[test]
fn first_poll_against_expiry() {
    explore(FIRST_POLL, || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(Ask::new(tokens(10)).ttl(SECOND)).unwrap();
        let expire = move |pool: &BudgetPool| {
            clock.move_to(1);
            balance(pool);
        };
        let (seen, (), granted) = against_first_poll(&pool, 6, expire);

        assert_eq!(granted.unwrap().amount(), tokens(6));
        assert!(hold.commit(tokens(0)).is_late());
        assert_eq!(balance(&pool), (0, 0, 0));
        seen
    });
}

/// P6: the same at the turn of a window.
#[test]
fn first_poll_against_turn() {
    explore(FIRST_POLL, || {
        let clock = BareClock::new();
        let pool = clock.pool(10).window(Window::fixed(SECOND)).build();
        pool.record(tokens(10)).unwrap();
        let turn = move |pool: &BudgetPool| {
            clock.move_to(1);
            balance(pool);
        };
        let (seen, (), granted) = against_first_poll(&pool, 6, turn);

        assert_eq!(granted.unwrap().amount(), tokens(6));
        assert_eq!(balance(&pool), (0, 0, 10));
        seen
    });
}

/// P6: a thread that waits for a hold to expire and for a period to end is woken by those who come
/// after that, whether it asks before or after.
#[test]
fn blocking_against_turn_and_expiry() {
    explore(["not asked", "queued"], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).window(Window::fixed(2 * SECOND)).build();
        pool.record(tokens(2)).unwrap();
        let hold = pool.reserve(Ask::new(tokens(8)).ttl(SECOND)).unwrap();
        let wait = |pool: &BudgetPool| pool.reserve_blocking(tokens(10)).unwrap().amount();
        let (granted, before) = both(&pool, wait, |pool| {
            let before = if waiting(pool) == 0 { "not asked" } else { "queued" };
            clock.move_to(1);
            assert_eq!(balance(pool), (2, 0, 2));
            clock.move_to(2);
            assert_eq!(balance(pool).0, 0);
            before
        });

        assert_eq!(granted, tokens(10));
        drop(hold);
        assert_eq!(balance(&pool), (0, 0, 2));
        before
    });
}

/// P6: a hold is told to end earlier while somebody asks for what it holds: the wait sleeps towards
/// that end, or is woken to do so. That one before it was told of an end as early does not help it.
#[test]
fn first_poll_against_renew() {
    explore([(vec![3, 3], 1), (vec![3, 1], 0)], || {
        let clock = BareClock::new();
        let (pool, alarms) = clock.pool_with_timer(clock.pool(10));
        let hold = pool.reserve(Ask::new(tokens(10)).ttl(3 * SECOND)).unwrap();
        let before = Waiter::queued(&pool, 6);
        hold.renew(SECOND).unwrap();
        hold.renew(3 * SECOND).unwrap();
        drop(before);
        let mut waiter = Waiter::new(&pool, 6);
        let renew = move |_: &BudgetPool| {
            hold.renew(SECOND).unwrap();
            hold
        };
        let (_hold, first) = both(&pool, renew, |_| waiter.poll());

        assert!(first.is_pending());
        let outcome = (alarms(), waiter.task.wakes());
        assert!(waiter.poll().is_pending());
        assert_eq!(alarms().last(), Some(&1));
        clock.move_to(1);
        let Poll::Ready(Ok(granted)) = waiter.poll() else { panic!("it has expired") };
        assert_eq!(granted.amount(), tokens(6));
        outcome
    });
}

/// P6: two holds are told to end earlier while another task polls a wait: that task sleeps towards
/// the earlier end, or is woken, even if the task before it was woken for the later one.
#[test]
fn poll_against_two_renews() {
    explore([(3, 1), (2, 1), (1, 0)], || {
        let clock = BareClock::new();
        let (pool, alarms) = clock.pool_with_timer(clock.pool(10));
        let [a, b] =
            [5, 5].map(|held| pool.reserve(Ask::new(tokens(held)).ttl(3 * SECOND)).unwrap());
        let Waiter { mut wait, task: old } = Waiter::queued(&pool, 6);
        assert_eq!(alarms(), [3]);
        let new = Task::new();
        let renew_a = move |_: &BudgetPool| {
            a.renew(2 * SECOND).unwrap();
            a
        };
        let renew_b = move |_: &BudgetPool| {
            b.renew(SECOND).unwrap();
            b
        };
        let (_a, _b, second) =
            both_watched(&pool, renew_a, renew_b, |_| poll(&mut wait, Arc::clone(&new)));

        assert!(second.is_pending());
        let outcome = (*alarms().last().unwrap(), new.wakes());
        assert!(outcome == (3, 1) || old.wakes() == 1, "it was told of the first");
        assert!(poll(&mut wait, new).is_pending());
        assert_eq!(alarms().last(), Some(&1));
        outcome
    });
}

/// P6: a release leaves to time alone what a wait asks for: the wait sleeps until then, or is woken
/// to do so.
#[test]
fn first_poll_against_release_in_token_bucket_window() {
    explore([(vec![], 1), (vec![4], 0)], || {
        let clock = BareClock::new();
        let (pool, alarms) =
            clock.pool_with_timer(clock.pool(10).window(Window::token_bucket(10 * SECOND)));
        pool.record(tokens(6)).unwrap();
        let hold = pool.reserve(tokens(4)).unwrap();
        let mut waiter = Waiter::new(&pool, 8);
        let ((), first) = both(&pool, move |_| hold.release(), |_| waiter.poll());

        assert!(first.is_pending());
        let outcome = (alarms(), waiter.task.wakes());
        assert!(waiter.poll().is_pending());
        assert_eq!(alarms(), [4]);
        clock.move_to(4);
        let Poll::Ready(Ok(granted)) = waiter.poll() else { panic!("enough has come back") };
        assert_eq!(granted.amount(), tokens(8));
        outcome
    });
}

/// P3: the keys go with the pool that knew them, and that with its last handle; what was spent
/// under them stays above. A pool in its place knows none.
#[test]
fn record_once_against_last_handle() {
    explore([(1, 2), (2, 1), (1, 1)], || {
        let clock = BareClock::new();
        let parent = clock.pool(10).build();
        let child = parent.child().build();
        let theirs = child.clone();
        let record = move |parent: &BudgetPool| {
            theirs.record_once("job", tokens(4)).unwrap();
            drop(theirs);
            pools(parent)
        };
        let outcome = both(&parent, record, move |parent| {
            may_be_overtaken(parent);
            drop(child);
            pools(parent)
        });

        assert_eq!((pools(&parent), balance(&parent)), (1, (4, 0, 4)));
        let next = parent.child().build();
        next.record_once("job", tokens(5)).unwrap();
        assert_eq!(balance(&parent), (9, 0, 9));
        outcome
    });
}

/// P6: a pause that begins while a wait asks holds it up, or comes too late for that: in either case
/// it is granted once, and at the end of the pause at the latest.
#[test]
fn first_poll_against_pause() {
    explore(["granted", "paused"], || {
        let clock = BareClock::new();
        let (pool, alarms) = clock.pool_with_timer(clock.pool(10));
        let mut waiter = Waiter::new(&pool, 6);
        let pause = |pool: &BudgetPool| {
            let before = waiting(pool);
            pool.pause(2 * SECOND);
            before
        };
        let (before, first) = both(&pool, pause, |_| waiter.poll());

        assert_eq!(before, 0, "nobody waits while there is room");
        let outcome = match first {
            Poll::Ready(granted) => {
                assert_eq!(granted.unwrap().amount(), tokens(6));
                "granted"
            }
            Poll::Pending => {
                assert_eq!((alarms(), waiting(&pool)), (vec![2], 1));
                assert!(waiter.poll().is_pending());
                clock.move_to(2);
                let Poll::Ready(Ok(granted)) = waiter.poll() else { panic!("it is over") };
                assert_eq!(granted.amount(), tokens(6));
                "paused"
            }
        };
        outcome
    });
}

/// P6: a pause begins while a wait asks for what is held: it sleeps towards the end of the pause, or
/// is woken to do so. A release meanwhile grants nothing.
#[test]
fn first_poll_in_line_against_pause() {
    explore([(vec![2], 0), (vec![], 1)], || {
        let clock = BareClock::new();
        let (pool, alarms) = clock.pool_with_timer(clock.pool(10));
        let hold = pool.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::new(&pool, 6);
        let pause = |pool: &BudgetPool| pool.pause(2 * SECOND);
        let ((), first) = both(&pool, pause, |_| waiter.poll());

        assert!(first.is_pending());
        let outcome = (alarms(), waiter.task.wakes());
        assert!(waiter.poll().is_pending());
        assert_eq!(alarms().last(), Some(&2));
        drop(hold);
        assert!(waiter.poll().is_pending(), "it is paused");
        clock.move_to(2);
        let Poll::Ready(Ok(granted)) = waiter.poll() else { panic!("it is over") };
        assert_eq!(granted.amount(), tokens(6));
        outcome
    });
}

/// P6, P8: a pause is ended by hand while the timer of one that sleeps through it comes to its end:
/// it is granted once, by the one or by the other.
#[test]
fn poll_of_timer_against_resume() {
    explore(["in line", "served"], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        pool.pause(2 * SECOND);
        let mut waiter = Waiter::queued(&pool, 6);
        let resume = |pool: &BudgetPool| {
            let before = if waiting(pool) == 1 { "in line" } else { "served" };
            pool.resume();
            before
        };
        let (before, polled) = both(&pool, resume, |_| {
            clock.move_to(2);
            waiter.poll()
        });

        let Poll::Ready(Ok(granted)) = polled else { panic!("the pause is over") };
        assert_eq!((granted.amount(), waiter.task.wakes()), (tokens(6), 1));
        assert_eq!((balance(&pool), waiting(&pool)), ((0, 6, 0), 0));
        before
    });
}

/// P3, P6: an alarm rings while the owner of the wait goes away: the one behind it is served, by the
/// alarm or because it was woken to look.
#[test]
fn alarm_against_cancel() {
    explore(["rang", "went"], || {
        let clock = BareClock::new();
        let (pool, alarms) = BareClock::pool_with_alarms(clock.pool(10));
        pool.pause(SECOND);
        let first = Waiter::queued(&pool, 6);
        let mut behind = Waiter::queued(&pool, 6);
        let (alarm, owner) = (alarms().remove(0), Arc::clone(&first.task));
        clock.move_to(1);
        both(&pool, move |_| drop(first), |_| alarm.wake());

        assert_eq!(behind.task.wakes(), 1);
        let granted = behind.outcome().unwrap();
        assert_eq!((granted.amount(), waiting(&pool)), (tokens(6), 0));
        assert_eq!(balance(&pool), (0, 6, 0));
        if owner.wakes() == 1 { "rang" } else { "went" }
    });
}

/// P6: an alarm rings while the owner of the wait looks: the owner is granted once, and so is the one
/// behind it.
#[test]
fn alarm_against_poll() {
    explore([1], || {
        let clock = BareClock::new();
        let (pool, alarms) = BareClock::pool_with_alarms(clock.pool(10));
        pool.pause(SECOND);
        let mut first = Waiter::queued(&pool, 6);
        let mut behind = Waiter::queued(&pool, 4);
        let alarm = alarms().remove(0);
        clock.move_to(1);
        let ((), polled) = both(&pool, move |_| alarm.wake(), |_| first.poll());

        assert!(matches!(polled, Poll::Ready(Ok(_))));
        assert_eq!(behind.task.wakes(), 1);
        let granted = behind.outcome().unwrap();
        assert_eq!((granted.amount(), waiting(&pool)), (tokens(4), 0));
        assert_eq!(balance(&pool), (0, 10, 0));
        first.task.wakes()
    });
}

/// P6: the alarm of one whose time is over rings while its owner looks: it leaves the line once, is
/// told once, and the one behind it is served.
#[test]
fn alarm_of_end_against_poll() {
    explore([1], || {
        let clock = BareClock::new();
        let (pool, alarms) = BareClock::pool_with_alarms(clock.pool(10));
        let _held = pool.reserve(tokens(5)).unwrap();
        let ask = Ask::new(tokens(8)).wait_at_most(SECOND);
        let mut first = Waiter { wait: pool.reserve_wait(ask), task: Task::new() };
        assert!(first.poll().is_pending());
        let mut behind = Waiter::queued(&pool, 3);
        let alarm = alarms().remove(0);
        clock.move_to(1);
        let ((), polled) = both(&pool, move |_| alarm.wake(), |_| first.poll());

        assert!(matches!(polled, Poll::Ready(Err(BudgetError::Timeout { .. }))));
        assert_eq!(behind.task.wakes(), 1);
        let granted = behind.outcome().unwrap();
        assert_eq!((granted.amount(), waiting(&pool)), (tokens(3), 0));
        assert_eq!(balance(&pool), (0, 8, 0));
        first.task.wakes()
    });
}

/// P6: an alarm sleeps on towards what comes next while its owner looks for something earlier: one
/// sleep is left, and it is towards the earlier.
#[test]
fn alarm_that_sleeps_on_against_an_earlier_one() {
    alarm_against_an_earlier_one(&Ask::new(tokens(9)).ttl(3 * SECOND));
}

/// P6: the same where nothing more is to come.
#[test]
fn alarm_that_is_the_last_against_one_more() {
    alarm_against_an_earlier_one(&Ask::new(tokens(9)));
}

fn alarm_against_an_earlier_one(held: &Ask) {
    let held = held.clone();
    explore([2], move || {
        let clock = BareClock::new();
        let (pool, alarms, live) = clock.pool_with_sleeps(clock.pool(10));
        let _held = pool.reserve(held.clone()).unwrap();
        let settled = pool.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap();
        let mut first = Waiter::queued(&pool, 10);
        settled.release();
        let alarm = alarms().remove(0);
        clock.move_to(1);
        let look = |pool: &BudgetPool| {
            pool.pause(SECOND);
            assert!(first.poll().is_pending());
        };
        both(&pool, move |_| alarm.wake(), look);

        let left = live();
        drop(first);
        assert_eq!(live(), []);
        let [left] = left[..] else { panic!("{left:?}") };
        left
    });
}

/// P6: an alarm rings while its owner polls the sleep, for the last time in a while: it sleeps on.
#[test]
fn alarm_that_rings_while_its_sleep_is_polled() {
    explore([3], || {
        let clock = BareClock::new();
        let (pool, alarms, live) = clock.pool_with_sleeps(clock.pool(10));
        let _held = pool.reserve(Ask::new(tokens(9)).ttl(3 * SECOND)).unwrap();
        let settled = pool.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap();
        let mut first = Waiter::queued(&pool, 10);
        let alarm = alarms().remove(0);
        let ring = move |_: &BudgetPool| {
            settled.release();
            clock.move_to(1);
            alarm.wake();
        };
        both(&pool, ring, |_| assert!(first.poll().is_pending()));

        let [left] = live()[..] else { panic!("{:?}", live()) };
        left
    });
}

/// P3: an alarm sleeps on while its owner goes away: no sleep is left.
#[test]
fn alarm_that_sleeps_on_against_cancel() {
    explore([1, 2], || {
        let clock = BareClock::new();
        let (pool, alarms, live) = clock.pool_with_sleeps(clock.pool(10));
        let _held = pool.reserve(Ask::new(tokens(9)).ttl(3 * SECOND)).unwrap();
        let settled = pool.reserve(Ask::new(tokens(1)).ttl(SECOND)).unwrap();
        let first = Waiter::queued(&pool, 10);
        settled.release();
        let alarm = alarms().remove(0);
        clock.move_to(1);
        both(&pool, move |_| drop(first), |_| alarm.wake());

        assert_eq!((live().len(), waiting(&pool)), (0, 0));
        alarms().len()
    });
}

/// P6: a record that comes while a release serves one that waits: it is told that others wait, or
/// has what the waiter leaves. It never has what the waiter was granted.
#[test]
fn record_against_grant() {
    explore([("queued", 6), ("admitted", 9)], || {
        let pool = pool(10);
        let hold = pool.reserve(tokens(10)).unwrap();
        let mut waiter = Waiter::queued(&pool, 6);
        let record = |pool: &BudgetPool| pool.record(tokens(3));
        let (recorded, ()) = both(&pool, record, |_| drop(hold));

        let granted = waiter.outcome().unwrap();
        assert_eq!(granted.amount(), tokens(6));
        let outcome = match recorded {
            Ok(()) => "admitted",
            Err(BudgetError::Queued { .. }) => "queued",
            Err(other) => panic!("{other}"),
        };
        let (used, reserved) = used_and_reserved(&pool.snapshot());
        (outcome, used + reserved)
    });
}

/// P3, P6: the time of a wait is over while a release serves it: it is granted, or gives up. What is
/// free then goes to the one behind it in either case.
#[test]
fn end_of_wait_against_grant() {
    explore([("granted", 1), ("in vain", 1)], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(tokens(10)).unwrap();
        let ask = Ask::new(tokens(8)).at_least(tokens(6)).wait_at_most(SECOND);
        let mut waiter = Waiter { wait: pool.reserve_wait(ask), task: Task::new() };
        assert!(waiter.poll().is_pending());
        let mut next = Waiter::queued(&pool, 2);
        let ((), polled) = both(
            &pool,
            move |_| drop(hold),
            |_| {
                clock.move_to(1);
                waiter.poll()
            },
        );

        let Poll::Ready(outcome) = polled else { panic!("its time is over") };
        let outcome = match outcome {
            Ok(granted) => {
                assert_eq!(granted.amount(), tokens(8));
                assert_eq!(next.outcome().unwrap().amount(), tokens(2));
                "granted"
            }
            Err(BudgetError::Timeout { .. }) => {
                assert_eq!(next.outcome().unwrap().amount(), tokens(2));
                "in vain"
            }
            Err(other) => panic!("{other}"),
        };
        assert_eq!((used_and_reserved(&pool.snapshot()), waiting(&pool)), ((0, 0), 0));
        (outcome, waiter.task.wakes())
    });
}

/// P6: the same for a thread, which parks: it ends, and holds nothing but what it was granted.
#[test]
fn blocking_end_of_wait_against_grant() {
    explore(["granted", "in vain"], || {
        let clock = BareClock::new();
        let pool = clock.pool(10).build();
        let hold = pool.reserve(tokens(10)).unwrap();
        let wait = |pool: &BudgetPool| {
            let ask = Ask::new(tokens(6)).wait_at_most(Duration::ZERO);
            pool.reserve_blocking(ask).map(|granted| granted.amount())
        };
        let (outcome, ()) = both(&pool, wait, move |_| drop(hold));

        assert_eq!((used_and_reserved(&pool.snapshot()), waiting(&pool)), ((0, 0), 0));
        match outcome {
            Ok(amount) => {
                assert_eq!(amount, tokens(6));
                "granted"
            }
            Err(BudgetError::Timeout { .. }) => "in vain",
            Err(other) => panic!("{other}"),
        }
    });
}
