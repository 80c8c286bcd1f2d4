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
use std::time::{Duration, Instant};

use shuttle::rand::{Rng, thread_rng};
use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Scheduler};
use shuttle::thread::{scope, yield_now};
use shuttle::{Config, MaxSteps, Runner};

use crate::sync::thread::{park, unparker};
use crate::{
    Amount, Axis, BudgetError, BudgetPool, Caps, Clock, Lease, ManualClock, Receipt, Reservation,
    Snapshot, Usd, Wait, Window,
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

/// P1, P2: at this one instant.
fn is_sound(pool: &Snapshot) {
    assert_eq!(pool.tokens.spent, pool.usd.spent.as_nanos(), "P1: on all axes or on none: {pool}");
    assert_eq!(pool.in_flight.reserved, pool.reservations, "P3: {pool}");
    for (axis, seen) in pool.axes() {
        let Some(cap) = seen.cap else { continue };
        let taken = seen.used.units() + seen.reserved.units();
        assert!(taken <= cap.units(), "P1: {axis}: {pool}");
        assert!(seen.overage.units() == 0 || taken == cap.units(), "P2: {axis}: {pool}");
    }
}

const POOLS: usize = 3;
const ROOT: usize = 0;
const CHILD: usize = 1;
const CARVED: usize = 2;
const KEYS: usize = 3;

/// A tree, and what its threads know of it.
struct Run {
    clock: ManualClock,
    pools: [BudgetPool; POOLS],
    /// What has been spent, and of that in periods that were ended.
    booked: [AtomicU64; POOLS],
    ended: [AtomicU64; POOLS],
    is_timed: bool,
    /// They do not only ask. (A commit that comes late tells, too.) What only asks has no overage.
    tells: bool,
    keys: [AtomicBool; KEYS],
    /// Of holds that expire: when, at the latest. Each has as many requests as nobody else.
    ends: Mutex<BTreeMap<u64, Instant>>,
    last_id: AtomicU64,
}

impl Run {
    fn new(is_timed: bool) -> Run {
        let clock = ManualClock::new();
        let root = BudgetPool::builder()
            .tokens(120)
            .usd(Usd::from_nanos(100))
            .in_flight(10)
            .clock(clock.clone());
        let root = match roll(if is_timed { 3 } else { 1 }) {
            0 => root,
            1 => root.window(Window::fixed(Duration::from_millis(10))),
            _ => root.window(Window::token_bucket(Duration::from_millis(10))),
        };
        let root = root.build();
        let child = root.child().caps(caps(60)).in_flight(5);
        let child = if is_timed { child.deadline(Duration::from_millis(30)) } else { child };
        let carved = root.child().caps(caps(30)).carved().build().unwrap();
        Run {
            clock,
            pools: [root, child.build(), carved],
            booked: Default::default(),
            ended: Default::default(),
            is_timed,
            tells: is_timed || roll(2) == 0,
            keys: Default::default(),
            ends: Mutex::default(),
            last_id: AtomicU64::new(0),
        }
    }

    /// Afterwards, so that it never knows of more than the pools do.
    fn book(&self, at: usize, spent: u64) {
        self.booked[at].fetch_add(spent, Relaxed);
        if at != ROOT {
            self.booked[ROOT].fetch_add(spent, Relaxed);
        }
    }

    fn told(&self, at: usize, receipt: Receipt) {
        assert!(self.is_timed || !receipt.is_late());
        self.book(at, tokens(&receipt.settled()));
    }

    fn asked(&self, at: usize, spent: Amount, outcome: Result<(), BudgetError>) {
        if asked(outcome).is_some() {
            self.book(at, tokens(&spent));
        }
    }

    fn ends_by(&self, id: u64, ttl: Duration) {
        let end = self.clock.now() + ttl;
        self.ends.lock().unwrap().insert(id, end);
    }

    fn look(&self) {
        let known: [u64; POOLS] = array::from_fn(|at| self.booked[at].load(Relaxed));
        self.pools[ROOT].check_invariants();
        let tree = self.pools[ROOT].snapshot_tree();
        for pool in &tree {
            is_sound(pool);
            assert!(
                self.tells || (pool.tokens.overage, pool.usd.overage) == (0, Usd::ZERO),
                "P1: {pool}"
            );
        }
        let below: u64 =
            tree.iter().filter(|pool| pool.depth == 1).map(|pool| pool.tokens.spent).sum();
        assert!(tree[0].tokens.spent >= known[ROOT].max(below), "P2, P5: {known:?} {tree}");
        let now = self.clock.now();
        let holders = self.pools[ROOT].holders();
        let ends = self.ends.lock().unwrap();
        for holder in holders {
            let end = holder.amount.get(Axis::Requests).and_then(|id| ends.get(&id.units()));
            assert!(end.is_none_or(|end| *end > now), "P3: {holder:?} has expired");
        }
    }

    /// Nothing is held, all that was spent is booked, and all the rest can be had.
    fn end(&self) {
        self.pools[ROOT].check_invariants();
        self.pools[CARVED].close();
        self.pools[ROOT].check_invariants();
        assert_eq!(self.pools[ROOT].snapshot_tree().len(), POOLS, "P3: pools that are gone");
        for at in [CHILD, CARVED, ROOT] {
            let pool = self.pools[at].snapshot();
            is_sound(&pool);
            assert_eq!(
                (pool.tokens.reserved, pool.reservations, pool.waiting),
                (0, 0, 0),
                "P3: {pool}"
            );
            let booked = self.booked[at].load(Relaxed);
            assert_eq!(pool.tokens.spent, booked, "P2: {pool}");
            let of_periods = self.ended[at].load(Relaxed) + pool.tokens.used + pool.tokens.overage;
            assert!(self.is_timed || of_periods == booked, "P2, period by period: {pool}");
        }
        let root = self.pools[ROOT].snapshot();
        assert_eq!(root.tokens.available, Some(root.tokens.cap.unwrap() - root.tokens.used));
        let rest =
            Amount::new().tokens(root.tokens.available.unwrap()).usd(root.usd.available.unwrap());
        assert!(root.closed || self.pools[ROOT].record(rest).is_ok(), "P4: {root}");
    }

    /// Spends from a share, which the pool knows of when it is settled.
    fn lease(&self) {
        let at = roll(3) as usize;
        let Some(mut lease) = asked(self.pools[at].lease(amount(roll(12)))) else { return };
        let mut spent = 0;
        for _ in 0..roll(10) {
            let part = amount(roll(6));
            match roll(5) {
                0 if self.tells => spent += tokens(&lease.debit(part).settled()),
                1 => {
                    Lease::settle(&mut lease);
                    self.book(at, std::mem::take(&mut spent));
                }
                _ => spent += asked(lease.record(part)).map_or(0, |()| tokens(&part)),
            }
        }
        drop(lease);
        self.book(at, spent);
    }

    /// Moves the caps, ends periods, and at last the pools.
    fn operate(&self) {
        for _ in 0..12 {
            let at = roll(3) as usize;
            let pool = &self.pools[at];
            match roll(3) {
                0 => _ = asked(pool.raise_caps(caps(roll(30)))),
                1 => _ = asked(pool.lower_caps(caps(roll(30)))),
                _ => {
                    let old = pool.reset().tokens;
                    self.ended[at].fetch_add(old.used + old.overage, Relaxed);
                }
            }
            self.look();
        }
        let first = roll(3) as usize;
        (0..POOLS).for_each(|at| self.pools[(first + at) % POOLS].close());
    }
}

/// A thread, and what it holds.
struct Worker<'a> {
    run: &'a Run,
    holds: Vec<(usize, Reservation)>,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run) -> Worker<'a> {
        Worker { run, holds: Vec::new() }
    }

    fn keep(&mut self, at: usize, outcome: Result<Reservation, BudgetError>) {
        self.holds.extend(asked(outcome).map(|hold| (at, hold)));
    }

    fn step(&mut self) {
        let at = roll(3) as usize;
        let (pool, part) = (&self.run.pools[at], amount(roll(20)));
        match roll(12) {
            0 => self.run.asked(at, part, pool.record(part)),
            1 if self.run.tells => self.run.told(at, pool.debit(part)),
            2 | 3 => self.keep(at, pool.reserve(part)),
            4 if self.run.is_timed => self.reserve_for(at, part),
            5 if self.run.is_timed => self.once(),
            4 | 5 => self.child(at),
            6 => self.run.look(),
            _ => self.use_one(part),
        }
    }

    fn use_one(&mut self, part: Amount) {
        if self.holds.is_empty() {
            return;
        }
        let (at, mut hold) = self.holds.swap_remove(roll(self.holds.len() as u64) as usize);
        match roll(10) {
            0 => self.run.asked(at, part, hold.record(part)),
            1 if self.run.tells => self.run.told(at, hold.debit(part)),
            2 => _ = asked(hold.grow(part)),
            3 => _ = asked(hold.shrink(part)),
            4 => self.keep(at, hold.split(part)),
            5 if self.run.is_timed => self.renew(&mut hold),
            5 | 6 if self.run.tells => return self.run.told(at, hold.commit(part)),
            7 => return self.run.told(at, hold.commit_all()),
            8 => match hold.try_commit(part) {
                Ok(receipt) => return self.run.told(at, receipt),
                Err(refused) => hold = refused.into_reservation(),
            },
            _ => return drop(hold),
        }
        self.holds.push((at, hold));
    }

    /// A pool below, which is closed, or its last handle dropped, while something is held of it.
    fn child(&mut self, at: usize) {
        let child = self.run.pools[at].child().caps(caps(roll(20)));
        let child = if roll(2) == 0 { Some(child.build()) } else { asked(child.carved().build()) };
        let Some(child) = child else { return };
        let [spent, held] = [(); 2].map(|()| amount(roll(15)));
        self.run.asked(at, spent, child.record(spent));
        self.keep(at, child.reserve(held));
        if roll(2) == 0 {
            child.close();
        }
    }

    fn reserve_for(&mut self, at: usize, part: Amount) {
        let (id, ttl) = (self.run.last_id.fetch_add(1, Relaxed) + 1, millis(8));
        if let Some(hold) = asked(self.run.pools[at].reserve_for(part.requests(id), ttl)) {
            self.run.ends_by(id, ttl);
            self.holds.push((at, hold));
        }
    }

    fn renew(&mut self, hold: &mut Reservation) {
        let (id, ttl) = (hold.amount().get(Axis::Requests).map_or(0, |id| id.units()), millis(8));
        self.run.ends.lock().unwrap().remove(&id);
        if asked(hold.renew(ttl)).is_some() && id > 0 {
            self.run.ends_by(id, ttl);
        }
    }

    /// Whoever comes first spends it, the others have done so.
    fn once(&mut self) {
        let key = roll(KEYS as u64) as usize;
        let part = amount(key as u64 + 1);
        let outcome = self.run.pools[ROOT].record_once(format!("key {key}"), part);
        if asked(outcome).is_some() && !self.run.keys[key].swap(true, Relaxed) {
            self.run.book(ROOT, tokens(&part));
        }
    }

    /// Nobody waits who holds something.
    fn wait(&mut self, at: usize) {
        self.holds.clear();
        let (pool, part) = (&self.run.pools[at], amount(roll(20)));
        let outcome = if roll(2) == 0 {
            pool.reserve_blocking(part)
        } else {
            block_on(pool.reserve_wait(part))
        };
        self.keep(at, outcome);
    }
}

/// In one of the ways in which nothing is spent.
fn let_go(mut hold: Reservation) {
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
        let run = Run::new(false);
        threads(5, |_| {
            let mut worker = Worker::new(&run);
            (0..40).for_each(|_| worker.step());
        });
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
                        is_sound(&pool.snapshot());
                    }
                }
            }
        });
        root.check_invariants();
        let end = root.snapshot();
        assert_eq!((end.tokens.reserved, end.reservations, end.waiting), (0, 0, 0), "{end}");
    });
}

#[test]
fn p1_p2_p3_of_leases() {
    explore(|| {
        let run = Run::new(false);
        threads(6, |thread| {
            let mut worker = Worker::new(&run);
            for _ in 0..10 {
                match thread {
                    0 => worker.wait(CARVED),
                    1 => worker.step(),
                    _ => run.lease(),
                }
            }
        });
        run.end();
    });
}

#[test]
fn p2_p3_p6_of_time() {
    explore(|| {
        let run = Run::new(true);
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
        run.end();
    });
}

#[test]
fn p2_p3_p6_amid_resets_and_closes() {
    explore(|| {
        let run = Run::new(false);
        threads(6, |thread| {
            let mut worker = Worker::new(&run);
            match thread {
                0 => run.operate(),
                1 => block_on(run.pools[roll(3) as usize].closed()),
                _ => (0..20).for_each(|_| match roll(8) {
                    0 => run.lease(),
                    1 | 2 => worker.wait(roll(3) as usize),
                    _ => worker.step(),
                }),
            }
        });
        run.end();
    });
}
