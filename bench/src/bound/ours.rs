//! The stream of a workload through a real depot that is too small for it.

use crate::peers::ours::{config, depot};
use crate::workload::Workload;

/// Saves between two looks at how many stacks are stored.
const SAMPLE_SAVES: usize = 64;

/// What the depot did.
pub struct Replayed {
    /// Saves of stacks that were stored.
    pub hit_count: u64,
    /// Saves without an answer.
    pub refused_count: u64,
    /// Stacks that were stored, on average from the first eviction on.
    pub held_count: usize,
}

/// Saves every event's stack, holding none, in a depot as the recorder makes it.
pub fn replay(workload: &Workload, slot_count: u32) -> Replayed {
    let depot = depot(&config(slot_count));
    let events = workload.corpus.events();
    let mut refused_count = 0;
    let (mut held_sum, mut sample_count) = (0, 0);
    for (number, event) in events.iter().enumerate() {
        if depot.save(workload.corpus.stack(event.stack)).is_err() {
            refused_count += 1;
        }
        if number % SAMPLE_SAVES == 0 {
            let stats = depot.stats();
            if stats.evicted_nodes > 0 {
                held_sum += stats.new_stacks - stats.evicted_stacks;
                sample_count += 1;
            }
        }
    }
    let stats = depot.stats();
    let held = match sample_count {
        0 => stats.new_stacks,
        count => (held_sum + count / 2) / count,
    };
    Replayed {
        hit_count: events.len() as u64 - stats.new_stacks - refused_count,
        refused_count,
        held_count: held as usize,
    }
}
