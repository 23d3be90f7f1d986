//! The short report at the end of a run, on stderr: the program's stdout stays its own.
//!
//! It shows the program that the first process became (a shell may have exec'ed the one that was
//! meant), and one line for each other process that holds much, with the command that tells more.

use std::cmp::Reverse;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::snapshot::Amount;

use super::place::Settled;
use crate::args::By;
use crate::output::{self, Progress};
use crate::recording::{Recording, shell_word};
use crate::{death, report, stacks, text};

/// Stacks in the short report.
const TOP: usize = 5;
/// Calls of each.
const MOST_FRAMES: usize = 6;
/// Other processes that get a line.
const MOST_OTHERS: usize = 5;
/// Characters of their commands.
const MOST_COMMAND: usize = 40;

/// A file whose process is not the one that the report is about.
struct Other {
    path: PathBuf,
    title: String,
    live: Amount,
    is_sampled: bool,
    is_dead: bool,
}

/// Tells the user something before the program starts, or about its recordings.
pub fn note(line: &str) {
    output::note(line);
}

/// What is live, what was lost, and where to read on.
pub fn print(settled: &Settled, first: &Path) {
    let main = last_image(first, &settled.others);
    let text = match Recording::open_file(&main) {
        Ok(recording) => short_report(recording, &main, settled),
        Err(failure) => format!("stackdepot: {}\n", failure.message),
    };
    // A closed stderr has no reader.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// The newest file of the first process: what it became by exec.
fn last_image(first: &Path, others: &[PathBuf]) -> PathBuf {
    let Ok(pid) = RegionFile::open(first).map(|file| file.process().pid) else {
        return first.to_path_buf();
    };
    let images = others.iter().map(PathBuf::as_path).chain([first]);
    let own = images.filter_map(|path| {
        let file = RegionFile::open(path).ok()?;
        (file.process().pid == pid).then(|| (file.started_ns(), path))
    });
    own.max_by_key(|(started_ns, _)| *started_ns)
        .map_or(first, |(_, path)| path)
        .to_path_buf()
}

fn short_report(mut recording: Recording, path: &Path, settled: &Settled) -> String {
    let mut text = String::from("\n== stackdepot ==\n");
    if !settled.others.is_empty() {
        let _ = writeln!(text, "{}", report::title(&recording));
    }
    report::write_totals(&mut text, &recording);
    if settled.first.as_deref() != Some(path) {
        write_run_losses(&mut text, settled);
    }
    report::write_trouble(&mut text, &mut recording, MOST_FRAMES);
    write_stacks(&mut text, &mut recording);
    let others = settled.first.iter().chain(&settled.others);
    write_others(&mut text, others.filter(|other| *other != path));
    let _ = writeln!(text, "more: {}", command(path));
    text
}

/// What the run lost as a whole stands in the first file alone.
fn write_run_losses(text: &mut String, settled: &Settled) {
    let Some(Ok(first)) = settled.first.as_deref().map(Recording::open_file) else {
        return;
    };
    report::write_lost(text, first.lost().of_run());
}

fn write_stacks(text: &mut String, recording: &mut Recording) {
    let mut top = stacks::sorted(recording, By::LiveBytes);
    top.retain(|stack| stack.live.count > 0);
    let more = top.len().saturating_sub(TOP);
    top.truncate(TOP);
    let is_sampled = recording.snapshot.is_sampled();
    for (index, stack) in top.iter().enumerate() {
        let frames = recording.frames(Some(stack.weak), None);
        text.push('\n');
        stacks::write_stack(text, index + 1, stack, is_sampled, &frames, MOST_FRAMES);
    }
    text.push('\n');
    if more > 0 {
        let more = text::counted(more as u64, "stack");
        let _ = writeln!(text, "{more} more hold memory");
    }
}

fn write_others<'a>(text: &mut String, paths: impl Iterator<Item = &'a PathBuf>) {
    let paths: Vec<&PathBuf> = paths.collect();
    if paths.is_empty() {
        return;
    }
    let mut others = look_at(&paths);
    let process_count = text::counted(paths.len() as u64, "recording");
    let _ = writeln!(
        text,
        "{process_count} of other programs of the run, by what is live in them:"
    );
    others.sort_by_key(|other| Reverse((other.is_dead, other.live.bytes, other.live.count)));
    let more = others.split_off(others.len().min(MOST_OTHERS));
    for other in &others {
        let about = if other.is_sampled { "~" } else { "" };
        let _ = writeln!(
            text,
            "{:>12} in {:<14}  {}: {}",
            format!("{about}{}", text::bytes(other.live.bytes)),
            text::counted(other.live.count, "block"),
            other.title,
            command(&other.path),
        );
    }
    if !more.is_empty() {
        let bytes = more
            .iter()
            .fold(0u64, |sum, other| sum.saturating_add(other.live.bytes));
        let _ = writeln!(
            text,
            "{:>12} in {} more",
            text::bytes(bytes),
            text::counted(more.len() as u64, "recording"),
        );
    }
    text.push('\n');
}

fn look_at(paths: &[&PathBuf]) -> Vec<Other> {
    let mut progress = Progress::new("reading the recordings");
    let mut others = Vec::new();
    for (index, path) in paths.iter().enumerate() {
        progress.show(index, paths.len());
        // A file that cannot be read says so when it is asked for.
        if let Ok(recording) = Recording::open_file(path) {
            others.push(Other {
                path: path.to_path_buf(),
                title: short_title(&recording),
                live: recording.live(),
                is_sampled: recording.snapshot.is_sampled(),
                is_dead: recording.info().death.is_some(),
            });
        }
    }
    others
}

/// `sqlite3 my.db 'select ... (pid 4711)`, without the directory of the program.
fn short_title(recording: &Recording) -> String {
    let whole = recording.command();
    let program_end = whole.find(' ').unwrap_or(whole.len());
    let name_start = whole[..program_end].rfind('/').map_or(0, |slash| slash + 1);
    let whole = &whole[name_start..];
    let mut command: String = whole.chars().take(MOST_COMMAND).collect();
    if command.len() < whole.len() {
        command.push_str("...");
    }
    let died = recording
        .info()
        .death
        .as_ref()
        .map_or(String::new(), |report| {
            format!(", died by {}", death::signal_of(report))
        });
    format!("{command} (pid {}){died}", recording.info().pid)
}

fn command(path: &Path) -> String {
    format!("stackdepot report {}", shell_word(path.as_os_str()))
}
