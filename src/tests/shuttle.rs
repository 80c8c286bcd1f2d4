//! What loom cannot reach: many threads with long histories. Shuttle tells each story in thousands
//! of schedules that it picks at random: one half step by step, the other with a few changes of who
//! goes first (PCT).
//!
//! The threads' own sums are exact: what they were told or admitted is what the pools have booked,
//! whatever the schedule. What they do is rolled with shuttle's dice, so that it is part of the
//! schedule. One that fails is printed, and told again by `BUDGET_POOL_SCHEDULE=...` and the name
//! of the test.
//!
//! Under this cfg a thread that parks never wakes early, and no time passes but a `ManualClock`'s:
//! whoever is not woken sleeps for ever, which shuttle reports.
//!
//! `RUSTFLAGS="--cfg budget_pool_shuttle" cargo test --release --lib tests::shuttle:: --
//! --nocapture`; for others and more, `SHUTTLE_RANDOM_SEED=17 BUDGET_POOL_SCHEDULES=100000`.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::any::type_name;
use std::array;
use std::collections::BTreeMap;
use std::env;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::thread::panicking;
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::thread::{scope, yield_now};
use shuttle::{Config, MaxSteps, Runner};

use crate::sync::thread::{park, unparker};
use crate::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Clock, ManualClock, OnDrop, Once, Quantity,
    Receipt, Reservation, Snapshot, TreeSnapshot, Usd, Wait, Window,
};

/// How often PCT changes who goes first.
const CHANGES: usize = 10;

/// Says how many schedules there were, also if the last one failed.
struct Told(&'static str, Arc<AtomicUsize>);

impl Drop for Told {
    fn drop(&mut self) {
        let Told(story, times) = self;
        println!("{story}: {} schedules", times.load(Relaxed));
    }
}

fn explore<S: Fn() + Copy + Send + Sync + 'static>(story: S) {
    let told = Told(type_name::<S>().trim_end_matches("::{{closure}}"), Arc::default());
    if let Ok(schedule) = env::var("BUDGET_POOL_SCHEDULE") {
        return run(ReplayScheduler::new_from_encoded(&schedule), &told, story);
    }
    let times = env::var("BUDGET_POOL_SCHEDULES").map_or(10_000, |times| times.parse().unwrap());
    run(RandomScheduler::new(times / 2), &told, story);
    run(PctScheduler::new(CHANGES, times / 2), &told, story);
}

fn run(
    scheduler: impl Scheduler + 'static,
    Told(_, times): &Told,
    story: impl Fn() + Send + Sync + 'static,
) {
    let mut config = Config::new();
    config.stack_size = 1 << 18;
    // No thread spins for so long, unless it waits for what never comes.
    config.max_steps = MaxSteps::FailAfter(200_000);
    // The one flag needs no memory order.
    config.silence_warnings = true;
    let times = Arc::clone(times);
    Runner::new(scheduler, config).run(move || {
        times.fetch_add(1, Relaxed);
        story();
    });
}

/// From zero.
fn roll(sides: u64) -> u64 {
    thread_rng().gen_range(0..sides)
}

fn millis(sides: u64) -> Duration {
    Duration::from_millis(roll(sides))
}

fn threads(count: usize, work: impl Fn(usize) + Sync) {
    let work = &work;
    scope(|scope| {
        for thread in 0..count {
            scope.spawn(move || work(thread));
        }
    });
}

/// Until it is ready. Only its waker makes it try again.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let (mut future, waker) = (pin!(future), unparker());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        park(None);
    }
}

/// As many tokens as nanos: of both as much is spent, at every instant, although more tokens are
/// free.
fn amount(units: u64) -> Amount {
    Amount::new().tokens(units).usd(Usd::from_nanos(units))
}

fn caps(units: u64) -> Caps {
    Caps::new().tokens(units).usd(Usd::from_nanos(units))
}

fn tokens(amount: &Amount) -> u64 {
    amount.get(Axis::Tokens).map_or(0, |tokens| tokens.units())
}

/// Whether it was admitted; if not, for a reason that may be.
fn asked<T>(outcome: Result<T, BudgetError>) -> Option<T> {
    use BudgetError::{Closed, DeadlineExceeded, Exceeded, Expired, Queued};
    let outcome = outcome.inspect_err(|refusal| {
        let may_be = matches!(
            refusal,
            Exceeded(_) | Queued { .. } | Closed { .. } | DeadlineExceeded(_) | Expired { .. }
        );
        assert!(may_be, "{refusal}");
    });
    outcome.ok()
}

/// P1, P2: at this one instant. A hold that others were merged into has their slots, too.
fn is_sound(pool: &Snapshot, merges: bool) {
    assert_eq!(pool.tokens.spent, pool.usd.spent.as_nanos(), "P1: on all axes or on none: {pool}");
    let slots = pool.in_flight.reserved;
    assert!(slots == pool.reservations || merges && slots > pool.reservations, "P3: {pool}");
    for (axis, seen) in pool.axes() {
        let Some(cap) = seen.cap else { continue };
        let taken = seen.used.units() + seen.reserved.units();
        assert!(taken <= cap.units(), "P1: {axis}: {pool}");
        assert!(seen.overage.units() == 0 || taken == cap.units(), "P2: {axis}: {pool}");
        let is_at_least = |goal: Quantity| goal.units() < cap.units() && seen.reserved == cap;
        assert!(seen.falling_to.is_none_or(is_at_least), "P1: {axis} can fall further: {pool}");
    }
}

const POOLS: usize = 4;
const NAMES: [&str; POOLS] = ["root", "child", "carved", "spare"];
const ROOT: usize = 0;
const CHILD: usize = 1;
/// Two siblings.
const CARVED: [usize; 2] = [2, 3];
const KEYS: usize = 3;

fn any_pool() -> usize {
    roll(POOLS as u64) as usize
}

/// What happens in a tree while its threads ask and tell.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Amid {
    Nothing,
    Time,
    /// Periods are ended by hand.
    Resets,
    /// Caps are set, below what is reserved, too.
    SetCaps,
}

/// A tree, and what its threads know of it.
struct Run {
    amid: Amid,
    clock: ManualClock,
    pools: [BudgetPool; POOLS],
    /// What was settled, and what was taken back of that: each only rises.
    booked: [AtomicU64; POOLS],
    credited: [AtomicU64; POOLS],
    /// What was spent in periods that were ended.
    ended: [AtomicU64; POOLS],
    /// What the caps of the four pools add up to, until one is set.
    caps: AtomicU64,
    /// They do not only ask. (A commit that comes late tells, too; and what was used may not fit
    /// under a cap that is set.) What only asks has no overage.
    tells: bool,
    /// They also take back. A pool takes back no more than it has booked in its period, so that how
    /// much that is can be known only where no period ends.
    corrects: bool,
    merges: bool,
    /// A hold on the plain child settles when it is dropped, and when it expires.
    child_settles: bool,
    keys: [AtomicBool; KEYS],
    /// Of holds that expire: when, at the latest. Each has as many requests as nobody else.
    ends: Mutex<BTreeMap<u64, Instant>>,
    last_id: AtomicU64,
}

impl Run {
    fn new(amid: Amid) -> Run {
        let (clock, is_timed) = (ManualClock::new(), amid == Amid::Time);
        let window = match roll(if is_timed { 3 } else { 1 }) {
            0 => None,
            1 => Some(Window::fixed(Duration::from_millis(10))),
            _ => Some(Window::token_bucket(Duration::from_millis(10))),
        };
        let root = BudgetPool::builder()
            .name(NAMES[ROOT])
            .tokens(120)
            .usd(Usd::from_nanos(100))
            .in_flight(16)
            .clock(clock.clone())
            // Its waits are polled by hand.
            .timer(|_| Box::pin(std::future::pending()));
        let is_windowed = window.is_some();
        let root = match window {
            Some(window) => root.window(window).build(),
            None => root.build(),
        };
        let child = root.child().name(NAMES[CHILD]).caps(caps(60)).in_flight(8);
        let child = if is_timed { child.deadline(Duration::from_millis(30)) } else { child };
        let child_settles = roll(2) == 0;
        let child = if child_settles { child.on_drop(OnDrop::Commit) } else { child };
        let child = child.build();
        let [carved, spare] =
            CARVED.map(|at| root.child().name(NAMES[at]).caps(caps(20)).carved().build().unwrap());
        Run {
            amid,
            clock,
            pools: [root, child, carved, spare],
            booked: Default::default(),
            credited: Default::default(),
            ended: Default::default(),
            caps: AtomicU64::new(120 + 60 + 20 + 20),
            tells: is_timed || amid == Amid::SetCaps || roll(2) == 0,
            corrects: !is_windowed && amid != Amid::Resets,
            merges: roll(2) == 0,
            child_settles,
            keys: Default::default(),
            ends: Mutex::default(),
            last_id: AtomicU64::new(0),
        }
    }

    fn is_timed(&self) -> bool {
        self.amid == Amid::Time
    }

    /// Whether it is known how much a credit takes back on the whole way. A share has again no more
    /// than the pools above have used, and a cap that is set turns into overage what they have.
    fn corrects(&self, is_carved: bool) -> bool {
        self.corrects && !(is_carved && self.amid == Amid::SetCaps)
    }

    /// Afterwards, so that it never knows of more than the pools do.
    fn book(&self, at: usize, spent: u64) {
        Run::add(&self.booked, at, spent);
    }

    /// Beforehand, for the same reason.
    fn take_back(&self, at: usize, units: u64) {
        Run::add(&self.credited, at, units);
    }

    fn add(to: &[AtomicU64; POOLS], at: usize, units: u64) {
        to[at].fetch_add(units, Relaxed);
        if at != ROOT {
            to[ROOT].fetch_add(units, Relaxed);
        }
    }

    fn ends_by(&self, id: u64, ttl: Duration) {
        let end = self.clock.now() + ttl;
        self.ends.lock().unwrap().insert(id, end);
    }

    fn look(&self) {
        let booked: [u64; POOLS] = array::from_fn(|at| self.booked[at].load(Relaxed));
        self.pools[ROOT].check_invariants();
        let tree = self.pools[ROOT].snapshot_tree();
        for pool in &tree {
            is_sound(pool, self.merges);
            assert!(
                self.tells || (pool.tokens.overage, pool.usd.overage) == (0, Usd::ZERO),
                "P1: {pool}"
            );
        }
        let below: u64 =
            tree.iter().filter(|pool| pool.depth == 1).map(|pool| pool.tokens.spent).sum();
        assert!(tree[0].tokens.spent >= below, "P5: {tree}");
        for (at, pool) in named(&tree) {
            let known = booked[at].saturating_sub(self.credited[at].load(Relaxed));
            assert!(pool.tokens.spent >= known, "P2: {known} of {tree}");
        }
        let now = self.clock.now();
        let holders = self.pools[ROOT].holders();
        let ends = self.ends.lock().unwrap();
        for holder in holders {
            let end = holder.amount.get(Axis::Requests).and_then(|id| ends.get(&id.units()));
            assert!(end.is_none_or(|end| *end > now), "P3: {holder:?} has expired");
        }
    }

    /// What is transferred meanwhile is neither lost nor made.
    fn look_at_caps(&self) {
        let tree = self.pools[ROOT].snapshot_tree();
        let caps: u64 = named(&tree).map(|(_, pool)| pool.tokens.cap.unwrap()).sum();
        let known = self.caps.load(Relaxed);
        assert!(caps == known || self.amid == Amid::SetCaps, "P1: {caps}, not {known}: {tree}");
    }

    /// Nothing is held, all that was spent is booked, and all the rest can be had.
    fn end(&self) {
        self.pools[ROOT].check_invariants();
        CARVED.iter().for_each(|&at| self.pools[at].close());
        self.pools[ROOT].check_invariants();
        assert_eq!(self.pools[ROOT].snapshot_tree().len(), POOLS, "P3: pools that are gone");
        for at in 0..POOLS {
            let pool = self.pools[at].snapshot();
            is_sound(&pool, false);
            assert_eq!(
                (pool.tokens.reserved, pool.reservations, pool.waiting, pool.tokens.falling_to),
                (0, 0, 0, None),
                "P3: {pool}"
            );
            let booked = self.booked[at].load(Relaxed) - self.credited[at].load(Relaxed);
            assert_eq!(pool.tokens.spent, booked, "P2: {pool}");
            let of_periods = self.ended[at].load(Relaxed) + pool.tokens.used + pool.tokens.overage;
            assert!(self.is_timed() || of_periods == booked, "P2, period by period: {pool}");
        }
        let root = self.pools[ROOT].snapshot();
        assert_eq!(root.tokens.available, Some(root.tokens.cap.unwrap() - root.tokens.used));
        let rest =
            Amount::new().tokens(root.tokens.available.unwrap()).usd(root.usd.available.unwrap());
        assert!(root.closed || self.pools[ROOT].record(rest).is_ok(), "P4: {root}");
    }

    /// Spends from a share, which the pool knows of when it is settled.
    fn lease(&self) {
        let at = any_pool();
        let mut lease = self.pools[at].lease(amount(roll(12)));
        let mut spent = 0;
        for _ in 0..roll(10) {
            let part = amount(roll(6));
            match roll(5) {
                0 if self.tells => spent += tokens(&lease.debit(part).settled()),
                1 => {
                    lease.settle();
                    self.book(at, std::mem::take(&mut spent));
                }
                _ => spent += asked(lease.record(part)).map_or(0, |()| tokens(&part)),
            }
        }
        drop(lease);
        self.book(at, spent);
    }

    /// Moves the caps, ends periods or sets caps, and at last closes the pools.
    fn operate(&self) {
        for _ in 0..12 {
            let (at, units) = (any_pool(), roll(30));
            let pool = &self.pools[at];
            match (roll(6), self.amid) {
                (0, _) => self.rises(asked(pool.raise_caps(caps(units))).map_or(0, |()| units)),
                (1, _) => self.falls(asked(pool.lower_caps(caps(units))).map_or(0, |()| units)),
                (2, _) => self.falls(pool.lower_caps_up_to(caps(units)).units(Axis::Tokens)),
                (3, Amid::SetCaps) => pool.set_ceiling(caps(roll(200))),
                (_, Amid::SetCaps) => _ = asked(pool.set_caps(caps(roll(120)))),
                _ => {
                    let old = pool.reset().tokens;
                    self.ended[at].fetch_add(old.used + old.overage, Relaxed);
                    // A share is what is left of it.
                    self.falls(CARVED.contains(&at).then_some(old.used));
                }
            }
            self.look();
            self.look_at_caps();
        }
        let first = any_pool();
        (0..POOLS).for_each(|at| self.pools[(first + at) % POOLS].close());
    }

    fn rises(&self, units: u64) {
        self.caps.fetch_add(units, Relaxed);
    }

    fn falls(&self, units: impl Into<Option<u64>>) {
        self.caps.fetch_sub(units.into().unwrap_or(0), Relaxed);
    }
}

/// Those of a tree that are not of one thread alone.
fn named(tree: &TreeSnapshot) -> impl Iterator<Item = (usize, &Snapshot)> {
    tree.iter().filter_map(|pool| {
        let at = NAMES.iter().position(|&name| *pool.name == *name)?;
        Some((at, pool))
    })
}

/// What the owner of a hold knows of it.
#[derive(Clone, Copy)]
struct Known {
    at: usize,
    /// On a pool of the owner's own, below that one.
    is_below: bool,
    /// There is a share on its way up.
    is_carved: bool,
    /// Its requests, if it has an end of its own.
    id: u64,
    held: u64,
    metered: u64,
    /// What is held is settled when it is dropped, or when it expires.
    settles: bool,
}

impl Known {
    /// What was settled of it before its end, which may have been its expiry: at most.
    fn settled(&self) -> u64 {
        self.metered + if self.settles { self.held } else { 0 }
    }

    fn meter(&mut self, settled: u64, part: u64) {
        self.metered += settled;
        self.held -= self.held.min(part);
    }

    /// A total of which it is known what will be booked: without overage, where they only ask.
    fn total(&self, run: &Run, is_strict: bool) -> u64 {
        let least = if run.corrects(self.is_carved) { 0 } else { self.settled() };
        let most = match roll(3) {
            0 => self.settled(),
            _ if run.tells || is_strict => self.metered + self.held + 20,
            _ => self.metered + self.held,
        };
        least + roll(most - least + 1)
    }
}

/// A thread, what it holds, and what it has spent in each pool and may take back.
struct Worker<'a> {
    run: &'a Run,
    holds: Vec<(Reservation, Known)>,
    spent: [u64; POOLS],
}

impl Drop for Worker<'_> {
    fn drop(&mut self) {
        if !panicking() {
            self.let_all_go();
        }
    }
}

/// What it asks of pools, and tells them.
impl<'a> Worker<'a> {
    fn new(run: &'a Run) -> Worker<'a> {
        Worker { run, holds: Vec::new(), spent: [0; POOLS] }
    }

    fn step(&mut self) {
        let (at, part) = (any_pool(), amount(roll(12)));
        let pool = &self.run.pools[at];
        match roll(24) {
            0 => self.asked(at, part, pool.record(part)),
            1 => self.record_and_look(at, part),
            2 if self.run.tells => self.told(at, pool.debit(part)),
            3 | 4 if self.run.is_timed() => self.reserve_for(at, part),
            3..=7 => self.keep(at, part, pool.reserve(part)),
            8 => self.child(at),
            9 => self.once(),
            10 | 11 => self.credit(at),
            12 => self.transfer(at, any_pool()),
            13 => self.run.look(),
            _ => self.use_one(part),
        }
    }

    fn asked(&mut self, at: usize, part: Amount, outcome: Result<(), BudgetError>) {
        if asked(outcome).is_some() {
            self.has_spent(at, tokens(&part));
        }
    }

    fn told(&mut self, at: usize, receipt: Receipt) {
        assert!(!receipt.is_late());
        self.has_spent(at, tokens(&receipt.settled()));
    }

    fn has_spent(&mut self, at: usize, units: u64) {
        self.run.book(at, units);
        self.spent[at] += units;
    }

    /// P5: the pool in the very instant of the spend.
    fn record_and_look(&mut self, at: usize, part: Amount) {
        if let Some(seen) = asked(self.run.pools[at].record_and_snapshot(part)) {
            is_sound(&seen, self.run.merges);
            assert!(seen.tokens.spent >= tokens(&part), "P5: {seen}");
            self.has_spent(at, tokens(&part));
        }
    }

    /// Takes back what it has spent itself, so that all of it is there.
    fn credit(&mut self, from: usize) {
        let of_own = (0..POOLS).map(|n| (from + n) % POOLS).find(|&at| self.spent[at] > 0);
        let Some(at) = of_own else { return };
        if self.run.corrects(CARVED.contains(&at)) {
            let units = 1 + roll(self.spent[at]);
            self.spent[at] -= units;
            self.run.take_back(at, units);
            let receipt = self.run.pools[at].credit(amount(units));
            assert_eq!(receipt.credited(), amount(units), "P2");
        }
    }

    /// Between carved siblings only the one that gives may refuse. What a plain pool gives to a
    /// carved one pays overage there and not above, so that the share has used more than the pools
    /// above have: then it is not known what a credit does.
    fn transfer(&self, from: usize, to: usize) {
        let carved = [from, to].map(|at| CARVED.contains(&at));
        if self.run.corrects && self.run.tells && carved == [false, true] {
            return;
        }
        let outcome = self.run.pools[from].transfer(&self.run.pools[to], caps(roll(20)));
        if let (Err(BudgetError::Exceeded(refusal)), [true, true]) = (&outcome, carved) {
            assert_eq!(refusal.pool(), NAMES[from], "P4: {refusal}");
        }
        asked(outcome);
    }

    /// Who comes first spends it, the others have done so.
    fn once(&mut self) {
        let key = roll(KEYS as u64) as usize;
        let (name, part) = (format!("key {key}"), amount(key as u64 + 1));
        let pool = &self.run.pools[ROOT];
        let spent = if self.run.tells && roll(2) == 0 {
            let [first, again] =
                [(); 2].map(|()| pool.debit_once(name.clone(), part).unwrap().settled());
            assert_eq!(again, Amount::new(), "P2: it is known");
            first != again
        } else {
            asked(pool.record_once(name, part)) == Some(Once::Now)
        };
        if spent {
            assert!(!self.run.keys[key].swap(true, Relaxed), "P2: once");
            self.has_spent(ROOT, tokens(&part));
        }
    }

    fn keep(&mut self, at: usize, part: Amount, outcome: Result<Reservation, BudgetError>) {
        self.keep_one(at, part, (false, CARVED.contains(&at)), outcome);
    }

    fn keep_one(
        &mut self,
        at: usize,
        part: Amount,
        (is_below, is_carved): (bool, bool),
        outcome: Result<Reservation, BudgetError>,
    ) {
        let Some(hold) = asked(outcome) else { return };
        let id = part.units(Axis::Requests);
        let (held, metered) = (tokens(&part), 0);
        let settles = at == CHILD && self.run.child_settles;
        self.holds.push((hold, Known { at, is_below, is_carved, id, held, metered, settles }));
    }

    fn reserve_for(&mut self, at: usize, part: Amount) {
        let (id, ttl) = (self.run.last_id.fetch_add(1, Relaxed) + 1, millis(8));
        let part = part.requests(id);
        let outcome = self.run.pools[at].reserve(Ask::new(part).ttl(ttl));
        if outcome.is_ok() {
            self.run.ends_by(id, ttl);
        }
        self.keep(at, part, outcome);
    }

    /// A pool below, which is closed, or its last handle dropped, while something is held of it.
    fn child(&mut self, at: usize) {
        let child = self.run.pools[at].child().caps(caps(roll(20)));
        let is_carved = roll(2) == 0;
        let child = if is_carved { asked(child.carved().build()) } else { Some(child.build()) };
        let Some(child) = child else { return };
        let [spent, held] = [(); 2].map(|()| amount(roll(10)));
        if asked(child.record(spent)).is_some() {
            self.run.book(at, tokens(&spent));
        }
        let kind = (true, is_carved || CARVED.contains(&at));
        self.keep_one(at, held, kind, child.reserve(held));
        if roll(2) == 0 {
            child.close();
        }
    }

    /// Nobody waits who holds something.
    fn wait(&mut self, at: usize) {
        self.let_all_go();
        let (pool, part) = (&self.run.pools[at], amount(roll(20)));
        let outcome = if roll(2) == 0 {
            pool.reserve_blocking(part)
        } else {
            block_on(pool.reserve_wait(part))
        };
        self.keep(at, part, outcome);
    }
}

/// What it does with a hold.
impl Worker<'_> {
    fn use_one(&mut self, part: Amount) {
        if self.holds.is_empty() {
            return;
        }
        let (run, units) = (self.run, tokens(&part));
        let (mut hold, mut known) = self.holds.swap_remove(roll(self.holds.len() as u64) as usize);
        match roll(18) {
            0..=2 => {
                if self.ask(&mut known, hold.record(part)).is_some() {
                    known.meter(units, units);
                    run.book(known.at, units);
                }
            }
            3 if run.tells => self.debit(&hold, &mut known, part),
            3 | 4 => known.held += self.ask(&mut known, hold.grow(part)).map_or(0, |()| units),
            5 => known.held -= self.ask(&mut known, hold.shrink(part)).map_or(0, |()| units),
            6 => self.split(&hold, &mut known, part),
            7 if run.is_timed() => self.renew(&hold, &mut known),
            7 => {
                known.settles = roll(2) == 0;
                let on_drop = if known.settles { OnDrop::Commit } else { OnDrop::Release };
                hold = hold.on_drop(on_drop);
            }
            8..=10 if run.merges => self.merge(&hold, &mut known),
            8..=12 => return self.commit(hold, known),
            13 => return self.commit_all(hold, known),
            14 | 15 => match self.try_commit(hold, &mut known) {
                Some(refused) => hold = refused,
                None => return,
            },
            // Whether one that expires had settled before is not known after that.
            16 if !(run.is_timed() && known.settles) => {
                hold.release();
                return self.has_ended(known, known.metered);
            }
            _ => return self.let_go(hold, known),
        }
        self.holds.push((hold, known));
    }

    /// What is asked of a hold tells, too, whether it has expired.
    fn ask<T>(&mut self, known: &mut Known, outcome: Result<T, BudgetError>) -> Option<T> {
        if matches!(outcome, Err(BudgetError::Expired { .. })) {
            self.has_expired(known);
        }
        asked(outcome)
    }

    /// If it settles, what it held counts as metered then.
    fn has_expired(&mut self, known: &mut Known) {
        assert!(self.run.is_timed());
        if std::mem::take(&mut known.settles) {
            self.run.book(known.at, known.held);
            known.meter(known.held, known.held);
        }
    }

    fn has_ended(&mut self, known: Known, spent: u64) {
        if !known.is_below {
            self.spent[known.at] += spent;
        }
    }

    fn debit(&mut self, hold: &Reservation, known: &mut Known, part: Amount) {
        let receipt = hold.debit(part);
        if receipt.is_late() {
            self.has_expired(known);
        }
        let settled = tokens(&receipt.settled());
        known.meter(settled, tokens(&part));
        self.run.book(known.at, settled);
    }

    fn split(&mut self, hold: &Reservation, known: &mut Known, part: Amount) {
        if let Some(half) = self.ask(known, hold.split(part)) {
            let held = tokens(&part);
            known.held -= held;
            self.holds.push((half, Known { id: 0, held, metered: 0, ..*known }));
        }
    }

    fn renew(&mut self, hold: &Reservation, known: &mut Known) {
        let ttl = millis(8);
        self.run.ends.lock().unwrap().remove(&known.id);
        if self.ask(known, hold.renew(ttl)).is_some() && known.id > 0 {
            self.run.ends_by(known.id, ttl);
        }
    }

    /// With one of the same pool, if there is any, unless both have requests by which they are known.
    fn merge(&mut self, hold: &Reservation, known: &mut Known) {
        let same = self.holds.iter().position(|(other, _)| other.pool().ptr_eq(hold.pool()));
        let Some(last) = self.holds.len().checked_sub(1) else { return };
        let (other, of_other) = self.holds.swap_remove(same.unwrap_or(last));
        if known.id > 0 && of_other.id > 0 {
            return self.holds.push((other, of_other));
        }
        self.run.ends.lock().unwrap().remove(&of_other.id);
        let Err(refused) = hold.merge(other) else {
            known.id += of_other.id;
            known.held += of_other.held;
            known.settles |= of_other.settles;
            return known.metered += of_other.metered;
        };
        let may_be = match refused.error() {
            BudgetError::ForeignPool { .. } => {
                known.at != of_other.at || known.is_below || of_other.is_below
            }
            BudgetError::Expired { .. } => self.run.is_timed(),
            _ => false,
        };
        assert!(may_be, "{}", refused.error());
        self.holds.push((refused.into_reservation(), of_other));
    }

    fn commit(&mut self, hold: Reservation, known: Known) {
        let total = known.total(self.run, false);
        let taken_back = self.begin_commit(&known, total);
        let receipt = hold.commit(amount(total));
        self.has_committed(known, total, taken_back, receipt);
    }

    fn try_commit(&mut self, hold: Reservation, known: &mut Known) -> Option<Reservation> {
        let total = known.total(self.run, true);
        let taken_back = self.begin_commit(known, total);
        let refused = match hold.try_commit(amount(total)) {
            Ok(receipt) => {
                self.has_committed(*known, total, taken_back, receipt);
                return None;
            }
            Err(refused) => refused,
        };
        self.run.book(known.at, taken_back);
        _ = self.ask(known, Err::<(), _>(refused.error().clone()));
        Some(refused.into_reservation())
    }

    /// Returns what a commit may take back at most.
    fn begin_commit(&self, known: &Known, total: u64) -> u64 {
        let at_most = known.settled().saturating_sub(total);
        self.run.take_back(known.at, at_most);
        at_most
    }

    /// P2: the total is exact, up and down.
    fn has_committed(&mut self, mut known: Known, total: u64, taken_back: u64, receipt: Receipt) {
        if receipt.is_late() {
            self.has_expired(&mut known);
        }
        let [more, less] =
            [total.saturating_sub(known.metered), known.metered.saturating_sub(total)];
        assert_eq!(
            [receipt.settled(), receipt.credited()].map(|part| tokens(&part)),
            [more, less],
            "P2: up to {total}"
        );
        self.run.book(known.at, more + (taken_back - less));
        self.has_ended(known, total);
    }

    fn commit_all(&mut self, hold: Reservation, mut known: Known) {
        let receipt = hold.commit_all();
        if receipt.is_late() {
            self.has_expired(&mut known);
        }
        assert_eq!(tokens(&receipt.settled()), known.held, "P2: what was held");
        self.run.book(known.at, known.held);
        self.has_ended(known, known.metered + known.held);
    }

    fn let_go(&mut self, hold: Reservation, known: Known) {
        drop(hold);
        self.run.book(known.at, known.settled() - known.metered);
        self.has_ended(known, known.settled());
    }

    fn let_all_go(&mut self) {
        while let Some((hold, known)) = self.holds.pop() {
            self.let_go(hold, known);
        }
    }
}

/// In one of the ways in which nothing is spent.
fn let_go(hold: Reservation) {
    match roll(4) {
        0 => _ = hold.commit(amount(0)),
        1 => drop(hold.split(hold.amount())),
        2 => hold.shrink(amount(1)).unwrap(),
        _ => hold.release(),
    }
}

/// Some in one queue, of which some may be cancelled, with what they have been granted.
fn queue_up(pool: &BudgetPool) {
    let mut waits = Vec::new();
    for _ in 0..3 {
        waits.push(pool.reserve_wait(amount(1 + roll(6))));
        collect(&mut waits);
    }
    if roll(2) == 0 && !waits.is_empty() {
        drop(waits.remove(roll(waits.len() as u64) as usize));
    }
    while !waits.is_empty() {
        park(None);
        collect(&mut waits);
    }
}

/// The last first: whoever has been granted something, so have those before it.
fn collect(waits: &mut Vec<Wait>) {
    let waker = unparker();
    let mut granted = Vec::new();
    for index in (0..waits.len()).rev() {
        match Pin::new(&mut waits[index]).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(outcome) => {
                granted.push(outcome.unwrap());
                drop(waits.remove(index));
            }
            Poll::Pending => {
                assert!(granted.is_empty(), "P6: one that came later was granted first")
            }
        }
    }
    granted.into_iter().for_each(let_go);
}

#[test]
fn p1_p2_p3_p5_of_holds_in_a_tree() {
    explore(|| {
        let run = Run::new(Amid::Nothing);
        threads(5, |_| {
            let mut worker = Worker::new(&run);
            (0..40).for_each(|_| worker.step());
        });
        run.look_at_caps();
        run.end();
    });
}

#[test]
fn p3_p6_of_waits() {
    explore(|| {
        let root = BudgetPool::builder().caps(caps(10)).in_flight(4).build();
        let pools =
            [root.clone(), root.child().caps(caps(8)).build(), root.child().in_flight(2).build()];
        threads(7, |thread| {
            for _ in 0..12 {
                let (pool, part) = (&pools[roll(3) as usize], amount(1 + roll(6)));
                match thread {
                    0..3 => let_go(pool.reserve_blocking(part).unwrap()),
                    3..5 => queue_up(pool),
                    5 => _ = asked(pool.reserve(part)).map(let_go),
                    _ => {
                        pool.check_invariants();
                        is_sound(&pool.snapshot(), false);
                    }
                }
            }
        });
        root.check_invariants();
        let end = root.snapshot();
        assert_eq!((end.tokens.reserved, end.reservations, end.waiting), (0, 0, 0), "{end}");
    });
}

/// Each call comes by a joint pool of its own, below some of three pools in an order of its own.
#[test]
fn p1_p2_p3_p6_of_joint_pools() {
    explore(|| {
        let root = BudgetPool::builder().caps(caps(20)).build();
        let parents = [12, 10, 8].map(|most| root.child().caps(caps(most)).build());
        let recorded: [AtomicU64; 3] = Default::default();
        threads(6, |thread| {
            for _ in 0..8 {
                let (first, by) = (roll(3) as usize, 1 + roll(2) as usize);
                let order = [first, first + by, first + 2 * by].map(|at| at % 3);
                let order = &order[..2 + roll(2) as usize];
                let above = || order.iter().map(|&at| &parents[at]);
                let pool = BudgetPool::joint(above()).unwrap().in_flight(3).build();
                let pool = match roll(3) {
                    0 => BudgetPool::joint(above().chain([&pool])).unwrap().build(),
                    1 => pool.child().build(),
                    _ => pool,
                };
                let part = amount(1 + roll(6));
                match thread {
                    0..3 => let_go(pool.reserve_blocking(part).unwrap()),
                    3 => queue_up(&pool),
                    4 => {
                        _ = asked(pool.reserve(part)).map(let_go);
                        // No pool caps requests: nobody waits for them in vain.
                        if asked(pool.record(Amount::new().requests(1))).is_some() {
                            order.iter().for_each(|&at| _ = recorded[at].fetch_add(1, Relaxed));
                        }
                    }
                    _ => {
                        root.check_invariants();
                        root.snapshot_tree().iter().for_each(|pool| is_sound(pool, false));
                    }
                }
            }
        });
        root.check_invariants();
        assert_eq!(root.snapshot_tree().len(), 4, "P3: joint pools are gone");
        for (parent, recorded) in parents.iter().zip(recorded) {
            let end = parent.snapshot();
            assert_eq!((end.tokens.reserved, end.reservations, end.waiting), (0, 0, 0), "{end}");
            assert_eq!(end.requests.spent, recorded.into_inner(), "P1: {end}");
        }
    });
}

#[test]
fn p1_p2_p3_of_leases() {
    explore(|| {
        let run = Run::new(Amid::Nothing);
        threads(6, |thread| {
            let mut worker = Worker::new(&run);
            for _ in 0..10 {
                match thread {
                    0 => worker.wait(CARVED[0]),
                    1 => worker.step(),
                    _ => run.lease(),
                }
            }
        });
        run.look_at_caps();
        run.end();
    });
}

#[test]
fn p2_p3_p6_of_time() {
    explore(|| {
        let run = Run::new(Amid::Time);
        let working = AtomicUsize::new(5);
        threads(6, |thread| {
            if thread == 0 {
                while working.load(Relaxed) > 0 {
                    run.clock.advance(millis(4));
                    // Whoever waits for the deadline is told by a call that must know of it.
                    _ = run.pools[CHILD].peek(amount(0));
                    run.look();
                    yield_now();
                }
                return;
            }
            let mut worker = Worker::new(&run);
            (0..30).for_each(|_| if roll(10) == 0 { worker.wait(CHILD) } else { worker.step() });
            drop(worker);
            working.fetch_sub(1, Relaxed);
        });
        run.clock.advance(Duration::from_secs(1));
        run.look_at_caps();
        run.end();
    });
}

/// Until an operator closes the pools.
fn amid_what_an_operator_does(amid: Amid) {
    let run = Run::new(amid);
    threads(6, |thread| {
        let mut worker = Worker::new(&run);
        match thread {
            0 => run.operate(),
            1 => block_on(run.pools[any_pool()].closed()),
            _ => (0..20).for_each(|_| match roll(8) {
                0 => run.lease(),
                1 | 2 => worker.wait(any_pool()),
                _ => worker.step(),
            }),
        }
    });
    run.end();
}

#[test]
fn p2_p3_p6_amid_resets_and_closes() {
    explore(|| amid_what_an_operator_does(Amid::Resets));
}

#[test]
fn p1_p2_p3_p6_amid_caps_that_are_set_and_closes() {
    explore(|| amid_what_an_operator_does(Amid::SetCaps));
}

/// Each figure from elsewhere begins an age, and what is used tells which one it is.
#[test]
fn p2_p5_of_figures_from_elsewhere() {
    const AGE: u64 = 1_000;
    const AGES: u64 = 12;

    explore(|| {
        let root = BudgetPool::unlimited();
        // In the first ages all is used, and nothing is admitted.
        let pool = root.child().caps(caps(AGES / 2 * AGE)).build();
        let (ages_left, booked) = (AtomicU64::new(AGES), AtomicU64::new(0));
        let of_ages = Mutex::new(BTreeMap::new());
        threads(5, |thread| {
            for _ in 0..AGES / 2 {
                if thread < 2 {
                    let age = ages_left.fetch_sub(1, Relaxed);
                    pool.set_used(amount(age * AGE)).unwrap();
                    continue;
                }
                for _ in 0..4 {
                    let part = amount(1 + roll(6));
                    let Some(seen) = asked(pool.record_and_snapshot(part)) else { continue };
                    is_sound(&seen, false);
                    booked.fetch_add(tokens(&part), Relaxed);
                    let (age, used) = (seen.tokens.used / AGE, seen.tokens.used % AGE);
                    let mut of_ages = of_ages.lock().unwrap();
                    let (sum, most) = of_ages.entry(age).or_insert((0, 0));
                    (*sum, *most) = (*sum + tokens(&part), used.max(*most));
                }
            }
        });

        root.check_invariants();
        let of_ages = of_ages.into_inner().unwrap();
        let all_are_known = of_ages.values().all(|(sum, most)| sum == most);
        assert!(all_are_known, "P2, P5: each age has what was recorded in it: {of_ages:?}");
        let end = pool.snapshot();
        is_sound(&end, false);
        assert_eq!(end.tokens.spent, end.tokens.used + end.tokens.overage, "P2: {end}");
        let of_last = of_ages.get(&(end.tokens.spent / AGE)).map_or(0, |(sum, _)| *sum);
        assert_eq!(end.tokens.spent % AGE, of_last, "P2: {end}");
        assert_eq!(root.snapshot().tokens.spent, booked.load(Relaxed), "P2: of the child alone");
    });
}
