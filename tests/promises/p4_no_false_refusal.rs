//! P4: a call that fits is admitted.

use super::*;

#[test]
fn the_last_unit_of_every_axis_can_be_spent() {
    let pool = BudgetPool::builder()
        .caps(
            Caps::new()
                .tokens(7)
                .input_tokens(3)
                .output_tokens(4)
                .requests(1)
                .usd(Usd::from_nanos(1))
                .in_flight(1),
        )
        .build();
    let all = Amount::new().input_tokens(3).output_tokens(4).requests(1).usd(Usd::from_nanos(1));
    drop(pool.reserve(all).unwrap());
    pool.peek(all).unwrap();
    pool.record(all).unwrap();
    pool.record(Amount::new()).unwrap();
    pool.reserve(Amount::new().tokens(0)).unwrap().release();
}

#[test]
fn a_cap_of_zero_admits_zero() {
    let pool = pool_of(0);
    pool.record(tokens(0)).unwrap();
    pool.record(usd(5)).unwrap();
    assert!(pool.record(tokens(1)).is_err());
}
