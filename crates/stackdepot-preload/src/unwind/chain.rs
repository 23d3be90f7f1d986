//! A chain of frame states, in columns: what is looked at for each frame lies close together.
//!
//! Key types: [`Chain`] and [`Traits`]; what they are for is told in `memo.rs`.

/// States of a chain; more than [`super::FRAME_LIMIT`], so that a recursion near the limit need
/// not start anew all the time.
pub const STATE_COUNT: usize = 320;

/// One value per state. No place outside of it is written, and reads there answer `T::default()`.
#[derive(Debug)]
pub struct Column<T>([T; STATE_COUNT]);

impl<T: Copy + Default> Column<T> {
    /// The value of a state.
    #[inline(always)]
    pub fn get(&self, at: usize) -> T {
        self.0.get(at).copied().unwrap_or_default()
    }

    /// Changes the value of a state.
    #[inline(always)]
    pub fn set(&mut self, at: usize, value: T) {
        if let Some(place) = self.0.get_mut(at) {
            *place = value;
        }
    }

    /// The values of a state and of those outwards of it.
    #[inline(always)]
    pub fn from(&self, at: usize) -> &[T] {
        self.0.get(at..).unwrap_or(&[])
    }
}

/// Frame states, innermost first. All zeros is a valid one.
#[derive(Debug)]
pub struct Chain {
    /// Return addresses into the frames.
    pub ips: Column<u64>,
    /// Stack pointers after the return.
    pub sps: Column<u64>,
    /// Frame pointer registers; not kept up to date where they do not matter.
    pub bps: Column<u64>,
    /// Where `bp` was read; 0 if it is the inner frame's.
    pub bp_ats: Column<u64>,
    /// Where `sp` was read; written only with [`Traits::HAS_CFA_AT`].
    pub cfa_ats: Column<u64>,
    /// Everything else.
    pub traits: Column<Traits>,
}

impl Chain {
    /// No state.
    pub const EMPTY: Chain = Chain {
        ips: Column([0; STATE_COUNT]),
        sps: Column([0; STATE_COUNT]),
        bps: Column([0; STATE_COUNT]),
        bp_ats: Column([0; STATE_COUNT]),
        cfa_ats: Column([0; STATE_COUNT]),
        traits: Column([Traits::NONE; STATE_COUNT]),
    };

    /// Copies a state of another chain to a place in this one.
    #[inline(always)]
    pub fn copy(&mut self, to: usize, from: &Chain, at: usize) {
        let traits = from.traits.get(at);
        self.ips.set(to, from.ips.get(at));
        self.sps.set(to, from.sps.get(at));
        self.bps.set(to, from.bps.get(at));
        self.bp_ats.set(to, from.bp_ats.get(at));
        if traits.has(Traits::HAS_CFA_AT) {
            self.cfa_ats.set(to, from.cfa_ats.get(at));
        }
        self.traits.set(to, traits);
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
    /// `sp` was read from the stack.
    pub const HAS_CFA_AT: u32 = 4;
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
