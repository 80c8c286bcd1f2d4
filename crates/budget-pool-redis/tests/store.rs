//! What a server may do to a wallet: lose power, forget, refuse, run out of memory, or belong to
//! another version. Each test has a `redis-server` of its own.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use budget_pool::{Axis, Caps};
use budget_pool_redis::{Admin, Fleet, FleetError};
use common::{PARTS, TTL, caps, figures, founding, kept, key, quick, spend_all, tokens, until};
use server::Server;

fn info(server: &Server, section: &str, field: &str) -> String {
    let info: String = redis::from_redis_value(server.command(&["INFO", section])).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.expect("the server has this field").trim().to_owned()
}

fn exists(server: &Server, part: &str) -> bool {
    server.command(&["EXISTS", &key(part)]) == redis::Value::Int(1)
}

/// The server dies, and the machine does not: the system has the writes that the server has answered.
async fn a_restart_loses_nothing(fsync: &str) {
    let mut server = Server::with(&["--appendonly", "yes", "--appendfsync", fsync, "--save", ""]);
    let gone = founding(1_000).join(server.client()).await.unwrap();
    gone.record(tokens(300)).await.unwrap();
    gone.leave().await.unwrap();
    // So long that a call on a busy machine does not miss the learning.
    let ttl = Duration::from_secs(2);
    let fleet = quick("acme").ttl(ttl).join(server.client()).await.unwrap();
    let hold = fleet.reserve(tokens(200)).await.unwrap();
    fleet.settle().await.unwrap();
    let admin = fleet.admin();
    let members = admin.members().await.unwrap();
    // A write may wait for the `fsync` of an earlier one.
    until("all is written", || async { info(&server, "persistence", "aof_buffer_length") == "0" })
        .await;
    server.kill();
    server.restart();
    let (used, held, _) = figures(&admin).await;
    assert_eq!((used, admin.members().await.unwrap().len()), (300, members.len()), "{fsync}");
    assert!(held >= 200, "{fsync}: {held}");

    let start = Instant::now();
    until("the store learns", || async {
        matches!(fleet.record(tokens(700)).await, Err(FleetError::Learning { .. }))
    })
    .await;
    hold.release();
    until("the store grants again", || async { fleet.record(tokens(700)).await.is_ok() }).await;
    assert!(start.elapsed() > ttl / 2, "{fsync}: grants do not pause");
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (1_000, 0, 0), "{fsync}");
}

#[tokio::test]
async fn f2_nothing_is_lost_with_an_append_only_file_where_only_the_process_died() {
    for fsync in ["always", "everysec"] {
        a_restart_loses_nothing(fsync).await;
    }
}

#[tokio::test]
async fn a_wallet_that_is_evicted_is_gone_and_the_status_warned_of_it() {
    let server = Server::start();
    server.command(&["CONFIG", "SET", "maxmemory", "4mb", "maxmemory-samples", "64"]);
    // It leaves the wallet alone for a while, so that the wallet is the least recently used.
    let idle = || Fleet::builder("acme").ttl(Duration::from_secs(90)).settle_every(TTL * 50);
    for (policy, may_evict) in
        [("noeviction", false), ("volatile-lru", false), ("allkeys-lru", true)]
    {
        server.command(&["CONFIG", "SET", "maxmemory-policy", policy]);
        let fleet = idle().found(Caps::new().tokens(1_000)).join(server.client()).await.unwrap();
        assert_eq!(fleet.status().may_evict, Some(may_evict), "{policy}");
    }
    let fleet = idle().join(server.client()).await.unwrap();
    fleet.record(tokens(10)).await.unwrap();
    fleet.admin().raise("key", caps(5)).await.unwrap();
    for part in PARTS.into_iter().filter(|part| exists(&server, part)) {
        let ttl = server.command(&["TTL", &key(part)]);
        assert_eq!(ttl, redis::Value::Int(-1), "a key with a TTL could be evicted by `volatile`");
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let filler = "x".repeat(10_000);
    for index in 0..5_000 {
        server.command(&["SET", &format!("filler {index}"), &filler]);
        if !exists(&server, "w") {
            break;
        }
    }
    assert!(!exists(&server, "w"), "the wallet is not evicted");
    let gone = fleet.settle().await.unwrap_err();
    assert!(matches!(gone, FleetError::NoWallet { .. }), "{gone:?}");
    let gone = fleet.record(tokens(900)).await.unwrap_err();
    assert!(matches!(gone, FleetError::NoWallet { .. }), "{gone:?}");
    assert!(!exists(&server, "w"), "a member founded it anew");
}

#[tokio::test]
async fn a_full_server_that_evicts_nothing_takes_what_is_told() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1"]);
    fleet.record(tokens(400)).await.unwrap();
    fleet.settle().await.unwrap();
    assert_eq!(figures(&fleet.admin()).await.0, 400);
}

/// A store whose user may not run one of the commands of the script changes nothing, for the script
/// is not undone half-way.
#[tokio::test]
async fn a_user_without_all_permissions_changes_nothing() {
    let server = Server::start();
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    fleet.settle().await.unwrap();
    let url = format!("redis://poor:secret@127.0.0.1:{}/", server.port());
    let poor = redis::Client::open(url).unwrap();
    let writes = ["hset", "hdel", "zadd", "zrem", "zremrangebyscore"];
    let reads = ["evalsha", "time", "hgetall", "hget", "hlen", "zcard", "zcount", "zrangebyscore"];
    for lacking in writes.into_iter().chain(reads) {
        let minus = format!("-{lacking}");
        server
            .command(&["ACL", "SETUSER", "poor", "reset", "on", ">secret", "~*", "+@all", &minus]);
        // The member that lives keeps quiet while the keys are compared.
        let before = loop {
            let before = kept(&server);
            let refused = quick("acme").join(poor.clone()).await;
            let error = refused.expect_err(lacking);
            assert!(matches!(error, FleetError::Store { .. }), "{lacking}: {error:?}");
            let refused = founding(5).join(poor.clone()).await.expect_err(lacking);
            // A user who may read sees that the wallet is another one.
            let is_refused =
                matches!(refused, FleetError::Store { .. } | FleetError::OtherFounding { .. });
            assert!(is_refused, "{lacking}: {refused:?}");
            if kept(&server) == before {
                break before;
            }
        };
        assert!(before.len() >= 3, "{before:?}");
        let other = quick("new").found(Caps::new().tokens(5)).join(poor.clone()).await;
        assert!(other.is_err(), "{lacking}");
        let gone = fleet.settle().await;
        assert!(gone.is_ok(), "{lacking} broke the wallet: {gone:?}");
    }
    assert_eq!(figures(&fleet.admin()).await.0, 100);
}

/// An operator who may write less than the script does changes nothing, either: a record that is closed
/// half-way would damage the wallet.
#[tokio::test]
async fn an_operator_without_all_permissions_changes_nothing() {
    let server = Server::start();
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    fleet.settle().await.unwrap();
    let member = fleet.status().member;
    let url = format!("redis://poor:secret@127.0.0.1:{}/", server.port());
    let poor = Admin::new("acme", redis::Client::open(url).unwrap());
    // A key that is over is removed by the next change.
    fleet.admin().lower("known", caps(5)).await.unwrap();
    server.command(&["HSET", &key("k"), "known", "1 lower 5"]);
    for lacking in ["hset", "hdel", "zadd", "zrem", "zremrangebyscore"] {
        let minus = format!("-{lacking}");
        server
            .command(&["ACL", "SETUSER", "poor", "reset", "on", ">secret", "~*", "+@all", &minus]);
        loop {
            let before = kept(&server);
            let refused = [
                poor.write_off(&member).await.expect_err(lacking),
                poor.resolve(&member, tokens(5)).await.expect_err(lacking),
                poor.set_caps(Caps::new().tokens(5)).await.expect_err(lacking),
                poor.raise("new", caps(5)).await.expect_err(lacking),
                poor.lower("known", caps(5)).await.expect_err(lacking),
            ];
            for error in refused {
                assert!(matches!(error, FleetError::Store { .. }), "{lacking}: {error:?}");
            }
            // The driver of the member may have told the store in between that it lives.
            if kept(&server) == before {
                break;
            }
        }
        fleet.settle().await.expect(lacking);
    }
    fleet.admin().lower("known", caps(5)).await.unwrap();
    let admin = fleet.admin();
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (100, 0, 890));
}

/// A member whose user loses a permission goes on where it was once it has it again.
#[tokio::test]
async fn a_permission_that_comes_and_goes_costs_no_unit() {
    let server = Server::start();
    let url = format!("redis://poor:secret@127.0.0.1:{}/", server.port());
    let poor = redis::Client::open(url).unwrap();
    let allow = |rule: &str| {
        server.command(&["ACL", "SETUSER", "poor", "on", ">secret", "~*", "+@all", rule]);
    };
    allow("+@all");
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(poor).await.unwrap();
    let (mut spent, admin) = (0, founding(1_000).join(server.client()).await.unwrap().admin());
    for lacking in ["-hset", "-hdel", "-zadd", "-zrem", "-zremrangebyscore"] {
        allow(lacking);
        until("the member is refused", || async {
            matches!(fleet.settle().await, Err(FleetError::Store { .. }))
        })
        .await;
        // The grant that it has may cover it.
        spent += if fleet.record(tokens(90)).await.is_ok() { 90 } else { 0 };
        allow("+@all");
        until("the member is let in", || async { fleet.record(tokens(90)).await.is_ok() }).await;
        spent += 90;
    }
    fleet.settle().await.unwrap();
    assert_eq!(spent + spend_all(&fleet).await, 1_000);
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (1_000, 0, 0));
}

#[tokio::test]
async fn a_key_of_another_type_or_none_changes_nothing() {
    let server = Server::start();
    let closed = founding(1_000).join(server.client()).await.unwrap();
    closed.record(tokens(10)).await.unwrap();
    closed.leave().await.unwrap();
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(server.client()).await.unwrap();
    fleet.record(tokens(90)).await.unwrap();
    fleet.settle().await.unwrap();
    for part in ["w", "m", "x", "t", "y", "s"] {
        for is_text in [true, false] {
            if part == "s" && !is_text {
                // There are claims only while someone stands short.
                continue;
            }
            let name = key(part);
            // A step of the driver in between is complete, or none.
            let aside = if part == "s" { "none" } else { "aside" };
            if part != "s" {
                server.command(&["RENAME", &name, aside]);
            }
            if is_text {
                server.command(&["SET", &name, "a text"]);
            }
            let before = kept(&server);
            let refused = [
                fleet.settle().await.expect_err(part),
                quick("acme").join(server.client()).await.expect_err(part),
                fleet.admin().set_caps(Caps::new().tokens(5)).await.expect_err(part),
                fleet.admin().write_off(&fleet.status().member).await.expect_err(part),
            ];
            for error in refused {
                let expected = match (part, is_text) {
                    (_, true) => matches!(error, FleetError::Store { .. }),
                    ("w", false) => matches!(error, FleetError::NoWallet { .. }),
                    (_, false) => matches!(error, FleetError::Damaged { .. }),
                };
                assert!(expected, "{part} {is_text}: {error:?}");
            }
            assert_eq!(kept(&server), before, "{part} {is_text}");
            server.command(&["DEL", &name]);
            if part != "s" {
                server.command(&["RENAME", aside, &name]);
            }
            fleet.settle().await.unwrap();
        }
    }
    assert_eq!(spend_all(&fleet).await, 900);
}

/// What an upgrade comes to: a wallet of another protocol is refused, and left as it is. Within a
/// protocol a version leaves alone the fields of the wallet that it does not know.
#[tokio::test]
async fn two_versions_on_one_wallet() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    fleet.settle().await.unwrap();
    server.command(&["HSET", &key("w"), "of a later version", "7"]);
    fleet.settle().await.unwrap();
    fleet.admin().raise("key", caps(5)).await.unwrap();
    fleet.admin().set_caps(Caps::new().tokens(1_001)).await.unwrap();
    let field = server.command(&["HGET", &key("w"), "of a later version"]);
    assert_eq!(field, redis::Value::BulkString(b"7".to_vec()));

    for other in ["0", "2", ""] {
        server.command(&["HSET", &key("w"), "v", other]);
        let before = kept(&server);
        let errors = [
            fleet.settle().await.unwrap_err(),
            fleet.record(tokens(800)).await.unwrap_err(),
            founding(1_000).join(server.client()).await.unwrap_err(),
            fleet.admin().snapshot().await.unwrap_err(),
            fleet.admin().write_off(&fleet.status().member).await.unwrap_err(),
            fleet.admin().raise("key", caps(5)).await.unwrap_err(),
        ];
        for error in errors {
            let FleetError::Version { found, .. } = &error else { panic!("{error:?}") };
            assert_eq!(found, other);
        }
        assert!(matches!(fleet.status().failure, Some(FleetError::Version { .. })));
        assert_eq!(kept(&server), before, "a wallet of version {other:?} was written");
    }
    server.command(&["HSET", &key("w"), "v", "1"]);
    fleet.settle().await.unwrap();
    fleet.record(tokens(900)).await.unwrap();
}

/// This very test in a process of its own: it is no test where the variable is not set.
#[test]
fn worker() {
    let (Ok(url), Ok(witness)) = (std::env::var("WORKER_URL"), std::env::var("WORKER_FILE")) else {
        return;
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(async {
        let client = redis::Client::open(url).unwrap();
        let fleet = quick("acme").ttl(Duration::from_secs(5)).join(client).await.unwrap();
        let mut witness = std::io::BufWriter::new(std::fs::File::create(witness).unwrap());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(4) {
            let before = now();
            match fleet.record(tokens(1)).await {
                Ok(()) => writeln!(witness, "{before} {}", now()).unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
        witness.flush().unwrap();
        fleet.leave().await.unwrap();
    });
}

/// The clock of the server, which runs on this machine, in microseconds.
fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros()
}

fn start_worker(server: &Server, name: &str) -> Child {
    let worker = Command::new(std::env::current_exe().unwrap())
        .args(["worker", "--exact"])
        .env("WORKER_URL", server.url())
        .env("WORKER_FILE", server.folder().join(name))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    worker.unwrap()
}

/// Four processes spend as fast as they can over several turns of the window.
#[tokio::test]
async fn f1_no_period_has_more_than_the_cap_whatever_process_spends_it() {
    const CAP: usize = 2_000;
    const PERIOD: u64 = 600;
    let server = Server::start();
    let caps = Caps::new().tokens(CAP as u64);
    let founder = quick("acme").found(caps).window(Duration::from_millis(PERIOD));
    let admin = founder.join(server.client()).await.unwrap().admin();
    let names = ["a", "b", "c", "d"];
    let mut workers = names.map(|name| start_worker(&server, name));
    for worker in &mut workers {
        assert!(worker.wait().unwrap().success());
    }
    let mut spends = Vec::new();
    for name in names {
        let text = std::fs::read_to_string(server.folder().join(name)).unwrap();
        let before = spends.len();
        spends.extend(text.lines().map(|line| {
            let (from, to) = line.split_once(' ').unwrap();
            (from.parse::<u128>().unwrap(), to.parse::<u128>().unwrap())
        }));
        assert!(spends.len() > before, "the worker {name} has spent nothing");
    }
    // The books of the members that left, over all periods.
    let told = server.command(&["HVALS", &key("t")]);
    let told: Vec<u64> = redis::from_redis_value(told).unwrap();
    assert_eq!(told.iter().sum::<u64>(), spends.len() as u64);
    assert_eq!(figures(&admin).await.1, 0);

    let end = server.command(&["HGET", &key("w"), "pend"]);
    let end: u128 = redis::from_redis_value::<u64>(end).unwrap().into();
    let period = u128::from(PERIOD) * 1_000;
    let first = spends.iter().map(|(from, _)| *from).min().unwrap();
    let (mut ends, mut whole) = (end * 1_000, Vec::new());
    while ends > first {
        // A spend at the very turn may be one of either period.
        let start = ends - period;
        whole.push(spends.iter().filter(|(from, to)| *from >= start && *to < ends).count());
        ends = start;
    }
    assert!(whole.len() >= 6, "{whole:?}");
    assert!(whole.iter().all(|spent| *spent <= CAP), "{whole:?}");
    let most = whole.iter().max().unwrap();
    assert!(*most > CAP / 2, "nothing is spent of the later periods: {whole:?}");
    assert!(whole.iter().filter(|spent| **spent > CAP / 2).count() >= 3, "{whole:?}");
}

#[tokio::test]
async fn an_axis_that_the_wallet_lacks() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    let error = fleet.admin().set_caps(Caps::new().requests(5)).await.unwrap_err();
    assert!(matches!(error, FleetError::OtherAxes { .. }), "{error:?}");
    let member = fleet.status().member;
    let spent = budget_pool::Amount::new().requests(5);
    let error = fleet.admin().resolve(&member, spent).await.unwrap_err();
    assert!(matches!(error, FleetError::OtherAxes { .. }), "{error:?}");
    let error = fleet.admin().set_caps(Caps::new().tokens(1 << 53)).await.unwrap_err();
    assert!(matches!(error, FleetError::Range { .. }), "{error:?}");
    // The pool counts no cap there, as any pool.
    fleet.record(spent).await.unwrap();
    assert_eq!(fleet.pool().snapshot().axis(Axis::Requests).unwrap().cap, None);
    assert_eq!(figures(&fleet.admin()).await.0, 0);
}
