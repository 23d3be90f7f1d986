//! Recording a program whose allocations are known to the block, and reading it with every verb.

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::ffi::OsStr;

use common::{Scratch, json, run};
use serde_json::Value;

/// `leaks`, recorded: the scratch directory, the recording's name, what the program printed.
fn record_leaks() -> (Scratch, String, Vec<String>) {
    let scratch = Scratch::new("leaks");
    let program = scratch.compile("leaks", &["-lpthread"]);
    let (status, stdout, stderr) = run(scratch.stackdepot().args(["run", "--"]).arg(&program));
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stderr.contains("leak_b") && stderr.contains("more: stackdepot report"),
        "{stderr}"
    );
    let words = stdout.split_whitespace().map(str::to_owned).collect();
    let recording = scratch
        .recording()
        .file_name()
        .unwrap()
        .to_string_lossy()
        .into_owned();
    (scratch, recording, words)
}

fn functions(frames: &Value) -> Vec<&str> {
    frames
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|frame| frame["function"].as_str())
        .collect()
}

/// The sums of a field over the stacks that go through a function.
fn sum(report: &Value, function: &str, field: &str) -> u64 {
    let stacks = report["stacks"].as_array().unwrap().iter();
    let through = stacks.filter(|stack| functions(&stack["frames"]).contains(&function));
    through.map(|stack| stack[field].as_u64().unwrap()).sum()
}

#[test]
fn every_verb_tells_what_is_known_of_the_program() {
    let (scratch, recording, words) = record_leaks();
    let of = |verb: &str, rest: &[&str]| {
        let mut arguments = vec![
            OsStr::new(verb),
            OsStr::new("--json"),
            OsStr::new(&recording),
        ];
        arguments.extend(rest.iter().map(OsStr::new));
        let document = json(&scratch, &arguments);
        schema::check(&document, verb).unwrap();
        document
    };
    let report = of("report", &[]);
    assert_eq!(sum(&report, "leak_a", "live_count"), 1000);
    assert_eq!(sum(&report, "leak_a", "live_bytes"), 64_000);
    assert_eq!(sum(&report, "leak_b", "live_count"), 10);
    assert_eq!(sum(&report, "leak_b", "live_bytes"), 10 << 20);
    assert_eq!(sum(&report, "churn", "live_count"), 0);
    assert_eq!(sum(&report, "churn", "live_bytes"), 0);
    assert_eq!(sum(&report, "churn", "total_count"), 1_000_000);
    assert_eq!(report["sampled"], false);
    check_who_freed(&of("who", &[&words[0]]));
    check_who_live(&of("who", &[&words[1]]), &words[1]);
    check_events(&of("events", &["--last", "50"]));
    let stats = of("stats", &[]);
    assert_eq!(stats["ring"]["events"], report["events"]);
    assert_eq!(stats["running"], false);
}

fn check_who_freed(who: &Value) {
    assert_eq!(who["block"]["state"], "freed");
    assert_eq!(who["block"]["size"], 777);
    assert_eq!(who["block"]["offset"], 0);
    assert_eq!(
        functions(&who["allocated"]["frames"])[..2],
        ["obtain", "main"]
    );
    assert_eq!(
        functions(&who["freed"]["frames"])[..2],
        ["give_back", "main"]
    );
    assert!(who["freed"]["seconds_ago"].is_number(), "{who}");
    assert!(
        who["freed"]["frames"][0]["file"]
            .as_str()
            .unwrap()
            .ends_with("leaks.c")
    );
    assert!(who["freed"]["frames"][0]["line"].is_u64());
}

fn check_who_live(who: &Value, address: &str) {
    assert_eq!(who["address"], address);
    assert_eq!(who["block"]["state"], "live");
    assert_eq!(who["block"]["size"], 64);
    assert_eq!(who["block"]["offset"], 10);
    assert_eq!(
        functions(&who["allocated"]["frames"])[..2],
        ["leak_a", "second_thread"]
    );
    assert!(who["freed"].is_null());
}

fn check_events(events: &Value) {
    let rows = events["events"].as_array().unwrap();
    assert_eq!(rows.len(), 50);
    let give_back = rows
        .iter()
        .find(|row| row["kind"] == "free" && row["size"] == 777)
        .unwrap();
    assert_eq!(functions(&give_back["allocated"]["frames"])[0], "obtain");
}

#[test]
fn the_text_is_readable_and_bounded_by_top() {
    let (scratch, recording, words) = record_leaks();
    let (status, text, _) = run(scratch
        .stackdepot()
        .args(["report", "--top", "1", &recording]));
    assert_eq!(status, Some(0));
    assert!(text.contains("#1  10 MiB live in 10 blocks"), "{text}");
    assert!(!text.contains("#2"), "{text}");
    let (status, text, _) = run(scratch.stackdepot().args(["who", &recording, &words[1]]));
    assert_eq!(status, Some(0));
    assert!(
        text.contains("is 10 bytes into a live block of 64 bytes"),
        "{text}"
    );
    let (status, text, _) = run(scratch.stackdepot().args(["who", &recording, "0x10"]));
    assert_eq!(status, Some(2));
    assert_eq!(text, "0x10: no record\n");
    let document = run(scratch
        .stackdepot()
        .args(["who", "--json", &recording, "0x10"]));
    assert_eq!(document.0, Some(2));
    schema::check(&serde_json::from_str(&document.1).unwrap(), "who").unwrap();
}

#[test]
fn a_double_free_names_both_frees() {
    let scratch = Scratch::new("double");
    let program = scratch.compile("double_free", &[]);
    let output = scratch
        .stackdepot()
        .args(["run", "-q", "--"])
        .arg(&program)
        .output()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&output.status),
        Some(6)
    );
    let recording = scratch.recording();
    let events = json(
        &scratch,
        &[
            OsStr::new("events"),
            OsStr::new("--json"),
            recording.as_os_str(),
        ],
    );
    let rows = events["events"].as_array().unwrap();
    let bad = rows
        .iter()
        .find(|row| row["kind"] == "unknown-free")
        .expect("the second free is recorded");
    let address = bad["address"].as_str().unwrap().to_owned();
    let (_, report, _) = run(scratch.stackdepot().arg("report").arg(&recording));
    let line = format!("wrong  1 free of what was no live block, last of {address}");
    assert!(report.contains(&line), "{report}");
    let who = json(
        &scratch,
        &[
            OsStr::new("who"),
            OsStr::new("--json"),
            recording.as_os_str(),
            OsStr::new(&address),
        ],
    );
    schema::check(&who, "who").unwrap();
    assert_eq!(
        functions(&who["bad_frees"][0]["frames"])[..2],
        ["second", "main"]
    );
    assert_eq!(functions(&who["freed"]["frames"])[..2], ["first", "main"]);
    assert_eq!(who["block"]["size"], 100);
}

#[test]
fn a_module_that_has_changed_gets_no_wrong_names() {
    let (scratch, recording, _) = record_leaks();
    // Another build of the same program: its build-id differs.
    let program = scratch.join("leaks");
    std::fs::remove_file(&program).unwrap();
    scratch.compile("idle", &[]);
    std::fs::rename(scratch.join("idle"), &program).unwrap();
    let (status, text, stderr) = run(scratch.stackdepot().args(["report", &recording]));
    assert_eq!(status, Some(0));
    assert!(
        text.contains("leaks+0x") && !text.contains("leak_b"),
        "{text}"
    );
    assert!(
        stderr.contains("has changed since it was recorded"),
        "{stderr}"
    );
    std::fs::remove_file(&program).unwrap();
    let (_, text, stderr) = run(scratch.stackdepot().args(["report", &recording]));
    assert!(
        text.contains("leaks+0x") && stderr.contains("no such file"),
        "{text}{stderr}"
    );
}

#[test]
fn the_schema_check_can_fail() {
    let mut document = serde_json::json!({
        "format": 1, "address": "0x10", "block": null, "allocated": null, "freed": null,
        "mismatched": false, "bad_frees": [], "earlier": [],
    });
    schema::check(&document, "who").unwrap();
    document["address"] = 16.into();
    assert!(schema::check(&document, "who").is_err());
    document["address"] = "0x10".into();
    document["extra"] = 1.into();
    assert!(schema::check(&document, "who").is_err());
    document.as_object_mut().unwrap().remove("extra");
    document["freed"] = serde_json::json!({ "thread": 1, "frames": [] });
    assert!(schema::check(&document, "who").is_err());
}
