//! The places of pools, waiters and holds.

use std::ops::{Index, IndexMut};

/// Values that come and go. Each begins and ends where it lies, and the next one begins there. A
/// `Slab` would move each in and out: that takes a sixth of the time of a child and a quarter of that
/// of a commit, and of a waiter in a long line each cache line that is touched is a miss.
#[derive(Debug)]
pub(super) struct Arena<T> {
    places: Vec<T>,
    /// The first free place. Each of them names the next, and the last one that which is to be made
    /// then.
    free: u32,
    /// How many values there are.
    len: u32,
}

/// A value in its place, or a free place.
pub(super) trait Placed {
    const FREE: Self;

    /// Of a free place, the slot of the next.
    fn next_free(&self) -> Option<u32>;

    /// The value is gone, and its place is free.
    fn free(&mut self, next: u32);
}

impl<T: Placed> Arena<T> {
    /// The slot of a free place, in which a value is to begin.
    #[inline(always)]
    pub(super) fn take(&mut self) -> usize {
        let slot = self.free as usize;
        self.free = match self.places.get(slot) {
            Some(place) => place.next_free().expect("a place in the list is free"),
            None => self.grow(),
        };
        self.len += 1;
        slot
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.places.push(T::FREE);
        u32::try_from(self.places.len()).expect("2^32 never live at once")
    }

    /// The value has ended. The caller can still read in its place what it was.
    #[inline]
    pub(super) fn give_back(&mut self, slot: usize) {
        self.places[slot].free(self.free);
        // The number of places fits.
        self.free = slot as u32;
        self.len -= 1;
    }

    pub(super) fn len(&self) -> usize {
        self.len as usize
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.places.iter().filter(|place| place.next_free().is_none())
    }

    /// How many places there are, free ones included.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }

    /// Values are counted, and every free place is found again.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.iter().count(), self.len(), "values are counted");
        let mut next = self.free as usize;
        for _ in self.len()..self.places.len() {
            next = self.places[next].next_free().expect("a place in the list is free") as usize;
        }
        assert_eq!(next, self.places.len(), "all free places are in the list");
    }
}

impl<T> Default for Arena<T> {
    fn default() -> Arena<T> {
        Arena { places: Vec::new(), free: 0, len: 0 }
    }
}

impl<T> Index<usize> for Arena<T> {
    type Output = T;

    #[inline]
    fn index(&self, slot: usize) -> &T {
        &self.places[slot]
    }
}

impl<T> IndexMut<usize> for Arena<T> {
    #[inline]
    fn index_mut(&mut self, slot: usize) -> &mut T {
        &mut self.places[slot]
    }
}
