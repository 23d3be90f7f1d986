//! What an evicting save costs, beside a save that misses while there is room.
//!
//! Each round makes a depot in untouched memory where everything fits, and one at each size below,
//! and times every single save that stored a stack, whether it evicted or not. The clock's own cost
//! is taken off each (`machine::Watch`).

use crate::figure::Measure;
use crate::machine::Watch;
use crate::measure::batch::Batch;
use crate::peers::ours::{config, depot};
use crate::process::Round;
use crate::workload::Workload;

/// Units of a round's values: the miss with room, then the evicting saves by [`super::DIVISORS`].
pub const MEASURES: [(Measure, &str); 5] = [
    (Measure("first-pass miss"), "ns"),
    (Measure("evicting save, 1/2"), "ns"),
    (Measure("evicting save, 1/4"), "ns"),
    (Measure("evicting save, 1/8"), "ns"),
    (Measure("evicting save, 1/16"), "ns"),
];

/// Nothing is kept from round to round.
pub fn start(workload: &Workload) -> Result<Round<'_>, String> {
    Ok(Box::new(|| {
        let mut values = vec![miss_ns(workload, workload.slot_count, false)];
        for divisor in super::DIVISORS {
            let slot_count = super::slot_count(workload, divisor);
            values.push(miss_ns(workload, slot_count, true));
        }
        Ok(values)
    }))
}

/// Nanoseconds of a save that stored a stack: of all such, or of those that evicted.
fn miss_ns(workload: &Workload, slot_count: u32, is_evicting: bool) -> f64 {
    let depot = depot(&config(slot_count));
    let mut watch = Watch::new();
    let mut batch = Batch::new();
    let mut stacks = workload.corpus.events().iter().map(|event| event.stack);
    let mut before = depot.stats();
    while batch.fill(workload, &mut stacks) > 0 {
        for frames in batch.stacks() {
            let (_, ns) = watch.span(|| depot.save(frames));
            let after = depot.stats();
            let is_miss = after.new_stacks > before.new_stacks;
            if is_miss && is_evicting == (after.evicted_nodes > before.evicted_nodes) {
                watch.add(ns, 1);
            }
            before = after;
        }
    }
    watch.ns()
}
