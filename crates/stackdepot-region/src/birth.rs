//! New files, which get their name last: what has a name is complete.
//!
//! Key type: [`NewFile`]. It has no name at all (`O_TMPFILE`), so that a maker that is killed leaves
//! nothing; where the file system has no such files it has the temporary name `PATH.new-TID`, and a
//! killed maker leaves one file, which the next thread of that number removes. `publish` links it to
//! its name, and fails when there is anything of that name, as `O_EXCL` would. Usable inside malloc
//! hooks; `run` moves its files with it too.

use core::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use crate::error::CreateError;
use crate::process::Text;
use crate::sys::{self, Errno, Fd};

/// The longest path of a file on Linux.
const PATH_BYTES: usize = 4096;

/// A file that is being made.
#[derive(Debug)]
pub struct NewFile<'p> {
    fd: Fd,
    path: &'p CStr,
    is_named: bool,
}

impl<'p> NewFile<'p> {
    /// A file without a name in the directory of `path`.
    ///
    /// # Errors
    /// `Open`, also where the file system has no such files; `Path` when it is too long.
    pub fn unnamed(path: &'p CStr) -> Result<NewFile<'p>, CreateError> {
        let fd = open_unnamed(path)?;
        Ok(NewFile {
            fd,
            path,
            is_named: false,
        })
    }

    /// A file beside `path` whose name nobody reads.
    ///
    /// # Errors
    /// As for `unnamed`.
    pub fn temporary(path: &'p CStr) -> Result<NewFile<'p>, CreateError> {
        let fd = with_temporary_name(path, |name| {
            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
            sys::open(name, flags, 0o600).or_else(|_| {
                // Only a thread of our number makes this name, and we are not making it.
                let _ = sys::unlink(name);
                sys::open(name, flags, 0o600)
            })
        })?;
        Ok(NewFile {
            fd,
            path,
            is_named: true,
        })
    }

    pub(crate) fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Gives the file, which is complete, its name.
    ///
    /// # Errors
    /// `Exists` when there is anything of that name; `Open` when it cannot be made. The file is gone.
    pub fn publish(self) -> Result<(), CreateError> {
        let linked = if self.is_named {
            with_temporary_name(self.path, |name| {
                sys::link(name, self.path).or_else(|errno| match errno {
                    Errno(libc::EEXIST) => Err(errno),
                    // No links on this file system: a rename does it too, but not on all that have them.
                    _ => sys::rename_to_free_name(name, self.path),
                })
            })
        } else {
            sys::link_open_file(&self.fd, self.path).map_err(CreateError::Open)
        };
        linked.map_err(|error| match error {
            CreateError::Open(Errno(libc::EEXIST)) => CreateError::Exists,
            other => other,
        })
    }
}

impl AsFd for NewFile<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.is_named {
            let _ = with_temporary_name(self.path, sys::unlink);
        }
    }
}

fn open_unnamed(path: &CStr) -> Result<Fd, CreateError> {
    let name_start = path.to_bytes().iter().rposition(|byte| *byte == b'/');
    let directory = path
        .to_bytes()
        .get(..name_start.map_or(0, |slash| slash + 1));
    // Follows a directory that is a link, too.
    with_joined([directory.unwrap_or_default(), b"."], 0, |directory| {
        sys::open(directory, libc::O_TMPFILE | libc::O_RDWR, 0o600)
    })
}

fn with_temporary_name<T>(
    path: &CStr,
    work: impl FnOnce(&CStr) -> Result<T, Errno>,
) -> Result<T, CreateError> {
    with_joined([path.to_bytes(), b".new-"], sys::thread_id(), work)
}

/// Calls `work` with two texts and a number (none: 0) as one.
#[inline(never)] // its buffer is gone when the file is laid out
fn with_joined<T>(
    parts: [&[u8]; 2],
    number: u32,
    work: impl FnOnce(&CStr) -> Result<T, Errno>,
) -> Result<T, CreateError> {
    let mut buffer = [0u8; PATH_BYTES];
    let mut text = Text::new(&mut buffer);
    parts.iter().for_each(|part| text.push(part));
    if number != 0 {
        text.push_number(u64::from(number));
    }
    let joined = text.finish().ok_or(CreateError::Path)?;
    work(joined).map_err(CreateError::Open)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CString;
    use std::path::PathBuf;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("region-birth-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        path
    }

    fn names(directory: &std::path::Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap().flatten();
        entries
            .map(|entry| entry.file_name().into_string().unwrap())
            .collect()
    }

    #[test]
    fn file_with_a_temporary_name_is_published_once_and_leaves_nothing_else() {
        let directory = directory("temporary");
        let path = CString::new(directory.join("file").into_os_string().into_encoded_bytes());
        let path = path.unwrap();
        let left = format!("file.new-{}", sys::thread_id());
        std::fs::write(directory.join(&left), b"of a killed maker").unwrap();
        let new = NewFile::temporary(&path).unwrap();
        assert_eq!(names(&directory), [left]);
        assert_eq!(sys::status(new.fd()).unwrap().bytes, 0);
        new.publish().unwrap();
        assert_eq!(names(&directory), ["file"]);
        let second = NewFile::temporary(&path).unwrap();
        assert_eq!(second.publish(), Err(CreateError::Exists));
        drop(NewFile::temporary(&path).unwrap());
        assert_eq!(names(&directory), ["file"]);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn unnamed_file_is_nowhere_until_it_is_published() {
        let directory = directory("unnamed");
        let path = CString::new(directory.join("file").into_os_string().into_encoded_bytes());
        let path = path.unwrap();
        let Ok(new) = NewFile::unnamed(&path) else {
            return; // no such files here: the other test is for this file system
        };
        assert!(names(&directory).is_empty());
        new.publish().unwrap();
        assert_eq!(names(&directory), ["file"]);
        let second = NewFile::unnamed(&path).unwrap();
        assert_eq!(second.publish(), Err(CreateError::Exists));
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
