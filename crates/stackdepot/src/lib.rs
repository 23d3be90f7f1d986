//! A memory-bounded, evicting store of deduplicated stack traces.
//!
//! Debugging tools save a stack at every allocation and free, and keep a handle instead of
//! hundreds of bytes. A [`Depot`] stores each distinct stack once, inside one region of memory
//! whose size is the bound for everything. At the bound, new stacks evict the coldest ones that
//! nobody holds; references and leases hold what is still needed.
//!
//! ```
//! use stackdepot::{Config, Depot, Line};
//!
//! let mut memory = vec![Line::ZERO; (1 << 20) / 64];
//! let config = Config { references: true, ..Config::new(1 << 20) };
//! let depot = Depot::new(&mut memory, &config)?;
//!
//! // Frames are innermost first. The weak handle may be kept for ever.
//! let held = depot.save_acquire(&[0x4010, 0x4020, 0x4030]).unwrap();
//! assert_eq!(depot.save(&[0x4010, 0x4020, 0x4030]), Ok(held.weak));
//!
//! let mut frames = [0; 64];
//! let fetched = depot.fetch(held.weak, &mut frames).unwrap();
//! assert_eq!(frames[..fetched.frame_count], [0x4010, 0x4020, 0x4030]);
//! depot.put(held.handle);
//! # Ok::<(), stackdepot::ConfigError>(())
//! ```
//!
//! # What it promises
//!
//! Equal stacks get equal handles while they stay stored; different stacks never share one, for
//! frames are compared, not only hashes. A [`WeakHandle`] resolves to its own stack or to
//! `Evicted`. A held stack is never evicted. No operation takes a lock, allocates, calls the
//! system, touches thread-local storage or panics; each ends in a bounded number of steps, if
//! need be with a counted refusal ([`SaveError`], [`Stats`]). All of it may run in a signal
//! handler that interrupted any of it. A region that is a shared file can be read by other
//! processes at any moment ([`image`]) and reopened after its writer was killed
//! ([`Depot::reopen`]).
//!
//! # What it does not do
//!
//! It does not unwind, symbolize, or map files; the crates above do. One process writes a region
//! at a time. Without a hold a stack may be evicted right after it was saved. The 32-bit
//! [`Handle`] is only good while its hold lasts. Payload counts are not a transaction: a walk
//! sees each word at some moment.
//!
//! # How it is built
//!
//! Stacks share their outer frames: a stack is cut from the root into runs of ten frames, and
//! each distinct (parent, run) is a node in one 64-byte slot. Files in the order of reading:
//! `state` and `slot` (the word that decides), `layout` and `config` (where things lie), `frame`,
//! `hash` and `aes`, `index`, `compare`, `lookup` and `fetch` (readers), `hit` (a save that finds
//! its stack, in vector registers), `runs` (saves and fetches in a kernel), `publish` (making a node the only one of its kind),
//! `evict` and `hand` (ending one), `hold`, `insert` (save), `depot` (the facade), `recover` and
//! `image`; on top of it all [`ring`],
//! [`live`] and [`cache`].
#![cfg_attr(not(loom), no_std)]

mod aes;
mod avx2;
pub mod cache;
mod clock;
mod compare;
mod config;
mod depot;
mod error;
mod evict;
mod fetch;
mod frame;
mod hand;
pub mod handle;
mod hash;
#[cfg_attr(
    not(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri)))),
    path = "hit/absent.rs"
)]
mod hit;
mod hold;
pub mod image;
mod index;
mod insert;
mod layout;
pub mod live;
mod lookup;
mod onto;
mod payload;
mod prefetch;
mod publish;
mod recover;
pub mod ring;
mod runs;
mod section;
mod slot;
pub mod state;
mod stats;
pub mod sync;
#[cfg(all(target_arch = "x86_64", target_feature = "sse2", not(any(loom, miri))))]
mod vector;
mod walk;

pub use config::{
    Config, Geometry, HashChoice, LEAST_SLOTS, MOST_FRAMES, MOST_LEASE_TICKS, MOST_SLOTS,
};
pub use depot::{Depot, Held, Leased};
pub use error::{AttachError, ConfigError, FetchError, HoldError, SaveError};
pub use fetch::Fetched;
pub use handle::{Handle, Tick, WeakHandle};
pub use hold::Hold;
#[cfg(loom)]
pub use layout::Memory;
pub use layout::{HEADER_BYTES, LINE_BYTES, Line, MOST_PAYLOAD_WORDS, RUN_FRAMES};

pub use onto::Ancestor;
pub use recover::Recovered;
pub use section::SectionError;
#[cfg(loom)]
pub use section::SectionMemory;
pub use stats::Stats;
pub use walk::{Walk, Walked};
