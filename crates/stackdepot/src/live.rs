//! The live table: address -> live block, lock-free, bounded, sampling once it is full.
//!
//! Key type: [`LiveTable`], over memory of its own. Each stored block carries a counted
//! reference on its allocation stack that the caller took (`save_acquire`) and gave to the table;
//! every reference comes back to a caller exactly once (from `remove`, or as the block that an
//! `insert` released), who then puts it on the depot. The table itself never calls the depot.
//! Neighbours: `live/cell.rs` (the words of a cell), `live/tags.rs` (a byte per cell that spares
//! most looks at cells), `live/answer.rs` (what calls answer), `live/sample.rs` (which blocks are kept when there are too many, and
//! the estimator), `live/memory.rs` (making and viewing one), `live/image.rs` (foreign readers).
//!
//! An address has a home, a bucket of eight cells that it shares with its neighbours in memory,
//! and three other candidates once that home was full; it sits in one of these cells and never
//! moves. There are no tombstones, chains or locks; every call looks at these cells a bounded
//! number of times. (Four choices, because S never falls again: it settles where all candidates
//! are full hardly ever. With two, the table ended half empty under churn; measured by
//! `tests/live_estimate.rs`.)
//!
//! What a call touches: the home's tag word, 8 bytes, which it shares a line with those of its
//! neighbours; of an insert that stores and a remove that finds, the line of one cell; and where
//! the home was ever full, the tag words of the others. Only an insert that finds all candidates
//! full looks at all of their keys and sizes: while S grows, once per stored block.
//!
//! INVARIANT L2: one address has one mutator at a time, because the caller records a free
//! before the real free and an alloc after the real alloc. A caller that breaks this (a program
//! that frees twice at once) gets a wrong verdict at worst: references stay exact (L1).
//! INVARIANT L3: a block in the set of the current [`Sampling`] is stored, unless its insert
//! was lost (counted). So the absence of an address proves a double or invalid free only if
//! blocks of any size at that address are in the set and nothing was ever lost.

mod answer;
mod cell;
mod image;
mod memory;
mod sample;
mod tags;

pub use answer::{Inserted, LiveStats, Removed};
pub use cell::LiveBlock;
pub use image::{BucketImage, LiveHeaderImage};
pub use sample::Sampling;

use crate::error::ConfigError;
use crate::section::{LINE_BYTES, WordLine};
use crate::sync::{AtomicU64, Ordering};
use cell::{BUCKET_CELLS, BUCKET_LINES, Bucket, Key, Seen};
use core::num::NonZeroU64;
use sample::{AddressHash, Priority};
use tags::Tags;

/// "STKDLIVE", little-endian.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"STKDLIVE");
pub(crate) const VERSION: u64 = 4;
/// Lines in front of the tags: what every call reads, and the counters.
pub(crate) const HEADER_LINES: usize = 2;
/// Fewer make no sense.
const LEAST_BUCKETS: u64 = 2;
const MOST_BUCKETS: u64 = 1 << 31;
/// Looks at the buckets before an insert gives up; each is spent because another thread took
/// the very cell that was chosen.
const INSERT_LOOKS: u32 = if cfg!(loom) { 3 } else { 16 };

/// A bucket with no more blocks of the sample than this is not worth comparing with others: the
/// sample comes out as large (simulated and in `tests/live_estimate.rs`) for half of the looks.
const ROOMY: usize = BUCKET_CELLS.saturating_sub(2);

/// Cells of a bucket that are left to blocks whose homes are full, while these have a choice.
const ROOM_FOR_OTHERS: u32 = if cfg!(loom) { 0 } else { 2 };

/// Words of the first header line; the first three never change.
pub(crate) const BUCKET_COUNT: usize = 2;
pub(crate) const SAMPLE_BYTES: usize = 3;

/// Words of the second header line: counters.
pub(crate) const LOST: usize = 0;
pub(crate) const STALE: usize = 1;
pub(crate) const PUSHED_OUT: usize = 2;

/// An address and where its block may be, found once for a call that comes later; see
/// [`LiveTable::locate`].
#[derive(Clone, Copy, Debug)]
pub struct Located<'r> {
    address: u64,
    home: Bucket<'r>,
    hash: AddressHash,
}

/// Lines of a table: header, tags (a word for each bucket), buckets.
const fn line_count(bucket_count: u64) -> u64 {
    HEADER_LINES as u64 + tag_line_count(bucket_count) + bucket_count * BUCKET_LINES as u64
}

const fn tag_line_count(bucket_count: u64) -> u64 {
    bucket_count.div_ceil(8)
}

/// The most buckets of which the table fits into so many lines.
const fn buckets_in(line_count: u64) -> u64 {
    line_count.saturating_sub(HEADER_LINES as u64) * 8 / (8 * BUCKET_LINES as u64 + 1)
}

/// The bytes of a table that has at least `cell_count` cells.
///
/// # Errors
/// A count that no table can have.
pub fn live_bytes(cell_count: usize) -> Result<usize, ConfigError> {
    let bucket_count = (cell_count.div_ceil(BUCKET_CELLS) as u64).max(LEAST_BUCKETS);
    ConfigError::check(
        "live cell_count",
        cell_count as u64,
        0,
        MOST_BUCKETS * BUCKET_CELLS as u64,
    )?;
    Ok(line_count(bucket_count) as usize * LINE_BYTES)
}

/// A bounded map from addresses to live blocks; see the module's page.
///
/// Lock-free: each call looks at most a fixed number of times at 32 cells. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct LiveTable<'r> {
    header: &'r WordLine,
    tags: &'r [WordLine],
    counters: &'r WordLine,
    buckets: &'r [[WordLine; BUCKET_LINES]],
    bucket_count: NonZeroU64,
    /// The bucket of number 0.
    first: Bucket<'r>,
}

/// The place to take in a bucket, or among several.
struct Weakest<'r> {
    /// How many of its bucket are in the sample.
    kept_count: usize,
    /// Of the block there; the lowest of all if the place is empty.
    priority: Priority,
    /// Where it is; `None` for the block that is being inserted.
    place: Option<Seen<'r>>,
}

impl<'r> Weakest<'r> {
    fn of(bucket: Bucket<'r>, sampling: Sampling) -> Option<Weakest<'r>> {
        let mut weakest: Option<Weakest<'r>> = None;
        let mut kept_count = 0;
        for seen in bucket.cells() {
            let priority = match seen.key.is_empty() {
                true => Priority::LOWEST,
                false => seen.priority(),
            };
            // BUSY cells count as taken: most of them are being filled.
            kept_count += usize::from(!seen.key.is_empty() && sampling.keeps(priority));
            if !seen.key.is_busy()
                && weakest
                    .as_ref()
                    .is_none_or(|weakest| priority.is_below(weakest.priority))
            {
                weakest = Some(Weakest {
                    kept_count,
                    priority,
                    place: Some(seen),
                });
            }
        }
        weakest.map(|weakest| Weakest {
            kept_count,
            ..weakest
        })
    }

    /// The one in the bucket with fewer blocks of the sample, so that the buckets fill evenly;
    /// where every bucket is full of them, the weaker.
    fn or_better(self, other: Option<Weakest<'r>>) -> Weakest<'r> {
        match other {
            Some(other) if other.kept_count < self.kept_count => other,
            Some(other)
                if self.kept_count >= BUCKET_CELLS && other.priority.is_below(self.priority) =>
            {
                other
            }
            _ => self,
        }
    }
}

impl Located<'_> {
    /// The address.
    #[inline]
    pub fn address(&self) -> u64 {
        self.address
    }
}

impl<'r> LiveTable<'r> {
    /// Views lines as a table of that many buckets; `None` when it is too large for them.
    fn view(lines: &'r [WordLine], bucket_count: NonZeroU64) -> Option<LiveTable<'r>> {
        let [header, counters, rest @ ..] = lines else {
            return None;
        };
        let (tags, buckets) = rest.split_at_checked(tag_line_count(bucket_count.get()) as usize)?;
        let (buckets, _) = buckets.as_chunks();
        let buckets = buckets.get(..bucket_count.get() as usize)?;
        Some(LiveTable {
            header,
            counters,
            tags,
            buckets,
            bucket_count,
            first: Bucket::at(buckets, tags, 0)?,
        })
    }

    fn write_header(&self) {
        let [magic, version, bucket_count, ..] = &self.header.0;
        version.store(VERSION, Ordering::Relaxed);
        bucket_count.store(self.bucket_count.get(), Ordering::Relaxed);
        // ORDERING: Release, partner: the Acquire of the magic in `attach`.
        magic.store(MAGIC, Ordering::Release);
    }

    /// Stores a live block, together with the reference on its stack that the caller took.
    ///
    /// Answers in any case who owns which reference now. An address of 0 or of more than 48
    /// bits is never stored.
    pub fn insert(&self, address: u64, block: &LiveBlock) -> Inserted {
        self.insert_at(&self.home_of(address), block)
    }

    /// Takes the block at that address out of the table.
    pub fn remove(&self, address: u64) -> Removed {
        self.remove_at(&self.home_of(address))
    }

    /// Finds out where the block of an address may be, and asks for what an [`insert_at`](Self::insert_at)
    /// or a [`remove_at`](Self::remove_at) will touch there; call it as soon as the address is known, with
    /// work in between. Stays true whatever happens to the table.
    #[inline(always)]
    pub fn locate(&self, address: u64) -> Located<'r> {
        let located = self.home_of(address);
        let tags = located.home.tags();
        located.home.prefetch(tags, located.hash.tag());
        if tags.is_overflown() {
            self.prefetch_others(located.hash);
        }
        located
    }

    /// [`insert`](Self::insert) of a block whose address was located before.
    #[inline(always)]
    pub fn insert_at(&self, located: &Located<'r>, block: &LiveBlock) -> Inserted {
        if self.is_inserted_at_home(located, block) {
            return Inserted::Stored;
        }
        self.insert_anywhere(located, block)
    }

    /// [`remove`](Self::remove) of the block at an address that was located before.
    #[inline(always)]
    pub fn remove_at(&self, located: &Located<'r>) -> Removed {
        // A failed claim: pushed out this moment (or freed twice at once); the verdict tells,
        // because whoever pushes out first raises `sample_bytes`.
        if let Some(seen) = self.find(located)
            && let Some(claimed) = seen.claim()
        {
            let block = claimed.block();
            claimed.release();
            located.home.note_left(seen.bucket);
            return Removed::Block(block);
        }
        self.verdict_of_absence(located)
    }

    /// Stores a block as nearly every one is: new, in the sample, at a home that has room. `false`: to
    /// be looked at more closely.
    #[inline(always)]
    fn is_inserted_at_home(&self, located: &Located<'r>, block: &LiveBlock) -> bool {
        let Located {
            address,
            home,
            hash,
        } = *located;
        let tags = home.tags();
        if !Key::can_hold(address)
            || !self.is_kept(hash, block)
            || self.find_under(tags, located).is_some()
        {
            return false;
        }
        let claimed = find_roomy(home, tags).and_then(Seen::claim);
        let is_claimed = claimed.is_some();
        if let Some(claimed) = claimed {
            claimed.store(address, hash.tag(), block);
        }
        is_claimed
    }

    /// Whether a block is in the sample of now.
    #[inline(always)]
    fn is_kept(&self, hash: AddressHash, block: &LiveBlock) -> bool {
        let sampling = self.sampling();
        !sampling.is_sampling()
            || sampling.keeps(Priority::of_hash(hash, block.size.min(cell::MOST_SIZE)))
    }

    #[cold]
    #[inline(never)]
    fn insert_anywhere(&self, located: &Located<'r>, block: &LiveBlock) -> Inserted {
        if !Key::can_hold(located.address) {
            return Inserted::Unsampled;
        }
        for _ in 0..INSERT_LOOKS {
            if let Some(inserted) = self.try_insert(located, block) {
                return inserted;
            }
        }
        self.count(LOST);
        Inserted::Contended
    }

    /// The rule of what is kept now; it only ever keeps less.
    pub fn sampling(&self) -> Sampling {
        Sampling::new(self.sample_bytes().load(Ordering::Relaxed))
    }

    /// The counters.
    pub fn stats(&self) -> LiveStats {
        let count = |word: usize| {
            self.counters
                .0
                .get(word)
                .map_or(0, |count| count.load(Ordering::Relaxed))
        };
        LiveStats {
            cell_count: self.bucket_count.get() * BUCKET_CELLS as u64,
            sample_bytes: self.sampling().sample_bytes(),
            lost: count(LOST),
            stale: count(STALE),
            pushed_out: count(PUSHED_OUT),
        }
    }

    /// Every stored block with its address, weakly consistent: what comes or goes meanwhile may be
    /// missed, no block is torn. Blocks that left the sample but not yet the table are among
    /// them (they hold references); their [`Sampling::factor`] is 0.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, LiveBlock)> + use<'r> {
        let table = *self;
        let all = (0..self.bucket_count.get()).filter_map(move |number| table.bucket(number));
        all.flat_map(|bucket| (0..BUCKET_CELLS).filter_map(move |cell| bucket.read(cell)))
    }

    /// Empties the cells whose owners died in them; for the one process that opens a table for
    /// writing again, before it uses it.
    pub fn reset_in_flight(&self) {
        for number in 0..self.bucket_count.get() {
            if let Some(bucket) = self.bucket(number) {
                bucket.reset_busy();
            }
        }
    }

    #[inline]
    fn bucket(&self, number: u64) -> Option<Bucket<'r>> {
        Bucket::at(self.buckets, self.tags, number)
    }

    #[inline(always)]
    fn home_of(&self, address: u64) -> Located<'r> {
        let home = self.bucket(sample::home(address, self.bucket_count));
        Located {
            address,
            // Every home lies in the table; the compiler does not know.
            home: home.unwrap_or(self.first),
            hash: AddressHash::of(address),
        }
    }

    /// The candidates beside the home.
    #[inline]
    fn others(&self, hash: AddressHash) -> impl Iterator<Item = Bucket<'r>> {
        let numbers = hash.others(self.bucket_count);
        numbers.into_iter().filter_map(|number| self.bucket(number))
    }

    #[cold]
    #[inline(never)]
    fn prefetch_others(&self, hash: AddressHash) {
        for other in self.others(hash) {
            other.prefetch_tags();
        }
    }

    /// The stored block of that address.
    #[inline(always)]
    fn find(&self, located: &Located<'r>) -> Option<Seen<'r>> {
        self.find_under(located.home.tags(), located)
    }

    /// The same by the tags of its home.
    #[inline(always)]
    fn find_under(&self, tags: Tags, located: &Located<'r>) -> Option<Seen<'r>> {
        let at_home = located.home.find(tags, located.hash.tag(), located.address);
        if at_home.is_none() && tags.is_overflown() {
            return self.find_elsewhere(located);
        }
        at_home
    }

    #[cold]
    #[inline(never)]
    fn find_elsewhere(&self, located: &Located<'r>) -> Option<Seen<'r>> {
        let tag = located.hash.tag();
        self.others(located.hash)
            .find_map(|bucket| bucket.find(bucket.tags(), tag, located.address))
    }

    /// An empty cell of the home; where few are left, of the emptiest candidate.
    fn find_empty(&self, located: &Located<'r>) -> Option<Seen<'r>> {
        find_roomy(located.home, located.home.tags()).or_else(|| self.find_empty_anywhere(located))
    }

    #[inline(never)]
    fn find_empty_anywhere(&self, located: &Located<'r>) -> Option<Seen<'r>> {
        let others = || self.others(located.hash);
        // The home comes last, so that it is taken where it is as empty as another.
        let all = || others().chain([located.home]);
        let emptiest = all().max_by_key(|bucket| bucket.tags().empty_count())?;
        let find = |bucket: Bucket<'r>| bucket.find_empty(bucket.tags());
        // Its empty cells may all be BUSY.
        find(emptiest).or_else(|| all().find_map(find))
    }

    fn sample_bytes(&self) -> &'r AtomicU64 {
        &self.header.0[SAMPLE_BYTES]
    }

    fn count(&self, word: usize) {
        if let Some(counter) = self.counters.0.get(word) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One look; `None` when another thread took the chosen cell.
    fn try_insert(&self, located: &Located<'r>, block: &LiveBlock) -> Option<Inserted> {
        let Located {
            address,
            home,
            hash,
        } = *located;
        let is_kept = self.is_kept(hash, block);
        if let Some(same) = self.find(located) {
            let stale = same.claim()?;
            let old = stale.block();
            self.count(STALE);
            if is_kept {
                stale.store(address, hash.tag(), block);
                return Some(Inserted::Replaced(old));
            }
            stale.release();
            home.note_left(same.bucket);
            return Some(Inserted::UnsampledReplaced(old));
        }
        if !is_kept {
            return Some(Inserted::Unsampled);
        }
        if let Some(empty) = self.find_empty(located) {
            empty.claim_for(home)?.store(address, hash.tag(), block);
            return Some(Inserted::Stored);
        }
        self.push_out(located, block)
    }

    /// Takes the place of a block that is no longer in the sample, in the bucket with the fewest
    /// blocks of the sample, or in the first one that has few enough. Is there none, the weakest
    /// of all leaves the sample; if that is the new block, it stays out.
    #[inline(never)]
    fn push_out(&self, located: &Located<'r>, block: &LiveBlock) -> Option<Inserted> {
        let Located {
            address,
            home,
            hash,
        } = *located;
        let mut chosen = Weakest {
            kept_count: BUCKET_CELLS,
            priority: Priority::of_hash(hash, block.size.min(cell::MOST_SIZE)),
            place: None,
        };
        let sampling = self.sampling();
        for bucket in core::iter::once(home).chain(self.others(hash)) {
            chosen = chosen.or_better(Weakest::of(bucket, sampling));
            if chosen.kept_count <= ROOMY {
                break;
            }
        }
        let Some(place) = chosen.place else {
            self.drop_from_sample(chosen.priority);
            return Some(Inserted::Unsampled);
        };
        if place.key.is_empty() {
            place.claim_for(home)?.store(address, hash.tag(), block);
            return Some(Inserted::Stored);
        }
        self.drop_from_sample(chosen.priority);
        let claimed = place.claim_for(home)?;
        let (old_address, old) = (claimed.address(), claimed.block());
        // The priority was read from a cell that could change: look again now that it cannot.
        if self.sampling().contains(old_address, old.size) {
            claimed.put_back();
            home.note_left(place.bucket);
            return None;
        }
        claimed.store(address, hash.tag(), block);
        if let Some(old_home) = self.bucket(sample::home(old_address, self.bucket_count)) {
            old_home.note_left(place.bucket);
        }
        self.count(PUSHED_OUT);
        Some(Inserted::PushedOut(old))
    }

    fn drop_from_sample(&self, priority: Priority) {
        // ORDERING: Relaxed: the claim that makes the block disappear comes next and releases it
        // to `verdict_of_absence`, which read the cell's key or tag.
        self.sample_bytes()
            .fetch_max(priority.dropping(), Ordering::Relaxed);
    }

    #[cold]
    fn verdict_of_absence(&self, located: &Located<'r>) -> Removed {
        let lost = self.counters.0[LOST].load(Ordering::Relaxed);
        let address = located.address;
        let is_known = lost == 0 && self.sampling().contains_any_size(address);
        if is_known || !Key::can_hold(address) {
            Removed::Unknown
        } else {
            Removed::Unsampled
        }
    }
}

/// An empty cell of a home, unless only those for others are left. `tags` are the home's.
#[inline(always)]
fn find_roomy<'r>(home: Bucket<'r>, tags: Tags) -> Option<Seen<'r>> {
    let has_room = tags.has_more_empty(ROOM_FOR_OTHERS);
    has_room.then(|| home.find_empty(tags)).flatten()
}

#[cfg(all(test, not(loom)))]
mod tests;
