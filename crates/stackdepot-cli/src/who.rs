//! The `who` verb: who allocated and who freed the memory at an address.
//!
//! The live table answers for live blocks, the ring for what was freed lately. A free's event
//! carries its block's allocation, so one event is the whole story of a freed block.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use stackdepot::ring::{Event, EventKind};

use crate::args::{WhoArguments, parse_address};
use crate::failure::{Failure, NO_RECORD};
use crate::recording::{Recording, Trace};
use crate::{json, output, stacks, text};

/// Blocks that lay at the address before the newest one.
const MOST_EARLIER: usize = 8;
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
    bad_frees: Vec<Trace>,
    earlier: Vec<Story>,
}

/// One block, from its allocation to its free.
#[derive(Serialize)]
struct Story {
    block: Block,
    allocated: Option<Trace>,
    freed: Option<Trace>,
}

#[derive(Clone, Serialize)]
struct Block {
    #[serde(serialize_with = "json::address")]
    address: u64,
    size: u64,
    offset: u64,
    state: &'static str,
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
    bad.map(|event| recording.trace(event.thread, Some(event.time), event.stack))
        .collect()
}

fn stories(recording: &mut Recording, address: u64) -> Vec<Story> {
    let mut stories = Vec::new();
    // A block whose end (its free, or its being live) was met; its alloc event is still to come.
    let mut open: Vec<u64> = Vec::new();
    if let Some(block) = recording.snapshot.block_at(address).cloned() {
        open.push(block.address);
        let about = block.block;
        let allocated = recording.trace(about.thread, Some(about.time), about.stack);
        stories.push(Story {
            block: describe(address, block.address, about.size, "live"),
            allocated: Some(allocated),
            freed: None,
        });
    }
    let events: Vec<Event> = recording
        .snapshot
        .events()
        .iter()
        .filter(|event| covers(event, address))
        .copied()
        .collect();
    for event in events {
        if stories.len() > MOST_EARLIER {
            break;
        }
        match event.kind {
            EventKind::Alloc => match open.iter().position(|block| *block == event.address) {
                Some(index) => drop(open.swap_remove(index)),
                None => stories.push(story_of_alloc(recording, address, &event)),
            },
            EventKind::Free | EventKind::MismatchedFree => {
                open.push(event.address);
                stories.push(story_of_free(recording, address, &event));
            }
            EventKind::UnknownFree => {}
        }
    }
    stories
}

fn covers(event: &Event, address: u64) -> bool {
    // A block of no bytes still has an address that can be asked for.
    event.kind != EventKind::UnknownFree
        && address
            .checked_sub(event.address)
            .is_some_and(|offset| offset < event.size.max(1))
}

fn story_of_alloc(recording: &mut Recording, address: u64, event: &Event) -> Story {
    let allocated = recording.trace(event.thread, Some(event.time), event.stack);
    Story {
        block: describe(address, event.address, event.size, "live"),
        allocated: Some(allocated),
        freed: None,
    }
}

fn story_of_free(recording: &mut Recording, address: u64, event: &Event) -> Story {
    let freed = recording.trace(event.thread, Some(event.time), event.stack);
    let is_known = event.other_stack.is_some() || event.other_time.is_some();
    let allocated =
        is_known.then(|| recording.trace(event.other_thread, event.other_time, event.other_stack));
    Story {
        block: describe(address, event.address, event.size, "freed"),
        allocated,
        freed: Some(freed),
    }
}

fn describe(address: u64, block: u64, size: u64, state: &'static str) -> Block {
    Block {
        address: block,
        size,
        offset: address.wrapping_sub(block),
        state,
    }
}

fn document(
    address: u64,
    newest: Option<Story>,
    bad_frees: Vec<Trace>,
    earlier: Vec<Story>,
) -> Document {
    let (block, allocated, freed) = match newest {
        Some(story) => (Some(story.block), story.allocated, story.freed),
        None => (None, None, None),
    };
    Document {
        format: json::FORMAT,
        address,
        block,
        allocated,
        freed,
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
        write_trace(&mut text, "Freed", Some(bad));
        text.push('\n');
    }
    for (index, story) in newest.into_iter().chain(earlier).enumerate() {
        if index > 0 {
            text.push_str("\nBefore that, ");
        }
        write_story(&mut text, address, story);
    }
    text
}

fn write_story(text: &mut String, address: u64, story: &Story) {
    let Block {
        address: start,
        size,
        offset,
        state,
    } = story.block.clone();
    let end = start.wrapping_add(size);
    let bytes = text::counted(size, "byte");
    let _ = writeln!(
        text,
        "{address:#x} is {} into a {state} block of {bytes} [{start:#x}, {end:#x})",
        text::counted(offset, "byte")
    );
    write_trace(text, "Allocated", story.allocated.as_ref());
    if state == "freed" {
        write_trace(text, "Freed", story.freed.as_ref());
    }
}

fn write_trace(text: &mut String, verb: &str, trace: Option<&Trace>) {
    let Some(trace) = trace else {
        let _ = writeln!(text, "\n{verb} (no record)");
        return;
    };
    let ago = trace.seconds_ago.map_or(String::new(), |seconds| {
        format!(", {} ago", text::seconds(seconds))
    });
    let _ = writeln!(text, "\n{verb} by thread {}{ago}:", trace.thread);
    stacks::write_frames(text, &trace.frames, MOST_FRAMES);
}
