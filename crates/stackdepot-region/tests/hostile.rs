//! Readers survive every file: an error or a partial result, never a panic, a hang or a flood.
#![allow(unsafe_code)] // forks, or gives a mapping back

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;
use stackdepot::Config;
use stackdepot_region::error::ReadErrorKind;
use stackdepot_region::format::{FORMAT_VERSION, SECTION_COUNT, SECTIONS_OFFSET, SectionName};
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::{Gone, Snapshot};

const FILE_BYTES: u64 = 1 << 20;
/// Where the section table tells of the depot.
const DEPOT_ROW: usize = SECTIONS_OFFSET + SectionName::Depot as usize * 16;

/// A small file with some of everything in it.
fn sample(path: &Path) -> Vec<u8> {
    let writer = create(path, FILE_BYTES);
    for number in 0..600u64 {
        record_alloc(
            &writer,
            number as usize % 2,
            0x10000 + number * 256,
            64,
            number as u32,
        );
        if number % 2 == 0 {
            record_free(&writer, 0, 0x10000 + number * 256, 1000 + number as u32);
        }
    }
    let module = stackdepot_region::modules::Module {
        start: 0x1000,
        end: 0x2000,
        bias: 0,
        build_id: &[1; 20],
        path: b"/lib/x.so",
    };
    let _ = writer.modules.add(&module, 1);
    // SAFETY: nothing of the writer is used after this.
    unsafe { writer.unmap() };
    std::fs::read(path).unwrap()
}

/// Asks a snapshot everything; answers how many stacks, blocks and events it shows.
fn ask_everything(snapshot: &Snapshot) -> usize {
    let mut count = 0;
    for record in snapshot.stacks() {
        let _ = snapshot.stack(record.weak);
        let _ = snapshot.references(record.weak);
        count += 1;
    }
    for event in snapshot.events() {
        for weak in [event.stack, event.other_stack].into_iter().flatten() {
            let _ = snapshot.stack(weak);
        }
        let _ = snapshot.info().seconds_ago(event.time);
        let _ = snapshot.module_at(event.address, Some(event.time));
        count += 1;
    }
    for block in snapshot.live_blocks() {
        let _ = snapshot.block_at(block.address);
        count += 1;
    }
    let _ = (
        snapshot.depot_stats(),
        snapshot.ring_stats(),
        snapshot.live_stats(),
    );
    count
}

/// Reads a file as far as it goes; the message of an error is one line that names the file.
fn read_all(path: &Path) -> Result<usize, ReadErrorKind> {
    let snapshot = RegionFile::open(path).and_then(|file| file.snapshot());
    match snapshot {
        Ok(snapshot) => {
            assert!(snapshot.problems().iter().all(|line| !line.contains('\n')));
            Ok(ask_everything(&snapshot))
        }
        Err(error) => {
            let line = error.to_string();
            assert!(
                !line.contains('\n') && line.contains(path.to_str().unwrap()),
                "{line}"
            );
            Err(error.kind)
        }
    }
}

#[test]
fn sound_file_shows_everything() {
    let directory = Directory::new();
    let path = directory.path("file");
    sample(&path);
    let count = read_all(&path).unwrap();
    assert!(count > 1000, "{count}");
}

/// A sparse file is as large as it likes: what is small in every file must not be read at any size.
#[test]
fn sections_beyond_what_a_writer_makes_are_refused() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    for (large, is_refused) in [(0, true), (1, true), (2, false), (4, true)] {
        let mut bytes = bytes.clone();
        let mut offset = 16384u64;
        for section in 0..SECTION_COUNT {
            let length: u64 = if section == large { 1 << 20 } else { 4096 };
            let row = SECTIONS_OFFSET + section * 16;
            bytes[row..row + 8].copy_from_slice(&offset.to_le_bytes());
            bytes[row + 8..row + 16].copy_from_slice(&length.to_le_bytes());
            offset += length;
        }
        let size = 2u64 << 20;
        bytes[24..32].copy_from_slice(&size.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(size).unwrap();
        let is_damaged = matches!(
            read_all(&path),
            Err(ReadErrorKind::Damaged {
                what: "the section table",
                ..
            })
        );
        assert_eq!(is_damaged, is_refused, "section {large}");
    }
}

#[test]
fn every_truncation_is_told_with_its_length() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    for length in (0..bytes.len())
        .step_by(4096)
        .chain([1, 7, 8, 100, 4095, 4097, bytes.len() - 1])
    {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = read_all(&path).unwrap_err();
        match length {
            0 => assert!(matches!(error, ReadErrorKind::Empty)),
            1..8 => assert!(
                matches!(error, ReadErrorKind::NotARegion),
                "{length}: {error:?}"
            ),
            _ => assert!(
                matches!(error, ReadErrorKind::Truncated { found_bytes, .. } if found_bytes == length as u64),
                "{length}: {error:?}"
            ),
        }
    }
}

#[test]
fn truncation_while_reading_is_told() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    for length in (0..bytes.len()).step_by(4096) {
        std::fs::write(&path, &bytes).unwrap();
        let file = RegionFile::open(&path).unwrap();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length as u64)
            .unwrap();
        let error = file.snapshot().unwrap_err();
        assert!(
            matches!(error.kind, ReadErrorKind::ChangedWhileReading { .. }),
            "{error}"
        );
    }
}

#[test]
fn what_is_no_region_file_is_named() {
    let directory = Directory::new();
    let path = directory.path("file");
    let expect = |what: &str| {
        let line = RegionFile::open(&path).unwrap_err().to_string();
        assert!(line.contains(what) && !line.contains('\n'), "{line}");
    };
    expect("no such file");
    std::fs::create_dir(&path).unwrap();
    expect("is a directory");
    std::fs::remove_dir(&path).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(&path)
        .status()
        .unwrap();
    assert!(made.success());
    expect("no regular file"); // and does not wait for a writer
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "hello, world\n".repeat(1000)).unwrap();
    expect("not a region file");
    std::fs::write(&path, [0; 8192]).unwrap();
    expect("never completed");
    let mut bytes = sample(&directory.path("sample"));
    let version = std::mem::replace(&mut bytes[8], 1);
    std::fs::write(&path, &bytes).unwrap();
    expect(&format!("format version 1 at offset 8 is not {version}"));
    bytes[8] = version;
    bytes[32] ^= 1; // the first section's offset
    std::fs::write(&path, &bytes).unwrap();
    expect("the section table");
    let hostile_name = directory.path("two\nlines");
    let line = RegionFile::open(&hostile_name).unwrap_err().to_string();
    assert!(!line.contains('\n'), "{line}");
}

#[test]
fn random_bytes_are_refused() {
    let directory = Directory::new();
    let path = directory.path("file");
    let mut random = Random(0x1234_5678);
    for round in 0..200 {
        let length = 1 + random.below(300_000) as usize;
        let mut bytes: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        if round % 2 == 0 && length > 16 {
            bytes[..8].copy_from_slice(b"STKDPREG");
            bytes[8..16].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        }
        std::fs::write(&path, &bytes).unwrap();
        assert!(read_all(&path).is_err());
    }
}

/// Random bytes in place of whole sections behind a sound header, and in their headers.
#[test]
fn random_sections_are_survived() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    let mut random = Random(0x9999);
    for round in 0..300 {
        let mut copy = bytes.clone();
        let start = 16384 + random.below(bytes.len() as u64 - 16384) as usize;
        let length = 1 + random.below(1 << (round % 19)) as usize;
        let end = (start + length).min(copy.len());
        for byte in &mut copy[start..end] {
            *byte = random.next() as u8;
        }
        std::fs::write(&path, &copy).unwrap();
        let _ = read_all(&path);
    }
}

/// Bit flips where they hurt most (headers, first slots) and anywhere.
#[test]
fn bit_flips_anywhere_are_survived() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut random = Random(0xabcdef);
    let section_starts: Vec<usize> = (0..SECTION_COUNT)
        .map(|index| {
            u64::from_le_bytes(bytes[32 + index * 16..40 + index * 16].try_into().unwrap()) as usize
        })
        .collect();
    for round in 0..2500usize {
        let mut flipped = Vec::new();
        for _ in 0..1 + random.below(3) {
            let near = match round % 4 {
                0 => random.below(1024) as usize,
                1 => {
                    section_starts[random.below(SECTION_COUNT as u64) as usize]
                        + random.below(2048) as usize
                }
                2 => {
                    section_starts[SectionName::Depot as usize]
                        + random.below(
                            (bytes.len() - section_starts[SectionName::Depot as usize]) as u64,
                        ) as usize
                }
                _ => random.below(bytes.len() as u64) as usize,
            };
            let offset = near.min(bytes.len() - 1);
            let byte = bytes[offset] ^ 1 << random.below(8);
            file.write_all_at(&[byte], offset as u64).unwrap();
            flipped.push(offset);
        }
        let _ = read_all(&path);
        for offset in flipped {
            file.write_all_at(&bytes[offset..=offset], offset as u64)
                .unwrap();
        }
    }
    assert!(read_all(&path).is_ok());
}

/// Every full node its own parent: nobody follows it for ever.
#[test]
fn cycles_of_parents_end() {
    let directory = Directory::new();
    let path = directory.path("file");
    let mut bytes = sample(&path);
    let depot = u64::from_le_bytes(bytes[DEPOT_ROW..DEPOT_ROW + 8].try_into().unwrap()) as usize;
    let mut header = [0; stackdepot::HEADER_BYTES];
    header.copy_from_slice(&bytes[depot..depot + stackdepot::HEADER_BYTES]);
    let geometry = stackdepot::image::HeaderImage::parse(&header)
        .unwrap()
        .geometry;
    let mut changed = 0;
    for number in 1..=geometry.slot_count {
        let start = depot + geometry.slots_offset + (number as usize - 1) * 64;
        let slot =
            stackdepot::image::SlotImage::parse(bytes[start..start + 64].try_into().unwrap());
        if slot.is_node() && slot.state.length() == stackdepot::RUN_FRAMES {
            bytes[start + 16..start + 20].copy_from_slice(&number.to_le_bytes());
            changed += 1;
        }
    }
    assert!(changed > 10);
    std::fs::write(&path, &bytes).unwrap();
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    let of_stacks = snapshot.stacks().map(|record| snapshot.stack(record.weak));
    assert!(
        of_stacks
            .filter(|stack| *stack == Err(Gone::Damaged))
            .count()
            > 10
    );
}

/// A part that does not fit its section is left out and named; the others are shown.
#[test]
fn damaged_part_is_named_and_the_rest_is_shown() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    for (name, index) in [("ring", 2), ("live", 3), ("depot", 5)] {
        let row = 32 + index * 16 + 8;
        let section_bytes = u64::from_le_bytes(bytes[row..row + 8].try_into().unwrap());
        let mut short = bytes.clone();
        short[row..row + 8].copy_from_slice(&(section_bytes - 32768).to_le_bytes());
        std::fs::write(&path, &short).unwrap();
        let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
        assert_eq!(
            snapshot.problems().len(),
            1,
            "{name}: {:?}",
            snapshot.problems()
        );
        assert!(ask_everything(&snapshot) > 100);
    }
}

/// A sparse file that claims the largest size must not make a reader take that much memory.
#[test]
fn huge_sparse_file_costs_no_huge_memory() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let huge: u64 = 1 << 36;
    file.set_len(huge).unwrap();
    file.write_all_at(&huge.to_le_bytes(), 24).unwrap();
    // The depot's section, the last one, reaches to the end now; its own header does not.
    let start = u64::from_le_bytes(bytes[DEPOT_ROW..DEPOT_ROW + 8].try_into().unwrap());
    file.write_all_at(&(huge - start).to_le_bytes(), DEPOT_ROW as u64 + 8)
        .unwrap();
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    assert!(ask_everything(&snapshot) > 1000);
}

/// So must not one whose depot says that it is as large, and is sound otherwise.
#[test]
fn huge_sparse_depot_costs_what_is_in_it() {
    let directory = Directory::new();
    let path = directory.path("file");
    let bytes = sample(&path);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let start = u64::from_le_bytes(bytes[DEPOT_ROW..DEPOT_ROW + 8].try_into().unwrap());
    let depot = &bytes[start as usize..];
    let depot_word = |at: usize| u32::from_le_bytes(depot[at..at + 4].try_into().unwrap());
    let region_bytes: u64 = 2 << 30;
    let config = Config {
        references: true,
        payload_words: depot_word(32),
        max_frames: depot_word(36),
        lease_ticks: depot_word(40),
        ..Config::new(region_bytes as usize)
    };
    let geometry = config.geometry().unwrap();
    let words = [
        region_bytes,
        geometry.slot_count.into(),
        geometry.bucket_count.into(),
    ];
    file.write_all_at(&words[0].to_le_bytes(), start + 16)
        .unwrap();
    for (at, word) in [(24, words[1]), (28, words[2])] {
        file.write_all_at(&(word as u32).to_le_bytes(), start + at)
            .unwrap();
    }
    file.write_all_at(&region_bytes.to_le_bytes(), DEPOT_ROW as u64 + 8)
        .unwrap();
    let file_bytes = start + region_bytes;
    file.write_all_at(&file_bytes.to_le_bytes(), 24).unwrap();
    file.set_len(file_bytes).unwrap();
    // Something in its last slot.
    let last = start + geometry.slots_offset as u64 + (u64::from(geometry.slot_count) - 1) * 64;
    file.write_all_at(&[0x55; 64], last).unwrap();
    let before = peak_bytes();
    let snapshot = RegionFile::open(&path).unwrap().snapshot().unwrap();
    let taken = peak_bytes() - before;
    assert_eq!(snapshot.problems(), [] as [String; 0]);
    let stats = snapshot.depot_stats().unwrap();
    assert_eq!(stats.slot_count, geometry.slot_count.into());
    let _ = ask_everything(&snapshot);
    assert!(taken < 256 << 20, "{taken} bytes for a file of few");
}

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let digits = line.and_then(|line| line.split_whitespace().nth(1));
    digits.unwrap().parse::<u64>().unwrap() << 10
}
