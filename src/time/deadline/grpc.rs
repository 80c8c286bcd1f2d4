//! The wire format of a `grpc-timeout` header.

use std::time::Duration;

/// The units of a `grpc-timeout`, finest first.
const UNITS: [(u8, Duration); 6] = [
    (b'n', Duration::from_nanos(1)),
    (b'u', Duration::from_micros(1)),
    (b'm', Duration::from_millis(1)),
    (b'S', Duration::from_secs(1)),
    (b'M', Duration::from_secs(60)),
    (b'H', Duration::from_secs(60 * 60)),
];
const DIGITS: usize = 8;
const MAX_VALUE: u128 = 99_999_999;

pub(super) fn encode(timeout: Duration) -> String {
    let nanos = timeout.as_nanos();
    let (value, unit) = UNITS
        .into_iter()
        .map(|(unit, length)| (nanos / length.as_nanos(), char::from(unit)))
        .find(|(value, _)| *value <= MAX_VALUE)
        .unwrap_or((MAX_VALUE, 'H'));
    format!("{value}{unit}")
}

pub(super) fn decode(header: &str) -> Result<Duration, ParseGrpcTimeoutError> {
    let (&last, digits) = header.as_bytes().split_last().ok_or(ParseGrpcTimeoutError::Empty)?;
    let (_, length) = UNITS
        .into_iter()
        .find(|(unit, _)| *unit == last)
        .ok_or(ParseGrpcTimeoutError::UnknownUnit)?;
    if digits.is_empty() {
        return Err(ParseGrpcTimeoutError::Empty);
    }
    if !digits.iter().all(u8::is_ascii_digit) {
        return Err(ParseGrpcTimeoutError::NotDigits);
    }
    if digits.len() > DIGITS {
        return Err(ParseGrpcTimeoutError::TooManyDigits);
    }
    // Eight digits fit a `u32`, and so many hours fit a `Duration`.
    let value = digits.iter().fold(0_u32, |value, digit| value * 10 + u32::from(digit - b'0'));
    Ok(length.saturating_mul(value))
}

/// Why a text is not the value of a `grpc-timeout` header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ParseGrpcTimeoutError {
    /// There are no digits.
    #[error("no digits in a grpc-timeout")]
    Empty,
    /// It does not end in one of the six units, which are told apart by case: `M` is minutes, `m`
    /// milliseconds.
    #[error("a grpc-timeout ends in one of H, M, S, m, u, n")]
    UnknownUnit,
    /// Something other than ASCII digits before the unit: a sign, a point, a space.
    #[error("a grpc-timeout is ASCII digits and a unit")]
    NotDigits,
    /// More digits than the wire format has.
    #[error("a grpc-timeout has at most 8 digits")]
    TooManyDigits,
}

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::deadline::budget::DeadlineBudget;
    use crate::time::deadline::samples::{MAX, ZERO, budget, duration, manual, ms, one_second};

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_fits_rounded_down() {
        let secs = Duration::from_secs;
        for (timeout, header) in [
            (ZERO, "0n"),
            (Duration::from_nanos(1), "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_nanos(99_999_999_999), "99999999u"),
            (secs(100), "100000m"),
            (Duration::from_micros(99_999_999_999), "99999999m"),
            (secs(100_000), "100000S"),
            (secs(99_999_999), "99999999S"),
            (secs(100_000_000), "1666666M"),
            (secs(99_999_999 * 60 + 59), "99999999M"),
            (secs(100_000_000 * 60), "1666666H"),
            (secs(99_999_999 * 3_600), "99999999H"),
            (secs(100_000_000 * 3_600), "99999999H"),
            (MAX, "99999999H"),
        ] {
            assert_eq!(encode(timeout), header);
        }
        let (clock, budget) = one_second();
        clock.advance(Duration::from_nanos(900_000_001));
        assert_eq!(budget.to_grpc_timeout().as_deref(), Some("99999999n"));
        clock.advance(ms(100));
        assert_eq!(budget.to_grpc_timeout().as_deref(), Some("0n"));
        clock.advance(ms(100));
        assert_eq!(budget.to_grpc_timeout().as_deref(), Some("0n"));
    }

    #[test]
    fn every_header_of_the_wire_format_is_read() {
        for (header, nanos) in [
            ("1n", 1_u128),
            ("2u", 2_000),
            ("3m", 3_000_000),
            ("4S", 4_000_000_000),
            ("5M", 300_000_000_000),
            ("6H", 21_600_000_000_000),
            ("007m", 7_000_000),
            ("00000000H", 0),
            ("99999999H", 99_999_999 * 3_600_000_000_000),
        ] {
            assert_eq!(decode(header).map(|timeout| timeout.as_nanos()), Ok(nanos), "{header}");
        }
        let longest = DeadlineBudget::from_grpc_timeout("99999999H").unwrap();
        assert!(
            longest.check().is_ok()
                && longest.remaining() > Duration::from_secs(99_999_998 * 3_600)
        );
        let expired = DeadlineBudget::from_grpc_timeout("0n").unwrap();
        assert_eq!((expired.is_expired(), expired.total()), (true, ZERO));
    }

    #[test]
    fn an_absurd_header_is_refused_with_its_reason() {
        use ParseGrpcTimeoutError::{Empty, NotDigits, TooManyDigits, UnknownUnit};
        for (header, why) in [
            ("", Empty),
            ("n", Empty),
            ("5", UnknownUnit),
            ("5s", UnknownUnit),
            ("5h", UnknownUnit),
            ("5ms\0", UnknownUnit),
            ("5S ", UnknownUnit),
            ("5µ", UnknownUnit),
            ("5Н", UnknownUnit), // Cyrillic
            ("5ms", UnknownUnit),
            ("5us", UnknownUnit),
            ("-1S", NotDigits),
            ("+1S", NotDigits),
            (" 1S", NotDigits),
            ("1 S", NotDigits),
            ("1.5S", NotDigits),
            ("1_0S", NotDigits),
            ("0x1S", NotDigits),
            ("1e3S", NotDigits),
            ("1S1S", NotDigits),
            ("٣S", NotDigits),  // Arabic
            ("３S", NotDigits), // full width
            ("-123456789S", NotDigits),
            ("123456789n", TooManyDigits),
            ("000000001n", TooManyDigits),
            ("99999999999999999999999999H", TooManyDigits),
        ] {
            assert_eq!(DeadlineBudget::from_grpc_timeout(header).err(), Some(why), "{header:?}");
            assert_eq!(
                DeadlineBudget::unbounded().child_from_grpc_timeout(header).err(),
                Some(why),
                "{header:?}"
            );
        }
        assert_eq!(Empty.to_string(), "no digits in a grpc-timeout");
        assert_eq!(UnknownUnit.to_string(), "a grpc-timeout ends in one of H, M, S, m, u, n");
        assert_eq!(NotDigits.to_string(), "a grpc-timeout is ASCII digits and a unit");
        assert_eq!(TooManyDigits.to_string(), "a grpc-timeout has at most 8 digits");
    }

    #[test]
    fn a_header_cannot_ask_for_more_than_its_parent_has() {
        let (clock, builder) = manual();
        let service = builder.total(ms(1_000)).call_cap("a", ms(20)).build().unwrap();
        clock.advance(ms(1));
        let request = service.child_from_grpc_timeout("99999999H").unwrap();
        assert_eq!((request.deadline(), request.total()), (service.deadline(), ms(999)));
        let request = service.child_from_grpc_timeout("250m").unwrap();
        assert_eq!((request.total(), request.timeout_for("a")), (ms(250), Ok(ms(20))));
        assert!(service.child_from_grpc_timeout("0n").unwrap().is_expired());
    }

    proptest! {
        #[test]
        fn a_header_promises_no_more_than_there_is_and_loses_less_than_its_unit(timeout in duration()) {
            let header = encode(timeout);
            prop_assert!(header.len() <= 9);
            let sent = decode(&header).unwrap();
            prop_assert!(sent <= timeout);
            let (_, unit) = UNITS.into_iter().find(|(unit, _)| header.as_bytes().last() == Some(unit)).unwrap();
            prop_assert!(timeout - sent < unit || header == "99999999H");
            prop_assert_eq!(encode(sent), header);
        }

        #[test]
        fn a_header_arrives_as_a_budget((budget, _) in budget()) {
            let Some(header) = budget.to_grpc_timeout() else {
                prop_assert_eq!(budget.deadline(), None);
                return Ok(());
            };
            let there = DeadlineBudget::from_grpc_timeout(&header).unwrap();
            prop_assert!(there.total() <= budget.remaining());
        }

        #[test]
        fn exactly_the_wire_format_is_read(header in "[0-9]{0,9}[HMSmunsh]?|\\PC{0,10}|[+ -]?[0-9٣]{1,8}[HMSmun]") {
            let format = |bytes: &[u8]| match bytes {
                [digits @ .., unit] => {
                    (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) && b"HMSmun".contains(unit)
                }
                [] => false,
            };
            prop_assert_eq!(decode(&header).is_ok(), format(header.as_bytes()));
        }
    }
}
