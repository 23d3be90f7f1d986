//! Programs that die by a signal or free by the wrong function: what the verbs tell of it.

mod common;
#[path = "common/schema.rs"]
mod schema;

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use common::{Scratch, json, run, split};
use serde_json::Value;

/// Records `deaths` and answers what `run` wrote on stderr.
fn record_death(scratch: &Scratch, way: &str, signal: Option<i32>) -> String {
    let program = scratch.compile("deaths", &["-fno-builtin"]);
    let mut command = scratch.stackdepot();
    let output = command
        .args(["run", "--"])
        .arg(&program)
        .arg(way)
        .output()
        .unwrap();
    assert_eq!(output.status.signal(), signal);
    split(&output).2
}

fn document(scratch: &Scratch, verb: &str, recording: &Path, rest: &[&str]) -> Value {
    let start = [
        OsStr::new(verb),
        OsStr::new("--json"),
        recording.as_os_str(),
    ];
    let arguments: Vec<&OsStr> = start
        .into_iter()
        .chain(rest.iter().map(OsStr::new))
        .collect();
    let document = json(scratch, &arguments);
    schema::check(&document, verb).unwrap();
    document
}

/// The function of the innermost frame.
fn innermost(trace: &Value) -> &str {
    trace["frames"][0]["function"].as_str().unwrap()
}

fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let at = rest
            .find(part)
            .unwrap_or_else(|| panic!("{part:?}: {text}"));
        rest = &rest[at + part.len()..];
    }
}

#[test]
fn death_by_freed_memory_names_who_allocated_and_who_freed_it() {
    let scratch = Scratch::new("freed");
    let stderr = record_death(&scratch, "freed", Some(libc::SIGSEGV));
    let parts = [
        "died by SIGSEGV reading 0x",
        ": 5 000 bytes into a block of 1 048 576 bytes freed",
        " before\n\nDied in thread",
        "use  ",
        "\n\nAllocated by thread",
        "obtain  ",
        "\n\nFreed by thread",
        "give_back  ",
    ];
    assert_in_order(&stderr, &parts);
    let recording = scratch.recording();
    let (_, text, _) = run(scratch.stackdepot().arg("report").arg(&recording));
    assert_in_order(&text, &[", died by SIGSEGV\nlive "]);
    assert_in_order(&text, &parts);
    let report = document(&scratch, "report", &recording, &[]);
    let died = &report["died"];
    assert_eq!(died["signal"], "SIGSEGV");
    assert_eq!(died["access"], "read");
    assert_eq!(died["sender"], Value::Null);
    assert_eq!(innermost(died), "use");
    let memory = &died["memory"];
    assert_eq!(innermost(&memory["allocated"]), "obtain");
    assert_eq!(innermost(&memory["freed"]), "give_back");
    assert_eq!(memory["block"]["offset"], 5000);
    assert_eq!(memory["block"]["state"], "freed");
    // The same by hand.
    let who = document(
        &scratch,
        "who",
        &recording,
        &[died["address"].as_str().unwrap()],
    );
    assert_eq!(who["block"], memory["block"]);
}

#[test]
fn death_by_a_pointer_out_of_freed_memory_names_that_memory() {
    let scratch = Scratch::new("stale");
    let stderr = record_death(&scratch, "stale", Some(libc::SIGSEGV));
    let parts = [
        "in no block that is known\n",
        "use_node  ",
        "\nregister r",
        " points 0 bytes into a block of 16 bytes freed",
        "\n\nAllocated by thread",
        "obtain  ",
        "\n\nFreed by thread",
        "give_back  ",
    ];
    assert_in_order(&stderr, &parts);
    let report = document(&scratch, "report", &scratch.recording(), &[]);
    assert!(report["died"]["memory"].is_null());
    let pointer = &report["died"]["pointers"][0];
    assert_eq!(innermost(&pointer["freed"]), "give_back");
    assert_eq!(pointer["block"]["size"], 16);
}

#[test]
fn program_with_a_handler_of_its_own_did_not_die() {
    let scratch = Scratch::new("own");
    let stderr = record_death(&scratch, "own", None);
    assert!(!stderr.contains("died"), "{stderr}");
    let recording = scratch.recording();
    assert!(document(&scratch, "report", &recording, &[])["died"].is_null());
    let (_, text, _) = run(scratch.stackdepot().arg("report").arg(&recording));
    assert!(text.contains("ended by _exit or a signal\n"), "{text}");
}

#[test]
fn death_of_a_child_is_told_at_the_end_of_the_run() {
    let scratch = Scratch::new("child");
    let stderr = record_death(&scratch, "child", None);
    assert_in_order(
        &stderr,
        &[
            "deaths child (pid ",
            "), died by SIGSEGV: stackdepot report",
        ],
    );
}

#[test]
fn free_by_the_wrong_function_is_shown_with_both_stacks() {
    let scratch = Scratch::new("mismatch");
    let program = scratch.compile("mismatch", &["-fno-builtin"]);
    let (status, stdout, stderr) = run(scratch.stackdepot().args(["run", "--"]).arg(&program));
    assert_eq!(status, Some(0), "{stderr}");
    let address = stdout.lines().last().unwrap();
    let total = format!("wrong  2 frees by the wrong function, last of {address}\n");
    let what = format!(
        "Wrong free of {address}: operator delete of what operator new[] gave, 2 times with these stacks\n"
    );
    let parts = [
        total.as_str(),
        what.as_str(),
        "\nAllocated by thread",
        "make_array  ",
        "\nFreed by thread",
        "take_one  ",
    ];
    assert_in_order(&stderr, &parts);
    let recording = scratch.recording();
    let report = document(&scratch, "report", &recording, &[]);
    let wrong = &report["wrong_frees"];
    assert_eq!(wrong.as_array().unwrap().len(), 1);
    let wrong = &wrong[0];
    assert_eq!(
        (&wrong["kind"], &wrong["count"]),
        (&"mismatched-free".into(), &2.into())
    );
    assert_eq!(
        (&wrong["size"], &wrong["address"]),
        (&123.into(), &address.into())
    );
    assert_eq!(wrong["allocated"]["family"], "operator new[]");
    assert_eq!(wrong["freed"]["family"], "operator delete");
    assert_eq!(innermost(&wrong["allocated"]), "make_array");
    assert_eq!(innermost(&wrong["freed"]), "take_one");
    let who = document(&scratch, "who", &recording, &[address]);
    assert_eq!(who["mismatched"], true);
    assert_eq!(who["freed"]["family"], "operator delete");
    let (_, text, _) = run(scratch.stackdepot().arg("who").arg(&recording).arg(address));
    let line = "It was freed by the wrong function: operator delete of what operator new[] gave\n";
    assert!(text.contains(line), "{text}");
    let stats = document(&scratch, "stats", &recording, &[]);
    assert_eq!(stats["counters"]["frees_mismatched"], 2);
    let events = document(&scratch, "events", &recording, &["--last", "1"]);
    assert_eq!(events["events"][0]["family"], "operator delete");
}

#[test]
fn double_free_is_shown_with_the_first_one() {
    let scratch = Scratch::new("twice");
    let program = scratch.compile("double_free", &[]);
    let (_, _, stderr) = run(scratch.stackdepot().args(["run", "--"]).arg(&program));
    let parts = [
        "died by SIGABRT, which it sent itself\n",
        ": of what was no live block\n\nFreed by thread",
        "second  ",
        "\nBefore that it was 0 bytes into a block of 100 bytes\n\nAllocated by thread",
        "main  ",
        "\n\nFreed by thread",
        "first  ",
    ];
    assert_in_order(&stderr, &parts);
    let report = document(&scratch, "report", &scratch.recording(), &[]);
    let wrong = &report["wrong_frees"][0];
    assert_eq!(wrong["kind"], "unknown-free");
    assert_eq!(innermost(&wrong["earlier"]["freed"]), "first");
}
