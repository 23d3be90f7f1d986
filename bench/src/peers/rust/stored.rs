//! The key of the maps: a stack in memory of its own, which is never given back.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

/// The number of frames, then the frames.
pub struct Stored(&'static [u64]);

impl Stored {
    /// A copy of a stack.
    pub fn new(frames: &[u64]) -> Stored {
        let mut words = Vec::with_capacity(1 + frames.len());
        words.push(frames.len() as u64);
        words.extend_from_slice(frames);
        Stored(words.leak())
    }

    /// Names it for good.
    pub fn handle(&self) -> u64 {
        self.0.as_ptr().expose_provenance() as u64
    }

    fn frames(&self) -> &[u64] {
        &self.0[1..]
    }
}

/// Copies out the stack that `Stored::handle` named.
#[allow(unsafe_code)] // handles are addresses
pub fn fetch(handle: u64, out: &mut [u64]) -> usize {
    let words: *const u64 = std::ptr::with_exposed_provenance(handle as usize);
    // SAFETY: handles come from `Stored::handle` only, and what they point to is never freed: the
    // number of frames, then as many frames.
    let frames = unsafe { std::slice::from_raw_parts(words.add(1), *words as usize) };
    let count = frames.len().min(out.len());
    out[..count].copy_from_slice(&frames[..count]);
    count
}

impl Borrow<[u64]> for Stored {
    fn borrow(&self) -> &[u64] {
        self.frames()
    }
}

impl Hash for Stored {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.frames().hash(hasher);
    }
}

impl PartialEq for Stored {
    fn eq(&self, other: &Stored) -> bool {
        self.frames() == other.frames()
    }
}

impl Eq for Stored {}
