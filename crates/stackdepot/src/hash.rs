//! The prefix hash: names a run and everything above it in 64 bits.
//!
//! Key type: [`Hasher`]. Each run is hashed for itself, five multiply-folds that do not wait
//! for each other; then the runs' hashes are chained from the root. So the processor overlaps
//! the runs, and only one short multiplication per run is on the critical path. Collisions
//! cost a comparison, never a wrong answer; the keys come from the region's seed, so that
//! nobody who does not know it can aim them.

use crate::frame::{MASKS, Run};
use crate::layout::RUN_FRAMES;

/// The keys of a region's hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    lanes: Run,
    chain: u64,
    root: u64,
    cut_root: u64,
}

/// Multiplies to 128 bits and folds the halves.
#[inline]
const fn fold(left: u64, right: u64) -> u64 {
    let product = left as u128 * right as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The next number of a SplitMix64 sequence.
const fn next_key(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut key = *state;
    key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

impl Hasher {
    /// The keys that follow from a seed.
    pub fn new(seed: u64) -> Hasher {
        let mut state = seed;
        let mut lanes = [0; RUN_FRAMES];
        for lane in &mut lanes {
            *lane = next_key(&mut state);
        }
        let chain = next_key(&mut state) | 1;
        Hasher { lanes, chain, root: next_key(&mut state), cut_root: next_key(&mut state) }
    }

    /// Where the chain starts; a stack that was cut differs from the whole one.
    #[inline]
    pub fn start(&self, is_cut: bool) -> u64 {
        if is_cut { self.cut_root } else { self.root }
    }

    /// Extends the chain by a full run.
    #[inline]
    pub fn full(&self, prefix: u64, run: &Run) -> u64 {
        self.chained(prefix, self.run(run), RUN_FRAMES)
    }

    /// Extends the chain by the first `length` words of a run.
    #[inline]
    pub fn partial(&self, prefix: u64, run: &Run, length: usize) -> u64 {
        let mut masked = *run;
        for (word, mask) in masked.iter_mut().zip(MASKS.get(length).unwrap_or(&[0; RUN_FRAMES])) {
            *word &= mask;
        }
        self.chained(prefix, self.run(&masked), length)
    }

    #[inline]
    fn run(&self, run: &Run) -> u64 {
        let mut hash = 0;
        for (words, keys) in run.as_chunks::<2>().0.iter().zip(self.lanes.as_chunks::<2>().0) {
            hash ^= fold(words[0] ^ keys[0], words[1] ^ keys[1]);
        }
        hash
    }

    #[inline]
    fn chained(&self, prefix: u64, run_hash: u64, length: usize) -> u64 {
        fold(prefix ^ run_hash, self.chain.wrapping_add((length as u64) << 32))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn length_cut_order_and_seed_all_change_the_hash() {
        let hasher = Hasher::new(1);
        let run: Run = core::array::from_fn(|position| position as u64);
        let start = hasher.start(false);
        let base = hasher.full(start, &run);
        let mut swapped = run;
        swapped.swap(0, 2);
        let others = [
            hasher.partial(start, &run, 9),
            hasher.full(hasher.start(true), &run),
            hasher.full(start, &swapped),
            hasher.full(base, &run),
            Hasher::new(2).full(Hasher::new(2).start(false), &run),
        ];
        assert!(!others.contains(&base), "{base:x} {others:x?}");
    }

    #[test]
    fn words_beyond_the_length_do_not_count() {
        let hasher = Hasher::new(7);
        let mut run: Run = [3; RUN_FRAMES];
        let hash = hasher.partial(9, &run, 4);
        run[7] = 99;
        assert_eq!(hasher.partial(9, &run, 4), hash);
        run[3] = 99;
        assert_ne!(hasher.partial(9, &run, 4), hash);
    }

    #[test]
    fn low_and_high_halves_spread_over_buckets_for_neighbouring_addresses() {
        let hasher = Hasher::new(3);
        let mut filled = [0u32; 256];
        for address in 0..4096u64 {
            let hash = hasher.partial(hasher.start(false), &crate::frame::pad(&[0x5555_0000 + address * 4]), 1);
            filled[(hash as u32 >> 24) as usize] += 1;
            filled[(hash >> 56) as usize] += 1;
        }
        assert!(filled.iter().all(|count| (8..80).contains(count)), "{filled:?}");
    }
}
