//! A mutator that knows edits: it keeps scripts aligned, which random insertions would shift.
//!
//! A script has a prefix of `prefix_bytes` that chooses the original; then edits follow. Many
//! scripts are a single fresh edit, for the more edits there are, the likelier one of them is
//! refused before the others are looked at. About three times in eight libFuzzer's own mutations are left
//! to themselves: they bring in the constants that it saw in comparisons.

use crate::damage::EDIT_BYTES;
use libfuzzer_sys::fuzzer_mutate;

/// Mutates the first `size` bytes of `data` and answers the new size, at most `most`.
pub fn script(data: &mut [u8], size: usize, most: usize, seed: u32, prefix_bytes: usize) -> usize {
    let most = most.min(data.len());
    let first_end = prefix_bytes + EDIT_BYTES;
    if size < prefix_bytes || first_end > most {
        return fuzzer_mutate(data, size, most);
    }
    let mut random = Random(u64::from(seed));
    let edit_count = (size - prefix_bytes) / EDIT_BYTES;
    let chosen = prefix_bytes + random.below(edit_count.max(1) as u64) as usize * EDIT_BYTES;
    let end = chosen + EDIT_BYTES;
    match random.below(8) {
        0 if edit_count > 1 => {
            data.copy_within(end..size, chosen);
            size - EDIT_BYTES
        }
        1 | 2 if size + EDIT_BYTES <= most => {
            data.copy_within(chosen..size, end);
            write_fresh(data, chosen, &mut random);
            size + EDIT_BYTES
        }
        3 => {
            write_fresh(data, prefix_bytes, &mut random);
            first_end
        }
        4 if edit_count > 0 => {
            if let Some(edit) = data.get_mut(chosen..end) {
                fuzzer_mutate(edit, EDIT_BYTES, EDIT_BYTES);
            }
            size
        }
        _ => fuzzer_mutate(data, size, most),
    }
}

/// An edit of any part, unit and field, with a value of the kind that matters.
fn write_fresh(data: &mut [u8], start: usize, random: &mut Random) {
    let value = match random.below(4) {
        0 => random.below(4),
        1 => random.below(4096),
        2 => 1 << random.below(64),
        _ => random.next(),
    };
    let edit = [random.next(), value].map(u64::to_le_bytes);
    let place = data.get_mut(start..).unwrap_or_default();
    place
        .iter_mut()
        .zip(edit.as_flattened())
        .for_each(|(byte, new)| *byte = *new);
}

/// SplitMix64: the same mutation for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ word >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
