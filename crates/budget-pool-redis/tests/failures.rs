//! What fails in a fleet: a process, the server, the network, the wallet. A witness outside, a file
//! that each worker adds to before its effect, says what was really spent.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use budget_pool::Axis;
use budget_pool_redis::{Admin, FleetError, Lost};
use common::{cap, caps, figures, founding, quick, spend_all, tokens, until_within};
use server::Server;

/// Until it is so, or ten seconds have passed.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl FnMut() -> F) {
    until_within(Duration::from_secs(10), what, is_so).await;
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
        let fleet = quick("acme").join(client).await.unwrap();
        let mut witness = OpenOptions::new().create(true).append(true).open(witness).unwrap();
        loop {
            if fleet.record(tokens(1)).await.is_ok() {
                witness.write_all(b".").unwrap();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

struct Worker {
    child: Child,
    witness: PathBuf,
}

impl Worker {
    fn start(server: &Server, name: &str) -> Worker {
        let witness = server.folder().join(name);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["worker", "--exact"])
            .env("WORKER_URL", server.url())
            .env("WORKER_FILE", &witness)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        Worker { child: child.unwrap(), witness }
    }

    fn spent(&self) -> u64 {
        spent(&self.witness)
    }

    fn signal(&self, signal: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spent(witness: &Path) -> u64 {
    std::fs::metadata(witness).map_or(0, |file| file.len())
}

#[tokio::test]
async fn f1_a_killed_process_leaves_its_grant_charged_and_an_operator_resolves_it() {
    let server = Server::start();
    let fleet = founding(3_000).join(server.client()).await.unwrap();
    let mut worker = Worker::start(&server, "killed");
    until("the worker spends", || async { worker.spent() > 200 }).await;
    worker.child.kill().unwrap();
    worker.child.wait().unwrap();
    let spent_by_it = worker.spent();
    let spent = spend_all(&fleet).await;
    assert!(spent + spent_by_it <= 3_000, "{spent} + {spent_by_it}");

    let admin = fleet.admin();
    let members = admin.members().await.unwrap();
    let lost = members.iter().find(|member| member.is_lost).unwrap();
    let told = lost.spent.units(Axis::Tokens);
    let in_doubt = lost.held.units(Axis::Tokens);
    assert!((told..=told + in_doubt).contains(&spent_by_it), "{told} {in_doubt} {spent_by_it}");
    assert_eq!(spent + told + in_doubt, 3_000);

    admin.resolve(&lost.id, tokens(spent_by_it)).await.unwrap();
    let rest = spend_all(&fleet).await;
    assert_eq!(spent + spent_by_it + rest, 3_000);
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (3_000, 0, 0));
}

/// It stands still for longer than its TTL, while another process takes all that is free.
async fn stopped(lost: Lost) -> (u64, u64) {
    let server = Server::start();
    let fleet = founding(3_000).lost(lost).join(server.client()).await.unwrap();
    let worker = Worker::start(&server, "stopped");
    until("the worker spends", || async { worker.spent() > 200 }).await;
    worker.signal("-STOP");
    let told = fleet.admin().members().await.unwrap();
    let me = fleet.status().member;
    let other = told.iter().find(|member| member.id != me).unwrap();
    let in_doubt = other.held.units(Axis::Tokens);
    let spent = spend_all(&fleet).await;
    worker.signal("-CONT");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let more = spend_all(&fleet).await;
    (spent + more + worker.spent(), in_doubt)
}

#[tokio::test]
async fn f1_a_process_that_stands_still_overshoots_nothing_with_charge() {
    let (spent, _) = stopped(Lost::Charge).await;
    assert!((2_990..=3_000).contains(&spent), "{spent}");
}

#[tokio::test]
async fn a_process_that_stands_still_overshoots_by_its_grant_at_most_with_return() {
    let (spent, in_doubt) = stopped(Lost::Return).await;
    assert!(spent <= 3_000 + in_doubt, "{spent} {in_doubt}");
}

#[tokio::test]
async fn a_flushed_script_is_loaded_again() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    server.command(&["SCRIPT", "FLUSH"]);
    fleet.record(tokens(400)).await.unwrap();
    server.command(&["SCRIPT", "FLUSH"]);
    fleet.settle().await.unwrap();
    assert_eq!(figures(&fleet.admin()).await.0, 400);
}

#[tokio::test]
async fn a_wallet_that_is_gone_is_not_founded_anew() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    server.command(&["FLUSHALL"]);
    let gone = fleet.settle().await.unwrap_err();
    assert!(matches!(gone, FleetError::NoWallet { .. }), "{gone:?}");
    let refused = fleet.record(tokens(900)).await.unwrap_err();
    assert!(matches!(refused, FleetError::NoWallet { .. }), "{refused:?}");
    assert!(matches!(fleet.status().failure, Some(FleetError::NoWallet { .. })));
}

/// The members of the lost wallet tell their totals to the new one.
#[tokio::test]
async fn a_process_that_joins_with_found_founds_a_lost_wallet_anew() {
    let server = Server::start();
    let fleet = founding(1_000).ttl(Duration::from_secs(60)).join(server.client()).await.unwrap();
    fleet.record(tokens(900)).await.unwrap();
    fleet.settle().await.unwrap();
    server.command(&["FLUSHALL"]);
    let plain = quick("acme").join(server.client()).await.unwrap_err();
    assert!(matches!(plain, FleetError::NoWallet { .. }), "{plain:?}");
    let next = founding(1_000).join(server.client()).await.unwrap();
    until("the spend of before is told", || async {
        let _ = fleet.settle().await;
        figures(&next.admin()).await.0 == 900
    })
    .await;
}

/// Whether an operator has raised the cap is not known then, and a wait names no error of the store.
#[tokio::test]
async fn a_call_that_would_never_fit_says_that_the_store_is_away() {
    let mut server = Server::start();
    let minute = Duration::from_secs(60);
    let terms = founding(100).ttl(minute).settle_every(minute / 3);
    let fleet = terms.join(server.client()).await.unwrap();
    fleet.record(tokens(100)).await.unwrap();
    fleet.settle().await.unwrap();
    server.kill();
    tokio::time::sleep(Duration::from_millis(300)).await;
    for refused in [fleet.record(tokens(1)).await, fleet.reserve(tokens(1)).await.map(drop)] {
        assert!(matches!(refused, Err(FleetError::Unreachable { .. })), "{refused:?}");
    }
    let refused = fleet.reserve_wait(tokens(1)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Budget(_)), "{refused:?}");
}

#[tokio::test]
async fn a_key_that_was_evicted_alone_stops_the_grants() {
    let server = Server::start();
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    server.command(&["DEL", "bp1:{acme}:m"]);
    let refused = fleet.record(tokens(1_000)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Damaged { .. }), "{refused:?}");
}

#[tokio::test]
async fn f1_a_restart_loses_nothing_and_grants_pause_for_one_ttl() {
    let mut server =
        Server::with(&["--appendonly", "yes", "--appendfsync", "always", "--save", ""]);
    let fleet = founding(1_000).join(server.client()).await.unwrap();
    fleet.record(tokens(300)).await.unwrap();
    fleet.settle().await.unwrap();
    server.kill();
    let refused = fleet.record(tokens(700)).await.unwrap_err();
    assert!(matches!(refused, FleetError::Unreachable { .. }), "{refused:?}");
    server.restart();
    until("the store learns", || async {
        matches!(fleet.record(tokens(700)).await, Err(FleetError::Learning { .. }))
    })
    .await;
    until("the store grants again", || async { fleet.record(tokens(700)).await.is_ok() }).await;
    assert!(fleet.record(tokens(1)).await.is_err());
    let admin = fleet.admin();
    fleet.leave().await.unwrap();
    assert_eq!(figures(&admin).await, (1_000, 0, 0));
}

#[tokio::test]
async fn f1_a_store_that_lost_its_last_writes_learns_them_from_its_members() {
    let mut server = Server::with(&["--appendonly", "no", "--save", ""]);
    let one = founding(1_000).join(server.client()).await.unwrap();
    let two = founding(1_000).join(server.client()).await.unwrap();
    server.command(&["SAVE"]);
    one.record(tokens(400)).await.unwrap();
    let hold = two.reserve(tokens(500)).await.unwrap();
    for fleet in [&one, &two] {
        fleet.settle().await.unwrap();
    }
    // What was granted since is lost.
    server.kill();
    server.restart();
    until("the store learns", || async {
        one.settle().await.is_ok() && two.settle().await.is_ok()
    })
    .await;
    let spent = spend_all(&one).await;
    assert!(spent <= 100, "{spent}");
    hold.commit_all();
    let rest = spend_all(&two).await;
    let admin = one.admin();
    one.leave().await.unwrap();
    two.leave().await.unwrap();
    let (used, held, _) = figures(&admin).await;
    assert_eq!((used, held), (900 + spent + rest, 0));
    assert!(used <= 1_000, "{used}");
}

/// A proxy between a process and the server, which swallows each third answer, and sends each second
/// request twice, once it has had the answer to the first.
async fn proxy(to: u16) -> u16 {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut count = 0_u32;
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
            // One connection at a time is enough: the driver has no other.
            let (mut request, mut answer) = (vec![0; 65_536], vec![0; 65_536]);
            while let Ok(length @ 1..) = near.read(&mut request).await {
                far.write_all(&request[..length]).await.unwrap();
                let Ok(answered @ 1..) = far.read(&mut answer).await else { break };
                let is_script = request[..length].windows(7).any(|word| word == b"EVALSHA");
                count += u32::from(is_script);
                if is_script && count.is_multiple_of(2) {
                    far.write_all(&request[..length]).await.unwrap();
                    let Ok(1..) = far.read(&mut vec![0; 65_536]).await else { break };
                }
                if is_script && count.is_multiple_of(3) {
                    break;
                }
                near.write_all(&answer[..answered]).await.unwrap();
            }
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_f2_lost_answers_and_repeated_requests_change_nothing() {
    let server = Server::start();
    let direct = founding(2_000).join(server.client()).await.unwrap();
    let port = proxy(server.port()).await;
    let through = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let mut joined = quick("acme").join(through.clone()).await;
    for _attempt in 0..5 {
        if joined.is_err() {
            joined = quick("acme").join(through.clone()).await;
        }
    }
    let shaky = joined.unwrap();
    let (one, two) = tokio::join!(spend_all(&direct), spend_all(&shaky));
    assert!(one > 0 && two > 0, "{one} {two}");
    let admin = direct.admin();
    assert_eq!(one + two, 2_000);
    until("all is told", || async { figures(&admin).await.0 == 2_000 }).await;
}

/// An operator calls until there is an answer, with the same key: each change is made once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_the_caps_are_made_once_whatever_answer_is_lost() {
    let server = Server::start();
    founding(1_000).join(server.client()).await.unwrap().leave().await.unwrap();
    let port = proxy(server.port()).await;
    let through = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    let (admin, mut lost) = (Admin::new("acme", through), 0);
    for turn in 0..12 {
        let (raise, lower) = (format!("raise {turn}"), format!("lower {turn}"));
        while let Err(error) = admin.raise(&raise, caps(50)).await {
            assert!(matches!(error, FleetError::Unreachable { .. }), "{error:?}");
            lost += 1;
        }
        while let Err(error) = admin.lower(&lower, caps(20)).await {
            assert!(matches!(error, FleetError::Unreachable { .. }), "{error:?}");
            lost += 1;
        }
    }
    assert!(lost > 8, "{lost}");
    assert_eq!(cap(&Admin::new("acme", server.client())).await, 1_000 + 12 * 30);
}

#[tokio::test]
async fn a_server_that_does_not_answer_or_speaks_another_language() {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        for index in 0_u32.. {
            let Ok((mut stream, _)) = listener.accept().await else { break };
            if index > 0 {
                let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
            }
            open.push(stream);
        }
    });
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).unwrap();
    for _what in ["silence", "another language"] {
        let error = quick("acme").join(client.clone()).await.unwrap_err();
        assert!(matches!(error, FleetError::Unreachable { .. }), "{error:?}");
    }
}
