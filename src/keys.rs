//! Calls that count once, by their keys. Pure.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::amount::Amount;
use crate::name::Name;

/// How many keys a pool remembers, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Memory {
    pub(crate) most: usize,
    pub(crate) ttl: Duration,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory { most: 65_536, ttl: Duration::from_secs(60 * 60) }
    }
}

/// The keys of one pool, each with what was spent under it.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    memory: Memory,
    known: HashMap<Name, Known>,
    /// In the order in which they are forgotten, which is that of their coming: time never runs back, and all are remembered
    /// for equally long. One that came again after its time is in here twice; its first place then means nothing.
    order: VecDeque<(Instant, Name)>,
}

#[derive(Debug)]
struct Known {
    amount: Amount,
    /// `None` = for ever.
    until: Option<Instant>,
}

/// Forgotten at a time, so that no call pays for all: more than one, as each call may bring one.
const BATCH: usize = 4;

impl Keys {
    pub(crate) fn new(memory: Memory) -> Keys {
        Keys { memory, ..Keys::default() }
    }

    /// What was spent under this key.
    pub(crate) fn get(&self, key: &Name, now: Instant) -> Option<Amount> {
        let known = self.known.get(key)?;
        known.until.is_none_or(|until| now < until).then_some(known.amount)
    }

    /// Makes room for one more. If there is none: when there will be, if ever.
    pub(crate) fn make_room(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        for _ in 0..BATCH {
            self.forget(now);
        }
        while self.known.len() >= self.memory.most {
            if !self.forget(now) {
                return Err(self.order.front().map(|(until, _)| *until));
            }
        }
        Ok(())
    }

    /// Forgets the next whose time has come, if any.
    fn forget(&mut self, now: Instant) -> bool {
        if self.order.front().is_none_or(|(until, _)| now < *until) {
            return false;
        }
        let (until, key) = self.order.pop_front().expect("its time has come");
        if self.known.get(&key).is_some_and(|known| known.until == Some(until)) {
            self.known.remove(&key);
        }
        true
    }

    pub(crate) fn remember(&mut self, key: Name, amount: Amount, now: Instant) {
        let until = now.checked_add(self.memory.ttl);
        if let Some(until) = until {
            self.order.push_back((until, key.clone()));
        }
        self.known.insert(key, Known { amount, until });
    }

    pub(crate) fn most(&self) -> usize {
        self.memory.most
    }
}
