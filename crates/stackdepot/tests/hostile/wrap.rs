//! Generations and ticks at their end: what is stale stays stale, what is held stays held.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use stackdepot::state::State;
use stackdepot::{Config, Depot, FetchError, HoldError, Line, SaveError, Tick, WeakHandle};

use crate::{memory, of_slots};

/// Where the generation lies in a slot.
const GENERATION_OFFSET: usize = 8;

/// A stack of its own in each life of a slot.
fn frames(number: u64) -> [u64; 2] {
    [0x1000 + number, 0x40_0000]
}

fn is_evicted(depot: Depot<'_>, weak: WeakHandle) -> bool {
    let is_gone = depot.fetch(weak, &mut [0; 4]) == Err(FetchError::Evicted);
    if is_gone {
        assert_eq!(depot.acquire(weak), Err(HoldError::Evicted));
        assert_eq!(depot.renew(weak).err(), Some(HoldError::Evicted));
    }
    is_gone
}

/// Saves until every slot is worn; answers the names that were handed out, all stale now.
fn wear_out(depot: Depot<'_>) -> Vec<WeakHandle> {
    let mut names: Vec<WeakHandle> = Vec::new();
    for number in 0..1000 {
        match depot.save(&frames(number)) {
            Ok(weak) => {
                let mut found = [0; 2];
                depot.fetch(weak, &mut found).unwrap();
                assert_eq!(found, frames(number));
                assert!(!names.contains(&weak), "{weak:?} is handed out twice");
                names.push(weak);
            }
            Err(SaveError::Full) => break,
            Err(other) => panic!("{other:?}"),
        }
    }
    let stats = depot.stats();
    assert_eq!(
        (stats.worn_slots, stats.node_count),
        (stats.slot_count, 0),
        "{stats:?}"
    );
    assert!(
        names.iter().all(|weak| is_evicted(depot, *weak)),
        "a stale name resolves"
    );
    for number in 0..100 {
        assert_eq!(
            depot.save(&frames(number)),
            Err(SaveError::Full),
            "a worn slot is used"
        );
    }
    assert_eq!(depot.stats().full, stats.full + 100);
    names
}

fn config(slot_count: u32, generation_limit: u32) -> Config {
    Config {
        generation_limit,
        references: true,
        lease_ticks: 2,
        ..of_slots(slot_count)
    }
}

/// Opens the memory as the next process would.
fn reopen(memory: &mut [Line]) -> Depot<'_> {
    let bytes = size_of_val(memory);
    // SAFETY: a region of this test, which no depot uses any more.
    let opened = unsafe { Depot::reopen(NonNull::from(memory).cast(), bytes, []) };
    opened.unwrap().0
}

#[test]
fn a_slot_lives_as_often_as_the_limit_says_and_is_retired_for_good() {
    for generation_limit in [2, 3, 7] {
        let config = config(16, generation_limit);
        let mut memory = memory(&config);
        let names = wear_out(Depot::new(&mut memory, &config).unwrap());
        assert_eq!(names.len() as u32, 16 * generation_limit);
        assert!(
            names
                .iter()
                .all(|weak| weak.generation() < generation_limit)
        );
        let depot = reopen(&mut memory);
        assert_eq!(
            depot.save(&[1]),
            Err(SaveError::Full),
            "a reopen brings worn slots back"
        );
        assert!(names.iter().all(|weak| is_evicted(depot, *weak)));
    }
}

/// Ages the slots of an empty region; their earlier names were handed out long ago.
fn age(memory: &mut [Line], config: &Config, generation: u32) {
    let geometry = config.geometry().unwrap();
    for slot in 0..geometry.slot_count as usize {
        let offset = geometry.slots_offset + slot * 64 + GENERATION_OFFSET;
        // SAFETY: within the region, aligned, and no depot uses it now.
        let word = unsafe { AtomicU32::from_ptr(memory.as_mut_ptr().byte_add(offset).cast()) };
        assert_eq!(word.swap(generation, Ordering::Relaxed), 0);
    }
}

#[test]
fn generations_never_begin_again() {
    let config = config(16, u32::MAX);
    let mut memory = memory(&config);
    Depot::new(&mut memory, &config).unwrap();
    age(&mut memory, &config, u32::MAX - 3);
    let names = wear_out(reopen(&mut memory));
    assert_eq!(names.len(), 16 * 3);
    let depot = reopen(&mut memory);
    assert_eq!(
        depot.save(&[1]),
        Err(SaveError::Full),
        "worn slots are back"
    );
    for slot in 1..=16 {
        for generation in (0..9).chain(u32::MAX - 9..=u32::MAX) {
            assert!(is_evicted(depot, WeakHandle::new(slot, generation)));
        }
    }
}

const LEASE_TICKS: u32 = 4;

/// New stacks, more than there are slots: whoever is not held is gone then.
fn press(depot: Depot<'_>, salt: &mut u64) {
    for _ in 0..200 {
        *salt += 1;
        depot.save(&[0x10_0000 + *salt]).unwrap();
    }
}

/// Leases across a tick where the clock, or the stamp's 24 bits of it, begin again.
fn leases_pass(first_tick: u32) {
    let config = Config {
        references: true,
        lease_ticks: LEASE_TICKS,
        first_tick,
        ..of_slots(64)
    };
    let mut memory = memory(&config);
    let depot = Depot::new(&mut memory, &config).unwrap();
    let (mut salt, mut leased): (u64, Vec<(u32, WeakHandle)>) = (0, Vec::new());
    let renewed = depot.save_lease(&[1]).unwrap().weak;
    for tick in 0..24u32 {
        let lease = depot.save_lease(&[2, u64::from(tick)]).unwrap();
        assert_eq!(lease.from, Tick(first_tick.wrapping_add(tick) & Tick::MASK));
        leased.push((tick, lease.weak));
        press(depot, &mut salt);
        for (from, weak) in &leased {
            let is_held = tick - from <= LEASE_TICKS;
            assert_eq!(
                !is_evicted_unless_held(depot, *weak, is_held),
                is_held,
                "{from} at {tick}"
            );
        }
        if tick % LEASE_TICKS == 0 {
            depot.renew(renewed).expect("it was held all the time");
        }
        depot.advance(1);
    }
}

/// Whether it is gone; looks without renewing, for that would hold it.
fn is_evicted_unless_held(depot: Depot<'_>, weak: WeakHandle, is_held: bool) -> bool {
    if is_held {
        depot.fetch(weak, &mut [0; 4]).is_err()
    } else {
        is_evicted(depot, weak)
    }
}

#[test]
fn leases_last_as_long_as_ever_where_the_clock_begins_again() {
    for first_tick in [0, Tick::MASK - 10, u32::MAX - 10, Tick::MASK, 1 << 31] {
        leases_pass(first_tick);
    }
}

/// A whole turn of the clock later the old stamp looks new: it holds once more, and no longer.
#[test]
fn a_stamp_one_turn_old_holds_nothing_for_ever() {
    let config = Config {
        references: true,
        lease_ticks: LEASE_TICKS,
        ..of_slots(64)
    };
    let mut memory = memory(&config);
    let depot = Depot::new(&mut memory, &config).unwrap();
    let weak = depot.save_lease(&[1, 2]).unwrap().weak;
    depot.advance(1 << State::STAMP_BITS);
    depot.advance(LEASE_TICKS + 1);
    press(depot, &mut 0);
    assert!(is_evicted(depot, weak));
}
