//! Finding and reading stacks: nothing here writes, and all of it works on a read-only mapping.
//!
//! Key types: [`Stack`], the frames of a save cut into runs from the root, and [`Found`]. A
//! reader notes the leaf's generation, reads leaf and ancestors with relaxed loads, and looks
//! at the leaf's generation again: a leaf that was not retired had all its ancestors. Frames
//! are compared decoded, word for word: a fingerprint never decides. Every hop is counted.

use crate::depot::Fetched;
use crate::error::FetchError;
use crate::frame::{MASKS, Run, WindowTable, Windows, pad};
use crate::handle::WeakHandle;
use crate::hash::Hasher;
use crate::index::Entry;
use crate::layout::{Bucket, RUN_FRAMES, Region, Slot};
use crate::state::{State, Status};
use crate::sync::Ordering;

/// The frames of one save, at most `max_frames` of them, cut into runs.
///
/// Levels count nodes from the base, mostly the root: level 0 is the outermost run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack<'f> {
    /// The innermost frames, of which the first `tail_length` are a run of their own.
    tail: Run,
    tail_length: usize,
    /// Full runs, innermost first.
    full: &'f [Run],
    pub is_cut: bool,
    /// Where the levels begin: above it nothing is hashed or compared.
    pub base: Base,
}

/// The node that a stack's level 0 hangs on: the root, or an ancestor that the caller knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Base {
    /// The ancestor's slot; 0 for the root.
    pub number: u32,
    pub generation: u32,
    /// The ancestor's prefix hash; without meaning for the root.
    pub hash: u64,
}

impl Base {
    /// No ancestor.
    pub const ROOT: Base = Base { number: 0, generation: 0, hash: 0 };
}

/// A node that was found in the index and compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'r> {
    pub number: u32,
    pub slot: &'r Slot,
    pub generation: u32,
    pub state: State,
}

impl<'f> Stack<'f> {
    /// Cuts what is beyond the limit at the outer end, then into runs from the root.
    #[inline]
    pub fn new(frames: &'f [u64], max_frames: usize) -> Option<Stack<'f>> {
        let is_cut = frames.len() > max_frames;
        let frames = frames.get(..max_frames).unwrap_or(frames);
        if frames.is_empty() {
            return None;
        }
        let (tail, full) = frames.as_rchunks::<RUN_FRAMES>();
        // Ten words are there in nearly every stack: then no copy of variable length.
        let padded = frames.first_chunk::<RUN_FRAMES>().copied().unwrap_or_else(|| pad(tail));
        Some(Stack { tail: padded, tail_length: tail.len(), full, is_cut, base: Base::ROOT })
    }

    /// The same stack, with its outermost runs left to an ancestor; `None` when nothing would
    /// be left below it.
    pub fn onto(self, base: Base, base_levels: usize) -> Option<Stack<'f>> {
        let full = self.full.get(..self.full.len().checked_sub(base_levels)?)?;
        if self.is_cut || (full.is_empty() && self.tail_length == 0) {
            return None;
        }
        Some(Stack { full, base, ..self })
    }

    /// How many levels end in a full node.
    pub fn full_levels(&self) -> usize {
        self.full.len()
    }

    #[inline]
    fn start(&self, hasher: &Hasher) -> u64 {
        if self.base.number == 0 { hasher.start(self.is_cut) } else { self.base.hash }
    }

    /// The level of the leaf node.
    #[inline]
    pub fn leaf_level(&self) -> usize {
        if self.tail_length == 0 { self.full.len() - 1 } else { self.full.len() }
    }

    /// The prefix hash of the whole stack.
    #[inline]
    pub fn hash(&self, hasher: &Hasher) -> u64 {
        let mut hash = self.start(hasher);
        for run in self.full.iter().rev() {
            hash = hasher.full(hash, run);
        }
        if self.tail_length == 0 { hash } else { hasher.partial(hash, &self.tail, self.tail_length) }
    }

    /// The prefix hash at every level, root first.
    pub fn hashes(&self, hasher: &Hasher, hashes: &mut [u64]) {
        let mut hash = self.start(hasher);
        for (place, run) in hashes.iter_mut().zip(self.full.iter().rev()) {
            hash = hasher.full(hash, run);
            *place = hash;
        }
        if let (Some(place), true) = (hashes.get_mut(self.full.len()), self.tail_length != 0) {
            *place = hasher.partial(hash, &self.tail, self.tail_length);
        }
    }

    /// The run at a level and how many of its words count.
    pub fn run(&self, level: usize) -> (Run, usize) {
        match self.full.len().checked_sub(level + 1).and_then(|index| self.full.get(index)) {
            Some(run) => (*run, RUN_FRAMES),
            None => (pad(self.tail.get(..self.tail_length).unwrap_or(&[])), self.tail_length),
        }
    }

    /// Full runs from a level down to the root.
    #[inline]
    fn full_from(&self, level: usize) -> &'f [Run] {
        self.full.len().checked_sub(level + 1).and_then(|index| self.full.get(index..)).unwrap_or(self.full)
    }
}

/// The state bits that a node of a run must have, whatever its references, lease and use.
const SHAPE_MASK: u64 = (State::STATUS_MASK & !State::SAVED_BIT) | State::LENGTH_MASK;

#[inline]
const fn shape(length: usize) -> u64 {
    State::LIVE | (length as u64) << State::LENGTH_SHIFT
}

impl<'r> Region<'r> {
    /// Finds the committed node of a stack's prefix up to a level.
    #[inline]
    pub fn find(&self, stack: &Stack<'_>, level: usize, hash: u64) -> Option<Found<'r>> {
        let first = self.first_bucket(hash as u32)?;
        self.find_in(first, stack, level, hash).or_else(|| self.find_in(self.pair(hash as u32)?.second, stack, level, hash))
    }

    #[inline]
    fn find_in(&self, bucket: &Bucket, stack: &Stack<'_>, level: usize, hash: u64) -> Option<Found<'r>> {
        let mut matches = bucket.matches(hash);
        while matches != 0 {
            let entry: Entry = bucket.entry(matches.trailing_zeros());
            matches &= matches - 1;
            if let Some(found) = self.compare_chain(entry.slot(), stack, level) {
                return Some(found);
            }
        }
        None
    }

    /// Compares a node and all its ancestors with a stack's prefix up to a level.
    #[inline]
    fn compare_chain(&self, number: u32, stack: &Stack<'_>, level: usize) -> Option<Found<'r>> {
        let leaf = self.slot(number)?;
        let generation = leaf.generation_now();
        let leaf_state = leaf.state_now();
        let (mut node, mut state) = (number, leaf_state);
        if level == stack.full.len() {
            let mask = MASKS.get(stack.tail_length)?;
            node = self.compare_hop(leaf, state, &stack.tail, stack.tail_length, mask)?;
        }
        for run in stack.full_from(level) {
            let slot = self.slot(node)?;
            state = State(slot.state.load(Ordering::Relaxed));
            node = self.compare_hop(slot, state, run, RUN_FRAMES, &MASKS[RUN_FRAMES])?;
        }
        let is_whole = node == stack.base.number && state.has(State::CUT) == stack.is_cut;
        // The base is checked first: while the leaf lives, its ancestors live.
        (is_whole && self.is_base_there(&stack.base) && leaf.is_still(generation))
            .then_some(Found { number, slot: leaf, generation, state: leaf_state })
    }

    #[inline]
    fn is_base_there(&self, base: &Base) -> bool {
        base.number == 0 || self.slot(base.number).is_some_and(|slot| slot.is_still(base.generation))
    }

    /// Compares one node with a run; on equality answers its parent's slot, 0 at the root.
    #[inline(always)]
    fn compare_hop(&self, slot: &Slot, state: State, run: &Run, length: usize, mask: &Run) -> Option<u32> {
        let link = slot.link.load(Ordering::Relaxed);
        self.equals(slot, state, (link >> 32) as u32, run, length, mask).then_some(link as u32)
    }

    /// Whether a node's decoded frames are those of a run.
    #[inline(always)]
    pub fn equals(&self, slot: &Slot, state: State, windows: u32, run: &Run, length: usize, mask: &Run) -> bool {
        if state.0 & SHAPE_MASK != shape(length) {
            return false;
        }
        if state.has(State::WIDE) {
            return self.equals_wide(slot, windows, run, mask);
        }
        let table = WindowTable::of(self.header);
        if let Some(high) = table.shared(Windows(windows)) {
            return equals_in_window(slot, high, run, mask);
        }
        let highs = table.selected(Windows(windows));
        let mut selectors = windows;
        let mut difference = 0;
        for ((cell, pair), mask) in slot.lows.iter().zip(run.as_chunks::<2>().0).zip(mask.as_chunks::<2>().0) {
            let lows = cell.load(Ordering::Relaxed);
            let first = highs.get(selectors as usize & 3).copied().unwrap_or(0) | (lows & 0xffff_ffff);
            let second = highs.get(selectors as usize >> 2 & 3).copied().unwrap_or(0) | lows >> 32;
            difference |= ((first ^ pair[0]) & mask[0]) | ((second ^ pair[1]) & mask[1]);
            selectors >>= 4;
        }
        difference == 0
    }

    #[cold]
    fn equals_wide(&self, slot: &Slot, ext: u32, run: &Run, mask: &Run) -> bool {
        let Some(ext) = self.slot(ext) else { return false };
        let mut stored = [0; RUN_FRAMES];
        join(slot, ext, &mut stored);
        stored.iter().zip(run).zip(mask).all(|((stored, frame), mask)| (stored ^ frame) & mask == 0)
    }

    /// Copies a stack out; see `Depot::fetch`.
    pub fn fetch(&self, weak: WeakHandle, out: &mut [u64]) -> Result<Fetched, FetchError> {
        let leaf = self.slot(weak.slot()).ok_or(FetchError::Evicted)?;
        if leaf.generation_now() != weak.generation() {
            return Err(FetchError::Evicted);
        }
        let fetched = self.copy_chain(leaf, out).ok_or(FetchError::Evicted)?;
        if leaf.is_still(weak.generation()) { Ok(fetched) } else { Err(FetchError::Evicted) }
    }

    /// Copies what hangs together from a leaf to a root; `None` where it does not.
    fn copy_chain(&self, leaf: &'r Slot, out: &mut [u64]) -> Option<Fetched> {
        let mut frame_count = 0;
        let mut slot = leaf;
        let mut state = leaf.state_now();
        // Ends: each round adds a frame at least, and `max_frames` bounds them.
        loop {
            let length = state.length();
            frame_count += length;
            if !state.is_live() || length == 0 || length > RUN_FRAMES || frame_count > self.max_frames as usize {
                return None;
            }
            let link = slot.link.load(Ordering::Relaxed);
            let run = self.decode(slot, state, (link >> 32) as u32)?;
            for (place, frame) in out.iter_mut().skip(frame_count - length).zip(run).take(length) {
                *place = frame;
            }
            if link as u32 == 0 {
                return Some(Fetched { frame_count, is_cut: state.has(State::CUT) });
            }
            slot = self.slot(link as u32)?;
            state = State(slot.state.load(Ordering::Relaxed));
            if state.length() != RUN_FRAMES {
                return None;
            }
        }
    }

    #[inline]
    fn decode(&self, slot: &Slot, state: State, windows: u32) -> Option<Run> {
        let mut run = [0; RUN_FRAMES];
        if state.has(State::WIDE) {
            let ext = self.slot(windows)?;
            if State(ext.state.load(Ordering::Relaxed)).status() != Status::Ext {
                return None;
            }
            join(slot, ext, &mut run);
            return Some(run);
        }
        let highs = WindowTable::of(self.header).selected(Windows(windows));
        let mut selectors = windows;
        for (cell, pair) in slot.lows.iter().zip(run.as_chunks_mut::<2>().0) {
            let lows = cell.load(Ordering::Relaxed);
            pair[0] = highs.get(selectors as usize & 3).copied().unwrap_or(0) | (lows & 0xffff_ffff);
            pair[1] = highs.get(selectors as usize >> 2 & 3).copied().unwrap_or(0) | lows >> 32;
            selectors >>= 4;
        }
        Some(run)
    }
}

/// The common case of `Region::equals`: all frames have the same upper half.
#[inline(always)]
fn equals_in_window(slot: &Slot, high: u64, run: &Run, mask: &Run) -> bool {
    let (mut low_difference, mut high_difference) = (0, 0);
    for ((cell, pair), mask) in slot.lows.iter().zip(run.as_chunks::<2>().0).zip(mask.as_chunks::<2>().0) {
        let (first, second) = (pair[0] & mask[0], pair[1] & mask[1]);
        low_difference |= cell.load(Ordering::Relaxed) ^ (second << 32 | (first & 0xffff_ffff));
        high_difference |= ((pair[0] ^ high) & mask[0]) | ((pair[1] ^ high) & mask[1]);
    }
    low_difference | high_difference >> 32 == 0
}

/// Joins the halves of a wide node.
fn join(slot: &Slot, ext: &Slot, run: &mut Run) {
    for ((low, high), pair) in slot.lows.iter().zip(&ext.lows).zip(run.as_chunks_mut::<2>().0) {
        let (low, high) = (low.load(Ordering::Relaxed), high.load(Ordering::Relaxed));
        pair[0] = high << 32 | (low & 0xffff_ffff);
        pair[1] = (high >> 32) << 32 | low >> 32;
    }
}
