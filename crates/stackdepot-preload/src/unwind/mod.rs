//! The unwinder: the stack of the running thread, taken inside a malloc hook.
//!
//! [`capture`] allocates nothing, takes no lock, uses no thread-local storage, is bounded and
//! may interrupt itself in a signal handler. A step takes its rule from a cache shared by all
//! threads; a miss reads the module's call-frame information, found without the loader's lock.
//!
//! Files, lower to higher: `rule` (a step in one word), `cache` and `quick` (known rules), `stack` (safe reads),
//! `expression`, `elf`, `modules` (what is loaded), `table` (tables to rules), `known` (reports of
//! modules), `gate` (against `dlclose`), `step`, `paths`, `words` and `memo` (the last stack),
//! `recall` (a walk with it), `threads` (what a thread remembers), then this file.

use core::sync::atomic::{AtomicBool, Ordering};

pub mod cache;
mod elf;
mod expression;
pub mod gate;
pub mod known;
mod memo;
mod modules;
pub mod paths;
mod quick;
mod recall;
pub mod rule;
pub mod stack;
mod step;
mod table;
pub mod threads;
mod words;

pub use known::{Module, Sink};
pub use step::Registers;
pub use threads::{ThreadSlot, begin as thread_begin, end as thread_end};

use memo::Memo;
use paths::Path;
use recall::{Recalled, recall};
use stack::{StackRange, StackReader};
use step::{Frame, Stepper};
use threads::Entered;

/// Frames per stack unless configured otherwise.
pub const FRAME_LIMIT: usize = 256;

/// Why a walk stopped before the outermost frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Truncation {
    /// Code without tables whose frame pointer is none (JIT code, hand-written assembly).
    NoTable,
    /// Tables that use what we do not know.
    Unsupported,
    /// The rule led to memory that cannot be a stack.
    BadStack,
    /// A rule was missing while another thread was in `dlclose`.
    Closing,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the outermost frame.
    Complete,
    /// At the end of the buffer; there are more frames.
    LimitReached,
    /// Before the outermost frame.
    Truncated(Truncation),
}

/// What [`capture`] found. While it lives its thread's memory is in use: a signal handler that
/// interrupts it unwinds without.
#[derive(Debug)]
pub struct Walk<'b> {
    entered: Option<Entered>,
    /// The frames, where the memo does not have them.
    unwound: Option<&'b [u64]>,
    /// Most frames that were asked for.
    room: usize,
    /// How the walk ended.
    pub end: End,
    /// Frames that were not unwound, because the thread's memo had them.
    pub reused_count: usize,
    path: Path,
    note: u64,
}

impl Walk<'_> {
    /// Return addresses as they lie on the stack, innermost frame first.
    #[inline]
    pub fn frames(&self) -> &[u64] {
        if let Some(frames) = self.unwound {
            return frames;
        }
        let entered = self.entered.as_ref();
        let memo = entered.and_then(|entered| entered.memo.as_deref());
        let frames = memo.map_or(&[][..], Memo::frames);
        frames.get(..self.room).unwrap_or(frames)
    }

    /// What the thread's owner noted about this very stack; 0 for nothing.
    #[inline]
    pub fn note(&self) -> u64 {
        self.note
    }

    /// A number that no other thread has while this walk lives.
    #[inline]
    pub fn thread_number(&self) -> Option<usize> {
        self.entered.as_ref()?.memory.number()
    }

    /// Notes something about this stack, to be found when the thread has it again.
    #[inline]
    pub fn set_note(&mut self, note: u64) {
        if let Some(Entered {
            paths: Some(paths), ..
        }) = &mut self.entered
        {
            paths.set_note(self.path, note);
            self.note = note;
        }
    }
}

static IS_READY: AtomicBool = AtomicBool::new(false);

/// Prepares the unwinder; to be called once, before the first [`capture`]. `false`: this
/// glibc is older than 2.35 and cannot be unwound.
#[allow(unsafe_code)] // looks up a loader variable
pub fn init(sink: &'static Sink) -> bool {
    known::set_sink(sink);
    threads::init();
    // SAFETY: dlsym with a valid name.
    let stack_end = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"__libc_stack_end".as_ptr()) };
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call writes the struct it is given.
    let status = unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    if !stack_end.is_null() && status == 0 {
        // SAFETY: `__libc_stack_end` is a pointer variable of ld.so, set before any code ran.
        let stack_end = unsafe { *stack_end.cast::<u64>() };
        stack::init(stack_end, limit.rlim_cur);
    }
    let is_ready = modules::init();
    IS_READY.store(is_ready, Ordering::Relaxed);
    is_ready
}

impl Registers {
    /// The registers at the entry of a function: `entry_sp` is the stack pointer there, which
    /// points at the return address, `bp` the frame pointer register, not yet changed.
    ///
    /// # Safety
    ///
    /// `entry_sp` must be the stack pointer that this thread had at a function's entry, and
    /// the function must not have returned.
    #[inline]
    #[allow(unsafe_code)] // reads the return address
    pub unsafe fn at_entry(entry_sp: *const u64, bp: u64) -> Registers {
        // SAFETY: by the caller, the word is the return address of a live call.
        let ip = unsafe { core::ptr::read_volatile(entry_sp) };
        Registers {
            ip,
            sp: entry_sp as u64 + 8,
            bp,
        }
    }
}

/// In the child of a fork, before its first [`capture`]: other threads are gone, and every
/// module is reported again, for the child's own region. `kept` is the slot of the thread
/// that forked.
pub fn fork_child(kept: Option<ThreadSlot>) {
    gate::reset_in_child();
    threads::keep_only(kept);
    known::forget_all();
    gate::raise_epoch();
}

/// Takes the stack that starts at `registers` (the hook's caller), as many frames of it as `out` has
/// room for.
///
/// Wait-free: at most so many steps and looks, no lock, no allocation. Registers may be garbage: then
/// the walk ends early. `thread` is the calling thread's own slot.
#[inline(always)]
pub fn capture(registers: Registers, thread: Option<ThreadSlot>, out: &mut [u64]) -> Walk<'_> {
    let epoch = gate::epoch();
    let main = StackRange::of_main(registers.sp);
    let Some(mut entered) = thread.and_then(threads::enter) else {
        return unwind(
            main.unwrap_or(StackRange::EMPTY),
            registers,
            epoch,
            out,
            None,
        );
    };
    let known = main.unwrap_or_else(|| entered.memory.known_range(registers.sp));
    let mut stepper = Stepper::new(StackReader::new(known), epoch);
    let recalled = match entered.memo.as_deref_mut() {
        Some(memo) => {
            let Registers { ip, sp, bp } = registers;
            recall(memo, &mut stepper, ip, sp, bp, out.len())
        }
        None => None,
    };
    let Some(Recalled { end, reused_count }) = recalled else {
        return unwind(known, registers, epoch, out, Some(entered));
    };
    entered.memory.keep_range(known, stepper.stack.range());
    let (path, note) = match (&mut entered.memo, &mut entered.paths) {
        (Some(memo), Some(paths)) if end != End::LimitReached => {
            paths.enter_epoch(epoch);
            let path = memo.path(paths);
            (path, paths.note(path))
        }
        _ => (Path::NONE, 0),
    };
    Walk {
        entered: Some(entered),
        unwound: None,
        room: out.len(),
        end,
        reused_count,
        path,
        note,
    }
}

/// Walks until the end, the limit, or a frame that cannot be left, without a memo.
#[inline(never)]
fn unwind(
    known: StackRange,
    registers: Registers,
    epoch: u32,
    out: &mut [u64],
    mut entered: Option<Entered>,
) -> Walk<'_> {
    if let Some(memo) = entered.as_mut().and_then(|entered| entered.memo.as_mut()) {
        memo.clear();
    }
    let mut stepper = Stepper::new(StackReader::new(known), epoch);
    let mut frame = Frame {
        registers,
        bp_at: 0,
        cfa_at: 0,
    };
    let mut frame_count = 0;
    let end = loop {
        let Some(place) = out.get_mut(frame_count) else {
            break End::LimitReached;
        };
        *place = frame.registers.ip;
        frame_count += 1;
        if let Some(end) = stepper.step(&mut frame).end() {
            break end;
        }
    };
    if let Some(entered) = entered.as_mut().filter(|_| stepper.is_straight()) {
        entered.memory.keep_range(known, stepper.stack.range());
    }
    Walk {
        entered,
        room: out.len(),
        unwound: out.get(..frame_count),
        end,
        reused_count: 0,
        path: Path::NONE,
        note: 0,
    }
}

/// Drops all notes of a thread: what they are about is gone.
pub fn forget_notes(thread: ThreadSlot) {
    if let Some(mut entered) = threads::enter(thread)
        && let Some(paths) = entered.paths.as_deref_mut()
    {
        paths.clear();
    }
}
