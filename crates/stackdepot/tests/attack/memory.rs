//! Memory for attacks: shared with forked children, and copied at one moment.
//!
//! Key types: [`Shared`], an anonymous mapping that survives its writers, and [`Copied`], the
//! bytes of a region as a kill at this moment would leave them.

use stackdepot::Line;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

/// Zeroed memory that this process shares with those it forks.
pub struct Shared {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: an address; what lies there is only ever accessed as atomics.
unsafe impl Sync for Shared {}

impl Shared {
    pub fn new(bytes: usize) -> Shared {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping of no file, at no wanted address.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        assert_ne!(base, libc::MAP_FAILED, "no memory for {bytes} bytes");
        Shared {
            base: NonNull::new(base.cast()).unwrap(),
            bytes,
        }
    }

    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// All of it as words that others may be changing.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, lives as long as `self`, and is only ever
        // accessed as atomics.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes / 8) }
    }

    /// The words from `offset` on, copied one after the other.
    pub fn copy(&self, offset: usize, bytes: usize) -> Copied {
        Copied::of(&self.words()[offset / 8..(offset + bytes) / 8])
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nobody outlives the borrow of `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// A copy of shared memory, aligned like it.
#[derive(Clone)]
pub struct Copied(Vec<Line>);

impl Copied {
    pub fn zeroed(bytes: usize) -> Copied {
        Copied(vec![Line::ZERO; bytes.div_ceil(64)])
    }

    /// Memory that a depot is done with.
    pub fn of_lines(lines: Vec<Line>) -> Copied {
        Copied(lines)
    }

    pub fn of(words: &[AtomicU64]) -> Copied {
        let mut copied = Copied(vec![Line::ZERO; words.len().div_ceil(8)]);
        for (place, word) in copied.words_mut().iter_mut().zip(words) {
            *place = word.load(Ordering::Relaxed);
        }
        copied
    }

    fn words_mut(&mut self) -> &mut [u64] {
        let count = self.0.len() * 8;
        // SAFETY: lines are 64 plain bytes, exclusively borrowed.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_mut_ptr().cast(), count) }
    }

    pub fn words(&self) -> &[u64] {
        // SAFETY: lines are 64 plain bytes, aligned to 64.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), self.0.len() * 8) }
    }

    pub fn bytes(&self) -> &[u8] {
        // SAFETY: lines are 64 plain bytes.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().cast(), size_of_val(&self.0[..])) }
    }

    /// Where it lies, for opening it as a later process would.
    pub fn base(&mut self) -> NonNull<u8> {
        NonNull::new(self.0.as_mut_ptr()).unwrap().cast()
    }
}
