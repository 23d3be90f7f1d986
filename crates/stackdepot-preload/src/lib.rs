//! The preload library: records every alloc and free of an unmodified program into a region file.
//!
//! `stackdepot run` puts it before the program by LD_PRELOAD. Its exported names are those of the
//! allocator (`hooks_*`); each enters through a naked stub (`hook`), asks `thread` whether the call
//! is to be recorded, calls the real function (`symbols`), and has `record` write down what changed
//! with the stack that `unwind` takes. `process` starts the recording at the first event and takes it up
//! anew in forked children.
//!
//! The hooks never abort, print or exit, never allocate, take no lock and make no system call per
//! event. What it does not do: it reads no region file, symbolizes nothing and keeps no thread.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing
    )
)]
#![cfg_attr(
    test,
    allow(
        dead_code,
        non_snake_case,
        reason = "a test binary exports no hooks: they would record the test itself"
    )
)]

mod arena;
mod check;
mod environment;
mod faults;
mod hook;
mod hooks_c;
mod hooks_cxx;
mod hooks_jemalloc;
mod hooks_seccomp;
mod hooks_signals;
mod lifecycle;
mod memory;
mod modules;
mod process;
mod record;
mod sampled;
mod scratch;
mod symbols;
mod thread;
pub mod unwind;
