//! Where the files of a run live: in shared memory while it runs, beside the user afterwards.
//!
//! [`Place::prepare`] makes a private directory (or takes the FILE of `-o`) and checks that there
//! is room; the preload library creates the files in it. [`Place::settle`] moves what was recorded
//! to `./stackdepot.<pid>` once every process of the run has ended.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::process::{geteuid, getpid};
use stackdepot_region::plan::first_file_bytes;
use stackdepot_region::reader::RegionFile;

use super::library::open_private;
use super::preflight::reason;
use crate::failure::{CANNOT_RECORD, Failure};
use crate::text::bytes;

/// Shared memory: fast, and never written back to a disk.
const SHARED_MEMORY: &str = "/dev/shm";
/// The name of the first process's file in a directory of ours.
const FIRST: &str = "first";
/// Copied in pieces of this size; a piece of zeros becomes a hole.
const PIECE_BYTES: usize = 64 << 10;

/// The files of one run.
#[derive(Debug)]
pub struct Place {
    first: PathBuf,
    /// The directory that is ours to remove; none with `-o`.
    directory: Option<PathBuf>,
}

/// What became of the files.
#[derive(Debug)]
pub struct Settled {
    /// The first process's file, if it made one.
    pub first: Option<PathBuf>,
    /// Files of later processes.
    pub child_count: usize,
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
                    refuse(format_args!("cannot make a directory in {SHARED_MEMORY}: {why}; give a file with -o FILE"))
                })?;
                Place {
                    first: directory.join(FIRST),
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
            Path::new(SHARED_MEMORY)
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
        let mut settled = Settled {
            first: None,
            child_count: 0,
            notes: Vec::new(),
        };
        let (first, children) = self.files();
        settled.child_count = children.len();
        let running = first
            .iter()
            .chain(&children)
            .find_map(|path| running_pid(path));
        if let Some(pid) = running {
            settled.notes.push(format!(
                "process {pid} still runs: its recording stays at {} until `stackdepot clean`",
                self.directory.as_deref().unwrap_or(&self.first).display()
            ));
            settled.first = first;
            return settled;
        }
        if self.directory.is_none() {
            settled.first = first;
            return settled;
        }
        let target = free_name(first_pid);
        if let Some(first) = first {
            settled.first = Some(settle_one(&first, &target, &mut settled.notes));
        }
        for child in children {
            let name = child
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let target = format!("{}.{name}", target.display());
            settle_one(&child, Path::new(&target), &mut settled.notes);
        }
        self.remove_directory();
        settled
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
            let _ = std::fs::remove_dir(directory);
        }
    }
}

fn refuse(line: impl std::fmt::Display) -> Failure {
    Failure::with_status(CANNOT_RECORD, line)
}

/// Where directories of runs lie, one for each.
pub fn shared_root() -> PathBuf {
    Path::new(SHARED_MEMORY).join(format!("stackdepot-{}", geteuid().as_raw()))
}

fn make_directory() -> io::Result<PathBuf> {
    let root = shared_root();
    open_private(&root)?;
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    let name = format!(
        "{}-{:016x}",
        getpid().as_raw_nonzero(),
        u64::from_ne_bytes(random)
    );
    let directory = root.join(name);
    std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
        .create(&directory)?;
    Ok(directory)
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
    let writable = std::fs::metadata(parent).and_then(|metadata| {
        if !metadata.is_dir() {
            return Err(rustix::io::Errno::NOTDIR.into());
        }
        Ok(rustix::fs::access(parent, rustix::fs::Access::WRITE_OK)?)
    });
    match writable {
        Ok(()) => Ok(path),
        Err(error) => Err(refuse(format_args!(
            "-o {shown}: cannot write in {}: {}",
            parent.display(),
            reason(&error)
        ))),
    }
}

/// The process that still writes a file.
fn running_pid(path: &Path) -> Option<u32> {
    let file = RegionFile::open(path).ok()?;
    file.is_running().then(|| file.process().pid)
}

/// `stackdepot.<pid>`, or `stackdepot.<pid>-<n>` when an older recording has that name.
fn free_name(pid: u32) -> PathBuf {
    let names = std::iter::once(format!("stackdepot.{pid}"))
        .chain((2..10_000).map(|n| format!("stackdepot.{pid}-{n}")));
    let mut names = names.map(PathBuf::from);
    names
        .find(|path| std::fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| format!("stackdepot.{pid}").into())
}

/// Moves one file; where that fails it stays, and a note says so. Answers where it is.
fn settle_one(from: &Path, to: &Path, notes: &mut Vec<String>) -> PathBuf {
    match move_file(from, to) {
        Ok(()) => to.to_path_buf(),
        Err(error) => {
            notes.push(format!(
                "cannot move the recording to ./{}: {}; it stays at {}",
                to.display(),
                reason(&error),
                from.display()
            ));
            from.to_path_buf()
        }
    }
}

/// A rename, or across file systems a copy that is complete before the original goes.
fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    if renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE).is_ok() {
        return Ok(());
    }
    let source = File::open(from)?;
    let target = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(to)?;
    if let Err(error) = copy_sparse(source, target) {
        let _ = std::fs::remove_file(to);
        return Err(error);
    }
    std::fs::remove_file(from)
}

/// Most of a preallocated file is still zero: that part becomes holes.
fn copy_sparse(mut source: File, mut target: File) -> io::Result<()> {
    let mut piece = vec![0u8; PIECE_BYTES];
    let mut total = 0u64;
    loop {
        let count = read_piece(&mut source, &mut piece)?;
        let filled = piece.get(..count).unwrap_or_default();
        if filled.is_empty() {
            return target.set_len(total);
        }
        total += count as u64;
        if filled.iter().all(|byte| *byte == 0) {
            target.seek(SeekFrom::Start(total))?;
        } else {
            target.write_all(filled)?;
        }
    }
}

/// Fills the piece, except at the end of the file.
fn read_piece(source: &mut File, piece: &mut [u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some(rest) = piece.get_mut(count..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => count += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sparse_copy_is_equal_to_the_original() {
        let base = std::env::temp_dir().join(format!("stackdepot-copy-{}", std::process::id()));
        let mut content = vec![0u8; 3 * PIECE_BYTES + 17];
        content[PIECE_BYTES + 5] = 7;
        std::fs::write(&base, &content).unwrap();
        let to = base.with_extension("moved");
        let target = File::create(&to).unwrap();
        copy_sparse(File::open(&base).unwrap(), target).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), content);
        std::fs::remove_file(&base).unwrap();
        std::fs::remove_file(&to).unwrap();
    }

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
