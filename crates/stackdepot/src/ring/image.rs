//! Safe parsing of byte copies of a ring, for readers in other processes and of files.
//!
//! Key types: [`RingHeaderImage`] and [`EventImage`]. The bytes may be anything: every number
//! is checked before it is used as an offset. A copy of a ring that is being written can be
//! torn inside an entry: copy the entries twice and take those whose 64 bytes are equal in
//! both copies ([`EventImage::parse_twice`]). That is sound because a place number never comes
//! back: an entry DONE with the same number in both copies did not change in between.

use super::entry::{DONE, STATE_MASK};
use super::event::{EVENT_WORDS, Event};
use super::place::{CURSOR, Cursor, EXPIRED, LAPPED, PLACE_MASK, WASTED};
use super::{HEADER_LINES, MAGIC, RingConfig, RingStats, VERSION};
use crate::section::{LINE_BYTES, SectionError, word_at};

/// The checked header of a copied ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingHeaderImage {
    config: RingConfig,
    head: u64,
}

/// The configuration that header words record; `word` reads the words of the first line.
pub(super) fn checked_config(
    magic: u64,
    word: impl Fn(usize) -> u64,
) -> Result<RingConfig, SectionError> {
    if magic != MAGIC {
        return Err(SectionError::Foreign { what: "ring" });
    }
    if word(1) != VERSION {
        return Err(SectionError::Version { found: word(1) });
    }
    let narrow = |index: usize, field: &'static str| {
        u32::try_from(word(index)).map_err(|_| SectionError::Damaged { field })
    };
    let config = RingConfig {
        event_count: narrow(2, "event_count")?,
        shard_count: narrow(3, "shard_count")?,
    };
    config.check().map_err(|_| SectionError::Damaged {
        field: "event_count or shard_count",
    })?;
    if word(4) != u64::from(config.entry_count()) {
        return Err(SectionError::Damaged {
            field: "entry_count",
        });
    }
    Ok(config)
}

impl RingHeaderImage {
    /// Bytes at the start of a ring that [`parse`](RingHeaderImage::parse) needs.
    pub const BYTES: usize = HEADER_LINES * LINE_BYTES;

    /// Checks the first bytes of a ring against the bytes that its section has.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn parse(bytes: &[u8], section_bytes: u64) -> Result<RingHeaderImage, SectionError> {
        if bytes.len() < Self::BYTES {
            return Err(SectionError::TooShort {
                given_bytes: bytes.len() as u64,
                needed_bytes: Self::BYTES as u64,
            });
        }
        let config = checked_config(word_at(bytes, 0), |index| word_at(bytes, index))?;
        let needed_bytes = (config.line_count() * LINE_BYTES) as u64;
        if section_bytes < needed_bytes {
            return Err(SectionError::TooShort {
                given_bytes: section_bytes,
                needed_bytes,
            });
        }
        Ok(RingHeaderImage {
            config,
            head: word_at(bytes, LINE_BYTES / 8),
        })
    }

    /// The shape of the ring.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// Offset of the shards' lines in the ring, and their number; for [`stats`](RingHeaderImage::stats).
    pub fn shards(&self) -> (u64, u32) {
        (Self::BYTES as u64, self.config.shard_count)
    }

    /// Offset of the first entry in the ring, and the number of entries; 64 bytes each.
    pub fn entries(&self) -> (u64, u32) {
        (
            ((HEADER_LINES + self.config.shard_count as usize) * LINE_BYTES) as u64,
            self.config.entry_count(),
        )
    }

    /// The counters, from the copied lines of all shards.
    pub fn stats(&self, shard_bytes: &[u8]) -> RingStats {
        let lines = || shard_bytes.chunks_exact(LINE_BYTES);
        let sum =
            |word: usize| lines().fold(0u64, |sum, line| sum.saturating_add(word_at(line, word)));
        let left = lines().fold(0u64, |sum, line| {
            sum.saturating_add(Cursor(word_at(line, CURSOR)).left())
        });
        let events = self.head.saturating_sub(sum(WASTED).saturating_add(left));
        let kept = events.min(self.config.entry_count().into());
        RingStats {
            events,
            overwritten: events - kept,
            lapped: sum(LAPPED),
            expired: sum(EXPIRED),
        }
    }

    /// Whether an event's place is among those that the ring answers for (not older than a lap).
    pub fn is_current(&self, event: &EventImage) -> bool {
        self.head.wrapping_sub(event.number) & PLACE_MASK < u64::from(self.config.entry_count())
    }
}

/// An event of a copied ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventImage {
    /// Its place number: grows with every event, nearly in the order of time.
    pub number: u64,
    /// The event.
    pub event: Event,
}

impl EventImage {
    /// The event of an entry that nobody was writing while it was copied; `None` when the entry
    /// is empty, in flight, or nothing that a ring writes.
    pub fn parse(bytes: &[u8; LINE_BYTES]) -> Option<EventImage> {
        let sequence = word_at(bytes, 0);
        if sequence & STATE_MASK != DONE || sequence >> 2 > PLACE_MASK {
            return None;
        }
        let words: [u64; EVENT_WORDS] = core::array::from_fn(|index| word_at(bytes, index + 1));
        Some(EventImage {
            number: sequence >> 2,
            event: Event::from_words(words)?,
        })
    }

    /// The event of an entry that may be written meanwhile, from two copies made one after the
    /// other; `None` also when it changed in between.
    pub fn parse_twice(first: &[u8; LINE_BYTES], second: &[u8; LINE_BYTES]) -> Option<EventImage> {
        if first == second {
            EventImage::parse(first)
        } else {
            None
        }
    }
}
