//! Threads hammering one region, with every fetched stack checked.
//!
//! Each stack's frames follow from a number, and the number is in its outermost and innermost
//! frame, so every fetch can be checked for itself: it is some stack that was saved, whole,
//! and, for a weak handle that a thread keeps, the very one. Held stacks must be there.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use stackdepot::{Config, Depot, Handle, Line, SaveError, WeakHandle};

fn mixed(seed: u64) -> u64 {
    let word = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Stack number n: many share outer frames; every eleventh has words that are no addresses.
fn frames_of(number: u64) -> Vec<u64> {
    let depth = 1 + (mixed(number) % 45) as usize;
    let mut frames = vec![0x7f00_0000_0000 | number];
    for level in 1..depth as u64 {
        let shared = number >> (3 * (depth as u64 - level).min(8) / 2);
        let word = mixed(shared ^ level << 40);
        frames.push(if number.is_multiple_of(11) {
            word
        } else {
            (0x5500 + word % 3) << 32 | word >> 40
        });
    }
    frames
}

/// The number of a fetched stack, after comparing every frame.
fn number_of(frames: &[u64]) -> u64 {
    let number = frames[0] & 0xff_ffff;
    assert!(
        frames == frames_of(number),
        "stack {number} came back as {frames:x?}"
    );
    number
}

struct Worker<'r> {
    depot: Depot<'r>,
    random: u64,
    kept: HashMap<WeakHandle, u64>,
    held: Vec<(Handle, WeakHandle, u64)>,
    refused: u64,
    evicted: u64,
}

impl Worker<'_> {
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.random)
    }

    /// Fetches and compares; a held stack must be there.
    fn check(&mut self, weak: WeakHandle, number: u64, is_held: bool) {
        let mut frames = [0; 64];
        match self.depot.fetch(weak, &mut frames) {
            Ok(fetched) => assert_eq!(number_of(&frames[..fetched.frame_count]), number),
            Err(_) => {
                assert!(!is_held, "held stack {number} is gone");
                self.evicted += 1;
            }
        }
    }

    fn step(&mut self, variety: u64, most_held: usize) {
        let number = self.next() % variety;
        let frames = frames_of(number);
        let dice = self.next() % 8;
        if dice < 2 && self.held.len() < most_held {
            match self.depot.save_acquire(&frames) {
                Ok(held) => {
                    self.check(held.weak, number, true);
                    self.held.push((held.handle, held.weak, number));
                }
                Err(error) => self.refuse(error),
            }
        } else if dice < 4 {
            match self.depot.save_lease(&frames) {
                Ok(leased) => {
                    self.check(leased.weak, number, false);
                    self.kept.insert(leased.weak, number);
                }
                Err(error) => self.refuse(error),
            }
        } else if dice == 4 && !self.held.is_empty() {
            let at = self.next() as usize % self.held.len();
            let (handle, weak, number) = self.held.swap_remove(at);
            self.check(weak, number, true);
            assert_eq!(self.depot.weak_of(handle), Some(weak));
            self.depot.put(handle);
        } else if dice == 5 {
            self.revisit();
        } else {
            match self.depot.save(&frames) {
                Ok(weak) => {
                    self.check(weak, number, false);
                    self.kept.insert(weak, number);
                }
                Err(error) => self.refuse(error),
            }
        }
    }

    fn revisit(&mut self) {
        let skip = self.next() as usize % (self.kept.len() + 1);
        let Some((weak, number)) = self
            .kept
            .iter()
            .nth(skip.min(100))
            .map(|(weak, number)| (*weak, *number))
        else {
            return;
        };
        self.check(weak, number, false);
        if let Ok(handle) = self.depot.acquire(weak) {
            self.check(weak, number, true);
            self.depot.put(handle);
        }
        if self.kept.len() > 5000 {
            self.kept.clear();
        }
    }

    fn refuse(&mut self, error: SaveError) {
        assert!(
            matches!(
                error,
                SaveError::Full | SaveError::Contended | SaveError::Crowded
            ),
            "{error:?}"
        );
        self.refused += 1;
    }
}

/// Runs threads, then checks that nothing leaked: every slot is usable, every count is 0.
fn hammer(config: Config, threads: u64, steps: u64, variety: u64, most_held: usize) {
    let mut memory = vec![Line::ZERO; config.region_bytes / 64];
    let depot = Depot::new(&mut memory, &config).unwrap();
    let (evicted, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (evicted, refused) = (&evicted, &refused);
            scope.spawn(move || {
                let mut worker = Worker {
                    depot,
                    random: thread << 32,
                    kept: HashMap::new(),
                    held: Vec::new(),
                    refused: 0,
                    evicted: 0,
                };
                for step in 0..steps {
                    worker.step(variety, most_held);
                    if step % 64 == 0 {
                        depot.advance(1);
                    }
                }
                for (handle, weak, number) in std::mem::take(&mut worker.held) {
                    worker.check(weak, number, true);
                    depot.put(handle);
                }
                evicted.fetch_add(worker.evicted, Ordering::Relaxed);
                refused.fetch_add(worker.refused, Ordering::Relaxed);
            });
        }
    });
    depot.advance(config.lease_ticks + 1);
    let stats = depot.stats();
    let fetched_evicted = evicted.into_inner();
    println!(
        "{stats:?} evicted before fetch {fetched_evicted} refused {}",
        refused.into_inner()
    );
    assert!(stats.evicted_stacks > 0 && stats.saturated == 0 && stats.stale_puts == 0);
    check_uniqueness(&depot);
    check_nothing_leaked(&depot);
}

/// Two stored stacks never have the same frames.
fn check_uniqueness(depot: &Depot<'_>) {
    let mut seen = HashMap::new();
    for walked in depot.walk() {
        let mut frames = [0; 64];
        let fetched = depot.fetch(walked.weak, &mut frames).unwrap();
        let number = number_of(&frames[..fetched.frame_count]);
        assert_eq!(
            seen.insert(number, walked.weak),
            None,
            "stack {number} is stored twice"
        );
    }
    let stats = depot.stats();
    assert_eq!(stats.new_stacks - stats.evicted_stacks, seen.len() as u64);
}

/// Every slot can be held at once: none is lost. (In a window that is known, or each stack would
/// be wide and take two.)
fn check_nothing_leaked(depot: &Depot<'_>) {
    let slot_count = depot.stats().slot_count;
    let handles: Vec<_> = (0..slot_count)
        .map(|index| depot.save_acquire(&[0x7f00_0100_0000 + index]))
        .collect();
    let stored = handles.iter().filter(|held| held.is_ok()).count() as u64;
    let crowded = handles
        .iter()
        .filter(|held| **held == Err(SaveError::Crowded))
        .count() as u64;
    assert_eq!(
        stored + crowded,
        slot_count,
        "slots leaked: {:?}",
        depot.stats()
    );
    assert!(
        crowded * 100 <= slot_count,
        "{crowded} crowded of {slot_count}"
    );
}

fn config(region_bytes: usize) -> Config {
    Config {
        references: true,
        lease_ticks: 4,
        payload_words: 1,
        ..Config::new(region_bytes)
    }
}

#[test]
fn two_threads_on_a_roomy_region() {
    hammer(config(256 << 10), 2, 150_000, 20_000, 50);
}

#[test]
fn four_threads_on_a_region_that_is_mostly_held() {
    hammer(config(32 << 10), 4, 60_000, 2_000, 30);
}

#[test]
fn three_threads_on_a_region_of_a_dozen_slots() {
    hammer(config(3 << 10), 3, 60_000, 60, 1);
}

#[test]
fn three_threads_saving_the_same_few_stacks_that_are_always_evicted() {
    hammer(config(6 << 10), 3, 80_000, 40, 0);
}
