//! What a run leaves behind: a table for the terminal, JSON for programs, a chart for README.
//!
//! Key type: [`Report`]. `table`, `json` and `chart` each turn it into text; nobody of them measures.

pub mod chart;
pub mod json;
pub mod table;

use crate::bars::{Clause, Finding};
use crate::bound::AtBound;
use crate::figure::{Figure, Measure};
use crate::instructions::Count;
use crate::statistics::Ratio;

/// Whom ours is compared with in every table.
pub const REFERENCES: [&str; 3] = ["LLVM", "Linux refcounted", "limit"];
/// What ours is called.
const OURS: &str = "ours";

/// All that a run found.
#[derive(Default)]
pub struct Report {
    /// The rounds of every side.
    pub figures: Vec<Figure>,
    /// Hit ratios at the bound.
    pub sizes: Vec<AtBound>,
    /// Instructions.
    pub counts: Vec<Count>,
    /// What became of the bars that were judged.
    pub findings: Vec<(Clause, Finding)>,
}

impl Report {
    /// The measures with their units, in the order in which they were taken.
    fn measures(&self) -> Vec<(Measure, &'static str)> {
        distinct(
            self.figures
                .iter()
                .map(|figure| (figure.measure, figure.unit)),
        )
    }

    fn workloads(&self, measure: Measure) -> Vec<&str> {
        distinct(self.of(measure).map(|figure| figure.workload.as_str()))
    }

    fn sides(&self, measure: Measure) -> Vec<&str> {
        distinct(self.of(measure).map(|figure| figure.side.as_str()))
    }

    fn of(&self, measure: Measure) -> impl Iterator<Item = &Figure> {
        self.figures
            .iter()
            .filter(move |figure| figure.measure == measure)
    }

    /// The rounds of a side; none if it has no figure.
    fn rounds(&self, measure: Measure, workload: &str, side: &str) -> Option<&[f64]> {
        let found = self
            .of(measure)
            .find(|figure| figure.workload == workload && figure.side == side);
        found
            .map(|figure| figure.rounds.as_slice())
            .filter(|rounds| !rounds.is_empty())
    }

    /// Ours over a side.
    fn ratio(&self, measure: Measure, workload: &str, side: &str) -> Option<Ratio> {
        let ours = self.rounds(measure, workload, OURS)?;
        Some(Ratio::new(ours, self.rounds(measure, workload, side)?))
    }
}

/// Each item once, where it came first.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut seen = Vec::new();
    for item in items {
        if !seen.contains(&item) {
            seen.push(item);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two workloads; on the second one LLVM is missing.
    pub(super) fn report() -> Report {
        let figure = |measure, workload: &str, side: &str, unit, value: f64| Figure {
            measure: Measure(measure),
            workload: workload.to_owned(),
            side: side.to_owned(),
            unit,
            rounds: vec![value, value * 1.1, value, value * 0.9, value],
        };
        Report {
            figures: vec![
                figure("save stored", "sqlite", "ours", "ns", 30.0),
                figure("save stored", "sqlite", "LLVM", "ns", 20.0),
                figure("save stored", "sqlite", "limit", "ns", 10.0),
                figure("save stored", "a<b", "ours", "ns", 31.0),
                figure("resident memory per stack", "sqlite", "ours", "bytes", 98.0),
            ],
            ..Report::default()
        }
    }

    #[test]
    fn ratios_are_there_where_both_sides_are() {
        let report = report();
        let measure = Measure("save stored");
        assert_eq!(report.workloads(measure), ["sqlite", "a<b"]);
        assert_eq!(report.sides(measure), ["ours", "LLVM", "limit"]);
        assert_eq!(report.ratio(measure, "sqlite", "LLVM").unwrap().value, 1.5);
        assert!(report.ratio(measure, "a<b", "LLVM").is_none());
    }
}
