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

/// The first pool is gone when the eviction finds that time decides about the second, and looks
/// again.
#[test]
fn each_pool_that_goes_is_counted_once_though_the_clock_is_read_in_between() {
    let clock = ManualClock::new();
    let tenants = Keyed::new(BudgetPool::builder().clock(clock.clone()).build());
    for (key, requests) in [0, 1, 0, 1].into_iter().enumerate() {
        let build = |pool: PoolBuilder<Child>| pool.requests(1).window(Window::fixed(MINUTE));
        let pool = tenants.get_or_build(&Same(key as u64), build);
        pool.record(Amount::new().requests(requests)).unwrap();
    }
    assert_eq!((tenants.evict_idle(), tenants.len()), (2, 2));
    clock.advance(MINUTE);
    assert_eq!((tenants.evict_idle(), tenants.len()), (2, 0));
}
