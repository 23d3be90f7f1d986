//! Making a live table in memory and viewing one that is there.

#[cfg(not(loom))]
use super::MOST_BUCKETS;
use super::{LEAST_BUCKETS, LiveTable, buckets_in, image, line_count};
#[cfg(not(loom))]
use crate::error::ConfigError;
use crate::section::{LINE_BYTES, SectionError, WordLine};
use core::num::NonZeroU64;

/// Views lines that a table was made in before.
fn checked(lines: &[WordLine]) -> Result<LiveTable<'_>, SectionError> {
    let given_bytes = (lines.len() * LINE_BYTES) as u64;
    let short = SectionError::TooShort {
        given_bytes,
        needed_bytes: line_count(LEAST_BUCKETS) * LINE_BYTES as u64,
    };
    let (magic, word) = lines.first().ok_or(short)?.header();
    let bucket_count = image::checked_bucket_count(magic, word, given_bytes)?;
    LiveTable::view(lines, bucket_count).ok_or(short)
}

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "memory that the caller maps is vouched for by the caller"
)]
mod real {
    use super::*;
    use crate::layout::Line;
    use crate::section::{lines_at, lines_of};
    use core::ptr::NonNull;

    impl<'r> LiveTable<'r> {
        /// Makes a table in borrowed memory, all of which it uses; [`live_bytes`](crate::live::live_bytes) says how much
        /// a number of cells takes.
        ///
        /// # Errors
        /// Memory that is too short for two buckets, or too long.
        pub fn new(memory: &'r mut [Line]) -> Result<LiveTable<'r>, ConfigError> {
            make(lines_of(memory))
        }

        /// Makes a table in zero-filled memory; touches only its header.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `bytes` bytes for `'r`, all of them zero, and
        /// is accessed only through live tables meanwhile (also by other processes).
        ///
        /// # Errors
        /// Memory that is unaligned, too short for two buckets, or too long.
        pub unsafe fn create(
            base: NonNull<u8>,
            bytes: usize,
        ) -> Result<LiveTable<'r>, ConfigError> {
            let unaligned = ConfigError::Unaligned {
                address: base.addr().get(),
                alignment: LINE_BYTES,
            };
            // SAFETY: the caller's promise, passed on.
            make(unsafe { lines_at(base, bytes) }.map_err(|_| unaligned)?)
        }

        /// Views a table that was made before.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `bytes` bytes for `'r` and is accessed only
        /// through live tables meanwhile (also by other processes).
        ///
        /// # Errors
        /// What is wrong with the memory.
        pub unsafe fn attach(
            base: NonNull<u8>,
            bytes: usize,
        ) -> Result<LiveTable<'r>, SectionError> {
            // SAFETY: the caller's promise, passed on.
            checked(unsafe { lines_at(base, bytes) }?)
        }
    }

    fn make(lines: &[WordLine]) -> Result<LiveTable<'_>, ConfigError> {
        let [value, least, most] = [
            lines.len() as u64,
            line_count(LEAST_BUCKETS),
            line_count(MOST_BUCKETS),
        ]
        .map(|lines| lines * LINE_BYTES as u64);
        let bucket_count = NonZeroU64::new(buckets_in(lines.len() as u64))
            .filter(|count| (LEAST_BUCKETS..=MOST_BUCKETS).contains(&count.get()));
        let table = bucket_count.and_then(|bucket_count| LiveTable::view(lines, bucket_count));
        let table = table.ok_or(ConfigError::OutOfRange {
            field: "live table bytes",
            value,
            least,
            most,
        })?;
        table.write_header();
        Ok(table)
    }
}

#[cfg(loom)]
impl<'r> LiveTable<'r> {
    /// Makes a table over loom's boxes.
    pub fn create_in(
        memory: &'r crate::section::SectionMemory,
    ) -> Result<LiveTable<'r>, SectionError> {
        let table = LiveTable::of_memory(memory)?;
        table.write_header();
        Ok(table)
    }

    /// Views a table that was made before.
    pub fn attach_in(
        memory: &'r crate::section::SectionMemory,
    ) -> Result<LiveTable<'r>, SectionError> {
        checked(memory.lines())
    }

    /// The same without a look at the header: nothing is ordered by it.
    pub fn of_memory(
        memory: &'r crate::section::SectionMemory,
    ) -> Result<LiveTable<'r>, SectionError> {
        let lines = memory.lines();
        let short = SectionError::TooShort {
            given_bytes: lines.len() as u64,
            needed_bytes: 0,
        };
        let bucket_count = NonZeroU64::new(buckets_in(lines.len() as u64)).ok_or(short)?;
        LiveTable::view(lines, bucket_count).ok_or(short)
    }
}
