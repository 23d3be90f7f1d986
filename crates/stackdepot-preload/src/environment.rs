//! What `stackdepot run` hands over in the environment, read from the stack that the kernel made.
//!
//! The first event may come before the C library has set up `environ`, so the strings are read
//! where the loader found them: `__libc_stack_end` points at `argc`, the arguments and the
//! environment. Read once, at the first event of the program image; forked children inherit it.
#![allow(unsafe_code)] // reads the initial stack

use core::cell::UnsafeCell;
use core::ffi::{CStr, c_char};

unsafe extern "C" {
    /// The initial stack pointer, from the loader.
    static __libc_stack_end: *const usize;
}

/// Longest path of a region file.
const PATH_BYTES: usize = 4096;
/// More arguments or variables than this are not looked at.
const WORD_LIMIT: usize = 1 << 20;

/// The orders of `stackdepot run`.
pub struct Orders {
    path: [u8; PATH_BYTES],
    path_length: usize,
    /// Bytes of all region files of the run together.
    pub total_bytes: usize,
    /// On average one block in so many bytes is recorded; 0: every block.
    pub sample_bytes: u64,
    /// Every how many events a second stack is taken by libunwind; 0: never.
    pub check_interval: u32,
}

struct Cell(UnsafeCell<Orders>);

// SAFETY: written by the one thread that starts the process's recording, read after that.
unsafe impl Sync for Cell {}

static ORDERS: Cell = Cell(UnsafeCell::new(Orders {
    path: [0; PATH_BYTES],
    path_length: 0,
    total_bytes: 0,
    sample_bytes: 0,
    check_interval: 0,
}));

impl Orders {
    /// Path of the run's first region file; `None`: nothing is to be recorded.
    pub fn path(&self) -> Option<&CStr> {
        let bytes = self.path.get(..self.path_length + 1)?;
        let path = CStr::from_bytes_with_nul(bytes).ok()?;
        (!path.is_empty() && self.total_bytes > 0).then_some(path)
    }
}

/// Reads the environment.
///
/// # Safety
///
/// Only one thread at a time, and nobody holds the answer of an earlier call.
pub unsafe fn read() -> &'static Orders {
    // SAFETY: the caller is alone.
    let orders = unsafe { &mut *ORDERS.0.get() };
    for_each_variable(|name, value| match name {
        b"STACKDEPOT_RUN" if value.len() < PATH_BYTES => {
            if let Some(place) = orders.path.get_mut(..value.len()) {
                place.copy_from_slice(value);
                orders.path_length = value.len();
            }
        }
        b"STACKDEPOT_BYTES" => orders.total_bytes = number(value).unwrap_or(0),
        b"STACKDEPOT_SAMPLE" => orders.sample_bytes = number(value).unwrap_or(0) as u64,
        b"STACKDEPOT_CHECK" => orders.check_interval = number(value).unwrap_or(0) as u32,
        _ => {}
    });
    orders
}

/// What an earlier [`read`] of this program image found.
///
/// # Safety
///
/// After `read`, and never at the same time as it.
pub unsafe fn known() -> &'static Orders {
    // SAFETY: the caller says that nobody writes.
    unsafe { &*ORDERS.0.get() }
}

/// Whether check mode is asked for.
pub fn wants_check() -> bool {
    let mut is_set = false;
    for_each_variable(|name, _| is_set |= name == b"STACKDEPOT_CHECK");
    is_set
}

fn for_each_variable(mut found: impl FnMut(&[u8], &[u8])) {
    let variables = variables();
    for index in 0..WORD_LIMIT {
        // SAFETY: the list ends with a null pointer, and we stop there.
        let text = unsafe {
            let text = *variables.add(index);
            if text.is_null() {
                return;
            }
            CStr::from_ptr(text).to_bytes()
        };
        let mut halves = text.splitn(2, |byte| *byte == b'=');
        if let (Some(name), Some(value)) = (halves.next(), halves.next()) {
            found(name, value);
        }
    }
}

/// The list of variables behind the arguments.
fn variables() -> *const *const c_char {
    // SAFETY: the System V ABI: argc, argc pointers, a null, the variables, a null.
    unsafe {
        let count = (*__libc_stack_end).min(WORD_LIMIT);
        __libc_stack_end.add(1 + count + 1).cast::<*const c_char>()
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    core::str::from_utf8(digits).ok()?.parse().ok()
}
