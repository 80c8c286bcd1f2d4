//! Fleets on a Redis Cluster: all keys of a wallet lie in one slot.

use std::collections::BTreeMap;

use redis::RedisError;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo};

use crate::admin::Admin;
use crate::error::FleetError;
use crate::fleet::{Fleet, FleetBuilder};
use crate::link::Store;

impl FleetBuilder {
    /// Joins a wallet in a Redis Cluster, as [`join`](FleetBuilder::join). The client follows the
    /// slot of the wallet where a failover or a resharding moves it. The primary that the wallet
    /// moves to learns for one TTL what the members hold.
    ///
    /// # Errors
    /// As [`join`](FleetBuilder::join). A cluster can [`confirm`](FleetBuilder::confirm) no grant, so
    /// that is refused as [`CannotConfirm`](FleetError::CannotConfirm).
    ///
    /// # Cancel safety
    /// As [`join`](FleetBuilder::join).
    pub async fn join_cluster(self, client: ClusterClient) -> Result<Fleet, FleetError> {
        self.join_at(Store::Cluster(client).into()).await
    }
}

impl Admin {
    /// Makes the `Admin` of the wallet of this name in a Redis Cluster. `new_in_cluster` does no
    /// I/O.
    #[must_use]
    pub fn new_in_cluster(wallet: impl Into<String>, client: ClusterClient) -> Admin {
        Admin::at(wallet, Store::Cluster(client).into())
    }
}

/// Asks all primaries for their figures of memory: the slot of a wallet may move to any of them.
pub(crate) async fn memory(connection: &mut ClusterConnection) -> Result<Vec<String>, RedisError> {
    let mut info = redis::cmd("INFO");
    info.arg("memory");
    let primaries = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    let answers = connection.route_command(info, primaries).await?;
    let answers: BTreeMap<String, String> = redis::from_redis_value(answers)?;
    Ok(answers.into_values().collect())
}
