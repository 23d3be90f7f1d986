//! The pass without checks: how long the saves take, and whether a size is enough.
//!
//! With holds the time includes what belongs to them: the ring's push, the puts of the frees.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use super::objects::Objects;
use super::progress::{Progress, REPORT_EVENTS};
use super::stage::{Plan, Set, Stage};
use crate::failure::Failure;

/// What a pass without checks found.
pub struct Timed {
    /// From the start of the first thread to the end of the last.
    pub seconds: f64,
    /// Nothing was evicted, refused or contended.
    pub fits: bool,
}

/// Replays the whole plan on a fresh depot.
pub fn replay(
    plan: &Plan<'_>,
    stage: &mut Stage,
    depot_bytes: u64,
    progress: &Progress,
) -> Result<Timed, Failure> {
    progress.begin("timing", plan.event_count() * plan.threads);
    pass(plan, &stage.set(plan, depot_bytes)?, false, progress)
}

/// The slots taken (a wide node has two) if everything fits; ends as soon as something does not.
pub fn fits(
    plan: &Plan<'_>,
    stage: &mut Stage,
    depot_bytes: u64,
    progress: &Progress,
) -> Result<Option<u64>, Failure> {
    let set = stage.set(plan, depot_bytes)?;
    let fits = pass(plan, &set, true, progress)?.fits;
    let stats = set.depot.stats();
    Ok(fits.then_some(stats.node_count + stats.wide_nodes))
}

fn pass(
    plan: &Plan<'_>,
    set: &Set<'_>,
    stop_early: bool,
    progress: &Progress,
) -> Result<Timed, Failure> {
    let barrier = Barrier::new(plan.threads);
    let failed = AtomicBool::new(false);
    let spans = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let (barrier, failed) = (&barrier, &failed);
                scope.spawn(move || {
                    let mut objects = Objects::new(plan.corpus);
                    barrier.wait();
                    // Taken by the workers: the thread that waits for them may wake up late.
                    let start = Instant::now();
                    worker(
                        plan,
                        set,
                        thread,
                        &mut objects,
                        stop_early,
                        failed,
                        progress,
                    );
                    (start, Instant::now())
                })
            })
            .collect();
        let ended = |_| Failure::new("a replaying thread ended early");
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(ended))
            .collect::<Result<Vec<_>, _>>()
    })?;
    let first = spans.iter().map(|span| span.0).min();
    let last = spans.iter().map(|span| span.1).max();
    let seconds = first
        .zip(last)
        .map_or(0.0, |(first, last)| (last - first).as_secs_f64());
    Ok(Timed {
        seconds,
        fits: !failed.into_inner() && set.depot.stats().evicted_nodes == 0,
    })
}

fn worker(
    plan: &Plan<'_>,
    set: &Set<'_>,
    thread: usize,
    objects: &mut Objects,
    stop_early: bool,
    failed: &AtomicBool,
    progress: &Progress,
) {
    for ordinal in 0..plan.event_count() {
        if set.play(plan, objects, thread, ordinal, |_| {}).is_err() {
            // A flag for this process alone: nothing is published with it.
            failed.store(true, Ordering::Relaxed);
        }
        if (ordinal + 1).is_multiple_of(REPORT_EVENTS) {
            progress.add(REPORT_EVENTS);
            if stop_early && (failed.load(Ordering::Relaxed) || set.depot.stats().evicted_nodes > 0)
            {
                failed.store(true, Ordering::Relaxed);
                return;
            }
        }
    }
}
