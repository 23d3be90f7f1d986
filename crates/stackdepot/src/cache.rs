//! Holds taken in advance: a thread that holds and puts the same stacks again and again writes no
//! shared word for it.
//!
//! Key types: [`HoldCache`], one thread's table of entries, and [`HoldCaches`], those of all threads in
//! one range of memory. An entry names a stack and owns references on it, taken as many at a time: a
//! hold hands one of them out, a put takes one in, and what both add to the payload waits in the entry.
//! A stack that has no entry is held on the depot itself; one that comes twice while the entry that it
//! would have is out of use takes it over. So a stack may be put by another thread than the one that
//! held it, through its cache or without one: references are all alike.
//!
//! Counts of a stack are the depot's payload and what waits in the entries that name it
//! ([`EntryImage`], for readers of a shared file). They go over a word at a time. A word counts twice
//! while it is on its way: `MOVES` tells that it is, so that a reader can leave it out.
//!
//! ```
//! use stackdepot::cache::{CACHE_BYTES, HoldCaches};
//! use stackdepot::{Config, Depot, LINE_BYTES, Line};
//! let mut memory = vec![Line::ZERO; 1024];
//! let mut beside = vec![Line::ZERO; 2 * CACHE_BYTES / LINE_BYTES];
//! let config = Config {
//!     references: true,
//!     lease_ticks: 2,
//!     payload_words: 4,
//!     ..Config::new(65536)
//! };
//! let depot = Depot::new(&mut memory, &config).unwrap();
//! let caches = HoldCaches::new(&mut beside);
//! let weak = depot.save(&[0x401000]).unwrap();
//! // A thread allocates: blocks and bytes into words 0 and 1.
//! let [here, there] = [0, 1].map(|number| caches.get(number).unwrap());
//! for _ in 0..100 {
//!     here.hold_with_payload(&depot, weak, 0, &[1, 4096]).unwrap();
//! }
//! // Another one frees, into words 2 and 3; then both end.
//! there.put_for_lease(&depot, weak, 2, &[1, 4096]).unwrap();
//! [here, there].map(|cache| cache.clear(&depot));
//! assert_eq!(depot.payload(weak).unwrap(), [100, 409600, 1, 4096]);
//! assert_eq!(depot.walk().next().unwrap().references, 99);
//! ```
//!
//! INVARIANT C1: an entry that names a stack owns one reference more on it than it has credits.
//! INVARIANT C2: one thread at a time uses a cache. A caller that breaks this gets wrong counts, those of
//! references too: a stack that is held may then be evicted.

use crate::depot::Depot;
use crate::error::HoldError;
use crate::handle::{Tick, WeakHandle};
use crate::hold::Hold;
use crate::layout::MOST_PAYLOAD_WORDS;
use crate::section::{LINE_BYTES, WordLine, word_at};
use crate::sync::{AtomicU64, Ordering};

/// Entries of a thread's cache.
pub const CACHE_ENTRIES: usize = if cfg!(loom) { 1 } else { 32 };
/// Bytes of a thread's cache.
pub const CACHE_BYTES: usize = CACHE_ENTRIES * LINE_BYTES;

/// References that are taken at once, and given back when there are more than twice as many.
const BATCH: u64 = if cfg!(loom) { 1 } else { 64 };
/// What waits goes over when its first word comes to so much.
const MOST_WAITING: u64 = if cfg!(loom) { 2 } else { 1 << 12 };
/// So many stacks in a row that have no entry pass by one that was of use.
const MOST_WORTH: u64 = if cfg!(loom) { 0 } else { 3 };

/// The words of an entry: the stack's weak handle; 0 for none.
const STACK: usize = 0;
/// References to hand out, and from bit 32 on how many other stacks the entry passes by.
const CREDITS: usize = 1;
/// Which payload word is going over, and one more (0: none), in three bits; above, how often they went.
const MOVES: usize = 2;
/// The stack that last found the entry another's.
const WANTED: usize = 3;
/// Payload words that wait.
const WAITING: usize = 4;

const WORTH_SHIFT: u32 = 32;
const CREDITS_MASK: u64 = (1 << WORTH_SHIFT) - 1;
const MOVES_SHIFT: u32 = 3;

const _: () = assert!(WAITING + MOST_PAYLOAD_WORDS == 8);

/// The caches of all threads, in one range of memory; all zeros is empty ones.
#[derive(Clone, Copy, Debug)]
pub struct HoldCaches<'m> {
    lines: &'m [WordLine],
}

/// A cache of one thread.
#[derive(Clone, Copy, Debug)]
pub struct HoldCache<'m> {
    entries: &'m [WordLine; CACHE_ENTRIES],
}

#[derive(Clone, Copy)]
struct Entry<'m>(&'m WordLine);

impl<'m> HoldCaches<'m> {
    /// One of the caches, for a thread that is the only one to use this number; `None` beyond the last.
    #[inline(always)]
    pub fn get(&self, number: usize) -> Option<HoldCache<'m>> {
        let rest = self.lines.get(number.checked_mul(CACHE_ENTRIES)?..)?;
        let entries = rest.first_chunk()?;
        Some(HoldCache { entries })
    }

    /// Empties them after their writer died: adds what waited to the stacks that are still stored. Their
    /// references died with the writer.
    pub fn recover(&self, depot: &Depot<'_>) {
        for entry in self.lines.iter().map(Entry) {
            let Some(stack) = entry.stack() else { continue };
            // A word that was on its way is there or lost: left out, as readers do.
            if let Some(word) = entry.moving().and_then(|index| entry.waiting(index)) {
                word.store(0, Ordering::Relaxed);
            }
            if depot.payload(stack).is_ok() {
                entry.settle(depot, stack);
            }
            let WordLine(words) = entry.0;
            words
                .iter()
                .for_each(|word| word.store(0, Ordering::Relaxed));
        }
    }
}

#[cfg(not(loom))]
#[expect(
    unsafe_code,
    reason = "memory that the caller maps is vouched for by the caller"
)]
mod memory {
    use super::HoldCaches;
    use crate::layout::Line;
    use crate::section::{SectionError, lines_at, lines_of};
    use core::ptr::NonNull;

    impl<'m> HoldCaches<'m> {
        /// Makes caches in borrowed memory, one for each [`CACHE_BYTES`](super::CACHE_BYTES).
        pub fn new(memory: &'m mut [Line]) -> HoldCaches<'m> {
            HoldCaches {
                lines: lines_of(memory),
            }
        }

        /// Views caches that were made before, or makes them in zero-filled memory.
        ///
        /// # Safety
        /// `base` is valid for reads and writes of `bytes` bytes for `'m` and is accessed only
        /// through hold caches meanwhile (also by other processes).
        ///
        /// # Errors
        /// Memory that is unaligned.
        pub unsafe fn attach(
            base: NonNull<u8>,
            bytes: usize,
        ) -> Result<HoldCaches<'m>, SectionError> {
            // SAFETY: the caller's promise, passed on.
            let lines = unsafe { lines_at(base, bytes) }?;
            Ok(HoldCaches { lines })
        }
    }
}

#[cfg(loom)]
impl<'m> HoldCaches<'m> {
    /// Makes caches over loom's boxes.
    pub fn of_memory(memory: &'m crate::section::SectionMemory) -> HoldCaches<'m> {
        HoldCaches {
            lines: memory.lines(),
        }
    }
}

impl<'m> HoldCache<'m> {
    /// [`Depot::hold_with_payload`] with a reference and a lease, out of the entry if there is one.
    ///
    /// # Errors
    /// As for [`Depot::hold`]; nothing was added then.
    #[inline(always)]
    pub fn hold_with_payload(
        &self,
        depot: &Depot<'_>,
        weak: WeakHandle,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<(), HoldError> {
        let entry = self.entry(weak);
        if entry.names(weak) && entry.has_credit() {
            depot.renew(weak)?;
            entry.take();
            entry.add(depot, weak, first_word, deltas);
            return Ok(());
        }
        self.hold_of_depot(depot, weak, first_word, deltas)
    }

    #[inline(never)]
    fn hold_of_depot(
        &self,
        depot: &Depot<'_>,
        weak: WeakHandle,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<(), HoldError> {
        depot.hold_with_payload(weak, Hold::ReferenceAndLease, first_word, deltas)?;
        let entry = self.entry(weak);
        if entry.names(weak) {
            entry.restock(depot, weak);
        } else {
            entry.offer(depot, weak);
        }
        Ok(())
    }

    /// [`Depot::put_for_lease`], into the entry if there is one.
    ///
    /// # Errors
    /// Why there is no lease; the reference is given back all the same.
    #[inline(always)]
    pub fn put_for_lease(
        &self,
        depot: &Depot<'_>,
        held: WeakHandle,
        first_word: usize,
        deltas: &[u64],
    ) -> Result<Tick, HoldError> {
        let entry = self.entry(held);
        if entry.names(held) {
            let leased = depot.renew(held);
            entry.add(depot, held, first_word, deltas);
            entry.give(depot, held);
            return leased;
        }
        entry.offer(depot, held);
        depot.put_for_lease(held, first_word, deltas)
    }

    /// Gives back all that the cache holds; what waited is counted.
    pub fn clear(&self, depot: &Depot<'_>) {
        for entry in self.entries.iter().map(Entry) {
            entry.leave(depot);
        }
    }

    #[inline(always)]
    fn entry(&self, weak: WeakHandle) -> Entry<'m> {
        let [first, ..] = self.entries;
        let index = weak.slot() as usize % CACHE_ENTRIES;
        Entry(self.entries.get(index).unwrap_or(first))
    }
}

impl<'m> Entry<'m> {
    #[inline(always)]
    fn word(self, index: usize) -> &'m AtomicU64 {
        let WordLine(words) = self.0;
        let [first, ..] = words;
        words.get(index).unwrap_or(first)
    }

    /// A payload word that waits.
    #[inline(always)]
    fn waiting(self, index: usize) -> Option<&'m AtomicU64> {
        let WordLine(words) = self.0;
        words.get(WAITING + index)
    }

    #[inline(always)]
    fn load(self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    #[inline(always)]
    fn store(self, index: usize, value: u64) {
        // ORDERING: Relaxed: one thread at a time stores; others only read copies.
        self.word(index).store(value, Ordering::Relaxed);
    }

    #[inline(always)]
    fn names(self, weak: WeakHandle) -> bool {
        // An empty entry names nothing, whatever a forged handle says.
        weak.to_bits() != 0 && self.load(STACK) == weak.to_bits()
    }

    fn stack(self) -> Option<WeakHandle> {
        let bits = self.load(STACK);
        (bits != 0).then(|| WeakHandle::from_bits(bits))
    }

    #[inline(always)]
    fn has_credit(self) -> bool {
        self.load(CREDITS) & CREDITS_MASK != 0
    }

    /// Hands a reference out; the entry was of use.
    #[inline(always)]
    fn take(self) {
        let credits = self.load(CREDITS) & CREDITS_MASK;
        self.store(CREDITS, (credits - 1) | MOST_WORTH << WORTH_SHIFT);
    }

    /// Takes a reference in.
    #[inline(always)]
    fn give(self, depot: &Depot<'_>, weak: WeakHandle) {
        let credits = (self.load(CREDITS) & CREDITS_MASK) + 1;
        self.store(CREDITS, credits | MOST_WORTH << WORTH_SHIFT);
        if credits > 2 * BATCH {
            self.give_back(depot, weak, credits);
        }
    }

    #[cold]
    #[inline(never)]
    fn give_back(self, depot: &Depot<'_>, weak: WeakHandle, credits: u64) {
        // First out of the entry, then off the stack: a thread that ends in between holds too many,
        // never too few.
        self.store(CREDITS, (credits - BATCH) | MOST_WORTH << WORTH_SHIFT);
        depot.region.release_many(weak.slot(), BATCH);
    }

    /// Adds to what waits.
    #[inline(always)]
    fn add(self, depot: &Depot<'_>, weak: WeakHandle, first_word: usize, deltas: &[u64]) {
        let WordLine(words) = self.0;
        let waiting = words.get(WAITING + first_word..).unwrap_or(&[]);
        let mut first = 0;
        for (word, delta) in waiting.iter().zip(deltas).rev() {
            first = word.load(Ordering::Relaxed).wrapping_add(*delta);
            word.store(first, Ordering::Relaxed);
        }
        if first >= MOST_WAITING {
            self.settle(depot, weak);
        }
    }

    /// What waits goes over to the payload.
    #[cold]
    #[inline(never)]
    fn settle(self, depot: &Depot<'_>, weak: WeakHandle) {
        let WordLine(words) = self.0;
        let moves = self.load(MOVES) >> MOVES_SHIFT << MOVES_SHIFT;
        for (index, word) in words.iter().skip(WAITING).enumerate() {
            let waiting = word.load(Ordering::Relaxed);
            if waiting == 0 {
                continue;
            }
            self.store(MOVES, moves | (index as u64 + 1));
            // ORDERING: a Release in there: readers see that the word is on its way before it is there.
            depot.region.add_words(weak.slot(), index, &[waiting]);
            // ORDERING: Release: it waits no longer only after it is there.
            word.store(0, Ordering::Release);
        }
        // ORDERING: Release: it is over when the words are 0.
        self.word(MOVES)
            .store(moves.wrapping_add(1 << MOVES_SHIFT), Ordering::Release);
    }

    /// Which payload word was on its way.
    fn moving(self) -> Option<usize> {
        moving(self.load(MOVES))
    }

    /// A stack that has no entry, and that the caller holds, may get this one.
    #[inline]
    fn offer(self, depot: &Depot<'_>, weak: WeakHandle) {
        let credits = self.load(CREDITS);
        if credits > CREDITS_MASK {
            self.store(CREDITS, credits - (1 << WORTH_SHIFT));
        } else if self.load(WANTED) == weak.to_bits() {
            self.enter(depot, weak);
            return;
        }
        self.store(WANTED, weak.to_bits());
    }

    /// The stack moves in, if it can.
    #[cold]
    #[inline(never)]
    fn enter(self, depot: &Depot<'_>, weak: WeakHandle) {
        self.leave(depot);
        if depot.region.acquire_many(weak, BATCH + 1).is_ok() {
            self.store(CREDITS, BATCH);
            self.store(STACK, weak.to_bits());
        }
    }

    /// More references for the stack that is there.
    #[cold]
    #[inline(never)]
    fn restock(self, depot: &Depot<'_>, weak: WeakHandle) {
        if depot.region.acquire_many(weak, BATCH).is_ok() {
            self.store(CREDITS, self.load(CREDITS) + BATCH);
        }
    }

    /// The stack that is there moves out.
    fn leave(self, depot: &Depot<'_>) {
        let Some(stack) = self.stack() else { return };
        self.settle(depot, stack);
        let owned = (self.load(CREDITS) & CREDITS_MASK) + 1;
        self.store(STACK, 0);
        self.store(CREDITS, 0);
        depot.region.release_many(stack.slot(), owned);
    }
}

fn moving(moves: u64) -> Option<usize> {
    (moves & ((1 << MOVES_SHIFT) - 1))
        .checked_sub(1)
        .map(|index| index as usize)
}

/// An entry in a copy of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryImage {
    /// The stack.
    pub stack: WeakHandle,
    /// References that the entry owns.
    pub references: u64,
    /// What waits to be added to the stack's payload, without a word that is on its way.
    pub waiting: [u64; MOST_PAYLOAD_WORDS],
    /// Whether a word was on its way: it is in the payload, or it is lost.
    pub is_moving: bool,
    moves: u64,
}

impl EntryImage {
    /// Bytes of an entry.
    pub const BYTES: usize = LINE_BYTES;

    /// Reads a copied entry; `None` for one that names no stack.
    pub fn parse(bytes: &[u8; EntryImage::BYTES]) -> Option<EntryImage> {
        EntryImage::of_words(core::array::from_fn(|index| word_at(bytes, index)))
    }

    fn of_words(words: [u64; 8]) -> Option<EntryImage> {
        let [stack, credits, moves, _, mut waiting @ ..] = words;
        let moving = moving(moves);
        if let Some(word) = moving.and_then(|index| waiting.get_mut(index)) {
            *word = 0;
        }
        (stack != 0).then(|| EntryImage {
            stack: WeakHandle::from_bits(stack),
            references: (credits & CREDITS_MASK) + 1,
            waiting,
            is_moving: moving.is_some(),
            moves,
        })
    }

    /// Whether nothing of it went over to the payload since this copy began, until a later one began.
    /// Then a payload that was read in between is without what waits in this copy.
    pub fn has_not_moved_until(&self, later: &EntryImage) -> bool {
        self.stack == later.stack && self.moves == later.moves
    }
}

#[cfg(all(test, loom))]
mod models;

#[cfg(all(test, not(loom)))]
mod tests;
