//! Fleets on a primary that Redis Sentinel names.

use std::sync::Arc;

use redis::sentinel::SentinelClient;
use tokio::sync::Mutex;

use crate::admin::Admin;
use crate::error::FleetError;
use crate::fleet::{Fleet, FleetBuilder};
use crate::link::{Source, Store};

fn source(client: SentinelClient) -> Source {
    Store::Sentinel(Arc::new(Mutex::new(client))).into()
}

impl FleetBuilder {
    /// Joins a wallet on the primary that Sentinel names, as [`join`](FleetBuilder::join). `client`
    /// is one for primaries. Each new connection asks Sentinel for the present primary, so the fleet
    /// follows a failover, and the new primary learns for one TTL what the members hold.
    ///
    /// # Errors
    /// As [`join`](FleetBuilder::join).
    ///
    /// # Cancel safety
    /// As [`join`](FleetBuilder::join).
    pub async fn join_sentinel(self, client: SentinelClient) -> Result<Fleet, FleetError> {
        self.join_at(source(client)).await
    }
}

impl Admin {
    /// Makes the `Admin` of the wallet of this name on the primary that Sentinel names.
    /// `new_by_sentinel` does no I/O.
    #[must_use]
    pub fn new_by_sentinel(wallet: impl Into<String>, client: SentinelClient) -> Admin {
        Admin::at(wallet, source(client))
    }
}
