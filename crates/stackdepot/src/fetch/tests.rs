//! Copies by whole runs and copies frame by frame: both right, at every length of stack and buffer.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

extern crate std;

use super::*;
use crate::config::Config;
use crate::depot::Depot;
use crate::layout::Line;
use std::vec::Vec;

const MOST_FRAMES: usize = 30;
/// What lies in a buffer before.
const UNTOUCHED: u64 = 0x5555;

fn with_depot(test: impl Fn(Depot<'_>)) {
    let mut memory = [Line::ZERO; 256];
    let config = Config {
        max_frames: MOST_FRAMES as u32,
        ..Config::new(16384)
    };
    test(Depot::new(&mut memory, &config).unwrap());
}

/// The same region with and without vector registers.
fn ways<'r>(depot: &Depot<'r>) -> impl Iterator<Item = Region<'r>> {
    let without = Region {
        avx2: None,
        ..depot.region
    };
    [depot.region, without].into_iter()
}

/// Frames that take turns in some windows.
fn frames(count: usize, windows: &[u64]) -> Vec<u64> {
    let turns = windows.iter().cycle();
    turns
        .zip(0xffff_fff0..)
        .map(|(high, low)| high << 32 | (low & 0xffff_ffff))
        .take(count)
        .collect()
}

#[test]
fn every_stack_comes_back_whole_or_as_far_as_the_buffer_goes() {
    // Five windows in a run are stored wide; the first two are the table's first.
    let windows: [&[u64]; 8] = [
        &[0x7f12],
        &[0x5555],
        &[0x7f12, 0x5555],
        &[0xffff_8000],
        &[0x7f12, 0xffff_8000, 0xffff_ffff],
        &[0, 0x5555, 0xffff_8000, 0x7f12],
        &[1, 2, 3, 4, 5],
        &[0x5555, 0x7f12, 0x5555],
    ];
    with_depot(|depot| {
        for windows in windows {
            for count in 1..=MOST_FRAMES + 1 {
                let stack = frames(count, windows);
                let weak = depot.save(&stack).unwrap();
                let stack = &stack[..count.min(MOST_FRAMES)];
                for region in ways(&depot) {
                    for room in 0..MOST_FRAMES + RUN_FRAMES {
                        let mut out = [UNTOUCHED; MOST_FRAMES + 2 * RUN_FRAMES];
                        let fetched = region.fetch(weak, &mut out[..room]).unwrap();
                        let said = (fetched.frame_count, fetched.is_cut);
                        assert_eq!(said, (stack.len(), count > MOST_FRAMES));
                        let copied = room.min(stack.len());
                        assert_eq!(
                            out[..copied],
                            stack[..copied],
                            "{count} {room} {windows:x?}"
                        );
                        assert!(out[room..].iter().all(|word| *word == UNTOUCHED));
                    }
                }
            }
        }
    });
}

#[test]
fn what_does_not_hang_together_is_not_copied() {
    with_depot(|depot| {
        let weak = depot.save(&frames(15, &[0])).unwrap();
        let leaf = depot.region.slot(weak.slot()).unwrap();
        let link = leaf.link.load(Ordering::Relaxed);
        let parent = depot.region.slot(link as u32).unwrap();
        for region in ways(&depot) {
            let read = || {
                let fetched = region.fetch(weak, &mut [0; MOST_FRAMES]);
                fetched.map(|fetched| fetched.frame_count)
            };
            let with = |slot: &Slot, status: u64, length: u64| {
                let state = status | length << State::LENGTH_SHIFT;
                let before = slot.state.swap(state, Ordering::Relaxed);
                let answer = read();
                slot.state.store(before, Ordering::Relaxed);
                answer
            };
            assert_eq!(read(), Ok(15));
            for status in 0..=State::STATUS_MASK {
                let is_live = State(status).is_live();
                for length in 0..16 {
                    let is_right = is_live && (1..=10).contains(&length);
                    let found = is_right.then_some(10 + length as usize);
                    assert_eq!(with(leaf, status, length).ok(), found, "{status} {length}");
                    let found = (is_live && length == 10).then_some(15);
                    assert_eq!(
                        with(parent, status, length).ok(),
                        found,
                        "{status} {length}"
                    );
                }
            }
            for wrong in [u64::from(weak.slot()), 999] {
                leaf.link.store(link >> 32 << 32 | wrong, Ordering::Relaxed);
                assert!(read().is_err(), "a chain that goes round or ends nowhere");
            }
            leaf.link.store(link, Ordering::Relaxed);
            let next = WeakHandle::new(weak.slot(), weak.generation() + 1);
            for gone in [next, WeakHandle::new(0, 0), WeakHandle::new(999, 0)] {
                assert!(region.fetch(gone, &mut [0; MOST_FRAMES]).is_err());
            }
        }
    });
}

#[test]
fn a_chain_of_more_than_the_most_frames_is_torn() {
    with_depot(|depot| {
        let weak = depot.save(&frames(25, &[0])).unwrap();
        for region in ways(&depot) {
            for most in 1..=MOST_FRAMES as u32 {
                let region = Region {
                    max_frames: most,
                    ..region
                };
                let is_read = region.fetch(weak, &mut [0; MOST_FRAMES]).is_ok();
                assert_eq!(is_read, most >= 25, "{most} frames");
            }
        }
    });
}
