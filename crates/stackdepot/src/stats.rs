//! Counts of what the depot did and of what it lost.
//!
//! Key type: [`Stats`]. Counters move on misses, evictions and refusals only: a save of a
//! stored stack writes none, so hits are the caller's saves minus the rest. All of them are
//! plain statistics: relaxed, read by no protocol.

use crate::layout::{Counters, Header, MOST_PAYLOAD_WORDS, Region};
use crate::sync::{AtomicU64, Ordering};

/// A depot's counters at one moment; not a consistent cut while others save.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Slots of the region.
    pub slot_count: u64,
    /// Nodes stored now.
    pub node_count: u64,
    /// Saves that stored a stack that was not stored before.
    pub new_stacks: u64,
    /// Nodes stored since creation.
    pub new_nodes: u64,
    /// Saved stacks that were evicted.
    pub evicted_stacks: u64,
    /// Nodes that were evicted, inner ones included.
    pub evicted_nodes: u64,
    /// Saves refused because every slot was held.
    pub full: u64,
    /// Operations given up because other threads kept winning.
    pub contended: u64,
    /// Saves refused because both index buckets held only held nodes.
    pub crowded: u64,
    /// Holds refused because the count was at its limit.
    pub saturated: u64,
    /// Saves of stacks that were cut at the limit of frames.
    pub truncated: u64,
    /// Nodes stored wide, in two slots, since creation.
    pub wide_nodes: u64,
    /// Slots out of service because their generations are used up.
    pub worn_slots: u64,
    /// Evictions made only to find an index entry.
    pub crowd_evicted: u64,
    /// `put`s of handles that named nothing held; they were ignored.
    pub stale_puts: u64,
    /// Nodes made twice at once, of which one was given back.
    pub undone_nodes: u64,
    /// Cells of the window table that are taken.
    pub windows: u64,
    /// Sums of the payload words of evicted stacks.
    pub evicted_payload: [u64; MOST_PAYLOAD_WORDS],
}

/// Adds one to a statistic.
#[inline]
pub(crate) fn count(counter: &AtomicU64) {
    // Statistics: no partner, no order.
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Region<'_> {
    /// Reads every counter.
    pub fn stats(&self) -> Stats {
        let header: &Header = self.header;
        let counters: &Counters = &header.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (new_nodes, evicted_nodes) = (read(&counters.new_nodes), read(&counters.evicted_nodes));
        let mut evicted_payload = [0; MOST_PAYLOAD_WORDS];
        for (sum, counter) in evicted_payload.iter_mut().zip(&counters.evicted_payload) {
            *sum = read(counter);
        }
        Stats {
            slot_count: self.geometry.slot_count.into(),
            node_count: new_nodes.saturating_sub(evicted_nodes),
            new_stacks: read(&counters.new_stacks),
            new_nodes,
            evicted_stacks: read(&counters.evicted_stacks),
            evicted_nodes,
            full: read(&counters.full),
            contended: read(&counters.contended),
            crowded: read(&counters.crowded),
            saturated: read(&counters.saturated),
            truncated: read(&counters.truncated),
            wide_nodes: read(&counters.wide_nodes),
            worn_slots: read(&counters.worn_slots),
            crowd_evicted: read(&counters.crowd_evicted),
            stale_puts: read(&counters.stale_puts),
            undone_nodes: read(&counters.undone_nodes),
            windows: header.windows.iter().filter(|cell| read(cell) != 0).count() as u64,
            evicted_payload,
        }
    }
}
