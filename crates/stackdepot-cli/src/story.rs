//! The stories of blocks: who allocated and who freed what lay at an address, and how they read.
//!
//! Key type: [`Story`]. The live table answers for live blocks, the ring for what was freed lately. A
//! free's event carries its block's allocation, so one event is the whole story of a freed block.

use std::fmt::Write;

use serde::Serialize;
use stackdepot::ring::{Event, EventKind};
use stackdepot_region::caller::{Caller, Family};

use crate::recording::{Recording, Trace};
use crate::{json, stacks, text};

/// Blocks that lay at the address before the newest one.
const MOST_EARLIER: usize = 8;

/// One block, from its allocation to its free.
#[derive(Serialize)]
pub struct Story {
    /// The block.
    pub block: Block,
    /// Its allocation, where it is known.
    pub allocated: Option<Trace>,
    /// Its free.
    pub freed: Option<Trace>,
    /// Whether the function that freed it does not belong to the one that allocated it.
    pub mismatched: bool,
}

/// A block as seen from an address.
#[derive(Clone, Serialize)]
pub struct Block {
    /// Its first byte.
    #[serde(serialize_with = "json::address")]
    pub address: u64,
    /// Its bytes.
    pub size: u64,
    /// Where the address lies in it; of a neighbour, negative or past its end.
    pub offset: i64,
    /// `live` or `freed`.
    pub state: &'static str,
}

impl Block {
    fn new(address: u64, block: u64, size: u64, state: &'static str) -> Block {
        Block {
            address: block,
            size,
            offset: address.wrapping_sub(block).cast_signed(),
            state,
        }
    }

    /// `16 bytes into`, `1 byte past the end of`, `8 bytes before`
    pub fn relation(&self) -> String {
        let bytes = |count| text::counted(count, "byte");
        match u64::try_from(self.offset) {
            Err(_) => format!("{} before", bytes(self.offset.unsigned_abs())),
            Ok(offset) if offset > 0 && offset >= self.size => {
                format!("{} past the end of", bytes(offset - self.size))
            }
            Ok(offset) => format!("{} into", bytes(offset)),
        }
    }
}

/// Every block that lies or lay around the address, newest first.
pub fn stories(recording: &mut Recording, address: u64) -> Vec<Story> {
    let mut stories = Vec::new();
    // A block whose end (its free, or its being live) was met; its alloc event is still to come.
    let mut open: Vec<u64> = Vec::new();
    if let Some(record) = recording.snapshot.block_at(address).cloned() {
        open.push(record.address);
        let block = record.block;
        let allocated = recording.allocation(block.thread, Some(block.time), block.stack);
        stories.push(live(address, record.address, block.size, allocated));
    }
    let events = recording.snapshot.events().iter();
    let events: Vec<Event> = events
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
                None => {
                    let allocated =
                        recording.allocation(event.thread, Some(event.time), event.stack);
                    stories.push(live(address, event.address, event.size, allocated));
                }
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

/// The newest block around the address, or else the nearest one within so many bytes.
pub fn nearest(recording: &mut Recording, address: u64, most_bytes: u64) -> Option<Story> {
    if let Some(newest) = stories(recording, address).into_iter().next() {
        return Some(newest);
    }
    let distance = |start: u64, size: u64| match start.checked_sub(address) {
        Some(below) => below,
        None => address.saturating_sub(start.saturating_add(size.max(1)) - 1),
    };
    let blocks = recording.snapshot.live_blocks().iter();
    let live = blocks.map(|record| (record.address, record.block.size));
    let events = recording.snapshot.events().iter();
    let known = events.filter(|event| event.kind != EventKind::UnknownFree);
    let all = live.chain(known.map(|event| (event.address, event.size)));
    let (start, size) = all.min_by_key(|(start, size)| distance(*start, *size))?;
    if distance(start, size) > most_bytes {
        return None;
    }
    let mut story = stories(recording, start).into_iter().next()?;
    story.block.offset = address.wrapping_sub(story.block.address).cast_signed();
    Some(story)
}

/// The block around an event's address that was freed last before the event.
pub fn freed_before(recording: &mut Recording, event: &Event) -> Option<Story> {
    let events = recording.snapshot.events().iter();
    let mut earlier = events.skip_while(|other| other.time >= event.time);
    let is_free = |other: &&Event| other.kind != EventKind::Alloc && covers(other, event.address);
    let free = *earlier.find(is_free)?;
    Some(story_of_free(recording, event.address, &free))
}

fn covers(event: &Event, address: u64) -> bool {
    // A block of no bytes still has an address that can be asked for.
    event.kind != EventKind::UnknownFree
        && address
            .checked_sub(event.address)
            .is_some_and(|offset| offset < event.size.max(1))
}

fn live(address: u64, block: u64, size: u64, allocated: Trace) -> Story {
    Story {
        block: Block::new(address, block, size, "live"),
        allocated: Some(allocated),
        freed: None,
        mismatched: false,
    }
}

/// The story of the block that an event freed.
pub fn story_of_free(recording: &mut Recording, address: u64, event: &Event) -> Story {
    let freed = recording.free(event.thread, Some(event.time), event.stack);
    let is_known = event.other_stack.is_some() || event.other_time.is_some();
    let allocated = is_known
        .then(|| recording.allocation(event.other_thread, event.other_time, event.other_stack));
    Story {
        block: Block::new(address, event.address, event.size, "freed"),
        allocated,
        freed: Some(freed),
        mismatched: event.kind == EventKind::MismatchedFree,
    }
}

/// The name of the function that allocated, by the bits of a caller.
pub fn alloc_name(caller: Caller) -> Option<&'static str> {
    caller.family().map(Family::alloc_name)
}

/// The name of the function that freed.
pub fn free_name(caller: Caller) -> Option<&'static str> {
    caller.family().map(Family::free_name)
}

/// Allocation and free.
pub fn write_story(text: &mut String, story: &Story, most_frames: usize) {
    if let Some(line) = mismatch(story) {
        let _ = writeln!(text, "It was freed by the wrong function: {line}");
    }
    write_trace(text, "Allocated", story.allocated.as_ref(), most_frames);
    if story.block.state == "freed" {
        write_trace(text, "Freed", story.freed.as_ref(), most_frames);
    }
}

/// `operator delete of what operator new[] gave`
pub fn mismatch(story: &Story) -> Option<String> {
    let name = |trace: &Option<Trace>| trace.as_ref()?.family;
    let (allocated, freed) = (name(&story.allocated), name(&story.freed));
    let line = || {
        let word = |name: Option<&'static str>| name.unwrap_or("?");
        format!("{} of what {} gave", word(freed), word(allocated))
    };
    story.mismatched.then(line)
}

/// Who did it, when, and the calls.
pub fn write_trace(text: &mut String, verb: &str, trace: Option<&Trace>, most_frames: usize) {
    let Some(trace) = trace else {
        let _ = writeln!(text, "\n{verb} (no record)");
        return;
    };
    let ago = trace.seconds_ago.map_or(String::new(), |seconds| {
        format!(", {} ago", text::seconds(seconds))
    });
    let _ = writeln!(text, "\n{verb} by thread {}{ago}:", trace.thread);
    stacks::write_frames(text, &trace.frames, most_frames);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relation_says_on_which_side_of_the_block() {
        let relation = |address| Block::new(address, 1000, 10, "live").relation();
        assert_eq!(relation(1000), "0 bytes into");
        assert_eq!(relation(1009), "9 bytes into");
        assert_eq!(relation(1010), "0 bytes past the end of");
        assert_eq!(relation(1011), "1 byte past the end of");
        assert_eq!(relation(999), "1 byte before");
        assert_eq!(Block::new(7, 7, 0, "live").relation(), "0 bytes into");
    }
}
