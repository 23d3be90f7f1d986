//! What is recorded into a file comes out of it, exactly.

mod common;

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use common::*;
use stackdepot_region::counters::Counter;
use stackdepot_region::error::CreateError;
use stackdepot_region::format::RunState;
use stackdepot_region::modules::{Added, Module};
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::Amount;
use stackdepot_region::writer::{CreateOptions, RegionWriter};

#[test]
fn what_was_recorded_is_read_back() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 4 << 20);
    let mut live: HashMap<u32, Amount> = HashMap::new();
    for number in 0..2000u64 {
        record_alloc(
            &writer,
            0,
            0x10000 + number * 256,
            100 + number,
            (number % 300) as u32,
        );
    }
    for number in 0..2000u64 {
        if number % 3 == 0 {
            record_free(&writer, 1, 0x10000 + number * 256, 50_000);
        } else {
            let amount = live.entry((number % 300) as u32).or_default();
            amount.count += 1;
            amount.bytes += 100 + number;
        }
    }
    writer.counters.add(Counter::Reallocs, 0, 3);
    writer.counters.add(Counter::Reallocs, 5, 4);
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    assert!(snapshot.problems().is_empty(), "{:?}", snapshot.problems());
    assert!(!snapshot.is_sampled());
    let mut found: HashMap<u32, Amount> = HashMap::new();
    for record in snapshot.stacks() {
        let id = check_frames(&snapshot.stack(record.weak).unwrap().frames);
        if record.live.count > 0 {
            assert!(found.insert(id, record.live).is_none(), "stack {id} twice");
        }
        assert!(record.total.count >= record.live.count);
    }
    assert_eq!(found, live);
    assert_eq!(snapshot.counters().get(Counter::Reallocs), 7);
    assert_eq!(snapshot.ring_stats().events, 2667);
    assert_eq!(snapshot.skipped(), Default::default());
}

#[test]
fn events_and_blocks_name_their_stacks() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 1 << 20);
    for number in 0..200u64 {
        record_alloc(
            &writer,
            number as usize % 3,
            0x10000 + number * 256,
            100,
            number as u32,
        );
    }
    record_free(&writer, 1, 0x10000 + 7 * 256, 999);
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    assert_eq!(snapshot.events().len(), 201);
    let newest = snapshot.events()[0];
    assert_eq!(
        (newest.address, newest.size, newest.thread),
        (0x10700, 100, 1001)
    );
    let id_of = |weak: Option<stackdepot::WeakHandle>| {
        check_frames(&snapshot.stack(weak.unwrap()).unwrap().frames)
    };
    assert_eq!(id_of(newest.stack), 999);
    assert_eq!(id_of(newest.other_stack), 7);
    assert!(
        snapshot
            .events()
            .is_sorted_by(|newer, older| newer.time >= older.time)
    );
    let block = snapshot.block_at(0x10800 + 99).unwrap();
    assert_eq!((block.address, id_of(block.block.stack)), (0x10800, 8));
    for nowhere in [0, 0x10700, 0x10800 + 100, u64::MAX] {
        assert_eq!(snapshot.block_at(nowhere), None, "{nowhere:#x}");
    }
    assert_eq!(snapshot.live_blocks().len(), 199);
}

#[test]
fn any_words_and_any_depth_come_back() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 1 << 20);
    let mut random = Random(77);
    let mut stacks = Vec::new();
    for depth in (1..=256).step_by(3) {
        let frames: Vec<u64> = (0..depth).map(|_| random.next()).collect();
        stacks.push((
            writer.depot.save_acquire(&frames).unwrap().weak,
            frames,
            false,
        ));
    }
    for odd in [
        vec![0],
        vec![u64::MAX; 40],
        vec![0; 256],
        vec![1 << 63, 0, u64::MAX],
    ] {
        stacks.push((writer.depot.save_acquire(&odd).unwrap().weak, odd, false));
    }
    let long: Vec<u64> = (0..400).map(|index| 0x40_0000 + index).collect();
    let weak = writer.depot.save_acquire(&long).unwrap().weak;
    stacks.push((weak, long[..256].to_vec(), true));
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    for (weak, frames, is_cut) in stacks {
        let stack = snapshot.stack(weak).unwrap();
        assert_eq!((stack.frames, stack.is_cut), (frames, is_cut));
    }
}

#[test]
fn header_says_who_when_and_how_it_ended() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 1 << 20);
    let file = RegionFile::open(&path).unwrap();
    let info = file.info().unwrap();
    assert_eq!(info.pid, std::process::id());
    assert_eq!(
        info.executable,
        std::env::current_exe()
            .unwrap()
            .as_os_str()
            .as_encoded_bytes()
    );
    let arguments: Vec<Vec<u8>> = std::env::args_os()
        .map(|word| word.into_encoded_bytes())
        .collect();
    assert_eq!(info.command, arguments);
    assert!(info.is_running && !info.is_child);
    assert_eq!(info.state, RunState::Running);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    assert!((now - info.started_unix_seconds).abs() < 60.0);
    writer.mark_ended();
    assert_eq!(file.info().unwrap().state, RunState::Ended);
}

#[test]
fn modules_are_found_by_address_and_time() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 1 << 20);
    let module = |path| Module {
        start: 0x1000,
        end: 0x3000,
        bias: 0x1000,
        build_id: &[9; 20],
        path,
    };
    assert_eq!(
        writer.modules.add(&module(b"/a.so".as_slice()), 100),
        Added::New
    );
    writer.modules.mark_unloaded(0x1000, 0x3000, 200);
    assert_eq!(
        writer.modules.add(&module(b"/b.so".as_slice()), 300),
        Added::New
    );
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    let path_at = |address, tsc| {
        snapshot
            .module_at(address, tsc)
            .map(|module| module.path.clone())
    };
    assert_eq!(path_at(0x2fff, Some(150)), Some(b"/a.so".to_vec()));
    assert_eq!(path_at(0x2fff, Some(350)), Some(b"/b.so".to_vec()));
    assert_eq!(path_at(0x2fff, None), Some(b"/b.so".to_vec()));
    assert_eq!(path_at(0x3000, None), None);
}

#[test]
fn file_is_private_whole_and_never_made_over_another() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 4 << 20);
    let metadata = std::fs::metadata(&path).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o7777, 0o600);
    assert_eq!(metadata.len(), 4 << 20);
    assert!(
        metadata.blocks() * 512 >= 4 << 20,
        "every page is set aside"
    );
    assert_eq!(writer.file_bytes() as u64, metadata.len());
    let again = RegionWriter::create(&c_path(&path), &CreateOptions::alone(4 << 20));
    assert_eq!(again.err(), Some(CreateError::Exists));
    let link = directory.path("link");
    std::os::unix::fs::symlink(directory.path("elsewhere"), &link).unwrap();
    let through = RegionWriter::create(&c_path(&link), &CreateOptions::alone(4 << 20));
    assert_eq!(through.err(), Some(CreateError::Exists));
    assert!(!directory.path("elsewhere").exists());
}

#[test]
fn failed_creation_leaves_nothing_behind() {
    let directory = Directory::new();
    let path = directory.path("file");
    for bytes in [0, 4096, 100_000, u64::MAX] {
        let made = RegionWriter::create(&c_path(&path), &CreateOptions::alone(bytes));
        assert!(matches!(made, Err(CreateError::Plan(_))));
        assert!(!path.exists());
    }
    let nowhere = c_path(&directory.path("no/such/directory"));
    let made = RegionWriter::create(&nowhere, &CreateOptions::alone(1 << 20));
    assert!(matches!(made, Err(CreateError::Open(_))));
}

#[test]
fn stale_name_never_shows_another_stack() {
    let directory = Directory::new();
    let path = directory.path("file");
    let writer = create(&path, 512 << 10);
    let mut names = Vec::new();
    for id in 0..5000 {
        let mut frames = [0; MOST_DEPTH];
        let depth = frames_of(id, &mut frames);
        names.push((id, writer.depot.save(&frames[..depth]).unwrap()));
    }
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    let mut evicted_count = 0;
    for (id, weak) in names {
        match snapshot.stack(weak) {
            Ok(stack) => assert_eq!(check_frames(&stack.frames), id),
            Err(_) => evicted_count += 1,
        }
    }
    assert!((1000..5000).contains(&evicted_count), "{evicted_count}");
}
