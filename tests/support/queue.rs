//! The model's queue: a list of all who wait, by ticket, that is looked at as a whole after every
//! change.
//!
//! Each pool has its own line, first come, first served. The first of each line is a candidate. It
//! stays blocked at the pool that refused it for as long as that pool refuses it (for lack of room,
//! or because an earlier one is parked there), and is parked there and at the pools on the way
//! there where it competes; then it is tried again from its own pool upward. Whoever came first is
//! tried first. Whoever can never be met is told so at once, before anybody is served.
//!
//! # Time
//!
//! Here the model is as lazy as the library says it is, for it can be seen who was woken by which
//! call:
//!
//! - Whoever waits for a deadline that has come is told by the next call, on any pool, that is told
//!   the time, and before anything else that is due is done.
//! - A window turns when a call on its pool, or on one below, is told the time; or one that looks
//!   at it from above; and in its time, at the next call on any pool that is told the time, for the
//!   first that is blocked there. (While nobody waits nobody can see that, and the model turns all
//!   windows in their time.) Those who wait for it are served then.
//! - What can never be met, by what time brings, is judged by the deadline of each pool for itself.
//!   One that waits in a pool whose deadline is before that of a pool with a window above it may be
//!   told somewhat later: it does not wait here.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::asks::Wish;
use super::events::Event;
use super::language::{LANES, Units};
use super::name;
use super::oracle::{Balances, HoldId, Model, Nanos, PoolId, Refusal, When};

pub(super) type WaitId = usize;

/// The order of arrival.
type Ticket = u64;

#[derive(Debug, Default)]
pub(super) struct Waits {
    /// Until their owners let go of them, or learn what became of them.
    all: BTreeMap<WaitId, Wait>,
    made: usize,
    last_ticket: Ticket,
    /// Nobody is served while all that has expired is reclaimed for the figures of a refusal.
    are_held_back: bool,
}

#[derive(Debug, Clone)]
struct Wait {
    home: PoolId,
    /// With what it has in flight. Of several that would do, the least.
    asked: Units,
    wish: Option<Rc<Wish>>,
    /// When it gives up, if it has asked and ever does.
    until: Option<Nanos>,
    /// Whether it waits to spend, and not for a hold.
    is_spend: bool,
    /// Whether only a higher cap could meet it when it came.
    needs_funds: bool,
    /// Where it was blocked last. It keeps its places there while it is tried, until it is granted.
    kept: Option<PoolId>,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// It has asked for nothing yet.
    New,
    Waiting {
        ticket: Ticket,
        blocked: Option<PoolId>,
    },
    /// Its time was over when its alarm rang: it has left the line, and is answered when it is polled.
    Over,
    Ended(Result<HoldId, Refusal>),
}

impl Wait {
    fn blocked(&self) -> Option<PoolId> {
        match self.state {
            State::Waiting { blocked, .. } => blocked,
            _ => None,
        }
    }

    fn ticket(&self) -> Option<Ticket> {
        match self.state {
            State::Waiting { ticket, .. } => Some(ticket),
            _ => None,
        }
    }
}

/// The calls of a wait.
impl Model {
    /// It keeps its pool, and asks when it is polled.
    pub(super) fn wait(&mut self, home: PoolId, asked: &Units, is_spend: bool) -> WaitId {
        let id = self.waits.made;
        self.waits.made += 1;
        let (wish, until, needs_funds, state) = (None, None, false, State::New);
        let kept = None;
        let wait = Wait { home, asked: *asked, wish, until, is_spend, needs_funds, kept, state };
        self.waits.all.insert(id, wait);
        self.pool(home).handles += 1;
        id
    }

    /// The same on a wish.
    pub(super) fn wait_on(&mut self, home: PoolId, wish: Wish) -> WaitId {
        let id = self.wait(home, &wish.least(), false);
        self.waits.all.get_mut(&id).expect("it was just made").wish = Some(Rc::new(wish));
        id
    }

    /// What became of it, if it has ended: that is told once. A spend is spent by that.
    pub(super) fn poll(&mut self, id: WaitId) -> Option<Result<Option<HoldId>, Refusal>> {
        if self.is_new(id) {
            self.enter(id);
        }
        self.end_times();
        if matches!(self.waits.all[&id].state, State::Over) {
            self.give_up(id);
        }
        let State::Ended(outcome) = self.waits.all[&id].state.clone() else { return None };
        let wait = self.waits.all.remove(&id).expect("it was just there");
        let outcome = outcome.map(|hold| match wait.is_spend {
            true => {
                self.end_spend(hold, true);
                None
            }
            false => Some(hold),
        });
        if let (Ok(Some(hold)), Some(wish)) = (&outcome, &wait.wish) {
            self.agree(*hold, wish);
        }
        self.drop_handle(wait.home);
        Some(outcome)
    }

    fn enter(&mut self, id: WaitId) {
        let Wait { home, asked, ref wish, .. } = self.waits.all[&id];
        if let Some(wish) = wish.clone() {
            if let Some(pick) = self.pick_now(home, &wish) {
                let hold = self.begin_pick(home, pick);
                return self.set(id, State::Ended(Ok(hold)));
            }
            let until = wish.at_most.and_then(|time| self.later(time));
            self.waits.all.get_mut(&id).expect("a wait").until = until;
        }
        let mut needs_funds = false;
        let hopeless = self.fits(home, &asked).or_else(|refusal| match refusal.summary() {
            (_, _, When::Never, _) => Err(refusal),
            (_, _, outlook, _) => {
                needs_funds = outlook == When::AfterFunding;
                Ok(())
            }
        });
        let paused = self.unpaused(home, &asked).or_else(|refusal| match refusal.summary() {
            (_, _, When::Never, _) => Err(refusal),
            _ => Ok(()),
        });
        let in_time = self.open(home).and_then(|()| self.in_time(home));
        if let Err(refusal) = in_time.and(paused).and(hopeless) {
            return self.refuse(id, refusal);
        }
        let until = self.waits.all[&id].until;
        if until.is_some_and(|until| self.cannot_be_met_by(home, &asked, until)) {
            self.meet("a wait cannot be met in its time");
            let refusal = self.ask(home, &asked);
            return self.refuse(id, refusal.expect_err("it does not fit"));
        }
        let is_at_once =
            self.waits.all[&id].wish.is_none() && self.ask_in_turn(home, &asked).is_ok();
        if let Some(refusal) = self.full(home).filter(|_| !is_at_once) {
            return self.refuse(id, refusal);
        }
        self.waits.last_ticket += 1;
        self.waits.all.get_mut(&id).expect("a wait").needs_funds = needs_funds;
        self.set(id, State::Waiting { ticket: self.waits.last_ticket, blocked: None });
        self.serve();
        let is_through_joint = self.path(home).iter().any(|pool| self.is_joint(*pool));
        if is_through_joint && !self.has_ended(id) {
            self.meet("one waits through a joint pool");
        }
    }

    /// The first line on the way up that has no place for one more.
    fn full(&self, home: PoolId) -> Option<Refusal> {
        self.path(home).into_iter().find_map(|pool| {
            let most = self.pools[&pool].most_waiting?;
            let is_full = self.waiting(pool) >= u64::from(most);
            is_full.then(|| Refusal::QueueFull { pool: name(pool), most })
        })
    }

    /// Those whose time is over leave the line, in the order of time.
    pub(super) fn end_times(&mut self) {
        while let Some(id) = self.next_end() {
            self.meet("the time of a wait ends it");
            self.set(id, State::Over);
            self.serve();
        }
    }

    fn next_end(&self) -> Option<WaitId> {
        let until = |&(_, wait): &(WaitId, &Wait)| wait.until.unwrap_or(Nanos::MAX);
        let (id, wait) = self.line().into_iter().min_by_key(until)?;
        wait.until.filter(|until| *until <= self.now).map(|_| id)
    }

    /// It is answered as a call would be that comes now.
    fn give_up(&mut self, id: WaitId) {
        let Wait { home, ref wish, .. } = self.waits.all[&id];
        let wish = Rc::clone(wish.as_ref().expect("it was given a time"));
        let outcome = self.reserve_on(home, &wish).map_err(|refusal| Refusal::Timeout {
            pool: name(home),
            waited: wish.at_most.expect("it was given a time"),
            refusal: Box::new(refusal),
        });
        if let Err(refusal) = &outcome {
            self.tell(Event::Refused(refusal.clone()));
        }
        if outcome.is_ok() {
            self.meet("one that gives up is granted another choice");
        }
        self.set(id, State::Ended(outcome));
    }

    /// Its owner has gone: nothing is lost, whatever became of it.
    pub(super) fn cancel(&mut self, id: WaitId) {
        let wait = self.waits.all.remove(&id).expect("a wait");
        if let State::Ended(Ok(granted)) = wait.state {
            self.turn_to_present(&self.path(wait.home));
            match wait.is_spend {
                true => self.end_spend(granted, false),
                false => self.release(granted),
            }
        }
        self.serve();
        self.drop_handle(wait.home);
    }
}

/// What is seen of it.
impl Model {
    pub(super) fn home(&self, id: WaitId) -> PoolId {
        self.waits.all[&id].home
    }

    /// Whether its terms take a time, so that each poll is told the time.
    pub(super) fn takes_time(&self, id: WaitId) -> bool {
        let wish = self.waits.all[&id].wish.as_ref();
        wish.is_some_and(|wish| wish.ttl.is_some() || wish.at_most.is_some())
    }

    /// The instants at which those who wait give up.
    pub(super) fn ends_of_waits(&self) -> Vec<Nanos> {
        self.line().into_iter().filter_map(|(_, wait)| wait.until).collect()
    }

    pub(super) fn is_new(&self, id: WaitId) -> bool {
        matches!(self.waits.all[&id].state, State::New)
    }

    pub(super) fn has_ended(&self, id: WaitId) -> bool {
        matches!(self.waits.all[&id].state, State::Over | State::Ended(_))
    }

    /// How many wait in a pool and in those below.
    pub(super) fn waiting(&self, top: PoolId) -> u64 {
        let below = self.line().into_iter().filter(|(_, wait)| self.is_below(wait.home, top));
        below.count() as u64
    }

    pub(super) fn anybody_waits(&self) -> bool {
        !self.line().is_empty()
    }

    /// What is asked of a pool by those who are blocked there, the earliest first.
    pub(super) fn blocked_at(&self, pool: PoolId) -> Vec<Units> {
        let is_here = |wait: &&Wait| matches!(wait.state, State::Waiting { blocked, .. } if blocked == Some(pool));
        let asked = |wait: &Wait| {
            let way = self.asked_on_path(wait.home, &wait.asked).into_iter();
            way.filter(|(at, _)| *at == pool).map(|(_, asked)| asked).collect::<Vec<_>>()
        };
        let line = self.line().into_iter().map(|(_, wait)| wait);
        line.filter(is_here).flat_map(asked).collect()
    }

    /// Whether what a pool gives back may serve one that waits.
    pub(super) fn is_waited_for(&self, at: PoolId) -> bool {
        self.is_waited_for_by(at, &Wait::blocked)
    }

    fn is_waited_for_by(&self, at: PoolId, blocked: &impl Fn(&Wait) -> Option<PoolId>) -> bool {
        let is_parked = |pool| {
            let mut line = self.line().into_iter();
            line.any(|(_, wait)| self.is_parked_before(blocked(wait), wait, pool))
        };
        self.path(at).into_iter().any(is_parked)
    }

    /// Where the first of all who wait does so, and for what.
    pub(super) fn first_of_all(&self) -> Option<(PoolId, Units)> {
        self.line().first().map(|(_, wait)| (wait.home, wait.asked))
    }

    /// Whether one that waits here may be told late that it waits in vain.
    pub(super) fn may_wait_in_vain(&self, home: PoolId) -> bool {
        let at = |pool| self.deadline(pool).map(|(_, deadline)| deadline.at());
        self.path(home)
            .into_iter()
            .any(|pool| self.pools[&pool].window.is_some() && at(pool) != at(home))
    }
}

/// How it moves on.
impl Model {
    /// All who wait, the earliest first.
    fn line(&self) -> Vec<(WaitId, &Wait)> {
        let mut line: Vec<_> =
            self.waits.all.iter().filter(|(_, wait)| wait.ticket().is_some()).collect();
        line.sort_by_key(|(_, wait)| wait.ticket());
        line.into_iter().map(|(id, wait)| (*id, wait)).collect()
    }

    fn set(&mut self, id: WaitId, state: State) {
        let wait = self.waits.all.get_mut(&id).expect("a wait");
        if let State::Waiting { blocked: Some(pool), .. } = state {
            wait.kept = Some(pool);
        }
        wait.state = state;
    }

    fn refuse(&mut self, id: WaitId, refusal: Refusal) {
        let Wait { home, asked, .. } = self.waits.all[&id];
        self.count(home, false);
        self.note_lacks(home, &asked, &refusal);
        self.tell(Event::Refused(refusal.clone()));
        self.set(id, State::Ended(Err(refusal)));
    }

    /// Tells all of whom that can be said now. Returns whether there are any.
    fn refuse_all(&mut self, why: impl Fn(&Model, PoolId, &Units) -> Result<(), Refusal>) -> bool {
        let mut refusals = Vec::new();
        for (id, wait) in self.line() {
            refusals.extend(why(self, wait.home, &wait.asked).err().map(|refusal| (id, refusal)));
        }
        let is_any = !refusals.is_empty();
        for (id, refusal) in refusals {
            self.refuse(id, refusal);
        }
        is_any
    }

    pub(super) fn tell_late(&mut self) {
        if self.refuse_all(|model, home, _| model.in_time(home)) {
            self.serve();
        }
    }

    pub(super) fn tell_closed(&mut self) {
        self.refuse_all(|model, home, _| model.open(home));
    }

    /// A pause began. Those that cannot outlast it are told; of the others, the first of each line
    /// below is tried again from its own pool upward.
    pub(super) fn pause_began(&mut self, top: PoolId) {
        self.refuse_all(|model, home, asked| match model.outlasts(home) {
            true => model.unpaused(home, asked).and_then(|()| model.fits(home, asked)),
            false => Ok(()),
        });
        self.try_anew(|model, home, _| model.is_below(home, top));
    }

    /// A pause ended. So is the first of each line that it blocked.
    pub(super) fn pause_ended(&mut self, top: PoolId) {
        self.try_anew(|_, _, blocked| blocked == Some(top));
    }

    fn try_anew(&mut self, is_meant: impl Fn(&Model, PoolId, Option<PoolId>) -> bool) {
        for (id, wait) in self.waits.all.clone() {
            match wait.state {
                State::Waiting { ticket, blocked } if is_meant(self, wait.home, blocked) => {
                    self.set(id, State::Waiting { ticket, blocked: None });
                }
                _ => {}
            }
        }
    }

    /// Serves all who can be; then, as long as one waits where a hold may expire, those whom each
    /// hold serves that has expired by the latest instant seen, one after the other.
    pub(super) fn serve(&mut self) {
        if self.waits.are_held_back {
            return;
        }
        self.serve_now();
        let has_room = self.next_room().is_some_and(|(at, _)| at <= self.now);
        let is_over = self.next_pause().is_some_and(|(until, _)| until <= self.now);
        if has_room || is_over || self.is_contested() {
            self.happen_next();
        }
    }

    /// Whether one is blocked at a pool with a window.
    pub(super) fn waits_at_a_window(&self) -> bool {
        self.line().into_iter().any(|(_, wait)| match wait.state {
            State::Waiting { blocked: Some(pool), .. } => self.pools[&pool].window.is_some(),
            _ => false,
        })
    }

    /// When a window next brings enough for one that waits: the first that is blocked there.
    pub(super) fn next_room(&self) -> Option<(Nanos, WaitId)> {
        let balances = self.balances();
        let room = |(id, wait): (WaitId, &Wait)| {
            let State::Waiting { blocked: Some(pool), .. } = wait.state else { return None };
            let is_parked = |other: &Wait| self.is_parked(other, pool);
            let first = self.line().into_iter().find(|(_, other)| is_parked(other));
            let is_first = first.is_some_and(|(first, _)| first == id);
            let is_windowed = self.pools[&pool].window.is_some();
            if !is_first || !is_windowed || self.pools[&pool].paused.is_some() {
                return None;
            }
            let way = self.asked_on_path(wait.home, &wait.asked);
            let (_, asked) = way.into_iter().find(|(on_way, _)| *on_way == pool)?;
            let short = self.short(&balances[&pool], pool, &asked, self.deadline(pool));
            let times = short.iter().map(|refusal| match refusal.outlook {
                When::At(at) => Some(at),
                _ => None,
            });
            Some((times.collect::<Option<Vec<Nanos>>>()?.into_iter().max()?, id))
        };
        self.line().into_iter().filter_map(room).min()
    }

    /// A window has brought enough for one that waits.
    pub(super) fn turn_for(&mut self, id: WaitId) {
        self.meet("a window turns for one that waits");
        self.turn_windows(&self.path(self.home(id)));
        if let State::Waiting { ticket, .. } = self.waits.all[&id].state {
            self.set(id, State::Waiting { ticket, blocked: None });
        }
    }

    /// Whether the expiry of a hold may serve one that waits.
    fn is_contested(&self) -> bool {
        self.is_contested_by(Wait::blocked)
    }

    fn is_contested_by(&self, blocked: impl Fn(&Wait) -> Option<PoolId>) -> bool {
        let mut live = self.holds.values().filter(|hold| hold.is_live() && hold.expiry.is_some());
        live.any(|hold| self.is_waited_for_by(hold.pool, &blocked))
    }

    /// Where one can never be met and no expiry can serve one that waits, all holds expire that do so
    /// by the latest instant seen, so that a refusal says what is free. Whoever loses hope by one of
    /// them is told at once.
    fn expire_for_figures(&mut self) {
        let balances = self.balances();
        let mut line = self.line().into_iter();
        if !line.any(|(_, wait)| self.is_hopeless(&balances, wait.home, &wait.asked))
            || self.is_contested_by(|wait| wait.kept)
        {
            return;
        }
        self.waits.are_held_back = true;
        while self.expire_next(self.now) {}
        self.waits.are_held_back = false;
    }

    /// Tells all who can never be met, then serves all who can be.
    fn serve_now(&mut self) {
        self.expire_for_figures();
        let balances = self.balances();
        self.refuse_all(|model, home, asked| match model.is_hopeless(&balances, home, asked) {
            true => model.fits(home, asked),
            false => Ok(()),
        });
        while let Some(id) = self.next_to_try() {
            let Wait { home, asked, ref wish, .. } = self.waits.all[&id];
            let wish = wish.clone();
            if self.is_behind(home, self.moment) {
                self.turn(&self.path(home));
                continue;
            }
            let ticket = self.waits.all[&id].ticket().expect("it waits");
            // Where it was parked nothing holds it, and it is in nobody's way there while it is
            // tried.
            self.set(id, State::Waiting { ticket, blocked: None });
            let (balances, way) = (self.balances(), self.asked_on_path(home, &asked));
            let refuses =
                |(pool, asked): &(PoolId, Units)| self.refuses(&balances, *pool, asked, id);
            match way.into_iter().find(refuses) {
                Some((pool, _)) => self.set(id, State::Waiting { ticket, blocked: Some(pool) }),
                None if wish.as_ref().is_some_and(|wish| self.bring_up(home, wish)) => {}
                None if wish.is_some() => self.grant_on(id, &wish.expect("it has one")),
                None => {
                    self.count(home, true);
                    if self.waits.all[&id].needs_funds {
                        self.meet("a wait is funded");
                    }
                    let hold = match self.waits.all[&id].is_spend {
                        true => self.begin_spend(home, asked),
                        false => self.begin(home, asked),
                    };
                    self.set(id, State::Ended(Ok(hold)));
                }
            }
        }
    }

    /// The best that passes no earlier one.
    fn grant_on(&mut self, id: WaitId, wish: &Wish) {
        let wait = self.waits.all[&id].clone();
        let pick = self.pick(wait.home, wish, |model, units| {
            let is_earlier =
                |other: &Wait, pool| other.ticket() < wait.ticket() && model.is_parked(other, pool);
            let passes = |(pool, asked): (PoolId, Units)| {
                let competes = model.competes(wait.home, pool, &asked);
                competes && model.line().into_iter().any(|(_, other)| is_earlier(other, pool))
            };
            !model.asked_on_path(wait.home, units).into_iter().any(passes)
        });
        let pick = pick.expect("its least fits, and passes nobody");
        for (what, happens) in [
            ("a wait is funded", wait.needs_funds),
            ("a wait is granted more than its least", pick.held != wait.asked),
        ] {
            if happens {
                self.meet(what);
            }
        }
        let hold = self.begin_pick(wait.home, pick);
        self.hold(hold).label = wish.label;
        self.set(id, State::Ended(Ok(hold)));
    }

    /// Whether one of the pools can never give so much: neither by a release nor, before its own
    /// deadline, by time.
    fn is_hopeless(&self, balances: &Balances, home: PoolId, asked: &Units) -> bool {
        self.asked_on_path(home, asked).into_iter().any(|(pool, asked)| {
            let short = self.short(&balances[&pool], pool, &asked, self.deadline(pool));
            short.iter().any(|refusal| refusal.outlook == When::Never)
        })
    }

    /// The earliest of those who are the first of their line, and are not held where they are
    /// blocked.
    fn next_to_try(&self) -> Option<WaitId> {
        let (mut lines, balances) = (Vec::new(), self.balances());
        for (id, wait) in self.line() {
            if lines.contains(&wait.home) {
                continue;
            }
            lines.push(wait.home);
            let State::Waiting { blocked, .. } = wait.state else { unreachable!("it is in line") };
            let way = self.asked_on_path(wait.home, &wait.asked);
            let is_held = |(pool, asked): &(PoolId, Units)| {
                blocked == Some(*pool) && self.refuses(&balances, *pool, asked, id)
            };
            if !way.iter().any(is_held) {
                return Some(id);
            }
        }
        None
    }

    /// Whether a pool refuses one that waits: it does not fit, or an earlier one is parked there.
    fn refuses(&self, balances: &Balances, pool: PoolId, asked: &Units, id: WaitId) -> bool {
        let wait = &self.waits.all[&id];
        let is_earlier =
            |other: &Wait| other.ticket() < wait.ticket() && self.is_parked(other, pool);
        let free = balances[&pool].free();
        let is_short = (0..LANES).any(|axis| asked[axis] > free[axis]);
        let is_here = matches!(wait.state, State::Waiting { blocked, .. } if blocked == Some(pool));
        let in_line = is_here || self.competes(wait.home, pool, asked);
        let is_paused = self.pools[&pool].paused.is_some();
        is_short
            || is_paused
            || (in_line && self.line().into_iter().any(|(_, other)| is_earlier(other)))
    }

    /// Its own pool, or one with a cap on any of what is asked of it.
    fn competes(&self, home: PoolId, pool: PoolId, asked: &Units) -> bool {
        home == pool || (0..LANES).any(|axis| asked[axis] > 0 && self.pools[&pool].is_capped(axis))
    }

    /// Whether one keeps a place at a pool: where it is blocked, and on the way there where it
    /// competes.
    fn is_parked(&self, wait: &Wait, pool: PoolId) -> bool {
        self.is_parked_before(wait.blocked(), wait, pool)
    }

    fn is_parked_before(&self, blocked: Option<PoolId>, wait: &Wait, pool: PoolId) -> bool {
        let Some(blocked) = blocked else { return false };
        for (on_way, asked) in self.asked_on_path(wait.home, &wait.asked) {
            if on_way == pool {
                return pool == blocked || self.competes(wait.home, pool, &asked);
            }
            if on_way == blocked {
                break;
            }
        }
        false
    }

    /// Whoever asks without patience must not pass those who wait for the same.
    pub(super) fn in_turn(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let mut way = self.asked_on_path(at, units).into_iter();
        let has_line = |pool| {
            self.line().into_iter().any(|(_, wait)| wait.home == pool || self.is_parked(wait, pool))
        };
        match way.find(|(pool, asked)| self.competes(at, *pool, asked) && has_line(*pool)) {
            Some((pool, _)) => Err(Refusal::Queued { pool: name(pool) }),
            None => Ok(()),
        }
    }

    /// The same, of a call that its turn would help: what no release makes room for is not refused
    /// because of those who wait.
    pub(super) fn queued(&self, at: PoolId, units: &Units) -> Result<(), Refusal> {
        let refusal = self.in_turn(at, units);
        match self.fits(at, units) {
            Err(lack) if lack.summary().2 > When::AfterRelease => Ok(()),
            _ => refusal,
        }
    }
}
