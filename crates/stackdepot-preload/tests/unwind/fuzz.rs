//! Registers that are garbage: a walk may end early but never crash.

use std::ffi::c_void;

use stackdepot_preload::unwind::{self, FRAME_LIMIT, Registers};

use crate::frames;
use crate::probe::{alone, prepare};

/// Random walks per run.
const WALK_COUNT: u64 = 2_000_000;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn pick(&mut self, from: &[u64]) -> u64 {
        let index = (self.next() >> 33) as usize % from.len();
        from[index]
    }

    /// A word near something that matters, or anything.
    fn word(&mut self, near: &[u64]) -> u64 {
        match self.next() % 8 {
            0 => self.next(),
            1 => self.next() >> 17,
            2 => self.pick(&[
                0,
                1,
                7,
                8,
                4096,
                1 << 47,
                (1 << 47) - 8,
                u64::MAX,
                u64::MAX - 7,
            ]),
            3 => self.pick(near),
            4 => self.pick(near).wrapping_add(self.next() % 65536),
            5 => self.pick(near).wrapping_sub(self.next() % 65536),
            6 => self.pick(near).wrapping_add(8 * (self.next() % 512)),
            _ => self.pick(near) & !0xfff,
        }
    }
}

struct Collected {
    ips: Vec<u64>,
    places: Vec<u64>,
}

#[unsafe(naked)]
unsafe extern "C" fn collect(data: *mut c_void) {
    std::arch::naked_asm!("mov rsi, rsp", "mov rdx, rbp", "jmp {}", sym collect_at)
}

unsafe extern "C" fn collect_at(data: *mut c_void, entry_sp: *const u64, bp: u64) {
    let mut out = [0; FRAME_LIMIT];
    // SAFETY: `collect` passes its own stack pointer at entry.
    let registers = unsafe { Registers::at_entry(entry_sp, bp) };
    let walk = unwind::capture(registers, None, &mut out);
    // SAFETY: the caller passes the live collection.
    let collected = unsafe { &mut *data.cast::<Collected>() };
    collected.ips.extend_from_slice(walk.frames());
    collected.places.extend([registers.sp, bp]);
}

#[test]
fn garbage_registers_never_crash() {
    let _alone = alone();
    prepare();
    // On a thread, so that its guard page lies near the stack.
    let thread = std::thread::spawn(|| {
        let mut collected = Collected {
            ips: vec![],
            places: vec![],
        };
        let mut tree = crate::Tree {
            probe: collect,
            data: (&raw mut collected).cast(),
            seed: 11,
            probes_left: 300,
            depth_limit: 30,
        };
        // SAFETY: the collection lives through the call.
        unsafe { (frames().run_tree)(&raw mut tree) };
        collected.ips.sort_unstable();
        collected.ips.dedup();
        let heap = vec![0_u64; 512];
        collected
            .places
            .extend([heap.as_ptr() as u64, (&raw const heap) as u64]);
        collected.places.extend(environment_address());
        let mut random = Random(0x1234_5678_9abc_def1);
        let slot = unwind::thread_begin();
        let mut frames = 0;
        let mut out = [0; 64];
        for _ in 0..WALK_COUNT {
            let ip = if random.next().is_multiple_of(4) {
                random.word(&collected.ips)
            } else {
                random.pick(&collected.ips)
            };
            let registers = Registers {
                ip,
                sp: random.word(&collected.places),
                bp: random.word(&collected.places),
            };
            let thread = slot.filter(|_| random.next().is_multiple_of(2));
            frames += unwind::capture(registers, thread, &mut out).frames().len() as u64;
        }
        eprintln!("{WALK_COUNT} garbage walks, {frames} frames");
        assert!(frames > WALK_COUNT);
    });
    thread.join().expect("no panic");
}

/// An address near the end of the main thread's stack.
fn environment_address() -> Option<u64> {
    // SAFETY: reads the process's environment pointer; nobody changes it here.
    let name = unsafe { libc::getenv(c"PATH".as_ptr()) };
    (!name.is_null()).then_some(name as u64)
}
