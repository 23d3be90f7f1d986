//! Ours, with everything that the recorder switches on, in the region that `replay --fit` found.
#![allow(unsafe_code)] // a depot in untouched memory

use stackdepot::ring::{self, EventKind, Ring, RingConfig, ring_bytes};
use stackdepot::{Config, Depot, HEADER_BYTES, Handle, LINE_BYTES, WeakHandle};
use stackdepot_corpus::Event;

use crate::figure::{Holding, Peer, Ringed, Shared};
use crate::machine::untouched;
use crate::workload::{RING_EVENT_COUNT, Workload};

/// As many payload words as the recorder keeps.
const PAYLOAD_WORDS: u32 = 4;
/// As many shards as the recorder's ring has.
const SHARD_COUNT: u32 = 16;

/// A depot, and the ring before it.
pub struct Ours {
    depot: Depot<'static>,
    ring: Ring<'static>,
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

/// A depot in memory that nobody touched.
pub fn depot(config: &Config) -> Depot<'static> {
    let base = untouched(config.region_bytes);
    // SAFETY: new memory of that size, all zero, for good and nobody else's.
    let depot = unsafe { Depot::create(base, config) };
    depot.expect("the configuration is the recorder's")
}

impl Peer for Ours {
    const NAME: &'static str = "ours";

    fn new(workload: &Workload) -> Ours {
        let depot = depot(&config(workload.slot_count));
        let ring_bytes = ring_bytes(&RING).expect("the configuration is the recorder's");
        let ring_base = untouched(ring_bytes);
        // SAFETY: new memory of that size, all zero, for good and nobody else's.
        let ring = unsafe { Ring::create(ring_base, &RING) };
        Ours {
            depot,
            ring: ring.expect("the configuration is the recorder's"),
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
}

impl Holding for Ours {
    #[inline(never)]
    fn save_acquire(&self, frames: &[u64]) -> u64 {
        let held = self.depot.save_acquire(frames);
        held.map_or(0, |held| held.handle.to_bits().into())
    }

    #[inline(never)]
    fn put(&self, held: u64) {
        if let Some(handle) = Handle::from_bits(held as u32) {
            self.depot.put(handle);
        }
    }
}

impl Ringed for Ours {
    #[inline(never)]
    fn push(&self, event: &Event, frames: &[u64]) {
        let place = self.ring.claim(&self.depot, 0);
        let stack = self.depot.save_lease(frames).ok().map(|leased| leased.weak);
        let kind = if event.is_alloc {
            EventKind::Alloc
        } else {
            EventKind::Free
        };
        let address = u64::from(event.slot) << 4;
        let event = ring::Event::new(kind, address, event.size.into(), stack);
        self.ring.fill(place, &event);
    }
}

impl Shared for Ours {
    #[inline(never)]
    fn save_hot(&self, frames: &[u64]) -> u64 {
        let leased = self.depot.save_lease(frames);
        leased.map_or(0, |leased| leased.weak.to_bits())
    }
}
