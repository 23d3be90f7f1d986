//! Child processes: run one to its end, with its output, its status and the CPU of its whole tree.
//!
//! CPU is what the kernel counted for every waited-for descendant. This process is made a
//! subreaper, so that helpers which outlive their parent (heaptrack's pipes) are counted too.

use crate::Answer;
use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use nix::sys::wait::wait;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Output, Stdio};

/// A finished child.
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to stdout.
    pub stdout: Vec<u8>,
    /// What it wrote to stderr.
    pub stderr: Vec<u8>,
}

impl Ran {
    /// Its stderr as text.
    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }

    /// Its stdout as JSON.
    pub fn json(&self) -> Answer<serde_json::Value> {
        if !self.status.success() {
            return Err(format!("{}: {}", self.status, self.errors().trim()));
        }
        serde_json::from_slice(&self.stdout).map_err(|e| format!("not JSON: {e}"))
    }

    /// Whether it ended by a panic or a signal, which no input may cause.
    pub fn crashed(&self) -> bool {
        self.status.signal().is_some()
            || self.status.code() == Some(101)
            || self.errors().contains("panicked at")
    }
}

/// Runs to the end, with the output captured.
pub fn run(command: &mut Command) -> Answer<Ran> {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().map_err(|e| cannot(command, &e))?;
    Ok(Ran {
        status,
        stdout,
        stderr,
    })
}

/// Runs to the end with output captured; anything but success is an error that shows stderr.
pub fn must(command: &mut Command) -> Answer<Ran> {
    let ran = run(command)?;
    if ran.status.success() {
        return Ok(ran);
    }
    Err(format!(
        "{command:?}: {}\n{}",
        ran.status,
        ran.errors().trim_end()
    ))
}

/// Runs tests to the end with their output shown. Last comes a line with the figures of `attacker`, which
/// are those of its lines that end in what was found, and how many tests passed. Answers
/// whether all did.
pub fn attacks(attacker: &str, tests: &mut Command) -> Answer<bool> {
    let mut child = tests
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| cannot(tests, &e))?;
    let begin = format!("{attacker}: ");
    let (mut figures, mut passed, mut failed) = (String::new(), 0, 0);
    let output = child.stdout.take().map(BufReader::new);
    for line in output.into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(|e| format!("{attacker}: {e}"))?;
        println!("{line}");
        // Behind libtest's dots for the tests before.
        let said = line.trim_start_matches('.').strip_prefix(&begin);
        let is_figure = |said: &&str| said.ends_with("wrong 0") || said.ends_with("findings 0");
        if let Some(said) = said.filter(is_figure) {
            figures += &format!("{said}; ");
        }
        passed += number_before(&line, " passed");
        failed += number_before(&line, " failed");
    }
    let status = child.wait().map_err(|e| format!("{attacker}: {e}"))?;
    println!("{attacker}: {figures}{passed} tests passed, {failed} failed");
    Ok(status.success() && passed > 0)
}

/// The number that stands before a word in libtest's line of results.
fn number_before(line: &str, word: &str) -> u64 {
    let result = line.strip_prefix("test result: ");
    let before = result.and_then(|result| result.split_once(word));
    let number = before.and_then(|(before, _)| before.rsplit(' ').next()?.parse().ok());
    number.unwrap_or(0)
}

/// The line for a command that could not be started.
pub fn cannot(command: &Command, error: &std::io::Error) -> String {
    format!(
        "{}: {error}; run `cargo xtask setup`",
        command.get_program().to_string_lossy()
    )
}

/// Makes this process inherit the orphans of its children.
pub fn adopt_orphans() -> Answer<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|e| format!("subreaper: {e}"))
}

/// Runs to the end, waits for every orphan too, and answers the CPU seconds of the whole tree.
pub fn cpu_seconds(command: &mut Command) -> Answer<(Ran, f64)> {
    reap()?;
    let before = children_seconds()?;
    let ran = run(command)?;
    reap()?;
    Ok((ran, children_seconds()? - before))
}

/// Waits for every child and orphan there is.
fn reap() -> Answer<()> {
    loop {
        match wait() {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Ok(()),
            Err(error) => return Err(format!("wait: {error}")),
        }
    }
}

fn children_seconds() -> Answer<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).map_err(|e| format!("getrusage: {e}"))?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}
