//! The alternatives and the terms of a reservation.
//!
//! An ask is a list of choices, from the one that is liked best to the one that a waiter waits for.
//! Each of them is a range: the grant is as much of it as there is. The first choice whose least
//! fits, and passes nobody, is granted.

use std::time::{Duration, Instant};

use super::Engine;
use super::hold::HoldKey;
use super::nodes::NodeId;
use super::queue::Purpose;
use crate::types::amount::Amount;
use crate::types::axis::{AxisSet, Quantities, Units, lane};
use crate::types::error::BudgetError;
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;

/// The terms of an ask beside a plain amount.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    /// Empty where the amount itself is the only choice.
    choices: Vec<Choice>,
    /// Whether there is a choice of which less may be granted. It follows from `choices`, and is
    /// known without a look at them.
    is_cut: bool,
    pub(crate) ttl: Option<Duration>,
    pub(crate) label: Option<Name>,
    pub(crate) on_drop: Option<OnDrop>,
    pub(crate) wait_at_most: Option<Duration>,
}

/// As much as there is, between two amounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Choice {
    most: Quantities,
    least: Quantities,
}

/// The granted part of an ask.
pub(super) struct Pick {
    pub(super) choice: u32,
    pub(super) granted: Quantities,
}

impl Terms {
    /// `None` if a plain amount says the same.
    ///
    /// They are put together anew: so the compiler sees that those of a plain amount are never
    /// made, and spares the stores.
    #[inline(always)]
    pub(crate) fn if_any(self) -> Option<Terms> {
        let Terms { choices, is_cut, ttl, label, on_drop, wait_at_most } = self;
        let is_plain = choices.is_empty()
            && ttl.is_none()
            && label.is_none()
            && on_drop.is_none()
            && wait_at_most.is_none();
        let terms = Terms { choices, is_cut, ttl, label, on_drop, wait_at_most };
        if is_plain { None } else { Some(terms) }
    }

    /// Whether as much may be granted as there is.
    pub(super) fn has_choices(&self) -> bool {
        !self.choices.is_empty()
    }

    /// Whether each choice is for its amount or nothing.
    pub(crate) fn are_exact(&self) -> bool {
        !self.is_cut
    }

    /// Whether the clock must be read for these terms alone.
    pub(crate) fn takes_time(&self, waits: bool) -> bool {
        self.ttl.is_some() || (waits && self.wait_at_most.is_some())
    }

    /// Adds a choice behind the others.
    pub(crate) fn push(&mut self, first: &Amount, next: &Amount) {
        let next = Choice::exactly(next);
        match self.choices.is_empty() {
            // At once: a list that grows costs as much as both.
            true => self.choices = vec![Choice::exactly(first), next],
            false => self.choices.push(next),
        }
    }

    /// The last choice may be cut down to `least`.
    pub(crate) fn cut_to(&mut self, first: &Amount, least: &Amount) {
        if self.choices.is_empty() {
            self.choices.push(Choice::exactly(first));
        }
        self.choices.last_mut().expect("there is one now").cut_to(least);
        self.is_cut = self.choices.iter().any(|choice| choice.most != choice.least);
    }

    /// The least of the last choice, for which a waiter waits.
    #[inline]
    pub(crate) fn least(&self, held: Quantities) -> Quantities {
        self.choices.last().map_or(held, |last| last.least)
    }
}

impl Choice {
    fn exactly(amount: &Amount) -> Choice {
        Choice { most: amount.held(), least: amount.held() }
    }

    /// An axis that `least` does not name is not cut: a forgotten axis does not make money vanish.
    /// The token total follows from its parts as they are cut, if it is not named.
    fn cut_to(&mut self, least: &Amount) {
        let (named, most) = (least.all(), self.most);
        let mut cut = Quantities::each(most.axes(), |axis| {
            let units = most.units()[axis];
            if named.axes().contains(axis) { named.units()[axis].min(units) } else { units }
        });
        // It is never less than they are.
        if most.axes().contains(lane::TOKENS) {
            let total = cut.of(lane::TOKENS).max(parts(&cut)).min(most.of(lane::TOKENS));
            cut = cut.with(lane::TOKENS, total);
        }
        self.least = cut;
    }

    /// As much as there is; `None` if that is less than the least.
    fn best(&self, free: &Units) -> Option<Quantities> {
        let Choice { most, least } = self;
        if !least.beyond(free).is_zero() {
            return None;
        }
        let mut best = Quantities::each(most.axes(), |axis| most.units()[axis].min(free[axis]));
        // The parts fit into the total: the output gives way first, as the input is to be sent.
        let mut over = excess(&best);
        for part in [lane::OUTPUT_TOKENS, lane::INPUT_TOKENS] {
            let cut = over.min(u128::from(best.of(part) - least.of(part)));
            over -= cut;
            if cut > 0 {
                let left = u128::from(best.of(part)) - cut;
                best = best.with(part, u64::try_from(left).expect("it is less than before"));
            }
        }
        // The total is no more beyond its parts than it was asked to be.
        if !most.axes().intersection(AxisSet::TOKEN_PARTS).is_empty() {
            let beyond = most.of(lane::TOKENS) - parts(most);
            let total = parts(&best).saturating_add(beyond).min(best.of(lane::TOKENS));
            best = best.with(lane::TOKENS, total.max(least.of(lane::TOKENS)));
        }
        Some(best)
    }
}

/// Input and output tokens.
fn parts(of: &Quantities) -> u64 {
    of.of(lane::INPUT_TOKENS).saturating_add(of.of(lane::OUTPUT_TOKENS))
}

/// By how much the parts are more than their total. A total that cannot be counted any further
/// leaves them as they are.
fn excess(of: &Quantities) -> u128 {
    let [input, output, total] =
        [lane::INPUT_TOKENS, lane::OUTPUT_TOKENS, lane::TOKENS].map(|lane| of.of(lane));
    if total == u64::MAX {
        return 0;
    }
    (u128::from(input) + u128::from(output)).saturating_sub(u128::from(total))
}

impl Engine {
    /// A [`reserve`](Engine::reserve) on terms.
    pub(crate) fn reserve_on(
        &mut self,
        at: NodeId,
        held: &Quantities,
        terms: &mut Terms,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        if !terms.has_choices() {
            let key = self.reserve(at, held, now)?;
            self.agree(key, terms);
            return Ok(key);
        }
        let least = terms.least(*held);
        let now = self.advance_for(at, terms, &least, now);
        self.reserve_now(at, &least, terms, now)
    }

    /// Holds the first of [exact](Terms::are_exact) choices that fits: all that there is to do while
    /// the tree [is quiet](Engine::is_quiet_at).
    pub(crate) fn try_reserve_on(
        &mut self,
        at: NodeId,
        held: &Quantities,
        terms: &mut Terms,
        now: Option<Instant>,
    ) -> Option<HoldKey> {
        let (choice, key) = if terms.has_choices() {
            let mut choices = terms.choices.iter().zip(0..);
            choices.find_map(|(of, choice)| Some((choice, self.try_reserve(at, &of.most)?)))?
        } else {
            (0, self.try_reserve(at, held)?)
        };
        let hold = self.holds.get_mut(key);
        hold.set_since(now);
        hold.set_choice(choice);
        hold.agree(terms.label.take(), terms.on_drop);
        self.begin_ttl(key, terms);
        Some(key)
    }

    /// Brings up the state that an ask depends on: where it takes as much as there is, everything
    /// that is due.
    pub(super) fn advance_for(
        &mut self,
        at: NodeId,
        terms: &Terms,
        least: &Quantities,
        now: Option<Instant>,
    ) -> Option<Instant> {
        if terms.has_choices() {
            self.advance_all(at, now);
        }
        self.advance(at, least.units(), now)
    }

    /// The first choice that fits and passes nobody, or the refusal of the least.
    pub(super) fn reserve_now(
        &mut self,
        at: NodeId,
        least: &Quantities,
        terms: &mut Terms,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        let Some(pick) = self.pick_in_turn(at, least, terms, now) else {
            let refusal = self.must_queue(at, least, now);
            return refusal.map_or_else(|| self.refuse(at, least, now), Err);
        };
        Ok(self.hold_pick(at, pick, terms, now))
    }

    /// Holds the grant of a call at once.
    pub(super) fn hold_pick(
        &mut self,
        at: NodeId,
        pick: Pick,
        terms: &mut Terms,
        now: Option<Instant>,
    ) -> HoldKey {
        let key = self.begin_pick(at, pick);
        self.holds.get_mut(key).set_since(now);
        self.agree(key, terms);
        key
    }

    /// The grant of a call that must not pass waiters.
    pub(super) fn pick_in_turn(
        &self,
        at: NodeId,
        least: &Quantities,
        terms: &Terms,
        now: Option<Instant>,
    ) -> Option<Pick> {
        if !self.may_admit(at, now) {
            return None;
        }
        self.pick(at, least, terms, |units| self.queued_at(at, units).is_none())
    }

    /// The best that fits and that `passes` nobody.
    pub(super) fn pick(
        &self,
        at: NodeId,
        least: &Quantities,
        terms: &Terms,
        passes_nobody: impl Fn(&Units) -> bool,
    ) -> Option<Pick> {
        let free = self.nodes.free(at);
        let only = [Choice { most: *least, least: *least }];
        let choices = if terms.has_choices() { &terms.choices } else { &only[..] };
        choices.iter().zip(0..).find_map(|(of, choice)| {
            let mut grants = [of.best(&free)?, of.least].into_iter();
            let granted = grants.find(|granted| passes_nobody(granted.units()))?;
            Some(Pick { choice, granted })
        })
    }

    pub(super) fn begin_pick(&mut self, at: NodeId, pick: Pick) -> HoldKey {
        let key = self.holds.begin(&mut self.nodes, at, &pick.granted, Purpose::Hold);
        self.holds.get_mut(key).set_choice(pick.choice);
        key
    }

    /// The terms of a hold that is handed over.
    pub(super) fn agree(&mut self, key: HoldKey, terms: &mut Terms) {
        self.holds.get_mut(key).agree(terms.label.take(), terms.on_drop);
        self.begin_ttl(key, terms);
    }

    /// The time of a hold that is handed over begins now.
    #[inline]
    fn begin_ttl(&mut self, key: HoldKey, terms: &Terms) {
        if let Some(ttl) = terms.ttl {
            self.schedule_after(key, ttl);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(most: Amount, least: Amount, free: impl Fn(usize) -> u64) -> Option<Quantities> {
        let mut choice = Choice::exactly(&most);
        choice.cut_to(&least);
        choice.best(&std::array::from_fn(free))
    }

    /// Input, output and their total.
    fn family(granted: Quantities) -> [u64; 3] {
        [lane::INPUT_TOKENS, lane::OUTPUT_TOKENS, lane::TOKENS].map(|lane| granted.of(lane))
    }

    #[test]
    fn a_total_that_is_short_cuts_the_output_and_then_the_input() {
        let most = Amount::new().input_tokens(1_500).output_tokens(64_000);
        let least = Amount::new().output_tokens(1_000);
        let granted = |tokens: u64, least| {
            let free = move |axis| if axis == lane::TOKENS { tokens } else { u64::MAX };
            best(most, least, free).map(family)
        };
        assert_eq!(granted(31_391, least), Some([1_500, 29_891, 31_391]));
        assert_eq!(granted(2_500, least), Some([1_500, 1_000, 2_500]));
        assert_eq!(granted(2_499, least), None);
        assert_eq!(granted(u64::MAX, least), Some([1_500, 64_000, 65_500]));
        let both = least.input_tokens(500);
        assert_eq!(granted(1_600, both), Some([600, 1_000, 1_600]));
    }

    #[test]
    fn parts_that_add_up_to_more_than_can_be_counted_fit_into_their_total() {
        let most = Amount::new().input_tokens(15).output_tokens(u64::MAX);
        let granted = |tokens: u64, least| {
            let free = move |axis| if axis == lane::TOKENS { tokens } else { u64::MAX };
            best(most, least, free).map(family)
        };
        let least = Amount::new().output_tokens(0);
        let almost = u64::MAX - 15;
        assert_eq!(granted(almost, least), Some([15, almost - 15, almost]));
        assert_eq!(granted(20, least.input_tokens(0)), Some([15, 5, 20]));
        assert_eq!(granted(u64::MAX, least), Some([15, u64::MAX, u64::MAX]));
    }

    #[test]
    fn an_axis_that_the_least_does_not_name_is_not_cut_and_zero_is_named() {
        let most = Amount::new().tokens(10).requests(2);
        let free = |axis| if axis == lane::REQUESTS { 1 } else { 4 };
        assert_eq!(best(most, Amount::new().tokens(1), free), None);
        let granted = best(most, Amount::new().tokens(1).requests(0), free).unwrap();
        assert_eq!((granted.of(lane::TOKENS), granted.of(lane::REQUESTS)), (4, 1));
        assert_eq!(
            best(most, Amount::new().tokens(11).requests(0), free),
            None,
            "no more than most"
        );
    }

    #[test]
    fn a_total_beyond_its_parts_stays_so_far_beyond_them() {
        let most = Amount::new().tokens(100).input_tokens(10).output_tokens(20);
        let least = Amount::new().tokens(0).output_tokens(0);
        let of_output = |free: u64| {
            let free = move |axis| if axis == lane::OUTPUT_TOKENS { free } else { u64::MAX };
            best(most, least, free).map(family)
        };
        assert_eq!(of_output(5), Some([10, 5, 85]));
        assert_eq!(of_output(20), Some([10, 20, 100]));
    }
}
