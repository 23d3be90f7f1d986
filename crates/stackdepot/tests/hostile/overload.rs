//! Limits that are met: the longest stacks, a million through room for a thousand, a thousand
//! threads, and releases while a save is about to be refused.

use std::collections::{HashSet, VecDeque};
use std::sync::Barrier;
use std::thread;

use stackdepot::{
    Config, Depot, Hold, Leased, MOST_FRAMES, RUN_FRAMES, SaveError, Stats, WeakHandle,
};

use crate::{memory, mix, of_slots};

/// The frames of a stored stack.
fn fetched(depot: Depot<'_>, weak: WeakHandle) -> Option<(Vec<u64>, bool)> {
    let mut frames = vec![0; MOST_FRAMES as usize + 1];
    let fetched = depot.fetch(weak, &mut frames).ok()?;
    frames.truncate(fetched.frame_count);
    Some((frames, fetched.is_cut))
}

/// A stack of any length; every word of a wide one has its own upper half.
fn long(salt: u64, length: usize, is_wide: bool) -> Vec<u64> {
    let mask = if is_wide { u64::MAX } else { 0xffff_ffff };
    let frame = |place| mix(salt << 32 | place) & mask;
    (0..length as u64).map(frame).collect()
}

/// Stacks of the greatest length, through a region with exactly the slots of one of them.
fn longest_stacks_pass(is_wide: bool) {
    let most = MOST_FRAMES as usize;
    let node_count = MOST_FRAMES.div_ceil(RUN_FRAMES as u32);
    let slot_count = node_count * if is_wide { 2 } else { 1 };
    let config = Config {
        max_frames: MOST_FRAMES,
        ..of_slots(slot_count)
    };
    let mut memory = memory(&config);
    let depot = Depot::new(&mut memory, &config).unwrap();
    for salt in 0..100 {
        let stack = long(salt, most + 1, is_wide);
        for length in [most, most - 1, most + 1] {
            let weak = depot.save(&stack[..length]).unwrap();
            let kept = stack[..length.min(most)].to_vec();
            assert_eq!(
                fetched(depot, weak),
                Some((kept, length > most)),
                "{length}"
            );
        }
    }
    let stats = depot.stats();
    assert_eq!((stats.truncated, stats.full, stats.crowded), (100, 0, 0));
    assert_eq!((stats.new_stacks, stats.contended), (300, 0));
}

#[test]
fn the_longest_stack_fits_where_its_nodes_do_and_one_more_frame_is_cut() {
    longest_stacks_pass(false);
    longest_stacks_pass(true);
}

#[test]
fn a_cut_stack_is_not_the_whole_one() {
    let config = Config {
        max_frames: MOST_FRAMES,
        ..of_slots(1000)
    };
    let mut memory = memory(&config);
    let depot = Depot::new(&mut memory, &config).unwrap();
    let stack = long(7, MOST_FRAMES as usize + 1, false);
    let (whole, cut) = (&stack[..MOST_FRAMES as usize], &stack[..]);
    let (weak, cut_weak) = (depot.save(whole).unwrap(), depot.save(cut).unwrap());
    assert_ne!(weak, cut_weak);
    assert_eq!(fetched(depot, weak).unwrap(), (whole.to_vec(), false));
    assert_eq!(fetched(depot, cut_weak).unwrap(), (whole.to_vec(), true));
    assert_eq!(
        (depot.save(whole), depot.save(cut)),
        (Ok(weak), Ok(cut_weak))
    );
}

/// One of a million: four frames of its own under one of sixteen outer runs.
fn nth(number: u64) -> Vec<u64> {
    let own = (0..4).map(|place| mix(number * 4 + place) & 0xffff_ffff);
    let outer = (0..10).map(|place| 0x40_0000 + (number % 16 * 10 + place) * 64);
    own.chain(outer).collect()
}

/// What must hold of the counters whenever nobody is inside an operation.
fn assert_counters_add_up(depot: Depot<'_>) -> Stats {
    let stats = depot.stats();
    let stored = depot.walk().count() as u64;
    assert_eq!(stats.new_stacks - stats.evicted_stacks, stored, "{stats:?}");
    assert_eq!(stats.new_nodes - stats.evicted_nodes, stats.node_count);
    assert!(
        stored <= stats.node_count && stats.node_count <= stats.slot_count,
        "{stats:?}"
    );
    stats
}

/// So many different stacks, the newest `window` of them held in some way.
fn pass(config: Config, stack_count: u64, hold: Hold, window: usize) {
    let mut memory = memory(&config);
    let depot = Depot::new(&mut memory, &config).unwrap();
    let (mut held, mut names) = (VecDeque::new(), HashSet::new());
    for number in 0..stack_count {
        let stack = nth(number);
        let saved = depot.save_held(&stack, hold).expect("there is room");
        assert!(names.insert(saved.weak), "a name is used twice");
        assert_eq!(fetched(depot, saved.weak), Some((stack, false)));
        held.push_back((number, saved));
        if number % 50 == 0 {
            depot.advance(1);
        }
        if held.len() > window {
            let (number, oldest) = held.pop_front().unwrap();
            let found = fetched(depot, oldest.weak);
            let is_right = found == Some((nth(number), false));
            assert!(
                is_right || (found.is_none() && hold == Hold::None),
                "{number}: {found:?}"
            );
            if hold == Hold::Reference {
                depot.put(oldest.handle);
            }
        }
    }
    let stats = assert_counters_add_up(depot);
    assert_eq!(stats.new_stacks, stack_count, "{stats:?}");
    assert_eq!(
        (stats.full, stats.contended, stats.crowded),
        (0, 0, 0),
        "{stats:?}"
    );
    assert!(stats.evicted_stacks >= stack_count - stats.slot_count);
}

#[test]
fn a_million_stacks_pass_through_room_for_a_thousand() {
    pass(of_slots(1000), 1_000_000, Hold::None, 500);
    let references = Config {
        references: true,
        ..of_slots(1000)
    };
    pass(references, 300_000, Hold::Reference, 500);
    // A tick is 50 stacks: 9 of them, and the one that goes on, hold 500.
    let leases = Config {
        lease_ticks: 9,
        ..of_slots(1000)
    };
    pass(leases, 300_000, Hold::Lease, 400);
}

const THREADS: u64 = 1000;
const CALLS: u64 = 300;

/// A held stack, and which one it is.
type Numbered = (u64, Leased);

/// One of the thousand: saves, holds and checks; answers how often it was refused, and what it
/// holds in the end.
fn call(depot: Depot<'_>, thread: u64, common: (&[u64], WeakHandle)) -> (u64, VecDeque<Numbered>) {
    let (mut refused, mut held) = (0, VecDeque::new());
    for round in 0..CALLS {
        let number = mix(thread * CALLS + round) % 4000;
        match depot.save_held(&nth(number), Hold::Reference) {
            Ok(saved) => held.push_back((number, saved)),
            Err(SaveError::Full | SaveError::Contended | SaveError::Crowded) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
        if held.len() > 2 {
            let (number, saved) = held.pop_front().unwrap();
            assert_eq!(
                fetched(depot, saved.weak),
                Some((nth(number), false)),
                "held"
            );
            depot.put(saved.handle);
            let found = fetched(depot, saved.weak);
            assert!(found.is_none_or(|found| found == (nth(number), false)));
        }
        let (frames, weak) = common;
        let again = depot.save(frames);
        assert_eq!(again, Ok(weak), "a held stack has one name");
        thread::yield_now();
    }
    (refused, held)
}

#[test]
fn a_thousand_threads_share_one_region() {
    let config = Config {
        references: true,
        ..of_slots(1500)
    };
    let mut memory = memory(&config);
    let depot = Depot::new(&mut memory, &config).unwrap();
    let common = depot.save_acquire(&[1, 2, 3]).unwrap();
    let barrier = Barrier::new(THREADS as usize);
    let answers: Vec<(u64, VecDeque<Numbered>)> = thread::scope(|scope| {
        let start = |number| {
            let barrier = &barrier;
            let work = move || {
                barrier.wait();
                call(depot, number, (&[1, 2, 3], common.weak))
            };
            let builder = thread::Builder::new().stack_size(256 << 10);
            builder.spawn_scoped(scope, work).unwrap()
        };
        let threads: Vec<_> = (0..THREADS).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    for (number, saved) in answers.iter().flat_map(|(_, held)| held) {
        assert_eq!(fetched(depot, saved.weak), Some((nth(*number), false)));
        depot.put(saved.handle);
    }
    depot.put(common.handle);
    let refused: u64 = answers.iter().map(|(refused, _)| refused).sum();
    let stats = assert_counters_add_up(depot);
    assert_eq!(
        stats.full + stats.contended + stats.crowded,
        refused,
        "{stats:?}"
    );
    assert!(
        depot.walk().all(|walked| walked.references == 0),
        "a reference is left"
    );
    println!(
        "overload: {THREADS} threads, {} saves, {refused} refused and counted, {} evicted, wrong 0",
        THREADS * CALLS,
        stats.evicted_stacks
    );
}

#[cfg(stackdepot_fault)]
mod released {
    use super::*;
    use stackdepot::sync::fault;
    use std::cell::Cell;
    use std::rc::Rc;

    /// Every slot is held; right before the k-th step of a save one of them is put. Then it can
    /// be taken, now or by the next save.
    fn put_before_step(config: &Config, put: usize, step: u64) -> bool {
        let slot_count = config.geometry().unwrap().slot_count;
        let mut memory = memory(config);
        let base = std::ptr::NonNull::from(&mut memory[..]).cast();
        // SAFETY: zeroed, as long as the configuration says, and alive to the end; only depots
        // use it, and none of them longer.
        let depot: Depot<'static> = unsafe { Depot::create(base, config) }.unwrap();
        let mut held = Vec::new();
        for number in 1.. {
            match depot.save_acquire(&[number]) {
                Ok(saved) => held.push((number, saved)),
                Err(_) => break,
            }
        }
        assert_eq!(held.len(), slot_count as usize);
        let (_, released) = held[put % held.len()];
        let is_put = Rc::new(Cell::new(false));
        let putting = is_put.clone();
        let action = move || {
            depot.put(released.handle);
            putting.set(true);
        };
        fault::arm(step, Box::new(action));
        let _ = depot.save(&[0x1000]);
        let is_over = fault::disarm();
        if !is_over {
            assert!(is_put.get());
            let next = depot.save_acquire(&[0x2000]);
            assert!(
                next.is_ok(),
                "{slot_count} slots, number {put} put before step {step}: {next:?}, nobody holds it"
            );
        }
        !is_over
    }

    #[test]
    fn a_put_before_any_step_of_a_refused_save_is_not_missed() {
        let mut count = 0;
        // Leases shorten the proof that everything is held to one lap.
        for (slot_count, lease_ticks) in [(3, 0), (3, 4), (16, 4), (40, 0), (40, 4)] {
            let config = Config {
                references: true,
                lease_ticks,
                ..of_slots(slot_count)
            };
            for put in [0, 1, slot_count as usize / 2, slot_count as usize - 1] {
                count += (1..)
                    .take_while(|step| put_before_step(&config, put, *step))
                    .count();
            }
        }
        println!("overload: {count} releases while a save was refused, none missed");
    }
}
