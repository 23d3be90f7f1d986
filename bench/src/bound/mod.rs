//! At the bound: what our depot still hits when its slots are too few, beside what the known
//! policies would hit on the same stream.
//!
//! Read in this order: this file (the sizes and what is asked of each), `ours` (the stream through a
//! real depot), `lru`, `sieve`, `s3fifo` and `belady` (simulated, with as many stacks as ours held
//! on average while it evicted), `list` (the queue that they share), `cost` (what an evicting save
//! takes).

mod belady;
pub mod cost;
mod list;
mod lru;
mod ours;
mod s3fifo;
mod sieve;

use crate::workload::Workload;

/// The slots that a workload takes are divided by these.
pub const DIVISORS: [u32; 4] = [2, 4, 8, 16];
/// Ours may hit so much less often than LRU does.
const MOST_BELOW_LRU: f64 = 0.005;
/// Ours may hit so much less often than the better one of SIEVE and S3-FIFO.
const MOST_BELOW_BETTER: f64 = 0.05;

/// Hits per save of every policy at one size; nobody hits a stack's first save.
#[derive(Clone, Debug, PartialEq)]
pub struct AtBound {
    /// The workload.
    pub workload: String,
    /// Working set over size.
    pub divisor: u32,
    /// Slots of our depot.
    pub slot_count: u32,
    /// Stacks that it held on average from the first eviction on; what the others may hold.
    pub held_count: usize,
    /// Saves that our depot refused.
    pub refused_count: u64,
    /// Ours, with everything on that the recorder switches on.
    pub ours: f64,
    /// Least recently used.
    pub lru: f64,
    /// SIEVE.
    pub sieve: f64,
    /// S3-FIFO.
    pub s3fifo: f64,
    /// The optimum, which knows the future.
    pub belady: f64,
}

/// Replays a workload at every size.
pub fn hit_ratios(workload: &Workload) -> Vec<AtBound> {
    DIVISORS
        .iter()
        .map(|divisor| hit_ratios_at(workload, *divisor))
        .collect()
}

fn hit_ratios_at(workload: &Workload, divisor: u32) -> AtBound {
    let events = workload.corpus.events();
    let stream: Vec<u32> = events.iter().map(|event| event.stack).collect();
    let slot_count = slot_count(workload, divisor);
    let ours = ours::replay(workload, slot_count);
    let ratio = |hits: u64| hits as f64 / stream.len().max(1) as f64;
    let simulated = |policy: fn(&[u32], usize, usize) -> u64| {
        ratio(policy(
            &stream,
            workload.corpus.stack_count(),
            ours.held_count,
        ))
    };
    AtBound {
        workload: workload.name.clone(),
        divisor,
        slot_count,
        held_count: ours.held_count,
        refused_count: ours.refused_count,
        ours: ratio(ours.hit_count),
        lru: simulated(lru::hits),
        sieve: simulated(sieve::hits),
        s3fifo: simulated(s3fifo::hits),
        belady: simulated(belady::hits),
    }
}

/// Slots of a depot that is that many times too small.
fn slot_count(workload: &Workload, divisor: u32) -> u32 {
    (workload.slot_count / divisor).max(stackdepot::LEAST_SLOTS)
}

impl AtBound {
    /// What of the bar does not hold; empty when it holds.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.refused_count > 0 {
            failures.push(format!("{} saves refused", self.refused_count));
        }
        if self.ours < self.lru - MOST_BELOW_LRU {
            failures.push("more than 0.5 points below LRU".to_owned());
        }
        if self.ours < self.sieve.max(self.s3fifo) - MOST_BELOW_BETTER {
            failures.push("more than 5 points below the better of SIEVE and S3-FIFO".to_owned());
        }
        failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at_bound(ours: f64, refused_count: u64) -> AtBound {
        AtBound {
            workload: "test".to_owned(),
            divisor: 2,
            slot_count: 100,
            held_count: 70,
            refused_count,
            ours,
            lru: 0.8,
            sieve: 0.84,
            s3fifo: 0.82,
            belady: 0.9,
        }
    }

    #[test]
    fn each_part_of_the_bar_can_fail() {
        assert!(at_bound(0.796, 0).failures().is_empty());
        assert_eq!(at_bound(0.796, 1).failures().len(), 1);
        assert_eq!(at_bound(0.794, 0).failures().len(), 1);
        assert_eq!(at_bound(0.78, 3).failures().len(), 3);
    }
}
