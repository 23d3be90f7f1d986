//! A node and its ancestors compared with a stack, without a branch on what they hold.
//!
//! Each node's ten frames are decoded as its selectors say, four windows being at hand in a
//! register, and what differs from the run is collected; the one look is at the end.

use core::arch::asm;
use core::arch::x86_64::*;
use core::mem::offset_of;

use crate::aes::{Frames, load};
use crate::frame::{WindowTable, Windows};
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::lookup::Found;
use crate::state::State;
use crate::sync::Ordering;

/// The state bits that a narrow node of a whole stack must have, whatever it holds.
const SHAPE_MASK: u64 =
    (State::STATUS_MASK & !State::SAVED_BIT) | State::LENGTH_MASK | State::WIDE | State::CUT;

/// As `Region::compare_chain`, for a stack that hangs on the root.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn compare_stack<'r, const OWN: bool>(
    region: &Region<'r>,
    number: u32,
    (leaf_frames, length): (&Frames, usize),
    outer: &[[u64; RUN_FRAMES]],
) -> Option<Found<'r>> {
    let leaf = region.slot(number)?;
    let generation = leaf.generation_now();
    let leaf_state = leaf.state_now();
    let windows = first_windows(region);
    let leaf_shape = State::LIVE | State::SAVED_BIT | (length as u64) << State::LENGTH_SHIFT;
    let mut misshapen = (leaf_state.0 ^ leaf_shape) & (SHAPE_MASK | State::SAVED_BIT);
    let mut link = leaf.link.load(Ordering::Relaxed);
    let mut difference = differ::<OWN>(region, leaf, link, windows, leaf_frames);
    for run in outer {
        let slot = region.slot(link as u32)?;
        let shape = State::LIVE | (RUN_FRAMES as u64) << State::LENGTH_SHIFT;
        misshapen |= (slot.state.load(Ordering::Relaxed) ^ shape) & SHAPE_MASK;
        link = slot.link.load(Ordering::Relaxed);
        let here = differ::<OWN>(region, slot, link, windows, &load(run));
        difference = _mm256_or_si256(difference, here);
    }
    // Beyond the outermost run there must be the root, slot 0.
    let rest = _mm_cvtsi64_si128((misshapen | link & 0xffff_ffff) as i64);
    let difference = _mm256_or_si256(difference, _mm256_zextsi128_si256(rest));
    if _mm256_testz_si256(difference, difference) == 0 || !leaf.is_still(generation) {
        return None;
    }
    Some(Found {
        number,
        slot: leaf,
        generation,
        state: leaf_state,
    })
}

/// The table's first two windows, where the selectors of a node that names no others find them.
#[inline]
#[target_feature(enable = "avx2")]
fn first_windows(region: &Region<'_>) -> __m256i {
    let cells: __m256i;
    // SAFETY: loads the first two of the table's cells.
    unsafe {
        asm!(
            "vbroadcasti128 {cells}, [{table}]",
            table = in(reg) &region.header.windows,
            cells = out(ymm_reg) cells,
            options(readonly, nostack, preserves_flags),
        );
    }
    _mm256_shuffle_epi32::<0b10_00_00_00>(cells)
}

/// The windows where the selectors of a node find them that names some of its own.
#[inline]
#[target_feature(enable = "avx2")]
fn own_windows(region: &Region<'_>, windows: __m256i, named: Windows) -> __m256i {
    let table = WindowTable::of(region.header);
    let high = |cell: usize| (table.high_bits(cell) >> 32) as i32;
    let own = _mm_setr_epi32(high(named.a()), high(named.b()), 0, 0);
    _mm256_blend_epi32::<0b0011_0011>(windows, _mm256_broadcastsi128_si256(own))
}

/// The bits in which a narrow node's frames differ from those of a run, laid over each other.
#[inline]
#[target_feature(enable = "avx2")]
fn differ<const OWN: bool>(
    region: &Region<'_>,
    slot: &Slot,
    link: u64,
    windows: __m256i,
    run: &Frames,
) -> __m256i {
    let windows = if OWN {
        own_windows(region, windows, Windows((link >> 32) as u32))
    } else {
        windows
    };
    let (eight, two, selectors): (__m256i, __m128i, __m256i);
    // SAFETY: loads the slot's lower halves, the first four words in the order 0, 2, 1, 3, and
    // the upper half of its link.
    unsafe {
        asm!(
            "vpermq {eight}, [{slot} + {lows}], 0xd8",
            "vmovq {two}, [{slot} + {lows} + 32]",
            "vpbroadcastd {selectors}, [{slot} + {link} + 4]",
            slot = in(reg) slot,
            lows = const offset_of!(Slot, lows),
            link = const offset_of!(Slot, link),
            eight = out(ymm_reg) eight,
            two = out(xmm_reg) two,
            selectors = out(ymm_reg) selectors,
            options(readonly, nostack, preserves_flags),
        );
    }
    // Each place's selector moves to the two lowest bits, which choose among four windows.
    let windows = _mm256_castsi256_ps(windows);
    let eight_shifts = _mm256_setr_epi32(0, 2, 8, 10, 4, 6, 12, 14);
    let eight_selectors = _mm256_srlv_epi32(selectors, eight_shifts);
    let eight_highs = _mm256_castps_si256(_mm256_permutevar_ps(windows, eight_selectors));
    let two_shifts = _mm_setr_epi32(16, 18, 16, 18);
    let two_selectors = _mm_srlv_epi32(_mm256_castsi256_si128(selectors), two_shifts);
    let two_highs = _mm_permutevar_ps(_mm256_castps256_ps128(windows), two_selectors);

    let left = _mm256_xor_si256(_mm256_unpacklo_epi32(eight, eight_highs), run[0]);
    let right = _mm256_xor_si256(_mm256_unpackhi_epi32(eight, eight_highs), run[1]);
    let last = _mm_xor_si128(
        _mm_unpacklo_epi32(two, _mm_castps_si128(two_highs)),
        _mm256_castsi256_si128(run[2]),
    );
    _mm256_or_si256(_mm256_or_si256(left, right), _mm256_zextsi128_si256(last))
}
