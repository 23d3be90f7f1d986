//! Hostile load: frames that are chosen to collide, and limits that are met all at once.
//!
//! `collide` (stacks by somebody who knows the code, but not the seed, against ordinary stacks of
//! the same shape), `overload` (the longest stacks, a million through room for a thousand, a
//! thousand threads), `wrap` (generations and ticks at their end) and `thrift` (what is switched
//! off costs nothing, and a stored save writes nothing). `cargo xtask hostile` runs all of it with
//! `--cfg stackdepot_fault`: what a save looks at and writes is counted there (`watch.rs`).
//! Otherwise only what needs no counting runs. Each has been seen to win against planted bugs.
#![cfg(not(loom))]
#![allow(unsafe_code, reason = "opens regions again, and ages the slots of one")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

#[cfg(stackdepot_fault)]
mod collide;
mod overload;
#[cfg(stackdepot_fault)]
mod sets;
mod thrift;
#[cfg(stackdepot_fault)]
mod watch;
mod wrap;

use stackdepot::{Config, Geometry, Line};

/// A configuration with room for exactly so many slots.
fn of_slots(slot_count: u32) -> Config {
    Config::new(Geometry::of_slots(slot_count, 0).region_bytes)
}

/// Memory for a depot of that configuration.
fn memory(config: &Config) -> Vec<Line> {
    vec![Line::ZERO; config.region_bytes / 64]
}

/// Numbers that look random; the same for the same input.
fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}
