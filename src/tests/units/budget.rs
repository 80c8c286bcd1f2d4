use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;
use crate::time::clock::{Clock, ManualClock};
use crate::time::deadline::samples::{
    MAX, ZERO, budget, duration, manual, ms, one_second, refusal,
};

#[test]
fn it_is_small_and_can_be_shared() {
    fn shared<T: Clone + Send + Sync + Unpin + fmt::Debug + 'static>() {}
    shared::<DeadlineBudget>();
    shared::<Call<'static>>();
    // With the padding of targets on which a pointer is narrower than an instant is aligned.
    assert!(size_of::<DeadlineBudget>() <= size_of::<(Instant, Instant, usize)>());
}

#[test]
fn readings_agree_before_at_and_after_the_deadline() {
    let (clock, budget) = one_second();
    for (advance, elapsed, remaining, overrun) in
        [(0, 0, 1_000, 0), (999, 999, 1, 0), (1, 1_000, 0, 0), (500, 1_500, 0, 500)]
    {
        clock.advance(ms(advance));
        assert_eq!(budget.elapsed(), ms(elapsed));
        assert_eq!(budget.remaining(), ms(remaining));
        assert_eq!(budget.overrun(), ms(overrun));
        assert_eq!(budget.total(), ms(1_000));
        assert_eq!(budget.is_expired(), elapsed >= 1_000);
        assert_eq!(
            budget.check(),
            if elapsed < 1_000 { Ok(()) } else { Err(refusal(1_000, elapsed, 0)) }
        );
    }
}

#[test]
fn an_instant_that_has_passed_is_an_expired_budget() {
    let passed = Instant::now();
    std::thread::sleep(ms(2));
    let budget = DeadlineBudget::at(passed);
    assert!(budget.is_expired() && budget.overrun() >= ms(2));
    assert_eq!((budget.total(), budget.remaining()), (ZERO, ZERO));
    assert_eq!(budget.deadline(), Some(passed));
    assert_eq!(budget.check().unwrap_err().budget(), ZERO);
    assert!(budget.timeout_for("any").is_err());

    let ahead = passed + Duration::from_secs(3_600);
    let budget = DeadlineBudget::at(ahead);
    assert_eq!(budget.deadline(), Some(ahead));
    assert!(budget.check().is_ok() && budget.total() < Duration::from_secs(3_600));
    assert!(budget.total() > Duration::from_secs(3_500));
}

#[test]
fn an_unbounded_budget_never_ends_but_counts() {
    let (clock, builder) = manual();
    let budget = builder.safety_margin(MAX).build().unwrap();
    clock.advance(ms(1 << 50));
    assert_eq!((budget.total(), budget.remaining(), budget.overrun()), (MAX, MAX, ZERO));
    assert_eq!(budget.elapsed(), ms(1 << 50));
    assert_eq!((budget.deadline(), budget.to_grpc_timeout()), (None, None));
    assert!(!budget.is_expired() && budget.check().is_ok() && budget.fits(MAX).is_ok());
    assert_eq!(budget.timeout_for(Call::new().strict()), Ok(MAX));
    assert_eq!(budget.timeout_for(Call::new().reserve_for_next(ms(1))), Ok(MAX));
    assert_eq!(budget.timeout_for(Call::new().cap(ms(7))), Ok(ms(7)));
    assert_eq!((budget.split(1), budget.split(3), budget.split(0)), (MAX, MAX, ZERO));
    assert_eq!(budget.child(ms(9)).deadline(), Some(clock.now() + ms(9)));
}

#[test]
fn the_longest_durations_do_not_overflow() {
    let (clock, builder) = manual();
    let budget = builder
        .total(MAX)
        .safety_margin(ms(1))
        .min_timeout(MAX)
        .call_cap("x", MAX)
        .build()
        .unwrap();
    clock.advance(MAX);
    assert_eq!(budget.deadline(), None);
    assert_eq!(budget.child(MAX).deadline(), None);
    let call = Call::named("x").cap(MAX).min(MAX).reserve_for_next(MAX).strict();
    assert_eq!(budget.timeout_for(call), Ok(MAX));
    assert_eq!(DeadlineBudget::new(MAX).remaining(), MAX);

    let (_, budget) = one_second();
    assert_eq!(budget.child(MAX).remaining(), ms(1_000));
    assert_eq!(budget.timeout_for(Call::new().min(MAX)), Ok(MAX));
    assert!(budget.timeout_for(Call::new().min(MAX).strict()).is_err());
    assert_eq!(budget.timeout_for(Call::new().cap(MAX).reserve_for_next(MAX)), Ok(ms(100)));
    assert_eq!(budget.fits(MAX).unwrap_err().needed(), MAX);
    assert_eq!(budget.split(u32::MAX), ZERO); // under a nanosecond each
}

#[test]
fn work_fits_up_to_the_deadline_and_nothing_fits_after_it() {
    let (clock, budget) = one_second();
    clock.advance(ms(400));
    assert_eq!(budget.fits(ms(600)), Ok(()));
    assert_eq!(budget.fits(ms(601)), Err(refusal(1_000, 400, 601)));
    clock.advance(ms(600));
    assert_eq!(budget.fits(ZERO), Err(refusal(1_000, 1_000, 0)));
    assert_eq!(budget.fits(ms(2)), Err(refusal(1_000, 1_000, 2)));
}

#[test]
fn a_child_ends_with_its_parent_or_earlier_and_shares_its_rules() {
    let (clock, builder) = manual();
    let parent =
        builder.total(ms(1_000)).min_timeout(ms(10)).call_cap("a", ms(20)).build().unwrap();
    clock.advance(ms(400));
    let short = parent.child(ms(100));
    let long = parent.child(ms(601));
    assert_eq!((short.total(), short.elapsed()), (ms(100), ZERO));
    assert_eq!((long.total(), long.deadline()), (ms(600), parent.deadline()));
    assert_eq!(long.timeout_for("a"), Ok(ms(20)));
    clock.advance(ms(95));
    assert_eq!(short.timeout_for("b"), Ok(ms(10)));
    assert!(Arc::ptr_eq(
        parent.rules.as_ref().unwrap(),
        short.child(ms(1)).rules.as_ref().unwrap()
    ));
    assert!(Arc::ptr_eq(parent.rules.as_ref().unwrap(), parent.clone().rules.as_ref().unwrap()));

    clock.advance(ms(600));
    let late = parent.child(ms(50));
    assert!(late.is_expired());
    assert_eq!((late.total(), late.overrun()), (ZERO, ms(95)));
}

#[test]
fn shares_are_fair() {
    let (clock, budget) = one_second();
    assert_eq!((budget.split(0), budget.split(1), budget.split(4)), (ZERO, ms(1_000), ms(250)));
    assert_eq!(budget.split(3), Duration::from_nanos(333_333_333));
    clock.advance(ms(1_000));
    assert_eq!((budget.split(0), budget.split(2)), (ZERO, ZERO));
}

#[test]
fn a_question_reads_the_clock_once() {
    let reads = Arc::new(AtomicUsize::new(0));
    let (counted, start) = (reads.clone(), Instant::now());
    let late = Arc::new(AtomicUsize::new(0));
    let seconds = late.clone();
    let clock = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        start + Duration::from_secs(seconds.load(Ordering::Relaxed) as u64)
    };
    let budget = DeadlineBudget::builder().total(ms(1_000)).clock(clock).build().unwrap();
    let budget = &budget;
    let once: [(&str, &dyn Fn() -> bool); 11] = [
        ("remaining", &|| budget.remaining().is_zero()),
        ("overrun", &|| !budget.overrun().is_zero()),
        ("elapsed", &|| budget.elapsed() >= ms(1_000)),
        ("is_expired", &|| budget.is_expired()),
        ("check", &|| budget.check().is_err()),
        ("fits", &|| budget.fits(ms(1)).is_err()),
        ("timeout_for", &|| budget.timeout_for("x").is_err()),
        ("strict", &|| budget.timeout_for(Call::new().strict()).is_err()),
        ("split", &|| budget.split(3).is_zero()),
        ("child", &|| budget.child(ms(1)).total().is_zero()),
        ("to_grpc_timeout", &|| budget.to_grpc_timeout().unwrap() == "0n"),
    ];
    for seconds in [0, 9] {
        late.store(seconds, Ordering::Relaxed);
        for (name, expired) in once {
            reads.store(0, Ordering::Relaxed);
            assert_eq!(expired(), seconds > 0, "{name}");
            assert_eq!(reads.load(Ordering::Relaxed), 1, "{name}");
        }
    }
    reads.store(0, Ordering::Relaxed);
    assert_eq!((budget.clone().total(), budget.deadline().is_some()), (ms(1_000), true));
    assert!(!format!("{budget:?}").is_empty());
    assert_eq!(reads.load(Ordering::Relaxed), 0);
}

#[test]
fn a_clock_that_runs_back_stands_still_at_the_start() {
    let base = Instant::now();
    let offset = Arc::new(AtomicUsize::new(100));
    let seconds = offset.clone();
    let clock = move || base + Duration::from_secs(seconds.load(Ordering::Relaxed) as u64);
    let budget = DeadlineBudget::builder().total(ms(10_000)).clock(clock).build().unwrap();
    offset.store(0, Ordering::Relaxed);
    assert_eq!((budget.remaining(), budget.elapsed()), (ms(10_000), ZERO));
    assert_eq!(budget.child(ms(60_000)).deadline(), budget.deadline());
    assert_eq!(budget.child(ms(6_000)).remaining(), ms(6_000));
}

#[test]
fn a_pool_gives_its_own_clock() {
    let clock = ManualClock::new();
    let start = clock.now();
    let budget = DeadlineBudget::starting(start, ms(10), SharedClock::new(clock.clone()));
    assert_eq!((budget.started, budget.deadline()), (start, Some(start + ms(10))));
    assert_eq!(budget.timeout_for(Call::new().reserve_for_next(ms(10))), Ok(ms(100)));
    clock.advance(ms(11));
    assert_eq!(budget.overrun(), ms(1));
    assert!(DeadlineBudget::starting(Instant::now(), ZERO, SharedClock::SYSTEM).is_expired());

    let (_, other) = manual();
    let other = other.total(ms(500)).min_timeout(ms(1)).call_cap("a", ms(2)).build().unwrap();
    let moved = other.with_clock(SharedClock::new(clock.clone()));
    assert_eq!((moved.started, moved.deadline()), (other.started, other.deadline()));
    assert_eq!(moved.timeout_for("a"), Ok(ms(2)));
    clock.advance(ms(5_000));
    assert!(moved.is_expired() && !other.is_expired());
}

proptest! {
    #[test]
    fn readings_of_one_moment_agree((budget, _) in budget()) {
        prop_assert_eq!(budget.is_expired(), budget.remaining().is_zero());
        prop_assert_eq!(budget.is_expired(), budget.check().is_err());
        prop_assert!(budget.remaining() <= budget.total());
        if budget.deadline().is_some() {
            let lived = budget.elapsed() - budget.overrun();
            prop_assert_eq!(lived + budget.remaining(), budget.total());
        }
    }

    #[test]
    fn a_child_never_outlives_its_parent((budget, _) in budget(), totals in prop::collection::vec(duration(), 1..4)) {
        let mut parent = budget;
        for total in totals {
            let child = parent.child(total);
            prop_assert!(!total.is_zero() || child.is_expired());
            // Too long for an instant is unbounded.
            prop_assert!(child.total() <= total || child.deadline().is_none());
            prop_assert!(child.remaining() <= parent.remaining());
            prop_assert!(parent.deadline().is_none_or(|end| child.deadline().is_some_and(|own| own <= end)));
            parent = child;
        }
    }

    #[test]
    fn shares_add_up_to_no_more_than_what_remains((budget, _) in budget(), steps: u32, few in 0..9_u32) {
        for steps in [steps, few] {
            let (share, remaining) = (budget.split(steps), budget.remaining());
            let sum = share.saturating_mul(steps);
            prop_assert!(sum <= remaining);
            // Fair: what is lost to rounding is less than a nanosecond a step.
            prop_assert!(steps == 0 || (remaining - sum).as_nanos() < u128::from(steps));
        }
    }
}
