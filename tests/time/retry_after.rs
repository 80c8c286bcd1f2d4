//! The instant that a refusal names: the same call fits then, and not a nanosecond before.

use super::*;

/// Refused now, and until a nanosecond before the instant that is named; then admitted.
fn exact(clock: &ManualClock, pool: &BudgetPool, amount: Amount) -> Duration {
    let refused = pool.record(amount).unwrap_err();
    let after = refused.retry_after().unwrap();
    assert_eq!(refused.outlook(), Outlook::At(clock.now() + after));
    if after > NANO {
        clock.advance(after - NANO);
        assert_eq!(pool.record(amount).unwrap_err().retry_after(), Some(NANO));
        clock.advance(NANO);
    } else {
        clock.advance(after);
    }
    pool.record(amount).unwrap();
    after
}

#[test]
fn p7_it_is_exact_for_fixed_windows() {
    let (clock, pool) = windowed(100, Window::fixed(secs(60)));
    clock.advance(secs(7));
    pool.debit(tokens(170));
    assert_eq!(exact(&clock, &pool, tokens(100)), secs(53));
    clock.advance(secs(600) + NANO);
    pool.record(tokens(100)).unwrap();
    assert_eq!(exact(&clock, &pool, tokens(1)), secs(60) - NANO);
}

#[test]
fn p7_it_is_exact_for_token_buckets() {
    let period = Duration::from_nanos(1_000_000_007);
    for cap in [1, 2, 3, 97, 1_009, 1_000_000_007, 1_000_000_009, u64::MAX] {
        let (clock, pool) = windowed(cap, Window::token_bucket(period));
        pool.debit(tokens(cap));
        for step in 1..40 {
            let odd = step * 0x9E37_79B9 % cap;
            exact(&clock, &pool, tokens(odd + 1));
            clock.advance(Duration::from_nanos(odd % 1_000_003));
            pool.debit(tokens(pool.snapshot().tokens.available.unwrap().saturating_add(odd / 3)));
        }
    }
}

#[test]
fn p7_the_latest_of_all_pools_and_axes_counts() {
    let clock = ManualClock::new();
    let bucket = Window::token_bucket(secs(60));
    let root = BudgetPool::builder().name("root").tokens(100).window(Window::fixed(secs(100)));
    let root = root.clock(clock.clone()).timer(by_hand).build();
    let middle = root.child().name("middle").build();
    let leaf = middle.child().name("leaf").tokens(60).requests(6).window(bucket).build();
    root.record(tokens(100)).unwrap();
    assert_eq!(leaf.record(tokens(1)).unwrap_err().pool(), "root");
    assert_eq!(exact(&clock, &leaf, tokens(1)), secs(100), "bound two levels up");

    leaf.record(tokens(59).requests(6)).unwrap();
    assert_eq!(exact(&clock, &leaf, tokens(20).requests(3)), secs(30), "the later of two axes");
    assert_eq!(exact(&clock, &leaf, tokens(20).requests(1)), secs(10));
    // 20 from the leaf, in 10 seconds; one from the root, at its turn.
    leaf.debit(tokens(20));
    root.record(tokens(root.snapshot().tokens.available.unwrap())).unwrap();
    let refused = leaf.record(tokens(20)).unwrap_err();
    assert_eq!(
        (refused.pool(), refused.retry_after()),
        ("leaf", Some(secs(60))),
        "the later of two pools"
    );
    exact(&clock, &leaf, tokens(20));
}

#[test]
fn p7_it_assumes_that_what_is_held_stays_held_and_owed_is_paid_first() {
    let (clock, pool) = windowed(100, Window::token_bucket(secs(100)));
    let hold = pool.reserve(tokens(30)).unwrap();
    pool.debit(tokens(90));
    assert_eq!(balance(&pool), [70, 30, 20]);
    assert_eq!(exact(&clock, &pool, tokens(10)), secs(30));
    assert_eq!(balance(&pool), [70, 30, 0]);
    let refused = pool.record(tokens(71)).unwrap_err();
    assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::AfterRelease, None));
    assert_eq!(pool.record(tokens(70)).unwrap_err().retry_after(), Some(secs(70)));
    let refused = pool.record(tokens(101)).unwrap_err();
    assert_eq!((refused.outlook(), refused.retry_after()), (Outlook::Never, None));
    drop(hold);
}

#[test]
fn p7_what_comes_back_only_after_the_deadline_never_does() {
    for window in [Window::fixed(secs(60)), Window::token_bucket(secs(60))] {
        for (deadline, outlook) in [
            (secs(60), Outlook::Never),
            (secs(60) + NANO, Outlook::At(Instant::now())),
            (secs(1), Outlook::Never),
        ] {
            let clock = ManualClock::new();
            let root = BudgetPool::builder()
                .tokens(60)
                .window(window.clone())
                .clock(clock.clone())
                .timer(by_hand)
                .build();
            let pool = root.child().deadline(deadline).build();
            pool.record(tokens(60)).unwrap();
            let refused = pool.record(tokens(60)).unwrap_err();
            match outlook {
                Outlook::At(_) => assert_eq!(refused.retry_after(), Some(secs(60))),
                outlook => {
                    assert_eq!((refused.outlook(), refused.retry_after()), (outlook, None))
                }
            }
            assert_eq!(
                root.record(tokens(60)).unwrap_err().retry_after(),
                Some(secs(60)),
                "it has no deadline"
            );
        }
    }
}

#[test]
fn p7_a_release_must_come_in_time_with_the_rest() {
    let clock = ManualClock::new();
    let window = Window::fixed(secs(60));
    let pool = BudgetPool::builder()
        .tokens(60)
        .window(window)
        .deadline(secs(30))
        .clock(clock.clone())
        .timer(by_hand)
        .build();
    let _hold = pool.reserve(tokens(20)).unwrap();
    pool.record(tokens(30)).unwrap();
    assert_eq!(pool.peek(tokens(30)).unwrap_err().outlook(), Outlook::AfterRelease);
    assert_eq!(pool.peek(tokens(31)).unwrap_err().outlook(), Outlook::Never);
}

#[test]
fn p7_a_cap_of_zero_gives_nothing_back_to_a_token_bucket() {
    let (_, pool) = windowed(0, Window::token_bucket(secs(60)));
    pool.debit(tokens(5));
    assert_eq!(pool.record(tokens(1)).unwrap_err().outlook(), Outlook::Never);
    pool.record(tokens(0)).unwrap();
}

#[test]
fn p7_the_clock_may_run_back_and_the_answer_counts_from_its_reading() {
    let start = Instant::now();
    let offset = Arc::new(AtomicU64::new(0));
    let read = Arc::clone(&offset);
    let clock = move || start + secs(read.load(Ordering::Relaxed));
    let pool = BudgetPool::builder()
        .tokens(60)
        .window(Window::token_bucket(secs(60)))
        .clock(clock)
        .timer(by_hand)
        .build();
    pool.record(tokens(60)).unwrap();
    offset.store(10, Ordering::Relaxed);
    pool.record(tokens(10)).unwrap();
    offset.store(5, Ordering::Relaxed);
    assert_eq!(pool.record(tokens(1)).unwrap_err().retry_after(), Some(secs(6)));
    offset.store(11, Ordering::Relaxed);
    pool.record(tokens(1)).unwrap();
}

/// A clock that says the second that it is told, whatever it has said before.
fn told(second: &Arc<AtomicU64>) -> (Instant, impl Clock + 'static) {
    let (start, second) = (Instant::now(), Arc::clone(second));
    (start, move || start + secs(second.load(Ordering::SeqCst)))
}

const HOUR: u64 = 3_600;

/// All that 10 tokens in 10 seconds admit was spent by a clock that read an hour ahead.
struct Ahead {
    second: Arc<AtomicU64>,
    pool: BudgetPool,
    hold: Reservation,
    lease: Lease,
}

impl Ahead {
    fn new(window: Window) -> Ahead {
        let second = Arc::new(AtomicU64::new(0));
        let pool =
            BudgetPool::builder().tokens(10).window(window).clock(told(&second).1).timer(by_hand);
        let pool = pool.build();
        let hold = pool.reserve(Amount::new()).unwrap();
        let lease = pool.lease(Amount::new());
        second.store(HOUR, Ordering::SeqCst);
        pool.record(tokens(10)).unwrap();
        Ahead { second, pool, hold, lease }
    }
}

/// The clock is right again. What was seen by the wrong reading is an hour ahead of it.
#[test]
fn p7_after_a_reading_an_hour_ahead_each_refusal_says_the_hour() {
    type Asked = fn(Ahead) -> BudgetError;
    let asks: [Asked; 14] = [
        |run| run.pool.record(tokens(1)).unwrap_err(),
        |run| run.pool.peek(tokens(1)).unwrap_err(),
        |run| run.pool.reserve(tokens(1)).unwrap_err(),
        |run| run.pool.reserve(Ask::new(tokens(1)).ttl(secs(5))).unwrap_err(),
        |run| run.pool.reserve(Ask::new(tokens(2)).at_least(tokens(1))).unwrap_err(),
        |run| run.pool.record_once("key", tokens(1)).unwrap_err(),
        |run| run.pool.child().tokens(1).carved().build().unwrap_err(),
        |run| run.pool.child().build().record(tokens(1)).unwrap_err(),
        |run| run.pool.lower_caps(Caps::new().tokens(1)).unwrap_err(),
        |run| {
            let share = run.pool.child().tokens(0).carved().build().unwrap();
            share.raise_caps(Caps::new().tokens(1)).unwrap_err()
        },
        |run| run.hold.record(tokens(1)).unwrap_err(),
        |run| run.hold.grow(tokens(1)).unwrap_err(),
        |run| run.hold.try_commit(tokens(1)).unwrap_err().error().clone(),
        |mut run| run.lease.record(tokens(1)).unwrap_err(),
    ];
    let windows =
        [(Window::fixed(secs(10)), HOUR + 10), (Window::token_bucket(secs(10)), HOUR + 1)];
    for (case, ask) in asks.into_iter().enumerate() {
        for (window, back) in windows.clone() {
            let run = Ahead::new(window);
            let (second, pool) = (Arc::clone(&run.second), run.pool.clone());
            second.store(7, Ordering::SeqCst);
            let refused = ask(run);
            assert_eq!(refused.retry_after(), Some(secs(back - 7)), "{case}: {refused:?}");
            second.store(back, Ordering::SeqCst);
            pool.record(tokens(1)).unwrap();
        }
    }
}

/// One that asks each second is refused 3,600 times, and told each time when to come back. One
/// that does what it is told is refused once.
#[test]
fn p7_after_a_reading_an_hour_ahead_a_refusal_is_as_right_as_the_next_one() {
    let run = Ahead::new(Window::token_bucket(secs(10)));
    for second in 0..HOUR {
        run.second.store(second, Ordering::SeqCst);
        let refused = run.pool.peek(tokens(1)).unwrap_err();
        assert_eq!(refused.retry_after(), Some(secs(HOUR + 1 - second)));
    }
    run.second.store(HOUR + 1, Ordering::SeqCst);
    run.pool.record(tokens(1)).unwrap();
}

/// A limit is told beside a refusal, and names the same time.
#[test]
fn p7_after_a_reading_an_hour_ahead_a_limit_says_the_hour() {
    let windows = [
        (Window::fixed(secs(10)), HOUR + 10),
        (Window::token_bucket(secs(10)), HOUR + 1),
        (Window::rolling(secs(60)), HOUR + 61),
    ];
    for (window, back) in windows {
        let run = Ahead::new(window);
        run.second.store(7, Ordering::SeqCst);
        let more_in = run.pool.limits()[0].more_in;
        assert_eq!(more_in, Some(secs(back - 7)));
        assert_eq!(more_in, run.pool.peek(tokens(1)).unwrap_err().retry_after());
    }
}

#[test]
fn p7_after_a_reading_an_hour_ahead_keys_are_too_many_for_the_hour() {
    let second = Arc::new(AtomicU64::new(HOUR));
    let pool = BudgetPool::builder()
        .idempotency_keys(1, secs(10))
        .clock(told(&second).1)
        .timer(by_hand)
        .build();
    pool.record_once("ahead", tokens(1)).unwrap();
    second.store(7, Ordering::SeqCst);
    let refused = pool.record_once("right", tokens(1)).unwrap_err();
    assert!(matches!(refused, BudgetError::KeysFull { .. }));
    assert_eq!(refused.retry_after(), Some(secs(HOUR + 10 - 7)));
}

/// A wait sleeps towards the same instant. One whose deadline the reading has passed is told
/// that, and no time to come back at.
#[test]
fn p6_after_a_reading_an_hour_ahead_a_wait_sleeps_for_the_hour_or_is_told_that_it_is_late() {
    let second = Arc::new(AtomicU64::new(0));
    let ((start, clock), alarms) = (told(&second), Arc::new(Mutex::new(Vec::new())));
    let log = Arc::clone(&alarms);
    let root = BudgetPool::builder()
        .tokens(10)
        .window(Window::fixed(secs(10)))
        .clock(clock)
        .timer(by_hand);
    let root = root.timer(move |until| {
        log.lock().unwrap().push(until - start);
        Box::pin(std::future::pending())
    });
    let root = root.build();
    let soon = root.child().deadline(secs(60)).build();
    root.record(tokens(10)).unwrap();
    let mut late = Waiter::queued(&soon, tokens(1));
    second.store(HOUR, Ordering::SeqCst);
    root.record(tokens(10)).unwrap();
    second.store(7, Ordering::SeqCst);
    let Poll::Ready(Err(refusal)) = late.poll() else { panic!("it is late") };
    assert!(matches!(refusal, BudgetError::DeadlineExceeded(_)));
    assert_eq!(refusal.retry_after(), None);
    let _waiter = Waiter::queued(&root, tokens(1));
    assert_eq!(*alarms.lock().unwrap(), [secs(10), secs(HOUR + 10)]);
}

/// The turn is 10 ms after the wrong reading, and an hour away.
#[test]
fn p6_after_a_reading_an_hour_ahead_a_thread_sleeps_for_the_hour() {
    let (second, reads) = (Arc::new(AtomicU64::new(HOUR)), Arc::new(AtomicU64::new(0)));
    let ((_, clock), count) = (told(&second), Arc::clone(&reads));
    let counted = move || {
        count.fetch_add(1, Ordering::SeqCst);
        clock.now()
    };
    let window = Window::fixed(Duration::from_millis(10));
    let pool =
        BudgetPool::builder().tokens(10).window(window).clock(counted).timer(by_hand).build();
    pool.record(tokens(10)).unwrap();
    second.store(7, Ordering::SeqCst);
    reads.store(0, Ordering::SeqCst);
    let soon = Ask::new(tokens(1)).wait_at_most(Duration::from_millis(300));
    let refused = pool.reserve_blocking(soon).unwrap_err();
    let hour = secs(HOUR - 7) + Duration::from_millis(10);
    assert_eq!((refused.kind(), refused.retry_after()), ("exceeded", Some(hour)));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| pool.reserve_blocking(tokens(1)).map(drop));
        std::thread::sleep(Duration::from_millis(300));
        pool.close();
        assert_eq!(waits.join().unwrap().unwrap_err().kind(), "closed");
    });
    assert!(reads.load(Ordering::SeqCst) < 10, "it does not wake every 10 ms: {reads:?}");
}

#[test]
fn p7_the_texts() {
    let (clock, pool) = windowed(100, Window::fixed(secs(60)));
    clock.advance(Duration::from_millis(58_500));
    let _hold = pool.reserve(tokens(10)).unwrap();
    pool.record(tokens(80)).unwrap();
    let text = |amount| pool.record(amount).unwrap_err().to_string();
    let of_run = "tokens of `run` exceeded";
    assert_eq!(
        text(tokens(11)),
        format!("{of_run}: 11 requested, 10 available, cap 100, will fit in 1.5s")
    );
    assert_eq!(
        text(tokens(91)),
        format!("{of_run}: 91 requested, 10 available, cap 100, may fit after a release")
    );
    assert_eq!(
        text(tokens(101)),
        format!("{of_run}: 101 requested, 10 available, cap 100, will never fit")
    );
    let run = || BudgetPool::builder().name("run");
    let expired = {
        let hold = run().build().reserve(Ask::new(tokens(1)).ttl(Duration::ZERO)).unwrap();
        hold.grow(tokens(1)).unwrap_err()
    };
    let pool = run().idempotency_keys(2, Duration::MAX).build();
    let [_, conflict, _, full] = [("job-17", 1), ("job-17", 2), ("job-18", 1), ("job-19", 1)]
        .map(|(key, spent)| pool.record_once(key, tokens(spent)));
    let carved = BudgetPool::unlimited()
        .child()
        .name("run")
        .window(Window::fixed(secs(60)))
        .carved()
        .build();
    let names: [(BudgetError, &str); 4] = [
        (expired, "the hold on `run` has expired"),
        (conflict.unwrap_err(), "key `job-17` of `run` stands for another amount"),
        (full.unwrap_err(), "keys of `run` full: capacity 2, will never fit"),
        (carved.unwrap_err(), "`run` is carved: a window would mint budget"),
    ];
    for (error, text) in names {
        assert_eq!((error.to_string().as_str(), error.pool(), error.axis()), (text, "run", None));
        assert_eq!((error.outlook(), error.retry_after()), (Outlook::Never, None));
    }
}
