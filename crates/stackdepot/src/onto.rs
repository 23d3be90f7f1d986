//! `save_onto`: saves that start from an ancestor which the caller already knows.
//!
//! Key type: [`Ancestor`], minted only by saves of this depot: the weak handle of a full node,
//! its prefix hash and its depth. An unwinder that has proven the outer frames unchanged since
//! the thread's last stack passes the token of the deepest unchanged node; then only the frames
//! inside of it are hashed and compared. A token that no longer fits (evicted, cut stacks, too
//! deep) costs a full save, never a wrong answer: its generation is checked, and the low half
//! of its hash against the node's.

use crate::error::SaveError;
use crate::handle::WeakHandle;
use crate::hash::Hasher;
use crate::hit;
use crate::hold::Hold;
use crate::insert::{MOST_LEVELS, Saved};
use crate::layout::{RUN_FRAMES, Region};
use crate::lookup::{Base, Stack};
use crate::sync::{FAULTS, Ordering};

/// Levels up to which their hashes are collected in a small array: zeroing a large one costs more
/// than hashing them.
const FEW_LEVELS: usize = 4;

/// A full node of a stored stack, as a start for later saves in the same depot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ancestor {
    weak: WeakHandle,
    hash: u64,
    depth: u32,
}

impl Ancestor {
    /// How many of the outermost frames the node and its own ancestors hold: a multiple of
    /// [`RUN_FRAMES`]. These frames must be unchanged in a stack that is saved onto it.
    #[inline]
    pub fn depth(&self) -> usize {
        self.depth as usize
    }
}

impl Region<'_> {
    /// See `Depot::save_onto`.
    #[inline]
    pub fn save_onto(
        &self,
        hasher: &Hasher,
        ancestor: Option<&Ancestor>,
        frames: &[u64],
        hold: Hold,
        trail: &mut [Option<Ancestor>],
    ) -> Result<Saved, SaveError> {
        // What this finds has no full run inside of the ancestor, so no token is new.
        if let Some(aes) = hasher.aes
            && !FAULTS
            && let Some(ancestor) = ancestor
            && let Some(answer) = hit::save_onto(aes, self, hasher, ancestor, frames, hold)
        {
            return answer;
        }
        self.save_onto_portably(hasher, ancestor, frames, hold, trail)
    }

    #[inline(never)]
    fn save_onto_portably(
        &self,
        hasher: &Hasher,
        ancestor: Option<&Ancestor>,
        frames: &[u64],
        hold: Hold,
        trail: &mut [Option<Ancestor>],
    ) -> Result<Saved, SaveError> {
        self.check_hold(hold)?;
        if frames.is_empty() {
            return Err(SaveError::Empty);
        }
        if frames.len() > self.max_frames as usize {
            // Its runs begin at the cut, so they line up with no other stack's.
            trail.fill(None);
            return self.save(hasher, frames, hold);
        }
        if let Some(ancestor) = ancestor
            && let Some(base) = self.base_at(ancestor)
            && let levels = ancestor.depth() / RUN_FRAMES
            && let Some(stack) = Stack::onto(frames, base, levels)
            && let Some(answer) = self.save_traced(hasher, &stack, levels, hold, trail)
        {
            return answer;
        }
        self.save_whole(hasher, frames, hold, trail)
    }

    /// The save that has no ancestor to start from.
    #[inline(never)]
    fn save_whole(
        &self,
        hasher: &Hasher,
        frames: &[u64],
        hold: Hold,
        trail: &mut [Option<Ancestor>],
    ) -> Result<Saved, SaveError> {
        let whole = Stack::new(frames, self.max_frames as usize);
        self.save_traced(hasher, &whole, 0, hold, trail)
            .unwrap_or(Err(SaveError::Contended))
    }

    /// The node of a token, when the token still fits.
    #[inline]
    pub fn base_at(&self, ancestor: &Ancestor) -> Option<Base> {
        let slot = self.slot(ancestor.weak.slot())?;
        let is_same = slot.generation_now() == ancestor.weak.generation()
            && slot.hash.load(Ordering::Relaxed) == ancestor.hash as u32
            && slot.state_now().length() == RUN_FRAMES;
        is_same.then_some(Base {
            number: ancestor.weak.slot(),
            generation: ancestor.weak.generation(),
            hash: ancestor.hash,
        })
    }

    /// Saves a stack and writes the tokens of its full levels; `None` when its base is gone.
    #[inline]
    fn save_traced(
        &self,
        hasher: &Hasher,
        stack: &Stack<'_>,
        base_levels: usize,
        hold: Hold,
        trail: &mut [Option<Ancestor>],
    ) -> Option<Result<Saved, SaveError>> {
        match stack.full_levels() {
            // The base is the deepest full node: no token is new.
            0 => self.save_hashed(hasher, stack, stack.hash(hasher), hold),
            1..FEW_LEVELS => {
                self.save_levels::<FEW_LEVELS>(hasher, stack, base_levels, hold, trail)
            }
            _ => self.save_levels::<MOST_LEVELS>(hasher, stack, base_levels, hold, trail),
        }
    }

    /// The same for a stack of at most `LEVELS` levels below its base.
    #[inline(never)]
    fn save_levels<const LEVELS: usize>(
        &self,
        hasher: &Hasher,
        stack: &Stack<'_>,
        base_levels: usize,
        hold: Hold,
        trail: &mut [Option<Ancestor>],
    ) -> Option<Result<Saved, SaveError>> {
        let mut hashes = [0; LEVELS];
        stack.hashes(hasher, &mut hashes);
        let leaf_hash = hashes.get(stack.leaf_level()).copied().unwrap_or(0);
        let answer = self.save_hashed(hasher, stack, leaf_hash, hold)?;
        let new_trail = trail.get_mut(base_levels..).unwrap_or(&mut []);
        let trail_length = new_trail.len().min(stack.full_levels());
        let new_trail = new_trail.get_mut(..trail_length).unwrap_or(&mut []);
        new_trail.fill(None);
        if let Ok(saved) = answer {
            self.trace(stack, base_levels, saved.weak, &hashes, new_trail);
        }
        Some(answer)
    }

    /// Walks from the leaf to the base and notes each full node; the trail is as long as there are.
    fn trace(
        &self,
        stack: &Stack<'_>,
        base_levels: usize,
        leaf: WeakHandle,
        hashes: &[u64],
        trail: &mut [Option<Ancestor>],
    ) {
        let mut number = leaf.slot();
        for level in (0..=stack.leaf_level()).rev() {
            let Some(slot) = self.slot(number) else { break };
            if let (Some(place), Some(hash)) = (trail.get_mut(level), hashes.get(level)) {
                let weak = WeakHandle::new(number, slot.generation_now());
                *place = Some(Ancestor {
                    weak,
                    hash: *hash,
                    depth: ((base_levels + level + 1) * RUN_FRAMES) as u32,
                });
            }
            number = slot.link.load(Ordering::Relaxed) as u32;
        }
        // A leaf that was evicted meanwhile says nothing about its ancestors.
        if self
            .slot(leaf.slot())
            .is_none_or(|slot| !slot.is_still(leaf.generation()))
        {
            trail.fill(None);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
