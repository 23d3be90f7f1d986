//! The words of an entry: written by the one who claimed it, read without claiming.
//!
//! The sequence word (word 0) is {place number 52 | state 2 in the low bits}, 0 = never written:
//!
//! | state | | goes to |
//! |---|---|---|
//! | 0 EMPTY | never written | FILLING by CAS |
//! | 1 DONE | the event of that place | FILLING of a later place by CAS |
//! | 2 FILLING | one writer owns the words | DONE by that writer's store |
//!
//! INVARIANT R2: only who made the entry FILLING writes its words. A writer that finds a later
//! place there, or another writer inside, drops its own event (lapped, counted by `ring.rs`). A
//! writer killed inside leaves the entry FILLING: readers skip it, `reset_entry` frees it.

use super::event::{EVENT_WORDS, Event};
use super::place::is_before;
use crate::section::WordLine;
use crate::sync::{Ordering, fence};

pub(super) const STATE_MASK: u64 = 3;
pub(super) const DONE: u64 = 1;
const FILLING: u64 = 2;

/// The sequence word of a place in a state.
const fn sequence_of(number: u64, state: u64) -> u64 {
    number << 2 | state
}

/// EMPTY or DONE of an earlier place -> FILLING -> DONE; false when lapped.
#[inline(always)]
pub(super) fn write_entry<const WORDS: usize>(
    entry: &WordLine,
    number: u64,
    words: [u64; WORDS],
) -> bool {
    let [sequence, data @ ..] = &entry.0;
    let seen = sequence.load(Ordering::Relaxed);
    let is_free = match seen & STATE_MASK {
        0 => seen == 0,
        DONE => is_before(seen >> 2, number),
        _ => false,
    };
    // ORDERING: Acquire, partner: the Release of the entry's previous writer: its words come
    // before ours in each word's order. Failure: somebody else is inside, we are lapped.
    if !is_free
        || sequence
            .compare_exchange(
                seen,
                sequence_of(number, FILLING),
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_err()
    {
        return false;
    }
    // ORDERING: Release, partner: the Acquire fence in `read_entry`: who copies one of our words
    // sees FILLING (or later) when it looks at the sequence again.
    fence(Ordering::Release);
    for (place, word) in data.iter().zip(words) {
        place.store(word, Ordering::Relaxed);
    }
    // ORDERING: Release, partner: the Acquire in `read_entry`, which then sees all our words.
    sequence.store(sequence_of(number, DONE), Ordering::Release);
    true
}

/// The event of that very place, unless it is not there (yet or any more).
pub(super) fn read_entry(entry: &WordLine, number: u64) -> Option<Event> {
    Event::from_words(read_words::<EVENT_WORDS>(entry, number)?)
}

/// The first words of that very place. (Models take fewer than an event has.)
pub(super) fn read_words<const WORDS: usize>(
    entry: &WordLine,
    number: u64,
) -> Option<[u64; WORDS]> {
    let [sequence, data @ ..] = &entry.0;
    let done = sequence_of(number, DONE);
    // ORDERING: Acquire, partner: the Release store in `write_entry`.
    if sequence.load(Ordering::Acquire) != done {
        return None;
    }
    let mut words = [0; WORDS];
    for (word, place) in words.iter_mut().zip(data) {
        *word = place.load(Ordering::Relaxed);
    }
    // ORDERING: Acquire, partner: the Release fence in `write_entry`.
    fence(Ordering::Acquire);
    (sequence.load(Ordering::Relaxed) == done).then_some(words)
}

/// Empties the entry if its writer died in it; nobody else may be using the ring.
pub(super) fn reset_entry(entry: &WordLine) {
    let sequence = &entry.0[0];
    if sequence.load(Ordering::Relaxed) & STATE_MASK == FILLING {
        sequence.store(0, Ordering::Relaxed);
    }
}
