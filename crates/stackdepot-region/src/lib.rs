//! Region files: a depot, its ring and its live table in one preallocated, shared file.
//!
//! One process writes a file (`writer`, usable inside malloc hooks: no std allocation, no panic,
//! no lock, raw system calls only); any number of others read it, while it is written and after
//! its writer was killed (`reader`: safe code that copies by `pread` in bounded pieces and takes
//! every byte as hostile). `format` says where everything lies; `plan` how many bytes each part
//! gets; `ledger` bounds the bytes of all files of a run together.
//!
//! What it does not do: it neither unwinds nor symbolizes, and it never changes a file that it reads.
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

pub mod birth;
pub mod caller;
pub mod clock;
pub mod counters;
pub mod death;
pub mod error;
pub mod format;
pub mod ledger;
mod mapping;
pub mod modules;
pub mod plan;
pub mod poisson;
pub mod process;
pub mod reader;
mod reopen;
mod sys;
pub mod writer;
