//! Readers against retire and reuse (`protocols.md` F): a copy is whole or refused.

use crate::{assert_held, assert_nothing_is_held, check, config, frames_at, spawn};
use stackdepot::Depot;

#[test]
fn a_reader_never_sees_a_retired_node_mixed_with_the_next() {
    check(None, 1, config(), |memory| {
        let depot = Depot::of(&memory);
        let weak = depot.save(&[1, 2]).unwrap();
        let writer = spawn(&memory, |depot| depot.save(&[3, 4]));
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [1, 2]);
        }
        let other = writer.join().unwrap().unwrap();
        assert_eq!(frames_at(depot, other), Some(vec![3, 4]));
    });
}

/// Its own stack lies in the slot that another thread retired: the retire is seen with it.
#[test]
fn who_takes_a_slot_that_another_thread_left_sees_it_retired() {
    check(3, 1, config(), |memory| {
        let depot = Depot::of(&memory);
        let weak = depot.save(&[1, 2]).unwrap();
        let other = spawn(&memory, |depot| depot.save(&[3, 4]));
        let mine = depot.save(&[5, 6]);
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [1, 2], "{mine:?}");
        }
        drop(other.join().unwrap());
    });
}

#[test]
fn a_reader_never_sees_a_retired_ancestor() {
    check(3, 2, config(), |memory| {
        let depot = Depot::of(&memory);
        let weak = depot.save(&[1, 2, 3]).unwrap();
        let writer = spawn(&memory, |depot| [depot.save(&[4]), depot.save(&[5])]);
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [1, 2, 3]);
        }
        drop(writer.join().unwrap());
    });
}

/// One thread retires the leaf, and with it the last hold on the parent; this one may take the
/// parent's slot, and must then find the leaf retired.
#[test]
fn who_takes_the_slot_of_a_parent_sees_its_child_retired() {
    check(3, 2, config(), |memory| {
        let depot = Depot::of(&memory);
        let weak = depot.save(&[1, 2, 3]).unwrap();
        let other = spawn(&memory, |depot| depot.save(&[4]));
        let mine = depot.save(&[5]);
        if let Some(frames) = frames_at(depot, weak) {
            assert_eq!(frames, [1, 2, 3], "{mine:?}");
        }
        drop(other.join().unwrap());
    });
}

#[test]
fn a_parent_that_loses_its_child_while_another_is_added_stays() {
    check(3, 2, config(), |memory| {
        let depot = Depot::of(&memory);
        depot.save(&[1, 2, 3]).unwrap();
        let other = spawn(&memory, |depot| depot.save_acquire(&[4]));
        let mine = depot.save_acquire(&[9, 2, 3]);
        let theirs = other.join().unwrap();
        assert_held(depot, mine, &[9, 2, 3]);
        assert_held(depot, theirs, &[4]);
        assert_nothing_is_held(depot, 2);
    });
}

/// A save that finds its stack while it is retired and its place taken by another.
#[test]
fn a_save_never_finds_another_stack_than_its_own() {
    check(3, 1, config(), |memory| {
        let depot = Depot::of(&memory);
        depot.save(&[1, 2]).unwrap();
        let other = spawn(&memory, |depot| depot.save_acquire(&[3, 4]));
        let mine = depot.save_acquire(&[1, 2]);
        let theirs = other.join().unwrap();
        assert_held(depot, mine, &[1, 2]);
        assert_held(depot, theirs, &[3, 4]);
        assert_nothing_is_held(depot, 1);
    });
}
