//! Finding and reading stacks: nothing here writes, and all of it works on a read-only mapping.
//!
//! Key types: [`Stack`], the frames of a save cut into runs from the root, and [`Found`]. A
//! reader notes the leaf's generation, reads leaf and ancestors with relaxed loads, and looks
//! at the leaf's generation again: a leaf that was not retired had all its ancestors. Frames
//! are compared decoded, word for word: a fingerprint never decides. Every hop is counted.

use crate::frame::{Run, pad};
use crate::handle::WeakHandle;
use crate::hash::Hasher;
use crate::index::home_cell;
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::state::State;
use crate::sync::Ordering;

/// The frames of one save, at most `max_frames` of them, cut into runs.
///
/// Levels count nodes from the base, mostly the root: level 0 is the outermost run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stack<'f> {
    /// The innermost frames that fill no run, padded to one; `tail_length` may be 0.
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
    pub const ROOT: Base = Base {
        number: 0,
        generation: 0,
        hash: 0,
    };
}

/// A stack from some node outwards: what a chain of nodes is compared with.
#[derive(Clone, Copy, Debug)]
struct Prefix<'f> {
    run: &'f Run,
    length: usize,
    /// The full runs outside of it, innermost first.
    outer: &'f [Run],
}

/// A node that was found in the index and compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'r> {
    pub number: u32,
    pub slot: &'r Slot,
    pub generation: u32,
    pub state: State,
}

impl Found<'_> {
    /// The stack's weak handle.
    #[inline]
    pub fn weak(&self) -> WeakHandle {
        WeakHandle::new(self.number, self.generation)
    }
}

impl<'f> Stack<'f> {
    /// Cuts what is beyond the limit at the outer end, then into runs from the root. At least
    /// one frame.
    #[inline(always)]
    pub fn new(frames: &'f [u64], max_frames: usize) -> Stack<'f> {
        let is_cut = frames.len() > max_frames;
        let frames = frames.get(..max_frames).unwrap_or(frames);
        let (tail, full) = frames.as_rchunks::<RUN_FRAMES>();
        Stack {
            tail: pad(frames, tail.len()),
            tail_length: tail.len(),
            full,
            is_cut,
            base: Base::ROOT,
        }
    }

    /// A stack of full runs only that is not cut; `None` for any other. Callers that fill their stacks
    /// up have no others: then nothing of a tail is left in what is compiled.
    #[inline(always)]
    pub fn of_full_runs(frames: &'f [u64], max_frames: usize) -> Option<Stack<'f>> {
        let (tail, full) = frames.as_rchunks::<RUN_FRAMES>();
        (tail.is_empty() && frames.len() <= max_frames).then_some(Stack {
            tail: [0; RUN_FRAMES],
            tail_length: 0,
            full,
            is_cut: false,
            base: Base::ROOT,
        })
    }

    /// A stack that is not cut, with its outermost runs left to an ancestor; `None` when nothing
    /// would be left below it. Built in place: a stack that is copied waits for its own padding.
    #[inline(always)]
    pub fn onto(frames: &'f [u64], base: Base, base_levels: usize) -> Option<Stack<'f>> {
        let (tail, full) = frames.as_rchunks::<RUN_FRAMES>();
        let full = full.get(..full.len().checked_sub(base_levels)?)?;
        if full.is_empty() && tail.is_empty() {
            return None;
        }
        Some(Stack {
            tail: pad(frames, tail.len()),
            tail_length: tail.len(),
            full,
            is_cut: false,
            base,
        })
    }

    /// How many levels end in a full node.
    pub fn full_levels(&self) -> usize {
        self.full.len()
    }

    #[inline]
    fn start(&self, hasher: &Hasher) -> u64 {
        if self.base.number == 0 {
            hasher.start(self.is_cut)
        } else {
            self.base.hash
        }
    }

    /// The level of the leaf node.
    #[inline]
    pub fn leaf_level(&self) -> usize {
        if self.tail_length == 0 {
            self.full.len().saturating_sub(1)
        } else {
            self.full.len()
        }
    }

    /// The prefix hash of the whole stack.
    #[inline]
    pub fn hash(&self, hasher: &Hasher) -> u64 {
        hasher.stack(self.start(hasher), self.full, &self.tail, self.tail_length)
    }

    /// The prefix hash at every level, root first.
    pub fn hashes(&self, hasher: &Hasher, hashes: &mut [u64]) {
        let mut places = hashes.iter_mut();
        let note = |hash| {
            if let Some(place) = places.next() {
                *place = hash;
            }
        };
        let start = self.start(hasher);
        hasher.chain(start, self.full, &self.tail, self.tail_length, note);
    }

    /// The full runs down to a level, innermost first.
    pub fn outer(&self, level: usize) -> &'f [Run] {
        let inner_count = self.full.len().saturating_sub(level + 1);
        self.full.get(inner_count..).unwrap_or_default()
    }

    /// The run at a level and how many of its words count.
    pub fn run(&self, level: usize) -> (&Run, usize) {
        self.prefix(level)
            .map_or((&self.tail, self.tail_length), |prefix| {
                (prefix.run, prefix.length)
            })
    }

    /// The stack down to its leaf.
    #[inline]
    fn whole(&self) -> Option<Prefix<'_>> {
        if self.tail_length != 0 {
            return Some(Prefix {
                run: &self.tail,
                length: self.tail_length,
                outer: self.full,
            });
        }
        let (run, outer) = self.full.split_first()?;
        Some(Prefix {
            run,
            length: RUN_FRAMES,
            outer,
        })
    }

    /// The stack down to a level.
    #[inline]
    fn prefix(&self, level: usize) -> Option<Prefix<'_>> {
        if level == self.full.len() {
            return self.whole();
        }
        let (run, outer) = self
            .full
            .get(self.full.len().checked_sub(level + 1)?..)?
            .split_first()?;
        Some(Prefix {
            run,
            length: RUN_FRAMES,
            outer,
        })
    }
}

impl<'r> Region<'r> {
    /// Finds the committed leaf of a stack if its entry is where most entries are: at home.
    #[inline(always)]
    pub fn find_home(&self, stack: &Stack<'_>, hash: u64) -> Option<Found<'r>> {
        let entry = self.first_bucket(hash as u32)?.entry(home_cell(hash));
        if !entry.is_committed_of(hash) {
            return None;
        }
        self.compare_chain(entry.slot(), stack, stack.whole()?)
    }

    /// Finds the committed node of a stack's prefix up to a level.
    pub fn find(&self, stack: &Stack<'_>, level: usize, hash: u64) -> Option<Found<'r>> {
        let pair = self.pair(hash as u32)?;
        let home = pair.first.entry(home_cell(hash));
        if home.is_committed_of(hash)
            && let Some(found) = self.compare_chain(home.slot(), stack, stack.prefix(level)?)
        {
            return Some(found);
        }
        pair.find_committed(hash, |number| self.compare_level(number, stack, level))
    }

    #[inline(never)]
    fn compare_level(&self, number: u32, stack: &Stack<'_>, level: usize) -> Option<Found<'r>> {
        self.compare_chain(number, stack, stack.prefix(level)?)
    }

    /// Compares a node and all its ancestors with a stack's prefix.
    #[inline(always)]
    fn compare_chain(
        &self,
        number: u32,
        stack: &Stack<'_>,
        prefix: Prefix<'_>,
    ) -> Option<Found<'r>> {
        let leaf = self.slot(number)?;
        self.prefetch_payload(number);
        let generation = leaf.generation_now();
        let leaf_state = leaf.state_now();
        let first_windows = self.first_windows();
        let (mut run, mut length, mut outer_runs) =
            (prefix.run, prefix.length, prefix.outer.iter());
        let (mut slot, mut state) = (leaf, leaf_state);
        // Ends: each round takes a run of the stack.
        let node = loop {
            let parent = self.compare_hop(slot, state, run, length, first_windows)?;
            let Some(next_run) = outer_runs.next() else {
                break parent;
            };
            (run, length) = (next_run, RUN_FRAMES);
            slot = self.slot(parent)?;
            state = State(slot.state.load(Ordering::Relaxed));
        };
        let is_whole = node == stack.base.number && state.has(State::CUT) == stack.is_cut;
        // The base is checked first: while the leaf lives, its ancestors live.
        (is_whole && self.is_base_there(&stack.base) && leaf.is_still(generation)).then_some(
            Found {
                number,
                slot: leaf,
                generation,
                state: leaf_state,
            },
        )
    }

    /// Whether the base is still of that life.
    #[inline]
    pub fn is_base_there(&self, base: &Base) -> bool {
        base.number == 0
            || self
                .slot(base.number)
                .is_some_and(|slot| slot.is_still(base.generation))
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
