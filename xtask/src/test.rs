//! `cargo xtask test`: everything that must be green before a change goes in.
//!
//! The house rules, every test of the workspace (with the big corpora where they are), the loom
//! models of the core (each for some seconds), its attack by faults, the histories of threads that
//! give way and the hostile load. `--quick` leaves out the last four.

use crate::house::House;
use crate::{Answer, attack, check, hostile, linear};
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
    let deep = [
        loom(house),
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

/// Seconds after which a model is left unfinished here; `cargo xtask loom` lets each run to its end.
const MODEL_SECONDS: &str = "15";

/// The models run in a build folder of their own: `cfg(loom)` would rebuild everything else.
fn loom(house: &House) -> Command {
    let mut cargo = house.cargo();
    cargo.args(["test", "--release", "--package", "stackdepot", "--tests"]);
    cargo
        .env("RUSTFLAGS", "--cfg loom")
        .env("LOOM_MAX_DURATION", MODEL_SECONDS)
        .env("CARGO_TARGET_DIR", house.target.join("loom"));
    cargo
}

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
