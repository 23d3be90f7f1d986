//! Input of every wrong kind ends in one line and a status, for every verb that reads.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::{Scratch, assert_one_line, run};

const READERS: [&str; 4] = ["report", "who", "events", "stats"];

/// Runs a verb on a file; `who` gets an address.
fn read(scratch: &Scratch, verb: &str, target: &Path) -> (Option<i32>, String, String) {
    let mut command = scratch.stackdepot();
    command.arg(verb).arg(target);
    if verb == "who" {
        command.arg("0x1000");
    }
    run(&mut command)
}

fn assert_refused(scratch: &Scratch, target: &Path, words: &str) {
    for verb in READERS {
        let (status, stdout, stderr) = read(scratch, verb, target);
        assert_eq!(
            status,
            Some(1),
            "{verb} {}: {stdout}{stderr}",
            target.display()
        );
        assert_one_line(&stderr);
        assert!(stderr.contains(words), "{verb}: {stderr}");
        assert_eq!(stdout, "");
    }
}

fn record(scratch: &Scratch) -> PathBuf {
    let (status, _, stderr) = run(scratch
        .stackdepot()
        .args(["run", "-q", "--bytes", "2M", "-o", "rec", "--", "ls", "/"]));
    assert_eq!(status, Some(0), "{stderr}");
    scratch.join("rec")
}

#[test]
fn files_that_are_no_recordings_are_refused() {
    let scratch = Scratch::new("wrong");
    let file = |name: &str, content: &[u8]| {
        std::fs::write(scratch.join(name), content).unwrap();
        scratch.join(name)
    };
    assert_refused(&scratch, &scratch.join("missing"), "no such file");
    assert_refused(&scratch, scratch.path(), "directory");
    assert_refused(&scratch, Path::new("/dev/null"), "no regular file");
    assert_refused(&scratch, &file("empty", b""), "empty");
    let noise: Vec<u8> = (0u32..100_000)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    assert_refused(&scratch, &file("noise", &noise), "not a region file");
    assert_refused(
        &scratch,
        &file("zeros", &[0; 65_536]),
        "not yet a region file",
    );
    assert_refused(&scratch, &file("line\nfeed", b"x"), "not a region file");
}

#[test]
fn a_pipe_does_not_block() {
    let scratch = Scratch::new("pipe");
    let pipe = scratch.join("pipe");
    assert!(
        std::process::Command::new("mkfifo")
            .arg(&pipe)
            .status()
            .unwrap()
            .success()
    );
    assert_refused(&scratch, &pipe, "no regular file");
}

#[test]
fn pids_without_a_recording_are_refused() {
    let scratch = Scratch::new("pids");
    let mut child = std::process::Command::new("sleep")
        .arg("100")
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_refused(&scratch, Path::new(&child.id().to_string()), "not recorded");
    child.kill().unwrap();
    child.wait().unwrap();
    assert_refused(
        &scratch,
        Path::new(&child.id().to_string()),
        "no such process",
    );
    for digits in ["0", "4294967296", "99999999999999999999999"] {
        assert_refused(&scratch, Path::new(digits), digits);
    }
}

#[test]
fn a_file_named_by_digits_is_written_with_a_dot() {
    let scratch = Scratch::new("digits");
    std::fs::rename(record(&scratch), scratch.join("99999999")).unwrap();
    assert_refused(&scratch, Path::new("99999999"), "./99999999");
    assert_eq!(read(&scratch, "report", Path::new("./99999999")).0, Some(0));
}

#[test]
fn a_recording_truncated_anywhere_is_refused_or_read() {
    let scratch = Scratch::new("truncated");
    let content = std::fs::read(record(&scratch)).unwrap();
    let cut = scratch.join("cut");
    for length in (0..content.len())
        .step_by(4096)
        .chain([1, 7, 100, 4095, content.len() - 1])
    {
        std::fs::write(&cut, &content[..length]).unwrap();
        let verb = READERS[length / 4096 % READERS.len()];
        let (status, _, stderr) = read(&scratch, verb, &cut);
        assert_eq!(status, Some(1), "{verb} at {length}: {stderr}");
        assert_one_line(&stderr);
    }
}

#[test]
fn another_version_and_a_damaged_header_are_refused() {
    let scratch = Scratch::new("version");
    let content = std::fs::read(record(&scratch)).unwrap();
    let changed = |offset: usize, value: u64| {
        let mut content = content.clone();
        content[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        std::fs::write(scratch.join("changed"), content).unwrap();
        scratch.join("changed")
    };
    assert_refused(&scratch, &changed(8, 4), "version 4");
    assert_refused(&scratch, &changed(8, 6), "version 6");
    assert_refused(&scratch, &changed(24, u64::MAX), "damaged");
    assert_refused(&scratch, &changed(32, 1), "damaged");
}

#[test]
fn damage_anywhere_never_ends_in_a_crash() {
    let scratch = Scratch::new("damaged");
    let content = std::fs::read(record(&scratch)).unwrap();
    let damaged = scratch.join("damaged");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for round in 0..60 {
        let mut copy = content.clone();
        for _ in 0..200 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 20) as usize % copy.len();
            copy[at] = (state >> 56) as u8;
        }
        std::fs::write(&damaged, copy).unwrap();
        let (status, _, stderr) = read(&scratch, READERS[round % READERS.len()], &damaged);
        assert!(matches!(status, Some(0..=2)), "{status:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

/// Sums over counters that a damaged file sets to the greatest number stay that.
#[test]
fn counters_at_their_limit_are_summed_without_a_crash() {
    const COUNTERS: std::ops::Range<usize> = 2 * 4096..4 * 4096;
    let scratch = Scratch::new("limit");
    let path = record(&scratch);
    let mut content = std::fs::read(&path).unwrap();
    content[COUNTERS].fill(0xff);
    std::fs::write(&path, content).unwrap();
    for verb in READERS {
        let (status, _, stderr) = read(&scratch, verb, &path);
        assert!(
            matches!(status, Some(0 | 2)),
            "{verb}: {status:?}: {stderr}"
        );
    }
}

/// In such a file the call before an address has the last address of all.
#[test]
fn a_module_right_above_its_addresses_names_nothing() {
    const ENTRY_BYTES: usize = 384;
    let scratch = Scratch::new("above");
    let path = record(&scratch);
    let report = common::json(
        &scratch,
        &["report".as_ref(), "--json".as_ref(), path.as_ref()],
    );
    let stacks = report["stacks"].as_array().unwrap();
    let mut frames = stacks
        .iter()
        .flat_map(|stack| stack["frames"].as_array().unwrap());
    let named = frames.find(|frame| !frame["function"].is_null()).unwrap();
    let address = named["address"].as_str().unwrap().trim_start_matches("0x");
    let address = u64::from_str_radix(address, 16).unwrap();
    let mut content = std::fs::read(&path).unwrap();
    let word = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().unwrap()) as usize;
    let (start, length) = (word(48), word(56));
    for entry in content[start..start + length].chunks_exact_mut(ENTRY_BYTES) {
        entry[24..32].copy_from_slice(&address.to_le_bytes());
    }
    std::fs::write(&path, content).unwrap();
    let (status, _, stderr) = read(&scratch, "report", &path);
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
fn a_file_that_is_cut_while_it_is_read_is_an_error_or_a_result() {
    let scratch = Scratch::new("racing");
    let path = record(&scratch);
    let content = std::fs::read(&path).unwrap();
    for _ in 0..10 {
        std::fs::write(&path, &content).unwrap();
        let reader = scratch
            .stackdepot()
            .arg("report")
            .arg(&path)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        std::fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(20_000)
            .unwrap();
        let (status, _, stderr) = common::split(&reader.wait_with_output().unwrap());
        assert!(matches!(status, Some(0 | 1)), "{status:?}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn addresses_that_are_no_numbers_are_refused() {
    let scratch = Scratch::new("address");
    let path = record(&scratch);
    for address in [
        "",
        "x",
        "0x",
        "0xg",
        "12x",
        "-1",
        "0x10000000000000000",
        "main",
    ] {
        let (status, stdout, stderr) = run(scratch
            .stackdepot()
            .args(["who", "--"])
            .arg(&path)
            .arg(address));
        assert_eq!(
            (status, stdout.as_str()),
            (Some(1), ""),
            "{address}: {stderr}"
        );
        assert_one_line(&stderr);
    }
}

#[test]
fn usage_errors_are_one_line() {
    let scratch = Scratch::new("usage");
    for arguments in [
        &["report"][..],
        &["report", "--nonsense", "x"],
        &["nonsense"],
        &["run"],
        &["run", "--"],
        &["report", "--by", "age", "x"],
        &["report", "--top", "-1", "x"],
        &["who", "x"],
    ] {
        let (status, _, stderr) = run(scratch.stackdepot().args(arguments));
        let expected = if arguments[0] == "run" { 125 } else { 1 };
        assert_eq!(status, Some(expected), "{arguments:?}: {stderr}");
        assert_one_line(&stderr);
    }
}

#[test]
fn every_verb_has_help_with_an_example() {
    let scratch = Scratch::new("help");
    for verb in ["run", "report", "who", "events", "stats", "clean", "replay"] {
        let (status, stdout, _) = run(scratch.stackdepot().args([verb, "--help"]));
        assert_eq!(status, Some(0));
        assert!(
            stdout.contains("Example:") && stdout.contains(&format!("stackdepot {verb}")),
            "{stdout}"
        );
    }
    let (status, stdout, _) = run(scratch.stackdepot().arg("--version"));
    assert_eq!(
        (status, stdout.as_str()),
        (
            Some(0),
            concat!("stackdepot ", env!("CARGO_PKG_VERSION"), "\n")
        )
    );
}

#[test]
fn a_closed_pipe_and_a_full_disk_end_quietly_or_in_one_line() {
    let scratch = Scratch::new("closed");
    let path = record(&scratch);
    let mut child = scratch
        .stackdepot()
        .args(["events", "--json"])
        .arg(&path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (status, _, stderr) = common::split(&child.wait_with_output().unwrap());
    assert_eq!((status, stderr.as_str()), (Some(0), ""));
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let output = scratch
        .stackdepot()
        .arg("report")
        .arg(&path)
        .stdout(full)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_one_line(&String::from_utf8_lossy(&output.stderr));
    std::io::stdout().flush().unwrap();
}
