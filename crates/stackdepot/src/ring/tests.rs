//! The ring against a naive queue, with threads that sleep anywhere, and as bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

extern crate std;

mod bytes;

use super::place::{CURSOR, EXPIRED, LAPPED, PLACE_MASK, WASTED};
use super::*;
use crate::handle::{Tick, WeakHandle};
use crate::hash::next_key;
use crate::layout::Line;
use crate::sync::AtomicU32;
use std::collections::VecDeque;
use std::vec::Vec;
use std::{format, println, vec};

/// A small deterministic generator (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        next_key(&mut self.0) % limit
    }
}

fn memory(config: &RingConfig) -> Vec<Line> {
    vec![Line::ZERO; ring_bytes(config).unwrap() / LINE_BYTES]
}

/// `Ring::claim` with a clock of the test's own.
fn claim(ring: &Ring<'_>, clock: &AtomicU32, shard: usize) -> Place {
    let (number, ticks) = ring.places.take(shard % ring.config.shard_count as usize);
    let tick = clock.fetch_add(ticks, Ordering::Relaxed) + ticks;
    Place {
        number,
        tick: Tick(tick),
        shard: shard % ring.config.shard_count as usize,
    }
}

/// An event all of whose numbers follow from one.
fn event_of(number: u64) -> Event {
    let stack = Some(WeakHandle::new(
        (number as u32 & 0xffff) + 1,
        (number >> 16) as u32,
    ));
    let kind = if number.is_multiple_of(3) {
        EventKind::Free
    } else {
        EventKind::Alloc
    };
    Event {
        time: number,
        thread: number as u32 ^ 0x55,
        other_thread: !number as u32,
        other_stack: stack,
        ..Event::new(kind, number << 4, number ^ 1, stack)
    }
}

fn assert_whole(event: &Event) {
    assert_eq!(
        Event {
            from: Tick(0),
            ..*event
        },
        event_of(event.time),
        "a torn event"
    );
}

fn push(ring: &Ring<'_>, clock: &AtomicU32, shard: usize, number: u64) -> Pushed {
    ring.fill(claim(ring, clock, shard), &event_of(number))
}

#[test]
fn one_shard_keeps_exactly_the_newest_events_and_their_leases() {
    for event_count in [16, 17, 31, 64, 100, 256] {
        let config = RingConfig::new(event_count);
        let mut lines = memory(&config);
        let ring = Ring::new(&mut lines, &config).unwrap();
        let clock = AtomicU32::new(0);
        let mut model = VecDeque::new();
        for number in 0..5 * u64::from(event_count) + 3 {
            assert_eq!(push(&ring, &clock, 0, number), Pushed::Yes);
            model.push_front(number);
            model.truncate(event_count as usize);
            let found: Vec<Event> = ring.events().collect();
            assert!(
                found
                    .iter()
                    .map(|event| event.time)
                    .eq(model.iter().copied())
            );
            found.iter().for_each(assert_whole);
            let now = Tick(clock.load(Ordering::Relaxed));
            assert!(
                found
                    .iter()
                    .all(|event| !event.from.is_over(now, config.lease_ticks() - 1)),
                "one tick is to spare"
            );
            let stats = ring.stats();
            assert_eq!(
                (stats.events, stats.overwritten, stats.lapped),
                (number + 1, number + 1 - model.len() as u64, 0)
            );
        }
    }
}

#[test]
fn place_numbers_wrap_without_losing_events() {
    for (event_count, fewest_at_wrap) in [(64, 64), (96, 64)] {
        let config = RingConfig::new(event_count);
        let mut lines = memory(&config);
        let ring = Ring::new(&mut lines, &config).unwrap();
        let clock = AtomicU32::new(0);
        let start = PLACE_MASK - 2 * u64::from(event_count);
        ring.places.head.store(start, Ordering::Relaxed);
        let mut fewest = u64::MAX;
        for pushed in 1..=5 * u64::from(event_count) {
            assert_eq!(push(&ring, &clock, 0, pushed), Pushed::Yes);
            let found: Vec<Event> = ring.events().collect();
            let newest_first = found.windows(2).all(|pair| pair[0].time > pair[1].time);
            assert!(newest_first && found[0].time == pushed);
            found.iter().for_each(assert_whole);
            fewest = fewest.min(found.len() as u64 + u64::from(event_count).saturating_sub(pushed));
        }
        // 2^52 mod 96 is 64: right after the wrap 32 new places fall on others than the oldest.
        assert_eq!(fewest, fewest_at_wrap);
        assert_eq!(ring.events().count() as u32, event_count);
    }
}

#[test]
fn shards_of_any_speed_keep_the_newest_events() {
    let mut random = Random(7);
    for (event_count, shard_count) in [(1024, 4), (2048, 16), (512, 2), (4096, 5)] {
        let config = RingConfig {
            event_count,
            shard_count,
        };
        assert!(config.most_chunk() > 1);
        let mut lines = memory(&config);
        let ring = Ring::new(&mut lines, &config).unwrap();
        let clock = AtomicU32::new(0);
        let mut speeds: Vec<u64> = vec![];
        for number in 0..40 * u64::from(event_count) {
            if number % u64::from(event_count) == 0 {
                speeds = (0..shard_count)
                    .map(|_| 1 << (2 * random.below(8)))
                    .collect();
            }
            let mut at = random.below(speeds.iter().sum());
            let shard = speeds
                .iter()
                .position(|speed| {
                    let hit = at < *speed;
                    at = at.wrapping_sub(*speed);
                    hit
                })
                .unwrap();
            assert_eq!(push(&ring, &clock, shard, number), Pushed::Yes);
            assert_eq!(ring.stats().events, number + 1);
            if number % 97 == 0 {
                assert_newest(&ring, &clock, number + 1);
            }
        }
    }
}

/// At least 99 % of the newest events are there, whole and leased.
fn assert_newest(ring: &Ring<'_>, clock: &AtomicU32, event_count: u64) {
    let now = Tick(clock.load(Ordering::Relaxed));
    let expected = event_count.min(ring.config.event_count.into());
    let mut found: Vec<u64> = ring
        .events()
        .filter(|event| !event.from.is_over(now, ring.lease_ticks()))
        .map(|event| {
            assert_whole(&event);
            event.time
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    let newest = found
        .iter()
        .filter(|time| **time + expected >= event_count)
        .count() as u64;
    assert!(
        newest * 100 >= expected * 99,
        "{newest} of the newest {expected} events"
    );
}

#[test]
fn sleepers_never_leave_an_event_without_its_lease() {
    // Threads claim, sleep for any while, fill; one of them is slow to move the clock.
    let mut random = Random(11);
    for round in 0..30 {
        let config = RingConfig::new(16 + random.below(300) as u32);
        let mut lines = memory(&config);
        let ring = Ring::new(&mut lines, &config).unwrap();
        let clock = AtomicU32::new(0);
        let mut asleep: Vec<(Place, u64)> = vec![];
        let mut owed = 0;
        let mut written = 0;
        for number in 0..20_000u64 {
            let (place_number, ticks) = ring.places.take(0);
            if ticks > 0 && owed == 0 && round % 2 == 1 {
                owed = ticks;
            } else {
                clock.fetch_add(ticks, Ordering::Relaxed);
            }
            if owed > 0 && random.below(u64::from(config.tick_events()) * 2) == 0 {
                clock.fetch_add(owed, Ordering::Relaxed);
                owed = 0;
            }
            asleep.push((
                Place {
                    number: place_number,
                    tick: Tick(clock.load(Ordering::Relaxed)),
                    shard: 0,
                },
                number,
            ));
            while asleep.len() > 1 && random.below(3) != 0 {
                let (place, number) =
                    asleep.swap_remove(random.below(asleep.len() as u64) as usize);
                written += u64::from(ring.fill(place, &event_of(number)) == Pushed::Yes);
            }
            if number % 50 == 0 {
                let now = Tick(clock.load(Ordering::Relaxed) + owed);
                ring.events()
                    .for_each(|event| assert!(!event.from.is_over(now, ring.lease_ticks())));
            }
        }
        let stats = ring.stats();
        assert_eq!(
            (stats.events, written + stats.lapped + asleep.len() as u64),
            (20_000, 20_000)
        );
    }
}

#[test]
fn writer_a_lap_late_drops_its_event() {
    let config = RingConfig::new(16);
    let mut lines = memory(&config);
    let ring = Ring::new(&mut lines, &config).unwrap();
    let clock = AtomicU32::new(0);
    let late = claim(&ring, &clock, 0);
    for number in 1..=16 {
        assert_eq!(push(&ring, &clock, 0, number), Pushed::Yes);
    }
    assert_eq!(ring.fill(late, &event_of(0)), Pushed::Lapped);
    assert_eq!(
        ring.events().map(|event| event.time).collect::<Vec<_>>(),
        (1..=16).rev().collect::<Vec<_>>()
    );
    assert_eq!(
        ring.stats(),
        RingStats {
            events: 17,
            overwritten: 1,
            lapped: 1,
            expired: 0
        }
    );
}

#[test]
fn entry_of_a_killed_writer_is_skipped_until_the_ring_is_opened_again() {
    let config = RingConfig::new(16);
    let mut lines = memory(&config);
    let ring = Ring::new(&mut lines, &config).unwrap();
    let clock = AtomicU32::new(0);
    (0..20).for_each(|number| assert_eq!(push(&ring, &clock, 0, number), Pushed::Yes));
    let killed = claim(&ring, &clock, 0);
    let entry = ring.entry_of(killed.number).unwrap();
    entry.0[0].store(killed.number << 2 | 2, Ordering::Relaxed);
    assert_eq!(ring.events().count(), 15);
    for number in 21..21 + 16 {
        let lapped = number == 21 + 15;
        assert_eq!(
            push(&ring, &clock, 0, number),
            if lapped { Pushed::Lapped } else { Pushed::Yes }
        );
    }
    ring.reset_in_flight();
    (40..56).for_each(|number| assert_eq!(push(&ring, &clock, 0, number), Pushed::Yes));
    assert_eq!(ring.events().count(), 16);
}

#[test]
fn dead_chunk_bringer_does_not_stop_its_shard() {
    let config = RingConfig {
        event_count: 1024,
        shard_count: 2,
    };
    let mut lines = memory(&config);
    let ring = Ring::new(&mut lines, &config).unwrap();
    let clock = AtomicU32::new(0);
    (0..500).for_each(|number| assert_eq!(push(&ring, &clock, 0, number), Pushed::Yes));
    // Somebody saw the chunk's end and died before it brought the next one.
    let cursor = &ring.places.shards[0].0[CURSOR];
    let left = Cursor(cursor.load(Ordering::Relaxed)).left();
    cursor.fetch_add(left + 1, Ordering::Relaxed);
    let before = ring.stats().events;
    (500..900).for_each(|number| assert_eq!(push(&ring, &clock, 0, number), Pushed::Yes));
    assert_eq!(ring.stats().events, before + 400);
    let bringing = Cursor(cursor.load(Ordering::Relaxed));
    assert!(
        bringing.left() > 0,
        "the shard has chunks again: {bringing:?}"
    );
}

#[test]
fn threads_lose_nothing_silently_and_readers_see_whole_events() {
    const EACH: u64 = 60_000;
    for shard_count in [1u32, 2, 4] {
        let config = RingConfig {
            event_count: 1024,
            shard_count,
        };
        let mut lines = memory(&config);
        let ring = Ring::new(&mut lines, &config).unwrap();
        let clock = AtomicU32::new(0);
        let done = AtomicU32::new(0);
        let lapped: u64 = std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    ring.events().for_each(|event| assert_whole(&event))
                }
            });
            let writer = |thread: u64| {
                (0..EACH)
                    .filter(|at| {
                        push(&ring, &clock, thread as usize, at * 4 + thread) == Pushed::Lapped
                    })
                    .count() as u64
            };
            let writers: Vec<_> = (0..4)
                .map(|thread| scope.spawn(move || writer(thread)))
                .collect();
            let joined: Vec<_> = writers.into_iter().map(|writer| writer.join()).collect();
            done.store(1, Ordering::Relaxed);
            joined.into_iter().map(|lapped| lapped.unwrap()).sum()
        });
        let stats = ring.stats();
        assert_eq!((stats.events, stats.lapped), (4 * EACH, lapped));
        let now = Tick(clock.load(Ordering::Relaxed));
        let found: Vec<u64> = ring
            .events()
            .map(|event| {
                assert!(!event.from.is_over(now, config.lease_ticks() + 2));
                event.time
            })
            .collect();
        println!(
            "{shard_count} shards: {} of 1024 there, {lapped} lapped",
            found.len()
        );
        assert!(found.len() <= 1024 && found.len() * 100 >= 1024 * 99);
        for thread in 0..4 {
            let own: Vec<u64> = found
                .iter()
                .copied()
                .filter(|time| time % 4 == thread)
                .collect();
            assert!(
                own.windows(2).all(|pair| pair[0] > pair[1]),
                "a thread's events are in order"
            );
        }
    }
}

#[test]
fn any_number_stands_for_a_shard_and_ticks_move_the_depots_clock() {
    let config = RingConfig {
        event_count: 48,
        shard_count: 3,
    };
    let mut lines = memory(&config);
    let ring = Ring::new(&mut lines, &config).unwrap();
    let mut depot_lines = vec![Line::ZERO; 64];
    let depot_config = crate::config::Config {
        lease_ticks: ring.lease_ticks(),
        ..crate::config::Config::new(4096)
    };
    let depot = Depot::new(&mut depot_lines, &depot_config).unwrap();
    for claimed in 1..=300 {
        let shard = [0, 1, 2, 3, 7, usize::MAX][claimed % 6];
        let place = ring.claim(&depot, shard);
        assert_eq!((place.shard, place.number), (shard % 3, claimed as u64));
        assert_eq!(
            (place.tick, depot.now()),
            (depot.now(), Tick(claimed as u32 / 3))
        );
    }
}

#[test]
fn damaged_counts_do_not_stop_a_ring() {
    let config = RingConfig {
        event_count: 64,
        shard_count: 2,
    };
    let (mut lines, clock) = (memory(&config), AtomicU32::new(0));
    let ring = Ring::new(&mut lines, &config).unwrap();
    ring.places.head.store(u64::MAX - 3, Ordering::Relaxed);
    for shard in ring.places.shards {
        for word in [WASTED, LAPPED, EXPIRED] {
            shard.0[word].store(u64::MAX, Ordering::Relaxed);
        }
    }
    let _ = ring.stats();
    for number in 0..1000 {
        let _ = push(&ring, &clock, number as usize % 2, number);
    }
    let _ = ring.stats();
    assert!(ring.events().count() > 0);
}

#[test]
fn absurd_shapes_are_named() {
    for (event_count, shard_count, field) in [
        (15, 1, "event_count"),
        ((1 << 24) + 1, 1, "event_count"),
        (16, 0, "shard_count"),
        (16, 1025, "shard_count"),
    ] {
        let error = ring_bytes(&RingConfig {
            event_count,
            shard_count,
        })
        .unwrap_err();
        assert!(format!("{error}").contains(field));
    }
    let config = RingConfig::new(64);
    let needed_bytes = 67 * 64;
    assert_eq!(ring_bytes(&config), Ok(needed_bytes));
    for line_count in [0, 1, 2, 3, 66] {
        let mut memory = memory(&config);
        let refused = Ring::new(&mut memory[..line_count], &config).err();
        let given_bytes = line_count as u64 * 64;
        let named = ConfigError::OutOfRange {
            field: "ring bytes",
            value: given_bytes,
            least: needed_bytes as u64,
            most: u64::MAX,
        };
        assert_eq!(refused, Some(named));
        let lines = crate::section::lines_of(&mut memory[..line_count]);
        let short = SectionError::TooShort {
            given_bytes,
            needed_bytes: needed_bytes as u64,
        };
        assert_eq!(Ring::view(lines, &config).err(), Some(short));
    }
}

#[test]
fn a_ring_of_shards_has_chunks_that_leave_a_tick_unused_at_most() {
    let chunk = |event_count, shard_count| {
        let config = RingConfig {
            event_count,
            shard_count,
        };
        let most = config.most_chunk();
        let spare = if most > 1 {
            2 * config.tick_events()
        } else {
            0
        };
        assert_eq!(config.entry_count(), event_count + spare);
        assert_eq!(config.lease_ticks(), 17 + u32::from(most > 1));
        most
    };
    assert_eq!([1024, 1 << 24].map(|events| chunk(events, 1)), [1, 1]);
    assert_eq!([16, 1024, 1040].map(|events| chunk(events, 64)), [1, 1, 1]);
    let chunks = [2047, 2048, 3072, 4080, 4096].map(|events| chunk(events, 64));
    assert_eq!(chunks, [2, 2, 2, 2, 4]);
    let chunks = [2047, 2048, 4096, 1 << 24].map(|events| chunk(events, 2));
    assert_eq!(chunks, [64, 64, 64, 64]);
    assert_eq!(chunk(1024, 2), 32);
}
