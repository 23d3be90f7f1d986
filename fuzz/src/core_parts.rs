//! True depots, rings, live tables and hold caches in plain bytes, filled as the recorder fills them.
//!
//! Key types: [`Recorder`], the recorder in miniature over any such parts, and [`Original`], bytes
//! with the [`Part`]s that edits aim at. Small on purpose: every slot, cell and entry is in use, so
//! that most damage hits something.

use crate::damage::Part;
use crate::memory::Memory;
use stackdepot::cache::{CACHE_BYTES, HoldCache, HoldCaches};
use stackdepot::image::HeaderImage;
use stackdepot::live::{LiveBlock, LiveHeaderImage, LiveTable, Removed};
use stackdepot::ring::{Event, EventKind, Ring, RingConfig, RingHeaderImage, ring_bytes};
use stackdepot::{Config, Depot, HEADER_BYTES, LINE_BYTES, WeakHandle};

/// Frames of a generated stack at most.
pub const MOST_DEPTH: usize = 40;
/// The shape of the small ring.
pub const RING: RingConfig = RingConfig {
    event_count: 64,
    shard_count: 2,
};
/// Bytes of the small live table: 11 buckets and a bit.
const LIVE_BYTES: usize = 3072;
/// Bytes of the small depot: about 100 slots.
const DEPOT_BYTES: usize = 12 << 10;
/// Addresses that the recorder's program uses.
const ADDRESS_COUNT: u64 = 48;

/// Something that edits are performed on.
#[derive(Clone)]
pub struct Original {
    /// As the product wrote it.
    pub bytes: Vec<u8>,
    /// What it consists of.
    pub parts: Vec<Part>,
}

/// What an original of some kind consists of.
pub type PartsOf = fn(&[u8]) -> Vec<Part>;

/// Does with a depot, a ring, a live table and hold caches what the malloc hooks do.
#[derive(Clone, Copy)]
pub struct Recorder<'r> {
    /// The stacks.
    pub depot: Depot<'r>,
    /// The events.
    pub ring: Ring<'r>,
    /// The live blocks.
    pub live: LiveTable<'r>,
    /// What two threads hold in advance.
    pub caches: HoldCaches<'r>,
}

/// Stack number `id`: relatives share outer frames, some runs lie in no window.
pub fn frames_of(id: u64) -> Vec<u64> {
    let depth = 1 + (id.wrapping_mul(0x9e37_79b1) >> 7) as usize % MOST_DEPTH;
    let frame = |index: usize| {
        let from_root = depth - 1 - index;
        let kin = if index == 0 {
            id
        } else {
            id >> (8 - from_root.min(8))
        };
        let high = match kin % 7 {
            0 => 0x5555 + (kin << 3 & 0xffff_0000),
            1 | 2 => 0x5555,
            _ => 0x7fff,
        };
        high << 32 | (kin << 8 & 0xffff_ff00) | from_root as u64
    };
    (0..depth).map(frame).collect()
}

impl Recorder<'_> {
    /// Allocs and frees of a program with so many events.
    pub fn churn(&self, event_count: u64) {
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut is_live = [false; ADDRESS_COUNT as usize];
        for number in 0..event_count {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let block = (random % ADDRESS_COUNT) as usize;
            let (address, id) = (0x7f00_0000 + block as u64 * 0x100, random >> 40 & 0x1ff);
            match is_live.get_mut(block) {
                Some(is_live) if *is_live => {
                    *is_live = false;
                    self.free(address, id, number);
                }
                Some(is_live) => {
                    *is_live = true;
                    self.alloc(address, 1 + id % 0x100, id, number);
                }
                None => {}
            }
        }
    }

    /// Records an alloc as the hooks do.
    pub fn alloc(&self, address: u64, size: u64, id: u64, time: u64) {
        let place = self.ring.claim(&self.depot, id as usize);
        let (stack, thread) = (self.save_counted(id, size), 1000 + id as u32 % 3);
        let block = LiveBlock {
            stack,
            size,
            thread,
            time,
        };
        let inserted = self.live.insert(address, &block);
        if let Some(stack) = inserted.released().and_then(|block| block.stack) {
            self.depot.put(self.depot.handle_of(stack));
        }
        if let Some(stack) = stack.filter(|_| !inserted.is_stored()) {
            self.depot.put(self.depot.handle_of(stack));
        }
        let event = Event {
            time,
            thread,
            ..Event::new(EventKind::Alloc, address, size, stack)
        };
        let _ = self.ring.fill(place, &event);
    }

    /// Every other stack is known again, and held out of a cache.
    fn save_counted(&self, id: u64, size: u64) -> Option<WeakHandle> {
        if let Some(cache) = self.cache(id)
            && let Ok(weak) = self.depot.save(&frames_of(id))
            && cache
                .hold_with_payload(&self.depot, weak, 0, &[1, size])
                .is_ok()
        {
            return Some(weak);
        }
        let held = self.depot.save_acquire_lease(&frames_of(id)).ok()?;
        self.depot.add_payload_words(held.handle, 0, &[1, size]);
        Some(held.weak)
    }

    fn put_for_lease(&self, id: u64, held: WeakHandle, size: u64) -> bool {
        let leased = match self.cache(id) {
            Some(cache) => cache.put_for_lease(&self.depot, held, 2, &[1, size]),
            None => self.depot.put_for_lease(held, 2, &[1, size]),
        };
        leased.is_ok()
    }

    /// Of three threads one has none.
    fn cache(&self, id: u64) -> Option<HoldCache<'_>> {
        self.caches.get(id as usize % 3)
    }

    /// Records a free as the hooks do.
    pub fn free(&self, address: u64, id: u64, time: u64) {
        let place = self.ring.claim(&self.depot, id as usize);
        let saved = self.depot.save_lease(&frames_of(id)).ok();
        let stack = saved.map(|leased| leased.weak);
        let mut event = Event {
            time,
            thread: 1000 + id as u32 % 3,
            ..Event::new(EventKind::Free, address, 0, stack)
        };
        if let Removed::Block(block) = self.live.remove(address) {
            (event.size, event.other_thread) = (block.size, block.thread);
            event.other_time = Some(block.time);
            event.other_stack = block
                .stack
                .filter(|held| self.put_for_lease(id, *held, block.size));
        } else {
            event.kind = EventKind::UnknownFree;
        }
        let _ = self.ring.fill(place, &event);
    }
}

/// A depot, a ring, a live table and hold caches after a program of `event_count` events.
pub fn recorded(event_count: u64) -> [Original; 4] {
    let config = Config {
        references: true,
        lease_ticks: RING.lease_ticks(),
        payload_words: 4,
        max_frames: 32,
        ..Config::new(DEPOT_BYTES)
    };
    let mut memory = [
        Memory::zeros(DEPOT_BYTES),
        Memory::zeros(ring_bytes(&RING).unwrap_or_default()),
        Memory::zeros(LIVE_BYTES),
        Memory::zeros(2 * CACHE_BYTES),
    ];
    let [depot, ring, live, caches] = &mut memory;
    let recorder = Recorder {
        depot: Depot::new(depot.lines(), &config).expect("a small depot"),
        ring: Ring::new(ring.lines(), &RING).expect("a small ring"),
        live: LiveTable::new(live.lines()).expect("a small live table"),
        caches: HoldCaches::new(caches.lines()),
    };
    recorder.churn(event_count);
    let [depot, ring, live, caches] = memory.map(|memory| memory.to_bytes());
    [
        original(depot, depot_parts),
        original(ring, ring_parts),
        original(live, live_parts),
        original(caches, cache_parts),
    ]
}

fn original(bytes: Vec<u8>, parts: PartsOf) -> Original {
    let parts = parts(&bytes);
    Original { bytes, parts }
}

/// Header lines, index buckets, slots and, for most damage belongs there, their state, generation,
/// parent and windows (or EXT slot), then payload, everything.
pub fn depot_parts(bytes: &[u8]) -> Vec<Part> {
    let header = HeaderImage::parse(bytes).expect("a true depot");
    let geometry = header.geometry;
    let slots_bytes = geometry.slot_count as usize * LINE_BYTES;
    let slots = Part::new(geometry.slots_offset, slots_bytes, LINE_BYTES);
    let index_bytes = geometry.bucket_count as usize * LINE_BYTES;
    let payload_bytes = geometry.slot_count as usize * geometry.payload_words as usize * 8;
    vec![
        Part::new(0, HEADER_BYTES, LINE_BYTES),
        Part::new(geometry.buckets_offset, index_bytes, LINE_BYTES),
        slots,
        slots.field(0, 8),
        slots.field(8, 4),
        slots.field(16, 4),
        slots.field(20, 4),
        Part::new(geometry.payload_offset, payload_bytes.max(8), 32),
        Part::new(0, bytes.len(), LINE_BYTES),
    ]
}

/// Header line, shards, entries.
pub fn ring_parts(bytes: &[u8]) -> Vec<Part> {
    let header = RingHeaderImage::parse(bytes, bytes.len() as u64).expect("a true ring");
    let (shards_at, shard_count) = header.shards();
    let (entries_at, entry_count) = header.entries();
    let lines =
        |start: u64, count: u32| Part::new(start as usize, count as usize * LINE_BYTES, LINE_BYTES);
    vec![
        lines(0, 2),
        lines(shards_at, shard_count),
        lines(entries_at, entry_count),
    ]
}

/// Header lines, tags, buckets line by line.
pub fn live_parts(bytes: &[u8]) -> Vec<Part> {
    let header = LiveHeaderImage::parse(bytes, bytes.len() as u64).expect("a true live table");
    let (buckets_at, bucket_count) = header.buckets();
    let buckets_at = buckets_at as usize;
    vec![
        Part::new(0, LiveHeaderImage::BYTES, LINE_BYTES),
        Part::new(
            LiveHeaderImage::BYTES,
            buckets_at - LiveHeaderImage::BYTES,
            8,
        ),
        Part::new(
            buckets_at,
            bucket_count as usize * 4 * LINE_BYTES,
            LINE_BYTES,
        ),
    ]
}

/// Entries: all of them, and the stack, the credits and the moves of each.
pub fn cache_parts(bytes: &[u8]) -> Vec<Part> {
    let entries = Part::new(0, bytes.len(), LINE_BYTES);
    vec![
        entries,
        entries.field(0, 8),
        entries.field(8, 8),
        entries.field(16, 8),
    ]
}
