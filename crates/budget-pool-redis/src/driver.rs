//! [`drive`], the task that funds the pool of this process. The driver makes every exchange, one at
//! a time.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use budget_pool::{Amount, Axis, BudgetPool, Caps, Quantity};
use tokio::sync::{Notify, oneshot};

use crate::error::FleetError;
use crate::journal::{Entry, Journal};
use crate::link::Link;
use crate::member::{Local, Member, Terms};
use crate::protocol::{Answer, Lost, Op, State};
use crate::script::{Axes, Call, Look};

/// The pause before the driver of a process that stands short asks again for its waiters.
pub(crate) const RETRY: Duration = Duration::from_millis(250);

/// The least time between two exchanges that only refill the pool ahead of its needs.
const REFILL: Duration = Duration::from_millis(20);

/// The longest time for which a spend that no call writes down is not in the journal.
const JOURNAL: Duration = Duration::from_millis(10);

/// The `units` that a caller needs on each axis, and the channel for the `verdict` of the store.
struct Need {
    units: Vec<u64>,
    verdict: oneshot::Sender<Result<(), FleetError>>,
}

struct Standing {
    member: Member,
    needs: Vec<Need>,
    /// The last [`Answer`], and the instant at which its request was sent.
    answer: Option<(Answer, Instant)>,
    /// The instant at which the last [`Answer`] came.
    heard: Instant,
    failure: Option<FleetError>,
    short_until: Option<Instant>,
    is_leaving: bool,
    has_left: bool,
    may_evict: Option<bool>,
    calls: u64,
    /// The instant of the store at which `join` saw the wallet.
    joined: u64,
}

pub(crate) struct Shared {
    pub(crate) wallet: String,
    /// The caps of `root` are the grant of this process. Callers spend from `pool`, below it, and
    /// can neither reach `root` nor change its caps.
    root: BudgetPool,
    pub(crate) pool: BudgetPool,
    pub(crate) axes: Axes,
    lost: Lost,
    /// Whether the free units lie in EscrowMint, whose clients move the cap of the wallet.
    is_escrow: bool,
    terms: Terms,
    journal: Option<Journal>,
    standing: Mutex<Standing>,
    wake: Notify,
    gone: Notify,
}

/// The figures of [`Fleet::status`](crate::Fleet::status).
pub(crate) struct Figures {
    pub(crate) member: String,
    pub(crate) heard: Duration,
    pub(crate) failure: Option<FleetError>,
    pub(crate) may_evict: Option<bool>,
    pub(crate) calls: u64,
    pub(crate) learns: bool,
    pub(crate) in_doubt: Amount,
}

impl Shared {
    pub(crate) fn new(
        wallet: String,
        look: &Look,
        is_escrow: bool,
        member: String,
        terms: Terms,
        journal: Option<Journal>,
    ) -> Shared {
        let axes = look.axes.clone();
        let ceiling = axes.0.iter().zip(&look.books);
        let ceiling: Caps = ceiling.map(|(&axis, book)| quantity(axis, book.cap)).collect();
        let nothing: Caps = axes.0.iter().map(|&axis| quantity(axis, 0)).collect();
        let root = BudgetPool::builder()
            .name(wallet.as_str())
            .caps(nothing)
            .ceiling(ceiling)
            .timer(|until| Box::pin(tokio::time::sleep_until(until.into())))
            .build();
        let now = Instant::now();
        let standing = Standing {
            member: Member::new(member, terms.clone(), now),
            needs: Vec::new(),
            answer: None,
            heard: now,
            failure: None,
            short_until: None,
            is_leaving: false,
            has_left: false,
            may_evict: None,
            calls: 0,
            joined: look.now,
        };
        Shared {
            pool: root.child().name(wallet.as_str()).build(),
            wallet,
            root,
            axes,
            lost: look.lost,
            is_escrow,
            terms,
            journal,
            standing: Mutex::new(standing),
            wake: Notify::new(),
            gone: Notify::new(),
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // No code of a user runs under this lock, so no panic leaves it half changed.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn locals(&self) -> Vec<Local> {
        let snapshot = self.root.snapshot();
        let local = |&axis: &Axis| {
            let axis = snapshot.axis(axis).expect("an axis of a wallet is counted");
            Local {
                cap: axis.cap.map_or(0, Quantity::units),
                used: axis.used.units(),
                reserved: axis.reserved.units(),
                overage: axis.overage.units(),
                spent: axis.spent.units(),
            }
        };
        self.axes.0.iter().map(local).collect()
    }

    #[cfg(test)]
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    fn entry(&self) -> Entry {
        let standing = self.standing();
        let heard = standing.answer.as_ref().map_or(standing.joined, |(answer, _)| answer.now);
        standing.member.entry(&self.axes, heard, &self.locals())
    }

    /// Writes all that this process has spent to its journal, if it has one.
    pub(crate) fn write_journal(&self) -> Result<(), FleetError> {
        self.journal.as_ref().map_or(Ok(()), |journal| journal.write(|| self.entry()))
    }

    /// As [`write_journal`](Shared::write_journal), where there is something new.
    fn write_changes(&self) {
        let Some(journal) = &self.journal else { return };
        if let Err(error) = journal.write_changes(|| self.entry()) {
            self.standing().failure = Some(error);
        }
    }

    /// Ends the journal: the store has booked the farewell.
    fn end_journal(&self) {
        let Some(journal) = &self.journal else { return };
        if let Err(error) = journal.end() {
            self.standing().failure = Some(error);
        }
    }

    /// The units of `amount` on each of `axes`.
    fn units(&self, amount: &Amount) -> Vec<u64> {
        self.axes.0.iter().map(|&axis| amount.units(axis)).collect()
    }

    /// The units of `quantities` on each of `axes`, where they are no parts of each other.
    pub(crate) fn each(&self, quantities: &[Quantity]) -> Vec<u64> {
        let units = |&axis: &Axis| {
            let quantity = quantities.iter().find(|quantity| quantity.axis() == axis);
            quantity.map_or(0, |quantity| quantity.units())
        };
        self.axes.0.iter().map(units).collect()
    }

    fn caps(&self, units: impl IntoIterator<Item = u64>) -> Caps {
        self.axes
            .0
            .iter()
            .zip(units)
            .filter(|(_, units)| *units > 0)
            .map(|(&axis, units)| quantity(axis, units))
            .collect()
    }

    /// Whether the last answer of the store is so old that what it says may have changed: a refusal by it
    /// as `Outlook::Never` is worth an exchange. More of them would keep the store busy with refusals.
    pub(crate) fn is_outdated(&self) -> bool {
        let answer = &self.standing().answer;
        answer.as_ref().is_none_or(|(_, sent)| sent.elapsed() >= RETRY)
    }

    /// Asks the store for room for an amount that the pool has refused. `Ok` says that the caps of
    /// `root` rose by the units that were lacking; other callers may have taken them.
    pub(crate) async fn ask(&self, amount: Amount) -> Result<(), FleetError> {
        self.ask_for(self.units(&amount)).await
    }

    /// As [`ask`](Shared::ask). Where the fleet is short and `may_be_cut`, it asks for as much as is
    /// free.
    pub(crate) async fn fetch(&self, amount: Amount, may_be_cut: bool) -> Result<(), FleetError> {
        let mut units = self.units(&amount);
        loop {
            let (axis, free) = match self.ask_for(units.clone()).await {
                Err(FleetError::Short { axis, free, .. }) if may_be_cut => (axis, free),
                other => return other,
            };
            let at = self.axes.0.iter().position(|&each| each == axis);
            // Each round asks for less, on one axis at least.
            match at.and_then(|at| units.get_mut(at)).filter(|units| free < **units) {
                Some(units) => *units = free,
                None => return Ok(()),
            }
        }
    }

    pub(crate) async fn ask_for(&self, units: Vec<u64>) -> Result<(), FleetError> {
        let answer = {
            let mut standing = self.standing();
            if standing.has_left || standing.is_leaving {
                return Err(FleetError::Left { wallet: self.wallet.clone() });
            }
            if let Some(refusal) = self.known_refusal(&standing, &units) {
                return Err(refusal);
            }
            let (verdict, answer) = oneshot::channel();
            standing.needs.push(Need { units, verdict });
            answer
        };
        self.wake.notify_one();
        answer.await.unwrap_or_else(|_| Err(FleetError::Left { wallet: self.wallet.clone() }))
    }

    /// Refuses, until `short_until`, a call that lacks more units than the wallet had free at its
    /// last answer: an exchange for each such call would keep the store busy with refusals.
    fn known_refusal(&self, standing: &Standing, units: &[u64]) -> Option<FleetError> {
        let now = Instant::now();
        standing.short_until.filter(|until| now < *until)?;
        let (answer, _) = standing.answer.as_ref()?;
        let locals = self.locals();
        let lacks = |at: &usize| {
            let lacking =
                units[*at].saturating_add(locals[*at].overage).saturating_sub(locals[*at].free());
            lacking > answer.books[*at].free()
        };
        // The store grants nothing, and refuses nothing, where a call needs nothing: `settle` tells its
        // overage all the same.
        let mut needed = (0..units.len()).filter(|at| units[*at] > 0);
        needed.find(lacks).map(|at| self.short(standing, answer, at, units, &locals))
    }

    fn short(
        &self,
        standing: &Standing,
        answer: &Answer,
        at: usize,
        units: &[u64],
        locals: &[Local],
    ) -> FleetError {
        let (axis, book) = (self.axes.0[at], &answer.books[at]);
        let held = standing.member.in_doubt(at);
        let others = book.charged.saturating_sub(book.used).saturating_sub(held);
        let lacking =
            units[at].saturating_add(locals[at].overage).saturating_sub(locals[at].free());
        let may_come_back = others > 0 && lacking.saturating_sub(book.free()) <= others;
        let back = may_come_back.then_some(self.terms.settle_every);
        let may_fit = answer.period_end > 0 && units[at] <= book.cap;
        let end = answer.period_end.checked_sub(answer.now).filter(|_| may_fit);
        // The answer may be older than the call.
        let end =
            end.map(|end| Duration::from_millis(end).saturating_sub(standing.heard.elapsed()));
        let retry_after = back.into_iter().chain(end).min();
        FleetError::Short {
            wallet: self.wallet.clone(),
            axis,
            requested: units[at],
            free: book.free().saturating_add(locals[at].free()),
            cap: book.cap,
            held_by_others: others,
            retry_after,
        }
    }

    /// Makes one exchange with the store. The driver takes the [`surplus`](Member::surplus) out of
    /// `root` first, and then tells it together with the spend. A grant goes into `root` once the
    /// store has booked it.
    async fn exchange(&self, link: &mut Link, op: Op, needs: &[u64]) -> Result<State, FleetError> {
        self.exchange_for(link, op, &mut needs.to_vec(), false).await
    }

    /// As [`exchange`](Shared::exchange). Where that gives back anything `and_waiters` need, `needs`
    /// are raised to it.
    async fn exchange_for(
        &self,
        link: &mut Link,
        op: Op,
        needs: &mut [u64],
        and_waiters: bool,
    ) -> Result<State, FleetError> {
        let run = self.while_live(link.run()).await;
        // The journal knows the name of the member before the store does, and a spend as well.
        let written = self.write_journal();
        written.map_err(|error| self.failed(&mut self.standing(), error))?;
        // The TTL counts from here: never from an instant after the store has counted.
        let sent = Instant::now();
        let run = run.map_err(|error| self.failed(&mut self.standing(), error))?;
        let request = if op == Op::Farewell {
            self.standing().member.farewell(&self.axes, &run, &self.locals())
        } else {
            let claimed = |(answer, _): &(Answer, Instant)| answer.claims > 0;
            let claimed = self.standing().answer.as_ref().is_some_and(claimed);
            let given = self.give_back(claimed);
            let asks = and_waiters && needs.iter().any(|units| *units > 0);
            if asks && given.iter().any(|units| *units > 0) {
                // A waiter may need what it had here a moment ago, beside what it lacked.
                self.add_waiters(needs);
            }
            self.standing().member.request(&run, needs, &self.locals())
        };
        let call = Call::exchange(&self.axes, &request);
        let reply = self.while_live(link.call(&call)).await;
        let mut answer = reply.and_then(|words| words.answer(self.axes.0.len()));
        let is_news = |answer: &Answer| self.standing().member.is_news(answer);
        if answer.as_ref().is_ok_and(is_news) {
            // A grant that is not confirmed stays unseen, and the next answer names it again.
            answer = self.while_live(link.confirm(self.terms.confirm)).await.and(answer);
        }
        let mut standing = self.standing();
        standing.calls = link.calls;
        standing.may_evict = link.may_evict();
        let answer = answer.map_err(|error| self.failed(&mut standing, error))?;
        standing.member.accept(&request, &answer);
        standing.heard = Instant::now();
        standing.failure = None;
        let goal = self.goal(&standing.member, &answer);
        let state = answer.state;
        standing.short_until =
            matches!(state, State::Short(_)).then(|| Instant::now() + jitter(RETRY));
        standing.answer = Some((answer, sent));
        drop(standing);
        // A late answer may bring a grant whose TTL is over.
        if !self.is_lost() {
            self.fund(goal);
        }
        Ok(state)
    }

    /// Takes the [`surplus`](Member::surplus) out of `root`, for the next request to tell.
    fn give_back(&self, others_stand_short: bool) -> Vec<u64> {
        let surplus = self.standing().member.surplus(&self.locals(), others_stand_short);
        // A change of caps wakes waiters, and a waker may ask for the status.
        let given = self.root.lower_caps_up_to(self.caps(surplus));
        let given: Vec<u64> =
            self.axes.0.iter().map(|&axis| given.units(axis).unwrap_or(0)).collect();
        self.standing().member.gave_back(&given);
        given
    }

    /// Has a [worn](Member::is_worn) member say farewell, so that it joins anew. Returns whether it
    /// gave back units that waiters may need.
    async fn renew(&self, link: &mut Link) -> Result<bool, FleetError> {
        let is_due = {
            let standing = self.standing();
            // Without a store that grants, the process lives on what it has.
            let answer = standing.answer.as_ref().map(|(answer, _)| answer);
            standing.failure.is_none()
                && answer.is_some_and(|answer| answer.now >= answer.learn_until)
                && standing.member.is_worn(&self.locals())
        };
        if !is_due {
            return Ok(false);
        }
        let given = self.give_back(true);
        // A call may have spent or held in between. From here on the pool has no units but credited ones,
        // which the farewell tells as spent.
        if self.standing().member.holds_nothing(&self.locals()) {
            self.exchange(link, Op::Farewell, &[]).await?;
        }
        Ok(given.iter().any(|units| *units > 0))
    }

    /// Awaits `work`, and [tends](Shared::tend) this member meanwhile: the store may hang for longer
    /// than a spend may be missing in the journal, or than the TTL lasts.
    async fn while_live<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            let now = Instant::now();
            let journal = self.journal.as_ref().map(|_| now + JOURNAL);
            let again = now + self.terms.settle_every.min(RETRY);
            let end = self.deadline().map(|end| if now < end { end } else { again });
            let Some(until) = journal.into_iter().chain(end).min() else { return work.await };
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = tokio::time::sleep_until(until.into()) => self.tend(),
            }
        }
    }

    /// Writes the journal, and stops this member where its TTL is over.
    fn tend(&self) {
        self.write_changes();
        self.stop_if_lost();
    }

    /// Raises `needs` to what the next waiter of the pool needs now.
    fn add_waiters(&self, needs: &mut [u64]) {
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(want) = pin!(self.root.wants()).poll(&mut context) {
            self.add(needs, &want.missing);
        }
    }

    /// Raises `needs` to the units of a call that lacks `missing`, on the axes where it lacks some.
    /// The pool says what is missing beyond what is free, its overage included.
    fn add(&self, needs: &mut [u64], missing: &Amount) {
        let missing = self.units(missing).into_iter().zip(self.locals());
        for (need, (missing, local)) in needs.iter_mut().zip(missing).filter(|(_, each)| each.0 > 0)
        {
            let units = missing.saturating_add(local.free()).saturating_sub(local.overage);
            *need = units.max(*need);
        }
    }

    fn failed(&self, standing: &mut Standing, error: FleetError) -> FleetError {
        let error = match error {
            FleetError::Unreachable { wallet, error, .. } => {
                FleetError::Unreachable { wallet, error, since: standing.heard.elapsed() }
            }
            other => other,
        };
        standing.failure = Some(error.clone());
        error
    }

    /// The [`target`](Member::target) of the caps of `root` on each axis, and their ceilings.
    fn goal(&self, member: &Member, answer: &Answer) -> (Vec<u64>, Caps) {
        let locals = self.locals();
        let ceiling = |(at, local): (usize, &Local)| match self.is_escrow {
            true => u64::MAX,
            false => member.ceiling(at, answer, local),
        };
        let ceilings = locals.iter().enumerate().map(ceiling);
        let ceilings =
            self.axes.0.iter().zip(ceilings).map(|(&axis, units)| quantity(axis, units)).collect();
        ((0..locals.len()).map(|at| member.target(at)).collect(), ceilings)
    }

    /// Brings the caps of `root` to the [`goal`](Shared::goal). Only the driver calls `fund`, one
    /// exchange at a time, and not under the lock of its standing: it wakes waiters.
    fn fund(&self, (targets, ceilings): (Vec<u64>, Caps)) {
        let locals = self.locals();
        let less =
            locals.iter().zip(&targets).map(|(local, target)| local.cap.saturating_sub(*target));
        self.root.lower_caps_up_to(self.caps(less));
        let more =
            locals.iter().zip(&targets).map(|(local, target)| target.saturating_sub(local.cap));
        // It can only fail where the pool is closed: then nothing can be spent, and the grant goes back
        // with the farewell.
        let _ = self.root.raise_caps(self.caps(more));
        self.root.set_ceiling(ceilings);
    }

    /// With [`Lost::Return`] the store gives away the grant of this member once it has not heard of
    /// the member for the TTL. Until the next answer, `root` spends nothing of that grant.
    fn stop_if_lost(&self) {
        if self.is_lost() {
            let all = vec![u64::MAX; self.axes.0.len()];
            self.root.lower_caps_up_to(self.caps(all));
        }
    }

    fn is_lost(&self) -> bool {
        self.deadline().is_some_and(|end| Instant::now() >= end)
    }

    fn deadline(&self) -> Option<Instant> {
        let sent = self.standing().answer.as_ref().map(|(_, sent)| *sent)?;
        (self.lost == Lost::Return).then(|| sent + self.terms.ttl)
    }

    pub(crate) fn figures(&self) -> Figures {
        let standing = self.standing();
        let held = (self.axes.0.iter().enumerate())
            .map(|(at, &axis)| quantity(axis, standing.member.in_doubt(at)));
        Figures {
            member: standing.member.id(),
            heard: standing.heard.elapsed(),
            failure: standing.failure.clone(),
            may_evict: standing.may_evict,
            calls: standing.calls,
            learns: standing
                .answer
                .as_ref()
                .is_some_and(|(answer, _)| answer.now < answer.learn_until),
            in_doubt: held.collect(),
        }
    }

    /// Closes the pool and has the driver send [`Op::Farewell`], unless the fleet has ended.
    pub(crate) fn start_leaving(&self) {
        self.pool.close();
        let mut standing = self.standing();
        standing.is_leaving = !standing.has_left;
        drop(standing);
        self.wake.notify_one();
    }

    /// Ends the fleet without a farewell, as the end of the process would.
    pub(crate) fn abandon(&self) {
        let needs = {
            let mut standing = self.standing();
            if !standing.has_left {
                standing.has_left = true;
                standing.failure = Some(FleetError::Left { wallet: self.wallet.clone() });
            }
            std::mem::take(&mut standing.needs)
        };
        drop(needs);
        self.root.close();
        self.gone.notify_waiters();
    }

    /// Gives the journal free for another process, with all that this one has spent.
    pub(crate) fn close_journal(&self) -> Result<(), FleetError> {
        let written = self.write_journal();
        if let Some(journal) = &self.journal {
            journal.close();
        }
        written
    }

    pub(crate) async fn left(&self) -> Result<(), FleetError> {
        loop {
            // Before the look, so that no end is missed between the two.
            let gone = self.gone.notified();
            if let Some(end) = self.end() {
                return end;
            }
            gone.await;
        }
    }

    fn end(&self) -> Option<Result<(), FleetError>> {
        let standing = self.standing();
        standing.has_left.then(|| standing.failure.clone().map_or(Ok(()), Err))
    }

    /// Makes the first exchange, which shows that the wallet can be spent from.
    pub(crate) async fn join(&self, link: &mut Link) -> Result<(), FleetError> {
        let nothing = vec![0; self.axes.0.len()];
        self.exchange(link, Op::Exchange, &nothing).await?;
        match link.confirm(self.terms.confirm).await {
            // A replica that is away now may be there when a grant needs it.
            Ok(()) | Err(FleetError::Unconfirmed { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

pub(crate) fn quantity(axis: Axis, units: u64) -> Quantity {
    Amount::of(axis, units).get(axis).expect("the amount names it")
}

/// Adds up to a quarter to `time`, so that processes that stand short do not ask in step.
fn jitter(time: Duration) -> Duration {
    let random = RandomState::new().hash_one(()) % 1_024;
    time + time * u32::try_from(random).unwrap_or(0) / 4_096
}

/// Runs the driver until the fleet is left.
pub(crate) fn drive(shared: Arc<Shared>, link: Link) -> impl Future<Output = ()> {
    // A task that is never polled ends, too.
    let driven = Driven(shared);
    async move { drive_on(&driven.0, link).await }
}

/// Ends the fleet with its driver: the runtime may be shut down while others hold the fleet. Nobody
/// would fund their waits, or stop them at the TTL.
struct Driven(Arc<Shared>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

async fn drive_on(shared: &Shared, mut link: Link) {
    let mut next = Instant::now() + shared.terms.settle_every;
    loop {
        let wanted = wait(shared, next).await;
        shared.tend();
        let (needs, is_leaving, is_low) = {
            let mut standing = shared.standing();
            let locals = shared.locals();
            standing.member.measure(Instant::now(), &locals);
            // Not while the answer would be nothing: for others who stand short, or for want of room.
            let is_low = standing.answer.as_ref().is_some_and(|(answer, sent)| {
                sent.elapsed() > REFILL
                    && answer.claims == 0
                    && standing.short_until.is_none()
                    && standing.member.is_low(&locals, answer)
            });
            standing.needs.retain(|need| !need.verdict.is_closed());
            (std::mem::take(&mut standing.needs), standing.is_leaving, is_low)
        };
        if is_leaving {
            drop(needs);
            return leave(shared, &mut link).await;
        }
        if needs.is_empty() && wanted.is_none() && !is_low && Instant::now() < next {
            continue;
        }
        serve(shared, &mut link, needs, wanted.unwrap_or_default()).await;
        let failing = shared.standing().failure.is_some();
        let others = shared.standing().answer.as_ref().is_some_and(|(answer, _)| answer.claims > 0);
        let gives = others && shared.locals().iter().any(|local| local.free() > 0);
        let pause = if failing || gives {
            RETRY.min(shared.terms.settle_every)
        } else {
            shared.terms.settle_every
        };
        next = Instant::now() + jitter(pause);
    }
}

/// Waits for a `wake`, for a want of `root`, or for the instant at which the driver has work.
/// Returns the amount that `root` lacks, if it says so.
async fn wait(shared: &Shared, next: Instant) -> Option<Amount> {
    let (interval, asks_again) = {
        let standing = shared.standing();
        let is_stuck = standing.failure.is_some()
            || standing.answer.as_ref().is_some_and(|(answer, _)| answer.now < answer.learn_until);
        let last = standing.answer.as_ref().map(|(_, sent)| *sent + RETRY).filter(|_| is_stuck);
        let interval = standing.member.interval();
        let interval = if shared.journal.is_some() { interval.min(JOURNAL) } else { interval };
        (interval, standing.short_until.max(last))
    };
    let now = Instant::now();
    let mut until = next.min(now + interval);
    if let Some(deadline) = shared.deadline().filter(|deadline| *deadline > now) {
        until = until.min(deadline);
    }
    let may_ask = asks_again.is_none_or(|again| now >= again);
    tokio::select! {
        () = shared.wake.notified() => None,
        want = shared.root.wants(), if may_ask => Some(want.missing),
        () = tokio::time::sleep_until(until.into()) => None,
    }
}

/// Asks the store for all `needs` at once; where they do not fit together, or beside what the
/// waiters need, for each after the other. A caller that asks stands in line in the pool, too, so
/// the greater of `missing` and `needs` counts, and not their sum.
async fn serve(shared: &Shared, link: &mut Link, needs: Vec<Need>, missing: Amount) {
    let mut all = vec![0_u64; shared.axes.0.len()];
    for need in &needs {
        let units = need.units.iter();
        all.iter_mut().zip(units).for_each(|(sum, units)| *sum = sum.saturating_add(*units));
    }
    shared.add(&mut all, &missing);
    let state = match shared.renew(link).await {
        Ok(gave) => {
            if gave {
                shared.add_waiters(&mut all);
            }
            shared.exchange_for(link, Op::Exchange, &mut all, true).await
        }
        Err(error) => Err(error),
    };
    for need in needs {
        let units = need.units;
        let verdict = match &state {
            Ok(State::Short(_)) if units != all => {
                shared.exchange(link, Op::Exchange, &units).await
            }
            Ok(State::Gone) => shared.exchange(link, Op::Exchange, &units).await,
            other => other.clone(),
        };
        let verdict = verdict.and_then(|state| shared.verdict(state, &units));
        // A caller that was dropped meanwhile does not hear it.
        let _ = need.verdict.send(verdict);
    }
}

impl Shared {
    fn verdict(&self, state: State, units: &[u64]) -> Result<(), FleetError> {
        let standing = self.standing();
        let Some((answer, _)) = &standing.answer else { return Ok(()) };
        match state {
            State::Granted | State::Gone => Ok(()),
            State::Closed => Err(FleetError::Left { wallet: self.wallet.clone() }),
            State::Short(at) => Err(self.short(&standing, answer, at, units, &self.locals())),
            State::Learning => Err(FleetError::Learning {
                wallet: self.wallet.clone(),
                retry_after: Duration::from_millis(answer.learn_until.saturating_sub(answer.now)),
            }),
        }
    }
}

/// Gives the holds of the pool the TTL to end. What is `reserved` after it counts as spent, but for
/// slots in flight.
async fn leave(shared: &Shared, link: &mut Link) {
    let end = Instant::now() + shared.terms.ttl;
    let holds = || shared.locals().iter().any(|local| local.reserved > 0);
    while holds() && Instant::now() < end {
        let next = Instant::now() + shared.terms.settle_every;
        let ended = async {
            while holds() && Instant::now() < next {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        shared.while_live(ended).await;
        let nothing = vec![0; shared.axes.0.len()];
        let _ = shared.exchange(link, Op::Exchange, &nothing).await;
    }
    for _attempt in 0..3 {
        if shared.exchange(link, Op::Farewell, &[]).await.is_ok() {
            shared.end_journal();
            break;
        }
        let pause = tokio::time::sleep(RETRY.min(shared.terms.ttl / 3));
        shared.while_live(pause).await;
    }
    shared.root.close();
    shared.standing().has_left = true;
    shared.gone.notify_waiters();
}
