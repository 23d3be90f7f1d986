//! Retire: ends the life of a node that nobody holds, in a fixed number of steps.
//!
//! Exactly one reference is dropped, the parent's: no cascade; the parent becomes a hint.
//! The order carries the readers' promise: generation raised, then unlinked, then the parent
//! released, then overwritten. So whoever finds the leaf's generation unchanged has read
//! ancestors that were still there.

use crate::handle::Tick;
use crate::index::Entry;
use crate::layout::{Region, Slot};
use crate::state::State;
use crate::stats::count;
use crate::sync::{AtomicU64, Ordering};

/// What a claim will take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// Free slots only.
    Free,
    /// Free slots, and evictable nodes where no saved stack ends.
    FreeOrUnsaved,
    /// Free slots and every evictable node that was not used lately.
    FreeOrEvictable,
    /// Free slots and every node that nobody holds.
    FreeOrUnheld,
}

impl Region<'_> {
    /// Takes a slot if it is what the caller wants: OWNED then, its payload zero.
    pub fn try_claim(&self, number: u32, wanted: Wanted) -> bool {
        let Some(slot) = self.slot(number) else {
            return false;
        };
        let state = slot.state_now();
        if state.0 == State::FREE {
            return slot.claim_free();
        }
        if wanted == Wanted::Free || (wanted == Wanted::FreeOrUnsaved && state.is_saved()) {
            return false;
        }
        if !self.is_unheld(state) {
            return false;
        }
        if wanted == Wanted::FreeOrEvictable && state.has(State::VISITED | State::CHANCE) {
            slot.pass(state);
            return false;
        }
        self.retire(number, slot, state)
    }

    /// Whether a node has no references and no lease, and is not pinned.
    ///
    /// `state` was loaded (Acquire) before the clock is read here: never the other way round.
    pub fn is_unheld(&self, state: State) -> bool {
        if !state.is_live() || state.references() != 0 || state.has(State::PINNED) {
            return false;
        }
        !state.has(State::LEASED) || Tick(state.stamp()).is_over(self.now(), self.lease_ticks)
    }

    /// LIVE without references -> OWNED, unlinked, parent released. Answers whether the slot is
    /// the caller's: not if somebody was faster, nor if its generations are used up.
    pub fn retire(&self, number: u32, slot: &Slot, seen: State) -> bool {
        if !slot.claim_evictable(seen) {
            return false;
        }
        let generation = slot.raise_generation();
        let hash = slot.hash.load(Ordering::Relaxed);
        if self.pair(hash).is_some_and(|pair| pair.unlink(number)) {
            count(&self.header.counters.evicted_nodes);
            if seen.is_saved() {
                count(&self.header.counters.evicted_stacks);
            }
        }
        self.fold_payload(number);
        let link = slot.link.load(Ordering::Relaxed);
        self.release(link as u32);
        if seen.has(State::WIDE) {
            self.free_ext((link >> 32) as u32);
        }
        if generation >= self.generation_limit {
            slot.wear_out();
            count(&self.header.counters.worn_slots);
            return false;
        }
        true
    }

    /// Gives a node back that was made but will not be used (the loser of a race, or the end of
    /// a failed publication): not linked, held only by its maker.
    #[cold]
    #[inline(never)]
    pub fn undo(&self, number: u32) {
        let Some(slot) = self.slot(number) else {
            return;
        };
        count(&self.header.counters.undone_nodes);
        slot.drop_references(1);
        let state = slot.state_now();
        // Who holds it for a moment, or the hand, may be faster: then the hand does the rest, and
        // the slot may be in another life already, which somebody holds by a lease or for ever.
        if self.is_unheld(state) && self.retire(number, slot, state) {
            self.give_back(number);
        }
    }

    /// OWNED -> FREE, with a hint.
    pub fn give_back(&self, number: u32) {
        if let Some(slot) = self.slot(number) {
            slot.free_owned();
            self.hint(number);
        }
    }

    /// EXT -> FREE, with a hint.
    pub fn free_ext(&self, number: u32) {
        if let Some(slot) = self.slot(number) {
            slot.free_ext();
            self.hint(number);
        }
    }

    /// Evicts one node of two full buckets, so that an entry becomes free.
    #[cold]
    #[inline(never)]
    pub fn evict_among<'c>(&self, cells: impl Iterator<Item = &'c AtomicU64>) -> bool {
        for cell in cells {
            // ORDERING: Relaxed: a candidate, checked on the state word.
            let entry = Entry(cell.load(Ordering::Relaxed));
            let Some(slot) = self.slot(entry.slot()) else {
                continue;
            };
            let state = slot.state_now();
            if !entry.is_tentative()
                && self.is_unheld(state)
                && self.retire(entry.slot(), slot, state)
            {
                count(&self.header.counters.crowd_evicted);
                self.give_back(entry.slot());
                return true;
            }
        }
        false
    }

    /// Adds the payload of a dying stack to the totals and zeroes it. OWNED, and payload is
    /// written only under a reference, so nobody else writes it; `raise_generation` fenced the
    /// raised generation before the zeros.
    fn fold_payload(&self, number: u32) {
        for (word, total) in self
            .payload_of(number)
            .iter()
            .zip(&self.header.counters.evicted_payload)
        {
            let value = word.load(Ordering::Relaxed);
            if value != 0 {
                total.fetch_add(value, Ordering::Relaxed);
                word.store(0, Ordering::Relaxed);
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::depot::Depot;
    use crate::error::{HoldError, SaveError};
    use crate::layout::Line;

    fn config() -> Config {
        Config {
            references: true,
            payload_words: 1,
            ..Config::new(2048)
        }
    }

    /// Makes every cell of the index lead to that slot.
    fn crowd(depot: &Depot<'_>, number: u32) {
        let empty = |cell: &&AtomicU64| cell.load(Ordering::Relaxed) == 0;
        let cells = depot.region.buckets.iter().flat_map(|bucket| &bucket.cells);
        for cell in cells.filter(empty) {
            cell.store(Entry::new(0, number).0, Ordering::Relaxed);
        }
    }

    #[test]
    fn full_buckets_give_up_what_nobody_holds_and_nothing_else() {
        let mut memory = [Line::ZERO; 32];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        assert_eq!(depot.region.geometry.bucket_count, 2);
        let held = depot.save_acquire(&[0x1000]).unwrap();
        crowd(&depot, held.weak.slot());
        assert_eq!(depot.save(&[0x2000]), Err(SaveError::Crowded));
        assert_eq!(depot.fetch(held.weak, &mut [0; 4]).unwrap().frame_count, 1);
        let stats = depot.stats();
        assert_eq!((stats.crowded, stats.crowd_evicted), (1, 0));
        assert_eq!(stats.undone_nodes, 1, "the node that found no place");

        depot.put(held.handle);
        let saved = depot.save(&[0x2000]).unwrap();
        assert_eq!(depot.stats().crowd_evicted, 1);
        assert_eq!(depot.acquire(held.weak), Err(HoldError::Evicted));
        assert_eq!(depot.fetch(saved, &mut [0; 4]).unwrap().frame_count, 1);
    }

    #[test]
    fn a_node_that_is_given_up_stays_with_whoever_else_has_it() {
        let mut memory = [Line::ZERO; 32];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let slot = depot.region.slot(3).unwrap();
        let node = State::LIVE | 1 << State::LENGTH_SHIFT;
        for (state, left) in [
            (node + 2 * State::REF, node + State::REF),
            (State::OWNED + State::REF, State::OWNED),
            (node + State::REF, State::FREE),
        ] {
            slot.state.store(state, Ordering::Relaxed);
            depot.region.undo(3);
            assert_eq!(slot.state_now(), State(left));
        }
    }

    #[test]
    fn a_save_that_takes_a_reference_notes_its_use_where_there_are_no_leases() {
        for lease_ticks in [0, 2] {
            let mut memory = [Line::ZERO; 32];
            let config = Config {
                lease_ticks,
                ..config()
            };
            let depot = Depot::new(&mut memory, &config).unwrap();
            let held = depot.save_acquire(&[0x1000]).unwrap();
            let slot = depot.region.slot(held.weak.slot()).unwrap();
            let born = slot.state_now();
            assert!(!born.has(State::VISITED));
            depot.save_acquire(&[0x1000]).unwrap();
            let used = if lease_ticks == 0 { State::VISITED } else { 0 };
            assert_eq!(slot.state_now(), State(born.0 + State::REF + used));
        }
    }

    #[test]
    fn each_claim_takes_what_it_wants_and_only_the_hand_respects_recency() {
        let mut memory = [Line::ZERO; 32];
        let config = Config {
            lease_ticks: 2,
            ..config()
        };
        let depot = Depot::new(&mut memory, &config).unwrap();
        depot.advance(5);
        let slot = depot.region.slot(3).unwrap();
        let node = State::LIVE | 1 << State::LENGTH_SHIFT;
        let (used, saved) = (State::VISITED, State::SAVED_BIT);
        let leased = node | State::LEASED | 4 << State::STAMP_SHIFT;
        for (state, wanted, left) in [
            (node | used, Wanted::FreeOrEvictable, node | State::CHANCE),
            (node | State::CHANCE, Wanted::FreeOrEvictable, node),
            (
                node | State::LEASED | used,
                Wanted::FreeOrEvictable,
                node | State::LEASED | State::CHANCE,
            ),
            (leased | used, Wanted::FreeOrEvictable, leased | used),
            (
                node + State::REF + used,
                Wanted::FreeOrEvictable,
                node + State::REF + used,
            ),
            (node, Wanted::FreeOrEvictable, State::OWNED),
            (node | State::LEASED, Wanted::FreeOrEvictable, State::OWNED),
            (node | used, Wanted::FreeOrUnheld, State::OWNED),
            (leased, Wanted::FreeOrUnheld, leased),
            (node, Wanted::Free, node),
            (State::FREE, Wanted::Free, State::OWNED),
            (node | used, Wanted::FreeOrUnsaved, State::OWNED),
            (node | saved, Wanted::FreeOrUnsaved, node | saved),
        ] {
            slot.state.store(state, Ordering::Relaxed);
            let is_taken = depot.region.try_claim(3, wanted);
            assert_eq!(slot.state_now(), State(left), "{state:#x} {wanted:?}");
            assert_eq!(is_taken, left == State::OWNED);
        }
    }

    #[test]
    fn tentative_entries_of_full_buckets_are_left_to_their_owners() {
        let mut memory = [Line::ZERO; 32];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let saved = depot.save(&[0x1000]).unwrap();
        crowd(&depot, saved.slot());
        for cell in depot.region.buckets.iter().flat_map(|bucket| &bucket.cells) {
            let entry = Entry(cell.load(Ordering::Relaxed)).tentative();
            cell.store(entry.0, Ordering::Relaxed);
        }
        assert_eq!(depot.save(&[0x2000]), Err(SaveError::Crowded));
        assert_eq!(depot.stats().crowd_evicted, 0);
        assert!(depot.payload(saved).is_ok());
    }

    #[test]
    fn a_dying_stack_adds_its_payload_to_the_totals_and_leaves_zeros() {
        let mut memory = [Line::ZERO; 32];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        for number in 1..=100 {
            let held = depot.save_acquire(&[number]).unwrap();
            assert_eq!(depot.payload(held.weak), Ok([0; 4]));
            depot.put_with_payload(held.handle, 0, &[number, 7]);
        }
        let stored: u64 = depot.walk().map(|walked| walked.payload[0]).sum();
        let evicted = depot.stats().evicted_payload;
        assert!(evicted[0] > 0);
        assert_eq!((stored + evicted[0], evicted[1]), (5050, 0));
    }
}
