//! What the loader and the C library call at the process's start, in a fork's child and at its end.
//!
//! At the start: what must not happen inside an allocator call. In a child: only what cannot wait
//! for its first event. At the end the region file is told that the program ended by itself, after
//! the program's own handlers; what is allocated and freed later is still recorded. A killed
//! program's file stays as it is: readers see that its process is gone.

#![allow(unsafe_code)] // entries of the loader's tables

use crate::{check, environment, faults, process, thread};

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: unsafe extern "C" fn() = at_start;

#[cfg(not(test))]
#[used]
#[unsafe(link_section = ".fini_array")]
static AT_EXIT: unsafe extern "C" fn() = at_exit;

unsafe extern "C" fn at_start() {
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
