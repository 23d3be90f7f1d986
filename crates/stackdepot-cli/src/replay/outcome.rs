//! The figures of a replay, as JSON and as text.

use std::fmt::Write;

use serde::Serialize;

use super::Hold;
use super::checked::Checked;
use super::stage::Plan;
use crate::failure::Failure;

/// What a replay found; the JSON has these fields, in this order, after `corpus`.
#[derive(Debug, Serialize)]
pub struct Outcome {
    /// Events of the corpus; each thread replays all of them.
    pub events: u64,
    pub threads: u64,
    /// Depot and ring.
    pub region_bytes: u64,
    pub depot_bytes: u64,
    pub ring_bytes: u64,
    /// Of the corpus.
    pub unique_stacks: u64,
    /// In the depot at the end of the checked pass.
    pub stored_stacks: u64,
    pub nodes: u64,
    pub bytes_per_stack: f64,
    pub saves: u64,
    pub fetched: u64,
    pub evicted_before_fetch: u64,
    pub hits: u64,
    /// Saves that stored a stack that was not stored: `new - evicted = stored_stacks`.
    pub new: u64,
    /// Stacks, not nodes.
    pub evicted: u64,
    /// Refused because of holds, in the whole depot or in the two buckets of the stack.
    pub full: u64,
    pub contended: u64,
    pub truncated: u64,
    pub mismatches: u64,
    pub ring_expected: u64,
    pub ring_checked: u64,
    pub ring_missing: u64,
    /// From the pass without checks: nanoseconds of one thread's time per save.
    pub ns_per_save: f64,
    /// The part of `full` that found room in the depot but not in the stack's buckets.
    #[serde(skip)]
    pub crowded: u64,
}

/// The JSON document.
#[derive(Serialize)]
struct Document<'a> {
    corpus: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
}

impl Outcome {
    /// Gathers the figures of a checked pass and of one without checks.
    pub fn new(
        plan: &Plan<'_>,
        depot_bytes: u64,
        checked: &Checked,
        seconds: f64,
    ) -> Result<Outcome, Failure> {
        let (counts, stats) = (&checked.counts, &checked.stats);
        let ring_bytes = plan.ring_bytes()? as u64;
        let unique_stacks = plan.corpus.stack_count() as u64;
        let answered = counts.fetched + counts.evicted_before_fetch;
        Ok(Outcome {
            events: plan.event_count() as u64,
            threads: plan.threads as u64,
            region_bytes: depot_bytes + ring_bytes,
            depot_bytes,
            ring_bytes,
            unique_stacks,
            stored_stacks: checked.stored_stacks,
            nodes: stats.node_count,
            bytes_per_stack: round(depot_bytes as f64 / unique_stacks as f64),
            saves: counts.saves,
            fetched: counts.fetched,
            evicted_before_fetch: counts.evicted_before_fetch,
            hits: answered.saturating_sub(stats.new_stacks),
            new: stats.new_stacks,
            evicted: stats.evicted_stacks,
            full: counts.full + counts.crowded + counts.saturated,
            contended: counts.contended,
            truncated: stats.truncated,
            mismatches: counts.mismatches,
            ring_expected: counts.ring_expected,
            ring_checked: counts.ring_checked,
            ring_missing: counts.ring_expected - counts.ring_checked,
            ns_per_save: round(seconds * 1e9 * plan.threads as f64 / counts.saves as f64),
            crowded: counts.crowded,
        })
    }

    /// One JSON document and a newline.
    pub fn to_json(&self, corpus: &str) -> String {
        // Numbers and a string: there is nothing in it that JSON cannot say.
        serde_json::to_string_pretty(&Document {
            corpus,
            outcome: self,
        })
        .unwrap_or_default()
            + "\n"
    }

    /// A table for people.
    pub fn to_text(&self, corpus: &str, hold: Hold) -> String {
        let mut table = Table(String::new());
        let hold = match hold {
            Hold::None => "nothing held",
            Hold::Lease => "leases of the ring",
            Hold::Ref => "references of live objects",
        };
        let threads = if self.threads == 1 {
            "1 thread".into()
        } else {
            format!("{} threads", self.threads)
        };
        table.line(format_args!(
            "{corpus}: {} events by {threads}, {hold}",
            self.events
        ));
        table.row(
            "depot bytes",
            self.depot_bytes,
            &format!("{} per unique stack", self.bytes_per_stack),
        );
        if self.ring_bytes > 0 {
            table.row("ring bytes", self.ring_bytes, "");
        }
        table.row("unique stacks", self.unique_stacks, "in the corpus");
        table.row(
            "stored stacks",
            self.stored_stacks,
            &format!("in {} nodes, at the end", self.nodes),
        );
        table.row(
            "saves",
            self.saves,
            &format!("{} ns each without checks", self.ns_per_save),
        );
        table.row(
            "hits",
            self.hits,
            &format!("{:.2} %", self.hits as f64 * 100.0 / self.saves as f64),
        );
        table.row("new", self.new, "");
        table.row("evicted", self.evicted, "");
        table.row(
            "full",
            self.full,
            &if self.crowded > 0 {
                format!("{} of them crowded", self.crowded)
            } else {
                String::new()
            },
        );
        table.row("contended", self.contended, "");
        table.row("truncated", self.truncated, "");
        table.row("fetched", self.fetched, "compared word for word");
        table.row("evicted before fetch", self.evicted_before_fetch, "");
        table.row("mismatches", self.mismatches, "");
        if self.ring_bytes > 0 {
            table.row(
                "ring events checked",
                self.ring_checked,
                &format!("of {}, {} missing", self.ring_expected, self.ring_missing),
            );
        }
        table.0
    }
}

/// Two decimals: more is noise.
fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Lines of text with aligned numbers.
struct Table(String);

impl Table {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "{line}");
    }

    fn row(&mut self, name: &str, value: u64, note: &str) {
        let note = if note.is_empty() {
            String::new()
        } else {
            format!("  {note}")
        };
        self.line(format_args!("  {name:<21} {value:>12}{note}"));
    }
}
