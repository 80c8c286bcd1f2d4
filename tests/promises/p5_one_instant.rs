//! P5: a snapshot is one state that existed.

use super::*;

#[test]
fn a_snapshot_of_a_tree_is_one_state() {
    let root = BudgetPool::unlimited();
    let children: Vec<_> = (0..4).map(|_| root.child().build()).collect();
    let done = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for child in &children {
            scope.spawn(|| {
                for n in 0..2_000 {
                    child.reserve(tokens(n)).unwrap().commit(tokens(n / 2));
                    child.record(tokens(1)).unwrap();
                }
                done.fetch_add(1, Ordering::Release);
            });
        }
        while done.load(Ordering::Acquire) < 4 {
            let tree = root.snapshot_tree();
            let sum = |of: fn(&Snapshot) -> u64| tree[1..].iter().map(of).sum::<u64>();
            for of in [
                (|pool| pool.tokens.used) as fn(&Snapshot) -> u64,
                |pool| pool.tokens.reserved,
                |pool| pool.admitted,
                |pool| pool.reservations,
            ] {
                assert_eq!(of(&tree[0]), sum(of));
            }
        }
    });
}

#[test]
fn a_reset_returns_the_very_state_that_it_ends() {
    let pool = pool_of(1_000_000);
    let total = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let spender = scope.spawn(|| (0..20_000).for_each(|_| pool.record(tokens(1)).unwrap()));
        while !spender.is_finished() {
            total.fetch_add(pool.reset().tokens.used, Ordering::Relaxed);
        }
    });
    assert_eq!(total.into_inner() + pool.reset().tokens.used, 20_000);
}

/// The pools on the way up in a large tree, by their places.
fn way(place: usize) -> impl Iterator<Item = usize> {
    successors(Some(place), |&place| place.checked_sub(1).map(|place| place / 3))
}

/// So many pools: three below each, as far as they go. Some are capped, and some are shares.
fn large_tree(many: usize) -> Vec<BudgetPool> {
    let mut pools = vec![BudgetPool::builder().name("0").tokens(10_000).build()];
    while pools.len() < many {
        let place = pools.len();
        let child = || pools[(place - 1) / 3].child().name(place.to_string());
        let share = child().tokens(1 + place as u64 % 3).carved().build();
        pools.push(match place % 5 {
            0 => share.unwrap_or_else(|_| child().build()),
            1 => child().tokens(9_000 - place as u64).build(),
            _ => child().build(),
        });
    }
    for (place, pool) in (1..).zip(&pools) {
        pool.record(Amount::new().requests(place)).unwrap();
        drop(pool.record(tokens(1)));
    }
    pools
}

#[test]
fn a_snapshot_of_a_large_tree_has_each_pool_once_and_as_it_is() {
    for many in [16, 17, 256, 257, 600] {
        let pools = large_tree(many);
        for top in 0..many {
            let tree = pools[top].snapshot_tree();
            let mut places = Vec::new();
            for seen in &tree {
                let place: usize = seen.name.parse().unwrap();
                let parent = way(place).nth(1).filter(|_| place != top);
                assert!(parent.is_none_or(|parent| places.contains(&parent)), "{tree}");
                let mut own = pools[place].snapshot();
                own.depth = way(place).position(|above| above == top).unwrap();
                assert_eq!(*seen, own);
                places.push(place);
            }
            places.sort_unstable();
            places.dedup();
            assert_eq!(places.len(), tree.len(), "each pool once");
            let is_below = |&place: &usize| way(place).any(|above| above == top);
            assert!((0..many).filter(is_below).eq(places), "all that are below the top");
        }
    }
}

#[test]
fn a_snapshot_of_a_tree_that_grows_meanwhile_is_one_state() {
    let root = BudgetPool::unlimited();
    let added = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let adding = scope.spawn(|| {
            let mut pools: Vec<BudgetPool> = Vec::new();
            for place in 0..5_000 {
                let parent = if place % 3 == 0 { &root } else { &pools[place / 3] };
                let pool = parent.child().name(place.to_string()).build();
                pools.push(pool);
                added.fetch_add(1, Ordering::SeqCst);
                pools[place].record(tokens(1)).unwrap();
            }
            pools
        });
        while !adding.is_finished() {
            let least = added.load(Ordering::SeqCst);
            let tree = root.snapshot_tree();
            let most = added.load(Ordering::SeqCst) + 1;
            assert!((least..=most).contains(&(tree.len() - 1)), "{least}, {most}");
            let names: BTreeSet<&str> = tree.iter().map(|pool| &*pool.name).collect();
            assert_eq!(names.len(), tree.len(), "each pool once");
            let below = tree[1..].iter().filter(|pool| pool.depth == 1);
            let used: u64 = below.map(|pool| pool.tokens.used).sum();
            assert_eq!(tree[0].tokens.used, used);
            assert!((least..=most).contains(&(tree[0].tokens.used as usize + 1)));
        }
        assert_eq!(root.snapshot_tree().len(), 1 + adding.join().unwrap().len());
    });
}

#[test]
fn what_is_available_is_a_matter_of_balances_alone() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().tokens(100).requests(9).clock(clock.clone()).build();
    let child = root.child().tokens(200).deadline(Duration::from_secs(1)).build();
    root.record(tokens(30)).unwrap();
    let available = || {
        let child = child.snapshot();
        (child.tokens.available, child.requests.available, child.usd.available)
    };
    assert_eq!(available(), (Some(70), Some(9), None));
    clock.advance(Duration::from_secs(1));
    assert!(child.record(tokens(1)).is_err());
    assert_eq!(available(), (Some(70), Some(9), None));
    child.close();
    assert_eq!(available(), (Some(70), Some(9), None));
}
