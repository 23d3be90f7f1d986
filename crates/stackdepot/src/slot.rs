//! Every transition of a slot's state word, one function named for each.
//!
//! Nobody plain-stores a state word while others may see it: births and frees add and
//! subtract, so that the +1/-1 of acquirers that came too late cancel out. What may be done
//! when is decided by the callers: `hold.rs` (references, leases), `evict.rs` (retire),
//! `publish.rs` (birth). The table of values is in `state.rs`.
//!
//! That every change is a read-modify-write also carries the orderings: whoever acquires the word
//! comes after every release of it before, however many relaxed changes lie between.
//!
//! INVARIANT 2: a slot leaves OWNED only by the thread that brought it there.
//! INVARIANT 3: a LIVE slot becomes OWNED only while it has no references and is not pinned.

use crate::frame::Windows;
use crate::layout::{RUN_FRAMES, Slot};
use crate::state::State;
use crate::sync::{Ordering, fence};

/// What is written into a slot before its birth.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeData {
    pub parent: u32,
    pub hash: u32,
    /// Windows, or the EXT slot of a wide node.
    pub windows: Windows,
    pub lows: [u64; RUN_FRAMES / 2],
}

impl Slot {
    /// The state word, and with it everything that was written before it took this value.
    #[inline]
    pub fn state_now(&self) -> State {
        // ORDERING: Acquire, partner: `bear` (Release): a LIVE state brings the node's data.
        State(self.state.load(Ordering::Acquire))
    }

    /// The generation, read first by every reader.
    #[inline]
    pub fn generation_now(&self) -> u32 {
        // ORDERING: Acquire, partner: the Release store in `raise_generation`: who sees this
        // generation also sees that the life before it ended, so a LIVE state is of this life.
        self.generation.load(Ordering::Acquire)
    }

    /// Whether the slot is still in the generation that a reader began with.
    #[inline]
    pub fn is_still(&self, generation: u32) -> bool {
        // ORDERING: fence(Acquire), partner: fence(Release) in `raise_generation` and
        // `begin_writing`: if any of the reader's relaxed loads saw data of a later life (of
        // this slot or of an ancestor's), this load sees the raised generation.
        fence(Ordering::Acquire);
        self.generation.load(Ordering::Relaxed) == generation
    }

    /// FREE -> OWNED. Any free slot is good, so a slot that was used in between does no harm.
    pub fn claim_free(&self) -> bool {
        // ORDERING: Acquire, partner: `free_owned`, `free_ext` (Release): the last owner's
        // accesses are over before mine begin.
        self.state
            .compare_exchange(
                State::FREE,
                State::OWNED,
                Ordering::Acquire,
                Ordering::Relaxed,
            )
            .is_ok()
    }

    /// LIVE without references -> OWNED, the start of a retire. `seen` is evictable.
    pub fn claim_evictable(&self, seen: State) -> bool {
        // ORDERING: AcqRel. Acquire, partner: `drop_references` (Release): what holders did is
        // over. Release, partner: `state_now` of a reader that finds the node gone: it comes
        // after the clock at which the node's lease was over (`Ring::still_leased`).
        self.state
            .compare_exchange(seen.0, State::OWNED, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// OWNED, the end of a life: no weak handle of it resolves from here on.
    pub fn raise_generation(&self) -> u32 {
        let next = self.generation.load(Ordering::Relaxed).wrapping_add(1);
        // ORDERING: Release, partner: `generation_now` (Acquire): the CAS to OWNED comes
        // first, or a reader could pair this generation with the last life's LIVE.
        self.generation.store(next, Ordering::Release);
        // ORDERING: fence(Release), partner: fence(Acquire) in `is_still`: this store comes
        // before the parent's release and before any overwrite.
        fence(Ordering::Release);
        next
    }

    /// OWNED: writes a node's data. Readers may look meanwhile; `is_still` tells them.
    pub fn write_node(&self, data: &NodeData) {
        self.begin_writing();
        self.hash.store(data.hash, Ordering::Relaxed);
        self.link.store(
            u64::from(data.windows.0) << 32 | u64::from(data.parent),
            Ordering::Relaxed,
        );
        self.write_lows(&data.lows);
    }

    /// OWNED: writes the upper halves of a wide node.
    pub fn write_ext(&self, highs: &[u64; RUN_FRAMES / 2]) {
        self.begin_writing();
        self.write_lows(highs);
    }

    fn begin_writing(&self) {
        // ORDERING: fence(Release), partner: fence(Acquire) in `is_still`: the claim, and the
        // retire that it acquired, come before these stores.
        fence(Ordering::Release);
    }

    fn write_lows(&self, lows: &[u64; RUN_FRAMES / 2]) {
        for (place, low) in self.lows.iter().zip(lows) {
            place.store(*low, Ordering::Relaxed);
        }
    }

    /// OWNED -> LIVE with one reference, the maker's: nobody can retire the node before it is
    /// committed.
    pub fn bear(&self, length: usize, flags: u64) {
        let delta = State::LIVE + ((length as u64) << State::LENGTH_SHIFT) + flags + State::REF
            - State::OWNED;
        // ORDERING: Release, partner: `state_now` (Acquire): the data is written.
        self.state.fetch_add(delta, Ordering::Release);
    }

    /// OWNED -> EXT. The node that names it is not born yet, so nobody looks.
    pub fn bear_ext(&self) {
        // ORDERING: Relaxed: the node's `bear` comes after it, in the same thread.
        self.state
            .fetch_add(State::EXT - State::OWNED, Ordering::Relaxed);
    }

    /// EXT -> FREE, by the owner of its retired node.
    pub fn free_ext(&self) {
        // ORDERING: Release, partner: `claim_free` (Acquire): what was written here comes before
        // the next owner's stores. A weaker one is caught by no model: the raised generation is
        // behind the fence in `raise_generation` anyway, and where a node was given up before its
        // birth loom never puts two threads' stores to one word in another order than they ran.
        self.state.fetch_sub(State::EXT, Ordering::Release);
    }

    /// OWNED -> FREE.
    pub fn free_owned(&self) {
        // ORDERING: Release, partner: `claim_free` (Acquire).
        self.state.fetch_sub(State::OWNED, Ordering::Release);
    }

    /// OWNED -> WORN: the slot's generations are used up.
    pub fn wear_out(&self) {
        // ORDERING: Relaxed: nobody ever uses the slot again.
        self.state
            .fetch_add(State::WORN - State::OWNED, Ordering::Relaxed);
    }

    /// Adds references, whatever is in the slot, and answers what was: the caller looks
    /// with `is_still` whether it holds what it wanted, and drops them if not.
    #[inline]
    pub fn add_references(&self, count: u64) -> State {
        // ORDERING: Relaxed: `is_still` comes next, and its fence(Acquire) makes this an acquire
        // of `bear` (Release). What is done under the reference is released by dropping it.
        State(
            self.state
                .fetch_add(State::counted(count), Ordering::Relaxed),
        )
    }

    /// Drops references and answers what was.
    #[inline]
    pub fn drop_references(&self, count: u64) -> State {
        // ORDERING: Release, partner: `claim_evictable` (Acquire): what was done under the
        // reference is over, also a child's raised generation.
        State(
            self.state
                .fetch_sub(State::counted(count), Ordering::Release),
        )
    }

    /// Marks a held node as the leaf of a saved stack; answers whether it was not one before.
    pub fn mark_saved(&self) -> bool {
        // ORDERING: Relaxed: a flag in a word that the caller's reference keeps LIVE.
        !State(self.state.fetch_or(State::SAVED_BIT, Ordering::Relaxed)).is_saved()
    }

    /// Pins a node that the caller holds: from here on nothing evicts it.
    pub fn pin(&self) {
        // ORDERING: Relaxed: a flag in a word that the caller's reference keeps LIVE; a claim
        // (`claim_evictable`) changes the same word, so it comes before the reference or fails.
        self.state.fetch_or(State::PINNED, Ordering::Relaxed);
    }

    /// Marks a node as saved, pins it and drops the caller's reference, in one attempt. `seen` is LIVE.
    pub fn keep(&self, seen: State) -> bool {
        let kept = (seen.0 | State::SAVED_BIT | State::PINNED) - State::REF;
        // ORDERING: Release, as for `drop_references`.
        self.state
            .compare_exchange(seen.0, kept, Ordering::Release, Ordering::Relaxed)
            .is_ok()
    }

    /// Notes a use, in one attempt: who loses it loses to somebody who changes the same word.
    #[inline]
    pub fn mark_visited(&self, seen: State) {
        // ORDERING: Relaxed: a hint for the hand, no data hangs on it.
        let _ = self.state.compare_exchange(
            seen.0,
            seen.0 | State::VISITED,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// The hand passes: a use becomes a chance, a chance is used up. One attempt.
    pub fn pass(&self, seen: State) {
        let passed = if seen.has(State::VISITED) {
            seen.0 & !State::VISITED | State::CHANCE
        } else {
            seen.0 & !State::CHANCE
        };
        // ORDERING: Relaxed, as for `mark_visited`.
        let _ = self
            .state
            .compare_exchange(seen.0, passed, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Replaces the lease stamp of a LIVE node, in one attempt.
    pub fn stamp_lease(&self, seen: State, tick: u32) -> bool {
        // ORDERING: Release, partner: `state_now` (Acquire) of an evicter: it reads the clock
        // no older than the stamp. (`claim_evictable` changes the same word, so exactly one of
        // "leased" and "retired" happens to this life; `is_still`, which follows, acquires.)
        self.state
            .compare_exchange(
                seen.0,
                seen.with_stamp(tick).0,
                Ordering::Release,
                Ordering::Relaxed,
            )
            .is_ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::state::Status;
    use crate::sync::{AtomicU32, AtomicU64};

    fn slot() -> Slot {
        Slot {
            state: AtomicU64::new(0),
            generation: AtomicU32::new(0),
            hash: AtomicU32::new(0),
            link: AtomicU64::new(0),
            lows: core::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    #[test]
    fn stray_references_cancel_through_a_whole_life() {
        let slot = slot();
        slot.add_references(1);
        assert!(!slot.claim_free());
        slot.drop_references(1);
        assert!(slot.claim_free());
        slot.add_references(1);
        slot.bear(7, State::CUT);
        assert_eq!(
            (slot.state_now().references(), slot.state_now().length()),
            (2, 7)
        );
        slot.drop_references(1);
        assert!(slot.mark_saved() && !slot.mark_saved());
        assert!(!slot.claim_evictable(State(slot.state_now().0 - State::REF)));
        slot.drop_references(1);
        assert!(slot.claim_evictable(slot.state_now()));
        slot.add_references(1);
        slot.free_owned();
        slot.drop_references(1);
        assert_eq!(slot.state_now().0, State::FREE);
    }

    #[test]
    fn a_reader_is_told_of_another_generation() {
        let slot = slot();
        assert!(slot.is_still(0) && !slot.is_still(1));
        assert_eq!(slot.raise_generation(), 1);
        assert!(slot.is_still(1) && !slot.is_still(0));
    }

    #[test]
    fn a_use_is_noted_and_passed_by_without_touching_the_rest() {
        let slot = slot();
        assert!(slot.claim_free());
        slot.bear(7, State::CUT | State::WIDE);
        let before = slot.state_now();
        slot.mark_visited(before);
        assert_eq!(slot.state_now(), State(before.0 | State::VISITED));
        slot.pass(before);
        assert!(slot.state_now().has(State::VISITED), "seen before");
        for left in [before.0 | State::CHANCE, before.0] {
            slot.pass(slot.state_now());
            assert_eq!(slot.state_now(), State(left));
        }
        slot.mark_visited(before);
        slot.pass(State(before.0 | State::VISITED));
        slot.mark_visited(State(before.0 | State::CHANCE));
        slot.pass(slot.state_now());
        assert_eq!(slot.state_now(), State(before.0 | State::CHANCE));
    }

    #[test]
    fn ext_and_worn_are_reached_by_adding() {
        let slot = slot();
        assert!(slot.claim_free());
        slot.bear_ext();
        assert_eq!(slot.state_now().status(), Status::Ext);
        slot.free_ext();
        assert!(slot.claim_free());
        slot.wear_out();
        assert_eq!(slot.state_now().status(), Status::Worn);
        assert!(!slot.claim_free());
    }

    #[test]
    fn a_stamp_replaces_a_stamp_and_nothing_else() {
        let slot = slot();
        assert!(slot.claim_free());
        slot.bear(10, State::WIDE);
        let before = slot.state_now();
        assert!(slot.stamp_lease(before, 0xff_ffff));
        assert!(!slot.stamp_lease(before, 5));
        assert!(slot.stamp_lease(slot.state_now(), 0x12_3456));
        let after = slot.state_now();
        assert_eq!(
            (after.stamp(), after.length(), after.references()),
            (0x12_3456, 10, 1)
        );
        assert!(after.has(State::WIDE) && after.has(State::LEASED) && !after.has(State::CHANCE));
    }
}
