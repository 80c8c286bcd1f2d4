//! [`Journal`], a file in which a process keeps the spend of its member, so that the spend outlives
//! a process that is killed.
//!
//! The journal holds totals and not single spends: an entry covers every spend that was booked
//! before the entry was begun. A call that has to be in the journal spends first and then calls
//! [`Journal::write`]; a `write` that began after the spend makes another one needless.
//!
//! An entry is written by one `write_at`, without `fsync`: the page cache outlives the process. It
//! does not outlive the machine, so an entry names the boot of the machine that wrote it.
//!
//! The file is a header and two slots, of a page each. An entry goes into the slot that holds the
//! older one, with a checksum. An entry that was cut off leaves the other slot, which is then exact:
//! the call that wrote the entry has not returned.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{FleetError, JournalFault};

const MAGIC: [u8; 8] = *b"bpfleetj";

/// The version of the header and of the entries.
const VERSION: u32 = 1;

const PAGE: usize = 4_096;

/// The part of a page before the text: a checksum and a length.
const HEAD: usize = 12;

/// The totals of a member, as its journal keeps them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) member: String,
    /// The axes of the wallet, in the words of the store.
    pub(crate) axes: String,
    pub(crate) lanes: Vec<Lane>,
    /// The instant of the last answer, by the clock of the store.
    pub(crate) heard: u64,
    /// Whether the store has booked it all.
    pub(crate) is_settled: bool,
}

/// The part of an [`Entry`] on an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lane {
    pub(crate) spent: u64,
    /// The holds that were open. Their owner may have spent them.
    pub(crate) reserved: u64,
}

/// The last entry of the process before, if the store does not know all of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) entry: Entry,
    /// Whether the machine has run since. An entry of an earlier boot may be older than the last
    /// spend.
    pub(crate) is_exact: bool,
}

pub(crate) struct Journal {
    wallet: String,
    path: PathBuf,
    pub(crate) boot: String,
    /// The number of the last entry that was begun, at least.
    begun: AtomicU64,
    pages: Mutex<Pages>,
}

struct Pages {
    /// `None` once the journal was ended. The lock of the file ends with it.
    file: Option<Locked>,
    /// The number of the last entry that the file covers.
    written: u64,
    /// The slot of the older entry: the next one goes there.
    older: usize,
    last: Option<Entry>,
    buffer: Vec<u8>,
}

/// A file that is locked by a process.
struct Locked {
    file: File,
    owner: u32,
}

impl Locked {
    fn by_this_process(file: File) -> Locked {
        Locked { file, owner: std::process::id() }
    }
}

impl Drop for Locked {
    /// To close the file is not enough: a process that is just being started has it open, too, and
    /// keeps the lock until then. A process that was forked from the owner has only a copy: it would
    /// unlock the file of a member that is alive.
    fn drop(&mut self) {
        if self.owner == std::process::id() {
            // A lock that cannot be given back ends with the file.
            let _ = fs4::FileExt::unlock(&self.file);
        }
    }
}

impl Journal {
    /// Opens the journal, and makes the file if there is none. A file of other content is left as
    /// it is.
    pub(crate) fn open(path: &Path, wallet: &str) -> Result<(Journal, Option<Found>), FleetError> {
        let place = Place { path, wallet };
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| place.io(&error))?;
        let locked = match fs4::FileExt::try_lock(&file) {
            Ok(()) => Locked::by_this_process(file),
            Err(fs4::TryLockError::WouldBlock) => return Err(place.fault(JournalFault::InUse {})),
            Err(fs4::TryLockError::Error(error)) => return Err(place.io(&error)),
        };
        let boot = boot();
        let last = match read(&locked.file).map_err(|error| place.io(&error))? {
            pages if pages.iter().take(PAGE).all(|byte| *byte == 0) => {
                let mut header = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
                if !page(&mut header, |text| put(text, wallet)) {
                    return Err(place.fault(JournalFault::TooLong {}));
                }
                // The slots get their blocks now, so that a full disk refuses a join and not a spend.
                // The header comes last: a file without it was never used.
                let made = write_at(&locked.file, &[0; 2 * PAGE], PAGE)
                    .and_then(|()| write_at(&locked.file, &header, 0));
                made.map_err(|error| place.io(&error))?;
                None
            }
            pages => place.parse(&pages)?,
        };
        let found = last.as_ref().filter(|last| !last.entry.is_settled).map(|last| Found {
            entry: last.entry.clone(),
            is_exact: !boot.is_empty() && last.boot == boot,
        });
        let number = last.as_ref().map_or(0, |last| last.number);
        let pages = Pages {
            file: Some(locked),
            written: number,
            older: last.as_ref().map_or(0, |last| 1 - last.slot),
            last: last.map(|last| last.entry),
            buffer: Vec::with_capacity(PAGE),
        };
        let journal = Journal {
            wallet: wallet.to_owned(),
            path: path.to_owned(),
            boot,
            begun: AtomicU64::new(number),
            pages: Mutex::new(pages),
        };
        Ok((journal, found))
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // A panic in `entry` leaves `pages` as the last write left them.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes an entry that covers all that was spent before the call. Where other threads write
    /// at the same time, one entry serves for them all.
    pub(crate) fn write(&self, entry: impl FnOnce() -> Entry) -> Result<(), FleetError> {
        // ORDERING: the caller spent under the lock of its pool, and `entry` reads under that lock. An
        // entry whose number is above `begun` has raised `begun` after this load, and read after it.
        let begun = self.begun.load(Ordering::SeqCst);
        let mut pages = self.pages();
        if pages.written > begun {
            return Ok(());
        }
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let entry = entry();
        self.put(&mut pages, number, entry)
    }

    /// As [`write`](Journal::write), but for an entry that says what the last one says.
    pub(crate) fn write_changes(&self, entry: impl FnOnce() -> Entry) -> Result<(), FleetError> {
        let mut pages = self.pages();
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let entry = entry();
        if pages.last.as_ref() == Some(&entry) {
            pages.written = number;
            return Ok(());
        }
        self.put(&mut pages, number, entry)
    }

    /// Refuses to settle `found` in a wallet of other axes.
    pub(crate) fn has_axes(&self, found: &Found, axes: &str) -> Result<(), FleetError> {
        if found.entry.axes == axes {
            return Ok(());
        }
        let place = Place { path: &self.path, wallet: &self.wallet };
        Err(place.fault(JournalFault::OtherAxes { found: found.entry.axes.clone() }))
    }

    /// Writes that the store has booked `entry`.
    pub(crate) fn settled(&self, entry: Entry) -> Result<(), FleetError> {
        let mut pages = self.pages();
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        self.put(&mut pages, number, Entry { is_settled: true, ..entry })
    }

    /// Gives the file free for another process, once the store has booked the last entry.
    pub(crate) fn end(&self) -> Result<(), FleetError> {
        let last = self.pages().last.clone();
        let ended = last.map_or(Ok(()), |last| self.settled(last));
        self.close();
        ended
    }

    /// Gives the file free for another process, which settles the last entry.
    pub(crate) fn close(&self) {
        self.pages().file = None;
    }

    #[cfg(test)]
    pub(crate) fn last(&self) -> Option<Entry> {
        self.pages().last.clone()
    }

    /// Has every write fail, as on a disk that went away.
    #[cfg(test)]
    pub(crate) fn break_it(&self) {
        self.pages().file = File::open(&self.path).ok().map(Locked::by_this_process);
    }

    /// Is from now on as it would be in a process that was forked from this one.
    #[cfg(test)]
    pub(crate) fn fork(&self) {
        self.pages().file.as_mut().expect("an open file").owner = 0;
    }

    /// What a process has of the file between its fork and its start.
    #[cfg(test)]
    pub(crate) fn inherited(&self) -> File {
        let pages = self.pages();
        let locked = pages.file.as_ref().expect("an open file");
        locked.file.try_clone().expect("a copy")
    }

    fn put(&self, pages: &mut Pages, number: u64, entry: Entry) -> Result<(), FleetError> {
        let place = Place { path: &self.path, wallet: &self.wallet };
        let Some(locked) = &pages.file else { return Ok(()) };
        let buffer = &mut pages.buffer;
        buffer.clear();
        let fits = page(buffer, |text| {
            text.extend(number.to_le_bytes());
            text.extend(entry.heard.to_le_bytes());
            text.push(u8::from(entry.is_settled));
            put(text, &self.boot);
            put(text, &entry.member);
            put(text, &entry.axes);
            for lane in &entry.lanes {
                text.extend(lane.spent.to_le_bytes());
                text.extend(lane.reserved.to_le_bytes());
            }
        });
        if !fits {
            return Err(place.fault(JournalFault::TooLong {}));
        }
        write_at(&locked.file, buffer, (1 + pages.older) * PAGE)
            .map_err(|error| place.io(&error))?;
        pages.written = number;
        pages.older = 1 - pages.older;
        pages.last = Some(entry);
        Ok(())
    }
}

/// The name of a journal, for its errors.
struct Place<'a> {
    path: &'a Path,
    wallet: &'a str,
}

/// An entry as it lies in its slot.
struct Last {
    number: u64,
    slot: usize,
    boot: String,
    entry: Entry,
}

impl Place<'_> {
    fn fault(&self, fault: JournalFault) -> FleetError {
        let (wallet, path) = (self.wallet.to_owned(), self.path.to_owned());
        FleetError::Journal { wallet, path, fault }
    }

    fn io(&self, error: &io::Error) -> FleetError {
        self.fault(JournalFault::Io { kind: error.kind(), error: error.to_string() })
    }

    /// Reads the newer entry of a file that has a header.
    fn parse(&self, pages: &[u8]) -> Result<Option<Last>, FleetError> {
        let damaged = || self.fault(JournalFault::Damaged {});
        let header = pages.strip_prefix(&MAGIC).ok_or_else(damaged)?;
        let (version, header) = header.split_first_chunk().ok_or_else(damaged)?;
        let version = u32::from_le_bytes(*version);
        if version != VERSION {
            return Err(self.fault(JournalFault::Version { found: version }));
        }
        let found = checked(header).and_then(|text| Text(text).string()).ok_or_else(damaged)?;
        if found != self.wallet {
            return Err(self.fault(JournalFault::OtherWallet { found }));
        }
        if pages.len() != 3 * PAGE {
            return Err(damaged());
        }
        let slots = pages[PAGE..].chunks_exact(PAGE).enumerate();
        let last = slots.clone().filter_map(|(slot, page)| Last::read(slot, page));
        match last.max_by_key(|last| last.number) {
            // Nothing was ever granted under a journal whose slots are empty.
            None if slots.clone().all(|(_, page)| page.iter().all(|byte| *byte == 0)) => Ok(None),
            None => Err(damaged()),
            last => Ok(last),
        }
    }
}

impl Last {
    fn read(slot: usize, page: &[u8]) -> Option<Last> {
        let mut text = Text(checked(page)?);
        let (number, heard, is_settled) = (text.number()?, text.number()?, text.byte()? == 1);
        let (boot, member, axes) = (text.string()?, text.string()?, text.string()?);
        let mut lanes = Vec::new();
        while !text.0.is_empty() {
            lanes.push(Lane { spent: text.number()?, reserved: text.number()? });
        }
        let fits = lanes.len() == axes.split_whitespace().count();
        let entry = Entry { member, axes, lanes, heard, is_settled };
        fits.then_some(Last { number, slot, boot, entry })
    }
}

/// The rest of a text that is read from its beginning.
struct Text<'a>(&'a [u8]);

impl Text<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*first)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn string(&mut self) -> Option<String> {
        let length = usize::from(u16::from_le_bytes(self.take()?));
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}

fn put(text: &mut Vec<u8>, string: &str) {
    // A longer one does not fit its page, and is refused for that.
    let length = u16::try_from(string.len()).unwrap_or(u16::MAX);
    text.extend(length.to_le_bytes());
    text.extend(string.as_bytes());
}

/// Appends a checksum, a length and the text that `fill` makes. Returns whether it all fits a page.
fn page(buffer: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
    let start = buffer.len();
    buffer.extend([0; HEAD]);
    fill(buffer);
    let length = u32::try_from(buffer.len() - start - HEAD).unwrap_or(u32::MAX);
    buffer[start + 8..start + HEAD].copy_from_slice(&length.to_le_bytes());
    let sum = checksum(&buffer[start + 8..]);
    buffer[start..start + 8].copy_from_slice(&sum.to_le_bytes());
    buffer.len() <= PAGE
}

/// The text of a page; `None` if it was cut off or changed.
fn checked(page: &[u8]) -> Option<&[u8]> {
    let (sum, rest) = page.split_first_chunk()?;
    let (length, text) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let text = text.get(..length)?;
    (checksum(&rest[..4 + length]) == u64::from_le_bytes(*sum)).then_some(text)
}

/// FNV-1a. It tells an entry that was cut off; nobody forges one.
fn checksum(bytes: &[u8]) -> u64 {
    let add = |sum: u64, byte: &u8| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, add)
}

/// The boot of this machine; empty where the system does not name it.
fn boot() -> String {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    boot.map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// All of a journal, and a little of a file that is longer.
fn read(file: &File) -> io::Result<Vec<u8>> {
    let mut pages = vec![0; 3 * PAGE + 1];
    let mut length = 0;
    while length < pages.len() {
        match read_at(file, &mut pages[length..], length) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    pages.truncate(length);
    Ok(pages)
}

#[cfg(unix)]
fn read_at(file: &File, bytes: &mut [u8], from: usize) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, bytes, offset(from))
}

#[cfg(windows)]
fn read_at(file: &File, bytes: &mut [u8], from: usize) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, bytes, offset(from))
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], to: usize) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset(to))
}

#[cfg(windows)]
fn write_at(file: &File, bytes: &[u8], to: usize) -> io::Result<()> {
    let mut written = 0;
    while written < bytes.len() {
        match std::os::windows::fs::FileExt::seek_write(
            file,
            &bytes[written..],
            offset(to + written),
        ) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn offset(at: usize) -> u64 {
    u64::try_from(at).expect("a journal is three pages long")
}
