//! The bytes of a region: header, index buckets, slots, payload, all of them atomics.
//!
//! Key types: [`Header`], [`Bucket`], [`Slot`] (one 64-byte line each for the latter two) and
//! [`Region`], the checked view of all parts that the rest of the crate works on. This is the
//! one file that turns raw memory into references; `cfg(loom)` puts boxes in their place,
//! because loom's atomics are no plain bytes, and shrinks the shape.

use crate::avx2::Avx2;
use crate::config::{Config, Geometry, HashChoice};
use crate::error::{AttachError, ConfigError};
use crate::sync::{AtomicU32, AtomicU64, FAULTS, Ordering};

/// Frames in a full node.
pub const RUN_FRAMES: usize = if cfg!(loom) { 2 } else { 10 };
/// Entries of an index bucket.
pub const BUCKET_CELLS: usize = if cfg!(loom) { 2 } else { 8 };
/// Cells of the window table.
pub const WINDOW_COUNT: usize = if cfg!(loom) { 2 } else { 64 };
/// Cells of the hint array: lines of 16, one line per shard.
pub(crate) const HINT_COUNT: usize = if cfg!(loom) { 1 } else { 64 };
/// Bytes of the header, everything in front of the index.
pub const HEADER_BYTES: usize = 1280;
/// Bytes of a slot and of a bucket.
pub const LINE_BYTES: usize = 64;
/// Most payload words a stack can have.
pub const MOST_PAYLOAD_WORDS: usize = 4;

/// "STKDEPOT", little-endian.
pub const MAGIC: u64 = u64::from_le_bytes(*b"STKDEPOT");
/// The version of the layout and of the protocols.
pub const VERSION: u32 = 1;
/// Multiply-fold, in portable integer arithmetic.
pub const HASH_MULTIPLY_FOLD: u32 = 1;
/// AES rounds for the runs, on processors that have such instructions and AVX2.
pub const HASH_AES: u32 = 2;
/// Header flag: counted references are on.
pub const FLAG_REFERENCES: u32 = 1;

/// Memory for [`crate::Depot::new`]: one 64-byte line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Line([u64; 8]);

impl Line {
    /// A line of zeros.
    pub const ZERO: Line = Line([0; 8]);
}

/// A number in one of the depot's statistics; never read by a protocol.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Counters {
    pub new_stacks: AtomicU64,
    pub new_nodes: AtomicU64,
    pub evicted_stacks: AtomicU64,
    pub evicted_nodes: AtomicU64,
    pub full: AtomicU64,
    pub contended: AtomicU64,
    pub crowded: AtomicU64,
    pub saturated: AtomicU64,
    pub truncated: AtomicU64,
    pub wide_nodes: AtomicU64,
    pub worn_slots: AtomicU64,
    pub crowd_evicted: AtomicU64,
    pub stale_puts: AtomicU64,
    pub undone_nodes: AtomicU64,
    pub reserved: [AtomicU64; 6],
    pub evicted_payload: [AtomicU64; MOST_PAYLOAD_WORDS],
}

/// The start of a region: what it is, its clock, its hand, its counters, its windows.
///
/// The first line is written once, at creation, with `magic` last. What moves often has a
/// line of its own, so that a reader of the clock never waits for a mover of the hand.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Header {
    pub magic: AtomicU64,
    pub version: AtomicU32,
    pub header_bytes: AtomicU32,
    pub region_bytes: AtomicU64,
    pub slot_count: AtomicU32,
    pub bucket_count: AtomicU32,
    pub payload_words: AtomicU32,
    pub max_frames: AtomicU32,
    pub lease_ticks: AtomicU32,
    pub flags: AtomicU32,
    pub seed: AtomicU64,
    pub hash_kind: AtomicU32,
    pub generation_limit: AtomicU32,
    pub clock: AtomicU64,
    pub dirty: AtomicU64,
    pub clock_reserved: [AtomicU64; 6],
    pub hand: AtomicU64,
    pub progress: AtomicU64,
    pub hand_reserved: [AtomicU64; 6],
    pub counters: Counters,
    pub windows: [AtomicU64; WINDOW_COUNT],
    pub hints: [AtomicU32; HINT_COUNT],
    #[cfg(not(loom))]
    pub reserved: [AtomicU64; 16],
}

/// One line of the index: entries of fingerprint, tentative bit and slot (`index.rs`).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Bucket {
    pub cells: [AtomicU64; BUCKET_CELLS],
}

/// The place of a node, or of the upper halves of a wide one.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// See `state.rs`; moved only by the functions of `slot.rs`.
    pub state: AtomicU64,
    /// How often the slot was reused; the other half of a weak handle.
    pub generation: AtomicU32,
    /// Low half of the prefix hash: leads back to the index entry.
    pub hash: AtomicU32,
    /// Parent slot in the low half, `windows` (or the EXT slot) in the high half.
    pub link: AtomicU64,
    /// Lower halves of the frames, two to a word, leaf first.
    pub lows: [AtomicU64; RUN_FRAMES / 2],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<Header>() == HEADER_BYTES);
    assert!(size_of::<Slot>() == LINE_BYTES);
    assert!(size_of::<Bucket>() == LINE_BYTES);
    assert!(size_of::<Line>() == LINE_BYTES);
    assert!(core::mem::offset_of!(Header, clock) == 64);
    assert!(core::mem::offset_of!(Header, hand) == 128);
    assert!(core::mem::offset_of!(Header, counters) == 192);
    assert!(core::mem::offset_of!(Header, windows) == 384);
    assert!(core::mem::offset_of!(Header, hints) == 896);
};

/// A region whose header was checked: its parts, and the constants that every save needs.
///
/// INVARIANT 1: the slices lie within the region and have exactly the lengths of the header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'r> {
    pub header: &'r Header,
    pub buckets: &'r [Bucket],
    pub slots: &'r [Slot],
    pub payload: &'r [AtomicU64],
    pub geometry: Geometry,
    /// The bits of a handle that are the slot's number.
    pub slot_bits: u32,
    pub max_frames: u32,
    pub lease_ticks: u32,
    pub references: bool,
    pub generation_limit: u32,
    /// Whether nodes can be decoded in vector registers (`vector.rs`).
    pub avx2: Option<Avx2>,
}

impl<'r> Region<'r> {
    /// The slot of a number; `None` for 0 (the root) and for what lies outside.
    #[inline]
    pub fn slot(&self, number: u32) -> Option<&'r Slot> {
        self.slots.get((number as usize).wrapping_sub(1))
    }

    /// The payload words of a slot; empty when payload is off.
    #[inline]
    pub fn payload_of(&self, number: u32) -> &'r [AtomicU64] {
        let words = self.geometry.payload_words as usize;
        let start = (number.wrapping_sub(1) as usize).wrapping_mul(words);
        self.payload
            .get(start..start.wrapping_add(words))
            .unwrap_or(&[])
    }

    /// Writes the constants of a zero-filled header; `magic` last.
    pub fn write_header(header: &Header, config: &Config, geometry: &Geometry, hash_kind: u32) {
        let relaxed = Ordering::Relaxed;
        header.version.store(VERSION, relaxed);
        header.header_bytes.store(HEADER_BYTES as u32, relaxed);
        header
            .region_bytes
            .store(geometry.region_bytes as u64, relaxed);
        header.slot_count.store(geometry.slot_count, relaxed);
        header.bucket_count.store(geometry.bucket_count, relaxed);
        header.payload_words.store(geometry.payload_words, relaxed);
        header.max_frames.store(config.max_frames, relaxed);
        header.lease_ticks.store(config.lease_ticks, relaxed);
        header.flags.store(
            if config.references {
                FLAG_REFERENCES
            } else {
                0
            },
            relaxed,
        );
        header.seed.store(config.seed, relaxed);
        header.hash_kind.store(hash_kind, relaxed);
        header
            .generation_limit
            .store(config.generation_limit, relaxed);
        header.clock.store(config.first_tick.into(), relaxed);
        // ORDERING: Release, partner: `check_header`. Who reads the magic sees the fields above.
        header.magic.store(MAGIC, Ordering::Release);
    }

    /// The configuration that a header records, checked against the bytes that are there. (The
    /// clock and the kind of the hash are not in it; `depot.rs` asks for the latter.)
    pub fn check_header(header: &Header, given_bytes: usize) -> Result<Config, AttachError> {
        let relaxed = Ordering::Relaxed;
        // ORDERING: Acquire, partner: `write_header`.
        if header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(AttachError::NotADepot);
        }
        let version = header.version.load(relaxed);
        if version != VERSION {
            return Err(AttachError::Version { found: version });
        }
        let config = Config {
            region_bytes: header.region_bytes.load(relaxed) as usize,
            references: header.flags.load(relaxed) & FLAG_REFERENCES != 0,
            lease_ticks: header.lease_ticks.load(relaxed),
            payload_words: header.payload_words.load(relaxed),
            max_frames: header.max_frames.load(relaxed),
            seed: header.seed.load(relaxed),
            generation_limit: header.generation_limit.load(relaxed),
            first_tick: 0,
            hash: HashChoice::Portable,
        };
        let geometry = config.geometry().map_err(|error| match error {
            ConfigError::OutOfRange { field, .. } => AttachError::Damaged { field },
            ConfigError::Unaligned { .. } => AttachError::Unaligned,
        })?;
        let recorded = (
            header.header_bytes.load(relaxed),
            header.slot_count.load(relaxed),
            header.bucket_count.load(relaxed),
        );
        if recorded
            != (
                HEADER_BYTES as u32,
                geometry.slot_count,
                geometry.bucket_count,
            )
        {
            return Err(AttachError::Damaged {
                field: "slot_count",
            });
        }
        if given_bytes < geometry.region_bytes {
            return Err(AttachError::TooShort {
                given_bytes,
                needed_bytes: geometry.region_bytes,
            });
        }
        Ok(config)
    }
}

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "turns raw shared memory into references to atomics, once, with checked bounds"
)]
mod real {
    use super::*;
    use core::ptr::NonNull;

    /// What a region's address must be a multiple of.
    const MEMORY_ALIGNMENT: usize = align_of::<Header>();

    impl<'r> Region<'r> {
        /// Makes a region in zero-filled memory; touches only the header.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `config.region_bytes` bytes for `'r`, all of
        /// them zero, and is accessed only through depots (or atomically, or by other processes).
        pub(crate) unsafe fn create(
            base: NonNull<u8>,
            config: &Config,
            hash_kind: u32,
        ) -> Result<Region<'r>, ConfigError> {
            let geometry = config.geometry()?;
            if !base.addr().get().is_multiple_of(MEMORY_ALIGNMENT) {
                return Err(ConfigError::Unaligned {
                    address: base.addr().get(),
                    alignment: MEMORY_ALIGNMENT,
                });
            }
            // SAFETY: aligned (checked) and at least `geometry.region_bytes` long (`geometry`
            // never exceeds `config.region_bytes`); the caller promises the rest.
            let region = unsafe { Region::view(base, config, geometry) };
            Region::write_header(region.header, config, &geometry, hash_kind);
            Ok(region)
        }

        /// Views a region that was made before.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `region_bytes` bytes for `'r` and is accessed
        /// only through depots (or atomically, or by other processes).
        pub(crate) unsafe fn attach(
            base: NonNull<u8>,
            region_bytes: usize,
        ) -> Result<Region<'r>, AttachError> {
            if !base.addr().get().is_multiple_of(MEMORY_ALIGNMENT) {
                return Err(AttachError::Unaligned);
            }
            if region_bytes < HEADER_BYTES {
                return Err(AttachError::TooShort {
                    given_bytes: region_bytes,
                    needed_bytes: HEADER_BYTES,
                });
            }
            // SAFETY: aligned and long enough for a header (both checked); atomics are valid for
            // every bit pattern; the caller promises the rest.
            let header: &'r Header = unsafe { base.cast::<Header>().as_ref() };
            let config = Region::check_header(header, region_bytes)?;
            let geometry = config.geometry().map_err(|_| AttachError::Damaged {
                field: "region_bytes",
            })?;
            // SAFETY: as above, and `check_header` compared `geometry` with `region_bytes`.
            Ok(unsafe { Region::view(base, &config, geometry) })
        }

        /// # Safety
        /// As for `create`, and `base` is aligned, and `geometry` lies within the memory.
        unsafe fn view(base: NonNull<u8>, config: &Config, geometry: Geometry) -> Region<'r> {
            let at = |offset: usize| base.as_ptr().wrapping_add(offset);
            let payload_len = geometry.slot_count as usize * geometry.payload_words as usize;
            // SAFETY: `geometry` (INVARIANT 1) places each part inside the memory at a multiple
            // of its alignment, without overlap; atomics are valid for every bit pattern and may
            // be shared; the caller promises that the memory lives for `'r`.
            unsafe {
                Region {
                    header: base.cast::<Header>().as_ref(),
                    buckets: core::slice::from_raw_parts(
                        at(geometry.buckets_offset).cast(),
                        geometry.bucket_count as usize,
                    ),
                    slots: core::slice::from_raw_parts(
                        at(geometry.slots_offset).cast(),
                        geometry.slot_count as usize,
                    ),
                    payload: core::slice::from_raw_parts(
                        at(geometry.payload_offset).cast(),
                        payload_len,
                    ),
                    geometry,
                    slot_bits: geometry.slot_bits(),
                    max_frames: config.max_frames,
                    lease_ticks: config.lease_ticks,
                    references: config.references,
                    generation_limit: config.generation_limit,
                    avx2: Avx2::detect().filter(|_| !FAULTS),
                }
            }
        }
    }
}

#[cfg(loom)]
pub use boxed::Memory;

#[cfg(loom)]
mod boxed {
    use super::*;

    /// The memory of a depot under loom: boxes of loom's atomics.
    #[derive(Debug)]
    pub struct Memory {
        header: Box<Header>,
        buckets: Vec<Bucket>,
        slots: Vec<Slot>,
        payload: Vec<AtomicU64>,
        config: Config,
        geometry: Geometry,
    }

    fn cells<const N: usize>() -> [AtomicU64; N] {
        core::array::from_fn(|_| AtomicU64::new(0))
    }

    fn word() -> AtomicU32 {
        AtomicU32::new(0)
    }

    impl Memory {
        /// Memory of two buckets and `slot_count` slots, initialised with `config`.
        pub fn new(slot_count: u32, config: &Config) -> Memory {
            let geometry = Geometry {
                bucket_count: 2,
                ..Geometry::of_slots(slot_count, config.payload_words)
            };
            let slot = |_| Slot {
                state: AtomicU64::new(0),
                generation: word(),
                hash: word(),
                link: AtomicU64::new(0),
                lows: cells(),
            };
            let memory = Memory {
                header: Box::new(header()),
                buckets: (0..2).map(|_| Bucket { cells: cells() }).collect(),
                slots: (0..slot_count).map(slot).collect(),
                payload: (0..slot_count * config.payload_words)
                    .map(|_| AtomicU64::new(0))
                    .collect(),
                config: *config,
                geometry,
            };
            Region::write_header(&memory.header, config, &geometry, HASH_MULTIPLY_FOLD);
            memory
        }

        pub(crate) fn region(&self) -> Region<'_> {
            Region {
                header: &self.header,
                buckets: &self.buckets,
                slots: &self.slots,
                payload: &self.payload,
                geometry: self.geometry,
                slot_bits: self.geometry.slot_bits(),
                max_frames: self.config.max_frames,
                lease_ticks: self.config.lease_ticks,
                references: self.config.references,
                generation_limit: self.config.generation_limit,
                avx2: Avx2::detect().filter(|_| !FAULTS),
            }
        }
    }

    fn counters() -> Counters {
        let zero = || AtomicU64::new(0);
        Counters {
            new_stacks: zero(),
            new_nodes: zero(),
            evicted_stacks: zero(),
            evicted_nodes: zero(),
            full: zero(),
            contended: zero(),
            crowded: zero(),
            saturated: zero(),
            truncated: zero(),
            wide_nodes: zero(),
            worn_slots: zero(),
            crowd_evicted: zero(),
            stale_puts: zero(),
            undone_nodes: zero(),
            reserved: cells(),
            evicted_payload: cells(),
        }
    }

    fn header() -> Header {
        Header {
            magic: AtomicU64::new(0),
            version: word(),
            header_bytes: word(),
            region_bytes: AtomicU64::new(0),
            slot_count: word(),
            bucket_count: word(),
            payload_words: word(),
            max_frames: word(),
            lease_ticks: word(),
            flags: word(),
            seed: AtomicU64::new(0),
            hash_kind: word(),
            generation_limit: word(),
            clock: AtomicU64::new(0),
            dirty: AtomicU64::new(0),
            clock_reserved: cells(),
            hand: AtomicU64::new(0),
            progress: AtomicU64::new(0),
            hand_reserved: cells(),
            counters: counters(),
            windows: cells(),
            hints: core::array::from_fn(|_| word()),
        }
    }
}
