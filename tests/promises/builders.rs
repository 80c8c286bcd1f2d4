//! Builders: settings, clones and errors.

use super::*;

#[test]
fn a_setter_that_is_called_again_replaces_what_it_set() {
    let clock = ManualClock::new();
    let pool = BudgetPool::builder()
        .name("first")
        .name("second")
        .tokens(5)
        .requests(1)
        .caps(Caps::new().tokens(7).usd(Usd::from_nanos(3)))
        .usd(Usd::from_nanos(4))
        .deadline(Duration::from_secs(1))
        .deadline(Duration::from_secs(2))
        .clock(|| unreachable!("it was replaced"))
        .clock(clock.clone())
        .build();
    let caps = pool.snapshot();
    assert_eq!((pool.name(), caps.tokens.cap, caps.requests.cap), ("second", Some(7), Some(1)));
    assert_eq!(
        (caps.usd.cap, pool.time_left()),
        (Some(Usd::from_nanos(4)), Some(Duration::from_secs(2)))
    );
}

#[test]
fn a_pool_without_a_name_is_called_pool_and_names_need_not_be_unique() {
    let pool = BudgetPool::builder().tokens(1).build();
    assert_eq!((pool.name(), pool.record(tokens(2)).unwrap_err().pool()), ("pool", "pool"));
    let twins = [(); 2].map(|()| pool.child().name("twin").tokens(0).build());
    assert!(twins.iter().all(|twin| twin.record(tokens(1)).unwrap_err().pool() == "twin"));
}

#[test]
fn the_clock_of_a_root_is_that_of_all_below() {
    let clock = ManualClock::new();
    let root = BudgetPool::builder().clock(clock.clone()).build();
    let leaf = root.child().build().child().deadline(Duration::from_secs(5)).build();
    clock.advance(Duration::from_secs(4));
    assert_eq!(leaf.time_left(), Some(Duration::from_secs(1)));
}
