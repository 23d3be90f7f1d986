//! The naked entry that every hook has: it puts the caller's registers where the unwinder starts.
//!
//! Without it the caller's frame pointer would depend on how this crate was compiled. The entry
//! pushes it, so that `[rbp]` is the caller's rbp, `[rbp + 8]` the return address and `rbp + 16`
//! the caller's stack pointer (`thread::Frame`), and hands that place to the hook's body as one more
//! argument. Its call-frame information lets C++ exceptions, debuggers and unwinders pass.

/// Defines the exported symbol `$name`, which calls `$body` with a `*const Frame` in `$register`.
/// `$ahead`, instructions with their operands, may leave for the real function before that; they
/// write no register but rax, rcx and rdx.
macro_rules! entry {
    ($name:ident, $register:literal, $body:path) => {
        entry!($name, $register, $body, [], []);
    };
    ($name:ident, $register:literal, $body:path, [$($ahead:literal,)*], [$($operands:tt)*]) => {
        #[doc = concat!("The exported `", stringify!($name), "`.")]
        #[cfg_attr(not(test), unsafe(no_mangle))]
        #[unsafe(naked)]
        pub unsafe extern "C-unwind" fn $name() {
            core::arch::naked_asm!(
                ".cfi_startproc",
                $($ahead,)*
                "push rbp",
                ".cfi_def_cfa_offset 16",
                ".cfi_offset rbp, -16",
                "mov rbp, rsp",
                ".cfi_def_cfa_register rbp",
                concat!("mov ", $register, ", rbp"),
                // Hand-written code calls functions of C with any stack pointer, and they bear it.
                "and rsp, -16",
                "call {body}",
                "leave",
                ".cfi_def_cfa rsp, 8",
                "ret",
                ".cfi_endproc",
                body = sym $body,
                $($operands)*
            )
        }
    };
}

pub(crate) use entry;
