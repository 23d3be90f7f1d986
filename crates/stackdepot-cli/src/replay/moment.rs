//! A moment: with all threads paused, every event in the ring must fetch exactly its stack.
//!
//! The corpus says what an event's stack is: an event carries its thread and its ordinal (in the
//! place of the time), so nothing that the depot or the ring says is taken on trust.

use std::collections::HashSet;

use stackdepot::WeakHandle;
use stackdepot::ring::{Event as RingEvent, EventKind};
use stackdepot_corpus::Event;

use super::checked::{Counts, same_stack};
use super::stage::{Plan, Set};

/// What the ring keeps of one played event.
pub fn ring_event(
    event: &Event,
    stack: Option<WeakHandle>,
    thread: usize,
    ordinal: usize,
) -> RingEvent {
    // An object of the corpus has no address: its thread and slot make one.
    let address = (thread as u64) << 40 | u64::from(event.slot) << 4;
    let kind = if event.is_alloc {
        EventKind::Alloc
    } else {
        EventKind::Free
    };
    let plain = RingEvent::new(kind, address, event.size.into(), stack);
    RingEvent {
        time: ordinal as u64,
        thread: thread as u32,
        ..plain
    }
}

/// Compares every event of the ring with the corpus; counts those that must be there and are.
pub fn check(plan: &Plan<'_>, set: &Set<'_>, played: usize) -> Counts {
    let mut counts = Counts::default();
    let Some(ring) = &set.ring else { return counts };
    counts.ring_expected = u64::from(plan.ring_events).min((played * plan.threads) as u64);
    let mut seen = HashSet::new();
    for event in ring.events() {
        // One event twice, or one that is too old, would hide a missing one.
        let is_new = seen.insert((event.thread, event.time));
        let is_young = event.time.saturating_add(plan.ring_events.into()) >= played as u64;
        match is_correct(plan, set, &event, played) {
            Some(true) if is_new && is_young => counts.ring_checked += 1,
            Some(true) | None => {}
            Some(false) => counts.mismatches += 1,
        }
    }
    counts
}

/// Whether an event fetches its stack; `None` when its save failed or its stack was evicted.
fn is_correct(plan: &Plan<'_>, set: &Set<'_>, event: &RingEvent, played: usize) -> Option<bool> {
    let ordinal = event.time as usize;
    let recorded = plan
        .event(event.thread as usize, ordinal)
        .filter(|_| ordinal < played);
    let Some(recorded) = recorded else {
        return Some(false);
    };
    same_stack(set, event.stack?, plan.corpus.stack(recorded.stack))
}
