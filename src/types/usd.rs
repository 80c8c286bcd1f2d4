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
#[path = "../tests/units/usd.rs"]
mod tests;
