//! `run --sample`: what is recorded estimates what is not, for every way to allocate, also after
//! exceptions and in a fork's child; next to nothing is recorded.
//!
//! The draws are random; every bound is six standard errors wide, which one run in 10^9 leaves.

mod common;

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use common::{Scratch, assert_one_line, run};
use serde_json::Value;

const SAMPLE_BYTES: u64 = 64 << 10;

/// Compiles and records `sampled.cpp` into `rec`.
fn record(scratch: &Scratch, arguments: &[&str]) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/sampled.cpp");
    let built = Command::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()))
        .args(["-g", "-O1", "-w", "-fno-builtin", "-o"])
        .arg(scratch.join("sampled"))
        .arg(source)
        .status();
    assert!(built.unwrap().success());
    let mut command = scratch.stackdepot();
    command.args([
        "run",
        "-q",
        "--sample",
        "64K",
        "-o",
        "rec",
        "--",
        "./sampled",
    ]);
    let (status, stdout, stderr) = run(command.args(arguments));
    assert_eq!((status, stdout.as_str()), (Some(0), "done\n"), "{stderr}");
}

/// A number of the stacks that go through a function, summed.
fn sum(report: &Value, function: &str, number: &str) -> u64 {
    let stacks = report["stacks"].as_array().unwrap().iter();
    let through = stacks.filter(|stack| {
        let frames = stack["frames"].as_array().unwrap();
        frames.iter().any(|frame| frame["function"] == function)
    });
    through.map(|stack| stack[number].as_u64().unwrap()).sum()
}

/// Whether an estimate is within six standard errors of `count` blocks of `size` bytes.
#[track_caller]
fn assert_estimates(found: u64, count: u64, size: u64) {
    let hit = 1.0 - (-((size + 16) as f64) / SAMPLE_BYTES as f64).exp();
    let error = ((1.0 - hit) / (count as f64 * hit)).sqrt();
    let off = found as f64 / count as f64 - 1.0;
    assert!(
        off.abs() < 6.0 * error,
        "{found} of {count}: off by {off}, error {error}"
    );
}

fn check(report: &Value) {
    assert_eq!(report["sampled"], true);
    assert_eq!(report["sample_bytes"], SAMPLE_BYTES);
    assert_estimates(sum(report, "small_site", "live_count"), 100_000, 300);
    assert_estimates(sum(report, "small_site", "live_bytes") / 300, 100_000, 300);
    assert_estimates(sum(report, "small_site", "total_count"), 100_000, 300);
    // Much larger than the gaps: all are there.
    assert_eq!(sum(report, "large_site", "live_count"), 40);
    assert_eq!(sum(report, "large_site", "live_bytes"), 40 << 20);
    assert_estimates(sum(report, "churn_site", "total_count"), 1_000_000, 200);
    assert_eq!(sum(report, "churn_site", "live_count"), 0);
    // One block, grown 5000 times in steps of 100 bytes.
    assert_eq!(sum(report, "grown_site", "live_count"), 1);
    let grown = sum(report, "grown_site", "total_count");
    assert!((4500..5500).contains(&grown), "{grown}");
    let events = report["events"].as_u64().unwrap();
    assert!(
        (10_000..20_000).contains(&events),
        "{events} of 2.1 million events"
    );
}

#[test]
fn sums_are_estimated_from_next_to_nothing() {
    let scratch = Scratch::new("sampling");
    record(&scratch, &[]);
    check(&common::json(
        &scratch,
        &["report", "--json", "rec"].map(OsStr::new),
    ));
    let (_, text, _) = run(scratch.stackdepot().args(["report", "rec"]));
    assert!(
        text.contains("one block in every 64 KiB allocated"),
        "{text}"
    );
    assert!(text.contains("\ntotal  ~"), "{text}");
    let (status, _, stderr) = run(scratch.stackdepot().args(["who", "rec", "0x1000"]));
    assert_eq!(status, Some(2));
    assert!(stderr.contains("recorded with --sample"), "{stderr}");
}

#[test]
fn forked_child_samples_on_its_own() {
    let scratch = Scratch::new("sampling-fork");
    record(&scratch, &["fork"]);
    let files = std::fs::read_dir(scratch.path()).unwrap();
    let mut names = files.map(|file| file.unwrap().file_name());
    let child = names.find(|name| name.to_string_lossy().starts_with("rec."));
    for name in [OsStr::new("rec"), &child.unwrap()] {
        check(&common::json(
            &scratch,
            &[OsStr::new("report"), OsStr::new("--json"), name],
        ));
    }
}

#[test]
fn sampled_run_takes_a_smaller_file_unless_told_otherwise() {
    let scratch = Scratch::new("sampling-bytes");
    let file_bytes = |options: &[&str]| {
        let all = [&["run", "--quiet", "-o", "rec"], options, &["--", "true"]].concat();
        let (status, _, stderr) = run(scratch.stackdepot().args(all));
        assert_eq!(status, Some(0), "{stderr}");
        let path = scratch.path().join("rec");
        let length = std::fs::metadata(&path).unwrap().len();
        std::fs::remove_file(path).unwrap();
        length
    };
    let [whole, sampled] = [&[][..], &["--sample", "512K"]].map(file_bytes);
    assert_eq!((whole, sampled), (32 << 20, 8 << 20));
    assert_eq!(file_bytes(&["--sample", "512K", "--bytes", "64M"]), whole);
}

#[test]
fn what_is_no_gap_is_refused_in_one_line() {
    let scratch = Scratch::new("sampling-wrong");
    for size in ["0", "many", "2T", "-1"] {
        let option = format!("--sample={size}");
        let (status, _, stderr) = run(scratch.stackdepot().args(["run", &option, "--", "true"]));
        assert_eq!(status, Some(125), "{size}: {stderr}");
        assert_one_line(&stderr);
        assert!(stderr.contains("--sample"), "{stderr}");
    }
}
