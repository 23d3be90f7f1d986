//! The real allocator: every symbol that a hook forwards to, found in one step before first use.
//!
//! [`real`] is the table; it is filled once by `dlsym(RTLD_NEXT)`. While that runs, `dlsym` itself
//! may allocate: the hooks then see no table and serve from `arena`. Symbols that the program
//! does not have stay null; the hook that needs one falls back to `malloc` and `free`.
#![allow(unsafe_code)] // looks up and types foreign functions

use core::ffi::{CStr, c_int, c_void};
use core::mem::{MaybeUninit, offset_of, transmute};
use core::sync::atomic::{AtomicU32, Ordering};

use crate::{hooks_seccomp, hooks_signals, lifecycle};

type Malloc = unsafe extern "C" fn(usize) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);
type Calloc = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type Realloc = unsafe extern "C" fn(*mut c_void, usize) -> *mut c_void;
type Memalign = unsafe extern "C" fn(usize, usize) -> *mut c_void;
type PosixMemalign = unsafe extern "C" fn(*mut *mut c_void, usize, usize) -> c_int;
type New = unsafe extern "C-unwind" fn(usize) -> *mut c_void;
type NewTag = unsafe extern "C-unwind" fn(usize, *const c_void) -> *mut c_void;
type NewAlign = unsafe extern "C-unwind" fn(usize, usize) -> *mut c_void;
type NewAlignTag = unsafe extern "C-unwind" fn(usize, usize, *const c_void) -> *mut c_void;
type Delete = unsafe extern "C-unwind" fn(*mut c_void);
type DeleteWord = unsafe extern "C-unwind" fn(*mut c_void, usize);
type DeleteWords = unsafe extern "C-unwind" fn(*mut c_void, usize, usize);
type Mallocx = unsafe extern "C" fn(usize, c_int) -> *mut c_void;
type Rallocx = unsafe extern "C" fn(*mut c_void, usize, c_int) -> *mut c_void;
type Dallocx = unsafe extern "C" fn(*mut c_void, c_int);
type Sdallocx = unsafe extern "C" fn(*mut c_void, usize, c_int);
type Dlclose = unsafe extern "C-unwind" fn(*mut c_void) -> c_int;

macro_rules! table {
    (required { $($must:ident: $must_type:ty = $must_name:literal,)* }
     optional { $($may:ident: $may_type:ty = $may_name:literal,)* }
     operators { $($operator:ident: $operator_type:ty = $operator_name:literal,)* }) => {
        /// The real functions. The required ones are in every glibc; the others may be absent.
        pub struct Real {
            $(#[doc = $must_name] pub $must: $must_type,)*
            $(#[doc = $may_name] pub $may: Option<$may_type>,)*
            $(#[doc = $operator_name] pub $operator: Option<$operator_type>,)*
            operators: [Code; OPERATOR_COUNT],
        }

        const OPERATOR_COUNT: usize = [$($operator_name),*].len();

        fn look_up() -> Option<Real> {
            Some(Real {
                $($must: {
                    let symbol = next(cstr($must_name))?;
                    // SAFETY: the symbol is the C function of this name, whose type is fixed by its standard.
                    unsafe { transmute::<*mut c_void, $must_type>(symbol) }
                },)*
                $($may: {
                    next(cstr($may_name)).map(|symbol| {
                        // SAFETY: as above.
                        unsafe { transmute::<*mut c_void, $may_type>(symbol) }
                    })
                },)*
                $($operator: {
                    next(cstr($operator_name)).map(|symbol| {
                        // SAFETY: as above.
                        unsafe { transmute::<*mut c_void, $operator_type>(symbol) }
                    })
                },)*
                operators: [$($operator_name),*].map(|name| {
                    next(cstr(name)).map_or(Code { start: 0, bytes: 0 }, code_of)
                }),
            })
        }
    };
}

table! {
    required {
        malloc: Malloc = "malloc\0",
        free: Free = "free\0",
        calloc: Calloc = "calloc\0",
        realloc: Realloc = "realloc\0",
        memalign: Memalign = "memalign\0",
        aligned_alloc: Memalign = "aligned_alloc\0",
        posix_memalign: PosixMemalign = "posix_memalign\0",
    }
    optional {
        valloc: Malloc = "valloc\0",
        pvalloc: Malloc = "pvalloc\0",
        free_sized: unsafe extern "C" fn(*mut c_void, usize) = "free_sized\0",
        free_aligned_sized: unsafe extern "C" fn(*mut c_void, usize, usize) = "free_aligned_sized\0",
        dlclose: Dlclose = "dlclose\0",
        mallocx: Mallocx = "mallocx\0",
        rallocx: Rallocx = "rallocx\0",
        dallocx: Dallocx = "dallocx\0",
        sdallocx: Sdallocx = "sdallocx\0",
    }
    operators {
        new: New = "_Znwm\0",
        new_array: New = "_Znam\0",
        new_nothrow: NewTag = "_ZnwmRKSt9nothrow_t\0",
        new_array_nothrow: NewTag = "_ZnamRKSt9nothrow_t\0",
        new_aligned: NewAlign = "_ZnwmSt11align_val_t\0",
        new_array_aligned: NewAlign = "_ZnamSt11align_val_t\0",
        new_aligned_nothrow: NewAlignTag = "_ZnwmSt11align_val_tRKSt9nothrow_t\0",
        new_array_aligned_nothrow: NewAlignTag = "_ZnamSt11align_val_tRKSt9nothrow_t\0",
        delete: Delete = "_ZdlPv\0",
        delete_array: Delete = "_ZdaPv\0",
        delete_nothrow: DeleteWord = "_ZdlPvRKSt9nothrow_t\0",
        delete_array_nothrow: DeleteWord = "_ZdaPvRKSt9nothrow_t\0",
        delete_sized: DeleteWord = "_ZdlPvm\0",
        delete_array_sized: DeleteWord = "_ZdaPvm\0",
        delete_aligned: DeleteWord = "_ZdlPvSt11align_val_t\0",
        delete_array_aligned: DeleteWord = "_ZdaPvSt11align_val_t\0",
        delete_aligned_nothrow: DeleteWords = "_ZdlPvSt11align_val_tRKSt9nothrow_t\0",
        delete_array_aligned_nothrow: DeleteWords = "_ZdaPvSt11align_val_tRKSt9nothrow_t\0",
        delete_sized_aligned: DeleteWords = "_ZdlPvmSt11align_val_t\0",
        delete_array_sized_aligned: DeleteWords = "_ZdaPvmSt11align_val_t\0",
    }
}

/// Where the real `malloc` stands in [`TABLE`].
pub const MALLOC_AT: usize = offset_of!(Real, malloc);
/// Where the real `free` stands in [`TABLE`].
pub const FREE_AT: usize = offset_of!(Real, free);

/// Addresses of the code of one real `operator new` or `delete`.
#[derive(Clone, Copy)]
struct Code {
    start: usize,
    bytes: usize,
}

impl Real {
    /// Whether an address lies in a real `operator new` or `delete`, which call `malloc` and `free`.
    pub fn is_in_operator(&self, address: usize) -> bool {
        self.operators
            .iter()
            .any(|code| address.wrapping_sub(code.start) < code.bytes)
    }
}

/// Where a function's code lies, as far as its library's symbols tell.
fn code_of(function: *mut c_void) -> Code {
    // SAFETY: all zeros is valid for both; the call fills them or fails.
    unsafe {
        let mut info: libc::Dl_info = core::mem::zeroed();
        let mut symbol: *mut c_void = core::ptr::null_mut();
        let found = dladdr1(function, &raw mut info, &raw mut symbol, RTLD_DL_SYMENT);
        let symbol = symbol.cast::<libc::Elf64_Sym>();
        if found == 0 || symbol.is_null() || info.dli_saddr != function {
            return Code { start: 0, bytes: 0 };
        }
        Code {
            start: function as usize,
            bytes: (*symbol).st_size as usize,
        }
    }
}

/// Whether an address lies in this library.
pub fn is_own_code(address: usize) -> bool {
    let start = (&raw const __ehdr_start) as usize;
    address.wrapping_sub(start) < ((&raw const _etext) as usize).wrapping_sub(start)
}

const RTLD_DL_SYMENT: c_int = 1;

unsafe extern "C" {
    /// The library's first byte and the end of its code, from the linker.
    static __ehdr_start: u8;
    static _etext: u8;
    fn dladdr1(
        address: *const c_void,
        info: *mut libc::Dl_info,
        extra: *mut *mut c_void,
        flags: c_int,
    ) -> c_int;
}

const UNKNOWN: u32 = 0;
const LOOKING: u32 = 1;
const KNOWN: u32 = 2;

/// The real functions from the moment on when they are known.
#[repr(transparent)]
pub struct Table(core::cell::UnsafeCell<MaybeUninit<Real>>);

// SAFETY: written once by whoever moved PROGRESS from UNKNOWN to LOOKING, read only after KNOWN.
unsafe impl Sync for Table {}

/// The one there is.
pub static TABLE: Table = Table(core::cell::UnsafeCell::new(MaybeUninit::uninit()));
static PROGRESS: AtomicU32 = AtomicU32::new(UNKNOWN);

/// The real functions; `None` while they are being looked up: serve from the arena then.
#[inline]
pub fn real() -> Option<&'static Real> {
    // ORDERING: Acquire, partner: the Release of KNOWN in `find`; carries the table's contents.
    if PROGRESS.load(Ordering::Acquire) != KNOWN {
        return find();
    }
    // SAFETY: KNOWN says that the table was written, and nobody writes it again.
    Some(unsafe { (*TABLE.0.get()).assume_init_ref() })
}

#[cold]
fn find() -> Option<&'static Real> {
    // ORDERING: Relaxed: only decides who looks up; the table is published by the store below.
    let claim = PROGRESS.compare_exchange(UNKNOWN, LOOKING, Ordering::Relaxed, Ordering::Relaxed);
    if claim.is_err() {
        return None;
    }
    let table = look_up()?;
    // Now, too: later another thread may hold the loader's lock, and wait for the one that asks.
    hooks_signals::look_up();
    hooks_seccomp::look_up_all();
    lifecycle::look_up();
    // The program must not find our misses in dlerror(): a look-up that succeeds forgets them.
    // dlerror() itself would translate its message, and a program's first malloc may come from
    // inside setlocale(), whose lock the translation takes.
    next(c"free");
    // SAFETY: only the one that moved PROGRESS to LOOKING gets here.
    let real = unsafe { (*TABLE.0.get()).write(table) };
    // ORDERING: Release, partner: the Acquire in `real`.
    PROGRESS.store(KNOWN, Ordering::Release);
    Some(real)
}

/// The next definition of a name after this library's own, in the order of the loader.
fn next(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a valid C string.
    let symbol = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    (!symbol.is_null()).then_some(symbol)
}

/// The names above end in a NUL each.
fn cstr(name: &'static str) -> &'static CStr {
    CStr::from_bytes_with_nul(name.as_bytes()).unwrap_or_default()
}
