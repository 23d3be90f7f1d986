//! What the unwinder remembers per thread: readable stack ranges, the memo, and its paths.
//!
//! Static pools (`.bss`, touched as they are used): small slots for thousands of threads,
//! memos for the first [`MEMO_COUNT`] of them, and tables of paths for some of these. A thread claims a [`ThreadSlot`] at its
//! first event and releases it at its end. Inside a capture the slot is entered by a
//! try-flag: a signal handler that interrupts a capture of its own thread finds the flag set
//! and unwinds without the slot.

#![allow(unsafe_code)] // hands out exclusive access to pool cells under a flag

use super::gate;
use super::memo::Memo;
use super::paths::Paths;
use super::stack::StackRange;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, compiler_fence};

/// Threads that can hold a slot at once; others unwind without memory of their own.
pub const SLOT_COUNT: usize = 4096;
/// Memos; threads that find none left unwind in full.
pub const MEMO_COUNT: usize = 96;
/// Tables of paths, for the threads with the first memos; others do not know their stacks again.
const PATHS_COUNT: usize = 32;
const OTHER_COUNT: usize = 4;

const FREE: u32 = 0;
const IDLE: u32 = 1;
const ENTERED: u32 = 2;

/// A thread's claim on the unwinder's per-thread memory.
#[derive(Clone, Copy, Debug)]
pub struct ThreadSlot(&'static Slot);

impl PartialEq for ThreadSlot {
    fn eq(&self, other: &ThreadSlot) -> bool {
        core::ptr::eq(self.0, other.0)
    }
}

/// What a slot holds, under its flag. All zeros is a valid, empty one.
#[derive(Debug)]
pub struct ThreadMemory {
    /// The thread's memo, and the table of paths that belongs to it.
    memo: Option<&'static MemoCell>,
    paths: Option<&'static PathsCell>,
    /// The number of the memo.
    number: Option<u32>,
    /// Of the thread's own stack, which stays until the thread ends; its outer end is known to be that
    /// of the mapping, where the thread's control block lies.
    own: StackRange,
    /// Of other stacks, which may have gone.
    others: [StackRange; OTHER_COUNT],
    next_other: usize,
}

const NOTHING: ThreadMemory = ThreadMemory {
    memo: None,
    paths: None,
    number: None,
    own: StackRange::EMPTY,
    others: [StackRange::EMPTY; OTHER_COUNT],
    next_other: 0,
};

#[derive(Debug)]
#[repr(align(64))]
struct Slot {
    flag: AtomicU32,
    memory: UnsafeCell<ThreadMemory>,
}

// SAFETY: `memory` is touched only by who moved `flag` from FREE or IDLE to ENTERED.
unsafe impl Sync for Slot {}

/// A line of its own: memos of other threads are written at the same time.
#[derive(Debug)]
#[repr(align(64))]
struct MemoCell(UnsafeCell<Memo>);

// SAFETY: a memo belongs to the slot that claimed its flag in MEMO_FLAGS, and is touched only
// under that slot's flag.
unsafe impl Sync for MemoCell {}

#[derive(Debug)]
struct PathsCell(UnsafeCell<Paths>);

// SAFETY: a table belongs to the memo of the same index, and with it to one slot at a time.
unsafe impl Sync for PathsCell {}

static SLOTS: [Slot; SLOT_COUNT] = [const {
    Slot {
        flag: AtomicU32::new(FREE),
        memory: UnsafeCell::new(NOTHING),
    }
}; SLOT_COUNT];
static MEMOS: [MemoCell; MEMO_COUNT] =
    [const { MemoCell(UnsafeCell::new(Memo::EMPTY)) }; MEMO_COUNT];
static PATHS: [PathsCell; PATHS_COUNT] =
    [const { PathsCell(UnsafeCell::new(Paths::EMPTY)) }; PATHS_COUNT];
static MEMO_FLAGS: [AtomicU32; MEMO_COUNT] = [const { AtomicU32::new(FREE) }; MEMO_COUNT];
/// Where the next search for a free slot starts.
static NEXT: AtomicU32 = AtomicU32::new(0);
/// The control block of the main thread, which does not lie on its stack.
static MAIN_BLOCK: AtomicU64 = AtomicU64::new(0);

/// To be called once, by the main thread; another one changes nothing.
pub fn init() {
    // SAFETY: plain questions.
    let is_main = unsafe { libc::syscall(libc::SYS_gettid) == libc::getpid().into() };
    if is_main {
        MAIN_BLOCK.store(gate::thread_pointer(), Ordering::Relaxed);
    }
}

/// Claims a slot for the calling thread; `None` when all are taken. To be released by [`end`]
/// at the thread's end.
pub fn begin() -> Option<ThreadSlot> {
    let first = NEXT.fetch_add(1, Ordering::Relaxed);
    for step in 0..SLOT_COUNT as u32 {
        let index = first.wrapping_add(step) % SLOT_COUNT as u32;
        let slot = SLOTS.get(index as usize)?;
        if !claim(&slot.flag) {
            continue;
        }
        let memo = claim_memo();
        let memory = ThreadMemory {
            memo: memo.and_then(|index| MEMOS.get(index)),
            paths: memo.and_then(|index| PATHS.get(index)),
            number: memo.map(|index| index as u32),
            ..NOTHING
        };
        // SAFETY: the flag is ENTERED by us.
        unsafe { *slot.memory.get() = memory };
        // ORDERING: Release, with the Acquire in `enter`.
        slot.flag.store(IDLE, Ordering::Release);
        return Some(ThreadSlot(slot));
    }
    None
}

fn claim(flag: &AtomicU32) -> bool {
    // ORDERING: Acquire, with the Release in `end`: the former owner's writes are done.
    flag.load(Ordering::Relaxed) == FREE
        && flag
            .compare_exchange(FREE, ENTERED, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
}

/// Claims and clears a memo; answers its index.
fn claim_memo() -> Option<usize> {
    let index = MEMO_FLAGS.iter().position(claim)?;
    if let Some(memo) = MEMOS.get(index) {
        // SAFETY: its flag is ours.
        unsafe { (*memo.0.get()).clear() };
    }
    Some(index)
}

/// The flag of a memo.
fn flag_of(memo: &MemoCell) -> Option<&'static AtomicU32> {
    let index = MEMOS.iter().position(|other| core::ptr::eq(other, memo))?;
    MEMO_FLAGS.get(index)
}

/// Releases a slot, and its memo, at the end of its thread.
pub fn end(slot: ThreadSlot) {
    let ThreadSlot(slot) = slot;
    if slot.flag.load(Ordering::Relaxed) == FREE {
        return;
    }
    // SAFETY: only the slot's own thread comes here, and its captures are over: one that is
    // still marked as entered was abandoned (by siglongjmp) and never resumes.
    let memo = unsafe { (*slot.memory.get()).memo };
    if let Some(flag) = memo.and_then(flag_of) {
        // ORDERING: Release, with the Acquire in `claim`.
        flag.store(FREE, Ordering::Release);
    }
    // ORDERING: Release, with the Acquire in `claim`.
    slot.flag.store(FREE, Ordering::Release);
}

/// In the child of a fork: frees the slots of all threads but the one that goes on.
pub fn keep_only(kept: Option<ThreadSlot>) {
    for slot in SLOTS.iter().map(ThreadSlot) {
        if kept != Some(slot) {
            end(slot);
        }
    }
}

/// Exclusive access to a slot's memory; ends when dropped.
#[derive(Debug)]
pub struct Entered {
    flag: &'static AtomicU32,
    /// The ranges.
    pub memory: &'static mut ThreadMemory,
    /// The memo, if this thread has one.
    pub memo: Option<&'static mut Memo>,
    /// What it knows its stacks by, if it has such a table.
    pub paths: Option<&'static mut Paths>,
}

/// Enters the calling thread's slot, unless this thread is inside already.
#[inline(always)]
pub fn enter(slot: ThreadSlot) -> Option<Entered> {
    let ThreadSlot(slot) = slot;
    // ORDERING: Acquire, with the Release in `drop` and `begin`. A plain load and store are
    // enough: only the thread itself and its signal handlers come here, and a handler leaves
    // the flag as it found it.
    if slot.flag.load(Ordering::Acquire) != IDLE {
        return None;
    }
    slot.flag.store(ENTERED, Ordering::Relaxed);
    // A handler must find the flag set before we touch what it guards.
    compiler_fence(Ordering::SeqCst);
    // SAFETY: the flag was IDLE and is ENTERED by us; it goes back only when `Entered` drops.
    let memory = unsafe { &mut *slot.memory.get() };
    // SAFETY: the memo belongs to this slot, whose flag we hold.
    let memo = memory.memo.map(|memo| unsafe { &mut *memo.0.get() });
    // SAFETY: the table belongs to the memo.
    let paths = memory.paths.map(|paths| unsafe { &mut *paths.0.get() });
    Some(Entered {
        flag: &slot.flag,
        memory,
        memo,
        paths,
    })
}

impl Drop for Entered {
    #[inline(always)]
    fn drop(&mut self) {
        // ORDERING: Release, with the Acquire in `enter`.
        self.flag.store(IDLE, Ordering::Release);
    }
}

impl ThreadMemory {
    /// A number that no other thread has at the same time, for what belongs to a thread elsewhere.
    #[inline]
    pub fn number(&self) -> Option<usize> {
        self.number.map(|number| number as usize)
    }

    /// What is known to be readable of the stack that holds `sp`; maybe nothing.
    #[inline]
    pub fn known_range(&self, sp: u64) -> StackRange {
        match self.own.contains(sp) {
            true => self.own,
            false => self.known_of_others(sp),
        }
    }

    #[cold]
    #[inline(never)]
    fn known_of_others(&self, sp: u64) -> StackRange {
        let known = self.others.iter().find(|range| range.contains(sp));
        known.map_or(StackRange::EMPTY, |range| range.retested_from(sp))
    }

    /// Keeps what a walk learnt about the stack that it started on.
    #[inline]
    pub fn keep_range(&mut self, before: StackRange, after: StackRange) {
        if before != after && !after.is_main() && after != StackRange::EMPTY {
            self.keep(after);
        }
    }

    #[cold]
    #[inline(never)]
    fn keep(&mut self, range: StackRange) {
        if let Some(own) = self.as_own(range) {
            self.own = own;
            return;
        }
        let mut others = self.others.iter();
        let is_same = |other: &StackRange| other.contains(range.low) || range.contains(other.low);
        let at = others.position(is_same).unwrap_or_else(|| {
            self.next_other = (self.next_other + 1) % OTHER_COUNT;
            self.next_other
        });
        if let Some(other) = self.others.get_mut(at) {
            *other = range;
        }
    }

    /// The own stack with this range, if it is part of it: then nothing unreadable, such as the guard
    /// below a stack, lies between the two, or between it and the control block.
    fn as_own(&self, range: StackRange) -> Option<StackRange> {
        let block = gate::thread_pointer();
        if block == MAIN_BLOCK.load(Ordering::Relaxed) || range.low > block {
            return None;
        }
        let is_known = self.own != StackRange::EMPTY;
        let end = if is_known { self.own.low } else { block + 1 };
        let joined = range.joined_to(end)?;
        Some(StackRange {
            low: match is_known {
                true => joined.low.min(self.own.low),
                false => joined.low,
            },
            high: joined.high.max(self.own.high),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{begin, end, enter};

    #[test]
    fn a_slot_is_entered_once_at_a_time() {
        let slot = begin().expect("slots are free");
        let entered = enter(slot).expect("idle");
        assert!(enter(slot).is_none());
        drop(entered);
        assert!(enter(slot).is_some());
        end(slot);
        assert!(enter(slot).is_none());
    }
}
