//! Any text: what parses as a price of a token is what shifting its point by hand says, and is
//! displayed as it parses.

#![no_main]

use budget_pool_llm::Rate;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let rate = text.parse::<Rate>().ok();
    if let Some(expected) = slowly(text) {
        assert_eq!(rate.map(|rate| rate.to_string()), expected, "{text:?}");
    }
    if let Some(rate) = rate {
        assert_eq!(rate.to_string().parse(), Ok(rate));
        // The float that the text names is read as another text of the same float.
        let float: f64 = text.parse().expect("a float reads what a price reads");
        if let Ok(near) = Rate::try_from(float) {
            assert_eq!(near.to_string().parse(), Ok(float.abs()), "{text:?}");
        }
    }
});

/// Writes the number out without its exponent, and cuts off needless zeros. `Some(None)` is not a
/// price; `None` has an exponent that is too far to write out.
fn slowly(text: &str) -> Option<Option<String>> {
    let (is_negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let split = rest.find(['e', 'E']);
    let (mantissa, exponent) = split.map_or((rest, "0"), |at| (&rest[..at], &rest[at + 1..]));
    let is_number = |digits: &str| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
    let sizes = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let point = mantissa.find('.').unwrap_or(mantissa.len());
    let digits = mantissa.replacen('.', "", 1);
    if !is_number(sizes) || !is_number(&digits) {
        return Some(None);
    }
    let exponent =
        exponent.parse().ok().filter(|exponent: &i64| (-999..1_000).contains(exponent))?;
    let zeros = "0".repeat(1_000);
    let written = format!("{zeros}{digits}{zeros}");
    let point = usize::try_from(1_000 + point as i64 + exponent).ok()?;
    let (whole, fraction) = (&written[..point], &written[point..]);
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    if whole.is_empty() && fraction.is_empty() {
        return Some(Some("0".to_owned()));
    }
    // The most is a `u128` of the 27th decimal.
    let units = format!("{whole}{fraction:0<27}");
    if is_negative || fraction.len() > 27 || units.parse::<u128>().is_err() {
        return Some(None);
    }
    let whole = if whole.is_empty() { "0" } else { whole };
    let is_whole = fraction.is_empty();
    Some(Some(if is_whole { whole.to_owned() } else { format!("{whole}.{fraction}") }))
}
