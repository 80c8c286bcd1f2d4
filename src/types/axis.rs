//! The axes of a budget, sets of them, and a quantity with its unit.
//!
//! The list of axes is written down here once. Everything below the public setters loops over it.

use std::fmt;

use crate::types::usd::Usd;

/// One kind of thing that is limited.
///
/// All but [`Deadline`](Axis::Deadline) are *counted*: a pool keeps a balance of them. Their
/// declared order is the order in which a refusal looks for the axis to name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Axis {
    /// All tokens, whichever way they went: in an [`Amount`](crate::Amount) at least input plus
    /// output.
    Tokens,
    /// Tokens sent to a model. Cached ones are counted too.
    InputTokens,
    /// Tokens that a model produced.
    OutputTokens,
    /// Calls.
    Requests,
    /// Money, in nano-USD.
    Usd,
    /// Reservations alive at the same time; each counts one.
    InFlight,
    /// Time. Not counted: it names the refusal of a call that came too late.
    Deadline,
}

impl Axis {
    /// How many axes are counted; they come first in declared order.
    pub(crate) const COUNTED: usize = 6;

    /// Every counted axis, in declared order.
    pub(crate) const ALL_COUNTED: [Axis; Self::COUNTED] = [
        Axis::Tokens,
        Axis::InputTokens,
        Axis::OutputTokens,
        Axis::Requests,
        Axis::Usd,
        Axis::InFlight,
    ];

    /// Whether a pool keeps a balance of this axis: all but [`Deadline`](Axis::Deadline).
    #[must_use]
    pub const fn is_counted(self) -> bool {
        (self as usize) < Self::COUNTED
    }

    /// The axis at `index` of the counted ones.
    pub(crate) const fn at(index: usize) -> Axis {
        Self::ALL_COUNTED[index]
    }

    const fn unit(self) -> &'static str {
        match self {
            Axis::Tokens => "tokens",
            Axis::InputTokens => "input tokens",
            Axis::OutputTokens => "output tokens",
            Axis::Requests => "requests",
            Axis::Usd => "USD",
            Axis::InFlight => "in flight",
            Axis::Deadline => "deadline",
        }
    }
}

/// The unit: `tokens`, `input tokens`, `output tokens`, `requests`, `USD`, `in flight`, `deadline`.
impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.unit())
    }
}

/// A set of counted axes. Iterates over their indices in declared order; an axis that is not in it
/// costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct AxisSet(u32);

impl AxisSet {
    pub(crate) const EMPTY: AxisSet = AxisSet(0);
    pub(crate) const ALL: AxisSet = AxisSet((1 << Axis::COUNTED) - 1);
    /// Naming one of these names all three.
    pub(crate) const TOKEN_FAMILY: AxisSet =
        AxisSet::of(Axis::Tokens).with(Axis::InputTokens).with(Axis::OutputTokens);

    #[inline]
    pub(crate) const fn of(axis: Axis) -> AxisSet {
        assert!(axis.is_counted());
        AxisSet(1 << axis as u32)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn with(self, axis: Axis) -> AxisSet {
        self.union(AxisSet::of(axis))
    }

    /// Adds the axis of an index on a condition, without a branch.
    #[inline]
    #[must_use]
    pub(crate) const fn with_if(self, index: usize, condition: bool) -> AxisSet {
        AxisSet(self.0 | (condition as u32) << index)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn union(self, other: AxisSet) -> AxisSet {
        AxisSet(self.0 | other.0)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn intersection(self, other: AxisSet) -> AxisSet {
        AxisSet(self.0 & other.0)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn difference(self, other: AxisSet) -> AxisSet {
        AxisSet(self.0 & !other.0)
    }

    #[inline]
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) const fn contains(self, index: usize) -> bool {
        self.0 >> index & 1 == 1
    }
}

impl Iterator for AxisSet {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        let index = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(index)
    }
}

/// One `u64` for each counted axis, by its index.
pub(crate) type Units = [u64; Axis::COUNTED];

pub(crate) const NOTHING: Units = [0; Axis::COUNTED];

/// Units on some of the axes; none on the others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Quantities {
    axes: AxisSet,
    // Zero outside of `axes`.
    units: Units,
}

impl Quantities {
    pub(crate) const NONE: Quantities =
        Quantities { axes: AxisSet::EMPTY, units: [0; Axis::COUNTED] };

    #[inline]
    #[must_use]
    pub(crate) const fn with(mut self, axis: Axis, units: u64) -> Quantities {
        self.axes = self.axes.with(axis);
        self.units[axis as usize] = units;
        self
    }

    /// The units must be zero outside of `axes`.
    #[inline]
    #[must_use]
    pub(crate) fn new(axes: AxisSet, units: Units) -> Quantities {
        Quantities { axes, units }
    }

    /// On each of `axes`, what `units` says of its index.
    #[must_use]
    pub(crate) fn each(axes: AxisSet, mut units: impl FnMut(usize) -> u64) -> Quantities {
        let mut all = Quantities { axes, ..Quantities::NONE };
        for axis in axes {
            all.units[axis] = units(axis);
        }
        all
    }

    /// What of these is more than `units`.
    #[must_use]
    pub(crate) fn beyond(&self, units: &Units) -> Quantities {
        Quantities::each(self.axes, |axis| self.units[axis].saturating_sub(units[axis]))
    }

    /// These axes alone.
    #[must_use]
    pub(crate) fn only(self, axes: AxisSet) -> Quantities {
        Quantities::each(self.axes.intersection(axes), |axis| self.units[axis])
    }

    #[inline]
    pub(crate) const fn axes(&self) -> AxisSet {
        self.axes
    }

    #[inline]
    pub(crate) const fn units(&self) -> &Units {
        &self.units
    }

    #[inline]
    pub(crate) const fn of(&self, axis: Axis) -> u64 {
        self.units[axis as usize]
    }

    /// The named quantity; `None` where the axis is not among these.
    pub(crate) fn get(&self, axis: Axis) -> Option<Quantity> {
        (axis.is_counted() && self.axes.contains(axis as usize))
            .then(|| Quantity::new(axis, self.of(axis)))
    }

    pub(crate) fn iter(self) -> impl Iterator<Item = Quantity> {
        self.axes.map(move |axis| Quantity::new(Axis::at(axis), self.units[axis]))
    }
}

/// As a person reads them: `1200 tokens, 0.0036 USD`, or `nothing`.
impl fmt::Display for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.iter().map(|quantity| quantity.to_string()).collect();
        f.pad(if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }.as_str())
    }
}

impl fmt::Debug for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({self})")
    }
}

impl fmt::Debug for AxisSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.map(Axis::at)).finish()
    }
}

/// How much of one counted axis, with its unit.
///
/// Displays as `1200 tokens`, `3 requests`, `0.0036 USD`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Quantity {
    axis: Axis,
    units: u64,
}

impl Quantity {
    pub(crate) const fn new(axis: Axis, units: u64) -> Quantity {
        Quantity { axis, units }
    }

    /// The axis that this is an amount of.
    #[must_use]
    pub const fn axis(self) -> Axis {
        self.axis
    }

    /// The bare number: nano-USD on [`Axis::Usd`], a count on the others.
    #[must_use]
    pub const fn units(self) -> u64 {
        self.units
    }

    /// The money, if this is on [`Axis::Usd`].
    #[must_use]
    pub const fn usd(self) -> Option<Usd> {
        match self.axis {
            Axis::Usd => Some(Usd::from_nanos(self.units)),
            _ => None,
        }
    }

    /// The number without its unit, as a person writes it: `1200`, `0.0036`.
    pub(crate) fn number(self) -> String {
        match self.usd() {
            Some(usd) => usd.to_string(),
            None => self.units.to_string(),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.number(), self.axis))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_axis_but_the_deadline_is_counted_and_has_its_unit() {
        let units = Axis::ALL_COUNTED.map(|axis| Quantity::new(axis, 1_200).to_string());
        assert_eq!(
            units,
            [
                "1200 tokens",
                "1200 input tokens",
                "1200 output tokens",
                "1200 requests",
                "0.0000012 USD",
                "1200 in flight"
            ]
        );
        assert!(
            Axis::ALL_COUNTED.is_sorted() && Axis::ALL_COUNTED.iter().all(|axis| axis.is_counted())
        );
        assert!(!Axis::Deadline.is_counted() && Axis::Deadline > Axis::InFlight);
        assert_eq!(Axis::Deadline.to_string(), "deadline");
    }

    #[test]
    fn only_money_is_money() {
        let money = |axis| Quantity::new(axis, 7).usd();
        assert_eq!(money(Axis::Usd), Some(Usd::from_nanos(7)));
        assert!(
            Axis::ALL_COUNTED
                .into_iter()
                .filter(|&axis| axis != Axis::Usd)
                .all(|axis| money(axis).is_none())
        );
    }

    #[test]
    fn debug_says_what_it_is() {
        let quantities = Quantities::NONE.with(Axis::Requests, 3).with(Axis::Usd, 5);
        assert_eq!(format!("{quantities:?}"), "(3 requests, 0.000000005 USD)");
        assert_eq!(format!("{:?}", quantities.axes()), "{Requests, Usd}");
    }
}
