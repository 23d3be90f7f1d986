//! Signals: handlers save, fetch and put on the region whose operations they interrupt.
//!
//! Two threads save and put without pause; a third one sends them signals as fast as it can.
//! The handler may interrupt another run of itself.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use stackdepot::{Config, Depot, Held, Line};

use crate::audit::{check_found_again, check_nothing_leaked};
use crate::findings::{Findings, seed};
use crate::stacks::{Random, Seen, Stack, look};

const VARIETY: u64 = 300;
const REGION_BYTES: usize = 16 << 10;
const THREADS: usize = 2;
const DURATION: Duration = Duration::from_millis(1500);

static DEPOT: OnceLock<Depot<'static>> = OnceLock::new();
static FINDINGS: Findings = Findings::new();
static SIGNALS: AtomicU64 = AtomicU64::new(0);
static HANDLER_REFUSED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(_: libc::c_int) {
    let Some(depot) = DEPOT.get() else { return };
    let mut random = Random(SIGNALS.fetch_add(1, Ordering::Relaxed));
    for _ in 0..6 {
        let id = random.below(VARIETY);
        match depot.save_acquire(Stack::new(id).frames()) {
            Ok(held) => {
                if look(depot, held.weak, id) != Seen::Right {
                    FINDINGS.add(format_args!("a handler lost stack {id}"));
                }
                depot.put(held.handle);
            }
            Err(_) => {
                HANDLER_REFUSED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn install_handler() {
    let handler: extern "C" fn(libc::c_int) = handler;
    // SAFETY: all zeros is a valid sigaction; the handler only uses lock-free code and atomics.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_NODEFER;
        assert_eq!(
            libc::sigaction(libc::SIGUSR1, &action, std::ptr::null_mut()),
            0
        );
    }
}

/// Saves and puts until it is told to stop; answers its saves and how many were refused.
fn save_without_pause(depot: Depot<'_>, seed: u64, stop: &AtomicBool) -> (u64, u64) {
    let (mut saves, mut refused) = (0, 0);
    let mut random = Random(seed);
    let mut held: Vec<(u64, Held)> = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let id = random.below(VARIETY);
        saves += 1;
        match depot.save_acquire(Stack::new(id).frames()) {
            Ok(one) => held.push((id, one)),
            Err(_) => refused += 1,
        }
        if held.len() > 3 {
            let (id, one) = held.swap_remove(random.below(4) as usize);
            if look(&depot, one.weak, id) != Seen::Right {
                FINDINGS.add(format_args!("held stack {id} is lost"));
            }
            depot.put(one.handle);
        }
    }
    held.into_iter().for_each(|(_, one)| depot.put(one.handle));
    (saves, refused)
}

#[test]
fn handlers_that_interrupt_saves_save_the_same_stacks() {
    let seed = seed("signals");
    let memory: &'static mut [Line] = vec![Line::ZERO; REGION_BYTES / 64].leak();
    let config = Config {
        references: true,
        ..Config::new(REGION_BYTES)
    };
    let depot = *DEPOT.get_or_init(|| Depot::new(memory, &config).unwrap());
    install_handler();
    let (stop, started) = (AtomicBool::new(false), Barrier::new(THREADS + 1));
    let ids: Vec<AtomicU64> = (0..THREADS).map(|_| AtomicU64::new(0)).collect();
    std::thread::scope(|scope| {
        let savers = ids.iter().enumerate().map(|(number, id)| {
            let (stop, started) = (&stop, &started);
            scope.spawn(move || {
                // SAFETY: asks for this thread's own id.
                id.store(unsafe { libc::pthread_self() } as u64, Ordering::Relaxed);
                started.wait();
                save_without_pause(depot, seed ^ number as u64, stop)
            })
        });
        let savers: Vec<_> = savers.collect();
        started.wait();
        let start = Instant::now();
        while start.elapsed() < DURATION {
            for id in &ids {
                // SAFETY: the threads live until `stop` is set.
                unsafe {
                    libc::pthread_kill(id.load(Ordering::Relaxed) as libc::pthread_t, libc::SIGUSR1)
                };
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        stop.store(true, Ordering::Relaxed);
        for saver in savers {
            let (saves, refused) = saver.join().unwrap();
            println!("{saves} saves, {refused} refused");
        }
    });
    let refused = HANDLER_REFUSED.load(Ordering::Relaxed);
    println!(
        "{} signals, {refused} saves of handlers refused",
        SIGNALS.load(Ordering::Relaxed)
    );
    FINDINGS.note("signals", check_found_again(&depot));
    FINDINGS.note("signals", check_nothing_leaked(&depot, 0));
    FINDINGS.assert_none();
}
