//! Payload: numbers of the caller beside each stack, folded into totals when it is evicted.
//!
//! Words are added to only under a counted reference, so a retire finds them at rest: it adds
//! them to the header's totals and zeroes them before anybody can use the slot again.

use crate::error::FetchError;
use crate::handle::{Handle, WeakHandle};
use crate::layout::{MOST_PAYLOAD_WORDS, Region};
use crate::sync::Ordering;

impl Region<'_> {
    /// Adds to a word of a held stack; ignored when the handle is recognised as stale or the
    /// word is not configured.
    pub fn add_payload(&self, held: Handle, word: usize, delta: u64) {
        let Some(weak) = self.weak_of(held) else { return };
        if let Some(word) = self.payload_of(weak.slot()).get(word) {
            // ORDERING: Release, partner: `payload` (fence Acquire in `is_still`): this life's
            // generation comes before its numbers, so a reader of the last life drops them.
            word.fetch_add(delta, Ordering::Release);
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
        if slot.is_still(weak.generation()) { Ok(values) } else { Err(FetchError::Evicted) }
    }
}
