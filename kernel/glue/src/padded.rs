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

/// Most frames of a stack; the buffer is on the kernel's stack.
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

/// Room for a stack and what fills it up.
pub struct Padded([MaybeUninit<u64>; MOST_WORDS]);

impl Padded {
    /// Nothing yet.
    #[inline(always)]
    pub const fn new() -> Padded {
        Padded([const { MaybeUninit::uninit() }; MOST_WORDS])
    }

    /// The stack without what is beyond `most` frames, filled up; `None` without frames.
    #[inline(always)]
    pub fn fill<'w>(&'w mut self, frames: &'w [u64], most: usize) -> Option<&'w [u64]> {
        let is_cut = frames.len() > most;
        let kept = frames.get(..most).unwrap_or(frames);
        let outermost = *kept.last()?;
        if kept.len().is_multiple_of(RUN_FRAMES) && !is_cut && !is_like_filler(outermost) {
            return Some(frames);
        }
        let length = padded_length(kept.len());
        let words = self.0.get_mut(..length)?;
        // The window of the outermost frame, which is one that the stack's root has anyway.
        let mark = (length - kept.len()) as u32 | if is_cut { CUT } else { 0 };
        let filler = (outermost & UPPER_HALF) | u64::from(mark);
        // The last ten words first: they end in the filling ones, and frames take the others.
        *words.last_chunk_mut()? = [MaybeUninit::new(filler); RUN_FRAMES];
        copy_in(words, kept)?;
        // SAFETY: the last ten words were written, and the frames before them: of `length` words
        // there are at most ten more than frames.
        Some(unsafe { core::slice::from_raw_parts(words.as_ptr().cast(), length) })
    }

    /// Room to copy a stack to: zeros.
    pub const fn zeroed() -> [u64; MOST_WORDS] {
        [0; MOST_WORDS]
    }
}

/// Copies frames to the beginning of a place that has room for them. All but very short stacks without a
/// loop over single frames, whose end a processor does not foresee: the last chunk overlaps the one before.
#[inline(always)]
fn copy_in(words: &mut [MaybeUninit<u64>], frames: &[u64]) -> Option<()> {
    let places = words.get_mut(..frames.len())?;
    if frames.len() < HALF {
        for (place, frame) in places.iter_mut().zip(frames) {
            place.write(*frame);
        }
    } else if frames.len() < RUN_FRAMES {
        copy_half(places.first_chunk_mut()?, frames.first_chunk()?);
        copy_half(places.last_chunk_mut()?, frames.last_chunk()?);
    } else {
        let runs = frames.as_chunks::<RUN_FRAMES>().0;
        for (place, run) in places.as_chunks_mut::<RUN_FRAMES>().0.iter_mut().zip(runs) {
            copy_run(place, run)?;
        }
        copy_run(places.last_chunk_mut()?, frames.last_chunk()?)?;
    }
    Some(())
}

#[inline(always)]
fn copy_run(place: &mut [MaybeUninit<u64>; RUN_FRAMES], run: &[u64; RUN_FRAMES]) -> Option<()> {
    copy_half(place.first_chunk_mut()?, run.first_chunk()?);
    copy_half(place.last_chunk_mut()?, run.last_chunk()?);
    Some(())
}

#[inline(always)]
fn copy_half(place: &mut [MaybeUninit<u64>; HALF], half: &[u64; HALF]) {
    *place = half.map(MaybeUninit::new);
}

/// How many of a stack's words are frames, by its outermost word.
#[inline]
pub const fn frame_count(length: usize, outermost: u64) -> usize {
    let filler_count = if is_like_filler(outermost) {
        outermost as u32 & COUNT_MASK
    } else {
        0
    };
    length.saturating_sub(filler_count as usize)
}
