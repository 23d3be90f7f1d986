//! What a bucket's cells hold, a bit per cell: the whole line in four loads.
//!
//! Every x86-64 processor has the instructions; a kernel may not use them.
#![expect(
    unsafe_code,
    reason = "vectors of shared words, and instructions that a kernel may not use"
)]

use super::Entry;
use crate::layout::{BUCKET_CELLS, Bucket};
use core::arch::asm;
use core::arch::x86_64::*;

const _: () = assert!(BUCKET_CELLS == 8);

/// The cells with an entry of the hash's fingerprint, committed or not.
#[inline(always)]
pub(super) fn fitting(bucket: &Bucket, hash: u64) -> u32 {
    // SAFETY: this file is compiled only where SSE2 is at hand.
    unsafe { fitting_in_vectors(bucket, hash) }
}

/// The cells with a committed entry of the hash's fingerprint.
#[inline(always)]
pub(super) fn committed(bucket: &Bucket, hash: u64) -> u32 {
    // SAFETY: as above.
    unsafe { committed_in_vectors(bucket, hash) }
}

/// The empty cells.
#[inline(always)]
pub(super) fn empty(bucket: &Bucket) -> u32 {
    // SAFETY: as above.
    unsafe { empty_in_vectors(bucket) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn fitting_in_vectors(bucket: &Bucket, hash: u64) -> u32 {
    let tentative = Entry::new(hash, 0).tentative();
    let bit = _mm_set1_epi32((Entry::TENTATIVE >> 32) as i32);
    let entries = load(bucket).map(|(_, upper)| _mm_or_si128(upper, bit));
    equal(entries, upper_half(tentative))
}

#[inline]
#[target_feature(enable = "sse2")]
fn committed_in_vectors(bucket: &Bucket, hash: u64) -> u32 {
    let entries = load(bucket).map(|(_, upper)| upper);
    equal(entries, upper_half(Entry::new(hash, 0)))
}

/// All of an entry but its slot: the fingerprint, and the bit that says "tentative".
#[inline]
#[target_feature(enable = "sse2")]
fn upper_half(entry: Entry) -> __m128i {
    _mm_set1_epi32((entry.0 >> 32) as i32)
}

#[inline]
#[target_feature(enable = "sse2")]
fn empty_in_vectors(bucket: &Bucket) -> u32 {
    let cells = load(bucket).map(|(lower, upper)| _mm_or_si128(lower, upper));
    equal(cells, _mm_setzero_si128())
}

/// The lower and the upper halves of the first four cells, and of the last four.
#[inline]
#[target_feature(enable = "sse2")]
fn load(bucket: &Bucket) -> [(__m128i, __m128i); 2] {
    let (a, b, c, d): (__m128i, __m128i, __m128i, __m128i);
    // SAFETY: loads the line that `bucket` refers to; each cell is loaded whole, as if by a relaxed
    // load.
    unsafe {
        asm!(
            "movdqa {a}, [{bucket}]",
            "movdqa {b}, [{bucket} + 16]",
            "movdqa {c}, [{bucket} + 32]",
            "movdqa {d}, [{bucket} + 48]",
            bucket = in(reg) bucket,
            a = out(xmm_reg) a,
            b = out(xmm_reg) b,
            c = out(xmm_reg) c,
            d = out(xmm_reg) d,
            options(readonly, nostack, preserves_flags),
        );
    }
    [(a, b), (c, d)].map(|(first, second)| {
        let (first, second) = (_mm_castsi128_ps(first), _mm_castsi128_ps(second));
        (
            _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(first, second)),
            _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(first, second)),
        )
    })
}

/// A bit for each word that is the one wanted.
#[inline]
#[target_feature(enable = "sse2")]
fn equal(words: [__m128i; 2], wanted: __m128i) -> u32 {
    let [left, right] = words.map(|words| {
        let is_equal = _mm_cmpeq_epi32(words, wanted);
        _mm_movemask_ps(_mm_castsi128_ps(is_equal)) as u32
    });
    left | right << 4
}
