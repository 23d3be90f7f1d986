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
    /// For ever: the stack is never evicted again while this process has the region. Costs one
    /// write for each stack, none when it is held so already.
    Forever = 4,
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

    /// The same for a slot that a moment ago was of that generation.
    #[inline]
    pub fn acquire_slot(
        &self,
        number: u32,
        slot: &Slot,
        generation: u32,
    ) -> Result<State, HoldError> {
        self.keep_added(number, slot, generation, slot.add_references(1))
    }

    /// Looks at what a reference was added to, and drops it again unless it is right; answers the
    /// state with the reference. `before`: the state without.
    #[inline]
    pub fn keep_added(
        &self,
        number: u32,
        slot: &Slot,
        generation: u32,
        before: State,
    ) -> Result<State, HoldError> {
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

    /// Takes several references on a saved stack at once, or none.
    pub fn acquire_many(&self, weak: WeakHandle, count: u64) -> Result<(), HoldError> {
        let (number, generation) = (weak.slot(), weak.generation());
        let slot = self.slot(number).ok_or(HoldError::Evicted)?;
        if slot.generation_now() != generation {
            return Err(HoldError::Evicted);
        }
        let before = slot.add_references(count);
        let is_there = before.is_live() && slot.is_still(generation);
        if is_there && before.references() + count <= State::REF_LIMIT {
            return Ok(());
        }
        self.release_many(number, count);
        match is_there {
            true => Err(HoldError::Saturated),
            false => Err(HoldError::Evicted),
        }
    }

    /// Drops several references on a node at once.
    pub fn release_many(&self, number: u32, count: u64) {
        if let Some(slot) = self.slot(number) {
            let before = slot.drop_references(count);
            if before.references() == count && before.is_live() {
                self.note_unreferenced(number, State(before.0 - State::counted(count)));
            }
        }
    }

    /// Drops a reference on a node; nothing for the root.
    pub fn release(&self, number: u32) {
        if let Some(slot) = self.slot(number) {
            self.release_slot(number, slot);
        }
    }

    #[inline]
    fn release_slot(&self, number: u32, slot: &Slot) {
        let before = slot.drop_references(1);
        if before.references() == 1 && before.is_live() {
            self.note_unreferenced(number, State(before.0 - State::REF));
        }
    }

    /// The last reference is gone: tells claims, if they may have the node before the next tick.
    #[cold]
    #[inline(never)]
    fn note_unreferenced(&self, number: u32, state: State) {
        if !state.is_saved() {
            self.hint(number);
        } else if self.is_unheld(state) {
            self.note_release();
        }
    }

    /// Gives back a reference that a handle stands for, of which those bits are left that are in `kept`.
    #[inline]
    pub fn put(&self, handle: Handle, kept: u32) {
        if let Some((number, slot)) = self.held_slot(handle, kept) {
            self.release_slot(number, slot);
        }
    }

    /// The same after adding to the payload, which a stale handle does not do either.
    #[inline]
    pub fn put_with_payload(&self, held: Handle, first_word: usize, deltas: &[u64]) {
        if let Some((number, slot)) = self.held_slot(held, u32::MAX) {
            self.add_words(number, first_word, deltas);
            self.release_slot(number, slot);
        }
    }

    /// Turns a reference into a lease from now on, after adding to the payload: `renew` and
    /// `put_with_payload` in one look at the slot. The reference is gone whatever the answer.
    #[inline]
    pub fn put_for_lease(
        &self,
        weak: WeakHandle,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<Tick, HoldError> {
        let (number, generation) = (weak.slot(), weak.generation());
        if let Some(slot) = self.slot(number)
            && slot.generation_now() == generation
            && let state = slot.state_now()
            && state.is_live()
            && state.references() != 0
        {
            let leased = self.lease(slot, generation, state);
            self.add_words(number, first_word, deltas);
            self.release_slot(number, slot);
            return leased;
        }
        count(&self.header.counters.stale_puts);
        Err(HoldError::Evicted)
    }

    /// The slot of a handle that is to be put; counts a handle that does not fit what is there, as every
    /// one does that is held.
    #[inline(always)]
    fn held_slot(&self, handle: Handle, kept: u32) -> Option<(u32, &'r Slot)> {
        let number = self.slot_of(handle);
        let slot = self.slot(number).filter(|slot| {
            let state = slot.state_now();
            let weak = WeakHandle::new(number, slot.generation_now());
            self.fits(weak, handle, kept) && state.is_live() && state.references() != 0
        });
        if slot.is_none() {
            count(&self.header.counters.stale_puts);
        }
        Some((number, slot?))
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
    #[inline(always)]
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
    pub fn slot_of(&self, handle: Handle) -> u32 {
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
        self.weak_of_bits(handle, u32::MAX)
    }

    /// The same where only those bits of the handle that are in `kept` are left.
    #[inline]
    pub fn weak_of_bits(&self, handle: Handle, kept: u32) -> Option<WeakHandle> {
        let number = self.slot_of(handle);
        let weak = WeakHandle::new(number, self.slot(number)?.generation_now());
        self.fits(weak, handle, kept).then_some(weak)
    }

    /// Whether a handle is that of a stack, as far as the bits in `kept` say.
    #[inline]
    pub fn fits(&self, weak: WeakHandle, handle: Handle, kept: u32) -> bool {
        let bits = weak.generation() << self.slot_bits | weak.slot();
        (bits ^ handle.to_bits()) & kept == 0
    }
}

/// Whether a state has the lease of a tick.
#[inline]
pub(crate) fn is_stamped(state: State, now: Tick) -> bool {
    state.has(State::LEASED) && state.stamp() == now.0
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::depot::Depot;
    use crate::error::SaveError;
    use crate::layout::Line;
    use crate::sync::Ordering;

    fn all_on() -> Config {
        Config {
            references: true,
            lease_ticks: 2,
            payload_words: 1,
            ..Config::new(4096)
        }
    }

    /// The slot of a stack: a test may do to its state what takes others months.
    fn slot<'d>(depot: &'d Depot<'_>, weak: WeakHandle) -> Option<&'d Slot> {
        depot.region.slot(weak.slot())
    }

    #[test]
    fn a_stack_with_as_many_references_as_can_be_counted_refuses_one_more() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let frames = [0x1000; 3];
        let held = depot.save_acquire(&frames).unwrap();
        let most = (State::REF_LIMIT - 2) * State::REF;
        slot(&depot, held.weak)
            .unwrap()
            .state
            .fetch_add(most, Ordering::Relaxed);
        assert!(depot.acquire(held.weak).is_ok(), "the last one");
        for round in 1..4 {
            assert_eq!(depot.acquire(held.weak), Err(HoldError::Saturated));
            assert_eq!(
                depot.save_acquire(&frames).err(),
                Some(SaveError::Saturated)
            );
            assert_eq!(depot.stats().saturated, 2 * round);
        }
        let now = slot(&depot, held.weak).unwrap().state_now();
        assert_eq!(
            now.references(),
            State::REF_LIMIT,
            "a refusal left a reference"
        );
        depot.put(held.handle);
        assert!(depot.acquire(held.weak).is_ok());
    }

    #[test]
    fn a_parent_with_as_many_children_as_can_be_counted_refuses_one_more() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let mut frames = [0x1000; 11];
        let parent = depot.save_acquire(&frames[1..]).unwrap();
        let most = (State::REF_LIMIT - 1) * State::REF;
        slot(&depot, parent.weak)
            .unwrap()
            .state
            .fetch_add(most, Ordering::Relaxed);
        let before = depot.stats();
        frames[0] = 0x2000;
        assert!(depot.save(&frames).is_err());
        assert_eq!(depot.stats().new_stacks, before.new_stacks);
        let now = slot(&depot, parent.weak).unwrap().state_now();
        assert_eq!(now.references(), State::REF_LIMIT);
    }

    #[test]
    fn a_stale_handle_neither_puts_nor_adds() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let held = depot.save_acquire(&[0x1000]).unwrap();
        let stale = depot.handle_of(WeakHandle::new(
            held.weak.slot(),
            held.weak.generation() + 1,
        ));
        depot.put_with_payload(stale, 0, &[5]);
        depot.put(stale);
        depot.add_payload(stale, 0, 5);
        depot.add_payload_words(stale, 0, &[5]);
        assert_eq!(depot.stats().stale_puts, 2);
        assert_eq!(depot.payload(held.weak), Ok([0; 4]));
        depot.add_payload_words(held.handle, 0, &[5]);
        depot.put_with_payload(held.handle, 0, &[6]);
        assert_eq!(depot.payload(held.weak), Ok([11, 0, 0, 0]));
        depot.put(held.handle);
        assert_eq!(depot.stats().stale_puts, 3, "a put without a reference");
    }

    #[test]
    fn a_reference_that_becomes_a_lease_counts_once_and_only_if_it_is_there() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let weak = depot.save(&[0x1000]).unwrap();
        let hold = |weak, hold| depot.hold_with_payload(weak, hold, 0, &[5]).is_ok();
        assert!(hold(weak, Hold::Reference) && hold(weak, Hold::Lease));
        assert_eq!(
            depot.payload(weak),
            Ok([5, 0, 0, 0]),
            "a lease adds nothing"
        );
        let next = WeakHandle::new(weak.slot(), weak.generation() + 1);
        assert!(!hold(next, Hold::Reference));
        assert_eq!(depot.put_for_lease(next, 0, &[6]), Err(HoldError::Evicted));
        depot.advance(1);
        assert_eq!(depot.put_for_lease(weak, 0, &[6]), Ok(Tick(1)));
        let state = slot(&depot, weak).unwrap().state_now();
        assert!((state.references(), state.stamp()) == (0, 1) && state.has(State::LEASED));
        assert_eq!(depot.put_for_lease(weak, 0, &[6]), Err(HoldError::Evicted));
        assert_eq!(depot.payload(weak), Ok([11, 0, 0, 0]));
        assert_eq!(depot.stats().stale_puts, 2);
    }

    #[test]
    fn names_of_slots_that_were_never_used_are_refused_and_leave_no_trace() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        for weak in [0, 1, 5, u32::MAX].map(|number| WeakHandle::new(number, 0)) {
            assert_eq!(depot.acquire(weak), Err(HoldError::Evicted));
            assert_eq!(depot.renew(weak), Err(HoldError::Evicted));
            for hold in [Hold::None, Hold::Reference, Hold::Lease] {
                assert_eq!(depot.hold(weak, hold).err(), Some(HoldError::Evicted));
            }
            assert!(depot.payload(weak).is_err() && depot.fetch(weak, &mut []).is_err());
        }
        assert!(
            depot
                .region
                .slots
                .iter()
                .all(|slot| slot.state_now() == State(0))
        );
        assert_eq!(depot.stats().saturated, 0);
    }

    #[test]
    fn the_last_put_of_a_stack_is_noted_and_of_an_inner_node_hinted_at() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let region = &depot.region;
        let inner = State::LIVE | 10 << State::LENGTH_SHIFT;
        let noted = |state: u64| {
            let slot = region.slot(7).unwrap();
            slot.state.store(state, Ordering::Relaxed);
            region.header.hand.store(1000, Ordering::Relaxed);
            region.header.progress.store(0, Ordering::Relaxed);
            region
                .header
                .hints
                .iter()
                .for_each(|hint| hint.store(0, Ordering::Relaxed));
            region.release(7);
            let hints = region.header.hints.iter();
            let is_hinted = hints
                .map(|hint| hint.load(Ordering::Relaxed))
                .any(|hint| hint == 7);
            (
                is_hinted,
                region.header.progress.load(Ordering::Relaxed) > 1000,
            )
        };
        assert_eq!(noted(inner + State::REF), (true, false));
        assert_eq!(noted(inner + 2 * State::REF), (false, false));
        assert_eq!(
            noted((inner | State::SAVED_BIT) + State::REF),
            (false, true)
        );
        assert_eq!(
            noted((inner | State::SAVED_BIT) + 2 * State::REF),
            (false, false)
        );
        let leased = inner | State::SAVED_BIT | State::LEASED;
        assert_eq!(
            noted(leased + State::REF),
            (false, false),
            "not before its lease is over"
        );
        assert_eq!(noted(State::REF), (false, false), "a stray reference");
    }

    #[test]
    fn a_lease_is_written_at_tick_0_too_and_once_per_tick() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let weak = depot.save(&[0x1000]).unwrap();
        let slot = slot(&depot, weak).unwrap();
        assert!(!slot.state_now().has(State::LEASED | State::VISITED));
        assert_eq!(depot.renew(weak), Ok(Tick(0)));
        assert!(slot.state_now().has(State::LEASED));
        assert_eq!(depot.save(&[0x1000]), Ok(weak));
        let leased = slot.state_now();
        assert_eq!(depot.save(&[0x1000]), Ok(weak));
        let held = depot.save_acquire_lease(&[0x1000]).unwrap();
        assert_eq!(
            slot.state_now(),
            State(leased.0 + State::REF),
            "more was written"
        );
        depot.put(held.handle);
        depot.advance(1);
        assert_eq!(depot.renew(weak), Ok(Tick(1)));
        assert_eq!(slot.state_now(), leased.with_stamp(1));
    }

    #[test]
    fn what_is_held_for_ever_outlives_every_put_and_every_newer_stack() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let first = depot.save_held(&[0x1000], Hold::Forever).unwrap();
        // A stack that was evictable until somebody asked for more.
        let second = depot.save(&[0x2000]).unwrap();
        let again = depot.save_held(&[0x2000], Hold::Forever).unwrap();
        assert_eq!(again.weak, second);
        depot.put(first.handle);
        depot.put(again.handle);
        assert_eq!(depot.stats().stale_puts, 2, "nobody owed these");
        for number in 0..1000 {
            depot.save(&[0x10_0000 + number]).unwrap();
            depot.advance(1);
        }
        let evicted = depot.stats().evicted_stacks;
        assert!(evicted > 900, "{evicted}");
        for weak in [first.weak, second] {
            assert_eq!(depot.fetch(weak, &mut [0; 4]).unwrap().frame_count, 1);
        }
        let state = || slot(&depot, first.weak).unwrap().state_now();
        let save = || depot.save_held(&[0x1000], Hold::Forever).unwrap().weak;
        assert_eq!(save(), first.weak);
        let used = state();
        assert_eq!(used.references(), 0, "a hold for ever counts nothing");
        assert_eq!(save(), first.weak);
        assert_eq!(state(), used, "and writes nothing again");
    }

    #[test]
    fn a_depot_full_of_stacks_held_for_ever_refuses_and_counts() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let saved = (0..1000u64)
            .filter(|number| depot.save_held(&[number + 1], Hold::Forever).is_ok())
            .count() as u64;
        let stats = depot.stats();
        assert!(saved >= stats.slot_count / 2 && saved <= stats.slot_count);
        assert_eq!(stats.full + stats.crowded, 1000 - saved);
        assert_eq!(stats.evicted_stacks, 0);
    }

    #[test]
    fn holds_that_are_switched_off_are_refused() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &Config::new(4096)).unwrap();
        let weak = depot.save(&[0x1000]).unwrap();
        let disabled = Some(SaveError::Disabled);
        assert_eq!(depot.save_acquire(&[0x1000]).err(), disabled);
        assert_eq!(depot.save_lease(&[0x1000]).err(), disabled);
        assert_eq!(depot.save_acquire_lease(&[0x1000]).err(), disabled);
        assert_eq!(depot.acquire(weak).err(), Some(HoldError::Disabled));
        assert_eq!(depot.renew(weak).err(), Some(HoldError::Disabled));
    }

    #[test]
    fn a_lease_that_others_keep_changing_or_whose_slot_is_gone_is_refused() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &all_on()).unwrap();
        let weak = depot.save(&[0x1000]).unwrap();
        assert_eq!(depot.renew(weak), Ok(depot.now()));
        let slot = slot(&depot, weak).unwrap();
        let stale = State(slot.state_now().0 & !State::STATUS_MASK);
        depot.advance(1);
        let refused = depot.region.lease(slot, weak.generation(), stale);
        assert_eq!(refused, Err(HoldError::Evicted));
        let next = weak.generation() + 1;
        let refused = depot.region.lease(slot, next, slot.state_now());
        assert_eq!(refused, Err(HoldError::Evicted), "another life was stamped");
    }
}
