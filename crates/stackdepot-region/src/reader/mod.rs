//! Opening a region file for reading: safe code that takes every byte as hostile.
//!
//! Key types: [`RegionFile`] (an open, checked file), [`Info`] (what it is about) and
//! [`Snapshot`] (a copy of its contents at about one moment). Bytes come by
//! `pread` in bounded pieces (`source`), never by a mapping: a file that shrinks under its reader
//! is an error, not a SIGBUS. What is copied is bounded by the file's real size.
#![forbid(unsafe_code)]

mod caches;
pub(crate) mod header;
mod live;
pub mod locate;
mod slots;
pub mod snapshot;
mod source;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::clock::ClockScale;
use crate::counters::CounterValues;
use crate::death::DeathReport;
use crate::error::{ReadError, ReadErrorKind};
use crate::format::{
    COUNTERS_OFFSET, DEATH_OFFSET, HEADER_BYTES, LEDGER_OFFSET, PAGE_BYTES, RunState, SectionName,
};
use crate::ledger::LedgerCounts;
use crate::poisson::ByteSampling;
use crate::process::{Liveness, ProcessId, boot_digest, namespace_digest};
use header::HeaderView;
use snapshot::Snapshot;
use source::Source;

/// A region file, open and with a header that makes sense.
#[derive(Debug)]
pub struct RegionFile {
    source: Source,
    header: HeaderView,
}

/// What a file is about.
#[derive(Clone, Debug)]
pub struct Info {
    /// The size of the file.
    pub file_bytes: u64,
    /// The bytes that the whole run may take; 0 unknown.
    pub run_bytes: u64,
    /// Whether it belongs to a later process of a run.
    pub is_child: bool,
    /// The process.
    pub pid: u32,
    /// Its parent.
    pub parent_pid: u32,
    /// Its executable.
    pub executable: Vec<u8>,
    /// Its command line.
    pub command: Vec<Vec<u8>>,
    /// What the writer last said.
    pub state: RunState,
    /// The signal that ended the process, where its handler could note it; `None` while it runs.
    pub death: Option<DeathReport>,
    /// Whether the process is still there, so that the file goes on changing.
    pub is_running: bool,
    /// When recording began, in seconds since 1970.
    pub started_unix_seconds: f64,
    /// The time stamp counter now for a running process, else at the newest moment that is known.
    pub last_tsc: u64,
    /// Which blocks were recorded.
    pub sampling: ByteSampling,
    /// Turns time stamps into seconds; `None` when nothing tells how fast the counter ran.
    pub clock: Option<ClockScale>,
}

impl Info {
    /// How long before now (before the end, for an ended process) a time stamp was, in seconds.
    pub fn seconds_ago(&self, tsc: u64) -> Option<f64> {
        Some(self.clock?.seconds_between(tsc, self.last_tsc))
    }

    /// Something happened at `tsc`: a process that was killed noted no end, so that its newest event
    /// is what is known of it.
    fn note(&mut self, tsc: u64) {
        if !self.is_running {
            self.last_tsc = self.last_tsc.max(tsc);
        }
    }
}

impl RegionFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// Everything that [`ReadErrorKind`] names; never blocks, also on pipes.
    pub fn open(path: &Path) -> Result<RegionFile, ReadError> {
        let fail = |kind| ReadError {
            path: path.to_path_buf(),
            kind,
        };
        let file = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY)
            .open(path)
            .map_err(|error| fail(ReadErrorKind::Open(error)))?;
        let found_bytes = check_kind(&file).map_err(fail)?;
        let source = Source::new(file, path.to_path_buf());
        let page = source.read(0, found_bytes.min(HEADER_BYTES as u64))?;
        let header = HeaderView::parse(&page, found_bytes).map_err(fail)?;
        Ok(RegionFile { source, header })
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        self.source.path()
    }

    /// The process that writes, or wrote, the file.
    pub fn process(&self) -> ProcessId {
        self.header.process
    }

    /// When the file was made, in nanoseconds since 1970.
    pub fn started_ns(&self) -> u64 {
        self.header.clock_start.realtime_ns
    }

    /// Whether that process is still there and maps the file; of one in another pid namespace,
    /// whether any process maps it. Only meaningful on the machine that made the file.
    pub fn is_running(&self) -> bool {
        if self.header.boot_digest != boot_digest() {
            return false;
        }
        let liveness = self.header.process.liveness(namespace_digest());
        // An exec leaves the process running and its file behind; the lock went with the mapping.
        liveness != Liveness::Ended && self.source.is_locked().unwrap_or(true)
    }

    /// What the file is about, read anew.
    ///
    /// # Errors
    /// When the file became shorter or unreadable.
    pub fn info(&self) -> Result<Info, ReadError> {
        let page = self.source.read(0, PAGE_BYTES as u64)?;
        let header = HeaderView::parse(&page, self.header.file_bytes)
            .map_err(|kind| self.source.fail(kind))?;
        let ledger = self.source.read(LEDGER_OFFSET as u64, 16)?;
        let meta = self.read_section(SectionName::Meta)?;
        let is_running = self.is_running();
        // A fault that was noted may have been mended before it came again.
        let is_dead = !is_running && header.state == RunState::Running;
        let death = page.get(DEATH_OFFSET..).filter(|_| is_dead);
        let now = header.comparable_now();
        let last = now.filter(|_| is_running).unwrap_or(header.clock_last);
        Ok(Info {
            file_bytes: header.file_bytes,
            run_bytes: crate::format::word_at(&ledger, 0).unwrap_or(0),
            is_child: header.is_child,
            pid: header.process.pid,
            parent_pid: header.parent_pid,
            executable: header::executable(&meta),
            command: header::command(&meta),
            state: header.state,
            death: death.and_then(crate::death::parse),
            is_running,
            started_unix_seconds: header.clock_start.realtime_ns as f64 / 1e9,
            last_tsc: last.tsc,
            sampling: header.sampling,
            clock: ClockScale::new(&header.clock_start, &header.clock_last, now.as_ref()),
        })
    }

    /// Every counter of the recorder.
    ///
    /// # Errors
    /// When the file became shorter or unreadable.
    pub fn counters(&self) -> Result<CounterValues, ReadError> {
        let pages = self
            .source
            .read(COUNTERS_OFFSET as u64, 2 * PAGE_BYTES as u64)?;
        Ok(CounterValues::parse(&pages))
    }

    /// What the run's ledger counted; all zero in a later process's file.
    ///
    /// # Errors
    /// When the file became shorter or unreadable.
    pub fn ledger_counts(&self) -> Result<LedgerCounts, ReadError> {
        let page = self.source.read(LEDGER_OFFSET as u64, PAGE_BYTES as u64)?;
        Ok(LedgerCounts::parse(&page))
    }

    /// Copies everything. A part that is damaged is left out and named in the snapshot's `problems`.
    ///
    /// # Errors
    /// When the file became shorter or unreadable.
    pub fn snapshot(&self) -> Result<Snapshot, ReadError> {
        Snapshot::take(self)
    }

    fn read_section(&self, name: SectionName) -> Result<Vec<u8>, ReadError> {
        let section = self.header.section(name);
        self.source
            .read(section.offset as u64, section.bytes as u64)
    }
}

/// A regular file with bytes in it; answers how many.
fn check_kind(file: &File) -> Result<u64, ReadErrorKind> {
    let metadata = file.metadata().map_err(ReadErrorKind::Open)?;
    if metadata.is_dir() {
        return Err(ReadErrorKind::Directory);
    }
    if !metadata.is_file() {
        return Err(ReadErrorKind::NotRegular);
    }
    match metadata.len() {
        0 => Err(ReadErrorKind::Empty),
        bytes => Ok(bytes),
    }
}

/// Opens what the user names: a pid if it is all digits, else a file (`./123` for digits).
///
/// # Errors
/// One line for the user.
pub fn open_file_or_pid(name: &std::ffi::OsStr) -> Result<RegionFile, locate::TargetError> {
    let digits = name.as_encoded_bytes();
    if digits.is_empty() {
        return Err(locate::TargetError::NoName);
    }
    if digits.iter().all(u8::is_ascii_digit) {
        let path = locate::locate_digits(digits)?;
        return Ok(RegionFile::open(&path)?);
    }
    Ok(RegionFile::open(&PathBuf::from(name))?)
}
