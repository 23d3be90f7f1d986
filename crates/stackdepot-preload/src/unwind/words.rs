//! The stack words, besides return addresses, that the states of a memo were read from.
//!
//! Key types: [`Word`] and [`Words`]. Few frames need any: those whose caller is found by the frame
//! pointer, and those that keep their caller's stack pointer in memory.

/// States that a memo can hold; more than [`super::FRAME_LIMIT`], so that a recursion near the limit
/// need not start anew all the time.
pub const STATE_COUNT: usize = 320;
/// A state has two at most.
const WORD_COUNT: usize = 2 * STATE_COUNT;

/// A word on which a step depends. States are named by their places, which grow outwards.
#[derive(Clone, Copy, Debug)]
pub struct Word {
    /// Where it lies; 0 for the register `bp` of the innermost frame.
    pub address: u64,
    /// What it was.
    pub value: u64,
    /// The state from which the step started that needs it.
    pub user: usize,
    /// The state to which the step led that read it; 0 for the register.
    pub saver: usize,
}

const NO_WORD: Word = Word {
    address: 0,
    value: 0,
    user: 0,
    saver: 0,
};

/// Words, sorted by their users.
#[derive(Debug)]
pub struct Words {
    count: usize,
    list: [Word; WORD_COUNT],
}

impl Words {
    /// None.
    pub const EMPTY: Words = Words {
        count: 0,
        list: [NO_WORD; WORD_COUNT],
    };

    /// Forgets all of them.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.count = 0;
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one behind the others; `false`: there is no room.
    pub fn push(&mut self, word: Word) -> bool {
        let Some(place) = self.list.get_mut(self.count) else {
            return false;
        };
        *place = word;
        self.count += 1;
        true
    }

    /// All of them, in the order in which they came.
    #[inline]
    pub fn all(&self) -> &[Word] {
        self.list.get(..self.count).unwrap_or_default()
    }

    /// Those of which the user is `state` or outwards of it, where the outermost came first.
    #[inline]
    pub fn from(&self, state: usize) -> &[Word] {
        let mut words = self.all();
        while let [outer @ .., last] = words
            && last.user < state
        {
            words = outer;
        }
        words
    }

    /// Forgets the others.
    #[inline]
    pub fn keep_from(&mut self, state: usize) -> &mut [Word] {
        self.count = self.from(state).len();
        self.list.get_mut(..self.count).unwrap_or_default()
    }
}
