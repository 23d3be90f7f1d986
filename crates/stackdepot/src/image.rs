//! Safe reading of a depot out of copied bytes, for processes that do not trust them.
//!
//! Key types: [`HeaderImage`] and [`SlotImage`]. Nothing here touches shared memory: callers
//! copy pieces of a region file and parse the copies. Every number is checked against the
//! others before anybody uses it as an offset or a bound. Following parents, bounding the
//! hops and checking generations before and after is the caller's part (`protocols.md` F).

use core::fmt;

use crate::config::{Config, Geometry, HashChoice};
use crate::frame::Windows;
use crate::layout::{
    FLAG_REFERENCES, HASH_AES, HASH_MULTIPLY_FOLD, HEADER_BYTES, MAGIC, MOST_PAYLOAD_WORDS,
    RUN_FRAMES, VERSION, WINDOW_COUNT,
};
use crate::state::{State, Status};

/// Why bytes are no part of a depot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageError {
    /// Fewer bytes than a header has.
    TooShort,
    /// The magic number is missing.
    NotADepot,
    /// Another version of the format.
    Version(u32),
    /// Stacks are filed by an unknown hash.
    HashKind(u32),
    /// A number of the header is impossible or contradicts another.
    Header(&'static str),
    /// The slot holds no node.
    NotANode,
    /// The node names upper halves that are not there.
    Windows,
}

impl fmt::Display for ImageError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageError::TooShort => write!(out, "too short for the header of a depot"),
            ImageError::NotADepot => write!(out, "no depot: the magic number is missing"),
            ImageError::Version(found) => {
                write!(out, "depot format {found} is not known to this version")
            }
            ImageError::HashKind(found) => {
                write!(out, "depot hash kind {found} is not known to this version")
            }
            ImageError::Header(field) => write!(out, "damaged depot: impossible {field}"),
            ImageError::NotANode => write!(out, "the slot holds no node"),
            ImageError::Windows => write!(out, "the node's upper halves are missing"),
        }
    }
}

impl core::error::Error for ImageError {}

/// Where the header's fields lie; `layout.rs` asserts the same numbers.
mod at {
    pub const CLOCK: usize = 64;
    pub const DIRTY: usize = 72;
    pub const COUNTERS: usize = 192;
    pub const EVICTED_PAYLOAD: usize = COUNTERS + 20 * 8;
    pub const WINDOWS: usize = 384;
}

/// The header of a depot, copied and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderImage {
    /// Where the parts lie, from the start of the depot's region.
    pub geometry: Geometry,
    /// Most frames of a stack.
    pub max_frames: u32,
    /// How long a lease lasts; 0: leases are off.
    pub lease_ticks: u32,
    /// Whether counted references are on.
    pub references: bool,
    /// The clock at the time of the copy.
    pub clock: u64,
    /// Whether a reopen was under way (or was cut short).
    pub is_dirty: bool,
    /// Upper halves of frames: `Some` where the cell is taken.
    pub windows: [Option<u32>; WINDOW_COUNT],
    /// The counters in the order of [`crate::Stats`]: new stacks, new nodes, evicted stacks,
    /// evicted nodes, full, contended, crowded, saturated, truncated, wide nodes, worn slots,
    /// crowd evicted, stale puts, undone nodes.
    pub counters: [u64; 14],
    /// Sums of the payload words of evicted stacks.
    pub evicted_payload: [u64; MOST_PAYLOAD_WORDS],
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u32::from_le_bytes(*word))
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes
        .get(offset..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |word| u64::from_le_bytes(*word))
}

fn words_at<const N: usize>(bytes: &[u8], offset: usize) -> [u64; N] {
    core::array::from_fn(|index| u64_at(bytes, offset + index * 8))
}

impl HeaderImage {
    /// Parses a copy of the first [`HEADER_BYTES`] bytes of a region.
    ///
    /// # Errors
    /// Says what is missing or impossible.
    pub fn parse(bytes: &[u8]) -> Result<HeaderImage, ImageError> {
        if bytes.len() < HEADER_BYTES {
            return Err(ImageError::TooShort);
        }
        if u64_at(bytes, 0) != MAGIC {
            return Err(ImageError::NotADepot);
        }
        if u32_at(bytes, 8) != VERSION {
            return Err(ImageError::Version(u32_at(bytes, 8)));
        }
        // No reader needs the hash, so none needs the instructions for it.
        if !matches!(u32_at(bytes, 56), HASH_MULTIPLY_FOLD | HASH_AES) {
            return Err(ImageError::HashKind(u32_at(bytes, 56)));
        }
        let config = HeaderImage::config(bytes)?;
        let geometry = config
            .geometry()
            .map_err(|_| ImageError::Header("configuration"))?;
        if u32_at(bytes, 24) != geometry.slot_count || u32_at(bytes, 28) != geometry.bucket_count {
            return Err(ImageError::Header("slot count"));
        }
        let windows = words_at::<WINDOW_COUNT>(bytes, at::WINDOWS).map(Windows::high_of_cell);
        Ok(HeaderImage {
            geometry,
            max_frames: config.max_frames,
            lease_ticks: config.lease_ticks,
            references: config.references,
            clock: u64_at(bytes, at::CLOCK),
            is_dirty: u64_at(bytes, at::DIRTY) != 0,
            windows,
            counters: words_at(bytes, at::COUNTERS),
            evicted_payload: words_at(bytes, at::EVICTED_PAYLOAD),
        })
    }

    fn config(bytes: &[u8]) -> Result<Config, ImageError> {
        if u32_at(bytes, 12) as usize != HEADER_BYTES {
            return Err(ImageError::Header("header size"));
        }
        let region_bytes =
            usize::try_from(u64_at(bytes, 16)).map_err(|_| ImageError::Header("region size"))?;
        Ok(Config {
            region_bytes,
            references: u32_at(bytes, 44) & FLAG_REFERENCES != 0,
            lease_ticks: u32_at(bytes, 40),
            payload_words: u32_at(bytes, 32),
            max_frames: u32_at(bytes, 36),
            seed: u64_at(bytes, 48),
            generation_limit: u32_at(bytes, 60),
            hash: HashChoice::Portable,
            first_tick: 0,
        })
    }
}

/// One slot, copied. Any 64 bytes parse; what they mean is checked when it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotImage {
    /// The state word.
    pub state: State,
    /// How often the slot was reused.
    pub generation: u32,
    /// Low half of the prefix hash.
    pub hash: u32,
    /// The parent's slot; 0 for a root node.
    pub parent: u32,
    /// The selectors and windows, or the EXT slot of a wide node.
    pub windows: u32,
    /// Lower halves, or upper halves in an EXT slot.
    pub frames: [u32; RUN_FRAMES],
}

impl SlotImage {
    /// Parses a copy of one slot.
    pub fn parse(bytes: &[u8; 64]) -> SlotImage {
        SlotImage {
            state: State(u64_at(bytes, 0)),
            generation: u32_at(bytes, 8),
            hash: u32_at(bytes, 12),
            parent: u32_at(bytes, 16),
            windows: u32_at(bytes, 20),
            frames: core::array::from_fn(|index| u32_at(bytes, 24 + index * 4)),
        }
    }

    /// Whether the slot holds a node that can be decoded.
    pub fn is_node(&self) -> bool {
        self.state.is_live() && (1..=RUN_FRAMES).contains(&self.state.length())
    }

    /// The slot of the upper halves, when the node is wide.
    pub fn ext_slot(&self) -> Option<u32> {
        (self.is_node() && self.state.has(State::WIDE)).then_some(self.windows)
    }

    /// Writes the node's frames, leaf first, and answers how many they are.
    ///
    /// # Errors
    /// `NotANode`, or `Windows` when an upper half is not in the header's table or `ext` is
    /// missing or holds something else.
    pub fn decode(
        &self,
        header: &HeaderImage,
        ext: Option<&SlotImage>,
        out: &mut [u64; RUN_FRAMES],
    ) -> Result<usize, ImageError> {
        if !self.is_node() {
            return Err(ImageError::NotANode);
        }
        let length = self.state.length();
        let highs = if self.state.has(State::WIDE) {
            let ext = ext
                .filter(|ext| ext.state.status() == Status::Ext)
                .ok_or(ImageError::Windows)?;
            ext.frames
        } else {
            self.narrow_highs(header, length)?
        };
        for ((frame, low), high) in out.iter_mut().zip(self.frames).zip(highs).take(length) {
            *frame = u64::from(high) << 32 | u64::from(low);
        }
        Ok(length)
    }

    fn narrow_highs(
        &self,
        header: &HeaderImage,
        length: usize,
    ) -> Result<[u32; RUN_FRAMES], ImageError> {
        let windows = Windows(self.windows);
        let mut highs = [0; RUN_FRAMES];
        for (position, high) in highs.iter_mut().enumerate().take(length) {
            let cell = header
                .windows
                .get(windows.cell_of(position))
                .copied()
                .flatten();
            *high = cell.ok_or(ImageError::Windows)?;
        }
        Ok(highs)
    }
}
