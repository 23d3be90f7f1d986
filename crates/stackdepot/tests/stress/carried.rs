//! Plain words that travel with a number: written by one thread before it hands the number over,
//! read by whoever gets it. Nothing but the depot's own orderings keeps the two apart, and
//! ThreadSanitizer sees when they do not.
#![expect(
    unsafe_code,
    reason = "plain memory between threads, ordered by what is being tested"
)]

use std::cell::UnsafeCell;

/// A word for each number.
pub struct Carried(Box<[UnsafeCell<u64>]>);

// SAFETY: each word is accessed under the rule of `write` and `check`, which the callers keep as
// far as the code under test keeps its promises; that is what the test finds out.
unsafe impl Sync for Carried {}

impl Carried {
    pub fn new(count: usize) -> Carried {
        Carried((0..count).map(|_| UnsafeCell::new(0)).collect())
    }

    /// Before `number` is handed over, or by its only owner.
    pub fn write(&self, number: usize, value: u64) {
        // SAFETY: the number's only owner, by the promise under test.
        unsafe { self.0[number].get().write(value) }
    }

    /// By whoever got `number`; `value` is what was written before.
    pub fn check(&self, number: usize, value: u64) {
        // SAFETY: written before the number came here, by the promise under test.
        let found = unsafe { self.0[number].get().read() };
        assert_eq!(found, value, "number {number} came without its word");
    }
}
