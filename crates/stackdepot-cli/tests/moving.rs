//! The recordings of a run are moved from shared memory to the user's directory: whole or not at all,
//! also when `run` is killed on the way.

mod common;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{Scratch, run};

/// A shell under `run` that says its pid and ends; answers when it said so.
fn start(scratch: &Scratch) -> (Child, u32) {
    let mut child = scratch
        .stackdepot()
        .args(["run", "-q", "--", "sh", "-c", "echo $$"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let stdout = child.stdout.take().unwrap();
    BufReader::new(stdout).read_line(&mut line).unwrap();
    (child, line.trim().parse().unwrap())
}

/// Whatever is in the user's directory under a recording's name is one.
fn check(scratch: &Scratch, names: &[PathBuf]) {
    for path in names {
        let (status, _, stderr) = run(scratch.stackdepot().arg("stats").arg(path));
        assert_eq!(status, Some(0), "{stderr}");
    }
}

#[test]
fn a_recording_that_has_its_name_is_whole_though_run_is_killed_the_moment_it_appears() {
    let scratch = Scratch::new("appears");
    for _ in 0..10 {
        let (mut child, pid) = start(&scratch);
        let path = scratch.join(format!("stackdepot.{pid}"));
        let limit = Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            assert!(Instant::now() < limit);
        }
        child.kill().unwrap();
        child.wait().unwrap();
        check(&scratch, &[path]);
    }
    let _ = run(scratch.stackdepot().arg("clean"));
}

#[test]
fn a_run_killed_at_any_moment_of_its_end_loses_no_recording() {
    let scratch = Scratch::new("loses");
    for round in 0..24u64 {
        let (mut child, pid) = start(&scratch);
        std::thread::sleep(Duration::from_micros(round * 1500));
        child.kill().unwrap();
        child.wait().unwrap();
        check(&scratch, &scratch.recordings());
        // Here or still in shared memory: its pid finds it.
        let target = pid.to_string();
        let (status, _, stderr) = run(scratch.stackdepot().args(["stats", &target]));
        assert_eq!(status, Some(0), "round {round}: {stderr}");
    }
    assert!(
        !scratch.recordings().is_empty(),
        "no round got as far as that"
    );
    let _ = run(scratch.stackdepot().arg("clean"));
}

#[test]
fn what_cannot_be_moved_stays_and_one_line_says_where() {
    let scratch = Scratch::new("stays");
    for options in [&["run"][..], &["run", "-q"]] {
        // The user's directory goes away while the program runs.
        let gone = scratch.join("gone");
        std::fs::create_dir(&gone).unwrap();
        let mut command = scratch.stackdepot();
        command.current_dir(&gone).args(options);
        command.args(["--", "sh", "-c", "echo $$; rmdir ../gone"]);
        let (status, stdout, stderr) = run(&mut command);
        assert_eq!(status, Some(0), "{stderr}");
        let is_about = |line: &&str| line.contains("cannot move");
        let lines: Vec<&str> = stderr.lines().filter(is_about).collect();
        assert_eq!(lines.len(), 1, "{options:?}: {stderr}");
        let (_, place) = lines[0].split_once("they stay in ").unwrap();
        let place = Path::new(place.split(" until").next().unwrap());
        check(&scratch, &[place.join("first")]);
        check(&scratch, &[stdout.trim().into()]);
        let _ = run(scratch.stackdepot().arg("clean"));
        assert!(!place.exists());
    }
}
