//! `cargo xtask soak`, `every-instruction`, `fault`: the core's attackers for longer, or in full,
//! than its tests run them.
//!
//! The attackers are tests of the core (`crates/stackdepot/tests/attack`); here are only their
//! settings. Each prints its figures and fails when it finds something.

use crate::house::House;
use crate::{Answer, child};
use std::process::Command;

/// Attacks for some time: threads, handlers, forks, kills, reopens.
pub fn soak(house: &House, arguments: &[String]) -> Answer<bool> {
    let usage = "usage: cargo xtask soak [--seconds N] [--seed N]";
    let mut cargo = tests(house, "soak");
    cargo.env("STACKDEPOT_SOAK_SECONDS", "60");
    for (option, variable) in [
        ("--seconds", "STACKDEPOT_SOAK_SECONDS"),
        ("--seed", "STACKDEPOT_SEED"),
    ] {
        if let Some(value) = value(arguments, option, usage)? {
            cargo.env(variable, value.to_string());
        }
    }
    child::attacks("soak", &mut cargo)
}

/// Interrupts each operation at every instruction, or at one in `--sample`.
pub fn every_instruction(house: &House, arguments: &[String]) -> Answer<bool> {
    let usage = "usage: cargo xtask every-instruction [--sample N]";
    let sample = value(arguments, "--sample", usage)?.unwrap_or(1);
    if sample == 0 {
        return Err(usage.to_owned());
    }
    let mut cargo = tests(house, "every_instruction");
    cargo.env("STACKDEPOT_SAMPLE", sample.to_string());
    child::attacks("every-instruction", &mut cargo)
}

/// Dies, or runs a handler, before every operation on a shared word.
pub fn fault(house: &House, arguments: &[String]) -> Answer<bool> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask fault".to_owned());
    }
    child::attacks("fault", &mut fault_tests(house))
}

/// The attack by faults, in a build folder of its own: its `cfg` would rebuild everything else.
pub fn fault_tests(house: &House) -> Command {
    let mut cargo = tests(house, "fault");
    for_faults(house, &mut cargo);
    cargo
}

/// Has each operation on a shared word ask whether something is to happen before it.
pub fn for_faults(house: &House, cargo: &mut Command) {
    cargo
        .env("RUSTFLAGS", "--cfg stackdepot_fault")
        .env("CARGO_TARGET_DIR", house.target.join("fault"));
}

/// The tests of one attacker, optimised, with its figures shown.
pub fn tests(house: &House, attacker: &str) -> Command {
    let mut cargo = house.cargo();
    cargo.args(["test", "--release", "--quiet", "--package", "stackdepot"]);
    cargo.args(["--test", "attack", "--", "--nocapture"]);
    cargo.arg(format!("{attacker}::"));
    cargo
}

/// The number after an option, which may be given once and alone or with the others.
fn value(arguments: &[String], option: &str, usage: &str) -> Answer<Option<u64>> {
    let (pairs, rest) = arguments.as_chunks::<2>();
    let is_known = |pair: &[String; 2]| usage.contains(&format!("[{} N]", pair[0]));
    if !rest.is_empty() || !pairs.iter().all(is_known) {
        return Err(usage.to_owned());
    }
    let given = pairs.iter().find(|pair| pair[0] == option);
    given
        .map(|pair| pair[1].parse().map_err(|_| usage.to_owned()))
        .transpose()
}
