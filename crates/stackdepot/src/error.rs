//! What can go wrong: one `Copy` enum per operation, whose variants say what the caller can do.
//!
//! Core code never prints; `Display` is here so that files and commands can put the sentence
//! behind a "what, where". Every answer that loses something is also counted (`stats.rs`).

use core::fmt;

/// Why a region cannot be made with a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// A number of the configuration is outside its limits.
    OutOfRange {
        /// The field of the configuration.
        field: &'static str,
        /// What it was.
        value: u64,
        /// The least allowed value.
        least: u64,
        /// The greatest allowed value.
        most: u64,
    },
    /// The memory does not start at a multiple of the alignment.
    Unaligned {
        /// Where it starts.
        address: usize,
        /// What the address must be a multiple of.
        alignment: usize,
    },
}

impl ConfigError {
    /// Checks that `value` is within `least..=most`, else names the field and the limits.
    pub const fn check(
        field: &'static str,
        value: u64,
        least: u64,
        most: u64,
    ) -> Result<(), ConfigError> {
        if value < least || value > most {
            return Err(ConfigError::OutOfRange {
                field,
                value,
                least,
                most,
            });
        }
        Ok(())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConfigError::OutOfRange {
                field,
                value,
                least,
                most,
            } => {
                write!(out, "{field} is {value}, but must be {least} to {most}")
            }
            ConfigError::Unaligned { address, alignment } => {
                write!(
                    out,
                    "the region starts at {address:#x}, but must start at a multiple of {alignment}"
                )
            }
        }
    }
}

/// Why a region of memory is not taken for a depot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachError {
    /// The memory is shorter than the region that its header describes, or than a header.
    TooShort {
        /// What is there.
        given_bytes: usize,
        /// What the header asks for.
        needed_bytes: usize,
    },
    /// The memory does not start at a multiple of 64.
    Unaligned,
    /// It does not start with the depot's magic number.
    NotADepot,
    /// It was made by another version of the format.
    Version {
        /// The version found.
        found: u32,
    },
    /// Its stacks were filed by a hash that this processor or build does not have.
    HashKind {
        /// The kind found.
        found: u32,
    },
    /// A number in the header contradicts the others: the region is damaged.
    Damaged {
        /// Which number.
        field: &'static str,
    },
}

impl fmt::Display for AttachError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AttachError::TooShort {
                given_bytes,
                needed_bytes,
            } => {
                write!(
                    out,
                    "the depot needs {needed_bytes} bytes, but only {given_bytes} are there"
                )
            }
            AttachError::Unaligned => write!(out, "the depot does not start at a multiple of 64"),
            AttachError::NotADepot => write!(out, "no depot: the magic number is missing"),
            AttachError::Version { found } => {
                write!(out, "depot format {found} is not known to this version")
            }
            AttachError::HashKind { found } => write!(
                out,
                "depot hash kind {found} cannot be computed here (2 needs a processor with AES instructions); it can still be read"
            ),
            AttachError::Damaged { field } => write!(
                out,
                "damaged depot: its {field} contradicts the rest of the header"
            ),
        }
    }
}

/// Why a stack was not saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveError {
    /// There were no frames.
    Empty,
    /// Every slot is held; saves work again after a `put` or a tick.
    Full,
    /// Other threads kept winning; the next attempt will likely work.
    Contended,
    /// The two index buckets of this stack hold nothing but held stacks.
    Crowded,
    /// The stack (or one of its nodes) has as many references as can be counted.
    Saturated,
    /// The hold asked for was switched off when the depot was made.
    Disabled,
}

impl fmt::Display for SaveError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            SaveError::Empty => "a stack without frames cannot be saved",
            SaveError::Full => "the depot is full of held stacks",
            SaveError::Contended => "other threads kept changing the same place",
            SaveError::Crowded => "the stack's index buckets are full of held stacks",
            SaveError::Saturated => "the stack has as many references as can be counted",
            SaveError::Disabled => "the depot was made without this kind of hold",
        })
    }
}

/// Why a stack was not held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HoldError {
    /// The stack is no longer stored; save it again.
    Evicted,
    /// It has as many references as can be counted.
    Saturated,
    /// Other threads kept changing its lease; the next attempt will likely work.
    Contended,
    /// This kind of hold was switched off when the depot was made.
    Disabled,
}

impl fmt::Display for HoldError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            HoldError::Evicted => "the stack is no longer stored",
            HoldError::Saturated => "the stack has as many references as can be counted",
            HoldError::Contended => "other threads kept changing the stack's lease",
            HoldError::Disabled => "the depot was made without this kind of hold",
        })
    }
}

/// Why a stack was not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchError {
    /// The stack is no longer stored.
    Evicted,
}

impl fmt::Display for FetchError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("the stack is no longer stored")
    }
}

impl core::error::Error for ConfigError {}
impl core::error::Error for AttachError {}
impl core::error::Error for SaveError {}
impl core::error::Error for HoldError {}
impl core::error::Error for FetchError {}
