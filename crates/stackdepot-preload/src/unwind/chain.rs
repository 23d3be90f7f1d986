//! A chain of frame states: what a walk went through.
//!
//! Key types: [`Chain`], [`State`] and [`Traits`]; what they are for is told in `memo.rs`.

/// States of a chain; more than [`super::FRAME_LIMIT`], so that a recursion near the limit need
/// not start anew all the time.
pub const STATE_COUNT: usize = 320;

/// A frame and how it was reached.
#[derive(Clone, Copy, Debug)]
pub struct State {
    /// Return address into the frame.
    pub ip: u64,
    /// Stack pointer after the return.
    pub sp: u64,
    /// Frame pointer register; not kept up to date where it does not matter.
    pub bp: u64,
    /// Where `bp` was read; 0 if it is the inner frame's.
    pub bp_at: u64,
    /// Where `sp` was read; 0 if it was computed.
    pub cfa_at: u64,
    /// Number of the path that ends in the frame; 0 where there is none.
    pub path: u64,
    /// Everything else.
    pub traits: Traits,
}

impl State {
    /// Of no frame.
    pub const NONE: State = State {
        ip: 0,
        sp: 0,
        bp: 0,
        bp_at: 0,
        cfa_at: 0,
        path: 0,
        traits: Traits::NONE,
    };
}

/// Frame states, innermost first. Reads outside answer [`State::NONE`], and writes there are lost.
#[derive(Debug)]
pub struct Chain([State; STATE_COUNT]);

impl Chain {
    /// No state.
    pub const EMPTY: Chain = Chain([State::NONE; STATE_COUNT]);

    /// A state.
    #[inline(always)]
    pub fn get(&self, at: usize) -> &State {
        const NONE: &State = &State::NONE;
        self.0.get(at).unwrap_or(NONE)
    }

    /// A state, to be changed.
    #[inline(always)]
    pub fn get_mut(&mut self, at: usize) -> Option<&mut State> {
        self.0.get_mut(at)
    }

    /// A state and those outwards of it.
    #[inline(always)]
    pub fn from(&self, at: usize) -> &[State] {
        self.0.get(at..).unwrap_or(&[])
    }
}

/// What else there is to a state: flags, and how many words that a memo checks belong to it and
/// to those outwards of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traits(u32);

impl Traits {
    /// No flag, no words.
    pub const NONE: Traits = Traits(0);
    /// The next step, outwards, starts from `bp`.
    pub const USES_BP: u32 = 1;
    /// A step outwards depends on this `bp`.
    pub const BP_MATTERS: u32 = 2;
    const WORDS_SHIFT: u32 = 16;

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(self, flag: u32) -> bool {
        self.0 & flag != 0
    }

    /// The same with a flag set.
    #[inline(always)]
    pub const fn with(self, flag: u32) -> Traits {
        Traits(self.0 | flag)
    }

    /// The same without a flag.
    #[inline(always)]
    pub const fn without(self, flag: u32) -> Traits {
        Traits(self.0 & !flag)
    }

    /// The words.
    #[inline(always)]
    pub const fn word_count(self) -> usize {
        (self.0 >> Self::WORDS_SHIFT) as usize
    }

    /// The same flags with so many words.
    #[inline(always)]
    pub const fn with_words(self, word_count: usize) -> Traits {
        let flags = self.0 & ((1 << Self::WORDS_SHIFT) - 1);
        Traits(flags | (word_count as u32) << Self::WORDS_SHIFT)
    }
}
