//! A queue of stack numbers in which any one can be found and removed at once.
//!
//! Key type: [`List`], links in two arrays, since stacks are dense numbers. The newest is at the
//! head, the oldest at the tail; neighbours are `lru.rs`, `sieve.rs` and `s3fifo.rs`.

/// No stack.
const NONE: u32 = u32::MAX;

/// A doubly linked queue.
pub struct List {
    newer: Vec<u32>,
    older: Vec<u32>,
    is_in: Vec<bool>,
    newest: u32,
    oldest: u32,
    len: usize,
}

impl List {
    /// An empty queue for numbers below `stack_count`.
    pub fn new(stack_count: usize) -> List {
        List {
            newer: vec![NONE; stack_count],
            older: vec![NONE; stack_count],
            is_in: vec![false; stack_count],
            newest: NONE,
            oldest: NONE,
            len: 0,
        }
    }

    /// How many are in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether that one is in it.
    pub fn holds(&self, stack: u32) -> bool {
        self.is_in[stack as usize]
    }

    /// The one that came first.
    pub fn oldest(&self) -> Option<u32> {
        some(self.oldest)
    }

    /// The one that came next after that one.
    pub fn newer_than(&self, stack: u32) -> Option<u32> {
        some(self.newer[stack as usize])
    }

    /// Adds one as the newest; it must not be in the queue.
    pub fn push(&mut self, stack: u32) {
        self.newer[stack as usize] = NONE;
        self.older[stack as usize] = self.newest;
        match some(self.newest) {
            Some(newest) => self.newer[newest as usize] = stack,
            None => self.oldest = stack,
        }
        self.newest = stack;
        self.is_in[stack as usize] = true;
        self.len += 1;
    }

    /// Takes one out that is in the queue.
    pub fn remove(&mut self, stack: u32) {
        let (newer, older) = (self.newer[stack as usize], self.older[stack as usize]);
        match some(newer) {
            Some(newer) => self.older[newer as usize] = older,
            None => self.newest = older,
        }
        match some(older) {
            Some(older) => self.newer[older as usize] = newer,
            None => self.oldest = newer,
        }
        self.is_in[stack as usize] = false;
        self.len -= 1;
    }

    /// Takes the oldest out.
    pub fn pop_oldest(&mut self) -> Option<u32> {
        let oldest = self.oldest()?;
        self.remove(oldest);
        Some(oldest)
    }
}

fn some(link: u32) -> Option<u32> {
    (link != NONE).then_some(link)
}
