//! Holds that expire: until when they live, and what their owners can still tell.

use super::*;

#[test]
fn p3_a_hold_lives_until_its_instant_and_has_expired_at_it() {
    let (clock, pool) = pool_of(100);
    let hold = pool.reserve(Ask::new(tokens(60)).ttl(secs(10))).unwrap();
    clock.advance(secs(10) - NANO);
    assert!(pool.record(tokens(41)).is_err());
    assert_eq!(
        (hold.amount(), hold.time_left(), pool.holders().len()),
        (tokens(60), Some(NANO), 1)
    );
    clock.advance(NANO);
    assert_eq!((hold.time_left(), hold.amount()), (Some(Duration::ZERO), Amount::new()));
    pool.record(tokens(100)).unwrap();
    assert_eq!(hold.time_left(), Some(Duration::ZERO));
}

#[test]
fn p3_a_forgotten_guard_leaks_nothing() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .tokens(100)
        .usd(Usd::from_nanos(5))
        .in_flight(1)
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    forget(pool.reserve(Ask::new(tokens(100).usd(Usd::from_nanos(5))).ttl(secs(1))).unwrap());
    assert_eq!(pool.reserve(Amount::new()).unwrap_err().axis(), Some(Axis::InFlight));
    clock.advance(secs(1));
    let after = pool.snapshot();
    assert_eq!(
        (after.tokens.reserved, after.usd.reserved, after.in_flight.reserved),
        (0, Usd::from_nanos(0), 0)
    );
    assert_eq!((after.reservations, after.tokens.spent, pool.holders().len()), (0, 0, 0));
    let next = pool.reserve(tokens(100).usd(Usd::from_nanos(5))).unwrap();
    clock.advance(secs(1_000));
    assert_eq!(
        (balance(&pool), pool.snapshot().reservations, next.amount().tokens_held()),
        ([0, 100, 0], 1, 100)
    );
}

trait TokensHeld {
    fn tokens_held(&self) -> u64;
}

impl TokensHeld for Amount {
    fn tokens_held(&self) -> u64 {
        self.get(Axis::Tokens).map_or(0, |tokens| tokens.units())
    }
}

/// A hold of 40 tokens and 5 nanos, of which 10 tokens were metered in time: it has expired.
fn late(is_reclaimed: bool) -> (BudgetPool, Reservation) {
    let (clock, pool) = pool_of(100);
    let hold = pool.reserve(Ask::new(tokens(50).usd(Usd::from_nanos(5))).ttl(secs(1))).unwrap();
    hold.record(tokens(10)).unwrap();
    clock.advance(secs(1));
    if is_reclaimed {
        assert_eq!(balance(&pool), [10, 0, 0]);
    }
    (pool, hold)
}

#[test]
fn p2_after_expiry_what_is_told_is_booked_and_marked() {
    type Tell = fn(Reservation) -> Receipt;
    let cases: [(Tell, Amount, u64); 7] = [
        (|hold| hold.commit(tokens(40)), tokens(30).usd(Usd::from_nanos(5)), 40),
        (
            |hold| hold.commit(tokens(40).usd(Usd::from_nanos(0))),
            tokens(30).usd(Usd::from_nanos(0)),
            40,
        ),
        (|hold| hold.commit(tokens(4)), tokens(0).usd(Usd::from_nanos(5)), 4),
        (Reservation::commit_all, tokens(40).usd(Usd::from_nanos(5)), 50),
        (|hold| hold.commit(tokens(35)), tokens(25).usd(Usd::from_nanos(5)), 35),
        (|hold| hold.debit(tokens(7)), tokens(7), 17),
        (
            |hold| {
                hold.debit(tokens(7));
                hold.commit_all()
            },
            tokens(33).usd(Usd::from_nanos(5)),
            50,
        ),
    ];
    for (case, (tell, settled, used)) in cases.into_iter().enumerate() {
        for is_reclaimed in [false, true] {
            let (pool, hold) = late(is_reclaimed);
            let receipt = tell(hold);
            assert!(receipt.is_late(), "{case}");
            assert_eq!((receipt.settled(), receipt.overage().is_zero()), (settled, true), "{case}");
            assert_eq!((balance(&pool), pool.snapshot().reservations), ([used, 0, 0], 0), "{case}");
        }
    }
}

#[test]
fn p2_a_late_commit_that_does_not_fit_any_more_is_overage_and_one_in_time_is_not_marked() {
    let (pool, hold) = late(false);
    pool.record(tokens(80)).unwrap();
    let receipt = hold.commit(tokens(40));
    assert_eq!(
        (receipt.overage(), balance(&pool)),
        (tokens(20).usd(Usd::from_nanos(0)), [100, 0, 20])
    );
    let (clock, pool) = pool_of(100);
    let [hold, whole] = [(); 2].map(|()| pool.reserve(Ask::new(tokens(10)).ttl(secs(1))).unwrap());
    clock.advance(secs(1) - NANO);
    assert!(!hold.debit(tokens(1)).is_late() && !hold.commit_all().is_late());
    assert!(!whole.try_commit(tokens(1)).unwrap().is_late() && !pool.debit(tokens(1)).is_late());
}

#[test]
fn p7_after_expiry_what_asks_is_refused_and_changes_nothing() {
    for is_reclaimed in [false, true] {
        let (pool, hold) = late(is_reclaimed);
        let refusals = [
            hold.record(tokens(1)).unwrap_err(),
            hold.grow(tokens(1)).unwrap_err(),
            hold.shrink(tokens(1)).unwrap_err(),
            hold.split(tokens(1)).unwrap_err(),
            hold.renew(secs(10)).unwrap_err(),
        ];
        assert!(refusals.iter().all(is_expired), "{refusals:?}");
        let refused = hold.try_commit(tokens(1)).unwrap_err();
        assert!(is_expired(refused.error()));
        assert_eq!(refused.error().outlook(), Outlook::Never);
        assert_eq!((balance(&pool), pool.snapshot().reservations), ([10, 0, 0], 0));
        assert_eq!(
            refused.into_reservation().commit_all().settled(),
            tokens(40).usd(Usd::from_nanos(5))
        );
    }
}

#[test]
fn p3_after_expiry_drop_and_release_give_nothing_back_twice() {
    for end in [drop, Reservation::release] {
        for is_reclaimed in [false, true] {
            let (pool, hold) = late(is_reclaimed);
            let other = pool.reserve(tokens(90)).unwrap();
            end(hold);
            let after = pool.snapshot();
            assert_eq!(
                (balance(&pool), after.in_flight.reserved, after.reservations),
                ([10, 90, 0], 1, 1)
            );
            drop(other);
            assert_eq!((balance(&pool), pool.snapshot().in_flight.reserved), ([10, 0, 0], 0));
        }
    }
}

#[test]
fn p2_a_hold_that_commits_on_drop_settles_when_it_expires_and_counts_once() {
    type Tell = fn(Reservation) -> Option<Receipt>;
    let cases: [(Tell, u64, u64); 9] = [
        (|hold| Some(hold.commit(tokens(30))), 0, 30),
        (|hold| Some(hold.commit(tokens(55))), 15, 55),
        (|hold| Some(hold.commit_all()), 0, 40),
        (|hold| Some(hold.commit(tokens(41))), 1, 41),
        (|hold| Some(hold.debit(tokens(40))), 0, 40),
        (|hold| [hold.debit(tokens(30)), hold.debit(tokens(30))].last().copied(), 20, 60),
        (
            |hold| {
                hold.debit(tokens(30));
                Some(hold.commit(tokens(50)))
            },
            10,
            50,
        ),
        (
            |hold| {
                drop(hold);
                None
            },
            0,
            40,
        ),
        (
            |hold| {
                hold.release();
                None
            },
            0,
            40,
        ),
    ];
    for (case, (tell, settled, used)) in cases.into_iter().enumerate() {
        for is_reclaimed in [false, true] {
            let (clock, pool) = pool_of(100);
            let hold = pool.reserve(Ask::new(tokens(40)).ttl(secs(1))).unwrap().commit_on_drop();
            clock.advance(secs(1));
            if is_reclaimed {
                assert_eq!((balance(&pool), pool.snapshot().reservations), ([40, 0, 0], 0));
                assert_eq!(hold.amount(), Amount::new());
            }
            let receipt = tell(hold);
            assert!(receipt.is_none_or(|receipt| receipt.is_late()), "{case}");
            assert_eq!(
                receipt.map_or(0, |receipt| receipt.settled().tokens_held()),
                settled,
                "{case}"
            );
            assert_eq!((balance(&pool), pool.snapshot().reservations), ([used, 0, 0], 0), "{case}");
        }
    }
}

#[test]
fn p3_to_commit_on_drop_comes_too_late_after_expiry() {
    let (clock, pool) = pool_of(100);
    let hold = pool.reserve(Ask::new(tokens(40)).ttl(secs(1))).unwrap();
    clock.advance(secs(1));
    drop(hold.commit_on_drop());
    assert_eq!(balance(&pool), [0, 0, 0]);
}

#[test]
fn p3_both_halves_of_a_split_keep_the_time() {
    let (clock, pool) = pool_of(100);
    let hold = pool.reserve(Ask::new(tokens(60)).ttl(secs(10))).unwrap();
    clock.advance(secs(4));
    let half = hold.split(tokens(20)).unwrap();
    assert_eq!((hold.time_left(), half.time_left()), (Some(secs(6)), Some(secs(6))));
    clock.advance(secs(6));
    assert_eq!(
        (hold.amount(), half.amount(), balance(&pool)),
        (Amount::new(), Amount::new(), [0, 0, 0])
    );
    let settling = pool.reserve(Ask::new(tokens(60)).ttl(secs(1))).unwrap().commit_on_drop();
    forget(settling.split(tokens(20)).unwrap());
    forget(settling);
    clock.advance(secs(1));
    assert_eq!(pool.snapshot().tokens.used, 20 + 40);
}

#[test]
fn a_renewed_hold_lives_from_then_on_so_long() {
    let (clock, pool) = pool_of(100);
    let [longer, shorter, endless] =
        [(); 3].map(|()| pool.reserve(Ask::new(tokens(10)).ttl(secs(10))).unwrap());
    let given = pool.reserve(tokens(10)).unwrap();
    assert_eq!(given.time_left(), None);
    clock.advance(secs(1));
    longer.renew(secs(20)).unwrap();
    shorter.renew(secs(2)).unwrap();
    given.renew(secs(3)).unwrap();
    endless.renew(Duration::MAX).unwrap();
    let left = |holds: [&Reservation; 4]| holds.map(Reservation::time_left);
    let all = [&longer, &shorter, &given, &endless];
    assert_eq!(left(all), [Some(secs(20)), Some(secs(2)), Some(secs(3)), None]);
    clock.advance(secs(2));
    assert_eq!((balance(&pool)[1], shorter.amount()), (30, Amount::new()));
    clock.advance(secs(1));
    assert_eq!((balance(&pool)[1], given.amount()), (20, Amount::new()));
    clock.advance(secs(17) - NANO);
    assert_eq!((balance(&pool)[1], longer.amount()), (20, tokens(10)));
    clock.advance(NANO);
    assert_eq!((balance(&pool)[1], endless.amount()), (10, tokens(10)));
}

#[test]
fn a_hold_can_be_renewed_on_a_closed_pool_and_after_the_deadline() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().deadline(secs(5)).clock(clock.clone()).timer(by_hand).build();
    let hold = pool.reserve(Ask::new(tokens(1)).ttl(secs(8))).unwrap();
    assert_eq!(hold.time_left(), Some(secs(5)), "the deadline comes first");
    clock.advance(secs(6));
    pool.close();
    hold.renew(secs(4)).unwrap();
    clock.advance(secs(4) - NANO);
    assert_eq!(hold.amount(), tokens(1));
    clock.advance(NANO);
    let refused = hold.renew(secs(1)).unwrap_err();
    assert!(matches!(refused, BudgetError::Expired { pool, .. } if pool == "pool"));
}

#[test]
fn a_ttl_of_zero_has_expired_from_the_start_and_one_beyond_all_instants_is_none() {
    let (clock, pool) = pool_of(100);
    let zero = pool.reserve(Ask::new(tokens(100)).ttl(Duration::ZERO)).unwrap();
    assert_eq!(zero.time_left(), Some(Duration::ZERO));
    assert!(is_expired(&zero.record(tokens(1)).unwrap_err()));
    pool.record(tokens(100)).unwrap();
    let endless = pool.reserve(Ask::new(Amount::new()).ttl(Duration::MAX)).unwrap();
    clock.advance(secs(1 << 33));
    assert_eq!((endless.time_left(), pool.snapshot().reservations), (None, 1));
    assert!(zero.commit_all().is_late());
    assert_eq!(balance(&pool), [100, 0, 100]);
}

#[test]
fn p4_what_needs_all_that_has_expired_is_admitted() {
    type Asked = fn(&BudgetPool) -> bool;
    let asks: [Asked; 7] = [
        |pool| pool.record(tokens(1_000)).is_ok(),
        |pool| pool.peek(tokens(1_000)).is_ok(),
        |pool| pool.reserve(tokens(1_000)).is_ok(),
        |pool| pool.record_once("key", tokens(1_000)).is_ok(),
        |pool| pool.child().tokens(1_000).carved().build().is_ok(),
        |pool| pool.lower_caps(Caps::new().tokens(1_000)).is_ok(),
        |pool| pool.debit(tokens(1_000)).overage().is_zero(),
    ];
    for (case, ask) in asks.into_iter().enumerate() {
        let (clock, pool) = pool_of(1_000);
        (0..1_000).for_each(|_| forget(pool.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap()));
        clock.advance(secs(1) - NANO);
        assert!(pool.peek(tokens(1)).is_err());
        clock.advance(NANO);
        assert!(ask(&pool), "{case}");
    }
}

#[test]
fn p4_a_hold_that_asks_for_more_finds_what_has_expired() {
    type Asked = fn(Reservation) -> bool;
    let asks: [Asked; 6] = [
        |hold| hold.grow(tokens(990)).is_ok(),
        |hold| hold.record(tokens(1_000)).is_ok(),
        |hold| hold.try_commit(tokens(1_000)).is_ok(),
        |hold| hold.commit(tokens(1_000)).overage().is_zero(),
        |hold| hold.debit(tokens(1_000)).overage().is_zero(),
        |hold| (0..99).all(|_| hold.split(tokens(0)).map(forget).is_ok()),
    ];
    for (case, ask) in asks.into_iter().enumerate() {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .tokens(1_000)
            .in_flight(100)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        (0..99).for_each(|_| forget(pool.reserve(Ask::new(tokens(10)).ttl(secs(1))).unwrap()));
        let hold = pool.reserve(tokens(10)).unwrap();
        clock.advance(secs(1));
        assert!(ask(hold), "{case}");
    }
}

#[test]
fn p4_a_lease_that_needs_more_finds_what_has_expired() {
    type Asked = fn(&mut Lease) -> bool;
    let asks: [Asked; 2] = [
        |lease| lease.record(tokens(100)).is_ok(),
        |lease| lease.debit(tokens(100)).overage().is_zero(),
    ];
    for ask in asks {
        let (clock, pool) = pool_of(100);
        let mut lease = pool.lease(tokens(10));
        due_before(&pool);
        forget(pool.reserve(Ask::new(tokens(90)).ttl(secs(1))).unwrap());
        clock.advance(secs(1));
        assert!(ask(&mut lease));
        assert_eq!(balance(&pool), [100, 0, 0]);
    }
}

#[test]
fn p5_whoever_looks_sees_nothing_that_has_expired() {
    type Look = fn(&BudgetPool) -> u64;
    let looks: [Look; 5] = [
        |pool| pool.snapshot().reservations,
        |pool| pool.snapshot().tokens.reserved,
        |pool| pool.snapshot_tree().iter().map(|pool| pool.reservations).sum(),
        |pool| pool.holders().len() as u64,
        |pool| pool.reset().tokens.reserved,
    ];
    for look in looks {
        let (clock, pool) = pool_of(1_000);
        let child = pool.child().build();
        (0..100).for_each(|_| forget(child.reserve(Ask::new(tokens(1)).ttl(secs(1))).unwrap()));
        clock.advance(secs(1));
        assert_eq!(look(&pool), 0);
    }
}

#[test]
fn p1_an_addition_to_a_share_that_owes_is_no_budget_out_of_nothing() {
    let (clock, root) = pool_of(1_000);
    let share = root.child().tokens(100).carved().build().unwrap();
    due_before(&root);
    forget(share.reserve(Ask::new(tokens(50)).ttl(secs(2))).unwrap());
    share.debit(tokens(70));
    // What is asked above is there only once this was reclaimed, and the hold of the share
    // before it.
    forget(root.reserve(Ask::new(tokens(880)).ttl(secs(3))).unwrap());
    clock.advance(secs(3));
    share.raise_caps(Caps::new().tokens(30)).unwrap();
    assert_eq!(balance(&share), [70, 0, 0], "what expired pays first");
    assert_eq!(balance(&root), [70, 130 - 70, 0], "all that is left of the share is held above");
    share.debit(tokens(60));
    assert_eq!((balance(&root), balance(&share)), ([130, 0, 0], [130, 0, 0]));
}

#[test]
fn p2_a_late_commit_finds_what_has_expired_and_is_no_overage() {
    for is_reclaimed in [false, true] {
        let (clock, pool) = pool_of(100);
        let late = pool.reserve(Ask::new(tokens(50)).ttl(secs(1))).unwrap();
        if is_reclaimed {
            clock.advance(secs(1));
            assert_eq!(balance(&pool), [0, 0, 0]);
            due_before(&pool);
            forget(pool.reserve(Ask::new(tokens(100)).ttl(secs(1))).unwrap());
        } else {
            due_before(&pool);
            forget(pool.reserve(Ask::new(tokens(50)).ttl(secs(1))).unwrap());
            pool.debit(tokens(20));
        }
        clock.advance(secs(1));
        let (receipt, used) = (late.commit_all(), balance(&pool)[0]);
        assert!(receipt.is_late() && receipt.overage().is_zero(), "{receipt:?}");
        assert_eq!(used, if is_reclaimed { 50 } else { 50 + 20 });
    }
}

/// A hold of five seconds from the tenth on, and the seconds that the clock of its pool shows, which
/// may run back.
fn of_five_seconds_from_the_tenth() -> (Arc<AtomicU64>, Reservation) {
    let (start, offset) = (Instant::now(), Arc::new(AtomicU64::new(10)));
    let read = Arc::clone(&offset);
    let pool = BudgetPool::builder()
        .clock(move || start + secs(read.load(Ordering::Relaxed)))
        .timer(by_hand)
        .build();
    let hold = pool.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap();
    (offset, hold)
}

#[test]
fn p8_what_has_expired_has_no_time_left_though_the_clock_runs_back() {
    let (offset, hold) = of_five_seconds_from_the_tenth();
    for now in [16, 12] {
        offset.store(now, Ordering::Relaxed);
        assert_eq!((hold.amount(), hold.time_left()), (Amount::new(), Some(Duration::ZERO)));
    }
}

/// The hold expires when the clock comes to its instant, and the clock has further to go.
#[test]
fn w11_after_the_clock_ran_back_a_hold_has_the_time_left_that_the_clock_will_take() {
    let (offset, hold) = of_five_seconds_from_the_tenth();
    let pool = hold.pool();
    for now in [10, 4, 12, 11] {
        offset.store(now, Ordering::Relaxed);
        let left = Some(secs(15 - now));
        assert_eq!((hold.time_left(), pool.holders()[0].expires_in), (left, left));
    }
    offset.store(15, Ordering::Relaxed);
    assert_eq!((hold.time_left(), pool.holders().len()), (Some(Duration::ZERO), 0));
}

#[test]
fn p3_a_hold_in_a_child_that_expires_frees_the_parent_for_a_sibling() {
    let (clock, root) = pool_of(100);
    let (a, b) = (root.child().tokens(100).build(), root.child().tokens(100).build());
    forget(a.reserve(Ask::new(tokens(100)).ttl(secs(1))).unwrap());
    clock.advance(secs(1) - NANO);
    assert_eq!(b.record(tokens(1)).unwrap_err().pool(), "run");
    clock.advance(NANO);
    b.record(tokens(100)).unwrap();
    assert_eq!([balance(&root), balance(&a), balance(&b)], [[100, 0, 0], [0, 0, 0], [100, 0, 0]]);
}

#[test]
fn p3_what_expires_in_a_carved_pool_stays_its_share_or_goes_back_once_closed() {
    let (clock, root) = pool_of(100);
    let share = root.child().tokens(60).carved().build().unwrap();
    forget(share.reserve(Ask::new(tokens(60)).ttl(secs(1))).unwrap());
    clock.advance(secs(1));
    assert!(root.record(tokens(41)).is_err());
    share.record(tokens(50)).unwrap();
    assert_eq!((balance(&root), balance(&share)), ([50, 10, 0], [50, 0, 0]));
    let late = share.reserve(Ask::new(tokens(10)).ttl(secs(1))).unwrap();
    share.close();
    assert_eq!(balance(&root), [50, 10, 0]);
    clock.advance(secs(1));
    root.record(tokens(50)).unwrap();
    assert_eq!(late.debit(tokens(10)).overage(), tokens(10));
    assert_eq!((balance(&root), balance(&share)), ([100, 0, 10], [50, 0, 10]));
}

#[test]
fn p2_a_hold_settles_into_the_period_in_which_it_expired() {
    let (clock, pool) = windowed(100, Window::fixed(secs(60)));
    let settling =
        |n, ttl| forget(pool.reserve(Ask::new(tokens(n)).ttl(secs(ttl))).unwrap().commit_on_drop());
    settling(10, 30);
    settling(20, 60);
    settling(40, 119);
    clock.advance(secs(119));
    assert_eq!(
        (balance(&pool), spent(&pool)),
        ([60, 0, 0], 70),
        "at the turn it is in the new period"
    );
    settling(10, 30);
    settling(20, 600);
    clock.advance(secs(10_000));
    pool.record(tokens(1)).unwrap();
    assert_eq!((balance(&pool), spent(&pool)), ([1, 0, 0], 101));
}

#[test]
fn p2_many_holds_settle_in_their_time_though_they_are_reclaimed_in_batches() {
    let (clock, pool) = windowed(1_000, Window::fixed(secs(60)));
    for ttl in 1..=100 {
        forget(pool.reserve(Ask::new(tokens(1)).ttl(secs(ttl))).unwrap().commit_on_drop());
    }
    clock.advance(secs(100));
    pool.peek(tokens(1)).unwrap();
    assert_eq!((balance(&pool), spent(&pool)), ([41, 0, 0], 100));
}

#[test]
fn p2_a_late_commit_belongs_to_the_period_in_which_it_is_told() {
    let (clock, pool) = windowed(100, Window::fixed(secs(60)));
    let hold = pool.reserve(Ask::new(tokens(40)).ttl(secs(30))).unwrap();
    let settled = pool.reserve(Ask::new(tokens(40)).ttl(secs(30))).unwrap().commit_on_drop();
    clock.advance(secs(70));
    assert!(hold.commit_all().is_late());
    assert_eq!(settled.commit(tokens(45)).settled(), tokens(5));
    assert_eq!((balance(&pool), spent(&pool)), ([45, 0, 0], 85));
}

/// The holds are made in many orders of their expiry, and some end before it.
#[test]
fn p3_each_of_many_holds_expires_at_its_own_instant() {
    for factor in 1..101 {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
        let hold = |ttl| (ttl, pool.reserve(Ask::new(tokens(1)).ttl(secs(ttl))).unwrap());
        let holds: Vec<_> = (1..101).map(|n| hold(n * factor % 101)).collect();
        let (ends, stays): (Vec<_>, Vec<_>) = holds.into_iter().partition(|(ttl, _)| ttl % 3 == 0);
        drop(ends);
        for second in 1..101 {
            clock.advance(secs(1));
            let due = stays.iter().filter(|(ttl, _)| *ttl <= second).count() as u64;
            assert_eq!(pool.snapshot().expired, due, "after {second} s, by {factor}");
        }
        assert_eq!(balance(&pool), [0; 3]);
    }
}
