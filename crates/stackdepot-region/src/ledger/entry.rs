//! One file of a run in its ledger: whose it is, how large, and whether it may go.
//!
//! Key types: [`LedgerEntry`], [`EntryWord`]. A file is done with when no process maps it: its lock
//! tells, which the kernel drops with the last mapping, at an exec as at an end. So a file of an
//! earlier program of a process that lives on may go too, and one that a forked child still maps may
//! not. Only where the lock cannot be asked for does it count whether the process lives.

use core::ffi::CStr;
use core::sync::atomic::{AtomicU64, Ordering};
use std::os::fd::AsFd;

use super::{PATH_LIMIT, child_path};
use crate::process::{Liveness, ProcessId};
use crate::sys::{self, Errno};

#[derive(Debug)]
#[repr(C)]
pub(super) struct LedgerEntry {
    pub(super) word: AtomicU64,
    pub(super) start_ticks: AtomicU64,
    pub(super) ended_ns: AtomicU64,
    pub(super) namespace: AtomicU64,
}

/// The word of an entry. 0 is a free one.
///
/// | 63..62 | 61 | 60..38 | 37..16 | 15..0 |
/// |---|---|---|---|---|
/// | state 1 claimed, 2 active, 3 ended | pid of another namespace than the run's | pages | pid | sequence |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryWord(pub(super) u64);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryState {
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
    pub(super) fn claimed(pages: u64, pid: u32, sequence: u16) -> Option<EntryWord> {
        let fits = pages > 0 && pages < Self::PAGES_LIMIT && pid < Self::PID_LIMIT;
        fits.then_some(EntryWord(
            1 << 62 | pages << 38 | u64::from(pid) << 16 | u64::from(sequence),
        ))
    }

    pub(super) fn state(self) -> EntryState {
        match self.0 >> 62 {
            0 => EntryState::Free,
            1 => EntryState::Claimed,
            2 => EntryState::Active,
            _ => EntryState::Ended,
        }
    }

    pub(super) fn with_state(self, state: u64) -> EntryWord {
        EntryWord(self.0 & !(3 << 62) | state << 62)
    }

    /// The same claim by a process whose pid means nothing where the run began.
    pub(super) fn marked_outside(self) -> EntryWord {
        EntryWord(self.0 | Self::OUTSIDE)
    }

    pub(super) fn is_from_outside(self) -> bool {
        self.0 & Self::OUTSIDE != 0
    }

    pub(super) fn pages(self) -> u64 {
        (self.0 >> 38) & (Self::PAGES_LIMIT - 1)
    }

    pub(super) fn pid(self) -> u32 {
        (self.0 >> 16) as u32 & (Self::PID_LIMIT - 1)
    }

    pub(super) fn sequence(self) -> u16 {
        self.0 as u16
    }
}

impl LedgerEntry {
    /// The entry's word if its file is done with; `who` is who asks, `namespace` the run's.
    pub(super) fn ended(
        &self,
        who: &ProcessId,
        first_path: &CStr,
        namespace: u64,
    ) -> Option<EntryWord> {
        // ORDERING: Acquire, partner of the Release in `confirm`: start time of this very file.
        let word = EntryWord(self.word.load(Ordering::Acquire));
        let owner = |start_ticks, namespace| ProcessId {
            pid: word.pid(),
            start_ticks,
            namespace,
        };
        let is_dead = |owner: ProcessId| owner.liveness(who.namespace) == Liveness::Ended;
        let is_done = match word.state() {
            EntryState::Free => false,
            // Neither start time nor file yet.
            EntryState::Claimed if word.is_from_outside() => false,
            EntryState::Claimed => is_dead(owner(0, namespace)),
            EntryState::Active | EntryState::Ended => match is_mapped(first_path, word) {
                Some(is_mapped) => !is_mapped,
                None => is_dead(owner(
                    self.start_ticks.load(Ordering::Relaxed),
                    self.namespace.load(Ordering::Relaxed),
                )),
            },
        };
        is_done.then_some(word)
    }

    /// When the file was done with: where its process did not say so itself, from now on.
    pub(super) fn ended_since(&self, now_ns: u64) -> u64 {
        // ORDERING: Relaxed: only the order of removal hangs on it.
        let stamped =
            self.ended_ns
                .compare_exchange(0, now_ns, Ordering::Relaxed, Ordering::Relaxed);
        stamped.err().unwrap_or(now_ns)
    }

    /// Removes the file, then gives its bytes back; false when the file stays, and so do its bytes.
    ///
    /// Two may remove at once: a name is never given twice, and one of them frees the entry.
    pub(super) fn remove(&self, word: EntryWord, first_path: &CStr, removed: &AtomicU64) -> bool {
        let mut buffer = [0u8; PATH_LIMIT];
        let unlinked = match child_path(first_path, word.pid(), word.sequence(), &mut buffer) {
            Some(path) => sys::unlink(path),
            None => Ok(()), // then no file was ever made
        };
        // Gone already is as good, a file of another user is not.
        if !matches!(unlinked, Ok(()) | Err(Errno(libc::ENOENT))) {
            return false;
        }
        // ORDERING: Release: the bytes are given back after the file went; partner: the claim's fence.
        let freed = self
            .word
            .compare_exchange(word.0, 0, Ordering::Release, Ordering::Relaxed);
        if freed.is_ok() {
            self.ended_ns.store(0, Ordering::Relaxed);
        }
        // Of two who remove at once one unlinks; the other may be the one who frees.
        if unlinked.is_ok() && word.state() != EntryState::Claimed {
            removed.fetch_add(1, Ordering::Relaxed);
        }
        true
    }
}

/// Whether any process maps the file of an entry: its bytes stay in use, whatever becomes of its
/// name. `None` when it cannot be asked for.
fn is_mapped(first_path: &CStr, word: EntryWord) -> Option<bool> {
    let mut buffer = [0u8; PATH_LIMIT];
    let path = child_path(first_path, word.pid(), word.sequence(), &mut buffer)?;
    let fd = sys::open(path, libc::O_RDONLY | libc::O_NONBLOCK, 0).ok()?;
    sys::is_locked(fd.as_fd())
}
