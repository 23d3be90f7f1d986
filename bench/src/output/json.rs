//! The result as one JSON document, for whoever compares runs.

use serde_json::{Value, json};

use super::{REFERENCES, Report};
use crate::statistics::{Ratio, median, quartiles};

/// The whole report, with what is known of the machine.
pub fn text(report: &Report) -> String {
    let document = json!({
        "machine": machine(),
        "figures": figures(report),
        "ratios": ratios(report),
        "at_bound": at_bound(report),
        "instructions": instructions(report),
        "bars": bars(report),
    });
    // Numbers and strings: there is nothing in it that JSON cannot say.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

fn machine() -> Value {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map(|rest| rest.trim_start_matches([' ', '\t', ':']));
    json!({
        "processor": model,
        "processors": std::thread::available_parallelism().map_or(1, usize::from),
    })
}

fn figures(report: &Report) -> Vec<Value> {
    let figure = |figure: &crate::figure::Figure| {
        let (first, third) = quartiles(&figure.rounds);
        json!({
            "measure": figure.measure.0,
            "workload": figure.workload,
            "side": figure.side,
            "unit": figure.unit,
            "median": median(&figure.rounds),
            "quartiles": [first, third],
            "rounds": figure.rounds,
        })
    };
    report.figures.iter().map(figure).collect()
}

fn ratios(report: &Report) -> Vec<Value> {
    let mut all = Vec::new();
    for (measure, _) in report.measures() {
        for workload in report.workloads(measure) {
            for side in REFERENCES {
                if let Some(ratio) = report.ratio(measure, workload, side) {
                    all.push(json!({
                        "measure": measure.0,
                        "workload": workload,
                        "to": side,
                        "ratio": of(ratio),
                    }));
                }
            }
        }
    }
    all
}

/// A ratio of few rounds has no interval: infinite ends become null.
fn of(ratio: Ratio) -> Value {
    json!({"value": ratio.value, "low": ratio.low, "high": ratio.high})
}

fn at_bound(report: &Report) -> Vec<Value> {
    let size = |size: &crate::bound::AtBound| {
        json!({
            "workload": size.workload,
            "divisor": size.divisor,
            "slots": size.slot_count,
            "held_stacks": size.held_count,
            "refused": size.refused_count,
            "hit_ratios": {
                "ours": size.ours,
                "lru": size.lru,
                "sieve": size.sieve,
                "s3fifo": size.s3fifo,
                "optimum": size.belady,
            },
            "failures": size.failures(),
        })
    };
    report.sizes.iter().map(size).collect()
}

fn instructions(report: &Report) -> Vec<Value> {
    let count = |count: &crate::instructions::Count| {
        json!({
            "path": count.path,
            "side": count.side,
            "workload": count.workload,
            "instructions": count.instructions,
        })
    };
    report.counts.iter().map(count).collect()
}

fn bars(report: &Report) -> Vec<Value> {
    let finding = |(clause, finding): &(crate::bars::Clause, crate::bars::Finding)| {
        let ratio = |(workload, ratio, verdict): &(String, Ratio, _)| {
            json!({
                "workload": workload,
                "ratio": of(*ratio),
                "verdict": format!("{verdict}"),
            })
        };
        json!({
            "bar": clause.number,
            "ours": clause.ours.0,
            "theirs": clause.theirs.0,
            "side": clause.side,
            "limit": clause.bar.to_string(),
            "verdict": finding.verdict.to_string(),
            "workloads": finding.ratios.iter().map(ratio).collect::<Vec<_>>(),
            "missing": finding.missing,
        })
    };
    report.findings.iter().map(finding).collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;
    use crate::figure::Measure;

    #[test]
    fn the_document_has_every_figure_and_ratio() {
        let report = report();
        let document: Value = serde_json::from_str(&text(&report)).unwrap();
        assert_eq!(document["figures"].as_array().unwrap().len(), 5);
        assert_eq!(document["figures"][0]["median"], 30.0);
        assert_eq!(document["ratios"].as_array().unwrap().len(), 2);
        assert_eq!(document["ratios"][0]["ratio"]["value"], 1.5);
    }

    #[test]
    fn an_interval_that_is_not_known_is_null() {
        let mut report = report();
        report.figures[0].rounds.truncate(2);
        let ratio = report.ratio(Measure("save stored"), "sqlite", "LLVM");
        assert!(of(ratio.unwrap())["high"].is_null());
    }
}
