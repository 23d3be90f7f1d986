//! The short report at the end of a run, on stderr: the program's stdout stays its own.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::place::Settled;
use crate::args::By;
use crate::recording::Recording;
use crate::{output, report, stacks, text};

/// Stacks in the short report.
const TOP: usize = 5;
/// Calls of each.
const MOST_FRAMES: usize = 6;

/// Tells the user something before the program starts.
pub fn note(line: &str) {
    output::note(line);
}

/// What is live, what was lost, and where to read on.
pub fn print(settled: &Settled) {
    for note in &settled.notes {
        output::note(note);
    }
    let Some(path) = &settled.first else {
        output::note(
            "nothing was recorded: the program allocated nothing, did not load the preload library, or found no room for its file",
        );
        return;
    };
    let text = match Recording::open_file(path) {
        Ok(recording) => short_report(recording, path, settled.child_count),
        Err(failure) => format!("stackdepot: {}\n", failure.message),
    };
    // A closed stderr has no reader.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn short_report(mut recording: Recording, path: &Path, child_count: usize) -> String {
    let mut text = String::from("\n== stackdepot ==\n");
    report::write_totals(&mut text, &recording);
    let mut top = stacks::sorted(&recording, By::LiveBytes);
    top.retain(|stack| stack.live.count > 0);
    let more = top.len().saturating_sub(TOP);
    top.truncate(TOP);
    let is_sampled = recording.snapshot.is_sampled();
    for (index, stack) in top.iter().enumerate() {
        let frames = recording.frames(Some(stack.weak), None);
        text.push('\n');
        stacks::write_stack(
            &mut text,
            index + 1,
            stack,
            is_sampled,
            &frames,
            MOST_FRAMES,
        );
    }
    text.push('\n');
    if more > 0 {
        let _ = writeln!(
            text,
            "{} more hold memory",
            text::counted(more as u64, "stack")
        );
    }
    if child_count > 0 {
        let _ = writeln!(
            text,
            "{} of later processes beside it: {}.*",
            text::counted(child_count as u64, "file"),
            path.display()
        );
    }
    let _ = writeln!(text, "more: stackdepot report {}", path.display());
    text
}
