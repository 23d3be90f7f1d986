//! Kills: a writer with three threads is killed at a random moment, a hundred times over.
//!
//! While it runs, this process reads its region; when it is dead, the region as it was left must
//! be readable, and a reopen must find right stacks only and lose no slot.

use std::time::Duration;

use stackdepot::{Config, Depot, WeakHandle};

use crate::audit::{Image, check_found_again, check_nothing_leaked};
use crate::findings::{Findings, seed};
use crate::memory::Shared;
use crate::process::Child;
use crate::stacks::{Known, Random, Seen, Stack, look};

const VARIETY: u64 = 500;
const LEASE_TICKS: u32 = 5;
const WRITER_THREADS: u64 = 3;
const KILLS: u64 = 60;

/// What a writer's thread does until the kill.
fn write(depot: Depot<'_>, seed: u64) -> ! {
    let mut random = Random(seed);
    let mut held = Vec::new();
    loop {
        let stack = Stack::new(random.below(VARIETY));
        held.extend(depot.save_acquire(stack.frames()));
        if held.len() > 5 {
            depot.put(held.swap_remove(random.below(5) as usize).handle);
        }
        let _ = depot.save_lease(stack.frames());
        if random.one_in(50) {
            depot.advance(1);
        }
    }
}

struct Attack<'a> {
    shared: &'a Shared,
    region_bytes: usize,
    findings: Findings,
    known: Known,
    kept: Vec<(u64, WeakHandle)>,
}

impl Attack<'_> {
    fn attach(&self) -> Depot<'static> {
        // SAFETY: the mapping outlives the attack, and is accessed by depots only.
        unsafe { Depot::attach(self.shared.base(), self.region_bytes) }.unwrap()
    }

    fn round(&mut self, seed: u64) {
        let writer = Child::fork(|| {
            let depot = self.attach();
            std::thread::scope(|scope| {
                for thread in 0..WRITER_THREADS {
                    scope.spawn(move || write(depot, seed ^ thread << 32));
                }
            });
        });
        std::thread::sleep(Duration::from_micros(2000 + Random(seed).below(6000)));
        self.read_while_it_writes();
        if writer.kill() != Some(libc::SIGKILL) {
            self.findings
                .add(format_args!("the writer ended before it was killed"));
        }
        self.check_what_is_left();
        self.reopen();
    }

    fn read_while_it_writes(&self) {
        let depot = self.attach();
        for walked in depot.walk() {
            let mut frames = [0; 64];
            if let Ok(fetched) = depot.fetch(walked.weak, &mut frames)
                && !self.known.contains(&frames[..fetched.frame_count])
            {
                self.findings
                    .add(format_args!("a reader sees a stack that nobody saved"));
            }
        }
    }

    fn check_what_is_left(&self) {
        let left = self.shared.copy(0, self.region_bytes);
        let readable = Image::parse(left.bytes())
            .and_then(|image| image.check_readable(|frames| self.known.contains(frames)));
        self.findings.note("after a kill", readable);
    }

    fn reopen(&mut self) {
        // SAFETY: the mapping outlives the attack, and its only writer is dead.
        let opened = unsafe { Depot::reopen(self.shared.base(), self.region_bytes, []) };
        let (depot, _) = opened.unwrap();
        let copy = self.shared.copy(0, self.region_bytes);
        let image = Image::parse(copy.bytes());
        self.findings.note(
            "after a reopen",
            image.and_then(|image| image.check_at_rest(&Default::default())),
        );
        for walked in depot.walk() {
            let mut frames = [0; 64];
            let fetched = depot.fetch(walked.weak, &mut frames).unwrap();
            self.kept.extend(
                self.known
                    .id_of(&frames[..fetched.frame_count])
                    .map(|id| (id, walked.weak)),
            );
        }
        for (id, weak) in &self.kept {
            if look(&depot, *weak, *id) == Seen::Wrong {
                self.findings.add(format_args!(
                    "{weak:?} of stack {id} shows another after a kill"
                ));
            }
        }
        if self.kept.len() > 20_000 {
            self.kept.drain(..10_000);
        }
    }

    fn audit(&self) {
        let depot = self.attach();
        depot.advance(LEASE_TICKS + 2);
        self.findings.note("after kills", check_found_again(&depot));
        self.findings
            .note("after kills", check_nothing_leaked(&depot, 0));
    }
}

fn kill_writers_of(region_bytes: usize) {
    let seed = seed("kills");
    let shared = Shared::new(region_bytes);
    let config = Config {
        references: true,
        lease_ticks: LEASE_TICKS,
        ..Config::new(region_bytes)
    };
    // SAFETY: new zeroed memory, accessed by depots only.
    unsafe { Depot::create(shared.base(), &config) }.unwrap();
    let mut attack = Attack {
        shared: &shared,
        region_bytes,
        findings: Findings::new(),
        known: Known::first(VARIETY),
        kept: vec![],
    };
    for round in 0..KILLS {
        attack.round(seed.wrapping_add(round));
        if round % 10 == 9 {
            attack.audit();
        }
    }
    attack.findings.assert_none();
}

#[test]
fn writers_killed_at_random_leave_a_region_that_is_right() {
    kill_writers_of(64 << 10);
}

#[test]
fn writers_killed_at_random_leave_a_full_region_that_is_right() {
    kill_writers_of(16 << 10);
}
