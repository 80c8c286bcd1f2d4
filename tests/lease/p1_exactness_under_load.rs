//! P1 under threads: to the unit.

use super::*;

const CAPS: [u64; 2] = [60_000, 20_000];

/// Used, reserved, available of the pair: adds up to the caps at every instant.
fn look(pool: &BudgetPool) -> [[u64; 2]; 3] {
    let snapshot = pool.snapshot();
    let (tokens, requests) = (snapshot.tokens, snapshot.requests);
    let seen = [
        [tokens.used, requests.used],
        [tokens.reserved, requests.reserved],
        [tokens.available.unwrap(), requests.available.unwrap()],
    ];
    for axis in 0..2 {
        assert_eq!(seen.iter().map(|units| units[axis]).sum::<u64>(), CAPS[axis], "P1");
    }
    assert_eq!((tokens.overage, requests.overage), (0, 0));
    seen
}

/// What each has spent before any of them works: a share that is filled only then may come too
/// late to be stranded.
const FIRST: [u64; 2] = [1, 1];

/// The even ones spend to the last unit, one by one. The odd ones stop at their first refusal,
/// or earlier, and leave what they have stranded.
fn work(worker: u64, lease: &mut Lease) -> [u64; 2] {
    let mut dice = Dice::of(worker);
    let mut spent = FIRST;
    let mut spend = |lease: &mut Lease, asked: [u64; 2]| {
        let before = lease.remaining();
        let admitted = lease.record(amount(asked)).is_ok();
        if admitted {
            spent = [spent[0] + asked[0], spent[1] + asked[1]];
            assert!(spent[0] <= CAPS[0] && spent[1] <= CAPS[1], "P1");
        } else {
            assert_eq!(lease.remaining(), before, "P7");
        }
        admitted
    };
    for step in 0.. {
        let asked = [dice.roll(24), dice.roll(8)];
        if !spend(lease, asked) || (worker % 2 == 1 && step == 600) {
            break;
        }
    }
    if worker % 2 == 0 {
        while spend(lease, [1, 0]) {}
        while spend(lease, [0, 1]) {}
    }
    spent
}

#[test]
fn what_is_used_and_what_is_stranded_are_the_cap_to_the_unit() {
    let pool = BudgetPool::builder().tokens(CAPS[0]).requests(CAPS[1]).build();
    let done = AtomicBool::new(false);
    let leases = [0, 1, 2, 3, 4, 5, 6, 7].map(|worker| {
        let mut lease = pool.lease(both(500, 150));
        lease.record(amount(FIRST)).unwrap();
        assert_eq!(lease.remaining(), both(500, 150));
        (worker, lease)
    });
    let leased = std::thread::scope(|scope| {
        let monitor = scope.spawn(|| {
            let mut used = [0; 2];
            loop {
                let is_last = done.load(Ordering::Relaxed);
                let [now, ..] = look(&pool);
                assert!(now[0] >= used[0] && now[1] >= used[1], "what is spent stays spent");
                used = now;
                if is_last {
                    break;
                }
                std::thread::yield_now();
            }
        });
        let workers = leases.map(|(worker, mut lease)| {
            scope.spawn(move || {
                let spent = work(worker, &mut lease);
                (lease, spent)
            })
        });
        let leased = workers.map(|worker| worker.join());
        // Before any of them can fail the test: it must end.
        done.store(true, Ordering::Relaxed);
        let leased = leased.map(|leased| leased.unwrap());
        monitor.join().unwrap();
        leased
    });

    let total = |each: fn(&(Lease, [u64; 2])) -> [u64; 2]| {
        leased.iter().map(each).fold([0; 2], |sum, units| [sum[0] + units[0], sum[1] + units[1]])
    };
    let spent = total(|(_, spent)| *spent);
    let stranded = total(|(lease, _)| units(lease.remaining()));
    let in_even_hands =
        leased.iter().step_by(2).any(|(lease, _)| units(lease.remaining()) != [0; 2]);
    assert!(!in_even_hands, "spent to the last unit");
    assert!(stranded != [0; 2], "the odd ones stop with something");
    let [used, reserved, available] = look(&pool);
    for axis in 0..2 {
        assert!(used[axis] <= spent[axis], "it lags");
        assert_eq!((spent[axis] + stranded[axis], available[axis]), (CAPS[axis], 0));
        assert_eq!(used[axis] + reserved[axis], CAPS[axis]);
    }

    drop(leased);
    assert_eq!(look(&pool), [spent, [0, 0], stranded]);
    pool.record(amount(stranded)).unwrap();
    assert_eq!(look(&pool), [CAPS, [0, 0], [0, 0]]);
    assert!(pool.record(tokens(1)).is_err() && pool.record(both(0, 1)).is_err());
}
