//! The caps that count for a pool, each with what is left and when time frees more.

use std::time::Duration;

use budget_pool::{Amount, Axis, BudgetPool, Clock, Limit, ManualClock, Usd, Window};

const SECOND: Duration = Duration::from_secs(1);

fn amount() -> Amount {
    Amount::new()
}

/// Pool, axis, free, cap.
fn figures(limits: &[Limit]) -> Vec<(&str, Axis, u64, u64)> {
    let figures = |limit: &Limit| (limit.free.units(), limit.cap.units());
    limits
        .iter()
        .map(|limit| (limit.pool.as_str(), limit.axis(), figures(limit).0, figures(limit).1))
        .collect()
}

fn times(pool: &BudgetPool) -> Vec<(Option<Duration>, Option<Duration>)> {
    pool.limits().iter().map(|limit| (limit.period, limit.more_in)).collect()
}

#[test]
fn p5_each_cap_on_the_way_up_is_told_with_what_is_free_under_it() {
    let org = BudgetPool::builder().name("org").usd(Usd::from_dollars(9)).tokens(500).build();
    let team = org.child().name("team").build();
    let user = team.child().name("user").requests(4).tokens(200).build();
    let hold = user.reserve(amount().requests(1).tokens(150)).unwrap();
    team.record(amount().tokens(100)).unwrap();
    let dollars = Usd::from_dollars(9).as_nanos();
    assert_eq!(
        figures(&user.limits()),
        [
            ("user", Axis::Tokens, 50, 200),
            ("user", Axis::Requests, 3, 4),
            ("org", Axis::Tokens, 250, 500),
            ("org", Axis::Usd, dollars, dollars),
        ]
    );
    drop(hold);
    assert_eq!(BudgetPool::unlimited().limits(), []);
}

#[test]
fn a_carved_pool_tells_the_caps_above_only_where_it_has_none() {
    let org = BudgetPool::builder().name("org").tokens(500).requests(50).build();
    let carved = org.child().name("carved").tokens(200).carved().build().unwrap();
    assert_eq!(
        figures(&carved.limits()),
        [("carved", Axis::Tokens, 200, 200), ("org", Axis::Requests, 50, 50)]
    );
}

#[test]
fn a_pool_above_several_parents_is_told_once() {
    let org = BudgetPool::builder().name("org").tokens(500).build();
    let (team, model) = (org.child().name("team"), org.child().name("model"));
    let (team, model) = (team.tokens(90).build(), model.tokens(80).build());
    let joint = BudgetPool::joint([&team, &model]).unwrap().name("joint").build();
    joint.record(amount().tokens(10)).unwrap();
    assert_eq!(
        figures(&joint.limits()),
        [
            ("team", Axis::Tokens, 80, 90),
            ("model", Axis::Tokens, 70, 80),
            ("org", Axis::Tokens, 490, 500),
        ]
    );
}

#[test]
fn time_frees_what_is_used_and_never_what_is_held() {
    let clock = ManualClock::new();
    let period = Some(60 * SECOND);
    for (window, period, more_in) in [
        (Window::fixed(60 * SECOND), period, 60 * SECOND),
        (Window::token_bucket(60 * SECOND), period, 6 * SECOND),
        // The slot of the first second comes back a period after its end.
        (Window::rolling(60 * SECOND), period, 61 * SECOND),
        (Window::calendar([clock.now() + 30 * SECOND]), None, 30 * SECOND),
    ] {
        let pool = BudgetPool::builder().requests(10).window(window.clone()).clock(clock.clone());
        let pool = pool.build();
        let hold = pool.reserve(amount().requests(2)).unwrap();
        assert_eq!(times(&pool), [(period, None)], "{window:?}");
        hold.commit_all();
        assert_eq!(times(&pool), [(period, Some(more_in))], "{window:?}");
    }
    let pool = BudgetPool::builder().in_flight(3).window(Window::fixed(SECOND)).build();
    let _hold = pool.reserve(amount()).unwrap();
    assert_eq!(times(&pool), [(None, None)]);
}

#[test]
fn an_overage_is_paid_before_more_is_free() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder().requests(10).clock(clock.clone());
    let pool = pool.window(Window::token_bucket(60 * SECOND)).build();
    pool.debit(amount().requests(14));
    // Four that are owed, and one: five at one each six seconds.
    assert_eq!(times(&pool), [(Some(60 * SECOND), Some(30 * SECOND))]);
    clock.advance(29 * SECOND);
    assert_eq!(times(&pool), [(Some(60 * SECOND), Some(SECOND))]);
    clock.advance(SECOND);
    assert_eq!(pool.limits()[0].free.units(), 1);
}
