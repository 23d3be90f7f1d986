//! The recorder's counters, by name: what it saw, and everything that it lost.
//!
//! Key type: [`Counters`], 16 shards of 64 words, so that threads that count the same thing do not
//! pull one cache line to and fro; a reader adds the shards up ([`CounterValues`]). All plain
//! statistics: relaxed, never a reason to decide anything.

use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::format::{PAGE_BYTES, word_at};

/// How many shards there are; a power of two.
pub const SHARD_COUNT: usize = 16;
/// Room for this many counters.
pub const COUNTER_LIMIT: usize = 64;
/// Counters that are kept.
pub const COUNTER_COUNT: usize = Counter::ALL.len();

/// What is counted. The number is the place in the file: never reuse one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Blocks that the program obtained.
    Allocs = 0,
    /// Blocks that it gave back.
    Frees = 1,
    /// Bytes that it obtained.
    AllocBytes = 2,
    /// Bytes that it gave back.
    FreeBytes = 3,
    /// Frees of blocks that nobody recorded.
    FreesUnknown = 4,
    /// Stacks that the unwinder could not walk to their end.
    UnwindFailed = 5,
    /// Stacks cut at the frame limit.
    Truncated = 6,
    /// Saves refused because everything was held.
    SaveFull = 7,
    /// Saves given up after a bounded number of steps.
    SaveContended = 8,
    /// Saves refused because a bucket pair was full of held nodes.
    SaveCrowded = 9,
    /// Saves or acquires refused because the reference count was at its end.
    SaveSaturated = 10,
    /// Blocks that the live table could not take.
    LiveTableFull = 11,
    /// Blocks left out of the live table because it samples.
    LiveUnsampled = 12,
    /// A block freed twice.
    DoubleFree = 13,
    /// A free of an address that is no block.
    InvalidFree = 14,
    /// A block freed by another family of functions than obtained it.
    MismatchedFree = 15,
    /// Events dropped because the ring lapped their writer.
    RingLapped = 16,
    /// Events that reached no file: the recorder was busy with the same thread, or not ready.
    EventsUnrecorded = 17,
    /// Threads seen.
    Threads = 18,
    /// Stacks taken a second time by the independent unwinder.
    CheckTotal = 19,
    /// Of these, equal frame by frame.
    CheckEqual = 20,
    /// Of these, cut by either unwinder.
    CheckTruncated = 21,
    /// Unloaded modules whose entry was overwritten.
    ModulesOverwritten = 22,
    /// Modules for which there was no entry.
    ModulesLost = 23,
    /// Frames copied from the thread's last unwind.
    MemoFrames = 24,
    /// Frames unwound.
    UnwoundFrames = 25,
    /// Calls of the hooked allocation functions that failed.
    AllocsFailed = 26,
    /// Calls of realloc that moved or resized a block.
    Reallocs = 27,
    /// Allocations of a fork's child before it had a file of its own.
    ForkUnrecorded = 28,
    /// Child processes that ran without a file.
    ChildrenUnrecorded = 29,
    /// Files of ended children that made room.
    ChildrenRemoved = 30,
}

impl Counter {
    /// All of them, in the order of their places.
    pub const ALL: [Counter; 31] = [
        Counter::Allocs,
        Counter::Frees,
        Counter::AllocBytes,
        Counter::FreeBytes,
        Counter::FreesUnknown,
        Counter::UnwindFailed,
        Counter::Truncated,
        Counter::SaveFull,
        Counter::SaveContended,
        Counter::SaveCrowded,
        Counter::SaveSaturated,
        Counter::LiveTableFull,
        Counter::LiveUnsampled,
        Counter::DoubleFree,
        Counter::InvalidFree,
        Counter::MismatchedFree,
        Counter::RingLapped,
        Counter::EventsUnrecorded,
        Counter::Threads,
        Counter::CheckTotal,
        Counter::CheckEqual,
        Counter::CheckTruncated,
        Counter::ModulesOverwritten,
        Counter::ModulesLost,
        Counter::MemoFrames,
        Counter::UnwoundFrames,
        Counter::AllocsFailed,
        Counter::Reallocs,
        Counter::ForkUnrecorded,
        Counter::ChildrenUnrecorded,
        Counter::ChildrenRemoved,
    ];

    /// The name in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::Allocs => "allocs",
            Counter::Frees => "frees",
            Counter::AllocBytes => "alloc_bytes",
            Counter::FreeBytes => "free_bytes",
            Counter::FreesUnknown => "frees_unknown",
            Counter::UnwindFailed => "unwind_failed",
            Counter::Truncated => "truncated",
            Counter::SaveFull => "save_full",
            Counter::SaveContended => "save_contended",
            Counter::SaveCrowded => "save_crowded",
            Counter::SaveSaturated => "save_saturated",
            Counter::LiveTableFull => "live_table_full",
            Counter::LiveUnsampled => "live_unsampled",
            Counter::DoubleFree => "double_free",
            Counter::InvalidFree => "invalid_free",
            Counter::MismatchedFree => "mismatched_free",
            Counter::RingLapped => "ring_lapped",
            Counter::EventsUnrecorded => "events_unrecorded",
            Counter::Threads => "threads",
            Counter::CheckTotal => "check_total",
            Counter::CheckEqual => "check_equal",
            Counter::CheckTruncated => "check_truncated",
            Counter::ModulesOverwritten => "modules_overwritten",
            Counter::ModulesLost => "modules_lost",
            Counter::MemoFrames => "memo_frames",
            Counter::UnwoundFrames => "unwound_frames",
            Counter::AllocsFailed => "allocs_failed",
            Counter::Reallocs => "reallocs",
            Counter::ForkUnrecorded => "fork_unrecorded",
            Counter::ChildrenUnrecorded => "children_unrecorded",
            Counter::ChildrenRemoved => "children_removed",
        }
    }
}

/// The counters as the writer sees them: two pages of the file.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Counters {
    shards: [[AtomicU64; COUNTER_LIMIT]; SHARD_COUNT],
}

const _: () = assert!(size_of::<Counters>() == 2 * PAGE_BYTES);

impl Counters {
    /// Adds to a counter in a shard (any number: taken modulo [`SHARD_COUNT`]).
    #[inline]
    pub fn add(&self, counter: Counter, shard: usize, delta: u64) {
        if let Some(cell) = self.cell(counter, shard) {
            cell.fetch_add(delta, Ordering::Relaxed);
        }
    }

    /// Counts something rare once.
    #[inline]
    pub fn count(&self, counter: Counter) {
        self.add(counter, 0, 1);
    }

    /// The sum over the shards.
    pub fn value(&self, counter: Counter) -> u64 {
        (0..SHARD_COUNT)
            .filter_map(|shard| self.cell(counter, shard))
            .fold(0, |sum, cell| {
                sum.wrapping_add(cell.load(Ordering::Relaxed))
            })
    }

    #[inline]
    fn cell(&self, counter: Counter, shard: usize) -> Option<&AtomicU64> {
        self.shards
            .get(shard % SHARD_COUNT)?
            .get(counter as usize % COUNTER_LIMIT)
    }
}

/// All counters of a file, read and added up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CounterValues([u64; COUNTER_COUNT]);

impl CounterValues {
    /// Adds up the shards in a copy of the two pages; missing bytes count as 0.
    pub fn parse(bytes: &[u8]) -> CounterValues {
        CounterValues(Counter::ALL.map(|counter| {
            (0..SHARD_COUNT)
                .filter_map(|shard| word_at(bytes, (shard * COUNTER_LIMIT + counter as usize) * 8))
                .fold(0, u64::wrapping_add)
        }))
    }

    /// One counter.
    pub fn get(&self, counter: Counter) -> u64 {
        self.0.get(counter as usize).copied().unwrap_or(0)
    }

    /// Name and value of each, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        Counter::ALL
            .iter()
            .map(|counter| (counter.name(), self.get(*counter)))
    }
}

impl fmt::Debug for CounterValues {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_lies_at_its_own_place() {
        for (index, counter) in Counter::ALL.iter().enumerate() {
            assert_eq!(*counter as usize, index);
        }
        let mut names: Vec<_> = Counter::ALL.iter().map(|counter| counter.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COUNTER_COUNT);
    }

    #[test]
    fn shards_add_up() {
        let mut bytes = vec![0u8; 2 * PAGE_BYTES];
        bytes[8] = 3;
        bytes[COUNTER_LIMIT * 8 + 8] = 4;
        assert_eq!(CounterValues::parse(&bytes).get(Counter::Frees), 7);
        assert_eq!(CounterValues::parse(&bytes).get(Counter::Allocs), 0);
        assert_eq!(CounterValues::parse(&bytes[..100]).get(Counter::Frees), 3);
    }
}
