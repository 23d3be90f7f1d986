//! The `replay` verb: a recorded workload runs through the depot, and every stack is checked.
//!
//! Read in this order: this file (what is asked), `stage` (memory, depot, ring and one event),
//! `objects` (what a replaying thread holds), `checked` (the pass that compares every stack),
//! `moment` (the ring, with all threads paused), `timed` (the pass without checks), `fit` (the
//! smallest depot), `outcome` (the figures as JSON and text), `progress`.

mod checked;
mod fit;
mod moment;
mod objects;
mod outcome;
mod progress;
mod stage;
mod timed;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use stackdepot_corpus::Corpus;

use crate::args::parse_bytes;
use crate::failure::{Failure, reason};
use outcome::Outcome;
use progress::Progress;
use stage::{Plan, Stage};

/// `stackdepot replay`
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  stackdepot replay --hold lease --ring 4096 --bytes 1M clang.stk.zst
  stackdepot replay --fit --json sqlite.stk.zst | jq .bytes_per_stack

Every thread replays the whole corpus, each from another starting point and with objects of its
own. After each save the stack is fetched through its weak handle and compared word for word.
With --hold lease every event goes through the ring; at 17 moments, with the threads paused,
every event in the ring must still fetch exactly its stack. A second pass on a fresh depot,
without checks, gives ns_per_save. Exit status 1 when a stack came back different.")]
pub struct Options {
    /// Bytes of the depot, 64M by default; with --fit the most that is tried
    #[arg(long, value_name = "SIZE")]
    bytes: Option<String>,
    /// Find the smallest --bytes at which nothing is evicted, refused or contended
    #[arg(long)]
    fit: bool,
    /// Threads that replay the corpus at once
    #[arg(long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// What keeps a stack: nothing, the ring's leases, or a reference per live object
    #[arg(long, value_enum, default_value = "none")]
    hold: Hold,
    /// Newest events that the ring keeps (with --hold lease)
    #[arg(long, value_name = "EVENTS", default_value_t = 32768)]
    ring: u32,
    /// Write JSON (README, section JSON)
    #[arg(long)]
    json: bool,
    /// The recorded workload
    #[arg(value_name = "CORPUS.stk.zst")]
    corpus: PathBuf,
}

/// What keeps a stack from being evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hold {
    /// Nothing: the depot is a cache
    None,
    /// A lease, for as long as the event is in the ring
    Lease,
    /// A reference, from the alloc to the free of an object
    Ref,
}

/// Bytes of the depot when nobody says.
const DEFAULT_BYTES: u64 = 64 << 20;
/// Most bytes that `--fit` tries when nobody says.
const FIT_BYTES: u64 = 2 << 30;

/// Replays a recorded workload through the depot.
pub fn perform(options: &Options) -> Result<ExitCode, Failure> {
    let asked = options
        .bytes
        .as_deref()
        .map(parse_bytes)
        .transpose()
        .map_err(Failure::new)?;
    // The depot is made of whole lines.
    let bytes = asked.map(|bytes| bytes - bytes % stage::LINE_BYTES);
    let name = options.corpus.display();
    check_kind(&options.corpus).map_err(|why| Failure::new(format_args!("{name}: {why}")))?;
    let corpus = Corpus::open(&options.corpus)
        .map_err(|error| Failure::new(format_args!("{name}: {error}")))?;
    let progress = Progress::new();
    let threads = usize::from(options.threads);
    let plan = Plan {
        corpus: &corpus,
        threads,
        hold: options.hold,
        ring_events: options.ring,
    };
    if let (Some(asked), Some(Err(failure))) = (asked, bytes.map(|bytes| plan.check(bytes))) {
        // Named as the user wrote it.
        return plan.check(asked).and(Err(failure));
    }
    let outcome = if options.fit {
        fit::replay(&plan, bytes.unwrap_or(FIT_BYTES), &progress)?
    } else {
        replay(&plan, bytes.unwrap_or(DEFAULT_BYTES), &progress)?
    };
    drop(progress);
    print(&outcome, options)?;
    if outcome.mismatches > 0 {
        let count = outcome.mismatches;
        return Err(Failure::new(format_args!(
            "{name}: {count} stacks came back different: a bug in the depot"
        )));
    }
    Ok(ExitCode::SUCCESS)
}

/// Both passes at one size.
/// A pipe would be waited for, and a directory is read as a damaged workload.
fn check_kind(path: &Path) -> Result<(), String> {
    let metadata =
        std::fs::metadata(path).map_err(|error| format!("cannot open: {}", reason(&error)))?;
    match (metadata.is_dir(), metadata.is_file()) {
        (true, _) => Err("is a directory; name a workload inside it".to_owned()),
        (_, true) => Ok(()),
        _ => Err("is no regular file; name a workload".to_owned()),
    }
}

fn replay(plan: &Plan<'_>, depot_bytes: u64, progress: &Progress) -> Result<Outcome, Failure> {
    let mut stage = Stage::new(plan, depot_bytes)?;
    let checked = checked::replay(plan, &mut stage, depot_bytes, progress)?;
    let timed = timed::replay(plan, &mut stage, depot_bytes, progress)?;
    Outcome::new(plan, depot_bytes, &checked, timed.seconds)
}

fn print(outcome: &Outcome, options: &Options) -> Result<(), Failure> {
    let corpus = options
        .corpus
        .file_name()
        .unwrap_or(options.corpus.as_os_str())
        .to_string_lossy();
    let corpus = corpus.strip_suffix(".stk.zst").unwrap_or(&corpus);
    let text = if options.json {
        outcome.to_json(corpus)
    } else {
        outcome.to_text(corpus, options.hold)
    };
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| Failure::new(format_args!("cannot write the result: {error}")))
}
