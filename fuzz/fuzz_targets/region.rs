//! The region reader over damaged files: everything that a report, `who`, `events` and `stats` ask.
//!
//! Promise 8: an error or a partial result, in bounded time; what is shown adds up. A file that
//! nobody changes is never "changed while it was read". Every fourth input is opened for writing as
//! well: a writer refuses it or makes it sound, and then a reader finds no damage.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use stackdepot::MOST_FRAMES;
use stackdepot_fuzz::core_parts::{Original, Recorder};
use stackdepot_fuzz::region::{Scratch, compact, written};
use stackdepot_fuzz::{budget, damage, mutate};
use stackdepot_region::counters::Counter;
use stackdepot_region::error::ReadErrorKind;
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::{Gone, Snapshot};
use stackdepot_region::writer::RegionWriter;
use std::collections::HashSet;
use std::ffi::CString;
use std::sync::LazyLock;

/// CPU of one reading of a file of half a mebibyte, under the sanitizer, many times over.
const MOST_MS: u64 = 2000;

static COMPACT: LazyLock<Original> = LazyLock::new(compact);
static WRITTEN: LazyLock<Original> = LazyLock::new(written);
static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(|input: &[u8]| {
    let Some((choice, script)) = input.split_first() else {
        return;
    };
    let original: &Original = if choice & 15 == 15 {
        &WRITTEN
    } else {
        &COMPACT
    };
    let mut bytes = original.bytes.clone();
    damage::apply(script, &original.parts, &mut bytes);
    SCRATCH.write(&bytes);
    budget::within(MOST_MS, || drop(read()));
    if choice & 0x30 == 0x30 {
        budget::within(MOST_MS, reopen);
    }
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    mutate::script(data, size, max_size, seed, 1)
});

/// Reads the file as the verbs do.
fn read() -> Option<Snapshot> {
    match RegionFile::open(&SCRATCH.path()).and_then(|file| file.snapshot()) {
        Ok(snapshot) => {
            ask_everything(&snapshot);
            Some(snapshot)
        }
        Err(error) => {
            let is_impossible = matches!(error.kind, ReadErrorKind::ChangedWhileReading { .. });
            assert!(!is_impossible, "{error}, though nobody changes it");
            assert!(!error.to_string().contains('\n'), "{error}");
            None
        }
    }
}

fn ask_everything(snapshot: &Snapshot) {
    let info = snapshot.info();
    let problems = snapshot.problems();
    assert!(problems.iter().all(|line| !line.contains('\n')));
    ask_stacks(snapshot);
    let file_bytes = info.file_bytes;
    assert!(snapshot.events().len() as u64 * 64 <= file_bytes);
    for event in snapshot.events() {
        for weak in [event.stack, event.other_stack].into_iter().flatten() {
            let _ = (snapshot.stack(weak), snapshot.stack_record(weak));
        }
        let _ = info.seconds_ago(event.time);
        let _ = snapshot.module_at(event.address, Some(event.time));
        ask_who(snapshot, event.address, event.size);
    }
    assert!(snapshot.live_blocks().len() as u64 * 32 <= file_bytes);
    for record in snapshot.live_blocks() {
        assert!(record.factor > 0, "a block that stands for nothing");
        ask_who(snapshot, record.address, record.block.size);
    }
    let counters = Counter::ALL
        .iter()
        .map(|counter| snapshot.counters().get(*counter));
    let _ = counters.fold(0u64, u64::wrapping_add);
    let stats = (
        snapshot.live_stats(),
        snapshot.ring_stats(),
        snapshot.ledger_counts(),
    );
    assert!(stats.0.used_count <= stats.0.cell_count);
    let _ = (
        snapshot.depot_stats(),
        snapshot.skipped(),
        snapshot.is_sampled(),
    );
}

fn ask_stacks(snapshot: &Snapshot) {
    let mut seen = HashSet::new();
    for record in snapshot.stacks() {
        assert!(seen.insert(record.weak), "a stack is listed twice");
        let _ = snapshot.references(record.weak);
        match snapshot.stack(record.weak) {
            Ok(stack) => {
                assert!((1..=MOST_FRAMES as usize).contains(&stack.frames.len()));
                for frame in &stack.frames {
                    let _ = snapshot.module_at(*frame, None);
                }
            }
            Err(gone) => assert_eq!(gone, Gone::Damaged, "a listed stack was never there"),
        }
    }
}

/// Both ends of a block and what lies next to them.
fn ask_who(snapshot: &Snapshot, address: u64, size: u64) {
    for asked in [
        address,
        address.wrapping_sub(1),
        address.wrapping_add(size),
        u64::MAX,
    ] {
        if let Some(found) = snapshot.block_at(asked) {
            assert!(found.block.covers(found.address, asked));
        }
    }
}

/// Opens the file for writing, records something, and reads it again.
fn reopen() {
    let path = CString::new(SCRATCH.path().as_os_str().as_encoded_bytes());
    let path = path.expect("a path without zeros");
    let Ok((writer, _)) = RegionWriter::reopen(&path) else {
        return;
    };
    let recorder = Recorder {
        depot: writer.depot,
        ring: writer.ring,
        live: writer.live,
        caches: writer.caches,
    };
    recorder.churn(100);
    unmap(writer);
    let snapshot = read().expect("a reopened file can be read");
    for record in snapshot.stacks() {
        let stack = snapshot.stack(record.weak);
        assert!(stack.is_ok(), "a writer left {:?}: {stack:?}", record.weak);
    }
}

#[allow(unsafe_code)] // gives the mapping back, or a thousand inputs use up all addresses
fn unmap(writer: RegionWriter) {
    // SAFETY: the recorder, the only copy of its parts, is not used any more.
    unsafe { writer.unmap() }
}
