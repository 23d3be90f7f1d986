//! Bar 1: a fresh clone records a real program; an installed command does without its checkout.

use super::{Board, Site};
use crate::{Answer, child};
use std::fs;
use std::process::Command;

/// Judges README's first command in a clone, then `cargo install` with the clone deleted.
pub fn run(site: &Site, board: &mut Board) -> Answer<()> {
    let work = site.house.work("fresh")?;
    let (clone, installed) = (work.join("clone"), work.join("installed"));
    child::must(
        Command::new("git")
            .args(["clone", "--quiet", "--no-hardlinks"])
            .arg(&site.house.root)
            .arg(&clone),
    )?;
    let first = child::run(
        Command::new("./try")
            .current_dir(&clone)
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    let said = String::from_utf8_lossy(&first.stdout).into_owned() + &first.errors();
    let shows_report = said.contains("sqlite3") && said.contains("live");
    board.judge(
        first.status.success() && shows_report,
        "./try in a fresh clone",
        &first.status.to_string(),
    );

    let mut install = site.house.cargo();
    install
        .current_dir(&clone)
        .env("CARGO_TARGET_DIR", work.join("target"));
    child::must(
        install
            .args(["install", "--quiet", "--root"])
            .arg(&installed)
            .args(["--path", "crates/stackdepot-cli"]),
    )?;
    for folder in [&clone, &work.join("target")] {
        fs::remove_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let region = work.join("region");
    let command = installed.join("bin/stackdepot");
    let recorded = child::run(
        Command::new(&command)
            .args(["run", "--quiet", "-o"])
            .arg(&region)
            .args(["--", "sqlite3", ":memory:", "select 1"]),
    )?;
    let report = child::run(
        Command::new(&command)
            .args(["report", "--json"])
            .arg(&region),
    )?
    .json();
    let events = report
        .ok()
        .and_then(|report| report["events"].as_u64())
        .unwrap_or(0);
    let passed = recorded.status.success() && recorded.stdout == b"1\n" && events > 0;
    board.judge(
        passed,
        "installed, checkout deleted",
        &format!("{}, {events} events", recorded.status),
    );
    Ok(())
}
