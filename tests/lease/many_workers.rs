//! Many workers spend one cap to the unit.

use super::*;

/// So many workers that each lease a batch and spend one by one until they are refused. What
/// each of them spent. `meet` is called between the first record of each and the others.
fn spend_all(
    pool: &BudgetPool,
    workers: usize,
    batch: u64,
    meet: impl Fn(bool) + Sync,
) -> Vec<u64> {
    let work = || {
        let mut lease = pool.lease(Amount::new().requests(batch));
        let mut spends_one = || lease.record(Amount::new().requests(1)).is_ok();
        let has_started = spends_one();
        meet(has_started);
        let mut spent = u64::from(has_started);
        while spends_one() {
            spent += 1;
        }
        assert!(lease.remaining().is_zero(), "a refused worker has spent its share");
        spent
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect()
    })
}

#[track_caller]
fn is_all_spent(pool: &BudgetPool, spent: &[u64], cap: u64) {
    let end = pool.snapshot();
    assert_eq!(spent.iter().sum::<u64>(), cap, "{spent:?}");
    assert_eq!((end.requests.used, end.requests.reserved), (cap, 0), "{end}");
    assert_eq!((end.requests.overage, end.requests.spent), (0, cap), "{end}");
}

#[test]
fn p1_p4_batches_of_the_whole_budget_keep_no_worker_from_starting_and_all_is_spent() {
    for run in 0..300 {
        let (workers, cap) = ([2, 4, 8][run % 3], [1, 7, 64, 1_000, 4_000][run % 5]);
        let pool = BudgetPool::builder().requests(cap).build();
        let (all, started) = (Barrier::new(workers), AtomicU64::new(0));
        let spent = spend_all(&pool, workers, cap, |has_started| {
            started.fetch_add(u64::from(has_started), Ordering::Relaxed);
            all.wait();
        });
        assert_eq!(started.into_inner(), cap.min(workers as u64), "as many as there are units");
        is_all_spent(&pool, &spent, cap);
    }
}

#[test]
fn p1_p4_the_example_of_the_documentation_spends_its_million_in_every_run() {
    for _ in 0..10 {
        let pool = BudgetPool::builder().requests(1_000_000).build();
        let spent = spend_all(&pool, 4, 1_000, |_| ());
        is_all_spent(&pool, &spent, 1_000_000);
    }
}
