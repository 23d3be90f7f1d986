//! The run ledger: keeps the bytes of all files of a run together below one bound.
//!
//! Key type: [`Ledger`], the second page of a run's first file, mapped by every later process for
//! the moment in which it gets its file. Each later file is an entry of one word: state, size, pid,
//! sequence. There is no sum that a killed process could leave wrong: a process claims an entry,
//! adds up all entries, and takes its claim back when they exceed the bound. Entries whose file nobody
//! writes any more (`entry`) are freed by whoever needs room: file removed first, bytes given back
//! after it.
//!
//! Owns the invariant: the sizes of all files that entries allow never exceed the budget. Of two
//! claims at once at least the one whose fence comes second sees the other, so both may step back
//! (each tries again, bounded), but never do both stay beyond the budget.

mod entry;

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::clock::ClockPair;
use crate::format::PAGE_BYTES;
use crate::process::{ProcessId, Text};
use crate::sys;
use entry::{EntryState, EntryWord, LedgerEntry};

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
    /// Files that processes write take all bytes of the run.
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

const _: () = assert!(size_of::<Ledger>() <= PAGE_BYTES);

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

    /// Claims `file_bytes` for a file of `who`, and removes files that nobody writes any more, the one
    /// that ended first going first, until there is room.
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

    /// Removes the file that ended first; false when none has, or it cannot be removed.
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
        entry.remove(EntryWord(word), first_path, &self.children_removed)
    }
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
