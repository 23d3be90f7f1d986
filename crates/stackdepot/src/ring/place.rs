//! Which place of the ring an event gets: one global head, claimed in chunks by shards.
//!
//! Key types: [`Place`], what a pusher holds, and [`Cursor`], a shard's position packed into
//! one word so that one `fetch_add` takes a place. Place numbers start at 1 and only grow (52
//! bits: 14 years at 10 million events a second; compared modulo, so that the wrap is harmless).
//!
//! A ring of one shard takes every place from the head directly: nothing is ever left unused,
//! the newest N places are the newest N events. With more shards each claims a chunk of places
//! from the head and fills it, so that the hot word is written once per chunk. A chunk is
//! given up (its rest is wasted, counted) when its next place is more than one tick old; chunk
//! sizes adapt between 1 and `most_chunk`, so that a slow shard wastes little. Whoever finds a
//! chunk used up while another thread fetches the next one takes a single place from the
//! head: nobody waits. All steps are wait-free.
//!
//! INVARIANT R1: every place number is handed out once (but see `Cursor::LOW_BITS`). Hence
//! events = places claimed - places wasted - places left in the current chunks, exactly, at
//! any quiescent moment: there is no counter to update per event.

use crate::handle::Tick;
use crate::section::WordLine;
use crate::sync::{AtomicU64, Ordering};
use core::num::NonZeroU64;

/// Bits of a place number.
pub(crate) const PLACE_BITS: u32 = 52;
pub(crate) const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// Words of a shard's line.
pub(crate) const CURSOR: usize = 0;
pub(crate) const CHUNK_SIZE: usize = 1;
const CHUNK_START: usize = 2;
pub(crate) const WASTED: usize = 3;
pub(crate) const LAPPED: usize = 4;
pub(crate) const EXPIRED: usize = 5;

/// A place of the ring, claimed by one event that is not written yet.
#[derive(Debug)]
#[must_use = "a claimed place that is not filled leaves a hole in the ring"]
pub struct Place {
    pub(crate) number: u64,
    pub(crate) tick: Tick,
    pub(crate) shard: usize,
}

impl Place {
    /// The depot's clock right after the claim: a lease taken from now on holds at least from here.
    pub fn tick(&self) -> Tick {
        self.tick
    }

    /// Its number, for the models.
    #[cfg(loom)]
    pub fn number(&self) -> u64 {
        self.number
    }
}

/// Whether place number `earlier` comes before `later`, modulo the wrap.
pub(crate) const fn is_before(earlier: u64, later: u64) -> bool {
    let distance = later.wrapping_sub(earlier) & PLACE_MASK;
    distance != 0 && distance <= PLACE_MASK / 2
}

/// A shard's position: the last place of its chunk (52 bits) and how far it got (12 bits).
///
/// The low part counts up: at 64 the next `fetch_add` takes the chunk's last place, above 64
/// the chunk is used up. All zeros means that no chunk was ever claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cursor(pub u64);

impl Cursor {
    /// Leaves room for 63 threads of one shard that all sleep between using up the chunk and
    /// bringing the next; with more, a place could be handed out twice: then one of the two
    /// events is dropped as lapped.
    const LOW_BITS: u32 = 12;
    /// Most places of a chunk.
    pub const CHUNK_LIMIT: u64 = 64;

    const fn chunk(last: u64, place_count: u64) -> Cursor {
        Cursor((last & PLACE_MASK) << Self::LOW_BITS | (Self::CHUNK_LIMIT + 1 - place_count))
    }

    const fn low(self) -> u64 {
        self.0 & ((1 << Self::LOW_BITS) - 1)
    }

    const fn last(self) -> u64 {
        self.0 >> Self::LOW_BITS
    }

    /// Places of the chunk that nobody took.
    pub const fn left(self) -> u64 {
        if self.last() == 0 || self.low() > Self::CHUNK_LIMIT {
            0
        } else {
            Self::CHUNK_LIMIT + 1 - self.low()
        }
    }

    /// The place that a `fetch_add` which returned `self` took.
    const fn place(self) -> Option<u64> {
        if self.left() == 0 {
            None
        } else {
            Some((self.last() + self.low()).wrapping_sub(Self::CHUNK_LIMIT) & PLACE_MASK)
        }
    }

    /// Whether the one who saw `self` brings the next chunk; one in 64 of those who come too
    /// late, so that a thread that died on the way does not leave the shard without chunks.
    const fn brings_next(self) -> bool {
        self.low() % Self::CHUNK_LIMIT == 1
    }
}

/// A number to divide by, with its reciprocal: the remainder without a division.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Divisor {
    number: NonZeroU64,
    /// The greatest whole number not above (2^64 - 1) / `number`.
    reciprocal: u64,
}

impl Divisor {
    pub const fn new(number: NonZeroU64) -> Divisor {
        Divisor {
            number,
            reciprocal: u64::MAX / number.get(),
        }
    }

    pub const fn get(self) -> u64 {
        self.number.get()
    }

    /// `value` modulo the number.
    #[inline(always)]
    pub const fn rest_of(self, value: u64) -> u64 {
        // The reciprocal is short of 2^64 / number by at most 1, `value` is below 2^64: so the quotient
        // is too small by at most one.
        let quotient = ((value as u128 * self.reciprocal as u128) >> 64) as u64;
        let rest = value - quotient * self.get();
        if rest < self.get() {
            rest
        } else {
            rest - self.get()
        }
    }
}

/// The words from which places come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'r> {
    pub head: &'r AtomicU64,
    pub shards: &'r [WordLine],
    pub tick_events: NonZeroU64,
    /// Places of the largest chunk; 1 = all places come from the head directly.
    pub most_chunk: u64,
}

impl Places<'_> {
    /// Takes a place; answers its number and by how many ticks the claim moved the clock.
    #[inline(always)]
    pub fn take(&self, shard: usize) -> (u64, u32) {
        if self.most_chunk <= 1 {
            return self.claim(1);
        }
        match self.shards.get(shard) {
            Some(line) => self.take_from(line),
            None => self.claim(1),
        }
    }

    #[inline(always)]
    fn take_from(&self, shard: &WordLine) -> (u64, u32) {
        // ORDERING: Acquire, partner: the swap in `bring_next`: whoever takes a place of a chunk
        // comes after its claim on the head, and so after the clock moves that this saw.
        let seen = Cursor(shard.0[CURSOR].fetch_add(1, Ordering::Acquire));
        match seen.place() {
            Some(number) if !self.is_aged(number) => (number, 0),
            Some(_) => self.bring_next(shard, true),
            None if seen.brings_next() => self.bring_next(shard, false),
            None => self.claim(1),
        }
    }

    /// Whether more than one tick's worth of places was claimed since.
    fn is_aged(&self, number: u64) -> bool {
        let head = self.head.load(Ordering::Relaxed);
        let age = head.wrapping_sub(number) & PLACE_MASK;
        age > self.tick_events.get() && age <= PLACE_MASK / 2
    }

    /// Claims the shard's next chunk and takes its first place.
    #[cold]
    #[inline(never)]
    fn bring_next(&self, shard: &WordLine, aged: bool) -> (u64, u32) {
        let size = self.next_size(shard, aged);
        let (first, ticks) = self.claim(size);
        let next = Cursor::chunk(first.wrapping_add(size - 1), size - 1);
        // ORDERING: Release, partner: the fetch_add in `take_from`. Of the old cursor only the
        // number counts.
        let old = Cursor(shard.0[CURSOR].swap(next.0, Ordering::Release));
        let wasted = old.left() + u64::from(aged);
        if wasted != 0 {
            shard.0[WASTED].fetch_add(wasted, Ordering::Relaxed);
        }
        (first, ticks)
    }

    /// Doubles what was used up within a quarter of a tick, quarters what grew too old.
    /// Racy on purpose: a wrong size costs a few places or a few claims, nothing else.
    fn next_size(&self, shard: &WordLine, aged: bool) -> u64 {
        let relaxed = Ordering::Relaxed;
        let head = self.head.load(relaxed);
        let size = shard.0[CHUNK_SIZE].load(relaxed).clamp(1, self.most_chunk);
        let elapsed = head.wrapping_sub(shard.0[CHUNK_START].load(relaxed));
        let next = match aged {
            true => (size / 4).max(1),
            false if elapsed.saturating_mul(4) <= self.tick_events.get() => {
                (size * 2).min(self.most_chunk)
            }
            false => size,
        };
        shard.0[CHUNK_SIZE].store(next, relaxed);
        shard.0[CHUNK_START].store(head, relaxed);
        next
    }

    /// Claims `count` places from the head: the number of the first, and the ticks to move.
    fn claim(&self, count: u64) -> (u64, u32) {
        // ORDERING: AcqRel, partner: every other claim. Who comes later on the head sees the
        // clock moves of each thread's earlier claims, so that at most one move per other
        // thread can be missing from the clock (the proof in `ring.rs` needs that).
        let before = self.head.fetch_add(count, Ordering::AcqRel);
        let ticks = before.wrapping_add(count) / self.tick_events;
        // Only the head of a damaged ring ever wraps; then no tick begins.
        let ticks = ticks.saturating_sub(before / self.tick_events);
        (before.wrapping_add(1) & PLACE_MASK, ticks as u32)
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
