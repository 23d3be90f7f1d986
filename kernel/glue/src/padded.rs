// SPDX-License-Identifier: GPL-2.0 OR MIT
//! Stacks as the core gets them here: filled up at the outer end, so that their runs of ten begin at the leaf.
//!
//! The core cuts runs from the root, and what is left over is the leaf's. A kernel's stacks have ten to
//! twenty frames, of which the outermost few are shared by many (how system calls and kernel threads
//! begin) and the rest by none. With the rest in one full node and the shared few in another, they take 1.6
//! nodes each, not 2.0. The words that fill up say how many they are; a stack that needs none, but
//! whose outermost word looks like one, gets ten.
#![expect(
    unsafe_code,
    reason = "a buffer that is not zeroed first, for every save needs one"
)]

use core::mem::MaybeUninit;
use stackdepot::RUN_FRAMES;

/// Most frames of a stack.
pub const MOST_FRAMES: usize = 64;
/// Most words of a stack with what fills it up.
pub const MOST_WORDS: usize = padded_length(MOST_FRAMES);
/// Frames that are copied at once: more, and the compiler calls a function for it, or repeats a slow instruction.
const HALF: usize = RUN_FRAMES / 2;
/// In the lower half of a filling word: how many there are, 1 to ten.
const COUNT_MASK: u32 = 0xf;
/// In the lower half of a filling word: the stack was cut.
const CUT: u32 = 0x10;
const UPPER_HALF: u64 = !0 << 32;

/// The most words that so many frames take.
pub const fn padded_length(frame_count: usize) -> usize {
    (frame_count / RUN_FRAMES + 1) * RUN_FRAMES
}

/// Whether a word at the outer end would be taken for a filling one.
#[inline(always)]
const fn is_like_filler(word: u64) -> bool {
    word as u32 <= COUNT_MASK | CUT
}

/// What fills up a stack: in the window of its outermost frame, which is one that the root has anyway.
#[inline(always)]
fn filler(outermost: u64, count: usize, is_cut: bool) -> u64 {
    let mark = count as u32 | if is_cut { CUT } else { 0 };
    (outermost & UPPER_HALF) | u64::from(mark)
}

/// The runs of a stack, innermost first.
pub struct Runs<'f> {
    /// Where they lie in the stack itself.
    pub inner: &'f [[u64; RUN_FRAMES]],
    /// The outermost one, a copy if it had to be filled up.
    pub outermost: &'f [u64; RUN_FRAMES],
}

/// Room for an outermost run, and before it for half a run that is copied along.
pub struct OutermostRun([MaybeUninit<u64>; HALF + RUN_FRAMES]);

impl OutermostRun {
    /// Nothing yet.
    #[inline(always)]
    pub const fn new() -> OutermostRun {
        OutermostRun([const { MaybeUninit::uninit() }; HALF + RUN_FRAMES])
    }

    /// Cuts a stack into runs, the outermost one filled up; `None` without frames. `is_cut`: the
    /// stack had more frames.
    #[inline(always)]
    pub fn cut<'f>(&'f mut self, frames: &'f [u64], is_cut: bool) -> Option<Runs<'f>> {
        let last = *frames.last()?;
        let (inner, rest) = frames.as_chunks::<RUN_FRAMES>();
        if rest.is_empty() && !is_cut && !is_like_filler(last) {
            let (outermost, inner) = inner.split_last()?;
            return Some(Runs { inner, outermost });
        }
        let run: &mut [_; RUN_FRAMES] = self.0.last_chunk_mut()?;
        *run = [MaybeUninit::new(filler(last, RUN_FRAMES - rest.len(), is_cut)); RUN_FRAMES];
        self.copy_rest(frames, rest)?;
        // SAFETY: all words of the run were written.
        let outermost = unsafe { &*self.0.last_chunk::<RUN_FRAMES>()?.as_ptr().cast() };
        Some(Runs { inner, outermost })
    }

    /// Copies the frames of the outermost run. But for very short stacks without a loop over
    /// frames, whose end a processor does not foresee: what is copied overlaps.
    #[inline(always)]
    fn copy_rest(&mut self, frames: &[u64], rest: &[u64]) -> Option<()> {
        if let (Some(first), Some(last)) = (rest.first_chunk(), rest.last_chunk()) {
            copy_half(self.half(HALF)?, first);
            copy_half(self.half(rest.len())?, last);
        } else if let Some(last) = frames.last_chunk() {
            copy_half(self.half(rest.len())?, last);
        } else {
            for (place, frame) in self.0.get_mut(HALF..)?.iter_mut().zip(rest) {
                place.write(*frame);
            }
        }
        Some(())
    }

    #[inline(always)]
    fn half(&mut self, start: usize) -> Option<&mut [MaybeUninit<u64>; HALF]> {
        self.0.get_mut(start..)?.first_chunk_mut()
    }
}

#[inline(always)]
fn copy_half(place: &mut [MaybeUninit<u64>; HALF], half: &[u64; HALF]) {
    *place = half.map(MaybeUninit::new);
}

/// How many of the words of an outermost run are no frames, by the outermost one.
#[inline(always)]
pub const fn filler_count(outermost: u64) -> usize {
    if is_like_filler(outermost) {
        (outermost as u32 & COUNT_MASK) as usize
    } else {
        0
    }
}

/// How many of a stack's words are frames, by its outermost word.
pub const fn frame_count(length: usize, outermost: u64) -> usize {
    length.saturating_sub(filler_count(outermost))
}
