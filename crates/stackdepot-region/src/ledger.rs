//! The run ledger: keeps the bytes of all files of a run together below one bound.
//!
//! Key type: [`Ledger`], the second page of a run's first file, mapped by every later process for
//! the moment in which it gets its file. Each later file is an entry of one word: state, size, pid,
//! sequence. There is no sum that a killed process could leave wrong: a process claims an entry,
//! adds up all entries, and takes its claim back when they exceed the bound. Entries of dead
//! processes are freed by whoever needs room: file removed first, bytes given back after it. A process
//! of another pid namespace counts as dead only when its file's lock is free.
//!
//! Owns the invariant: the sizes of all files that entries allow never exceed the budget. Of two
//! claims at once at least the one whose fence comes second sees the other, so both may step back
//! (each tries again, bounded), but never do both stay beyond the budget.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering, fence};
use std::os::fd::AsFd;

use crate::clock::ClockPair;
use crate::format::PAGE_BYTES;
use crate::process::{Liveness, ProcessId, Text};
use crate::sys;

/// How many later files a run can have at once. Each takes at least a sixteenth of the whole, and
/// the first one half: never more than eight, and some room for claims that step back.
pub const ENTRY_COUNT: usize = 64;
/// The longest path of a file, its end included.
pub const PATH_LIMIT: usize = 1024;
/// How often a process waits for the claims of others.
const WAIT_LIMIT: u32 = 16;

/// Why there is no room for a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerError {
    /// The files of running processes take all bytes of the run.
    NoRoom,
    /// All entries are taken.
    TableFull,
    /// Others claimed at the same time, again and again.
    Contended,
}

/// The page.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Ledger {
    /// The bytes of the whole run, first file included.
    total_bytes: AtomicU64,
    /// The bytes for later files.
    budget_bytes: AtomicU64,
    next_sequence: AtomicU64,
    children_removed: AtomicU64,
    children_unrecorded: AtomicU64,
    children_recorded: AtomicU64,
    /// Where the run began ([`crate::process::namespace_digest`]).
    namespace: AtomicU64,
    unused: AtomicU64,
    entries: [LedgerEntry; ENTRY_COUNT],
}

#[derive(Debug)]
#[repr(C)]
struct LedgerEntry {
    word: AtomicU64,
    start_ticks: AtomicU64,
    ended_ns: AtomicU64,
    namespace: AtomicU64,
}

const _: () = assert!(size_of::<Ledger>() <= PAGE_BYTES);

/// The word of an entry. 0 is a free one.
///
/// | 63..62 | 61 | 60..38 | 37..16 | 15..0 |
/// |---|---|---|---|---|
/// | state 1 claimed, 2 active, 3 ended | pid of another namespace than the run's | pages | pid | sequence |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EntryWord(u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EntryState {
    Free,
    Claimed,
    Active,
    Ended,
}

impl EntryWord {
    const PAGES_LIMIT: u64 = 1 << 23;
    const PID_LIMIT: u32 = 1 << 22;
    const OUTSIDE: u64 = 1 << 61;

    /// `None` when a number does not fit (no Linux pid exceeds 2^22).
    fn claimed(pages: u64, pid: u32, sequence: u16) -> Option<EntryWord> {
        let fits = pages > 0 && pages < Self::PAGES_LIMIT && pid < Self::PID_LIMIT;
        fits.then_some(EntryWord(
            1 << 62 | pages << 38 | u64::from(pid) << 16 | u64::from(sequence),
        ))
    }

    fn state(self) -> EntryState {
        match self.0 >> 62 {
            0 => EntryState::Free,
            1 => EntryState::Claimed,
            2 => EntryState::Active,
            _ => EntryState::Ended,
        }
    }

    fn with_state(self, state: u64) -> EntryWord {
        EntryWord(self.0 & !(3 << 62) | state << 62)
    }

    /// The same claim by a process whose pid means nothing where the run began.
    fn marked_outside(self) -> EntryWord {
        EntryWord(self.0 | Self::OUTSIDE)
    }

    fn is_from_outside(self) -> bool {
        self.0 & Self::OUTSIDE != 0
    }

    fn pages(self) -> u64 {
        (self.0 >> 38) & (Self::PAGES_LIMIT - 1)
    }

    fn pid(self) -> u32 {
        (self.0 >> 16) as u32 & (Self::PID_LIMIT - 1)
    }

    fn sequence(self) -> u16 {
        self.0 as u16
    }
}

/// A claimed entry: turned into a file by `confirm`, or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    index: usize,
    word: EntryWord,
}

impl Reservation {
    /// The number that makes the file's name unique within the process.
    pub fn sequence(&self) -> u16 {
        self.word.sequence()
    }
}

/// The path of a later file: the first file's path, then `.PID-SEQUENCE`.
pub fn child_path<'b>(
    first_path: &CStr,
    pid: u32,
    sequence: u16,
    buffer: &'b mut [u8; PATH_LIMIT],
) -> Option<&'b CStr> {
    let mut text = Text::new(buffer);
    text.push(first_path.to_bytes());
    text.push(b".");
    text.push_number(u64::from(pid));
    text.push(b"-");
    text.push_number(u64::from(sequence));
    text.finish()
}

impl Ledger {
    /// Writes down the bounds of a new run; only the maker of the first file, before it is complete.
    pub fn begin(&self, total_bytes: u64, first_file_bytes: u64, namespace: u64) {
        self.namespace.store(namespace, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
        self.budget_bytes.store(
            total_bytes.saturating_sub(first_file_bytes),
            Ordering::Relaxed,
        );
    }

    /// The bytes of the whole run.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// The bytes that all later files hold now, claims included.
    pub fn used_bytes(&self) -> u64 {
        self.sum_bytes(|_| true)
    }

    /// Counts a process that runs without a file.
    pub fn count_unrecorded(&self) {
        self.children_unrecorded.fetch_add(1, Ordering::Relaxed);
    }

    /// Processes that ran without a file, files removed to make room, files made: so far.
    pub fn counts(&self) -> LedgerCounts {
        LedgerCounts {
            children_unrecorded: self.children_unrecorded.load(Ordering::Relaxed),
            children_removed: self.children_removed.load(Ordering::Relaxed),
            children_recorded: self.children_recorded.load(Ordering::Relaxed),
        }
    }

    /// Claims `file_bytes` for a file of `who`, and removes files of ended processes, the one that
    /// ended first going first, until there is room.
    ///
    /// Waits a few milliseconds, bounded, while others are between claim and file.
    pub fn reserve_or_remove(
        &self,
        first_path: &CStr,
        who: &ProcessId,
        file_bytes: u64,
    ) -> Result<Reservation, LedgerError> {
        let mut wait_count = 0;
        // Ends: each round removes a file, or is one of the few waits.
        for _ in 0..4 * ENTRY_COUNT {
            let error = match self.reserve(who, file_bytes) {
                Ok(reservation) => return Ok(reservation),
                Err(error) => error,
            };
            if self.remove_oldest_ended(first_path, who) {
                continue;
            }
            if error != LedgerError::Contended || wait_count == WAIT_LIMIT {
                return Err(error);
            }
            // Not all at once again: everybody waits another time.
            sys::sleep(1 + (who.pid.wrapping_mul(7) + wait_count) % 8);
            wait_count += 1;
        }
        Err(LedgerError::Contended)
    }

    /// Claims `file_bytes` for a file of `who` where there is room now.
    ///
    /// `Contended`: only together with claims of others, which may step back, is it too much.
    pub fn reserve(&self, who: &ProcessId, file_bytes: u64) -> Result<Reservation, LedgerError> {
        let pages = file_bytes.div_ceil(PAGE_BYTES as u64);
        let reservation = self.claim(who, pages)?;
        // ORDERING: SeqCst fence between our claim and our look at the others' claims; its partner
        // is the same fence of every other claimer: one of two sees the other's word.
        fence(Ordering::SeqCst);
        let budget_bytes = self.budget_bytes.load(Ordering::Relaxed);
        if self.used_bytes() <= budget_bytes {
            return Ok(reservation);
        }
        self.cancel(&reservation);
        let file_bytes = pages * PAGE_BYTES as u64;
        match self.confirmed_bytes() + file_bytes <= budget_bytes {
            true => Err(LedgerError::Contended),
            false => Err(LedgerError::NoRoom),
        }
    }

    /// The file is there: its bytes count as its process's from now on.
    pub fn confirm(&self, reservation: Reservation, who: &ProcessId) {
        let Some(entry) = self.entries.get(reservation.index) else {
            return;
        };
        entry.ended_ns.store(0, Ordering::Relaxed);
        entry.start_ticks.store(who.start_ticks, Ordering::Relaxed);
        entry.namespace.store(who.namespace, Ordering::Relaxed);
        self.children_recorded.fetch_add(1, Ordering::Relaxed);
        // ORDERING: Release: who reads "active" (Acquire, `ended`) reads this start time. It
        // fails only for a claim whose process was taken for dead: then the entry is not ours.
        let _ = entry.word.compare_exchange(
            reservation.word.0,
            reservation.word.with_state(2).0,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }

    /// There will be no file: gives the bytes back.
    pub fn cancel(&self, reservation: &Reservation) {
        if let Some(entry) = self.entries.get(reservation.index) {
            // ORDERING: Relaxed: nothing is handed over with the entry but the entry itself.
            let _ = entry.word.compare_exchange(
                reservation.word.0,
                0,
                Ordering::Relaxed,
                Ordering::Relaxed,
            );
        }
    }

    /// The process of a confirmed file is about to end; its file may go once it is dead.
    pub fn mark_ended(&self, reservation: &Reservation) {
        let Some(entry) = self.entries.get(reservation.index) else {
            return;
        };
        entry
            .ended_ns
            .store(ClockPair::now().monotonic_ns, Ordering::Relaxed);
        // ORDERING: Release: who reads "ended" reads its time; partner in `ended`.
        let _ = entry.word.compare_exchange(
            reservation.word.with_state(2).0,
            reservation.word.with_state(3).0,
            Ordering::Release,
            Ordering::Relaxed,
        );
    }

    fn claim(&self, who: &ProcessId, pages: u64) -> Result<Reservation, LedgerError> {
        // ORDERING: Relaxed: a unique number, nothing else.
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed) as u16;
        let word = EntryWord::claimed(pages, who.pid, sequence).ok_or(LedgerError::NoRoom)?;
        let namespace = self.namespace.load(Ordering::Relaxed);
        let word = match who.namespace == namespace && namespace != 0 {
            true => word,
            false => word.marked_outside(),
        };
        for (index, entry) in self.entries.iter().enumerate() {
            // ORDERING: Relaxed: the fence in `reserve` orders the claim against the sum.
            let claimed =
                entry
                    .word
                    .compare_exchange(0, word.0, Ordering::Relaxed, Ordering::Relaxed);
            if claimed.is_ok() {
                return Ok(Reservation { index, word });
            }
        }
        Err(LedgerError::TableFull)
    }

    /// The bytes of files that are there.
    fn confirmed_bytes(&self) -> u64 {
        self.sum_bytes(|word| word.state() != EntryState::Claimed)
    }

    fn sum_bytes(&self, is_counted: impl Fn(EntryWord) -> bool) -> u64 {
        let pages = self.entries.iter().fold(0u64, |sum, entry| {
            let word = EntryWord(entry.word.load(Ordering::Relaxed));
            sum + if is_counted(word) { word.pages() } else { 0 }
        });
        pages * PAGE_BYTES as u64
    }

    /// Removes the file whose process ended first; false when no process has ended.
    fn remove_oldest_ended(&self, first_path: &CStr, who: &ProcessId) -> bool {
        let now_ns = ClockPair::now().monotonic_ns;
        let namespace = self.namespace.load(Ordering::Relaxed);
        let oldest = self
            .entries
            .iter()
            .filter_map(|entry| {
                let word = entry.ended(who, first_path, namespace)?;
                let ended_ns = entry.ended_since(now_ns);
                Some((ended_ns, word.sequence(), word.0, entry))
            })
            .min_by_key(|(ended_ns, sequence, ..)| (*ended_ns, *sequence));
        let Some((_, _, word, entry)) = oldest else {
            return false;
        };
        entry.remove(EntryWord(word), first_path, &self.children_removed);
        true
    }
}

impl LedgerEntry {
    /// The entry's word if its process is gone and nobody maps its file; `who` is who asks,
    /// `namespace` the run's.
    fn ended(&self, who: &ProcessId, first_path: &CStr, namespace: u64) -> Option<EntryWord> {
        // ORDERING: Acquire, partner of the Release in `confirm`: start time of this very file.
        let word = EntryWord(self.word.load(Ordering::Acquire));
        let mut owner = ProcessId {
            pid: word.pid(),
            start_ticks: 0, // of a claim: not stored yet
            namespace: if word.is_from_outside() { 0 } else { namespace },
        };
        let is_gone = match word.state() {
            EntryState::Free => false,
            EntryState::Claimed => owner.liveness(who.namespace) == Liveness::Ended,
            EntryState::Active | EntryState::Ended => {
                owner.start_ticks = self.start_ticks.load(Ordering::Relaxed);
                owner.namespace = self.namespace.load(Ordering::Relaxed);
                // The asker itself, with a file: that of the program which it was before an exec.
                let liveness = match owner == *who {
                    true => Liveness::Ended,
                    false => owner.liveness(who.namespace),
                };
                match (is_mapped(first_path, word), liveness) {
                    // A child that forked while it was recorded keeps its bytes in use.
                    (Some(is_mapped), Liveness::Unknown | Liveness::Ended) => !is_mapped,
                    (_, liveness) => liveness == Liveness::Ended,
                }
            }
        };
        is_gone.then_some(word)
    }

    /// When the process, which is gone, ended: where it did not say so itself, from now on.
    fn ended_since(&self, now_ns: u64) -> u64 {
        // ORDERING: Relaxed: only the order of removal hangs on it.
        let stamped =
            self.ended_ns
                .compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
        stamped.err().unwrap_or(now_ns)
    }

    /// Two may remove at once: a name is never given twice, and one of them frees the entry.
    fn remove(&self, word: EntryWord, first_path: &CStr, removed: &AtomicU64) {
        let mut buffer = [0u8; PATH_LIMIT];
        let unlinked = match child_path(first_path, word.pid(), word.sequence(), &mut buffer) {
            Some(path) => sys::unlink(path).is_ok(),
            None => false,
        };
        // ORDERING: Release: the bytes are given back after the file went; partner: the claim's fence.
        let freed = self
            .word
            .compare_exchange(word.0, 0, Ordering::Release, Ordering::Relaxed);
        if freed.is_ok() {
            self.ended_ns.store(0, Ordering::Relaxed);
        }
        // Of two who remove at once one unlinks; the other may be the one who frees.
        if unlinked && word.state() != EntryState::Claimed {
            removed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Whether any process maps the file of an entry: its bytes stay in use, whatever becomes of its name.
fn is_mapped(first_path: &CStr, word: EntryWord) -> Option<bool> {
    let mut buffer = [0u8; PATH_LIMIT];
    let path = child_path(first_path, word.pid(), word.sequence(), &mut buffer)?;
    let fd = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).ok()?;
    sys::is_locked(fd.as_fd())
}

/// What a run's ledger counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LedgerCounts {
    /// Processes that ran without a file.
    pub children_unrecorded: u64,
    /// Files of ended processes that made room.
    pub children_removed: u64,
    /// Files made for later processes.
    pub children_recorded: u64,
}

impl LedgerCounts {
    /// From a copy of the page.
    pub fn parse(page: &[u8]) -> LedgerCounts {
        let word = |index: usize| crate::format::word_at(page, index * 8).unwrap_or(0);
        LedgerCounts {
            children_removed: word(3),
            children_unrecorded: word(4),
            children_recorded: word(5),
        }
    }
}

#[cfg(test)]
mod tests;
