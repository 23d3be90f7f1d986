//! What the measurements need of the machine: a clock, untouched memory, who was interrupted.
//!
//! Key type: [`Watch`], which adds up short spans and leaves out those in which the thread was
//! preempted: that time belongs to another process.
#![allow(unsafe_code)] // system calls, memory, and a data dependency that the compiler cannot see

use std::arch::asm;
use std::ptr::NonNull;
use std::time::Instant;

/// A span that took longer is looked at for preemption.
const SUSPECT_NS: u64 = 20_000;
/// How often the clock's own cost is measured.
const CLOCK_TRIALS: usize = 1001;

/// Adds up the time of batches.
#[derive(Debug)]
pub struct Watch {
    total_ns: u64,
    count: u64,
    clock_ns: u64,
    switches: i64,
}

impl Watch {
    /// At zero.
    pub fn new() -> Watch {
        Watch {
            total_ns: 0,
            count: 0,
            clock_ns: clock_ns(),
            switches: switches(),
        }
    }

    /// Times a batch of `count` operations.
    #[inline(always)]
    pub fn time<T>(&mut self, count: usize, work: impl FnOnce() -> T) -> T {
        let (answer, ns) = self.span(work);
        self.add(ns, count);
        answer
    }

    /// Times some work; `None` if the thread was preempted in it. For those who learn only
    /// afterwards whether it counts.
    #[inline(always)]
    pub fn span<T>(&mut self, work: impl FnOnce() -> T) -> (T, Option<u64>) {
        let start = Instant::now();
        let answer = work();
        let ns = start.elapsed().as_nanos() as u64;
        let is_sound = ns < SUSPECT_NS || !self.was_preempted();
        (answer, is_sound.then(|| ns.saturating_sub(self.clock_ns)))
    }

    /// Counts a span of `count` operations.
    #[inline(always)]
    pub fn add(&mut self, ns: Option<u64>, count: usize) {
        if let Some(ns) = ns {
            self.total_ns += ns;
            self.count += count as u64;
        }
    }

    /// Nanoseconds per operation, over all batches.
    pub fn ns(&self) -> f64 {
        self.total_ns as f64 / self.count.max(1) as f64
    }

    #[cold]
    fn was_preempted(&mut self) -> bool {
        let before = std::mem::replace(&mut self.switches, switches());
        before != self.switches
    }
}

/// What an empty span measures: the median of many.
fn clock_ns() -> u64 {
    let mut trials: Vec<u64> = (0..CLOCK_TRIALS)
        .map(|_| Instant::now().elapsed().as_nanos() as u64)
        .collect();
    trials.sort_unstable();
    trials.get(CLOCK_TRIALS / 2).copied().unwrap_or_default()
}

/// Times that this thread was taken off its processor.
fn switches() -> i64 {
    // SAFETY: all zeros is a value of the C structure.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `usage` is a whole structure of ours.
    unsafe { libc::getrusage(libc::RUSAGE_THREAD, &mut usage) };
    usage.ru_nivcsw
}

/// Zeroed memory that nobody touched, for the rest of the process.
pub fn untouched(bytes: usize) -> NonNull<u8> {
    let (protection, kind) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    );
    // SAFETY: a new mapping at an address of the kernel's choice.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, kind, -1, 0) };
    assert!(
        base != libc::MAP_FAILED,
        "there is no memory for {bytes} bytes"
    );
    NonNull::new(base.cast()).expect("mappings do not lie at 0")
}

/// Bytes of this process' own memory that are resident: no files.
pub fn resident_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or_default()
        * 1024
}

/// Zero, but only once `value` is known: makes the next operation wait for the one before.
#[inline(always)]
pub fn zero_after(value: u64) -> usize {
    let mut word = value;
    // SAFETY: touches one register. The processor does not know this as an idiom for zero.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("and {0}, 0", inout(reg) word, options(pure, nomem, nostack));
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("and {0}, {0}, xzr", inout(reg) word, options(pure, nomem, nostack));
    }
    word as usize
}
