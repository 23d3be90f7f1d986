//! A mutator that knows edits: it keeps scripts aligned, which random insertions would shift.
//!
//! A script has a prefix of `prefix_bytes` that chooses the original; then edits follow. Half of
//! the time libFuzzer's own mutations are left to themselves: they bring in the constants that it
//! saw in comparisons.

use crate::damage::EDIT_BYTES;
use libfuzzer_sys::fuzzer_mutate;

/// Mutates the first `size` bytes of `data` and answers the new size, at most `most`.
pub fn script(data: &mut [u8], size: usize, most: usize, seed: u32, prefix_bytes: usize) -> usize {
    let most = most.min(data.len());
    let edits_bytes = size.saturating_sub(prefix_bytes);
    let edit_count = edits_bytes / EDIT_BYTES;
    if seed & 1 == 0 || edit_count == 0 || prefix_bytes + EDIT_BYTES > most {
        return fuzzer_mutate(data, size, most);
    }
    let chosen = prefix_bytes + (seed >> 8) as usize % edit_count * EDIT_BYTES;
    let end = chosen + EDIT_BYTES;
    match seed >> 1 & 7 {
        0 => {
            data.copy_within(end..size, chosen);
            size - EDIT_BYTES
        }
        1 | 2 if size + EDIT_BYTES <= most => {
            data.copy_within(chosen..size, end);
            change(data, chosen);
            size + EDIT_BYTES
        }
        _ => {
            change(data, chosen);
            size
        }
    }
}

/// Another edit in the place of one, with its length kept.
fn change(data: &mut [u8], start: usize) {
    if let Some(edit) = data.get_mut(start..start + EDIT_BYTES) {
        fuzzer_mutate(edit, EDIT_BYTES, EDIT_BYTES);
    }
}
