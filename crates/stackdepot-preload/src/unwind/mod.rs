//! The unwinder: the stack of the running thread, taken inside a malloc hook.
//!
//! [`capture`] allocates nothing, takes no lock, uses no thread-local storage, is bounded and
//! may interrupt itself in a signal handler. A step takes its rule from a cache shared by all
//! threads; a miss reads the module's call-frame information, found without the loader's lock.
//!
//! Files, lower to higher: `rule` (a step in one word), `cache`, `stack` (safe reads),
//! `expression`, `elf`, `modules` (what is loaded), `table` (tables to rules), `known` (reports of
//! modules), `gate` (against `dlclose`), `step`, `paths`, `chain` and `memo` (the
//! last stack), `threads` (what a thread remembers), then this file.

use core::sync::atomic::{AtomicBool, Ordering};

pub mod cache;
mod chain;
mod elf;
mod expression;
pub mod gate;
pub mod known;
mod memo;
mod modules;
pub mod paths;
pub mod rule;
pub mod stack;
mod step;
mod table;
pub mod threads;

pub use known::{Module, Sink};
pub use stack::forget_all as forget_stacks;
pub use step::Registers;
pub use threads::{ThreadSlot, begin as thread_begin, end as thread_end};

use memo::{Finished, Followed, Recall};
use paths::Path;
use stack::{StackRange, StackReader};
use step::{Frame, Step, Stepper};

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

/// What [`capture`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// Frames written, innermost first.
    pub frame_count: usize,
    /// How the walk ended.
    pub end: End,
    /// Frames copied from the thread's memo instead of unwound.
    pub reused_count: usize,
    /// Outer frames that are the same as in the last recorded stack of this thread.
    pub shared_suffix_count: usize,
    /// Whether this stack is now the thread's last recorded one.
    pub is_recorded: bool,
    /// What the thread knows this very stack by.
    pub path: Path,
}

static IS_READY: AtomicBool = AtomicBool::new(false);

/// Prepares the unwinder; to be called once, before the first [`capture`]. `false`: this
/// glibc is older than 2.35 and cannot be unwound.
#[allow(unsafe_code)] // looks up a loader variable
pub fn init(sink: &'static Sink) -> bool {
    known::set_sink(sink);
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

/// Takes the stack that starts at `registers` (the hook's caller) into `out`, innermost
/// frame first; values are return addresses as they lie on the stack.
///
/// Wait-free: at most `out.len()` steps and copies, no lock, no allocation. Registers may be
/// garbage: then the walk ends early. `thread` is the calling thread's own slot.
pub fn capture(registers: Registers, thread: Option<ThreadSlot>, out: &mut [u64]) -> Walk {
    let epoch = gate::epoch();
    let Some(mut entered) = thread.and_then(threads::enter) else {
        let main = StackRange::of_main(registers.sp).unwrap_or(StackRange::EMPTY);
        return Walker::new(StackReader::new(main), registers, epoch).walk(out);
    };
    let main = StackRange::of_main(registers.sp);
    let known = main.unwrap_or_else(|| entered.memory.known_range(registers.sp));
    let mut walker = Walker::new(StackReader::new(known), registers, epoch);
    let paths = entered.paths.as_deref_mut();
    let walk = match entered.memo.as_deref_mut() {
        Some(memo) => walker.walk_with(&mut Recall::new(memo, paths, epoch), registers, out),
        None => walker.walk(out),
    };
    if walker.stepper.is_straight() {
        entered
            .memory
            .keep_range(known, walker.stepper.stack.range());
    }
    walk
}

/// What the thread's owner noted about a stack; 0 for nothing.
#[inline]
pub fn note_of(thread: Option<ThreadSlot>, path: Path) -> u64 {
    let entered = thread.and_then(threads::enter);
    entered.map_or(0, |mut entered| match entered.paths.as_deref_mut() {
        Some(paths) => paths.note(path),
        None => 0,
    })
}

/// Notes something about a stack, to be found when this thread has it again.
#[inline]
pub fn set_note(thread: Option<ThreadSlot>, path: Path, note: u64) {
    if let Some(mut entered) = thread.and_then(threads::enter)
        && let Some(paths) = entered.paths.as_deref_mut()
    {
        paths.set_note(path, note);
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

/// A walk under way.
struct Walker {
    stepper: Stepper,
    frame: Frame,
    epoch: u32,
    frame_count: usize,
    reused_count: usize,
}

impl Walker {
    #[inline]
    fn new(stack: StackReader, registers: Registers, epoch: u32) -> Walker {
        Walker {
            stepper: Stepper::new(stack, epoch),
            frame: Frame {
                registers,
                bp_at: 0,
                cfa_at: 0,
            },
            epoch,
            frame_count: 0,
            reused_count: 0,
        }
    }

    /// Walks until the end, the limit, or a frame that cannot be left.
    #[inline(never)]
    fn walk(&mut self, out: &mut [u64]) -> Walk {
        let end = loop {
            let Some(place) = out.get_mut(self.frame_count) else {
                break End::LimitReached;
            };
            *place = self.frame.registers.ip;
            self.frame_count += 1;
            if let Some(end) = self.stepper.step(&mut self.frame).end() {
                break end;
            }
        };
        self.ended(end, Finished::UNRECORDED)
    }

    /// The same with a memo, for as long as the walk stays on its first stack.
    #[inline(always)]
    fn walk_with(
        &mut self,
        recall: &mut Recall<'_>,
        registers: Registers,
        out: &mut [u64],
    ) -> Walk {
        // In registers, while nothing but plain rules is met; `self` has it where it is needed.
        let mut frame = Frame {
            registers,
            bp_at: 0,
            cfa_at: 0,
        };
        let mut stack = self.stepper.stack.known();
        let (end, is_by_rule) = loop {
            let Some(rest) = out
                .get_mut(self.frame_count..)
                .filter(|rest| !rest.is_empty())
            else {
                break (End::LimitReached, false);
            };
            if recall.meets(&frame.registers) {
                let before = self.frame_count;
                let followed = recall.follow(frame, stack, rest, &mut self.frame_count);
                self.reused_count += self.frame_count - before;
                match followed {
                    Followed::ToTheEnd => break (End::Complete, true),
                    Followed::OutOfRoom => break (End::LimitReached, false),
                    Followed::UpTo(registers) => frame.registers = registers,
                }
            } else {
                if let Some(place) = rest.first_mut() {
                    *place = frame.registers.ip;
                }
                self.frame_count += 1;
                recall.add(&frame);
            }
            if let Some((caller, rule)) = step::plain(&frame.registers, self.epoch, stack) {
                recall.leave(rule.is_base_bp());
                frame = caller;
                continue;
            }
            self.frame = frame;
            let step = self.stepper.step(&mut self.frame);
            if let Some(end) = step.end() {
                break (end, matches!(step, Step::End));
            }
            if !self.stepper.is_straight() {
                let walk = self.walk(out);
                recall.stop_recording();
                return self.ended(walk.end, recall.finish(walk.end, false));
            }
            frame = self.frame;
            stack = self.stepper.stack.known();
        };
        self.ended(end, recall.finish(end, is_by_rule))
    }

    fn ended(&self, end: End, finished: Finished) -> Walk {
        Walk {
            frame_count: self.frame_count,
            end,
            reused_count: self.reused_count,
            shared_suffix_count: finished.shared_count,
            is_recorded: finished.is_recorded,
            path: finished.path,
        }
    }
}

impl Step {
    /// The end of the walk, if this step was none.
    #[inline]
    fn end(self) -> Option<End> {
        match self {
            Step::Caller => None,
            Step::End | Step::NoReturn => Some(End::Complete),
            Step::Failed(truncation) => Some(End::Truncated(truncation)),
        }
    }
}
