//! Bar 2: exact counts of a known leak, and `who` on a freed block and inside a live one.

use super::{Board, Site};
use crate::Answer;
use crate::house::ask;
use serde_json::Value;
use std::ffi::OsString;

/// Records the leak program and judges what `report` and `who` say about it.
pub fn run(site: &Site, board: &mut Board) -> Answer<()> {
    let work = site.house.work("leak")?;
    let (program, region) = (site.house.program("leak")?, work.join("region"));
    let arguments: [OsString; 6] = [
        "run".into(),
        "--quiet".into(),
        "-o".into(),
        region.clone().into(),
        "--".into(),
        program.into(),
    ];
    let ran = ask(&site.stackdepot, &arguments)?;
    let printed = String::from_utf8_lossy(&ran.stdout).into_owned();
    let words: Vec<&str> = printed.split_whitespace().collect();
    let ["freed", freed, "live", inside, start] = words[..] else {
        return Err(format!(
            "the leak program: {}, {printed:?}, {}",
            ran.status,
            ran.errors()
        ));
    };
    let report = ask(
        &site.stackdepot,
        &[
            "report".into(),
            "--json".into(),
            region.clone().into_os_string(),
        ],
    )?
    .json()?;
    for (function, count, bytes, total) in [
        ("leak_a", 1000, 64_000, Some(1000)),
        ("leak_b", 10, 10 << 20, Some(10)),
        ("churn", 0, 0, Some(1_000_000)),
    ] {
        let sum = |field: &str| {
            through(&report, function)
                .map(|stack| stack[field].as_u64().unwrap_or(u64::MAX))
                .sum::<u64>()
        };
        let found = (
            sum("live_count"),
            sum("live_bytes"),
            Some(sum("total_count")),
        );
        let figure = format!(
            "live {} blocks, {} bytes; {} in all",
            found.0,
            found.1,
            found.2.unwrap_or(0)
        );
        board.judge(
            found == (count, bytes, total),
            &format!("report through {function}"),
            &figure,
        );
    }
    let who = |address: &str| {
        ask(
            &site.stackdepot,
            &[
                "who".into(),
                "--json".into(),
                region.clone().into_os_string(),
                address.into(),
            ],
        )?
        .json()
    };
    board.judge_answer(
        "who on the last block freed",
        who(freed).map(|answer| judge_freed(&answer, freed)),
    );
    board.judge_answer(
        "who inside a live block",
        who(inside).map(|answer| judge_live(&answer, start)),
    );
    let unknown = ask(
        &site.stackdepot,
        &["who".into(), region.into_os_string(), "0x10".into()],
    )?;
    let says = format!("{}", unknown.status);
    board.judge(
        unknown.status.code() == Some(2),
        "who on an address nobody had",
        &says,
    );
    Ok(())
}

/// The report's stacks with a frame of that function.
fn through<'a>(report: &'a Value, function: &'a str) -> impl Iterator<Item = &'a Value> {
    let stacks = report["stacks"].as_array().into_iter().flatten();
    stacks.filter(move |stack| has_frame(&stack["frames"], function))
}

fn has_frame(frames: &Value, function: &str) -> bool {
    frames
        .as_array()
        .into_iter()
        .flatten()
        .any(|frame| frame["function"] == function)
}

fn judge_freed(answer: &Value, address: &str) -> (bool, String) {
    let (allocated, freed) = (&answer["allocated"]["frames"], &answer["freed"]["frames"]);
    let named = [
        (allocated, "churn_take"),
        (allocated, "churn"),
        (freed, "churn_drop"),
        (freed, "churn"),
    ];
    let missing: Vec<&str> = named
        .iter()
        .filter(|(frames, name)| !has_frame(frames, name))
        .map(|(_, name)| *name)
        .collect();
    let block = &answer["block"];
    (
        missing.is_empty() && block["address"] == address,
        format!("block {block}, functions not named: {missing:?}"),
    )
}

fn judge_live(answer: &Value, start: &str) -> (bool, String) {
    let block = &answer["block"];
    let passed = block["address"] == start
        && block["offset"] == 4321
        && block["size"] == 1 << 20
        && answer["freed"].is_null()
        && has_frame(&answer["allocated"]["frames"], "leak_b");
    (passed, format!("block {block}"))
}
