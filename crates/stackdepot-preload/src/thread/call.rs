//! The right to record an allocator call, and what it is recorded with.
//!
//! Key types: [`Outermost`], of a hook that was entered while its thread was in none, as nearly every
//! one is, and [`Call`], of any hook, which gives back what it found. Both hand out a [`Recording`].
//! The states and what they are for stand in `thread.rs`.
#![allow(unsafe_code)] // frames of hooks, the thread's own buffer

use core::sync::atomic::{Ordering, compiler_fence};

use stackdepot_region::caller::{Caller, Family};

use super::{Frame, NEW_PURPOSE, Purpose, State, Thread, current};
use crate::process::{self, Recorder};
use crate::scratch;
use crate::unwind::{Registers, ThreadSlot};

/// What a call is recorded with.
#[derive(Clone, Copy)]
pub struct Recording {
    /// Where the call is recorded.
    pub recorder: &'static Recorder,
    /// The hook's frame.
    pub frame: &'static Frame,
    is_nested: bool,
}

/// The right to record an allocator call that came while the thread was in no hook.
pub struct Outermost {
    thread: &'static Thread,
    recording: Recording,
}

/// The right to record any allocator call; dropping it gives the thread's state back.
pub struct Call {
    thread: &'static Thread,
    recording: Recording,
    previous: State,
    previous_frame: *const Frame,
    previous_return: usize,
    previous_purpose: usize,
}

/// Whether the thread is in a hook.
#[inline(always)]
pub fn is_inside() -> bool {
    current().state.get() != State::Idle
}

/// Enters a hook while the thread [is in none](is_inside): `None` when this call is not to be recorded.
///
/// # Safety
///
/// `frame` is what the naked part of the running hook pushed.
#[inline(always)]
pub unsafe fn enter_outermost(
    recorder: &'static Recorder,
    frame: *const Frame,
    purpose: Purpose,
) -> Option<Outermost> {
    // SAFETY: the hook's frame outlives the hook's call, which outlives the `Outermost`.
    let frame = unsafe { &*frame };
    let thread = current();
    thread.describe(frame, purpose);
    thread.state.set(State::Calling);
    compiler_fence(Ordering::SeqCst);
    // A handler that came before the state was set has left its own hook's description. Those that come
    // from here on are inside of a hook, and put back what they find: once more is enough.
    if !core::ptr::eq(thread.hook_frame.get(), frame) {
        thread.describe_again(frame, purpose);
    }
    let call = Outermost {
        thread,
        recording: Recording::of_outermost(recorder, frame),
    };
    // A handler that forked before the state was set has left the parent's region as it was, for
    // no hook seemed to be in it: its child must not go on with the parent's recorder.
    if !process::is_current(recorder) {
        drop(call);
        let recorder = process::recorder()?;
        // SAFETY: as for this call.
        return unsafe { enter_again(recorder, frame, purpose) };
    }
    Some(call)
}

/// The same in the child of a fork.
#[cold]
#[inline(never)]
unsafe fn enter_again(
    recorder: &'static Recorder,
    frame: &'static Frame,
    purpose: Purpose,
) -> Option<Outermost> {
    // SAFETY: the caller's promise.
    unsafe { enter_outermost(recorder, frame, purpose) }
}

/// Enters a hook whatever the thread is in: `None` when this call is not to be recorded.
///
/// # Safety
///
/// `frame` is what the naked part of the running hook pushed.
pub unsafe fn enter(frame: *const Frame, purpose: Purpose) -> Option<Call> {
    let recorder = process::recorder()?;
    // SAFETY: the hook's frame outlives the hook's call, which outlives the `Call`.
    let frame = unsafe { &*frame };
    let thread = current();
    let is_nested = thread.nesting(frame, purpose, recorder)?;
    let call = Call {
        thread,
        recording: Recording {
            recorder,
            frame,
            is_nested,
        },
        previous: thread.state.get(),
        previous_frame: thread.hook_frame.get(),
        previous_return: thread.hook_return.get(),
        previous_purpose: thread.hook_purpose.get(),
    };
    thread.describe(frame, purpose);
    call.recording.set_calling(thread);
    // As in `enter_outermost`; this may be an outermost hook, too: of a state that was given up.
    compiler_fence(Ordering::SeqCst);
    if !core::ptr::eq(thread.hook_frame.get(), frame) {
        thread.describe_again(frame, purpose);
    }
    if !process::is_current(recorder) {
        drop(call);
        // SAFETY: as for this call.
        return unsafe { enter(frame, purpose) };
    }
    Some(call)
}

impl Outermost {
    /// What the call is recorded with.
    #[inline(always)]
    pub fn recording(&self) -> Recording {
        self.recording
    }

    /// Whether a call inside of this one recorded the block already.
    #[inline(always)]
    pub fn is_recorded_inside(&self, block: usize) -> bool {
        self.thread.is_recorded_inside(block)
    }
}

impl Drop for Outermost {
    #[inline(always)]
    fn drop(&mut self) {
        self.thread.state.set(State::Idle);
    }
}

impl Call {
    /// What the call is recorded with.
    #[inline]
    pub fn recording(&self) -> Recording {
        self.recording
    }

    /// Notes a block that is recorded while an outer `operator new` may be about to answer it too.
    #[inline]
    pub fn note_inner_block(&self, block: usize) {
        if self.previous_purpose == NEW_PURPOSE && self.previous != State::Idle {
            self.thread.inner_block.set(block);
        }
    }

    /// Whether a call inside of this one recorded the block already.
    #[inline]
    pub fn is_recorded_inside(&self, block: usize) -> bool {
        self.thread.is_recorded_inside(block)
    }
}

impl Drop for Call {
    #[inline]
    fn drop(&mut self) {
        self.thread.hook_frame.set(self.previous_frame);
        self.thread.hook_return.set(self.previous_return);
        self.thread.hook_purpose.set(self.previous_purpose);
        self.thread.state.set(self.previous);
    }
}

impl Recording {
    /// What an [`Outermost`] call of this frame is recorded with.
    #[inline(always)]
    pub fn of_outermost(recorder: &'static Recorder, frame: &'static Frame) -> Recording {
        Recording {
            recorder,
            frame,
            is_nested: false,
        }
    }

    #[inline(always)]
    fn set_calling(self, thread: &Thread) {
        thread.state.set(match self.is_nested {
            true => State::CallingNested,
            false => State::Calling,
        });
    }

    /// From here on the call is being recorded.
    #[inline(always)]
    pub fn start(self) {
        let thread = current();
        // In the child of a handler's fork this hook may go on with the parent's recorder, whose
        // region is empty private memory by then; the thread belongs to the child's one.
        if thread.epoch.get() < self.recorder.epoch {
            thread.adopt(self.recorder);
        }
        thread.state.set(match self.is_nested {
            true => State::RecordingNested,
            false => State::Recording,
        });
    }

    /// The recording is done for now; the real function may be called.
    #[inline(always)]
    pub fn stop(self) {
        self.set_calling(current());
    }

    /// Who calls a function of that family.
    #[inline(always)]
    pub fn caller(self, family: Family) -> Caller {
        Caller::new(current().tid.get(), family)
    }

    /// A number that threads running at the same time rarely share, whatever it is divided by. (Not the
    /// place of their stacks: these lie at distances of powers of two.)
    #[inline(always)]
    pub fn shard(self) -> usize {
        current().shard.get()
    }

    /// Registers of the hook's caller.
    #[inline(always)]
    pub fn registers(self) -> Registers {
        let frame = self.frame;
        Registers {
            ip: frame.return_address as u64,
            sp: frame.caller_rsp() as u64,
            bp: frame.caller_rbp as u64,
        }
    }

    /// Where the stack goes; `None` when the thread ends and when the pool is used up.
    ///
    /// # Safety
    ///
    /// Only between `start` and `stop`, and not while an earlier answer is in use.
    #[inline(always)]
    pub unsafe fn frame_buffer(self) -> Option<&'static mut [u64]> {
        let block = current().scratch.get();
        // SAFETY: the thread's own block; RECORDING and RECORDING_NESTED are entered once each at a
        // time (`nesting`), each has a buffer of its own, and the caller uses it once at a time.
        unsafe {
            if self.is_nested {
                return Some((&mut *scratch::nested_frames_of(block)?).as_mut_slice());
            }
            block.as_mut().map(|scratch| scratch.frames.as_mut_slice())
        }
    }

    /// The claim on the unwinder's memory.
    #[inline(always)]
    pub fn unwinder(self) -> Option<ThreadSlot> {
        scratch::unwinder_of(current().scratch.get())
    }
}
