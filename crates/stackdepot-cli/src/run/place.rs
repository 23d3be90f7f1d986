//! Where the files of a run live: in shared memory while it runs, beside the user afterwards.
//!
//! [`Place::prepare`] makes a private directory (or takes the FILE of `-o`) and checks that there
//! is room; the preload library creates the files in it. [`Place::settle`] moves what was recorded
//! to `./stackdepot.<pid>` once every process of the run has ended.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use rustix::process::getpid;
use stackdepot_region::birth::NewFile;
use stackdepot_region::error::CreateError;
use stackdepot_region::plan::first_file_bytes;
use stackdepot_region::reader::RegionFile;
use stackdepot_region::reader::locate::{RUNS_PARENT, own_runs_directory};

use super::library::open_private;
use super::moving::{free_name, move_file};
use crate::failure::{CANNOT_RECORD, Failure, reason};
use crate::processes;
use crate::text::{bytes, counted};

/// The name of the first process's file in a directory of ours.
const FIRST: &str = "first";
/// Directories that are made before giving up.
const DIRECTORY_LIMIT: usize = 8;

/// The files of one run.
#[derive(Debug)]
pub struct Place {
    first: PathBuf,
    /// The directory that is ours to remove; none with `-o`.
    directory: Option<Directory>,
}

/// A directory of this run alone. Its lock tells `clean` that the run is alive.
#[derive(Debug)]
struct Directory {
    path: PathBuf,
    _lock: OwnedFd,
}

/// What became of the files.
#[derive(Debug)]
pub struct Settled {
    /// The first process's file, if it made one.
    pub first: Option<PathBuf>,
    /// The files of later processes and of later programs of the first one.
    pub others: Vec<PathBuf>,
    /// What the user should know, one line each.
    pub notes: Vec<String>,
}

impl Place {
    /// Finds room for `total_bytes`.
    ///
    /// # Errors
    /// No room, no permission, or a file that is there already; one line each.
    pub fn prepare(output: Option<&Path>, total_bytes: u64) -> Result<Place, Failure> {
        let place = match output {
            Some(output) => Place {
                first: check_output(output)?,
                directory: None,
            },
            None => {
                let directory = make_directory().map_err(|error| {
                    let why = reason(&error);
                    let root = own_runs_directory();
                    refuse(format_args!(
                        "cannot make a directory in {}: {why}; give a file with -o FILE",
                        root.display()
                    ))
                })?;
                Place {
                    first: directory.path.join(FIRST),
                    directory: Some(directory),
                }
            }
        };
        match place.check_room(total_bytes) {
            Ok(()) => Ok(place),
            Err(failure) => {
                place.remove_directory();
                Err(failure)
            }
        }
    }

    /// Where the first process is to create its file.
    pub fn first(&self) -> &Path {
        &self.first
    }

    /// The first file alone is preallocated at once; later ones that find no room go unrecorded.
    fn check_room(&self, total_bytes: u64) -> Result<(), Failure> {
        let parent = self.first.parent().unwrap_or(Path::new("/"));
        let Ok(found) = rustix::fs::statvfs(parent) else {
            return Ok(());
        };
        let free = found.f_bavail.saturating_mul(found.f_frsize);
        let needed = first_file_bytes(total_bytes);
        // A file system that does not tell its size (some tmpfs) is left to prove itself.
        if found.f_blocks == 0 || free >= needed {
            return Ok(());
        }
        let advice = match self.directory {
            Some(_) => "give a file elsewhere with -o FILE, or less with --bytes",
            None => "give another file with -o FILE, or less with --bytes",
        };
        let place = if self.directory.is_some() {
            Path::new(RUNS_PARENT)
        } else {
            parent
        };
        let (free, needed) = (bytes(free), bytes(needed));
        Err(refuse(format_args!(
            "no room in {}: {free} free, {needed} needed; {advice}",
            place.display()
        )))
    }

    /// Moves the files to where the user works, unless a process still writes one.
    pub fn settle(self, first_pid: u32) -> Settled {
        let (first, others) = self.files();
        let mut settled = Settled {
            first,
            others,
            notes: Vec::new(),
        };
        let running = self.running_pid(&settled);
        let Some(directory) = &self.directory else {
            settled.notes.extend(
                running.map(|pid| {
                    format!("process {pid} of the run goes on, and so does its recording")
                }),
            );
            return settled;
        };
        if let Some(pid) = running {
            settled.notes.push(format!(
                "process {pid} of the run goes on: the recordings stay in {} until `stackdepot clean`",
                directory.path.display()
            ));
            return settled;
        }
        settled.move_to(&free_name(first_pid));
        self.remove_directory();
        settled
    }

    /// A process that writes one of the files, or is about to make one.
    fn running_pid(&self, settled: &Settled) -> Option<u32> {
        let mut environment = b"STACKDEPOT_RUN=".to_vec();
        environment.extend_from_slice(self.first.as_os_str().as_bytes());
        environment.push(0);
        let files = settled.first.iter().chain(&settled.others);
        files
            .filter_map(|path| running_pid(path))
            .next()
            .or_else(|| processes::user_of(&environment))
    }

    /// The first file, if it is there, and those of later processes.
    fn files(&self) -> (Option<PathBuf>, Vec<PathBuf>) {
        let parent = self.first.parent().unwrap_or(Path::new("/"));
        let first_name = self
            .first
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let mut children: Vec<PathBuf> = std::fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            // The recorder makes nothing else.
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
            .filter(|entry| self.is_child(&first_name, &entry.file_name().to_string_lossy()))
            .map(|entry| entry.path())
            .collect();
        children.sort();
        (self.first.exists().then(|| self.first.clone()), children)
    }

    /// In a directory of ours everything else; beside FILE what is called `FILE.<pid>[-<n>]`.
    fn is_child(&self, first_name: &str, name: &str) -> bool {
        if self.directory.is_some() {
            return name != first_name;
        }
        let suffix = name
            .strip_prefix(first_name)
            .and_then(|rest| rest.strip_prefix('.'));
        suffix.is_some_and(|suffix| {
            suffix.starts_with(|c: char| c.is_ascii_digit())
                && suffix.bytes().all(|b| b.is_ascii_digit() || b == b'-')
        })
    }

    /// Gone when it is empty: what could not be moved keeps it.
    pub fn remove_directory(&self) {
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir(&directory.path);
        }
    }
}

impl Settled {
    /// Moves every file; what cannot be moved stays where it is, and a note says so.
    fn move_to(&mut self, target: &Path) {
        let mut failed = Vec::new();
        let mut settle = |path: &mut PathBuf, to: PathBuf| match move_file(path, &to) {
            Ok(()) => *path = to,
            Err(error) => failed.push((path.clone(), to, error)),
        };
        for path in &mut self.others {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let name = name
                .strip_prefix(FIRST)
                .map_or(&*name, |rest| rest.trim_start_matches('.'));
            let to = format!("{}.{name}", target.display());
            settle(path, to.into());
        }
        if let Some(path) = &mut self.first {
            settle(path, target.to_path_buf());
        }
        if let Some((from, to, error)) = failed.last() {
            self.notes.push(format!(
                "cannot move {} to ./{}: {}; left in {} until `stackdepot clean`",
                counted(failed.len() as u64, "recording"),
                to.display(),
                reason(error),
                from.parent().unwrap_or(from).display()
            ));
        }
    }
}

fn refuse(line: impl std::fmt::Display) -> Failure {
    Failure::with_status(CANNOT_RECORD, line)
}

fn make_directory() -> io::Result<Directory> {
    let root = own_runs_directory();
    open_private(&root)?;
    for _ in 0..DIRECTORY_LIMIT {
        if let Some(directory) = try_directory(&root)? {
            return Ok(directory);
        }
    }
    Err(io::Error::other("`stackdepot clean` is always faster"))
}

/// `None` when `clean` took the new directory for a dead run's, before it was locked.
fn try_directory(root: &Path) -> io::Result<Option<Directory>> {
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = format!(
        "{}-{:016x}",
        getpid().as_raw_nonzero(),
        u64::from_ne_bytes(random)
    );
    let path = root.join(name);
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700).create(&path)?;
    let lock = open_private(&path)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        locked => locked?,
    }
    let is_removed = rustix::fs::fstat(&lock)?.st_nlink == 0;
    Ok((!is_removed).then_some(Directory { path, _lock: lock }))
}

/// FILE must be new, in a directory where a file can be made.
fn check_output(output: &Path) -> Result<PathBuf, Failure> {
    let shown = output.display();
    let path = std::path::absolute(output)
        .map_err(|error| refuse(format_args!("-o {shown}: {}", reason(&error))))?;
    if std::fs::symlink_metadata(&path).is_ok() {
        return Err(refuse(format_args!(
            "-o {shown}: there is such a file already; remove it or choose another name"
        )));
    }
    let name_is_plain =
        output.file_name().is_some() && !output.as_os_str().to_string_lossy().ends_with('/');
    let parent = path.parent().filter(|_| name_is_plain);
    let Some(parent) = parent else {
        return Err(refuse(format_args!(
            "-o {shown}: that is no name for a file"
        )));
    };
    match try_to_make(&path) {
        Ok(()) => Ok(path),
        Err(error) => Err(refuse(format_args!(
            "-o {shown}: cannot make a file in {}: {}",
            parent.display(),
            reason(&error)
        ))),
    }
}

/// Makes a file beside `path`, with a name as long as a child's, and takes it away again.
fn try_to_make(path: &Path) -> io::Result<()> {
    let mut longest = path.as_os_str().to_owned();
    longest.push(".4194304-65535");
    let name = CString::new(longest.as_bytes())?;
    match NewFile::temporary(&name) {
        Ok(_) => Ok(()),
        Err(CreateError::Open(errno)) => Err(io::Error::from_raw_os_error(errno.0)),
        Err(_) => Err(Errno::NAMETOOLONG.into()),
    }
}

/// The process that still writes a file.
fn running_pid(path: &Path) -> Option<u32> {
    let file = RegionFile::open(path).ok()?;
    file.is_running().then(|| file.process().pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_of_an_output_are_told_by_their_names() {
        let place = Place {
            first: "/x/out".into(),
            directory: None,
        };
        assert!(place.is_child("out", "out.12"));
        assert!(place.is_child("out", "out.12-3"));
        assert!(!place.is_child("out", "out"));
        assert!(!place.is_child("out", "out.c"));
        assert!(!place.is_child("out", "out.1.bak"));
    }
}
