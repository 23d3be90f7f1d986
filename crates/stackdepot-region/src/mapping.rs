//! A mapped file as typed parts: the one place where sections become depot, ring, tables.
//!
//! Key type: [`Mapping`], a file mapped whole; `writer` makes it of a new file, `reopen` of an old one.
//! Usable inside malloc hooks.
#![allow(unsafe_code)] // lays typed sections over mapped memory

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use stackdepot::cache::HoldCaches;
use stackdepot::live::LiveTable;
use stackdepot::ring::Ring;
use stackdepot::{Config, Depot};

use crate::clock::ClockPair;
use crate::counters::Counters;
use crate::death::DeathRecord;
use crate::error::CreateError;
use crate::format::{
    COUNTERS_OFFSET, DEATH_OFFSET, FORMAT_VERSION, FileHeader, HEADER_BYTES, LEDGER_OFFSET, MAGIC,
    RunState, SectionName,
};
use crate::ledger::Ledger;
use crate::modules::ModuleTable;
use crate::plan::{META_BYTES, SectionPlan};
use crate::process::{ProcessId, boot_digest, namespace_digest};
use crate::sys::{self, Fd};
use crate::writer::{CreateOptions, RegionWriter};

/// Where the executable's path lies in the meta section (its length: word 0).
pub(crate) const META_EXECUTABLE_OFFSET: usize = 16;
/// Where the command line lies in the meta section (its length: word 1).
pub(crate) const META_COMMAND_OFFSET: usize = 2048;

/// Payload words of the recorder's depot: blocks and bytes allocated, blocks and bytes freed.
const PAYLOAD_WORDS: u32 = 4;

/// What lies in the sections that the core defines.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    pub(crate) depot: Depot<'static>,
    pub(crate) ring: Ring<'static>,
    pub(crate) live: LiveTable<'static>,
    pub(crate) caches: HoldCaches<'static>,
}

/// A file that is mapped whole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mapping {
    pub(crate) base: NonNull<u8>,
    pub(crate) bytes: usize,
}

impl Mapping {
    pub(crate) fn of_new_file(fd: &Fd, plan: &SectionPlan) -> Result<Mapping, CreateError> {
        sys::lock(fd).map_err(|_| CreateError::Busy)?;
        sys::set_mode(fd, 0o600).map_err(CreateError::Open)?;
        sys::preallocate(fd, plan.file_bytes as u64).map_err(CreateError::Preallocate)?;
        let base = sys::map(fd, plan.file_bytes).map_err(CreateError::Map)?;
        Ok(Mapping {
            base,
            bytes: plan.file_bytes,
        })
    }

    pub(crate) fn remove(&self) {
        // SAFETY: made by `sys::map`; what was laid over it is gone with the failure.
        unsafe { sys::unmap(self.base, self.bytes) };
    }

    /// Where a section lies.
    pub(crate) fn at(&self, plan: &SectionPlan, name: SectionName) -> NonNull<u8> {
        let offset = plan.section(name).offset.min(self.bytes);
        // SAFETY: not past the end of the mapping.
        unsafe { self.base.add(offset) }
    }

    pub(crate) fn header(&self) -> &'static FileHeader {
        // SAFETY: page-aligned, at least a page long (`plan`), mapped for good; atomics take any bytes.
        unsafe { self.base.cast::<FileHeader>().as_ref() }
    }

    pub(crate) fn death(&self) -> &'static DeathRecord {
        // SAFETY: as for `header`; a part of the first page that nothing else uses.
        unsafe { self.base.add(DEATH_OFFSET).cast::<DeathRecord>().as_ref() }
    }

    pub(crate) fn ledger(&self) -> &'static Ledger {
        // SAFETY: as for `header`; the second page.
        unsafe { self.base.add(LEDGER_OFFSET).cast::<Ledger>().as_ref() }
    }

    pub(crate) fn counters(&self) -> &'static Counters {
        // SAFETY: as for `header`; the third and fourth page.
        unsafe { self.base.add(COUNTERS_OFFSET).cast::<Counters>().as_ref() }
    }

    pub(crate) fn modules(&self, plan: &SectionPlan) -> ModuleTable<'static> {
        let bytes = plan.section(SectionName::Modules).bytes;
        // SAFETY: the section lies within the mapping, page-aligned, and is used as this only.
        unsafe { ModuleTable::attach(self.at(plan, SectionName::Modules), bytes) }
    }

    pub(crate) fn caches(&self, plan: &SectionPlan) -> Result<HoldCaches<'static>, CreateError> {
        let bytes = plan.section(SectionName::Caches).bytes;
        // SAFETY: the section lies within the mapping, page-aligned, and is used as this only.
        let caches = unsafe { HoldCaches::attach(self.at(plan, SectionName::Caches), bytes) };
        caches.map_err(|_| CreateError::Damaged)
    }

    /// Sets all parts up in a file of zeros; the magic goes last.
    pub(crate) fn initialise(
        &self,
        plan: &SectionPlan,
        options: &CreateOptions,
    ) -> Result<RegionWriter, CreateError> {
        let config = Config {
            references: true,
            lease_ticks: plan.ring.lease_ticks(),
            payload_words: PAYLOAD_WORDS,
            max_frames: options.scope.max_frames,
            seed: sys::random_word(),
            ..Config::new(plan.section(SectionName::Depot).bytes)
        };
        let live_bytes = plan.section(SectionName::Live).bytes;
        // SAFETY: each section lies within the mapping at a page boundary, is zero-filled (a new
        // file), overlaps no other, and stays mapped for good or until `unmap`.
        let parts = unsafe {
            Parts {
                depot: Depot::create(self.at(plan, SectionName::Depot), &config)?,
                ring: Ring::create(self.at(plan, SectionName::Ring), &plan.ring)?,
                live: LiveTable::create(self.at(plan, SectionName::Live), live_bytes)?,
                caches: self.caches(plan)?,
            }
        };
        self.write_meta(plan);
        let ledger = self.ledger();
        if !options.is_child {
            ledger.begin(
                options.run_bytes,
                plan.file_bytes as u64,
                namespace_digest(),
            );
        }
        self.write_header(plan, options);
        Ok(self.writer(plan, parts))
    }

    /// The parts together, with the ledger of this very file.
    pub(crate) fn writer(&self, plan: &SectionPlan, parts: Parts) -> RegionWriter {
        let Parts {
            depot,
            ring,
            live,
            caches,
        } = parts;
        RegionWriter {
            mapping: *self,
            depot,
            ring,
            live,
            caches,
            header: self.header(),
            death: self.death(),
            counters: self.counters(),
            modules: self.modules(plan),
            run_ledger: self.ledger(),
            reservation: None,
        }
    }

    fn write_header(&self, plan: &SectionPlan, options: &CreateOptions) {
        let header = self.header();
        let relaxed = Ordering::Relaxed;
        header.version.store(FORMAT_VERSION, relaxed);
        header.header_bytes.store(HEADER_BYTES as u64, relaxed);
        header.file_bytes.store(plan.file_bytes as u64, relaxed);
        for (row, section) in header.sections.iter().zip(&plan.sections) {
            row.offset.store(section.offset as u64, relaxed);
            row.bytes.store(section.bytes as u64, relaxed);
        }
        header.is_child.store(u64::from(options.is_child), relaxed);
        let sampling = options.scope.sampling;
        header.sample_bytes.store(sampling.sample_bytes(), relaxed);
        self.write_owner();
        let clock = ClockPair::now();
        header.clock_start.store(&clock);
        header.clock_last.store(&clock);
        // The name comes after it: who finds the file finds it complete.
        header.magic.store(MAGIC, relaxed);
    }

    /// Who writes the file from now on.
    pub(crate) fn write_owner(&self) {
        self.death().clear();
        let header = self.header();
        let relaxed = Ordering::Relaxed;
        let who = ProcessId::current();
        header.pid.store(who.pid.into(), relaxed);
        header.start_ticks.store(who.start_ticks, relaxed);
        header.namespace.store(who.namespace, relaxed);
        header.parent_pid.store(sys::parent_pid().into(), relaxed);
        header.boot_digest.store(boot_digest(), relaxed);
        header.state.store(RunState::Running.to_bits(), relaxed);
    }

    /// Executable and command line; what does not fit is cut.
    fn write_meta(&self, plan: &SectionPlan) {
        let base = self.at(plan, SectionName::Meta);
        // SAFETY: the section is META_BYTES of the mapping; the file has no magic yet, so that only
        // this thread looks at it.
        let meta = unsafe { core::slice::from_raw_parts_mut(base.as_ptr(), META_BYTES) };
        let (front, command) = meta.split_at_mut(META_COMMAND_OFFSET);
        let (lengths, executable) = front.split_at_mut(META_EXECUTABLE_OFFSET);
        let executable_length = sys::read_link(c"/proc/self/exe", executable).unwrap_or(0);
        let command_length = sys::open(c"/proc/self/cmdline", libc::O_RDONLY, 0)
            .and_then(|file| sys::read_at(&file, command, 0))
            .unwrap_or(0);
        let words = [executable_length as u64, command_length as u64];
        for (place, word) in lengths.chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
    }
}
