//! A worker's own share of a pool, spent from without a lock.

use std::fmt;

use crate::engine::{Booked, HoldKey};
use crate::pool::BudgetPool;
use crate::reservation::Receipt;
use crate::types::amount::Amount;
use crate::types::axis::{Labels, NOTHING, Quantities, Units, on_each_lane};
use crate::types::error::BudgetError;

/// A worker's own share of a pool, from [`BudgetPool::lease`]. A `Lease` keeps its pool alive.
///
/// A lease is for spending in the hot loop of a thread, and not for lending: its
/// [`record`](Lease::record) spends for good, as [`BudgetPool::record`] does. A
/// [`Reservation`](crate::Reservation) is for units that come back.
///
/// The share is empty at first, so that a worker can always start. A `record` that the share covers
/// touches nothing that other threads touch. Any other `record` asks the pool for the rest, and the
/// pool refills the share.
///
/// Choose a batch that a worker spends in about a millisecond, and no larger than the cap divided by
/// ten times the number of workers, so that all shares together hold a tenth of the cap at most.
/// Where one spend is a millisecond of work, [`BudgetPool::record`] is the call to take.
///
/// ```
/// use budget_pool::{Amount, BudgetPool};
///
/// let pool = BudgetPool::builder().requests(1_000).build();
/// let mut lease = pool.lease(Amount::new().requests(25));
///
/// // The share is empty: the pool admits the request, and fills the share.
/// lease.record(Amount::new().requests(1))?;
/// assert_eq!(lease.remaining(), Amount::new().requests(25));
///
/// // The share covers this one: the pool will learn of it later.
/// lease.record(Amount::new().requests(1))?;
/// let requests = pool.snapshot().requests;
/// assert_eq!((requests.used, requests.reserved), (1, 25));
///
/// drop(lease);
/// let requests = pool.snapshot().requests;
/// assert_eq!((requests.used, requests.reserved), (2, 0));
/// # Ok::<(), budget_pool::BudgetError>(())
/// ```
///
/// # What the pool knows
///
/// The pool has reserved the share before any of it is spent, so that P1 holds at every instant. The
/// pool learns of a spend at the next refill, at [`settle`](Lease::settle), or when the lease is
/// dropped: until then `used` lags behind, and `reserved` covers the difference.
///
/// The lease learns of its pool as late. A [`close`](BudgetPool::close) and the deadline reach it at
/// its next refill, which is refused. A spend before a [`reset`](BudgetPool::reset) or a
/// [window](crate::Window)'s turn that is settled after it counts in the new period.
///
/// | event | left of the share | spent |
/// | --- | --- | --- |
/// | drop, `?`, panic, cancelled task | goes back, once (P3) | is settled |
/// | [`std::mem::forget`] | held for ever | is never settled: it stays reserved |
/// | pool [closed](BudgetPool::close), deadline passed | can still be spent | can still be settled |
///
/// # How much can be stranded
///
/// Nobody else can spend the rest of a share until the lease is dropped. On each axis:
///
/// - A refill takes no more than the batch has room for, and no more than an eighth of
///   [`available`](crate::AxisSnapshot::available) after the `record` that caused it. Of fewer than
///   8 available units it takes none, and none while others wait for them.
/// - So a share is never more than its batch, and never more than its rest at its last refill plus
///   an eighth of `available` then. On the axis that ran short nothing was left. On another axis of
///   the batch there may be: name the axes in the proportion in which they are spent.
/// - A refused `record` has counted its own share: it asked for more beyond the share than was
///   `available`. So the unspent part of a cap at a refusal is the rest of the own share, the
///   `available` units, and the units of other leases, reservations and carved children; no more.
#[must_use = "a lease that is dropped goes back"]
pub struct Lease {
    pool: BudgetPool,
    key: HoldKey,
    batch: Quantities,
    /// The rest of the share that the pool knows of. The difference has been spent.
    left: Units,
    labels: Labels,
}

impl Lease {
    pub(crate) fn new(pool: BudgetPool, key: HoldKey, batch: Amount) -> Lease {
        Lease { pool, key, batch: *batch.quantities(), left: NOTHING, labels: batch.labels() }
    }

    /// Spends the amount: from the share if the share covers it. If not, the pool is asked for the
    /// rest, as by [`BudgetPool::record`], and then fills the share up to the batch, or [less where
    /// it runs low or others wait](Lease#how-much-can-be-stranded).
    ///
    /// The pool is asked each time for units above the batch, and for an axis that the batch does
    /// not name: name in the batch every axis that is spent.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().requests(100).build();
    /// let mut lease = pool.lease(Amount::new().requests(10));
    /// while lease.record(Amount::new().requests(1)).is_ok() {}
    /// drop(lease);
    /// assert_eq!(pool.snapshot().requests.used, 100);
    /// ```
    ///
    /// # Errors
    /// As [`BudgetPool::record`], for the units beyond the share. Nothing of the amount is spent
    /// then, and the share is as it was; the spends before have been settled.
    ///
    /// [`Queued`](BudgetError::Queued) does not mean that the units are gone: a call waits in the
    /// pool, for an axis of this amount or another. A worker that stops at any refusal, as above,
    /// wants a pool in which no call waits.
    #[inline]
    pub fn record(&mut self, amount: Amount) -> Result<(), BudgetError> {
        let amount = amount.quantities();
        if self.take(amount.units()) { Ok(()) } else { self.record_beyond(*amount) }
    }

    /// Books a spend that happened (P2): from the share, and the rest from the pool. A `debit`
    /// refills nothing.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().requests(1).build();
    /// let mut lease = pool.lease(Amount::new().requests(10));
    /// let receipt = lease.debit(Amount::new().requests(3)); // it happened
    /// assert_eq!(receipt.overage(), Amount::new().requests(2));
    /// ```
    pub fn debit(&mut self, amount: Amount) -> Receipt {
        if self.take(amount.quantities().units()) {
            let booked = Booked::new(amount.quantities(), NOTHING, false);
            return Receipt::new(booked, amount.labels());
        }
        let Lease { pool, key, left, .. } = self;
        let booked = pool
            .handle()
            .tell(|engine, _, now| engine.debit_leased(*key, left, amount.quantities(), now));
        Receipt::new(booked, amount.labels())
    }

    /// Tells the pool the spend since it was last told. The rest of the share stays.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool};
    /// let pool = BudgetPool::builder().requests(100).build();
    /// let mut lease = pool.lease(Amount::new().requests(10));
    /// lease.record(Amount::new().requests(1))?;
    /// lease.record(Amount::new().requests(1))?; // from the share
    /// lease.settle();
    /// assert_eq!(pool.snapshot().requests.used, 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn settle(&mut self) {
        self.pool.handle().tell(|engine, _, now| engine.settle_lease(self.key, &self.left, now));
    }

    /// The rest of the share, on each axis of the batch: zero before the first
    /// [`record`](Lease::record).
    #[must_use]
    pub fn remaining(&self) -> Amount {
        let left = Quantities::each(self.batch.axes(), |axis| self.left[axis]);
        Amount::reported(left, self.labels)
    }

    /// The [`BudgetPool`] of this share.
    #[must_use]
    pub fn pool(&self) -> &BudgetPool {
        &self.pool
    }

    /// Spends from the share, on all axes or on none. It has no branch on each axis: branches take
    /// longer than the rest.
    #[inline]
    fn take(&mut self, units: &Units) -> bool {
        let mut is_short = false;
        let left = on_each_lane(|axis| {
            let (left, short) = self.left[axis].overflowing_sub(units[axis]);
            is_short |= short;
            left
        });
        if !is_short {
            self.left = left;
        }
        !is_short
    }

    /// By value, so that an amount that the share covers need not lie in memory.
    #[cold]
    fn record_beyond(&mut self, amount: Quantities) -> Result<(), BudgetError> {
        let Lease { pool, key, batch, left, .. } = self;
        pool.handle().ask(|engine, _, now| engine.record_leased(*key, left, &amount, batch, now))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.handle().tell(|engine, _, now| engine.end_lease(self.key, &self.left, now));
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("pool", &self.pool.name())
            .field("remaining", &self.remaining())
            .finish()
    }
}
