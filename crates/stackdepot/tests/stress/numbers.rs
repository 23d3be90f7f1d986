//! Stacks whose frames follow from a number that is in their innermost frame, so that every
//! fetch can be checked for itself.

/// Bits of a stack's number.
pub const NUMBER_BITS: u32 = 24;
/// At most so many frames.
pub const MOST_DEPTH: u64 = 45;

pub fn mixed(seed: u64) -> u64 {
    let word = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

/// Numbers that repeat exactly.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed(self.0)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Stack number n: many share outer frames; every eleventh has words that are no addresses.
pub fn frames_of(number: u64) -> Vec<u64> {
    let depth = 1 + mixed(number) % MOST_DEPTH;
    let mut frames = vec![0x7f00_0000_0000 | number];
    for level in 1..depth {
        let shared = number >> (3 * (depth - level).min(8) / 2);
        let word = mixed(shared ^ level << 40);
        frames.push(if number.is_multiple_of(11) {
            word
        } else {
            (0x5500 + word % 3) << 32 | word >> 40
        });
    }
    frames
}

/// The number of a fetched stack, after comparing every frame that a depot of `max_frames` keeps.
pub fn number_of(frames: &[u64], max_frames: usize) -> u64 {
    let number = frames[0] & ((1 << NUMBER_BITS) - 1);
    let mut whole = frames_of(number);
    whole.truncate(max_frames);
    assert!(frames == whole, "stack {number} came back as {frames:x?}");
    number
}
