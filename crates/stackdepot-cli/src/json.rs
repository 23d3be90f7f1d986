//! What the JSON documents have in common; docs/json.md describes them, a test checks them.
//!
//! Addresses are strings `"0x..."`, because JSON numbers lose bits above 2^53; unknown is null.

use std::process::ExitCode;

use serde::{Serialize, Serializer};

use crate::failure::Failure;
use crate::output;

/// The version of all documents: grows when a field changes its meaning or goes away.
pub const FORMAT: u32 = 1;

/// `"0x7f00"`
pub fn address<S: Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}

/// `"0x7f00"` or null
pub fn optional_address<S: Serializer>(
    address: &Option<u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(value) => self::address(value, serializer),
        None => serializer.serialize_none(),
    }
}

/// Writes a document and a newline to stdout.
///
/// # Errors
/// The document could not be written.
pub fn print(document: &impl Serialize) -> Result<ExitCode, Failure> {
    let mut text = serde_json::to_string_pretty(document).map_err(Failure::new)?;
    text.push('\n');
    output::print(&text)
}
