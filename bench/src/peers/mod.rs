//! Whoever is measured: ours, the limit, and the peers.

pub mod library;
pub mod limit;
pub mod linux;
pub mod llvm;
pub mod ours;
pub mod rust;
pub mod scudo;
