//! Finding files: that of a process, and those that earlier runs left in `/dev/shm`.
//!
//! A file is known by its header, never by its name alone. Directories of other users are not
//! looked into, except those of the owner of the process asked for (root may read them).

use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::RegionFile;
use crate::error::ReadError;
use crate::sys;

/// Files of running programs lie below this, in `stackdepot-UID/RUN/`.
pub const RUNS_PARENT: &str = "/dev/shm";
/// No directory is read further than this many names.
const NAME_LIMIT: usize = 65536;

/// Why what the user named could not be opened. Its `Display` is the one line for the user.
#[derive(Debug)]
pub enum TargetError {
    /// The file could not be read.
    Read(ReadError),
    /// Nothing was named.
    NoName,
    /// No number that a process could have.
    NoPid(String),
    /// No such process, and no file of it.
    NoProcess(u32),
    /// A process of another user.
    OtherUser(u32),
    /// It runs, but is not recorded.
    NotRecorded(u32),
}

impl From<ReadError> for TargetError {
    fn from(error: ReadError) -> TargetError {
        TargetError::Read(error)
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::Read(error) => write!(out, "{error}"),
            TargetError::NoName => {
                write!(out, "'' is no name; name a region file or a pid")
            }
            TargetError::NoPid(digits) => {
                write!(
                    out,
                    "{digits}: no pid; for a file of this name write ./{digits}"
                )
            }
            TargetError::NoProcess(pid) => write!(
                out,
                "{pid}: no such process, and no ./stackdepot.{pid}; name its region file (a file of this name: ./{pid})"
            ),
            TargetError::OtherUser(pid) => write!(
                out,
                "{pid}: the process of another user; read it as that user or as root"
            ),
            TargetError::NotRecorded(pid) => write!(
                out,
                "{pid}: the process is not recorded; start it with `stackdepot run` (a file of this name: ./{pid})"
            ),
        }
    }
}

impl std::error::Error for TargetError {}

/// The directory that holds the runs of a user.
pub fn runs_directory(uid: u32) -> PathBuf {
    Path::new(RUNS_PARENT).join(format!("stackdepot-{uid}"))
}

/// The directory that holds the caller's runs.
pub fn own_runs_directory() -> PathBuf {
    runs_directory(sys::effective_uid())
}

pub(super) fn locate_digits(digits: &[u8]) -> Result<PathBuf, TargetError> {
    let text = String::from_utf8_lossy(digits).into_owned();
    match text.parse::<u32>() {
        Ok(pid) if pid > 0 && pid <= i32::MAX as u32 => locate(pid),
        _ => Err(TargetError::NoPid(text)),
    }
}

/// The file of a process: of a running one if there is one, else the newest one of that pid.
///
/// Looks at `./stackdepot.*`, then at the runs of the process's owner in `/dev/shm`.
///
/// # Errors
/// One line for the user.
pub fn locate(pid: u32) -> Result<PathBuf, TargetError> {
    let owner = std::fs::metadata(format!("/proc/{pid}")).map(|metadata| metadata.uid());
    let mut candidates = finished_files(Path::new("."));
    let mut uids = vec![sys::effective_uid()];
    uids.extend(owner.as_ref().ok().copied());
    uids.dedup();
    for uid in uids {
        candidates.extend(files_of_runs(&runs_directory(uid), uid));
    }
    let best = candidates
        .into_iter()
        .filter_map(|path| Some((rank(&path, pid)?, path)))
        .max_by_key(|(rank, _)| *rank);
    if let Some((_, path)) = best {
        return Ok(path);
    }
    Err(match owner {
        Err(_) => TargetError::NoProcess(pid),
        Ok(uid) if uid != sys::effective_uid() && sys::effective_uid() != 0 => {
            TargetError::OtherUser(pid)
        }
        Ok(_) => TargetError::NotRecorded(pid),
    })
}

/// How well a file fits a pid: a running process first, then the newest start.
fn rank(path: &Path, pid: u32) -> Option<(bool, u64)> {
    let file = RegionFile::open(path).ok()?;
    let is_match = file.process().pid == pid;
    is_match.then(|| (file.is_running(), file.started_ns()))
}

fn finished_files(directory: &Path) -> Vec<PathBuf> {
    names_in(directory)
        .filter(|path| {
            path.file_name()
                .is_some_and(|name| name.as_encoded_bytes().starts_with(b"stackdepot."))
        })
        .collect()
}

fn files_of_runs(directory: &Path, uid: u32) -> Vec<PathBuf> {
    run_directories(directory, uid)
        .flat_map(|run| names_in(&run).collect::<Vec<_>>())
        .collect()
}

/// Directories of that user, and no links: anybody may make names in `/dev/shm`.
fn run_directories(directory: &Path, uid: u32) -> impl Iterator<Item = PathBuf> + use<> {
    let is_own = move |path: &Path| {
        std::fs::symlink_metadata(path).is_ok_and(|data| data.is_dir() && data.uid() == uid)
    };
    let names = is_own(directory).then(|| names_in(directory));
    names.into_iter().flatten().filter(move |path| is_own(path))
}

fn names_in(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .take(NAME_LIMIT)
        .filter_map(|entry| Some(entry.ok()?.path()))
}

/// What a run left (or still uses) in `/dev/shm`.
#[derive(Clone, Debug)]
pub struct OldRun {
    /// Its directory.
    pub directory: PathBuf,
    /// The files in it.
    pub files: Vec<PathBuf>,
    /// Their sizes together.
    pub bytes: u64,
    /// When any of them was last changed.
    pub changed: Option<SystemTime>,
    /// Whether a process still writes one of them.
    pub is_running: bool,
}

/// The caller's runs in `/dev/shm`, for `clean`.
pub fn old_runs() -> Vec<OldRun> {
    let uid = sys::effective_uid();
    run_directories(&runs_directory(uid), uid)
        .map(look_at_run)
        .collect()
}

fn look_at_run(directory: PathBuf) -> OldRun {
    let files: Vec<PathBuf> = names_in(&directory).collect();
    let mut run = OldRun {
        directory,
        bytes: 0,
        changed: None,
        is_running: false,
        files: Vec::new(),
    };
    for path in &files {
        if let Ok(metadata) = std::fs::symlink_metadata(path) {
            run.bytes += metadata.len();
            run.changed = run.changed.max(metadata.modified().ok());
        }
        run.is_running |= RegionFile::open(path).is_ok_and(|file| file.is_running());
    }
    run.files = files;
    run
}
