//! The stacks that attackers save: made from a number, so that what comes back can be checked
//! without a table, in a signal handler too.
//!
//! They share outer frames as real ones do, lie in three windows, and are of every depth up to
//! 35. Some have words that are no addresses (stored wide), some are the outer part of another
//! (inner nodes that are saved stacks themselves).

use std::collections::HashMap;

use stackdepot::{Depot, FetchError, RUN_FRAMES, WeakHandle};

const MOST_DEPTH: usize = 35;
const WINDOWS: [u64; 4] = [
    0x5555_0000_0000,
    0x7fff_0000_0000,
    0xffff_ffff_8100_0000,
    0x5555_0000_0000,
];

/// SplitMix64's scrambler.
pub fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Numbers that repeat exactly.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = mix(self.0);
        self.0 % bound
    }

    pub fn one_in(&mut self, odds: u64) -> bool {
        self.below(odds) == 0
    }
}

/// A stack, innermost frame first, without a heap.
#[derive(Clone, Copy)]
pub struct Stack {
    frames: [u64; MOST_DEPTH],
    start: usize,
    end: usize,
}

impl Stack {
    /// Stack number `id`. Different numbers may give equal stacks.
    pub fn new(id: u64) -> Stack {
        let outer_part = id % 5 == 4;
        let whole = Stack::whole(if outer_part { id - 1 } else { id });
        let full = whole.end / RUN_FRAMES * RUN_FRAMES;
        let start = if outer_part && full > 0 {
            whole.end - full
        } else {
            0
        };
        Stack { start, ..whole }
    }

    fn whole(id: u64) -> Stack {
        let depth = 1 + (mix(id) % MOST_DEPTH as u64) as usize;
        let mut frames = [0; MOST_DEPTH];
        for level in 0..depth {
            // The root is shared by 4096 neighbours, each level further in by half as many.
            let group = id >> 12usize.saturating_sub(level);
            let word = mix(group.wrapping_mul(64).wrapping_add(level as u64));
            let is_wide = id % 47 == 3 && level + 3 > depth;
            let narrow = WINDOWS[(word >> 40) as usize % WINDOWS.len()] + (word & 0xffff) * 4;
            frames[depth - 1 - level] = if is_wide { word } else { narrow };
        }
        Stack {
            frames,
            start: 0,
            end: depth,
        }
    }

    pub fn frames(&self) -> &[u64] {
        &self.frames[self.start..self.end]
    }
}

/// A stack of one frame that no numbered stack has: takes one slot.
pub fn filler(number: u64) -> [u64; 1] {
    [WINDOWS[0] + 0x100_0000 + number * 8]
}

/// The stacks of the first numbers, by their frames; and the fillers.
pub struct Known(HashMap<Vec<u64>, u64>);

impl Known {
    pub fn first(count: u64) -> Known {
        Known(
            (0..count)
                .map(|id| (Stack::new(id).frames().to_vec(), id))
                .collect(),
        )
    }

    pub fn id_of(&self, frames: &[u64]) -> Option<u64> {
        self.0.get(frames).copied()
    }

    pub fn contains(&self, frames: &[u64]) -> bool {
        let is_filler = |frame: u64| frame >= filler(0)[0] && frame < filler(1 << 20)[0];
        self.0.contains_key(frames) || matches!(frames, [frame] if is_filler(*frame))
    }
}

/// What a fetch of a weak handle showed, compared with the stack that it was given for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    Right,
    Evicted,
    /// Another stack: the one answer that must never be.
    Wrong,
}

/// Fetches a weak handle that was given for stack number `id`.
pub fn look(depot: &Depot<'_>, weak: WeakHandle, id: u64) -> Seen {
    let mut frames = [0; MOST_DEPTH];
    let stack = Stack::new(id);
    match depot.fetch(weak, &mut frames) {
        Err(FetchError::Evicted) => Seen::Evicted,
        Ok(fetched) => {
            let count = fetched.frame_count.min(MOST_DEPTH);
            let is_right = fetched.frame_count == stack.frames().len()
                && !fetched.is_cut
                && frames[..count] == *stack.frames();
            if is_right { Seen::Right } else { Seen::Wrong }
        }
    }
}
