//! A naive model of a tree of pools, and one language of operations that drives it and the real
//! pool side by side.
//!
//! The model (`oracle.rs`, and `queue.rs` for those who wait) is an independent reading of the
//! contract, too simple to be wrong: `u128` throughout, nothing is cached, what is reserved is
//! never stored but summed up from the live owners each time it is asked for, and all who wait are
//! looked at after each change. It knows nothing of how the library works inside. An absent cap is
//! `u64::MAX`.
//!
//! Here is what both have in common; `language.rs` has the operations, `steps.rs` does them,
//! `checks.rs` looks at what came of it, and `seen.rs` puts that into the model's words.
//!
//! # What is compared
//!
//! The answer of every call, with all that a refusal or a receipt says, instants included. How
//! often it read the clock, which is once or never (P8; for a first poll that must wait, once for
//! each of its two looks). After every step what is left of each lease, which no pool is asked for,
//! and who was woken: whoever was granted or told something, by the step that did so and once. And
//! after a step all that can be seen of all pools and holds, beside the model and by itself; but in
//! half of the runs only now and then, and never when time has just passed: so that what the
//! library leaves for later is met by every kind of call.
//!
//! The library does what is due when a call tells it the time. The model does it at the instant at
//! which it was due, and is told the time by the same calls: one that reads no clock (its path has
//! nothing to do with time, or it is a `close`, the drop of a pool or of a wait, a label) happens
//! to both at the latest instant seen. Nothing else may differ, but these:
//!
//! - Where more holds have expired at once than any call must reclaim, a peak may count them a
//!   little longer (see `learn_peaks`); or no longer, where one that waits is granted (see
//!   `may_be_gone`). How far a lease is refilled depends on what has been
//!   reclaimed, too: there the pool is looked at before, so that it is all.
//! - One that waits may be woken to look again, where time may have become of use to it earlier
//!   than it knew.
//!
//! Shared by the property test and the fuzz target, which includes this file by its path.

#![allow(clippy::result_large_err, reason = "what is simple comes first")]

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::future::Future;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use budget_pool::{
    BudgetError, BudgetPool, Clock, Closed, Lease, ManualClock, RecordWait, Reservation, Wait,
};

/// So many holds that expired may be reclaimed by any call.
const A_FEW: usize = 2;
/// In some runs all is looked at after so many steps.
const SELDOM: usize = 7;
/// How long there has been time when a run begins, so that a period may have started long before.
const PAST: Duration = YEAR.saturating_mul(40);
/// No run lasts longer.
const END: Duration = YEAR.saturating_mul(250);

macro_rules! same {
    ($what:expr, $real:expr, $model:expr) => {{
        let (real, model) = (&$real, &$model);
        if real != model {
            return Err(format!("{}:\n  real   {real:?}\n  model  {model:?}", $what));
        }
    }};
}

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

#[path = "asks.rs"]
pub mod asks;
#[path = "checks.rs"]
mod checks;
#[path = "events.rs"]
mod events;
#[path = "invariants.rs"]
mod invariants;
#[path = "language.rs"]
pub mod language;
#[path = "oracle.rs"]
mod oracle;
#[path = "queue.rs"]
mod queue;
#[path = "runs.rs"]
mod runs;
#[path = "seen.rs"]
mod seen;
#[path = "steps.rs"]
mod steps;
#[path = "tenants.rs"]
mod tenants;
#[path = "watches.rs"]
mod watches;

use events::{Event, Record};
use invariants::check_invariants;
use language::{Build, LANES, Op, Units, Want, YEAR};
use oracle::{HoldId, LeaseId, Model, Nanos, PoolId, Reads, Refusal, Spec, duration};
use queue::WaitId;
use runs::Running;
use seen::{View, refusal};
use tenants::Tenants;
use watches::Watched;

fn name(pool: PoolId) -> String {
    format!("p{pool}")
}

/// Runs the operations on a real pool and on the model.
///
/// # Panics
/// On the first difference between them, and wherever a promise is broken.
pub fn run(ops: &[Op]) {
    if let Err(difference) = compare(ops) {
        panic!("{difference}");
    }
}

/// What has come of a history, in a few words each.
pub type Met = BTreeSet<&'static str>;

/// As [`run`], with the first difference as an error: what it is, and the steps that led there. A
/// panic of the library is one, too.
pub fn compare(ops: &[Op]) -> Result<Met, String> {
    let mut both = Both::new();
    let outcome = match catch_unwind(AssertUnwindSafe(|| both.run(ops))) {
        Ok(outcome) => outcome,
        Err(panic) => Err(said(&*panic)),
    };
    let Err(difference) = outcome else {
        return Ok(both.met.take().into_iter().chain(both.model.met).collect());
    };
    let mut text = String::new();
    for (at, step) in both.trace.iter().enumerate() {
        let _ = writeln!(text, "  {at:>3}  {step}");
    }
    // The drop of what has panicked may panic again.
    std::mem::forget(both);
    Err(format!("{difference}\nafter these steps:\n{text}"))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref().copied()).unwrap_or_default();
    format!("it panicked: {text}")
}

struct Both {
    model: Model,
    clock: ManualClock,
    origin: Instant,
    /// How often the pools read the clock. They keep it alive, so that it also tells when the last
    /// of them is gone.
    reads: Arc<AtomicUsize>,
    pools: Vec<(PoolId, BudgetPool)>,
    holds: Vec<(HoldId, Reservation)>,
    leases: Vec<(LeaseId, Lease)>,
    waiters: Vec<Waiter>,
    alarms: Arc<Mutex<Alarms>>,
    /// What the observer of the tree is told, if it has one.
    record: Option<Arc<Record>>,
    closings: Vec<Closing>,
    watches: Vec<Watched>,
    runs: Vec<Running>,
    tenants: Option<Tenants>,
    /// Never touched again, as if by `mem::forget`; but when a run is over it goes, so that a
    /// million of them leak nothing.
    forgotten: Vec<Box<dyn Any>>,
    /// What every pool had spent when it was last seen.
    spent: BTreeMap<String, Units>,
    /// What the step before was refused, if it will fit in time.
    refused: Option<Refused>,
    /// Whether it only looks: what is derived is looked at once for many looks.
    is_looking: bool,
    met: RefCell<Met>,
    trace: Vec<String>,
}

/// What will fit at an instant, and not before.
struct Refused {
    pool: PoolId,
    want: Want,
    /// It is the keys that are too many.
    key: Option<u8>,
    at: Nanos,
}

struct Waiter {
    id: WaitId,
    wait: AnyWait,
    /// Of its last poll.
    bell: Option<Arc<Bell>>,
    /// What its sleep is to wake.
    alarm: Option<Waker>,
}

/// What the sleeps of one poll are to wake, while it is kept.
#[derive(Default)]
struct Alarms {
    are_kept: bool,
    last: Option<Waker>,
}

/// For a hold, or for a spend.
enum AnyWait {
    Hold(Pin<Box<Wait>>),
    Spend(Pin<Box<RecordWait>>),
}

impl AnyWait {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Option<Reservation>, BudgetError>> {
        match self {
            AnyWait::Hold(wait) => wait.as_mut().poll(context).map_ok(Some),
            AnyWait::Spend(wait) => wait.as_mut().poll(context).map_ok(|()| None),
        }
    }
}

/// One that waits for a pool to be closed.
struct Closing {
    pool: PoolId,
    closed: Pin<Box<Closed>>,
    bell: Arc<Bell>,
}

/// A waker that counts its wakes.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// How often it was rung, and whether anybody keeps it, to ring it.
fn heard(bell: &Arc<Bell>) -> (usize, bool) {
    (bell.0.load(Ordering::Relaxed), Arc::strong_count(bell) > 1)
}

impl Both {
    fn new() -> Both {
        let clock = ManualClock::new();
        let origin = clock.now();
        clock.advance(PAST);
        Both {
            model: Model::new(PAST.as_nanos()),
            clock,
            origin,
            reads: Arc::default(),
            pools: Vec::new(),
            holds: Vec::new(),
            leases: Vec::new(),
            waiters: Vec::new(),
            alarms: Arc::default(),
            record: None,
            closings: Vec::new(),
            watches: Vec::new(),
            runs: Vec::new(),
            tenants: None,
            forgotten: Vec::new(),
            spent: BTreeMap::new(),
            refused: None,
            is_looking: false,
            met: RefCell::default(),
            trace: Vec::new(),
        }
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), String> {
        let (spec, often, ops) = match ops.split_first() {
            Some((Op::Child { pool, build }, rest)) => {
                let build = Build { carved: false, ..*build };
                if pool / 2 % 4 == 0 {
                    self.record = Some(Arc::default());
                    self.model.observe();
                }
                (self.spec(&build, &[64; LANES]), pool % 2 == 0, rest)
            }
            _ => (Spec::default(), true, ops),
        };
        self.root(spec);
        self.check(0)?;
        for (at, op) in ops.iter().enumerate() {
            let was_timed = self.model.may_be_timed();
            self.step(op)?;
            self.check_leases()?;
            self.check_wakes(was_timed)?;
            self.check_events()?;
            let time_has_passed = matches!(op, Op::Advance { .. });
            if !time_has_passed && (often || at % SELDOM == 0) {
                self.check(at)?;
                self.check_events()?;
            }
        }
        self.finish(ops.len(), often)
    }

    /// Everything is dropped, in one order or another: then nothing is left but what was forgotten
    /// (P3), and of that nothing that had a time.
    fn finish(&mut self, steps: usize, often: bool) -> Result<(), String> {
        self.log("drop everything");
        loop {
            let handle = self.pools.iter().rposition(|(id, _)| *id != 0);
            let (hold, lease) = (self.holds.pop(), self.leases.pop());
            let (closing, watch) = (self.closings.pop(), self.watches.pop());
            let is_last = handle.is_none()
                && hold.is_none()
                && lease.is_none()
                && self.waiters.is_empty()
                && closing.is_none()
                && watch.is_none()
                && self.runs.is_empty();
            self.drop_tenants()?;
            if steps % 2 == 0 || (hold.is_none() && lease.is_none()) {
                if let Some(handle) = handle {
                    let (id, handle) = self.pools.remove(handle);
                    self.call(Reads::Never, || drop(handle))?;
                    self.model.drop_handle(id);
                }
            }
            if let Some((id, hold)) = hold {
                self.drop_hold(id, hold)?;
            }
            if let Some((id, lease)) = lease {
                self.drop_lease(id, lease)?;
            }
            self.check_wakes(true)?;
            if let Some(waiter) = self.waiters.pop() {
                self.drop_wait(waiter)?;
            }
            if let Some(Closing { pool, closed, bell }) = closing {
                self.call(Reads::Never, || drop(closed))?;
                same!("wakes of one that is gone", heard(&bell), (0, false));
                self.model.drop_handle(pool);
            }
            if let Some(watch) = watch {
                self.end_watch(watch)?;
            }
            self.drop_last_run()?;
            if is_last {
                break;
            }
            self.check_wakes(true)?;
            self.check_events()?;
            if often {
                self.check(0)?;
            }
        }
        self.check(0)?;
        self.advance_to((PAST + END).as_nanos());
        self.check(0)?;
        self.check_events()?;

        let forgotten = !self.model.holds.is_empty() || !self.model.leases.is_empty();
        if let Some((_, root)) = self.pools.first().filter(|_| !forgotten) {
            let tree = root.snapshot_tree();
            same!("pools that are left", tree.len(), 1);
            same!("reservations that are left", tree[0].reservations, 0);
            for axis in &View::from(&tree[0]).axes {
                same!("what is left reserved", axis.reserved, 0);
                same!("available in the end", axis.available, axis.cap.map(|cap| cap - axis.used));
            }
        }
        self.pools.clear();
        let kept = Arc::strong_count(&self.reads) > 1;
        ensure!(
            kept == forgotten,
            "the pools are {} although nobody holds them",
            if kept { "kept" } else { "gone" }
        );
        Ok(())
    }

    /// The present by the clock: not seen by the pools yet.
    fn now(&self) -> Nanos {
        self.clock.now().duration_since(self.origin).as_nanos()
    }

    fn instant(&self, at: Nanos) -> Instant {
        self.origin + duration(at)
    }

    fn advance_to(&mut self, at: Nanos) {
        let by = duration(at.min((PAST + END).as_nanos()).saturating_sub(self.now()));
        self.log(format!("{by:?} pass"));
        self.clock.advance(by);
    }

    /// Makes a call, with as many readings of the clock as promised (P8). It tells the model the
    /// time if it was told.
    fn call<T>(&mut self, reads: Reads, call: impl FnOnce() -> T) -> Result<T, String> {
        self.call_of(0..=0, reads, call)
    }

    /// A call that reads the clock so often beside.
    fn call_of<T>(
        &mut self,
        beside: RangeInclusive<usize>,
        reads: Reads,
        call: impl FnOnce() -> T,
    ) -> Result<T, String> {
        self.check_watches()?;
        let expected = self.model.reads(reads);
        let before = self.reads.load(Ordering::Relaxed);
        let answer = call();
        let read = self.reads.load(Ordering::Relaxed) - before;
        if !self.is_looking {
            self.check_invariants();
        }
        let promised = match expected {
            Some(expected) => {
                beside.start() + usize::from(expected)..=beside.end() + usize::from(expected)
            }
            None => *beside.start()..=beside.end() + 1,
        };
        ensure!(
            promised.contains(&read),
            "P8: the clock was read {read} times, not {promised:?}: {:?}",
            self.trace.last()
        );
        if read > *beside.start() {
            self.meet_crowd();
            self.model.pass(self.now(), reads);
        }
        Ok(answer)
    }

    /// More has expired than a call must reclaim: in what company?
    fn meet_crowd(&self) {
        let crowd = self.model.expired_by(self.now());
        if crowd.len() <= A_FEW {
            return;
        }
        if crowd.iter().any(|pool| self.model.is_waited_for(*pool)) {
            self.meet("a crowd expires where one waits");
        } else if self.model.anybody_waits() {
            self.meet("a crowd expires while one waits elsewhere");
        }
        if self.model.pools.values().any(|pool| pool.window.is_some()) {
            self.meet("a crowd expires beside a window");
        }
    }

    /// What the real tree derives is right, as long as anybody can reach it.
    fn check_invariants(&self) {
        let held = self.holds.first().map(|(_, hold)| hold.pool());
        let leased = || self.leases.first().map(|(_, lease)| lease.pool());
        let pool = self.pools.first().map(|(_, pool)| pool).or(held).or_else(leased);
        pool.into_iter().for_each(check_invariants);
    }

    /// A call that only reads the clock, if it has to, and tells nobody.
    fn glance<T>(&self, reads: bool, glance: impl FnOnce() -> T) -> Result<T, String> {
        let before = self.reads.load(Ordering::Relaxed);
        let seen = glance();
        let read = self.reads.load(Ordering::Relaxed) - before;
        ensure!(read == usize::from(reads), "P8: the clock was read {read} times by a look");
        Ok(seen)
    }

    fn refusal(&self, error: &BudgetError) -> Refusal {
        let refusal = refusal(error, self.origin);
        self.meet(refusal.in_a_word());
        refusal
    }

    fn meet(&self, what: &'static str) {
        self.met.borrow_mut().insert(what);
    }

    /// What a call is answered. The observer is told of a refusal.
    fn answer<T>(&mut self, answer: Result<T, BudgetError>) -> Result<T, Refusal> {
        answer.map_err(|error| self.told_refusal(&error))
    }

    fn told_refusal(&mut self, error: &BudgetError) -> Refusal {
        let refusal = self.refusal(error);
        self.model.tell(Event::Refused(refusal.clone()));
        refusal
    }

    /// The same of a look, and of a wait, whose refusal the observer knows already.
    fn unheard<T>(&self, answer: Result<T, BudgetError>) -> Result<T, Refusal> {
        answer.map_err(|error| self.refusal(&error))
    }

    /// A pool that can be reached: by a handle of its own, or by that of a hold or a lease.
    fn pool(&self, index: u8) -> Option<(PoolId, BudgetPool)> {
        let reached = self.reached();
        let (id, pool) = reached.get(usize::from(index).checked_rem(reached.len())?)?;
        Some((*id, pool.clone()))
    }

    fn reached(&self) -> Vec<(PoolId, BudgetPool)> {
        let held =
            self.holds.iter().map(|(id, hold)| (self.model.holds[id].pool, hold.pool().clone()));
        let leased = self
            .leases
            .iter()
            .map(|(id, lease)| (self.model.leases[id].pool, lease.pool().clone()));
        self.pools.iter().cloned().chain(held).chain(leased).collect()
    }

    fn log(&mut self, step: impl Into<String>) {
        self.trace.push(step.into());
    }
}
