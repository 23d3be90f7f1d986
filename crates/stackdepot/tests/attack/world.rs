//! Depot, ring, live table and hold caches in one piece of memory, used as the recorder uses them.
//!
//! What belongs together can be told from the numbers alone: an address says which stack
//! allocated it, the size of an event which stack it has.

use std::collections::HashMap;
use std::ptr::NonNull;

use stackdepot::cache::{CACHE_BYTES, EntryImage, HoldCache, HoldCaches};
use stackdepot::live::{LiveBlock, LiveTable, Removed, live_bytes};
use stackdepot::ring::{Event, EventKind, Ring, RingConfig, ring_bytes};
use stackdepot::{Config, Depot, Hold, HoldError, Recovered, SaveError, WeakHandle};

use crate::audit::Image;
use crate::stacks::{Known, Seen, Stack, look};

/// The sizes of the parts.
#[derive(Clone, Copy)]
pub struct Shape {
    pub depot_bytes: usize,
    pub ring: RingConfig,
    pub live_cells: usize,
    /// How many rows of callers, from the first on, have a hold cache.
    pub caches: usize,
}

impl Shape {
    fn depot(&self) -> Config {
        Config {
            references: true,
            lease_ticks: self.ring.lease_ticks(),
            payload_words: 1,
            ..Config::new(self.depot_bytes)
        }
    }

    fn ring_offset(&self) -> usize {
        self.depot_bytes.next_multiple_of(64)
    }

    fn live_offset(&self) -> usize {
        self.ring_offset() + ring_bytes(&self.ring).unwrap()
    }

    fn caches_offset(&self) -> usize {
        self.live_offset() + live_bytes(self.live_cells).unwrap()
    }

    fn caches_bytes(&self) -> usize {
        self.caches * CACHE_BYTES
    }

    /// All parts.
    pub fn bytes(&self) -> usize {
        self.caches_offset() + self.caches_bytes()
    }

    /// The entries of hold caches in a copy of the whole memory.
    pub fn entries(&self, bytes: &[u8]) -> Vec<EntryImage> {
        let caches = &bytes[self.caches_offset()..][..self.caches_bytes()];
        let (entries, _) = caches.as_chunks();
        entries.iter().filter_map(EntryImage::parse).collect()
    }
}

/// A view of all parts, in memory that the caller keeps for `'r`.
#[derive(Clone, Copy)]
pub struct World<'r> {
    pub depot: Depot<'r>,
    pub ring: Ring<'r>,
    pub live: LiveTable<'r>,
    pub caches: HoldCaches<'r>,
}

/// An address that stack number `id` allocates; `place` keeps the callers apart.
pub fn address_of(id: u64, place: u64) -> u64 {
    (id + 1) << 20 | place << 4
}

fn allocator_of(address: u64) -> u64 {
    (address >> 20) - 1
}

impl<'r> World<'r> {
    /// Makes all of them in zeroed memory.
    ///
    /// # Safety
    /// `base` is valid for `shape.bytes()` bytes during `'r` and accessed by worlds only.
    pub unsafe fn create(base: NonNull<u8>, shape: &Shape) -> World<'r> {
        // SAFETY: the caller's promise; the parts do not overlap.
        unsafe {
            World {
                depot: Depot::create(base, &shape.depot()).unwrap(),
                ring: Ring::create(base.add(shape.ring_offset()), &shape.ring).unwrap(),
                live: LiveTable::create(
                    base.add(shape.live_offset()),
                    live_bytes(shape.live_cells).unwrap(),
                )
                .unwrap(),
                caches: HoldCaches::attach(base.add(shape.caches_offset()), shape.caches_bytes())
                    .unwrap(),
            }
        }
    }

    /// Views what was made.
    ///
    /// # Safety
    /// As for `create`.
    pub unsafe fn attach(base: NonNull<u8>, shape: &Shape) -> World<'r> {
        // SAFETY: the caller's promise.
        unsafe {
            World {
                depot: Depot::attach(base, shape.depot_bytes).unwrap(),
                ring: Ring::attach(
                    base.add(shape.ring_offset()),
                    ring_bytes(&shape.ring).unwrap(),
                )
                .unwrap(),
                live: LiveTable::attach(
                    base.add(shape.live_offset()),
                    live_bytes(shape.live_cells).unwrap(),
                )
                .unwrap(),
                caches: HoldCaches::attach(base.add(shape.caches_offset()), shape.caches_bytes())
                    .unwrap(),
            }
        }
    }

    /// Opens what a dead writer left; `others` are holds besides those of live blocks.
    ///
    /// # Safety
    /// As for `create`, and nobody else uses the memory.
    pub unsafe fn reopen(
        base: NonNull<u8>,
        shape: &Shape,
        others: &[WeakHandle],
    ) -> (World<'r>, Recovered) {
        // SAFETY: the caller's promise.
        let world = unsafe { World::attach(base, shape) };
        world.live.reset_in_flight();
        world.ring.reset_in_flight();
        let blocks = world.live.blocks().filter_map(|(_, block)| block.stack);
        let holds = blocks.chain(others.iter().copied());
        // SAFETY: the caller's promise.
        let (depot, recovered) = unsafe { Depot::reopen(base, shape.depot_bytes, holds) }.unwrap();
        world.caches.recover(&depot);
        (World { depot, ..world }, recovered)
    }

    /// Records an allocation by stack number `id` as the recorder does. A row that has a hold cache is
    /// only for one caller at a time.
    pub fn alloc(&self, row: usize, id: u64, address: u64) -> Result<(), SaveError> {
        let place = self.ring.claim(&self.depot, row);
        let saved = self.save_counted(row, id);
        let stack = saved.ok();
        if stack.is_some() {
            let block = LiveBlock {
                stack,
                size: 8,
                thread: 1,
                time: id,
            };
            let inserted = self.live.insert(address, &block);
            inserted
                .released()
                .into_iter()
                .for_each(|old| self.put_block(&old));
            if !inserted.is_stored() {
                self.put_block(&block);
            }
        }
        let _ = self
            .ring
            .fill(place, &Event::new(EventKind::Alloc, address, id, stack));
        saved.map(|_| ())
    }

    /// Saves a stack with both holds and counts in its payload; every other one by its name, as the
    /// recorder does where it knows the stack again.
    fn save_counted(&self, row: usize, id: u64) -> Result<WeakHandle, SaveError> {
        let stack = Stack::new(id);
        if id.is_multiple_of(2)
            && let Ok(name) = self.depot.save(stack.frames())
            && self.hold_by_name(row, name).is_ok()
        {
            return Ok(name);
        }
        let saved = self
            .depot
            .save_held(stack.frames(), Hold::ReferenceAndLease)?;
        self.depot.add_payload(saved.handle, 0, 1);
        Ok(saved.weak)
    }

    fn hold_by_name(&self, row: usize, name: WeakHandle) -> Result<(), HoldError> {
        let (depot, hold) = (&self.depot, Hold::ReferenceAndLease);
        match self.cache(row) {
            Some(cache) => cache.hold_with_payload(depot, name, 0, &[1]),
            None => depot.hold_with_payload(name, hold, 0, &[1]).map(|_| ()),
        }
    }

    fn put_for_lease(&self, row: usize, held: WeakHandle) -> bool {
        let leased = match self.cache(row) {
            Some(cache) => cache.put_for_lease(&self.depot, held, 0, &[1]),
            None => self.depot.put_for_lease(held, 0, &[1]),
        };
        leased.is_ok()
    }

    /// The hold cache of a row of callers.
    pub fn cache(&self, row: usize) -> Option<HoldCache<'r>> {
        self.caches.get(row)
    }

    /// Records a free by stack number `id`.
    pub fn free(&self, row: usize, id: u64, address: u64) -> Result<(), SaveError> {
        let place = self.ring.claim(&self.depot, row);
        let removed = match self.live.remove(address) {
            Removed::Block(block) => Some(block),
            Removed::Unsampled | Removed::Unknown => None,
        };
        let saved = self.depot.save_lease(Stack::new(id).frames());
        let stack = saved.ok().map(|saved| saved.weak);
        let allocation = removed.and_then(|block| block.stack);
        let leased = allocation.filter(|weak| self.put_for_lease(row, *weak));
        let event = Event {
            other_stack: leased,
            ..Event::new(EventKind::Free, address, id, stack)
        };
        let _ = self.ring.fill(place, &event);
        saved.map(|_| ())
    }

    fn put_block(&self, block: &LiveBlock) {
        if let Some(weak) = block.stack {
            self.depot.put(self.depot.handle_of(weak));
        }
    }

    /// Looks at every event: none may show a wrong stack, and none may have lost its stack while
    /// its lease lasts. Right at any time. Answers how many stacks it saw.
    pub fn check_events(&self) -> Result<u64, String> {
        let mut seen_count = 0;
        for event in self.ring.events() {
            let stacks = [
                (event.stack, event.size),
                (event.other_stack, allocator_of(event.address)),
            ];
            for (weak, id) in stacks {
                let Some(weak) = weak else { continue };
                let seen = look(&self.depot, weak, id);
                let is_leased = self.ring.still_leased(&self.depot, &event);
                if seen == Seen::Wrong || (seen == Seen::Evicted && is_leased) {
                    return Err(format!("stack {id} of {event:?} is {seen:?}"));
                }
                seen_count += 1;
            }
        }
        Ok(seen_count)
    }

    /// Looks at every live block: none may show a wrong stack; at rest, none may have lost it.
    pub fn check_blocks(&self, at_rest: bool) -> Result<u64, String> {
        let mut seen_count = 0;
        for (address, block) in self.live.blocks() {
            let Some(weak) = block.stack else { continue };
            let seen = look(&self.depot, weak, allocator_of(address));
            if seen == Seen::Wrong || (seen == Seen::Evicted && at_rest) {
                return Err(format!("the stack of the block at {address:x} is {seen:?}"));
            }
            seen_count += 1;
        }
        Ok(seen_count)
    }

    /// Everything that must hold while nobody writes; `bytes` are a copy of all parts.
    pub fn check_at_rest(
        &self,
        shape: &Shape,
        bytes: &[u8],
        known: &Known,
        others: &[WeakHandle],
    ) -> Result<u64, String> {
        let mut holds: HashMap<u32, u64> = HashMap::new();
        let blocks = self.live.blocks().filter_map(|(_, block)| block.stack);
        for weak in blocks.chain(others.iter().copied()) {
            *holds.entry(weak.slot()).or_default() += 1;
        }
        for entry in shape.entries(bytes) {
            *holds.entry(entry.stack.slot()).or_default() += entry.references;
        }
        let image = Image::parse(&bytes[..shape.depot_bytes])?;
        image.check_at_rest(&holds)?;
        let stored = image.check_readable(|frames| known.contains(frames))?;
        Ok(stored + self.check_events()? + self.check_blocks(true)?)
    }
}
