//! The journal by its parts: entries that were cut off, another boot, a file that cannot be written.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use budget_pool::{Amount, Axis, Caps};

use super::server::Server;
use crate::error::{FleetError, JournalFault};
use crate::fleet::Fleet;
use crate::journal::{Entry, Journal, Lane};
use crate::protocol::{Lost, Op, REMEMBERED, Request, State, Told};
use crate::rules::Wallet;
use crate::settle::remembers_all_since;

struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("budget-pool-journal-{}-{count}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("journal")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn entry(spent: u64) -> Entry {
    let lanes = vec![Lane { spent, reserved: 3 }, Lane { spent: 2 * spent, reserved: 0 }];
    Entry {
        member: "member-1".to_owned(),
        axes: "tokens usd".to_owned(),
        lanes,
        heard: 17,
        is_settled: false,
    }
}

/// The entry that a process finds, which comes after those that wrote `path`.
fn found(path: &Path) -> Result<Option<Entry>, FleetError> {
    Journal::open(path, "acme").map(|(_, found)| found.map(|found| found.entry))
}

#[test]
fn the_last_entry_is_found() {
    let folder = Folder::new();
    for spent in 1..=5 {
        let (journal, found) = Journal::open(&folder.path(), "acme").unwrap();
        assert_eq!(found.map(|found| found.entry), (spent > 1).then(|| entry(spent - 1)));
        for each in 0..=spent {
            journal.write(|| entry(each)).unwrap();
        }
    }
    let (journal, found) = Journal::open(&folder.path(), "acme").unwrap();
    assert_eq!(found.unwrap().is_exact, cfg!(target_os = "linux"));
    journal.settled(entry(5)).unwrap();
    drop(journal);
    assert_eq!(self::found(&folder.path()).unwrap(), None);
}

/// A write that was cut off at any byte leaves the entry before it: its call has not returned.
#[test]
fn an_entry_that_was_cut_off_leaves_the_one_before() {
    let folder = Folder::new();
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    journal.write(|| entry(1)).unwrap();
    journal.write(|| entry(2)).unwrap();
    let before = std::fs::read(folder.path()).unwrap();
    journal.write(|| entry(3)).unwrap();
    drop(journal);
    let after = std::fs::read(folder.path()).unwrap();
    let changed: Vec<usize> = (0..after.len()).filter(|&at| before[at] != after[at]).collect();
    let (first, last) = (changed[0], changed[changed.len() - 1]);
    assert!(first >= 4_096 && last < 8_192, "{first} {last}");
    for cut in first..=last {
        let torn = [&after[..cut], &before[cut..]].concat();
        std::fs::write(folder.path(), torn).unwrap();
        assert_eq!(found(&folder.path()).unwrap(), Some(entry(2)), "{cut}");
    }
    std::fs::write(folder.path(), &after).unwrap();
    assert_eq!(found(&folder.path()).unwrap(), Some(entry(3)));
    // The next entry goes over the one that was cut off.
    std::fs::write(folder.path(), [&after[..last], &before[last..]].concat()).unwrap();
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    journal.write(|| entry(4)).unwrap();
    let torn = std::fs::read(folder.path()).unwrap();
    assert!(torn[8_192..] == after[8_192..], "the good slot is left");
    drop(journal);
    assert_eq!(found(&folder.path()).unwrap(), Some(entry(4)));
}

#[test]
fn two_slots_that_are_damaged_are_no_empty_journal() {
    let folder = Folder::new();
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    journal.write(|| entry(1)).unwrap();
    drop(journal);
    let mut pages = std::fs::read(folder.path()).unwrap();
    pages[4_096 + 30] ^= 1;
    std::fs::write(folder.path(), pages).unwrap();
    let error = found(&folder.path()).unwrap_err();
    assert!(
        matches!(error, FleetError::Journal { fault: JournalFault::Damaged { .. }, .. }),
        "{error:?}"
    );
}

/// Threads that write at once share entries, and none returns before its own is covered.
#[test]
fn an_entry_covers_all_that_was_spent_before_its_call() {
    let folder = Folder::new();
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    let (spent, entries) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _thread in 0..4 {
            scope.spawn(|| {
                for _spend in 0..500 {
                    let mine = spent.fetch_add(1, Ordering::SeqCst) + 1;
                    let write = || {
                        entries.fetch_add(1, Ordering::SeqCst);
                        entry(spent.load(Ordering::SeqCst))
                    };
                    journal.write(write).unwrap();
                    assert!(journal.last().unwrap().lanes[0].spent >= mine);
                }
            });
        }
    });
    assert!(entries.into_inner() <= 2_000);
    drop(journal);
    assert_eq!(found(&folder.path()).unwrap(), Some(entry(2_000)));
}

fn builder(wallet: &str, path: &Path) -> crate::FleetBuilder {
    let short = Duration::from_millis(50);
    let caps = Caps::new().tokens(1_000);
    Fleet::builder(wallet).found(caps).settle_every(short).horizon(short).journal(path)
}

/// The entry of a member that died, as if a process had written it.
fn leave_behind(path: &Path, boot: Option<&str>, member: &str, heard: u64) {
    let (mut journal, _) = Journal::open(path, "acme").unwrap();
    if let Some(boot) = boot {
        boot.clone_into(&mut journal.boot);
    }
    let lanes = vec![Lane { spent: 40, reserved: 2 }];
    let (member, axes) = (member.to_owned(), "tokens".to_owned());
    journal.write(|| Entry { member, axes, lanes, heard, is_settled: false }).unwrap();
}

async fn books(fleet: &Fleet) -> (u64, u64) {
    let axis = fleet.snapshot().await.unwrap().axis(Axis::Tokens).unwrap();
    (axis.used.units(), axis.held.units())
}

#[tokio::test]
async fn after_another_boot_the_spend_is_booked_and_the_rest_stays_charged() {
    let (server, folder) = (Server::start(), Folder::new());
    let dead = builder("acme", &folder.0.join("dead")).join(server.client()).await.unwrap();
    let _hold = dead.reserve(Amount::new().tokens(100)).await.unwrap();
    leave_behind(&folder.path(), Some("another"), &dead.status().member, u64::MAX);
    let fleet = builder("acme", &folder.path()).join(server.client()).await.unwrap();
    let settled = fleet.settled().unwrap();
    let spent = (settled.spent.units(Axis::Tokens), settled.held.units(Axis::Tokens));
    assert_eq!((spent, settled.is_exact), ((42, 2), false));
    let (used, held) = books(&fleet).await;
    assert!(used == 42 && held >= 58, "{used} {held}");
    let members = fleet.admin().members().await.unwrap();
    assert!(members.iter().any(|member| member.id == settled.member));
}

/// The store remembers for a day whom it closed. A journal that is older than that, of a member that
/// the store does not know, was settled by an operator.
#[tokio::test]
async fn a_member_that_was_closed_long_ago_is_not_booked_again() {
    let (server, folder) = (Server::start(), Folder::new());
    let first = builder("acme", &folder.0.join("first")).join(server.client()).await.unwrap();
    let clock: (u64, u64) =
        redis::cmd("TIME").query(&mut server.client().get_connection().unwrap()).unwrap();
    let now = clock.0 * 1_000;
    let day = 24 * 60 * 60 * 1_000;
    for (member, heard, used) in
        [("old", now - day - 5_000, 0), ("fresh", now - day + 60_000, 42), ("new", now, 84)]
    {
        let path = folder.0.join(member);
        leave_behind(&path, None, member, heard);
        let fleet = builder("acme", &path).join(server.client()).await.unwrap();
        assert_eq!(fleet.settled().unwrap().member, member);
        assert_eq!(books(&first).await.0, used, "{member}");
        fleet.leave().await.unwrap();
    }
    // Twice is once.
    let path = folder.0.join("again");
    leave_behind(&path, None, "new", now);
    builder("acme", &path).join(server.client()).await.unwrap();
    assert_eq!(books(&first).await.0, 84);
}

#[test]
fn a_member_that_was_closed_is_known_for_as_long_as_its_journal_goes_by_it() {
    let heard = 1_000;
    let request = |op| Request {
        op,
        member: "dead".to_owned(),
        ttl: 1,
        claim: 1,
        run: "a".to_owned(),
        told: vec![Told { spent: 40, ..Told::default() }],
    };
    let mut wallet = Wallet::found(&[100], Lost::Charge, 0, "a", heard);
    wallet.exchange(heard, &request(Op::Farewell)).unwrap();
    for now in [heard, heard + REMEMBERED - 1, heard + REMEMBERED, heard + REMEMBERED + 1] {
        let answer = wallet.clone().exchange(now, &request(Op::Settle));
        let is_known = answer.is_ok_and(|answer| answer.state == State::Gone);
        assert_eq!(remembers_all_since(heard, now), is_known, "{now}");
    }
}

#[tokio::test]
async fn a_journal_of_other_axes_is_refused() {
    let (server, folder) = (Server::start(), Folder::new());
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    journal.write(|| entry(40)).unwrap();
    drop(journal);
    let error = builder("acme", &folder.path()).join(server.client()).await.unwrap_err();
    let text = error.to_string();
    assert!(text.ends_with("of the fleet `acme` holds spend on the axes `tokens usd`"), "{text}");
    assert_eq!(found(&folder.path()).unwrap(), Some(entry(40)));
}

#[tokio::test]
async fn what_cannot_be_written_down_is_not_spent() {
    let (server, folder) = (Server::start(), Folder::new());
    let fleet = builder("acme", &folder.path()).join(server.client()).await.unwrap();
    fleet.record(Amount::new().tokens(10)).await.unwrap();
    fleet.journal().unwrap().break_it();
    let error = fleet.record(Amount::new().tokens(1)).await.unwrap_err();
    assert!(
        matches!(error, FleetError::Journal { fault: JournalFault::Io { .. }, .. }),
        "{error:?}"
    );
    let error = fleet.reserve(Amount::new().tokens(1)).await.unwrap_err();
    assert!(matches!(error, FleetError::Journal { .. }), "{error:?}");
    let error = fleet.settle().await.unwrap_err();
    assert!(matches!(error, FleetError::Journal { .. }), "{error:?}");
    assert!(matches!(fleet.status().failure, Some(FleetError::Journal { .. })));
    let tokens = fleet.pool().snapshot().axis(Axis::Tokens).unwrap();
    assert_eq!((tokens.spent.units(), tokens.reserved.units()), (10, 0));
}

/// A process that is started while the journal is open has a copy of the file for an instant.
#[test]
fn who_has_ended_leaves_no_lock_to_a_process_that_is_being_started() {
    let folder = Folder::new();
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    let inherited = journal.inherited();
    journal.end().unwrap();
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    drop(inherited);
    let inherited = journal.inherited();
    drop(journal);
    let (journal, _) = Journal::open(&folder.path(), "acme").unwrap();
    drop(inherited);
    assert!(Journal::open(&folder.path(), "acme").is_err(), "it is in use");
    drop(journal);
}

#[test]
fn who_was_forked_leaves_the_lock_to_its_owner() {
    let folder = Folder::new();
    let (copy, _) = Journal::open(&folder.path(), "acme").unwrap();
    let of_the_owner = copy.inherited();
    copy.fork();
    drop(copy);
    assert!(Journal::open(&folder.path(), "acme").is_err(), "it is in use");
    drop(of_the_owner);
    Journal::open(&folder.path(), "acme").unwrap();
}
