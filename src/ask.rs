//! The terms of a reservation, beside its amount.

use std::time::Duration;

use crate::engine::Terms;
use crate::types::amount::Amount;
use crate::types::name::Name;
use crate::types::on_drop::OnDrop;

/// The terms of a reservation: an amount, its alternatives, and how the hold ends. For
/// [`reserve`](crate::BudgetPool::reserve), [`reserve_wait`](crate::BudgetPool::reserve_wait) and
/// [`reserve_blocking`](crate::BudgetPool::reserve_blocking), which take a plain [`Amount`], too.
///
/// The pool chooses in one instant: no other call takes the units between the look and the hold.
///
/// ```
/// use budget_pool::{Amount, Ask, Axis, BudgetPool, Usd};
///
/// let pool = BudgetPool::builder().tokens(100_000).usd("0.50".parse()?).build();
///
/// // As much output as there is, as long as it is enough to be of use.
/// let most = Amount::new().input_tokens(1_500).output_tokens(128_000);
/// let hold = pool.reserve(Ask::new(most).at_least(Amount::new().output_tokens(1_000)))?;
/// let max_tokens = hold.amount().units(Axis::OutputTokens);
/// assert_eq!(max_tokens, 98_500);
/// hold.release();
///
/// // The dear model if it fits, else the cheap one.
/// let dear = Amount::new().usd("0.80".parse()?);
/// let cheap = Amount::new().usd("0.05".parse()?);
/// let hold = pool.reserve(Ask::new(dear).or(cheap))?;
/// assert_eq!(hold.choice(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[must_use = "an ask does nothing unless it is reserved"]
pub struct Ask {
    pub(crate) amount: Amount,
    pub(crate) terms: Terms,
}

impl Ask {
    /// Asks for an `amount`, and nothing less.
    ///
    /// ```
    /// # use budget_pool::{Amount, Ask, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let hold = pool.reserve(Ask::new(Amount::new().tokens(60)).label("draft"))?;
    /// assert_eq!(hold.amount(), Amount::new().tokens(60));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn new(amount: Amount) -> Ask {
        Ask { amount, terms: Terms::default() }
    }

    /// The amount that is asked for first: that of [`new`](Ask::new). It makes an alternative of an
    /// ask of another function.
    ///
    /// ```
    /// use budget_pool::{Amount, Ask};
    ///
    /// let (dear, cheap) = (Ask::new(Amount::new().tokens(90)), Ask::new(Amount::new().tokens(9)));
    /// assert_eq!(dear.or(cheap.amount()).amount(), Amount::new().tokens(90));
    /// ```
    #[inline]
    #[must_use]
    pub fn amount(&self) -> Amount {
        self.amount
    }

    /// Adds another amount, for the case that none of those before fits: the first that fits is
    /// granted, and [`Reservation::choice`](crate::Reservation::choice) says which. Name the best
    /// `amount` first.
    ///
    /// A wait waits for the last, and is granted the best that fits at that instant. A refusal,
    /// too, is that of the last.
    ///
    /// ```
    /// # use budget_pool::{Amount, Ask, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let ask = Ask::new(Amount::new().tokens(500)).or(Amount::new().tokens(80));
    /// assert_eq!(pool.reserve(ask)?.choice(), 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn or(mut self, amount: Amount) -> Ask {
        self.terms.push(&self.amount, &amount);
        self
    }

    /// As much as there is, between `least` and the amount that was named last: that of
    /// [`new`](Ask::new), or of [`or`](Ask::or).
    /// [`Reservation::amount`](crate::Reservation::amount) tells the amount that was granted.
    ///
    /// An axis that `least` does not name is not cut. Where the token total is short, the output
    /// tokens are cut first, and then the input tokens. Where `least` names more than the amount,
    /// the amount is the least. A wait waits for the least, and is granted as much as there is at
    /// that instant.
    ///
    /// Where as much as there is would pass one that waits, the ask is granted the least on all axes,
    /// if that passes nobody.
    ///
    /// ```
    /// # use budget_pool::{Amount, Ask, BudgetPool};
    /// let pool = BudgetPool::builder().tokens(100).build();
    /// let ask = Ask::new(Amount::new().tokens(500)).at_least(Amount::new().tokens(20));
    /// assert_eq!(pool.reserve(ask)?.amount(), Amount::new().tokens(100));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn at_least(mut self, least: Amount) -> Ask {
        self.terms.cut_to(&self.amount, &least);
        self
    }

    /// How long the hold lives, from the moment in which it is granted. A hold that is neither
    /// settled nor dropped in time, because its task is stuck or its guard forgotten, *expires*:
    /// its units are free again, or settled, as [`OnDrop`] says. Of a wait it counts from the poll
    /// that returns the hold.
    ///
    /// Nothing runs in the background: an expired hold is reclaimed by the next call on a pool of
    /// its tree, in time for that call. Expired holds that the call does not need are reclaimed in
    /// small batches, so that no call pays for all.
    /// [`Reservation`](crate::Reservation#after-it-has-expired) has the table of what the owner of
    /// an expired hold can still do. A `ttl` too long for an [`Instant`](std::time::Instant) is
    /// none; `Duration::ZERO` has expired from the start.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, Ask, BudgetPool, ManualClock};
    ///
    /// let clock = ManualClock::new();
    /// let pool = BudgetPool::builder().tokens(1_000).clock(clock.clone()).build();
    ///
    /// let ask = Ask::new(Amount::new().tokens(1_000)).ttl(Duration::from_secs(30));
    /// std::mem::forget(pool.reserve(ask)?);
    /// assert!(pool.record(Amount::new().tokens(1)).is_err());
    /// clock.advance(Duration::from_secs(30));
    /// pool.record(Amount::new().tokens(1))?;
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn ttl(mut self, ttl: Duration) -> Ask {
        self.terms.ttl = Some(ttl);
        self
    }

    /// The label of the hold among the [`holders`](crate::BudgetPool::holders).
    ///
    /// ```
    /// # use budget_pool::{Amount, Ask, BudgetPool};
    /// let pool = BudgetPool::unlimited();
    /// let hold = pool.reserve(Ask::new(Amount::new().tokens(5)).label("draft"))?;
    /// assert_eq!(pool.holders()[0].label, Some("draft".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn label(mut self, label: impl Into<Name>) -> Ask {
        self.terms.label = Some(label.into());
        self
    }

    /// Sets the [`OnDrop`] of this hold, for a drop and an expiry, whatever the pool's own rule.
    ///
    /// ```
    /// # use budget_pool::{Amount, Ask, BudgetPool, OnDrop};
    /// let pool = BudgetPool::unlimited();
    /// drop(pool.reserve(Ask::new(Amount::new().tokens(5)).on_drop(OnDrop::Commit))?);
    /// assert_eq!(pool.snapshot().tokens.used, 5);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_drop(mut self, on_drop: OnDrop) -> Ask {
        self.terms.on_drop = Some(on_drop);
        self
    }

    /// Bounds a wait by the pool's clock: an async wait by the root's
    /// [timer](crate::PoolBuilder::timer), a blocking one by the clock alone. It counts from the
    /// first poll. [`reserve`](crate::BudgetPool::reserve), which never waits, ignores it.
    ///
    /// Where time alone cannot meet the ask by then, and no release can, the wait is refused at
    /// once, with the exact instant. Else it ends with [`Timeout`](crate::BudgetError::Timeout),
    /// which carries the refusal of that instant. A grant at the very last instant counts. A grant
    /// that came before the owner has looked is not lost: the wait returns it. An owner that looks
    /// later than that instant is answered as a plain call would be then: it is granted what has come
    /// free, or told the refusal of then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use budget_pool::{Amount, Ask, BudgetPool, Window};
    ///
    /// let minute = Window::token_bucket(Duration::from_secs(60));
    /// let rate = BudgetPool::builder().requests(2).window(minute).build();
    /// rate.record(Amount::new().requests(2))?;
    ///
    /// let ask = Ask::new(Amount::new().requests(1)).wait_at_most(Duration::from_secs(2));
    /// let refused = rate.reserve_blocking(ask).unwrap_err(); // at once
    /// assert!(refused.retry_after() > Some(Duration::from_secs(29)));
    /// # Ok::<(), budget_pool::BudgetError>(())
    /// ```
    pub fn wait_at_most(mut self, time: Duration) -> Ask {
        self.terms.wait_at_most = Some(time);
        self
    }
}

impl From<Amount> for Ask {
    #[inline(always)]
    fn from(amount: Amount) -> Ask {
        Ask { amount, terms: Terms::default() }
    }
}
