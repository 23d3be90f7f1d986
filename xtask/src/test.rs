//! `cargo xtask test`: everything that must be green before a change goes in.
//!
//! The house rules, every test of the workspace (with the big corpora where they are), the loom
//! models of the core (those without an end for some seconds), its attack by faults, the histories of threads that
//! give way and the hostile load. `--quick` leaves out the last four.

use crate::house::House;
use crate::{Answer, attack, check, hostile, linear, models};
use std::process::Command;

/// Runs all of it, with the tools' own output; stops at the first that fails.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let quick = match arguments {
        [] => false,
        [only] if only == "--quick" => true,
        _ => return Err("usage: cargo xtask test [--quick]".to_owned()),
    };
    if !check::run(house)? {
        return Ok(false);
    }
    let models = ["--within", MODEL_SECONDS].map(str::to_owned);
    if !quick && !models::loom(house, &models)? {
        return Ok(false);
    }
    let deep = [
        attack::fault_tests(house),
        linear::tests(house),
        hostile::tests(house, ""),
    ];
    for mut tests in deep.into_iter().filter(|_| !quick) {
        if !passes(&mut tests)? {
            return Ok(false);
        }
    }
    // Last, so that cargo's own closing lines close the output.
    passes(house.cargo().args(["test", "--workspace", "--release"]))
}

/// Seconds for which models that do not end are searched here.
const MODEL_SECONDS: &str = "15";

fn passes(command: &mut Command) -> Answer<bool> {
    println!("$ {}", shown(command));
    let status = command
        .status()
        .map_err(|e| format!("{}: {e}", shown(command)))?;
    Ok(status.success())
}

fn shown(command: &Command) -> String {
    let words = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned());
    format!("cargo {}", words.collect::<Vec<_>>().join(" "))
}
