//! Grants that wait for a replica, or for the disk, before they are spent.

#[path = "support/server.rs"]
mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use budget_pool::{Amount, Axis, Caps};
use budget_pool_redis::{Admin, Confirm, Fleet, FleetBuilder, FleetError};
use server::Server;

const WITHIN: Duration = Duration::from_millis(150);

fn tokens(units: u64) -> Amount {
    Amount::new().tokens(units)
}

fn founding(confirm: Confirm) -> FleetBuilder {
    let short = Duration::from_millis(50);
    let quick = Fleet::builder("acme").settle_every(short).horizon(short);
    quick.ttl(Duration::from_millis(600)).found(Caps::new().tokens(1_000)).confirm(confirm)
}

fn replicas() -> Confirm {
    Confirm::Replicas { least: 1, within: WITHIN }
}

fn aof() -> Confirm {
    Confirm::Aof { replicas: 0, within: Duration::from_secs(3) }
}

async fn figures(admin: &Admin) -> (u64, u64, u64) {
    let axis = admin.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    (axis.used.units(), axis.held.units(), axis.free.units())
}

async fn until<F: Future<Output = bool>>(what: &str, mut is_so: impl FnMut() -> F) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn replica_of(server: &Server) -> Server {
    let port = server.port().to_string();
    Server::with(&["--save", "", "--appendonly", "no", "--replicaof", "127.0.0.1", &port])
}

async fn is_in_step(server: &Server, replica: &Server) {
    until("the replica is in step", || async {
        let info: String =
            redis::from_redis_value(server.command(&["INFO", "replication"])).unwrap();
        info.contains("state=online") && replica.port() > 0
    })
    .await;
}

#[tokio::test]
async fn a_grant_that_no_replica_has_is_not_spent_and_is_asked_for_again() {
    let server = Server::start();
    let replica = replica_of(&server);
    is_in_step(&server, &replica).await;
    let fleet = founding(replicas()).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    until("it is confirmed", || async { fleet.record(tokens(100)).await.is_ok() }).await;

    replica.command(&["REPLICAOF", "NO", "ONE"]);
    until("the server has no replica", || async {
        let info: String =
            redis::from_redis_value(server.command(&["INFO", "replication"])).unwrap();
        info.contains("connected_slaves:0")
    })
    .await;
    let refused = fleet.record(tokens(500)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Unconfirmed { within: WITHIN, .. }), "{refused:?}");
    let text = "the store of the fleet `acme` has not confirmed a grant within 150ms";
    assert_eq!(refused.to_string(), text);
    assert!(matches!(fleet.status().failure, Some(FleetError::Unconfirmed { .. })));
    // The store has booked the grant, and nothing of it can be spent.
    let (_, held, _) = figures(&admin).await;
    assert!(held >= 500, "{held}");
    let local = fleet.pool().snapshot().axis(Axis::Tokens).unwrap();
    assert_eq!(local.spent.units(), 100);
    assert!(fleet.pool().record(tokens(500)).is_err());

    replica.command(&["REPLICAOF", "127.0.0.1", &server.port().to_string()]);
    until("it is confirmed", || async { fleet.record(tokens(500)).await.is_ok() }).await;
    // It was booked once, however often it was asked for.
    until("it is confirmed", || async { fleet.record(tokens(400)).await.is_ok() }).await;
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (1_000, 0, 0));
}

/// The server dies, and so does a member that had not told what it spent. Its replica has the grant.
#[tokio::test]
async fn f1_a_failover_keeps_the_grant_of_a_member_that_died() {
    let mut server = Server::start();
    let replica = replica_of(&server);
    is_in_step(&server, &replica).await;
    let fleet = founding(replicas()).settle_every(Duration::from_secs(60));
    let fleet = fleet.join(server.client()).await.unwrap();
    until("it is confirmed", || async { fleet.record(tokens(600)).await.is_ok() }).await;
    server.kill();
    // Its process is gone: the task that drives it never reaches the new server.
    replica.command(&["REPLICAOF", "NO", "ONE"]);
    let next = founding(replicas()).confirm(Confirm::None);
    let next = next.join(replica.client()).await.unwrap();
    let (_, held, _) = figures(&next.admin()).await;
    assert!(held >= 600, "{held}");
    // It learns at first, as that is another server.
    until("the rest is granted", || async { next.record(tokens(1)).await.is_ok() }).await;
    let mut spent = 601;
    while next.record(tokens(1)).await.is_ok() {
        spent += 1;
    }
    assert!(spent <= 1_000, "{spent}");
    drop(fleet);
}

/// Whether the server on the PATH has `WAITAOF`, which came with Redis and Valkey 7.2.
fn has_waitaof(server: &Server) -> bool {
    let known = server.command(&["COMMAND", "INFO", "WAITAOF"]);
    matches!(known, redis::Value::Array(all) if all[0] != redis::Value::Nil)
}

#[tokio::test]
async fn a_server_that_cannot_confirm_by_its_disk_is_refused_at_once() {
    // Without an append-only file no version can.
    let server = Server::start();
    let error = founding(aof()).join(server.client()).await.unwrap_err();
    let FleetError::CannotConfirm { wallet, error: reason, .. } = &error else {
        panic!("{error:?}")
    };
    assert_eq!(wallet, "acme");
    let text = error.to_string();
    assert!(text.starts_with("the store of the fleet `acme` cannot confirm a grant: "), "{text}");
    let is_right = if has_waitaof(&server) {
        reason.contains("appendonly")
    } else {
        reason.contains("unknown")
    };
    assert!(is_right, "{reason}");
    // No grant went out.
    let fleet = founding(Confirm::None).join(server.client()).await.unwrap();
    assert_eq!(figures(&fleet.admin()).await, (0, 0, 1_000));
}

#[tokio::test]
async fn a_grant_on_disk_outlives_the_server() {
    let arguments = ["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"];
    let mut server = Server::with(&arguments);
    if !has_waitaof(&server) {
        let error = founding(aof()).join(server.client()).await.unwrap_err();
        assert!(matches!(error, FleetError::CannotConfirm { .. }), "{error:?}");
        return;
    }
    let builder = || founding(aof()).ttl(Duration::from_secs(9));
    let fleet = builder().join(server.client()).await.unwrap();
    fleet.record(tokens(600)).await.unwrap();
    server.kill();
    server.restart();
    let (used, held, _) = figures(&fleet.admin()).await;
    assert!(used + held >= 600, "{used} {held}");
}

/// Passes everything on, and answers `WAITAOF` itself: by `is_on_disk`.
async fn proxy(to: u16, is_on_disk: Arc<AtomicBool>) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let is_on_disk = Arc::clone(&is_on_disk);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
                let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
                while let Ok(length @ 1..) = near.read(&mut request).await {
                    let words = &request[..length];
                    if words.windows(7).any(|word| word == b"WAITAOF") {
                        let local = u8::from(is_on_disk.load(Ordering::Relaxed));
                        let reply = format!("*2\r\n:{local}\r\n:0\r\n");
                        near.write_all(reply.as_bytes()).await.unwrap();
                        continue;
                    }
                    far.write_all(words).await.unwrap();
                    let Ok(answered @ 1..) = far.read(&mut answer).await else { break };
                    near.write_all(&answer[..answered]).await.unwrap();
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_that_is_not_on_disk_is_not_spent() {
    let server = Server::start();
    let is_on_disk = Arc::new(AtomicBool::new(true));
    let port = proxy(server.port(), Arc::clone(&is_on_disk)).await;
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let fleet = founding(aof()).join(client).await.unwrap();
    fleet.record(tokens(300)).await.unwrap();
    is_on_disk.store(false, Ordering::Relaxed);
    let refused = fleet.record(tokens(600)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Unconfirmed { .. }), "{refused:?}");
    assert_eq!(fleet.pool().snapshot().axis(Axis::Tokens).unwrap().spent.units(), 300);
    // A spend that the grant covers needs no confirmation, and is told all the same.
    is_on_disk.store(true, Ordering::Relaxed);
    until("it is confirmed", || async { fleet.record(tokens(600)).await.is_ok() }).await;
    fleet.record(tokens(100)).await.unwrap();
    assert!(fleet.record(tokens(1)).await.is_err());
}
