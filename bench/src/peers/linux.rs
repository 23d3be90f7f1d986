//! `lib/stackdepot.c` of Linux 6.12: plain, and with counted references behind KASAN's ring.
//!
//! Its table is as large as under KASAN. The ring's steps are those of a tag-based mode: a shared
//! lock for reading, a place by a counter, the place marked busy, the old stack put.
#![allow(unsafe_code)] // calls into C

use stackdepot_corpus::Event;

use super::library::{self, Library};
use crate::figure::{Holding, Peer, Ringed, Shared};
use crate::workload::{RING_EVENT_COUNT, Workload};

const OBJECT: &str = "linux";

type Save = unsafe extern "C" fn(*const u64, u32) -> u32;

/// The process' depot.
pub struct Linux {
    save: Save,
    get: Save,
    put: unsafe extern "C" fn(u32),
    fetch: unsafe extern "C" fn(u32, *mut *const u64) -> u32,
    push: unsafe extern "C" fn(u64, u64, bool, *const u64, u32),
}

impl Linux {
    fn open() -> Linux {
        let library = Library::open(OBJECT);
        // SAFETY: the types are those of shims/linux.c.
        unsafe {
            let init: unsafe extern "C" fn(u32) = library.function("bench_linux_init");
            init(RING_EVENT_COUNT);
            Linux {
                save: library.function("bench_linux_save"),
                get: library.function("bench_linux_get"),
                put: library.function("bench_linux_put"),
                fetch: library.function("bench_linux_fetch"),
                push: library.function("bench_linux_push"),
            }
        }
    }
}

impl Peer for Linux {
    const NAME: &'static str = "Linux";

    fn missing() -> Option<String> {
        library::missing(OBJECT)
    }

    fn new(_: &Workload) -> Linux {
        Linux::open()
    }

    #[inline(always)]
    fn save(&self, frames: &[u64]) -> u64 {
        // SAFETY: so many frames are there; they are read only.
        u64::from(unsafe { (self.save)(frames.as_ptr(), frames.len() as u32) })
    }

    #[inline(always)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        let mut frames = std::ptr::null();
        // SAFETY: handles are those that a save answered, and their stacks are not given back.
        unsafe {
            let count = ((self.fetch)(handle as u32, &mut frames) as usize).min(out.len());
            if count > 0 {
                std::ptr::copy_nonoverlapping(frames, out.as_mut_ptr(), count);
            }
            count
        }
    }
}

impl Shared for Linux {}

/// The same with a reference at each save.
pub struct LinuxReferenced(Linux);

impl Peer for LinuxReferenced {
    const NAME: &'static str = "Linux refcounted";

    fn missing() -> Option<String> {
        library::missing(OBJECT)
    }

    fn new(_: &Workload) -> LinuxReferenced {
        LinuxReferenced(Linux::open())
    }

    /// Without a reference, as the free of an object needs none.
    #[inline(always)]
    fn save(&self, frames: &[u64]) -> u64 {
        self.0.save(frames)
    }

    #[inline(always)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        self.0.fetch(handle, out)
    }
}

impl Holding for LinuxReferenced {
    #[inline(always)]
    fn save_acquire(&self, frames: &[u64]) -> u64 {
        // SAFETY: as for `Linux::save`.
        u64::from(unsafe { (self.0.get)(frames.as_ptr(), frames.len() as u32) })
    }

    #[inline(always)]
    fn put(&self, held: u64) {
        // SAFETY: the handle is one that `save_acquire` answered, given back once.
        unsafe { (self.0.put)(held as u32) }
    }
}

impl Ringed for LinuxReferenced {
    #[inline(always)]
    fn push(&self, event: &Event, frames: &[u64]) {
        let (address, size) = (u64::from(event.slot) << 4, u64::from(event.size));
        let (first, count) = (frames.as_ptr(), frames.len() as u32);
        // SAFETY: so many frames are there; they are read only.
        unsafe { (self.0.push)(address, size, !event.is_alloc, first, count) }
    }
}

impl Shared for LinuxReferenced {
    fn save_hot(&self, frames: &[u64]) -> u64 {
        let held = self.save_acquire(frames);
        self.put(held);
        held
    }
}
