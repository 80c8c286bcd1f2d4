//! Auto traits, sizes and texts of a lease.

use super::*;

fn shared<T: Send + Sync + Unpin + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static>() {
}

#[test]
fn a_lease_moves_between_threads_and_fits_four_cache_lines() {
    shared::<Lease>();
    assert!(size_of::<Lease>() <= 256, "{}", size_of::<Lease>());
}

#[test]
fn debug_says_what_it_is() {
    let pool = pool_of(100);
    let mut lease = pool.lease(tokens(3).usd(Usd::from_cents(1)));
    let text = r#"Lease { pool: "run", remaining: Amount(0 tokens, 0 USD) }"#;
    assert_eq!(format!("{lease:?}"), text);
    lease.record(tokens(1)).unwrap();
    lease.record(tokens(1)).unwrap();
    let text = r#"Lease { pool: "run", remaining: Amount(2 tokens, 0.01 USD) }"#;
    assert_eq!(format!("{lease:?}"), text);
}
