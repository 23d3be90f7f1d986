//! Loom models of a cache's references, taken and given back together, against a retire.
#![allow(clippy::unwrap_used, reason = "models stop where they fail")]

use super::{BATCH, EntryImage, HoldCaches};
use crate::config::Config;
use crate::depot::Depot;
use crate::evict::Wanted;
use crate::handle::WeakHandle;
use crate::layout::Memory;
use crate::section::SectionMemory;
use crate::sync::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread;

fn config() -> Config {
    Config {
        references: true,
        payload_words: 1,
        ..Config::new(0)
    }
}

/// Runs a model with one stack in a depot of one slot, which another thread retires if it can; answers
/// whether it did to `model`'s second part.
fn against_a_retire<T>(
    before: impl Fn(&Depot<'_>, &HoldCaches<'_>, WeakHandle) + Send + Sync + 'static,
    meanwhile: impl Fn(&Depot<'_>, &HoldCaches<'_>, WeakHandle) -> T + Send + Sync + 'static,
    after: impl Fn(&Depot<'_>, WeakHandle, bool, T) + Send + Sync + 'static,
) {
    let config = config();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let memory = Arc::new(Memory::new(1, &config));
        let section = SectionMemory::new(1);
        let caches = HoldCaches::of_memory(&section);
        let depot = Depot::of(&memory);
        let weak = depot.save(&[1, 2]).unwrap();
        before(&depot, &caches, weak);
        let other = memory.clone();
        let retire = thread::spawn(move || other.region().try_claim(1, Wanted::FreeOrUnheld));
        let answer = meanwhile(&depot, &caches, weak);
        let is_retired = retire.join().unwrap();
        after(&depot, weak, is_retired, answer);
    });
}

/// Copied as a reader of the file copies: word by word, upwards, one after the other.
fn copy(entry: &super::Entry<'_>) -> Option<EntryImage> {
    // ORDERING: Acquire, partner: the Release stores of `settle`, as the order of a copy.
    let words = core::array::from_fn(|index| entry.word(index).load(Ordering::Acquire));
    EntryImage::of_words(words)
}

#[test]
fn who_reads_an_entry_before_and_after_the_payload_counts_nothing_twice_and_misses_nothing() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(|| {
        let memory = Arc::new(Memory::new(1, &config()));
        let section = Arc::new(SectionMemory::new(1));
        let weak = {
            let depot = Depot::of(&memory);
            let weak = depot.save(&[1, 2]).unwrap();
            let entry = HoldCaches::of_memory(&section).get(0).unwrap().entry(weak);
            entry.enter(&depot, weak);
            entry.add(&depot, weak, 0, &[1]);
            weak
        };
        let (other, beside) = (memory.clone(), section.clone());
        let writer = thread::spawn(move || {
            let cache = HoldCaches::of_memory(&beside).get(0).unwrap();
            cache.entry(weak).settle(&Depot::of(&other), weak);
        });
        let entry = HoldCaches::of_memory(&section).get(0).unwrap().entry(weak);
        let first = copy(&entry).unwrap();
        // ORDERING: Acquire, partner: the Release of `add_words`.
        let payload = memory
            .region()
            .payload_of(1)
            .first()
            .unwrap()
            .load(Ordering::Acquire);
        let second = copy(&entry).unwrap();
        if first.has_not_moved_until(&second) && !first.is_moving {
            assert_eq!(payload + first.waiting.first().unwrap(), 1);
        }
        writer.join().unwrap();
    });
}

fn word(words: &[AtomicU64]) -> u64 {
    words.first().map_or(0, |word| word.load(Ordering::Relaxed))
}

fn references(depot: &Depot<'_>) -> u64 {
    depot.region.slot(1).unwrap().state_now().references()
}

#[test]
fn a_stack_moves_into_an_entry_or_is_gone() {
    against_a_retire(
        |_, _, _| {},
        |depot, caches, weak| {
            let entry = caches.get(0).unwrap().entry(weak);
            entry.enter(depot, weak);
            entry.names(weak)
        },
        |depot, _, is_retired, has_entry| {
            assert_ne!(is_retired, has_entry);
            let owned = if has_entry { BATCH + 1 } else { 0 };
            assert_eq!(references(depot), owned);
        },
    );
}

#[test]
fn what_waits_is_counted_before_its_stack_may_go() {
    against_a_retire(
        |depot, caches, weak| {
            let cache = caches.get(0).unwrap();
            let entry = cache.entry(weak);
            entry.enter(depot, weak);
            entry.add(depot, weak, 0, &[1]);
        },
        |depot, caches, _| caches.get(0).unwrap().clear(depot),
        |depot, _, is_retired, ()| {
            let region = &depot.region;
            let total = word(&region.header.counters.evicted_payload);
            let counts = (word(region.payload_of(1)), total);
            assert_eq!(counts, if is_retired { (0, 1) } else { (1, 0) });
            assert_eq!(references(depot), 0);
        },
    );
}
