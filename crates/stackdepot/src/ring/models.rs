//! Loom models of an entry and of the places, without the depot behind the ring.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "models stop where they fail"
)]

use super::entry::{read_words, write_entry};
use super::place::Places;
use crate::section::{SectionMemory, WordLine};
use crate::sync::Ordering;
use core::num::NonZeroU64;
use loom::sync::Arc;
use loom::thread;

fn check(preemption_bound: usize, model: impl Fn(Arc<SectionMemory>) + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(move || model(Arc::new(SectionMemory::new(3))));
}

fn entry(memory: &SectionMemory) -> &WordLine {
    &memory.lines()[0]
}

fn write(memory: &SectionMemory, number: u64) -> bool {
    write_entry(entry(memory), number, [number; 2])
}

fn assert_whole_or_gone(memory: &SectionMemory, number: u64) {
    let found = read_words::<2>(entry(memory), number);
    assert!(
        found.is_none_or(|words| words == [number; 2]),
        "torn: {found:?}"
    );
}

#[test]
fn reader_of_an_entry_that_is_overwritten_sees_it_whole_or_not_at_all() {
    check(3, |memory| {
        assert!(write(&memory, 1));
        let writer = {
            let memory = memory.clone();
            thread::spawn(move || (write(&memory, 2), write(&memory, 3)))
        };
        assert_whole_or_gone(&memory, 1);
        assert_whole_or_gone(&memory, 2);
        assert_eq!(writer.join().unwrap(), (true, true));
        assert_eq!(read_words(entry(&memory), 3), Some([3; 2]));
    });
}

#[test]
fn entry_of_one_writer_is_not_torn_by_a_later_one() {
    check(3, |memory| {
        let writers = [1, 2].map(|number| {
            let memory = memory.clone();
            thread::spawn(move || write(&memory, number))
        });
        assert_whole_or_gone(&memory, 2);
        let written = writers.map(|writer| writer.join().unwrap());
        assert!(written[0] || written[1]);
        (1..=2).for_each(|number| assert_whole_or_gone(&memory, number));
    });
}

const TICK_EVENTS: NonZeroU64 = NonZeroU64::new(2).unwrap();

/// A claim as `Ring::claim` makes it: the place, and the clock that was read after it.
fn claim(memory: &SectionMemory) -> (u64, u64) {
    let [head, clock, shard @ ..] = memory.lines() else {
        panic!("three lines");
    };
    let places = Places {
        head: &head.0[0],
        shards: shard,
        tick_events: TICK_EVENTS,
        most_chunk: TICK_EVENTS.get(),
    };
    let (number, ticks) = places.take(0);
    let clock = &clock.0[0];
    if ticks != 0 {
        clock.fetch_add(ticks.into(), Ordering::Relaxed);
    }
    (number, clock.load(Ordering::Relaxed))
}

/// INVARIANT R3 with chunks: who takes a place of another's chunk may miss one move of the clock.
#[test]
fn who_takes_a_place_of_a_chunk_sees_the_ticks_before_that_chunk() {
    check(3, |memory| {
        // Chunks of two from the first on, that is, from place 2.
        memory.lines()[2].0[super::place::CHUNK_SIZE].store(2, Ordering::Relaxed);
        assert_eq!(claim(&memory), (1, 0));
        let other = {
            let memory = memory.clone();
            thread::spawn(move || [(); 3].map(|()| claim(&memory)))
        };
        let (number, tick) = claim(&memory);
        assert!(
            tick + 1 >= number / TICK_EVENTS,
            "place {number} has tick {tick}"
        );
        other.join().unwrap();
    });
}
