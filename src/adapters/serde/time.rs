//! A time as text, with its unit, in exact arithmetic.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

const SECOND: u128 = 1_000_000_000;

const UNITS: [(&str, u128); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3_600 * SECOND),
    ("d", 86_400 * SECOND),
];

/// More decimals than this name no whole nanosecond in any of the units: a day is 2^16 times an odd
/// number of nanoseconds, and no unit can be halved more often.
const MOST_DECIMALS: usize = 16;

/// A time: decimal seconds as text (`"60s"`, `"1.5s"`), and as serde has it in a binary format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time(pub(super) Duration);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Text)
        } else {
            Duration::deserialize(deserializer).map(Time)
        }
    }
}

struct Text;

impl Visitor<'_> for Text {
    type Value = Time;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time as text with its unit (ns, us, ms, s, m, h, d), such as \"1.5s\"")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
        match parse(text) {
            Ok(time) => Ok(Time(time)),
            Err(Wrong::Form) => Err(E::invalid_value(Unexpected::Str(text), &self)),
            Err(Wrong::TooFine) => Err(E::custom("a time is a whole number of nanoseconds")),
            Err(Wrong::TooLong) => Err(E::custom("a time of more seconds than a u64 counts")),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Form,
    TooFine,
    TooLong,
}

fn parse(text: &str) -> Result<Duration, Wrong> {
    let end = text.find(|c: char| c != '.' && !c.is_ascii_digit()).ok_or(Wrong::Form)?;
    let (number, unit) = text.split_at(end);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).ok_or(Wrong::Form)?.1;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(Wrong::Form);
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > MOST_DECIMALS {
        return Err(Wrong::TooFine);
    }
    let add = |all: u128, digit: u8| all.checked_mul(10)?.checked_add(u128::from(digit - b'0'));
    let nanos = |digits: &str| digits.bytes().try_fold(0, add)?.checked_mul(unit);
    // The two apart: as many digits as both have together are more than can be counted.
    let scale = 10_u128.pow(fraction.len() as u32);
    let parts = nanos(fraction).ok_or(Wrong::TooLong)?;
    if parts % scale != 0 {
        return Err(Wrong::TooFine);
    }
    let sum = |whole: u128| whole.checked_add(parts / scale);
    let nanos = nanos(whole).and_then(sum).ok_or(Wrong::TooLong)?;
    let (seconds, rest) = (nanos / SECOND, nanos % SECOND);
    let seconds = u64::try_from(seconds).map_err(|_| Wrong::TooLong)?;
    Ok(Duration::new(seconds, rest as u32))
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fraction = format!(".{:09}", self.0.subsec_nanos());
        write!(f, "{}{}s", self.0.as_secs(), fraction.trim_end_matches('0').trim_end_matches('.'))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_is_exact_in_every_unit() {
        for (text, nanos) in [
            ("0s", 0),
            ("7ns", 7),
            ("1.5us", 1_500),
            ("250ms", 250_000_000),
            ("60s", 60_000_000_000),
            ("1.000000001s", 1_000_000_001),
            (".5m", 30_000_000_000),
            ("24h", 86_400_000_000_000),
            ("0.00000000001d", 864),
            ("0.0000152587890625d", 1_318_359_375),
            ("1.0000000000000000000000s", 1_000_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
        let far = Duration::new(8_640_000_000_000_000_001, 318_359_375);
        assert_eq!(parse("100000000000000.0000152587890625d"), Ok(far));
        let longest = format!("{}.999999999s", u64::MAX);
        assert_eq!(parse(&longest), Ok(Duration::MAX));
        assert_eq!(Time(Duration::MAX).to_string(), longest);
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "60", "s", ".s", "1.2.3s", "-1s", "+1s", "1 s", " 1s", "1S", "1h30m", "1e3s", "١s"]
        {
            assert_eq!(parse(text), Err(Wrong::Form), "{text}");
        }
        let finest = format!("0.{}1d", "0".repeat(60));
        for text in ["0.5ns", "1.0000000001s", "0.00000762939453125d", &finest] {
            assert_eq!(parse(text), Err(Wrong::TooFine), "{text}");
        }
        let too_long =
            [format!("{}0s", u64::MAX), format!("{}d", u64::MAX), format!("{}s", "9".repeat(60))];
        for text in too_long {
            assert_eq!(parse(&text), Err(Wrong::TooLong), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_back(seconds: u64, nanos in 0..1_000_000_000_u32) {
            let time = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&Time(time).to_string()), Ok(time));
        }
    }
}
