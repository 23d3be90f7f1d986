//! `stackdepot run` is as good as not there: stdin, stdout, signals and exit status are the
//! program's own; and it says plainly what it cannot record.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::{Scratch, assert_one_line, run};

#[test]
fn exit_status_is_the_programs() {
    let scratch = Scratch::new("status");
    for code in [0, 1, 7, 125, 255] {
        let script = format!("exit {code}");
        let (status, stdout, stderr) = run(scratch
            .stackdepot()
            .args(["run", "-q", "--", "sh", "-c", &script]));
        assert_eq!(
            (status, stdout.as_str(), stderr.as_str()),
            (Some(code), "", "")
        );
    }
}

/// What a shell that started the tests in the background ignores would be ignored by all of them.
#[allow(unsafe_code)]
fn heeding_interrupts(command: &mut Command) -> &mut Command {
    // SAFETY: one system call between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::signal(libc::SIGINT, libc::SIG_DFL);
            Ok(())
        })
    }
}

#[test]
fn a_program_that_dies_from_a_signal_is_followed_by_it() {
    let scratch = Scratch::new("signal");
    for (name, number) in [("TERM", 15), ("KILL", 9), ("SEGV", 11), ("INT", 2)] {
        let script = format!("kill -{name} $$");
        let status = heeding_interrupts(&mut scratch.stackdepot())
            .args(["run", "-q", "--", "sh", "-c", &script])
            .status()
            .unwrap();
        assert_eq!(status.signal(), Some(number), "{name}: {status:?}");
        assert!(!status.core_dumped());
    }
}

#[test]
fn stdin_and_stdout_pass_through() {
    let scratch = Scratch::new("stdio");
    let mut child = scratch
        .stackdepot()
        .args(["run", "--", "sh", "-c", "tr a-z A-Z; pwd >&2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let (status, stdout, stderr) = common::split(&child.wait_with_output().unwrap());
    assert_eq!(status, Some(0));
    assert_eq!(stdout, "HELLO\n");
    assert!(
        stderr.starts_with(&scratch.path().display().to_string()),
        "{stderr}"
    );
    assert!(stderr.contains("== stackdepot =="), "{stderr}");
}

/// `idle` under `run`, when it says that it is there: the child and the program's pid.
fn start_idle(scratch: &Scratch) -> (Child, BufReader<ChildStdout>, u32, String) {
    let program = scratch.compile("idle", &[]);
    let mut child = scratch
        .stackdepot()
        .args(["run", "-q", "--"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let (pid, address) = line.trim().split_once(' ').unwrap();
    (child, reader, pid.parse().unwrap(), address.to_owned())
}

fn kill(name: &str, pid: u32) {
    assert!(
        Command::new("kill")
            .args([&format!("-{name}"), &pid.to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn signals_sent_to_run_reach_the_program() {
    let scratch = Scratch::new("forward");
    for (name, code, signal) in [("USR1", Some(42), None), ("TERM", None, Some(15))] {
        let (mut child, _reader, _, _) = start_idle(&scratch);
        // Waiting closes stdin, at which the program would leave by itself.
        let _stdin = child.stdin.take();
        kill(name, child.id());
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (code, signal));
    }
}

#[test]
fn a_running_program_is_read_by_pid_and_its_file_is_moved_at_the_end() {
    let scratch = Scratch::new("live");
    let (mut child, _reader, pid, address) = start_idle(&scratch);
    let (status, text, stderr) =
        run(scratch
            .stackdepot()
            .args(["who", &pid.to_string(), &address]));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        text.contains("live block of 4 096 bytes") && text.contains("main"),
        "{text}"
    );
    let (_, text, _) = run(scratch.stackdepot().args(["report", &pid.to_string()]));
    assert!(text.contains("running"), "{text}");
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let recording = scratch.recording();
    assert!(
        recording.ends_with(format!("stackdepot.{pid}")),
        "{recording:?}"
    );
    assert_eq!(
        std::fs::metadata(&recording).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let (status, text, _) = run(scratch.stackdepot().args(["report", &pid.to_string()]));
    assert_eq!(status, Some(0));
    assert!(text.contains("ended"), "{text}");
}

#[test]
fn what_a_killed_run_leaves_is_readable_and_cleaned() {
    let scratch = Scratch::new("killed");
    let (mut child, _reader, pid, address) = start_idle(&scratch);
    child.kill().unwrap();
    child.wait().unwrap();
    kill("KILL", pid);
    let (status, text, stderr) =
        run(scratch
            .stackdepot()
            .args(["who", &pid.to_string(), &address]));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(text.contains("live block"), "{text}");
    let listed = run(scratch.stackdepot().args(["clean", "--dry-run"]));
    assert!(listed.1.contains("would remove"), "{listed:?}");
    assert_eq!(
        run(scratch.stackdepot().args(["report", &pid.to_string()])).0,
        Some(0)
    );
    let removed = run(scratch.stackdepot().arg("clean"));
    assert_eq!(removed.0, Some(0), "{removed:?}");
    let (status, _, stderr) = run(scratch.stackdepot().args(["report", &pid.to_string()]));
    assert_eq!(status, Some(1));
    assert_one_line(&stderr);
}

#[test]
fn clean_removes_named_recordings_and_nothing_else() {
    let scratch = Scratch::new("clean");
    assert_eq!(
        run(scratch
            .stackdepot()
            .args(["run", "-q", "-o", "rec", "--", "ls"]))
        .0,
        Some(0)
    );
    std::fs::write(scratch.join("note"), "mine").unwrap();
    let (status, _, stderr) = run(scratch.stackdepot().args(["clean", "note"]));
    assert_eq!(status, Some(1));
    assert_one_line(&stderr);
    assert!(scratch.join("note").exists());
    assert_eq!(run(scratch.stackdepot().args(["clean", "rec"])).0, Some(0));
    assert!(!scratch.join("rec").exists());
}

#[test]
fn an_output_is_new_private_and_where_it_was_asked_for() {
    let scratch = Scratch::new("output");
    let (status, _, _) = run(scratch
        .stackdepot()
        .args(["run", "-q", "-o", "rec", "--bytes", "2M", "--", "ls"]));
    assert_eq!(status, Some(0));
    let metadata = std::fs::metadata(scratch.join("rec")).unwrap();
    assert_eq!(
        (metadata.len(), metadata.permissions().mode() & 0o777),
        (1 << 20, 0o600)
    );
    assert!(scratch.recordings().is_empty());
    let before = std::fs::read(scratch.join("rec")).unwrap();
    for (output, words) in [
        ("rec", "already"),
        ("nowhere/rec", "no such file"),
        (".", "already"),
        ("rec/x", "not a directory"),
    ] {
        let (status, _, stderr) = run(scratch
            .stackdepot()
            .args(["run", "-o", output, "--", "true"]));
        assert_eq!(status, Some(125), "{stderr}");
        assert_one_line(&stderr);
        assert!(stderr.contains(words), "{stderr}");
    }
    assert_eq!(std::fs::read(scratch.join("rec")).unwrap(), before);
}

#[test]
fn an_old_ld_preload_stays_behind_ours() {
    let scratch = Scratch::new("preload");
    let program = "echo $LD_PRELOAD";
    let mut command = scratch.stackdepot();
    command
        .env("LD_PRELOAD", "/old/one.so:/old/two.so")
        .args(["run", "-q", "--", "sh", "-c", program]);
    let (status, stdout, _) = run(&mut command);
    assert_eq!(status, Some(0));
    let (ours, old) = stdout.trim().split_once(':').unwrap();
    assert!(
        ours.contains("libstackdepot-") && ours.ends_with(".so"),
        "{ours}"
    );
    assert_eq!(old, "/old/one.so:/old/two.so");
}

#[test]
fn the_library_needs_no_checkout_and_two_runs_share_it() {
    let scratch = Scratch::new("library");
    let copy = scratch.join("copied");
    std::fs::copy(env!("CARGO_BIN_EXE_stackdepot"), &copy).unwrap();
    let runtime = scratch.join("runtime");
    std::fs::create_dir(&runtime).unwrap();
    let start = || {
        let mut command = Command::new(&copy);
        command
            .current_dir(scratch.path())
            .env("XDG_RUNTIME_DIR", &runtime)
            .stdout(Stdio::null());
        command
            .args(["run", "-q", "--", "sh", "-c", "exit 5"])
            .spawn()
            .unwrap()
    };
    let children: Vec<Child> = (0..4).map(|_| start()).collect();
    for mut child in children {
        assert_eq!(child.wait().unwrap().code(), Some(5));
    }
    let libraries: Vec<_> = std::fs::read_dir(runtime.join("stackdepot"))
        .unwrap()
        .collect();
    assert_eq!(libraries.len(), 1, "{libraries:?}");
    assert_eq!(
        std::fs::metadata(runtime.join("stackdepot"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o700
    );
    assert_eq!(scratch.recordings().len(), 4);
}

#[test]
fn what_cannot_be_recorded_is_said_before_it_runs() {
    let scratch = Scratch::new("refused");
    let refused = |path: &std::path::Path, words: &str, code: i32| {
        let (status, stdout, stderr) = run(scratch.stackdepot().args(["run", "--"]).arg(path));
        assert_one_line(&stderr);
        assert!(stderr.contains(words), "{stderr}");
        assert_eq!((status, stdout.as_str()), (Some(code), ""), "{stderr}");
    };
    refused(
        &scratch.compile("own_malloc", &[]),
        "defines its own malloc",
        125,
    );
    let program = scratch.compile("idle", &["-static"]);
    refused(&program, "static binary", 125);
    let script = scratch.join("script");
    std::fs::write(&script, format!("#!{}\n", program.display())).unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    refused(&script, "its interpreter", 125);
    let program = scratch.compile("idle", &[]);
    patch_loader(
        &program,
        b"/lib64/ld-linux-x86-64.so.2",
        b"/lib/ld-musl-x86_64.so.1",
    );
    refused(&program, "musl", 125);
    patch(&program, 18, 183);
    refused(&program, "another architecture", 125);
    patch(&program, 4, 1);
    patch(&program, 18, 3);
    refused(&program, "32-bit", 125);
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o644)).unwrap();
    refused(&program, "not executable", 126);
    refused(scratch.path(), "directory", 126);
    refused(&scratch.join("missing"), "no such file", 127);
    refused("nosuchprogram".as_ref(), "not found", 127);
    assert!(scratch.recordings().is_empty());
}

/// Changes one byte of a program.
fn patch(path: &std::path::Path, offset: usize, value: u8) {
    let mut content = std::fs::read(path).unwrap();
    content[offset] = value;
    std::fs::write(path, content).unwrap();
}

fn patch_loader(path: &std::path::Path, from: &[u8], to: &[u8]) {
    let mut content = std::fs::read(path).unwrap();
    let at = content
        .windows(from.len())
        .position(|window| window == from)
        .unwrap();
    content[at..at + from.len()].fill(0);
    content[at..at + to.len()].copy_from_slice(to);
    std::fs::write(path, content).unwrap();
}

#[test]
fn a_setuid_program_of_another_user_is_refused() {
    let scratch = Scratch::new("setuid");
    let program = scratch.compile("idle", &[]);
    if std::os::unix::fs::chown(&program, Some(65_534), None).is_err() {
        eprintln!("skipped: only root can give a file away");
        return;
    }
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let (status, _, stderr) = run(scratch.stackdepot().args(["run", "--"]).arg(&program));
    assert_eq!(status, Some(125));
    assert!(stderr.contains("setuid"), "{stderr}");
}

#[test]
fn an_allocator_under_another_name_is_told_before_the_program_runs() {
    let scratch = Scratch::new("hidden");
    let program = scratch.compile("hidden_allocator", &[]);
    let (status, _, stderr) = run(scratch.stackdepot().args(["run", "-q", "--"]).arg(&program));
    assert_eq!(status, Some(0), "{stderr}");
    assert_one_line(&stderr);
    assert!(stderr.contains("Rust program with jemalloc"), "{stderr}");
    assert!(
        stderr.contains("a wrapper for Rust's global allocator is not there yet"),
        "{stderr}"
    );
}

#[test]
fn a_script_without_an_interpreter_goes_to_the_shell() {
    let scratch = Scratch::new("script");
    let script = scratch.join("script");
    std::fs::write(&script, "echo \"$1\"; exit 9\n").unwrap();
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let (status, stdout, _) = run(scratch
        .stackdepot()
        .args(["run", "-q", "--"])
        .arg(&script)
        .arg("word"));
    assert_eq!((status, stdout.as_str()), (Some(9), "word\n"));
}

#[test]
fn wrong_sizes_are_refused_in_one_line() {
    let scratch = Scratch::new("sizes");
    for size in [
        "",
        "x",
        "-1",
        "0",
        "1K",
        "1023K",
        "99999999G",
        "99999999999999999999",
        "1.5M",
    ] {
        let (status, _, stderr) = run(scratch
            .stackdepot()
            .arg("run")
            .arg(format!("--bytes={size}"))
            .args(["--", "true"]));
        assert_eq!(status, Some(125), "{size}: {stderr}");
        assert_one_line(&stderr);
    }
}

#[test]
fn children_of_a_program_get_files_of_their_own() {
    let scratch = Scratch::new("children");
    let script = "ls / >/dev/null; ls /usr >/dev/null; true";
    let (status, _, stderr) = run(scratch.stackdepot().args(["run", "--", "sh", "-c", script]));
    assert_eq!(status, Some(0));
    assert!(stderr.contains("other programs of the run"), "{stderr}");
    assert!(scratch.recordings().len() > 1, "{:?}", scratch.recordings());
    let first = scratch.recordings()[0].display().to_string();
    for recording in scratch.recordings() {
        let name = recording.display().to_string();
        let child = name.strip_prefix(&first).unwrap();
        assert!(
            child.bytes().all(|byte| b".-0123456789".contains(&byte)),
            "{child}"
        );
        let (status, _, stderr) = run(scratch.stackdepot().arg("report").arg(&recording));
        assert_eq!(status, Some(0), "{stderr}");
    }
}

#[test]
fn recordings_that_cannot_be_moved_stay_and_are_told_in_one_line() {
    let scratch = Scratch::new("unmovable");
    let full = scratch.join("full");
    std::fs::create_dir(&full).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64K", "tmpfs"])
        .arg(&full)
        .stderr(Stdio::null())
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        eprintln!("skipped: only root can mount a small file system");
        return;
    }
    let script = "ls >/dev/null; ls >/dev/null; true";
    let mut command = scratch.stackdepot();
    command.current_dir(&full);
    let (status, _, stderr) = run(command.args(["run", "--", "sh", "-c", script]));
    let unmounted = Command::new("umount").arg(&full).status().unwrap();
    assert!(unmounted.success());
    assert_eq!(status, Some(0), "{stderr}");
    let notes: Vec<&str> = stderr
        .lines()
        .filter(|line| line.contains("note"))
        .collect();
    assert_eq!(notes.len(), 1, "{stderr}");
    assert!(notes[0].contains("cannot move 3 recordings"), "{stderr}");
    let (_, path) = stderr.split_once("more: stackdepot report ").unwrap();
    let path = std::path::Path::new(path.trim());
    assert_eq!(run(scratch.stackdepot().arg("report").arg(path)).0, Some(0));
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
}
