//! What the compiler is asked: auto traits and sizes.

use std::mem::size_of;

use budget_pool::*;

fn shared<T: Send + Sync + Unpin + 'static>() {}
fn unwound<T: std::panic::UnwindSafe + std::panic::RefUnwindSafe>() {}
fn printed<T: std::fmt::Debug>() {}
fn error<T: std::error::Error + Send + Sync + 'static>() {}

#[test]
fn what_is_handed_around_is_send_sync_static_and_debug() {
    shared::<BudgetPool>();
    shared::<Reservation>();
    shared::<Receipt>();
    shared::<Snapshot>();
    shared::<TreeSnapshot>();
    shared::<Holder>();
    shared::<CommitRefused>();
    shared::<Builder<Root>>();
    shared::<Builder<Child>>();
    shared::<Builder<Carved>>();
    shared::<ManualClock>();
    unwound::<BudgetPool>();
    unwound::<Reservation>();
    printed::<BudgetPool>();
    printed::<Reservation>();
    printed::<Builder<Root>>();
    error::<BudgetError>();
    error::<BudgetExceeded>();
    error::<DeadlineExceeded>();
    error::<CommitRefused>();
    error::<ParseUsdError>();
    error::<TryFromF64Error>();
}

#[test]
fn sizes() {
    assert_eq!(size_of::<BudgetPool>(), size_of::<usize>(), "a handle is one pointer");
    assert_eq!(size_of::<Option<BudgetPool>>(), size_of::<usize>());
    assert!(size_of::<Reservation>() <= 32);
    assert!(size_of::<Option<Reservation>>() <= 32);
    assert!(size_of::<BudgetError>() <= 96);
    assert_eq!(size_of::<Usd>(), 8);
}

#[test]
fn debug_says_what_it_is_without_a_wall_of_text() {
    let pool = BudgetPool::builder().name("run").tokens(10).build();
    let hold = pool.reserve(Amount::new().tokens(3)).unwrap();
    assert_eq!(format!("{pool:?}"), r#"BudgetPool { name: "run", .. }"#);
    assert_eq!(format!("{hold:?}"), r#"Reservation { pool: "run", amount: Amount(3 tokens) }"#);
}

#[test]
fn a_name_is_found_in_a_map_by_its_text() {
    let pool = BudgetPool::builder().name("run-17").build();
    let by_name = std::collections::HashMap::from([(pool.snapshot().name, 1)]);
    assert_eq!((by_name.get("run-17"), by_name.get("run-18")), (Some(&1), None));
}
