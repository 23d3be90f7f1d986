//! Sampling by bytes: which allocations `run --sample BYTES` records, and what each of them stands for.
//!
//! Key type: [`ByteSampling`]. Imagine a mark thrown on every so many of the bytes that a program
//! allocates, on average, at random (a Poisson process of rate 1 / `sample_bytes`); a block that a mark
//! hits is recorded, from its alloc to its free. The recorder draws the gap to the next mark and
//! counts bytes down, so that the blocks in between cost a subtraction. A block's weight is 16
//! more than its size (what malloc spends on it, so that empty blocks count too), and it is hit with probability
//! p = 1 - exp(-weight / `sample_bytes`); hit, it stands for 1 / p blocks (Horvitz-Thompson): sums
//! over what is recorded estimate the sums over everything without bias, and blocks much larger than
//! `sample_bytes` are all there and stand for themselves.

use stackdepot::live::Sampling;

/// What malloc spends on a block.
const LEAST_WEIGHT: u64 = 16;
/// No drawn gap is larger.
const MOST_GAP: u64 = 1 << 56;

/// The rule: a mark on every so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ByteSampling {
    sample_bytes: u64,
}

/// What a recorded block adds to the sums of its stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Blocks.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

impl ByteSampling {
    /// A gap that no block uses up.
    pub const NEVER: u64 = 1 << 62;

    /// On average one mark on so many bytes; 0: every block is recorded.
    pub const fn new(sample_bytes: u64) -> ByteSampling {
        ByteSampling { sample_bytes }
    }

    /// Bytes from mark to mark, on average; 0 when every block is recorded.
    pub const fn sample_bytes(self) -> u64 {
        self.sample_bytes
    }

    /// Whether blocks are left out.
    pub const fn is_on(self) -> bool {
        self.sample_bytes != 0
    }

    /// What a block takes off the gap.
    #[inline]
    pub const fn weight(size: u64) -> u64 {
        // Sizes that wrap are no blocks.
        size.wrapping_add(LEAST_WEIGHT)
    }

    /// Bytes to the next mark, at least 1, from 64 random bits: exponentially distributed.
    pub fn gap(self, random: u64) -> u64 {
        // 53 bits, in (0, 1].
        let uniform = ((random >> 11) + 1) as f64 / (1u64 << 53) as f64;
        let gap = -libm::log(uniform) * self.sample_bytes as f64;
        (gap as u64).clamp(1, MOST_GAP)
    }

    /// How many blocks of its size a recorded one stands for.
    fn factor(self, size: u64) -> f64 {
        if !self.is_on() {
            return 1.0;
        }
        let marks = Self::weight(size) as f64 / self.sample_bytes as f64;
        -1.0 / libm::expm1(-marks)
    }

    /// What a recorded block adds to its stack's sums: whole numbers, rounded up or down by
    /// `random`, so that many of them are right on average. Equal arguments, equal shares.
    pub fn share(self, size: u64, random: u64) -> Share {
        if !self.is_on() {
            return Share {
                count: 1,
                bytes: size,
            };
        }
        let factor = self.factor(size);
        let fraction = (random >> 11) as f64 / (1u64 << 53) as f64;
        Share {
            count: (factor + fraction) as u64,
            bytes: (factor * size as f64 + fraction) as u64,
        }
    }

    /// How many blocks a recorded one stands for that itself stands for `factor` of the recorded
    /// ones; both times [`Sampling::ONE`].
    pub fn scale(self, factor: u64, size: u64) -> u64 {
        if !self.is_on() || factor == 0 {
            return factor;
        }
        // A foreign file may say anything: the conversion saturates.
        ((self.factor(size) * factor as f64) as u64).max(Sampling::ONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stackdepot::live::Sampling;

    /// SplitMix64.
    fn random(state: &mut u64) -> u64 {
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (*state ^ *state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    /// Records `count` blocks of a size as a recorder would; answers how many were hit, and their sums.
    fn sample(sampling: ByteSampling, size: u64, count: u64, state: &mut u64) -> (u64, Share) {
        let mut gap = sampling.gap(random(state));
        let (mut hits, mut sum) = (0, Share { count: 0, bytes: 0 });
        for _ in 0..count {
            if ByteSampling::weight(size) < gap {
                gap -= ByteSampling::weight(size);
                continue;
            }
            gap = sampling.gap(random(state));
            let share = sampling.share(size, random(state));
            hits += 1;
            sum.count += share.count;
            sum.bytes += share.bytes;
        }
        (hits, sum)
    }

    #[test]
    fn sums_are_within_four_standard_errors_for_small_and_large_blocks() {
        let sampling = ByteSampling::new(4096);
        let mut state = 7;
        for (size, count) in [
            (0, 4_000_000),
            (48, 2_000_000),
            (4000, 20_000),
            (9000, 10_000),
        ] {
            let (hits, sum) = sample(sampling, size, count, &mut state);
            let probability = 1.0 / sampling.factor(size);
            let error = ((1.0 - probability) / (count as f64 * probability)).sqrt();
            let found = sum.count as f64 / count as f64;
            assert!(
                (found - 1.0).abs() < 4.0 * error,
                "{size}: {found}, error {error}"
            );
            assert!(hits > 1000, "{size}: {hits}");
            if size > 0 {
                let found = sum.bytes as f64 / (size * count) as f64;
                assert!(
                    (found - 1.0).abs() < 4.0 * error,
                    "{size}: {found} of the bytes"
                );
            }
        }
    }

    #[test]
    fn block_much_larger_than_the_gap_is_always_hit_and_stands_for_itself() {
        let sampling = ByteSampling::new(1 << 10);
        let (hits, sum) = sample(sampling, 1 << 20, 1000, &mut 3);
        assert_eq!((hits, sum.count, sum.bytes), (1000, 1000, 1000 << 20));
    }

    #[test]
    fn without_sampling_everything_stands_for_itself() {
        let all = ByteSampling::new(0);
        assert!(!all.is_on());
        assert_eq!(
            all.share(100, u64::MAX),
            Share {
                count: 1,
                bytes: 100
            }
        );
        assert_eq!(all.scale(3 * Sampling::ONE, 100), 3 * Sampling::ONE);
    }

    #[test]
    fn absurd_numbers_saturate() {
        let most = ByteSampling::new(u64::MAX);
        assert_eq!(most.gap(0), MOST_GAP);
        assert_eq!(most.gap(u64::MAX), 1);
        assert_eq!(most.scale(u64::MAX, 0), u64::MAX);
        assert_eq!(most.scale(0, 0), 0);
        assert_eq!(ByteSampling::new(1).scale(1, u64::MAX), Sampling::ONE);
        assert!(most.share(1 << 62, u64::MAX).bytes > 1 << 60);
    }
}
