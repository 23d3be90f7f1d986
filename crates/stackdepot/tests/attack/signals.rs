//! Signals: handlers save, fetch and put on the region whose operations they interrupt.
//!
//! Two threads save and put without pause; a third one sends them signals as fast as it can.
//! The handler saves the very stack that it interrupts the save of, and keeps it held until that
//! save is over: both must have got the same name. It may interrupt another run of itself.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Barrier, OnceLock};
use std::time::{Duration, Instant};

use stackdepot::{Config, Depot, Held, Line, SaveError, WeakHandle};

use crate::audit::{check_found_again, check_nothing_leaked};
use crate::findings::{Findings, seed};
use crate::stacks::{Random, Seen, Stack, look};

const VARIETY: u64 = 150;
const REGION_BYTES: usize = 8 << 10;
const THREADS: usize = 2;
const DURATION: Duration = Duration::from_millis(1500);

/// What the thread is saving (number + 1), for the handlers that interrupt it.
static SAVING: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];
/// The name that a handler got for it, and holds.
static HANDLERS_NAME: [AtomicU64; THREADS] = [const { AtomicU64::new(0) }; THREADS];

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

static DEPOT: OnceLock<Depot<'static>> = OnceLock::new();
static FINDINGS: Findings = Findings::new();
static SIGNALS: AtomicU64 = AtomicU64::new(0);
static HANDLER_REFUSED: AtomicU64 = AtomicU64::new(0);

extern "C" fn handler(_: libc::c_int) {
    let Some(depot) = DEPOT.get() else { return };
    save_what_is_being_saved(depot, NUMBER.get());
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

fn save_what_is_being_saved(depot: &Depot<'_>, thread: usize) {
    let saving = SAVING[thread].load(Ordering::Relaxed);
    if saving == 0 {
        return;
    }
    if let Ok(held) = depot.save_acquire(Stack::new(saving - 1).frames()) {
        let name = held.weak.to_bits();
        put_name(depot, HANDLERS_NAME[thread].swap(name, Ordering::Relaxed));
    }
}

fn put_name(depot: &Depot<'_>, name: u64) {
    if name != 0 {
        depot.put(depot.handle_of(WeakHandle::from_bits(name)));
    }
}

/// Saves, and compares the name with the one that a handler got meanwhile.
fn save(depot: &Depot<'_>, id: u64) -> Result<Held, SaveError> {
    let thread = NUMBER.get();
    SAVING[thread].store(id + 1, Ordering::Relaxed);
    let saved = depot.save_acquire(Stack::new(id).frames());
    SAVING[thread].store(0, Ordering::Relaxed);
    let other = HANDLERS_NAME[thread].swap(0, Ordering::Relaxed);
    if let Ok(held) = saved
        && other != 0
        && other != held.weak.to_bits()
    {
        FINDINGS.add(format_args!(
            "stack {id} is {:?} and, for a handler, {other:x}",
            held.weak
        ));
    }
    put_name(depot, other);
    saved
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
        match save(&depot, id) {
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
                NUMBER.set(number);
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
