//! The arithmetic of places, at every edge and around the wrap.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

extern crate std;

use super::*;

#[test]
fn a_place_is_before_those_of_the_next_half_turn() {
    const HALF: u64 = PLACE_MASK / 2;
    assert_eq!((PLACE_MASK, HALF), (0xf_ffff_ffff_ffff, 0x7_ffff_ffff_ffff));
    for start in [0, 1, 77, HALF, PLACE_MASK] {
        for (distance, is_later) in [
            (0, false),
            (1, true),
            (HALF, true),
            (HALF + 1, false),
            (PLACE_MASK, false),
        ] {
            let later = (start + distance) & PLACE_MASK;
            assert_eq!(
                is_before(start, later),
                is_later,
                "{start:#x} {distance:#x}"
            );
        }
    }
}

#[test]
fn a_cursor_hands_out_its_chunk_and_then_nothing() {
    for (last, count) in [(64, 64), (1000, 1), (1000, 0), (1000, 37), (PLACE_MASK, 64)] {
        let chunk = Cursor::chunk(last, count);
        for taken in 0..count {
            let seen = Cursor(chunk.0 + taken);
            assert_eq!(seen.left(), count - taken);
            assert_eq!(seen.place(), Some(last - count + 1 + taken));
        }
        for late in count..count + 200 {
            let seen = Cursor(chunk.0 + late);
            assert_eq!((seen.left(), seen.place()), (0, None));
            assert_eq!(seen.brings_next(), (late - count) % 64 == 0, "{late}");
        }
    }
    // The place after the last number is 0; a chunk may lie across.
    let across = Cursor::chunk(1, 3);
    let places: [_; 3] = core::array::from_fn(|taken| Cursor(across.0 + taken as u64).place());
    assert_eq!(places, [Some(PLACE_MASK), Some(0), Some(1)]);
}

#[test]
fn a_shard_that_never_had_a_chunk_gets_one_soon() {
    let bringers = (0..200).filter(|seen| Cursor(*seen).brings_next());
    assert!(bringers.eq([1, 65, 129, 193]));
    assert!((0..200).all(|seen| Cursor(seen).place().is_none()));
}

/// Places of ticks of 16 events and chunks of 8 at most, over one shard.
fn with_places(test: impl Fn(Places<'_>, &WordLine)) {
    let head = AtomicU64::new(0);
    let shards = [WordLine(core::array::from_fn(|_| AtomicU64::new(0)))];
    let places = Places {
        head: &head,
        shards: &shards,
        tick_events: NonZeroU64::new(16).unwrap(),
        most_chunk: 8,
    };
    test(places, &shards[0]);
}

#[test]
fn a_place_is_aged_when_more_than_a_tick_was_claimed_since() {
    with_places(|places, _| {
        for number in [1, 1000, PLACE_MASK - 3] {
            for (age, is_aged) in [
                (0, false),
                (16, false),
                (17, true),
                (PLACE_MASK / 2, true),
                (PLACE_MASK / 2 + 1, false),
            ] {
                places
                    .head
                    .store((number + age) & PLACE_MASK, Ordering::Relaxed);
                assert_eq!(places.is_aged(number), is_aged, "{number} {age}");
            }
        }
    });
}

#[test]
fn chunks_grow_where_they_are_used_up_at_once_and_shrink_where_they_age() {
    with_places(|places, shard| {
        let next = |size: u64, start: u64, aged| {
            shard.0[CHUNK_SIZE].store(size, Ordering::Relaxed);
            shard.0[CHUNK_START].store(start, Ordering::Relaxed);
            places.head.store(100, Ordering::Relaxed);
            let next = places.next_size(shard, aged);
            assert_eq!(shard.0[CHUNK_SIZE].load(Ordering::Relaxed), next);
            assert_eq!(shard.0[CHUNK_START].load(Ordering::Relaxed), 100);
            next
        };
        assert_eq!(
            [0, 1, 2, 3, 4, 8, 99].map(|size| next(size, 96, false)),
            [2, 2, 4, 6, 8, 8, 8]
        );
        assert_eq!([1, 3, 8].map(|size| next(size, 95, false)), [1, 3, 8]);
        assert_eq!(
            [0, 1, 4, 7, 8].map(|size| next(size, 96, true)),
            [1, 1, 1, 1, 2]
        );
    });
}

#[test]
fn every_place_is_handed_out_wasted_or_left_and_ticks_begin_on_time() {
    with_places(|places, shard| {
        let (mut taken, mut tick_count) = (0, 0);
        for step in 0..500 {
            // Others claim now and then, so that chunks age.
            let (number, ticks) = match step % 11 {
                0 => places.claim(30),
                _ => places.take(0),
            };
            taken += if step % 11 == 0 { 30 } else { 1 };
            tick_count += u64::from(ticks);
            let head = places.head.load(Ordering::Relaxed);
            assert!(number >= 1 && number <= head);
            assert_eq!(tick_count, head / 16);
            let wasted = shard.0[WASTED].load(Ordering::Relaxed);
            let left = Cursor(shard.0[CURSOR].load(Ordering::Relaxed)).left();
            assert_eq!(head, taken + wasted + left, "step {step}");
        }
        assert!(shard.0[WASTED].load(Ordering::Relaxed) > 0);
    });
}

#[test]
fn a_remainder_without_a_division_is_the_remainder() {
    let edges = |number: u64| [number.wrapping_sub(1), number, number.wrapping_add(1)];
    let numbers = (0..64)
        .map(|shift| 1u64 << shift)
        .chain([3, 7, 48_771, u64::MAX, PLACE_MASK]);
    let all: std::vec::Vec<u64> = numbers.flat_map(edges).collect();
    for number in all.iter().filter_map(|number| NonZeroU64::new(*number)) {
        let divisor = Divisor::new(number);
        for value in all
            .iter()
            .flat_map(|value| [*value, value.wrapping_mul(number.get())])
        {
            assert_eq!(divisor.rest_of(value), value % number, "{value} % {number}");
        }
    }
}
