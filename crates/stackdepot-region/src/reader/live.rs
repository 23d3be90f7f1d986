//! The live blocks of a foreign file, and what they add up to by stack.
//!
//! Key types: [`BlockRecord`], one block; [`LiveCopy`], all of them by address. While the table or the
//! recorder samples each stands for more than itself: `factor`, in units of 1/65536.

use std::collections::HashMap;

use stackdepot::live::{BucketImage, LiveBlock, LiveHeaderImage, Sampling};

use super::snapshot::{Amount, Skipped, problem};
use super::source::Source;
use crate::error::ReadError;
use crate::plan::Section;
use crate::poisson::ByteSampling;

/// A block that was live when the file was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlockRecord {
    /// Its first byte.
    pub address: u64,
    /// Size, stack, thread, time.
    pub block: LiveBlock,
    /// How many blocks it stands for, times 65536; 65536 while every block is recorded.
    pub factor: u64,
}

/// How a copied live table stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStats {
    /// Its cells.
    pub cell_count: u64,
    /// Those with a block of the sample in them.
    pub used_count: u64,
    /// Blocks of about this size or more are all kept; 0 when every block is.
    pub sample_bytes: u64,
    /// Blocks that could not be stored though they belonged in the sample.
    pub lost_count: u64,
    /// Blocks whose free was not seen: their address was allocated again.
    pub stale_count: u64,
    /// Blocks that left the table because they left the sample.
    pub pushed_out_count: u64,
}

impl LiveStats {
    /// Whether sums over the table are estimates.
    pub fn is_sampled(&self) -> bool {
        Sampling::new(self.sample_bytes).is_sampling() || self.lost_count > 0
    }
}

#[derive(Debug, Default)]
pub(crate) struct LiveCopy {
    blocks: Vec<BlockRecord>,
    stats: LiveStats,
}

impl LiveCopy {
    pub(crate) fn take(
        source: &Source,
        section: &Section,
        recorded: ByteSampling,
        skipped: &mut Skipped,
        problems: &mut Vec<String>,
    ) -> Result<LiveCopy, ReadError> {
        let read_header = || {
            let length = section.bytes.min(LiveHeaderImage::BYTES) as u64;
            source.read(section.offset as u64, length)
        };
        let parse = |bytes: Vec<u8>| LiveHeaderImage::parse(&bytes, section.bytes as u64);
        let header = match parse(read_header()?) {
            Ok(header) => header,
            Err(error) => {
                problems.push(problem(section, &error.to_string()));
                return Ok(LiveCopy::default());
            }
        };
        let found = read_buckets(source, section, &header, skipped)?;
        // The rule only ever keeps less: the one read after the blocks says what each stands for.
        let header = parse(read_header()?).unwrap_or(header);
        Ok(LiveCopy::new(&found, &header, recorded))
    }

    fn new(
        found: &[(u64, LiveBlock)],
        header: &LiveHeaderImage,
        recorded: ByteSampling,
    ) -> LiveCopy {
        let sampling = header.sampling();
        let mut blocks: Vec<BlockRecord> = found
            .iter()
            .map(|(address, block)| BlockRecord {
                address: *address,
                block: *block,
                factor: recorded.scale(sampling.factor(*address, block.size), block.size),
            })
            .filter(|record| record.factor > 0)
            .collect();
        blocks.sort_by_key(|record| (record.address, std::cmp::Reverse(record.block.time)));
        // A block that moved between buckets while we copied is found twice: the newer one counts.
        blocks.dedup_by_key(|record| record.address);
        let stats = header.stats();
        LiveCopy {
            stats: LiveStats {
                cell_count: stats.cell_count,
                used_count: blocks.len() as u64,
                sample_bytes: stats.sample_bytes,
                lost_count: stats.lost,
                stale_count: stats.stale,
                pushed_out_count: stats.pushed_out,
            },
            blocks,
        }
    }

    pub(crate) fn stats(&self) -> LiveStats {
        self.stats
    }

    pub(crate) fn blocks(&self) -> &[BlockRecord] {
        &self.blocks
    }

    /// Live blocks do not overlap, so only the last one that starts at or before can cover.
    pub(crate) fn block_at(&self, address: u64) -> Option<&BlockRecord> {
        let after = self
            .blocks
            .partition_point(|record| record.address <= address);
        let record = self.blocks.get(after.checked_sub(1)?)?;
        record
            .block
            .covers(record.address, address)
            .then_some(record)
    }

    /// What the blocks of each stack (0: no stack) add up to, scaled.
    pub(crate) fn amounts(&self) -> HashMap<u64, Amount> {
        let mut sums: HashMap<u64, (u128, u128)> = HashMap::new();
        for record in &self.blocks {
            let stack = record.block.stack.map_or(0, |weak| weak.to_bits());
            let (count, bytes) = sums.entry(stack).or_default();
            *count += u128::from(record.factor);
            *bytes += u128::from(record.factor) * u128::from(record.block.size);
        }
        let unscaled = |sum: u128| {
            let rounded = (sum + u128::from(Sampling::ONE / 2)) / u128::from(Sampling::ONE);
            u64::try_from(rounded).unwrap_or(u64::MAX)
        };
        sums.into_iter()
            .map(|(stack, (count, bytes))| {
                let amount = Amount {
                    count: unscaled(count),
                    bytes: unscaled(bytes),
                };
                (stack, amount)
            })
            .collect()
    }
}

fn read_buckets(
    source: &Source,
    section: &Section,
    header: &LiveHeaderImage,
    skipped: &mut Skipped,
) -> Result<Vec<(u64, LiveBlock)>, ReadError> {
    let (buckets_at, bucket_count) = header.buckets();
    let start = section.offset as u64 + buckets_at;
    let bytes = bucket_count * BucketImage::BYTES as u64;
    let mut found = Vec::new();
    source.for_each_unit_twice(start, bytes, BucketImage::BYTES, |_, first, second| {
        let pair = (first.first_chunk(), second.first_chunk());
        let (Some(first), Some(second)) = pair else {
            return;
        };
        let before = found.len();
        found.extend(BucketImage::parse_twice(first, second).blocks());
        if first != second {
            let there = BucketImage::parse(first).blocks().count();
            skipped.blocks_torn += there.saturating_sub(found.len() - before) as u64;
        }
    })?;
    Ok(found)
}
