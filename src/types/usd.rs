//! Money as a whole number of nano-USD.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Sub, SubAssign};
use std::str::FromStr;

const NANOS_PER_DOLLAR: u64 = 1_000_000_000;
const NANOS_PER_CENT: u64 = 10_000_000;
const NANOS_PER_MICRO: u64 = 1_000;
const DECIMALS: usize = 9;

/// An amount of US dollars, exact to the nano-dollar (1e-9, the unit of `google.type.Money.nanos`).
///
/// Modelled on [`std::time::Duration`]: it is never negative, its constructors and readings name
/// their unit, and its operators panic on overflow where `checked_*` and `saturating_*` do not. It
/// holds up to [`Usd::MAX`], 18,446,744,073.709551615 dollars.
///
/// ```
/// use budget_pool::Usd;
///
/// let price: Usd = "0.30".parse()?;
/// assert_eq!(price, Usd::from_cents(30));
/// assert_eq!(price.to_string(), "0.3");
///
/// // Three times ten cents are thirty cents: no float is involved.
/// assert_eq!(Usd::from_cents(10) * 3, price);
/// # Ok::<(), budget_pool::ParseUsdError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd(u64);

impl Usd {
    /// No money.
    pub const ZERO: Usd = Usd(0);
    /// The most that can be written down: 18,446,744,073.709551615 dollars.
    pub const MAX: Usd = Usd(u64::MAX);

    /// From nano-dollars (1e-9).
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_nanos(1).to_string(), "0.000000001");
    /// ```
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Usd {
        Usd(nanos)
    }

    /// From micro-dollars (1e-6). A dollar per million tokens is one micro-dollar a token.
    ///
    /// # Panics
    /// If the result is above [`Usd::MAX`]; in a `const` that is a compile error. On a figure that
    /// is not your own use [`checked_mul`](Usd::checked_mul):
    /// `Usd::from_nanos(1_000).checked_mul(micros)`.
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_micros(3_600).to_string(), "0.0036");
    /// ```
    #[must_use]
    pub const fn from_micros(micros: u64) -> Usd {
        Usd::scaled(micros, NANOS_PER_MICRO)
    }

    /// From cents (1e-2).
    ///
    /// # Panics
    /// If the result is above [`Usd::MAX`]; see [`from_micros`](Usd::from_micros).
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_cents(150).to_string(), "1.5");
    /// ```
    #[must_use]
    pub const fn from_cents(cents: u64) -> Usd {
        Usd::scaled(cents, NANOS_PER_CENT)
    }

    /// From whole dollars.
    ///
    /// # Panics
    /// If the result is above [`Usd::MAX`]; see [`from_micros`](Usd::from_micros).
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_dollars(3).to_string(), "3");
    /// ```
    #[must_use]
    pub const fn from_dollars(dollars: u64) -> Usd {
        Usd::scaled(dollars, NANOS_PER_DOLLAR)
    }

    const fn scaled(count: u64, nanos_each: u64) -> Usd {
        match count.checked_mul(nanos_each) {
            Some(nanos) => Usd(nanos),
            None => panic!("more dollars than Usd::MAX"),
        }
    }

    /// Nano-dollars: the exact value.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Whole micro-dollars; a fraction is cut off.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / NANOS_PER_MICRO
    }

    /// Whole cents; a fraction is cut off.
    #[must_use]
    pub const fn as_cents(self) -> u64 {
        self.0 / NANOS_PER_CENT
    }

    /// Whole dollars; a fraction is cut off.
    #[must_use]
    pub const fn as_dollars(self) -> u64 {
        self.0 / NANOS_PER_DOLLAR
    }

    /// As a float, for display and statistics only, which may not be exact: the nearest one up to
    /// nine million dollars, and above that no more than one step beside it.
    #[must_use]
    pub fn as_dollars_f64(self) -> f64 {
        self.0 as f64 / NANOS_PER_DOLLAR as f64
    }

    /// Whether this is no money at all.
    #[must_use]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, or `None` above [`Usd::MAX`].
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::MAX.checked_add(Usd::from_nanos(1)), None);
    /// ```
    #[must_use]
    pub const fn checked_add(self, other: Usd) -> Option<Usd> {
        match self.0.checked_add(other.0) {
            Some(nanos) => Some(Usd(nanos)),
            None => None,
        }
    }

    /// The difference, or `None` below zero.
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_cents(5).checked_sub(Usd::from_cents(6)), None);
    /// ```
    #[must_use]
    pub const fn checked_sub(self, other: Usd) -> Option<Usd> {
        match self.0.checked_sub(other.0) {
            Some(nanos) => Some(Usd(nanos)),
            None => None,
        }
    }

    /// The product, or `None` above [`Usd::MAX`].
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_cents(5).checked_mul(3), Some(Usd::from_cents(15)));
    /// ```
    #[must_use]
    pub const fn checked_mul(self, times: u64) -> Option<Usd> {
        match self.0.checked_mul(times) {
            Some(nanos) => Some(Usd(nanos)),
            None => None,
        }
    }

    /// The quotient, its fraction of a nano cut off, or `None` for a division by zero.
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_cents(5).checked_div(0), None);
    /// ```
    #[must_use]
    pub const fn checked_div(self, by: u64) -> Option<Usd> {
        match self.0.checked_div(by) {
            Some(nanos) => Some(Usd(nanos)),
            None => None,
        }
    }

    /// The sum, at most [`Usd::MAX`].
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::MAX.saturating_add(Usd::from_cents(1)), Usd::MAX);
    /// ```
    #[must_use]
    pub const fn saturating_add(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::from_cents(5).saturating_sub(Usd::from_cents(6)), Usd::ZERO);
    /// ```
    #[must_use]
    pub const fn saturating_sub(self, other: Usd) -> Usd {
        Usd(self.0.saturating_sub(other.0))
    }

    /// The product, at most [`Usd::MAX`].
    ///
    /// ```
    /// # use budget_pool::Usd;
    /// assert_eq!(Usd::MAX.saturating_mul(2), Usd::MAX);
    /// ```
    #[must_use]
    pub const fn saturating_mul(self, times: u64) -> Usd {
        Usd(self.0.saturating_mul(times))
    }

    /// The cost of `n` tokens at a price per million tokens.
    ///
    /// Rounded up to the nano: never under the true cost, and over it by less than one nano a call.
    /// Saturates at [`Usd::MAX`].
    ///
    /// ```
    /// use budget_pool::Usd;
    ///
    /// let price = Usd::from_cents(15); // $0.15 per million
    /// assert_eq!(Usd::for_tokens(1_000_000, price), price);
    /// assert_eq!(Usd::for_tokens(1, price).as_nanos(), 150);
    /// assert_eq!(Usd::for_tokens(1, Usd::from_nanos(1)).as_nanos(), 1);
    /// ```
    #[must_use]
    pub const fn for_tokens(n: u64, per_million: Usd) -> Usd {
        let nanos = (n as u128 * per_million.0 as u128).div_ceil(1_000_000);
        if nanos > u64::MAX as u128 { Usd::MAX } else { Usd(nanos as u64) }
    }

    /// From a float of dollars, rounded to the nearest nano (the nearest to the float itself, which
    /// for `0.1` is a little above a tenth). For figures that arrive as a float; write your own
    /// as text or with a constructor.
    ///
    /// # Errors
    /// If the float is NaN, infinite, negative, or above [`Usd::MAX`].
    ///
    /// ```
    /// use budget_pool::Usd;
    ///
    /// assert_eq!(Usd::try_from_dollars_f64(0.1), Ok(Usd::from_cents(10)));
    /// assert!(Usd::try_from_dollars_f64(-0.1).is_err());
    /// assert!(Usd::try_from_dollars_f64(f64::NAN).is_err());
    /// ```
    pub fn try_from_dollars_f64(dollars: f64) -> Result<Usd, TryFromF64Error> {
        if !dollars.is_finite() {
            return Err(TryFromF64Error::NotFinite);
        }
        if dollars < 0.0 {
            return Err(TryFromF64Error::Negative);
        }
        // Formatting is exact and rounds once, to the nearest; `abs` is for the zero that has a
        // sign.
        let text = format!("{:.DECIMALS$}", dollars.abs());
        text.parse().map_err(|_: ParseUsdError| TryFromF64Error::TooLarge)
    }
}

/// The exact decimal, without needless zeros: `0.3`, `12`, `0.000000001`. A precision pads with
/// zeros or rounds to the nearest, half up: `{:.2}` of 12.345 is `12.35`. Width, fill and `0` are
/// as with integers.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(DECIMALS).min(DECIMALS);
        let step = 10_u64.pow((DECIMALS - decimals) as u32);
        let rounded = (self.0 as u128 + step as u128 / 2) / step as u128 * step as u128;
        let (whole, nanos) =
            (rounded / NANOS_PER_DOLLAR as u128, rounded % NANOS_PER_DOLLAR as u128);
        let digits = format!("{nanos:09}");
        let fraction = match f.precision() {
            Some(precision) => format!("{:0<precision$}", &digits[..decimals]),
            None => digits.trim_end_matches('0').to_owned(),
        };
        let point = if fraction.is_empty() { "" } else { "." };
        // As a number: `pad` would take the precision for a length.
        f.pad_integral(true, "", &format!("{whole}{point}{fraction}"))
    }
}

impl fmt::Debug for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Usd({self})")
    }
}

/// Exact decimal dollars: digits, with at most one point among them and at most nine of them after
/// it (`12`, `0.30`, `.5`). No sign, no exponent, no spaces, no currency mark.
///
/// ```
/// use budget_pool::Usd;
///
/// assert_eq!("10.00".parse(), Ok(Usd::from_dollars(10)));
/// assert_eq!("0.000000001".parse(), Ok(Usd::from_nanos(1)));
/// for bad in ["", ".", "-1", "+1", "1e3", "NaN", "inf", " 1", "$1", "1_000", "0.0000000001", "99999999999"] {
///     assert!(bad.parse::<Usd>().is_err(), "{bad}");
/// }
/// ```
impl FromStr for Usd {
    type Err = ParseUsdError;

    fn from_str(text: &str) -> Result<Usd, ParseUsdError> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        if whole.is_empty() && fraction.is_empty() {
            return Err(ParseUsdError::Empty);
        }
        if !(whole.bytes().chain(fraction.bytes())).all(|b| b.is_ascii_digit()) {
            return Err(ParseUsdError::NotDecimal);
        }
        if fraction.len() > DECIMALS {
            return Err(ParseUsdError::TooPrecise);
        }
        let digits = whole.bytes().chain(fraction.bytes());
        let padding = std::iter::repeat_n(b'0', DECIMALS - fraction.len());
        digits
            .chain(padding)
            .try_fold(0_u64, |nanos, digit| {
                nanos.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
            })
            .map(Usd)
            .ok_or(ParseUsdError::TooLarge)
    }
}

/// Why a text is not an amount of dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum ParseUsdError {
    /// There are no digits.
    #[error("no digits in an amount of dollars")]
    Empty,
    /// Something other than digits and one point: a sign, an exponent, a space, `NaN`.
    #[error("an amount of dollars is digits and at most one point")]
    NotDecimal,
    /// More than nine decimals: it cannot be kept exactly.
    #[error("an amount of dollars has at most 9 decimals")]
    TooPrecise,
    /// Above [`Usd::MAX`].
    #[error("more dollars than {}", Usd::MAX)]
    TooLarge,
}

/// Why a float is not an amount of dollars.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum TryFromF64Error {
    /// NaN or infinite.
    #[error("an amount of dollars is finite")]
    NotFinite,
    /// Below zero.
    #[error("an amount of dollars is not negative")]
    Negative,
    /// Above [`Usd::MAX`].
    #[error("more dollars than {}", Usd::MAX)]
    TooLarge,
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl Add for Usd {
    type Output = Usd;
    fn add(self, other: Usd) -> Usd {
        self.checked_add(other).expect("overflow when adding dollars")
    }
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl AddAssign for Usd {
    fn add_assign(&mut self, other: Usd) {
        *self = *self + other;
    }
}

/// # Panics
/// Below zero, as `Duration` does.
impl Sub for Usd {
    type Output = Usd;
    fn sub(self, other: Usd) -> Usd {
        self.checked_sub(other).expect("overflow when subtracting dollars")
    }
}

/// # Panics
/// Below zero, as `Duration` does.
impl SubAssign for Usd {
    fn sub_assign(&mut self, other: Usd) {
        *self = *self - other;
    }
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl Mul<u64> for Usd {
    type Output = Usd;
    fn mul(self, times: u64) -> Usd {
        self.checked_mul(times).expect("overflow when multiplying dollars")
    }
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl Mul<Usd> for u64 {
    type Output = Usd;
    fn mul(self, each: Usd) -> Usd {
        each * self
    }
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl MulAssign<u64> for Usd {
    fn mul_assign(&mut self, times: u64) {
        *self = *self * times;
    }
}

/// A fraction of a nano is cut off.
///
/// # Panics
/// By zero, as `Duration` does.
impl Div<u64> for Usd {
    type Output = Usd;
    fn div(self, by: u64) -> Usd {
        self.checked_div(by).expect("divide by zero error when dividing dollars")
    }
}

/// # Panics
/// By zero, as `Duration` does.
impl DivAssign<u64> for Usd {
    fn div_assign(&mut self, by: u64) {
        *self = *self / by;
    }
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl Sum for Usd {
    fn sum<I: Iterator<Item = Usd>>(amounts: I) -> Usd {
        amounts.fold(Usd::ZERO, Add::add)
    }
}

/// # Panics
/// Above [`Usd::MAX`], as `Duration` does.
impl<'a> Sum<&'a Usd> for Usd {
    fn sum<I: Iterator<Item = &'a Usd>>(amounts: I) -> Usd {
        amounts.copied().sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn constructors_and_readings_agree_on_their_unit() {
        let usd = Usd::from_dollars(12)
            + Usd::from_cents(34)
            + Usd::from_micros(5_678)
            + Usd::from_nanos(9);
        assert_eq!(usd.as_nanos(), 12_345_678_009);
        assert_eq!(usd.as_micros(), 12_345_678);
        assert_eq!(usd.as_cents(), 1_234);
        assert_eq!(usd.as_dollars(), 12);
        assert_eq!(usd.as_dollars_f64(), 12.345678009);
        assert!(!usd.is_zero() && Usd::ZERO.is_zero());
    }

    #[test]
    fn checked_and_saturating_stop_at_both_ends() {
        let one = Usd::from_nanos(1);
        assert_eq!(Usd::MAX.checked_add(one), None);
        assert_eq!(Usd::MAX.saturating_add(one), Usd::MAX);
        assert_eq!(one.checked_add(one), Some(one * 2));
        assert_eq!(Usd::ZERO.checked_sub(one), None);
        assert_eq!(Usd::ZERO.saturating_sub(one), Usd::ZERO);
        assert_eq!(Usd(7).saturating_sub(one), Usd(6));
        assert_eq!((Usd(7).saturating_add(one), Usd(7).saturating_mul(2)), (Usd(8), Usd(14)));
        assert_eq!(Usd::MAX.checked_sub(one), Some(Usd::from_nanos(u64::MAX - 1)));
        assert_eq!(Usd::MAX.checked_mul(2), None);
        assert_eq!(Usd::MAX.saturating_mul(2), Usd::MAX);
        assert_eq!(one.checked_mul(7), Some(Usd::from_nanos(7)));
        assert_eq!(one.checked_div(0), None);
        assert_eq!(Usd::from_nanos(7).checked_div(2), Some(Usd::from_nanos(3)));
    }

    #[test]
    fn operators_do_what_the_checked_ones_do() {
        let cent = Usd::from_cents(1);
        assert_eq!(3 * cent, cent * 3);
        assert_eq!([cent, cent * 2].iter().sum::<Usd>(), cent * 3);
        assert_eq!([cent, cent * 2].into_iter().sum::<Usd>(), cent * 3);
        let mut usd = cent;
        usd += cent;
        usd *= 7;
        usd -= cent;
        usd /= 2;
        assert_eq!(usd, Usd::from_nanos(65_000_000));
        assert_eq!(Usd::from_nanos(7) / 2, Usd::from_nanos(3));
    }

    #[test]
    fn operators_panic_where_the_checked_ones_say_none() {
        let panics = |calculate: fn() -> Usd| std::panic::catch_unwind(calculate).is_err();
        assert!(panics(|| Usd::MAX + Usd::from_nanos(1)));
        assert!(panics(|| Usd::ZERO - Usd::from_nanos(1)));
        assert!(panics(|| Usd::MAX * 2));
        assert!(panics(|| 2 * Usd::MAX));
        assert!(panics(|| Usd::MAX / 0));
        assert!(panics(|| [Usd::MAX, Usd::MAX].into_iter().sum()));
        assert!(!panics(|| [Usd::MAX, Usd::ZERO].iter().sum()));
    }

    #[test]
    fn a_constructor_does_not_wrap() {
        type Case = (fn(u64) -> Usd, u64);
        let cases: [Case; 3] = [
            (Usd::from_dollars, 18_446_744_073),
            (Usd::from_cents, 1_844_674_407_370),
            (Usd::from_micros, 18_446_744_073_709_551),
        ];
        for (from, most) in cases {
            let _ = from(most);
            let panic = std::panic::catch_unwind(|| from(most + 1)).unwrap_err();
            assert_eq!(panic.downcast_ref(), Some(&"more dollars than Usd::MAX"));
        }
    }

    #[test]
    fn text_that_is_no_amount_is_refused_with_its_reason() {
        use ParseUsdError::{Empty, NotDecimal, TooLarge, TooPrecise};
        for (text, why) in [
            ("", Empty),
            (".", Empty),
            ("NaN", NotDecimal),
            ("inf", NotDecimal),
            ("-1", NotDecimal),
            ("+1", NotDecimal),
            ("1e3", NotDecimal),
            ("1.2.3", NotDecimal),
            (" 1", NotDecimal),
            ("$1", NotDecimal),
            ("1,000", NotDecimal),
            ("٣", NotDecimal),
            ("0.0000000001", TooPrecise),
            ("18446744073.709551616", TooLarge),
            ("99999999999999999999999999", TooLarge),
        ] {
            assert_eq!(text.parse::<Usd>(), Err(why), "{text:?}");
        }
        assert_eq!("18446744073.709551615".parse(), Ok(Usd::MAX));
        assert_eq!("007.5".parse(), Ok(Usd::from_cents(750)));
        assert_eq!(".5".parse(), Ok(Usd::from_cents(50)));
        assert_eq!("5.".parse(), Ok(Usd::from_dollars(5)));
    }

    #[test]
    fn floats_round_to_the_nearest_nano_or_are_refused() {
        use TryFromF64Error::{Negative, NotFinite, TooLarge};
        assert_eq!(Usd::try_from_dollars_f64(f64::NAN), Err(NotFinite));
        assert_eq!(Usd::try_from_dollars_f64(f64::INFINITY), Err(NotFinite));
        assert_eq!(Usd::try_from_dollars_f64(f64::NEG_INFINITY), Err(NotFinite));
        assert_eq!(Usd::try_from_dollars_f64(-1e-300), Err(Negative));
        assert_eq!(Usd::try_from_dollars_f64(-0.0), Ok(Usd::ZERO));
        assert_eq!(Usd::try_from_dollars_f64(1e300), Err(TooLarge));
        assert_eq!(Usd::try_from_dollars_f64(18_446_744_074.0), Err(TooLarge));
        assert_eq!(Usd::try_from_dollars_f64(0.1), Ok(Usd::from_cents(10)));
        assert_eq!(Usd::try_from_dollars_f64(0.4e-9), Ok(Usd::ZERO));
        assert_eq!(Usd::try_from_dollars_f64(0.6e-9), Ok(Usd::from_nanos(1)));
        assert_eq!(Usd::try_from_dollars_f64(1e10), Ok(Usd::from_dollars(10_000_000_000)));
    }

    #[test]
    fn display_is_exact_and_pads() {
        for (nanos, plain, cents) in [
            (0, "0", "0.00"),
            (1, "0.000000001", "0.00"),
            (300_000_000, "0.3", "0.30"),
            (12_345_000_000, "12.345", "12.35"),
            (999_995_000_000, "999.995", "1000.00"),
            (u64::MAX, "18446744073.709551615", "18446744073.71"),
        ] {
            let usd = Usd::from_nanos(nanos);
            assert_eq!(usd.to_string(), plain);
            assert_eq!(format!("{usd:.2}"), cents);
        }
        let usd = Usd::from_cents(150);
        assert_eq!(
            format!("[{usd:>6}|{usd:<6}|{usd:^7}|{usd:6.1}|{usd:.0}|{usd:.11}]"),
            "[   1.5|1.5   |  1.5  |   1.5|2|1.50000000000]"
        );
        assert_eq!(format!("[{usd:08.3}|{usd:*<6}|{usd:+}]"), "[0001.500|1.5***|+1.5]");
        assert_eq!(format!("{usd:?}"), "Usd(1.5)");
    }

    #[test]
    fn token_prices_round_up_by_less_than_a_nano() {
        assert_eq!(Usd::for_tokens(0, Usd::MAX), Usd::ZERO);
        assert_eq!(Usd::for_tokens(u64::MAX, Usd::MAX), Usd::MAX);
        assert_eq!(Usd::for_tokens(3, Usd::from_nanos(333_333)), Usd::from_nanos(1));
        assert_eq!(Usd::for_tokens(1_000_000, Usd::MAX), Usd::MAX);
    }

    proptest! {
        #[test]
        fn a_float_is_the_nearest_up_to_nine_million_dollars_and_no_more_than_a_step_beside_it_above(
            nanos: u64,
            shift in 0..40_u32,
        ) {
            for usd in [Usd::from_nanos(nanos >> shift), Usd::from_nanos(nanos % (1 << 53))] {
                let nearest: f64 = usd.to_string().parse().unwrap();
                let beside = usd.as_dollars_f64().to_bits().abs_diff(nearest.to_bits());
                prop_assert!(beside <= u64::from(usd > Usd::from_dollars(9_000_000)), "{usd}: {beside} steps");
            }
        }

        #[test]
        fn what_is_displayed_parses_back(nanos: u64) {
            let usd = Usd::from_nanos(nanos);
            prop_assert_eq!(usd.to_string().parse(), Ok(usd));
            prop_assert_eq!(format!("{usd:.9}").parse(), Ok(usd));
        }

        #[test]
        fn a_price_is_the_true_cost_rounded_up(n in 0..u64::MAX >> 20, per_million in 0..1_u64 << 40) {
            let cost = u128::from(Usd::for_tokens(n, Usd::from_nanos(per_million)).as_nanos());
            let exact_times_million = u128::from(n) * u128::from(per_million);
            prop_assume!(exact_times_million < u128::from(u64::MAX) * 1_000_000);
            prop_assert!(cost * 1_000_000 >= exact_times_million);
            prop_assert!(cost * 1_000_000 < exact_times_million + 1_000_000);
        }
    }
}
