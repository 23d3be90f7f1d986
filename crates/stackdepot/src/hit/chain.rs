//! A node and its ancestors compared with a stack, without a branch on what they hold.
//!
//! Each node's ten frames are decoded as its selectors say, four windows being at hand in a
//! register, and what differs from the run is collected; the one look is at the end.

use core::arch::x86_64::*;

use crate::aes::{Frames, load};
use crate::frame::Windows;
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::lookup::Found;
use crate::state::State;
use crate::sync::Ordering;
use crate::vector::{Highs, decode, difference};

/// The state bits that a narrow node of a whole stack must have, whatever it holds.
const SHAPE_MASK: u64 =
    (State::STATUS_MASK & !State::SAVED_BIT) | State::LENGTH_MASK | State::WIDE | State::CUT;

/// As `Region::compare_chain`, for a stack that is whole. `base`: the slot that its outermost run
/// hangs on, 0 for the root; `saved`: the bit that says so, or 0 where that does not matter.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn compare_stack<'r, const OWN: bool>(
    region: &Region<'r>,
    number: u32,
    (leaf_frames, length): (&Frames, usize),
    outer: &[[u64; RUN_FRAMES]],
    (base, saved): (u32, u64),
) -> Option<Found<'r>> {
    let leaf = region.slot(number)?;
    let generation = leaf.generation_now();
    let leaf_state = leaf.state_now();
    let first_two = Highs::of_first_two(region.header);
    let leaf_shape = State::LIVE | saved | (length as u64) << State::LENGTH_SHIFT;
    let mut misshapen = (leaf_state.0 ^ leaf_shape) & (SHAPE_MASK | saved);
    let mut link = leaf.link.load(Ordering::Relaxed);
    let mut differing = differ::<OWN>(region, leaf, link, first_two, leaf_frames);
    for run in outer {
        let slot = region.slot(link as u32)?;
        let shape = State::LIVE | (RUN_FRAMES as u64) << State::LENGTH_SHIFT;
        misshapen |= (slot.state.load(Ordering::Relaxed) ^ shape) & SHAPE_MASK;
        link = slot.link.load(Ordering::Relaxed);
        let here = differ::<OWN>(region, slot, link, first_two, &load(run));
        differing = _mm256_or_si256(differing, here);
    }
    let rest = _mm_set_epi64x(misshapen as i64, i64::from(link as u32 ^ base));
    let differing = _mm256_or_si256(differing, _mm256_zextsi128_si256(rest));
    if _mm256_testz_si256(differing, differing) == 0 || !leaf.is_still(generation) {
        return None;
    }
    Some(Found {
        number,
        slot: leaf,
        generation,
        state: leaf_state,
    })
}

/// The bits in which a narrow node's frames differ from those of a run, laid over each other.
#[inline]
#[target_feature(enable = "avx2")]
fn differ<const OWN: bool>(
    region: &Region<'_>,
    slot: &Slot,
    link: u64,
    first_two: Highs,
    run: &Frames,
) -> __m256i {
    let highs = if OWN {
        first_two.with_own(region.header, Windows((link >> 32) as u32))
    } else {
        first_two
    };
    difference(&decode(slot, highs), run)
}
