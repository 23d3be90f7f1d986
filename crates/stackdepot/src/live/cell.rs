//! The packed words of a live-table cell, and who may move its key.
//!
//! Key types: [`LiveBlock`] (what a cell holds) and [`Key`]. A cell is four words, key, stack,
//! size with thread, time, and two cells share a line: whoever knows the cell touches one line,
//! and neighbouring blocks touch the same one.
//!
//! Key word: address 48 | version 15 | BUSY.
//!
//! | key | meaning | goes to |
//! |---|---|---|
//! | address 0, not BUSY | empty | BUSY (insert) by CAS |
//! | address, not BUSY | the block | BUSY (remove, replace, push out) by CAS |
//! | BUSY | one thread owns the cell's words | the block, or empty, by that thread's store, version + 1 |
//!
//! INVARIANT L1: only who made a key BUSY touches the cell's other words or its key, so each
//! stored reference leaves the table exactly once, however many threads race for it and
//! whatever the versions are. The version is for readers, who copy without claiming.

use super::sample::{AddressHash, Priority};
use super::tags::{self, Tag, Tags};
use crate::handle::WeakHandle;
use crate::prefetch::prefetch;
use crate::ring::{bits_of, handle_of};
use crate::section::{LINE_BYTES, WordLine};
use crate::sync::{AtomicU64, Ordering, fence};

/// Cells of a bucket.
pub(crate) const BUCKET_CELLS: usize = if cfg!(loom) { 1 } else { 8 };
/// Words of a cell.
pub(crate) const CELL_WORDS: usize = 4;
/// Lines of a bucket.
pub(crate) const BUCKET_LINES: usize = (BUCKET_CELLS * CELL_WORDS).div_ceil(LINE_WORDS);
const LINE_WORDS: usize = LINE_BYTES / size_of::<u64>();
const LINE_CELLS: usize = LINE_WORDS / CELL_WORDS;

const VERSION_SHIFT: u32 = 1;
// Two bits let a model see the same key come back.
const VERSION_BITS: u32 = if cfg!(loom) { 2 } else { 15 };
const ADDRESS_SHIFT: u32 = VERSION_SHIFT + VERSION_BITS;
const SIZE_BITS: u32 = 40;
/// Greatest size that a cell can say; larger ones are kept as this.
pub(crate) const MOST_SIZE: u64 = (1 << SIZE_BITS) - 1;

/// A live block, without its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveBlock {
    /// The stack that allocated it; the table holds a counted reference on it. `None` when the
    /// save failed.
    pub stack: Option<WeakHandle>,
    /// Its size in bytes; at most 2^40 - 1 is kept.
    pub size: u64,
    /// Who allocated it; 24 bits are kept (thread numbers of Linux have 22).
    pub thread: u32,
    /// When, by the caller's time stamp counter.
    pub time: u64,
}

impl LiveBlock {
    pub(crate) fn to_words(self) -> [u64; 3] {
        [
            bits_of(self.stack),
            self.size.min(MOST_SIZE) | u64::from(self.thread) << SIZE_BITS,
            self.time,
        ]
    }

    pub(crate) const fn from_words(words: [u64; 3]) -> LiveBlock {
        let [stack, size, time] = words;
        LiveBlock {
            stack: handle_of(stack),
            size: size & MOST_SIZE,
            thread: (size >> SIZE_BITS) as u32,
            time,
        }
    }

    /// Whether `address` lies in the block that starts at `start`; an empty block has one byte.
    pub const fn covers(&self, start: u64, address: u64) -> bool {
        address >= start && address - start < if self.size == 0 { 1 } else { self.size }
    }
}

/// A cell's key word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub u64);

impl Key {
    const BUSY: u64 = 1;

    /// Whether a block can be stored at that address at all.
    pub const fn can_hold(address: u64) -> bool {
        address != 0 && address >> (64 - ADDRESS_SHIFT) == 0
    }

    pub const fn address(self) -> u64 {
        self.0 >> ADDRESS_SHIFT
    }

    pub const fn is_busy(self) -> bool {
        self.0 & Self::BUSY != 0
    }

    pub const fn is_empty(self) -> bool {
        self.address() == 0 && !self.is_busy()
    }

    /// Whether it is the key of a stored block.
    pub const fn is_block(self) -> bool {
        self.address() != 0 && !self.is_busy()
    }

    /// The tag of its address, whether the cell is BUSY or not.
    pub const fn tag(self) -> Tag {
        match self.address() {
            0 => Tag::EMPTY,
            address => AddressHash::of(address).tag(),
        }
    }

    const fn busy(self) -> Key {
        Key(self.0 | Self::BUSY)
    }

    /// What the owner of a BUSY cell leaves: the next version, with that address or 0.
    const fn next(self, address: u64) -> Key {
        let version = (self.0 >> VERSION_SHIFT).wrapping_add(1) & ((1 << VERSION_BITS) - 1);
        Key(address << ADDRESS_SHIFT | version << VERSION_SHIFT)
    }
}

/// One bucket: its cells, and a word of tags elsewhere.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket<'r> {
    lines: &'r [WordLine; BUCKET_LINES],
    tags: &'r AtomicU64,
}

/// A cell and the key that was seen there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen<'r> {
    pub bucket: Bucket<'r>,
    words: &'r [AtomicU64; CELL_WORDS],
    pub cell: usize,
    pub key: Key,
    /// The tag of the key.
    pub tag: Tag,
}

/// A cell that this thread made BUSY, and the key that was there.
#[derive(Debug)]
#[must_use = "a BUSY cell must be published again"]
pub(crate) struct Claimed<'r>(Seen<'r>);

/// A word of a cell that may be changing.
#[inline]
fn load(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed)
}

impl<'r> Bucket<'r> {
    /// The bucket of a number, if it is inside.
    #[inline]
    pub fn at(
        buckets: &'r [[WordLine; BUCKET_LINES]],
        tags: &'r [WordLine],
        number: u64,
    ) -> Option<Bucket<'r>> {
        Some(Bucket {
            lines: buckets.get(number as usize)?,
            tags: tags::word_of(tags, number)?,
        })
    }

    /// Which cells may hold what; see `live/tags.rs`.
    #[inline]
    pub fn tags(self) -> Tags {
        Tags::load(self.tags)
    }

    /// Whether both are the same bucket.
    pub fn is(self, other: Bucket<'_>) -> bool {
        core::ptr::eq(self.tags, other.tags)
    }

    /// A block whose home this is has left that bucket.
    #[inline]
    pub fn note_left(self, bucket: Bucket<'_>) {
        if !self.is(bucket) {
            Tags::count_back(self.tags);
        }
    }

    /// All cells with their keys now.
    pub fn cells(self) -> impl Iterator<Item = Seen<'r>> {
        (0..BUCKET_CELLS)
            .filter_map(move |cell| self.look(cell, Tag::EMPTY))
            .map(|seen| Seen {
                tag: seen.key.tag(),
                ..seen
            })
    }

    /// The stored block of that address, if it is in one of the cells with its tag. `tags` are its own.
    #[inline(always)]
    pub fn find(self, tags: Tags, tag: Tag, address: u64) -> Option<Seen<'r>> {
        tags.cells(tag)
            .filter_map(|cell| self.look(cell, tag))
            .find(|seen| seen.key.address() == address && seen.key.is_block())
    }

    /// Asks for the line of the cell that has this tag, or else of the first one without any.
    #[inline(always)]
    pub fn prefetch(self, tags: Tags, tag: Tag) {
        let likely = tags.first_with(tag).or_else(|| tags.first_with(Tag::EMPTY));
        if let Some(line) = likely.and_then(|cell| self.lines.get(cell / LINE_CELLS)) {
            prefetch(line);
        }
    }

    /// Asks for its tags.
    #[inline]
    pub fn prefetch_tags(self) {
        prefetch(self.tags);
    }

    /// An empty cell among those without a tag (the others are BUSY). `tags` are its own.
    #[inline(always)]
    pub fn find_empty(self, tags: Tags) -> Option<Seen<'r>> {
        tags.cells(Tag::EMPTY)
            .filter_map(|cell| self.look(cell, Tag::EMPTY))
            .find(|seen| seen.key.is_empty())
    }

    /// A cell's words: key, stack, size with thread, time.
    #[inline(always)]
    fn cell(self, cell: usize) -> Option<&'r [AtomicU64; CELL_WORDS]> {
        // So that the compiler sees that every bucket has the cell.
        let cell = cell % BUCKET_CELLS;
        let (cells, _) = self.lines.get(cell / LINE_CELLS)?.0.as_chunks();
        cells.get(cell % LINE_CELLS)
    }

    /// A cell and its key; whoever asks knows the tag that goes with the key it hopes for.
    #[inline(always)]
    fn look(self, cell: usize, tag: Tag) -> Option<Seen<'r>> {
        let words = self.cell(cell)?;
        let [word, ..] = words;
        // ORDERING: Acquire, partner: the Release of `Claimed::publish`: who does not find its
        // block because it was pushed out sees the `sample_bytes` that pushed it out.
        let key = Key(word.load(Ordering::Acquire));
        Some(Seen {
            bucket: self,
            words,
            cell,
            key,
            tag,
        })
    }

    /// A consistent copy of a stored block, without claiming it.
    pub fn read(self, cell: usize) -> Option<(u64, LiveBlock)> {
        let [word, block @ ..] = self.cell(cell)?;
        // ORDERING: Acquire, partner: the Release of `publish`.
        let key = Key(word.load(Ordering::Acquire));
        let words = block.each_ref().map(load);
        // ORDERING: Acquire, partner: the Release fence in `store`: who copied a later owner's
        // word sees that owner's BUSY (or later) key.
        fence(Ordering::Acquire);
        let is_stable = key.is_block() && word.load(Ordering::Relaxed) == key.0;
        is_stable.then(|| (key.address(), LiveBlock::from_words(words)))
    }

    /// Empties the cells whose owners died in them, and makes the tags agree with the keys (L4);
    /// nobody else may be using the table.
    pub fn reset_busy(self) {
        for [word, ..] in (0..BUCKET_CELLS).filter_map(|cell| self.cell(cell)) {
            let key = Key(word.load(Ordering::Relaxed));
            if key.is_busy() {
                word.store(key.next(0).0, Ordering::Relaxed);
            }
        }
        Tags::rewrite(self.tags, self.cells().map(|seen| (seen.cell, seen.tag)));
    }
}

impl<'r> Seen<'r> {
    /// A guess at the block's priority, to be looked at again once the cell is claimed.
    pub fn priority(&self) -> Priority {
        let [_, _, size, _] = self.words;
        Priority::of(self.key.address(), load(size) & MOST_SIZE)
    }

    /// Makes the cell BUSY if it still has that key.
    #[inline]
    pub fn claim(self) -> Option<Claimed<'r>> {
        let [word, ..] = self.words;
        // ORDERING: AcqRel, partner: `publish` of the cell's last owner: Acquire: its words are
        // visible and its reads are over (`look` acquired that too, except where the same key
        // came back after 2^15 reuses, which no model is large enough to show). Release: keeps
        // the chain from a push-out to whoever finds the address gone. Failure: another thread
        // took it; Acquire, because who loses its block to a push-out this way must see the
        // `sample_bytes` that did it.
        let (free, busy) = (self.key.0, self.key.busy().0);
        word.compare_exchange(free, busy, Ordering::AcqRel, Ordering::Acquire)
            .ok()?;
        Some(Claimed(self))
    }

    /// The same for a block whose home that is, which counts it first if it is another bucket.
    pub fn claim_for(self, home: Bucket<'_>) -> Option<Claimed<'r>> {
        if !self.bucket.is(home) {
            Tags::count_away(home.tags);
        }
        let claimed = self.claim();
        if claimed.is_none() {
            home.note_left(self.bucket);
        }
        claimed
    }
}

impl Claimed<'_> {
    /// What the cell held.
    #[inline]
    pub fn block(&self) -> LiveBlock {
        let [_, block @ ..] = self.0.words;
        LiveBlock::from_words(block.each_ref().map(load))
    }

    /// The address it held.
    pub fn address(&self) -> u64 {
        self.0.key.address()
    }

    /// Writes another block into the cell and gives the cell back; `tag` is that of the address.
    #[inline]
    pub fn store(self, address: u64, tag: Tag, block: &LiveBlock) {
        // ORDERING: Release, partner: the Acquire fence in `read`.
        fence(Ordering::Release);
        let [_, places @ ..] = self.0.words;
        for (place, word) in places.iter().zip(block.to_words()) {
            place.store(word, Ordering::Relaxed);
        }
        self.publish(address, tag);
    }

    /// Gives the cell back empty.
    #[inline]
    pub fn release(self) {
        self.publish(0, Tag::EMPTY);
    }

    /// Gives the cell back as it was.
    pub fn put_back(self) {
        let (address, tag) = (self.0.key.address(), self.0.tag);
        self.publish(address, tag);
    }

    #[inline]
    fn publish(self, address: u64, tag: Tag) {
        let Seen { words, key, .. } = self.0;
        let next = key.next(address);
        // Before the key (L4): from then on the cell is somebody else's.
        Tags::exchange(self.0.bucket.tags, self.0.cell, self.0.tag, tag);
        let [word, ..] = words;
        // ORDERING: Release, partner: the Acquire of `claim`, `look` and `read`: they see
        // the words that were stored, and our reads of them are over.
        word.store(next.0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_comes_back_from_its_words() {
        let block = LiveBlock {
            stack: Some(WeakHandle::new(9, u32::MAX)),
            size: MOST_SIZE,
            thread: (1 << 24) - 1,
            time: u64::MAX,
        };
        assert_eq!(LiveBlock::from_words(block.to_words()), block);
        let empty = LiveBlock {
            stack: None,
            size: 0,
            thread: 0,
            time: 0,
        };
        assert_eq!(LiveBlock::from_words(empty.to_words()), empty);
        let huge = LiveBlock {
            size: u64::MAX,
            thread: u32::MAX,
            ..block
        };
        assert_eq!(LiveBlock::from_words(huge.to_words()), block);
    }

    /// Readers of files know these places.
    #[cfg(not(loom))]
    #[test]
    fn words_are_laid_out_as_the_head_says() {
        let block = LiveBlock {
            stack: Some(WeakHandle::new(9, 8)),
            size: 5,
            thread: 3,
            time: 7,
        };
        assert_eq!(block.to_words(), [8 << 32 | 9, 3 << 40 | 5, 7]);
        assert_eq!(MOST_SIZE, (1 << 40) - 1);
        let key = Key(0x1234 << 16 | 0x7fff << 1);
        assert_eq!((key.address(), key.busy()), (0x1234, Key(key.0 | 1)));
        assert_eq!(key.next(0x5678), Key(0x5678 << 16));
        assert_eq!(key.next(0x5678).next(0), Key(1 << 1));
        assert!(key.busy().is_busy() && !key.busy().is_block() && !key.busy().is_empty());
    }

    #[test]
    fn key_keeps_its_address_through_all_versions() {
        let limit = 1 << (64 - ADDRESS_SHIFT);
        let address = limit - 1;
        let (mut key, mut last) = (Key(0), Key(0));
        for _ in 0..3 << VERSION_BITS {
            let next = key.busy().next(address);
            assert!(next.is_block() && next.address() == address && next != last);
            last = next;
            key = next.busy().next(0);
            assert!(key.is_empty());
        }
        assert!(!Key::can_hold(0) && !Key::can_hold(limit) && Key::can_hold(address));
    }

    #[test]
    fn block_covers_its_bytes_only() {
        let block = LiveBlock {
            stack: None,
            size: 10,
            thread: 0,
            time: 0,
        };
        assert!(block.covers(100, 100) && block.covers(100, 109));
        assert!(!block.covers(100, 110) && !block.covers(100, 99));
        assert!(LiveBlock { size: 0, ..block }.covers(100, 100));
    }
}
