//! A memory-bounded, evicting store of deduplicated stack traces.
#![cfg_attr(not(loom), no_std)]

mod clock;
mod config;
mod depot;
mod error;
mod evict;
mod frame;
mod hand;
pub mod handle;
mod hash;
mod hold;
pub mod image;
mod index;
mod insert;
mod layout;
pub mod live;
mod lookup;
mod onto;
mod payload;
mod publish;
mod recover;
pub mod ring;
mod section;
mod slot;
pub mod state;
mod stats;
pub mod sync;
mod walk;

pub use config::{Config, Geometry, LEAST_SLOTS, MOST_FRAMES, MOST_LEASE_TICKS, MOST_SLOTS};
pub use depot::{Depot, Fetched, Held, Hold, Leased};
pub use error::{AttachError, ConfigError, FetchError, HoldError, SaveError};
pub use handle::{Handle, Tick, WeakHandle};
#[cfg(loom)]
pub use layout::Memory;
pub use layout::{HEADER_BYTES, LINE_BYTES, Line, MOST_PAYLOAD_WORDS, RUN_FRAMES};
pub use onto::Ancestor;
pub use recover::Recovered;
#[cfg(loom)]
pub use section::SectionMemory;
pub use section::SectionError;
pub use stats::Stats;
pub use walk::{Walk, Walked};
