//! Writing to stdout and stderr so that a closed pipe ends the command quietly.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::failure::{Failure, reason};
use crate::text::plain;

/// Writes a whole text. A reader that closed the pipe (`| head`) has what it wanted.
///
/// # Errors
/// Anything else that keeps the text from being written.
pub fn print(text: &str) -> Result<ExitCode, Failure> {
    stream(|stdout| stdout.write_all(text.as_bytes()))
}

/// Writes piece by piece what need not be in memory at once.
///
/// # Errors
/// As [`print()`].
pub fn stream(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<ExitCode, Failure> {
    let mut stdout = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    match write(&mut stdout).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        Err(error) => Err(Failure::new(format_args!(
            "cannot write to stdout: {}",
            reason(&error)
        ))),
    }
}

/// Tells the user something beside the result, on one line of stderr.
pub fn note(line: &str) {
    // Nothing is left to tell a user whose stderr is closed.
    let _ = writeln!(io::stderr(), "stackdepot: note: {}", plain(line));
}

/// A line on a terminal's stderr that says how far long work is; silent elsewhere.
pub struct Progress {
    what: &'static str,
    started: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    /// Work that is quick shows nothing.
    pub fn new(what: &'static str) -> Progress {
        Progress {
            what,
            started: Instant::now(),
            shown: None,
            is_terminal: io::stderr().is_terminal(),
        }
    }

    /// `done` of `all`.
    pub fn show(&mut self, done: usize, all: usize) {
        let now = Instant::now();
        let last = self.shown.unwrap_or(self.started);
        let pause = if self.shown.is_some() { 100 } else { 400 };
        if self.is_terminal && now.duration_since(last) > Duration::from_millis(pause) {
            let percent = done * 100 / all.max(1);
            let _ = write!(
                io::stderr(),
                "\r\x1b[Kstackdepot: {} {percent} %",
                self.what
            );
            self.shown = Some(now);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
