//! papaya with foldhash: a lock-free hash map. Grows, never evicts.

use foldhash::fast::RandomState;
use papaya::HashMap;

use super::stored::{self, Stored};
use crate::figure::{Peer, Shared};
use crate::workload::Workload;

/// Stacks to handles.
pub struct Papaya(HashMap<Stored, u64, RandomState>);

impl Peer for Papaya {
    const NAME: &'static str = "papaya";

    fn new(workload: &Workload) -> Papaya {
        let stack_count = workload.corpus.stack_count();
        Papaya(HashMap::with_capacity_and_hasher(
            stack_count,
            RandomState::default(),
        ))
    }

    #[inline(never)]
    fn save(&self, frames: &[u64]) -> u64 {
        let map = self.0.pin();
        if let Some(handle) = map.get(frames) {
            return *handle;
        }
        let stored = Stored::new(frames);
        let handle = stored.handle();
        *map.get_or_insert(stored, handle)
    }

    #[inline(never)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        stored::fetch(handle, out)
    }
}

impl Shared for Papaya {}
