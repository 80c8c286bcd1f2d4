//! What a call names, and the most that a pool may have.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use crate::types::axis::{Axis, AxisSet, Quantities, Quantity};
use crate::types::usd::Usd;

/// How much of each counted axis one call names.
///
/// Which axes are *named* matters, not which are nonzero: a commit settles a named axis at its
/// figure, zero included, and an axis that is not named at what is held of it. Naming one token
/// axis names all three.
///
/// [`Tokens`](Axis::Tokens) is the larger of what was named and input plus output, so that every
/// provider's usage block, with or without a total, can be written down as it comes. Cached input
/// tokens are input tokens; their price is yours to reckon. [`InFlight`](Axis::InFlight) is not an
/// amount: every live reservation counts one.
///
/// The setters set; `+` adds, saturating: a sum that overflows on an axis is `u64::MAX` there,
/// which fits under no smaller cap, nor on an axis that has been used at all.
///
/// ```
/// use budget_pool::{Amount, Axis, Usd};
///
/// let call = Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_micros(6_000));
/// assert_eq!(call.get(Axis::Tokens).unwrap().units(), 2_000);
/// assert_eq!(call.get(Axis::Requests), None);
/// assert_eq!((call + call).to_string(), "4000 tokens, 3000 input tokens, 1000 output tokens, 0.012 USD");
/// ```
#[derive(Clone, Copy, Default)]
pub struct Amount {
    quantities: Quantities,
    // What `tokens` was set to. Kept apart from the larger of it and input plus output, so that
    // setters can be called in any order and again.
    total: u64,
}

impl Amount {
    /// Names nothing.
    #[must_use]
    pub const fn new() -> Amount {
        Amount { quantities: Quantities::NONE, total: 0 }
    }

    /// Sets the tokens as a total. Where input plus output is more, that counts.
    #[inline]
    #[must_use]
    pub const fn tokens(mut self, tokens: u64) -> Amount {
        self.total = tokens;
        self.with_total()
    }

    /// Sets the input tokens, cached ones included.
    #[inline]
    #[must_use]
    pub const fn input_tokens(mut self, tokens: u64) -> Amount {
        self.quantities = self.quantities.with(Axis::InputTokens, tokens);
        self.with_total()
    }

    /// Sets the output tokens.
    #[inline]
    #[must_use]
    pub const fn output_tokens(mut self, tokens: u64) -> Amount {
        self.quantities = self.quantities.with(Axis::OutputTokens, tokens);
        self.with_total()
    }

    /// Sets the requests.
    #[inline]
    #[must_use]
    pub const fn requests(mut self, requests: u64) -> Amount {
        self.quantities = self.quantities.with(Axis::Requests, requests);
        self
    }

    /// Sets the money.
    #[inline]
    #[must_use]
    pub const fn usd(mut self, usd: Usd) -> Amount {
        self.quantities = self.quantities.with(Axis::Usd, usd.as_nanos());
        self
    }

    #[inline]
    const fn with_total(mut self) -> Amount {
        let parts = self
            .quantities
            .of(Axis::InputTokens)
            .saturating_add(self.quantities.of(Axis::OutputTokens));
        let tokens = if self.total > parts { self.total } else { parts };
        self.quantities = self.quantities.with(Axis::Tokens, tokens);
        self
    }

    /// How much is named of an axis; `None` if it is not named.
    #[must_use]
    pub fn get(&self, axis: Axis) -> Option<Quantity> {
        let named = axis.is_counted() && self.named().contains(axis as usize);
        named.then(|| Quantity::new(axis, self.quantities.of(axis)))
    }

    /// What is named and not zero, axis by axis in declared order.
    pub fn iter(&self) -> impl Iterator<Item = Quantity> + use<> {
        self.quantities.iter().filter(|quantity| quantity.units() > 0)
    }

    /// Whether every axis is zero or not named.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.iter().next().is_none()
    }

    /// What is charged: what was set, and the token total that follows from it.
    #[inline]
    pub(crate) const fn quantities(&self) -> &Quantities {
        &self.quantities
    }

    /// What a commit settles at the figure given: what was set, and all token axes if one of them
    /// was.
    pub(crate) fn named(&self) -> AxisSet {
        let axes = self.quantities.axes();
        match axes.intersection(AxisSet::TOKEN_FAMILY).is_empty() {
            true => axes,
            false => axes.union(AxisSet::TOKEN_FAMILY),
        }
    }
}

/// The same axes are named, with the same figures: the same to a pool. (Setters called afterwards
/// may still tell a total that was named from one that followed from its parts.)
impl PartialEq for Amount {
    fn eq(&self, other: &Amount) -> bool {
        self.named() == other.named() && self.quantities.units() == other.quantities.units()
    }
}

impl Eq for Amount {}

/// Of what is compared: equal amounts hash alike.
impl Hash for Amount {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.named().hash(state);
        self.quantities.units().hash(state);
    }
}

/// Axis by axis, saturating.
impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        let (a, b) = (self.quantities, other.quantities);
        Amount::from(Quantities::each(a.axes().union(b.axes()), |axis| {
            a.units()[axis].saturating_add(b.units()[axis])
        }))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
    }
}

/// What the pool reports: each axis stands for itself, the token total is not made from its parts
/// again.
impl From<Quantities> for Amount {
    fn from(quantities: Quantities) -> Amount {
        let quantities = quantities.only(AxisSet::ALL.difference(AxisSet::of(Axis::InFlight)));
        Amount { quantities, total: quantities.of(Axis::Tokens) }
    }
}

/// Whole amounts add up, saturating.
impl Sum for Amount {
    fn sum<I: Iterator<Item = Amount>>(amounts: I) -> Amount {
        amounts.fold(Amount::new(), Add::add)
    }
}

impl<'a> Sum<&'a Amount> for Amount {
    fn sum<I: Iterator<Item = &'a Amount>>(amounts: I) -> Amount {
        amounts.copied().sum()
    }
}

/// What is not zero, as a person reads it: `1200 tokens, 0.0036 USD`, or `nothing`.
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nonzero = self
            .iter()
            .fold(Quantities::NONE, |all, quantity| all.with(quantity.axis(), quantity.units()));
        nonzero.fmt(f)
    }
}

impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Amount").field(&format_args!("{self}")).finish()
    }
}

/// The most that a pool may have used plus reserved, axis by axis. An axis that is not named is
/// unlimited: it only counts.
///
/// Each axis is named by itself: a cap on [`Tokens`](Axis::Tokens) says nothing of input and
/// output.
///
/// ```
/// use budget_pool::{Axis, Caps, Usd};
///
/// let caps = Caps::new().tokens(1_000_000).usd(Usd::from_dollars(10)).in_flight(8);
/// assert_eq!(caps.get(Axis::InFlight).unwrap().units(), 8);
/// assert_eq!(caps.get(Axis::InputTokens), None);
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Caps {
    quantities: Quantities,
}

impl Caps {
    /// No cap on any axis.
    #[must_use]
    pub const fn new() -> Caps {
        Caps { quantities: Quantities::NONE }
    }

    /// Caps all tokens.
    #[must_use]
    pub const fn tokens(self, tokens: u64) -> Caps {
        self.with(Axis::Tokens, tokens)
    }

    /// Caps the input tokens.
    #[must_use]
    pub const fn input_tokens(self, tokens: u64) -> Caps {
        self.with(Axis::InputTokens, tokens)
    }

    /// Caps the output tokens.
    #[must_use]
    pub const fn output_tokens(self, tokens: u64) -> Caps {
        self.with(Axis::OutputTokens, tokens)
    }

    /// Caps the requests.
    #[must_use]
    pub const fn requests(self, requests: u64) -> Caps {
        self.with(Axis::Requests, requests)
    }

    /// Caps the money.
    #[must_use]
    pub const fn usd(self, usd: Usd) -> Caps {
        self.with(Axis::Usd, usd.as_nanos())
    }

    /// Caps the reservations that live at the same time.
    #[must_use]
    pub const fn in_flight(self, reservations: u64) -> Caps {
        self.with(Axis::InFlight, reservations)
    }

    const fn with(self, axis: Axis, cap: u64) -> Caps {
        Caps { quantities: self.quantities.with(axis, cap) }
    }

    /// These caps, and `other`'s where it names an axis.
    #[must_use]
    pub(crate) fn overlaid(self, other: Caps) -> Caps {
        let quantities =
            other.iter().fold(self.quantities, |all, cap| all.with(cap.axis(), cap.units()));
        Caps { quantities }
    }

    /// The cap of an axis; `None` if it has none.
    #[must_use]
    pub fn get(&self, axis: Axis) -> Option<Quantity> {
        self.quantities.get(axis)
    }

    /// The caps, axis by axis in declared order.
    pub fn iter(&self) -> impl Iterator<Item = Quantity> + use<> {
        self.quantities.iter()
    }

    pub(crate) const fn quantities(&self) -> &Quantities {
        &self.quantities
    }
}

/// As a person reads them: `1000000 tokens, 10 USD`, or `nothing`.
impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.quantities.fmt(f)
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caps").field(&format_args!("{self}")).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

    use super::*;

    fn units(amount: Amount, axis: Axis) -> Option<u64> {
        amount.get(axis).map(Quantity::units)
    }

    #[test]
    fn tokens_are_the_larger_of_the_total_and_its_parts_in_any_order() {
        let total_first = Amount::new().tokens(5).input_tokens(4).output_tokens(3);
        let total_last = Amount::new().output_tokens(3).input_tokens(4).tokens(5);
        assert_eq!(units(total_first, Axis::Tokens), Some(7));
        assert_eq!(total_first, total_last);
        assert_eq!(units(Amount::new().tokens(9).input_tokens(4), Axis::Tokens), Some(9));
        assert_eq!(
            units(Amount::new().input_tokens(u64::MAX).output_tokens(1), Axis::Tokens),
            Some(u64::MAX)
        );
    }

    #[test]
    fn setters_set() {
        let amount = Amount::new()
            .input_tokens(10)
            .input_tokens(3)
            .tokens(9)
            .tokens(1)
            .requests(2)
            .requests(1);
        assert_eq!(units(amount, Axis::Tokens), Some(3));
        assert_eq!(units(amount, Axis::Requests), Some(1));
    }

    #[test]
    fn naming_one_token_axis_names_all_three_and_nothing_else() {
        for amount in
            [Amount::new().tokens(0), Amount::new().input_tokens(0), Amount::new().output_tokens(0)]
        {
            for axis in [Axis::Tokens, Axis::InputTokens, Axis::OutputTokens] {
                assert_eq!(units(amount, axis), Some(0));
            }
            for axis in [Axis::Requests, Axis::Usd, Axis::InFlight, Axis::Deadline] {
                assert_eq!(amount.get(axis), None);
            }
            assert_eq!(amount, Amount::new().tokens(0));
            assert_ne!(amount, Amount::new());
        }
        assert_eq!(units(Amount::new().usd(Usd::ZERO), Axis::Tokens), None);
    }

    #[test]
    fn addition_saturates_and_names_what_either_names() {
        let mut sum = Amount::new().tokens(5) + Amount::new().input_tokens(3).output_tokens(4);
        assert_eq!(units(sum, Axis::Tokens), Some(12));
        sum += Amount::new().usd(Usd::MAX);
        sum += Amount::new().usd(Usd::from_nanos(1)).requests(2);
        assert_eq!(units(sum, Axis::Usd), Some(u64::MAX));
        assert_eq!(units(sum, Axis::Requests), Some(2));
        assert_eq!([sum, sum].iter().sum::<Amount>(), sum + sum);
        assert_eq!([sum, Amount::new().requests(3)].into_iter().sum::<Amount>(), sum.requests(5));
        // Still a setter after a sum: the total is what was summed.
        assert_eq!(units(sum.tokens(0), Axis::Tokens), Some(7));
    }

    #[test]
    fn amounts_that_differ_are_told_apart_by_their_hashes() {
        let hash = |amount: Amount| BuildHasherDefault::<DefaultHasher>::default().hash_one(amount);
        assert_ne!(hash(Amount::new().tokens(1)), hash(Amount::new().tokens(2)));
        assert_ne!(hash(Amount::new().requests(0)), hash(Amount::new()));
        assert_eq!(
            hash(Amount::new().tokens(5).input_tokens(5)),
            hash(Amount::new().input_tokens(5))
        );
    }

    #[test]
    fn a_later_cap_overlays_an_earlier_one() {
        let caps = Caps::new().tokens(5).requests(1).overlaid(Caps::new().tokens(0).in_flight(2));
        assert_eq!(caps, Caps::new().tokens(0).requests(1).in_flight(2));
        assert_eq!(caps.get(Axis::InFlight), Some(Quantity::new(Axis::InFlight, 2)));
        assert_eq!((caps.get(Axis::InputTokens), caps.get(Axis::Deadline)), (None, None));
    }

    #[test]
    fn axes_come_in_declared_order_an_amount_without_zeros_and_caps_with_them() {
        let amount =
            Amount::new().usd(Usd::from_nanos(5)).requests(0).output_tokens(3).input_tokens(0);
        let axes: Vec<_> =
            amount.iter().map(|quantity| (quantity.axis(), quantity.units())).collect();
        assert_eq!(axes, [(Axis::Tokens, 3), (Axis::OutputTokens, 3), (Axis::Usd, 5)]);
        let caps = Caps::new().in_flight(1).usd(Usd::ZERO).tokens(0);
        let axes: Vec<_> = caps.iter().map(|cap| (cap.axis(), cap.units())).collect();
        assert_eq!(axes, [(Axis::Tokens, 0), (Axis::Usd, 0), (Axis::InFlight, 1)]);
        assert_eq!((caps.get(Axis::InputTokens), caps.get(Axis::Deadline)), (None, None));
    }

    #[test]
    fn texts_name_their_units() {
        let amount = Amount::new().tokens(1_200).usd(Usd::from_micros(3_600));
        assert_eq!(amount.to_string(), "1200 tokens, 0.0036 USD");
        assert_eq!(format!("{amount:?}"), "Amount(1200 tokens, 0.0036 USD)");
        assert_eq!(Amount::new().to_string(), "nothing");
        let caps = Caps::new().in_flight(2).requests(3);
        assert_eq!(caps.to_string(), "3 requests, 2 in flight");
        assert_eq!(format!("{caps:?}"), "Caps(3 requests, 2 in flight)");
        assert!(
            Amount::new().requests(0).is_zero() && Amount::new().is_zero() && !amount.is_zero()
        );
    }
}
