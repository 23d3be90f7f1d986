//! What an attacker found, and the seed that it used.
//!
//! Findings are counted and printed, not panicked about: an attacker's threads wait for each
//! other, and a handler must not unwind.

use std::fmt;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most findings that are printed.
const MOST_PRINTED: u64 = 10;

/// The findings of one attack.
#[derive(Default)]
pub struct Findings(AtomicU64);

impl Findings {
    pub const fn new() -> Findings {
        Findings(AtomicU64::new(0))
    }

    /// Counts a finding and prints the first ones.
    pub fn add(&self, finding: fmt::Arguments<'_>) {
        if self.0.fetch_add(1, Ordering::Relaxed) < MOST_PRINTED {
            // Not `eprintln!`: a forked child has nobody who reads the test's captured output.
            let _ = writeln!(std::io::stderr(), "FINDING {finding}");
        }
    }

    /// Adds a finding when an audit ended in one; answers what it checked.
    pub fn note<T: Default>(&self, place: &str, audited: Result<T, String>) -> T {
        audited.unwrap_or_else(|finding| {
            self.add(format_args!("{place}: {finding}"));
            T::default()
        })
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Fails the test when there are any.
    pub fn assert_none(&self) {
        assert_eq!(self.count(), 0, "findings, see above");
    }
}

/// The seed of this run: `STACKDEPOT_SEED` or always the same, printed so that a finding repeats.
pub fn seed(attacker: &str) -> u64 {
    let given = std::env::var("STACKDEPOT_SEED").ok();
    let seed = given.map_or(12345, |seed| {
        seed.parse().expect("STACKDEPOT_SEED is a number")
    });
    println!("{attacker}: seed {seed}");
    seed
}
