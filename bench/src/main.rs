//! Measures the depot beside its peers and beside the limit, in one run.
//!
//! Run by `cargo xtask bench`, which builds the peers first.
#![deny(unsafe_code)]

pub mod figure;
pub mod workload;

fn main() {}
