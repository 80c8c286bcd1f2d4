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

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/waiter.rs"]
mod waiter;
#[path = "support/watchdog.rs"]
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

mod pools_by_key {
    use super::*;

    #[test]
    fn the_same_key_is_the_same_pool_and_another_key_is_another() {
        let Service { tenants, root, .. } = Service::new();
        assert!(tenants.is_empty() && tenants.get("acme").is_none());
        let acme = tenants.get_or_build("acme", |pool| pool.name("acme").tokens(10));
        let again = tenants.get_or_build("acme", |_| unreachable!("it is there"));
        let initech = tenants.get_or_build("initech", |pool| pool.name("initech"));
        assert!(acme.ptr_eq(&again) && !acme.ptr_eq(&initech));
        assert!(tenants.get("acme").unwrap().ptr_eq(&acme));
        assert!(tenants.get("initech").unwrap().ptr_eq(&initech));
        assert!(tenants.get("globex").is_none());
        assert_eq!((tenants.len(), tenants.is_empty()), (2, false));
        acme.record(tokens(4)).unwrap();
        assert_eq!(root.snapshot().tokens.used, 4, "a child of the parent");
        assert_eq!(acme.record(tokens(7)).unwrap_err().pool(), "acme");
    }

    #[test]
    fn a_clone_is_the_same_and_debug_names_the_parent() {
        let tenants = Keyed::<u64>::new(BudgetPool::builder().name("service").build());
        let other = tenants.clone();
        let pool = tenants.get_or_build(&1, ten);
        assert!(other.get(&1).unwrap().ptr_eq(&pool));
        let shown = format!("{other:?}");
        assert!(shown.contains("service") && shown.contains("len: 1"), "{shown}");
        assert_eq!(size_of_val(&tenants), size_of::<usize>());
    }

    #[test]
    fn whatever_builder_is_returned_the_pool_is_below_the_parent() {
        let service = Service::new();
        let elsewhere = BudgetPool::builder().tokens(0).build();
        let pool = service.tenants.get_or_build("acme", |_| elsewhere.child().tokens(10));
        pool.record(tokens(3)).unwrap();
        assert_eq!(service.root.snapshot().tokens.used, 3);
        assert_eq!((elsewhere.snapshot_tree().len(), pool.snapshot().tokens.cap), (1, Some(10)));
    }

    #[test]
    fn a_builder_that_panics_changes_nothing() {
        let service = Service::new();
        let panics = |_: PoolBuilder<Child>| -> PoolBuilder<Child> { panic!("by the user") };
        for _ in 0..3 {
            let built = catch_unwind(|| service.tenants.get_or_build("acme", panics));
            assert!(built.is_err());
        }
        assert_eq!((service.tenants.len(), service.root.snapshot_tree().len()), (0, 1));
        service.acme().record(tokens(10)).unwrap();
    }

    #[test]
    fn a_builder_may_call_the_keyed() {
        ends("a builder that comes back", || {
            let service = Service::new();
            let tenants = &service.tenants;
            let pool = tenants.get_or_build("acme", |pool| {
                assert!(tenants.get("acme").is_none() && tenants.is_empty());
                let other = tenants.get_or_build("initech", ten);
                other.record(tokens(1)).unwrap();
                assert_eq!((tenants.evict_idle(), tenants.snapshot().len()), (0, 1));
                assert!(tenants.remove("globex").is_none());
                pool.tokens(10)
            });
            assert_eq!((tenants.len(), pool.snapshot().tokens.cap), (2, Some(10)));
        });
    }

    #[test]
    fn a_builder_that_is_late_gives_the_pool_that_was_first() {
        ends("a builder that builds its own key", || {
            let service = Service::new();
            let mut first = None;
            let pool = service.tenants.get_or_build("acme", |pool| {
                first = Some(service.acme());
                pool.tokens(99)
            });
            assert!(pool.ptr_eq(&first.unwrap()));
            assert_eq!((service.tenants.len(), service.root.snapshot_tree().len()), (1, 2));
        });
    }

    #[test]
    fn threads_with_the_same_new_key_get_the_same_pool() {
        const THREADS: usize = 4;
        for _ in 0..200 {
            let (service, barrier) = (Service::new(), Barrier::new(THREADS));
            let pools: Vec<BudgetPool> = thread::scope(|scope| {
                let ask = || {
                    barrier.wait();
                    service.acme()
                };
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(ask)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(pools.iter().all(|pool| pool.ptr_eq(&pools[0])));
            assert_eq!((service.tenants.len(), service.root.snapshot_tree().len()), (1, 2));
        }
    }

    #[test]
    fn below_a_closed_parent_a_pool_is_born_closed_and_can_go() {
        let service = Service::new();
        service.acme();
        service.root.close();
        service.tenants.get_or_build("initech", ten);
        for tenant in ["acme", "initech"] {
            let refused = service.tenants.get(tenant).unwrap().record(tokens(1));
            assert!(matches!(refused, Err(BudgetError::Closed { .. })), "{refused:?}");
        }
        assert_eq!((service.tenants.evict_idle(), service.tenants.len()), (2, 0));
    }

    #[test]
    fn a_keyed_that_goes_leaves_the_pools_that_others_keep() {
        let Service { root, tenants, .. } = Service::new();
        let kept = tenants.get_or_build("acme", ten);
        let other = tenants.clone();
        tenants.get_or_build("initech", ten);
        drop(tenants);
        assert_eq!(root.snapshot_tree().len(), 3, "a clone keeps all");
        drop(other);
        assert_eq!(root.snapshot_tree().len(), 2);
        kept.record(tokens(10)).unwrap();
        assert_eq!(root.snapshot().tokens.used, 10);
        check_invariants(&root);
    }

    #[test]
    fn a_keyed_keeps_its_parent() {
        let root = BudgetPool::unlimited();
        let (weak, tenants) = (root.downgrade(), Keyed::<u64>::new(root));
        assert!(weak.upgrade().is_some());
        drop(tenants);
        assert!(weak.upgrade().is_none());
    }

    #[test]
    fn what_is_removed_begins_anew_and_lives_for_those_who_keep_it() {
        let service = Service::new();
        let old = service.acme();
        old.record(tokens(10)).unwrap();
        assert!(service.tenants.remove("acme").unwrap().ptr_eq(&old));
        assert!(service.tenants.remove("acme").is_none());
        assert_eq!(service.tenants.len(), 0);
        let new = service.acme();
        new.record(tokens(10)).unwrap();
        assert!(old.record(tokens(1)).is_err());
        assert_eq!(service.root.snapshot().tokens.used, 20);
    }

    /// Every key has the same hash.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Same(u64);

    impl std::hash::Hash for Same {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            state.write_u8(0);
        }
    }

    #[test]
    fn keys_of_one_hash_are_told_apart() {
        let root = BudgetPool::unlimited();
        let tenants = Keyed::<Same>::new(root.clone());
        let keys: Vec<Same> = (0..7).map(Same).collect();
        for key in &keys {
            tenants.get_or_build(key, ten).record(tokens(key.0 % 2)).unwrap();
        }
        let used = || {
            let snapshot = tenants.snapshot().into_iter();
            snapshot.map(|(key, snap)| (key.0, snap.tokens.used)).collect::<BTreeMap<_, _>>()
        };
        assert_eq!(used(), (0..7).map(|n| (n, n % 2)).collect());
        assert_eq!((tenants.evict_idle(), tenants.len()), (4, 3));
        assert_eq!(used(), [1, 3, 5].map(|n| (n, 1)).into());
        assert!(tenants.get(&Same(2)).is_none());
        for key in [1, 5, 3] {
            assert_eq!(tenants.remove(&Same(key)).unwrap().snapshot().tokens.used, 1);
            assert!(tenants.remove(&Same(key)).is_none());
        }
        assert!(tenants.is_empty() && tenants.snapshot().is_empty());
        tenants.get_or_build(&Same(1), ten);
        assert_eq!((tenants.evict_idle(), tenants.len()), (1, 0));
        assert_eq!(root.snapshot_tree().len(), 1);
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

mod no_lock_is_held {
    use super::*;

    /// Where user code comes back to.
    type Door = Arc<OnceLock<Keyed<String>>>;

    fn come_back(door: &Door) {
        let Some(tenants) = door.get() else { return };
        tenants.get_or_build("visitor", ten);
        assert!(tenants.get("visitor").is_some());
        tenants.remove("visitor");
        tenants.evict_idle();
        let _ = tenants.snapshot();
    }

    #[test]
    fn while_the_clock_is_read() {
        ends("a clock that comes back", || {
            let (door, now, depth) = (Door::default(), Instant::now(), AtomicUsize::new(0));
            let (theirs, time) = (Arc::clone(&door), Arc::new(AtomicU64::new(0)));
            let seconds = Arc::clone(&time);
            let clock = move || {
                if depth.fetch_add(1, Ordering::Relaxed) == 0 {
                    come_back(&theirs);
                }
                depth.fetch_sub(1, Ordering::Relaxed);
                now + Duration::from_secs(seconds.load(Ordering::Relaxed))
            };
            let tenants = Keyed::new(BudgetPool::builder().clock(clock).build());
            let build = |pool: PoolBuilder<Child>| pool.tokens(10).window(Window::fixed(MINUTE));
            tenants.get_or_build("acme", build).record(tokens(1)).unwrap();
            assert!(door.set(tenants.clone()).is_ok());
            assert_eq!((tenants.evict_idle(), tenants.snapshot().len()), (0, 1));
            time.store(60, Ordering::Relaxed);
            // By the clock's own visit, or by this.
            tenants.evict_idle();
            assert!(tenants.get("acme").is_none());
        });
    }

    struct Visitor(Door, AtomicUsize);

    impl Wake for Visitor {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::Relaxed);
            come_back(&self.0);
        }
    }

    #[test]
    fn while_waiters_are_woken() {
        ends("a waker that comes back", || {
            let service = Service::new();
            let visitor = Arc::new(Visitor(Door::default(), AtomicUsize::new(0)));
            assert!(visitor.0.set(service.tenants.clone()).is_ok());
            let pool = service.tenants.get_or_build("acme", |pool| {
                pool.tokens(10).window(Window::fixed(MINUTE)).in_flight(9)
            });
            pool.record(tokens(10)).unwrap();
            let mut wait = Box::pin(pool.reserve_wait(tokens(5)));
            let waker = StdWaker::from(Arc::clone(&visitor));
            assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            service.clock.advance(MINUTE);
            assert_eq!(service.tenants.snapshot().len(), 1);
            assert_eq!(visitor.1.load(Ordering::Relaxed), 1, "the look served it");
        });
    }

    type Hook = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

    /// Its clone calls a hook, once.
    struct Hooked(&'static str, Hook);

    impl Clone for Hooked {
        fn clone(&self) -> Hooked {
            let hook = self.1.lock().unwrap().take();
            hook.into_iter().for_each(|hook| hook());
            Hooked(self.0, Arc::clone(&self.1))
        }
    }

    impl PartialEq for Hooked {
        fn eq(&self, other: &Hooked) -> bool {
            self.0 == other.0
        }
    }

    impl Eq for Hooked {}

    impl std::hash::Hash for Hooked {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            self.0.hash(state);
        }
    }

    /// While a snapshot is taken, and after the clock was read for it, a call on one tenant turns
    /// the period. The snapshot shows the new period of the other one, too, and whom that served.
    #[test]
    fn p5_while_a_snapshot_finds_that_a_period_has_turned() {
        ends("a snapshot that is overtaken", || {
            let clock = ManualClock::new();
            let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
            let (tenants, hook) = (Keyed::<Hooked>::new(root), Hook::default());
            let build = |pool: PoolBuilder<Child>| pool.tokens(10).window(Window::fixed(MINUTE));
            let [acme, initech] = ["acme", "initech"]
                .map(|key| tenants.get_or_build(&Hooked(key, Arc::clone(&hook)), build));
            acme.record(tokens(10)).unwrap();
            initech.record(tokens(10)).unwrap();
            let mut waiter = Waiter::queued(&acme, tokens(5));
            *hook.lock().unwrap() = Some(Box::new(move || {
                clock.advance(MINUTE);
                initech.record(tokens(1)).unwrap();
            }));
            let snapshot = tenants.snapshot().into_iter();
            let seen: BTreeMap<_, _> = snapshot
                .map(|(key, snap)| (key.0, (snap.tokens.used, snap.tokens.reserved)))
                .collect();
            assert_eq!(seen, [("acme", (0, 5)), ("initech", (1, 0))].into());
            assert_eq!(waiter.granted().amount(), tokens(5));
        });
    }

    /// It comes back when it is dropped.
    #[derive(Clone)]
    struct Key(u64, Arc<OnceLock<Keyed<Key>>>);

    impl PartialEq for Key {
        fn eq(&self, other: &Key) -> bool {
            self.0 == other.0
        }
    }

    impl Eq for Key {}

    impl std::hash::Hash for Key {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            // Of two hashes, so that they share a place.
            (self.0 % 2).hash(state);
        }
    }

    impl Drop for Key {
        fn drop(&mut self) {
            if let Some(tenants) = self.1.get() {
                assert!(tenants.get(self).is_none_or(|pool| pool.name() == "pool"));
                // An exclusive lock.
                assert!(tenants.remove(&Key(99, Arc::default())).is_none());
            }
        }
    }

    #[test]
    fn while_a_key_is_dropped() {
        ends("a key that comes back", || {
            let (tenants, door) = (Keyed::<Key>::new(BudgetPool::unlimited()), Arc::default());
            let keys: Vec<Key> = (0..6).map(|key| Key(key, Arc::clone(&door))).collect();
            for key in &keys {
                tenants.get_or_build(key, ten);
            }
            assert!(door.set(tenants.clone()).is_ok());
            for key in &keys[..3] {
                assert!(tenants.remove(key).is_some());
            }
            // The key of the one that comes late.
            tenants.get_or_build(&keys[0], |pool| {
                tenants.get_or_build(&keys[0], ten);
                pool
            });
            assert_eq!(tenants.evict_idle(), 4);
            assert!(tenants.is_empty());
        });
    }

    /// Its comparison panics when told.
    #[derive(Clone)]
    struct Broken(u64, Arc<AtomicBool>);

    impl PartialEq for Broken {
        fn eq(&self, other: &Broken) -> bool {
            assert!(!self.1.load(Ordering::Relaxed), "a broken key");
            self.0 == other.0
        }
    }

    impl Eq for Broken {}

    impl std::hash::Hash for Broken {
        fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
            state.write_u8(0);
        }
    }

    #[test]
    fn after_a_key_has_panicked() {
        let (tenants, is_broken) = (Keyed::new(BudgetPool::unlimited()), Arc::default());
        let keys: Vec<Broken> = (0..3).map(|key| Broken(key, Arc::clone(&is_broken))).collect();
        for key in &keys[..2] {
            tenants.get_or_build(key, ten).record(tokens(1)).unwrap();
        }
        is_broken.store(true, Ordering::Relaxed);
        let calls: [&dyn Fn() -> Option<BudgetPool>; 3] =
            [&|| tenants.get(&keys[1]), &|| Some(tenants.get_or_build(&keys[2], ten)), &|| {
                tenants.remove(&keys[0])
            }];
        for call in calls {
            assert!(catch_unwind(AssertUnwindSafe(call)).is_err());
        }
        is_broken.store(false, Ordering::Relaxed);
        assert_eq!((tenants.len(), tenants.snapshot().len()), (2, 2));
        assert_eq!(tenants.get(&keys[1]).unwrap().snapshot().tokens.used, 1);
        assert!(tenants.remove(&keys[0]).is_some() && tenants.remove(&keys[2]).is_none());
    }
}
