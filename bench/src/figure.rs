//! What is measured and who is measured: the words that the rest of the benchmark shares.
//!
//! Key types: [`Figure`] (the rounds of one side at one measure) and [`Peer`] with what some peers
//! can do beyond it ([`Holding`], [`Ringed`], [`Shared`]). Drivers are generic over these traits, so each side is compiled
//! into its own copy of the same loop.

use stackdepot_corpus::Event;

use crate::workload::Workload;

/// The name of a measure, the same in tables, JSON and bars.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Measure(pub &'static str);

/// The rounds of one side at one measure on one workload.
///
/// Rounds of different sides with equal index were taken next to each other.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub measure: Measure,
    /// On which workload.
    pub workload: String,
    /// Whose figure this is.
    pub side: String,
    /// Unit of `rounds`.
    pub unit: &'static str,
    /// One value per round.
    pub rounds: Vec<f64>,
}

/// A store of stacks: ours, a peer, or the limit.
///
/// A side lives in a process of its own, so it may be global. `save` and what holds are called
/// through the driver only; an implementation in Rust marks them `#[inline(never)]`, as the peers in
/// C are calls too.
pub trait Peer: Sized + 'static {
    /// What tables call it.
    const NAME: &'static str;

    /// Whether it overwrites stacks that were just saved. Its figures then flatter it.
    const MAY_LOSE: bool = false;

    /// Why it cannot be measured here, if so.
    fn missing() -> Option<String> {
        None
    }

    /// A fresh store from untouched memory, made for this workload where the peer has a size.
    fn new(workload: &Workload) -> Self;

    /// Finds or stores a stack (innermost frame first); 0 when it was refused.
    fn save(&self, frames: &[u64]) -> u64;

    /// Brings a stack's frames before the caller, as the peer does it (a copy, or a pointer that is
    /// then read through); answers how many there are, 0 when the stack is gone.
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize;
}

/// A peer whose stacks can be held by a counted reference.
pub trait Holding: Peer {
    /// Finds or stores a stack and takes a reference; 0 when it was refused.
    fn save_acquire(&self, frames: &[u64]) -> u64;

    /// Gives back what `save_acquire` answered.
    fn put(&self, held: u64);
}

/// A peer behind a ring of the newest events.
pub trait Ringed: Peer {
    /// Records an event with its stack, and ends the oldest one's claim on its own.
    fn push(&self, event: &Event, frames: &[u64]);
}

/// A peer that threads may use at once.
pub trait Shared: Peer + Sync {
    /// Saves what all threads save over and over, as somebody who keeps it would.
    fn save_hot(&self, frames: &[u64]) -> u64 {
        self.save(frames)
    }
}
