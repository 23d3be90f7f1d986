//! The live table against a naive map, under threads that race for the same cells, and as bytes.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests"
)]

extern crate std;

use super::*;
use crate::handle::WeakHandle;
use crate::hash::next_key;
use crate::layout::Line;
use crate::sync::AtomicU32;
use std::collections::{HashMap, HashSet};
use std::vec::Vec;
use std::{format, println, vec};

/// A small deterministic generator (splitmix64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        next_key(&mut self.0) % limit
    }
}

fn memory(cell_count: usize) -> Vec<Line> {
    vec![Line::ZERO; live_bytes(cell_count).unwrap() / LINE_BYTES]
}

/// A block all of whose numbers follow from one.
fn block_of(number: u64, size: u64) -> LiveBlock {
    LiveBlock {
        stack: Some(WeakHandle::new(
            number as u32 & 0xffff | 1,
            (number >> 7) as u32,
        )),
        size,
        thread: number as u32 & 0x3f_ffff,
        time: number,
    }
}

fn assert_whole(address: u64, block: &LiveBlock) {
    assert_eq!(
        *block,
        block_of(block.time, block.size),
        "a torn block at {address:#x}"
    );
}

/// The naive map: what is live, and which references the table has.
#[derive(Default)]
struct Model {
    live: HashMap<u64, LiveBlock>,
    stored: HashMap<u64, LiveBlock>,
}

impl Model {
    /// Allocates in both; `forgotten` keeps the free of the old block from the table.
    fn insert(&mut self, table: &LiveTable<'_>, address: u64, block: LiveBlock) {
        let stale = self.stored.get(&address).copied();
        let inserted = table.insert(address, &block);
        match inserted {
            Inserted::Stored => assert_eq!(stale, None),
            Inserted::Replaced(old) | Inserted::UnsampledReplaced(old) => {
                assert_eq!(self.stored.remove(&address), Some(old))
            }
            Inserted::PushedOut(old) => {
                assert_eq!(stale, None);
                let at = *self
                    .stored
                    .iter()
                    .find(|(_, block)| **block == old)
                    .expect_block()
                    .0;
                assert!(!table.sampling().contains(at, old.size));
                self.stored.remove(&at);
            }
            Inserted::Unsampled => {
                assert!(stale.is_none() && !table.sampling().contains(address, block.size))
            }
            Inserted::Contended => panic!("nobody else is here"),
        }
        if inserted.is_stored() {
            self.stored.insert(address, block);
        }
        self.live.insert(address, block);
    }

    fn remove(&mut self, table: &LiveTable<'_>, address: u64) {
        let was_live = self.live.remove(&address);
        let any_size = table.sampling().contains_any_size(address);
        match table.remove(address) {
            Removed::Block(block) => assert_eq!(self.stored.remove(&address), Some(block)),
            Removed::Unsampled => assert!(!self.stored.contains_key(&address) && !any_size),
            Removed::Unknown => {
                assert!(was_live.is_none() && any_size && !self.stored.contains_key(&address))
            }
        }
    }

    /// INVARIANT L3: everything in the sample is stored; and the table holds what the model says.
    fn compare(&self, table: &LiveTable<'_>) {
        for (address, block) in &self.live {
            assert!(
                !table.sampling().contains(*address, block.size)
                    || self.stored.get(address) == Some(block)
            );
        }
        let found: HashMap<u64, LiveBlock> = table.blocks().collect();
        assert_eq!(found, self.stored);
        assert_away_counts(table);
    }
}

/// Every bucket counts the blocks whose home it is and that are elsewhere, or is overflown for good.
fn assert_away_counts(table: &LiveTable<'_>) {
    let bucket_count = table.bucket_count.get();
    let buckets = || (0..bucket_count).map(|number| table.bucket(number).unwrap());
    let mut away = vec![0; bucket_count as usize];
    for (number, bucket) in (0..).zip(buckets()) {
        for seen in bucket.cells().filter(|seen| seen.key.is_block()) {
            let home = sample::home(seen.key.address(), table.bucket_count);
            if home != number {
                away[home as usize] += 1;
            }
        }
    }
    for (expected, bucket) in away.into_iter().zip(buckets()) {
        let counted = bucket.tags().away_count();
        assert!(
            counted.is_none_or(|counted| counted == expected),
            "{counted:?} {expected}"
        );
    }
}

trait ExpectBlock<T> {
    fn expect_block(self) -> T;
}

impl<T> ExpectBlock<T> for Option<T> {
    fn expect_block(self) -> T {
        self.unwrap_or_else(|| panic!("a reference came back that was never given"))
    }
}

fn random_operations(cell_count: usize, address_count: u64, steps: u64, seed: u64) -> LiveStats {
    let mut lines = memory(cell_count);
    let table = LiveTable::new(&mut lines).unwrap();
    let mut random = Random(seed);
    let mut model = Model::default();
    for step in 0..steps {
        let address = 0x7f00_0000_0000 + 16 * random.below(address_count);
        match random.below(20) {
            0..9 if !model.live.contains_key(&address) => {
                model.insert(&table, address, block_of(step, 8 << random.below(12)))
            }
            // A block whose free was never seen.
            9 => model.insert(&table, address, block_of(step, random.below(100))),
            _ => model.remove(&table, address),
        }
        if step % 64 == 0 {
            model.compare(&table);
        }
    }
    model.compare(&table);
    table.stats()
}

#[test]
fn table_with_room_agrees_with_a_map() {
    for seed in 0..10 {
        let stats = random_operations(4096, 1000, 20_000, seed);
        assert_eq!(
            (stats.sample_bytes, stats.pushed_out, stats.lost),
            (0, 0, 0)
        );
        assert!(
            stats.stale > 100,
            "blocks whose free was not seen were replaced"
        );
    }
}

#[test]
fn full_table_keeps_its_sample_and_gives_every_reference_back_once() {
    for (seed, cell_count) in [(1, 1), (2, 16), (3, 24), (4, 64), (5, 200)] {
        let stats = random_operations(cell_count, 2000, 30_000, seed);
        assert!(
            stats.sample_bytes > 0 && stats.pushed_out > 0 && stats.lost == 0,
            "{stats:?}"
        );
    }
}

#[test]
fn the_emptier_bucket_is_better_and_among_full_ones_the_weaker_block() {
    let place = |kept_count, weight| Weakest {
        kept_count,
        priority: Priority::of_hash(AddressHash::of(0), weight),
        place: None,
    };
    for (one, other, better) in [
        ((8, 9), (7, 99), (7, 99)),
        ((5, 9), (4, 99), (4, 99)),
        ((5, 9), (5, 1), (5, 9)),
        ((5, 9), (8, 1), (5, 9)),
        ((7, 9), (7, 1), (7, 9)),
        ((8, 9), (8, 1), (8, 1)),
        ((8, 9), (8, 9), (8, 9)),
        ((8, 9), (8, 99), (8, 9)),
    ] {
        let chosen = place(one.0, one.1).or_better(Some(place(other.0, other.1)));
        let wanted = place(better.0, better.1);
        let is_wanted = chosen.kept_count == wanted.kept_count
            && !chosen.priority.is_below(wanted.priority)
            && !wanted.priority.is_below(chosen.priority);
        assert!(is_wanted, "{one:?} {other:?}");
    }
    assert_eq!(place(8, 9).or_better(None).kept_count, 8);
}

#[test]
fn a_table_has_the_cells_that_were_asked_for_and_fills_its_memory() {
    assert_eq!(line_count(2), 2 + 1 + 2 * 4);
    assert_eq!((LEAST_BUCKETS, MOST_BUCKETS), (2, 1 << 31));
    for lines in 11..3000 {
        let bucket_count = buckets_in(lines);
        assert!(line_count(bucket_count) <= lines, "{lines} lines");
        assert!(line_count(bucket_count + 1) > lines, "{lines} lines");
    }
    for cell_count in [0, 1, 16, 17, 24, 512, 1000] {
        let mut lines = memory(cell_count);
        let wanted = cell_count.div_ceil(8).max(2) as u64;
        assert_eq!(lines.len() as u64, line_count(wanted));
        let table = LiveTable::new(&mut lines).unwrap();
        assert_eq!(table.stats().cell_count, wanted * 8);
    }
    assert!(live_bytes(1 << 34).is_ok() && live_bytes((1 << 34) + 1).is_err());
}

/// Addresses that share a home.
fn neighbours(count: u64) -> impl Iterator<Item = u64> {
    (0..count).map(|block| 0x7f00_0000_0000 + 16 * block)
}

#[test]
fn the_last_two_cells_of_a_home_are_left_to_others_while_there_is_room_elsewhere() {
    let mut lines = memory(1 << 12);
    let table = LiveTable::new(&mut lines).unwrap();
    let home = |address| table.home_of(address).home;
    for (stored, address) in neighbours(16).enumerate() {
        assert_eq!(table.insert(address, &block_of(1, 16)), Inserted::Stored);
        let tags = home(address).tags();
        let at_home = (stored + 1).min(6) as u32;
        assert_eq!(8 - tags.empty_count(), at_home, "{stored} before");
        assert_eq!(tags.is_overflown(), stored >= 6);
    }
    for (removed, address) in neighbours(16).enumerate() {
        let is_overflown = home(address).tags().is_overflown();
        assert_eq!(is_overflown, removed < 16, "{removed} were removed");
        assert!(matches!(table.remove(address), Removed::Block(_)));
    }
    assert!(!home(neighbours(1).next().unwrap()).tags().is_overflown());
}

#[test]
fn the_weakest_of_a_bucket_is_empty_or_the_least_and_only_the_sample_counts() {
    let mut lines = memory(1 << 12);
    let table = LiveTable::new(&mut lines).unwrap();
    let size_of = |block: u64| 100 * (1 + (block * 5) % 7);
    let stored: Vec<u64> = neighbours(6).collect();
    for (block, address) in (0..).zip(&stored) {
        let _ = table.insert(*address, &block_of(block, size_of(block)));
    }
    let home = table.home_of(stored[0]).home;
    let all = || {
        (0..)
            .zip(&stored)
            .map(|(block, at)| Priority::of(*at, size_of(block)))
    };
    for sample_bytes in [0, 100, 300, 1000, 3000, 100_000, u64::MAX] {
        let sampling = Sampling::new(sample_bytes);
        let kept = all().filter(|block| sampling.keeps(*block)).count();
        let weakest = Weakest::of(home, sampling).unwrap();
        assert_eq!(weakest.kept_count, kept);
        assert!(weakest.place.unwrap().key.is_empty());
    }
    // Where nothing is empty, the least; a BUSY cell counts as kept, but is nobody's to take.
    let claimed: Vec<_> = home.cells().filter(|seen| seen.key.is_empty()).collect();
    let claimed: Vec<_> = claimed
        .into_iter()
        .map(|seen| seen.claim().unwrap())
        .collect();
    assert_eq!(claimed.len(), 2);
    let weakest = Weakest::of(home, Sampling::new(0)).unwrap();
    assert_eq!(weakest.kept_count, 8);
    assert!(all().all(|block| !block.is_below(weakest.priority)));
    assert!(stored.contains(&weakest.place.unwrap().key.address()));
    claimed.into_iter().for_each(|cell| cell.release());
}

#[test]
fn memory_that_is_too_short_for_a_table_is_named_with_its_bytes() {
    let mut lines = memory(16);
    let least = 64 * line_count(LEAST_BUCKETS);
    for line_count in 0..least / 64 {
        let refused = LiveTable::new(&mut lines[..line_count as usize]).err();
        let named = ConfigError::OutOfRange {
            field: "live table bytes",
            value: line_count * 64,
            least,
            most: 64 * super::line_count(MOST_BUCKETS),
        };
        assert_eq!(refused, Some(named));
    }
    assert!(LiveTable::new(&mut lines).is_ok());
}

#[test]
fn addresses_that_no_table_can_hold_are_refused() {
    let mut lines = memory(64);
    let table = LiveTable::new(&mut lines).unwrap();
    for address in [0, 1 << 48, u64::MAX] {
        assert_eq!(table.insert(address, &block_of(1, 1)), Inserted::Unsampled);
        assert_eq!(table.remove(address), Removed::Unknown);
    }
    assert_eq!(
        table.insert((1 << 48) - 1, &block_of(1, 1)),
        Inserted::Stored
    );
    assert_eq!(table.remove((1 << 48) - 1), Removed::Block(block_of(1, 1)));
}

#[test]
fn double_free_is_unknown_only_while_nothing_was_lost() {
    let mut lines = memory(64);
    let table = LiveTable::new(&mut lines).unwrap();
    assert_eq!(table.insert(0x1000, &block_of(1, 10)), Inserted::Stored);
    assert_eq!(table.remove(0x1000), Removed::Block(block_of(1, 10)));
    assert_eq!(table.remove(0x1000), Removed::Unknown);
    table.count(LOST);
    assert_eq!(table.remove(0x1000), Removed::Unsampled);
}

#[test]
fn cell_of_a_killed_thread_is_skipped_until_the_table_is_opened_again() {
    let mut lines = memory(16);
    let table = LiveTable::new(&mut lines).unwrap();
    assert_eq!(table.insert(0x1000, &block_of(1, 10)), Inserted::Stored);
    let stored = table.find(&table.home_of(0x1000)).unwrap();
    let _killed = stored.claim().unwrap();
    assert_eq!(table.blocks().count(), 0);
    assert_eq!(table.remove(0x1000), Removed::Unknown);
    table.reset_in_flight();
    assert!(stored.bucket.cells().all(|seen| seen.key.is_empty()));
    assert_eq!(stored.bucket.tags().empty_count(), 8);
}

#[test]
fn threads_get_every_reference_back_exactly_once() {
    const EACH: u64 = 40_000;
    for cell_count in [16, 256, 16_384] {
        let mut lines = memory(cell_count);
        let table = LiveTable::new(&mut lines).unwrap();
        let done = AtomicU32::new(0);
        let returned: Vec<Vec<u64>> = std::thread::scope(|scope| {
            scope.spawn(|| {
                while done.load(Ordering::Relaxed) == 0 {
                    table
                        .blocks()
                        .for_each(|(address, block)| assert_whole(address, &block))
                }
            });
            let workers: Vec<_> = (0..4)
                .map(|thread| scope.spawn(move || work(&table, thread, EACH)))
                .collect();
            let joined: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
            done.store(1, Ordering::Relaxed);
            joined
                .into_iter()
                .map(|returned| returned.unwrap())
                .collect()
        });
        let held = table.blocks().map(|(_, block)| block.time);
        let all: Vec<u64> = returned.into_iter().flatten().chain(held).collect();
        assert_eq!(
            all.len() as u64,
            4 * EACH,
            "every reference came back or is held"
        );
        assert_eq!(
            all.iter().collect::<HashSet<_>>().len(),
            all.len(),
            "none came back twice"
        );
        assert_away_counts(&table);
        println!("{cell_count} cells: {:?}", table.stats());
    }
}

/// Allocates and frees addresses of its own; answers every reference that came back to it.
fn work(table: &LiveTable<'_>, thread: u64, block_count: u64) -> Vec<u64> {
    let mut random = Random(thread);
    let mut live: Vec<(u64, LiveBlock)> = vec![];
    let mut returned = vec![];
    for number in 0..block_count {
        let address = ((number % 1024) * 4 + thread + 1) * 16;
        if let Some(at) = live.iter().position(|(at, _)| *at == address) {
            free(table, live.swap_remove(at), &mut returned);
        }
        let block = block_of(number * 4 + thread, 1 + random.below(500));
        let inserted = table.insert(address, &block);
        returned.extend(inserted.released().map(|block| block.time));
        assert!(
            !matches!(
                inserted,
                Inserted::Replaced(_) | Inserted::UnsampledReplaced(_)
            ),
            "every free was seen"
        );
        if !inserted.is_stored() {
            returned.push(block.time);
        }
        live.push((address, block));
        while live.len() > 200 {
            let at = random.below(live.len() as u64) as usize;
            free(table, live.swap_remove(at), &mut returned);
        }
    }
    returned
}

fn free(table: &LiveTable<'_>, (address, block): (u64, LiveBlock), returned: &mut Vec<u64>) {
    match table.remove(address) {
        Removed::Block(removed) => {
            assert_eq!(removed, block);
            returned.push(block.time);
        }
        Removed::Unsampled => {}
        Removed::Unknown => panic!("a live block was called unknown"),
    }
}

#[test]
fn racing_frees_of_one_block_get_it_once() {
    let mut lines = memory(64);
    let table = LiveTable::new(&mut lines).unwrap();
    let turns = 20_000u64;
    let (turn, arrived) = (AtomicU64::new(0), AtomicU64::new(0));
    let race = || {
        (1..=turns)
            .filter(|now| {
                while turn.load(Ordering::Acquire) < *now {
                    core::hint::spin_loop();
                    std::thread::yield_now()
                }
                let got = matches!(table.remove(0x4000), Removed::Block(_));
                arrived.fetch_add(1, Ordering::Release);
                got
            })
            .count() as u64
    };
    let mut stored = 0;
    let got: u64 = std::thread::scope(|scope| {
        let racers = [scope.spawn(race), scope.spawn(race)];
        for now in 1..=turns {
            stored += u64::from(table.insert(0x4000, &block_of(now, 1)) == Inserted::Stored);
            turn.store(now, Ordering::Release);
            while arrived.load(Ordering::Acquire) < 2 * now {
                std::thread::yield_now()
            }
        }
        racers.into_iter().map(|racer| racer.join().unwrap()).sum()
    });
    assert_eq!((got, stored), (turns, turns));
}

#[test]
fn copied_bytes_show_what_the_table_holds() {
    let mut lines = memory(512);
    let table = LiveTable::new(&mut lines).unwrap();
    for number in 1..=300u64 {
        let _ = table.insert(number * 4096, &block_of(number, 100));
    }
    for (word, count) in [(LOST, 3), (STALE, 4), (PUSHED_OUT, 5)] {
        table.counters.0[word].store(count, Ordering::Relaxed);
    }
    let bytes = bytes_of(&table);
    let header = LiveHeaderImage::parse(&bytes[..128], bytes.len() as u64).unwrap();
    assert_eq!(header.buckets(), ((2 + 8) * 64, 64));
    assert_eq!(
        (header.stats(), header.sampling()),
        (table.stats(), table.sampling())
    );
    let (at, count) = header.buckets();
    let images: Vec<BucketImage> = bytes[at as usize..]
        .chunks_exact(BucketImage::BYTES)
        .take(count as usize)
        .map(|bytes| BucketImage::parse(bytes.try_into().unwrap()))
        .collect();
    let found: HashMap<u64, LiveBlock> = images.iter().flat_map(BucketImage::blocks).collect();
    assert_eq!(found, table.blocks().collect());
    let lookup = |address: u64| images.iter().find_map(|image| image.containing(address));
    assert_eq!(lookup(77 * 4096 + 99), Some((77 * 4096, block_of(77, 100))));
    assert_eq!(
        (lookup(77 * 4096 + 100), lookup(77 * 4096 - 1)),
        (None, None)
    );
}

fn bytes_of(table: &LiveTable<'_>) -> Vec<u8> {
    let lines = [table.header, table.counters]
        .into_iter()
        .chain(table.tags)
        .chain(table.buckets.iter().flatten());
    let words = lines.flat_map(|line| line.0.each_ref().map(|word| word.load(Ordering::Relaxed)));
    words.flat_map(u64::to_le_bytes).collect()
}

#[test]
fn hostile_bytes_are_refused() {
    let mut lines = memory(64);
    let table = LiveTable::new(&mut lines).unwrap();
    let _ = table.insert(0x1000, &block_of(1, 1));
    let good = bytes_of(&table);
    let refused = |bytes: &[u8], section_bytes: usize| {
        format!(
            "{}",
            LiveHeaderImage::parse(bytes, section_bytes as u64).unwrap_err()
        )
    };
    assert!(refused(&good[..127], good.len()).contains("needs 128 bytes"));
    assert!(refused(&good, good.len() - 1).contains("bytes"));
    for (word, value) in [(0, 1), (1, 0), (2, 0), (2, 1), (2, 9), (2, u64::MAX)] {
        let mut bytes = good.clone();
        bytes[word * 8..][..8].copy_from_slice(&u64::to_le_bytes(value));
        refused(&bytes, good.len());
    }
    let mut random = Random(3);
    for _ in 0..3000 {
        let noise: [u8; BucketImage::BYTES] = core::array::from_fn(|_| random.below(256) as u8);
        let sampling = Sampling::new(random.below(u64::MAX));
        for (address, block) in BucketImage::parse(&noise).blocks() {
            assert!(address != 0 && sampling.factor(address, block.size) != 1);
        }
        let mut other = noise;
        other.iter_mut().for_each(|byte| *byte ^= 1);
        assert_eq!(BucketImage::parse_twice(&noise, &other).blocks().count(), 0);
    }
}
