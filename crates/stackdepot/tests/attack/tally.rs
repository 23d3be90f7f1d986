//! Counts that outlive a killed process: every operation is counted before and after it.

use std::sync::atomic::{AtomicU64, Ordering};

use stackdepot::{HoldError, SaveError};

const ATTEMPTED: usize = 0;
const SUCCEEDED: usize = 1;
/// Refusals, by what was answered.
const FULL: usize = 2;
const CONTENDED: usize = 3;
const CROWDED: usize = 4;
const EVICTED: usize = 5;
const OTHER: usize = 6;
/// Attempts that a kill ended.
const CUT_OFF: usize = 7;
pub const CHECKED: usize = 8;
pub const WRONG: usize = 9;
pub const SIGNALS: usize = 10;
pub const FORKS: usize = 11;
pub const KILLS: usize = 12;
pub const STOPS: usize = 13;
pub const CUT_REOPENS: usize = 14;

/// Words of a row.
const ROW: usize = 16;

/// One thread's counts.
#[derive(Clone, Copy)]
pub struct Tally<'a>(&'a [AtomicU64]);

impl<'a> Tally<'a> {
    /// Bytes of that many rows.
    pub const fn bytes(rows: usize) -> usize {
        rows * ROW * 8
    }

    pub fn row(words: &'a [AtomicU64], row: usize) -> Tally<'a> {
        Tally(&words[row * ROW..][..ROW])
    }

    /// Adds, and answers what was there.
    pub fn add(&self, word: usize, count: u64) -> u64 {
        self.0[word].fetch_add(count, Ordering::Relaxed)
    }

    pub fn get(&self, word: usize) -> u64 {
        self.0[word].load(Ordering::Relaxed)
    }

    /// Counts an operation that saves.
    pub fn save<T>(
        &self,
        operation: impl FnOnce() -> Result<T, SaveError>,
    ) -> Result<T, SaveError> {
        self.add(ATTEMPTED, 1);
        let answer = operation();
        let outcome = match &answer {
            Ok(_) => SUCCEEDED,
            Err(SaveError::Full) => FULL,
            Err(SaveError::Contended) => CONTENDED,
            Err(SaveError::Crowded) => CROWDED,
            Err(SaveError::Empty | SaveError::Saturated | SaveError::Disabled) => OTHER,
        };
        self.add(outcome, 1);
        answer
    }

    /// Counts an operation that holds what was saved before.
    pub fn hold<T>(
        &self,
        operation: impl FnOnce() -> Result<T, HoldError>,
    ) -> Result<T, HoldError> {
        self.add(ATTEMPTED, 1);
        let answer = operation();
        let outcome = match &answer {
            Ok(_) => SUCCEEDED,
            Err(HoldError::Evicted) => EVICTED,
            Err(HoldError::Contended) => CONTENDED,
            Err(HoldError::Saturated | HoldError::Disabled) => OTHER,
        };
        self.add(outcome, 1);
        answer
    }

    fn answered(&self) -> u64 {
        (SUCCEEDED..=CUT_OFF).map(|word| self.get(word)).sum()
    }

    /// After a kill: counts what it cut off; an error when that is more than `most`, or when
    /// answers are missing.
    pub fn settle(&self, most: u64) -> Result<(), String> {
        let (attempted, answered) = (self.get(ATTEMPTED), self.answered());
        let cut_off = attempted.wrapping_sub(answered);
        self.add(CUT_OFF, cut_off);
        if cut_off <= most {
            Ok(())
        } else {
            Err(format!("{attempted} attempted, {answered} answered"))
        }
    }

    /// No operation was refused for a reason that cannot be.
    pub fn has_other(&self) -> bool {
        self.get(OTHER) != 0
    }
}

impl std::fmt::Display for Tally<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let count = |word: usize| self.get(word);
        write!(
            out,
            "attempted {} = succeeded {} + full {} + contended {} + crowded {} + evicted {} + cut off by kills {}",
            count(ATTEMPTED),
            count(SUCCEEDED),
            count(FULL),
            count(CONTENDED),
            count(CROWDED),
            count(EVICTED),
            count(CUT_OFF)
        )
    }
}
