//! Holding: counted references, leases, and the 32-bit names of held stacks.
//!
//! `acquire` adds first and looks afterwards, `put` subtracts: both are wait-free however hot
//! the stack is. A reference that turns out to be on the wrong life is dropped again; because
//! nobody plain-stores a state word, such strays only delay a claim. A lease is one
//! compare-exchange, and none when this tick's stamp is there already.

use crate::error::HoldError;
use crate::handle::{Handle, Tick, WeakHandle};
use crate::layout::{Region, Slot};
use crate::state::State;
use crate::stats::count;

/// Attempts at stamping a lease; each lost one was lost to somebody else's change.
const STAMP_ATTEMPTS: u32 = if cfg!(loom) { 2 } else { 16 };

/// What a save takes besides the stack's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nothing: the stack may be evicted at once.
    None = 0,
    /// A counted reference.
    Reference = 1,
    /// A lease.
    Lease = 2,
    /// A counted reference and a lease.
    ReferenceAndLease = 3,
}

impl Hold {
    /// Whether it counts a reference.
    pub(crate) const fn is_reference(self) -> bool {
        self as u8 & Hold::Reference as u8 != 0
    }

    /// Whether it takes a lease.
    pub(crate) const fn is_lease(self) -> bool {
        self as u8 & Hold::Lease as u8 != 0
    }
}

impl<'r> Region<'r> {
    /// Takes a reference on the node of a slot if it still is of that generation.
    pub fn acquire_node(&self, number: u32, generation: u32) -> Result<&'r Slot, HoldError> {
        let slot = self.slot(number).ok_or(HoldError::Evicted)?;
        if slot.generation_now() != generation {
            return Err(HoldError::Evicted);
        }
        self.acquire_slot(number, slot, generation).map(|_| slot)
    }

    /// The same for a slot that a moment ago was of that generation; answers its state with the
    /// reference.
    #[inline]
    pub fn acquire_slot(
        &self,
        number: u32,
        slot: &Slot,
        generation: u32,
    ) -> Result<State, HoldError> {
        let before = slot.add_reference();
        if before.is_live() && before.references() < State::REF_LIMIT && slot.is_still(generation) {
            return Ok(State(before.0 + State::REF));
        }
        Err(self.refuse_acquired(number, slot, generation, before))
    }

    /// Drops the reference that was one too many or on another life.
    #[cold]
    fn refuse_acquired(
        &self,
        number: u32,
        slot: &Slot,
        generation: u32,
        before: State,
    ) -> HoldError {
        let is_saturated = before.is_live() && slot.is_still(generation);
        self.release(number);
        if !is_saturated {
            return HoldError::Evicted;
        }
        count(&self.header.counters.saturated);
        HoldError::Saturated
    }

    /// Takes a reference on a saved stack.
    pub fn acquire(&self, weak: WeakHandle) -> Result<(), HoldError> {
        self.acquire_node(weak.slot(), weak.generation())
            .map(|_| ())
    }

    /// Drops a reference on a node; nothing for the root.
    pub fn release(&self, number: u32) {
        if let Some(slot) = self.slot(number) {
            self.release_slot(number, slot);
        }
    }

    #[inline]
    fn release_slot(&self, number: u32, slot: &Slot) {
        let before = slot.drop_reference();
        if before.references() == 1 && before.is_live() {
            self.note_unreferenced(number, State(before.0 - State::REF));
        }
    }

    /// The last reference is gone: tells claims, if they may have the node before the next tick.
    fn note_unreferenced(&self, number: u32, state: State) {
        if !state.is_saved() {
            self.hint(number);
        } else if self.is_unheld(state) {
            self.note_release();
        }
    }

    /// Gives back a reference that a handle stands for.
    pub fn put(&self, handle: Handle) {
        self.put_with_payload(handle, 0, &[]);
    }

    /// The same after adding to the payload, which a stale handle does not do either.
    #[inline]
    pub fn put_with_payload(&self, held: Handle, first_word: usize, deltas: &[u64]) {
        let number = self.slot_of(held);
        match self
            .slot(number)
            .filter(|slot| self.is_held_as(number, slot, held))
        {
            Some(slot) => {
                self.add_words(number, first_word, deltas);
                self.release_slot(number, slot);
            }
            None => count(&self.header.counters.stale_puts),
        }
    }

    /// Whether a handle fits what is in its slot, as every handle does that is held.
    #[inline]
    fn is_held_as(&self, number: u32, slot: &Slot, held: Handle) -> bool {
        let state = slot.state_now();
        self.handle_of(WeakHandle::new(number, slot.generation_now())) == held
            && state.is_live()
            && state.references() != 0
    }

    /// Holds a saved stack by a lease from now on.
    pub fn renew(&self, weak: WeakHandle) -> Result<Tick, HoldError> {
        let slot = self.slot(weak.slot()).ok_or(HoldError::Evicted)?;
        if slot.generation_now() != weak.generation() {
            return Err(HoldError::Evicted);
        }
        self.lease(slot, weak.generation(), slot.state_now())
    }

    /// Stamps the current tick on a node, unless it is there. `seen` was loaded after
    /// `generation`, and the clock is read after `seen`.
    #[inline]
    pub fn lease(&self, slot: &Slot, generation: u32, seen: State) -> Result<Tick, HoldError> {
        if self.lease_ticks == 0 {
            return Err(HoldError::Disabled);
        }
        let now = self.now();
        let from = if is_stamped(seen, now) {
            now
        } else {
            self.stamp(slot, seen)?
        };
        // The stamp may have gone onto a later life: then it holds that one a little longer,
        // and the caller learns the truth here.
        if slot.is_still(generation) {
            Ok(from)
        } else {
            Err(HoldError::Evicted)
        }
    }

    #[cold]
    fn stamp(&self, slot: &Slot, seen: State) -> Result<Tick, HoldError> {
        let mut state = seen;
        for _ in 0..STAMP_ATTEMPTS {
            if !state.is_live() {
                return Err(HoldError::Evicted);
            }
            let now = self.now();
            if is_stamped(state, now) || slot.stamp_lease(state, now.0) {
                return Ok(now);
            }
            state = slot.state_now();
        }
        count(&self.header.counters.contended);
        Err(HoldError::Contended)
    }

    #[inline]
    fn slot_of(&self, handle: Handle) -> u32 {
        handle.to_bits() & ((1 << self.slot_bits) - 1)
    }

    /// The slot's number, and above it as much of the generation as there is room for.
    #[inline]
    pub fn handle_of(&self, weak: WeakHandle) -> Handle {
        let bits = weak.generation() << self.slot_bits | weak.slot();
        // Only a forged weak handle has slot 0; slot 1 then stands in for "never 0".
        Handle::from_bits(bits).unwrap_or(Handle::ONE)
    }

    /// The generation is the slot's current one: right while the handle is held, and `None` for
    /// most handles that are not.
    #[inline]
    pub fn weak_of(&self, handle: Handle) -> Option<WeakHandle> {
        let number = self.slot_of(handle);
        let weak = WeakHandle::new(number, self.slot(number)?.generation_now());
        (self.handle_of(weak) == handle).then_some(weak)
    }
}

#[inline]
fn is_stamped(state: State, now: Tick) -> bool {
    state.has(State::LEASED) && state.stamp() == now.0
}
