//! The hit below a node that the caller knows: only the frames inside of it are looked at.
//!
//! Of at most nine frames, so that no full run is new and no token has to be made.
#![expect(unsafe_code, reason = "instructions that not every processor has")]

use super::{
    Answer, chain, find_at_home, find_displaced, has_more_windows, load_partial, name_found,
};
use crate::aes::{Aes, hash_run, load};
use crate::error::SaveError;
use crate::handle::WeakHandle;
use crate::hash::{Hasher, fold};
use crate::hold::Hold;
use crate::insert::Saved;
use crate::layout::{RUN_FRAMES, Region};
use crate::lookup::Found;
use crate::onto::Ancestor;
use crate::state::State;

/// Saves the stored stack of which an ancestor is known and at most nine frames are inside of it,
/// held as asked; `None` when this does not find it, and then nothing is held.
#[inline]
pub(crate) fn save_onto(
    _: Aes,
    region: &Region<'_>,
    hasher: &Hasher,
    ancestor: &Ancestor,
    frames: &[u64],
    hold: Hold,
) -> Option<Result<Saved, SaveError>> {
    // SAFETY: the first argument proves that the processor has the instructions.
    let answer = unsafe { save_onto_in_vectors(region, hasher, ancestor, frames, hold) };
    (!answer.is_unknown()).then(|| answer.result())
}

#[target_feature(enable = "aes,avx2")]
#[inline(never)]
fn save_onto_in_vectors(
    region: &Region<'_>,
    hasher: &Hasher,
    ancestor: &Ancestor,
    frames: &[u64],
    hold: Hold,
) -> Answer {
    if has_more_windows(region) {
        return save_onto_in_windows(region, hasher, ancestor, frames, hold);
    }
    match find_inside::<false>(region, hasher, ancestor, frames) {
        // As in `save_in_vectors`.
        Some(found) if !has_more_windows(region) => hold_inside(region, &found, hold),
        _ => Answer::UNKNOWN,
    }
}

/// The same where nodes may name windows of their own.
#[target_feature(enable = "aes,avx2")]
#[inline(never)]
fn save_onto_in_windows(
    region: &Region<'_>,
    hasher: &Hasher,
    ancestor: &Ancestor,
    frames: &[u64],
    hold: Hold,
) -> Answer {
    find_inside::<true>(region, hasher, ancestor, frames)
        .map_or(Answer::UNKNOWN, |found| hold_inside(region, &found, hold))
}

#[inline(always)]
fn hold_inside(region: &Region<'_>, found: &Found<'_>, hold: Hold) -> Answer {
    if hold == Hold::None {
        name_found(found)
    } else {
        hold_named(region, found.weak(), hold)
    }
}

#[inline(never)]
fn hold_named(region: &Region<'_>, weak: WeakHandle, hold: Hold) -> Answer {
    match region.hold(weak, hold) {
        Ok(saved) => Answer::from(Ok(saved)),
        Err(error) => Answer::refused(error),
    }
}

/// Finds the committed leaf of a stack that is whole, saved, and stored narrow, if the token still
/// fits and at most nine frames are inside of it.
#[inline]
#[target_feature(enable = "aes,avx2")]
fn find_inside<'r, const OWN: bool>(
    region: &Region<'r>,
    hasher: &Hasher,
    ancestor: &Ancestor,
    frames: &[u64],
) -> Option<Found<'r>> {
    let length = frames.len().wrapping_sub(ancestor.depth());
    if !(1..RUN_FRAMES).contains(&length) || frames.len() > region.max_frames as usize {
        return None;
    }
    // SAFETY: there are `length` frames, and more.
    let leaf = unsafe { load_partial(frames, length) };
    let base = region.base_at(ancestor)?;
    let leaf_hash = hash_run::<false>(&load(&hasher.lanes), &leaf);
    let hash = fold(base.hash ^ leaf_hash, hasher.link(length));
    let number = match find_at_home(region, hash) {
        Some(number) => number,
        None => find_displaced(region, hash, base.hash)?,
    };
    let ends = (base.number, State::SAVED_BIT);
    let found = chain::compare_stack::<OWN>(region, number, (&leaf, length), &[], ends);
    // It was of this generation before: while the leaf lived, the base did.
    found.filter(|_| region.is_base_there(&base))
}
