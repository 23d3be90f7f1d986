//! Every instruction: an operation is interrupted between any two instructions of the processor.
//!
//! The trap flag makes the processor stop after each instruction, which is a signal to the same
//! thread: its handler interrupts the operation exactly there. It forks: the child is the same
//! process at the same instruction. It looks at the bytes as a kill would leave them here (a
//! reader checks them, a writer reopens a copy), then does what a handler does on the same
//! region, returns into the operation, and audits everything at its end. The parent steps on.
//!
//! A copy is what a kill leaves if all that a process does to shared memory is in the memory when it
//! dies. So at some instructions a process that works on shared memory is killed for real, and
//! those who come after it look at that memory.
//!
//! `cargo xtask every-instruction [--sample N]`; as a test it takes a sample.

use std::cell::Cell;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use crate::findings::Findings;
use crate::memory::Shared;
use crate::process::Child;
use crate::scene::{OPERATIONS, Operation, Scene, known};
use crate::stacks::Known;

/// One in so many instructions is tried unless `STACKDEPOT_SAMPLE` says otherwise.
const SAMPLE: u64 = 23;
/// Of those that are tried, a process is killed for real at one in so many, and at least at one
/// instruction in `MOST_BETWEEN_KILLS`.
const KILL_STRIDE: u64 = 37;
const MOST_BETWEEN_KILLS: u64 = 997;
/// Bit of the flags register: stop after each instruction.
const TRAP_FLAG: i64 = 1 << 8;
/// Nothing that a child does takes longer; then it hangs.
const HANG_SECONDS: u32 = 20;

/// So many findings are enough.
const MOST_FOUND: u64 = 3;

/// Words that all the forked processes share.
const INSTRUCTIONS: usize = 0;
const TRIED: usize = 1;
const STACKS: usize = 2;
const FOUND: usize = 3;
const KILLED: usize = 4;

/// One operation being stepped through.
struct Stage<'a> {
    operation: &'static str,
    scene: &'a Scene,
    known: &'a Known,
    sample: u64,
    instruction: Cell<u64>,
    /// In a forked child: the instruction at which it was made.
    interrupted_at: Cell<Option<u64>>,
    /// The instruction at which this process kills itself.
    dies_at: Option<u64>,
    tally: &'a [AtomicU64],
    findings: &'a Findings,
}

static STAGE: AtomicPtr<Stage<'static>> = AtomicPtr::new(std::ptr::null_mut());

impl Stage<'_> {
    fn count(&self, word: usize, count: u64) {
        self.tally[word].fetch_add(count, Ordering::Relaxed);
    }

    /// Runs after every instruction of the operation, in the signal handler.
    fn stop(&self, context: &mut libc::ucontext_t) {
        let instruction = self.instruction.get() + 1;
        self.instruction.set(instruction);
        if let Some(last) = self.dies_at {
            if instruction == last {
                // SAFETY: ends this process here and now.
                unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
            }
            return;
        }
        self.count(INSTRUCTIONS, 1);
        if !instruction.is_multiple_of(self.sample) {
            return;
        }
        self.count(TRIED, 1);
        // SAFETY: one thread, whose operation uses no allocator.
        match unsafe { libc::fork() } {
            0 => {
                context.uc_mcontext.gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
                self.interrupted_at.set(Some(instruction));
                self.interrupt(instruction);
            }
            child => self.wait_for(child, instruction),
        }
    }

    fn interrupt(&self, instruction: u64) {
        // SAFETY: ends a child that hangs.
        unsafe { libc::alarm(HANG_SECONDS) };
        let stacks = self.scene.check_readable(self.known);
        self.conclude("readable", stacks);
        self.conclude("reopened", self.scene.check_reopened(self.known));
        self.conclude("handler", self.scene.interfere(instruction).map(|()| 0));
    }

    /// In a child: counts the stacks, or ends with the finding.
    fn conclude(&self, what: &str, checked: Result<u64, String>) {
        match checked {
            Ok(stacks) => self.count(STACKS, stacks),
            Err(finding) => {
                let at = self.interrupted_at.get();
                let name = self.operation;
                self.findings.add(format_args!(
                    "{name}, instruction {at:?}, {what}: {finding}"
                ));
                end(1);
            }
        }
    }

    fn wait_for(&self, child: libc::pid_t, instruction: u64) {
        let mut status = 0;
        // SAFETY: `status` is valid for the call; the child ends, at the latest by its alarm.
        while unsafe { libc::waitpid(child, &mut status, 0) } != child {}
        if status != 0 {
            let found = self.tally[FOUND].fetch_add(1, Ordering::Relaxed) + 1;
            let name = self.operation;
            self.findings.add(format_args!(
                "{name}, instruction {instruction}: status {status:x}"
            ));
            if found == MOST_FOUND {
                end(1);
            }
        }
    }
}

fn end(code: i32) -> ! {
    // SAFETY: ends this forked process at once.
    unsafe { libc::_exit(code) }
}

extern "C" fn on_trap(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: `step_through` keeps the stage while the trap flag is set, and the kernel hands
    // over a context that is ours until the handler returns.
    let (stage, context) = unsafe { (&*STAGE.load(Ordering::Relaxed), &mut *context.cast()) };
    stage.stop(context);
}

fn install_handler() {
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_trap;
    // SAFETY: all zeros is a valid sigaction. In the parent the handler only counts, forks and
    // waits; in the children it allocates, but no operation of the depot does.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(
            libc::sigaction(libc::SIGTRAP, &action, std::ptr::null_mut()),
            0
        );
    }
}

fn set_trap_flag() {
    // SAFETY: changes one flag, for which there is a handler; the stack is left as it was.
    unsafe { std::arch::asm!("pushfq", "or dword ptr [rsp], 0x100", "popfq") };
}

fn clear_trap_flag() {
    // SAFETY: as above.
    unsafe { std::arch::asm!("pushfq", "and dword ptr [rsp], 0xfffffeff", "popfq") };
}

/// Steps through one operation; the children return here, too, and end.
fn step_through(operation: &Operation, stage: &Stage<'_>) {
    STAGE.store(
        std::ptr::from_ref(stage).cast_mut().cast(),
        Ordering::Relaxed,
    );
    set_trap_flag();
    let answer = (operation.run)(stage.scene);
    clear_trap_flag();
    stage.conclude("operation", answer.map(|()| 0));
    if stage.interrupted_at.get().is_some() {
        stage.conclude("end", stage.scene.check_at_rest(stage.known, false));
        end(0);
    }
}

/// Lets a process step through the operation on shared memory until it is killed, at one instruction
/// after the other, and looks at what it left.
fn kill_on_the_way(operation: &Operation, stage: &Stage<'_>) {
    let shared = Shared::new(stage.scene.bytes());
    let stride = (KILL_STRIDE * stage.sample).min(MOST_BETWEEN_KILLS);
    for last in (1..).map(|number| number * stride) {
        let scene = stage.scene.in_shared(&shared);
        let killed = Stage {
            scene: &scene,
            instruction: Cell::new(0),
            interrupted_at: Cell::new(None),
            dies_at: Some(last),
            ..*stage
        };
        if Child::fork(|| step_through(operation, &killed)).ended_well() {
            return;
        }
        stage.count(KILLED, 1);
        let left = stage.scene.left_in(&shared);
        stage.interrupted_at.set(Some(last));
        stage.conclude("left by a kill", left.check_readable(stage.known));
        stage.conclude("reopened after a kill", left.check_reopened(stage.known));
        stage.interrupted_at.set(None);
    }
}

#[test]
fn an_operation_may_be_interrupted_or_killed_at_any_instruction() {
    let sample = std::env::var("STACKDEPOT_SAMPLE").ok();
    let sample = sample.map_or(SAMPLE, |sample| {
        sample.parse().expect("STACKDEPOT_SAMPLE is a number")
    });
    let tally = Shared::new(4096);
    // A process of its own: of one thread, so that a fork is the whole of it.
    let stepper = Child::fork(|| {
        let (known, findings) = (known(), Findings::new());
        install_handler();
        for operation in &OPERATIONS {
            let scene = Scene::prepare(operation.is_roomy);
            let stage = Stage {
                operation: operation.name,
                scene: &scene,
                known: &known,
                sample,
                instruction: Cell::new(0),
                interrupted_at: Cell::new(None),
                dies_at: None,
                tally: tally.words(),
                findings: &findings,
            };
            // Once before: what the loader and the processor do the first time is not of interest.
            (operation.run)(&scene.again()).unwrap();
            kill_on_the_way(operation, &stage);
            step_through(operation, &stage);
            println!(
                "every-instruction: {}: {} instructions",
                operation.name,
                stage.instruction.get()
            );
        }
    });
    assert!(stepper.ended_well(), "the stepping process failed");
    let count = |word: usize| tally.words()[word].load(Ordering::Relaxed);
    let (instructions, tried) = (count(INSTRUCTIONS), count(TRIED));
    println!(
        "every-instruction: {instructions} instructions, {tried} interrupted, {} killed for real, {} stacks checked, findings {}",
        count(KILLED),
        count(STACKS),
        count(FOUND)
    );
    assert!(tried > 100 && count(KILLED) > 20 && count(FOUND) == 0);
}
