//! jemalloc's own entry points, for programs that call them (Debian's redis does).
//!
//! Where the program has no jemalloc they stand on malloc: some programs only look whether
//! `mallocx` exists. Size and alignment are in `flags` as jemalloc documents them.
#![allow(unsafe_code)] // jemalloc's ABI

use core::ffi::{c_int, c_void};
use core::ptr::write_bytes;

use stackdepot_region::caller::Family;

use crate::arena;
use crate::hook::entry;
use crate::hooks_c::{alloc_with, free_with, resize_with};
use crate::symbols::{Real, real};
use crate::thread::Frame;

entry!(mallocx, "rdx", mallocx_body);
entry!(rallocx, "rcx", rallocx_body);
entry!(dallocx, "rdx", dallocx_body);
entry!(sdallocx, "rcx", sdallocx_body);

/// `MALLOCX_ZERO`.
const ZERO: c_int = 0x40;
/// The low bits: the logarithm of the alignment, 0 for the default.
const LG_ALIGN_MASK: c_int = 0x3f;

unsafe extern "C-unwind" fn mallocx_body(
    size: usize,
    flags: c_int,
    frame: *const Frame,
) -> *mut c_void {
    let Some(real) = real() else {
        return arena::allocate(size, alignment(flags));
    };
    // SAFETY: forwards the program's own call.
    unsafe {
        alloc_with(frame, Family::C, size, || match real.mallocx {
            Some(mallocx) => mallocx(size, flags),
            None => mallocx_without_jemalloc(real, size, flags),
        })
    }
}

unsafe extern "C-unwind" fn rallocx_body(
    block: *mut c_void,
    size: usize,
    flags: c_int,
    frame: *const Frame,
) -> *mut c_void {
    let Some(real) = real() else {
        return core::ptr::null_mut();
    };
    // SAFETY: forwards the program's own call.
    unsafe {
        resize_with(frame, block, size, || match real.rallocx {
            Some(rallocx) => rallocx(block, size, flags),
            None => (real.realloc)(block, size),
        })
    }
}

unsafe extern "C-unwind" fn dallocx_body(block: *mut c_void, flags: c_int, frame: *const Frame) {
    let Some(real) = real() else { return };
    // SAFETY: forwards the program's own call.
    unsafe {
        free_with(frame, Family::C, block, || match real.dallocx {
            Some(dallocx) => dallocx(block, flags),
            None => (real.free)(block),
        })
    }
}

unsafe extern "C-unwind" fn sdallocx_body(
    block: *mut c_void,
    size: usize,
    flags: c_int,
    frame: *const Frame,
) {
    let Some(real) = real() else { return };
    // SAFETY: forwards the program's own call.
    unsafe {
        free_with(frame, Family::C, block, || match real.sdallocx {
            Some(sdallocx) => sdallocx(block, size, flags),
            None => (real.free)(block),
        })
    }
}

fn alignment(flags: c_int) -> usize {
    1usize << (flags & LG_ALIGN_MASK)
}

unsafe fn mallocx_without_jemalloc(real: &Real, size: usize, flags: c_int) -> *mut c_void {
    // SAFETY: an ordinary allocation; the alignment is a power of two.
    let block = unsafe { (real.memalign)(alignment(flags).max(16), size) };
    if flags & ZERO != 0 && !block.is_null() {
        // SAFETY: the block has `size` bytes.
        unsafe { write_bytes(block.cast::<u8>(), 0, size) };
    }
    block
}
