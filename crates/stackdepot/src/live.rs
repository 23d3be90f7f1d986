//! The live table: address -> live block, lock-free, bounded, sampling once it is full.
//!
//! Key type: [`LiveTable`], over memory of its own. Each stored block carries a counted
//! reference on its allocation stack that the caller took (`save_acquire`) and gave to the table;
//! every reference comes back to a caller exactly once (from `remove`, or as the block that an
//! `insert` released), who then puts it on the depot. The table itself never calls the depot.
//! Neighbours: `live/cell.rs` (the words of a cell), `live/sample.rs` (which blocks are kept
//! when there are too many, and the estimator), `live/image.rs` (foreign readers).
//!
//! An address has two candidate buckets of eight cells and sits in one of the 16; it never
//! moves. There are no tombstones, chains or locks; every call looks at 16 keys a bounded number
//! of times.
//!
//! INVARIANT L2: one address has one mutator at a time, because the caller records a free
//! before the real free and an alloc after the real alloc. A caller that breaks this (a program
//! that frees twice at once) gets a wrong verdict at worst: references stay exact (L1).
//! INVARIANT L3: a block in the set of the current [`Sampling`] is stored, unless its insert
//! was lost (counted). So the absence of an address proves a double or invalid free only if
//! blocks of any size at that address are in the set and nothing was ever lost.

mod cell;
mod image;
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
/// Two different candidates need two buckets.
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
/// Lock-free: each call looks at most a fixed number of times at 16 cells. Cheap to copy.
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
        let candidates = self.candidates(address);
        for _ in 0..INSERT_LOOKS {
            if let Some(inserted) = self.try_insert(candidates, address, block) {
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

    fn candidates(&self, address: u64) -> [Option<Bucket<'r>>; 2] {
        AddressHash::of(address).buckets(self.bucket_count).map(|number| Bucket::at(self.buckets, number))
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
    fn try_insert(&self, candidates: [Option<Bucket<'r>>; 2], address: u64, block: &LiveBlock) -> Option<Inserted> {
        let look = look_at(candidates, address);
        let is_kept = self.sampling().contains(address, block.size.min(cell::MOST_SIZE));
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
            (None, Some((bucket, cell, key))) => {
                bucket.claim(cell, key)?.store(address, block);
                Some(Inserted::Stored)
            }
            (None, None) => self.insert_full(candidates, address, block),
        }
    }

    /// Both buckets are full: the weakest of the 17 blocks leaves the sample, and its place is
    /// taken; if the new block is the weakest, it is the one left out.
    fn insert_full(&self, candidates: [Option<Bucket<'r>>; 2], address: u64, block: &LiveBlock) -> Option<Inserted> {
        let mut weakest = Priority::of(address, block.size.min(cell::MOST_SIZE));
        let mut weakest_cell = None;
        for bucket in candidates.into_iter().flatten() {
            for (cell, key) in bucket.keys().filter(|(_, key)| key.is_block()) {
                let priority = bucket.priority(cell, key);
                if priority.is_below(weakest) {
                    (weakest, weakest_cell) = (priority, Some((bucket, cell, key)));
                }
            }
        }
        // ORDERING: AcqRel, partner: `verdict_of_absence` by way of the cell's key: this comes
        // before the claim that makes the block disappear.
        self.sample_bytes().fetch_max(weakest.dropping(), Ordering::AcqRel);
        let Some((bucket, cell, key)) = weakest_cell else { return Some(Inserted::Unsampled) };
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

    fn verdict_of_absence(&self, address: u64) -> Removed {
        let lost = self.counters.0[LOST].load(Ordering::Relaxed);
        if lost == 0 && self.sampling().contains_any_size(address) { Removed::Unknown } else { Removed::Unsampled }
    }
}

/// Looks for the address, and for an empty cell in the emptier bucket.
fn look_at(candidates: [Option<Bucket<'_>>; 2], address: u64) -> Look<'_> {
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

#[cfg(not(loom))]
#[expect(unsafe_code, reason = "memory that the caller maps is vouched for by the caller")]
mod memory {
    use super::*;
    use crate::layout::Line;
    use crate::section::{lines_at, lines_of};
    use core::ptr::NonNull;

    impl<'r> LiveTable<'r> {
        /// Makes a table in borrowed memory, all of which it uses; [`live_bytes`] says how much
        /// a number of cells takes.
        ///
        /// # Errors
        /// Memory that is too short for two buckets, or too long.
        pub fn new(memory: &'r mut [Line]) -> Result<LiveTable<'r>, ConfigError> {
            make(lines_of(memory))
        }

        /// Makes a table in zero-filled memory; touches only its header.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `bytes` bytes for `'r`, all of them zero, and
        /// is accessed only through live tables meanwhile (also by other processes).
        ///
        /// # Errors
        /// Memory that is unaligned, too short for two buckets, or too long.
        pub unsafe fn create(base: NonNull<u8>, bytes: usize) -> Result<LiveTable<'r>, ConfigError> {
            let unaligned = ConfigError::Unaligned { address: base.addr().get(), alignment: LINE_BYTES };
            // SAFETY: the caller's promise, passed on.
            make(unsafe { lines_at(base, bytes) }.map_err(|_| unaligned)?)
        }

        /// Views a table that was made before.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `bytes` bytes for `'r` and is accessed only
        /// through live tables meanwhile (also by other processes).
        ///
        /// # Errors
        /// What is wrong with the memory.
        pub unsafe fn attach(base: NonNull<u8>, bytes: usize) -> Result<LiveTable<'r>, SectionError> {
            // SAFETY: the caller's promise, passed on.
            let lines = unsafe { lines_at(base, bytes) }?;
            let table = LiveTable::view(lines)?;
            let Some(header) = lines.first() else { return Err(SectionError::Foreign { what: "live table" }) };
            // ORDERING: Acquire, partner: `write_header`.
            let magic = header.0[0].load(Ordering::Acquire);
            let word = |index: usize| header.0.get(index).map_or(0, |word| word.load(Ordering::Relaxed));
            let bucket_count = image::checked_bucket_count(magic, word, bytes as u64)?;
            Ok(LiveTable { bucket_count, ..table })
        }
    }

    fn make(lines: &[WordLine]) -> Result<LiveTable<'_>, ConfigError> {
        let least = (HEADER_LINES as u64 + LEAST_BUCKETS * BUCKET_LINES as u64) * LINE_BYTES as u64;
        let most = (HEADER_LINES as u64 + MOST_BUCKETS * BUCKET_LINES as u64) * LINE_BYTES as u64;
        let value = (lines.len() * LINE_BYTES) as u64;
        let table = LiveTable::view(lines).map_err(|_| ConfigError::OutOfRange { field: "live table bytes", value, least, most })?;
        if let Some(header) = lines.first() {
            table.write_header(header);
        }
        Ok(table)
    }
}

#[cfg(loom)]
impl<'r> LiveTable<'r> {
    /// A table over loom's boxes.
    pub fn of_memory(memory: &'r crate::section::SectionMemory) -> Result<LiveTable<'r>, SectionError> {
        let table = LiveTable::view(memory.lines())?;
        if let Some(header) = memory.lines().first() {
            table.write_header(header);
        }
        Ok(table)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
