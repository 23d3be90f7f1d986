//! Puts the embedded preload library where the program's loader can map it.
//!
//! The library is written under a name that says its content into a private directory that
//! permits exec, through a temporary name, and compared byte for byte before it is used again: a
//! file that somebody else could have written is never preloaded. Two runs at once end with the
//! same file.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{self as rfs, AtFlags, FlockOperation, Mode, OFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::process::{geteuid, getpid};
use stackdepot_region::reader::locate::own_runs_directory;

use crate::failure::{CANNOT_RECORD, Failure, reason};
use crate::processes;

/// The library that build.rs built.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libstackdepot_preload.so"));

/// Its size.
pub const BYTES: u64 = LIBRARY.len() as u64;

/// The library on disk.
#[derive(Debug)]
pub struct Library {
    /// Where it lies.
    pub path: PathBuf,
    /// Shared by all runs that start: `clean` leaves the directory alone meanwhile.
    _lock: OwnedFd,
}

/// How often, every 10 ms, a directory that `clean` works in is looked at.
const CLEAN_LIMIT: usize = 100;

/// Writes the library, or finds it written.
///
/// # Errors
/// One line with what every candidate directory failed of.
pub fn extract() -> Result<Library, Failure> {
    let name = format!("libstackdepot-{}.so", env!("STACKDEPOT_LIBRARY_DIGEST"));
    let mut refusals = Vec::new();
    for directory in candidates() {
        match place(&directory, &name) {
            Ok(library) => return Ok(library),
            Err(error) => refusals.push(format!("{}: {}", directory.display(), reason(&error))),
        }
    }
    Err(Failure::with_status(
        CANNOT_RECORD,
        format_args!(
            "no private directory for the preload library ({}); set XDG_RUNTIME_DIR to a directory of yours that permits exec",
            refusals.join("; ")
        ),
    ))
}

/// Directories to try, the ones that nobody else can write beside first.
fn candidates() -> Vec<PathBuf> {
    let uid = geteuid().as_raw();
    let variable = |name| {
        std::env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    let cache =
        variable("XDG_CACHE_HOME").or_else(|| variable("HOME").map(|home| home.join(".cache")));
    let mut directories: Vec<PathBuf> = Vec::new();
    // Made at login, or not at all.
    let runtime = variable("XDG_RUNTIME_DIR").filter(|path| path.is_dir());
    directories.extend(runtime.map(|path| path.join("stackdepot")));
    directories.extend(cache.map(|path| path.join("stackdepot")));
    directories.push(own_runs_directory().join("lib"));
    directories.push(format!("/tmp/stackdepot-{uid}").into());
    directories
}

fn place(directory: &Path, name: &str) -> io::Result<Library> {
    let path = directory.join(name);
    let text = path
        .to_str()
        .ok_or_else(|| io::Error::other("its name is not UTF-8"))?;
    if text.contains(|c: char| c == ':' || c == '$' || c.is_whitespace()) {
        return Err(io::Error::other(
            "LD_PRELOAD cannot name a path with spaces, ':' or '$'",
        ));
    }
    let handle = open_shared(directory)?;
    check_parent(directory)?;
    let mount = rfs::fstatvfs(&handle)?;
    if mount.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::Error::other("mounted noexec"));
    }
    if !is_in_place(&handle, name) {
        write(&handle, name)?;
        if rfs::flock(&handle, FlockOperation::NonBlockingLockExclusive).is_ok() {
            remove_stale(directory, name);
        }
        // Of two that changed over at once one may have neither lock now.
        let _ = rfs::flock(&handle, FlockOperation::NonBlockingLockShared);
    }
    Ok(Library {
        path,
        _lock: handle,
    })
}

/// The directory, open, with the lock of those who are about to preload from it.
fn open_shared(directory: &Path) -> io::Result<OwnedFd> {
    for _ in 0..CLEAN_LIMIT {
        let handle = open_private(directory)?;
        let locked = rfs::flock(&handle, FlockOperation::NonBlockingLockShared);
        // A file system without locks has to do without.
        if locked != Err(Errno::WOULDBLOCK) && rfs::fstat(&handle)?.st_nlink > 0 {
            return Ok(handle);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(
        "`stackdepot clean` works in it all the time",
    ))
}

/// Libraries of other versions go, unless a live process would preload one into its children.
fn remove_stale(directory: &Path, name: &str) {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    for old in names.filter(|old| is_library(old) && old != name) {
        let path = directory.join(old);
        if processes::user_of(path.as_os_str().as_bytes()).is_none() {
            // One that stays costs only its bytes.
            let _ = std::fs::remove_file(path);
        }
    }
}

fn is_library(name: &str) -> bool {
    let digest = name
        .strip_prefix("libstackdepot-")
        .and_then(|rest| rest.strip_suffix(".so"));
    digest.is_some_and(|digest| {
        digest.len() == 16 && digest.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// Opens a directory of mode 0700 that is ours, creating it where it is missing.
///
/// # Errors
/// It cannot be made or opened, or is not ours.
pub fn open_private(directory: &Path) -> io::Result<OwnedFd> {
    make(directory)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rfs::open(directory, flags, Mode::empty())?;
    let stat = rfs::fstat(&handle)?;
    if stat.st_uid != geteuid().as_raw() {
        return Err(io::Error::other("it belongs to another user"));
    }
    if stat.st_mode & 0o077 != 0 {
        rfs::fchmod(&handle, Mode::RWXU)?;
    }
    Ok(handle)
}

/// Who can rename the directory could put another one in its place after we looked.
fn check_parent(directory: &Path) -> io::Result<()> {
    let stat = rfs::stat(directory.parent().unwrap_or(Path::new("/")))?;
    let is_sticky = stat.st_mode & 0o1000 != 0;
    if stat.st_uid != 0 && stat.st_uid != geteuid().as_raw() {
        return Err(io::Error::other("it lies in a directory of another user"));
    }
    if stat.st_mode & 0o002 != 0 && !is_sticky {
        return Err(io::Error::other("everybody can rename it"));
    }
    Ok(())
}

/// Makes a directory, and the one that it lies in; more would be a home that is not there.
fn make(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.mode(0o700);
    let make = |path: &Path| match builder.create(path) {
        // A dangling link or a file in its place: whoever opens it is told.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    };
    match (make(directory), directory.parent()) {
        (Err(error), Some(parent)) if error.kind() == io::ErrorKind::NotFound => {
            make(parent).and_then(|()| make(directory))
        }
        (made, _) => made,
    }
}

/// Whether exactly our bytes lie there, in a file that only we can write.
fn is_in_place(directory: &OwnedFd, name: &str) -> bool {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let Ok(file) = rfs::openat(directory, name, flags, Mode::empty()) else {
        return false;
    };
    let Ok(stat) = rfs::fstat(&file) else {
        return false;
    };
    let is_file = stat.st_mode & 0o170_000 == 0o100_000;
    let is_private = stat.st_uid == geteuid().as_raw() && stat.st_mode & 0o022 == 0;
    if !is_file || !is_private || u64::try_from(stat.st_size) != Ok(LIBRARY.len() as u64) {
        return false;
    }
    has_content(File::from(file), LIBRARY)
}

/// Compared in parts: memory for the whole would be made and emptied for every run.
fn has_content(mut file: impl Read, content: &[u8]) -> bool {
    let mut part = [0; 32 << 10];
    let is_equal = content.chunks(part.len()).all(|expected| {
        part.get_mut(..expected.len())
            .is_some_and(|part| file.read_exact(part).is_ok() && part == expected)
    });
    is_equal && matches!(file.read(&mut part), Ok(0))
}

fn write(directory: &OwnedFd, name: &str) -> io::Result<()> {
    // The pid is ours alone while we live; what a killed run left under it goes first.
    let temporary = format!(".{name}.{}", getpid().as_raw_nonzero());
    let _ = rfs::unlinkat(directory, &temporary, AtFlags::empty());
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rfs::openat(directory, &temporary, flags, Mode::RWXU)?;
    let written = File::from(file).write_all(LIBRARY);
    let placed = written.and_then(|()| Ok(rfs::renameat(directory, &temporary, directory, name)?));
    if placed.is_err() {
        let _ = rfs::unlinkat(directory, &temporary, AtFlags::empty());
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn scratch(name: &str) -> PathBuf {
        let path =
            std::env::temp_dir().join(format!("stackdepot-test-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_changed_library_is_written_anew() {
        let directory = scratch("changed");
        let path = place(&directory, "lib.so").unwrap().path;
        assert_eq!(std::fs::read(&path).unwrap(), LIBRARY);
        let mut forged = LIBRARY.to_vec();
        *forged.last_mut().unwrap() ^= 1;
        std::fs::write(&path, &forged).unwrap();
        place(&directory, "lib.so").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), LIBRARY);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn an_open_directory_is_made_private_and_a_link_is_refused() {
        let directory = scratch("open");
        std::fs::create_dir(&directory).unwrap();
        std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).unwrap();
        place(&directory, "lib.so").unwrap();
        assert_eq!(
            std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777,
            0o700
        );
        let link = scratch("link");
        std::os::unix::fs::symlink(&directory, &link).unwrap();
        assert!(place(&link, "lib.so").is_err());
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn stale_libraries_go_when_one_is_written_and_nothing_else_does() {
        let directory = scratch("stale");
        std::fs::create_dir(&directory).unwrap();
        let stale = "libstackdepot-0123456789abcdef.so";
        let used = "libstackdepot-fedcba9876543210.so";
        let others = ["libstackdepot-x.so", "notes"];
        for name in [stale, used].iter().chain(&others) {
            std::fs::write(directory.join(name), "x").unwrap();
        }
        let mut user = processes::sleeper("STACKDEPOT_TEST", directory.join(used).as_os_str());
        let placed = place(&directory, "libstackdepot-0000000000000000.so");
        user.kill().unwrap();
        user.wait().unwrap();
        placed.unwrap();
        assert!(!directory.join(stale).exists());
        for name in [used].iter().chain(&others) {
            assert!(directory.join(name).exists(), "{name}");
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_directory_that_others_could_replace_is_refused() {
        let parent = scratch("parent");
        std::fs::create_dir(&parent).unwrap();
        std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o777)).unwrap();
        assert!(place(&parent.join("inside"), "lib.so").is_err());
        std::fs::set_permissions(&parent, PermissionsExt::from_mode(0o1777)).unwrap();
        assert!(place(&parent.join("inside"), "lib.so").is_ok());
        std::fs::remove_dir_all(&parent).unwrap();
    }

    #[test]
    fn a_home_that_is_not_there_is_not_made() {
        let home = scratch("home");
        assert!(place(&home.join(".cache/stackdepot"), "lib.so").is_err());
        assert!(!home.exists());
    }

    #[test]
    fn a_path_that_ld_preload_cannot_name_is_refused() {
        assert!(place(&scratch("with space"), "lib.so").is_err());
    }
}
