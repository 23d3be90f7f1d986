//! Scratch memory of threads: the frames being recorded and the claim on the unwinder's memory.
//!
//! Too big for static TLS (programs with 16 KiB stacks exist), so it comes from a pool: chunks of
//! 64 blocks, mapped when first needed, a bit per block. Blocks are reused lowest first, so that
//! resident memory follows the largest number of threads alive at once. A thread that gets none is
//! recorded from a buffer on its stack. Claiming is lock-free and safe in signal handlers.
#![allow(unsafe_code)] // hands out blocks of mapped memory

use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::unwind::{self, ThreadSlot};

/// Most frames of a recorded stack.
pub const MAX_FRAMES: usize = 256;
/// One more than is stored, so that the depot sees that a stack is longer, and marks it as cut.
pub const FRAME_ROOM: usize = MAX_FRAMES + 1;
const CHUNK_COUNT: usize = 128;
const CHUNK_BLOCKS: usize = 64;

/// What one thread records with.
///
/// Only `frames` is touched by every thread, so the blocks of a chunk lie close together and the
/// buffers for handlers behind all of them.
#[repr(C, align(8))]
pub struct Scratch {
    /// The stack being recorded, innermost frame first.
    pub frames: [u64; FRAME_ROOM],
    /// What the unwinder remembers of this thread.
    pub unwinder: Option<ThreadSlot>,
}

struct Chunk {
    used: AtomicU64,
    blocks: AtomicPtr<Scratch>,
}

static POOL: [Chunk; CHUNK_COUNT] = [const {
    Chunk {
        used: AtomicU64::new(0),
        blocks: AtomicPtr::new(null_mut()),
    }
}; CHUNK_COUNT];

/// A block for the running thread; null when there is none.
pub fn claim() -> *mut Scratch {
    POOL.iter().find_map(Chunk::claim).unwrap_or(null_mut())
}

/// Gives a block back; null is nothing.
pub fn give_back(block: *mut Scratch) {
    if let Some((chunk, bit)) = locate(block) {
        // SAFETY: a claimed block is the caller's alone until the bit is cleared below.
        if let Some(slot) = unsafe { (*block).unwinder.take() } {
            unwind::thread_end(slot);
        }
        // ORDERING: Release, partner: the AcqRel of `Chunk::claim`; the last owner's writes stay before.
        chunk.used.fetch_and(!bit, Ordering::Release);
    }
}

/// In a forked child: only the running thread is left, so only its block stays in use.
pub fn keep_only(block: *mut Scratch) {
    for chunk in &POOL {
        // A child has one thread here: nothing to order with.
        chunk.used.store(0, Ordering::Relaxed);
    }
    if let Some((chunk, bit)) = locate(block) {
        chunk.used.store(bit, Ordering::Relaxed);
    }
}

/// The buffer of a block for a signal handler that interrupts a recording.
pub fn nested_frames_of(block: *mut Scratch) -> Option<*mut [u64; FRAME_ROOM]> {
    let (chunk, bit) = locate(block)?;
    // ORDERING: Acquire, partner: the Release in `Chunk::map`.
    let blocks = chunk.blocks.load(Ordering::Acquire);
    let index = bit.trailing_zeros() as usize;
    // SAFETY: behind the chunk's blocks the mapping has as many buffers.
    Some(unsafe {
        blocks
            .add(CHUNK_BLOCKS)
            .cast::<[u64; FRAME_ROOM]>()
            .add(index)
    })
}

/// After a jump out of a recording: what the unwinder was in the middle of is not used again.
pub fn renew_unwinder(block: *mut Scratch) {
    // SAFETY: null, or the running thread's own block, of which nothing else is in use now.
    let Some(scratch) = (unsafe { block.as_mut() }) else {
        return;
    };
    if let Some(slot) = scratch.unwinder.take() {
        unwind::thread_end(slot);
    }
    scratch.unwinder = unwind::thread_begin();
}

/// The unwinder's claim that belongs to a block; null has none.
pub fn unwinder_of(block: *mut Scratch) -> Option<ThreadSlot> {
    // SAFETY: null, or the running thread's own block, which `claim` initialised.
    unsafe { block.as_ref() }.and_then(|scratch| scratch.unwinder)
}

fn locate(block: *mut Scratch) -> Option<(&'static Chunk, u64)> {
    if block.is_null() {
        return None;
    }
    POOL.iter().find_map(|chunk| {
        // ORDERING: Acquire, partner: the Release in `Chunk::map`.
        let blocks = chunk.blocks.load(Ordering::Acquire) as usize;
        let index = (block as usize).wrapping_sub(blocks) / size_of::<Scratch>();
        (blocks != 0 && index < CHUNK_BLOCKS).then_some((chunk, 1 << index))
    })
}

impl Chunk {
    fn claim(&self) -> Option<*mut Scratch> {
        let blocks = self.map()?;
        let mut used = self.used.load(Ordering::Relaxed);
        // Ends: every failed exchange is another thread's claim or return of one of 64 blocks.
        while used != u64::MAX {
            let index = (!used).trailing_zeros();
            let wanted = used | 1 << index;
            // ORDERING: AcqRel, partner: the Release in `give_back`: the last owner is done.
            match self
                .used
                .compare_exchange_weak(used, wanted, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => {
                    // SAFETY: index < 64 and the chunk has 64 blocks; the bit made it ours alone.
                    let block = unsafe { blocks.add(index as usize) };
                    // SAFETY: as above; written before anybody reads it.
                    unsafe { (&raw mut (*block).unwinder).write(unwind::thread_begin()) };
                    return Some(block);
                }
                Err(now) => used = now,
            }
        }
        None
    }

    fn map(&self) -> Option<*mut Scratch> {
        // ORDERING: Acquire, partner: the Release below; the mapping exists for whoever sees it.
        let blocks = self.blocks.load(Ordering::Acquire);
        if !blocks.is_null() {
            return Some(blocks);
        }
        let bytes = (size_of::<Scratch>() + size_of::<[u64; FRAME_ROOM]>()) * CHUNK_BLOCKS;
        let fresh = crate::memory::map(bytes)?.cast::<Scratch>().as_ptr();
        // ORDERING: Release, partner: the Acquire above; Acquire on failure for the winner's mapping.
        match self
            .blocks
            .compare_exchange(null_mut(), fresh, Ordering::Release, Ordering::Acquire)
        {
            Ok(_) => Some(fresh),
            Err(winner) => {
                crate::memory::unmap(fresh.cast(), bytes);
                Some(winner)
            }
        }
    }
}
