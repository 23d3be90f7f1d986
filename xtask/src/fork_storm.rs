//! `cargo xtask fork-storm`: forks of a program whose other threads malloc and free without pause.
//!
//! The attacker is a test of the preload library (`crates/stackdepot-preload/tests/fork_storm.rs`),
//! which says what is wrong; here is only how often it forks.

use crate::house::House;
use crate::{Answer, child};
use std::process::Command;

const USAGE: &str = "usage: cargo xtask fork-storm [--forks N]";
const FORKS: &str = "1000";

/// Runs it in full, or with as many forks as asked.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let forks = match arguments {
        [] => FORKS,
        [option, forks] if option == "--forks" && forks.parse::<u32>().is_ok() => forks,
        _ => return Err(USAGE.to_owned()),
    };
    let mut cargo = tests(house);
    child::attacks("fork-storm", cargo.env("STACKDEPOT_FORKS", forks))
}

/// A shorter storm, long enough for the planted bugs, with its figures shown.
pub fn tests(house: &House) -> Command {
    let mut cargo = house.cargo();
    cargo.args([
        "test",
        "--release",
        "--quiet",
        "--package",
        "stackdepot-preload",
    ]);
    cargo.args(["--test", "fork_storm", "--", "--nocapture"]);
    cargo.env("STACKDEPOT_FORKS", "200");
    cargo
}
