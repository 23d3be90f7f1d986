//! A small static bump arena for the few blocks that are asked for while the real allocator is
//! still being looked up (`dlsym` may allocate).
//!
//! Blocks are never given back; [`owns`] lets the hooks recognise them, so that they never reach
//! the real allocator. Neighbours: `symbols` decides when it is used, the hooks ask [`owns`].
#![allow(unsafe_code)] // hands out bytes of a static

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering};

/// All there is.
pub const ARENA_BYTES: usize = 64 * 1024;
/// Before each block: its size, so that `realloc` knows how much to copy.
const HEADER_BYTES: usize = 16;
const PAGE_BYTES: usize = 4096;

/// The bytes.
#[repr(C, align(4096))]
pub struct Arena(UnsafeCell<[u8; ARENA_BYTES]>);

// SAFETY: bytes are handed out once each, by `USED.fetch_add`; the arena itself never reads them.
unsafe impl Sync for Arena {}

/// The one there is.
pub static ARENA: Arena = Arena(UnsafeCell::new([0; ARENA_BYTES]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// Whether an address was handed out by [`allocate`].
#[inline]
pub fn owns(address: *const c_void) -> bool {
    (address as usize).wrapping_sub(ARENA.0.get() as usize) < ARENA_BYTES
}

/// A zeroed block that is never given back; null when the arena is used up.
#[cold]
pub fn allocate(size: usize, align: usize) -> *mut c_void {
    if size > ARENA_BYTES || align > PAGE_BYTES {
        return null_mut();
    }
    let align = align.max(HEADER_BYTES).next_power_of_two();
    let wanted = size + HEADER_BYTES + align;
    if wanted > ARENA_BYTES {
        return null_mut();
    }
    // Statistics-like claim: the bytes are handed to one caller only, nothing is published by it.
    let start = USED.fetch_add(wanted, Ordering::Relaxed);
    if start > ARENA_BYTES - wanted {
        return null_mut();
    }
    let base = ARENA.0.get() as usize;
    let block = (base + start + HEADER_BYTES + align - 1) & !(align - 1);
    // SAFETY: block - HEADER_BYTES .. block + size lies within the `wanted` bytes claimed above.
    unsafe { ((block - HEADER_BYTES) as *mut usize).write(size) };
    block as *mut c_void
}

/// The size that a block of this arena was asked with.
pub fn size_of(block: *const c_void) -> usize {
    // SAFETY: callers pass what `owns` said yes to, and every block has its header before it.
    unsafe { ((block as usize - HEADER_BYTES) as *const usize).read() }
}
