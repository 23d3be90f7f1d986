//! (being built)
pub mod unwind;
