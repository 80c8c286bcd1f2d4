//! P6 and P3: the queue against a naive model, a list of all waits by ticket that is looked at as a whole after every step.
//!
//! What the model says: each pool has its own line, first come, first served. The first of each line is a candidate. It
//! stays blocked at the pool that refused it for as long as that pool refuses it (for lack of room, or because an earlier
//! one is parked there), and is parked there and at the pools on the way there where it competes; then it is tried again
//! from its own pool upward. Whoever came first is tried first.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use budget_pool::{Amount, Axis, BudgetError, BudgetPool, Caps, ManualClock, Outlook, Reservation, Snapshot, Wait};
use proptest::option;
use proptest::prelude::*;

/// On each axis in play. Every hold and every wait asks one in flight.
type Units = [u64; 3];

const AXES: [Axis; 3] = [Axis::Tokens, Axis::Requests, Axis::InFlight];
const NOTHING: Units = [0; 3];
const ROOT: usize = 0;

/// A pool, a wait or a hold, by its place in the list of them: the same in the model and outside.
type PoolId = usize;
type WaitId = usize;
type HoldId = usize;

/// Which of those that are there.
type Pick = usize;

/// Why something was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Why {
    Closed { scope: PoolId },
    Late { scope: PoolId, elapsed: u64 },
    Queued { scope: PoolId },
    Exceeded { scope: PoolId, axis: Axis, requested: u64, available: u64, cap: Option<u64>, outlook: Outlook },
}

impl From<BudgetError> for Why {
    fn from(error: BudgetError) -> Why {
        let scope = index(error.scope());
        match error {
            BudgetError::Closed { .. } => Why::Closed { scope },
            BudgetError::Queued { .. } => Why::Queued { scope },
            BudgetError::DeadlineExceeded(late) => Why::Late { scope, elapsed: late.elapsed().as_millis() as u64 },
            BudgetError::Exceeded(exceeded) => Why::Exceeded {
                scope,
                axis: exceeded.axis(),
                requested: exceeded.requested().units(),
                available: exceeded.available().units(),
                cap: exceeded.cap().map(|cap| cap.units()),
                outlook: exceeded.outlook(),
            },
            other => panic!("{other}"),
        }
    }
}

fn name(pool: PoolId) -> String {
    format!("p{pool}")
}

fn index(name: &str) -> PoolId {
    name[1..].parse().unwrap()
}

fn amount([tokens, requests, _]: Units) -> Amount {
    Amount::new().tokens(tokens).requests(requests)
}

fn caps(caps: [Option<u64>; 3]) -> Caps {
    let [tokens, requests, in_flight] = caps;
    let all = tokens.map_or(Caps::new(), |tokens| Caps::new().tokens(tokens));
    let all = requests.map_or(all, |requests| all.requests(requests));
    in_flight.map_or(all, |in_flight| all.in_flight(in_flight))
}

fn with_one_in_flight([tokens, requests, _]: Units) -> Units {
    [tokens, requests, 1]
}

fn least(a: Units, b: Units) -> Units {
    std::array::from_fn(|axis| a[axis].min(b[axis]))
}

/// What the queue should do.
#[derive(Default)]
struct Model {
    now: u64,
    pools: Vec<PoolModel>,
    holds: Vec<Option<HoldModel>>,
    waits: Vec<WaitModel>,
    last_ticket: u64,
}

struct PoolModel {
    parent: Option<PoolId>,
    /// `None` = unlimited, and only counts.
    cap: [Option<u64>; 3],
    used: Units,
    reserved: Units,
    overage: Units,
    carved: bool,
    closed: bool,
    /// When it comes, and how long that was from the build; the earliest on the way up.
    deadline: Option<(u64, u64)>,
    refused: u64,
    /// Whether the user has it.
    handle: bool,
    gone: bool,
}

struct HoldModel {
    pool: PoolId,
    held: Units,
}

struct WaitModel {
    home: PoolId,
    asked: Units,
    state: State,
    /// Whether it keeps a waker, and whether that was woken by what was done last.
    waker: bool,
    woken: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    New,
    Waiting { ticket: u64, parked: Option<PoolId> },
    Granted(HoldId),
    Refused(Why),
    Gone,
}

/// Balances.
impl Model {
    fn path(&self, at: PoolId) -> impl Iterator<Item = PoolId> {
        std::iter::successors(Some(at), |&id| self.pools[id].parent)
    }

    fn is_carved(&self, pool: PoolId, axis: usize) -> bool {
        self.pools[pool].carved && self.pools[pool].cap[axis].is_some()
    }

    /// What is asked of each pool on the way up.
    fn asked_on_path(&self, at: PoolId, asked: Units) -> Vec<(PoolId, Units)> {
        let mut rest = asked;
        let mut all = Vec::new();
        for id in self.path(at) {
            all.push((id, rest));
            rest = std::array::from_fn(|axis| if self.is_carved(id, axis) { 0 } else { rest[axis] });
        }
        all
    }

    fn free(&self, pool: PoolId, axis: usize) -> u64 {
        let PoolModel { cap, used, reserved, .. } = &self.pools[pool];
        cap[axis].map_or(u64::MAX, |cap| cap - used[axis] - reserved[axis])
    }

    fn fits(&self, pool: PoolId, asked: Units) -> bool {
        (0..3).all(|axis| asked[axis] <= self.free(pool, axis))
    }

    /// Whether it would fit if all that is reserved came back.
    fn can_ever_fit(&self, pool: PoolId, axis: usize, asked: u64) -> bool {
        let PoolModel { cap, used, overage, .. } = &self.pools[pool];
        cap[axis].is_none_or(|cap| asked + used[axis] + overage[axis] <= cap || asked == 0)
    }

    fn exceeded(&self, at: PoolId, asked: Units) -> Option<Why> {
        let mut first = None;
        let mut worst = Outlook::AfterRelease;
        for (id, asked) in self.asked_on_path(at, asked) {
            for axis in (0..3).filter(|&axis| asked[axis] > self.free(id, axis)) {
                first = first.or(Some((id, axis, asked[axis])));
                if !self.can_ever_fit(id, axis, asked[axis]) {
                    worst = Outlook::Never;
                }
            }
        }
        let (scope, axis, requested) = first?;
        let (available, cap) = (self.free(scope, axis), self.pools[scope].cap[axis]);
        Some(Why::Exceeded { scope, axis: AXES[axis], requested, available, cap, outlook: worst })
    }

    fn closed(&self, at: PoolId) -> Option<Why> {
        self.path(at).filter(|&id| self.pools[id].closed).last().map(|scope| Why::Closed { scope })
    }

    fn late(&self, at: PoolId) -> Option<Why> {
        let (when, total) = self.pools[at].deadline.filter(|(when, _)| *when <= self.now)?;
        let same = |id: &PoolId| self.pools[*id].deadline == Some((when, total));
        let scope = self.path(at).filter(same).last().unwrap();
        Some(Why::Late { scope, elapsed: total + self.now - when })
    }

    fn count_refused(&mut self, at: PoolId) {
        for id in self.path(at).collect::<Vec<_>>() {
            self.pools[id].refused += 1;
        }
    }

    /// A call that asks; whether it must not pass those who wait.
    fn ask(&mut self, at: PoolId, asked: Units, in_turn: bool) -> Result<(), Why> {
        self.read_clock(at);
        let queued = || self.queued(at, asked).filter(|_| in_turn);
        let refusal = self.closed(at).or_else(|| self.late(at)).or_else(queued).or_else(|| self.exceeded(at, asked));
        match refusal {
            None => Ok(()),
            Some(why) => {
                self.count_refused(at);
                Err(why)
            }
        }
    }

    fn hold_path(&mut self, at: PoolId, held: Units) {
        for (id, held) in self.asked_on_path(at, held) {
            assert!(self.fits(id, held));
            for (reserved, held) in self.pools[id].reserved.iter_mut().zip(held) {
                *reserved += held;
            }
        }
    }

    fn begin(&mut self, pool: PoolId, held: Units) -> HoldId {
        self.hold_path(pool, held);
        self.holds.push(Some(HoldModel { pool, held }));
        self.holds.len() - 1
    }

    /// What frees room pays the overage first.
    fn give(&mut self, pool: PoolId, axis: usize, units: u64) {
        let pool = &mut self.pools[pool];
        let paid = units.min(pool.overage[axis]);
        pool.overage[axis] -= paid;
        pool.used[axis] += paid;
    }

    fn settle_path(&mut self, at: PoolId, mut held: Units, actual: Units) {
        for id in self.path(at).collect::<Vec<_>>() {
            for axis in 0..3 {
                let before = self.pools[id].used[axis];
                let covered = actual[axis].min(held[axis]);
                self.pools[id].reserved[axis] -= held[axis];
                self.pools[id].used[axis] += covered;
                self.give(id, axis, held[axis] - covered);
                let more = actual[axis] - covered;
                let fitting = more.min(self.free(id, axis));
                self.pools[id].used[axis] += fitting;
                self.pools[id].overage[axis] += more - fitting;
                if self.is_carved(id, axis) {
                    let unused = if self.pools[id].closed { self.surrender(id, axis) } else { 0 };
                    held[axis] = self.pools[id].used[axis] - before + unused;
                }
            }
        }
    }

    fn surrender(&mut self, pool: PoolId, axis: usize) -> u64 {
        let free = self.free(pool, axis);
        self.pools[pool].cap[axis] = self.pools[pool].cap[axis].map(|cap| cap - free);
        free
    }

    fn return_share(&mut self, pool: PoolId) {
        if let Some(parent) = self.pools[pool].parent {
            let share = std::array::from_fn(|axis| match self.is_carved(pool, axis) {
                true => self.surrender(pool, axis),
                false => 0,
            });
            self.settle_path(parent, share, NOTHING);
        }
    }
}

/// Who waits.
impl Model {
    fn waiting(&self) -> impl Iterator<Item = (u64, WaitId, Option<PoolId>)> {
        self.waits.iter().enumerate().filter_map(|(id, wait)| match wait.state {
            State::Waiting { ticket, parked } => Some((ticket, id, parked)),
            _ => None,
        })
    }

    /// The first of each line, the earliest first.
    fn heads(&self) -> Vec<(u64, WaitId, Option<PoolId>)> {
        let mut heads: Vec<_> = self.waiting().collect();
        heads.sort_unstable();
        let mut homes = Vec::new();
        heads.retain(|&(_, id, _)| {
            let home = self.waits[id].home;
            let is_first = !homes.contains(&home);
            homes.push(home);
            is_first
        });
        heads
    }

    /// Whether what is asked of a pool is anything that others wait for there.
    fn competes(&self, at: PoolId, pool: PoolId, asked: Units) -> bool {
        at == pool || (0..3).any(|axis| asked[axis] > 0 && self.pools[pool].cap[axis].is_some())
    }

    fn queued(&self, at: PoolId, asked: Units) -> Option<Why> {
        let ways = self.asked_on_path(at, asked).into_iter();
        let mut competing = ways.filter(|&(id, asked)| self.competes(at, id, asked)).map(|(id, _)| id);
        let has_queue = |id| {
            self.waiting().any(|(_, wait, blocked)| self.waits[wait].home == id || self.is_parked(wait, blocked, id))
        };
        competing.find(|&id| has_queue(id)).map(|scope| Why::Queued { scope })
    }

    /// Whether a candidate keeps a place at a pool: where it is blocked, and on the way there where it competes.
    fn is_parked(&self, wait: WaitId, blocked: Option<PoolId>, pool: PoolId) -> bool {
        let Some(blocked) = blocked else { return false };
        let WaitModel { home, asked, .. } = self.waits[wait];
        let ways = self.asked_on_path(home, asked);
        let up_to = ways.iter().position(|&(id, _)| id == blocked).expect("it is blocked on its way up");
        let mut ways = ways.into_iter().take(up_to + 1);
        ways.any(|(id, asked)| id == pool && (id == blocked || self.competes(home, id, asked)))
    }

    /// Whether a pool refuses a candidate: it does not fit, or an earlier one is parked there.
    fn refuses(&self, pool: PoolId, asked: Units, wait: WaitId, ticket: u64) -> bool {
        let earlier = || self.waiting().any(|(other, id, blocked)| other < ticket && self.is_parked(id, blocked, pool));
        !self.fits(pool, asked) || (self.competes(self.waits[wait].home, pool, asked) && earlier())
    }

    fn resolve(&mut self, wait: WaitId, state: State) {
        if matches!(state, State::Refused(_)) {
            self.count_refused(self.waits[wait].home);
        }
        let wait = &mut self.waits[wait];
        wait.woken = std::mem::take(&mut wait.waker);
        wait.state = state;
    }

    fn refuse_all(&mut self, why: impl Fn(&Model, PoolId, Units) -> Option<Why>) {
        let all = self.waiting().filter_map(|(_, id, _)| {
            let wait = &self.waits[id];
            Some((id, why(self, wait.home, wait.asked)?))
        });
        for (id, why) in all.collect::<Vec<_>>() {
            self.resolve(id, State::Refused(why));
        }
    }

    /// Tells all who can never be met, then serves all who can be.
    fn serve(&mut self) {
        self.refuse_all(|model, home, asked| {
            let is_never = |why: &Why| matches!(why, Why::Exceeded { outlook: Outlook::Never, .. });
            model.exceeded(home, asked).filter(is_never)
        });
        while let Some((ticket, id)) = self.next_to_try() {
            let WaitModel { home, asked, .. } = self.waits[id];
            let mut ways = self.asked_on_path(home, asked).into_iter();
            // Where it was parked nothing holds it, and it is in nobody's way there while it is tried.
            self.waits[id].state = State::Waiting { ticket, parked: None };
            match ways.find(|&(pool, asked)| self.refuses(pool, asked, id, ticket)) {
                Some((pool, _)) => self.waits[id].state = State::Waiting { ticket, parked: Some(pool) },
                None => {
                    let hold = self.begin(home, asked);
                    self.resolve(id, State::Granted(hold));
                }
            }
        }
    }

    fn next_to_try(&self) -> Option<(u64, WaitId)> {
        let is_held = |&(ticket, id, parked): &(u64, WaitId, Option<PoolId>)| {
            let WaitModel { home, asked, .. } = self.waits[id];
            let ways = self.asked_on_path(home, asked);
            ways.into_iter().any(|(pool, asked)| parked == Some(pool) && self.refuses(pool, asked, id, ticket))
        };
        self.heads().into_iter().find(|head| !is_held(head)).map(|(ticket, id, _)| (ticket, id))
    }

    /// A call that reads the clock tells all whose deadline has come.
    fn read_clock(&mut self, at: PoolId) {
        if self.pools[at].deadline.is_some() {
            self.refuse_all(|model, home, _| model.late(home));
            self.serve();
        }
    }

    fn first_poll(&mut self, wait: WaitId) {
        let WaitModel { home, asked, .. } = self.waits[wait];
        self.read_clock(home);
        let never = self.exceeded(home, asked);
        let never = never.filter(|why| matches!(why, Why::Exceeded { outlook: Outlook::Never, .. }));
        match self.closed(home).or_else(|| self.late(home)).or(never) {
            Some(why) => self.resolve(wait, State::Refused(why)),
            None => {
                self.last_ticket += 1;
                self.waits[wait].state = State::Waiting { ticket: self.last_ticket, parked: None };
                self.serve();
            }
        }
    }

    fn end(&mut self, hold: HoldId, bill: Units) {
        let HoldModel { pool, held } = self.holds[hold].take().unwrap();
        self.settle_path(pool, held, bill);
        self.serve();
    }

    fn close(&mut self, at: PoolId) {
        let all = 0..self.pools.len();
        let below: Vec<_> = all.filter(|&id| !self.pools[id].gone && self.path(id).any(|above| above == at)).collect();
        for &id in &below {
            self.pools[id].closed = true;
        }
        self.refuse_all(|model, home, _| model.closed(home));
        for id in below {
            self.return_share(id);
        }
        self.serve();
    }

    /// Pools that nothing reaches any more go, and give their shares back.
    fn free_pools(&mut self) {
        let is_reached = |model: &Model, id: PoolId| {
            model.pools[id].handle
                || model.holds.iter().flatten().any(|hold| hold.pool == id)
                || model.waits.iter().any(|wait| wait.home == id && wait.state != State::Gone)
                || model.pools.iter().any(|below| below.parent == Some(id) && !below.gone)
        };
        while let Some(id) = (0..self.pools.len()).find(|&id| !self.pools[id].gone && !is_reached(self, id)) {
            self.return_share(id);
            self.pools[id].gone = true;
            self.serve();
        }
    }
}

#[derive(Debug, Clone)]
struct NewPool {
    cap: [Option<u64>; 3],
    carved: bool,
    deadline: Option<u64>,
}

#[derive(Debug, Clone)]
enum Step {
    Child(Pick, NewPool),
    DropPool(Pick),
    Close(Pick),
    Reset(Pick),
    Add(Pick, [Option<u64>; 3]),
    Remove(Pick, [Option<u64>; 3]),
    Record(Pick, Units),
    Debit(Pick, Units),
    Reserve(Pick, Units),
    /// Polled at once, or not yet.
    Wait(Pick, Units, bool),
    Poll(Pick),
    Cancel(Pick),
    Commit(Pick, Units),
    CommitAll(Pick),
    Release(Pick),
    Shrink(Pick, Units),
    Grow(Pick, Units),
    Split(Pick, Units),
    RecordPart(Pick, Units),
    DebitPart(Pick, Units),
    Advance(u64),
}

/// One to a line.
struct Steps(Vec<Step>);

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|step| write!(f, "\n    {step:?}"))
    }
}

/// The library, beside its model.
struct World {
    clock: ManualClock,
    pools: Vec<Option<BudgetPool>>,
    holds: Vec<Option<Reservation>>,
    waits: Vec<Option<Waiter>>,
    model: Model,
}

struct Waiter {
    wait: Pin<Box<Wait>>,
    /// Of the last poll, unless that was the last one.
    bell: Option<Arc<Bell>>,
}

/// Counts its wakes, and takes the lock: whoever wakes it under the lock stands still for ever.
struct Bell {
    rung: AtomicUsize,
    pool: BudgetPool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.fetch_add(1, Ordering::SeqCst);
        let _ = self.pool.is_closed();
    }
}

impl World {
    fn new(root: NewPool) -> World {
        let clock = ManualClock::new();
        let builder = BudgetPool::builder().name(name(ROOT)).caps(caps(root.cap)).clock(clock.clone());
        let pool = match root.deadline {
            Some(deadline) => builder.deadline(Duration::from_millis(deadline)).build(),
            None => builder.build(),
        };
        let mut world = World { clock, pools: vec![Some(pool)], holds: vec![], waits: vec![], model: Model::default() };
        world.model.pools.push(PoolModel::new(None, &root, None, false));
        world
    }

    fn pool(&self, id: PoolId) -> &BudgetPool {
        self.pools[id].as_ref().unwrap()
    }

    fn hold(&mut self, id: HoldId) -> &mut Reservation {
        self.holds[id].as_mut().unwrap()
    }

    /// Puts what was reserved at its place in the list.
    fn keep(&mut self, id: HoldId, hold: Reservation) {
        self.holds.resize_with(self.holds.len().max(id + 1), || None);
        self.holds[id] = Some(hold);
    }

    fn step(&mut self, step: &Step) {
        fn pick<T>(pick: &Pick, all: &[Option<T>]) -> Option<usize> {
            let some: Vec<_> = all.iter().enumerate().filter(|(_, one)| one.is_some()).map(|(id, _)| id).collect();
            (!some.is_empty()).then(|| some[pick % some.len()])
        }
        match step {
            Step::Child(pool, _)
            | Step::DropPool(pool)
            | Step::Close(pool)
            | Step::Reset(pool)
            | Step::Add(pool, _)
            | Step::Remove(pool, _)
            | Step::Record(pool, _)
            | Step::Debit(pool, _)
            | Step::Reserve(pool, _)
            | Step::Wait(pool, ..) => {
                let pool = pick(pool, &self.pools).expect("the root stays");
                self.step_of_pool(pool, step);
            }
            Step::Poll(wait) => _ = pick(wait, &self.waits).map(|wait| self.poll(wait)),
            Step::Cancel(wait) => _ = pick(wait, &self.waits).map(|wait| self.cancel(wait)),
            Step::Commit(hold, _)
            | Step::CommitAll(hold)
            | Step::Release(hold)
            | Step::Shrink(hold, _)
            | Step::Grow(hold, _)
            | Step::Split(hold, _)
            | Step::RecordPart(hold, _)
            | Step::DebitPart(hold, _) => _ = pick(hold, &self.holds).map(|hold| self.step_of_hold(hold, step)),
            &Step::Advance(by) => {
                self.clock.advance(Duration::from_millis(by));
                self.model.now += by;
            }
        }
        self.model.free_pools();
    }

    fn step_of_pool(&mut self, id: PoolId, step: &Step) {
        let pool = self.pool(id).clone();
        let model = &mut self.model;
        match *step {
            Step::Child(_, ref new) => self.build(id, new),
            Step::DropPool(_) if id == ROOT => {}
            Step::DropPool(_) => {
                drop(pool);
                self.pools[id] = None;
                model.pools[id].handle = false;
            }
            Step::Close(_) => {
                pool.close();
                model.close(id);
            }
            Step::Reset(_) => {
                pool.reset();
                for axis in 0..3 {
                    let share = model.is_carved(id, axis);
                    let pool = &mut model.pools[id];
                    let used = std::mem::take(&mut pool.used[axis]);
                    pool.cap[axis] = pool.cap[axis].map(|cap| if share { cap - used } else { cap });
                    pool.overage[axis] = 0;
                }
                model.serve();
            }
            Step::Add(_, more) => {
                let outcome = model.add(id, more);
                assert_eq!(pool.add(caps(more)).map_err(Why::from), outcome);
            }
            Step::Remove(_, less) => {
                let outcome = model.remove(id, less);
                assert_eq!(pool.remove(caps(less)).is_ok(), outcome);
            }
            Step::Record(_, units) => {
                let outcome = model.ask(id, units, false);
                if outcome.is_ok() {
                    model.settle_path(id, NOTHING, units);
                    model.serve();
                }
                assert_eq!(pool.record(amount(units)).map_err(Why::from), outcome);
            }
            Step::Debit(_, units) => {
                model.settle_path(id, NOTHING, units);
                model.serve();
                pool.debit(amount(units));
            }
            Step::Reserve(_, units) => {
                let held = with_one_in_flight(units);
                let outcome = model.ask(id, held, true).map(|()| model.begin(id, held));
                match pool.reserve(amount(units)) {
                    Ok(hold) => self.keep(outcome.expect("the model refuses"), hold),
                    Err(refusal) => assert_eq!(Err(Why::from(refusal)), outcome),
                }
            }
            Step::Wait(_, units, polled) => {
                let asked = with_one_in_flight(units);
                model.waits.push(WaitModel { home: id, asked, state: State::New, waker: false, woken: false });
                self.waits.push(Some(Waiter { wait: Box::pin(pool.reserve_wait(amount(units))), bell: None }));
                if polled {
                    self.poll(self.waits.len() - 1);
                }
            }
            _ => unreachable!(),
        }
    }

    fn build(&mut self, parent: PoolId, new: &NewPool) {
        if self.pools.len() > 5 {
            return;
        }
        let mut builder = self.pool(parent).child().name(name(self.pools.len())).caps(caps(new.cap));
        if let Some(deadline) = new.deadline {
            builder = builder.deadline(Duration::from_millis(deadline));
        }
        let model = &mut self.model;
        let deadline = new.deadline.map(|total| (model.now + total, total));
        let above = &model.pools[parent];
        let deadline = above.deadline.into_iter().chain(deadline).min_by_key(|(when, _)| *when);
        let pool = PoolModel::new(Some(parent), new, deadline, above.closed);
        let built = if new.carved {
            let share = new.cap.map(Option::unwrap_or_default);
            let outcome = model.ask(parent, share, true).map(|()| model.hold_path(parent, share));
            let built = builder.carved().build().map_err(Why::from);
            assert_eq!(built.as_ref().map(|_| ()), outcome.as_ref().copied());
            built.ok()
        } else {
            Some(builder.build())
        };
        if built.is_some() {
            self.pools.push(built);
            self.model.pools.push(pool);
        }
    }

    fn poll(&mut self, id: WaitId) {
        let bell = Arc::new(Bell { rung: AtomicUsize::new(0), pool: self.pool(ROOT).clone() });
        let waiter = self.waits[id].as_mut().unwrap();
        let waker = Waker::from(Arc::clone(&bell));
        let poll = waiter.wait.as_mut().poll(&mut Context::from_waker(&waker));
        drop(waker);

        let model = &mut self.model;
        match model.waits[id].state {
            State::New => model.first_poll(id),
            _ => model.read_clock(model.waits[id].home),
        }
        // What was kept before is let go, woken only if the wait ended in this very poll.
        if let Some(old) = waiter.bell.take() {
            let was_woken = std::mem::take(&mut model.waits[id].woken);
            assert_eq!((old.rung.load(Ordering::SeqCst), Arc::strong_count(&old)), (was_woken.into(), 1), "a waker");
        }
        let wait = &mut model.waits[id];
        match (&wait.state, poll) {
            (State::Waiting { .. }, Poll::Pending) => {
                wait.waker = true;
                waiter.bell = Some(bell);
            }
            (&State::Granted(hold), Poll::Ready(Ok(reservation))) => {
                wait.state = State::Gone;
                self.waits[id] = None;
                self.keep(hold, reservation);
                assert_eq!((bell.rung.load(Ordering::SeqCst), Arc::strong_count(&bell)), (0, 1), "a waker");
            }
            (State::Refused(why), Poll::Ready(Err(refusal))) => {
                assert_eq!(&Why::from(refusal), why);
                wait.state = State::Gone;
                self.waits[id] = None;
                assert_eq!((bell.rung.load(Ordering::SeqCst), Arc::strong_count(&bell)), (0, 1), "a waker");
            }
            (state, poll) => panic!("{state:?}, not {poll:?}"),
        }
    }

    fn cancel(&mut self, id: WaitId) {
        self.waits[id] = None;
        let model = &mut self.model;
        match std::mem::replace(&mut model.waits[id].state, State::Gone) {
            State::Waiting { .. } => model.serve(),
            State::Granted(hold) => model.end(hold, NOTHING),
            State::New | State::Refused(_) => {}
            State::Gone => unreachable!(),
        }
    }

    fn step_of_hold(&mut self, id: HoldId, step: &Step) {
        let HoldModel { pool, held } = *self.model.holds[id].as_ref().unwrap();
        let model = &mut self.model;
        match *step {
            Step::Commit(_, actual) => {
                model.end(id, actual);
                self.holds[id].take().unwrap().commit(amount(actual));
            }
            Step::CommitAll(_) => {
                let [tokens, requests, _] = held;
                model.end(id, [tokens, requests, 0]);
                self.holds[id].take().unwrap().commit_all();
            }
            Step::Release(_) => {
                model.end(id, NOTHING);
                self.holds[id].take().unwrap().release();
            }
            Step::Shrink(_, by) => {
                let by = least(by, held);
                model.take(id, by);
                model.settle_path(pool, by, NOTHING);
                model.serve();
                self.hold(id).shrink(amount(by)).unwrap();
            }
            Step::Grow(_, extra) => {
                let outcome = model.ask(pool, extra, false);
                if outcome.is_ok() {
                    model.hold_path(pool, extra);
                    let hold = model.holds[id].as_mut().unwrap();
                    hold.held = std::array::from_fn(|axis| hold.held[axis] + extra[axis]);
                }
                assert_eq!(self.hold(id).grow(amount(extra)).map_err(Why::from), outcome);
            }
            Step::Split(_, part) => {
                let part = least(part, held);
                let outcome = model.ask(pool, with_one_in_flight(NOTHING), false).map(|()| {
                    model.hold_path(pool, with_one_in_flight(NOTHING));
                    model.take(id, part);
                    model.holds.push(Some(HoldModel { pool, held: with_one_in_flight(part) }));
                    model.holds.len() - 1
                });
                match self.hold(id).split(amount(part)) {
                    Ok(half) => self.keep(outcome.expect("the model refuses"), half),
                    Err(refusal) => assert_eq!(Err(Why::from(refusal)), outcome),
                }
            }
            Step::RecordPart(_, part) => {
                let covered = least(part, held);
                let beyond = std::array::from_fn(|axis| part[axis] - covered[axis]);
                let outcome = model.ask(pool, beyond, false);
                if outcome.is_ok() {
                    model.take(id, covered);
                    model.settle_path(pool, covered, part);
                    model.serve();
                }
                assert_eq!(self.hold(id).record(amount(part)).map_err(Why::from), outcome);
            }
            Step::DebitPart(_, part) => {
                let covered = least(part, held);
                model.take(id, covered);
                model.settle_path(pool, covered, part);
                model.serve();
                self.hold(id).debit(amount(part));
            }
            _ => unreachable!(),
        }
    }

    /// Everything that can be seen is as the model says.
    fn compare(&self) {
        let model = &self.model;
        let snapshots = self.pool(ROOT).snapshot_tree();
        let mut seen: Vec<&Snapshot> = snapshots.iter().collect();
        seen.sort_by_key(|snapshot| index(&snapshot.name));
        let there: Vec<_> = (0..model.pools.len()).filter(|&id| !model.pools[id].gone).collect();
        assert_eq!(seen.iter().map(|snapshot| index(&snapshot.name)).collect::<Vec<_>>(), there);
        for (&id, snapshot) in there.iter().zip(&seen) {
            let pool = &model.pools[id];
            for (axis, (cap, used, reserved, overage)) in balances(snapshot).into_iter().enumerate() {
                let expected = (pool.cap[axis], pool.used[axis], pool.reserved[axis], pool.overage[axis]);
                assert_eq!((cap, used, reserved, overage), expected, "{} of {}", AXES[axis], snapshot.name);
                assert!(cap.is_none_or(|cap| used + reserved <= cap), "P1");
            }
            let is_below = |at: PoolId| model.path(at).any(|above| above == id);
            let reservations = model.holds.iter().flatten().filter(|hold| is_below(hold.pool)).count();
            let waiting = model.waiting().filter(|&(_, wait, _)| is_below(model.waits[wait].home)).count();
            let counts = (snapshot.reservations, snapshot.waiting, snapshot.refused, snapshot.closed);
            assert_eq!(counts, (reservations as u64, waiting as u64, pool.refused, pool.closed), "{}", snapshot.name);
        }
        for (id, waiter) in self.waits.iter().enumerate() {
            let Some(bell) = waiter.as_ref().and_then(|waiter| waiter.bell.as_ref()) else { continue };
            let WaitModel { waker, woken, state, .. } = &model.waits[id];
            let figures = (bell.rung.load(Ordering::SeqCst), Arc::strong_count(bell));
            assert_eq!(
                figures,
                (usize::from(*woken), 1 + usize::from(*waker)),
                "{state:?}: wakes and owners of a waker"
            );
        }
        self.nobody_is_forgotten(&snapshots);
    }

    /// No wake-up is lost: the first of a line that fits, by the pools' own figures, has an earlier one parked on its way.
    fn nobody_is_forgotten(&self, snapshots: &[Snapshot]) {
        let heads = self.model.heads();
        for &(ticket, wait, _) in &heads {
            let WaitModel { home, asked, .. } = self.model.waits[wait];
            let snapshot = snapshots.iter().find(|snapshot| index(&snapshot.name) == home).unwrap();
            assert!(!snapshot.closed, "nobody waits in a closed pool");
            let is_free = |(available, asked): (Option<u64>, u64)| available.is_none_or(|free| asked <= free);
            if available(snapshot).into_iter().zip(asked).all(is_free) {
                let ways = self.model.asked_on_path(home, asked).into_iter();
                let competing = ways.filter(|&(id, asked)| self.model.competes(home, id, asked));
                let is_parked = |id| {
                    heads
                        .iter()
                        .any(|&(other, wait, blocked)| other < ticket && self.model.is_parked(wait, blocked, id))
                };
                assert!(competing.into_iter().any(|(id, _)| is_parked(id)), "forgotten: {wait} in {}", name(home));
            }
        }
    }
}

fn balances(snapshot: &Snapshot) -> [(Option<u64>, u64, u64, u64); 3] {
    [snapshot.tokens, snapshot.requests, snapshot.in_flight]
        .map(|axis| (axis.cap, axis.used, axis.reserved, axis.overage))
}

fn available(snapshot: &Snapshot) -> [Option<u64>; 3] {
    [snapshot.tokens, snapshot.requests, snapshot.in_flight].map(|axis| axis.available)
}

impl PoolModel {
    fn new(parent: Option<PoolId>, new: &NewPool, deadline: Option<(u64, u64)>, closed: bool) -> PoolModel {
        let own = new.deadline.filter(|_| parent.is_none()).map(|total| (total, total));
        PoolModel {
            parent,
            cap: new.cap,
            used: NOTHING,
            reserved: NOTHING,
            overage: NOTHING,
            carved: parent.is_some() && new.carved,
            closed,
            deadline: deadline.or(own),
            refused: 0,
            handle: true,
            gone: false,
        }
    }
}

/// How caps move, and holds shrink.
impl Model {
    fn add(&mut self, at: PoolId, more: [Option<u64>; 3]) -> Result<(), Why> {
        self.read_clock(at);
        if let Some(why) = self.closed(at) {
            return Err(why);
        }
        let more = self.capped(at, more);
        if let (true, Some(parent)) = (self.pools[at].carved, self.pools[at].parent) {
            let share = std::array::from_fn(|axis| more[axis].saturating_sub(self.pools[at].overage[axis]));
            if self.pools[at].cap.iter().any(Option::is_some) {
                self.ask(parent, share, false)?;
                self.hold_path(parent, share);
            }
        }
        for (axis, more) in more.into_iter().enumerate() {
            self.give(at, axis, more);
            let cap = &mut self.pools[at].cap[axis];
            *cap = cap.map(|cap| cap + more);
        }
        self.serve();
        Ok(())
    }

    fn remove(&mut self, at: PoolId, less: [Option<u64>; 3]) -> bool {
        let less = self.capped(at, less);
        if !self.fits(at, less) {
            return false;
        }
        for (cap, less) in self.pools[at].cap.iter_mut().zip(less) {
            *cap = cap.map(|cap| cap - less);
        }
        if let (true, Some(parent)) = (self.pools[at].carved, self.pools[at].parent) {
            self.settle_path(parent, less, NOTHING);
        }
        self.serve();
        true
    }

    /// What is named of axes that have a cap.
    fn capped(&self, at: PoolId, units: [Option<u64>; 3]) -> Units {
        std::array::from_fn(|axis| self.pools[at].cap[axis].and(units[axis]).unwrap_or_default())
    }

    fn take(&mut self, hold: HoldId, part: Units) {
        let hold = self.holds[hold].as_mut().unwrap();
        hold.held = std::array::from_fn(|axis| hold.held[axis] - part[axis]);
    }
}

fn any_units() -> impl Strategy<Value = Units> {
    (prop_oneof![1 => Just(0), 6 => 1..=12u64], prop_oneof![2 => Just(0), 1 => 1..=3u64])
        .prop_map(|(tokens, requests)| [tokens, requests, 0])
}

fn any_caps(tokens: u64) -> impl Strategy<Value = [Option<u64>; 3]> {
    (option::weighted(0.7, 0..=tokens), option::weighted(0.3, 0..=6u64), option::weighted(0.3, 0..=4u64))
        .prop_map(|(tokens, requests, in_flight)| [tokens, requests, in_flight])
}

fn any_pool(carved: f64, timed: f64, tokens: u64) -> impl Strategy<Value = NewPool> {
    (any_caps(tokens), proptest::bool::weighted(carved), option::weighted(timed, 1..=6u64))
        .prop_map(|(cap, carved, deadline)| NewPool { cap, carved, deadline })
}

fn any_step() -> impl Strategy<Value = Step> {
    let i = || 0..16usize;
    prop_oneof![
        2 => (i(), any_pool(0.4, 0.3, 15)).prop_map(|(pool, new)| Step::Child(pool, new)),
        1 => i().prop_map(Step::DropPool),
        1 => i().prop_map(Step::Close),
        1 => i().prop_map(Step::Reset),
        2 => (i(), any_caps(8)).prop_map(|(pool, caps)| Step::Add(pool, caps)),
        1 => (i(), any_caps(8)).prop_map(|(pool, caps)| Step::Remove(pool, caps)),
        4 => (i(), any_units()).prop_map(|(pool, units)| Step::Record(pool, units)),
        1 => (i(), any_units()).prop_map(|(pool, units)| Step::Debit(pool, units)),
        6 => (i(), any_units()).prop_map(|(pool, units)| Step::Reserve(pool, units)),
        14 => (i(), any_units(), proptest::bool::weighted(0.9)).prop_map(|(pool, units, now)| Step::Wait(pool, units, now)),
        8 => i().prop_map(Step::Poll),
        3 => i().prop_map(Step::Cancel),
        2 => (i(), any_units()).prop_map(|(hold, units)| Step::Commit(hold, units)),
        1 => i().prop_map(Step::CommitAll),
        6 => i().prop_map(Step::Release),
        1 => (i(), any_units()).prop_map(|(hold, units)| Step::Shrink(hold, units)),
        2 => (i(), any_units()).prop_map(|(hold, units)| Step::Grow(hold, units)),
        1 => (i(), any_units()).prop_map(|(hold, units)| Step::Split(hold, units)),
        1 => (i(), any_units()).prop_map(|(hold, units)| Step::RecordPart(hold, units)),
        1 => (i(), any_units()).prop_map(|(hold, units)| Step::DebitPart(hold, units)),
        2 => (1..=2u64).prop_map(Step::Advance),
    ]
}

fn any_steps() -> impl Strategy<Value = Steps> {
    proptest::collection::vec(any_step(), 1..60).prop_map(Steps)
}

fn any_children() -> impl Strategy<Value = Steps> {
    let child = (0..16usize, any_pool(0.4, 0.3, 15)).prop_map(|(pool, new)| Step::Child(pool, new));
    proptest::collection::vec(child, 1..5).prop_map(Steps)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn p6_the_queue_does_what_a_list_that_is_scanned_whole_says(
        root in any_pool(0.0, 0.1, 30),
        children in any_children(),
        steps in any_steps(),
    ) {
        let mut world = World::new(root);
        for step in children.0.iter().chain(&steps.0) {
            world.step(step);
            world.compare();
        }
    }
}
