//! A run of several programs and processes: the end report names those that hold memory, the files
//! of living ones are left alone, and a terminal's Ctrl-C is the program's own.

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, run};
use serde_json::Value;

/// Longer than any of these programs takes; only a hang gets there.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs a command that is to end by itself; answers status, stdout and stderr.
fn run_to_end(command: &mut Command) -> (Option<i32>, String, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > LIMIT {
            child.kill().unwrap();
            panic!("{command:?} does not end");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    common::split(&child.wait_with_output().unwrap())
}

/// Runs the commands of the lines that contain `stackdepot report`, and answers what they print.
fn follow(scratch: &Scratch, stderr: &str, words: &str) -> String {
    let line = stderr.lines().find(|line| line.contains(words)).unwrap();
    let (_, path) = line.split_once("stackdepot report ").unwrap();
    let (status, stdout, stderr) = run(scratch.stackdepot().args(["report", path]));
    assert_eq!(status, Some(0), "{stderr}");
    stdout
}

#[test]
fn the_report_is_about_the_program_that_a_shell_became() {
    let scratch = Scratch::new("exec");
    scratch.compile("leaks", &["-lpthread"]);
    let (status, _, stderr) =
        run(scratch
            .stackdepot()
            .args(["run", "--", "sh", "-c", "exec env A=1 ./leaks"]));
    assert_eq!(status, Some(0), "{stderr}");
    let head = stderr.split("\n#2").next().unwrap();
    assert!(head.contains("leak_b"), "{stderr}");
    assert!(head.contains("./leaks (pid"), "{stderr}");
    assert!(stderr.contains("'exec env A=1 ./leaks' (pid"), "{stderr}");
    assert!(follow(&scratch, &stderr, "more: ").contains("leak_b"));
}

#[test]
fn other_processes_that_hold_memory_are_named_with_the_command_to_see_it() {
    let scratch = Scratch::new("others");
    scratch.compile("leaks", &["-lpthread"]);
    let (status, _, stderr) =
        run(scratch
            .stackdepot()
            .args(["run", "--", "sh", "-c", "ls >/dev/null; ./leaks; true"]));
    assert_eq!(status, Some(0), "{stderr}");
    let line = stderr.lines().find(|line| line.contains("  leaks (pid"));
    assert!(line.unwrap().contains("10.1 MiB in 1 01"), "{stderr}");
    assert!(follow(&scratch, &stderr, "  leaks (pid").contains("leak_b"));
}

#[test]
fn a_run_of_bash_ends() {
    let scratch = Scratch::new("bash");
    let script = "for i in 1 2 3; do ls / >/dev/null; done; echo $(echo done); exit 6";
    let (status, stdout, stderr) = run_to_end(
        scratch
            .stackdepot()
            .args(["run", "--", "bash", "-c", script]),
    );
    assert_eq!((status, stdout.as_str()), (Some(6), "done\n"), "{stderr}");
}

#[test]
fn exceptions_pass_through_the_embedded_library() {
    let scratch = Scratch::new("exceptions");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../stackdepot-preload/tests/programs/exceptions.cpp");
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let built = Command::new(compiler)
        .args(["-g", "-O1", "-w", "-o"])
        .arg(scratch.join("exceptions"))
        .arg(source)
        .status()
        .unwrap();
    assert!(built.success());
    let bare = run(&mut Command::new(scratch.join("exceptions")));
    let recorded = run_to_end(
        scratch
            .stackdepot()
            .args(["run", "-q", "--", "./exceptions"]),
    );
    assert!(bare.1.contains("caught 1000"), "{bare:?}");
    assert_eq!(recorded, bare);
}

#[test]
fn blocks_whose_stack_was_refused_are_in_the_totals() {
    let scratch = Scratch::new("refused");
    scratch.compile("many_stacks", &["-fno-optimize-sibling-calls"]);
    let mut command = scratch.stackdepot();
    command.args(["run", "-q", "-o", "rec", "--bytes", "16M", "--"]);
    let (status, _, stderr) = run(command.args(["./many_stacks", "60000"]));
    assert_eq!(status, Some(0), "{stderr}");
    let report = common::json(&scratch, &["report", "--json", "rec"].map(AsRef::as_ref));
    let stacks = report["stacks"].as_array().unwrap().iter();
    let by_stack: u64 = stacks.map(|row| row["live_count"].as_u64().unwrap()).sum();
    let number = |value: &Value| value.as_u64().unwrap();
    let refused = number(&report["live"]["without_stack"]["count"]);
    assert!(refused > 0, "{}", report["lost"]);
    assert_eq!(report["sampled"], false);
    assert_eq!(number(&report["live"]["count"]), by_stack + refused);
    assert!(by_stack + refused >= 60_000, "{by_stack} + {refused}");
    assert_eq!(
        number(&report["lost"]["full"]) + number(&report["lost"]["contended"]),
        refused
    );
    let (_, text, _) = run(scratch.stackdepot().args(["report", "rec"]));
    assert!(text.contains("whose stack was refused"), "{text}");
    let stats = common::json(&scratch, &["stats", "--json", "rec"].map(AsRef::as_ref));
    assert_eq!(stats["totals"]["live_blocks"], report["live"]["count"]);
}

#[test]
fn a_process_that_records_into_an_output_is_found_by_its_pid() {
    let scratch = Scratch::new("mapped");
    let elsewhere = Scratch::new("elsewhere");
    let program = scratch.compile("idle", &[]);
    let mut child = scratch
        .stackdepot()
        .args(["run", "-q", "-o", "rec", "--"])
        .arg(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    let (pid, address) = line.trim().split_once(' ').unwrap();
    let (status, text, stderr) = run(elsewhere.stackdepot().args(["who", pid, address]));
    drop(child.stdin.take());
    child.wait().unwrap();
    assert_eq!(status, Some(0), "{stderr}");
    assert!(text.contains("live block of 4 096 bytes"), "{text}");
}

#[test]
fn clean_leaves_a_run_alone_while_one_of_its_processes_lives() {
    let scratch = Scratch::new("daemon");
    let mut child = scratch
        .stackdepot()
        .args(["run", "--", "sh", "-c", "sleep 600 & echo $!"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = String::new();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    reader.read_line(&mut daemon).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // The daemon holds the pipe open: read what has come, not to the end.
    let mut text = String::new();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    while !text.contains("more: ") {
        assert!(stderr.read_line(&mut text).unwrap() > 0, "{text}");
    }
    assert!(text.contains("of the run goes on"), "{text}");
    let (_, place) = text.split_once("the recordings stay in ").unwrap();
    let place = place.split(" until").next().unwrap().to_owned();
    let (status, listed, _) = run(scratch.stackdepot().args(["clean", "--dry-run"]));
    assert_eq!(status, Some(0));
    assert!(listed.contains(&format!("in use   {place}")), "{listed}");
    assert!(
        Command::new("kill")
            .args(["-9", daemon.trim()])
            .status()
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    // The kernel closes the pipe a moment before it gives up the file's lock.
    let is_cleaned = (0..100).any(|_| {
        let (_, listed, _) = run(scratch.stackdepot().arg("clean"));
        let is_in_use = listed.contains(&format!("in use   {place}"));
        if is_in_use {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        !is_in_use
    });
    assert!(is_cleaned && !Path::new(&place).exists());
}

#[test]
fn a_terminals_interrupt_ends_the_program_and_not_the_recording() {
    let scratch = Scratch::new("terminal");
    let program = scratch.compile("idle", &[]);
    let line = format!(
        "{} run -- {}",
        env!("CARGO_BIN_EXE_stackdepot"),
        program.display()
    );
    // `script` gives it a terminal and exits as it does.
    let mut child = Command::new("script")
        .args(["-qefc", &line, "/dev/null"])
        .current_dir(scratch.path())
        .env_remove("LD_PRELOAD")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut shown = String::new();
    reader.read_line(&mut shown).unwrap();
    assert!(shown.contains("0x"), "{shown}");
    let mut keys = child.stdin.take().unwrap();
    keys.write_all(b"\x03").unwrap();
    keys.flush().unwrap();
    reader.read_to_string(&mut shown).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(128 + 2), "{shown}");
    assert!(shown.contains("== stackdepot =="), "{shown}");
    assert!(shown.contains("4 KiB live in 1 block"), "{shown}");
    scratch.recording();
}

#[test]
fn usage_errors_of_run_have_its_own_status_and_name_the_dashes() {
    let scratch = Scratch::new("usage");
    for (words, hint) in [
        (&["run", "ls", "-l"][..], "stackdepot run -- PROGRAM"),
        (&["run"], "stackdepot run -- PROGRAM"),
        (&["run", "--byts", "1M", "--", "ls"], "unexpected argument"),
        (&["run", "--"], "stackdepot run --help"),
    ] {
        let (status, _, stderr) = run(scratch.stackdepot().args(words));
        assert_eq!(status, Some(125), "{words:?}: {stderr}");
        common::assert_one_line(&stderr);
        assert!(stderr.contains(hint), "{words:?}: {stderr}");
    }
}

#[test]
fn a_caller_that_ignores_the_end_of_its_children_does_not_confuse_run() {
    let scratch = Scratch::new("sigchld");
    let mut command = Command::new("env");
    command
        .arg("--ignore-signal=CHLD")
        .arg(env!("CARGO_BIN_EXE_stackdepot"))
        .args(["run", "-q", "--", "sh", "-c", "exit 3"]);
    let (status, _, stderr) = run(command.current_dir(scratch.path()));
    assert_eq!((status, stderr.as_str()), (Some(3), ""));
    scratch.recording();
}

#[test]
fn children_of_a_program_behind_several_execs_are_recorded() {
    let scratch = Scratch::new("execs");
    let script = "if [ $1 -gt 0 ]; then exec sh chain.sh $(($1 - 1)); fi; ls; ls; true\n";
    std::fs::write(scratch.join("chain.sh"), script).unwrap();
    // Room for two files beside the first one: those of the shells before must go.
    let (status, _, stderr) = run(scratch.stackdepot().args([
        "run", "-q", "--bytes", "4M", "-o", "rec", "--", "sh", "chain.sh", "6",
    ]));
    assert_eq!(status, Some(0), "{stderr}");
    let stats = common::json(
        &scratch,
        &["stats".as_ref(), "--json".as_ref(), "rec".as_ref()],
    );
    assert_eq!(stats["run"]["children_unrecorded"], 0, "{}", stats["run"]);
    assert_eq!(stats["run"]["children_recorded"], 8, "{}", stats["run"]);
}
