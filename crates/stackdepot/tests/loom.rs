//! Loom models of the core's protocols, each on two or three slots and two buckets of two cells.
//!
//! `RUSTFLAGS="--cfg loom" cargo test --release --test loom -p stackdepot`
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "models stop where they fail")]

use loom::sync::Arc;
use stackdepot::{Config, Depot, Memory, SaveError, WeakHandle};

fn config() -> Config {
    Config { references: true, lease_ticks: 0, payload_words: 0, ..Config::new(0) }
}

fn check(preemptions: usize, slot_count: u32, model: impl Fn(Arc<Memory>) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 20_000;
    // Only the model of ancestors is cut short by this, after the first 10^5 or so executions.
    builder.max_duration = Some(std::time::Duration::from_secs(60));
    builder.check(move || model(Arc::new(Memory::new(slot_count, &config()))));
}

fn frames_at(depot: Depot<'_>, weak: WeakHandle) -> Option<Vec<u64>> {
    let mut frames = [0; 4];
    let fetched = depot.fetch(weak, &mut frames).ok()?;
    Some(frames.into_iter().take(fetched.frame_count).collect())
}

#[test]
fn two_threads_that_save_the_same_stack_get_the_same_name() {
    check(2, 3, |memory| {
        let other = loom::thread::spawn({
            let memory = memory.clone();
            move || Depot::of(&memory).save_acquire(&[7])
        });
        let mine = Depot::of(&memory).save_acquire(&[7]);
        let theirs = other.join().unwrap();
        match (mine, theirs) {
            (Ok(mine), Ok(theirs)) => assert_eq!(mine, theirs, "stored twice"),
            (mine, theirs) => {
                let is_refusal = |answer| matches!(answer, Err(SaveError::Contended | SaveError::Full));
                assert!(mine.is_ok() || is_refusal(mine));
                assert!(theirs.is_ok() || is_refusal(theirs));
            }
        }
    });
}

/// Equal publishers race for the same free cell, and coherence of that one word decides; the
/// total fence is needed when one of them finds an earlier cell that was just freed. So here
/// an unrelated stack sits in the first cell, and one of the savers has to evict it. (Which
/// stacks share a first bucket is the hash's secret: four are tried.)
#[test]
fn two_threads_get_the_same_name_while_an_earlier_cell_becomes_free() {
    for unrelated in [8, 9, 10, 11] {
        check(1, 2, move |memory| {
            Depot::of(&memory).save(&[unrelated]).unwrap();
            let other = loom::thread::spawn({
                let memory = memory.clone();
                move || Depot::of(&memory).save_acquire(&[7])
            });
            let mine = Depot::of(&memory).save_acquire(&[7]);
            if let (Ok(mine), Ok(theirs)) = (mine, other.join().unwrap()) {
                assert_eq!(mine, theirs, "stored twice");
            }
        });
    }
}

#[test]
fn a_stack_that_was_acquired_is_not_retired() {
    check(3, 1, |memory| {
        let weak = Depot::of(&memory).save(&[7]).unwrap();
        Depot::of(&memory).advance(1);
        let evicter = loom::thread::spawn({
            let memory = memory.clone();
            move || Depot::of(&memory).save(&[9])
        });
        let depot = Depot::of(&memory);
        let held = depot.acquire(weak);
        if held.is_ok() {
            assert_eq!(frames_at(depot, weak), Some(vec![7]), "evicted while held");
        }
        let other = evicter.join().unwrap();
        if held.is_ok() {
            assert_eq!(frames_at(depot, weak), Some(vec![7]), "evicted while held");
            depot.put(held.unwrap());
        } else {
            assert_eq!(frames_at(depot, other.unwrap()), Some(vec![9]));
        }
        // No count is left behind: the slot can be used again, twice over.
        assert!(depot.save(&[11]).is_ok() || depot.save(&[11]).is_ok());
    });
}

#[test]
fn a_reader_never_sees_a_retired_node_mixed_with_the_next() {
    check(3, 1, |memory| {
        let weak = Depot::of(&memory).save(&[1, 2]).unwrap();
        let writer = loom::thread::spawn({
            let memory = memory.clone();
            move || Depot::of(&memory).save(&[3, 4])
        });
        let depot = Depot::of(&memory);
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [1, 2]);
        }
        let other = writer.join().unwrap().unwrap();
        assert_eq!(frames_at(depot, other), Some(vec![3, 4]));
    });
}

#[test]
fn a_reader_never_sees_a_retired_ancestor() {
    check(1, 2, |memory| {
        let weak = Depot::of(&memory).save(&[1, 2, 3]).unwrap();
        let writer = loom::thread::spawn({
            let memory = memory.clone();
            move || {
                let _ = Depot::of(&memory).save(&[4, 5, 6]);
            }
        });
        if let Some(frames) = frames_at(Depot::of(&memory), weak) {
            assert_eq!(frames, [1, 2, 3]);
        }
        writer.join().unwrap();
    });
}
