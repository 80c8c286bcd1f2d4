//! Calls that count once, by their keys.
//!
//! Both maps are trees: to insert a key is O(log n), and no insertion ever moves another key. A
//! hash table that doubles would stop every pool of the tree meanwhile.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use super::lifecycle::Idle;
use crate::types::axis::Units;
use crate::types::name::Name;

/// The keys of one pool, each with what was spent under it.
#[derive(Debug)]
pub(crate) struct Keys {
    /// How many are remembered, and for how long.
    capacity: usize,
    ttl: Duration,
    /// By hash first: to compare it reads no other memory, as to compare long names would.
    known: BTreeMap<Hashed, Known>,
    hasher: RandomState,
    /// In the order in which they are forgotten, which is that of their coming: time never runs
    /// back, and all are remembered for equally long. A key that came again after its time is in
    /// here twice; its first place then means nothing.
    order: BTreeMap<u64, (Instant, Hashed)>,
    /// How many places were given out.
    places: u64,
    /// Whether any is remembered for ever.
    for_ever: bool,
}

/// A key as it stands in the maps.
pub(super) type Hashed = (u64, Name);

#[derive(Debug)]
struct Known {
    /// The units that a call with the key charges.
    units: Units,
    /// `None` = for ever.
    until: Option<Instant>,
}

/// The keys forgotten at a time, so that no call pays for all: more than one, as each call may
/// bring one.
const BATCH: usize = 4;

impl Default for Keys {
    fn default() -> Keys {
        Keys::new(262_144, Duration::from_secs(60 * 60))
    }
}

impl Keys {
    pub(crate) fn new(capacity: usize, ttl: Duration) -> Keys {
        Keys {
            capacity,
            ttl,
            known: BTreeMap::new(),
            hasher: RandomState::new(),
            order: BTreeMap::new(),
            places: 0,
            for_ever: false,
        }
    }

    /// The key as it stands in the maps.
    pub(super) fn hashed(&self, key: Name) -> Hashed {
        (self.hasher.hash_one(&key), key)
    }

    /// The units that were spent under this key.
    pub(super) fn get(&self, key: &Hashed, now: Instant) -> Option<Units> {
        let known = self.known.get(key)?;
        known.until.is_none_or(|until| now < until).then_some(known.units)
    }

    /// Makes room for one more. If there is none: when there will be, if ever.
    pub(super) fn make_room(&mut self, now: Instant) -> Result<(), Option<Instant>> {
        for _ in 0..BATCH {
            self.forget(now);
        }
        while self.known.len() >= self.capacity {
            if !self.forget(now) {
                return Err(self.order.first_key_value().map(|(_, (until, _))| *until));
            }
        }
        Ok(())
    }

    /// Forgets the next whose time has come, if any.
    fn forget(&mut self, now: Instant) -> bool {
        let Some(first) = self.order.first_entry().filter(|first| first.get().0 <= now) else {
            return false;
        };
        let (until, key) = first.remove();
        if self.known.get(&key).is_some_and(|known| known.until == Some(until)) {
            self.known.remove(&key);
        }
        true
    }

    pub(super) fn remember(&mut self, key: Hashed, units: Units, now: Instant) {
        let until = now.checked_add(self.ttl);
        self.for_ever |= until.is_none();
        if let Some(until) = until {
            self.places += 1;
            self.order.insert(self.places, (until, key.clone()));
        }
        self.known.insert(key, Known { units, until });
    }

    /// When the last of the keys that are known will have been forgotten. All are remembered for
    /// equally long: that is the key that came last.
    pub(super) fn idle(&self) -> Idle {
        match self.order.last_key_value() {
            _ if self.for_ever => Idle::Never,
            Some((_, (until, _))) => Idle::From(*until),
            None => Idle::Now,
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Amount;

    const TTL: Duration = Duration::from_secs(10);

    fn keys(capacity: usize) -> Keys {
        Keys::new(capacity, TTL)
    }

    fn one(n: u64) -> Units {
        *Amount::new().requests(n).quantities().units()
    }

    fn key(n: u64) -> Hashed {
        (n % 7, Name::from(n.to_string()))
    }

    #[test]
    fn what_is_forgotten_has_had_its_time() {
        let (mut keys, now) = (keys(2), Instant::now());
        keys.remember(key(1), one(1), now);
        assert_eq!(keys.get(&key(1), now + TTL - Duration::from_nanos(1)), Some(one(1)));
        assert_eq!((keys.get(&key(1), now + TTL), keys.get(&key(2), now)), (None, None));
        keys.remember(key(2), one(2), now + TTL / 2);
        assert_eq!(keys.make_room(now + TTL / 2), Err(Some(now + TTL)));
        assert_eq!((keys.known.len(), keys.make_room(now + TTL), keys.known.len()), (2, Ok(()), 1));
    }

    #[test]
    fn a_few_are_forgotten_at_a_time_and_more_than_come() {
        let (mut keys, now) = (keys(1_000), Instant::now());
        (0..100).for_each(|n| keys.remember(key(n), one(n), now));
        for n in 0..20 {
            keys.make_room(now + TTL).unwrap();
            assert_eq!((keys.known.len(), keys.order.len()), (96 - 3 * n, 96 - 3 * n));
            keys.remember(key(1_000 + n as u64), one(1), now + TTL);
        }
        assert!(keys.known.len() < 50);
    }

    #[test]
    fn one_that_came_again_is_not_forgotten_with_its_first_place() {
        let (mut keys, now) = (keys(10), Instant::now());
        (0..10).for_each(|n| keys.remember(key(n), one(n), now));
        keys.make_room(now + TTL).unwrap();
        keys.remember(key(9), one(99), now + TTL);
        assert_eq!((keys.known.len(), keys.order.len()), (6, 7));
        (0..5).for_each(|_| keys.make_room(now + TTL).unwrap());
        assert_eq!(keys.get(&key(9), now + TTL), Some(one(99)));
        assert_eq!((keys.known.len(), keys.order.len()), (1, 1));
    }

    #[test]
    fn a_full_memory_forgets_as_many_as_it_must() {
        let (mut keys, now) = (keys(100), Instant::now());
        (0..100).for_each(|n| keys.remember(key(n), one(n), now + Duration::from_secs(n / 50)));
        assert_eq!(keys.make_room(now), Err(Some(now + TTL)));
        assert_eq!(keys.make_room(now + TTL), Ok(()));
        keys.capacity = 1;
        assert_eq!(keys.make_room(now + TTL), Err(Some(now + TTL + Duration::from_secs(1))));
        assert_eq!(keys.known.len(), 50);
    }
}
