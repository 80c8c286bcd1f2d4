//! A fleet on the primary that Redis Sentinel names: one Sentinel, a primary and a replica on the
//! loopback, and a failover.

#![cfg(feature = "sentinel")]

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;
#[path = "support/threads.rs"]
mod threads;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use budget_pool::Axis;
use budget_pool_redis::{Admin, FleetError, blocking};
use common::{figures, founding, quick, tokens, until};
use redis::sentinel::{SentinelClient, SentinelServerType};
use server::Server;

struct Sentinel {
    child: Child,
    port: u16,
}

impl Sentinel {
    /// Its file lies in the folder of the primary that it watches.
    async fn of(primary: &Server) -> Sentinel {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let file = primary.folder().join("sentinel.conf");
        let watched = primary.port();
        let lines = format!(
            "port {port}\nbind 127.0.0.1\nprotected-mode no\nsentinel monitor acme 127.0.0.1 \
             {watched} 1\nsentinel down-after-milliseconds acme 500\nsentinel failover-timeout acme \
             3000\n"
        );
        std::fs::write(&file, lines).unwrap();
        let child = Command::new(server::program())
            .arg(&file)
            .arg("--sentinel")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let id = child.id();
        let sentinel = Sentinel { child, port };
        until("the Sentinel runs", || async { server::process_at(port) == Some(id) }).await;
        sentinel
    }

    fn client(&self) -> SentinelClient {
        client(self.port)
    }

    fn says(&self, words: &[&str]) -> String {
        let client = redis::Client::open(format!("redis://127.0.0.1:{}/", self.port)).unwrap();
        let mut connection = client.get_connection().unwrap();
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        format!("{:?}", command.query::<redis::Value>(&mut connection))
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client(port: u16) -> SentinelClient {
    let url = format!("redis://127.0.0.1:{port}/");
    SentinelClient::build(vec![url], "acme".to_owned(), None, SentinelServerType::Master).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_fleet_follows_the_failover_and_the_new_primary_learns() {
    let mut primary = Server::start();
    let replica = Server::with(&["--save", "", "--replica-priority", "1"]);
    replica.command(&["REPLICAOF", "127.0.0.1", &primary.port().to_string()]);
    let sentinel = Sentinel::of(&primary).await;
    until("the Sentinel knows the replica", || async {
        sentinel.says(&["SENTINEL", "REPLICAS", "acme"]).contains(&replica.port().to_string())
    })
    .await;
    // So long that a call on a busy machine does not miss the learning.
    let terms = founding(1_760).ttl(Duration::from_secs(3));
    let fleet = terms.join_sentinel(sentinel.client()).await.unwrap();
    let (port, journal) = (sentinel.port, primary.folder().join("journal"));
    let threads = tokio::task::spawn_blocking(move || {
        let join = |terms| blocking::Fleet::join_sentinel(terms, client(port));
        threads::spend_750(quick("acme"), journal, Axis::Tokens, join);
        join(quick("acme")).unwrap()
    });
    let threads = threads.await.unwrap();
    let hold = fleet.reserve(tokens(300)).await.unwrap();
    fleet.settle().await.unwrap();
    until("the replica has it", || async {
        let synced: i64 = redis::from_redis_value(primary.command(&["WAIT", "1", "100"])).unwrap();
        synced == 1
    })
    .await;
    primary.kill();
    let learns =
        || async { matches!(fleet.record(tokens(700)).await, Err(FleetError::Learning { .. })) };
    until("the new primary learns", learns).await;
    hold.commit_all();
    until("the new primary grants", || async { fleet.record(tokens(700)).await.is_ok() }).await;
    let spend = move || {
        let end = Instant::now() + Duration::from_secs(15);
        while let Err(error) = threads.record(tokens(10)) {
            assert!(Instant::now() < end, "threads do not follow: {error:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        threads.leave()
    };
    tokio::task::spawn_blocking(spend).await.unwrap().unwrap();
    assert!(fleet.record(tokens(1)).await.is_err());
    let admin = Admin::new_by_sentinel("acme", sentinel.client());
    tokio::time::timeout(Duration::from_secs(10), fleet.leave()).await.unwrap().unwrap();
    // A Sentinel names no primary for a moment, now and then, while it reconfigures.
    until("the Sentinel names it", || async { admin.snapshot().await.is_ok() }).await;
    assert_eq!(figures(&admin).await, (1_760, 0, 0));
}
