//! Whole workloads from untouched memory: the first pass, objects that hold their stacks, the ring.
//!
//! Each round runs in a fresh process. The first pass also says how much memory it made resident.

use std::hint::black_box;

use stackdepot_corpus::{Event, NO_SLOT};

use super::batch::Batch;
use crate::figure::{Holding, Measure, Peer, Ringed};
use crate::machine::{Watch, resident_bytes};
use crate::process::Round;
use crate::workload::Workload;

/// Save of every event's stack, first in untouched memory.
pub const FIRST: Measure = Measure("first pass");
/// What that made resident, per unique stack.
pub const RESIDENT: Measure = Measure("resident memory per stack");
/// The same where every save holds its stack for good.
pub const RESIDENT_HELD: Measure = Measure("resident memory per held stack");
/// An alloc saves and holds, a free saves and puts.
pub const HELD: Measure = Measure("held replay");
/// Every event with its stack goes into the ring.
pub const RING: Measure = Measure("ring replay");

/// [`FIRST`] and [`RESIDENT`].
pub fn first<P: Peer>(workload: &Workload) -> Result<Round<'_>, String> {
    Ok(Box::new(move || {
        let before = resident_bytes();
        let peer = P::new(workload);
        let ns = replay(workload, |_, frames| {
            black_box(peer.save(frames));
        });
        Ok(vec![ns, per_stack(workload, resident_bytes() - before)])
    }))
}

/// [`RESIDENT_HELD`].
pub fn resident_held<P: Holding>(workload: &Workload) -> Result<Round<'_>, String> {
    Ok(Box::new(move || {
        let before = resident_bytes();
        let peer = P::new(workload);
        replay(workload, |_, frames| {
            black_box(peer.save_acquire(frames));
        });
        Ok(vec![per_stack(workload, resident_bytes() - before)])
    }))
}

/// [`HELD`].
pub fn held<P: Holding>(workload: &Workload) -> Result<Round<'_>, String> {
    Ok(Box::new(move || {
        let peer = P::new(workload);
        let mut objects = vec![0; workload.corpus.slot_count()];
        let ns = replay(workload, |event, frames| {
            let held = if event.is_alloc {
                peer.save_acquire(frames)
            } else {
                black_box(peer.save(frames));
                0
            };
            if event.slot != NO_SLOT {
                let old = std::mem::replace(&mut objects[event.slot as usize], held);
                if old != 0 {
                    peer.put(old);
                }
            }
        });
        Ok(vec![ns])
    }))
}

/// [`RING`].
pub fn ring<P: Ringed>(workload: &Workload) -> Result<Round<'_>, String> {
    Ok(Box::new(move || {
        let peer = P::new(workload);
        let ns = replay(workload, |event, frames| peer.push(event, frames));
        Ok(vec![ns])
    }))
}

/// Nanoseconds per event, over all of them.
fn replay(workload: &Workload, mut play: impl FnMut(&Event, &[u64])) -> f64 {
    let mut watch = Watch::new();
    let mut batch = Batch::new();
    let mut events = workload.corpus.events();
    loop {
        let count = batch.fill(workload, events.iter().map(|event| event.stack));
        let Some((now, later)) = events.split_at_checked(count).filter(|_| count > 0) else {
            return watch.ns();
        };
        watch.time(count, || {
            for (event, frames) in now.iter().zip(batch.stacks()) {
                play(event, frames);
            }
        });
        events = later;
    }
}

fn per_stack(workload: &Workload, bytes: u64) -> f64 {
    bytes as f64 / workload.corpus.stack_count() as f64
}
