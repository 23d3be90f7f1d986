//! Tests of the hit: every way of this processor finds what the portable way stored.

extern crate std;

use std::vec::Vec;

use super::*;
use crate::config::Config;
use crate::depot::Depot;
use crate::frame::pad;
use crate::layout::{BUCKET_CELLS, Line};
use crate::onto::Ancestor;
use crate::sync::Ordering;

/// Upper halves that a test's frames take turns in.
const ALL_HIGHS: [&[u64]; 5] = [
    &[0],
    &[0x7f12],
    &[0x5555, 0x7f12],
    &[1, 2, 3],
    &[9, 8, 7, 6],
];

/// What each way of this processor finds.
fn finds(depot: &Depot<'_>, frames: &[u64]) -> Vec<Option<WeakHandle>> {
    let aes = depot.hasher.aes.unwrap();
    let own = has_more_windows(&depot.region);
    aes.ways()
        .map(|way| {
            // SAFETY: the processor has what `way` says.
            let found = unsafe {
                match (way.is_wide, own) {
                    (true, true) => find::<true, true>(&depot.region, &depot.hasher, frames),
                    (true, false) => find::<true, false>(&depot.region, &depot.hasher, frames),
                    (false, true) => find::<false, true>(&depot.region, &depot.hasher, frames),
                    (false, false) => find::<false, false>(&depot.region, &depot.hasher, frames),
                }
            };
            found.ok().map(|found| found.weak())
        })
        .collect()
}

fn stack(highs: &[u64], length: usize) -> Vec<u64> {
    let frame = |place: usize| highs[place % highs.len()] << 32 | (place as u64 * 0x1_0007 + 5);
    (0..length).map(frame).collect()
}

#[test]
fn every_error_comes_back_from_two_registers() {
    for (number, error) in ERRORS.into_iter().enumerate() {
        assert_eq!(error as usize, number);
        assert_eq!(Answer::from(Err(error)).result().err(), Some(error));
    }
}

/// Stores stacks of one to forty frames the portable way and hands each to the test.
fn with_stored(highs: &[u64], test: impl Fn(&Depot<'_>, &[u64], WeakHandle)) {
    if Aes::detect().is_none() {
        return;
    }
    let mut memory = std::vec![Line::ZERO; 4096];
    let depot = Depot::new(&mut memory, &Config::new(4096 * 64)).unwrap();
    for length in 1..=40 {
        let frames = stack(highs, length);
        let saved = depot.region.save(&depot.hasher, &frames, Hold::None);
        test(&depot, &frames, saved.unwrap().weak);
    }
}

#[test]
fn every_way_finds_the_stack_and_none_that_differs_in_one_bit() {
    for highs in ALL_HIGHS {
        with_stored(highs, |depot, frames, weak| {
            assert!(
                finds(depot, frames)
                    .iter()
                    .all(|found| *found == Some(weak))
            );
            assert_eq!(depot.save(frames), Ok(weak));
            for (place, bit) in
                (0..frames.len()).flat_map(|place| (0..64).map(move |bit| (place, bit)))
            {
                let mut other = frames.to_vec();
                other[place] ^= 1 << bit;
                assert!(
                    finds(depot, &other).iter().all(Option::is_none),
                    "{place} {bit}"
                );
            }
        });
    }
}

/// Compares the chain that ends in a leaf with frames, whatever their hash.
fn is_chain_of(depot: &Depot<'_>, leaf: WeakHandle, frames: &[u64]) -> bool {
    let (leaf_rest, outer) = frames[1..].as_rchunks::<RUN_FRAMES>();
    let length = leaf_rest.len() + 1;
    let region = &depot.region;
    // SAFETY: `with_stored` found AVX2; there are `length` frames.
    unsafe {
        let run = load_partial(frames, length);
        let found = if has_more_windows(region) {
            chain::compare_stack::<true>(
                region,
                leaf.slot(),
                (&run, length),
                outer,
                (0, State::SAVED_BIT),
            )
        } else {
            chain::compare_stack::<false>(
                region,
                leaf.slot(),
                (&run, length),
                outer,
                (0, State::SAVED_BIT),
            )
        };
        found.is_some()
    }
}

#[test]
fn a_chain_equals_its_stack_and_none_that_differs_in_one_bit_or_in_length() {
    for highs in ALL_HIGHS {
        with_stored(highs, |depot, frames, weak| {
            assert!(is_chain_of(depot, weak, frames));
            for (place, bit) in
                (0..frames.len()).flat_map(|place| (0..64).map(move |bit| (place, bit)))
            {
                let mut other = frames.to_vec();
                other[place] ^= 1 << bit;
                assert!(!is_chain_of(depot, weak, &other), "{place} {bit}");
                // The same difference twice is no less of one.
                for second in (0..frames.len()).filter(|second| *second != place) {
                    let mut other = other.clone();
                    other[second] ^= 1 << bit;
                    assert!(!is_chain_of(depot, weak, &other), "{place} {second} {bit}");
                }
            }
            // Padded, it is the same in all but its length.
            let longer: Vec<u64> = frames.iter().copied().chain([frames[0] & HIGH]).collect();
            let shorter = &frames[..frames.len() - 1];
            assert!(!is_chain_of(depot, weak, &longer));
            assert!(shorter.is_empty() || !is_chain_of(depot, weak, shorter));
        });
    }
}

#[test]
fn cut_wide_torn_and_unsaved_chains_equal_no_stack() {
    with_stored(&[0x7f12], |depot, frames, weak| {
        let runs = frames.len().div_ceil(RUN_FRAMES);
        let mut slot = depot.region.slot(weak.slot()).unwrap();
        for above in 0..runs {
            let saved = if above == 0 { State::SAVED_BIT } else { 0 };
            for bit in [
                State::CUT,
                State::WIDE,
                State::LIVE,
                1 << State::LENGTH_SHIFT,
                saved,
            ] {
                slot.state.fetch_xor(bit, Ordering::Relaxed);
                assert_eq!(
                    is_chain_of(depot, weak, frames),
                    bit == 0,
                    "{above} {bit:x}"
                );
                slot.state.fetch_xor(bit, Ordering::Relaxed);
            }
            let parent = slot.link.load(Ordering::Relaxed) as u32;
            slot = depot.region.slot(parent).unwrap_or(slot);
        }
    });
}

#[test]
fn every_way_finds_a_stack_in_any_cell_of_either_bucket_and_knows_that_others_are_absent() {
    if Aes::detect().is_none() {
        return;
    }
    let mut memory = std::vec![Line::ZERO; 4096];
    let depot = Depot::new(&mut memory, &Config::new(4096 * 64)).unwrap();
    let (mut in_first, mut in_second) = ([0; BUCKET_CELLS], [0; BUCKET_CELLS]);
    // As many as there are slots: buckets fill, and some stacks go to their second one.
    for number in 1..=depot.stats().slot_count {
        let weak = depot.save(&[number]).unwrap();
        assert!(
            finds(&depot, &[number])
                .iter()
                .all(|found| *found == Some(weak))
        );
        let start = depot.hasher.start(false);
        let hash = depot.hasher.stack(start, &[], &pad(&[number], 1), 1);
        let pair = depot.region.pair(hash as u32).unwrap();
        for (bucket, counts) in [(pair.first, &mut in_first), (pair.second, &mut in_second)] {
            let leads_there = |cell: &usize| bucket.entry(*cell).slot() == weak.slot();
            if let Some(cell) = (0..BUCKET_CELLS).find(leads_there) {
                counts[cell] += 1;
            }
        }
        let absent = [number | 1 << 40];
        // SAFETY: as in `finds`.
        let found = unsafe { find::<false, true>(&depot.region, &depot.hasher, &absent) };
        let hash = depot.hasher.stack(start, &[], &pad(&absent, 1), 1);
        let parent_hash = start;
        assert_eq!(found.err(), Some(Miss::Absent { hash, parent_hash }));
    }
    assert!(in_first.iter().chain(&in_second).all(|count| *count > 0));
}

/// Tokens of the full nodes of a stack, from a save of the whole.
fn tokens(depot: &Depot<'_>, frames: &[u64]) -> Vec<Ancestor> {
    let mut trail = [None; 4];
    let saved = depot.save_onto(None, frames, Hold::None, &mut trail);
    saved.unwrap();
    trail.into_iter().flatten().collect()
}

#[test]
fn a_stack_is_found_below_its_deepest_token_and_none_that_differs_inside_of_it() {
    for highs in ALL_HIGHS {
        with_stored(highs, |depot, frames, weak| {
            let aes = depot.hasher.aes.unwrap();
            let find = |token: &Ancestor, frames: &[u64], hold| {
                let (region, hasher) = (&depot.region, &depot.hasher);
                let saved = save_onto(aes, region, hasher, token, frames, hold)?;
                Some(saved.map(|saved| saved.weak))
            };
            for token in tokens(depot, frames) {
                let inside = frames.len() - token.depth();
                if !(1..RUN_FRAMES).contains(&inside) {
                    assert_eq!(find(&token, frames, Hold::None), None);
                    continue;
                }
                assert_eq!(find(&token, frames, Hold::None), Some(Ok(weak)));
                let held = find(&token, frames, Hold::Reference);
                assert_eq!(held, Some(Err(SaveError::Disabled)));
                for (place, bit) in
                    (0..inside).flat_map(|place| (0..64).map(move |bit| (place, bit)))
                {
                    let mut other = frames.to_vec();
                    other[place] ^= 1 << bit;
                    assert_eq!(find(&token, &other, Hold::None), None, "{place} {bit}");
                }
                let longest = depot.max_frames();
                let too_long = std::vec![1; longest + 1];
                assert_eq!(find(&token, &too_long, Hold::None), None);
            }
        });
    }
}

#[test]
fn a_stack_that_was_evicted_is_not_found_below_its_token() {
    if Aes::detect().is_none() {
        return;
    }
    let mut memory = std::vec![Line::ZERO; 4096];
    let config = Config {
        references: true,
        ..Config::new(4096 * 64)
    };
    let depot = Depot::new(&mut memory, &config).unwrap();
    let frames = stack(&[0x7f12], 15);
    let token = tokens(&depot, &frames)[0];
    let held = depot.save_onto(Some(&token), &frames, Hold::Reference, &mut []);
    let held = held.unwrap();
    let slot = depot.region.slot(held.weak.slot()).unwrap();
    assert_eq!(slot.state_now().references(), 1);
    depot.put(held.handle);
    let find = || {
        let (aes, region) = (depot.hasher.aes.unwrap(), &depot.region);
        save_onto(aes, region, &depot.hasher, &token, &frames, Hold::Reference)
    };
    assert!(
        depot
            .region
            .retire(held.weak.slot(), slot, slot.state_now())
    );
    assert!(find().is_none());
    let again = depot.save_onto(Some(&token), &frames, Hold::None, &mut []);
    assert_ne!(again.unwrap().weak, held.weak);
}
