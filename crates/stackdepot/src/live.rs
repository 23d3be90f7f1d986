//! The live table: address -> live block, lock-free, bounded, sampling once it is full.
//!
//! Key type: [`LiveTable`], over memory of its own. Each stored block carries a counted
//! reference on its allocation stack that the caller took (`save_acquire`) and gave to the table;
//! every reference comes back to a caller exactly once (from `remove`, or as the block that an
//! `insert` released), who then puts it on the depot. The table itself never calls the depot.
//! Neighbours: `live/cell.rs` (the words of a cell), `live/sample.rs` (which blocks are kept
//! when there are too many, and the estimator), `live/memory.rs` (making and viewing one),
//! `live/image.rs` (foreign readers).
//!
//! An address has two candidate buckets of eight cells, and two more once any two buckets were
//! full; it sits in one of these cells and never moves. There are no tombstones, chains or
//! locks; every call looks at these keys a bounded number of times. (Four choices, because S
//! never falls again: it settles where all candidates are full hardly ever. With two, the
//! table ended half empty under churn; measured by `tests/live_estimate.rs`.)
//!
//! INVARIANT L2: one address has one mutator at a time, because the caller records a free
//! before the real free and an alloc after the real alloc. A caller that breaks this (a program
//! that frees twice at once) gets a wrong verdict at worst: references stay exact (L1).
//! INVARIANT L3: a block in the set of the current [`Sampling`] is stored, unless its insert
//! was lost (counted). So the absence of an address proves a double or invalid free only if
//! blocks of any size at that address are in the set and nothing was ever lost.

mod cell;
mod image;
mod memory;
mod sample;

pub use cell::LiveBlock;
pub use image::{BucketImage, LiveHeaderImage};
pub use sample::Sampling;

use crate::error::ConfigError;
use crate::section::{LINE_BYTES, SectionError, WordLine};
use crate::sync::{AtomicU64, Ordering};
use cell::{BUCKET_CELLS, BUCKET_LINES, Bucket, Key};
use core::num::NonZeroU64;
use sample::{AddressHash, Priority};

/// "STKDLIVE", little-endian.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"STKDLIVE");
pub(crate) const VERSION: u64 = 1;
/// Lines in front of the buckets: the constants, then S and the counters.
pub(crate) const HEADER_LINES: usize = 2;
/// Fewer make no sense.
const LEAST_BUCKETS: u64 = 2;
const MOST_BUCKETS: u64 = 1 << 31;
/// Looks at the buckets before an insert gives up; each is spent because another thread took
/// the very cell that was chosen.
const INSERT_LOOKS: u32 = if cfg!(loom) { 3 } else { 16 };

/// Words of the second header line.
pub(crate) const SAMPLE_BYTES: usize = 0;
pub(crate) const LOST: usize = 1;
pub(crate) const STALE: usize = 2;
pub(crate) const PUSHED_OUT: usize = 3;
pub(crate) const OVERFLOWN: usize = 4;

/// The buckets in which an address may be: two, and two more once any two were full.
type Candidates<'r> = [Option<Bucket<'r>>; 4];

/// The bytes of a table that has at least `cell_count` cells.
///
/// # Errors
/// A count that no table can have.
pub fn live_bytes(cell_count: usize) -> Result<usize, ConfigError> {
    let bucket_count = (cell_count.div_ceil(BUCKET_CELLS) as u64).max(LEAST_BUCKETS);
    ConfigError::check("live cell_count", cell_count as u64, 0, MOST_BUCKETS * BUCKET_CELLS as u64)?;
    Ok((HEADER_LINES + bucket_count as usize * BUCKET_LINES) * LINE_BYTES)
}

/// What became of an inserted block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "references that the table did not take, or gave back, must be put"]
pub enum Inserted {
    /// It is in the table, which took its reference.
    Stored,
    /// So it is, in place of a block at the same address whose free was not seen (counted);
    /// that block's reference is the caller's now.
    Replaced(LiveBlock),
    /// So it is, in the place of a block that left the sample; that block's reference is the
    /// caller's now. It is still live, just no longer known.
    PushedOut(LiveBlock),
    /// It is not in the sample: its reference stays the caller's.
    Unsampled,
    /// Nor is it, and a block at the same address, whose free was not seen, was removed; both
    /// references are the caller's.
    UnsampledReplaced(LiveBlock),
    /// Other threads kept taking the chosen cell: not stored, counted as lost; its reference
    /// stays the caller's.
    Contended,
}

impl Inserted {
    /// Whether the table took the block and its reference.
    pub const fn is_stored(&self) -> bool {
        matches!(self, Inserted::Stored | Inserted::Replaced(_) | Inserted::PushedOut(_))
    }

    /// A block whose reference came back to the caller.
    pub const fn released(&self) -> Option<LiveBlock> {
        match self {
            Inserted::Replaced(block) | Inserted::PushedOut(block) | Inserted::UnsampledReplaced(block) => Some(*block),
            Inserted::Stored | Inserted::Unsampled | Inserted::Contended => None,
        }
    }
}

/// What was known about an address that is being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the reference of a removed block must be put"]
pub enum Removed {
    /// The block; its reference is the caller's now.
    Block(LiveBlock),
    /// Not in the table, which proves nothing: it may have been left out of the sample or lost.
    Unsampled,
    /// Not in the table though every block at this address would be: no block that was recorded
    /// is live there. A double free, an invalid free, or a block from before the recording.
    Unknown,
}

/// What a table counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStats {
    /// Cells of the table.
    pub cell_count: u64,
    /// S of [`Sampling`]; 0 = every block is kept.
    pub sample_bytes: u64,
    /// Blocks of the sample that could not be stored.
    pub lost: u64,
    /// Blocks found at the address of a new one: their frees were not seen.
    pub stale: u64,
    /// Blocks that left the table because they left the sample.
    pub pushed_out: u64,
}

/// A bounded map from addresses to live blocks; see the module's page.
///
/// Lock-free: each call looks at most a fixed number of times at 32 cells. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct LiveTable<'r> {
    counters: &'r WordLine,
    buckets: &'r [WordLine],
    bucket_count: NonZeroU64,
}

/// What one look at the candidate buckets of an address found.
struct Look<'r> {
    same: Option<(Bucket<'r>, usize, Key)>,
    empty: Option<(Bucket<'r>, usize, Key)>,
}

/// The place to take in a bucket, or among several.
struct Weakest<'r> {
    /// How many of its bucket are in the sample.
    kept_count: usize,
    /// Of the block there; the lowest of all if the place is empty.
    priority: Priority,
    /// Where it is; `None` for the block that is being inserted.
    place: Option<(Bucket<'r>, usize, Key)>,
}

impl<'r> Weakest<'r> {
    fn of(bucket: Bucket<'r>, sampling: Sampling) -> Option<Weakest<'r>> {
        let mut weakest: Option<Weakest<'r>> = None;
        let mut kept_count = 0;
        for (cell, key) in bucket.keys() {
            let priority = match key.is_empty() {
                true => Priority::LOWEST,
                false => bucket.priority(cell, key),
            };
            // BUSY cells count as taken: most of them are being filled.
            kept_count += usize::from(!key.is_empty() && sampling.keeps(priority));
            if !key.is_busy() && weakest.as_ref().is_none_or(|weakest| priority.is_below(weakest.priority)) {
                weakest = Some(Weakest { kept_count, priority, place: Some((bucket, cell, key)) });
            }
        }
        weakest.map(|weakest| Weakest { kept_count, ..weakest })
    }

    /// The one in the bucket with fewer blocks of the sample, so that the buckets fill evenly;
    /// where every bucket is full of them, the weaker.
    fn or_better(self, other: Option<Weakest<'r>>) -> Weakest<'r> {
        match other {
            Some(other) if other.kept_count < self.kept_count => other,
            Some(other) if self.kept_count >= BUCKET_CELLS && other.priority.is_below(self.priority) => other,
            _ => self,
        }
    }
}

impl<'r> LiveTable<'r> {
    fn view(lines: &'r [WordLine]) -> Result<LiveTable<'r>, SectionError> {
        let given_bytes = (lines.len() * LINE_BYTES) as u64;
        let needed_bytes = (HEADER_LINES as u64 + LEAST_BUCKETS * BUCKET_LINES as u64) * LINE_BYTES as u64;
        let [_, counters, buckets @ ..] = lines else {
            return Err(SectionError::TooShort { given_bytes, needed_bytes });
        };
        match NonZeroU64::new((buckets.len() / BUCKET_LINES) as u64) {
            Some(bucket_count) if bucket_count.get() < LEAST_BUCKETS => Err(SectionError::TooShort { given_bytes, needed_bytes }),
            Some(bucket_count) if bucket_count.get() <= MOST_BUCKETS => Ok(LiveTable { counters, buckets, bucket_count }),
            Some(_) => Err(SectionError::Damaged { field: "bucket_count" }),
            None => Err(SectionError::TooShort { given_bytes, needed_bytes }),
        }
    }

    fn write_header(&self, header: &WordLine) {
        header.0[1].store(VERSION, Ordering::Relaxed);
        header.0[2].store(self.bucket_count.get(), Ordering::Relaxed);
        // ORDERING: Release, partner: the Acquire of the magic in `attach`.
        header.0[0].store(MAGIC, Ordering::Release);
    }

    /// Stores a live block, together with the reference on its stack that the caller took.
    ///
    /// Answers in any case who owns which reference now. An address of 0 or of more than 48
    /// bits is never stored.
    pub fn insert(&self, address: u64, block: &LiveBlock) -> Inserted {
        if !Key::can_hold(address) {
            return Inserted::Unsampled;
        }
        for _ in 0..INSERT_LOOKS {
            if let Some(inserted) = self.try_insert(self.candidates(address), address, block) {
                return inserted;
            }
        }
        self.count(LOST);
        Inserted::Contended
    }

    /// Takes the block at that address out of the table.
    pub fn remove(&self, address: u64) -> Removed {
        if !Key::can_hold(address) {
            return Removed::Unknown;
        }
        for bucket in self.candidates(address).into_iter().flatten() {
            for (cell, key) in bucket.keys() {
                if !key.is_block() || key.address() != address {
                    continue;
                }
                // A failed claim: pushed out this moment (or freed twice at once); the verdict
                // below tells, because whoever pushes out first raises `sample_bytes`.
                if let Some(claimed) = bucket.claim(cell, key) {
                    let block = claimed.block();
                    claimed.release();
                    return Removed::Block(block);
                }
            }
        }
        self.verdict_of_absence(address)
    }

    /// The rule of what is kept now; it only ever keeps less.
    pub fn sampling(&self) -> Sampling {
        Sampling::new(self.sample_bytes().load(Ordering::Relaxed))
    }

    /// The counters.
    pub fn stats(&self) -> LiveStats {
        let count = |word: usize| self.counters.0.get(word).map_or(0, |count| count.load(Ordering::Relaxed));
        LiveStats {
            cell_count: self.bucket_count.get() * BUCKET_CELLS as u64,
            sample_bytes: count(SAMPLE_BYTES),
            lost: count(LOST),
            stale: count(STALE),
            pushed_out: count(PUSHED_OUT),
        }
    }

    /// Every stored block with its address, weakly consistent: what comes or goes meanwhile may be
    /// missed, no block is torn. Blocks that left the sample but not yet the table are among
    /// them (they hold references); their [`Sampling::factor`] is 0.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, LiveBlock)> + use<'r> {
        let buckets = self.buckets;
        let all = (0..self.bucket_count.get()).filter_map(move |number| Bucket::at(buckets, number));
        all.flat_map(|bucket| (0..BUCKET_CELLS).filter_map(move |cell| bucket.read(cell)))
    }

    /// Empties the cells whose owners died in them; for the one process that opens a table for
    /// writing again, before it uses it.
    pub fn reset_in_flight(&self) {
        for number in 0..self.bucket_count.get() {
            if let Some(bucket) = Bucket::at(self.buckets, number) {
                bucket.reset_busy();
            }
        }
    }

    fn candidates(&self, address: u64) -> Candidates<'r> {
        // Set before anything is stored in the second pair, so whoever looks for a block of its
        // own sees it (L2 orders the insert before).
        let has_overflown = self.counters.0[OVERFLOWN].load(Ordering::Relaxed) != 0;
        let [first, second, third, fourth] = AddressHash::of(address).buckets(self.bucket_count).map(|number| Bucket::at(self.buckets, number));
        if has_overflown { [first, second, third, fourth] } else { [first, second, None, None] }
    }

    fn sample_bytes(&self) -> &'r AtomicU64 {
        &self.counters.0[SAMPLE_BYTES]
    }

    fn count(&self, word: usize) {
        if let Some(counter) = self.counters.0.get(word) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One look; `None` when another thread took the chosen cell.
    fn try_insert(&self, candidates: Candidates<'r>, address: u64, block: &LiveBlock) -> Option<Inserted> {
        let look = look_at(candidates, address);
        let sampling = self.sampling();
        let is_kept = sampling.contains(address, block.size.min(cell::MOST_SIZE));
        match (look.same, look.empty) {
            (Some((bucket, cell, key)), _) => {
                let stale = bucket.claim(cell, key)?;
                let old = stale.block();
                self.count(STALE);
                if is_kept {
                    stale.store(address, block);
                    return Some(Inserted::Replaced(old));
                }
                stale.release();
                Some(Inserted::UnsampledReplaced(old))
            }
            (None, _) if !is_kept => Some(Inserted::Unsampled),
            (None, Some((bucket, cell, key))) if sampling.sample_bytes() == 0 => {
                bucket.claim(cell, key)?.store(address, block);
                Some(Inserted::Stored)
            }
            (None, _) if self.counters.0[OVERFLOWN].load(Ordering::Relaxed) == 0 => {
                self.counters.0[OVERFLOWN].store(1, Ordering::Relaxed);
                None
            }
            (None, _) => self.insert_sampled(candidates, address, block),
        }
    }

    /// Takes an empty cell, or the place of a block that is no longer in the sample, in the
    /// bucket with the fewest blocks of the sample. Is there none, the weakest of all leaves the
    /// sample; if that is the new block, it stays out.
    fn insert_sampled(&self, candidates: Candidates<'r>, address: u64, block: &LiveBlock) -> Option<Inserted> {
        let new = Priority::of(address, block.size.min(cell::MOST_SIZE));
        let mut chosen = Weakest { kept_count: BUCKET_CELLS, priority: new, place: None };
        let sampling = self.sampling();
        for bucket in candidates.into_iter().flatten() {
            chosen = chosen.or_better(Weakest::of(bucket, sampling));
        }
        let Some((bucket, cell, key)) = chosen.place else {
            self.drop_from_sample(chosen.priority);
            return Some(Inserted::Unsampled);
        };
        if key.is_empty() {
            bucket.claim(cell, key)?.store(address, block);
            return Some(Inserted::Stored);
        }
        self.drop_from_sample(chosen.priority);
        let claimed = bucket.claim(cell, key)?;
        let old = claimed.block();
        // The priority was read from a cell that could change: look again now that it cannot.
        if self.sampling().contains(claimed.address(), old.size) {
            claimed.put_back();
            return None;
        }
        claimed.store(address, block);
        self.count(PUSHED_OUT);
        Some(Inserted::PushedOut(old))
    }

    fn drop_from_sample(&self, priority: Priority) {
        // ORDERING: AcqRel, partner: `verdict_of_absence` by way of the cell's key: this comes
        // before the claim that makes the block disappear.
        self.sample_bytes().fetch_max(priority.dropping(), Ordering::AcqRel);
    }

    fn verdict_of_absence(&self, address: u64) -> Removed {
        let lost = self.counters.0[LOST].load(Ordering::Relaxed);
        if lost == 0 && self.sampling().contains_any_size(address) { Removed::Unknown } else { Removed::Unsampled }
    }
}

/// Looks for the address, and for an empty cell in the emptier bucket.
fn look_at(candidates: Candidates<'_>, address: u64) -> Look<'_> {
    let mut look = Look { same: None, empty: None };
    let mut most_empty = 0;
    for bucket in candidates.into_iter().flatten() {
        let mut first_empty = None;
        let mut empty_count = 0;
        for (cell, key) in bucket.keys() {
            if key.is_empty() {
                empty_count += 1;
                first_empty = first_empty.or(Some((bucket, cell, key)));
            } else if key.is_block() && key.address() == address {
                look.same = Some((bucket, cell, key));
            }
        }
        if empty_count > most_empty {
            (most_empty, look.empty) = (empty_count, first_empty);
        }
    }
    look
}

#[cfg(all(test, not(loom)))]
mod tests;
