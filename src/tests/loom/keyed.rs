//! `Keyed`: an eviction against those who come for the pool.

use super::handles::may_be_overtaken;
use super::*;
use crate::{Keyed, WeakPool};

type Tenants = Keyed<u8>;

/// A service with one tenant, whose pool is idle.
fn service() -> (BudgetPool, Tenants, WeakPool) {
    let root = BudgetPool::unlimited();
    let tenants = Tenants::new(root.clone());
    let weak = tenant(&tenants).downgrade();
    (root, tenants, weak)
}

fn tenant(tenants: &Tenants) -> BudgetPool {
    tenants.get_or_build(&1, |pool| pool.tokens(10))
}

fn evict(tenants: &Tenants) -> impl FnOnce(&BudgetPool) -> usize + Send + use<> {
    let tenants = tenants.clone();
    move |root| {
        may_be_overtaken(root);
        tenants.evict_idle()
    }
}

/// The tenant has so much in use, and may have the rest of its cap once.
fn has_used(tenants: &Tenants, used: u64) {
    let pool = tenant(tenants);
    assert_eq!(used_and_reserved(&pool.snapshot()), (used, 0));
    assert!(pool.record(tokens(11 - used)).is_err());
    pool.record(tokens(10 - used)).unwrap();
}

/// P1: a request comes at the moment of the eviction. It finds the old pool, which then stays, or
/// it builds a new one; in either case its spend counts.
#[test]
fn evict_against_request() {
    explore([0, 1], || {
        let (root, tenants, _) = service();
        let theirs = tenants.clone();
        let (evicted, ()) = both(&root, evict(&tenants), move |_| {
            tenant(&theirs).record(tokens(6)).unwrap();
        });

        assert_eq!((tenants.len(), pools(&root)), (1, 2));
        has_used(&tenants, 6);
        assert_eq!(root.snapshot().tokens.used, 10);
        evicted
    });
}

/// P1: the same of a request that asks only for a pool that is there.
#[test]
fn evict_against_get() {
    explore([(0, true), (1, false)], || {
        let (root, tenants, _) = service();
        let theirs = tenants.clone();
        let (evicted, found) = both(&root, evict(&tenants), move |_| {
            theirs.get(&1).map(|pool| pool.record(tokens(6)).unwrap()).is_some()
        });

        has_used(&tenants, if found { 6 } else { 0 });
        assert_eq!(pools(&root), 2);
        (evicted, found)
    });
}

/// P1: the same by a handle that keeps no pool. Its spend must not come between the look at the pool
/// and the taking of its last handle.
#[test]
fn evict_against_upgrade() {
    explore([(0, true), (1, false)], || {
        let (root, tenants, weak) = service();
        let (evicted, found) = both(&root, evict(&tenants), move |root| {
            may_be_overtaken(root);
            weak.upgrade().map(|pool| pool.record(tokens(6)).unwrap()).is_some()
        });

        has_used(&tenants, if found { 6 } else { 0 });
        assert_eq!(pools(&root), 2);
        (evicted, found)
    });
}

/// The last hold on the pool ends meanwhile, with so much spent.
fn evict_against_last_hold(spent: u64) -> usize {
    let (root, tenants, _) = service();
    let hold = tenant(&tenants).reserve(tokens(4)).unwrap();
    let (evicted, _) = both(&root, evict(&tenants), move |root| {
        may_be_overtaken(root);
        hold.commit(tokens(spent))
    });

    assert_eq!((tenants.len(), pools(&root)), (1 - evicted, 2 - evicted));
    has_used(&tenants, spent);
    evicted
}

/// P1: what the last hold has spent keeps its pool.
#[test]
fn evict_against_commit() {
    explore([0], || evict_against_last_hold(4));
}

/// P3: a last hold that has spent nothing keeps its pool no longer than itself.
#[test]
fn evict_against_release() {
    explore([0, 1], || evict_against_last_hold(0));
}

/// P3: two evictions at once end the pool once.
#[test]
fn evict_against_evict() {
    explore([(0, 1), (1, 0)], || {
        let (root, tenants, weak) = service();
        let outcome = both(&root, evict(&tenants), evict(&tenants));

        assert!(tenants.is_empty() && weak.upgrade().is_none());
        assert_eq!(pools(&root), 1);
        outcome
    });
}

/// P5: a look at all tenants sees the one that goes, or not; and a look at the tree sees it until
/// its place is free.
#[test]
fn evict_against_snapshot() {
    explore([(0, 1), (0, 2), (1, 1), (1, 2)], || {
        let (root, tenants, _) = service();
        let theirs = tenants.clone();
        let (evicted, seen) =
            both(&root, evict(&tenants), move |root| (theirs.snapshot().len(), pools(root)));

        assert_eq!((evicted, tenants.len(), pools(&root)), (1, 0, 1));
        seen
    });
}

/// P1: two requests of a new tenant at once share one pool.
#[test]
fn request_against_request() {
    explore(["first", "second"], || {
        let root = BudgetPool::unlimited();
        let tenants = Tenants::new(root.clone());
        let request = |amount| {
            let tenants = tenants.clone();
            move |root: &BudgetPool| {
                may_be_overtaken(root);
                let pool = tenant(&tenants);
                let recorded = pool.record(tokens(amount));
                (pool, recorded)
            }
        };
        let ((one, a), (other, b)) = both(&root, request(6), request(7));

        assert!(one.ptr_eq(&other));
        assert_eq!((tenants.len(), pools(&root)), (1, 2));
        winner(("first", a), ("second", b))
    });
}
