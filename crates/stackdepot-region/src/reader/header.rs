//! The header page of a foreign file, checked: what does not add up is refused here, once.
//!
//! Key type: [`HeaderView`]. Owns the invariant of the reader: sections lie page-aligned, in order,
//! without overlap, inside the bytes that the file really has.

use core::mem::offset_of;

use crate::clock::ClockPair;
use crate::error::ReadErrorKind;
use crate::format::{
    ClockWords, FORMAT_VERSION, FileHeader, HEADER_BYTES, MAGIC, MAX_FILE_BYTES, PAGE_BYTES,
    RunState, SECTION_COUNT, SECTIONS_OFFSET, SectionName, word_at,
};
use crate::mapping::{META_COMMAND_OFFSET, META_EXECUTABLE_OFFSET};
use crate::plan::{CACHES_MOST_BYTES, META_BYTES, MODULES_MOST_BYTES, Section};
use crate::poisson::ByteSampling;
use crate::process::{ProcessId, boot_digest, namespace_digest};

#[derive(Clone, Debug)]
pub(crate) struct HeaderView {
    pub(crate) file_bytes: u64,
    sections: [Section; SECTION_COUNT],
    pub(crate) is_child: bool,
    pub(crate) process: ProcessId,
    pub(crate) parent_pid: u32,
    pub(crate) boot_digest: u64,
    pub(crate) state: RunState,
    pub(crate) clock_start: ClockPair,
    pub(crate) clock_last: ClockPair,
    pub(crate) sampling: ByteSampling,
}

impl HeaderView {
    /// From the first bytes of a file that is `found_bytes` long.
    pub(crate) fn parse(page: &[u8], found_bytes: u64) -> Result<HeaderView, ReadErrorKind> {
        let word = |offset: usize| word_at(page, offset).unwrap_or(0);
        check_identity(page, found_bytes)?;
        let damaged = |what, offset: usize| ReadErrorKind::Damaged {
            what,
            offset: offset as u64,
        };
        let state_offset = offset_of!(FileHeader, state);
        Ok(HeaderView {
            file_bytes: word(offset_of!(FileHeader, file_bytes)),
            sections: parse_sections(page, word(offset_of!(FileHeader, file_bytes)))?,
            is_child: word(offset_of!(FileHeader, is_child)) != 0,
            process: ProcessId {
                pid: u32::try_from(word(offset_of!(FileHeader, pid)))
                    .map_err(|_| damaged("the pid", offset_of!(FileHeader, pid)))?,
                start_ticks: word(offset_of!(FileHeader, start_ticks)),
                namespace: word(offset_of!(FileHeader, namespace)),
            },
            parent_pid: word(offset_of!(FileHeader, parent_pid)) as u32,
            boot_digest: word(offset_of!(FileHeader, boot_digest)),
            state: RunState::from_bits(word(state_offset))
                .ok_or(damaged("the state", state_offset))?,
            clock_start: parse_clock(page, offset_of!(FileHeader, clock_start)),
            clock_last: parse_clock(page, offset_of!(FileHeader, clock_last)),
            sampling: ByteSampling::new(word(offset_of!(FileHeader, sample_bytes))),
        })
    }

    /// The clocks now, where they are the writer's: the same boot of the same machine.
    pub(crate) fn comparable_now(&self) -> Option<ClockPair> {
        let now = (self.boot_digest == boot_digest()).then(ClockPair::now)?;
        if self.process.namespace == namespace_digest() {
            return Some(now);
        }
        // A time namespace has a monotonic clock of its own; the wall clock is everybody's.
        let elapsed_ns = now.realtime_ns.checked_sub(self.clock_start.realtime_ns)?;
        Some(ClockPair {
            monotonic_ns: self.clock_start.monotonic_ns.checked_add(elapsed_ns)?,
            ..now
        })
    }

    pub(crate) fn section(&self, name: SectionName) -> Section {
        self.sections
            .get(name as usize)
            .copied()
            .unwrap_or_default()
    }
}

/// Magic, version, size.
fn check_identity(page: &[u8], found_bytes: u64) -> Result<(), ReadErrorKind> {
    let magic = word_at(page, 0).ok_or(ReadErrorKind::NotARegion)?;
    if magic != MAGIC {
        let is_blank = page.iter().take(8).all(|byte| *byte == 0);
        let is_ours =
            word_at(page, offset_of!(FileHeader, header_bytes)) == Some(HEADER_BYTES as u64);
        return Err(
            match is_blank && (is_ours || page.iter().all(|byte| *byte == 0)) {
                true => ReadErrorKind::Unfinished,
                false => ReadErrorKind::NotARegion,
            },
        );
    }
    let truncated = |expected_bytes| ReadErrorKind::Truncated {
        found_bytes,
        expected_bytes,
    };
    if page.len() < PAGE_BYTES {
        return Err(truncated(HEADER_BYTES as u64));
    }
    let word = |offset: usize| word_at(page, offset).unwrap_or(0);
    match word(offset_of!(FileHeader, version)) {
        FORMAT_VERSION => {}
        other => return Err(ReadErrorKind::Version(other)),
    }
    let file_bytes = word(offset_of!(FileHeader, file_bytes));
    let is_possible = (HEADER_BYTES as u64..=MAX_FILE_BYTES).contains(&file_bytes);
    if !is_possible || word(offset_of!(FileHeader, header_bytes)) != HEADER_BYTES as u64 {
        return Err(ReadErrorKind::Damaged {
            what: "the file size",
            offset: offset_of!(FileHeader, file_bytes) as u64,
        });
    }
    match found_bytes < file_bytes {
        true => Err(truncated(file_bytes)),
        false => Ok(()),
    }
}

fn parse_sections(page: &[u8], file_bytes: u64) -> Result<[Section; SECTION_COUNT], ReadErrorKind> {
    let mut sections = [Section::default(); SECTION_COUNT];
    let mut end = HEADER_BYTES as u64;
    for (index, section) in sections.iter_mut().enumerate() {
        let row_offset = SECTIONS_OFFSET + index * 16;
        let offset = word_at(page, row_offset).unwrap_or(0);
        let bytes = word_at(page, row_offset + 8).unwrap_or(0);
        let is_inside = offset >= end
            && offset.is_multiple_of(PAGE_BYTES as u64)
            && bytes <= most_bytes(index)
            && bytes <= file_bytes
            && offset <= file_bytes - bytes;
        if !is_inside {
            return Err(ReadErrorKind::Damaged {
                what: "the section table",
                offset: row_offset as u64,
            });
        }
        end = offset + bytes;
        *section = Section {
            offset: offset as usize,
            bytes: bytes as usize,
        };
    }
    Ok(sections)
}

/// A sparse file is as large as it likes: what is small in every file is read at no other size.
fn most_bytes(section_index: usize) -> u64 {
    const META: usize = SectionName::Meta as usize;
    const MODULES: usize = SectionName::Modules as usize;
    const CACHES: usize = SectionName::Caches as usize;
    match section_index {
        META => META_BYTES as u64,
        MODULES => MODULES_MOST_BYTES as u64,
        CACHES => CACHES_MOST_BYTES as u64,
        _ => MAX_FILE_BYTES,
    }
}

fn parse_clock(page: &[u8], offset: usize) -> ClockPair {
    let word = |field: usize| word_at(page, offset + field).unwrap_or(0);
    ClockPair {
        realtime_ns: word(offset_of!(ClockWords, realtime_ns)),
        monotonic_ns: word(offset_of!(ClockWords, monotonic_ns)),
        tsc: word(offset_of!(ClockWords, tsc)),
    }
}

/// The executable's path out of the meta section.
pub(crate) fn executable(meta: &[u8]) -> Vec<u8> {
    let length = word_at(meta, 0).unwrap_or(0).min(META_BYTES as u64) as usize;
    let end = (META_EXECUTABLE_OFFSET + length).min(META_COMMAND_OFFSET);
    meta.get(META_EXECUTABLE_OFFSET..end)
        .unwrap_or_default()
        .to_vec()
}

/// The command line out of the meta section.
pub(crate) fn command(meta: &[u8]) -> Vec<Vec<u8>> {
    let length = word_at(meta, 8).unwrap_or(0).min(META_BYTES as u64) as usize;
    let end = (META_COMMAND_OFFSET + length).min(meta.len());
    let text = meta.get(META_COMMAND_OFFSET..end).unwrap_or_default();
    let text = text.strip_suffix(&[0]).unwrap_or(text);
    match text.is_empty() {
        true => Vec::new(),
        false => text.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect(),
    }
}
