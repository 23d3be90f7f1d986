//! Threads that call a depot at random, and what they called and were answered, with stamps.
//!
//! Key types: [`Scene`], what to do, and [`History`]. Each history has a region of its own: one
//! thread first fills it, then all run at once, then one asks for every stack that was ever
//! named and gives back what is held; so the end state is part of what has to be explained.

use std::fmt;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use stackdepot::{Config, Depot, FetchError, HoldError, Line, SaveError, WeakHandle};

use crate::model::{Answer, Call};

/// A region and what threads do on it.
pub struct Scene {
    pub name: &'static str,
    pub config: Config,
    pub threads: usize,
    /// Of each thread.
    pub calls: usize,
    /// Different stacks.
    pub variety: u64,
    /// Frames of the longest.
    pub depth: usize,
}

/// A call that came back.
#[derive(Clone, Copy, Debug)]
pub struct Record {
    pub call: Call,
    pub answer: Answer,
    pub called: u64,
    pub returned: u64,
}

/// All calls of one region.
pub struct History {
    pub calls: Vec<Record>,
    /// The calls of each thread, in their order.
    pub threads: Vec<Vec<usize>>,
}

/// Records histories with seeds from 0, on the same threads, and hands each to `judge`.
pub fn record(scene: &Scene, count: u64, mut judge: impl FnMut(u64, History)) {
    for seed in 0..count {
        let mut memory = vec![Line::ZERO; scene.config.region_bytes.div_ceil(64)];
        let config = Config {
            seed,
            ..scene.config
        };
        let depot = Depot::new(&mut memory, &config).unwrap();
        let stamps = AtomicU64::new(0);
        let start = Barrier::new(scene.threads);
        let worker = |thread: u64| Worker {
            depot,
            scene,
            stamps: &stamps,
            random: (seed << 8 | thread).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            known: Vec::new(),
            held: Vec::new(),
            records: Vec::new(),
        };
        let mut alone = worker(0);
        (0..scene.variety).for_each(|number| alone.call(Call::Save(number as u8)));
        let known = alone.known.clone();
        let mut threads = vec![std::mem::take(&mut alone.records)];
        std::thread::scope(|scope| {
            let run = |thread| {
                let mut worker = worker(thread as u64 + 1);
                worker.known.clone_from(&known);
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    worker.run();
                    (worker.records, worker.known, worker.held)
                })
            };
            let running: Vec<_> = (0..scene.threads).map(run).collect();
            for thread in running {
                let (records, known, held) = thread.join().unwrap();
                threads.push(records);
                alone.known.extend(known);
                alone.held.extend(held);
            }
        });
        alone.finish();
        threads.push(alone.records);
        judge(seed, History::new(&threads));
    }
}

struct Worker<'r> {
    depot: Depot<'r>,
    scene: &'r Scene,
    stamps: &'r AtomicU64,
    random: u64,
    /// Handles that were answered to this thread.
    known: Vec<WeakHandle>,
    /// Those that it holds a reference on, once for each.
    held: Vec<WeakHandle>,
    records: Vec<Record>,
}

impl Worker<'_> {
    fn run(&mut self) {
        let _guard = giving_way::begin(self.below(u64::MAX));
        for _ in 0..self.scene.calls {
            let number = self.below(self.scene.variety) as u8;
            let some_known = self.below(self.known.len() as u64) as usize;
            let weak = self.known[some_known];
            let has_leases = self.scene.config.lease_ticks != 0;
            let call = match self.below(12) {
                0 | 1 => Call::SaveAcquire(number),
                2 if has_leases => Call::SaveLease(number),
                3 | 4 => Call::Acquire(weak),
                5 | 6 => Call::Fetch(weak),
                7 | 8 if !self.held.is_empty() => Call::Put(self.some_held()),
                9 if has_leases => Call::Renew(weak),
                10 if has_leases => Call::Advance,
                _ => Call::Save(number),
            };
            self.call(call);
        }
    }

    /// Shows what is left: every stack that was ever named, then again when nothing is held.
    fn finish(&mut self) {
        self.known.sort_unstable();
        self.known.dedup();
        for weak in self.known.clone() {
            self.call(Call::Fetch(weak));
        }
        while !self.held.is_empty() {
            let call = Call::Put(self.some_held());
            self.call(call);
        }
        for weak in self.known.clone() {
            self.call(Call::Fetch(weak));
        }
    }

    fn some_held(&mut self) -> WeakHandle {
        let some_held = self.below(self.held.len() as u64) as usize;
        self.held.swap_remove(some_held)
    }

    fn call(&mut self, call: Call) {
        let called = self.stamps.fetch_add(1, Ordering::SeqCst);
        let answer = self.answer(call);
        let returned = self.stamps.fetch_add(1, Ordering::SeqCst);
        if let Answer::Saved(weak) | Answer::Leased(weak, _) = answer
            && !self.known.contains(&weak)
        {
            self.known.push(weak);
        }
        match (call, answer) {
            (Call::SaveAcquire(_), Answer::Saved(weak)) | (Call::Acquire(weak), Answer::Done) => {
                self.held.push(weak);
            }
            _ => {}
        }
        self.records.push(Record {
            call,
            answer,
            called,
            returned,
        });
    }

    fn answer(&self, call: Call) -> Answer {
        let depot = &self.depot;
        let frames = |number| frames_of(number, self.scene.depth);
        match call {
            Call::Save(number) => saved(depot.save(&frames(number)), Answer::Saved),
            Call::SaveAcquire(number) => saved(depot.save_acquire(&frames(number)), |held| {
                Answer::Saved(held.weak)
            }),
            Call::SaveLease(number) => saved(depot.save_lease(&frames(number)), |leased| {
                Answer::Leased(leased.weak, leased.from)
            }),
            Call::Acquire(weak) => held(depot.acquire(weak), |_| Answer::Done),
            Call::Renew(weak) => held(depot.renew(weak), |from| Answer::Leased(weak, from)),
            Call::Put(weak) => {
                depot.put(depot.handle_of(weak));
                Answer::Done
            }
            Call::Fetch(weak) => self.shown(weak),
            Call::Advance => {
                depot.advance(1);
                Answer::Done
            }
        }
    }

    fn shown(&self, weak: WeakHandle) -> Answer {
        let mut frames = [0; 32];
        match self.depot.fetch(weak, &mut frames) {
            Ok(fetched) => {
                let frames = &frames[..fetched.frame_count];
                let is_whole =
                    |number: &u8| frames == frames_of(*number, self.scene.depth).as_slice();
                let number = (0..self.scene.variety as u8).find(is_whole);
                Answer::Shown(number.unwrap_or(u8::MAX))
            }
            Err(FetchError::Evicted) => Answer::Evicted,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ word >> 31) % bound
    }
}

/// The frames of a stack. Of several nodes: number 0 is the outer node that all others but
/// 1 share, itself a stack.
fn frames_of(number: u8, depth: usize) -> Vec<u64> {
    let own = 0x5500_0000_0000 | u64::from(number) << 8;
    if depth <= stackdepot::RUN_FRAMES {
        return vec![own; depth];
    }
    let outer = (0..stackdepot::RUN_FRAMES as u64).map(|frame| 0x7f00_0000_0000 | frame);
    let inner = match number {
        0 => 0,
        1 => return vec![own],
        _ => depth - stackdepot::RUN_FRAMES,
    };
    std::iter::repeat_n(own, inner).chain(outer).collect()
}

fn saved<T>(answer: Result<T, SaveError>, ok: impl Fn(T) -> Answer) -> Answer {
    match answer {
        Ok(value) => ok(value),
        Err(SaveError::Full | SaveError::Contended | SaveError::Crowded) => Answer::Refused,
        Err(error) => panic!("{error:?}"),
    }
}

fn held<T>(answer: Result<T, HoldError>, ok: impl Fn(T) -> Answer) -> Answer {
    match answer {
        Ok(value) => ok(value),
        Err(HoldError::Evicted) => Answer::Evicted,
        Err(HoldError::Contended) => Answer::Refused,
        Err(error) => panic!("{error:?}"),
    }
}

impl History {
    fn new(threads: &[Vec<Record>]) -> History {
        let mut next = 0;
        let mut numbers = |records: &Vec<Record>| {
            let start = next;
            next += records.len();
            (start..next).collect()
        };
        History {
            threads: threads.iter().map(&mut numbers).collect(),
            calls: threads.iter().flatten().copied().collect(),
        }
    }

    /// Calls of the clock that had come back by then: it stood at least there.
    pub fn ticks_before(&self, stamp: u64) -> u32 {
        let is_before = |record: &&Record| record.call == Call::Advance && record.returned < stamp;
        self.calls.iter().filter(is_before).count() as u32
    }

    /// How many calls had others begin before they were answered.
    pub fn overlaps(&self) -> u64 {
        let is_overlapped = |record: &&Record| record.returned > record.called + 1;
        self.calls.iter().filter(is_overlapped).count() as u64
    }

    pub fn count(&self, is_counted: fn(Answer) -> bool) -> u64 {
        let counted = self.calls.iter().filter(|record| is_counted(record.answer));
        counted.count() as u64
    }
}

impl fmt::Display for History {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (thread, numbers) in self.threads.iter().enumerate() {
            for number in numbers {
                let record = &self.calls[*number];
                writeln!(
                    out,
                    "thread {thread} {:4} to {:4}: {:?} -> {:?}",
                    record.called, record.returned, record.call, record.answer
                )?;
            }
        }
        Ok(())
    }
}

/// Lets other threads run between any two operations on shared words, where the build can.
#[cfg(stackdepot_fault)]
mod giving_way {
    use stackdepot::sync::fault;

    /// Mean distance between two places, in operations.
    const MEAN_DISTANCE: u64 = 12;

    /// Until it is dropped, this thread gives way at places that follow from the seed.
    pub fn begin(seed: u64) -> impl Drop {
        arm(seed);
        Giving
    }

    struct Giving;

    impl Drop for Giving {
        fn drop(&mut self) {
            fault::disarm();
        }
    }

    fn arm(seed: u64) {
        let next = seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        // Mostly for a moment, sometimes until others are through with whole calls.
        let times = 1 << (next >> 60).saturating_sub(8);
        let give_way = move || {
            (0..times).for_each(|_| std::thread::yield_now());
            arm(next);
        };
        fault::arm(1 + (next >> 33) % (2 * MEAN_DISTANCE), Box::new(give_way));
    }
}

#[cfg(not(stackdepot_fault))]
mod giving_way {
    /// Only by chance.
    pub fn begin(_: u64) -> Chance {
        Chance
    }

    pub struct Chance;
}
