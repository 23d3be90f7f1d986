//! The state word of a slot: one `u64`, so that one compare-exchange decides.
//!
//! | 63 | 62..36 | 35..12 | 11 | 10 | 9 | 8 | 7..4 | 3 | 2..0 |
//! |---|---|---|---|---|---|---|---|---|---|
//! | PINNED | references | lease stamp | CHANCE, in recovery MARK | CUT | WIDE | LEASED | run length 1..=10 | visited | status |
//!
//! | status | value | meaning |
//! |---|---|---|
//! | FREE  | 0 | nobody's; an all-zero region is a region of free slots |
//! | OWNED | 1 | one thread is making or retiring it; only that thread touches its data |
//! | LIVE  | 2 | an inner node: a run that saved stacks pass through |
//! | EXT   | 3 | holds the upper halves of a WIDE node's frames; its node owns it |
//! | WORN  | 4 | its generations are used up; never used again |
//! | SAVED | 6 | LIVE, and itself the leaf of a saved stack (LIVE with bit 2 set) |
//!
//! Nobody ever plain-stores a state word: births and frees add and subtract a delta, so that
//! the stray +1/-1 of acquirers that came too late cancel out (`protocols.md` A9).
//! The word is pure here: no atomics. `slot.rs` performs the transitions.

/// The value of a slot's state word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State(pub u64);

/// What a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Nobody's.
    Free,
    /// One thread is making or retiring it.
    Owned,
    /// A node; `saved` when a saved stack ends here.
    Live {
        /// Whether the node is itself the leaf of a saved stack.
        saved: bool,
    },
    /// The upper halves of a wide node.
    Ext,
    /// Out of service: its generations are used up.
    Worn,
    /// No value that the depot writes: only a damaged file holds one.
    Invalid,
}

impl State {
    /// Status FREE: the whole word is zero (but for stray references).
    pub const FREE: u64 = 0;
    /// Status OWNED.
    pub const OWNED: u64 = 1;
    /// Status LIVE, not saved.
    pub const LIVE: u64 = 2;
    /// Status EXT.
    pub const EXT: u64 = 3;
    /// Status WORN.
    pub const WORN: u64 = 4;
    /// The bit that makes LIVE a saved stack.
    pub const SAVED_BIT: u64 = 4;
    /// The status bits.
    pub const STATUS_MASK: u64 = 7;
    /// Used since the hand was here; stored only when clear. The hand turns it into `CHANCE`.
    pub const VISITED: u64 = 1 << 3;
    /// Shift of the run length.
    pub const LENGTH_SHIFT: u32 = 4;
    /// Mask of the run length, in place.
    pub const LENGTH_MASK: u64 = 0xf << Self::LENGTH_SHIFT;
    /// The lease stamp is meaningful.
    pub const LEASED: u64 = 1 << 8;
    /// The upper halves are in an EXT slot whose number is in `windows`.
    pub const WIDE: u64 = 1 << 9;
    /// The stack was cut at its outer end; set on root nodes only.
    pub const CUT: u64 = 1 << 10;
    /// The hand passes once more: the node was used before its last visit, or born where the hand
    /// comes by early.
    pub const CHANCE: u64 = 1 << 11;
    /// Reached by the recovery walk, which runs alone and needs no chances: the same bit.
    pub const MARK: u64 = Self::CHANCE;
    /// Shift of the lease stamp.
    pub const STAMP_SHIFT: u32 = 12;
    /// Width of the lease stamp.
    pub const STAMP_BITS: u32 = 24;
    /// Mask of the lease stamp, in place.
    pub const STAMP_MASK: u64 = ((1 << Self::STAMP_BITS) - 1) << Self::STAMP_SHIFT;
    /// Never to be evicted while this process has the region: a reopen clears it with the references.
    /// Above them, so that a count that went wrong could only hold the node, never free it.
    pub const PINNED: u64 = 1 << 63;
    /// Shift of the reference count.
    pub const REF_SHIFT: u32 = 36;
    /// One reference.
    pub const REF: u64 = 1 << Self::REF_SHIFT;
    /// References at which an acquire is refused (`Saturated`).
    pub const REF_LIMIT: u64 = 1 << 26;

    /// The status.
    #[inline]
    pub const fn status(self) -> Status {
        match self.0 & Self::STATUS_MASK {
            0 => Status::Free,
            1 => Status::Owned,
            2 => Status::Live { saved: false },
            3 => Status::Ext,
            4 => Status::Worn,
            6 => Status::Live { saved: true },
            _ => Status::Invalid,
        }
    }

    /// Whether the slot holds a node (LIVE or SAVED).
    #[inline]
    pub const fn is_live(self) -> bool {
        self.0 & (Self::STATUS_MASK & !Self::SAVED_BIT) == Self::LIVE
    }

    /// Whether a saved stack ends here.
    #[inline]
    pub const fn is_saved(self) -> bool {
        self.0 & Self::STATUS_MASK == Self::LIVE | Self::SAVED_BIT
    }

    /// Counted holds: children and acquires.
    #[inline]
    pub const fn references(self) -> u64 {
        (self.0 & !Self::PINNED) >> Self::REF_SHIFT
    }

    /// So many references, in place; the bits that a forged count has too many are left out.
    #[inline]
    pub const fn counted(references: u64) -> u64 {
        references.wrapping_mul(Self::REF)
    }

    /// Frames in the run, 0..=15; 1..=10 in a node.
    #[inline]
    pub const fn length(self) -> usize {
        ((self.0 & Self::LENGTH_MASK) >> Self::LENGTH_SHIFT) as usize
    }

    /// The tick of the newest lease.
    #[inline]
    pub const fn stamp(self) -> u32 {
        ((self.0 & Self::STAMP_MASK) >> Self::STAMP_SHIFT) as u32
    }

    /// The same word with another lease stamp, marked as leased.
    #[inline]
    pub const fn with_stamp(self, stamp: u32) -> State {
        let stamp_bits = ((stamp as u64) << Self::STAMP_SHIFT) & Self::STAMP_MASK;
        State((self.0 & !Self::STAMP_MASK) | stamp_bits | Self::LEASED)
    }

    /// Whether a flag (`VISITED`, `LEASED`, `WIDE`, `CUT`, `CHANCE`, `PINNED`) is set.
    #[inline]
    pub const fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
