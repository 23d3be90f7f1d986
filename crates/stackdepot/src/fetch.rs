//! Copying a stack out: nothing here writes, and all of it works on a read-only mapping.
//!
//! A reader notes the leaf's generation, reads leaf and ancestors with relaxed loads, and looks
//! at the leaf's generation again: a leaf that was not retired had all its ancestors. All nodes
//! but the leaf are full, so each one's place in the caller's buffer is known when it is met:
//! while a whole run fits there it is decoded into its place. What does not fit this way (wide
//! nodes, the end of a short buffer) is copied frame by frame.

use crate::error::FetchError;
use crate::frame::{Run, WindowTable};
use crate::handle::WeakHandle;
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::state::State;
use crate::sync::Ordering;

/// The state bits that tell a narrow node and its length.
const SHAPE_MASK: u64 = (State::STATUS_MASK & !State::SAVED_BIT) | State::WIDE | State::LENGTH_MASK;
/// What they are in a node that may be a parent.
const FULL: u64 = State::LIVE | (RUN_FRAMES as u64) << State::LENGTH_SHIFT;

/// What a fetch found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetched {
    /// How many frames are stored, also where the buffer was shorter.
    pub frame_count: usize,
    /// Whether the stack was cut at its outer end when it was saved.
    pub is_cut: bool,
}

impl<'r> Region<'r> {
    /// Copies a stack out; see `Depot::fetch`.
    #[inline]
    pub fn fetch(&self, weak: WeakHandle, out: &mut [u64]) -> Result<Fetched, FetchError> {
        match self.avx2 {
            Some(avx2) => runs::fetch(avx2, self, weak, out),
            // Models look at one of the two ways; both look at the generation alike.
            None if cfg!(loom) => self.fetch_frames(weak, out),
            None => self.fetch_words(weak, out),
        }
    }

    /// Whole runs at a time, pair by pair.
    fn fetch_words(&self, weak: WeakHandle, out: &mut [u64]) -> Result<Fetched, FetchError> {
        let first_high = || WindowTable::of(self.header).high_bits(0);
        let copy_run = |slot: &Slot, first_high: u64, room: &mut Run| {
            let link = slot.link.load(Ordering::Relaxed);
            self.decode_narrow(slot, (link >> 32) as u32, first_high, room);
            link as u32
        };
        match self.between_looks(weak, |leaf| {
            copy_runs(self, leaf, out, first_high, copy_run)
        }) {
            Some(fetched) => Ok(fetched),
            None => self.fetch_frames(weak, out),
        }
    }

    /// Copies a stack out frame by frame, whatever its nodes are and however short `out` is.
    #[inline(never)]
    fn fetch_frames(&self, weak: WeakHandle, out: &mut [u64]) -> Result<Fetched, FetchError> {
        self.between_looks(weak, |leaf| self.copy_frames(leaf, out))
            .ok_or(FetchError::Evicted)
    }

    /// Lets `copy` read from a leaf to its root between two looks at the leaf's generation; `None`
    /// when it is not that of the handle, or what is there does not hang together.
    #[inline(always)]
    fn between_looks(
        &self,
        weak: WeakHandle,
        copy: impl FnOnce(&'r Slot) -> Option<Fetched>,
    ) -> Option<Fetched> {
        let leaf = self.slot(weak.slot())?;
        if leaf.generation_now() != weak.generation() {
            return None;
        }
        copy(leaf).filter(|_| leaf.is_still(weak.generation()))
    }

    fn copy_frames(&self, leaf: &'r Slot, out: &mut [u64]) -> Option<Fetched> {
        let mut frame_count = 0;
        let mut slot = leaf;
        let mut state = leaf.state_now();
        // Ends: each round adds a frame at least, and `max_frames` bounds them.
        loop {
            let length = state.length();
            let place = frame_count;
            frame_count += length;
            if !state.is_live()
                || length == 0
                || length > RUN_FRAMES
                || frame_count > self.max_frames as usize
            {
                return None;
            }
            let link = slot.link.load(Ordering::Relaxed);
            let room = out.get_mut(place..).unwrap_or_default();
            let windows = (link >> 32) as u32;
            let run = self.decode(slot, state, windows)?;
            for (place, frame) in room.iter_mut().zip(run).take(length) {
                *place = frame;
            }
            if link as u32 == 0 {
                return Some(Fetched {
                    frame_count,
                    is_cut: state.has(State::CUT),
                });
            }
            slot = self.slot(link as u32)?;
            state = State(slot.state.load(Ordering::Relaxed));
            if state.length() != RUN_FRAMES {
                return None;
            }
        }
    }
}

/// The length of a narrow node's run.
#[inline]
fn narrow_length(state: State) -> Option<usize> {
    // One comparison: whatever is no narrow node differs in a bit that becomes a high one.
    let shortest = State::LIVE | 1 << State::LENGTH_SHIFT;
    let beyond = (state.0 & SHAPE_MASK)
        .wrapping_sub(shortest)
        .rotate_right(State::LENGTH_SHIFT);
    (beyond < RUN_FRAMES as u64).then(|| beyond as usize + 1)
}

/// Copies narrow nodes from a leaf to its root by whole runs; `None` where one is not simple.
/// `copy_run` copies a node's run, whatever its length, and answers its parent's slot; it is given
/// the upper halves that `highs` loads, which comes after the leaf: what that names is there then.
#[inline(always)]
fn copy_runs<'r, H: Copy>(
    region: &Region<'r>,
    leaf: &'r Slot,
    out: &mut [u64],
    highs: impl FnOnce() -> H,
    copy_run: impl Fn(&Slot, H, &mut Run) -> u32,
) -> Option<Fetched> {
    let mut state = leaf.state_now();
    let length = narrow_length(state)?;
    let highs = highs();
    let room_count = out.len().min(region.max_frames as usize);
    let rooms = out.get_mut(..room_count)?;
    let mut parent = copy_run(leaf, highs, rooms.first_chunk_mut()?);
    let mut rest = rooms.get_mut(length..)?;
    // Ends: each round takes a run off `rest`.
    while parent != 0 {
        let slot = region.slot(parent)?;
        state = State(slot.state.load(Ordering::Relaxed));
        if state.0 & SHAPE_MASK != FULL {
            return None;
        }
        let (room, next_rest) = rest.split_first_chunk_mut()?;
        parent = copy_run(slot, highs, room);
        rest = next_rest;
    }
    Some(Fetched {
        frame_count: room_count - rest.len(),
        is_cut: state.has(State::CUT),
    })
}

/// Whole runs at a time, in the processor's vector registers.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri))))]
#[expect(
    unsafe_code,
    reason = "calls a function that needs the processor's AVX2"
)]
mod runs {
    use super::*;
    use crate::avx2::Avx2;
    use crate::frame::{WINDOW_SHIFT, Windows};
    use crate::vector::{Highs, decode, store};

    #[inline]
    pub fn fetch(
        _: Avx2,
        region: &Region<'_>,
        weak: WeakHandle,
        out: &mut [u64],
    ) -> Result<Fetched, FetchError> {
        // SAFETY: the proof says that the processor has the instructions.
        unsafe { fetch_runs(region, weak, out) }
    }

    #[target_feature(enable = "avx2")]
    fn fetch_runs(
        region: &Region<'_>,
        weak: WeakHandle,
        out: &mut [u64],
    ) -> Result<Fetched, FetchError> {
        let first_two = || Highs::of_first_two(region.header);
        let copy_run =
            |slot: &Slot, first_two: Highs, room: &mut Run| copy_run(region, slot, first_two, room);
        match region.between_looks(weak, |leaf| {
            copy_runs(region, leaf, out, first_two, copy_run)
        }) {
            Some(fetched) => Ok(fetched),
            None => region.fetch_frames(weak, out),
        }
    }

    /// Copies a narrow node's run, whatever its length; answers its parent's slot.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn copy_run(region: &Region<'_>, slot: &Slot, first_two: Highs, room: &mut Run) -> u32 {
        let link = slot.link.load(Ordering::Relaxed);
        let windows = (link >> 32) as u32;
        let highs = if windows >> WINDOW_SHIFT == 0 {
            first_two
        } else {
            first_two.with_own(region.header, Windows(windows))
        };
        store(&decode(slot, highs), room);
        link as u32
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))))]
mod runs {
    use super::*;
    use crate::avx2::Avx2;

    /// Never called.
    pub fn fetch(
        avx2: Avx2,
        _: &Region<'_>,
        _: WeakHandle,
        _: &mut [u64],
    ) -> Result<Fetched, FetchError> {
        match avx2 {}
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
