//! What a user gets wrong ends at once, in one line that says what it was.

mod common;

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, assert_one_line, run, split};

/// Runs a command that must not hang.
fn run_soon(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let limit = Instant::now() + Duration::from_secs(20);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    split(&child.wait_with_output().unwrap())
}

fn assert_refused(command: &mut Command, expected_status: i32, words: &str) {
    let (status, _, stderr) = run_soon(command);
    assert_eq!(status, Some(expected_status), "{command:?}: {stderr}");
    assert_one_line(&stderr);
    assert!(stderr.contains(words), "{words}: {stderr}");
    assert!(!stderr.contains("os error"), "{stderr}");
}

fn make_pipe(path: &Path) {
    let made = Command::new("mkfifo")
        .args(["-m", "700"])
        .arg(path)
        .status();
    assert!(made.unwrap().success());
}

#[test]
fn a_pipe_is_neither_program_nor_workload() {
    let scratch = Scratch::new("pipe");
    make_pipe(&scratch.join("pipe"));
    let mut command = scratch.stackdepot();
    assert_refused(
        command.args(["run", "--", "./pipe"]),
        126,
        "no regular file",
    );
    let mut command = scratch.stackdepot();
    assert_refused(command.args(["replay", "./pipe"]), 1, "no regular file");
    let mut command = scratch.stackdepot();
    assert_refused(command.args(["replay", "."]), 1, "is a directory");
    // A script that names one is left to the kernel.
    let script = format!("#!{}\n", scratch.join("pipe").display());
    std::fs::write(scratch.join("script"), script).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(scratch.join("script"), executable).unwrap();
    let mut command = scratch.stackdepot();
    assert_refused(
        command.args(["run", "--", "./script"]),
        126,
        "permission denied",
    );
}

#[test]
fn a_script_without_its_interpreter_is_told_from_a_missing_one() {
    let scratch = Scratch::new("interpreter");
    std::fs::write(scratch.join("script"), "#!/no/such/shell\n").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(scratch.join("script"), executable).unwrap();
    let mut command = scratch.stackdepot();
    assert_refused(command.args(["run", "--", "./script"]), 127, "interpreter");
}

#[test]
fn an_output_that_cannot_be_made_is_refused_before_the_program_runs() {
    let scratch = Scratch::new("outputs");
    let long = "x".repeat(250);
    for (output, words) in [("/proc/rec", "/proc"), (long.as_str(), "too long")] {
        let mut command = scratch.stackdepot();
        command.args(["run", "-q", "-o", output, "--", "touch", "ran"]);
        assert_refused(&mut command, 125, words);
    }
    assert!(!scratch.join("ran").exists());
    assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
}

#[test]
fn a_file_size_limit_below_the_recording_is_said_at_once() {
    let scratch = Scratch::new("fsize");
    for limit in [0, 100] {
        let line = format!(
            "ulimit -f {limit}; exec {} run -q -- touch ran",
            env!("CARGO_BIN_EXE_stackdepot")
        );
        let mut command = Command::new("bash");
        command.args(["-c", &line]).current_dir(scratch.path());
        assert_refused(&mut command, 125, "file size limit");
    }
    assert!(!scratch.join("ran").exists());
}

#[test]
fn nothing_recorded_is_said_also_when_quiet() {
    let scratch = Scratch::new("unrecorded");
    // The program has no address space for the file.
    let line = format!(
        "ulimit -v 200000; exec {} run -q --bytes 512M -- ls",
        env!("CARGO_BIN_EXE_stackdepot")
    );
    let mut command = Command::new("bash");
    command.args(["-c", &line]).current_dir(scratch.path());
    let (status, _, stderr) = run(&mut command);
    assert_eq!((status, scratch.recordings().len()), (Some(0), 0));
    assert!(stderr.contains("nothing was recorded"), "{stderr}");
}

#[test]
fn clean_goes_on_after_what_it_cannot_remove() {
    let scratch = Scratch::new("cleaning");
    let record = |name: &str| {
        let (status, ..) = run(scratch
            .stackdepot()
            .args(["run", "-q", "--bytes", "2M", "-o", name, "--", "ls"]));
        assert_eq!(status, Some(0));
    };
    record("one");
    record("two");
    let (status, stdout, stderr) =
        run(scratch
            .stackdepot()
            .args(["clean", "one", "missing", "/etc/passwd", "two"]));
    assert_eq!(status, Some(1));
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    assert!(!scratch.join("one").exists() && !scratch.join("two").exists());
}

#[test]
fn what_else_lies_in_the_directory_of_a_run_stays_there() {
    let scratch = Scratch::new("strangers");
    // The directory is the one of STACKDEPOT_RUN.
    let script = "cd ${STACKDEPOT_RUN%/*} && mkdir sub && ln -s /etc/passwd first.9-9 && pwd";
    let (status, stdout, _) = run(scratch
        .stackdepot()
        .args(["run", "-q", "--", "sh", "-c", script]));
    assert_eq!(status, Some(0));
    let place = Path::new(stdout.trim());
    let moved = scratch.recordings();
    assert!(
        !moved.is_empty()
            && moved
                .iter()
                .all(|path| !path.to_string_lossy().ends_with(".9-9"))
    );
    assert!(place.join("sub").is_dir() && place.join("first.9-9").is_symlink());
    // And `clean` takes the rest of its work from there.
    symlink("nowhere", place.join("dangling")).unwrap();
    let _ = run(scratch.stackdepot().arg("clean"));
    assert!(!place.join("first.9-9").is_symlink() && !place.join("dangling").is_symlink());
    std::fs::remove_dir_all(place).unwrap();
}

#[test]
fn errors_of_files_are_words_without_numbers() {
    let scratch = Scratch::new("words");
    std::fs::write(scratch.join("file"), "").unwrap();
    symlink("loop", scratch.join("loop")).unwrap();
    for (target, words) in [
        ("file/", "not a directory"),
        ("loop", "too many levels"),
        ("", "no name"),
    ] {
        for verb in ["report", "stats", "events"] {
            let mut command = scratch.stackdepot();
            assert_refused(command.args([verb, target]), 1, words);
        }
    }
    let mut command = scratch.stackdepot();
    assert_refused(command.args(["replay", "missing"]), 1, "no such file");
}

#[test]
fn an_address_of_digits_alone_says_how_it_was_read() {
    let scratch = Scratch::new("digits");
    let (status, ..) = run(scratch
        .stackdepot()
        .args(["run", "-q", "-o", "rec", "--", "ls"]));
    assert_eq!(status, Some(0));
    let who = |address: &str| run(scratch.stackdepot().args(["who", "rec", address]));
    let (status, stdout, stderr) = who("555512340000");
    assert_eq!(
        (status, stdout.as_str()),
        (Some(2), "0x81571d9e20: no record\n")
    );
    assert!(stderr.contains("0x555512340000"), "{stderr}");
    assert_eq!(who("0x555512340000").2, "");
}

#[test]
fn a_size_is_named_as_it_was_given() {
    let scratch = Scratch::new("sizes");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = corpus.join("../stackdepot-corpus/tests/data/small.stk.zst");
    for bytes in ["0", "1", "100"] {
        let mut command = scratch.stackdepot();
        command.args(["replay", "--bytes", bytes]).arg(&corpus);
        assert_refused(&mut command, 1, &format!("--bytes {bytes}: "));
    }
}
