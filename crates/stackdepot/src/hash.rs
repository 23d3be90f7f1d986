//! The prefix hash: names a run and everything above it in 64 bits.
//!
//! Key type: [`Hasher`]. Each run is hashed for itself, in five steps that
//! do not wait for each other: multiply-folds, or AES rounds where the processor has them. Then
//! the runs' hashes are chained from the root. So the processor overlaps the runs, and only one
//! multiplication per run is on the critical path. Collisions cost a comparison, never a wrong
//! answer; the keys come from the region's seed, so that nobody who does not know it can aim
//! them. The header says which of the two kinds a region has: they do not mix.

use crate::aes::Aes;
use crate::config::HashChoice;
use crate::frame::Run;
use crate::layout::{HASH_AES, HASH_MULTIPLY_FOLD, RUN_FRAMES};

/// The keys of a region's hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher {
    pub lanes: Run,
    chain: u64,
    root: u64,
    cut_root: u64,
    /// Whether the runs are hashed in AES rounds.
    pub aes: Option<Aes>,
}

/// Multiplies to 128 bits and folds the halves.
#[inline]
pub(crate) const fn fold(left: u64, right: u64) -> u64 {
    let product = left as u128 * right as u128;
    product as u64 ^ (product >> 64) as u64
}

/// The next number of a SplitMix64 sequence.
pub(crate) const fn next_key(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut key = *state;
    key = (key ^ key >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    key = (key ^ key >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    key ^ key >> 31
}

impl Hasher {
    /// The hash for a new region.
    pub fn choose(choice: HashChoice, seed: u64) -> Hasher {
        Hasher::with_keys(
            seed,
            if choice == HashChoice::Fastest {
                Aes::detect()
            } else {
                None
            },
        )
    }

    /// The number by which a header names this hash.
    pub fn kind(&self) -> u32 {
        if self.aes.is_some() {
            HASH_AES
        } else {
            HASH_MULTIPLY_FOLD
        }
    }

    /// The hash that a header names; `None` when this processor cannot compute it.
    pub fn new(kind: u32, seed: u64) -> Option<Hasher> {
        match kind {
            HASH_MULTIPLY_FOLD => Some(Hasher::with_keys(seed, None)),
            HASH_AES => Some(Hasher::with_keys(seed, Some(Aes::detect()?))),
            _ => None,
        }
    }

    fn with_keys(seed: u64, aes: Option<Aes>) -> Hasher {
        let mut state = seed;
        let mut lanes = [0; RUN_FRAMES];
        for lane in &mut lanes {
            *lane = next_key(&mut state);
        }
        let chain = next_key(&mut state) | 1;
        Hasher {
            lanes,
            chain,
            root: next_key(&mut state),
            cut_root: next_key(&mut state),
            aes,
        }
    }

    /// Where the chain starts; a stack that was cut differs from the whole one.
    #[inline]
    pub fn start(&self, is_cut: bool) -> u64 {
        if is_cut { self.cut_root } else { self.root }
    }

    /// Extends the chain by full runs, the outermost being the last, and by the padded run
    /// inside of them.
    #[inline]
    pub fn stack(&self, start: u64, full: &[Run], tail: &Run, tail_length: usize) -> u64 {
        self.chain(start, full, tail, tail_length, |_| {})
    }

    /// The same; hands on every link, the outermost first.
    #[inline]
    pub fn chain(
        &self,
        start: u64,
        full: &[Run],
        tail: &Run,
        tail_length: usize,
        note: impl FnMut(u64),
    ) -> u64 {
        let tail = (tail_length != 0).then_some(tail);
        let links = [self.link(RUN_FRAMES), self.link(tail_length)];
        match self.aes {
            Some(aes) => aes.chain(&self.lanes, start, full, tail, links, note),
            None => self.multiply(start, full, tail, links, note),
        }
    }

    /// The hash of a whole stack of full runs, of which the outermost lies somewhere else.
    #[inline(always)]
    pub fn runs(&self, inner: &[Run], outermost: &Run) -> u64 {
        let root = core::slice::from_ref(outermost);
        if self.aes.is_some() {
            let root = self.stack(self.root, root, outermost, 0);
            return self.stack(root, inner, outermost, 0);
        }
        let links = [self.link(RUN_FRAMES); 2];
        let hash_run = |run: &Run| core::hint::black_box(self).run(run);
        let root = link_runs(self.root, root, None, links, hash_run, |_| {});
        link_runs(root, inner, None, links, hash_run, |_| {})
    }

    /// What the chain is multiplied with: no run passes for one of another length.
    #[inline]
    pub fn link(&self, length: usize) -> u64 {
        self.chain.wrapping_add((length as u64) << 32)
    }

    #[inline(never)]
    fn multiply(
        &self,
        start: u64,
        full: &[Run],
        tail: Option<&Run>,
        links: [u64; 2],
        note: impl FnMut(u64),
    ) -> u64 {
        // Most stacks have a run or two: ten keys are not worth loading, and storing for want of
        // registers, before the loop.
        let hash_run = |run: &Run| core::hint::black_box(self).run(run);
        link_runs(start, full, tail, links, hash_run, note)
    }

    #[inline(always)]
    fn run(&self, run: &Run) -> u64 {
        let mut hash = 0;
        for (words, keys) in run
            .as_chunks::<2>()
            .0
            .iter()
            .zip(self.lanes.as_chunks::<2>().0)
        {
            hash ^= fold(words[0] ^ keys[0], words[1] ^ keys[1]);
        }
        hash
    }
}

/// Links the hashes of full runs, the last one first, and then of `tail`, to `start`; hands on
/// every link. `hash_run` is one of the two ways to hash a run.
#[inline(always)]
pub(crate) fn link_runs(
    start: u64,
    full: &[Run],
    tail: Option<&Run>,
    [full_link, tail_link]: [u64; 2],
    hash_run: impl Fn(&Run) -> u64,
    mut note: impl FnMut(u64),
) -> u64 {
    let mut hash = start;
    for run in full.iter().rev() {
        hash = fold(hash ^ hash_run(run), full_link);
        note(hash);
    }
    if let Some(tail) = tail {
        hash = fold(hash ^ hash_run(tail), tail_link);
        note(hash);
    }
    hash
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::frame::pad;

    impl Hasher {
        /// Extends the chain by a padded run of some length.
        fn extend(&self, prefix: u64, run: &Run, length: usize) -> u64 {
            if length == RUN_FRAMES {
                self.stack(prefix, &[*run], run, 0)
            } else {
                self.stack(prefix, &[], run, length)
            }
        }
    }

    fn hashers(seed: u64) -> impl Iterator<Item = Hasher> {
        [HASH_MULTIPLY_FOLD, HASH_AES]
            .into_iter()
            .filter_map(move |kind| Hasher::new(kind, seed))
    }

    #[test]
    fn length_cut_order_and_seed_all_change_the_hash() {
        for (hasher, other_seed) in hashers(1).zip(hashers(2)) {
            let run: Run = core::array::from_fn(|position| position as u64);
            let start = hasher.start(false);
            let base = hasher.extend(start, &run, RUN_FRAMES);
            let (mut swapped, mut swapped_pair) = (run, run);
            swapped.swap(0, 2);
            swapped_pair.swap(0, 1);
            let others = [
                hasher.extend(start, &run, 9),
                hasher.extend(hasher.start(true), &run, RUN_FRAMES),
                hasher.extend(start, &swapped, RUN_FRAMES),
                hasher.extend(start, &swapped_pair, RUN_FRAMES),
                hasher.extend(base, &run, RUN_FRAMES),
                other_seed.extend(other_seed.start(false), &run, RUN_FRAMES),
            ];
            assert!(!others.contains(&base), "{hasher:?} {base:x} {others:x?}");
        }
    }

    #[test]
    fn a_stack_hashes_as_its_runs_one_after_the_other() {
        let runs: [Run; 3] = core::array::from_fn(|run| {
            core::array::from_fn(|position| (run * 100 + position) as u64)
        });
        let tail = pad(&[7, 8, 9], 3);
        for hasher in hashers(5) {
            let chained = runs
                .iter()
                .rev()
                .fold(1, |hash, run| hasher.extend(hash, run, RUN_FRAMES));
            assert_eq!(hasher.stack(1, &runs, &tail, 0), chained);
            assert_eq!(
                hasher.stack(1, &runs, &tail, 3),
                hasher.extend(chained, &tail, 3)
            );
        }
    }

    /// The hashes are part of the format: a region may come from any machine. The numbers were
    /// computed by a twin in another language.
    #[test]
    fn both_hashes_are_the_same_everywhere() {
        let run: Run = core::array::from_fn(|position| 0x7f00_0000_1000 + position as u64);
        for (kind, with_tail, cut) in [
            (
                HASH_MULTIPLY_FOLD,
                13_170_397_712_932_964_233,
                9_311_779_815_286_782_220,
            ),
            (
                HASH_AES,
                12_348_027_225_523_700_653,
                16_273_548_162_750_297_097,
            ),
        ] {
            let Some(hasher) = Hasher::new(kind, 42) else {
                continue;
            };
            let hash = hasher.stack(hasher.start(false), &[run], &pad(&[1, 2], 2), 2);
            assert_eq!(hash, with_tail, "{kind}");
            let hash = hasher.stack(hasher.start(true), &[[5; RUN_FRAMES], run], &run, 0);
            assert_eq!(hash, cut, "{kind}");
        }
    }

    #[test]
    fn a_kind_that_does_not_exist_has_no_hasher() {
        assert!(Hasher::new(0, 1).is_none() && Hasher::new(3, 1).is_none());
    }

    #[test]
    fn all_parts_of_the_hash_spread_over_buckets_for_neighbouring_addresses() {
        for hasher in hashers(3) {
            let mut filled = [0u32; 256];
            for address in 0..4096u64 {
                let hash = hasher.extend(
                    hasher.start(false),
                    &pad(&[0x5555_0000 + address * 4], 1),
                    1,
                );
                filled[(hash as u32 >> 24) as usize] += 1;
                filled[(hash >> 56) as usize] += 1;
            }
            assert!(
                filled.iter().all(|count| (8..80).contains(count)),
                "{filled:?}"
            );
        }
    }

    /// Frames that differ in few bits, in two places: what cancels out must be rare.
    #[test]
    fn small_differences_in_two_frames_do_not_cancel_out() {
        extern crate std;
        for hasher in hashers(9) {
            let mut seen = std::collections::HashSet::new();
            let run: Run = [0x7f12_3456_7000; RUN_FRAMES];
            for (one, other) in
                (0..256u64).flat_map(|one| (0..256u64).map(move |other| (one, other)))
            {
                let mut changed = run;
                changed[2] ^= one << 4;
                changed[6] ^= other << 4;
                assert!(
                    seen.insert(hasher.extend(0, &changed, RUN_FRAMES)),
                    "{hasher:?} {one} {other}"
                );
            }
        }
    }
}
