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

/// What is counted. The number is the place in the file: a change is a new version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Counter {
    /// Frees of blocks that nobody recorded.
    FreesUnknown = 0,
    /// Stacks that the unwinder could not walk to their end.
    UnwindFailed = 1,
    /// Stacks cut at the frame limit.
    Truncated = 2,
    /// Saves refused because everything was held.
    SaveFull = 3,
    /// Saves given up after a bounded number of steps.
    SaveContended = 4,
    /// Saves refused because a bucket pair was full of held nodes.
    SaveCrowded = 5,
    /// Saves or acquires refused because the reference count was at its end.
    SaveSaturated = 6,
    /// Blocks that the live table could not take.
    LiveTableFull = 7,
    /// Events that reached no file: the recorder was busy with the same thread, or not ready.
    EventsUnrecorded = 8,
    /// Threads seen.
    Threads = 9,
    /// Stacks taken a second time by the independent unwinder.
    CheckTotal = 10,
    /// Of these, equal frame by frame.
    CheckEqual = 11,
    /// Of these, cut by either unwinder.
    CheckTruncated = 12,
    /// Unloaded modules whose entry was overwritten.
    ModulesOverwritten = 13,
    /// Modules for which there was no entry.
    ModulesLost = 14,
    /// Calls of realloc that moved or resized a block.
    Reallocs = 15,
    /// Frees by a function of another family than the one that allocated.
    FreesMismatched = 16,
}

impl Counter {
    /// All of them, in the order of their places.
    pub const ALL: [Counter; 17] = [
        Counter::FreesUnknown,
        Counter::UnwindFailed,
        Counter::Truncated,
        Counter::SaveFull,
        Counter::SaveContended,
        Counter::SaveCrowded,
        Counter::SaveSaturated,
        Counter::LiveTableFull,
        Counter::EventsUnrecorded,
        Counter::Threads,
        Counter::CheckTotal,
        Counter::CheckEqual,
        Counter::CheckTruncated,
        Counter::ModulesOverwritten,
        Counter::ModulesLost,
        Counter::Reallocs,
        Counter::FreesMismatched,
    ];

    /// The name in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Counter::FreesUnknown => "frees_unknown",
            Counter::UnwindFailed => "unwind_failed",
            Counter::Truncated => "truncated",
            Counter::SaveFull => "save_full",
            Counter::SaveContended => "save_contended",
            Counter::SaveCrowded => "save_crowded",
            Counter::SaveSaturated => "save_saturated",
            Counter::LiveTableFull => "live_table_full",
            Counter::EventsUnrecorded => "events_unrecorded",
            Counter::Threads => "threads",
            Counter::CheckTotal => "check_total",
            Counter::CheckEqual => "check_equal",
            Counter::CheckTruncated => "check_truncated",
            Counter::ModulesOverwritten => "modules_overwritten",
            Counter::ModulesLost => "modules_lost",
            Counter::Reallocs => "reallocs",
            Counter::FreesMismatched => "frees_mismatched",
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
        assert_eq!(CounterValues::parse(&bytes).get(Counter::UnwindFailed), 7);
        assert_eq!(CounterValues::parse(&bytes).get(Counter::FreesUnknown), 0);
        assert_eq!(
            CounterValues::parse(&bytes[..100]).get(Counter::UnwindFailed),
            3
        );
    }
}
