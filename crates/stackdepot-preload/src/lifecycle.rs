//! What the loader and the C library call at the process's start, in a fork's child and at its end.
//!
//! At the start: what must not happen inside an allocator call. In a child: only what cannot wait
//! for its first event. At the end the region file is told that the program ended by itself, after
//! the program's own handlers; what is allocated and freed later is still recorded. A killed
//! program's file stays as it is: readers see that its process is gone.

#![allow(unsafe_code)] // entries of the loader's tables

use core::ffi::c_void;
use core::mem::transmute;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::{check, environment, faults, process, symbols, thread};

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: unsafe extern "C" fn() = at_start;

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: unsafe extern "C" fn() = at_exit;

unsafe extern "C" fn at_start() {
    symbols::real();
    // The program that was started gets the run's first file, not a child that allocates earlier.
    if process::recorder().is_some() {
        faults::arm();
    }
    if environment::wants_check() {
        check::init();
    }
    // SAFETY: a function of the right type that stays loaded. Refused: one protection less.
    unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
}

static REAL_FORK: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The exported `_Fork`, the fork for signal handlers, which calls nobody in the child.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn _Fork() -> libc::pid_t {
    look_up();
    let real = REAL_FORK.load(Ordering::Relaxed);
    if real.is_null() {
        // SAFETY: the C library always has a valid errno for the calling thread.
        unsafe { *libc::__errno_location() = libc::ENOSYS };
        return -1;
    }
    // SAFETY: the C function of this name; forwards the program's own call.
    let child = unsafe { transmute::<*mut c_void, extern "C" fn() -> libc::pid_t>(real)() };
    if child == 0 {
        // SAFETY: this is the child.
        unsafe { in_child() };
    }
    child
}

/// Finds the real `_Fork`.
pub fn look_up() {
    if REAL_FORK.load(Ordering::Relaxed).is_null() {
        // SAFETY: a valid name.
        let function = unsafe { libc::dlsym(libc::RTLD_NEXT, c"_Fork".as_ptr()) };
        REAL_FORK.store(function, Ordering::Relaxed);
    }
}

/// A signal handler that interrupted a recording forked: the recording goes on in the child.
unsafe extern "C" fn in_child() {
    if thread::is_recording() {
        process::leave_parents_region();
    }
}

unsafe extern "C" fn at_exit() {
    if let Some(recorder) = process::running() {
        recorder.region.mark_ended();
    }
}
