//! DashMap with foldhash: a sharded hash map behind reader-writer locks. Grows, never evicts.

use dashmap::DashMap;
use foldhash::fast::RandomState;

use super::stored::{self, Stored};
use crate::figure::{Peer, Shared};
use crate::workload::Workload;

/// Stacks to handles.
pub struct Dash(DashMap<Stored, u64, RandomState>);

impl Peer for Dash {
    const NAME: &'static str = "DashMap";

    fn new(workload: &Workload) -> Dash {
        let stack_count = workload.corpus.stack_count();
        Dash(DashMap::with_capacity_and_hasher(
            stack_count,
            RandomState::default(),
        ))
    }

    #[inline(never)]
    fn save(&self, frames: &[u64]) -> u64 {
        if let Some(handle) = self.0.get(frames) {
            return *handle;
        }
        let stored = Stored::new(frames);
        let handle = stored.handle();
        *self.0.entry(stored).or_insert(handle)
    }

    #[inline(never)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        stored::fetch(handle, out)
    }
}

impl Shared for Dash {}
