//! Whole stacks, frame by frame against libunwind: shapes, recursion, signals, coroutines,
//! threads, code without tables, modules that come and go.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use stackdepot_preload::unwind::{End, Registers, capture, gate, thread_end};

use crate::probe::{LOADED_COUNT, Tally, UNLOADED_COUNT, alone, prepare, probe};
use crate::{Tree, frames};

fn tree(tally: &mut Tally, seed: u64, probe_count: i64, depth_limit: i64) -> Tree {
    let data = tally.data();
    Tree {
        probe,
        data,
        seed,
        probes_left: probe_count,
        depth_limit,
    }
}

fn finish(tally: &Tally) {
    if let Some(slot) = tally.thread {
        thread_end(slot);
    }
}

#[test]
fn random_call_trees_agree_with_libunwind() {
    let _alone = alone();
    let mut tally = Tally::new();
    for seed in 1..=40_u64 {
        let depth_limit = 4 + (seed as i64 * 7) % 60;
        let mut tree = tree(&mut tally, seed * 0x9e37_79b9, 1000, depth_limit);
        // SAFETY: the tree and its tally live through the call.
        unsafe { (frames().run_tree)(&raw mut tree) };
    }
    eprintln!(
        "{} stacks, {} frames, {} reused, {} stacks recognised",
        tally.stacks, tally.frames, tally.reused, tally.recognised
    );
    tally.assert_all_equal(40_000);
    assert!(
        tally.reused * 2 > tally.frames,
        "the memo reuses most frames"
    );
    assert!(tally.deepest > 60);
    finish(&tally);
}

#[test]
fn threads_share_the_rule_cache_and_all_agree() {
    let _alone = alone();
    let threads: Vec<_> = (1..=4_u64)
        .map(|number| {
            std::thread::spawn(move || {
                let mut tally = Tally::new();
                let mut tree = tree(&mut tally, number * 0x1234_5677, 5000, 30);
                // SAFETY: as above.
                unsafe { (frames().run_tree)(&raw mut tree) };
                tally.assert_all_equal(5000);
                finish(&tally);
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a thread found a difference");
    }
}

#[test]
fn deep_recursion_stops_at_the_limit() {
    let _alone = alone();
    let mut tally = Tally::new();
    for depth in [
        1, 100, 230, 300, 300, 301, 299, 600, 2000, 310, 220, 220, 210, 10,
    ] {
        // SAFETY: the tally lives through the call.
        unsafe { (frames().plain_recursion)(probe, tally.data(), depth) };
    }
    tally.assert_all_equal(14);
    assert_eq!(tally.limit_reached, 7);
    finish(&tally);
}

#[test]
fn stacks_just_around_the_limit_agree() {
    let _alone = alone();
    let mut tally = Tally::new();
    for depth in (215..265).chain((215..265).rev()) {
        for _ in 0..2 {
            // SAFETY: the tally lives through the call.
            unsafe { (frames().plain_recursion)(probe, tally.data(), depth) };
        }
    }
    tally.assert_all_equal(200);
    assert!((20..180).contains(&tally.limit_reached), "{tally:?}");
    finish(&tally);
}

#[test]
fn stacks_through_a_signal_handler_agree() {
    let _alone = alone();
    let mut tally = Tally::new();
    let mut tree = tree(&mut tally, 77, 0, 12);
    for round in 0..200 {
        tree.probes_left = 10;
        // SAFETY: as above; nothing else in this process uses the signal at this moment.
        unsafe { (frames().run_in_handler)(&raw mut tree, round % 7, libc::SA_NODEFER) };
    }
    tally.assert_all_equal(2000);
    finish(&tally);
}

#[test]
fn dead_frames_are_not_taken_for_live_ones() {
    let _alone = alone();
    let mut tally = Tally::new();
    // SAFETY: the tally lives through the call.
    unsafe { (frames().stale_frames)(probe, tally.data()) };
    tally.assert_all_equal(512);
    finish(&tally);
}

#[test]
fn a_new_epoch_voids_the_memo() {
    let _alone = alone();
    let mut tally = Tally::new();
    for _ in 0..2 {
        // SAFETY: the tally lives through the call.
        unsafe { (frames().plain_recursion)(probe, tally.data(), 30) };
    }
    let reused = tally.reused;
    assert!(reused > 0);
    gate::closing_begin();
    gate::closing_end();
    // SAFETY: as above.
    unsafe { (frames().plain_recursion)(probe, tally.data(), 30) };
    assert_eq!(tally.reused, reused);
    tally.assert_all_equal(3);
    finish(&tally);
}

#[test]
fn stacks_interrupted_at_any_instruction_agree() {
    const PROBE_COUNT: i64 = 1500;
    let _alone = alone();
    let mut tally = Tally::new();
    let mut tree = tree(&mut tally, 1, PROBE_COUNT, 0);
    // SAFETY: no arguments.
    let target = unsafe { libc::pthread_self() };
    let done = AtomicBool::new(false);
    let turns = AtomicI64::new(0);
    std::thread::scope(|scope| {
        let (done, turns) = (&done, &turns);
        scope.spawn(move || {
            let mut last = 0;
            while !done.load(Ordering::Relaxed) {
                // A thread that waits for a processor would be interrupted where it was before.
                let now = turns.load(Ordering::Relaxed);
                if now > last {
                    last = now;
                    // SAFETY: the thread lives until `done`; its first turn comes after its handler.
                    unsafe { libc::pthread_kill(target, libc::SIGUSR2) };
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        // SAFETY: the tree, its tally and the turns live through the call.
        unsafe { (frames().spin_under_signals)(&raw mut tree, turns) };
        done.store(true, Ordering::Relaxed);
    });
    eprintln!(
        "{} interrupted stacks, {} truncated",
        tally.stacks, tally.truncated
    );
    tally.assert_agreement(PROBE_COUNT as u64);
    // In the first instructions of a function that realigns its stack the CFA is in r10,
    // which walks do not follow: such a stack is truncated, and said to be. Every ninth
    // function here is one.
    assert!(
        tally.truncated * 20 <= tally.stacks,
        "{} truncated",
        tally.truncated
    );
    finish(&tally);
}

#[test]
fn stacks_on_an_alternate_signal_stack_agree() {
    let _alone = alone();
    let thread = std::thread::spawn(|| {
        let mut memory = vec![0_u8; 256 * 1024];
        let stack = libc::stack_t {
            ss_sp: memory.as_mut_ptr().cast(),
            ss_flags: 0,
            ss_size: memory.len(),
        };
        // SAFETY: the memory outlives the use of the stack, which is this thread's only.
        let status = unsafe { libc::sigaltstack(&raw const stack, std::ptr::null_mut()) };
        assert_eq!(status, 0);
        let mut tally = Tally::new();
        let mut tree = tree(&mut tally, 99, 0, 6);
        for round in 0..200 {
            tree.probes_left = 10;
            // SAFETY: as above.
            unsafe { (frames().run_in_handler)(&raw mut tree, round % 7, libc::SA_ONSTACK) };
        }
        tally.assert_all_equal(2000);
        finish(&tally);
        std::mem::forget(memory);
    });
    thread.join().expect("no difference");
}

#[test]
fn stacks_of_coroutines_agree() {
    let _alone = alone();
    const STACK_BYTES: usize = 1 << 20;
    let mut stacks = vec![0_u8; 2 * STACK_BYTES];
    let mut tally = Tally::new();
    let mut tree = tree(&mut tally, 5, 4000, 20);
    // SAFETY: the stacks and the tree live through the call.
    unsafe { (frames().run_coroutines)(&raw mut tree, stacks.as_mut_ptr().cast(), STACK_BYTES) };
    // glibc's outermost coroutine frame claims a return address that is none.
    tally.assert_agreement(4000);
    assert!(tally.reused > 0);
    finish(&tally);
}

/// Executable memory with `code` at its start.
fn executable(code: &[u8]) -> *mut c_void {
    // SAFETY: a fresh mapping, into which the code fits.
    unsafe {
        let page = libc::mmap(
            std::ptr::null_mut(),
            4096,
            libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        assert_ne!(page, libc::MAP_FAILED);
        std::ptr::copy_nonoverlapping(code.as_ptr(), page.cast(), code.len());
        page
    }
}

#[test]
fn code_without_tables_is_left_by_its_frame_pointer() {
    let _alone = alone();
    // push rbp; mov rbp, rsp; sub rsp, 32; mov rax, rdi; mov rdi, rsi; call rax; leave; ret
    let code = [
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x20, 0x48, 0x89, 0xf8, 0x48, 0x89, 0xf7, 0xff,
        0xd0, 0xc9, 0xc3,
    ];
    let mut tally = Tally::new();
    type Call = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void);
    // SAFETY: the code is a function of this type.
    let call = unsafe { std::mem::transmute::<*mut c_void, Call>(executable(&code)) };
    for _ in 0..20 {
        // SAFETY: the tally lives through the call.
        unsafe { call(probe, tally.data()) };
    }
    tally.assert_all_equal(20);
    assert!(tally.deepest > 5);
    finish(&tally);
}

#[test]
fn code_without_tables_or_frame_pointer_is_truncated_not_followed() {
    let _alone = alone();
    prepare();
    let page = executable(&[0xc3; 64]) as u64;
    let words = [0_u64; 64];
    let sp = words.as_ptr() as u64;
    for (bp, expected_is_end) in [
        (0, true),
        (8, false),
        (sp - 8, false),
        (u64::MAX - 7, false),
    ] {
        let mut out = [0; 16];
        let walk = capture(
            Registers {
                ip: page + 8,
                sp,
                bp,
            },
            None,
            &mut out,
        );
        assert_eq!(walk.frames().len(), 1);
        assert_eq!(walk.end == End::Complete, expected_is_end, "bp {bp:x}");
    }
}

#[test]
fn a_closed_module_is_reported_and_its_rules_are_void() {
    let _alone = alone();
    let mut tally = Tally::new();
    for round in 1..=20_u64 {
        let path = crate::build_frames(&format!("closed-{round}"));
        // SAFETY: a valid path; the handle is closed below and its code no longer used.
        unsafe {
            let handle = libc::dlopen(path.as_ptr(), libc::RTLD_NOW);
            assert!(!handle.is_null());
            let run = libc::dlsym(handle, c"run_tree".as_ptr());
            let run = std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*mut Tree)>(run);
            let mut tree = tree(&mut tally, round, 50, 10);
            let loaded_before = LOADED_COUNT.load(std::sync::atomic::Ordering::Relaxed);
            run(&raw mut tree);
            let loaded = LOADED_COUNT.load(std::sync::atomic::Ordering::Relaxed);
            assert!(loaded > loaded_before, "the new module was reported");
            let unloaded_before = UNLOADED_COUNT.load(std::sync::atomic::Ordering::Relaxed);
            let epoch = gate::epoch();
            gate::closing_begin();
            assert_eq!(libc::dlclose(handle), 0);
            gate::closing_end();
            assert!(gate::epoch() != epoch);
            let unloaded = UNLOADED_COUNT.load(std::sync::atomic::Ordering::Relaxed);
            assert!(unloaded > unloaded_before, "the closed module was reported");
        }
    }
    tally.assert_all_equal(1000);
    finish(&tally);
}
