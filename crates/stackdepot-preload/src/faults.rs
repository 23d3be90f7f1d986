//! The death of the process by a signal, noted in its region file by a signal handler.
//!
//! [`arm`] installs [`on_fault`] at the start for each fatal signal that nobody handles. `hooks_signals`
//! keeps it out of the program's sight: what the program knows as the default is this handler, a
//! handler of its own replaces it. On a fault the kernel puts the default back (`SA_RESETHAND`) before the
//! handler runs; it writes signal, registers and stack into memory that is mapped already, and lets
//! the fault happen again, so that exit status and core dump are those of the fault.
//!
//! It takes no lock, touches no state of the hooks (it may interrupt one at any instruction), works on
//! a stack of its own (the program's may be small, or used up), and does all this once per process.
//! A stack overflow is seen only where the program has an alternate stack for signals.

#![allow(unsafe_code)] // a signal handler

use core::ffi::{c_int, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use stackdepot_region::clock::tsc;
use stackdepot_region::death::{Access, DEATH_FRAMES, Death, REGISTER_COUNT};

use crate::hooks_signals::{self, Action};
use crate::process::Recorder;
use crate::unwind::stack::{StackRange, StackReader};
use crate::unwind::{self, Registers};
use crate::{memory, process};

/// What ends a process with a core dump, as long as nobody asked for the dump (`SIGQUIT`).
const SIGNALS: [c_int; 7] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGILL,
    libc::SIGFPE,
    libc::SIGABRT,
    libc::SIGTRAP,
    libc::SIGSYS,
];

const STACK_BYTES: usize = 64 << 10;

/// Bits of the signals whose default is [`on_fault`].
static ARMED: AtomicU64 = AtomicU64::new(0);
/// The handler's stack: only who took [`TAKEN`] uses it.
static STACK: AtomicPtr<u8> = AtomicPtr::new(null_mut());
/// Whether a death was met; it stays so, also where the fault did not come again.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over what would end the process. For its start, when it is recorded.
pub fn arm() {
    let Some(stack) = memory::map(STACK_BYTES) else {
        return;
    };
    STACK.store(stack.as_ptr(), Ordering::Relaxed);
    for signal in SIGNALS {
        if hooks_signals::exchange(signal, is_default, Some(&action(signal))) {
            ARMED.fetch_or(1 << signal, Ordering::Relaxed);
        }
    }
}

/// Gives the kernel's default back: the process is about to lose what the handler needs.
pub fn disarm() {
    for signal in SIGNALS {
        if is_armed(signal) {
            hooks_signals::exchange(signal, is_ours, None);
        }
    }
    ARMED.store(0, Ordering::Relaxed);
}

/// Whether the program's default for a signal is our handler.
pub fn is_armed(signal: c_int) -> bool {
    (1..64).contains(&signal) && ARMED.load(Ordering::Relaxed) >> signal & 1 == 1
}

/// Whether an action is our handler.
pub fn is_ours(action: &Action) -> bool {
    is_handler(action.sa_sigaction)
}

/// Whether a handler is ours.
pub fn is_handler(handler: usize) -> bool {
    handler == on_fault as *const () as usize
}

fn is_default(action: &Action) -> bool {
    action.sa_sigaction == libc::SIG_DFL
}

/// Our handler as an action for a signal.
pub fn action(signal: c_int) -> Action {
    // SAFETY: all zeros is an action.
    let mut action: Action = unsafe { core::mem::zeroed() };
    // No handler of the program's may come in between, and jump away.
    // SAFETY: a place for a set of signals.
    unsafe { libc::sigfillset(&raw mut action.sa_mask) };
    action.sa_sigaction = on_fault as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_RESETHAND;
    // Elsewhere the program's own stack is good, and its alternate one may be gone: then the kernel
    // would end the program by SIGSEGV instead.
    if matches!(signal, libc::SIGSEGV | libc::SIGBUS) {
        action.sa_flags |= libc::SA_ONSTACK;
    }
    action
}

/// What the kernel told of a fault.
struct Fault<'k> {
    recorder: &'static Recorder,
    signal: c_int,
    info: &'k libc::siginfo_t,
    registers: &'k [i64; 23],
}

/// The handler.
unsafe extern "C" fn on_fault(
    signal: c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::ucontext_t,
) {
    // SAFETY: the C library always has a valid errno for the calling thread.
    let errno = unsafe { *libc::__errno_location() };
    // SAFETY: the kernel's own, for as long as the handler runs.
    let (info, context) = unsafe { (&*info, &*context) };
    // A fork's child that had no event yet gets its file now.
    if let Some(recorder) = process::recorder()
        && process::is_writer(recorder)
        && !TAKEN.swap(true, Ordering::Relaxed)
    {
        let mut fault = Fault {
            recorder,
            signal,
            info,
            registers: &context.uc_mcontext.gregs,
        };
        let stack = STACK.load(Ordering::Relaxed);
        // SAFETY: pages of ours that nobody else uses (TAKEN); `note` takes what is passed.
        unsafe { memory::call_on(stack, STACK_BYTES, note, (&raw mut fault).cast()) };
    }
    die_again(signal, info);
    // SAFETY: as above.
    unsafe { *libc::__errno_location() = errno };
}

/// Writes a fault down; the argument is a [`Fault`].
extern "C" fn note(fault: *mut c_void) {
    // SAFETY: what `on_fault` passes.
    let fault = unsafe { &*fault.cast::<Fault<'_>>() };
    let region = &fault.recorder.region;
    if !region.death.note(&fault.death()) {
        return;
    }
    // Exit handlers may have run, and the program died in a later one.
    region.header.mark_running();
    region.header.touch_clock();
    let mut frames = [0; DEATH_FRAMES];
    let frame_count = fault.unwind(&mut frames);
    region
        .death
        .add_stack(frames.get(..frame_count).unwrap_or_default());
}

impl Fault<'_> {
    fn register(&self, name: c_int) -> u64 {
        let word = self.registers.get(name as usize);
        word.map_or(0, |word| *word as u64)
    }

    fn death(&self) -> Death {
        const NAMES: [c_int; REGISTER_COUNT] = [
            libc::REG_RAX,
            libc::REG_RBX,
            libc::REG_RCX,
            libc::REG_RDX,
            libc::REG_RSI,
            libc::REG_RDI,
            libc::REG_RBP,
            libc::REG_RSP,
            libc::REG_R8,
            libc::REG_R9,
            libc::REG_R10,
            libc::REG_R11,
            libc::REG_R12,
            libc::REG_R13,
            libc::REG_R14,
            libc::REG_R15,
        ];
        Death {
            signal: self.signal,
            code: self.info.si_code,
            sender: self.sender(),
            fault: self.access(),
            thread: process::thread_id(),
            time: tsc(),
            pc: self.register(libc::REG_RIP),
            registers: NAMES.map(|name| self.register(name)),
        }
    }

    fn sender(&self) -> u32 {
        let is_sent = matches!(
            self.info.si_code,
            libc::SI_USER | libc::SI_TKILL | libc::SI_QUEUE
        );
        match is_sent {
            // SAFETY: a signal with these codes says who sent it.
            true => unsafe { self.info.si_pid() as u32 },
            false => 0,
        }
    }

    /// The faulting address: only a page fault has one. A signal that was sent has none, nor does
    /// the processor tell of an address that is none (not canonical).
    fn access(&self) -> Option<(u64, Access)> {
        const PAGE_FAULT: u64 = 14;
        const SI_KERNEL: c_int = 0x80;
        let is_memory = matches!(self.signal, libc::SIGSEGV | libc::SIGBUS);
        let is_sent = self.info.si_code <= 0 || self.info.si_code == SI_KERNEL;
        if !is_memory || is_sent || self.register(libc::REG_TRAPNO) != PAGE_FAULT {
            return None;
        }
        // SAFETY: a signal of a page fault has an address.
        let address = unsafe { self.info.si_addr() } as u64;
        let code = self.register(libc::REG_ERR);
        let access = match (code >> 4 & 1, code >> 1 & 1) {
            (1, _) => Access::Execute,
            (_, 1) => Access::Write,
            _ => Access::Read,
        };
        Some((address, access))
    }

    /// The thread's stack, without what the hooks keep of it. The instruction's address is raised by
    /// one, so that it reads as the return addresses do.
    fn unwind(&self, frames: &mut [u64; DEATH_FRAMES]) -> usize {
        let mut registers = Registers {
            ip: self.register(libc::REG_RIP).wrapping_add(1),
            sp: self.register(libc::REG_RSP),
            bp: self.register(libc::REG_RBP),
        };
        let [first, rest @ ..] = frames;
        if !self.is_lost() {
            return unwind::capture(registers, None, frames).frames().len();
        }
        // A call to where no code is: the caller's return address lies on top of the stack.
        *first = registers.ip;
        let main = StackRange::of_main(registers.sp).unwrap_or(StackRange::EMPTY);
        let Some(return_address) = StackReader::new(main).read(registers.sp) else {
            return 1;
        };
        registers.ip = return_address;
        registers.sp = registers.sp.wrapping_add(8);
        1 + unwind::capture(registers, None, rest).frames().len()
    }

    /// Whether the instruction itself could not be fetched.
    fn is_lost(&self) -> bool {
        let pc = self.register(libc::REG_RIP);
        matches!(self.access(), Some((address, Access::Execute)) if address == pc)
    }
}

/// Sees to it that the default follows: a fault comes again by itself, what was sent is sent again.
fn die_again(signal: c_int, info: &libc::siginfo_t) {
    // Whoever called us from a handler of its own expects not to be asked again.
    hooks_signals::exchange(signal, |_| true, None);
    let is_fault = matches!(
        signal,
        libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGFPE
    );
    if is_fault && info.si_code > 0 {
        return;
    }
    let (process, thread) = (process::own_pid(), process::thread_id());
    // SAFETY: asks for a signal to this thread; it comes when the handler returns. The information
    // is the kernel's own.
    unsafe {
        let is_queued = info.si_code != libc::SI_TKILL
            && libc::syscall(libc::SYS_rt_tgsigqueueinfo, process, thread, signal, info) == 0;
        if !is_queued {
            libc::syscall(libc::SYS_tgkill, process, thread, signal);
        }
    }
}
