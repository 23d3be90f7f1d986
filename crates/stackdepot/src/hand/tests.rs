//! What one claim looks at, in which order, and when it gives up, on slots whose states a test wrote;
//! and how long that lets a stack live.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

extern crate std;

use super::*;
use crate::config::Config;
use crate::depot::Depot;
use crate::layout::Line;
use crate::state::State;
use std::collections::HashSet;
use std::vec::Vec;
use std::{thread, vec};

/// A saved stack's leaf that nobody holds; its index entry is missing, which no claim minds.
const UNHELD: u64 = State::LIVE | State::SAVED_BIT | 1 << State::LENGTH_SHIFT;
const RECENT: u64 = UNHELD | State::VISITED;
const HELD: u64 = UNHELD + State::REF;

/// The slot that a claim got.
fn number(claimed: Option<Claimed>) -> Option<u32> {
    claimed.map(|claimed| claimed.number)
}

fn claim(region: &Region<'_>) -> Result<u32, SaveError> {
    region.claim().map(|claimed| claimed.number)
}

/// A depot of that many slots, all of which are in that state.
fn with_slots(slot_count: u32, state: u64, lease_ticks: u32, test: impl Fn(&Region<'_>)) {
    let bytes = crate::config::Geometry::of_slots(slot_count, 0).region_bytes;
    let mut memory = vec![Line::ZERO; bytes / 64];
    let config = Config {
        references: true,
        lease_ticks,
        ..Config::new(bytes)
    };
    let depot = Depot::new(&mut memory, &config).unwrap();
    assert_eq!(depot.region.geometry.slot_count, slot_count);
    set_all(&depot.region, state);
    test(&depot.region);
}

fn set_all(region: &Region<'_>, state: u64) {
    for slot in region.slots {
        slot.state.store(state, Ordering::Relaxed);
    }
}

fn set(region: &Region<'_>, number: u32, state: u64) {
    let slot = region.slot(number).unwrap();
    slot.state.store(state, Ordering::Relaxed);
}

/// Puts the hand somewhere, so many slots behind its last success.
fn stand(region: &Region<'_>, hand: u64, futile: u64) {
    region.header.hand.store(hand, Ordering::Relaxed);
    region
        .header
        .progress
        .store(hand - futile, Ordering::Relaxed);
}

fn hand(region: &Region<'_>) -> u64 {
    region.header.hand.load(Ordering::Relaxed)
}

fn progress(region: &Region<'_>) -> u64 {
    region.header.progress.load(Ordering::Relaxed)
}

#[test]
fn a_batch_is_the_next_slots_each_once_around_the_end() {
    for slot_count in [3, 5, 16, 20, 37] {
        with_slots(slot_count, State::OWNED, 0, |region| {
            let (count, batch) = (u64::from(slot_count), BATCH.min(slot_count.into()));
            for (start, free) in
                (0..3 * count).flat_map(|start| (1..=slot_count).map(move |free| (start, free)))
            {
                set(region, free, State::FREE);
                stand(region, start, 0);
                let distance = (u64::from(free) - 1 + 3 * count - start) % count;
                let found = number(region.claim_from(start, Wanted::FreeOrUnheld));
                if distance < batch {
                    assert_eq!(found, Some(free));
                    assert_eq!(hand(region), start + distance + 1);
                    let marked = start + distance + 1;
                    // Marks of the first lap count for nothing.
                    assert_eq!(
                        progress(region),
                        if marked > count { marked } else { start }
                    );
                } else {
                    assert_eq!((found, hand(region)), (None, start + batch));
                    assert_eq!(progress(region), start);
                }
                set(region, free, State::OWNED);
            }
        });
    }
}

#[test]
fn nothing_is_evicted_before_the_hand_has_seen_every_slot() {
    with_slots(20, UNHELD, 0, |region| {
        assert!(region.claim_from(4, Wanted::FreeOrUnheld).is_none());
        let found = number(region.claim_from(17, Wanted::FreeOrUnheld));
        assert_eq!(found, Some(1), "the slot after the last");
    });
}

#[test]
fn a_hand_that_others_moved_stays_where_they_brought_it() {
    with_slots(100, State::OWNED, 0, |region| {
        stand(region, 300, 0);
        assert!(region.claim_from(200, Wanted::FreeOrUnheld).is_none());
        assert_eq!(hand(region), 300);
    });
}

#[test]
fn a_claim_takes_its_steps_and_no_more() {
    let slot_count = CLAIM_STEPS as u32 + 5000;
    with_slots(slot_count, HELD, 0, |region| {
        stand(region, slot_count.into(), 0);
        assert_eq!(claim(region), Err(SaveError::Contended));
        assert_eq!(hand(region), u64::from(slot_count) + CLAIM_STEPS);
    });
}

#[test]
fn recency_is_respected_for_the_patient_steps_of_one_lap() {
    with_slots(1000, UNHELD, 0, |region| {
        stand(region, 1000, 0);
        assert_eq!(claim(region), Ok(1), "what was not used has no chance");
    });
    // Its own steps, where others find something all the time, and those of all.
    for progress in [1000, 100_000] {
        with_slots(1000, RECENT, 0, |region| {
            region.header.hand.store(1000, Ordering::Relaxed);
            region.header.progress.store(progress, Ordering::Relaxed);
            assert_eq!(claim(region), Ok(PATIENT_STEPS as u32 + 1));
        });
    }
    for (futile, first_taken) in [(0, 97), (84, 17), (85, 1), (100, 1)] {
        with_slots(100, RECENT, 0, |region| {
            stand(region, 200, futile);
            assert_eq!(claim(region), Ok(first_taken), "{futile} futile steps");
        });
    }
}

#[test]
fn full_is_proven_by_a_lap_behind_the_patient_steps() {
    // Where it is proven one more batch is looked at, else a batch for each look before.
    for (slot_count, futile, batches) in [
        (100, 199, 2),
        (100, 200, 1),
        (100, 250, 1),
        (2000, 2511, 2),
        (2000, 2512, 1),
    ] {
        with_slots(slot_count, HELD, 0, |region| {
            let start = 3 * u64::from(slot_count);
            stand(region, start, futile);
            assert_eq!(claim(region), Err(SaveError::Full));
            assert_eq!(
                hand(region),
                start + batches * BATCH,
                "{futile} futile steps"
            );
        });
    }
    // The first lap proves nothing.
    for (hand_at, batches) in [(299, 2), (300, 1)] {
        with_slots(100, HELD, 0, |region| {
            stand(region, hand_at, hand_at);
            assert_eq!(claim(region), Err(SaveError::Full));
            assert_eq!(hand(region), hand_at + batches * BATCH);
        });
    }
}

#[test]
fn what_was_released_is_found_though_full_is_proven() {
    with_slots(100, HELD, 0, |region| {
        set(region, 5, UNHELD);
        stand(region, 300, 200);
        assert_eq!(claim(region), Ok(5), "in the next batch");
        for cell in &region.header.hints {
            set(region, 50, State::FREE);
            cell.store(50, Ordering::Relaxed);
            stand(region, 300, 200);
            assert_eq!(claim(region), Ok(50), "behind any thread's hint");
            assert_eq!(cell.load(Ordering::Relaxed), 0);
        }
    });
}

#[test]
fn the_mark_of_progress_only_rises_and_a_release_puts_it_a_batch_ahead() {
    with_slots(100, HELD, 0, |region| {
        stand(region, 300, 0);
        region.mark_progress(299);
        assert_eq!(progress(region), 300);
        region.mark_progress(301);
        assert_eq!(progress(region), 301);
        region.note_release();
        assert_eq!(progress(region), 300 + BATCH);
    });
}

#[test]
fn hints_take_turns_in_a_line_and_one_that_is_pushed_out_counts_as_a_release() {
    with_slots(100, HELD, 0, |region| {
        stand(region, 300, 300);
        for number in 1..=16 {
            region.hint(number);
        }
        assert_eq!(progress(region), 0, "nobody lost a hint");
        let mut hints: Vec<u32> = region
            .shard()
            .iter()
            .map(|cell| cell.load(Ordering::Relaxed))
            .collect();
        hints.sort_unstable();
        assert!(hints.into_iter().eq(1..=16));
        region.hint(17);
        assert_eq!(progress(region), 300 + BATCH);
    });
}

#[test]
fn a_hint_is_followed_once_and_counts_as_a_release_if_the_stack_is_wanted() {
    for (state, noted) in [(UNHELD, 300 + BATCH), (HELD, 0)] {
        with_slots(100, HELD, 0, |region| {
            stand(region, 300, 300);
            set(region, 9, state);
            region.hint(9);
            assert!(
                region.claim_hinted(region.shard()).is_none(),
                "a saved stack"
            );
            assert_eq!(progress(region), noted);
            assert!(
                region
                    .shard()
                    .iter()
                    .all(|cell| cell.load(Ordering::Relaxed) == 0)
            );
        });
    }
}

#[test]
fn a_claim_looks_behind_its_hints_first_but_in_the_first_lap() {
    with_slots(100, State::FREE, 0, |region| {
        region.hint(9);
        assert_eq!(claim(region), Ok(1), "there hardly are any");
        stand(region, 100, 0);
        assert_eq!(claim(region), Ok(9));
        region.hint(31);
        region.hint(77);
        let mut hinted = [claim(region).unwrap(), claim(region).unwrap()];
        hinted.sort_unstable();
        assert_eq!(hinted, [31, 77]);
        set(region, 1, State::FREE);
        assert_eq!(claim(region), Ok(1), "then where the hand stands");
    });
}

#[test]
fn in_the_first_lap_a_slot_that_is_taken_is_passed() {
    with_slots(100, State::FREE, 0, |region| {
        set(region, 1, State::OWNED);
        assert_eq!(claim(region), Ok(2));
        assert_eq!(claim(region), Ok(3));
        assert_eq!(hand(region), 3);
    });
}

#[test]
fn threads_spread_over_whole_lines_of_hints() {
    with_slots(100, HELD, 0, |region| {
        let start_of_shard = || {
            let shard = region.shard();
            assert_eq!(shard.len(), SHARD_HINTS);
            shard.as_ptr().addr() - region.header.hints.as_ptr().addr()
        };
        // All alive at once, so that each has a stack of its own.
        let together = std::sync::Barrier::new(32);
        let starts: HashSet<usize> = thread::scope(|scope| {
            let spawn = |_| {
                scope.spawn(|| {
                    together.wait();
                    start_of_shard()
                })
            };
            let threads: Vec<_> = (0..32).map(spawn).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap())
                .collect()
        });
        let lines = (0..HINT_COUNT / SHARD_HINTS).map(|line| line * SHARD_HINTS * 4);
        assert_eq!(starts, lines.collect());
    });
}

const SLOTS: u32 = 22;

/// Of so many slots.
const fn config(lease_ticks: u32) -> Config {
    Config {
        references: true,
        lease_ticks,
        ..Config::new(3072)
    }
}

/// Saves of new stacks until one is no longer stored.
fn saves_until_evicted(depot: &Depot<'_>, stack: &[u64]) -> u32 {
    let weak = depot.save(stack);
    let is_stored = || weak.is_ok_and(|weak| depot.fetch(weak, &mut [0; 32]).is_ok());
    let mut count = 0;
    while is_stored() {
        count += 1;
        assert!(depot.save(&[0x1000 + u64::from(count)]).is_ok());
    }
    count
}

#[test]
fn a_stack_lives_a_lap_and_a_used_one_two_more() {
    for lease_ticks in [0, 1] {
        let mut memory = [Line::ZERO; 48];
        let depot = Depot::new(&mut memory, &config(lease_ticks)).unwrap();
        assert_eq!(depot.region.geometry.slot_count, SLOTS);
        assert_eq!(saves_until_evicted(&depot, &[1]), SLOTS);
        depot.save(&[2]).unwrap();
        // Two laps of all others, then one that ends here.
        assert_eq!(saves_until_evicted(&depot, &[2]), 3 * SLOTS - 2);
    }
}

#[test]
fn what_is_born_just_before_the_hand_gets_a_chance() {
    let mut memory = [Line::ZERO; 48];
    let depot = Depot::new(&mut memory, &config(0)).unwrap();
    let hand = &depot.region.header.hand;
    for (hand_at, number, is_near) in [
        (22, 1, true),
        (22, 11, true),
        (22, 12, false),
        (22, 22, false),
        (43, 22, true),
        (43, 10, true),
        (43, 11, false),
        (43, 21, false),
    ] {
        hand.store(hand_at, Ordering::Relaxed);
        let chance = depot.region.chance_at_birth(number);
        assert_eq!(chance == State::CHANCE, is_near, "{hand_at} {number}");
    }
}

#[test]
fn what_is_held_keeps_its_use() {
    let mut memory = [Line::ZERO; 48];
    let depot = Depot::new(&mut memory, &config(0)).unwrap();
    let held = depot.save_acquire(&[1]).unwrap();
    depot.save(&[1]).unwrap();
    for number in 0..200 {
        depot.save(&[0x1000 + number]).unwrap();
    }
    let state = depot.region.slot(held.weak.slot()).unwrap().state_now();
    assert!(state.has(State::VISITED) && !state.has(State::CHANCE));
}
