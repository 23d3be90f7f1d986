//! The hit in vector registers: from the frames to the stored stack in one function.
//!
//! Nearly every save finds its stack, so this does what `hash.rs`, `index.rs` and `lookup.rs` do,
//! in their order and with their orderings, with one branch on what differs from stack to stack:
//! the number of runs. A partial run is padded under a mask, nodes are decoded as they say and
//! their differences collected and looked at once. What is not simple (cut stacks, wide nodes,
//! leaves that are not saved) is left to the portable way, which finds the same.
//!
//! Shared words are loaded several at once, each as if by a relaxed load. A torn value would do
//! no harm: what an index cell says is judged by the node, a node by its generation.
#![expect(
    unsafe_code,
    reason = "vectors of shared words, and instructions that not every processor has"
)]

mod chain;
mod onto;
#[cfg(test)]
mod tests;

pub(crate) use onto::save_onto;

use core::arch::x86_64::*;

use crate::aes::{Aes, Frames, hash_run, load};
use crate::error::{HoldError, SaveError};
use crate::frame::{HIGH, MASKS, WindowTable};
use crate::handle::{Tick, WeakHandle};
use crate::hash::{Hasher, fold};
use crate::hold::Hold;
use crate::index::home_cell;
use crate::insert::Saved;
use crate::layout::{RUN_FRAMES, Region};
use crate::lookup::{Found, Stack};
use crate::prefetch::prefetch;
use crate::state::State;

/// What a save came to, in two registers: a weak handle and a tick, or 0 and the error.
#[derive(Clone, Copy)]
struct Answer {
    weak: u64,
    detail: u32,
}

impl Answer {
    /// The same for everybody else.
    #[inline]
    fn result(self) -> Result<Saved, SaveError> {
        if self.weak == 0 {
            return Err(error_of(self.detail));
        }
        Ok(Saved {
            weak: WeakHandle::from_bits(self.weak),
            from: Tick(self.detail),
        })
    }

    /// Nothing was found.
    const UNKNOWN: Answer = Answer {
        weak: 0,
        detail: u32::MAX,
    };

    /// What was found cannot be held.
    #[cold]
    fn refused(error: HoldError) -> Answer {
        Answer::from(Err(match error {
            HoldError::Evicted => return Answer::UNKNOWN,
            HoldError::Saturated => SaveError::Saturated,
            HoldError::Contended => SaveError::Contended,
            HoldError::Disabled => SaveError::Disabled,
        }))
    }

    #[inline]
    fn is_unknown(self) -> bool {
        self.weak == 0 && self.detail == Answer::UNKNOWN.detail
    }
}

impl From<Result<Saved, SaveError>> for Answer {
    fn from(result: Result<Saved, SaveError>) -> Answer {
        let (weak, detail) = match result {
            Ok(saved) => (saved.weak.to_bits(), saved.from.0),
            Err(error) => (0, error as u32),
        };
        Answer { weak, detail }
    }
}

/// Every error, where its number is.
const ERRORS: [SaveError; 6] = [
    SaveError::Empty,
    SaveError::Full,
    SaveError::Contended,
    SaveError::Crowded,
    SaveError::Saturated,
    SaveError::Disabled,
];

#[cold]
fn error_of(number: u32) -> SaveError {
    let error = ERRORS.get(number as usize);
    error.copied().unwrap_or(SaveError::Contended)
}

/// Saves a stack and holds it as asked; see `Depot::save_held`. `aes` is the hasher's.
#[inline]
pub(crate) fn save(
    aes: Aes,
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    hold: Hold,
) -> Result<Saved, SaveError> {
    let answer = if aes.is_wide {
        // SAFETY: `aes` proves that the processor has the instructions.
        unsafe { save_in_vectors::<true>(region, hasher, frames, hold) }
    } else {
        // SAFETY: as above.
        unsafe { save_in_vectors::<false>(region, hasher, frames, hold) }
    };
    answer.result()
}

/// `WIDE` promises VAES.
#[target_feature(enable = "aes,avx2")]
#[inline(never)]
fn save_in_vectors<const WIDE: bool>(
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    hold: Hold,
) -> Answer {
    if has_more_windows(region) {
        return save_in_windows::<WIDE>(region, hasher, frames, hold);
    }
    let found = match find::<WIDE, false>(region, hasher, frames) {
        // Who saw a node sees its windows: had it named others, they would be there now.
        Ok(_) if has_more_windows(region) => Err(Miss::Unclear),
        found => found,
    };
    conclude(region, hasher, frames, found, hold)
}

/// The same where nodes may name windows of their own.
#[target_feature(enable = "aes,avx2")]
#[inline(never)]
fn save_in_windows<const WIDE: bool>(
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    hold: Hold,
) -> Answer {
    let found = find::<WIDE, true>(region, hasher, frames);
    conclude(region, hasher, frames, found, hold)
}

/// Holds what was found, or stores what was not.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn conclude(
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    found: Result<Found<'_>, Miss>,
    hold: Hold,
) -> Answer {
    match found {
        Ok(found) => hold_found(region, hasher, frames, &found, hold),
        Err(Miss::Absent { hash, parent_hash }) => {
            save_absent(region, hasher, frames, (hash, parent_hash), hold)
        }
        Err(Miss::Unclear) => save_portably(region, hasher, frames, hold),
    }
}

/// Whether the window table has more than the first two.
#[inline]
fn has_more_windows(region: &Region<'_>) -> bool {
    WindowTable::of(region.header).is_taken(2)
}

/// As `Region::save_found`.
#[inline(always)]
fn hold_found(
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    found: &Found<'_>,
    hold: Hold,
) -> Answer {
    if hold == Hold::None {
        name_found(found)
    } else {
        hold_stored(region, hasher, frames, found.weak(), hold)
    }
}

/// The answer of a save without a hold.
#[inline(always)]
fn name_found(found: &Found<'_>) -> Answer {
    if !found.state.has(State::VISITED) {
        found.slot.mark_visited(found.state);
    }
    Answer {
        weak: found.weak().to_bits(),
        detail: 0,
    }
}

#[inline(never)]
fn hold_stored(
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    weak: WeakHandle,
    hold: Hold,
) -> Answer {
    match region.hold(weak, hold) {
        Ok(saved) => Answer::from(Ok(saved)),
        Err(HoldError::Evicted) => save_portably(region, hasher, frames, hold),
        Err(error) => Answer::refused(error),
    }
}

#[cold]
#[inline(never)]
fn save_portably(region: &Region<'_>, hasher: &Hasher, frames: &[u64], hold: Hold) -> Answer {
    Answer::from(region.save(hasher, frames, hold))
}

/// The save of a whole stack that the index did not know a moment ago, with its hash and that of what
/// its leaf hangs on.
#[cold]
#[inline(never)]
#[target_feature(enable = "aes,avx2")]
fn save_absent(
    region: &Region<'_>,
    hasher: &Hasher,
    frames: &[u64],
    (hash, parent_hash): (u64, u64),
    hold: Hold,
) -> Answer {
    if let Err(error) = region.check_hold(hold) {
        return Answer::from(Err(error));
    }
    region.prefetch_claim();
    let stack = Stack::new(frames, region.max_frames as usize);
    let find = |outer: &[[u64; RUN_FRAMES]], hash| find_ancestor(region, outer, hash);
    let saved = region
        .save_leaf(&stack, hash, parent_hash, hold, find)
        .or_else(|| {
            let missing_from = stack.leaf_level().saturating_sub(1);
            region.save_missing(hasher, &stack, missing_from, hold, find)
        });
    Answer::from(saved.unwrap_or(Err(SaveError::Contended)))
}

/// Finds the committed node of full runs, innermost first, saved or not, if it is stored narrow.
#[target_feature(enable = "avx2")]
fn find_ancestor<'r>(
    region: &Region<'r>,
    runs: &[[u64; RUN_FRAMES]],
    hash: u64,
) -> Option<Found<'r>> {
    let (run, outer) = runs.split_first()?;
    let number = find_at_home(region, hash).or_else(|| find_displaced(region, hash, hash))?;
    chain::compare_stack::<true>(region, number, (&load(run), RUN_FRAMES), outer, (0, 0))
}

/// Why a stack was not found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Miss {
    /// No entry has its fingerprint. The hash of the stack, and of what its leaf hangs on.
    Absent { hash: u64, parent_hash: u64 },
    /// It may be there, not as simple as this looks for it.
    Unclear,
}

/// Finds the committed leaf of a stack that is whole, saved, and stored narrow. `OWN`: nodes may
/// name windows of their own.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn find<'r, const WIDE: bool, const OWN: bool>(
    region: &Region<'r>,
    hasher: &Hasher,
    frames: &[u64],
) -> Result<Found<'r>, Miss> {
    let (_, rest) = frames.split_first().ok_or(Miss::Unclear)?;
    if rest.len() >= region.max_frames as usize {
        return Err(Miss::Unclear);
    }
    let (leaf_rest, outer) = rest.as_rchunks::<RUN_FRAMES>();
    let length = leaf_rest.len() + 1;
    // SAFETY: there are `length` frames, which is 1 to 10.
    let leaf = unsafe { load_partial(frames, length) };
    let (hash, parent_hash) = hash_stack::<WIDE>(hasher, &leaf, length, outer);
    let number = match find_at_home(region, hash) {
        Some(number) => number,
        None => {
            find_displaced(region, hash, parent_hash).ok_or(Miss::Absent { hash, parent_hash })?
        }
    };
    chain::compare_stack::<OWN>(
        region,
        number,
        (&leaf, length),
        outer,
        (0, State::SAVED_BIT),
    )
    .ok_or(Miss::Unclear)
}

/// As `frame::pad`.
///
/// # Safety
/// There are `length` frames, 1 to 10.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load_partial(frames: &[u64], length: usize) -> Frames {
    let frames = frames.as_ptr().cast::<i64>();
    // SAFETY: the mask's ten words lie within `MASKS` and let through the frames that are there.
    unsafe {
        let mask = MASKS.as_ptr().add(RUN_FRAMES - length);
        let first = _mm256_broadcastq_epi64(_mm_loadl_epi64(frames.cast()));
        let filler = _mm256_and_si256(first, _mm256_set1_epi64x(HIGH as i64));
        let four = |start: usize| {
            let mask = _mm256_loadu_si256(mask.add(start).cast());
            _mm256_blendv_epi8(filler, _mm256_maskload_epi64(frames.add(start), mask), mask)
        };
        let last_mask = _mm_loadu_si128(mask.add(8).cast());
        let last = _mm_blendv_epi8(
            _mm256_castsi256_si128(filler),
            _mm_maskload_epi64(frames.wrapping_add(8), last_mask),
            last_mask,
        );
        [four(0), four(4), _mm256_zextsi128_si256(last)]
    }
}

/// As `Hasher::stack`: the whole stack's hash, and that of what its leaf hangs on.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn hash_stack<const WIDE: bool>(
    hasher: &Hasher,
    leaf: &Frames,
    length: usize,
    outer: &[[u64; RUN_FRAMES]],
) -> (u64, u64) {
    let keys = load(&hasher.lanes);
    let leaf_hash = hash_run::<WIDE>(&keys, leaf);
    let full_link = hasher.link(RUN_FRAMES);
    let mut hash = hasher.start(false);
    for run in outer.iter().rev() {
        hash = fold(hash ^ hash_run::<WIDE>(&keys, &load(run)), full_link);
    }
    (fold(hash ^ leaf_hash, hasher.link(length)), hash)
}

/// The slot of the committed entry with a hash's fingerprint, if it is at home.
#[inline(always)]
fn find_at_home(region: &Region<'_>, hash: u64) -> Option<u32> {
    let home = region.first_bucket(hash as u32)?.entry(home_cell(hash));
    home.is_committed_of(hash).then(|| home.slot())
}

/// The slot of the first such entry in either bucket. Where there is none, the next to be looked
/// for is the parent.
#[inline(never)]
fn find_displaced(region: &Region<'_>, hash: u64, parent_hash: u64) -> Option<u32> {
    if let Some(bucket) = region.first_bucket(parent_hash as u32) {
        prefetch(bucket);
    }
    region.pair(hash as u32)?.find_committed(hash, Some)
}
