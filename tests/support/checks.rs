//! What is looked at between the steps: all that can be seen is as in the model, and what is
//! promised holds in what is seen.

use std::collections::BTreeMap;

use budget_pool::BudgetPool;

use super::language::{LANES, MAX, Units, ZERO, each, plus, with_in_flight};
use super::oracle::{PoolId, Reads};
use super::seen::{AxisView, HolderView, LimitView, View, held, holder, units_of};
use super::{Both, Closing, Waiter, heard, name};

/// If those who wait are reminded so often after one step, they wake themselves.
const MANY_REMINDERS: usize = 1_000;

impl Both {
    /// All that can be seen is as in the model, and the promises hold in what is seen.
    pub(super) fn check(&mut self, at: usize) -> Result<(), String> {
        self.is_looking = true;
        let checked = self.look_at_all(at);
        self.is_looking = false;
        self.check_invariants();
        checked
    }

    fn look_at_all(&mut self, at: usize) -> Result<(), String> {
        let reached = self.reached();
        let Some((id, pool)) = reached.get(at.checked_rem(reached.len()).unwrap_or(0)) else {
            return Ok(());
        };
        let (id, now) = (*id, self.now());

        // One of them by all that it shows by itself, and the whole tree, or what is left of it
        // that can be reached.
        let expected = self.model.deadline(id).map(|(_, deadline)| self.instant(deadline.at()));
        same!("name", pool.name(), name(id));
        same!("is_closed", self.glance(false, || pool.is_closed())?, self.model.is_closed(id));
        let time_left = self.glance(expected.is_some(), || pool.time_left())?;
        same!("time_left", time_left, self.model.time_left(id, now));
        let deadline = pool.deadline().and_then(|budget| budget.deadline());
        same!("deadline", deadline, expected);
        for hold in 0..self.holds.len() {
            self.check_hold(hold)?;
        }
        let snapshot = self.call(Reads::Tells(id), || pool.snapshot())?;
        let snapshot = View::from(&snapshot);
        self.model.learn_peaks(std::slice::from_ref(&snapshot));
        same!("snapshot", snapshot, self.model.view(id, id));
        self.check_holders(id, pool)?;
        let root = reached.iter().find(|(id, _)| *id == 0);
        for (id, pool) in root.map_or(&*reached, std::slice::from_ref) {
            self.check_tree(*id, pool)?;
            self.check_holders(*id, pool)?;
        }
        self.check_limits(&reached)?;
        self.check_wakes(true)
    }

    /// The limits of each of these pools, once for all handles of it.
    pub(super) fn check_limits(&mut self, pools: &[(PoolId, BudgetPool)]) -> Result<(), String> {
        let pools: BTreeMap<PoolId, &BudgetPool> =
            pools.iter().map(|(id, pool)| (*id, pool)).collect();
        let mut seen = Vec::new();
        for (&id, pool) in &pools {
            let limits = self.call(Reads::Tells(id), || pool.limits())?;
            seen.push((id, limits.iter().map(LimitView::from).collect::<Vec<_>>()));
        }
        // After all calls: the model sums its balances once for all pools.
        let balances = self.model.balances();
        for (id, limits) in seen {
            same!(format!("the limits of {}", name(id)), limits, self.model.limits(&balances, id));
            if limits.iter().any(|limit| limit.more_in.is_some()) {
                self.meet("time frees more under a limit");
            }
        }
        Ok(())
    }

    fn check_hold(&mut self, index: usize) -> Result<(), String> {
        let holds = std::mem::take(&mut self.holds);
        let (id, hold) = &holds[index];
        let expected = self.model.hold_time_left(*id, self.now());
        same!("time_left", self.glance(expected.is_some(), || hold.time_left())?, expected);
        let tells = Reads::Tells(self.model.holds[id].pool);
        let amount = self.call(tells, || hold.amount())?;
        match self.model.amount(*id) {
            Some(expected) => same!("amount", held(amount), expected),
            None => ensure!(amount.is_zero(), "an expired hold has {amount}"),
        }
        let choice = self.glance(false, || hold.choice())?;
        same!("choice", choice, self.model.holds[id].choice);
        let is_expired = self.call(tells, || hold.is_expired())?;
        same!("is_expired", is_expired, !self.model.holds[id].is_live());
        let expected = self.model.hold_time_left(*id, self.now());
        same!("time_left", self.glance(expected.is_some(), || hold.time_left())?, expected);
        self.holds = holds;
        Ok(())
    }

    pub(super) fn check_leases(&self) -> Result<(), String> {
        for (id, lease) in &self.leases {
            let remaining = self.glance(false, || lease.remaining())?;
            same!(
                format!("what is left of lease {id}"),
                units_of(remaining),
                self.model.leases[id].left
            );
        }
        Ok(())
    }

    /// Whoever was told something is woken by the call that told it, once, and nobody else but to
    /// look again: where time will bring something earlier than it knows. One that is reminded
    /// looks again at once: then what it was that reminded others, too, may be over.
    pub(super) fn check_wakes(&mut self, mut was_timed: bool) -> Result<(), String> {
        for _ in 0..MANY_REMINDERS {
            was_timed |= self.model.may_be_timed();
            self.collect_watches()?;
            let mut reminded = None;
            for (index, Waiter { id, bell, .. }) in self.waiters.iter().enumerate() {
                let Some(bell) = bell else { continue };
                match (heard(bell), self.model.has_ended(*id)) {
                    ((1, false), false) if was_timed => reminded = Some(index),
                    (heard, has_ended) => {
                        let expected = (usize::from(has_ended), !has_ended);
                        same!(
                            format!("wakes of wait {id}, and whether its waker is kept"),
                            heard,
                            expected
                        );
                    }
                }
            }
            for Closing { pool, bell, .. } in &self.closings {
                let is_closed = self.model.is_closed(*pool);
                same!(
                    format!("wakes by the close of p{pool}"),
                    heard(bell),
                    (usize::from(is_closed), !is_closed)
                );
            }
            self.check_runs()?;
            self.collect_closings()?;
            self.collect_runs()?;
            let Some(index) = reminded else { return Ok(()) };
            let waiter = Waiter { bell: None, ..self.waiters.swap_remove(index) };
            self.poll(waiter, true)?;
        }
        Err("they wake themselves".to_owned())
    }

    fn check_tree(&mut self, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let snapshot = self.call(Reads::Surveys(id), || pool.snapshot_tree())?;
        let mut real: Vec<View> = snapshot.iter().map(View::from).collect();
        self.check_promises(&real)?;
        let holders = self.call(Reads::Tells(id), || pool.holders())?;
        self.check_owners(&real, &holders.iter().map(holder).collect::<Vec<_>>())?;

        // Parents come before their children, so in the order of depths on any way down; siblings
        // in any order. A joint pool comes behind the parent below which it is listed.
        let asked = name(id);
        same!("the first of a tree", real.first().map(|view| &view.name), Some(&asked));
        let position = |pool: PoolId| real.iter().position(|view| view.name == name(pool));
        for child in self.model.pools.keys() {
            let parent = self.model.parent_below(*child, id).map(position);
            if let (Some(child), Some(Some(parent))) = (position(*child), parent) {
                ensure!(parent < child, "a child comes before its parent: {real:?}");
            }
        }

        self.model.learn_peaks(&real);
        let mut model = self.model.tree(id);
        let in_order = |view: &View| view.name.clone();
        real.sort_by_key(in_order);
        model.sort_by_key(in_order);
        for (real, model) in real.iter().zip(&model) {
            same!("a pool of the tree", real, model);
        }
        same!("the tree", real, model);
        Ok(())
    }

    /// What is promised of the figures of each pool, whatever was done.
    fn check_promises(&mut self, tree: &[View]) -> Result<(), String> {
        for view in tree {
            let before = self
                .spent
                .insert(view.name.clone(), each(|axis| view.axes[axis].spent))
                .unwrap_or(ZERO);
            for (axis, AxisView { cap, used, reserved, overage, spent, .. }) in
                view.axes.iter().enumerate()
            {
                let (taken, cap) = (used + reserved, cap.unwrap_or(MAX));
                ensure!(taken <= cap, "P1: more than the cap is used and reserved: {view:?}");
                ensure!(*overage == 0 || taken == cap, "P2: overage beside room: {view:?}");
                ensure!(
                    (used + overage).min(MAX) <= *spent,
                    "P2: what is owed was never spent: {view:?}"
                );
                ensure!(before[axis] <= *spent, "P2: what was spent is less than it was: {view:?}");
            }
            let [committed, released, expired] = view.ended;
            same!(
                format!("P3: the reservations of {} that live or have ended", view.name),
                view.counts[2] + committed + released + expired,
                self.model.begun(&view.name)
            );
        }
        let whole = tree.first().is_some_and(|view| view.name == name(0));
        if let Some((home, asked)) = self.model.first_of_all().filter(|_| whole) {
            let home = tree.iter().find(|view| view.name == name(home)).expect("it keeps its pool");
            let counts = |axis: &AxisView, asked| {
                axis.cap.is_some() || axis.used + axis.reserved + asked <= MAX
            };
            let fits = |axis: usize| {
                let has_room = home.axes[axis].available.is_none_or(|room| asked[axis] <= room);
                has_room && tree.iter().all(|view| counts(&view.axes[axis], asked[axis]))
            };
            ensure!(
                home.paused || !(0..LANES).all(fits),
                "P6: the first of all waits for what there is: {home:?}"
            );
        }
        Ok(())
    }

    /// P3: every unit that is reserved has one owner, in its pool or in one below: a hold or what
    /// was granted to a wait, a lease, or a carved share. All of it is seen but which shares
    /// are carved.
    fn check_owners(&self, tree: &[View], holders: &[HolderView]) -> Result<(), String> {
        let seen: BTreeMap<PoolId, &View> =
            tree.iter().map(|view| (self.model.named(&view.name), view)).collect();
        let mut owned: BTreeMap<PoolId, Units> = seen.keys().map(|id| (*id, ZERO)).collect();
        let mut charge = |at: PoolId, units: &Units| {
            for (id, asked) in self.model.asked_on_path(at, units) {
                if let Some(sum) = owned.get_mut(&id) {
                    *sum = plus(sum, &asked);
                }
            }
        };
        let mut reservations: BTreeMap<PoolId, u128> = BTreeMap::new();
        // A child is always behind its parents.
        for (&id, view) in seen.iter().rev() {
            let below = reservations.iter().filter(|(below, _)| self.model.is_below(**below, id));
            let own = u128::from(view.counts[2]) - below.map(|(_, own)| own).sum::<u128>();
            reservations.insert(id, own);
            let held =
                || holders.iter().filter(|holder| holder.1 == view.name).map(|(held, ..)| held);
            let units = each(|axis| held().map(|(units, _)| units[axis]).sum());
            // A reservation that does not name what it has in flight has one.
            let named = || held().filter_map(|(_, slots)| *slots);
            let slots = own - named().count() as u128 + named().sum::<u128>();
            charge(id, &with_in_flight(units, slots));
            let carved = self.model.carved(&view.name);
            let share = |axis: &AxisView| axis.cap.expect("what is carved is capped") - axis.used;
            let share = each(|axis| if carved[axis] { share(&view.axes[axis]) } else { 0 });
            if let Some(parent) = self.model.pools[&id].parents.first().filter(|_| share != ZERO) {
                charge(*parent, &share);
            }
        }
        for (id, view) in seen {
            same!(
                format!("P3: what is reserved in {}, and its owners", view.name),
                each(|axis| view.axes[axis].reserved),
                owned[&id]
            );
        }
        Ok(())
    }

    fn check_holders(&mut self, id: PoolId, pool: &BudgetPool) -> Result<(), String> {
        let holders = self.call(Reads::Tells(id), || pool.holders())?;
        let mut real: Vec<HolderView> = holders.iter().map(holder).collect();
        ensure!(
            real.is_sorted_by(|a, b| a.0.0 >= b.0.0),
            "holders are not the largest first: {real:?}"
        );
        let mut model = self.model.holders(id);
        real.sort();
        model.sort();
        same!("holders", real, model);
        Ok(())
    }
}
