//! What the observer of the tree is told, beside what the model expects of each step.
//!
//! A refusal is expected where a call is answered so, or where the model turns a waiter away. The
//! end of a hold's time is told when a call reclaims the hold: at the latest when all that had expired
//! was looked at.

use std::sync::{Arc, Mutex};

use budget_pool::{BudgetError, Holder, Observer, Receipt};

use super::oracle::{Booked, HoldId, Model, PoolId, Refusal};
use super::seen::{HolderView, holder, refusal, unnamed};
use super::{Both, name};

/// What the model expects to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    Refused(Refusal),
    Overage(String, Box<Booked>),
    Dropped(HolderView),
}

/// What was told since it was last asked for.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Vec<Said>>);

#[derive(Debug)]
enum Said {
    Refused(BudgetError),
    Overage(String, Receipt),
    Expired(Holder),
    Dropped(Holder),
}

impl Record {
    fn push(&self, said: Said) {
        self.0.lock().expect("nobody panics here").push(said);
    }
}

impl Observer for Record {
    fn refused(&self, refusal: &BudgetError) {
        self.push(Said::Refused(refusal.clone()));
    }

    fn overage(&self, pool: &str, receipt: &Receipt) {
        self.push(Said::Overage(pool.to_owned(), *receipt));
    }

    fn expired(&self, holder: &Holder) {
        self.push(Said::Expired(holder.clone()));
    }

    fn dropped(&self, holder: &Holder) {
        self.push(Said::Dropped(holder.clone()));
    }
}

/// What an observer of the model is told, if there is one.
#[derive(Debug, Default)]
pub(super) struct Events {
    is_observed: bool,
    told: Vec<Event>,
    /// The holds whose time is over and of which nobody was told yet, as they were then.
    expired: Vec<(HoldId, HolderView)>,
}

impl Model {
    pub(super) fn observe(&mut self) {
        self.events.is_observed = true;
    }

    pub(super) fn tell(&mut self, event: Event) {
        if self.events.is_observed {
            self.events.told.push(event);
        }
    }

    pub(super) fn tell_overage(&mut self, pool: PoolId, booked: &Booked) {
        if booked.overage.iter().any(|units| *units > 0) {
            self.tell(Event::Overage(name(pool), Box::new(booked.clone())));
        }
    }

    pub(super) fn tell_dropped(&mut self, id: HoldId) {
        let holder = self.holder(&self.holds[&id]);
        self.tell(Event::Dropped(holder));
    }

    pub(super) fn tell_expired(&mut self, id: HoldId) {
        if self.events.is_observed {
            let holder = self.holder(&self.holds[&id]);
            self.events.expired.push((id, holder));
        }
    }

    /// One whose time is over is as it was then, but for a label that it was given since.
    fn take_expired(&mut self, told: &HolderView) -> bool {
        let is_it = |(id, holder): &(HoldId, HolderView)| {
            let relabelled = self.holds.get(id).map(|hold| hold.label.map(str::to_owned));
            let (held, pool, label) = told;
            (held, pool) == (&holder.0, &holder.1)
                && (*label == holder.2 || relabelled.as_ref() == Some(label))
        };
        let at = self.events.expired.iter().position(is_it);
        at.map(|at| self.events.expired.remove(at)).is_some()
    }
}

impl Both {
    /// The observer was told what came of the steps since it was last asked, and nothing else.
    pub(super) fn check_events(&mut self) -> Result<(), String> {
        let expected = std::mem::take(&mut self.model.events.told);
        let Some(record) = self.record.as_ref().map(Arc::clone) else { return Ok(()) };
        let said = std::mem::take(&mut *record.0.lock().expect("nobody panics here"));
        let mut told = Vec::new();
        for said in said {
            told.push(match said {
                Said::Refused(error) => {
                    self.meet("an observer is told of a refusal");
                    Event::Refused(refusal(&error, self.origin))
                }
                Said::Overage(pool, receipt) => {
                    self.meet("an observer is told of overage");
                    Event::Overage(pool, Box::new(unnamed(receipt)))
                }
                Said::Dropped(dropped) => {
                    self.meet("an observer is told of a drop");
                    Event::Dropped(holder(&dropped))
                }
                Said::Expired(expired) => {
                    self.meet("an observer is told of an expiry");
                    let is_due = expired.expires_in.is_some_and(|left| left.is_zero());
                    ensure!(is_due, "time is left to what has expired: {expired:?}");
                    let was_due = self.model.take_expired(&holder(&expired));
                    ensure!(was_due, "no such hold has expired: {expired:?}");
                    continue;
                }
            });
        }
        let is_told = are_same(&told, expected.clone());
        ensure!(is_told, "what the observer is told\n  real   {told:?}\n  model  {expected:?}");
        let late = &self.model.events.expired;
        let may_be_late = self.model.unreclaimed > 0;
        ensure!(late.is_empty() || may_be_late, "the observer is not told of {late:?}");
        Ok(())
    }
}

/// Of one step, in any order. Axes are the same whatever they are called: a tree knows the label of
/// an axis only once it is capped.
fn are_same(told: &[Event], mut expected: Vec<Event>) -> bool {
    let is_expected = |event: &Event| {
        let at = expected.iter().position(|expected| expected == event);
        at.map(|at| expected.remove(at)).is_some()
    };
    let all = told.iter().all(is_expected);
    all && expected.is_empty()
}
