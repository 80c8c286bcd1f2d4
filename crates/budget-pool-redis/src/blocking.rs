//! A fleet for threads: the same member, driven by a tokio runtime of one thread of its own.

use std::fmt;

use budget_pool::{Amount, Ask, BudgetPool, Reservation};
use redis::Client;
use tokio::runtime::{Builder, Runtime};

use crate::admin::FleetSnapshot;
use crate::error::FleetError;
use crate::fleet::{FleetBuilder, Status};
use crate::settle::Settled;

/// The [`Fleet`](crate::Fleet) of a process without tokio. Threads share it by reference.
///
/// Its calls block, and panic where they are called from async code. A drop does neither. Dropped
/// without [`leave`](Fleet::leave), it says no farewell: its grant is then that of a process that
/// died. A drop writes the [journal](FleetBuilder::journal), if there is one.
///
/// ```no_run
/// use budget_pool::{Amount, Caps};
/// use budget_pool_redis::{Fleet, blocking};
///
/// let client = redis::Client::open("redis://127.0.0.1/")?;
/// let terms = Fleet::builder("acme").found(Caps::new().requests(10_000));
/// let fleet = blocking::Fleet::join(terms, client)?;
/// std::thread::scope(|scope| {
///     for _worker in 0..4 {
///         scope.spawn(|| while fleet.record(Amount::new().requests(1)).is_ok() {});
///     }
/// });
/// fleet.leave()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Fleet {
    fleet: crate::Fleet,
    /// `None` once it is dropped.
    runtime: Option<Runtime>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // The end of the runtime races with the farewell that the driver says for the last handle. To
        // wait for that end first would panic in async code.
        self.fleet.abandon();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Fleet {
    /// Joins the wallet.
    ///
    /// # Errors
    /// As [`FleetBuilder::join`], and [`Store`](FleetError::Store) if no thread can be started.
    pub fn join(builder: FleetBuilder, client: Client) -> Result<Fleet, FleetError> {
        Fleet::join_by(builder, |builder| builder.join(client))
    }

    /// Joins a wallet in a Redis Cluster.
    ///
    /// # Errors
    /// As [`FleetBuilder::join_cluster`], and [`Store`](FleetError::Store) if no thread can be
    /// started.
    #[cfg(feature = "cluster")]
    pub fn join_cluster(
        builder: FleetBuilder,
        client: redis::cluster::ClusterClient,
    ) -> Result<Fleet, FleetError> {
        Fleet::join_by(builder, |builder| builder.join_cluster(client))
    }

    /// Joins a wallet on the primary that Sentinel names.
    ///
    /// # Errors
    /// As [`FleetBuilder::join_sentinel`], and [`Store`](FleetError::Store) if no thread can be
    /// started.
    #[cfg(feature = "sentinel")]
    pub fn join_sentinel(
        builder: FleetBuilder,
        client: redis::sentinel::SentinelClient,
    ) -> Result<Fleet, FleetError> {
        Fleet::join_by(builder, |builder| builder.join_sentinel(client))
    }

    /// Joins the wallet of an EscrowMint resource.
    ///
    /// # Errors
    /// As [`FleetBuilder::join_escrowmint`], and [`Store`](FleetError::Store) if no thread can be
    /// started.
    #[cfg(feature = "escrowmint")]
    pub fn join_escrowmint(
        builder: FleetBuilder,
        axis: budget_pool::Axis,
        prefix: &str,
        client: Client,
    ) -> Result<Fleet, FleetError> {
        Fleet::join_by(builder, |builder| builder.join_escrowmint(axis, prefix, client))
    }

    fn join_by<F>(
        builder: FleetBuilder,
        join: impl FnOnce(FleetBuilder) -> F,
    ) -> Result<Fleet, FleetError>
    where
        F: Future<Output = Result<crate::Fleet, FleetError>>,
    {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.map_err(|error| builder.no_thread(&error))?;
        let fleet = runtime.block_on(join(builder))?;
        Ok(Fleet { fleet, runtime: Some(runtime) })
    }

    fn block_on<T>(&self, call: impl Future<Output = T>) -> T {
        self.runtime.as_ref().expect("only a drop takes it").block_on(call)
    }

    /// The pool of this process, as [`Fleet::pool`](crate::Fleet::pool).
    #[must_use]
    pub fn pool(&self) -> &BudgetPool {
        self.fleet.pool()
    }

    /// As [`Fleet::record`](crate::Fleet::record). It does no I/O where the grant covers `amount`.
    ///
    /// # Errors
    /// As [`Fleet::record`](crate::Fleet::record).
    pub fn record(&self, amount: Amount) -> Result<(), FleetError> {
        match self.pool().record(amount) {
            Ok(()) => self.fleet.write_spend(amount),
            Err(_) => self.block_on(self.fleet.record(amount)),
        }
    }

    /// As [`Fleet::reserve`](crate::Fleet::reserve). It calls the store only where the
    /// grant does not cover the first amount of `ask`.
    ///
    /// # Errors
    /// As [`Fleet::record`](crate::Fleet::record).
    pub fn reserve(&self, ask: impl Into<Ask>) -> Result<Reservation, FleetError> {
        let ask = ask.into();
        match self.fleet.hold_here(&ask) {
            Some(hold) => self.fleet.write_hold(hold),
            None => self.block_on(self.fleet.reserve(ask)),
        }
    }

    /// As [`Fleet::reserve_wait`](crate::Fleet::reserve_wait), by parking the thread.
    ///
    /// # Errors
    /// As [`Fleet::reserve_wait`](crate::Fleet::reserve_wait).
    pub fn reserve_wait(&self, ask: impl Into<Ask>) -> Result<Reservation, FleetError> {
        let ask = ask.into();
        match self.pool().reserve_blocking(ask.clone()) {
            Ok(hold) => self.fleet.write_hold(hold),
            Err(refusal) if self.fleet.is_outdated(&refusal) => {
                self.block_on(self.fleet.reserve_wait(ask))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// As [`Fleet::write_journal`](crate::Fleet::write_journal).
    ///
    /// # Errors
    /// As [`Fleet::write_journal`](crate::Fleet::write_journal).
    pub fn write_journal(&self) -> Result<(), FleetError> {
        self.fleet.write_journal()
    }

    /// As [`Fleet::settled`](crate::Fleet::settled).
    #[must_use]
    pub fn settled(&self) -> Option<&Settled> {
        self.fleet.settled()
    }

    /// As [`Fleet::settle`](crate::Fleet::settle).
    ///
    /// # Errors
    /// As [`Fleet::settle`](crate::Fleet::settle).
    pub fn settle(&self) -> Result<(), FleetError> {
        self.block_on(self.fleet.settle())
    }

    /// As [`Fleet::snapshot`](crate::Fleet::snapshot).
    ///
    /// # Errors
    /// As [`Fleet::snapshot`](crate::Fleet::snapshot).
    pub fn snapshot(&self) -> Result<FleetSnapshot, FleetError> {
        self.block_on(self.fleet.snapshot())
    }

    /// As [`Fleet::status`](crate::Fleet::status).
    #[must_use]
    pub fn status(&self) -> Status {
        self.fleet.status()
    }

    /// As [`Fleet::leave`](crate::Fleet::leave).
    ///
    /// # Errors
    /// As [`Fleet::leave`](crate::Fleet::leave).
    pub fn leave(self) -> Result<(), FleetError> {
        self.block_on(self.fleet.clone().leave())
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fleet.fmt(f)
    }
}
