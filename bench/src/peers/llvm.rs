//! LLVM's sanitizer StackDepot, raw: keeps the frames as they are, compares a 64-bit hash only.
#![allow(unsafe_code)] // calls into C

use std::ffi::c_char;

use super::library::{self, Library};
use crate::figure::{Peer, Shared};
use crate::workload::Workload;

const OBJECT: &str = "llvm";

/// As the library takes and answers a stack.
#[repr(C)]
struct Trace {
    frames: *const u64,
    count: u32,
    tag: u32,
}

/// The process' depot.
pub struct Llvm {
    put: unsafe extern "C" fn(Trace) -> u32,
    get: unsafe extern "C" fn(u32) -> Trace,
}

impl Peer for Llvm {
    const NAME: &'static str = "LLVM";

    fn missing() -> Option<String> {
        library::missing(OBJECT)
    }

    fn new(_: &Workload) -> Llvm {
        let library = Library::open(OBJECT);
        // SAFETY: the types are those of shims/llvm.c; the flags are text for good.
        unsafe {
            let init: unsafe extern "C" fn(*const c_char) =
                std::mem::transmute(library.function("bench_llvm_init"));
            init(c"compress_stack_depot=0".as_ptr());
            Llvm {
                put: std::mem::transmute(library.function("bench_llvm_put")),
                get: std::mem::transmute(library.function("bench_llvm_get")),
            }
        }
    }

    #[inline(always)]
    fn save(&self, frames: &[u64]) -> u64 {
        let trace = Trace {
            frames: frames.as_ptr(),
            count: frames.len() as u32,
            tag: 0,
        };
        // SAFETY: the frames are there during the call.
        u64::from(unsafe { (self.put)(trace) })
    }

    #[inline(always)]
    fn fetch(&self, handle: u64, out: &mut [u64]) -> usize {
        // SAFETY: handles are those that `put` answered; what comes back stays for good.
        unsafe {
            let trace = (self.get)(handle as u32);
            let count = (trace.count as usize).min(out.len());
            if count > 0 {
                std::ptr::copy_nonoverlapping(trace.frames, out.as_mut_ptr(), count);
            }
            count
        }
    }
}

impl Shared for Llvm {}
