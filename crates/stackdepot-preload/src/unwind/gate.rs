//! Keeps `dlclose` and table reads apart, without locks.
//!
//! A walk that misses the rule cache reads a module's tables, which a concurrent `dlclose`
//! could unmap. Readers announce themselves in a sharded count; the `dlclose` hook raises
//! [`closing_begin`], waits (bounded) for readers that got in before, makes the real call and
//! ends with [`closing_end`], which raises the epoch: cached rules and memos of before are
//! void. While somebody closes, other threads' reads are refused and their walks end as
//! truncated; the closing thread itself may read, for it holds the modules in place.

#![allow(unsafe_code)] // reads the thread pointer

use super::{cache, known};
use core::arch::asm;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

const SHARD_COUNT: usize = 16;
const SHARD_SHIFT: u32 = 14;
/// How often `closing_begin` yields to readers before it goes on regardless.
const WAIT_ROUNDS: u32 = 2_000;

#[repr(align(64))]
struct Shard(AtomicU32);

static READERS: [Shard; SHARD_COUNT] = [const { Shard(AtomicU32::new(0)) }; SHARD_COUNT];
/// Calls of `dlclose` under way.
static CLOSER_COUNT: AtomicU32 = AtomicU32::new(0);
/// Thread pointer of the first closer, 0 for none.
static OWNER: AtomicU64 = AtomicU64::new(0);
/// Nested calls of the owner; only the owner touches it.
static OWNER_DEPTH: AtomicU32 = AtomicU32::new(0);
static EPOCH: AtomicU32 = AtomicU32::new(1);

/// The number of the present set of modules; what was learnt under another one is void.
#[inline]
pub fn epoch() -> u32 {
    // ORDERING: Acquire, with the AcqRel in `raise_epoch`: whoever sees the new epoch also
    // sees the cleared cache.
    EPOCH.load(Ordering::Acquire)
}

/// Voids every cached rule and memo.
pub fn raise_epoch() {
    let next = EPOCH.load(Ordering::Relaxed).wrapping_add(1);
    if next & 0xffff == 0 {
        // The key holds 16 bits of the epoch: from here on they repeat.
        cache::clear();
    }
    // ORDERING: AcqRel, with the Acquire in `epoch`.
    EPOCH.fetch_add(1, Ordering::AcqRel);
}

/// Proof that this thread may read tables; ends when dropped.
#[derive(Debug)]
pub struct TableAccess(&'static AtomicU32);

impl Drop for TableAccess {
    fn drop(&mut self) {
        // ORDERING: Release, with the Acquire in `closing_begin`: the reads are done.
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Access to the modules' tables, or `None` while another thread closes a module.
pub fn read_tables() -> Option<TableAccess> {
    let marker = 0_u8;
    let shard = (&raw const marker as usize >> SHARD_SHIFT) % SHARD_COUNT;
    let readers = &READERS.get(shard)?.0;
    // Two-sided with `closing_begin`: of my announcement and the closer's, each followed by a
    // SeqCst fence, at least one is seen by the other. I see it: I leave. It sees mine: it
    // waits for me.
    // ORDERING: Relaxed, ordered by the fence.
    readers.fetch_add(1, Ordering::Relaxed);
    let access = TableAccess(readers);
    // ORDERING: SeqCst fence, with the one in `closing_begin`.
    fence(Ordering::SeqCst);
    let may_read =
        // ORDERING: Relaxed, ordered by the fence; OWNER is mine only if I stored it.
        CLOSER_COUNT.load(Ordering::Relaxed) == 0 || OWNER.load(Ordering::Relaxed) == thread_pointer();
    may_read.then_some(access)
}

/// Announces a `dlclose`; to be called before the real one. Answers whether every reader has
/// left (`false`: one did not within the bound, for example because this thread interrupted
/// it by a signal).
pub fn closing_begin() -> bool {
    // ORDERING: Relaxed, ordered by the fence below.
    CLOSER_COUNT.fetch_add(1, Ordering::Relaxed);
    let me = thread_pointer();
    if OWNER.load(Ordering::Relaxed) == me {
        OWNER_DEPTH.fetch_add(1, Ordering::Relaxed);
    } else {
        // ORDERING: Relaxed: only this thread compares OWNER with its own thread pointer. A
        // second closer owns nothing: its own walks are refused too.
        let _ = OWNER.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed);
    }
    // ORDERING: SeqCst fence, with the one in `read_tables`.
    fence(Ordering::SeqCst);
    for _ in 0..WAIT_ROUNDS {
        // ORDERING: Acquire, with the Release in `TableAccess::drop`.
        if READERS
            .iter()
            .all(|shard| shard.0.load(Ordering::Acquire) == 0)
        {
            return true;
        }
        // SAFETY: no arguments, cannot fail.
        unsafe { libc::sched_yield() };
    }
    false
}

/// Ends what [`closing_begin`] began; to be called after the real `dlclose`.
pub fn closing_end() {
    known::forget_unloaded();
    raise_epoch();
    if OWNER.load(Ordering::Relaxed) == thread_pointer() {
        if OWNER_DEPTH.load(Ordering::Relaxed) > 0 {
            OWNER_DEPTH.fetch_sub(1, Ordering::Relaxed);
        } else {
            OWNER.store(0, Ordering::Relaxed);
        }
    }
    // ORDERING: Release, with the fence in `read_tables`: the modules are gone, the epoch is
    // new.
    CLOSER_COUNT.fetch_sub(1, Ordering::Release);
}

/// In the child of a fork: other threads, their reads and closings are gone.
pub fn reset_in_child() {
    for shard in &READERS {
        shard.0.store(0, Ordering::Relaxed);
    }
    CLOSER_COUNT.store(0, Ordering::Relaxed);
    OWNER.store(0, Ordering::Relaxed);
    OWNER_DEPTH.store(0, Ordering::Relaxed);
}

/// The address of this thread's control block: tells threads apart without thread-locals.
pub fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: the x86-64 ABI keeps the thread pointer at fs:0.
    unsafe {
        asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, preserves_flags, readonly));
    }
    pointer
}

#[cfg(test)]
mod tests {
    use super::{closing_begin, closing_end, epoch, read_tables};

    #[test]
    fn while_one_thread_closes_only_it_may_read() {
        let before = epoch();
        assert!(closing_begin());
        assert!(closing_begin());
        closing_end();
        assert!(read_tables().is_some());
        let other = std::thread::spawn(|| read_tables().is_some());
        assert!(!other.join().expect("no panic"));
        closing_end();
        let other = std::thread::spawn(|| read_tables().is_some());
        assert!(other.join().expect("no panic"));
        assert!(epoch() >= before + 2);
    }
}
