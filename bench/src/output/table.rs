//! The table for the terminal: a block for each measure, a column for each workload.
//!
//! A cell is the median and half the distance between the quartiles. Below the sides stand the
//! ratios of ours to LLVM, to Linux with references and to the limit, where they took part.

use std::fmt::Write;

use super::{REFERENCES, Report};
use crate::bound::AtBound;
use crate::statistics::{median, quartiles};

/// Width of the names and of a column.
const NAME: usize = 26;
const COLUMN: usize = 16;

/// The whole report.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    for (measure, unit) in report.measures() {
        let workloads = report.workloads(measure);
        let _ = writeln!(out, "{}, {unit}", measure.0);
        row(
            &mut out,
            "",
            workloads.iter().map(|name| (*name).to_owned()),
        );
        for side in report.sides(measure) {
            let cells = workloads.iter().map(|workload| {
                let rounds = report.rounds(measure, workload, side);
                rounds.map_or_else(|| "-".to_owned(), cell)
            });
            row(&mut out, side, cells);
        }
        for side in REFERENCES {
            let ratios: Vec<_> = workloads
                .iter()
                .map(|workload| report.ratio(measure, workload, side))
                .collect();
            if ratios.iter().any(Option::is_some) {
                let cells = ratios.iter().map(|ratio| {
                    ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{:.2}", ratio.value))
                });
                row(&mut out, &format!("ours / {side}"), cells);
            }
        }
        out.push('\n');
    }
    hits(&mut out, &report.sizes);
    out
}

fn row(out: &mut String, name: &str, cells: impl Iterator<Item = String>) {
    let _ = write!(out, "  {name:<NAME$}");
    for cell in cells {
        let _ = write!(out, "{cell:>COLUMN$}");
    }
    out.push('\n');
}

fn cell(rounds: &[f64]) -> String {
    let (low, high) = quartiles(rounds);
    let middle = median(rounds);
    let digits = if middle < 10.0 {
        2
    } else if middle < 1000.0 {
        1
    } else {
        0
    };
    format!("{middle:.digits$} ±{:.digits$}", (high - low) / 2.0)
}

fn hits(out: &mut String, sizes: &[AtBound]) {
    if sizes.is_empty() {
        return;
    }
    let _ = writeln!(out, "hits per save at the bound, %");
    let heads = [
        "stacks held",
        "ours",
        "LRU",
        "SIEVE",
        "S3-FIFO",
        "optimum",
        "refused",
    ];
    row(out, "", heads.iter().map(|head| (*head).to_owned()));
    for size in sizes {
        let ratios = [size.ours, size.lru, size.sieve, size.s3fifo, size.belady];
        let percents = ratios.iter().map(|ratio| format!("{:.2}", ratio * 100.0));
        let cells = [size.held_count.to_string()]
            .into_iter()
            .chain(percents)
            .chain([size.refused_count.to_string()]);
        row(out, &format!("{} / {}", size.workload, size.divisor), cells);
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;

    #[test]
    fn a_block_has_every_side_and_the_ratios_that_there_are() {
        let text = super::text(&report());
        let block: Vec<&str> = text.split("\n\n").next().unwrap().lines().collect();
        assert_eq!(block.len(), 7, "{text}");
        assert!(block[0] == "save stored, ns" && block[1].contains("a<b"));
        assert!(block[2].contains("30.0 ±0.0") && block[2].contains("31.0"));
        assert!(block[5].contains("ours / LLVM") && block[5].contains("1.50"));
        assert!(block[6].contains("ours / limit") && block[6].ends_with('-'));
    }
}
