//! True region files, and a place to put damaged ones: files in memory that have a path.
//!
//! Two originals: a compact file, laid out by hand around small parts (a reader takes sections of
//! any length), and one of the smallest size that the writer makes.

use crate::core_parts::{self, Original, PartsOf, Recorder};
use crate::damage::Part;
use core::mem::offset_of;
use rustix::fs::{MemfdFlags, memfd_create};
use stackdepot_region::clock::ClockPair;
use stackdepot_region::format::{
    COUNTERS_OFFSET, ClockWords, FORMAT_VERSION, FileHeader, HEADER_BYTES, LEDGER_OFFSET, MAGIC,
    PAGE_BYTES, RunState, SECTION_COUNT, SECTIONS_OFFSET,
};
use stackdepot_region::modules::{MODULE_ENTRY_BYTES, Module};
use stackdepot_region::plan::MIN_FILE_BYTES;
use stackdepot_region::writer::{CreateOptions, RegionWriter};
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// Bytes of the meta section: as long as the product's.
const META_BYTES: usize = 2 * PAGE_BYTES;
/// Where the command line lies in it.
const COMMAND_OFFSET: usize = 2048;
/// Events of the recorded program.
const EVENT_COUNT: u64 = 400;

/// Modules of the recorded program: the ranges of [`core_parts::frames_of`]'s windows. Small
/// programs, for the command looks their symbols up.
const MODULES: [(u64, &[u8]); 3] = [
    (0x5555, b"/usr/bin/true"),
    (0x7fff, b"/usr/bin/env"),
    (0x6666, b"[vdso]"),
];

/// A file in memory, with a path as long as it lives.
pub struct Scratch(File);

impl Scratch {
    /// An empty one.
    pub fn new() -> Scratch {
        let file = memfd_create("stackdepot-fuzz", MemfdFlags::CLOEXEC);
        Scratch(File::from(file.expect("a file in memory")))
    }

    /// Its path; children of this process may use it, too.
    pub fn path(&self) -> PathBuf {
        let pid = std::process::id();
        PathBuf::from(format!("/proc/{pid}/fd/{}", self.0.as_raw_fd()))
    }

    /// Replaces the content.
    pub fn write(&self, bytes: &[u8]) {
        let written = self
            .0
            .set_len(0)
            .and_then(|()| self.0.write_all_at(bytes, 0));
        written.expect("room for a file in memory");
    }

    /// The content.
    pub fn read(&self) -> Vec<u8> {
        let length = self.0.metadata().map_or(0, |metadata| metadata.len());
        let mut bytes = vec![0; length as usize];
        let read = self.0.read_exact_at(&mut bytes, 0);
        read.expect("a file in memory can be read");
        bytes
    }
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch::new()
    }
}

/// The compact file.
pub fn compact() -> Original {
    let mut bytes = vec![0; HEADER_BYTES + META_BYTES];
    let mut parts = header_parts();
    let [depot, ring, live, caches] = core_parts::recorded(EVENT_COUNT);
    let modules = modules();
    let mut sections = vec![(HEADER_BYTES, META_BYTES)];
    for section in [&modules, &ring, &live, &caches, &depot] {
        bytes.resize(bytes.len().next_multiple_of(PAGE_BYTES), 0);
        sections.push((bytes.len(), section.bytes.len()));
        let moved = section.parts.iter().map(|part| part.moved(bytes.len()));
        parts.extend(moved);
        bytes.extend(&section.bytes);
    }
    write_meta(&mut bytes);
    write_header(&mut bytes, &sections);
    Original { bytes, parts }
}

/// The smallest file that the writer makes.
pub fn written() -> Original {
    let name = format!("stackdepot-fuzz-{}", std::process::id());
    let path = std::env::temp_dir().join(name);
    let c_path = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without zeros");
    let _ = std::fs::remove_file(&path);
    let options = CreateOptions::alone(MIN_FILE_BYTES as u64);
    let writer = RegionWriter::create(&c_path, &options).expect("room for a region file");
    record(&writer);
    let bytes = std::fs::read(&path).expect("the file just written");
    let _ = std::fs::remove_file(&path);
    let parts = written_parts(&bytes);
    Original { bytes, parts }
}

fn record(writer: &RegionWriter) {
    let recorder = Recorder {
        depot: writer.depot,
        ring: writer.ring,
        live: writer.live,
        caches: writer.caches,
    };
    recorder.churn(EVENT_COUNT);
    for (window, path) in MODULES {
        let module = module_of(window, path);
        let _ = writer.modules.add(&module, 1);
    }
    writer.mark_ended();
}

fn module_of(window: u64, path: &[u8]) -> Module<'_> {
    Module {
        start: window << 32,
        end: (window + 1) << 32,
        bias: window << 32,
        build_id: &[],
        path,
    }
}

/// The module table as its writer packs it, without a table in shared memory.
fn modules() -> Original {
    let mut bytes = vec![0; 8 * MODULE_ENTRY_BYTES];
    for (entry, (window, path)) in bytes.chunks_exact_mut(MODULE_ENTRY_BYTES).zip(MODULES) {
        let module = module_of(window, path);
        let lengths = (path.len() as u64) << 8;
        let words = [2, module.start, module.end, module.bias, 1, 0, lengths];
        put_words(entry, 0, &words);
        put_bytes(entry, 80, path);
    }
    let parts = module_parts(MODULES.len());
    Original { bytes, parts }
}

/// Entries, their addresses, and their lengths of build-id and path.
fn module_parts(count: usize) -> Vec<Part> {
    let entries = Part::new(0, count * MODULE_ENTRY_BYTES, MODULE_ENTRY_BYTES);
    vec![entries, entries.field(8, 24), entries.field(48, 8)]
}

/// The header's words, the section table, ledger, counters, meta.
fn header_parts() -> Vec<Part> {
    vec![
        Part::new(0, size_of::<FileHeader>(), 8),
        Part::new(SECTIONS_OFFSET, SECTION_COUNT * 16, 16),
        Part::new(LEDGER_OFFSET, PAGE_BYTES, 64),
        Part::new(COUNTERS_OFFSET, 2 * PAGE_BYTES, 64),
        Part::new(HEADER_BYTES, META_BYTES, 64),
    ]
}

fn written_parts(bytes: &[u8]) -> Vec<Part> {
    let mut parts = header_parts();
    let section = |index: usize| {
        let row = SECTIONS_OFFSET + index * 16;
        let word = |at: usize| stackdepot_region::format::word_at(bytes, at).unwrap_or(0) as usize;
        let (offset, length) = (word(row), word(row + 8));
        (
            offset,
            bytes.get(offset..offset + length).unwrap_or_default(),
        )
    };
    let (offset, modules) = section(1);
    let module_parts = module_parts(modules.len() / MODULE_ENTRY_BYTES);
    parts.extend(module_parts.into_iter().map(|part| part.moved(offset)));
    let core: [PartsOf; 4] = [
        core_parts::ring_parts,
        core_parts::live_parts,
        core_parts::cache_parts,
        core_parts::depot_parts,
    ];
    for (index, parts_of) in (2..).zip(core) {
        let (offset, section) = section(index);
        parts.extend(parts_of(section).into_iter().map(|part| part.moved(offset)));
    }
    parts
}

fn write_meta(bytes: &mut [u8]) {
    let (executable, command) = (b"/usr/bin/true", b"true\0--first\0second word\0");
    let lengths = [executable.len() as u64, command.len() as u64];
    put_words(bytes, HEADER_BYTES, &lengths);
    put_bytes(bytes, HEADER_BYTES + 16, executable);
    put_bytes(bytes, HEADER_BYTES + COMMAND_OFFSET, command);
}

fn write_header(bytes: &mut [u8], sections: &[(usize, usize)]) {
    let file_bytes = bytes.len() as u64;
    put_words(
        bytes,
        0,
        &[MAGIC, FORMAT_VERSION, HEADER_BYTES as u64, file_bytes],
    );
    for (index, (offset, length)) in sections.iter().enumerate() {
        let row = SECTIONS_OFFSET + index * 16;
        put_words(bytes, row, &[*offset as u64, *length as u64]);
    }
    let ended = RunState::Ended.to_bits();
    put_words(bytes, offset_of!(FileHeader, pid), &[4711, 1, 99]);
    put_words(bytes, offset_of!(FileHeader, state), &[ended]);
    let start = ClockPair {
        realtime_ns: 1_700_000_000_000_000_000,
        monotonic_ns: 5_000_000_000,
        tsc: 0,
    };
    put_clock(bytes, offset_of!(FileHeader, clock_start), &start);
    let last = ClockPair {
        monotonic_ns: 6_000_000_000,
        tsc: EVENT_COUNT + 1000,
        ..start
    };
    put_clock(bytes, offset_of!(FileHeader, clock_last), &last);
}

fn put_clock(bytes: &mut [u8], at: usize, clock: &ClockPair) {
    let field = |offset: usize| at + offset;
    put_words(
        bytes,
        field(offset_of!(ClockWords, realtime_ns)),
        &[clock.realtime_ns],
    );
    put_words(
        bytes,
        field(offset_of!(ClockWords, monotonic_ns)),
        &[clock.monotonic_ns],
    );
    put_words(bytes, field(offset_of!(ClockWords, tsc)), &[clock.tsc]);
}

fn put_words(bytes: &mut [u8], at: usize, words: &[u64]) {
    let packed: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    put_bytes(bytes, at, &packed);
}

fn put_bytes(bytes: &mut [u8], at: usize, new: &[u8]) {
    let place = bytes.get_mut(at..).unwrap_or_default();
    place
        .iter_mut()
        .zip(new)
        .for_each(|(byte, new)| *byte = *new);
}
