//! `cargo xtask linear`: histories of threads that give way between any two operations on shared
//! words, held against the sequential model.
//!
//! The attacker is a test of the core (`crates/stackdepot/tests/linear`). Its threads give way
//! where faults strike, too, so it is built for these.

use crate::house::House;
use crate::{Answer, attack, child};
use std::process::Command;

const USAGE: &str = "usage: cargo xtask linear [--histories N]";
const HISTORIES: &str = "20000";

/// Records and judges so many histories of each scene.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    let histories = match arguments {
        [] => HISTORIES,
        [option, count] if option == "--histories" && count.parse::<u64>().is_ok() => count,
        _ => return Err(USAGE.to_owned()),
    };
    let mut cargo = tests(house);
    child::attacks("linear", cargo.env("STACKDEPOT_HISTORIES", histories))
}

/// As many histories as every test run has, with its figures shown.
pub fn tests(house: &House) -> Command {
    let mut cargo = house.cargo();
    cargo.args(["test", "--release", "--quiet", "--package", "stackdepot"]);
    cargo.args(["--test", "linear", "--", "--nocapture"]);
    attack::for_faults(house, &mut cargo);
    cargo
}
