//! Opening a region whose writer is gone (`protocols.md` G).
//!
//! Runs alone: no other thread or process writes. Keeps every committed node whose chain is
//! sound, frees everything else, and recounts references. Idempotent: `dirty` is set before
//! the first change and cleared after the last, and every step may be repeated.
//! Works without allocation: `MARK` in the state word stands for "to be kept".

use crate::frame::{WindowTable, Windows};
use crate::handle::WeakHandle;
use crate::index::Entry;
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::state::{State, Status};
use crate::stats::count;
use crate::sync::{AtomicU64, Ordering, fence};

/// What a reopen found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Nodes that were kept.
    pub kept_nodes: u64,
    /// Index entries that led to nothing sound and were removed.
    pub dropped_entries: u64,
    /// Slots that were in flight or unreachable and are free again.
    pub freed_slots: u64,
    /// References of `live_holds` that were taken over.
    pub restored_holds: u64,
    /// References of `live_holds` whose stack is gone.
    pub dropped_holds: u64,
    /// Whether an earlier reopen had been cut short.
    pub was_dirty: bool,
}

/// Exclusive access: plain loads and stores.
fn get(word: &AtomicU64) -> u64 {
    // ORDERING: Relaxed, here and in `set`: recovery runs alone; the caller's exclusive lock
    // orders it after the last writer and before the next.
    word.load(Ordering::Relaxed)
}

fn set(word: &AtomicU64, value: u64) {
    word.store(value, Ordering::Relaxed);
}

impl Region<'_> {
    /// Makes the region sound again; see `Depot::reopen`.
    pub fn recover(&self, live_holds: impl IntoIterator<Item = WeakHandle>) -> Recovered {
        let mut recovered = Recovered {
            was_dirty: get(&self.header.dirty) != 0,
            ..Recovered::default()
        };
        set(&self.header.dirty, 1);
        // ORDERING: fence(SeqCst): in a shared file `dirty` stands before any change does.
        fence(Ordering::SeqCst);
        self.clear_marks_and_hints();
        self.mark_committed(&mut recovered);
        self.unmark_broken_chains();
        if self.mark_exts() {
            // Unmarking only ends conflicts, so the second time there is none.
            self.unmark_broken_chains();
            self.mark_exts();
        }
        self.drop_unmarked(&mut recovered);
        self.recount(live_holds, &mut recovered);
        self.settle_counters();
        // ORDERING: fence(SeqCst): and falls after the last change.
        fence(Ordering::SeqCst);
        set(&self.header.dirty, 0);
        recovered
    }

    fn numbered(&self) -> impl Iterator<Item = (u32, &Slot)> {
        (1..).zip(self.slots)
    }

    fn clear_marks_and_hints(&self) {
        for slot in self.slots {
            set(&slot.state, get(&slot.state) & !State::MARK);
        }
        for hint in &self.header.hints {
            hint.store(0, Ordering::Relaxed);
        }
        // The hand starts over behind its first lap, or in it if it never ended.
        let (hand, slot_count) = (get(&self.header.hand), u64::from(self.geometry.slot_count));
        let in_lap = hand.checked_rem(slot_count).unwrap_or(0);
        set(&self.header.hand, hand.min(slot_count + in_lap));
        set(&self.header.progress, get(&self.header.hand));
    }

    /// Step 2: marks the slots of committed entries that are filed where they belong.
    fn mark_committed(&self, recovered: &mut Recovered) {
        for bucket in self.buckets {
            for cell in &bucket.cells {
                let entry = Entry(get(cell));
                if entry.is_empty() {
                    continue;
                }
                if entry.is_tentative() || !self.is_filed_right(entry, cell) {
                    set(cell, 0);
                    recovered.dropped_entries += 1;
                } else if let Some(slot) = self.slot(entry.slot()) {
                    set(&slot.state, get(&slot.state) | State::MARK);
                }
            }
        }
    }

    fn is_filed_right(&self, entry: Entry, cell: &AtomicU64) -> bool {
        let Some(slot) = self.slot(entry.slot()) else {
            return false;
        };
        let state = State(get(&slot.state));
        let is_new_node = state.is_live()
            && (1..=RUN_FRAMES).contains(&state.length())
            && !state.has(State::MARK);
        let pair = self.pair(slot.hash.load(Ordering::Relaxed));
        is_new_node && pair.is_some_and(|pair| pair.cells().any(|other| core::ptr::eq(other, cell)))
    }

    /// Step 3: a marked node keeps its mark only if its whole chain is marked, of full parents,
    /// and not longer than a stack may be. Chains are short: each is walked for itself.
    fn unmark_broken_chains(&self) {
        for (number, slot) in self.numbered() {
            if State(get(&slot.state)).has(State::MARK) && !self.is_chain_sound(number) {
                self.unmark(number, slot);
            }
        }
    }

    fn unmark(&self, number: u32, slot: &Slot) {
        set(&slot.state, get(&slot.state) & !State::MARK);
        if let Some(pair) = self.pair(slot.hash.load(Ordering::Relaxed)) {
            pair.unlink(number);
        }
    }

    /// Gives each EXT slot of a marked wide node to that node alone; answers whether some node
    /// came too late and lost its mark, which may break the chains below it.
    fn mark_exts(&self) -> bool {
        let mut is_broken = false;
        for slot in self.slots {
            let state = State(get(&slot.state));
            if state.status() == Status::Ext {
                set(&slot.state, state.0 & !State::MARK);
            }
        }
        for (number, slot) in self.numbered() {
            let state = State(get(&slot.state));
            if !(state.has(State::MARK) && state.is_live() && state.has(State::WIDE)) {
                continue;
            }
            match self.slot((get(&slot.link) >> 32) as u32) {
                Some(ext) if !State(get(&ext.state)).has(State::MARK) => {
                    set(&ext.state, State::EXT | State::MARK)
                }
                _ => {
                    self.unmark(number, slot);
                    is_broken = true;
                }
            }
        }
        is_broken
    }

    fn is_chain_sound(&self, number: u32) -> bool {
        let (mut frame_count, mut current) = (0, number);
        // Ends: each hop adds frames, and `max_frames` bounds them; so a cycle ends, too.
        while let Some(slot) = self.slot(current) {
            let state = State(get(&slot.state));
            let is_full_parent = current == number || state.length() == RUN_FRAMES;
            frame_count += state.length();
            let link = get(&slot.link);
            let is_sound =
                state.has(State::MARK) && is_full_parent && frame_count <= self.max_frames as usize;
            if !is_sound || !self.is_decodable(state, (link >> 32) as u32) {
                return false;
            }
            if link as u32 == 0 {
                return true;
            }
            current = link as u32;
        }
        false
    }

    /// Whether the upper halves are there: the windows taken, or an EXT slot.
    fn is_decodable(&self, state: State, windows: u32) -> bool {
        if state.has(State::WIDE) {
            let ext = self
                .slot(windows)
                .map(|ext| State(get(&ext.state)).status());
            return ext == Some(Status::Ext);
        }
        let table = WindowTable::of(self.header);
        (0..state.length()).all(|position| table.is_taken(Windows(windows).cell_of(position)))
    }

    /// Step 4: frees what is not kept.
    fn drop_unmarked(&self, recovered: &mut Recovered) {
        for (number, slot) in self.numbered() {
            let state = State(get(&slot.state));
            if state.has(State::MARK) {
                recovered.kept_nodes += u64::from(state.is_live());
            } else if state.status() != Status::Worn {
                self.free_again(number, slot, state, recovered);
            }
        }
    }

    fn free_again(&self, number: u32, slot: &Slot, state: State, recovered: &mut Recovered) {
        for (word, total) in self
            .payload_of(number)
            .iter()
            .zip(&self.header.counters.evicted_payload)
        {
            total.fetch_add(word.swap(0, Ordering::Relaxed), Ordering::Relaxed);
        }
        if state.status() == Status::Free {
            // Strays of acquirers that are gone.
            set(&slot.state, State::FREE);
            return;
        }
        recovered.freed_slots += 1;
        let generation = slot.raise_generation();
        if generation >= self.generation_limit {
            count(&self.header.counters.worn_slots);
            set(&slot.state, State::WORN);
        } else {
            set(&slot.state, State::FREE);
        }
    }

    /// Step 5: counts the children of kept nodes, then the holds that live on.
    fn recount(&self, live_holds: impl IntoIterator<Item = WeakHandle>, recovered: &mut Recovered) {
        for slot in self.slots {
            set(
                &slot.state,
                get(&slot.state) & (State::REF - 1) & !State::MARK,
            );
        }
        for slot in self.slots {
            if State(get(&slot.state)).is_live() {
                self.add_counted(get(&slot.link) as u32);
            }
        }
        for weak in live_holds {
            let is_stored = self.slot(weak.slot()).is_some_and(|slot| {
                State(get(&slot.state)).is_saved()
                    && slot.generation.load(Ordering::Relaxed) == weak.generation()
            });
            if is_stored && self.add_counted(weak.slot()) {
                recovered.restored_holds += 1;
            } else {
                recovered.dropped_holds += 1;
            }
        }
    }

    fn add_counted(&self, number: u32) -> bool {
        let Some(slot) = self.slot(number) else {
            return false;
        };
        let state = State(get(&slot.state));
        if state.references() >= State::REF_LIMIT {
            return false;
        }
        set(&slot.state, state.0 + State::REF);
        true
    }

    /// Makes both gauges right again: a killed writer may have stored or evicted without counting.
    fn settle_counters(&self) {
        let states = || self.slots.iter().map(|slot| State(get(&slot.state)));
        let node_count = states().filter(|state| state.is_live()).count() as u64;
        let stack_count = states().filter(|state| state.is_saved()).count() as u64;
        let counters = &self.header.counters;
        settle(&counters.new_nodes, &counters.evicted_nodes, node_count);
        settle(&counters.new_stacks, &counters.evicted_stacks, stack_count);
    }
}

/// Moves the smaller of two counters up until their difference is the gauge.
fn settle(new: &AtomicU64, evicted: &AtomicU64, gauge: u64) {
    set(new, get(new).max(get(evicted).saturating_add(gauge)));
    set(evicted, get(new).saturating_sub(gauge));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::depot::Depot;
    use crate::layout::Line;

    extern crate std;
    use std::vec::Vec;

    const MAX_FRAMES: u32 = 30;

    fn config() -> Config {
        Config {
            references: true,
            payload_words: 1,
            max_frames: MAX_FRAMES,
            ..Config::new(4096)
        }
    }

    /// Three nodes: a run of five, below two full ones.
    fn deep() -> [u64; 25] {
        core::array::from_fn(|position| 0x1000 + position as u64)
    }

    /// The nodes of a stack, leaf first.
    fn chain(depot: &Depot<'_>, leaf: WeakHandle) -> [u32; 3] {
        let mut number = leaf.slot();
        core::array::from_fn(|_| {
            let this = number;
            let link = depot.region.slot(this).map_or(0, |slot| get(&slot.link));
            number = link as u32;
            this
        })
    }

    fn unlink(depot: &Depot<'_>, number: u32) {
        let cells = depot.region.buckets.iter().flat_map(|bucket| &bucket.cells);
        for cell in cells.filter(|cell| Entry(get(cell)).slot() == number) {
            set(cell, 0);
        }
    }

    fn counted(recovered: Recovered) -> [u64; 3] {
        let Recovered {
            kept_nodes,
            dropped_entries,
            freed_slots,
            ..
        } = recovered;
        [kept_nodes, dropped_entries, freed_slots]
    }

    #[test]
    fn a_node_lives_on_only_with_every_ancestor() {
        for (lost, kept) in [(0, 2), (1, 1), (2, 0)] {
            let mut memory = [Line::ZERO; 64];
            let depot = Depot::new(&mut memory, &config()).unwrap();
            let weak = depot.save(&deep()).unwrap();
            let chain = chain(&depot, weak);
            assert_eq!(counted(depot.region.recover([])), [3, 0, 0]);
            assert!(depot.fetch(weak, &mut [0; 32]).is_ok());
            unlink(&depot, chain[lost]);
            assert_eq!(counted(depot.region.recover([])), [kept, 0, 3 - kept]);
            assert!(depot.fetch(weak, &mut [0; 32]).is_err());
            let used = |cell: &&AtomicU64| get(cell) != 0;
            let cells = depot.region.buckets.iter().flat_map(|bucket| &bucket.cells);
            assert_eq!(cells.filter(used).count() as u64, kept);
            let stats = depot.stats();
            assert_eq!(stats.new_nodes - stats.evicted_nodes, kept);
            assert_eq!(stats.new_stacks - stats.evicted_stacks, 0);
        }
    }

    #[test]
    fn each_entry_that_leads_to_nothing_sound_is_removed_and_counted() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let weak = depot.save(&deep()).unwrap();
        let leaf = depot.region.slot(weak.slot()).unwrap();
        let pair = depot
            .region
            .pair(leaf.hash.load(Ordering::Relaxed))
            .unwrap();
        let own: Vec<&AtomicU64> = pair.cells().collect();
        let all = depot.region.buckets.iter().flat_map(|bucket| &bucket.cells);
        let is_own = |cell: &&AtomicU64| own.iter().any(|own| core::ptr::eq(*own, *cell));
        let (here, elsewhere): (Vec<_>, Vec<_>) =
            all.filter(|cell| get(cell) == 0).partition(is_own);
        let committed = own.iter().map(|cell| Entry(get(cell)));
        let [entry] = committed
            .filter(|entry| entry.slot() == weak.slot())
            .collect::<Vec<_>>()[..]
        else {
            panic!("one entry leads to a node")
        };
        let free = Entry::new(0, 30);
        let outside = Entry::new(0, 99_999);
        for (cell, wrong) in [
            (here[0], entry.tentative()),
            (here[1], entry),
            (here[2], free),
            (here[3], outside),
            (elsewhere[0], entry),
        ] {
            set(cell, wrong.0);
            assert_eq!(counted(depot.region.recover([])), [3, 1, 0], "{wrong:x?}");
            assert!(depot.fetch(weak, &mut [0; 32]).is_ok());
        }
        set(here[4], entry.tentative().0);
        set(here[5], free.0);
        assert_eq!(counted(depot.region.recover([])), [3, 2, 0]);
    }

    #[test]
    fn an_entry_of_what_is_no_node_is_removed() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let slot = depot.region.slot(30).unwrap();
        let cell = &depot.region.pair(0).unwrap().first.cells[2];
        let live = |length: u64| State::LIVE | length << State::LENGTH_SHIFT;
        for (state, is_kept) in [
            (live(0), false),
            (live(11), false),
            (State::OWNED | 5 << State::LENGTH_SHIFT, false),
            (live(1), true),
            (live(10) | State::MARK, true),
        ] {
            set(&slot.state, state);
            set(cell, Entry::new(0, 30).0);
            // What the node names is there: the window of 0.
            let windows = WindowTable::of(depot.region.header).windows_of(&[0; RUN_FRAMES]);
            assert!(windows.is_some());
            set(&slot.link, 0x000a_aaaa << 32);
            let kept = u64::from(is_kept);
            assert_eq!(
                counted(depot.region.recover([])),
                [kept, 1 - kept, 1 - kept]
            );
        }
    }

    #[test]
    fn a_node_whose_upper_halves_are_gone_or_anothers_is_given_up_with_its_children() {
        let wide = core::array::from_fn::<u64, 25, _>(|at| !0 / (at as u64 + 2));
        let kept_after = |damage: fn(&Depot<'_>, [u32; 3])| {
            let mut memory = [Line::ZERO; 64];
            let depot = Depot::new(&mut memory, &config()).unwrap();
            let weak = depot.save(&wide).unwrap();
            assert_eq!(depot.stats().wide_nodes, 3);
            damage(&depot, chain(&depot, weak));
            let kept = counted(depot.region.recover([]))[0];
            assert_eq!(depot.fetch(weak, &mut [0; 32]).is_ok(), kept == 3);
            kept
        };
        fn link(depot: &Depot<'_>, number: u32) -> u64 {
            depot.region.slot(number).map_or(0, |slot| get(&slot.link))
        }
        assert_eq!(kept_after(|_, _| ()), 3);
        let kept = kept_after(|depot, [.., root]| {
            let ext = (link(depot, root) >> 32) as u32;
            set(&depot.region.slot(ext).unwrap().state, State::OWNED);
        });
        assert_eq!(kept, 0, "the root's second slot is no such slot any more");
        let kept = kept_after(|depot, [_, middle, root]| {
            let shared = link(depot, root) >> 32 << 32 | u64::from(root);
            set(&depot.region.slot(middle).unwrap().link, shared);
        });
        assert_eq!(kept, 1, "what the root has the node below cannot have");
    }

    #[test]
    fn a_parent_that_is_not_full_or_a_chain_that_is_too_long_is_given_up() {
        for (length, most, kept) in [(10, 25, 3), (9, 25, 2), (10, 24, 2)] {
            let mut memory = [Line::ZERO; 64];
            let mut depot = Depot::new(&mut memory, &config()).unwrap();
            let weak = depot.save(&deep()).unwrap();
            let parent = depot.region.slot(chain(&depot, weak)[1]).unwrap();
            let state = get(&parent.state) & !State::LENGTH_MASK;
            set(&parent.state, state | length << State::LENGTH_SHIFT);
            depot.region.max_frames = most;
            let recovered = depot.region.recover([]);
            assert_eq!(counted(recovered), [kept, 0, 3 - kept], "{length} {most}");
        }
    }

    #[test]
    fn what_was_in_flight_is_freed_as_another_life_and_strays_are_forgotten() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let [stray, owned, worn, last] =
            [5, 6, 7, 8].map(|number| depot.region.slot(number).unwrap());
        set(&stray.state, 3 * State::REF);
        set(&owned.state, State::OWNED + State::REF);
        set(&worn.state, State::WORN);
        set(&last.state, State::OWNED);
        let most = depot.region.generation_limit - 1;
        last.generation.store(most, Ordering::Relaxed);
        for (number, word) in [(6, 30), (8, 4)] {
            set(depot.region.payload_of(number).first().unwrap(), word);
        }
        assert_eq!(counted(depot.region.recover([])), [0, 0, 2]);
        let found =
            [stray, owned, worn, last].map(|slot| (get(&slot.state), slot.generation_now()));
        let (free, gone) = (State::FREE, State::WORN);
        assert_eq!(found, [(free, 0), (free, 1), (gone, 0), (gone, most + 1)]);
        let stats = depot.stats();
        assert_eq!(
            (stats.worn_slots, stats.evicted_payload),
            (1, [34, 0, 0, 0])
        );
        assert_eq!(get(depot.region.payload_of(6).first().unwrap()), 0);
        assert_eq!(
            counted(depot.region.recover([])),
            [0, 0, 0],
            "not idempotent"
        );
    }

    #[test]
    fn references_are_children_and_the_holds_that_live_on() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let weak = depot.save_acquire(&deep()).unwrap().weak;
        let chain = chain(&depot, weak);
        let slots = chain.map(|number| depot.region.slot(number).unwrap());
        let inner = WeakHandle::new(chain[1], 0);
        let older = WeakHandle::new(weak.slot(), weak.generation() + 1);
        let nowhere = WeakHandle::new(u32::MAX, 0);
        let recovered = depot.region.recover([weak, inner, older, weak, nowhere]);
        assert_eq!((recovered.restored_holds, recovered.dropped_holds), (2, 3));
        let references = slots.map(|slot| slot.state_now().references());
        assert_eq!(references, [2, 1, 1]);
        let is_marked = |slot: &Slot| slot.state_now().has(State::MARK);
        assert!(!slots.into_iter().any(is_marked));
        assert!(!recovered.was_dirty);
        set(&depot.region.header.dirty, 1);
        assert!(depot.region.recover([]).was_dirty);
        assert_eq!(get(&depot.region.header.dirty), 0);
    }

    #[test]
    fn the_hand_goes_on_behind_its_first_lap_or_in_it() {
        let mut memory = [Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &config()).unwrap();
        let count = u64::from(depot.region.geometry.slot_count);
        let header = depot.region.header;
        for (before, after) in [
            (3, 3),
            (count, count),
            (count + 1, count + 1),
            (3 * count + 5, count + 5),
        ] {
            set(&header.hand, before);
            set(&header.progress, 0);
            header
                .hints
                .iter()
                .for_each(|hint| hint.store(1, Ordering::Relaxed));
            depot.region.recover([]);
            assert_eq!((get(&header.hand), get(&header.progress)), (after, after));
            assert!(
                header
                    .hints
                    .iter()
                    .all(|hint| hint.load(Ordering::Relaxed) == 0)
            );
        }
    }

    #[test]
    fn the_counter_that_is_behind_catches_up() {
        for (new, evicted, gauge, settled) in
            [(5, 0, 3, (5, 2)), (1, 4, 2, (6, 4)), (7, 4, 3, (7, 4))]
        {
            let words = (AtomicU64::new(new), AtomicU64::new(evicted));
            settle(&words.0, &words.1, gauge);
            assert_eq!((get(&words.0), get(&words.1)), settled);
        }
    }
}
