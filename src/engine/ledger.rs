//! The balances of one pool: the cap invariant, and the only arithmetic on it. Pure.
//!
//! On every axis, after every function here (P1, P2):
//!
//! - `used + reserved + free = cap`, and so `used + reserved <= cap`: `used` is not stored but
//!   derived, so that no order of updates can break the equation;
//! - `overage > 0` implies `free = 0`: a unit that is freed or added pays the overage first;
//! - `spent = earlier periods + used + overage`.
//!
//! A cap that is [set](Ledger::set_cap) below `reserved` *falls*: it is as high as `reserved`, and
//! so nothing is free or used, until the holds that end have brought it down to its `goal`.
//!
//! An axis without a cap has one of `u64::MAX`. A spend beyond a `u64` is not counted: `overage`
//! and `spent` stay at `u64::MAX`.
//!
//! Arithmetic is checked. Where it is not, the line above shows what it cannot exceed.
//!
//! A call that asks goes over all axes without a branch on which are named: an axis that is not
//! named asks for zero, and to compare with zero is cheaper than to ask whether to. A settlement has
//! more to do on an axis, and passes over those that are not named.

use crate::types::axis::{Axis, AxisSet, NOTHING, Quantities, Units, all_lanes, each_lane};

/// The new state of units that a call takes from the free ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Take {
    /// They are used.
    Spend,
    /// They are reserved.
    Hold,
}

/// An axis, and the cap under which it is looked at: the one that was set, or one that may be set.
pub(super) type Under = (usize, u64);

/// `free` comes first: an admission compares nothing else.
#[derive(Debug, Clone)]
#[repr(C)]
pub(super) struct Ledger {
    free: Units,
    reserved: Units,
    cap: Units,
    /// The most that was used plus reserved before `free` last rose; see [`peak`](Ledger::peak).
    peak: Units,
    /// In a box, as few pools have ever been over their caps.
    excess: Option<Box<Excess>>,
    /// The units spent in earlier periods. In a box, as many pools have one period alone.
    earlier: Option<Box<Units>>,
    capped: AxisSet,
}

/// How far a pool is over its caps. It stays when all is paid off, so that a pool that is over its
/// caps now and then allocates once.
#[derive(Debug, Clone, Default)]
struct Excess {
    overage: Units,
    /// The goals of the caps that fall.
    falling: Quantities,
}

impl Ledger {
    /// Of no pool.
    pub(super) const NONE: Ledger = Ledger {
        free: NOTHING,
        reserved: NOTHING,
        cap: NOTHING,
        peak: NOTHING,
        excess: None,
        earlier: None,
        capped: AxisSet::EMPTY,
    };

    #[cfg(test)]
    pub(super) fn new(caps: &Quantities) -> Ledger {
        let mut ledger = Ledger::NONE;
        ledger.begin(caps);
        ledger
    }

    /// Begins anew, with these caps, where a pool that is gone has [left](Ledger::clear) its place.
    #[inline(always)]
    pub(super) fn begin(&mut self, caps: &Quantities) {
        self.capped = caps.axes();
        self.cap = [u64::MAX; Axis::COUNTED];
        self.capped.for_each(|axis| self.cap[axis] = caps.of(axis));
        self.free = self.cap;
        (self.reserved, self.peak) = (NOTHING, NOTHING);
    }

    /// Gives up all memory but its place.
    #[inline]
    pub(super) fn clear(&mut self) {
        (self.excess, self.earlier) = (None, None);
    }

    #[cfg(test)]
    pub(super) fn holds_no_memory(&self) -> bool {
        self.excess.is_none() && self.earlier.is_none()
    }

    /// **The cap rule.** Whether `asked` is free, on every axis.
    #[inline(always)]
    pub(super) fn fits(&self, asked: &Units) -> bool {
        all_lanes(|axis| asked[axis] <= self.free[axis])
    }

    /// The axes, of those that are `open`, on which less is free than asked.
    #[inline]
    pub(super) fn lacking(&self, asked: &Units, open: AxisSet) -> AxisSet {
        let lacks = |axis: usize| asked[axis] > self.free[axis];
        open.fold(AxisSet::EMPTY, |lacking, axis| lacking.with_if(axis, lacks(axis)))
    }

    /// Takes `asked`, on every axis or on none, if it [`fits`](Ledger::fits). Returns whether it
    /// did.
    #[inline(always)]
    pub(super) fn try_take(&mut self, asked: &Units, take: Take) -> bool {
        if !self.fits(asked) {
            return false;
        }
        each_lane(|axis| self.take(axis, asked[axis]));
        if take == Take::Hold {
            each_lane(|axis| self.promise(axis, asked[axis]));
        }
        true
    }

    /// Units that [fit](Ledger::fits) are free no more.
    #[inline(always)]
    fn take(&mut self, axis: usize, units: u64) {
        self.free[axis] = self.free[axis].checked_sub(units).expect("it fits");
    }

    /// Units that were [taken](Ledger::take) belong to a live owner.
    #[inline(always)]
    fn promise(&mut self, axis: usize, units: u64) {
        let reserved = self.reserved[axis].checked_add(units);
        self.reserved[axis] = reserved.expect("what is reserved is within the cap");
    }

    /// Takes back units that were [taken](Ledger::try_take) a moment ago. Nobody has seen them, not
    /// even the peak.
    pub(super) fn put_back(&mut self, units: &Units, take: Take) {
        for (axis, &units) in units.iter().enumerate() {
            let free = self.free[axis].checked_add(units);
            self.free[axis] = free.expect("what is put back was free before");
            if take == Take::Hold {
                let reserved = self.reserved[axis].checked_sub(units);
                self.reserved[axis] = reserved.expect("what is put back was reserved");
            }
        }
    }

    /// Promises units that [`fits`](Ledger::fits) has admitted to a live owner, on the axes that
    /// are `open`.
    #[inline]
    pub(super) fn hold(&mut self, units: &Units, open: AxisSet) {
        for axis in open {
            self.take(axis, units[axis]);
            self.promise(axis, units[axis]);
        }
    }

    /// Replaces `held` by the `actual` spend, less or more. A spend that happened: always booked
    /// (P2). Raises `overage` to the part that did not fit.
    #[inline(always)]
    pub(super) fn settle(&mut self, held: &Quantities, actual: &Quantities, overage: &mut Units) {
        for axis in held.axes().union(actual.axes()) {
            let (held, actual) = (held.units()[axis], actual.units()[axis]);
            self.reserved[axis] =
                self.reserved[axis].checked_sub(held).expect("what is settled was held");
            if actual < held {
                self.give(axis, held - actual);
            } else if actual > held {
                let beyond = actual - held;
                let taken = beyond.min(self.free[axis]);
                self.free[axis] -= taken;
                if beyond > taken {
                    self.owe(axis, beyond - taken);
                    overage[axis] = overage[axis].max(beyond - taken);
                }
            }
        }
        if self.excess.is_some() {
            self.fall();
        }
    }

    /// Takes back a spend that was booked, at most all of this period; the overage goes first.
    /// `kept` of it, which was used, goes to the owner of a share, who has it reserved again, and
    /// `most` is what may be unused again, that included. Returns the units taken back.
    pub(super) fn credit(&mut self, axis: usize, units: u64, kept: u64, most: u64) -> u64 {
        let used = self.used(axis).min(most);
        let used = used.checked_sub(kept).expect("a share regains what was used");
        self.peak[axis] = self.peak(axis);
        let paid = self.pay(axis, units - kept);
        let freed = (units - kept - paid).min(used);
        self.free[axis] =
            self.free[axis].checked_add(freed).expect("what is free is within the cap");
        self.reserved[axis] =
            self.reserved[axis].checked_add(kept).expect("what is reserved is within the cap");
        kept + paid + freed
    }

    /// The spend of this period becomes the figure given: used as far as it fits, overage beyond.
    pub(super) fn set_spent(&mut self, axis: usize, spent: u128) {
        self.peak[axis] = self.peak(axis);
        let most = self.cap[axis] - self.reserved[axis];
        let used = u64::try_from(spent).map_or(most, |spent| spent.min(most));
        self.free[axis] = most - used;
        self.set_overage(axis, u64::try_from(spent - u128::from(used)).unwrap_or(u64::MAX));
    }

    #[cold]
    fn owe(&mut self, axis: usize, units: u64) {
        self.set_overage(axis, self.overage(axis).saturating_add(units));
    }

    fn set_overage(&mut self, axis: usize, units: u64) {
        if units != self.overage(axis) {
            self.excess.get_or_insert_default().overage[axis] = units;
        }
    }

    /// Pays off the overage by at most so many units. Returns how many it took.
    #[inline(always)]
    fn pay(&mut self, axis: usize, units: u64) -> u64 {
        let Some(excess) = &mut self.excess else { return 0 };
        let paid = units.min(excess.overage[axis]);
        excess.overage[axis] -= paid;
        paid
    }

    /// Sets a cap, also below `used` or `reserved`. The part of `used` that does not fit under the
    /// new cap is overage. The cap falls no further than to `reserved`, and on from there as holds
    /// end.
    pub(super) fn set_cap(&mut self, axis: usize, goal: u64) {
        self.capped = self.capped.with_if(axis, true);
        let falls = self.place_cap(axis, goal);
        self.set_goal(axis, falls.then_some(goal));
    }

    /// Brings a cap as near to its `goal` as `reserved` allows. Returns whether it is not there
    /// yet.
    fn place_cap(&mut self, axis: usize, goal: u64) -> bool {
        let spent = self.owed(axis);
        self.peak[axis] = self.peak(axis);
        self.cap[axis] = goal.max(self.reserved[axis]);
        self.free[axis] = self.cap[axis] - self.reserved[axis];
        self.set_spent(axis, spent);
        self.cap[axis] > goal
    }

    fn set_goal(&mut self, axis: usize, goal: Option<u64>) {
        let others = self.falling().without(axis);
        let falling = goal.map_or(others, |goal| others.with(axis, goal));
        if falling != self.falling() {
            self.excess.get_or_insert_default().falling = falling;
        }
    }

    /// The goals of the caps that fall.
    fn falling(&self) -> Quantities {
        self.excess.as_ref().map_or(Quantities::NONE, |excess| excess.falling)
    }

    /// Lowers the caps that fall to the present `reserved`.
    #[cold]
    fn fall(&mut self) {
        let falling = self.falling();
        for axis in falling.axes() {
            if !self.place_cap(axis, falling.units()[axis]) {
                self.set_goal(axis, None);
            }
        }
    }

    /// How far a cap is above the one that was set.
    #[inline]
    fn surplus(&self, axis: usize) -> u64 {
        self.falling_to(axis).map_or(0, |goal| self.cap[axis] - goal)
    }

    /// The cap that was set, if the present one falls towards it.
    #[inline]
    pub(super) fn falling_to(&self, axis: usize) -> Option<u64> {
        self.excess.as_ref()?.falling.get(axis)
    }

    /// How much a window brings back in a period: the cap that was set, so that it does not matter
    /// when the holds end that keep a cap from falling.
    pub(super) fn rate(&self, axis: usize) -> Option<u64> {
        self.capped.contains(axis).then(|| self.goal(axis))
    }

    /// The cap that was set; `u64::MAX` of an axis that has none.
    #[inline]
    pub(super) fn goal(&self, axis: usize) -> u64 {
        self.falling_to(axis).unwrap_or(self.cap[axis])
    }

    /// The share of a carved pool: its `reserved` and its `free` units.
    #[inline]
    pub(super) fn share(&self, axis: usize) -> u64 {
        self.cap[axis] - self.used(axis)
    }

    /// Takes back units that are no longer reserved, or new ones; they pay the overage first.
    #[inline(always)]
    fn give(&mut self, axis: usize, units: u64) {
        self.peak[axis] = self.peak(axis);
        let paid = self.pay(axis, units);
        self.free[axis] =
            self.free[axis].checked_add(units - paid).expect("what is free is within the cap");
    }

    /// Raises the cap, at most by the [`headroom`](Ledger::headroom).
    pub(super) fn raise(&mut self, axis: usize, units: u64) {
        let goal = self.goal(axis).checked_add(units);
        self.set_cap(axis, goal.expect("a cap is raised within its headroom"));
    }

    /// Lowers the cap by `free` units.
    pub(super) fn lower(&mut self, axis: usize, units: u64) {
        self.free[axis] =
            self.free[axis].checked_sub(units).expect("a cap is lowered by what is free");
        self.cap[axis] = self.cap[axis].checked_sub(units).expect("what is free is within the cap");
    }

    /// Gives up all `free` units. Returns it.
    pub(super) fn surrender(&mut self, axis: usize) -> u64 {
        let free = self.free[axis];
        self.lower(axis, free);
        free
    }

    /// Starts a new period: nothing is used. The caps stay, but those of `shares` become the rest
    /// of the share, so that no budget is created.
    pub(super) fn reset(&mut self, shares: AxisSet) {
        for axis in 0..Axis::COUNTED {
            let used = self.used(axis);
            self.pass(axis, used.saturating_add(self.overage(axis)));
            match shares.contains(axis) {
                true => self.cap[axis] -= used,
                false => self.free[axis] += used,
            }
            self.set_overage(axis, 0);
            self.peak[axis] = 0;
        }
    }

    /// So many of the units spent are of an earlier period from now on.
    #[inline]
    fn pass(&mut self, axis: usize, spent: u64) {
        if spent > 0 {
            let earlier = self.earlier.get_or_insert_default();
            earlier[axis] = earlier[axis].saturating_add(spent);
        }
    }

    /// The axes that have a cap.
    pub(super) fn capped(&self) -> AxisSet {
        self.capped
    }

    /// The axes that have a cap or were ever used. All figures of the others are zero.
    pub(super) fn in_play(&self) -> AxisSet {
        let mut axes = self.capped;
        each_lane(|axis| {
            axes = axes.with_if(axis, self.free[axis] != self.cap[axis] || self.peak[axis] > 0)
        });
        match &self.earlier {
            None => axes,
            Some(earlier) => {
                (0..Axis::COUNTED).fold(axes, |axes, axis| axes.with_if(axis, earlier[axis] > 0))
            }
        }
    }

    /// The cap of an axis, if it has one.
    pub(super) fn cap(&self, axis: usize) -> Option<u64> {
        self.capped.contains(axis).then(|| self.cap[axis])
    }

    /// How far a cap can rise before it no longer fits into a `u64`.
    pub(super) fn headroom(&self, axis: usize) -> u64 {
        u64::MAX - self.goal(axis)
    }

    #[inline]
    pub(super) fn free(&self, axis: usize) -> u64 {
        self.free[axis]
    }

    pub(super) fn reserved(&self, axis: usize) -> u64 {
        self.reserved[axis]
    }

    #[inline]
    pub(super) fn overage(&self, axis: usize) -> u64 {
        self.excess.as_ref().map_or(0, |excess| excess.overage[axis])
    }

    #[inline]
    pub(super) fn used(&self, axis: usize) -> u64 {
        self.taken(axis).checked_sub(self.reserved[axis]).expect("what is reserved is taken")
    }

    /// Used plus reserved.
    #[inline]
    fn taken(&self, axis: usize) -> u64 {
        self.cap[axis].checked_sub(self.free[axis]).expect("what is free is within the cap")
    }

    /// The most that was used plus reserved in this period. It only falls when `free` rises, and is
    /// marked just before, so that what is spent or held need not look at it.
    #[inline(always)]
    pub(super) fn peak(&self, axis: usize) -> u64 {
        self.peak[axis].max(self.taken(axis))
    }

    #[inline]
    pub(super) fn spent(&self, axis: usize) -> u64 {
        let earlier = self.earlier.as_ref().map_or(0, |earlier| earlier[axis]);
        earlier.saturating_add(self.used(axis)).saturating_add(self.overage(axis))
    }

    /// The spend of this period that has not come back yet: time can bring it back.
    pub(super) fn owed(&self, axis: usize) -> u128 {
        u128::from(self.used(axis)) + u128::from(self.overage(axis))
    }

    /// Whether time can bring anything back.
    #[inline]
    pub(super) fn is_owed(&self, axis: usize) -> bool {
        self.used(axis) > 0 || self.overage(axis) > 0
    }

    /// Brings back spent units, at most those [owed](Ledger::owed); they pay the overage first.
    #[inline]
    pub(super) fn refill(&mut self, axis: usize, units: u64) {
        let paid = self.pay(axis, units);
        self.bring_back(axis, paid, (units - paid).min(self.used(axis)));
    }

    /// [`refill`](Ledger::refill) by more than a `u64` may hold.
    pub(super) fn refill_much(&mut self, axis: usize, units: u128) {
        let at_most =
            |units: u128, most: u64| u64::try_from(units).map_or(most, |units| units.min(most));
        let paid = self.pay(axis, at_most(units, u64::MAX));
        self.bring_back(axis, paid, at_most(units - u128::from(paid), self.used(axis)));
    }

    /// Starts a new period with the `overage` of the one before, as far as the cap allows, and so
    /// on for `turns` turns: each pays off as much as fits beside `reserved`.
    pub(super) fn carry_over(&mut self, turns: u128) {
        for axis in 0..Axis::COUNTED {
            let room = u128::from(self.goal(axis).saturating_sub(self.reserved[axis]));
            let paid = turns.saturating_sub(1).saturating_mul(room);
            self.refill_much(axis, paid.saturating_add(u128::from(self.used(axis))));
            self.peak[axis] = 0;
        }
    }

    /// The number of turns after the next one that [bring back](Ledger::carry_over) `units`, while
    /// `reserved` stays.
    pub(super) fn turns_to_pay(
        &self,
        (axis, goal): Under,
        missing: u128,
        reserved: u64,
    ) -> Option<u128> {
        let (owed, room) = (self.owed(axis), u128::from(goal.saturating_sub(reserved)));
        // The next turn leaves what does not fit.
        let left = owed.saturating_sub(room);
        let beyond = left.saturating_sub(owed.checked_sub(missing)?);
        match room {
            _ if beyond == 0 => Some(0),
            0 => None,
            room => Some(beyond.div_ceil(room)),
        }
    }

    /// Of the spend of this period so much is paid off now, and so much is to be free again.
    #[inline]
    fn bring_back(&mut self, axis: usize, paid: u64, freed: u64) {
        self.peak[axis] = self.peak(axis);
        self.free[axis] =
            self.free[axis].checked_add(freed).expect("what is free is within the cap");
        self.pass(axis, paid.saturating_add(freed));
    }

    /// The units that must come free before `asked` fits. A unit that comes free lowers a cap that
    /// falls, and pays the overage first.
    pub(super) fn missing(&self, axis: usize, asked: u64) -> u128 {
        self.missing_under(self.under(axis), asked)
    }

    /// [`missing`](Ledger::missing), under a cap that may be set.
    pub(super) fn missing_under(&self, (axis, goal): Under, asked: u64) -> u128 {
        let taken = self.owed(axis) + u128::from(self.reserved[axis]);
        // Nothing fits whatever is owed.
        if asked == 0 { 0 } else { (taken + u128::from(asked)).saturating_sub(goal.into()) }
    }

    /// An axis, under the cap that was set.
    pub(super) fn under(&self, axis: usize) -> Under {
        (axis, self.goal(axis))
    }

    /// Whether `asked` fits once all reserved units were given back.
    #[inline]
    pub(super) fn fits_at_best(&self, axis: usize, asked: u64) -> bool {
        match asked.checked_sub(self.free[axis]) {
            None | Some(0) => true,
            Some(beyond) => beyond
                .checked_add(self.overage(axis))
                .is_some_and(|missing| missing <= self.reserved[axis] - self.surplus(axis)),
        }
    }

    /// The units that are still missing once all reserved ones were given back, under a cap that may
    /// be set.
    pub(super) fn missing_at_best(&self, under: Under, asked: u64) -> u128 {
        self.missing_under(under, asked).saturating_sub(u128::from(self.reserved[under.0]))
    }
}

#[cfg(any(test, debug_assertions))]
impl Ledger {
    /// The equations at the head of this file, on every axis.
    pub(super) fn check_invariants(&self) {
        for axis in 0..Axis::COUNTED {
            let [free, reserved, cap, peak] =
                [&self.free, &self.reserved, &self.cap, &self.peak].map(|of| of[axis]);
            let overage = self.overage(axis);
            let taken = free.checked_add(reserved).is_some_and(|all| all <= cap);
            assert!(taken, "P1: {reserved} reserved and {free} free of {cap}");
            assert!(overage == 0 || free == 0, "P2: {overage} owed while {free} are free");
            assert!(self.capped.contains(axis) || cap == u64::MAX, "no cap is the largest");
            assert!(peak <= self.peak(axis), "the peak never falls");
            let is_any = self.spent(axis) > 0 || self.peak(axis) > 0;
            assert!(self.in_play().contains(axis) || !is_any, "what is not in play is zero");
            if let Some(goal) = self.falling_to(axis) {
                assert!(goal < cap && cap == reserved, "a cap falls as far as it can");
            }
        }
    }
}

#[cfg(test)]
#[path = "../tests/units/ledger.rs"]
mod tests;
