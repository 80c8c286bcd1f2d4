//! P4 with leases.

use super::*;

#[test]
fn what_is_left_and_what_is_free_can_be_asked_for_to_the_unit() {
    let pool = pool_of(100);
    let mut lease = filled(&pool, tokens(10));
    pool.record(tokens(84)).unwrap();
    lease.record(tokens(3)).unwrap();
    assert!(lease.record(tokens(13)).is_err());
    lease.record(tokens(12)).unwrap();
    assert_eq!((balance(&pool), lease.remaining()), ([100, 0, 0], tokens(0)));
    assert!(lease.record(tokens(1)).is_err());
    lease.record(tokens(0)).unwrap();
}

#[test]
fn an_axis_that_the_share_covers_is_not_asked_of_the_pool() {
    let pool = BudgetPool::builder().tokens(100).requests(10).build();
    let mut lease = filled(&pool, both(10, 1));
    pool.record(Amount::new().requests(9)).unwrap();
    lease.record(both(11, 1)).unwrap();
    assert_eq!(lease.remaining(), both(10, 0), "no request is left to ask for");
}

/// What can stand in the way of a spend, and what takes it away again.
type Obstacle = (fn(&BudgetPool) -> Option<Reservation>, fn(&BudgetPool));

#[test]
fn a_lease_asks_nothing_and_only_its_records_are_refused() {
    let obstacles: [Obstacle; 3] = [
        (|pool| Some(pool.reserve(tokens(100)).unwrap()), |_| ()),
        (
            |pool| {
                pool.record(tokens(100)).unwrap();
                None
            },
            |pool| _ = pool.reset(),
        ),
        (
            |pool| {
                pool.debit(tokens(110));
                None
            },
            |pool| pool.raise_caps(Caps::new().tokens(110)).unwrap(),
        ),
    ];
    for (obstruct, clear) in obstacles {
        let pool = pool_of(100);
        let obstacle = obstruct(&pool);
        let before = pool.snapshot();
        let mut lease = pool.lease(tokens(1_000));
        assert_eq!(pool.snapshot(), before);
        for asked in [1, 101] {
            let refused = pool.peek(tokens(asked)).unwrap_err();
            assert_eq!(lease.record(tokens(asked)), Err(refused));
        }
        clear(&pool);
        drop(obstacle);
        lease.record(tokens(20)).unwrap();
        assert_eq!(lease.remaining(), tokens(10), "an eighth of 80");
    }
}

#[test]
fn what_is_left_of_a_lease_may_come_back_and_what_it_has_spent_does_not() {
    let pool = pool_of(10);
    let lease = filled(&pool, tokens(1));
    assert_eq!(outlook(pool.record(tokens(9))), Outlook::AfterRelease, "it may be dropped");
    assert_eq!(outlook(pool.record(tokens(10))), Outlook::Never);
    drop(lease);
    pool.record(tokens(9)).unwrap();
}

#[test]
fn the_lower_the_pool_the_smaller_the_bites() {
    let pool = pool_of(100);
    let mut lease = pool.lease(tokens(20));
    let mut left = Vec::new();
    for free in [79, 60, 30, 16, 15, 8, 7, 1] {
        let free_now = 100 - balance(&pool)[0] - balance(&pool)[1] + remaining(&lease);
        lease.record(tokens(free_now - free)).unwrap();
        left.push(remaining(&lease));
    }
    assert_eq!(left, [9, 7, 3, 2, 1, 1, 0, 0], "an eighth of what is free");
    lease.record(tokens(1)).unwrap();
    assert_eq!(balance(&pool), [100, 0, 0]);
}

#[test]
fn each_lease_finds_something_however_large_the_batches() {
    let pool = pool_of(1_000);
    let mut leases = [(); 4].map(|()| pool.lease(tokens(1_000)));
    for lease in &mut leases {
        lease.record(tokens(1)).unwrap();
    }
    assert_eq!(leases.each_ref().map(remaining), [124, 109, 95, 83]);
    assert_eq!(balance(&pool), [4, 411, 0]);
    // One of them can have all that is free and its own share, and the others have theirs.
    let [first, others @ ..] = &mut leases;
    first.record(tokens(585 + 125)).unwrap_err();
    first.record(tokens(585 + 124)).unwrap();
    for lease in others {
        lease.record(lease.remaining()).unwrap();
    }
    drop(leases);
    assert_eq!(balance(&pool), [1_000, 0, 0]);
}

fn remaining(lease: &Lease) -> u64 {
    lease.remaining().get(Axis::Tokens).unwrap().units()
}
