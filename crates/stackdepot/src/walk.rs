//! A weakly consistent walk over the saved stacks.

use crate::handle::WeakHandle;
use crate::layout::{MOST_PAYLOAD_WORDS, Region};

/// A stack that a walk met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walked {
    /// Names the stack for ever.
    pub weak: WeakHandle,
    /// Its references at that moment: counted holds, and nodes of longer stacks.
    pub references: u64,
    /// Its payload words; those not configured are 0.
    pub payload: [u64; MOST_PAYLOAD_WORDS],
}

/// Iterator of [`crate::Depot::walk`]: looks at each slot once, writes nothing.
#[derive(Clone, Debug)]
pub struct Walk<'r> {
    region: Region<'r>,
    next: u32,
}

impl<'r> Walk<'r> {
    pub(crate) fn new(region: Region<'r>, after: u32) -> Walk<'r> {
        Walk {
            region,
            next: after.saturating_add(1),
        }
    }

    fn look_at(&self, number: u32) -> Option<Walked> {
        let slot = self.region.slot(number)?;
        let weak = WeakHandle::new(number, slot.generation_now());
        let state = slot.state_now();
        if !state.is_saved() {
            return None;
        }
        let payload = self.region.payload(weak).ok()?;
        Some(Walked {
            weak,
            references: state.references(),
            payload,
        })
    }
}

impl Iterator for Walk<'_> {
    type Item = Walked;

    fn next(&mut self) -> Option<Walked> {
        // Ends after one look at each slot.
        while self.next <= self.region.geometry.slot_count {
            let number = self.next;
            self.next += 1;
            if let Some(walked) = self.look_at(number) {
                return Some(walked);
            }
        }
        None
    }
}
