//! What a cache holds and counts, against the same done on the depot.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

extern crate std;

use super::*;
use crate::config::Config;
use crate::layout::Line;
use crate::state::State;
use std::{vec, vec::Vec};

const THREADS: usize = 2;
const CACHE_LINES: usize = THREADS * CACHE_ENTRIES;
/// More than there are entries, so that stacks push each other out.
const STACKS: usize = 3 * CACHE_ENTRIES;

fn all_on() -> Config {
    Config {
        references: true,
        lease_ticks: 2,
        payload_words: 4,
        ..Config::new(64 << 10)
    }
}

fn references(depot: &Depot<'_>, weak: WeakHandle) -> u64 {
    let slot = depot.region.slot(weak.slot()).unwrap();
    slot.state_now().references()
}

/// The caches as a reader of the file finds them.
fn images(caches: &HoldCaches<'_>) -> Vec<EntryImage> {
    let bytes = |WordLine(words): &WordLine| {
        let mut bytes = [0; EntryImage::BYTES];
        for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        bytes
    };
    let images = caches.lines.iter().map(bytes);
    images
        .filter_map(|bytes| EntryImage::parse(&bytes))
        .collect()
}

/// References that caches own on a stack, and what waits there.
fn ahead(caches: &HoldCaches<'_>, weak: WeakHandle) -> (u64, [u64; MOST_PAYLOAD_WORDS]) {
    let mut sums = (0, [0; MOST_PAYLOAD_WORDS]);
    for image in images(caches).iter().filter(|image| image.stack == weak) {
        sums.0 += image.references;
        for (sum, word) in sums.1.iter_mut().zip(image.waiting) {
            *sum += word;
        }
    }
    sums
}

#[test]
fn every_reference_and_every_count_is_somewhere_at_every_moment() {
    let mut memory = vec![Line::ZERO; 1024];
    let mut lines = vec![Line::ZERO; CACHE_LINES];
    let depot = Depot::new(&mut memory, &all_on()).unwrap();
    let caches = HoldCaches::new(&mut lines);
    let weaks: Vec<_> = (0..STACKS as u64)
        .map(|number| depot.save(&[0x1000 + number]).unwrap())
        .collect();
    let mut held = vec![0u64; STACKS];
    let mut counted = vec![[0u64; 4]; STACKS];
    let mut random = 1u64;
    let mut used_an_entry = 0;
    for step in 0..200_000u64 {
        random = random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(step);
        let [choice, thread, stack] = [random >> 60, random >> 32 & 1, random >> 40];
        // Most calls are about a few stacks.
        let stack = (stack % if choice & 1 == 0 { 4 } else { STACKS as u64 }) as usize;
        let (weak, cache) = (weaks[stack], caches.get(thread as usize).unwrap());
        used_an_entry += u64::from(cache.entry(weak).names(weak));
        let size = 16 + choice;
        if choice < 8 || held[stack] == 0 {
            cache
                .hold_with_payload(&depot, weak, 0, &[1, size])
                .unwrap();
            held[stack] += 1;
            counted[stack][0] += 1;
            counted[stack][1] += size;
        } else {
            cache.put_for_lease(&depot, weak, 2, &[1, size]).unwrap();
            held[stack] -= 1;
            counted[stack][2] += 1;
            counted[stack][3] += size;
        }
        let (owned, waiting) = ahead(&caches, weak);
        assert_eq!(references(&depot, weak), held[stack] + owned, "step {step}");
        let payload = depot.payload(weak).unwrap();
        for index in 0..4 {
            let sum = payload[index] + waiting[index];
            assert_eq!(sum, counted[stack][index], "step {step}, word {index}");
        }
        if step % 5000 == 0 {
            cache.clear(&depot);
        }
    }
    assert!(
        (50_000..150_000).contains(&used_an_entry),
        "{used_an_entry}"
    );
    (0..THREADS).for_each(|thread| caches.get(thread).unwrap().clear(&depot));
    assert!(images(&caches).is_empty());
    for ((weak, held), counted) in weaks.iter().zip(held).zip(counted) {
        assert_eq!(references(&depot, *weak), held);
        assert_eq!(depot.payload(*weak), Ok(counted));
    }
    assert_eq!(depot.stats().stale_puts, 0);
}

/// A cache with an entry for a stack that is leased in this tick.
fn with_entry(test: impl FnOnce(&Depot<'_>, &HoldCaches<'_>, WeakHandle)) {
    let mut memory = vec![Line::ZERO; 1024];
    let mut lines = vec![Line::ZERO; CACHE_LINES];
    let depot = Depot::new(&mut memory, &all_on()).unwrap();
    let caches = HoldCaches::new(&mut lines);
    let weak = depot.save(&[0x1000]).unwrap();
    let cache = caches.get(0).unwrap();
    for _ in 0..2 {
        cache.hold_with_payload(&depot, weak, 0, &[1, 8]).unwrap();
    }
    assert!(cache.entry(weak).names(weak), "the second time it moves in");
    test(&depot, &caches, weak);
}

#[test]
fn a_stack_with_an_entry_is_held_and_put_without_a_shared_write() {
    with_entry(|depot, caches, weak| {
        let slot = depot.region.slot(weak.slot()).unwrap();
        let shared = || (slot.state_now(), depot.payload(weak).unwrap());
        let before = shared();
        let cache = caches.get(0).unwrap();
        for _ in 0..MOST_WAITING / 2 {
            cache.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
            assert_eq!(cache.put_for_lease(depot, weak, 2, &[1, 8]), Ok(Tick(0)));
        }
        assert_eq!(shared(), before);
        depot.advance(1);
        assert_eq!(cache.put_for_lease(depot, weak, 2, &[1, 8]), Ok(Tick(1)));
        let after = slot.state_now();
        assert_eq!(
            (after.stamp(), after.references()),
            (1, before.0.references())
        );
    });
}

#[test]
fn what_waits_goes_over_when_it_is_much() {
    with_entry(|depot, caches, weak| {
        let cache = caches.get(0).unwrap();
        for _ in 0..MOST_WAITING - 1 {
            cache.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
            cache.put_for_lease(depot, weak, 2, &[1, 8]).unwrap();
        }
        assert_eq!(
            depot.payload(weak),
            Ok([2, 16, 0, 0]),
            "two before it had an entry"
        );
        cache.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
        let [most, few] = [MOST_WAITING, MOST_WAITING - 1];
        assert_eq!(
            depot.payload(weak),
            Ok([2 + most, 16 + 8 * most, few, 8 * few])
        );
        assert_eq!(ahead(caches, weak).1, [0; 4]);
    });
}

#[test]
fn another_thread_puts_what_this_one_held_and_keeps_no_more_than_it_needs() {
    with_entry(|depot, caches, weak| {
        let [here, there] = [0, 1].map(|thread| caches.get(thread).unwrap());
        for _ in 0..20 * BATCH {
            here.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
            there.put_for_lease(depot, weak, 2, &[1, 8]).unwrap();
            assert!(references(depot, weak) <= 2 + 2 * (2 * BATCH + 1));
        }
        assert!(there.entry(weak).names(weak));
    });
}

#[test]
fn an_entry_of_use_stays_while_others_pass_by() {
    for is_used_by_a_hold in [true, false] {
        with_entry(|depot, caches, weak| {
            let cache = caches.get(0).unwrap();
            if is_used_by_a_hold {
                cache.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
            } else {
                cache.put_for_lease(depot, weak, 2, &[1, 8]).unwrap();
            }
            let [other, _] = others_of_the_entry_of(depot, weak);
            for _ in 0..MOST_WORTH {
                cache.hold_with_payload(depot, other, 0, &[1, 8]).unwrap();
                assert!(cache.entry(weak).names(weak), "{is_used_by_a_hold}");
            }
            cache.hold_with_payload(depot, other, 0, &[1, 8]).unwrap();
            assert!(cache.entry(weak).names(other), "{is_used_by_a_hold}");
            let counts = if is_used_by_a_hold {
                [3, 24, 0, 0]
            } else {
                [2, 16, 1, 8]
            };
            assert_eq!(depot.payload(weak), Ok(counts), "what waited is there");
            assert_eq!(references(depot, weak), counts[0] - counts[2]);
        });
    }
}

#[test]
fn stacks_that_take_turns_do_not_push_an_entry_out() {
    with_entry(|depot, caches, weak| {
        let cache = caches.get(0).unwrap();
        let others = others_of_the_entry_of(depot, weak);
        for other in others.iter().cycle().take(20) {
            cache.hold_with_payload(depot, *other, 0, &[1, 8]).unwrap();
            assert!(cache.entry(weak).names(weak));
        }
    });
}

/// Two stacks that would have the same entry.
fn others_of_the_entry_of(depot: &Depot<'_>, weak: WeakHandle) -> [WeakHandle; 2] {
    let others = (0..).map(|number| depot.save(&[0x2000 + number]).unwrap());
    let distance = |other: &WeakHandle| (other.slot() - weak.slot()) as usize;
    let mut others = others.filter(|other| distance(other).is_multiple_of(CACHE_ENTRIES));
    [0, 1].map(|_| others.next().unwrap())
}

#[test]
fn an_entry_takes_references_when_it_has_none_and_gives_back_what_are_too_many() {
    with_entry(|depot, caches, weak| {
        let cache = caches.get(0).unwrap();
        let owned = || ahead(caches, weak).0;
        for left in (0..BATCH).rev() {
            cache.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
            assert_eq!(owned(), left + 1);
        }
        cache.hold_with_payload(depot, weak, 0, &[1, 8]).unwrap();
        assert_eq!(owned(), BATCH + 1, "that one was held on the depot");
        let held = 2 + BATCH + 1;
        assert_eq!(references(depot, weak), held + owned());
        for there in BATCH + 2..=2 * BATCH + 1 {
            cache.put_for_lease(depot, weak, 2, &[1, 8]).unwrap();
            assert_eq!(owned(), there);
        }
        assert_eq!(
            references(depot, weak),
            held + BATCH + 1,
            "nothing went back yet"
        );
        cache.put_for_lease(depot, weak, 2, &[1, 8]).unwrap();
        assert_eq!(owned(), BATCH + 2);
        assert_eq!(references(depot, weak), held + 1);
    });
}

#[test]
fn each_thread_has_a_cache_of_its_own() {
    assert_eq!(CACHE_BYTES, 32 * 64);
    let mut lines = vec![Line::ZERO; CACHE_LINES + CACHE_ENTRIES - 1];
    let caches = HoldCaches::new(&mut lines);
    let [first, second] = [0, 1].map(|number| caches.get(number).unwrap().entries);
    assert!(!core::ptr::eq(&first[CACHE_ENTRIES - 1], &second[0]));
    assert!(core::ptr::eq(&caches.lines[CACHE_ENTRIES], &second[0]));
    assert!(caches.get(THREADS).is_none(), "half a cache is none");
    assert!(caches.get(usize::MAX).is_none());
}

#[test]
fn a_stack_that_is_gone_is_not_held() {
    with_entry(|depot, caches, weak| {
        let cache = caches.get(0).unwrap();
        let next = WeakHandle::new(weak.slot(), weak.generation() + 1);
        for _ in 0..8 {
            let held = cache.hold_with_payload(depot, next, 0, &[1, 8]);
            assert_eq!(held, Err(HoldError::Evicted));
        }
        assert_eq!(
            cache.put_for_lease(depot, next, 2, &[1, 8]),
            Err(HoldError::Evicted)
        );
        assert_eq!(depot.stats().stale_puts, 1);
        assert!(cache.entry(weak).names(weak));
    });
}

#[test]
fn an_empty_entry_names_no_stack() {
    let mut memory = vec![Line::ZERO; 1024];
    let mut lines = vec![Line::ZERO; CACHE_LINES];
    let depot = Depot::new(&mut memory, &all_on()).unwrap();
    let caches = HoldCaches::new(&mut lines);
    let cache = caches.get(0).unwrap();
    let forged = WeakHandle::from_bits(0);
    for _ in 0..8 {
        assert!(cache.put_for_lease(&depot, forged, 2, &[1, 8]).is_err());
        assert!(cache.hold_with_payload(&depot, forged, 0, &[1, 8]).is_err());
    }
    let entry = cache.entry(forged);
    let waits = |index| {
        entry
            .waiting(index)
            .map(|word| word.load(Ordering::Relaxed))
    };
    assert_eq!([0, 1, 2, 3].map(waits), [Some(0); 4]);
    assert_eq!(entry.load(CREDITS), 0);
}

#[test]
fn a_stack_with_too_many_references_gets_no_entry() {
    let mut memory = vec![Line::ZERO; 1024];
    let mut lines = vec![Line::ZERO; CACHE_LINES];
    let depot = Depot::new(&mut memory, &all_on()).unwrap();
    let caches = HoldCaches::new(&mut lines);
    let weak = depot.save(&[0x1000]).unwrap();
    let slot = depot.region.slot(weak.slot()).unwrap();
    let most = State::REF_LIMIT - BATCH - 2;
    slot.state.fetch_add(most * State::REF, Ordering::Relaxed);
    let cache = caches.get(0).unwrap();
    for count in 1..=BATCH + 2 {
        cache.hold_with_payload(&depot, weak, 0, &[1, 8]).unwrap();
        assert_eq!(references(&depot, weak), most + count);
    }
    let refused = cache.hold_with_payload(&depot, weak, 0, &[1, 8]);
    assert_eq!(refused, Err(HoldError::Saturated));
    assert!(images(&caches).is_empty());
    assert_eq!(depot.payload(weak).unwrap()[0], BATCH + 2);
}

#[test]
fn a_word_on_its_way_is_left_out_and_told() {
    with_entry(|depot, caches, weak| {
        let cache = caches.get(0).unwrap();
        cache.put_for_lease(depot, weak, 2, &[1, 8]).unwrap();
        let entry = cache.entry(weak);
        let image = || images(caches).into_iter().next().unwrap();
        let before = image();
        assert_eq!((before.waiting, before.is_moving), ([0, 0, 1, 8], false));
        entry.store(MOVES, 3);
        assert_eq!((image().waiting, image().is_moving), ([0, 0, 0, 8], true));
        assert!(!before.has_not_moved_until(&image()));
        // Its writer died here: the word may be there already, the last one is not.
        let words = || depot.payload(weak).unwrap();
        assert_eq!(words(), [2, 16, 0, 0]);
        caches.recover(depot);
        assert_eq!(words(), [2, 16, 0, 8]);
        assert!(images(caches).is_empty());
    });
}

#[test]
fn a_stack_that_came_back_to_its_entry_has_moved() {
    with_entry(|depot, caches, weak| {
        let cache = caches.get(0).unwrap();
        let image = || images(caches).into_iter().next().unwrap();
        let before = image();
        assert!(before.has_not_moved_until(&image()));
        for times in 1..20 {
            cache.clear(depot);
            cache.entry(weak).enter(depot, weak);
            assert!(!before.has_not_moved_until(&image()) && !image().is_moving);
            assert_eq!(cache.entry(weak).load(MOVES), times << MOVES_SHIFT);
        }
    });
}

#[test]
fn recovery_passes_by_what_a_damaged_file_names() {
    with_entry(|depot, caches, weak| {
        let entry = caches.get(0).unwrap().entry(weak);
        entry.store(WAITING, 7);
        let next = WeakHandle::new(weak.slot(), weak.generation() + 1);
        for stack in [next, WeakHandle::new(u32::MAX, 0)] {
            entry.store(STACK, stack.to_bits());
            entry.store(MOVES, 7);
            caches.recover(depot);
        }
        assert_eq!(depot.payload(weak), Ok([2, 16, 0, 0]));
        let WordLine(words) = entry.0;
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
    });
}
