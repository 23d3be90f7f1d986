//! LLVM's sanitizer StackDepot: compares a 64-bit hash only, never gives anything back.
//!
//! Raw it keeps the frames as they are; with delta or LZW it packs each full block of 8 MiB at once, and
//! unpacks it for good at the first fetch of one of its stacks.
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

/// Frames as they are.
pub const RAW: u8 = 0;
/// Differences of frames.
pub const DELTA: u8 = 1;
/// A dictionary.
pub const LZW: u8 = 2;

/// The process' depot, with one of the ways of packing.
pub struct Llvm<const PACKING: u8> {
    put: unsafe extern "C" fn(Trace) -> u32,
    get: unsafe extern "C" fn(u32) -> Trace,
}

impl<const PACKING: u8> Peer for Llvm<PACKING> {
    const NAME: &'static str = match PACKING {
        DELTA => "LLVM delta",
        LZW => "LLVM LZW",
        _ => "LLVM",
    };

    fn missing() -> Option<String> {
        library::missing(OBJECT)
    }

    fn new(_: &Workload) -> Self {
        let library = Library::open(OBJECT);
        // Negative: in the saving thread, not in one of its own that nobody measures.
        let flags = match PACKING {
            DELTA => c"compress_stack_depot=-1",
            LZW => c"compress_stack_depot=-2",
            _ => c"compress_stack_depot=0",
        };
        // SAFETY: the types are those of shims/llvm.c; the flags are text for good.
        unsafe {
            let init: unsafe extern "C" fn(*const c_char) = library.function("bench_llvm_init");
            init(flags.as_ptr());
            Llvm {
                put: library.function("bench_llvm_put"),
                get: library.function("bench_llvm_get"),
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

impl Shared for Llvm<RAW> {}
