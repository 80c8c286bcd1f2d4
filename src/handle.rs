//! The lock around a tree of pools. The only file that locks: one call, one lock, one transition.
//!
//! The clock is read before the lock is taken, and a value of the user's is dropped after it was
//! let go.
//!
//! Whether a call must know the time depends on its way up, which never changes, and on whether
//! there is a hold that may expire or a pool that is paused. A flag tells the second, so that the
//! lock need not be taken for it. It is only a hint, which is why it needs no memory order: a call
//! that finds such a hold or pause under the lock, and has not read the clock, lets go of the lock
//! and does.
//!
//! While the way of a call is not timed, nothing may expire or is paused and nobody waits, watches or
//! observes, a transition has nothing to do but its own step. The calls of the hot path then take
//! that step alone, inlined into the caller, so that the axes that an amount does not name cost
//! nothing. It is the same step that the full transition takes. Where the way is timed or a hold may
//! expire, a call that knows the time and finds nothing due takes that step as soon as the windows of
//! its way have turned.

use std::cell::OnceCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, RefUnwindSafe, UnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Waker;
use std::time::Instant;

use crate::engine::{
    Answer, Booked, End, Engine, Event, Grant, HoldKey, Keys, NodeId, Purpose, Spec, Terms, WaitKey,
};
use crate::sync::{Arc, AtomicBool, Mutex, MutexGuard, hand_over};
use crate::time::clock::SharedClock;
use crate::time::deadline::DeadlineBudget;
use crate::types::axis::{Labels, Quantities};
use crate::types::error::BudgetError;
use crate::types::name::Name;
use crate::types::snapshot::Snapshot;

/// A sleep of the caller's runtime.
pub(crate) type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How such a sleep is had.
#[derive(Clone)]
pub(crate) struct Timer {
    pub(crate) sleep: std::sync::Arc<dyn Fn(Instant) -> Sleep + Send + Sync>,
    /// Whether the thread that polls can have one: a runtime may be known only where it runs.
    pub(crate) is_here: fn() -> bool,
}

/// The listener to the events of a tree.
pub(crate) type Listener = std::sync::Arc<dyn Fn(Event) + Send + Sync>;

/// The clock, the timer and the listener of all pools of a tree.
#[derive(Clone, Default)]
pub(crate) struct Runtime {
    pub(crate) clock: SharedClock,
    pub(crate) timer: Option<Timer>,
    pub(crate) listener: Option<Listener>,
}

/// A tree of pools. On the cache line of the lock lie the parts of the engine that are seldom
/// written, and the flag is on another line than all that the lock guards: a thread that waits for
/// the lock, or asks whether it must read the clock, does not disturb the thread that changes the
/// balances.
#[repr(C, align(64))]
struct Shared {
    engine: Mutex<Engine>,
    /// Whether time plays a part whatever the way of a call, as of the end of the last transition.
    heeds_time: AtomicBool,
    clock: SharedClock,
    timer: Option<Timer>,
    listener: Option<Listener>,
}

/// How many are woken without a change of the queue's memory.
const FEW: usize = 8;

/// The lock while a transition runs. Its end wakes all that the transition granted or told, and
/// tells the observer, without the lock: a waker may come back here. No other thread wakes them for
/// this one: it might hold a lock that they take.
struct Transition<'a> {
    handle: &'a Handle,
    engine: Option<MutexGuard<'a, Engine>>,
}

impl<'a> Transition<'a> {
    #[inline]
    fn begin(handle: &'a Handle) -> Transition<'a> {
        Transition::with(handle, handle.shared.engine.lock())
    }

    #[inline]
    fn with(handle: &'a Handle, engine: MutexGuard<'a, Engine>) -> Transition<'a> {
        Transition { handle, engine: Some(engine) }
    }

    /// Lets go of the lock meanwhile. Nothing has been changed yet.
    #[cold]
    fn interrupted<R>(&mut self, by: impl Fn() -> R) -> R {
        self.engine = None;
        let result = by();
        *self = Transition::begin(self.handle);
        result
    }

    #[inline]
    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("it holds the lock until its end")
    }

    /// Takes the step.
    #[inline]
    fn step<R: Answer>(&mut self, step: impl FnOnce(&mut Engine) -> R) -> R {
        if self.engine().is_observed() { self.observed_step(step) } else { step(self.engine()) }
    }

    /// Takes the step, and notes the answer of the caller for the observer. Apart, as an answer
    /// that is looked at is then moved, which would cost as much as some of the steps.
    #[cold]
    #[inline(never)]
    fn observed_step<R: Answer>(&mut self, step: impl FnOnce(&mut Engine) -> R) -> R {
        let answer = step(self.engine());
        let name = &self.handle.name;
        self.engine().hear(name, &answer);
        answer
    }

    /// The end in a tree that is watched or observed.
    #[cold]
    #[inline(never)]
    fn end_steered(&self, mut engine: MutexGuard<'_, Engine>) {
        engine.look(self.handle.node);
        self.handle.renew_duties(&mut engine);
        let events = engine.events();
        wake(engine);
        if let Some(listener) = &self.handle.shared.listener {
            events.into_iter().for_each(|event| tell_one(listener, event));
        }
    }
}

impl Drop for Transition<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(mut engine) = self.engine.take() {
            if engine.is_steered() {
                return self.end_steered(engine);
            }
            self.handle.renew_duties(&mut engine);
            if !engine.wakers().is_empty() {
                wake(engine);
            }
        }
    }
}

/// Wakes without the lock.
#[cold]
fn wake(mut engine: MutexGuard<'_, Engine>) {
    let wakers = engine.wakers();
    if wakers.len() == 1 {
        let waker = wakers.pop();
        drop(engine);
        return waker.into_iter().for_each(wake_one);
    }
    if wakers.len() > FEW {
        let many = std::mem::take(wakers);
        drop(engine);
        return many.into_iter().for_each(wake_one);
    }
    // The last first, as a list is emptied from its end.
    let few: [Option<Waker>; FEW] = std::array::from_fn(|_| wakers.pop());
    drop(engine);
    few.into_iter().rev().flatten().for_each(wake_one);
}

/// A waker that panics must not keep the others asleep, nor hurt the caller, who only gave back
/// held units.
fn wake_one(waker: Waker) {
    contained(|| waker.wake());
}

/// An observer that panics must not keep the next event from being told, nor hurt the caller, who may
/// be in a drop.
fn tell_one(listener: &Listener, event: Event) {
    contained(|| listener(event));
}

/// The result of the user's code; `None` if it panics. The payload of the panic is forgotten, as
/// its drop may panic, too.
pub(crate) fn contained<R>(of_user: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(of_user)).map_err(std::mem::forget).ok()
}

/// A pool of a tree. Its drop is the pool's end; every handle of the user's and every reservation
/// shares it.
pub(crate) struct Handle {
    shared: Arc<Shared>,
    node: NodeId,
    /// Whether any pool on the way up has a window. It never changes, nor does the deadline, so
    /// that it is known without the lock whether a call must read the clock (P8).
    windowed: bool,
    /// Whether admission must know the time for the way alone: a window, or a deadline.
    timed: bool,
    name: Name,
    /// Over at the earliest on the way up. In a box, as most pools have none.
    deadline: Option<Box<DeadlineBudget>>,
}

/// How pools are made.
impl Handle {
    pub(crate) fn root(
        spec: Spec,
        deadline: Option<DeadlineBudget>,
        Runtime { clock, timer, listener }: Runtime,
    ) -> Handle {
        let (name, windowed) = (spec.name.clone(), spec.window.is_some());
        let mut engine = Engine::new(spec);
        if listener.is_some() {
            engine.observe();
        }
        let engine = Mutex::new(engine);
        let shared = Shared { engine, heeds_time: AtomicBool::new(false), clock, timer, listener };
        Handle::new(Arc::new(shared), NodeId::ROOT, name, deadline, windowed)
    }

    /// A pool below this one.
    pub(crate) fn child(&self, spec: Spec, deadline: Option<DeadlineBudget>) -> Handle {
        let (name, windowed) = (spec.name.clone(), spec.window.is_some());
        // No waiter, no watch and no observer has anything to learn of it at the end.
        let node = self.shared.engine.lock().add_child(self.node, spec);
        self.below(node, name, deadline, windowed)
    }

    /// A pool below this one, its caps reserved in this one.
    pub(crate) fn carved(
        &self,
        spec: Spec,
        deadline: Option<DeadlineBudget>,
    ) -> Result<Handle, BudgetError> {
        let name = spec.name.clone();
        let node = self.ask(|engine, parent, now| engine.add_carved(parent, spec, now))?;
        Ok(self.below(node, name, deadline, false))
    }

    /// A pool below all of these, which belong to one tree, are different, and have no carved one
    /// on their ways.
    pub(crate) fn joint(
        parents: &[&Handle],
        spec: Spec,
        deadline: Option<DeadlineBudget>,
    ) -> Handle {
        let first = parents.first().expect("a joint pool has a parent");
        let name = spec.name.clone();
        let windowed = spec.window.is_some() || parents.iter().any(|parent| parent.windowed);
        let nodes: Vec<NodeId> = parents.iter().map(|parent| parent.node).collect();
        let node = first.enter(|engine, _| engine.add_joint(&nodes, spec));
        let deadline = within(deadline, Handle::earliest_deadline(parents));
        Handle::new(Arc::clone(&first.shared), node, name, deadline, windowed)
    }

    /// The budget of time that is over first; of equal ones, and of those without an end, the
    /// first.
    pub(crate) fn earliest_deadline<'a>(pools: &[&'a Handle]) -> Option<&'a DeadlineBudget> {
        let budgets = pools.iter().filter_map(|pool| pool.deadline());
        budgets.min_by_key(|budget| (budget.deadline().is_none(), budget.deadline()))
    }

    fn below(
        &self,
        node: NodeId,
        name: Name,
        own: Option<DeadlineBudget>,
        windowed: bool,
    ) -> Handle {
        let (deadline, windowed) = (within(own, self.deadline()), windowed || self.windowed);
        Handle::new(Arc::clone(&self.shared), node, name, deadline, windowed)
    }

    fn new(
        shared: Arc<Shared>,
        node: NodeId,
        name: Name,
        deadline: Option<DeadlineBudget>,
        windowed: bool,
    ) -> Handle {
        let bounded = deadline.as_ref().is_some_and(|budget| budget.deadline().is_some());
        let (timed, deadline) = (windowed || bounded, deadline.map(Box::new));
        Handle { shared, node, windowed, timed, name, deadline }
    }
}

/// A pool's own budget of time within that of those above it, or else that one.
fn within(own: Option<DeadlineBudget>, above: Option<&DeadlineBudget>) -> Option<DeadlineBudget> {
    match (own, above) {
        (Some(own), Some(above)) => Some(own.within(above)),
        (own, above) => own.or_else(|| above.cloned()),
    }
}

/// The hot path: the engine's own step, while there is nothing else to do.
impl Handle {
    #[inline(always)]
    pub(crate) fn record(&self, amount: &Quantities) -> Result<(), BudgetError> {
        let mut engine = match self.quick(self.timed) {
            Ok(engine) => engine,
            Err(Begun { engine: Some(engine), .. })
                if engine.concerns_no_waiter(self.node, amount) =>
            {
                engine
            }
            Err(begun) => return self.record_slowly(begun, *amount),
        };
        if engine.try_record(self.node, amount) {
            return Ok(());
        }
        refuse(engine, self.node, *amount, None)
    }

    #[inline(never)]
    fn record_slowly(&self, begun: Begun<'_>, amount: Quantities) -> Result<(), BudgetError> {
        let begun = match self.quick_in_time(begun, || Some(self.now())) {
            Ok((mut engine, now)) => {
                let is_late = engine.is_late(self.node, now);
                if !is_late && engine.try_record(self.node, &amount) {
                    return Ok(());
                }
                return refuse(engine, self.node, amount, now);
            }
            Err(begun) => begun,
        };
        self.ask_on(begun, |engine, at, now| engine.record(at, &amount, now))
    }

    #[inline(always)]
    pub(crate) fn reserve(&self, held: &Quantities) -> Result<HoldKey, BudgetError> {
        let begun = match self.quick(self.timed) {
            Ok(mut engine) => {
                if let Some(key) = engine.try_reserve(self.node, held) {
                    return Ok(key);
                }
                return refuse(engine, self.node, *held, None);
            }
            Err(begun) => begun,
        };
        self.reserve_slowly(begun, *held)
    }

    #[inline(never)]
    fn reserve_slowly(&self, begun: Begun<'_>, held: Quantities) -> Result<HoldKey, BudgetError> {
        let begun = match self.quick_in_time(begun, || Some(self.now())) {
            Ok((mut engine, now)) => {
                let is_late = engine.is_late(self.node, now);
                let key = if is_late { None } else { engine.try_reserve_at(self.node, &held, now) };
                return key.map_or_else(|| refuse(engine, self.node, held, now), Ok);
            }
            Err(begun) => begun,
        };
        self.ask_on(begun, |engine, at, now| engine.reserve(at, &held, now))
    }

    /// Holds or spends now, if that is all there is to do. If not, nothing has been done.
    #[inline]
    pub(crate) fn take(&self, asked: &Quantities, purpose: Purpose) -> Option<Grant> {
        let mut engine = self.quick(self.timed).ok()?;
        match purpose {
            Purpose::Hold => engine.try_reserve(self.node, asked).map(Grant::Hold),
            Purpose::Spend => engine.try_record(self.node, asked).then_some(Grant::Spent),
        }
    }

    /// On terms.
    #[inline(never)]
    pub(crate) fn reserve_on(
        &self,
        held: &Quantities,
        terms: &mut Terms,
    ) -> Result<HoldKey, BudgetError> {
        let (takes_time, are_exact) = (terms.takes_time(false), terms.are_exact());
        let quick = match self.quick(self.timed || takes_time) {
            Ok(engine) => Ok((engine, None)),
            Err(begun) if are_exact => self.quick_in_time(begun, || Some(self.now())),
            Err(begun) => Err(begun),
        };
        let begun = match quick {
            Ok((engine, now)) if are_exact => {
                return self.reserve_exactly(engine, held, terms, now);
            }
            Ok((engine, now)) => Begun { engine: Some(engine), now },
            Err(begun) => begun,
        };
        self.asking(begun, takes_time, |locked, now| {
            locked.step(|engine| engine.reserve_on(self.node, held, terms, now))
        })
    }

    fn reserve_exactly(
        &self,
        mut engine: MutexGuard<'_, Engine>,
        held: &Quantities,
        terms: &mut Terms,
        now: Option<Instant>,
    ) -> Result<HoldKey, BudgetError> {
        let key = match engine.is_late(self.node, now) {
            true => None,
            false => engine.try_reserve_on(self.node, held, terms, now),
        };
        let Some(key) = key else {
            return refuse(engine, self.node, terms.least(*held), now);
        };
        if terms.ttl.is_some() {
            // A hold may expire from now on.
            self.renew_duties(&mut engine);
        }
        Ok(key)
    }

    #[inline(always)]
    pub(crate) fn end(&self, key: HoldKey, how: End<'_>, booked: &mut Booked) {
        let begun = match self.quick(self.windowed) {
            Ok(mut engine) if engine.is_live(key) => return engine.end_live(key, how, booked),
            Ok(engine) => Begun { engine: Some(engine), now: None },
            Err(begun) => begun,
        };
        self.end_slowly(begun, key, how, booked);
    }

    #[inline(never)]
    fn end_slowly(&self, begun: Begun<'_>, key: HoldKey, how: End<'_>, booked: &mut Booked) {
        let begun = match self.quick_in_time(begun, || self.try_now()) {
            Ok((mut engine, _)) if engine.is_live(key) => {
                if engine.unschedule(key).is_some() {
                    self.renew_duties(&mut engine);
                }
                return engine.end_live(key, how, booked);
            }
            Ok((engine, now)) => Begun { engine: Some(engine), now },
            Err(begun) => begun,
        };
        self.tell_on(begun, self.windowed, |engine, _, now| {
            engine.end(key, how, now, booked);
            booked
        });
    }

    #[inline(always)]
    pub(crate) fn peek(&self, amount: &Quantities) -> Result<(), BudgetError> {
        let begun = match self.quick(self.timed) {
            Ok(engine) if engine.would_record(self.node, amount) => return Ok(()),
            Ok(engine) => Begun { engine: Some(engine), now: None },
            Err(begun) => begun,
        };
        self.peek_slowly(begun, *amount)
    }

    #[inline(never)]
    fn peek_slowly(&self, begun: Begun<'_>, amount: Quantities) -> Result<(), BudgetError> {
        // It asks for nothing, and so is refused nothing.
        self.asking(begun, false, |locked, now| locked.engine().peek(self.node, &amount, now))
    }

    #[inline]
    pub(crate) fn debit(&self, amount: &Quantities, booked: &mut Booked) {
        match self.quick(self.windowed) {
            Ok(mut engine) => engine.debit_quietly(self.node, amount, booked),
            Err(begun) => {
                *booked = self
                    .tell_on(begun, self.windowed, |engine, at, now| engine.debit(at, amount, now));
            }
        }
    }

    pub(crate) fn snapshot_into(&self, place: &mut Snapshot) {
        match self.quick(self.windowed) {
            Ok(engine) => engine.show(self.node, place),
            Err(begun) => {
                self.tell_on(begun, self.windowed, |engine, at, now| {
                    engine.snapshot_into(at, now, place)
                });
            }
        }
    }

    /// The lock, if nothing but the step itself is to be done. If not, what there is of it.
    #[inline(always)]
    fn quick(&self, timed: bool) -> Result<MutexGuard<'_, Engine>, Begun<'_>> {
        if timed || self.shared.heeds_time.load(Relaxed) {
            return Err(Begun::default());
        }
        let engine = self.shared.engine.lock();
        if engine.is_quiet() { Ok(engine) } else { Err(Begun { engine: Some(engine), now: None }) }
    }

    /// After a transition that may have begun or ended a duty.
    #[inline]
    fn renew_duties(&self, engine: &mut Engine) {
        if engine.renew_duties() {
            self.shared.heeds_time.store(engine.heeds_time(), Relaxed);
        }
    }

    /// [`quick`](Handle::quick), for a call that must know the time and has not taken the lock: the
    /// windows of the way are brought up, and the call is told the instant to go by.
    #[inline]
    fn quick_in_time<'a>(
        &'a self,
        begun: Begun<'a>,
        read_clock: impl Fn() -> Option<Instant>,
    ) -> Result<(MutexGuard<'a, Engine>, Option<Instant>), Begun<'a>> {
        if begun.engine.is_some() {
            return Err(begun);
        }
        let Some(now) = read_clock() else { return Err(begun) };
        let mut engine = self.shared.engine.lock();
        if !engine.is_quiet_at(now) {
            return Err(Begun { engine: Some(engine), now: Some(now) });
        }
        let now = engine.pass_quietly(self.node, now);
        Ok((engine, Some(now)))
    }
}

/// The refusal of a step that was all there was to do.
#[inline(always)]
fn refuse<R>(
    mut engine: MutexGuard<'_, Engine>,
    at: NodeId,
    asked: Quantities,
    now: Option<Instant>,
) -> Result<R, BudgetError> {
    engine.refuse_quietly(at, &asked, now)
}

/// What a call has done already: it has taken the lock, or read the clock before that.
#[derive(Default)]
struct Begun<'a> {
    engine: Option<MutexGuard<'a, Engine>>,
    now: Option<Instant>,
}

/// The full transitions.
impl Handle {
    /// Whether two pools belong to one tree.
    pub(crate) fn is_of_tree(&self, other: &Handle) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }

    /// A transition that needs no time, and cannot be refused.
    #[inline]
    pub(crate) fn enter<R>(&self, transition: impl FnOnce(&mut Engine, NodeId) -> R) -> R {
        // The result is written where the caller wants it, and not moved: that would cost as much
        // as the rest.
        transition(Transition::begin(self).engine(), self.node)
    }

    /// The labels of the user's own axes: a look apart from the call, for the few receipts that name
    /// an axis which the call did not.
    #[cold]
    pub(crate) fn labels(&self) -> Labels {
        *self.shared.engine.lock().labels()
    }

    /// Lets a thread pass that waits for the lock. A thread that takes the lock again and again
    /// would mostly be the next itself.
    pub(crate) fn give_way(&self) {
        hand_over(self.shared.engine.lock());
    }

    /// A transition that tells or looks: it is told the time if the way has a window, or a hold may
    /// expire (P8). It cannot fail: if the clock panics, no time has passed since the latest instant
    /// seen.
    #[inline]
    pub(crate) fn tell<R: Answer>(
        &self,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        self.tell_on(Begun::default(), self.windowed, transition)
    }

    /// A transition that tells, and takes a time: that of a clock which has always panicked is not
    /// known.
    pub(crate) fn tell_at<R: Answer>(
        &self,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        self.tell_on(Begun::default(), true, transition)
    }

    /// The alarm of a waiter rings. Returns when it is to ring next. A timer calls this, to whom no
    /// clock may panic.
    pub(crate) fn ring(&self, place: WaitKey) -> Option<Instant> {
        let mut next = None;
        self.tell_at(|engine, at, now| next = engine.ring(at, place, now));
        next
    }

    #[inline]
    fn tell_on<R: Answer>(
        &self,
        begun: Begun<'_>,
        timed: bool,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        let read_clock = || self.try_now();
        self.transition(begun, timed, Engine::heeds_time, read_clock, |locked, now| {
            locked.step(|engine| transition(engine, self.node, now))
        })
    }

    /// A transition that asks: it is told the time if the way has a deadline, too.
    #[inline]
    pub(crate) fn ask<R: Answer>(
        &self,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        self.ask_on(Begun::default(), transition)
    }

    #[inline]
    fn ask_on<R: Answer>(
        &self,
        begun: Begun<'_>,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        self.asking(begun, false, |locked, now| {
            locked.step(|engine| transition(engine, self.node, now))
        })
    }

    /// [`ask`](Handle::ask), or [`ask_at`](Handle::ask_at) where the call `takes_time`, of which the
    /// observer is told nothing here.
    #[inline]
    pub(crate) fn ask_unheard<R>(
        &self,
        takes_time: bool,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        self.asking(Begun::default(), takes_time, |locked, now| {
            transition(locked.engine(), self.node, now)
        })
    }

    /// A transition that asks. Should the clock panic, it does so in the caller.
    #[inline]
    fn asking<R>(
        &self,
        begun: Begun<'_>,
        takes_time: bool,
        step: impl FnOnce(&mut Transition<'_>, Option<Instant>) -> R,
    ) -> R {
        let read_clock = || Some(self.now());
        self.transition(begun, self.timed || takes_time, Engine::heeds_time, read_clock, step)
    }

    /// A transition of two pools of a tree: it is told the time if the way of either has a window.
    pub(crate) fn tell_both<R: Answer>(
        &self,
        other: &Handle,
        transition: impl FnOnce(&mut Engine, [NodeId; 2], Option<Instant>) -> R,
    ) -> R {
        let timed = self.windowed || other.windowed;
        let read_clock = || self.try_now();
        self.transition(Begun::default(), timed, Engine::heeds_time, read_clock, |locked, now| {
            locked.step(|engine| transition(engine, [self.node, other.node], now))
        })
    }

    /// A transition that takes a time.
    pub(crate) fn ask_at<R: Answer>(
        &self,
        transition: impl FnOnce(&mut Engine, NodeId, Instant) -> R,
    ) -> R {
        let now = self.now();
        Transition::begin(self).step(|engine| transition(engine, self.node, now))
    }

    /// Tells the observer of a refusal for which no transition was needed.
    pub(crate) fn refused(&self, refusal: BudgetError) -> BudgetError {
        if let Some(listener) = &self.shared.listener {
            tell_one(listener, Event::Refused(refusal.clone()));
        }
        refusal
    }

    /// A transition that looks at all pools below, too: it is told the time if any of them has a
    /// window. All attempts at one survey share its `reading` of the clock.
    pub(crate) fn survey<R: Answer>(
        &self,
        reading: &OnceCell<Option<Instant>>,
        transition: impl FnOnce(&mut Engine, NodeId, Option<Instant>) -> R,
    ) -> R {
        let needs_time =
            |engine: &Engine| engine.heeds_time() || engine.has_windows_below(self.node);
        let read_clock = || *reading.get_or_init(|| self.try_now());
        self.transition(Begun::default(), self.windowed, needs_time, read_clock, |locked, now| {
            locked.step(|engine| transition(engine, self.node, now))
        })
    }

    #[inline]
    fn transition<R>(
        &self,
        begun: Begun<'_>,
        timed: bool,
        needs_time: impl Fn(&Engine) -> bool,
        read_clock: impl Fn() -> Option<Instant>,
        step: impl FnOnce(&mut Transition<'_>, Option<Instant>) -> R,
    ) -> R {
        let Begun { engine, mut now } = begun;
        if engine.is_none() && (timed || self.shared.heeds_time.load(Relaxed)) {
            now = read_clock();
        }
        let engine = engine.unwrap_or_else(|| self.shared.engine.lock());
        let mut locked = Transition::with(self, engine);
        if now.is_none() {
            let needs_time = needs_time(locked.engine());
            if needs_time {
                now = locked.interrupted(read_clock);
            }
            if timed || needs_time {
                // Of a clock that panics this is what is known.
                now = now.or_else(|| locked.engine().latest());
            }
        }
        step(&mut locked, now)
    }
}

/// The answers that take no lock.
impl Handle {
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        self.shared.clock.now()
    }

    #[cold]
    fn try_now(&self) -> Option<Instant> {
        contained(|| self.now())
    }

    pub(crate) fn has_timer(&self) -> bool {
        self.shared.timer.as_ref().is_some_and(|timer| (timer.is_here)())
    }

    /// The caller's sleep until an instant, if there is a timer.
    pub(crate) fn sleep(&self, until: Instant) -> Option<Sleep> {
        self.shared.timer.as_ref().map(|timer| (timer.sleep)(until))
    }

    pub(crate) fn clock(&self) -> &SharedClock {
        &self.shared.clock
    }

    /// Of the pool in its tree.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    pub(crate) fn name(&self) -> &Name {
        &self.name
    }

    pub(crate) fn deadline(&self) -> Option<&DeadlineBudget> {
        self.deadline.as_deref()
    }

    /// The budget of time, if it has an end.
    pub(crate) fn bounded(&self) -> Option<&DeadlineBudget> {
        self.deadline().filter(|budget| budget.deadline().is_some())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let forgotten: Vec<Keys> = self.enter(Engine::drop_handle);
        drop(forgotten);
    }
}

// The lock has no poison and needs none: nothing of the user's runs under it, and a clock that
// panics does so before it.
impl UnwindSafe for Handle {}
impl RefUnwindSafe for Handle {}

// A builder calls neither timer nor observer, and a pool calls both without its lock.
impl UnwindSafe for Runtime {}
impl RefUnwindSafe for Runtime {}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let timer = if self.timer.is_some() { "given" } else { "none" };
        let observer = if self.listener.is_some() { "given" } else { "none" };
        f.debug_struct("Runtime")
            .field("clock", &self.clock)
            .field("timer", &timer)
            .field("observer", &observer)
            .finish()
    }
}

#[cfg(all(test, target_pointer_width = "64", not(any(budget_pool_loom, budget_pool_shuttle))))]
mod tests {
    use std::mem::offset_of;

    use super::*;

    const LINE: usize = 64;

    /// Many trees are cheap. A count of handles stands before either part.
    #[test]
    fn a_root_pool_is_1_100_bytes_at_most() {
        let bytes = 2 * size_of::<usize>() + size_of::<Handle>() + LINE + size_of::<Shared>();
        assert!(bytes <= 1_100, "{bytes}");
    }

    #[test]
    fn the_flag_is_on_another_line_than_all_that_the_lock_guards() {
        let end = offset_of!(Shared, engine) + size_of::<Mutex<Engine>>();
        assert!(offset_of!(Shared, heeds_time) / LINE > (end - 1) / LINE);
    }
}
