//! Calls that count once for their key.

use super::*;

fn keys(most: usize, ttl: Duration) -> (ManualClock, BudgetPool) {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("run")
        .tokens(1_000)
        .idempotency_keys(most, ttl)
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    (clock, pool)
}

#[test]
fn p1_a_call_that_comes_again_spends_once_and_one_that_differs_is_a_conflict() {
    let (_, pool) = keys(10, secs(10));
    for _ in 0..3 {
        pool.record_once("job", tokens(600)).unwrap();
    }
    for other in [tokens(601), tokens(600).requests(1), Amount::new(), tokens(0)] {
        let refused = pool.record_once(String::from("job"), other).unwrap_err();
        assert!(matches!(refused, BudgetError::KeyConflict { pool, key, .. }
            if pool == "run" && key == "job"));
    }
    pool.record_once("other job", tokens(400)).unwrap();
    let after = pool.snapshot();
    assert_eq!((after.tokens.used, after.admitted), (1_000, 2));
}

#[test]
fn p7_a_refused_call_is_not_remembered() {
    let (_, pool) = keys(1, secs(10));
    assert_eq!(pool.record_once("job", tokens(1_001)).unwrap_err().axis(), Some(Axis::Tokens));
    pool.record_once("job", tokens(1_000)).unwrap();
    let (_, pool) = keys(1, secs(10));
    pool.record(tokens(1_000)).unwrap();
    assert!(pool.record_once("job", tokens(10)).is_err());
    pool.reset();
    pool.record_once("job", tokens(10)).unwrap();
    assert_eq!(balance(&pool), [10, 0, 0]);
}

#[test]
fn p7_a_pool_that_remembers_all_it_may_says_when_there_is_room() {
    let (clock, pool) = keys(2, secs(10));
    pool.record_once("a", tokens(1)).unwrap();
    clock.advance(secs(3));
    pool.record_once("b", tokens(1)).unwrap();
    clock.advance(secs(1));
    let full = |key, after| {
        let outlook = Outlook::At(clock.now() + after);
        let refused = pool.record_once(key, tokens(1)).unwrap_err();
        assert_eq!((refused.outlook(), refused.retry_after()), (outlook, Some(after)));
        let BudgetError::KeysFull { pool, capacity: most, outlook: said, retry_after, .. } =
            refused
        else {
            panic!("{refused}");
        };
        assert_eq!((pool.as_str(), most), ("run", 2));
        assert_eq!((said, retry_after), (outlook, Some(after)));
    };
    full("c", secs(6));
    pool.record_once("a", tokens(1)).unwrap();
    clock.advance(secs(6) - NANO);
    full("c", NANO);
    clock.advance(NANO);
    pool.record_once("c", tokens(1)).unwrap();
    full("a", secs(3));
    assert_eq!((balance(&pool), pool.snapshot().refused), ([3, 0, 0], 3));
    let refused = pool.record_once("d", tokens(5_000)).unwrap_err();
    assert!(matches!(refused, BudgetError::KeysFull { .. }), "before capacity");
    pool.close();
    assert!(
        matches!(pool.record_once("d", tokens(1)), Err(BudgetError::Closed { .. })),
        "after closed"
    );
}

#[test]
fn p7_what_does_not_fit_when_there_is_room_is_not_promised_to() {
    let (clock, pool) = keys(1, secs(10));
    let held = pool.reserve(tokens(900)).unwrap();
    pool.record_once("a", tokens(40)).unwrap();
    let outlook = |units| pool.record_once("b", tokens(units)).unwrap_err().outlook();
    assert_eq!(outlook(60), Outlook::At(clock.now() + secs(10)));
    assert_eq!([61, 960, 961].map(outlook), {
        use Outlook::{AfterRelease, Never};
        [AfterRelease, AfterRelease, Never]
    });
    drop(held);
}

#[test]
fn p7_there_is_never_room_where_none_is_forgotten_or_none_may_be_known() {
    for (most, ttl, known) in [(0, secs(10), 0), (2, Duration::MAX, 2)] {
        let (clock, pool) = keys(most, ttl);
        (0..known).for_each(|key: u8| _ = pool.record_once(key.to_string(), tokens(1)).unwrap());
        clock.advance(secs(1 << 33));
        let refused = pool.record_once("more", tokens(1)).unwrap_err();
        assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::Never, None));
        (0..known).for_each(|key: u8| _ = pool.record_once(key.to_string(), tokens(1)).unwrap());
        assert_eq!(spent(&pool), u64::from(known));
    }
}

#[test]
fn p7_room_that_comes_only_after_the_deadline_never_does() {
    for (deadline, after) in [(secs(10), None), (secs(10) + NANO, Some(secs(10)))] {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .idempotency_keys(1, secs(10))
            .deadline(deadline)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        pool.record_once("a", tokens(1)).unwrap();
        let refused = pool.record_once("b", tokens(1)).unwrap_err();
        assert!(matches!(refused, BudgetError::KeysFull { .. }));
        assert_eq!(
            (refused.retry_after(), refused.outlook() == Outlook::Never),
            (after, after.is_none())
        );
    }
}

#[test]
fn a_key_remembered_for_no_time_counts_each_time() {
    let pool = BudgetPool::builder().idempotency_keys(1, Duration::ZERO).build();
    (0..3).for_each(|_| _ = pool.record_once("job", tokens(5)).unwrap());
    assert_eq!(spent(&pool), 15);
    let none = BudgetPool::builder().idempotency_keys(0, Duration::ZERO).build();
    let refused = none.record_once("job", tokens(5)).unwrap_err();
    assert!(matches!(refused, BudgetError::KeysFull { capacity: 0, outlook: Outlook::Never, .. }));
}

#[test]
fn a_key_is_forgotten_at_its_time() {
    let (clock, pool) = keys(10, secs(10));
    pool.record_once("job", tokens(1)).unwrap();
    clock.advance(secs(10) - NANO);
    pool.record_once("job", tokens(1)).unwrap();
    assert!(pool.record_once("job", tokens(2)).is_err());
    clock.advance(NANO);
    pool.record_once("job", tokens(2)).unwrap();
    assert_eq!(spent(&pool), 3);
    clock.advance(secs(10) - NANO);
    pool.record_once("job", tokens(2)).unwrap();
    assert_eq!(spent(&pool), 3, "it is remembered anew");
    let (_, pool) = keys(10, Duration::ZERO);
    (0..20).for_each(|_| _ = pool.record_once("job", tokens(1)).unwrap());
    assert_eq!(spent(&pool), 20);
}

#[test]
fn unless_set_a_key_is_remembered_for_an_hour_as_one_of_262_144() {
    let (clock, pool) = pool_of(u64::MAX);
    (0..262_144).for_each(|key: u32| _ = pool.record_once(key.to_string(), tokens(1)).unwrap());
    let full = pool.record_once("more", tokens(1)).unwrap_err();
    assert_eq!(full.to_string(), "keys of `run` full: capacity 262144, will fit in 3600s");
    assert_eq!(full.retry_after(), Some(secs(3_600)));
    clock.advance(secs(3_600));
    pool.record_once("more", tokens(1)).unwrap();
}

#[test]
fn the_bound_holds_whatever_comes_and_no_key_is_forgotten_early() {
    let (clock, pool) = keys(100, secs(100));
    let pool = pool.child().idempotency_keys(100, secs(100)).build();
    let mut told = 0;
    for second in 0_u64..1_000 {
        // Two a second: every other is one too many once the first hundred are known.
        for key in [2 * second, 2 * second + 1] {
            told += u64::from(pool.record_once(key.to_string(), Amount::new().requests(1)).is_ok());
        }
        assert!(
            pool.record_once((2 * second).to_string(), Amount::new().requests(1)).is_ok()
                || second >= 50
        );
        clock.advance(secs(1));
    }
    let spent = pool.snapshot().requests.spent;
    assert_eq!((told, spent), (1_000, 1_000), "a hundred in each hundred seconds");
}

#[test]
fn each_pool_has_its_own_keys() {
    let (_, root) = keys(10, secs(10));
    let [a, b] = [(); 2].map(|()| root.child().build());
    for pool in [&root, &a, &b, &a] {
        pool.record_once("job", tokens(10)).unwrap();
    }
    assert_eq!([balance(&root), balance(&a), balance(&b)], [[30, 0, 0], [10, 0, 0], [10, 0, 0]]);
    a.record_once("other", tokens(5)).unwrap();
    root.record_once("other", tokens(6)).unwrap();
}

#[test]
fn p2_what_is_known_is_answered_after_a_reset_the_deadline_and_the_close() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(100)
        .deadline(secs(10))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    pool.record_once("job", tokens(100)).unwrap();
    pool.reset();
    pool.record_once("job", tokens(100)).unwrap();
    assert_eq!(balance(&pool), [0, 0, 0]);
    clock.advance(secs(10));
    pool.record_once("job", tokens(100)).unwrap();
    assert_eq!(pool.record_once("new", tokens(1)).unwrap_err().axis(), Some(Axis::Deadline));
    pool.close();
    pool.record_once("job", tokens(100)).unwrap();
    assert!(matches!(pool.record_once("job", tokens(1)), Err(BudgetError::KeyConflict { .. })));
    assert!(matches!(pool.record_once("new", tokens(1)), Err(BudgetError::Closed { .. })));
    assert_eq!(spent(&pool), 100);
}

#[test]
fn p1_two_threads_with_one_key_spend_once() {
    let pool = BudgetPool::unlimited();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                (0..5_000)
                    .for_each(|key: u32| _ = pool.record_once(key.to_string(), tokens(3)).unwrap());
            });
        }
    });
    assert_eq!((spent(&pool), pool.snapshot().admitted), (15_000, 5_000));
}
