//! `prctl` and `syscall`, watched for one thing: the process gives up what recording needs.
//!
//! A forked child that has no region file yet makes one at its first event; under a seccomp filter
//! that could kill it. So it is told beforehand, and stays unrecorded. The strict mode also forbids
//! the time stamp counter, as `PR_SET_TSC` does: then a running recording stops. Both functions are
//! otherwise passed on untouched: a jump, with every register and stack argument as it came.

#![allow(unsafe_code)] // a jump in front of C functions

use core::arch::naked_asm;
use core::ffi::{c_int, c_void};
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::process;

static REAL_PRCTL: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static REAL_SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Calls `$notice` with the arguments when a `$test` jumps to 3, then goes on to the real function.
macro_rules! watched {
    ($name:ident, $real:ident, $find:ident, $c_name:literal, $notice:ident, [$($test:literal),*]) => {
        #[doc = concat!("The exported `", stringify!($name), "`.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C" fn $name() {
            naked_asm!(
                $($test,)*
                "2:",
                "mov rax, qword ptr [rip + {real}]",
                "test rax, rax",
                "jz 4f",
                "jmp rax",
                "3:",
                "call {save_and_notice}",
                "jmp 2b",
                "4:",
                "call {save_and_find}",
                "jmp 2b",
                real = sym $real,
                save_and_notice = sym $notice,
                save_and_find = sym $find,
            )
        }

        /// Finds the real function, keeping the argument registers.
        #[unsafe(naked)]
        unsafe extern "C" fn $find() {
            extern "C" fn find() {
                look_up(&$real, $c_name);
            }
            with_registers_kept!(find)
        }
    };
}

/// The body of a naked function that calls `$function` and keeps the six argument registers.
macro_rules! with_registers_kept {
    ($function:path) => {
        naked_asm!(
            "push rdi",
            "push rsi",
            "push rdx",
            "push rcx",
            "push r8",
            "push r9",
            // Entered by a call from an entry that itself was called: 8 + 8 + 48 bytes, aligned.
            "call {function}",
            "pop r9",
            "pop r8",
            "pop rcx",
            "pop rdx",
            "pop rsi",
            "pop rdi",
            "ret",
            function = sym $function,
        )
    };
}

watched!(
    prctl,
    REAL_PRCTL,
    find_prctl,
    c"prctl",
    save_and_notice_prctl,
    ["cmp edi, 22", "je 3f", "cmp edi, 26", "je 3f"]
);
watched!(
    syscall,
    REAL_SYSCALL,
    find_syscall,
    c"syscall",
    save_and_notice_syscall,
    ["cmp rdi, 317", "je 3f", "cmp rdi, 157", "je 3f"]
);

const _: () = assert!(libc::PR_SET_SECCOMP == 22 && libc::PR_SET_TSC == 26);
const _: () = assert!(libc::SYS_seccomp == 317 && libc::SYS_prctl == 157);

#[unsafe(naked)]
unsafe extern "C" fn save_and_notice_prctl() {
    with_registers_kept!(notice_prctl)
}

#[unsafe(naked)]
unsafe extern "C" fn save_and_notice_syscall() {
    with_registers_kept!(notice_syscall)
}

extern "C" fn notice_prctl(option: c_int, argument: usize) {
    let no_counter = libc::PR_TSC_SIGSEGV as usize;
    let strict = libc::SECCOMP_MODE_STRICT as usize;
    match option {
        libc::PR_SET_SECCOMP if argument == strict => process::stop(),
        libc::PR_SET_SECCOMP => process::enter_confinement(),
        libc::PR_SET_TSC if argument == no_counter => process::stop(),
        _ => {}
    }
}

extern "C" fn notice_syscall(number: libc::c_long, first: usize, second: usize) {
    let strict = libc::SECCOMP_SET_MODE_STRICT as usize;
    let filter = libc::SECCOMP_SET_MODE_FILTER as usize;
    match number {
        libc::SYS_prctl => notice_prctl(first as c_int, second),
        libc::SYS_seccomp if first == strict => process::stop(),
        libc::SYS_seccomp if first == filter => process::enter_confinement(),
        _ => {}
    }
}

/// Finds both real functions.
pub fn look_up_all() {
    look_up(&REAL_PRCTL, c"prctl");
    look_up(&REAL_SYSCALL, c"syscall");
}

fn look_up(place: &AtomicPtr<c_void>, name: &core::ffi::CStr) {
    // SAFETY: a valid name.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    let function = if function.is_null() {
        absent as *mut c_void
    } else {
        function
    };
    place.store(function, Ordering::Relaxed);
}

/// Stands in for a function that the C library does not have.
extern "C" fn absent() -> isize {
    // SAFETY: the C library always has a valid errno for the calling thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}
