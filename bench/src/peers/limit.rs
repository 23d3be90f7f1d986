//! The limit: what a store costs that does nothing but hash, find and compare.
//!
//! One thread, a presized table, raw frames in a row, no eviction, no holds. The hash takes four
//! lanes of AES rounds, the comparison goes over every frame. It is the floor to approach.
#![allow(unsafe_code)] // AES and AVX2 instructions, raw memory

use crate::figure::Peer;
use crate::workload::Workload;

/// A table of whole stacks.
pub struct Limit {
    /// Upper half: part of the hash. Lower half: where in `words` the stack begins; 0: empty.
    entries: *mut u64,
    mask: usize,
    /// Of each stack the number of its frames, then the frames.
    words: *mut u64,
    end: std::cell::Cell<usize>,
}

impl Peer for Limit {
    const NAME: &'static str = "limit";

    fn missing() -> Option<String> {
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("aes") && is_x86_feature_detected!("avx2") {
            return None;
        }
        Some("the processor has no AES and AVX2 instructions".to_owned())
    }

    fn new(workload: &Workload) -> Limit {
        let corpus = &workload.corpus;
        let stack_count = corpus.stack_count();
        let frame_count: usize = (0..stack_count as u32).map(|i| corpus.stack(i).len()).sum();
        let entry_count = (stack_count * 2).next_power_of_two();
        let words = crate::machine::untouched((1 + stack_count + frame_count) * 8);
        Limit {
            entries: crate::machine::untouched(entry_count * 8).cast().as_ptr(),
            mask: entry_count - 1,
            words: words.cast().as_ptr(),
            end: std::cell::Cell::new(1),
        }
    }

    #[inline(always)]
    fn save(&self, frames: &[u64]) -> u64 {
        // SAFETY: `missing` found the instructions; tables are sized for all stacks of the workload.
        #[cfg(target_arch = "x86_64")]
        return unsafe { self.find_or_add(frames) };
        #[cfg(not(target_arch = "x86_64"))]
        0
    }

    #[inline(never)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        // SAFETY: handles are places of stacks in `words`.
        unsafe {
            let stack = self.words.add(handle as usize);
            let count = (*stack as usize).min(out.len());
            std::ptr::copy_nonoverlapping(stack.add(1), out.as_mut_ptr(), count);
            count
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod instructions {
    use super::Limit;
    use std::arch::x86_64::*;

    impl Limit {
        /// # Safety
        /// The processor has AES and AVX2, and the tables have room.
        #[inline(never)]
        #[target_feature(enable = "aes,avx2")]
        pub(super) unsafe fn find_or_add(&self, frames: &[u64]) -> u64 {
            let hash = hash(frames);
            let mut index = hash as usize & self.mask;
            loop {
                // SAFETY: the mask keeps the index within the entries; an entry names a stack.
                unsafe {
                    let entry = *self.entries.add(index);
                    if entry == 0 {
                        return self.add(frames, hash, index);
                    }
                    let stack = self.words.add(entry as u32 as usize);
                    if entry >> 32 == hash >> 32
                        && *stack == frames.len() as u64
                        && equal(frames, stack.add(1))
                    {
                        return u64::from(entry as u32);
                    }
                }
                index = (index + 1) & self.mask;
            }
        }

        /// # Safety
        /// `index` is that of an empty entry, and `words` has room.
        unsafe fn add(&self, frames: &[u64], hash: u64, index: usize) -> u64 {
            let start = self.end.get();
            // SAFETY: the tables were sized for this stack too.
            unsafe {
                let stack = self.words.add(start);
                *stack = frames.len() as u64;
                stack
                    .add(1)
                    .copy_from_nonoverlapping(frames.as_ptr(), frames.len());
                *self.entries.add(index) = hash >> 32 << 32 | start as u64;
            }
            self.end.set(start + 1 + frames.len());
            start as u64
        }
    }

    #[target_feature(enable = "aes,avx2")]
    fn load(frames: &[u64], index: usize) -> __m128i {
        debug_assert!(index + 2 <= frames.len());
        // SAFETY: the two words lie within the frames.
        unsafe { _mm_loadu_si128(frames.as_ptr().add(index).cast()) }
    }

    #[target_feature(enable = "aes,avx2")]
    fn hash(frames: &[u64]) -> u64 {
        let count = frames.len();
        let seed = _mm_set1_epi64x(0x9e37_79b9_7f4a_7c15_u64 as i64 ^ count as i64);
        if count < 8 {
            return finish(short(frames, seed));
        }
        let mut lanes = [seed; 4];
        let mut start = 0;
        while start + 8 <= count {
            lanes = round(lanes, frames, start);
            start += 8;
        }
        if start < count {
            lanes = round(lanes, frames, count - 8);
        }
        let left = _mm_aesenc_si128(lanes[0], lanes[1]);
        let right = _mm_aesenc_si128(lanes[2], lanes[3]);
        finish(_mm_aesenc_si128(left, right))
    }

    #[target_feature(enable = "aes,avx2")]
    fn round(lanes: [__m128i; 4], frames: &[u64], start: usize) -> [__m128i; 4] {
        [
            _mm_aesenc_si128(lanes[0], load(frames, start)),
            _mm_aesenc_si128(lanes[1], load(frames, start + 2)),
            _mm_aesenc_si128(lanes[2], load(frames, start + 4)),
            _mm_aesenc_si128(lanes[3], load(frames, start + 6)),
        ]
    }

    #[target_feature(enable = "aes,avx2")]
    fn short(frames: &[u64], seed: __m128i) -> __m128i {
        let mut lane = seed;
        let mut start = 0;
        while start + 2 <= frames.len() {
            lane = _mm_aesenc_si128(lane, load(frames, start));
            start += 2;
        }
        if let (true, Some(&last)) = (start < frames.len(), frames.last()) {
            lane = _mm_aesenc_si128(lane, _mm_set1_epi64x(last as i64));
        }
        lane
    }

    #[target_feature(enable = "aes,avx2")]
    fn finish(lane: __m128i) -> u64 {
        let mixed = _mm_aesenc_si128(_mm_aesenc_si128(lane, lane), lane);
        _mm_cvtsi128_si64(mixed) as u64
    }

    /// # Safety
    /// As many words as there are `frames` can be read from `stored`.
    #[target_feature(enable = "aes,avx2")]
    unsafe fn equal(frames: &[u64], stored: *const u64) -> bool {
        let count = frames.len();
        if count < 4 {
            // SAFETY: the caller's promise.
            return (0..count).all(|index| unsafe { frames[index] == *stored.add(index) });
        }
        let mut difference = _mm256_setzero_si256();
        let mut start = 0;
        while start + 4 < count {
            // SAFETY: four words from `start` lie within both.
            difference = unsafe { _mm256_or_si256(difference, differ(frames, stored, start)) };
            start += 4;
        }
        // SAFETY: the last four words of both.
        difference = unsafe { _mm256_or_si256(difference, differ(frames, stored, count - 4)) };
        _mm256_testz_si256(difference, difference) == 1
    }

    /// # Safety
    /// Four words from `start` lie within both.
    #[target_feature(enable = "aes,avx2")]
    unsafe fn differ(frames: &[u64], stored: *const u64, start: usize) -> __m256i {
        // SAFETY: the caller's promise.
        unsafe {
            let ours = _mm256_loadu_si256(frames.as_ptr().add(start).cast());
            let theirs = _mm256_loadu_si256(stored.add(start).cast());
            _mm256_xor_si256(ours, theirs)
        }
    }
}
