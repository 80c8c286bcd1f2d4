//! The parser of the `grpc-timeout` header, against the wire format written down once more.

#![no_main]

use budget_pool::DeadlineBudget;
use libfuzzer_sys::fuzz_target;

/// Nanoseconds, if `header` is one to eight ASCII digits and a unit.
fn oracle(header: &str) -> Option<u128> {
    let unit: u128 = match header.chars().last()? {
        'n' => 1,
        'u' => 1_000,
        'm' => 1_000_000,
        'S' => 1_000_000_000,
        'M' => 60_000_000_000,
        'H' => 3_600_000_000_000,
        _ => return None,
    };
    let digits = &header[..header.len() - 1];
    if digits.is_empty() || digits.len() > 8 || !digits.chars().all(|digit| digit.is_ascii_digit())
    {
        return None;
    }
    digits.parse::<u128>().ok().map(|value| value * unit)
}

fuzz_target!(|header: &str| {
    let budget = DeadlineBudget::from_grpc_timeout(header).ok();
    let nanos = budget.as_ref().map(|budget| budget.total().as_nanos());
    assert_eq!(nanos, oracle(header), "{header:?}");

    // Sent on, it is well formed and promises no more time than came in.
    if let Some(sent) = budget.and_then(|budget| budget.to_grpc_timeout()) {
        assert!(oracle(&sent) <= nanos, "{header:?} was sent on as {sent:?}");
        assert!(oracle(&sent).is_some(), "{sent:?}");
    }
});
