//! Moves recordings out of shared memory: whole or not at all, and never over anything that is there.
//!
//! Across file systems the copy gets its name last ([`NewFile`]), and the original goes after that: a
//! `run` that is killed on the way leaves the one, or the other, or both. Only what the recorder
//! touched is copied; the rest of a preallocated file becomes holes, which read as the same zeros.

use std::ffi::CString;
use std::fs::{File, Permissions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use stackdepot_region::birth::NewFile;
use stackdepot_region::error::CreateError;

/// Copied in pieces of this size; a piece of zeros becomes a hole.
const PIECE_BYTES: usize = 64 << 10;

/// `stackdepot.<pid>`, or `stackdepot.<pid>-<n>` when an older recording has that name.
pub fn free_name(pid: u32) -> PathBuf {
    let names = std::iter::once(format!("stackdepot.{pid}"))
        .chain((2..10_000).map(|n| format!("stackdepot.{pid}-{n}")));
    let mut names = names.map(PathBuf::from);
    names
        .find(|path| std::fs::symlink_metadata(path).is_err())
        .unwrap_or_else(|| format!("stackdepot.{pid}").into())
}

/// A rename, or across file systems a copy that is complete before the original goes.
pub fn move_file(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Err(Errno::EXIST) => return Err(Errno::EXIST.into()),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    let source = File::open(from)?;
    let target = CString::new(to.as_os_str().as_bytes())?;
    match copy_as(&source, NewFile::unnamed(&target)) {
        Ok(()) => {}
        Err(error) if is_final(&error) => return Err(error),
        // Not every file system has files without a name, nor every container a /proc.
        Err(_) => copy_as(&source, NewFile::temporary(&target))?,
    }
    std::fs::remove_file(from)
}

/// Whether a second try would end the same.
fn is_final(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

fn copy_as(source: &File, target: Result<NewFile<'_>, CreateError>) -> io::Result<()> {
    let new = target.map_err(io_error)?;
    let target = File::from(new.as_fd().try_clone_to_owned()?);
    // The umask may have taken our own permission to read it.
    target.set_permissions(Permissions::from_mode(0o600))?;
    copy_sparse(source, &target)?;
    new.publish().map_err(io_error)
}

fn io_error(error: CreateError) -> io::Error {
    match error {
        CreateError::Exists => Errno::EXIST.into(),
        CreateError::Open(errno) => io::Error::from_raw_os_error(errno.0),
        other => io::Error::other(other.to_string()),
    }
}

/// Copies the parts that are there, and of these what is not zero; the size last.
fn copy_sparse(source: &File, target: &File) -> io::Result<()> {
    let total = source.metadata()?.len();
    let mut start = next(source, SeekFrom::Data(0), 0, total)?;
    while start < total {
        // Ends: every round goes on by at least a byte, whatever the file system says.
        let end = next(source, SeekFrom::Hole(start), total, total)?.clamp(start + 1, total);
        copy_range(source, target, start, end)?;
        start = next(source, SeekFrom::Data(end), end, total)?;
    }
    target.set_len(total)
}

/// Where data or a hole begins; `unknown` where the file system cannot tell.
fn next(source: &File, from: SeekFrom, unknown: u64, total: u64) -> io::Result<u64> {
    match rustix::fs::seek(source, from) {
        Ok(offset) => Ok(offset),
        Err(Errno::NXIO) => Ok(total), // only holes are left
        Err(Errno::INVAL) => Ok(unknown),
        Err(errno) => Err(errno.into()),
    }
}

fn copy_range(source: &File, target: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0u8; PIECE_BYTES];
    let mut offset = start;
    while offset < end {
        let length = (end - offset).min(PIECE_BYTES as u64);
        let piece = buffer.get_mut(..length as usize).unwrap_or_default();
        source.read_exact_at(piece, offset)?;
        if piece.iter().any(|byte| *byte != 0) {
            target.write_all_at(piece, offset)?;
        }
        offset += length; // ends: every round adds at least one byte
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A directory of the test's own, on a disk.
    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("stackdepot-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    #[test]
    fn a_sparse_copy_is_equal_to_the_original() {
        let directory = directory("copy");
        let end = 64 * PIECE_BYTES + 17;
        for marks in [&[][..], &[0], &[5 * PIECE_BYTES + 5, end - 1], &[end - 18]] {
            let (from, to) = (directory.join("from"), directory.join("to"));
            let source = File::create(&from).unwrap();
            source.set_len(end as u64).unwrap();
            for mark in marks {
                source.write_all_at(&[7], *mark as u64).unwrap();
            }
            let target = File::create(&to).unwrap();
            copy_sparse(&File::open(&from).unwrap(), &target).unwrap();
            assert_eq!(std::fs::read(&from).unwrap(), std::fs::read(&to).unwrap());
            let used_bytes = target.metadata().unwrap().blocks() * 512;
            assert!(used_bytes <= (marks.len() * PIECE_BYTES) as u64);
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn zeros_that_are_there_become_holes() {
        let directory = directory("zeros");
        let (from, to) = (directory.join("from"), directory.join("to"));
        let mut content = vec![0u8; 3 * PIECE_BYTES + 17];
        content[PIECE_BYTES + 5] = 7;
        std::fs::write(&from, &content).unwrap();
        let target = File::create(&to).unwrap();
        copy_sparse(&File::open(&from).unwrap(), &target).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), content);
        assert!(target.metadata().unwrap().blocks() * 512 <= PIECE_BYTES as u64);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn copies_without_and_with_a_temporary_name_come_out_the_same() {
        let directory = directory("names");
        let from = directory.join("from");
        std::fs::write(&from, b"content").unwrap();
        let source = File::open(&from).unwrap();
        for (name, is_named) in [("a", false), ("b", true)] {
            let target = CString::new(directory.join(name).as_os_str().as_bytes()).unwrap();
            let new = || match is_named {
                true => NewFile::temporary(&target),
                false => NewFile::unnamed(&target),
            };
            copy_as(&source, new()).unwrap();
            let error = copy_as(&source, new()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        }
        let mut names: Vec<_> = std::fs::read_dir(&directory)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        assert_eq!(names, ["a", "b", "from"].map(|name| directory.join(name)));
        for path in &names[..2] {
            assert_eq!(std::fs::read(path).unwrap(), b"content");
            assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn nothing_is_moved_over_what_is_there() {
        let directory = directory("over");
        let elsewhere =
            Path::new("/dev/shm").join(format!("stackdepot-over-{}", std::process::id()));
        let to = directory.join("to");
        std::fs::write(&to, b"old").unwrap();
        for from in [directory.join("from"), elsewhere] {
            std::fs::write(&from, b"new").unwrap();
            let error = move_file(&from, &to).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(std::fs::read(&to).unwrap(), b"old");
            assert_eq!(std::fs::read(&from).unwrap(), b"new");
            std::fs::remove_file(&from).unwrap();
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
