//! Passes signals on to the recorded program, as if it had been started without us.
//!
//! A signal that another process sends to `run` goes on to the program. What the terminal sends
//! (SIGINT on Ctrl-C) reaches the whole foreground group, so the program has it already, and we
//! only outlive it. Handlers, not SIG_IGN: an exec puts handled signals back to their default,
//! so the program starts with the dispositions that we were started with.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::exfiltrator::WithOrigin;
use signal_hook::iterator::{Handle, SignalsInfo};
use signal_hook::low_level::siginfo::{Cause, Origin};

/// What the program is to be told about.
const FORWARDED: [i32; 6] = [SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Forwards from before the program starts until [`Forwarder::finish`].
pub struct Forwarder {
    receiver: Arc<Receiver>,
    handle: Handle,
    thread: JoinHandle<()>,
}

#[derive(Default)]
struct Receiver {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default)]
enum State {
    #[default]
    NotStarted,
    Running(Pid),
    /// Its pid may already be somebody else's.
    Ended,
}

impl Forwarder {
    /// Takes the signals over; until the program runs they wait.
    ///
    /// # Errors
    /// The system refuses a handler or the thread.
    pub fn start() -> std::io::Result<Forwarder> {
        let ignored = ignored_signals();
        let is_ignored = |signal: i32| ignored >> (signal - 1) & 1 == 1;
        // While SIGCHLD is ignored, nobody can wait for a program: a handler ends that.
        let taken = FORWARDED
            .iter()
            .filter(|signal| !is_ignored(**signal))
            .chain(Some(&SIGCHLD).filter(|signal| is_ignored(**signal)));
        let mut signals = SignalsInfo::<WithOrigin>::new(taken)?;
        let handle = signals.handle();
        let receiver = Arc::new(Receiver::default());
        let shared = Arc::clone(&receiver);
        let thread = std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for origin in signals.forever() {
                    shared.pass_on(&origin);
                }
            })?;
        Ok(Forwarder {
            receiver,
            handle,
            thread,
        })
    }

    /// The program runs: what waited goes to it.
    pub fn started(&self, pid: Pid) {
        self.receiver.set(State::Running(pid));
    }

    /// The program ended and is not yet reaped: nothing is sent any more.
    pub fn finish(self) {
        self.receiver.set(State::Ended);
        self.handle.close();
        // The thread does not panic; and if it did, the program has ended all the same.
        let _ = self.thread.join();
    }
}

impl Receiver {
    fn set(&self, state: State) {
        *self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = state;
        self.changed.notify_all();
    }

    fn pass_on(&self, origin: &Origin) {
        if matches!(origin.cause, Cause::Kernel) || origin.signal == SIGCHLD {
            return;
        }
        let Some(signal) = Signal::from_named_raw(origin.signal) else {
            return;
        };
        let mut state = self
            .state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        while matches!(*state, State::NotStarted) {
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if let State::Running(pid) = *state {
            // It may have ended this instant; it is not reaped before the state says so.
            let _ = kill_process(pid, signal);
        }
    }
}

/// Signals that we were started to ignore (nohup), one bit each: the program is to ignore them too.
fn ignored_signals() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .unwrap_or(0)
}
