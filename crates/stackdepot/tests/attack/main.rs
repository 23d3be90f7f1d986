//! Attackers: programs that try to break the promises of the depot, run as quick tests here and
//! for as long as wanted by `cargo xtask soak` and `cargo xtask every-instruction`.
//!
//! `rounds` (threads that save the same stacks at once), `signals` (handlers that interrupt
//! saves), `kills` (writers killed at random), `soak` (all of it together), `every_instruction`
//! (a handler and a kill between any two instructions) and `fault` (the same between any two
//! operations on shared words). Each has been seen to win against planted bugs: `planted/`,
//! `cargo xtask attackers`. What they share: `stacks` (what is saved), `world` (depot, ring and
//! live table as the recorder uses them), `audit` (what must be true of the bytes).
#![cfg(not(loom))]
#![allow(
    unsafe_code,
    reason = "maps memory, forks, kills, and opens what is left"
)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests stop where they fail"
)]

mod audit;
#[cfg(target_arch = "x86_64")]
mod every_instruction;
#[cfg(stackdepot_fault)]
mod fault;
mod findings;
mod kills;
mod memory;
mod process;
mod rounds;
mod scene;
mod signals;
mod soak;
mod stacks;
mod tally;
mod world;
mod writer;
