//! The listener to the events of a tree of pools.

use std::sync::Arc;

use crate::engine::Event;
use crate::handle::Listener;
use crate::reservation::Receipt;
use crate::types::error::BudgetError;
use crate::types::snapshot::Holder;

/// An `Observer` is told the events of a tree of pools, for logs and metrics;
/// [`PoolBuilder::observer`](crate::PoolBuilder::observer) sets it at the root. Each method does
/// nothing unless it is written.
///
/// The thread whose call brought an event about calls the method without the lock, after the
/// transition, in the order in which the events came within it; the events of two threads may come
/// in any order. The sleep of a wait that ends is such a call, by the thread of its
/// [timer](crate::PoolBuilder::timer). A call on the pool from here works; a call that brings about
/// the same event again is told again, so that a `refused` that makes a call which is refused
/// recurses. An observer that panics harms nobody: the panic goes no further, and the next event is
/// told. The panic hook, which prints it, is run as ever.
///
/// An observer that keeps a handle of its own pool keeps that alive for ever: a
/// [`WeakPool`](crate::WeakPool) does not.
///
/// # What it costs
///
/// A tree without an `Observer` pays nothing. With an `Observer`, no call of the tree takes the
/// short way, and an event costs an allocation and a copy of its content.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use budget_pool::{Amount, BudgetError, BudgetPool, Observer};
///
/// #[derive(Default)]
/// struct Refusals(AtomicU64);
///
/// impl Observer for Refusals {
///     fn refused(&self, refusal: &BudgetError) {
///         println!("{}: {refusal}", refusal.kind());
///         self.0.fetch_add(1, Relaxed);
///     }
/// }
///
/// let refusals = Arc::new(Refusals::default());
/// let run = BudgetPool::builder().tokens(100).observer(Arc::clone(&refusals)).build();
/// let agent = run.child().name("agent").build();
/// assert!(agent.record(Amount::new().tokens(101)).is_err());
/// assert_eq!(refusals.0.load(Relaxed), 1);
/// ```
pub trait Observer {
    /// A call was refused: each [`BudgetError`] that a pool, a reservation, a lease, a wait or the
    /// builder of a carved pool returns, once. Not of [`peek`](crate::BudgetPool::peek), which asks
    /// for nothing, nor of [`joint`](crate::BudgetPool::joint), which is of no pool yet.
    ///
    /// A waiter that is turned away in line is told of by the thread that turns it away, at that
    /// instant, and not again when its owner is told.
    fn refused(&self, refusal: &BudgetError) {
        let _ = refusal;
    }

    /// A spend did not fit: its [overage](Receipt::overage) is not zero. `pool` is the name of the
    /// pool that was told of the spend; the exceeded cap may be that of a pool above.
    fn overage(&self, pool: &str, receipt: &Receipt) {
        let _ = (pool, receipt);
    }

    /// A spend of a hold was told after the hold had [expired](crate::Ask::ttl): the
    /// [receipt](Receipt::is_late) of a commit or a debit is late. What did not fit is told by
    /// [`overage`](Observer::overage), too, after this. `pool` is the name of the hold's pool.
    fn late(&self, pool: &str, receipt: &Receipt) {
        let _ = (pool, receipt);
    }

    /// The TTL of a hold is over. The call that reclaims the hold tells it;
    /// [`amount`](Holder::amount) is the held amount of that moment, which was released or settled
    /// as [`OnDrop`](crate::OnDrop) says.
    fn expired(&self, holder: &Holder) {
        let _ = holder;
    }

    /// A live hold ended without a word: its reservation was dropped, and neither committed nor
    /// released. Its [`amount`](Holder::amount) was released or settled as
    /// [`OnDrop`](crate::OnDrop) says.
    fn dropped(&self, holder: &Holder) {
        let _ = holder;
    }
}

/// An `Arc` is an observer, so that several trees can share one, and the program can look at it,
/// too.
impl<T: Observer + ?Sized> Observer for Arc<T> {
    fn refused(&self, refusal: &BudgetError) {
        T::refused(self, refusal);
    }

    fn overage(&self, pool: &str, receipt: &Receipt) {
        T::overage(self, pool, receipt);
    }

    fn late(&self, pool: &str, receipt: &Receipt) {
        T::late(self, pool, receipt);
    }

    fn expired(&self, holder: &Holder) {
        T::expired(self, holder);
    }

    fn dropped(&self, holder: &Holder) {
        T::dropped(self, holder);
    }
}

/// Tells the events of a tree to its observer.
pub(crate) fn listener(observer: impl Observer + Send + Sync + 'static) -> Listener {
    Arc::new(move |event| match event {
        Event::Refused(refusal) => observer.refused(&refusal),
        Event::Late(pool, booked, labels) => {
            observer.late(&pool, &Receipt::new(booked, labels));
        }
        Event::Overage(pool, booked, labels) => {
            observer.overage(&pool, &Receipt::new(booked, labels));
        }
        Event::Expired(holder) => observer.expired(&holder),
        Event::Dropped(holder) => observer.dropped(&holder),
    })
}
