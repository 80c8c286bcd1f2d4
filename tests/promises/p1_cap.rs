//! P1: used and reserved never exceed the cap.

use super::*;

#[test]
fn one_call_spends_on_all_its_axes_or_on_none() {
    let pool = BudgetPool::builder().tokens(100).usd(Usd::from_nanos(10)).build();
    for (amount, axis) in [
        (tokens(101).usd(Usd::from_nanos(1)), Axis::Tokens),
        (tokens(1).usd(Usd::from_nanos(11)), Axis::Usd),
    ] {
        let before = pool.snapshot();
        assert_eq!(pool.record(amount).unwrap_err().axis(), Some(axis));
        assert_eq!(pool.reserve(amount).unwrap_err().axis(), Some(axis));
        let after = pool.snapshot();
        assert_eq!((after.tokens, after.usd), (before.tokens, before.usd));
    }
    pool.record(tokens(100).usd(Usd::from_nanos(10))).unwrap();
}

#[test]
fn one_call_spends_in_all_the_pools_it_charges_or_in_none() {
    let root = pool_of(100);
    let child = root.child().tokens(80).build();
    let leaf = child.child().tokens(1_000).build();
    root.record(tokens(30)).unwrap();
    assert!(leaf.record(tokens(71)).is_err());
    assert_eq!(
        [balance(&root), balance(&child), balance(&leaf)],
        [[30, 0, 0], [0, 0, 0], [0, 0, 0]]
    );
    leaf.record(tokens(70)).unwrap();
    assert_eq!(
        [balance(&root), balance(&child), balance(&leaf)],
        [[100, 0, 0], [70, 0, 0], [70, 0, 0]]
    );
}

#[test]
fn the_cap_holds_under_real_threads() {
    let pool = BudgetPool::builder().tokens(10_000).in_flight(3).build();
    let admitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let (pool, admitted) = (pool.clone(), &admitted);
            scope.spawn(move || {
                for step in 0..2_000 {
                    let n = (thread * 7 + step) % 11;
                    let spent = match step % 3 {
                        0 => pool.record(tokens(n)).is_ok(),
                        1 => pool.reserve(tokens(n)).map(|hold| hold.commit(tokens(n))).is_ok(),
                        _ => {
                            drop(pool.reserve(tokens(n)));
                            false
                        }
                    };
                    admitted.fetch_add(if spent { n } else { 0 }, Ordering::Relaxed);
                    let now = pool.snapshot();
                    assert!(
                        now.tokens.used + now.tokens.reserved <= 10_000
                            && now.in_flight.reserved <= 3
                    );
                }
            });
        }
    });
    let end = pool.snapshot();
    assert_eq!(end.tokens.used, admitted.into_inner());
    assert_eq!((end.tokens.reserved, end.reservations, end.tokens.overage), (0, 0, 0));
    assert!(end.in_flight.peak <= 3);
}

#[test]
fn the_check_is_exact_at_the_cap() {
    // A pool that adds first and compares after admits this one.
    let pool = pool_of(100);
    let hold = pool.reserve(tokens(60)).unwrap();
    assert!(hold.grow(tokens(u64::MAX - 20)).is_err());
    assert!(pool.record(tokens(41)).is_err());
    hold.grow(tokens(40)).unwrap();
    assert_eq!(balance(&pool), [0, 100, 0]);
}
