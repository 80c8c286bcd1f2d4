//! A call that is cut off.

use super::*;

fn priced(text: &str) -> Result<Amount, Box<dyn std::error::Error>> {
    Ok(tokens(400).usd(Usd::try_from_dollars_f64(text.parse()?)?))
}

/// What a program does that was written as the documentation shows.
fn call(pool: &BudgetPool, cost: &str) -> Result<(), Box<dyn std::error::Error>> {
    let hold = pool.reserve(tokens(500).usd(usd("0.01")))?;
    hold.commit(priced(cost)?);
    Ok(())
}

#[test]
fn p2_a_cost_that_cannot_be_read_leaves_the_hold_booked() {
    let pool = BudgetPool::builder().tokens(5_000).on_drop(OnDrop::Commit).build();
    call(&pool, "NaN").unwrap_err();
    assert_eq!(token_books(&pool), [500, 0, 0, 500]);
    assert_eq!(pool.snapshot().usd.used, usd("0.01"));
    call(&pool, "0.004").unwrap();
    assert_eq!(token_books(&pool), [900, 0, 0, 900]);
}

#[test]
fn the_nearest_pool_that_says_so_decides_and_the_hold_has_the_last_word() {
    let root = BudgetPool::builder().on_drop(OnDrop::Commit).build();
    let inherits = root.child().build().child().tokens(9).carved().build().unwrap();
    let releases = root.child().on_drop(OnDrop::Release).build();
    let below = releases.child().build();
    let used_by_a_drop = |pool: &BudgetPool, change: fn(Reservation) -> Reservation| {
        let before = token_books(pool)[0];
        drop(change(pool.reserve(tokens(1)).unwrap()));
        token_books(pool)[0] - before
    };
    for (pool, used) in [(&root, 1), (&inherits, 1), (&releases, 0), (&below, 0)] {
        assert_eq!(used_by_a_drop(pool, |hold| hold), used);
        assert_eq!(used_by_a_drop(pool, Reservation::commit_on_drop), 1);
        assert_eq!(used_by_a_drop(pool, |hold| hold.on_drop(OnDrop::Release)), 0);
        assert_eq!(used_by_a_drop(pool, |hold| hold.commit_on_drop().on_drop(OnDrop::Release)), 0);
    }
    let granted = BudgetPool::builder().in_flight(1).on_drop(OnDrop::Commit).build();
    let first = granted.reserve(Amount::new()).unwrap();
    let mut waiter = Waiter::queued(&granted, tokens(3));
    first.release();
    drop(waiter.granted());
    assert_eq!(token_books(&granted)[0], 3, "a hold that was waited for, too");
}

#[test]
fn each_hold_ends_in_one_of_three_ways_and_is_counted_above_too() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().clock(clock.clone()).name("run").build();
    let pool = root.child().build();
    let hold = || pool.reserve(tokens(1)).unwrap();
    let ended = |pool: &BudgetPool| {
        let snapshot = pool.snapshot();
        [snapshot.committed, snapshot.released, snapshot.expired, snapshot.reservations]
    };
    hold().commit(tokens(1));
    hold().commit_all();
    hold().try_commit(tokens(1)).unwrap();
    drop(hold().commit_on_drop());
    assert_eq!(ended(&pool), [4, 0, 0, 0]);
    drop(hold());
    hold().commit_on_drop().release();
    assert_eq!(ended(&pool), [4, 2, 0, 0]);

    let second = Duration::from_secs(1);
    let late = [(); 3].map(|()| pool.reserve(Ask::new(tokens(1)).ttl(second)).unwrap());
    clock.advance(second);
    assert_eq!(ended(&pool), [4, 2, 3, 0]);
    let [committed, dropped, released] = late;
    committed.commit_all();
    drop(dropped);
    released.release();
    assert_eq!((ended(&pool), ended(&root)), ([4, 2, 3, 0], [4, 2, 3, 0]));
}

#[test]
fn a_thousand_forgotten_commits_are_seen_at_a_glance() {
    let pool = BudgetPool::builder().name("run").tokens(100_000).build();
    (0..1_000).for_each(|_| drop(pool.reserve(tokens(100)).unwrap()));
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.admitted, snapshot.committed, snapshot.released), (1_000, 0, 1_000));
    let text = snapshot.to_string();
    assert!(
        text.starts_with("run: 1000 admitted, 0 refused, 0 reservations, 1000 released\n"),
        "{text}"
    );
}
