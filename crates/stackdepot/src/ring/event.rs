//! What one alloc or free leaves in the ring, and how it is packed into a line of 64 bytes.
//!
//! Key type: [`Event`]. Words of an entry, `seq` (word 0) belongs to `ring.rs`:
//!
//! | word | bits | |
//! |---|---|---|
//! | 1 | 64 | address |
//! | 2 | 47, 17 | size (saturating), age high |
//! | 3 | 64 | weak handle of the event's own stack, 0 = none |
//! | 4 | 64 | free: weak handle of the block's allocation stack, 0 = unknown |
//! | 5 | 64 | time |
//! | 6 | 32, 32 | thread, free: thread of the allocation |
//! | 7 | 24, 8, 32 | lease tick, kind, age low |
//!
//! The age of a freed block is kept in units of 256 time units, plus one (0 = unknown), in 49
//! bits: one event answers who allocated the block, who freed it, and when each was.

use crate::handle::{Tick, WeakHandle};

/// Words of an event, without the sequence word.
pub(crate) const EVENT_WORDS: usize = 7;

const SIZE_BITS: u32 = 47;
const AGE_SHIFT: u32 = 8;
const AGE_BITS: u32 = 49;
const TICK_BITS: u32 = 24;

/// What happened to a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// It was allocated.
    Alloc = 1,
    /// It was freed.
    Free = 2,
    /// An address was freed that is no known live block: freed twice, invalid, or not recorded.
    UnknownFree = 3,
    /// It was freed by the wrong function (such as `delete` on what `malloc` gave).
    MismatchedFree = 4,
}

impl EventKind {
    /// From the number in an entry; `None` for what the ring never writes.
    pub const fn from_bits(bits: u8) -> Option<EventKind> {
        match bits {
            1 => Some(EventKind::Alloc),
            2 => Some(EventKind::Free),
            3 => Some(EventKind::UnknownFree),
            4 => Some(EventKind::MismatchedFree),
            _ => None,
        }
    }
}

/// One alloc or free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The block.
    pub address: u64,
    /// Its size in bytes; at most 2^47 - 1 is kept.
    pub size: u64,
    /// The stack of the event itself; `None` when its save failed.
    pub stack: Option<WeakHandle>,
    /// The tick from which the leases of both stacks hold.
    pub from: Tick,
    /// The caller's time stamp counter: orders events across threads and shards.
    pub time: u64,
    /// Who did it.
    pub thread: u32,
    /// Of a free: the stack that allocated the block, when known.
    pub other_stack: Option<WeakHandle>,
    /// Of a free: the thread that allocated the block.
    pub other_thread: u32,
    /// Of a free: when the block was allocated, when known; comes back up to 255 time units later.
    pub other_time: Option<u64>,
}

impl Event {
    /// An event of one stack, without another one.
    pub const fn new(kind: EventKind, address: u64, size: u64, stack: Option<WeakHandle>) -> Event {
        Event {
            kind,
            address,
            size,
            stack,
            from: Tick(0),
            time: 0,
            thread: 0,
            other_stack: None,
            other_thread: 0,
            other_time: None,
        }
    }

    /// The event as words 1..=7 of an entry.
    #[inline(always)]
    pub(crate) fn to_words(self) -> [u64; EVENT_WORDS] {
        let age = age_bits(self.time, self.other_time);
        let size = self.size.min((1 << SIZE_BITS) - 1);
        let tick = (self.from.0 & Tick::MASK) as u64;
        [
            self.address,
            size | (age >> 32) << SIZE_BITS,
            bits_of(self.stack),
            bits_of(self.other_stack),
            self.time,
            self.thread as u64 | (self.other_thread as u64) << 32,
            tick | (self.kind as u64) << TICK_BITS | (age & u32::MAX as u64) << 32,
        ]
    }

    /// The event of words 1..=7; `None` when they are none that the ring writes.
    pub(crate) const fn from_words(words: [u64; EVENT_WORDS]) -> Option<Event> {
        let [address, size, stack, other_stack, time, threads, meta] = words;
        let Some(kind) = EventKind::from_bits((meta >> TICK_BITS) as u8) else {
            return None;
        };
        let age = (size >> SIZE_BITS) << 32 | meta >> 32;
        Some(Event {
            kind,
            address,
            size: size & ((1 << SIZE_BITS) - 1),
            stack: handle_of(stack),
            from: Tick(meta as u32 & Tick::MASK),
            time,
            thread: threads as u32,
            other_stack: handle_of(other_stack),
            other_thread: (threads >> 32) as u32,
            other_time: if age == 0 {
                None
            } else {
                Some(time.wrapping_sub((age - 1) << AGE_SHIFT))
            },
        })
    }
}

/// The age of a block that was allocated at `other_time`.
#[inline(always)]
fn age_bits(time: u64, other_time: Option<u64>) -> u64 {
    let Some(other_time) = other_time else {
        return 0;
    };
    let most_age = (1 << AGE_BITS) - 2;
    let age = time.saturating_sub(other_time) >> AGE_SHIFT;
    1 + age.min(most_age)
}

/// Slot 0 is the root and names no stack, so that all-zero bits can mean "none".
pub(crate) const fn bits_of(stack: Option<WeakHandle>) -> u64 {
    match stack {
        Some(stack) => stack.to_bits(),
        None => 0,
    }
}

pub(crate) const fn handle_of(bits: u64) -> Option<WeakHandle> {
    let stack = WeakHandle::from_bits(bits);
    if stack.slot() == 0 { None } else { Some(stack) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_comes_back_from_its_words() {
        let event = Event {
            kind: EventKind::Free,
            address: u64::MAX,
            size: (1 << 47) - 1,
            stack: Some(WeakHandle::new(u32::MAX, 7)),
            from: Tick(0xff_fffe),
            time: 0x0123_4567_89ab_cdef,
            thread: u32::MAX,
            other_stack: Some(WeakHandle::new(1, u32::MAX)),
            other_thread: 0x8000_0001,
            other_time: Some(0x0123_4567_89ab_cdef - (0x1_2345_6789 << 8)),
        };
        assert_eq!(Event::from_words(event.to_words()), Some(event));
        let kinds = [
            EventKind::Alloc,
            EventKind::Free,
            EventKind::UnknownFree,
            EventKind::MismatchedFree,
        ];
        for kind in kinds {
            let plain = Event::new(kind, 1, 0, None);
            assert_eq!(Event::from_words(plain.to_words()), Some(plain));
        }
    }

    #[test]
    fn oversized_numbers_saturate_and_stay_in_their_fields() {
        let stack = Some(WeakHandle::new(3, 4));
        let event = Event {
            size: u64::MAX,
            time: u64::MAX,
            other_time: Some(0),
            ..Event::new(EventKind::UnknownFree, 5, 0, stack)
        };
        let back = Event::from_words(event.to_words());
        let other_time = Some(u64::MAX - (((1 << 49) - 2) << 8));
        assert_eq!(
            back,
            Some(Event {
                size: (1 << 47) - 1,
                other_time,
                ..event
            })
        );
    }

    #[test]
    fn other_time_is_at_most_255_units_late() {
        for late in [0u64, 1, 255, 256, 257, 123_456_789] {
            let event = Event {
                time: 1 << 40,
                other_time: Some((1 << 40) - late),
                ..Event::new(EventKind::Free, 5, 0, None)
            };
            let back = Event::from_words(event.to_words()).and_then(|event| event.other_time);
            assert!(back.is_some_and(|time| time >= (1 << 40) - late && time - ((1 << 40) - late) < 256));
        }
    }

    #[test]
    fn words_that_the_ring_never_writes_are_no_event() {
        assert_eq!(Event::from_words([0; EVENT_WORDS]), None);
        assert_eq!(Event::from_words([u64::MAX; EVENT_WORDS]), None);
    }
}
