//! One publication after another: what the second finds of the first, in whatever state it is.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

extern crate std;

use super::*;
use crate::config::Config;
use crate::depot::Depot;
use crate::layout::Line;

const HASH: u64 = 0x1234_5678_9abc_def0;

fn node(first: u64) -> NewNode<'static> {
    NewNode {
        parent: 0,
        hash: HASH,
        run: padded(&[first, 2]),
        length: 2,
        is_cut: false,
    }
}

fn padded(frames: &[u64]) -> &'static Run {
    std::boxed::Box::leak(std::boxed::Box::new(crate::frame::pad(
        frames,
        frames.len(),
    )))
}

fn with_region(test: impl Fn(&Region<'_>)) {
    let mut memory = [Line::ZERO; 64];
    let config = Config {
        references: true,
        ..Config::new(4096)
    };
    test(&Depot::new(&mut memory, &config).unwrap().region);
}

fn references(region: &Region<'_>, number: u32) -> u64 {
    region.slot(number).unwrap().state_now().references()
}

/// The cell where the entry of a slot is.
fn cell_of<'r>(region: &Region<'r>, number: u32) -> Option<&'r AtomicU64> {
    let mut cells = region.pair(HASH as u32).unwrap().cells();
    cells.find(|cell| Entry(cell.load(Ordering::Relaxed)).slot() == number)
}

#[test]
fn an_equal_node_is_adopted_and_the_new_one_given_back() {
    with_region(|region| {
        let first = region.insert_node(&node(1)).unwrap();
        assert_eq!(region.insert_node(&node(1)), Ok(first));
        assert_eq!(references(region, first), 2);
        let stats = region.stats();
        assert_eq!((stats.new_nodes, stats.undone_nodes), (1, 1));
        let used = region
            .slots
            .iter()
            .filter(|slot| slot.state_now().0 != State::FREE);
        assert_eq!(used.count(), 1);
    });
}

#[test]
fn nodes_that_differ_under_one_hash_are_both_stored() {
    with_region(|region| {
        let first = region.insert_node(&node(1)).unwrap();
        let cut = NewNode {
            is_cut: true,
            ..node(1)
        };
        let shorter = NewNode {
            run: padded(&[1]),
            length: 1,
            ..node(1)
        };
        for other in [node(3), cut, shorter] {
            let number = region.insert_node(&other).unwrap();
            assert_ne!(number, first);
            assert!(cell_of(region, number).is_some() && cell_of(region, first).is_some());
        }
        assert_eq!(references(region, first), 1);
    });
}

#[test]
fn an_equal_entry_that_is_not_committed_is_killed_and_an_unequal_one_left() {
    for (first, is_killed) in [(1, true), (3, false)] {
        with_region(|region| {
            let other = region.insert_node(&node(first)).unwrap();
            let cell = cell_of(region, other).unwrap();
            let entry = Entry(cell.load(Ordering::Relaxed)).tentative();
            // In the first cell and in the last: before and behind the one that will be mine.
            for place in [0, 15] {
                cell.store(0, Ordering::Relaxed);
                let cell = region
                    .pair(HASH as u32)
                    .unwrap()
                    .cells()
                    .nth(place)
                    .unwrap();
                cell.store(entry.0, Ordering::Relaxed);
                let mine = region.insert_node(&node(1)).unwrap();
                assert_ne!(mine, other);
                let left = cell.swap(0, Ordering::Relaxed);
                assert_eq!(left == 0, is_killed, "cell {place}");
                let own = cell_of(region, mine).unwrap();
                assert!(!Entry(own.swap(0, Ordering::Relaxed)).is_tentative());
            }
        });
    }
}

#[test]
fn an_equal_node_that_is_dying_is_stored_anew() {
    with_region(|region| {
        let dying = region.insert_node(&node(1)).unwrap();
        let slot = region.slot(dying).unwrap();
        let state = slot.state_now().0 & !State::STATUS_MASK;
        slot.state.store(state | State::OWNED, Ordering::Relaxed);
        let number = region.insert_node(&node(1)).unwrap();
        assert_ne!(number, dying);
        assert!(cell_of(region, dying).is_some(), "its entry is its owner's");
    });
}

#[test]
fn an_equal_node_with_too_many_references_refuses() {
    with_region(|region| {
        let first = region.insert_node(&node(1)).unwrap();
        let slot = region.slot(first).unwrap();
        let most = (State::REF_LIMIT - 1) * State::REF;
        slot.state.fetch_add(most, Ordering::Relaxed);
        assert_eq!(region.insert_node(&node(1)), Err(SaveError::Saturated));
        assert_eq!(references(region, first), State::REF_LIMIT);
        let used = region
            .slots
            .iter()
            .filter(|slot| slot.state_now().0 != State::FREE);
        assert_eq!(used.count(), 1, "the refused node was given back");
    });
}
