//! A budget of time joined to a pool.

use std::time::Duration;

use budget_pool::{Amount, BudgetPool, Call, DeadlineBudget, ManualClock, PoolDeadline};

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn one() -> Amount {
    Amount::new().requests(1)
}

#[test]
fn a_pool_gives_its_budget_back_with_floor_and_caps_and_reads_it_by_its_own_clock() {
    let clock = ManualClock::new();
    let request = DeadlineBudget::builder()
        .total(secs(10))
        .min_timeout(secs(3))
        .call_cap("search", secs(2))
        .clock(clock.clone())
        .build()
        .unwrap();
    clock.advance(secs(1));
    let pool = BudgetPool::builder().clock(clock.clone()).deadline(&request).build();
    let budget = pool.deadline().unwrap();
    assert_eq!(budget.deadline(), request.deadline());
    assert_eq!(
        (budget.total(), budget.elapsed(), pool.time_left()),
        (secs(10), secs(1), Some(secs(9)))
    );
    assert_eq!(budget.timeout_for("search"), Ok(secs(2)));
    clock.advance(secs(8));
    assert_eq!(budget.timeout_for(Call::new()), Ok(secs(3)), "the floor");
    pool.record(one()).unwrap();
    clock.advance(secs(1));
    assert_eq!(
        pool.record(one()).unwrap_err().to_string(),
        "deadline of `pool` exceeded: 10s elapsed, budget 10s"
    );
}

#[test]
fn a_childs_deadline_never_outlives_its_parents() {
    let clock = ManualClock::new();
    let parent = BudgetPool::builder().clock(clock.clone()).deadline(secs(10)).build();
    let of = |pool: &BudgetPool| pool.deadline().unwrap();

    let longer = parent.child().deadline(secs(60)).build();
    let longer_budget =
        DeadlineBudget::builder().total(secs(60)).call_cap("draft", secs(4)).build().unwrap();
    let capped = parent.child().deadline(longer_budget).carved().build().unwrap();
    let unbounded = parent.child().deadline(DeadlineBudget::unbounded()).build();
    let plain = parent.child().build();
    for child in [&longer, &capped, &unbounded, &plain] {
        assert_eq!(
            (of(child).deadline(), child.time_left()),
            (of(&parent).deadline(), Some(secs(10)))
        );
    }
    assert_eq!(of(&capped).timeout_for("draft"), Ok(secs(4)), "the caps are the child's own");

    let shorter = plain.child().deadline(secs(2)).build();
    let hold = shorter.child().build().reserve(one()).unwrap();
    assert_eq!(hold.time_left(), Some(secs(2)));
    clock.advance(secs(3));
    assert!(shorter.record(one()).is_err());
    assert_eq!((shorter.time_left(), of(&shorter).overrun()), (Some(secs(0)), secs(1)));
    plain.record(one()).unwrap();
    hold.commit(one());
}

#[test]
fn a_part_keeps_the_floor_and_the_caps_and_a_lone_pool_the_clock() {
    let clock = ManualClock::new();
    let request = DeadlineBudget::builder()
        .total(secs(10))
        .call_cap("search", secs(2))
        .clock(clock.clone())
        .build();
    let pool = BudgetPool::builder().deadline(request.unwrap()).build();
    let part = pool.child().deadline(secs(5)).build();
    assert_eq!(part.deadline().unwrap().timeout_for("search"), Ok(secs(2)));
    let none = DeadlineBudget::builder().total(secs(0)).clock(clock.clone()).build();
    let no_time: [PoolDeadline; 3] =
        [secs(0).into(), none.unwrap().into(), pool.deadline().unwrap().child(secs(0)).into()];
    for no_time in no_time {
        let late = pool.child().name("late").deadline(no_time).build();
        assert_eq!(
            late.record(one()).unwrap_err().to_string(),
            "deadline of `late` exceeded: no time from the start"
        );
        assert_eq!(late.deadline().unwrap().total(), secs(0));
    }
    clock.advance(secs(5));
    assert!(part.record(one()).is_err() && pool.record(one()).is_ok());
}

#[test]
fn without_an_end_there_is_no_deadline() {
    let none = BudgetPool::unlimited();
    assert!(none.deadline().is_none());
    let service = DeadlineBudget::builder().call_cap("search", secs(2)).build().unwrap();
    let pool = BudgetPool::builder().deadline(service).build();
    assert_eq!(pool.time_left(), None);
    assert_eq!(pool.deadline().unwrap().timeout_for("search"), Ok(secs(2)));
    pool.record(one()).unwrap();
}

#[tokio::test(start_paused = true)]
async fn tokios_paused_time_is_one_closure_away() {
    let clock = || tokio::time::Instant::now().into_std();
    let pool = BudgetPool::builder().clock(clock).deadline(secs(60)).build();
    let budget = DeadlineBudget::builder().clock(clock).total(secs(90)).build().unwrap();
    let hold = pool.reserve(one()).unwrap();

    tokio::time::sleep(secs(59)).await; // takes no real second
    assert_eq!((pool.time_left(), budget.remaining()), (Some(secs(1)), secs(31)));
    pool.record(one()).unwrap();

    tokio::time::advance(secs(1)).await;
    assert!(pool.record(one()).is_err());
    assert_eq!(hold.time_left(), Some(secs(0)));
    assert!(budget.check().is_ok());
}
