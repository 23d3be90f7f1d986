//! The index: from the hash of a stack to its leaf node, in one probe.
//!
//! Key types: [`Entry`] (fingerprint, tentative bit, slot) and [`Pair`], the two buckets that
//! follow from the low half of a hash, so that a retire finds them again from `slot.hash`.
//! An entry is born tentative and committed by its owner only; others may only remove it
//! (`publish.rs`). At most one committed entry names a slot.
//!
//! INVARIANT 4: `first` and `second` are different buckets.
//!
//! ORDERING: every access of a cell is Relaxed. A cell is a guess about a slot, judged by the
//! slot's own state and generation, which acquire; who finds the entry before the birth finds
//! no node. That equal publishers see each other is the work of the fence in `publish.rs`: of two
//! fences, the later one's scan sees what came before the earlier one, the birth as well as the
//! entry. Which of two threads changes a cell, each CAS decides by itself.

#[cfg_attr(
    all(
        target_arch = "x86_64",
        target_feature = "sse2",
        not(any(loom, miri, stackdepot_fault))
    ),
    path = "index/look_sse2.rs"
)]
mod look;

use crate::layout::{BUCKET_CELLS, Bucket, Region};
use crate::prefetch::prefetch;
use crate::sync::{AtomicU64, Ordering};

/// Where the first bucket stops being preferred to the emptier of both. Lower fills more
/// evenly, higher finds more in the first bucket (84 % here, simulated under churn).
const FIRST_FILL: usize = BUCKET_CELLS * 3 / 4;

/// The value of an index cell: fingerprint 63..33, tentative 32, slot 31..0; 0 is empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry(pub u64);

impl Entry {
    const TENTATIVE: u64 = 1 << 32;
    const FINGERPRINT: u64 = !0 << 33;

    /// The committed entry of a node.
    pub const fn new(hash: u64, slot: u32) -> Entry {
        Entry(hash & Self::FINGERPRINT | slot as u64)
    }

    /// The same entry, not yet committed.
    pub const fn tentative(self) -> Entry {
        Entry(self.0 | Self::TENTATIVE)
    }

    /// Whether only its owner counts on it so far.
    pub const fn is_tentative(self) -> bool {
        self.0 & Self::TENTATIVE != 0
    }

    /// The node's slot.
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// Whether nothing is there.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether it is committed, with the fingerprint of a hash.
    #[inline]
    pub const fn is_committed_of(self, hash: u64) -> bool {
        (self.0 ^ (hash & Self::FINGERPRINT)) < Self::TENTATIVE
    }

    /// Whether the fingerprint is that of a hash.
    #[inline]
    pub const fn fits(self, hash: u64) -> bool {
        (self.0 ^ (hash & Self::FINGERPRINT)) < 2 * Self::TENTATIVE
    }
}

/// The two buckets where an entry can be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair<'r> {
    pub first: &'r Bucket,
    pub second: &'r Bucket,
}

/// The upper half of a 32x32-bit product: scales a hash to `0..count` without a division.
#[inline]
const fn scale(hash: u32, count: u32) -> u32 {
    ((hash as u64 * count as u64) >> 32) as u32
}

#[inline]
const fn mix(hash: u32) -> u32 {
    let hash = (hash ^ hash >> 16).wrapping_mul(0x7feb_352d);
    let hash = (hash ^ hash >> 15).wrapping_mul(0x846c_a68b);
    hash ^ hash >> 16
}

/// The numbers of the two buckets of a hash, of which only the low half counts.
#[inline]
const fn bucket_numbers(hash: u32, bucket_count: u32) -> (u32, u32) {
    let first = scale(hash, bucket_count);
    let sum = first as u64 + 1 + scale(mix(hash), bucket_count - 1) as u64;
    let second = if sum >= bucket_count as u64 {
        sum - bucket_count as u64
    } else {
        sum
    };
    (first, second as u32)
}

/// The cell of a bucket where a save looks first, and where a new entry goes if it is free.
#[inline]
pub(crate) const fn home_cell(hash: u64) -> usize {
    (hash >> (u64::BITS - BUCKET_CELLS.ilog2())) as usize
}

impl Bucket {
    /// The entry in a cell.
    #[inline]
    pub fn entry(&self, position: usize) -> Entry {
        // ORDERING: Relaxed: see the head.
        Entry(
            self.cells
                .get(position)
                .map_or(0, |cell| cell.load(Ordering::Relaxed)),
        )
    }

    /// The first answer that is found for the slot of a committed entry with the hash's fingerprint.
    #[inline(always)]
    fn find_committed<T>(&self, hash: u64, find: &impl Fn(u32) -> Option<T>) -> Option<T> {
        let mut committed = look::committed(self, hash);
        while committed != 0 {
            // Read again, it may be another's, and tentative: that one nobody may count on.
            let entry = self.entry(committed.trailing_zeros() as usize);
            committed &= committed - 1;
            if entry.is_committed_of(hash)
                && let Some(found) = find(entry.slot())
            {
                return Some(found);
            }
        }
        None
    }
}

impl<'r> Pair<'r> {
    /// The first answer that is found for the slot of a committed entry with the hash's fingerprint.
    #[inline(always)]
    pub fn find_committed<T>(self, hash: u64, find: impl Fn(u32) -> Option<T>) -> Option<T> {
        let found = self.first.find_committed(hash, &find);
        found.or_else(|| self.second.find_committed(hash, &find))
    }

    /// A bit per cell, in the order of `cells`, that holds an entry with the hash's fingerprint.
    #[inline(never)]
    pub fn fitting(self, hash: u64) -> u32 {
        look::fitting(self.first, hash) | look::fitting(self.second, hash) << BUCKET_CELLS
    }

    /// The cell of a bit.
    #[inline]
    pub fn cell(self, bit: u32) -> Option<&'r AtomicU64> {
        let bit = bit as usize;
        match bit.checked_sub(BUCKET_CELLS) {
            None => self.first.cells.get(bit),
            Some(bit) => self.second.cells.get(bit),
        }
    }

    /// Every cell, in the one order that all threads scan in.
    pub fn cells(self) -> impl Iterator<Item = &'r AtomicU64> {
        self.first.cells.iter().chain(&self.second.cells)
    }

    /// The cell where a new entry should go: in the first bucket while it is rather empty, then in
    /// the emptier one; there the home of the hash, if it is free, or the next free one.
    #[inline]
    pub fn free_cell(self, hash: u64) -> Option<&'r AtomicU64> {
        let (mut bucket, mut empty) = (self.first, look::empty(self.first));
        if empty.count_ones() as usize <= BUCKET_CELLS - FIRST_FILL {
            let second = look::empty(self.second);
            if empty.count_ones() < second.count_ones() {
                (bucket, empty) = (self.second, second);
            }
        }
        let from_home = empty & !0 << home_cell(hash);
        let choice = if from_home != 0 { from_home } else { empty };
        bucket.cells.get(choice.trailing_zeros() as usize)
    }

    /// Removes the committed entry of a slot that the caller owns; answers whether it was there.
    pub fn unlink(self, slot: u32) -> bool {
        for cell in self.cells() {
            // ORDERING: Relaxed load: the entry was committed before the node lost its last
            // reference, which the owner acquired, so the value is visible.
            let entry = Entry(cell.load(Ordering::Relaxed));
            if entry.slot() == slot && !entry.is_tentative() {
                // ORDERING: Relaxed: the slot was claimed before; that its next life finds the
                // cell empty follows from the release when it becomes FREE.
                return cell
                    .compare_exchange(entry.0, 0, Ordering::Relaxed, Ordering::Relaxed)
                    .is_ok();
            }
        }
        false
    }
}

/// Puts a tentative entry into a cell that was empty.
pub(crate) fn publish(cell: &AtomicU64, entry: Entry) -> bool {
    // ORDERING: Relaxed: see the head; the fence that follows orders it.
    cell.compare_exchange(0, entry.tentative().0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

/// Turns one's own tentative entry into a committed one; fails when it was killed.
pub(crate) fn commit(cell: &AtomicU64, entry: Entry) -> bool {
    // ORDERING: Relaxed: see the head. After a kill the next round's fence comes after the
    // killer's, so its scan sees the killer's entry.
    cell.compare_exchange(
        entry.tentative().0,
        entry.0,
        Ordering::Relaxed,
        Ordering::Relaxed,
    )
    .is_ok()
}

/// Removes a tentative entry, one's own or another's.
pub(crate) fn kill(cell: &AtomicU64, tentative: Entry) -> bool {
    // ORDERING: Relaxed: see the head; of `commit` and this, exactly one changes the cell.
    cell.compare_exchange(tentative.0, 0, Ordering::Relaxed, Ordering::Relaxed)
        .is_ok()
}

impl<'r> Region<'r> {
    /// The first bucket of a hash: most entries are there.
    #[inline]
    pub fn first_bucket(&self, hash: u32) -> Option<&'r Bucket> {
        self.buckets
            .get(scale(hash, self.geometry.bucket_count) as usize)
    }

    /// Both buckets of a hash. There always are two; `None` spares a panic.
    #[inline]
    pub fn pair(&self, hash: u32) -> Option<Pair<'r>> {
        let (first, second) = bucket_numbers(hash, self.geometry.bucket_count);
        Some(Pair {
            first: self.buckets.get(first as usize)?,
            second: self.buckets.get(second as usize)?,
        })
    }

    /// Fetches both buckets of a hash.
    #[inline]
    pub fn prefetch_pair(&self, hash: u32) {
        if let Some(pair) = self.pair(hash) {
            prefetch(pair.first);
            prefetch(pair.second);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn both_buckets_differ_and_lie_in_range_for_odd_counts() {
        for bucket_count in [2, 3, 5, 7, 347, 1 << 20, 14_000_001] {
            for step in 0..2000u32 {
                let (first, second) = bucket_numbers(step.wrapping_mul(0x9e37_79b9), bucket_count);
                assert!(first < bucket_count && second < bucket_count && first != second);
            }
            let (first, second) = bucket_numbers(u32::MAX, bucket_count);
            assert!(first < bucket_count && second < bucket_count && first != second);
        }
    }

    /// Where entries are is part of the format. The numbers were computed by a twin in another
    /// language.
    #[test]
    fn both_buckets_and_the_home_of_a_hash_are_the_same_everywhere() {
        for (hash, numbers) in [
            (0, (0, 1)),
            (1, (0, 408)),
            (0x1234_5678, (71, 31)),
            (0xffff_ffff, (999, 403)),
            (0x9e37_79b9, (618, 626)),
        ] {
            assert_eq!(bucket_numbers(hash, 1000), numbers, "{hash:#x}");
        }
        for home in 0..BUCKET_CELLS {
            assert_eq!(home_cell((home as u64) << 61), home);
            assert_eq!(home_cell((home as u64) << 61 | u64::MAX >> 3), home);
        }
    }

    #[test]
    fn mixing_sets_each_bit_for_half_of_the_hashes() {
        let mut set_counts = [0u32; 32];
        for mixed in (0..4096u32).map(mix) {
            for (bit, count) in set_counts.iter_mut().enumerate() {
                *count += mixed >> bit & 1;
            }
        }
        let is_even = |count: &u32| (1850..2250).contains(count);
        assert!(set_counts.iter().all(is_even), "{set_counts:?}");
    }

    #[test]
    fn mixing_keeps_hashes_apart_that_differ_in_few_bits() {
        let mut mixed: [u32; 4096] = core::array::from_fn(|low| mix(0xffff_0000 | low as u32));
        mixed.sort_unstable();
        assert!(mixed.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn a_new_entry_goes_to_the_first_bucket_until_it_fills_then_to_the_emptier_one() {
        let bucket = |used: usize| Bucket {
            cells: core::array::from_fn(|cell| AtomicU64::new(u64::from(cell < used))),
        };
        for (used, other, is_first) in [
            (0, 0, true),
            (FIRST_FILL - 1, 0, true),
            (FIRST_FILL, FIRST_FILL - 1, false),
            (FIRST_FILL, FIRST_FILL, true),
            (BUCKET_CELLS, BUCKET_CELLS - 1, false),
        ] {
            let (first, second) = (bucket(used), bucket(other));
            let pair = Pair {
                first: &first,
                second: &second,
            };
            let cell = pair.free_cell(0).unwrap();
            let is_in_first = first.cells.iter().any(|other| core::ptr::eq(other, cell));
            assert_eq!(is_in_first, is_first, "{used} {other}");
        }
        let (first, second) = (bucket(BUCKET_CELLS), bucket(BUCKET_CELLS));
        let full = Pair {
            first: &first,
            second: &second,
        };
        assert!(full.free_cell(0).is_none());
    }

    #[test]
    fn a_look_at_a_bucket_tells_each_cell() {
        let hash = 0x9e37_79b9_7f4a_7c15;
        let other = Entry::new(hash ^ 1 << 33, 9);
        let values = [
            Entry(0),
            Entry::new(hash, 7),
            Entry::new(hash, u32::MAX).tentative(),
            other,
            other.tentative(),
            Entry::new(!hash, 1),
            // Only a damaged file has such: without a slot, or without a fingerprint.
            Entry::new(hash, 0),
            Entry(1 << 40),
            Entry(7),
        ];
        for step in 0..values.len().pow(3) {
            let cells = core::array::from_fn(|cell| {
                let turn = step * (cell + 1) + step / values.len() * cell;
                values[turn % values.len()]
            });
            let bucket = Bucket {
                cells: cells.map(|entry: Entry| AtomicU64::new(entry.0)),
            };
            let bits = |is_one: &dyn Fn(Entry) -> bool| {
                let bits = cells.iter().enumerate();
                bits.map(|(cell, entry)| u32::from(is_one(*entry)) << cell)
                    .sum::<u32>()
            };
            let fitting = bits(&|entry| entry.fits(hash));
            assert_eq!(look::fitting(&bucket, hash), fitting, "{cells:?}");
            let committed = bits(&|entry| entry.fits(hash) && !entry.is_tentative());
            assert_eq!(look::committed(&bucket, hash), committed, "{cells:?}");
            let empty = bits(&|entry| entry.is_empty());
            assert_eq!(look::empty(&bucket), empty, "{cells:?}");
        }
    }

    #[test]
    fn an_entry_that_another_replaces_during_the_look_is_not_found() {
        let hash = 0x9e37_79b9_7f4a_7c15;
        let bucket = |first_slot: usize| Bucket {
            cells: core::array::from_fn(|cell| {
                AtomicU64::new(Entry::new(hash, (first_slot + cell) as u32).0)
            }),
        };
        let (first, second) = (bucket(1), bucket(9));
        let pair = Pair {
            first: &first,
            second: &second,
        };
        let found_slots = core::cell::Cell::new(0);
        let nothing: Option<()> = pair.find_committed(hash, |slot| {
            found_slots.set(found_slots.get() | 1u32 << slot);
            let others = [
                Entry::new(hash, 2).tentative(),
                Entry::new(!hash, 3),
                Entry(0),
            ];
            for (cell, other) in first.cells.iter().skip(1).zip(others) {
                cell.store(other.0, Ordering::Relaxed);
            }
            None
        });
        assert_eq!(
            (nothing, found_slots.get()),
            (None, 0b1_1111_1111_1110_0010)
        );
        let found = pair.find_committed(hash, |slot| (slot > 6).then_some(slot));
        assert_eq!(found, Some(7));
    }

    #[test]
    fn a_new_entry_goes_home_or_to_the_next_free_cell() {
        for (used, home, chosen) in [
            (0u32, 5, 5),
            (0b10_0000, 5, 6),
            (0b1110_0000, 5, 0),
            (0b1110_0001, 6, 1),
        ] {
            let bucket = |used: u32| Bucket {
                cells: core::array::from_fn(|cell| AtomicU64::new(u64::from(used >> cell & 1))),
            };
            let (first, second) = (bucket(used), bucket(!0));
            let pair = Pair {
                first: &first,
                second: &second,
            };
            let cell = pair.free_cell(home << 61).unwrap();
            assert!(
                core::ptr::eq(cell, &first.cells[chosen]),
                "{used:#b} {home}"
            );
        }
    }

    #[test]
    fn an_entry_keeps_fingerprint_slot_and_tentative_bit_apart() {
        for (hash, slot) in [
            (0, 1),
            (u64::MAX, 1),
            (0x1234_5678_9abc_def0, u32::MAX),
            (1 << 33, 77),
        ] {
            let entry = Entry::new(hash, slot);
            assert!(entry.fits(hash) && !entry.fits(hash ^ 1 << 33) && entry.fits(hash ^ 1 << 32));
            assert!(!entry.is_tentative() && entry.tentative().is_tentative());
            assert_eq!(entry.tentative(), entry.tentative().tentative());
            assert!(entry.tentative().fits(hash) && !entry.tentative().fits(hash ^ 1 << 33));
            assert!(entry.is_committed_of(hash) && entry.is_committed_of(hash ^ 1 << 32));
            assert!(!entry.is_committed_of(hash ^ 1 << 33));
            assert!(!Entry::new(hash, 0).tentative().is_committed_of(hash));
            assert_eq!((entry.slot(), entry.tentative().slot()), (slot, slot));
        }
    }
}
