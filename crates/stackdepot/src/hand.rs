//! The clock hand: finds the next slot for a new node, free or coldest.
//!
//! The hand is one number that only grows; a claim scans from it and moves it past what it
//! looked at, by compare-exchange from where the scan began, so that no slot is passed unseen.
//! During the first lap only free slots are taken: nothing is evicted before every slot was
//! used. Hints come first: slots that were just freed, or parents that just lost their last
//! child, which nobody can want as a stack. A hint is only ever a guess, checked on the state.
//!
//! `progress` remembers where the hand stood when it last found something, and when something
//! became evictable that no hint tells of: a put-to-zero, or a tick, which ends leases. Two laps
//! behind it (one where leases leave no second chances) without success prove that everything is
//! held: then `Full` takes a comparison, a look at all hints and at one more batch of slots.
//! One claim takes at most [`CLAIM_STEPS`] steps; in larger regions it may answer `Contended`
//! for a while where `Full` is not proven yet.

use crate::error::SaveError;
use crate::evict::Wanted;
use crate::layout::{HINT_COUNT, Region};
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Most slots that one claim looks at.
const CLAIM_STEPS: u64 = if cfg!(loom) { 8 } else { 16384 };
/// After so many steps, or after a lap without success, a claim gives no second chances any more:
/// other threads may set them as fast as the hand takes them away, and that must not look like
/// "everything is held".
const PATIENT_STEPS: u64 = if cfg!(loom) { 3 } else { 512 };
/// Slots between two looks at the hand.
const BATCH: u64 = if cfg!(loom) { 3 } else { 16 };
/// Attempts at moving the progress mark; who loses them all was overtaken by later marks.
const MARK_ATTEMPTS: u32 = 4;
/// Hints per shard: one line.
const SHARD_HINTS: usize = if HINT_COUNT < 16 { HINT_COUNT } else { 16 };

impl Region<'_> {
    /// Claims a slot: the answer is OWNED by the caller, its payload is zero.
    ///
    /// # Errors
    /// `Full` when everything is held, `Contended` when the steps ran out.
    pub fn claim(&self) -> Result<u32, SaveError> {
        if let Some(number) = self.claim_hinted(self.shard()) {
            return Ok(number);
        }
        let slot_count = u64::from(self.geometry.slot_count);
        let mut steps = 0;
        while steps < CLAIM_STEPS {
            // ORDERING: Relaxed, here and below: the hand says where to look, the state words
            // say what is there.
            let start = self.header.hand.load(Ordering::Relaxed);
            // The mark may be ahead of the hand: a claim that lost its move marks where it was.
            let futile = start.saturating_sub(self.header.progress.load(Ordering::Relaxed));
            if futile >= self.futile_laps(start) * slot_count {
                return self.claim_at_last(start).ok_or(SaveError::Full);
            }
            let wanted = if steps < PATIENT_STEPS && futile < slot_count {
                Wanted::FreeOrEvictable
            } else {
                Wanted::FreeOrUnheld
            };
            if let Some(number) = self.claim_from(start, wanted) {
                return Ok(number);
            }
            steps += BATCH;
        }
        Err(SaveError::Contended)
    }

    /// Looks at a batch of slots, and moves the hand past those that it looked at.
    fn claim_from(&self, start: u64, wanted: Wanted) -> Option<u32> {
        let slot_count = u64::from(self.geometry.slot_count);
        let hand = &self.header.hand;
        let mut index = start % slot_count;
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
                return Some(number);
            }
        }
        move_hand(hand, start, end);
        None
    }

    /// Looks once more where `Full` is proven: the proof may have missed a release that came
    /// between a look and its mark. Each refusal looks at other slots, so none is final.
    fn claim_at_last(&self, start: u64) -> Option<u32> {
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

    /// Raises the mark; it never moves back, so a sleeper cannot undo a later one.
    #[inline]
    fn mark_progress(&self, position: u64) {
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

    /// How many laps without success prove that everything is held. The first lap of all takes
    /// only free slots; second chances, which exist where leases do not, take a lap to use up.
    #[inline]
    fn futile_laps(&self, hand: u64) -> u64 {
        if self.lease_ticks != 0 && hand >= 2 * u64::from(self.geometry.slot_count) {
            1
        } else {
            2
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

    fn claim_hinted(&self, hints: &[AtomicU32]) -> Option<u32> {
        for cell in hints {
            if cell.load(Ordering::Relaxed) == 0 {
                continue;
            }
            // ORDERING: Relaxed: swapped, so that two claims do not both follow the hint.
            let number = cell.swap(0, Ordering::Relaxed);
            if self.try_claim(number, Wanted::FreeOrUnsaved) {
                return Some(number);
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

/// Moves the hand if nobody else did: then they saw the slots in between themselves.
fn move_hand(hand: &AtomicU64, from: u64, to: u64) {
    // ORDERING: Relaxed: see `claim`.
    let _ = hand.compare_exchange(from, to, Ordering::Relaxed, Ordering::Relaxed);
}
