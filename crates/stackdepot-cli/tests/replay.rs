//! The `replay` verb on a small corpus: its accounts add up, it fits, it refuses nonsense.

mod replay_common;

use std::path::Path;
use std::process::Command;

use replay_common::{Figures, command, small_corpus, temporary_folder};

const FIELDS: [&str; 24] = [
    "corpus",
    "events",
    "threads",
    "region_bytes",
    "depot_bytes",
    "ring_bytes",
    "unique_stacks",
    "stored_stacks",
    "nodes",
    "bytes_per_stack",
    "saves",
    "fetched",
    "evicted_before_fetch",
    "hits",
    "new",
    "evicted",
    "full",
    "contended",
    "truncated",
    "mismatches",
    "ring_expected",
    "ring_checked",
    "ring_missing",
    "ns_per_save",
];
const EVENTS: u64 = 6000;
const STACKS: u64 = 594;

#[test]
fn json_has_exactly_the_documented_fields() {
    let figures = Figures::of(&small_corpus(), &[]);
    let mut found: Vec<&String> = figures.object().keys().collect();
    let mut wanted = FIELDS;
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    assert_eq!(figures.text("corpus"), "small");
    assert!(figures.float("ns_per_save") > 0.0);
}

/// Sum over 17 moments of min(ring, events so far).
fn ring_expected(ring: u64, threads: u64) -> u64 {
    (1..=17)
        .map(|moment| (EVENTS * moment / 17 * threads).min(ring))
        .sum()
}

#[test]
fn accounts_add_up_with_every_hold_thread_count_and_size() {
    for hold in ["none", "lease", "ref"] {
        for threads in [1, 2, 3] {
            for bytes in ["32K", "64K", "1M"] {
                let threads_text = threads.to_string();
                let options = [
                    "--hold",
                    hold,
                    "--threads",
                    &threads_text,
                    "--bytes",
                    bytes,
                    "--ring",
                    "256",
                ];
                let figures = Figures::of(&small_corpus(), &options);
                let get = |field| figures.number(field);
                assert_eq!(get("events"), EVENTS);
                assert_eq!(get("saves"), EVENTS * threads, "{figures:?}");
                let answered = get("fetched") + get("evicted_before_fetch");
                assert_eq!(
                    answered + get("full") + get("contended"),
                    get("saves"),
                    "{figures:?}"
                );
                assert_eq!(get("hits") + get("new"), answered, "{figures:?}");
                assert_eq!(get("region_bytes"), get("depot_bytes") + get("ring_bytes"));
                assert_eq!(get("ring_bytes") > 0, hold == "lease");
                assert_eq!((get("mismatches"), get("truncated")), (0, 0), "{figures:?}");
                assert_eq!(get("unique_stacks"), STACKS);
                assert!(get("stored_stacks") <= STACKS, "{figures:?}");
                assert_eq!(
                    get("new") - get("evicted"),
                    get("stored_stacks"),
                    "{figures:?}"
                );
                let expected = if hold == "lease" {
                    ring_expected(256, threads)
                } else {
                    0
                };
                assert_eq!(get("ring_expected"), expected);
                assert_eq!(get("ring_checked") + get("ring_missing"), expected);
                if threads == 1 && get("full") == 0 {
                    assert_eq!(get("ring_missing"), 0, "{figures:?}");
                }
            }
        }
    }
}

#[test]
fn a_depot_with_room_keeps_every_stack() {
    for hold in ["none", "lease", "ref"] {
        let figures = Figures::of(&small_corpus(), &["--hold", hold, "--bytes", "1M"]);
        assert_eq!(figures.number("stored_stacks"), STACKS);
        assert_eq!(figures.number("new"), STACKS);
        assert_eq!((figures.number("evicted"), figures.number("full")), (0, 0));
        assert_eq!(figures.number("hits"), EVENTS - STACKS);
    }
}

#[test]
fn a_small_depot_evicts_and_loses_no_event_of_the_ring() {
    let figures = Figures::of(
        &small_corpus(),
        &["--hold", "lease", "--ring", "64", "--bytes", "24K"],
    );
    assert!(figures.number("evicted") > 0, "{figures:?}");
    assert_eq!(
        (figures.number("full"), figures.number("ring_missing")),
        (0, 0),
        "{figures:?}"
    );
    assert_eq!(figures.number("ring_checked"), 17 * 64);
}

#[test]
fn a_depot_full_of_held_stacks_says_full_and_goes_on() {
    let figures = Figures::of(
        &small_corpus(),
        &["--hold", "lease", "--ring", "4096", "--bytes", "16K"],
    );
    assert!(figures.number("full") > 0, "{figures:?}");
    assert!(
        figures.number("fetched") > 0 && figures.number("ring_missing") > 0,
        "{figures:?}"
    );
    assert_eq!(figures.number("mismatches"), 0);
}

#[test]
fn sizes_are_rounded_down_to_whole_lines() {
    let figures = Figures::of(&small_corpus(), &["--bytes", "100001"]);
    assert_eq!(figures.number("depot_bytes"), 100_001 / 64 * 64);
}

#[test]
fn fit_finds_the_smallest_size_that_loses_nothing() {
    for hold in ["none", "lease"] {
        let fitted = Figures::of(&small_corpus(), &["--fit", "--hold", hold]);
        assert_eq!(
            (fitted.number("evicted"), fitted.number("full")),
            (0, 0),
            "{fitted:?}"
        );
        assert_eq!(fitted.number("stored_stacks"), STACKS);
        let bytes = fitted.number("depot_bytes");
        let per_stack = bytes as f64 / STACKS as f64;
        assert!((fitted.float("bytes_per_stack") - per_stack).abs() < 0.01);
        let smaller = (bytes - 64).to_string();
        let figures = Figures::of(&small_corpus(), &["--hold", hold, "--bytes", &smaller]);
        assert!(
            figures.number("evicted") + figures.number("full") + figures.number("contended") > 0,
            "{figures:?}"
        );
    }
}

#[test]
fn text_says_the_same_as_json() {
    let output = command(&small_corpus(), &["--hold", "lease", "--ring", "128"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    for part in [
        "small: 6000 events by 1 thread",
        "unique stacks",
        "mismatches",
        "ring events checked",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}

/// Runs replay and demands one line of complaint with `part` in it.
fn refused(corpus: &Path, options: &[&str], part: &str) {
    let output = command(corpus, options);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && output.status.code().is_some(),
        "{output:?}"
    );
    assert_eq!(complaint.lines().count(), 1, "{complaint}");
    assert!(
        complaint.contains(part) && !complaint.contains("panicked"),
        "{complaint}"
    );
    assert!(output.stdout.is_empty());
}

#[test]
fn wrong_arguments_are_one_line() {
    let small = small_corpus();
    for (options, part) in [
        (["--bytes", "12"], "region_bytes"),
        (["--bytes", "nonsense"], "nonsense"),
        (["--bytes", "16777216T"], "16777216T"),
        (["--bytes", "16000G"], "region_bytes"),
        (["--threads", "0"], "threads"),
        (["--threads", "100000"], "threads"),
        (["--hold", "tight"], "tight"),
    ] {
        refused(&small, &options, part);
    }
    refused(&small, &["--hold", "lease", "--ring", "0"], "--ring");
    refused(
        &small,
        &["--hold", "lease", "--ring", "4294967295"],
        "--ring",
    );
    refused(&small, &["--fit", "--bytes", "20K"], "does not fit");
}

#[test]
fn wrong_files_are_one_line() {
    let folder = temporary_folder("replay-wrong-files");
    let path = folder.join("corpus.stk.zst");
    refused(&path, &[], "cannot open");
    refused(&folder, &[], "directory");
    let valid = std::fs::read(small_corpus()).unwrap();
    for length in (0..valid.len()).step_by(4096) {
        std::fs::write(&path, &valid[..length]).unwrap();
        refused(&path, &[], "the zstd frame is cut off: copy the whole file");
    }
    let mut longer = valid.clone();
    longer.extend_from_slice(b"more");
    std::fs::write(&path, longer).unwrap();
    refused(&path, &[], "follow the end");
    std::fs::write(&path, "SQLite format 3\0 is no corpus").unwrap();
    refused(&path, &[], "not a zstd file");
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn help_has_an_example() {
    let output = Command::new(env!("CARGO_BIN_EXE_stackdepot"))
        .args(["replay", "--help"])
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("stackdepot replay --"));
}
