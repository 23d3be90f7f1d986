//! `cargo xtask hostile`: frames that are chosen to collide, and limits that are met all at once.
//!
//! The attackers are tests of the core (`crates/stackdepot/tests/hostile`). They count what a save
//! looks at and writes, so they are built with the atomics of faults, which can be watched.

use crate::house::House;
use crate::{Answer, attack, child};
use std::process::Command;

/// Runs all of them.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    if !arguments.is_empty() {
        return Err("usage: cargo xtask hostile".to_owned());
    }
    child::attacks("hostile", &mut tests(house, ""))
}

/// The tests whose name contains `filter`, or all, with their figures shown.
pub fn tests(house: &House, filter: &str) -> Command {
    let mut cargo = house.cargo();
    cargo.args(["test", "--release", "--quiet", "--package", "stackdepot"]);
    cargo.args(["--test", "hostile", "--", "--nocapture", filter]);
    attack::for_faults(house, &mut cargo);
    cargo
}
