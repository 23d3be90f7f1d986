//! The one door to shared memory: every atomic of the crate comes from here.
//!
//! Loom models, fault injection and other kernels' primitives are swapped in at this
//! place and nowhere else. Only fences order totally (`fence(SeqCst)`); no access is SeqCst.

#[cfg(all(stackdepot_fault, not(loom)))]
pub mod fault;

#[cfg(not(any(loom, stackdepot_fault)))]
pub use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(all(stackdepot_fault, not(loom)))]
pub use fault::{AtomicU32, AtomicU64, Ordering, fence};
#[cfg(loom)]
pub use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Whether each operation on a shared word counts, so that none may be left to a vector register.
pub(crate) const FAULTS: bool = cfg!(stackdepot_fault);
