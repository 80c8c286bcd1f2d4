//! Money per token, finer than a nano-dollar.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use budget_pool::Usd;

/// The unit of a rate is 1e-27 dollars a token. A float that stands in a price list has at most 17
/// digits, so that this is exact down to a dollar for ten billion tokens. A sum of units that
/// overflows a `u128` is 20 times [`Usd::MAX`], so that an overflow needs no other answer than that.
const DECIMALS: usize = 27;
/// A nano-dollar for a million tokens.
const UNITS_PER_NANO_A_MILLION: u128 = 10_u128.pow(12);
/// A nano-dollar for one token.
pub(crate) const UNITS_PER_NANO: u128 = 10_u128.pow(18);

/// The price of one token, exact to 27 decimals of a dollar.
///
/// Price lists name it in two ways. A price page says dollars per million tokens:
/// [`per_million`](Rate::per_million). A list for programs says dollars per token, as decimal text
/// or as a float: [`FromStr`] and [`TryFrom`]. A float is read as the shortest decimal text that
/// names it, which is the text of the list.
///
/// ```
/// use budget_pool_llm::{Rate, RateError};
///
/// let rate: Rate = "3.75e-08".parse()?;
/// assert_eq!(rate, Rate::try_from(0.0000000375)?);
/// assert_eq!(rate, Rate::per_million("0.0375".parse().unwrap()));
/// assert_eq!(rate.to_string(), "0.0000000375");
///
/// // What a float cannot say otherwise is kept as it stands.
/// assert_eq!(Rate::try_from(0.00000008333333333333334)?.to_string(), "0.00000008333333333333334");
/// assert_eq!(Rate::try_from(-1.0), Err(RateError::Negative));
/// # Ok::<(), RateError>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u128);

impl Rate {
    /// `ZERO`: the tokens are free, and listed so.
    pub const ZERO: Rate = Rate(0);

    /// From dollars per million tokens. `per_million` is always exact.
    ///
    /// ```
    /// use budget_pool_llm::Rate;
    ///
    /// assert_eq!(Rate::per_million("2.50".parse()?).to_string(), "0.0000025");
    /// # Ok::<(), budget_pool::ParseUsdError>(())
    /// ```
    #[must_use]
    pub const fn per_million(usd: Usd) -> Rate {
        Rate(usd.as_nanos() as u128 * UNITS_PER_NANO_A_MILLION)
    }

    /// Dollars per million tokens, or `None` if that is not a whole number of nano-dollars up to
    /// [`Usd::MAX`].
    ///
    /// ```
    /// use budget_pool_llm::Rate;
    ///
    /// let rate: Rate = "1.5e-07".parse()?;
    /// assert_eq!(rate.to_per_million(), "0.15".parse().ok());
    /// let fine = Rate::try_from(0.00000008333333333333334)?;
    /// assert_eq!(fine.to_per_million(), None);
    /// # Ok::<(), budget_pool_llm::RateError>(())
    /// ```
    #[must_use]
    pub fn to_per_million(self) -> Option<Usd> {
        let is_whole = self.0 % UNITS_PER_NANO_A_MILLION == 0;
        let nanos = u64::try_from(self.0 / UNITS_PER_NANO_A_MILLION).ok();
        nanos.filter(|_| is_whole).map(Usd::from_nanos)
    }

    /// The price of `tokens` in units, or `None` where that is far above [`Usd::MAX`].
    pub(crate) fn times(self, tokens: u64) -> Option<u128> {
        self.0.checked_mul(u128::from(tokens))
    }

    /// The most tokens that `units` pay, or `None` if that has no bound.
    pub(crate) fn within(self, units: u128) -> Option<u128> {
        units.checked_div(self.0)
    }
}

/// Dollars per token, as [`FromStr`] reads them: digits without an exponent and without needless
/// zeros. A precision pads with zeros or rounds to the nearest, half up: `{:.2}` of 100.5 is
/// `100.50`. Width, fill and `0` are as with integers.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = f.precision().unwrap_or(DECIMALS).min(DECIMALS);
        let step = 10_u128.pow((DECIMALS - decimals) as u32);
        let is_nearer_above = self.0 % step * 2 >= step;
        let rounded = self.0 / step + u128::from(is_nearer_above);
        let digits = format!("{rounded:0>width$}", width = decimals + 1);
        let (whole, fraction) = digits.split_at(digits.len() - decimals);
        let fraction = match f.precision() {
            Some(precision) => format!("{fraction:0<precision$}"),
            None => fraction.trim_end_matches('0').to_owned(),
        };
        let point = if fraction.is_empty() { "" } else { "." };
        // As a number: `pad` would take the precision for a length.
        f.pad_integral(true, "", &format!("{whole}{point}{fraction}"))
    }
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rate({self})")
    }
}

/// Dollars per token: digits with at most one point among them, and an exponent if there is one
/// (`3e-06`, `0.0000000375`, `.5E-7`). No spaces, no plus before the digits, no currency mark.
///
/// ```
/// use budget_pool_llm::{Rate, RateError};
///
/// assert_eq!("1.5e-07".parse(), Ok(Rate::per_million("0.15".parse().unwrap())));
/// assert_eq!("-1".parse::<Rate>(), Err(RateError::Negative));
/// for bad in ["", "NaN", "inf", "1e", "1e-", "$1", " 1", "1_000", "0x1", "1.2.3"] {
///     assert!(bad.parse::<Rate>().is_err(), "{bad}");
/// }
/// ```
impl FromStr for Rate {
    type Err = RateError;

    fn from_str(text: &str) -> Result<Rate, RateError> {
        match text.strip_prefix('-') {
            None => unsigned(text),
            // A zero that has a sign is a zero.
            Some(rest) if unsigned(rest)? == Rate::ZERO => Ok(Rate::ZERO),
            Some(_) => Err(RateError::Negative),
        }
    }
}

/// As [`FromStr`].
impl TryFrom<&str> for Rate {
    type Error = RateError;

    fn try_from(text: &str) -> Result<Rate, RateError> {
        text.parse()
    }
}

/// Dollars per token, as the shortest decimal text that names this float.
impl TryFrom<f64> for Rate {
    type Error = RateError;

    fn try_from(dollars: f64) -> Result<Rate, RateError> {
        if !dollars.is_finite() {
            return Err(RateError::NotFinite);
        }
        // `Display` of a float is the shortest text that reads back as the same float.
        dollars.to_string().parse()
    }
}

fn unsigned(text: &str) -> Result<Rate, RateError> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent_of(exponent)?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() {
        return Err(RateError::Empty);
    }
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RateError::NotDecimal);
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Ok(Rate::ZERO);
    }
    // Where the last digit that is no zero stands, counted from that of one unit.
    let zeros = digits.len() - significant.len();
    let shift = exponent
        .saturating_add(zeros as i64)
        .saturating_sub(fraction.len() as i64)
        .saturating_add(DECIMALS as i64);
    if shift < 0 {
        return Err(RateError::TooPrecise);
    }
    let number = significant.parse::<u128>().ok();
    let scale = u32::try_from(shift).ok().and_then(|shift| 10_u128.checked_pow(shift));
    let units = number.zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    units.map(Rate).ok_or(RateError::TooLarge)
}

/// An exponent beyond all others is as good as any of those.
fn exponent_of(text: &str) -> Result<i64, RateError> {
    let (digits, sign) = match text.strip_prefix('-') {
        Some(digits) => (digits, -1),
        None => (text.strip_prefix('+').unwrap_or(text), 1),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(RateError::NotDecimal);
    }
    let size = digits
        .bytes()
        .fold(0_i64, |size, digit| size.saturating_mul(10).saturating_add(i64::from(digit - b'0')));
    Ok(size.saturating_mul(sign))
}

/// Why a text or a float is not a [`Rate`].
///
/// ```
/// use budget_pool_llm::{Rate, RateError};
///
/// let error = Rate::try_from(f64::NAN).unwrap_err();
/// assert_eq!(error, RateError::NotFinite);
/// assert_eq!(error.to_string(), "a price is finite");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RateError {
    /// There are no digits.
    Empty,
    /// Something other than digits, one point and an exponent: a space, a currency mark, `NaN`.
    NotDecimal,
    /// NaN or infinite.
    NotFinite,
    /// Below zero. Some lists say -1 for a price that varies.
    Negative,
    /// More than 27 decimals of a dollar a token: it cannot be kept exactly.
    TooPrecise,
    /// Above 340,282,366,920 dollars a token.
    TooLarge,
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RateError::Empty => "no digits in a price",
            RateError::NotDecimal => "a price is digits, at most one point and an exponent",
            RateError::NotFinite => "a price is finite",
            RateError::Negative => "a price is not negative",
            RateError::TooPrecise => "a price has at most 27 decimals of a dollar a token",
            RateError::TooLarge => "a price is at most 340282366920 dollars a token",
        })
    }
}

impl Error for RateError {}
