//! What goes wrong with region files, in one line each: what, where, what to do.
//!
//! Key types: [`CreateError`] (`Copy`, made inside malloc hooks, where nobody prints it) and
//! [`ReadError`], which carries the path and reads as the whole message of a command.

use std::fmt;
use std::io;
use std::path::PathBuf;

use stackdepot::ConfigError;

use crate::ledger::LedgerError;
use crate::plan::{MIN_FILE_BYTES, PlanError};
use crate::sys::Errno;

/// Why a process gets no file to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreateError {
    /// There is no layout for the size.
    Plan(PlanError),
    /// The path is too long.
    Path,
    /// There is such a file already.
    Exists,
    /// The file could not be made.
    Open(Errno),
    /// The disk (or the process's file size limit) has no room for the file.
    Preallocate(Errno),
    /// The file could not be mapped.
    Map(Errno),
    /// A part of the file could not be set up.
    Config(ConfigError),
    /// The first file of the run is none, or not ours, or was not finished in time.
    NotARun,
    /// Its ledger has no room.
    Ledger(LedgerError),
    /// Another process writes the file.
    Busy,
    /// The file is damaged beyond use for writing.
    Damaged,
}

impl From<ConfigError> for CreateError {
    fn from(error: ConfigError) -> CreateError {
        CreateError::Config(error)
    }
}

impl From<PlanError> for CreateError {
    fn from(error: PlanError) -> CreateError {
        CreateError::Plan(error)
    }
}

impl From<LedgerError> for CreateError {
    fn from(error: LedgerError) -> CreateError {
        CreateError::Ledger(error)
    }
}

impl fmt::Display for CreateError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let os = |errno: &Errno| io::Error::from_raw_os_error(errno.0);
        match self {
            CreateError::Plan(PlanError::TooSmall) => {
                write!(out, "a region file needs at least {MIN_FILE_BYTES} bytes")
            }
            CreateError::Plan(PlanError::TooLarge) => {
                write!(
                    out,
                    "a region file has at most {} bytes",
                    crate::format::MAX_FILE_BYTES
                )
            }
            CreateError::Path => write!(out, "the path of the region file is too long"),
            CreateError::Exists => write!(out, "the region file exists already"),
            CreateError::Open(errno) => write!(out, "cannot create the region file: {}", os(errno)),
            CreateError::Preallocate(errno) => {
                write!(out, "no room for the region file: {}", os(errno))
            }
            CreateError::Map(errno) => write!(out, "cannot map the region file: {}", os(errno)),
            CreateError::Config(error) => write!(out, "{error}"),
            CreateError::NotARun => write!(out, "the first file of the run is missing or unusable"),
            CreateError::Ledger(LedgerError::NoRoom | LedgerError::TableFull) => {
                write!(
                    out,
                    "the files of running processes take all bytes of the run"
                )
            }
            CreateError::Ledger(LedgerError::Contended) => {
                write!(out, "too many processes asked for a file at once")
            }
            CreateError::Busy => write!(out, "another process writes the region file"),
            CreateError::Damaged => write!(out, "the region file is damaged"),
        }
    }
}

impl std::error::Error for CreateError {}

/// Why a file could not be read. Its `Display` is the one line for the user.
#[derive(Debug)]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong.
    pub kind: ReadErrorKind,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum ReadErrorKind {
    /// The system refused to open it.
    Open(io::Error),
    /// It is a directory.
    Directory,
    /// It is a pipe, a device, a socket.
    NotRegular,
    /// It has no bytes.
    Empty,
    /// It does not start as a region file does.
    NotARegion,
    /// Its maker never completed it.
    Unfinished,
    /// Another version of the layout.
    Version(u64),
    /// It ends before its header says.
    Truncated {
        /// Bytes that are there.
        found_bytes: u64,
        /// Bytes that the header names.
        expected_bytes: u64,
    },
    /// A number that cannot be.
    Damaged {
        /// Which.
        what: &'static str,
        /// Where in the file.
        offset: u64,
    },
    /// The system failed to read.
    Read {
        /// Where in the file.
        offset: u64,
        /// Its answer.
        error: io::Error,
    },
    /// It became shorter while it was read.
    ChangedWhileReading {
        /// Where bytes were missing.
        offset: u64,
    },
    /// No memory for a copy.
    OutOfMemory {
        /// How much was asked for.
        bytes: u64,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A path may hold line feeds; the message is one line.
        let path = self.path.display().to_string();
        let path: String = path
            .chars()
            .map(|letter| if letter.is_control() { '?' } else { letter })
            .collect();
        write!(out, "{path}: ")?;
        match &self.kind {
            ReadErrorKind::Open(error) => write!(out, "cannot open: {}", reason(error)),
            ReadErrorKind::Directory => {
                write!(out, "is a directory; name a region file inside it")
            }
            ReadErrorKind::NotRegular => write!(out, "is no regular file; name a region file"),
            ReadErrorKind::Empty => write!(
                out,
                "is empty, not a region file; name a file made by `stackdepot run`"
            ),
            ReadErrorKind::NotARegion => write!(
                out,
                "not a region file: no STKDPREG at offset 0; name a file made by `stackdepot run`"
            ),
            ReadErrorKind::Unfinished => write!(
                out,
                "not yet a region file: its header was never completed; the program is just starting, or was killed then"
            ),
            ReadErrorKind::Version(version) => write!(
                out,
                "format version {version} at offset 8 is not {}; use the stackdepot that made the file",
                crate::format::FORMAT_VERSION
            ),
            ReadErrorKind::Truncated {
                found_bytes,
                expected_bytes,
            } => write!(
                out,
                "truncated at {found_bytes} of {expected_bytes} bytes; copy the whole file"
            ),
            ReadErrorKind::Damaged { what, offset } => write!(
                out,
                "damaged: {what} at offset {offset} makes no sense; record again"
            ),
            ReadErrorKind::Read { offset, error } => {
                write!(out, "cannot read at offset {offset}: {}", reason(error))
            }
            ReadErrorKind::ChangedWhileReading { offset } => write!(
                out,
                "became shorter while it was read (nothing at offset {offset}); try again"
            ),
            ReadErrorKind::OutOfMemory { bytes } => {
                write!(out, "no memory for a copy of {bytes} bytes")
            }
        }
    }
}

impl std::error::Error for ReadError {}

/// The system's sentence without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_string(),
        io::ErrorKind::PermissionDenied => {
            "permission denied; read it as the user who recorded it".to_string()
        }
        _ => {
            let text = error.to_string();
            let text = text.split(" (os error").next().unwrap_or_default();
            text.to_lowercase()
        }
    }
}
