//! A mark that the balances of a pool may reach.

use crate::types::amount::Amount;
use crate::types::axis::Axis;

/// A mark that the balances of one pool may reach, for [`BudgetPool::reached`](crate::BudgetPool::reached).
///
/// A level counts `used`, `reserved` and `overage` of the present period of the pool. With
/// [`settled`](Level::settled) it counts the true spend alone: used and overage. Overage counts
/// because it was spent, so that a level above 100 per cent tells of a pool that is over its cap.
///
/// ```
/// use budget_pool::{Amount, Axis, BudgetPool, Level, Usd};
///
/// let pool = BudgetPool::builder().tokens(1_000).build();
/// let alert = pool.reached(Level::percent(Axis::Tokens, 80));
/// let spent = pool.reached(Level::amount(Amount::new().usd(Usd::from_dollars(5))).settled());
///
/// pool.debit(Amount::new().tokens(800).usd(Usd::from_dollars(5)));
/// assert_eq!(alert.block().tokens.used, 800);
/// assert_eq!(spent.block().usd.used, Usd::from_dollars(5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[must_use = "a level is for `reached`"]
pub struct Level {
    pub(crate) mark: Mark,
    is_settled: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Mark {
    Percent(Axis, u32),
    Amount(Amount),
}

impl Level {
    /// A percentage of the cap of `axis`, which is the cap that was set, should it still
    /// [fall](crate::AxisSnapshot::falling_to). A cap that moves moves the level. An axis without a
    /// cap does not reach a percentage, until it is given a cap; [`Axis::Deadline`] is not counted,
    /// and never does. A cap of zero is reached at once.
    ///
    /// ```
    /// # use budget_pool::{Amount, Axis, BudgetPool, Level};
    /// let pool = BudgetPool::builder().tokens(100).used(Amount::new().tokens(80)).build();
    /// assert_eq!(pool.reached(Level::percent(Axis::Tokens, 80)).block().tokens.used, 80);
    /// ```
    pub const fn percent(axis: Axis, percent: u32) -> Level {
        Level { mark: Mark::Percent(axis, percent), is_settled: false }
    }

    /// This amount, on every axis that it names, whether the axis has a cap or not. An axis that is
    /// named with zero is always there, and so is an amount that names nothing.
    ///
    /// ```
    /// # use budget_pool::{Amount, BudgetPool, Level};
    /// let pool = BudgetPool::unlimited();
    /// pool.debit(Amount::new().requests(5));
    /// assert_eq!(pool.reached(Level::amount(Amount::new().requests(5))).block().requests.used, 5);
    /// ```
    pub const fn amount(amount: Amount) -> Level {
        Level { mark: Mark::Amount(amount), is_settled: false }
    }

    /// Counts the true spend, `used` and `overage`, without `reserved`.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use budget_pool::{Amount, Axis, BudgetPool, Level};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let hold = pool.reserve(Amount::new().tokens(90))?;
    /// let level = Level::percent(Axis::Tokens, 80);
    /// assert!(pool.reached(level).block_at_most(Duration::ZERO).is_some());
    /// assert!(pool.reached(level.settled()).block_at_most(Duration::ZERO).is_none());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub const fn settled(mut self) -> Level {
        self.is_settled = true;
        self
    }

    pub(crate) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Whether balances are there: `taken` is the counted figure of an axis, and `cap` its cap.
    pub(crate) fn is_reached(
        &self,
        taken: impl Fn(usize) -> u128,
        cap: impl Fn(usize) -> Option<u64>,
    ) -> bool {
        match &self.mark {
            Mark::Percent(axis, percent) if axis.is_counted() => {
                let lane = axis.lane();
                let is_there =
                    |cap: u64| taken(lane) * 100 >= u128::from(cap) * u128::from(*percent);
                cap(lane).is_some_and(is_there)
            }
            Mark::Percent(..) => false,
            Mark::Amount(amount) => {
                let marks = amount.all();
                marks.axes().all(|axis| taken(axis) >= u128::from(marks.units()[axis]))
            }
        }
    }
}
