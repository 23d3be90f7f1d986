//! What a depot is made with, and the arithmetic from bytes to slots.
//!
//! Key types: [`Config`] (what the caller says) and [`Geometry`] (where things lie). Owns the
//! promise of the bound: everything that `Geometry` places ends within `region_bytes`, and
//! nothing of the depot lies anywhere else.

use crate::error::ConfigError;
use crate::layout::{BUCKET_CELLS, HEADER_BYTES, LINE_BYTES};

/// Most frames a configuration may allow per stack.
pub const MOST_FRAMES: u32 = 1024;
/// Slot numbers fit 26 bits, so that a 32-bit handle has room for generation bits.
pub const MOST_SLOTS: u32 = (1 << 26) - 1;
/// A region has at least so many slots: below it a single deep stack would not fit.
pub const LEAST_SLOTS: u32 = 3;
/// Longest lease, so that expiry modulo 2^24 is never ambiguous for long.
pub const MOST_LEASE_TICKS: u32 = 1 << 20;

/// Which hash a new depot gets; its header says which one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashChoice {
    /// The fastest that this processor has: AES instructions, or else the portable one. Where
    /// there are no such instructions a region that was filed by them can be read, but not
    /// opened for writing.
    Fastest,
    /// The one that can be computed everywhere.
    Portable,
}

/// How a depot is made. Nothing of it can change later.
///
/// ```
/// use stackdepot::Config;
/// let config = Config { references: true, payload_words: 1, ..Config::new(1 << 20) };
/// assert!(config.geometry().unwrap().slot_count > 11_000);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The bound: header, index, slots and payload together stay within so many bytes.
    pub region_bytes: usize,
    /// Whether stacks can be held by counted references.
    pub references: bool,
    /// How many ticks a lease lasts beyond the tick it was taken in; 0 switches leases off.
    pub lease_ticks: u32,
    /// 64-bit words of payload per stack: 0, 1, 2 or 4.
    pub payload_words: u32,
    /// Stacks of more frames are cut at their outer end, marked and counted; 1 to 1024.
    pub max_frames: u32,
    /// Keys the hash, so that nobody who does not know it can aim collisions at a bucket.
    pub seed: u64,
    /// After so many reuses a slot goes out of service, because its weak handles would repeat.
    /// Lower values serve tests, which cannot wait for 2^32 evictions of one slot.
    pub generation_limit: u32,
    /// Which hash files the stacks.
    pub hash: HashChoice,
    /// Where the clock starts. Other values than 0 serve tests of its wrap-around.
    pub first_tick: u32,
}

impl Config {
    /// No holds, no payload, at most 256 frames per stack, a fixed seed.
    pub const fn new(region_bytes: usize) -> Config {
        Config {
            region_bytes,
            references: false,
            lease_ticks: 0,
            payload_words: 0,
            max_frames: 256,
            seed: 0x5354_4143_4b44_4550,
            generation_limit: u32::MAX,
            hash: HashChoice::Fastest,
            first_tick: 0,
        }
    }

    /// Checks every field and computes where things will lie.
    ///
    /// # Errors
    /// Names the first field that is out of its limits, with its value and the limits.
    pub fn geometry(&self) -> Result<Geometry, ConfigError> {
        ConfigError::check("max_frames", self.max_frames.into(), 1, MOST_FRAMES.into())?;
        ConfigError::check(
            "lease_ticks",
            self.lease_ticks.into(),
            0,
            MOST_LEASE_TICKS.into(),
        )?;
        ConfigError::check(
            "generation_limit",
            self.generation_limit.into(),
            2,
            u32::MAX.into(),
        )?;
        ConfigError::check("payload_words", self.payload_words.into(), 0, 4)?;
        if self.payload_words == 3 {
            return Err(ConfigError::OutOfRange {
                field: "payload_words (3 is not offered)",
                value: 3,
                least: 0,
                most: 4,
            });
        }
        let least_bytes = Geometry::of_slots(LEAST_SLOTS, self.payload_words).region_bytes;
        let most_bytes = Geometry::of_slots(MOST_SLOTS, self.payload_words).region_bytes;
        ConfigError::check(
            "region_bytes",
            self.region_bytes as u64,
            least_bytes as u64,
            most_bytes as u64,
        )?;
        Ok(Geometry::within(self.region_bytes, self.payload_words))
    }
}

/// Where the parts of a region lie, in bytes from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Slots, numbered from 1.
    pub slot_count: u32,
    /// Index buckets.
    pub bucket_count: u32,
    /// Payload words per slot.
    pub payload_words: u32,
    /// Where the first bucket lies.
    pub buckets_offset: usize,
    /// Where slot 1 lies.
    pub slots_offset: usize,
    /// Where the payload of slot 1 lies.
    pub payload_offset: usize,
    /// The end of the last part.
    pub region_bytes: usize,
}

impl Geometry {
    /// The parts for a number of slots. The index is at most half full when every slot is used:
    /// at 60 % about 1 insert in 40,000 of a steady churn found both its buckets full (simulated,
    /// and met in the clang corpus), here 1 in 10^7, for 2.7 bytes more per slot.
    pub fn of_slots(slot_count: u32, payload_words: u32) -> Geometry {
        let cells = u64::from(slot_count) * 2;
        let bucket_count = (cells.div_ceil(BUCKET_CELLS as u64) as u32).max(2);
        let buckets_offset = HEADER_BYTES;
        let slots_offset = buckets_offset + bucket_count as usize * LINE_BYTES;
        let payload_offset = slots_offset + slot_count as usize * LINE_BYTES;
        let region_bytes = payload_offset + slot_count as usize * payload_words as usize * 8;
        Geometry {
            slot_count,
            bucket_count,
            payload_words,
            buckets_offset,
            slots_offset,
            payload_offset,
            region_bytes,
        }
    }

    /// As many bits as the slot numbers need.
    pub(crate) const fn slot_bits(&self) -> u32 {
        u32::BITS - self.slot_count.leading_zeros()
    }

    /// The most slots that fit, found by halving: 26 steps.
    fn within(region_bytes: usize, payload_words: u32) -> Geometry {
        let (mut fits, mut too_many) = (LEAST_SLOTS, MOST_SLOTS + 1);
        while too_many - fits > 1 {
            let middle = fits + (too_many - fits) / 2;
            if Geometry::of_slots(middle, payload_words).region_bytes <= region_bytes {
                fits = middle;
            } else {
                too_many = middle;
            }
        }
        Geometry::of_slots(fits, payload_words)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn every_byte_count_yields_parts_within_it_and_an_index_half_empty() {
        for words in [0, 1, 2, 4] {
            for bytes in (2048..200_000).step_by(61) {
                let Ok(g) = (Config {
                    payload_words: words,
                    ..Config::new(bytes)
                })
                .geometry() else {
                    continue;
                };
                assert!(g.region_bytes <= bytes);
                assert!(Geometry::of_slots(g.slot_count + 1, words).region_bytes > bytes);
                assert!(g.slot_count <= g.bucket_count * 4);
                assert_eq!(g.slots_offset % 64, 0);
            }
        }
    }

    #[test]
    fn a_128_kib_region_has_1600_slots() {
        assert!(Config::new(128 << 10).geometry().unwrap().slot_count >= 1600);
    }

    #[test]
    fn each_limit_can_be_reached_and_not_passed() {
        assert_eq!((MOST_SLOTS, MOST_LEASE_TICKS), ((1 << 26) - 1, 1 << 20));
        let one = Config::new(1 << 20);
        let with = |max_frames, lease_ticks, generation_limit| {
            let config = Config {
                max_frames,
                lease_ticks,
                generation_limit,
                ..one
            };
            config.geometry().is_ok()
        };
        assert!(with(1, 0, 2) && with(MOST_FRAMES, MOST_LEASE_TICKS, u32::MAX));
        assert!(!with(0, 0, 2) && !with(MOST_FRAMES + 1, 0, 2));
        assert!(!with(1, MOST_LEASE_TICKS + 1, 2) && !with(1, 0, 1));
        for payload_words in [0, 4] {
            let geometry = |bytes| {
                let config = Config {
                    payload_words,
                    ..Config::new(bytes)
                };
                config.geometry().map(|geometry| geometry.slot_count)
            };
            for slot_count in [LEAST_SLOTS, MOST_SLOTS] {
                let bytes = Geometry::of_slots(slot_count, payload_words).region_bytes;
                assert_eq!(geometry(bytes), Ok(slot_count));
                let beyond = if slot_count == LEAST_SLOTS {
                    bytes - 1
                } else {
                    bytes + 1
                };
                assert!(geometry(beyond).is_err(), "{slot_count} slots");
            }
        }
    }

    #[test]
    fn slot_numbers_take_as_many_bits_as_they_need() {
        for (slot_count, bits) in [(3, 2), (4, 3), (1600, 11), (MOST_SLOTS, 26)] {
            assert_eq!(Geometry::of_slots(slot_count, 0).slot_bits(), bits);
        }
    }

    #[test]
    fn absurd_numbers_are_refused_with_limit_and_value() {
        let error = Config::new(100).geometry().unwrap_err();
        assert!(matches!(
            error,
            ConfigError::OutOfRange {
                field: "region_bytes",
                value: 100,
                ..
            }
        ));
        for config in [
            Config {
                max_frames: 0,
                ..Config::new(1 << 20)
            },
            Config {
                max_frames: 1025,
                ..Config::new(1 << 20)
            },
            Config {
                payload_words: 3,
                ..Config::new(1 << 20)
            },
            Config {
                payload_words: 5,
                ..Config::new(1 << 20)
            },
            Config {
                lease_ticks: u32::MAX,
                ..Config::new(1 << 20)
            },
            Config {
                generation_limit: 1,
                ..Config::new(1 << 20)
            },
            Config::new(usize::MAX),
        ] {
            assert!(config.geometry().is_err(), "{config:?}");
        }
    }
}
