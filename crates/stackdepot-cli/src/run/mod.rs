//! The `run` verb: a program under the recorder, as if it had been started without us.
//!
//! In order: `preflight` (can it be recorded?), `library` (the preload library on disk), `place`
//! (where the files go), `signals` (passed on), and at the end `summary`. The program keeps our
//! stdin, stdout, stderr and working directory; its exit status becomes ours.

mod elf;
mod library;
mod moving;
mod place;
mod preflight;
mod signals;
mod summary;

use std::ffi::{OsStr, OsString};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};

use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit, waitid};
use stackdepot_region::format::MAX_FILE_BYTES;
use stackdepot_region::plan::{MIN_FILE_BYTES, first_file_bytes};

use crate::args::{RunArguments, parse_bytes};
use crate::failure::{CANNOT_RECORD, Failure, NOT_EXECUTABLE, NOT_FOUND, reason};
use crate::text::bytes;
use place::Place;
use preflight::Program;
use signals::Forwarder;

/// The first process gets half, and no file is smaller than `MIN_FILE_BYTES`.
const LEAST_RUN_BYTES: u64 = 2 * MIN_FILE_BYTES as u64;

const MOST_SAMPLE_BYTES: u64 = 1 << 40;

const NOTHING_RECORDED: &str = "nothing was recorded: the program did not load the preload library, or found no room for its file";

/// Runs the program and answers its exit status.
///
/// # Errors
/// The program cannot be recorded or started; the statuses are those of env(1).
pub fn perform(arguments: &RunArguments) -> Result<ExitCode, Failure> {
    let total_bytes = check_bytes(&arguments.bytes)?;
    let (name, rest) = arguments
        .command
        .split_first()
        .ok_or_else(|| refuse("no program given"))?;
    let program = preflight::inspect(name)?;
    check_file_size_limit(total_bytes)?;
    let sample_bytes = check_sample(arguments.sample.as_deref())?;
    let library = library::extract()?;
    let forwarder = Forwarder::start()
        .map_err(|error| refuse(format_args!("cannot handle signals: {}", reason(&error))))?;
    let place = Place::prepare(arguments.output.as_deref(), total_bytes)?;
    for note in &program.notes {
        summary::note(note);
    }
    let mut command = command(&program, name, rest);
    command
        .env(
            "LD_PRELOAD",
            preload_list(library.path.as_os_str(), std::env::var_os("LD_PRELOAD")),
        )
        .env("STACKDEPOT_RUN", place.first())
        .env("STACKDEPOT_BYTES", total_bytes.to_string())
        .env("STACKDEPOT_SAMPLE", sample_bytes.to_string());
    let child = command.spawn().map_err(|error| {
        place.remove_directory();
        cannot_run(&program, &error)
    })?;
    let pid = child.id();
    let status = wait(child, forwarder)?;
    let settled = place.settle(pid);
    // Also when quiet: what is not where one looks for it.
    settled.notes.iter().for_each(|note| summary::note(note));
    match &settled.first {
        None => summary::note(NOTHING_RECORDED),
        Some(first) if !arguments.quiet => summary::print(&settled, first),
        Some(_) => {}
    }
    Ok(exit_as(status))
}

fn cannot_run(program: &Program, error: &std::io::Error) -> Failure {
    let is_missing = error.kind() == std::io::ErrorKind::NotFound;
    let status = if is_missing {
        NOT_FOUND
    } else {
        NOT_EXECUTABLE
    };
    let missing = match is_missing && program.path.exists() {
        true => " (its interpreter or loader)",
        false => "",
    };
    let (path, why) = (program.path.display(), reason(error));
    Failure::with_status(status, format_args!("cannot run {path}: {why}{missing}"))
}

fn refuse(line: impl std::fmt::Display) -> Failure {
    Failure::with_status(CANNOT_RECORD, line)
}

fn check_bytes(text: &str) -> Result<u64, Failure> {
    let total = parse_bytes(text).map_err(|line| refuse(format_args!("--bytes: {line}")))?;
    if total < LEAST_RUN_BYTES {
        return Err(refuse(format_args!(
            "--bytes {text} is too small: a run takes at least {}",
            bytes(LEAST_RUN_BYTES)
        )));
    }
    if total > MAX_FILE_BYTES {
        return Err(refuse(format_args!(
            "--bytes {text} is too large: a run takes at most {}",
            bytes(MAX_FILE_BYTES)
        )));
    }
    Ok(total)
}

/// Bytes from sample to sample; 0: every block.
fn check_sample(text: Option<&str>) -> Result<u64, Failure> {
    let Some(text) = text else { return Ok(0) };
    let bytes = parse_bytes(text).map_err(|line| refuse(format_args!("--sample: {line}")))?;
    if !(1..=MOST_SAMPLE_BYTES).contains(&bytes) {
        return Err(refuse(format_args!(
            "--sample {text}: write the bytes from one sample to the next, 1 to 1T; without --sample every block is recorded"
        )));
    }
    Ok(bytes)
}

/// Past the limit a write raises SIGXFSZ, here, and the program would go unrecorded.
fn check_file_size_limit(total_bytes: u64) -> Result<(), Failure> {
    let limit = getrlimit(Resource::Fsize).current.unwrap_or(u64::MAX);
    let needed = first_file_bytes(total_bytes).max(library::BYTES);
    if limit >= needed {
        return Ok(());
    }
    let (limit, needed) = (bytes(limit), bytes(needed));
    Err(refuse(format_args!(
        "the file size limit (ulimit -f) is {limit}, and {needed} are needed; raise it, or give less with --bytes"
    )))
}

/// The program as the user named it; a script without `#!` goes to the shell, as execvp(3) does.
fn command(program: &Program, name: &OsStr, rest: &[OsString]) -> Command {
    if program.needs_shell {
        let mut command = Command::new("/bin/sh");
        command.arg(&program.path).args(rest);
        return command;
    }
    let mut command = Command::new(&program.path);
    command.arg0(name).args(rest);
    command
}

/// Ours first, so that it is the one that the program's calls reach.
fn preload_list(library: &OsStr, old: Option<OsString>) -> OsString {
    let mut list = library.to_owned();
    if let Some(old) = old.filter(|old| !old.is_empty()) {
        list.push(":");
        list.push(old);
    }
    list
}

/// Waits for the program. It is reaped only after the forwarder stopped using its pid.
fn wait(mut child: Child, forwarder: Forwarder) -> Result<ExitStatus, Failure> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(pid) = pid {
        forwarder.started(pid);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(
            waitid(WaitId::Pid(pid), options),
            Err(rustix::io::Errno::INTR)
        ) {}
    }
    forwarder.finish();
    child.wait().map_err(|error| {
        refuse(format_args!(
            "cannot wait for the program: {}",
            reason(&error)
        ))
    })
}

/// Exits as the program did; a program that died from a signal is followed by the same signal.
fn exit_as(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // The program left its core, if any; ours would only overwrite it.
        let _ = setrlimit(
            Resource::Core,
            Rlimit {
                current: Some(0),
                maximum: None,
            },
        );
        let _ =
            rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
        // Does not come back, but for signals that it does not know (real-time ones).
        let _ = signal_hook::low_level::emulate_default_handler(signal);
        return ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
    ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_library_comes_before_an_old_one() {
        let list = preload_list(OsStr::new("/a.so"), Some("/b.so:/c.so".into()));
        assert_eq!(list, "/a.so:/b.so:/c.so");
        assert_eq!(preload_list(OsStr::new("/a.so"), Some("".into())), "/a.so");
        assert_eq!(preload_list(OsStr::new("/a.so"), None), "/a.so");
    }

    #[test]
    fn absurd_sizes_name_the_limit() {
        assert!(
            check_bytes("4K")
                .unwrap_err()
                .message
                .contains("at least 1 MiB")
        );
        assert!(
            check_bytes("9999999G")
                .unwrap_err()
                .message
                .contains("at most 64 GiB")
        );
        assert!(check_bytes("x").unwrap_err().message.contains("no size"));
        assert_eq!(check_bytes("64M").unwrap(), 64 << 20);
    }
}
