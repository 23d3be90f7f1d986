//! Making the file that a process records into, and joining the run that it belongs to.
//!
//! Key type: [`RegionWriter`]: the parts of a mapped file, ready for use. Everything here may run
//! inside a malloc hook: raw system calls, no allocation, no panic, `errno` kept, about 8 KiB of stack.
//! The descriptor is closed after mapping, so that a daemon that closes everything closes nothing of
//! ours; the kernel keeps the file's lock with the mapping. Owns two invariants: no store ever
//! reaches a page that the file system has not set aside (no SIGBUS on a full disk), and one process
//! writes a file: a file gets its name when it is complete, as the only one of that name (`birth`), and
//! it is opened again only under the lock.
#![allow(unsafe_code)] // lays typed sections over mapped memory

use core::ffi::CStr;
use core::ptr::NonNull;

use stackdepot::Depot;
use stackdepot::cache::HoldCaches;
use stackdepot::live::LiveTable;
use stackdepot::ring::Ring;

use crate::birth::NewFile;
use crate::counters::Counters;
use crate::death::DeathRecord;
use crate::error::CreateError;
use crate::format::{FORMAT_VERSION, FileHeader, HEADER_BYTES, LEDGER_OFFSET, MAGIC};
use crate::ledger::{Ledger, PATH_LIMIT, Reservation, child_path};
use crate::mapping::Mapping;
use crate::modules::ModuleTable;
use crate::plan::{child_file_bytes, first_file_bytes, plan};
use crate::poisson::ByteSampling;
use crate::process::ProcessId;
use crate::sys::{self, Errno, Fd};

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
    /// What is recorded, and how much of it.
    pub scope: Scope,
}

/// What a recorder asks of every file of its run.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Longer stacks are cut.
    pub max_frames: u32,
    /// Which blocks are recorded.
    pub sampling: ByteSampling,
}

impl Scope {
    /// Every block, with stacks of so many frames.
    pub fn of_every_block(max_frames: u32) -> Scope {
        Scope {
            max_frames,
            sampling: ByteSampling::default(),
        }
    }
}

impl CreateOptions {
    /// A file of a run of its own.
    pub fn alone(file_bytes: u64) -> CreateOptions {
        CreateOptions {
            file_bytes,
            run_bytes: file_bytes,
            is_child: false,
            scope: Scope::of_every_block(256),
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
    /// What threads hold in advance.
    pub caches: HoldCaches<'static>,
    /// State and clocks.
    pub header: &'static FileHeader,
    /// How the process died.
    pub death: &'static DeathRecord,
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
    /// Makes a new file at `path` and maps it. Nothing is left if anything fails.
    ///
    /// # Errors
    /// See [`CreateError`]; `Exists` if anything is at `path`, a dangling link too.
    pub fn create(path: &CStr, options: &CreateOptions) -> Result<RegionWriter, CreateError> {
        match make(path, options, NewFile::unnamed) {
            // Not every file system has files without a name, nor every container a /proc.
            Err(CreateError::Open(_)) => make(path, options, NewFile::temporary),
            made => made,
        }
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
        scope: Scope,
    ) -> Result<RegionWriter, CreateError> {
        // First of all: a run has one first file, and its later processes must not set aside its bytes.
        let ledger = match map_ledger(first_path) {
            Err(CreateError::Open(Errno(libc::ENOENT))) => {
                let options = CreateOptions {
                    file_bytes: first_file_bytes(run_bytes),
                    run_bytes,
                    is_child: false,
                    scope,
                };
                match RegionWriter::create(first_path, &options) {
                    Err(CreateError::Exists) => map_ledger(first_path)?,
                    made => return made,
                }
            }
            found => found?,
        };
        RegionWriter::create_child(ledger, first_path, scope)
    }

    /// Gets a later file of a run whose ledger is mapped already: for the child of a fork, which
    /// inherits its parent's `run_ledger`.
    ///
    /// # Errors
    /// The process then runs unrecorded, and that has been counted.
    pub fn create_child(
        ledger: &'static Ledger,
        first_path: &CStr,
        scope: Scope,
    ) -> Result<RegionWriter, CreateError> {
        let options = CreateOptions {
            file_bytes: child_file_bytes(ledger.total_bytes()),
            run_bytes: ledger.total_bytes(),
            is_child: true,
            scope,
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

/// Makes a file that `begin` begins; the name comes last.
fn make<'p>(
    path: &'p CStr,
    options: &CreateOptions,
    begin: fn(&'p CStr) -> Result<NewFile<'p>, CreateError>,
) -> Result<RegionWriter, CreateError> {
    let bytes = usize::try_from(options.file_bytes).unwrap_or(usize::MAX);
    let plan = plan(bytes)?;
    let file = begin(path)?;
    let mapping = Mapping::of_new_file(file.fd(), &plan)?;
    let made = mapping.initialise(&plan, options).and_then(|writer| {
        file.publish()?;
        Ok(writer)
    });
    made.inspect_err(|_| mapping.remove())
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

/// Maps the ledger of a run's first file.
///
/// # Errors
/// `Open` when there is no such file; `NotARun` when it is no region file of this user.
pub fn map_ledger(first_path: &CStr) -> Result<&'static Ledger, CreateError> {
    let fd =
        sys::open(first_path, libc::O_RDWR | libc::O_NONBLOCK, 0).map_err(CreateError::Open)?;
    let status = sys::status(&fd).map_err(CreateError::Open)?;
    if !status.is_regular || status.uid != sys::effective_uid() {
        return Err(CreateError::NotARun);
    }
    let mut words = [0u8; 32];
    let length = sys::read_at(&fd, &mut words, 0).map_err(CreateError::Open)?;
    let word = |index: usize| crate::format::word_at(words.get(..length).unwrap_or(&[]), index * 8);
    let is_whole = word(0) == Some(MAGIC)
        && word(1) == Some(FORMAT_VERSION)
        && word(3).is_some_and(|bytes| bytes >= HEADER_BYTES as u64 && bytes <= status.bytes);
    match is_whole {
        true => map_ledger_page(&fd),
        false => Err(CreateError::NotARun),
    }
}

fn map_ledger_page(fd: &Fd) -> Result<&'static Ledger, CreateError> {
    let base = sys::map(fd, HEADER_BYTES).map_err(CreateError::Map)?;
    // SAFETY: the mapping is longer than offset plus page and stays for good; atomics take any bytes.
    Ok(unsafe { base.add(LEDGER_OFFSET).cast::<Ledger>().as_ref() })
}
