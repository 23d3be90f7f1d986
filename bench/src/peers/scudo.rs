//! Scudo's stack depot: a ring of 2^19 words that overwrites the oldest stacks, found by a 32-bit
//! hash alone.
#![allow(unsafe_code)] // calls into C

use super::library::{self, Library};
use crate::figure::Peer;
use crate::workload::Workload;

const OBJECT: &str = "scudo";

/// The process' depot.
pub struct Scudo {
    insert: unsafe extern "C" fn(*const u64, *const u64) -> u32,
    find: unsafe extern "C" fn(u32, *mut u64, u32) -> u32,
}

impl Peer for Scudo {
    const NAME: &'static str = "Scudo";
    const MAY_LOSE: bool = true;

    fn missing() -> Option<String> {
        library::missing(OBJECT)
    }

    fn new(_: &Workload) -> Scudo {
        let library = Library::open(OBJECT);
        // SAFETY: the types are those of shims/scudo.cpp.
        unsafe {
            Scudo {
                insert: library.function("bench_scudo_insert"),
                find: library.function("bench_scudo_find"),
            }
        }
    }

    #[inline(always)]
    fn save(&self, frames: &[u64]) -> u64 {
        let range = frames.as_ptr_range();
        // SAFETY: the frames are there during the call; they are read only.
        u64::from(unsafe { (self.insert)(range.start, range.end) })
    }

    #[inline(always)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        // SAFETY: at most so many words are written.
        let count = unsafe { (self.find)(handle as u32, out.as_mut_ptr(), out.len() as u32) };
        count as usize
    }
}
