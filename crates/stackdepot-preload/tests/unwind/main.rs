//! The unwinder against libunwind and against itself, on stacks of every shape.

#![allow(unsafe_code)] // calls C, captures registers

mod fuzz;
mod probe;
mod shapes;

use std::ffi::{CString, c_int, c_void};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::AtomicI64;

/// `struct tree` of `frames.c`.
#[repr(C)]
pub(crate) struct Tree {
    pub(crate) probe: unsafe extern "C" fn(*mut c_void),
    pub(crate) data: *mut c_void,
    pub(crate) seed: u64,
    pub(crate) probes_left: i64,
    pub(crate) depth_limit: i64,
}

/// The functions of `frames.c`.
pub(crate) struct Frames {
    pub(crate) run_tree: unsafe extern "C" fn(*mut Tree),
    pub(crate) run_coroutines: unsafe extern "C" fn(*mut Tree, *mut c_void, usize),
    pub(crate) run_in_handler: unsafe extern "C" fn(*mut Tree, c_int, c_int),
    pub(crate) stale_frames: unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void),
    pub(crate) spin_under_signals: unsafe extern "C" fn(*mut Tree, *const AtomicI64),
    pub(crate) plain_recursion:
        unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void, c_int) -> c_int,
}

/// `frames.c`, built once for this process.
pub(crate) fn frames() -> &'static Frames {
    static FRAMES: OnceLock<Frames> = OnceLock::new();
    FRAMES.get_or_init(|| {
        let path = build_frames("shared");
        let find = |name| probe::symbol(&path, name);
        // SAFETY: the types are those of the functions in frames.c.
        unsafe {
            Frames {
                run_tree: std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Tree)>(
                    find(c"run_tree"),
                ),
                run_coroutines: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut Tree, *mut c_void, usize),
                >(find(c"run_coroutines")),
                run_in_handler: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut Tree, c_int, c_int),
                >(find(c"run_in_handler")),
                stale_frames: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void),
                >(find(c"stale_frames")),
                spin_under_signals: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(*mut Tree, *const AtomicI64),
                >(find(c"spin_under_signals")),
                plain_recursion: std::mem::transmute::<
                    *mut c_void,
                    unsafe extern "C" fn(
                        unsafe extern "C" fn(*mut c_void),
                        *mut c_void,
                        c_int,
                    ) -> c_int,
                >(find(c"plain_recursion")),
            }
        }
    })
}

/// Builds `frames.c` as a shared library of its own.
pub(crate) fn build_frames(name: &str) -> CString {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/unwind/frames.c");
    let library = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("frames-{name}.so"));
    let status = Command::new("cc")
        .args(["-O2", "-fPIC", "-shared", "-w", "-o"])
        .arg(&library)
        .arg(&source)
        .status()
        .expect("the C compiler runs");
    assert!(status.success(), "{} does not compile", source.display());
    CString::new(library.as_os_str().as_encoded_bytes()).expect("no NUL")
}
