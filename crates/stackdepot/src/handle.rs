//! Names of stacks: what may be kept, and for how long.

/// Names a stack for ever: resolves to that stack or to `Evicted`, never to another one.
///
/// Slot number in the low half, generation in the high half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeakHandle(u64);

impl WeakHandle {
    /// From a slot number and its generation.
    #[inline]
    pub const fn new(slot: u32, generation: u32) -> WeakHandle {
        WeakHandle((generation as u64) << 32 | slot as u64)
    }

    /// From the bits of [`WeakHandle::to_bits`]; any bits are safe, foreign ones just resolve to nothing.
    #[inline]
    pub const fn from_bits(bits: u64) -> WeakHandle {
        WeakHandle(bits)
    }

    /// Slot number in the low 32 bits, generation in the high 32.
    #[inline]
    pub const fn to_bits(self) -> u64 {
        self.0
    }

    /// The slot of the stack's leaf node.
    #[inline]
    pub const fn slot(self) -> u32 {
        self.0 as u32
    }

    /// How often that slot had been reused when the stack was stored.
    #[inline]
    pub const fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// Names a held stack in 32 bits: valid while the reference or lease that came with it lasts.
///
/// The slot number in the low bits, as many as the region needs; the low bits of the generation
/// above, so that most stale handles are detected. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(core::num::NonZeroU32);

impl Handle {
    /// The least handle.
    pub(crate) const ONE: Handle = Handle(core::num::NonZeroU32::MIN);

    /// From the bits of [`Handle::to_bits`]; `None` for 0.
    #[inline]
    pub const fn from_bits(bits: u32) -> Option<Handle> {
        match core::num::NonZeroU32::new(bits) {
            Some(bits) => Some(Handle(bits)),
            None => None,
        }
    }

    /// The handle as a plain number, for storage beside an object.
    #[inline]
    pub const fn to_bits(self) -> u32 {
        self.0.get()
    }
}

/// A point of the depot's coarse clock. Leases compare modulo 2^24.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tick(pub u32);

impl Tick {
    /// Ticks are stamped in 24 bits.
    pub const MASK: u32 = (1 << 24) - 1;

    /// Whether a lease that holds from `self` for `lease_ticks` is over at `now`.
    #[inline]
    pub const fn is_over(self, now: Tick, lease_ticks: u32) -> bool {
        now.0.wrapping_sub(self.0) & Self::MASK > lease_ticks
    }
}
