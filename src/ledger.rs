//! One pool's balances: the cap invariant, and the only arithmetic on it. Pure.
//!
//! On every axis, after every function here (P1, P2):
//!
//! - `used + reserved + free = cap`, and so `used + reserved <= cap`: `used` is not stored but derived, so that no order of
//!   updates can break the equation;
//! - `overage > 0` implies `free = 0`: what is freed or added pays the overage first;
//! - `spent = earlier periods + used + overage`.
//!
//! An axis without a cap has one of `u64::MAX`. What a fact adds beyond what a `u64` can count is not counted: `overage`
//! and `spent` stay at `u64::MAX`.

use crate::axis::{Axis, AxisSet, Quantities, Units};
use crate::error::Outlook;

#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    lines: [Line; Axis::COUNTED],
    capped: AxisSet,
}

/// The balance of one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    cap: u64,
    free: u64,
    reserved: u64,
    overage: u64,
    peak: u64,
    /// Spent in earlier periods.
    earlier: u64,
}

/// What a settlement did to one axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settled {
    /// By how much `used` grew: what was spent under the cap, and old overage that could be paid.
    pub(crate) used: u64,
    /// What did not fit.
    pub(crate) overage: u64,
}

impl Ledger {
    pub(crate) fn new(caps: &Quantities) -> Ledger {
        let capped = caps.axes();
        let line = |axis| Line::new(if capped.contains(axis) { caps.units()[axis] } else { u64::MAX });
        Ledger { lines: std::array::from_fn(line), capped }
    }

    /// **The cap rule.** Whether what is asked on `axes` is free.
    #[inline]
    pub(crate) fn fits(&self, axes: AxisSet, asked: &Units) -> bool {
        axes.into_iter().all(|axis| asked[axis] <= self.lines[axis].free)
    }

    /// The cap of an axis, if it has one.
    pub(crate) fn cap(&self, axis: usize) -> Option<u64> {
        self.capped.contains(axis).then(|| self.lines[axis].cap)
    }

    pub(crate) fn capped(&self) -> AxisSet {
        self.capped
    }

    #[inline]
    pub(crate) fn line(&self, axis: usize) -> &Line {
        &self.lines[axis]
    }

    #[inline]
    pub(crate) fn line_mut(&mut self, axis: usize) -> &mut Line {
        &mut self.lines[axis]
    }
}

impl Line {
    fn new(cap: u64) -> Line {
        Line { cap, free: cap, reserved: 0, overage: 0, peak: 0, earlier: 0 }
    }

    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    pub(crate) fn reserved(&self) -> u64 {
        self.reserved
    }

    pub(crate) fn overage(&self) -> u64 {
        self.overage
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    pub(crate) fn used(&self) -> u64 {
        self.cap - self.free - self.reserved
    }

    pub(crate) fn spent(&self) -> u64 {
        self.earlier.saturating_add(self.used()).saturating_add(self.overage)
    }

    /// How far the cap can rise before it no longer fits into a `u64`.
    pub(crate) fn headroom(&self) -> u64 {
        u64::MAX - self.cap
    }

    /// What to expect of asking for more than is free: everything reserved may still be given back, and would pay the
    /// overage first.
    pub(crate) fn outlook(&self, asked: u64) -> Outlook {
        let at_best = self.free.saturating_add(self.reserved).saturating_sub(self.overage);
        if asked > at_best { Outlook::Never } else { Outlook::AfterRelease }
    }

    /// Promises what [`fits`](Ledger::fits) to a live owner.
    #[inline]
    pub(crate) fn hold(&mut self, units: u64) {
        self.free = self.free.checked_sub(units).expect("what is held fits");
        self.reserved += units;
        self.mark_peak();
    }

    /// Replaces what is held by what was really spent, which may be less or more. A fact: always booked (P2).
    #[inline]
    pub(crate) fn settle(&mut self, held: u64, actual: u64) -> Settled {
        self.reserved = self.reserved.checked_sub(held).expect("what is settled was held");
        let paid = self.give(held.saturating_sub(actual));
        let beyond = actual.saturating_sub(held);
        let taken = beyond.min(self.free);
        self.free -= taken;
        let overage = beyond - taken;
        self.overage = self.overage.saturating_add(overage);
        self.mark_peak();
        Settled { used: actual - overage + paid, overage }
    }

    /// Takes back units that are no longer reserved, or new ones; they pay the overage first. Returns what they paid.
    #[inline]
    fn give(&mut self, units: u64) -> u64 {
        let paid = units.min(self.overage);
        self.overage -= paid;
        self.free += units - paid;
        paid
    }

    /// Raises the cap, at most by the [`headroom`](Line::headroom). Returns how much of it paid overage.
    pub(crate) fn raise(&mut self, units: u64) -> u64 {
        self.cap = self.cap.checked_add(units).expect("a cap is raised within its headroom");
        let paid = self.give(units);
        self.mark_peak();
        paid
    }

    /// Lowers the cap by what is free.
    pub(crate) fn lower(&mut self, units: u64) {
        self.free = self.free.checked_sub(units).expect("a cap is lowered by what is free");
        self.cap -= units;
    }

    /// Gives up all that is free. Returns it.
    pub(crate) fn surrender(&mut self) -> u64 {
        let free = self.free;
        self.lower(free);
        free
    }

    /// Starts a new period: nothing used, the cap as it was.
    pub(crate) fn reset(&mut self) {
        self.earlier = self.spent();
        self.free = self.cap - self.reserved;
        self.overage = 0;
        self.peak = self.reserved;
    }

    /// Starts a new period of a share: the cap becomes what is left of it, so that no budget is created.
    pub(crate) fn reset_share(&mut self) {
        self.earlier = self.spent();
        self.cap = self.free + self.reserved;
        self.overage = 0;
        self.peak = self.reserved;
    }

    /// The peak is taken from the values just written.
    #[inline]
    fn mark_peak(&mut self) {
        self.peak = self.peak.max(self.cap - self.free);
    }
}
