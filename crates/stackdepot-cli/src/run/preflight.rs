//! Looks at a program before it is run: can a preload library see its allocations at all?
//!
//! [`inspect`] finds the file as the shell would, follows `#!` lines, and refuses with the reason
//! where recording is impossible. What is possible but partial becomes a note. Parsing is lenient:
//! a file that we cannot make sense of is left to the kernel to judge.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};

use super::elf;
use crate::failure::{CANNOT_RECORD, Failure, NOT_EXECUTABLE, NOT_FOUND, reason};
use crate::recording::shell_word;

/// A program that can be run under the recorder.
#[derive(Debug)]
pub struct Program {
    /// The file to execute.
    pub path: PathBuf,
    /// It is a script without a `#!` line, for the shell.
    pub needs_shell: bool,
    /// What will not be seen, one line each.
    pub notes: Vec<String>,
}

/// The kernel follows this many `#!` lines.
const MOST_INTERPRETERS: u32 = 5;
/// Finds `name` and checks that its allocations can be recorded.
///
/// # Errors
/// Not found (127), not executable (126), cannot be recorded (125); one line each.
pub fn inspect(name: &OsStr) -> Result<Program, Failure> {
    check_libc()?;
    let path = find(name)?;
    let mut program = Program {
        path: path.clone(),
        needs_shell: false,
        notes: Vec::new(),
    };
    check_file(&path, "it", &mut program, MOST_INTERPRETERS).map_err(|reason| {
        Failure::with_status(
            CANNOT_RECORD,
            format_args!("cannot record {}: {reason}", path.display()),
        )
    })?;
    Ok(program)
}

/// Finds a program as execvp(3) does.
fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    if name.as_bytes().contains(&b'/') {
        return check_executable(Path::new(name)).map(|()| PathBuf::from(name));
    }
    let search =
        std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    let mut refused = None;
    for directory in std::env::split_paths(&search).filter(|_| !name.is_empty()) {
        let path = Path::new(".").join(directory).join(name);
        match check_executable(&path) {
            Ok(()) => return Ok(path),
            Err(failure) if failure.status == NOT_EXECUTABLE && !path.is_dir() => {
                refused.get_or_insert(failure);
            }
            Err(_) => {}
        }
    }
    Err(refused.unwrap_or_else(|| {
        let line = format!("program {} not found in PATH", shell_word(name));
        Failure::with_status(NOT_FOUND, line)
    }))
}

fn check_executable(path: &Path) -> Result<(), Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| {
        let status = match error.kind() {
            std::io::ErrorKind::NotFound => NOT_FOUND,
            _ => NOT_EXECUTABLE,
        };
        Failure::with_status(
            status,
            format_args!("cannot run {}: {}", path.display(), reason(&error)),
        )
    })?;
    let refuse = |why| {
        let line = format_args!("cannot run {}: {why}", path.display()).to_string();
        Err(Failure::with_status(NOT_EXECUTABLE, line))
    };
    if metadata.is_dir() {
        return refuse("it is a directory");
    }
    if !metadata.is_file() {
        return refuse("it is no regular file");
    }
    if rustix::fs::access(path, Access::EXEC_OK).is_err() {
        return refuse("it is not executable (chmod +x)");
    }
    Ok(())
}

/// `subject` is "it", or the interpreter that a script names.
fn check_file(path: &Path, subject: &str, program: &mut Program, depth: u32) -> Result<(), String> {
    check_privileges(path, subject)?;
    // A program that may be executed but not read is left to the kernel.
    let Some(mut file) = open_to_look(path) else {
        return Ok(());
    };
    let mut start = Vec::new();
    if file.by_ref().take(4096).read_to_end(&mut start).is_err() {
        return Ok(());
    }
    if let Some(line) = start.strip_prefix(b"#!") {
        let Some(interpreter) = interpreter(line) else {
            return Ok(());
        };
        if depth == 0 {
            return Ok(());
        }
        let subject = format!("its interpreter {}", interpreter.display());
        return check_file(&interpreter, &subject, program, depth - 1);
    }
    if !start.starts_with(b"\x7fELF") {
        program.needs_shell = depth == MOST_INTERPRETERS;
        return Ok(());
    }
    elf::check(&start, file, path, subject, &mut program.notes)
}

/// A regular file; whatever else a script names as its interpreter must not be waited for.
fn open_to_look(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    file.metadata().ok()?.is_file().then_some(file)
}

/// The path after `#!`.
fn interpreter(line: &[u8]) -> Option<PathBuf> {
    let line = line.split(|byte| *byte == b'\n').next()?;
    let word = line
        .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
        .find(|word| !word.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(word.to_vec())))
}

/// A program that gains privileges on exec ignores LD_PRELOAD.
fn check_privileges(path: &Path, subject: &str) -> Result<(), String> {
    let Ok(metadata) = std::fs::metadata(path) else {
        return Ok(());
    };
    if has_no_new_privileges() {
        return Ok(());
    }
    let user = rustix::process::getuid();
    let group = rustix::process::getgid();
    if metadata.mode() & 0o4000 != 0 && metadata.uid() != user.as_raw() {
        return Err(format!(
            "{subject} is setuid, so the loader ignores LD_PRELOAD; run it as its owner"
        ));
    }
    if metadata.mode() & 0o2010 == 0o2010 && metadata.gid() != group.as_raw() {
        return Err(format!(
            "{subject} is setgid, so the loader ignores LD_PRELOAD; run it as its group"
        ));
    }
    let mut value = [0u8; 64];
    let has_capabilities = rustix::fs::getxattr(path, "security.capability", &mut value).is_ok();
    if has_capabilities && !user.is_root() {
        return Err(format!(
            "{subject} has file capabilities, so the loader ignores LD_PRELOAD; run a copy without them"
        ));
    }
    Ok(())
}

/// With the flag set, setuid bits and file capabilities have no effect.
fn has_no_new_privileges() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.split_whitespace().eq(["NoNewPrivs:", "1"]))
}

/// The recorder finds modules through `_dl_find_object`, which came with glibc 2.35.
#[allow(unsafe_code)] // the C library's version is told by no safe function
fn check_libc() -> Result<(), Failure> {
    // SAFETY: answers a constant, NUL-terminated string of static lifetime.
    let version = unsafe { std::ffi::CStr::from_ptr(libc::gnu_get_libc_version()) };
    let version = version.to_string_lossy();
    let mut parts = version
        .split('.')
        .map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    if found < (2, 35) {
        let line = format!("cannot record: glibc is {version}, and 2.35 or newer is needed");
        return Err(Failure::with_status(CANNOT_RECORD, line));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_of_a_script_is_its_first_word() {
        assert_eq!(
            interpreter(b" /usr/bin/env -S python3\nx"),
            Some(PathBuf::from("/usr/bin/env"))
        );
        assert_eq!(interpreter(b"/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(interpreter(b"\n"), None);
    }
}
