//! Foreign depots, rings and live tables in memory: parsed as copies, attached, and reopened.
//!
//! Promises 7 and 8: whatever the bytes are, parsing, attaching and every operation after it end
//! within bounds (the address sanitizer watches an allocation of exactly that length) and in
//! bounded time. A depot that was reopened is sound: what it lists can be fetched, what is saved
//! comes back, and a second reopen finds nothing left to do.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use stackdepot::cache::EntryImage;
use stackdepot::image::{HeaderImage, SlotImage};
use stackdepot::live::{BucketImage, LiveBlock, LiveHeaderImage};
use stackdepot::ring::{Event, EventImage, EventKind, RingHeaderImage};
use stackdepot::{Depot, Hold, LINE_BYTES, MOST_FRAMES, RUN_FRAMES, WeakHandle};
use stackdepot_fuzz::core_parts::{Original, RING, frames_of, recorded};
use stackdepot_fuzz::memory::Memory;
use stackdepot_fuzz::{budget, damage, mutate};
use std::sync::LazyLock;

/// CPU of one input, many times over.
const MOST_MS: u64 = 1000;
/// Saves into a foreign depot: they come around its clock hand more than once.
const SAVE_COUNT: u64 = 120;

static ORIGINALS: LazyLock<[Original; 4]> = LazyLock::new(|| recorded(400));

fuzz_target!(|input: &[u8]| {
    let Some((choice, script)) = input.split_first() else {
        return;
    };
    let [depot, ring, live, caches] = &*ORIGINALS;
    let damaged = |original: &Original| {
        let mut bytes = original.bytes.clone();
        damage::apply(script, &original.parts, &mut bytes);
        bytes
    };
    budget::within(MOST_MS, || match choice % 10 {
        0 => parse_depot(&damaged(depot)),
        1 | 2 => attach_depot(&damaged(depot)),
        3..=5 => reopen_depot(&damaged(depot), choice >> 3),
        6 => use_ring(&damaged(ring)),
        7 | 8 => use_caches(&damaged(caches), choice & 0x10 != 0),
        _ => use_live(&damaged(live)),
    });
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::script(data, size, max_size, seed, 1)
});

/// As a reader that holds a copy: each slot alone and with any other as its upper halves.
fn parse_depot(bytes: &[u8]) {
    let Ok(header) = HeaderImage::parse(bytes) else {
        return;
    };
    let (slots, _) = bytes
        .get(header.geometry.slots_offset..)
        .unwrap_or_default()
        .as_chunks();
    for (number, slot) in slots.iter().enumerate() {
        let slot = SlotImage::parse(slot);
        let ext = slot
            .ext_slot()
            .and_then(|ext| slots.get(ext as usize))
            .or(slots.get(number));
        let mut frames = [0; RUN_FRAMES];
        if let Ok(count) = slot.decode(&header, ext.map(SlotImage::parse).as_ref(), &mut frames) {
            assert!((1..=RUN_FRAMES).contains(&count) && slot.is_node());
        }
    }
}

/// As the process that made it, after something wrote over it.
fn attach_depot(bytes: &[u8]) {
    let mut memory = Memory::of(bytes);
    if let Ok(depot) = memory.attach_depot() {
        use_depot(&depot, false);
    }
}

/// As the next writer; `held` chooses which references are said to live on.
fn reopen_depot(bytes: &[u8], held: u8) {
    let mut memory = Memory::of(bytes);
    let holds = |depot: &Depot<'_>| -> Vec<WeakHandle> {
        let walked = depot.walk().enumerate();
        let held = walked.filter(|(number, _)| number % 8 < usize::from(held & 7));
        held.map(|(_, stack)| stack.weak).collect()
    };
    let held = memory
        .attach_depot()
        .as_ref()
        .map(holds)
        .unwrap_or_default();
    let Ok((depot, first)) = memory.reopen_depot(held.iter().copied()) else {
        return;
    };
    let kept: Vec<_> = depot.walk().collect();
    let held: Vec<WeakHandle> = held
        .into_iter()
        .filter(|weak| depot.payload(*weak).is_ok())
        .collect();
    let Ok((depot, second)) = memory.reopen_depot(held) else {
        panic!("what was reopened cannot be reopened");
    };
    assert_eq!(second.kept_nodes, first.kept_nodes);
    assert_eq!(
        (
            second.dropped_entries,
            second.freed_slots,
            second.dropped_holds
        ),
        (0, 0, 0)
    );
    assert!(
        !second.was_dirty && depot.walk().eq(kept),
        "a second reopen changes something"
    );
    use_depot(&depot, true);
}

/// Every operation; in a sound depot with sound answers.
fn use_depot(depot: &Depot<'_>, is_sound: bool) {
    let mut frames = [0; MOST_FRAMES as usize];
    for stack in depot.walk() {
        let fetched = depot.fetch(stack.weak, &mut frames);
        assert!(
            !is_sound || fetched.is_ok(),
            "{:?} is listed, but gone",
            stack.weak
        );
        let acquired = depot.acquire(stack.weak);
        let _ = depot.renew(stack.weak);
        if let Ok(handle) = acquired {
            depot.put_with_payload(handle, 0, &[1, 2]);
        }
    }
    let mut trail = [None; 8];
    let holds = [
        Hold::None,
        Hold::Lease,
        Hold::Reference,
        Hold::ReferenceAndLease,
    ];
    for id in 0..SAVE_COUNT {
        let saved = frames_of(id * 7);
        let hold = holds.get(id as usize % 4).copied().unwrap_or(Hold::None);
        let Ok(leased) = depot.save_onto(None, &saved, hold, &mut trail) else {
            continue;
        };
        if is_sound {
            check_saved(depot, leased.weak, &saved, &mut frames);
        }
        if id % 4 > 1 {
            depot.put(leased.handle);
        }
        depot.advance(u32::from(id % 16 == 0));
    }
    let _ = depot.stats();
}

fn check_saved(depot: &Depot<'_>, weak: WeakHandle, saved: &[u64], frames: &mut [u64]) {
    let fetched = depot.fetch(weak, frames).expect("a stack just saved");
    let kept = saved.get(..depot.max_frames()).unwrap_or(saved);
    assert_eq!(
        frames.get(..fetched.frame_count),
        Some(kept),
        "it comes back otherwise"
    );
    assert_eq!(fetched.is_cut, saved.len() > depot.max_frames());
}

/// A ring, as a reader's copy and as a writer's memory.
fn use_ring(bytes: &[u8]) {
    if let Ok(header) = RingHeaderImage::parse(bytes, bytes.len() as u64) {
        let (entries_at, entry_count) = header.entries();
        let end = entries_at + u64::from(entry_count) * LINE_BYTES as u64;
        assert!(end <= bytes.len() as u64, "entries behind the end");
        let shards = bytes.get(header.shards().0 as usize..).unwrap_or_default();
        let stats = header.stats(shards);
        assert!(stats.overwritten <= stats.events);
        let (entries, _) = bytes
            .get(entries_at as usize..)
            .unwrap_or_default()
            .as_chunks();
        let events = entries.iter().filter_map(EventImage::parse);
        let _ = events.filter(|event| header.is_current(event)).count();
    }
    let mut memory = Memory::of(bytes);
    let [depot, ..] = &*ORIGINALS;
    let mut depot_memory = Memory::of(&depot.bytes);
    let (Ok(ring), Ok(depot)) = (memory.attach_ring(), depot_memory.attach_depot()) else {
        return;
    };
    for round in 0..2 {
        assert!(ring.events().count() as u64 <= bytes.len() as u64 / LINE_BYTES as u64);
        for number in 0..u64::from(RING.event_count) * 2 {
            let event = Event::new(EventKind::Alloc, number << 4, number, None);
            let _ = ring.push(&depot, number as usize, &event);
        }
        let events = ring.events();
        let _ = events
            .filter(|event| ring.still_leased(&depot, event))
            .count();
        let _ = ring.stats();
        if round == 0 {
            ring.reset_in_flight();
        }
    }
}

/// A live table, as a reader's copy and as a writer's memory.
fn use_live(bytes: &[u8]) {
    if let Ok(header) = LiveHeaderImage::parse(bytes, bytes.len() as u64) {
        let (buckets_at, bucket_count) = header.buckets();
        let end = buckets_at + bucket_count * BucketImage::BYTES as u64;
        assert!(end <= bytes.len() as u64, "buckets behind the end");
        let (buckets, _) = bytes
            .get(buckets_at as usize..)
            .unwrap_or_default()
            .as_chunks();
        for bucket in buckets.iter().map(BucketImage::parse) {
            for (address, block) in bucket.blocks() {
                let _ = header.sampling().factor(address, block.size);
                assert!(block.covers(address, address));
            }
        }
    }
    let mut memory = Memory::of(bytes);
    let Ok(live) = memory.attach_live() else {
        return;
    };
    for round in 0..2 {
        let known: Vec<(u64, LiveBlock)> = live.blocks().collect();
        for number in 1..200u64 {
            let block = LiveBlock {
                stack: None,
                size: number << (number % 50),
                thread: 1,
                time: number,
            };
            let _ = live.insert(number << 4, &block);
        }
        for (address, _) in known.into_iter().step_by(2) {
            let _ = live.remove(address);
        }
        let _ = live.stats();
        if round == 0 {
            live.reset_in_flight();
        }
    }
}

/// Hold caches, as a reader's copy, and as a writer's memory that something wrote over or that a dead
/// writer left.
fn use_caches(bytes: &[u8], writer_died: bool) {
    let (entries, _) = bytes.as_chunks();
    for entry in entries.iter().filter_map(EntryImage::parse) {
        assert!(entry.references > 0 && entry.has_not_moved_until(&entry));
    }
    let mut memory = Memory::of(bytes);
    let [depot, ..] = &*ORIGINALS;
    let mut depot_memory = Memory::of(&depot.bytes);
    let (Ok(caches), Ok(depot)) = (memory.attach_caches(), depot_memory.attach_depot()) else {
        return;
    };
    if writer_died {
        caches.recover(&depot);
    }
    for cache in (0..).map_while(|number| caches.get(number)) {
        for _ in 0..3 {
            for stack in depot.walk() {
                let _ = cache.hold_with_payload(&depot, stack.weak, 0, &[1, 8]);
                let _ = cache.put_for_lease(&depot, stack.weak, 2, &[1, 8]);
            }
        }
        cache.clear(&depot);
    }
}
