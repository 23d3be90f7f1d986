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
    let mut moved_count = 0;
    for round in 0..24u64 {
        let (mut child, pid) = start(&scratch);
        let is_last = round == 23; // comes to its end on a slow machine, too
        let delay_us = if is_last { 3_000_000 } else { round * 1500 };
        std::thread::sleep(Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        // Here or still in shared memory: its pid finds it.
        check(&scratch, &[pid.to_string().into()]);
        let moved = scratch.recordings();
        check(&scratch, &moved);
        moved_count += moved.len();
        moved
            .iter()
            .for_each(|path| std::fs::remove_file(path).unwrap());
    }
    assert!(moved_count > 0);
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
        let (_, place) = lines[0].split_once("; left in ").unwrap();
        let place = Path::new(place.split(" until").next().unwrap());
        check(&scratch, &[place.join("first")]);
        check(&scratch, &[stdout.trim().into()]);
        let _ = run(scratch.stackdepot().arg("clean"));
        assert!(!place.exists());
    }
}
