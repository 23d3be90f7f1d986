//! What each thread keeps: which hook it is in, its number, its scratch memory.
//!
//! The state lives in 128 bytes of static TLS that this file defines in assembly and reaches by the
//! initial-exec model: stable `thread_local!` in a shared library calls `__tls_get_addr`, which
//! may allocate. A hook [`enter`]s; the [`Outermost`] or [`Call`] that it gets back is its right to
//! record, and gives the thread's state back when dropped, also when a C++ exception passes through.
//! Nearly every hook is outermost and has nothing to give back: what an IDLE thread keeps of its last
//! hook means nothing.
//!
//! | state | meaning | an allocator call that comes now |
//! |---|---|---|
//! | IDLE | outside of every hook | is recorded |
//! | CALLING | inside the real function | belongs to it (`operator new` calls `malloc`): not recorded, see [`Purpose`] |
//! | RECORDING | between the real function and the caller | a signal handler's: recorded without the memo |
//! | CALLING_NESTED, RECORDING_NESTED | the same inside of such a handler | one more level is lost, counted |
//!
//! A handler may leave by `longjmp`, so a state may outlive its hook. The frame of the hook tells:
//! its return address is overwritten as soon as the stack is used again.
#![allow(unsafe_code)] // thread-local storage and stack frames

mod call;

pub use call::{Call, Outermost, Recording, enter, enter_outermost, is_inside};

use core::arch::{asm, global_asm};
use core::cell::Cell;
use core::ffi::c_void;
use core::mem::offset_of;
use core::ptr::null_mut;
use core::sync::atomic::{AtomicUsize, Ordering, compiler_fence};

use stackdepot_region::caller::Family;
use stackdepot_region::clock::tsc;
use stackdepot_region::counters::Counter;
use stackdepot_region::poisson::ByteSampling;

use crate::process::{self, Recorder};
use crate::scratch::{self, Scratch};
use crate::symbols;
use crate::unwind;

/// What a naked hook pushes: the caller's frame pointer, below its return address.
#[repr(C)]
pub struct Frame {
    /// The caller's rbp.
    pub caller_rbp: usize,
    /// Where the hook returns to.
    pub return_address: usize,
}

impl Frame {
    /// The caller's stack pointer after the hook has returned.
    #[inline]
    pub fn caller_rsp(&self) -> usize {
        (self as *const Frame as usize).wrapping_add(16)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
enum State {
    Idle = 0,
    Calling,
    Recording,
    CallingNested,
    RecordingNested,
}

/// What a hook is called for: decides which calls inside of the real function belong to it.
///
/// An `operator new` may run more than its own `malloc`: a new-handler, or the making of the
/// exception that it throws. Those are calls of their own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A function of C: all that it calls belongs to it.
    C,
    /// An `operator new`: the calls out of an operator's own code belong to it.
    New,
    /// An `operator delete` of this block: the free of the same block belongs to it.
    Delete(usize),
    /// A free or realloc of C of this block.
    Free(usize),
}

impl Purpose {
    /// Of a function that allocates; constant where the family is.
    #[inline(always)]
    pub const fn of_alloc(family: Family) -> Purpose {
        match family {
            Family::C => Purpose::C,
            Family::New | Family::NewArray => Purpose::New,
        }
    }

    /// Of a function that frees a block.
    #[inline(always)]
    pub const fn of_free(family: Family, block: usize) -> Purpose {
        match family {
            Family::C => Purpose::Free(block),
            Family::New | Family::NewArray => Purpose::Delete(block),
        }
    }
}

/// A frame nearer than this above the running one lies on the same stack.
const NEAR_BYTES: isize = 64 * 1024;
/// A frame nearer than this below the running one was left, unless that runs on another stack.
const FAR_BYTES: isize = 8 << 20;
/// Calls that are lost in a row before the hook that they seem to interrupt is taken for gone.
const LOST_LIMIT: u32 = 1000;

/// The thread's state; all zero when the thread starts.
#[repr(C, align(64))]
pub struct Thread {
    state: Cell<State>,
    /// The process epoch in which `tid` was asked for; 0: never.
    epoch: Cell<u32>,
    tid: Cell<u32>,
    /// Its key destructor ran: no scratch any more.
    is_ending: Cell<bool>,
    /// Frame of the hook that set `state`, and the return address found there.
    hook_frame: Cell<*const Frame>,
    hook_return: Cell<usize>,
    /// The hook's purpose as a word: `C_PURPOSE`, `NEW_PURPOSE`, or the block of a delete.
    hook_purpose: Cell<usize>,
    /// The block that a call inside of an `operator new` was last recorded with.
    inner_block: Cell<usize>,
    /// Calls lost in RECORDING_NESTED.
    lost_count: Cell<u32>,
    scratch: Cell<*mut Scratch>,
    /// With sampling: bytes to the next mark, and the generator of these gaps; 0: not seeded yet.
    gap: Cell<u64>,
    random: Cell<u64>,
    /// A number that the threads running at the same time rarely share.
    shard: Cell<usize>,
    unused: [u64; 5],
}

/// Where the gap stands in a thread's state.
pub const GAP_AT: usize = offset_of!(Thread, gap);

const C_PURPOSE: usize = 0;
const NEW_PURPOSE: usize = 1;

/// The shard of the next thread that has its first event.
static NEXT_SHARD: AtomicUsize = AtomicUsize::new(0);

const _: () = assert!(size_of::<Thread>() == THREAD_BYTES);
/// As the assembly below says.
const THREAD_BYTES: usize = 128;

global_asm!(
    ".pushsection .tbss.stackdepot_thread,\"awT\",@nobits",
    ".hidden stackdepot_thread",
    ".globl stackdepot_thread",
    ".type stackdepot_thread,@object",
    ".size stackdepot_thread,128",
    ".balign 64",
    "stackdepot_thread:",
    ".zero 128",
    ".popsection",
);

/// The running thread's state.
#[inline(always)]
fn current() -> &'static Thread {
    let thread: *const Thread;
    // SAFETY: reads the thread pointer and the offset that the loader stored for our TLS symbol.
    unsafe {
        asm!(
            "mov {0}, qword ptr fs:[0]",
            "add {0}, qword ptr [rip + stackdepot_thread@GOTTPOFF]",
            out(reg) thread,
            options(pure, readonly, nostack),
        );
        &*thread
    }
}

/// Whether no mark of `run --sample` hits an alloc of `size` bytes: then nothing is to be done for it.
/// Never without sampling, nor when the thread's gap is used up: [`meets_mark`] then decides.
#[inline(always)]
pub fn passes_over(size: usize) -> bool {
    let thread = current();
    let weight = ByteSampling::weight(size as u64);
    let gap = thread.gap.get();
    let passes = weight < gap;
    if passes {
        thread.gap.set(gap - weight);
    }
    passes
}

/// Whether an alloc that does not pass over is to be recorded: every one, or one that a mark hits.
#[inline(always)]
pub fn meets_mark(recorder: &Recorder, size: usize) -> bool {
    !recorder.sampling.is_on() || current().meets_mark(size, recorder.sampling)
}

/// While an `operator new` is passed over: what it allocates is its own and counts no second time.
pub struct PassedOver {
    thread: &'static Thread,
    gap: u64,
}

impl PassedOver {
    /// From here on the thread's allocs pass over, until this is dropped.
    #[inline(always)]
    pub fn begin() -> PassedOver {
        let thread = current();
        let gap = thread.gap.replace(ByteSampling::NEVER);
        PassedOver { thread, gap }
    }
}

impl Drop for PassedOver {
    #[inline(always)]
    fn drop(&mut self) {
        self.thread.gap.set(self.gap);
    }
}

impl Thread {
    /// Notes a hook. The frame comes first: a handler that comes in between overwrites it, too, so
    /// that whoever finds it there once the state is set finds all of it.
    #[inline(always)]
    fn describe(&self, frame: &Frame, purpose: Purpose) {
        self.hook_frame.set(frame);
        compiler_fence(Ordering::SeqCst);
        self.hook_return.set(frame.return_address);
        self.hook_purpose.set(match purpose {
            Purpose::C | Purpose::Free(_) => C_PURPOSE,
            Purpose::New => NEW_PURPOSE,
            Purpose::Delete(block) => block,
        });
        if purpose == Purpose::New {
            self.inner_block.set(0);
        }
        compiler_fence(Ordering::SeqCst);
    }

    /// The same where a handler came in between.
    #[cold]
    #[inline(never)]
    fn describe_again(&self, frame: &Frame, purpose: Purpose) {
        self.describe(frame, purpose);
    }

    /// Whether a call inside of the hook recorded the block already.
    #[inline(always)]
    fn is_recorded_inside(&self, block: usize) -> bool {
        self.hook_purpose.get() == NEW_PURPOSE && self.inner_block.get() == block
    }

    /// Whether the mark is in a block that the gap does not reach past. The gap of a thread's first
    /// block is drawn only now.
    #[cold]
    fn meets_mark(&self, size: usize, sampling: ByteSampling) -> bool {
        if self.random.get() == 0 {
            // Odd, so never 0 again: the generator permutes.
            self.random
                .set(tsc() ^ core::ptr::from_ref(self) as u64 | 1);
            self.gap.set(self.draw(sampling));
            if passes_over(size) {
                return false;
            }
        }
        self.gap.set(self.draw(sampling));
        true
    }

    /// The next gap, from a xorshift generator.
    fn draw(&self, sampling: ByteSampling) -> u64 {
        let mut random = self.random.get();
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        self.random.set(random);
        sampling.gap(random.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A call came while the thread is in a hook: `None` not recorded, `Some(is_nested)` recorded.
    #[cold]
    fn nesting(&self, frame: &Frame, purpose: Purpose, recorder: &Recorder) -> Option<bool> {
        let state = self.state.get();
        match state {
            State::Idle => Some(false),
            State::Calling | State::CallingNested => {
                if self.is_inside(frame) && self.belongs(frame, purpose) {
                    return None;
                }
                Some(state == State::CallingNested)
            }
            State::Recording if self.is_abandoned(frame) => {
                self.state.set(State::Idle);
                scratch::renew_unwinder(self.scratch.get());
                Some(false)
            }
            State::Recording => Some(true),
            State::RecordingNested if self.is_abandoned(frame) || self.has_lost_too_many() => {
                // The hook that its handler interrupted may still be there: nobody knows its frame.
                self.state.set(State::Recording);
                self.hook_frame.set(core::ptr::null());
                Some(true)
            }
            State::RecordingNested => {
                self.lost_count.set(self.lost_count.get() + 1);
                recorder.region.counters.count(Counter::EventsUnrecorded);
                None
            }
        }
    }

    /// How far the hook that set the state lies outwards from this one, in bytes; negative: inwards.
    fn distance(&self, frame: &Frame) -> isize {
        (self.hook_frame.get() as isize).wrapping_sub(core::ptr::from_ref(frame) as isize)
    }

    /// Whether a call comes from the real function that the hook is calling.
    fn is_inside(&self, frame: &Frame) -> bool {
        let distance = self.distance(frame);
        distance > 0 && distance < NEAR_BYTES && self.frame_is_intact()
    }

    /// Whether a call from the real function is part of its work.
    fn belongs(&self, frame: &Frame, purpose: Purpose) -> bool {
        match (self.hook_purpose.get(), purpose) {
            (C_PURPOSE, _) => true,
            (NEW_PURPOSE, Purpose::C | Purpose::New) => {
                // An operator that ends in a jump to another one seems to be called by us.
                let caller = frame.return_address;
                symbols::is_own_code(caller)
                    || symbols::real().is_some_and(|real| real.is_in_operator(caller))
            }
            (NEW_PURPOSE, _) => false,
            (block, Purpose::Free(inner) | Purpose::Delete(inner)) => block == inner,
            (_, Purpose::C | Purpose::New) => false,
        }
    }

    /// Whether the hook that set the state is gone for sure: a handler left it by a jump.
    fn is_abandoned(&self, frame: &Frame) -> bool {
        match self.distance(frame) {
            0 => true,
            // Farther away than this it may be another, freed stack: not safe to look at.
            1..NEAR_BYTES => !self.frame_is_intact(),
            // We run in a caller of the hook, unless this is a handler's own stack.
            distance => distance < 0 && distance > -FAR_BYTES && !is_on_alternate_stack(),
        }
    }

    /// Whether the hook that set the state must be gone, for a handler does not allocate that much.
    fn has_lost_too_many(&self) -> bool {
        let too_many = self.lost_count.get() >= LOST_LIMIT;
        if too_many {
            self.lost_count.set(0);
        }
        too_many
    }

    fn frame_is_intact(&self) -> bool {
        // SAFETY: the frame lies less than NEAR_BYTES above a running frame, on the same stack
        // mapping (guard pages lie below stacks), so it is readable; it may hold anything.
        let found = unsafe { (&raw const (*self.hook_frame.get()).return_address).read_volatile() };
        found == self.hook_return.get()
    }

    /// First event of the thread, or of a forked process.
    #[cold]
    fn adopt(&self, recorder: &Recorder) {
        // Where no memory is left the pool cannot grow, which is no error of the program's.
        // SAFETY: the C library always has a valid errno for the calling thread.
        let errno = unsafe { *libc::__errno_location() };
        // SAFETY: asks the kernel a number.
        self.tid
            .set(unsafe { libc::syscall(libc::SYS_gettid) } as u32);
        self.shard.set(NEXT_SHARD.fetch_add(1, Ordering::Relaxed));
        if self.scratch.get().is_null() && !self.is_ending.get() {
            self.scratch.set(scratch::claim());
            process::call_at_thread_end();
        }
        if let Some(slot) = scratch::unwinder_of(self.scratch.get()) {
            // What stacks were saved as is another thread's, or of the region before a fork.
            unwind::forget_notes(slot);
        }
        // A handler that interrupted this may have done it all, or forked and done it for the child.
        if self.epoch.get() < recorder.epoch {
            self.epoch.set(recorder.epoch);
            recorder.region.counters.count(Counter::Threads);
        }
        // SAFETY: as above.
        unsafe { *libc::__errno_location() = errno };
    }
}

/// Asked only when a state seems to have outlived its hook.
fn is_on_alternate_stack() -> bool {
    // SAFETY: all zeros is valid; the call fills it.
    unsafe {
        let mut stack: libc::stack_t = core::mem::zeroed();
        let status = libc::sigaltstack(core::ptr::null(), &raw mut stack);
        status != 0 || stack.ss_flags & libc::SS_ONSTACK != 0
    }
}

/// Called by the C library when a thread ends that had an event; the argument means nothing.
pub unsafe extern "C" fn end(_: *mut c_void) {
    let thread = current();
    thread.is_ending.set(true);
    let scratch = thread.scratch.replace(null_mut());
    scratch::give_back(scratch);
}

/// Scratch of the running thread: what a forked child keeps of the pool.
pub fn current_scratch() -> *mut Scratch {
    current().scratch.get()
}

/// Whether the running thread was interrupted while it wrote to a region.
pub fn is_recording() -> bool {
    current().state.get() != State::Idle
}
