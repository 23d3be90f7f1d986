//! Anonymous memory straight from the kernel, and the allocator of last resort built on it.
//!
//! Nothing in this library means to allocate. Should the standard library do it all the same, it
//! gets pages of its own, so that it can never come back into a hook.
#![allow(unsafe_code)] // maps memory

use core::alloc::{GlobalAlloc, Layout};
use core::arch::asm;
use core::ffi::c_void;
use core::ptr::{NonNull, null_mut};

/// Zeroed private pages, not yet resident; `None` when the kernel refuses.
pub fn map(bytes: usize) -> Option<NonNull<u8>> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: a new anonymous mapping touches nothing that exists.
    let address = unsafe { libc::mmap(null_mut(), bytes, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return None;
    }
    NonNull::new(address.cast())
}

/// Gives pages of [`map`] back.
pub fn unmap(address: *mut u8, bytes: usize) {
    // SAFETY: callers pass what `map` gave them and nobody else has seen.
    unsafe { libc::munmap(address.cast(), bytes) };
}

/// Puts zeroed private pages in the place of a mapping that may still be written to.
pub fn replace(address: *mut u8, bytes: usize) {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED;
    // SAFETY: callers own the mapping and expect nothing of its contents any more.
    unsafe { libc::mmap(address.cast(), bytes, protection, flags, -1, 0) };
}

/// Calls a function on a stack made of pages of ours.
///
/// # Safety
///
/// Nobody else uses the pages (some, of [`map`]); the function takes the argument and does not unwind.
pub unsafe fn call_on(
    stack: *mut u8,
    bytes: usize,
    function: extern "C" fn(*mut c_void),
    argument: *mut c_void,
) {
    // SAFETY: the end of the caller's pages, aligned to 16; the call returns there and r12 survives
    // it by the C ABI.
    unsafe {
        asm!(
            "mov r12, rsp",
            "mov rsp, {top}",
            "call {function}",
            "mov rsp, r12",
            top = in(reg) stack.wrapping_add(bytes),
            function = in(reg) function,
            in("rdi") argument,
            out("r12") _,
            clobber_abi("C"),
        );
    }
}

/// Serves the standard library's allocations, which should not happen, from pages of their own.
struct Pages;

// SAFETY: each block is a mapping of its own, page-aligned; larger alignments are refused.
unsafe impl GlobalAlloc for Pages {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 4096 {
            return null_mut();
        }
        map(layout.size()).map_or(null_mut(), NonNull::as_ptr)
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        unmap(block, layout.size());
    }
}

#[cfg(not(test))]
#[global_allocator]
static PAGES: Pages = Pages;
