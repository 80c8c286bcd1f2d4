//! P8: the clock is read only where time matters.

use super::*;

fn counting() -> (Arc<AtomicU64>, impl Fn() -> Instant + Send + Sync + 'static) {
    let reads = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&reads);
    (reads, move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Instant::now()
    })
}

fn use_everything(pool: &BudgetPool) {
    pool.record(tokens(1)).unwrap();
    pool.peek(tokens(1)).unwrap();
    let hold = pool.reserve(tokens(9)).unwrap();
    hold.grow(tokens(1)).unwrap();
    hold.record(tokens(1)).unwrap();
    drop(hold.split(tokens(1)).unwrap());
}

#[test]
fn without_a_deadline_the_clock_is_never_read() {
    let (reads, clock) = counting();
    let pool = BudgetPool::builder().clock(clock).tokens(1_000).build();
    let child = pool.child().tokens(100).carved().build().unwrap();
    use_everything(&pool);
    use_everything(&child);
    pool.debit(tokens(1));
    pool.raise_caps(Caps::new().tokens(1)).unwrap();
    pool.lower_caps(Caps::new().tokens(1)).unwrap();
    assert_eq!(pool.time_left(), None);
    drop((pool.snapshot_tree(), pool.holders(), pool.reset()));
    pool.close();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
}

#[test]
fn with_a_deadline_each_call_that_asks_reads_it_once() {
    let (reads, clock) = counting();
    let pool = BudgetPool::builder().clock(clock).build();
    let timed = pool.child().deadline(Duration::from_secs(3_600)).build();
    assert_eq!(
        reads.swap(0, Ordering::Relaxed),
        1,
        "the child's deadline is reckoned from its build"
    );
    let below = timed.child().build();
    assert_eq!(reads.load(Ordering::Relaxed), 0);
    use_everything(&below);
    assert_eq!(reads.swap(0, Ordering::Relaxed), 6);
    use_everything(&pool);
    below.debit(tokens(1));
    below.reserve(tokens(1)).unwrap().commit(tokens(1));
    drop((below.snapshot_tree(), below.reset()));
    assert_eq!(reads.load(Ordering::Relaxed), 1, "the reserve");
}

#[test]
fn time_never_runs_back() {
    let start = Instant::now();
    let offset = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&offset);
    let clock = move || start + Duration::from_secs(read.load(Ordering::Relaxed));
    let pool = BudgetPool::builder().clock(clock).deadline(Duration::from_secs(10)).build();
    offset.store(10, Ordering::Relaxed);
    assert!(pool.record(tokens(1)).is_err());
    offset.store(5, Ordering::Relaxed);
    assert!(pool.record(tokens(1)).is_err(), "late once is late for good");
}

#[test]
fn the_earliest_deadline_counts_and_is_named() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder()
        .name("root")
        .deadline(Duration::from_secs(10))
        .clock(clock.clone())
        .build();
    let short = root.child().name("short").deadline(Duration::from_secs(2)).build();
    let long = root.child().name("long").deadline(Duration::from_secs(60)).build();
    let hold = long.reserve(tokens(1)).unwrap();
    assert_eq!(short.time_left(), Some(Duration::from_secs(2)));
    assert_eq!(hold.time_left(), Some(Duration::from_secs(10)));
    clock.advance(Duration::from_secs(2));
    assert_eq!(short.child().build().record(tokens(1)).unwrap_err().pool(), "short");
    long.record(tokens(1)).unwrap();
    clock.advance(Duration::from_secs(9));
    let error = long.record(tokens(1)).unwrap_err();
    assert_eq!(error.to_string(), "deadline of `root` exceeded: 11s elapsed, budget 10s");
    assert_eq!(hold.time_left(), Some(Duration::ZERO));
    let BudgetError::DeadlineExceeded(late) = error else { panic!("{error}") };
    assert_eq!((late.budget(), late.elapsed()), (Duration::from_secs(10), Duration::from_secs(11)));
    assert_eq!((late.needed(), late.pool()), (Duration::ZERO, Some("root")));
}

#[test]
fn a_panicking_clock_leaves_the_pool_as_it_was() {
    let armed = Arc::new(AtomicU64::new(0));
    let trigger = Arc::clone(&armed);
    let clock = move || {
        if trigger.load(Ordering::Relaxed) == 1 {
            std::panic::resume_unwind(Box::new("on purpose"));
        }
        Instant::now()
    };
    let pool =
        BudgetPool::builder().tokens(10).deadline(Duration::from_secs(3_600)).clock(clock).build();
    armed.store(1, Ordering::Relaxed);
    assert!(std::panic::catch_unwind(|| pool.record(tokens(1))).is_err());
    armed.store(0, Ordering::Relaxed);
    pool.record(tokens(10)).unwrap();
    assert_eq!(balance(&pool), [10, 0, 0]);
}
