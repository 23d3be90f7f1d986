//! One byte per cell that says which blocks a bucket cannot hold, and where its room is.
//!
//! Key type: [`Tags`], the eight bytes of one bucket in one word. The words of all buckets lie
//! together (one byte where the keys take eight and a whole cell 32), so they stay in the cache
//! when the buckets do not: whoever looks for an address, or for the emptiest bucket, reads
//! these words and then goes to the one key line that matters. A free of a block that is not
//! in the sample touches no bucket at all, but for one in eight that meets its own tag.
//!
//! A tag is 0 (the cell is empty, or its owner is on the way) or 1 ..= 127 from the address. The
//! top bits belong to the bucket: those above the lowest byte count the blocks that wanted to be
//! here and are elsewhere, and the lowest one, OVERFLOWN, says for good that they were too many to
//! count. A block is counted before it is stored elsewhere, and no more once it is gone. While no
//! top bit is set, whoever looks for such a block need look nowhere else.
//!
//! INVARIANT L4: while a key is that of a stored block, the cell's byte is that block's tag. The
//! owner of the BUSY cell (L1) changes the byte, before it publishes the key, by an exclusive or
//! that leaves the other bytes alone. So an address whose tag stands in none of its buckets is
//! not in the table; a tag that does stand there proves nothing before the key is read.

use super::cell::BUCKET_CELLS;
use crate::section::WordLine;
use crate::sync::{AtomicU64, Ordering};

/// A one in each byte of a cell.
const ONES: u64 = (u64::MAX / 255) >> (64 - 8 * BUCKET_CELLS as u32);
const TOP_BITS: u64 = ONES << 7;
/// The bits of the tags.
const TAG_BITS: u64 = TOP_BITS - ONES;
const OVERFLOWN: u64 = 1 << 7;
/// The bits of the count of blocks that are elsewhere.
const AWAY_BITS: u64 = TOP_BITS - OVERFLOWN;

/// The byte of an address; 0 stands for no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag(u8);

impl Tag {
    /// Of an empty cell.
    pub const EMPTY: Tag = Tag(0);

    /// From a byte of an address's hash.
    pub const fn of_byte(byte: u8) -> Tag {
        let bits = byte & 0x7f;
        Tag(if bits == 0 { 1 } else { bits })
    }
}

/// The tags of one bucket, as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tags(u64);

/// The word of a bucket.
#[inline]
pub(crate) fn word_of(lines: &[WordLine], bucket_number: u64) -> Option<&AtomicU64> {
    lines
        .get((bucket_number / 8) as usize)?
        .0
        .get((bucket_number % 8) as usize)
}

impl Tags {
    /// What the bucket's word says now.
    #[inline]
    pub fn load(word: &AtomicU64) -> Tags {
        // ORDERING: Acquire, partner: the Release fence of `Claimed::store` before its `exchange`
        // and before `count_back`: who does not find its block's tag, or does not look elsewhere,
        // because the block was pushed out sees the `sample_bytes` that pushed it out.
        Tags(word.load(Ordering::Acquire))
    }

    /// How many blocks are counted as elsewhere; `None` when they were too many.
    #[cfg(all(test, not(loom)))]
    pub fn away_count(self) -> Option<u32> {
        let bits = (1..8).map(|byte| ((self.0 >> (8 * byte + 7) & 1) as u32) << (byte - 1));
        (self.0 & OVERFLOWN == 0).then(|| bits.sum())
    }

    /// Changes one cell's tag; for the owner of that cell.
    #[inline]
    pub fn exchange(word: &AtomicU64, cell: usize, old: Tag, new: Tag) {
        if old != new {
            // ORDERING: Relaxed: where a block is pushed out, the Release fence of `Claimed::store`
            // stands before this; a remove has nothing to tell.
            word.fetch_xor(u64::from(old.0 ^ new.0) << (8 * cell), Ordering::Relaxed);
        }
    }

    /// Counts a block that wanted to be in this bucket and goes elsewhere.
    pub fn count_away(word: &AtomicU64) {
        // ORDERING: Relaxed: who looks for its own block comes after the insert (L2) and sees it.
        change(word, |bits| {
            // The ones between the bits of the count pass a carry on.
            let count = (bits | !AWAY_BITS).wrapping_add(1) & AWAY_BITS;
            if count == 0 {
                bits | OVERFLOWN
            } else {
                bits & !AWAY_BITS | count
            }
        });
    }

    /// Counts such a block no more: it has left the table.
    pub fn count_back(word: &AtomicU64) {
        // ORDERING: Relaxed: where a block was pushed out, the Release fence of `Claimed::store`
        // stands before this; where one was removed, there is nothing to tell.
        change(word, |bits| {
            // The zeros between the bits of the count pass a borrow on.
            let count = (bits & AWAY_BITS).saturating_sub(1) & AWAY_BITS;
            bits & !AWAY_BITS | count
        });
    }

    /// Writes the word anew from what the cells hold; for whoever has the table for itself.
    pub fn rewrite(word: &AtomicU64, tags: impl Iterator<Item = (usize, Tag)>) {
        let kept = word.load(Ordering::Relaxed) & TOP_BITS;
        let bits = tags.fold(kept, |bits, (cell, tag)| {
            bits | u64::from(tag.0) << (8 * cell)
        });
        word.store(bits, Ordering::Relaxed);
    }

    /// Whether blocks that wanted to be in this bucket may be elsewhere.
    #[inline]
    pub fn is_overflown(self) -> bool {
        self.0 & TOP_BITS != 0
    }

    /// The cells that have this tag, lowest first.
    #[inline]
    pub fn cells(self, tag: Tag) -> impl Iterator<Item = usize> {
        let mut marks = self.marks(tag);
        core::iter::from_fn(move || {
            let cell = (marks != 0).then_some(marks.trailing_zeros() as usize / 8);
            marks &= marks.wrapping_sub(1);
            cell
        })
    }

    /// The lowest cell that has this tag.
    #[inline(always)]
    pub fn first_with(self, tag: Tag) -> Option<usize> {
        let marks = self.marks(tag);
        (marks != 0).then_some(marks.trailing_zeros() as usize / 8)
    }

    /// Whether more than so many cells have no tag.
    #[inline(always)]
    pub fn has_more_empty(self, count: u32) -> bool {
        let mut marks = self.marks(Tag::EMPTY);
        for _ in 0..count {
            marks &= marks.wrapping_sub(1);
        }
        marks != 0
    }

    /// How many cells have no tag.
    #[inline]
    pub fn empty_count(self) -> u32 {
        self.marks(Tag::EMPTY).count_ones()
    }

    /// The top bit of each byte that is `tag`.
    #[inline]
    fn marks(self, tag: Tag) -> u64 {
        let difference = (self.0 & TAG_BITS) ^ (ONES * u64::from(tag.0));
        // No carry crosses a byte: exact, not only for the lowest one.
        !(difference + TAG_BITS) & TOP_BITS
    }
}

/// Changes a word that is not OVERFLOWN.
fn change(word: &AtomicU64, new: impl Fn(u64) -> u64) {
    let mut seen = word.load(Ordering::Relaxed);
    // Ends: who is in the way has changed a tag or the count.
    while seen & OVERFLOWN == 0
        && let Err(newer) =
            word.compare_exchange(seen, new(seen), Ordering::Relaxed, Ordering::Relaxed)
    {
        seen = newer;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;
    use std::vec::Vec;

    #[test]
    fn cells_of_a_tag_are_exactly_those_whose_byte_it_is() {
        let words = [
            0,
            u64::MAX,
            0x0100_0001_0100_0100,
            0x8000_8080_0180_7f00,
            0x01ff_feff_0201_ff01,
            0x7f80_8100_ff00_0000,
        ];
        for (word, tag) in words
            .into_iter()
            .flat_map(|word| (0..=127).map(move |tag| (word, Tag(tag))))
        {
            let expected: Vec<usize> = word
                .to_le_bytes()
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte & 0x7f == tag.0)
                .map(|(cell, _)| cell)
                .collect();
            assert_eq!(
                Tags(word).cells(tag).collect::<Vec<_>>(),
                expected,
                "{word:#x} {tag:?}"
            );
            let has_more = |count| Tags(word).has_more_empty(count);
            assert!(
                tag != Tag::EMPTY
                    || (Tags(word).empty_count() as usize == expected.len()
                        && (0..10)
                            .all(|count| has_more(count) == (expected.len() > count as usize)))
            );
        }
    }

    #[test]
    fn exchange_changes_one_byte_only() {
        let word = AtomicU64::new(0x1122_3344_5566_7788);
        Tags::exchange(&word, 3, Tag(0x55), Tag(0x7f));
        Tags::exchange(&word, 7, Tag(0x11), Tag::EMPTY);
        Tags::exchange(&word, 0, Tag(0x08), Tag(0x08));
        assert_eq!(word.load(Ordering::Relaxed), 0x0022_3344_7f66_7788);
    }

    #[test]
    fn a_bucket_is_overflown_while_blocks_are_elsewhere_whatever_its_cells_do() {
        let word = AtomicU64::new(0);
        Tags::exchange(&word, 0, Tag::EMPTY, Tag(0x7f));
        assert!(!Tags::load(&word).is_overflown());
        for _ in 0..100 {
            Tags::count_away(&word);
            assert!(Tags::load(&word).is_overflown());
        }
        Tags::exchange(&word, 0, Tag(0x7f), Tag::EMPTY);
        Tags::exchange(&word, 5, Tag::EMPTY, Tag(0x7f));
        Tags::rewrite(&word, [(1, Tag(3))].into_iter());
        for _ in 0..100 {
            let tags = Tags::load(&word);
            assert!(tags.is_overflown());
            assert_eq!(tags.cells(Tag(3)).collect::<Vec<_>>(), [1]);
            assert_eq!(tags.empty_count(), 7);
            Tags::count_back(&word);
        }
        assert_eq!(word.load(Ordering::Relaxed), 3 << 8);
    }

    #[test]
    fn a_bucket_with_too_many_blocks_elsewhere_stays_overflown() {
        let word = AtomicU64::new(0);
        (0..127).for_each(|_| Tags::count_away(&word));
        (0..126).for_each(|_| Tags::count_back(&word));
        assert!(Tags::load(&word).is_overflown());
        Tags::count_back(&word);
        assert!(!Tags::load(&word).is_overflown());
        (0..128).for_each(|_| Tags::count_away(&word));
        (0..200).for_each(|_| Tags::count_back(&word));
        assert!(Tags::load(&word).is_overflown());
        Tags::exchange(&word, 7, Tag::EMPTY, Tag(0x55));
        assert_eq!(Tags::load(&word).cells(Tag(0x55)).collect::<Vec<_>>(), [7]);
    }

    #[test]
    fn no_address_has_the_tag_of_an_empty_cell() {
        assert!((0..=255).all(|byte| Tag::of_byte(byte) != Tag::EMPTY));
    }
}
