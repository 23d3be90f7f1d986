//! `cargo xtask loom` and `cargo xtask ordering-mutants`: the models of the core.
//!
//! Both build a copy of the core in the build folder against loom with its search mended
//! (`scratch.rs`), and run each model in a process of its own, two at a time (`runner.rs`). A model
//! that does not end counts only with a smaller one that does (`counterparts.rs`).
//! The mutants (`mutants.rs`) are all in one build: every ordering of the core becomes a call
//! that weakens it when the environment says so (`sites.rs`); what no model catches is explained
//! (`survivors.rs`).

mod counterparts;
mod mutants;
mod runner;
mod scratch;
mod sites;
mod survivors;

use crate::Answer;
use crate::house::House;
use counterparts::Counterparts;
use runner::{Model, Ran};
use scratch::Scratch;
pub use scratch::rust_files;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Processor time for which models that have a counterpart are searched, in seconds; `--within` says
/// otherwise.
const MODEL_SECONDS: u64 = 120;

/// Every other model must end; the slowest take half a minute. (One that goes round for ever fails:
/// loom bounds the steps of each execution.)
const MOST_SECONDS: u64 = 300;

/// For each model where they attack planted bugs.
const ATTACKER_LIMIT: Duration = Duration::from_secs(10);

/// Runs every model, or those whose name contains `FILTER`, and their counterparts.
pub fn loom(house: &House, arguments: &[String]) -> Answer<bool> {
    let (within, filter) = loom_options(arguments)?;
    let started = Instant::now();
    let scratch = Scratch::prepare(house, "loom", &|_, text| text.to_owned())?;
    let mut models = runner::list(&scratch.build()?)?;
    let counterparts = Counterparts::read(house, &models)?;
    models.retain(|model| counterparts.is_chosen(model, filter));
    if models.is_empty() {
        return Err(format!("no model is called `{filter}`"));
    }
    let limit = |model: &Model| match counterparts.has(model) {
        true => within,
        false => Duration::from_secs(MOST_SECONDS).max(within),
    };
    let (mut held, mut unfinished, mut failed_count) = (BTreeSet::new(), BTreeSet::new(), 0);
    runner::each(
        &models,
        |model: &Model| runner::run(model, &[], limit(model)),
        |model, ran| {
            show(model, &ran);
            match (ran.passed, ran.timed_out) {
                (true, _) => drop(held.insert(model.name.clone())),
                (false, true) => drop(unfinished.insert(model.name.clone())),
                (false, false) => failed_count += 1,
            }
        },
    )?;
    let open_count = counterparts.judge(&unfinished, &held);
    println!(
        "loom: {} models, {} searched to their end, {failed_count} failed, {} held for {} s and are \
         backed by smaller ones, {open_count} unfinished, {} s with the build",
        models.len(),
        held.len(),
        unfinished.len() - open_count,
        within.as_secs(),
        started.elapsed().as_secs()
    );
    Ok(failed_count + open_count == 0)
}

fn show(model: &Model, ran: &Ran) {
    let verdict = match (ran.passed, ran.timed_out) {
        (true, _) => "ok        ",
        (false, true) => "unfinished",
        (false, false) => "FAILED    ",
    };
    println!("{:7.1} s  {verdict}  {}", ran.seconds, model.name);
    if !ran.passed && !ran.timed_out {
        println!("{}", ran.output.trim_end());
    }
}

fn loom_options(arguments: &[String]) -> Answer<(Duration, &str)> {
    let usage = "usage: cargo xtask loom [--within SECONDS] [FILTER]";
    let (seconds, rest) = match arguments {
        [option, seconds, rest @ ..] if option == "--within" => {
            let seconds = seconds.parse().ok().filter(|seconds| *seconds > 0);
            (seconds.ok_or(usage)?, rest)
        }
        rest => (MODEL_SECONDS, rest),
    };
    let filter = match rest {
        [] => "",
        [filter] if !filter.starts_with('-') => filter,
        _ => return Err(usage.to_owned()),
    };
    Ok((Duration::from_secs(seconds), filter))
}

/// Runs the models against every weakened ordering; see `mutants.rs`.
pub fn ordering_mutants(house: &House, arguments: &[String]) -> Answer<bool> {
    mutants::run(house, arguments)
}

/// The models of one program as an attacker of planted bugs: `loom_core` (the core's protocols step
/// by step), `loom_ring`, `loom_live`. Answers what the first that fails says.
pub fn attack(house: &House, attacker: &str) -> Answer<Option<String>> {
    let scratch = Scratch::prepare(house, "loom", &|_, text| text.to_owned())?;
    let program = match attacker {
        "loom_core" => "stackdepot",
        program => program,
    };
    let mut models = runner::list(&scratch.build()?)?;
    models.retain(|model| model.name.split("::").next() == Some(program));
    for model in &models {
        let ran = runner::run(model, &[], ATTACKER_LIMIT)?;
        if !ran.passed && !ran.timed_out {
            let line = ran.output.lines().find(|line| line.contains("panicked at"));
            return Ok(Some(line.unwrap_or(&model.name).to_owned()));
        }
    }
    Ok(None)
}
