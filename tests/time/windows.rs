//! Caps that come back: turns, buckets, and holds that settle across them.

use super::*;

#[test]
fn p1_a_fixed_window_turns_at_its_instant() {
    let (clock, pool) = windowed(100, Window::fixed(secs(60)));
    pool.record(tokens(100)).unwrap();
    clock.advance(secs(60) - NANO);
    assert!(pool.record(tokens(1)).is_err());
    clock.advance(NANO);
    pool.record(tokens(100)).unwrap();
    assert!(pool.record(tokens(1)).is_err());
    assert_eq!((balance(&pool), spent(&pool)), ([100, 0, 0], 200));
}

#[test]
fn p1_periods_that_nobody_saw_are_skipped_and_the_turns_stay_where_they_are() {
    let (clock, pool) = windowed(100, Window::fixed(secs(60)));
    pool.record(tokens(100)).unwrap();
    clock.advance(secs(60 * 1_000_000) + secs(59));
    assert_eq!(pool.snapshot().tokens.available, Some(100));
    pool.record(tokens(100)).unwrap();
    clock.advance(secs(1));
    pool.record(tokens(100)).unwrap();
    clock.advance(secs(60) - NANO);
    assert!(pool.record(tokens(1)).is_err());
    clock.advance(NANO);
    pool.record(tokens(1)).unwrap();
}

#[test]
fn a_fixed_window_may_start_before_or_after_the_present() {
    for (start, first) in [(1_390, 50), (1_400, 60), (2_000, 60), (2_010, 10), (2_700, 700)] {
        let clock = ManualClock::new();
        let window = Window::fixed(secs(60)).aligned_to(clock.now() + secs(start));
        clock.advance(secs(2_000));
        let pool = BudgetPool::builder()
            .tokens(1)
            .window(window)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        pool.record(tokens(1)).unwrap();
        for period in [first, 60, 60] {
            clock.advance(secs(period) - NANO);
            assert!(pool.record(tokens(1)).is_err(), "{start}");
            clock.advance(NANO);
            pool.record(tokens(1)).unwrap();
        }
    }
}

#[test]
fn a_token_bucket_starts_to_give_back_at_its_start() {
    for (start, first) in [(1_000, 1), (2_000, 1), (2_010, 11)] {
        let clock = ManualClock::new();
        let window = Window::token_bucket(secs(60)).aligned_to(clock.now() + secs(start));
        clock.advance(secs(2_000));
        let pool = BudgetPool::builder()
            .tokens(60)
            .window(window)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        pool.record(tokens(60)).unwrap();
        assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(first)));
        clock.advance(secs(first));
        pool.record(tokens(1)).unwrap();
    }
}

#[test]
fn p2_what_is_held_across_a_turn_is_neither_lost_nor_counted_twice() {
    type End = fn(Reservation);
    let ends: [(End, u64); 7] = [
        (|hold| _ = hold.commit(tokens(60)), 50),
        (|hold| _ = hold.commit(tokens(30)), 20),
        // What was metered belongs to the old period, and stays there.
        (|hold| _ = hold.commit(tokens(5)), 0),
        (|hold| _ = hold.commit_all(), 30),
        (|hold| _ = hold.commit(tokens(25)), 15),
        (drop, 0),
        (|hold| _ = hold.debit(tokens(5)), 5),
    ];
    for (case, (end, settled)) in ends.into_iter().enumerate() {
        for (window, back) in
            [(Window::fixed(secs(60)), 100), (Window::token_bucket(secs(60)), 100)]
        {
            let (clock, pool) = windowed(100, window);
            let hold = pool.reserve(tokens(40)).unwrap();
            hold.record(tokens(10)).unwrap();
            pool.record(tokens(60)).unwrap();
            assert_eq!(balance(&pool), [70, 30, 0]);
            clock.advance(secs(60));
            assert_eq!(balance(&pool), [0, 30, 0], "{case}");
            end(hold);
            assert_eq!((balance(&pool), spent(&pool)), ([settled, 0, 0], 70 + settled), "{case}");
            clock.advance(secs(60));
            assert_eq!(pool.snapshot().tokens.available, Some(back), "{case}");
        }
    }
}

#[test]
fn p2_a_turn_forgives_what_is_owed_and_a_token_bucket_pays_it_off_first() {
    let (clock, fixed) = windowed(100, Window::fixed(secs(100)));
    assert_eq!(fixed.debit(tokens(250)).overage(), tokens(150));
    clock.advance(secs(100));
    assert_eq!((balance(&fixed), spent(&fixed)), ([0, 0, 0], 250));
    let (clock, bucket) = windowed(100, Window::token_bucket(secs(100)));
    bucket.debit(tokens(250));
    clock.advance(secs(100));
    assert_eq!(balance(&bucket), [100, 0, 50]);
    clock.advance(secs(60));
    assert_eq!((balance(&bucket), bucket.snapshot().tokens.available), ([90, 0, 0], Some(10)));
    clock.advance(secs(90));
    assert_eq!((balance(&bucket), spent(&bucket)), ([0, 0, 0], 250));
}

#[test]
fn p1_a_token_bucket_bursts_to_its_cap_and_idles_without_saving_up() {
    let (clock, pool) = windowed(60, Window::token_bucket(secs(60)));
    clock.advance(secs(1_000_000));
    pool.record(tokens(60)).unwrap();
    assert!(pool.record(tokens(1)).is_err());
    clock.advance(secs(1) - NANO);
    assert!(pool.record(tokens(1)).is_err());
    clock.advance(NANO);
    pool.record(tokens(1)).unwrap();
    // Nor does it save up the part of a unit that was on its way when the last one came back.
    clock.advance(secs(90) + secs(1) / 2);
    assert_eq!(balance(&pool), [0, 0, 0]);
    pool.record(tokens(60)).unwrap();
    assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(1)));
}

/// Odd steps against one exact sum; cap and period are primes.
#[test]
fn p1_a_token_bucket_does_not_drift() {
    let (cap, period) = (1_000_003_u64, Duration::from_nanos(60_000_000_029));
    let (clock, pool) = windowed(cap, Window::token_bucket(period));
    let (mut taken, mut elapsed) = (u128::from(cap), 0);
    pool.record(tokens(cap)).unwrap();
    for step in 1..3_000_u64 {
        let by = Duration::from_nanos(step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 30);
        clock.advance(by);
        elapsed += by.as_nanos();
        let back = elapsed * u128::from(cap) / period.as_nanos();
        let available = pool.snapshot().tokens.available.unwrap();
        assert_eq!(u128::from(available), u128::from(cap) + back - taken, "step {step}");
        pool.record(tokens(available)).unwrap();
        taken += u128::from(available);
    }
    assert_eq!(u128::from(spent(&pool)), taken);
}

#[test]
fn p1_the_largest_caps_and_periods_come_back_exactly() {
    let year = secs(365 * 86_400);
    for period in [secs(1), year, Duration::from_nanos(u64::MAX), Duration::MAX] {
        let (clock, pool) = windowed(u64::MAX, Window::token_bucket(period));
        pool.record(tokens(u64::MAX)).unwrap();
        let step = Duration::from_nanos(999_999_937);
        clock.advance(step);
        let period = period.as_nanos().min(u128::from(u64::MAX));
        let back = (step.as_nanos() * u128::from(u64::MAX) / period).min(u128::from(u64::MAX));
        assert_eq!(pool.snapshot().tokens.available.map(u128::from), Some(back));
    }
}

#[test]
fn an_axis_without_a_cap_starts_again_with_a_fixed_window_and_counts_on_with_a_token_bucket_one() {
    for (window, used) in [(Window::fixed(secs(60)), 0), (Window::token_bucket(secs(60)), 7)] {
        let (clock, pool) = windowed(100, window);
        pool.record(tokens(7).usd(Usd::from_nanos(7))).unwrap();
        clock.advance(secs(60));
        let usd = pool.snapshot().usd;
        assert_eq!((usd.used, usd.spent), (Usd::from_nanos(used), Usd::from_nanos(7)));
    }
}

#[test]
fn what_is_in_flight_is_a_cap_of_the_present() {
    for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
        let clock = ManualClock::new();
        let pool = BudgetPool::builder()
            .in_flight(1)
            .window(window)
            .clock(clock.clone())
            .timer(by_hand)
            .build();
        let hold = pool.reserve(Amount::new()).unwrap();
        clock.advance(secs(600));
        let refused = pool.reserve(Amount::new()).unwrap_err();
        assert_eq!(
            (refused.axis(), refused.outlook()),
            (Some(Axis::InFlight), Outlook::AfterRelease)
        );
        assert_eq!(refused.retry_after(), None);
        assert_eq!(pool.snapshot().in_flight.reserved, 1);
        drop(hold);
        pool.reserve(Amount::new()).unwrap().release();
    }
}

#[test]
fn a_moved_cap_changes_the_rate_from_then_on() {
    let (clock, pool) = windowed(60, Window::token_bucket(secs(60)));
    pool.record(tokens(60)).unwrap();
    clock.advance(secs(10));
    pool.raise_caps(Caps::new().tokens(60)).unwrap();
    assert_eq!(pool.snapshot().tokens.available, Some(10 + 60));
    pool.record(tokens(70)).unwrap();
    clock.advance(secs(10));
    pool.lower_caps(Caps::new().tokens(20)).unwrap();
    assert_eq!(
        (pool.snapshot().tokens.available, pool.snapshot().tokens.cap),
        (Some(0), Some(100))
    );
    assert_eq!(pool.peek(tokens(10)).unwrap_err().retry_after(), Some(secs(6)));
    clock.advance(secs(6));
    assert_eq!(pool.snapshot().tokens.available, Some(10));
}

#[test]
fn a_reset_starts_a_period_and_leaves_the_turns_where_they_are() {
    let (clock, pool) = windowed(10, Window::fixed(secs(60)));
    pool.record(tokens(10)).unwrap();
    clock.advance(secs(70));
    pool.record(tokens(3)).unwrap();
    let before = pool.reset();
    assert_eq!((before.tokens.used, before.tokens.spent), (3, 13));
    pool.record(tokens(10)).unwrap();
    assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(50)));
    clock.advance(secs(130));
    assert_eq!(pool.reset().tokens.used, 0, "what was due is done before");
}

#[test]
fn a_reset_of_a_token_bucket_keeps_no_part_of_a_unit() {
    let (clock, pool) = windowed(1, Window::token_bucket(secs(10)));
    pool.record(tokens(1)).unwrap();
    clock.advance(secs(5));
    pool.reset();
    pool.record(tokens(1)).unwrap();
    assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(10)));
}

#[test]
fn a_period_of_zero_is_one_of_a_nanosecond_and_the_longest_has_an_end() {
    for window in [Window::fixed, Window::token_bucket] {
        let (clock, pool) = windowed(10, window(Duration::ZERO));
        pool.record(tokens(10)).unwrap();
        assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(NANO));
        clock.advance(NANO);
        pool.record(tokens(10)).unwrap();
        clock.advance(secs(1));
        pool.record(tokens(10)).unwrap();
        let (_, pool) = windowed(10, window(Duration::MAX));
        pool.record(tokens(10)).unwrap();
        let after = pool.record(tokens(10)).unwrap_err().retry_after();
        assert_eq!(after, Some(Duration::from_nanos(u64::MAX)));
    }
}

#[test]
fn p1_a_carved_pool_has_no_window() {
    let (_, root) = pool_of(100);
    let window = Window::fixed(secs(60));
    let before =
        root.child().name("share").tokens(10).window(window.clone()).carved().build().unwrap_err();
    let after = root.child().name("share").tokens(10).carved().window(window).build().unwrap_err();
    assert!(matches!(before, BudgetError::CarvedWindow { .. }));
    assert_eq!((&before, before.outlook(), before.pool()), (&after, Outlook::Never, "share"));
    assert_eq!(balance(&root), [0, 0, 0]);
}

#[test]
fn p1_a_share_of_a_windowed_pool_stays_one_across_its_turn() {
    let (clock, root) = windowed(100, Window::fixed(secs(60)));
    let share = root.child().tokens(40).carved().build().unwrap();
    share.record(tokens(30)).unwrap();
    root.record(tokens(60)).unwrap();
    clock.advance(secs(60));
    assert_eq!((balance(&root), balance(&share)), ([0, 10, 0], [30, 0, 0]));
    share.record(tokens(10)).unwrap();
    assert_eq!((balance(&root), spent(&root)), ([10, 0, 0], 100));
}

/// Either way may be the one that turns.
#[test]
fn p4_a_transfer_turns_the_windows_of_both_pools() {
    for windowed in [[true, false], [false, true], [true, true]] {
        let clock = ManualClock::new();
        let root = BudgetPool::builder().clock(clock.clone()).timer(by_hand).build();
        let [from, to] = windowed.map(|windowed| {
            let pool = root.child().tokens(10);
            if windowed { pool.window(Window::fixed(secs(60))).build() } else { pool.build() }
        });
        to.debit(tokens(14));
        if windowed[0] {
            from.record(tokens(10)).unwrap();
            assert!(from.transfer(&to, Caps::new().tokens(4)).is_err());
        }
        clock.advance(secs(60));
        from.transfer(&to, Caps::new().tokens(4)).unwrap();
        assert_eq!(balance(&from), [0; 3], "{windowed:?}");
        let turned = if windowed[1] { [0; 3] } else { [14, 0, 0] };
        assert_eq!(balance(&to), turned, "{windowed:?}");
    }
}

#[test]
fn p5_a_snapshot_of_a_tree_turns_what_is_below() {
    let (clock, root) = pool_of(100);
    let child = root.child().tokens(10).window(Window::fixed(secs(60))).build();
    let leaf = child.child().build();
    leaf.record(tokens(10)).unwrap();
    clock.advance(secs(60));
    let used: Vec<_> = root.snapshot_tree().iter().map(|pool| pool.tokens.used).collect();
    assert_eq!(used, [10, 0, 10]);
}

#[test]
fn p5_the_peak_of_a_period_does_not_count_what_expired_before_it() {
    let (clock, pool) = windowed(100, Window::fixed(secs(10)));
    due_before(&pool);
    forget(pool.reserve(Ask::new(tokens(100)).ttl(secs(2))).unwrap());
    let lasting = pool.reserve(Ask::new(Amount::new().requests(7)).ttl(secs(11))).unwrap();
    clock.advance(secs(11));
    let seen = pool.snapshot();
    assert_eq!((seen.tokens.peak, seen.requests.peak, lasting.amount()), (0, 7, Amount::new()));
}

#[test]
fn p2_the_smallest_and_the_largest_numbers_are_counted() {
    let years = secs(600 * 365 * 86_400);
    for period in [Duration::ZERO, NANO, secs(1), Duration::MAX] {
        for (window, owed) in [(Window::fixed(period), false), (Window::token_bucket(period), true)]
        {
            for cap in [0, 1, 2, u64::MAX - 1, u64::MAX] {
                let (clock, pool) = windowed(cap, window.clone());
                for told in 1..=3 {
                    pool.debit(tokens(u64::MAX));
                    let spent_then = spent(&pool);
                    for asked in [0, 1, cap, u64::MAX] {
                        if let Err(refused) = pool.peek(tokens(asked)) {
                            let is_in_time = matches!(refused.outlook(), Outlook::At(_));
                            assert_eq!(refused.retry_after().is_some(), is_in_time, "{refused}");
                        }
                    }
                    drop(pool.reserve(Ask::new(tokens(1)).ttl(Duration::MAX)));
                    clock.advance(NANO);
                    assert_eq!(spent(&pool), spent_then, "{told}: it never falls, nor wraps");
                    clock.advance(years);
                    assert_eq!(spent(&pool), spent_then);
                    assert!(owed || balance(&pool) == [0, 0, 0]);
                }
            }
        }
    }
}

#[test]
fn p8_at_the_end_of_time_what_would_come_later_never_does() {
    let clock = ManualClock::new();
    let bucket = Window::token_bucket(secs(3));
    let root = BudgetPool::builder()
        .tokens(u64::MAX)
        .window(bucket)
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let pool = root.child().name("run").tokens(5).window(Window::fixed(secs(7))).build();
    let mut step = secs(i64::MAX as u64);
    while step > Duration::ZERO {
        let before = clock.now();
        clock.advance(step);
        if clock.now() == before {
            // So far it cannot go.
            step /= 2;
        }
        pool.debit(tokens(u64::MAX / 2));
        assert_eq!(pool.peek(tokens(6)).unwrap_err().outlook(), Outlook::Never);
    }
    assert!(clock.now().checked_add(NANO).is_none());
    let hold = pool.reserve(Ask::new(Amount::new()).ttl(secs(5))).unwrap();
    assert_eq!((hold.time_left(), hold.renew(NANO), hold.time_left()), (None, Ok(()), None));
    let refused = pool.record(tokens(1)).unwrap_err();
    assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::Never, None));
    pool.reset();
    root.reset();
    pool.record(tokens(5)).unwrap();
}

/// 1,000 tokens and 10 requests a minute, a dollar a day, two for good.
#[test]
fn p7_rates_and_lifetime_caps_combine_and_the_one_that_bound_is_named() {
    let clock = ManualClock::new();
    let life = BudgetPool::builder()
        .name("life")
        .usd(Usd::from_dollars(2))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let day = life
        .child()
        .name("day")
        .usd(Usd::from_dollars(1))
        .window(Window::fixed(secs(86_400)))
        .build();
    let minute = day
        .child()
        .name("minute")
        .tokens(1_000)
        .requests(10)
        .window(Window::token_bucket(secs(60)))
        .build();
    let cents = |n| Amount::new().usd(Usd::from_cents(n));
    let refused = |amount| {
        let error = minute.record(amount).unwrap_err();
        (error.pool().to_owned(), error.axis(), error.outlook(), error.retry_after())
    };
    let at = |after| Outlook::At(clock.now() + after);

    let call = Amount::new().tokens(100).requests(1);
    (0..10).for_each(|_| minute.record(call + cents(8)).unwrap());
    assert_eq!(refused(call), ("minute".into(), Some(Axis::Tokens), at(secs(6)), Some(secs(6))));
    let one = Amount::new().requests(1);
    assert_eq!(refused(one), ("minute".into(), Some(Axis::Requests), at(secs(6)), Some(secs(6))));
    clock.advance(secs(60));
    let left = secs(86_400 - 60);
    assert_eq!(refused(cents(21)), ("day".into(), Some(Axis::Usd), at(left), Some(left)));
    minute.record(call + cents(20)).unwrap();
    clock.advance(left);
    minute.record(cents(60)).unwrap();
    assert_eq!(
        refused(cents(41)),
        ("day".into(), Some(Axis::Usd), Outlook::Never, None),
        "the worst of the two"
    );
    clock.advance(secs(86_400));
    assert_eq!(refused(cents(41)), ("life".into(), Some(Axis::Usd), Outlook::Never, None));
    minute.record(call + cents(40)).unwrap();
    assert_eq!(life.snapshot().usd.spent, Usd::from_dollars(2));
}
