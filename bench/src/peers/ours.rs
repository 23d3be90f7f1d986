//! Ours, with everything that the recorder switches on, in the region that `replay --fit` found.
#![allow(unsafe_code)] // a depot in untouched memory

use stackdepot::ring::RingConfig;
use stackdepot::{Config, Depot, HEADER_BYTES, LINE_BYTES, WeakHandle};

use crate::figure::Peer;
use crate::machine::untouched;
use crate::workload::{RING_EVENT_COUNT, Workload};

/// As many payload words as the recorder keeps.
const PAYLOAD_WORDS: u32 = 4;
/// As many shards as the recorder's ring has.
const SHARD_COUNT: u32 = 16;

/// A depot.
pub struct Ours {
    depot: Depot<'static>,
}

/// The recorder's ring.
pub const RING: RingConfig = RingConfig {
    event_count: RING_EVENT_COUNT,
    shard_count: SHARD_COUNT,
};

/// What the recorder makes its depot with, in a region of so many slots.
pub fn config(slot_count: u32) -> Config {
    let per_slot = LINE_BYTES + LINE_BYTES / 4 + PAYLOAD_WORDS as usize * 8;
    // A bucket's worth more: the number of buckets is rounded up.
    let region_bytes = HEADER_BYTES + slot_count as usize * per_slot + LINE_BYTES;
    Config {
        references: true,
        lease_ticks: RING.lease_ticks(),
        payload_words: PAYLOAD_WORDS,
        ..Config::new(region_bytes)
    }
}

impl Peer for Ours {
    const NAME: &'static str = "ours";

    fn new(workload: &Workload) -> Ours {
        let config = config(workload.slot_count);
        let base = untouched(config.region_bytes);
        // SAFETY: new memory of that size, all zero, for good and nobody else's.
        let depot = unsafe { Depot::create(base, &config) };
        Ours {
            depot: depot.expect("the configuration is the recorder's"),
        }
    }

    #[inline(never)]
    fn save(&self, frames: &[u64]) -> u64 {
        self.depot.save(frames).map_or(0, WeakHandle::to_bits)
    }

    #[inline(never)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        let fetched = self.depot.fetch(WeakHandle::from_bits(handle), out);
        fetched.map_or(0, |fetched| fetched.frame_count)
    }

    fn bytes(&self) -> Option<u64> {
        Some(self.depot.region_bytes() as u64)
    }
}
