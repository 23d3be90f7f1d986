//! `save`: finds a stack, or adds the nodes that are missing below its deepest stored ancestor.
//!
//! The hit path is here and in `lookup.rs`: one hash, one probe, one comparison, no write
//! unless a hold or the recency changes. A miss looks for the deepest stored ancestor from the
//! leaf's side, holds it, and adds the rest from there, each new node's first reference being
//! the hand over to the next. A save that fails half-way keeps what it made, as cold nodes.

use core::ops::Range;

use crate::error::{HoldError, SaveError};
use crate::frame::Run;
use crate::handle::{Tick, WeakHandle};
use crate::hash::Hasher;
use crate::hold::{Hold, is_stamped};
use crate::layout::{RUN_FRAMES, Region};
use crate::lookup::{Found, Stack};
use crate::publish::NewNode;
use crate::state::State;
use crate::stats::count;

/// Most nodes of a stack.
pub(crate) const MOST_LEVELS: usize = (crate::config::MOST_FRAMES as usize).div_ceil(RUN_FRAMES);

/// Nodes of a stack that is not long.
const FEW_LEVELS: usize = 8;

/// Where a save ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Saved {
    pub weak: WeakHandle,
    pub from: Tick,
}

impl<'r> Region<'r> {
    /// Finds or stores a stack and holds it as asked.
    #[inline(never)]
    pub fn save(&self, hasher: &Hasher, frames: &[u64], hold: Hold) -> Result<Saved, SaveError> {
        self.check_hold(hold)?;
        if frames.is_empty() {
            return Err(SaveError::Empty);
        }
        let most_frames = self.max_frames as usize;
        if let Some(stack) = Stack::of_full_runs(frames, most_frames) {
            let hash = stack.hash(hasher);
            return self
                .save_home(&stack, hash, hold)
                .unwrap_or_else(|| self.save_displaced_frames(hasher, frames, hash, hold));
        }
        let stack = Stack::new(frames, most_frames);
        if stack.is_cut {
            count(&self.header.counters.truncated);
        }
        let hash = stack.hash(hasher);
        self.save_hashed(hasher, &stack, hash, hold)
            .unwrap_or(Err(SaveError::Contended))
    }

    /// The save of full runs that are not at home in the index. Cuts them again, so that a hit has
    /// its stack in registers.
    #[inline(never)]
    fn save_displaced_frames(
        &self,
        hasher: &Hasher,
        frames: &[u64],
        hash: u64,
        hold: Hold,
    ) -> Result<Saved, SaveError> {
        let stack = Stack::of_full_runs(frames, self.max_frames as usize);
        stack
            .and_then(|stack| self.save_displaced(hasher, &stack, hash, hold))
            .unwrap_or(Err(SaveError::Contended))
    }

    /// The save of a stack that is at home in the index; `None` for any other.
    #[inline(always)]
    fn save_home(
        &self,
        stack: &Stack<'_>,
        hash: u64,
        hold: Hold,
    ) -> Option<Result<Saved, SaveError>> {
        self.save_found(&self.find_home(stack, hash)?, hold)
    }

    /// Finds or adds a stack of which the hash is known; `None` when its base is gone.
    #[inline(always)]
    pub fn save_hashed(
        &self,
        hasher: &Hasher,
        stack: &Stack<'_>,
        hash: u64,
        hold: Hold,
    ) -> Option<Result<Saved, SaveError>> {
        self.save_home(stack, hash, hold)
            .or_else(|| self.save_displaced(hasher, stack, hash, hold))
    }

    /// The save of a stack that is not at home in the index, mostly because it is new.
    #[inline(never)]
    fn save_displaced(
        &self,
        hasher: &Hasher,
        stack: &Stack<'_>,
        hash: u64,
        hold: Hold,
    ) -> Option<Result<Saved, SaveError>> {
        self.save_hit(stack, hash, hold).or_else(|| {
            self.prefetch_claim();
            self.save_missing(hasher, stack, stack.leaf_level(), hold, |_, _| None)
        })
    }

    /// Holds a stack that was saved before as a save of it would; see `Depot::hold`.
    #[inline(always)]
    pub fn hold(&self, weak: WeakHandle, hold: Hold) -> Result<Saved, HoldError> {
        if self.check_hold(hold).is_err() {
            return Err(HoldError::Disabled);
        }
        let number = weak.slot();
        let slot = self.slot(number).ok_or(HoldError::Evicted)?;
        if hold.is_reference() {
            self.prefetch_payload(number);
        }
        let generation = slot.generation_now();
        let state = slot.state_now();
        if generation != weak.generation() || !state.is_saved() {
            return Err(HoldError::Evicted);
        }
        self.hold_found(
            &Found {
                number,
                slot,
                generation,
                state,
            },
            hold,
        )
    }

    /// The same, and adds to the payload where the hold counts a reference.
    #[inline(always)]
    pub fn hold_with_payload(
        &self,
        weak: WeakHandle,
        hold: Hold,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<Saved, HoldError> {
        let saved = self.hold(weak, hold)?;
        if hold.is_reference() {
            self.add_words(weak.slot(), first_word, deltas);
        }
        Ok(saved)
    }

    /// Refuses holds that were switched off.
    #[inline]
    pub fn check_hold(&self, hold: Hold) -> Result<(), SaveError> {
        let is_off =
            (hold.is_reference() && !self.references) || (hold.is_lease() && self.lease_ticks == 0);
        if is_off {
            Err(SaveError::Disabled)
        } else {
            Ok(())
        }
    }

    /// The save of a stack that is stored; `None` when it is not (any more).
    fn save_hit(
        &self,
        stack: &Stack<'_>,
        hash: u64,
        hold: Hold,
    ) -> Option<Result<Saved, SaveError>> {
        self.save_found(&self.find(stack, stack.leaf_level(), hash)?, hold)
    }

    /// Holds a stack that was found; `None` when it was retired meanwhile.
    #[inline(always)]
    pub fn save_found(&self, found: &Found<'r>, hold: Hold) -> Option<Result<Saved, SaveError>> {
        match self.hold_found(found, hold) {
            Ok(saved) => Some(Ok(saved)),
            Err(HoldError::Evicted) => None,
            Err(HoldError::Saturated) => Some(Err(SaveError::Saturated)),
            Err(_) => Some(Err(SaveError::Contended)),
        }
    }

    /// Takes the hold on a node that was found. `Evicted`: it was retired meanwhile.
    #[inline(always)]
    fn hold_found(&self, found: &Found<'r>, hold: Hold) -> Result<Saved, HoldError> {
        let weak = found.weak();
        // What is pinned stays so: the flag says all.
        let is_to_pin = hold == Hold::Forever && !found.state.has(State::PINNED);
        if hold.is_reference() || is_to_pin || !found.state.is_saved() {
            return self.hold_by_reference(found, hold);
        }
        if hold.is_lease() {
            let from = self.lease(found.slot, found.generation, found.state)?;
            return Ok(Saved { weak, from });
        }
        if !found.state.has(State::VISITED) {
            found.slot.mark_visited(found.state);
        }
        Ok(Saved {
            weak,
            from: Tick(0),
        })
    }

    /// The hit that writes anyway: takes a reference, and keeps it if one was asked for.
    #[inline]
    fn hold_by_reference(&self, found: &Found<'r>, hold: Hold) -> Result<Saved, HoldError> {
        let before = found.slot.add_references(1);
        // As nearly every one: there is nothing else to write.
        let is_settled = hold.is_reference()
            && before.is_saved()
            && before.references() < State::REF_LIMIT
            && (self.lease_ticks != 0 || before.has(State::VISITED));
        if is_settled && found.slot.is_still(found.generation) {
            let weak = found.weak();
            if !hold.is_lease() {
                return Ok(Saved {
                    weak,
                    from: Tick(0),
                });
            }
            // Behind the fence of `is_still`, so that the clock is read after the state.
            let now = self.now();
            if is_stamped(before, now) {
                return Ok(Saved { weak, from: now });
            }
        }
        self.hold_added(found, before, hold)
    }

    /// The same where there is more to write, or nothing to be held. `before`: the state without the
    /// reference.
    #[inline(never)]
    fn hold_added(&self, found: &Found<'r>, before: State, hold: Hold) -> Result<Saved, HoldError> {
        let state = self.keep_added(found.number, found.slot, found.generation, before)?;
        if self.lease_ticks == 0 && !state.has(State::VISITED) {
            found.slot.mark_visited(state);
        }
        self.hold_acquired(&Found { state, ..*found }, hold)
            .ok_or(HoldError::Contended)
    }

    /// Turns the caller's reference on a node into a saved stack held as asked; `None` when its
    /// lease could not be stamped, and then nothing is held. `held.state` was seen under the reference.
    #[inline]
    fn hold_acquired(&self, held: &Found<'r>, hold: Hold) -> Option<Saved> {
        if hold == Hold::Forever && held.slot.keep(held.state) {
            if !held.state.is_saved() {
                count(&self.header.counters.new_stacks);
            }
            return Some(Saved {
                weak: held.weak(),
                from: Tick(0),
            });
        }
        if !held.state.is_saved() && held.slot.mark_saved() {
            count(&self.header.counters.new_stacks);
        }
        if hold == Hold::Forever {
            held.slot.pin();
        }
        let weak = held.weak();
        let mut from = Some(Tick(0));
        if hold.is_lease() {
            from = self.lease(held.slot, held.generation, held.state).ok();
        }
        if !hold.is_reference() || from.is_none() {
            self.release(held.number);
        }
        Some(Saved { weak, from: from? })
    }

    /// Adds the leaf of a whole stack where nothing else is missing, as of most new stacks; `None` when
    /// more is. `find` as in `save_missing`.
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))),
        expect(dead_code, reason = "for hits in vector registers")
    )]
    #[inline]
    pub fn save_leaf(
        &self,
        stack: &Stack<'_>,
        hash: u64,
        parent_hash: u64,
        hold: Hold,
        find: impl Fn(&[Run], u64) -> Option<Found<'r>>,
    ) -> Option<Result<Saved, SaveError>> {
        let leaf_level = stack.leaf_level();
        let find = |level| {
            find(stack.outer(level), parent_hash).or_else(|| self.find(stack, level, parent_hash))
        };
        let parent = match leaf_level.checked_sub(1) {
            Some(level) => self.hold_deepest(level..leaf_level, find)?.0,
            None => 0,
        };
        let leaf = self.add_level(stack, leaf_level, hash, parent);
        Some(leaf.and_then(|leaf| self.hold_inserted(leaf, hold)))
    }

    /// Adds what is missing of a stack, which are the levels from `missing_from` on at least; `None`
    /// when the stack's base is gone. `find`: a faster way to the node of full runs and their hash,
    /// which need not find all.
    #[cold]
    #[inline(never)]
    pub fn save_missing(
        &self,
        hasher: &Hasher,
        stack: &Stack<'_>,
        missing_from: usize,
        hold: Hold,
        find: impl Fn(&[Run], u64) -> Option<Found<'r>>,
    ) -> Option<Result<Saved, SaveError>> {
        let (mut few, mut many);
        // Most stacks are short, and zeroing room for the longest takes as long as a node.
        let hashes: &mut [u64] = if stack.leaf_level() < FEW_LEVELS {
            few = [0; FEW_LEVELS];
            &mut few
        } else {
            many = [0; MOST_LEVELS];
            &mut many
        };
        stack.hashes(hasher, hashes);
        for hash in hashes.iter().take(stack.leaf_level() + 1) {
            self.prefetch_pair(*hash as u32);
        }
        let find = |level| {
            let hash = *hashes.get(level)?;
            find(stack.outer(level), hash).or_else(|| self.find(stack, level, hash))
        };
        let (held, first_missing) = match self.hold_deepest(0..missing_from, find) {
            Some(deepest) => deepest,
            None => (self.hold_base(stack)?, 0),
        };
        Some(self.add_levels(stack, hashes, held, first_missing, hold))
    }

    /// Adds the levels below an ancestor that the caller holds; that hold is used up.
    fn add_levels(
        &self,
        stack: &Stack<'_>,
        hashes: &[u64],
        ancestor: u32,
        first_missing: usize,
        hold: Hold,
    ) -> Result<Saved, SaveError> {
        let mut held = ancestor;
        for (level, hash) in hashes
            .iter()
            .enumerate()
            .take(stack.leaf_level() + 1)
            .skip(first_missing)
        {
            held = self.add_level(stack, level, *hash, held)?;
        }
        self.hold_inserted(held, hold)
    }

    /// Adds a level below a node that the caller holds; that hold is used up.
    #[inline]
    fn add_level(
        &self,
        stack: &Stack<'_>,
        level: usize,
        hash: u64,
        parent: u32,
    ) -> Result<u32, SaveError> {
        let (run, length) = stack.run(level);
        let node = NewNode {
            parent,
            hash,
            run,
            length,
            is_cut: stack.is_cut,
        };
        self.insert_node(&node)
            .inspect_err(|error| self.count_refusal(*error))
    }

    /// Turns the caller's reference on a leaf that was inserted into the hold that was asked for.
    #[inline]
    pub fn hold_inserted(&self, number: u32, hold: Hold) -> Result<Saved, SaveError> {
        let slot = self.slot(number).ok_or(SaveError::Contended)?;
        // Held, so its generation stands still.
        let leaf = Found {
            number,
            slot,
            generation: slot.generation_now(),
            state: slot.state_now(),
        };
        self.hold_acquired(&leaf, hold).ok_or(SaveError::Contended)
    }

    /// Holds the deepest node that `find` finds at one of those levels, searched from the leaf's side;
    /// answers its slot and the level below it.
    #[inline]
    pub fn hold_deepest(
        &self,
        levels: Range<usize>,
        find: impl Fn(usize) -> Option<Found<'r>>,
    ) -> Option<(u32, usize)> {
        levels.rev().find_map(|level| {
            let found = find(level)?;
            self.acquire_slot(found.number, found.slot, found.generation)
                .ok()?;
            Some((found.number, level + 1))
        })
    }

    /// The slot that level 0 hangs on, held; `None` when it is gone.
    fn hold_base(&self, stack: &Stack<'_>) -> Option<u32> {
        let base = &stack.base;
        if base.number != 0 {
            self.acquire_node(base.number, base.generation).ok()?;
        }
        Some(base.number)
    }

    /// Counts a refusal that no lower layer counted.
    pub fn count_refusal(&self, error: SaveError) {
        let counters = &self.header.counters;
        match error {
            SaveError::Full => count(&counters.full),
            SaveError::Contended => count(&counters.contended),
            SaveError::Crowded => count(&counters.crowded),
            SaveError::Saturated | SaveError::Empty | SaveError::Disabled => {}
        }
    }
}
