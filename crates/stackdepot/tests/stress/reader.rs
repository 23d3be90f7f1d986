//! What every thread of the stress does with what it gets: fetch, compare, count.

use stackdepot::{Depot, SaveError, WeakHandle};

use crate::Figures;
use crate::carried::Carried;
use crate::numbers::{NUMBER_BITS, Random, mixed, number_of};

/// Marks stacks that one thread saves, once: whoever meets one in the region got it there.
pub const OWN_BIT: u64 = 1 << (NUMBER_BITS - 1);
/// So many of them for each thread.
pub const OWN_COUNT: u64 = 1 << 16;

/// One thread's view of a depot.
pub struct Reader<'r> {
    pub depot: Depot<'r>,
    pub random: Random,
    pub figures: Figures,
    carried: &'r Carried,
    own_next: u64,
    own_end: u64,
}

impl<'r> Reader<'r> {
    pub fn new(depot: Depot<'r>, carried: &'r Carried, thread: u64) -> Reader<'r> {
        Reader {
            depot,
            random: Random(thread << 32),
            figures: Figures::default(),
            carried,
            own_next: thread * OWN_COUNT,
            own_end: (thread + 1) * OWN_COUNT,
        }
    }

    /// The number of a stack to save: of one that others save too, sometimes of one that only
    /// this thread saves, and only now.
    pub fn number(&mut self, variety: u64) -> u64 {
        if self.own_next == self.own_end || self.random.below(4) != 0 {
            return self.random.below(variety);
        }
        let own = self.own_next;
        self.own_next += 1;
        self.carried.write(own as usize, mixed(own));
        OWN_BIT | own
    }

    /// The number of a stored stack, after comparing all of it and what it carries.
    pub fn fetch(&mut self, weak: WeakHandle) -> Option<u64> {
        let mut frames = [0; 64];
        self.figures.operations += 1;
        let Ok(fetched) = self.depot.fetch(weak, &mut frames) else {
            self.figures.evicted += 1;
            return None;
        };
        let number = number_of(&frames[..fetched.frame_count], self.depot.max_frames());
        if number & OWN_BIT != 0 {
            let own = number & !OWN_BIT;
            self.carried.check(own as usize, mixed(own));
        }
        self.figures.checked += 1;
        Some(number)
    }

    /// Fetches and compares; a held stack must be there.
    pub fn check(&mut self, weak: WeakHandle, number: u64, is_held: bool) {
        match self.fetch(weak) {
            Some(found) => assert_eq!(found, number, "{weak:?} names another stack"),
            None => assert!(!is_held, "held stack {number} is gone"),
        }
    }

    /// Meets stacks of others: what a walk names is there, or gone since.
    pub fn walk(&mut self) {
        let skip = self.random.below(self.depot.stats().slot_count) as usize;
        for walked in self.depot.walk().skip(skip).take(4) {
            self.fetch(walked.weak);
        }
    }

    /// Lets another thread go on from here, one time in four.
    pub fn yield_sometimes(&mut self) {
        if self.random.below(4) == 0 {
            std::thread::yield_now();
        }
    }

    /// Counts a refusal, which is one of those that depend on the load.
    pub fn refuse(&mut self, error: SaveError) {
        assert!(
            matches!(
                error,
                SaveError::Full | SaveError::Contended | SaveError::Crowded
            ),
            "{error:?}"
        );
        self.figures.refused += 1;
    }
}
