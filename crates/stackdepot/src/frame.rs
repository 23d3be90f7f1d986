//! How frames lie in a node: runs, lower halves, and the windows of their upper halves.
//!
//! Key types: [`Run`] (frames padded to a full node) and [`Windows`] (which upper half each frame
//! has). Neighbours: `publish.rs` encodes, `lookup.rs` compares against decoded
//! words without encoding, readers decode.
//!
//! The window table is append-only: a cell goes from 0 to its value once, first free cell
//! first, and nobody passes a free cell without trying to take it. So no upper half stands in
//! it twice, and whether a run is stored narrow or wide follows from the run and the final
//! table alone. Runs with upper halves in more windows than a node can name never enter the
//! table, so that words which are no addresses do not use it up.

use crate::layout::{Header, RUN_FRAMES, WINDOW_COUNT};
use crate::sync::{AtomicU64, Ordering};

/// The frames of one node, leaf first. Places beyond its length hold the upper half of the first
/// frame and a lower half of 0, so that runs are hashed, encoded and compared whole, whatever
/// their length. (The length itself is in the hash and in the node's state.)
pub(crate) type Run = [u64; RUN_FRAMES];

/// Ten words of ones, then ten of zeros: the mask of `length` frames begins `length` words before
/// the middle.
pub(crate) const MASKS: [u64; 2 * RUN_FRAMES] = masks();

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which refuses an index out of bounds"
)]
const fn masks() -> [u64; 2 * RUN_FRAMES] {
    let mut masks = [0; 2 * RUN_FRAMES];
    let mut position = 0;
    while position < RUN_FRAMES {
        masks[position] = u64::MAX;
        position += 1;
    }
    masks
}

/// All ones for the first `length` frames, zeros beyond.
#[inline]
fn mask(length: usize) -> Option<&'static Run> {
    MASKS.get(RUN_FRAMES.checked_sub(length)?..)?.first_chunk()
}

/// The first `length` frames as a padded run, without a branch on the length: it is what a
/// processor predicts worst.
#[inline]
pub(crate) fn pad(frames: &[u64], length: usize) -> Run {
    let (Some(first), Some(mask)) = (frames.first(), mask(length)) else {
        return [0; RUN_FRAMES];
    };
    let filler = first & HIGH;
    match frames.first_chunk() {
        Some(run) => fill(run, mask, filler),
        None => fill(&repeat_last(frames), mask, filler),
    }
}

#[inline]
fn fill(run: &Run, mask: &Run, filler: u64) -> Run {
    let mut filled = [0; RUN_FRAMES];
    for ((place, frame), mask) in filled.iter_mut().zip(run).zip(mask) {
        *place = (frame & mask) | (filler & !mask);
    }
    filled
}

/// A run of a short stack, its last frame repeated.
#[inline]
fn repeat_last(frames: &[u64]) -> Run {
    let last = frames.len().saturating_sub(1);
    core::array::from_fn(|position| frames.get(position.min(last)).copied().unwrap_or(0))
}

/// Which window each frame of a node is in: two bits of selector per frame in the low 20 bits
/// (0: window A, 1: window B, 2: the table's first, 3: its second), A in the next 6, B in the top 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Windows(pub u32);

/// The upper half of a frame, in place.
pub(crate) const HIGH: u64 = !0 << 32;
/// In a cell of the window table: taken, with the upper half below.
const TAKEN: u64 = 1 << 32;
/// The selectors of all frames of a run.
pub(crate) const SELECTORS: u32 = (1 << WINDOW_SHIFT) - 1;
/// Above it stand the windows of a node's own.
pub(crate) const WINDOW_SHIFT: u32 = 20;
const A_SHIFT: u32 = WINDOW_SHIFT;
const B_SHIFT: u32 = 26;
const CELL_MASK: u32 = 63;

impl Windows {
    /// All frames in the table's first window, as nearly all of a kernel's are.
    pub const ALL_FIRST: u32 = FIRST_BITS * 2;

    /// Window A's cell of the table.
    #[inline]
    pub const fn a(self) -> usize {
        (self.0 >> A_SHIFT & CELL_MASK) as usize
    }

    /// Window B's cell of the table.
    #[inline]
    pub const fn b(self) -> usize {
        (self.0 >> B_SHIFT & CELL_MASK) as usize
    }

    /// The table's cell for the frame at a position of the run.
    pub const fn cell_of(self, position: usize) -> usize {
        match self.0 >> (position * 2) & 3 {
            0 => self.a(),
            1 => self.b(),
            2 => 0,
            _ => 1,
        }
    }

    /// The upper half in a cell of the table, `None` when the cell is free (or damaged).
    #[inline]
    pub const fn high_of_cell(cell: u64) -> Option<u32> {
        if cell & TAKEN != 0 {
            Some(cell as u32)
        } else {
            None
        }
    }
}

/// The windows table of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowTable<'r>(&'r [AtomicU64; WINDOW_COUNT]);

/// Packs halves of frames two to a word.
pub(crate) fn pack(run: &Run, half: impl Fn(u64) -> u64) -> [u64; RUN_FRAMES / 2] {
    let mut packed = [0; RUN_FRAMES / 2];
    for (word, pair) in packed.iter_mut().zip(run.as_chunks::<2>().0) {
        let [first, second] = pair;
        *word = half(*second) << 32 | half(*first);
    }
    packed
}

/// The lower half of a frame.
pub(crate) fn low(frame: u64) -> u64 {
    frame & 0xffff_ffff
}

/// The upper half of a frame.
pub(crate) fn high(frame: u64) -> u64 {
    frame >> 32
}

/// Windows that a node can name besides the first two.
const MOST_OWN: usize = 2;
/// Windows that a node can name.
const MOST_WINDOWS: usize = 2 + MOST_OWN;

/// The lower bit of every frame's selector.
const FIRST_BITS: u32 = ((1 << (2 * RUN_FRAMES)) - 1) / 3;

/// The upper halves that occur in a run, in order, and the lower selector bits of the frames that
/// have them; `None` when they are too many for any node.
fn distinct_highs(run: &Run) -> Option<([u64; MOST_WINDOWS], [u32; MOST_WINDOWS])> {
    let (mut highs, mut places) = ([0; MOST_WINDOWS], [0; MOST_WINDOWS]);
    let mut rest = FIRST_BITS;
    for (noted, place) in highs.iter_mut().zip(&mut places) {
        let Some(frame) = run.get(rest.trailing_zeros() as usize / 2) else {
            break;
        };
        let of_high = |frame: &u64, high: u64| u32::from(frame >> 32 == high);
        *noted = frame >> 32;
        *place = run
            .iter()
            .rev()
            .fold(0, |bits, frame| bits << 2 | of_high(frame, *noted));
        rest &= !*place;
    }
    (rest == 0).then_some((highs, places))
}

/// The cells that a node names itself, as they come.
#[derive(Default)]
struct OwnWindows {
    /// The part of the word that names them.
    word: u32,
    count: u32,
}

impl OwnWindows {
    /// Names one more cell; answers its selector, `None` when there is no room.
    fn name(&mut self, cell: usize) -> Option<u32> {
        let shift = *[A_SHIFT, B_SHIFT].get(self.count as usize)?;
        self.word |= (cell as u32 & CELL_MASK) << shift;
        self.count += 1;
        Some(self.count - 1)
    }
}

impl<'r> WindowTable<'r> {
    /// The table of a region.
    #[inline]
    pub fn of(header: &'r Header) -> WindowTable<'r> {
        WindowTable(&header.windows)
    }

    /// The upper half in a cell, shifted to where frames have it; 0 for a free cell.
    #[inline]
    pub fn high_bits(self, cell: usize) -> u64 {
        // ORDERING: Relaxed. A cell is one word that changes once; a node that names it was
        // published after the cell was taken, and readers acquire the node first.
        self.0
            .get(cell)
            .map_or(0, |cell| cell.load(Ordering::Relaxed) << 32)
    }

    /// The upper halves in the first two cells, `None` where a cell is free.
    #[inline]
    pub fn first_two(self) -> [Option<u32>; 2] {
        [self.cell(0), self.cell(1)].map(Windows::high_of_cell)
    }

    /// The shifted upper halves that the four selectors stand for.
    #[inline]
    pub fn selected(self, windows: Windows) -> [u64; 4] {
        [
            self.high_bits(windows.a()),
            self.high_bits(windows.b()),
            self.high_bits(0),
            self.high_bits(1),
        ]
    }

    /// The windows of a run; takes cells for those that are new. `None`: it is stored wide.
    pub fn windows_of(self, run: &Run) -> Option<Windows> {
        if self.is_all_first(run) {
            return Some(Windows(Windows::ALL_FIRST));
        }
        self.mixed_windows(run)
    }

    #[inline(never)]
    fn mixed_windows(self, run: &Run) -> Option<Windows> {
        let (highs, places) = distinct_highs(run)?;
        let found = || {
            highs
                .iter()
                .zip(&places)
                .take_while(|(_, place)| **place != 0)
        };
        if self.spans_too_many(found().map(|(high, _)| *high)) {
            return None;
        }
        let (mut own, mut selectors) = (OwnWindows::default(), 0);
        for (high, place) in found() {
            let selector = match self.find_or_take(*high)? {
                cell @ 0..2 => 2 + cell as u32,
                cell => own.name(cell)?,
            };
            selectors |= place * selector;
        }
        Some(Windows(selectors | own.word))
    }

    /// Whether all frames are in the table's first window: what follows comes to the same, slower.
    fn is_all_first(self, run: &Run) -> bool {
        let first = self.high_bits(0);
        let difference = run.iter().fold(0, |all, frame| all | (frame ^ first));
        self.is_taken(0) && difference >> 32 == 0
    }

    /// Whether more windows occur than a node can name, even if every cell of the first two
    /// that is still free were given to this run. Final: the answer cannot change to `false`.
    fn spans_too_many(self, highs: impl Iterator<Item = u64>) -> bool {
        let first_two = [self.cell(0), self.cell(1)];
        let free_count = first_two.iter().filter(|cell| **cell == 0).count();
        let others = highs.filter(|high| !first_two.contains(&(TAKEN | high)));
        others.count() > MOST_OWN + free_count
    }

    /// Whether a cell holds a window.
    #[inline]
    pub fn is_taken(self, cell: usize) -> bool {
        Windows::high_of_cell(self.cell(cell)).is_some()
    }

    #[inline]
    fn cell(self, index: usize) -> u64 {
        // ORDERING: Relaxed, see `high_bits`.
        self.0
            .get(index)
            .map_or(0, |cell| cell.load(Ordering::Relaxed))
    }

    /// The cell of an upper half, taking the first free one if need be; `None` when all are taken.
    fn find_or_take(self, high: u64) -> Option<usize> {
        let wanted = TAKEN | high;
        for (index, cell) in self.0.iter().enumerate() {
            // ORDERING: Relaxed load and exchange: the cell is its own message (one word,
            // changed once); no other data hangs on it.
            let mut found = cell.load(Ordering::Relaxed);
            if found == 0 {
                found = match cell.compare_exchange(0, wanted, Ordering::Relaxed, Ordering::Relaxed)
                {
                    Ok(_) => wanted,
                    Err(other) => other,
                };
            }
            if found == wanted {
                return Some(index);
            }
        }
        None
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    extern crate std;

    use super::*;

    fn table() -> [AtomicU64; WINDOW_COUNT] {
        core::array::from_fn(|_| AtomicU64::new(0))
    }

    /// A run's lower halves, stored and read again, below the upper halves of those windows.
    fn decode(table: WindowTable<'_>, run: &Run, windows: Windows, length: usize) -> Run {
        let packed = pack(run, low);
        let lows = packed.iter().flat_map(|pair| [low(*pair), high(*pair)]);
        let frames = lows
            .enumerate()
            .map(|(position, low)| table.high_bits(windows.cell_of(position)) | low);
        pad(&frames.collect::<std::vec::Vec<_>>(), length)
    }

    #[test]
    fn runs_of_up_to_four_windows_come_back_bit_for_bit() {
        let cells = table();
        let table = WindowTable(&cells);
        for windows in [1u64, 2, 3, 4] {
            for length in 1..=RUN_FRAMES {
                let frame =
                    |position: u64| (0x7f00 + position % windows) << 32 | 0xdead_0000 | position;
                let run = pad(
                    &core::array::from_fn::<_, RUN_FRAMES, _>(|position| frame(position as u64)),
                    length,
                );
                let windows = table.windows_of(&run).unwrap();
                assert_eq!(decode(table, &run, windows, length), run);
            }
        }
    }

    #[test]
    fn a_run_is_wide_when_it_spans_more_windows_than_it_can_ever_name() {
        for taken in [&[][..], &[1], &[1, 2], &[1, 2, 3, 4, 5, 6]] {
            // Six windows in any mixture of which each place takes one.
            for choice in 0..6u64.pow(6) {
                let high = |place: usize| 1 + choice / 6u64.pow(place as u32 % 6) % 6;
                let run: Run = core::array::from_fn(|place| high(place) << 32 | 9);
                let cells = table();
                let table = WindowTable(&cells);
                for window in taken {
                    table.find_or_take(*window);
                }
                let mut unknown: [u64; RUN_FRAMES] = run.map(|frame| frame >> 32);
                unknown.sort_unstable();
                let distinct = unknown.chunk_by(|one, other| one == other);
                let is_unknown =
                    |chunk: &&[u64]| !taken.iter().take(2).any(|known| chunk[0] == *known);
                let unknown_count = distinct.filter(is_unknown).count();
                let room = 2 + 2usize.saturating_sub(taken.len());
                let windows = table.windows_of(&run);
                assert_eq!(windows.is_none(), unknown_count > room, "{run:x?}");
                if let Some(windows) = windows {
                    assert_eq!(decode(table, &run, windows, RUN_FRAMES), run);
                } else {
                    let known = table
                        .0
                        .iter()
                        .filter(|cell| cell.load(Ordering::Relaxed) != 0);
                    assert_eq!(known.count(), taken.len(), "a wide run takes no cell");
                }
            }
        }
    }

    #[test]
    fn unrelated_words_are_wide_and_leave_the_table_alone() {
        let cells = table();
        let table = WindowTable(&cells);
        let run: Run = core::array::from_fn(|position| {
            (position as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        });
        assert_eq!(table.windows_of(&run), None);
        assert_eq!(table.cell(0), 0);
    }

    #[test]
    fn the_last_window_is_used_and_the_next_is_wide() {
        let cells = table();
        let table = WindowTable(&cells);
        for window in 0..WINDOW_COUNT as u64 + 1 {
            let run = pad(&[window << 32 | 5], 1);
            match table.windows_of(&run) {
                Some(windows) => assert_eq!(decode(table, &run, windows, 1), run),
                None => assert_eq!(window, WINDOW_COUNT as u64),
            }
        }
        assert!(table.windows_of(&pad(&[u64::MAX], 1)).is_none());
    }
}
