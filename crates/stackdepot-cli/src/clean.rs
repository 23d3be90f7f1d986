//! The `clean` verb: removes what killed runs left in shared memory, and recordings by name.
//!
//! Only region files go, and never one that a live process writes.

use std::fmt::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::locate::{OldRun, old_runs};

use crate::args::CleanArguments;
use crate::failure::{Failure, reason};
use crate::{output, processes, text};

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
        if run.is_running || is_in_use(&run) {
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

/// Whether a `run` still has the directory locked, or a process of the run is alive.
fn is_in_use(run: &OldRun) -> bool {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let lock = rustix::fs::open(&run.directory, flags, Mode::empty())
        .and_then(|handle| rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive));
    // The directory of the preload library is in use while a live process would preload it again.
    let mut inside = run.directory.as_os_str().as_bytes().to_vec();
    inside.push(b'/');
    lock == Err(Errno::WOULDBLOCK) || processes::user_of(&inside).is_some()
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
