//! P8, windows, resets and deadlines with leases.

use super::*;

fn counting(start: Instant) -> (Arc<AtomicU64>, impl Fn() -> Instant + Send + Sync + 'static) {
    let reads = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&reads);
    let clock = move || {
        counter.fetch_add(1, Ordering::Relaxed);
        start
    };
    (reads, clock)
}

#[test]
fn a_share_is_spent_without_the_clock_and_a_refill_reads_it_only_if_the_path_has_time() {
    let run = |builder: budget_pool::PoolBuilder<budget_pool::Root>| {
        let (reads, clock) = counting(Instant::now());
        let pool = builder.tokens(1_000).clock(clock).build();
        let mut counts = Vec::new();
        let mut count = || counts.push(reads.swap(0, Ordering::Relaxed));
        count();
        let mut lease = pool.lease(tokens(10));
        count();
        lease.record(tokens(1)).unwrap();
        count();
        lease.record(tokens(3)).unwrap();
        lease.debit(tokens(3));
        count();
        lease.record(tokens(8)).unwrap();
        count();
        lease.debit(tokens(11));
        count();
        lease.settle();
        count();
        drop(lease);
        count();
        counts.remove(0);
        counts
    };
    assert_eq!(run(BudgetPool::builder()), [0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        run(BudgetPool::builder().deadline(Duration::from_secs(1))),
        [0, 1, 0, 1, 0, 0, 0],
        "what asks"
    );
    assert_eq!(
        run(BudgetPool::builder().window(Window::fixed(Duration::from_secs(1)))),
        [0, 1, 0, 1, 1, 1, 1]
    );
}

#[test]
fn a_deadline_reaches_a_lease_at_its_next_refill() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(100)
        .deadline(Duration::from_secs(1))
        .clock(clock.clone())
        .build();
    let mut lease = filled(&pool, tokens(10));
    lease.record(tokens(2)).unwrap();
    clock.advance(Duration::from_secs(1));
    lease.record(tokens(3)).unwrap();
    assert!(matches!(lease.record(tokens(6)), Err(BudgetError::DeadlineExceeded(_))));
    assert_eq!((balance(&pool), lease.remaining()), ([6, 5, 0], tokens(5)));
    let first = pool.lease(tokens(10)).record(tokens(1));
    assert!(matches!(first, Err(BudgetError::DeadlineExceeded(_))));
    assert_eq!(lease.debit(tokens(9)).overage(), tokens(0));
    drop(lease);
    assert_eq!(balance(&pool), [15, 0, 0]);
}

#[test]
fn a_windows_turn_makes_room_for_a_refill_and_what_was_not_settled_is_of_the_new_period() {
    let (clock, period) = (ManualClock::new(), Duration::from_secs(60));
    let pool = BudgetPool::builder()
        .tokens(100)
        .window(Window::fixed(period))
        .clock(clock.clone())
        .build();
    let mut lease = filled(&pool, tokens(10));
    pool.record(tokens(89)).unwrap();
    lease.record(tokens(6)).unwrap();
    let refused = lease.record(tokens(5)).unwrap_err();
    assert_eq!(refused.retry_after(), Some(period));
    lease.record(tokens(1)).unwrap();
    clock.advance(period);
    lease.record(tokens(5)).unwrap();
    assert_eq!((balance(&pool), lease.remaining()), ([6, 10, 0], tokens(10)));
    assert_eq!(pool.snapshot().tokens.spent, 102);
}

#[test]
fn a_token_bucket_gives_back_what_a_lease_has_settled_and_not_its_share() {
    let (clock, period) = (ManualClock::new(), Duration::from_secs(100));
    let pool = BudgetPool::builder()
        .tokens(100)
        .window(Window::token_bucket(period))
        .clock(clock.clone())
        .build();
    let mut lease = filled(&pool, tokens(10));
    lease.record(tokens(10)).unwrap();
    clock.advance(period);
    assert_eq!(balance(&pool), [0, 10, 0]);
    pool.record(tokens(90)).unwrap();
    assert_eq!(
        lease.record(tokens(1)).unwrap_err().retry_after(),
        Some(Duration::from_secs(1)),
        "settled now"
    );
    assert_eq!(balance(&pool), [100, 0, 0]);
    clock.advance(period);
    lease.record(tokens(100)).unwrap();
    assert_eq!((balance(&pool), lease.remaining()), ([100, 0, 0], tokens(0)));
}

#[test]
fn a_hold_that_expires_makes_room_for_a_refill() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).build();
    let mut lease = filled(&pool, tokens(10));
    let _hold = pool.reserve(Ask::new(tokens(89)).ttl(Duration::from_secs(1))).unwrap();
    assert!(lease.record(tokens(11)).is_err());
    clock.advance(Duration::from_secs(1));
    lease.record(tokens(11)).unwrap();
    assert_eq!((balance(&pool), lease.remaining()), ([12, 10, 0], tokens(10)));
}

#[test]
fn what_is_beyond_the_share_reclaims_as_many_expired_holds_as_it_needs() {
    for tell in [false, true] {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().tokens(100).clock(clock.clone()).build();
        let mut lease = filled(&pool, tokens(10));
        let ttl = Duration::from_secs(1);
        let _holds: Vec<_> =
            (0..40).map(|_| pool.reserve(Ask::new(tokens(2)).ttl(ttl)).unwrap()).collect();
        clock.advance(ttl);
        match tell {
            true => assert_eq!(lease.debit(tokens(99)).overage(), tokens(0)),
            false => lease.record(tokens(99)).unwrap(),
        }
        assert_eq!(balance(&pool), [100, 0, 0]);
    }
}
