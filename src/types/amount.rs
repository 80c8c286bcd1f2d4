//! The amount that a call names, and the caps that a pool may have.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::{FusedIterator, Sum};
use std::ops::{Add, AddAssign};

use crate::types::axis::{Axis, AxisSet, Labels, Quantities, Quantity, lane, list};
use crate::types::usd::Usd;

/// The units of each counted axis that one call names.
///
/// A *named* axis matters, and not a nonzero one: a commit settles a named axis at its figure, zero
/// included, and an axis that is not named at its held units.
///
/// The charge on [`Tokens`](Axis::Tokens) is the larger of the named total and input plus output,
/// so that every provider's usage block, with or without a total, can be written down as it comes.
/// Cached input tokens are input tokens; their price is yours to reckon.
///
/// The setters set; `+` adds, saturating: a sum that overflows on an axis is `u64::MAX` there,
/// which fits under no smaller cap, nor on an axis that has been used at all.
///
/// ```
/// use budget_pool::{Amount, Axis, Usd};
///
/// let call = Amount::new().input_tokens(1_500).output_tokens(500).usd(Usd::from_micros(6_000));
/// assert_eq!(call.units(Axis::Tokens), 2_000);
/// assert_eq!(call.get(Axis::Requests), None);
/// assert_eq!((call + call).to_string(), "4000 tokens, 3000 input tokens, 1000 output tokens, 0.012 USD");
/// ```
#[derive(Clone, Copy)]
pub struct Amount {
    /// The units that are charged: those that were set, and the token total that follows from its
    /// parts. Without in flight, which only a hold takes.
    quantities: Quantities,
    /// The figure that `tokens` was set to. The setters keep it apart from the charge, so that they
    /// can be called in any order and again.
    total: u64,
    in_flight: u64,
    named: AxisSet,
    labels: Labels,
}

impl Amount {
    /// Names nothing.
    ///
    /// ```
    /// # use budget_pool::Amount;
    /// assert!(Amount::new().is_zero());
    /// assert_eq!(Amount::new().tokens(5).requests(1).to_string(), "5 tokens, 1 requests");
    /// ```
    #[must_use]
    pub const fn new() -> Amount {
        Amount {
            quantities: Quantities::NONE,
            total: 0,
            in_flight: 1,
            named: AxisSet::EMPTY,
            labels: Labels::NONE,
        }
    }

    /// Names one axis: `Amount::of(TOOL_CALLS, 2)`. Money is in nano-USD.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");
    /// assert_eq!(Amount::of(TOOL_CALLS, 2).units(TOOL_CALLS), 2);
    /// ```
    #[must_use]
    pub const fn of(axis: Axis, units: u64) -> Amount {
        Amount::new().with(axis, units)
    }

    /// Sets [`Axis::Tokens`] as a total. Where input plus output is more, that counts.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// assert_eq!(Amount::new().tokens(5).units(Axis::Tokens), 5);
    /// assert_eq!(Amount::new().tokens(5).input_tokens(8).units(Axis::Tokens), 8);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn tokens(mut self, tokens: u64) -> Amount {
        self.total = tokens;
        self.name(lane::TOKENS).with_total()
    }

    /// Sets [`Axis::InputTokens`], cached tokens included.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// assert_eq!(Amount::new().input_tokens(5).output_tokens(2).units(Axis::Tokens), 7);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn input_tokens(self, tokens: u64) -> Amount {
        self.set(lane::INPUT_TOKENS, tokens).with_total()
    }

    /// Sets [`Axis::OutputTokens`].
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// assert_eq!(Amount::new().output_tokens(5).units(Axis::OutputTokens), 5);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn output_tokens(self, tokens: u64) -> Amount {
        self.set(lane::OUTPUT_TOKENS, tokens).with_total()
    }

    /// Sets [`Axis::Requests`].
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// assert_eq!(Amount::new().requests(1).units(Axis::Requests), 1);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn requests(self, requests: u64) -> Amount {
        self.set(lane::REQUESTS, requests)
    }

    /// Sets [`Axis::Usd`]: the money.
    ///
    /// ```
    /// # use budget_pool::{Amount, Usd};
    /// assert_eq!(Amount::new().usd(Usd::from_cents(3)).to_string(), "0.03 USD");
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn usd(self, usd: Usd) -> Amount {
        self.set(lane::USD, usd.as_nanos())
    }

    /// Sets the slots that a reservation takes of the cap on [`InFlight`](Axis::InFlight). A
    /// reservation whose amount does not name `in_flight` takes one slot; `in_flight(0)` is a hold
    /// inside another, and more is a weighted hold.
    ///
    /// Only a hold is in flight: [`record`](crate::BudgetPool::record),
    /// [`debit`](crate::BudgetPool::debit), a lease and a commit ignore it.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().in_flight(2).build();
    /// let request = pool.reserve(Amount::new())?;
    /// let its_call = pool.reserve(Amount::new().in_flight(0))?; // inside the request
    /// assert_eq!(pool.snapshot().in_flight.reserved, 1);
    /// # drop((request, its_call));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn in_flight(mut self, slots: u64) -> Amount {
        self.in_flight = slots;
        self.name(lane::IN_FLIGHT)
    }

    /// Sets an axis, as the setter of its name does. Money is in nano-USD. A
    /// [`Deadline`](Axis::Deadline) is not counted: it changes nothing.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// const PAGES: Axis = Axis::custom(1, "pages");
    /// assert_eq!(Amount::new().tokens(5).with(PAGES, 2).units(PAGES), 2);
    /// ```
    #[inline(always)]
    #[must_use]
    pub const fn with(self, axis: Axis, units: u64) -> Amount {
        match axis {
            Axis::Tokens => self.tokens(units),
            Axis::InputTokens => self.input_tokens(units),
            Axis::OutputTokens => self.output_tokens(units),
            Axis::InFlight => self.in_flight(units),
            Axis::Requests => self.requests(units),
            Axis::Usd => self.usd(Usd::from_nanos(units)),
            Axis::Custom(_) => {
                let mut amount = self.set(axis.lane(), units);
                amount.labels = amount.labels.with(axis);
                amount
            }
            Axis::Deadline => self,
        }
    }

    #[inline(always)]
    const fn set(mut self, lane: usize, units: u64) -> Amount {
        self.quantities = self.quantities.with(lane, units);
        self.name(lane)
    }

    #[inline(always)]
    const fn name(mut self, lane: usize) -> Amount {
        self.named = self.named.with(lane);
        self
    }

    #[inline(always)]
    const fn with_total(mut self) -> Amount {
        let parts = self
            .quantities
            .of(lane::INPUT_TOKENS)
            .saturating_add(self.quantities.of(lane::OUTPUT_TOKENS));
        let tokens = if self.total > parts { self.total } else { parts };
        self.quantities = self.quantities.with(lane::TOKENS, tokens);
        self
    }

    /// The units of `axis` that are charged, zero if it is not named; of [`Tokens`](Axis::Tokens)
    /// the larger of the named total and input plus output. Of [`InFlight`](Axis::InFlight) it is
    /// the named figure.
    #[must_use]
    pub const fn units(&self, axis: Axis) -> u64 {
        match axis {
            Axis::InFlight if self.named.contains(lane::IN_FLIGHT) => self.in_flight,
            Axis::InFlight | Axis::Deadline => 0,
            _ => self.quantities.of(axis.lane()),
        }
    }

    /// How much is named of an axis; `None` if it is not named. A total of tokens that follows from
    /// its parts counts as named.
    #[must_use]
    pub fn get(&self, axis: Axis) -> Option<Quantity> {
        self.all().names(axis).then(|| Quantity::new(axis, self.units(axis)))
    }

    /// The named quantities, zero or not, axis by axis in declared order.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis};
    /// let amount = Amount::new().tokens(5).requests(1);
    /// let axes: Vec<Axis> = amount.iter().map(|quantity| quantity.axis()).collect();
    /// assert_eq!(axes, [Axis::Tokens, Axis::Requests]);
    /// ```
    #[must_use]
    pub fn iter(&self) -> QuantityIter {
        QuantityIter { quantities: self.all(), labels: self.labels }
    }

    /// Whether every axis is zero or not named.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.all().is_zero()
    }

    /// The difference, axis by axis; `None` if `other` is more on any axis. The result names the
    /// axes that either names.
    ///
    /// ```
    /// # use budget_pool::Amount;
    /// let (five, seven) = (Amount::new().tokens(5), Amount::new().tokens(7));
    /// assert_eq!(seven.checked_sub(five), Some(Amount::new().tokens(2)));
    /// assert_eq!(five.checked_sub(seven), None);
    /// ```
    #[must_use]
    pub fn checked_sub(self, other: Amount) -> Option<Amount> {
        let is_covered = other.all().beyond(self.all().units()).is_zero();
        is_covered.then(|| self.saturating_sub(other))
    }

    /// The difference, axis by axis, and zero where `other` is more. The result names the axes that
    /// either names.
    ///
    /// ```
    /// # use budget_pool::Amount;
    /// let (five, seven) = (Amount::new().tokens(5), Amount::new().tokens(7));
    /// assert_eq!(five.saturating_sub(seven), Amount::new().tokens(0));
    /// ```
    #[must_use]
    pub fn saturating_sub(self, other: Amount) -> Amount {
        self.combined(other, u64::saturating_sub)
    }

    /// Each axis by itself; the token total is not made from its parts again.
    fn combined(self, other: Amount, combine: impl Fn(u64, u64) -> u64) -> Amount {
        let (a, b) = (self.all(), other.all());
        let both = Quantities::each(a.axes().union(b.axes()), |axis| {
            combine(a.units()[axis], b.units()[axis])
        });
        Amount::reported(both, self.labels.or(other.labels))
    }

    /// An amount that the pool reports: each axis stands for itself.
    pub(crate) fn reported(quantities: Quantities, labels: Labels) -> Amount {
        let named = quantities.axes();
        let is_weighted = named.contains(lane::IN_FLIGHT);
        let in_flight = if is_weighted { quantities.of(lane::IN_FLIGHT) } else { 1 };
        let quantities = quantities.without(lane::IN_FLIGHT);
        Amount { quantities, total: quantities.of(lane::TOKENS), in_flight, named, labels }
    }

    /// The units that a spend charges. Only a hold is in flight.
    #[inline]
    pub(crate) const fn quantities(&self) -> &Quantities {
        &self.quantities
    }

    /// The units that a reservation holds: the slots that it takes, too.
    #[inline(always)]
    pub(crate) const fn held(&self) -> Quantities {
        self.quantities.with(lane::IN_FLIGHT, self.in_flight)
    }

    /// All named units, in flight included, with the token total that follows.
    pub(crate) const fn all(&self) -> Quantities {
        match self.named.contains(lane::IN_FLIGHT) {
            true => self.held(),
            false => self.quantities,
        }
    }

    /// The axes that were named, without the total that follows from them.
    #[inline]
    pub(crate) const fn named(&self) -> AxisSet {
        self.named
    }

    /// The labels of the user's own axes.
    #[inline]
    pub(crate) const fn labels(&self) -> Labels {
        self.labels
    }
}

impl Default for Amount {
    fn default() -> Amount {
        Amount::new()
    }
}

/// The same axes are named, with the same figures. A total of tokens counts as named where it
/// follows from its parts, too, so that an amount is equal to the one that a pool reports of it.
impl PartialEq for Amount {
    fn eq(&self, other: &Amount) -> bool {
        self.all() == other.all()
    }
}

impl Eq for Amount {}

/// By the figures that `eq` compares: equal amounts hash alike.
impl Hash for Amount {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.all().hash(state);
    }
}

/// Axis by axis, saturating.
impl Add for Amount {
    type Output = Amount;

    fn add(self, other: Amount) -> Amount {
        self.combined(other, u64::saturating_add)
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Amount) {
        *self = *self + other;
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

/// As [`iter`](Amount::iter).
impl IntoIterator for Amount {
    type Item = Quantity;
    type IntoIter = QuantityIter;

    fn into_iter(self) -> QuantityIter {
        self.iter()
    }
}

/// Sets each in turn: of two on one axis the later counts.
impl FromIterator<Quantity> for Amount {
    fn from_iter<I: IntoIterator<Item = Quantity>>(quantities: I) -> Amount {
        let set = |amount: Amount, next: Quantity| amount.with(next.axis(), next.units());
        quantities.into_iter().fold(Amount::new(), set)
    }
}

/// The quantities that are not zero, as a person reads them: `1200 tokens, 0.0036 USD`, or
/// `nothing`. A precision is one of the money, as with a [`Quantity`].
impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(self.iter().filter(|quantity| quantity.units() > 0), f)
    }
}

/// The named quantities, zero or not.
impl fmt::Debug for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Amount").field(&self.iter()).finish()
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
/// assert_eq!(caps.units(Axis::InFlight), Some(8));
/// assert_eq!(caps.get(Axis::InputTokens), None);
/// ```
#[derive(Clone, Copy, Default)]
pub struct Caps {
    quantities: Quantities,
    labels: Labels,
}

impl Caps {
    /// No cap on any axis.
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().tokens(5).units(Axis::Tokens), Some(5));
    /// assert_eq!(Caps::new().units(Axis::Tokens), None);
    /// ```
    #[must_use]
    pub const fn new() -> Caps {
        Caps { quantities: Quantities::NONE, labels: Labels::NONE }
    }

    /// Caps one axis: `Caps::of(TOOL_CALLS, 50)`. Money is in nano-USD.
    ///
    /// ```
    /// # use budget_pool::{Axis, BudgetPool, Caps};
    /// const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");
    /// let pool = BudgetPool::builder().caps(Caps::of(TOOL_CALLS, 50)).build();
    /// ```
    #[must_use]
    pub const fn of(axis: Axis, cap: u64) -> Caps {
        Caps::new().with(axis, cap)
    }

    /// Caps [`Axis::Tokens`]: all tokens.
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().tokens(5).units(Axis::Tokens), Some(5));
    /// ```
    #[must_use]
    pub const fn tokens(self, tokens: u64) -> Caps {
        self.with(Axis::Tokens, tokens)
    }

    /// Caps [`Axis::InputTokens`].
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().input_tokens(5).units(Axis::InputTokens), Some(5));
    /// ```
    #[must_use]
    pub const fn input_tokens(self, tokens: u64) -> Caps {
        self.with(Axis::InputTokens, tokens)
    }

    /// Caps [`Axis::OutputTokens`].
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().output_tokens(5).units(Axis::OutputTokens), Some(5));
    /// ```
    #[must_use]
    pub const fn output_tokens(self, tokens: u64) -> Caps {
        self.with(Axis::OutputTokens, tokens)
    }

    /// Caps [`Axis::Requests`].
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().requests(5).units(Axis::Requests), Some(5));
    /// ```
    #[must_use]
    pub const fn requests(self, requests: u64) -> Caps {
        self.with(Axis::Requests, requests)
    }

    /// Caps [`Axis::Usd`]: the money.
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps, Usd};
    /// let caps = Caps::new().usd("0.50".parse()?);
    /// assert_eq!(caps.units(Axis::Usd), Some(500_000_000)); // nano-dollars
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub const fn usd(self, usd: Usd) -> Caps {
        self.with(Axis::Usd, usd.as_nanos())
    }

    /// Caps the reservations that live at the same time, each by the slots that it takes.
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().in_flight(4).units(Axis::InFlight), Some(4));
    /// ```
    #[must_use]
    pub const fn in_flight(self, slots: u64) -> Caps {
        self.with(Axis::InFlight, slots)
    }

    /// Caps an axis, as the setter of its name does. Money is in nano-USD. A
    /// [`Deadline`](Axis::Deadline) is not counted: it changes nothing.
    ///
    /// ```
    /// # use budget_pool::{Axis, Caps};
    /// assert_eq!(Caps::new().with(Axis::Requests, 5), Caps::new().requests(5));
    /// ```
    #[must_use]
    pub const fn with(mut self, axis: Axis, cap: u64) -> Caps {
        self.set(axis, cap);
        self
    }

    /// [`with`](Caps::with), in place.
    #[inline(always)]
    pub(crate) const fn set(&mut self, axis: Axis, cap: u64) {
        if axis.is_counted() {
            self.quantities.set(axis.lane(), cap);
            self.labels = self.labels.with(axis);
        }
    }

    /// These caps, and the label of an axis without one.
    #[must_use]
    pub(crate) const fn declaring(self, axis: Axis) -> Caps {
        Caps { labels: self.labels.with(axis), ..self }
    }

    /// These caps, and `other`'s where it names an axis.
    #[must_use]
    pub(crate) fn overlaid(self, other: Caps) -> Caps {
        Caps {
            quantities: self.quantities.overlaid(&other.quantities),
            labels: self.labels.or(other.labels),
        }
    }

    /// Caps that the pool reports.
    pub(crate) fn reported(quantities: Quantities, labels: Labels) -> Caps {
        Caps { quantities, labels }
    }

    /// The cap of an axis; `None` if it has none.
    #[must_use]
    pub fn get(&self, axis: Axis) -> Option<Quantity> {
        self.units(axis).map(|units| Quantity::new(axis, units))
    }

    /// The bare number of a cap: nano-USD on [`Axis::Usd`], a count on the others; `None` if the
    /// axis has none.
    #[must_use]
    pub const fn units(&self, axis: Axis) -> Option<u64> {
        if self.quantities.names(axis) { Some(self.quantities.of(axis.lane())) } else { None }
    }

    /// The caps, axis by axis in declared order.
    ///
    /// ```
    /// # use budget_pool::Caps;
    /// for cap in Caps::new().tokens(5).requests(1).iter() {
    ///     println!("{cap}");
    /// }
    /// ```
    #[must_use]
    pub fn iter(&self) -> QuantityIter {
        QuantityIter { quantities: self.quantities, labels: self.labels }
    }

    pub(crate) const fn quantities(&self) -> &Quantities {
        &self.quantities
    }

    /// The labels of the user's own axes.
    pub(crate) const fn labels(&self) -> Labels {
        self.labels
    }
}

/// The same axes have the same caps.
impl PartialEq for Caps {
    fn eq(&self, other: &Caps) -> bool {
        self.quantities == other.quantities
    }
}

impl Eq for Caps {}

/// By the figures that `eq` compares.
impl Hash for Caps {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.quantities.hash(state);
    }
}

/// As [`iter`](Caps::iter).
impl IntoIterator for Caps {
    type Item = Quantity;
    type IntoIter = QuantityIter;

    fn into_iter(self) -> QuantityIter {
        self.iter()
    }
}

/// Sets each in turn: of two on one axis the later counts.
impl FromIterator<Quantity> for Caps {
    fn from_iter<I: IntoIterator<Item = Quantity>>(caps: I) -> Caps {
        caps.into_iter().fold(Caps::new(), |all, cap| all.with(cap.axis(), cap.units()))
    }
}

/// As a person reads them: `1000000 tokens, 10 USD`, or `nothing`. A precision is one of the money,
/// as with a [`Quantity`].
impl fmt::Display for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(self.iter(), f)
    }
}

/// As [`iter`](Amount::iter).
impl IntoIterator for &Amount {
    type Item = Quantity;
    type IntoIter = QuantityIter;

    fn into_iter(self) -> QuantityIter {
        self.iter()
    }
}

/// As [`iter`](Caps::iter).
impl IntoIterator for &Caps {
    type Item = Quantity;
    type IntoIter = QuantityIter;

    fn into_iter(self) -> QuantityIter {
        self.iter()
    }
}

impl fmt::Debug for Caps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Caps").field(&format_args!("{self}")).finish()
    }
}

/// The quantities of an [`Amount`] or of [`Caps`], axis by axis in declared order.
#[derive(Clone)]
pub struct QuantityIter {
    /// The quantities to come.
    quantities: Quantities,
    labels: Labels,
}

impl Iterator for QuantityIter {
    type Item = Quantity;

    fn next(&mut self) -> Option<Quantity> {
        let mut left = self.quantities.axes();
        let lane = left.next()?;
        let next = Quantity::new(self.labels.axis(lane), self.quantities.units()[lane]);
        self.quantities = self.quantities.only(left);
        Some(next)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.quantities.axes().count();
        (left, Some(left))
    }
}

/// The quantities to come.
impl fmt::Debug for QuantityIter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(self.clone(), f)
    }
}

impl ExactSizeIterator for QuantityIter {}

impl FusedIterator for QuantityIter {}

#[cfg(test)]
#[path = "../tests/units/amount.rs"]
mod tests;
