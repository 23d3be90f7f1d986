//! The stack words, besides return addresses, that the states of a memo were read from.
//!
//! Key types: [`Word`] and [`Words`]. Few frames need any: those whose caller is found by the frame
//! pointer, and those that keep their caller's stack pointer in memory.
//!
//! INVARIANT U2: of words that are [in order](Words::in_order) the addresses are multiples of 8, and
//! neither address nor saver of one is greater than that of the word before it; so those between two
//! that lie in a stack lie there, too, and those that were read inwards of a state are the last.

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
    /// How many, from the first on, U2 holds for.
    ordered_count: usize,
    list: [Word; WORD_COUNT],
}

impl Words {
    /// None.
    pub const EMPTY: Words = Words {
        count: 0,
        ordered_count: 0,
        list: [NO_WORD; WORD_COUNT],
    };

    /// Forgets all of them.
    #[inline(always)]
    pub fn clear(&mut self) {
        self.count = 0;
        self.ordered_count = 0;
    }

    /// Whether there is none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds one behind the others; `false`: there is no room.
    pub fn push(&mut self, word: Word) -> bool {
        let is_behind = match self
            .count
            .checked_sub(1)
            .and_then(|last| self.list.get(last))
        {
            Some(last) => word.address <= last.address && word.saver <= last.saver,
            None => true,
        };
        let Some(place) = self.list.get_mut(self.count) else {
            return false;
        };
        *place = word;
        let is_ordered = is_behind && word.address.is_multiple_of(8);
        self.ordered_count += usize::from(is_ordered && self.ordered_count == self.count);
        self.count += 1;
        true
    }

    /// Those of which the user is `state` or outwards of it, if U2 holds for all there are.
    #[inline(always)]
    pub fn in_order(&self, state: usize) -> Option<&[Word]> {
        (self.ordered_count == self.count).then(|| self.from(state))
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

    /// Forgets those of which the user is inwards of `state`, and moves those that are left and were
    /// read at `state` or inwards of it to where they are read now. Between these there may be others.
    pub fn keep_from(&mut self, state: usize, address: u64, saver: usize) {
        let is_moved = |word: &Word| word.saver <= state;
        let kept = self.from(state);
        // Those of `bp` have their savers in the order of their users; the others come in between.
        let last = kept.iter().rev();
        let moved_count = last
            .take_while(|word| is_moved(word) || word.saver > word.user)
            .count();
        let end = kept.len();
        self.truncate(end - moved_count);
        for place in end - moved_count..end {
            if let Some(word) = self.list.get(place).copied() {
                // There is room: it takes its old place.
                self.push(match is_moved(&word) {
                    true => Word {
                        address,
                        saver,
                        ..word
                    },
                    false => word,
                });
            }
        }
    }

    fn truncate(&mut self, count: usize) {
        self.count = count;
        self.ordered_count = self.ordered_count.min(count);
    }

    /// Whether [`keep_from`](Words::keep_from) would change nothing.
    #[inline(always)]
    pub fn are_kept_from(&self, state: usize) -> bool {
        self.all()
            .last()
            .is_none_or(|last| last.user >= state && last.saver > state && last.saver <= last.user)
    }
}

#[cfg(test)]
mod tests {
    use super::{Word, Words};

    fn word(address: u64, user: usize, saver: usize) -> Word {
        Word {
            address,
            value: 0,
            user,
            saver,
        }
    }

    #[test]
    fn words_out_of_order_say_so_until_they_are_gone() {
        for odd in [word(88, 7, 2), word(76, 7, 2), word(40, 7, 5)] {
            let mut words = Words::EMPTY;
            assert!(words.push(word(80, 8, 4)));
            assert!(words.push(odd));
            assert!(words.push(word(32, 6, 1)));
            assert!(words.in_order(0).is_none(), "{odd:?}");
            words.keep_from(8, 72, 5);
            assert_eq!(words.in_order(0).map(<[Word]>::len), Some(1));
        }
    }

    #[test]
    fn what_was_read_inwards_moves() {
        let mut words = Words::EMPTY;
        for kept in [
            word(80, 9, 8),
            word(48, 8, 3),
            word(64, 7, 8),
            word(48, 7, 3),
        ] {
            assert!(words.push(kept));
        }
        assert!(!words.are_kept_from(7));
        words.keep_from(7, 56, 6);
        let all = words.all().iter();
        let moved: Vec<_> = all.map(|word| (word.address, word.saver)).collect();
        assert_eq!(moved, [(80, 8), (56, 6), (64, 8), (56, 6)]);
        assert!(words.in_order(0).is_none());
    }
}
