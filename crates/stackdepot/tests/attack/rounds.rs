//! Rounds: threads save the same stacks at the same moment, hold them, and compare the names.
//!
//! In each round every thread saves the same few stacks, in its own order. Held stacks must
//! have one name, be there and be right; what was let go must never show another stack.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::yield_now;

use stackdepot::{Config, Depot, Handle, Hold, Line, WeakHandle};

use crate::audit::{Image, check_found_again, check_nothing_leaked};
use crate::findings::{Findings, seed};
use crate::memory::Copied;
use crate::stacks::{Random, Seen, Stack, look};

/// Weak handles that each thread keeps after it let the stacks go.
const MOST_KEPT: usize = 4000;

/// One attack.
#[derive(Clone, Copy)]
struct Attack {
    region_bytes: usize,
    thread_count: usize,
    round_count: u64,
    /// How many different stacks there are.
    variety: u64,
    stacks_per_round: usize,
    generation_limit: u32,
    lease_ticks: u32,
}

const ORDINARY: Attack = Attack {
    region_bytes: 16 << 10,
    thread_count: 2,
    round_count: 2000,
    variety: 100,
    stacks_per_round: 4,
    generation_limit: u32::MAX,
    lease_ticks: 0,
};

/// Looks at a start line before the processor goes to somebody else.
const START_SPINS: u64 = 10_000;

/// Lets threads go at the same moment: a barrier wakes them one after the other, which takes longer
/// than a save.
struct StartLine {
    thread_count: u64,
    arrived: AtomicU64,
}

impl StartLine {
    /// Waits until all threads have come to this round, counted from 0.
    fn wait(&self, round: u64) {
        self.arrived.fetch_add(1, Ordering::Relaxed);
        let mut spins: u64 = 0;
        while self.arrived.load(Ordering::Relaxed) < (round + 1) * self.thread_count {
            spins += 1;
            if spins.is_multiple_of(START_SPINS) {
                yield_now();
            }
        }
    }
}

struct Thread<'a, 'r> {
    attack: &'a Attack,
    depot: Depot<'r>,
    number: usize,
    random: Random,
    findings: &'a Findings,
    /// The name that each thread got for each stack of the round; 0: none, or no longer held.
    names: &'a [Vec<AtomicU64>],
    held: Vec<(u64, WeakHandle, Handle)>,
    kept: Vec<(u64, WeakHandle)>,
}

impl Thread<'_, '_> {
    fn save_all(&mut self, ids: &[u64], rotation: usize) {
        for step in 0..ids.len() {
            let index = (step + rotation) % ids.len();
            let name = self.save(ids[index]);
            self.names[self.number][index].store(name, Ordering::Relaxed);
            if self.random.one_in(8) {
                self.let_go_and_take_again(ids);
            }
            if self.attack.lease_ticks > 0 && self.random.one_in(16) {
                self.depot.advance(1);
            }
        }
    }

    fn save(&mut self, id: u64) -> u64 {
        let is_leased = self.attack.lease_ticks > 0 && self.random.one_in(2);
        let hold = if is_leased {
            Hold::ReferenceAndLease
        } else {
            Hold::Reference
        };
        let Ok(saved) = self.depot.save_held(Stack::new(id).frames(), hold) else {
            return 0;
        };
        self.expect_right("just saved", id, saved.weak);
        if self.depot.weak_of(saved.handle) != Some(saved.weak) {
            self.findings.add(format_args!(
                "{:?} is not the handle of {:?}",
                saved.handle, saved.weak
            ));
        }
        self.held.push((id, saved.weak, saved.handle));
        saved.weak.to_bits()
    }

    /// The stack may be evicted in between; then its name counts no longer.
    fn let_go_and_take_again(&mut self, ids: &[u64]) {
        let Some((id, weak, handle)) = self.held.pop() else {
            return;
        };
        self.depot.put(handle);
        match self.depot.acquire(weak) {
            Ok(handle) => self.held.push((id, weak, handle)),
            Err(_) => {
                let names = self.names[self.number].iter().zip(ids);
                names
                    .filter(|(_, other)| **other == id)
                    .for_each(|(name, _)| name.store(0, Ordering::Relaxed));
            }
        }
    }

    fn compare_names(&self, ids: &[u64]) {
        let other = &self.names[(self.number + 1) % self.names.len()];
        for ((mine, theirs), id) in self.names[self.number].iter().zip(other).zip(ids) {
            let (mine, theirs) = (mine.load(Ordering::Relaxed), theirs.load(Ordering::Relaxed));
            if mine != 0 && theirs != 0 && mine != theirs {
                self.findings.add(format_args!(
                    "stack {id} has two names, {mine:x} and {theirs:x}"
                ));
            }
        }
        self.held
            .iter()
            .for_each(|(id, weak, _)| self.expect_right("held", *id, *weak));
    }

    fn expect_right(&self, what: &str, id: u64, weak: WeakHandle) {
        let seen = look(&self.depot, weak, id);
        if seen != Seen::Right {
            self.findings
                .add(format_args!("{what} stack {id} at {weak:?} is {seen:?}"));
        }
    }

    fn let_all_go(&mut self) {
        for (id, weak, handle) in std::mem::take(&mut self.held) {
            self.depot.put(handle);
            if self.kept.len() < MOST_KEPT {
                self.kept.push((id, weak));
            } else {
                self.kept[self.random.below(MOST_KEPT as u64) as usize] = (id, weak);
            }
        }
        for _ in 0..self.kept.len().min(4) {
            let (id, weak) = self.kept[self.random.below(self.kept.len() as u64) as usize];
            if look(&self.depot, weak, id) == Seen::Wrong {
                self.findings
                    .add(format_args!("old {weak:?} of stack {id} shows another"));
            }
        }
    }
}

fn run(attack: &Attack, findings: &Findings) {
    let seed = seed("rounds");
    let config = Config {
        references: true,
        generation_limit: attack.generation_limit,
        lease_ticks: attack.lease_ticks,
        ..Config::new(attack.region_bytes)
    };
    let mut memory = vec![Line::ZERO; attack.region_bytes.div_ceil(64)];
    let depot = Depot::new(&mut memory, &config).unwrap();
    let barrier = Barrier::new(attack.thread_count);
    let start_line = StartLine {
        thread_count: attack.thread_count as u64,
        arrived: AtomicU64::new(0),
    };
    let row = || {
        (0..attack.stacks_per_round)
            .map(|_| AtomicU64::new(0))
            .collect()
    };
    let names: Vec<Vec<AtomicU64>> = (0..attack.thread_count).map(|_| row()).collect();
    std::thread::scope(|scope| {
        for number in 0..attack.thread_count {
            let random = Random(seed ^ (number as u64) << 32);
            let (held, kept) = (Vec::new(), Vec::new());
            let mut thread = Thread {
                attack,
                depot,
                number,
                random,
                findings,
                names: &names,
                held,
                kept,
            };
            let (barrier, start_line) = (&barrier, &start_line);
            scope.spawn(move || {
                for round in 0..attack.round_count {
                    let mut common = Random(seed.wrapping_add(round));
                    let ids: Vec<u64> = (0..attack.stacks_per_round)
                        .map(|_| common.below(attack.variety))
                        .collect();
                    start_line.wait(round);
                    thread.save_all(&ids, number * (round as usize % 3));
                    barrier.wait();
                    thread.compare_names(&ids);
                    barrier.wait();
                    thread.let_all_go();
                }
            });
        }
    });
    audit(depot, findings);
    let stats = depot.stats();
    let memory = Copied::of_lines(memory);
    let image = Image::parse(memory.bytes());
    findings.note(
        "rounds",
        image.and_then(|image| image.check_at_rest(&Default::default())),
    );
    println!("{stats:?}");
}

fn audit(depot: Depot<'_>, findings: &Findings) {
    depot.advance(depot.lease_ticks() + 2);
    findings.note("rounds", check_found_again(&depot));
    findings.note("rounds", check_nothing_leaked(&depot, 0));
}

fn run_all(attacks: &[Attack]) {
    let findings = Findings::new();
    attacks.iter().for_each(|attack| run(attack, &findings));
    findings.assert_none();
}

#[test]
fn threads_get_one_name_for_a_stack_in_regions_that_are_always_full() {
    run_all(&[
        Attack {
            region_bytes: 4096,
            thread_count: 1,
            variety: 40,
            stacks_per_round: 6,
            ..ORDINARY
        },
        Attack {
            region_bytes: 4096,
            round_count: 20_000,
            variety: 40,
            ..ORDINARY
        },
        Attack {
            region_bytes: 8192,
            ..ORDINARY
        },
        Attack {
            region_bytes: 8192,
            thread_count: 3,
            variety: 60,
            lease_ticks: 3,
            ..ORDINARY
        },
        Attack {
            variety: 4000,
            stacks_per_round: 8,
            lease_ticks: 2,
            ..ORDINARY
        },
        // Each stack is new to all threads.
        Attack {
            round_count: 20_000,
            variety: u64::MAX,
            stacks_per_round: 1,
            ..ORDINARY
        },
    ]);
}

#[test]
fn threads_get_one_name_for_a_stack_while_slots_wear_out() {
    run_all(&[
        Attack {
            region_bytes: 5952,
            variety: 60,
            generation_limit: 3,
            ..ORDINARY
        },
        Attack {
            variety: 300,
            generation_limit: 40,
            ..ORDINARY
        },
    ]);
}

#[test]
fn threads_get_one_name_for_a_stack_in_roomy_regions() {
    run_all(&[
        Attack {
            region_bytes: 64 << 10,
            variety: 8,
            stacks_per_round: 8,
            ..ORDINARY
        },
        Attack {
            region_bytes: 64 << 10,
            variety: 1 << 40,
            stacks_per_round: 8,
            ..ORDINARY
        },
        Attack {
            region_bytes: 1 << 20,
            thread_count: 3,
            round_count: 500,
            variety: 4000,
            stacks_per_round: 32,
            lease_ticks: 4,
            ..ORDINARY
        },
    ]);
}
