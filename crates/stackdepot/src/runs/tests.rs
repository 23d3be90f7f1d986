//! Stacks in two pieces: saved and copied out as the same stacks in one piece are.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

extern crate std;

use super::*;
use crate::config::Config;
use crate::depot::Depot;
use crate::handle::WeakHandle;
use crate::index::Entry;
use crate::layout::Line;
use std::vec::Vec;

const MOST_FRAMES: usize = 70;
const FILLER: u64 = 0x7f12_0000_0000;

fn config() -> Config {
    Config {
        references: true,
        lease_ticks: 2,
        max_frames: MOST_FRAMES as u32,
        ..Config::new(65536)
    }
}

fn with_depot(config: &Config, test: impl Fn(Depot<'_>)) {
    let mut memory = std::vec![Line::ZERO; config.region_bytes / 64];
    test(Depot::new(&mut memory, config).unwrap());
}

/// Frames that take turns in some windows.
fn frames(count: usize, first: u64, windows: &[u64]) -> Vec<u64> {
    let turns = windows.iter().cycle();
    let frame = |(high, low): (&u64, u64)| high << 32 | (low & 0xffff_ffff);
    turns.zip(first..).map(frame).take(count).collect()
}

/// Windows of which nodes have one, two, four, or are wide.
const WINDOWS: [&[u64]; 5] = [
    &[0x7f12],
    &[0x5555],
    &[0x7f12, 0x5555],
    &[0x7f12, 0xffff_8000, 0xffff_ffff],
    &[1, 2, 3, 4, 5],
];

fn save(depot: &Depot<'_>, words: &[u64], hold: Hold) -> Result<WeakHandle, SaveError> {
    let (outermost, inner) = words.as_chunks().0.split_last().unwrap();
    // A copy, which lies somewhere else.
    let outermost = *outermost;
    depot
        .save_runs(inner, &outermost, hold)
        .map(|saved| saved.weak)
}

#[test]
fn a_stack_in_runs_is_the_stack_in_one_piece() {
    with_depot(&config(), |depot| {
        let holds = [Hold::None, Hold::Reference, Hold::Lease, Hold::Forever];
        for (index, windows) in WINDOWS.iter().enumerate() {
            for (runs, hold) in (1..=MOST_FRAMES / RUN_FRAMES).zip(holds.iter().cycle()) {
                let first = (index * 1000 + runs * 100) as u64;
                let [new, old] = [first, first + 50].map(|low| frames(runs * 10, low, windows));
                let saved = save(&depot, &new, *hold).unwrap();
                assert_eq!(depot.save(&new), Ok(saved), "{new:x?}");
                assert_eq!(Ok(saved), save(&depot, &new, *hold));
                let weak = depot.save_held(&old, *hold).unwrap().weak;
                assert_eq!(save(&depot, &old, *hold), Ok(weak), "{old:x?}");
                assert_eq!(save(&depot, &old, Hold::None), Ok(weak));
            }
        }
        let stats = depot.stats();
        assert_eq!((stats.new_stacks, stats.undone_nodes), (70, 0));
    });
}

#[test]
fn stacks_that_differ_in_a_bit_or_in_a_run_are_different() {
    with_depot(&config(), |depot| {
        let base = frames(30, 0xffff_fff0, WINDOWS[0]);
        let saved = save(&depot, &base, Hold::None).unwrap();
        let shorter = [&base[10..], &base[..20], &base[..10]];
        for other in shorter {
            assert_ne!(save(&depot, other, Hold::None), Ok(saved), "{other:x?}");
        }
        for bit in 0..30 * 64 {
            let mut other = base.clone();
            other[bit / 64] ^= 1 << (bit % 64);
            assert_ne!(save(&depot, &other, Hold::None), Ok(saved), "{bit}");
            assert_eq!(save(&depot, &base, Hold::None), Ok(saved));
        }
    });
}

/// What tells nodes apart must be looked at, not only their hashes: forged entries lead to other nodes.
#[test]
fn an_entry_that_leads_to_another_stack_is_not_followed() {
    with_depot(&config(), |depot| {
        let [stored, wanted] = [100, 200].map(|low| frames(20, low, WINDOWS[0]));
        for differing in 0..20 {
            let mut wanted = wanted.clone();
            wanted[..differing].copy_from_slice(&stored[..differing]);
            wanted[differing + 1..].copy_from_slice(&stored[differing + 1..]);
            let leaf = save(&depot, &stored, Hold::None).unwrap();
            let (outermost, inner) = wanted.as_chunks().0.split_last().unwrap();
            let hash = depot.hasher.runs(inner, outermost);
            let cell = &depot.region.first_bucket(hash as u32).unwrap().cells[home_cell(hash)];
            let entry = Entry::new(hash, leaf.slot());
            cell.store(entry.0, Ordering::Relaxed);
            assert_ne!(save(&depot, &wanted, Hold::None), Ok(leaf), "{differing}");
        }
    });
}

#[test]
fn references_are_counted_and_given_back_by_what_is_left_of_a_handle() {
    with_depot(&config(), |depot| {
        let words = frames(20, 7, WINDOWS[0]);
        let (outermost, inner) = words.as_chunks().0.split_last().unwrap();
        let held = [(); 3].map(|()| depot.save_runs(inner, outermost, Hold::Reference).unwrap());
        let references = || depot.walk().next().unwrap().references;
        assert_eq!(references(), 3);
        let kept = u32::MAX >> 5;
        let bits = held[0].handle.to_bits();
        let wrong = Handle::from_bits((bits ^ 1 << 26) & kept).unwrap();
        depot.put_bits(wrong, kept);
        assert_eq!((references(), depot.stats().stale_puts), (3, 1));
        let extra = Handle::from_bits(bits ^ 0x8000_0000).unwrap();
        for left in [2, 1, 0] {
            depot.put_bits(extra, kept);
            assert_eq!(references(), left);
        }
        depot.put_bits(extra, kept);
        assert_eq!(depot.stats().stale_puts, 2);
    });
}

#[test]
fn what_cannot_be_held_or_is_too_long_is_refused() {
    let off = Config {
        references: false,
        lease_ticks: 0,
        ..config()
    };
    with_depot(&off, |depot| {
        let words = frames(20, 7, WINDOWS[0]);
        for is_stored in [false, true] {
            for hold in [Hold::Reference, Hold::Lease] {
                let refused = save(&depot, &words, hold);
                assert_eq!(refused, Err(SaveError::Disabled), "{is_stored}");
            }
            save(&depot, &words, Hold::None).unwrap();
        }
        let longest = frames(MOST_FRAMES + RUN_FRAMES, 9, WINDOWS[0]);
        assert!(save(&depot, &longest[RUN_FRAMES..], Hold::None).is_ok());
        assert_eq!(save(&depot, &longest, Hold::None), Err(SaveError::Disabled));
    });
}

#[test]
fn a_full_depot_refuses_and_goes_on_when_something_is_given_back() {
    let small = Config {
        region_bytes: 8192,
        ..config()
    };
    with_depot(&small, |depot| {
        let nth = |number: u64| frames(20, number << 8, WINDOWS[0]);
        let mut held = Vec::new();
        let refused = (0..1000).find_map(|number| {
            let saved = save(&depot, &nth(number), Hold::Reference);
            saved.map(|weak| held.push(weak)).err()
        });
        assert_eq!(refused, Some(SaveError::Full));
        assert_eq!(depot.stats().full, 1);
        depot.put(depot.handle_of(held[0]));
        assert!((0..50).any(|_| save(&depot, &nth(2000), Hold::None).is_ok()));
        for (number, weak) in (0..).zip(&held).skip(1) {
            assert_eq!(save(&depot, &nth(number), Hold::None), Ok(*weak));
        }
    });
}

/// The words that fill a stack up, as the test's caller marks them.
fn filler_count(outermost: u64) -> usize {
    if outermost >> 32 == FILLER >> 32 && outermost as u32 <= 10 {
        outermost as usize & 15
    } else {
        0
    }
}

#[test]
fn frames_come_back_without_what_fills_them_up() {
    with_depot(&config(), |depot| {
        for windows in WINDOWS {
            for count in 1..=MOST_FRAMES - RUN_FRAMES {
                let mut words = frames(count, 1000 + count as u64 * 100, windows);
                let stack = words.clone();
                let length = words.len() / RUN_FRAMES * RUN_FRAMES + RUN_FRAMES;
                words.resize(length, FILLER | (length - count) as u64);
                let weak = save(&depot, &words, Hold::Reference).unwrap();
                for room in [0, count - 1, count, count + 1, 70] {
                    let mut out = std::vec![0x5555; room];
                    let handle = depot.handle_of(weak);
                    match depot.fetch_filled(handle, !0, &mut out, filler_count) {
                        Some(fetched) => {
                            assert_eq!(fetched, count);
                            assert_eq!(out[..count], stack);
                        }
                        None => assert!(windows != WINDOWS[0] || room < count),
                    }
                }
                depot.put(depot.handle_of(weak));
            }
        }
    });
}

#[test]
fn a_handle_whose_stack_is_gone_fetches_nothing() {
    let small = Config {
        region_bytes: 8192,
        ..config()
    };
    with_depot(&small, |depot| {
        let nth = |number: u64| frames(20, number << 8, WINDOWS[0]);
        let stack = save(&depot, &nth(0), Hold::None).unwrap();
        let handle = depot.handle_of(stack);
        let fetch = || depot.fetch_filled(handle, !0, &mut [0; 70], |_| 0);
        assert_eq!(fetch(), Some(20));
        for number in 1..1000 {
            let _ = save(&depot, &nth(number), Hold::None);
        }
        assert_eq!(fetch(), None);
    });
}
