//! What a look-up must not take for its stack: entries and nodes that a test made to look alike.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;
use crate::config::Config;
use crate::depot::Depot;
use crate::index::Entry;
use crate::layout::Line;

fn with_depot(test: impl Fn(&mut Depot<'_>)) {
    let mut memory = [Line::ZERO; 128];
    let config = Config {
        max_frames: 30,
        ..Config::new(8192)
    };
    test(&mut Depot::new(&mut memory, &config).unwrap());
}

fn frames(count: usize) -> [u64; 30] {
    core::array::from_fn(|at| if at < count { 0x4000 + at as u64 } else { 0 })
}

fn hash_of(depot: &Depot<'_>, stack: &Stack<'_>) -> u64 {
    stack.hash(&depot.hasher)
}

/// Puts an entry with the hash of a stack into its bucket, as if another stack had the same.
fn disguise(depot: &Depot<'_>, hash: u64, cell: usize, slot: u32) {
    let bucket = depot.region.first_bucket(hash as u32).unwrap();
    bucket.cells[cell].store(Entry::new(hash, slot).0, Ordering::Relaxed);
}

fn find(depot: &Depot<'_>, stack: &Stack<'_>) -> Option<u32> {
    let found = depot
        .region
        .find(stack, stack.leaf_level(), hash_of(depot, stack));
    found.map(|found| found.number)
}

#[test]
fn entries_with_the_same_fingerprint_hide_none_behind_them() {
    with_depot(|depot| {
        let other = depot.save(&[9]).unwrap();
        let frames = frames(3);
        let stack = Stack::new(&frames[..3], 30);
        let hash = hash_of(depot, &stack);
        let weak = depot.save(&frames[..3]).unwrap();
        let bucket = depot.region.first_bucket(hash as u32).unwrap();
        bucket
            .cells
            .iter()
            .for_each(|cell| cell.store(0, Ordering::Relaxed));
        for cell in 0..8 {
            disguise(depot, hash, cell, other.slot());
        }
        assert_eq!(find(depot, &stack), None);
        for cell in 0..8 {
            disguise(depot, hash, cell, weak.slot());
            assert_eq!(find(depot, &stack), Some(weak.slot()), "cell {cell}");
            disguise(depot, hash, cell, other.slot());
        }
    });
}

#[test]
fn a_stack_is_not_found_in_a_longer_a_shorter_or_a_cut_one() {
    let frames = frames(25);
    let whole = |count: usize| Stack::new(&frames[..count], 30);
    for (wanted, stored) in [(10, 20), (20, 10), (15, 25), (5, 15), (15, 5), (5, 4)] {
        with_depot(|depot| {
            let weak = depot.save(&frames[..stored]).unwrap();
            disguise(depot, hash_of(depot, &whole(wanted)), 0, weak.slot());
            assert_eq!(find(depot, &whole(wanted)), None, "{wanted} in {stored}");
        });
    }
    with_depot(|depot| {
        let cut = Stack {
            is_cut: true,
            ..whole(10)
        };
        let weak = depot.save(&frames[..10]).unwrap();
        disguise(depot, hash_of(depot, &cut), 0, weak.slot());
        assert_eq!(find(depot, &cut), None);
    });
}

#[test]
fn a_base_is_there_for_as_long_as_its_life() {
    with_depot(|depot| {
        let base = Base {
            number: 3,
            generation: 0,
            hash: 0,
        };
        assert!(depot.region.is_base_there(&Base::ROOT) && depot.region.is_base_there(&base));
        depot.region.slot(3).unwrap().raise_generation();
        assert!(depot.region.is_base_there(&Base::ROOT) && !depot.region.is_base_there(&base));
        let nowhere = Base {
            number: 999,
            ..base
        };
        assert!(!depot.region.is_base_there(&nowhere));
    });
}
