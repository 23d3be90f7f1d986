//! Safe parsing of byte copies of a live table, for readers in other processes and of files.
//!
//! Key types: [`LiveHeaderImage`] and [`BucketImage`]. The bytes may be anything: every number
//! is checked before it is used as an offset. A copy of a table that is in use can be torn
//! inside a cell: copy each bucket twice and take the blocks that are equal in both copies
//! ([`BucketImage::parse_twice`]); a cell's version makes that sound unless it was reused a
//! multiple of 2^15 times between the two copies.

use super::cell::{BUCKET_CELLS, BUCKET_LINES, CELL_WORDS, Key, LiveBlock};
use super::{
    BUCKET_COUNT, HEADER_LINES, LEAST_BUCKETS, LOST, LiveStats, MAGIC, MOST_BUCKETS, PUSHED_OUT,
    SAMPLE_BYTES, STALE, Sampling, VERSION, line_count, tag_line_count,
};
use crate::section::{LINE_BYTES, SectionError, word_at};
use core::num::NonZeroU64;

const BUCKET_BYTES: usize = BUCKET_LINES * LINE_BYTES;

/// The bucket count that header words record; `word` reads the words of the first line.
pub(super) fn checked_bucket_count(
    magic: u64,
    word: impl Fn(usize) -> u64,
    given_bytes: u64,
) -> Result<NonZeroU64, SectionError> {
    if magic != MAGIC {
        return Err(SectionError::Foreign { what: "live table" });
    }
    if word(1) != VERSION {
        return Err(SectionError::Version { found: word(1) });
    }
    let bucket_count = NonZeroU64::new(word(BUCKET_COUNT))
        .filter(|count| (LEAST_BUCKETS..=MOST_BUCKETS).contains(&count.get()));
    let bucket_count = bucket_count.ok_or(SectionError::Damaged {
        field: "bucket_count",
    })?;
    let needed_bytes = line_count(bucket_count.get()) * LINE_BYTES as u64;
    if given_bytes < needed_bytes {
        return Err(SectionError::TooShort {
            given_bytes,
            needed_bytes,
        });
    }
    Ok(bucket_count)
}

/// The checked header of a copied live table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveHeaderImage {
    bucket_count: u64,
    stats: LiveStats,
}

impl LiveHeaderImage {
    /// Bytes at the start of a table that [`parse`](LiveHeaderImage::parse) needs.
    pub const BYTES: usize = HEADER_LINES * LINE_BYTES;

    /// Checks the first bytes of a table against the bytes that its section has.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8], section_bytes: u64) -> Result<LiveHeaderImage, SectionError> {
        if bytes.len() < Self::BYTES {
            return Err(SectionError::TooShort {
                given_bytes: bytes.len() as u64,
                needed_bytes: Self::BYTES as u64,
            });
        }
        let bucket_count = checked_bucket_count(
            word_at(bytes, 0),
            |index| word_at(bytes, index),
            section_bytes,
        )?
        .get();
        let counter = |word: usize| word_at(bytes, LINE_BYTES / 8 + word);
        let stats = LiveStats {
            cell_count: bucket_count * BUCKET_CELLS as u64,
            sample_bytes: word_at(bytes, SAMPLE_BYTES),
            lost: counter(LOST),
            stale: counter(STALE),
            pushed_out: counter(PUSHED_OUT),
        };
        Ok(LiveHeaderImage {
            bucket_count,
            stats,
        })
    }

    /// Offset of the first bucket in the table, and the number of buckets, each
    /// [`BucketImage::BYTES`] long.
    pub fn buckets(&self) -> (u64, u64) {
        (
            Self::BYTES as u64 + tag_line_count(self.bucket_count) * LINE_BYTES as u64,
            self.bucket_count,
        )
    }

    /// The counters.
    pub fn stats(&self) -> LiveStats {
        self.stats
    }

    /// The rule of what is kept: read it from a header copied *after* the buckets, so that no
    /// block that has left the sample meanwhile is counted.
    pub fn sampling(&self) -> Sampling {
        Sampling::new(self.stats.sample_bytes)
    }
}

/// The blocks of one copied bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BucketImage {
    blocks: [Option<(u64, LiveBlock)>; BUCKET_CELLS],
}

impl BucketImage {
    /// Bytes of a bucket.
    pub const BYTES: usize = BUCKET_BYTES;

    /// The blocks of a bucket that nobody used while it was copied.
    pub fn parse(bytes: &[u8; BUCKET_BYTES]) -> BucketImage {
        BucketImage {
            blocks: core::array::from_fn(|cell| block_of(words_of(bytes, cell))),
        }
    }

    /// The blocks of a bucket that may be in use, from two copies made one after the other;
    /// cells that changed in between are left out.
    pub fn parse_twice(first: &[u8; BUCKET_BYTES], second: &[u8; BUCKET_BYTES]) -> BucketImage {
        let stable = |cell: usize| {
            Some(words_of(first, cell)).filter(|words| *words == words_of(second, cell))
        };
        BucketImage {
            blocks: core::array::from_fn(|cell| block_of(stable(cell)?)),
        }
    }

    /// The blocks with their addresses.
    pub fn blocks(&self) -> impl Iterator<Item = (u64, LiveBlock)> {
        self.blocks.iter().flatten().copied()
    }

    /// The block in which `address` lies, with its own address.
    pub fn containing(&self, address: u64) -> Option<(u64, LiveBlock)> {
        self.blocks()
            .find(|(start, block)| block.covers(*start, address))
    }
}

fn words_of(bytes: &[u8; BUCKET_BYTES], cell: usize) -> [u64; CELL_WORDS] {
    core::array::from_fn(|word| word_at(bytes, cell * CELL_WORDS + word))
}

fn block_of(words: [u64; CELL_WORDS]) -> Option<(u64, LiveBlock)> {
    let [key, stack, size, time] = words;
    Key(key).is_block().then(|| {
        (
            Key(key).address(),
            LiveBlock::from_words([stack, size, time]),
        )
    })
}
