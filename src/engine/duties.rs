//! The duties of a transition beside its own step.
//!
//! `Duties` follows from the parts, and is known in one byte, so that a call on a tree in which
//! nothing is going on asks once. It is derived anew at the end of each transition; the calls of
//! the hot path change nothing that it is derived from.

use std::time::Instant;

use super::Engine;

/// A set of duties.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Duties(u8);

impl Duties {
    /// A hold may expire, a pool is paused, or a waiter is blocked at a window.
    const TIME: u8 = 1;
    /// Somebody waits.
    const LINE: u8 = 2;
    /// Somebody watches balances.
    const WATCH: u8 = 4;
    /// An observer is told.
    const OBSERVER: u8 = 8;

    pub(super) const fn observed(self) -> Duties {
        Duties(self.0 | Duties::OBSERVER)
    }

    #[inline(always)]
    pub(super) const fn is_observed(self) -> bool {
        self.0 & Duties::OBSERVER != 0
    }

    #[inline(always)]
    pub(super) const fn is_watched(self) -> bool {
        self.0 & Duties::WATCH != 0
    }
}

impl Engine {
    /// Whether nobody waits, watches or observes, and time plays no part: a
    /// transition that need not know the time has nothing to do before or after its own step.
    #[inline(always)]
    pub(crate) fn is_quiet(&self) -> bool {
        self.duties.0 == 0
    }

    /// Whether the tree is quiet for a call that knows the time: a hold may expire, but only later.
    #[inline]
    pub(crate) fn is_quiet_at(&self, reading: Instant) -> bool {
        self.is_quiet() || (self.duties.0 == Duties::TIME && self.only_expires_after(reading))
    }

    /// Whether nothing but the expiry of holds makes time play a part, and that only after an
    /// instant. Time never runs back: a hold that was due is.
    #[inline]
    fn only_expires_after(&self, reading: Instant) -> bool {
        let next = self.expiry.next();
        self.pauses.is_empty() && next.is_none_or(|at| at > reading && Some(at) > self.latest)
    }

    /// [`is_quiet`](Engine::is_quiet), but for those who wait.
    #[inline(always)]
    pub(super) fn is_quiet_but_for_waiters(&self) -> bool {
        self.duties.0 & !Duties::LINE == 0
    }

    /// Whether somebody outside is to be told of more than of its own wait.
    #[inline(always)]
    pub(crate) fn is_steered(&self) -> bool {
        self.duties.0 & (Duties::WATCH | Duties::OBSERVER) != 0
    }

    #[inline(always)]
    pub(crate) fn is_observed(&self) -> bool {
        self.duties.is_observed()
    }

    /// Derives the duties of the transitions to come. Returns whether time began or ceased to play a
    /// part.
    #[inline]
    pub(crate) fn renew_duties(&mut self) -> bool {
        let (before, derived) = (self.duties, self.derived_duties());
        if derived == before {
            // Nothing is written to the cache line of the lock, for which others may wait.
            return false;
        }
        self.duties = derived;
        (before.0 ^ derived.0) & Duties::TIME != 0
    }

    #[inline]
    pub(super) fn derived_duties(&self) -> Duties {
        let flag = |is: bool, duty: u8| if is { duty } else { 0 };
        Duties(
            flag(self.heeds_time(), Duties::TIME)
                | flag(self.queue.has_waiting(), Duties::LINE)
                | flag(self.watch.is_looking(), Duties::WATCH)
                | self.duties.0 & Duties::OBSERVER,
        )
    }
}
