//! Watches: the language of them, and what the model says of each.
//!
//! After each call the model says which watches are met, and what each is told: a level with the
//! balances of that instant, a want with what is missing. Whoever is met is woken by that call, once,
//! and nobody else.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use budget_pool::{BudgetPool, Level, Reached, Wants};

use super::language::{AXES, Figures, IN_FLIGHT, LANES, MAX, Units, Want, ZERO, each, plus};
use super::oracle::{Model, PoolId, Reads, When};
use super::seen::{AxisView, View, units_of};
use super::{Bell, Both, heard};

const MOST_WATCHES: usize = 4;

/// One that watches a pool.
pub(super) struct Watched {
    pool: PoolId,
    watch: Watch,
    bell: Arc<Bell>,
    /// What it is told when it is polled, if it is met.
    met: Option<Told>,
}

enum Watch {
    Reached(Pin<Box<Reached>>, Goal),
    Wants(Pin<Box<Wants>>),
}

/// What is told.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Reached(Box<View>),
    Wants(Wanted),
}

/// What a pool is short of, and whether less is free than there should be.
pub(super) type Wanted = (Units, bool);

/// A level, in the words of the contract.
#[derive(Debug, Clone, Copy)]
struct Goal {
    mark: Mark,
    settled: bool,
}

#[derive(Debug, Clone, Copy)]
enum Mark {
    Percent(usize, u32),
    Amount(Want),
}

impl Goal {
    fn level(&self) -> Level {
        let level = match self.mark {
            Mark::Percent(axis, percent) => Level::percent(AXES[axis], percent),
            Mark::Amount(want) => Level::amount(want.amount()),
        };
        if self.settled { level.settled() } else { level }
    }

    fn is_reached(&self, view: &View) -> bool {
        let counted = |axis: usize| {
            let AxisView { used, overage, reserved, .. } = view.axes[axis];
            used + overage + if self.settled { 0 } else { reserved }
        };
        match self.mark {
            Mark::Percent(axis, percent) => {
                let cap = view.axes[axis].falling_to.or(view.axes[axis].cap);
                cap.is_some_and(|cap| counted(axis) * 100 >= cap * u128::from(percent))
            }
            Mark::Amount(want) => {
                let names = |axis: usize| match axis {
                    IN_FLIGHT => want.slots().is_some(),
                    _ => want.names(axis),
                };
                let units = want.with_slots();
                (0..LANES).all(|axis| !names(axis) || counted(axis) >= units[axis])
            }
        }
    }
}

impl Watch {
    fn poll(&mut self, bell: &Arc<Bell>) -> Poll<Told> {
        let waker = Waker::from(Arc::clone(bell));
        let context = &mut Context::from_waker(&waker);
        match self {
            Watch::Reached(reached, _) => reached
                .as_mut()
                .poll(context)
                .map(|snapshot| Told::Reached(Box::new(View::from(&snapshot)))),
            Watch::Wants(wants) => wants
                .as_mut()
                .poll(context)
                .map(|want| Told::Wants((units_of(want.missing), want.low))),
        }
    }
}

/// What was to be seen of a pool before other pools went.
#[derive(Debug)]
pub(super) struct Before {
    pub(super) id: PoolId,
    pub(super) view: View,
    pub(super) want: Option<Wanted>,
}

impl Before {
    fn tells(&self, watch: &Watch) -> Option<Told> {
        match watch {
            Watch::Reached(_, goal) => {
                goal.is_reached(&self.view).then(|| Told::Reached(Box::new(self.view.clone())))
            }
            Watch::Wants(_) => self.want.map(Told::Wants),
        }
    }
}

/// What the model says of a watch.
impl Model {
    /// What a watch of a pool would be told, as the balances stand.
    fn seems_met(&self, pool: PoolId, watch: &Watch) -> Option<Told> {
        match watch {
            Watch::Reached(_, goal) => {
                let view = self.view(pool, pool);
                goal.is_reached(&view).then(|| Told::Reached(Box::new(view)))
            }
            Watch::Wants(_) => self.want(pool).map(Told::Wants),
        }
    }

    /// The same, when all is done that is due by the latest instant seen: that is done before
    /// anything is told.
    fn is_met(&mut self, pool: PoolId, watch: &Watch) -> Option<Told> {
        let mut before = self.before.iter().flatten().filter(|before| before.id == pool);
        if let Some(told) = before.find_map(|before| before.tells(watch)) {
            return Some(told);
        }
        self.seems_met(pool, watch)?;
        self.bring_all_up(pool);
        self.seems_met(pool, watch)
    }

    /// What a pool is short of: what is to be free at least, what the first that is blocked here lacks
    /// that only a higher cap gives, and the same of those that the last call refused.
    pub(super) fn want(&self, pool: PoolId) -> Option<Wanted> {
        if self.is_closed(pool) {
            return None;
        }
        let lacks = self.lacks_of(pool);
        let missing = each(|axis| lacks.iter().map(|lack| lack[axis]).max().unwrap_or(0));
        (missing != ZERO).then_some((missing, lacks[0] != ZERO))
    }

    /// Of what is to be free, of one that waits, and of a call that was refused.
    fn lacks_of(&self, pool: PoolId) -> [Units; 3] {
        let low = self.missing(pool, &self.pools[&pool].low);
        let blocked = self.blocked_at(pool).into_iter();
        let blocked = blocked.map(|asked| self.unfunded(pool, &asked)).find(|lack| *lack != ZERO);
        let refused = self.lacks.iter().filter(|(at, _)| *at == pool).map(|(_, lack)| *lack);
        let refused = refused.fold(ZERO, |a, b| each(|axis| a[axis].max(b[axis])));
        [low, blocked.unwrap_or(ZERO), refused]
    }

    fn meet_causes(&mut self, pool: PoolId) {
        let causes = [
            "a want of what is low is told",
            "a want of one that waits is told",
            "a want of a refused call is told",
        ];
        for (lack, cause) in self.lacks_of(pool).into_iter().zip(causes) {
            if lack != ZERO {
                self.meet(cause);
            }
        }
    }

    /// What must come free before so much fits.
    fn missing(&self, pool: PoolId, asked: &Units) -> Units {
        self.balances()[&pool].missing(&self.pools[&pool], asked)
    }

    /// The same, where only a higher cap makes room.
    pub(super) fn unfunded(&self, pool: PoolId, asked: &Units) -> Units {
        let missing = self.missing(pool, asked);
        let short = self.short(&self.balances()[&pool], pool, asked, self.deadline(pool));
        let needs_funds = |axis: usize| {
            short.iter().any(|lack| lack.axis == AXES[axis] && lack.outlook == When::AfterFunding)
        };
        each(|axis| if needs_funds(axis) { missing[axis] } else { 0 })
    }
}

impl Both {
    /// A watch of a level: a percentage, or an amount around what is spoken for.
    pub(super) fn watch_level(
        &mut self,
        id: PoolId,
        pool: BudgetPool,
        level: &Figures,
        percent: u8,
        settled: bool,
    ) -> Result<(), String> {
        let (taken, free) = (self.model.near_taken(id), self.model.near(id));
        let near: Units = plus(&taken, &each(|axis| free[axis].min(MAX / 2) / 2));
        let mark = match percent.checked_sub(100) {
            Some(percent) => Mark::Percent(usize::from(level.axes) % LANES, u32::from(percent)),
            None => Mark::Amount(Want::asked(level, &near)),
        };
        let goal = Goal { mark, settled };
        self.log(format!("p{id}.reached({:?})", goal.level()));
        let watch = Watch::Reached(Box::pin(pool.reached(goal.level())), goal);
        drop(pool);
        self.watch(id, watch)
    }

    pub(super) fn watch_wants(&mut self, id: PoolId, pool: BudgetPool) -> Result<(), String> {
        self.log(format!("p{id}.wants()"));
        let watch = Watch::Wants(Box::pin(pool.wants()));
        drop(pool);
        self.watch(id, watch)
    }

    /// The first poll of a watch, if there is a place for it.
    fn watch(&mut self, pool: PoolId, mut watch: Watch) -> Result<(), String> {
        if self.watches.len() >= MOST_WATCHES {
            return Ok(());
        }
        let bell = Arc::<Bell>::default();
        let poll = self.call(Reads::Tells(pool), || watch.poll(&bell))?;
        let expected = self.model.is_met(pool, &watch);
        if let Poll::Ready(told) = poll {
            self.same_told(told, expected)?;
            same!("wakes of a watch that is told at once", heard(&bell), (0, false));
            self.meet(match watch {
                Watch::Reached(..) => "a level is there",
                Watch::Wants(_) => "a want is there",
            });
            return Ok(());
        }
        ensure!(expected.is_none(), "what is there is not told: {expected:?}");
        self.model.pool(pool).handles += 1;
        self.model.before.get_or_insert_default();
        self.watches.push(Watched { pool, watch, bell, met: None });
        Ok(())
    }

    /// A peak that the model cannot know is that which is told.
    fn same_told(&mut self, told: Told, expected: Option<Told>) -> Result<(), String> {
        let (told, mut expected) = (Some(told), expected);
        if let (Some(Told::Reached(told)), Some(Told::Reached(expected))) = (&told, &mut expected) {
            for (told, expected) in told.axes.iter().zip(&mut expected.axes) {
                let may_be_more = self.model.may_peak_higher() && told.peak > expected.peak;
                expected.peak = if may_be_more { told.peak } else { expected.peak };
            }
        }
        same!("what a watch is told", told, expected);
        Ok(())
    }

    /// Whoever the last call met was woken by it, and nobody else.
    pub(super) fn check_watches(&mut self) -> Result<(), String> {
        let mut watches = std::mem::take(&mut self.watches);
        for Watched { pool, watch, bell, met } in &mut watches {
            if met.is_none() {
                *met = self.model.is_met(*pool, watch);
                // A hold that settles when it expires may not have been reclaimed yet.
                let may_be_late = self.model.unreclaimed > 0 && matches!(watch, Watch::Reached(..));
                if may_be_late && heard(bell) == (0, true) {
                    *met = None;
                }
            }
            if let (Some(Told::Wants(_)), Watch::Wants(_)) = (&met, &watch) {
                self.model.meet_causes(*pool);
            }
            let is_met = met.is_some();
            same!(
                format!("wakes of a watch of p{pool}, and whether its waker is kept ({met:?})"),
                heard(bell),
                (usize::from(is_met), !is_met)
            );
        }
        self.watches = watches;
        self.model.lacks.clear();
        self.model.before = (!self.watches.is_empty()).then(Vec::new);
        Ok(())
    }

    /// Each watch that was woken is told, once.
    pub(super) fn collect_watches(&mut self) -> Result<(), String> {
        self.check_watches()?;
        while let Some(index) = self.watches.iter().position(|watched| watched.met.is_some()) {
            let Watched { pool, mut watch, bell, met } = self.watches.swap_remove(index);
            self.log(format!("p{pool} is told what it watched for"));
            let Poll::Ready(told) = self.call(Reads::Tells(pool), || watch.poll(&bell))? else {
                return Err("a watch was woken for nothing".to_owned());
            };
            self.same_told(told, met)?;
            self.meet(match watch {
                Watch::Reached(..) => "a level is reached",
                Watch::Wants(_) => "a want is told",
            });
            self.end_watch(Watched { pool, watch, bell, met: None })?;
        }
        self.check_watches()
    }

    /// By the waker of the last poll, or by a new one: then the old one is let go.
    pub(super) fn poll_watch(&mut self, watch: u8, anew: bool) -> Result<(), String> {
        let Some(index) = usize::from(watch).checked_rem(self.watches.len()) else { return Ok(()) };
        let Watched { pool, mut watch, bell: old, met } = self.watches.swap_remove(index);
        self.log(format!("poll a watch of p{pool}"));
        let bell = if anew { Arc::default() } else { Arc::clone(&old) };
        let poll = self.call(Reads::Tells(pool), || watch.poll(&bell))?;
        ensure!(met.is_none(), "what is met is collected after each step");
        if anew {
            same!("wakes by a waker that was replaced", heard(&old), (0, false));
        }
        drop(old);
        let expected = self.model.is_met(pool, &watch);
        if let Poll::Ready(told) = poll {
            self.same_told(told, expected)?;
            return self.end_watch(Watched { pool, watch, bell, met: None });
        }
        ensure!(expected.is_none(), "what is there is not told: {expected:?}");
        self.watches.push(Watched { pool, watch, bell, met: None });
        Ok(())
    }

    pub(super) fn drop_watch(&mut self, watch: u8) -> Result<(), String> {
        let Some(index) = usize::from(watch).checked_rem(self.watches.len()) else { return Ok(()) };
        let watched = self.watches.swap_remove(index);
        self.log(format!("drop a watch of p{}", watched.pool));
        self.end_watch(watched)
    }

    pub(super) fn end_watch(&mut self, watched: Watched) -> Result<(), String> {
        let Watched { pool, watch, bell, .. } = watched;
        self.call(Reads::Never, || drop(watch))?;
        ensure!(!heard(&bell).1, "the waker of a watch that is gone is kept");
        self.model.drop_handle(pool);
        Ok(())
    }
}
