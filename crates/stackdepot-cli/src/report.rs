//! The `report` verb: page_owner's list for user space, the stacks that hold memory.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use stackdepot_region::format::RunState;
use stackdepot_region::reader::snapshot::StackRecord;

use crate::args::{By, ReportArguments};
use crate::death::{self, Died};
use crate::failure::Failure;
use crate::output::Progress;
use crate::recording::{Lost, Recording};
use crate::symbols::Frame;
use crate::wrong::{self, WrongFree};
use crate::{json, output, stacks, text};

/// Stacks that a reader takes in at once.
const DEFAULT_TOP: usize = 10;
/// Calls of one stack in the text; JSON has all.
const MOST_FRAMES: usize = 40;

#[derive(Serialize)]
struct Document<R: Serialize> {
    format: u32,
    program: String,
    pid: u32,
    command: String,
    region_bytes: u64,
    events: u64,
    sampled: bool,
    sample_bytes: Option<u64>,
    lost: Lost,
    live: Live,
    died: Option<Died>,
    wrong_frees: Vec<WrongFree>,
    stacks: R,
}

#[derive(Serialize)]
struct Live {
    count: u64,
    bytes: u64,
    without_stack: WithoutStack,
}

/// Part of the live blocks: those whose stack was refused, so that no entry of `stacks` has them.
#[derive(Serialize)]
struct WithoutStack {
    count: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct Row {
    live_count: u64,
    live_bytes: u64,
    total_count: u64,
    total_bytes: u64,
    frames: Vec<Frame>,
}

/// Prints the list.
///
/// # Errors
/// The recording cannot be read.
pub fn perform(arguments: &ReportArguments) -> Result<ExitCode, Failure> {
    let mut recording = Recording::open(&arguments.target)?;
    let mut stacks = stacks::sorted(&recording, arguments.by);
    let most = match (arguments.top, arguments.json) {
        (Some(0), _) | (None, true) => usize::MAX,
        (Some(most), _) => most,
        (None, false) => DEFAULT_TOP,
    };
    if !arguments.json {
        stacks.retain(|stack| stacks::key(stack, arguments.by).0 > 0);
    }
    let stack_count = stacks.len();
    stacks.truncate(most);
    let done = if arguments.json {
        print_document(&mut recording, &stacks)
    } else {
        let mut text = String::new();
        let _ = writeln!(text, "{}", title(&recording));
        write_totals(&mut text, &recording);
        write_trouble(&mut text, &mut recording, MOST_FRAMES);
        let frames = symbolize(&mut recording, &stacks).collect::<Vec<_>>();
        output::print(&list(
            text,
            &recording,
            arguments.by,
            &stacks,
            &frames,
            stack_count,
        ))
    };
    recording.note_gaps();
    done
}

/// The frames of each stack, looked up when they are asked for.
fn symbolize<'a>(
    recording: &'a mut Recording,
    stacks: &'a [StackRecord],
) -> impl Iterator<Item = Vec<Frame>> + 'a {
    let mut progress = Progress::new("looking up names");
    stacks.iter().enumerate().map(move |(index, stack)| {
        progress.show(index, stacks.len());
        recording.frames(Some(stack.weak), None)
    })
}

fn print_document(recording: &mut Recording, stacks: &[StackRecord]) -> Result<ExitCode, Failure> {
    let (live, without_stack) = (recording.live(), recording.without_stack());
    let (died, wrong_frees) = (death::died(recording), wrong::wrong_frees(recording));
    json::print_rows(&Document {
        format: json::FORMAT,
        program: recording.program(),
        pid: recording.info().pid,
        command: recording.command(),
        region_bytes: recording.info().file_bytes,
        events: recording.snapshot.ring_stats().events,
        sampled: recording.snapshot.is_sampled(),
        sample_bytes: recording.sample_bytes(),
        lost: recording.lost(),
        live: Live {
            count: live.count,
            bytes: live.bytes,
            without_stack: WithoutStack {
                count: without_stack.count,
                bytes: without_stack.bytes,
            },
        },
        died,
        wrong_frees,
        stacks: json::Rows::new(stacks.iter().zip(symbolize(recording, stacks)).map(
            |(stack, frames)| Row {
                live_count: stack.live.count,
                live_bytes: stack.live.bytes,
                total_count: stack.total.count,
                total_bytes: stack.total.bytes,
                frames,
            },
        )),
    })
}

fn list(
    mut text: String,
    recording: &Recording,
    by: By,
    stacks: &[StackRecord],
    frames: &[Vec<Frame>],
    stack_count: usize,
) -> String {
    let is_sampled = recording.snapshot.is_sampled();
    for (index, (stack, frames)) in stacks.iter().zip(frames).enumerate() {
        text.push('\n');
        stacks::write_stack(&mut text, index + 1, stack, is_sampled, frames, MOST_FRAMES);
    }
    if stack_count == 0 {
        let what = if matches!(by, By::LiveBytes | By::LiveCount) {
            "nothing is live"
        } else {
            "no stack is stored"
        };
        let _ = writeln!(text, "\n{what}");
    } else if stack_count > stacks.len() {
        let more = text::counted((stack_count - stacks.len()) as u64, "stack");
        let _ = writeln!(text, "\n{more} more: --top 0");
    }
    text
}

/// `sqlite3 my.db (pid 4711), ended`
pub fn title(recording: &Recording) -> String {
    let info = recording.info();
    let state = match (info.is_running, info.state, &info.death) {
        (true, ..) => "running".to_owned(),
        (false, _, Some(report)) => format!("died by {}", death::signal_of(report)),
        (false, RunState::Ended, None) => "ended".to_owned(),
        // Its exit handlers did not tell of the end.
        (false, RunState::Running, None) => "ended by _exit or a signal".to_owned(),
    };
    let command = recording.command();
    let command = if command.is_empty() {
        recording.program()
    } else {
        command
    };
    format!("{command} (pid {}), {state}", info.pid)
}

/// Live, total and lost, as `report` and the end of `run` begin.
pub fn write_totals(text: &mut String, recording: &Recording) {
    let (live, total) = (recording.live(), recording.total());
    let about = if recording.snapshot.is_sampled() {
        "~"
    } else {
        ""
    };
    let _ = writeln!(
        text,
        "live   {about}{} in {about}{}{}",
        text::bytes(live.bytes),
        text::counted(live.count, "block"),
        if recording.snapshot.is_sampled() {
            "  (~ estimated from a sample of the blocks)"
        } else {
            ""
        },
    );
    let without_stack = recording.without_stack();
    if without_stack.count > 0 {
        let _ = writeln!(
            text,
            "       of these {about}{} in {about}{} whose stack was refused",
            text::bytes(without_stack.bytes),
            text::counted(without_stack.count, "block"),
        );
    }
    let about = recording.sample_bytes().map_or("", |_| "~");
    let _ = writeln!(
        text,
        "total  {about}{} in {about}{}, {} events",
        text::bytes(total.bytes),
        text::counted(total.count, "block"),
        text::count(recording.snapshot.ring_stats().events),
    );
    if let Some(bytes) = recording.sample_bytes() {
        let _ = writeln!(
            text,
            "sample about one block in every {} allocated was recorded",
            text::bytes(bytes)
        );
    }
    wrong::write_totals(text, recording);
    write_lost(text, recording.lost().worth_telling());
}

/// How the program died, and its wrong frees, with their stacks.
pub fn write_trouble(text: &mut String, recording: &mut Recording, most_frames: usize) {
    if let Some(died) = death::died(recording) {
        text.push('\n');
        death::write_died(text, &died, most_frames);
    }
    wrong::write_wrong_frees(text, &wrong::wrong_frees(recording), most_frames);
}

/// One line for each loss.
pub fn write_lost(text: &mut String, lost: Vec<(u64, &'static str)>) {
    for (number, words) in lost {
        let _ = writeln!(text, "lost   {} {words}", text::count(number));
    }
}
