//! The malloc family of C, and `dlclose`.
//!
//! Each hook calls the real function and tells `record` what changed: an alloc after the real
//! call, a free before it. While the real functions are being looked up the arena serves.
#![allow(unsafe_code)] // the C ABI of the allocator

use core::ffi::{c_int, c_void};
use core::ptr::{copy_nonoverlapping, null_mut};

use stackdepot_region::caller::Family;
use stackdepot_region::poisson::ByteSampling;

use crate::hook::entry;
use crate::record::Resize;
use crate::symbols::{self, Real, real};
use crate::thread::{
    Frame, GAP_AT, PassedOver, Purpose, enter, enter_outermost, is_inside, meets_mark, passes_over,
};
use crate::{arena, process, sampled, unwind};

// With `run --sample` nearly every malloc and free ends in these few lines: what `malloc_body` does when
// `passes_over` says so, and `free_body` when `sampled::is_left_out` does.
entry!(
    malloc,
    "rsi",
    malloc_body,
    [
        "mov rax, qword ptr [rip + stackdepot_thread@GOTTPOFF]",
        "mov rcx, qword ptr fs:[rax + {gap}]",
        "lea rdx, [rdi + {least_weight}]",
        "sub rcx, rdx",
        "jbe 2f",
        "mov qword ptr fs:[rax + {gap}], rcx",
        // There is no gap before the first event, which the real functions are looked up for.
        "jmp qword ptr [rip + {real} + {at}]",
        "2:",
    ],
    [gap = const GAP_AT, least_weight = const ByteSampling::weight(0),
     real = sym symbols::TABLE, at = const symbols::MALLOC_AT,]
);
entry!(
    free,
    "rsi",
    free_body,
    [
        "cmp byte ptr [rip + {is_on}], 0",
        "je 2f",
        "movabs rax, {factor}",
        "imul rax, rdi",
        "shr rax, {shift}",
        "lea rcx, [rip + {counts}]",
        "cmp byte ptr [rax + rcx], 0",
        "jne 2f",
        "lea rcx, [rip + {arena}]",
        "mov rdx, rdi",
        "sub rdx, rcx",
        "cmp rdx, {arena_bytes}",
        "jb 2f",
        "jmp qword ptr [rip + {real} + {at}]",
        "2:",
    ],
    [is_on = sym sampled::IS_ON, factor = const sampled::CLASS_FACTOR, shift = const sampled::CLASS_SHIFT,
     counts = sym sampled::COUNTS, arena = sym arena::ARENA, arena_bytes = const arena::ARENA_BYTES,
     real = sym symbols::TABLE, at = const symbols::FREE_AT,]
);
entry!(calloc, "rdx", calloc_body);
entry!(realloc, "rdx", realloc_body);
entry!(reallocarray, "rcx", reallocarray_body);
entry!(cfree, "rsi", free_body);
entry!(free_sized, "rdx", free_sized_body);
entry!(free_aligned_sized, "rcx", free_aligned_sized_body);
entry!(memalign, "rdx", memalign_body);
entry!(aligned_alloc, "rdx", aligned_alloc_body);
entry!(posix_memalign, "rcx", posix_memalign_body);
entry!(valloc, "rsi", valloc_body);
entry!(pvalloc, "rsi", pvalloc_body);
entry!(dlclose, "rsi", dlclose_body);

const PAGE_BYTES: usize = 4096;

/// A hook's alloc: the real call, then the record.
#[inline(always)]
pub unsafe fn alloc_with(
    frame: *const Frame,
    family: Family,
    size: usize,
    allocate: impl FnMut() -> *mut c_void,
) -> *mut c_void {
    if passes_over(size) {
        return call_real(family, allocate);
    }
    // SAFETY: the caller's promise.
    unsafe { recorded_alloc_with(frame, family, size, allocate) }
}

/// The alloc of a block that is not recorded. What an `operator new` allocates belongs to it; the
/// functions of C that we know allocate nothing by a call that a hook sees.
#[inline(always)]
fn call_real(family: Family, mut allocate: impl FnMut() -> *mut c_void) -> *mut c_void {
    let _own = (family != Family::C).then(PassedOver::begin);
    allocate()
}

/// Apart, so that a call which passes over saves no registers for it.
#[inline(never)]
unsafe fn recorded_alloc_with(
    frame: *const Frame,
    family: Family,
    size: usize,
    mut allocate: impl FnMut() -> *mut c_void,
) -> *mut c_void {
    let Some(recorder) = process::recorder() else {
        return allocate();
    };
    if !meets_mark(recorder, size) {
        return call_real(family, allocate);
    }
    if is_inside() {
        // SAFETY: as here.
        return unsafe { alloc_inside(frame, family, size, &mut allocate) };
    }
    // SAFETY: `frame` comes from the naked entry of the running hook.
    let call = unsafe { enter_outermost(recorder, frame, Purpose::of_alloc(family)) };
    let block = allocate();
    if let Some(call) = call
        && !block.is_null()
    {
        call.allocated(block as usize, size, family);
    }
    block
}

/// An alloc while the thread is in a hook.
#[cold]
#[inline(never)]
unsafe fn alloc_inside(
    frame: *const Frame,
    family: Family,
    size: usize,
    allocate: &mut dyn FnMut() -> *mut c_void,
) -> *mut c_void {
    // SAFETY: `frame` comes from the naked entry of the running hook.
    let call = unsafe { enter(frame, Purpose::of_alloc(family)) };
    let block = allocate();
    if let Some(call) = call
        && !block.is_null()
    {
        call.allocated(block as usize, size, family);
    }
    block
}

/// A hook's free: the record, then the real call. Null and arena blocks go no further.
#[inline(always)]
pub unsafe fn free_with(
    frame: *const Frame,
    family: Family,
    block: *mut c_void,
    mut release: impl FnMut(),
) {
    if block.is_null() || arena::owns(block) {
        return;
    }
    if sampled::is_left_out(block as usize) {
        return release();
    }
    // SAFETY: the caller's promise.
    unsafe { recorded_free_with(frame, family, block, release) };
}

/// Apart, as for allocs.
#[inline(never)]
unsafe fn recorded_free_with(
    frame: *const Frame,
    family: Family,
    block: *mut c_void,
    mut release: impl FnMut(),
) {
    let Some(recorder) = process::recorder() else {
        return release();
    };
    if is_inside() {
        // SAFETY: as here.
        return unsafe { free_inside(frame, family, block, &mut release) };
    }
    let purpose = Purpose::of_free(family, block as usize);
    // SAFETY: `frame` comes from the naked entry of the running hook.
    let call = unsafe { enter_outermost(recorder, frame, purpose) };
    if let Some(call) = &call {
        call.freed(block as usize, family);
    }
    release();
    drop(call);
}

/// A free while the thread is in a hook.
#[cold]
#[inline(never)]
unsafe fn free_inside(
    frame: *const Frame,
    family: Family,
    block: *mut c_void,
    release: &mut dyn FnMut(),
) {
    // SAFETY: `frame` comes from the naked entry of the running hook.
    let call = unsafe { enter(frame, Purpose::of_free(family, block as usize)) };
    if let Some(call) = &call {
        call.freed(block as usize, family);
    }
    release();
    drop(call);
}

/// A hook's realloc of a block that is not null: out of the record, the real call, in again.
#[inline(always)]
pub unsafe fn resize_with(
    frame: *const Frame,
    block: *mut c_void,
    size: usize,
    mut resize: impl FnMut() -> *mut c_void,
) -> *mut c_void {
    if sampled::is_left_out(block as usize) {
        // The old block is not recorded, so that all there may be is a new one.
        // SAFETY: the caller's promise.
        return unsafe { alloc_with(frame, Family::C, size, resize) };
    }
    // SAFETY: `frame` comes from the naked entry of the running hook.
    let Some(entered) = (unsafe { enter(frame, Purpose::C) }) else {
        return resize();
    };
    let call = entered.recording();
    let pending: Resize = call.resizing(block as usize);
    let moved = resize();
    if !moved.is_null() {
        call.resized(pending, moved as usize, size);
    } else if size == 0 {
        call.resized_to_nothing(pending);
    } else {
        call.resize_failed(pending);
    }
    drop(entered);
    moved
}

unsafe extern "C-unwind" fn malloc_body(size: usize, frame: *const Frame) -> *mut c_void {
    let Some(real) = real() else {
        return arena::allocate(size, 16);
    };
    // SAFETY: forwards the program's own call.
    unsafe { alloc_with(frame, Family::C, size, || (real.malloc)(size)) }
}

unsafe extern "C-unwind" fn calloc_body(
    count: usize,
    size: usize,
    frame: *const Frame,
) -> *mut c_void {
    let Some(real) = real() else {
        return count
            .checked_mul(size)
            .map_or(null_mut(), |bytes| arena::allocate(bytes, 16));
    };
    // A product that overflows makes the real call fail, and nothing is recorded.
    // SAFETY: forwards the program's own call.
    unsafe {
        alloc_with(frame, Family::C, count.wrapping_mul(size), || {
            (real.calloc)(count, size)
        })
    }
}

unsafe extern "C-unwind" fn realloc_body(
    block: *mut c_void,
    size: usize,
    frame: *const Frame,
) -> *mut c_void {
    let Some(real) = real() else {
        return arena_realloc(block, size, None);
    };
    if block.is_null() {
        // SAFETY: forwards the program's own call.
        return unsafe { alloc_with(frame, Family::C, size, || (real.realloc)(block, size)) };
    }
    if arena::owns(block) {
        // SAFETY: forwards the program's own call.
        return unsafe {
            alloc_with(frame, Family::C, size, || {
                arena_realloc(block, size, Some(real))
            })
        };
    }
    // SAFETY: forwards the program's own call.
    unsafe { resize_with(frame, block, size, || (real.realloc)(block, size)) }
}

unsafe extern "C-unwind" fn reallocarray_body(
    block: *mut c_void,
    count: usize,
    size: usize,
    frame: *const Frame,
) -> *mut c_void {
    let Some(bytes) = count.checked_mul(size) else {
        set_errno(libc::ENOMEM);
        return null_mut();
    };
    // SAFETY: the same frame, the same call with the product worked out.
    unsafe { realloc_body(block, bytes, frame) }
}

unsafe extern "C-unwind" fn free_body(block: *mut c_void, frame: *const Frame) {
    let Some(real) = real() else { return };
    // SAFETY: forwards the program's own call.
    unsafe { free_with(frame, Family::C, block, || (real.free)(block)) }
}

unsafe extern "C-unwind" fn free_sized_body(block: *mut c_void, size: usize, frame: *const Frame) {
    let Some(real) = real() else { return };
    // SAFETY: forwards the program's own call.
    unsafe {
        free_with(frame, Family::C, block, || match real.free_sized {
            Some(free_sized) => free_sized(block, size),
            None => (real.free)(block),
        })
    }
}

unsafe extern "C-unwind" fn free_aligned_sized_body(
    block: *mut c_void,
    align: usize,
    size: usize,
    frame: *const Frame,
) {
    let Some(real) = real() else { return };
    // SAFETY: forwards the program's own call.
    unsafe {
        free_with(frame, Family::C, block, || match real.free_aligned_sized {
            Some(free_aligned_sized) => free_aligned_sized(block, align, size),
            None => (real.free)(block),
        })
    }
}

/// The forms that answer an aligned block; the arena does while the real functions are unknown.
///
/// # Safety
/// As for [`alloc_with`].
#[inline(always)]
unsafe fn aligned_alloc_with(
    frame: *const Frame,
    align: usize,
    size: usize,
    mut allocate: impl FnMut(&Real) -> *mut c_void,
) -> *mut c_void {
    match real() {
        // SAFETY: the caller's promise.
        Some(real) => unsafe { alloc_with(frame, Family::C, size, || allocate(real)) },
        None => arena::allocate(size, align),
    }
}

unsafe extern "C-unwind" fn memalign_body(
    align: usize,
    size: usize,
    frame: *const Frame,
) -> *mut c_void {
    // SAFETY: forwards the program's own call.
    unsafe { aligned_alloc_with(frame, align, size, |real| (real.memalign)(align, size)) }
}

unsafe extern "C-unwind" fn aligned_alloc_body(
    align: usize,
    size: usize,
    frame: *const Frame,
) -> *mut c_void {
    // SAFETY: forwards the program's own call.
    unsafe { aligned_alloc_with(frame, align, size, |real| (real.aligned_alloc)(align, size)) }
}

unsafe extern "C-unwind" fn posix_memalign_body(
    place: *mut *mut c_void,
    align: usize,
    size: usize,
    frame: *const Frame,
) -> c_int {
    let Some(real) = real() else {
        return libc::ENOMEM;
    };
    let mut status = 0;
    // SAFETY: forwards the program's own call; on success the real function has filled `place`.
    unsafe {
        alloc_with(frame, Family::C, size, || {
            status = (real.posix_memalign)(place, align, size);
            if status == 0 { *place } else { null_mut() }
        });
    }
    status
}

unsafe extern "C-unwind" fn valloc_body(size: usize, frame: *const Frame) -> *mut c_void {
    // SAFETY: forwards the program's own call.
    unsafe {
        aligned_alloc_with(frame, PAGE_BYTES, size, |real| match real.valloc {
            Some(valloc) => valloc(size),
            None => (real.memalign)(PAGE_BYTES, size),
        })
    }
}

unsafe extern "C-unwind" fn pvalloc_body(size: usize, frame: *const Frame) -> *mut c_void {
    // SAFETY: forwards the program's own call.
    unsafe {
        aligned_alloc_with(frame, PAGE_BYTES, size, |real| match real.pvalloc {
            Some(pvalloc) => pvalloc(size),
            None => {
                let rounded = size
                    .checked_next_multiple_of(PAGE_BYTES)
                    .unwrap_or(usize::MAX);
                (real.memalign)(PAGE_BYTES, rounded)
            }
        })
    }
}

/// A library goes away: nobody may walk through its tables meanwhile.
unsafe extern "C-unwind" fn dlclose_body(library: *mut c_void, _: *const Frame) -> c_int {
    let Some(dlclose) = real().and_then(|real| real.dlclose) else {
        return -1;
    };
    let _closing = Closing::begin();
    // SAFETY: forwards the program's own call.
    unsafe { dlclose(library) }
}

/// Keeps the unwinder out of the modules' tables, also when a destructor throws.
struct Closing;

impl Closing {
    fn begin() -> Closing {
        unwind::gate::closing_begin();
        Closing
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        unwind::gate::closing_end();
    }
}

/// Grows a block of the arena: its bytes move to a real block, or to a new one of the arena.
#[cold]
fn arena_realloc(block: *mut c_void, size: usize, real: Option<&Real>) -> *mut c_void {
    let moved = match real {
        // SAFETY: an ordinary allocation.
        Some(real) => unsafe { (real.malloc)(size) },
        None => arena::allocate(size, 16),
    };
    if !moved.is_null() && arena::owns(block) {
        let length = arena::size_of(block).min(size);
        // SAFETY: both blocks have `length` bytes, and `moved` is new.
        unsafe { copy_nonoverlapping(block.cast::<u8>(), moved.cast::<u8>(), length) };
    }
    moved
}

fn set_errno(number: c_int) {
    // SAFETY: the C library always has a valid errno for the calling thread.
    unsafe { *libc::__errno_location() = number };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sampled_run_keeps_arena_blocks_from_the_real_free() {
        assert!(real().is_some());
        // SAFETY: the hook's naked entry takes what C's free takes.
        let free = unsafe {
            core::mem::transmute::<unsafe extern "C-unwind" fn(), extern "C-unwind" fn(*mut c_void)>(
                free,
            )
        };
        sampled::start(ByteSampling::new(1 << 19));
        // The real one would end the process.
        free(arena::allocate(24, 16));
        sampled::start(ByteSampling::default());
    }
}
