//! moka with foldhash: a concurrent cache that evicts by TinyLFU, bounded by entries.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use moka::sync::Cache;

use crate::figure::{Peer, Shared};
use crate::workload::Workload;

/// Hashes to stacks.
pub struct Moka {
    cache: Cache<u64, Arc<[u64]>, RandomState>,
    hasher: RandomState,
}

impl Peer for Moka {
    const NAME: &'static str = "moka";

    fn new(workload: &Workload) -> Moka {
        let capacity = workload.corpus.stack_count() * super::PLACES_PER_STACK;
        let hasher = RandomState::default();
        let cache = Cache::builder()
            .max_capacity(capacity as u64)
            .initial_capacity(capacity)
            .build_with_hasher(hasher.clone());
        Moka { cache, hasher }
    }

    #[inline(never)]
    fn save(&self, frames: &[u64]) -> u64 {
        // 0 is no handle.
        let hash = self.hasher.hash_one(frames) | 1;
        match self.cache.get(&hash) {
            Some(stored) if *stored == *frames => {}
            _ => self.cache.insert(hash, Arc::from(frames)),
        }
        hash
    }

    #[inline(never)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        let Some(frames) = self.cache.get(&handle) else {
            return 0;
        };
        let count = frames.len().min(out.len());
        out[..count].copy_from_slice(&frames[..count]);
        count
    }
}

impl Shared for Moka {}
