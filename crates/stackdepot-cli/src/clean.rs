//! The `clean` verb: removes what killed runs left in shared memory, and recordings by name.
//!
//! Only region files go, and never one that a live process writes.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::locate::{OldRun, old_runs};

use crate::args::CleanArguments;
use crate::failure::Failure;
use crate::run::reason;
use crate::{output, text};

/// Lists and removes.
///
/// # Errors
/// A file that was named is no recording, is in use, or cannot be removed.
pub fn perform(arguments: &CleanArguments) -> Result<ExitCode, Failure> {
    if arguments.files.is_empty() {
        return clean_runs(arguments.dry_run);
    }
    for path in &arguments.files {
        let file = RegionFile::open(path).map_err(Failure::new)?;
        if file.is_running() {
            let pid = file.process().pid;
            return Err(Failure::new(format_args!(
                "{}: process {pid} still writes it; end it first",
                path.display()
            )));
        }
        let size = std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        if !arguments.dry_run {
            remove(path)?;
        }
        output::print(&line(arguments.dry_run, path, size))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn clean_runs(dry_run: bool) -> Result<ExitCode, Failure> {
    let mut text = String::new();
    let (mut count, mut bytes) = (0u64, 0u64);
    for run in old_runs() {
        if run.is_running || is_starting(&run) {
            let _ = writeln!(text, "in use   {}", run.directory.display());
            continue;
        }
        for path in &run.files {
            let size = std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
            if !dry_run {
                remove(path)?;
            }
            text.push_str(&line(dry_run, path, size));
            count += 1;
            bytes += size;
        }
        if !dry_run {
            // A run that starts in it this moment keeps it.
            let _ = std::fs::remove_dir(&run.directory);
        }
    }
    let verb = if dry_run { "to remove" } else { "removed" };
    let _ = writeln!(
        text,
        "{verb}: {}, {}",
        text::counted(count, "file"),
        text::bytes(bytes)
    );
    output::print(&text)
}

/// A directory is called after its `run`, which may not have started the program yet, or may be
/// about to move the files.
fn is_starting(run: &OldRun) -> bool {
    // The directory of the preload library is no run; as long as it is there it is of use.
    let name = run
        .directory
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let Some((pid, _)) = name.split_once('-') else {
        return true;
    };
    std::fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|comm| comm.trim() == "stackdepot")
}

fn line(dry_run: bool, path: &Path, size: u64) -> String {
    let verb = if dry_run { "would remove" } else { "removed" };
    format!("{verb}  {}  {}\n", path.display(), text::bytes(size))
}

fn remove(path: &Path) -> Result<(), Failure> {
    std::fs::remove_file(path).map_err(|error| {
        Failure::new(format_args!(
            "cannot remove {}: {}",
            path.display(),
            reason(&error)
        ))
    })
}
