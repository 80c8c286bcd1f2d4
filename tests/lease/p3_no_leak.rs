//! P3 with leases.

use super::*;

#[test]
fn what_is_left_goes_back_once_however_it_ends() {
    fn fails(pool: &BudgetPool) -> Result<(), BudgetError> {
        let mut lease = filled(pool, tokens(10));
        lease.record(tokens(1))?;
        lease.record(tokens(1_000))
    }
    let pool = pool_of(100);
    fails(&pool).unwrap_err();
    assert_eq!(balance(&pool), [2, 0, 0]);
    let panicked = catch_unwind(|| {
        let mut lease = filled(&pool, tokens(10));
        lease.record(tokens(2)).unwrap();
        panic!("in the middle");
    });
    assert!(panicked.is_err());
    assert_eq!(balance(&pool), [5, 0, 0]);
    std::thread::scope(|scope| {
        let mut lease = filled(&pool, tokens(10));
        scope.spawn(move || lease.record(tokens(4)).unwrap());
    });
    assert_eq!(balance(&pool), [10, 0, 0]);
    drop(pool.lease(tokens(10)));
    pool.record(tokens(90)).unwrap();
}

#[test]
fn a_forgotten_lease_is_held_for_ever() {
    let pool = pool_of(100);
    let mut lease = filled(&pool, tokens(10));
    lease.record(tokens(4)).unwrap();
    std::mem::forget(lease);
    pool.reset();
    pool.close();
    assert_eq!((balance(&pool), pool.snapshot().tokens.spent), ([0, 10, 0], 1));
}

#[test]
fn a_lease_is_listed_but_is_no_reservation() {
    let pool = BudgetPool::builder().name("run").tokens(100).in_flight(1).build();
    let child = pool.child().name("child").build();
    let hold = pool.reserve(tokens(3)).unwrap().label("hold");
    let mut lease = child.lease(tokens(10));
    let list = |pool: &BudgetPool| -> Vec<_> {
        let holders = pool.holders();
        holders
            .into_iter()
            .map(|holder| (holder.pool.to_string(), holder.label, holder.amount))
            .collect()
    };
    let leased = |left| ("child".to_owned(), None, left);
    let held = ("run".to_owned(), Some("hold".into()), tokens(3));
    assert_eq!(list(&pool), [held.clone(), leased(Amount::new())]);
    lease.record(tokens(1)).unwrap();
    lease.record(tokens(4)).unwrap();
    assert_eq!(list(&pool), [leased(tokens(10)), held]);
    lease.settle();
    assert_eq!(list(&child), [leased(tokens(6))], "what is not settled is listed as held");
    let snapshot = pool.snapshot();
    assert_eq!((snapshot.reservations, snapshot.in_flight.reserved), (1, 1));
    drop((hold, lease));
    assert_eq!((list(&pool).len(), pool.snapshot().reservations), (0, 0));
}

#[test]
fn a_lease_keeps_its_pool_alive() {
    let root = pool_of(100);
    let mut lease = root.child().name("child").tokens(20).build().lease(tokens(5));
    assert_eq!((root.snapshot_tree().len(), lease.pool().name()), (2, "child"));
    lease.record(tokens(6)).unwrap();
    drop(lease);
    assert_eq!((root.snapshot_tree().len(), balance(&root)), (1, [6, 0, 0]));
}

#[test]
fn a_clock_that_panics_changes_nothing_and_cannot_stop_a_drop() {
    let (broken, start) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let clock = {
        let broken = Arc::clone(&broken);
        move || if broken.load(Ordering::Relaxed) { panic!("a broken clock") } else { start }
    };
    let window = Window::fixed(Duration::from_secs(60));
    let pool = BudgetPool::builder().tokens(100).window(window).clock(clock).build();
    let mut lease = filled(&pool, tokens(10));
    lease.record(tokens(4)).unwrap();
    broken.store(true, Ordering::Relaxed);
    assert!(catch_unwind(AssertUnwindSafe(|| lease.record(tokens(9)))).is_err());
    lease.settle();
    lease.record(tokens(1)).unwrap();
    assert_eq!(
        (lease.remaining(), balance(&pool)),
        (tokens(5), [5, 6, 0]),
        "what tells takes no time then"
    );
    drop(lease);
    let mut new = pool.lease(tokens(10));
    assert!(catch_unwind(AssertUnwindSafe(|| new.record(tokens(1)))).is_err());
    broken.store(false, Ordering::Relaxed);
    assert_eq!((new.remaining(), balance(&pool)), (tokens(0), [6, 0, 0]));
}
