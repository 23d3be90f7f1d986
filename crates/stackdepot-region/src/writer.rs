//! Making the file that a process records into, and joining the run that it belongs to.
//!
//! Key type: [`RegionWriter`]: the parts of a mapped file, ready for use. Everything here may run
//! inside a malloc hook: raw system calls, no allocation, no panic, `errno` kept, about 3 KiB of stack.
//! The descriptor is closed after mapping, so that a daemon that closes everything closes nothing of
//! ours; the kernel keeps the file's lock with the mapping. Owns two invariants: no store ever
//! reaches a page that the file system has not set aside (no SIGBUS on a full disk), and one process
//! writes a file: it is made with O_EXCL, and opened again only under the lock.
#![allow(unsafe_code)] // lays typed sections over mapped memory

use core::ffi::CStr;
use core::ptr::NonNull;

use stackdepot::Depot;
use stackdepot::live::LiveTable;
use stackdepot::ring::Ring;

use crate::counters::Counters;
use crate::error::CreateError;
use crate::format::{FORMAT_VERSION, FileHeader, HEADER_BYTES, LEDGER_OFFSET, MAGIC};
use crate::ledger::{Ledger, PATH_LIMIT, Reservation, child_path};
use crate::mapping::Mapping;
use crate::modules::ModuleTable;
use crate::plan::{child_file_bytes, first_file_bytes, plan};
use crate::process::ProcessId;
use crate::sys::{self, Errno, Fd};

/// A first file that its maker does not complete within so many milliseconds is given up.
const COMPLETION_LIMIT_MS: u32 = 500;
/// Names that are taken are tried past this often.
const NAME_LIMIT: usize = 8;

/// How a file is made.
#[derive(Clone, Copy, Debug)]
pub struct CreateOptions {
    /// Its size.
    pub file_bytes: u64,
    /// The bytes of the whole run; written into the ledger of a first file.
    pub run_bytes: u64,
    /// Whether it is a later file of a run.
    pub is_child: bool,
    /// Longer stacks are cut.
    pub max_frames: u32,
}

impl CreateOptions {
    /// A file of a run of its own.
    pub fn alone(file_bytes: u64) -> CreateOptions {
        CreateOptions {
            file_bytes,
            run_bytes: file_bytes,
            is_child: false,
            max_frames: 256,
        }
    }
}

/// A mapped file, written by this process.
#[derive(Debug)]
pub struct RegionWriter {
    pub(crate) mapping: Mapping,
    /// The stacks.
    pub depot: Depot<'static>,
    /// The newest events.
    pub ring: Ring<'static>,
    /// The live blocks.
    pub live: LiveTable<'static>,
    /// State and clocks.
    pub header: &'static FileHeader,
    /// The recorder's counters.
    pub counters: &'static Counters,
    /// The module table.
    pub modules: ModuleTable<'static>,
    /// The run's ledger: in this file if it is the first, else in the first one's.
    pub run_ledger: &'static Ledger,
    /// The entry in the ledger of a later file.
    pub reservation: Option<Reservation>,
}

// SAFETY: `base` only names the mapping, which every thread of the process shares; all parts of it
// are atomics.
unsafe impl Send for RegionWriter {}
// SAFETY: as above; every method takes `&self` and works on atomics.
unsafe impl Sync for RegionWriter {}

impl RegionWriter {
    /// Makes a new file at `path` and maps it. The file is removed again if anything fails.
    ///
    /// # Errors
    /// See [`CreateError`]; `Exists` if anything is at `path`, a dangling link too.
    pub fn create(path: &CStr, options: &CreateOptions) -> Result<RegionWriter, CreateError> {
        let bytes = usize::try_from(options.file_bytes).unwrap_or(usize::MAX);
        let plan = plan(bytes)?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        let fd = sys::open(path, flags, 0o600).map_err(|errno| match errno {
            Errno(libc::EEXIST) => CreateError::Exists,
            other => CreateError::Open(other),
        })?;
        let made = Mapping::of_new_file(&fd, &plan).and_then(|mapping| {
            let writer = mapping.initialise(&plan, options);
            writer.inspect_err(|_| mapping.remove())
        });
        // The path is ours: O_EXCL made it, and nobody else's file can have taken its place but by
        // someone who may remove it anyway.
        made.inspect_err(|_| {
            let _ = sys::unlink(path);
        })
    }

    /// Gets a file for the calling process: the run's first one if nobody made it yet, else a later one.
    ///
    /// `run_bytes` is the bound of the run; only who makes the first file needs it.
    ///
    /// # Errors
    /// The process then runs unrecorded, and that has been counted where the ledger could be reached.
    pub fn join_run(
        first_path: &CStr,
        run_bytes: u64,
        max_frames: u32,
    ) -> Result<RegionWriter, CreateError> {
        let options = CreateOptions {
            file_bytes: first_file_bytes(run_bytes),
            run_bytes,
            is_child: false,
            max_frames,
        };
        match RegionWriter::create(first_path, &options) {
            Err(CreateError::Exists) => {}
            other => return other,
        }
        let ledger = map_ledger(first_path)?;
        RegionWriter::create_child(ledger, first_path, max_frames)
    }

    /// Gets a later file of a run whose ledger is mapped already: for the child of a fork, which
    /// inherits its parent's `run_ledger`.
    ///
    /// # Errors
    /// The process then runs unrecorded, and that has been counted.
    pub fn create_child(
        ledger: &'static Ledger,
        first_path: &CStr,
        max_frames: u32,
    ) -> Result<RegionWriter, CreateError> {
        let options = CreateOptions {
            file_bytes: child_file_bytes(ledger.total_bytes()),
            run_bytes: ledger.total_bytes(),
            is_child: true,
            max_frames,
        };
        let made = make_child(ledger, first_path, &options);
        if made.is_err() {
            ledger.count_unrecorded();
        }
        made
    }

    /// The first byte of the mapping.
    pub fn base(&self) -> NonNull<u8> {
        self.mapping.base
    }

    /// The bytes of the mapping, the size of the file.
    pub fn file_bytes(&self) -> usize {
        self.mapping.bytes
    }

    /// Says that the program ended by itself: in the file, and in the ledger.
    pub fn mark_ended(&self) {
        self.header.mark_ended();
        if let Some(reservation) = &self.reservation {
            self.run_ledger.mark_ended(reservation);
        }
    }

    /// Takes the mapping away (not the ledger's).
    ///
    /// # Safety
    /// No copy of any part may be used again, by no thread.
    pub unsafe fn unmap(self) {
        // SAFETY: `self` owns the mapping; the caller promises that nothing refers to it any more.
        unsafe { sys::unmap(self.mapping.base, self.mapping.bytes) };
    }
}

fn make_child(
    ledger: &'static Ledger,
    first_path: &CStr,
    options: &CreateOptions,
) -> Result<RegionWriter, CreateError> {
    let who = ProcessId::current();
    let mut buffer = [0u8; PATH_LIMIT];
    for _ in 0..NAME_LIMIT {
        let reservation = ledger.reserve_or_remove(first_path, &who, options.file_bytes)?;
        let made = match child_path(first_path, who.pid, reservation.sequence(), &mut buffer) {
            Some(path) => RegionWriter::create(path, options),
            None => Err(CreateError::Path),
        };
        match made {
            Ok(mut writer) => {
                ledger.confirm(reservation, &who);
                writer.run_ledger = ledger;
                writer.reservation = Some(reservation);
                return Ok(writer);
            }
            Err(error) => {
                ledger.cancel(&reservation);
                if error != CreateError::Exists {
                    return Err(error);
                }
            }
        }
    }
    Err(CreateError::Exists)
}

/// Maps the ledger of a run's first file, once its maker has completed it.
///
/// # Errors
/// `NotARun` when that is no region file of this user, or stays incomplete.
pub fn map_ledger(first_path: &CStr) -> Result<&'static Ledger, CreateError> {
    for waited_ms in 0..COMPLETION_LIMIT_MS {
        let fd =
            sys::open(first_path, libc::O_RDWR | libc::O_NONBLOCK, 0).map_err(CreateError::Open)?;
        let status = sys::status(&fd).map_err(CreateError::Open)?;
        if !status.is_regular || status.uid != sys::effective_uid() {
            return Err(CreateError::NotARun);
        }
        let mut words = [0u8; 32];
        let length = sys::read_at(&fd, &mut words, 0).map_err(CreateError::Open)?;
        let word =
            |index: usize| crate::format::word_at(words.get(..length).unwrap_or(&[]), index * 8);
        if word(0) == Some(MAGIC) {
            let is_whole = word(1) == Some(FORMAT_VERSION)
                && word(3)
                    .is_some_and(|bytes| bytes >= HEADER_BYTES as u64 && bytes <= status.bytes);
            return match is_whole {
                true => map_ledger_page(&fd),
                false => Err(CreateError::NotARun),
            };
        }
        if word(0).is_some_and(|magic| magic != 0) {
            return Err(CreateError::NotARun);
        }
        drop(fd);
        if waited_ms + 1 < COMPLETION_LIMIT_MS {
            sys::sleep(1);
        }
    }
    Err(CreateError::NotARun)
}

fn map_ledger_page(fd: &Fd) -> Result<&'static Ledger, CreateError> {
    let base = sys::map(fd, HEADER_BYTES).map_err(CreateError::Map)?;
    // SAFETY: the mapping is longer than offset plus page and stays for good; atomics take any bytes.
    Ok(unsafe { base.add(LEDGER_OFFSET).cast::<Ledger>().as_ref() })
}
