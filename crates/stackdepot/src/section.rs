//! Plain memory as lines of eight atomic words: what the ring and the live table stand on.
//!
//! Key type: [`WordLine`]. This is the only file of the two that turns memory into references;
//! everything above it (`ring.rs`, `live.rs`) is safe code over a slice of lines. All-zero
//! lines are a valid empty ring or table, so that making one touches only its header.
//! `cfg(loom)` puts boxes in the place of memory, because loom's atomics are no plain bytes.

use crate::sync::{AtomicU64, Ordering};
use core::fmt;

/// Bytes of a line.
pub(crate) const LINE_BYTES: usize = 64;

/// One cache line of shared words.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct WordLine(pub [AtomicU64; 8]);

impl WordLine {
    /// As a header: its magic number, and its other words by their place (0 beyond its end). Who sees
    /// the magic number sees the words that were written before it.
    pub(crate) fn header(&self) -> (u64, impl Fn(usize) -> u64 + '_) {
        let WordLine(words) = self;
        let word = |index: usize| words.get(index).map_or(0, |w| w.load(Ordering::Relaxed));
        // ORDERING: Acquire, partner: `write_header` of the ring and of the live table.
        (words[0].load(Ordering::Acquire), word)
    }
}

/// Why memory is not taken for a ring or a live table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SectionError {
    /// The memory does not start at a multiple of 64.
    Unaligned,
    /// It is shorter than what its header describes, or than a header.
    TooShort {
        /// What is there.
        given_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// It does not start with the magic number.
    Foreign {
        /// What was looked for.
        what: &'static str,
    },
    /// It was made by another version of the format.
    Version {
        /// The version found.
        found: u64,
    },
    /// A number in the header contradicts the others: the memory is damaged.
    Damaged {
        /// Which number.
        field: &'static str,
    },
}

impl fmt::Display for SectionError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SectionError::Unaligned => {
                write!(out, "the section does not start at a multiple of 64")
            }
            SectionError::TooShort {
                given_bytes,
                needed_bytes,
            } => {
                write!(
                    out,
                    "the section needs {needed_bytes} bytes, but only {given_bytes} are there"
                )
            }
            SectionError::Foreign { what } => write!(out, "no {what}: the magic number is missing"),
            SectionError::Version { found } => {
                write!(out, "section format {found} is not known to this version")
            }
            SectionError::Damaged { field } => write!(
                out,
                "damaged section: its {field} contradicts the rest of the header"
            ),
        }
    }
}

impl core::error::Error for SectionError {}

/// The little-endian word at `index` of a byte copy; 0 beyond its end.
pub(crate) fn word_at(bytes: &[u8], index: usize) -> u64 {
    let start = index.saturating_mul(8);
    match bytes
        .get(start..start.saturating_add(8))
        .and_then(|word| word.try_into().ok())
    {
        Some(word) => u64::from_le_bytes(word),
        None => 0,
    }
}

#[cfg(not(loom))]
pub(crate) use real::{lines_at, lines_of};

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "turns memory into references to atomics, once, with checked bounds"
)]
mod real {
    use super::{LINE_BYTES, SectionError, WordLine};
    use crate::layout::Line;
    use core::ptr::NonNull;

    const _: () = {
        assert!(size_of::<WordLine>() == LINE_BYTES && size_of::<Line>() == LINE_BYTES);
        assert!(align_of::<WordLine>() == align_of::<Line>());
    };

    /// Zeroes borrowed memory and views it as shared words.
    pub(crate) fn lines_of(memory: &mut [Line]) -> &[WordLine] {
        memory.fill(Line::ZERO);
        // SAFETY: both types are 64 bytes at alignment 64 (asserted above) and valid for every
        // bit pattern; the exclusive borrow is given up for a shared one of the same life.
        unsafe { core::slice::from_raw_parts(memory.as_ptr().cast(), memory.len()) }
    }

    /// Views `bytes` of memory, rounded down to whole lines, as shared words.
    ///
    /// # Safety
    /// `base` is valid for reads and writes of `bytes` bytes for `'r` and is accessed only
    /// through atomics meanwhile (also by other processes).
    pub(crate) unsafe fn lines_at<'r>(
        base: NonNull<u8>,
        bytes: usize,
    ) -> Result<&'r [WordLine], SectionError> {
        if !base.addr().get().is_multiple_of(LINE_BYTES) {
            return Err(SectionError::Unaligned);
        }
        // SAFETY: aligned (checked); the caller promises the memory; atomics are valid for every
        // bit pattern and may be shared.
        Ok(unsafe { core::slice::from_raw_parts(base.as_ptr().cast(), bytes / LINE_BYTES) })
    }
}

#[cfg(loom)]
pub use boxed::SectionMemory;

#[cfg(loom)]
mod boxed {
    use super::WordLine;
    use crate::sync::AtomicU64;

    /// The memory of a ring or a live table under loom: boxes of loom's atomics, all zero.
    #[derive(Debug)]
    pub struct SectionMemory(Vec<WordLine>);

    impl SectionMemory {
        /// That many lines of zeros.
        pub fn new(line_count: usize) -> SectionMemory {
            let line = |_| WordLine(core::array::from_fn(|_| AtomicU64::new(0)));
            SectionMemory((0..line_count).map(line).collect())
        }

        pub(crate) fn lines(&self) -> &[WordLine] {
            &self.0
        }
    }
}
