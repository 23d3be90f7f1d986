//! Recorded stack-trace workloads: allocations and frees of real programs with their stacks.
//!
//! A corpus is what `stackdepot replay`, tests and benchmarks feed to a depot. The format
//! (`STKTRC01`, inside one zstd frame) is described in [`read`]; a file is foreign input, so
//! everything is checked before a [`Corpus`] exists: every index is in range, every count is
//! backed by real bytes. [`synthetic`] makes small workloads where no recording is at hand.
//!
//! What this crate does not do: it does not record, and it does not symbolize.

mod error;
pub mod read;
pub mod synthetic;
pub mod write;

pub use error::CorpusError;

/// A workload: unique stacks, and the events that refer to them by index.
///
/// Invariants, established by the reader: stack indexes are below [`Corpus::stack_count`] and
/// numbered by first appearance in the events; slots are below [`Corpus::slot_count`] or
/// [`NO_SLOT`]; there is at least one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corpus {
    /// Text lines `start-end file_offset path` of the executable mappings.
    pub(crate) module_map: String,
    /// Where each stack starts in `frames`, and one more for the end of the last.
    pub(crate) offsets: Vec<usize>,
    /// All stacks one after the other, each leaf first.
    pub(crate) frames: Vec<u64>,
    /// What happened, in order.
    pub(crate) events: Vec<Event>,
    /// Upper bound of the slots.
    pub(crate) slot_count: u32,
    /// Upper bound of the thread indexes.
    pub(crate) thread_count: u32,
}

/// The slot of a free whose allocation was not recorded.
pub const NO_SLOT: u32 = u32::MAX;

/// One allocation or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Index of its stack.
    pub stack: u32,
    /// The live object that it makes or ends: a dense number, or [`NO_SLOT`].
    pub slot: u32,
    /// Bytes of an allocation (saturated); 0 for a free.
    pub size: u32,
    /// Index of the recorded thread.
    pub thread: u16,
    /// Whether it allocates.
    pub is_alloc: bool,
}

impl Corpus {
    /// The events in the order of the recording; never empty.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The frames of a stack, leaf first; empty when there is no such stack.
    #[inline]
    pub fn stack(&self, index: u32) -> &[u64] {
        let index = index as usize;
        match (self.offsets.get(index), self.offsets.get(index + 1)) {
            (Some(&start), Some(&end)) => self.frames.get(start..end).unwrap_or(&[]),
            _ => &[],
        }
    }

    /// The workload up to its `event_count`-th event, at least one, with the stacks of these.
    pub fn first_events(&self, event_count: usize) -> Corpus {
        let events = self
            .events
            .get(..event_count.max(1))
            .unwrap_or(&self.events);
        // Stacks are numbered by first appearance.
        let stack_count = events.iter().map(|event| event.stack as usize + 1).max();
        let offsets = self
            .offsets
            .get(..=stack_count.unwrap_or(0))
            .unwrap_or(&self.offsets);
        let frame_count = offsets.last().copied().unwrap_or(0);
        let slots = events.iter().map(|event| event.slot);
        let slot_count = slots.filter(|slot| *slot != NO_SLOT).map(|slot| slot + 1);
        Corpus {
            module_map: self.module_map.clone(),
            offsets: offsets.to_vec(),
            frames: self
                .frames
                .get(..frame_count)
                .unwrap_or(&self.frames)
                .to_vec(),
            events: events.to_vec(),
            slot_count: slot_count.max().unwrap_or(0),
            thread_count: self.thread_count,
        }
    }

    /// How many unique stacks there are.
    pub fn stack_count(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Slots of events are below this, or [`NO_SLOT`].
    pub fn slot_count(&self) -> usize {
        self.slot_count as usize
    }

    /// Threads that were recorded.
    pub fn thread_count(&self) -> usize {
        self.thread_count as usize
    }

    /// The mappings that frames point into: text lines `start-end file_offset path`.
    pub fn module_map(&self) -> &str {
        &self.module_map
    }
}
