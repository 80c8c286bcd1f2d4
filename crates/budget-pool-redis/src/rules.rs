//! The rules of a wallet: a pure function from a state, an instant of the store and a request to an
//! answer. `script.lua` is the same function inside Redis. Only tests call the rules: the script is
//! checked against them, and the model explores them.
//!
//! The invariants, on every axis:
//!
//! - a member holds `granted - returned`, and `spent` is never more than that;
//! - `charged` is the sum of `granted - returned` over the members and of `spent` over the closed
//!   members, less the units that earlier periods used;
//! - `used` is the sum of `spent` over all members, closed ones included, less the units that
//!   earlier periods used: `used <= charged`;
//! - a grant never takes `charged` above `cap`.

use std::collections::BTreeMap;

use crate::protocol::{
    Answer, Book, Change, Lost, MOST, Op, REMEMBERED, Request, State, Told, Totals, Way,
};

/// The most records of a kind that an exchange removes once they are over.
const BATCH: usize = 8;

/// The most keys of changes that the wallet remembers at once. To forget one before its time could
/// make a change twice, so the wallet refuses the next one.
pub(crate) const MOST_KEYS: usize = 1_024;

impl Totals {
    /// Merges the totals that a member tells into its known totals. Overage becomes part of
    /// `granted`: it is charged already, and the member's next need is then counted from there.
    fn told(self, told: &Told) -> Totals {
        let returned = self.returned.max(told.returned);
        let spent = self.spent.max(told.spent);
        let covered = returned.saturating_add(spent);
        Totals { granted: self.granted.max(told.seen).max(covered), returned, spent }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Record {
    pub(crate) expires: u64,
    pub(crate) totals: Vec<Totals>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Tombstone {
    pub(crate) until: u64,
    pub(crate) spent: Vec<u64>,
}

/// A [`Change`] that was made.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Made {
    pub(crate) until: u64,
    pub(crate) change: Change,
}

/// Why a request changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Refusal {
    /// The request names other axes than the wallet has.
    Axes,
    /// A total is, or would become, more than `2^53 - 1`, or contradicts another total.
    Range,
    /// The wallet has no such member.
    NoMember,
    /// The key stands for another change.
    KeyConflict,
    /// The wallet remembers as many keys as it may, and forgets the next one after this time.
    KeysFull { retry_after: u64 },
    /// The cap of an axis would fall below zero.
    BelowZero { requested: u64, cap: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wallet {
    pub(crate) lost: Lost,
    /// The length of a period in milliseconds; 0 without a window.
    pub(crate) period: u64,
    pub(crate) period_end: u64,
    pub(crate) run: String,
    pub(crate) learn_until: u64,
    /// The longest `ttl` of any member: the store hears of a live member within it.
    pub(crate) ttl: u64,
    pub(crate) books: Vec<Book>,
    pub(crate) members: BTreeMap<String, Record>,
    pub(crate) tombstones: BTreeMap<String, Tombstone>,
    /// The instant until which a member stands short.
    pub(crate) claims: BTreeMap<String, u64>,
    /// The changes of the caps, by their keys.
    pub(crate) changes: BTreeMap<String, Made>,
}

impl Wallet {
    pub(crate) fn found(caps: &[u64], lost: Lost, period: u64, run: &str, now: u64) -> Wallet {
        let book = |&cap| Book { founded: cap, cap, charged: 0, used: 0 };
        Wallet {
            lost,
            period,
            period_end: if period == 0 { 0 } else { now + period },
            run: run.to_owned(),
            learn_until: 0,
            ttl: 0,
            books: caps.iter().map(book).collect(),
            members: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            claims: BTreeMap::new(),
            changes: BTreeMap::new(),
        }
    }

    pub(crate) fn exchange(&mut self, now: u64, request: &Request) -> Result<Answer, Refusal> {
        let mut after = self.clone();
        let answer = after.apply(now, request)?;
        *self = after;
        Ok(answer)
    }

    fn apply(&mut self, now: u64, request: &Request) -> Result<Answer, Refusal> {
        self.is_well_formed(request)?;
        self.note_run(now, request);
        self.turn(now);
        self.remove_expired(now, &request.member);
        let id = &request.member;
        if self.tombstones.contains_key(id) {
            return self.book_late(now, request);
        }
        if request.op == Op::Settle && !self.members.contains_key(id) {
            return Err(Refusal::NoMember);
        }
        let nothing = || Record { expires: 0, totals: vec![Totals::default(); self.books.len()] };
        let mut record = self.members.remove(id).unwrap_or_else(nothing);
        for ((book, totals), told) in
            self.books.iter_mut().zip(&mut record.totals).zip(&request.told)
        {
            let after = totals.told(told);
            let (less, more) = (totals.held(), after.held());
            book.charged = sum(book.charged, more.saturating_sub(less))?
                .checked_sub(less.saturating_sub(more))
                .ok_or(Refusal::Range)?;
            book.used = sum(book.used, after.spent - totals.spent)?;
            is_in_range(after.granted)?;
            *totals = after;
        }
        if request.op != Op::Exchange {
            self.claims.remove(id);
            let totals = self.close(now, id.clone(), record);
            return Ok(self.answer(State::Closed, now, id, totals));
        }
        record.expires = now.checked_add(request.ttl).ok_or(Refusal::Range)?;
        let totals = record.totals.clone();
        self.members.insert(id.clone(), record);
        let (state, totals) = self.grant(now, request, totals);
        if let Some(record) = self.members.get_mut(id) {
            record.totals.clone_from(&totals);
        }
        Ok(self.answer(state, now, id, totals))
    }

    fn is_well_formed(&self, request: &Request) -> Result<(), Refusal> {
        if request.told.len() != self.books.len() {
            return Err(Refusal::Axes);
        }
        for told in &request.told {
            let Told { spent, returned, seen, want, floor } = *told;
            [spent, returned, seen, want, floor].into_iter().try_for_each(is_in_range)?;
            if returned > seen || floor > want {
                return Err(Refusal::Range);
            }
        }
        Ok(())
    }

    /// Starts the learning where `run` changed: a server that was restarted may have lost its last
    /// writes.
    fn note_run(&mut self, now: u64, request: &Request) {
        self.ttl = self.ttl.max(request.ttl);
        if self.run != request.run {
            self.run.clone_from(&request.run);
            self.learn_until = now.saturating_add(self.ttl);
        }
    }

    /// Ends a period that is over: its `used` units are free in the new period, and unspent grants
    /// stay `charged`.
    pub(crate) fn turn(&mut self, now: u64) {
        if self.period == 0 || now < self.period_end {
            return;
        }
        let turns = (now - self.period_end) / self.period + 1;
        self.period_end += turns * self.period;
        for book in &mut self.books {
            book.charged -= book.used;
            book.used = 0;
        }
    }

    fn remove_expired(&mut self, now: u64, own: &str) {
        let mut over: Vec<(u64, String)> = (self.tombstones.iter())
            .filter(|(_, tombstone)| tombstone.until <= now)
            .map(|(id, tombstone)| (tombstone.until, id.clone()))
            .collect();
        over.sort();
        for (_, id) in over.into_iter().take(BATCH) {
            self.tombstones.remove(&id);
        }
        self.claims.retain(|_, until| *until > now);
        if self.lost == Lost::Charge || now < self.learn_until {
            return;
        }
        let mut lost: Vec<(u64, String)> = (self.members.iter())
            .filter(|(_, record)| record.expires <= now)
            .map(|(id, record)| (record.expires, id.clone()))
            .collect();
        lost.sort();
        for (_, id) in lost.into_iter().take(BATCH).filter(|(_, id)| id != own) {
            if let Some(record) = self.members.remove(&id) {
                self.claims.remove(&id);
                self.close(now, id, record);
            }
        }
    }

    /// Closes a record: the member then holds its told `spent`, and no more.
    fn close(&mut self, now: u64, id: String, mut record: Record) -> Vec<Totals> {
        for (book, totals) in self.books.iter_mut().zip(&mut record.totals) {
            let unspent = totals.held() - totals.spent;
            book.charged -= unspent;
            totals.returned += unspent;
        }
        let spent = record.totals.iter().map(|totals| totals.spent).collect();
        self.tombstones.insert(id, Tombstone { until: now + REMEMBERED, spent });
        record.totals
    }

    /// Books the spend of a closed member: that is accounting, and never refused.
    fn book_late(&mut self, now: u64, request: &Request) -> Result<Answer, Refusal> {
        let id = &request.member;
        let tombstone = self.tombstones.get_mut(id).ok_or(Refusal::NoMember)?;
        for ((book, known), told) in
            self.books.iter_mut().zip(&mut tombstone.spent).zip(&request.told)
        {
            let late = told.spent.saturating_sub(*known);
            book.charged = sum(book.charged, late)?;
            book.used = sum(book.used, late)?;
            *known += late;
        }
        let closed = |&spent| Totals { granted: spent, returned: 0, spent };
        let totals = tombstone.spent.iter().map(closed).collect();
        Ok(self.answer(State::Gone, now, id, totals))
    }

    fn grant(
        &mut self,
        now: u64,
        request: &Request,
        mut totals: Vec<Totals>,
    ) -> (State, Vec<Totals>) {
        let id = &request.member;
        let unseen = |at: usize| totals[at].granted - request.told[at].seen;
        let need = |units: u64, at: usize| units.saturating_sub(unseen(at));
        let axes = 0..self.books.len();
        let needs: Vec<(u64, u64)> = axes
            .map(|at| (need(request.told[at].floor, at), need(request.told[at].want, at)))
            .collect();
        let stands = needs.iter().any(|(floor, _)| *floor > 0);
        let room: Vec<u64> = (self.books.iter().zip(&totals))
            .map(|(book, totals)| book.free().min(MOST - totals.granted))
            .collect();
        if now < self.learn_until {
            self.claims.remove(id);
            return (if stands { State::Learning } else { State::Granted }, totals);
        }
        if let Some(at) = (0..needs.len()).find(|&at| needs[at].0 > room[at]) {
            self.claims.insert(id.clone(), now.saturating_add(request.claim));
            return (State::Short(at), totals);
        }
        self.claims.remove(id);
        let (members, is_claimed) = (self.live(now), !self.claims.is_empty());
        for (at, (floor, want)) in needs.into_iter().enumerate() {
            let share = if is_claimed { 0 } else { (room[at] - floor) / (2 * members) };
            let grant = floor + (want - floor).min(share);
            totals[at].granted += grant;
            self.books[at].charged += grant;
        }
        (State::Granted, totals)
    }

    fn live(&self, now: u64) -> u64 {
        let live = self.members.values().filter(|record| record.expires > now).count();
        u64::try_from(live).unwrap_or(u64::MAX).max(1)
    }

    fn answer(&self, state: State, now: u64, id: &str, totals: Vec<Totals>) -> Answer {
        let claims = self.claims.keys().filter(|claim| *claim != id).count();
        Answer {
            state,
            now,
            period_end: self.period_end,
            learn_until: self.learn_until,
            members: self.live(now),
            claims: u64::try_from(claims).unwrap_or(u64::MAX),
            books: self.books.clone(),
            totals,
        }
    }

    /// Closes the record of a member with the `spent` that an operator gives; `None` writes off all
    /// units that the member holds. A member that comes back gets [`State::Gone`], and the wallet
    /// then books its spend beyond `spent`.
    pub(crate) fn resolve(
        &mut self,
        now: u64,
        id: &str,
        spent: Option<&[u64]>,
    ) -> Result<(), Refusal> {
        let mut after = self.clone();
        after.turn(now);
        if spent.is_some_and(|spent| spent.len() != after.books.len()) {
            return Err(Refusal::Axes);
        }
        let mut record = after.members.remove(id).ok_or(Refusal::NoMember)?;
        for (at, totals) in record.totals.iter_mut().enumerate() {
            let spent = spent.map_or(totals.held(), |spent| spent[at]);
            is_in_range(spent)?;
            let told = Told { spent, ..Told::default() };
            let (book, changed) = (&mut after.books[at], totals.told(&told));
            book.charged = sum(book.charged, changed.held() - totals.held())?;
            book.used = sum(book.used, changed.spent - totals.spent)?;
            is_in_range(changed.granted)?;
            *totals = changed;
        }
        after.claims.remove(id);
        after.close(now, id.to_owned(), record);
        *self = after;
        Ok(())
    }

    /// Makes a `change` of the caps, once for each `key`.
    pub(crate) fn change(&mut self, now: u64, key: &str, change: &Change) -> Result<(), Refusal> {
        if change.units.len() != self.books.len() {
            return Err(Refusal::Axes);
        }
        change.units.iter().copied().try_for_each(is_in_range)?;
        let mut after = self.clone();
        after.changes.retain(|_, made| made.until > now);
        match after.changes.get(key) {
            Some(made) if made.change != *change => return Err(Refusal::KeyConflict),
            Some(_) => {}
            None => after.make(now, key, change)?,
        }
        after.turn(now);
        *self = after;
        Ok(())
    }

    fn make(&mut self, now: u64, key: &str, change: &Change) -> Result<(), Refusal> {
        if self.changes.len() >= MOST_KEYS {
            let next = self.changes.values().map(|made| made.until).min().unwrap_or(now);
            return Err(Refusal::KeysFull { retry_after: next - now });
        }
        for (book, &units) in self.books.iter_mut().zip(&change.units) {
            let below_zero = Refusal::BelowZero { requested: units, cap: book.cap };
            book.cap = match change.way {
                Way::Raise => sum(book.cap, units)?,
                Way::Lower => book.cap.checked_sub(units).ok_or(below_zero)?,
            };
        }
        let made = Made { until: now + REMEMBERED, change: change.clone() };
        self.changes.insert(key.to_owned(), made);
        Ok(())
    }
}

fn is_in_range(units: u64) -> Result<(), Refusal> {
    if units <= MOST { Ok(()) } else { Err(Refusal::Range) }
}

fn sum(a: u64, b: u64) -> Result<u64, Refusal> {
    let sum = a.checked_add(b).ok_or(Refusal::Range)?;
    is_in_range(sum).map(|()| sum)
}
