//! Takes a stack from the place of a call by our unwinder, with and without memo, and by
//! libunwind, and compares them.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, OnceLock, PoisonError};

use stackdepot_preload::unwind::{
    self, End, FRAME_LIMIT, Module, Registers, Sink, ThreadSlot, Walk,
};

type Backtrace = unsafe extern "C" fn(*mut *mut c_void, c_int) -> c_int;

pub static LOADED_COUNT: AtomicU64 = AtomicU64::new(0);
pub static UNLOADED_COUNT: AtomicU64 = AtomicU64::new(0);

static SINK: Sink = Sink {
    loaded: |module: &Module<'_>| {
        assert!(module.start < module.end);
        LOADED_COUNT.fetch_add(1, Ordering::Relaxed);
    },
    unloaded: |_start| {
        UNLOADED_COUNT.fetch_add(1, Ordering::Relaxed);
    },
};

/// Prepares the unwinder, once per process.
pub fn prepare() {
    static PREPARE: Once = Once::new();
    PREPARE.call_once(|| assert!(unwind::init(&SINK), "glibc has no _dl_find_object"));
    libunwind();
}

/// Keeps the other tests of this process away: closing a module truncates everybody's walks,
/// and signal actions are the process's.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a library and resolves a function in it.
pub fn symbol(library: &CStr, name: &CStr) -> *mut c_void {
    // SAFETY: valid strings; the handle is never closed.
    unsafe {
        let handle = libc::dlopen(library.as_ptr(), libc::RTLD_NOW);
        assert!(!handle.is_null(), "{library:?} does not load");
        let found = libc::dlsym(handle, name.as_ptr());
        assert!(!found.is_null(), "{library:?} has no {name:?}");
        found
    }
}

fn libunwind() -> Backtrace {
    static FOUND: OnceLock<usize> = OnceLock::new();
    let found = *FOUND.get_or_init(|| symbol(c"libunwind.so.8", c"unw_backtrace") as usize);
    // SAFETY: libunwind's function has this type.
    unsafe { std::mem::transmute::<usize, Backtrace>(found) }
}

/// What a series of probes found.
#[derive(Debug, Default)]
pub struct Tally {
    /// The thread's slot; without one no memo is used.
    pub thread: Option<ThreadSlot>,
    pub stacks: u64,
    pub frames: u64,
    pub reused: u64,
    pub truncated: u64,
    pub limit_reached: u64,
    pub deepest: usize,
    /// First difference from libunwind, if any.
    pub differences: u64,
    pub first_difference: Option<String>,
    /// First difference between the walk with the memo and the one without.
    pub memo_differences: u64,
    /// Stacks by the notes that their threads made about them.
    known: Vec<Vec<u64>>,
    /// How many stacks were known by a note.
    pub recognised: u64,
}

impl Tally {
    pub fn new() -> Tally {
        prepare();
        Tally {
            thread: unwind::thread_begin(),
            ..Tally::default()
        }
    }

    /// Every stack reached its outermost frame and agrees.
    pub fn assert_all_equal(&self, at_least: u64) {
        self.assert_agreement(at_least);
        assert_eq!(self.truncated, 0, "truncated: {self:?}");
    }

    /// Every stack agrees with libunwind's, as far as one can follow it.
    pub fn assert_agreement(&self, at_least: u64) {
        assert!(self.stacks >= at_least, "only {} stacks", self.stacks);
        assert_eq!(
            self.memo_differences, 0,
            "memo and full unwind differ: {self:?}"
        );
        let difference = self.first_difference.as_deref().unwrap_or("");
        assert_eq!(self.differences, 0, "libunwind differs: {difference}");
    }

    pub fn data(&mut self) -> *mut c_void {
        std::ptr::from_mut(self).cast()
    }

    fn take(&mut self, registers: Registers) {
        let mut with_memo = [0; FRAME_LIMIT];
        let mut without = [0; FRAME_LIMIT];
        let mut walk = unwind::capture(registers, self.thread, &mut with_memo);
        let full = unwind::capture(registers, None, &mut without);
        let ours = full.frames();
        self.stacks += 1;
        self.frames += ours.len() as u64;
        self.reused += walk.reused_count as u64;
        self.deepest = self.deepest.max(ours.len());
        let is_same = walk.frames() == ours && walk.end == full.end;
        self.memo_differences += u64::from(!is_same || full.reused_count != 0);
        self.check_note(&mut walk, ours);
        match full.end {
            End::Complete => {}
            End::LimitReached => self.limit_reached += 1,
            End::Truncated(_) => self.truncated += 1,
        }
        self.compare(full.end, ours);
    }

    /// A stack that has a note is the one that the note was made about.
    fn check_note(&mut self, walk: &mut Walk<'_>, ours: &[u64]) {
        match walk.note() {
            0 => {
                self.known.push(ours.to_vec());
                walk.set_note(self.known.len() as u64);
            }
            note => {
                assert_eq!(
                    self.known[note as usize - 1],
                    ours,
                    "known as another stack"
                );
                self.recognised += 1;
            }
        }
    }

    #[inline(never)]
    fn compare(&mut self, end: End, ours: &[u64]) {
        let mut theirs = [std::ptr::null_mut::<c_void>(); FRAME_LIMIT + 16];
        // SAFETY: the buffer has this many places.
        let count = unsafe { libunwind()(theirs.as_mut_ptr(), theirs.len() as c_int) };
        let theirs: Vec<u64> = theirs[..count.max(0) as usize]
            .iter()
            .map(|&ip| ip as u64)
            .collect();
        let start = theirs
            .iter()
            .take(8)
            .position(|ip| Some(ip) == ours.first());
        let theirs = start.map_or(&[][..], |start| &theirs[start..]);
        let is_equal = match end {
            End::Complete => theirs == ours,
            End::LimitReached => theirs.len() >= ours.len() && theirs[..ours.len()] == *ours,
            // As far as the shorter one goes.
            End::Truncated(_) => theirs.starts_with(ours) || ours.starts_with(theirs),
        };
        if !is_equal {
            self.differences += 1;
            self.first_difference.get_or_insert_with(|| {
                let hex = |ips: &[u64]| ips.iter().map(|ip| format!("{ip:x} ")).collect::<String>();
                format!("{:?}\nours:   {}\ntheirs: {}", end, hex(ours), hex(theirs))
            });
        }
    }
}

/// Takes the stack of its caller into the tally.
///
/// # Safety
///
/// `data` must be from [`Tally::data`] of a live tally of this thread.
#[unsafe(naked)]
pub unsafe extern "C" fn probe(data: *mut c_void) {
    std::arch::naked_asm!("mov rsi, rsp", "mov rdx, rbp", "jmp {}", sym probe_at)
}

unsafe extern "C" fn probe_at(data: *mut c_void, entry_sp: *const u64, bp: u64) {
    // SAFETY: `probe` passes its own stack pointer at entry.
    let registers = unsafe { Registers::at_entry(entry_sp, bp) };
    // SAFETY: by the caller of `probe`.
    let tally = unsafe { &mut *data.cast::<Tally>() };
    tally.take(registers);
}
