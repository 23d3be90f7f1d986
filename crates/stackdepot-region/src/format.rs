//! Where everything lies in a region file: the header page, the section table, the constants.
//!
//! Key type: [`FileHeader`], the first page as its writer sees it. Readers take the same offsets
//! (`offset_of!`) out of copied bytes. Little-endian; every field is one 64-bit word, so that no
//! reader ever sees half of one. Owns the invariant that `magic` is stored last: a file that has it
//! is complete.
//!
//! ```text
//! page 0    FileHeader, death     page 2, 3  counters (16 shards)     then, page-aligned:
//! page 1    Ledger (run ledger)                                       meta, modules, ring, live, caches, depot
//! ```

use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicU64, Ordering};

use crate::clock::ClockPair;
use crate::death::DeathRecord;

/// The first eight bytes of every region file, stored when all else is in place.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STKDPREG");
/// The version of the layout that this crate writes and reads.
pub const FORMAT_VERSION: u64 = 5;
/// Sections start and end at multiples of this.
pub const PAGE_BYTES: usize = 4096;
/// Header, ledger and counters.
pub const HEADER_BYTES: usize = 4 * PAGE_BYTES;
/// Where the run ledger lies.
pub const LEDGER_OFFSET: usize = PAGE_BYTES;
/// Where the header page tells of the process's death.
pub const DEATH_OFFSET: usize = 1024;
/// Where the counters lie.
pub const COUNTERS_OFFSET: usize = 2 * PAGE_BYTES;
/// No file is larger; a header that says so is damaged.
pub const MAX_FILE_BYTES: u64 = 1 << 36;
/// How many sections a file has.
pub const SECTION_COUNT: usize = 6;

/// The parts of a file after its header, in the order in which they lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionName {
    /// Executable and command line of the program.
    Meta = 0,
    /// The module table.
    Modules = 1,
    /// The ring of the newest events.
    Ring = 2,
    /// The live table.
    Live = 3,
    /// What threads hold in advance, and what they have not counted in the depot yet.
    Caches = 4,
    /// The depot.
    Depot = 5,
}

impl SectionName {
    /// All of them, in the order in which they lie.
    pub const ALL: [SectionName; SECTION_COUNT] = [
        SectionName::Meta,
        SectionName::Modules,
        SectionName::Ring,
        SectionName::Live,
        SectionName::Caches,
        SectionName::Depot,
    ];

    /// The word for messages.
    pub const fn word(self) -> &'static str {
        match self {
            SectionName::Meta => "meta",
            SectionName::Modules => "modules",
            SectionName::Ring => "ring",
            SectionName::Live => "live",
            SectionName::Caches => "caches",
            SectionName::Depot => "depot",
        }
    }
}

/// One row of the section table.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SectionRow {
    /// Where it starts in the file.
    pub offset: AtomicU64,
    /// How long it is.
    pub bytes: AtomicU64,
}

/// Whether the writer of a file is done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunState {
    /// The writer did not say that it ended: it runs, or it was killed.
    Running,
    /// The program ended by itself.
    Ended,
}

impl RunState {
    /// As stored.
    pub const fn to_bits(self) -> u64 {
        match self {
            RunState::Running => 1,
            RunState::Ended => 2,
        }
    }

    /// From foreign bits.
    pub const fn from_bits(bits: u64) -> Option<RunState> {
        match bits {
            1 => Some(RunState::Running),
            2 => Some(RunState::Ended),
            _ => None,
        }
    }
}

/// One reading of the three clocks, as stored.
#[derive(Debug, Default)]
#[repr(C)]
pub struct ClockWords {
    /// Nanoseconds since 1970.
    pub realtime_ns: AtomicU64,
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: AtomicU64,
    /// The time stamp counter.
    pub tsc: AtomicU64,
}

/// The first page of a file, as its writer sees it.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FileHeader {
    /// [`MAGIC`], once the file is complete.
    pub magic: AtomicU64,
    /// [`FORMAT_VERSION`].
    pub version: AtomicU64,
    /// [`HEADER_BYTES`].
    pub header_bytes: AtomicU64,
    /// The size of the whole file.
    pub file_bytes: AtomicU64,
    /// Where the sections lie; indexed by [`SectionName`].
    pub sections: [SectionRow; SECTION_COUNT],
    /// 0 for the first file of a run (its ledger counts), 1 for a later one.
    pub is_child: AtomicU64,
    /// The writer.
    pub pid: AtomicU64,
    /// Its parent when the file was made.
    pub parent_pid: AtomicU64,
    /// Its start in clock ticks since boot (field 22 of `/proc/PID/stat`); 0 unknown.
    pub start_ticks: AtomicU64,
    /// Digest of the kernel's boot id: process start times mean nothing after a reboot.
    pub boot_digest: AtomicU64,
    /// A [`RunState`].
    pub state: AtomicU64,
    /// The clocks when the file was made.
    pub clock_start: ClockWords,
    /// Odd while a thread stores `clock_last`.
    pub clock_sequence: AtomicU64,
    /// The clocks when they were last looked at.
    pub clock_last: ClockWords,
    /// Digest of the namespaces in which `pid` and `start_ticks` are meant; 0 unknown.
    pub namespace: AtomicU64,
    /// On average one in so many bytes is sampled ([`ByteSampling`](crate::poisson::ByteSampling));
    /// 0: every block is recorded.
    pub sample_bytes: AtomicU64,
}

const _: () = assert!(size_of::<FileHeader>() <= DEATH_OFFSET);
const _: () = assert!(DEATH_OFFSET + size_of::<DeathRecord>() <= PAGE_BYTES);

/// Offset of the section table in the header.
pub const SECTIONS_OFFSET: usize = offset_of!(FileHeader, sections);

impl FileHeader {
    /// Says that the program ended by itself.
    pub fn mark_ended(&self) {
        self.touch_clock();
        self.state
            .store(RunState::Ended.to_bits(), Ordering::Relaxed);
    }

    /// Says that the program runs after all (exit handlers ran, but it died in one).
    pub fn mark_running(&self) {
        self.state
            .store(RunState::Running.to_bits(), Ordering::Relaxed);
    }

    /// Stores a new pair of clocks, from which readers compute how long ago an event was.
    ///
    /// Meant for once a tick. Any thread may call it at any time; of two at once one stores.
    pub fn touch_clock(&self) {
        let sequence = self.clock_sequence.load(Ordering::Relaxed);
        if sequence & 1 == 1 {
            return;
        }
        // ORDERING: Acquire, partner of the Release below: the pair before is complete. The failure
        // means that another thread stores a pair right now, which is as good.
        let claimed = self.clock_sequence.compare_exchange(
            sequence,
            sequence + 1,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            return;
        }
        // ORDERING: Release fence: whoever sees a word of the new pair sees the odd sequence.
        core::sync::atomic::fence(Ordering::Release);
        self.clock_last.store(&ClockPair::now());
        // ORDERING: Release: an even sequence has its whole pair. Partner: readers compare two copies.
        self.clock_sequence.store(sequence + 2, Ordering::Release);
    }
}

impl ClockWords {
    /// Stores a pair; the caller orders it.
    pub fn store(&self, pair: &ClockPair) {
        self.realtime_ns.store(pair.realtime_ns, Ordering::Relaxed);
        self.monotonic_ns
            .store(pair.monotonic_ns, Ordering::Relaxed);
        self.tsc.store(pair.tsc, Ordering::Relaxed);
    }
}

/// Reads the word at `offset`; `None` past the end.
pub fn word_at(bytes: &[u8], offset: usize) -> Option<u64> {
    let end = offset.checked_add(8)?;
    let word = bytes.get(offset..end)?;
    Some(u64::from_le_bytes(word.try_into().ok()?))
}
