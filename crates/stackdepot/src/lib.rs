//! A memory-bounded, evicting store of deduplicated stack traces.
#![cfg_attr(not(loom), no_std)]

pub mod handle;
pub mod state;
pub mod sync;
