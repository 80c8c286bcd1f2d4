//! A hold on a budget, and what became of it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::{Duration, Instant};

use crate::engine::{Booked, End, HoldKey};
use crate::pool::BudgetPool;
use crate::types::amount::Amount;
use crate::types::axis::Quantities;
use crate::types::error::BudgetError;

/// Budget that is promised to one owner (P3), from [`BudgetPool::reserve`]. It keeps its pool
/// alive.
///
/// Whatever happens to it, its units go back once, or are spent once:
///
/// | event | held part | already settled part |
/// | --- | --- | --- |
/// | [`commit`](Reservation::commit) | replaced by the actual amount | stays |
/// | drop, `?`, panic, cancelled task | released (or settled: [`commit_on_drop`](Reservation::commit_on_drop)) | stays |
/// | [`std::mem::forget`] | held for ever, unless it expires | stays |
/// | it [expires](BudgetPool::reserve_for) | released (or settled: [`commit_on_drop`](Reservation::commit_on_drop)) | stays |
/// | [`BudgetPool::reset`], or a [window](crate::Window) turns | still held, settles into the new period | belongs to the old period |
/// | [`BudgetPool::close`], or the deadline passes | can still be committed, debited, shrunk or released | stays |
///
/// # After it has expired
///
/// A hold from [`reserve_for`](BudgetPool::reserve_for) or [`renew`](Reservation::renew) has
/// expired from the instant of its expiry on, whether or not a call has reclaimed it yet. What may
/// still be told:
///
/// - [`commit`](Reservation::commit) and [`debit`](Reservation::debit) book what happened, as if it
///   had not been held: from what is free, and what does not fit as overage. What was held is
///   remembered for this, so that a late [`commit_all`](Reservation::commit_all) books it. The
///   receipt [is late](Receipt::is_late).
/// - After [`commit_on_drop`](Reservation::commit_on_drop), what was held has been settled by the
///   expiry, into the period in which it expired. A late commit then books what is beyond that, so
///   that nothing counts twice.
///
/// What would ask ([`record`](Reservation::record), [`try_commit`](Reservation::try_commit),
/// [`grow`](Reservation::grow), [`shrink`](Reservation::shrink), [`split`](Reservation::split),
/// [`renew`](Reservation::renew)) is refused with [`Expired`](BudgetError::Expired). A drop or a
/// release does nothing more. What a forgotten guard held is free again; what the pool remembers of
/// it (200 bytes at most) stays, as it may still come. So does its pool, which it keeps alive: the
/// share of a [carved](crate::PoolBuilder::carved) one goes back only when that is closed.
///
/// # What a commit settles
///
/// An axis that is not named settles at what is still held of it; naming it with zero settles zero.
/// Naming one token axis names all three. So a commit of tokens alone books the held money: a
/// forgotten axis does not make money vanish.
///
/// ```
/// use budget_pool::{Amount, BudgetPool, Usd};
///
/// let pool = BudgetPool::unlimited();
/// let hold = pool.reserve(Amount::new().tokens(2_000).usd(Usd::from_cents(3)))?;
/// hold.commit(Amount::new().tokens(1_200));
///
/// let snapshot = pool.snapshot();
/// assert_eq!(snapshot.tokens.used, 1_200);
/// assert_eq!(snapshot.usd.used, Usd::from_cents(3));
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
#[must_use = "a reservation that is dropped is released"]
pub struct Reservation {
    pool: BudgetPool,
    /// Taken by whatever ends the hold, so that a drop gives back only where nothing else did:
    /// once (P3).
    key: Option<HoldKey>,
}

const NOT_ENDED: &str = "a reservation that can still be named has not ended";

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
    fn end(mut self, how: End<'_>) -> Receipt {
        let key = self.key.take().expect(NOT_ENDED);
        Receipt(self.pool.handle().end(key, how))
    }

    /// Names this hold in [`BudgetPool::holders`].
    pub fn label(self, label: &'static str) -> Reservation {
        self.pool.handle().enter(|engine, _| engine.label(self.key(), label));
        self
    }

    /// Settles the real figures. Cannot fail (P2): what is more than was held comes from what is
    /// free, and what does not fit there is booked as overage. What is less goes back.
    ///
    /// Works after the deadline, on a closed pool, and after the hold has expired, too: it
    /// happened.
    pub fn commit(self, actual: Amount) -> Receipt {
        self.end(End::Commit(&actual))
    }

    /// Settles what is held: it was exact.
    pub fn commit_all(self) -> Receipt {
        self.commit(Amount::new())
    }

    /// As [`commit`](Reservation::commit), with a total that includes what
    /// [`record`](Reservation::record) and [`debit`](Reservation::debit) on this reservation
    /// have settled already: providers report totals. A total below what has been settled
    /// settles nothing more; what has been settled stays.
    ///
    /// ```
    /// use budget_pool::{Amount, BudgetPool};
    ///
    /// let pool = BudgetPool::unlimited();
    /// let mut hold = pool.reserve(Amount::new().tokens(2_000))?;
    /// hold.record(Amount::new().tokens(300))?; // metered while it streamed
    /// hold.commit_total(Amount::new().tokens(1_200)); // the provider's usage block
    /// assert_eq!(pool.snapshot().tokens.used, 1_200);
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn commit_total(self, total: Amount) -> Receipt {
        self.end(End::Total(&total))
    }

    /// A strict commit: refused, with nothing changed, if it does not fit into what is held and
    /// free. It asks for capacity alone, so that it works after the deadline and on a closed
    /// pool.
    ///
    /// # Errors
    /// [`CommitRefused`] says what did not fit, or that the hold has
    /// [expired](BudgetError::Expired), and owns the reservation. **Dropping it releases the
    /// hold.**
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
    pub fn try_commit(mut self, actual: Amount) -> Result<Receipt, CommitRefused> {
        let key = self.key();
        match self.pool.handle().tell(|engine, _, now| engine.try_commit(key, &actual, now)) {
            Ok(booked) => {
                self.key = None;
                Ok(Receipt(booked))
            }
            Err(error) => Err(CommitRefused { reservation: self, error }),
        }
    }

    /// Gives everything back that is still held, as a drop does, but said aloud; and after
    /// [`commit_on_drop`](Reservation::commit_on_drop), too.
    pub fn release(self) {
        self.end(End::Release);
    }

    /// Asks to settle part of the hold now: for a stream that meters as it goes. What is beyond the
    /// hold is taken from the pool.
    ///
    /// # Errors
    /// As [`BudgetPool::record`], for what is beyond the hold; before all,
    /// [`Expired`](BudgetError::Expired). Nothing has changed then.
    pub fn record(&mut self, part: Amount) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().ask(|engine, _, now| engine.record_part(key, part.quantities(), now))
    }

    /// Tells that part of the hold has been spent: the same for what has already been streamed.
    /// Always booked (P2).
    pub fn debit(&mut self, part: Amount) -> Receipt {
        let key = self.key();
        Receipt(
            self.pool
                .handle()
                .tell(|engine, _, now| engine.debit_part(key, part.quantities(), now)),
        )
    }

    /// From now on a drop, or the [expiry](BudgetPool::reserve_for), settles what is still held,
    /// instead of releasing it: for a call that the provider bills even if we stop listening.
    /// Everything else works as before. On a hold that has expired already it does nothing.
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
        self.pool.handle().tell(|engine, _, now| engine.commit_on_drop(self.key(), now));
        self
    }

    /// Asks to hold `extra` more.
    ///
    /// # Errors
    /// As [`BudgetPool::record`]: it passes those that wait. Before all,
    /// [`Expired`](BudgetError::Expired). The hold is then as it was.
    pub fn grow(&mut self, extra: Amount) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().ask(|engine, _, now| engine.grow(key, extra.quantities(), now))
    }

    /// Gives part of the hold back. Works after the deadline and on a closed pool, too. Each axis
    /// stands for itself: to shrink input and output, name them (their total then follows); to
    /// name the total alone leaves them as they are.
    ///
    /// # Errors
    /// [`Expired`](BudgetError::Expired); [`Exceeded`](BudgetError::Exceeded) if that is more than
    /// is held: the hold is then what was available, and the cap, and it is as it was.
    pub fn shrink(&mut self, by: Amount) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().tell(|engine, _, now| engine.shrink(key, by.quantities(), now))
    }

    /// Moves part of the hold into a reservation of its own, with the same label, the same
    /// [`commit_on_drop`](Reservation::commit_on_drop) and the same expiry. What has been settled
    /// stays with this one. Each axis stands for itself, as in [`shrink`](Reservation::shrink).
    ///
    /// # Errors
    /// As [`shrink`](Reservation::shrink); else as [`BudgetPool::record`], for the one in flight
    /// that the new reservation counts. Nothing has changed then.
    pub fn split(&mut self, part: Amount) -> Result<Reservation, BudgetError> {
        let key = self.key();
        let half =
            self.pool.handle().ask(|engine, _, now| engine.split(key, part.quantities(), now))?;
        Ok(Reservation::new(self.pool.clone(), half))
    }

    /// From now on the hold lives for so long, whether it could [expire](BudgetPool::reserve_for)
    /// before or not: longer, or shorter. A `ttl` too long for an [`Instant`] is for ever.
    /// Works after the deadline and on a closed pool, too: it asks for nothing more.
    ///
    /// # Errors
    /// [`Expired`](BudgetError::Expired): it is too late.
    pub fn renew(&mut self, ttl: Duration) -> Result<(), BudgetError> {
        let key = self.key();
        self.pool.handle().ask_at(|engine, _, now| engine.renew(key, ttl, now))
    }

    /// What is still held; nothing once it has expired.
    #[must_use]
    pub fn amount(&self) -> Amount {
        self.pool.handle().tell(|engine, _, now| Amount::from(engine.held(self.key(), now)))
    }

    /// The time until this hold [expires](BudgetPool::reserve_for) or the earliest deadline on the
    /// pool's path comes, zero once it has; `None` without either. Reads the clock if there is
    /// one (P8).
    #[must_use]
    pub fn time_left(&self) -> Option<Duration> {
        let handle = self.pool.handle();
        let (end, latest) = handle.enter(|engine, _| engine.end_of(self.key()));
        let left = |end: Instant| {
            let now = handle.now();
            // By the time of the pool, which never runs back.
            end.saturating_duration_since(latest.map_or(now, |latest| latest.max(now)))
        };
        end.map(left)
    }

    /// The pool that this was reserved on.
    #[must_use]
    pub fn pool(&self) -> &BudgetPool {
        &self.pool
    }
}

impl Drop for Reservation {
    #[inline]
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.pool.handle().end(key, End::Drop);
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

/// What a settlement booked.
#[derive(Debug, Clone, Copy)]
pub struct Receipt(pub(crate) Booked);

impl Receipt {
    /// What was settled by this call, on every axis that it touched.
    #[must_use]
    pub fn settled(&self) -> Amount {
        Amount::from(self.0.settled)
    }

    /// What of it did not fit: on each axis the greatest overage on the path, zero where all
    /// fitted.
    #[must_use]
    pub fn overage(&self) -> Amount {
        Amount::from(Quantities::each(self.0.settled.axes(), |axis| self.0.overage[axis]))
    }

    /// Whether the hold had [expired](BudgetPool::reserve_for) before: what was settled was not
    /// held any more.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.0.late
    }
}

/// They say the same.
impl PartialEq for Receipt {
    fn eq(&self, other: &Receipt) -> bool {
        (self.settled(), self.overage(), self.is_late())
            == (other.settled(), other.overage(), other.is_late())
    }
}

impl Eq for Receipt {}

impl Hash for Receipt {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.settled(), self.overage(), self.is_late()).hash(state);
    }
}

/// A strict commit that did not fit, or came after the hold had expired: nothing was settled, and
/// the reservation is in here, as it was.
///
/// As long as the error is kept, so is the hold, until it expires. **Dropping this error drops the
/// reservation, which releases what it holds** (or settles it, after
/// [`commit_on_drop`](Reservation::commit_on_drop)). A spend that really happened must not be lost
/// that way: take the reservation back with [`into_reservation`](CommitRefused::into_reservation)
/// and `commit` it.
#[derive(Debug, thiserror::Error)]
#[error("strict commit refused")]
#[must_use = "dropping this drops the reservation, which releases what it holds"]
pub struct CommitRefused {
    pub(crate) reservation: Reservation,
    #[source]
    pub(crate) error: BudgetError,
}

impl CommitRefused {
    /// Why: [`Exceeded`](BudgetError::Exceeded), with what did not fit, or
    /// [`Expired`](BudgetError::Expired).
    #[must_use]
    pub fn error(&self) -> &BudgetError {
        &self.error
    }

    /// The reservation, as it was before the strict commit.
    pub fn into_reservation(self) -> Reservation {
        self.reservation
    }
}
