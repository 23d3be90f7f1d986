//! Which blocks a full live table keeps, and what each kept block stands for.
//!
//! Key type: [`Sampling`]. A table that cannot hold every live block keeps a sample, chosen
//! with probability proportional to size, so that estimates of *bytes* are as good as the
//! number of cells permits, whatever the sizes: a block's weight is its size + 16 (what malloc
//! spends on it, so that empty blocks count too), and with `S` = `sample_bytes` it is kept with
//! probability p = min(1, weight / S). Blocks of S bytes or more are all kept.
//!
//! The coin is the block's address: kept iff hash(address) / 2^32 < weight / S. So membership
//! is a pure function of (address, size, S). S only grows, hence the sets are nested: whoever
//! is in the set of today was in the set when it was allocated, and was stored then. When an
//! insert finds no place, S moves just above the *priority* (weight x 2^32 / hash) of the weakest
//! among the candidates, which drops out: no step size, as many samples as there are cells.
//!
//! Estimator (Horvitz-Thompson): a kept block stands for 1 / p = max(1, S / weight) blocks and
//! that many times its size in bytes: [`Sampling::factor`]. Readers must skip cells that are
//! no longer in the set (they wait for their place to be needed): `factor` says 0 for these.

use super::tags::Tag;
use core::num::NonZeroU64;

/// The weight of an empty block.
const LEAST_WEIGHT: u64 = 16;
/// Weights saturate here, so that priorities fit 64 bits.
const MOST_WEIGHT: u64 = 1 << 31;

/// What a block's address contributes to every decision of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AddressHash(u64);

impl AddressHash {
    /// A full mix: neighbouring addresses are unrelated afterwards.
    pub const fn of(address: u64) -> AddressHash {
        let mut mixed = address;
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xff51_afd7_ed55_8ccd);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        AddressHash(mixed ^ mixed >> 33)
    }

    /// The coin: 1 ..= 2^32 - 1, even numbers left out (so that it is never 0).
    pub const fn coin(self) -> u64 {
        self.0 & 0xffff_ffff | 1
    }

    /// What stands for the address where a byte must do.
    pub const fn tag(self) -> Tag {
        // The coin's lowest byte: of a block in the sample only the coin's top bits are not free.
        Tag::of_byte(self.0 as u8)
    }

    /// Buckets for an address that finds its home full; independent of each other, of the home
    /// and of the coin.
    pub fn others(self, bucket_count: NonZeroU64) -> [u64; 3] {
        let more = (self.0 ^ self.0 >> 29).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let most = (more ^ more >> 31).wrapping_mul(0xd6e8_feb8_6659_fd93);
        [self.0, more, most].map(|bits| scale(bits, bucket_count))
    }
}

/// Bytes of address space whose blocks share a home; malloc's smallest block takes 32, so that all
/// of them fit.
const HOME_BYTES: u64 = 256;
/// Bytes of address space whose homes lie next to each other.
const NEIGHBOURHOOD_BYTES: u64 = 4096;

/// The bucket where the block of an address is, unless that is full: what malloc gave out of one
/// page shares lines there as it does in the page, so that a program which has its blocks in the
/// cache has their cells there too.
#[inline]
pub(crate) const fn home(address: u64, bucket_count: NonZeroU64) -> u64 {
    let neighbourhood = (address / NEIGHBOURHOOD_BYTES).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let first = scale(neighbourhood, bucket_count);
    let bucket = first + address % NEIGHBOURHOOD_BYTES / HOME_BYTES;
    // Around the end; a table this small has no neighbourhoods.
    if bucket < bucket_count.get() {
        bucket
    } else if bucket - bucket_count.get() < bucket_count.get() {
        bucket - bucket_count.get()
    } else {
        first
    }
}

#[inline]
const fn scale(bits: u64, bucket_count: NonZeroU64) -> u64 {
    ((bits >> 32) * bucket_count.get()) >> 32
}

fn weight_of(size: u64) -> u64 {
    size.saturating_add(LEAST_WEIGHT).min(MOST_WEIGHT)
}

/// The priority of a block as a fraction, to compare without dividing: it is in the set of S
/// iff S < weight x 2^32 / coin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Priority {
    weight: u64,
    coin: u64,
}

impl Priority {
    /// Below every block.
    pub const LOWEST: Priority = Priority { weight: 0, coin: 1 };

    pub fn of(address: u64, size: u64) -> Priority {
        Priority::of_hash(AddressHash::of(address), size)
    }

    pub fn of_hash(hash: AddressHash, size: u64) -> Priority {
        Priority {
            weight: weight_of(size),
            coin: hash.coin(),
        }
    }

    /// Whether it drops out before `other` does.
    pub const fn is_below(self, other: Priority) -> bool {
        // Both products are below 2^63: weights reach 2^31, coins stay below 2^32.
        self.weight * other.coin < other.weight * self.coin
    }

    /// The least `sample_bytes` at which the block is out of the set.
    pub const fn dropping(self) -> u64 {
        match (self.weight << 32).checked_div(self.coin) {
            Some(bound) => bound + 1,
            None => u64::MAX,
        }
    }
}

/// A table's rule of what it keeps; see the file's head for the estimator.
///
/// ```
/// use stackdepot::live::Sampling;
/// let all = Sampling::new(0);
/// assert!(!all.is_sampling());
/// assert_eq!(all.factor(0x7f00_1230, 100), Sampling::ONE);
/// // At 4096 sample bytes a kept block of 112 bytes stands for 32 blocks, 3584 bytes.
/// let some = Sampling::new(4096);
/// let kept = (1..1000).map(|block| block * 128).filter(|address| some.contains(*address, 112));
/// assert!(kept.clone().count() < 100);
/// assert!(kept.clone().all(|address| some.factor(address, 112) == 32 * Sampling::ONE));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampling {
    sample_bytes: u64,
}

impl Sampling {
    /// A factor of one, in the fixed point of [`factor`](Sampling::factor).
    pub const ONE: u64 = 1 << 16;

    /// The rule with S = `sample_bytes`, as a table's header records it.
    pub const fn new(sample_bytes: u64) -> Sampling {
        Sampling { sample_bytes }
    }

    /// S: blocks of about this size or more are all kept.
    pub const fn sample_bytes(&self) -> u64 {
        self.sample_bytes
    }

    /// Whether any block at all may be left out: then sums over the table are estimates.
    pub const fn is_sampling(&self) -> bool {
        self.sample_bytes > LEAST_WEIGHT
    }

    /// Whether the block is in the set.
    pub fn contains(&self, address: u64, size: u64) -> bool {
        self.keeps(Priority::of(address, size))
    }

    /// Whether a block at that address is in the set whatever its size: then its absence proves
    /// that there is none.
    pub fn contains_any_size(&self, address: u64) -> bool {
        self.contains(address, 0)
    }

    pub(crate) const fn keeps(&self, block: Priority) -> bool {
        self.sample_bytes as u128 * (block.coin as u128) < (block.weight as u128) << 32
    }

    /// How many blocks of its size a stored block stands for, times 2^16 ([`Sampling::ONE`]); 0
    /// when it is no longer in the set.
    ///
    /// Sum `factor` over the cells of a stack and shift right by 16 for its live count; sum
    /// `factor x size` (in 128 bits) for its live bytes. Rounded down by at most 2^-16.
    pub fn factor(&self, address: u64, size: u64) -> u64 {
        let block = Priority::of(address, size);
        if !self.keeps(block) {
            return 0;
        }
        let scaled = (u128::from(self.sample_bytes) << 16).checked_div(block.weight.into());
        // The bytes of a damaged header may be any number.
        u64::try_from(scaled.unwrap_or(0)).map_or(u64::MAX, |factor| factor.max(Self::ONE))
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_table_samples_only_once_some_block_may_be_left_out() {
        for sample_bytes in [0, 1, LEAST_WEIGHT] {
            assert!(!Sampling::new(sample_bytes).is_sampling(), "{sample_bytes}");
        }
        for sample_bytes in [LEAST_WEIGHT + 1, 4096, u64::MAX] {
            assert!(Sampling::new(sample_bytes).is_sampling(), "{sample_bytes}");
        }
    }

    #[test]
    fn priorities_compare_as_their_fractions() {
        let weights = [0, 1, 16, 17, 4096, MOST_WEIGHT - 1, MOST_WEIGHT];
        let coins = [1, 3, 0x7fff_ffff, 0xffff_fffd, 0xffff_ffff];
        let all = weights
            .into_iter()
            .flat_map(|weight| coins.map(|coin| Priority { weight, coin }));
        for (one, other) in all
            .clone()
            .flat_map(|one| all.clone().map(move |other| (one, other)))
        {
            let left = u128::from(one.weight) * u128::from(other.coin);
            let right = u128::from(other.weight) * u128::from(one.coin);
            assert_eq!(one.is_below(other), left < right, "{one:?} {other:?}");
        }
    }

    #[test]
    fn the_least_sample_bytes_that_drop_a_block_drop_it() {
        for (weight, coin) in [(16, 1), (16, 0xffff_ffff), (100, 12345), (MOST_WEIGHT, 7)] {
            let block = Priority { weight, coin };
            assert!(!Sampling::new(block.dropping()).keeps(block), "{block:?}");
            assert!(
                Sampling::new(block.dropping() - 2).keeps(block),
                "{block:?}"
            );
        }
    }

    #[test]
    fn a_block_is_out_of_the_set_from_the_very_sample_bytes_on() {
        // 48 x 2^32 / 3 = 2^36, without a rest.
        let block = Priority {
            weight: 48,
            coin: 3,
        };
        assert!(Sampling::new((1 << 36) - 1).keeps(block));
        assert!(!Sampling::new(1 << 36).keeps(block));
    }

    #[test]
    fn a_factor_is_how_many_blocks_one_stands_for() {
        let block = (0x7f00_1230, 100);
        let kept = |sample_bytes| Sampling::new(sample_bytes).factor(block.0, block.1);
        assert_eq!([0, 1, 115, 116].map(kept), [Sampling::ONE; 4]);
        let coin = AddressHash::of(block.0).coin();
        let most = (116 << 32) / coin;
        assert_eq!(kept(most), (most << 16) / 116);
        assert_eq!(kept(most + 1), 0, "no longer in the set");
        // What only a damaged header says.
        let rare = (1..1 << 20).find(|address| AddressHash::of(*address).coin() < 1 << 14);
        assert_eq!(
            Sampling::new(1 << 49).factor(rare.unwrap(), u64::MAX),
            1 << 34
        );
    }

    /// Where blocks are is part of the format. The numbers were computed by a twin in another
    /// language.
    #[test]
    fn an_address_goes_to_the_same_places_everywhere() {
        let count = NonZeroU64::new(1_000_003).unwrap();
        for (address, coin, tag, others, at) in [
            (
                0x7f00_0000_0010,
                3_428_099_615,
                31,
                [950_763, 891_593, 728_111],
                384_266,
            ),
            (
                0x7f12_3456_7890,
                2_220_271_759,
                14,
                [70_185, 644_925, 246_645],
                360_786,
            ),
            (
                0x5555_5555_5000,
                1_698_694_647,
                118,
                [876_357, 910_444, 404_298],
                445_884,
            ),
            (16, 3_553_003_845, 68, [372_701, 994_798, 184_516], 0),
        ] {
            let hash = AddressHash::of(address);
            assert_eq!((hash.coin(), hash.tag()), (coin, Tag::of_byte(tag)));
            assert_eq!((hash.others(count), home(address, count)), (others, at));
        }
    }

    #[test]
    fn homes_follow_memory_and_lie_in_the_table() {
        for bucket_count in [2, 3, 15, 17, 1000, 1 << 31] {
            let count = NonZeroU64::new(bucket_count).unwrap();
            for address in (1..4000).map(|block| 0x7f00_0000_0000 + block * 48) {
                assert!(home(address, count) < bucket_count);
                assert_eq!(home(address, count), home(address / 256 * 256, count));
            }
        }
        let count = NonZeroU64::new(1 << 20).unwrap();
        let first = home(0x5555_0000, count);
        assert_eq!(home(0x5555_0100, count), (first + 1) % (1 << 20));
        assert_eq!(home(0x5555_0fff, count), (first + 15) % (1 << 20));
    }
}
