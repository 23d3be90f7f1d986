//! Bars 4 and 5: `stackdepot replay` on every recorded workload.

use super::{Board, Site};
use crate::Answer;
use crate::house::ask;
use serde_json::Value;
use std::path::Path;

/// Each corpus, its small region for a ring of 4096 events, and its most bytes per stack.
const CORPORA: [(&str, u64, f64); 5] = [
    ("sqlite", 128 << 10, 115.0),
    ("kernel", 128 << 10, 125.0),
    ("node", 1 << 20, 155.0),
    ("python", 1 << 20, 105.0),
    ("clang", 1 << 20, 165.0),
];
const MISSING: &str = "no corpora: set STACKDEPOT_CORPORA to the folder of NAME.stk.zst";

/// One replay to judge.
struct Case {
    corpus: &'static str,
    threads: u64,
    bytes: u64,
    hold: &'static str,
    ring: Option<u64>,
    must_evict: bool,
}

/// Bar 4: exact, complete and within the bound, whatever is held.
pub fn exact(site: &Site, board: &mut Board) -> Answer<()> {
    let folder = site.house.corpora().ok_or(MISSING)?;
    for (corpus, small_bytes, _) in CORPORA {
        for threads in [1, 2] {
            let plain = |hold| Case {
                corpus,
                threads,
                bytes: 64 << 20,
                hold,
                ring: None,
                must_evict: false,
            };
            let small = Case {
                corpus,
                threads,
                bytes: small_bytes * threads,
                hold: "lease",
                ring: Some(4096),
                must_evict: true,
            };
            let cache = Case {
                corpus,
                threads,
                bytes: 256 << 10,
                hold: "none",
                ring: None,
                must_evict: false,
            };
            for case in [plain("none"), plain("lease"), plain("ref"), small, cache] {
                let item = format!(
                    "{corpus} threads {threads} hold {} bytes {}",
                    case.hold, case.bytes
                );
                board.judge_answer(&item, judge(site, &folder, &case));
            }
        }
    }
    Ok(())
}

/// Bar 5: bytes per stack in the smallest region that holds a corpus.
pub fn fit(site: &Site, board: &mut Board) -> Answer<()> {
    let folder = site.house.corpora().ok_or(MISSING)?;
    for (corpus, _, most) in CORPORA {
        let answer = replay(site, &folder, corpus, &["--fit".to_owned()]).and_then(|answer| {
            let (unique, bytes) = (
                number(&answer, "unique_stacks")?,
                number(&answer, "depot_bytes")?,
            );
            let per_stack = bytes as f64 / unique as f64;
            Ok((
                per_stack <= most,
                format!("{per_stack:.1} bytes per stack (at most {most})"),
            ))
        });
        board.judge_answer(&format!("{corpus} fit"), answer);
    }
    Ok(())
}

fn replay(site: &Site, folder: &Path, corpus: &str, options: &[String]) -> Answer<Value> {
    let mut words = vec!["replay".to_owned(), "--json".to_owned()];
    words.extend_from_slice(options);
    words.push(
        folder
            .join(format!("{corpus}.stk.zst"))
            .to_string_lossy()
            .into_owned(),
    );
    ask(&site.stackdepot, &words)?.json()
}

fn number(answer: &Value, name: &str) -> Answer<u64> {
    answer[name]
        .as_u64()
        .ok_or_else(|| format!("the answer has no number `{name}`"))
}

fn judge(site: &Site, folder: &Path, case: &Case) -> Answer<(bool, String)> {
    let mut options = vec!["--threads".to_owned(), case.threads.to_string()];
    options.extend([
        "--bytes".to_owned(),
        case.bytes.to_string(),
        "--hold".to_owned(),
        case.hold.to_owned(),
    ]);
    if let Some(ring) = case.ring {
        options.extend(["--ring".to_owned(), ring.to_string()]);
    }
    let answer = replay(site, folder, case.corpus, &options)?;
    let of = |name: &str| number(&answer, name);
    let (saves, contended, full) = (of("saves")?, of("contended")?, of("full")?);
    let (expected, checked) = (of("ring_expected")?, of("ring_checked")?);
    let answered = of("fetched")? + of("evicted_before_fetch")?;
    let refused = full + contended + answer["crowded"].as_u64().unwrap_or(0);
    let rules = [
        (of("mismatches")? == 0, "mismatches"),
        (of("ring_missing")? == 0, "ring_missing"),
        (of("truncated")? == 0, "truncated"),
        (full == 0, "full"),
        (of("depot_bytes")? <= case.bytes, "depot_bytes"),
        (
            saves == case.threads * of("events")? || saves == of("events")?,
            "saves",
        ),
        (
            answered + refused == saves,
            "fetched + evicted_before_fetch",
        ),
        // The tolerances: none on one thread; on two, 1e-6 contended and 1 % of the ring.
        (
            if case.threads == 1 {
                contended == 0
            } else {
                contended * 1_000_000 <= saves
            },
            "contended",
        ),
        (
            if case.threads == 1 {
                checked == expected
            } else {
                checked * 100 >= expected * 99
            },
            "ring_checked",
        ),
        (case.hold != "lease" || expected > 0, "ring_expected"),
        (!case.must_evict || of("evicted")? > 0, "evicted"),
        (case.hold != "none" || refused == 0, "every save answered"),
    ];
    let broken: Vec<&str> = rules
        .iter()
        .filter_map(|(holds, name)| (!holds).then_some(*name))
        .collect();
    let figure = format!(
        "mismatches {}, full {full}, contended {contended}, evicted {}, ring {checked}/{expected}, {} bytes, {:.0} ns; broken: {broken:?}",
        of("mismatches")?,
        of("evicted")?,
        of("depot_bytes")?,
        answer["ns_per_save"].as_f64().unwrap_or(0.0)
    );
    Ok((broken.is_empty(), figure))
}
