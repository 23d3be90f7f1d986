//! `cargo xtask check`: the house rules that a machine can hold the code to.
//!
//! Each rule answers findings, one line each; no finding, no output but its name. The tools'
//! rules (format, clippy, rustdoc) come first, our own (layers, sizes, orderings, paths) after.

mod layers;
mod text;

use crate::house::House;
use crate::{Answer, attackers, child};

/// What is wrong, one line each.
type Findings = Vec<String>;

/// Runs every rule; `Ok(false)` when one found something.
pub fn run(house: &House) -> Answer<bool> {
    let rules: [(&str, Answer<Findings>); 10] = [
        ("format", format(house)),
        ("clippy", clippy(house)),
        ("documentation", documentation(house)),
        ("layers", layers::findings(house)),
        ("file sizes", text::sizes(house)),
        ("orderings", text::orderings(house)),
        ("invariants", text::invariants(house)),
        ("machine paths", text::paths(house)),
        ("licences", text::licences(house)),
        ("planted bugs", attackers::stale(house)),
    ];
    let mut clean = true;
    for (name, findings) in rules {
        let findings = findings?;
        println!(
            "check {name}: {}",
            if findings.is_empty() { "ok" } else { "FAILED" }
        );
        for finding in &findings {
            println!("  {finding}");
        }
        clean &= findings.is_empty();
    }
    Ok(clean)
}

/// Workspaces of their own, which `--all` and `--workspace` do not reach.
const FORMATTED: [&str; 2] = ["fuzz/Cargo.toml", "bench/Cargo.toml"];
const LINTED: [&str; 1] = ["fuzz/Cargo.toml"];

fn format(house: &House) -> Answer<Findings> {
    let mut findings = tool(house, &["fmt", "--all", "--check"], &[])?;
    for manifest in FORMATTED {
        let arguments = ["fmt", "--manifest-path", manifest, "--check"];
        findings.extend(tool(house, &arguments, &[])?);
    }
    Ok(findings)
}

fn clippy(house: &House) -> Answer<Findings> {
    let lints = ["--all-targets", "--quiet", "--", "-D", "warnings"];
    let mut findings = tool(
        house,
        &[&["clippy", "--workspace"], &lints[..]].concat(),
        &[],
    )?;
    // Built beside the product, whose build they would otherwise undo.
    let target = house.target.join("xtask/others").display().to_string();
    for manifest in LINTED {
        let arguments = [&["clippy", "--manifest-path", manifest], &lints[..]].concat();
        findings.extend(tool(house, &arguments, &[("CARGO_TARGET_DIR", &target)])?);
    }
    Ok(findings)
}

fn documentation(house: &House) -> Answer<Findings> {
    let arguments = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--quiet",
    ];
    tool(house, &arguments, &[("RUSTDOCFLAGS", "-D warnings")])
}

/// Runs a cargo tool; what it printed is the finding when it fails.
fn tool(house: &House, arguments: &[&str], variables: &[(&str, &str)]) -> Answer<Findings> {
    let mut cargo = house.cargo();
    let ran = child::run(cargo.args(arguments).envs(variables.iter().copied()))?;
    if ran.status.success() {
        return Ok(Findings::new());
    }
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &ran.errors();
    let lines: Findings = said.lines().map(str::to_owned).collect();
    Ok(if lines.is_empty() {
        vec![format!("cargo {}: {}", arguments.join(" "), ran.status)]
    } else {
        lines
    })
}
