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

/// Longest time for one model; the whole suite is meant to take four minutes.
const MODEL_LIMIT: Duration = Duration::from_secs(600);

/// The same for a model as an attacker of planted bugs: then it is left unfinished.
const ATTACKER_LIMIT: Duration = Duration::from_secs(10);

/// Runs every model, or those whose name contains `FILTER`.
pub fn loom(house: &House, arguments: &[String]) -> Answer<bool> {
    let filter = match arguments {
        [] => "",
        [filter] if !filter.starts_with('-') => filter,
        _ => return Err("usage: cargo xtask loom [FILTER]".to_owned()),
    };
    let started = Instant::now();
    let scratch = Scratch::prepare(house, "loom", &|_, text| text.to_owned())?;
    let mut models = runner::list(&scratch.build()?)?;
    models.retain(|model| model.name.contains(filter));
    if models.is_empty() {
        return Err(format!("no model is called `{filter}`"));
    }
    let mut failed_count = 0;
    runner::each(
        &models,
        |model: &Model| runner::run(model, &[], MODEL_LIMIT),
        |model, ran| {
            println!(
                "{:7.1} s  {}  {}",
                ran.seconds,
                if ran.passed { "ok    " } else { "FAILED" },
                model.name
            );
            if !ran.passed {
                failed_count += 1;
                println!("{}", ran.output.trim_end());
            }
        },
    )?;
    let seconds = started.elapsed().as_secs();
    println!(
        "loom: {} models, {failed_count} failed, {seconds} s with the build",
        models.len()
    );
    Ok(failed_count == 0)
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
