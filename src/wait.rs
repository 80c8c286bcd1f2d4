//! Waiting: one future, and a thread that parks to drive it.

use std::fmt;
use std::panic::RefUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Instant;

use crate::ask::Ask;
use crate::engine::{Engine, Grant, Looked, NodeId, Place, Purpose, Terms, WaitKey};
use crate::handle::{Handle, Sleep, contained};
use crate::pool::BudgetPool;
use crate::reservation::Reservation;
use crate::sync::{Mutex, MutexGuard, cooperative, thread};
use crate::types::amount::Amount;
use crate::types::axis::Quantities;
use crate::types::error::BudgetError;
use crate::weak::WeakPool;

/// A reservation to come, from [`BudgetPool::reserve_wait`].
///
/// It takes its place at the first poll. It works on any runtime, keeps its pool alive, and is
/// cancel-safe: dropped at any point, it gives up its place, or gives back its grant (P3). Fused:
/// polled again after its end, it is pending for ever. A wait that is forgotten
/// ([`std::mem::forget`]) in line keeps its place, and for ever its grant.
///
/// The transition that freed the units hands them over, so that nobody can take them in between.
/// The waker is woken by the call or the sleep that granted it, without the lock; one that panics is
/// passed over.
///
/// # In `select!`
///
/// A wait that is made anew each turn of a loop joins the end of the line each turn. Make it once,
/// and pass `&mut`:
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use budget_pool::{Amount, BudgetPool};
///
/// let pool = BudgetPool::builder().in_flight(1).build();
/// let held = pool.reserve(Amount::new())?;
/// let mut wait = pool.reserve_wait(Amount::new());
/// let mut tick = tokio::time::interval(Duration::from_millis(1));
/// let (mut ticks, mut held) = (0, Some(held));
/// let hold = loop {
///     tokio::select! {
///         hold = &mut wait => break hold?, // it keeps its place from turn to turn
///         _ = tick.tick() => ticks += 1,
///     }
///     if ticks == 3 {
///         drop(held.take());
///     }
/// };
/// # hold.release();
/// # Ok::<(), budget_pool::BudgetError>(())
/// # }).unwrap();
/// ```
///
/// # In `join!`
///
/// A hold does not come back while it is held. Three waits of 4 under a cap of 10 that are joined
/// never end, as the first two keep 8 until the third is granted. Where units come back by time,
/// [`record_wait`](BudgetPool::record_wait) spends them instead. Where it is to be held, ask for
/// the sum of all three in one wait.
///
/// # In a busy task
///
/// A wait that finds room is ready at its first poll and yields to nobody, as a mutex that is free. A
/// loop of such waits keeps the other tasks of a current-thread runtime from running, a `timeout`
/// around it included. With the feature `tokio` a poll takes part in the cooperative budget of the
/// task that polls: where the budget is used up, the poll only yields, and the next one asks or
/// looks. Without it, wrap the wait: `tokio::task::coop::cooperative(wait).await`.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Wait(Waiting);

/// A spend to come, from [`BudgetPool::record_wait`].
///
/// It waits in the lines in which a [`Wait`] does, and is as cancel-safe: dropped before it is
/// ready, it has spent nothing. From the grant until the poll that spends them, its units are
/// reserved.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct RecordWait(Waiting);

/// A place in line, whatever for.
struct Waiting {
    pool: BudgetPool,
    purpose: Purpose,
    /// Whether its terms take a time: then each look is told the time.
    takes_time: bool,
    state: State,
}

/// What is known of a place in line. It takes the room of what was asked, so that a long line is
/// small.
struct Queued {
    place: WaitKey,
    /// When to look again, if not woken before.
    alarm: Option<Instant>,
    sleep: Option<Sleeping>,
}

/// The sleep of one that waits, by the caller's timer, and what that sleep wakes.
///
/// It rings in the tree, for all who wait there, and sleeps on towards what comes next: an owner that
/// does not poll, because it drives another arm of its `select!`, would keep all asleep that stand
/// behind it. It keeps no pool.
struct Alarm {
    pool: WeakPool,
    place: WaitKey,
    slept: Mutex<Slept>,
}

/// No code of the caller's runs while this is locked: a sleep is taken out to be polled.
#[derive(Default)]
struct Slept {
    sleep: Option<(Instant, Sleep)>,
    /// How often the alarm was set.
    set: u64,
    /// The sleep is out, and being polled.
    is_polled: bool,
    /// It rang, or was to be set, while it was out.
    has_rung: bool,
    /// Its wait has ended.
    is_off: bool,
}

// A sleep that panics has been taken out.
impl RefUnwindSafe for Alarm {}

impl Alarm {
    fn new(pool: &BudgetPool, place: WaitKey) -> Alarm {
        Alarm { pool: pool.downgrade(), place, slept: Mutex::new(Slept::default()) }
    }

    /// Sets it to an instant; whether to look again: the sleep until then is over, or is out for a
    /// ring, which sets it to that instant unless the sleep panics.
    fn set(self: &Arc<Self>, handle: &Handle, until: Instant) -> bool {
        let mut slept = self.slept.lock();
        if slept.is_polled {
            slept.has_rung = true;
            return true;
        }
        let polled = self.sleep(slept, handle, Some(until));
        if polled.has_rung {
            self.ring(handle);
        }
        polled.is_over
    }

    /// Rings, and sleeps on. Where the next instant has come already, it rings for that, too. A sleep
    /// that ends early by the pool's clock, or wakes in its own poll, is left to the owner.
    fn ring(self: &Arc<Self>, handle: &Handle) {
        let mut last = None;
        loop {
            let since = self.slept.lock().set;
            let next = handle.ring(self.place);
            let polled = self.set_next(handle, next, since);
            if !(polled.is_over || polled.has_rung) || last == Some(next) {
                return;
            }
            last = Some(next);
        }
    }

    /// Sets it to its next instant, if it was not set since. That may be the one of its sleep, which
    /// woke to be polled: each future that wakes is.
    fn set_next(self: &Arc<Self>, handle: &Handle, next: Option<Instant>, since: u64) -> Polled {
        let mut slept = self.slept.lock();
        if slept.is_polled {
            slept.has_rung = true;
            return Polled::default();
        }
        if slept.set != since {
            return Polled::default();
        }
        self.sleep(slept, handle, next.filter(|_| handle.has_timer()))
    }

    /// Polls the sleep until an instant, or a new one.
    fn sleep(
        self: &Arc<Self>,
        mut slept: MutexGuard<'_, Slept>,
        handle: &Handle,
        until: Option<Instant>,
    ) -> Polled {
        slept.set += 1;
        (slept.is_polled, slept.has_rung) = (true, false);
        let kept = slept.sleep.take();
        drop(slept);
        let mut out = Out { alarm: self, sleep: None };
        let kept = kept.filter(|(towards, _)| Some(*towards) == until);
        let new = || until.and_then(|until| Some((until, handle.sleep(until)?)));
        let mut sleep = kept.or_else(new);
        let is_over = sleep.as_mut().is_some_and(|(_, sleep)| {
            let waker = Waker::from(Arc::clone(self));
            sleep.as_mut().poll(&mut Context::from_waker(&waker)).is_ready()
        });
        out.sleep = sleep.filter(|_| !is_over);
        drop(out);
        Polled { is_over, has_rung: self.slept.lock().has_rung }
    }
}

/// What came of polling a sleep.
#[derive(Default)]
struct Polled {
    is_over: bool,
    /// It rang meanwhile.
    has_rung: bool,
}

/// That the sleep of an alarm is out. It comes back if it goes on, and is dropped if the wait has
/// ended meanwhile, or if the sleep panics.
struct Out<'a> {
    alarm: &'a Alarm,
    sleep: Option<(Instant, Sleep)>,
}

impl Drop for Out<'_> {
    fn drop(&mut self) {
        let mut slept = self.alarm.slept.lock();
        slept.is_polled = false;
        if !slept.is_off {
            slept.sleep = self.sleep.take();
        }
    }
}

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        // Whoever wakes this is none to panic to. The owner polls the sleep, too: it was woken.
        contained(move || {
            if let Some(pool) = self.pool.upgrade() {
                self.ring(pool.handle());
            }
        });
    }
}

/// The owner's hold on its alarm, which it ends.
struct Sleeping(Arc<Alarm>);

impl Drop for Sleeping {
    fn drop(&mut self) {
        let mut slept = self.0.slept.lock();
        slept.is_off = true;
        let sleep = slept.sleep.take();
        drop(slept);
        drop(sleep);
    }
}

enum State {
    /// Nothing has been asked yet: the units to hold, and the terms.
    New(Quantities, Option<Box<Terms>>),
    Queued(Queued),
    Ended,
}

impl State {
    /// Asks, if that has not been done yet, and looks. The waker is taken if there is a place to keep
    /// it at; it is dropped where it came from, without the lock.
    fn step(
        &mut self,
        engine: &mut Engine,
        at: NodeId,
        purpose: Purpose,
        waker: &mut Option<Waker>,
        can_sleep: bool,
        now: Option<Instant>,
    ) -> Looked {
        if let State::New(asked, terms) = self {
            let asked = match terms.take() {
                None => engine.wait(at, asked, purpose, now),
                Some(terms) => engine.wait_on(at, asked, *terms, now),
            };
            match asked {
                Ok(Place::InLine(place)) => {
                    *self = State::Queued(Queued { place, alarm: None, sleep: None });
                }
                Ok(Place::Granted(grant)) => return Looked::ready(Ok(grant)),
                Err(refusal) => {
                    engine.note_refusal(&refusal);
                    return Looked::ready(Err(Box::new(refusal)));
                }
            }
        }
        let State::Queued(queued) = self else { unreachable!("a wait that has ended is pending") };
        let looked = engine.poll_wait(queued.place, waker, can_sleep, now);
        queued.alarm = looked.alarm;
        looked
    }
}

impl State {
    /// When to look again, if not woken before.
    fn alarm(&self) -> Option<Instant> {
        let State::Queued(queued) = self else { return None };
        queued.alarm
    }

    /// Ends the wait. Returns a sleep that it does not need any more.
    fn end(&mut self) -> Option<Sleeping> {
        match std::mem::replace(self, State::Ended) {
            State::Queued(queued) => queued.sleep,
            _ => None,
        }
    }
}

impl Wait {
    #[inline]
    pub(crate) fn new(pool: BudgetPool, Ask { amount, terms }: Ask) -> Wait {
        let asked = terms.least(amount.held());
        let terms = terms.if_any().map(Box::new);
        Wait(Waiting::new(pool, asked, Purpose::Hold, terms))
    }

    /// Drives the wait by parking this thread.
    pub(crate) fn block(self) -> Result<Reservation, BudgetError> {
        self.0.block().map(Granted::into_reservation).map_err(|refusal| *refusal)
    }
}

impl RecordWait {
    pub(crate) fn new(pool: BudgetPool, amount: Amount) -> RecordWait {
        RecordWait(Waiting::new(pool, *amount.quantities(), Purpose::Spend, None))
    }

    /// Drives the wait by parking this thread.
    pub(crate) fn block(self) -> Result<(), BudgetError> {
        self.0.block().map(drop).map_err(|refusal| *refusal)
    }
}

/// In a box: a refusal is rare and large, and an outcome is handed up through several calls.
type Outcome = Result<Granted, Box<BudgetError>>;

/// The grant, with its owner.
enum Granted {
    Hold(Reservation),
    Spent,
}

impl Granted {
    fn of(pool: &BudgetPool, grant: Grant) -> Granted {
        match grant {
            Grant::Hold(key) => Granted::Hold(Reservation::new(pool.clone(), key)),
            Grant::Spent => Granted::Spent,
        }
    }

    fn into_reservation(self) -> Reservation {
        match self {
            Granted::Hold(reservation) => reservation,
            Granted::Spent => unreachable!("a hold was asked for"),
        }
    }
}

impl Waiting {
    fn new(
        pool: BudgetPool,
        asked: Quantities,
        purpose: Purpose,
        terms: Option<Box<Terms>>,
    ) -> Waiting {
        let takes_time = terms.as_ref().is_some_and(|terms| terms.takes_time(true));
        let state = State::New(asked, terms);
        Waiting { pool, purpose, takes_time, state }
    }

    /// Asks, or looks for the outcome of having asked. If nothing has yet, `waker` is told.
    fn poll_once(&mut self, waker: &Waker, can_sleep: bool) -> Poll<Outcome> {
        let handle = self.pool.handle();
        match &self.state {
            State::Ended => return Poll::Pending,
            State::New(asked, None) => {
                if let Some(grant) = handle.take(asked, self.purpose) {
                    self.state = State::Ended;
                    return Poll::Ready(Ok(Granted::of(&self.pool, grant)));
                }
            }
            _ => {}
        }
        let mut waker = Some(waker.clone());
        let (state, purpose) = (&mut self.state, self.purpose);
        // The engine notes by itself what becomes of a waiter: often another brings it about.
        let Looked { outcome, old, .. } = handle.ask_unheard(self.takes_time, |engine, at, now| {
            state.step(engine, at, purpose, &mut waker, can_sleep, now)
        });
        let Poll::Ready(outcome) = outcome else { return Poll::Pending };
        let sleep = self.state.end();
        let outcome = outcome.map(|grant| Granted::of(&self.pool, grant));
        // Last: what is granted has its owner, should these panic. (Should the sleep do so only
        // when the wait is dropped, the compiler would forget what an `await` has in hand.)
        drop((waker, old, sleep));
        Poll::Ready(outcome)
    }

    /// Sleeps towards the alarm by the caller's timer, if it has one; whether to look again.
    fn has_overslept(&mut self) -> bool {
        let State::Queued(Queued { place, alarm: Some(until), sleep }) = &mut self.state else {
            return false;
        };
        let new = || Sleeping(Arc::new(Alarm::new(&self.pool, *place)));
        let Sleeping(alarm) = sleep.get_or_insert_with(new);
        alarm.set(self.pool.handle(), *until)
    }

    /// Drives the wait by parking this thread.
    fn block(mut self) -> Outcome {
        let waker = thread::unparker();
        loop {
            if let Poll::Ready(outcome) = self.poll_once(&waker, true) {
                return outcome;
            }
            let now = || self.pool.handle().now();
            thread::park(self.state.alarm().map(|alarm| alarm.saturating_duration_since(now())));
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let has_timer = self.pool.handle().has_timer();
        let poll = self.poll_once(context.waker(), has_timer);
        if matches!(self.state, State::Ended) || !self.has_overslept() {
            return poll;
        }
        let poll = self.poll_once(context.waker(), has_timer);
        if poll.is_pending() && self.has_overslept() {
            // The timer is early by the pool's clock, or another alarm is due already: come back.
            context.waker().wake_by_ref();
        }
        poll
    }

    fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::New(..) => "new",
            State::Queued(_) => "queued",
            State::Ended => "ended",
        };
        f.debug_struct(name)
            .field("pool", &self.pool.name())
            .field("state", &state)
            .finish_non_exhaustive()
    }
}

impl Future for Wait {
    type Output = Result<Reservation, BudgetError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = &mut self.get_mut().0;
        let outcome = cooperative(context, |context| waiting.poll(context));
        outcome.map_ok(Granted::into_reservation).map_err(|refusal| *refusal)
    }
}

impl Future for RecordWait {
    type Output = Result<(), BudgetError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let waiting = &mut self.get_mut().0;
        let outcome = cooperative(context, |context| waiting.poll(context));
        outcome.map_ok(drop).map_err(|refusal| *refusal)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let State::Queued(Queued { place, .. }) = self.state {
            drop(self.pool.handle().enter(|engine, _| engine.cancel_wait(place)));
        }
    }
}

impl fmt::Debug for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("Wait", f)
    }
}

impl fmt::Debug for RecordWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.debug("RecordWait", f)
    }
}
