//! [`Member`], a process in a wallet: its grants, its returns and its wants. A `Member` does no I/O
//! and reads no clock: the driver passes instants in.

use std::time::{Duration, Instant};

use budget_pool::Axis;

use crate::confirm::Confirm;
use crate::journal::{self, Entry};
use crate::protocol::{Answer, MOST, Op, Request, State, Told};
use crate::script::Axes;

/// The grants after which a member joins anew: its totals count to [`MOST`], and a call may need
/// nearly as much.
const WORN: u64 = MOST / 8;

/// The local pool on an axis, at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Local {
    pub(crate) cap: u64,
    pub(crate) used: u64,
    pub(crate) reserved: u64,
    pub(crate) overage: u64,
    /// The true spend since the pool was built.
    pub(crate) spent: u64,
}

impl Local {
    pub(crate) fn free(&self) -> u64 {
        self.cap.saturating_sub(self.used).saturating_sub(self.reserved)
    }
}

impl Local {
    /// The units that count as spent if the process ends now. A slot in flight comes back with the
    /// end of its call, and is never spent.
    fn held_at_the_end(&self, axis: Axis) -> u64 {
        if axis == Axis::InFlight { 0 } else { self.reserved }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Terms {
    pub(crate) ttl: Duration,
    pub(crate) horizon: Duration,
    pub(crate) settle_every: Duration,
    /// The most units that a crash may leave in doubt; `None` where there is no bound.
    pub(crate) at_most: Vec<Option<u64>>,
    /// The confirmation that a grant needs before it is spent.
    pub(crate) confirm: Confirm,
}

#[derive(Debug, Clone, Default)]
struct Lane {
    /// The [`Local::spent`] at which this incarnation joined.
    base: u64,
    /// The total of the grants that the member has seen.
    granted: u64,
    returned: u64,
    spent: u64,
    /// The measured spend of a [`horizon`](Terms::horizon).
    chunk: u64,
    /// The [`Local::spent`] at the last [`measure`](Member::measure).
    mark: u64,
}

#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    incarnation: u64,
    terms: Terms,
    lanes: Vec<Lane>,
    measured: Instant,
}

impl Member {
    pub(crate) fn new(name: String, terms: Terms, now: Instant) -> Member {
        let lanes = vec![Lane::default(); terms.at_most.len()];
        Member { name, incarnation: 0, terms, lanes, measured: now }
    }

    pub(crate) fn id(&self) -> String {
        match self.incarnation {
            0 => self.name.clone(),
            again => format!("{}+{again}", self.name),
        }
    }

    /// Measures the spend of a `horizon`, over a whole [`interval`](Member::interval): an estimate
    /// over an instant would take a burst for a rate. A `chunk` at most doubles, and falls by a
    /// quarter.
    pub(crate) fn measure(&mut self, now: Instant, locals: &[Local]) {
        let interval = self.interval();
        let elapsed = now.saturating_duration_since(self.measured);
        if elapsed < interval {
            return;
        }
        self.measured = now;
        let (horizon, elapsed) = (self.terms.horizon.as_nanos(), elapsed.as_nanos().max(1));
        for (lane, local) in self.lanes.iter_mut().zip(locals) {
            let spent = local.spent.saturating_sub(lane.mark);
            lane.mark = local.spent;
            let rate = u128::from(spent).saturating_mul(horizon) / elapsed;
            let rate = u64::try_from(rate).unwrap_or(MOST).min(MOST);
            lane.chunk = if rate > lane.chunk {
                rate.min(lane.chunk.saturating_mul(2).max(spent))
            } else {
                lane.chunk - (lane.chunk - rate).div_ceil(4)
            };
        }
    }

    /// The least time between two measurements.
    pub(crate) fn interval(&self) -> Duration {
        (self.terms.horizon / 8).clamp(Duration::from_millis(10), Duration::from_millis(250))
    }

    /// Whether less than half of a `chunk` is free on an axis, within `at_most`, and the wallet had
    /// units to fetch ahead at its last `answer`.
    pub(crate) fn is_low(&self, locals: &[Local], answer: &Answer) -> bool {
        let lanes = self.lanes.iter().zip(locals).enumerate();
        lanes.into_iter().any(|(at, (lane, local))| {
            let goal = lane.chunk.min(self.room(at, local).saturating_add(local.free()));
            let share = answer.books[at].free() / answer.members.saturating_mul(2).max(1);
            share > 0 && (local.free() < goal / 2 || (goal > 0 && local.free() == 0))
        })
    }

    /// The units that may still come into doubt, by `at_most`.
    fn room(&self, at: usize, local: &Local) -> u64 {
        let in_doubt = local.free().saturating_add(local.reserved);
        self.terms.at_most[at].map_or(u64::MAX, |most| most.saturating_sub(in_doubt))
    }

    /// The units that the pool does not need: all free units while others stand short, else the
    /// free units beyond two chunks once more than four chunks are free. The driver takes them from
    /// the pool first, then calls [`gave_back`](Member::gave_back) with the units that it took.
    /// Only then does a [`request`](Member::request) tell them.
    pub(crate) fn surplus(&self, locals: &[Local], others_stand_short: bool) -> Vec<u64> {
        let lanes = self.lanes.iter().zip(locals).zip(self.unspent(locals));
        lanes
            .map(|((lane, local), unspent)| {
                let free = local.free();
                let keep = match (others_stand_short, free > lane.chunk.saturating_mul(4)) {
                    (true, _) => 0,
                    (false, true) => lane.chunk.saturating_mul(2),
                    (false, false) => return 0,
                };
                free.saturating_sub(keep).min(unspent)
            })
            .collect()
    }

    /// The units that the member holds in the store beyond its spend, told or not.
    fn unspent(&self, locals: &[Local]) -> Vec<u64> {
        let lanes = self.lanes.iter().zip(locals);
        lanes
            .map(|(lane, local)| {
                // A credit stays here: the store keeps the greatest spend that it was told.
                let told = lane.spent.max(local.spent.saturating_sub(lane.base));
                lane.granted.saturating_sub(lane.returned).saturating_sub(told)
            })
            .collect()
    }

    /// Whether the totals of the member have grown so large that it shall join anew, and it
    /// [holds nothing](Member::holds_nothing) once it has given back all free units.
    pub(crate) fn is_worn(&self, locals: &[Local]) -> bool {
        self.lanes.iter().any(|lane| lane.granted > WORN)
            && locals.iter().all(|local| local.reserved == 0)
            && self.surplus(locals, true) == self.unspent(locals)
    }

    /// Whether the store holds no more for the member than it has spent. Its pool can then spend no
    /// unit that a farewell gives away.
    pub(crate) fn holds_nothing(&self, locals: &[Local]) -> bool {
        locals.iter().all(|local| local.reserved == 0)
            && self.unspent(locals).iter().all(|units| *units == 0)
    }

    pub(crate) fn gave_back(&mut self, given: &[u64]) {
        for (lane, given) in self.lanes.iter_mut().zip(given) {
            lane.returned = lane.returned.saturating_add(*given);
        }
    }

    /// `needs` are the units that callers and waiters ask for, beyond `used` and `reserved`.
    pub(crate) fn request(&mut self, run: &str, needs: &[u64], locals: &[Local]) -> Request {
        let told = (0..self.lanes.len()).map(|at| {
            let local = &locals[at];
            let room = self.room(at, local);
            let lane = &mut self.lanes[at];
            lane.spent = lane.spent.max(local.spent.saturating_sub(lane.base));
            // New room pays the overage first.
            let owed = needs[at].saturating_add(local.overage);
            let floor = if needs[at] == 0 { 0 } else { owed.saturating_sub(local.free()) };
            // Until a rate is measured, as much again as was spent since: a burst takes a number of
            // exchanges that grows with its logarithm.
            let recent = if floor == 0 { 0 } else { local.spent.saturating_sub(lane.mark) };
            let ahead = owed.saturating_add(lane.chunk.max(recent)).saturating_sub(local.free());
            let want = ahead.min(room.saturating_add(local.overage)).max(floor);
            let Lane { spent, returned, granted, .. } = *lane;
            Told { spent, returned, seen: granted, want: want.min(MOST), floor: floor.min(MOST) }
        });
        let told = told.collect();
        self.message(Op::Exchange, run, told)
    }

    /// The `reserved` units count as spent: their owners may spend them yet, and tell nobody.
    pub(crate) fn farewell(&mut self, axes: &Axes, run: &str, locals: &[Local]) -> Request {
        let told = self.lanes.iter_mut().zip(locals).zip(&axes.0).map(|((lane, local), &axis)| {
            let held = local.held_at_the_end(axis);
            let spent = local.spent.saturating_sub(lane.base).saturating_add(held);
            lane.spent = lane.spent.max(spent);
            Told {
                spent: lane.spent,
                returned: lane.returned,
                seen: lane.granted,
                want: 0,
                floor: 0,
            }
        });
        let told = told.collect();
        self.message(Op::Farewell, run, told)
    }

    /// The [`Entry`] for the journal of this process.
    pub(crate) fn entry(&self, axes: &Axes, heard: u64, locals: &[Local]) -> Entry {
        let lanes = self.lanes.iter().zip(locals).zip(&axes.0);
        let lane = |((lane, local), &axis): ((&Lane, &Local), &Axis)| journal::Lane {
            spent: local.spent.saturating_sub(lane.base),
            reserved: local.held_at_the_end(axis),
        };
        let lanes = lanes.map(lane).collect();
        Entry { member: self.id(), axes: axes.words(), lanes, heard, is_settled: false }
    }

    fn message(&self, op: Op, run: &str, told: Vec<Told>) -> Request {
        let claim = self.terms.settle_every.saturating_mul(2).max(Duration::from_secs(1));
        Request {
            op,
            member: self.id(),
            ttl: millis(self.terms.ttl),
            claim: millis(claim),
            run: run.to_owned(),
            told,
        }
    }

    /// Whether `answer` has a grant that this member has not seen, and would spend.
    pub(crate) fn is_news(&self, answer: &Answer) -> bool {
        let mut lanes = self.lanes.iter().zip(&answer.totals);
        !matches!(answer.state, State::Gone | State::Closed)
            && lanes.any(|(lane, totals)| totals.granted > lane.granted)
    }

    /// Takes in the `answer` of the store. On [`State::Gone`] and [`State::Closed`] the member joins
    /// anew: the store has booked its told spend, and the rest of its grant is no longer its own.
    pub(crate) fn accept(&mut self, request: &Request, answer: &Answer) {
        if matches!(answer.state, State::Gone | State::Closed) {
            self.incarnation += 1;
            for lane in &mut self.lanes {
                let base = lane.base.saturating_add(lane.spent);
                *lane = Lane { base, chunk: lane.chunk, mark: lane.mark, ..Lane::default() };
            }
            return;
        }
        for ((lane, totals), told) in self.lanes.iter_mut().zip(&answer.totals).zip(&request.told) {
            debug_assert!(told.seen <= totals.granted, "the store knows what was seen");
            lane.granted = lane.granted.max(totals.granted);
        }
    }

    /// The cap for the local pool: `base + granted - returned`.
    pub(crate) fn target(&self, at: usize) -> u64 {
        let lane = &self.lanes[at];
        lane.base.saturating_add(lane.granted.saturating_sub(lane.returned))
    }

    /// The greatest cap that this wallet can ever bring the local pool: a call above it has
    /// `Outlook::Never`.
    pub(crate) fn ceiling(&self, at: usize, answer: &Answer, local: &Local) -> u64 {
        let (book, lane) = (&answer.books[at], &self.lanes[at]);
        if answer.period_end > 0 {
            // The whole grant may be spent before the next answer, and comes back with the period.
            return self.target(at).max(local.spent).saturating_add(book.cap).max(local.cap);
        }
        let spent = lane.base.saturating_add(lane.spent);
        let rest = book.cap.saturating_sub(book.used);
        spent.saturating_add(rest).max(local.cap)
    }

    /// The units that the member holds in the store beyond its told `spent`. A crash leaves them in
    /// doubt.
    pub(crate) fn in_doubt(&self, at: usize) -> u64 {
        let lane = &self.lanes[at];
        lane.granted.saturating_sub(lane.returned).saturating_sub(lane.spent)
    }
}

pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(MOST).clamp(1, MOST / 4)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::protocol::Lost;
    use crate::rules::Wallet;

    fn member(at_most: Option<u64>) -> (Member, Instant) {
        let second = Duration::from_secs(1);
        let terms = Terms {
            ttl: 10 * second,
            horizon: second,
            settle_every: second,
            at_most: vec![at_most],
            confirm: Confirm::None,
        };
        let now = Instant::now();
        (Member::new("m".to_owned(), terms, now), now)
    }

    fn spent(cap: u64, spent: u64) -> Local {
        Local { cap, used: spent.min(cap), overage: spent.saturating_sub(cap), spent, reserved: 0 }
    }

    #[test]
    fn a_burst_is_no_rate() {
        let (mut member, now) = member(None);
        member.measure(now + Duration::from_millis(1), &[spent(100, 40)]);
        assert_eq!(member.lanes[0].chunk, 0);
        // 40 in 125 ms are 320 a second: the first estimate takes what was spent.
        member.measure(now + Duration::from_millis(125), &[spent(100, 40)]);
        assert_eq!(member.lanes[0].chunk, 40);
        member.measure(now + Duration::from_millis(250), &[spent(100, 80)]);
        assert_eq!(member.lanes[0].chunk, 80);
    }

    #[test]
    fn a_burst_fetches_as_much_again_as_it_has_spent() {
        let (mut member, _) = member(None);
        let mut wallet = Wallet::found(&[1_000_000], Lost::Charge, 0, "run", 0);
        let mut calls = 0;
        for units in 0..1_000 {
            let local = spent(member.target(0), units);
            if local.free() == 0 {
                let request = member.request("run", &[1], &[local]);
                let answer = wallet.exchange(1, &request).unwrap();
                member.accept(&request, &answer);
                calls += 1;
            }
        }
        assert!((9..=12).contains(&calls), "{calls}");
        assert!(member.target(0) <= 2_048, "{}", member.target(0));
    }

    #[test]
    fn who_spends_no_more_wants_nothing_in_the_end() {
        let (mut member, now) = member(None);
        member.measure(now + Duration::from_secs(1), &[spent(5_000, 1_000)]);
        let chunks = (2..30).map(|second| {
            member.measure(now + Duration::from_secs(second), &[spent(5_000, 1_000)]);
            member.lanes[0].chunk
        });
        assert_eq!(chunks.last(), Some(0));
    }

    #[test]
    fn f3_no_more_is_wanted_ahead_than_a_crash_may_cost() {
        let (mut member, now) = member(Some(50));
        member.measure(now + Duration::from_secs(1), &[spent(5_000, 1_000)]);
        let local = Local { cap: 1_010, used: 1_000, spent: 1_000, reserved: 5, overage: 0 };
        let told = member.request("run", &[0], &[local]).told[0];
        assert_eq!((told.want, told.floor), (40, 0));
        // One call may need more than that.
        let told = member.request("run", &[100], &[local]).told[0];
        assert_eq!((told.want, told.floor), (95, 95));
    }

    #[test]
    fn what_is_given_back_is_told_afterwards() {
        let (mut member, now) = member(None);
        let mut wallet = Wallet::found(&[1_000], Lost::Charge, 0, "run", 0);
        let request = member.request("run", &[100], &[Local::default()]);
        let answer = wallet.exchange(1, &request).unwrap();
        member.accept(&request, &answer);
        assert_eq!((member.target(0), answer.books[0].charged), (100, 100));

        let local = spent(100, 30);
        assert_eq!(member.surplus(&[local], false), [70]);
        member.measure(now + Duration::from_secs(1), &[local]);
        assert_eq!(member.surplus(&[local], false), [0]);
        assert_eq!(member.surplus(&[local], true), [70]);
        member.gave_back(&[60]);
        assert_eq!(member.target(0), 40);
        let request = member.request("run", &[0], &[spent(40, 30)]);
        assert_eq!((request.told[0].returned, request.told[0].spent), (60, 30));
        assert_eq!(wallet.exchange(2, &request).unwrap().books[0].used, 30);
    }

    #[test]
    fn f2_who_was_closed_joins_anew_and_books_nothing_twice() {
        let (mut member, _) = member(None);
        let mut wallet = Wallet::found(&[1_000], Lost::Charge, 0, "run", 0);
        let request = member.request("run", &[100], &[Local::default()]);
        let answer = wallet.exchange(1, &request).unwrap();
        member.accept(&request, &answer);
        wallet.resolve(2, "m", Some(&[10])).unwrap();

        let request = member.request("run", &[0], &[spent(100, 30)]);
        let answer = wallet.exchange(3, &request).unwrap();
        assert_eq!((answer.state, answer.books[0].used), (State::Gone, 30));
        member.accept(&request, &answer);
        assert_eq!((member.id(), member.target(0)), ("m+1".to_owned(), 30));

        let request = member.request("run", &[5], &[spent(30, 30)]);
        let answer = wallet.exchange(4, &request).unwrap();
        member.accept(&request, &answer);
        assert_eq!((answer.books[0].used, member.target(0)), (30, 65));
    }

    #[test]
    fn f4_a_member_joins_anew_before_its_totals_are_full() {
        let (mut member, _) = member(None);
        let mut wallet = Wallet::found(&[MOST], Lost::Charge, 0, "run", 0);
        let axes = Axes(vec![Axis::Tokens]);
        let unit = MOST / 9;
        for round in 0..40 {
            let mut local = spent(member.target(0), round);
            if member.is_worn(&[local]) {
                let given = member.surplus(&[local], true);
                member.gave_back(&given);
                local = spent(member.target(0), round);
                assert!(member.holds_nothing(&[local]) && local.free() == 0);
                let request = member.farewell(&axes, "run", &[local]);
                let answer = wallet.exchange(round, &request).unwrap();
                assert_eq!(answer.state, State::Closed);
                member.accept(&request, &answer);
                local = spent(member.target(0), round);
                assert_eq!((local.cap, wallet.books[0].charged), (round, round));
            }
            let request = member.request("run", &[unit], &[local]);
            let answer = wallet.exchange(round, &request).unwrap();
            assert_eq!(answer.state, State::Granted, "{round}");
            member.accept(&request, &answer);
            assert!(spent(member.target(0), round).free() >= unit);
            // A hold is open: its end may spend what a farewell would give away.
            let held = Local { reserved: unit, ..spent(member.target(0), round) };
            assert!(!member.is_worn(&[held]) && !member.holds_nothing(&[held]));
            let given = member.surplus(&[spent(member.target(0), round + 1)], true);
            member.gave_back(&given);
            let request = member.request("run", &[0], &[spent(member.target(0), round + 1)]);
            let answer = wallet.exchange(round, &request).unwrap();
            member.accept(&request, &answer);
            let book = wallet.books[0];
            assert_eq!((book.charged, book.used), (round + 1, round + 1));
        }
        assert!(member.id().starts_with("m+"), "{}", member.id());
    }

    #[test]
    fn overage_is_paid_by_a_grant_that_is_charged_already() {
        let (mut member, _) = member(None);
        let mut wallet = Wallet::found(&[100], Lost::Charge, 0, "run", 0);
        let request = member.request("run", &[10], &[spent(0, 130)]);
        let answer = wallet.exchange(1, &request).unwrap();
        assert_eq!((answer.state, answer.books[0].charged), (State::Short(0), 130));
        member.accept(&request, &answer);
        assert_eq!(member.target(0), 130);
    }
}
