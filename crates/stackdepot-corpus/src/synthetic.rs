//! Makes a workload out of a seed: a random program that walks its call tree.
//!
//! The program is one thread that calls and returns at random and allocates at the leaves;
//! some call sites are hot, many stacks are seen once, objects live for a while. Not a model
//! of any real program: it exercises sharing of outer frames, deep and shallow stacks, frames
//! in several 4-GiB windows and at the ends of the range of a word.

use std::collections::HashMap;

use crate::read::MAX_STACK_FRAMES;
use crate::{Corpus, Event};

/// What [`synthetic`] makes.
#[derive(Clone, Copy, Debug)]
pub struct SyntheticConfig {
    /// Any number; equal seeds make equal workloads.
    pub seed: u64,
    /// Allocations and frees together; at least 1.
    pub event_count: u32,
    /// Call sites per function: more make more distinct stacks.
    pub site_count: u64,
}

/// Makes the workload of a configuration, the same one every time.
pub fn synthetic(config: &SyntheticConfig) -> Corpus {
    let mut maker = Maker {
        random: Random(config.seed),
        config: *config,
        calls: vec![0x40_1000],
        indexes: HashMap::new(),
        offsets: vec![0],
        frames: Vec::new(),
        events: Vec::new(),
        live: Vec::new(),
        free: Vec::new(),
        slot_count: 0,
    };
    for _ in 0..config.event_count.max(1) {
        maker.step();
    }
    Corpus {
        module_map: "400000-500000 0 [synthetic]\n".into(),
        offsets: maker.offsets,
        frames: maker.frames,
        events: maker.events,
        slot_count: maker.slot_count,
        thread_count: 1,
    }
}

/// The random program while it runs.
struct Maker {
    random: Random,
    config: SyntheticConfig,
    /// Return addresses of the calls in progress, outermost first.
    calls: Vec<u64>,
    indexes: HashMap<Vec<u64>, u32>,
    offsets: Vec<usize>,
    frames: Vec<u64>,
    events: Vec<Event>,
    /// Slots in use, and slots to use again (the most recently freed one first).
    live: Vec<u32>,
    free: Vec<u32>,
    slot_count: u32,
}

impl Maker {
    /// Moves in the call tree, then allocates or frees there.
    fn step(&mut self) {
        if !self.revisit() {
            self.wander();
        }
        let stack = self.stack_index();
        let is_alloc = self.live.is_empty() || self.random.below(100) < 52;
        let slot = if is_alloc {
            self.take_slot()
        } else {
            self.end_object()
        };
        let size = if is_alloc {
            16 << self.random.below(8)
        } else {
            0
        };
        self.events.push(Event {
            stack,
            slot,
            size,
            thread: 0,
            is_alloc,
        });
    }

    /// Three times of four goes back to a place seen before, the earliest ones most often.
    fn revisit(&mut self) -> bool {
        let seen_count = self.offsets.len() as u64 - 1;
        if seen_count == 0 || self.random.below(4) == 0 {
            return false;
        }
        let uniform = self.random.below(seen_count);
        let index = (uniform * uniform / seen_count * uniform / seen_count) as usize;
        let range = self.offsets.get(index).zip(self.offsets.get(index + 1));
        let Some(frames) = range.and_then(|(&start, &end)| self.frames.get(start..end)) else {
            return false;
        };
        self.calls = frames.iter().rev().copied().collect();
        true
    }

    /// A few calls and returns.
    fn wander(&mut self) {
        for _ in 0..self.random.below(6) {
            let depth = self.calls.len();
            // Drifts around 24 calls, with rare dives to the limit.
            let dives = self.random.below(64) == 0;
            if dives || (depth as u64) < 4 + self.random.below(40) {
                self.call(if dives { 30 } else { 1 });
            } else {
                let returns = 1 + self.random.below(4) as usize;
                self.calls.truncate(depth.saturating_sub(returns).max(1));
            }
        }
    }

    fn call(&mut self, call_count: usize) {
        for _ in 0..call_count {
            if self.calls.len() >= MAX_STACK_FRAMES as usize {
                return;
            }
            // Skewed to the first sites: the square of a uniform number.
            let uniform = self.random.below(self.config.site_count.max(1) * 16);
            let site = uniform * uniform / (self.config.site_count.max(1) * 256);
            let depth = self.calls.len() as u64;
            let window = match self.random.below(50) {
                0 => 0xffff_ffff_8000_0000,
                1 => 0x7f00_0000_0000 + (site << 33),
                2..=12 => 0x7f12_0000_0000,
                _ => 0x40_0000,
            };
            self.calls.push(window + depth * 0x1000 + site * 5);
        }
    }

    fn stack_index(&mut self) -> u32 {
        let stack: Vec<u64> = self.calls.iter().rev().copied().collect();
        let next = self.indexes.len() as u32;
        let index = *self.indexes.entry(stack).or_insert(next);
        if index == next {
            self.frames.extend(self.calls.iter().rev());
            self.offsets.push(self.frames.len());
        }
        index
    }

    fn take_slot(&mut self) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slot_count += 1;
            self.slot_count - 1
        });
        self.live.push(slot);
        slot
    }

    /// Ends a recent object most of the time, any object otherwise.
    fn end_object(&mut self) -> u32 {
        let live_count = self.live.len() as u64;
        let reach = if self.random.below(4) == 0 {
            live_count
        } else {
            live_count.min(8)
        };
        let index = live_count - 1 - self.random.below(reach);
        let slot = self.live.remove(index as usize);
        self.free.push(slot);
        slot
    }
}

/// SplitMix64: small, seeded, the same on every machine.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % limit.max(1)
    }
}
