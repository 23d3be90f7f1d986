//! `sigaction` and `signal`, so that the program does not see the handler of `faults`.
//!
//! Where that handler stands the program is told that the default does, and where it asks for the default
//! it gets the handler again. Everything else is passed on untouched. (A program that asks the
//! kernel directly, as Go's runtime does, sees the handler.)

#![allow(unsafe_code)] // the C ABI of signals

use core::ffi::{CStr, c_int, c_void};
use core::mem::transmute;
use core::ptr::{null, null_mut};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::faults;

/// C's `struct sigaction`.
pub type Action = libc::sigaction;

type SigAction = unsafe extern "C" fn(c_int, *const Action, *mut Action) -> c_int;
type Signal = unsafe extern "C" fn(c_int, usize) -> usize;

static REAL_SIGACTION: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// The exported `sigaction`.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub unsafe extern "C" fn sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    if !faults::is_armed(signal) {
        // SAFETY: forwards the program's own call.
        return unsafe { real_sigaction(signal, new, old) };
    }
    let ours = faults::action(signal);
    // SAFETY: null, or the program's action.
    let new = match unsafe { new.as_ref() } {
        Some(action) if action.sa_sigaction == libc::SIG_DFL => &raw const ours,
        _ => new,
    };
    // SAFETY: forwards the program's own call, with another action.
    let status = unsafe { real_sigaction(signal, new, old) };
    // SAFETY: null, or the program's place, which the call has filled.
    if let Some(old) = unsafe { old.as_mut() }
        && status == 0
        && faults::is_ours(old)
    {
        // SAFETY: all zeros is the default action as a process finds it.
        *old = unsafe { core::mem::zeroed() };
    }
    status
}

/// Defines functions that take a signal and a handler and answer the old handler.
macro_rules! handler_hooks {
    ($($name:ident, $real:ident, $c_name:literal;)*) => {$(
        static $real: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

        #[doc = concat!("The exported `", stringify!($name), "`.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        pub unsafe extern "C" fn $name(signal: c_int, handler: usize) -> usize {
            if faults::is_armed(signal) && handler == libc::SIG_DFL {
                return restore(signal);
            }
            let Some(real) = find(&$real, $c_name) else {
                return libc::SIG_ERR;
            };
            // SAFETY: the C function of this name; forwards the program's own call.
            let old = unsafe { transmute::<*mut c_void, Signal>(real)(signal, handler) };
            if faults::is_handler(old) { libc::SIG_DFL } else { old }
        }
    )*

        /// Finds every real function.
        pub fn look_up() {
            find(&REAL_SIGACTION, c"sigaction");
            $(find(&$real, $c_name);)*
        }
    };
}

handler_hooks! {
    signal, REAL_SIGNAL, c"signal";
    ssignal, REAL_SSIGNAL, c"ssignal";
    bsd_signal, REAL_BSD_SIGNAL, c"bsd_signal";
    sysv_signal, REAL_SYSV_SIGNAL, c"sysv_signal";
    __sysv_signal, REAL_SYSV_SIGNAL_2, c"__sysv_signal";
    sigset, REAL_SIGSET, c"sigset";
}

/// The program asks for the default: our handler again. Answers what it is told was there.
#[cold]
fn restore(signal: c_int) -> usize {
    // SAFETY: all zeros is an action.
    let mut old: Action = unsafe { core::mem::zeroed() };
    // SAFETY: valid actions.
    match unsafe { real_sigaction(signal, &faults::action(signal), &raw mut old) } {
        0 if faults::is_ours(&old) => libc::SIG_DFL,
        0 => old.sa_sigaction,
        _ => libc::SIG_ERR,
    }
}

/// Puts an action, or the kernel's default, in the place of one that passes a test.
pub fn exchange(signal: c_int, test: fn(&Action) -> bool, new: Option<&Action>) -> bool {
    // SAFETY: all zeros is the default action; the calls are given valid ones.
    unsafe {
        let default: Action = core::mem::zeroed();
        let mut found: Action = core::mem::zeroed();
        real_sigaction(signal, null(), &raw mut found) == 0
            && test(&found)
            && real_sigaction(signal, new.unwrap_or(&default), null_mut()) == 0
    }
}

unsafe fn real_sigaction(signal: c_int, new: *const Action, old: *mut Action) -> c_int {
    match find(&REAL_SIGACTION, c"sigaction") {
        // SAFETY: the C function of this name; the arguments are the caller's.
        Some(real) => unsafe { transmute::<*mut c_void, SigAction>(real)(signal, new, old) },
        None => -1,
    }
}

/// The next definition of a name after ours, looked up once: by [`look_up`], if nobody asks earlier.
fn find(place: &AtomicPtr<c_void>, name: &CStr) -> Option<*mut c_void> {
    let mut function = place.load(Ordering::Relaxed);
    if function.is_null() {
        // SAFETY: a valid name.
        function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        place.store(function, Ordering::Relaxed);
    }
    (!function.is_null()).then_some(function)
}
