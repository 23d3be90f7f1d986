// SPDX-License-Identifier: GPL-2.0 OR MIT
//! The depot's core inside the Linux kernel: C names over the same files that user space runs.
//!
//! `stackdepot_core.h` is the other side of every function here. Neighbours: `view.rs` (a depot
//! or a ring as a C struct), `padded.rs` (how stacks lie in it), `depot.rs` (save, fetch, put, counts), `ring.rs` (the newest
//! events).
//! Nothing here allocates, locks, prints or sleeps; memory comes from the C shim, which also does
//! what is macro or inline in C.
#![no_std]
#![deny(unsafe_code)]

mod depot;
mod padded;
mod ring;
mod view;

use core::panic::PanicInfo;

/// The core never panics; what the compiler could not prove ends in an invalid opcode, which the
/// kernel reports as a bug at this place.
#[panic_handler]
#[expect(unsafe_code, reason = "one instruction")]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: `ud2` does not return and touches no memory.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
