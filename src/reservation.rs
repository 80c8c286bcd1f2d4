//! A hold on a budget, and its ends.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::engine::{Booked, End, HoldKey};
use crate::pool::BudgetPool;
use crate::types::amount::Amount;
use crate::types::axis::{AxisSet, Labels, Quantities};
use crate::types::error::BudgetError;
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;

/// Budget that [`BudgetPool::reserve`] promises to one owner (P3). A `Reservation` keeps its pool
/// alive.
///
/// Each of its ends gives its units back once, or spends them once:
///
/// | event | held part | metered part |
/// | --- | --- | --- |
/// | [`commit`](Reservation::commit) | replaced by the total, up or down | counted in the total |
/// | drop, `?`, panic, cancelled task | as [`OnDrop`] says: released, or settled | stays |
/// | [`std::mem::forget`] | held for ever, unless it expires | stays |
/// | it [expires](crate::Ask::ttl) | as [`OnDrop`] says: released, or settled | stays |
/// | [`BudgetPool::reset`], or a [window](crate::Window) turns | still held, settles into the new period | belongs to the old period |
/// | [`BudgetPool::close`], or the deadline passes | can still be committed, debited, shrunk or released | stays |
///
/// # What a commit settles
///
/// The total that [`commit`](Reservation::commit) names is that of the whole reservation, including
/// the parts that [`record`](Reservation::record) and [`debit`](Reservation::debit) metered before.
/// The total is booked exactly, up or down.
///
/// - An axis that is named settles at its figure; an axis that is named with zero settles zero.
/// - An axis that is not named settles at its metered and held units. So a commit of tokens alone
///   books the held money: a forgotten axis does not make money vanish.
/// - A total of tokens without its parts leaves the parts at their metered and held units. A part
///   without the other leaves the other likewise, and the total is the larger of the named total
///   and the sum of both parts as they are settled.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, Usd};
///
/// let pool = BudgetPool::unlimited();
/// let hold = pool.reserve(Amount::new().tokens(2_000).usd(Usd::from_cents(3)))?;
/// hold.debit(Amount::new().tokens(1_400)); // metered by a tokenizer of our own
/// hold.commit(Amount::new().tokens(1_200)); // the provider's figure
///
/// let snapshot = pool.snapshot();
/// assert_eq!(snapshot.tokens.used, 1_200);
/// assert_eq!(snapshot.usd.used, Usd::from_cents(3));
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
///
/// # After it has expired
///
/// A hold with a [TTL](crate::Ask::ttl), be it from [`renew`](Reservation::renew), has expired from
/// the instant of its expiry on, whether or not a call has reclaimed it yet. An owner may still
/// tell:
///
/// - [`commit`](Reservation::commit) and [`debit`](Reservation::debit) book the spend as if it had
///   not been held: from free units, and the rest as overage. The pool remembers the held units for
///   this, so that a late [`commit_all`](Reservation::commit_all) books them. [`Receipt::is_late`]
///   says so.
/// - After [`OnDrop::Commit`] the expiry has settled the held units, into the period in which the
///   hold expired. They count as metered, so that a late commit of the real total is exact, too.
///
/// The calls that ask ([`record`](Reservation::record), [`try_commit`](Reservation::try_commit),
/// [`grow`](Reservation::grow), [`shrink`](Reservation::shrink), [`split`](Reservation::split),
/// [`merge`](Reservation::merge), [`renew`](Reservation::renew)) are refused with
/// [`Expired`](BudgetError::Expired). A drop or a release does nothing more. The units of a
/// forgotten guard are free again; the memory of it, 256 bytes at most, stays, as its owner may
/// still come. The hold keeps its pool alive, too: the share of a
/// [carved](crate::PoolBuilder::carved) pool goes back only when it is closed.
#[must_use = "a reservation that is dropped is released, or settled"]
pub struct Reservation {
    pool: BudgetPool,
    /// Taken by whatever ends the hold, so that a drop gives back only where nothing else did:
    /// once (P3).
    key: Option<HoldKey>,
}

const NOT_ENDED: &str = "a reservation that can still be named has not ended";

/// How it begins, and ends.
impl Reservation {
    #[inline]
    pub(crate) fn new(pool: BudgetPool, key: HoldKey) -> Reservation {
        Reservation { pool, key: Some(key) }
    }

    #[inline]
    fn key(&self) -> HoldKey {
        self.key.expect(NOT_ENDED)
    }

    /// Ends the hold; the drop that follows finds nothing left to give back.
    #[inline(always)]
    fn end(mut self, how: End<'_>, receipt: &mut Receipt) {
        let key = self.key.take().expect(NOT_ENDED);
        self.pool.handle().end(key, how, &mut receipt.booked);
        if let End::Commit(total) = how {
            receipt.name_axes(&self.pool, total);
        }
    }

    /// Ends a hold that its owner dropped. Not inlined, so that the drop after any other end is
    /// small.
    #[inline(never)]
    fn give_up(&self, key: HoldKey) {
        self.pool.handle().end(key, End::Drop, &mut { Booked::NOTHING });
    }

    /// Settles the real `total` of this reservation, metered parts included. `commit` cannot fail
    /// (P2): a larger total takes free units, and the part that does not fit is booked as
    /// [`overage`](Receipt::overage). A smaller total gives the rest back; where more was metered
    /// than the total, [`BudgetPool::credit`] says what becomes of the difference.
    /// [`Reservation`](Reservation#what-a-commit-settles) says at which figure an axis settles.
    ///
    /// Works after the deadline, on a closed pool, and after the hold has expired, too: it
    /// happened.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::unlimited();
    /// let hold = pool.reserve(Amount::new().tokens(2_000))?;
    /// hold.record(Amount::new().tokens(300))?; // metered while it streamed
    /// let receipt = hold.commit(Amount::new().tokens(1_200)); // the provider's usage block
    /// assert_eq!(receipt.settled(), Amount::new().tokens(900));
    /// assert_eq!(pool.snapshot().tokens.used, 1_200);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    #[inline(always)]
    pub fn commit(self, total: Amount) -> Receipt {
        let mut receipt = Receipt::new(Booked::NOTHING, total.labels());
        self.end(End::Commit(&total), &mut receipt);
        receipt
    }

    /// Settles the held units, beside the metered ones: the estimate was exact.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// pool.reserve(Amount::new().tokens(60))?.commit_all();
    /// assert_eq!(pool.snapshot().tokens.used, 60);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn commit_all(self) -> Receipt {
        self.commit(Amount::new())
    }

    /// A strict [`commit`](Reservation::commit): refused, with nothing changed, if `total` does not
    /// fit into the metered, the held and the free units. It asks for capacity alone, so that it
    /// works after the deadline and on a closed pool.
    ///
    /// # Errors
    /// [`CommitRefused`] says why, by [`Exceeded`](BudgetError::Exceeded) or
    /// [`Expired`](BudgetError::Expired), and owns the reservation. **Dropping the
    /// [`CommitRefused`] drops the hold.**
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::builder().tokens(1_000).build();
    /// let hold = pool.reserve(Amount::new().tokens(800))?;
    /// let refused = hold.try_commit(Amount::new().tokens(1_500)).unwrap_err();
    /// assert_eq!(refused.error().to_string(), "tokens of `pool` exceeded: 700 requested, 200 available, cap 1000, may fit after a release");
    ///
    /// // It happened all the same: book it, with its overage.
    /// let receipt = refused.into_reservation().commit(Amount::new().tokens(1_500));
    /// assert_eq!(receipt.overage(), Amount::new().tokens(500));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn try_commit(mut self, total: Amount) -> Result<Receipt, CommitRefused> {
        let key = self.key();
        match self.pool.handle().tell(|engine, _, now| engine.try_commit(key, &total, now)) {
            Ok(booked) => {
                self.key = None;
                let mut receipt = Receipt::new(booked, total.labels());
                receipt.name_axes(&self.pool, &total);
                Ok(receipt)
            }
            Err(error) => Err(CommitRefused { reservation: self, error }),
        }
    }

    /// Gives back all held units, whatever a drop would do: nothing more was spent.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, OnDrop};
    /// let pool = BudgetPool::builder().tokens(100).on_drop(OnDrop::Commit).build();
    /// pool.reserve(Amount::new().tokens(60))?.release();
    /// assert_eq!(pool.snapshot().tokens.available, Some(100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn release(self) {
        self.end(End::Release, &mut Receipt::new(Booked::NOTHING, Labels::NONE));
    }
}

/// The calls of its owner.
impl Reservation {
    /// Asks to settle part of the hold now: for a stream that meters as it goes. The units beyond
    /// the hold are taken from the pool.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let hold = pool.reserve(Amount::new().tokens(40))?;
    /// hold.record(Amount::new().tokens(70))?; // 40 of the hold, 30 of the pool
    /// assert!(hold.record(Amount::new().tokens(31)).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`BudgetPool::record`], for the units beyond the hold, but `record` passes the waiters. A
    /// close, the deadline and a pause refuse a part within the hold, too. Before all,
    /// [`Expired`](BudgetError::Expired). Nothing has changed then.
    pub fn record(&self, part: Amount) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().ask(|engine, _, now| engine.record_part(key, part.quantities(), now))
    }

    /// Tells that part of the hold has been spent: [`record`](Reservation::record) for a chunk that
    /// has already been streamed. `debit` always books (P2).
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let hold = pool.reserve(Amount::new().tokens(60))?;
    /// hold.debit(Amount::new().tokens(25)); // a chunk has arrived
    /// assert_eq!(hold.amount(), Amount::new().tokens(35));
    /// assert_eq!(pool.snapshot().tokens.used, 25);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn debit(&self, part: Amount) -> Receipt {
        let key = self.key();
        let handle = self.pool.handle();
        let booked = handle.tell(|engine, _, now| engine.debit_part(key, part.quantities(), now));
        Receipt::new(booked, part.labels())
    }

    /// Asks to hold `extra` more. It takes more slots [in flight](Amount::in_flight) where `extra`
    /// names them.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let hold = pool.reserve(Amount::new().tokens(60))?;
    /// hold.grow(Amount::new().tokens(40))?;
    /// assert!(hold.grow(Amount::new().tokens(1)).is_err());
    /// assert_eq!(hold.amount(), Amount::new().tokens(100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`BudgetPool::record`], but `grow` passes the waiters. Before all,
    /// [`Expired`](BudgetError::Expired). The hold is then as it was.
    pub fn grow(&self, extra: Amount) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().ask(|engine, _, now| engine.grow(key, &extra.all(), now))
    }

    /// Gives part of the hold back, slots [in flight](Amount::in_flight) where `by` names them.
    /// Works after the deadline and on a closed pool, too. Each axis stands for itself: to shrink
    /// input and output, name them, and their total follows; the total alone leaves them as they
    /// are.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let hold = pool.reserve(Amount::new().tokens(60))?;
    /// hold.shrink(Amount::new().tokens(50))?;
    /// assert_eq!(pool.snapshot().tokens.available, Some(90));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Expired`](BudgetError::Expired); [`Exceeded`](BudgetError::Exceeded) if `by` is more than
    /// is held, with the held units as `available` and as `cap`. The hold is then as it was.
    pub fn shrink(&self, by: Amount) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().tell(|engine, _, now| engine.shrink(key, &by.all(), now))
    }

    /// Moves part of the hold into a reservation of its own, with the same label, the same
    /// [`OnDrop`] and the same expiry. The metered units stay with this hold. Each axis stands for
    /// itself, as in [`shrink`](Reservation::shrink). The new reservation asks the pool for one
    /// slot in flight of its own; where `part` names its slots, they move from this one.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let whole = pool.reserve(Amount::new().tokens(60))?;
    /// let part = whole.split(Amount::new().tokens(20))?;
    /// part.commit(Amount::new().tokens(15));
    /// assert_eq!(whole.amount(), Amount::new().tokens(40));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`shrink`](Reservation::shrink); else as [`BudgetPool::record`], for the slot that the
    /// new reservation asks, but `split` passes the waiters. A close, the deadline and a pause refuse
    /// one that brings its slot along, too. Nothing has changed then.
    pub fn split(&self, part: Amount) -> Result<Reservation, BudgetError> {
        let key = self.key();
        let half = self.pool.handle().ask(|engine, _, now| engine.split(key, &part, now))?;
        Ok(Reservation::new(self.pool.clone(), half))
    }

    /// Moves the held and metered units of another reservation of the same pool to this one, which
    /// keeps its label and its expiry. If one of both [commits on a drop](OnDrop::Commit), the
    /// merged hold does. The pool is asked for nothing and given nothing: the slots in flight of
    /// both add up, too, and [`shrink`](Reservation::shrink) gives back those that are not needed
    /// any more.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::unlimited();
    /// let call = pool.reserve(Amount::new().tokens(300))?;
    /// call.merge(pool.reserve(Amount::new().tokens(500).in_flight(0))?).unwrap();
    /// assert_eq!(call.amount(), Amount::new().tokens(800));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    ///
    /// # Errors
    /// [`MergeRefused`] owns the other reservation, and says why:
    /// [`ForeignPool`](BudgetError::ForeignPool) if it is not one of the same pool,
    /// [`Expired`](BudgetError::Expired) if one of them has. Nothing has changed then.
    pub fn merge(&self, mut other: Reservation) -> Result<(), MergeRefused> {
        if !self.pool.ptr_eq(&other.pool) {
            let error = BudgetError::ForeignPool { pool: other.pool.handle().name().clone() };
            let error = self.pool.handle().refused(error);
            return Err(MergeRefused { reservation: other, error });
        }
        let (key, added) = (self.key(), other.key());
        match self.pool.handle().tell(|engine, _, now| engine.merge(key, added, now)) {
            Ok(()) => {
                other.key = None;
                Ok(())
            }
            Err(error) => Err(MergeRefused { reservation: other, error }),
        }
    }

    /// From now on the hold lives for so long, whether it could [expire](crate::Ask::ttl)
    /// before or not: longer, or shorter. A `ttl` too long for an [`Instant`] is for ever.
    /// Works after the deadline and on a closed pool, too: it asks for nothing more.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, Ask, BudgetPool, ManualClock};
    /// let clock = ManualClock::new();
    /// let pool = BudgetPool::builder().clock(clock.clone()).build();
    /// let hold = pool.reserve(Ask::new(Amount::new().tokens(5)).ttl(Duration::from_secs(30)))?;
    /// clock.advance(Duration::from_secs(20));
    /// hold.renew(Duration::from_secs(30))?; // a heartbeat
    /// clock.advance(Duration::from_secs(20));
    /// assert!(!hold.is_expired());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Expired`](BudgetError::Expired): it is too late.
    pub fn renew(&self, ttl: Duration) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().ask_at(|engine, _, now| engine.renew(key, ttl, now))
    }

    /// Names this hold in [`BudgetPool::holders`]: `"request"`, or a text of its own
    /// (`format!("request {id}")`). The expiry of a hold that has expired already is told with the
    /// label that the hold had then.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::unlimited();
    /// let hold = pool.reserve(Amount::new().tokens(5))?.label(format!("request {}", 17));
    /// assert_eq!(pool.holders()[0].label, Some("request 17".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn label(self, label: impl Into<Name>) -> Reservation {
        let mut label = Some(label.into());
        self.pool.handle().tell(|engine, _, now| engine.label(self.key(), &mut label, now));
        self
    }

    /// Sets what a drop, or the [expiry](crate::Ask::ttl), does from now on with the held units. On
    /// a hold that has expired already it changes nothing.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, OnDrop};
    /// let pool = BudgetPool::builder().on_drop(OnDrop::Commit).build();
    /// drop(pool.reserve(Amount::new().tokens(5))?.on_drop(OnDrop::Release));
    /// assert_eq!(pool.snapshot().tokens.used, 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_drop(self, on_drop: OnDrop) -> Reservation {
        self.pool.handle().tell(|engine, _, now| engine.on_drop(self.key(), on_drop, now));
        self
    }

    /// [`on_drop`](Reservation::on_drop) with [`OnDrop::Commit`]: for a call that the provider
    /// bills even if we stop listening. [`release`](Reservation::release) it when the provider says
    /// that nothing was billed.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::unlimited();
    /// drop(pool.reserve(Amount::new().tokens(500))?.commit_on_drop());
    /// assert_eq!(pool.snapshot().tokens.used, 500);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn commit_on_drop(self) -> Reservation {
        self.on_drop(OnDrop::Commit)
    }
}

/// The getters.
impl Reservation {
    /// The units that are still held; nothing once the hold has expired. The amount names
    /// `in_flight` where the slots are another number than one, so that to reserve this amount
    /// makes the same hold again.
    #[must_use]
    pub fn amount(&self) -> Amount {
        self.pool.handle().tell(|engine, _, now| engine.held(self.key(), now))
    }

    /// Whether it has [expired](crate::Ask::ttl). Reads the clock if a hold of the tree may
    /// (P8).
    #[must_use]
    pub fn is_expired(&self) -> bool {
        self.pool.handle().tell(|engine, _, now| engine.is_expired(self.key(), now))
    }

    /// Which amount of the [`Ask`](crate::Ask) was granted: 0 for the first, 1 for that of the first
    /// [`or`](crate::Ask::or). A hold that was asked for by a plain amount has 0.
    ///
    /// ```
    /// # use budget_pool::{Amount, Ask, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let ask = Ask::new(Amount::new().tokens(500)).or(Amount::new().tokens(80));
    /// assert_eq!(["large", "small"][pool.reserve(ask)?.choice()], "small");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn choice(&self) -> usize {
        self.pool.handle().enter(|engine, _| engine.choice(self.key())) as usize
    }

    /// The time until this hold [expires](crate::Ask::ttl) or the earliest deadline on the
    /// pool's path comes, zero once it has; `None` without either. Reads the clock if there is
    /// one (P8).
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let handle = self.pool.handle();
        let (end, latest) = handle.enter(|engine, _| engine.end_of(self.key()));
        let left = |end: Instant| {
            // By the clock as it reads, which may have run back. What was over stays over.
            let left = end.saturating_duration_since(handle.now());
            if latest.is_some_and(|latest| end <= latest) { Duration::ZERO } else { left }
        };
        end.map(left)
    }

    /// The [`BudgetPool`] that this was reserved on.
    #[must_use]
    pub fn pool(&self) -> &BudgetPool {
        &self.pool
    }
}

impl Drop for Reservation {
    #[inline]
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.give_up(key);
        }
    }
}

/// The text names the hold. To print it takes no lock, reads no clock and expires no hold, so that a
/// log line changes nothing; [`amount`](Reservation::amount) tells how much is held.
impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation")
            .field("pool", &self.pool.name())
            .field("key", &self.key())
            .finish_non_exhaustive()
    }
}

/// The outcome of a settlement.
#[derive(Clone, Copy)]
pub struct Receipt {
    /// A call books in this place: to move what it books would cost as much as to book.
    pub(crate) booked: Booked,
    labels: Labels,
}

impl Receipt {
    #[inline(always)]
    pub(crate) fn new(booked: Booked, labels: Labels) -> Receipt {
        Receipt { booked, labels }
    }

    /// Of a settled total. An own axis that was held, and that the total does not name, has the
    /// label of the tree.
    #[inline(always)]
    fn name_axes(&mut self, pool: &BudgetPool, total: &Amount) {
        let unnamed = self.booked.settled.axes().difference(total.named());
        if !unnamed.intersection(AxisSet::OWN).is_empty() {
            self.learn_labels(pool);
        }
    }

    #[cold]
    #[inline(never)]
    fn learn_labels(&mut self, pool: &BudgetPool) {
        self.labels = self.labels.or(pool.handle().labels());
    }

    /// The units that this call settled, on every axis that it touched: of a commit, those that
    /// were not metered before.
    #[must_use]
    pub fn settled(&self) -> Amount {
        Amount::reported(self.booked.settled, self.labels)
    }

    /// The settled units that did not fit: on each axis the greatest overage on the path, zero
    /// where all fitted.
    #[must_use]
    pub fn overage(&self) -> Amount {
        Amount::reported(self.booked.overage(), self.labels)
    }

    /// The units that were given back, by a [`credit`](BudgetPool::credit) or by a commit whose
    /// total is less than the metered units: on each axis the greatest on the path. A pool gives
    /// back no more than it has booked in its present period.
    #[must_use]
    pub fn credited(&self) -> Amount {
        Amount::reported(self.booked.credited(), self.labels)
    }

    /// Whether the hold had [expired](crate::Ask::ttl) before: the settled units were not held any
    /// more.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.booked.late
    }

    fn said(&self) -> [Quantities; 3] {
        [self.booked.settled, self.booked.overage(), self.booked.credited()]
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt")
            .field("settled", &self.settled())
            .field("overage", &self.overage())
            .field("credited", &self.credited())
            .field("is_late", &self.is_late())
            .finish()
    }
}

/// They say the same.
impl PartialEq for Receipt {
    fn eq(&self, other: &Receipt) -> bool {
        (self.said(), self.is_late()) == (other.said(), other.is_late())
    }
}

impl Eq for Receipt {}

/// By its figures, as `eq` compares them.
impl Hash for Receipt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.said(), self.is_late()).hash(state);
    }
}

/// A strict commit that did not fit, or came after the hold had expired: nothing was settled, and
/// the reservation is in here, as it was.
///
/// As long as the error is kept, so is the hold, until it expires. **Dropping this error drops the
/// reservation**, which releases or settles what it holds, as its [`OnDrop`] says. A spend that
/// really happened must not be lost that way: take the reservation back with [`into_reservation`](CommitRefused::into_reservation)
/// and `commit` it.
#[derive(Debug, thiserror::Error)]
#[error("strict commit refused")]
#[must_use = "dropping this drops the reservation"]
pub struct CommitRefused {
    pub(crate) reservation: Reservation,
    #[source]
    pub(crate) error: BudgetError,
}

impl CommitRefused {
    /// The refusal: [`Exceeded`](BudgetError::Exceeded) with the figures of the axis, or
    /// [`Expired`](BudgetError::Expired).
    #[must_use]
    pub fn error(&self) -> &BudgetError {
        &self.error
    }

    /// The reservation, as it was before the strict commit.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(10).build();
    /// let refused = pool.reserve(Amount::new().tokens(5))?.try_commit(Amount::new().tokens(20)).unwrap_err();
    /// refused.into_reservation().commit(Amount::new().tokens(20)); // it happened
    /// assert_eq!(pool.snapshot().tokens.overage, 10);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }
}

/// Two reservations that could not become one: nothing has changed, and the error owns the one that
/// was to be merged into the other.
///
/// **Dropping this error drops that reservation**, which releases or settles what it holds, as its
/// [`OnDrop`] says.
#[derive(Debug, thiserror::Error)]
#[error("merge refused")]
#[must_use = "dropping this drops the reservation"]
pub struct MergeRefused {
    reservation: Reservation,
    #[source]
    error: BudgetError,
}

impl MergeRefused {
    /// Why: [`ForeignPool`](BudgetError::ForeignPool) or [`Expired`](BudgetError::Expired).
    #[must_use]
    pub fn error(&self) -> &BudgetError {
        &self.error
    }

    /// The reservation that was to be merged into the other.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let (pool, other) = (BudgetPool::unlimited(), BudgetPool::unlimited());
    /// let hold = pool.reserve(Amount::new().tokens(5))?;
    /// let refused = hold.merge(other.reserve(Amount::new().tokens(7))?).unwrap_err();
    /// assert_eq!(refused.into_reservation().amount(), Amount::new().tokens(7));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }
}
