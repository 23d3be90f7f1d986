//! The ring: a bounded record of the newest events, behind which the depot keeps their stacks.
//!
//! Key type: [`Ring`], over memory of its own. An event goes in by three steps: [`Ring::claim`]
//! a place (counts the event, moves the depot's clock), take the leases (`save_lease`,
//! `renew`), [`Ring::fill`] the place. [`Ring::push`] does this for stacks saved before.
//! Neighbours: `ring/place.rs` (which place), `ring/entry.rs` and `ring/event.rs` (the 64 bytes of
//! an event), `ring/memory.rs` (making and viewing one), `ring/image.rs` (foreign readers).
//!
//! INVARIANT R3: **an event among the newest N places is leased.** Let T = ceil(N / 16) be the
//! events of a tick. The clock is C + floor(head / T) once every claim made its move. Event n
//! loads its tick after its claim and takes its leases after that, so its tick is at least
//! C + floor(n / T) - l, where l is the number of moves by other threads that were claimed
//! before n but not made yet: at most one per other thread that stands between two given
//! instructions (`Places::claim`). At a quiescent moment with n among the newest N,
//! head <= n + N - 1, hence now - tick <= floor((n + N - 1) / T) - floor(n / T) + l <= 16 + l,
//! because N <= 16 T. How long the thread slept between its steps and what others pushed
//! meanwhile does not enter. `lease_ticks` = 17 covers l = 1; with l > 1 (three threads between
//! the same two instructions) the reader's lease check hides the stack, never a wrong one shown.
//! Rings of several shards add a tick, because their newest N events spread over up to T more
//! places. So the leases of a ring cover at most the newest 18 T events (19 T when sharded).

mod entry;
mod event;
mod image;
mod memory;
mod place;

pub use event::{Event, EventKind};
pub use image::{EventImage, RingHeaderImage};
pub use place::Place;

pub(crate) use event::{bits_of, handle_of};

use crate::depot::Depot;
use crate::error::ConfigError;
use crate::section::{LINE_BYTES, SectionError, WordLine};
use crate::sync::{Ordering, fence};
use core::num::NonZeroU64;
use entry::{read_entry, write_entry};
use place::{CURSOR, Cursor, Divisor, EXPIRED, LAPPED, PLACE_MASK, Places, WASTED};

/// "STKDRING", little-endian.
pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"STKDRING");
pub(crate) const VERSION: u64 = 1;
/// Lines in front of the shards: the constants, the head.
pub(crate) const HEADER_LINES: usize = 2;

const LEAST_EVENTS: u32 = if cfg!(loom) { 1 } else { 16 };
const MOST_EVENTS: u32 = 1 << 24;
const MOST_SHARDS: u32 = 1024;
const TICKS_PER_LAP: u32 = 16;

/// The shape of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingConfig {
    /// How many of the newest events it keeps: 16 to 2^24.
    pub event_count: u32,
    /// Parts that threads push to without disturbing each other, 1 to 1024; 1 keeps exactly the
    /// newest `event_count` events, more keep about that many.
    pub shard_count: u32,
}

impl RingConfig {
    /// A ring of one shard.
    pub const fn new(event_count: u32) -> RingConfig {
        RingConfig {
            event_count,
            shard_count: 1,
        }
    }

    /// The `lease_ticks` that the depot behind this ring must be made with (INVARIANT R3).
    pub fn lease_ticks(&self) -> u32 {
        TICKS_PER_LAP + 1 + u32::from(self.most_chunk() > 1)
    }

    /// Events of a tick: a sixteenth of the ring.
    pub fn tick_events(&self) -> u32 {
        self.event_count.div_ceil(TICKS_PER_LAP)
    }

    /// Places of the largest chunk, so that the chunks of all shards together leave at most one
    /// tick's worth of places unused.
    fn most_chunk(&self) -> u64 {
        if self.shard_count <= 1 {
            return 1;
        }
        let share = (self.tick_events() / self.shard_count).max(1);
        Cursor::CHUNK_LIMIT.min(1 << share.ilog2())
    }

    /// Entries: with chunks, one tick more for their unused places and one for their age.
    pub(crate) fn entry_count(&self) -> u32 {
        if self.most_chunk() > 1 {
            self.event_count + 2 * self.tick_events()
        } else {
            self.event_count
        }
    }

    /// Lines of memory, header and shards included.
    #[cfg(loom)]
    pub fn model_line_count(&self) -> usize {
        self.line_count()
    }

    pub(crate) fn line_count(&self) -> usize {
        HEADER_LINES + self.shard_count as usize + self.entry_count() as usize
    }

    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        ConfigError::check(
            "event_count",
            self.event_count.into(),
            LEAST_EVENTS.into(),
            MOST_EVENTS.into(),
        )?;
        ConfigError::check(
            "shard_count",
            self.shard_count.into(),
            1,
            MOST_SHARDS.into(),
        )
    }
}

/// The bytes that a ring takes.
///
/// # Errors
/// The number of the configuration that is out of its limits.
pub fn ring_bytes(config: &RingConfig) -> Result<usize, ConfigError> {
    config.check()?;
    Ok(config.line_count() * LINE_BYTES)
}

/// What became of a pushed event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It is in the ring.
    Yes,
    /// It is not: the thread slept while others went once around the ring. Counted.
    Lapped,
    /// It is in the ring without a stack, which was evicted before the push. Counted.
    Expired,
}

/// What a ring has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingStats {
    /// Every event that ever claimed a place, lost ones included. Exact at a quiescent moment.
    pub events: u64,
    /// Events no longer in the ring because later ones took their places.
    pub overwritten: u64,
    /// Events dropped because they came a whole lap late.
    pub lapped: u64,
    /// Events that lost a stack between its save and the push.
    pub expired: u64,
}

/// A bounded record of the newest events; see the module's page.
///
/// Lock-free: `claim` is wait-free, `fill` never retries. Cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct Ring<'r> {
    places: Places<'r>,
    entries: &'r [WordLine],
    entry_count: Divisor,
    shard_count: Divisor,
    config: RingConfig,
}

impl<'r> Ring<'r> {
    /// Views lines as a ring, whose `config` was checked.
    fn view(lines: &'r [WordLine], config: &RingConfig) -> Result<Ring<'r>, SectionError> {
        let short = SectionError::TooShort {
            given_bytes: (lines.len() * LINE_BYTES) as u64,
            needed_bytes: (config.line_count() * LINE_BYTES) as u64,
        };
        let [_, head, rest @ ..] = lines else {
            return Err(short);
        };
        let Some((shards, rest)) = rest.split_at_checked(config.shard_count as usize) else {
            return Err(short);
        };
        let Some(entries) = rest.get(..config.entry_count() as usize) else {
            return Err(short);
        };
        let tick_events = NonZeroU64::new(config.tick_events().into()).unwrap_or(NonZeroU64::MIN);
        let places = Places {
            head: &head.0[0],
            shards,
            tick_events,
            most_chunk: config.most_chunk(),
        };
        let divisor = |count| Divisor::new(NonZeroU64::new(count).unwrap_or(NonZeroU64::MIN));
        Ok(Ring {
            places,
            entries,
            entry_count: divisor(entries.len() as u64),
            shard_count: divisor(config.shard_count.into()),
            config: *config,
        })
    }

    fn write_header(lines: &[WordLine], config: &RingConfig) {
        let Some(header) = lines.first() else { return };
        header.0[1].store(VERSION, Ordering::Relaxed);
        header.0[2].store(config.event_count.into(), Ordering::Relaxed);
        header.0[3].store(config.shard_count.into(), Ordering::Relaxed);
        header.0[4].store(config.entry_count().into(), Ordering::Relaxed);
        // ORDERING: Release, partner: the Acquire of the magic in `attach`.
        header.0[0].store(MAGIC, Ordering::Release);
    }

    /// The shape it was made with.
    pub fn config(&self) -> RingConfig {
        self.config
    }

    /// The `lease_ticks` that the depot behind it must have.
    pub fn lease_ticks(&self) -> u32 {
        self.config.lease_ticks()
    }

    /// Claims a place for the next event, counts it, and moves the depot's clock when the claim
    /// starts a new tick.
    ///
    /// Take the event's leases after this and then [`fill`](Ring::fill): however long the
    /// thread sleeps in between, an event in the ring then has its stacks. Claim also when the
    /// save may fail, so that the clock never stops. `shard` is any number; threads that run at
    /// the same time should differ in it.
    #[inline(always)]
    pub fn claim(&self, depot: &Depot<'_>, shard: usize) -> Place {
        let shard = self.shard_count.rest_of(shard as u64) as usize;
        let (number, ticks) = self.places.take(shard);
        if ticks != 0 {
            depot.advance(ticks);
        }
        Place {
            number,
            tick: depot.now(),
            shard,
        }
    }

    /// Writes the event into its place; its leases count from the place's tick, `event.from` is
    /// not looked at.
    #[inline(always)]
    pub fn fill(&self, place: Place, event: &Event) -> Pushed {
        let event = Event {
            from: place.tick,
            ..*event
        };
        let written = self
            .entry_of(place.number)
            .is_some_and(|entry| write_entry(entry, place.number, event.to_words()));
        if !written {
            self.count(place.shard, LAPPED);
            return Pushed::Lapped;
        }
        Pushed::Yes
    }

    /// Claims a place and writes an event whose stacks were leased before, from `event.from` on.
    ///
    /// Renews the leases when the clock moved since. A stack that was evicted meanwhile (the
    /// thread slept for a whole lap) is lost: prefer `claim` before the save.
    pub fn push(&self, depot: &Depot<'_>, shard: usize, event: &Event) -> Pushed {
        let place = self.claim(depot, shard);
        if event.from == place.tick {
            return self.fill(place, event);
        }
        let stack = event.stack.filter(|stack| depot.renew(*stack).is_ok());
        let other_stack = event
            .other_stack
            .filter(|stack| depot.renew(*stack).is_ok());
        let expired = (stack, other_stack) != (event.stack, event.other_stack);
        if expired {
            self.count(place.shard, EXPIRED);
        }
        match self.fill(
            place,
            &Event {
                stack,
                other_stack,
                ..*event
            },
        ) {
            Pushed::Yes if expired => Pushed::Expired,
            pushed => pushed,
        }
    }

    /// The events that are in the ring, newest place first, at most `event_count`.
    ///
    /// Each is consistent in itself; events that come or go meanwhile may be missed. With
    /// several shards the order of places is only nearly the order of time. Copy a stack first,
    /// then ask [`still_leased`](Ring::still_leased).
    pub fn events(&self) -> Events<'r> {
        // ORDERING: Relaxed: only where to begin; each entry says itself whether it is there.
        let head = self.places.head.load(Ordering::Relaxed);
        Events {
            ring: *self,
            number: head & PLACE_MASK,
            left_places: head.min(self.entry_count.get()),
            left_events: self.config.event_count,
        }
    }

    /// Whether the stacks of an event were still held at the time of the call: ask after they
    /// were copied (`protocols.md` A8).
    pub fn still_leased(&self, depot: &Depot<'_>, event: &Event) -> bool {
        // ORDERING: Acquire, partner: the fence of an evicter that read the clock: the copy made
        // before must not sink below the clock's load.
        fence(Ordering::Acquire);
        !event.from.is_over(depot.now(), self.lease_ticks())
    }

    /// The counters.
    pub fn stats(&self) -> RingStats {
        // A damaged ring may say anything: no sum of it overflows.
        let sum = |word: usize| {
            let words = self
                .places
                .shards
                .iter()
                .filter_map(|line| line.0.get(word));
            words.fold(0u64, |sum, count| {
                sum.saturating_add(count.load(Ordering::Relaxed))
            })
        };
        let cursors = self.places.shards.iter().map(|line| &line.0[CURSOR]);
        let left: u64 = cursors
            .map(|word| Cursor(word.load(Ordering::Relaxed)).left())
            .sum();
        let events = self
            .places
            .head
            .load(Ordering::Relaxed)
            .saturating_sub(sum(WASTED).saturating_add(left));
        let kept = events.min(self.entry_count.get());
        RingStats {
            events,
            overwritten: events - kept,
            lapped: sum(LAPPED),
            expired: sum(EXPIRED),
        }
    }

    /// Empties the entries whose writers died in them; for the one process that opens a ring
    /// for writing again, before it pushes.
    pub fn reset_in_flight(&self) {
        self.entries.iter().for_each(entry::reset_entry);
    }

    #[inline(always)]
    fn entry_of(&self, number: u64) -> Option<&'r WordLine> {
        self.entries.get(self.entry_count.rest_of(number) as usize)
    }

    #[cold]
    fn count(&self, shard: usize, word: usize) {
        if let Some(counter) = self
            .places
            .shards
            .get(shard)
            .and_then(|line| line.0.get(word))
        {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The events of a ring, newest place first.
#[derive(Clone, Debug)]
pub struct Events<'r> {
    ring: Ring<'r>,
    number: u64,
    left_places: u64,
    left_events: u32,
}

impl Iterator for Events<'_> {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        while self.left_places > 0 && self.left_events > 0 {
            let number = self.number;
            self.number = number.wrapping_sub(1) & PLACE_MASK;
            self.left_places -= 1;
            if let Some(event) = self
                .ring
                .entry_of(number)
                .and_then(|entry| read_entry(entry, number))
            {
                self.left_events -= 1;
                return Some(event);
            }
        }
        None
    }
}

#[cfg(all(test, loom))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
