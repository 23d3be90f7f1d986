//! Comparing a node with a run of frames: exact, and the inner loop of every save.
//!
//! Key type: [`FirstWindows`], the two windows where nearly all frames are. The encoding of a
//! run follows from the run and the window table, so a run in these two windows is not decoded
//! but encoded as the node is (five words of lower halves, one of selectors) and compared with
//! the node's words, four frames at a time. Whatever does not fit this way is decoded and
//! compared frame by frame: the short way only ever says "equal", never "different".

use crate::frame::{Run, WindowTable, Windows};
use crate::layout::{RUN_FRAMES, Region, Slot};
use crate::state::{State, Status};
use crate::sync::Ordering;

/// The state bits that a node of a run must have, whatever its references, lease and use.
const SHAPE_MASK: u64 = (State::STATUS_MASK & !State::SAVED_BIT) | State::LENGTH_MASK;

/// The upper halves in the first two cells of the window table.
///
/// To be loaded after the node that is compared: then every window that the node names is there.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FirstWindows {
    first: u32,
    second: u32,
}

impl Region<'_> {
    /// The first two windows, as they are now.
    #[inline]
    pub fn first_windows(&self) -> FirstWindows {
        let [first, second] = WindowTable::of(self.header).first_two();
        // A free cell stands for no frame; it must not look like a window that the first one is.
        let first_high = first.unwrap_or(0);
        FirstWindows {
            first: first_high,
            second: second.unwrap_or(!first_high),
        }
    }

    /// Compares one node with a run; on equality answers its parent's slot, 0 at the root.
    #[inline(always)]
    pub fn compare_hop(
        &self,
        slot: &Slot,
        state: State,
        run: &Run,
        length: usize,
        first_windows: FirstWindows,
    ) -> Option<u32> {
        let link = slot.link.load(Ordering::Relaxed);
        let windows = (link >> 32) as u32;
        let is_equal = state.0 & SHAPE_MASK == State::LIVE | (length as u64) << State::LENGTH_SHIFT
            && (!state.has(State::WIDE)
                && packed::are_equal(self, slot, windows, run, first_windows)
                || self.is_equal_decoded(slot, state, windows, run));
        is_equal.then_some(link as u32)
    }

    /// Whether a node's decoded frames are those of a run.
    #[inline(never)]
    fn is_equal_decoded(&self, slot: &Slot, state: State, windows: u32, run: &Run) -> bool {
        self.decode(slot, state, windows)
            .is_some_and(|stored| stored == *run)
    }

    /// The frames of a node; `None` when its upper halves are gone.
    #[inline]
    pub fn decode(&self, slot: &Slot, state: State, windows: u32) -> Option<Run> {
        let mut run = [0; RUN_FRAMES];
        self.decode_to(slot, state, windows, &mut run)?;
        Some(run)
    }

    /// Writes the frames of a node to a place for a whole run; `None` when its upper halves are gone.
    #[inline]
    fn decode_to(&self, slot: &Slot, state: State, windows: u32, run: &mut Run) -> Option<()> {
        if state.has(State::WIDE) {
            let ext = self.slot(windows)?;
            if State(ext.state.load(Ordering::Relaxed)).status() != Status::Ext {
                return None;
            }
            join(slot, ext, run);
        } else {
            let first_high = WindowTable::of(self.header).high_bits(0);
            self.decode_narrow(slot, windows, first_high, run);
        }
        Some(())
    }

    /// Writes the frames of a narrow node to a place for a whole run. `first_high` is the table's
    /// first window.
    #[inline(always)]
    pub fn decode_narrow(&self, slot: &Slot, windows: u32, first_high: u64, run: &mut Run) {
        if windows == Windows::ALL_FIRST {
            join_high(slot, first_high, run);
        } else {
            self.decode_mixed(slot, windows, run);
        }
    }

    #[inline(never)]
    fn decode_mixed(&self, slot: &Slot, windows: u32, run: &mut Run) {
        let highs = WindowTable::of(self.header).selected(Windows(windows));
        let mut selectors = windows;
        for (cell, pair) in slot.lows.iter().zip(run.as_chunks_mut::<2>().0) {
            let lows = cell.load(Ordering::Relaxed);
            pair[0] =
                highs.get(selectors as usize & 3).copied().unwrap_or(0) | (lows & 0xffff_ffff);
            pair[1] = highs.get(selectors as usize >> 2 & 3).copied().unwrap_or(0) | lows >> 32;
            selectors >>= 4;
        }
    }
}

/// Joins the lower halves of a node with the one upper half that all its frames have.
#[inline]
fn join_high(slot: &Slot, high: u64, run: &mut Run) {
    for (cell, pair) in slot.lows.iter().zip(run.as_chunks_mut::<2>().0) {
        let lows = cell.load(Ordering::Relaxed);
        *pair = [high | (lows & 0xffff_ffff), high | lows >> 32];
    }
}

/// Joins the halves of a wide node.
fn join(slot: &Slot, ext: &Slot, run: &mut Run) {
    for ((low, high), pair) in slot
        .lows
        .iter()
        .zip(&ext.lows)
        .zip(run.as_chunks_mut::<2>().0)
    {
        let (low, high) = (low.load(Ordering::Relaxed), high.load(Ordering::Relaxed));
        pair[0] = high << 32 | (low & 0xffff_ffff);
        pair[1] = (high >> 32) << 32 | low >> 32;
    }
}

/// The comparison in the processor's vector registers. The node's words are loaded one by one,
/// as atomics, for others may be writing them; only the caller's frames are loaded as vectors.
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(loom)))]
#[expect(
    unsafe_code,
    reason = "calls a function that needs the processor's SSE2"
)]
mod packed {
    use core::arch::x86_64::*;

    use super::*;
    use crate::frame::{SELECTORS, WINDOW_SHIFT};

    /// Ten frames, four to a register, the last two twice.
    type Fours = [__m128i; 3];

    /// The higher bit of every frame's selector.
    const HIGH_SELECTOR_BITS: u32 = 0xa_aaaa;

    /// Whether a narrow node stores just the words that a run has.
    #[inline(always)]
    pub fn are_equal(
        region: &Region<'_>,
        slot: &Slot,
        windows: u32,
        run: &Run,
        first_windows: FirstWindows,
    ) -> bool {
        if windows >> WINDOW_SHIFT == 0 {
            // SAFETY: every processor that this is compiled for has SSE2: the `cfg` above.
            return unsafe { have_equal_words::<false>(slot, windows, run, first_windows, [0; 2]) };
        }
        are_equal_in_four(region, slot, windows, run, first_windows)
    }

    /// The same for a node that names windows of its own.
    #[inline(never)]
    fn are_equal_in_four(
        region: &Region<'_>,
        slot: &Slot,
        windows: u32,
        run: &Run,
        first_windows: FirstWindows,
    ) -> bool {
        let table = WindowTable::of(region.header);
        let own = |cell: usize, unused: u32| {
            if cell == 0 {
                unused
            } else {
                (table.high_bits(cell) >> 32) as u32
            }
        };
        // A window that is not used must not change what the first two select.
        let own_windows = [
            own(Windows(windows).a(), first_windows.first),
            own(Windows(windows).b(), first_windows.second),
        ];
        // SAFETY: as above.
        unsafe {
            have_equal_words::<true>(slot, windows & SELECTORS, run, first_windows, own_windows)
        }
    }

    /// Compares lower halves, and the selectors that the upper halves come to: their lower bit
    /// says "second, or own B", the higher one "first or second".
    #[inline]
    #[target_feature(enable = "sse2")]
    fn have_equal_words<const OWN: bool>(
        slot: &Slot,
        selectors: u32,
        run: &Run,
        first_windows: FirstWindows,
        own: [u32; 2],
    ) -> bool {
        let word = |index: usize| {
            slot.lows
                .get(index)
                .map_or(0, |low| low.load(Ordering::Relaxed) as i64)
        };
        let stored = [
            _mm_set_epi64x(word(1), word(0)),
            _mm_set_epi64x(word(3), word(2)),
            _mm_set1_epi64x(word(4)),
        ];
        let pairs = run.as_chunks::<2>().0;
        let pair = |index: usize| {
            let [first, second] = pairs.get(index).copied().unwrap_or_default();
            _mm_castsi128_ps(_mm_set_epi64x(second as i64, first as i64))
        };
        let fours = [(pair(0), pair(1)), (pair(2), pair(3)), (pair(4), pair(4))];
        let lows = fours
            .map(|(left, right)| _mm_castps_si128(_mm_shuffle_ps::<0b10_00_10_00>(left, right)));
        let highs = fours
            .map(|(left, right)| _mm_castps_si128(_mm_shuffle_ps::<0b11_01_11_01>(left, right)));
        let is_in =
            |window: u32| highs.map(|high| _mm_cmpeq_epi32(high, _mm_set1_epi32(window as i32)));

        let in_second = is_in(first_windows.second);
        let high_bits = or(is_in(first_windows.first), in_second);
        let (low_bits, in_any) = if OWN {
            let in_b = is_in(own[1]);
            (or(in_second, in_b), or(or(high_bits, in_b), is_in(own[0])))
        } else {
            (in_second, high_bits)
        };
        let mut all = _mm_set1_epi32(-1);
        for ((in_any, low), stored) in in_any.into_iter().zip(lows).zip(stored) {
            all = _mm_and_si128(all, _mm_and_si128(in_any, _mm_cmpeq_epi32(low, stored)));
        }
        let all_high = if OWN {
            selector_bits(high_bits) & HIGH_SELECTOR_BITS
        } else {
            HIGH_SELECTOR_BITS
        };
        _mm_movemask_epi8(all) == 0xffff
            && selectors == all_high | (selector_bits(low_bits) & !HIGH_SELECTOR_BITS)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn or([left0, left1, left2]: Fours, [right0, right1, right2]: Fours) -> Fours {
        [
            _mm_or_si128(left0, right0),
            _mm_or_si128(left1, right1),
            _mm_or_si128(left2, right2),
        ]
    }

    /// Two equal bits for each frame, where its selector is: a byte of a register each.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn selector_bits(frames: Fours) -> u32 {
        let lower = _mm_movemask_epi8(_mm_packs_epi32(frames[0], frames[1])) as u32;
        let upper = _mm_movemask_epi8(_mm_packs_epi32(frames[2], frames[2])) as u32 & 0xf;
        lower | upper << 16
    }
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2", not(loom))))]
use scalar as packed;

/// The comparison where there are no such registers, or they may not be used. Tests build both.
#[cfg(any(
    all(test, not(loom)),
    not(all(target_arch = "x86_64", target_feature = "sse2", not(loom)))
))]
mod scalar {
    use super::*;

    use crate::frame::{SELECTORS, WINDOW_SHIFT};

    /// The lower bit of every frame's selector.
    const LOW_SELECTOR_BITS: u32 = SELECTORS / 3;
    /// Every selector's higher bit: all frames are in the first two windows.
    const IN_FIRST_TWO: u32 = LOW_SELECTOR_BITS * 2;

    /// Whether a narrow node of the first two windows stores just the words that a run has.
    #[inline(always)]
    pub fn are_equal(
        _: &Region<'_>,
        slot: &Slot,
        windows: u32,
        run: &Run,
        first_windows: FirstWindows,
    ) -> bool {
        if windows == Windows::ALL_FIRST {
            return have_equal_lows(slot, run, first_windows.first);
        }
        windows >> WINDOW_SHIFT == 0
            && windows & IN_FIRST_TWO == IN_FIRST_TWO
            && have_equal_words(slot, windows, run, first_windows)
    }

    /// Compares the frames of a node that are all in one window. What is left of a frame without
    /// that window is its lower half, or has a bit above it.
    #[inline(always)]
    fn have_equal_lows(slot: &Slot, run: &Run, window: u32) -> bool {
        let high = u64::from(window) << 32;
        let (mut difference, mut left_over) = (0, 0);
        for (cell, pair) in slot.lows.iter().zip(run.as_chunks::<2>().0) {
            let [left, right] = pair.map(|frame| frame ^ high);
            left_over |= left;
            left_over |= right;
            difference |= cell.load(Ordering::Relaxed) ^ (right << 32 | left);
        }
        left_over >> 32 | difference == 0
    }

    /// Compares the frames pair by pair without a branch: differences add up.
    #[inline(always)]
    fn have_equal_words(slot: &Slot, windows: u32, run: &Run, first: FirstWindows) -> bool {
        let highs = [u64::from(first.first), u64::from(first.second)];
        // What turns the first window into the second.
        let second = highs[0] ^ highs[1];
        let mut difference = 0;
        let mut selectors = u64::from(windows & LOW_SELECTOR_BITS);
        for (cell, [left, right]) in slot.lows.iter().zip(run.as_chunks::<2>().0) {
            let stored = cell.load(Ordering::Relaxed);
            let windows_of = [0, 2].map(|bit| (selectors >> bit & 1).wrapping_neg() & second);
            difference |= stored ^ (right << 32 | left & 0xffff_ffff);
            difference |= left >> 32 ^ highs[0] ^ windows_of[0];
            difference |= right >> 32 ^ highs[0] ^ windows_of[1];
            selectors >>= 4;
        }
        difference == 0
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test stops where it fails"
    )]

    extern crate std;

    use super::*;
    use crate::config::Config;
    use crate::depot::Depot;
    use crate::frame::{low, pack, pad};
    use crate::layout::Line;
    use crate::slot::NodeData;

    /// Upper halves that a test's frames take turns in.
    const WINDOWS: [&[u64]; 7] = [
        &[0],
        &[0x7f12],
        &[0x7f12, 0],
        &[0x5555, 0x7f12],
        &[1, 2, 3],
        &[9, 8, 7, 6],
        &[0x5555, 0x5555, 0xffff_ffff],
    ];

    fn run_in(highs: &[u64], length: usize, shift: usize) -> Run {
        let frame = |position: usize| {
            highs[(position + shift) % highs.len()] << 32 | (0x40_1000 + position as u64 * 0x1_0001)
        };
        pad(&core::array::from_fn::<_, RUN_FRAMES, _>(frame), length)
    }

    /// Stores a run in a slot and hands the node to the test.
    fn with_node(
        highs: &[u64],
        length: usize,
        shift: usize,
        test: impl Fn(&Region<'_>, &Slot, &Run),
    ) {
        let mut memory = std::vec![Line::ZERO; 64];
        let depot = Depot::new(&mut memory, &Config::new(4096)).unwrap();
        let table = WindowTable::of(depot.region.header);
        // The windows are taken in order, whatever this run begins with.
        assert!(table.windows_of(&run_in(highs, RUN_FRAMES, 0)).is_some());
        let run = run_in(highs, length, shift);
        let slot = depot.region.slot(1).unwrap();
        assert!(slot.claim_free());
        slot.write_node(&NodeData {
            parent: 0,
            hash: 0,
            windows: table.windows_of(&run).unwrap(),
            lows: pack(&run, low),
        });
        slot.bear(length, 0);
        test(&depot.region, slot, &run);
    }

    /// The runs of that length that differ in one bit of one frame, or of two.
    fn others(run: &Run, length: usize) -> impl Iterator<Item = Run> {
        let pairs =
            (0..length).flat_map(move |left| (left..length).map(move |right| (left, right)));
        let changes = pairs.flat_map(|pair| (0..64).map(move |bit| (pair, 1 << bit)));
        changes.map(move |((left, right), bit)| {
            let mut other = *run;
            other[left] ^= bit;
            if right != left {
                other[right] ^= bit;
            }
            pad(&other, length)
        })
    }

    fn compare(region: &Region<'_>, slot: &Slot, run: &Run, length: usize) -> Option<u32> {
        region.compare_hop(slot, slot.state_now(), run, length, region.first_windows())
    }

    #[test]
    fn a_node_equals_its_run_and_no_run_that_differs_in_a_bit() {
        for (highs, length) in WINDOWS
            .iter()
            .flat_map(|highs| (1..=RUN_FRAMES).map(move |length| (highs, length)))
        {
            with_node(highs, length, 1, |region, slot, run| {
                assert_eq!(compare(region, slot, run, length), Some(0));
                assert_eq!(compare(region, slot, run, length % RUN_FRAMES + 1), None);
                for other in others(run, length) {
                    let found = compare(region, slot, &other, length);
                    assert_eq!(found, None, "{other:x?} {run:x?}");
                }
            });
        }
    }

    #[test]
    fn a_node_does_not_equal_the_same_lower_halves_in_other_windows() {
        for highs in WINDOWS
            .iter()
            .filter(|highs| highs.len() > 1 && highs[0] != highs[1])
        {
            with_node(highs, RUN_FRAMES, 0, |region, slot, _| {
                assert_eq!(
                    compare(region, slot, &run_in(highs, RUN_FRAMES, 1), RUN_FRAMES),
                    None
                );
            });
        }
    }

    #[test]
    fn without_vector_registers_a_run_of_the_first_two_windows_equals_its_node_only() {
        for (highs, length) in WINDOWS
            .iter()
            .flat_map(|highs| (1..=RUN_FRAMES).map(move |length| (highs, length)))
        {
            with_node(highs, length, 1, |region, slot, run| {
                let windows = (slot.link.load(Ordering::Relaxed) >> 32) as u32;
                let first = region.first_windows();
                let equals = |run: &Run| scalar::are_equal(region, slot, windows, run, first);
                let first_two = WindowTable::of(region.header).first_two();
                let is_first = |frame: &u64| first_two.contains(&Some((frame >> 32) as u32));
                assert_eq!(equals(run), run.iter().all(is_first), "{run:x?}");
                for other in others(run, length) {
                    assert!(!equals(&other), "{other:x?} {run:x?}");
                }
            });
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn narrow_runs_need_no_decoding() {
        for (highs, length) in WINDOWS
            .iter()
            .flat_map(|highs| (1..=RUN_FRAMES).map(move |length| (highs, length)))
        {
            with_node(highs, length, 0, |region, slot, run| {
                let windows = (slot.link.load(Ordering::Relaxed) >> 32) as u32;
                assert!(
                    packed::are_equal(region, slot, windows, run, region.first_windows()),
                    "{run:x?}"
                );
            });
        }
    }
}
