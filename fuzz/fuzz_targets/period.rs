//! Any text as the period of a window: what is read is what a multiplication digit by digit says,
//! and is written as it reads.

#![no_main]

use std::time::Duration;

use budget_pool::Window;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let read = |period: &str| {
        serde_json::from_value::<Window>(json!({ "kind": "rolling", "period": period })).ok()
    };
    let window = read(text);
    assert_eq!(window, slowly(text).map(Window::rolling), "{text:?}");
    if let Some(window) = window {
        let written = serde_json::to_value(&window).expect("it holds no instant");
        let period = written.get("period").and_then(Value::as_str).expect("a text");
        assert_eq!(read(period), Some(window), "{text:?}");
    }
});

/// Multiplies the digits by the unit as one does on paper, and shifts the point to the seconds.
fn slowly(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c != '.' && !c.is_ascii_digit())?);
    let unit: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    let decimals = number.find('.').map_or(0, |point| number.len() - point - 1);
    let digits = number.replacen('.', "", 1);
    if digits.is_empty() || digits.contains('.') {
        return None;
    }
    // The last digit first.
    let (mut product, mut carry) = (Vec::new(), 0);
    for digit in digits.bytes().rev() {
        let here = u64::from(digit - b'0') * unit + carry;
        product.push(here % 10);
        carry = here / 10;
    }
    while carry > 0 {
        product.push(carry % 10);
        carry /= 10;
    }
    let (parts, nanos) = product.split_at_checked(decimals).unwrap_or((&product, &[]));
    if parts.iter().any(|digit| *digit != 0) {
        return None;
    }
    let number = |digits: &[u64]| {
        let add = |all: u64, digit: &u64| all.checked_mul(10)?.checked_add(*digit);
        digits.iter().rev().try_fold(0, add)
    };
    let (rest, seconds) = nanos.split_at(nanos.len().min(9));
    Some(Duration::new(number(seconds)?, u32::try_from(number(rest)?).ok()?))
}
