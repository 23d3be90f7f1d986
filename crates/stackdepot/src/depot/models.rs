//! Loom models of a slot's life, one transition against another: retire, reuse, reader, holder.
//!
//! The models of `tests/loom` save and fetch whole stacks; here each thread takes only the steps
//! that matter, so that all orders of three threads are seen in seconds.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "models stop where they fail"
)]

use super::Depot;
use crate::config::Config;
use crate::error::AttachError;
use crate::evict::Wanted;
use crate::frame::{WindowTable, low, pack};
use crate::handle::WeakHandle;
use crate::layout::{Memory, Region};
use crate::slot::NodeData;
use crate::state::State;
use crate::sync::{AtomicU64, Ordering};
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

/// Runs a model in every way that the preemption bound allows, on that many slots.
fn check(
    preemption_bound: usize,
    slot_count: u32,
    payload_words: u32,
    model: impl Fn(Arc<Memory>) + Send + Sync + 'static,
) {
    let config = Config {
        references: true,
        payload_words,
        ..Config::new(0)
    };
    check_with(config, preemption_bound, slot_count, model);
}

fn check_with(
    config: Config,
    preemption_bound: usize,
    slot_count: u32,
    model: impl Fn(Arc<Memory>) + Send + Sync + 'static,
) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemption_bound);
    builder.check(move || model(Arc::new(Memory::new(slot_count, &config))));
}

fn spawn<T: 'static>(
    memory: &Arc<Memory>,
    work: impl FnOnce(Region<'_>) -> T + 'static,
) -> JoinHandle<T> {
    let memory = memory.clone();
    thread::spawn(move || work(memory.region()))
}

fn save(memory: &Memory, frames: &[u64]) -> WeakHandle {
    Depot::of(memory).save(frames).unwrap()
}

/// What a root node of these frames has in its slot; their windows are in the table afterwards.
fn node(memory: &Memory, run: [u64; 2]) -> NodeData {
    let windows = WindowTable::of(memory.region().header).windows_of(&run);
    NodeData {
        parent: 0,
        hash: 0,
        windows: windows.unwrap(),
        lows: pack(&run, low),
    }
}

/// OWNED -> LIVE, held by its maker.
fn make(region: Region<'_>, number: u32, data: &NodeData) {
    let slot = region.slot(number).unwrap();
    slot.write_node(data);
    slot.bear(2, State::SAVED_BIT);
}

fn retire(region: Region<'_>, number: u32) -> bool {
    region.try_claim(number, Wanted::FreeOrUnheld)
}

/// Retires a node and leaves its slot to others.
fn free(region: Region<'_>, number: u32) {
    if retire(region, number) {
        region.slot(number).unwrap().free_owned();
    }
}

fn assert_whole_or_evicted(region: Region<'_>, weak: WeakHandle, frames: [u64; 2]) {
    let mut found = [0; 2];
    if region.fetch(weak, &mut found).is_ok() {
        assert_eq!(found, frames, "of another life");
    }
}

#[test]
fn who_sees_a_node_sees_its_data() {
    check(3, 1, 0, |memory| {
        let data = node(&memory, [1, 2]);
        let maker = spawn(&memory, move |region| {
            assert!(region.try_claim(1, Wanted::Free));
            make(region, 1, &data);
        });
        assert_whole_or_evicted(memory.region(), WeakHandle::new(1, 0), [1, 2]);
        maker.join().unwrap();
    });
}

#[test]
fn who_sees_a_generation_sees_nothing_of_the_one_before() {
    check(3, 1, 0, |memory| {
        save(&memory, &[1, 2]);
        let data = node(&memory, [3, 4]);
        let other = spawn(&memory, move |region| {
            assert!(retire(region, 1));
            make(region, 1, &data);
        });
        assert_whole_or_evicted(memory.region(), WeakHandle::new(1, 1), [3, 4]);
        other.join().unwrap();
    });
}

#[test]
fn a_reader_sees_nothing_of_the_next_life_whoever_gave_the_slot_to_whom() {
    check(3, 1, 0, |memory| {
        let weak = save(&memory, &[1, 2]);
        let data = node(&memory, [3, 4]);
        let first = spawn(&memory, |region| free(region, 1));
        let next = spawn(&memory, move |region| {
            // A claim looks at the state before, but a whole life may come after that look.
            if region.slot(1).unwrap().claim_free() {
                make(region, 1, &data);
                assert_whole_or_evicted(region, weak, [1, 2]);
            }
        });
        assert_whole_or_evicted(memory.region(), weak, [1, 2]);
        first.join().unwrap();
        next.join().unwrap();
    });
}

#[test]
fn who_takes_a_parent_sees_its_child_retired() {
    check(3, 2, 0, |memory| {
        let weak = save(&memory, &[1, 2, 3]);
        let data = node(&memory, [5, 6]);
        let parent = 3 - weak.slot();
        let other = spawn(&memory, move |region| free(region, weak.slot()));
        let region = memory.region();
        if retire(region, parent) {
            make(region, parent, &data);
        }
        let mut found = [0; 3];
        if region.fetch(weak, &mut found).is_ok() {
            assert_eq!(found, [1, 2, 3], "of another life");
        }
        other.join().unwrap();
    });
}

#[test]
fn who_takes_the_slot_of_upper_halves_sees_their_node_retired() {
    check(3, 3, 0, |memory| {
        // The two windows are taken, then a third one needs a slot for the upper halves.
        save(&memory, &[1 << 32 | 1, 2]);
        let wide = [3 << 32 | 1, 3 << 32 | 2];
        let weak = save(&memory, &wide);
        let ext = memory.region().slot(weak.slot()).unwrap();
        let ext = (ext.link.load(Ordering::Relaxed) >> 32) as u32;
        let other = spawn(&memory, move |region| free(region, weak.slot()));
        let region = memory.region();
        if region.try_claim(ext, Wanted::Free) {
            region.slot(ext).unwrap().write_ext(&[7 << 32 | 7]);
        }
        assert_whole_or_evicted(region, weak, wide);
        other.join().unwrap();
    });
}

#[test]
fn numbers_of_a_life_are_not_seen_in_the_one_before_whoever_adds_them() {
    check(3, 1, 1, |memory| {
        let weak = save(&memory, &[1, 2]);
        let data = node(&memory, [3, 4]);
        let maker = spawn(&memory, move |region| {
            if retire(region, 1) {
                make(region, 1, &data);
            }
        });
        let adder = spawn(&memory, |region| {
            if region.acquire(WeakHandle::new(1, 1)).is_ok() {
                region.add_words(1, 0, &[5]);
            }
        });
        if let Ok(payload) = memory.region().payload(weak) {
            assert_eq!(payload[0], 0, "of another life");
        }
        maker.join().unwrap();
        adder.join().unwrap();
    });
}

fn word(words: &[AtomicU64]) -> u64 {
    words[0].load(Ordering::Relaxed)
}

/// The state word may say the same again after a holder came and went.
#[test]
fn who_retires_a_node_sees_what_its_holders_added() {
    check(3, 1, 1, |memory| {
        let weak = save(&memory, &[1, 2]);
        let holder = spawn(&memory, move |region| {
            let held = region.acquire(weak).is_ok();
            if held {
                region.add_words(1, 0, &[5]);
                region.release(1);
            }
            held
        });
        let region = memory.region();
        let retired = retire(region, 1);
        let left = word(region.payload_of(1));
        let added = if holder.join().unwrap() { 5 } else { 0 };
        if retired {
            let total = word(&region.header.counters.evicted_payload);
            assert_eq!((left, total), (0, added));
        }
    });
}

#[test]
fn numbers_of_a_life_are_folded_once() {
    check(3, 1, 1, |memory| {
        let held = Depot::of(&memory).save_acquire(&[1, 2]).unwrap();
        Depot::of(&memory).add_payload(held.handle, 0, 5);
        memory.region().release(1);
        let data = node(&memory, [3, 4]);
        let other = spawn(&memory, |region| free(region, 1));
        let region = memory.region();
        if region.try_claim(1, Wanted::Free) {
            make(region, 1, &data);
            region.release(1);
            assert!(retire(region, 1));
        }
        other.join().unwrap();
        assert_eq!(word(&region.header.counters.evicted_payload), 5);
    });
}

/// The lease counts from the tick that is answered, whether it was stamped now or had been.
#[test]
fn a_lease_that_is_taken_while_the_clock_moves_lasts_its_ticks() {
    let lease_ticks = 1;
    let config = Config {
        lease_ticks,
        ..Config::new(0)
    };
    for was_leased in [false, true] {
        check_with(config, 3, 1, move |memory| {
            let weak = save(&memory, &[1, 2]);
            let region = memory.region();
            if was_leased {
                region.renew(weak).unwrap();
            }
            let evicter = spawn(&memory, |region| {
                region.advance(2);
                retire(region, 1)
            });
            let leased = region.renew(weak);
            let is_retired = evicter.join().unwrap();
            if let (Ok(from), true) = (leased, is_retired) {
                assert!(
                    from.is_over(region.now(), lease_ticks),
                    "evicted while leased"
                );
            }
        });
    }
}

#[test]
fn who_sees_the_magic_sees_the_header() {
    check(3, 1, 0, |memory| {
        let header = memory.region().header;
        header.magic.store(0, Ordering::Relaxed);
        header.version.store(0, Ordering::Relaxed);
        let maker = spawn(&memory, |region| {
            Region::write_header(region.header, &Config::new(0), &region.geometry, 0);
        });
        let seen = Region::check_header(header, 0);
        assert!(
            !matches!(seen, Err(AttachError::Version { .. })),
            "{seen:?}"
        );
        maker.join().unwrap();
    });
}
