//! [`Fleet`], the place of a process in a fleet, and [`FleetBuilder`], which joins it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use budget_pool::{
    Amount, Ask, Axis, BudgetError, BudgetPool, Caps, Outlook, Quantity, Reservation,
};
use redis::Client;

use crate::admin::{Admin, FleetSnapshot};
use crate::confirm::Confirm;
use crate::driver::{RETRY, Shared, drive};
use crate::error::FleetError;
use crate::journal::Journal;
use crate::link::{Link, Source};
use crate::member::{Terms, millis};
use crate::protocol::{Lost, MOST};
use crate::script::{Axes, Call};
use crate::settle::{Settled, settle};

/// The place of one process in a fleet: a local pool that is funded from a wallet in Redis or Valkey.
///
/// A `Fleet` is a handle: clones are the same member. The drop of the last clone has the driver say
/// farewell in the background; [`leave`](Fleet::leave) does that and tells when it is done.
#[derive(Clone)]
pub struct Fleet {
    held: Arc<Held>,
}

struct Held {
    shared: Arc<Shared>,
    source: Source,
    settled: Option<Settled>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shared.start_leaving();
    }
}

/// The terms on which a process joins a fleet, from [`Fleet::builder`].
#[derive(Debug, Clone)]
#[must_use = "it does nothing until `join`"]
pub struct FleetBuilder {
    wallet: String,
    found: Option<Caps>,
    window: Duration,
    lost: Lost,
    member: Option<String>,
    ttl: Duration,
    horizon: Duration,
    settle_every: Duration,
    at_most: Amount,
    journal: Option<PathBuf>,
    confirm: Confirm,
}

/// The standing of this process in its fleet, from [`Fleet::status`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Status {
    /// The name of this member in the wallet: [`Admin::resolve`] takes it.
    pub member: String,
    /// The time since the last answer of the store.
    pub heard: Duration,
    /// The error of the last exchange; `None` once an exchange succeeds.
    pub failure: Option<FleetError>,
    /// Whether the server may evict the wallet when its memory is full: its `maxmemory-policy` is one
    /// of `allkeys`. `None` if it does not say.
    pub may_evict: Option<bool>,
    /// The number of times that this process has had the store run the script.
    pub calls: u64,
    /// Whether the store was learning at its last answer, and granted nothing.
    pub learns: bool,
    /// The units that the store has charged to this process and that were not told as spent. A
    /// crash at this instant would leave them in doubt.
    pub in_doubt: Amount,
}

impl FleetBuilder {
    /// Founds the wallet with `caps` if there is none. A wallet that exists is never overwritten:
    /// `join` joins it if it was founded with the same caps, [`window`](FleetBuilder::window) and
    /// [`Lost`].
    pub fn found(mut self, caps: Caps) -> Self {
        self.found = Some(caps);
        self
    }

    /// Makes the caps those of a `period`, in whole milliseconds: used units are free again when
    /// the clock of the store says that the period is over. Unspent grants stay charged. The period
    /// counts where [`found`](FleetBuilder::found) founds the wallet.
    pub fn window(mut self, period: Duration) -> Self {
        self.window = period;
        self
    }

    /// Sets the rule for the grant of a member that the store has not heard of for its
    /// [`ttl`](FleetBuilder::ttl). The default is [`Lost::Charge`]. The rule counts where
    /// [`found`](FleetBuilder::found) founds the wallet.
    pub fn lost(mut self, lost: Lost) -> Self {
        self.lost = lost;
        self
    }

    /// Names the member, for [`Admin::members`]. `join` adds sixteen random digits, so that no two
    /// processes are one member.
    pub fn member(mut self, name: impl Into<String>) -> Self {
        self.member = Some(name.into());
        self
    }

    /// Sets the time without an exchange after which this member counts as lost. A store that was
    /// restarted learns for as long. The default is 10 s; a `ttl` is clamped to 10 ms ..= 71,355
    /// years.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl.clamp(Duration::from_millis(10), Duration::from_millis(MOST / 4));
        self
    }

    /// Sets the time whose spend the driver fetches ahead. The default is 1 s. A longer `horizon`
    /// means fewer calls of the store, and more units that a crash leaves in doubt.
    pub fn horizon(mut self, horizon: Duration) -> Self {
        self.horizon = horizon;
        self
    }

    /// Sets the time between two exchanges that tell the spend. The default is 1 s, and the most a
    /// third of the [`ttl`](FleetBuilder::ttl).
    pub fn settle_every(mut self, time: Duration) -> Self {
        self.settle_every = time;
        self
    }

    /// Bounds the units that are held ahead on the axes that `amount` names, and so the units that
    /// a crash may leave in doubt. The store still grants a call that needs more.
    pub fn at_most(mut self, amount: Amount) -> Self {
        self.at_most = amount;
        self
    }

    /// Sets what a grant waits for before this process spends from it. The default is
    /// [`Confirm::None`]. With the others a store that loses what was not confirmed loses no grant
    /// that was spent: then F1 holds where a member dies before it can tell its grant again.
    ///
    /// Only exchanges that bring a grant wait. A grant that is not confirmed in time is not spent:
    /// calls that need it are refused as [`Unconfirmed`](FleetError::Unconfirmed), and the next
    /// exchange asks again. `join` fails with [`CannotConfirm`](FleetError::CannotConfirm) on a
    /// server that lacks the command.
    pub fn confirm(mut self, confirm: Confirm) -> Self {
        self.confirm = confirm;
        self
    }

    /// Keeps the spend of this member in the file at `path`, so that it outlives a process that is
    /// killed. A later [`join`](FleetBuilder::join) with the same journal tells the store what the
    /// process before had spent, and the rest of its grant is free again:
    /// [`Fleet::settled`] says what that was.
    ///
    /// | | in the journal |
    /// | --- | --- |
    /// | [`Fleet::record`] | the spend, before the call returns |
    /// | [`Fleet::reserve`], [`Fleet::reserve_wait`] | the whole hold, before the call returns; an open hold counts as spent |
    /// | the end of a hold, and all that is spent by [`Fleet::pool`] | with the next call of the above, by [`Fleet::write_journal`], or by the driver about 10 ms later |
    ///
    /// So the books are exact for a process that spends by `record`, and by holds that are settled
    /// with no more than they hold, but for two figures: a call that was killed before it returned
    /// may count as spent, and an open hold counts in full. **A spend of the last row that a
    /// process acts on before it is written is lost to the books if the process is killed in
    /// between**: the fleet can then spend those units again, beyond its cap. A program that spends
    /// so, or commits more than it held, calls `write_journal` before it acts.
    ///
    /// An entry is one write of about 200 bytes, without `fsync`: it outlives the process and not the
    /// machine. Where the machine was restarted, or the system does not say so (Linux does), the
    /// store books the spend of the journal, and the rest stays charged as without a journal.
    ///
    /// The folder has to be on a disk of this machine. Each member that lives needs a file of its
    /// own: a lock, which the system ends with the process, sees to that.
    pub fn journal(mut self, path: impl Into<PathBuf>) -> Self {
        self.journal = Some(path.into());
        self
    }

    pub(crate) fn no_thread(&self, error: &std::io::Error) -> FleetError {
        FleetError::Store { wallet: self.wallet.clone(), error: error.to_string() }
    }

    /// Joins the wallet. The driver is a task of the tokio runtime on which `join` is called.
    ///
    /// # Errors
    /// [`NoWallet`](FleetError::NoWallet), [`OtherFounding`](FleetError::OtherFounding),
    /// [`Range`](FleetError::Range) for caps above `2^53 - 1`, [`OtherAxes`](FleetError::OtherAxes)
    /// for `at_most` on an axis that the wallet lacks, [`Unreachable`](FleetError::Unreachable),
    /// [`Store`](FleetError::Store), [`Damaged`](FleetError::Damaged),
    /// [`Version`](FleetError::Version), [`Journal`](FleetError::Journal),
    /// [`CannotConfirm`](FleetError::CannotConfirm), [`Name`](FleetError::Name).
    ///
    /// # Cancel safety
    /// A `join` that is dropped before it is ready may have founded the wallet, and may have left a
    /// member without a grant.
    pub async fn join(self, client: Client) -> Result<Fleet, FleetError> {
        self.join_at(client.into()).await
    }

    pub(crate) async fn join_at(self, source: Source) -> Result<Fleet, FleetError> {
        let wallet = self.wallet.clone();
        let timeout = (self.ttl / 3).clamp(Duration::from_millis(500), Duration::from_secs(2));
        let mut link = Link::new(&wallet, source.clone(), timeout)?;
        let journal =
            self.journal.as_deref().map(|path| Journal::open(path, &wallet)).transpose()?;
        let run = link.run().await?;
        let known: Vec<Axis> =
            self.found.iter().flatten().map(|quantity| quantity.axis()).collect();
        let call = match &self.found {
            None => Call::look(),
            Some(caps) => {
                let caps: Vec<u64> = caps.iter().map(|quantity| quantity.units()).collect();
                if caps.iter().any(|&cap| cap > MOST) {
                    return Err(FleetError::Range { wallet });
                }
                let period = if self.window.is_zero() { 0 } else { millis(self.window) };
                Call::found(&Axes(known.clone()), &caps, self.lost, period, &run)
            }
        };
        let look = link.call(&call).await?.look(&known)?;
        let axes = look.axes.clone();
        if !axes.cover(&self.at_most) {
            return Err(FleetError::OtherAxes { wallet });
        }
        let at_most = |&axis: &Axis| self.at_most.get(axis).map(|quantity| quantity.units());
        let terms = Terms {
            ttl: self.ttl,
            horizon: self.horizon,
            settle_every: self.settle_every.min(self.ttl / 3).max(Duration::from_millis(1)),
            at_most: axes.0.iter().map(at_most).collect(),
            confirm: self.confirm.at_most(self.ttl / 3),
        };
        let mut settled = None;
        let journal = match journal {
            None => None,
            Some((journal, found)) => {
                if let Some(found) = found {
                    journal.has_axes(&found, &axes.words())?;
                    settled = Some(settle(&mut link, &look, &found).await?);
                    journal.settled(found.entry)?;
                }
                Some(journal)
            }
        };
        let member = format!("{}-{}", self.member.as_deref().unwrap_or("member"), chance());
        let is_escrow = source.is_escrow();
        let shared = Arc::new(Shared::new(wallet, &look, is_escrow, member, terms, journal));
        shared.join(&mut link).await?;
        tokio::spawn(drive(Arc::clone(&shared), link));
        Ok(Fleet { held: Arc::new(Held { shared, source, settled }) })
    }
}

/// An amount as a reservation holds it: each is one in flight, if it does not say more.
fn counted(amount: Amount) -> Amount {
    if amount.get(Axis::InFlight).is_some() { amount } else { amount.in_flight(1) }
}

fn covers(hold: &Reservation, amount: Amount) -> bool {
    let held = hold.amount();
    amount.iter().all(|quantity| held.units(quantity.axis()) >= quantity.units())
}

/// Takes part in the cooperative budget of a task. A call that the grant covers never waits: a task
/// that makes one after the other would keep the driver and its own timeout from their turn.
async fn take_part() {
    tokio::task::coop::consume_budget().await;
}

/// Sixteen random digits.
fn chance() -> String {
    use std::hash::{BuildHasher, RandomState};
    let now = std::time::SystemTime::now();
    format!("{:016x}", RandomState::new().hash_one((now, std::process::id())))
}

impl Fleet {
    /// Starts to join the wallet of this name. A `join` refuses a name that is empty or begins with
    /// `}`, as [`Name`](FleetError::Name).
    pub fn builder(wallet: impl Into<String>) -> FleetBuilder {
        FleetBuilder {
            wallet: wallet.into(),
            found: None,
            window: Duration::ZERO,
            lost: Lost::Charge,
            member: None,
            ttl: Duration::from_secs(10),
            horizon: Duration::from_secs(1),
            settle_every: Duration::from_secs(1),
            at_most: Amount::new(),
            journal: None,
            confirm: Confirm::None,
        }
    }

    /// The [`BudgetPool`] of this process: it spends at memory speed and never does I/O. Its
    /// refusals come from the grant of this process so far; a refusal makes the driver ask the
    /// store for more, and a [wait](BudgetPool::reserve_wait) gets it. A refusal as
    /// [`Never`](Outlook::Never) rests on the last exchange, and the driver makes none for it: a cap
    /// that an operator raised counts after about a [`settle_every`](FleetBuilder::settle_every).
    ///
    /// The caps lie in a pool above it, which no caller can reach: a change to this pool, such as a
    /// [`reset`](BudgetPool::reset) or a cap of its own, makes no budget in the fleet. A
    /// [`credit`](BudgetPool::credit) can be spent again in this process, and does not go back to
    /// the fleet.
    ///
    /// # Levels
    ///
    /// This pool has no cap of its own, so a [`Level::percent`](budget_pool::Level::percent) of it
    /// is never [reached](BudgetPool::reached). A
    /// [`Level::amount`](budget_pool::Level::amount) is: it counts the spend and the holds of this
    /// process since it joined, over all periods of a [window](FleetBuilder::window). A pool below
    /// it that has a cap has percentages of that cap, as any pool.
    ///
    /// The level of the fleet is in its [`snapshot`](Fleet::snapshot). A process that spends tells
    /// the store so every [`settle_every`](FleetBuilder::settle_every).
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use budget_pool::Axis;
    /// # use budget_pool_redis::{Fleet, FleetError};
    /// /// Returns when the fleet has spent 80 per cent of its dollars.
    /// async fn alert(fleet: Fleet) -> Result<(), FleetError> {
    ///     loop {
    ///         let usd = fleet.snapshot().await?.axis(Axis::Usd).expect("the wallet has dollars");
    ///         if usd.used.units() >= usd.cap.units() / 100 * 80 {
    ///             return Ok(());
    ///         }
    ///         tokio::time::sleep(Duration::from_secs(1)).await;
    ///     }
    /// }
    /// ```
    #[must_use]
    pub fn pool(&self) -> &BudgetPool {
        &self.held.shared.pool
    }

    /// Spends `amount`: here if the grant covers it, else after one exchange with the store. For
    /// about a quarter of a second after an exchange, its answer refuses two kinds of calls without
    /// another one: a call that lacks more than was free, if the answer was
    /// [`Short`](FleetError::Short), and a call that [never](Outlook::Never) fits.
    ///
    /// # Errors
    /// [`Short`](FleetError::Short) if the fleet lacks it, [`Learning`](FleetError::Learning),
    /// [`Unreachable`](FleetError::Unreachable), [`Unconfirmed`](FleetError::Unconfirmed),
    /// [`Budget`](FleetError::Budget) for every refusal by the pool of this process,
    /// [`Journal`](FleetError::Journal), and the errors of
    /// [`join`](FleetBuilder::join). Nothing was spent then.
    ///
    /// A refusal by the pool as [`Never`](Outlook::Never) says that the fleet lacks it even if all
    /// other processes give back what they hold, until an operator [raises](Admin::raise) the cap.
    ///
    /// # Cancel safety
    /// A `record` that is dropped before it is ready has spent nothing.
    pub async fn record(&self, amount: Amount) -> Result<(), FleetError> {
        take_part().await;
        self.spend(amount).await?;
        self.write_spend(amount)
    }

    /// Writes a spend of `amount` to the journal, or takes it back.
    pub(crate) fn write_spend(&self, amount: Amount) -> Result<(), FleetError> {
        self.write_journal().inspect_err(|_| {
            self.pool().credit(amount);
        })
    }

    /// Writes a hold to the journal, or releases it.
    pub(crate) fn write_hold(&self, hold: Reservation) -> Result<Reservation, FleetError> {
        match self.write_journal() {
            Ok(()) => Ok(hold),
            Err(error) => {
                hold.release();
                Err(error)
            }
        }
    }

    async fn spend(&self, amount: Amount) -> Result<(), FleetError> {
        let pool = self.pool();
        match self.admitted(|| pool.record(amount)).await? {
            Ok(()) => return Ok(()),
            Err(refusal) => self.may_be_funded(refusal)?,
        }
        // In line, so that no other call of this process takes what is granted for this one.
        self.funded(pool.record_wait(amount), amount).await
    }

    /// Runs `admit` here, and once more after an exchange where it was refused by an old answer as one
    /// that will never fit: an operator may have raised the cap.
    async fn admitted<T>(
        &self,
        admit: impl Fn() -> Result<T, BudgetError>,
    ) -> Result<Result<T, BudgetError>, FleetError> {
        match admit() {
            Err(refusal) if self.is_outdated(&refusal) => {
                self.held.shared.ask(Amount::new()).await?;
                Ok(admit())
            }
            other => Ok(other),
        }
    }

    /// Whether an exchange may take back a `refusal` as one that will never fit.
    pub(crate) fn is_outdated(&self, refusal: &BudgetError) -> bool {
        matches!(refusal, BudgetError::Exceeded(short)
            if short.outlook() == Outlook::Never && self.held.shared.axes.0.contains(&short.axis()))
            && self.held.shared.is_outdated()
    }

    /// Awaits a `wait` in the line of the pool, while the store is asked for `amount`. Where the store
    /// had it and the wait goes on, others of the line come first: the next question waits, and longer
    /// each time.
    async fn funded<T>(
        &self,
        wait: impl Future<Output = Result<T, BudgetError>>,
        amount: Amount,
    ) -> Result<T, FleetError> {
        let (mut wait, mut pause) = (std::pin::pin!(wait), Duration::ZERO);
        loop {
            let ask = async {
                if !pause.is_zero() {
                    tokio::time::sleep(pause).await;
                }
                self.held.shared.ask(amount).await
            };
            tokio::select! {
                biased;
                done = &mut wait => return Ok(done?),
                asked = ask => asked?,
            }
            pause = (2 * pause).clamp(Duration::from_millis(1), RETRY);
        }
    }

    /// Holds `ask`: here if the grant covers it, else after an exchange with the store. An answer of
    /// the store counts for a while, as for [`record`](Fleet::record).
    ///
    /// An [`Ask`] with alternatives gets the best that the fleet has for it: the store is asked for
    /// the first amount, and where the fleet is short of that, for as much as is free. This takes an
    /// exchange or two for each call that gets less than its first amount. An ask that has terms
    /// ([`ttl`](Ask::ttl), [`label`](Ask::label), alternatives) may have to share what was granted
    /// for it with other calls of this process, and asks again.
    ///
    /// # Errors
    /// As [`record`](Fleet::record). The refusal of an ask with alternatives is that of the last; behind
    /// a call of this process that waits in line, it is that of the first.
    /// A process that was granted `2^53 - 1` units in its life, and always has an open hold, is refused
    /// as [`Short`](FleetError::Short) until it [leaves](Fleet::leave) and joins anew.
    ///
    /// # Cancel safety
    /// A `reserve` that is dropped before it is ready holds nothing.
    ///
    /// ```no_run
    /// # use budget_pool::{Amount, Ask};
    /// # async fn example(fleet: budget_pool_redis::Fleet) -> Result<(), Box<dyn std::error::Error>> {
    /// let most = Amount::new().output_tokens(128_000);
    /// let ask = Ask::new(most).at_least(Amount::new().output_tokens(1_000)).label("draft");
    /// let hold = fleet.reserve(ask).await?;
    /// println!("max_tokens: {}", hold.amount().units(budget_pool::Axis::OutputTokens));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn reserve(&self, ask: impl Into<Ask>) -> Result<Reservation, FleetError> {
        take_part().await;
        self.write_hold(self.hold(ask.into()).await?)
    }

    async fn hold(&self, ask: Ask) -> Result<Reservation, FleetError> {
        let pool = self.pool();
        let first = counted(ask.amount());
        let may_be_cut = match self.admitted(|| pool.reserve(ask.clone())).await? {
            Ok(hold) if covers(&hold, ask.amount()) => return Ok(hold),
            Ok(less) => {
                let is_cut = less.choice() == 0;
                less.release();
                is_cut
            }
            Err(refusal) => {
                self.may_be_funded(refusal)?;
                true
            }
        };
        // In line from the start, so that no other call of this process takes what is granted for
        // this one. The line would grant an alternative before the store has said what it has.
        if ask == Ask::from(ask.amount()) {
            return self.funded(pool.reserve_wait(ask), first).await;
        }
        let shared = &self.held.shared;
        let fetched = shared.fetch(first, may_be_cut).await;
        // All axes that lacked in one request: an exchange may give back what it does not ask for.
        let mut last: Vec<Quantity> = Vec::new();
        for _round in 0..8 {
            let refusal = match pool.reserve(ask.clone()) {
                Ok(hold) => return Ok(hold),
                Err(refusal) => refusal,
            };
            if let Err(error) = &fetched
                && !matches!(error, FleetError::Short { .. })
            {
                return Err(error.clone());
            }
            // A refusal names an axis of the last alternative.
            if let Some(short) = refusal.exceeded() {
                last.retain(|quantity| quantity.axis() != short.axis());
                last.push(short.requested());
            }
            self.may_be_funded(refusal)?;
            shared.ask_for(shared.each(&last)).await?;
        }
        self.funded(pool.reserve_wait(ask), first).await
    }

    /// Holds the first amount of `ask` if the grant covers it.
    pub(crate) fn hold_here(&self, ask: &Ask) -> Option<Reservation> {
        let hold = self.pool().reserve(ask.clone()).ok()?;
        if covers(&hold, ask.amount()) {
            return Some(hold);
        }
        hold.release();
        None
    }

    /// Ends this member as a process that is killed, but for its journal, which has all of its spend.
    pub(crate) fn abandon(&self) {
        // A drop has nobody to tell.
        let _ = self.held.shared.close_journal();
        self.held.shared.abandon();
    }

    /// Holds `ask` as soon as the fleet has its amount, in line with the other waiters of this
    /// process. An amount that [never](Outlook::Never) fits is refused, after one exchange if the last
    /// is older than a quarter of a second; the time of an [`Ask`] that is
    /// [bounded](Ask::wait_at_most) begins after that. With a [`window`](FleetBuilder::window) a wait for
    /// more than the cap is refused once the unspent grant of this process went back, some seconds
    /// later.
    ///
    /// # Errors
    /// [`Budget`](FleetError::Budget), as [`BudgetPool::reserve_wait`], and
    /// [`Journal`](FleetError::Journal). Nothing is held then.
    ///
    /// # Cancel safety
    /// A `reserve_wait` that is dropped before it is ready holds nothing.
    pub async fn reserve_wait(&self, ask: impl Into<Ask>) -> Result<Reservation, FleetError> {
        take_part().await;
        let (pool, ask) = (self.pool(), ask.into());
        let refusal = match pool.reserve_wait(ask.clone()).await {
            Ok(hold) => return self.write_hold(hold),
            Err(refusal) => refusal,
        };
        if self.is_outdated(&refusal) {
            // Not for as long as a store may hang: the time of the wait may be bounded.
            let asked = tokio::time::timeout(RETRY, self.held.shared.ask(Amount::new())).await;
            if matches!(asked, Ok(Ok(()))) {
                return self.write_hold(pool.reserve_wait(ask).await?);
            }
        }
        Err(refusal.into())
    }

    /// Whether a refusal of the pool may end by a grant. The calls of this process that wait for one
    /// already do not refuse the next call: it stands in line behind them.
    fn may_be_funded(&self, refusal: BudgetError) -> Result<(), FleetError> {
        if matches!(&refusal, BudgetError::Queued { .. }) {
            return Ok(());
        }
        let lacks_room = matches!(&refusal, BudgetError::Exceeded(_));
        if lacks_room && refusal.outlook() != Outlook::Never { Ok(()) } else { Err(refusal.into()) }
    }

    /// Tells the store the spend of this process now, and returns when the store has booked it.
    ///
    /// # Errors
    /// As [`record`](Fleet::record), but for [`Short`](FleetError::Short).
    ///
    /// # Cancel safety
    /// A `settle` that is dropped before it is ready may have told the spend or not; the next
    /// exchange tells it.
    pub async fn settle(&self) -> Result<(), FleetError> {
        self.held.shared.ask(Amount::new()).await
    }

    /// Writes all that this process has spent and holds so far to its
    /// [journal](FleetBuilder::journal), before it returns: once for any number of spends by the
    /// [pool](Fleet::pool), and after a hold was settled. Without a journal it does nothing.
    ///
    /// It makes one write of a file, and no call of the store.
    ///
    /// # Errors
    /// [`Journal`](FleetError::Journal). The spends are booked all the same, and the next exchange
    /// tells them.
    pub fn write_journal(&self) -> Result<(), FleetError> {
        self.held.shared.write_journal()
    }

    /// What the [journal](FleetBuilder::journal) settled when this process joined; `None` without a
    /// journal, and if the process before had left.
    #[must_use]
    pub fn settled(&self) -> Option<&Settled> {
        self.held.settled.as_ref()
    }

    /// Reads the wallet at one instant of the store, as [`Admin::snapshot`].
    ///
    /// # Errors
    /// As [`join`](FleetBuilder::join).
    pub async fn snapshot(&self) -> Result<FleetSnapshot, FleetError> {
        self.admin().snapshot().await
    }

    /// Returns the [`Status`] of this process, without I/O.
    #[must_use]
    pub fn status(&self) -> Status {
        let figures = self.held.shared.figures();
        Status {
            member: figures.member,
            heard: figures.heard,
            failure: figures.failure,
            may_evict: figures.may_evict,
            calls: figures.calls,
            learns: figures.learns,
            in_doubt: figures.in_doubt,
        }
    }

    /// Returns the [`Admin`] of the wallet of this fleet.
    #[must_use]
    pub fn admin(&self) -> Admin {
        Admin::at(&self.held.shared.wallet, self.held.source.clone())
    }

    /// Closes the pool, waits until its holds have ended, and gives back the unspent grant. A hold
    /// that is still there after the [`ttl`](FleetBuilder::ttl) counts as spent, but for its slots in
    /// flight, which come back.
    ///
    /// # Errors
    /// The error of the farewell. The grant then stays charged, or is returned, as that of a member
    /// that died: the [`Lost`] of the wallet decides.
    ///
    /// # Cancel safety
    /// The driver leaves all the same if `leave` is dropped before it is ready.
    pub async fn leave(self) -> Result<(), FleetError> {
        self.held.shared.start_leaving();
        self.held.shared.left().await
    }
}

#[cfg(test)]
impl Fleet {
    pub(crate) fn journal(&self) -> Option<&Journal> {
        self.held.shared.journal()
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("wallet", &self.held.shared.wallet).finish_non_exhaustive()
    }
}
