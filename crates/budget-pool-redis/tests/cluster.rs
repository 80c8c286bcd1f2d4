//! A fleet on a Redis Cluster of one node, on the loopback.

#![cfg(feature = "cluster")]

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;
#[path = "support/threads.rs"]
mod threads;

use std::time::Duration;

use budget_pool::Axis;
use budget_pool_redis::{Admin, Confirm, FleetError, blocking};
use common::{PARTS, TTL, figures, founding, key, quick, spend_all, tokens, until};
use redis::cluster::ClusterClient;
use server::Server;

async fn cluster(arguments: &[&str]) -> Server {
    let mut all = vec!["--cluster-enabled", "yes"];
    all.extend(arguments);
    let server = Server::with(&all);
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    is_up(&server).await;
    server
}

async fn is_up(server: &Server) {
    until("the cluster is up", || async {
        let info: String = redis::from_redis_value(server.command(&["CLUSTER", "INFO"])).unwrap();
        info.contains("cluster_state:ok")
    })
    .await;
}

fn client(server: &Server) -> ClusterClient {
    ClusterClient::new(vec![server.url()]).unwrap()
}

#[test]
fn threads_join_a_wallet_of_a_cluster_too() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let server = runtime.block_on(cluster(&["--save", ""]));
    let join = |terms| blocking::Fleet::join_cluster(terms, client(&server));
    let journal = server.folder().join("journal");
    threads::spend_750(founding(1_000), journal, Axis::Tokens, join);
    let admin = Admin::new_in_cluster("acme", client(&server));
    assert_eq!(runtime.block_on(figures(&admin)), (750, 0, 250));
    // A plain client, which knows one node, could confirm a grant.
    let confirm = Confirm::Replicas { least: 0, within: TTL };
    let error = join(quick("acme").confirm(confirm)).unwrap_err();
    assert!(matches!(error, FleetError::CannotConfirm { .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_processes_spend_one_wallet_of_a_cluster() {
    let server = cluster(&["--save", "", "--maxmemory-policy", "allkeys-lru"]).await;
    let one = founding(1_000).join_cluster(client(&server)).await.unwrap();
    let two = quick("acme").join_cluster(client(&server)).await.unwrap();
    assert_eq!(one.status().may_evict, Some(true));
    one.record(tokens(100)).await.unwrap();
    server.command(&["SCRIPT", "FLUSH"]);
    let (first, second) = tokio::join!(spend_all(&one), spend_all(&two));
    assert_eq!(first + second, 900);
    let admin = Admin::new_in_cluster("acme", client(&server));
    one.leave().await.unwrap();
    two.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (1_000, 0, 0));

    let slots = PARTS.map(|part| server.command(&["CLUSTER", "KEYSLOT", &key(part)]));
    assert!(slots.iter().all(|slot| *slot == slots[0]), "{slots:?}");
    let confirm = Confirm::Replicas { least: 0, within: TTL };
    let error = quick("acme").confirm(confirm).join_cluster(client(&server)).await.unwrap_err();
    assert!(matches!(error, FleetError::CannotConfirm { .. }), "{error:?}");
    until("the lost member is lost", || async { admin.remove().await.is_ok() }).await;
    let error = quick("acme").join_cluster(client(&server)).await.unwrap_err();
    assert!(matches!(error, FleetError::NoWallet { .. }), "{error:?}");
}

/// The client of a cluster connects anew by itself. The script asks its server who it is, so the
/// wallet learns all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_node_that_comes_back_learns_what_its_members_hold() {
    let mut server =
        cluster(&["--appendonly", "yes", "--appendfsync", "always", "--save", ""]).await;
    // So long that a call on a busy machine does not miss the learning.
    let terms = founding(1_000).ttl(Duration::from_secs(3));
    let fleet = terms.join_cluster(client(&server)).await.unwrap();
    let hold = fleet.reserve(tokens(300)).await.unwrap();
    fleet.settle().await.unwrap();
    server.kill();
    let error = fleet.record(tokens(700)).await.unwrap_err();
    assert!(matches!(error, FleetError::Unreachable { .. }), "{error:?}");
    server.restart();
    is_up(&server).await;
    until("the wallet learns", || async {
        matches!(fleet.record(tokens(700)).await, Err(FleetError::Learning { .. }))
    })
    .await;
    hold.commit_all();
    until("the wallet grants again", || async { fleet.record(tokens(700)).await.is_ok() }).await;
    assert!(fleet.record(tokens(1)).await.is_err());
    let admin = fleet.admin();
    tokio::time::timeout(Duration::from_secs(10), fleet.leave()).await.unwrap().unwrap();
    assert_eq!(figures(&admin).await, (1_000, 0, 0));
}
