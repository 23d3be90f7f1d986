//! Check mode (`STACKDEPOT_CHECK=N`): every N-th event takes its stack a second time, by libunwind.
//!
//! libunwind is looked up when recording starts, never linked. It walks from here outwards through
//! the hook; its frames from the hook's caller on are compared with ours, word for word.

#![allow(unsafe_code)] // calls libunwind by its C ABI

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_int, c_void};
use core::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use stackdepot_region::counters::Counter;

use crate::process::Recorder;
use crate::scratch::FRAME_ROOM;
use crate::thread::Frame;
use crate::unwind::End;

/// `int unw_backtrace(void **buffer, int size)`.
type Backtrace = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;

/// Our own frames between libunwind and the hook's caller are at most this many.
const OWN_FRAMES: usize = 32;
const ROOM: usize = FRAME_ROOM + OWN_FRAMES;

static BACKTRACE: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static COUNTDOWN: AtomicU32 = AtomicU32::new(0);
/// One check at a time uses the buffer; others are skipped.
static BUSY: AtomicU32 = AtomicU32::new(0);

struct Buffer(UnsafeCell<[*mut c_void; ROOM]>);

// SAFETY: used only by who moved BUSY from 0 to 1.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new([core::ptr::null_mut(); ROOM]));

/// Finds libunwind; without it nothing is checked.
pub fn init() {
    for name in [c"libunwind.so.8", c"libunwind.so"] {
        if let Some(function) = find(name) {
            BACKTRACE.store(function, Ordering::Relaxed);
            return;
        }
    }
}

fn find(library: &CStr) -> Option<*mut c_void> {
    // SAFETY: valid names; the library stays loaded.
    unsafe {
        let library = libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if library.is_null() {
            return None;
        }
        let function = libc::dlsym(library, c"unw_backtrace".as_ptr());
        (!function.is_null()).then_some(function)
    }
}

/// Compares a stack with libunwind's, if it is this event's turn.
#[cold]
#[inline(never)]
pub fn compare(recorder: &Recorder, frame: &Frame, stack: &[u64], end: End) {
    let function = BACKTRACE.load(Ordering::Relaxed);
    if function.is_null() || !is_turn(recorder.check_interval) {
        return;
    }
    // ORDERING: Acquire, partner: the Release below; the buffer is ours in between.
    if BUSY
        .compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed)
        .is_err()
    {
        return;
    }
    // SAFETY: `unw_backtrace`, found under that name.
    let backtrace: Backtrace = unsafe { core::mem::transmute(function) };
    // SAFETY: BUSY makes the buffer ours.
    let buffer = unsafe { &mut *BUFFER.0.get() };
    // SAFETY: a buffer as long as said.
    let count = unsafe { backtrace(buffer.as_mut_ptr(), ROOM as c_int) };
    let found = buffer
        .get(..usize::try_from(count).unwrap_or(0))
        .unwrap_or_default();
    judge(recorder, frame, stack, end, found);
    // ORDERING: Release, partner: the Acquire above.
    BUSY.store(0, Ordering::Release);
}

fn is_turn(interval: u32) -> bool {
    COUNTDOWN
        .fetch_add(1, Ordering::Relaxed)
        .wrapping_add(1)
        .is_multiple_of(interval)
}

fn judge(recorder: &Recorder, frame: &Frame, stack: &[u64], end: End, found: &[*mut c_void]) {
    let counters = &recorder.region.counters;
    counters.count(Counter::CheckTotal);
    let caller = frame.return_address;
    let start = found
        .iter()
        .take(OWN_FRAMES)
        .position(|frame| *frame as usize == caller);
    let Some(theirs) = start.and_then(|start| found.get(start..)) else {
        // It did not get through the hook: nothing to compare with.
        counters.count(Counter::CheckTruncated);
        return;
    };
    let equal = theirs
        .iter()
        .zip(stack)
        .all(|(theirs, ours)| *theirs as u64 == *ours);
    if equal && theirs.len() == stack.len() {
        counters.count(Counter::CheckEqual);
    } else if equal && (end != End::Complete || theirs.len() < stack.len()) {
        counters.count(Counter::CheckTruncated);
    }
}
