//! The ring and the live table over a real, small depot: every event among the newest N has its
//! stack, for ever, though the depot evicts all the time; and every reference comes back.
#![cfg(not(loom))]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test"
)]

use stackdepot::live::{Inserted, LiveBlock, LiveTable, Removed, live_bytes};
use stackdepot::ring::{Event, EventKind, Pushed, Ring, RingConfig, ring_bytes};
use stackdepot::{Config, Depot, Line, WeakHandle};
use std::sync::Barrier;

/// A small deterministic generator (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % limit
    }
}

/// Stack number `n`: shared outer frames, a leaf of its own.
fn frames_of(number: u64) -> [u64; 14] {
    let mut frames = [0x7f12_0000_1000 + number % 40; 14];
    frames[0] = 0x7f12_3000_0000 + number;
    frames[1] = 0x7f12_4000_0000 + number / 7;
    frames
}

fn lines(bytes: usize) -> Vec<Line> {
    vec![Line::ZERO; bytes.div_ceil(size_of::<Line>())]
}

fn depot_config(bytes: usize, ring: &RingConfig) -> Config {
    Config {
        lease_ticks: ring.lease_ticks(),
        references: true,
        ..Config::new(bytes)
    }
}

/// How many events are in the ring; each must have exactly its stack.
fn check(ring: &Ring<'_>, depot: &Depot<'_>) -> usize {
    let mut frames = [0; 32];
    for event in ring.events() {
        let fetched = depot.fetch(event.stack.unwrap(), &mut frames).unwrap();
        assert!(ring.still_leased(depot, &event));
        assert_eq!(frames[..fetched.frame_count], frames_of(event.address));
    }
    ring.events().count()
}

fn event(address: u64, stack: Option<WeakHandle>) -> Event {
    Event {
        time: address,
        ..Event::new(EventKind::Alloc, address, 1, stack)
    }
}

#[test]
fn newest_events_always_have_their_stacks_while_the_depot_evicts() {
    for (event_count, shard_count) in [(64, 1), (250, 1), (512, 1), (1024, 4)] {
        let config = RingConfig {
            event_count,
            shard_count,
        };
        let (mut ring_lines, mut depot_lines) = (
            lines(ring_bytes(&config).unwrap()),
            lines(event_count as usize * 130 + 8192),
        );
        let ring = Ring::new(&mut ring_lines, &config).unwrap();
        let depot_bytes = size_of_val(&depot_lines[..]);
        let depot = Depot::new(&mut depot_lines, &depot_config(depot_bytes, &config)).unwrap();
        let mut random = Random(event_count.into());
        for pushed in 1..=60 * event_count as usize {
            let number = random.below(20 * u64::from(event_count));
            let place = ring.claim(&depot, pushed % 4);
            let saved = depot.save_lease(&frames_of(number)).unwrap();
            assert_eq!(
                ring.fill(place, &event(number, Some(saved.weak))),
                Pushed::Yes
            );
            if pushed % 61 == 0 {
                let found = check(&ring, &depot);
                let expected = pushed.min(event_count as usize);
                assert!(if shard_count == 1 {
                    found == expected
                } else {
                    found * 100 >= expected * 99
                });
            }
        }
        assert!(
            depot.stats().evicted_stacks > 1000 && depot.stats().full == 0,
            "{:?}",
            depot.stats()
        );
    }
}

#[test]
fn an_event_is_leased_for_as_long_as_its_ring_says() {
    for shard_count in [1, 4] {
        let config = RingConfig {
            event_count: 1024,
            shard_count,
        };
        let mut ring_lines = lines(ring_bytes(&config).unwrap());
        let mut depot_lines = lines(8192);
        let ring = Ring::new(&mut ring_lines, &config).unwrap();
        let depot = Depot::new(&mut depot_lines, &depot_config(8192, &config)).unwrap();
        assert_eq!(ring.lease_ticks(), 17 + u32::from(shard_count > 1));
        let leased = Event {
            from: depot.now(),
            ..event(1, None)
        };
        depot.advance(ring.lease_ticks());
        assert!(ring.still_leased(&depot, &leased));
        depot.advance(1);
        assert!(!ring.still_leased(&depot, &leased));
    }
}

#[test]
fn two_threads_pause_at_any_time_and_find_their_stacks() {
    let config = RingConfig::new(512);
    let (mut ring_lines, mut depot_lines) =
        (lines(ring_bytes(&config).unwrap()), lines(256 * 1024));
    let ring = Ring::new(&mut ring_lines, &config).unwrap();
    let depot = Depot::new(&mut depot_lines, &depot_config(256 * 1024, &config)).unwrap();
    let pause = Barrier::new(2);
    std::thread::scope(|scope| {
        for thread in 0..2u64 {
            let (ring, depot, pause) = (&ring, &depot, &pause);
            scope.spawn(move || {
                let mut random = Random(thread);
                for _ in 0..40 {
                    for _ in 0..500 + random.below(3000) {
                        let number = random.below(5000);
                        let place = ring.claim(depot, thread as usize);
                        let saved = depot.save_lease(&frames_of(number)).ok();
                        let _ = ring.fill(place, &event(number, saved.map(|saved| saved.weak)));
                    }
                    pause.wait();
                    if thread == 0 {
                        assert!(check(ring, depot) * 100 >= 512 * 99);
                    }
                    pause.wait();
                }
            });
        }
    });
    assert!(
        depot.stats().evicted_stacks > 1000 && depot.stats().full == 0,
        "{:?}",
        depot.stats()
    );
}

#[test]
fn push_renews_what_was_saved_before_and_says_what_it_lost() {
    let config = RingConfig::new(64);
    let (mut ring_lines, mut depot_lines) = (lines(ring_bytes(&config).unwrap()), lines(32 * 1024));
    let ring = Ring::new(&mut ring_lines, &config).unwrap();
    let depot = Depot::new(&mut depot_lines, &depot_config(32 * 1024, &config)).unwrap();
    let push = |number: u64| {
        let saved = depot.save_lease(&frames_of(number)).unwrap();
        ring.push(
            &depot,
            0,
            &Event {
                from: saved.from,
                ..event(number, Some(saved.weak))
            },
        )
    };
    let early = depot.save_lease(&frames_of(1)).unwrap();
    (100..140).for_each(|number| assert_eq!(push(number), Pushed::Yes));
    // Saved 40 events ago and still leased: the push makes it last as long as the event.
    assert_eq!(
        ring.push(
            &depot,
            0,
            &Event {
                from: early.from,
                ..event(1, Some(early.weak))
            }
        ),
        Pushed::Yes
    );
    (200..263).for_each(|number| assert_eq!(push(number), Pushed::Yes));
    assert_eq!(
        (check(&ring, &depot), ring.events().last().unwrap().address),
        (64, 1)
    );
    // Saved many laps ago, evicted meanwhile.
    (1000..9000).for_each(|number| assert_eq!(push(number), Pushed::Yes));
    assert_eq!(
        ring.push(
            &depot,
            0,
            &Event {
                from: early.from,
                ..event(1, Some(early.weak))
            }
        ),
        Pushed::Expired
    );
    assert_eq!(
        (ring.events().next().unwrap().stack, ring.stats().expired),
        (None, 1)
    );
    assert_eq!(ring.stats().events, 40 + 1 + 63 + 8000 + 1);
}

#[test]
fn references_of_live_blocks_hold_their_stacks_and_all_come_back() {
    let (mut live_lines, mut depot_lines) = (lines(live_bytes(500).unwrap()), lines(96 * 1024));
    let table = LiveTable::new(&mut live_lines).unwrap();
    let depot = Depot::new(
        &mut depot_lines,
        &Config {
            references: true,
            ..Config::new(96 * 1024)
        },
    )
    .unwrap();
    let put = |block: LiveBlock| depot.put(depot.handle_of(block.stack.unwrap()));
    let mut random = Random(5);
    let mut live: Vec<u64> = vec![];
    for number in 0..40_000u64 {
        let held = depot.save_acquire(&frames_of(number % 3000)).unwrap();
        let block = LiveBlock {
            stack: Some(held.weak),
            size: 16 + number % 100,
            thread: 1,
            time: number,
        };
        let address = 0x1000 + number * 48;
        let inserted = table.insert(address, &block);
        inserted.released().into_iter().for_each(put);
        if !inserted.is_stored() {
            put(block);
        }
        assert_ne!(inserted, Inserted::Contended);
        live.push(address);
        while live.len() > 2000 {
            let at = random.below(live.len() as u64) as usize;
            if let Removed::Block(block) = table.remove(live.swap_remove(at)) {
                put(block)
            }
        }
        if number % 1000 == 0 {
            check_live(&table, &depot);
        }
    }
    assert!(
        table.sampling().is_sampling() && depot.stats().evicted_stacks > 1000,
        "{:?}",
        depot.stats()
    );
    for address in live {
        if let Removed::Block(block) = table.remove(address) {
            put(block)
        }
    }
    assert_eq!(table.blocks().count(), 0);
    assert!(
        depot.walk().all(|stack| stack.references == 0),
        "every reference was given back"
    );
}

/// Each stored block's stack is there.
fn check_live(table: &LiveTable<'_>, depot: &Depot<'_>) {
    let mut frames = [0; 32];
    for (_, block) in table.blocks() {
        let fetched = depot.fetch(block.stack.unwrap(), &mut frames).unwrap();
        assert_eq!(frames[..fetched.frame_count], frames_of(block.time % 3000));
    }
}
