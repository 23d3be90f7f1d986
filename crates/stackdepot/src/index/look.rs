//! What a bucket's cells hold, a bit per cell: eight loads, for every processor.

use super::Entry;
use crate::layout::Bucket;
use crate::sync::Ordering;

/// The cells with an entry of the hash's fingerprint, committed or not.
#[inline(always)]
pub(super) fn fitting(bucket: &Bucket, hash: u64) -> u32 {
    cells(bucket, |entry| entry.fits(hash))
}

/// The cells with a committed entry of the hash's fingerprint.
#[inline(always)]
pub(super) fn committed(bucket: &Bucket, hash: u64) -> u32 {
    cells(bucket, |entry| entry.is_committed_of(hash))
}

/// The empty cells.
#[inline(always)]
pub(super) fn empty(bucket: &Bucket) -> u32 {
    cells(bucket, Entry::is_empty)
}

#[inline(always)]
fn cells(bucket: &Bucket, is_one: impl Fn(Entry) -> bool) -> u32 {
    // From the last cell on, so that each bit is one addition with carry.
    bucket.cells.iter().rev().fold(0, |mask, cell| {
        // ORDERING: Relaxed: see the head of `index.rs`.
        let entry = Entry(cell.load(Ordering::Relaxed));
        mask << 1 | u32::from(is_one(entry))
    })
}
