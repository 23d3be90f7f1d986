//! Soak: everything at once. A writer process whose threads do whatever the recorder does, with
//! handlers that interrupt them and forks that read, is killed or stopped again and again; what
//! it leaves is read, reopened (also by reopeners that are killed) and audited.
//!
//! `cargo xtask soak --seconds N`; as a test it takes two seconds. Every operation is counted
//! before and after, in memory that outlives the writers: attempted = succeeded + refused + cut
//! off by a kill, for each thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use stackdepot::WeakHandle;
use stackdepot::ring::RingConfig;

use crate::audit::{Image, check_found_again, check_nothing_leaked};
use crate::findings::{Findings, seed};
use crate::memory::Shared;
use crate::process::Child;
use crate::stacks::{Known, Random, Seen, look};
use crate::tally::{CHECKED, CUT_REOPENS, FORKS, KILLS, SIGNALS, STOPS, Tally, WRONG};
use crate::world::{Shape, World};
use crate::writer::write;

pub const THREADS: usize = 4;
/// The row of the tally where handlers count, whoever they interrupt.
pub const HANDLERS: usize = THREADS;
/// The row of the supervisor.
const SUPERVISOR: usize = THREADS + 1;
pub const VARIETY: u64 = 600;
const SHAPE: Shape = Shape {
    depot_bytes: 14 << 10,
    ring: RingConfig {
        event_count: 64,
        shard_count: 2,
    },
    live_cells: 96,
    caches: THREADS,
};

/// What a process of the soak works with; inherited by forks.
pub struct Soak {
    shared: Shared,
    known: Known,
    findings: Findings,
}

impl Soak {
    pub fn world(&self) -> World<'static> {
        // SAFETY: the mapping lives as long as this process, and worlds only access it.
        unsafe { World::attach(self.shared.base(), &SHAPE) }
    }

    pub fn tally(&self, row: usize) -> Tally<'_> {
        Tally::row(
            &self.shared.words()[SHAPE.bytes().next_multiple_of(64) / 8..],
            row,
        )
    }

    /// The writers' sign to end.
    pub fn stop(&self) -> &AtomicU64 {
        self.shared.words().last().unwrap()
    }

    pub fn check(&self, row: usize, checked: Result<u64, String>) {
        let tally = self.tally(row);
        match checked {
            Ok(stacks) => {
                tally.add(CHECKED, stacks);
            }
            Err(finding) => {
                tally.add(WRONG, 1);
                self.findings.add(format_args!("{finding}"));
            }
        }
    }

    /// Looks at everything that is saved, while others write.
    pub fn check_while_written(&self, row: usize) {
        let world = self.world();
        let mut seen = 0;
        for walked in world.depot.walk() {
            let mut frames = [0; 64];
            let Ok(fetched) = world.depot.fetch(walked.weak, &mut frames) else {
                continue;
            };
            if !self.known.contains(&frames[..fetched.frame_count]) {
                self.check(
                    row,
                    Err(format!("{:?} holds a stack that nobody saved", walked.weak)),
                );
            }
            seen += 1;
        }
        self.check(row, Ok(seen));
        self.check(row, world.check_events());
        self.check(row, world.check_blocks(false));
    }
}

/// The process that starts writers, ends them, and judges what they leave.
struct Supervisor<'a> {
    soak: &'a Soak,
    random: Random,
    kept: Vec<(u64, WeakHandle)>,
}

impl Supervisor<'_> {
    fn round(&mut self) {
        self.soak.stop().store(0, Ordering::Relaxed);
        let seed = self.random.below(u64::MAX);
        let writer = Child::fork(|| write(self.soak, seed));
        let (start, duration) = (
            Instant::now(),
            Duration::from_micros(1000 + self.random.below(25_000)),
        );
        while start.elapsed() < duration {
            self.soak.check_while_written(SUPERVISOR);
        }
        let is_stopped = self.random.one_in(4);
        self.end(writer, is_stopped);
        if is_stopped {
            self.note("a stopped writer", self.check_at_rest());
        }
        self.check_what_is_left();
        while self.random.one_in(3) {
            self.cut_a_reopen();
        }
        self.reopen();
        self.note("a reopen", self.check_at_rest());
        self.look_at_kept();
    }

    fn note(&self, what: &str, checked: Result<u64, String>) {
        self.soak.check(
            SUPERVISOR,
            checked.map_err(|finding| format!("after {what}: {finding}")),
        );
    }

    fn end(&self, writer: Child, is_stopped: bool) {
        let tally = self.soak.tally(SUPERVISOR);
        let (is_right, most_cut) = if is_stopped {
            tally.add(STOPS, 1);
            self.soak.stop().store(1, Ordering::Relaxed);
            (writer.ended_well(), 0)
        } else {
            tally.add(KILLS, 1);
            (writer.kill() == Some(libc::SIGKILL), 1)
        };
        if !is_right {
            self.note(
                "its start",
                Err("a writer hung or died by itself".to_owned()),
            );
        }
        for row in 0..THREADS {
            self.note(
                "a writer's end",
                self.soak.tally(row).settle(most_cut).map(|()| 0),
            );
        }
        let handlers = self.soak.tally(HANDLERS).settle(most_cut * THREADS as u64);
        self.note("a writer's end", handlers.map(|()| 0));
    }

    fn check_what_is_left(&self) {
        let copied = self.soak.shared.copy(0, SHAPE.bytes());
        let is_known = |frames: &[u64]| self.soak.known.contains(frames);
        self.note(
            "a writer's end",
            Image::parse(copied.bytes()).and_then(|image| image.check_readable(is_known)),
        );
    }

    fn check_at_rest(&self) -> Result<u64, String> {
        let copied = self.soak.shared.copy(0, SHAPE.bytes());
        self.soak
            .world()
            .check_at_rest(&SHAPE, copied.bytes(), &self.soak.known, &[])
    }

    /// A reopener that reopens until it is killed, most often in the midst of one.
    fn cut_a_reopen(&mut self) {
        let reopener = Child::fork(|| {
            loop {
                // SAFETY: the writer is dead, and this process's parent waits for its end.
                let _ = unsafe { World::reopen(self.soak.shared.base(), &SHAPE, &[]) };
            }
        });
        std::thread::sleep(Duration::from_micros(200 + self.random.below(400)));
        if reopener.kill() == Some(libc::SIGKILL) {
            self.soak.tally(SUPERVISOR).add(CUT_REOPENS, 1);
        }
    }

    fn reopen(&mut self) {
        // SAFETY: the writer and every reopener are dead.
        let (world, recovered) = unsafe { World::reopen(self.soak.shared.base(), &SHAPE, &[]) };
        if recovered.dropped_holds != 0 {
            self.note(
                "a kill",
                Err(format!("live blocks lost their stacks: {recovered:?}")),
            );
        }
        for walked in world.depot.walk() {
            let mut frames = [0; 64];
            if let Ok(fetched) = world.depot.fetch(walked.weak, &mut frames) {
                let id = self.soak.known.id_of(&frames[..fetched.frame_count]);
                self.kept.extend(id.map(|id| (id, walked.weak)));
            }
        }
    }

    /// Names from before the kill show their own stacks or none.
    fn look_at_kept(&mut self) {
        let depot = self.soak.world().depot;
        for (id, weak) in &self.kept {
            let is_wrong = look(&depot, *weak, *id) == Seen::Wrong;
            self.note(
                "a kill",
                if is_wrong {
                    Err(format!("{weak:?} shows another stack"))
                } else {
                    Ok(1)
                },
            );
        }
        if self.kept.len() > 4000 {
            self.kept.drain(..2000);
        }
    }

    /// Lets every block go: then nothing is held, and no slot may be lost.
    fn drain(&self) {
        let world = self.soak.world();
        for (address, _) in world.live.blocks().collect::<Vec<_>>() {
            let _ = world.free(0, 0, address);
        }
        let caches = (0..THREADS).filter_map(|row| world.cache(row));
        caches.for_each(|cache| cache.clear(&world.depot));
        world.depot.advance(SHAPE.ring.lease_ticks() + 2);
        self.note("draining", check_found_again(&world.depot));
        self.note("draining", check_nothing_leaked(&world.depot, 0));
    }

    fn print(&self, round_count: u64) {
        for row in 0..THREADS {
            println!("soak: thread {row}: {}", self.soak.tally(row));
        }
        println!("soak: handlers: {}", self.soak.tally(HANDLERS));
        let sum = |word: usize| {
            (0..=SUPERVISOR)
                .map(|row| self.soak.tally(row).get(word))
                .sum::<u64>()
        };
        println!(
            "soak: faults injected: {} kills, {} reopens cut short, {} forks, {} signals; {} orderly ends",
            sum(KILLS),
            sum(CUT_REOPENS),
            sum(FORKS),
            sum(SIGNALS),
            sum(STOPS)
        );
        println!(
            "soak: {round_count} writers, {} stacks checked, wrong {}",
            sum(CHECKED),
            sum(WRONG)
        );
        let has_other = (0..=SUPERVISOR).any(|row| self.soak.tally(row).has_other());
        assert!(
            sum(WRONG) == 0 && sum(CHECKED) > 0 && !has_other,
            "findings, see above"
        );
    }
}

#[test]
fn soak_of_threads_handlers_forks_kills_and_reopens() {
    let seconds = std::env::var("STACKDEPOT_SOAK_SECONDS").ok();
    let seconds = seconds.map_or(2, |seconds| {
        seconds
            .parse()
            .expect("STACKDEPOT_SOAK_SECONDS is a number")
    });
    let seed = seed("soak");
    let bytes = SHAPE.bytes().next_multiple_of(64) + Tally::bytes(SUPERVISOR + 2);
    let soak = Soak {
        shared: Shared::new(bytes),
        known: Known::first(VARIETY),
        findings: Findings::new(),
    };
    // SAFETY: new memory, which worlds only access.
    unsafe { World::create(soak.shared.base(), &SHAPE) };
    let mut supervisor = Supervisor {
        soak: &soak,
        random: Random(seed),
        kept: Vec::new(),
    };
    let (start, mut round_count) = (Instant::now(), 0);
    while start.elapsed() < Duration::from_secs(seconds) {
        supervisor.round();
        round_count += 1;
        if round_count % 16 == 0 {
            supervisor.drain();
        }
    }
    supervisor.print(round_count);
}
