//! P8: the clock is read only where the time matters.

use super::*;

type Call = fn(&BudgetPool, &mut Reservation);

/// Those that ask.
const ASK: [Call; 8] = [
    |pool, _| pool.record(tokens(1)).unwrap(),
    |pool, _| pool.peek(tokens(1)).unwrap(),
    |pool, _| forget(pool.reserve(tokens(1)).unwrap()),
    |pool, _| pool.raise_caps(Caps::new().tokens(1)).unwrap(),
    |pool, _| drop(pool.record(tokens(u64::MAX))),
    |_, hold| hold.grow(tokens(1)).unwrap(),
    |_, hold| hold.record(tokens(1)).unwrap(),
    |_, hold| forget(hold.split(tokens(1)).unwrap()),
];

/// Those that tell or look.
const TELL: [Call; 8] = [
    |pool, _| _ = pool.debit(tokens(1)),
    |pool, _| _ = pool.snapshot(),
    |pool, _| _ = pool.snapshot_tree(),
    |pool, _| _ = pool.holders(),
    |pool, _| pool.lower_caps(Caps::new().tokens(1)).unwrap(),
    |_, hold| _ = hold.debit(tokens(1)),
    |_, hold| _ = hold.amount(),
    |_, hold| hold.shrink(tokens(1)).unwrap(),
];

/// Those that end a hold.
const END: [fn(Reservation); 6] = [
    drop,
    Reservation::release,
    |hold| _ = hold.commit_all(),
    |hold| _ = hold.commit(tokens(1)),
    |hold| _ = hold.try_commit(tokens(1)).unwrap(),
    |hold| forget(hold.commit_on_drop()),
];

/// Those that need no time in any tree.
fn use_the_rest(pool: &BudgetPool) {
    drop(pool.reserve_wait(tokens(1)));
    drop(pool.closed());
    drop((
        pool.clone(),
        pool.is_closed(),
        pool.name().len(),
        format!("{pool:?}"),
        pool.child().build(),
    ));
}

/// How often each of them reads the clock, all being alike.
fn each(counting: &Counting, pool: &BudgetPool, calls: &[Call]) -> u64 {
    let mut hold = pool.reserve(tokens(100)).unwrap();
    counting.reads();
    let reads: Vec<_> = calls
        .iter()
        .map(|call| {
            call(pool, &mut hold);
            counting.reads()
        })
        .collect();
    forget(hold);
    assert!(reads.iter().all(|&read| read == reads[0]), "{reads:?}");
    reads[0]
}

fn each_end(counting: &Counting, pool: &BudgetPool) -> u64 {
    let holds = END.map(|_| pool.reserve(tokens(1)).unwrap());
    counting.reads();
    END.iter().zip(holds).for_each(|(end, hold)| end(hold));
    let reads = counting.reads();
    assert_eq!(reads % 6, 0, "{reads}");
    reads / 6
}

fn asked_told_ended(counting: &Counting, pool: &BudgetPool) -> [u64; 3] {
    [each(counting, pool, &ASK), each(counting, pool, &TELL), each_end(counting, pool)]
}

#[test]
fn without_any_time_the_clock_is_never_read() {
    let counting = Counting::new();
    let pool = BudgetPool::builder()
        .tokens(10_000)
        .in_flight(1_000)
        .clock(counting.clock())
        .timer(by_hand)
        .build();
    let child = pool.child().tokens(1_000).build();
    let share = child.child().tokens(500).carved().build().unwrap();
    for pool in [&share, &child, &pool] {
        assert_eq!(asked_told_ended(&counting, pool), [0; 3]);
        use_the_rest(pool);
        pool.reserve_blocking(tokens(1)).unwrap().commit_all();
        assert_eq!(pool.reserve(tokens(1)).unwrap().label("last").time_left(), None);
        pool.reset();
        pool.close();
    }
    assert_eq!(counting.reads(), 0);
}

#[test]
fn with_a_deadline_alone_only_what_asks_reads_it() {
    let counting = Counting::new();
    let pool = BudgetPool::builder()
        .tokens(10_000)
        .deadline(secs(10))
        .clock(counting.clock())
        .timer(by_hand)
        .build();
    assert_eq!(counting.reads(), 1);
    assert_eq!(asked_told_ended(&counting, &pool), [1, 0, 0]);
    counting.reads();
    use_the_rest(&pool);
    pool.reset();
    pool.close();
    assert_eq!(counting.reads(), 0);
}

#[test]
fn a_hold_that_may_expire_makes_the_whole_tree_read_it_while_it_lives() {
    for end in [drop, forget, |hold: Reservation| _ = hold.commit_all()] {
        let counting = Counting::new();
        let pool =
            BudgetPool::builder().tokens(10_000).clock(counting.clock()).timer(by_hand).build();
        let [child, sibling] = [(); 2].map(|()| pool.child().build());
        counting.reads();
        let hold = child.reserve(Ask::new(tokens(1)).ttl(secs(10))).unwrap();
        assert_eq!(counting.reads(), 1);
        for pool in [&pool, &child, &sibling] {
            assert_eq!(asked_told_ended(&counting, pool), [1; 3]);
        }
        end(hold);
        counting.clock.advance(secs(10));
        drop(sibling.snapshot());
        for pool in [&pool, &child, &sibling] {
            assert_eq!(asked_told_ended(&counting, pool), [0; 3]);
        }
    }
}

#[test]
fn a_call_that_takes_a_time_or_a_key_reads_it_once() {
    let counting = Counting::new();
    let pool = BudgetPool::builder().tokens(10_000).clock(counting.clock()).timer(by_hand).build();
    assert_eq!(counting.reads(), 0);
    pool.record_once("key", tokens(1)).unwrap();
    assert_eq!(counting.reads(), 1);
    let hold = pool.reserve(Ask::new(tokens(1)).ttl(Duration::MAX)).unwrap();
    assert_eq!(counting.reads(), 1);
    hold.renew(Duration::MAX).unwrap();
    assert_eq!(counting.reads(), 1);
    assert_eq!(asked_told_ended(&counting, &pool), [0; 3], "none of these may expire");
    hold.renew(secs(1)).unwrap();
    assert_eq!((counting.reads(), hold.time_left(), counting.reads()), (1, Some(secs(1)), 1));
    assert_eq!(asked_told_ended(&counting, &pool), [1; 3]);
}

#[test]
fn a_window_makes_its_path_read_it() {
    let counting = Counting::new();
    let root = BudgetPool::builder().tokens(10_000).clock(counting.clock()).timer(by_hand).build();
    let sibling = root.child().build();
    let turning = root.child().tokens(5_000).window(Window::fixed(secs(60))).build();
    assert_eq!(counting.reads(), 1, "it starts now");
    let below = turning.child().build();
    let share = turning.child().tokens(1_000).carved().build().unwrap();
    for pool in [&turning, &below, &share] {
        assert_eq!(asked_told_ended(&counting, pool), [1; 3]);
    }
    counting.reads();
    use_the_rest(&turning);
    turning.close();
    assert_eq!(counting.reads(), 0);
    for pool in [&root, &sibling] {
        assert_eq!((each(&counting, pool, &ASK), each_end(&counting, pool)), (0, 0));
        pool.debit(tokens(1));
        drop((pool.snapshot(), pool.holders(), pool.reset()));
        assert_eq!(counting.reads(), 0);
    }
    drop(root.snapshot_tree());
    assert_eq!(counting.reads(), 1, "to turn what is below");
}

#[test]
fn a_window_beside_a_pool_is_no_reason_to_read_it_for_the_tree_below() {
    let counting = Counting::new();
    let root = BudgetPool::builder().clock(counting.clock()).timer(by_hand).build();
    let _turning = root.child().tokens(1).window(Window::fixed(secs(60))).build();
    let plain = root.child().build();
    let _below = plain.child().build();
    counting.reads();
    assert_eq!((plain.snapshot_tree().iter().count(), counting.reads()), (2, 0));
    assert_eq!((root.snapshot_tree().iter().count(), counting.reads()), (4, 1));
}

#[test]
fn a_window_that_is_gone_needs_no_time() {
    let counting = Counting::new();
    let root = BudgetPool::builder().clock(counting.clock()).timer(by_hand).build();
    drop(root.child().window(Window::fixed(secs(60))).build());
    assert_eq!(
        (counting.reads(), root.snapshot_tree().iter().count(), counting.reads()),
        (1, 1, 0)
    );
}

/// Time decides about a pool that has used some of its window, unless somebody holds it.
#[test]
fn an_eviction_asks_nothing_of_a_pool_that_somebody_holds() {
    let counting = Counting::new();
    let root = BudgetPool::builder().clock(counting.clock()).timer(by_hand).build();
    let tenants = Keyed::<u64>::new(root);
    let held = tenants.get_or_build(&7, |pool| pool.tokens(9).window(Window::fixed(secs(60))));
    held.record(tokens(1)).unwrap();
    counting.reads();
    assert_eq!((tenants.evict_idle(), counting.reads()), (0, 0));
    drop(held);
    assert_eq!((tenants.evict_idle(), counting.reads()), (0, 1));
}
