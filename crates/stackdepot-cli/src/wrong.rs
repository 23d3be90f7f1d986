//! Wrong frees among the events that are kept: of what was no live block, and by the wrong function.
//!
//! Key type: [`WrongFree`], all frees of one kind with the same two stacks.

use std::collections::HashMap;
use std::fmt::Write;

use serde::Serialize;
use stackdepot::ring::{Event, EventKind};
use stackdepot_region::counters::Counter;

use crate::recording::{Recording, Trace};
use crate::story::{self, Story, mismatch, write_story, write_trace};
use crate::{json, text};

/// Groups in the text; JSON has all.
const MOST_GROUPS: usize = 3;

/// Frees that are wrong in the same way.
#[derive(Serialize)]
pub struct WrongFree {
    kind: &'static str,
    /// How many of them are kept.
    count: u64,
    /// Of the newest of them.
    #[serde(serialize_with = "json::address")]
    address: u64,
    size: Option<u64>,
    allocated: Option<Trace>,
    freed: Option<Trace>,
    /// The last block before that of which the address was a part, and is no more.
    earlier: Option<Story>,
    #[serde(skip)]
    what: String,
}

/// All of them, newest first.
pub fn wrong_frees(recording: &mut Recording) -> Vec<WrongFree> {
    let mut groups: Vec<(Event, u64)> = Vec::new();
    let mut places = HashMap::new();
    for event in recording.snapshot.events() {
        if !matches!(
            event.kind,
            EventKind::UnknownFree | EventKind::MismatchedFree
        ) {
            continue;
        }
        let key = (event.kind, event.stack, event.other_stack);
        let place = *places.entry(key).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((_, count)) => *count += 1,
            None => groups.push((*event, 1)),
        }
    }
    let groups = groups.into_iter();
    groups
        .map(|(event, count)| wrong_free(recording, &event, count))
        .collect()
}

fn wrong_free(recording: &mut Recording, event: &Event, count: u64) -> WrongFree {
    let story = story::story_of_free(recording, event.address, event);
    let is_mismatch = event.kind == EventKind::MismatchedFree;
    let earlier = if is_mismatch {
        None
    } else {
        story::freed_before(recording, event)
    };
    WrongFree {
        kind: json::kind(event.kind),
        count,
        address: event.address,
        size: is_mismatch.then_some(event.size),
        what: mismatch(&story).unwrap_or_else(|| "of what was no live block".to_owned()),
        allocated: story.allocated,
        freed: story.freed,
        earlier,
    }
}

/// One line for each kind.
pub fn write_totals(text: &mut String, recording: &Recording) {
    let events = recording.snapshot.events().iter();
    let of = |kind| events.clone().filter(move |event| event.kind == kind);
    if let Some(last) = of(EventKind::UnknownFree).next() {
        let frees = text::counted(of(EventKind::UnknownFree).count() as u64, "free");
        let address = last.address;
        let _ = writeln!(
            text,
            "wrong  {frees} of what was no live block, last of {address:#x}"
        );
    }
    let mismatched = recording.snapshot.counters().get(Counter::FreesMismatched);
    if mismatched > 0 {
        let frees = text::counted(mismatched, "free");
        let last = of(EventKind::MismatchedFree).next();
        let last = last.map_or(String::new(), |last| {
            format!(", last of {:#x}", last.address)
        });
        let _ = writeln!(text, "wrong  {frees} by the wrong function{last}");
    }
}

/// The newest ones with their stacks.
pub fn write_wrong_frees(text: &mut String, wrong: &[WrongFree], most_frames: usize) {
    for wrong in wrong.iter().take(MOST_GROUPS) {
        let WrongFree {
            count,
            address,
            what,
            ..
        } = wrong;
        let times = if *count > 1 {
            format!(", {} times with these stacks", text::count(*count))
        } else {
            String::new()
        };
        let _ = writeln!(text, "\nWrong free of {address:#x}: {what}{times}");
        if wrong.kind == json::kind(EventKind::MismatchedFree) {
            write_trace(text, "Allocated", wrong.allocated.as_ref(), most_frames);
        }
        write_trace(text, "Freed", wrong.freed.as_ref(), most_frames);
        if let Some(story) = &wrong.earlier {
            let (relation, size) = (story.block.relation(), story.block.size);
            let size = text::counted(size, "byte");
            let _ = writeln!(text, "\nBefore that it was {relation} a block of {size}");
            write_story(text, story, most_frames);
        }
    }
    if wrong.len() > MOST_GROUPS {
        let more = text::count((wrong.len() - MOST_GROUPS) as u64);
        let _ = writeln!(text, "\n{more} more kinds of wrong frees: --json");
    }
}
