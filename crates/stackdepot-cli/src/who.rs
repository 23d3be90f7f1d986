//! The `who` verb: who allocated and who freed the memory at an address.
//!
//! `story` finds the blocks; here is what the verb makes of them.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use stackdepot::ring::{Event, EventKind};

use crate::args::{WhoArguments, parse_address};
use crate::failure::{Failure, NO_RECORD};
use crate::recording::{Recording, Trace};
use crate::story::{Block, Story, stories, write_story, write_trace};
use crate::{json, output, text};

/// Calls of one stack in the text; JSON has all.
const MOST_FRAMES: usize = 40;

#[derive(Serialize)]
struct Document {
    format: u32,
    #[serde(serialize_with = "json::address")]
    address: u64,
    block: Option<Block>,
    allocated: Option<Trace>,
    freed: Option<Trace>,
    mismatched: bool,
    bad_frees: Vec<Trace>,
    earlier: Vec<Story>,
}

/// Prints what is known about the address, newest first; status 2 when that is nothing.
///
/// # Errors
/// The recording cannot be read, or the address is none.
pub fn perform(arguments: &WhoArguments) -> Result<ExitCode, Failure> {
    let address = parse_address(&arguments.address).map_err(Failure::new)?;
    let mut recording = Recording::open(&arguments.target)?;
    let bad_frees = bad_frees(&mut recording, address);
    let mut stories = stories(&mut recording, address);
    let is_known = !stories.is_empty() || !bad_frees.is_empty();
    let earlier = stories.split_off(stories.len().min(1));
    let newest = stories.pop();
    let done = if arguments.json {
        json::print(&document(address, newest, bad_frees, earlier))
    } else {
        output::print(&tell(address, newest.as_ref(), &bad_frees, &earlier))
    };
    recording.note_gaps();
    if !is_known {
        note_radix(&arguments.address);
        note_sample(&recording);
    }
    done.map(|code| {
        if is_known {
            code
        } else {
            ExitCode::from(NO_RECORD)
        }
    })
}

/// Digits alone were taken for a decimal number; debuggers print addresses in hexadecimal.
fn note_radix(text: &str) {
    let is_hexadecimal = parse_address(&format!("0x{text}")).is_ok();
    if is_hexadecimal && text.bytes().all(|byte| byte.is_ascii_digit()) && text.len() > 1 {
        output::note(&format!(
            "{text} was read as a decimal number; if it is hexadecimal, write 0x{text}"
        ));
    }
}

/// Most blocks of a sampled run are not recorded.
fn note_sample(recording: &Recording) {
    if let Some(bytes) = recording.sample_bytes() {
        output::note(&format!(
            "recorded with --sample: about one block in every {} allocated is known",
            text::bytes(bytes)
        ));
    }
}

/// Frees of the address that freed no block: the second one of a double free, or an invalid one.
fn bad_frees(recording: &mut Recording, address: u64) -> Vec<Trace> {
    let events: Vec<Event> = recording.snapshot.events().to_vec();
    let bad = events
        .iter()
        .filter(|event| event.kind == EventKind::UnknownFree && event.address == address);
    bad.map(|event| recording.free(event.thread, Some(event.time), event.stack))
        .collect()
}

fn document(
    address: u64,
    newest: Option<Story>,
    bad_frees: Vec<Trace>,
    earlier: Vec<Story>,
) -> Document {
    let (block, allocated, freed, mismatched) = match newest {
        Some(story) => (
            Some(story.block),
            story.allocated,
            story.freed,
            story.mismatched,
        ),
        None => (None, None, None, false),
    };
    Document {
        format: json::FORMAT,
        address,
        block,
        allocated,
        freed,
        mismatched,
        bad_frees,
        earlier,
    }
}

fn tell(address: u64, newest: Option<&Story>, bad_frees: &[Trace], earlier: &[Story]) -> String {
    let mut text = String::new();
    if newest.is_none() && bad_frees.is_empty() {
        let _ = writeln!(text, "{address:#x}: no record");
        return text;
    }
    for bad in bad_frees {
        let _ = writeln!(text, "{address:#x} was freed while it was no live block");
        write_trace(&mut text, "Freed", Some(bad), MOST_FRAMES);
        text.push('\n');
    }
    for (index, story) in newest.into_iter().chain(earlier).enumerate() {
        if index > 0 {
            text.push_str("\nBefore that, ");
        }
        write_place(&mut text, address, story);
        write_story(&mut text, story, MOST_FRAMES);
    }
    text
}

fn write_place(text: &mut String, address: u64, story: &Story) {
    let block = &story.block;
    let end = block.address.wrapping_add(block.size);
    let _ = writeln!(
        text,
        "{address:#x} is {} a {} block of {} [{:#x}, {end:#x})",
        block.relation(),
        block.state,
        text::counted(block.size, "byte"),
        block.address,
    );
}
