//! How many bytes of a file each part gets.
//!
//! | part | share | why |
//! |---|---|---|
//! | header, meta | 24 KiB | fixed |
//! | modules | 1/64, 32 KiB..512 KiB | 384 bytes per module: 85 in a small child, 1365 in a first file |
//! | ring | 1/8, at most 32768 events | "the newest events" is worth 2 MiB, not more |
//! | live table | 1/2 up to 4 MiB, then 2 MiB + 10/28 of what exceeds: 3/8 at 32 MiB | below |
//! | caches | 1/256, 4 KiB..64 KiB | 2 KiB for a thread: of one more it holds on the depot itself |
//! | depot | the rest | stacks of any 32768 events need at most 2.7 MB; live stacks need the more |
//!
//! The live table's share: at 4 MiB (`--bytes 8M`) it has 65536 cells of 32 bytes. With 5 million
//! live blocks and at least 70 % of the cells used, 45 thousand are sampled; a stack that holds 5 % of the
//! blocks is sampled 2300 times, so its estimate has a standard deviation of 2.1 %, and 10 % is
//! almost five of them. At 32 MiB it has 12 MiB, 393 thousand blocks before it samples at all.

use stackdepot::ring::{RingConfig, ring_bytes};

use crate::format::{HEADER_BYTES, MAX_FILE_BYTES, PAGE_BYTES, SECTION_COUNT, SectionName};

/// No file is smaller.
pub const MIN_FILE_BYTES: usize = 512 << 10;
/// Executable and command line.
pub const META_BYTES: usize = 2 * PAGE_BYTES;
/// The module table is never longer.
pub const MODULES_MOST_BYTES: usize = 512 << 10;
/// The hold caches are never longer: those of 32 threads.
pub const CACHES_MOST_BYTES: usize = 64 << 10;
/// The ring holds at most this many events.
pub const MAX_EVENT_COUNT: u32 = 32768;
/// The smallest file of a later process.
pub const MIN_CHILD_BYTES: u64 = 1 << 20;

/// Where a section lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// First byte.
    pub offset: usize,
    /// Length.
    pub bytes: usize,
}

/// The layout of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SectionPlan {
    /// The size of the file: what was asked for, rounded down to pages.
    pub file_bytes: usize,
    /// By [`SectionName`], in this order.
    pub sections: [Section; SECTION_COUNT],
    /// What the ring is made with.
    pub ring: RingConfig,
}

impl SectionPlan {
    /// One section.
    pub fn section(&self, name: SectionName) -> Section {
        self.sections
            .get(name as usize)
            .copied()
            .unwrap_or_default()
    }
}

/// Why there is no layout for a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// Less than [`MIN_FILE_BYTES`].
    TooSmall,
    /// More than [`MAX_FILE_BYTES`].
    TooLarge,
}

/// Lays out a file of `file_bytes`.
pub fn plan(file_bytes: usize) -> Result<SectionPlan, PlanError> {
    if file_bytes < MIN_FILE_BYTES {
        return Err(PlanError::TooSmall);
    }
    if file_bytes as u64 > MAX_FILE_BYTES {
        return Err(PlanError::TooLarge);
    }
    let file_bytes = page_floor(file_bytes);
    let modules_bytes = page_floor(file_bytes / 64).clamp(32 << 10, MODULES_MOST_BYTES);
    let (ring, ring_bytes) = plan_ring(file_bytes).ok_or(PlanError::TooSmall)?;
    let live_bytes = page_floor(live_share(file_bytes));
    let caches_bytes = page_floor(file_bytes / 256).clamp(PAGE_BYTES, CACHES_MOST_BYTES);
    let mut sections = [Section::default(); SECTION_COUNT];
    let mut offset = HEADER_BYTES;
    let lengths = [
        META_BYTES,
        modules_bytes,
        ring_bytes,
        live_bytes,
        caches_bytes,
    ];
    for (section, bytes) in sections.iter_mut().zip(lengths) {
        *section = Section { offset, bytes };
        offset += bytes;
    }
    if let Some(depot) = sections.last_mut() {
        let bytes = file_bytes.checked_sub(offset).ok_or(PlanError::TooSmall)?;
        *depot = Section { offset, bytes };
    }
    Ok(SectionPlan {
        file_bytes,
        sections,
        ring,
    })
}

/// The first file of a run of `total_bytes` gets half.
pub fn first_file_bytes(total_bytes: u64) -> u64 {
    total_bytes / 2 / PAGE_BYTES as u64 * PAGE_BYTES as u64
}

/// Each later one a sixteenth, at least 1 MiB.
pub fn child_file_bytes(total_bytes: u64) -> u64 {
    (total_bytes / 16 / PAGE_BYTES as u64 * PAGE_BYTES as u64).max(MIN_CHILD_BYTES)
}

/// The largest power of two of events that fits an eighth of the file.
fn plan_ring(file_bytes: usize) -> Option<(RingConfig, usize)> {
    let shard_count = match file_bytes {
        0..0x40_0000 => 4,
        0x40_0000..0x100_0000 => 8,
        _ => 16,
    };
    let mut event_count = MAX_EVENT_COUNT;
    while event_count >= 64 {
        let config = RingConfig {
            event_count,
            shard_count,
        };
        if let Ok(bytes) = ring_bytes(&config)
            && bytes <= file_bytes / 8
        {
            return Some((config, page_ceil(bytes)));
        }
        event_count /= 2;
    }
    None
}

fn live_share(file_bytes: usize) -> usize {
    const SMALL: usize = 4 << 20;
    if file_bytes <= SMALL {
        return file_bytes / 2;
    }
    SMALL / 2 + (file_bytes - SMALL) / 28 * 10
}

fn page_floor(bytes: usize) -> usize {
    bytes / PAGE_BYTES * PAGE_BYTES
}

fn page_ceil(bytes: usize) -> usize {
    bytes.div_ceil(PAGE_BYTES) * PAGE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use stackdepot::cache::CACHE_BYTES;

    #[test]
    fn sections_lie_in_order_and_fill_the_file() {
        let sizes = (0..200).map(|step| MIN_FILE_BYTES + step * 397_123);
        for file_bytes in sizes.chain([1 << 20, 4 << 20, 32 << 20, 1 << 30, 64 << 30]) {
            let plan = plan(file_bytes).unwrap();
            assert!(plan.file_bytes <= file_bytes && file_bytes - plan.file_bytes < PAGE_BYTES);
            let mut end = HEADER_BYTES;
            for section in &plan.sections {
                assert_eq!((section.offset, section.offset % PAGE_BYTES), (end, 0));
                end += section.bytes;
            }
            assert_eq!(end, plan.file_bytes);
            assert!(ring_bytes(&plan.ring).unwrap() <= plan.section(SectionName::Ring).bytes);
            assert!(
                plan.section(SectionName::Depot).bytes >= file_bytes / 5,
                "{file_bytes}: {plan:?}"
            );
        }
    }

    #[test]
    fn shares_are_those_of_the_table() {
        let small = plan(4 << 20).unwrap();
        assert_eq!(small.section(SectionName::Live).bytes, 2 << 20);
        let large = plan(32 << 20).unwrap();
        assert_eq!(large.ring.event_count, 32768);
        let live_bytes = large.section(SectionName::Live).bytes;
        assert!(
            (12 << 20) - live_bytes < 2 * PAGE_BYTES && live_bytes <= 12 << 20,
            "{live_bytes}"
        );
        assert!(large.section(SectionName::Depot).bytes > 16 << 20);
        let caches_bytes = |plan: &SectionPlan| plan.section(SectionName::Caches).bytes;
        assert_eq!(caches_bytes(&large), 32 * CACHE_BYTES);
        assert_eq!(caches_bytes(&small), 8 * CACHE_BYTES);
        let child = plan(1 << 20).unwrap();
        assert_eq!(caches_bytes(&child), 2 * CACHE_BYTES);
        assert!(child.ring.event_count >= 1024);
        assert!(child.section(SectionName::Depot).bytes > 300 << 10);
    }

    #[test]
    fn impossible_sizes_are_refused() {
        assert_eq!(plan(MIN_FILE_BYTES - 1), Err(PlanError::TooSmall));
        assert_eq!(plan(usize::MAX), Err(PlanError::TooLarge));
    }

    #[test]
    fn files_of_a_run_fit_its_bytes() {
        for total_bytes in [2 << 20, 8 << 20, 64 << 20, (64 << 20) + 12345] {
            let first = first_file_bytes(total_bytes);
            assert!(first <= total_bytes / 2);
            assert!(child_file_bytes(total_bytes) <= total_bytes - first);
        }
        assert_eq!(child_file_bytes(64 << 20), 4 << 20);
        assert_eq!(child_file_bytes(1 << 20), 1 << 20);
    }
}
