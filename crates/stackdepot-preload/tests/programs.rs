//! Programs of every awkward kind, bare and recorded: unchanged output and exit status, right counts.

mod support;

use std::path::Path;

use stackdepot::ring::{EventKind, RingHeaderImage};
use stackdepot_region::caller::{Caller, Family};
use stackdepot_region::counters::Counter;
use stackdepot_region::reader::snapshot::{Amount, Snapshot};
use support::{Place, snapshot};

const MIB: usize = 1 << 20;
const RUN_BYTES: usize = 64 * MIB;

fn live(snapshot: &Snapshot) -> (u64, u64) {
    let stacks = snapshot.stacks().map(|stack| stack.live);
    stacks.fold((0, 0), |sum, live| (sum.0 + live.count, sum.1 + live.bytes))
}

fn unrecorded(snapshot: &Snapshot) -> u64 {
    snapshot.counters().get(Counter::EventsUnrecorded)
}

#[test]
fn leaks_are_counted_exactly() {
    let place = Place::new("leaks");
    let program = place.compile("leaks.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    let mut amounts: Vec<_> = found
        .stacks()
        .map(|stack| (stack.live.count, stack.live.bytes))
        .collect();
    amounts.sort_unstable();
    // Per thread one stack through `leak_a`; one through `leak_b`; the C library keeps a thread's block.
    assert!(amounts.contains(&(10, 10 * MIB as u64)), "{amounts:?}");
    assert_eq!(
        amounts
            .iter()
            .filter(|amount| **amount == (500, 32_000))
            .count(),
        2,
        "{amounts:?}"
    );
    assert_eq!(
        amounts.iter().map(|amount| amount.0).sum::<u64>(),
        1011,
        "{amounts:?}"
    );
    assert_eq!(found.ring_stats().events, 2_000_000 + 1011);
    assert_eq!(found.ring_stats().lapped + unrecorded(&found), 0);
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
}

#[test]
fn every_form_of_c_is_one_event_and_failures_are_none() {
    let place = Place::new("forms");
    let program = place.compile("forms.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    // Allocs: malloc 3, calloc, aligned_alloc, memalign, posix_memalign, valloc, pvalloc, and 2 that
    // realloc and reallocarray answered; as many frees.
    assert_eq!(found.ring_stats().events, 22);
    assert_eq!(found.counters().get(Counter::Reallocs), 2);
    assert_eq!(live(&found), (0, 0));
    assert!(found.events().iter().all(|event| event.stack.is_some()));
    let frees = found
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::Free);
    assert!(frees.clone().count() == 11 && frees.clone().all(|free| free.other_stack.is_some()));
}

#[test]
fn exceptions_pass_and_what_they_allocate_is_recorded() {
    let place = Place::new("exceptions");
    let program = place.compile("exceptions.cpp");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
    // libstdc++'s emergency pool.
    assert_eq!(live(&found).0, 1);
    // The pool; 1000 times an exception and an int; 8 forms; 3 more exceptions (one of them inside
    // the nothrow form), and 3 blocks of the new-handler: each allocated and freed but the pool.
    assert_eq!(found.ring_stats().events, 1 + 2 * (2000 + 7 + 3 + 3));
    assert_eq!(unrecorded(&found), 0);
}

#[test]
fn every_child_gets_a_file_of_its_own() {
    let place = Place::new("forks");
    let program = place.compile("forks.c");
    place.record(&program, &[], 128 * MIB);
    let found = snapshot(&place.first());
    let counts = found.ledger_counts();
    // 20 by fork, _Fork, clone, and the grandchild with its parent, who waits without allocating;
    // the shell, `true` and the spawned ones may or may not allocate.
    assert!(counts.children_recorded >= 24, "{counts:?}");
    assert_eq!(counts.children_unrecorded, 0, "{counts:?}");
    for path in place.children() {
        let child = snapshot(&path);
        if child.info().executable.ends_with(b"forks") {
            let events = child.ring_stats().events;
            assert!(events == 1999 || events == 0, "{path:?}: {events} events");
            assert_eq!(child.counters().get(Counter::FreesUnknown), 0);
            assert_eq!(live(&child).0, events.min(1));
        }
    }
}

#[test]
fn confined_children_go_unrecorded_and_are_counted() {
    let place = Place::new("confined");
    let program = place.compile("confined.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    assert_eq!(found.ring_stats().events, 2000);
    let counts = found.ledger_counts();
    // Small files, no memory, two filters, and the strict one that stops after it began; without privileges
    // only where the test itself has some.
    let expected = if is_root() { 6 } else { 5 };
    assert_eq!(counts.children_unrecorded, expected, "{counts:?}");
}

fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .is_ok_and(|status| status.lines().any(|line| line.starts_with("Uid:\t0\t")))
}

#[test]
fn threads_come_and_go_by_the_thousand() {
    for arguments in [["8", "8"], ["200", "20"], ["1000", "1000"], ["5000", "50"]] {
        let place = Place::new(&format!("threads-{}", arguments[0]));
        let program = place.compile("threads.c");
        place.record(&program, &arguments, RUN_BYTES);
        let found = snapshot(&place.first());
        let thread_count: u64 = arguments[0].parse().expect("a number");
        let blocks = found
            .stacks()
            .filter(|stack| {
                stack.live
                    == Amount {
                        count: thread_count,
                        bytes: thread_count * 32,
                    }
            })
            .count();
        assert_eq!(blocks, 1);
        assert_eq!(found.counters().get(Counter::Threads), thread_count + 1);
        assert_eq!(unrecorded(&found), 0);
        assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
        let (used, all) = used_shards(&place.first());
        let most = all.min(thread_count as usize + 1);
        assert_eq!(used, most, "threads share parts of the ring");
    }
}

/// Into how many parts of the ring something went, and how many there are.
fn used_shards(region: &Path) -> (usize, usize) {
    let bytes = std::fs::read(region).expect("the region's file");
    let is_ring = |page: &&[u8]| page.starts_with(b"STKDRING");
    let start = bytes
        .chunks(4096)
        .position(|page| is_ring(&page))
        .expect("a ring")
        * 4096;
    let ring = &bytes[start..];
    let header = RingHeaderImage::parse(&ring[..RingHeaderImage::BYTES], ring.len() as u64);
    let (offset, count) = header.expect("a ring's header").shards();
    let shards = ring[offset as usize..].chunks(64).take(count as usize);
    let used = shards.filter(|shard| shard[..8] != [0; 8]).count();
    (used, count as usize)
}

#[test]
fn errno_stays_where_memory_is_used_up() {
    let place = Place::new("errnos");
    let program = place.compile("errnos.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
    assert_eq!(found.counters().get(Counter::Threads), 101);
}

#[test]
fn handlers_allocate_and_jump_away() {
    let place = Place::new("signals");
    let program = place.compile("signals.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    assert_eq!(found.counters().get(Counter::UnwindFailed), 0);
    // The alternate stack, the output buffer's owner none, and the handler's last block.
    assert_eq!(live(&found).0, 2);
    assert_eq!(unrecorded(&found), 0);
}

#[test]
fn recorder_may_be_interrupted_left_and_forked_at_any_point() {
    let place = Place::new("interrupts");
    let program = place.compile("interrupts.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    // A jump out of a hook loses at most the event that it cut off; the next ones are recorded.
    assert!(
        found.ring_stats().events > 10_000,
        "{:?}",
        found.ring_stats()
    );
    assert!(
        unrecorded(&found) < 1000,
        "{} events unrecorded",
        unrecorded(&found)
    );
    assert_eq!(found.counters().get(Counter::Threads), 1);
}

#[test]
fn recorder_may_be_interrupted_between_any_two_instructions() {
    let place = Place::new("steps");
    let program = place.compile("steps.c");
    // The program sums the file up around each fork.
    place.record(&program, &[], 4 * MIB);
    let found = snapshot(&place.first());
    assert_eq!(found.counters().get(Counter::Threads), 1);
    // The output buffer.
    assert_eq!(live(&found).0, 1);
}

/// What a handler's hook leaves behind while the outer one describes itself is put right.
#[test]
fn operator_that_is_interrupted_anywhere_is_one_event() {
    let place = Place::new("between");
    let program = place.compile("between.cpp");
    place.record(&program, &[], 4 * MIB);
    let found = snapshot(&place.first());
    let allocs_of = |size: u64| {
        let events = found.events().iter();
        events
            .filter(|event| event.kind == EventKind::Alloc && event.size == size)
            .count()
    };
    assert_eq!((allocs_of(1234), allocs_of(77)), (400, 400));
}

/// Its thread knows them again, but they are stored in another region.
#[test]
fn child_saves_the_stacks_of_its_parent_anew() {
    let place = Place::new("fork_order");
    let program = place.compile("fork_order.c");
    place.record(&program, &[], RUN_BYTES);
    let children = place.children();
    assert_eq!(children.len(), 1);
    let frames_of = |found: &Snapshot, size: u64| {
        let mut blocks = found.live_blocks().iter().map(|found| &found.block);
        let block = blocks.find(|block| block.size == size).expect("it lives");
        let stack = block.stack.expect("it was saved");
        found.stack(stack).expect("it is stored").frames
    };
    let (parent, child) = (snapshot(&place.first()), snapshot(&children[0]));
    for size in 1000..1016 {
        assert_eq!(frames_of(&child, size), frames_of(&parent, size), "{size}");
    }
    assert_ne!(frames_of(&child, 1000), frames_of(&child, 1015));
}

#[test]
fn coroutine_stacks_may_go_away() {
    let place = Place::new("coroutines");
    let program = place.compile("coroutines.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    // Per round 6 blocks at home and 5 away, freed; 250 stacks; the output buffer.
    assert_eq!(found.ring_stats().events, 500 * 11 * 2 + 250 * 2 + 1);
    assert_eq!(live(&found).0, 1);
}

#[test]
fn smaller_stacks_may_take_the_place_of_others() {
    let place = Place::new("holes");
    let program = place.compile("holes.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    // Two for each stack, two more for the small ones; the output buffer.
    assert_eq!(found.ring_stats().events, 300 * 2 + 150 * 2 + 1);
    assert_eq!(live(&found).0, 1);
}

#[test]
fn stack_pointer_need_not_be_aligned() {
    let place = Place::new("misaligned");
    let program = place.compile("misaligned.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    // Of each round: two allocs, two frees, a realloc; the output buffer.
    assert_eq!(found.ring_stats().events, 100 * 6 + 1);
}

#[test]
fn libraries_come_and_go() {
    let place = Place::new("dlopens");
    let program = place.compile("dlopens.c");
    let plugin = place.compile("plugin.c");
    place.record(
        &program,
        &[plugin.to_str().expect("a plain path")],
        RUN_BYTES,
    );
    let found = snapshot(&place.first());
    let plugins = found
        .modules()
        .iter()
        .filter(|module| module.path.ends_with(b"plugin"))
        .count();
    assert!(
        (1..500).contains(&plugins),
        "{plugins} entries for one file"
    );
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
}

#[test]
fn loader_keeps_its_error_and_is_not_asked_late() {
    let place = Place::new("loader");
    let program = place.compile("loader.c");
    let waiter = place.compile("waiter.c");
    let recorded = place.record(
        &program,
        &[waiter.to_str().expect("a plain path")],
        RUN_BYTES,
    );
    assert!(String::from_utf8_lossy(&recorded.stdout).ends_with("started\nopened\n"));
}

#[test]
fn an_exec_chain_leaves_a_file_per_image() {
    let place = Place::new("chain");
    let program = place.compile("chain.c");
    place.record(&program, &["5"], 128 * MIB);
    assert_eq!(place.children().len(), 5);
    for path in place.children() {
        // The last image also has its output buffer.
        assert!((150..=151).contains(&snapshot(&path).ring_stats().events));
    }
}

#[test]
fn daemon_that_closes_everything_is_recorded() {
    let place = Place::new("daemon");
    let program = place.compile("daemon.c");
    place.record(&program, &[], RUN_BYTES);
    let children = place.children();
    assert_eq!(children.len(), 1);
    assert_eq!(snapshot(&children[0]).ring_stats().events, 10_000 + 9_900);
}

#[test]
fn without_orders_nothing_is_recorded() {
    let place = Place::new("without");
    let program = place.compile("forms.c");
    place.record(&program, &[], 0);
    assert!(!place.first().exists());
}

#[test]
fn first_event_may_come_anywhere() {
    let place = Place::new("firsts");
    let program = place.compile("firsts.c");
    // Bytes for 62 files of later processes: all stay.
    place.record(&program, &[], 128 * MIB);
    let counts = snapshot(&place.first()).ledger_counts();
    assert_eq!(counts.children_unrecorded, 0, "{counts:?}");
    assert_eq!(
        counts.children_recorded - counts.children_removed,
        place.children().len() as u64
    );
    let ours = place.children().into_iter().map(|path| snapshot(&path));
    let events: Vec<u64> = ours
        .filter(|child| child.info().executable.ends_with(b"firsts"))
        .map(|child| child.ring_stats().events + child.counters().get(Counter::EventsUnrecorded))
        .collect();
    assert!(!events.is_empty());
    assert!(events.iter().all(|events| *events >= 200), "{events:?}");
}

#[test]
fn block_freed_twice_is_told_from_one_that_a_child_inherited() {
    let place = Place::new("double");
    let program = place.compile("double.c");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    let bad: Vec<_> = found
        .events()
        .iter()
        .filter(|event| event.kind == EventKind::UnknownFree)
        .collect();
    assert_eq!(bad.len(), 1);
    let first_free = found
        .events()
        .iter()
        .find(|event| event.kind == EventKind::Free && event.address == bad[0].address)
        .expect("the free that was right");
    // Newest first; all three stacks are there to be shown.
    assert!(first_free.time < bad[0].time && first_free.other_stack.is_some());
    assert!(bad[0].stack.is_some() && bad[0].stack != first_free.stack);
    assert_eq!(found.counters().get(Counter::FreesUnknown), 1);
    let children = place.children();
    assert_eq!(children.len(), 1);
    let child = snapshot(&children[0]);
    let kinds: Vec<_> = child.events().iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [EventKind::Free]);
    assert_eq!(child.counters().get(Counter::FreesUnknown), 1);
}

#[test]
fn free_by_the_wrong_function_is_told_with_both_families() {
    let place = Place::new("mismatches");
    let program = place.compile("mismatches.cpp");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    let events = found.events().iter();
    let mut wrong: Vec<_> = events
        .filter(|event| event.kind == EventKind::MismatchedFree)
        .map(|event| {
            let callers = [event.other_thread, event.thread];
            assert!(event.stack.is_some() && event.other_stack.is_some());
            (
                event.size,
                callers.map(|bits| Caller::from_bits(bits).family().unwrap()),
            )
        })
        .collect();
    wrong.sort_by_key(|(size, _)| *size);
    let expected = [
        (101, [Family::NewArray, Family::New]),
        (102, [Family::New, Family::C]),
        (103, [Family::C, Family::New]),
        (104, [Family::C, Family::NewArray]),
        (105, [Family::New, Family::C]),
    ];
    assert_eq!(wrong, expected);
    assert_eq!(found.counters().get(Counter::FreesMismatched), 5);
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
}

#[test]
fn operators_of_the_program_are_no_mismatch() {
    let place = Place::new("own_new");
    let program = place.compile("own_new.cpp");
    place.record(&program, &[], RUN_BYTES);
    let found = snapshot(&place.first());
    assert_eq!(found.counters().get(Counter::FreesMismatched), 0);
    assert_eq!(found.counters().get(Counter::FreesUnknown), 0);
    // And the C++ library's pool for exceptions.
    assert_eq!(found.ring_stats().events, 600 + 1);
    assert_eq!(live(&found).0, 1);
}
