//! The death of the program by a signal: which memory it was about, who allocated and who freed it.
//!
//! Key type: [`Died`]. The faulting address itself may lie in a block, or near one. Where it does not, a
//! pointer was read out of freed memory: then a register often still points into that.

use std::fmt::Write;

use serde::Serialize;
use signal_hook::low_level::signal_name;
use stackdepot_region::death::{Access, Death, DeathReport, REGISTER_NAMES};

use crate::recording::Recording;
use crate::story::{self, Story, write_story};
use crate::symbols::Frame;
use crate::{json, stacks, text};

/// A block this near the address is worth telling: what runs over an edge faults on the next page.
const NEAR_BYTES: u64 = 4096;
/// Where nothing is ever mapped.
const NULL_BYTES: u64 = 64 << 10;
/// Farther from the stack pointer nobody touches the stack.
const STACK_BYTES: u64 = 64 << 10;

/// A death.
#[derive(Serialize)]
pub struct Died {
    signal: String,
    code: i32,
    sender: Option<u32>,
    access: Option<&'static str>,
    #[serde(serialize_with = "json::optional_address")]
    address: Option<u64>,
    thread: u32,
    seconds_ago: Option<f64>,
    #[serde(serialize_with = "json::address")]
    pc: u64,
    frames: Vec<Frame>,
    /// What lies at the address or near it.
    memory: Option<Story>,
    /// Registers that point into freed blocks; only where `memory` is not known.
    pointers: Vec<Pointer>,
    #[serde(skip)]
    about: String,
}

/// A register that points into a freed block.
#[derive(Serialize)]
struct Pointer {
    register: &'static str,
    #[serde(flatten)]
    story: Story,
}

/// The signal that ended the program, as `SIGSEGV`.
pub fn signal_of(report: &DeathReport) -> String {
    let signal = report.death.signal;
    signal_name(signal).map_or_else(|| format!("signal {signal}"), str::to_owned)
}

/// What is known of the death; `None` where no signal was noted.
pub fn died(recording: &mut Recording) -> Option<Died> {
    let report = recording.info().death.clone()?;
    let death = report.death;
    let memory = death
        .fault
        .and_then(|(address, _)| story::nearest(recording, address, NEAR_BYTES));
    let is_memory = matches!(death.signal, libc::SIGSEGV | libc::SIGBUS);
    let pointers = if memory.is_none() && is_memory && death.code > 0 {
        pointers(recording, &death)
    } else {
        Vec::new()
    };
    Some(Died {
        signal: signal_of(&report),
        code: death.code,
        sender: (death.sender != 0).then_some(death.sender),
        access: death.fault.map(|(_, access)| word(access)),
        address: death.fault.map(|(address, _)| address),
        thread: death.thread,
        seconds_ago: recording.info().seconds_ago(death.time),
        pc: death.pc,
        frames: frames(recording, &report),
        about: about(recording, &death, memory.as_ref()),
        memory,
        pointers,
    })
}

/// The stack; an instruction that lies nowhere is shown as it is, not as a return address.
fn frames(recording: &mut Recording, report: &DeathReport) -> Vec<Frame> {
    let time = Some(report.death.time);
    let mut frames = recording.symbols.stack(&report.frames, time);
    if let Some(first) = frames.first_mut()
        && first.module.is_none()
    {
        first.address = report.death.pc;
    }
    frames
}

fn word(access: Access) -> &'static str {
    match access {
        Access::Read => "read",
        Access::Write => "write",
        Access::Execute => "execute",
    }
}

fn pointers(recording: &mut Recording, death: &Death) -> Vec<Pointer> {
    let mut pointers: Vec<Pointer> = Vec::new();
    for (register, value) in REGISTER_NAMES.into_iter().zip(death.registers) {
        let newest = story::stories(recording, value).into_iter().next();
        let Some(story) = newest.filter(|story| story.block.state == "freed") else {
            continue;
        };
        let start = story.block.address;
        if pointers
            .iter()
            .all(|known| known.story.block.address != start)
        {
            pointers.push(Pointer { register, story });
        }
    }
    pointers
}

/// What the signal was about: `reading 0x7f00: 16 bytes into a block of 64 bytes freed 0.2 s before`
fn about(recording: &Recording, death: &Death, memory: Option<&Story>) -> String {
    let Some((address, access)) = death.fault else {
        return about_no_address(death, recording.info().pid);
    };
    let doing = match access {
        Access::Read => "reading",
        Access::Write => "writing",
        Access::Execute => "executing",
    };
    let stack_pointer = death.registers[7];
    let place = match memory {
        Some(story) => place_in(story, recording.info().seconds_ago(death.time)),
        None if address < NULL_BYTES => "near null".to_owned(),
        None if address.abs_diff(stack_pointer) < STACK_BYTES => {
            "at the stack pointer, the stack overflowed".to_owned()
        }
        None => match recording.snapshot.module_at(address, Some(death.time)) {
            Some(module) => format!("in {}", text::plain(&String::from_utf8_lossy(&module.path))),
            None => "in no block that is known".to_owned(),
        },
    };
    format!(" {doing} {address:#x}: {place}")
}

fn about_no_address(death: &Death, pid: u32) -> String {
    match death.signal {
        _ if death.sender == pid => ", which it sent itself".to_owned(),
        _ if death.sender != 0 => format!(", which process {} sent", death.sender),
        _ if death.code <= 0 => ", which was sent".to_owned(),
        libc::SIGSEGV | libc::SIGBUS => ": the address is none (not canonical)".to_owned(),
        _ => format!(" at {:#x}", death.pc),
    }
}

/// `16 bytes into a block of 64 bytes freed 0.2 s before`
fn place_in(story: &Story, death_ago: Option<f64>) -> String {
    let block = &story.block;
    let size = text::counted(block.size, "byte");
    let relation = block.relation();
    if block.state == "live" {
        return format!("{relation} a live block of {size}");
    }
    let freed_ago = story.freed.as_ref().and_then(|freed| freed.seconds_ago);
    let before = freed_ago
        .zip(death_ago)
        .map_or(String::new(), |(freed, died)| {
            format!(" {} before", text::seconds((freed - died).max(0.0)))
        });
    format!("{relation} a block of {size} freed{before}")
}

/// One line, the stack of the death, and the story of the memory.
pub fn write_died(text: &mut String, died: &Died, most_frames: usize) {
    let _ = writeln!(text, "died by {}{}", died.signal, died.about);
    let _ = writeln!(text, "\nDied in thread {}:", died.thread);
    stacks::write_frames(text, &died.frames, most_frames);
    if let Some(story) = &died.memory {
        write_story(text, story, most_frames);
    }
    for (index, pointer) in died.pointers.iter().enumerate() {
        let place = place_in(&pointer.story, died.seconds_ago);
        let _ = writeln!(text, "\nregister {} points {place}", pointer.register);
        if index == 0 {
            write_story(text, &pointer.story, most_frames);
        }
    }
}
