//! quick_cache with foldhash: a sharded cache that evicts much as S3-FIFO does,
//! bounded by entries.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use quick_cache::UnitWeighter;
use quick_cache::sync::{Cache, DefaultLifecycle};

use crate::figure::{Peer, Shared};
use crate::workload::Workload;

/// Hashes to stacks.
pub struct QuickCache {
    cache: Cache<u64, Arc<[u64]>, UnitWeighter, RandomState>,
    hasher: RandomState,
}

impl Peer for QuickCache {
    const NAME: &'static str = "quick_cache";

    fn new(workload: &Workload) -> QuickCache {
        let capacity = workload.corpus.stack_count() * super::PLACES_PER_STACK;
        let hasher = RandomState::default();
        let cache = Cache::with(
            capacity,
            capacity as u64,
            UnitWeighter,
            hasher.clone(),
            DefaultLifecycle::default(),
        );
        QuickCache { cache, hasher }
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

impl Shared for QuickCache {}
