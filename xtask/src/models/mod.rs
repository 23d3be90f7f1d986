//! `cargo xtask loom` and `cargo xtask ordering-mutants`: the models of the core.
//!
//! Both build a copy of the core in the build folder against loom with its search mended
//! (`scratch.rs`), and run each model in a process of its own, two at a time (`runner.rs`).
//! The mutants (`mutants.rs`) are all in one build: every ordering of the core becomes a call
//! that weakens it when the environment says so (`sites.rs`); what no model catches is explained
//! (`survivors.rs`).

mod mutants;
mod runner;
mod scratch;
mod sites;
mod survivors;

use crate::Answer;
use crate::house::House;
use runner::Model;
use scratch::Scratch;
pub use scratch::rust_files;
use std::time::{Duration, Instant};

/// Processor time after which a model is left unfinished, in seconds; `--within` says otherwise.
/// (A model that goes round for ever fails: loom bounds the steps of each execution.)
const MODEL_SECONDS: u64 = 120;

/// The same where the models attack planted bugs.
const ATTACKER_LIMIT: Duration = Duration::from_secs(10);

/// Runs every model, or those whose name contains `FILTER`.
pub fn loom(house: &House, arguments: &[String]) -> Answer<bool> {
    let (within, filter) = loom_options(arguments)?;
    let started = Instant::now();
    let scratch = Scratch::prepare(house, "loom", &|_, text| text.to_owned())?;
    let mut models = runner::list(&scratch.build()?)?;
    models.retain(|model| model.name.contains(filter));
    if models.is_empty() {
        return Err(format!("no model is called `{filter}`"));
    }
    let (mut failed_count, mut unfinished_count) = (0, 0);
    runner::each(
        &models,
        |model: &Model| runner::run(model, &[], within),
        |model, ran| {
            let verdict = match (ran.passed, ran.timed_out) {
                (true, _) => "ok        ",
                (false, true) => "unfinished",
                (false, false) => "FAILED    ",
            };
            println!("{:7.1} s  {verdict}  {}", ran.seconds, model.name);
            unfinished_count += usize::from(ran.timed_out);
            if !ran.passed && !ran.timed_out {
                failed_count += 1;
                println!("{}", ran.output.trim_end());
            }
        },
    )?;
    println!(
        "loom: {} models, {failed_count} failed, {unfinished_count} held for {} s without an end, \
         {} s with the build",
        models.len(),
        within.as_secs(),
        started.elapsed().as_secs()
    );
    Ok(failed_count == 0)
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
