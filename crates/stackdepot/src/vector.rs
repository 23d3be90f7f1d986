//! A node's frames in the processor's vector registers.
//!
//! Key type: [`Highs`]. A frame's selector is what the permutation of AVX2 takes, so a node that
//! names any four windows is decoded without a branch. Who calls has the proof that the
//! instructions are there (`avx2.rs`). Shared words are loaded several at once, each as if by a
//! relaxed load; others may be writing them: the caller looks at the node's generation afterwards.
#![expect(
    unsafe_code,
    reason = "vectors of shared words, and instructions that not every processor has"
)]

use core::arch::asm;
use core::arch::x86_64::*;
use core::mem::offset_of;

use crate::aes::Frames;
use crate::frame::{Run, WindowTable, Windows};
use crate::layout::{Header, Slot};

/// The upper halves that four selectors stand for, in both halves of a register.
#[derive(Clone, Copy)]
pub(crate) struct Highs(__m256i);

impl Highs {
    /// For nodes that name no windows of their own.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn of_first_two(header: &Header) -> Highs {
        let cells: __m256i;
        // SAFETY: loads the first two of the table's cells.
        unsafe {
            asm!(
                "vbroadcasti128 {cells}, [{table}]",
                table = in(reg) &header.windows,
                cells = out(ymm_reg) cells,
                options(readonly, nostack, preserves_flags),
            );
        }
        Highs(_mm256_shuffle_epi32::<0b10_00_00_00>(cells))
    }

    /// For a node that names these.
    #[inline]
    #[target_feature(enable = "avx2")]
    pub fn with_own(self, header: &Header, own: Windows) -> Highs {
        let table = WindowTable::of(header);
        let high = |cell: usize| (table.high_bits(cell) >> 32) as i32;
        let own = _mm_setr_epi32(high(own.a()), high(own.b()), 0, 0);
        let own = _mm256_broadcastsi128_si256(own);
        Highs(_mm256_blend_epi32::<0b1100_1100>(own, self.0))
    }
}

/// The frames of a narrow node.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn decode(slot: &Slot, highs: Highs) -> Frames {
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
    let Highs(highs) = highs;
    let highs = _mm256_castsi256_ps(highs);
    let eight_shifts = _mm256_setr_epi32(0, 2, 8, 10, 4, 6, 12, 14);
    let eight_selectors = _mm256_srlv_epi32(selectors, eight_shifts);
    let eight_highs = _mm256_castps_si256(_mm256_permutevar_ps(highs, eight_selectors));
    let two_shifts = _mm_setr_epi32(16, 18, 16, 18);
    let two_selectors = _mm_srlv_epi32(_mm256_castsi256_si128(selectors), two_shifts);
    let two_highs = _mm_castps_si128(_mm_permutevar_ps(
        _mm256_castps256_ps128(highs),
        two_selectors,
    ));
    [
        _mm256_unpacklo_epi32(eight, eight_highs),
        _mm256_unpackhi_epi32(eight, eight_highs),
        _mm256_zextsi128_si256(_mm_unpacklo_epi32(two, two_highs)),
    ]
}

/// The bits in which two runs differ, laid over each other.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn difference([l0, l1, l2]: &Frames, [r0, r1, r2]: &Frames) -> __m256i {
    let first = _mm256_or_si256(_mm256_xor_si256(*l0, *r0), _mm256_xor_si256(*l1, *r1));
    _mm256_or_si256(first, _mm256_xor_si256(*l2, *r2))
}

/// Writes ten frames where they go.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn store(frames: &Frames, run: &mut Run) {
    let run = run.as_mut_ptr();
    // SAFETY: four, four and two words of ten.
    unsafe {
        _mm256_storeu_si256(run.cast(), frames[0]);
        _mm256_storeu_si256(run.add(4).cast(), frames[1]);
        _mm_storeu_si128(run.add(8).cast(), _mm256_castsi256_si128(frames[2]));
    }
}
