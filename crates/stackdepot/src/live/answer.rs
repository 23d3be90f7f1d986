//! What the calls of a live table answer: who owns which reference now, and what was counted.

use super::cell::LiveBlock;

/// What became of an inserted block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "references that the table did not take, or gave back, must be put"]
pub enum Inserted {
    /// It is in the table, which took its reference.
    Stored,
    /// So it is, in place of a block at the same address whose free was not seen (counted);
    /// that block's reference is the caller's now.
    Replaced(LiveBlock),
    /// So it is, in the place of a block that left the sample; that block's reference is the
    /// caller's now. It is still live, just no longer known.
    PushedOut(LiveBlock),
    /// It is not in the sample: its reference stays the caller's.
    Unsampled,
    /// Nor is it, and a block at the same address, whose free was not seen, was removed; both
    /// references are the caller's.
    UnsampledReplaced(LiveBlock),
    /// Other threads kept taking the chosen cell: not stored, counted as lost; its reference
    /// stays the caller's.
    Contended,
}

impl Inserted {
    /// Whether the table took the block and its reference.
    pub const fn is_stored(&self) -> bool {
        matches!(
            self,
            Inserted::Stored | Inserted::Replaced(_) | Inserted::PushedOut(_)
        )
    }

    /// A block whose reference came back to the caller.
    pub const fn released(&self) -> Option<LiveBlock> {
        match self {
            Inserted::Replaced(block)
            | Inserted::PushedOut(block)
            | Inserted::UnsampledReplaced(block) => Some(*block),
            Inserted::Stored | Inserted::Unsampled | Inserted::Contended => None,
        }
    }
}

/// What was known about an address that is being freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "the reference of a removed block must be put"]
pub enum Removed {
    /// The block; its reference is the caller's now.
    Block(LiveBlock),
    /// Not in the table, which proves nothing: it may have been left out of the sample or lost.
    Unsampled,
    /// Not in the table though every block at this address would be: no block that was recorded
    /// is live there. A double free, an invalid free, or a block from before the recording.
    Unknown,
}

/// What a table counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LiveStats {
    /// Cells of the table.
    pub cell_count: u64,
    /// S of [`Sampling`](super::Sampling); 0 = every block is kept.
    pub sample_bytes: u64,
    /// Blocks of the sample that could not be stored.
    pub lost: u64,
    /// Blocks found at the address of a new one: their frees were not seen.
    pub stale: u64,
    /// Blocks that left the table because they left the sample.
    pub pushed_out: u64,
}
