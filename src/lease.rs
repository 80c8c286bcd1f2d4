//! A worker's own share of a pool, spent from without a lock.

use std::fmt;

use crate::engine::{Booked, HoldKey};
use crate::pool::BudgetPool;
use crate::reservation::Receipt;
use crate::types::amount::Amount;
use crate::types::axis::{NOTHING, Quantities, Units};
use crate::types::error::BudgetError;

/// A worker's own share of a pool, from [`BudgetPool::lease`]. It keeps its pool alive.
///
/// What is spent from the share touches nothing that other threads touch. It is spent within what
/// the pool has reserved for it, so that P1 holds at every instant. The pool learns of it at the
/// next refill, at [`settle`](Lease::settle), or when the lease is dropped: until then its `used`
/// lags behind, and `reserved` covers what is missing.
///
/// So do other things that happen to the pool: a [`close`](BudgetPool::close) and the deadline
/// reach the lease at its next refill, which is refused; what was spent before a
/// [`reset`](BudgetPool::reset) or a [window](crate::Window)'s turn, and not yet settled, settles
/// into the new period.
///
/// | event | left of the share | spent |
/// | --- | --- | --- |
/// | drop, `?`, panic, cancelled task | goes back, once (P3) | is settled |
/// | [`std::mem::forget`] | held for ever | is never settled: it stays reserved |
/// | pool [closed](BudgetPool::close), deadline passed | can still be spent | can still be settled |
///
/// # How much can be stranded
///
/// What is left in a lease cannot be spent by others until it is dropped. On each axis:
///
/// - That is never more than its batch, which [`lease`](BudgetPool::lease) takes as a whole,
///   however low the pool is. It falls until the next refill.
/// - A refill takes, beyond what was asked, no more than fills the batch, and no more than an
///   eighth of what is free then (in the pool of the path that has least). So a share that ran
///   short is filled to an eighth of that at most. On an axis that did not run short what was left
///   stays, and is filled up likewise: name the axes of a batch in the proportion in which they are
///   spent.
/// - Of less than 8 free units a refill takes none: the last units of a pool go to whoever asks for
///   them.
/// - A refused call has counted its own share as well: of what was asked beyond that, there was
///   more than the pool had free. So what is unspent of a cap at a refusal is what is left of the
///   own share, what is free, and what other leases, reservations and carved children hold; no
///   more.
#[must_use = "a lease that is dropped goes back"]
pub struct Lease {
    pool: BudgetPool,
    key: HoldKey,
    batch: Quantities,
    /// Of the share that the pool knows of. The rest has been spent.
    left: Units,
}

impl Lease {
    pub(crate) fn new(pool: BudgetPool, key: HoldKey, batch: Amount) -> Lease {
        let batch = *batch.quantities();
        Lease { pool, key, batch, left: *batch.units() }
    }

    /// Asks and spends in one step: from the share if it covers the amount. If not, what is missing
    /// is taken from the pool, and the share is filled up to the batch again, or less where the
    /// pool runs low or others wait (P6).
    ///
    /// What is above the batch, or on an axis that the batch does not name, always comes from the
    /// pool: name in the batch every axis that is spent.
    ///
    /// # Errors
    /// As [`BudgetPool::record`], for what is beyond the share. Nothing has been spent then; what
    /// was spent before has been settled.
    #[inline]
    pub fn record(&mut self, amount: Amount) -> Result<(), BudgetError> {
        if self.take(amount.quantities().units()) { Ok(()) } else { self.record_beyond(&amount) }
    }

    /// Tells of a spend that happened. Always booked (P2): from the share, and what is beyond it
    /// from the pool.
    pub fn debit(&mut self, amount: Amount) -> Receipt {
        if self.take(amount.quantities().units()) {
            return Receipt(Booked::new(amount.quantities(), NOTHING, false));
        }
        let Lease { pool, key, left, .. } = self;
        Receipt(
            pool.handle()
                .tell(|engine, _, now| engine.debit_leased(*key, left, amount.quantities(), now)),
        )
    }

    /// Tells the pool what has been spent since it was last told. The share stays.
    pub fn settle(&mut self) {
        self.pool.handle().tell(|engine, _, now| engine.settle_lease(self.key, &self.left, now));
    }

    /// What is left of the share.
    #[must_use]
    pub fn remaining(&self) -> Amount {
        Amount::from(Quantities::each(self.batch.axes(), |axis| self.left[axis]))
    }

    /// The pool that this is a share of.
    #[must_use]
    pub fn pool(&self) -> &BudgetPool {
        &self.pool
    }

    /// Spends from the share, on all axes or on none. Without a branch on each axis: they take
    /// longer than the rest.
    #[inline]
    fn take(&mut self, units: &Units) -> bool {
        let mut is_short = false;
        let left: Units = std::array::from_fn(|axis| {
            let (left, short) = self.left[axis].overflowing_sub(units[axis]);
            is_short |= short;
            left
        });
        if !is_short {
            self.left = left;
        }
        !is_short
    }

    #[cold]
    fn record_beyond(&mut self, amount: &Amount) -> Result<(), BudgetError> {
        let Lease { pool, key, batch, left } = self;
        pool.handle()
            .ask(|engine, _, now| engine.record_leased(*key, left, amount.quantities(), batch, now))
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
