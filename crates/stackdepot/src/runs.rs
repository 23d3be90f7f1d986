//! Stacks that their caller filled up to full runs, found and copied out without vector registers.
//!
//! A kernel has neither vector registers nor, mostly, more than one window. Its caller fills the outermost
//! run up, so that every node is full; so a stack can be looked for where it lies, only its outermost run
//! being somewhere else, and nothing depends on a length. All that is not simple (wide nodes,
//! other windows, short buffers, stacks that are not stored) is left to the general way.

use crate::error::SaveError;
use crate::frame::{Run, WindowTable, Windows};
use crate::handle::{Handle, Tick, WeakHandle};
use crate::hash::Hasher;
use crate::hold::Hold;
use crate::index::home_cell;
use crate::insert::Saved;
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::lookup::Found;
use crate::publish::NewNode;
use crate::state::State;
use crate::sync::Ordering;

/// The state bits that a narrow node of a full run must have, whatever it holds.
const SHAPE_MASK: u64 = (State::STATUS_MASK & !State::SAVED_BIT) | State::WIDE | State::LENGTH_MASK;
/// What they are.
const FULL: u64 = State::LIVE | (RUN_FRAMES as u64) << State::LENGTH_SHIFT;

/// A whole stack of full runs, not cut, innermost first; the outermost one lies somewhere else.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Runs<'f> {
    pub inner: &'f [Run],
    pub outermost: &'f Run,
}

impl<'f> Runs<'f> {
    /// The level of the leaf; level 0 is the outermost run.
    fn leaf_level(&self) -> usize {
        self.inner.len()
    }

    /// The stack down to a level.
    fn down_to(&self, level: usize) -> Runs<'f> {
        let deeper_count = self.inner.len().saturating_sub(level);
        Runs {
            inner: self.inner.get(deeper_count..).unwrap_or_default(),
            outermost: self.outermost,
        }
    }

    #[inline(never)]
    fn hash(&self, hasher: &Hasher) -> u64 {
        hasher.runs(self.inner, self.outermost)
    }

    fn innermost(&self) -> &'f Run {
        self.inner.first().unwrap_or(self.outermost)
    }
}

impl<'r> Region<'r> {
    /// Finds or stores a stack and holds it; see `Depot::save_runs`.
    #[inline(always)]
    pub fn save_runs(
        &self,
        hasher: &Hasher,
        runs: Runs<'_>,
        hold: Hold,
    ) -> Result<Saved, SaveError> {
        let hash = hasher.runs(runs.inner, runs.outermost);
        if let Some(number) = self.find_home_slot(hash)
            && let Some(found) = self.compare_simple(number, runs, State::SAVED_BIT)
            && let Some(saved) = self.hold_simple(&found, hold)
        {
            return Ok(saved);
        }
        self.save_other_runs(hasher, runs, hash, hold)
    }

    #[inline(always)]
    fn find_home_slot(&self, hash: u64) -> Option<u32> {
        let home = self.first_bucket(hash as u32)?.entry(home_cell(hash));
        home.is_committed_of(hash).then(|| home.slot())
    }

    /// The holds that nearly all saves of known stacks end in; `None` where there is more to do, and then
    /// nothing is held.
    #[inline(always)]
    fn hold_simple(&self, found: &Found<'r>, hold: Hold) -> Option<Saved> {
        let is_held = match hold {
            Hold::Forever => found.state.has(State::PINNED),
            Hold::Reference => {
                self.references
                    && self
                        .acquire_slot(found.number, found.slot, found.generation)
                        .is_ok()
            }
            _ => false,
        };
        let saved = Saved {
            weak: found.weak(),
            from: Tick(0),
        };
        is_held.then_some(saved)
    }

    /// The save of a stack that is not simple, or not at home in the index, or not stored.
    #[cold]
    #[inline(never)]
    fn save_other_runs(
        &self,
        hasher: &Hasher,
        runs: Runs<'_>,
        hash: u64,
        hold: Hold,
    ) -> Result<Saved, SaveError> {
        self.check_hold(hold)?;
        if runs.leaf_level() >= self.max_frames as usize / RUN_FRAMES {
            return Err(SaveError::Disabled);
        }
        if let Some(found) = self.find_displaced(runs, hash)
            && let Some(saved) = self.save_found(&found, hold)
        {
            return saved;
        }
        self.prefetch_claim();
        let find = |level| {
            let outer = runs.down_to(level);
            self.find_runs(outer, outer.hash(hasher))
        };
        let deepest = self.hold_deepest(0..runs.leaf_level(), find);
        let (mut parent, first_missing) = deepest.unwrap_or((0, 0));
        for level in first_missing..=runs.leaf_level() {
            let prefix = runs.down_to(level);
            let node = NewNode {
                parent,
                hash: if level == runs.leaf_level() {
                    hash
                } else {
                    prefix.hash(hasher)
                },
                run: prefix.innermost(),
                length: RUN_FRAMES,
                is_cut: false,
            };
            parent = self
                .insert_node(&node)
                .inspect_err(|error| self.count_refusal(*error))?;
        }
        self.hold_inserted(parent, hold)
    }

    /// Finds the committed node, saved or not.
    fn find_runs(&self, runs: Runs<'_>, hash: u64) -> Option<Found<'r>> {
        self.find_home_slot(hash)
            .and_then(|number| self.compare_simple(number, runs, 0))
            .or_else(|| self.find_displaced(runs, hash))
    }

    /// The same in both buckets of its hash.
    #[inline(never)]
    fn find_displaced(&self, runs: Runs<'_>, hash: u64) -> Option<Found<'r>> {
        self.pair(hash as u32)?
            .find_committed(hash, |number| self.compare_runs(number, runs))
    }

    /// Compares a node and its ancestors with a stack, all of them narrow and of the first window. Without a
    /// branch on what they hold: what differs is collected, and the one look is at the end. `saved`: the
    /// bit that says so, or 0 where that does not matter.
    #[inline(always)]
    fn compare_simple(&self, number: u32, runs: Runs<'_>, saved: u64) -> Option<Found<'r>> {
        let leaf = self.slot(number)?;
        let generation = leaf.generation_now();
        let leaf_state = leaf.state_now();
        let high = WindowTable::of(self.header).high_bits(0);
        let mut slot = leaf;
        let mut differing = !leaf_state.0 & saved;
        for run in runs.inner {
            let link = slot.link.load(Ordering::Relaxed);
            differing |= misshapen(slot, link) | difference(slot, run, high);
            slot = self.slot(link as u32)?;
        }
        let link = slot.link.load(Ordering::Relaxed);
        differing |= misshapen(slot, link) | difference(slot, runs.outermost, high);
        // A sum of differences would be tested one by one.
        let differing = core::hint::black_box(differing | link << 32);
        (differing == 0 && leaf.is_still(generation)).then_some(Found {
            number,
            slot: leaf,
            generation,
            state: leaf_state,
        })
    }

    /// The same for nodes of any kind.
    #[inline(never)]
    fn compare_runs(&self, number: u32, runs: Runs<'_>) -> Option<Found<'r>> {
        let leaf = self.slot(number)?;
        let generation = leaf.generation_now();
        let leaf_state = leaf.state_now();
        let first_windows = self.first_windows();
        let (mut slot, mut state) = (leaf, leaf_state);
        for run in runs.inner {
            let parent = self.compare_hop(slot, state, run, RUN_FRAMES, first_windows)?;
            slot = self.slot(parent)?;
            state = State(slot.state.load(Ordering::Relaxed));
        }
        let base = self.compare_hop(slot, state, runs.outermost, RUN_FRAMES, first_windows)?;
        (base == 0 && !state.has(State::CUT) && leaf.is_still(generation)).then_some(Found {
            number,
            slot: leaf,
            generation,
            state: leaf_state,
        })
    }

    /// See `Depot::fetch_filled`.
    #[inline(always)]
    pub fn fetch_filled(
        &self,
        handle: Handle,
        kept: u32,
        out: &mut [u64],
        filler_count: impl Fn(u64) -> usize,
    ) -> Option<usize> {
        let number = self.slot_of(handle);
        let leaf = self.slot(number)?;
        let generation = leaf.generation_now();
        if !self.fits(WeakHandle::new(number, generation), handle, kept) {
            return None;
        }
        let count = self.copy_filled(leaf, out, filler_count)?;
        leaf.is_still(generation).then_some(count)
    }

    /// Copies full narrow nodes of the first window from a leaf to its root, but for what fills that up.
    #[inline(always)]
    fn copy_filled(
        &self,
        leaf: &'r Slot,
        out: &mut [u64],
        filler_count: impl Fn(u64) -> usize,
    ) -> Option<usize> {
        let room_count = out.len();
        let mut rest = out;
        let mut slot = leaf;
        let mut parent = simple_parent(slot, leaf.state_now())?;
        let high = WindowTable::of(self.header).high_bits(0);
        // Ends: each round takes a run off `rest`.
        while parent != 0 {
            let (room, next_rest) = rest.split_first_chunk_mut::<RUN_FRAMES>()?;
            copy_words(slot, high, room, RUN_FRAMES);
            rest = next_rest;
            slot = self.slots.get((parent as usize).wrapping_sub(1))?;
            parent = simple_parent(slot, State(slot.state.load(Ordering::Relaxed)))?;
        }
        let [.., last] = &slot.lows;
        let outermost = high | last.load(Ordering::Relaxed) >> 32;
        let count = RUN_FRAMES.saturating_sub(filler_count(outermost));
        let inner_count = room_count - rest.len();
        match rest.first_chunk_mut() {
            Some(room) => copy_words(slot, high, room, count),
            None => copy_short(slot, high, rest.get_mut(..count)?),
        }
        Some(inner_count + count)
    }
}

/// The parent's slot of a full narrow node of the first window; `None` for any other node.
#[inline(always)]
fn simple_parent(slot: &Slot, state: State) -> Option<u64> {
    // What is left of the link has no upper half where the windows are those.
    let link = slot.link.load(Ordering::Relaxed);
    let parent = link.wrapping_sub(u64::from(Windows::ALL_FIRST) << 32);
    ((state.0 & SHAPE_MASK ^ FULL) | parent >> 32 == 0).then_some(parent)
}

/// What a node has that a full narrow one of the first window has not, that is not cut.
#[inline(always)]
fn misshapen(slot: &Slot, link: u64) -> u64 {
    let state = slot.state.load(Ordering::Relaxed);
    (state ^ FULL) & (SHAPE_MASK | State::CUT) | (link >> 32 ^ u64::from(Windows::ALL_FIRST))
}

/// What a node whose frames have the upper half `high` stores otherwise than a run has it.
#[inline(always)]
fn difference(slot: &Slot, run: &Run, high: u64) -> u64 {
    let pairs = slot.lows.iter().zip(run.as_chunks::<2>().0);
    pairs.fold(0, |all, (cell, [left, right])| {
        let lows = cell.load(Ordering::Relaxed);
        all | ((high | (lows & 0xffff_ffff)) ^ left) | ((high | lows >> 32) ^ right)
    })
}

/// Copies the first `count` words of a node's run, and some more: a branch costs as much as they do.
#[inline(always)]
fn copy_words(slot: &Slot, high: u64, room: &mut Run, count: usize) {
    let pairs = room.as_chunks_mut::<2>().0;
    for (first, (cell, pair)) in (0..).step_by(2).zip(slot.lows.iter().zip(pairs)) {
        if matches!(first, 2 | 6) && first >= count {
            break;
        }
        let lows = cell.load(Ordering::Relaxed);
        *pair = [high | (lows & 0xffff_ffff), high | lows >> 32];
    }
}

/// The same where there is no room for a whole run.
#[cold]
#[inline(never)]
fn copy_short(slot: &Slot, high: u64, room: &mut [u64]) {
    let mut run = [0; RUN_FRAMES];
    copy_words(slot, high, &mut run, RUN_FRAMES);
    for (place, word) in room.iter_mut().zip(run) {
        *place = word;
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
