//! Reopening a region after its writer is gone, and reading it as foreign bytes.
//!
//! The memory is a plain buffer, so that a test can copy it at any moment, damage the copy and
//! open that. Whatever the bytes are: no crash, no hang, and afterwards a depot that works.
#![cfg(not(loom))]
#![allow(unsafe_code, reason = "reopens memory that the test owns")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

use std::collections::HashMap;
use std::ptr::NonNull;

use stackdepot::image::{HeaderImage, SlotImage};
use stackdepot::{
    AttachError, Config, Depot, HEADER_BYTES, HashChoice, Line, Recovered, Stats, WeakHandle,
};

const LINES: usize = 512;

fn config() -> Config {
    Config {
        references: true,
        lease_ticks: 3,
        payload_words: 2,
        ..Config::new(LINES * 64)
    }
}

fn frames_of(number: u64) -> Vec<u64> {
    let depth = 1 + number % 37;
    let wide = number.is_multiple_of(7);
    let word = |level: u64| {
        if wide {
            level.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        } else {
            0x7f00_0000_0000 + level * 64
        }
    };
    (0..depth)
        .map(|level| word((depth - level) << 8 | if level < 5 { number } else { number % 3 }))
        .collect()
}

/// Opens the memory as a later process would.
fn reopen<'r>(
    memory: &'r mut [Line],
    holds: &[WeakHandle],
) -> Result<(Depot<'r>, Recovered), AttachError> {
    let bytes = size_of_val(memory);
    // SAFETY: the buffer is valid, aligned and exclusively borrowed for 'r.
    unsafe { Depot::reopen(NonNull::from(memory).cast(), bytes, holds.iter().copied()) }
}

/// A region with a few hundred stacks, of which every third is held; answers them all.
fn filled(memory: &mut [Line]) -> HashMap<WeakHandle, (u64, bool)> {
    let depot = Depot::new(memory, &config()).unwrap();
    let mut saved = HashMap::new();
    for number in 0..400 {
        let frames = frames_of(number);
        if number.is_multiple_of(9) {
            if let Ok(held) = depot.save_acquire(&frames) {
                depot.add_payload(held.handle, 1, number);
                saved.insert(held.weak, (number, true));
            }
        } else if let Ok(weak) = depot.save(&frames) {
            saved.insert(weak, (number, false));
        }
    }
    saved.retain(|weak, _| depot.payload(*weak).is_ok());
    assert!(saved.len() > 50 && depot.stats().evicted_stacks > 0 && depot.stats().wide_nodes > 0);
    saved
}

fn fetched(depot: &Depot<'_>, weak: WeakHandle) -> Option<Vec<u64>> {
    let mut frames = [0; 64];
    let fetched = depot.fetch(weak, &mut frames).ok()?;
    Some(frames[..fetched.frame_count].to_vec())
}

fn check_usable(depot: &Depot<'_>) {
    for number in 1000..1600 {
        let frames = frames_of(number);
        if let Ok(weak) = depot.save(&frames) {
            assert_eq!(fetched(depot, weak), Some(frames));
        }
    }
}

#[test]
fn a_sound_region_keeps_every_stack_and_exactly_the_holds_that_live_on() {
    let mut memory = vec![Line::ZERO; LINES];
    let saved = filled(&mut memory);
    let held: Vec<WeakHandle> = saved
        .iter()
        .filter(|(_, (_, held))| *held)
        .map(|(weak, _)| *weak)
        .collect();
    let (kept, dropped) = held.split_at(held.len() / 2);
    let gone = WeakHandle::new(1, 9999);
    let holds: Vec<WeakHandle> = kept.iter().copied().chain([gone]).collect();
    let (depot, recovered) = reopen(&mut memory, &holds).unwrap();
    assert_eq!(
        (
            recovered.dropped_entries,
            recovered.freed_slots,
            recovered.was_dirty
        ),
        (0, 0, false)
    );
    assert_eq!(
        (recovered.restored_holds, recovered.dropped_holds),
        (kept.len() as u64, 1)
    );
    for (weak, (number, _)) in &saved {
        assert_eq!(fetched(&depot, *weak), Some(frames_of(*number)));
        assert_eq!(
            depot.save(&frames_of(*number)),
            Ok(*weak),
            "a kept stack was stored again"
        );
    }
    depot.advance(10);
    check_usable(&depot);
    for weak in kept {
        assert_eq!(
            fetched(&depot, *weak),
            Some(frames_of(saved[weak].0)),
            "a restored hold did not hold"
        );
        depot.put(depot.handle_of(*weak));
    }
    check_usable(&depot);
    assert_eq!(depot.stats().stale_puts, 0);
    assert!(
        dropped.iter().any(|weak| fetched(&depot, *weak).is_none()),
        "a dead hold still holds"
    );
}

#[test]
fn foreign_bytes_read_as_the_depot_reads_itself() {
    let mut memory = vec![Line::ZERO; LINES];
    let saved = filled(&mut memory);
    let (depot, _) = reopen(&mut memory, &[]).unwrap();
    depot.advance(7);
    let stats = depot.stats();
    // SAFETY: lines are plain bytes without padding; the depot is not used any more.
    let bytes = unsafe { std::slice::from_raw_parts(memory.as_ptr().cast::<u8>(), LINES * 64) };
    let header = HeaderImage::parse(bytes).unwrap();
    assert!(header.references && header.geometry.payload_words == 2 && !header.is_dirty);
    assert_eq!(
        (header.clock, header.lease_ticks, header.max_frames),
        (7, 3, 256)
    );
    assert_eq!(header.evicted_payload, stats.evicted_payload);
    assert_eq!(header.counters, counters(&stats));
    let windows = header.windows.iter().flatten().count() as u64;
    assert!(windows == stats.windows && header.windows.contains(&Some(0x7f00)));
    let slot = |number: u32| {
        let start = header.geometry.slots_offset + (number as usize - 1) * 64;
        SlotImage::parse(bytes[start..start + 64].try_into().unwrap())
    };
    for (weak, (number, _)) in saved {
        let (mut frames, mut current) = (Vec::<u64>::new(), weak.slot());
        assert_eq!(slot(current).generation, weak.generation());
        while current != 0 {
            let node = slot(current);
            let mut run = [0; 10];
            let length = node
                .decode(&header, node.ext_slot().map(slot).as_ref(), &mut run)
                .unwrap();
            frames.extend(&run[..length]);
            current = node.parent;
        }
        assert_eq!(frames, frames_of(number));
    }
}

/// In the order of the header.
fn counters(stats: &Stats) -> [u64; 14] {
    [
        stats.new_stacks,
        stats.new_nodes,
        stats.evicted_stacks,
        stats.evicted_nodes,
        stats.full,
        stats.contended,
        stats.crowded,
        stats.saturated,
        stats.truncated,
        stats.wide_nodes,
        stats.worn_slots,
        stats.crowd_evicted,
        stats.stale_puts,
        stats.undone_nodes,
    ]
}

/// Where the header has the sums of what was evicted.
const EVICTED_PAYLOAD_OFFSET: usize = 352;

#[test]
fn sums_of_what_was_evicted_are_where_the_header_has_them() {
    let mut memory = vec![Line::ZERO; LINES];
    Depot::new(&mut memory, &config()).unwrap();
    let sums = [11, 22, 33, 44u64];
    // SAFETY: the buffer is the test's own, and any bytes are lines.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), LINES * 64) };
    let places = bytes[EVICTED_PAYLOAD_OFFSET..].chunks_exact_mut(8);
    for (place, sum) in places.zip(sums) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
    assert_eq!(HeaderImage::parse(bytes).unwrap().evicted_payload, sums);
    let (depot, _) = reopen(&mut memory, &[]).unwrap();
    assert_eq!(depot.stats().evicted_payload, sums);
}

/// Where the header says that a reopen is under way.
const DIRTY_OFFSET: usize = 72;

#[test]
fn a_reopen_that_was_cut_short_is_told_by_the_next_one() {
    let mut memory = vec![Line::ZERO; LINES];
    filled(&mut memory);
    // SAFETY: the buffer is the test's own, and any bytes are lines.
    let bytes =
        unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), LINES * 64) };
    bytes[DIRTY_OFFSET] = 1;
    assert!(HeaderImage::parse(bytes).unwrap().is_dirty);
    assert!(reopen(&mut memory, &[]).unwrap().1.was_dirty);
    assert!(!reopen(&mut memory, &[]).unwrap().1.was_dirty);
}

/// Where the header names the hash.
const HASH_KIND_OFFSET: usize = 56;

#[test]
fn a_region_opens_for_writing_where_its_hash_is_known_and_reads_anywhere() {
    for hash in [HashChoice::Fastest, HashChoice::Portable] {
        let mut memory = vec![Line::ZERO; LINES];
        let depot = Depot::new(&mut memory, &Config { hash, ..config() }).unwrap();
        let weak = depot.save(&frames_of(33)).unwrap();
        let (again, _) = reopen(&mut memory, &[]).unwrap();
        assert_eq!(
            again.save(&frames_of(33)),
            Ok(weak),
            "filed by another hash"
        );

        // SAFETY: the buffer is the test's own, and any bytes are lines.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), LINES * 64) };
        assert!(hash == HashChoice::Fastest || bytes[HASH_KIND_OFFSET] == 1);
        for (kind, reads) in [(0, false), (1, true), (2, true), (3, false)] {
            bytes[HASH_KIND_OFFSET] = kind;
            assert_eq!(HeaderImage::parse(bytes).is_ok(), reads, "kind {kind}");
        }
        assert_eq!(
            reopen(&mut memory, &[]).err(),
            Some(AttachError::HashKind { found: 3 })
        );
    }
}

#[test]
fn damaged_regions_end_in_an_error_or_in_a_depot_that_works() {
    let mut sound = vec![Line::ZERO; LINES];
    let saved = filled(&mut sound);
    let holds: Vec<WeakHandle> = saved.keys().copied().collect();
    let mut random = 7u64;
    let mut next = || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (random >> 33) as usize
    };
    let (mut opened, mut refused) = (0, 0);
    for round in 0..2000 {
        let mut memory = sound.clone();
        // SAFETY: lines are plain bytes without padding; no depot is open.
        let bytes =
            unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u8>(), LINES * 64) };
        let range = if round % 4 == 0 {
            0..64
        } else {
            HEADER_BYTES..bytes.len()
        };
        for _ in 0..1 + next() % 40 {
            let at = range.start + next() % range.len();
            bytes[at] = if next() % 2 == 0 {
                next() as u8
            } else {
                bytes[next() % (LINES * 64)]
            };
        }
        match reopen(&mut memory, &holds) {
            Err(_) => refused += 1,
            Ok((depot, _)) => {
                opened += 1;
                depot.advance(1 << 21);
                depot.walk().for_each(drop);
                check_usable(&depot);
            }
        }
    }
    assert!(
        opened > 1000 && refused > 10,
        "{opened} opened, {refused} refused"
    );
}

/// The hand of a damaged region may stand anywhere, also where its next steps wrap.
#[test]
fn a_hand_at_the_end_of_its_range_goes_on() {
    const HAND_WORD: usize = 128 / 8;
    let mut memory = vec![Line::ZERO; LINES];
    filled(&mut memory);
    // SAFETY: lines are plain words, and nobody else uses them meanwhile.
    let (_, words, _) = unsafe { memory.align_to_mut::<u64>() };
    words[HAND_WORD] = u64::MAX - 3;
    let bytes = size_of_val(&*memory);
    // SAFETY: the buffer is valid, aligned and exclusively borrowed.
    let attached = unsafe { Depot::attach(NonNull::from(&mut *memory).cast(), bytes) };
    check_usable(&attached.unwrap());
    // SAFETY: as above.
    let (_, words, _) = unsafe { memory.align_to_mut::<u64>() };
    words[HAND_WORD] = u64::MAX - 3;
    let (depot, _) = reopen(&mut memory, &[]).unwrap();
    check_usable(&depot);
    for number in 0..100_000 {
        let saved = depot.save(&frames_of(number));
        assert!(saved.is_ok(), "{number}: {saved:?}");
    }
}

#[test]
fn a_region_cut_short_at_any_point_of_its_use_recovers_without_a_leak() {
    // What a kill leaves is any prefix of the stores of an operation; here: slots OWNED, entries
    // tentative, counts too high. Every such wound is set alone and must heal completely.
    let mut sound = vec![Line::ZERO; LINES];
    filled(&mut sound);
    let slot_count = config().geometry().unwrap().slot_count;
    let slots_offset = config().geometry().unwrap().slots_offset;
    for wound in 0..slot_count as usize {
        let mut memory = sound.clone();
        let line = slots_offset / 64 + wound;
        // SAFETY: lines are plain bytes without padding; no depot is open.
        let words =
            unsafe { std::slice::from_raw_parts_mut(memory.as_mut_ptr().cast::<u64>(), LINES * 8) };
        match wound % 3 {
            0 => words[line * 8] = 1,
            1 => words[line * 8] += 5 << 36,
            _ => {
                words[HEADER_BYTES / 8 + wound] |=
                    u64::from(words[HEADER_BYTES / 8 + wound] != 0) << 32
            }
        }
        let (depot, _) = reopen(&mut memory, &[]).unwrap();
        depot.advance(10);
        let held = (0..u64::from(slot_count))
            .filter(|index| depot.save_acquire(&[0x7f00_0000_0000 + index]).is_ok());
        assert_eq!(held.count() as u32, slot_count, "a slot leaked");
    }
}
