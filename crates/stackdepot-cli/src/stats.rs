//! The `stats` verb: every counter of a recording, what was lost, and how full each part is.

use std::fmt::Write;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::args::StatsArguments;
use crate::failure::Failure;
use crate::recording::{Lost, Recording};
use crate::{json, output, text};

/// The names of the depot's counters, in the order in which a file has them.
const DEPOT_COUNTERS: [&str; 14] = [
    "new_stacks",
    "new_nodes",
    "evicted_stacks",
    "evicted_nodes",
    "full",
    "contended",
    "crowded",
    "saturated",
    "truncated",
    "wide_nodes",
    "worn_slots",
    "crowd_evicted",
    "stale_puts",
    "undone_nodes",
];

#[derive(Serialize)]
struct Document {
    format: u32,
    program: String,
    pid: u32,
    command: String,
    running: bool,
    region_bytes: u64,
    run_bytes: u64,
    lost: Lost,
    totals: Map<String, Value>,
    counters: Map<String, Value>,
    ring: Map<String, Value>,
    live_table: Map<String, Value>,
    depot: Option<Map<String, Value>>,
    run: Map<String, Value>,
    skipped: Map<String, Value>,
}

/// Prints the counters.
///
/// # Errors
/// The recording cannot be read.
pub fn perform(arguments: &StatsArguments) -> Result<ExitCode, Failure> {
    let recording = Recording::open(&arguments.target)?;
    let document = document(&recording);
    let done = if arguments.json {
        json::print(&document)
    } else {
        output::print(&list(&document))
    };
    recording.note_gaps();
    done
}

fn document(recording: &Recording) -> Document {
    let (info, snapshot) = (recording.info(), &recording.snapshot);
    let (live, ledger, skipped) = (
        snapshot.live_stats(),
        snapshot.ledger_counts(),
        snapshot.skipped(),
    );
    let ring = snapshot.ring_stats();
    Document {
        format: json::FORMAT,
        program: recording.program(),
        pid: info.pid,
        command: recording.command(),
        running: info.is_running,
        region_bytes: info.file_bytes,
        run_bytes: info.run_bytes,
        lost: recording.lost(),
        totals: totals(recording),
        counters: numbers(snapshot.counters().iter()),
        ring: numbers([
            ("events", ring.events),
            ("stored", snapshot.events().len() as u64),
            ("overwritten", ring.overwritten),
            ("lapped", ring.lapped),
            ("expired", ring.expired),
        ]),
        live_table: numbers([
            ("cells", live.cell_count),
            ("used", live.used_count),
            ("sample_bytes", live.sample_bytes),
            ("lost", live.lost_count),
            ("stale", live.stale_count),
            ("pushed_out", live.pushed_out_count),
        ]),
        depot: depot(recording),
        run: numbers([
            ("children_recorded", ledger.children_recorded),
            ("children_removed", ledger.children_removed),
            ("children_unrecorded", ledger.children_unrecorded),
        ]),
        skipped: numbers([
            ("nodes_changed", skipped.nodes_changed),
            ("events_torn", skipped.events_torn),
            ("blocks_torn", skipped.blocks_torn),
            ("counts_moved", skipped.counts_moved),
            ("modules_torn", skipped.modules_torn),
        ]),
    }
}

/// What the payload of the stacks adds up to; nothing is counted twice at every event for it.
fn totals(recording: &Recording) -> Map<String, Value> {
    let (total, live) = (recording.total(), recording.live());
    numbers([
        ("allocated_blocks", total.count),
        ("allocated_bytes", total.bytes),
        ("live_blocks", live.count),
        ("live_bytes", live.bytes),
    ])
}

/// Null where the depot's section is damaged.
fn depot(recording: &Recording) -> Option<Map<String, Value>> {
    let stats = recording.snapshot.depot_stats()?;
    let sizes = [
        ("bytes", stats.region_bytes),
        ("slots", stats.slot_count),
        ("nodes", stats.node_count),
    ];
    Some(numbers(
        sizes
            .into_iter()
            .chain(DEPOT_COUNTERS.into_iter().zip(stats.counters)),
    ))
}

fn numbers<'a>(pairs: impl IntoIterator<Item = (&'a str, u64)>) -> Map<String, Value> {
    pairs
        .into_iter()
        .map(|(name, number)| (name.to_owned(), Value::from(number)))
        .collect()
}

fn list(document: &Document) -> String {
    let mut text = String::new();
    let state = if document.running { "running" } else { "ended" };
    let _ = writeln!(text, "{} (pid {}), {state}", document.command, document.pid);
    let _ = writeln!(
        text,
        "file {} of a run of {}",
        text::bytes(document.region_bytes),
        text::bytes(document.run_bytes)
    );
    write_fill(
        &mut text,
        "live table",
        &document.live_table,
        "used",
        "cells",
    );
    if let Some(depot) = &document.depot {
        write_fill(&mut text, "depot", depot, "nodes", "slots");
    }
    let _ = writeln!(text, "\nlost");
    let lost = document.lost.worth_telling();
    if lost.is_empty() {
        let _ = writeln!(text, "  nothing");
    }
    for (number, words) in lost {
        let _ = writeln!(text, "  {:>16}  {words}", text::count(number));
    }
    write_group(&mut text, "totals", &document.totals);
    write_group(&mut text, "recorder", &document.counters);
    write_group(&mut text, "ring", &document.ring);
    write_group(&mut text, "live table", &document.live_table);
    if let Some(depot) = &document.depot {
        write_group(&mut text, "depot", depot);
    }
    write_group(&mut text, "run", &document.run);
    write_group(&mut text, "skipped by this reader", &document.skipped);
    text
}

/// `depot  1 234 of 60 000 slots (2 %)`
fn write_fill(text: &mut String, name: &str, group: &Map<String, Value>, used: &str, all: &str) {
    let number = |key: &str| group.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (used, limit) = (number(used), number(all));
    let percent = used.saturating_mul(100) / limit.max(1);
    let _ = writeln!(
        text,
        "{name}  {} of {} {all} ({percent} %)",
        text::count(used),
        text::count(limit)
    );
}

fn write_group(text: &mut String, name: &str, group: &Map<String, Value>) {
    let _ = writeln!(text, "\n{name}");
    for (key, value) in group {
        let _ = writeln!(
            text,
            "  {:>16}  {key}",
            text::count(value.as_u64().unwrap_or(0))
        );
    }
}
