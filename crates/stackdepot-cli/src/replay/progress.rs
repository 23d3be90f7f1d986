//! A progress line on stderr, when that is a terminal; nothing otherwise.

use std::io::{IsTerminal, Write, stderr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Events between two reports of a thread.
pub const REPORT_EVENTS: usize = 4096;
/// Least time between two changes of the line.
const PERIOD: Duration = Duration::from_millis(100);

/// The line, shared by the replaying threads.
pub struct Progress {
    on_terminal: bool,
    done: AtomicU64,
    line: Mutex<Line>,
}

/// What is being done, how much of it there is, and when it was last shown.
struct Line {
    stage: String,
    total: u64,
    shown: Instant,
}

impl Progress {
    /// Shows nothing yet.
    pub fn new() -> Progress {
        let line = Line {
            stage: String::new(),
            total: 1,
            shown: Instant::now(),
        };
        Progress {
            on_terminal: stderr().is_terminal(),
            done: AtomicU64::new(0),
            line: Mutex::new(line),
        }
    }

    /// Begins a stage of `total` events.
    pub fn begin(&self, stage: &str, total: usize) {
        self.done.store(0, Ordering::Relaxed);
        if let Ok(mut line) = self.line.lock() {
            stage.clone_into(&mut line.stage);
            line.total = (total as u64).max(1);
        }
    }

    /// Counts events; shows the line when it is time. A thread that finds another one at it goes on.
    pub fn add(&self, events: usize) {
        if !self.on_terminal {
            return;
        }
        let done = self.done.fetch_add(events as u64, Ordering::Relaxed) + events as u64;
        let Ok(mut line) = self.line.try_lock() else {
            return;
        };
        if line.shown.elapsed() < PERIOD {
            return;
        }
        line.shown = Instant::now();
        let percent = (done * 100 / line.total).min(100);
        // A terminal that went away is no reason to stop.
        let _ = write!(stderr(), "\r\x1b[Kreplay: {} {percent} %", line.stage);
    }
}

/// The line goes with it, so that results and errors stand alone.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.on_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
