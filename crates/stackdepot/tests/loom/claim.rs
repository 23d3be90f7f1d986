//! Claims of slots, by the hand and by hints: each slot has one owner at a time.

use crate::{assert_held, assert_nothing_is_held, check, config, spawn};
use stackdepot::{Depot, SaveError};

#[test]
fn two_threads_claim_different_free_slots() {
    check(3, 2, config(), |memory| {
        let depot = Depot::of(&memory);
        let other = spawn(&memory, |depot| depot.save_acquire(&[9]));
        let mine = depot.save_acquire(&[7]);
        let theirs = other.join().unwrap();
        assert!(
            mine.is_ok() && theirs.is_ok(),
            "{mine:?}, {theirs:?}: but there is room for both"
        );
        assert_held(depot, mine, &[7]);
        assert_held(depot, theirs, &[9]);
        assert_nothing_is_held(depot, 2);
    });
}

#[test]
fn two_threads_share_the_last_free_slot_and_the_hint() {
    check(3, 1, config(), |memory| {
        let depot = Depot::of(&memory);
        let other = spawn(&memory, |depot| depot.save_acquire(&[9]));
        let mine = depot.save_acquire(&[7]);
        let theirs = other.join().unwrap();
        assert!(mine.is_ok() || theirs.is_ok(), "{mine:?}, {theirs:?}");
        assert!(
            [mine, theirs].iter().all(|answer| matches!(
                answer,
                Ok(_) | Err(SaveError::Full | SaveError::Contended)
            ))
        );
        assert_held(depot, mine, &[7]);
        assert_held(depot, theirs, &[9]);
        assert_nothing_is_held(depot, 1);
    });
}

/// The hint names the parent that just lost its child; two savers follow it.
#[test]
fn two_threads_follow_one_hint_to_different_slots() {
    check(3, 2, config(), |memory| {
        let depot = Depot::of(&memory);
        depot.save(&[1, 2, 3]).unwrap();
        depot.save(&[4]).unwrap();
        let other = spawn(&memory, |depot| depot.save_acquire(&[9]));
        let mine = depot.save_acquire(&[7]);
        let theirs = other.join().unwrap();
        assert_held(depot, mine, &[7]);
        assert_held(depot, theirs, &[9]);
        assert_nothing_is_held(depot, 2);
    });
}
