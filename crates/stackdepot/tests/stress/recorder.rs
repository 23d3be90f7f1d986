//! What a recorder does: a depot behind a ring, with a live table beside it.
//!
//! Threads allocate and free addresses of a small set, each address by one thread at a time, as a
//! real allocator gives them out; but who hands an address on orders nothing, so that the
//! live table's own orderings must. Whoever takes a block out of the table owns its reference:
//! the stack is there, and the word of its slot is its. A leased event of the ring has its stack.

use std::sync::atomic::{AtomicU32, Ordering};

use stackdepot::live::{Inserted, LiveBlock, LiveTable, Removed, live_bytes};
use stackdepot::ring::{Event, EventKind, Ring, RingConfig, ring_bytes};
use stackdepot::{Config, HoldError, Line, WeakHandle};

use crate::Figures;
use crate::carried::Carried;
use crate::hammer::check_at_rest;
use crate::memory::Memory;
use crate::numbers::{frames_of, mixed};
use crate::reader::{OWN_BIT, OWN_COUNT, Reader};

/// The shape of one attack.
pub struct Shape {
    region_bytes: usize,
    ring: RingConfig,
    live_cells: usize,
    addresses: usize,
    variety: u64,
    threads: u64,
    steps: u64,
}

/// Everything is full most of the time: the depot, the live table (which samples), the ring.
pub const TINY: Shape = Shape {
    region_bytes: 6 << 10,
    ring: RingConfig::new(16),
    live_cells: 16,
    addresses: 24,
    variety: 60,
    threads: 3,
    steps: 60_000,
};

/// Chunks of places, more room, more threads.
pub const SHARDED: Shape = Shape {
    region_bytes: 64 << 10,
    ring: RingConfig {
        event_count: 256,
        shard_count: 4,
    },
    live_cells: 64,
    addresses: 128,
    variety: 1000,
    threads: 4,
    steps: 40_000,
};

/// An address is nobody's, somebody's who is busy with it, or allocated.
const FREE: u32 = 0;
const BUSY: u32 = 1;
const LIVE: u32 = 2;

/// What the threads share besides the three structures under test.
struct Shared {
    addresses: Vec<AtomicU32>,
    /// Of each thread's own stacks.
    stacks: Carried,
    /// Of each slot: which of a thread's own stacks is in it, written by its maker.
    slots: Carried,
    /// Of each event.
    events: Carried,
}

struct Worker<'r> {
    reader: Reader<'r>,
    ring: Ring<'r>,
    live: LiveTable<'r>,
    shared: &'r Shared,
    shape: &'r Shape,
    thread: u64,
    next_event: u64,
}

/// Runs threads, frees what they left, and checks that nothing leaked.
pub fn attack(shape: &Shape, percent: u64) -> Figures {
    let config = Config {
        references: true,
        lease_ticks: shape.ring.lease_ticks(),
        payload_words: 2,
        ..Config::new(shape.region_bytes)
    };
    let lines = |bytes: usize| vec![Line::ZERO; bytes.div_ceil(64)];
    let mut memory = Memory::new(&config);
    let mut ring_memory = lines(ring_bytes(&shape.ring).unwrap());
    let mut live_memory = lines(live_bytes(shape.live_cells).unwrap());
    let depot = memory.depot();
    let ring = Ring::new(&mut ring_memory, &shape.ring).unwrap();
    let live = LiveTable::new(&mut live_memory).unwrap();
    let steps = (shape.steps * percent / 100).max(1);
    let shared = Shared {
        addresses: (0..shape.addresses).map(|_| AtomicU32::new(FREE)).collect(),
        stacks: Carried::new(((shape.threads + 1) * OWN_COUNT) as usize),
        slots: Carried::new(depot.stats().slot_count as usize + 1),
        events: Carried::new(((shape.threads + 1) * steps) as usize + shape.addresses),
    };
    let worker = |thread| Worker {
        reader: Reader::new(depot, &shared.stacks, thread),
        ring,
        live,
        shared: &shared,
        shape,
        thread,
        next_event: thread * steps,
    };
    let mut figures = Figures::default();
    let mut event_count = 0;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..shape.threads)
            .map(|thread| {
                let mut worker = worker(thread);
                scope.spawn(move || {
                    (0..steps).for_each(|_| worker.step());
                    (worker.reader.figures, worker.next_event - thread * steps)
                })
            })
            .collect();
        for thread in threads {
            let (its_figures, its_events) = thread.join().unwrap();
            figures.add(&its_figures);
            event_count += its_events;
        }
    });
    let mut last = worker(shape.threads);
    (0..shape.addresses).for_each(|address| last.free(address));
    event_count += last.next_event - shape.threads * steps;
    figures.add(&last.reader.figures);
    check_ring(&ring, event_count);
    check_at_rest(&depot, &config);
    figures
}

/// Every event was counted, and the newest are there, but for those that came a lap late.
fn check_ring(ring: &Ring<'_>, event_count: u64) {
    let stats = ring.stats();
    assert_eq!(stats.events, event_count, "{stats:?}");
    let expected = event_count.min(ring.config().event_count.into());
    let found = ring.events().count() as u64;
    assert!(
        found + stats.lapped >= expected,
        "{found} events, {stats:?}"
    );
}

impl Worker<'_> {
    fn step(&mut self) {
        self.reader.figures.operations += 1;
        let address = self.reader.random.below(self.shape.addresses as u64) as usize;
        match self.reader.random.below(16) {
            0..7 => self.alloc(address),
            7..14 => self.free(address),
            14 => self.look_at_events(),
            _ => self.reader.walk(),
        }
    }

    /// Takes an address if it is in that state. Orders nothing, on purpose.
    fn take(&self, address: usize, state: u32) -> bool {
        let word = &self.shared.addresses[address];
        let relaxed = Ordering::Relaxed;
        word.compare_exchange(state, BUSY, relaxed, relaxed).is_ok()
    }

    fn alloc(&mut self, address: usize) {
        if !self.take(address, FREE) {
            return;
        }
        let place = self.ring.claim(&self.reader.depot, self.thread as usize);
        let number = self.reader.number(self.shape.variety);
        let saved = self.reader.depot.save_acquire_lease(&frames_of(number));
        let stack = match saved {
            Ok(leased) => {
                self.reader.depot.add_payload(leased.handle, 0, 1);
                Some(leased.weak)
            }
            Err(error) => {
                self.reader.refuse(error);
                None
            }
        };
        if let Some(weak) = stack.filter(|_| number & OWN_BIT != 0) {
            self.shared.slots.write(weak.slot() as usize, number);
        }
        let block = LiveBlock {
            stack,
            size: size_of_block(number),
            thread: self.thread as u32,
            time: number,
        };
        let inserted = self.live.insert(block_address(address), &block);
        if !inserted.is_stored() {
            self.release(&block);
        }
        if let Some(released) = inserted.released() {
            self.release(&released);
        }
        assert!(
            !matches!(
                inserted,
                Inserted::Replaced(_) | Inserted::UnsampledReplaced(_)
            ),
            "a block was at an address that was free: {inserted:?}"
        );
        let event = self.event(EventKind::Alloc, address, number, stack);
        let _ = self.ring.fill(place, &event);
        self.shared.addresses[address].store(LIVE, Ordering::Relaxed);
    }

    fn free(&mut self, address: usize) {
        if !self.take(address, LIVE) {
            return;
        }
        let place = self.ring.claim(&self.reader.depot, self.thread as usize);
        let mut event = self.event(EventKind::Free, address, 0, None);
        match self.live.remove(block_address(address)) {
            Removed::Block(block) => {
                event.size = block.time;
                event.other_stack = block.stack.filter(|weak| self.renew(*weak));
                self.release(&block);
            }
            Removed::Unsampled => {}
            Removed::Unknown => assert!(
                self.live.stats().lost > 0,
                "a live block is called a double free"
            ),
        }
        let _ = self.ring.fill(place, &event);
        self.shared.addresses[address].store(FREE, Ordering::Relaxed);
    }

    /// The stack is held by a reference, so it can be leased.
    fn renew(&mut self, weak: WeakHandle) -> bool {
        let renewed = self.reader.depot.renew(weak);
        assert_ne!(renewed, Err(HoldError::Evicted), "held stack is gone");
        renewed.is_ok()
    }

    /// Gives back the reference of a block that this thread owns, after a look at the block.
    fn release(&mut self, block: &LiveBlock) {
        let number = block.time;
        assert_eq!(block.size, size_of_block(number), "torn block: {block:?}");
        let Some(weak) = block.stack else { return };
        self.reader.check(weak, number, true);
        if number & OWN_BIT != 0 {
            self.shared.slots.check(weak.slot() as usize, number);
        }
        let handle = self.reader.depot.handle_of(weak);
        self.reader
            .depot
            .put_with_payload(handle, 0, &[u64::MAX, 1]);
        self.reader.yield_sometimes();
    }

    /// An event of which every word follows from its own number and the stack's.
    fn event(
        &mut self,
        kind: EventKind,
        address: usize,
        number: u64,
        stack: Option<WeakHandle>,
    ) -> Event {
        let own = self.next_event;
        self.next_event += 1;
        self.shared.events.write(own as usize, mixed(own));
        Event {
            time: own,
            thread: mixed(own) as u32,
            ..Event::new(kind, block_address(address), number, stack)
        }
    }

    fn look_at_events(&mut self) {
        for event in self.ring.events().take(16) {
            self.reader.figures.operations += 1;
            self.shared
                .events
                .check(event.time as usize, mixed(event.time));
            assert_eq!(event.thread, mixed(event.time) as u32, "torn: {event:?}");
            let Some(weak) = event.stack.or(event.other_stack) else {
                continue;
            };
            let found = self.reader.fetch(weak);
            if self.ring.still_leased(&self.reader.depot, &event) {
                assert_eq!(found, Some(event.size), "leased stack of {event:?}");
            }
        }
    }
}

const fn block_address(address: usize) -> u64 {
    0x5555_0000_1000 + address as u64 * 64
}

const fn size_of_block(number: u64) -> u64 {
    1 + number % 4093
}
