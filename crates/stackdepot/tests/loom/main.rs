//! Loom models of the core's protocols: every interleaving and every value that the memory
//! model lets a load return, on two buckets of two cells and one to four slots.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom -p stackdepot`, or
//! `cargo xtask loom` for these and those of the ring and the live table.
//! `cargo xtask ordering-mutants` shows that they see each ordering of the core.
//!
//! A model is kept small by doing less in each thread, never by a bound below 3: what is said
//! about bounds here counts involuntary switches, `None` means all of them.
#![cfg(loom)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "models stop where they fail"
)]

mod claim;
mod hold;
mod publish;
mod read;
mod wide;

use loom::sync::Arc;
use loom::thread::JoinHandle;
use stackdepot::{Config, Depot, Held, Memory, SaveError, WeakHandle};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// Counted references, no leases, no payload.
fn config() -> Config {
    Config {
        references: true,
        lease_ticks: 0,
        payload_words: 0,
        ..Config::new(0)
    }
}

/// Runs a model in every way that the preemption bound allows, and says how many those were.
fn check(
    preemption_bound: impl Into<Option<usize>>,
    slot_count: u32,
    config: Config,
    model: impl Fn(Arc<Memory>) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemption_bound.into();
    builder.max_branches = 20_000;
    let (count, started) = (std::sync::Arc::new(AtomicUsize::new(0)), Instant::now());
    let counted = count.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model(Arc::new(Memory::new(slot_count, &config)));
    });
    println!(
        "{} executions in {:.1} s",
        count.load(Ordering::Relaxed),
        started.elapsed().as_secs_f32()
    );
}

/// Starts a thread that works on the same depot.
fn spawn<T: 'static>(
    memory: &Arc<Memory>,
    work: impl FnOnce(Depot<'_>) -> T + 'static,
) -> JoinHandle<T> {
    let memory = memory.clone();
    loom::thread::spawn(move || work(Depot::of(&memory)))
}

fn frames_at(depot: Depot<'_>, weak: WeakHandle) -> Option<Vec<u64>> {
    let mut frames = [0; 4];
    let fetched = depot.fetch(weak, &mut frames).ok()?;
    Some(frames.into_iter().take(fetched.frame_count).collect())
}

/// A stack that was saved with a reference is there, whole, until the put.
fn assert_held(depot: Depot<'_>, held: Result<Held, SaveError>, frames: &[u64]) {
    if let Ok(held) = held {
        assert_eq!(
            frames_at(depot, held.weak).as_deref(),
            Some(frames),
            "{held:?} is held, but not there"
        );
        depot.put(held.handle);
    }
}

/// Nobody holds anything any more: so every slot can be taken by a held stack of its own.
fn assert_nothing_is_held(depot: Depot<'_>, slot_count: u64) {
    for number in 0..slot_count {
        let frame = 100 + number;
        // The first attempt may end at second chances.
        let held = depot
            .save_acquire(&[frame])
            .or_else(|_| depot.save_acquire(&[frame]));
        assert!(
            held.is_ok(),
            "{} of {slot_count} slots are leaked: {held:?}",
            slot_count - number
        );
    }
}
