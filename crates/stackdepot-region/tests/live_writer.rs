//! Readers of a file that is written all the time see only what was there.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::*;
use stackdepot::ring::EventKind;
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::Gone;

/// Stops the writers also when a check fails.
struct Stop<'s>(&'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads while threads record; answers how many stacks were checked.
fn read_beside_writers(
    file_bytes: u64,
    writer_count: usize,
    block_count: usize,
    snapshot_count: usize,
) -> u64 {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, file_bytes);
    let is_over = AtomicBool::new(false);
    let checked_count = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for shard in 0..writer_count {
            let (writer, is_over) = (&writer, &is_over);
            scope.spawn(move || {
                churn(writer, shard, shard as u64 + 99, block_count, |_| {
                    !is_over.load(Ordering::Relaxed)
                });
            });
        }
        let _stop = Stop(&is_over);
        let file = RegionFile::open(&path).unwrap();
        for _ in 0..snapshot_count {
            let snapshot = file.snapshot().unwrap();
            assert!(snapshot.problems().is_empty(), "{:?}", snapshot.problems());
            let mut damaged = 0;
            let weaks = snapshot.stacks().map(|record| record.weak);
            // Sizes name stacks: see `churn`.
            let of_events = snapshot.events().iter().map(|event| match event.kind {
                EventKind::Alloc => (event.stack, event.size),
                _ => (event.other_stack, event.size),
            });
            let of_blocks = snapshot
                .live_blocks()
                .iter()
                .map(|record| (record.block.stack, record.block.size));
            let named = of_events
                .chain(of_blocks)
                .filter_map(|(weak, size)| Some((weak?, Some(size))));
            for (weak, size) in weaks.map(|weak| (weak, None)).chain(named) {
                match snapshot.stack(weak) {
                    Ok(stack) => {
                        let id = check_frames(&stack.frames);
                        assert!(
                            size.is_none_or(|size| size == u64::from(id) + 1),
                            "the stack of another"
                        );
                        checked_count.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(Gone::Evicted) => {}
                    Err(Gone::Damaged) => damaged += 1,
                }
            }
            assert_eq!(
                damaged, 0,
                "a stack that was there all the time has all its nodes"
            );
        }
    });
    checked_count.into_inner()
}

#[test]
fn every_stack_is_whole_while_a_small_depot_evicts_all_the_time() {
    let checked_count = read_beside_writers(512 << 10, 2, 200, 60);
    assert!(checked_count > 1000, "{checked_count}");
}

#[test]
fn every_stack_is_whole_in_a_large_file() {
    let checked_count = read_beside_writers(8 << 20, 2, 2000, 10);
    assert!(checked_count > 10_000, "{checked_count}");
}

/// The frames are checked by `check_frames`; this checks that it can fail.
#[test]
#[should_panic(expected = "the frames of stack")]
fn a_mixed_stack_would_be_noticed() {
    let (mut one, mut other) = ([0; MOST_DEPTH], [0; MOST_DEPTH]);
    let ids: Vec<u32> = (0..2000)
        .filter(|id| frames_of(*id, &mut [0; MOST_DEPTH]) == 30)
        .take(2)
        .collect();
    let depth = frames_of(ids[0], &mut one);
    frames_of(ids[1], &mut other);
    let mut mixed = one[..depth].to_vec();
    mixed[10..20].copy_from_slice(&other[10..20]);
    check_frames(&mixed);
}
