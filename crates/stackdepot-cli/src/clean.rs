//! The `clean` verb: removes what killed runs left in shared memory, and recordings by name.
//!
//! Only region files go, and never one that a live process writes.

use std::fmt::Write;
use std::os::fd::OwnedFd;
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
    let cleaned = arguments
        .files
        .iter()
        .map(|path| clean_file(path, arguments.dry_run));
    last_failure(cleaned)
}

fn clean_file(path: &Path, dry_run: bool) -> Result<(), Failure> {
    let file = RegionFile::open(path).map_err(Failure::new)?;
    if file.is_running() {
        let pid = file.process().pid;
        return Err(Failure::new(format_args!(
            "{}: process {pid} still writes it; end it first",
            path.display()
        )));
    }
    let size = std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
    if !dry_run {
        remove(path)?;
    }
    output::print(&line(dry_run, path, size)).map(drop)
}

/// Does all, says what failed, and fails with the last of it.
fn last_failure(all: impl Iterator<Item = Result<(), Failure>>) -> Result<ExitCode, Failure> {
    let mut last = None;
    for failure in all.filter_map(Result::err) {
        if let Some(earlier) = last.replace(failure) {
            earlier.tell();
        }
    }
    last.map_or(Ok(ExitCode::SUCCESS), Err)
}

fn clean_runs(dry_run: bool) -> Result<ExitCode, Failure> {
    let mut sweep = Sweep {
        dry_run,
        ..Sweep::default()
    };
    for run in old_runs() {
        sweep.clean(&run);
    }
    let verb = if dry_run { "to remove" } else { "removed" };
    let _ = writeln!(
        sweep.text,
        "{verb}: {}, {}",
        text::counted(sweep.count, "file"),
        text::bytes(sweep.bytes)
    );
    output::print(&sweep.text)?;
    last_failure(sweep.failures.into_iter().map(Err))
}

/// What was removed so far, and what could not be.
#[derive(Default)]
struct Sweep {
    dry_run: bool,
    text: String,
    count: u64,
    bytes: u64,
    failures: Vec<Failure>,
}

impl Sweep {
    fn clean(&mut self, run: &OldRun) {
        let shown = run.directory.display();
        // Held until the directory is gone: who starts in it this moment makes another.
        let _lock = match lock_unused(run) {
            Ok(lock) => lock,
            Err(Errno::WOULDBLOCK) => {
                let _ = writeln!(self.text, "in use   {shown}");
                return;
            }
            Err(Errno::NOENT) => return, // it ended meanwhile, or somebody else cleans
            Err(errno) => {
                let why = reason(&errno.into());
                let line = format_args!("cannot open {shown}: {why}").to_string();
                return self.failures.push(Failure::new(line));
            }
        };
        for path in &run.files {
            self.clean_file(path);
        }
        if !self.dry_run {
            // One that is not empty has told so.
            let _ = std::fs::remove_dir(&run.directory);
        }
    }

    fn clean_file(&mut self, path: &Path) {
        let size = std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.len());
        if !self.dry_run
            && let Err(failure) = remove(path)
        {
            return self.failures.push(failure);
        }
        self.text.push_str(&line(self.dry_run, path, size));
        self.count += 1;
        self.bytes += size;
    }
}

/// `WOULDBLOCK` while a `run` has the directory locked, or a process of the run is alive.
fn lock_unused(run: &OldRun) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::open(&run.directory, flags, Mode::empty())?;
    rustix::fs::flock(&handle, FlockOperation::NonBlockingLockExclusive)?;
    // The directory of the preload library is in use while a live process would preload it again.
    let mut inside = run.directory.as_os_str().as_bytes().to_vec();
    inside.push(b'/');
    match run.is_running || processes::user_of(&inside).is_some() {
        true => Err(Errno::WOULDBLOCK),
        false => Ok(handle),
    }
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
