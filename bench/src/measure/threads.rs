//! Threads: how much more all of them do than one alone, on whole workloads and on one hot stack.
//!
//! A round measures one thread, then all. Threads begin at different events and stop together, so
//! that none of them is ever alone.

use std::hint::black_box;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::batch::Batch;
use super::hits;
use crate::figure::{Measure, Shared};
use crate::machine::Watch;
use crate::process::Round;
use crate::workload::Workload;

/// Saves of stored stacks by two threads, in saves of one.
pub const TWO: Measure = Measure("scaling, 2 threads");
/// The same by as many threads as there are processors.
pub const ALL: Measure = Measure("scaling, all processors");
/// Two threads that save one and the same stack, and keep it where the side can.
pub const HOT_TWO: Measure = Measure("scaling on one stack, 2 threads");
/// The same by as many threads as there are processors.
pub const HOT_ALL: Measure = Measure("scaling on one stack, all processors");

/// How many saves of the hot stack a thread makes.
const HOT_SAVE_COUNT: usize = 1 << 20;
const HOT_BATCH: usize = 4096;

/// All four measures.
pub fn start<P: Shared>(workload: &Workload) -> Result<Round<'_>, String> {
    let peer = P::new(workload);
    hits::fill(&peer, workload)?;
    let processors = processor_count();
    Ok(Box::new(move || {
        let saves = |threads| {
            speed(threads, |number, team| {
                replay(&peer, workload, number, team)
            })
        };
        let hot = |threads| speed(threads, |_, team| save_hot(&peer, workload, team));
        let (one, hot_one) = (saves(1), hot(1));
        let (two, hot_two) = (saves(2) / one, hot(2) / hot_one);
        let more = |two, all: &dyn Fn(usize) -> f64, one: f64| match processors {
            0..=2 => two,
            _ => all(processors) / one,
        };
        Ok(vec![
            two,
            more(two, &saves, one),
            hot_two,
            more(hot_two, &hot, hot_one),
        ])
    }))
}

/// Processors that this process may use.
pub fn processor_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The threads of one measurement.
struct Team {
    size: usize,
    start: Barrier,
    finished: AtomicUsize,
}

impl Team {
    /// Whether somebody came to the end, so that the others would go on alone.
    fn is_over(&self) -> bool {
        self.finished.load(Ordering::Relaxed) > 0
    }
}

/// Operations per nanosecond of so many threads together.
fn speed(threads: usize, work: impl Fn(usize, &Team) -> f64 + Sync) -> f64 {
    let team = Team {
        size: threads,
        start: Barrier::new(threads),
        finished: AtomicUsize::new(0),
    };
    let run = |number| {
        team.start.wait();
        let ns = work(number, &team);
        team.finished.fetch_add(1, Ordering::Relaxed);
        1.0 / ns
    };
    std::thread::scope(|scope| {
        let run = &run;
        let others: Vec<_> = (1..threads)
            .map(|number| scope.spawn(move || run(number)))
            .collect();
        let own = run(0);
        own + others
            .into_iter()
            .map(|other| other.join().unwrap_or(f64::NAN))
            .sum::<f64>()
    })
}

fn replay<P: Shared>(peer: &P, workload: &Workload, number: usize, team: &Team) -> f64 {
    let mut watch = Watch::new();
    let mut batch = Batch::new();
    let events = workload.corpus.events();
    let (before, after) = events.split_at(number * events.len() / team.size);
    let mut stacks = after.iter().chain(before).map(|event| event.stack);
    loop {
        let count = batch.fill(workload, &mut stacks);
        if count == 0 || team.is_over() {
            return watch.ns();
        }
        watch.time(count, || {
            for frames in batch.stacks() {
                black_box(peer.save(frames));
            }
        });
    }
}

fn save_hot<P: Shared>(peer: &P, workload: &Workload, team: &Team) -> f64 {
    let mut watch = Watch::new();
    let hot = workload.corpus.events().len() / 2;
    let frames = workload.corpus.stack(workload.corpus.events()[hot].stack);
    for _ in 0..HOT_SAVE_COUNT / HOT_BATCH {
        if team.is_over() {
            break;
        }
        watch.time(HOT_BATCH, || {
            for _ in 0..HOT_BATCH {
                black_box(peer.save_hot(black_box(frames)));
            }
        });
    }
    watch.ns()
}
