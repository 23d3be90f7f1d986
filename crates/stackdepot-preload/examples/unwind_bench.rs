//! Prints what a stack costs, per frame: unwound in full, and with the thread's memo.
//!
//! Run it with `cargo run --release -p stackdepot-preload --example unwind_bench`. Random
//! calls of four kinds of functions, about 60 deep, take a stack at their leaves; the best of
//! several rounds counts, because other work on the machine only ever adds. The clock is read
//! once per new stack of about 60 frames, and once per four repeated ones: that is included.

#![allow(unsafe_code)] // captures registers

use std::ffi::c_void;
use std::hint::black_box;
use std::time::Instant;

use stackdepot_preload::unwind::{
    self, FRAME_LIMIT, Module, Registers, Sink, ThreadSlot, capture, thread_begin,
};

static SINK: Sink = Sink {
    loaded: |_: &Module<'_>| {},
    unloaded: |_| {},
};
const ROUND_COUNT: u32 = 15;
const STACKS_PER_ROUND: u64 = 20_000;
/// Captures at each leaf where repeated ones count.
const REPEAT_COUNT: u32 = 4;

struct Bench {
    seed: u64,
    depth_limit: u32,
    stacks_left: u64,
    thread: Option<ThreadSlot>,
    /// Only every first capture at a leaf counts, not the repeated ones.
    counts_first: bool,
    frame_count: u64,
    reused_count: u64,
    nanoseconds: u128,
}

impl Bench {
    fn pick(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed >> 20
    }
}

#[unsafe(naked)]
unsafe extern "C" fn leaf(bench: *mut c_void) {
    std::arch::naked_asm!("mov rsi, rsp", "mov rdx, rbp", "jmp {}", sym leaf_at)
}

unsafe extern "C" fn leaf_at(bench: *mut c_void, entry_sp: *const u64, bp: u64) {
    // SAFETY: `leaf` passes its own stack pointer at entry, and a live bench.
    let (registers, bench) = unsafe {
        (
            Registers::at_entry(entry_sp, bp),
            &mut *bench.cast::<Bench>(),
        )
    };
    let mut out = [0; FRAME_LIMIT];
    let repeat_count = if bench.counts_first { 1 } else { REPEAT_COUNT };
    if !bench.counts_first {
        black_box(capture(registers, bench.thread, &mut out));
    }
    let start = Instant::now();
    for _ in 0..repeat_count {
        let walk = capture(registers, bench.thread, black_box(&mut out));
        bench.frame_count += walk.frames().len() as u64;
        bench.reused_count += walk.reused_count as u64;
    }
    bench.nanoseconds += start.elapsed().as_nanos();
    bench.stacks_left = bench.stacks_left.saturating_sub(1);
}

#[inline(never)]
fn small(bench: &mut Bench, depth: u32) {
    go(bench, depth + 1);
    black_box(depth);
}

#[inline(never)]
fn large(bench: &mut Bench, depth: u32) {
    let place = black_box([depth; 200]);
    go(bench, depth + 1);
    black_box(place);
}

#[inline(never)]
fn busy(bench: &mut Bench, depth: u32) {
    let [a, b, c, d, e, f] = black_box([depth; 6]);
    go(bench, depth + 1);
    black_box([a + 1, b + 2, c + 3, d + 4, e + 5, f + 6]);
}

#[inline(never)]
fn go(bench: &mut Bench, depth: u32) {
    for _ in 0..1 + bench.pick() % 3 {
        if bench.stacks_left == 0 {
            return;
        }
        match bench.pick() % 8 {
            _ if depth >= bench.depth_limit => {
                // SAFETY: `leaf` takes a bench that lives through the call.
                unsafe { leaf(std::ptr::from_mut(bench).cast()) }
            }
            0..=2 => small(bench, depth),
            3..=5 => busy(bench, depth),
            _ => large(bench, depth),
        }
    }
}

fn measure(name: &str, thread: Option<ThreadSlot>, counts_first: bool) {
    let mut best = f64::INFINITY;
    let mut reused = 0.0;
    for _ in 0..ROUND_COUNT {
        let mut bench = Bench {
            seed: 0x1234_5678_9abc_def1,
            depth_limit: 30,
            stacks_left: STACKS_PER_ROUND,
            thread,
            counts_first,
            frame_count: 0,
            reused_count: 0,
            nanoseconds: 0,
        };
        while bench.stacks_left > 0 {
            go(&mut bench, 0);
        }
        best = best.min(bench.nanoseconds as f64 / bench.frame_count as f64);
        reused = bench.reused_count as f64 / bench.frame_count as f64;
    }
    println!(
        "{name:32} {best:6.2} ns/frame, {:3.0} % of the frames reused",
        reused * 100.0
    );
}

fn main() {
    assert!(
        unwind::init(&SINK),
        "this glibc has no _dl_find_object (2.35 or later has)"
    );
    let thread = thread_begin();
    measure("full unwind, new stacks", None, true);
    measure("full unwind, repeated stacks", None, false);
    measure("memo, new stacks", thread, true);
    measure("memo, repeated stacks", thread, false);
}
