//! What the tests of the command share: the built command, scratch directories, C programs.
#![allow(dead_code)] // every test file uses its own part

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// The command, without the recorder's variables of an outer run.
pub fn stackdepot() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stackdepot"));
    command
        .env_remove("LD_PRELOAD")
        .env_remove("STACKDEPOT_RUN")
        .env_remove("STACKDEPOT_BYTES");
    command
}

/// A directory of the test's own, removed when it is done.
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let base = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = base.join(format!("{name}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// The command in this directory.
    pub fn stackdepot(&self) -> Command {
        let mut command = stackdepot();
        command.current_dir(&self.0).stdin(Stdio::null());
        command
    }

    /// The only recording in this directory.
    pub fn recording(&self) -> PathBuf {
        let found = self.recordings();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    }

    pub fn recordings(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().path());
        let is_recording = |path: &PathBuf| {
            path.file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("stackdepot.")
        };
        let mut found: Vec<PathBuf> = entries.filter(is_recording).collect();
        found.sort();
        found
    }

    /// Builds a program out of tests/programs.
    pub fn compile(&self, name: &str, flags: &[&str]) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/programs")
            .join(format!("{name}.c"));
        let cxx_source = source.with_extension("cpp");
        let (variable, compiler, source) = match source.exists() {
            true => ("CC", "cc", source),
            false => ("CXX", "c++", cxx_source),
        };
        let program = self.join(name);
        let compiler = std::env::var_os(variable).unwrap_or_else(|| compiler.into());
        let output = Command::new(compiler)
            .args(["-g", "-O1", "-o"])
            .arg(&program)
            .arg(&source)
            .args(flags)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        program
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a command and answers status, stdout and stderr.
pub fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    split(&output)
}

pub fn split(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// The document that a verb writes.
pub fn json(scratch: &Scratch, arguments: &[&OsStr]) -> serde_json::Value {
    let (status, stdout, stderr) = run(scratch.stackdepot().args(arguments));
    assert_eq!(status, Some(0), "{stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// An error is one line, starts with the command's name, and is no panic.
pub fn assert_one_line(stderr: &str) {
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("stackdepot: "), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}
