//! All forms of C++ `operator new` and `operator delete`, by their mangled names.
//!
//! The real ones may throw through the hook: everything here is `C-unwind`, and the `Call` gives
//! the thread's state back when dropped on the way. Where the program's C++ library was loaded out
//! of our sight (`dlopen` without `RTLD_GLOBAL`), they are built on `malloc` and `free`, as
//! libstdc++'s are; running out of memory then looks for the library's own, which throws.
#![allow(unsafe_code)] // the C++ ABI of the allocator

use core::ffi::{CStr, c_void};

use stackdepot_region::caller::Family;

use crate::arena;
use crate::hook::entry;
use crate::hooks_c::{alloc_with, free_with};
use crate::symbols::{Real, real};
use crate::thread::Frame;

/// What the hooks of one form share: how they are exported and what they forward to.
macro_rules! new_hooks {
    ($($symbol:ident, $register:literal, $body:ident, $field:ident,
        ($($argument:ident: $type:ty),*), align $align:expr, throws $throws:expr, $family:ident;)*) => {$(
        entry!($symbol, $register, $body);

        unsafe extern "C-unwind" fn $body(
            size: usize, $($argument: $type,)* frame: *const Frame,
        ) -> *mut c_void {
            let Some(real) = real() else {
                return arena::allocate(size, $align);
            };
            // SAFETY: forwards the program's own call.
            unsafe {
                alloc_with(frame, Family::$family, size, || match real.$field {
                    Some(function) => function(size, $($argument),*),
                    None => new_without_library(real, size, $align, $throws),
                })
            }
        }
    )*};
}

macro_rules! delete_hooks {
    ($($symbol:ident, $register:literal, $body:ident, $field:ident,
        ($($argument:ident: $type:ty),*), $family:ident;)*) => {$(
        entry!($symbol, $register, $body);

        unsafe extern "C-unwind" fn $body(
            block: *mut c_void, $($argument: $type,)* frame: *const Frame,
        ) {
            let Some(real) = real() else { return };
            // SAFETY: forwards the program's own call.
            unsafe {
                free_with(frame, Family::$family, block, || match real.$field {
                    Some(function) => function(block, $($argument),*),
                    None => (real.free)(block),
                })
            }
        }
    )*};
}

/// A `std::nothrow_t const&`, handed on unseen.
type Tag = *const c_void;

new_hooks! {
    _Znwm, "rsi", new_body, new, (), align 16, throws true, New;
    _Znam, "rsi", new_array_body, new_array, (), align 16, throws true, NewArray;
    _ZnwmRKSt9nothrow_t, "rdx", new_nothrow_body, new_nothrow, (tag: Tag), align 16, throws false, New;
    _ZnamRKSt9nothrow_t, "rdx", new_array_nothrow_body, new_array_nothrow, (tag: Tag), align 16, throws false, NewArray;
    _ZnwmSt11align_val_t, "rdx", new_aligned_body, new_aligned, (align: usize), align align, throws true, New;
    _ZnamSt11align_val_t, "rdx", new_array_aligned_body, new_array_aligned, (align: usize), align align, throws true, NewArray;
    _ZnwmSt11align_val_tRKSt9nothrow_t, "rcx", new_aligned_nothrow_body, new_aligned_nothrow,
        (align: usize, tag: Tag), align align, throws false, New;
    _ZnamSt11align_val_tRKSt9nothrow_t, "rcx", new_array_aligned_nothrow_body, new_array_aligned_nothrow,
        (align: usize, tag: Tag), align align, throws false, NewArray;
}

delete_hooks! {
    _ZdlPv, "rsi", delete_body, delete, (), New;
    _ZdaPv, "rsi", delete_array_body, delete_array, (), NewArray;
    _ZdlPvRKSt9nothrow_t, "rdx", delete_nothrow_body, delete_nothrow, (tag: usize), New;
    _ZdaPvRKSt9nothrow_t, "rdx", delete_array_nothrow_body, delete_array_nothrow, (tag: usize), NewArray;
    _ZdlPvm, "rdx", delete_sized_body, delete_sized, (size: usize), New;
    _ZdaPvm, "rdx", delete_array_sized_body, delete_array_sized, (size: usize), NewArray;
    _ZdlPvSt11align_val_t, "rdx", delete_aligned_body, delete_aligned, (align: usize), New;
    _ZdaPvSt11align_val_t, "rdx", delete_array_aligned_body, delete_array_aligned, (align: usize), NewArray;
    _ZdlPvSt11align_val_tRKSt9nothrow_t, "rcx", delete_aligned_nothrow_body, delete_aligned_nothrow,
        (align: usize, tag: usize), New;
    _ZdaPvSt11align_val_tRKSt9nothrow_t, "rcx", delete_array_aligned_nothrow_body, delete_array_aligned_nothrow,
        (align: usize, tag: usize), NewArray;
    _ZdlPvmSt11align_val_t, "rcx", delete_sized_aligned_body, delete_sized_aligned,
        (size: usize, align: usize), New;
    _ZdaPvmSt11align_val_t, "rcx", delete_array_sized_aligned_body, delete_array_sized_aligned,
        (size: usize, align: usize), NewArray;
}

/// `operator new` of a library that `dlsym` cannot see from here.
#[cold]
unsafe fn new_without_library(real: &Real, size: usize, align: usize, throws: bool) -> *mut c_void {
    // SAFETY: ordinary allocations; zero bytes must answer a block of its own too.
    let block = unsafe {
        if align <= 16 {
            (real.malloc)(size.max(1))
        } else {
            (real.memalign)(align, size.max(1))
        }
    };
    if block.is_null() && throws {
        throw_bad_alloc();
    }
    block
}

/// Throws as the C++ standard asks, by the C++ library that is loaded; returns if there is none.
#[cold]
fn throw_bad_alloc() {
    const NAME: &CStr = c"_ZSt17__throw_bad_allocv";
    // SAFETY: a valid name; the flags find the library only where it is loaded already.
    let throw = unsafe {
        let library = libc::dlopen(
            c"libstdc++.so.6".as_ptr(),
            libc::RTLD_LAZY | libc::RTLD_NOLOAD,
        );
        libc::dlsym(library, NAME.as_ptr())
    };
    if !throw.is_null() {
        // SAFETY: `void std::__throw_bad_alloc()`, which throws through us.
        unsafe { core::mem::transmute::<*mut c_void, extern "C-unwind" fn()>(throw)() }
    }
}
