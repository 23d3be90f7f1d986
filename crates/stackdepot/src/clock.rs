//! The depot's coarse clock, moved by its owner; leases are counted in its ticks.
//!
//! The clock only ever moves forward, by addition. Where a lease is involved, the state word
//! is loaded first (Acquire) and the clock second, so that the clock read is never older than
//! a stamp that was read: `(now - stamp) mod 2^24` then needs no half window (`protocols.md` A8).

use crate::handle::Tick;
use crate::layout::Region;
use crate::sync::Ordering;

impl Region<'_> {
    /// The current tick.
    #[inline]
    pub fn now(&self) -> Tick {
        // ORDERING: Relaxed, partner: the stamp exchange in `slot::stamp_lease`. The stamp was
        // taken from a load of this word; the Acquire load of the state that carries it comes
        // before this load, so coherence gives at least that value.
        Tick(self.header.clock.load(Ordering::Relaxed) as u32 & Tick::MASK)
    }

    /// Moves the clock; leases that end by it make `Full` answers worth trying again.
    pub fn advance(&self, ticks: u32) {
        // ORDERING: Relaxed: an older clock read elsewhere only holds stacks a little longer.
        self.header.clock.fetch_add(ticks.into(), Ordering::Relaxed);
        self.note_release();
    }
}
