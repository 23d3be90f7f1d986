//! What the fuzz targets share: true regions, files and corpora, and the damage done to them.
//!
//! A target's input is mostly a script of edits ([`damage`]) for a true original, so that magic
//! numbers, versions and lengths are right until an edit makes them wrong. The originals are made
//! by the product itself ([`region`], [`core_parts`]). [`budget`] makes a finding of whatever needs
//! more steps than its input can be worth.

pub mod budget;
pub mod core_parts;
pub mod damage;
pub mod memory;
pub mod mutate;
pub mod region;
