//! Time that is caught up with lazily, beside time that is kept up with: random calls on random
//! trees.
//!
//! Nothing happens by itself in a tree. What is due is done at the next touch, and often not all of
//! it; yet everybody must be answered as if each thing had been done in its instant. A model of
//! that would be the schedule written twice, so the oracle is a twin: the same tree, given the same
//! calls, that is looked at as a whole at each instant at which a hold may expire, and in which
//! nothing is ever left due. The two must give the same answers, to the last field.
//!
//! What is promised of the future is tried out: with alarms that ring in their very instant nobody
//! is left waiting whom a look at the tree would serve (P6; but for those behind one that it tells
//! that there is no hope), and a refusal that names an instant means that one (P7).
//!
//! A failure names its seed. `BUDGET_POOL_SEED=17 BUDGET_POOL_RUNS=1 cargo test --test lazy` does
//! that tree again, `BUDGET_POOL_RUNS=100000` does more of them.

use std::fmt::Debug;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Lease, OnDrop, Reservation, Snapshot, Wait,
    Window,
};

#[path = "support/invariants.rs"]
mod invariants;
#[path = "support/random.rs"]
mod random;
#[path = "support/seeds.rs"]
mod seeds;

use invariants::check_invariants;
use random::Dice;
use seeds::seeds;

/// Unless `BUDGET_POOL_RUNS` says otherwise: a second or two for each test, without optimization.
const RUNS: u64 = 50;
const STEPS: usize = 300;
/// Below the root.
const POOLS: u64 = 5;
/// So few trees may all have nothing to try.
const FEW: usize = 50;
/// In nanoseconds. Holds expire at whole ticks; windows turn and give back in between, too.
const TICK: u64 = 1_000;
/// In nanoseconds.
const PERIODS: [u64; 4] = [17, 3 * TICK, 7 * TICK, 20 * TICK];
/// If those who wait are polled so often after one step, they wake themselves.
const MANY_POLLS: usize = 2_000;
/// So many refusals of each tree are tried out.
const REFUSALS: usize = 6;

#[derive(Debug, Clone, Copy)]
enum Call {
    Record,
    Peek,
    Debit,
    ReserveFor,
    ReserveForAndCommitOnDrop,
    Reserve,
    Ask,
    Reset,
    RaiseCaps,
    LowerCaps,
    LowerCapsUpTo,
    SetCaps,
    SetCeiling,
    SetUsed,
    Credit,
    Transfer,
    Pause,
    Resume,
    RecordOnce,
    DebitOnce,
    Close,
    Snapshot,
    SnapshotTree,
    OfHold(OfHold),
    Lease,
    OfLease(OfLease),
    Advance,
}

#[derive(Debug, Clone, Copy)]
enum OfHold {
    Commit,
    CommitAll,
    TryCommit,
    Drop,
    CommitOnDrop,
    ReleaseOnDrop,
    Merge,
    Record,
    Debit,
    Grow,
    Shrink,
    Split,
    Renew,
    Look,
}

#[derive(Debug, Clone, Copy)]
enum OfLease {
    Record,
    Debit,
    Settle,
    Drop,
}

/// And how often each is made.
const CALLS: [(Call, u64); 43] = [
    (Call::Record, 60),
    (Call::Peek, 20),
    (Call::Debit, 20),
    (Call::ReserveFor, 130),
    (Call::ReserveForAndCommitOnDrop, 70),
    (Call::Reserve, 20),
    (Call::Ask, 40),
    (Call::Reset, 7),
    (Call::RaiseCaps, 20),
    (Call::LowerCaps, 20),
    (Call::LowerCapsUpTo, 10),
    (Call::SetCaps, 10),
    (Call::SetCeiling, 5),
    (Call::SetUsed, 10),
    (Call::Credit, 20),
    (Call::Transfer, 20),
    (Call::Pause, 5),
    (Call::Resume, 5),
    (Call::RecordOnce, 10),
    (Call::DebitOnce, 10),
    (Call::Close, 1),
    (Call::Snapshot, 20),
    (Call::SnapshotTree, 7),
    (Call::OfHold(OfHold::Commit), 40),
    (Call::OfHold(OfHold::CommitAll), 20),
    (Call::OfHold(OfHold::TryCommit), 20),
    (Call::OfHold(OfHold::Drop), 20),
    (Call::OfHold(OfHold::CommitOnDrop), 20),
    (Call::OfHold(OfHold::ReleaseOnDrop), 10),
    (Call::OfHold(OfHold::Merge), 10),
    (Call::OfHold(OfHold::Record), 20),
    (Call::OfHold(OfHold::Debit), 20),
    (Call::OfHold(OfHold::Grow), 20),
    (Call::OfHold(OfHold::Shrink), 20),
    (Call::OfHold(OfHold::Split), 20),
    (Call::OfHold(OfHold::Renew), 20),
    (Call::OfHold(OfHold::Look), 20),
    (Call::Lease, 20),
    (Call::OfLease(OfLease::Record), 40),
    (Call::OfLease(OfLease::Debit), 20),
    (Call::OfLease(OfLease::Settle), 10),
    (Call::OfLease(OfLease::Drop), 15),
    (Call::Advance, 80),
];

/// A call and whatever it may take.
#[derive(Debug, Clone, Copy)]
struct Step {
    call: Call,
    /// Which pool, hold or lease, of those that there are.
    at: u64,
    amount: Amount,
    ticks: u64,
}

impl Dice {
    fn one_in(&mut self, n: u64) -> bool {
        self.roll(n) == 0
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.roll(choices.len() as u64) as usize]
    }

    /// With whether it carries an overage over its turns.
    fn window(&mut self, start: Instant) -> Option<(Window, bool)> {
        let period = Duration::from_nanos(self.one_of(&PERIODS));
        let window = match self.roll(5) {
            0 => Window::fixed(period),
            1 => {
                let turns = (0..self.roll(60)).map(|_| start + period * self.roll(80) as u32);
                Window::calendar(turns.collect::<Vec<_>>())
            }
            2 => Window::token_bucket(period),
            3 => Window::rolling(period),
            _ => return None,
        };
        let carrying = window.clone().carrying_overage();
        let carries = carrying != window && self.one_in(2);
        Some((if carries { carrying } else { window }, carries))
    }

    fn call(&mut self) -> Call {
        let mut left = self.roll(CALLS.iter().map(|(_, often)| often).sum());
        for (call, often) in CALLS {
            match left.checked_sub(often) {
                Some(rest) => left = rest,
                None => return call,
            }
        }
        unreachable!("it is less than their sum")
    }

    fn step(&mut self) -> Step {
        let amount = match self.roll(8) {
            0 => Amount::new().tokens(self.roll(40)).requests(self.roll(30)),
            1 => Amount::new().tokens(self.roll(120)),
            2 => Amount::new().requests(1),
            _ => Amount::new().tokens(self.roll(6)),
        };
        Step { call: self.call(), at: self.roll(u64::MAX), amount, ticks: 1 + self.roll(8) }
    }
}

/// Who is to be woken, and when: a timer that is never late.
type Alarms = Arc<Mutex<Vec<(u64, Waker)>>>;

/// A tree of pools, what is held of them, and its time in nanoseconds.
struct World {
    time: Arc<AtomicU64>,
    alarms: Alarms,
    /// The root first.
    pools: Vec<BudgetPool>,
    was_closed: bool,
    /// Whether any pool carries its overage over a turn.
    carries: bool,
    /// See [`World::peaks`].
    peaks: Vec<u64>,
    holds: Vec<Reservation>,
    leases: Vec<Lease>,
    waiters: Vec<Waiter>,
    /// Whether all that is due is done at each tick.
    is_eager: bool,
    /// Whether holds with a time expire.
    expires: bool,
}

impl World {
    fn new(seed: u64, start: Instant) -> World {
        let dice = &mut Dice::of(seed);
        let (time, alarms) = (Arc::<AtomicU64>::default(), Alarms::default());
        let clock = {
            let time = Arc::clone(&time);
            move || start + Duration::from_nanos(time.load(Ordering::Relaxed))
        };
        let timer = {
            let (time, alarms) = (Arc::clone(&time), Arc::clone(&alarms));
            move |until: Instant| -> Pin<Box<dyn Future<Output = ()> + Send>> {
                let until = u64::try_from(until.duration_since(start).as_nanos()).unwrap();
                let (time, alarms) = (Arc::clone(&time), Arc::clone(&alarms));
                Box::pin(poll_fn(move |context| {
                    if until <= time.load(Ordering::Relaxed) {
                        return Poll::Ready(());
                    }
                    alarms.lock().unwrap().push((until, context.waker().clone()));
                    Poll::Pending
                }))
            }
        };
        let mut root = BudgetPool::builder()
            .name("root")
            .tokens(100)
            .requests(1_000)
            .clock(clock)
            .timer(timer);
        let (is_plain, mut carries) = (dice.one_in(3), false);
        if let Some((window, carrying)) = dice.window(start).filter(|_| !is_plain) {
            carries |= carrying;
            root = root.window(window);
        }
        if dice.one_in(3) {
            root = root.deadline(Duration::from_nanos(200 * TICK));
        }
        let mut pools = vec![root.build()];
        for place in 0..POOLS {
            if dice.one_in(3) {
                let window = dice.window(start).filter(|_| !is_plain);
                carries |= window.as_ref().is_some_and(|(_, carrying)| *carrying);
                let window = window.map(|(window, _)| window);
                pools.extend(World::joint(dice, &pools, place, window));
                continue;
            }
            let parent = &pools[dice.roll(pools.len() as u64) as usize];
            let mut child = parent
                .child()
                .name(format!("{}-{place}", parent.name()))
                .tokens(10 + dice.roll(80));
            if dice.one_in(2) {
                pools.extend(child.carved().build());
                continue;
            }
            if let Some((window, carrying)) = dice.window(start).filter(|_| !is_plain) {
                carries |= carrying;
                child = child.window(window);
            }
            if dice.one_in(4) {
                child = child.deadline(Duration::from_nanos((50 + dice.roll(200)) * TICK));
            }
            pools.push(child.build());
        }
        let (holds, leases, waiters) = (Vec::new(), Vec::new(), Vec::new());
        World {
            time,
            alarms,
            pools,
            was_closed: false,
            carries,
            peaks: Vec::new(),
            holds,
            leases,
            waiters,
            is_eager: false,
            expires: true,
        }
    }

    /// A pool below some, unless one of them is carved.
    fn joint(
        dice: &mut Dice,
        pools: &[BudgetPool],
        place: u64,
        window: Option<Window>,
    ) -> Option<BudgetPool> {
        let parents = [(); 3].map(|()| &pools[dice.roll(pools.len() as u64) as usize]);
        let mut joint = BudgetPool::joint(parents).ok()?.name(format!("joint-{place}"));
        if dice.one_in(2) {
            joint = joint.tokens(10 + dice.roll(80));
        }
        if let Some(window) = window {
            joint = joint.window(window);
        }
        if dice.one_in(4) {
            joint = joint.deadline(Duration::from_nanos((50 + dice.roll(200)) * TICK));
        }
        Some(joint.build())
    }

    fn now(&self) -> u64 {
        self.time.load(Ordering::Relaxed)
    }

    fn pool(&self, step: &Step) -> &BudgetPool {
        &self.pools[(step.at % self.pools.len() as u64) as usize]
    }

    fn ttl(&self, step: &Step) -> Duration {
        if self.expires { Duration::from_nanos(step.ticks * TICK) } else { Duration::MAX }
    }

    /// Returns all that the caller is told.
    fn do_step(&mut self, step: &Step) -> String {
        let told = self.call(step);
        check_invariants(&self.pools[0]);
        told
    }

    fn call(&mut self, step: &Step) -> String {
        let (pool, amount) = (self.pool(step), step.amount);
        let caps = Caps::new().tokens(amount.get(Axis::Tokens).map_or(0, |tokens| tokens.units()));
        match step.call {
            Call::Record => said(pool.record(amount)),
            Call::Peek => said(pool.peek(amount)),
            Call::Debit => said(pool.debit(amount)),
            Call::ReserveFor => {
                let hold = pool.reserve(Ask::new(amount).ttl(self.ttl(step)));
                kept(&mut self.holds, hold)
            }
            Call::ReserveForAndCommitOnDrop => {
                let hold = pool
                    .reserve(Ask::new(amount).ttl(self.ttl(step)))
                    .map(Reservation::commit_on_drop);
                kept(&mut self.holds, hold)
            }
            Call::Reserve => {
                let hold = pool.reserve(amount);
                kept(&mut self.holds, hold)
            }
            Call::Ask => {
                let some = |units| Amount::new().tokens(units);
                let ask = Ask::new(amount).at_least(some(step.ticks)).or(some(40));
                let ask = ask.at_least(some(step.ticks / 2)).ttl(self.ttl(step));
                let hold = pool.reserve(ask);
                let granted = hold.as_ref().ok().map(|hold| said((hold.choice(), hold.amount())));
                granted.unwrap_or_default() + &kept(&mut self.holds, hold)
            }
            Call::Reset => {
                let ended = pool.reset();
                said(self.seen(ended))
            }
            Call::RaiseCaps => said(pool.raise_caps(caps)),
            Call::LowerCaps => said(pool.lower_caps(caps)),
            Call::LowerCapsUpTo => said(pool.lower_caps_up_to(caps)),
            Call::SetCaps => said(pool.set_caps(caps)),
            Call::SetCeiling => {
                pool.set_ceiling(caps);
                String::new()
            }
            Call::SetUsed => said(pool.set_used(amount)),
            Call::Credit => said(pool.credit(amount)),
            Call::Transfer => {
                let to = &self.pools[(step.ticks % self.pools.len() as u64) as usize];
                said(pool.transfer(to, caps))
            }
            Call::Pause => {
                pool.pause(self.ttl(step));
                String::new()
            }
            Call::Resume => {
                pool.resume();
                String::new()
            }
            Call::RecordOnce => said(pool.record_once(step.ticks.to_string(), amount)),
            Call::DebitOnce => said(pool.debit_once(step.ticks.to_string(), amount)),
            Call::Close => {
                // A close is not told the time (P8). A share that it gives back pays overage, of
                // which the less is carried if that is before a turn.
                if self.carries {
                    drop(self.pools[0].snapshot_tree());
                }
                pool.close();
                self.was_closed = true;
                String::new()
            }
            Call::Snapshot => {
                let seen = pool.snapshot();
                said(self.seen(seen))
            }
            Call::SnapshotTree => {
                let tree = pool.snapshot_tree().into_iter();
                said(tree.map(|pool| self.seen(pool)).collect::<Vec<_>>())
            }
            Call::OfHold(call) => self.do_with_hold(call, step),
            Call::Lease => {
                let lease = pool.lease(amount);
                self.leases.push(lease);
                String::new()
            }
            Call::OfLease(call) => self.do_with_lease(call, step),
            Call::Advance => {
                self.advance(step.ticks);
                String::new()
            }
        }
    }

    fn do_with_hold(&mut self, call: OfHold, step: &Step) -> String {
        let Some(mut hold) = taken(&mut self.holds, step.at) else {
            return String::from("no hold");
        };
        let amount = step.amount;
        let told = match call {
            OfHold::Commit => return said(hold.commit(amount)),
            OfHold::CommitAll => return said(hold.commit_all()),
            OfHold::Drop => {
                drop(hold);
                return String::new();
            }
            OfHold::TryCommit => match hold.try_commit(amount) {
                Ok(receipt) => return said(receipt),
                Err(refused) => {
                    let told = said(refused.error());
                    hold = refused.into_reservation();
                    told
                }
            },
            OfHold::CommitOnDrop => {
                hold = hold.commit_on_drop();
                String::new()
            }
            OfHold::ReleaseOnDrop => {
                hold = hold.on_drop(OnDrop::Release);
                String::new()
            }
            OfHold::Merge => match taken(&mut self.holds, step.ticks) {
                None => String::from("no other hold"),
                Some(other) => match hold.merge(other) {
                    Ok(()) => String::new(),
                    Err(refused) => {
                        let told = said(refused.error());
                        self.holds.push(refused.into_reservation());
                        told
                    }
                },
            },
            OfHold::Record => said(hold.record(amount)),
            OfHold::Debit => said(hold.debit(amount)),
            OfHold::Grow => said(hold.grow(amount)),
            OfHold::Shrink => said(hold.shrink(amount)),
            OfHold::Split => {
                let half = hold.split(amount);
                kept(&mut self.holds, half)
            }
            OfHold::Renew => said(hold.renew(self.ttl(step))),
            OfHold::Look => said((hold.amount(), hold.is_expired(), hold.time_left())),
        };
        self.holds.push(hold);
        told
    }

    fn do_with_lease(&mut self, call: OfLease, step: &Step) -> String {
        let Some(mut lease) = taken(&mut self.leases, step.at) else {
            return String::from("no lease");
        };
        // A refill takes a part of what is free, and there may be less as long as a hold that has
        // expired is there.
        drop(lease.pool().snapshot());
        let told = match call {
            OfLease::Record => said(lease.record(step.amount)),
            OfLease::Debit => said(lease.debit(step.amount)),
            OfLease::Settle => {
                lease.settle();
                String::new()
            }
            OfLease::Drop => {
                drop(lease);
                return String::new();
            }
        };
        let told = format!("{told}, {:?} left", lease.remaining());
        self.leases.push(lease);
        told
    }

    fn advance(&self, ticks: u64) {
        let (times, by) = if self.is_eager { (ticks, TICK) } else { (1, ticks * TICK) };
        for _ in 0..times {
            self.time.fetch_add(by, Ordering::Relaxed);
            if self.is_eager {
                drop(self.pools[0].snapshot_tree());
                check_invariants(&self.pools[0]);
            }
        }
    }

    /// Without its peaks, which may differ: a hold that has expired may be there for a few calls
    /// more, and is in the peaks of these. The peaks are kept beside, for [`World::peaks`].
    fn seen(&mut self, mut snapshot: Snapshot) -> Snapshot {
        for axis in [&mut snapshot.tokens, &mut snapshot.requests, &mut snapshot.in_flight] {
            self.peaks.push(std::mem::take(&mut axis.peak));
        }
        snapshot
    }

    /// The peaks that were seen since they were asked for, unless a pool was closed. A close is not
    /// told the time (P8): a share that it gives back is not in the peak of a period that nobody
    /// has seen begin.
    fn peaks(&mut self) -> Vec<u64> {
        let seen = std::mem::take(&mut self.peaks);
        if self.was_closed { Vec::new() } else { seen }
    }
}

fn said(answer: impl Debug) -> String {
    format!("{answer:?}")
}

/// Says why there is none.
fn kept<T, E: Debug>(those: &mut Vec<T>, new: Result<T, E>) -> String {
    let told = said(new.as_ref().err());
    those.extend(new);
    told
}

fn taken<T>(those: &mut Vec<T>, at: u64) -> Option<T> {
    let places = those.len() as u64;
    (places > 0).then(|| those.swap_remove((at % places) as usize))
}

#[test]
fn a_tree_that_is_touched_now_and_then_answers_as_one_that_is_touched_at_each_instant() {
    for seed in seeds(RUNS) {
        let start = Instant::now();
        let [mut eager, mut lazy] = [(); 2].map(|()| World::new(seed, start));
        eager.is_eager = true;
        let mut dice = Dice::of(!seed);
        for place in 0..STEPS {
            let step = dice.step();
            let [expected, told] = [&mut eager, &mut lazy].map(|world| world.do_step(&step));
            assert_eq!(told, expected, "seed {seed}, step {place}: {step:?}");
            let peaks = eager.peaks().into_iter().zip(lazy.peaks());
            let none_is_lower = peaks.clone().all(|(expected, told)| told >= expected);
            assert!(none_is_lower, "seed {seed}, step {place}: {:?}", peaks.collect::<Vec<_>>());
        }
    }
}

/// A wait, and whether it is to be polled.
struct Waiter {
    wait: Pin<Box<Wait>>,
    /// When it gives up at the latest.
    end: Option<u64>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// An executor.
impl World {
    fn wait(&mut self, pool: u64, ask: impl Into<Ask>, time: Option<u64>) {
        let end = time.map(|time| self.now() + time);
        let wait = Box::pin(self.pools[pool as usize].reserve_wait(ask));
        self.waiters.push(Waiter { wait, end, woken: Arc::new(Woken(AtomicBool::new(true))) });
    }

    /// Rings the alarms, and polls whoever was woken, until nobody is. Returns what they were told.
    fn run(&mut self) -> Vec<Result<(), BudgetError>> {
        let mut ended = Vec::new();
        for _ in 0..MANY_POLLS {
            self.ring();
            let mut woken =
                self.waiters.iter().map(|waiter| waiter.woken.0.swap(false, Ordering::Relaxed));
            let Some(place) = woken.position(|woken| woken) else {
                drop(woken);
                let now = self.now();
                let in_time = |waiter: &Waiter| waiter.end.is_none_or(|end| now < end);
                assert!(self.waiters.iter().all(in_time), "one waits beyond its time");
                return ended;
            };
            let Waiter { wait, woken, .. } = &mut self.waiters[place];
            let waker = Waker::from(Arc::clone(woken));
            let poll = wait.as_mut().poll(&mut Context::from_waker(&waker));
            check_invariants(&self.pools[0]);
            if let Poll::Ready(outcome) = poll {
                drop(self.waiters.remove(place));
                ended.push(outcome.map(|hold| self.holds.push(hold)));
            }
        }
        panic!("they wake themselves")
    }

    fn ring(&self) {
        let now = self.now();
        let mut alarms = self.alarms.lock().unwrap();
        let (due, later) = std::mem::take(&mut *alarms).into_iter().partition(|(at, _)| *at <= now);
        *alarms = later;
        drop(alarms);
        let due: Vec<(u64, Waker)> = due;
        due.into_iter().for_each(|(_, waker)| waker.wake());
    }

    fn next_alarm(&self) -> Option<u64> {
        self.alarms.lock().unwrap().iter().map(|(at, _)| *at).min()
    }
}

#[test]
fn p6_with_exact_alarms_nobody_waits_whom_a_touch_would_serve() {
    let mut all_ended = 0;
    for seed in seeds(RUNS) {
        let (mut world, mut dice) = (World::new(seed, Instant::now()), Dice::of(!seed));
        for place in 0..STEPS {
            match dice.roll(16) {
                0..=3 => {
                    let most = dice.one_of(&[5, 30, 90]);
                    let (pool, units) = (dice.roll(world.pools.len() as u64), 1 + dice.roll(most));
                    let amount = Amount::new().tokens(units);
                    if dice.one_in(2) {
                        world.wait(pool, amount, None);
                    } else {
                        // It gives up by an alarm of its own.
                        let time = (1 + dice.roll(12)) * TICK;
                        let least = Amount::new().tokens(1 + dice.roll(units));
                        let ask = Ask::new(amount).at_least(least);
                        let ask = ask.wait_at_most(Duration::from_nanos(time));
                        world.wait(pool, ask, Some(time));
                    }
                }
                4..=7 => {
                    let until = world.now() + (1 + dice.roll(8)) * TICK;
                    loop {
                        all_ended += world.run().len();
                        if dice.one_in(2) {
                            drop(world.pools[0].snapshot_tree());
                            // Hopeless it becomes without an alarm if a hold that settles at its
                            // expiry is above; those behind it are
                            // served then.
                            let missed = world.run();
                            let is_hopeless =
                                |told: &&_| matches!(told, Err(BudgetError::Exceeded(_)));
                            let hopeless = missed.iter().filter(is_hopeless).count();
                            let served = missed.iter().filter(|told| told.is_ok()).count();
                            let is_right =
                                hopeless + served == missed.len() && (hopeless > 0 || served == 0);
                            assert!(
                                is_right,
                                "seed {seed}, step {place}, at {}: {missed:?}",
                                world.now()
                            );
                        }
                        let now = world.now();
                        if now >= until {
                            break;
                        }
                        let next = world.next_alarm().map_or(until, |alarm| alarm.min(until));
                        // Just before it nobody is to be served, either.
                        let early = u64::from(next > now + 1 && dice.one_in(3));
                        world.time.store(next - early, Ordering::Relaxed);
                    }
                }
                8 => drop(taken(&mut world.waiters, dice.roll(u64::MAX))),
                _ => drop(world.do_step(&dice.step())),
            }
            all_ended += world.run().len();
        }
    }
    assert!(all_ended > 0 || seeds(RUNS).count() < FEW);
}

#[test]
fn p7_retry_after_names_the_first_instant_at_which_it_fits() {
    let mut tried = 0;
    for seed in seeds(RUNS) {
        let start = Instant::now();
        // What expires comes back before its time is up: it is assumed to stay.
        let new = || World { expires: false, ..World::new(seed, start) };
        let (mut scout, mut dice) = (new(), Dice::of(!seed));
        let (mut steps, mut refusals) = (Vec::new(), Vec::new());
        while steps.len() < STEPS && refusals.len() < REFUSALS {
            let step = dice.step();
            steps.push(step);
            let refused = match step.call {
                Call::Record => scout.pool(&step).record(step.amount).err(),
                _ => {
                    scout.do_step(&step);
                    None
                }
            };
            let after = refused.and_then(|refused| refused.retry_after());
            refusals
                .extend(after.map(|after| (steps.len(), u64::try_from(after.as_nanos()).unwrap())));
        }
        for (count, after) in refusals {
            // By one who asks meanwhile, and by one who comes back when told to.
            for meanwhile in [&[0, after / 2, after - 1][..], &[]] {
                let mut world = new();
                steps[..count].iter().for_each(|step| drop(world.do_step(step)));
                let (step, now) = (steps[count - 1], world.now());
                let pool = world.pool(&step);
                for &early in meanwhile {
                    world.time.store(now + early, Ordering::Relaxed);
                    assert!(
                        pool.peek(step.amount).is_err(),
                        "seed {seed}, step {count}: {early} of {after}"
                    );
                }
                world.time.store(now + after, Ordering::Relaxed);
                assert_eq!(pool.record(step.amount), Ok(()), "seed {seed}, step {count}: {after}");
                tried += 1;
            }
        }
    }
    assert!(tried > 0 || seeds(RUNS).count() < FEW);
}
