//! Concurrent maps and caches from the registry, as their users would keep stacks in them.
//!
//! All compare every frame. The maps (`dashmap`, `papaya`) keep each stack for good, so a handle is
//! the stack's place; the caches (`quick_cache`, `moka`) may evict it, so a handle is its hash,
//! and a fetch looks it up.

pub mod dashmap;
pub mod moka;
pub mod papaya;
pub mod quick_cache;
mod stored;

/// A cache gets so many places per stack that none is evicted while all fit: its shards and its
/// windows fill unevenly.
const PLACES_PER_STACK: usize = 2;
