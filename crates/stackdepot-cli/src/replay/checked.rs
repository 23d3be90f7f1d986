//! The checked pass: after each save the stack is fetched and compared word for word.
//!
//! Key type: [`Counts`]. Every answer of the depot is counted here, by what came back, and not
//! taken from the depot's own statistics.

use std::ops::AddAssign;
use std::sync::Barrier;
use std::thread;

use stackdepot::{FetchError, SaveError, Stats, WeakHandle};

use super::moment;
use super::objects::Objects;
use super::progress::{Progress, REPORT_EVENTS};
use super::stage::{Plan, Set, Stage};
use crate::failure::Failure;

/// Times at which the ring is checked: the end, and 16 on the way.
pub const MOMENT_COUNT: usize = 17;
/// More words than any stack of a corpus has, so that a stack that grew is seen.
const FETCH_WORDS: usize = 128;

/// What the saves and fetches answered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub saves: u64,
    pub fetched: u64,
    pub evicted_before_fetch: u64,
    pub mismatches: u64,
    pub full: u64,
    pub crowded: u64,
    pub saturated: u64,
    pub contended: u64,
    pub ring_expected: u64,
    pub ring_checked: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.saves += other.saves;
        self.fetched += other.fetched;
        self.evicted_before_fetch += other.evicted_before_fetch;
        self.mismatches += other.mismatches;
        self.full += other.full;
        self.crowded += other.crowded;
        self.saturated += other.saturated;
        self.contended += other.contended;
        self.ring_expected += other.ring_expected;
        self.ring_checked += other.ring_checked;
    }
}

/// What a checked pass found.
pub struct Checked {
    pub counts: Counts,
    /// The depot's own figures at the end.
    pub stats: Stats,
    /// Saved stacks that the walk met at the end.
    pub stored_stacks: u64,
}

impl Checked {
    /// Nothing was evicted, refused or contended.
    pub fn is_clean(&self) -> bool {
        let counts = &self.counts;
        counts.full
            + counts.crowded
            + counts.saturated
            + counts.contended
            + self.stats.evicted_nodes
            == 0
    }
}

/// Replays the plan on a fresh depot.
pub fn replay(
    plan: &Plan<'_>,
    stage: &mut Stage,
    depot_bytes: u64,
    progress: &Progress,
) -> Result<Checked, Failure> {
    let set = stage.set(plan, depot_bytes)?;
    progress.begin("checking", plan.event_count() * plan.threads);
    let barrier = Barrier::new(plan.threads);
    let counts = thread::scope(|scope| {
        let workers: Vec<_> = (0..plan.threads)
            .map(|thread| {
                let worker = Worker {
                    plan,
                    set: &set,
                    thread,
                    counts: Counts::default(),
                };
                let barrier = &barrier;
                scope.spawn(move || worker.run(barrier, progress))
            })
            .collect();
        let mut total = Counts::default();
        for worker in workers {
            total += worker
                .join()
                .map_err(|_| Failure::new("a replaying thread ended early"))?;
        }
        Ok(total)
    })?;
    Ok(Checked {
        counts,
        stats: set.depot.stats(),
        stored_stacks: set.depot.walk().count() as u64,
    })
}

/// One replaying thread.
struct Worker<'a> {
    plan: &'a Plan<'a>,
    set: &'a Set<'a>,
    thread: usize,
    counts: Counts,
}

impl Worker<'_> {
    fn run(mut self, barrier: &Barrier, progress: &Progress) -> Counts {
        let mut objects = Objects::new(self.plan.corpus);
        let event_count = self.plan.event_count();
        let mut played = 0;
        for moment in 1..=MOMENT_COUNT {
            let end = event_count * moment / MOMENT_COUNT;
            for ordinal in played..end {
                self.event(&mut objects, ordinal);
                if (ordinal + 1).is_multiple_of(REPORT_EVENTS) {
                    progress.add(REPORT_EVENTS);
                }
            }
            played = end;
            // Nobody plays between the two waits: the ring stands still.
            barrier.wait();
            if self.thread == 0 {
                self.counts += moment::check(self.plan, self.set, played);
            }
            barrier.wait();
        }
        for object in objects.live() {
            self.counts.mismatches +=
                u64::from(self.compare(object.weak, object.stack) != Some(true));
        }
        self.counts
    }

    /// Plays one event, then fetches what it saved.
    fn event(&mut self, objects: &mut Objects, ordinal: usize) {
        let Some(event) = self.plan.event(self.thread, ordinal) else {
            return;
        };
        self.counts.saves += 1;
        let mut broken_holds = 0;
        let saved = self
            .set
            .play(self.plan, objects, self.thread, ordinal, |object| {
                // A held stack must be there until this very put.
                broken_holds += u64::from(self.compare(object.weak, object.stack) != Some(true));
            });
        self.counts.mismatches += broken_holds;
        match saved {
            Ok(weak) => match self.compare(weak, event.stack) {
                Some(true) => self.counts.fetched += 1,
                Some(false) => {
                    self.counts.fetched += 1;
                    self.counts.mismatches += 1;
                }
                None => self.counts.evicted_before_fetch += 1,
            },
            Err(SaveError::Full) => self.counts.full += 1,
            Err(SaveError::Crowded) => self.counts.crowded += 1,
            Err(SaveError::Saturated) => self.counts.saturated += 1,
            Err(SaveError::Contended) => self.counts.contended += 1,
            // No stack of a corpus is empty and the hold is configured: a wrong answer.
            Err(SaveError::Empty | SaveError::Disabled) => self.counts.mismatches += 1,
        }
    }

    fn compare(&self, weak: WeakHandle, stack: u32) -> Option<bool> {
        same_stack(self.set, weak, self.plan.corpus.stack(stack))
    }
}

/// Whether a weak handle names exactly these frames; `None` when its stack was evicted.
pub fn same_stack(set: &Set<'_>, weak: WeakHandle, frames: &[u64]) -> Option<bool> {
    let mut words = [0; FETCH_WORDS];
    match set.depot.fetch(weak, &mut words) {
        Ok(fetched) => Some(!fetched.is_cut && words.get(..fetched.frame_count) == Some(frames)),
        Err(FetchError::Evicted) => None,
    }
}
