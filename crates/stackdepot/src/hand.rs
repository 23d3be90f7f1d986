//! The clock hand: finds the next slot for a new node, free or coldest.
//!
//! The hand is one number that only grows; a claim scans from it and moves it past what it
//! looked at, by compare-exchange from where the scan began, so that no slot is passed unseen.
//! During the first lap only free slots are taken: nothing is evicted before every slot was
//! used. Hints come first: slots that were just freed, or parents that just lost their last
//! child, which nobody can want as a stack. A hint is only ever a guess, checked on the state.
//!
//! Recency is two bits. The hand makes a use a chance, then uses up the chance, then takes the node:
//! one lap after its birth, two to three after its last use. A node born by a hint lies anywhere;
//! where the hand comes by within half a lap it is born with a chance. So each lives a lap, half a
//! lap more or less, without any use. (Chosen by measurement: `bench/src/bound`.)
//!
//! `progress` remembers where the hand stood when it last found something, and when something
//! became evictable that no hint tells of: a put-to-zero, or a tick, which ends leases. A lap
//! behind it without chances and without success proves that everything is held: then `Full`
//! takes a comparison, a look at all hints and at one more batch of slots.
//! One claim takes at most [`CLAIM_STEPS`] steps; in larger regions it may answer `Contended`
//! for a while where `Full` is not proven yet.

use crate::error::SaveError;
use crate::evict::Wanted;
use crate::layout::{HINT_COUNT, Region};
use crate::prefetch::prefetch;
use crate::state::State;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Most slots that one claim looks at.
const CLAIM_STEPS: u64 = if cfg!(loom) { 8 } else { 16384 };
/// After so many steps without success, its own or all claims', a claim respects recency no more:
/// other threads may use nodes as fast as the hand goes around, and that must not look like
/// "everything is held".
const PATIENT_STEPS: u64 = if cfg!(loom) { 3 } else { 512 };
/// Slots between two looks at the hand.
const BATCH: u64 = if cfg!(loom) { 3 } else { 16 };
/// Slots of which one is likely to be the next that a claim takes.
const AHEAD: usize = 4;
/// Attempts at moving the progress mark; who loses them all was overtaken by later marks.
const MARK_ATTEMPTS: u32 = 4;
/// Hints per shard: one line.
const SHARD_HINTS: usize = if cfg!(loom) { HINT_COUNT } else { 16 };

/// A slot that is the claimer's.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimed {
    /// OWNED, its payload zero.
    pub number: u32,
    /// `State::CHANCE` if a node in it is to be born with one, else 0.
    pub chance: u64,
}

impl Region<'_> {
    /// Claims a slot.
    ///
    /// # Errors
    /// `Full` when everything is held, `Contended` when the steps ran out.
    pub fn claim(&self) -> Result<Claimed, SaveError> {
        if let Some(claimed) = self.claim_unused() {
            return Ok(claimed);
        }
        let hints = self.shard();
        // Mostly there are none: all of them are looked at without a branch.
        let any = hints.first_chunk::<SHARD_HINTS>().map_or(0, |hints| {
            let all = hints.iter().map(|hint| hint.load(Ordering::Relaxed));
            all.fold(0, |any, hint| any | hint)
        });
        if any != 0
            && let Some(claimed) = self.claim_hinted(hints)
        {
            return Ok(claimed);
        }
        let slot_count = u64::from(self.geometry.slot_count);
        let patient_steps = PATIENT_STEPS.min(slot_count);
        let mut steps = 0;
        while steps < CLAIM_STEPS {
            // ORDERING: Relaxed, here and below: the hand says where to look, the state words
            // say what is there.
            let start = self.header.hand.load(Ordering::Relaxed);
            // The first lap takes only free slots, so it proves nothing.
            let progress = self.header.progress.load(Ordering::Relaxed).max(slot_count);
            // The mark may be ahead of the hand: a claim that lost its move marks where it was.
            let futile = start.saturating_sub(progress);
            if futile >= patient_steps + slot_count {
                return self.claim_at_last(start).ok_or(SaveError::Full);
            }
            let is_patient = steps < PATIENT_STEPS && futile + BATCH <= patient_steps;
            let wanted = if is_patient {
                Wanted::FreeOrEvictable
            } else {
                Wanted::FreeOrUnheld
            };
            if let Some(claimed) = self.claim_from(start, wanted) {
                return Ok(claimed);
            }
            steps += BATCH;
        }
        Err(SaveError::Contended)
    }

    /// In the first lap, the slot at the hand: there hardly are hints yet.
    #[inline]
    fn claim_unused(&self) -> Option<Claimed> {
        // ORDERING: Relaxed, as in `claim`.
        let hand = self.header.hand.load(Ordering::Relaxed);
        let slot = self.slots.get(usize::try_from(hand).ok()?)?;
        if !slot.claim_free() {
            return None;
        }
        move_hand(&self.header.hand, hand, hand + 1);
        let number = hand as u32 + 1;
        Some(Claimed { number, chance: 0 })
    }

    /// Asks for what the next claims will touch: in the first lap two slots after those that were asked
    /// for by the last call, later as `prefetch_evictable`.
    #[inline]
    pub fn prefetch_claim(&self) {
        if cfg!(loom) {
            // It changes nothing, and its loads would be more to explore.
            return;
        }
        let hand = self.header.hand.load(Ordering::Relaxed);
        if hand >= u64::from(self.geometry.slot_count) {
            self.prefetch_evictable(hand);
        } else if let Some([first, second, ..]) = self.slots.get(hand as usize + 2..) {
            prefetch(first);
            prefetch(second);
        }
    }

    /// Asks for the slots at the hand, and of the first node there that can be evicted the buckets, the
    /// payload and the parent.
    #[inline(never)]
    fn prefetch_evictable(&self, hand: u64) {
        let index = wrapped(hand, u64::from(self.geometry.slot_count)) as usize;
        // At the end of the slots there is less to ask for.
        let slots = self.slots.get(index..).unwrap_or_default();
        for slot in slots.iter().take(2 * AHEAD) {
            prefetch(slot);
        }
        for (number, slot) in (index as u32 + 1..).zip(slots).take(AHEAD) {
            let state = slot.state_now();
            if self.is_unheld(state) && !state.has(State::VISITED | State::CHANCE) {
                self.prefetch_pair(slot.hash.load(Ordering::Relaxed));
                self.prefetch_payload(number);
                if let Some(parent) = self.slot(slot.link.load(Ordering::Relaxed) as u32) {
                    prefetch(parent);
                }
                return;
            }
        }
    }

    /// Looks at a batch of slots, and moves the hand past those that it looked at.
    fn claim_from(&self, start: u64, wanted: Wanted) -> Option<Claimed> {
        let slot_count = u64::from(self.geometry.slot_count);
        let hand = &self.header.hand;
        let mut index = wrapped(start, slot_count);
        // No slot twice. Only the hand of a damaged region ever wraps; its batch is empty then.
        let end = start.wrapping_add(BATCH.min(slot_count));
        for position in start..end {
            let number = index as u32 + 1;
            index = if index + 1 == slot_count {
                0
            } else {
                index + 1
            };
            let is_first_lap = position < slot_count;
            if self.try_claim(number, if is_first_lap { Wanted::Free } else { wanted }) {
                move_hand(hand, start, position + 1);
                self.mark_progress(position + 1);
                return Some(Claimed { number, chance: 0 });
            }
        }
        move_hand(hand, start, end);
        None
    }

    /// Looks once more where `Full` is proven: the proof may have missed a release that came
    /// between a look and its mark. Each refusal looks at other slots, so none is final.
    fn claim_at_last(&self, start: u64) -> Option<Claimed> {
        self.claim_hinted(&self.header.hints)
            .or_else(|| self.claim_from(start, Wanted::FreeOrUnheld))
    }

    /// Notes that something became evictable: `Full` is to be proven anew. A batch that is being
    /// looked at right now may have passed the slot already, so it proves nothing.
    #[inline]
    pub fn note_release(&self) {
        let hand = self.header.hand.load(Ordering::Relaxed);
        // Only the hand of a damaged region is that far.
        self.mark_progress(hand.saturating_add(BATCH));
    }

    /// Raises the mark; it never moves back, so a sleeper cannot undo a later one. Marks of the first lap
    /// count for nothing.
    #[inline]
    fn mark_progress(&self, position: u64) {
        if position <= u64::from(self.geometry.slot_count) {
            return;
        }
        let progress = &self.header.progress;
        let mut seen = progress.load(Ordering::Relaxed);
        for _ in 0..MARK_ATTEMPTS {
            if seen >= position {
                return;
            }
            // ORDERING: Relaxed: the mark only decides when `Full` is answered without a scan.
            match progress.compare_exchange(seen, position, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(newer) => seen = newer,
            }
        }
    }

    /// Suggests a slot to later claims, in the place of an older hint: that slot is the hand's then.
    pub fn hint(&self, number: u32) {
        if let Some(cell) = self.shard().get(number as usize % SHARD_HINTS) {
            // ORDERING: Relaxed: a guess, checked on the state word.
            if cell.swap(number, Ordering::Relaxed) != 0 {
                self.note_release();
            }
        }
    }

    fn claim_hinted(&self, hints: &[AtomicU32]) -> Option<Claimed> {
        for cell in hints {
            if cell.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // ORDERING: Relaxed: swapped, so that two claims do not both follow the hint.
            let number = cell.swap(0, Ordering::Relaxed);
            if self.try_claim(number, Wanted::FreeOrUnsaved) {
                let chance = self.chance_at_birth(number);
                return Some(Claimed { number, chance });
            }
            // What is held has its hint again when it is released.
            if self
                .slot(number)
                .is_some_and(|slot| self.is_unheld(slot.state_now()))
            {
                self.note_release();
            }
        }
        None
    }

    /// A chance for what is born where the hand comes by within half a lap.
    fn chance_at_birth(&self, number: u32) -> u64 {
        let slot_count = u64::from(self.geometry.slot_count);
        let hand_index = self.header.hand.load(Ordering::Relaxed) % slot_count;
        let steps_away = (u64::from(number) + slot_count - 1 - hand_index) % slot_count;
        if steps_away < slot_count / 2 {
            State::CHANCE
        } else {
            0
        }
    }

    /// This thread's line of hints, by where its stack lies: threads rarely share one, and
    /// nothing breaks when they do.
    fn shard(&self) -> &[AtomicU32] {
        let marker = 0u8;
        let stack_page = (&raw const marker).addr() >> 14;
        let line = stack_page.wrapping_mul(0x9e37_79b9) >> 7;
        let start = line % (HINT_COUNT / SHARD_HINTS) * SHARD_HINTS;
        self.header
            .hints
            .get(start..start + SHARD_HINTS)
            .unwrap_or(&[])
    }
}

/// Where in the lap a position is; without a division in the first lap.
#[inline]
fn wrapped(position: u64, slot_count: u64) -> u64 {
    if position < slot_count {
        position
    } else {
        position % slot_count
    }
}

/// Moves the hand if nobody else did: then they saw the slots in between themselves.
fn move_hand(hand: &AtomicU64, from: u64, to: u64) {
    // ORDERING: Relaxed: see `claim`.
    let _ = hand.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
}

#[cfg(all(test, not(loom)))]
mod tests;
