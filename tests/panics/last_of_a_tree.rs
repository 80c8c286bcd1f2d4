//! What the user gave to a tree goes with its last pool, and may panic then. Keys and builders of a
//! `Keyed` may panic as they go, too, while a pool is handed out.

use super::*;
use budget_pool::{Clock, Keyed, Observer};
use std::time::Instant;

/// It counts its drop, and may panic in it.
struct Part {
    drops: Arc<AtomicUsize>,
    panics: bool,
}

impl Drop for Part {
    fn drop(&mut self) {
        self.drops.fetch_add(1, Ordering::SeqCst);
        if self.panics {
            panics();
        }
    }
}

impl Clock for Part {
    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Observer for Part {}

/// A tree with a clock, a timer and an observer, of which one panics when it goes.
fn tree(faulty: usize) -> (BudgetPool, Arc<AtomicUsize>) {
    let drops = Arc::<AtomicUsize>::default();
    let part = |index| Part { drops: Arc::clone(&drops), panics: index == faulty };
    let timer = part(1);
    let pool = BudgetPool::builder()
        .tokens(100)
        .clock(part(0))
        .timer(move |_| {
            let _kept = &timer;
            Box::pin(std::future::pending())
        })
        .observer(part(2))
        .build();
    (pool, drops)
}

type Keeper = fn(BudgetPool) -> Box<dyn std::any::Any>;

#[test]
fn one_that_panics_as_the_last_of_its_tree_goes_does_so_in_who_drops_that_and_the_others_go() {
    let keepers: [Keeper; 9] = [
        |pool| Box::new(pool),
        |pool| Box::new(pool.child().build()),
        |pool| Box::new(pool.reserve(tokens(1)).unwrap()),
        |pool| Box::new(pool.reserve(Ask::new(tokens(1)).ttl(secs(100))).unwrap().commit_on_drop()),
        |pool| {
            let mut lease = pool.lease(tokens(9));
            lease.record(tokens(1)).unwrap();
            Box::new(lease)
        },
        |pool| Box::new(pool.reserve_wait(tokens(1))),
        |pool| {
            let mut closed = Box::new(pool.closed());
            let poll = Pin::new(&mut *closed).poll(&mut Context::from_waker(Waker::noop()));
            assert!(poll.is_pending());
            closed
        },
        |pool| Box::new(pool.run(std::future::pending::<()>())),
        |pool| {
            let tenants = Keyed::<u8>::new(pool);
            tenants.get_or_build(&1, |tenant| tenant.tokens(1));
            Box::new(tenants)
        },
    ];
    for faulty in 0..3 {
        for (at, keeper) in keepers.iter().enumerate() {
            let (pool, drops) = tree(faulty);
            let last = keeper(pool);
            assert_eq!(drops.load(Ordering::SeqCst), 0, "{at}");
            comes_out(|| drop(last));
            assert_eq!(drops.load(Ordering::SeqCst), 3, "{faulty} {at}");
        }
    }
}

/// By its number; one of them panics when it is dropped.
#[derive(PartialEq, Eq, Hash, Clone)]
struct Key(u16);

impl Drop for Key {
    fn drop(&mut self) {
        if self.0 == 7 {
            panics();
        }
    }
}

fn tenants(root: &BudgetPool, count: u16) -> Keyed<Key> {
    let tenants = Keyed::<Key>::new(root.clone());
    for number in 0..count {
        // Its drop is the caller's as well.
        let key = std::mem::ManuallyDrop::new(Key(number));
        drop(tenants.get_or_build(&*key, |tenant| tenant.tokens(10)));
    }
    let count = usize::from(count);
    assert_eq!((tenants.len(), root.snapshot_tree().len()), (count, count + 1));
    tenants
}

#[test]
fn p3_a_key_that_panics_as_it_is_removed_takes_its_pool_along() {
    let root = pool_of(100);
    let tenants = tenants(&root, 20);
    let key = std::mem::ManuallyDrop::new(Key(7));
    comes_out(|| _ = tenants.remove(&*key));
    assert!(tenants.get(&*key).is_none());
    assert_eq!((tenants.len(), root.snapshot_tree().len()), (19, 20));
    drop(tenants);
    assert_eq!(root.snapshot_tree().len(), 1);
    is_balanced(&root);
}

/// Another call comes first with the same key, and the pool of that is handed out.
#[test]
fn p3_a_key_that_panics_as_its_pool_comes_too_late_keeps_no_pool() {
    let root = pool_of(100);
    let tenants = Keyed::<Key>::new(root.clone());
    let key = std::mem::ManuallyDrop::new(Key(7));
    comes_out(|| {
        tenants.get_or_build(&*key, |tenant| {
            drop(tenants.get_or_build(&*key, |tenant| tenant));
            tenant
        })
    });
    assert_eq!((tenants.len(), root.snapshot_tree().len()), (1, 2));
    comes_out(|| tenants.evict_idle());
    assert_eq!((tenants.len(), root.snapshot_tree().len()), (0, 1));
}

/// The pool is there already, and the builder is dropped unused.
#[test]
fn p3_a_builder_that_panics_in_its_drop_keeps_no_pool() {
    let root = pool_of(100);
    let tenants = Keyed::<u8>::new(root.clone());
    drop(tenants.get_or_build(&1, |tenant| tenant));
    let kept = Part { drops: Arc::default(), panics: true };
    let build = move |tenant| {
        let _kept = &kept;
        tenant
    };
    comes_out(|| tenants.get_or_build(&1, build));
    assert_eq!(tenants.evict_idle(), 1);
    assert_eq!(root.snapshot_tree().len(), 1);
}

#[test]
fn p3_a_key_that_panics_as_it_is_evicted_takes_its_pool_along() {
    let root = pool_of(100);
    let tenants = tenants(&root, 20);
    comes_out(|| tenants.evict_idle());
    // The eviction stops there; the next one goes on.
    let rest = tenants.len();
    assert!(rest < 20);
    assert_eq!(root.snapshot_tree().len(), rest + 1);
    assert_eq!((tenants.evict_idle(), tenants.len()), (rest, 0));
    assert_eq!(root.snapshot_tree().len(), 1);
    is_balanced(&root);
}

/// Which keys lie together, in which order, is another each time: there are several in each part of
/// the map, and many rounds.
#[test]
fn p3_a_key_that_panics_as_its_keyed_goes_leaves_no_pool() {
    for _ in 0..20 {
        let root = pool_of(100);
        let tenants = tenants(&root, 1_000);
        comes_out(|| drop(tenants));
        assert_eq!(root.snapshot_tree().len(), 1);
        is_balanced(&root);
    }
}
