//! `Keyed`: pools by key, what keeps them from an eviction, and that no tenant gets its cap twice.

use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, OnceLock};
use std::task::{Context, Wake, Waker as StdWaker};
use std::thread;
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Axis, BudgetError, BudgetPool, Caps, Child, Clock, Keyed, Level, ManualClock,
    PoolBuilder, WeakPool, Window,
};

#[path = "../support/invariants.rs"]
mod invariants;
mod no_lock_is_held;
mod pools_by_key;
#[path = "../support/waiter.rs"]
mod waiter;
#[path = "../support/watchdog.rs"]
mod watchdog;

use invariants::check_invariants;
use waiter::{Waiter, by_hand};
use watchdog::ends;

const NANO: Duration = Duration::from_nanos(1);
const MINUTE: Duration = Duration::from_secs(60);

fn tokens(n: u64) -> Amount {
    Amount::new().tokens(n)
}

fn ten(pool: PoolBuilder<Child>) -> PoolBuilder<Child> {
    pool.tokens(10)
}

/// A service and its tenants, by a clock that is moved by hand.
struct Service {
    clock: ManualClock,
    root: BudgetPool,
    tenants: Keyed<String>,
}

impl Service {
    fn new() -> Service {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
        let tenants = Keyed::new(root.clone());
        Service { clock, root, tenants }
    }

    fn acme(&self) -> BudgetPool {
        self.tenants.get_or_build("acme", ten)
    }

    /// One that has an open window.
    fn windowed(&self, window: Window) -> BudgetPool {
        self.tenants.get_or_build("acme", |pool| pool.tokens(10).window(window))
    }

    #[track_caller]
    fn is_kept(&self) {
        assert_eq!((self.tenants.evict_idle(), self.tenants.len()), (0, 1));
        check_invariants(&self.root);
    }

    #[track_caller]
    fn is_evicted(&self) {
        assert_eq!((self.tenants.evict_idle(), self.tenants.len()), (1, 0));
        assert!(self.tenants.get("acme").is_none());
        assert_eq!(self.root.snapshot_tree().len(), 1, "its place in the tree is free");
        check_invariants(&self.root);
    }

    /// By time alone, at this instant and not before.
    #[track_caller]
    fn is_evicted_after(&self, time: Duration) {
        self.is_kept();
        self.clock.advance(time - NANO);
        self.is_kept();
        self.clock.advance(NANO);
        self.is_evicted();
    }
}

mod what_keeps_a_pool {
    use super::*;

    #[test]
    fn nothing() {
        let service = Service::new();
        service.acme();
        service.is_evicted();
        assert_eq!(service.tenants.evict_idle(), 0);
    }

    #[test]
    fn what_is_used_until_it_is_given_back_or_the_period_ends() {
        let service = Service::new();
        service.acme().record(tokens(1)).unwrap();
        service.clock.advance(MINUTE);
        service.is_kept();
        service.acme().credit(tokens(1));
        service.is_evicted();
        service.acme().record(tokens(1)).unwrap();
        service.acme().reset();
        service.is_evicted();
    }

    #[test]
    fn what_is_used_of_an_axis_without_a_cap() {
        let service = Service::new();
        service.acme().record(Amount::new().requests(1)).unwrap();
        service.is_kept();
    }

    #[test]
    fn overage() {
        let service = Service::new();
        let pool = service.tenants.get_or_build("acme", |pool| pool.tokens(0));
        pool.debit(tokens(1));
        assert_eq!((pool.snapshot().tokens.used, pool.snapshot().tokens.overage), (0, 1));
        drop(pool);
        service.is_kept();
    }

    #[test]
    fn another_handle() {
        let service = Service::new();
        let handle = service.acme();
        let other = handle.clone();
        service.is_kept();
        drop(handle);
        service.is_kept();
        drop(other);
        service.is_evicted();
    }

    #[test]
    fn a_reservation() {
        let service = Service::new();
        let hold = service.acme().reserve(tokens(1)).unwrap();
        service.is_kept();
        hold.release();
        service.is_evicted();

        let hold = service.acme().reserve(tokens(0).in_flight(0)).unwrap();
        service.is_kept();
        hold.commit(tokens(0));
        service.is_evicted();

        service.acme().reserve(tokens(1)).unwrap().commit(tokens(1));
        service.is_kept();
    }

    #[test]
    fn a_reservation_that_is_forgotten() {
        let service = Service::new();
        std::mem::forget(service.acme().reserve(tokens(1)).unwrap());
        service.is_kept();
    }

    #[test]
    fn a_lease() {
        let service = Service::new();
        let lease = service.acme().lease(tokens(5));
        service.is_kept();
        drop(lease);
        service.is_evicted();

        let mut lease = service.acme().lease(tokens(5));
        lease.record(tokens(1)).unwrap();
        service.is_kept();
        drop(lease);
        service.is_kept();
    }

    #[test]
    fn a_waiter() {
        let service = Service::new();
        service.root.set_caps(Caps::new().in_flight(1)).unwrap();
        let slot = service.root.reserve(Amount::new()).unwrap();
        let wait = Waiter::queued(&service.acme(), tokens(1));
        service.is_kept();
        drop(wait);
        service.is_evicted();
        let mut wait = Waiter::queued(&service.acme(), tokens(1));
        slot.release();
        // Granted, and not collected.
        service.is_kept();
        wait.granted().release();
        drop(wait);
        service.is_evicted();

        let unpolled = service.acme().reserve_wait(tokens(1));
        service.is_kept();
        drop(unpolled);
        service.is_evicted();
    }

    #[test]
    fn whoever_would_be_told_of_it() {
        let service = Service::new();
        let closed = service.acme().closed();
        service.is_kept();
        drop(closed);
        service.is_evicted();
        let reached = service.acme().reached(Level::percent(Axis::Tokens, 80));
        service.is_kept();
        drop(reached);
        let wants = service.acme().wants();
        service.is_kept();
        drop(wants);
        service.is_evicted();
        let run = service.acme().run(pending::<()>());
        service.is_kept();
        drop(run);
        service.is_evicted();
    }

    #[test]
    fn a_pool_below_it() {
        let service = Service::new();
        let builder = service.acme().child();
        service.is_kept();
        let child = builder.build();
        service.is_kept();
        let grandchild = child.child().build();
        drop(child);
        service.is_kept();
        drop(grandchild);
        service.is_evicted();

        let carved = service.acme().child().tokens(4).carved().build().unwrap();
        service.is_kept();
        drop(carved);
        service.is_evicted();

        service.acme().child().build().record(tokens(1)).unwrap();
        service.is_kept();
    }

    #[test]
    fn a_joint_pool_of_which_it_is_any_parent() {
        let service = Service::new();
        let model = service.root.child().build();
        for is_first in [true, false] {
            let acme = service.acme();
            let parents = if is_first { [&acme, &model] } else { [&model, &acme] };
            let joint = BudgetPool::joint(parents).unwrap().build();
            drop(acme);
            service.is_kept();
            drop(joint);
            assert_eq!((service.tenants.evict_idle(), service.tenants.len()), (1, 0));
        }
        let acme = service.acme();
        let joint = BudgetPool::joint([&model, &acme]).unwrap().build();
        joint.record(tokens(1)).unwrap();
        drop((acme, joint));
        service.is_kept();
    }

    #[test]
    fn not_a_weak_handle_unless_it_is_upgraded() {
        let service = Service::new();
        let weak = service.acme().downgrade();
        let strong = weak.upgrade();
        service.is_kept();
        assert!(weak.upgrade().unwrap().ptr_eq(&strong.unwrap()), "it stays the same pool");
        assert!(weak.upgrade().is_some());
        service.is_evicted();
        assert!(weak.upgrade().is_none());
        assert!(service.acme().downgrade().upgrade().is_some());
    }

    #[test]
    fn a_weak_handle_still_finds_what_was_not_evicted() {
        let service = Service::new();
        let weak = service.acme().downgrade();
        service.acme().record(tokens(1)).unwrap();
        service.is_kept();
        assert!(weak.upgrade().unwrap().ptr_eq(&service.acme()));
    }

    #[test]
    fn a_key_that_is_alive() {
        let service = Service::new();
        let keyed = || {
            let build = |pool: PoolBuilder<Child>| pool.tokens(10).idempotency_keys(9, MINUTE);
            service.tenants.get_or_build("acme", build)
        };
        keyed().record_once("job-1", tokens(0)).unwrap();
        service.clock.advance(MINUTE / 2);
        keyed().debit_once("job-2", tokens(0)).unwrap();
        service.is_evicted_after(MINUTE);
        // What was refused is not remembered.
        assert!(keyed().record_once("job-1", tokens(11)).is_err());
        service.is_evicted();
    }

    #[test]
    fn a_key_that_is_remembered_for_ever() {
        let service = Service::new();
        let build = |pool: PoolBuilder<Child>| pool.idempotency_keys(9, Duration::MAX);
        service.tenants.get_or_build("acme", build).record_once("job-1", tokens(0)).unwrap();
        service.clock.advance(100_000 * MINUTE);
        service.is_kept();
    }

    #[test]
    fn a_close_of_its_own() {
        let service = Service::new();
        service.acme().close();
        service.is_kept();
        assert!(service.acme().is_closed());
        service.root.close();
        service.is_evicted();
        assert!(service.acme().is_closed());
    }

    #[test]
    fn a_pause_of_its_own_until_it_is_over() {
        let service = Service::new();
        service.acme().pause(MINUTE);
        service.is_evicted_after(MINUTE);
        service.acme().pause(MINUTE);
        service.is_kept();
        service.acme().resume();
        service.is_evicted();
        service.acme();
        service.root.pause(MINUTE);
        service.is_evicted();
    }

    #[test]
    fn a_fixed_window_until_it_turns() {
        let service = Service::new();
        service.windowed(Window::fixed(MINUTE)).record(tokens(1)).unwrap();
        service.is_evicted_after(MINUTE);
        let pool = service.windowed(Window::fixed(MINUTE));
        pool.record(Amount::new().requests(1)).unwrap();
        drop(pool);
        service.is_evicted_after(MINUTE);
    }

    #[test]
    fn a_carried_overage_until_it_is_paid() {
        let service = Service::new();
        service.windowed(Window::fixed(MINUTE).carrying_overage()).debit(tokens(25));
        service.is_evicted_after(3 * MINUTE);
    }

    #[test]
    fn a_calendar_until_it_turns() {
        let service = Service::new();
        let turn = service.clock.now() + MINUTE;
        service.windowed(Window::calendar([turn])).record(tokens(1)).unwrap();
        service.is_evicted_after(MINUTE);
        service.windowed(Window::calendar([turn])).record(tokens(1)).unwrap();
        service.clock.advance(100 * MINUTE);
        service.is_kept();
    }

    #[test]
    fn a_bucket_until_it_is_full() {
        let service = Service::new();
        service.windowed(Window::token_bucket(MINUTE)).record(tokens(5)).unwrap();
        service.is_evicted_after(MINUTE / 2);
        service.windowed(Window::token_bucket(MINUTE)).debit(tokens(30));
        service.is_evicted_after(3 * MINUTE);
        let pool = service
            .tenants
            .get_or_build("acme", |pool| pool.tokens(0).window(Window::token_bucket(MINUTE)));
        pool.debit(tokens(1));
        drop(pool);
        service.clock.advance(1_000 * MINUTE);
        service.is_kept();
    }

    #[test]
    fn a_rolling_window_until_all_has_come_back() {
        let service = Service::new();
        service.windowed(Window::rolling(MINUTE)).record(tokens(1)).unwrap();
        service.clock.advance(MINUTE / 2);
        service.acme().record(tokens(1)).unwrap();
        // Slots of a second, of which that of the spend ends first.
        service.is_evicted_after(MINUTE + MINUTE / 60);
    }

    #[test]
    fn not_what_no_window_ever_brings_back() {
        for window in [Window::token_bucket(MINUTE), Window::rolling(MINUTE)] {
            let service = Service::new();
            service.windowed(window.clone()).record(Amount::new().requests(7)).unwrap();
            service.is_evicted();
            service.windowed(window).record(tokens(10).requests(7)).unwrap();
            service.is_kept();
            service.clock.advance(2 * MINUTE);
            service.is_evicted();
        }
    }

    #[test]
    fn not_a_window_of_the_parent() {
        let clock = ManualClock::new();
        let minute = Window::fixed(MINUTE);
        let root = BudgetPool::builder().clock(clock.clone()).window(minute).build();
        let tenants = Keyed::<u64>::new(root);
        tenants.get_or_build(&1, ten).record(tokens(1)).unwrap();
        clock.advance(2 * MINUTE);
        assert_eq!(tenants.evict_idle(), 0, "its own period goes on");
    }

    #[test]
    fn not_caps_that_were_moved() {
        let service = Service::new();
        service.acme().set_caps(Caps::new().tokens(99)).unwrap();
        service.is_evicted();
        assert_eq!(service.acme().snapshot().tokens.cap, Some(10));
    }
}

mod p1_no_tenant_gets_its_cap_twice {
    use super::*;

    /// Workers spend, and give back a little later: a pool is idle again and again, and each time it
    /// is evicted, or found. A spend that went with its pool would be missing when it is given back,
    /// and more than the cap would be out at one time.
    #[test]
    fn while_its_pool_is_evicted_again_and_again() {
        const KEYS: usize = 12;
        const CAP: u64 = 2;
        let root = BudgetPool::unlimited();
        let tenants = Keyed::<usize>::new(root.clone());
        let out: [AtomicU64; KEYS] = Default::default();
        let weak: Mutex<[WeakPool; KEYS]> = Mutex::default();
        let (is_over, evicted) = (AtomicBool::new(false), AtomicUsize::new(0));

        let give_back = |key: usize| {
            out[key].fetch_sub(1, Ordering::SeqCst);
            let pool = tenants.get(&key).expect("what has spent stays");
            assert_eq!(pool.credit(tokens(1)).credited(), tokens(1), "the spend is lost");
        };
        let spend = |key: usize, how: usize| {
            let pool = match how {
                // By way of a handle that keeps no pool.
                0 => weak.lock().unwrap()[key].upgrade(),
                _ => Some(tenants.get_or_build(&key, |pool| pool.tokens(CAP))),
            };
            let Some(pool) = pool else { return false };
            weak.lock().unwrap()[key] = pool.downgrade();
            let is_spent = match how {
                0 | 1 => pool.record(tokens(1)).is_ok(),
                how => pool.reserve(tokens(1)).is_ok_and(|hold| {
                    drop(pool);
                    if how == 2 {
                        hold.commit(tokens(1));
                    } else {
                        hold.release();
                    }
                    how == 2
                }),
            };
            assert!(!is_spent || out[key].fetch_add(1, Ordering::SeqCst) < CAP, "twice its cap");
            is_spent
        };
        let work = &|worker: usize| {
            let mut mine = VecDeque::new();
            let is_enough = |round| round > 20_000 && evicted.load(Ordering::Relaxed) > 300;
            for round in (0..).take_while(|&round| !is_enough(round)) {
                let odds = (round * 3 + worker).wrapping_mul(0x9E37_79B9) >> 8 & 0xFFFF;
                if spend(odds % KEYS, odds / KEYS % 5) {
                    mine.push_back(odds % KEYS);
                }
                if mine.len() > round / 7 % 3 {
                    mine.pop_front().into_iter().for_each(give_back);
                }
            }
            mine.into_iter().for_each(give_back);
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..3).map(|id| scope.spawn(move || work(id))).collect();
            scope.spawn(|| {
                while !is_over.load(Ordering::Acquire) {
                    evicted.fetch_add(tenants.evict_idle(), Ordering::Relaxed);
                }
            });
            let outcomes: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            is_over.store(true, Ordering::Release);
            outcomes.into_iter().for_each(|outcome| outcome.unwrap());
        });

        tenants.evict_idle();
        assert_eq!((tenants.len(), root.snapshot_tree().len()), (0, 1));
        assert_eq!((root.snapshot().tokens.used, root.snapshot().tokens.reserved), (0, 0));
        check_invariants(&root);
    }

    #[test]
    fn nor_is_a_pool_evicted_by_two_threads() {
        const KEYS: usize = 10_000;
        let root = BudgetPool::unlimited();
        let tenants = Keyed::<usize>::new(root.clone());
        for key in 0..KEYS {
            tenants.get_or_build(&key, ten).record(tokens((key % 2) as u64)).unwrap();
        }
        let evict = || tenants.clone().evict_idle();
        let evicted: usize = thread::scope(|scope| {
            let threads: Vec<_> = (0..3).map(|_| scope.spawn(evict)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!((evicted, tenants.len()), (KEYS / 2, KEYS / 2));
        assert_eq!(root.snapshot_tree().len(), KEYS / 2 + 1);
        assert!((0..KEYS).all(|key| tenants.get(&key).is_some() == (key % 2 == 1)));
    }
}

mod p5_one_instant {
    use super::*;

    #[test]
    fn a_snapshot_is_of_every_pool_at_the_present() {
        let service = Service::new();
        service.windowed(Window::fixed(MINUTE)).record(tokens(10)).unwrap();
        service.tenants.get_or_build("initech", |pool| pool.name("initech")).debit(tokens(7));
        let look = || {
            let snapshot = service.tenants.snapshot().into_iter();
            let used = snapshot.map(|(key, snap)| (key, (snap.tokens.used, snap.depth)));
            used.collect::<BTreeMap<_, _>>()
        };
        let expected =
            |acme| BTreeMap::from([("acme".to_owned(), (acme, 0)), ("initech".to_owned(), (7, 0))]);
        assert_eq!(look(), expected(10));
        service.clock.advance(MINUTE);
        assert_eq!(look(), expected(0));
        let each = service.tenants.snapshot();
        assert!(each.iter().all(|(key, snapshot)| {
            *snapshot == service.tenants.get(key.as_str()).unwrap().snapshot()
        }));
    }

    /// A tenant comes and spends before the next one comes: whoever sees a later one sees all of
    /// the earlier ones, and what they have spent.
    #[test]
    fn a_snapshot_never_sees_the_later_without_the_earlier() {
        const KEYS: u64 = 3_000;
        let tenants = Keyed::<u64>::new(BudgetPool::unlimited());
        thread::scope(|scope| {
            let come = scope.spawn(|| {
                for key in 0..KEYS {
                    tenants.get_or_build(&key, ten).record(tokens(1)).unwrap();
                }
            });
            let mut looks = 0;
            while !come.is_finished() || looks == 0 {
                let seen: BTreeMap<_, _> = tenants.snapshot().into_iter().collect();
                looks += 1;
                for (place, (key, snapshot)) in seen.iter().enumerate() {
                    assert_eq!(*key, place as u64, "an earlier one is missing");
                    let is_last = place + 1 == seen.len();
                    assert!(snapshot.tokens.used == 1 || is_last, "it came before it had spent");
                }
            }
        });
        assert_eq!(tenants.snapshot().len() as u64, KEYS);
    }
}

mod p8_time_only_when_asked {
    use super::*;

    fn counted() -> (Arc<AtomicUsize>, BudgetPool) {
        let reads = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&reads);
        let clock = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            Instant::now()
        };
        (reads, BudgetPool::builder().clock(clock).build())
    }

    #[test]
    fn an_eviction_reads_no_clock_where_time_decides_nothing() {
        let (reads, root) = counted();
        let tenants = Keyed::<u64>::new(root.clone());
        tenants.get_or_build(&1, ten).record(tokens(1)).unwrap();
        tenants.get_or_build(&2, ten).close();
        tenants.get_or_build(&3, ten);
        assert_eq!((tenants.evict_idle(), tenants.snapshot().len()), (1, 2));
        assert_eq!(reads.load(Ordering::Relaxed), 0);
        // A window that owes nothing does not matter, either.
        tenants.get_or_build(&4, |pool| pool.window(Window::fixed(MINUTE)));
        reads.store(0, Ordering::Relaxed);
        assert_eq!((tenants.evict_idle(), reads.load(Ordering::Relaxed)), (1, 0));
    }

    #[test]
    fn an_eviction_reads_the_clock_once() {
        let (reads, root) = counted();
        let tenants = Keyed::<u64>::new(root);
        for key in 0..1_000 {
            let pool = tenants.get_or_build(&key, |pool| pool.window(Window::fixed(MINUTE)));
            pool.record(tokens(key % 2)).unwrap();
        }
        reads.store(0, Ordering::Relaxed);
        assert_eq!((tenants.evict_idle(), reads.load(Ordering::Relaxed)), (500, 1));
    }

    #[test]
    fn a_clock_that_panics_harms_nobody() {
        let (broken, real) = (Arc::new(AtomicBool::new(false)), Instant::now());
        let is_broken = Arc::clone(&broken);
        let clock = move || {
            assert!(!is_broken.load(Ordering::Relaxed), "a broken clock");
            real
        };
        let root = BudgetPool::builder().clock(clock).build();
        let tenants = Keyed::<u64>::new(root.clone());
        let build = |pool: PoolBuilder<Child>| pool.tokens(10).window(Window::fixed(MINUTE));
        for key in 0..100 {
            tenants.get_or_build(&key, build).record(tokens(1)).unwrap();
        }
        broken.store(true, Ordering::Relaxed);
        assert!(catch_unwind(|| tenants.evict_idle()).is_err());
        assert_eq!((tenants.len(), tenants.snapshot().len()), (100, 100));
        broken.store(false, Ordering::Relaxed);
        assert_eq!(tenants.evict_idle(), 0);
        tenants.get(&1).unwrap().record(tokens(9)).unwrap();
        check_invariants(&root);
    }
}
