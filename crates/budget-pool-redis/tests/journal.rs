//! Processes that are killed, and the journals that settle what they had spent. A witness outside, a
//! file that each worker adds to once a spend is booked, says what that was.

#[path = "support/common.rs"]
mod common;
#[path = "support/server.rs"]
mod server;
#[path = "support/worker.rs"]
mod worker;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use budget_pool::{Axis, Caps};
use budget_pool_redis::{FleetBuilder, FleetError, JournalFault, Lost};
use common::{figures, tokens, until_within};
use server::Server;
use worker::{THREADS, Worker};

fn founding(cap: u64) -> FleetBuilder {
    worker::quick("acme").found(Caps::new().tokens(cap))
}

/// Until it is so, or ten seconds have passed.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl FnMut() -> F) {
    until_within(Duration::from_secs(10), what, is_so).await;
}

/// A [`Worker`] runs it.
#[test]
fn worker() {
    worker::run();
}

/// Kills a worker that spends `units` at a time, and settles it. The journal may have what the
/// threads were about to do when they died, and it has nothing less than the witness.
async fn is_settled(way: &str, units: u64) {
    let server = Server::start();
    let first = founding(1_000_000).join(server.client()).await.unwrap();
    let admin = first.admin();
    let mut worker = Worker::start(&server, "killed", way, 0);
    for round in 1..=4 {
        let before = worker.spent();
        until("the worker spends", || async { worker.spent() > before + 150 }).await;
        let witness = worker.kill();
        let held = figures(&admin).await.1;
        let start = Instant::now();
        let join = worker::quick("acme").journal(&worker.journal).join(server.client());
        let fleet = join.await.unwrap();
        let took = start.elapsed();
        let settled = fleet.settled().unwrap().clone();
        assert!(settled.is_exact && settled.member.starts_with("member-"), "{settled:?}");
        let in_flight = round * THREADS * units;
        let used = figures(&admin).await.0;
        assert!((witness..=witness + in_flight).contains(&used), "{used} {witness} {round}");
        println!("{way}: {held} were held, {used} booked, the witness has {witness}, {took:?}");
        assert!(held > 0);
        fleet.leave().await.unwrap();
        assert_eq!(figures(&admin).await, (used, 0, 1_000_000 - used));
        worker = Worker::start(&server, "killed", way, 0);
    }
    worker.kill();
    first.leave().await.unwrap();
}

#[tokio::test]
async fn a_journal_settles_what_a_killed_process_recorded() {
    is_settled("record", 1).await;
}

#[tokio::test]
async fn a_journal_settles_the_holds_of_a_killed_process() {
    is_settled("hold", 5).await;
}

#[tokio::test]
async fn a_journal_settles_what_holds_spent_beyond_what_they_held() {
    is_settled("more", 7).await;
}

#[tokio::test]
async fn a_journal_settles_holds_that_waited() {
    is_settled("wait", 3).await;
}

#[tokio::test]
async fn a_journal_settles_a_member_that_an_operator_closed_while_it_lived() {
    let server = Server::start();
    let fleet = founding(1_000_000).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    let mut worker = Worker::start(&server, "closed", "record", 0);
    until("the worker spends", || async { worker.spent() > 150 }).await;
    let me = fleet.status().member;
    let members = admin.members().await.unwrap();
    let other = members.iter().find(|member| member.id != me).unwrap();
    admin.resolve(&other.id, tokens(3)).await.unwrap();
    until("it joins anew", || async {
        admin.members().await.unwrap().iter().any(|member| member.id.ends_with("+1"))
    })
    .await;
    let before = worker.spent();
    until("it spends on", || async { worker.spent() > before + 150 }).await;
    let witness = worker.kill();
    let join = worker::quick("acme").journal(&worker.journal).join(server.client());
    let next = join.await.unwrap();
    assert!(next.settled().unwrap().member.ends_with("+1"), "{:?}", next.settled());
    next.leave().await.unwrap();
    let (used, held, _) = figures(&admin).await;
    assert!((witness..=witness + THREADS).contains(&used), "{used} {witness}");
    assert_eq!(held, 0);
}

#[tokio::test]
async fn a_journal_settles_a_member_whose_grant_was_given_away() {
    let server = Server::start();
    let fleet = founding(1_000_000).lost(Lost::Return).join(server.client()).await.unwrap();
    let admin = fleet.admin();
    let mut worker = Worker::start(&server, "away", "record", 0);
    until("the worker spends", || async { worker.spent() > 150 }).await;
    let witness = worker.kill();
    until("the store closes it", || async { admin.members().await.unwrap().len() == 1 }).await;
    assert!(figures(&admin).await.0 <= witness + THREADS);
    let join = worker::quick("acme").journal(&worker.journal).join(server.client());
    join.await.unwrap().leave().await.unwrap();
    let used = figures(&admin).await.0;
    assert!((witness..=witness + THREADS).contains(&used), "{used} {witness}");
}

#[tokio::test]
async fn a_journal_settles_a_member_that_the_store_lost() {
    let server = Server::start();
    let _fleet = founding(1_000_000).join(server.client()).await.unwrap();
    let mut worker = Worker::start(&server, "lost", "record", 0);
    until("the worker spends", || async { worker.spent() > 150 }).await;
    let witness = worker.kill();
    server.command(&["FLUSHALL"]);
    let join = founding(1_000_000).journal(&worker.journal).join(server.client());
    let fleet = join.await.unwrap();
    let used = figures(&fleet.admin()).await.0;
    assert!((witness..=witness + THREADS).contains(&used), "{used} {witness}");
}

/// A process on a runtime of its own, which ends with all its tasks and says no farewell.
fn process() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The `used` units of the wallet after a process has joined with `journal`.
fn used_by(journal: &Path, server: &Server) -> u64 {
    process().block_on(async {
        let fleet = worker::quick("acme").journal(journal).join(server.client()).await.unwrap();
        let used = figures(&fleet.admin()).await.0;
        fleet.leave().await.unwrap();
        used
    })
}

#[test]
fn a_journal_has_what_was_spent_while_the_store_hung() {
    let server = Server::start();
    let (path, copy) = (server.folder().join("journal"), server.folder().join("copy"));
    let first = process();
    // An exchange hangs for two seconds.
    let terms = founding(1_000).ttl(Duration::from_secs(10)).journal(&path);
    let fleet = first.block_on(terms.join(server.client())).unwrap();
    let hold = first.block_on(fleet.reserve(tokens(500))).unwrap();
    server.pause();
    std::thread::sleep(Duration::from_millis(300));
    hold.commit(tokens(800));
    std::thread::sleep(Duration::from_millis(500));
    std::fs::copy(&path, &copy).unwrap();
    drop((first, fleet));
    server.resume();
    assert_eq!(used_by(&copy, &server), 800);
}

#[test]
fn a_journal_has_what_holds_spent_while_their_process_leaves() {
    let server = Server::start();
    let (path, copy) = (server.folder().join("journal"), server.folder().join("copy"));
    let first = process();
    let (long, ttl) = (Duration::from_secs(3), Duration::from_secs(10));
    let terms = founding(1_000).ttl(ttl).settle_every(long).journal(&path);
    let fleet = first.block_on(terms.join(server.client())).unwrap();
    let _open = first.block_on(fleet.reserve(tokens(100))).unwrap();
    let hold = first.block_on(fleet.reserve(tokens(10))).unwrap();
    first.spawn(fleet.leave());
    std::thread::sleep(Duration::from_millis(300));
    hold.commit(tokens(400));
    std::thread::sleep(Duration::from_millis(500));
    std::fs::copy(&path, &copy).unwrap();
    drop(first);
    assert_eq!(used_by(&copy, &server), 500);
}

#[tokio::test]
async fn who_has_left_leaves_nothing_to_settle() {
    let server = Server::start();
    let path = server.folder().join("journal");
    for round in 1..=3 {
        let fleet = founding(100).journal(&path).join(server.client()).await.unwrap();
        assert_eq!(fleet.settled(), None);
        fleet.record(tokens(20)).await.unwrap();
        let admin = fleet.admin();
        fleet.leave().await.unwrap();
        assert_eq!(figures(&admin).await, (20 * round, 0, 100 - 20 * round));
    }
}

/// `Admin::remove` says so: nothing tells the journal that its wallet is another one.
#[tokio::test]
async fn a_journal_books_in_the_wallet_that_was_founded_after_a_removal() {
    let server = Server::start();
    let first = founding(1_000_000).join(server.client()).await.unwrap();
    let (admin, me) = (first.admin(), first.status().member);
    let mut worker = Worker::start(&server, "removed", "record", 0);
    until("the worker spends", || async { worker.spent() > 150 }).await;
    let witness = worker.kill();
    let members = admin.members().await.unwrap();
    let dead = members.iter().find(|member| member.id != me).unwrap();
    admin.resolve(&dead.id, tokens(witness)).await.unwrap();
    first.leave().await.unwrap();
    admin.remove().await.unwrap();
    let fleet = founding(1_000_000).join(server.client()).await.unwrap();
    assert_eq!(figures(&admin).await.0, 0);
    let join = worker::quick("acme").journal(&worker.journal).join(server.client());
    let settled = join.await.unwrap().settled().unwrap().clone();
    assert_eq!(settled.member, dead.id);
    let used = figures(&fleet.admin()).await.0;
    assert!((witness..=witness + THREADS).contains(&used), "{used} {witness}");
}

#[tokio::test]
async fn a_join_that_cannot_settle_loses_nothing() {
    let mut server = Server::start();
    let fleet = founding(1_000_000).join(server.client()).await.unwrap();
    let mut worker = Worker::start(&server, "kept", "record", 0);
    until("the worker spends", || async { worker.spent() > 150 }).await;
    let witness = worker.kill();
    let before = std::fs::read(&worker.journal).unwrap();
    server.command(&["SAVE"]);
    server.kill();
    let join = || worker::quick("acme").journal(&worker.journal).join(server.client());
    let error = join().await.unwrap_err();
    assert!(matches!(error, FleetError::Unreachable { .. }), "{error:?}");
    assert!(std::fs::read(&worker.journal).unwrap() == before);
    server.restart();
    let join = worker::quick("acme").journal(&worker.journal).join(server.client());
    let settled = join.await.unwrap().settled().unwrap().spent.units(Axis::Tokens);
    assert!((witness..=witness + THREADS).contains(&settled), "{settled} {witness}");
    drop(fleet);
}

async fn refused(server: &Server, path: &Path) -> (JournalFault, String) {
    let content = std::fs::read(path).ok();
    let error = worker::quick("acme").journal(path).join(server.client()).await.unwrap_err();
    assert!(std::fs::read(path).ok() == content, "the file was changed");
    let text = error.to_string().replace(&path.display().to_string(), "PATH");
    let FleetError::Journal { fault, .. } = error else { panic!("{error:?}") };
    (fault, text)
}

#[tokio::test]
async fn a_journal_that_is_in_use_is_refused() {
    let server = Server::start();
    let path = server.folder().join("journal");
    let fleet = founding(1_000_000).journal(&path).join(server.client()).await.unwrap();
    let (fault, text) = refused(&server, &path).await;
    assert!(matches!(fault, JournalFault::InUse { .. }), "{fault:?}");
    assert_eq!(text, "the journal PATH of the fleet `acme` is in use by another member");
    fleet.record(tokens(100)).await.unwrap();

    let worker = Worker::start(&server, "other", "record", 0);
    until("the worker spends", || async { worker.spent() > 0 }).await;
    let join = worker::quick("acme").journal(&worker.journal).join(server.client());
    let error = join.await.unwrap_err();
    assert!(
        matches!(&error, FleetError::Journal { fault: JournalFault::InUse { .. }, .. }),
        "{error:?}"
    );
    // It spends on.
    let before = worker.spent();
    until("the worker spends on", || async { worker.spent() > before }).await;
}

#[tokio::test]
async fn files_that_are_no_journal_of_this_wallet_are_refused_and_left_as_they_are() {
    let server = Server::start();
    let path = |name: &str| server.folder().join(name);
    let fleet = founding(100).journal(path("ours")).join(server.client()).await.unwrap();
    let other = worker::quick("other").found(Caps::new().tokens(10)).journal(path("other"));
    other.join(server.client()).await.unwrap().leave().await.unwrap();
    fleet.record(tokens(10)).await.unwrap();
    fleet.leave().await.unwrap();

    let (fault, text) = refused(&server, &path("other")).await;
    assert!(matches!(fault, JournalFault::OtherWallet { .. }), "{fault:?}");
    assert_eq!(text, "the journal PATH of the fleet `acme` is that of the wallet `other`");

    let ours = std::fs::read(path("ours")).unwrap();
    for length in [1, 7, 8, 12, 30, 4_095, 4_096, 5_000, 8_192, 12_287] {
        std::fs::write(path("short"), &ours[..length]).unwrap();
        let (fault, text) = refused(&server, &path("short")).await;
        assert!(matches!(fault, JournalFault::Damaged { .. }), "{length}: {fault:?}");
        assert_eq!(text, "the journal PATH of the fleet `acme` is no journal, or is damaged");
    }
    std::fs::write(path("long"), [&ours[..], b"more"].concat()).unwrap();
    assert!(matches!(refused(&server, &path("long")).await.0, JournalFault::Damaged { .. }));
    std::fs::write(path("text"), "# Notes\n".repeat(2_000)).unwrap();
    assert!(matches!(refused(&server, &path("text")).await.0, JournalFault::Damaged { .. }));

    let mut newer = ours.clone();
    newer[8] = 7;
    std::fs::write(path("newer"), newer).unwrap();
    let (fault, text) = refused(&server, &path("newer")).await;
    assert!(matches!(fault, JournalFault::Version { found: 7, .. }), "{fault:?}");
    assert_eq!(text, "the journal PATH of the fleet `acme` is of version 7, this process reads 1");

    std::fs::create_dir(path("folder")).unwrap();
    for place in [path("folder"), path("none").join("journal"), PathBuf::from("/proc/journal")] {
        let (fault, _) = refused(&server, &place).await;
        assert!(matches!(fault, JournalFault::Io { .. }), "{place:?}: {fault:?}");
    }
    let name = "n".repeat(5_000);
    let join = worker::quick("acme").member(name).journal(path("names")).join(server.client());
    let error = join.await.unwrap_err();
    let FleetError::Journal { fault: JournalFault::TooLong { .. }, .. } = error else {
        panic!("{error:?}")
    };
}

/// A disk that is full refuses a join, and not a spend later.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_full_disk_refuses_a_join() {
    let server = Server::start();
    let join = founding(100).journal("/dev/full").join(server.client());
    let error = join.await.unwrap_err();
    assert!(
        matches!(&error, FleetError::Journal { fault: JournalFault::Io { .. }, .. }),
        "{error:?}"
    );
    let fleet = founding(100).join(server.client()).await.unwrap();
    assert_eq!(figures(&fleet.admin()).await, (0, 0, 100));
}

/// An empty file, and one whose making was cut off, hold nothing to settle.
#[tokio::test]
async fn a_file_that_was_not_begun_is_begun() {
    let server = Server::start();
    for (name, length) in [("empty", 0), ("short", 100), ("no header", 12_288)] {
        let path = server.folder().join(name);
        std::fs::write(&path, vec![0; length]).unwrap();
        let fleet = founding(100).journal(&path).join(server.client()).await.unwrap();
        assert_eq!(fleet.settled(), None);
        fleet.leave().await.unwrap();
        let fleet = founding(100).journal(&path).join(server.client()).await.unwrap();
        fleet.leave().await.unwrap();
    }
}
