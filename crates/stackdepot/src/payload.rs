//! Payload: numbers of the caller beside each stack, folded into totals when it is evicted.
//!
//! Words are added to only under a counted reference, so a retire finds them at rest: it adds
//! them to the header's totals and zeroes them before anybody can use the slot again.

use crate::error::FetchError;
use crate::handle::{Handle, WeakHandle};
use crate::layout::{MOST_PAYLOAD_WORDS, Region};
use crate::prefetch::prefetch;
use crate::sync::Ordering;

impl Region<'_> {
    /// Adds to words of a held stack; ignored when the handle is recognised as stale, or where a
    /// word is not configured.
    #[inline]
    pub fn add_payload(&self, held: Handle, first_word: usize, deltas: &[u64]) {
        if let Some(weak) = self.weak_of(held) {
            self.add_words(weak.slot(), first_word, deltas);
        }
    }

    /// Adds to the words of a slot that the caller holds by a reference.
    #[inline]
    pub fn add_words(&self, number: u32, first_word: usize, deltas: &[u64]) {
        let words = self.payload_of(number).get(first_word..).unwrap_or(&[]);
        for (word, delta) in words.iter().zip(deltas) {
            // ORDERING: Release, partner: `payload` (fence Acquire in `is_still`): this life's
            // generation comes before its numbers, so a reader of the last life drops them.
            word.fetch_add(*delta, Ordering::Release);
        }
    }

    /// Fetches the line of a slot's words.
    #[inline]
    pub fn prefetch_payload(&self, number: u32) {
        if let [first, ..] = self.payload_of(number) {
            prefetch(first);
        }
    }

    /// Fetches the lines of a stack's leaf that holds and payload are in.
    #[inline]
    pub fn prefetch(&self, weak: WeakHandle) {
        if let Some(slot) = self.slot(weak.slot()) {
            prefetch(slot);
            self.prefetch_payload(weak.slot());
        }
    }

    /// Reads the words of a stack.
    pub fn payload(&self, weak: WeakHandle) -> Result<[u64; MOST_PAYLOAD_WORDS], FetchError> {
        let slot = self.slot(weak.slot()).ok_or(FetchError::Evicted)?;
        if slot.generation_now() != weak.generation() || !slot.state_now().is_live() {
            return Err(FetchError::Evicted);
        }
        let mut values = [0; MOST_PAYLOAD_WORDS];
        for (value, word) in values.iter_mut().zip(self.payload_of(weak.slot())) {
            *value = word.load(Ordering::Relaxed);
        }
        if slot.is_still(weak.generation()) {
            Ok(values)
        } else {
            Err(FetchError::Evicted)
        }
    }
}
