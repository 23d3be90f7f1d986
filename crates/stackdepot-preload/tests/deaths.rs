//! Programs that die by a signal: the same death as bare, and what the file tells of it.

mod support;

use std::path::Path;

use stackdepot::ring::{Event, EventKind};
use stackdepot_region::death::{Access, DeathReport};
use stackdepot_region::reader::snapshot::Snapshot;
use support::{Place, snapshot};

const RUN_BYTES: usize = 32 << 20;
/// As in deaths.c.
const LARGE: u64 = 1 << 20;
const OFFSET: u64 = 5000;

/// Runs `deaths.c` bare and recorded, which must not differ, and reads what was recorded.
fn died(way: &str) -> (Place, Snapshot) {
    let place = Place::new(&format!("deaths-{way}"));
    let program = place.compile("deaths.c");
    let output = place.record(&program, &[way], RUN_BYTES);
    assert_ne!(output.status.code(), Some(9), "no such way");
    let found = snapshot(&place.first());
    (place, found)
}

fn death(found: &Snapshot) -> &DeathReport {
    found.info().death.as_ref().expect("a death was noted")
}

fn free_of_large(found: &Snapshot) -> &Event {
    let mut events = found.events().iter();
    let is_free = |event: &&Event| event.kind == EventKind::Free && event.size == LARGE;
    events.find(is_free).expect("the free is recorded")
}

/// How many frames lie in the program itself.
fn own_frame_count(found: &Snapshot, report: &DeathReport) -> usize {
    let own = |frame: &&u64| {
        let module = found.module_at(**frame - 1, None);
        module.is_some_and(|module| Path::new("deaths") == file_name(&module.path))
    };
    report.frames.iter().filter(own).count()
}

fn file_name(path: &[u8]) -> &Path {
    let text = std::str::from_utf8(path).expect("a plain path");
    Path::new(Path::new(text).file_name().unwrap_or_default())
}

#[test]
fn use_after_free_names_the_byte_of_the_freed_block() {
    for (way, access) in [
        ("freed", Access::Read),
        ("written", Access::Write),
        ("passed-on", Access::Read),
        ("thread", Access::Read),
    ] {
        let (_place, found) = died(way);
        let free = free_of_large(&found);
        let report = death(&found);
        let expected = (free.address + OFFSET, access);
        assert_eq!(report.death.fault, Some(expected), "{way}");
        assert_eq!(report.death.signal, libc::SIGSEGV);
        assert_eq!(report.death.thread, free.thread);
        assert_ne!(way == "thread", report.death.thread == found.info().pid);
        assert!(report.death.time > free.time && report.frames[0] == report.death.pc + 1);
        assert!(own_frame_count(&found, report) >= 2, "{report:?}");
        assert!(found.info().last_tsc >= report.death.time);
    }
}

#[test]
fn register_still_points_into_the_freed_block() {
    let (_place, found) = died("stale");
    let report = death(&found);
    let mut events = found.events().iter();
    let free = events.find(|event| event.kind == EventKind::Free);
    let block = free.expect("the free is recorded").address;
    assert!(
        report
            .death
            .fault
            .is_some_and(|(address, _)| address != block)
    );
    // rdi: the function's argument.
    assert_eq!(report.death.registers[5], block);
}

#[test]
fn access_that_a_live_block_does_not_allow_is_told() {
    let (_place, found) = died("guarded");
    let (address, access) = death(&found).death.fault.expect("an address");
    let block = found.block_at(address).expect("it lives");
    assert_eq!((block.block.size, address - block.address), (LARGE, OFFSET));
    assert_eq!(access, Access::Write);
}

#[test]
fn null_is_an_address_and_code_that_is_nowhere_has_a_caller() {
    let (_place, found) = died("null");
    assert_eq!(death(&found).death.fault, Some((OFFSET, Access::Read)));
    assert!(own_frame_count(&found, death(&found)) >= 2);
    let (_place, found) = died("jump");
    let report = death(&found);
    assert_eq!(report.death.fault, Some((0, Access::Execute)));
    assert_eq!((report.death.pc, report.frames[0]), (0, 1));
    assert!(own_frame_count(&found, report) >= 2, "{report:?}");
}

#[test]
fn signal_without_a_memory_access_has_no_address() {
    for (way, signal) in [
        ("not-canonical", libc::SIGSEGV),
        ("killed", libc::SIGSEGV),
        ("abort", libc::SIGABRT),
        ("alternate-gone", libc::SIGABRT),
        ("twice", libc::SIGABRT),
        ("trap", libc::SIGILL),
        ("breakpoint", libc::SIGTRAP),
        ("divide", libc::SIGFPE),
    ] {
        let (_place, found) = died(way);
        let report = death(&found);
        assert_eq!(
            (report.death.signal, report.death.fault),
            (signal, None),
            "{way}"
        );
        let is_sent = matches!(way, "killed" | "abort" | "alternate-gone" | "twice");
        let sender = if is_sent { found.info().pid } else { 0 };
        assert_eq!(report.death.sender, sender, "{way}");
        assert!(own_frame_count(&found, report) >= 1, "{way}: {report:?}");
    }
}

#[test]
fn fault_inside_of_a_hook_is_unwound_to_the_program() {
    let (_place, found) = died("garbage");
    let report = death(&found);
    assert!(
        report
            .death
            .fault
            .is_some_and(|(address, _)| address < 0x2000)
    );
    assert!(own_frame_count(&found, report) >= 2, "{report:?}");
}

#[test]
fn stack_overflow_is_seen_where_there_is_another_stack() {
    let (_place, found) = died("overflow-seen");
    let report = death(&found);
    let (address, _) = report.death.fault.expect("an address");
    let stack_pointer = report.death.registers[7];
    assert!(address.abs_diff(stack_pointer) < 4096, "{report:?}");
    assert!(own_frame_count(&found, report) > 100);
    let (_place, found) = died("overflow");
    assert_eq!(found.info().death, None);
}

#[test]
fn program_keeps_its_own_handlers_and_never_sees_ours() {
    let (_place, found) = died("own");
    assert_eq!(found.info().death, None);
    let (_place, found) = died("asked");
    assert_eq!(death(&found).death.fault, Some((OFFSET, Access::Read)));
    // Strict seccomp: the handler is gone before.
    let (_place, found) = died("confined");
    assert_eq!(found.info().death, None);
}

#[test]
fn children_die_in_files_of_their_own() {
    let (place, found) = died("children");
    assert_eq!(death(&found).death.signal, libc::SIGABRT);
    let children: Vec<Snapshot> = place.children().iter().map(|path| snapshot(path)).collect();
    assert_eq!(children.len(), 2);
    let mut faults: Vec<_> = children
        .iter()
        .map(|child| {
            let events = child.events().iter();
            let free = events.map(|event| event.address + OFFSET).next();
            let (address, _) = death(child).death.fault.expect("an address");
            (child.ring_stats().events, address == free.unwrap_or(OFFSET))
        })
        .collect();
    faults.sort_unstable();
    assert_eq!(faults, [(0, true), (2, true)]);
}
