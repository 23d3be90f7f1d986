//! Opening a file for writing again whose writer is gone.
//!
//! One process at a time: under the file's lock, which the kernel keeps as long as any process maps
//! the file that way, and only when the process in the header no longer runs. What the dead
//! writer left half done is undone (`protocols.md` G), whenever it died, also in here.
#![allow(unsafe_code)] // lays typed sections over mapped memory

use core::ffi::CStr;

use stackdepot::live::LiveTable;
use stackdepot::ring::{Ring, RingConfig};
use stackdepot::{Depot, Recovered};

use crate::error::CreateError;
use crate::format::{PAGE_BYTES, SECTION_COUNT, SectionName};
use crate::mapping::{Mapping, Parts};
use crate::plan::{Section, SectionPlan};
use crate::process::{Liveness, ProcessId, boot_digest, namespace_digest};
use crate::reader::header::HeaderView;
use crate::sys::{self, Fd};
use crate::writer::RegionWriter;

impl RegionWriter {
    /// Opens a file again, for this process to go on writing it.
    ///
    /// References of the live blocks stay, all others died with the old writer; leases stay.
    ///
    /// # Errors
    /// `Busy` while another process writes it; `Damaged` when it is no sound region file.
    pub fn reopen(path: &CStr) -> Result<(RegionWriter, Recovered), CreateError> {
        let fd = sys::open(path, libc::O_RDWR | libc::O_NONBLOCK, 0).map_err(CreateError::Open)?;
        sys::lock(&fd).map_err(|_| CreateError::Busy)?;
        let header = read_header(&fd)?;
        // In another namespace: the lock was free, so it is gone.
        if header.boot_digest == boot_digest()
            && header.process != ProcessId::current()
            && header.process.liveness(namespace_digest()) == Liveness::Running
        {
            return Err(CreateError::Busy);
        }
        // A copy may have holes, which a full disk would turn into SIGBUS.
        sys::preallocate(&fd, header.file_bytes).map_err(CreateError::Preallocate)?;
        let bytes = usize::try_from(header.file_bytes).map_err(|_| CreateError::Damaged)?;
        let mapping = Mapping {
            base: sys::map(&fd, bytes).map_err(CreateError::Map)?,
            bytes,
        };
        recover(&mapping, &header).inspect_err(|_| mapping.remove())
    }
}

fn read_header(fd: &Fd) -> Result<HeaderView, CreateError> {
    let status = sys::status(fd).map_err(CreateError::Open)?;
    if !status.is_regular || status.uid != sys::effective_uid() {
        return Err(CreateError::Damaged);
    }
    let mut page = [0u8; PAGE_BYTES];
    let length = sys::read_at(fd, &mut page, 0).map_err(CreateError::Open)?;
    let page = page.get(..length).unwrap_or_default();
    HeaderView::parse(page, status.bytes).map_err(|_| CreateError::Damaged)
}

fn recover(
    mapping: &Mapping,
    header: &HeaderView,
) -> Result<(RegionWriter, Recovered), CreateError> {
    let mut sections = [Section::default(); SECTION_COUNT];
    for (section, name) in sections.iter_mut().zip(SectionName::ALL) {
        *section = header.section(name);
    }
    let mut plan = SectionPlan {
        file_bytes: mapping.bytes,
        sections,
        ring: RingConfig::new(0),
    };
    let (parts, recovered) = recover_parts(mapping, &plan)?;
    plan.ring = parts.ring.config();
    let writer = mapping.writer(&plan, parts);
    mapping.write_owner();
    writer
        .header
        .clock_sequence
        .store(0, core::sync::atomic::Ordering::Relaxed);
    writer.header.touch_clock();
    Ok((writer, recovered))
}

fn recover_parts(mapping: &Mapping, plan: &SectionPlan) -> Result<(Parts, Recovered), CreateError> {
    let bytes = |name| plan.section(name).bytes;
    let damaged = |_| CreateError::Damaged;
    // SAFETY: `HeaderView` checked that the sections lie within the file, which is mapped whole, at
    // page boundaries and without overlap; the lock keeps other writers away.
    let (ring, live) = unsafe {
        (
            Ring::attach(
                mapping.at(plan, SectionName::Ring),
                bytes(SectionName::Ring),
            )
            .map_err(damaged)?,
            LiveTable::attach(
                mapping.at(plan, SectionName::Live),
                bytes(SectionName::Live),
            )
            .map_err(damaged)?,
        )
    };
    ring.reset_in_flight();
    live.reset_in_flight();
    let holds = live.blocks().filter_map(|(_, block)| block.stack);
    let depot_base = mapping.at(plan, SectionName::Depot);
    // SAFETY: as above.
    let reopened = unsafe { Depot::reopen(depot_base, bytes(SectionName::Depot), holds) };
    let (depot, recovered) = reopened.map_err(|_| CreateError::Damaged)?;
    let caches = mapping.caches(plan)?;
    caches.recover(&depot);
    // A block whose stack is gone holds no reference: its removal must not give one back.
    for (address, block) in live.blocks() {
        if block.stack.is_some_and(|weak| depot.payload(weak).is_err()) {
            let _ = live.remove(address);
        }
    }
    let parts = Parts {
        depot,
        ring,
        live,
        caches,
    };
    Ok((parts, recovered))
}
