//! The unwinder: the stack of the running thread, taken inside a malloc hook.
//!
//! [`capture`] allocates nothing, takes no lock, uses no thread-local storage, is bounded and
//! may interrupt itself in a signal handler. A step takes its rule from a cache shared by all
//! threads; a miss reads the module's call-frame information, found without the loader's lock.
//!
//! Files, lower to higher: `rule` (a step in one word), `cache`, `stack` (safe reads),
//! `expression`, `elf`, `modules` (what is loaded), `table` (tables to rules), `known` (reports of
//! modules), `gate` (against `dlclose`), `step`, `memo` (the last
//! stack), `threads` (what a thread remembers), then this file.

use core::sync::atomic::{AtomicBool, Ordering};

pub mod cache;
mod elf;
mod expression;
pub mod gate;
pub mod known;
mod memo;
mod modules;
pub mod rule;
pub mod stack;
mod step;
mod table;
pub mod threads;

pub use known::{Module, Sink};
pub use stack::forget_all as forget_stacks;
pub use step::Registers;
pub use threads::{ThreadSlot, begin as thread_begin, end as thread_end};

use memo::Recall;
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
        let mut stepper = Stepper::new(StackReader::new(registers.sp, StackRange::EMPTY), epoch);
        return unwind(&mut stepper, registers, None, out);
    };
    let known = entered.memory.known_range(registers.sp);
    let mut stepper = Stepper::new(StackReader::new(registers.sp, known), epoch);
    let recall = entered
        .memo
        .as_deref_mut()
        .map(|memo| Recall::new(memo, &stepper.stack, registers.sp, epoch));
    let walk = unwind(&mut stepper, registers, recall, out);
    if stepper.is_straight() {
        entered.memory.keep_range(known, stepper.stack.range());
    }
    walk
}

/// Walks until the end, the limit, or a frame that cannot be left.
fn unwind(
    stepper: &mut Stepper,
    registers: Registers,
    mut recall: Option<Recall<'_>>,
    out: &mut [u64],
) -> Walk {
    let mut frame = Frame {
        registers,
        bp_at: 0,
        cfa_at: 0,
    };
    let mut frame_count = 0;
    let mut reused_count = 0;
    let end = loop {
        let Some(rest) = out.get_mut(frame_count..).filter(|rest| !rest.is_empty()) else {
            break End::LimitReached;
        };
        if let Some(recall) = meet(&mut recall, stepper, &frame.registers, reused_count) {
            (reused_count, frame.registers) = recall.copy_kept(rest);
            frame_count += reused_count;
            if reused_count < recall.kept_count() {
                break End::LimitReached;
            }
        } else {
            if let Some(place) = rest.first_mut() {
                *place = frame.registers.ip;
            }
            frame_count += 1;
            note(&mut recall, stepper, &frame, reused_count);
        }
        match stepper.step(&mut frame) {
            Step::Caller => {}
            Step::End => break End::Complete,
            Step::Failed(truncation) => break End::Truncated(truncation),
        }
    };
    let (is_recorded, shared_suffix_count) = recall.map_or((false, 0), |recall| recall.finish(end));
    Walk {
        frame_count,
        end,
        reused_count,
        shared_suffix_count,
        is_recorded,
    }
}

/// The memo, if it knows the rest of the walk from `frame` on: once per walk, and never from
/// an interrupted frame, whose `ip` is not a return address.
#[inline]
fn meet<'a, 'm>(
    recall: &'a mut Option<Recall<'m>>,
    stepper: &Stepper,
    frame: &Registers,
    reused_count: usize,
) -> Option<&'a Recall<'m>> {
    let recall = recall.as_mut()?;
    let is_met = reused_count == 0 && !stepper.is_interrupted() && recall.meets(frame);
    is_met.then_some(recall)
}

/// Tells the memo of a frame that was unwound.
#[inline]
fn note(recall: &mut Option<Recall<'_>>, stepper: &Stepper, frame: &Frame, reused_count: usize) {
    let Some(recall) = recall else { return };
    if reused_count != 0 {
        recall.discard();
    } else if stepper.is_straight() {
        recall.add(frame);
    } else {
        recall.stop_recording();
    }
}
