//! Saves, holds, fetches and puts at random, alone on a region.
//!
//! Every fetched stack is some stack that was saved, whole, and the very one that a weak handle
//! was given for. Held stacks must be there. At the end no slot is lost and no stack stored twice.

use std::collections::HashMap;

use stackdepot::{Config, Depot, Handle, SaveError, WeakHandle};

use crate::Figures;
use crate::carried::Carried;
use crate::memory::Memory;
use crate::numbers::{frames_of, number_of};
use crate::reader::{OWN_BIT, OWN_COUNT, Reader};

/// How much of what.
#[derive(Clone, Copy)]
pub struct Load {
    pub threads: u64,
    pub steps: u64,
    /// Different stacks.
    pub variety: u64,
    /// References that a thread keeps.
    pub most_held: usize,
}

impl Load {
    pub fn scaled(self, percent: u64) -> Load {
        Load {
            steps: (self.steps * percent / 100).max(1),
            ..self
        }
    }
}

struct Worker<'r> {
    reader: Reader<'r>,
    /// Of each slot: which of a thread's own stacks is in it, written and read by who made and holds it.
    slots: &'r Carried,
    load: Load,
    kept: HashMap<WeakHandle, u64>,
    held: Vec<(Handle, WeakHandle, u64)>,
}

/// Runs threads, then checks that nothing leaked: every slot is usable, every count is 0.
pub fn hammer(config: Config, load: &Load) -> Figures {
    let mut memory = Memory::new(&config);
    let depot = memory.depot();
    let carried = Carried::new((load.threads * OWN_COUNT) as usize);
    let slots = Carried::new(depot.stats().slot_count as usize + 1);
    let mut figures = Figures::default();
    std::thread::scope(|scope| {
        let start = |thread| {
            let worker = Worker {
                reader: Reader::new(depot, &carried, thread),
                slots: &slots,
                load: *load,
                kept: HashMap::new(),
                held: Vec::new(),
            };
            scope.spawn(|| worker.run())
        };
        let threads: Vec<_> = (0..load.threads).map(start).collect();
        for thread in threads {
            figures.add(&thread.join().unwrap());
        }
    });
    check_at_rest(&depot, &config);
    figures
}

impl Worker<'_> {
    fn run(mut self) -> Figures {
        for step in 0..self.load.steps {
            self.step();
            if step % 64 == 0 {
                self.reader.depot.advance(1);
            }
        }
        while !self.held.is_empty() {
            self.put_one();
        }
        self.reader.figures
    }

    fn step(&mut self) {
        self.reader.figures.operations += 1;
        let depot = self.reader.depot;
        let number = self.reader.number(self.load.variety);
        let frames = frames_of(number);
        match self.reader.random.below(8) {
            0 | 1 if self.held.len() < self.load.most_held => match depot.save_acquire(&frames) {
                Ok(held) => {
                    if number & OWN_BIT != 0 {
                        self.slots.write(held.weak.slot() as usize, number);
                    }
                    self.reader.check(held.weak, number, true);
                    self.held.push((held.handle, held.weak, number));
                }
                Err(error) => self.reader.refuse(error),
            },
            2 | 3 if depot.lease_ticks() != 0 => {
                let leased = depot.save_lease(&frames);
                self.keep(leased.map(|leased| leased.weak), number);
            }
            4 if !self.held.is_empty() => self.put_one(),
            5 => self.revisit(),
            6 => self.reader.walk(),
            _ => self.keep(depot.save(&frames), number),
        }
    }

    fn keep(&mut self, saved: Result<WeakHandle, SaveError>, number: u64) {
        match saved {
            Ok(weak) => {
                self.reader.check(weak, number, false);
                self.kept.insert(weak, number);
            }
            Err(error) => self.reader.refuse(error),
        }
    }

    fn put_one(&mut self) {
        let at = self.reader.random.below(self.held.len() as u64) as usize;
        let (handle, weak, number) = self.held.swap_remove(at);
        self.reader.check(weak, number, true);
        assert_eq!(self.reader.depot.weak_of(handle), Some(weak));
        if number & OWN_BIT != 0 {
            self.slots.check(weak.slot() as usize, number);
        }
        self.reader.depot.put(handle);
        // Before anything else of this thread's orders it, others may take the slot.
        self.reader.yield_sometimes();
    }

    /// What was saved before is the same stack or gone; acquired, it stays.
    fn revisit(&mut self) {
        let skip = self.reader.random.below(self.kept.len() as u64 + 1) as usize;
        let found = self.kept.iter().nth(skip.min(100));
        let Some((weak, number)) = found.map(|(weak, number)| (*weak, *number)) else {
            return;
        };
        self.reader.check(weak, number, false);
        if let Ok(handle) = self.reader.depot.acquire(weak) {
            self.reader.check(weak, number, true);
            self.reader.depot.put(handle);
        }
        if self.kept.len() > 5000 {
            self.kept.clear();
        }
    }
}

/// When nobody holds anything: no refusal that the load does not explain, no stack twice, no slot lost.
pub fn check_at_rest(depot: &Depot<'_>, config: &Config) {
    depot.advance(config.lease_ticks + 1);
    let stats = depot.stats();
    assert!(
        stats.evicted_stacks > 0 && stats.saturated == 0 && stats.stale_puts == 0,
        "{stats:?}"
    );
    check_uniqueness(depot);
    if config.references {
        check_nothing_leaked(depot);
    }
}

/// Two stored stacks never have the same frames.
fn check_uniqueness(depot: &Depot<'_>) {
    let mut seen = HashMap::new();
    for walked in depot.walk() {
        let mut frames = [0; 64];
        let fetched = depot.fetch(walked.weak, &mut frames).unwrap();
        let number = number_of(&frames[..fetched.frame_count], depot.max_frames());
        let other = seen.insert(number, walked.weak);
        assert_eq!(other, None, "stack {number} is stored twice");
    }
    let stats = depot.stats();
    assert_eq!(stats.new_stacks - stats.evicted_stacks, seen.len() as u64);
}

/// Every slot can be held at once: none is lost. (In a window that is known, or each stack would
/// be wide and take two.)
fn check_nothing_leaked(depot: &Depot<'_>) {
    let slot_count = depot.stats().slot_count;
    let saved: Vec<_> = (0..slot_count)
        .map(|index| depot.save_acquire(&[0x7f00_0100_0000 + index]))
        .collect();
    let stored = saved.iter().filter(|held| held.is_ok()).count() as u64;
    let is_crowded = |held: &&Result<_, _>| **held == Err(SaveError::Crowded);
    let crowded = saved.iter().filter(is_crowded).count() as u64;
    let stats = depot.stats();
    assert_eq!(stored + crowded, slot_count, "slots leaked: {stats:?}");
    assert!(
        crowded * 100 <= slot_count,
        "{crowded} crowded of {slot_count}"
    );
}
