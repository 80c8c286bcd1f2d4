use super::*;

#[test]
fn a_thread_waits_for_another() {
    let pool = pool_of(100);
    let held = pool.reserve(tokens(100)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pool.reserve_blocking(tokens(70)).unwrap().amount());
        while pool.snapshot().waiting == 0 {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(waiting.join().unwrap(), tokens(70));
    });
}

#[test]
fn a_wait_in_vain_ends_and_leaves_no_trace() {
    let pool = pool_of(100);
    let _held = pool.reserve(tokens(100)).unwrap();
    let refusal = pool
        .reserve_blocking(Ask::new(tokens(1)).wait_at_most(Duration::from_millis(20)))
        .unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "waited in vain in `run` for 20ms: tokens of `run` exceeded: 1 requested, 0 available, \
         cap 100, may fit after a release"
    );
    assert_eq!(
        (refusal.pool(), refusal.axis(), refusal.outlook()),
        ("run", Some(Axis::Tokens), Outlook::AfterRelease)
    );
    assert_eq!(pool.snapshot().waiting, 0);
    assert!(pool.reserve_blocking(Ask::new(tokens(1)).wait_at_most(Duration::ZERO)).is_err());
}

#[test]
fn what_is_there_is_granted_whatever_the_timeout_and_one_beyond_all_instants_is_none() {
    let pool = pool_of(10);
    pool.reserve_blocking(Ask::new(tokens(10)).wait_at_most(Duration::ZERO)).unwrap().release();
    let held = pool.reserve(tokens(10)).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            pool.reserve_blocking(Ask::new(tokens(1)).wait_at_most(Duration::MAX))
                .map(|hold| hold.amount())
        });
        while pool.snapshot().waiting == 0 && !waiting.is_finished() {
            std::thread::yield_now();
        }
        drop(held);
        assert_eq!(waiting.join().unwrap(), Ok(tokens(1)));
    });
}

#[test]
fn the_deadline_ends_it() {
    let above = pool_of(1);
    let _held = above.reserve(tokens(1)).unwrap();
    let pool = above.child().deadline(Duration::from_millis(30)).build();
    let refusal = pool.reserve_blocking(tokens(1)).unwrap_err();
    assert_eq!(refusal.axis(), Some(Axis::Deadline));
}

#[test]
fn many_threads_share_and_nothing_leaks() {
    let pool = BudgetPool::builder().in_flight(3).tokens(10).build();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for step in 0..500 {
                    let hold = pool.reserve_blocking(tokens((thread + step) % 11)).unwrap();
                    hold.release();
                }
            });
        }
    });
    let end = pool.snapshot();
    assert_eq!(
        (end.admitted, end.refused, end.waiting, end.tokens.reserved, end.reservations),
        (4_000, 0, 0, 0, 0)
    );
    assert!(end.in_flight.peak <= 3);
}
