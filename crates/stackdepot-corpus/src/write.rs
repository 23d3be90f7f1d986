//! Writes a corpus in the format that [`crate::read`] describes.
//!
//! Used by the generator of the small corpus in git and by tests that damage a valid file.

use ruzstd::encoding::{CompressionLevel, compress_to_vec};

use crate::Corpus;
use crate::read::MAGIC;

impl Corpus {
    /// The corpus as uncompressed bytes.
    pub fn to_raw(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let counts = [
            self.module_map.len(),
            self.stack_count(),
            self.frames.len(),
            self.events.len(),
            self.slot_count(),
            self.thread_count(),
            0,
        ];
        put(
            &mut out,
            counts.iter().map(|&count| (count as u64).to_le_bytes()),
        );
        put(&mut out, self.module_map.bytes().map(|byte| [byte]));
        let lengths = self
            .offsets
            .iter()
            .zip(self.offsets.iter().skip(1))
            .map(|(start, end)| end - start);
        put(
            &mut out,
            lengths.map(|length| (length as u32).to_le_bytes()),
        );
        put(
            &mut out,
            self.frames.iter().map(|frame| frame.to_le_bytes()),
        );
        put(
            &mut out,
            self.events
                .iter()
                .map(|event| [if event.is_alloc { 1 } else { 2 }]),
        );
        put(
            &mut out,
            self.events.iter().map(|event| event.thread.to_le_bytes()),
        );
        put(
            &mut out,
            self.events.iter().map(|event| event.stack.to_le_bytes()),
        );
        put(
            &mut out,
            self.events.iter().map(|event| event.slot.to_le_bytes()),
        );
        put(
            &mut out,
            self.events.iter().map(|event| event.size.to_le_bytes()),
        );
        out
    }

    /// The corpus as one zstd frame: the bytes of a `.stk.zst` file.
    pub fn to_zstd(&self) -> Vec<u8> {
        compress_to_vec(self.to_raw().as_slice(), CompressionLevel::Fastest)
    }
}

/// Appends one section and its padding.
fn put<const E: usize>(out: &mut Vec<u8>, elements: impl Iterator<Item = [u8; E]>) {
    for element in elements {
        out.extend_from_slice(&element);
    }
    out.resize(out.len().next_multiple_of(8), 0);
}
