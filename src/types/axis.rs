//! The axes of a budget, sets of them, and a quantity with its unit.
//!
//! The list of axes is written down here once. Everything below the public setters loops over it.

use std::cmp::Ordering;
use std::fmt::{self, Write};
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use crate::types::name::InLine;
use crate::types::usd::Usd;

/// A kind of unit that is limited.
///
/// All but [`Deadline`](Axis::Deadline) are *counted*: a pool keeps a balance of them. Their
/// declared order is the order in which a refusal looks for the axis to name.
///
/// Four axes are the user's own, for units beside tokens and money: bytes, jobs, calls of a tool.
///
/// ```
/// use budget_pool::{Amount, Axis, BudgetPool};
///
/// const TOOL_CALLS: Axis = Axis::custom(0, "tool calls");
///
/// let run = BudgetPool::builder().name("run").tokens(10_000).cap(TOOL_CALLS, 3).build();
/// run.record(Amount::new().tokens(900).with(TOOL_CALLS, 2))?;
///
/// let refused = run.record(Amount::of(TOOL_CALLS, 2)).unwrap_err();
/// assert_eq!(refused.axis(), Some(TOOL_CALLS));
/// assert!(refused.to_string().starts_with("tool calls of `run` exceeded"));
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
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
    /// Reservations alive at the same time. Each counts one, unless its amount names
    /// [another figure](crate::Amount::in_flight).
    InFlight,
    /// An axis of the user's own, made by [`Axis::custom`].
    Custom(CustomAxis),
    /// Time. Not counted: it names the refusal of a call that came too late.
    Deadline,
}

/// Which of the user's own axes an [`Axis::Custom`] is.
///
/// Its index tells it from the others. The label is for texts alone: two with the same index are
/// equal, whatever their labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CustomAxis {
    index: u8,
    label: Label,
}

impl CustomAxis {
    /// Which of the four it is: 0 to 3.
    #[must_use]
    pub const fn index(self) -> u8 {
        self.index
    }

    /// Its name in texts.
    #[must_use]
    pub const fn label(self) -> &'static str {
        self.label.0
    }
}

/// The name of an axis. It is for texts alone: all are equal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label(&'static str);

#[cfg(all(test, not(any(budget_pool_loom, budget_pool_shuttle))))]
impl Label {
    pub(crate) const NONE: Label = Label("");
}

impl PartialEq for Label {
    fn eq(&self, _: &Label) -> bool {
        true
    }
}

impl Eq for Label {}

impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Label) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Label {
    fn cmp(&self, _: &Label) -> Ordering {
        Ordering::Equal
    }
}

impl Hash for Label {
    fn hash<H: Hasher>(&self, _: &mut H) {}
}

impl Axis {
    /// How many axes are a user's own.
    pub(crate) const CUSTOM: usize = 4;

    /// How many axes are counted.
    pub(crate) const COUNTED: usize = Axis::FIRST_CUSTOM + Axis::CUSTOM;

    pub(crate) const FIRST_CUSTOM: usize = 6;

    /// Every axis that is not a user's own, in declared order.
    pub const ALL: &'static [Axis] = &[
        Axis::Tokens,
        Axis::InputTokens,
        Axis::OutputTokens,
        Axis::Requests,
        Axis::Usd,
        Axis::InFlight,
        Axis::Deadline,
    ];

    /// An axis of the user's own: the index, from 0 to 3, tells it from the others, and the label
    /// stands for it in texts.
    ///
    /// Declare each once, as a constant. An [`Amount`](crate::Amount) and [`Caps`](crate::Caps)
    /// know the labels that they were made with. A tree of pools learns the label of an axis where
    /// the axis is first capped or [declared](crate::PoolBuilder::axis), and uses it in refusals
    /// and snapshots; a second label for the same index changes nothing there. An axis that a tree
    /// has no label for is called `custom 0` to `custom 3`.
    ///
    /// # Panics
    /// If the index is above 3, or the label is empty. In a constant that does not compile:
    ///
    /// ```compile_fail,E0080
    /// # use budget_pool::Axis;
    /// const FIFTH: Axis = Axis::custom(4, "one too many");
    /// # let _ = FIFTH;
    /// ```
    ///
    /// ```
    /// # use budget_pool::Axis;
    /// const FOURTH: Axis = Axis::custom(3, "the last");
    /// # let _ = FOURTH;
    /// ```
    #[must_use]
    pub const fn custom(index: u8, label: &'static str) -> Axis {
        assert!((index as usize) < Axis::CUSTOM, "there are four axes of the user's own: 0 to 3");
        assert!(!label.is_empty(), "a text needs a label");
        Axis::Custom(CustomAxis { index, label: Label(label) })
    }

    /// Whether a pool keeps a balance of this axis: all but [`Deadline`](Axis::Deadline).
    #[must_use]
    pub const fn is_counted(self) -> bool {
        !matches!(self, Axis::Deadline)
    }

    /// The name for programs: `input_tokens` where the text is `input tokens`. Of an axis of the
    /// user's own it is the label as it was given. [`FromStr`] reads it back, but for those.
    ///
    /// ```
    /// use budget_pool::Axis;
    ///
    /// assert_eq!(Axis::InputTokens.as_str(), "input_tokens");
    /// assert_eq!("input_tokens".parse(), Ok(Axis::InputTokens));
    /// assert_eq!(Axis::InputTokens.to_string(), "input tokens");
    /// ```
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Axis::Tokens => "tokens",
            Axis::InputTokens => "input_tokens",
            Axis::OutputTokens => "output_tokens",
            Axis::Requests => "requests",
            Axis::Usd => "usd",
            Axis::InFlight => "in_flight",
            Axis::Custom(custom) => custom.label.0,
            Axis::Deadline => "deadline",
        }
    }

    /// The place of a counted axis in [`Units`].
    pub(crate) const fn lane(self) -> usize {
        match self {
            Axis::Tokens => lane::TOKENS,
            Axis::InputTokens => lane::INPUT_TOKENS,
            Axis::OutputTokens => lane::OUTPUT_TOKENS,
            Axis::Requests => lane::REQUESTS,
            Axis::Usd => lane::USD,
            Axis::InFlight => lane::IN_FLIGHT,
            Axis::Custom(custom) => Axis::FIRST_CUSTOM + custom.index as usize,
            Axis::Deadline => panic!("a deadline is not counted"),
        }
    }

    /// The axis at a place of [`Units`], by its label if it is a user's own.
    pub(crate) fn at(lane: usize, label: Label) -> Axis {
        match lane.checked_sub(Axis::FIRST_CUSTOM) {
            None => Axis::ALL[lane],
            Some(index) => Axis::Custom(CustomAxis { index: index as u8, label }),
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Axis::InputTokens => "input tokens",
            Axis::OutputTokens => "output tokens",
            Axis::Usd => "USD",
            Axis::InFlight => "in flight",
            other => other.as_str(),
        }
    }
}

/// The unit: `tokens`, `input tokens`, `output tokens`, `requests`, `USD`, `in flight`, the label
/// of an axis of the user's own, `deadline`. A character of a label that would break a line is
/// escaped.
impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Axis::Custom(custom) => f.pad(&InLine(custom.label.0).to_string()),
            other => f.pad(other.unit()),
        }
    }
}

/// Reads what [`as_str`](Axis::as_str) writes of [`Axis::ALL`].
impl FromStr for Axis {
    type Err = ParseAxisError;

    fn from_str(text: &str) -> Result<Axis, ParseAxisError> {
        let axis = Axis::ALL.iter().find(|axis| axis.as_str() == text);
        axis.copied().ok_or(ParseAxisError(()))
    }
}

/// A text that names no [`Axis`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error(
    "not an axis: expected tokens, input_tokens, output_tokens, requests, usd, in_flight or deadline"
)]
pub struct ParseAxisError(());

/// The labels of the user's own axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Labels([Option<&'static str>; Axis::CUSTOM]);

impl Labels {
    pub(crate) const NONE: Labels = Labels([None; Axis::CUSTOM]);

    const UNNAMED: [&'static str; Axis::CUSTOM] = ["custom 0", "custom 1", "custom 2", "custom 3"];

    /// These, and the label of one more axis, unless its index has one.
    #[must_use]
    pub(crate) const fn with(mut self, axis: Axis) -> Labels {
        if let Axis::Custom(custom) = axis {
            let known = &mut self.0[custom.index as usize];
            if known.is_none() {
                *known = Some(custom.label.0);
            }
        }
        self
    }

    /// These, and those of `other` where an index has none.
    #[must_use]
    pub(crate) fn or(self, other: Labels) -> Labels {
        Labels(std::array::from_fn(|index| self.0[index].or(other.0[index])))
    }

    /// The axis at a place of [`Units`].
    pub(crate) fn axis(&self, lane: usize) -> Axis {
        Axis::at(lane, self.label(lane))
    }

    /// The label of the axis at a place of [`Units`], if it is a user's own.
    pub(crate) fn label(&self, lane: usize) -> Label {
        let index = lane.checked_sub(Axis::FIRST_CUSTOM);
        Label(index.map_or("", |index| self.0[index].unwrap_or(Labels::UNNAMED[index])))
    }

    /// The axes of the user's own whose labels these are.
    #[cfg(feature = "metrics")]
    pub(crate) fn own(self) -> impl Iterator<Item = Axis> {
        let lanes = (Axis::FIRST_CUSTOM..).zip(self.0);
        lanes.filter_map(move |(lane, label)| label.map(|_| self.axis(lane)))
    }

    /// Every counted axis, in declared order.
    pub(crate) fn counted(self) -> impl Iterator<Item = Axis> {
        (0..Axis::COUNTED).map(move |lane| self.axis(lane))
    }
}

/// The places of the axes in [`Units`], where they are known. An [`Axis`] is three words for the sake
/// of a label, and to pass one by memory costs more than a whole `record`.
pub(crate) mod lane {
    pub(crate) const TOKENS: usize = 0;
    pub(crate) const INPUT_TOKENS: usize = 1;
    pub(crate) const OUTPUT_TOKENS: usize = 2;
    pub(crate) const REQUESTS: usize = 3;
    pub(crate) const USD: usize = 4;
    pub(crate) const IN_FLIGHT: usize = 5;
}

/// A set of counted axes. Iterates over their indices in declared order; an axis that is not in it
/// costs nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct AxisSet(u16);

impl AxisSet {
    pub(crate) const EMPTY: AxisSet = AxisSet(0);
    pub(crate) const ALL: AxisSet = AxisSet((1 << Axis::COUNTED) - 1);
    /// The axes of the user's own.
    pub(crate) const OWN: AxisSet = AxisSet(AxisSet::ALL.0 & !((1 << Axis::FIRST_CUSTOM) - 1));
    /// The parts of the token total.
    pub(crate) const TOKEN_PARTS: AxisSet =
        AxisSet::of(lane::INPUT_TOKENS).with(lane::OUTPUT_TOKENS);

    #[inline]
    pub(crate) const fn of(lane: usize) -> AxisSet {
        AxisSet(1 << lane)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn with(self, lane: usize) -> AxisSet {
        self.union(AxisSet::of(lane))
    }

    /// Adds the axis of an index on a condition, without a branch.
    #[inline]
    #[must_use]
    pub(crate) const fn with_if(self, index: usize, condition: bool) -> AxisSet {
        AxisSet(self.0 | (condition as u16) << index)
    }

    #[inline]
    #[must_use]
    pub(crate) const fn without(self, lane: usize) -> AxisSet {
        self.difference(AxisSet::of(lane))
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

/// A `u64` for each counted axis, by its index.
pub(crate) type Units = [u64; Axis::COUNTED];

pub(crate) const NOTHING: Units = [0; Axis::COUNTED];

/// Visits every place of [`Units`], in two loops. The compiler unrolls each of them, so that the
/// places cost nothing which an amount that is known then does not name. A loop over all of them is
/// too long for the optimizer.
#[inline(always)]
pub(crate) fn each_lane(mut visit: impl FnMut(usize)) {
    for lane in 0..Axis::FIRST_CUSTOM {
        visit(lane);
    }
    for lane in Axis::FIRST_CUSTOM..Axis::COUNTED {
        visit(lane);
    }
}

/// Whether something holds on every place of [`Units`], as [`each_lane`] visits them.
#[inline(always)]
pub(crate) fn all_lanes(mut holds: impl FnMut(usize) -> bool) -> bool {
    (0..Axis::FIRST_CUSTOM).all(&mut holds) && (Axis::FIRST_CUSTOM..Axis::COUNTED).all(holds)
}

/// Units of which each is made by its place, as [`each_lane`] visits them.
#[inline(always)]
pub(crate) fn on_each_lane(mut units: impl FnMut(usize) -> u64) -> Units {
    let mut all = NOTHING;
    each_lane(|lane| all[lane] = units(lane));
    all
}

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

    /// These, and so much at one place.
    #[inline(always)]
    #[must_use]
    pub(crate) const fn with(mut self, lane: usize, units: u64) -> Quantities {
        self.set(lane, units);
        self
    }

    /// So much at one place.
    #[inline(always)]
    pub(crate) const fn set(&mut self, lane: usize, units: u64) {
        self.axes = self.axes.with(lane);
        self.units[lane] = units;
    }

    /// These, and `other`'s where it names an axis.
    #[must_use]
    pub(crate) fn overlaid(self, other: &Quantities) -> Quantities {
        other.axes.fold(self, |all, lane| all.with(lane, other.units[lane]))
    }

    /// These, but for one place.
    #[must_use]
    pub(crate) fn without(self, lane: usize) -> Quantities {
        self.only(self.axes.difference(AxisSet::of(lane)))
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

    /// Whether every figure is zero.
    #[must_use]
    pub(crate) fn is_zero(&self) -> bool {
        self.units == NOTHING
    }

    /// The units of these that are more than `units`.
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

    #[inline(always)]
    pub(crate) const fn of(&self, lane: usize) -> u64 {
        self.units[lane]
    }

    /// The units at one place; `None` if that is not among these.
    #[inline]
    pub(crate) fn get(&self, lane: usize) -> Option<u64> {
        self.axes.contains(lane).then(|| self.units[lane])
    }

    /// At most so much at one place; so much, if that was not among these.
    #[inline]
    pub(crate) fn bound(&mut self, lane: usize, most: u64) {
        self.set(lane, self.get(lane).map_or(most, |units| units.min(most)));
    }

    /// Whether an axis is counted and among these.
    pub(crate) const fn names(&self, axis: Axis) -> bool {
        axis.is_counted() && self.axes.contains(axis.lane())
    }

    pub(crate) fn iter(self, labels: Labels) -> impl Iterator<Item = Quantity> {
        self.axes.map(move |lane| Quantity::new(labels.axis(lane), self.units[lane]))
    }
}

/// As a person reads them: `1200 tokens, 0.0036 USD`, or `nothing`.
pub(crate) fn list(
    quantities: impl Iterator<Item = Quantity>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let text = |quantity: Quantity| quantity.rounded(f.precision());
    let all: Vec<String> = quantities.map(text).collect();
    pad(&if all.is_empty() { "nothing".to_owned() } else { all.join(", ") }, f)
}

/// Writes a text that has figures, padded as texts are. `Formatter::pad` would take a precision for
/// a length, and cut the digits beyond it.
fn pad(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let missing = f.width().unwrap_or_default().saturating_sub(text.chars().count());
    let before = match f.align() {
        Some(fmt::Alignment::Right) => missing,
        Some(fmt::Alignment::Center) => missing / 2,
        Some(fmt::Alignment::Left) | None => 0,
    };
    let fill = f.fill();
    (0..before).try_for_each(|_| f.write_char(fill))?;
    f.write_str(text)?;
    (before..missing).try_for_each(|_| f.write_char(fill))
}

impl fmt::Debug for Quantities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        list(self.iter(Labels::NONE), f)
    }
}

impl fmt::Debug for AxisSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.map(|lane| Labels::NONE.axis(lane))).finish()
    }
}

/// The units of one counted axis, with their kind.
///
/// Displays as `1200 tokens`, `3 requests`, `0.0036 USD`. A precision is one of the money, as that of
/// [`Usd`]; a count has no decimals. Width and fill are as with texts.
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

    /// With its unit, and with money of that many decimals.
    fn rounded(self, decimals: Option<usize>) -> String {
        match self.usd().zip(decimals) {
            Some((usd, decimals)) => format!("{usd:.decimals$} {}", self.axis),
            None => format!("{} {}", self.number(), self.axis),
        }
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        pad(&self.rounded(f.precision()), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES: Axis = Axis::custom(0, "bytes");
    const JOBS: Axis = Axis::custom(3, "jobs");

    #[test]
    fn the_axes_of_the_users_own_are_all_but_the_named() {
        assert!(AxisSet::OWN.eq(Axis::FIRST_CUSTOM..Axis::COUNTED));
    }

    #[test]
    fn every_axis_but_the_deadline_is_counted_and_has_its_unit() {
        let labels = Labels::NONE.with(BYTES).with(JOBS);
        let axes: Vec<Axis> = labels.counted().collect();
        let texts: Vec<_> =
            axes.iter().map(|&axis| Quantity::new(axis, 1_200).to_string()).collect();
        assert_eq!(
            texts,
            [
                "1200 tokens",
                "1200 input tokens",
                "1200 output tokens",
                "1200 requests",
                "0.0000012 USD",
                "1200 in flight",
                "1200 bytes",
                "1200 custom 1",
                "1200 custom 2",
                "1200 jobs"
            ]
        );
        assert!(axes.is_sorted() && axes.iter().all(|axis| axis.is_counted()));
        assert!(axes.iter().enumerate().all(|(lane, axis)| axis.lane() == lane));
        assert!(!Axis::Deadline.is_counted() && axes.iter().all(|axis| *axis < Axis::Deadline));
        assert_eq!(Axis::Deadline.to_string(), "deadline");
    }

    #[test]
    fn the_name_for_programs_is_read_back() {
        for &axis in Axis::ALL {
            assert_eq!(axis.as_str().parse(), Ok(axis));
            assert_eq!(axis.to_string().to_lowercase().replace(' ', "_"), axis.as_str());
        }
        assert_eq!(BYTES.as_str(), "bytes");
        for other in ["", "Tokens", "input tokens", "bytes", "tokens "] {
            assert_eq!(other.parse::<Axis>(), Err(ParseAxisError(())), "{other}");
        }
        assert!(ParseAxisError(()).to_string().starts_with("not an axis: expected tokens, "));
        let named = Axis::ALL.iter().all(|axis| {
            ParseAxisError(()).to_string().split([' ', ',']).any(|word| word == axis.as_str())
        });
        assert!(named, "the text names each");
    }

    #[test]
    fn an_own_axis_is_its_index_and_the_first_label_stays() {
        let other = Axis::custom(0, "kilobytes");
        assert_eq!((BYTES, BYTES.cmp(&other)), (other, Ordering::Equal));
        assert!(BYTES < JOBS && BYTES != JOBS);
        let labels = Labels::NONE.with(BYTES).with(other);
        assert_eq!(labels.axis(BYTES.lane()).to_string(), "bytes");
        let merged = Labels::NONE.with(other).or(labels.with(JOBS));
        let texts = [BYTES, JOBS].map(|axis| merged.axis(axis.lane()).to_string());
        assert_eq!(texts, ["kilobytes", "jobs"]);
    }

    #[test]
    #[should_panic(expected = "four axes of the user's own")]
    fn there_is_no_fifth_own_axis() {
        _ = Axis::custom(4, "one too many");
    }

    #[test]
    fn only_money_is_money() {
        let money = |axis| Quantity::new(axis, 7).usd();
        assert_eq!(money(Axis::Usd), Some(Usd::from_nanos(7)));
        let mut others = Labels::NONE.counted().filter(|&axis| axis != Axis::Usd);
        assert!(others.all(|axis| money(axis).is_none()));
    }

    #[test]
    fn debug_says_what_it_is() {
        let quantities = Quantities::NONE.with(lane::REQUESTS, 3).with(lane::USD, 5);
        assert_eq!(format!("{quantities:?}"), "3 requests, 0.000000005 USD");
        assert_eq!(format!("{:?}", quantities.axes()), "{Requests, Usd}");
    }
}
