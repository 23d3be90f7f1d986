//! `cargo xtask bench`: ours beside every peer and beside the limit.
//!
//! Builds the command, the peers (`bench/peers.rs`) and the benchmark, whose workspace is its own,
//! and runs it. What it measures and how is written in `bench/` and `docs/performance.md`.

mod packages;
mod peers;

use crate::house::House;
use crate::{Answer, child};
use std::path::PathBuf;
use std::process::Command;

const USAGE: &str =
    "usage: cargo xtask bench [--bars] [--corpora DIR] [--rounds N] [--task NAME,...]
                         [--on WORKLOAD,...] [--json FILE] [--svg FILE]
       cargo xtask bench --instructions | --record-instructions REASON   (callgrind; no timing)";

/// Builds all and measures; `Ok(false)` when bars were asked for and one is not met.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    if arguments.iter().any(|word| word == "--help") {
        println!("{USAGE}");
        return Ok(true);
    }
    let folder = house.target.join("xtask/bench");
    std::fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let peers = peers::build(house, &folder)?;
    let mut bench = Command::new(build(house)?);
    bench.arg("--peers").arg(peers);
    bench.arg("--work").arg(&folder);
    bench.arg("--checkout").arg(&house.root);
    let is_given = |option: &str| arguments.iter().any(|word| word == option);
    let only_counts = is_given("--instructions") || is_given("--record-instructions");
    if !only_counts {
        bench.arg("--stackdepot").arg(house.stackdepot()?);
    }
    if !is_given("--corpora") {
        match house.corpora() {
            Some(corpora) => _ = bench.arg("--corpora").arg(corpora),
            // The record is about workloads that are always at hand.
            None if only_counts => {}
            None => {
                return Err("no recorded workloads: name their folder with --corpora DIR".into());
            }
        }
    }
    let status = bench.args(arguments).status();
    match status.map_err(|e| format!("bench: {e}"))?.code() {
        Some(0) => Ok(true),
        Some(1) => Ok(false),
        _ => Err(format!("the benchmark failed, see above\n{USAGE}")),
    }
}

/// Builds the benchmark and answers where it lies.
fn build(house: &House) -> Answer<PathBuf> {
    let target = house.target.join("bench");
    let mut cargo = house.cargo();
    cargo.args(["build", "--release", "--quiet", "--locked"]);
    cargo
        .arg("--manifest-path")
        .arg(house.root.join("bench/Cargo.toml"));
    child::must(cargo.arg("--target-dir").arg(&target))?;
    Ok(target.join("release/stackdepot-bench"))
}
