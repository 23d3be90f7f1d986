//! What the JSON documents have in common; docs/json.md describes them, a test checks them.
//!
//! Addresses are strings `"0x..."`, because JSON numbers lose bits above 2^53; unknown is null.

use std::cell::RefCell;
use std::io::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::Serializer;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter};
use stackdepot::ring::EventKind;

use crate::failure::Failure;
use crate::output;

/// The version of all documents: grows when a field changes its meaning or goes away.
pub const FORMAT: u32 = 1;

/// The word for a kind of event.
pub const fn kind(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Alloc => "alloc",
        EventKind::Free => "free",
        EventKind::UnknownFree => "unknown-free",
        EventKind::MismatchedFree => "mismatched-free",
    }
}

/// `"0x7f00"`
pub fn address<S: serde::Serializer>(address: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{address:#x}"))
}

/// `"0x7f00"` or null
pub fn optional_address<S: serde::Serializer>(
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
    print_with(document, PrettyFormatter::new())
}

/// Writes a document of many rows, each on a line and as it comes.
///
/// # Errors
/// As [`print()`].
pub fn print_rows(document: &impl Serialize) -> Result<ExitCode, Failure> {
    print_with(document, Lines::default())
}

fn print_with(document: &impl Serialize, formatter: impl Formatter) -> Result<ExitCode, Failure> {
    output::stream(|stdout| {
        document.serialize(&mut Serializer::with_formatter(&mut *stdout, formatter))?;
        stdout.write_all(b"\n")
    })
}

/// A list whose rows are made while they are written: a recording has more of them than memory.
pub struct Rows<I>(RefCell<Option<I>>);

impl<I> Rows<I> {
    /// To be written once.
    pub fn new(rows: I) -> Rows<I> {
        Rows(RefCell::new(Some(rows)))
    }
}

impl<I: Iterator<Item: Serialize>> Serialize for Rows<I> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.take().into_iter().flatten())
    }
}

/// Fields and rows on lines of their own, what is inside a row on its line: half the bytes of an
/// indented document, and as easy to look through.
#[derive(Default)]
struct Lines {
    depth: usize,
    pretty: PrettyFormatter<'static>,
}

/// The document and the lists in it are spread over lines.
const SPREAD_DEPTH: usize = 2;

impl Lines {
    /// Enters a list or an object; answers whether it is spread.
    fn enter(&mut self) -> bool {
        self.depth += 1;
        self.depth <= SPREAD_DEPTH
    }

    fn leave(&mut self) -> bool {
        self.depth -= 1;
        self.depth < SPREAD_DEPTH
    }
}

type Written = std::io::Result<()>;

impl Formatter for Lines {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        match self.enter() {
            true => self.pretty.begin_array(writer),
            false => CompactFormatter.begin_array(writer),
        }
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        match self.leave() {
            true => self.pretty.end_array(writer),
            false => CompactFormatter.end_array(writer),
        }
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Written {
        match self.depth <= SPREAD_DEPTH {
            true => self.pretty.begin_array_value(writer, first),
            false => CompactFormatter.begin_array_value(writer, first),
        }
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        match self.depth <= SPREAD_DEPTH {
            true => self.pretty.end_array_value(writer),
            false => CompactFormatter.end_array_value(writer),
        }
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        match self.enter() {
            true => self.pretty.begin_object(writer),
            false => CompactFormatter.begin_object(writer),
        }
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        match self.leave() {
            true => self.pretty.end_object(writer),
            false => CompactFormatter.end_object(writer),
        }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> Written {
        match self.depth <= SPREAD_DEPTH {
            true => self.pretty.begin_object_key(writer, first),
            false => CompactFormatter.begin_object_key(writer, first),
        }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> Written {
        match self.depth <= SPREAD_DEPTH {
            true => self.pretty.end_object_value(writer),
            false => CompactFormatter.end_object_value(writer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_one_line() {
        #[derive(Serialize)]
        struct Document {
            format: u32,
            live: [u32; 2],
            rows: Rows<std::vec::IntoIter<Vec<Option<u32>>>>,
            none: [u32; 0],
        }
        let document = Document {
            format: 1,
            live: [1, 2],
            rows: Rows::new(vec![vec![Some(1), None], vec![], vec![Some(3)]].into_iter()),
            none: [],
        };
        let mut text = Vec::new();
        document
            .serialize(&mut Serializer::with_formatter(&mut text, Lines::default()))
            .unwrap();
        let expected = "{\n  \"format\": 1,\n  \"live\": [\n    1,\n    2\n  ],\n  \"rows\": [\n    [1,null],\n    [],\n    [3]\n  ],\n  \"none\": []\n}";
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }
}
