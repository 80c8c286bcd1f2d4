//! The events that a transition leaves behind for the observer of the tree, told outside the lock.
//!
//! A refusal is told where the call that got it ends, by its [`Answer`]: so no call can forget to.
//! An event of others than the caller is noted where it happens.

use std::task::{Poll, Waker};
use std::time::Duration;

use super::Engine;
use super::admission::Booked;
use super::hold::{End, HoldKey};
use super::nodes::NodeId;
use super::view::Places;
use crate::types::amount::{Amount, Caps};
use crate::types::axis::Labels;
use crate::types::error::BudgetError;
use crate::types::limit::Limit;
use crate::types::name::Name;
use crate::types::once::Once;
use crate::types::snapshot::{Holder, Snapshot};

/// An event for the observer.
#[derive(Debug)]
pub(crate) enum Event {
    Refused(BudgetError),
    /// Booked for this pool.
    Late(Name, Booked, Labels),
    Overage(Name, Booked, Labels),
    Expired(Holder),
    Dropped(Holder),
}

/// The events of a transition, in their order; none are kept in a tree that nobody observes.
#[derive(Debug, Default)]
pub(super) struct Events(Vec<Event>);

/// The answer of a transition to its caller.
pub(crate) trait Answer {
    /// The refusal, if it is one that nobody was told of yet.
    fn refusal(&self) -> Option<&BudgetError> {
        None
    }

    /// The fact that was booked, if one was.
    fn booked(&self) -> Option<&Booked> {
        None
    }
}

impl<T: Answer> Answer for Result<T, BudgetError> {
    fn refusal(&self) -> Option<&BudgetError> {
        self.as_ref().err()
    }

    fn booked(&self) -> Option<&Booked> {
        self.as_ref().ok()?.booked()
    }
}

impl Answer for Booked {
    fn booked(&self) -> Option<&Booked> {
        Some(self)
    }
}

impl Answer for &mut Booked {
    fn booked(&self) -> Option<&Booked> {
        Some(self)
    }
}

impl Answer for () {}
impl Answer for bool {}
impl Answer for Amount {}
impl Answer for Caps {}
impl Answer for HoldKey {}
impl Answer for NodeId {}
impl Answer for Once {}
impl Answer for Snapshot {}
impl Answer for Vec<Holder> {}
impl Answer for Vec<Limit> {}

/// A survey, and the places that it lacks.
impl Answer for Result<(), Places> {}

/// A look at a watch.
impl<T, const N: usize> Answer for (Poll<T>, [Option<Waker>; N]) {}

impl Engine {
    /// From now on an observer is to be told.
    pub(crate) fn observe(&mut self) {
        self.duties = self.duties.observed();
    }

    /// Notes the [`Answer`] to the caller of a transition.
    #[cold]
    #[inline(never)]
    pub(crate) fn hear(&mut self, pool: &Name, answer: &impl Answer) {
        if let Some(refusal) = answer.refusal() {
            self.note_refusal(refusal);
        }
        let Some(booked) = answer.booked() else { return };
        let labels = *self.labels();
        if booked.late {
            self.events.0.push(Event::Late(pool.clone(), *booked, labels));
        }
        if !booked.overage().is_zero() {
            self.events.0.push(Event::Overage(pool.clone(), *booked, labels));
        }
    }

    pub(crate) fn note_refusal(&mut self, refusal: &BudgetError) {
        if self.duties.is_observed() {
            self.events.0.push(Event::Refused(refusal.clone()));
        }
    }

    /// Notes that the time of a hold is over.
    #[cold]
    pub(super) fn note_expiry(&mut self, key: HoldKey) {
        let mut holder = self.holder(self.holds.get(key));
        // It is not scheduled any more.
        holder.expires_in = Some(Duration::ZERO);
        self.events.0.push(Event::Expired(holder));
    }

    /// Notes that the owner of a hold goes away without a word.
    #[cold]
    pub(super) fn note_end(&mut self, key: HoldKey, how: End<'_>) {
        let hold = self.holds.get(key);
        if matches!(how, End::Drop) && hold.is_live() {
            let holder = self.holder(hold);
            self.events.0.push(Event::Dropped(holder));
        }
    }

    /// The events that the transition leaves behind.
    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events.0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::engine::{Place, Purpose, Spec};
    use crate::types::axis::{Quantities, lane};

    /// A hold is dropped, another expires, and a waiter is refused. Returns what is to be told.
    fn told(engine: &mut Engine) -> Vec<Event> {
        let (at, now) = (NodeId::ROOT, Instant::now());
        let tokens = |n| Quantities::NONE.with(lane::TOKENS, n);
        let dropped = engine.reserve(at, &tokens(1), Some(now)).unwrap();
        engine.end(dropped, End::Drop, Some(now), &mut { Booked::NOTHING });
        let second = Duration::from_secs(1);
        let _brief = engine.reserve_for(at, &tokens(1), second, now).unwrap();
        let held = engine.reserve(at, &tokens(9), Some(now + second)).unwrap();
        let place = engine.wait(at, &tokens(2), Purpose::Hold, Some(now + second));
        let Ok(Place::InLine(waiter)) = place else { panic!("{place:?}") };
        engine.close(at);
        drop(engine.cancel_wait(waiter));
        engine.end(held, End::Release, Some(now + second), &mut { Booked::NOTHING });
        engine.check_invariants();
        engine.events()
    }

    #[test]
    fn what_happens_in_a_tree_that_nobody_observes_is_kept_for_nobody() {
        let mut engine = Engine::new(Spec::of(Caps::new().tokens(10)));
        let kept = told(&mut engine);
        assert!(kept.is_empty(), "{kept:?}");
        let mut engine = Engine::new(Spec::of(Caps::new().tokens(10)));
        engine.observe();
        let told = told(&mut engine);
        let [Event::Dropped(_), Event::Expired(_), Event::Refused(_)] = &told[..] else {
            panic!("{told:?}")
        };
    }
}
