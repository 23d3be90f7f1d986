//! `prctl` and `syscall`, watched for one thing: the entry into seccomp.
//!
//! A forked child that has no region file yet makes one at its first event; under a filter that
//! could kill it. So it is told beforehand, and stays unrecorded. Both functions are otherwise
//! passed on untouched: a jump, with every register and stack argument as it came.

#![allow(unsafe_code)] // a jump in front of C functions

use core::arch::naked_asm;
use core::ffi::c_void;
use core::sync::atomic::{AtomicPtr, Ordering};

use crate::process;

static REAL_PRCTL: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());
static REAL_SYSCALL: AtomicPtr<c_void> = AtomicPtr::new(core::ptr::null_mut());

/// Watches for `$test`, which jumps to 3 when seccomp is meant, then goes on to the real function.
macro_rules! watched {
    ($name:ident, $real:ident, $find:ident, $c_name:literal, [$($test:literal),*]) => {
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
                "call {save_and_refuse}",
                "jmp 2b",
                "4:",
                "call {save_and_find}",
                "jmp 2b",
                real = sym $real,
                save_and_refuse = sym save_and_refuse,
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

watched!(prctl, REAL_PRCTL, find_prctl, c"prctl", ["cmp edi, 22", "je 3f"]);
watched!(syscall, REAL_SYSCALL, find_syscall, c"syscall", [
    "cmp rdi, 317",
    "je 3f",
    "cmp rdi, 157",
    "jne 2f",
    "cmp esi, 22",
    "je 3f"
]);

const _: () = assert!(libc::PR_SET_SECCOMP == 22);
const _: () = assert!(libc::SYS_seccomp == 317 && libc::SYS_prctl == 157);

#[unsafe(naked)]
unsafe extern "C" fn save_and_refuse() {
    with_registers_kept!(refuse)
}

extern "C" fn refuse() {
    process::enter_confinement();
}

fn look_up(place: &AtomicPtr<c_void>, name: &core::ffi::CStr) {
    // SAFETY: a valid name.
    let function = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    let function = if function.is_null() { absent as *mut c_void } else { function };
    place.store(function, Ordering::Relaxed);
}

/// Stands in for a function that the C library does not have.
extern "C" fn absent() -> isize {
    // SAFETY: the C library always has a valid errno for the calling thread.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}
