//! Any text: what parses as dollars is what a big-number reading of it says, and is displayed as it
//! parses.

#![no_main]

use budget_pool::Usd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let parsed = text.parse::<Usd>();
    assert_eq!(parsed.ok().map(Usd::as_nanos), slowly(text), "{text:?}");
    if let Ok(usd) = parsed {
        assert_eq!(usd.to_string().parse(), Ok(usd));
    }
});

/// Shifts the point out of the text, and reads what is left as an integer.
fn slowly(text: &str) -> Option<u64> {
    let point = text.find('.').unwrap_or(text.len());
    let decimals = text.len() - (point + 1).min(text.len());
    let digits = text.replacen('.', "", 1);
    let is_number =
        !digits.is_empty() && decimals <= 9 && digits.chars().all(|c| c.is_ascii_digit());
    let padded = is_number.then(|| digits + &"0".repeat(9 - decimals))?;
    padded.parse().ok()
}
