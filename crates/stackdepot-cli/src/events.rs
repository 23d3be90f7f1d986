//! The `events` verb: the newest allocs and frees, as the ring keeps them.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use stackdepot::ring::{Event, EventKind};

use crate::args::EventsArguments;
use crate::failure::Failure;
use crate::output::Progress;
use crate::recording::{Recording, Trace};
use crate::symbols::Frame;
use crate::{json, output, stacks, text};

/// Lines that fit a screen.
const DEFAULT_LAST: usize = 20;
/// Calls on the line of an event.
const SHOWN_CALLS: usize = 4;

#[derive(Serialize)]
struct Document<R: Serialize> {
    format: u32,
    program: String,
    pid: u32,
    total: u64,
    overwritten: u64,
    events: R,
}

#[derive(Serialize)]
struct Row {
    kind: &'static str,
    #[serde(serialize_with = "json::address")]
    address: u64,
    size: u64,
    thread: u32,
    family: Option<&'static str>,
    seconds_ago: Option<f64>,
    frames: Vec<Frame>,
    allocated: Option<Trace>,
}

/// Prints the events, newest first.
///
/// # Errors
/// The recording cannot be read.
pub fn perform(arguments: &EventsArguments) -> Result<ExitCode, Failure> {
    let mut recording = Recording::open(&arguments.target)?;
    let most = match (arguments.last, arguments.json) {
        (Some(0), _) | (None, true) => usize::MAX,
        (Some(most), _) => most,
        (None, false) => DEFAULT_LAST,
    };
    let events: Vec<Event> = recording
        .snapshot
        .events()
        .iter()
        .take(most)
        .copied()
        .collect();
    let done = if arguments.json {
        let ring = recording.snapshot.ring_stats();
        json::print_rows(&Document {
            format: json::FORMAT,
            program: recording.program(),
            pid: recording.info().pid,
            total: ring.events,
            overwritten: ring.overwritten,
            events: json::Rows::new(rows(&mut recording, &events)),
        })
    } else {
        let rows = rows(&mut recording, &events).collect::<Vec<_>>();
        output::print(&list(&recording, &rows))
    };
    recording.note_gaps();
    done
}

/// The rows, looked up when they are asked for.
fn rows<'a>(recording: &'a mut Recording, events: &'a [Event]) -> impl Iterator<Item = Row> + 'a {
    let mut progress = Progress::new("looking up names");
    events.iter().enumerate().map(move |(index, event)| {
        progress.show(index, events.len());
        row(recording, event)
    })
}

fn row(recording: &mut Recording, event: &Event) -> Row {
    let is_alloc = event.kind == EventKind::Alloc;
    let (caller, time, stack) = (event.thread, Some(event.time), event.stack);
    let Trace {
        thread,
        family,
        seconds_ago,
        frames,
    } = match is_alloc {
        true => recording.allocation(caller, time, stack),
        false => recording.free(caller, time, stack),
    };
    let is_known = event.other_stack.is_some() || event.other_time.is_some();
    Row {
        kind: json::kind(event.kind),
        address: event.address,
        size: event.size,
        thread,
        family,
        seconds_ago,
        frames,
        allocated: is_known
            .then(|| recording.allocation(event.other_thread, event.other_time, event.other_stack)),
    }
}

fn list(recording: &Recording, rows: &[Row]) -> String {
    let mut text = String::new();
    let ring = recording.snapshot.ring_stats();
    let stored = recording.snapshot.events().len() as u64;
    let _ = writeln!(
        text,
        "{}, the newest {} kept",
        text::counted(ring.events, "event"),
        text::count(stored)
    );
    for row in rows {
        let ago = row.seconds_ago.map_or("?".to_owned(), |seconds| {
            format!("{} ago", text::seconds(seconds))
        });
        let calls: Vec<String> = row
            .frames
            .iter()
            .take(SHOWN_CALLS)
            .map(stacks::short)
            .collect();
        let calls = if calls.is_empty() {
            "(stack is not available)".to_owned()
        } else {
            calls.join(" < ")
        };
        let _ = writeln!(
            text,
            "{ago:>14}  {:<5}  {:#014x}  {:>10}  thread {}  {calls}",
            row.kind,
            row.address,
            text::bytes(row.size),
            row.thread,
        );
    }
    text
}
